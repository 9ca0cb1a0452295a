package bench

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/scheduler"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
	"github.com/lodestonehq/lodestone/sequencer"
)

// dispatch measures how fast touchpoints that are due go out, beside the two calls of each alone, made
// by as many workers through the same account at the same provider.
func dispatch(ctx context.Context, r *run) error {
	waiting, err := rulebook("30d")
	if err != nil {
		return err
	}
	store, _, err := r.store()
	if err != nil {
		return err
	}
	leads := max(0, r.Leads)
	if err := prefill(ctx, store, waiting, 0, leads, start(), nil); err != nil {
		return err
	}
	return r.dispatchFrom(ctx, store, leads, Result{Settings: map[string]string{"leads": fmt.Sprint(leads)}})
}

// dispatchFrom measures sending from a store with leads; those from next on are not among them.
func (r *run) dispatchFrom(ctx context.Context, store *boltstore.Store, next int, res Result) error {
	items := r.items(10_000)
	due, err := rulebook("0s")
	if err != nil {
		return err
	}
	account, err := r.provider(time.Millisecond, nil)
	if err != nil {
		return err
	}
	ours := func(ctx context.Context) (sample, error) {
		if err := prefill(ctx, store, due, next, next+items, start(), nil); err != nil {
			return sample{}, err
		}
		next += items
		size := used(store)
		work, stop := context.WithCancel(ctx)
		defer stop()
		var sent, other atomic.Int64
		s := scheduler.New(scheduler.Config{
			Store: store, Rulebook: func() *sequencer.Rulebook { return due }, Accounts: sending(account),
			Committed: func(c *sequencer.Change) {
				if c.Entry == nil {
					return
				}
				for _, t := range c.Entry.Touchpoints {
					switch {
					case t.State == lodestone.TouchpointSent:
						if sent.Add(1) == int64(items) {
							stop()
						}
					case t.State != lodestone.TouchpointIntended:
						other.Add(1)
					}
				}
			},
		})
		got, err := timed(items, func() error { return s.Run(work) })
		got.disk = used(store) - size
		if err == nil && (sent.Load() != int64(items) || other.Load() > 0) {
			err = fmt.Errorf("%d of %d touchpoints were sent, %d came to another end", sent.Load(), items, other.Load())
		}
		return got, err
	}
	ceiling := func(ctx context.Context) (sample, error) {
		return timed(items, func() error { return calls(ctx, account, items) })
	}
	res.Unit, res.Raw = "touchpoints/s", "the check and the act alone, by as many workers through the same account"
	res.Aims = []Aim{atLeast("ratio", 0.75)}
	res.Settings["at a time"], res.Settings["provider"] = fmt.Sprint(workers), "in this process over HTTP, answers after 1 ms"
	return r.alternate(ctx, res, ours, ceiling)
}

// calls makes the check and the act for each of n leads.
func calls(ctx context.Context, a *connectors.Account, n int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				email := lodestone.Email(address(int(i)))
				_, err := a.Unsubscribed(ctx, email)
				if err == nil {
					_, err = a.Do(ctx, connectors.Act{ID: fmt.Sprint(i), Operation: lodestone.VerbInvite, Email: email, Parameters: map[string]any{"firstName": "Ada"}})
				}
				if err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}
