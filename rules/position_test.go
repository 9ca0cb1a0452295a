package rules

import (
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// Each text marks the place of X in a scalar: the value is searched for X, and locate must lead to
// the X in the file.
func TestLocate(t *testing.T) {
	for name, text := range map[string]string{
		"plain":                            "k: abc X def\n",
		"plain, not ASCII":                 "käse: äöü X def\n",
		"plain over lines":                 "k: abc\n  def\n  ghi X\n",
		"plain with blank lines":           "k: abc\n\n\n  def\n\n  ghi X\n",
		"plain with trailing blanks":       "k: abc   \n  def X\n",
		"plain in a flow mapping":          "k: {a: b, c: d X e}\n",
		"plain over lines in a flow list":  "k: [a, b\n  c X]\n",
		"single quotes":                    "k: 'abc X'\n",
		"single quotes, doubled":           "k: 'it''s '' X'\n",
		"single quotes over lines":         "k: 'abc\n\n  it''s\n  X'\n",
		"single quotes, X first":           "k: 'X'\n",
		"double quotes":                    `k: "abc X"` + "\n",
		"double quotes, escapes":           `k: "a\"b\\c\n\t\x41\u00e4\U0001F600 X"` + "\n",
		"double quotes over lines":         "k: \"abc\n  def\n\n  ghi X\"\n",
		"double quotes, escaped break":     "k: \"abc \\\n   def\\\n   X\"\n",
		"double quotes, escape after fold": "k: \"abc\n\n  \\n X\"\n",
		"literal":                          "k: |\n  abc\n  def X\n",
		"literal, kept":                    "k: |+\n  abc\n\n  def X\n\n",
		"literal, indented further":        "k: |\n  abc\n     def X\n  ghi\n",
		"literal, blank line first":        "k: |\n\n\n  abc X\n",
		"literal, indentation given":       "k: |2\n    abc\n   X\n",
		"literal, comment in the header":   "k: |- # 3 things\n  abc\n  X\n",
		"literal, last line":               "k: |\n  abc\n  X",
		"folded":                           "k: >\n  abc\n  def X\n",
		"folded, blank lines":              "k: >-\n  abc\n\n\n  def\n  ghi X\n",
		"folded, indented further":         "k: >\n  abc\n    def\n    ghi\n  jkl X\n",
		"folded, blank line first":         "k: >\n\n  abc\n  X\n",
		"anchor":                           "k: &a abc X\n",
		"tag and anchor":                   "k: !!str &a 'abc X'\n",
		"byte order mark":                  "\ufeffk: abc X\n",
		"carriage returns":                 "k: >-\r\n  abc\r\n  def X\r\n",
		"list":                             "- a\n- - b\n  - c X\n",
	} {
		t.Run(name, func(t *testing.T) {
			doc := parse(File{Name: "f.yaml", Data: []byte(text)}, func(f Fault) { t.Fatalf("parse: %s", f) })
			n := nodeWith(doc.root, "X")
			if n == nil {
				t.Fatal("no value holds X")
			}
			offset := characters(n.Value[:strings.Index(n.Value, "X")])
			at := doc.locate(n, offset)
			if got := doc.at(at.line, at.column); got != 'X' {
				t.Errorf("locate(%q, %d) = %d:%d, where %q stands, want the X", n.Value, offset, at.line, at.column, got)
			}
		})
	}
}

func nodeWith(n *yaml.Node, s string) *yaml.Node {
	if n.Kind == yaml.ScalarNode && strings.Contains(n.Value, s) {
		return n
	}
	for _, c := range n.Content {
		if found := nodeWith(c, s); found != nil {
			return found
		}
	}
	return nil
}

// longest is the scalar with the longest value.
func longest(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.ScalarNode {
		return n
	}
	var best *yaml.Node
	for _, c := range n.Content {
		if l := longest(c); l != nil && (best == nil || len(l.Value) > len(best.Value)) {
			best = l
		}
	}
	return best
}

// FuzzLocate states: every character of a scalar that is neither blank nor escaped stands where
// locate says, or locate gives up and names the beginning of the scalar.
func FuzzLocate(f *testing.F) {
	for _, s := range []string{"k: abc\n  def\n", "k: 'it''s'\n", `k: "a\n\x41"`, "k: |\n  a\n   b\n", "k: >\n  a\n\n  b\n   c\n  d\n", "- 'a\n\n  b'", "k: |2\n   a\n", "a: \u0085 b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1000 {
			return // every character is located from the beginning
		}
		doc := parse(File{Name: "f.yaml", Data: []byte(text)}, func(Fault) {})
		if doc == nil || doc.root == nil {
			return
		}
		n := longest(doc.root)
		if n == nil || n.Style&yaml.DoubleQuotedStyle != 0 {
			return
		}
		begin := doc.locate(n, 0)
		for i, r := range []rune(n.Value) {
			at := doc.locate(n, i)
			if at.line < 1 || at.column < 1 {
				t.Fatalf("locate(%q, %d) = %+v", n.Value, i, at)
			}
			if r == ' ' || r == '\n' || r == '\t' || at == begin {
				continue
			}
			if got := doc.at(at.line, at.column); got != r && n.Line > 0 && at != (place{n.Line, n.Column}) {
				t.Fatalf("locate(%q, %d) = %+v in %q, where %q stands, want %q", n.Value, i, at, text, got, r)
			}
		}
	})
}
