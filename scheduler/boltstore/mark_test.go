package boltstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/sequencer"
)

// closed puts a store with leads into a folder of its own and closes it.
func closed(t testing.TB, leads int) (dir string) {
	t.Helper()
	from := t.TempDir()
	filled(t, from, leads).Close()
	dir = t.TempDir()
	if err := copyFile(filepath.Join(dir, FileName), filepath.Join(from, FileName)); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if s.Unread() {
		t.Fatal("a file that was just copied was opened without being read through")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, MarkName)); err != nil {
		if runtime.GOOS == "linux" {
			t.Fatalf("a store that was closed whole has no mark: %v", err)
		}
		t.Skipf("this system does not tell what a mark needs: %v", err)
	}
	return dir
}

// spoil breaks the number of the page that the record of a lead stands on.
func spoil(t testing.TB, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	root, _, err := (&inspector{f: bytes.NewReader(b)}).meta(int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	size := os.Getpagesize()
	key := []byte("lead00050@example.com")
	for at := 2 * size; at < len(b); at += size {
		page := b[at : at+size]
		if page[8] == flagLeaf && bytes.Contains(page, key) && bytes.Contains(page, []byte("lead00051@example.com")) && at != int(root)*size {
			page[0] ^= 0x10
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err == nil {
				_, err = f.WriteAt(page, int64(at))
				err = errors.Join(err, f.Close())
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A store that was closed is opened without being read through, once for each time that it was closed.
func TestClosedFileIsOpenedAtOnce(t *testing.T) {
	dir := closed(t, 300)
	for range 3 {
		s, err := Open(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if !s.Unread() {
			t.Error("the file was read through although nobody touched it")
		}
		if _, err := os.Stat(filepath.Join(dir, MarkName)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the mark is there while the store is open: %v", err)
		}
		if _, err := Open(dir, Options{Wait: time.Millisecond}); !errors.Is(err, ErrInUse) {
			t.Errorf("opened twice: %v", err)
		}
		if err := s.SetCursor(t.Context(), "x", 1); err != nil {
			t.Error(err)
		}
		if err := s.ReadThrough(t.Context(), 1); err != nil || s.Unread() || s.Damage() != nil {
			t.Errorf("ReadThrough = %v, unread %v, damage %v", err, s.Unread(), s.Damage())
		}
		if faults, err := s.Check(t.Context()); err != nil || len(faults) > 0 {
			t.Errorf("check: %v, %v", faults, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Whatever became of the file or its mark since it was closed, it is read through before it is used, and
// refused when it is damaged, in the same words as ever.
func TestTouchedFileIsReadThrough(t *testing.T) {
	touched := map[string]func(t *testing.T, path string){
		"written to": func(t *testing.T, path string) { rewrite(t, path) },
		"written to, its times back": func(t *testing.T, path string) {
			info := stat(t, path)
			rewrite(t, path)
			must(t, os.Chtimes(path, info.ModTime(), info.ModTime()))
		},
		"longer":            func(t *testing.T, path string) { must(t, os.Truncate(path, stat(t, path).Size()+4096)) },
		"other permissions": func(t *testing.T, path string) { must(t, os.Chmod(path, 0o640)) },
		"copied, its times kept": func(t *testing.T, path string) {
			info := stat(t, path)
			must(t, copyFile(path+"-copy", path))
			must(t, os.Chtimes(path+"-copy", info.ModTime(), info.ModTime()))
			must(t, os.Rename(path+"-copy", path))
		},
		"without its mark": func(t *testing.T, path string) { must(t, os.Remove(markPath(path))) },
		"an empty mark":    func(t *testing.T, path string) { must(t, os.Truncate(markPath(path), 0)) },
		"not read through for long": func(t *testing.T, path string) {
			must(t, putMark(path, time.Now().Add(-markHolds-time.Hour).Unix()))
		},
		"read through later than now": func(t *testing.T, path string) { must(t, putMark(path, time.Now().Add(time.Hour).Unix())) },
		"killed after a commit": func(t *testing.T, path string) {
			s, err := Open(filepath.Dir(path), Options{})
			must(t, err)
			must(t, s.SetCursor(t.Context(), "x", 1))
			must(t, s.db.Load().Close())
		},
		"killed before a commit": func(t *testing.T, path string) {
			s, err := Open(filepath.Dir(path), Options{})
			must(t, err)
			must(t, s.db.Load().Close())
		},
		"a failed commit": func(t *testing.T, path string) {
			s, err := Open(filepath.Dir(path), Options{})
			must(t, err)
			if err := s.update(func(*bolt.Tx) error { return errors.New("no") }); err == nil {
				t.Fatal("it succeeded")
			}
			must(t, s.Close())
		},
	}
	for name, touch := range touched {
		t.Run(name, func(t *testing.T) {
			dir := closed(t, 300)
			path := filepath.Join(dir, FileName)
			touch(t, path)
			s, err := Open(dir, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if s.Unread() {
				t.Error("the file was not read through")
			}
			must(t, s.Close())
			touch(t, path)
			spoil(t, path)
			s, err = Open(dir, Options{})
			if err == nil {
				must(t, s.Close())
				t.Fatal("a damaged file was opened")
			}
			for _, want := range []string{"says that it is page", "nothing was changed", "lodestone restore"} {
				if !errors.Is(err, ErrNotAStore) || !strings.Contains(err.Error(), want) {
					t.Errorf("err = %v; want it to say %q", err, want)
				}
			}
		})
	}
}

// Damage that changes no time is found while work goes on, stays known, and is refused at the next open.
func TestDamageThatNoTimeTells(t *testing.T) {
	dir := closed(t, 300)
	path := filepath.Join(dir, FileName)
	spoil(t, path)
	must(t, putMark(path, time.Now().Unix())) // as if the disk had done it
	s, err := Open(dir, Options{})
	must(t, err)
	if !s.Unread() || s.Damage() != nil {
		t.Fatalf("unread %v, damage %v", s.Unread(), s.Damage())
	}
	err = s.ReadThrough(t.Context(), 1)
	if !errors.Is(err, ErrNotAStore) || !strings.Contains(err.Error(), "says that it is page") || !errors.Is(s.Damage(), ErrNotAStore) {
		t.Errorf("ReadThrough = %v, damage %v", err, s.Damage())
	}
	if err := s.SetCursor(t.Context(), "x", 1); err != nil {
		t.Errorf("work does not go on: %v", err)
	}
	must(t, s.Close())
	if s, err := Open(dir, Options{}); !errors.Is(err, ErrNotAStore) {
		t.Errorf("the next open: %v", err)
		must(t, s.Close())
	}
}

// A page whose keys are in order and belong elsewhere is damage, and reading through, which goes on after the key
// that it read last, comes to its end all the same.
func TestReadThroughOfKeysInTheWrongPlace(t *testing.T) {
	dir := closed(t, 300)
	path := filepath.Join(dir, FileName)
	b, err := os.ReadFile(path)
	must(t, err)
	in := &inspector{f: bytes.NewReader(b)}
	root, _, err := in.meta(int64(len(b)))
	must(t, err)
	moved := false
	for at := 2 * in.pageSize; at < int(in.highWater)*in.pageSize && !moved; at += in.pageSize {
		page := b[at:][:in.pageSize]
		if page[8] != flagLeaf || binary.NativeEndian.Uint16(page[10:]) == 0 {
			continue
		}
		if key := keyOf(page, flagLeaf, 0); bytes.HasPrefix(key, []byte("lead")) && !bytes.HasPrefix(key, []byte("lead00000")) {
			for i := range int(binary.NativeEndian.Uint16(page[10:])) {
				keyOf(page, flagLeaf, i)[0] = 'a' // before all others
			}
			moved = true
		}
	}
	if !moved {
		t.Fatal("no page of leads was found")
	}
	for _, most := range []int{1, 7, 1 << 20} {
		w, more, steps := newWalk(most), true, 0
		var err error
		for ; more && err == nil && steps <= len(b)/in.pageSize; steps++ {
			more, err = w.step(in, root)
		}
		if !errors.Is(err, ErrNotAStore) {
			t.Errorf("%d pages a step: %v after %d steps, more %v; want that the file is damaged", most, err, steps, more)
		}
	}
}

// Where the file cannot be opened once more, nothing is said of what it holds, and it can be read through later.
func TestNotReadThroughIsNoDamage(t *testing.T) {
	dir := closed(t, 300)
	path := filepath.Join(dir, FileName)
	s, err := Open(dir, Options{})
	must(t, err)
	must(t, os.Rename(path, path+"-away"))
	if err := s.ReadThrough(t.Context(), 1); !errors.Is(err, fs.ErrNotExist) || !s.Unread() || s.Damage() != nil {
		t.Errorf("ReadThrough = %v, unread %v, damage %v; want what the system says, and no damage", err, s.Unread(), s.Damage())
	}
	must(t, os.Rename(path+"-away", path))
	if err := s.ReadThrough(t.Context(), 1); err != nil || s.Unread() {
		t.Errorf("ReadThrough = %v, unread %v", err, s.Unread())
	}
	must(t, s.Close())
}

// In however many steps, every page is read that anything leads to, and none twice but those on the way down.
func TestReadThroughReadsEveryPage(t *testing.T) {
	dir := closed(t, 300)
	f, err := os.Open(filepath.Join(dir, FileName))
	must(t, err)
	defer f.Close()
	in := &inspector{f: f}
	root, _, err := in.meta(stat(t, f.Name()).Size())
	must(t, err)
	in.seen = make([]atomic.Uint64, in.highWater/64+1)
	must(t, in.trees(root))
	want := map[uint64]bool{}
	for id := range in.highWater {
		if in.seen[id/64].Load()&(1<<(id%64)) != 0 {
			want[id] = true
		}
	}
	if len(want) < 50 {
		t.Fatalf("only %d pages are in use", len(want))
	}
	for _, most := range []int{1, 2, 7, 50, 1 << 20} {
		w, got, steps := newWalk(most), map[uint64]bool{}, 0
		for more := true; more; steps++ {
			more, err = w.step(in, root)
			must(t, err)
			if steps > len(want) {
				t.Fatalf("%d pages a step: it does not end", most)
			}
			for id := range w.pages {
				got[id] = true
			}
		}
		for id := range want {
			if !got[id] {
				t.Errorf("%d pages a step: page %d was not read", most, id)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%d pages a step: %d pages were read of %d", most, len(got), len(want))
		}
	}
}

// Reading through goes on beside commits, a compaction and the end of the store.
func TestReadThroughWhileWorkGoesOn(t *testing.T) {
	s, book := filled(t, t.TempDir(), 3000), rulebook(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			var b sequencer.Batch
			for n := range 50 {
				b.Writes = append(b.Writes, submit(book, lodestone.Email(fmt.Sprintf("w%d@example.com", (i*50+n)*7919%5000)), fmt.Sprint(i, n), start, 0))
			}
			if _, err := s.Commit(context.Background(), b); err != nil {
				t.Error(err)
			}
		}
	})
	for i := range 20 {
		if i == 10 {
			if _, err := s.Compact(ctx, time.Minute); err != nil {
				t.Error(err)
			}
		}
		w := newWalk(10)
		for more := true; more; {
			var err error
			if more, err = s.step(w); err != nil {
				t.Fatal(err)
			}
		}
	}
	stop()
	if err := s.ReadThrough(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("ReadThrough = %v after the end", err)
	}
	wg.Wait()
	must(t, s.Close())
	if err := s.ReadThrough(t.Context(), 1); !errors.Is(err, ErrClosed) || s.Damage() != nil {
		t.Errorf("ReadThrough = %v of a closed store, damage %v", err, s.Damage())
	}
}

// rewrite gives a file the bytes that it holds once more.
func rewrite(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.Write(b)
	must(t, errors.Join(err, f.Close()))
}

func stat(t *testing.T, path string) fs.FileInfo {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	return info
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The indexes must hold just what the leads do, however many there are of both.
func TestCheckComparesTheIndexes(t *testing.T) {
	for name, spoil := range map[string]func(lane *bolt.Bucket) error{
		"one is missing":  func(lane *bolt.Bucket) error { k, _ := lane.Cursor().First(); return lane.Delete(k) },
		"one is too much": func(lane *bolt.Bucket) error { return lane.Put(append(nanoKey(nil, 1), "a@example.com"...), nil) },
		"one is another's": func(lane *bolt.Bucket) error {
			k, _ := lane.Cursor().First()
			return errors.Join(lane.Put(append(bytes.Clone(k), 'x'), nil), lane.Delete(bytes.Clone(k)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Open(closed(t, 10), Options{})
			must(t, err)
			defer s.Close()
			if faults, err := s.Check(t.Context()); err != nil || len(faults) > 0 {
				t.Fatalf("before: %v, %v", faults, err)
			}
			must(t, s.update(func(tx *bolt.Tx) error {
				due := tx.Bucket(bDue)
				name, _ := due.Cursor().First()
				return spoil(due.Bucket(name))
			}))
			if faults, err := s.Check(t.Context()); err != nil || len(faults) != 1 || !strings.Contains(faults[0], "the indexes hold") {
				t.Errorf("Check = %v, %v; want one fault, of the indexes", faults, err)
			}
		})
	}
}
