package scheduler_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/scheduler"
	"github.com/lodestonehq/lodestone/sequencer"
)

const twoProviders = `
forms:
  guide:
    fields: {email: {type: email, required: true}, kind: {type: text}}
sequences:
  good:
    when: fields.kind == "good"
    steps:
      - {name: invite, after: 1h, do: good.invite, with: {firstName: there}}
  bad:
    when: fields.kind == "bad"
    steps:
      - {name: invite, after: 1h, do: bad.invite, with: {firstName: there}}
`

// Whatever befalls one provider, the touchpoints of another go out at their time, and its own when it is
// over, each once.
func TestOneProvidersTroubleDelaysNoOther(t *testing.T) {
	fault := func(c connectors.Class, r lodestone.Reason) error { return &connectors.Fault{Class: c, Reason: r} }
	for name, trouble := range map[string]struct {
		do      func(since time.Duration) error
		blocked bool
	}{
		"crawls": {do: func(time.Duration) error { time.Sleep(9 * time.Second); return nil }},
		"away for three hours": {do: func(since time.Duration) error {
			if since < 3*time.Hour {
				return fault(connectors.NotDone, lodestone.ReasonProviderUnavailable)
			}
			return nil
		}},
		"flaps": {do: func(since time.Duration) error {
			if int(since/(20*time.Second))%2 == 0 {
				return fault(connectors.NotDone, lodestone.ReasonProviderUnavailable)
			}
			return nil
		}},
		"429 storm": {do: func(since time.Duration) error {
			if since < 10*time.Minute {
				return &connectors.Fault{Class: connectors.NotDone, Reason: lodestone.ReasonRateLimited, RetryAfter: 30 * time.Second}
			}
			return nil
		}},
		"locked out": {blocked: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const n = 40
				b := newBench(t)
				named := map[string]lodestone.Operation{}
				for n, op := range operations {
					named["good."+n], named["bad."+n] = op, op
				}
				set, err := rules.Compile([]rules.File{{Name: "r.yaml", Data: []byte(twoProviders)}}, rules.Options{Operations: named})
				if err != nil {
					t.Fatal(err)
				}
				b.book.Store(sequencer.NewRulebook(set))
				begin := time.Now().Add(time.Hour)
				bad := &provider{sent: map[string]int{}}
				if trouble.do != nil {
					bad.do = func(connectors.Act, int) (connectors.Receipt, error) {
						return connectors.Receipt{}, trouble.do(time.Since(begin))
					}
				}
				if trouble.blocked {
					bad.blocked = func() (lodestone.Reason, time.Time, bool) {
						return lodestone.ReasonProviderUnavailable, time.Now().Add(30 * time.Second), time.Since(begin) < time.Hour
					}
				}
				account := func(p *provider) scheduler.Account {
					a := b.acct
					a.Provider, a.Attempts = p, 10
					return a
				}
				ctx, cancel := context.WithCancel(context.Background())
				b.s = scheduler.New(scheduler.Config{Store: b.store, Rulebook: b.book.Load,
					Accounts: map[string]scheduler.Account{"good": account(b.p), "bad": account(bad)}})
				done := make(chan error, 1)
				go func() { done <- b.s.Run(ctx) }()
				b.stop = func() { cancel(); <-done }
				for i := range n {
					b.submit(lodestone.Email(fmt.Sprintf("bad%d@example.com", i)), map[string]any{"kind": "bad"}, nil)
					b.submit(lodestone.Email(fmt.Sprintf("good%d@example.com", i)), map[string]any{"kind": "good"}, nil)
				}
				after(time.Until(begin) + time.Second)
				b.sentOnce(n)
				for _, at := range b.p.tries() {
					if late := at.Sub(begin); late > time.Second {
						t.Errorf("a touchpoint of the good provider went out %v late", late)
					}
				}
				after(24 * time.Hour)
				b.p = bad
				b.sentOnce(n)
				if trouble.blocked && bad.acts != n {
					t.Errorf("%d acts while locked out and after, want %d: it must not be hammered", bad.acts, n)
				}
				b.end()
			})
		})
	}
}
