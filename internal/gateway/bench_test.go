package gateway_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/internal/gateway"
	"github.com/lodestonehq/lodestone/internal/links"
	"github.com/lodestonehq/lodestone/rules"
)

// BenchmarkForms posts forms over HTTP, each answered when it is synced, by as many clients as the name
// says. Beside it stand, in the same round, the bare broker (every client publishes and waits, synced)
// and one file that is appended to and synced, which is the ceiling of a disk without group commit.
func BenchmarkForms(b *testing.B) {
	for _, clients := range []int{1, 256, 1024} {
		b.Run(fmt.Sprint(clients), func(b *testing.B) { benchForms(b, clients) })
	}
}

func benchForms(b *testing.B, clients int) {
	br, err := broker.Open(b.Context(), broker.Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer br.Close()
	if err := br.EnsureStreams(b.Context()); err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	keys, err := gateway.OpenKeys(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer keys.Close()
	sealer, err := links.New(bytes.Repeat([]byte{7}, links.KeySize))
	if err != nil {
		b.Fatal(err)
	}
	set := compile(b, formRules)
	server := httptest.NewServer(gateway.Forms(gateway.FormOptions{
		Rules: func() *rules.Set { return set }, Publish: broker.NewGroup(br.PublishBatch).Publish, Keys: keys, Links: sealer, Origins: []string{"*"},
	}))
	defer server.Close()
	web := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients, MaxConnsPerHost: clients}}
	defer web.CloseIdleConnections()

	each := max(200/clients, 10)
	round := 0
	post := func(id string) error {
		resp, err := web.Post(server.URL+"/forms/guide", "application/json", strings.NewReader(submissionBody(id)))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusAccepted {
			return fmt.Errorf("answered %s: %w", resp.Status, err)
		}
		return nil
	}
	publish := func(id string) error {
		_, err := br.JetStream().PublishMsg(context.Background(), &nats.Msg{
			Subject: "lodestone.forms.guide", Header: nats.Header{nats.MsgIdHdr: {id}}, Data: []byte(submissionBody(id)),
		}, jetstream.WithRetryAttempts(0))
		return err
	}
	file, err := os.Create(filepath.Join(dir, "ceiling"))
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	appendSync := func(id string) error {
		if _, err := file.WriteString(submissionBody(id)); err != nil {
			return err
		}
		return file.Sync()
	}
	var gate, bare, ceiling measured
	new(measured).add(b, clients, 1, func(i int) string { return fmt.Sprint("warm-", i) }, post) // the connections
	for b.Loop() {
		round++
		name := func(kind string) func(int) string {
			return func(i int) string { return fmt.Sprintf("%s-%d-%d", kind, round, i) }
		}
		gate.add(b, clients, each, name("gate"), post)
		bare.add(b, clients, each, name("bare"), publish)
		ceiling.add(b, 1, 200, name("ceiling"), appendSync)
	}
	b.ReportMetric(gate.rate(), "forms/s")
	b.ReportMetric(gate.quantile(0.5), "p50-ms")
	b.ReportMetric(gate.quantile(0.99), "p99-ms")
	b.ReportMetric(gate.rate()/bare.rate(), "of-bare-broker")
	b.ReportMetric(gate.quantile(0.5)/bare.quantile(0.5), "p50-of-bare")
	b.ReportMetric(gate.rate()/ceiling.rate(), "of-append+fsync")
	b.ReportMetric(0, "ns/op") // it would count all three
}

func submissionBody(id string) string {
	return fmt.Sprintf(`{"email":"%s@example.com","company":"%s"}`, id, strings.Repeat("x", 300))
}

// measured is how long calls took, each and together.
type measured struct {
	each []time.Duration
	all  time.Duration
}

func (m *measured) add(b *testing.B, clients, each int, id func(int) string, do func(string) error) {
	b.Helper()
	var next atomic.Int64
	took := make([]time.Duration, clients*each)
	var wait sync.WaitGroup
	start := time.Now()
	for range clients {
		wait.Go(func() {
			for range each {
				i := int(next.Add(1)) - 1
				at := time.Now()
				if err := do(id(i)); err != nil {
					b.Error(err)
					return
				}
				took[i] = time.Since(at)
			}
		})
	}
	wait.Wait()
	m.all += time.Since(start)
	m.each = append(m.each, took...)
}

func (m *measured) rate() float64 { return float64(len(m.each)) / m.all.Seconds() }

// quantile is in milliseconds.
func (m *measured) quantile(q float64) float64 {
	slices.Sort(m.each)
	return float64(m.each[int(q*float64(len(m.each)-1))]) / float64(time.Millisecond)
}
