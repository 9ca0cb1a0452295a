package boltstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"pgregory.net/rapid"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/scheduler"
	"github.com/lodestonehq/lodestone/sequencer"
)

const ruleFile = `
forms:
  guide:
    fields:
      email: {type: email, required: true}
      size: {type: number}
scoring:
  bands: {hot: 60, cold: 0}
  rules:
    - {name: size, points: 'fields.size ?? 0'}
    - {name: again, points: 1, each: true, half_life: 3d}
sequences:
  hot:
    when: band == "hot"
    priority: 10
    exit: signals.converted
    reenter: always
    steps:
      - {name: one, do: first.invite, after: 1m}
      - {name: two, do: second.invite, after: 1m}
  all:
    when: 'true'
    reenter: always
    steps:
      - {name: one, do: first.invite}
`

func rulebook(t testing.TB) *sequencer.Rulebook {
	t.Helper()
	return rulebookOf(t, ruleFile)
}

func rulebookOf(t testing.TB, file string) *sequencer.Rulebook {
	t.Helper()
	op := func(name string) lodestone.Operation { return lodestone.Operation{Name: name} }
	set, err := rules.Compile([]rules.File{{Name: "r.yaml", Data: []byte(file)}}, rules.Options{Operations: map[string]lodestone.Operation{
		"first.invite": op("first.invite"), "second.invite": op("second.invite"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	return sequencer.NewRulebook(set)
}

// open opens a store in dir. When the test ends the file is checked: pages, indexes, chains, and
// the balance of guarantee 5.
func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		s, err := Open(dir, Options{})
		if err != nil {
			t.Fatalf("open again: %v", err)
		}
		defer s.Close()
		faults, err := s.Check(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range faults {
			t.Errorf("check: %s", f)
		}
	})
	return s
}

var start = time.Date(2026, 3, 6, 10, 0, 0, 0, time.UTC)

func submit(book *sequencer.Rulebook, email lodestone.Email, id string, at time.Time, size float64) sequencer.Write {
	return write(email, book, at, &sequencer.Submitted{Submission: lodestone.Submission{
		ID: id, Form: "guide", Email: email, At: at, Received: at, Fields: lodestone.FieldsOf(map[string]any{"email": string(email), "size": size}),
	}})
}

func write(email lodestone.Email, book *sequencer.Rulebook, now time.Time, ev sequencer.Event) sequencer.Write {
	return sequencer.Write{Email: email, Plan: func(st sequencer.State) (sequencer.Change, error) {
		return sequencer.Plan(st.Lead, ev, book, now)
	}}
}

func commit(t testing.TB, s *Store, b sequencer.Batch) []sequencer.Result {
	t.Helper()
	res, err := s.Commit(context.Background(), b)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestCommitIsWholeAndSurvives(t *testing.T) {
	ctx, dir, book := context.Background(), t.TempDir(), rulebook(t)
	s := open(t, dir)
	mark := sequencer.Watermark{Created: start, Seq: 7}
	commit(t, s, sequencer.Batch{
		Writes: []sequencer.Write{
			submit(book, "ada@example.com", "1", start, 100), submit(book, "bob@example.com", "2", start, 0),
			submit(book, "ada@example.com", "3", start.Add(time.Second), 0),
		},
		Attention: []lodestone.Attention{{ID: "bad", Kind: lodestone.AttentionSubmission, Reason: lodestone.ReasonNoEmail, At: start, Seq: 7, Data: []byte("{}")}},
		Stream:    "S", Watermark: mark,
	})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(ctx, sequencer.Batch{}); !errors.Is(err, ErrClosed) {
		t.Errorf("Commit after Close = %v, want ErrClosed", err)
	}

	s = open(t, dir)
	if got, _ := s.Watermark(ctx, "S"); !got.Created.Equal(mark.Created) || got.Seq != 7 {
		t.Errorf("watermark = %+v, want %+v", got, mark)
	}
	p, err := s.Person(ctx, "ada@example.com", 10)
	if err != nil {
		t.Fatal(err)
	}
	if p.Lead == nil || p.Lead.Submissions != 2 || len(p.History) != 2 || p.History[0].Decision.Submission != "3" {
		t.Errorf("ada = %+v with history %+v; want two submissions, newest first", p.Lead, p.History)
	}
	due, next, err := s.Due(ctx, "first", start.Add(time.Hour), 1, "", nil)
	if err != nil || len(due) != 1 || due[0].Email != "bob@example.com" || !next.Equal(start.Add(time.Minute)) {
		t.Errorf("due = %v, next %v, %v; want bob, and ada in a minute", due, next, err)
	}
	counts, _ := s.Counts(ctx)
	if counts[lodestone.TouchpointScheduled] != 2 {
		t.Errorf("counts = %v, want 2 scheduled", counts)
	}
	items, total, _ := s.Attention(ctx, 10)
	if total != 1 || items[0].ID != "bad" || string(items[0].Data) != "{}" {
		t.Errorf("attention = %+v, %d", items, total)
	}
}

func TestOneFaultyWriteHarmsNoOther(t *testing.T) {
	s, book := open(t, t.TempDir()), rulebook(t)
	res := commit(t, s, sequencer.Batch{Writes: []sequencer.Write{
		submit(book, "ada@example.com", "1", start, 1),
		write("bob@example.com", book, start, sequencer.Moved{Touchpoint: "none", From: lodestone.TouchpointScheduled}),
		submit(book, "eve@example.com", "2", start, 1),
	}})
	if res[0].Err != nil || !errors.Is(res[1].Err, sequencer.ErrMoved) || res[2].Err != nil {
		t.Errorf("results = %v, %v, %v; want only the second to fail", res[0].Err, res[1].Err, res[2].Err)
	}
}

func TestConcurrentCommitsShareTransactions(t *testing.T) {
	ctx, s, book := context.Background(), open(t, t.TempDir()), rulebook(t)
	commits := func() (id int) {
		if err := s.view(func(tx *bolt.Tx) error { id = tx.ID(); return nil }); err != nil {
			t.Fatal(err)
		}
		return id
	}
	before := commits()
	var wg sync.WaitGroup
	const n = 400
	for i := range n {
		wg.Go(func() {
			email := lodestone.Email(fmt.Sprintf("lead%03d@example.com", i))
			if _, err := s.Commit(ctx, sequencer.Batch{Writes: []sequencer.Write{submit(book, email, "1", start, 0)}}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	counts, _ := s.Counts(ctx)
	if counts[lodestone.TouchpointScheduled] != n {
		t.Errorf("%d touchpoints, want %d", counts[lodestone.TouchpointScheduled], n)
	}
	if made := commits() - before; made < 1 || made >= n {
		t.Errorf("%d writes took %d transactions, want them to share some", n, made)
	}
}

// TestRandomHistories drives many leads through random events and checks the file after each
// history: the indexes agree with the leads, the chains hold, and the roll-up balances.
func TestRandomHistories(t *testing.T) {
	ctx, book := context.Background(), rulebook(t)
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		s, err := Open(dir, Options{})
		if err != nil {
			rt.Fatal(err)
		}
		defer func() { s.Close() }()
		now := start
		for i := range rapid.IntRange(1, 40).Draw(rt, "events") {
			now = now.Add(time.Duration(rapid.IntRange(0, 100).Draw(rt, "minutes")) * time.Minute)
			email := lodestone.Email(rapid.SampledFrom([]string{"a@example.com", "b@example.com", "c@example.com"}).Draw(rt, "lead"))
			w := submit(book, email, fmt.Sprint(i), now, float64(rapid.IntRange(0, 100).Draw(rt, "size")))
			if rapid.IntRange(0, 2).Draw(rt, "kind") > 0 {
				to := rapid.SampledFrom(lodestone.TouchpointStates).Draw(rt, "to")
				later := now.Add(time.Duration(rapid.IntRange(0, 3).Draw(rt, "later")) * time.Hour)
				w = sequencer.Write{Email: email, Plan: func(st sequencer.State) (sequencer.Change, error) {
					if st.Lead == nil || len(st.Lead.Enrollments) == 0 {
						return sequencer.Change{}, sequencer.ErrMoved
					}
					tp := st.Lead.Enrollments[0].Touchpoint
					if tp == nil {
						return sequencer.Change{}, sequencer.ErrMoved
					}
					return sequencer.Plan(st.Lead, sequencer.Moved{Touchpoint: tp.ID, From: tp.State, To: to, DueAt: later}, book, now)
				}}
			}
			if _, err := s.Commit(ctx, sequencer.Batch{Writes: []sequencer.Write{w}}); err != nil {
				rt.Fatal(err)
			}
			if rapid.IntRange(0, 9).Draw(rt, "reopen") == 0 {
				if err := s.Close(); err != nil {
					rt.Fatal(err)
				}
				if s, err = Open(dir, Options{}); err != nil {
					rt.Fatal(err)
				}
			}
		}
		faults, err := s.Check(ctx)
		if err != nil || len(faults) > 0 {
			rt.Fatalf("check: %v %v", err, faults)
		}
	})
}

func TestOpenRefuses(t *testing.T) {
	t.Run("a file in use", func(t *testing.T) {
		dir := t.TempDir()
		open(t, dir)
		if _, err := Open(dir, Options{Wait: 10 * time.Millisecond}); !errors.Is(err, ErrInUse) {
			t.Errorf("Open = %v, want ErrInUse", err)
		}
	})
	t.Run("a newer format", func(t *testing.T) {
		dir := t.TempDir()
		s, err := Open(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.putMeta(kFormat, binary.BigEndian.AppendUint32(nil, Format+1)); err != nil {
			t.Fatal(err)
		}
		s.Close()
		if _, err := Open(dir, Options{}); !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), fmt.Sprint("format ", Format+1)) {
			t.Errorf("Open = %v, want ErrNewer that names the format", err)
		}
	})
	t.Run("something else", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, FileName), []byte(strings.Repeat("not a store ", 5000)), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, Options{}); !errors.Is(err, ErrNotAStore) {
			t.Errorf("Open = %v, want ErrNotAStore", err)
		}
	})
	t.Run("a bbolt file of somebody else", func(t *testing.T) {
		dir := t.TempDir()
		db, err := bolt.Open(filepath.Join(dir, FileName), 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		db.Close()
		if _, err := Open(dir, Options{}); !errors.Is(err, ErrNotAStore) {
			t.Errorf("Open = %v, want ErrNotAStore", err)
		}
	})
}

func TestACopyIsNoticedUntilClaimed(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	s := open(t, dir)
	s.Close()
	data, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(other, FileName), data, 0o600); err != nil {
		t.Fatal(err)
	}
	c := open(t, other)
	if !c.Copied() {
		t.Fatal("the copy was not noticed")
	}
	if err := c.Claim(context.Background()); err != nil || c.Copied() {
		t.Fatalf("Claim = %v, copied %v", err, c.Copied())
	}
	c.Close()
	if c = open(t, other); c.Copied() {
		t.Error("the claim was forgotten")
	}
	c.Close()

	moved := filepath.Join(t.TempDir(), "moved")
	if err := os.Rename(other, moved); err != nil {
		t.Fatal(err)
	}
	if c = open(t, moved); c.Copied() {
		t.Error("a moved directory was taken for a copy")
	}
	c.Close()
	if err := os.Rename(moved, other); err != nil { // where the checks at the end look for it
		t.Fatal(err)
	}
}

func TestPausesRulesAndCursors(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	s := open(t, dir)
	if err := errors.Join(
		s.SetPaused(ctx, "connector first", &scheduler.Pause{At: start, Reason: "holiday"}, nil),
		s.SetPaused(ctx, "all", &scheduler.Pause{At: start}, nil), s.SetPaused(ctx, "all", nil, nil),
		s.PutRules(ctx, "v1", []RuleFile{{"a.yaml", []byte("x")}}), s.PutRules(ctx, "v2", []RuleFile{{"a.yaml", []byte("y")}}),
		s.SetCursor(ctx, "events", 42),
	); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = open(t, dir)
	paused, _ := s.Paused(ctx)
	if len(paused) != 1 || paused["connector first"].Reason != "holiday" {
		t.Errorf("paused = %v", paused)
	}
	current, _ := s.CurrentRules(ctx)
	if first, _ := s.Rules(ctx, "v1"); current != "v2" || len(first) != 1 || string(first[0].Data) != "x" {
		t.Errorf("rules = %s, %v", current, first)
	}
	if none, err := s.Rules(ctx, "v3"); none != nil || err != nil {
		t.Errorf("rules of no version = %v, %v", none, err)
	}
	if seq, _ := s.Cursor(ctx, "events"); seq != 42 {
		t.Errorf("cursor = %d, want 42", seq)
	}
}

func TestTwoRejectedSubmissionsOfOneIDAreBothKept(t *testing.T) {
	s := open(t, t.TempDir())
	item := lodestone.Attention{ID: "same", Kind: lodestone.AttentionSubmission, Reason: lodestone.ReasonNotJSON, At: start}
	a, b := item, item
	a.Seq, b.Seq = 1, 2
	commit(t, s, sequencer.Batch{Attention: []lodestone.Attention{a, b}})
	if _, total, _ := s.Attention(context.Background(), 10); total != 2 {
		t.Errorf("%d items, want 2", total)
	}
	commit(t, s, sequencer.Batch{Resolved: []sequencer.AttentionKey{{Kind: lodestone.AttentionSubmission, ID: "same"}}})
	if _, total, _ := s.Attention(context.Background(), 10); total != 0 {
		t.Errorf("%d items after they were resolved, want 0", total)
	}
}

// What a human decides on is not hidden behind submissions, of which there may be very many.
func TestAttentionShowsTouchpointsFirst(t *testing.T) {
	s := open(t, t.TempDir())
	var b sequencer.Batch
	for i := range 60 {
		b.Attention = append(b.Attention, lodestone.Attention{ID: fmt.Sprint(i), Kind: lodestone.AttentionSubmission, Reason: lodestone.ReasonBadEmail, At: start, Seq: uint64(i)})
	}
	b.Attention = append(b.Attention, lodestone.Attention{ID: "held", Kind: lodestone.AttentionTouchpoint, Reason: lodestone.ReasonUnclear, At: start.Add(time.Hour)})
	commit(t, s, b)
	items, total, err := s.Attention(context.Background(), 50)
	if err != nil || total != 61 || len(items) != 50 || items[0].ID != "held" {
		t.Errorf("%d of %d items, the first %+v, %v; want the held touchpoint first", len(items), total, items[0], err)
	}
}

// A panic in one write's plan harms no other write of the transaction.
func TestPanicInOnePlan(t *testing.T) {
	s, book := open(t, t.TempDir()), rulebook(t)
	res := commit(t, s, sequencer.Batch{Writes: []sequencer.Write{
		{Email: "bad@example.com", Plan: func(sequencer.State) (sequencer.Change, error) { panic("a fault of ours") }},
		submit(book, "ada@example.com", "1", start, 1),
	}})
	if res[0].Err == nil || res[1].Err != nil {
		t.Errorf("results = %v, %v; want only the first to fail", res[0].Err, res[1].Err)
	}
}

func TestQueueIsInOrderOfTime(t *testing.T) {
	ctx, s, book := context.Background(), open(t, t.TempDir()), rulebook(t)
	var b sequencer.Batch
	for i := range 10 {
		at := start.Add(time.Duration((i*7)%10) * time.Minute)
		b.Writes = append(b.Writes, submit(book, lodestone.Email(fmt.Sprintf("l%d@example.com", i)), "1", at, float64(i%2)*100))
	}
	commit(t, s, b)
	rows, err := s.Queue(ctx, "", 5)
	if err != nil || len(rows) != 5 {
		t.Fatalf("Queue = %d rows, %v", len(rows), err)
	}
	for i := 1; i < len(rows); i++ {
		if rows[i].DueAt.Before(rows[i-1].DueAt) {
			t.Errorf("row %d is due before row %d", i, i-1)
		}
	}
	due, _, _ := s.Due(ctx, "first", start.Add(time.Hour), 100, "", func(e lodestone.Email) bool { return e == "l0@example.com" })
	if len(due) != 9 {
		t.Errorf("%d due, want 9: one was to be passed over", len(due))
	}
}

func FuzzStoredValues(f *testing.F) {
	lead, _ := encode(nil, &lodestone.Lead{Email: "a@example.com", Signals: map[string]time.Time{"opened": start}})
	entry, _ := encode(nil, &lodestone.Entry{Lead: "a@example.com", At: start, Decision: &lodestone.Decision{Submission: "1"}})
	f.Add(lead)
	f.Add(entry)
	f.Add(pending{lodestone.TouchpointUnknown, "first", "a@example.com"}.encode())
	f.Add([]byte{})
	f.Add([]byte{2, 0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		var l lodestone.Lead
		if decode(b, &l) == nil {
			again, err := encode(nil, &l)
			if err != nil {
				t.Fatal(err)
			}
			if err := decode(again, new(lodestone.Lead)); err != nil {
				t.Fatalf("what was read cannot be read again: %v", err)
			}
		}
		_ = decode(b, new(lodestone.Entry))
		_ = decode(b, new(lodestone.Attention))
		if p, err := decodePending(b); err == nil {
			if q, err := decodePending(p.encode()); err != nil || q != p {
				t.Fatalf("pending %+v became %+v, %v", p, q, err)
			}
		}
		_, _, _ = decodeRollup(b, b)
	})
}

func FuzzTimeKeysSortAsTime(f *testing.F) {
	f.Add(int64(0), int64(1))
	f.Add(int64(-1), int64(1<<62))
	f.Fuzz(func(t *testing.T, a, b int64) {
		x, y := time.Unix(a%1e11, a%1e9), time.Unix(b%1e11, b%1e9)
		kx, ky := string(nanoKey(nil, nanos(x))), string(nanoKey(nil, nanos(y)))
		if x.Before(y) && kx > ky || x.After(y) && kx < ky {
			t.Fatalf("%v and %v sort as %x and %x", x, y, kx, ky)
		}
	})
}

// The history alone is that of the person, however much is under attention.
func TestHistoryIsThePersons(t *testing.T) {
	ctx, s := t.Context(), filled(t, t.TempDir(), 4)
	const email = "lead00001@example.com"
	p, err := s.Person(ctx, email, 10)
	if err != nil || len(p.History) == 0 {
		t.Fatal(len(p.History), err)
	}
	list, err := s.History(ctx, email, 10)
	if err != nil || !reflect.DeepEqual(list, p.History) {
		t.Errorf("history %+v %v, want %+v", list, err, p.History)
	}
	if list, err := s.History(ctx, "nobody@example.com", 10); err != nil || len(list) != 0 {
		t.Errorf("of somebody not known: %v %v", list, err)
	}
}

// Submissions and signals have streams of their own that count alike, and their senders choose the ids: one must
// not take the other's place, wherever an earlier version put it.
func TestASubmissionAndASignalOfOnePlace(t *testing.T) {
	ctx := context.Background()
	submission := lodestone.Attention{ID: "same", Kind: lodestone.AttentionSubmission, Reason: lodestone.ReasonUnknownForm, At: start, Seq: 7, Subject: "lodestone.forms.guide", Data: []byte("submission")}
	signal := lodestone.Attention{ID: "same", Kind: lodestone.AttentionSubmission, Reason: lodestone.ReasonNoEmail, At: start, Seq: 7, Subject: "lodestone.signals.opened", Data: []byte("signal")}
	earlier := func(t *testing.T, s *Store) { // puts the signal as earlier versions did
		t.Helper()
		if err := s.update(func(tx *bolt.Tx) error {
			v, err := encode(nil, &signal)
			if err != nil {
				return err
			}
			return tx.Bucket(bAttention).Put(attentionKey(signal.Kind, signal.ID, signal.Seq), v)
		}); err != nil {
			t.Fatal(err)
		}
	}
	held := func(t *testing.T, s *Store, want ...string) {
		t.Helper()
		var got []string
		items, total, err := s.Attention(ctx, 10)
		of, err2 := s.ItemsOf(ctx, "same")
		all, next, err3 := s.Rejected(ctx, "", 10)
		if err := errors.Join(err, err2, err3); err != nil || total != len(want) || len(of) != len(want) || len(all) != len(want) || next != "" {
			t.Fatalf("%d items, %d of the id, %d rejected, %v; want %d", total, len(of), len(all), err, len(want))
		}
		for i := range items {
			got = append(got, string(items[i].Data))
			one, err := s.Item(ctx, sequencer.KeyOf(&items[i]))
			if err != nil || one == nil || string(one.Data) != string(items[i].Data) {
				t.Errorf("Item finds %+v, %v; want the %s", one, err, items[i].Data)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("under attention are %q, want %q", got, want)
		}
	}
	settle := func(t *testing.T, s *Store, a lodestone.Attention, again ...lodestone.Attention) {
		t.Helper()
		key := sequencer.KeyOf(&a)
		res, err := s.Commit(ctx, sequencer.Batch{Writes: []sequencer.Write{{Settles: &key, Plan: func(st sequencer.State) (sequencer.Change, error) {
			if st.Item == nil || string(st.Item.Data) != string(a.Data) {
				t.Errorf("what is settled is %+v, want the %s", st.Item, a.Data)
			}
			return sequencer.Change{Attention: again}, nil
		}}}})
		if err != nil || res[0].Err != nil {
			t.Fatal(err, res[0].Err)
		}
	}
	for _, c := range []struct {
		name string
		put  func(*testing.T, *Store)
	}{
		{"both by this version", func(t *testing.T, s *Store) {
			commit(t, s, sequencer.Batch{Attention: []lodestone.Attention{signal, submission}})
		}},
		{"the signal by an earlier one", func(t *testing.T, s *Store) {
			earlier(t, s)
			held(t, s, "signal")
			key := sequencer.KeyOf(&submission)
			if a, err := s.Item(ctx, key); a != nil || err != nil {
				t.Errorf("the signal is taken for a submission: %+v, %v", a, err)
			}
			commit(t, s, sequencer.Batch{Attention: []lodestone.Attention{submission}})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t, t.TempDir())
			c.put(t, s)
			held(t, s, "signal", "submission")
			settle(t, s, submission)
			held(t, s, "signal")
			settle(t, s, signal)
			held(t, s)
		})
	}
	t.Run("one of an earlier version is tried again", func(t *testing.T) {
		s := open(t, t.TempDir())
		earlier(t, s)
		settle(t, s, signal, signal) // still not usable
		held(t, s, "signal")
		commit(t, s, sequencer.Batch{Attention: []lodestone.Attention{submission}})
		held(t, s, "signal", "submission")
		settle(t, s, signal)
		held(t, s, "submission")
		commit(t, s, sequencer.Batch{Resolved: []sequencer.AttentionKey{{Kind: lodestone.AttentionSubmission, ID: "same"}}})
		held(t, s)
	})
	t.Run("one of an earlier version is released", func(t *testing.T) {
		s := open(t, t.TempDir())
		earlier(t, s)
		settle(t, s, signal)
		held(t, s)
	})
}

// While the writer is busy, who waits for it may give up: the batch is then not carried out. Who does not is told
// that the store was closed.
func TestWaitingForTheWriter(t *testing.T) {
	ctx, dir, book := context.Background(), t.TempDir(), rulebook(t)
	s := open(t, dir)
	busy, free := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.alone(ctx, func() error { close(busy); <-free; return nil }); err != nil {
			t.Errorf("alone: %v", err)
		}
	})
	<-busy
	patient := make(chan error, 1)
	wg.Go(func() {
		_, err := s.Commit(ctx, sequencer.Batch{Writes: []sequencer.Write{submit(book, "ada@example.com", "1", start, 0)}})
		patient <- err
	})
	for len(s.requests) == 0 {
		runtime.Gosched()
	}
	given, giveUp := context.WithCancel(ctx)
	giveUp()
	for range 20 { // whichever of the two ways to notice it a select takes
		if _, err := s.Commit(given, sequencer.Batch{Writes: []sequencer.Write{submit(book, "bob@example.com", "2", start, 0)}}); !errors.Is(err, context.Canceled) {
			t.Errorf("Commit with a context that is done = %v", err)
		}
	}
	close(free)
	if err := <-patient; err != nil {
		t.Errorf("Commit that waited = %v", err)
	}
	wg.Wait()
	for email, known := range map[lodestone.Email]bool{"ada@example.com": true, "bob@example.com": false} {
		if st, err := s.State(ctx, email); err != nil || (st.Lead != nil) != known {
			t.Errorf("%s is known: %v, want %v (%v)", email, st.Lead != nil, known, err)
		}
	}

	busy, free = make(chan struct{}), make(chan struct{})
	wg.Go(func() { _ = s.alone(ctx, func() error { close(busy); <-free; return nil }) })
	<-busy
	wg.Go(func() {
		_, err := s.Commit(ctx, sequencer.Batch{Writes: []sequencer.Write{submit(book, "eve@example.com", "3", start, 0)}})
		patient <- err
	})
	for len(s.requests) == 0 {
		runtime.Gosched()
	}
	wg.Go(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	<-s.done
	close(free)
	err := <-patient
	wg.Wait()
	s = open(t, dir)
	st, stErr := s.State(ctx, "eve@example.com")
	if stErr != nil {
		t.Fatal(stErr)
	}
	if (err == nil) != (st.Lead != nil) || err != nil && !errors.Is(err, ErrClosed) {
		t.Errorf("Commit while the store was closed = %v, and the lead is there: %v", err, st.Lead != nil)
	}
}
