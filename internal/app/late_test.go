package app

import (
	"context"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/sequencer"
)

func TestLate(t *testing.T) {
	due := time.Date(2026, 3, 6, 10, 0, 0, 0, time.UTC)
	lead := func(email lodestone.Email, planned time.Time, state lodestone.TouchpointState, delays int) *lodestone.Lead {
		return &lodestone.Lead{Email: email, Enrollments: []lodestone.Enrollment{{Touchpoint: &lodestone.Touchpoint{
			State: state, PlannedAt: planned, DueAt: planned.Add(time.Hour), Delays: delays,
		}}}}
	}
	store := map[lodestone.Email]*lodestone.Lead{}
	l := newLate(func(_ context.Context, email lodestone.Email) (sequencer.State, error) {
		return sequencer.State{Lead: store[email]}, nil
	})
	commit := func(lead *lodestone.Lead) {
		store[lead.Email] = lead
		l.committed(&sequencer.Change{Lead: lead})
	}
	want := func(what string, at time.Time) {
		t.Helper()
		if got, err := l.oldest(t.Context()); err != nil || !got.Equal(at) {
			t.Errorf("%s: oldest = %v, %v; want %v", what, got, err, at)
		}
	}
	want("nothing happened", time.Time{})
	commit(lead("ada@example.com", due, lodestone.TouchpointScheduled, 0))
	want("one waits for its time, a window or a pause", time.Time{})
	commit(lead("ada@example.com", due.Add(time.Minute), lodestone.TouchpointScheduled, 1))
	commit(lead("eve@example.com", due, lodestone.TouchpointScheduled, 7))
	want("two are put off", due)
	commit(lead("eve@example.com", due, lodestone.TouchpointIntended, 7))
	want("the older one is being sent", due.Add(time.Minute))
	l.committed(&sequencer.Change{Lead: lead("eve@example.com", due, lodestone.TouchpointScheduled, 7)})
	want("an earlier change of it is told late", due.Add(time.Minute))
	delete(store, "ada@example.com")
	want("the other one was erased", time.Time{})
	if len(l.since) != 0 {
		t.Errorf("%d are kept that are not late", len(l.since))
	}
}
