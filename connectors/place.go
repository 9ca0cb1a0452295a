package connectors

import (
	"context"
	"sync/atomic"
)

// A place is the right to one request at a time; an account has as many as its setting `concurrency`
// says, and whoever waits for one gets it in the order of asking. A request takes a place for itself,
// unless its context holds one for several: then they take turns in that.
type place struct {
	t    *Transport
	busy chan struct{} // capacity 1: its holder uses the place
	paid atomic.Bool   // one request's worth of the rate was waited for; the first act takes it
	gone atomic.Bool   // it was given back
}

type placeKey struct{}

// Hold waits for a place and returns a context that holds it: whatever is asked with that context waits
// for no other, one request at a time. A connector that waits for something of its own between requests
// waits for it with a place in hand, so that nobody who has it waits for a place. The place is given back
// by release, or by the end of the first act; release is never nil and may be called again. A context
// that holds a place is returned as it is. The error is that of ctx.
func (t *Transport) Hold(ctx context.Context) (held context.Context, release func(), err error) {
	if t.holds(ctx) {
		return ctx, func() {}, nil
	}
	if err := t.slot(ctx); err != nil {
		return ctx, func() {}, err
	}
	p := &place{t: t, busy: make(chan struct{}, 1)}
	return context.WithValue(ctx, placeKey{}, p), p.giveBack, nil
}

func (t *Transport) holds(ctx context.Context) bool {
	p, ok := ctx.Value(placeKey{}).(*place)
	return ok && p.t == t && !p.gone.Load()
}

func (p *place) giveBack() {
	if p.gone.CompareAndSwap(false, true) {
		p.t.leaveSlot()
	}
}

// slot waits for a place that no context holds.
func (t *Transport) slot(ctx context.Context) error {
	select {
	case t.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t *Transport) leaveSlot() { <-t.slots }

// place waits for the place of one request, which is the one that ctx holds, or one of its own; then p is
// nil. leave gives back what was taken: an act's place, with everything that was held for it.
func (t *Transport) place(ctx context.Context, act bool) (p *place, leave func(), err error) {
	p, ok := ctx.Value(placeKey{}).(*place)
	if !ok || p.t != t {
		return nil, t.leaveSlot, t.slot(ctx)
	}
	select {
	case p.busy <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	if p.gone.Load() { // after an act
		<-p.busy
		return nil, t.leaveSlot, t.slot(ctx)
	}
	return p, func() {
		if act {
			p.giveBack()
		}
		<-p.busy
	}, nil
}

// reserve waits for a place and for one act's worth of the rate.
func (t *Transport) reserve(ctx context.Context) (held context.Context, release func(), err error) {
	if f := t.barred(ctx, "reserve"); f != nil {
		return ctx, func() {}, f
	}
	held, release, err = t.Hold(ctx)
	if err != nil {
		return ctx, release, t.waited("reserve", true, err)
	}
	if err := t.rate.Wait(ctx); err != nil {
		release()
		return ctx, func() {}, t.waited("reserve", true, err)
	}
	if f := t.barred(ctx, "reserve"); f != nil { // while we waited
		release()
		return ctx, func() {}, f
	}
	held.Value(placeKey{}).(*place).paid.Store(true)
	return held, release, nil
}
