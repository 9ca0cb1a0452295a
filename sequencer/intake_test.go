package sequencer_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
	"github.com/lodestonehq/lodestone/sequencer"
)

// rig is a real broker and a real store.
type rig struct {
	t      *testing.T
	dir    string
	broker *broker.Broker
	store  *boltstore.Store
	ended  <-chan error // what the last intake's Run returned
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir()}
	b, err := broker.Open(t.Context(), broker.Options{Listen: "none", Dir: filepath.Join(r.dir, "jetstream"), MaxStore: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	if err := b.EnsureStreams(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.broker = b
	r.open()
	t.Cleanup(func() {
		faults, err := r.store.Check(context.Background())
		if err != nil {
			t.Error(err)
		}
		for _, f := range faults {
			t.Errorf("check: %s", f)
		}
		r.store.Close()
	})
	return r
}

func (r *rig) open() {
	r.t.Helper()
	var err error
	if r.store, err = boltstore.Open(filepath.Join(r.dir, "data"), boltstore.Options{}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) publish(form, id, body string) {
	r.t.Helper()
	m := &nats.Msg{Subject: "lodestone.forms." + form, Data: []byte(body), Header: nats.Header{}}
	if id != "" {
		m.Header.Set(nats.MsgIdHdr, id)
	}
	if _, err := r.broker.JetStream().PublishMsg(r.t.Context(), m); err != nil {
		r.t.Fatal(err)
	}
}

// intake starts an intake and returns what it decides, in order, and how to stop it.
func (r *rig) intake(change func(*sequencer.Config)) (decided <-chan string, stop func() error) {
	r.t.Helper()
	out := make(chan string, 10_000)
	book := sequencer.NewRulebook(compile(r.t, ruleFile))
	cfg := sequencer.Config{
		JetStream: r.broker.JetStream(), Stream: sequencer.FormsStream, Store: r.store,
		Rulebook: func() *sequencer.Rulebook { return book },
		Committed: func(c *sequencer.Change) {
			out <- string(c.Lead.Email) + " " + string(c.Entry.Decision.Reason)
		},
		Rejected: func(a lodestone.Attention) { out <- "rejected " + string(a.Reason) },
	}
	if change != nil {
		change(&cfg)
	}
	in := sequencer.NewIntake(cfg)
	if err := in.Open(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error, 1)
	r.ended = done
	go func() { done <- in.Run(ctx) }()
	return out, sync.OnceValue(func() error { cancel(); return <-done })
}

// next waits for n decisions; the test's own time limit is what ends a wait in vain.
func next(t *testing.T, decided <-chan string, n int) []string {
	t.Helper()
	var got []string
	for range n {
		select {
		case d := <-decided:
			got = append(got, d)
		case <-t.Context().Done():
			t.Fatalf("only %q", got)
		}
	}
	return got
}

func TestIntakeAppliesEachMessageOnceAcrossRestarts(t *testing.T) {
	r := newRig(t)
	const rounds, each = 4, 50
	for round := range rounds {
		for i := range each {
			r.publish("news", fmt.Sprint(round, "-", i), fmt.Sprintf(`{"email":"lead%d@example.com"}`, i))
		}
		decided, stop := r.intake(nil)
		next(t, decided, each)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if extra := len(decided); extra != 0 {
			t.Fatalf("round %d decided %d messages too many", round, extra)
		}
		r.store.Close()
		r.open()
	}
	st, err := r.store.State(t.Context(), "lead7@example.com")
	if err != nil || st.Lead.Submissions != rounds {
		t.Errorf("lead7 has %+v submissions, %v; want %d", st.Lead, err, rounds)
	}
	mark, _ := r.store.Watermark(t.Context(), sequencer.FormsStream)
	if mark.Seq != rounds*each {
		t.Errorf("watermark %d, want %d", mark.Seq, rounds*each)
	}
}

func TestIntakeKeepsWhatItCannotUse(t *testing.T) {
	r := newRig(t)
	r.publish("news", "1", `{"email":"ada@example.com"}`)
	r.publish("news", "2", `{"email":"ada@`)
	r.publish("other", "3", `{"email":"ada@example.com"}`)
	r.publish("news", "4", `{"name":"nobody"}`)
	r.publish("news", "5", `{"email":"bob@example.com"}`)
	decided, stop := r.intake(nil)
	got := map[string]int{}
	for _, d := range next(t, decided, 5) {
		got[d]++
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ada@example.com enrolled", "rejected not_json", "rejected unknown_form", "rejected no_email", "bob@example.com enrolled"} {
		if got[want] != 1 {
			t.Errorf("%q was decided %d times, want once; all: %v", want, got[want], got)
		}
	}
	items, total, err := r.store.Attention(t.Context(), 10)
	if err != nil || total != 3 {
		t.Fatalf("%d attention items, %v; want 3", total, err)
	}
	for _, a := range items {
		if a.Reason == lodestone.ReasonNotJSON && (string(a.Data) != `{"email":"ada@` || a.Subject != "lodestone.forms.news" || a.ID != "2") {
			t.Errorf("the broken submission was not kept whole: %+v", a)
		}
	}
}

func TestIntakeNoticesRepeats(t *testing.T) {
	r := newRig(t)
	body := `{"specversion":"1.0","id":"7","source":"site","type":"lodestone.form.submitted","data":{"fields":{"email":"ada@example.com"}}}`
	for range 3 { // without a message id the stream takes every one of them
		m := &nats.Msg{Subject: "lodestone.forms.news", Data: []byte(body), Header: nats.Header{"Content-Type": {"application/cloudevents+json"}}}
		if _, err := r.broker.JetStream().PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	decided, stop := r.intake(nil)
	got := next(t, decided, 3)
	if want := []string{"ada@example.com enrolled", "ada@example.com duplicate", "ada@example.com duplicate"}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("decided %q, want %q", got, want)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

func TestIntakeRefusesAnotherStream(t *testing.T) {
	for _, tc := range []struct {
		name  string
		again int // messages in the new stream
	}{{"a shorter one", 1}, {"a longer one", 30}} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t)
			for i := range 20 {
				r.publish("news", "", fmt.Sprintf(`{"email":"lead%d@example.com"}`, i))
			}
			decided, stop := r.intake(nil)
			next(t, decided, 20)
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			if err := r.broker.JetStream().DeleteStream(t.Context(), sequencer.FormsStream); err != nil {
				t.Fatal(err)
			}
			if err := r.broker.EnsureStreams(t.Context()); err != nil {
				t.Fatal(err)
			}
			for i := range tc.again {
				r.publish("news", "", fmt.Sprintf(`{"email":"new%d@example.com"}`, i))
			}
			in := sequencer.NewIntake(sequencer.Config{JetStream: r.broker.JetStream(), Stream: sequencer.FormsStream, Store: r.store})
			var wrong *sequencer.StreamError
			if err := in.Open(t.Context()); !errors.As(err, &wrong) {
				t.Fatalf("Open = %v, want a StreamError", err)
			}
			decided, stop = r.intake(func(c *sequencer.Config) { c.AcceptStream = true })
			next(t, decided, tc.again)
			if err := stop(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// failingStore fails some commits before it lets them through.
type failingStore struct {
	sequencer.Store
	fails atomic.Int32
}

func (s *failingStore) Commit(ctx context.Context, b sequencer.Batch) ([]sequencer.Result, error) {
	if s.fails.Add(-1) >= 0 {
		return nil, errors.New("disk full")
	}
	return s.Store.Commit(ctx, b)
}

func TestIntakeNeverGoesPastAFailedCommit(t *testing.T) {
	r := newRig(t)
	for i := range 10 {
		r.publish("news", "", fmt.Sprintf(`{"email":"lead%d@example.com"}`, i))
	}
	failing := &failingStore{Store: r.store}
	failing.fails.Store(3)
	decided, stop := r.intake(func(c *sequencer.Config) { c.Store = failing })
	for i, d := range next(t, decided, 10) {
		if want := fmt.Sprintf("lead%d@example.com enrolled", i); d != want {
			t.Errorf("decision %d is %q, want %q", i, d, want)
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// slowStore fails the first commits, so that much waits for the next one, and keeps what it is given.
type slowStore struct {
	failingStore
	batches []sequencer.Batch // that were committed
}

func (s *slowStore) Commit(ctx context.Context, b sequencer.Batch) ([]sequencer.Result, error) {
	res, err := s.failingStore.Commit(ctx, b)
	if err == nil {
		s.batches = append(s.batches, b)
	}
	return res, err
}

// However much waits, and however large it is, a batch stays of a size that fits into memory, and a lead that
// stands in it often is planned ahead once: what follows finds another state.
func TestIntakeBoundsWhatItHolds(t *testing.T) {
	r := newRig(t)
	const n, size = 150, 250_000
	for i := range n {
		r.publish("news", "", fmt.Sprintf(`{"email":"lead%d@example.com","more":"%s"}`, i%2, strings.Repeat("x", size)))
	}
	slow := &slowStore{failingStore: failingStore{Store: r.store}}
	slow.fails.Store(4)
	decided, stop := r.intake(func(c *sequencer.Config) { c.Store = slow })
	next(t, decided, n)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for _, b := range slow.batches {
		if len(b.Writes) > 16<<20/size+1 {
			t.Errorf("a batch of %d messages of %d bytes", len(b.Writes), size)
		}
		ahead := map[lodestone.Email]int{}
		for _, w := range b.Writes {
			if w.Ahead != nil {
				ahead[w.Email]++
			}
		}
		for email, times := range ahead {
			if times > 1 {
				t.Errorf("%s was planned ahead %d times in one batch", email, times)
			}
		}
	}
}

func TestIntakeWaitsForRules(t *testing.T) {
	r := newRig(t)
	r.publish("news", "", `{"email":"ada@example.com"}`)
	asked := make(chan struct{}, 100)
	var book atomic.Pointer[sequencer.Rulebook]
	decided, stop := r.intake(func(c *sequencer.Config) {
		c.Rulebook = func() *sequencer.Rulebook {
			select {
			case asked <- struct{}{}:
			default:
			}
			return book.Load()
		}
	})
	<-asked
	if len(decided) != 0 {
		t.Fatal("decided without rules")
	}
	book.Store(sequencer.NewRulebook(compile(t, ruleFile)))
	if got := next(t, decided, 1); got[0] != "ada@example.com enrolled" {
		t.Errorf("decided %q", got)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

func TestSignalsSuppress(t *testing.T) {
	r := newRig(t)
	js := r.broker.JetStream()
	for kind, body := range map[string]string{
		"unsubscribed": `{"email":"ada@example.com"}`,
		"bounced":      `{"email":"bob@example.com","detail":{"type":"hard"}}`,
		"opened":       `{"email":"eve@example.com"}`,
	} {
		if _, err := js.Publish(t.Context(), "lodestone.signals."+kind, []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	got := make(chan string, 10)
	_, stop := r.intake(func(c *sequencer.Config) {
		c.Stream = sequencer.SignalsStream
		c.Committed = func(ch *sequencer.Change) { got <- string(ch.Lead.Email) }
	})
	next(t, got, 3)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for email, want := range map[lodestone.Email]bool{"ada@example.com": true, "bob@example.com": true, "eve@example.com": false} {
		st, err := r.store.State(t.Context(), email)
		if err != nil || (st.Suppression != nil) != want {
			t.Errorf("%s suppressed: %v, %v; want %v", email, st.Suppression, err, want)
		}
	}
}

// A stream that is made anew while the worker runs stops it, whatever was said about the one at the
// start: going on would pass over what is in it.
func TestStreamRemadeWhileRunningStopsIntake(t *testing.T) {
	for _, accept := range []bool{true, false} {
		r := newRig(t)
		decided, _ := r.intake(func(c *sequencer.Config) { c.AcceptStream = accept; c.VerifyEvery = 50 * time.Millisecond })
		for i := range 5 {
			r.publish("news", "", fmt.Sprintf(`{"email":"a%d@example.com"}`, i))
		}
		next(t, decided, 5)
		if err := r.broker.JetStream().DeleteStream(t.Context(), sequencer.FormsStream); err != nil {
			t.Fatal(err)
		}
		if err := r.broker.EnsureStreams(t.Context()); err != nil {
			t.Fatal(err)
		}
		var wrong *sequencer.StreamError
		if err := <-r.ended; !errors.As(err, &wrong) {
			t.Errorf("accept %v: Run = %v, want a StreamError", accept, err)
		}
	}
}

func TestCaughtUpWhenWhatWaitedIsApplied(t *testing.T) {
	r := newRig(t)
	in := sequencer.NewIntake(sequencer.Config{JetStream: r.broker.JetStream(), Stream: sequencer.FormsStream, Store: r.store})
	if err := in.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-in.CaughtUp() // nothing waits

	const n = 1200
	var msgs []*nats.Msg
	for i := range n {
		msgs = append(msgs, &nats.Msg{Subject: "lodestone.forms.news", Data: fmt.Appendf(nil, `{"email":"l%d@example.com"}`, i)})
	}
	if err := r.broker.PublishBatch(t.Context(), msgs); err != nil {
		t.Fatal(err)
	}
	book := sequencer.NewRulebook(compile(t, ruleFile))
	in = sequencer.NewIntake(sequencer.Config{JetStream: r.broker.JetStream(), Stream: sequencer.FormsStream, Store: r.store, Rulebook: func() *sequencer.Rulebook { return book }})
	if err := in.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-in.CaughtUp():
		t.Fatal("caught up before anything was applied")
	default:
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- in.Run(ctx) }()
	<-in.CaughtUp()
	if mark, _ := r.store.Watermark(t.Context(), sequencer.FormsStream); mark.Seq != n {
		t.Errorf("caught up at %d, want %d", mark.Seq, n)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestABadSignalIsNoRejectedSubmission(t *testing.T) {
	r := newRig(t)
	decided, stop := r.intake(func(c *sequencer.Config) { c.Stream = sequencer.SignalsStream })
	if _, err := r.broker.JetStream().Publish(t.Context(), "lodestone.signals.opened", []byte(`{}`)); err != nil {
		t.Fatal(err)
	}
	next(t, decided, 1)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	totals, _ := r.store.Totals(t.Context())
	if len(totals) != 1 || totals[0].What != "signal.rejected" {
		t.Errorf("roll-up = %+v, want one rejected signal", totals)
	}
}
