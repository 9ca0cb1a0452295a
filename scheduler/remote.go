package scheduler

import (
	"context"
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
func (s *Scheduler) remote(ctx context.Context, p *Passage, params map[string]any) context.Context {
	a, ok := s.accounts[p.t.Connector]
	if !ok {
		p.object(lodestone.CheckConnector, fmt.Sprintf("no settings for connectors.%s", p.t.Connector), objection{
			to: lodestone.TouchpointScheduled, reason: lodestone.ReasonProviderUnavailable, until: p.now.Add(s.pace(p.t.Delays, 0)),
		})
		return ctx
	}
	if reason, detail, until, blocked := a.Blocked(); blocked {
		p.object(lodestone.CheckConnector, detail, objection{
			to: lodestone.TouchpointScheduled, reason: reason, until: later(until, p.now.Add(s.pace(p.t.Delays, 0))),
		})
		return ctx
	}
	ticket, err := a.Reserve(ctx)
	if err != nil {
		p.unusable(err, s.pace)
		return ctx
	}
	mine, err := a.Mine(ctx, connectors.Act{ID: p.t.ID, Operation: p.t.Operation, Email: p.lead.Email, Parameters: params})
	if p.Named(mine, params, err, s.now(), s.pace); p.stop != nil {
		return ctx
	}
	// Opt-outs are asked for last, so that nothing comes between the answer and the act.
	sub, err := a.Unsubscribed(ctx, p.lead.Email)
	if p.Answered(sub, err, s.now(), s.pace); p.stop != nil {
		return ctx
	}
	return ticket
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
