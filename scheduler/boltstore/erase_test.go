package boltstore

import (
	"context"
	"encoding/json"
	"io"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/sequencer"
)

func TestEraseLeavesNothingAndKeepsTheCounts(t *testing.T) {
	ctx, now := context.Background(), time.Date(2026, 3, 6, 10, 0, 0, 0, time.UTC)
	book := rulebook(t)
	s := open(t, t.TempDir())
	const ada, grace = lodestone.Email("ada@example.com"), lodestone.Email("grace@example.com")
	commit(t, s, sequencer.Batch{Writes: []sequencer.Write{
		submit(book, ada, "ada-1", now, 240), submit(book, grace, "grace-1", now, 240),
		write(ada, book, now, sequencer.Suppressed{Suppression: lodestone.Suppression{Email: ada, Reason: "ada asked", Source: "operator", At: now}}),
	}, Attention: []lodestone.Attention{
		{ID: "x1", Kind: lodestone.AttentionSubmission, Reason: lodestone.ReasonBadField, At: now, Data: []byte(`{"email": "ADA@example.com"}`)},
		{ID: "x2", Kind: lodestone.AttentionSubmission, Reason: lodestone.ReasonBadField, At: now, Data: []byte(`{"email": "not-ada@example.com"}`)},
	}})
	// What belongs to no lead may name her as well: an id is the sender's choice, and a word the operator's.
	commit(t, s, sequencer.Batch{Attention: []lodestone.Attention{
		{ID: "web Ada@example.com", Kind: lodestone.AttentionSubmission, Form: "guide", Reason: lodestone.ReasonBadField, At: now, Data: []byte("{}")},
		{ID: "web not-ada@example.com", Kind: lodestone.AttentionSubmission, Form: "guide", Reason: lodestone.ReasonBadField, At: now, Data: []byte("{}")},
	}, Writes: []sequencer.Write{{Email: "", Plan: func(sequencer.State) (sequencer.Change, error) {
		return sequencer.Change{Entry: &lodestone.Entry{At: now, Operator: &lodestone.OperatorEntry{
			By: "command", Command: "drop", Subject: "web ada@example.com", Reason: "spam from ada@example.com",
		}}}, nil
	}}}})
	before, err := s.Totals(ctx)
	if err != nil {
		t.Fatal(err)
	}

	got, change, err := s.Erase(ctx, ada, now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if want := (Erased{Lead: true, Entries: 5, Attention: 2, Suppressed: true}); !reflect.DeepEqual(got, want) {
		t.Errorf("Erase = %+v, want %+v", got, want)
	}
	if n := len(change.Entry.Enrollments); n != 1 || change.Entry.Enrollments[0].State != lodestone.EnrollmentErased {
		t.Errorf("enrollments ended: %+v", change.Entry.Enrollments)
	}
	entries, err := s.Journal(ctx, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := json.Marshal(entries); strings.Contains(strings.ReplaceAll(strings.ToLower(string(text)), "not-ada", ""), "ada") {
		t.Errorf("the journal still names her: %s", text)
	}
	for _, e := range entries {
		if e.Lead == ada {
			t.Errorf("entry %d is still hers", e.Seq)
		}
	}
	p, err := s.Person(ctx, ada, 100)
	if err != nil || p.Lead != nil || len(p.Attention) != 0 || len(p.History) != 0 {
		t.Errorf("Person = %+v, %v", p, err)
	}
	if p.Suppression == nil || p.Suppression.Source != "operator" {
		t.Errorf("the suppression was lost: %+v", p.Suppression)
	}
	if q, err := s.Person(ctx, grace, 100); err != nil || q.Lead == nil || len(q.History) == 0 {
		t.Errorf("somebody else was touched: %+v, %v", q, err)
	}
	if _, n, err := s.Attention(ctx, 10); err != nil || n != 2 {
		t.Errorf("%d items under attention, %v; want the two that name another", n, err)
	}
	faults, err := s.Check(ctx)
	if err != nil || len(faults) > 0 {
		t.Errorf("Check = %q, %v", faults, err)
	}
	after, err := s.Totals(ctx)
	if err != nil || len(after) < len(before) {
		t.Errorf("counts were lost: %d of %d, %v", len(after), len(before), err)
	}

	if list, err := s.Erasing(ctx); err != nil || len(list) != 1 || !list[ada].Asked.Equal(now.Add(time.Hour)) {
		t.Errorf("Erasing = %v, %v", list, err)
	}
	if err := s.StreamsCleared(ctx, ada, Erasure{Asked: now}); err != nil {
		t.Fatal(err)
	}
	list, err := s.Erasing(ctx)
	if err != nil || len(list) != 1 {
		t.Errorf("Erasing after another one was done = %v, %v", list, err)
	}
	if err := s.StreamsCleared(ctx, ada, list[ada]); err != nil {
		t.Fatal(err)
	}
	if list, err := s.Erasing(ctx); err != nil || len(list) != 0 {
		t.Errorf("Erasing after it is done = %v, %v", list, err)
	}

	// Who comes back is a new lead, still suppressed until an operator says otherwise.
	commit(t, s, sequencer.Batch{Writes: []sequencer.Write{submit(book, ada, "ada-2", now.Add(2*time.Hour), 240)}})
	if p, err = s.Person(ctx, ada, 100); err != nil || p.Lead == nil || p.Lead.Submissions != 1 || p.Suppression == nil || len(p.History) != 1 {
		t.Errorf("after coming back: %+v, %v", p, err)
	}
	commit(t, s, sequencer.Batch{Writes: []sequencer.Write{write(ada, book, now, sequencer.Suppressed{Suppression: lodestone.Suppression{Email: ada}, Removed: true})}})
	if p, err = s.Person(ctx, ada, 1); err != nil || p.Suppression != nil {
		t.Errorf("after the suppression was taken back: %+v, %v", p.Suppression, err)
	}
}

// A backup from before an erasure does not bring the person back; one from after they came back keeps them.
func TestRestoreErasesAgain(t *testing.T) {
	ctx, now := context.Background(), time.Now().UTC()
	book := rulebook(t)
	dir := t.TempDir()
	s := open(t, dir)
	const ada, grace, kim = lodestone.Email("ada@example.com"), lodestone.Email("grace@example.com"), lodestone.Email("kim@example.com")
	commit(t, s, sequencer.Batch{Writes: []sequencer.Write{submit(book, kim, "0", now, 240)}})
	if _, _, err := s.Erase(ctx, kim, now); err != nil {
		t.Fatal(err)
	}
	commit(t, s, sequencer.Batch{Writes: []sequencer.Write{
		submit(book, ada, "1", now, 240), submit(book, grace, "2", now, 240), submit(book, kim, "3", now, 240),
	}})
	file := filepath.Join(t.TempDir(), "backup.db")
	if _, err := WriteBackup(ctx, file, nil, func(w io.Writer) error { _, err := s.Backup(ctx, w); return err }); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Erase(ctx, ada, time.Now().UTC()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := Restore(ctx, dir, file, time.Now().UTC())
	if err != nil || info.Erased != 1 {
		t.Fatalf("Restore = %+v, %v; want one person erased again", info, err)
	}
	s = open(t, dir)
	for email, want := range map[lodestone.Email]bool{ada: false, grace: true, kim: true} {
		if p, err := s.Person(ctx, email, 1); err != nil || (p.Lead != nil) != want {
			t.Errorf("%s is there: %t, %v; want %t", email, p.Lead != nil, err, want)
		}
	}
	if faults, err := s.Check(ctx); err != nil || len(faults) > 0 {
		t.Errorf("Check = %q, %v", faults, err)
	}
}

// A backup of one store in the place of another: both erased people who must not be written to.
func TestRestoreKeepsTheErasedOfBothStores(t *testing.T) {
	ctx, now := t.Context(), time.Now().UTC()
	forget := func(s *Store, email lodestone.Email) {
		t.Helper()
		commit(t, s, sequencer.Batch{Writes: []sequencer.Write{write(email, rulebook(t), now, sequencer.Suppressed{Suppression: lodestone.Suppression{Email: email, Source: "operator", At: now}})}})
		if _, _, err := s.Erase(ctx, email, now); err != nil {
			t.Fatal(err)
		}
	}
	one := filled(t, t.TempDir(), 2)
	forget(one, "ada@example.com")
	file := backup(t, one)
	one.Close()
	dir := t.TempDir()
	other := filled(t, dir, 2)
	forget(other, "kim@example.com")
	other.Close()
	if _, err := Restore(ctx, dir, file, now); err != nil {
		t.Fatal(err)
	}
	r := open(t, dir)
	for _, email := range []lodestone.Email{"ada@example.com", "kim@example.com"} {
		if st, err := r.State(ctx, email); err != nil || st.Suppression == nil {
			t.Errorf("%s may be written to: %v %v", email, st.Suppression, err)
		}
		commit(t, r, sequencer.Batch{Writes: []sequencer.Write{write(email, rulebook(t), now, sequencer.Suppressed{Suppression: lodestone.Suppression{Email: email}, Removed: true})}})
		if st, err := r.State(ctx, email); err != nil || st.Suppression != nil {
			t.Errorf("%s is still on the list: %v %v", email, st.Suppression, err)
		}
	}
}
