package app

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
	"github.com/lodestonehq/lodestone/sequencer"
)

// Retention says how long what is over is kept. Zero: as the configuration's defaults say for messages
// in the streams, for ever for what is in the store.
type Retention struct {
	Journal, Leads, Attention time.Duration
	// Messages stay in their streams after they were applied or published for long enough to replay
	// past leads through new rules and to go back to a backup.
	Submissions, Events time.Duration
}

const (
	keepSubmissions = 90 * 24 * time.Hour
	keepEvents      = 7 * 24 * time.Hour
	upkeepEvery     = time.Hour
)

// A store file that was opened by its mark is read through when the first minute, in which what is overdue goes
// out, is over, and in so small a part of the time that nothing waits for it.
const (
	readThroughAfter = time.Minute
	readThroughShare = 50
)

// readThrough reads the store file through while work goes on, and says when it is damaged. Where it cannot be
// read at the moment, which says nothing of what it holds, that is tried again.
func (w *Worker) readThrough(ctx context.Context, after time.Duration) {
	for w.store.Unread() && pause(ctx, after) {
		begun := time.Now()
		err := w.store.ReadThrough(ctx, readThroughShare)
		switch {
		case err == nil:
			w.log.DebugContext(ctx, "the store file was read through", "took", time.Since(begun))
		case ctx.Err() != nil:
		case w.store.Damage() != nil:
			w.log.ErrorContext(ctx, "the store file is damaged", "error", err, "remedy", boltstore.DamageRemedy)
			return
		case errors.Is(err, boltstore.ErrClosed):
			return
		default:
			w.log.WarnContext(ctx, "cannot read the store file through; trying again", "error", err)
		}
	}
}

// sayOverdue tells what fell due while the worker was away.
func (w *Worker) sayOverdue(ctx context.Context) {
	counts, oldest, err := w.store.Overdue(ctx, time.Now())
	if err != nil {
		w.log.WarnContext(ctx, "cannot count what is overdue", "error", err)
		return
	}
	for connector, n := range counts {
		w.log.InfoContext(ctx, "touchpoints are overdue: those past their grace are skipped, the others go out at the provider's rate, of each sequence the oldest first",
			"connector", connector, "touchpoints", n, "oldest", oldest)
	}
}

// upkeep deletes what is older than it is to be kept, now and every hour, until ctx is done. The
// streams have no age limit of their own, because that could drop what was not applied yet.
func (w *Worker) upkeep(ctx context.Context) error {
	tick := time.NewTicker(upkeepEvery)
	defer tick.Stop()
	for {
		w.trim(ctx)
		w.prune(ctx)
		w.unconfigured(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// unconfigured asks for a human where touchpoints wait for a connector that has no settings: nobody can send
// them, and enrollments of an earlier version of the rules may need one that today's do not name. What an
// account that there is has to say, [Worker.watch] says.
func (w *Worker) unconfigured(ctx context.Context) {
	lanes, err := w.store.Lanes(ctx)
	if err != nil {
		w.log.WarnContext(ctx, "cannot read which connectors are waited for", "error", err)
		return
	}
	for _, name := range lanes {
		if w.accounts[name] != nil {
			continue
		}
		waits := false
		_, err := w.store.Waiting(ctx, name, "", time.Unix(1<<33, 0), func(boltstore.Row) bool { waits = true; return false })
		key := sequencer.AttentionKey{Kind: lodestone.AttentionConnector, ID: name}
		var told *lodestone.Attention
		if err == nil {
			told, err = w.store.Item(ctx, sequencer.ItemKey{AttentionKey: key})
		}
		var b sequencer.Batch
		switch {
		case err != nil || waits == (told != nil):
		case waits:
			b.Attention = []lodestone.Attention{{
				ID: name, Kind: key.Kind, Reason: lodestone.ReasonProviderUnavailable, At: time.Now().UTC(),
				Detail: "touchpoints wait for connectors." + name + ", which has no settings; give it some and restart, or cancel them",
			}}
		default:
			b.Resolved = []sequencer.AttentionKey{key}
		}
		if len(b.Attention)+len(b.Resolved) > 0 {
			_, err = w.store.Commit(ctx, b)
		}
		if err != nil && ctx.Err() == nil {
			w.log.WarnContext(ctx, "cannot ask for a human", "connector", name, "error", err)
		}
	}
}

// prune deletes from the store what is old.
func (w *Worker) prune(ctx context.Context) {
	r := w.opts.Retention
	for _, p := range []struct {
		what string
		keep time.Duration
		do   func(context.Context, time.Time) (int, error)
	}{
		{"journal entries", r.Journal, w.store.PruneJournal},
		{"attention items", r.Attention, w.store.PruneAttention},
		// What the journal still tells of an earlier version is explained with it.
		{"versions of the rule files", r.Journal, w.store.DropRules},
	} {
		if p.keep == 0 {
			continue
		}
		n, err := p.do(ctx, time.Now().Add(-p.keep))
		w.sayPruned(ctx, p.what, p.keep, n, err)
	}
}

func (w *Worker) sayPruned(ctx context.Context, what string, keep time.Duration, n int, err error) {
	switch {
	case ctx.Err() != nil:
	case err != nil:
		w.log.WarnContext(ctx, "cannot delete what is old", "what", what, "error", err)
	case n > 0:
		w.log.InfoContext(ctx, "deleted what is older than it is kept", "what", what, "deleted", n, "kept", keep)
	}
}

// pruneLeadsShare is the part of the time in which leads are looked at: some 5 µs of work each, so that ten million
// take seven hours, and what the worker does at rest does not grow with them.
const pruneLeadsShare = 500

// pruneLeads deletes leads that are old, until ctx is done. Unlike what [Worker.prune] deletes they are in no order
// of time: each must be looked at.
func (w *Worker) pruneLeads(ctx context.Context) error {
	keep := w.opts.Retention.Leads
	for keep > 0 {
		n, err := w.store.PruneLeadsBeside(ctx, time.Now().Add(-keep), pruneLeadsShare)
		w.sayPruned(ctx, "leads", keep, n, err)
		if !pause(ctx, upkeepEvery) {
			break
		}
	}
	return nil
}

// trim purges from the streams what is applied and old.
func (w *Worker) trim(ctx context.Context) {
	for _, stream := range []string{sequencer.FormsStream, sequencer.SignalsStream} {
		mark, err := w.store.Watermark(ctx, stream)
		if err == nil {
			err = purge(ctx, w.broker.JetStream(), stream, time.Now().Add(-cmp.Or(w.opts.Retention.Submissions, keepSubmissions)), mark.Seq)
		}
		if err != nil && ctx.Err() == nil {
			w.log.WarnContext(ctx, "cannot trim a stream", "stream", stream, "error", err)
		}
	}
	if r := w.store.Restored(); r != nil && !r.Gathered {
		return // they say what was sent since the backup
	}
	if err := purge(ctx, w.broker.JetStream(), broker.EventsStream, time.Now().Add(-cmp.Or(w.opts.Retention.Events, keepEvents)), ^uint64(0)); err != nil && ctx.Err() == nil {
		w.log.WarnContext(ctx, "cannot trim a stream", "stream", broker.EventsStream, "error", err)
	}
}

// purge removes a stream's messages that are older than before and not past the sequence number
// upTo.
func purge(ctx context.Context, js jetstream.JetStream, name string, before time.Time, upTo uint64) error {
	stream, err := js.Stream(ctx, name)
	if err != nil {
		return err
	}
	info := stream.CachedInfo()
	if info.State.Msgs == 0 || info.State.FirstTime.After(before) {
		return nil
	}
	first := info.State.LastSeq + 1 // nothing is younger: all of it may go
	if info.State.LastTime.After(before) {
		c, err := js.OrderedConsumer(ctx, name, jetstream.OrderedConsumerConfig{
			DeliverPolicy: jetstream.DeliverByStartTimePolicy, OptStartTime: &before, HeadersOnly: true,
		})
		if err != nil {
			return err
		}
		m, err := c.Next(jetstream.FetchMaxWait(5 * time.Second))
		if err != nil {
			return err
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		first = meta.Sequence.Stream
	}
	if upTo != ^uint64(0) {
		first = min(first, upTo+1)
	}
	return stream.Purge(ctx, jetstream.WithPurgeSequence(first))
}
