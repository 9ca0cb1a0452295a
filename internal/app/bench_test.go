package app

import (
	"context"
	"fmt"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/referralrock"
	"github.com/lodestonehq/lodestone/connectors/sandbox"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/scheduler"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
	"github.com/lodestonehq/lodestone/sequencer"
)

const benchRules = `
forms:
  guide:
    fields:
      email: {type: email, required: true}
scoring:
  bands: {any: 0}
sequences:
  invite:
    when: 'true'
    steps:
      - {name: invite, do: referralrock.invite, with: {firstName: there}}
`

// benchAccount is a ReferralRock account at a sandbox that answers at once, 64 calls at a time.
func benchAccount(b *testing.B) *connectors.Account {
	b.Helper()
	box := sandbox.New(sandbox.Options{})
	server := httptest.NewServer(box.Handler())
	b.Cleanup(server.Close)
	a, err := connectors.Open(referralrock.Kind(), connectors.Settings{
		Name: "referralrock", BaseURL: server.URL + "/referralrock", Rate: 1e6, Concurrency: benchWorkers,
		Secrets: map[string]connectors.Secret{"public_key": "a", "private_key": "b"},
	})
	if err != nil {
		b.Fatal(err)
	}
	return a
}

const benchWorkers = 64

// BenchmarkDispatch sends touchpoints that are due: gate, the provider's check, the intent, the act
// and the outcome, each synced, 64 at a time through the sandbox over HTTP. Beside it stand the two
// calls alone, by as many workers through the same account.
func BenchmarkDispatch(b *testing.B) {
	const n = 2000
	w := &Worker{accounts: map[string]*connectors.Account{"referralrock": benchAccount(b)}}
	var sent, seconds, ceiling float64
	for b.Loop() {
		took := benchDispatch(b, w, n)
		seconds += took.Seconds()
		sent += n
		ceiling += benchCalls(b, w.accounts["referralrock"], n).Seconds()
	}
	b.ReportMetric(sent/seconds, "touchpoints/s")
	b.ReportMetric(sent/ceiling, "ceiling/s")
	b.ReportMetric(ceiling/seconds, "of-ceiling")
	b.ReportMetric(0, "ns/op") // it would count both
}

func benchDispatch(b *testing.B, w *Worker, n int) time.Duration {
	b.Helper()
	ctx := context.Background()
	accounts := w.schedulerAccounts()
	ops := map[string]lodestone.Operation{}
	for name, op := range accounts["referralrock"].Operations {
		ops["referralrock."+name] = op
	}
	set, err := rules.Compile([]rules.File{{Name: "r.yaml", Data: []byte(benchRules)}}, rules.Options{Operations: ops})
	if err != nil {
		b.Fatal(err)
	}
	book := sequencer.NewRulebook(set)
	store, err := boltstore.Open(b.TempDir(), boltstore.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	now := time.Now().UTC()
	var batch sequencer.Batch
	for i := range n {
		email := lodestone.Email(fmt.Sprintf("lead%d@example.com", i))
		batch.Writes = append(batch.Writes, sequencer.Write{Email: email, Plan: func(st sequencer.State) (sequencer.Change, error) {
			return sequencer.Plan(st.Lead, &sequencer.Submitted{Submission: lodestone.Submission{
				ID: fmt.Sprint(i), Form: "guide", Email: email, Fields: lodestone.FieldsOf(map[string]any{"email": string(email)}), At: now, Received: now,
			}}, book, now)
		}})
	}
	if _, err := store.Commit(ctx, batch); err != nil {
		b.Fatal(err)
	}
	run, stop := context.WithCancel(ctx)
	defer stop()
	var done atomic.Int64
	s := scheduler.New(scheduler.Config{Store: store, Rulebook: func() *sequencer.Rulebook { return book }, Accounts: accounts,
		Committed: func(c *sequencer.Change) {
			if c.Entry != nil && len(c.Entry.Touchpoints) > 0 && c.Entry.Touchpoints[0].State == lodestone.TouchpointSent {
				if done.Add(1) == int64(n) {
					stop()
				}
			}
		}})
	begin := time.Now()
	if err := s.Run(run); err != nil {
		b.Fatal(err)
	}
	took := time.Since(begin)
	if done.Load() != int64(n) {
		b.Fatalf("%d of %d were sent", done.Load(), n)
	}
	return took
}

func benchCalls(b *testing.B, a *connectors.Account, n int) time.Duration {
	b.Helper()
	ctx := context.Background()
	begin := time.Now()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range benchWorkers {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				email := lodestone.Email(fmt.Sprintf("lead%d@example.com", i))
				if _, err := a.Unsubscribed(ctx, email); err != nil {
					b.Error(err)
					return
				}
				if _, err := a.Do(ctx, connectors.Act{ID: fmt.Sprint(i), Operation: "invite", Email: email, Parameters: map[string]any{"firstName": "there"}}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(begin)
}
