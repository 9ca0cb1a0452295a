package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
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

const ruleFile = `
forms:
  guide:
    fields:
      email: {type: email, required: true}
      code: {type: text}
      kind: {type: text}
scoring:
  bands: {any: 0}
sequences:
  plain:
    when: fields.kind == nil
    reenter: always
    steps:
      - {name: invite, after: 1h, do: provider.invite, with: {firstName: there}}
  steps:
    when: fields.kind == "steps"
    steps:
      - {name: first, do: provider.invite, with: {firstName: there}}
      - {name: maybe, do: provider.invite, when: fields.code != nil, with: {firstName: there}}
      - {name: last, after: 2d, do: provider.refer, with: {referralCode: '${fields.code ?? "none"}'}}
  careful:
    when: fields.kind == "careful"
    consent: required
    exit: signals.converted
    steps:
      - {name: invite, after: 1h, do: provider.invite, with: {firstName: there}}
  other:
    when: fields.kind == "other"
    steps:
      - {name: invite, do: provider.invite, with: {firstName: there, email: someone@else.example}}
  same:
    when: fields.kind == "same"
    steps:
      - {name: invite, do: provider.invite, with: {firstName: there, email: '${fields.email}'}}
  needy:
    when: fields.kind == "needy"
    steps:
      - {name: refer, do: provider.refer, with: {referralCode: '${fields.code}'}}
`

var operations = map[string]lodestone.Operation{
	"invite": {Name: "invite", Parameters: []lodestone.Parameter{{Name: "firstName", Type: lodestone.FieldText, Required: true}, {Name: "email", Type: lodestone.FieldEmail}}},
	"refer":  {Name: "refer", Parameters: []lodestone.Parameter{{Name: "referralCode", Type: lodestone.FieldText, Required: true}}},
}

// provider is a provider in memory. The functions answer where they are set.
type provider struct {
	mu    sync.Mutex // guards calls, sent and finds
	calls []string   // in order: "check", "do ID", "find ID"
	sent  map[string]int
	at    []time.Time

	do           func(act connectors.Act, n int) (connectors.Receipt, error) // n counts the acts from 1
	unsubscribed func() (connectors.Subscription, error)
	mine         func() (string, error)
	find         func(act connectors.Act, n int) (connectors.Finding, error)
	blocked      func() (lodestone.Reason, time.Time, bool)
	reserve      func()
	acts, finds  int
}

// What a test reads while the scheduler runs is read under the lock, as a copy.

func (p *provider) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.acts
}

func (p *provider) tries() []time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.at)
}

func (p *provider) asked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.calls)
}

func (p *provider) outcomes() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.sent)
}

func (p *provider) Do(_ context.Context, act connectors.Act) (connectors.Receipt, error) {
	p.mu.Lock()
	p.acts++
	n := p.acts
	p.calls = append(p.calls, "do "+string(act.Email))
	p.at = append(p.at, time.Now())
	p.mu.Unlock()
	if p.do != nil {
		r, err := p.do(act, n)
		if err != nil {
			return r, err
		}
	}
	p.mu.Lock()
	p.sent[act.ID]++
	p.mu.Unlock()
	return connectors.Receipt{Reference: "ref", Status: 200}, nil
}

func (p *provider) Unsubscribed(context.Context, lodestone.Email) (connectors.Subscription, error) {
	p.mu.Lock()
	p.calls = append(p.calls, "check")
	p.mu.Unlock()
	if p.unsubscribed != nil {
		return p.unsubscribed()
	}
	return connectors.Subscription{Kind: "provider", Evidence: "an empty list"}, nil
}

func (p *provider) Mine(context.Context, connectors.Act) (string, error) {
	if p.mine != nil {
		return p.mine()
	}
	return "", nil
}

func (p *provider) Find(_ context.Context, act connectors.Act) (connectors.Finding, error) {
	p.mu.Lock()
	p.finds++
	n := p.finds
	p.calls = append(p.calls, "find "+string(act.Email))
	p.mu.Unlock()
	return p.find(act, n)
}

func (p *provider) Reserve(ctx context.Context) (context.Context, func(), error) {
	if p.reserve != nil {
		p.reserve()
	}
	return ctx, func() {}, nil
}

func (p *provider) Blocked() (lodestone.Reason, string, time.Time, bool) {
	if p.blocked == nil {
		return "", "", time.Time{}, false
	}
	reason, until, ok := p.blocked()
	return reason, "blocked for the test", until, ok
}

// bench is a scheduler with everything around it, inside a synctest bubble: time is fake, the store
// is a real file.
type bench struct {
	t      *testing.T
	dir    string
	store  *boltstore.Store
	book   atomic.Pointer[sequencer.Rulebook]
	p      *provider
	s      *scheduler.Scheduler
	stop   func()
	acct   scheduler.Account
	waits  func(context.Context) (uint64, error) // signals that are not applied; nil: none
	writes *atomic.Int64                         // of the scheduler; nil: nobody counts
	set    atomic.Int64                          // how far the wall clock was set, against the fake time that timers run by
}

// now is the wall clock. It has no reading of the time that nobody sets, as after a restart.
func (b *bench) now() time.Time {
	return time.Now().Add(time.Duration(b.set.Load())).Round(0)
}

func newBench(t *testing.T) *bench {
	t.Helper()
	named := map[string]lodestone.Operation{}
	for n, op := range operations {
		named["provider."+n] = op
	}
	set, err := rules.Compile([]rules.File{{Name: "r.yaml", Data: []byte(ruleFile)}}, rules.Options{Operations: named})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, dir: t.TempDir(), p: &provider{sent: map[string]int{}}}
	b.book.Store(sequencer.NewRulebook(set))
	b.acct = scheduler.Account{Provider: b.p, Concurrency: 4, Timeout: 10 * time.Second, Attempts: 3, Settle: 30 * time.Second, Operations: operations}
	b.open()
	return b
}

func (b *bench) open() {
	var err error
	if b.store, err = boltstore.Open(b.dir, boltstore.Options{}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) start() {
	ctx, cancel := context.WithCancel(context.Background())
	var store scheduler.Store = b.store
	if b.writes != nil {
		store = counting{b.store, b.writes}
	}
	b.s = scheduler.New(scheduler.Config{
		Store: store, Rulebook: b.book.Load, Now: b.now, Waiting: b.waits,
		Accounts: map[string]scheduler.Account{"provider": b.acct},
	})
	done := make(chan error, 1)
	go func() { done <- b.s.Run(ctx) }()
	b.stop = func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("Run = %v", err)
		}
	}
	synctest.Wait()
}

// end stops the scheduler and checks the file.
func (b *bench) end() {
	b.t.Helper()
	b.stop()
	faults, err := b.store.Check(context.Background())
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range faults {
		b.t.Errorf("check: %s", f)
	}
	if err := b.store.Close(); err != nil {
		b.t.Error(err)
	}
}

// plan commits an event and tells the scheduler, as intake does.
func (b *bench) plan(email lodestone.Email, ev sequencer.Event) {
	b.t.Helper()
	now := b.now().UTC()
	res, err := b.store.Commit(context.Background(), sequencer.Batch{Writes: []sequencer.Write{{Email: email, Plan: func(st sequencer.State) (sequencer.Change, error) {
		return sequencer.Plan(st.Lead, ev, b.book.Load(), now)
	}}}})
	if err != nil || res[0].Err != nil {
		b.t.Fatal(err, res[0].Err)
	}
	if b.s != nil {
		b.s.Notify(&res[0].Change)
	}
}

func (b *bench) submit(email lodestone.Email, fields map[string]any, consent *lodestone.Consent) {
	b.t.Helper()
	f := map[string]any{"email": string(email)}
	for k, v := range fields {
		f[k] = v
	}
	now := b.now().UTC()
	b.plan(email, &sequencer.Submitted{Submission: lodestone.Submission{
		ID: fmt.Sprint(now.UnixNano(), email), Form: "guide", Email: email, Fields: lodestone.FieldsOf(f), At: now, Received: now, Context: lodestone.Context{Consent: consent},
	}})
}

// after lets fake time pass.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// history is what the journal says of a lead's touchpoints, oldest first: "step state reason".
func (b *bench) history(email lodestone.Email) (list []string) {
	b.t.Helper()
	p, err := b.store.Person(context.Background(), email, 1000)
	if err != nil {
		b.t.Fatal(err)
	}
	for i := len(p.History) - 1; i >= 0; i-- {
		for _, n := range p.History[i].Touchpoints {
			list = append(list, fmt.Sprintf("%s %s %s", n.Step, n.State, n.Reason))
		}
	}
	return list
}

func (b *bench) want(email lodestone.Email, want ...string) {
	b.t.Helper()
	got := b.history(email)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		b.t.Errorf("history of %s:\n got %q\nwant %q", email, got, want)
	}
}

func (b *bench) enrollmentEnded(email lodestone.Email, want lodestone.EnrollmentState) {
	b.t.Helper()
	st, err := b.store.State(context.Background(), email)
	if err != nil {
		b.t.Fatal(err)
	}
	if a := st.Lead.Active(); a != nil || len(st.Lead.Past) != 1 || st.Lead.Past[0].State != want {
		b.t.Errorf("past = %+v, active %+v; want one that ended %s", st.Lead.Past, a, want)
	}
}

const ada = lodestone.Email("ada@example.com")

// run makes a test with a running scheduler in a bubble of fake time.
func run(t *testing.T, prepare func(*bench), body func(*bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		if prepare != nil {
			prepare(b)
		}
		b.start()
		body(b)
		b.end()
	})
}

func TestSentWhenDueAndNotBefore(t *testing.T) {
	run(t, nil, func(b *bench) {
		start := time.Now()
		b.submit(ada, nil, nil)
		after(time.Hour - time.Millisecond)
		b.want(ada, "invite scheduled planned")
		after(time.Millisecond)
		b.want(ada, "invite scheduled planned", "invite intended ", "invite sent accepted")
		if got := b.p.tries()[0].Sub(start); got != time.Hour {
			t.Errorf("sent after %v, want 1h", got)
		}
		b.enrollmentEnded(ada, lodestone.EnrollmentCompleted)
	})
}

func TestStepsFollowEachOther(t *testing.T) {
	run(t, nil, func(b *bench) {
		b.submit(ada, map[string]any{"kind": "steps"}, nil)
		synctest.Wait()
		after(48*time.Hour - time.Second)
		b.want(ada, "first scheduled planned", "first intended ", "first sent accepted",
			"maybe scheduled planned", "maybe skipped condition_false", "last scheduled planned")
		after(time.Second)
		if got := b.history(ada); got[len(got)-1] != "last sent accepted" {
			t.Errorf("history = %q, want the last step sent two days later", got)
		}
	})
}

func TestGateObjects(t *testing.T) {
	fault := func(c connectors.Class) error {
		return &connectors.Fault{Class: c, Reason: lodestone.ReasonCheckFailed}
	}
	yes, no := &lodestone.Consent{Marketing: true}, &lodestone.Consent{}
	for _, tc := range []struct {
		name    string
		fields  map[string]any
		consent *lodestone.Consent
		prepare func(*bench)
		want    string // the newest entry of the touchpoint
		ended   lodestone.EnrollmentState
		calls   int // of the provider, checks included
	}{
		{"no consent on record", map[string]any{"kind": "careful"}, nil, nil, "invite skipped no_consent", lodestone.EnrollmentCompleted, 0},
		{"consent refused", map[string]any{"kind": "careful"}, no, nil, "invite skipped no_consent", lodestone.EnrollmentCompleted, 0},
		{"consent given", map[string]any{"kind": "careful"}, yes, nil, "invite sent accepted", lodestone.EnrollmentCompleted, 2},
		{"suppressed", nil, nil, func(b *bench) {
			b.plan(ada, sequencer.Suppressed{Suppression: lodestone.Suppression{Email: ada, Source: "operator", At: time.Now()}})
		}, "invite skipped suppressed", lodestone.EnrollmentSuppressed, 0},
		{"converted meanwhile", map[string]any{"kind": "careful"}, yes, func(b *bench) {
			b.plan(ada, sequencer.Signalled{Signal: lodestone.Signal{ID: "s", Kind: lodestone.SignalConverted, Email: ada, At: time.Now(), Received: time.Now()}})
		}, "invite cancelled converted", lodestone.EnrollmentConverted, 0},
		{"unsubscribed at the provider", nil, nil, func(b *bench) {
			b.p.unsubscribed = func() (connectors.Subscription, error) { return connectors.Subscription{Unsubscribed: true}, nil }
		}, "invite skipped unsubscribed", lodestone.EnrollmentUnsubscribed, 1},
		{"a required parameter is absent", map[string]any{"kind": "needy"}, nil, nil, "refer failed bad_parameters", lodestone.EnrollmentCompleted, 0},
		{"the check fails", nil, nil, func(b *bench) {
			b.p.unsubscribed = func() (connectors.Subscription, error) { return connectors.Subscription{}, fault(connectors.Failed) }
		}, "invite scheduled check_failed", "", -1},
		{"the check is rate limited", nil, nil, func(b *bench) {
			b.p.unsubscribed = func() (connectors.Subscription, error) {
				return connectors.Subscription{}, fault(connectors.RateLimited)
			}
		}, "invite scheduled rate_limited", "", -1},
		{"the breaker is open", nil, nil, func(b *bench) {
			b.p.blocked = func() (lodestone.Reason, time.Time, bool) {
				return lodestone.ReasonProviderUnavailable, time.Now().Add(time.Second), true
			}
		}, "invite scheduled provider_unavailable", "", 0},
		{"it is about somebody else", nil, nil, func(b *bench) {
			b.p.mine = func() (string, error) {
				return "", &connectors.Fault{Class: connectors.Refused, Reason: lodestone.ReasonBadParameters, Detail: "id stands for somebody else"}
			}
		}, "invite failed bad_parameters", lodestone.EnrollmentCompleted, 0},
		{"whom it is about cannot be asked", nil, nil, func(b *bench) {
			b.p.mine = func() (string, error) { return "", fault(connectors.Failed) }
		}, "invite scheduled check_failed", "", 0},
		{"everything is paused", nil, nil, func(b *bench) {
			if err := b.store.SetPaused(context.Background(), "all", &scheduler.Pause{At: time.Now()}, nil); err != nil {
				b.t.Fatal(err)
			}
		}, "invite scheduled paused", "", 0},
		{"the sequence is paused", nil, nil, func(b *bench) {
			if err := b.store.SetPaused(context.Background(), "sequence plain", &scheduler.Pause{At: time.Now()}, nil); err != nil {
				b.t.Fatal(err)
			}
		}, "invite scheduled paused", "", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			run(t, nil, func(b *bench) {
				b.submit(ada, tc.fields, tc.consent)
				if tc.prepare != nil {
					tc.prepare(b)
					if err := b.s.Reload(context.Background()); err != nil {
						t.Fatal(err)
					}
				}
				after(time.Hour)
				got := b.history(ada)
				if got[len(got)-1] != tc.want {
					t.Errorf("history = %q, want it to end in %q", got, tc.want)
				}
				if tc.calls >= 0 && len(b.p.asked()) != tc.calls {
					t.Errorf("the provider was called: %q, want %d calls", b.p.asked(), tc.calls)
				}
				if b.p.count() > 0 && tc.want != "invite sent accepted" {
					t.Error("it was sent all the same")
				}
				if tc.ended != "" {
					b.enrollmentEnded(ada, tc.ended)
				}
			})
		})
	}
}

func TestVerdictsAreStoredInOrder(t *testing.T) {
	run(t, nil, func(b *bench) {
		b.submit(ada, nil, nil)
		after(time.Hour)
		p, err := b.store.Person(context.Background(), ada, 10)
		if err != nil {
			t.Fatal(err)
		}
		var got []lodestone.Check
		for _, e := range p.History {
			for _, n := range e.Touchpoints {
				for _, v := range n.Verdicts {
					if !v.OK {
						t.Errorf("%s objected: %s", v.Check, v.Evidence)
					}
					got = append(got, v.Check)
				}
			}
		}
		want := []lodestone.Check{"paused", "erased", "enrollment", "condition", "grace", "window", "suppression", "consent", "cap", "connector", "provider"}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("verdicts = %v, want %v", got, want)
		}
	})
}

// What becomes known while the provider is asked must still stop the act.
func TestSuppressionDuringTheCheckStopsTheAct(t *testing.T) {
	run(t, func(b *bench) {
		b.p.unsubscribed = func() (connectors.Subscription, error) {
			b.plan(ada, sequencer.Suppressed{Suppression: lodestone.Suppression{Email: ada, Source: "operator", At: time.Now()}})
			return connectors.Subscription{Kind: "provider"}, nil
		}
	}, func(b *bench) {
		b.submit(ada, nil, nil)
		after(time.Hour)
		b.want(ada, "invite scheduled planned", "invite skipped suppressed")
		if b.p.count() != 0 {
			t.Error("it was sent all the same")
		}
	})
}

func TestFailedCalls(t *testing.T) {
	for _, tc := range []struct {
		name  string
		fault connectors.Fault
		times int // the provider fails so often, then takes it
		acts  int
		last  string
	}{
		{"not done, then taken", connectors.Fault{Class: connectors.NotDone, Reason: lodestone.ReasonNotDone, CountsAttempt: true}, 2, 3, "invite sent accepted"},
		{"attempts run out", connectors.Fault{Class: connectors.NotDone, Reason: lodestone.ReasonNotDone, CountsAttempt: true}, 99, 3, "invite failed attempts"},
		{"429 uses up no attempts", connectors.Fault{Class: connectors.RateLimited, Reason: lodestone.ReasonRateLimited}, 9, 10, "invite sent accepted"},
		{"locked out uses up no attempts", connectors.Fault{Class: connectors.LockedOut, Reason: lodestone.ReasonProviderUnavailable}, 9, 10, "invite sent accepted"},
		{"refused for good", connectors.Fault{Class: connectors.Refused, Reason: lodestone.ReasonRefused}, 99, 1, "invite failed refused"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			run(t, nil, func(b *bench) {
				b.p.do = func(_ connectors.Act, n int) (connectors.Receipt, error) {
					if n <= tc.times {
						f := tc.fault
						return connectors.Receipt{}, &f
					}
					return connectors.Receipt{}, nil
				}
				b.submit(ada, nil, nil)
				after(24 * time.Hour)
				got := b.history(ada)
				if got[len(got)-1] != tc.last || b.p.count() != tc.acts {
					t.Errorf("history = %q after %d acts, want %q after %d", got, b.p.count(), tc.last, tc.acts)
				}
			})
		})
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	run(t, nil, func(b *bench) {
		b.p.do = func(_ connectors.Act, n int) (connectors.Receipt, error) {
			if n == 1 {
				return connectors.Receipt{}, &connectors.Fault{Class: connectors.RateLimited, Reason: lodestone.ReasonRateLimited, RetryAfter: 20 * time.Minute}
			}
			return connectors.Receipt{}, nil
		}
		b.submit(ada, nil, nil)
		after(2 * time.Hour)
		if len(b.p.tries()) != 2 || b.p.tries()[1].Sub(b.p.tries()[0]) < 20*time.Minute {
			t.Errorf("acts at %v, want the second at least 20 minutes after the first", b.p.tries())
		}
	})
}

func TestBackoffGrowsAndIsBounded(t *testing.T) {
	run(t, nil, func(b *bench) {
		b.p.do = func(connectors.Act, int) (connectors.Receipt, error) {
			return connectors.Receipt{}, &connectors.Fault{Class: connectors.RateLimited, Reason: lodestone.ReasonRateLimited}
		}
		b.submit(ada, nil, nil)
		after(13 * time.Hour)
		if len(b.p.tries()) < 50 {
			t.Fatalf("%d tries in 12 hours, want at least one every 5 minutes on average", len(b.p.tries()))
		}
		for i := 1; i < len(b.p.tries()); i++ {
			limit := 5 * time.Minute
			if i < 8 {
				limit = min(limit, 2*time.Second<<(i-1))
			}
			if wait := b.p.tries()[i].Sub(b.p.tries()[i-1]); wait > limit {
				t.Errorf("wait %d was %v, want at most %v", i, wait, limit)
			}
		}
	})
}

func TestUnknownOutcomes(t *testing.T) {
	finding := func(s connectors.FindingState) func(connectors.Act, int) (connectors.Finding, error) {
		return func(connectors.Act, int) (connectors.Finding, error) {
			return connectors.Finding{State: s, Reference: "found it"}, nil
		}
	}
	for _, tc := range []struct {
		name      string
		find      func(connectors.Act, int) (connectors.Finding, error)
		hold      bool
		acts      int
		last      string
		within    time.Duration // after the call
		notBefore time.Duration
	}{
		{"found", finding(connectors.Found), false, 1, "invite sent found", 2 * time.Second, 0},
		{"absent is believed after it settled, and only then sent again", finding(connectors.Absent), false, 2, "invite sent accepted", time.Minute, 30 * time.Second},
		{"unclear goes to a human", finding(connectors.Unclear), false, 1, "invite held unclear", time.Minute, 30 * time.Second},
		{"no look-up goes to a human", finding(connectors.Unsupported), false, 1, "invite held no_lookup", 2 * time.Second, 0},
		{"on_unknown: hold asks nobody", nil, true, 1, "invite held no_lookup", time.Second, 0},
		{"seen late", func(_ connectors.Act, n int) (connectors.Finding, error) {
			if n < 2 {
				return connectors.Finding{State: connectors.Absent}, nil
			}
			return connectors.Finding{State: connectors.Found}, nil
		}, false, 1, "invite sent found", time.Minute, 30 * time.Second},
		{"the look-up fails for a while", func(_ connectors.Act, n int) (connectors.Finding, error) {
			if n < 6 {
				return connectors.Finding{}, errors.New("away")
			}
			return connectors.Finding{State: connectors.Found}, nil
		}, false, 1, "invite sent found", time.Hour, 30 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			run(t, func(b *bench) { b.acct.HoldUnknown = tc.hold }, func(b *bench) {
				b.p.find = tc.find
				b.p.do = func(_ connectors.Act, n int) (connectors.Receipt, error) {
					if n == 1 {
						return connectors.Receipt{}, &connectors.Fault{Class: connectors.Unknown, Reason: lodestone.ReasonNoAnswer}
					}
					return connectors.Receipt{}, nil
				}
				b.submit(ada, nil, nil)
				if tc.notBefore > 0 {
					after(time.Hour + tc.notBefore - time.Second)
					if got := b.history(ada); got[len(got)-1] == tc.last {
						t.Errorf("settled before %v: %q", tc.notBefore, got)
					}
					after(tc.within - tc.notBefore + time.Second)
				} else {
					after(time.Hour + tc.within)
				}
				got := b.history(ada)
				if got[len(got)-1] != tc.last || b.p.count() != tc.acts {
					t.Errorf("history = %q after %d acts, want %q after %d", got, b.p.count(), tc.last, tc.acts)
				}
			})
		})
	}
}

func TestHeldTouchpointsAreUnderAttention(t *testing.T) {
	run(t, func(b *bench) { b.acct.HoldUnknown = true }, func(b *bench) {
		b.p.do = func(connectors.Act, int) (connectors.Receipt, error) {
			return connectors.Receipt{}, &connectors.Fault{Class: connectors.Unknown, Reason: lodestone.ReasonNoAnswer, Detail: "timeout"}
		}
		b.submit(ada, nil, nil)
		after(time.Hour)
		items, _, err := b.store.Attention(context.Background(), 10)
		if err != nil || len(items) != 1 || items[0].Kind != lodestone.AttentionTouchpoint || items[0].Email != ada {
			t.Errorf("attention = %+v, %v; want the touchpoint", items, err)
		}
	})
}

// What only reads is done again after such a kill: nobody has to look.
func TestInterruptedReadIsMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.acct.Operations = map[string]lodestone.Operation{"invite": {Name: "invite", Effect: lodestone.EffectRead, Parameters: operations["invite"].Parameters}}
		b.submit(ada, nil, nil)
		st, err := b.store.State(context.Background(), ada)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		b.plan(ada, sequencer.Moved{Touchpoint: st.Lead.Active().Touchpoint.ID, From: lodestone.TouchpointScheduled, To: lodestone.TouchpointIntended})
		b.p.find = func(connectors.Act, int) (connectors.Finding, error) {
			t.Error("it was looked up")
			return connectors.Finding{State: connectors.Unsupported}, nil
		}
		b.start()
		after(time.Second)
		b.want(ada, "invite scheduled planned", "invite intended ", "invite unknown interrupted", "invite scheduled absent", "invite intended ", "invite sent accepted")
		b.end()
	})
}

// A process that was killed between intent and outcome has the touchpoint looked up at the next
// start, and nothing else goes out through that connector before the provider was asked.
func TestInterruptedCallIsLookedUpBeforeAnythingIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.submit(ada, nil, nil)
		b.submit("bob@example.com", nil, nil)
		st, err := b.store.State(context.Background(), ada)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		b.plan(ada, sequencer.Moved{Touchpoint: st.Lead.Active().Touchpoint.ID, From: lodestone.TouchpointScheduled, To: lodestone.TouchpointIntended})
		b.p.find = func(connectors.Act, int) (connectors.Finding, error) {
			return connectors.Finding{State: connectors.Found}, nil
		}
		b.start()
		after(time.Second)
		b.want(ada, "invite scheduled planned", "invite intended ", "invite unknown interrupted", "invite sent found")
		if len(b.p.asked()) != 3 || b.p.asked()[0] != "find ada@example.com" || b.p.asked()[2] != "do bob@example.com" {
			t.Errorf("calls = %q, want the look-up first, then bob's touchpoint", b.p.asked())
		}
		b.end()
	})
}

func TestStopWaitsForTheCallInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.p.do = func(connectors.Act, int) (connectors.Receipt, error) {
			time.Sleep(5 * time.Second)
			return connectors.Receipt{}, nil
		}
		b.submit(ada, nil, nil)
		b.submit("bob@example.com", nil, nil)
		b.acct.Concurrency = 1
		b.start()
		after(time.Hour + time.Second)
		begin, stop, waited := time.Now(), b.stop, time.Duration(0)
		b.stop = func() { stop(); waited = time.Since(begin) } // the store waits for a tick of its file's clock when it is closed
		b.end()
		if waited != 4*time.Second {
			t.Errorf("stopping took %v, want the 4s that the call still took", waited)
		}
		if b.p.count() != 1 {
			t.Errorf("%d acts, want none begun after the stop", b.p.count())
		}
		b.open()
		b.want(ada, "invite scheduled planned", "invite intended ", "invite sent accepted")
		b.store.Close()
	})
}

// countingStore counts how often the scheduler looks.
type countingStore struct {
	*boltstore.Store
	mu  sync.Mutex
	due int
}

func (c *countingStore) Due(ctx context.Context, lane string, until time.Time, limit int, after string, skip func(lodestone.Email) bool) ([]scheduler.DueItem, time.Time, error) {
	c.mu.Lock()
	c.due++
	c.mu.Unlock()
	return c.Store.Due(ctx, lane, until, limit, after, skip)
}

func TestIdleSchedulerSleeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		store := &countingStore{Store: b.store}
		b.submit(ada, nil, nil)
		ctx, cancel := context.WithCancel(context.Background())
		s := scheduler.New(scheduler.Config{Store: store, Rulebook: b.book.Load, Accounts: map[string]scheduler.Account{"provider": b.acct}})
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		after(59 * time.Minute)
		cancel()
		<-done
		if store.due > 62 {
			t.Errorf("the queue was read %d times in 59 idle minutes, want at most once a minute", store.due)
		}
		b.store.Close()
	})
}

func TestOneLanesTroubleDelaysNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.p.do = func(act connectors.Act, _ int) (connectors.Receipt, error) {
			if act.Email == ada {
				time.Sleep(10 * time.Second)
			}
			return connectors.Receipt{}, nil
		}
		b.start()
		b.submit(ada, nil, nil)
		b.submit("bob@example.com", nil, nil)
		after(time.Hour + time.Second)
		if got := b.history("bob@example.com"); got[len(got)-1] != "invite sent accepted" {
			t.Errorf("bob waits for ada: %q", got)
		}
		after(10 * time.Second)
		b.end()
	})
}

func TestLaneWithoutSettingsWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		ctx, cancel := context.WithCancel(context.Background())
		s := scheduler.New(scheduler.Config{Store: b.store, Rulebook: b.book.Load})
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		synctest.Wait()
		b.s = s
		b.submit(ada, nil, nil)
		after(2 * time.Hour)
		got := b.history(ada)
		if got[len(got)-1] != "invite scheduled provider_unavailable" {
			t.Errorf("history = %q, want it to wait for settings", got)
		}
		cancel()
		<-done
		b.store.Close()
	})
}
