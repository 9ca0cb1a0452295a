package scheduler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/rules"
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
}

// passage is one touchpoint on its way through the gate.
type passage struct {
	lead     *lodestone.Lead
	e        *lodestone.Enrollment
	t        *lodestone.Touchpoint
	set      *rules.Set
	seq      *rules.Sequence
	now      time.Time
	verdicts []lodestone.Verdict
	asked    int // how many of the verdicts, at the end, came from outside
	stop     *objection
}

func (p *passage) pass(c lodestone.Check, evidence string) {
	p.verdicts = append(p.verdicts, lodestone.Verdict{Check: c, OK: true, Evidence: evidence})
}

func (p *passage) object(c lodestone.Check, evidence string, o objection) {
	p.verdicts = append(p.verdicts, lodestone.Verdict{Check: c, Reason: o.reason, Evidence: evidence})
	o.detail = evidence
	p.stop = &o
}

// local makes the checks that need nothing from outside. State is what the store holds now; the
// touchpoint is scheduled and belongs to the lead.
func (s *Scheduler) local(st sequencer.State, e *lodestone.Enrollment, t *lodestone.Touchpoint, book *sequencer.Rulebook, now time.Time) *passage {
	p := &passage{lead: st.Lead, e: e, t: t, now: now}
	p.set, p.seq = book.Sequence(e)
	for _, check := range []func(sequencer.State){
		s.checkPaused(p), p.checkEnrollment, p.checkCondition, p.checkSuppression, p.checkConsent,
		// Later checks have their place here: grace and window after the condition, the frequency
		// cap after the consent (lodestone.Checks).
	} {
		if check(st); p.stop != nil {
			break
		}
	}
	return p
}

func (s *Scheduler) checkPaused(p *passage) func(sequencer.State) {
	return func(sequencer.State) {
		for _, scope := range []string{"all", "connector " + p.t.Connector, "sequence " + p.e.Sequence} {
			if pause, ok := s.paused(scope); ok {
				p.object(lodestone.CheckPaused, fmt.Sprintf("%s is paused since %s", scope, pause.At.Format(time.RFC3339)), objection{
					to: lodestone.TouchpointScheduled, reason: lodestone.ReasonPaused, until: p.now.Add(pausedRetry),
				})
				return
			}
		}
		p.pass(lodestone.CheckPaused, "")
		// A lead that was erased has no record, and what has no record never comes this far.
		p.pass(lodestone.CheckErased, "")
	}
}

// pausedRetry is how often a paused touchpoint is looked at again, and so how late it may be after
// `resume`.
const pausedRetry = 15 * time.Second

func (p *passage) checkEnrollment(sequencer.State) {
	if p.e.State != lodestone.EnrollmentActive {
		p.object(lodestone.CheckEnrollment, "the enrollment ended: "+string(p.e.State), objection{
			to: lodestone.TouchpointCancelled, reason: lodestone.ReasonExited,
		})
		return
	}
	if p.seq == nil {
		p.object(lodestone.CheckEnrollment, fmt.Sprintf("version %s of sequence %s is not in the store", p.e.Version, p.e.Sequence), objection{
			to: lodestone.TouchpointCancelled, reason: lodestone.ReasonNoDefinition, ends: lodestone.EnrollmentCancelled,
		})
		return
	}
	if p.seq.Exit == nil {
		p.pass(lodestone.CheckEnrollment, "")
		return
	}
	out, err := p.evalBool(p.seq.Exit)
	switch {
	case err != nil:
		// It cannot be known whether the lead should still be contacted, so it is not.
		p.object(lodestone.CheckEnrollment, "the exit condition failed: "+err.Error(), objection{
			to: lodestone.TouchpointCancelled, reason: lodestone.ReasonExited, ends: lodestone.EnrollmentExited,
		})
	case out:
		state, reason := sequencer.ExitState(p.lead, p.e, false)
		p.object(lodestone.CheckEnrollment, "exit is true: "+p.seq.Exit.Source(), objection{
			to: lodestone.TouchpointCancelled, reason: reason, ends: state,
		})
	default:
		p.pass(lodestone.CheckEnrollment, "")
	}
}

func (p *passage) step() *rules.Step {
	for i := range p.seq.Steps {
		if p.seq.Steps[i].Name == p.t.Step {
			return &p.seq.Steps[i]
		}
	}
	return nil
}

func (p *passage) checkCondition(sequencer.State) {
	step := p.step()
	if step == nil || step.When == nil {
		p.pass(lodestone.CheckCondition, "")
		return
	}
	ok, err := p.evalBool(step.When)
	skip := objection{to: lodestone.TouchpointSkipped, reason: lodestone.ReasonConditionFalse}
	switch {
	case err != nil:
		p.object(lodestone.CheckCondition, "when failed, which counts as false: "+err.Error(), skip)
	case !ok:
		p.object(lodestone.CheckCondition, "when is false: "+step.When.Source(), skip)
	default:
		p.pass(lodestone.CheckCondition, "when is true: "+step.When.Source())
	}
}

func (p *passage) checkSuppression(st sequencer.State) {
	if x := st.Suppression; x != nil {
		p.object(lodestone.CheckSuppression, fmt.Sprintf("suppressed since %s by %s: %s", x.At.Format(time.RFC3339), x.Source, x.Reason), objection{
			to: lodestone.TouchpointSkipped, reason: lodestone.ReasonSuppressed, ends: lodestone.EnrollmentSuppressed,
		})
		return
	}
	p.pass(lodestone.CheckSuppression, "not on the suppression list")
}

func (p *passage) checkConsent(sequencer.State) {
	c := p.lead.Consent
	switch {
	case !p.seq.ConsentRequired:
		p.pass(lodestone.CheckConsent, "not required")
	case c == nil:
		p.object(lodestone.CheckConsent, "required, and none is on record", objection{to: lodestone.TouchpointSkipped, reason: lodestone.ReasonNoConsent})
	case !c.Marketing:
		p.object(lodestone.CheckConsent, "required, and refused at "+c.At.Format(time.RFC3339), objection{to: lodestone.TouchpointSkipped, reason: lodestone.ReasonNoConsent})
	default:
		p.pass(lodestone.CheckConsent, "given at "+c.At.Format(time.RFC3339))
	}
}

// remote makes the checks that depend on the provider: whether it can be asked at all, and whether
// the address unsubscribed there. It fails closed.
//
// The context returned holds the account's turn for the act: the rate is waited for before the provider
// is asked, and what follows the answer is the intent and the act.
func (s *Scheduler) remote(ctx context.Context, p *passage) context.Context {
	a, ok := s.accounts[p.t.Connector]
	if !ok {
		p.object(lodestone.CheckConnector, fmt.Sprintf("no settings for connectors.%s", p.t.Connector), objection{
			to: lodestone.TouchpointScheduled, reason: lodestone.ReasonProviderUnavailable, until: p.now.Add(s.backoff(p.t.Delays, 0)),
		})
		return ctx
	}
	if reason, detail, until, blocked := a.Blocked(); blocked {
		p.object(lodestone.CheckConnector, detail, objection{
			to: lodestone.TouchpointScheduled, reason: reason, until: later(until, p.now.Add(s.backoff(p.t.Delays, 0))),
		})
		return ctx
	}
	ticket, err := a.Reserve(ctx)
	if err != nil {
		s.unusable(p, err)
		return ctx
	}
	p.pass(lodestone.CheckConnector, "")
	sub, err := a.Unsubscribed(ctx, p.lead.Email)
	p.now = time.Now().UTC()
	if err != nil {
		p.verdicts = p.verdicts[:len(p.verdicts)-1] // the account may be what objects after all
		s.unusable(p, err)
		return ctx
	}
	if sub.Unsubscribed {
		p.object(lodestone.CheckProvider, sub.Evidence, objection{
			to: lodestone.TouchpointSkipped, reason: lodestone.ReasonUnsubscribed, ends: lodestone.EnrollmentUnsubscribed,
			suppress: &lodestone.Suppression{Email: p.lead.Email, Reason: "unsubscribed at the provider", Source: p.t.Connector, At: p.now},
		})
		return ctx
	}
	p.pass(lodestone.CheckProvider, sub.Kind+": "+sub.Evidence)
	p.asked = 2
	return ticket
}

// unusable objects because the account cannot be used, or did not answer the check.
func (s *Scheduler) unusable(p *passage, err error) {
	reason, wait := lodestone.ReasonCheckFailed, time.Duration(0)
	var f *connectors.Fault
	if errors.As(err, &f) {
		wait = f.RetryAfter
		switch {
		case f.Class == connectors.RateLimited:
			reason = lodestone.ReasonRateLimited
		case f.Class == connectors.LockedOut, f.Reason == lodestone.ReasonProviderUnavailable:
			reason = lodestone.ReasonProviderUnavailable
		}
	}
	check := lodestone.CheckConnector
	if reason == lodestone.ReasonCheckFailed {
		check = lodestone.CheckProvider
		p.pass(lodestone.CheckConnector, "")
	}
	p.object(check, err.Error(), objection{
		to: lodestone.TouchpointScheduled, reason: reason, until: p.now.Add(s.backoff(p.t.Delays, wait)),
	})
}

// evalBool evaluates a condition over the enrollment as it is now.
func (p *passage) evalBool(prog program) (bool, error) {
	ev := p.set.Schema.Evaluator()
	defer ev.Release()
	ev.Bind(sequencer.EnrollmentFacts(p.lead, p.e, p.set, p.now))
	return ev.Bool(prog)
}

// parameters evaluates what the step sends. missing names a required parameter that turned out to be
// absent, or says which one failed.
func (p *passage) parameters(op lodestone.Operation) (params map[string]any, missing string) {
	step := p.step()
	params = make(map[string]any, len(step.With))
	ev := p.set.Schema.Evaluator()
	defer ev.Release()
	ev.Bind(sequencer.EnrollmentFacts(p.lead, p.e, p.set, p.now))
	for _, a := range step.With {
		v, err := a.Value.Eval(ev)
		if err != nil {
			return nil, fmt.Sprintf("%s failed: %v", a.Name, err)
		}
		if v != nil {
			params[a.Name] = v
		}
	}
	for _, q := range op.Parameters {
		v, ok := params[q.Name]
		if q.Name == "email" {
			if ok && !p.isLead(v) {
				// The gate cleared the lead's address and no other.
				return nil, "email is another address than the lead's own"
			}
			continue // the lead's unless given
		}
		if text, isText := v.(string); q.Required && (!ok || isText && text == "") {
			return nil, q.Name + " is required and absent"
		}
	}
	return params, ""
}

// isLead reports whether v is the lead's address.
func (p *passage) isLead(v any) bool {
	text, _ := v.(string)
	e, err := lodestone.ParseEmail(text)
	return err == nil && e == p.lead.Email
}

// moved turns an objection into the event that carries it out.
func (p *passage) moved() sequencer.Moved {
	o := p.stop
	return sequencer.Moved{
		Touchpoint: p.t.ID, From: lodestone.TouchpointScheduled, To: o.to, Reason: o.reason, DueAt: o.until,
		Ends: o.ends, Suppress: o.suppress, Verdicts: p.verdicts, Detail: o.detail,
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
