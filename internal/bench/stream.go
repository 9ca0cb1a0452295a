package bench

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/lodestonehq/lodestone/internal/broker"
)

// stream measures what it costs that the stream syncs before it acknowledges: the same messages
// published to two servers that differ in nothing else. The other one loses what it acknowledged when
// the power fails, and is never what Lodestone runs on.
func stream(ctx context.Context, r *run) error {
	synced, err := r.natsServer(ctx, true)
	if err != nil {
		return err
	}
	unsynced, err := r.natsServer(ctx, false)
	if err != nil {
		return err
	}
	for _, one := range []struct {
		name           string
		callers, usual int
	}{{"one caller", 1, 1_000}, {"256 callers", 256, 20_000}, {"1024 callers", 1024, 40_000}} {
		items := r.items(one.usual)
		n := 0
		publish := func(b *broker.Broker) func(context.Context) (sample, error) {
			group := broker.NewGroup(b.PublishBatch)
			return func(ctx context.Context) (sample, error) {
				n += items
				return timed(items, func() error { return publishAll(ctx, group, one.callers, n, items) })
			}
		}
		if err := r.alternate(ctx, Result{
			Name: "stream, " + one.name, Unit: "messages/s", Raw: "a server that syncs every two minutes, which is NATS' own default",
			Settings: map[string]string{"callers": fmt.Sprint(one.callers), "server": "of its own in this process, over TCP on loopback"},
		}, publish(synced), publish(unsynced)); err != nil {
			return err
		}
	}
	return nil
}

// publishAll publishes items messages, numbered from first on, by so many callers.
func publishAll(ctx context.Context, g *broker.Group, callers, first, items int) error {
	return concurrently(ctx, callers, items, func(ctx context.Context, i int) error { return g.Publish(ctx, form(first+i, first+i)) })
}

// concurrently calls do for each of items, by so many callers, until one fails.
func concurrently(ctx context.Context, callers, items int, do func(context.Context, int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < items; i = int(next.Add(1)) - 1 {
				if err := do(ctx, i); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// natsServer starts a server, and connects to it, until the bench is over.
func (r *run) natsServer(ctx context.Context, synced bool) (*broker.Broker, error) {
	dir, err := r.folder()
	if err != nil {
		return nil, err
	}
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: dir, SyncAlways: synced, NoSigs: true, NoLog: true})
	if err != nil {
		return nil, err
	}
	s.Start()
	r.atEnd(func() error { s.Shutdown(); s.WaitForShutdown(); return nil })
	if !s.ReadyForConnections(10 * time.Second) {
		return nil, fmt.Errorf("the NATS server did not start within 10 s")
	}
	b, err := broker.Open(ctx, broker.Options{URL: "nats://" + net.JoinHostPort("127.0.0.1", fmt.Sprint(s.Addr().(*net.TCPAddr).Port)), AcceptUnsynced: true})
	if err != nil {
		return nil, err
	}
	r.atEnd(func() error { b.Close(); return nil })
	return b, b.EnsureStreams(ctx)
}

// form is the n-th message of the benches about a lead.
func form(lead, n int) *nats.Msg {
	return &nats.Msg{Subject: "lodestone.forms.guide", Data: body(lead), Header: nats.Header{nats.MsgIdHdr: {fmt.Sprint("bench-", n)}}}
}
