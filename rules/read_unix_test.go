//go:build unix

package rules

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Opening a pipe would wait for ever.
func TestLoadPipe(t *testing.T) {
	pipe := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(pipe, "a.yaml"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(pipe, options()); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("Load of a pipe = %v, want an error", err)
	}
}
