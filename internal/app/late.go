package app

import (
	"context"
	"sync"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/sequencer"
)

// late knows the touchpoints that a provider's trouble puts off again and again: an open breaker, a check that
// failed, a rate that is used up, a try that did not come through. They are due, though their next try is
// not. What waits by somebody's will is not late: a pause, a window, a cap. After a restart each is known
// again when it is next tried, minutes later. It is safe for concurrent use.
type late struct {
	state func(context.Context, lodestone.Email) (sequencer.State, error)

	mu    sync.Mutex // guards what follows
	since map[lodestone.Email]time.Time
}

func newLate(state func(context.Context, lodestone.Email) (sequencer.State, error)) *late {
	return &late{state: state, since: map[lodestone.Email]time.Time{}}
}

// lateSince is when the first of a lead's late touchpoints was to happen, zero when none is late.
func lateSince(l *lodestone.Lead) (since time.Time) {
	if l == nil {
		return since
	}
	for i := range l.Enrollments {
		// Only trouble counts as a delay.
		if t := l.Enrollments[i].Touchpoint; t != nil && t.State == lodestone.TouchpointScheduled && t.Delays > 0 {
			if since.IsZero() || t.PlannedAt.Before(since) {
				since = t.PlannedAt
			}
		}
	}
	return since
}

// committed notes what a change makes of its lead.
func (l *late) committed(c *sequencer.Change) {
	if c.Lead == nil {
		return
	}
	since := lateSince(c.Lead)
	l.mu.Lock()
	defer l.mu.Unlock()
	if since.IsZero() {
		delete(l.since, c.Lead.Email)
	} else {
		l.since[c.Lead.Email] = since
	}
}

// oldest is when the touchpoint was to happen that is late for the longest, zero when none is. Changes of one
// lead may be told in another order than they were committed in, so the store has the last word.
func (l *late) oldest(ctx context.Context) (time.Time, error) {
	for ctx.Err() == nil {
		var email lodestone.Email
		var since time.Time
		l.mu.Lock()
		for e, at := range l.since {
			if since.IsZero() || at.Before(since) {
				email, since = e, at
			}
		}
		l.mu.Unlock()
		if since.IsZero() {
			return since, nil
		}
		st, err := l.state(ctx, email)
		if err != nil {
			return since, err
		}
		if stored := lateSince(st.Lead); stored.Equal(since) {
			return since, nil
		}
		l.mu.Lock()
		if l.since[email].Equal(since) {
			delete(l.since, email)
		}
		l.mu.Unlock()
	}
	return time.Time{}, ctx.Err()
}
