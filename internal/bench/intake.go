package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
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
	ours := func(ctx context.Context) (s sample, err error) {
		s, written, err = takeIn(ctx, store, b, book, items, func() *nats.Msg {
			lead := next
			if leads > 0 && next%2 == 0 {
				lead = (next * 7919) % leads // half of them were here before
			}
			next++
			return form(lead, next)
		})
		return s, err
	}
	ceiling := func(context.Context) (sample, error) { return beside.batches(written, items) }
	res := Result{
		Unit: "submissions/s", Raw: "bbolt alone: the same keys and values, in the same transactions",
		Aims:     []Aim{atLeast("ratio", 0.8), atMost("cpu_s_per_1000", 0.07)},
		Settings: map[string]string{"leads": fmt.Sprint(leads), "stream": "embedded, SyncAlways", "batch": fmt.Sprint("at most ", sequencer.MaxBatch)},
	}
	if leads > 0 {
		res.Name = fmt.Sprintf("intake with %d leads", leads)
	} else {
		res.Name = "intake into an empty store"
	}
	return r.alternate(ctx, res, ours, ceiling)
}

// takeIn publishes items submissions and measures how they are taken in. It returns what each transaction put.
func takeIn(ctx context.Context, store *boltstore.Store, b *broker.Broker, book *sequencer.Rulebook, items int, next func() *nats.Msg) (s sample, written [][]put, err error) {
	for n := 0; n < items; { // publishing is not measured here
		msgs := make([]*nats.Msg, min(1000, items-n))
		for i := range msgs {
			msgs[i] = next()
		}
		if err := b.PublishBatch(ctx, msgs); err != nil {
			return s, nil, err
		}
		n += len(msgs)
	}
	size := used(store)
	counted := &commits{Store: store}
	work, stop := context.WithCancel(ctx)
	defer stop()
	in := sequencer.NewIntake(sequencer.Config{
		JetStream: b.JetStream(), Stream: sequencer.FormsStream, Store: counted, Rulebook: func() *sequencer.Rulebook { return book },
	})
	if err := in.Open(ctx); err != nil {
		return s, nil, err
	}
	done := make(chan error, 1)
	s, err = timed(items, func() error {
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
	s.disk = used(store) - size
	if err != nil {
		return s, nil, err
	}
	if written, err = counted.written(ctx, store); err != nil {
		return s, nil, err
	}
	if counted.applied != items {
		return s, nil, fmt.Errorf("%d of %d submissions were applied", counted.applied, items)
	}
	return s, written, nil
}

// commits is a store that remembers which journal entries each transaction wrote, and no more: what is
// measured would otherwise carry everything that was ever decided.
type commits struct {
	sequencer.Store
	mu      sync.Mutex
	applied int
	spans   []span
}

// span is the journal entries of one transaction: the numbers after the first up to the last.
type span struct{ first, last uint64 }

func (c *commits) Commit(ctx context.Context, b sequencer.Batch) ([]sequencer.Result, error) {
	results, err := c.Store.Commit(ctx, b)
	if err != nil || len(results) == 0 {
		return results, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.applied += len(results)
	first, last := results[0].Change.Entry, results[len(results)-1].Change.Entry
	if first == nil || last == nil {
		return results, errors.New("a submission left no entry in the journal")
	}
	c.spans = append(c.spans, span{first.Seq - 1, last.Seq})
	return results, nil
}

// written is what each transaction put, read from the store.
func (c *commits) written(ctx context.Context, store *boltstore.Store) (list [][]put, err error) {
	for _, s := range c.spans {
		entries, err := store.Journal(ctx, s.first, int(s.last-s.first))
		if err != nil {
			return nil, err
		}
		var puts []put
		for i := range entries {
			st, err := store.State(ctx, entries[i].Lead)
			if err != nil {
				return nil, err
			}
			puts = append(puts, put{0, []byte(entries[i].Lead), st.Version})
			if puts, err = entryPuts(puts, &entries[i]); err != nil {
				return nil, err
			}
		}
		list = append(list, puts)
	}
	return list, nil
}
