package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocumentedRules checks every piece of a rule file that the README and docs show, together with
// the forms and the scoring of docs/rules.md where a piece has none of its own.
func TestDocumentedRules(t *testing.T) {
	blocks := func(path string) []string {
		doc, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var found []string
		for _, m := range regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$").FindAllSubmatch(doc, -1) {
			found = append(found, string(m[1]))
		}
		if len(found) == 0 {
			t.Fatalf("%s shows no rules", path)
		}
		return found
	}
	var forms, scoring string
	for _, b := range blocks("../../docs/rules.md") {
		switch {
		case strings.HasPrefix(b, "forms:"):
			forms = strings.Replace(b, "country: ", "referral_code: {type: text}\n      country: ", 1)
		case strings.HasPrefix(b, "scoring:"):
			scoring = b
		}
	}
	for _, page := range []string{"rules.md", "forms.md", "providers.md"} {
		for _, b := range blocks("../../docs/" + page) {
			dir := t.TempDir()
			write := func(name, text string) {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write("disposable.txt", "throwaway.example\n")
			if strings.HasPrefix(b, "- name:") { // a step
				b = "sequences:\n  one:\n    when: band == \"hot\"\n    steps:\n      " + strings.ReplaceAll(strings.TrimRight(b, "\n"), "\n", "\n      ") + "\n"
			}
			write("piece.yaml", b)
			if !strings.HasPrefix(b, "forms:") {
				write("forms.yaml", forms)
			}
			if !strings.HasPrefix(b, "forms:") && !strings.HasPrefix(b, "scoring:") {
				write("scoring.yaml", scoring)
			}
			var out, errs bytes.Buffer
			if code := run(t.Context(), []string{"check", dir}, strings.NewReader(""), &out, &errs); code != exitDone {
				t.Errorf("docs/%s shows rules that are refused: exit code %d\n%s%s\n%s", page, code, out.String(), errs.String(), b)
			}
		}
	}
}
