package rules

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/lodestonehq/lodestone/scoring"
)

// FuzzCompile states: any rule file ends in a set or in faults with valid places, in bounded time;
// a set compiles to the same version again; and what it holds can be evaluated without a panic.
func FuzzCompile(f *testing.F) {
	for _, pattern := range []string{"testdata/broken/*.yaml", "testdata/valid/*.yaml", "starter/*.yaml"} {
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) == 0 {
			f.Fatalf("no seeds in %s (%v)", pattern, err)
		}
		for _, name := range names {
			data, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data, []byte("rival.example\n# comment\n"))
		}
	}
	f.Add([]byte("lists: {x: {file: x.txt}}"), []byte("\xff"))
	f.Add([]byte(demo), []byte(""))
	f.Fuzz(func(t *testing.T, rules, list []byte) {
		files := []File{{"rules.yaml", rules}, {"x.txt", list}}
		set, err := Compile(files, options())
		if err != nil {
			checkFaults(t, err, files)
			return
		}
		again, err := Compile(files, options())
		if err != nil || again.Version != set.Version {
			t.Fatalf("compiled again: %v, want the version %s", err, set.Version)
		}
		e := set.Schema.Evaluator()
		defer e.Release()
		e.Bind(scoring.Facts{})
		for _, r := range set.Rules {
			if r.When != nil {
				_, _ = e.Bool(r.When) // a fault is fine, a panic is not
			}
			if r.PointsExpr != nil {
				_, _ = e.Number(r.PointsExpr)
			}
		}
		for _, q := range set.Sequences {
			if len(q.StepsOf("")) == 0 || len(q.Version) != 12 {
				t.Errorf("sequence %s has %d steps and version %q", q.Name, len(q.Steps), q.Version)
			}
			_, _ = e.Bool(q.When)
			for _, s := range q.Steps {
				for _, a := range s.With {
					_, _ = a.Value.Eval(e)
				}
			}
		}
	})
}
