package sequencer

import (
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/rules"
)

// A step with `confirm` asks the lead to confirm the address, and what follows it waits:
//
//	asking step ends ──▶ next touchpoint: scheduled for the deadline, awaiting_confirmation
//	                         ├──the address is confirmed──▶ its own time, counted from then
//	                         ├──the lead opts out──▶ skipped at once, the enrollment ends: suppressed
//	                         └──the deadline──▶ cancelled, the enrollment exited: unconfirmed
//
// It waits whatever became of the asking step, because without a confirmation nobody knows whose address it
// is: a message that failed or was skipped as stale asked nobody, but a link of an earlier one may still be
// used. Only where the rules do not want the lead asked, the step's `when` or the holdout, nothing waits.

// asked begins the wait when a step that asks for a confirmation has ended.
func (p *planner) asked(e *lodestone.Enrollment, t *lodestone.Touchpoint) {
	if e.State != lodestone.EnrollmentActive || p.book == nil {
		return
	}
	_, s := p.book.Sequence(e)
	if s == nil {
		return
	}
	def := s.Find(e.Variant, t.Step)
	if def == nil || def.Confirm == 0 {
		return
	}
	switch t.Reason {
	case lodestone.ReasonConditionFalse, lodestone.ReasonHoldout:
		return // an earlier step's wait stays as it is
	}
	if _, ok := p.lead.Confirmed(); ok {
		e.Awaits = nil
		return
	}
	e.Awaits = &lodestone.Awaits{Step: t.Step, Since: p.now, Until: s.ConfirmBy(def, p.now)}
}

// await lets the touchpoint that was just planned wait for the confirmation; awaits is false when it has not
// to. A step that asks again keeps its own time, but is not later than the deadline.
func (p *planner) await(e *lodestone.Enrollment, def *rules.Step) (awaits bool) {
	if e.Awaits == nil {
		return false
	}
	t := e.Touchpoint
	if def.Confirm > 0 {
		if t.DueAt.After(e.Awaits.Until) {
			t.DueAt = e.Awaits.Until
		}
		return false
	}
	p.wait(e, t)
	return true
}

// wait has a touchpoint wait for the confirmation until the deadline. Where the lead may have opted out since the
// enrollment began, while the question was on its way say, the gate looks at once: it knows.
func (p *planner) wait(e *lodestone.Enrollment, t *lodestone.Touchpoint) {
	t.PlannedAt, t.DueAt, t.Reason = e.Awaits.Until, e.Awaits.Until, lodestone.ReasonAwaiting
	for _, kind := range []lodestone.SignalKind{lodestone.SignalUnsubscribed, lodestone.SignalComplained, lodestone.SignalBounced} {
		if at, ok := p.lead.Signals[string(kind)]; ok && !at.Before(e.StartedAt) && p.now.Before(t.DueAt) {
			t.DueAt = p.now
		}
	}
}

// optedOut has the gate look at once at what waits for a confirmation: nobody waits for one of a person who opted
// out, and the gate's word on it stands on record.
func (p *planner) optedOut() {
	e := p.lead.Active()
	if e == nil || e.Awaits == nil || p.book == nil {
		return
	}
	t := e.Touchpoint
	if t == nil || t.State != lodestone.TouchpointScheduled || !p.held(e, t.Step) || t.DueAt.Before(p.now) {
		return
	}
	now := *t
	now.DueAt = p.now
	e.Touchpoint = &now
}

// held reports whether a step of an enrollment waits for the confirmation that another one asked for.
func (p *planner) held(e *lodestone.Enrollment, step string) bool {
	return Held(p.book.Definition(e), e, step)
}

// Held reports whether a step of an enrollment waits for the confirmation that another one asked for. Without
// the definition, which is s, it does.
func Held(s *rules.Sequence, e *lodestone.Enrollment, step string) bool {
	if e.Awaits == nil {
		return false
	}
	if s == nil {
		return true
	}
	def := s.Find(e.Variant, step)
	return def == nil || def.Confirm == 0 && s.Follows(e.Variant, step, e.Awaits.Step)
}

// confirmed lets the active enrollment go on when the lead has confirmed the address: what waited for it gets
// its time, counted from the confirmation, and a question that was not sent yet is not asked any more.
func (p *planner) confirmed() {
	e := p.lead.Active()
	if e == nil || p.book == nil {
		return
	}
	if _, ok := p.lead.Confirmed(); !ok {
		return
	}
	_, s := p.book.Sequence(e)
	if s == nil {
		return // the gate sees to it when the definition is there again
	}
	if t := e.Parked; t != nil && Held(s, e, t.Step) {
		e.Parked = p.retimed(e, s, t)
	} else if t := e.Touchpoint; t != nil && t.State == lodestone.TouchpointScheduled && Held(s, e, t.Step) {
		e.Touchpoint = p.retimed(e, s, t)
	}
	e.Awaits = nil
	t := e.Touchpoint
	if t == nil || t.State != lodestone.TouchpointScheduled {
		return
	}
	if def := s.Find(e.Variant, t.Step); def == nil || def.Confirm == 0 {
		return
	}
	skipped := *t
	skipped.State, skipped.Reason = lodestone.TouchpointSkipped, lodestone.ReasonAlreadyConfirmed
	if t.Reason == lodestone.ReasonNoDefinition {
		p.change.Resolved = append(p.change.Resolved, t.ID)
	}
	p.note(e, &skipped, skipped.Reason)
	e.Touchpoint = nil
	p.advance(e, "", skipped.Reason)
}

// retimed gives a touchpoint that waited for the confirmation its own time.
func (p *planner) retimed(e *lodestone.Enrollment, s *rules.Sequence, waited *lodestone.Touchpoint) *lodestone.Touchpoint {
	t := *waited
	if t.Reason == lodestone.ReasonNoDefinition {
		p.change.Resolved = append(p.change.Resolved, t.ID)
	}
	t.DueAt = p.now
	if def := s.Find(e.Variant, t.Step); def != nil {
		t.DueAt = Confirmed(s, def, p.lead, e)
	}
	t.PlannedAt, t.Reason, t.Delays = t.DueAt, lodestone.ReasonAddressConfirmed, 0
	p.note(e, &t, t.Reason)
	return &t
}

// Confirmed is when a step that waited for a confirmation may happen: its own wait, cron line and window count
// from the confirmation, or from when it was asked for where that was later.
func Confirmed(s *rules.Sequence, def *rules.Step, l *lodestone.Lead, e *lodestone.Enrollment) time.Time {
	from, _ := l.Confirmed()
	if e.Awaits != nil && e.Awaits.Since.After(from) {
		from = e.Awaits.Since
	}
	return s.At(def, from, ZoneOf(s, l))
}

// overtaken reports whether what the gate said about a confirmation is true no more: it came, or was taken
// back, since the gate looked.
func (p *planner) overtaken(e *lodestone.Enrollment, said lodestone.Reason) bool {
	_, confirmed := p.lead.Confirmed()
	switch said {
	case lodestone.ReasonAwaiting, lodestone.ReasonUnconfirmed:
		return e.Awaits == nil || confirmed
	case lodestone.ReasonAlreadyConfirmed, lodestone.ReasonAddressConfirmed:
		return !confirmed
	}
	return false
}

// migratedAwait brings the wait of an enrollment that was moved to another version in line with the step that
// is pending there. The wait itself stays, whatever that version says of the step that asked: who dropped the
// question has not been answered by it. awaits tells whether the touchpoint waits.
func (p *planner) migratedAwait(e *lodestone.Enrollment, t *lodestone.Touchpoint, target *rules.Sequence) (awaits bool) {
	if e.Awaits == nil || t.State != lodestone.TouchpointScheduled {
		return false
	}
	def := target.Find(e.Variant, t.Step)
	switch {
	case def != nil && def.Confirm > 0: // it asks anew
		t.DueAt = target.At(def, p.now, ZoneOf(target, p.lead))
		t.PlannedAt, t.Reason = t.DueAt, lodestone.ReasonMigrated
		e.Awaits = nil
		return false
	default:
		if !Held(target, e, t.Step) { // that version asks after it
			w := *e.Awaits
			w.Step = ""
			e.Awaits = &w
		}
		p.wait(e, t)
		if was := e.Touchpoint; was.Reason == lodestone.ReasonAwaiting && was.DueAt.Before(t.DueAt) {
			t.DueAt = was.DueAt // they opted out, and the gate has not looked yet
		}
		return true
	}
}
