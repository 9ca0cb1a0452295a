package scheduler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"sync"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/sequencer"
	"github.com/lodestonehq/lodestone/sequencer/failpoint"
)

// lane sends the touchpoints of one connector.
type lane struct {
	s     *Scheduler
	name  string
	woken chan struct{} // capacity 1
	look  chan struct{} // capacity 1
	work  chan lodestone.Email

	mu     sync.Mutex               // guards what follows
	next   time.Time                // what the lane sleeps for; zero: nothing
	asleep bool                     // it sleeps until next
	busy   map[lodestone.Email]bool // being dispatched
	out    int                      // of busy: those that have or may have a call out
	open   map[string]lookup        // touchpoints to look up
	full   bool                     // the last round took as many as it could
	turn   string                   // the sequence whose touchpoint was taken last
}

// lookup says when to look a touchpoint up. Its times are of the process and not of the wall clock: how
// long ago a call was given up decides whether "not there" is believed, and a clock that is set must not
// make that longer than it is.
type lookup struct {
	email   lodestone.Email
	at      time.Time // when to look next
	from    time.Time // when the call was given up, or when this process first saw it
	earlier bool      // the call was an earlier process's, so that it was given up before from
}

// givenUp says, by the wall clock as it stands at now, when the call was given up. stored is what the
// clock said then.
func (o lookup) givenUp(stored, now time.Time) time.Time {
	if at := now.Add(-time.Since(o.from)); !o.earlier || stored.After(at) {
		return at
	}
	return stored
}

func newLane(s *Scheduler, name string) *lane {
	return &lane{
		s: s, name: name, woken: make(chan struct{}, 1), look: make(chan struct{}, 1),
		work: make(chan lodestone.Email),
		busy: map[lodestone.Email]bool{}, open: map[string]lookup{},
	}
}

func (l *lane) wake() {
	select {
	case l.woken <- struct{}{}:
	default:
	}
}

// notify wakes the lane when a touchpoint falls due before what it sleeps for.
func (l *lane) notify(due time.Time) {
	l.mu.Lock()
	sooner := !l.asleep || l.next.IsZero() || due.Before(l.next)
	l.mu.Unlock()
	if sooner {
		l.wake()
	}
}

// maxSleep bounds one sleep, because timers do not run while a machine is suspended and know nothing
// of a wall clock that is set.
const maxSleep = time.Minute

// calls is how many touchpoints may be on their way from the first question to the provider to the act's
// answer.
func (l *lane) calls() int { return max(1, l.s.accounts[l.name].Concurrency) }

// limit is how many touchpoints are in hand at a time: while the outcomes of some are on their way to the
// disk, others have their calls out.
func (l *lane) limit() int { return 2 * l.calls() }

// run settles what is open, then sends what falls due until ctx is done.
func (l *lane) run(ctx context.Context) error {
	l.settle(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { l.lookups(ctx) })

	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		wait, err := l.round(ctx, &wg)
		if err != nil {
			l.s.log.ErrorContext(ctx, "cannot read what is due", "connector", l.name, "error", err)
			wait = time.Second
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return nil
		case <-l.woken:
		case <-timer.C:
		}
		l.mu.Lock()
		l.asleep = false
		l.mu.Unlock()
	}
}

// round starts a worker for each touchpoint that is due, as many as are free, and says how long
// nothing more can be done.
func (l *lane) round(ctx context.Context, wg *sync.WaitGroup) (time.Duration, error) {
	if ctx.Err() != nil {
		return maxSleep, nil
	}
	if l.s.rulebook() == nil {
		return time.Second, nil // what is due waits: nothing says what may be done
	}
	l.mu.Lock()
	free := min(l.calls()-l.out, l.limit()-len(l.busy))
	busy := maps.Clone(l.busy)
	l.mu.Unlock()
	if free <= 0 {
		return maxSleep, nil // a worker that ends wakes the lane
	}
	now := l.s.now()
	due, next, err := l.s.store.Due(ctx, l.name, now, free, l.turn, func(e lodestone.Email) bool { return busy[e] })
	if err != nil {
		return 0, err
	}
	l.mu.Lock()
	l.out += len(due)
	for _, d := range due {
		l.busy[d.Email], l.turn = true, d.Sequence
	}
	l.next, l.asleep, l.full = next, true, len(due) == free
	l.mu.Unlock()
	for _, d := range due {
		select {
		case l.work <- d.Email:
		default:
			wg.Go(func() { l.worker(ctx, d.Email) })
		}
	}
	switch {
	case next.IsZero() || len(due) == free:
		return maxSleep, nil
	default:
		return min(maxSleep, max(0, next.Sub(now))), nil
	}
}

// worker dispatches one touchpoint after the other, until ctx is done. It is kept although there may be
// nothing to do: a new one would grow its stack anew each time.
func (l *lane) worker(ctx context.Context, email lodestone.Email) {
	for {
		l.dispatch(ctx, email)
		l.free(func() { delete(l.busy, email) })
		select {
		case email = <-l.work:
		case <-ctx.Done():
			return
		}
	}
}

// free takes note of what is no longer in hand, or has no call out any more, and has the lane look what is
// due next. With much to do the queue is read for some at a time.
func (l *lane) free(note func()) {
	l.mu.Lock()
	note()
	idle := !l.full || 8*(l.calls()-l.out) >= l.calls()
	l.mu.Unlock()
	if idle {
		l.wake()
	}
}

// dispatch takes one lead's due touchpoint through the gate and, when it passes, to the provider.
func (l *lane) dispatch(ctx context.Context, email lodestone.Email) {
	if err := l.try(ctx, email); err != nil && ctx.Err() == nil {
		// The store is in trouble. The touchpoint stays where it is; the pause keeps the lane from
		// asking a store that fails as fast as it can.
		l.s.log.ErrorContext(ctx, "touchpoint not handled", "connector", l.name, "error", err)
		sleep(ctx, time.Second)
	}
}

func (l *lane) try(ctx context.Context, email lodestone.Email) (err error) {
	s := l.s
	leave := sync.OnceFunc(func() { l.free(func() { l.out-- }) })
	defer leave()
	defer func() {
		// A fault of ours with one lead must not end the work on all others. What was committed says
		// where its touchpoint stands; an intent without an outcome is looked up at the next start.
		if p := recover(); p != nil {
			err = fmt.Errorf("a fault of lodestone's own with one lead: %v\n%s", p, debug.Stack())
		}
	}()
	st, err := s.store.State(ctx, email)
	if err != nil {
		return err
	}
	if st.Lead == nil {
		return fmt.Errorf("a touchpoint waits for a lead that is not in the store")
	}
	now := s.now()
	e, t := l.due(st.Lead, now)
	if t == nil {
		return nil // it moved on since the queue was read
	}
	var before Before
	if s.history != nil {
		if before, err = s.history.Before(ctx, email, e, t); err != nil {
			return err
		}
		if before.State != "" {
			return l.ended(ctx, email, t, before)
		}
	}
	p := Local(st, e, t, s.rulebook(), s.pausing(), now)
	held, release := ctx, func() {}
	if p.stop == nil {
		// What cannot be sent anyway is found before the provider is asked anything.
		if what, missing := p.Parameters(s.accounts[l.name].Operations[t.Operation]); missing == "" {
			if before.Doubt {
				return l.doubt(ctx, email, p, what, before)
			}
			held, release = s.reserve(ctx, p)
			defer release() // whatever happens: a place that is not given back is lost to everybody
			if p.stop == nil {
				s.ask(held, p, what)
			}
		}
	}
	if ctx.Err() != nil {
		return nil // stopping: nothing was done, so it simply stays due
	}
	if p.stop != nil {
		release()
		leave()
		m := p.moved()
		if m.Reason == lodestone.ReasonUnconfirmed && s.behind(ctx) {
			// A confirmation that came in time may not be applied yet.
			m = sequencer.Moved{Touchpoint: t.ID, From: t.State, To: t.State, Reason: lodestone.ReasonAwaiting, DueAt: now.Add(confirmRetry), Verdicts: m.Verdicts, Detail: m.Detail}
		}
		return s.move(ctx, email, st, m)
	}
	failpoint.Hit(failpoint.BeforeIntent)
	act, stored, err := l.intend(ctx, email, st, p)
	if err != nil || act.ID == "" {
		return err
	}
	failpoint.Hit(failpoint.AfterIntent)
	m := l.perform(ctx, held, release, email, act, t.Attempts-t.Forgiven+1, t.Delays)
	leave()
	err = l.record(ctx, email, stored, m)
	failpoint.Hit(failpoint.AfterOutcome)
	return err
}

// confirmRetry is how often it is looked whether signals that were behind are applied.
const confirmRetry = 15 * time.Second

// behind reports whether signals may have come that are not applied yet.
func (s *Scheduler) behind(ctx context.Context) bool {
	if s.waiting == nil {
		return false
	}
	n, err := s.waiting(ctx)
	return err != nil || n > 0
}

// due returns the lead's touchpoint of this lane that is due, nil when there is none.
func (l *lane) due(lead *lodestone.Lead, now time.Time) (*lodestone.Enrollment, *lodestone.Touchpoint) {
	for i := range lead.Enrollments {
		t := lead.Enrollments[i].Touchpoint
		if t != nil && t.Connector == l.name && t.State == lodestone.TouchpointScheduled && !t.DueAt.After(now) {
			return &lead.Enrollments[i], t
		}
	}
	return nil, nil
}

// intend stores the intent of what passed the gate over the state known. The gate's local checks are made
// again on what the store holds inside the transaction: before it, where that is still known, and in it
// where anything changed meanwhile. The act returned has no id when the touchpoint is not to be sent after
// all; the state is the one that the intent left.
func (l *lane) intend(ctx context.Context, email lodestone.Email, known sequencer.State, first *Passage) (connectors.Act, sequencer.State, error) {
	s := l.s
	remote := first.verdicts[len(first.verdicts)-first.asked:] // connector and provider
	var act connectors.Act
	w := sequencer.Write{Email: email, Plan: func(st sequencer.State) (sequencer.Change, error) {
		act = connectors.Act{} // the function may be called again
		known.Suppression = st.Suppression
		if st.Lead == nil {
			return sequencer.Change{}, sequencer.ErrMoved
		}
		e, t := st.Lead.Touchpoint(first.t.ID)
		if t == nil || t.State != lodestone.TouchpointScheduled {
			return sequencer.Change{}, sequencer.ErrMoved
		}
		if t.Connector != l.name || t.Operation != first.t.Operation || e.Version != first.e.Version {
			return sequencer.Change{}, sequencer.ErrMoved // migrated since: what the provider was asked was about another act
		}
		now, book := s.now(), s.rulebook()
		p := Local(st, e, t, book, s.pausing(), now)
		if p.stop != nil {
			return sequencer.Plan(st.Lead, p.moved(), book, now)
		}
		p.verdicts = append(p.verdicts, remote...)
		op := s.accounts[l.name].Operations[t.Operation]
		what, missing := p.Parameters(op)
		if missing == "" && first.asked == 0 {
			return sequencer.Change{}, sequencer.ErrMoved // it can be sent now: from the beginning, then
		}
		if first.cleared != nil {
			what = *first.cleared // the provider was asked whose these are, and of no others
		}
		var m sequencer.Moved
		m, act = p.Intent(what, missing)
		return sequencer.Plan(st.Lead, m, book, now)
	}}
	s.ahead(&w, known)
	res, err := s.commit(ctx, w)
	if err != nil {
		act = connectors.Act{}
		if errors.Is(err, sequencer.ErrMoved) {
			err = nil
		}
	}
	return act, sequencer.State{Lead: res.Change.Lead, Suppression: known.Suppression, Version: res.Version}, err
}

// perform makes the call with what is held for it, and says what came of it. A call that began is waited
// for also while the scheduler stops, at most its timeout.
func (l *lane) perform(ctx, held context.Context, release func(), email lodestone.Email, act connectors.Act, attempt, delays int) sequencer.Moved {
	a := l.s.accounts[l.name]
	// The account bounds the request itself.
	call, cancel := context.WithTimeout(context.WithoutCancel(held), a.Timeout+aroundCall)
	// A stop lets the call go on, but not for longer than the process has left to end in.
	stopping := context.AfterFunc(ctx, func() { time.AfterFunc(stopGrace, cancel) })
	start := time.Now()
	receipt, err := a.Do(call, act)
	failpoint.Hit(failpoint.AfterCall)
	stopping()
	cancel()
	release() // however long it takes to store the outcome
	m := a.Outcome(act.ID, receipt, err, attempt, delays, l.s.now(), l.s.pace)
	m.Took = time.Since(start)
	if m.To == lodestone.TouchpointUnknown {
		l.watch(act.ID, lookup{email: email, at: time.Now().Add(m.DueAt.Sub(m.GivenUp)), from: time.Now()})
	}
	return m
}

// aroundCall is what a connector has, beside its request, for the questions that belong to the act: whose
// number an address has, or what it means that the provider knows it already.
const aroundCall = 5 * time.Second

// stopGrace is how long a call may go on after the scheduler was told to stop. The process has 15 s to
// end in, and the outcome is still to be stored.
const stopGrace = 12 * time.Second

// record commits an outcome, again and again while the store is in trouble: the alternative is to
// look it up after the next start. It gives up when the scheduler stops.
func (l *lane) record(ctx context.Context, email lodestone.Email, st sequencer.State, m sequencer.Moved) error {
	for n := 0; ; n++ {
		err := l.s.move(ctx, email, st, m)
		if err == nil || ctx.Err() != nil {
			return err
		}
		l.s.log.ErrorContext(ctx, "cannot record an outcome; trying again", "touchpoint", m.Touchpoint, "error", err)
		sleep(ctx, l.s.pace(min(n, 4), 0))
	}
}

// sleep waits for d or until ctx is done.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
