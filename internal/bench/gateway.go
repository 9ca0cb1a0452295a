package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/internal/gateway"
	"github.com/lodestonehq/lodestone/internal/links"
	"github.com/lodestonehq/lodestone/rules"
)

// gatewayLoads are how many clients post forms at a time, how many forms each round, and what share of
// one append and sync each is aimed at.
var gatewayLoads = []struct {
	clients, forms int
	keys           bool // each with an Idempotency-Key, which is remembered on disk before
	aim            float64
}{
	{1, 600, false, 0.6},
	{256, 20_000, false, 5},
	{1024, 40_000, false, 10},
	{256, 20_000, true, 0},
}

// gatewayForms measures forms that are posted over HTTP on loopback, each answered when it is on disk,
// beside a file to which the same bodies are appended with a sync each.
func gatewayForms(ctx context.Context, r *run) error {
	dir, err := r.folder()
	if err != nil {
		return err
	}
	b, err := r.broker(ctx, dir)
	if err != nil {
		return err
	}
	keys, err := gateway.OpenKeys(dir)
	if err != nil {
		return err
	}
	r.atEnd(keys.Close)
	secret := make([]byte, links.KeySize)
	_, _ = rand.Read(secret) // it never fails
	sealer, err := links.New(secret)
	if err != nil {
		return err
	}
	book, err := rulebook("3d")
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	web := &http.Server{ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, Handler: gateway.Forms(gateway.FormOptions{
		Rules: func() *rules.Set { return book.Current() }, Publish: broker.NewGroup(b.PublishBatch).Publish, Keys: keys, Links: sealer, Origins: []string{"*"},
		Log: slog.New(slog.NewTextHandler(r.Log, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})}
	go func() { _ = web.Serve(l) }() // until Close
	r.atEnd(web.Close)
	file, err := os.Create(filepath.Join(dir, "raw"))
	if err != nil {
		return err
	}
	r.atEnd(file.Close)
	n := 0
	for _, one := range gatewayLoads {
		if err := r.oneLoad(ctx, b, loopback(l), dir, file, &n, one.clients, r.items(one.forms), one.keys, one.aim); err != nil {
			return err
		}
	}
	return nil
}

// oneLoad measures one number of clients; n counts the forms so far, so that each is another one.
func (r *run) oneLoad(ctx context.Context, b *broker.Broker, to *net.TCPAddr, dir string, file *os.File, n *int, clients, forms int, keyed bool, aim float64) error {
	clients = min(clients, forms)
	posts, err := newLoad(to, clients)
	if err != nil {
		return err
	}
	defer posts.Close()
	prepare := func(count int) (requests [][]byte) {
		for range count {
			key := ""
			if *n++; keyed {
				key = fmt.Sprint("bench-", *n)
			}
			requests = append(requests, request(to.String(), gateway.FormsPath+"guide", key, body(*n)))
		}
		return requests
	}
	if _, _, err := posts.run(prepare(clients)); err != nil { // the connections
		return err
	}
	var p50, p99, share, rates, bare []float64
	ours := func(context.Context) (sample, error) {
		requests := prepare(forms)
		before, err := dirSize(filepath.Join(dir, "jetstream"))
		if err != nil {
			return sample{}, err
		}
		var took []time.Duration
		var client time.Duration
		s, err := timed(forms, func() (err error) { took, client, err = posts.run(requests); return err })
		if err != nil {
			return s, err
		}
		rates = append(rates, float64(forms)/s.took.Seconds())
		slices.Sort(took)
		p50, p99 = append(p50, ms(quantile(took, 0.5))), append(p99, ms(quantile(took, 0.99)))
		if s.cpu > 0 {
			share = append(share, client.Seconds()/s.cpu.Seconds())
		}
		s.cpu -= client
		after, err := dirSize(filepath.Join(dir, "jetstream"))
		s.disk = after - before
		return s, err
	}
	ceiling := func(ctx context.Context) (sample, error) {
		first := *n
		*n += forms
		s, err := timed(forms, func() error { return publishEach(ctx, b, clients, first, forms) })
		if err != nil {
			return s, err
		}
		bare = append(bare, float64(forms)/s.took.Seconds())
		items := min(forms, 500)
		return timed(items, func() error {
			for i := range items {
				_, err := file.Write(body(*n - i))
				if err := errors.Join(err, file.Sync(), ctx.Err()); err != nil {
					return err
				}
			}
			return nil
		})
	}
	name := fmt.Sprintf("gateway, %d clients", clients)
	if clients == 1 {
		name = "gateway, 1 client"
	}
	if keyed {
		name += ", with keys"
	}
	settings := map[string]string{"clients": fmt.Sprint(clients), "stream": "embedded, SyncAlways", "connections": "HTTP/1.1 on loopback, kept open", "Idempotency-Key": map[bool]string{true: "one each, synced before", false: "none"}[keyed]}
	return r.alternate(ctx, Result{
		Name: name, Unit: "forms/s", Raw: "the bodies appended to one file, with a sync each", Settings: settings,
		later: func(res *Result) {
			res.P50, res.P99 = figure(p50), figure(p99)
			of := make([]float64, len(bare))
			for i := range bare {
				of[i] = rates[i] / bare[i]
			}
			settings["beside the bare broker, to which as many clients publish the same and wait"] = fmt.Sprintf("%.2f × of %.0f messages/s", figure(of).Median, figure(bare).Median)
			if len(share) > 0 {
				settings["the clients' share of the processor"] = fmt.Sprintf("%.0f %%, not counted in the CPU figure", figure(share).Median*100)
			}
			if aim > 0 {
				res.Aims = append(res.Aims, atLeast("ratio", aim))
			}
		},
	}, ours, ceiling)
}

// publishEach publishes items messages by so many callers, each of which waits for its acknowledgement.
func publishEach(ctx context.Context, b *broker.Broker, callers, first, items int) error {
	return concurrently(ctx, callers, items, func(ctx context.Context, i int) error {
		_, err := b.JetStream().PublishMsg(ctx, form(first+i, first+i), jetstream.WithRetryAttempts(0))
		return err
	})
}
