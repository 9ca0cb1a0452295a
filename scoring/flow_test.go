package scoring

import (
	"slices"
	"strings"
	"testing"

	"github.com/lodestonehq/lodestone"
)

func TestPlain(t *testing.T) {
	s := NewSchema(testConfig())
	p, err := s.Compile("plain(fields.title)", Value)
	if err != nil {
		t.Fatal(err)
	}
	e := s.Evaluator()
	defer e.Release()
	for typed, want := range map[string]any{
		"Ada": "Ada", "  Ada Lovelace ": "Ada Lovelace", "Jean-Luc O'Neill": "Jean-Luc O'Neill", "J. R. Müller, 3rd": "J. R. Müller, 3rd", "张伟": "张伟",
		strings.Repeat("ä", maxPlain):   strings.Repeat("ä", maxPlain),
		strings.Repeat("ä", maxPlain+1): nil, "": nil, "   ": nil,
		"see https://spam.example": nil, "spam.example": nil, "WWW.spam": nil, "a@b": nil, "<b>Ada</b>": nil, "Ada\nBuy now": nil, "Ada\u2028x": nil, "{{ada}}": nil,
	} {
		f := testFacts()
		f.Fields = lodestone.FieldsOf(map[string]any{"title": typed}).Over(f.Fields)
		e.Bind(f)
		if got, err := e.Value(p); err != nil || got != want {
			t.Errorf("plain(%q) = %v, %v; want %v", typed, got, err, want)
		}
	}
	e.Bind(Facts{})
	if got, err := e.Value(p); err != nil || got != nil {
		t.Errorf("plain(nil) = %v, %v; want nil", got, err)
	}
}

func TestUnchecked(t *testing.T) {
	s := NewSchema(decideConfig())
	for source, want := range map[string]string{
		`fields.title`: "fields.title", `plain(fields.title) ?? "there"`: "", `"Dear " + (fields.title ?? fields.city)`: "fields.city fields.title",
		`upper(trim(utm.source))`: "utm.source", `fields.title == "a" ? fields.title : "b"`: "", `fields.title != nil ? "a" : fields.title`: "",
		`fields.title in ["a", "b"] ? fields.title : fields.country`: "fields.country", `matches(fields.title, "^[a-z]+$") ? fields.title : "there"`: "",
		`string(fields.seats)`: "", `lead.domain`: "", `domain(fields.title)`: "", `lead.profile.title`: "lead.profile.title",
		`fields.title not contains "://" ? fields.title : ""`: "fields.title",
	} {
		got := analyse(t, s, source, Value).Unchecked(s.Everywhere())
		if !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%s lets %v through unchecked, want %s", source, got, want)
		}
	}
}
