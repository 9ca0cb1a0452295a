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

// TestREADMEChangesARule takes the steps of "Change a rule" and "Test your rules" and holds what the
// README shows of their output to what is printed.
func TestREADMEChangesARule(t *testing.T) {
	doc, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	readme, dir := string(doc), t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../../rules/starter")); err != nil {
		t.Fatal(err)
	}
	change := func(file, from, to string) {
		t.Helper()
		path := filepath.Join(dir, file)
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), from) {
			t.Fatalf("%s does not hold %q, which the README changes (%v)", file, from, err)
		}
		if err := os.WriteFile(path, []byte(strings.Replace(string(text), from, to, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	lodestone := func(want int, line ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		if code := run(t.Context(), line, strings.NewReader(""), &out, &errs); code != want {
			t.Fatalf("%s: exit code %d, want %d\n%s%s", line, code, want, out.String(), errs.String())
		}
		return out.String() + errs.String()
	}
	score := []string{"score", "webinar", "--rules", dir, "--field", "email=kim@studio.example", "--field", "job_title=Head of Design"}
	if got := lodestone(exitDone, score...); !strings.Contains(got, "band warm (30 to 59)") {
		t.Errorf("before the edit Kim gets\n%s", got)
	}
	edits := regexp.MustCompile(`(?m)^sed -i\.bak 's/([^/]+)/([^/]+)/' rules-of-mine/(\S+)`).FindAllStringSubmatch(readme, -1)
	if len(edits) != 2 {
		t.Fatalf("README.md edits rules %d times, want once to change a rule and once to run it", len(edits))
	}
	change(edits[0][3], edits[0][1], edits[0][2])

	_, shown, _ := strings.Cut(readme, "```\nScore 40")
	shown, _, _ = strings.Cut(shown, "```")
	plain := regexp.MustCompile(`since \S+  rules \S+`)
	got := plain.ReplaceAllString(lodestone(exitDone, score...), "since")
	for want := range strings.Lines("Score 40" + plain.ReplaceAllString(shown, "since")) {
		if !strings.Contains(got, want) {
			t.Errorf("the README shows %q, and score prints\n%s", want, got)
		}
	}

	_, tests, found := strings.Cut(readme, "rules-of-mine/tests.yaml <<'END'\n")
	tests, _, ended := strings.Cut(tests, "END\n")
	if !found || !ended {
		t.Fatal("README.md writes no tests")
	}
	if err := os.WriteFile(filepath.Join(dir, "tests.yaml"), []byte(tests), 0o600); err != nil {
		t.Fatal(err)
	}
	lodestone(exitDone, "test", dir)

	change("sequences.yaml", "    priority: 100\n", "    priority: 100\n    consent: required\n") // as the README proposes
	lodestone(exitDone, "test", dir)
	change(edits[1][3], edits[1][1], edits[1][2])
	lodestone(exitFound, "test", dir) // it still expects ten minutes
	change("scoring.yaml", "fields.company_size >= 1000", "fields.compny_size >= 1000")
	if got := lodestone(exitFound, "check", dir); !strings.Contains(got, "scoring.yaml:20:23: unknown field compny_size; did you mean company_size?") {
		t.Errorf("check says\n%s", got)
	}
}
