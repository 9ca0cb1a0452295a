package sequencer_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/sequencer"
)

// lag stands between a client and its server and hands on what comes a little later.
type lag struct {
	net.Listener
	by time.Duration
}

func startLag(t *testing.T, to string, by time.Duration) *lag {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &lag{l, by}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", to)
			if err != nil {
				c.Close()
				continue
			}
			go p.hand(c, s)
			go p.hand(s, c)
		}
	}()
	return p
}

func (p *lag) hand(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 2048)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		time.Sleep(p.by)
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// A broker that answers late and hands out little at a time: everything is applied, once and in order.
func TestIntakeOverASlowBroker(t *testing.T) {
	r := newRig(t)
	b, err := broker.Open(t.Context(), broker.Options{Listen: "127.0.0.1:0", Dir: t.TempDir(), MaxStore: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	if err := b.EnsureStreams(t.Context()); err != nil {
		t.Fatal(err)
	}
	slow := startLag(t, strings.TrimPrefix(b.URL(), "nats://"), 10*time.Millisecond)
	nc, err := nats.Connect("nats://" + slow.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	const n = 300
	var msgs []*nats.Msg
	for i := range n {
		msgs = append(msgs, &nats.Msg{Subject: "lodestone.forms.guide", Data: fmt.Appendf(nil, `{"email":"lead%03d@example.com"}`, i)})
	}
	if err := b.PublishBatch(t.Context(), msgs); err != nil {
		t.Fatal(err)
	}
	decided, stop := r.intake(func(c *sequencer.Config) { c.JetStream = js })
	got := next(t, decided, n)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if !slices.IsSorted(got) || len(slices.Compact(got)) != n {
		t.Errorf("%d decisions, want one of each lead in order: %q …", len(got), got[:min(5, len(got))])
	}
}

// The repeating types are what intake sees of a stream whose messages come as listed, some again and after
// later ones.

type repeatingStream struct {
	jetstream.Stream
	last uint64
}

func (s repeatingStream) CachedInfo() *jetstream.StreamInfo {
	return &jetstream.StreamInfo{Created: time.Unix(1, 0), State: jetstream.StreamState{LastSeq: s.last}}
}

type repeatingJS struct {
	jetstream.JetStream
	m *repeatingMessages
}

func (j repeatingJS) Stream(context.Context, string) (jetstream.Stream, error) {
	return repeatingStream{last: slices.Max(j.m.order)}, nil
}

func (j repeatingJS) OrderedConsumer(context.Context, string, jetstream.OrderedConsumerConfig) (jetstream.Consumer, error) {
	return repeatingConsumer{m: j.m}, nil
}

type repeatingConsumer struct {
	jetstream.Consumer
	m *repeatingMessages
}

func (c repeatingConsumer) Messages(...jetstream.PullMessagesOpt) (jetstream.MessagesContext, error) {
	return c.m, nil
}

type repeatingMessages struct {
	jetstream.MessagesContext
	order []uint64
	next  int
	done  chan struct{}
}

func (m *repeatingMessages) Stop() { close(m.done) }

func (m *repeatingMessages) Next(...jetstream.NextOpt) (jetstream.Msg, error) {
	if m.next == len(m.order) {
		<-m.done
		return nil, jetstream.ErrMsgIteratorClosed
	}
	m.next++
	return repeatedMsg{seq: m.order[m.next-1]}, nil
}

type repeatedMsg struct {
	jetstream.Msg
	seq uint64
}

func (m repeatedMsg) Metadata() (*jetstream.MsgMetadata, error) {
	return &jetstream.MsgMetadata{Sequence: jetstream.SequencePair{Stream: m.seq}, Timestamp: time.Unix(int64(m.seq), 0)}, nil
}
func (m repeatedMsg) Subject() string      { return "lodestone.forms.guide" }
func (m repeatedMsg) Headers() nats.Header { return nil }
func (m repeatedMsg) Data() []byte         { return fmt.Appendf(nil, `{"email":"lead%d@example.com"}`, m.seq) }

// Messages that come again, also after later ones, are applied once.
func TestIntakeTakesRedeliveriesOnce(t *testing.T) {
	r := newRig(t)
	m := &repeatingMessages{order: []uint64{1, 1, 2, 1, 3, 2, 1, 4, 3, 4, 5, 1, 5}, done: make(chan struct{})}
	decided, stop := r.intake(func(c *sequencer.Config) { c.JetStream = repeatingJS{m: m} })
	got := next(t, decided, 5)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for i, d := range got {
		if want := fmt.Sprintf("lead%d@example.com ", i+1); !strings.HasPrefix(d, want) {
			t.Errorf("decision %d is %q, want it of %s", i, d, want)
		}
	}
	entries, err := r.store.Journal(t.Context(), 0, 100)
	if err != nil || len(entries) != 5 {
		t.Errorf("%d entries, %v; want 5", len(entries), err)
	}
}
