// Package scheduler keeps touchpoints until they fall due and hands each one to a connector.
//
//	scheduled ──due──▶ gate ──▶ intended ──accepted──▶ sent
//	    ▲               │          ├──refused for good──▶ failed
//	    ├──deferred─────┘          └──no answer──▶ unknown ──look-up──▶ sent | scheduled | held
//	    └──retry, later────────────┘
//
// The intent is committed before the provider is called and the outcome after it. A crash in between
// leaves the touchpoint intended; the next start makes it unknown and looks it up at the provider
// before anything else goes out through that connector. A touchpoint is tried again only on the
// provider's word that the earlier try did not happen; where there is no such word, a human decides.
//
// Every connector has a lane of its own: its part of the due queue, its workers, its look-ups. A
// lane sleeps until its next touchpoint is due and is woken when an earlier one is committed, so an
// idle scheduler does nothing. What must happen in what order is decided by the pure functions of
// package sequencer; this package adds time and the outside world. Times are UTC.
package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/sequencer"
)

// Provider is a connector's account as the scheduler uses it: behind its rate, concurrency and
// breaker, which are the account's own.
type Provider interface {
	// Reserve waits for the account's rate and for one of its places, and returns a context whose first
	// act waits for nothing, so that nothing comes between the last check of the gate and the call. The
	// checks before it use the same place. release gives back what no act used; it is never nil and must be
	// called. The error is a fault of an account that cannot be used now.
	Reserve(context.Context) (held context.Context, release func(), err error)
	Do(context.Context, connectors.Act) (connectors.Receipt, error)
	Unsubscribed(context.Context, lodestone.Email) (connectors.Subscription, error)
	// Mine asks whether an act that names somebody by an id is about its lead. The error is a fault of
	// the class Refused when it is not, or cannot be told.
	Mine(context.Context, connectors.Act) (evidence string, err error)
	Find(context.Context, connectors.Act) (connectors.Finding, error)
	// Blocked says that the account can not be used now, why, and until when at least.
	Blocked() (reason lodestone.Reason, detail string, until time.Time, blocked bool)
}

// Account is a provider with the settings that sending needs.
type Account struct {
	Provider
	Concurrency int           // calls at a time, at least 1
	Timeout     time.Duration // of one act
	Attempts    int           // acts that may be tried for one touchpoint
	Settle      time.Duration // how long after a call was given up "not there" is believed
	HoldUnknown bool          // unknown outcomes go to a human without a look-up
	Operations  map[string]lodestone.Operation
}

// Config of [New].
type Config struct {
	Store    Store
	Rulebook func() *sequencer.Rulebook
	Accounts map[string]Account
	Log      *slog.Logger
	// Committed is told of every change after it was committed. It must be quick.
	Committed func(*sequencer.Change)
	// Pace says how long to wait between tries; nil: [Jittered].
	Pace Pace
	// History is asked about every touchpoint before it goes out; nil: there is nothing to know.
	History History
	// Waiting says how many signals came that are not applied yet; nil: none ever. While there are some no
	// enrollment ends because nobody confirmed.
	Waiting func(context.Context) (uint64, error)
	// Now is the wall clock, by which everything is due. What is only waited for is measured by the time of
	// package time, which nobody sets. nil: [time.Now].
	Now func() time.Time
}

// Scheduler sends touchpoints. Make one with [New].
type Scheduler struct {
	store     Store
	rulebook  func() *sequencer.Rulebook
	accounts  map[string]Account
	log       *slog.Logger
	committed func(*sequencer.Change)
	pace      Pace
	history   History
	wall      func() time.Time
	waiting   func(context.Context) (uint64, error)

	mu     sync.Mutex // guards what follows
	lanes  map[string]*lane
	pauses map[string]Pause
	asked  int         // how often the store was asked what is paused
	shown  int         // which of these answers pauses is
	grow   chan string // lanes to start; nil until Run
}

// New makes a scheduler. It does nothing until Run.
func New(cfg Config) *Scheduler {
	s := &Scheduler{
		store: cfg.Store, rulebook: cfg.Rulebook, accounts: cfg.Accounts, log: cfg.Log, committed: cfg.Committed, history: cfg.History, waiting: cfg.Waiting,
		lanes: map[string]*lane{}, pauses: map[string]Pause{}, grow: make(chan string, 64),
	}
	if s.pace = cfg.Pace; s.pace == nil {
		s.pace = Jittered
	}
	if s.wall = cfg.Now; s.wall == nil {
		s.wall = time.Now
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.committed == nil {
		s.committed = func(*sequencer.Change) {}
	}
	for name := range cfg.Accounts {
		s.lanes[name] = newLane(s, name)
	}
	return s
}

// Run sends what falls due until ctx is done, then waits for the calls in flight, each at most its
// timeout. It begins by settling what an earlier run left open.
func (s *Scheduler) Run(ctx context.Context) error {
	if err := s.Reload(ctx); err != nil {
		return err
	}
	names, err := s.store.Lanes(ctx)
	if err != nil {
		return err
	}
	open, err := s.interrupted(ctx)
	if err != nil {
		return err
	}
	for _, o := range open {
		names = append(names, o.Connector)
	}
	for _, n := range names {
		s.laneOf(n)
	}
	for _, o := range open {
		s.laneOf(o.Connector).watch(o.Touchpoint, lookup{email: o.Email, at: time.Now(), from: time.Now(), earlier: true})
	}

	g, ctx := errgroup.WithContext(ctx)
	s.mu.Lock()
	started := map[string]bool{}
	for name, l := range s.lanes {
		started[name] = true
		g.Go(func() error { return l.run(ctx) })
	}
	s.mu.Unlock()
	g.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case name := <-s.grow:
				if l := s.laneOf(name); !started[name] {
					started[name] = true
					g.Go(func() error { return l.run(ctx) })
				}
			}
		}
	})
	return g.Wait()
}

// laneOf returns the lane of a connector, which may be one that has no settings: its touchpoints
// then wait and say so.
func (s *Scheduler) laneOf(name string) *lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lanes[name]
	if l == nil {
		l = newLane(s, name)
		s.lanes[name] = l
	}
	return l
}

// interrupted finds the intents that an earlier run left without an outcome and makes them unknown.
// It returns everything that is to be looked up.
func (s *Scheduler) interrupted(ctx context.Context) ([]OpenItem, error) {
	open, err := s.store.Open(ctx)
	if err != nil {
		return nil, err
	}
	var batch sequencer.Batch
	var lookups []OpenItem
	now := s.now()
	for _, o := range open {
		switch o.State {
		case lodestone.TouchpointUnknown:
			lookups = append(lookups, o)
		case lodestone.TouchpointIntended:
			lookups = append(lookups, o)
			batch.Writes = append(batch.Writes, sequencer.Write{Email: o.Email, Plan: func(st sequencer.State) (sequencer.Change, error) {
				if st.Lead == nil {
					return sequencer.Change{}, sequencer.ErrMoved
				}
				_, t := st.Lead.Touchpoint(o.Touchpoint)
				if t == nil {
					return sequencer.Change{}, sequencer.ErrMoved
				}
				// The call ended with the process, and no call outlives its timeout, so the earlier
				// of the two is when it was given up at the latest.
				gone := now
				if a, ok := s.accounts[o.Connector]; ok && t.Intended.Add(a.Timeout).Before(gone) {
					gone = t.Intended.Add(a.Timeout)
				}
				return sequencer.Plan(st.Lead, sequencer.Moved{
					Touchpoint: o.Touchpoint, From: lodestone.TouchpointIntended, To: lodestone.TouchpointUnknown,
					Reason: lodestone.ReasonInterrupted, DueAt: now, GivenUp: gone,
				}, s.rulebook(), now)
			}})
		}
	}
	if len(batch.Writes) == 0 {
		return lookups, nil
	}
	results, err := s.store.Commit(ctx, batch)
	if err != nil {
		return nil, fmt.Errorf("settle interrupted calls: %w", err)
	}
	for i := range results {
		if results[i].Err == nil {
			s.committed(&results[i].Change)
		}
	}
	s.log.InfoContext(ctx, "calls were interrupted; looking them up before anything is sent", "touchpoints", len(batch.Writes))
	return lookups, nil
}

// Notify tells the scheduler of a change that someone else committed, so that a touchpoint that is
// due earlier than what a lane waits for wakes it.
func (s *Scheduler) Notify(c *sequencer.Change) {
	if c.Lead == nil {
		return
	}
	for i := range c.Lead.Enrollments {
		t := c.Lead.Enrollments[i].Touchpoint
		if t == nil || t.State != lodestone.TouchpointScheduled {
			continue
		}
		s.mu.Lock()
		l, known := s.lanes[t.Connector]
		s.mu.Unlock()
		if !known {
			select {
			case s.grow <- t.Connector:
			default: // many are waiting to start; the lane is found in the store at the next start at the latest
			}
			continue
		}
		l.notify(t.DueAt)
	}
}

// Reload reads again what is paused.
func (s *Scheduler) Reload(ctx context.Context) error {
	s.mu.Lock()
	s.asked++
	asked := s.asked
	s.mu.Unlock()
	p, err := s.store.Paused(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	if asked > s.shown { // an answer that comes late knows less than the one that was asked for after it
		s.pauses, s.shown = p, asked
	}
	lanes := make([]*lane, 0, len(s.lanes))
	for _, l := range s.lanes {
		lanes = append(lanes, l)
	}
	s.mu.Unlock()
	for _, l := range lanes {
		l.wake()
	}
	return nil
}

// now is the time by the wall clock, in UTC.
func (s *Scheduler) now() time.Time { return s.wall().UTC() }

func (s *Scheduler) paused(scope string) (Pause, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.pauses[scope]
	return p, ok
}

// pausing answers what is paused, nil when nothing is, which is nearly always: then nobody has to ask by name.
func (s *Scheduler) pausing() func(scope string) (Pause, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pauses) == 0 {
		return nil
	}
	return s.paused
}

// commit carries out one write and tells who listens. It outlives ctx for a moment: what a call led
// to must be recorded also while everything stops.
func (s *Scheduler) commit(ctx context.Context, w sequencer.Write) (sequencer.Result, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	results, err := s.store.Commit(ctx, sequencer.Batch{Writes: []sequencer.Write{w}})
	if err != nil {
		return sequencer.Result{}, err
	}
	if results[0].Err != nil {
		return sequencer.Result{}, results[0].Err
	}
	s.committed(&results[0].Change)
	s.Notify(&results[0].Change)
	return results[0], nil
}

// ahead plans a write over a state that was read before, so that the transaction has less to do. What is
// no longer so by then is planned there.
func (s *Scheduler) ahead(w *sequencer.Write, st sequencer.State) {
	if st.Version == nil {
		return // the store does not say what could be compared
	}
	s.mu.Lock()
	shown := s.shown
	s.mu.Unlock()
	book := s.rulebook()
	c, err := w.Plan(st)
	if err != nil {
		return
	}
	w.Ahead = &sequencer.Ahead{State: st, Change: c, Still: func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.shown == shown && s.rulebook() == book
	}}
	s.store.Prepare(w.Ahead)
}

// move commits one step of a touchpoint. st is the state that it was decided on, empty where that is not
// known.
func (s *Scheduler) move(ctx context.Context, email lodestone.Email, st sequencer.State, m sequencer.Moved) error {
	w := sequencer.Write{Email: email, Plan: func(st sequencer.State) (sequencer.Change, error) {
		return sequencer.Plan(st.Lead, m, s.rulebook(), s.now())
	}}
	s.ahead(&w, st)
	_, err := s.commit(ctx, w)
	if errors.Is(err, sequencer.ErrMoved) {
		return nil // someone else was quicker, and what is stored is what counts
	}
	return err
}
