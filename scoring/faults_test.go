package scoring

import (
	"fmt"
	"strings"
	"testing"
)

func TestCompileFaults(t *testing.T) {
	s := NewSchema(testConfig())
	for _, tt := range []struct {
		source string
		kind   Kind
		want   string
	}{
		{``, Boolean, `1:1: this expression is empty`},
		{`fields.company_sze > 1`, Boolean, `1:8: unknown field company_sze; did you mean company_size?`},
		{`true and fields.conutry == "DE"`, Boolean, `1:17: unknown field conutry; did you mean country?`},
		{`fields.zzz == 1`, Boolean, `1:8: unknown field zzz; known: city, company_size, country, email, newsletter, seats, terms, title`},
		{`company_size > 1`, Boolean, `1:1: unknown name company_size; did you mean fields.company_size?`},
		{`field.country == "DE"`, Boolean, `1:1: unknown name field; did you mean fields?`},
		{`lead.freemial`, Boolean, `1:6: lead has no part freemial; did you mean freemail?`},
		{`lead.profile.contry == "DE"`, Boolean, `1:14: unknown field contry; did you mean country?`},
		{`lead.domain in lists.competitor`, Boolean, `1:22: unknown list competitor; did you mean competitors?`},
		{`signals.convertd`, Boolean, `1:9: unknown signal convertd; did you mean converted?`},
		{`lead == nil`, Boolean, `1:1: lead is not a value by itself; name one of its parts, as in lead.country`},
		{`fields.country.code == "x"`, Boolean, `1:16: fields.country is a text and has no part code`},
		{`fields[form] == 1`, Boolean, `1:7: a name in [ ] must be a fixed text; write the part's name after a dot, as in fields.country`},
		{`hot`, Boolean, `1:1: unknown name hot; names are band, context, fields, form, lead, links, lists, now, previous_band, risk, score, signals, signals_at, utm, and a text stands in quotes: "hot"`},
		{`fields.country == null`, Boolean, `1:19: unknown name null; write nil for what is absent`},
		{`form == "pricing-gide"`, Boolean, `1:9: there is no form "pricing-gide"; did you mean pricing-guide?`},
		{`band in ["hot", "wram"]`, Boolean, `1:17: there is no band "wram"; did you mean warm?`},

		{`"hot"`, Boolean, `1:1: a condition is true or false, but this is a text; a condition compares something, as in form == "…"`},
		{`fields.company_size`, Boolean, `1:1: a condition is true or false, but this is a number; compare it, as in fields.company_size >= 100`},
		{`fields.country and true`, Boolean, `1:1: a condition is true or false, but this is a text; compare it, as in fields.country == "…", or ask whether it is there: fields.country != nil`},
		{`not fields.country`, Boolean, `1:5: a condition is true or false, but this is a text; compare it, as in fields.country == "…", or ask whether it is there: fields.country != nil`},
		{`fields.country ? 1 : 2`, Number, `1:1: a condition is true or false, but this is a text; compare it, as in fields.country == "…", or ask whether it is there: fields.country != nil`},
		{`fields.country`, Number, `1:1: points are a number; this is a text`},
		{`true`, Number, `1:1: points are a number; this is true or false`},
		{`fields.company_size`, Text, `1:1: a text is needed here; this is a number`},
		{`lists.competitors`, Value, `1:1: this is a list; a text, a number, or true or false is needed`},
		{`now - lead.first_seen`, Value, `1:1: this is a duration; a text, a number, or true or false is needed`},

		{`fields.company_size == "200"`, Boolean, `1:21: a number cannot be equal to a text; write 200 without quotes`},
		{`fields.company_size > "200"`, Boolean, `1:21: a number cannot be compared with a text; write 200 without quotes`},
		{`fields.terms == "true"`, Boolean, `1:14: true or false cannot be equal to a text; write true without quotes`},
		{`fields.country > 3`, Boolean, `1:16: a text cannot be compared with a number`},
		{`fields.country > nil`, Boolean, `1:16: nil is neither less nor more; ask whether something is there with == nil or != nil`},
		{`fields.terms > fields.newsletter`, Boolean, `1:14: true or false is neither less nor more than another`},
		{`lead.first_seen > 30`, Boolean, `1:17: a time cannot be compared with a number; write days_since(…) to compare a time with a number of days`},
		{`now - lead.first_seen > 30`, Boolean, `1:23: a duration cannot be compared with a number; write a duration as duration("48h")`},
		{`fields.country + 1 == "x"`, Boolean, `1:16: + cannot be applied to a text and a number; to join texts write string(…) around the number`},
		{`fields.country * 2`, Number, `1:16: * cannot be applied to a text and a number`},
		{`-fields.country`, Number, `1:1: - stands before a number; this is a text`},
		{`lists.competitors == "x"`, Boolean, `1:19: a list cannot be compared; ask for an element with in`},
		{`lists.competitors contains "x"`, Boolean, `1:19: contains works on texts; this is a list; to look for an element write: value in list`},
		{`"x" in fields.country`, Boolean, `1:5: in looks into a list; to look into a text write: text contains value`},
		{`fields.company_size in lists.competitors`, Boolean, `1:21: a number cannot be in a list whose elements are a text`},
		{`fields.country in ["a", 1]`, Boolean, `1:25: a list holds values of one type: it begins with a text, this is a number`},

		{`lower(fields.company_size) == "x"`, Boolean, `1:7: lower is written lower(text); this is a number`},
		{`lower() == "x"`, Boolean, `1:1: lower is written lower(text); here it has 0 values`},
		{`lowr(fields.country) == "x"`, Boolean, `1:1: unknown function lowr; did you mean lower?`},
		{`Matches(fields.country, "x")`, Boolean, `1:1: unknown function Matches; did you mean matches?`},
		{`matches(fields.country)`, Boolean, `1:1: matches takes two values: matches(text, "pattern")`},
		{`matches(fields.country, "(")`, Boolean, `1:25: this pattern is not valid: missing closing ): (`},
		{`matches(fields.country, fields.title)`, Boolean, `1:25: a pattern must be a fixed text in quotes, as in matches(fields.title, "(?i)head|chief")`},
		{`matches(fields.company_size, "1")`, Boolean, `1:1: matches works on texts; this is a number`},
		{`form()`, Boolean, `1:1: form is a value, not a function; write it without brackets`},
		{`date("tomorrow") < now`, Boolean, `1:6: "tomorrow" is not a date; write date("2026-03-31") or date("2026-03-31T09:00:00Z")`},
		{`date(fields.country) < now`, Boolean, `1:6: date takes a fixed text in quotes, as in date("2026-03-31")`},
		{`now - now > duration("2 days")`, Boolean, `1:22: "2 days" is not a duration; write a whole number and a unit: 90s, 10m, 2h, 3d or 2w`},

		{`form = "pricing-guide"`, Boolean, `1:6: a single = compares nothing; write == to compare`},
		{`form == "pricing-guide" & true`, Boolean, `1:25: a single & means nothing here; write and`},
		{`form == "pricing-guide" AND true`, Boolean, `1:25: write and in small letters`},
		{`form is "pricing-guide"`, Boolean, `1:6: is is not an operator; write ==`},
		{`form "pricing-guide"`, Boolean, `1:6: pricing-guide does not belong here; is an operator such as and, or, == missing before it?`},
		{`form == “pricing-guide”`, Boolean, `1:9: write straight quotes: "…" or '…'`},
		{`form == "pricing-guide`, Boolean, `1:23: this text has no closing quote`},
		{`(form == "webinar"`, Boolean, `1:18: the expression ends too early; is a value or a closing bracket missing?`},
		{`contains(fields.title, "x")`, Boolean, `1:1: contains stands between two texts, as in fields.title contains "lead"`},
		{`fields.company_size ?? 0 > 5`, Boolean, `1:26: put ?? and its two sides into brackets, as in (fields.company_size ?? 0) > 100`},
		{`true ? 1`, Number, `1:8: the expression ends too early; is a value or a closing bracket missing?`},
		{`# == 1`, Boolean, `1:1: # can only stand for an element inside any, all, none, one, count, filter or map`},
	} {
		p, err := s.Compile(tt.source, tt.kind)
		if err == nil {
			t.Errorf("Compile(%s) = a program for %s, want %s", tt.source, p.Source(), tt.want)
			continue
		}
		if err.Error() != tt.want {
			t.Errorf("Compile(%s)\n got %s\nwant %s", tt.source, err, tt.want)
		}
	}
}

// Each of these would end the process, keep a core busy or fill the memory if it reached the
// library: they must be refused, and refused at once.
func TestGuard(t *testing.T) {
	s := NewSchema(testConfig())
	repeat := strings.Repeat
	for _, tt := range []struct {
		name, source, want string
	}{
		{"a million brackets", repeat("(", 1_000_000) + "1" + repeat(")", 1_000_000), "more than the 2048"},
		{"a million nots", repeat("not ", 1_000_000) + "true", "more than the 2048"},
		{"a million signs", repeat("-", 1_000_000) + "1 > 0", "more than the 2048"},
		{"brackets within 2 KiB", repeat("(", 1000) + "true" + repeat(")", 1000), "nests more than 32"},
		{"33 brackets", repeat("(", 33) + "true" + repeat(")", 33), "nests more than 32"},
		{"33 lists", repeat("[", 33) + "1" + repeat("]", 33), "nests more than 32"},
		{"33 nots", repeat("not ", 33) + "true", "nests more than 32"},
		{"33 exclamation marks", repeat("!", 33) + "true", "nests more than 32"},
		{"mixed signs", repeat("+-", 17) + "1 > 0", "nests more than 32"},
		{"nested loops", `any(lists.competitors, any(lists.competitors, # == "x"))`, "only one of"},
		{"two loops", `any(lists.competitors, # == "x") or any(lists.competitors, # == "y")`, "only one of"},
		{"nested sums", `sum(map(lists.competitors, sum(map(lists.competitors, 1)))) > 1`, "sum() is not available"},
		{"text doubling", `let a = "xxxxxxxx"; let b = a + a; let c = b + b; len(c) > 1`, "variables (let) are not available"},
		{"repeat", `len(repeat("x", 1000000000)) > 1`, "repeat() is not available"},
		{"replace", `len(replace("xxxx", "x", "xxxxxxxx")) > 1`, "replace() is not available"},
		{"a huge range", `len(1..1000000000) > 1`, "ranges are not available"},
		{"a range in a list", `5 in 1..10`, "ranges are not available"},
		{"powers", `10 ** 1000 > 1`, "powers are not available"},
		{"powers, the other way", `10 ^ 1000 > 1`, "powers are not available"},
		{"more than one expression", `true; true`, "one expression is expected"},
		{"more than one expression in a predicate", `any(lists.competitors, {true; true})`, "one expression is expected"},
		{"too many parts", repeat("true or ", 150) + "true", "more than 300 parts"},
		{"shared parts", deepChain(12), "more than 300 parts"},
		{"a long list in a loop", `any(lists.many, # == "x")`, "at most 64 elements"},
		{"methods", `fields.country.Foo()`, "there is nothing to call here"},
		{"methods of times", `now.Year() > 1`, "there is nothing to call here"},
		{"methods of elements", `any(lists.competitors, .Foo())`, "there is nothing to call here"},
		{"the environment", `$env["fields"] == 1`, "unknown name $env"},
		{"maps", `{"a": 1} == nil`, "makes no value here"},
		{"slices", `fields.country[0:1] == "D"`, "parts of a text or list"},
		{"an element by number", `lists.competitors[0] == "x"`, "must be a fixed text"},
		{"bytes", `b"abc" == "x"`, "without the b"},
		{"the clock", `now() > date("2026-01-01")`, "now() is not available"},
		{"today", `today() == 1`, "today() is not available"},
		{"a date from the clock", `date() < now`, "here it has 0 values"},
		{"reduce", `reduce(lists.competitors, #acc + #) == "x"`, "reduce() is not available"},
		{"sorting", `len(sortBy(lists.competitors, #)) > 1`, "unknown function sortBy"},
		{"environment dump", `toJSON(fields) == "x"`, "unknown function toJSON"},
		{"a large repetition", `matches(fields.title, "` + `(abcdefghij){500}` + `")`, "pattern is too large"},
		{"a nested repetition", `matches(fields.title, "` + `((a{10}){10}){10}b{900}` + `")`, "pattern is too large"},
		{"many patterns", repeat(`matches(fields.title, "a{900}") or `, 3) + "true", "pattern is too large"},
		{"a pattern in a loop", `any(lists.competitors, matches(#, "a+"))`, "cannot stand inside any"},
		{"not UTF-8", "form == \"\xff\"", "not UTF-8"},
		{"the index of an element", `any(lists.competitors, #index == 1)`, "#index is not available"},
		{"disabled prefix", `::now() == 1`, ":: means nothing here"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := s.Compile(tt.source, Boolean)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Compile = %v, want a fault with %q", err, tt.want)
			}
		})
	}
}

// deepChain nests comparisons whose middle part the parser puts into the tree twice, so that a walk
// over the tree doubles with each level.
func deepChain(levels int) string {
	source := "1"
	for range levels {
		source = "(0 < (" + source + " < 2 ? 1 : 0) < 2 ? 1 : 0)"
	}
	return source + " == 1"
}

// What is just within the limits is accepted.
func TestGuardAccepts(t *testing.T) {
	s := NewSchema(testConfig())
	e := bound(t, s, testFacts())
	for name, source := range map[string]string{
		"32 brackets":                 strings.Repeat("(", 32) + "true" + strings.Repeat(")", 32),
		"32 nots":                     strings.Repeat("not ", 32) + "true",
		"300 parts":                   strings.Repeat("true or ", 149) + "true",
		"2 KiB":                       "true" + strings.Repeat(" ", MaxSource-4),
		"comments":                    "true // because\n or /* not */ false",
		"a text that looks dangerous": `fields.title != "let x = (((((((((((((((((((((((((((((((((((((((((((1..2"`,
	} {
		p, err := s.Compile(source, Boolean)
		if err != nil {
			t.Errorf("%s: Compile = %v, want a program", name, err)
			continue
		}
		if got, err := e.Bool(p); err != nil || !got {
			t.Errorf("%s = %v, %v; want true", name, got, err)
		}
	}
}

func TestClosest(t *testing.T) {
	known := []string{"company_size", "country", "first_name", "when", "with"}
	for word, want := range map[string]string{
		"company_sze": "company_size", "companysize": "company_size", "Company-Size": "company_size", "contry": "country",
		"cuontry": "country", "firstname": "first_name", "wehn": "when", "wiht": "with", "xyz": "", "": "",
		strings.Repeat("x", 1000): "",
	} {
		if got := Closest(word, known); got != want {
			t.Errorf("Closest(%.20s) = %q, want %q", word, got, want)
		}
	}
}

func ExampleSchema_Compile() {
	s := NewSchema(testConfig())
	_, err := s.Compile(`fields.company_sze >= 200`, Boolean)
	fmt.Println(err)
	// Output: 1:8: unknown field company_sze; did you mean company_size?
}
