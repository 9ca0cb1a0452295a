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
	return &Group{groupcommit.New(maxBatch, func(calls []*groupCall) { together(publish, calls) })}
}

// Publish returns when the message is on disk, with the error of [Broker.PublishBatch] for it. When
// ctx is done first the error wraps [ErrNoAnswer]: the message is still published.
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
	byID := make(map[string]int, len(calls))
	for i, c := range calls {
		id := c.msg.Header.Get(nats.MsgIdHdr)
		if n, again := byID[c.msg.Subject+" "+id]; again && id != "" {
			at[i] = n
			continue
		}
		at[i] = len(msgs)
		byID[c.msg.Subject+" "+id] = at[i]
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
