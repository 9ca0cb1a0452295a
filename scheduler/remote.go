package scheduler

import (
	"context"
	"fmt"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
)

// reserve makes the check of the connector: whether the provider can be asked at all. What is reserved is
// everything that the act would have to wait for; so what follows the provider's answer is the intent and
// the act. release is never nil and must be called when the act is done, or is not to be.
func (s *Scheduler) reserve(ctx context.Context, p *Passage) (held context.Context, release func()) {
	a, ok := s.accounts[p.t.Connector]
	if !ok {
		p.object(lodestone.CheckConnector, fmt.Sprintf("no settings for connectors.%s", p.t.Connector), objection{
			to: lodestone.TouchpointScheduled, reason: lodestone.ReasonProviderUnavailable, until: p.now.Add(s.pace(p.t.Delays, 0)),
		})
		return ctx, func() {}
	}
	if reason, detail, until, blocked := a.Blocked(); blocked {
		p.object(lodestone.CheckConnector, detail, objection{
			to: lodestone.TouchpointScheduled, reason: reason, until: later(until, p.now.Add(s.pace(p.t.Delays, 0))),
		})
		return ctx, func() {}
	}
	held, release, err := a.Reserve(ctx)
	if err != nil {
		p.unusable(err, s.pace)
	}
	return held, release
}

// ask makes the checks that the provider answers: whose the ids in what is sent are, and whether the
// address unsubscribed there. It fails closed.
func (s *Scheduler) ask(ctx context.Context, p *Passage, what Sending) {
	a := s.accounts[p.t.Connector]
	mine, err := a.Mine(ctx, connectors.Act{ID: p.t.ID, Operation: p.t.Operation, Email: p.lead.Email, Parameters: what.Live})
	if p.Named(mine, what, err, s.now(), s.pace); p.stop != nil {
		return
	}
	// Opt-outs are asked for last, so that nothing comes between the answer and the act.
	sub, err := a.Unsubscribed(ctx, p.lead.Email)
	p.Answered(sub, err, s.now(), s.pace)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
