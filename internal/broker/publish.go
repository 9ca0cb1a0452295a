package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

const (
	maxBatch       = 1000 // messages of one atomic batch, the server's limit (ADR-50)
	minBatch       = 16   // below it a batch, staged in a file of its own, is slower than plain messages
	maxPending     = 4096 // plain messages on their way at once
	publishTimeout = 10 * time.Second
)

var (
	// ErrFull says that a stream has reached its limit, or the server the limit of its disk.
	ErrFull = errors.New("the stream is full")
	// ErrNoStream says that no stream takes the subject.
	ErrNoStream = errors.New("no stream takes the subject")
	// ErrNoAnswer says that no acknowledgement came: the message may be stored or not. Publishing it
	// again with the same Nats-Msg-Id is safe.
	ErrNoAnswer = errors.New("no acknowledgement came")
)

// BatchError says which messages of a batch were not accepted.
type BatchError struct {
	Errs []error // one for each message in the order given; nil where it was accepted
}

func (e *BatchError) Error() string {
	n := 0
	var first error
	for _, err := range e.Errs {
		if err != nil {
			if n++; first == nil {
				first = err
			}
		}
	}
	return fmt.Sprintf("%d of %d messages were not accepted; the first: %v", n, len(e.Errs), first)
}

// Unwrap returns the errors there are.
func (e *BatchError) Unwrap() []error {
	var errs []error
	for _, err := range e.Errs {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// PublishBatch publishes messages and returns when each is acknowledged, which is when it is on
// disk. Messages of one stream keep their order. From 16 of one stream on they go as atomic batches of
// at most 1,000, which the server syncs once each; fewer, and those of a batch that the server
// refuses, go one by one without waiting for each other, and one alone without another goroutine. A message whose Nats-Msg-Id the stream
// remembers counts as accepted.
//
// The error is a [*BatchError]; its errors wrap [ErrFull], [ErrNoStream], [ErrNoAnswer], or are the
// server's refusal of that message. The messages are not changed.
func (b *Broker) PublishBatch(ctx context.Context, msgs []*nats.Msg) error {
	errs := make([]error, len(msgs))
	order := make([]string, 0, 1) // the streams, as they come
	for _, m := range msgs {
		if s := streamOf(m.Subject); !slices.Contains(order, s) {
			order = append(order, s)
		}
	}
	for _, s := range order {
		if len(order) == 1 {
			b.publish(ctx, s, msgs, errs)
			continue
		}
		var at []int
		var of []*nats.Msg
		for i, m := range msgs {
			if streamOf(m.Subject) == s {
				at, of = append(at, i), append(of, m)
			}
		}
		found := make([]error, len(of))
		b.publish(ctx, s, of, found)
		for n, i := range at {
			errs[i] = found[n]
		}
	}
	for _, err := range errs {
		if err != nil {
			return &BatchError{errs}
		}
	}
	return nil
}

// publish sends messages of one stream and fills in their errors.
func (b *Broker) publish(ctx context.Context, stream string, msgs []*nats.Msg, errs []error) {
	for len(msgs) > 0 {
		n := min(len(msgs), maxBatch)
		switch {
		case n == 1:
			errs[0] = b.one(ctx, msgs[0])
		case n < minBatch || stream == "":
			b.plain(ctx, msgs[:n], errs)
		default:
			b.batch(ctx, msgs[:n], errs)
		}
		msgs, errs = msgs[n:], errs[n:]
	}
}

// one sends one message and waits, with no goroutine between the caller and the connection.
func (b *Broker) one(ctx context.Context, m *nats.Msg) error {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	if _, err := b.js.PublishMsg(ctx, m); err != nil {
		return refusal(m.Subject, err)
	}
	return nil
}

// batch sends messages as an atomic batch, and one by one if the server refuses that.
func (b *Broker) batch(ctx context.Context, msgs []*nats.Msg, errs []error) {
	err := b.atomic(ctx, msgs)
	if err == nil {
		return
	}
	// The server's word that the batch was refused means that nothing of it is stored. Which message
	// is the cause (a duplicate, one that is too large) it does not say: one by one each gets its
	// own answer. A full stream would only say so a thousand times.
	var refused *jetstream.APIError
	if errors.As(err, &refused) && !errors.Is(err, ErrFull) {
		b.log.Debug("a batch of messages was refused; they are sent one by one", "messages", len(msgs), "error", err)
		b.plain(ctx, msgs, errs)
		return
	}
	for i := range msgs {
		errs[i] = err
	}
}

// atomic sends one atomic batch (ADR-50): numbered messages with one batch id, the last one commits
// and is answered.
func (b *Broker) atomic(ctx context.Context, msgs []*nats.Msg) error {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	// One message for all: the client library has written it down when it returns.
	m := &nats.Msg{Header: make(nats.Header, 8)}
	id, number := []string{nuid.Next()}, []string{""}
	for n, msg := range msgs {
		clear(m.Header)
		maps.Copy(m.Header, msg.Header)
		number[0] = strconv.Itoa(n + 1)
		m.Subject, m.Data, m.Header["Nats-Batch-Id"], m.Header["Nats-Batch-Sequence"] = msg.Subject, msg.Data, id, number
		if n < len(msgs)-1 {
			if err := b.nc.PublishMsg(m); err != nil {
				return refusal(m.Subject, err) // the server forgets a batch that goes on no more
			}
			continue
		}
		m.Header["Nats-Batch-Commit"] = []string{"1"}
		answer, err := b.nc.RequestMsgWithContext(ctx, m)
		if err != nil {
			return refusal(m.Subject, err)
		}
		var ack struct {
			Error *jetstream.APIError `json:"error"`
			Count int                 `json:"count"`
		}
		switch err := json.Unmarshal(answer.Data, &ack); {
		case err != nil:
			return fmt.Errorf("publish a batch: %w: the answer cannot be read", ErrNoAnswer)
		case ack.Error != nil:
			return refusal(m.Subject, ack.Error)
		case ack.Count != len(msgs):
			return fmt.Errorf("publish a batch: %w: the answer counts %d messages of %d", ErrNoAnswer, ack.Count, len(msgs))
		}
	}
	return nil
}

// plain sends messages one by one, each answered on its own, without waiting in between.
func (b *Broker) plain(ctx context.Context, msgs []*nats.Msg, errs []error) {
	waiting := make([]jetstream.PubAckFuture, len(msgs))
	for i, msg := range msgs {
		if errs[i] = ctx.Err(); errs[i] != nil {
			continue
		}
		// A copy, because the client library writes the reply subject into it.
		m := &nats.Msg{Subject: msg.Subject, Data: msg.Data, Header: msg.Header}
		f, err := b.js.PublishMsgAsync(m, jetstream.WithStallWait(publishTimeout))
		if err != nil {
			errs[i] = refusal(m.Subject, err)
			continue
		}
		waiting[i] = f
	}
	for i, f := range waiting {
		if f == nil {
			continue
		}
		select {
		case <-f.Ok():
		case err := <-f.Err():
			errs[i] = refusal(msgs[i].Subject, err)
		case <-ctx.Done():
			errs[i] = fmt.Errorf("publish: %w: %w", ErrNoAnswer, ctx.Err())
		}
	}
}

// Error codes of the JetStream API: https://github.com/nats-io/nats-server/blob/v2.15.2/server/errors.json
const (
	codeAccountFull = 10002 // resource limits exceeded for account
	codeServerFull  = 10023 // insufficient resources
	codeStoreFailed = 10077 // the store's own words, see below
)

// refusal says in our words what a failed publish means.
func refusal(subject string, err error) error {
	var api *jetstream.APIError
	switch {
	case errors.As(err, &api):
		// The store's refusals share one code; the words are all that tells a limit from a fault.
		limit := api.ErrorCode == codeStoreFailed && (api.Description == "maximum bytes exceeded" || api.Description == "maximum messages exceeded")
		if limit || api.ErrorCode == codeAccountFull || api.ErrorCode == codeServerFull {
			return fmt.Errorf("publish on %s: %w: %w; submissions are taken again when the worker has applied and trimmed what is there, or the limit is raised", subject, ErrFull, api)
		}
		return fmt.Errorf("publish on %s: %w", subject, api)
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrNoStreamResponse):
		return fmt.Errorf("publish on %s: %w", subject, ErrNoStream)
	case errors.Is(err, jetstream.ErrAsyncPublishTimeout), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, nats.ErrTimeout):
		return fmt.Errorf("publish on %s: %w: %w", subject, ErrNoAnswer, err)
	}
	return fmt.Errorf("publish on %s: %w", subject, err)
}
