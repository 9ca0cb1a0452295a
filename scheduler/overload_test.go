package scheduler_test

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/scheduler"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
	"github.com/lodestonehq/lodestone/sequencer"
)

// flood is a stream into which submissions come at a rate. What nobody has taken stays in it.
type flood struct {
	begin     time.Time
	every     time.Duration // between two submissions
	delivered atomic.Int64
}

func (f *flood) arrived() int64 { return int64(time.Since(f.begin) / f.every) }

func (f *flood) stream() *jetstream.StreamInfo {
	return &jetstream.StreamInfo{Created: f.begin, State: jetstream.StreamState{LastSeq: uint64(f.arrived())}}
}

type floodStream struct {
	jetstream.Stream
	f *flood
}

func (s floodStream) CachedInfo() *jetstream.StreamInfo { return s.f.stream() }

type floodJS struct {
	jetstream.JetStream
	f *flood
}

func (j floodJS) Stream(context.Context, string) (jetstream.Stream, error) {
	return floodStream{f: j.f}, nil
}

func (j floodJS) OrderedConsumer(context.Context, string, jetstream.OrderedConsumerConfig) (jetstream.Consumer, error) {
	return floodConsumer{f: j.f}, nil
}

type floodConsumer struct {
	jetstream.Consumer
	f *flood
}

func (c floodConsumer) Messages(...jetstream.PullMessagesOpt) (jetstream.MessagesContext, error) {
	return &floodMessages{f: c.f, done: make(chan struct{})}, nil
}

type floodMessages struct {
	jetstream.MessagesContext
	f    *flood
	done chan struct{}
}

func (m *floodMessages) Stop() { close(m.done) }

func (m *floodMessages) Next(...jetstream.NextOpt) (jetstream.Msg, error) {
	n := m.f.delivered.Add(1)
	select {
	case <-m.done:
		return nil, jetstream.ErrMsgIteratorClosed
	case <-time.After(time.Until(m.f.begin.Add(time.Duration(n) * m.f.every))):
		return floodMsg{n: uint64(n), at: time.Now()}, nil
	}
}

type floodMsg struct {
	jetstream.Msg
	n  uint64
	at time.Time
}

func (m floodMsg) Metadata() (*jetstream.MsgMetadata, error) {
	return &jetstream.MsgMetadata{Sequence: jetstream.SequencePair{Stream: m.n}, Timestamp: m.at}, nil
}
func (m floodMsg) Subject() string      { return "lodestone.forms.guide" }
func (m floodMsg) Headers() nats.Header { return nil }

// Data is of somebody who gave no consent, so that nothing of the flood itself goes out.
func (m floodMsg) Data() []byte {
	return fmt.Appendf(nil, `{"email":"flood%d@example.com","kind":"careful"}`, m.n)
}

// slowStore takes its time for each write, in the transaction, where all others wait for it.
type slowStore struct {
	*boltstore.Store
	each time.Duration
}

func (s slowStore) Commit(ctx context.Context, b sequencer.Batch) ([]sequencer.Result, error) {
	slow := b
	slow.Writes = make([]sequencer.Write, len(b.Writes))
	for i, w := range b.Writes {
		plan := w.Plan
		w.Ahead, w.Plan = nil, func(st sequencer.State) (sequencer.Change, error) {
			time.Sleep(s.each)
			return plan(st)
		}
		slow.Writes[i] = w
	}
	return s.Store.Commit(ctx, slow)
}

// Ten times as many submissions come as the store can take: for a moment to a quick store, and for long to
// a slow one. What falls due meanwhile goes out on time, which is when the commits of intake let it through;
// the worker holds no more than a few batches, and the rest waits in the stream. OVERLOAD_FOR says how long
// that is (CI: 1h).
func TestOverload(t *testing.T) {
	long := 10 * time.Minute
	if testing.Short() {
		long = 2 * time.Minute
	}
	if v := os.Getenv("OVERLOAD_FOR"); v != "" {
		var err error
		if long, err = time.ParseDuration(v); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name      string
		long      time.Duration
		each, due time.Duration // a write of the store takes; between two touchpoints
		late      time.Duration // at most
	}{
		{"100,000 a second to a store that takes 10,000", 5 * time.Second, 100 * time.Microsecond, 50 * time.Millisecond, 250 * time.Millisecond},
		{"500 a second to a store that takes 50", long, 20 * time.Millisecond, time.Second, 3 * time.Second}, // a commit takes a second
	} {
		t.Run(tc.name, func(t *testing.T) { overload(t, tc.long, tc.each, tc.due, tc.late) })
	}
}

func overload(t *testing.T, long, each, dueEvery, late time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		ctx, cancel := context.WithCancel(context.Background())
		due := map[lodestone.Email]time.Time{}
		var batch sequencer.Batch
		begin := b.now().UTC()
		n := int(long / dueEvery)
		for i := range n {
			email, at := lead(i), begin.Add(time.Duration(i)*dueEvery)
			due[email] = at.Add(time.Hour)
			sub := lodestone.Submission{ID: fmt.Sprint(i), Form: "guide", Email: email, Fields: lodestone.FieldsOf(map[string]any{"email": string(email)}), At: at, Received: at}
			batch.Writes = append(batch.Writes, sequencer.Write{Email: email, Plan: func(st sequencer.State) (sequencer.Change, error) {
				return sequencer.Plan(st.Lead, &sequencer.Submitted{Submission: sub}, b.book.Load(), at)
			}})
		}
		if _, err := b.store.Commit(ctx, batch); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour - time.Second)

		var latest time.Duration
		b.p.do = func(act connectors.Act, _ int) (connectors.Receipt, error) {
			b.p.mu.Lock()
			latest = max(latest, b.now().Sub(due[act.Email]))
			b.p.mu.Unlock()
			time.Sleep(50 * time.Millisecond) // what a provider takes
			return connectors.Receipt{}, nil
		}
		b.acct.Concurrency = 8
		store := slowStore{b.store, each}
		s := scheduler.New(scheduler.Config{Store: store, Rulebook: b.book.Load, Accounts: map[string]scheduler.Account{"provider": b.acct}})
		f := &flood{begin: time.Now(), every: each / 10}
		var applied, held atomic.Int64
		in := sequencer.NewIntake(sequencer.Config{JetStream: floodJS{f: f}, Stream: sequencer.FormsStream, Store: store, Rulebook: b.book.Load,
			Committed: func(c *sequencer.Change) {
				s.Notify(c)
				held.Store(max(held.Load(), f.delivered.Load()-applied.Add(1)))
			}})
		if err := in.Open(ctx); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 2)
		go func() { done <- s.Run(ctx) }()
		go func() { done <- in.Run(ctx) }()
		time.Sleep(long + 2*time.Second)
		waiting := f.arrived() - applied.Load()
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		t.Logf("%v of simulated time: %d came, %d applied, %d wait in the stream, at most %d in the worker; %d touchpoints of %d went out, the latest %v late",
			long+2*time.Second, f.arrived(), applied.Load(), waiting, held.Load(), len(b.p.outcomes()), n, latest.Round(time.Millisecond))
		if latest > late {
			t.Errorf("a touchpoint went out %v late, want at most %v", latest, late)
		}
		if most := int64(4 * sequencer.MaxBatch); held.Load() > most+2 {
			t.Errorf("the worker held %d submissions, want at most %d however many come", held.Load(), most)
		}
		b.sentOnce(n)
		if waiting < 5*applied.Load() {
			t.Errorf("%d wait in the stream and %d were applied: that was no overload", waiting, applied.Load())
		}
		faults, err := b.store.Check(context.Background())
		if err != nil || len(faults) > 0 {
			t.Errorf("check: %v %v", faults, err)
		}
		b.store.Close()
	})
}
