package boltstore

import (
	"bytes"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/sequencer"
)

// What was encoded before its transaction is what the transaction would have encoded: the lead with the
// number of its entry, the entry with the number of the one before it.
func TestPreparedRecordsAreThoseOfTheTransaction(t *testing.T) {
	s, book, now := open(t, t.TempDir()), rulebook(t), time.Date(2026, 3, 6, 10, 0, 0, 0, time.UTC)
	const plain, prepared = lodestone.Email("plain@example.com"), lodestone.Email("ready@example.com")
	submit := func(email lodestone.Email, id string, ready bool) {
		t.Helper()
		sub := lodestone.Submission{ID: id, Form: "guide", Email: email, At: now, Received: now, Fields: lodestone.FieldsOf(map[string]any{"company": "Ada & Co", "size": 12.0})}
		w := sequencer.Write{Email: email, Plan: func(st sequencer.State) (sequencer.Change, error) {
			return sequencer.Plan(st.Lead, &sequencer.Submitted{Submission: sub}, book, now)
		}}
		if ready {
			st, err := s.State(t.Context(), email)
			if err != nil {
				t.Fatal(err)
			}
			c, err := w.Plan(st)
			if err != nil {
				t.Fatal(err)
			}
			w.Ahead = &sequencer.Ahead{State: st, Change: c}
			if s.Prepare(w.Ahead); w.Ahead.Prepared == nil {
				t.Fatal("nothing was prepared")
			}
			w.Plan = func(sequencer.State) (sequencer.Change, error) {
				t.Error("planned again")
				return c, nil
			}
		}
		res, err := s.Commit(t.Context(), sequencer.Batch{Writes: []sequencer.Write{w}})
		if err != nil || res[0].Err != nil {
			t.Fatal(err, res[0].Err)
		}
		st, err := s.State(t.Context(), email)
		if err != nil {
			t.Fatal(err)
		}
		if e := res[0].Change.Entry; st.Lead.Journal != e.Seq || !bytes.Equal(st.Version, res[0].Version) {
			t.Errorf("%s: the lead's newest entry is %d, and %d was written; version told: %v", email, st.Lead.Journal, e.Seq, bytes.Equal(st.Version, res[0].Version))
		}
	}
	for range 200 { // numbers of more than one byte
		if err := s.Record(t.Context(), &lodestone.Entry{At: now}); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"1", "2", "3"} {
		submit(plain, id, false)
		submit(prepared, id, true)
	}
	a, err := s.Person(t.Context(), plain, 10)
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Person(t.Context(), prepared, 10)
	if err != nil {
		t.Fatal(err)
	}
	if len(a.History) != 3 || len(b.History) != 3 {
		t.Fatalf("%d and %d entries in the history, want 3", len(a.History), len(b.History))
	}
	if !reflect.DeepEqual(a.Lead.Profile.Map(), b.Lead.Profile.Map()) || !reflect.DeepEqual(a.Lead.Ledger, b.Lead.Ledger) || len(a.Lead.Recent) != len(b.Lead.Recent) {
		t.Errorf("the leads differ:\n%+v\n%+v", a.Lead, b.Lead)
	}
	if faults, err := s.Check(t.Context()); err != nil || len(faults) != 0 {
		t.Errorf("check: %v, %v", faults, err)
	}
}

// A transaction may be tried again, then with other numbers: a prepared record is good for each try, and
// no number outgrows the room that it has.
func TestPreparedRecordIsGoodForEachTry(t *testing.T) {
	s := open(t, t.TempDir())
	for _, last := range []uint64{1, 200, 1 << 20, math.MaxUint64, 3} {
		a := &sequencer.Ahead{Change: sequencer.Change{Entry: &lodestone.Entry{Lead: "ada@example.com"}, Lead: &lodestone.Lead{Email: "ada@example.com"}}}
		s.Prepare(a)
		p := a.Prepared.(*prepared)
		for _, seq := range []uint64{math.MaxUint64, last} {
			before, room := &p.lead[0], cap(p.lead)
			a.Change.Lead.Journal = seq
			got := p.record(a.Change.Lead)
			want, err := recordOf(a.Change.Lead)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("number %d: %x, want %x", seq, got, want)
			}
			if &got[0] != before || cap(got) != room {
				t.Errorf("number %d: the record was copied", seq)
			}
		}
	}
}
