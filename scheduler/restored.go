package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/sequencer"
)

// Before is what is known of a touchpoint from before the store was restored from a backup.
type Before struct {
	// State is how it ended, empty when that is not known; Reason, At and Reference go with it.
	State     lodestone.TouchpointState
	Reason    lodestone.Reason
	At        time.Time
	Reference string
	// Doubt: it may have been sent, between Since and Until, and nobody here knows.
	Doubt        bool
	Since, Until time.Time
	// Misplaced says what else was done for the lead that this store cannot place; a look-up by the
	// touchpoint's id would not find it.
	Misplaced string
}

// History knows what was done before a store was restored.
type History interface {
	// Before says what is known of a scheduled touchpoint.
	Before(ctx context.Context, email lodestone.Email, e *lodestone.Enrollment, t *lodestone.Touchpoint) (Before, error)
	// Asked records that the doubt about a touchpoint went to the provider or to a human. e is its enrollment,
	// whose later touchpoints are then in doubt as well; nil when they are not.
	Asked(ctx context.Context, e *lodestone.Enrollment, touchpoint string) error
}

// ended records the outcome that a touchpoint had before the restore, at the time when it had it, so
// that what comes after it falls due when it would have.
func (l *lane) ended(ctx context.Context, email lodestone.Email, t *lodestone.Touchpoint, b Before) error {
	m := sequencer.Moved{
		Touchpoint: t.ID, From: lodestone.TouchpointScheduled, To: b.State, Reason: b.Reason, Reference: b.Reference,
		Detail: "it ended so after the backup that this store was restored from was made",
	}
	switch {
	case b.State == lodestone.TouchpointCancelled:
		m.Ends = lodestone.EnrollmentCancelled // by whomever: what was taken back is not sent
	case b.Reason == lodestone.ReasonSuppressed:
		m.Ends = lodestone.EnrollmentSuppressed
	case b.Reason == lodestone.ReasonUnsubscribed:
		m.Ends = lodestone.EnrollmentUnsubscribed
	}
	_, err := l.s.commit(ctx, sequencer.Write{Email: email, Plan: func(st sequencer.State) (sequencer.Change, error) {
		return sequencer.Plan(st.Lead, m, l.s.rulebook(), b.At)
	}})
	switch {
	case errors.Is(err, sequencer.ErrMoved):
		return nil
	case err == nil && b.State == lodestone.TouchpointFailed:
		// A person may have it tried again, and then this is no answer any more.
		return l.s.history.Asked(ctx, nil, t.ID)
	}
	return err
}

// changed names what may have been sent otherwise, before the restore, than it would be now: what holds links,
// and, of what the provider finds the act by, what is made of more than was submitted.
func (l *lane) changed(p *Passage, what Sending) []string {
	out := slices.Clone(what.Hidden)
	op := l.s.accounts[l.name].Operations[p.t.Operation]
	for _, a := range p.step().With {
		if q, _ := op.Parameter(a.Name); q.Finds && !a.Value.Lasting() && !slices.Contains(out, a.Name) {
			out = append(out, a.Name)
		}
	}
	return out
}

// doubt takes a touchpoint that may have been sent before the restore for a call whose outcome is not
// known: it is looked up like any other, or held for a human.
func (l *lane) doubt(ctx context.Context, email lodestone.Email, p *Passage, what Sending, b Before) error {
	s := l.s
	detail := fmt.Sprintf("the backup that this store was restored from was made at %s, and this may have been sent since", b.Since.Format(time.RFC3339))
	unknown := sequencer.Moved{
		Touchpoint: p.t.ID, From: lodestone.TouchpointIntended, To: lodestone.TouchpointUnknown,
		Reason: lodestone.ReasonRestored, GivenUp: b.Until, DueAt: s.now(), Detail: detail,
	}
	if b.Misplaced != "" {
		unknown.To, unknown.Detail = lodestone.TouchpointHeld, b.Misplaced+"; whether this is still wanted must be decided by hand"
	}
	plan := func(m sequencer.Moved, now time.Time) sequencer.Write {
		return sequencer.Write{Email: email, Plan: func(st sequencer.State) (sequencer.Change, error) {
			if st.Lead == nil {
				return sequencer.Change{}, sequencer.ErrMoved
			}
			return sequencer.Plan(st.Lead, m, s.rulebook(), now)
		}}
	}
	// The intent is put back to the earliest moment when the call can have been made: what is looked
	// for at the provider is not older than that.
	first := p.t.PlannedAt
	if first.Before(b.Since) {
		first = b.Since
	}
	results, err := s.store.Commit(ctx, sequencer.Batch{Writes: []sequencer.Write{
		plan(sequencer.Moved{
			Touchpoint: p.t.ID, From: lodestone.TouchpointScheduled, To: lodestone.TouchpointIntended,
			Reason: lodestone.ReasonRestored, Parameters: what.Kept, Hidden: l.changed(p, what), Verdicts: p.verdicts, Detail: detail,
		}, first),
		plan(unknown, s.now()),
	}})
	if err != nil {
		return err
	}
	for i := range results {
		if results[i].Err != nil {
			return nil // someone else was quicker
		}
		s.committed(&results[i].Change)
	}
	// A crash before this line asks once more, which harms nobody.
	if err := s.history.Asked(ctx, p.e, p.t.ID); err != nil {
		return err
	}
	if unknown.To == lodestone.TouchpointUnknown {
		l.watch(p.t.ID, lookup{email: email, at: time.Now(), from: time.Now(), earlier: true})
	}
	return nil
}
