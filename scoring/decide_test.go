package scoring

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/lodestonehq/lodestone"
)

// decideConfig is testConfig with what is known of forms and bands.
func decideConfig() Config {
	c := testConfig()
	c.FormFields = map[string]map[string]bool{
		"pricing-guide": {"email": true, "company_size": false, "seats": false, "country": true, "title": false, "terms": false},
		"webinar":       {"email": true, "country": false, "title": false, "city": false, "newsletter": false},
	}
	c.BandRanges = []BandRange{{"hot", 60, math.Inf(1)}, {"warm", 30, 60}, {"cold", math.Inf(-1), 30}}
	return c
}

func analyse(t testing.TB, s *Schema, source string, kind Kind) *Analysis {
	t.Helper()
	p, err := s.Compile(source, kind)
	if err != nil {
		t.Fatalf("%s: %v", source, err)
	}
	return p.Analyse()
}

func TestNeverTrue(t *testing.T) {
	s := NewSchema(decideConfig())
	for _, source := range []string{
		`false`, `not true`, `1 > 2`, `"a" == "b"`,
		`band == "hot" and band == "cold"`,
		`form == "webinar" and form == "pricing-guide"`,
		`fields.company_size > 10 and fields.company_size < 5`,
		`fields.company_size > 10 and not (fields.company_size > 5)`,
		`fields.company_size >= 10 and fields.company_size < 10`,
		`5 > fields.seats > 10`,
		`score > 59 and score < 60`,
		`lead.submissions < 0`,
		`risk.score > 100`, `risk.score < 0`, `risk.token_uses < 0`, `risk.source_submissions > 1 and risk.source_submissions < 2`,
		`band == "hot" and score < 60`,
		`band in ["hot", "warm"] and score < 30`,
		`band != "cold" and score < 30`,
		`form == "webinar" and fields.company_size > 10`,
		`form == "pricing-guide" and fields.city == "Berlin"`,
		`fields.city == "Berlin" and fields.seats > 1`, // no form has both
		`form == "pricing-guide" and fields.country == nil`,
		`lead.email == nil`, `form == nil`,
		`fields.country == nil and fields.country == "DE"`,
		`fields.country == nil and fields.country != "DE"`,
		`fields.country == "DE" and fields.country not in ["DE", "AT"]`,
		`fields.country in ["DE", "AT"] and fields.country in ["FR", "ES"]`,
		`fields.country in ["DE", "AT"] and fields.country startsWith "F"`,
		`fields.title contains "a" and fields.title not contains "a"`,
		`fields.title contains "a" and not (fields.title contains "a")`,
		`matches(fields.title, "x") and not matches(fields.title, "x")`,
		`fields.title contains "a" and fields.title == nil`,
		`lead.domain in lists.competitors and lead.domain == "good.example"`,
		`lead.domain in lists.competitors and lead.domain not in lists.competitors`,
		`lead.domain == "Gmail.com"`, `lower(fields.country) == "DE"`, `upper(fields.country) in ["de", "at"]`,
		`trim(fields.title) == " x"`, `len(fields.title) < 0`,
		`fields.terms and not fields.terms`, `fields.terms == true and fields.terms == false`, `fields.terms and fields.terms == nil`,
		`(fields.seats ?? 0) > 5 and fields.seats == nil`,
		`(fields.seats ?? 0) > 5 and fields.seats < 3`,
		`(fields.terms ? fields.seats : 0) > 5 and not fields.terms`,
		`days_since(lead.first_seen) > 30 and days_since(lead.first_seen) < 7`,
		`days_since(lead.first_seen) > 30 and lead.first_seen == nil`,
		`now < date("2026-01-01") and now > date("2026-02-01")`,
		`lead.first_seen > now and lead.first_seen < now and false`,
		`fields.title != fields.title`,
		`fields.seats > fields.company_size and not (fields.seats > fields.company_size)`,
		`signals.opened and not signals.opened`,
		`(score > 10 or score < 5) and score == 7`,
		`lower(fields.title) == "x" and fields.title == nil`,
	} {
		if !analyse(t, s, source, Boolean).True().Empty() {
			t.Errorf("%s is not found to be never true", source)
		}
	}
	for _, source := range []string{
		`true`, `band == "hot" or band == "cold"`, `fields.company_size >= 10 and fields.company_size <= 10`,
		`band == "hot" and score == 60`, `form == "webinar" and fields.city == "Berlin"`, `form == "webinar" and fields.company_size == nil`,
		`fields.country != "DE"`, `not (fields.country == "DE")`, `fields.title contains "a" and not (fields.title contains "b")`,
		`(fields.seats ?? 9) > 5 and fields.seats == nil`, `lower(fields.country) == "de"`, `fields.company_size > fields.seats and fields.seats > 5`,
		`fields.seats / fields.company_size != 1`, `previous_band == "hot" and band == "cold"`, `any(lists.competitors, # == lead.domain)`,
		`score == 12.5 or score == 12`, `fields.seats in [1, 2] and fields.seats > 1`,
	} {
		if analyse(t, s, source, Boolean).True().Empty() {
			t.Errorf("%s is taken to be never true", source)
		}
	}
}

func TestDead(t *testing.T) {
	s := NewSchema(decideConfig())
	for source, want := range map[string]string{
		`band == "hot" and band == "cold"`:                     `18 whole: band == "cold" can never be true together with band == "hot"; remove one of them, or put "or" between them where either is enough`,
		`fields.seats >= 10 ? 5 : fields.seats >= 20 ? 10 : 0`: `25: fields.seats >= 20 is never reached: all of it is taken by fields.seats >= 10 before it; put the narrower condition first`,
		`form == "webinar" and fields.company_size > 10`:       `22 whole: fields.company_size > 10 can never be true here: the form webinar has no field company_size, so fields.company_size is nil; add the field to the form, or ask for another form`,
		`fields.country != "DE" or fields.country != "AT"`:     `0: fields.country != "DE" or fields.country != "AT" is true for every value of fields.country; put "and" instead of "or" where none of these values is meant`,
		`signals.opened or lower(fields.country) == "DE"`:      `18: lower(fields.country) == "DE" can never be true: lower(…) gives small letters; write the text in small letters too`,
		`lead.domain == "Gmail.com"`:                           `0 whole: lead.domain == "Gmail.com" can never be true: lead.domain is always in small letters; write the text in small letters too`,
		`lead.email == nil`:                                    `0 whole: lead.email == nil can never be true: lead.email is always there; remove the comparison`,
		`signals.opened and (band == "hot" or (fields.terms and matches(fields.title, "x") and not fields.terms))`: `86: not fields.terms can never be true together with fields.terms; remove one of them, or put "or" between them where either is enough`,
		`fields.seats > 5 and fields.country == "DE" and not (fields.seats > 3 and fields.country in ["DE"])`:      `48 whole: not (fields.seats > 3 and fields.country in ["DE"]) can never be true together with what stands before it; remove it, or put "or" before it instead of "and" where either is enough`,
		`false`:            ``,
		`true`:             ``,
		`fields.seats > 5`: ``,
		`fields.seats != nil or fields.title != nil`: ``,
		`(fields.seats ?? 3) > 5 or fields.terms`:    ``,
	} {
		var got []string
		for _, f := range analyse(t, s, source, kindOfExample(source)).Dead() {
			whole := ""
			if f.Whole {
				whole = " whole"
			}
			got = append(got, fmt.Sprintf("%d%s: %s", f.Offset, whole, f.Message))
		}
		if joined := strings.Join(got, "\n"); joined != want {
			t.Errorf("%s\n got %s\nwant %s", source, joined, want)
		}
	}
}

// kindOfExample is the kind of an example: those with points in them are numbers.
func kindOfExample(source string) Kind {
	if strings.Contains(source, "?") && strings.HasSuffix(source, "0") {
		return Number
	}
	return Boolean
}

// What is said of lower and upper rests on their result being its own lower or upper case.
func TestCaseIsStable(t *testing.T) {
	for r := rune(0); r <= unicode.MaxRune; r++ {
		s := string(r)
		if l := strings.ToLower(s); strings.ToLower(l) != l {
			t.Errorf("lower case of %q changes when it is lowered again", r)
		}
		if u := strings.ToUpper(s); strings.ToUpper(u) != u {
			t.Errorf("upper case of %q changes when it is raised again", r)
		}
	}
}

// randomCondition writes a condition over few names and values, so that contradictions and
// coincidences are frequent.
func randomCondition(r *rand.Rand, depth int) string {
	pick := func(options ...string) string { return options[r.IntN(len(options))] }
	num := func() string {
		return pick("fields.seats", "fields.company_size", "score", "lead.submissions", "(fields.seats ?? 3)", "len(fields.title)",
			"(fields.terms ? fields.seats : 2)", "days_since(lead.first_seen)", "fields.seats * 2", "2", "fields.seats / fields.company_size", `count(["a"], # == fields.title)`)
	}
	word := func() string {
		return pick("fields.country", "fields.title", "form", "band", "previous_band", "lead.domain", "lower(fields.country)", "upper(fields.title)",
			`(fields.country ?? fields.title)`, `(fields.city ?? "DE")`, "lead.profile.country", "utm.source", `domain(fields.title)`, "trim(fields.title)")
	}
	if depth > 0 {
		a, b := randomCondition(r, depth-1), randomCondition(r, depth-1)
		switch r.IntN(7) {
		case 0, 1, 2:
			return "(" + a + " and " + b + ")"
		case 3, 4:
			return "(" + a + " or " + b + ")"
		case 5:
			return "not (" + a + ")"
		default:
			return "(" + a + " ? " + b + " : " + randomCondition(r, depth-1) + ")"
		}
	}
	text := pick(`"DE"`, `"de"`, `"AT"`, `"hot"`, `"cold"`, `"webinar"`, `"Rival.example"`, `"rival.example"`)
	switch r.IntN(12) {
	case 0, 1, 2:
		return num() + pick(" == ", " != ", " < ", " <= ", " > ", " >= ") + pick("0", "1", "2", "2.5", "3", "30", "60", num())
	case 3, 4:
		name := word()
		switch name {
		case "band", "previous_band":
			text = pick(`"hot"`, `"cold"`, `"warm"`)
		case "form":
			text = pick(`"webinar"`, `"pricing-guide"`)
		}
		return name + pick(" == ", " != ") + text
	case 5:
		return pick("fields.country", "fields.title", "lower(fields.title)", "lead.domain", `(fields.city ?? nil)`) + pick(" contains ", " not contains ", " startsWith ", " not endsWith ", " < ", " >= ") + text
	case 6:
		return pick("fields.country", "fields.title", "lead.domain", "upper(fields.country)") + pick(" in ", " not in ") + pick(`["DE", "AT"]`, `["de"]`, "lists.competitors", `["rival.example", "x"]`)
	case 7:
		return pick("fields.seats", "score") + pick(" in ", " not in ") + pick("[1, 2]", "[3, 60]", "[fields.company_size, 2]")
	case 8:
		return pick(num(), word(), "fields.terms", "lead.first_seen", "fields.newsletter") + pick(" == nil", " != nil")
	case 9:
		return pick("fields.terms", "fields.newsletter", "lead.freemail", "signals.opened", "fields.terms == true", "fields.terms != false", "(fields.terms ?? fields.newsletter)", "(fields.terms ?? true)", "true", "false")
	case 10:
		return "matches(" + pick("fields.title", "fields.country") + pick(`, "D")`, `, "(?i)a")`)
	default:
		return pick("now", "lead.first_seen") + pick(" < ", " >= ", " == ") + pick(`date("2026-03-06")`, `date("2026-03-01T09:00:00Z")`, "lead.first_seen", "now")
	}
}

// randomFacts are facts that the forms and bands of decideConfig allow.
func randomFacts(r *rand.Rand, c Config) Facts {
	pick := func(options ...any) any { return options[r.IntN(len(options))] }
	f := Facts{Form: pick("pricing-guide", "webinar").(string), Context: new(lodestone.Context), Scored: true, Now: now}
	fields := map[string]any{}
	for name, required := range c.FormFields[f.Form] {
		if !required && r.IntN(3) == 0 {
			continue
		}
		switch c.Fields[name] {
		case lodestone.FieldNumber:
			fields[name] = pick(0.0, 1.0, 2.0, 2.5, 3.0, 30.0, 60.0)
		case lodestone.FieldBoolean:
			fields[name] = pick(true, false)
		default:
			fields[name] = pick("DE", "de", "AT", "", " DE", "rival.example", "x@rival.example")
		}
	}
	f.Fields = lodestone.FieldsOf(fields)
	f.Context.UTM.Source = pick("", "DE", "de").(string)
	f.Score = pick(-1, 0, 1, 2, 29, 30, 59, 60, 61).(int)
	for _, b := range c.BandRanges {
		if x := float64(f.Score); x >= b.Min && x < b.Next {
			f.Band = b.Name
		}
	}
	f.PreviousBand = pick("", "hot", "cold").(string)
	f.Lead = &lodestone.Lead{
		Email: lodestone.Email(pick("a@rival.example", "a@gmail.com", "a@de").(string)), Submissions: r.IntN(4),
		Profile: lodestone.FieldsOf(map[string]any{"country": pick("DE", "AT")}), Signals: map[string]time.Time{},
	}
	if r.IntN(2) == 0 {
		f.Lead.FirstSeen = pick(seen, now, time.Date(2026, 3, 6, 0, 0, 0, 0, time.UTC)).(time.Time)
	}
	if r.IntN(2) == 0 {
		f.Lead.Signals["opened"] = now
	}
	return f
}

// A region holds all the facts that it is said to hold: what is proved to be never true, never false
// or never nil is not seen to be so on any facts. The other way round is shown by the number of
// conditions that are decided.
func TestRegionsHoldTheirFacts(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	c := decideConfig()
	s := NewSchema(c)
	facts := make([]Facts, 300)
	for i := range facts {
		facts[i] = randomFacts(r, c)
	}
	conditions, never, always, unseen := 0, 0, 0, 0
	for range 3_000 {
		source := randomCondition(r, r.IntN(4))
		p, err := s.Compile(source, Boolean)
		if err != nil {
			continue // the texts of some comparisons have other types
		}
		conditions++
		a := p.Analyse()
		neverTrue, neverFalse, total := a.True().Empty(), a.False().Empty(), a.Total()
		dead := len(a.Dead())
		if neverTrue {
			never++
		}
		if neverFalse {
			always++
		}
		wasTrue := false
		e := s.Evaluator()
		for _, f := range facts {
			e.Bind(f)
			got, err := e.Bool(p)
			switch {
			case err != nil && total:
				t.Fatalf("seed %d: %s is total and faults: %v", seed, source, err)
			case err != nil:
			case got && neverTrue:
				t.Fatalf("seed %d: %s is never true, and true on %+v", seed, source, f)
			case !got && neverFalse:
				t.Fatalf("seed %d: %s is never false, and false on %+v", seed, source, f)
			}
			wasTrue = wasTrue || got
		}
		e.Release()
		if !wasTrue && !neverTrue {
			unseen++
		}
		if neverTrue && dead == 0 && !strings.Contains(source, "false") && !strings.Contains(source, "true") {
			t.Errorf("seed %d: %s is never true and no part of it is reported", seed, source)
		}
	}
	t.Logf("%d conditions: %d never true, %d never false; %d more were not seen true", conditions, never, always, unseen)
	if conditions < 1_000 || never < 100 || always < 10 {
		t.Errorf("of %d conditions %d are decided to be never true and %d never false; want more", conditions, never, always)
	}
}

// What is nil is in the region of nil.
func TestRegionsOfNil(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	c := decideConfig()
	s := NewSchema(c)
	var facts []Facts
	for range 300 {
		facts = append(facts, randomFacts(r, c))
	}
	for source, canBeNil := range map[string]bool{
		`fields.title`: true, `fields.title ?? "x"`: false, `fields.email`: false, `fields.country`: true, `lead.email`: false,
		`form == "pricing-guide" ? fields.country : "x"`: false, `form == "webinar" ? fields.country : "x"`: true,
		`lower(fields.title ?? fields.country)`: true, `domain(fields.email)`: true, `lower(fields.title) ?? string(score)`: false, `score`: false, `previous_band`: true,
		`fields.title != nil ? fields.title : "x"`: false, `upper(fields.title) ?? nil`: true, `fields.seats == nil ? "x" : string(fields.seats)`: false,
	} {
		p, err := s.Compile(source, Value)
		if err != nil {
			t.Fatal(source, err)
		}
		region := p.Analyse().Nil()
		if region.Empty() == canBeNil {
			t.Errorf("%s: the region of nil is empty: %v, want %v", source, region.Empty(), !canBeNil)
		}
		e := s.Evaluator()
		for _, f := range facts {
			e.Bind(f)
			if v, err := e.Value(p); err == nil && v == nil && region.Empty() {
				t.Errorf("%s is never nil, and nil on %+v", source, f)
			}
		}
		e.Release()
	}
}

func TestLasting(t *testing.T) {
	for name, want := range map[string]bool{
		"form": true, "fields.score": true, "lead.email": true, "lower(fields.country)": true, `fields.title contains "score"`: true,
		"score": false, "lead.profile.country": false, "days_since(lead.first_seen)": false, "signals.opened": false, "lead?.domain": false,
	} {
		if got := lasting(name); got != want {
			t.Errorf("lasting(%s) = %v, want %v", name, got, want)
		}
	}
}

func BenchmarkAnalyse(b *testing.B) {
	s := NewSchema(decideConfig())
	p, err := s.Compile(`form == "pricing-guide" and fields.seats >= 10 and (matches(fields.title, "(?i)head|chief") or lead.domain not in lists.competitors)`, Boolean)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		p.Analyse().Dead()
	}
}
