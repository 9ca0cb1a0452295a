package scoring

import (
	"testing"

	"github.com/lodestonehq/lodestone"
)

func TestDefault(t *testing.T) {
	s := NewSchema(testConfig())
	for _, test := range []struct {
		source string
		want   any
	}{
		{`default(fields.city, "there")`, "there"},  // absent
		{`default(fields.title, "there")`, "there"}, // blanks
		{`default(fields.country, "there")`, "DE"},  // given
		{`default(fields.seats, 3) + 1`, 4.0},       // the result is never absent
		{`default(fields.city, fields.country)`, "DE"},
		{`default(nil, "x")`, "x"},
	} {
		p, err := s.Compile(test.source, Value)
		if err != nil {
			t.Errorf("%s: %v", test.source, err)
			continue
		}
		f := testFacts()
		f.Fields = lodestone.FieldsOf(map[string]any{"title": " \t"}).Over(f.Fields)
		e := s.Evaluator()
		e.Bind(f)
		if got, err := e.Value(p); err != nil || got != test.want {
			t.Errorf("%s = %v, %v; want %v", test.source, got, err, test.want)
		}
		e.Release()
	}
	for source, want := range map[string]string{
		`default(fields.city)`:          `1:1: default is written default(value, otherwise), as in default(fields.first_name, "there"); here it has 1 values`,
		`default(fields.city, 3)`:       `1:22: default gives one type: the value is a text, this is a number`,
		`default(lists.many, "x")`:      `1:1: default is written default(value, otherwise), as in default(fields.first_name, "there"); a list is never absent`,
		`defualt(fields.city, "there")`: `1:1: unknown function defualt; did you mean default?`,
	} {
		if _, err := s.Compile(source, Value); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", source, err, want)
		}
	}
}
