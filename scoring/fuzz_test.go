package scoring

import (
	"errors"
	"math"
	"reflect"
	"testing"
	"unicode/utf8"

	"github.com/lodestonehq/lodestone"
)

// FuzzExpression states: whatever the source, compiling it ends in a program or in a fault with a
// valid place; a program never panics and gives the same answer each time; and a condition that is
// true for a lead of whom nothing is known says so without a fault.
func FuzzExpression(f *testing.F) {
	for _, source := range []string{
		`fields.company_size >= 1000 ? 40 : fields.company_size >= 200 ? 25 : 0`,
		`not lead.freemail and lead.domain not in lists.competitors`,
		`matches(fields.title, "(?i)head|chief") and not matches(lead.email, "x")`,
		`any(lists.competitors, lower(#) contains "x") or count(["a", "b"], # == "a") == 1`,
		`context.timezone ?? zone_of_country(fields.country)`,
		`days_since(lead.first_seen) > 3 and now - lead.first_seen < duration("2d")`,
		`1 < fields.seats < 3 and fields.title not startsWith "a"`,
		`if fields.terms { "a" + string(score) } else { nil }`,
		`-(fields.company_size % 7) * 2 / 0`,
		`fields?.country | lower() in ["de", "at"]`,
		`date("2026-03-31") < now // comment`,
		`filter(lists.competitors, # startsWith "r")`,
		`min(1, 2, len(map(lists.competitors, upper(#))))`,
		"`raw` == 'quoted' and \"\\u00e4\" == \"ä\"",
		`a.b.c.d[1].e ?? x?.y`, `{"a": {"b": 1}}.a`, `let x = 1; x`, `1..2`, `2 ** 3`, `((((`, `not not not`, `b"x"`, `#`, `::x()`,
	} {
		for kind := range 4 {
			f.Add(source, kind)
		}
	}
	s := NewSchema(testConfig())
	full, empty := testFacts(), Facts{Now: now, Lead: new(lodestone.Lead)}
	f.Fuzz(func(t *testing.T, source string, kind int) {
		k := Kind(((kind % 4) + 4) % 4)
		p, err := s.Compile(source, k)
		if err != nil {
			checkFault(t, source, err)
			return
		}
		if p.Source() != source {
			t.Errorf("Source() = %q, want what was compiled", p.Source())
		}
		for _, facts := range []Facts{full, empty} {
			first, errFirst := evaluate(s, p, k, facts)
			second, errSecond := evaluate(s, p, k, facts)
			if !reflect.DeepEqual(first, second) || (errFirst == nil) != (errSecond == nil) {
				t.Errorf("%q gives %v (%v), then %v (%v)", source, first, errFirst, second, errSecond)
			}
			if errFirst != nil {
				checkFault(t, source, errFirst)
			}
			switch x := first.(type) {
			case nil, bool, string:
			case float64:
				if math.IsNaN(x) || math.IsInf(x, 0) {
					t.Errorf("%q gives %v, want a finite number", source, x)
				}
			default:
				t.Errorf("%q gives a %T", source, first)
			}
		}
	})
}

func evaluate(s *Schema, p *Program, k Kind, facts Facts) (any, error) {
	e := s.Evaluator()
	defer e.Release()
	e.Bind(facts)
	switch k {
	case Boolean:
		return e.Bool(p)
	case Number:
		return e.Number(p)
	}
	return e.Value(p)
}

func checkFault(t *testing.T, source string, err error) {
	t.Helper()
	var f *Fault
	if !errors.As(err, &f) {
		t.Fatalf("%q fails with a %T, want *Fault", source, err)
	}
	if f.Line < 1 || f.Column < 1 || f.Offset < 0 || f.Offset > utf8.RuneCountInString(source) || f.Message == "" {
		t.Errorf("%q fails with %+v, want a place inside it and a message", source, *f)
	}
}

// FuzzGuard states: what the guard lets through has the length that came in, so that places stay
// true, and nests within the limits.
func FuzzGuard(f *testing.F) {
	for _, source := range []string{`not matches(a, "x")`, `a not matches ("x")`, `a.matches("x")`, `((((1))))`, `"(((("`, "// (((\n1", `--1`, `! ! a`, "`(`", "ä matches(ö)"} {
		f.Add(source)
	}
	f.Fuzz(func(t *testing.T, source string) {
		out, fault := guard(source)
		if fault != nil {
			checkFault(t, source, fault)
			return
		}
		if len(out) != len(source) || len(source) > MaxSource {
			t.Errorf("guard(%q) = %q, want the same length, at most %d", source, out, MaxSource)
		}
	})
}
