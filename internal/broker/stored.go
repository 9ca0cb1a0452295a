package broker

import (
	"context"

	"github.com/nats-io/nats.go/jetstream"
)

// Stored reads a stream in order, from where the consumer begins to the sequence number last, and hands each
// message to each, whose error ends it. pull is how many messages are asked for at a time. What came after last
// is not read, and last need not be there any more.
func Stored(ctx context.Context, js jetstream.JetStream, stream string, from jetstream.OrderedConsumerConfig, last uint64, pull int, each func(jetstream.Msg, *jetstream.MsgMetadata) error) error {
	c, err := js.OrderedConsumer(ctx, stream, from)
	if err != nil {
		return err
	}
	iter, err := c.Messages(jetstream.PullMaxMessages(pull))
	if err != nil {
		return err
	}
	defer iter.Stop()
	for {
		m, err := iter.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		if meta.Sequence.Stream > last {
			return nil
		}
		if err := each(m, meta); err != nil {
			return err
		}
		if meta.Sequence.Stream == last || meta.NumPending == 0 {
			return nil
		}
	}
}
