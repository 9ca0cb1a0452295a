package api

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSocketPathsThatAreTooLongMove(t *testing.T) {
	run := t.TempDir()
	short, err := os.MkdirTemp("/tmp", "run-") // the test's own directory may be too long itself
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(short) })
	t.Setenv("XDG_RUNTIME_DIR", short)
	dir := filepath.Join(run, strings.Repeat("long", 25))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, ok := Dial(dir); ok {
		t.Fatal("Dial found a worker before there was one")
	}

	// A worker that was killed leaves its socket, the directory around it and the note.
	killed, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	killed.(*listener).Listener.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := killed.(*listener).Listener.Close(); err != nil {
		t.Fatal(err)
	}
	if _, ok := Dial(dir); ok {
		t.Error("Dial found the worker that was killed")
	}

	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := Dial(dir); !ok {
		t.Error("Dial did not find the worker")
	}
	path, moved, err := SocketPath(dir)
	if err != nil || !moved || !strings.HasPrefix(path, short) {
		t.Errorf("SocketPath = %q, %t, %v; want one in %s", path, moved, err, short)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v; want mode 0600", info.Mode(), err)
	}

	// A copy of the data directory must not lead to this worker.
	copied := filepath.Join(run, strings.Repeat("copy", 25))
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if _, ok := Dial(copied); ok {
		t.Error("Dial of the copy found the worker of the original")
	}
	other, err := Listen(copied)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := Dial(dir); !ok {
		t.Error("the worker of the copy took the original's socket away")
	}

	for _, l := range []net.Listener{l, other} {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, d := range []string{dir, copied, short} {
		entries, err := os.ReadDir(d)
		if err != nil || len(entries) > 0 {
			t.Errorf("%s is not empty at the end: %v, %v", d, entries, err)
		}
	}
}

func TestSocketInTheDataDirectory(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "data-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for range 2 { // the second takes the place of a socket that was left behind
		l, err := Listen(dir)
		if err != nil {
			t.Fatal(err)
		}
		l.(*listener).Listener.(*net.UnixListener).SetUnlinkOnClose(false)
		if _, ok := Dial(dir); !ok {
			t.Error("Dial did not find the worker")
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}
