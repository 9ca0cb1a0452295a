package lodestone

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestPath(t *testing.T) {
	var payload any
	if err := json.Unmarshal([]byte(`{"contact":{"email":"a@b.example","First name":"Ada \"the\" first"},
		"results":[{"n":1,"v":"one"},{"n":2,"v":"two","field":{"ref":"mail"}}],"0":"zero","1.3":"dotted","empty":null}`), &payload); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		path string
		want any
	}{
		{"payload", payload},
		{"payload.contact.email", "a@b.example"},
		{`payload.contact["First name"]`, `Ada "the" first`},
		{`payload["1.3"]`, "dotted"},
		{`payload["0"]`, "zero"},
		{"payload.results[1].v", "two"},
		{`payload.results[ n == "2" ].v`, "two"},
		{`payload.results[field.ref == "mail"].v`, "two"},
		{"payload.results[2].v", nil},
		{`payload.results[n == "3"].v`, nil},
		{"payload.contact[0]", nil},
		{"payload.contact.email.more", nil},
		{"payload.empty.more", nil},
		{"payload.results.v", nil},
		{`payload.contact["x\"y"]`, nil},
	} {
		p, err := ParsePath(test.path)
		if err != nil {
			t.Errorf("ParsePath(%s): %v", test.path, err)
			continue
		}
		if got := p.Find(payload); !reflect.DeepEqual(got, test.want) || p.String() != test.path {
			t.Errorf("%s finds %v, want %v", p, got, test.want)
		}
	}
}

func TestPathFaults(t *testing.T) {
	for _, test := range []struct {
		path string
		at   int
		want string
	}{
		{"", 0, "begins with payload"},
		{"contact.email", 0, "begins with payload"},
		{"payload.", 8, "after the dot"},
		{"payload.é", 8, "after the dot"},
		{"payload email", 7, "a dot or ["},
		{"payload[", 8, "a bracket holds"},
		{"payload[0", 9, "not closed"},
		{"payload[label = \"x\"]", 14, "a bracket holds"},
		{"payload[label == x]", 17, "in double quotes"},
		{"payload[label == \"x]", 20, "in double quotes"},
		{"payload" + strings.Repeat("[0]", 33), 103, "at most 32 steps"},
		{"payload." + strings.Repeat("x", 1024), 0, "at most 1024 bytes"},
	} {
		_, err := ParsePath(test.path)
		var e *PathError
		if !errors.As(err, &e) || e.At != test.at || !strings.Contains(e.Message, test.want) {
			t.Errorf("ParsePath(%.40s) = %+v, want %q at %d", test.path, err, test.want, test.at)
		}
	}
}

func FuzzPath(f *testing.F) {
	for _, s := range []string{"payload.a", `payload["a"][0]`, `payload[a.b == "c"].d`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePath(s)
		if err != nil {
			return
		}
		p.Find(map[string]any{"a": []any{map[string]any{"b": 1.0}, nil, "x"}})
		if again, err := ParsePath(p.String()); err != nil || !reflect.DeepEqual(again, p) {
			t.Errorf("%q reads as %v, and again as %v, %v", s, p, again, err)
		}
	})
}
