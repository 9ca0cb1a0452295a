package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
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
// refuses, go one by one without waiting for each other. A message whose Nats-Msg-Id the stream
// remembers counts as accepted.
//
// The error is a [*BatchError]; its errors wrap [ErrFull], [ErrNoStream], [ErrNoAnswer], or are the
// server's refusal of that message. The messages are not changed.
func (b *Broker) PublishBatch(ctx context.Context, msgs []*nats.Msg) error {
	errs := make([]error, len(msgs))
	groups := make(map[string][]int, 1) // indexes by stream
	var order []string
	for i, m := range msgs {
		s := streamOf(m.Subject)
		if groups[s] == nil {
			order = append(order, s)
		}
		groups[s] = append(groups[s], i)
	}
	for _, s := range order {
		for at := groups[s]; len(at) > 0; {
			n := min(len(at), maxBatch)
			b.publish(ctx, s, msgs, at[:n], errs)
			at = at[n:]
		}
	}
	for _, err := range errs {
		if err != nil {
			return &BatchError{errs}
		}
	}
	return nil
}

// publish sends the messages at the given indexes, all of one stream, and fills in their errors.
func (b *Broker) publish(ctx context.Context, stream string, msgs []*nats.Msg, at []int, errs []error) {
	if stream == "" || len(at) < minBatch {
		b.plain(ctx, msgs, at, errs)
		return
	}
	err := b.atomic(ctx, msgs, at)
	if err == nil {
		return
	}
	// The server's word that the batch was refused means that nothing of it is stored. Which message
	// is the cause (a duplicate, one that is too large) it does not say: one by one each gets its
	// own answer. A full stream would only say so a thousand times.
	var refused *jetstream.APIError
	if errors.As(err, &refused) && !errors.Is(err, ErrFull) {
		b.plain(ctx, msgs, at, errs)
		return
	}
	for _, i := range at {
		errs[i] = err
	}
}

// atomic sends one atomic batch (ADR-50): numbered messages with one batch id, the last one commits
// and is answered.
func (b *Broker) atomic(ctx context.Context, msgs []*nats.Msg, at []int) error {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	id := nuid.Next()
	for n, i := range at {
		m := &nats.Msg{Subject: msgs[i].Subject, Data: msgs[i].Data, Header: make(nats.Header, len(msgs[i].Header)+3)}
		maps.Copy(m.Header, msgs[i].Header)
		m.Header["Nats-Batch-Id"] = []string{id}
		m.Header["Nats-Batch-Sequence"] = []string{strconv.Itoa(n + 1)}
		if n < len(at)-1 {
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
		case ack.Count != len(at):
			return fmt.Errorf("publish a batch: %w: the answer counts %d messages of %d", ErrNoAnswer, ack.Count, len(at))
		}
	}
	return nil
}

// plain sends messages one by one, each answered on its own, without waiting in between.
func (b *Broker) plain(ctx context.Context, msgs []*nats.Msg, at []int, errs []error) {
	waiting := make([]jetstream.PubAckFuture, len(at))
	for n, i := range at {
		if errs[i] = ctx.Err(); errs[i] != nil {
			continue
		}
		// A copy, because the client library writes the reply subject into it.
		m := &nats.Msg{Subject: msgs[i].Subject, Data: msgs[i].Data, Header: msgs[i].Header}
		f, err := b.js.PublishMsgAsync(m, jetstream.WithStallWait(publishTimeout))
		if err != nil {
			errs[i] = refusal(m.Subject, err)
			continue
		}
		waiting[n] = f
	}
	for n, i := range at {
		if waiting[n] == nil {
			continue
		}
		select {
		case <-waiting[n].Ok():
		case err := <-waiting[n].Err():
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
