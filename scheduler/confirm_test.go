package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/scheduler"
	"github.com/lodestonehq/lodestone/sequencer"
)

const optInRules = `
forms:
  guide:
    fields: {email: {type: email, required: true}, country: {type: text}}
sequences:
  news:
    when: form == "guide"
    consent: confirmed
    reenter: always
    steps:
      - {name: ask, do: provider.invite, with: {firstName: 'Please: ${links.confirm}'}, confirm: 7d}
      - {name: welcome, after: 1h, grace: 2h, do: provider.invite, with: {firstName: there}}
      - {name: last, after: 1d, do: provider.invite, with: {firstName: there}}
`

// optIn takes rules of double opt-in; without links where there is no public address.
func (b *bench) optIn(text string, links bool) {
	b.t.Helper()
	opts := rules.Options{Operations: map[string]lodestone.Operation{"provider.invite": operations["invite"]}}
	if links {
		opts.Link = func(name string, _ lodestone.Email, _ time.Time) string { return "https://forms.example.com/" + name }
	}
	set, err := rules.Compile([]rules.File{{Name: "r.yaml", Data: []byte(text)}}, opts)
	if err != nil {
		b.t.Fatal(err)
	}
	b.book.Store(sequencer.NewRulebook(set))
}

func (b *bench) signal(kind lodestone.SignalKind) {
	b.t.Helper()
	now := b.now().UTC()
	b.plan(ada, sequencer.Signalled{Signal: lodestone.Signal{ID: fmt.Sprint(kind, now), Kind: kind, Email: ada, At: now, Received: now}})
}

// evidence is what the newest verdict of a check said.
func (b *bench) evidence(check lodestone.Check) string {
	b.t.Helper()
	p, err := b.store.Person(context.Background(), ada, 1000)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, e := range p.History {
		for _, n := range e.Touchpoints {
			for _, v := range n.Verdicts {
				if v.Check == check {
					return v.Evidence
				}
			}
		}
	}
	return ""
}

var agreed = &lodestone.Consent{Marketing: true}

func TestWelcomeWaitsForTheConfirmation(t *testing.T) {
	run(t, func(b *bench) { b.optIn(optInRules, true) }, func(b *bench) {
		b.submit(ada, nil, agreed)
		after(6 * 24 * time.Hour)
		if n := b.p.count(); n != 1 {
			t.Fatalf("%d acts before the confirmation, want the question alone", n)
		}
		// A restart in between changes nothing.
		b.stop()
		if err := b.store.Close(); err != nil {
			t.Fatal(err)
		}
		b.open()
		b.start()
		b.signal(lodestone.SignalConfirmed)
		after(59 * time.Minute)
		if n := b.p.count(); n != 1 {
			t.Fatalf("%d acts within the hour after the confirmation, want 1", n)
		}
		after(30 * 24 * time.Hour)
		b.want(ada,
			"ask scheduled planned", "ask intended ", "ask sent accepted",
			"welcome scheduled planned", "welcome scheduled awaiting_confirmation", "welcome scheduled address_confirmed", "welcome intended ", "welcome sent accepted",
			"last scheduled planned", "last intended ", "last sent accepted")
		b.enrollmentEnded(ada, lodestone.EnrollmentCompleted)
		if says := b.evidence(lodestone.CheckConsent); !strings.Contains(says, "confirmed at 2000-01-07") {
			t.Errorf("the gate says of consent %q", says)
		}
		// The next time nobody is asked.
		b.submit(ada, nil, nil)
		after(2 * time.Hour)
		if got := b.history(ada)[11:]; fmt.Sprint(got[:4]) != "[ask scheduled planned ask skipped already_confirmed welcome scheduled planned welcome intended ]" {
			t.Errorf("the second time: %q", got)
		}
	})
}

func TestNobodyConfirms(t *testing.T) {
	run(t, func(b *bench) { b.optIn(optInRules, true) }, func(b *bench) {
		b.submit(ada, nil, agreed)
		after(7*24*time.Hour - time.Second)
		if h := b.history(ada); h[len(h)-1] != "welcome scheduled awaiting_confirmation" {
			t.Errorf("before the deadline: %q", h)
		}
		after(time.Second)
		b.want(ada, "ask scheduled planned", "ask intended ", "ask sent accepted",
			"welcome scheduled planned", "welcome scheduled awaiting_confirmation", "welcome cancelled unconfirmed")
		b.enrollmentEnded(ada, lodestone.EnrollmentExited)
		b.signal(lodestone.SignalConfirmed)
		after(30 * 24 * time.Hour)
		if n := b.p.count(); n != 1 {
			t.Errorf("%d acts, want 1", n)
		}
	})
}

// While signals are behind, the deadline waits for them: one of them may be the confirmation.
func TestDeadlineWaitsForSignals(t *testing.T) {
	var behind atomic.Int32
	run(t, func(b *bench) {
		b.optIn(optInRules, true)
		b.waits = func(context.Context) (uint64, error) {
			if behind.Load() == 2 {
				return 0, errors.New("the broker is away")
			}
			return uint64(behind.Load()), nil
		}
	}, func(b *bench) {
		b.submit(ada, nil, agreed)
		behind.Store(1)
		after(7*24*time.Hour + time.Hour)
		behind.Store(2)
		after(time.Hour)
		if h := b.history(ada); h[len(h)-1] != "welcome scheduled awaiting_confirmation" || len(h) != 5 {
			t.Errorf("while signals are behind: %q", h)
		}
		b.signal(lodestone.SignalConfirmed)
		behind.Store(0)
		after(2 * time.Hour)
		if n := b.p.count(); n != 2 {
			t.Errorf("%d acts, want 2", n)
		}
	})
}

func TestConfirmationAndPause(t *testing.T) {
	run(t, func(b *bench) { b.optIn(optInRules, true) }, func(b *bench) {
		b.submit(ada, nil, agreed)
		after(time.Hour)
		if err := b.store.SetPaused(context.Background(), "all", &scheduler.Pause{At: time.Now()}, nil); err != nil {
			t.Fatal(err)
		}
		if err := b.s.Reload(context.Background()); err != nil {
			t.Fatal(err)
		}
		b.signal(lodestone.SignalConfirmed)
		after(90 * time.Minute)
		if n := b.p.count(); n != 1 {
			t.Errorf("%d acts while all is paused, want 1", n)
		}
		if err := b.store.SetPaused(context.Background(), "all", nil, nil); err != nil {
			t.Fatal(err)
		}
		if err := b.s.Reload(context.Background()); err != nil {
			t.Fatal(err)
		}
		after(45 * time.Minute) // nobody made it due, so it waits for half as long again at most
		if n := b.p.count(); n != 2 {
			t.Errorf("%d acts after the pause, want 2", n)
		}
	})
}

func TestConfirmedConsent(t *testing.T) {
	for _, c := range []struct {
		name    string
		rules   string
		consent *lodestone.Consent
		links   bool
		then    func(*bench)
		want    string
	}{
		{"no consent: not even asked", optInRules, nil, true, func(*bench) {}, "ask skipped no_consent; welcome cancelled unconfirmed"},
		{"withdrawn after it was confirmed", optInRules, agreed, true, func(b *bench) {
			b.signal(lodestone.SignalConfirmed)
			after(time.Minute)
			b.signal(lodestone.SignalWithdrawn)
		}, "ask sent accepted; welcome skipped no_consent; last skipped no_consent"},
		{"withdrawn while it waits", optInRules, agreed, true, func(b *bench) { b.signal(lodestone.SignalWithdrawn) }, "ask sent accepted; welcome cancelled unconfirmed"},
		{"nobody asks", strings.Replace(optInRules, ", confirm: 7d", "", 1), agreed, true, func(*bench) {},
			"ask skipped no_consent; welcome skipped no_consent; last skipped no_consent"},
		{"no public address", optInRules, agreed, false, func(*bench) {}, "ask failed bad_parameters; welcome cancelled unconfirmed"},
		{"a condition that fails does not say that nobody need be asked",
			strings.Replace(optInRules, "confirm: 7d", `confirm: 7d, when: 'int(fields.country ?? "x") > 3'`, 1), agreed, true, func(*bench) {},
			"ask skipped condition_fault; welcome cancelled unconfirmed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			run(t, func(b *bench) { b.optIn(c.rules, c.links) }, func(b *bench) {
				b.submit(ada, nil, c.consent)
				after(time.Second)
				c.then(b)
				after(30 * 24 * time.Hour)
				var ended []string
				for _, h := range b.history(ada) {
					if !strings.Contains(h, "scheduled") && !strings.Contains(h, "intended") {
						ended = append(ended, h)
					}
				}
				if got := strings.Join(ended, "; "); got != c.want {
					t.Errorf("came to %q, want %q", got, c.want)
				}
			})
		})
	}
}

// A question whose outcome is open is settled first; that it was answered meanwhile is known then.
func TestQuestionInDoubt(t *testing.T) {
	run(t, func(b *bench) {
		b.optIn(optInRules, true)
		b.p.do = func(_ connectors.Act, n int) (connectors.Receipt, error) {
			if n == 1 {
				return connectors.Receipt{}, &connectors.Fault{Class: connectors.Unknown, Reason: lodestone.ReasonNoAnswer}
			}
			return connectors.Receipt{}, nil
		}
		b.p.find = func(connectors.Act, int) (connectors.Finding, error) {
			return connectors.Finding{State: connectors.Absent}, nil
		}
	}, func(b *bench) {
		b.submit(ada, nil, agreed)
		after(10 * time.Second)
		b.signal(lodestone.SignalConfirmed) // by a link of an earlier message
		after(2 * time.Hour)
		got := b.history(ada)
		if last := got[len(got)-1]; b.p.count() != 2 || last != "last scheduled planned" || !strings.Contains(fmt.Sprint(got), "ask skipped already_confirmed") {
			t.Errorf("%d acts, history %q; want the question not sent again, and the welcome sent", b.p.count(), got)
		}
	})
}

// Ahead shows what follows as if the address were confirmed at once, and until when it can be.
func TestAheadOfAConfirmation(t *testing.T) {
	run(t, func(b *bench) { b.optIn(optInRules, true) }, func(b *bench) {
		b.stop()
		begun := time.Now()
		b.submit(ada, nil, agreed)
		look := func() (said []string) {
			st, err := b.store.State(context.Background(), ada)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range scheduler.Ahead(st, b.book.Load(), nil, nil, time.Now().UTC()) {
				says := fmt.Sprint(c.Step, " ", c.Outcome, " ", c.At.Sub(begun))
				if !c.Awaits.IsZero() {
					says += fmt.Sprint(" until ", c.Awaits.Sub(begun))
				}
				said = append(said, says)
			}
			return said
		}
		if got, want := fmt.Sprint(look()), "[ask sent 0s welcome sent 1h0m0s until 168h0m0s last sent 25h0m0s]"; got != want {
			t.Errorf("before the question: %s, want %s", got, want)
		}
		b.start()
		after(24 * time.Hour)
		if got, want := fmt.Sprint(look()), "[welcome sent 25h0m0s until 168h0m0s last sent 49h0m0s]"; got != want {
			t.Errorf("a day after the question: %s, want %s", got, want)
		}
		b.stop()
		after(7 * 24 * time.Hour)
		if got, want := fmt.Sprint(look()), "[welcome cancelled 192h0m0s]"; got != want {
			t.Errorf("past the deadline: %s, want %s", got, want)
		}
		b.start()
	})
}

// Whoever opts out while a confirmation is awaited has opted out: the enrollment ends at once, for that reason.
func TestOptOutWhileAwaiting(t *testing.T) {
	ended := func(b *bench) {
		t.Helper()
		b.want(ada, "ask scheduled planned", "ask intended ", "ask sent accepted",
			"welcome scheduled planned", "welcome scheduled awaiting_confirmation", "welcome skipped suppressed")
		b.enrollmentEnded(ada, lodestone.EnrollmentSuppressed)
		if says := b.evidence(lodestone.CheckSuppression); !strings.Contains(says, "suppressed since 2000-01-0") {
			t.Errorf("the gate says of it %q", says)
		}
	}
	by := map[string]func(*bench){
		"a signal": func(b *bench) { b.signal(lodestone.SignalUnsubscribed) },
		"an operator": func(b *bench) {
			b.plan(ada, sequencer.Suppressed{Suppression: lodestone.Suppression{Email: ada, Reason: "by phone", Source: "operator", At: b.now().UTC()}})
		},
	}
	for name, optOut := range by {
		t.Run(name, func(t *testing.T) {
			run(t, func(b *bench) { b.optIn(optInRules, true) }, func(b *bench) {
				b.submit(ada, nil, agreed)
				after(24 * time.Hour)
				optOut(b)
				after(time.Second)
				ended(b)
			})
		})
	}
	t.Run("while the question is on its way", func(t *testing.T) {
		run(t, func(b *bench) {
			b.optIn(optInRules, true)
			b.p.do = func(connectors.Act, int) (connectors.Receipt, error) {
				b.signal(lodestone.SignalUnsubscribed)
				return connectors.Receipt{}, nil
			}
		}, func(b *bench) {
			b.submit(ada, nil, agreed)
			after(time.Second)
			ended(b)
		})
	})
	t.Run("taken back before the gate looks", func(t *testing.T) {
		run(t, func(b *bench) { b.optIn(optInRules, true) }, func(b *bench) {
			b.submit(ada, nil, agreed)
			after(24 * time.Hour)
			b.stop()
			b.signal(lodestone.SignalUnsubscribed)
			b.plan(ada, sequencer.Suppressed{Suppression: lodestone.Suppression{Email: ada, Source: "operator"}, Removed: true})
			b.start()
			after(5 * 24 * time.Hour)
			if h := b.history(ada); b.p.count() != 1 || h[len(h)-1] != "welcome scheduled awaiting_confirmation" {
				t.Errorf("%d acts, history %q; want that it waits on", b.p.count(), h)
			}
			after(2 * 24 * time.Hour)
			b.enrollmentEnded(ada, lodestone.EnrollmentExited)
		})
	})
}

// What is looked for must be what was sent: a look-up is told which parameters are not kept as they were, also
// where nothing in them looks like a link any more, and by which the provider finds the act none may be.
func TestLinksAndLookups(t *testing.T) {
	with := func(value string) string {
		return strings.Replace(optInRules, "'Please: ${links.confirm}'", "'"+value+"'", 1)
	}
	for _, c := range []struct{ name, value, altered string }{
		{"a link", "${links.confirm}", "[firstName]"},
		{"what is left of one", "${links.confirm contains \"<\" ? \"kept\" : \"sent\"}", "[firstName]"},
		{"no link", "there", "[]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var asked string
			run(t, func(b *bench) {
				b.optIn(with(c.value), true)
				b.p.do = func(connectors.Act, int) (connectors.Receipt, error) {
					return connectors.Receipt{}, &connectors.Fault{Class: connectors.Unknown, Reason: lodestone.ReasonNoAnswer}
				}
				b.p.find = func(a connectors.Act, _ int) (connectors.Finding, error) {
					asked = fmt.Sprint(a.Altered)
					return connectors.Finding{State: connectors.Unclear}, nil
				}
			}, func(b *bench) {
				b.submit(ada, nil, agreed)
				after(time.Hour)
				if asked != c.altered {
					t.Errorf("the look-up is told that %s are not as they were sent, want %s", asked, c.altered)
				}
			})
		})
	}
	t.Run("the provider finds the act by it", func(t *testing.T) {
		run(t, func(b *bench) {
			b.optIn(optInRules, true)
			op := operations["invite"]
			op.Parameters = slices.Clone(op.Parameters)
			op.Parameters[0].Finds = true
			b.acct.Operations = map[string]lodestone.Operation{"invite": op}
		}, func(b *bench) {
			b.submit(ada, nil, agreed)
			after(time.Minute)
			if got := b.history(ada); b.p.count() != 0 || !slices.Contains(got, "ask failed bad_parameters") {
				t.Errorf("%d acts, history %q; want none, and the step failed", b.p.count(), got)
			}
		})
	})
}
