package app

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/api"
	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
	"github.com/lodestonehq/lodestone/sequencer"
	"github.com/lodestonehq/lodestone/sequencer/event"
)

// forgetEvery is how often an erasure that could not be finished is taken up again.
const forgetEvery = time.Minute

// forget finishes the erasures that are under way, also those that a restart interrupted, until ctx is done.
func (w *Worker) forget(ctx context.Context) error {
	for {
		list, err := w.store.Erasing(ctx)
		if err != nil {
			w.log.WarnContext(ctx, "cannot read which erasures are under way", "error", err)
		}
		for email := range list {
			if _, _, err := w.clearStreams(ctx, email); err != nil && ctx.Err() == nil {
				w.log.WarnContext(ctx, "an erasure is not finished; trying again", "error", err, "in", forgetEvery)
			}
		}
		if !pause(ctx, forgetEvery) {
			return nil
		}
	}
}

// clearStreams deletes every message of a person that came before the erasure was asked for, every event about
// them, and what came since that belongs to that past, and overwrites what they held. An opt-out among them that was
// not applied yet is kept. Last it looks whether a message that was on its way while they were erased brought them
// back. What they send after they asked is another matter, and stays.
func (w *Worker) clearStreams(ctx context.Context, email lodestone.Email) (deleted int, done bool, err error) {
	w.forgetting.Lock()
	defer w.forgetting.Unlock()
	for range 4 { // what came meanwhile is mostly done with at once
		n, done, err := w.clearOnce(ctx, email)
		deleted += n
		if err != nil || done {
			return deleted, done, err
		}
	}
	return deleted, false, nil
}

func (w *Worker) clearOnce(ctx context.Context, email lodestone.Email) (deleted int, done bool, err error) {
	under, err := w.store.Erasing(ctx)
	if err != nil {
		return 0, false, err
	}
	erasure, ok := under[email]
	if !ok {
		return 0, true, nil
	}
	asked := erasure.Asked
	st, err := w.store.State(ctx, email)
	if err != nil {
		return 0, false, err
	}
	unknown := st.Lead == nil
	// Events that were read from the journal while it still named them are in the stream after this.
	if err := w.outbox.Settle(ctx); err != nil {
		return 0, false, err
	}
	back := false // with a submission that came since
	for _, name := range broker.Streams {
		mark, err := w.store.Watermark(ctx, name)
		if err != nil {
			return deleted, false, err
		}
		var seqs []uint64
		var optOut *lodestone.Signal
		stream, err := w.eachMessage(ctx, name, email, func(m api.StreamMessage) {
			later := name != broker.EventsStream && m.At.After(asked)
			switch {
			case later && unknown && name == broker.SignalsStream && m.Seq <= mark.Seq: // applied to nobody
			case later && unknown && name == broker.FormsStream && w.ofThePast(m, asked):
			case later:
				back = back || name == broker.FormsStream
				return
			}
			seqs = append(seqs, m.Seq)
			if name == broker.SignalsStream && m.Seq > mark.Seq {
				sig, rejected := event.DecodeSignal(event.Message{Subject: m.Subject, Header: m.Header, Data: m.Data, Seq: m.Seq, Time: m.At})
				if rejected == nil && sig.Email == email && sig.Suppresses() {
					optOut = &sig
				}
			}
		})
		if err != nil {
			return deleted, false, err
		}
		if optOut != nil {
			if err := w.keepOptOut(ctx, optOut); err != nil {
				return deleted, false, err
			}
		}
		for _, seq := range seqs {
			if err := stream.SecureDeleteMsg(ctx, seq); err != nil {
				return deleted, false, fmt.Errorf("delete a message of %s: %w", name, err)
			}
			deleted++
		}
	}
	if st, err = w.store.State(ctx, email); err != nil {
		return deleted, false, err
	}
	if l := st.Lead; l != nil && !back && !l.LastAt.After(asked) {
		return deleted, false, w.eraseAgain(ctx, email, asked) // and the streams once more, which tell of it by now
	}
	return deleted, false, w.store.StreamsCleared(ctx, email, erasure) // the next look says whether that was all
}

// ofThePast reports whether a submission was made before its sender asked to be forgotten, however late it came.
func (w *Worker) ofThePast(m api.StreamMessage, asked time.Time) bool {
	book := w.book.Load()
	if book == nil {
		return false
	}
	s, rejected := event.DecodeSubmission(event.Message{Subject: m.Subject, Header: m.Header, Data: m.Data, Seq: m.Seq, Time: m.At}, book.Form)
	return rejected == nil && !s.At.After(asked)
}

// keepOptOut puts on the suppression list what a signal says that is deleted before it was applied.
func (w *Worker) keepOptOut(ctx context.Context, sig *lodestone.Signal) error {
	now := time.Now().UTC()
	results, err := w.store.Commit(ctx, sequencer.Batch{Writes: []sequencer.Write{{Email: sig.Email, Plan: func(st sequencer.State) (sequencer.Change, error) {
		return sequencer.Plan(st.Lead, sequencer.Suppressed{Suppression: lodestone.Suppression{
			Email: sig.Email, Reason: string(sig.Kind), Source: "signal", At: now,
		}}, w.book.Load(), now)
	}}}})
	if err != nil {
		return err
	}
	return results[0].Err
}

func (w *Worker) eraseAgain(ctx context.Context, email lodestone.Email, asked time.Time) error {
	_, change, err := w.store.Erase(ctx, email, asked)
	if err == nil && change.Entry != nil {
		w.committed(&change)
	}
	return err
}

// eachMessage visits a stream's messages that are about a person, oldest first.
func (w *Worker) eachMessage(ctx context.Context, name string, email lodestone.Email, visit func(api.StreamMessage)) (jetstream.Stream, error) {
	js := w.broker.JetStream()
	stream, err := js.Stream(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", name, err)
	}
	last := stream.CachedInfo().State.LastSeq
	if stream.CachedInfo().State.Msgs == 0 {
		return stream, nil
	}
	c, err := js.OrderedConsumer(ctx, name, jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy})
	if err != nil {
		return nil, fmt.Errorf("read stream %s: %w", name, err)
	}
	for {
		batch, err := c.Fetch(500, jetstream.FetchMaxWait(2*time.Second))
		if err != nil {
			return nil, fmt.Errorf("read stream %s: %w", name, err)
		}
		n := 0
		for m := range batch.Messages() {
			n++
			meta, err := m.Metadata()
			if err != nil {
				return nil, fmt.Errorf("read stream %s: %w", name, err)
			}
			msg := event.Message{Subject: m.Subject(), Header: m.Headers(), Data: m.Data(), Seq: meta.Sequence.Stream, Time: meta.Timestamp}
			if w.about(msg, email) {
				visit(api.StreamMessage{Stream: name, Seq: msg.Seq, Subject: msg.Subject, At: msg.Time, Header: msg.Header, Data: readable(msg.Data)})
			}
			if meta.Sequence.Stream >= last || meta.NumPending == 0 {
				return stream, nil
			}
		}
		if err := batch.Error(); err != nil {
			return nil, fmt.Errorf("read stream %s: %w", name, err)
		}
		if n == 0 {
			return stream, nil // the end was deleted meanwhile
		}
	}
}

// about reports whether a message is about a person: it holds the address as it is, or reads as a submission or a
// signal of theirs.
func (w *Worker) about(m event.Message, email lodestone.Email) bool {
	if boltstore.Mentions(m.Data, email) || boltstore.Mentions([]byte(m.Subject), email) {
		return true
	}
	for name, values := range m.Header {
		if boltstore.Mentions([]byte(name+" "+strings.Join(values, " ")), email) {
			return true
		}
	}
	switch {
	case strings.HasPrefix(m.Subject, event.FormsPrefix):
		book := w.book.Load()
		if book == nil {
			return false
		}
		s, rejected := event.DecodeSubmission(m, book.Form)
		return rejected == nil && s.Email == email || rejected != nil && rejected.Email == email
	case strings.HasPrefix(m.Subject, event.SignalsPrefix):
		s, rejected := event.DecodeSignal(m)
		return rejected == nil && s.Email == email
	}
	return false
}

// readable is a message as JSON when it is some, else as a text.
func readable(data []byte) json.RawMessage {
	if json.Valid(data) {
		return json.RawMessage(data)
	}
	b, _ := json.Marshal(string(data))
	return b
}

// streams are what the API needs of the streams.
type streams struct{ w *Worker }

// Messages returns what the streams hold about a person.
func (s streams) Messages(ctx context.Context, email lodestone.Email) ([]api.StreamMessage, error) {
	list := []api.StreamMessage{}
	for _, name := range broker.Streams {
		if _, err := s.w.eachMessage(ctx, name, email, func(m api.StreamMessage) { list = append(list, m) }); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// Clear deletes what the streams hold about a person whose erasure is under way.
func (s streams) Clear(ctx context.Context, email lodestone.Email) (deleted int, done bool, err error) {
	return s.w.clearStreams(ctx, email)
}
