package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// messages are n submissions with message ids.
func messages(n int, name string) []*nats.Msg {
	out := make([]*nats.Msg, n)
	for i := range out {
		out[i] = &nats.Msg{
			Subject: "lodestone.forms.pricing-guide",
			Header:  nats.Header{"Nats-Msg-Id": {fmt.Sprintf("%s-%d", name, i)}},
			Data:    fmt.Appendf(nil, `{"email":"lead%d@example.com","n":%q}`, i, name),
		}
	}
	return out
}

func TestPublishBatch(t *testing.T) {
	b := openWithStreams(t, Options{})
	var total uint64
	for _, n := range []int{0, 1, 2, 15, 16, 17, 999, 1000, 1001, 2500} {
		msgs := messages(n, fmt.Sprint("b", n))
		if err := b.PublishBatch(t.Context(), msgs); err != nil {
			t.Fatalf("%d messages: %v", n, err)
		}
		if total += uint64(n); count(t, b, FormsStream) != total {
			t.Fatalf("%d messages: the stream holds %d, want %d", n, count(t, b, FormsStream), total)
		}
		if n > 0 && (len(msgs[0].Header) != 1 || msgs[0].Reply != "") {
			t.Errorf("a message was changed: %+v", msgs[0])
		}
	}
	// In order, and as they were.
	stream, err := b.JetStream().Stream(t.Context(), FormsStream)
	if err != nil {
		t.Fatal(err)
	}
	first := total - 2500 + 1
	for i, want := range messages(2500, "b2500") {
		if i%250 != 0 && i < 2490 {
			continue
		}
		m, err := stream.GetMsg(t.Context(), first+uint64(i))
		if err != nil || string(m.Data) != string(want.Data) || m.Header.Get("Nats-Msg-Id") != want.Header.Get("Nats-Msg-Id") {
			t.Errorf("message %d = %+v, %v", i, m, err)
		}
	}
}

func TestDuplicatesAreAccepted(t *testing.T) {
	b := openWithStreams(t, Options{})
	if err := b.PublishBatch(t.Context(), messages(20, "a")); err != nil {
		t.Fatal(err)
	}
	for name, msgs := range map[string][]*nats.Msg{
		"all again":         messages(20, "a"),
		"a few again":       messages(3, "a"),
		"more than before":  messages(50, "a"),
		"twice in one go":   append(messages(20, "c"), messages(20, "c")...),
		"in several chunks": append(messages(1500, "d"), messages(1500, "d")...),
	} {
		if err := b.PublishBatch(t.Context(), msgs); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := count(t, b, FormsStream); n != 50+20+1500 {
		t.Errorf("the stream holds %d messages, want %d", n, 50+20+1500)
	}
}

func TestStreamsInOneBatch(t *testing.T) {
	b := openWithStreams(t, Options{})
	msgs := messages(40, "mixed")
	for i := 0; i < 40; i += 2 {
		msgs[i].Subject = "lodestone.signals.opened"
	}
	msgs[7].Subject = "lodestone.events.lead.scored"
	msgs[9].Subject = "somewhere.else"
	var failed *BatchError
	if err := b.PublishBatch(t.Context(), msgs); !errors.As(err, &failed) || len(failed.Errs) != 40 || !errors.Is(failed.Errs[9], ErrNoStream) {
		t.Fatalf("err = %v", err)
	}
	if n := len(failed.Unwrap()); n != 1 || !strings.Contains(failed.Error(), "1 of 40 messages were not accepted") {
		t.Errorf("%d errors: %v", n, failed)
	}
	if f, s, e := count(t, b, FormsStream), count(t, b, SignalsStream), count(t, b, EventsStream); f != 18 || s != 20 || e != 1 {
		t.Errorf("forms %d, signals %d, events %d; want 18, 20, 1", f, s, e)
	}
}

// TestOneBadMessage: of a batch that the server refuses as a whole every good message is accepted.
func TestOneBadMessage(t *testing.T) {
	b := openWithStreams(t, Options{})
	msgs := messages(30, "bad")
	msgs[11].Header.Set("Nats-Expected-Stream", "ANOTHER")
	var failed *BatchError
	if err := b.PublishBatch(t.Context(), msgs); !errors.As(err, &failed) {
		t.Fatalf("err = %v", err)
	}
	for i, err := range failed.Errs {
		var api *jetstream.APIError
		if (err != nil) != (i == 11) || i == 11 && !errors.As(err, &api) {
			t.Errorf("message %d: %v", i, err)
		}
	}
	if n := count(t, b, FormsStream); n != 29 {
		t.Errorf("the stream holds %d messages, want 29", n)
	}
}

// TestBatchesRefused: a stream that takes no atomic batches gets its messages one by one.
func TestBatchesRefused(t *testing.T) {
	b := open(t, Options{})
	cfg := b.newStream(FormsStream)
	cfg.AllowAtomicPublish = false
	if _, err := b.JetStream().CreateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if err := b.PublishBatch(t.Context(), messages(2100, "plain")); err != nil {
		t.Fatal(err)
	}
	if n := count(t, b, FormsStream); n != 2100 {
		t.Errorf("the stream holds %d messages, want 2100", n)
	}
}

// TestFullStream: a full stream keeps what it has, refuses what is new and says why.
func TestFullStream(t *testing.T) {
	b := openWithStreams(t, Options{MaxBytes: 64 << 10})
	big := func(n int, name string) []*nats.Msg {
		msgs := messages(n, name)
		for _, m := range msgs {
			m.Data = fmt.Appendf(nil, `{"x":%q}`, strings.Repeat("x", 4000))
		}
		return msgs
	}
	if err := b.PublishBatch(t.Context(), big(10, "fits")); err != nil {
		t.Fatal(err)
	}
	for name, msgs := range map[string][]*nats.Msg{"one by one": big(10, "plain"), "as a batch": big(30, "batch")} {
		err := b.PublishBatch(t.Context(), msgs)
		if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "the stream is full") || !strings.Contains(err.Error(), "limit is raised") {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, first, last, err := b.StreamIdentity(t.Context(), FormsStream)
	if err != nil || first != 1 || last < 10 {
		t.Errorf("first %d, last %d, %v: an old message is gone", first, last, err)
	}
}

func TestPublishCancelled(t *testing.T) {
	b := openWithStreams(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, n := range []int{3, 30} {
		if err := b.PublishBatch(ctx, messages(n, "cancelled")); !errors.Is(err, context.Canceled) {
			t.Errorf("%d messages: %v", n, err)
		}
	}
}

func TestPublishDisconnected(t *testing.T) {
	s := startOutside(t, nil)
	b := openWithStreams(t, Options{URL: s.ClientURL(), AcceptUnsynced: true})
	s.stop()
	eventually(t, "the loss is noticed", func() bool { return !b.Status().Connected })
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	for _, n := range []int{3, 30} {
		if err := b.PublishBatch(ctx, messages(n, "lost")); !errors.Is(err, ErrNoAnswer) && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%d messages: %v", n, err)
		}
	}
}

func TestStreamOf(t *testing.T) {
	for subject, want := range map[string]string{
		"lodestone.forms.a": FormsStream, "lodestone.signals.opened": SignalsStream, "lodestone.events.lead.scored": EventsStream,
		"lodestone.other": "", "lodestone.formsx.a": "", "": "",
	} {
		if got := streamOf(subject); got != want {
			t.Errorf("streamOf(%q) = %q, want %q", subject, got, want)
		}
	}
	if got := slices.Sorted(maps.Keys(subjects)); len(got) != len(Streams) {
		t.Errorf("subjects of %v, streams %v", got, Streams)
	}
}

func BenchmarkPublishBatch(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			br, err := Open(b.Context(), Options{Dir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			defer br.Close()
			if err := br.EnsureStreams(b.Context()); err != nil {
				b.Fatal(err)
			}
			round := 0
			for b.Loop() {
				if err := br.PublishBatch(b.Context(), messages(n, fmt.Sprint(round))); err != nil {
					b.Fatal(err)
				}
				round++
			}
			b.ReportMetric(float64(n*round)/b.Elapsed().Seconds(), "msgs/s")
		})
	}
}
