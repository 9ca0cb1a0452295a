package rules_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone/rules"
)

// watched is a directory under watch and what was told of it.
type watched struct {
	t    *testing.T
	dir  string
	told chan string
}

func watch(t *testing.T, dir string) *watched {
	t.Helper()
	known, err := rules.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	w := &watched{t: t, dir: dir, told: make(chan string, 1000)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		rules.Watcher{Dir: dir}.Run(ctx, known, func(files []rules.File, err error) {
			if err != nil {
				w.told <- "error"
				return
			}
			text := ""
			for _, f := range files {
				text += f.Name + "=" + string(f.Data) + ";"
			}
			w.told <- text
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

// until waits until want was told and returns what was told before it.
func (w *watched) until(want string) (before []string) {
	w.t.Helper()
	deadline := time.After(time.Minute)
	for {
		select {
		case got := <-w.told:
			if got == want {
				return before
			}
			before = append(before, got)
		case <-deadline:
			w.t.Fatalf("%q was never told, only %q", want, before)
		}
	}
}

func (w *watched) write(name, text string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *watched) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	t.Run("written in place", func(t *testing.T) {
		t.Parallel()
		w := watch(t, t.TempDir())
		w.write("a.yaml", "1")
		w.until("a.yaml=1;")
	})
	t.Run("replaced as editors do", func(t *testing.T) {
		t.Parallel()
		w := watch(t, t.TempDir())
		w.write("a.yaml", "1")
		w.until("a.yaml=1;")
		for i := 2; i < 5; i++ {
			w.write(".a.yaml.swp", fmt.Sprint(i))
			w.must(os.Rename(filepath.Join(w.dir, "a.yaml"), filepath.Join(w.dir, "a.yaml~")))
			w.must(os.Rename(filepath.Join(w.dir, ".a.yaml.swp"), filepath.Join(w.dir, "a.yaml")))
			w.until(fmt.Sprintf("a.yaml=%d;", i))
		}
	})
	t.Run("deleted", func(t *testing.T) {
		t.Parallel()
		w := watch(t, t.TempDir())
		w.write("a.yaml", "1")
		w.write("b.yaml", "2")
		w.until("a.yaml=1;b.yaml=2;")
		w.must(os.Remove(filepath.Join(w.dir, "a.yaml")))
		w.until("b.yaml=2;")
	})
	t.Run("the directory deleted and made again", func(t *testing.T) {
		t.Parallel()
		w := watch(t, filepath.Join(t.TempDir()))
		w.write("a.yaml", "1")
		w.until("a.yaml=1;")
		w.must(os.RemoveAll(w.dir))
		w.until("error")
		w.must(os.Mkdir(w.dir, 0o700))
		w.write("a.yaml", "2")
		w.until("a.yaml=2;")
		w.write("a.yaml", "3") // by a notice of the new directory or by comparison
		w.until("a.yaml=3;")
	})
	t.Run("swapped by a link, as config maps are", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		version := func(n int) {
			sub := filepath.Join(dir, fmt.Sprintf("..v%d", n))
			if err := os.Mkdir(sub, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(sub, "a.yaml"), fmt.Append(nil, n), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(filepath.Base(sub), filepath.Join(dir, "..data_tmp")); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
				t.Fatal(err)
			}
		}
		version(1)
		if err := os.Symlink("..data/a.yaml", filepath.Join(dir, "a.yaml")); err != nil {
			t.Fatal(err)
		}
		w := watch(t, dir)
		version(2)
		w.until("a.yaml=2;")
		version(3)
		w.until("a.yaml=3;")
	})
	t.Run("a list file", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		text := "lists: {rivals: {file: rivals.txt}}\n"
		for name, data := range map[string]string{"a.yaml": text, "rivals.txt": "one"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		w := watch(t, dir)
		w.write("rivals.txt", "two")
		w.until("a.yaml=" + text + ";rivals.txt=two;")
	})
}

// TestWatchSlowCopy writes a file a byte at a time, slower than a disk and quicker than contents count as
// settled: nothing but the whole is told.
func TestWatchSlowCopy(t *testing.T) {
	t.Parallel()
	w := watch(t, t.TempDir())
	f, err := os.Create(filepath.Join(w.dir, "a.yaml"))
	w.must(err)
	whole := "a: 1\nb: 2\nc: 3\n"
	tick := time.NewTicker(20 * time.Millisecond) // the pace of the copy
	defer tick.Stop()
	for i := range len(whole) {
		<-tick.C
		_, err := f.WriteString(whole[i : i+1])
		w.must(err)
	}
	w.must(f.Close())
	w.until("a.yaml=" + whole + ";")
}

// TestWatchManyEdits edits a hundred times a second: few of them are told, and the last one is.
func TestWatchManyEdits(t *testing.T) {
	t.Parallel()
	w := watch(t, t.TempDir())
	const edits = 200
	tick := time.NewTicker(10 * time.Millisecond) // the pace of the edits
	defer tick.Stop()
	for i := range edits {
		<-tick.C
		w.write("a.yaml", fmt.Sprint(i))
	}
	before := w.until(fmt.Sprintf("a.yaml=%d;", edits-1))
	if len(before) > edits/4 {
		t.Errorf("%d of %d edits were told", len(before), edits)
	}
}
