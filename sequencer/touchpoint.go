package sequencer

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/rules"
)

// schedule brings the touchpoint of a step into being; past the last step the enrollment is
// completed.
func (p *planner) schedule(e *lodestone.Enrollment, s *rules.Sequence, step int, at time.Time) {
	steps := s.StepsOf(e.Variant)
	for step < len(steps) && slices.Contains(e.Done, steps[step].Name) {
		step++
	}
	if step >= len(steps) {
		p.end(e, lodestone.EnrollmentCompleted, lodestone.ReasonCompleted, at)
		return
	}
	def := &steps[step]
	variant := StepVariant(p.lead.Email, s, def)
	act := def.Of(variant)
	due := s.At(def, at, ZoneOf(s, p.lead))
	e.Step = step
	e.Touchpoint = &lodestone.Touchpoint{
		ID: lodestone.TouchpointID(e.ID, def.Name), Step: def.Name,
		Connector: act.Connector, Operation: act.Operation, Variant: variant,
		State: lodestone.TouchpointScheduled, PlannedAt: due, DueAt: due,
	}
	awaits := p.await(e, def)
	p.note(e, e.Touchpoint, lodestone.ReasonPlanned)
	if awaits {
		p.note(e, e.Touchpoint, lodestone.ReasonAwaiting)
	}
}

// note records where a touchpoint stands now.
func (p *planner) note(e *lodestone.Enrollment, t *lodestone.Touchpoint, reason lodestone.Reason) *lodestone.TouchpointEntry {
	n := lodestone.TouchpointEntry{
		ID: t.ID, Sequence: e.Sequence, Step: t.Step, Variant: variantOf(e, t), Operation: t.Connector + "." + t.Operation,
		State: t.State, Reason: reason,
	}
	if t.State == lodestone.TouchpointScheduled {
		n.DueAt = t.DueAt
	}
	p.entry.Touchpoints = append(p.entry.Touchpoints, n)
	return &p.entry.Touchpoints[len(p.entry.Touchpoints)-1]
}

// end ends an enrollment. A touchpoint that only waits is cancelled with it. One whose call is in
// flight or whose outcome is not known stays until that is settled.
func (p *planner) end(e *lodestone.Enrollment, state lodestone.EnrollmentState, reason lodestone.Reason, at time.Time) {
	e.State, e.EndedAt, e.Awaits = state, at, nil
	if t := e.Touchpoint; t != nil && (t.State == lodestone.TouchpointScheduled || IsBraked(t)) {
		c := *t
		c.State = lodestone.TouchpointCancelled
		if t.Reason == lodestone.ReasonNoDefinition {
			p.change.Resolved = append(p.change.Resolved, t.ID)
		}
		p.note(e, &c, reason)
		e.Touchpoint = nil
	}
	if e.Parked != nil {
		c := *e.Parked
		c.State = lodestone.TouchpointCancelled
		p.note(e, &c, reason)
		e.Parked = nil
	}
	p.entry.Enrollments = append(p.entry.Enrollments, lodestone.EnrollmentEntry{
		ID: e.ID, Sequence: e.Sequence, Version: e.Version, Variant: e.Variant, State: state, Reason: reason,
	})
	past := make([]lodestone.PastEnrollment, 0, len(p.lead.Past)+1)
	for _, q := range p.lead.Past {
		if q.Sequence != e.Sequence {
			past = append(past, q)
		}
	}
	p.lead.Past = append(past, lodestone.PastEnrollment{Sequence: e.Sequence, ID: e.ID, State: state, EndedAt: at})
	p.drop()
}

// drop forgets enrollments that are over and have nothing pending.
func (p *planner) drop() {
	p.lead.Enrollments = slices.DeleteFunc(p.lead.Enrollments, func(e lodestone.Enrollment) bool {
		return e.State != lodestone.EnrollmentActive && e.Touchpoint == nil
	})
}

// moved takes a touchpoint one step further and, where the step ended, plans the next.
func (p *planner) moved(m *Moved) error {
	e, t := p.lead.Touchpoint(m.Touchpoint)
	if t == nil || t.State != m.From || !m.Intended.IsZero() && !m.Intended.Equal(t.Intended) {
		return ErrMoved
	}
	if p.overtaken(e, m.Reason) {
		return ErrMoved
	}
	next := *t
	t = &next
	e.Touchpoint = t
	was, why := t.State, t.Reason
	// What only waits on, for the reason it waits for already, is no news: a provider that is away for a
	// day would otherwise fill the journal.
	news := m.To != was || m.Reason != t.Reason && !m.Looked || m.Looked && t.Lookups < 3 || m.Alert
	t.State, t.Reason = m.To, m.Reason
	p.contact(t, m.To)
	if m.To != was && (was == lodestone.TouchpointHeld || was == lodestone.TouchpointUnknown) {
		p.change.Resolved = append(p.change.Resolved, t.ID)
	}
	if t.Reason != lodestone.ReasonNoDefinition && why == lodestone.ReasonNoDefinition {
		p.change.Resolved = append(p.change.Resolved, t.ID)
	}
	if m.Suppress != nil {
		p.suppress(*m.Suppress)
	}

	switch m.To {
	case lodestone.TouchpointScheduled:
		if e.State != lodestone.EnrollmentActive {
			// The enrollment ended while the call was out. It did not happen, so there is nothing
			// left to do.
			t.State, t.Reason = lodestone.TouchpointCancelled, endReason(e.State)
			break
		}
		t.DueAt = m.DueAt
		if m.Reason == lodestone.ReasonAddressConfirmed {
			e.Awaits, t.PlannedAt = nil, m.DueAt
		}
		if was != lodestone.TouchpointScheduled {
			if m.Counted {
				t.Attempts++
			}
			t.Intended, t.GivenUp, t.Lookups, t.Parameters, t.Hidden = time.Time{}, time.Time{}, 0, nil, nil
		}
		switch m.Reason {
		case lodestone.ReasonPaused, lodestone.ReasonResumed, lodestone.ReasonOutsideWindow, lodestone.ReasonCapped,
			lodestone.ReasonAwaiting, lodestone.ReasonAddressConfirmed:
			t.Delays = 0 // a human's word, not the provider's trouble
		default:
			t.Delays++
		}
	case lodestone.TouchpointIntended:
		t.Intended, t.Parameters, t.Hidden, t.GivenUp, t.Lookups = p.now, m.Parameters, m.Hidden, time.Time{}, 0
	case lodestone.TouchpointUnknown:
		t.DueAt = m.DueAt
		if !m.GivenUp.IsZero() {
			t.GivenUp = m.GivenUp
		}
		if m.Looked {
			t.Lookups++
		}
	case lodestone.TouchpointHeld:
		p.attention(e, t, m.Detail)
	case lodestone.TouchpointFailed:
		p.attention(e, t, m.Detail)
		p.keepFailed(e, t)
	}

	if m.Alert {
		p.attention(e, t, m.Detail)
	}
	if !news {
		return nil
	}
	n := p.note(e, t, t.Reason)
	n.Verdicts, n.Detail, n.Reference, n.Status, n.Took = m.Verdicts, m.Detail, m.Reference, m.Status, m.Took
	n.Attempt = t.Attempts
	if t.State == lodestone.TouchpointIntended {
		n.Attempt++
		n.Arguments = m.Parameters
	}
	if t.State.Pending() {
		return nil
	}

	e.Touchpoint = nil
	p.asked(e, t)
	p.advance(e, m.Ends, m.Reason)
	return nil
}

// advance goes on with an enrollment whose touchpoint has ended: it ends, or its next step is planned.
func (p *planner) advance(e *lodestone.Enrollment, ends lodestone.EnrollmentState, reason lodestone.Reason) {
	switch {
	case e.State != lodestone.EnrollmentActive:
		p.drop()
	case ends != "":
		p.end(e, ends, reason, p.now)
	case p.exit(p.now, false):
	case e.Parked != nil:
		p.unpark(e)
	default:
		_, s := p.book.Sequence(e)
		if s == nil {
			p.change.Attention = append(p.change.Attention, lodestone.Attention{
				ID: e.ID, Kind: lodestone.AttentionEnrollment, Reason: lodestone.ReasonNoDefinition, Form: e.Form, Email: p.lead.Email, At: p.now,
				Detail: fmt.Sprintf("version %s of sequence %s is not in the store, so its next step cannot be planned", e.Version, e.Sequence),
			})
			p.end(e, lodestone.EnrollmentCancelled, lodestone.ReasonNoDefinition, p.now)
			return
		}
		p.schedule(e, s, e.Step+1, p.now)
	}
}

// attention asks for a human to look at a touchpoint.
func (p *planner) attention(e *lodestone.Enrollment, t *lodestone.Touchpoint, detail string) {
	p.change.Attention = append(p.change.Attention, lodestone.Attention{
		ID: t.ID, Kind: lodestone.AttentionTouchpoint, Reason: t.Reason, Form: e.Form, Email: p.lead.Email, At: p.now,
		Detail: cmp.Or(detail, t.Connector+"."+t.Operation),
	})
}

// endReason is the reason that a touchpoint shares with the end of its enrollment.
func endReason(s lodestone.EnrollmentState) lodestone.Reason {
	switch s {
	case lodestone.EnrollmentConverted:
		return lodestone.ReasonConverted
	case lodestone.EnrollmentSuperseded:
		return lodestone.ReasonSuperseded
	case lodestone.EnrollmentSuppressed:
		return lodestone.ReasonSuppressed
	case lodestone.EnrollmentUnsubscribed:
		return lodestone.ReasonUnsubscribed
	case lodestone.EnrollmentErased:
		return lodestone.ReasonErased
	case lodestone.EnrollmentCancelled:
		return lodestone.ReasonCancelled
	}
	return lodestone.ReasonExited
}
