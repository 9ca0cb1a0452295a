package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/internal/app"
	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/rules"
)

// perSecond is how many submissions a second the latency is measured at.
const perSecond = 200

const aDay = 24 * time.Hour

// worker opens the whole worker on a data directory, with the rules' first touchpoint after wait.
func worker(ctx context.Context, dir, wait string, account *connectors.Account) (*app.Worker, error) {
	return app.Open(ctx, app.Options{
		Data: dir, Broker: broker.Options{Listen: "none", MaxStore: 64 << 30}, HTTPListen: "none", Log: slog.New(slog.DiscardHandler),
		Rules: func() ([]rules.File, error) {
			return []rules.File{{Name: "bench.yaml", Data: fmt.Appendf(nil, ruleFile, wait)}}, nil
		},
		RulesOptions: rules.Options{Operations: operations()},
		Retention:    app.Retention{Journal: 400 * aDay, Leads: 1100 * aDay, Attention: 400 * aDay}, // as by default
		Accounts: func([]string, prometheus.Registerer, *slog.Logger) (map[string]*connectors.Account, error) {
			return map[string]*connectors.Account{"referralrock": account}, nil
		},
	})
}

// latency measures the whole worker: publish, synced acknowledgement, decision, gate with the
// provider's check, synced intent, and the act's arrival at the provider.
func latency(ctx context.Context, r *run) (err error) {
	items := r.items(10 * perSecond)
	var mu sync.Mutex
	published := map[string]time.Time{}
	var took []time.Duration
	arrived := make(chan struct{}, 2*items)
	account, err := r.provider(0, func(b []byte, at time.Time) {
		var contact struct{ Email string }
		if json.Unmarshal(b, &contact) != nil {
			return
		}
		mu.Lock()
		if begin, ok := published[contact.Email]; ok {
			took = append(took, at.Sub(begin))
			delete(published, contact.Email)
		}
		mu.Unlock()
		arrived <- struct{}{}
	})
	if err != nil {
		return err
	}
	dir, err := r.folder()
	if err != nil {
		return err
	}
	w, err := worker(ctx, filepath.Join(dir, "data"), "0s", account)
	if err != nil {
		return err
	}
	work, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- w.Run(work) }()
	defer func() { stop(); err = errors.Join(err, <-ended) }()

	n := 0
	publish := func(count int) error {
		tick := time.NewTicker(time.Second / perSecond)
		defer tick.Stop()
		var wg sync.WaitGroup
		var failed error
		for range count {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return ctx.Err()
			}
			n++
			id := n
			wg.Go(func() {
				mu.Lock()
				published[address(id)] = time.Now()
				mu.Unlock()
				_, err := w.Broker().JetStream().PublishMsg(ctx, &nats.Msg{Subject: "lodestone.forms.guide", Data: body(id)})
				if err != nil {
					mu.Lock()
					failed = err
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if failed != nil {
			return failed
		}
		for range count {
			select {
			case <-arrived:
			case <-time.After(30 * time.Second):
				return errors.New("an act did not arrive within 30 s")
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	}
	if err := publish(perSecond); err != nil { // the first second makes connections and is not counted
		return err
	}
	var p50, p99, cpu []float64
	var peak int64
	for i := range r.Rounds {
		mu.Lock()
		took = took[:0]
		mu.Unlock()
		s, err := timed(items, func() error { return publish(items) })
		if err != nil {
			return err
		}
		cpu, peak = append(cpu, s.cpu.Seconds()*1000/float64(items)), max(peak, s.peak)
		mu.Lock()
		slices.Sort(took)
		p50, p99 = append(p50, ms(quantile(took, 0.5))), append(p99, ms(quantile(took, 0.99)))
		mu.Unlock()
		r.logf("round %d of %d: p50 %.1f ms, p99 %.1f ms", i+1, r.Rounds, p50[i], p99[i])
	}
	return r.report(Result{
		Unit: "ms", Ours: figure(p50), P50: figure(p50), P99: figure(p99), CPU: figure(cpu).Median, Memory: float64(peak) / 1e6, Items: items, Aims: []Aim{atMost("p50_ms", 4), atMost("p99_ms", 15)},
		Settings: map[string]string{"submissions": fmt.Sprintf("%d a second", perSecond), "after": "0s", "stream": "embedded, SyncAlways"},
	})
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
