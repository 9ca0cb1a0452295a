package bench

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/nats-io/nats.go"

	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/internal/events"
	"github.com/lodestonehq/lodestone/sequencer"
)

// outbox measures how fast what was committed is told as events, beside publishing the same events.
func outbox(ctx context.Context, r *run) error {
	items := r.items(20_000)
	store, dir, err := r.store()
	if err != nil {
		return err
	}
	b, err := r.broker(ctx, dir)
	if err != nil {
		return err
	}
	book, err := rulebook("3d")
	if err != nil {
		return err
	}
	leads, round := 0, 0
	var batches [][]*nats.Msg
	ours := func(ctx context.Context) (sample, error) {
		want := 0
		if err := prefill(ctx, store, book, leads, leads+items, start(), func(results []sequencer.Result) error {
			for i := range results {
				if e := results[i].Change.Entry; e != nil {
					want += len(events.Of(e))
				}
			}
			return nil
		}); err != nil {
			return sample{}, err
		}
		leads += items
		work, stop := context.WithCancel(ctx)
		defer stop()
		out := &published{Broker: b, want: want, done: stop}
		s, err := timed(want, func() error { return events.New(store, out, store.Instance(), slog.New(slog.DiscardHandler)).Run(work) })
		batches = out.batches
		if err == nil && out.want > 0 {
			err = fmt.Errorf("%d of %d events were not published", out.want, want)
		}
		for _, msgs := range batches {
			for _, m := range msgs {
				s.disk += int64(len(m.Data))
			}
		}
		return s, err
	}
	ceiling := func(ctx context.Context) (sample, error) {
		round++
		n := 0
		for _, msgs := range batches {
			for i, m := range msgs {
				n++
				msgs[i] = &nats.Msg{Subject: m.Subject, Data: m.Data, Header: nats.Header{"Content-Type": m.Header["Content-Type"], nats.MsgIdHdr: {fmt.Sprintf("again-%d-%d", round, n)}}}
			}
		}
		return timed(n, func() error {
			for _, msgs := range batches {
				if err := b.PublishBatch(ctx, msgs); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return r.alternate(ctx, Result{
		Unit: "events/s", Raw: "the same events published in the same batches",
		Settings: map[string]string{"stream": "embedded, SyncAlways", "submissions": fmt.Sprint(items)},
	}, ours, ceiling)
}

// published publishes, remembers what, and calls done when as much is published as is wanted.
type published struct {
	*broker.Broker
	want    int
	done    func()
	batches [][]*nats.Msg
}

func (p *published) PublishBatch(ctx context.Context, msgs []*nats.Msg) error {
	err := p.Broker.PublishBatch(ctx, msgs)
	if err == nil {
		p.batches = append(p.batches, msgs)
		if p.want -= len(msgs); p.want <= 0 {
			p.done()
		}
	}
	return err
}
