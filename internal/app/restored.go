package app

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/internal/events"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
	"github.com/lodestonehq/lodestone/sequencer"
)

// gather reads, once after a restore and before anything is sent, what the events that were published
// since the backup say of touchpoints. By then everything that came in since is applied again. It
// tries on until it succeeds or ctx is done: what is not known to be unsent must not go out.
func (w *Worker) gather(ctx context.Context) error {
	r := w.store.Restored()
	if r == nil || r.Gathered {
		return nil
	}
	for {
		n, err := w.gatherOnce(ctx, r)
		if err == nil {
			w.log.WarnContext(ctx, "this store stands at an earlier moment: what may have been sent since and is not known to be is looked up before anything goes out",
				"moment", r.Backup, "claimed", r.Claimed, "outcomes", n)
			return nil
		}
		if ctx.Err() != nil {
			return nil
		}
		w.log.ErrorContext(ctx, "cannot read what was sent since the backup; nothing is sent meanwhile", "error", err)
		if !pause(ctx, 5*time.Second) {
			return nil
		}
	}
}

// clockSlack is by how much the clocks of the store's machine and of the broker's may differ.
const clockSlack = 5 * time.Minute

func (w *Worker) gatherOnce(ctx context.Context, r *boltstore.Restored) (n int, err error) {
	js := w.broker.JetStream()
	for _, name := range []string{sequencer.FormsStream, sequencer.SignalsStream} {
		_, first, _, err := w.broker.StreamIdentity(ctx, name)
		if err != nil {
			return 0, err
		}
		dropped, err := w.store.DroppedBefore(ctx, name, first)
		if err != nil {
			return 0, err
		}
		if dropped > 0 {
			w.log.ErrorContext(ctx, "the backup is older than the stream's beginning; what was in between cannot be applied again", "stream", name, "messages", dropped)
		}
	}
	stream, err := js.Stream(ctx, broker.EventsStream)
	if err != nil {
		return 0, err
	}
	last := stream.CachedInfo().State.LastSeq
	since := r.Backup.Add(-clockSlack)
	if info := stream.CachedInfo(); info.State.Msgs == 0 || info.State.LastTime.Before(since) {
		return 0, w.store.Gather(ctx, nil, true)
	}
	c, err := js.OrderedConsumer(ctx, broker.EventsStream, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartTimePolicy, OptStartTime: &since,
	})
	if err != nil {
		return 0, err
	}
	var batch []boltstore.Outcome
	for {
		m, err := c.Next(jetstream.FetchMaxWait(5 * time.Second))
		if err != nil {
			return n, fmt.Errorf("stream %s: %w", broker.EventsStream, err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return n, err
		}
		if o, ok := outcomeOf(m, r); ok {
			batch = append(batch, o)
			n++
		}
		done := meta.Sequence.Stream >= last
		if done || len(batch) == 500 {
			if err := w.store.Gather(ctx, batch, done); err != nil {
				return n, err
			}
			batch = batch[:0]
		}
		if done {
			return n, nil
		}
	}
}

// outcomeOf reads what an event says of a touchpoint that a restored store does not know; ok is false when that is nothing.
func outcomeOf(m jetstream.Msg, r *boltstore.Restored) (o boltstore.Outcome, ok bool) {
	if !strings.HasPrefix(m.Subject(), "lodestone.events.touchpoint.") {
		return o, false
	}
	t, source, at, err := events.Touchpoint(m.Data())
	if err != nil || !r.Published(source) {
		return o, false
	}
	o = boltstore.Outcome{ID: t.ID, Email: t.Email, Operation: t.Operation, State: t.State, Reason: t.Reason, At: at, Reference: t.Reference}
	return o, o.Known()
}
