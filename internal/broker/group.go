package broker

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go"

	"github.com/lodestonehq/lodestone/internal/groupcommit"
)

// Group publishes single messages of many callers together, so that they share a sync of the disk.
// Make one with [NewGroup]. It is safe for concurrent use.
type Group struct {
	queue *groupcommit.Queue[*groupCall]
}

type groupCall struct {
	msg *nats.Msg
	err error
}

// NewGroup groups calls of publish, which is as [Broker.PublishBatch].
func NewGroup(publish func(context.Context, []*nats.Msg) error) *Group {
	queue := groupcommit.New(maxBatch, func(calls []*groupCall) { together(publish, calls) })
	queue.Alone = func(ctx context.Context, c *groupCall) { c.err = ofOne(publish(ctx, []*nats.Msg{c.msg})) }
	return &Group{queue}
}

// ofOne is the error of a batch of one.
func ofOne(err error) error {
	var batch *BatchError
	if errors.As(err, &batch) {
		return batch.Errs[0]
	}
	return err
}

// Publish returns when the message is on disk, with the error of [Broker.PublishBatch] for it. When
// ctx is done first the error wraps [ErrNoAnswer]: the message may still be published.
func (g *Group) Publish(ctx context.Context, m *nats.Msg) error {
	call := &groupCall{msg: m}
	if err := g.queue.Do(ctx, call); err != nil {
		return refusal(m.Subject, err)
	}
	return call.err
}

// together publishes one batch. Messages with the same Nats-Msg-Id are one message: a batch that holds
// a repeat would be refused as a whole.
func together(publish func(context.Context, []*nats.Msg) error, calls []*groupCall) {
	msgs := make([]*nats.Msg, 0, len(calls))
	at := make([]int, len(calls)) // where each call's message is
	type name struct{ subject, id string }
	byName := make(map[name]int, len(calls))
	for i, c := range calls {
		n := name{c.msg.Subject, c.msg.Header.Get(nats.MsgIdHdr)}
		if first, again := byName[n]; again && n.id != "" {
			at[i] = first
			continue
		}
		at[i] = len(msgs)
		byName[n] = at[i]
		msgs = append(msgs, c.msg)
	}
	err := publish(context.Background(), msgs)
	var batch *BatchError
	each := errors.As(err, &batch)
	for i, c := range calls {
		if c.err = err; each {
			c.err = batch.Errs[at[i]]
		}
	}
}
