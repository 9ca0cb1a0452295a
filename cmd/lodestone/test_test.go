package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// notes is a writer that can be read meanwhile.
type notes struct {
	mu sync.Mutex // guards b
	b  strings.Builder
}

func (n *notes) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.b.Write(p)
}

// until waits until the text has been written n times.
func (n *notes) until(t *testing.T, text string, times int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		n.mu.Lock()
		all := n.b.String()
		n.mu.Unlock()
		if strings.Count(all, text) >= times {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%q was not written %d times:\n%s", text, times, all)
		}
	}
}

// --watch runs the tests after each change: a good one, a faulty one, one by an editor that replaces files.
func TestWatchedTestsRunAgain(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "rules.yaml")
	write := func(band, expect string) {
		t.Helper()
		text := "forms: {guide: {fields: {email: {type: email, required: true}}}}\nscoring: {bands: {" + band + ": 0}}\ntests:\n" +
			"  - {name: one, submit: {form: guide, fields: {email: ada@example.com}}, expect: {band: " + expect + "}}\n"
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	write("any", "any")
	ctx, cancel := context.WithCancel(t.Context())
	var out, errs notes
	done := make(chan int, 1)
	go func() { done <- run(ctx, []string{"test", dir, "--watch"}, strings.NewReader(""), &out, &errs) }()
	out.until(t, "1 test passed", 1)
	write("other", "any")
	errs.until(t, "there is no band any", 1)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	errs.until(t, "there are no rule files here", 1)
	write("other", "other")
	out.until(t, "1 test passed", 2)
	cancel()
	if code := <-done; code != exitDone {
		t.Errorf("exit code %d", code)
	}
}
