package rules

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func write(t *testing.T, dir string, namesAndTexts ...string) {
	t.Helper()
	for i := 0; i+1 < len(namesAndTexts); i += 2 {
		name := filepath.Join(dir, filepath.FromSlash(namesAndTexts[i]))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(namesAndTexts[i+1]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func names(files []File) []string {
	var out []string
	for _, f := range files {
		out = append(out, f.Name)
	}
	return out
}

func TestReadDir(t *testing.T) {
	outside := t.TempDir()
	write(t, outside, "secret.txt", "secret")
	dir := t.TempDir()
	write(t, dir,
		"b.yaml", "lists: {b: {file: texts/b.txt}, out: {file: "+filepath.Join(outside, "secret.txt")+"}, up: {file: ../secret.txt}}",
		"a.yaml", "lists: {a: {file: a.txt}, missing: {file: nowhere.txt}, folder: {file: texts}}",
		"broken.yaml", "lists: [",
		"old.yml", "forms: {}",
		"a.txt", "x\n", "texts/b.txt", "y\n", "unused.txt", "z\n",
		".hidden.yaml", "forms: {}", "notes.md", "#", "sub/c.yaml", "forms: {}",
	)
	files, err := ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"a.txt", "a.yaml", "b.yaml", "broken.yaml", "old.yml", "texts/b.txt"}
	if got := names(files); !slices.Equal(got, want) {
		t.Errorf("ReadDir = %v, want %v", got, want)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "lists.yaml", "lists:\n  competitors: {file: competitors.txt}\n", "competitors.txt", "\ufeffrival.example # the big one\n\n# all\nother.example\r\nrival.example\n",
		"scoring.yaml", "scoring: {rules: [{name: competitor, when: lead.domain in lists.competitors, points: -100}]}\n")
	set, err := Load(dir, options())
	if err != nil {
		t.Fatal(err)
	}
	inline := mustCompile(t, "a.yaml", "lists:\n  competitors: [other.example, rival.example]\nscoring: {rules: [{name: competitor, when: lead.domain in lists.competitors, points: -100}]}\n")
	if set.Version != inline.Version {
		t.Error("a list in a file gives another version than the same list written out")
	}
	if got, want := names(set.Files), []string{"competitors.txt", "lists.yaml", "scoring.yaml"}; !slices.Equal(got, want) {
		t.Errorf("the set keeps %v, want %v", got, want)
	}
	again, err := Compile(set.Files, options())
	if err != nil || again.Version != set.Version {
		t.Errorf("what the set keeps compiles to %v, %v; want the same version", again, err)
	}
}

func TestLoadFaults(t *testing.T) {
	if _, err := Load(t.TempDir(), options()); err == nil || !strings.Contains(err.Error(), "there are no rule files here") {
		t.Errorf("Load of an empty directory = %v, want a fault that says so", err)
	}
	missing := filepath.Join(t.TempDir(), "rules")
	if _, err := Load(missing, options()); err == nil || !strings.Contains(err.Error(), "does not exist; create it") {
		t.Errorf("Load of no directory = %v, want an error that says what to do", err)
	}
	dir := t.TempDir()
	write(t, dir, "rules", "")
	if _, err := Load(filepath.Join(dir, "rules"), options()); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Load of a file = %v, want an error", err)
	}
}

// Reading stops where Compile refuses anyway.
func TestReadDirLimits(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.yaml", strings.Repeat("#", 3*MaxFile))
	files, err := ReadDir(dir)
	if err != nil || len(files) != 1 || len(files[0].Data) != MaxFile+1 {
		t.Fatalf("ReadDir of a large file gives %d bytes, %v; want %d", len(files[0].Data), err, MaxFile+1)
	}
	dir = t.TempDir()
	for i := range 20 {
		write(t, dir, string(rune('a'+i))+".yaml", strings.Repeat("#", MaxFile))
	}
	_, err = Load(dir, options())
	if err == nil || !strings.Contains(err.Error(), "larger than 16 MiB") {
		t.Errorf("Load of a large directory = %v, want a fault that says so", err)
	}
}
