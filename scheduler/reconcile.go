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
func (l *lane) watch(touchpoint string, email lodestone.Email, at time.Time) {
	l.mu.Lock()
	l.open[touchpoint] = lookup{email, at}
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
		if err := l.s.move(ctx, o.email, sequencer.Moved{
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
	var emails []lodestone.Email
	for id, o := range l.open {
		if !o.at.After(now) {
			ids, emails = append(ids, id), append(emails, o.email)
		}
	}
	l.mu.Unlock()
	var wg sync.WaitGroup
	slots := make(chan struct{}, l.workers())
	for i := range ids {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			wg.Wait()
			return
		}
		wg.Go(func() {
			defer func() { <-slots }()
			l.lookUp(ctx, ids[i], emails[i])
		})
	}
	wg.Wait()
}

// lookUp asks the provider once whether a touchpoint's act happened, and records what that means.
func (l *lane) lookUp(ctx context.Context, id string, email lodestone.Email) {
	l.mu.Lock()
	was := l.open[id]
	l.mu.Unlock()
	again, err := l.settleOne(ctx, id, email)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case ctx.Err() != nil:
	case l.open[id] != was:
		// It was settled, sent again, and is unknown anew: what stands there is for the new attempt.
	case err != nil:
		l.s.log.ErrorContext(ctx, "cannot settle an unknown outcome; trying again", "touchpoint", id, "error", err)
		l.open[id] = lookup{email, time.Now().Add(l.s.pace(4, 0))}
	case again.IsZero():
		delete(l.open, id)
	default:
		l.open[id] = lookup{email, again}
	}
}

// settleOne makes one look-up. again is when to make the next one, zero when the outcome is settled.
// The error is the store's.
func (l *lane) settleOne(ctx context.Context, id string, email lodestone.Email) (again time.Time, err error) {
	s, a := l.s, l.s.accounts[l.name]
	st, err := s.store.State(ctx, email)
	if err != nil || st.Lead == nil {
		return time.Time{}, err
	}
	_, t := st.Lead.Touchpoint(id)
	if t == nil || t.State != lodestone.TouchpointUnknown {
		if t != nil && t.State == lodestone.TouchpointIntended {
			return time.Now().Add(100 * time.Millisecond), nil // its outcome is being recorded
		}
		return time.Time{}, nil
	}
	if m, ok := a.repeated(t, time.Now().UTC()); ok {
		return time.Time{}, s.move(ctx, email, m)
	}
	if a.HoldUnknown {
		return time.Time{}, s.move(ctx, email, a.held(id))
	}
	asked := time.Now().UTC()
	find, cancel := context.WithTimeout(ctx, a.Timeout)
	failpoint.Hit(failpoint.BeforeLookup)
	f, findErr := a.Find(find, connectors.Act{ID: t.ID, Operation: t.Operation, Email: email, Parameters: t.Parameters, IntendedAt: t.Intended})
	cancel()
	failpoint.Hit(failpoint.AfterLookup)
	if ctx.Err() != nil {
		return time.Time{}, nil
	}
	m := a.Looked(t, f, findErr, asked, time.Now().UTC(), s.pace)
	if m.To == lodestone.TouchpointUnknown {
		again = m.DueAt
	}
	err = s.move(ctx, email, m)
	failpoint.Hit(failpoint.AfterSettled)
	return again, err
}
