package rules

import (
	"strings"
	"testing"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/scoring"
)

// What people wrote is made fit for where it goes.
func TestTemplatesFitWhatTheyAreFor(t *testing.T) {
	op := lodestone.Operation{Name: "p.send", Parameters: []lodestone.Parameter{
		{Name: "line", Type: lodestone.FieldText, Length: 40},
		{Name: "note", Type: lodestone.FieldText, Holds: lodestone.HoldsLines},
		{Name: "page", Type: lodestone.FieldText, Holds: lodestone.HoldsURL},
		{Name: "html", Type: lodestone.FieldText, Holds: lodestone.HoldsHTML},
	}}
	for _, test := range []struct {
		key, template, value string
		want                 any
		fault                string
	}{
		{"line", "${fields.v}", "Ada\r\nBcc: all", "Ada Bcc: all", ""},
		{"line", "Dear ${fields.v}!", "Ada\x00\u202egnp", "Dear Adagnp!", ""},
		{"line", "${fields.v}", "Zoë & Co <3", "Zoë & Co <3", ""},
		{"line", "Dear ${fields.v}", strings.Repeat("x", 36), nil, "it has 41 characters, and the provider takes at most 40"},
		{"note", "${fields.v}", "one\r\ntwo\tthree\x07", "one\ntwo three", ""},
		{"page", "https://x.example/?n=${fields.v}&s=1", "a b&s=2#", "https://x.example/?n=a%20b%26s%3D2%23&s=1", ""},
		{"page", "${fields.v}", "https://x.example/a?b=c", "https://x.example/a?b=c", ""},
		{"page", "${fields.v}", "javascript:alert(1)", nil, "it is no address of a page; it begins with https://"},
		{"html", "<b>${fields.v}</b>", "<script>&", "<b>&lt;script&gt;&amp;</b>", ""},
		{"html", "${fields.v}", "<i>", "&lt;i&gt;", ""},
	} {
		file := "forms:\n  f:\n    fields:\n      email: {type: email, required: true}\n      v: {type: text}\n" +
			"sequences:\n  s:\n    when: form == \"f\"\n    steps: [{name: a, do: p.send, with: {" + test.key + ": '" + test.template + "'}}]\n"
		set, err := Compile([]File{{"r.yaml", []byte(file)}}, Options{Operations: map[string]lodestone.Operation{"p.send": op}})
		if err != nil {
			t.Fatal(err)
		}
		e := set.Schema.Evaluator()
		e.Bind(scoring.Facts{Form: "f", Fields: lodestone.FieldsOf(map[string]any{"v": test.value})})
		got, err := set.Sequences[0].Steps[0].With[0].Value.Eval(e)
		e.Release()
		if test.fault != "" {
			if err == nil || err.Error() != test.fault {
				t.Errorf("%s of %q: %v, want %s", test.template, test.value, err, test.fault)
			}
		} else if err != nil || got != test.want {
			t.Errorf("%s of %q = %q, %v; want %q", test.template, test.value, got, err, test.want)
		}
	}
	long := "forms: {f: {fields: {email: {type: email, required: true}}}}\nsequences: {s: {when: form == \"f\", steps: [{name: a, do: p.send, with: {line: " + strings.Repeat("y", 41) + "}}]}}\n"
	_, err := Compile([]File{{"r.yaml", []byte(long)}}, Options{Operations: map[string]lodestone.Operation{"p.send": op}})
	if err == nil || !strings.Contains(err.Error(), "line is too long: it has 41 characters, and the provider takes at most 40") {
		t.Errorf("a text that is too long was let pass: %v", err)
	}
}
