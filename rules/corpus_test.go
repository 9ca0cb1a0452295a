package rules

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lodestonehq/lodestone"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// Each file of testdata/broken is a rules directory of its own; its golden file holds all faults.
func TestBroken(t *testing.T) {
	golden(t, "testdata/broken/*.yaml", 77, func(t *testing.T, file File) error {
		set, err := Compile([]File{file}, options())
		if err == nil {
			t.Fatalf("Compile = a set of version %s, want faults", set.Version)
		}
		return err
	})
}

// Each file of testdata/suspicious can run and is probably not meant; its golden file holds all
// warnings.
func TestSuspicious(t *testing.T) {
	golden(t, "testdata/suspicious/*.yaml", 20, func(t *testing.T, file File) error {
		opts := options()
		opts.Operations["referralrock.listMembers"] = lodestone.Operation{Name: "referralrock.listMembers", Effect: lodestone.EffectRead}
		set, err := Compile([]File{file}, opts)
		if err != nil {
			t.Fatalf("Compile:\n%s", err)
		}
		if len(set.Warnings) == 0 {
			t.Fatal("there are no warnings")
		}
		return set.Warnings
	})
}

// golden compares what is said of each file with the golden file beside it.
func golden(t *testing.T, pattern string, atLeast int, check func(*testing.T, File) error) {
	names, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	if len(names) < atLeast {
		t.Fatalf("%d files are %s, want at least %d", len(names), pattern, atLeast)
	}
	for _, name := range names {
		base := strings.TrimSuffix(filepath.Base(name), ".yaml")
		t.Run(base, func(t *testing.T) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			file := File{Name: "rules.yaml", Data: data}
			faults := check(t, file)
			checkFaults(t, faults, []File{file})
			got := faults.Error() + "\n"
			golden := strings.TrimSuffix(name, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("faults differ from %s (-update rewrites it)\n got %s\nwant %s", golden, got, want)
			}
		})
	}
}

// checkFaults checks what holds for all faults: a valid place, a message, an order.
func checkFaults(t testing.TB, err error, files []File) {
	t.Helper()
	faults, ok := err.(Faults)
	if !ok || len(faults) == 0 {
		t.Fatalf("Compile fails with %T (%v), want Faults", err, err)
	}
	texts := make(map[string][][]rune)
	for _, f := range files {
		texts[f.Name] = splitLines(strings.TrimPrefix(string(f.Data), "\ufeff"))
	}
	for i, f := range faults {
		if f.Severity != SeverityError && f.Severity != SeverityWarning || strings.TrimSpace(f.Message) == "" {
			t.Errorf("%+v: want a severity and a message", f)
		}
		if i > 0 {
			b := faults[i-1]
			if b.File > f.File || b.File == f.File && (b.Line > f.Line || b.Line == f.Line && b.Column > f.Column) {
				t.Errorf("%s stands after %s", f, b)
			}
		}
		if f.Line < 1 || f.Column < 1 {
			t.Errorf("%s: lines and columns count from 1", f)
		}
		if f.File == "." {
			continue
		}
		lines, ok := texts[f.File]
		switch {
		case !ok:
			t.Errorf("%s: there is no such file", f)
		case f.Line > len(lines):
			t.Errorf("%s: the file has %d lines", f, len(lines))
		case f.Column > len(lines[f.Line-1])+1:
			t.Errorf("%s: the line has %d characters", f, len(lines[f.Line-1]))
		}
	}
}

func TestValid(t *testing.T) {
	names, err := filepath.Glob("testdata/valid/*.yaml")
	if err != nil || len(names) == 0 {
		t.Fatalf("no valid files (%v)", err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		set, err := Compile([]File{{Name: filepath.Base(name), Data: data}}, options())
		if err != nil {
			t.Errorf("%s:\n%s", name, err)
			continue
		}
		if len(set.Warnings) > 0 {
			t.Errorf("%s warns:\n%s", name, set.Warnings)
		}
	}
}
