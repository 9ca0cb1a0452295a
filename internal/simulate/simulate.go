// Package simulate lets rules work on a virtual clock, in memory: it carries out for leads what the
// worker would carry out, with the worker's own functions ([sequencer.Plan], the gate of package
// scheduler, and what scheduler makes of a provider's answers), and knows nothing itself about what
// rules can say. The provider is one that the caller plays; nothing goes outward, nothing is stored.
//
// What differs from a worker is stated here and nowhere else:
//
//   - Calls take no time, and there is always a free place at a provider: no breaker, no rate.
//   - A delay that the worker draws by lot is the longest that it can draw ([scheduler.Longest]).
//   - Nothing is paused, and no call is interrupted.
//   - An event comes at its own time, and before what is due at that same moment.
package simulate

import (
	"fmt"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/scheduler"
	"github.com/lodestonehq/lodestone/sequencer"
)

// Call is what a provider is asked.
type Call struct {
	connectors.Act
	Connector      string
	Sequence, Step string
	At             time.Time
}

// Provider plays the providers. Its errors are those of a connector.
type Provider interface {
	Unsubscribed(Call) (connectors.Subscription, error)
	Do(Call) (connectors.Receipt, error)
	Find(Call) (connectors.Finding, error)
}

// World is rules at work. It holds no lead, so one world may serve leads on several goroutines, when
// Provider and Committed may be called from several.
type World struct {
	Book     *sequencer.Rulebook
	Accounts map[string]scheduler.Account // without their Provider; see [Accounts]
	Provider Provider
	// Committed is told of every change, which is what the worker would have committed; may be nil.
	Committed func(*Lead, *sequencer.Change)
	// Brakes counts enrollments; nil: no brake holds anything. It is for worlds in which the events of all leads
	// come in the order of their time.
	Brakes *Brakes
	// Quarantined is told of every submission that waits for a human instead of being decided; may be nil.
	Quarantined func(*lodestone.Submission, *lodestone.Rejection)
}

// Lead is all that a world keeps of one person.
type Lead struct {
	Email lodestone.Email
	sequencer.State
}

// Brakes counts the enrollments of sequences by the minute, as a store does for their brakes.
type Brakes struct{ minutes map[string]map[int64]int }

func (b *Brakes) count(sequence string, at time.Time) {
	if b.minutes == nil {
		b.minutes = map[string]map[int64]int{}
	}
	if b.minutes[sequence] == nil {
		b.minutes[sequence] = map[int64]int{}
	}
	b.minutes[sequence][at.Unix()/60]++
}

func (b *Brakes) since(sequence string, since time.Time) (n int) {
	for minute, started := range b.minutes[sequence] {
		if minute >= since.Unix()/60 {
			n += started
		}
	}
	return n
}

// The settings of an account that does not say otherwise.
const (
	defaultAttempts = 10
	defaultSettle   = 30 * time.Second
)

// Accounts are accounts for every connector that rules may name, with the default settings. The map is
// the caller's to change.
func Accounts(opts rules.Options) map[string]scheduler.Account {
	out := map[string]scheduler.Account{}
	for do, op := range opts.Operations {
		name, operation := lodestone.SplitOperation(do)
		a, ok := out[name]
		if !ok {
			a = scheduler.Account{Attempts: defaultAttempts, Settle: defaultSettle, Operations: map[string]lodestone.Operation{}}
			out[name] = a
		}
		a.Operations[operation] = op
	}
	return out
}

// Apply lets an event happen to a lead at a moment.
func (w *World) Apply(l *Lead, ev sequencer.Event, now time.Time) error {
	if s, ok := ev.(*sequencer.Submitted); ok {
		if no := sequencer.Quarantined(l.Lead, &s.Submission, w.Book); no != nil {
			if w.Quarantined != nil {
				w.Quarantined(&s.Submission, no)
			}
			return nil
		}
		if w.Brakes != nil {
			ev = &sequencer.Submitted{Submission: s.Submission, Starts: w.Brakes.since}
		}
	}
	c, err := sequencer.Plan(l.Lead, ev, w.Book, now)
	if err != nil {
		return err
	}
	if c.Lead != nil {
		l.Lead = c.Lead
	}
	if c.Started != "" && w.Brakes != nil {
		w.Brakes.count(c.Started, now)
	}
	if c.Suppress != nil {
		l.Suppression = c.Suppress
	}
	if c.Release {
		l.Suppression = nil
	}
	if w.Committed != nil {
		w.Committed(l, &c)
	}
	return nil
}

// Next is when something is due for a lead, false when nothing waits.
func (l *Lead) Next() (time.Time, bool) {
	_, t := l.due()
	if t == nil {
		return time.Time{}, false
	}
	return t.DueAt, true
}

// due is the lead's earliest touchpoint that time alone takes further.
func (l *Lead) due() (*lodestone.Enrollment, *lodestone.Touchpoint) {
	if l.Lead == nil {
		return nil, nil
	}
	var e *lodestone.Enrollment
	for i := range l.Lead.Enrollments {
		t := l.Lead.Enrollments[i].Touchpoint
		if t == nil || t.State != lodestone.TouchpointScheduled && t.State != lodestone.TouchpointUnknown {
			continue
		}
		if e == nil || t.DueAt.Before(e.Touchpoint.DueAt) {
			e = &l.Lead.Enrollments[i]
		}
	}
	if e == nil {
		return nil, nil
	}
	return e, e.Touchpoint
}

// step takes the lead's earliest touchpoint further at a moment that is not before its time.
func (w *World) step(l *Lead, now time.Time) error {
	e, t := l.due()
	account, ok := w.Accounts[t.Connector]
	if !ok {
		return fmt.Errorf("simulate: no account %s", t.Connector)
	}
	call := Call{
		Act:       connectors.Act{ID: t.ID, Operation: t.Operation, Email: l.Email, Parameters: t.Parameters, IntendedAt: t.Intended},
		Connector: t.Connector, Sequence: e.Sequence, Step: t.Step, At: now,
	}
	if t.State == lodestone.TouchpointUnknown {
		found, err := w.Provider.Find(call)
		return w.Apply(l, account.Looked(t, found, err, now, now, scheduler.Longest), now)
	}
	p := scheduler.Local(l.State, e, t, w.Book, nil, now)
	if m, stopped := p.Objection(); stopped {
		return w.Apply(l, m, now)
	}
	what, missing := p.Parameters(account.Operations[t.Operation])
	if missing == "" {
		sub, err := w.Provider.Unsubscribed(call)
		p.Answered(sub, err, now, scheduler.Longest)
		if m, stopped := p.Objection(); stopped {
			return w.Apply(l, m, now)
		}
	}
	attempt, delays := t.Attempts+1, t.Delays
	intent, act := p.Intent(what, missing)
	if err := w.Apply(l, intent, now); err != nil || act.ID == "" {
		return err
	}
	call.Act = act
	receipt, err := w.Provider.Do(call)
	return w.Apply(l, account.Outcome(act.ID, receipt, err, attempt, delays, now, scheduler.Longest), now)
}

// Advance carries out what is due for a lead from one moment on and before another, each thing at its time
// or, where that has passed, at once, and no more than limit things. It returns how many there were.
func (w *World) Advance(l *Lead, from, before time.Time, limit int) (n int, err error) {
	for ; n < limit; n++ {
		at, ok := l.Next()
		if !ok {
			return n, nil
		}
		if at = later(at, from); !at.Before(before) {
			return n, nil
		}
		if err := w.step(l, at); err != nil {
			return n, err
		}
	}
	return n, nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
