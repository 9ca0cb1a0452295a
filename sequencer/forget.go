package sequencer

import (
	"slices"
	"time"

	"github.com/lodestonehq/lodestone"
)

// Forgotten is the word that a person is to be erased: everything that still runs for them ends.
type Forgotten struct{ Email lodestone.Email }

func (Forgotten) event() {}

// forgotten ends the lead's enrollments as erased and cancels every touchpoint that is pending, also one whose
// call is out: what comes of it finds nobody and is dropped.
func (p *planner) forgotten() {
	for i := range p.lead.Enrollments {
		e := &p.lead.Enrollments[i]
		if t := e.Touchpoint; t != nil && t.State.Pending() {
			c := *t
			c.State = lodestone.TouchpointCancelled
			p.note(e, &c, lodestone.ReasonErased)
			p.change.Resolved = append(p.change.Resolved, t.ID)
			e.Touchpoint = nil
		}
	}
	for _, e := range slices.Clone(p.lead.Enrollments) {
		if e.State != lodestone.EnrollmentActive {
			continue
		}
		if active := p.lead.Active(); active != nil {
			p.end(active, lodestone.EnrollmentErased, lodestone.ReasonErased, p.now)
		}
	}
	p.drop()
}

// afterErasure decides what belongs to the past of a person who was erased and is not known since: a submission
// from before, which was delivered again or waited somewhere, and every signal. Nothing of it is kept but
// that it came, and an opt-out, which the store keeps without the address. What they submit since then is
// another matter.
func afterErasure(st *State, ev Event, now time.Time) (c Change, gone bool) {
	if st.Lead != nil || st.Erased.IsZero() {
		return c, false
	}
	c = Change{Erased: true, Entry: &lodestone.Entry{At: now.UTC()}}
	switch ev := ev.(type) {
	case *Submitted:
		if ev.At.After(st.Erased) {
			return Change{}, false
		}
		c.Entry.Decision = &lodestone.Decision{Form: ev.Form, StreamSeq: ev.Seq, SubmittedAt: ev.At, Reason: lodestone.ReasonErased}
	case Signalled:
		c.Entry.Signal = &lodestone.SignalEntry{Kind: ev.Kind, At: ev.At, StreamSeq: ev.Seq, Reason: lodestone.ReasonErased}
		if ev.Suppresses() && st.Suppression == nil {
			c.Suppress = &lodestone.Suppression{Email: ev.Email, Reason: string(ev.Kind), Source: "signal", At: now.UTC()}
			c.Entry.Suppression = &lodestone.SuppressionEntry{Reason: c.Suppress.Reason, Source: c.Suppress.Source}
		}
	default:
		return Change{}, false
	}
	return c, true
}
