package scheduler

import (
	"fmt"
	"slices"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/rules/clock"
	"github.com/lodestonehq/lodestone/scoring"
	"github.com/lodestonehq/lodestone/sequencer"
)

// The gate stands in front of every outward act. Its checks are made in the order of
// [lodestone.Checks] and the first that objects decides; everything it looked at is stored with the
// verdict. It is passed twice: once before the provider is asked, and its local part again inside
// the transaction that stores the intent, so that what was known before the act began cannot be
// missed.

// objection is what the gate decides when it does not let a touchpoint pass.
type objection struct {
	to       lodestone.TouchpointState
	reason   lodestone.Reason
	until    time.Time // for deferrals: when to ask again
	ends     lodestone.EnrollmentState
	suppress *lodestone.Suppression
	detail   string
	alert    bool // ask for a human as well
}

// Passage is one touchpoint on its way through the gate.
type Passage struct {
	lead        *lodestone.Lead
	suppression *lodestone.Suppression
	e           *lodestone.Enrollment
	t           *lodestone.Touchpoint
	book        *sequencer.Rulebook
	set         *rules.Set
	seq         *rules.Sequence
	caps        []rules.Cap
	paused      func(scope string) (Pause, bool)
	now         time.Time
	verdicts    []lodestone.Verdict
	asked       int      // how many of the verdicts, at the end, came from outside
	named       string   // what the provider said of the ids in what is sent; empty: it was not asked
	cleared     *Sending // what is sent, where it was
	stop        *objection
}

func (p *Passage) pass(c lodestone.Check, evidence string) {
	p.verdicts = append(p.verdicts, lodestone.Verdict{Check: c, OK: true, Evidence: evidence})
}

func (p *Passage) object(c lodestone.Check, evidence string, o objection) {
	p.verdicts = append(p.verdicts, lodestone.Verdict{Check: c, Reason: o.reason, Evidence: evidence})
	o.detail = evidence
	p.stop = &o
}

// Local makes the checks that need nothing from outside. It is pure: whoever wants to know whether a
// touchpoint would pass at a moment, the worker, a test or an explanation, asks here. st is what the store holds;
// e and t are the enrollment and the touchpoint of its lead; paused answers what is paused now, and
// nil means nothing is.
func Local(st sequencer.State, e *lodestone.Enrollment, t *lodestone.Touchpoint, book *sequencer.Rulebook, paused func(scope string) (Pause, bool), now time.Time) *Passage {
	p := &Passage{
		lead: st.Lead, e: e, t: t, now: now, suppression: st.Suppression, book: book, paused: paused,
		verdicts: make([]lodestone.Verdict, 0, len(lodestone.Checks)),
	}
	p.set, p.seq = book.Sequence(e)
	p.caps = book.Current().Caps // of today, whatever version the enrollment runs on: they are about the lead
	for _, check := range []func(){
		p.checkPaused, p.checkEnrollment, p.checkConfirmation, p.checkCondition, p.checkGrace, p.checkWindow, p.checkSuppression, p.checkConsent,
		p.checkCap,
	} {
		if check(); p.stop != nil {
			break
		}
	}
	return p
}

func (p *Passage) checkPaused() {
	for _, scope := range []string{"all", "connector " + p.t.Connector, "sequence " + p.e.Sequence} {
		if p.paused == nil {
			break
		}
		if pause, ok := p.paused(scope); ok {
			p.object(lodestone.CheckPaused, pause.Words(scope), objection{
				to: lodestone.TouchpointScheduled, reason: lodestone.ReasonPaused, until: p.now.Add(pausedFor(p.now.Sub(pause.At))),
			})
			return
		}
	}
	p.pass(lodestone.CheckPaused, "")
	// A lead that was erased has no record, and what has no record never comes this far.
	p.pass(lodestone.CheckErased, "")
}

// How often a paused touchpoint is looked at again: the longer the pause, the more seldom, so that very many
// that wait for long write little. `resume` does not wait for it: it makes what was paused due, and what it
// does not reach waits for half as long again as it was paused, at most.
const (
	leastPaused = 5 * time.Minute
	MostPaused  = time.Hour
)

// pausedFor is how long to put off what has been paused for so long.
func pausedFor(long time.Duration) time.Duration { return min(max(long/2, leastPaused), MostPaused) }

// noDefinitionRetry is how often a touchpoint is looked at again whose sequence's version cannot be used.
const noDefinitionRetry = 15 * time.Minute

func (p *Passage) checkEnrollment() {
	if p.e.State != lodestone.EnrollmentActive {
		p.object(lodestone.CheckEnrollment, "the enrollment ended: "+string(p.e.State), objection{
			to: lodestone.TouchpointCancelled, reason: lodestone.ReasonExited,
		})
		return
	}
	if p.seq == nil {
		p.object(lodestone.CheckEnrollment, p.book.Missing(p.e), objection{
			to: lodestone.TouchpointScheduled, reason: lodestone.ReasonNoDefinition, until: p.now.Add(noDefinitionRetry),
			alert: p.t.Reason != lodestone.ReasonNoDefinition,
		})
		return
	}
	if p.seq.Exit == nil {
		p.checkHoldout()
		return
	}
	out, what, err := p.evalBool(p.seq.Exit)
	switch {
	case err != nil:
		// It cannot be known whether the lead should still be contacted, so it is not.
		p.object(lodestone.CheckEnrollment, "the exit condition failed: "+err.Error(), objection{
			to: lodestone.TouchpointCancelled, reason: lodestone.ReasonExited, ends: lodestone.EnrollmentExited,
		})
	case out:
		state, reason := sequencer.ExitState(p.lead, p.e, false)
		p.object(lodestone.CheckEnrollment, "exit is true: "+what, objection{
			to: lodestone.TouchpointCancelled, reason: reason, ends: state,
		})
	default:
		p.checkHoldout()
	}
}

// checkHoldout has the last word on the enrollment: one of the holdout goes its way, and nobody is
// contacted.
func (p *Passage) checkHoldout() {
	switch p.e.Variant {
	case rules.VariantHoldout:
		p.object(lodestone.CheckEnrollment, "the lead is in the holdout of "+p.e.Sequence+": enrolled, and never contacted", objection{
			to: lodestone.TouchpointSkipped, reason: lodestone.ReasonHoldout,
		})
	case "":
		p.pass(lodestone.CheckEnrollment, "")
	default:
		p.pass(lodestone.CheckEnrollment, "variant "+p.e.Variant)
	}
}

// checkConfirmation lets what waits for a confirmation wait, and asks nobody for one who has given it.
func (p *Passage) checkConfirmation() {
	step := p.step()
	asks := step != nil && step.Confirm > 0
	held := sequencer.Held(p.seq, p.e, p.t.Step)
	if !asks && !held {
		return // it has nothing to do with confirmations
	}
	at, confirmed := p.lead.Confirmed()
	w := p.e.Awaits
	switch {
	case confirmed && asks:
		p.object(lodestone.CheckConfirmation, "the address was confirmed at "+moment(at)+", so nobody is asked again", objection{
			to: lodestone.TouchpointSkipped, reason: lodestone.ReasonAlreadyConfirmed,
		})
	case confirmed && step != nil: // while the definition was away, which says from when on it may happen
		p.object(lodestone.CheckConfirmation, "the address was confirmed at "+moment(at), objection{
			to: lodestone.TouchpointScheduled, reason: lodestone.ReasonAddressConfirmed, until: sequencer.Confirmed(p.seq, step, p.lead, p.e),
		})
	case confirmed:
		p.pass(lodestone.CheckConfirmation, "the address was confirmed at "+moment(at))
	case w != nil && p.suppression != nil && (held || !p.now.Before(w.Until)):
		p.checkSuppression() // there is nothing left to wait for: that they opted out is why it ends
	case w != nil && !p.now.Before(w.Until):
		p.object(lodestone.CheckConfirmation, fmt.Sprintf("the sequence waits for a confirmation of the address since %s ended at %s, and there was none until %s", asker(w), moment(w.Since), moment(w.Until)), objection{
			to: lodestone.TouchpointCancelled, reason: lodestone.ReasonUnconfirmed, ends: lodestone.EnrollmentExited,
		})
	case held:
		p.object(lodestone.CheckConfirmation, fmt.Sprintf("it waits until the address is confirmed, since %s ended at %s; at %s the sequence ends without", asker(w), moment(w.Since), moment(w.Until)), objection{
			to: lodestone.TouchpointScheduled, reason: lodestone.ReasonAwaiting, until: w.Until,
		})
	default:
		p.pass(lodestone.CheckConfirmation, "the address is not confirmed so far; what follows waits for it, at most "+rules.FormatDuration(step.Confirm))
	}
}

// asker names the step that was to ask for a confirmation; whether it did is its own touchpoint's to say.
func asker(w *lodestone.Awaits) string {
	if w.Step == "" {
		return "a step of an earlier version"
	}
	return "step " + w.Step
}

func (p *Passage) step() *rules.Step {
	if s := p.seq.Find(p.e.Variant, p.t.Step); s != nil {
		return s.Of(p.t.Variant)
	}
	return nil
}

func (p *Passage) checkCondition() {
	step := p.step()
	if step == nil || step.When == nil {
		p.pass(lodestone.CheckCondition, "")
		return
	}
	ok, what, err := p.evalBool(step.When)
	skip := objection{to: lodestone.TouchpointSkipped, reason: lodestone.ReasonConditionFalse}
	switch {
	case err != nil:
		if step.Confirm > 0 {
			// A condition that is false says that the lead need not be asked. This one says nothing.
			skip.reason = lodestone.ReasonConditionFault
		}
		p.object(lodestone.CheckCondition, "when failed, which counts as false: "+err.Error(), skip)
	case !ok:
		p.object(lodestone.CheckCondition, "when is false: "+what, skip)
	default:
		p.pass(lodestone.CheckCondition, "when is true: "+what)
	}
}

func (p *Passage) checkGrace() {
	step := p.step()
	if step == nil || step.Grace == 0 {
		p.pass(lodestone.CheckGrace, "none: it is never too late")
		return
	}
	last := p.t.PlannedAt.Add(step.Grace)
	if p.now.After(last) {
		p.object(lodestone.CheckGrace, fmt.Sprintf("it was to happen at %s and by %s at the latest", moment(p.t.PlannedAt), moment(last)), objection{
			to: lodestone.TouchpointSkipped, reason: lodestone.ReasonStale,
		})
		return
	}
	p.pass(lodestone.CheckGrace, "in time until "+moment(last))
}

func (p *Passage) checkWindow() {
	w, loc := p.window()
	if w == nil {
		p.pass(lodestone.CheckWindow, "none: at any hour")
		return
	}
	shown := fmt.Sprintf("%s in %s", p.now.In(loc).Format("Mon 15:04"), loc)
	if !w.Contains(p.now, loc) {
		p.object(lodestone.CheckWindow, fmt.Sprintf("it is %s, outside %s", shown, w), objection{
			to: lodestone.TouchpointScheduled, reason: lodestone.ReasonOutsideWindow, until: w.First(p.now, loc),
		})
		return
	}
	p.pass(lodestone.CheckWindow, fmt.Sprintf("it is %s, inside %s", shown, w))
}

// window is what the step keeps to, by the zone as it is known now; nil for none.
func (p *Passage) window() (*clock.Window, *time.Location) {
	loc := sequencer.ZoneOf(p.seq, p.lead)
	if step := p.step(); step != nil {
		return p.seq.WindowOf(step), loc
	}
	return nil, loc
}

// moment writes a time as evidence.
func moment(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func (p *Passage) checkSuppression() {
	if x := p.suppression; x != nil {
		p.object(lodestone.CheckSuppression, fmt.Sprintf("suppressed since %s by %s: %s", x.At.Format(time.RFC3339), x.Source, x.Reason), objection{
			to: lodestone.TouchpointSkipped, reason: lodestone.ReasonSuppressed, ends: lodestone.EnrollmentSuppressed,
		})
		return
	}
	p.pass(lodestone.CheckSuppression, "not on the suppression list")
}

func (p *Passage) checkConsent() {
	c := p.lead.Consent
	switch {
	case !p.seq.ConsentRequired:
		p.pass(lodestone.CheckConsent, "not required")
	case c == nil:
		p.object(lodestone.CheckConsent, "required, and none is on record", objection{to: lodestone.TouchpointSkipped, reason: lodestone.ReasonNoConsent})
	case !c.Marketing:
		p.object(lodestone.CheckConsent, "required, and refused at "+c.At.Format(time.RFC3339), objection{to: lodestone.TouchpointSkipped, reason: lodestone.ReasonNoConsent})
	case p.seq.ConsentConfirmed:
		p.checkConfirmedConsent("given at " + c.At.Format(time.RFC3339))
	default:
		p.pass(lodestone.CheckConsent, "given at "+c.At.Format(time.RFC3339))
	}
}

// checkConfirmedConsent lets pass what was confirmed, and the question for it.
func (p *Passage) checkConfirmedConsent(given string) {
	at, confirmed := p.lead.Confirmed()
	step := p.step()
	switch {
	case confirmed:
		p.pass(lodestone.CheckConsent, given+", confirmed at "+moment(at))
	case step != nil && step.Confirm > 0:
		p.pass(lodestone.CheckConsent, given+", and this step asks for the confirmation")
	default:
		p.object(lodestone.CheckConsent, given+" and not confirmed, as this sequence wants it", objection{to: lodestone.TouchpointSkipped, reason: lodestone.ReasonNoConsent})
	}
}

func (p *Passage) checkCap() {
	if len(p.caps) == 0 {
		p.pass(lodestone.CheckCap, "none")
		return
	}
	free, full := sequencer.FreeSlot(p.lead.Contacts, p.caps, p.now)
	if full == nil {
		p.pass(lodestone.CheckCap, "fewer than each of them allows")
		return
	}
	w, loc := p.window()
	if w != nil {
		free = w.First(free, loc)
	}
	said := fmt.Sprintf("it had %d in %s already; the next may go out at %s", full.Max, rules.FormatDuration(full.Per), moment(free))
	if step := p.step(); step != nil && step.Grace > 0 && free.After(p.t.PlannedAt.Add(step.Grace)) {
		p.object(lodestone.CheckCap, said+", past its grace", objection{to: lodestone.TouchpointSkipped, reason: lodestone.ReasonStale})
		return
	}
	p.object(lodestone.CheckCap, said, objection{to: lodestone.TouchpointScheduled, reason: lodestone.ReasonCapped, until: free})
}

// evalBool evaluates a condition over the enrollment as it is now. what puts into words what decided: the
// part that is not true, or the whole condition, and the values that it met.
func (p *Passage) evalBool(prog *scoring.Program) (ok bool, what string, err error) {
	ev := p.set.Schema.Evaluator()
	defer ev.Release()
	ev.Bind(sequencer.EnrollmentFacts(p.lead, p.e, p.set, p.now))
	failed, err := ev.Holds(prog)
	if err != nil {
		return false, "", err
	}
	what = prog.Source()
	parts := prog.Parts()
	if failed >= 0 {
		what, parts = parts[failed].Text, parts[failed:failed+1]
	}
	var values []scoring.NamedValue
	for _, part := range parts {
		for _, v := range ev.Met(part) {
			if !slices.Contains(values, v) {
				values = append(values, v)
			}
		}
	}
	if d := scoring.Describe(values); d != "" {
		what += " (" + d + ")"
	}
	return failed < 0, what, nil
}

// Objection returns the event that carries out what the gate objected; ok is false when it let the
// touchpoint pass.
func (p *Passage) Objection() (m sequencer.Moved, ok bool) {
	if p.stop == nil {
		return sequencer.Moved{}, false
	}
	return p.moved(), true
}

// Verdicts are the answers so far, in the order of the checks.
func (p *Passage) Verdicts() []lodestone.Verdict { return p.verdicts }

// moved turns an objection into the event that carries it out.
func (p *Passage) moved() sequencer.Moved {
	o := p.stop
	return sequencer.Moved{
		Touchpoint: p.t.ID, From: lodestone.TouchpointScheduled, To: o.to, Reason: o.reason, DueAt: o.until,
		Ends: o.ends, Suppress: o.suppress, Verdicts: p.verdicts, Detail: o.detail, Alert: o.alert,
	}
}
