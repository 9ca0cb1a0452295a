package boltstore

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/sequencer"
)

// What was planned ahead is taken while the store holds the state it was planned over, and what it rests on
// beside that still stands; else it is planned again. What a commit says of the record it left is what the
// next plan ahead may rest on.
func TestAheadIsTakenOnlyWhileNothingChanged(t *testing.T) {
	s, book, now := open(t, t.TempDir()), rulebook(t), time.Date(2026, 3, 6, 10, 0, 0, 0, time.UTC)
	const email = lodestone.Email("ada@example.com")
	submit := func(id string) sequencer.Write {
		sub := lodestone.Submission{ID: id, Form: "guide", Email: email, At: now, Received: now, Fields: lodestone.FieldsOf(map[string]any{"email": string(email)})}
		return sequencer.Write{Email: email, Plan: func(st sequencer.State) (sequencer.Change, error) {
			return sequencer.Plan(st.Lead, &sequencer.Submitted{Submission: sub}, book, now)
		}}
	}
	commit := func(w sequencer.Write) sequencer.Result {
		t.Helper()
		res, err := s.Commit(t.Context(), sequencer.Batch{Writes: []sequencer.Write{w}})
		if err = errors.Join(err, res[0].Err); err != nil {
			t.Fatal(err)
		}
		return res[0]
	}
	ahead := func(w sequencer.Write, st sequencer.State, still func() bool) (sequencer.Write, *int) {
		t.Helper()
		c, err := w.Plan(st)
		if err != nil {
			t.Fatal(err)
		}
		w.Ahead = &sequencer.Ahead{State: st, Change: c, Still: still}
		calls, plan := 0, w.Plan
		w.Plan = func(st sequencer.State) (sequencer.Change, error) { calls++; return plan(st) }
		return w, &calls
	}

	first := commit(submit("1"))
	stored, err := s.State(t.Context(), email)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Version, stored.Version) {
		t.Fatal("the version that the commit told is not the record's")
	}
	known := sequencer.State{Lead: first.Change.Lead, Version: first.Version}
	for _, c := range []struct {
		id    string
		still func() bool
		again int
	}{{"2", nil, 0}, {"3", func() bool { return true }, 0}, {"4", func() bool { return false }, 1}} {
		w, calls := ahead(submit(c.id), known, c.still)
		res := commit(w)
		if *calls != c.again {
			t.Errorf("submission %s was planned %d times in the transaction, want %d", c.id, *calls, c.again)
		}
		known = sequencer.State{Lead: res.Change.Lead, Version: res.Version}
	}
	w, calls := ahead(submit("5"), known, nil)
	commit(submit("6"))
	commit(w)
	if *calls != 1 {
		t.Error("what another commit had changed meanwhile was not planned again")
	}
	if st, err := s.State(t.Context(), email); err != nil || st.Lead.Submissions != 6 {
		t.Errorf("state = %d submissions, %v, want 6", st.Lead.Submissions, err)
	}
}
