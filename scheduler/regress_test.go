package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/scheduler"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
	"github.com/lodestonehq/lodestone/sequencer"
)

// Faults that were found once, each under its name.

// A touchpoint that was proved absent is sent again at once, and its outcome is unknown anew before the
// goroutine of the first look-up has come back. It must not take the new entry with it.
func TestSecondUnknownIsLookedUpToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.p.do = func(act connectors.Act, _ int) (connectors.Receipt, error) {
			if act.Email == ada {
				return connectors.Receipt{}, &connectors.Fault{Class: connectors.Unknown, Reason: lodestone.ReasonNoAnswer}
			}
			return connectors.Receipt{}, nil
		}
		b.p.find = func(connectors.Act, int) (connectors.Finding, error) {
			return connectors.Finding{State: connectors.Absent}, nil
		}
		ctx, cancel := context.WithCancel(context.Background())
		b.s = scheduler.New(scheduler.Config{
			Store: b.store, Rulebook: b.book.Load, Accounts: map[string]scheduler.Account{"provider": b.acct},
			Committed: func(c *sequencer.Change) {
				for _, n := range c.Entry.Touchpoints {
					if n.Reason == lodestone.ReasonAbsent {
						time.Sleep(50 * time.Millisecond) // whoever listens is slow for a moment
					}
				}
			},
		})
		done := make(chan error, 1)
		go func() { done <- b.s.Run(ctx) }()
		b.stop = func() { cancel(); <-done }
		synctest.Wait()
		b.submit(ada, nil, nil)
		after(time.Hour + 29*time.Second)
		for i := range 400 { // others wake the lane all the time
			b.submit(lodestone.Email(fmt.Sprintf("x%d@example.com", i)), map[string]any{"kind": "steps"}, nil)
			after(10 * time.Millisecond)
		}
		after(24 * time.Hour)
		if got := b.history(ada); got[len(got)-1] != "invite failed attempts" {
			t.Errorf("a day later: %q, want every attempt made and looked up", got)
		}
		b.end()
	})
}

// What is committed while the account's rate is waited for still stops the act.
func TestOptOutWhileWaitingForTheRate(t *testing.T) {
	run(t, func(b *bench) {
		b.p.reserve = func() {
			time.Sleep(10 * time.Minute)
			b.plan(ada, sequencer.Suppressed{Suppression: lodestone.Suppression{Email: ada, Source: "operator", At: time.Now()}})
		}
	}, func(b *bench) {
		b.submit(ada, nil, nil)
		after(2 * time.Hour)
		b.want(ada, "invite scheduled planned", "invite skipped suppressed")
		if b.p.count() != 0 {
			t.Error("it was sent all the same")
		}
	})
}

// counting counts what is written.
type counting struct {
	*boltstore.Store
	writes *atomic.Int64
}

func (s counting) Commit(ctx context.Context, b sequencer.Batch) ([]sequencer.Result, error) {
	s.writes.Add(int64(len(b.Writes)))
	return s.Store.Commit(ctx, b)
}

// What waits under a pause for long is on record once and writes ever more seldom; when the pause is over it
// goes out, also when nobody makes it due.
func TestALongPauseWritesLittle(t *testing.T) {
	run(t, func(b *bench) { b.writes = new(atomic.Int64) }, func(b *bench) {
		pause := func(p *scheduler.Pause) {
			if err := b.store.SetPaused(context.Background(), "connector provider", p, nil); err != nil {
				t.Fatal(err)
			}
			if err := b.s.Reload(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		pause(&scheduler.Pause{At: b.now()})
		b.submit(ada, nil, nil)
		after(3 * time.Hour)
		b.writes.Store(0)
		after(24 * time.Hour)
		if n := b.writes.Load(); n > 24 {
			t.Errorf("%d writes in a day for one that is paused, want one an hour", n)
		}
		b.want(ada, "invite scheduled planned", "invite scheduled paused")
		pause(nil)
		after(time.Hour)
		b.want(ada, "invite scheduled planned", "invite scheduled paused", "invite intended ", "invite sent accepted")
	})
}

func TestPauseDoesNotDriveTheBackoff(t *testing.T) {
	run(t, func(b *bench) {
		b.p.do = func(_ connectors.Act, n int) (connectors.Receipt, error) {
			if n == 1 {
				return connectors.Receipt{}, &connectors.Fault{Class: connectors.NotDone, Reason: lodestone.ReasonNotDone}
			}
			return connectors.Receipt{}, nil
		}
	}, func(b *bench) {
		pause := func(p *scheduler.Pause) {
			if err := b.store.SetPaused(context.Background(), "all", p, nil); err != nil {
				t.Fatal(err)
			}
			if err := b.s.Reload(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		b.submit(ada, nil, nil)
		pause(&scheduler.Pause{At: time.Now()})
		after(2 * time.Hour)
		pause(nil)
		after(time.Hour)
		if len(b.p.tries()) != 2 || b.p.tries()[1].Sub(b.p.tries()[0]) > 2*time.Second {
			t.Errorf("tries at %v, want the second within 2s of the first", b.p.tries())
		}
		if n := len(b.history(ada)); n > 8 {
			t.Errorf("%d entries for one pause: %q", n, b.history(ada))
		}
	})
}

func TestAnOutageWritesLittle(t *testing.T) {
	run(t, func(b *bench) {
		b.p.blocked = func() (lodestone.Reason, time.Time, bool) {
			return lodestone.ReasonProviderUnavailable, time.Now().Add(15 * time.Second), true
		}
	}, func(b *bench) {
		b.submit(ada, nil, nil)
		after(25 * time.Hour)
		b.want(ada, "invite scheduled planned", "invite scheduled provider_unavailable")
	})
}

func TestBreakerThatOpensDuringTheCheck(t *testing.T) {
	run(t, func(b *bench) {
		b.p.unsubscribed = func() (connectors.Subscription, error) {
			return connectors.Subscription{}, &connectors.Fault{Class: connectors.NotDone, Reason: lodestone.ReasonProviderUnavailable, RetryAfter: time.Hour}
		}
	}, func(b *bench) {
		b.submit(ada, nil, nil)
		after(time.Hour + time.Second)
		b.want(ada, "invite scheduled planned", "invite scheduled provider_unavailable")
	})
}

func TestWithoutRulesWhatIsDueWaits(t *testing.T) {
	run(t, nil, func(b *bench) {
		b.submit(ada, nil, nil)
		book := b.book.Swap(nil)
		after(2 * time.Hour)
		b.want(ada, "invite scheduled planned")
		b.book.Store(book)
		after(time.Minute)
		if got := b.history(ada); got[len(got)-1] != "invite sent accepted" {
			t.Errorf("with rules again: %q", got)
		}
	})
}

func TestLookupThatKeepsFailingIsShownToAHuman(t *testing.T) {
	run(t, func(b *bench) {
		b.p.do = func(connectors.Act, int) (connectors.Receipt, error) {
			return connectors.Receipt{}, &connectors.Fault{Class: connectors.Unknown, Reason: lodestone.ReasonNoAnswer}
		}
		b.p.find = func(connectors.Act, int) (connectors.Finding, error) {
			return connectors.Finding{}, &connectors.Fault{Class: connectors.Failed, Detail: "away"}
		}
	}, func(b *bench) {
		b.submit(ada, nil, nil)
		after(24 * time.Hour)
		items, _, err := b.store.Attention(context.Background(), 10)
		if err != nil || len(items) != 1 || items[0].Kind != lodestone.AttentionTouchpoint {
			t.Errorf("attention = %+v, %v; want the touchpoint once", items, err)
		}
		if n := len(b.history(ada)); n > 12 {
			t.Errorf("%d entries for one open outcome", n)
		}
	})
}

// A rule may repeat the lead's address, and name no other: the gate cleared the lead's alone.
func TestAnotherAddressIsNotContacted(t *testing.T) {
	run(t, nil, func(b *bench) {
		b.submit(ada, map[string]any{"kind": "other"}, nil)
		b.submit("bob@example.com", map[string]any{"kind": "same"}, nil)
		after(time.Minute)
		b.want(ada, "invite scheduled planned", "invite failed bad_parameters")
		b.want("bob@example.com", "invite scheduled planned", "invite intended ", "invite sent accepted")
	})
}

// slowPauses answers the question for pauses late while it is asked to.
type slowPauses struct {
	*boltstore.Store
	slow atomic.Bool
}

func (s *slowPauses) Paused(ctx context.Context) (map[string]scheduler.Pause, error) {
	p, err := s.Store.Paused(ctx)
	if s.slow.Load() {
		time.Sleep(time.Minute)
	}
	return p, err
}

// Two people pause at once, and the answer to the first one's question comes last: it must not take back what
// the second one said.
func TestPausesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		store := &slowPauses{Store: b.store}
		ctx, cancel := context.WithCancel(context.Background())
		b.s = scheduler.New(scheduler.Config{Store: store, Rulebook: b.book.Load, Accounts: map[string]scheduler.Account{"provider": b.acct}})
		done := make(chan error, 1)
		go func() { done <- b.s.Run(ctx) }()
		b.stop = func() { cancel(); <-done }
		synctest.Wait()
		pause := func(scope string) {
			if err := b.store.SetPaused(ctx, scope, &scheduler.Pause{At: time.Now()}, nil); err != nil {
				t.Error(err)
			}
			if err := b.s.Reload(ctx); err != nil {
				t.Error(err)
			}
		}
		store.slow.Store(true)
		go pause("sequence steps")
		synctest.Wait()
		store.slow.Store(false)
		pause("sequence plain")
		after(2 * time.Minute)
		b.submit(ada, nil, nil)
		b.submit("eve@example.com", map[string]any{"kind": "steps"}, nil)
		after(2 * time.Hour)
		if b.p.count() != 0 {
			t.Errorf("%d were sent while both sequences were paused", b.p.count())
		}
		b.end()
	})
}

// An enrollment is moved to a version whose step goes through another connector while the first one's provider
// is asked. What that one answered says nothing about the other, and the act is not its own any more.
func TestMigratedWhileTheProviderIsAsked(t *testing.T) {
	named := map[string]lodestone.Operation{}
	for n, op := range operations {
		named["provider."+n], named["second."+n] = op, op
	}
	text := strings.Replace(ruleFile, "{name: invite, after: 1h, do: provider.invite, with: {firstName: there}}", "{name: invite, after: 1h, do: second.invite, with: {firstName: there}}", 1)
	set, err := rules.Compile([]rules.File{{Name: "r.yaml", Data: []byte(text)}}, rules.Options{Operations: named})
	if err != nil {
		t.Fatal(err)
	}
	run(t, func(b *bench) {
		b.p.unsubscribed = func() (connectors.Subscription, error) {
			st, err := b.store.State(context.Background(), ada)
			if err != nil {
				return connectors.Subscription{}, err
			}
			b.book.Store(sequencer.NewRulebook(set, b.book.Load().Current()))
			e := st.Lead.Active()
			b.plan(ada, sequencer.Migrated{Enrollment: e.ID, Touchpoint: e.Touchpoint.ID})
			return connectors.Subscription{Kind: "provider"}, nil
		}
	}, func(b *bench) {
		b.submit(ada, nil, nil)
		after(2 * time.Hour)
		if b.p.count() != 0 {
			t.Errorf("%d acts at the connector that the step goes through no more; history %q", b.p.count(), b.history(ada))
		}
	})
}

// What failed before a restore failed for good only until a person has it tried again.
func TestRetryOfWhatFailedBeforeARestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.submit(ada, nil, nil)
		bg := context.Background()
		st, err := b.store.State(bg, ada)
		if err != nil {
			t.Fatal(err)
		}
		id := st.Lead.Active().Touchpoint.ID
		after(time.Minute)
		now := time.Now().UTC()
		err = errors.Join(b.store.Rewound(bg, now), b.store.Claim(bg), b.store.Gather(bg, []boltstore.Outcome{
			{ID: id, Email: ada, State: lodestone.TouchpointFailed, Reason: lodestone.ReasonRefused, At: now},
		}, true))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(bg)
		b.s = scheduler.New(scheduler.Config{Store: b.store, Rulebook: b.book.Load, Accounts: map[string]scheduler.Account{"provider": b.acct}, History: b.store})
		done := make(chan error, 1)
		go func() { done <- b.s.Run(ctx) }()
		b.stop = func() { cancel(); <-done }
		after(2 * time.Hour)
		items, err := b.store.ItemsOf(bg, id)
		if err != nil || len(items) != 1 {
			t.Fatalf("%d items, %v", len(items), err)
		}
		b.plan(ada, sequencer.Operated{Operation: sequencer.Retry, Touchpoint: id, Item: &items[0]})
		after(2 * time.Hour)
		if b.p.count() != 1 {
			t.Errorf("%d acts after it was tried again; history %q", b.p.count(), b.history(ada))
		}
		b.end()
	})
}

// What was sent before a restore counts for caps as if it had been sent from here.
func TestSentBeforeARestoreCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.submit(ada, nil, nil)
		st, err := b.store.State(context.Background(), ada)
		if err != nil {
			t.Fatal(err)
		}
		at := time.Now().UTC()
		b.plan(ada, sequencer.Moved{Touchpoint: st.Lead.Active().Touchpoint.ID, From: lodestone.TouchpointScheduled, To: lodestone.TouchpointSent, Reason: lodestone.ReasonAccepted})
		if st, err = b.store.State(context.Background(), ada); err != nil {
			t.Fatal(err)
		}
		if len(st.Lead.Contacts) != 1 || !st.Lead.Contacts[0].Equal(at) {
			t.Errorf("contacts %v, want one at %v", st.Lead.Contacts, at)
		}
		b.stop = func() {}
		b.end()
	})
}

// doubtful is a history of which nothing is known.
type doubtful struct{}

func (doubtful) Before(_ context.Context, _ lodestone.Email, _ *lodestone.Enrollment, _ *lodestone.Touchpoint) (scheduler.Before, error) {
	now := time.Now().UTC()
	return scheduler.Before{Doubt: true, Since: now.Add(-time.Hour), Until: now}, nil
}

func (doubtful) Asked(context.Context, *lodestone.Enrollment, string) error { return nil }

// What may have been sent before a restore is looked up by what it is made of now; where that may have changed,
// the look-up is told.
func TestLookupOfWhatIsMadeAnew(t *testing.T) {
	for _, c := range []struct{ value, altered string }{
		{`${fields.code ?? "none"}-1`, "[]"},
		{`${string(lead.submissions)}`, "[referralCode]"},
		{`${string(score)}-${fields.code ?? "none"}`, "[referralCode]"},
	} {
		t.Run(c.value, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				refer := operations["refer"]
				refer.Parameters = []lodestone.Parameter{{Name: "referralCode", Type: lodestone.FieldText, Required: true, Finds: true}}
				b.acct.Operations = map[string]lodestone.Operation{"refer": refer}
				text := "forms: {guide: {fields: {email: {type: email, required: true}, code: {type: text}}}}\nscoring: {bands: {any: 0}}\n" +
					"sequences: {guide: {when: true, steps: [{name: refer, do: provider.refer, with: {referralCode: '" + c.value + "'}}]}}\n"
				set, err := rules.Compile([]rules.File{{Name: "r.yaml", Data: []byte(text)}}, rules.Options{Operations: map[string]lodestone.Operation{"provider.refer": refer}})
				if err != nil {
					t.Fatal(err)
				}
				b.book.Store(sequencer.NewRulebook(set))
				var altered string
				b.p.find = func(a connectors.Act, _ int) (connectors.Finding, error) {
					altered = fmt.Sprint(a.Altered)
					return connectors.Finding{State: connectors.Unclear}, nil
				}
				b.submit(ada, nil, nil)
				ctx, cancel := context.WithCancel(context.Background())
				b.s = scheduler.New(scheduler.Config{Store: b.store, Rulebook: b.book.Load, Accounts: map[string]scheduler.Account{"provider": b.acct}, History: doubtful{}})
				done := make(chan error, 1)
				go func() { done <- b.s.Run(ctx) }()
				b.stop = func() { cancel(); <-done }
				after(time.Hour)
				if altered != c.altered || b.p.count() != 0 {
					t.Errorf("the look-up is told that %s may differ, want %s; %d acts", altered, c.altered, b.p.count())
				}
				b.end()
			})
		})
	}
}
