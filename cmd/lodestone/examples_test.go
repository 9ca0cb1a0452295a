package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lodestonehq/lodestone/rules"
)

// TestExamples holds the library of rule sets to what it is for: each is checked without a warning, its own
// tests pass and reach every sequence, and the commands that stand at its head work as they are written.
func TestExamples(t *testing.T) {
	dirs, err := filepath.Glob("../../rules/examples/*/rules.yaml")
	if err != nil || len(dirs) < 5 {
		t.Fatalf("%d examples (%v), want at least 5", len(dirs), err)
	}
	t.Setenv("LODESTONE_HTTP_PUBLIC_URL", "https://forms.example.com") // otherwise check notes that it does not know it
	for _, path := range dirs {
		dir := filepath.Dir(path)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			lodestone := func(args ...string) string {
				t.Helper()
				var out, errs bytes.Buffer
				// A data directory of nobody: score would look the lead up.
				args = append(args, "--data", t.TempDir())
				if code := run(t.Context(), args, strings.NewReader(""), &out, &errs); code != exitDone || errs.Len() > 0 {
					t.Fatalf("lodestone %s: exit code %d\n%s%s", strings.Join(args, " "), code, out.String(), errs.String())
				}
				return out.String()
			}
			lodestone("check", dir)
			var report testReport
			if err := json.Unmarshal([]byte(lodestone("test", dir, "--json")), &report); err != nil {
				t.Fatal(err)
			}
			if report.Passed < 5 {
				t.Errorf("%d tests, want at least 5", report.Passed)
			}
			set, err := rules.Load(dir, settings{}.rulesOptions())
			if err != nil {
				t.Fatal(err)
			}
			reached := map[string]bool{}
			for _, test := range set.Tests {
				for _, x := range test.Expect {
					reached[x.Sequence] = true
					for _, p := range x.Touchpoints {
						reached[p.Sequence] = true
					}
				}
			}
			for _, q := range set.Sequences {
				if !reached[q.Name] {
					t.Errorf("no test names the sequence %s", q.Name)
				}
			}
			head := head(t, path)
			commands := 0
			for line := range strings.Lines(strings.ReplaceAll(head, "\\\n", " ")) {
				_, command, ok := strings.Cut(line, "lodestone ")
				args := strings.Fields(strings.ReplaceAll(command, "DIR", dir))
				if !ok || len(args) == 0 || args[0] != "test" && args[0] != "score" {
					continue
				}
				commands++
				lodestone(args...)
			}
			if commands == 0 {
				t.Errorf("its head shows no command to try:\n%s", head)
			}
		})
	}
}

// head is the comment that a file begins with, without its signs.
func head(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for line := range strings.Lines(string(data)) {
		text, ok := strings.CutPrefix(line, "#")
		if !ok {
			break
		}
		b.WriteString(text)
	}
	return b.String()
}
