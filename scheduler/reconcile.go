package scheduler

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/sequencer"
	"github.com/lodestonehq/lodestone/sequencer/failpoint"
)

// watch adds a touchpoint to those that are looked up.
func (l *lane) watch(touchpoint string, o lookup) {
	l.mu.Lock()
	l.open[touchpoint] = o
	l.mu.Unlock()
	select {
	case l.look <- struct{}{}:
	default:
	}
}

// settle makes one look-up for everything that is open when the lane starts, so that nothing else is
// sent through the connector before the provider was asked. A provider that cannot answer does not
// hold the lane up: its touchpoints stay unknown, and the gate asks the same provider anyway.
func (l *lane) settle(ctx context.Context) {
	if _, ok := l.s.accounts[l.name]; !ok {
		return
	}
	// All look-ups together get the time of a few: a provider that is away is soon known to be.
	ctx, cancel := context.WithTimeout(ctx, 3*l.s.accounts[l.name].Timeout)
	defer cancel()
	l.each(ctx, time.Now())
}

// lookups looks up open touchpoints as their time comes, until ctx is done.
func (l *lane) lookups(ctx context.Context) {
	if _, ok := l.s.accounts[l.name]; !ok {
		l.orphaned(ctx)
		return
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.look:
		case <-timer.C:
		}
		l.each(ctx, time.Now())
		wait := maxSleep
		l.mu.Lock()
		for _, o := range l.open {
			wait = min(wait, max(0, time.Until(o.at)))
		}
		l.mu.Unlock()
		timer.Reset(wait)
	}
}

// orphaned asks for a human where an outcome is open at a connector that has no settings any more:
// nobody can look it up.
func (l *lane) orphaned(ctx context.Context) {
	l.mu.Lock()
	open := maps.Clone(l.open)
	l.mu.Unlock()
	for id, o := range open {
		if err := l.s.move(ctx, o.email, sequencer.State{}, sequencer.Moved{
			Touchpoint: id, From: lodestone.TouchpointUnknown, To: lodestone.TouchpointUnknown, Reason: lodestone.ReasonNoLookup,
			Alert: true, Detail: "its outcome is not known, and connectors." + l.name + " has no settings to look it up with",
		}); err != nil {
			l.s.log.ErrorContext(ctx, "cannot ask for a human", "touchpoint", id, "error", err)
		}
	}
}

// each looks up what is to be looked up by now, a few at a time.
func (l *lane) each(ctx context.Context, now time.Time) {
	l.mu.Lock()
	var ids []string
	for id, o := range l.open {
		if !o.at.After(now) {
			ids = append(ids, id)
		}
	}
	l.mu.Unlock()
	var wg sync.WaitGroup
	slots := make(chan struct{}, l.calls())
	for i := range ids {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			wg.Wait()
			return
		}
		wg.Go(func() {
			defer func() { <-slots }()
			l.lookUp(ctx, ids[i])
		})
	}
	wg.Wait()
}

// lookUp asks the provider once whether a touchpoint's act happened, and records what that means.
func (l *lane) lookUp(ctx context.Context, id string) {
	l.mu.Lock()
	was := l.open[id]
	l.mu.Unlock()
	again, err := l.settleOne(ctx, id, was)
	next := was
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case ctx.Err() != nil:
	case l.open[id] != was:
		// It was settled, sent again, and is unknown anew: what stands there is for the new attempt.
	case err != nil:
		l.s.log.ErrorContext(ctx, "cannot settle an unknown outcome; trying again", "touchpoint", id, "error", err)
		next.at = time.Now().Add(l.s.pace(4, 0))
		l.open[id] = next
	case again == settled:
		delete(l.open, id)
	default:
		next.at = time.Now().Add(again)
		l.open[id] = next
	}
}

// settled says that there is nothing to look up again.
const settled time.Duration = -1

// settleOne makes one look-up. again is how long to wait for the next one, [settled] when there is none.
// The error is the store's.
func (l *lane) settleOne(ctx context.Context, id string, o lookup) (again time.Duration, err error) {
	s, a, email := l.s, l.s.accounts[l.name], o.email
	st, err := s.store.State(ctx, email)
	if err != nil || st.Lead == nil {
		return settled, err
	}
	_, t := st.Lead.Touchpoint(id)
	if t == nil || t.State != lodestone.TouchpointUnknown {
		if t != nil && t.State == lodestone.TouchpointIntended {
			return 100 * time.Millisecond, nil // its outcome is being recorded
		}
		return settled, nil
	}
	if m, ok := a.repeated(t, s.now()); ok {
		return settled, s.move(ctx, email, sequencer.State{}, m)
	}
	if a.HoldUnknown {
		return settled, s.move(ctx, email, sequencer.State{}, a.held(id))
	}
	asked := s.now()
	looked := *t
	looked.GivenUp = o.givenUp(t.GivenUp, asked)
	find, cancel := context.WithTimeout(ctx, a.Timeout)
	failpoint.Hit(failpoint.BeforeLookup)
	f, findErr := a.Find(find, connectors.Act{ID: t.ID, Operation: t.Operation, Email: email, Parameters: t.Parameters, Altered: t.Altered(), IntendedAt: t.Intended})
	cancel()
	failpoint.Hit(failpoint.AfterLookup)
	if ctx.Err() != nil {
		return settled, nil
	}
	now := s.now()
	m := a.Looked(&looked, f, findErr, asked, now, s.pace)
	again = settled
	if m.To == lodestone.TouchpointUnknown {
		again = max(0, m.DueAt.Sub(now))
	}
	err = s.move(ctx, email, sequencer.State{}, m)
	failpoint.Hit(failpoint.AfterSettled)
	return again, err
}
