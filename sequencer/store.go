package sequencer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lodestonehq/lodestone"
)

// Store is the durable state as far as writing goes: batches in, all or nothing.
type Store interface {
	// Commit carries out a batch in one durable transaction and returns one result for each of its
	// writes, in order. Writes of one lead see each other in the order of the batch. When Commit
	// fails nothing of the batch has happened. It is safe for concurrent use; batches that are
	// waiting together share a transaction.
	Commit(ctx context.Context, b Batch) ([]Result, error)
	// State returns what is stored about one lead.
	State(ctx context.Context, email lodestone.Email) (State, error)
	// Prepare does what can be done of a change before its transaction. The state of a must be one that the
	// store gave, and a must stay as it is from then on. It is safe for concurrent use.
	Prepare(a *Ahead)
	// Watermark returns how far a stream has been applied; zero when it never was.
	Watermark(ctx context.Context, stream string) (Watermark, error)
}

// Batch is what one transaction does.
type Batch struct {
	Writes    []Write
	Attention []lodestone.Attention // submissions that cannot be used, and other items without a lead
	Resolved  []AttentionKey
	Stream    string // with Watermark: the stream whose watermark is set
	Watermark Watermark
}

// Write is one change of one lead. Plan is called inside the transaction with the state as it is
// then, and must be quick, free of side effects, and ready to be called again. An error from Plan
// leaves that lead alone and harms no other write.
type Write struct {
	Email lodestone.Email
	Plan  func(State) (Change, error)
	// Ahead, when it is given, is what Plan said before the transaction. A store that still holds the
	// state it was planned over takes it and does not call Plan.
	Ahead *Ahead
	// Settles is the attention item that this write is the answer to. The write is carried out while the
	// item is there, else its error is ErrSettled; the item goes with it, unless the change puts it anew.
	Settles *ItemKey
}

// Ahead is a change that was planned before its transaction, with the state that it was planned over.
type Ahead struct {
	State  State
	Change Change
	// Still says, inside the transaction, whether what the change rests on beside the state is as it was;
	// nil: there is nothing else. It must be quick.
	Still func() bool
	// Prepared is what Store.Prepare left there for Commit, nil where it was not called.
	Prepared any
}

// ItemKey names one attention item; Seq tells two submissions of one id apart and is 0 for other kinds. Signals,
// which are of the same kind, come in a stream of their own that counts alike.
type ItemKey struct {
	AttentionKey
	Seq    uint64
	Signal bool
}

// KeyOf is the key of an item.
func KeyOf(a *lodestone.Attention) ItemKey {
	return ItemKey{AttentionKey: AttentionKey{Kind: a.Kind, ID: a.ID}, Seq: a.Seq, Signal: a.Kind == lodestone.AttentionSubmission && a.IsSignal()}
}

// ErrSettled: the attention item that a write was the answer to is not there any more.
var ErrSettled = errors.New("the attention item was settled already")

// State is what a [Write] finds.
type State struct {
	Lead        *lodestone.Lead // nil: not known so far
	Suppression *lodestone.Suppression
	Erased      time.Time            // when a person who is not known was last erased; zero: never
	Starts      Starts               // nil where nobody counts: then no brake holds anything
	Version     []byte               // of the lead's record, nil when there is none; given by Store.State, and only its equality means anything
	Item        *lodestone.Attention // what the write settles
}

// Result is what became of a [Write].
type Result struct {
	Change Change
	// Version is that of the lead's record as it was left, as in [State]; nil where the store does not say.
	Version []byte
	Err     error // what Plan returned
}

// AttentionKey names an attention item.
type AttentionKey struct {
	Kind lodestone.AttentionKind
	ID   string
}

// Watermark says how far a stream has been applied, and which stream it was: a stream that was
// deleted and made again counts from 1, and a watermark without the identity would skip what is in
// it.
type Watermark struct {
	Created time.Time // of the stream
	Seq     uint64    // the last sequence number applied
}

// StreamError says that a stream is not the one whose watermark the store holds. It stops the
// start, because going on would either skip submissions or apply them twice.
type StreamError struct {
	Stream  string
	Mark    Watermark
	Created time.Time
	LastSeq uint64
}

func (e *StreamError) Error() string {
	what := fmt.Sprintf("it was created at %s, the one applied so far at %s", e.Created.Format(time.RFC3339Nano), e.Mark.Created.Format(time.RFC3339Nano))
	if e.Created.Equal(e.Mark.Created) {
		what = fmt.Sprintf("it ends at %d, and %d was applied already", e.LastSeq, e.Mark.Seq)
	}
	return fmt.Sprintf("stream %s is not the one this data directory knows: %s. "+
		"Was the stream deleted or restored, or does nats.url point somewhere else? Point it back, or start with --accept-stream to take this stream from its beginning", e.Stream, what)
}
