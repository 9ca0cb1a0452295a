package boltstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/scheduler"
	"github.com/lodestonehq/lodestone/sequencer"
)

// outcome moves a lead's pending touchpoint on.
func outcome(book *sequencer.Rulebook, email lodestone.Email, to lodestone.TouchpointState, at time.Time) sequencer.Write {
	return sequencer.Write{Email: email, Plan: func(st sequencer.State) (sequencer.Change, error) {
		t := st.Lead.Enrollments[0].Touchpoint
		return sequencer.Plan(st.Lead, sequencer.Moved{Touchpoint: t.ID, From: t.State, To: to, Reason: lodestone.ReasonAccepted}, book, at)
	}}
}

func filled(t testing.TB, dir string, leads int) *Store {
	t.Helper()
	s, book := open(t, dir), rulebook(t)
	var b sequencer.Batch
	for i := range leads {
		b.Writes = append(b.Writes, submit(book, lodestone.Email(fmt.Sprintf("lead%05d@example.com", i)), "1", start, float64(i%2)*100))
	}
	commit(t, s, b)
	return s
}

func backup(t testing.TB, s *Store) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "backup.db")
	info, err := WriteBackup(t.Context(), file, nil, func(w io.Writer) error { _, err := s.Backup(t.Context(), w); return err })
	if err != nil {
		t.Fatal(err)
	}
	if info.Bytes == 0 || info.At.IsZero() {
		t.Errorf("info = %+v", info)
	}
	return file
}

// A backup that is made while commits go on holds every one that was answered before it began, whole.
func TestBackupUnderLoad(t *testing.T) {
	s, book := filled(t, t.TempDir(), 2000), rulebook(t)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				_, err := s.Commit(context.Background(), sequencer.Batch{Writes: []sequencer.Write{submit(book, lodestone.Email(fmt.Sprintf("w%d-%d@example.com", w, i)), "1", start, 0)}})
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	file := backup(t, s)
	stop()
	wg.Wait()
	dir := t.TempDir()
	info, err := Restore(t.Context(), dir, file, start)
	if err != nil {
		t.Fatal(err)
	}
	if info.Leads < 2000 || info.Aside != "" {
		t.Errorf("restored %+v, want at least 2000 leads and nothing put aside", info)
	}
	r := open(t, dir)
	if !r.Copied() {
		t.Error("a restored store acts without a claim")
	}
	if _, err := WriteBackup(t.Context(), file, nil, func(w io.Writer) error { _, err := s.Backup(t.Context(), w); return err }); err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("a second backup of the same name: %v", err)
	}
}

func TestBackupThatBreaksOffLeavesNothing(t *testing.T) {
	s := filled(t, t.TempDir(), 10)
	dir := t.TempDir()
	broken := errors.New("the line broke")
	_, err := WriteBackup(t.Context(), filepath.Join(dir, "b.db"), nil, func(w io.Writer) error {
		var whole bytes.Buffer
		_, _ = s.Backup(t.Context(), &whole)
		_, _ = w.Write(whole.Bytes()[:whole.Len()/2])
		return broken
	})
	if !errors.Is(err, broken) {
		t.Errorf("err = %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("%v was left", left)
	}
}

func TestRestoreChecksBeforeItTouchesAnything(t *testing.T) {
	dir := t.TempDir()
	s := filled(t, dir, 500)
	good := backup(t, s)
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), "bad.db")
	use := func(b []byte) {
		if err := os.WriteFile(bad, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// The lock is the first thing that is looked at.
	if _, err := Restore(t.Context(), dir, good, start); !errors.Is(err, ErrInUse) {
		t.Errorf("with the store open: %v, want ErrInUse", err)
	}
	s.Close()
	before, _ := os.ReadFile(filepath.Join(dir, FileName))
	flipped := bytes.Clone(whole)
	for i := 3 * 4096; i < len(flipped); i += 4096 {
		flipped[i] ^= 0xff // the page's own number
	}
	for name, b := range map[string][]byte{"cut off": whole[:len(whole)/2], "flipped": flipped, "empty": {}, "text": []byte("not a store")} {
		use(b)
		if _, err := Restore(t.Context(), dir, bad, start); !errors.Is(err, ErrNotAStore) && (err == nil || !strings.Contains(err.Error(), "cannot be used")) {
			t.Errorf("%s: %v", name, err)
		}
		if after, _ := os.ReadFile(filepath.Join(dir, FileName)); !bytes.Equal(before, after) {
			t.Fatalf("%s: the store was changed", name)
		}
	}
	// A store file that is no backup says nothing of when it was.
	use(before)
	if _, err := Restore(t.Context(), dir, bad, start); err == nil || !strings.Contains(err.Error(), "no backup") {
		t.Errorf("a plain store file: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) != 0 {
		t.Errorf("%v was left", left)
	}
}

// What the replaced store knows of the time since the backup is taken over: opt-outs, and what was sent.
func TestRestoreTakesOverWhatItReplaces(t *testing.T) {
	ctx, dir, book := t.Context(), t.TempDir(), rulebook(t)
	s := filled(t, dir, 4) // 0 and 2 in "all", 1 and 3 in "hot"
	file := backup(t, s)
	sent := start.Add(time.Minute)
	commit(t, s, sequencer.Batch{Writes: []sequencer.Write{
		outcome(book, "lead00000@example.com", lodestone.TouchpointSent, sent),
		write("lead00002@example.com", book, sent, sequencer.Suppressed{Suppression: lodestone.Suppression{Email: "lead00002@example.com", Source: "operator", At: sent}}),
	}})
	s.Close()
	now := time.Now().UTC()
	info, err := Restore(ctx, dir, file, now)
	if err != nil {
		t.Fatal(err)
	}
	if info.Suppressions != 1 || info.Outcomes != 1 || info.Aside == "" {
		t.Errorf("restored %+v, want one opt-out and one outcome taken over, and the old store aside", info)
	}
	r := open(t, dir)
	was := r.Instance()
	if err := r.Claim(ctx); err != nil {
		t.Fatal(err)
	}
	if r.Instance() == was || r.Restored() == nil || r.Restored().Claimed.IsZero() {
		t.Errorf("instance %s → %s, restored %+v", was, r.Instance(), r.Restored())
	}
	before := func(email lodestone.Email) scheduler.Before {
		st, _ := r.State(ctx, email)
		e := &st.Lead.Enrollments[0]
		b, err := r.Before(ctx, email, e, e.Touchpoint)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if b := before("lead00000@example.com"); b.State != lodestone.TouchpointSent || !b.At.Equal(sent) {
		t.Errorf("the one that was sent: %+v", b)
	}
	if b := before("lead00001@example.com"); !b.Doubt || b.State != "" {
		t.Errorf("the one that nothing is known of: %+v, want doubt", b)
	}
	if st, _ := r.State(ctx, "lead00002@example.com"); st.Suppression == nil {
		t.Error("the opt-out was lost")
	}
	// The doubt is settled once, and passes on to the steps that follow.
	st, _ := r.State(ctx, "lead00001@example.com")
	e := &st.Lead.Enrollments[0]
	if err := r.Asked(ctx, e, e.Touchpoint.ID); err != nil {
		t.Fatal(err)
	}
	if b := before("lead00001@example.com"); b.Doubt {
		t.Error("asked twice")
	}
	later := *e.Touchpoint
	later.ID, later.PlannedAt = "x.two", time.Now().Add(time.Hour)
	if b, _ := r.Before(ctx, "lead00001@example.com", e, &later); !b.Doubt {
		t.Error("the step after one in doubt is not in doubt")
	}
	r.Close()
	// What was put aside acts no more by itself.
	moved := t.TempDir()
	if err := os.Rename(info.Aside, filepath.Join(moved, FileName)); err != nil {
		t.Fatal(err)
	}
	if a := open(t, moved); !a.Copied() {
		t.Error("the replaced store would act")
	}
}

// What was sent under rules that the restored store does not plan by is found, and its lead marked.
func TestMisplacedOutcomes(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	s := filled(t, t.TempDir(), 2)
	if _, err := Restore(ctx, dir, backup(t, s), time.Now()); err != nil {
		t.Fatal(err)
	}
	r := open(t, dir)
	if err := r.Claim(ctx); err != nil {
		t.Fatal(err)
	}
	if err := r.Gather(ctx, []Outcome{{ID: "other.one", Email: "lead00000@example.com", Operation: "first.invite", State: lodestone.TouchpointSent, At: start}}, false); err != nil {
		t.Fatal(err)
	}
	if err := r.Gather(ctx, nil, true); err != nil || !r.Restored().Gathered {
		t.Fatalf("%v, %+v", err, r.Restored())
	}
	for email, marked := range map[lodestone.Email]bool{"lead00000@example.com": true, "lead00001@example.com": false} {
		st, _ := r.State(ctx, email)
		b, err := r.Before(ctx, email, &st.Lead.Enrollments[0], st.Lead.Enrollments[0].Touchpoint)
		if err != nil || (b.Misplaced != "") != marked {
			t.Errorf("%s: %+v, %v", email, b, err)
		}
	}
}

func TestCompactUnderLoad(t *testing.T) {
	dir, book := t.TempDir(), rulebook(t)
	s := filled(t, dir, 3000)
	if _, err := s.PruneJournal(t.Context(), start.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	done := make([]int, 4)
	for w := range done {
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, err := s.Commit(context.Background(), sequencer.Batch{Writes: []sequencer.Write{submit(book, lodestone.Email(fmt.Sprintf("w%d-%d@example.com", w, done[w])), "1", start, 0)}}); err != nil {
					t.Error(err)
					return
				}
				done[w]++
				if err := s.SetCursor(context.Background(), fmt.Sprint("reader", w), uint64(done[w])); err != nil {
					t.Error(err)
				}
				if _, err := s.Totals(context.Background()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 3 {
		c, err := s.Compact(t.Context(), time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%+v", c)
	}
	stop()
	wg.Wait()
	check := func(s *Store) {
		for w, n := range done {
			for i := range n {
				if st, err := s.State(t.Context(), lodestone.Email(fmt.Sprintf("w%d-%d@example.com", w, i))); err != nil || st.Lead == nil {
					t.Fatalf("a commit was lost: %v", err)
				}
			}
			if at, _ := s.Cursor(t.Context(), fmt.Sprint("reader", w)); at != uint64(n) {
				t.Errorf("a position of %d, want %d: what was written past the writer was lost", at, n)
			}
		}
	}
	check(s)
	if file := backup(t, s); file == "" { // it reads the file that stands there now
		t.Fatal("no backup")
	}
	s.Close()
	s = open(t, dir)
	if s.Copied() {
		t.Error("a compacted store takes itself for a copy")
	}
	check(s)
}

func TestCompactGivesUpInTime(t *testing.T) {
	dir := t.TempDir()
	s := filled(t, dir, 100)
	before := s.Size()
	if _, err := s.Compact(t.Context(), 0); !errors.Is(err, ErrTooLong) {
		t.Errorf("Compact with no time = %v, want ErrTooLong", err)
	}
	if s.Size() != before {
		t.Error("the file was changed")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) != 0 {
		t.Errorf("%v was left", left)
	}
}

func TestCompactedCopyStaysACopy(t *testing.T) {
	dir := t.TempDir()
	if _, err := Restore(t.Context(), dir, backup(t, filled(t, t.TempDir(), 3)), start); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	if _, err := s.Compact(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if s = open(t, dir); !s.Copied() {
		t.Error("compacting claimed it")
	}
}

func TestPruning(t *testing.T) {
	ctx, dir, book := t.Context(), t.TempDir(), rulebook(t)
	s := open(t, dir)
	old, recent := start, start.Add(100*24*time.Hour)
	cut := start.Add(50 * 24 * time.Hour)
	commit(t, s, sequencer.Batch{
		Writes: []sequencer.Write{
			submit(book, "done@example.com", "1", old, 0), outcome(book, "done@example.com", lodestone.TouchpointSent, old),
			submit(book, "waits@example.com", "1", old, 0),
			submit(book, "back@example.com", "1", old, 0), outcome(book, "back@example.com", lodestone.TouchpointSent, old),
			submit(book, "back@example.com", "2", recent, 0), outcome(book, "back@example.com", lodestone.TouchpointSent, recent),
		},
		Attention: []lodestone.Attention{
			{ID: "1", Kind: lodestone.AttentionSubmission, Reason: lodestone.ReasonNoEmail, At: old, Seq: 1},
			{ID: "2", Kind: lodestone.AttentionSubmission, Reason: lodestone.ReasonNoEmail, At: recent, Seq: 2},
			{ID: "3", Kind: lodestone.AttentionTouchpoint, Reason: lodestone.ReasonUnclear, At: old},
			{ID: "4", Kind: lodestone.AttentionTouchpoint, Reason: lodestone.ReasonRefused, At: old, Enrollment: &lodestone.Enrollment{ID: "e"}},
			{ID: "5", Kind: lodestone.AttentionTouchpoint, Reason: lodestone.ReasonRefused, At: recent, Enrollment: &lodestone.Enrollment{ID: "e"}},
		},
	})
	if err := s.SetCursor(ctx, "events", 2); err != nil {
		t.Fatal(err)
	}
	if n, err := s.PruneJournal(ctx, cut); err != nil || n != 2 {
		t.Errorf("pruned %d entries, %v; want the two that were published", n, err)
	}
	if err := s.SetCursor(ctx, "events", 100); err != nil {
		t.Fatal(err)
	}
	if n, err := s.PruneJournal(ctx, cut); err != nil || n != 3 {
		t.Errorf("pruned %d entries, %v; want the other three that are old", n, err)
	}
	if n, err := s.PruneLeads(ctx, cut); err != nil || n != 1 {
		t.Errorf("pruned %d leads, %v; want the one with nothing pending and nothing recent", n, err)
	}
	if n, err := s.PruneAttention(ctx, cut); err != nil || n != 2 {
		t.Errorf("pruned %d attention items, %v; want the old submission and what failed long ago", n, err)
	}
	p, err := s.Person(ctx, "back@example.com", 10)
	if err != nil || len(p.History) != 2 || p.More {
		t.Errorf("history of %d, more %v, %v; want the two recent entries", len(p.History), p.More, err)
	}
	if p, err := s.Person(ctx, "waits@example.com", 10); err != nil || p.Lead == nil || len(p.History) != 0 {
		t.Errorf("%+v, %v; want a lead whose history is gone", p, err)
	}
	// The one that is gone comes back as a new lead, and everything balances (checked at the end).
	commit(t, s, sequencer.Batch{Writes: []sequencer.Write{submit(book, "done@example.com", "9", recent, 0)}})
	if totals, _ := s.Totals(ctx); len(totals) == 0 {
		t.Error("the roll-up is gone")
	}
}

// A year of steady submissions with retention on: the file grows to what the kept time needs, and no
// further.
func TestAYearDoesNotGrowTheFile(t *testing.T) {
	ctx, s, book := t.Context(), open(t, t.TempDir()), rulebook(t)
	const days, daily, keep = 365, 80, 30
	var sizes []int64
	for day := range days {
		now := start.Add(time.Duration(day) * 24 * time.Hour)
		var b sequencer.Batch
		for i := range daily {
			email := lodestone.Email(fmt.Sprintf("d%d-%d@example.com", day, i))
			b.Writes = append(b.Writes, submit(book, email, "1", now, 0), outcome(book, email, lodestone.TouchpointSent, now.Add(time.Minute)))
		}
		commit(t, s, b)
		cut := now.Add(-keep * 24 * time.Hour)
		for _, prune := range []func(context.Context, time.Time) (int, error){s.PruneJournal, s.PruneLeads, s.PruneAttention} {
			if _, err := prune(ctx, cut); err != nil {
				t.Fatal(err)
			}
		}
		size := int64(0)
		if err := s.view(func(tx *bolt.Tx) error { size = tx.Size(); return nil }); err != nil { // without what is allotted ahead
			t.Fatal(err)
		}
		sizes = append(sizes, size)
	}
	t.Logf("%d submissions; after 30, 90, 180, 365 days: %d, %d, %d, %d KiB", days*daily, sizes[29]>>10, sizes[89]>>10, sizes[179]>>10, sizes[364]>>10)
	if sizes[364] > sizes[89]+sizes[89]/10 {
		t.Errorf("the file grew from %d to %d bytes between day 90 and day 365", sizes[89], sizes[364])
	}
}

// A file that is damaged is refused with words, whatever of it is damaged, and stays as it is.
func TestDamagedFilesAreRefused(t *testing.T) {
	dir := t.TempDir()
	s := filled(t, dir, 300)
	s.Close()
	whole, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func([]byte) []byte{
		"cut off":       func(b []byte) []byte { return b[:64<<10] },
		"cut to a page": func(b []byte) []byte { return b[:4096] },
		"empty":         func([]byte) []byte { return nil },
		"both heads":    func(b []byte) []byte { b[20] ^= 1; b[4096+20] ^= 1; return b },
		"page numbers": func(b []byte) []byte {
			for i := 2 * 4096; i < len(b); i += 4096 {
				b[i] ^= 0x10
			}
			return b
		},
		"element bounds": func(b []byte) []byte {
			for i := 2 * 4096; i < len(b); i += 4096 {
				b[i+20] ^= 0x80
				b[i+23] ^= 0x80
			}
			return b
		},
		"all but heads": func(b []byte) []byte { clear(b[2*4096:]); return b },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, FileName)
			broken := damage(bytes.Clone(whole))
			if err := os.WriteFile(path, broken, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := Open(dir, Options{})
			if err == nil {
				s.Close()
				t.Fatal("it was opened")
			}
			if !errors.Is(err, ErrNotAStore) || !strings.Contains(err.Error(), "lodestone restore") {
				t.Errorf("err = %v; want it to say what is wrong and what to do", err)
			}
			if after, _ := os.ReadFile(path); !bytes.Equal(after, broken) {
				t.Error("the damaged file was changed")
			}
		})
	}
}

// One flipped bit anywhere in the file: it is opened or refused, and never ends the process. Some
// flips are of bytes that mean nothing, or that only a value's reader would notice.
func FuzzFlippedBit(f *testing.F) {
	dir := f.TempDir()
	s := filled(f, dir, 100)
	s.Close()
	whole, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		f.Fatal(err)
	}
	for i := range 60 {
		f.Add(uint32(i*len(whole)/600+i%40), uint8(i))
	}
	f.Fuzz(func(t *testing.T, at uint32, bit uint8) {
		b := bytes.Clone(whole)
		b[int(at)%len(b)] ^= 1 << (bit % 8)
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, FileName), b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(dir, Options{})
		if err != nil {
			return
		}
		defer s.Close()
		_, _ = s.Check(context.Background())
	})
}

func TestOverdue(t *testing.T) {
	s := filled(t, t.TempDir(), 4) // two due at once, two in a minute
	for at, want := range map[time.Time]int{start.Add(-time.Second): 0, start: 2, start.Add(time.Hour): 4} {
		n, oldest, err := s.Overdue(t.Context(), at)
		if err != nil || n["first"] != want || want > 0 && !oldest.Equal(start) {
			t.Errorf("Overdue(%v) = %v since %v, %v; want %d", at, n, oldest, err, want)
		}
	}
}

// What is known from before a restore holds addresses, so it goes when the journal of that time goes.
func TestEvidenceIsPruned(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	if _, err := Restore(ctx, dir, backup(t, filled(t, t.TempDir(), 1)), time.Now()); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	known := Outcome{ID: "x.one", Email: "lead00000@example.com", State: lodestone.TouchpointSkipped, At: start}
	if err := errors.Join(s.Claim(ctx), s.Gather(ctx, []Outcome{known}, true)); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		before time.Time
		want   int
	}{{time.Now().Add(-time.Hour), 1}, {time.Now().Add(time.Hour), 0}} {
		if _, err := s.PruneJournal(ctx, step.before); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Dump(ctx, "evidence", "", 10); err != nil || len(got) != step.want {
			t.Errorf("before %v: %v, %v; want %d", step.before, got, err, step.want)
		}
	}
}

// A copy whose original went on working doubts what was due, as a restored backup does.
func TestClaimOfACopyWhoseOriginalWentOn(t *testing.T) {
	ctx, from, to := t.Context(), t.TempDir(), t.TempDir()
	filled(t, from, 1).Close()
	whole, err := os.ReadFile(filepath.Join(from, FileName))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(to, FileName), whole, 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, to)
	if err := errors.Join(s.Rewound(ctx, time.Now().UTC()), s.Claim(ctx)); err != nil {
		t.Fatal(err)
	}
	st, err := s.State(ctx, "lead00000@example.com")
	if err != nil {
		t.Fatal(err)
	}
	e := &st.Lead.Enrollments[0]
	if b, err := s.Before(ctx, st.Lead.Email, e, e.Touchpoint); err != nil || !b.Doubt || !b.Since.Equal(start) {
		t.Errorf("Before = %+v, %v; want doubt since the last thing that the copy knows", b, err)
	}
}

// A copy of a store that was restored and claimed since is a copy like any other. Where its original went on,
// what an earlier doubt had settled is in doubt again, since the moment of the first backup.
func TestACopyOfARestoredStoreIsACopy(t *testing.T) {
	ctx, dir, to := t.Context(), t.TempDir(), t.TempDir()
	if _, err := Restore(ctx, dir, backup(t, filled(t, t.TempDir(), 1)), time.Now()); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	why, remedy := s.Unclaimed()
	if !strings.Contains(why, "restored from a backup") || strings.Contains(remedy, "--acted-since") {
		t.Errorf("restored: %q, %q", why, remedy)
	}
	first, backup := s.Instance(), s.Restored().Backup
	touchpoint := func(s *Store) (lodestone.Email, *lodestone.Enrollment) {
		st, err := s.State(ctx, "lead00000@example.com")
		if err != nil {
			t.Fatal(err)
		}
		return st.Lead.Email, &st.Lead.Enrollments[0]
	}
	_, e := touchpoint(s)
	if err := errors.Join(s.Claim(ctx), s.Asked(ctx, e, e.Touchpoint.ID)); err != nil {
		t.Fatal(err)
	}
	if why, _ := s.Unclaimed(); why != "" {
		t.Errorf("claimed: %q", why)
	}
	second := s.Instance()
	s.Close()
	whole, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(to, FileName), whole, 0o600); err != nil {
		t.Fatal(err)
	}
	c := open(t, to)
	why, remedy = c.Unclaimed()
	if !strings.Contains(why, "is a copy of another one") || !strings.Contains(remedy, "--acted-since") {
		t.Errorf("copy: %q, %q", why, remedy)
	}
	if err := errors.Join(c.Rewound(ctx, time.Now().UTC()), c.Claim(ctx)); err != nil {
		t.Fatal(err)
	}
	email, e := touchpoint(c)
	since := min(backup.UnixNano(), start.UnixNano())
	if b, err := c.Before(ctx, email, e, e.Touchpoint); err != nil || !b.Doubt || b.Since.UnixNano() != since {
		t.Errorf("Before = %+v, %v; want doubt since the first backup", b, err)
	}
	if r := c.Restored(); !r.Published(first) || !r.Published(second) || r.Published(c.Instance()) {
		t.Errorf("%+v; want the events of %s and %s", r, first, second)
	}
}

// A store that cannot be written to says so until it can.
func TestFailingCommitsAreSaid(t *testing.T) {
	s, book := open(t, t.TempDir()), rulebook(t)
	db := s.db.Load()
	db.MaxSize = 1
	var b sequencer.Batch
	for i := range 2000 {
		b.Writes = append(b.Writes, submit(book, lodestone.Email(fmt.Sprintf("l%d@example.com", i)), "1", start, 0))
	}
	if _, err := s.Commit(t.Context(), b); err == nil || s.Failing() == nil {
		t.Errorf("Commit = %v, Failing = %v; want both to say that the file is full", err, s.Failing())
	}
	db.MaxSize = 0
	commit(t, s, b)
	if err := s.Failing(); err != nil {
		t.Errorf("Failing = %v after a commit", err)
	}
}

// A backup that was made before enrollments were counted by version of the rule files is as good as another.
func TestRestoreTakesABackupOfAnEarlierVersion(t *testing.T) {
	dir := t.TempDir()
	s := filled(t, dir, 4)
	file := backup(t, s)
	s.Close()
	db, err := bolt.Open(file, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		meta := tx.Bucket(bMeta)
		var keys [][]byte
		_ = meta.ForEach(func(k, _ []byte) error {
			if bytes.HasPrefix(k, []byte("rules/use/")) || bytes.Equal(k, kRulesCounted) {
				keys = append(keys, bytes.Clone(k))
			}
			return nil
		})
		if len(keys) < 2 {
			t.Error("nothing was counted")
		}
		var errs []error
		for _, k := range keys {
			errs = append(errs, meta.Delete(k))
		}
		return errors.Join(errs...)
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), dir, file, time.Now().UTC()); err != nil {
		t.Fatal(err)
	}
	r := open(t, dir)
	if faults, err := r.Check(t.Context()); err != nil || len(faults) > 0 {
		t.Errorf("opened: %v %q", err, faults)
	}
}

// A pause is a person's word that nothing be sent. A backup from before it does not take it back.
func TestRestoreKeepsPauses(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	s := filled(t, dir, 4)
	file := backup(t, s)
	if err := s.SetPaused(ctx, "all", &scheduler.Pause{At: start, By: "ada"}, nil); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := Restore(ctx, dir, file, time.Now().UTC()); err != nil {
		t.Fatal(err)
	}
	paused, err := open(t, dir).Paused(ctx)
	if p := paused["all"]; err != nil || p.By != "ada" {
		t.Errorf("paused after the restore: %v %v", paused, err)
	}
}

// Wherever it begins, looking for old leads beside other work comes to each of them.
func TestPruneLeadsBeside(t *testing.T) {
	s, book, keep := open(t, t.TempDir()), rulebook(t), start.Add(50*24*time.Hour)
	var b sequencer.Batch
	const first = "0123456789abcdefghijklmnopqrstuvwxyz"
	for i := range len(first) {
		for _, second := range "05gz" {
			email := lodestone.Email(fmt.Sprintf("%c%c@example.com", first[i], second))
			b.Writes = append(b.Writes, submit(book, email, "1", start, 0))
			if second != 'g' {
				b.Writes = append(b.Writes, outcome(book, email, lodestone.TouchpointSent, start))
			}
		}
	}
	commit(t, s, b)
	if n, err := s.PruneLeadsBeside(t.Context(), keep, 1); err != nil || n != 3*len(first) {
		t.Errorf("pruned %d leads, %v; want %d", n, err, 3*len(first))
	}
	if left, _, err := s.Leads(t.Context(), "", 1000); err != nil || len(left) != len(first) {
		t.Errorf("%d leads are left, %v; want the %d that wait", len(left), err, len(first))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.PruneLeadsBeside(ctx, keep, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("PruneLeadsBeside = %v after its end", err)
	}
}
