package rules

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed starter/*.yaml
var starter embed.FS

// Starter returns the rule files that a newcomer begins with, in the order of their names.
func Starter() []File {
	files, err := starterFiles()
	if err != nil {
		panic(err) // they are part of the binary
	}
	return files
}

func starterFiles() ([]File, error) {
	entries, err := starter.ReadDir("starter")
	if err != nil {
		return nil, err
	}
	var files []File
	for _, e := range entries {
		data, err := starter.ReadFile(path.Join("starter", e.Name()))
		if err != nil {
			return nil, err
		}
		files = append(files, File{Name: e.Name(), Data: data})
	}
	return files, nil
}

// Load reads a directory and compiles it. The error is [Faults] unless the directory cannot be
// read.
func Load(dir string, opts Options) (*Set, error) {
	files, err := ReadDir(dir)
	if err != nil {
		return nil, err
	}
	return Compile(files, opts)
}

// ReadDir reads the rule files of a directory, *.yaml, and the list files that they name, in the
// order of their names. Folders in it and names that begin with a dot are left out. It stops
// reading beyond the limits, one byte late, so that [Compile] reports what is too large; *.yml
// files are read for the same reason: Compile says that they would be overlooked. The error is one
// of reading, never one of content. A directory that does not exist is [Faults], because it is to the
// worker what an empty one is: the last good version goes on, and with none submissions wait.
func ReadDir(dir string) ([]File, error) {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, Faults{{".", 1, 1, SeverityError, fmt.Sprintf("the directory %s does not exist; create it and put rule files (*.yaml) in it", dir)}}
	case err != nil:
		return nil, fmt.Errorf("rules: %w", err)
	}
	var names []string
	for _, e := range entries {
		ext := path.Ext(e.Name())
		if !strings.HasPrefix(e.Name(), ".") && (ext == ".yaml" || ext == ".yml") {
			names = append(names, e.Name())
		}
	}
	r := reader{dir: dir, left: MaxDirectory + 1}
	for _, name := range names {
		if err := r.read(name); err != nil {
			return nil, err
		}
	}
	for _, f := range slices.Clone(r.files) {
		if r.left <= 0 {
			break // Compile refuses these files without looking for lists
		}
		for _, name := range listFiles(f) {
			if err := r.read(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err // one that does not exist is a fault with a place, so Compile reports it
			}
		}
	}
	slices.SortFunc(r.files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	return r.files, nil
}

// reader reads files of one directory within a budget.
type reader struct {
	dir   string
	left  int64 // bytes that may still be read
	files []File
}

func (r *reader) read(name string) error {
	if slices.ContainsFunc(r.files, func(f File) bool { return f.Name == name }) {
		return nil
	}
	full := filepath.Join(r.dir, filepath.FromSlash(name))
	info, err := os.Stat(full)
	if err != nil {
		return fmt.Errorf("rules: %w", err)
	}
	if info.IsDir() {
		return nil
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("rules: %s is not a regular file", full) // opening a pipe would wait for ever
	}
	f, err := os.Open(full)
	if err != nil {
		return fmt.Errorf("rules: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, min(MaxFile+1, r.left)))
	if err != nil {
		return fmt.Errorf("rules: %w", err)
	}
	r.left -= int64(len(data))
	r.files = append(r.files, File{Name: name, Data: data})
	return nil
}

// listFiles returns the names of the list files that a rule file refers to, as far as it can be
// read at all. Those that would leave the directory are left out; Compile reports them.
func listFiles(f File) []string {
	var names []string
	doc := parse(f, func(Fault) {})
	if doc == nil || doc.root == nil {
		return nil
	}
	for _, list := range pairsOf(valueOf(doc.root, "lists")) {
		if file := valueOf(list.value, "file"); file != nil {
			if name, ok := listPath(f.Name, file.Value); ok {
				names = append(names, name)
			}
		}
	}
	return names
}

// listPath resolves the name of a list file against the rule file that names it; ok is false when
// that leads out of the directory.
func listPath(ruleFile, name string) (string, bool) {
	if name == "" || path.IsAbs(name) || strings.Contains(name, `\`) {
		return "", false
	}
	p := path.Join(path.Dir(ruleFile), name)
	return p, filepath.IsLocal(filepath.FromSlash(p)) && p != "."
}
