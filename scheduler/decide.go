package scheduler

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/sequencer"
)

// What a provider's answer means for a touchpoint is decided here, by functions that call nobody and
// read no clock, so that the worker and a simulation of it decide alike.

// The delays between tries: the first is at most firstDelay, each later one at most twice the one
// before, none more than maxDelay.
const (
	firstDelay = 2 * time.Second
	maxDelay   = 5 * time.Minute
)

// Pace says how long to wait after n tries in a row; atLeast is what the provider asked for.
type Pace func(n int, atLeast time.Duration) time.Duration

// Jittered draws the delay evenly from zero up to its limit (full jitter), so that touchpoints that
// failed together do not come back together.
func Jittered(n int, atLeast time.Duration) time.Duration {
	return max(time.Duration(rand.Int64N(int64(longest(n))))+1, atLeast)
}

// Longest is the longest delay that [Jittered] draws, for simulations: they must not draw lots.
func Longest(n int, atLeast time.Duration) time.Duration { return max(longest(n), atLeast) }

func longest(n int) time.Duration {
	if n < 8 { // 2 s × 2^8 is past the maximum
		return min(maxDelay, firstDelay<<n)
	}
	return maxDelay
}

// Answered lets the provider's word on the address decide, which is the last check: err is why there
// was none. now is when the answer came.
func (p *Passage) Answered(sub connectors.Subscription, err error, now time.Time, pace Pace) {
	p.now = now
	if err != nil {
		p.unusable(err, pace)
		return
	}
	p.pass(lodestone.CheckConnector, "")
	if sub.Unsubscribed {
		p.object(lodestone.CheckProvider, sub.Evidence, objection{
			to: lodestone.TouchpointSkipped, reason: lodestone.ReasonUnsubscribed, ends: lodestone.EnrollmentUnsubscribed,
			suppress: &lodestone.Suppression{Email: p.lead.Email, Reason: "unsubscribed at the provider", Source: p.t.Connector, At: p.now},
		})
		return
	}
	evidence := sub.Kind + ": " + sub.Evidence
	if p.named != "" {
		evidence += "; " + p.named
	}
	p.pass(lodestone.CheckProvider, evidence)
	p.asked = 2
}

// unusable objects because the account cannot be used, or did not answer the check.
func (p *Passage) unusable(err error, pace Pace) {
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
		to: lodestone.TouchpointScheduled, reason: reason, until: p.now.Add(pace(p.t.Delays, wait)),
	})
}

// Intent returns the event that stores the intent of what the gate let pass, and the act that follows
// it. A required parameter that turned out absent, which is missing, fails the touchpoint instead; the act
// then has no id.
func (p *Passage) Intent(s Sending, missing string) (sequencer.Moved, connectors.Act) {
	m := sequencer.Moved{Touchpoint: p.t.ID, From: lodestone.TouchpointScheduled, Verdicts: p.verdicts}
	if missing != "" {
		m.To, m.Reason, m.Detail = lodestone.TouchpointFailed, lodestone.ReasonBadParameters, missing
		return m, connectors.Act{}
	}
	m.To, m.Parameters, m.Hidden = lodestone.TouchpointIntended, s.Kept, s.Hidden
	return m, connectors.Act{ID: p.t.ID, Operation: p.t.Operation, Email: p.lead.Email, Parameters: s.Live, IntendedAt: p.now}
}

// Outcome says what a call led to. attempt is the number of the attempt that it was, from 1; delays are
// the touchpoint's deferrals before it; now is when the call was over.
func (a *Account) Outcome(id string, receipt connectors.Receipt, err error, attempt, delays int, now time.Time, pace Pace) sequencer.Moved {
	m := sequencer.Moved{Touchpoint: id, From: lodestone.TouchpointIntended}
	if err == nil {
		m.To, m.Reason = lodestone.TouchpointSent, lodestone.ReasonAccepted
		if receipt.Skipped {
			m.Reason = lodestone.ReasonNothingToDo
		}
		m.Reference, m.Detail, m.Status = receipt.Reference, receipt.Detail, receipt.Status
		return m
	}
	var f *connectors.Fault
	if !errors.As(err, &f) {
		// A connector that does not say what a failure means has not proved that nothing happened.
		f = &connectors.Fault{Class: connectors.Unknown, Reason: lodestone.ReasonNoAnswer, Detail: err.Error()}
	}
	m.Reason, m.Detail, m.Status = f.Reason, f.Detail, f.Status
	switch f.Class {
	case connectors.NotDone, connectors.RateLimited, connectors.LockedOut:
		m.To, m.Counted = lodestone.TouchpointScheduled, f.CountsAttempt
		m.DueAt = now.Add(pace(delays, f.RetryAfter))
		if f.CountsAttempt && attempt >= a.Attempts {
			m.To, m.Reason = lodestone.TouchpointFailed, lodestone.ReasonAttempts
		}
	case connectors.Failed: // what only reads: nothing can have happened
		m.To, m.Counted, m.DueAt = lodestone.TouchpointScheduled, true, now.Add(pace(delays, f.RetryAfter))
		if f.Status >= 400 && f.Status < 500 || attempt >= a.Attempts {
			m.To = lodestone.TouchpointFailed
		}
	case connectors.Refused:
		m.To = lodestone.TouchpointFailed
	default:
		m.To, m.GivenUp, m.DueAt = lodestone.TouchpointUnknown, now, now.Add(lookupDelay(0, a.Settle))
		if a.HoldUnknown {
			m.To, m.Reason = lodestone.TouchpointHeld, lodestone.ReasonNoLookup
		}
	}
	return m
}

// lookupDelay is how long after giving up a call its n-th look-up is made: soon, in case it is there
// already, then when absence can be believed, then ever more patiently while the provider cannot
// answer.
func lookupDelay(n int, settle time.Duration) time.Duration {
	soon := min(time.Second, settle)
	if n == 0 {
		return soon
	}
	return settle
}

// alertAfter is how many look-ups may fail before a human is told. They go on all the same.
const alertAfter = 5

// held settles an unknown outcome of an account whose outcomes are not looked up.
func (a *Account) held(id string) sequencer.Moved {
	return sequencer.Moved{
		Touchpoint: id, From: lodestone.TouchpointUnknown, To: lodestone.TouchpointHeld, Reason: lodestone.ReasonNoLookup, Looked: true,
		Detail: "on_unknown is hold: whether it happened must be seen at the provider",
	}
}

// repeated settles an unknown outcome of what only reads, or may harmlessly be done again: it is. ok is
// false for everything else.
func (a *Account) repeated(t *lodestone.Touchpoint, now time.Time) (m sequencer.Moved, ok bool) {
	op := a.Operations[t.Operation]
	if op.Effect != lodestone.EffectRead && (!op.Again || a.HoldUnknown) {
		return m, false
	}
	m = sequencer.Moved{
		Touchpoint: t.ID, From: lodestone.TouchpointUnknown, To: lodestone.TouchpointScheduled, Reason: lodestone.ReasonAbsent,
		Looked: true, Counted: true, DueAt: now, Detail: "doing it again changes nothing, so it is simply done again",
	}
	if t.Attempts-t.Forgiven+1 >= a.Attempts {
		m.To, m.Reason = lodestone.TouchpointFailed, lodestone.ReasonAttempts
	}
	return m, true
}

// Looked says what a look-up of an unknown touchpoint means: settled, or, when the event leaves it unknown,
// to be looked up again at its DueAt. asked is when the look-up began, now when it was over.
func (a *Account) Looked(t *lodestone.Touchpoint, f connectors.Finding, err error, asked, now time.Time, pace Pace) sequencer.Moved {
	if m, ok := a.repeated(t, now); ok {
		return m
	}
	m := sequencer.Moved{Touchpoint: t.ID, From: lodestone.TouchpointUnknown, Looked: true, Intended: t.Intended}
	settled := !asked.Before(t.GivenUp.Add(a.Settle))
	patient := func(reason lodestone.Reason, detail string) sequencer.Moved {
		at := t.GivenUp.Add(lookupDelay(t.Lookups+1, a.Settle))
		if settled {
			at = now.Add(pace(t.Lookups, 0))
		}
		m.To, m.Reason, m.DueAt, m.Detail = lodestone.TouchpointUnknown, reason, at, detail
		m.Alert = settled && t.Lookups == alertAfter
		return m
	}
	switch {
	case err != nil:
		var fault *connectors.Fault
		detail := err.Error()
		if errors.As(err, &fault) && fault.Detail != "" {
			detail = fault.Detail
		}
		return patient(t.Reason, "the look-up failed: "+detail)
	case f.State == connectors.Found:
		m.To, m.Reason, m.Reference, m.Detail = lodestone.TouchpointSent, lodestone.ReasonFound, f.Reference, f.Evidence
	case f.State == connectors.Unsupported:
		m.To, m.Reason, m.Detail = lodestone.TouchpointHeld, lodestone.ReasonNoLookup, f.Evidence
	case !settled:
		// Too early to be believed: the provider may still be at it, or show it a little later.
		return patient(t.Reason, f.Evidence)
	case f.State == connectors.Absent:
		m.To, m.Reason, m.Detail, m.Counted, m.DueAt = lodestone.TouchpointScheduled, lodestone.ReasonAbsent, f.Evidence, true, now
		if t.Attempts-t.Forgiven+1 >= a.Attempts {
			m.To, m.Reason = lodestone.TouchpointFailed, lodestone.ReasonAttempts
		}
	default:
		m.To, m.Reason, m.Detail = lodestone.TouchpointHeld, lodestone.ReasonUnclear, f.Evidence
	}
	return m
}
