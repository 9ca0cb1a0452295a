package scheduler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
)

// remote makes the checks that depend on the provider: whether it can be asked at all, and whether
// the address unsubscribed there. It fails closed.
//
// The context returned holds the account's turn for the act: the rate is waited for before the provider
// is asked, and what follows the answer is the intent and the act.
func (s *Scheduler) remote(ctx context.Context, p *Passage) context.Context {
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
func (s *Scheduler) unusable(p *Passage, err error) {
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

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
