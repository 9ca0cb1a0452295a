package sequencer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/sequencer/event"
	"github.com/lodestonehq/lodestone/sequencer/failpoint"
)

// The streams that intake reads.
const (
	FormsStream   = "LODESTONE_FORMS"
	SignalsStream = "LODESTONE_SIGNALS"
)

// MaxBatch bounds how many messages one transaction applies. What is waiting is taken, so a quiet
// stream commits each message at once.
const MaxBatch = 2000

// maxBatchBytes bounds what the messages of a batch hold together: what is waiting may all be as large as can be.
const maxBatchBytes = 16 << 20

// While touchpoints go out their intents and outcomes wait for intake's commit under way, so under a flood
// a batch is kept to what is committed in about commitFor, but never to less than minBatch. Until what was
// waiting at the start is applied nothing goes out, and batches are as large as they may be; where nothing
// waited they begin small and grow while commits are quick.
const (
	commitFor = 50 * time.Millisecond
	minBatch  = 50
)

// Config of [NewIntake].
type Config struct {
	JetStream jetstream.JetStream
	Stream    string // FormsStream or SignalsStream
	Store     Store
	// Rulebook returns what to decide with, nil while there are no usable rule files: intake then
	// waits, and submissions wait in the stream.
	Rulebook func() *Rulebook
	Log      *slog.Logger
	// Seal proves what a gateway observed of a submission; nil: nothing of it is believed.
	Seal *event.Seal
	// Committed is told of every change after it was committed, Rejected of every message that was
	// put under attention. Both must be quick.
	Committed func(*Change)
	Rejected  func(lodestone.Attention)
	// VerifyEvery is how often a quiet stream is asked whether it is still the same one. 0: 30 s.
	VerifyEvery time.Duration
	// AcceptStream takes a stream that is not the one that was applied so far from its beginning,
	// instead of refusing it.
	AcceptStream bool
	// Now is the wall clock; nil: [time.Now]. It dates what is decided, and decides nothing about which
	// messages were applied.
	Now func() time.Time
}

// Intake applies one stream, in order, each message exactly once: the watermark is committed with
// what it stands for, and nothing is ever applied before an earlier message.
type Intake struct {
	cfg    Config
	mark   Watermark
	caught chan struct{} // closed when everything that was in the stream at Open is applied
	target uint64        // the last of it
	most   atomic.Int64  // messages of one batch, as commits take now
	once   sync.Once
}

// NewIntake makes an intake. It does nothing until Open and Run.
func NewIntake(cfg Config) *Intake {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Committed == nil {
		cfg.Committed = func(*Change) {}
	}
	if cfg.Rejected == nil {
		cfg.Rejected = func(lodestone.Attention) {}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	in := &Intake{cfg: cfg, caught: make(chan struct{})}
	in.most.Store(MaxBatch)
	return in
}

// Open reads the watermark and compares it with the stream. The error is a [*StreamError] when the
// stream is another one than was applied so far, or ends before what was applied.
func (in *Intake) Open(ctx context.Context) error {
	mark, err := in.cfg.Store.Watermark(ctx, in.cfg.Stream)
	if err != nil {
		return err
	}
	in.mark = mark
	err = in.verify(ctx)
	if err == nil {
		in.cfg.AcceptStream = false // said for this stream, not for whatever takes its place later
	}
	if err == nil && in.target <= in.mark.Seq {
		in.most.Store(minBatch) // what a commit takes is not known yet
		in.once.Do(func() { close(in.caught) })
	}
	return err
}

// CaughtUp is closed when everything that was in the stream when it was opened is applied. What waits
// there may be an opt-out, so nothing is sent before.
func (in *Intake) CaughtUp() <-chan struct{} { return in.caught }

// verify checks that the stream is the one that the watermark belongs to.
func (in *Intake) verify(ctx context.Context) error {
	stream, err := in.cfg.JetStream.Stream(ctx, in.cfg.Stream)
	if err != nil {
		return fmt.Errorf("stream %s: %w", in.cfg.Stream, err)
	}
	info := stream.CachedInfo()
	created, last := info.Created.UTC(), info.State.LastSeq
	if in.target == 0 {
		in.target = last
	}
	switch {
	case in.mark.Created.IsZero():
		in.mark.Created = created // the first time: everything in it is new
	case in.mark.Created.Equal(created) && last >= in.mark.Seq:
	case in.cfg.AcceptStream:
		in.cfg.Log.WarnContext(ctx, "taking a stream that is not the one applied so far from its beginning", "stream", in.cfg.Stream, "created", created)
		in.mark = Watermark{Created: created}
	default:
		return &StreamError{Stream: in.cfg.Stream, Mark: in.mark, Created: created, LastSeq: last}
	}
	return nil
}

// Run applies what comes until ctx is done. It returns an error only when it must not go on: the
// stream is no longer the one it was. Everything else is waited out.
func (in *Intake) Run(ctx context.Context) error {
	for {
		if in.cfg.Rulebook() == nil {
			if !pause(ctx, time.Second) {
				return nil
			}
			continue
		}
		err := in.read(ctx)
		if ctx.Err() != nil {
			return nil
		}
		var wrong *StreamError
		if errors.As(err, &wrong) {
			return err
		}
		in.cfg.Log.WarnContext(ctx, "intake interrupted; going on from the watermark", "stream", in.cfg.Stream, "after", in.mark.Seq, "error", err)
		if !pause(ctx, time.Second) {
			return nil
		}
		if err := in.verify(ctx); errors.As(err, &wrong) {
			return err
		}
	}
}

// quietAfter is how long after the start a stream that delivers nothing counts as applied.
const quietAfter = 5 * time.Second

// read applies messages from an ordered consumer that begins after the watermark. Such a consumer
// needs no acknowledgements, and it starts itself again when a message is missing.
func (in *Intake) read(ctx context.Context) error {
	consumer, err := in.cfg.JetStream.OrderedConsumer(ctx, in.cfg.Stream, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: in.mark.Seq + 1,
	})
	if err != nil {
		return err
	}
	iter, err := consumer.Messages(jetstream.PullMaxMessages(2000))
	if err != nil {
		return err
	}
	defer iter.Stop()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	arrived := make(chan jetstream.Msg, 64) // closed by the pump
	go func() {
		defer close(arrived)
		for {
			m, err := iter.Next(jetstream.NextContext(ctx))
			if err != nil {
				cancel(err)
				return
			}
			select {
			case arrived <- m:
			case <-ctx.Done():
				return
			}
		}
	}()

	ready := make(chan Batch)
	go func() { cancel(in.prepare(ctx, in.mark, arrived, ready)) }()

	// A stream that was deleted and made again would otherwise be waited on for ever.
	check := time.NewTicker(cmp.Or(in.cfg.VerifyEvery, 30*time.Second))
	defer check.Stop()
	// The last messages of a stream may have been deleted, and then nothing comes that says so.
	quiet := time.NewTimer(quietAfter)
	defer quiet.Stop()
	for {
		select {
		case b := <-ready:
			if err := in.apply(ctx, b); err != nil {
				return err
			}
			quiet.Reset(quietAfter)
		case <-quiet.C:
			in.once.Do(func() { close(in.caught) })
		case <-check.C:
			if err := in.verify(ctx); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// prepare makes batches ready while the one before is committed: it decodes what arrives and plans it
// over what the store holds at that moment. What arrives while a batch waits to be handed over is added to
// it. It ends with ctx, or with an error of a message that is none.
func (in *Intake) prepare(ctx context.Context, mark Watermark, arrived <-chan jetstream.Msg, ready chan<- Batch) error {
	empty := func() Batch { return Batch{Stream: in.cfg.Stream, Watermark: mark} }
	b, n, size := empty(), 0, 0
	leads := map[lodestone.Email]bool{} // of the batch
	add := func(m jetstream.Msg) error {
		msg, err := read(m)
		if err != nil {
			return err
		}
		if msg.Seq <= mark.Seq {
			return nil // delivered again; it is in this batch or an earlier one
		}
		n++
		size += len(msg.Data)
		mark.Seq = msg.Seq
		in.cfg.Seal.Open(msg)
		b.Watermark = mark
		book, now := in.cfg.Rulebook(), in.cfg.Now().UTC()
		w, item := in.decide(msg, book, now)
		if item != nil {
			b.Attention = append(b.Attention, *item)
			return nil
		}
		if !leads[w.Email] { // the state that a later one finds is not there yet
			leads[w.Email] = true
			in.ahead(ctx, &w)
		}
		b.Writes = append(b.Writes, w)
		return nil
	}
	for {
		handOver, more := ready, arrived
		if n == 0 {
			handOver = nil
		}
		if n >= int(in.most.Load()) || size >= maxBatchBytes {
			more = nil
		}
		var m jetstream.Msg
		var ok bool
		select { // everything that waits is taken before a batch is handed over
		case m, ok = <-more:
		default:
			select {
			case handOver <- b:
				b, n, size = empty(), 0, 0
				clear(leads)
				continue
			case m, ok = <-more:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		if !ok {
			return context.Cause(ctx) // the pump has ended, and said why
		}
		if err := add(m); err != nil {
			return err
		}
	}
}

// ahead plans a write over the state that the store holds now. Where that cannot be done, or turns out
// to be another state when the write is carried out, the write is planned in its transaction.
func (in *Intake) ahead(ctx context.Context, w *Write) {
	st, err := in.cfg.Store.State(ctx, w.Email)
	if err != nil {
		return
	}
	counted := false // what is counted belongs to no lead's state, so it counts in the transaction alone
	st.Starts = func(string, time.Time) int { counted = true; return 0 }
	if c, err := w.Plan(st); err == nil && !counted {
		w.Ahead = &Ahead{State: st, Change: c}
		in.cfg.Store.Prepare(w.Ahead)
	}
}

// read takes what intake needs of a message.
func read(m jetstream.Msg) (*event.Message, error) {
	meta, err := m.Metadata()
	if err != nil {
		return nil, err
	}
	return &event.Message{
		Subject: m.Subject(), Header: map[string][]string(m.Headers()), Data: m.Data(),
		Seq: meta.Sequence.Stream, Time: meta.Timestamp.UTC(),
	}, nil
}

// apply commits a batch with its watermark. A transaction that fails is tried again until it
// succeeds or ctx is done: going past it would leave its messages behind the watermark for ever.
func (in *Intake) apply(ctx context.Context, b Batch) error {
	delay := 100 * time.Millisecond
	for {
		failpoint.Hit(failpoint.IntakeDecided)
		begun := time.Now()
		results, err := in.cfg.Store.Commit(ctx, b)
		if err == nil {
			failpoint.Hit(failpoint.IntakeCommitted)
			in.mark = b.Watermark
			in.pace(len(b.Writes)+len(b.Attention), time.Since(begun))
			for i := range results {
				in.told(&results[i])
			}
			if in.mark.Seq >= in.target {
				in.once.Do(func() { close(in.caught) })
			}
			for _, a := range b.Attention {
				in.cfg.Rejected(a)
			}
			return nil
		}
		in.cfg.Log.ErrorContext(ctx, "cannot commit; trying again", "stream", in.cfg.Stream, "submissions", len(b.Writes)+len(b.Attention), "error", err)
		if !pause(ctx, delay) {
			return ctx.Err()
		}
		delay = min(2*delay, 5*time.Second)
	}
}

// pace fits the size of batches to what the last one took.
func (in *Intake) pace(n int, took time.Duration) {
	if in.mark.Seq < in.target {
		return // nothing goes out yet
	}
	fits := int64(n) * int64(commitFor) / max(1, int64(took))
	switch most := in.most.Load(); {
	case took > 2*commitFor && n > minBatch:
		in.most.Store(max(minBatch, fits))
	case took < commitFor && int64(n) >= most:
		in.most.Store(min(MaxBatch, 2*most, max(minBatch, fits)))
	}
}

func (in *Intake) told(r *Result) {
	if r.Err != nil {
		return // cannot be: planning a message has no errors
	}
	for _, a := range r.Change.Attention {
		if a.Kind == lodestone.AttentionSubmission {
			in.cfg.Rejected(a)
			return
		}
	}
	in.cfg.Committed(&r.Change)
}

// Decode reads a message of a stream as an event of the lead whose address it gives; the event counts when
// the rejection is nil.
func Decode(stream string, m *event.Message, book *Rulebook) (Event, lodestone.Email, *lodestone.Rejection) {
	if stream == SignalsStream {
		sig, rejected := event.DecodeSignal(*m)
		return Signalled{sig}, sig.Email, rejected
	}
	sub, rejected := event.DecodeSubmission(*m, book.Form)
	return &Submitted{Submission: sub}, sub.Email, rejected
}

// decide decodes a message and makes the write that plans it, or the attention item that keeps it.
func (in *Intake) decide(m *event.Message, book *Rulebook, now time.Time) (Write, *lodestone.Attention) {
	email, plan, rejected := decide(in.cfg.Stream, m, book, now, false, func(p any, stack []byte) {
		in.cfg.Log.Error("planning failed; the message is kept under attention", "stream", in.cfg.Stream, "seq", m.Seq, "panic", p, "stack", string(stack))
	})
	if rejected != nil {
		return Write{}, keep(m, rejected, now)
	}
	return Write{Email: email, Plan: plan}, nil
}

// decide decodes a message and says whose record it changes and how, or why it cannot be used. A fault of
// ours in planning it is told and keeps the message under attention. honest is a human's word that it need not
// wait for one.
func decide(stream string, m *event.Message, book *Rulebook, now time.Time, honest bool, fault func(any, []byte)) (lodestone.Email, func(State) (Change, error), *lodestone.Rejection) {
	ev, email, rejected := Decode(stream, m, book)
	if rejected != nil {
		return "", nil, rejected
	}
	return email, func(st State) (c Change, err error) {
		defer func() {
			// A fault of ours in deciding one message must not stop all that come after it. The
			// message is kept whole, where a human finds it.
			if p := recover(); p != nil {
				fault(p, debug.Stack())
				c = Change{Attention: []lodestone.Attention{*keep(m, &lodestone.Rejection{
					Reason: lodestone.ReasonPlanFailed, Detail: fmt.Sprintf("deciding failed with a fault of lodestone's own (%v); please report it", p), Email: email,
				}, now)}}
			}
		}()
		if c, gone := afterErasure(&st, ev, now); gone {
			return c, nil
		}
		if s, ok := ev.(*Submitted); ok {
			if no := Quarantined(st.Lead, &s.Submission, book); no != nil && !honest {
				return Change{Attention: []lodestone.Attention{*keep(m, no, now)}}, nil
			}
			return planned(st.Lead, &s.Submission, st.Starts, book, now), nil
		}
		return Plan(st.Lead, ev, book, now)
	}, nil
}

// Again makes the write that tries a message again which could not be used, as it came and with the id and
// time that it had. What is still not usable stays under attention with its new reason.
func Again(a *lodestone.Attention, word lodestone.OperatorEntry, book *Rulebook, now time.Time) Write {
	m := &event.Message{Subject: a.Subject, Header: a.Header, Data: a.Data, Seq: a.Seq, Time: a.Received}
	if m.Time.IsZero() {
		m.Time = a.At // kept by an earlier version; it was put under attention when it came
	}
	key := KeyOf(a)
	w := Write{Settles: &key}
	still := func(item lodestone.Attention) Change {
		item.ID, item.At, item.Received = a.ID, a.At, a.Received // the same item, where it was
		return Change{Attention: []lodestone.Attention{item}}
	}
	stream := FormsStream
	if a.IsSignal() {
		stream = SignalsStream
	}
	email, plan, rejected := decide(stream, m, book, now, a.Reason == lodestone.ReasonQuarantined, func(any, []byte) {})
	if rejected != nil {
		w.Plan = func(State) (Change, error) { return still(*keep(m, rejected, now)), nil }
		return w
	}
	w.Email = email
	w.Plan = func(st State) (Change, error) {
		c, err := plan(st)
		if err == nil && len(c.Attention) > 0 && c.Attention[0].Kind == lodestone.AttentionSubmission {
			return still(c.Attention[0]), nil
		}
		if c.Entry != nil {
			c.Entry.Operator = &word
		}
		return c, err
	}
	return w
}

// keep makes the attention item that holds a message whole.
func keep(m *event.Message, r *lodestone.Rejection, now time.Time) *lodestone.Attention {
	id := r.ID
	if id == "" {
		id = fmt.Sprintf("seq:%d", m.Seq)
	}
	return &lodestone.Attention{
		ID: id, Kind: lodestone.AttentionSubmission, Reason: r.Reason, Form: r.Form, Email: r.Email, At: now, Detail: r.Detail,
		Seq: m.Seq, Subject: m.Subject, Header: m.Header, Data: m.Data, Received: m.Time,
	}
}

// Lag is how many messages of the stream wait to be applied.
func (in *Intake) Lag(ctx context.Context) (uint64, error) {
	stream, err := in.cfg.JetStream.Stream(ctx, in.cfg.Stream)
	if err != nil {
		return 0, err
	}
	mark, err := in.cfg.Store.Watermark(ctx, in.cfg.Stream)
	if err != nil {
		return 0, err
	}
	last := stream.CachedInfo().State.LastSeq
	return last - min(last, mark.Seq), nil
}

// pause waits for d; false when ctx was done first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
