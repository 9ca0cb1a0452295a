package events

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
	"github.com/lodestonehq/lodestone/sequencer"
)

var at = time.Date(2026, 3, 6, 10, 0, 0, 0, time.UTC)

func TestEventsOfAnEntry(t *testing.T) {
	e := &lodestone.Entry{
		Lead: "ada@example.com", At: at,
		Decision:    &lodestone.Decision{Submission: "1", Reason: lodestone.ReasonEnrolled, Band: "hot", PreviousBand: "warm"},
		Enrollments: []lodestone.EnrollmentEntry{{ID: "e", State: lodestone.EnrollmentActive}, {ID: "d", State: lodestone.EnrollmentSuperseded}},
		Touchpoints: []lodestone.TouchpointEntry{
			{ID: "e.a", State: lodestone.TouchpointScheduled, Reason: lodestone.ReasonPlanned},
			{ID: "e.a", State: lodestone.TouchpointScheduled, Reason: lodestone.ReasonPaused},
			{ID: "e.a", State: lodestone.TouchpointHeld, Reason: lodestone.ReasonBraked},
			{ID: "e.a", State: lodestone.TouchpointIntended}, {ID: "e.a", State: lodestone.TouchpointUnknown},
			{ID: "e.a", State: lodestone.TouchpointHeld}, {ID: "e.a", State: lodestone.TouchpointSent},
			{ID: "e.b", State: lodestone.TouchpointSkipped}, {ID: "e.c", State: lodestone.TouchpointFailed}, {ID: "e.d", State: lodestone.TouchpointCancelled},
		},
	}
	want := []string{
		"submission.accepted", "lead.scored", "lead.band_changed", "enrollment.started", "enrollment.ended", "touchpoint.scheduled",
		"touchpoint.deferred", "touchpoint.deferred", "touchpoint.unknown", "touchpoint.unknown", "touchpoint.sent", "touchpoint.skipped", "touchpoint.failed", "touchpoint.cancelled",
	}
	var got []string
	for _, ev := range Of(e) {
		got = append(got, ev.Name)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("events = %v, want %v", got, want)
	}
	if dup := Of(&lodestone.Entry{Decision: &lodestone.Decision{Reason: lodestone.ReasonDuplicate}}); len(dup) != 0 {
		t.Errorf("a repeat gave %v, want nothing", dup)
	}
	if rej := Of(&lodestone.Entry{Rejected: &lodestone.RejectedEntry{ID: "x"}}); len(rej) != 1 || rej[0].Name != "submission.rejected" {
		t.Errorf("a rejected submission gave %v", rej)
	}
}

// flaky refuses some batches before it lets them through, and now and then fails after it stored one,
// as a connection does that breaks before the acknowledgement.
type flaky struct {
	*broker.Broker
	mu    sync.Mutex
	calls int
	taken chan int // how many messages each batch had that was acknowledged
}

func (f *flaky) PublishBatch(ctx context.Context, msgs []*nats.Msg) error {
	f.mu.Lock()
	f.calls++
	n := f.calls
	f.mu.Unlock()
	switch n {
	case 1:
		return errors.New("away")
	case 2:
		return errors.Join(errors.New("the answer got lost"), f.Broker.PublishBatch(ctx, msgs))
	}
	err := f.Broker.PublishBatch(ctx, msgs)
	if err == nil {
		f.taken <- len(msgs)
	}
	return err
}

func TestOutboxTellsEverythingOnceAcrossFaultsAndRestarts(t *testing.T) {
	dir := t.TempDir()
	b, err := broker.Open(t.Context(), broker.Options{Listen: "none", Dir: filepath.Join(dir, "jetstream"), MaxStore: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.EnsureStreams(t.Context()); err != nil {
		t.Fatal(err)
	}
	store, err := boltstore.Open(filepath.Join(dir, "data"), boltstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	decide := func(n int) {
		var batch sequencer.Batch
		for i := range n {
			email := lodestone.Email(fmt.Sprintf("lead%d@example.com", i))
			batch.Writes = append(batch.Writes, sequencer.Write{Email: email, Plan: func(st sequencer.State) (sequencer.Change, error) {
				l := st.Lead
				if l == nil {
					l = &lodestone.Lead{Email: email}
				}
				return sequencer.Change{Lead: l, Entry: &lodestone.Entry{Lead: email, At: at, Decision: &lodestone.Decision{Submission: "s", Reason: lodestone.ReasonNoSequence}}}, nil
			}})
		}
		if _, err := store.Commit(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	const first, second = 300, 20
	decide(first)
	publisher := &flaky{Broker: b, taken: make(chan int, 100)}
	got := map[string]int{}
	sub, err := b.JetStream().OrderedConsumer(t.Context(), broker.EventsStream, jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	iter, err := sub.Messages()
	if err != nil {
		t.Fatal(err)
	}
	defer iter.Stop()
	read := func(n int) {
		for range n {
			m, err := iter.Next(jetstream.NextContext(t.Context()))
			if err != nil {
				t.Fatal(err)
			}
			var e envelope
			if err := json.Unmarshal(m.Data(), &e); err != nil || e.SpecVersion != "1.0" || "lodestone.events."+e.Type[len("lodestone."):] != m.Subject() {
				t.Fatalf("message %s on %s: %v", m.Data(), m.Subject(), err)
			}
			got[e.ID]++
		}
	}
	run := func(n int) {
		o := New(store, publisher, store.Instance(), slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- o.Run(ctx) }()
		read(n)
		for taken := 0; taken < n; {
			taken += <-publisher.taken
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	run(2 * first)
	decide(second)
	run(2 * second)
	for id, n := range got {
		if n != 1 {
			t.Errorf("event %s was seen %d times", id, n)
		}
	}
	if len(got) != 2*(first+second) {
		t.Errorf("%d events, want %d", len(got), 2*(first+second))
	}
	if c, _ := store.Cursor(t.Context(), Cursor); c != first+second {
		t.Errorf("position %d, want %d", c, first+second)
	}
}
