package gateway

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/sequencer/event"
)

// Recent reads what came within the span over which rates are counted, oldest first and at most as many messages as
// are counted anyway, for [FormOptions]. It ends with ctx at the latest, and what it has not read by then is not
// counted. The error says why that is not all.
func Recent(ctx context.Context, js jetstream.JetStream, span time.Duration, each func(event.Message)) error {
	stream, err := js.Stream(ctx, broker.FormsStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	state := stream.CachedInfo().State
	since := time.Now().Add(-span)
	if state.Msgs == 0 || state.LastTime.Before(since) {
		return nil
	}
	first := jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverByStartTimePolicy, OptStartTime: &since}
	if state.LastSeq-state.FirstSeq >= maxWatched {
		m, err := stream.GetMsg(ctx, state.LastSeq-maxWatched+1)
		if err == nil && m.Time.After(since) { // more came than are counted
			first = jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: m.Sequence}
		} else if err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
			return err
		}
	}
	return broker.Stored(ctx, js, broker.FormsStream, first, state.LastSeq, 1000, func(m jetstream.Msg, meta *jetstream.MsgMetadata) error {
		each(event.Message{Subject: m.Subject(), Header: m.Headers(), Data: m.Data(), Seq: meta.Sequence.Stream, Time: meta.Timestamp})
		return nil
	})
}

// recall counts a message that came before; one that was not counted when it came is not counted now either.
func (f *forms) recall(m event.Message) {
	f.Seal.Open(&m)
	seen, ok := event.ObservedOf(&m)
	if !ok || seen.Evidence == nil {
		return
	}
	set, name := f.Rules(), ""
	sub, rejected := event.DecodeSubmission(m, func(form string) *lodestone.Form {
		name = form
		if set == nil || set.Forms[form] == nil {
			return nil
		}
		return &set.Forms[form].Form
	})
	email := sub.Email
	if rejected != nil {
		email = rejected.Email
	}
	f.watch.submitted(name, email, seen.IP, tokenIn(m.Data), m.Time)
}
