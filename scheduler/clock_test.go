package scheduler_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
)

func lead(i int) lodestone.Email { return lodestone.Email(fmt.Sprintf("lead%d@example.com", i)) }

// setClock sets the wall clock. Timers know nothing of it, as they know nothing of the time for which a
// machine was suspended: to them both are the same.
func (b *bench) setClock(by time.Duration) { b.set.Add(int64(by)) }

// sentOnce checks that each of the first n leads was sent to once.
func (b *bench) sentOnce(n int) {
	b.t.Helper()
	b.p.mu.Lock()
	defer b.p.mu.Unlock()
	if len(b.p.sent) != n {
		b.t.Errorf("%d touchpoints were sent, want %d", len(b.p.sent), n)
	}
	for id, times := range b.p.sent {
		if times != 1 {
			b.t.Errorf("%s was sent %d times", id, times)
		}
	}
}

// A clock that is set forward by hours, or a machine that was suspended for as long: what is due by then
// goes out within a minute, the rest when it is due.
func TestClockSetForward(t *testing.T) {
	run(t, nil, func(b *bench) {
		begin := b.now()
		for i := range 3 {
			b.submit(lead(i), nil, nil) // due in an hour
			after(2 * time.Minute)
		}
		b.submit(lead(3), map[string]any{"kind": "steps"}, nil) // its last step is due in two days
		after(time.Minute)
		b.setClock(5 * time.Hour)
		after(time.Minute)
		b.sentOnce(4)
		after(begin.Add(48*time.Hour - time.Minute).Sub(b.now()))
		b.sentOnce(4)
		after(10 * time.Minute)
		b.sentOnce(5)
	})
}

// A clock that is set back by hours: nothing is sent again or lost, what waits goes out when the clock
// comes there, and what comes in after it at its time.
func TestClockSetBack(t *testing.T) {
	run(t, nil, func(b *bench) {
		b.submit(lead(0), nil, nil)
		after(time.Hour)
		b.sentOnce(1)
		b.submit(lead(1), nil, nil)
		after(10 * time.Minute)
		b.setClock(-5 * time.Hour)
		b.submit(lead(2), nil, nil)
		after(time.Hour - time.Second)
		b.sentOnce(1)
		after(time.Second)
		b.sentOnce(2)
		after(5*time.Hour - 10*time.Minute)
		b.sentOnce(3)
	})
}

// While the outcome of a call is open the clock is set. Forward, "not there" must not be believed sooner
// than it could be: the provider shows what it did only after 20 s. Back, the look-ups must not wait for
// the clock.
func TestClockSetWhileAnOutcomeIsOpen(t *testing.T) {
	for _, by := range []time.Duration{5 * time.Hour, -5 * time.Hour} {
		run(t, func(b *bench) {
			var did time.Time
			b.p.do = func(act connectors.Act, n int) (connectors.Receipt, error) {
				did = time.Now()
				if n > 1 {
					t.Errorf("set by %v: sent again", by)
				}
				return connectors.Receipt{}, &connectors.Fault{Class: connectors.Unknown, Reason: lodestone.ReasonNoAnswer}
			}
			b.p.find = func(connectors.Act, int) (connectors.Finding, error) {
				if time.Since(did) < 20*time.Second {
					return connectors.Finding{State: connectors.Absent}, nil
				}
				return connectors.Finding{State: connectors.Found, Reference: "ref"}, nil
			}
		}, func(b *bench) {
			b.submit(ada, nil, nil)
			after(time.Hour)
			b.setClock(by)
			after(2 * time.Minute)
			if h := b.history(ada); h[len(h)-1] != "invite sent found" {
				t.Errorf("set by %v: history = %q, want it found within two minutes", by, h)
			}
		})
	}
}

// A call is cut by a crash, and the machine comes up with a clock that is hours behind.
func TestClockBehindAfterACrash(t *testing.T) {
	run(t, func(b *bench) {
		b.p.find = func(connectors.Act, int) (connectors.Finding, error) {
			return connectors.Finding{State: connectors.Absent}, nil
		}
	}, func(b *bench) {
		b.p.do = func(_ connectors.Act, n int) (connectors.Receipt, error) {
			if n == 1 {
				return connectors.Receipt{}, &connectors.Fault{Class: connectors.Unknown, Reason: lodestone.ReasonNoAnswer}
			}
			return connectors.Receipt{}, nil
		}
		b.submit(ada, nil, nil)
		after(time.Hour)
		b.stop()
		b.setClock(-5 * time.Hour)
		b.start()
		after(29 * time.Second)
		if b.p.count() != 1 {
			t.Errorf("%d acts, want none again before absence can be believed", b.p.count())
		}
		after(2 * time.Minute)
		if b.p.count() != 2 {
			t.Errorf("%d acts after two minutes, want it sent on the provider's word", b.p.count())
		}
		b.sentOnce(1)
	})
}

// What a cap counts stays counted when the clock goes back: never more is sent than it allows.
func TestClockSetBackLoosensNoCap(t *testing.T) {
	run(t, withRules(cappedRules), func(b *bench) {
		for range 2 {
			b.submit(ada, nil, nil)
			after(time.Hour)
		}
		b.setClock(-6 * time.Hour)
		b.submit(ada, nil, nil)
		after(6 * 24 * time.Hour)
		if got := len(b.p.tries()); got != 2 {
			t.Errorf("%d were sent in six days, want the 2 that the cap allows", got)
		}
		after(36 * time.Hour)
		if got := len(b.p.tries()); got != 3 {
			t.Errorf("%d were sent after a week, want 3", got)
		}
	})
}

// A step that came too late by a clock that was ahead stays skipped, and one that is in time by a clock that
// is behind is sent once.
func TestClockAndGrace(t *testing.T) {
	run(t, withRules(timedRules), func(b *bench) {
		b.submit(ada, map[string]any{"kind": "fresh"}, nil) // due in an hour, within a day
		b.setClock(26 * time.Hour)
		after(time.Minute)
		b.setClock(-26 * time.Hour)
		b.submit("bob@example.com", map[string]any{"kind": "fresh"}, nil)
		after(time.Hour)
		if h := b.history(ada); h[1] != "invite skipped stale" {
			t.Errorf("ada: %q", h)
		}
		if h := b.history("bob@example.com"); h[len(h)-2] != "invite sent accepted" {
			t.Errorf("bob: %q", h)
		}
		after(48 * time.Hour)
		b.sentOnce(3) // the first of bob, the second of both
	})
}

// The clock is set to and fro at random while submissions come, calls stay without an answer and the
// scheduler is stopped and started.
func TestClockSetAtRandom(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("CLOCK_SEED"); s != "" {
		if _, err := fmt.Sscan(s, &seed); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("CLOCK_SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	const n, visible = 60, 20 * time.Second
	run(t, func(b *bench) {
		effects, shown := map[string]time.Time{}, map[string]bool{}
		b.p.do = func(act connectors.Act, i int) (connectors.Receipt, error) {
			b.p.mu.Lock()
			defer b.p.mu.Unlock()
			if shown[act.ID] {
				t.Errorf("CLOCK_SEED=%d: %s was sent again", seed, act.ID)
			}
			switch i % 5 {
			case 0: // done, and the answer is lost
				effects[act.ID], shown[act.ID] = time.Now(), true
				b.p.sent[act.ID]++
				return connectors.Receipt{}, &connectors.Fault{Class: connectors.Unknown, Reason: lodestone.ReasonNoAnswer}
			case 1: // not done, and nobody knows
				return connectors.Receipt{}, &connectors.Fault{Class: connectors.Unknown, Reason: lodestone.ReasonNoAnswer}
			}
			shown[act.ID] = true
			return connectors.Receipt{}, nil
		}
		b.p.find = func(act connectors.Act, _ int) (connectors.Finding, error) {
			b.p.mu.Lock()
			defer b.p.mu.Unlock()
			if at, ok := effects[act.ID]; ok && time.Since(at) >= visible {
				return connectors.Finding{State: connectors.Found, Reference: "ref"}, nil
			}
			return connectors.Finding{State: connectors.Absent}, nil
		}
	}, func(b *bench) {
		ahead := time.Duration(0)
		for i := range n {
			b.submit(lead(i), nil, nil)
			if rng.IntN(4) == 0 {
				by := time.Duration(rng.IntN(12)-6)*time.Hour + time.Duration(rng.IntN(3600))*time.Second
				ahead += by
				b.setClock(by)
			}
			if rng.IntN(10) == 0 {
				b.stop()
				after(time.Duration(rng.IntN(7200)) * time.Second)
				b.start()
			}
			after(time.Duration(rng.IntN(1800)) * time.Second)
		}
		b.setClock(-ahead)
		after(14 * 24 * time.Hour)
		b.sentOnce(n)
		for i := range n {
			b.enrollmentEnded(lead(i), lodestone.EnrollmentCompleted)
		}
	})
}
