package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/lodestonehq/lodestone/sequencer"
)

// intake measures how fast waiting submissions are applied, into an empty store and into one with a
// million leads and as many waiting touchpoints.
func intake(ctx context.Context, r *run) error {
	sizes := []int{0, 1_000_000}
	if r.Leads >= 0 {
		sizes = []int{r.Leads}
	}
	for _, leads := range sizes {
		if err := intakeInto(ctx, r, leads); err != nil {
			return err
		}
	}
	return nil
}

func intakeInto(ctx context.Context, r *run, leads int) error {
	items := r.items(50_000)
	book, err := rulebook("3d")
	if err != nil {
		return err
	}
	store, dir, err := r.store()
	if err != nil {
		return err
	}
	beside, err := openRaw(dir)
	if err != nil {
		return err
	}
	r.atEnd(beside.db.Close)
	at := start()
	if leads > 0 {
		r.logf("filling two files with %d leads", leads)
	}
	if err := prefill(ctx, store, book, 0, leads, at, func(results []sequencer.Result) error {
		var list []put
		for i := range results {
			if list, err = puts(list, &results[i].Change); err != nil {
				return err
			}
		}
		return beside.commit(list)
	}); err != nil {
		return err
	}
	b, err := r.broker(ctx, dir)
	if err != nil {
		return err
	}

	next := leads
	var written [][]put
	ours := func(ctx context.Context) (sample, error) {
		written = nil
		n := 0
		for n < items { // publishing is not measured here
			msgs := make([]*nats.Msg, min(1000, items-n))
			for i := range msgs {
				lead := next
				if leads > 0 && i%2 == 0 {
					lead = (next * 7919) % leads // half of them were here before
				}
				next++
				msgs[i] = form(lead, next)
			}
			if err := b.PublishBatch(ctx, msgs); err != nil {
				return sample{}, err
			}
			n += len(msgs)
		}
		size := store.Size()
		counted := &commits{Store: store}
		work, stop := context.WithCancel(ctx)
		defer stop()
		in := sequencer.NewIntake(sequencer.Config{
			JetStream: b.JetStream(), Stream: sequencer.FormsStream, Store: counted, Rulebook: func() *sequencer.Rulebook { return book },
		})
		if err := in.Open(ctx); err != nil {
			return sample{}, err
		}
		done := make(chan error, 1)
		s, err := timed(items, func() error {
			go func() { done <- in.Run(work) }()
			select {
			case <-in.CaughtUp():
			case err := <-done:
				done <- nil
				return err
			}
			return nil
		})
		stop()
		err = errors.Join(err, <-done)
		s.disk = store.Size() - size
		if err != nil {
			return s, err
		}
		applied := 0
		for _, results := range counted.results {
			var list []put
			for i := range results {
				applied++
				if list, err = puts(list, &results[i].Change); err != nil {
					return s, err
				}
			}
			written = append(written, list)
		}
		if applied != items {
			return s, fmt.Errorf("%d of %d submissions were applied", applied, items)
		}
		return s, nil
	}
	ceiling := func(context.Context) (sample, error) { return beside.batches(written, items) }
	res := Result{
		Unit: "submissions/s", Raw: "bbolt alone: the same keys and values, in the same transactions",
		Settings: map[string]string{"leads": fmt.Sprint(leads), "stream": "embedded, SyncAlways", "batch": fmt.Sprint("at most ", sequencer.MaxBatch)},
	}
	if leads > 0 {
		res.Name = fmt.Sprintf("intake with %d leads", leads)
	} else {
		res.Name = "intake into an empty store"
	}
	return r.alternate(ctx, res, ours, ceiling)
}

// commits is a store that remembers what each transaction led to.
type commits struct {
	sequencer.Store
	mu      sync.Mutex
	results [][]sequencer.Result
}

func (c *commits) Commit(ctx context.Context, b sequencer.Batch) ([]sequencer.Result, error) {
	results, err := c.Store.Commit(ctx, b)
	if err == nil && len(results) > 0 {
		c.mu.Lock()
		c.results = append(c.results, results)
		c.mu.Unlock()
	}
	return results, err
}
