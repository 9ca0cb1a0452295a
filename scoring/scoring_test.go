package scoring

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/lodestonehq/lodestone"
)

var (
	seen = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	now  = time.Date(2026, 3, 6, 9, 0, 0, 0, time.UTC)
)

func testConfig() Config {
	return Config{
		Fields: map[string]lodestone.FieldType{
			"email": lodestone.FieldEmail, "company_size": lodestone.FieldNumber, "seats": lodestone.FieldNumber,
			"country": lodestone.FieldText, "title": lodestone.FieldText, "city": lodestone.FieldText,
			"newsletter": lodestone.FieldBoolean, "terms": lodestone.FieldBoolean,
		},
		Lists: map[string][]string{
			"competitors": {"rival.example", "other.example"},
			"many":        strings.Split(strings.Repeat("x,", MaxElements), ","),
		},
		Signals: lodestone.SignalKinds,
		Forms:   []string{"pricing-guide", "webinar"},
		Bands:   []string{"hot", "warm", "cold"},
	}
}

// testFacts leaves out seats, city and newsletter.
func testFacts() Facts {
	return Facts{
		Form:   "pricing-guide",
		Fields: lodestone.FieldsOf(map[string]any{"email": "ada@rival.example", "company_size": 240.0, "country": "DE", "title": "Head of Sales", "terms": true}),
		Context: &lodestone.Context{
			Page: "https://example.com/pricing", UTM: lodestone.UTM{Source: "ads"},
			Consent: &lodestone.Consent{Marketing: true, At: seen},
		},
		Lead: &lodestone.Lead{
			Email: "ada@rival.example", FirstSeen: seen, Submissions: 2, Zone: "Europe/Berlin",
			Profile: lodestone.FieldsOf(map[string]any{"country": "DE", "company_size": "240"}), // the size is from a time when it was a text
			Signals: map[string]time.Time{"opened": seen.Add(time.Hour)},
		},
		Score: 45, Band: "warm", Scored: true, Now: now,
	}
}

func bound(t testing.TB, s *Schema, f Facts) *Evaluator {
	t.Helper()
	e := s.Evaluator()
	t.Cleanup(e.Release)
	e.Bind(f)
	return e
}

func TestBool(t *testing.T) {
	s := NewSchema(testConfig())
	e := bound(t, s, testFacts())
	for _, tt := range []struct {
		source string
		want   bool
	}{
		{`true`, true},
		{`fields.company_size >= 200`, true},
		{`fields.company_size > 240`, false},
		{`100 < fields.company_size <= 240`, true},
		{`fields["country"] == "DE"`, true},
		{`fields?.country == "DE"`, true},
		{`fields.country in ["DE", "AT"]`, true},
		{`fields.country not in ["DE", "AT"]`, false},
		{`fields.company_size in [240, 250]`, true},
		{`fields.company_size in [fields.seats, 240]`, true},
		{`fields.terms`, true},
		{`fields.terms == true and not false`, true},
		{`fields.title contains "Sales"`, true},
		{`fields.title startsWith "Head" and fields.title endsWith "Sales"`, true},
		{`fields.title not contains "Sales"`, false},
		{`lower(fields.title) contains "sales"`, true},
		{`fields.title | lower() contains "sales"`, true},
		{`lead.domain in lists.competitors`, true},
		{`lead.domain not in lists.competitors`, false},
		{`any(lists.competitors, fields.email endsWith #)`, true},
		{`none(lists.competitors, # == "x")`, true},
		{`one(lists.competitors, # startsWith "rival")`, true},
		{`count(lists.competitors, # contains "example") == 2`, true},
		{`len(filter(lists.competitors, # contains "rival")) == 1`, true},
		{`"RIVAL.EXAMPLE" in map(lists.competitors, upper(#))`, true},
		{`"a" in lead.tags`, false},
		{`lead.freemail or lead.disposable or lead.role`, false},
		{`lead.submissions > 1`, true},
		{`lead.country == "DE" and lead.profile.country == "DE"`, true},
		{`days_since(lead.first_seen) == 5`, true},
		{`now - lead.first_seen >= duration("5d")`, true},
		{`lead.first_seen + duration("5d") == now`, true},
		{`lead.first_seen > date("2026-02-28")`, true},
		{`signals.opened and not signals.converted`, true},
		{`signals_at.opened < now`, true},
		{`utm.source == "ads" and context.utm.source == "ads"`, true},
		{`context.consent.marketing`, true},
		{`context.page contains "/pricing"`, true},
		{`form == "pricing-guide"`, true},
		{`score >= 30 and band == "warm"`, true},
		{`band in ["hot", "warm"]`, true},
		{`fields.company_size % 7 == 2`, true},
		{`min(3, 1, 2) == 1 and max(1, 2) == 2`, true},
		{`abs(-2) + floor(1.9) + ceil(1.1) + round(1.5) == 7`, true},
		{`int("12") + float("0.5") == 12.5`, true},
		{`string(fields.company_size) == "240"`, true},
		{`len("äöü") == 3 and len(lists.competitors) == 2`, true},
		{`domain("Ada@Example.COM") == "example.com"`, true},
		{`zone_of_country("de") == "Europe/Berlin"`, true},
		{`if fields.company_size > 100 { true } else { false }`, true},

		// matches, as a function and as an operator.
		{`matches(fields.title, "(?i)head|chief")`, true},
		{`not matches(fields.title, "(?i)chief")`, true},
		{`fields.terms and matches(fields.title, "Sales$")`, true},
		{`fields.title matches "^Head"`, true},
		{`fields.title matches ("^Head")`, true},
		{`fields.title not matches "^Head"`, false},
		{`fields.title not matches ("^Chief")`, true},
		{`(matches(fields.title, "a")) ? matches(fields.title, "H") : false`, true},

		// Whatever is compared with nil, the answer is false.
		{`fields.seats < 1`, false},
		{`fields.seats <= 1`, false},
		{`fields.seats > 1`, false},
		{`fields.seats >= 1`, false},
		{`1 < fields.seats`, false},
		{`fields.seats == 1`, false},
		{`fields.seats != 1`, false},
		{`1 != fields.seats`, false},
		{`fields.seats == fields.seats`, false},
		{`fields.seats != fields.seats`, false},
		{`fields.city == "Bonn"`, false},
		{`fields.city != "Bonn"`, false},
		{`fields.city < "Bonn"`, false},
		{`"Bonn" >= fields.city`, false},
		{`fields.city in ["Bonn"]`, false},
		{`fields.city not in ["Bonn"]`, false},
		{`fields.city in lists.competitors`, false},
		{`fields.city not in lists.competitors`, false},
		{`fields.seats in [1, 2]`, false},
		{`fields.seats in [fields.seats]`, false},
		{`fields.city contains "B"`, false},
		{`"B" contains fields.city`, false},
		{`fields.city not contains "B"`, false},
		{`fields.city startsWith ""`, false},
		{`fields.city endsWith ""`, false},
		{`fields.city not startsWith "B"`, false},
		{`fields.city matches ".*"`, false},
		{`fields.city not matches "B"`, false},
		{`matches(fields.city, ".*")`, false},
		{`lower(fields.city) == "bonn"`, false},
		{`len(fields.city) >= 0`, false},
		{`days_since(signals_at.converted) > 0`, false},
		{`signals_at.converted < now`, false},
		{`signals_at.converted <= signals_at.converted`, false},
		{`domain(fields.city) == "x"`, false},
		{`int(fields.city) == 0`, false},
		{`lead.profile.company_size == 240`, false}, // its stored type is not the declared one
		{`fields.newsletter == false`, false},
		{`fields.newsletter != true`, false},

		// Only nil itself asks for presence.
		{`fields.seats == nil`, true},
		{`fields.seats != nil`, false},
		{`nil == fields.seats`, true},
		{`fields.country != nil`, true},
		{`signals_at.converted == nil`, true},
		{`context.timezone == nil and utm.medium == nil`, true},
		{`previous_band == nil`, true},
		{`(fields.seats ?? 5) == 5`, true},
		{`(fields.city ?? context.timezone ?? "x") == "x"`, true},
		{`(fields.city ?? nil) == nil`, true},

		// A boolean that is absent is no yes.
		{`fields.newsletter`, false},
		{`not fields.newsletter`, true},
		{`fields.newsletter or fields.terms`, true},
		{`fields.newsletter ? true : false`, false},
		{`fields.newsletter and fields.terms`, false},
	} {
		p, err := s.Compile(tt.source, Boolean)
		if err != nil {
			t.Errorf("Compile(%s) = %v, want a program", tt.source, err)
			continue
		}
		if got, err := e.Bool(p); err != nil || got != tt.want {
			t.Errorf("%s = %v, %v; want %v", tt.source, got, err, tt.want)
		}
	}
}

func TestNumber(t *testing.T) {
	s := NewSchema(testConfig())
	e := bound(t, s, testFacts())
	for _, tt := range []struct {
		source string
		want   float64
	}{
		{`20`, 20},
		{`-2.5`, -2.5},
		{`fields.company_size >= 1000 ? 40 : fields.company_size >= 200 ? 25 : 0`, 25},
		{`(fields.seats ?? 2) * 10`, 20},
		{`min(fields.company_size / 10, 15)`, 15},
		{`fields.terms ? 5 : fields.seats`, 5},
		{`len(fields.title)`, 13},
	} {
		p, err := s.CompileScoring(tt.source, Number)
		if err != nil {
			t.Errorf("CompileScoring(%s) = %v, want a program", tt.source, err)
			continue
		}
		if got, err := e.Number(p); err != nil || got != tt.want {
			t.Errorf("%s = %v, %v; want %v", tt.source, got, err, tt.want)
		}
	}
}

func TestValue(t *testing.T) {
	s := NewSchema(testConfig())
	e := bound(t, s, testFacts())
	for _, tt := range []struct {
		source string
		want   any
	}{
		{`fields.title`, "Head of Sales"},
		{`fields.city`, nil},
		{`nil`, nil},
		{`fields.company_size`, 240.0},
		{`lead.submissions`, 2.0},
		{`fields.terms`, true},
		{`fields.newsletter`, nil},
		{`lead.first_seen`, "2026-03-01T09:00:00Z"},
		{`fields.city ?? "there"`, "there"},
		{`fields.company_size > 1 ? "large" : 0`, "large"},
		{`"Dear " + fields.title`, "Dear Head of Sales"},
		{`string(0.1 + 0.2)`, "0.30000000000000004"},
		{`string(1000000)`, "1000000"},
	} {
		p, err := s.Compile(tt.source, Value)
		if err != nil {
			t.Errorf("Compile(%s) = %v, want a program", tt.source, err)
			continue
		}
		if got, err := e.Value(p); err != nil || got != tt.want {
			t.Errorf("%s = %#v, %v; want %#v", tt.source, got, err, tt.want)
		}
	}
}

// What fails at run time is an error with a place, never a panic, and it repeats no data.
func TestRunTimeFaults(t *testing.T) {
	s := NewSchema(testConfig())
	f := testFacts()
	f.Fields = lodestone.FieldsOf(map[string]any{"title": strings.Repeat("secret", 1000)}).Over(f.Fields)
	e := bound(t, s, f)
	for _, tt := range []struct {
		source string
		kind   Kind
		want   string
	}{
		{`fields.seats + 1`, Number, `1:8: fields.seats is absent here; give it a value with ??, as in (fields.seats ?? 0)`},
		{`2 * fields.seats > 1`, Boolean, `1:12: fields.seats is absent here; give it a value with ??, as in (fields.seats ?? 0)`},
		{`-fields.seats`, Number, `1:9: fields.seats is absent here; give it a value with ??, as in (fields.seats ?? 0)`},
		{`min(1, fields.seats)`, Number, `1:15: fields.seats is absent here; give it a value with ??, as in (fields.seats ?? 0)`},
		{`"a" + fields.city`, Value, `1:14: fields.city is absent here; give it a value with ??, as in (fields.city ?? "")`},
		{`1 + len(fields.city)`, Number, `1:5: arithmetic with nil: something in this expression is absent; give it a value with ??, as in (fields.company_size ?? 0)`},
		{`fields.seats`, Number, `1:1: this gives no number, because something in it is absent`},
		{`1 / 0`, Number, `1:1: this gives no finite number; is something divided by zero?`},
		{`0 / 0`, Value, `1:1: this gives no finite number; is something divided by zero?`},
		{`1 % 0`, Number, `1:3: the remainder of a division by zero is not a number`},
		{`1e308 * 10`, Number, `1:1: this gives no finite number; is something divided by zero?`},
		{`int(fields.title)`, Number, `1:1: int cannot read this text as a number`},
		{`fields.title + fields.title + fields.title + fields.title + fields.title`, Value, `1:59: the joined text is longer than 8192 bytes`},
	} {
		p, err := s.Compile(tt.source, tt.kind)
		if err != nil {
			t.Errorf("Compile(%s) = %v, want a program", tt.source, err)
			continue
		}
		switch tt.kind {
		case Boolean:
			_, err = e.Bool(p)
		case Number:
			_, err = e.Number(p)
		default:
			_, err = e.Value(p)
		}
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s fails with %v, want %s", tt.source, err, tt.want)
		}
	}
	// The evaluator is as good as new after a fault.
	p, err := s.Compile(`fields.country == "DE"`, Boolean)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := e.Bool(p); err != nil || !got {
		t.Errorf("after faults %s = %v, %v; want true", p.Source(), got, err)
	}
}

// Scoring rules run before there is a score.
func TestScoringView(t *testing.T) {
	s := NewSchema(testConfig())
	for _, source := range []string{`score > 1`, `band == "hot"`, `previous_band == "hot"`} {
		misspelt := strings.NewReplacer("score", "scoer", "band", "bnad").Replace(source)
		if _, err := s.CompileScoring(misspelt, Boolean); err == nil || strings.Contains(err.Error(), "score") || strings.Contains(err.Error(), "band") {
			t.Errorf("CompileScoring(%s) = %v, want a fault that suggests no name that is refused there", misspelt, err)
		}
		if _, err := s.CompileScoring(source, Boolean); err == nil || !strings.Contains(err.Error(), "is not known here") {
			t.Errorf("CompileScoring(%s) = %v, want a fault that says why", source, err)
		}
		p, err := s.Compile(source, Boolean)
		if err != nil {
			t.Fatalf("Compile(%s) = %v", source, err)
		}
		f := testFacts()
		f.Score, f.Band, f.Scored = 99, "hot", false
		e := bound(t, s, f)
		if got, err := e.Bool(p); err != nil || got {
			t.Errorf("%s before the score = %v, %v; want false", source, got, err)
		}
		e.SetScore(99, "hot", "hot")
		if got, err := e.Bool(p); err != nil || !got {
			t.Errorf("%s after SetScore = %v, %v; want true", source, got, err)
		}
	}
}

// A program compiled after Bind sees the facts that are bound.
func TestCompileAfterBind(t *testing.T) {
	s := NewSchema(testConfig())
	e := bound(t, s, testFacts())
	p, err := s.Compile(`fields.country == "DE" and lead.zone == "Europe/Berlin"`, Boolean)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := e.Bool(p); err != nil || !got {
		t.Errorf("a program compiled late gives %v, %v; want true", got, err)
	}
}

// Nothing of one lead is left for the next.
func TestRebind(t *testing.T) {
	s := NewSchema(testConfig())
	p, err := s.Compile(`fields.country == nil and lead.zone == nil and context.page == nil and not signals.opened and score == nil`, Boolean)
	if err != nil {
		t.Fatal(err)
	}
	e := bound(t, s, testFacts())
	if got, err := e.Bool(p); err != nil || got {
		t.Fatalf("with facts = %v, %v; want false", got, err)
	}
	e.Bind(Facts{})
	if got, err := e.Bool(p); err != nil || !got {
		t.Errorf("without facts = %v, %v; want true", got, err)
	}
}

func TestOtherSchema(t *testing.T) {
	p, err := NewSchema(testConfig()).Compile(`true`, Boolean)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bound(t, NewSchema(testConfig()), testFacts()).Bool(p); err == nil {
		t.Error("a program of another schema ran, want an error")
	}
}

func TestTextsAreCut(t *testing.T) {
	s := NewSchema(testConfig())
	f := testFacts()
	long := strings.Repeat("ä", MaxText) // two bytes each, so the limit falls between characters
	f.Fields = lodestone.FieldsOf(map[string]any{"title": long}).Over(f.Fields)
	f.Context.Page = "x" + strings.Repeat("ä", MaxText)
	e := bound(t, s, f)
	for _, source := range []string{`fields.title`, `context.page`} {
		p, err := s.Compile(source, Value)
		if err != nil {
			t.Fatal(err)
		}
		v, err := e.Value(p)
		if err != nil {
			t.Fatal(err)
		}
		if text := v.(string); len(text) > MaxText || len(text) < MaxText-3 || !utf8.ValidString(text) {
			t.Errorf("%s has %d bytes (valid: %v), want at most %d whole characters", source, len(text), utf8.ValidString(text), MaxText)
		}
	}
}

func TestUsesAndYields(t *testing.T) {
	s := NewSchema(testConfig())
	p, err := s.Compile(`band == "hot" and fields.country in lists.competitors`, Boolean)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"band": true, "fields.country": true, "lists.competitors": true, "score": false} {
		if got := p.Uses(name); got != want {
			t.Errorf("Uses(%s) = %v, want %v", name, got, want)
		}
	}
	for source, fits := range map[string][]lodestone.FieldType{
		`fields.country`:         {lodestone.FieldText, lodestone.FieldEmail},
		`lead.first_seen`:        {lodestone.FieldText, lodestone.FieldEmail},
		`fields.company_size`:    {lodestone.FieldNumber},
		`fields.terms`:           {lodestone.FieldBoolean},
		`fields.terms ? 1 : "x"`: lodestone.FieldTypes,
		`nil`:                    lodestone.FieldTypes,
	} {
		p, err := s.Compile(source, Value)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range lodestone.FieldTypes {
			want := false
			for _, w := range fits {
				want = want || w == f
			}
			if got := p.Yields().Fits(f); got != want {
				t.Errorf("%s fits %s: %v, want %v", source, f, got, want)
			}
		}
	}
}

// One schema serves compilers and evaluators at the same time.
func TestConcurrency(t *testing.T) {
	s := NewSchema(testConfig())
	sources := []string{`fields.country == "DE"`, `lead.submissions > 1`, `utm.source == "ads"`, `matches(fields.title, "Head")`, `band == "warm"`}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			e := s.Evaluator()
			defer e.Release()
			for j := range 100 {
				e.Bind(testFacts())
				p, err := s.Compile(sources[(i+j)%len(sources)], Boolean)
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := e.Bool(p); err != nil || !got {
					t.Errorf("%s = %v, %v; want true", p.Source(), got, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestFaultIsFault(t *testing.T) {
	_, err := NewSchema(testConfig()).Compile("true and\n  fields.contry == \"DE\"", Boolean)
	var f *Fault
	if !errors.As(err, &f) {
		t.Fatalf("Compile = %T, want *Fault", err)
	}
	if f.Line != 2 || f.Column != 10 || f.Offset != 18 || !f.Undeclared {
		t.Errorf("fault at %d:%d (offset %d, undeclared %v), want 2:10 (offset 18, undeclared true)", f.Line, f.Column, f.Offset, f.Undeclared)
	}
}
