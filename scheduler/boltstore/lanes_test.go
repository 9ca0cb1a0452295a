package boltstore

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/scheduler"
	"github.com/lodestonehq/lodestone/sequencer"
)

// One sequence has very many overdue, another a few that fell due after all of them: they take turns, and
// each gives its oldest first.
func TestSequencesTakeTurns(t *testing.T) {
	s, book := open(t, t.TempDir()), rulebook(t)
	var b sequencer.Batch
	for i := range 3000 {
		b.Writes = append(b.Writes, submit(book, lodestone.Email(fmt.Sprintf("many%04d@example.com", i)), "1", start.Add(time.Duration(i)*time.Millisecond), 0))
	}
	for i := range 3 {
		b.Writes = append(b.Writes, submit(book, lodestone.Email(fmt.Sprintf("few%d@example.com", i)), "1", start.Add(time.Duration(i)*time.Second), 100)) // due a minute later
	}
	commit(t, s, b)
	now := start.Add(time.Hour)
	all, next, err := s.Due(t.Context(), "first", now, 8, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := "many0000 few0 many0001 few1 many0002 few2 many0003 many0004 "
	if got := local(all); got != want {
		t.Errorf("due = %q, want %q", got, want)
	}
	if want := start.Add(5 * time.Millisecond); !next.Equal(want) {
		t.Errorf("next = %v, want %v", next, want)
	}
	// One at a time, as a busy lane asks, it is the same.
	var one []scheduler.DueItem
	after, busy := "", map[lodestone.Email]bool{}
	for range 8 {
		due, _, err := s.Due(t.Context(), "first", now, 1, after, func(e lodestone.Email) bool { return busy[e] })
		if err != nil || len(due) != 1 {
			t.Fatal(due, err)
		}
		one = append(one, due...)
		after, busy[due[0].Email] = due[0].Sequence, true
	}
	if got := local(one); got != want {
		t.Errorf("one at a time due = %q, want %q", got, want)
	}
	// A sequence that is no more has no turn, and neither has one whose time has not come.
	if due, next, err := s.Due(t.Context(), "first", start.Add(30*time.Second), 2, "zzz", func(lodestone.Email) bool { return false }); err != nil ||
		local(due) != "many0000 many0001 " || !next.Equal(start.Add(2*time.Millisecond)) {
		t.Errorf("due = %q, next %v, %v", local(due), next, err)
	}
}

func local(due []scheduler.DueItem) (s string) {
	for _, d := range due {
		name, _, _ := strings.Cut(string(d.Email), "@")
		s += name + " "
	}
	return s
}

// toFormat1 makes of a store what an earlier version would have written.
func toFormat1(t *testing.T, s *Store) {
	t.Helper()
	if err := s.update(func(tx *bolt.Tx) error {
		due := tx.Bucket(bDue)
		for _, l := range lanes(due, "") {
			old, err := due.CreateBucketIfNotExists([]byte(l.connector))
			if err != nil {
				return err
			}
			for ; l.key != nil; l.key, _ = l.c.Next() {
				if err := old.Put(append([]byte(nil), l.key...), nil); err != nil {
					return err
				}
			}
			if err := due.DeleteBucket(laneName(l.connector, l.sequence)); err != nil {
				return err
			}
		}
		return tx.Bucket(bMeta).Put(kFormat, binary.BigEndian.AppendUint32(nil, 1))
	}); err != nil {
		t.Fatal(err)
	}
}

// A file of format 1 is sound as it is, and is brought to the layout of today when it is opened, in steps
// that may be cut anywhere between; a backup of that format can be restored.
func TestFormat1IsSplit(t *testing.T) {
	was := splitAtOnce
	splitAtOnce = 7
	defer func() { splitAtOnce = was }()
	dir := t.TempDir()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	book := rulebook(t)
	var b sequencer.Batch
	for i := range 40 {
		b.Writes = append(b.Writes, submit(book, lodestone.Email(fmt.Sprintf("lead%05d@example.com", i)), "1", start, float64(i%2)*100))
	}
	commit(t, s, b)
	before, _, err := s.Due(t.Context(), "first", start.Add(time.Hour), 100, "", nil)
	if err != nil || len(before) != 40 {
		t.Fatal(len(before), err)
	}
	toFormat1(t, s)
	if faults, err := s.Check(t.Context()); err != nil || len(faults) > 0 {
		t.Fatalf("as format 1: %v %v", faults, err)
	}
	file := backup(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for name, where := range map[string]string{"opened": dir, "restored": filepath.Join(t.TempDir(), "data")} {
		if name == "restored" {
			if _, err := Restore(t.Context(), where, file, start); err != nil {
				t.Fatal(err)
			}
		}
		s := open(t, where) // checked at the end
		got, _, err := s.Due(t.Context(), "first", start.Add(time.Hour), 100, "", nil)
		if err != nil || local(got) != local(before) {
			t.Errorf("%s: due = %q, %v; want %q", name, local(got), err, local(before))
		}
		if err := s.view(func(tx *bolt.Tx) error {
			if f := binary.BigEndian.Uint32(tx.Bucket(bMeta).Get(kFormat)); f != Format {
				t.Errorf("%s: format %d", name, f)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// BenchmarkDue is one look at what is due, as a lane does for every touchpoint it sends.
func BenchmarkDue(b *testing.B) {
	s := filled(b, b.TempDir(), 10_000)
	for b.Loop() {
		if due, _, err := s.Due(b.Context(), "first", start.Add(time.Hour), 1, "all", nil); err != nil || len(due) != 1 {
			b.Fatal(due, err)
		}
	}
}
