package main

import (
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors/sandbox"
	"github.com/lodestonehq/lodestone/internal/api"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
)

// TestFaults lets everything go wrong at once, in an order that is drawn: the real worker is killed and
// stopped, the broker, a server of its own, is restarted under it, the provider fails in every way that the
// sandbox knows, rule files are edited for better and worse, and a person pauses, resumes, retries and
// releases. When all is well again, every acknowledged submission must have had its effect once by the
// provider's own count, or stand under a named state without one. FAULTS_FOR says for how long (FAULTS_FOR=30m
// go test ./cmd/lodestone -run TestFaults -v -timeout 0), FAULTS_SEED repeats what is drawn.
func TestFaults(t *testing.T) {
	long, seed := 30*time.Second, uint64(time.Now().UnixNano())
	if testing.Short() {
		long = 10 * time.Second
	}
	if v := os.Getenv("FAULTS_FOR"); v != "" {
		d, err := time.ParseDuration(v)
		if err != nil {
			t.Fatalf("FAULTS_FOR: %v", err)
		}
		long = d
	}
	if v := os.Getenv("FAULTS_SEED"); v != "" {
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatalf("FAULTS_SEED: %v", err)
		}
		seed = n
	}
	t.Logf("FAULTS_SEED=%d FAULTS_FOR=%v", seed, long)
	f := newFaults(t, seed, long)
	f.run(long)
	f.judge()
}

// faults is a worker, its broker and its provider, and what was done to them.
type faults struct {
	t      *testing.T
	ctx    context.Context
	rng    *rand.Rand
	seed   uint64
	box    *sandbox.Server
	broker *outsideBroker
	w      *killable
	rules  string
	did    map[string]int // what was injected, by kind

	gate      chan struct{}
	published chan error
	submitted int
}

func newFaults(t *testing.T, seed uint64, long time.Duration) *faults {
	ctx, cancel := context.WithTimeout(t.Context(), 2*long+4*time.Minute)
	t.Cleanup(cancel)
	f := &faults{
		t: t, ctx: ctx, seed: seed, rng: rand.New(rand.NewPCG(seed, 0)), box: sandbox.New(sandbox.Options{}), did: map[string]int{},
		gate: make(chan struct{}, 1<<20), published: make(chan error, 1),
	}
	provider := httptest.NewServer(f.box.Handler())
	t.Cleanup(func() { f.box.Clear(); provider.CloseClientConnections(); provider.Close() })
	f.broker = startOutsideBroker(t)
	dir := t.TempDir()
	f.rules = filepath.Join(dir, "rules")
	if err := os.MkdirAll(f.rules, 0o700); err != nil {
		t.Fatal(err)
	}
	f.write(crashRules)
	f.w = &killable{t: t, data: filepath.Join(dir, "data"), rules: f.rules, provider: provider.URL + "/referralrock",
		nats: f.broker.address(), monitor: f.broker.monitor()}
	f.w.start()
	f.w.ready(ctx)
	go func() { f.published <- publishAll(ctx, f.w.nats, math.MaxInt, f.gate) }()
	return f
}

func (f *faults) write(rules string) {
	f.t.Helper()
	next := filepath.Join(f.rules, "..", "next.yaml")
	if err := os.WriteFile(next, []byte(rules), 0o600); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Rename(next, filepath.Join(f.rules, "rules.yaml")); err != nil {
		f.t.Fatal(err)
	}
}

// run draws one thing after the other until the time is up.
func (f *faults) run(long time.Duration) {
	for end := time.Now().Add(long); time.Now().Before(end) && !f.t.Failed(); {
		for range 1 + f.rng.IntN(20) {
			f.gate <- struct{}{}
			f.submitted++
		}
		switch k := f.rng.IntN(20); {
		case k < 8:
			f.provider()
		case k < 11:
			f.did["kill -9"]++
			f.w.kill()
			f.w.start()
		case k < 12:
			f.did["SIGTERM"]++
			f.stop()
			f.w.start()
		case k < 14:
			f.did["broker restarted"]++
			f.broker.stop()
			if f.rng.IntN(3) == 0 { // the worker meets it away at its start
				f.did["kill -9"]++
				f.w.kill()
				f.w.start()
			}
			f.wait(500 * time.Millisecond)
			f.broker.start()
		case k < 16:
			if f.rng.IntN(2) == 0 {
				f.did["rules edited"]++
				f.write(fmt.Sprintf("# edit %d\n%s", f.submitted, crashRules))
			} else {
				f.did["rules broken"]++
				f.write("sequences: [this is none\n")
			}
		case k < 18:
			f.did["pause and resume"]++
			scope := []string{"all", "connector referralrock", "sequence refer", "sequence invite"}[f.rng.IntN(4)]
			f.ask("/api/v1/pauses", api.PauseScope{Scope: scope, By: "test"})
			f.wait(300 * time.Millisecond)
			f.ask("/api/v1/resume", api.PauseScope{Scope: scope, By: "test"})
		case k < 19:
			f.did["release --all"]++
			f.ask("/api/v1/release", api.Release{All: true, By: "test"})
		default:
			f.retry()
		}
		f.wait(300 * time.Millisecond)
	}
}

// wait lets what was injected meet whatever goes on: how long is drawn, and nothing is waited for.
func (f *faults) wait(most time.Duration) {
	time.Sleep(time.Duration(f.rng.Int64N(int64(most))))
}

// provider switches a fault of any kind on, for some requests or until it is cleared soon.
func (f *faults) provider() {
	fault := sandbox.Fault{
		Kind:      sandbox.FaultKinds[f.rng.IntN(len(sandbox.FaultKinds))],
		Operation: []string{"", "refer", "invite"}[f.rng.IntN(3)],
		Times:     1 + f.rng.IntN(5),
	}
	switch fault.Kind {
	case sandbox.FaultSlow:
		fault.Delay = 100 * time.Millisecond
	case sandbox.FaultHang, sandbox.FaultHangAfterEffect:
		fault.Delay = 3 * time.Second // beyond the worker's patience
	case sandbox.Fault429, sandbox.Fault503:
		fault.RetryAfter = []string{"", "1"}[f.rng.IntN(2)]
	}
	f.did["provider: "+string(fault.Kind)]++
	if err := f.box.Fault(fault); err != nil {
		f.t.Fatal(err)
	}
	if f.rng.IntN(3) == 0 {
		f.wait(500 * time.Millisecond)
		f.box.Clear()
	}
}

// stop asks the worker to end, and it must.
func (f *faults) stop() {
	f.t.Helper()
	if err := f.w.process.Signal(syscall.SIGTERM); err != nil {
		<-f.w.exited
		f.t.Fatalf("the worker ended by itself (%v):\n%s", f.w.state, f.w.log.String())
	}
	select {
	case <-f.w.exited:
	case <-f.ctx.Done():
		f.t.Fatal("the worker does not stop")
	}
}

// ask says something to the worker, which may be dead, starting, or of another opinion.
func (f *faults) ask(path string, body any) {
	if client, ok := api.Dial(f.w.data); ok {
		_ = client.Call(f.ctx, http.MethodPost, path, nil, body, nil)
	}
}

// retry has a person look up at the provider what is held, and say of what is not there that it is to be tried
// again.
func (f *faults) retry() {
	client, ok := api.Dial(f.w.data)
	if !ok {
		return
	}
	var list api.Attention
	if client.Call(f.ctx, http.MethodGet, "/api/v1/attention", nil, nil, &list) != nil {
		return
	}
	effects := f.effects()
	for _, item := range list.Items {
		if item.Kind != lodestone.AttentionTouchpoint || effects[string(item.Email)] > 0 {
			continue
		}
		if item.Reason == lodestone.ReasonInterrupted || strings.Contains(item.Detail, "the look-up failed") {
			continue // it is still being looked up
		}
		f.did["retry by a person"]++
		f.ask("/api/v1/touchpoints/"+item.ID, api.Operate{Operation: "retry", By: "test", Sure: true})
	}
}

func (f *faults) effects() map[string]int {
	count := map[string]int{}
	for _, e := range f.box.Effects().ByEmail {
		count[e.Email] += e.Count
	}
	return count
}

// judge puts everything right, waits until nothing is open, and counts.
func (f *faults) judge() {
	t := f.t
	f.box.Clear()
	f.write(crashRules)
	close(f.gate)
	f.w.ready(f.ctx)
	for _, scope := range []string{"all", "connector referralrock", "sequence refer", "sequence invite"} {
		f.ask("/api/v1/resume", api.PauseScope{Scope: scope, By: "test"})
	}
	if err := <-f.published; err != nil {
		t.Fatalf("FAULTS_SEED=%d: publishing: %v\n%s", f.seed, err, f.w.log.String())
	}
	states := f.w.settled(f.ctx, f.submitted)
	f.w.kill()
	effects, by := f.effects(), map[lodestone.TouchpointState]int{}
	lost, doubled := 0, 0
	for i := range f.submitted {
		email, n := leadAddress(i), effects[leadAddress(i)]
		state := states[email]
		by[state]++
		if n > 1 {
			doubled++
			t.Errorf("%s had %d effects", email, n)
		}
		if n == 0 && state != lodestone.TouchpointHeld && state != lodestone.TouchpointFailed || n > 0 && state != lodestone.TouchpointHeld && state != lodestone.TouchpointSent {
			lost++
			t.Errorf("%s had %d effects and is %q", email, n, state)
		}
	}
	if v := f.box.Violations(); len(v) > 0 {
		t.Errorf("%d breaches of the provider's specification, the first: %+v", len(v), v[0])
	}
	store, err := boltstore.Open(f.w.data, boltstore.Options{Wait: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if wrong, err := store.Check(f.ctx); err != nil || len(wrong) > 0 {
		t.Errorf("the store: %v %v", err, wrong)
	}
	var table strings.Builder
	total := 0
	for _, kind := range slices.Sorted(maps.Keys(f.did)) {
		fmt.Fprintf(&table, "  %-32s %5d\n", kind, f.did[kind])
		total += f.did[kind]
	}
	t.Logf("FAULTS_SEED=%d: %d faults injected\n%ssubmissions %d, effects %d, sent %d, held %d, failed %d, lost %d, doubled %d",
		f.seed, total, table.String(), f.submitted, f.box.Effects().Total, by[lodestone.TouchpointSent], by[lodestone.TouchpointHeld], by[lodestone.TouchpointFailed], lost, doubled)
}

// outsideBroker is a NATS server that syncs, in this process, and can be stopped and started on its
// address.
type outsideBroker struct {
	t    *testing.T
	opts server.Options
	s    *server.Server
}

func startOutsideBroker(t *testing.T) *outsideBroker {
	t.Helper()
	port := func() int {
		_, p, err := net.SplitHostPort(freeAddress(t))
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(p)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	b := &outsideBroker{t: t, opts: server.Options{
		ServerName: "outside", Host: "127.0.0.1", Port: port(), HTTPHost: "127.0.0.1", HTTPPort: port(),
		JetStream: true, StoreDir: t.TempDir(), SyncAlways: true, NoSigs: true, NoLog: true,
	}}
	b.start()
	t.Cleanup(b.stop)
	return b
}

func (b *outsideBroker) start() {
	b.t.Helper()
	opts := b.opts
	s, err := server.NewServer(&opts)
	if err != nil {
		b.t.Fatal(err)
	}
	go s.Start()
	if !s.ReadyForConnections(time.Minute) {
		b.t.Fatal("the broker does not start")
	}
	b.s = s
}

func (b *outsideBroker) stop() {
	b.s.Shutdown()
	b.s.WaitForShutdown()
}

func (b *outsideBroker) address() string { return fmt.Sprintf("127.0.0.1:%d", b.opts.Port) }
func (b *outsideBroker) monitor() string { return fmt.Sprintf("http://127.0.0.1:%d", b.opts.HTTPPort) }
