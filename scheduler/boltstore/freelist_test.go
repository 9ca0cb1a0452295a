package boltstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// listed is the number of the page with the list of free pages in a file, or noFreelist.
func listed(t *testing.T, b []byte) (page, root uint64) {
	t.Helper()
	root, page, err := (&inspector{f: bytes.NewReader(b)}).meta(int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return page, root
}

// A store that was closed holds the list of its free pages, so that the next open need not read all pages
// for it. One that was ended otherwise holds none, and who only reads a store leaves its file as it was.
func TestCloseWritesTheFreePages(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, FileName)
	read := func() []byte {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	s := filled(t, dir, 300)
	ended := read() // as a process leaves it that is killed now
	s.Close()
	if page, _ := listed(t, ended); page != noFreelist {
		t.Errorf("the free pages of an open store are listed on page %d", page)
	}
	closed := read()
	if page, _ := listed(t, closed); page == noFreelist {
		t.Error("the free pages of a closed store are not listed")
	}
	open(t, dir).Close()
	if !bytes.Equal(read(), closed) {
		t.Error("opening and closing changed the file")
	}
	for name, b := range map[string][]byte{"ended": ended, "closed": closed} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, FileName), b, 0o600); err != nil {
			t.Fatal(err)
		}
		s := open(t, dir)
		if err := s.SetCursor(t.Context(), "x", 1); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if faults, err := s.Check(t.Context()); err != nil || len(faults) != 0 {
			t.Errorf("%s: check: %v, %v", name, faults, err)
		}
		s.Close()
	}
}

// A list of free pages that would have pages in use written over, or is none, is refused with words.
func TestDamagedFreePagesAreRefused(t *testing.T) {
	dir := t.TempDir()
	s := filled(t, dir, 300)
	key := []byte("large, and then gone")
	if err := errors.Join(s.putMeta(key, make([]byte, 1<<20)), s.putMeta(key, nil), s.putMeta(key, nil)); err != nil {
		t.Fatal(err)
	}
	s.Close()
	whole, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	page, root := listed(t, whole)
	at := int(page) * os.Getpagesize()
	if n := binary.NativeEndian.Uint16(whole[at+10:]); n < 2 {
		t.Fatalf("%d free pages, the test needs two", n)
	}
	set := binary.NativeEndian.PutUint64
	for name, c := range map[string]struct {
		damage func(list []byte)
		says   string
	}{
		"in use":     {func(b []byte) { binary.NativeEndian.PutUint16(b[10:], 1); set(b[pageHeader:], root) }, "listed as free"},
		"outside":    {func(b []byte) { binary.NativeEndian.PutUint16(b[10:], 1); set(b[pageHeader:], 1<<50) }, "names page"},
		"a head":     {func(b []byte) { set(b[pageHeader:], 1) }, "names page"},
		"twice":      {func(b []byte) { copy(b[pageHeader+8:], b[pageHeader:pageHeader+8]) }, "names page"},
		"too many":   {func(b []byte) { binary.NativeEndian.PutUint16(b[10:], 60000) }, "says that it holds"},
		"far more":   {func(b []byte) { binary.NativeEndian.PutUint16(b[10:], manyFree); set(b[pageHeader:], 1<<60) }, "says that it holds"},
		"other kind": {func(b []byte) { b[8] = flagLeaf }, "is of kind"},
	} {
		t.Run(name, func(t *testing.T) {
			broken := bytes.Clone(whole)
			c.damage(broken[at:])
			path := filepath.Join(t.TempDir(), FileName)
			if err := os.WriteFile(path, broken, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := inspect(path, time.Second, false); !errors.Is(err, ErrNotAStore) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("err = %v; want one that says %q", err, c.says)
			}
		})
	}
}
