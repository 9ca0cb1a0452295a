package sequencer

import (
	"fmt"
	"slices"
	"time"

	"github.com/lodestonehq/lodestone"
)

// Operated is a person's word about one touchpoint.
type Operated struct {
	Operation  Operation
	Touchpoint string
	Item       *lodestone.Attention // the attention item of a touchpoint that failed; nil: there is none
	Sure       bool                 // that it may be the second time
	Operator   lodestone.OperatorEntry
}

func (Operated) event() {}

// Operation is what a person can have done with a touchpoint.
type Operation string

// The operations.
const (
	// Retry has it tried now: what is scheduled becomes due, what is held, unknown or failed is tried
	// again. The gate is asked as always.
	Retry Operation = "retry"
	// Cancel ends it and its enrollment with it.
	Cancel Operation = "cancel"
	// Skip ends it alone; the sequence goes on with the next step.
	Skip Operation = "skip"
	// Confirm says that it did happen, as was seen at the provider; the sequence goes on.
	Confirm Operation = "confirm"
)

// RefusedError is why a person's word about a touchpoint was not carried out; nothing was changed. The
// detail ends in what to do instead, where there is something.
type RefusedError struct {
	Detail string
	// Doubt: it may have happened already, and the person has not said that this is known.
	Doubt bool
}

func (e *RefusedError) Error() string { return e.Detail }

func refuse(format string, args ...any) error {
	return &RefusedError{Detail: fmt.Sprintf(format, args...)}
}

func (p *planner) operated(ev *Operated) error {
	word := ev.Operator
	p.entry.Operator = &word
	e, t := p.lead.Touchpoint(ev.Touchpoint)
	if t == nil {
		return p.operatedFailed(ev)
	}
	if t.State == lodestone.TouchpointIntended {
		return refuse("its call is out at this moment; what came of it is known within the connector's timeout. Ask `lodestone explain %s`, then decide", p.lead.Email)
	}
	if IsBraked(t) && ev.Operation != Cancel && ev.Operation != Skip {
		return refuse("the brake of sequence %s holds it; `lodestone release --brake %s` lets all that it holds go on, `lodestone undo %s` takes them back", e.Sequence, e.Sequence, e.Sequence)
	}
	next := *t
	t = &next
	e.Touchpoint = t
	was := t.State
	doubt := was == lodestone.TouchpointHeld || was == lodestone.TouchpointUnknown
	t.DueAt = p.now
	switch ev.Operation {
	case Retry:
		if doubt && !ev.Sure {
			return &RefusedError{Doubt: true, Detail: fmt.Sprintf("whether it happened is not known (%s), so trying again may be the second time for %s; look at the provider first", was, p.lead.Email)}
		}
		if e.State != lodestone.EnrollmentActive {
			return refuse("its enrollment ended (%s) while the outcome was open, so nothing of it is sent any more; `lodestone cancel` closes it", e.State)
		}
		t.State, t.Reason, t.Delays = lodestone.TouchpointScheduled, lodestone.ReasonRetried, 0
		if doubt {
			t.Attempts++ // the one whose outcome stayed open was made
		}
		t.Forgiven = t.Attempts
		t.Intended, t.GivenUp, t.Lookups, t.Parameters, t.Hidden = time.Time{}, time.Time{}, 0, nil, nil
		p.note(e, t, t.Reason).Attempt = t.Attempts
	case Cancel, Skip:
		t.State, t.Reason = lodestone.TouchpointCancelled, lodestone.ReasonCancelled
	case Confirm:
		if !doubt {
			return refuse("it is %s: no call of it is in doubt, so there is nothing to confirm", was)
		}
		t.State, t.Reason = lodestone.TouchpointSent, lodestone.ReasonConfirmed
	default:
		panic("sequencer: unknown operation " + ev.Operation)
	}
	p.change.Resolved = append(p.change.Resolved, t.ID)
	if t.State.Pending() {
		return nil
	}
	p.note(e, t, t.Reason).Attempt = t.Attempts
	e.Touchpoint = nil
	p.asked(e, t)
	ends := lodestone.EnrollmentState("")
	if ev.Operation == Cancel {
		ends = lodestone.EnrollmentCancelled
	}
	p.advance(e, ends, t.Reason)
	return nil
}

// operatedFailed acts on a touchpoint that failed: it is over in the lead's record, and the attention
// item tells where it stood.
func (p *planner) operatedFailed(ev *Operated) error {
	if ev.Item == nil {
		return ErrMoved
	}
	switch ev.Operation {
	case Cancel, Skip:
		// It ended when it failed. What is closed is the question what to do about it.
		p.change.Resolved = append(p.change.Resolved, ev.Touchpoint)
		if ev.Operation == Cancel {
			p.cancelRest(ev.Item)
		}
		return nil
	case Confirm:
		return refuse("it failed: provably it did not happen. If it was made by hand at the provider, `lodestone cancel --step-only` closes the question")
	}
	kept := ev.Item.Enrollment
	if kept == nil || kept.Touchpoint == nil {
		return refuse("it failed under an earlier version of lodestone, which did not keep what trying again needs; `lodestone cancel` closes the question")
	}
	t := *kept.Touchpoint
	t.State, t.Reason, t.DueAt, t.Delays = lodestone.TouchpointScheduled, lodestone.ReasonReopened, p.now, 0
	t.Forgiven = t.Attempts
	t.Intended, t.GivenUp, t.Lookups, t.Parameters, t.Hidden = time.Time{}, time.Time{}, 0, nil, nil

	i := slices.IndexFunc(p.lead.Enrollments, func(e lodestone.Enrollment) bool { return e.ID == kept.ID })
	active := p.lead.Active()
	switch {
	case i >= 0 && p.lead.Enrollments[i].State == lodestone.EnrollmentActive:
		e := &p.lead.Enrollments[i]
		_, s := p.book.Sequence(e)
		if s == nil {
			return refuse("%s", p.book.Missing(e))
		}
		def := s.Find(e.Variant, t.Step)
		if def == nil {
			return refuse("its enrollment was moved to version %s of %s since, which has no step %s; `lodestone cancel --step-only` closes the question", e.Version, e.Sequence, t.Step)
		}
		act := def.Of(t.Variant) // it did not happen, so it may be another operation by now
		t.Connector, t.Operation = act.Connector, act.Operation
		switch {
		case e.Parked != nil:
			return refuse("another step of the same enrollment, %s, is being tried again; wait for its end", e.Touchpoint.Step)
		case e.Touchpoint == nil:
		case e.Touchpoint.State != lodestone.TouchpointScheduled:
			return refuse("a later step of the same enrollment, %s, is %s; settle that one first", e.Touchpoint.Step, e.Touchpoint.State)
		default:
			e.Parked = e.Touchpoint
		}
		e.Touchpoint = &t
		p.note(e, &t, t.Reason).Attempt = t.Attempts
	case i >= 0:
		return refuse("its enrollment ended (%s), so nothing of it is sent any more; `lodestone cancel` closes the question", p.lead.Enrollments[i].State)
	default:
		state := lodestone.EnrollmentState("")
		for _, past := range p.lead.Past {
			if past.ID == kept.ID {
				state = past.State
			}
		}
		switch {
		case state != lodestone.EnrollmentCompleted:
			return refuse("its enrollment ended (%s), so nothing of it is sent any more; `lodestone cancel` closes the question", orWord(string(state), "and another one followed"))
		case active != nil:
			return refuse("the lead is in sequence %s by now, and a lead is in one at a time; `lodestone cancel` closes the question", active.Sequence)
		}
		e := *kept
		_, s := p.book.Sequence(&e)
		if s == nil {
			return refuse("%s", p.book.Missing(&e))
		}
		e.State, e.EndedAt, e.Touchpoint, e.Parked = lodestone.EnrollmentActive, time.Time{}, &t, nil
		// Every other step has been taken since, and a step is taken once.
		e.Done = slices.Clone(e.Done)
		for _, step := range s.StepsOf(e.Variant) {
			if step.Name != t.Step {
				e.Done = append(e.Done, step.Name)
			}
		}
		p.lead.Enrollments = append(p.lead.Enrollments, e)
		p.entry.Enrollments = append(p.entry.Enrollments, lodestone.EnrollmentEntry{
			ID: e.ID, Sequence: e.Sequence, Version: e.Version, Variant: e.Variant, State: e.State, Reason: lodestone.ReasonReopened,
		})
		p.note(&p.lead.Enrollments[len(p.lead.Enrollments)-1], &t, t.Reason).Attempt = t.Attempts
	}
	p.change.Resolved = append(p.change.Resolved, t.ID)
	return nil
}

// cancelRest ends the enrollment of a touchpoint that failed, when it still runs.
func (p *planner) cancelRest(item *lodestone.Attention) {
	for i := range p.lead.Enrollments {
		e := &p.lead.Enrollments[i]
		if item.Enrollment != nil && e.ID == item.Enrollment.ID && e.State == lodestone.EnrollmentActive {
			p.end(e, lodestone.EnrollmentCancelled, lodestone.ReasonCancelled, p.now)
			return
		}
	}
}

// keepFailed keeps with the newest attention item where a touchpoint stood that failed.
func (p *planner) keepFailed(e *lodestone.Enrollment, t *lodestone.Touchpoint) {
	kept, failed := *e, *t
	kept.Touchpoint, kept.Parked = &failed, nil
	p.change.Attention[len(p.change.Attention)-1].Enrollment = &kept
}

// unpark lets the step go on that stood aside for an earlier one.
func (p *planner) unpark(e *lodestone.Enrollment) {
	t := *e.Parked
	if e.Awaits != nil && p.held(e, t.Step) { // the step before it has asked anew
		p.wait(e, &t)
	}
	if t.DueAt.Before(p.now) {
		t.DueAt = p.now
	}
	e.Touchpoint, e.Parked = &t, nil
}

func orWord(word, otherwise string) string {
	if word == "" {
		return otherwise
	}
	return word
}
