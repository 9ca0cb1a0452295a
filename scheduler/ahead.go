package scheduler

import (
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/sequencer"
)

// Coming is a touchpoint that is still to happen, as far as can be said on what is known today.
type Coming struct {
	ID, Enrollment, Sequence, Step, Operation string

	State lodestone.TouchpointState // scheduled for those that are not planned yet
	At    time.Time                 // the earliest moment; it may be later, and the ones after it with it

	// Awaits is until when it waits for the lead to confirm the address; zero: it does not. At is then what it
	// would be if that happened at once, and what follows counts from there.
	Awaits time.Time

	// Objections are what the gate would say against it, deferrals that lead to At included. The connector
	// and the provider are not asked.
	Objections []lodestone.Verdict
	Outcome    lodestone.TouchpointState // what would become of it: sent, or skipped, cancelled or failed by the last objection
	Ends       lodestone.EnrollmentState // the enrollment would end with it; empty: it goes on or is completed
}

// maxDeferrals bounds how often one touchpoint is put off in [Ahead].
const maxDeferrals = 100

// Ahead follows the active enrollment to its end: it lets every step happen at its earliest moment, asks
// [Local] and has [sequencer.Plan] plan the next, so that what it says is what the worker would do if nothing
// else came. operation finds what a step calls, for what it needs; nil leaves that out. It is pure.
func Ahead(st sequencer.State, book *sequencer.Rulebook, paused func(scope string) (Pause, bool), operation func(connector, operation string) (lodestone.Operation, bool), now time.Time) []Coming {
	if st.Lead == nil || book == nil {
		return nil
	}
	var list []Coming
	a := ahead{st: st, book: book, paused: paused, operation: operation}
	seen := map[string]bool{}
	for {
		e := a.st.Lead.Active()
		if e == nil || e.Touchpoint == nil || seen[e.Touchpoint.ID] {
			return list
		}
		seen[e.Touchpoint.ID] = true
		c, ok := a.step(e, now)
		list = append(list, c)
		if !ok {
			return list
		}
		now = c.At
	}
}

type ahead struct {
	st        sequencer.State
	book      *sequencer.Rulebook
	paused    func(string) (Pause, bool)
	operation func(connector, operation string) (lodestone.Operation, bool)
}

// step lets the pending touchpoint of an enrollment happen. ok is false when nothing can be said of what
// follows.
func (a *ahead) step(e *lodestone.Enrollment, now time.Time) (c Coming, ok bool) {
	t := e.Touchpoint
	c = Coming{
		ID: t.ID, Enrollment: e.ID, Sequence: e.Sequence, Step: t.Step, Operation: t.Connector + "." + t.Operation,
		State: t.State, At: now, Outcome: lodestone.TouchpointSent,
	}
	if t.DueAt.After(now) {
		c.At = t.DueAt
	}
	if t.State != lodestone.TouchpointScheduled {
		// The call is out, or its outcome is open: that it was done is the earliest that the next can follow.
		c.At = now
		return c, a.moved(sequencer.Moved{Touchpoint: t.ID, From: t.State, To: lodestone.TouchpointSent}, now)
	}
	if sequencer.Held(a.book.Definition(e), e, t.Step) {
		c.At = now // its time is the deadline, and it may be confirmed at any moment before
	}
	paused := a.paused
	for range maxDeferrals {
		p := Local(a.st, e, t, a.book, paused, c.At)
		m, objects := p.Objection()
		if !objects {
			if missing := a.missing(p, t); missing != "" {
				c.Objections = append(c.Objections, lodestone.Verdict{Check: CheckParameters, Reason: lodestone.ReasonBadParameters, Evidence: missing})
				c.Outcome = lodestone.TouchpointFailed
				return c, a.moved(sequencer.Moved{Touchpoint: t.ID, From: t.State, To: lodestone.TouchpointFailed, Reason: lodestone.ReasonBadParameters}, c.At)
			}
			return c, a.moved(sequencer.Moved{Touchpoint: t.ID, From: t.State, To: lodestone.TouchpointIntended}, c.At) &&
				a.moved(sequencer.Moved{Touchpoint: t.ID, From: lodestone.TouchpointIntended, To: lodestone.TouchpointSent}, c.At)
		}
		c.Objections = append(c.Objections, m.Verdicts[len(m.Verdicts)-1])
		switch {
		case m.Reason == lodestone.ReasonAwaiting:
			c.Awaits = e.Awaits.Until
			if e, t = a.confirm(t.ID, c.At); t == nil {
				return c, false
			}
			if t.DueAt.After(c.At) {
				c.At = t.DueAt
			}
		case m.Reason == lodestone.ReasonPaused:
			paused = nil // nobody knows until when; what else stands against it counts as well
		case m.To == lodestone.TouchpointScheduled && m.DueAt.After(c.At):
			c.At = m.DueAt
		case m.To == lodestone.TouchpointScheduled:
			return c, false
		default:
			c.Outcome, c.Ends = m.To, m.Ends
			return c, a.moved(m, c.At)
		}
	}
	return c, false
}

// confirm lets the lead confirm the address, and returns where the touchpoint that waited for it stands then; nil
// when that cannot be said.
func (a *ahead) confirm(touchpoint string, at time.Time) (*lodestone.Enrollment, *lodestone.Touchpoint) {
	change, err := sequencer.Plan(a.st.Lead, sequencer.Signalled{Signal: lodestone.Signal{
		ID: "ahead " + touchpoint, Kind: lodestone.SignalConfirmed, Email: a.st.Lead.Email, At: at, Received: at,
	}}, a.book, at)
	if err != nil {
		return nil, nil
	}
	a.st.Lead = change.Lead
	return a.st.Lead.Touchpoint(touchpoint)
}

// CheckParameters names, beside the checks of the gate, that what a step needs is there.
const CheckParameters lodestone.Check = "parameters"

func (a *ahead) missing(p *Passage, t *lodestone.Touchpoint) string {
	if a.operation == nil {
		return ""
	}
	op, ok := a.operation(t.Connector, t.Operation)
	if !ok {
		return ""
	}
	_, missing := p.Parameters(op)
	return missing
}

func (a *ahead) moved(m sequencer.Moved, at time.Time) bool {
	change, err := sequencer.Plan(a.st.Lead, m, a.book, at)
	if err != nil {
		return false
	}
	a.st.Lead = change.Lead
	return true
}
