package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors/sandbox"
	"github.com/lodestonehq/lodestone/internal/api"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
)

const crashRules = `
forms:
  guide:
    fields:
      email: {type: email, required: true}
      code: {type: text}
scoring:
  bands: {any: 0}
sequences:
  refer:
    when: fields.code != nil
    priority: 1
    steps:
      - {name: refer, do: referralrock.refer, with: {referralCode: '${fields.code}'}}
  invite:
    when: 'true'
    steps:
      - {name: invite, do: referralrock.invite, with: {firstName: there}}
`

// TestKilledAtRandomMoments runs the real worker as a process and kills it, without warning, again
// and again while submissions flow and calls are out. The judge is the provider: the sandbox runs in
// this process, outlives every kill, and counts what had an effect.
func TestKilledAtRandomMoments(t *testing.T) {
	const submissions, kills = 300, 20
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("CRASH_SEED"); s != "" {
		if _, err := fmt.Sscan(s, &seed); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("CRASH_SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))

	box := sandbox.New(sandbox.Options{})
	calls := &trap{inside: box.Handler()}
	provider := httptest.NewServer(calls)
	defer provider.Close()
	// A provider that takes its time, so that kills at random moments meet calls in flight as well.
	if err := box.Fault(sandbox.Fault{Kind: sandbox.FaultSlow, Delay: 30 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	rulesDir := filepath.Join(dir, "rules")
	if err := os.MkdirAll(rulesDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(rulesDir, "rules.yaml"), []byte(crashRules), 0o600); err != nil {
		t.Fatal(err)
	}
	w := &killable{t: t, data: filepath.Join(dir, "data"), rules: rulesDir, provider: provider.URL + "/referralrock", nats: freeAddress(t)}

	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	published := make(chan error, 1)
	w.start()
	// The submissions are spread over the kills, so that each finds some on their way.
	gate := make(chan struct{}, submissions)
	go func() { published <- publishAll(ctx, w.nats, submissions, gate) }()
	released, caught := 0, 0
	for i := range kills {
		for range submissions / kills {
			gate <- struct{}{}
			released++
		}
		w.ready(ctx)
		// Every second kill meets a call that is out for certain; how long the worker lives before the
		// others is drawn, not waited for.
		moment := make(<-chan struct{})
		var drawn <-chan time.Time
		if i%2 == 0 {
			moment = calls.catch(catches[rng.IntN(len(catches))])
		} else {
			drawn = time.After(time.Duration(rng.Int64N(int64(400 * time.Millisecond))))
		}
		select {
		case <-moment:
			caught++
		case <-drawn:
		case <-ctx.Done():
			t.Fatalf("out of time\n%s", w.log.String())
		}
		w.kill()
		w.start()
	}
	for ; released < submissions; released++ {
		gate <- struct{}{}
	}
	if err := <-published; err != nil {
		t.Fatalf("publishing: %v\n%s", err, w.log.String())
	}
	states := w.settled(ctx, submissions)
	w.kill()

	count := map[string]int{}
	for _, e := range box.Effects().ByEmail {
		count[e.Email] += e.Count
	}
	lost, doubled, sent, held := 0, 0, 0, 0
	for i := range submissions {
		email := leadAddress(i)
		state := states[email]
		switch n := count[email]; {
		case n > 1:
			doubled++
			t.Errorf("%s had %d effects", email, n)
		case n == 0 && state == lodestone.TouchpointHeld:
			held++ // named, and a human looks: not lost
		case n == 0:
			lost++
			t.Errorf("%s had no effect and is %q", email, state)
		case state == lodestone.TouchpointSent:
			sent++
		case state == lodestone.TouchpointHeld:
			held++
		default:
			t.Errorf("%s had one effect and is %q", email, state)
		}
	}
	if w.interrupted < caught {
		t.Errorf("%d kills met a call in flight, and only %d touchpoints say that they were interrupted", caught, w.interrupted)
	}
	if v := box.Violations(); len(v) > 0 {
		t.Errorf("%d breaches of the provider's specification, the first: %+v", len(v), v[0])
	}
	store, err := boltstore.Open(w.data, boltstore.Options{Wait: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	faults, err := store.Check(ctx)
	if err != nil || len(faults) > 0 {
		t.Errorf("the store: %v %v", err, faults)
	}
	t.Logf("seed %d: %d kills, %d submissions: %d calls were cut in the middle; %d sent, %d held for a human, %d lost, %d doubled", seed, w.kills, submissions, w.interrupted, sent, held, lost, doubled)
}

// trap stands before the provider and holds one act at a time, so that a kill can meet it.
type trap struct {
	inside http.Handler

	mu    sync.Mutex
	mode  catch
	armed chan struct{} // closed when an act is held; nil: none is to be held
}

// catch says when the provider carries out an act whose caller is killed meanwhile.
type catch int

const (
	before catch = iota // never: it was lost on its way in
	after               // before the kill: only the answer is lost
	late                // after the kill, by a provider that goes on alone
)

var catches = []catch{before, after, late}

// catch arms the trap; the channel is closed when an act is held, until its caller is gone.
func (c *trap) catch(mode catch) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mode, c.armed = mode, make(chan struct{})
	return c.armed
}

func (c *trap) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	armed, mode := c.armed, c.mode
	if armed == nil || r.Method != http.MethodPost {
		c.mu.Unlock()
		c.inside.ServeHTTP(w, r)
		return
	}
	c.armed = nil
	c.mu.Unlock()
	gone := r.Context().Done()
	body, err := io.ReadAll(r.Body) // a server notices that its caller is gone only once the body is read
	if err != nil {
		close(armed)
		return
	}
	act := r.Clone(context.WithoutCancel(r.Context()))
	act.Body = io.NopCloser(bytes.NewReader(body))
	if mode == after {
		c.inside.ServeHTTP(httptest.NewRecorder(), act)
	}
	close(armed)
	<-gone
	if mode == late {
		c.inside.ServeHTTP(httptest.NewRecorder(), act)
	}
	panic(http.ErrAbortHandler)
}

func leadAddress(i int) string { return fmt.Sprintf("lead%03d@example.com", i) }

func freeAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// counted says what became of the first n leads, by the provider's word and the store's.
func counted(box *sandbox.Server, states map[string]lodestone.TouchpointState, n int) (sent, held, lost, doubled int) {
	count := map[string]int{}
	for _, e := range box.Effects().ByEmail {
		count[e.Email] += e.Count
	}
	for i := range n {
		email := leadAddress(i)
		switch effects, state := count[email], states[email]; {
		case effects > 1:
			doubled++
		case state == lodestone.TouchpointHeld:
			held++
		case effects == 0 || state != lodestone.TouchpointSent:
			lost++
		default:
			sent++
		}
	}
	return sent, held, lost, doubled
}

// killable is a worker process.
type killable struct {
	t                           *testing.T
	data, rules, provider, nats string
	monitor                     string   // of a broker outside, which nats is then the address of
	env                         []string // more variables of the first process; later ones run without
	process                     *os.Process
	state                       *os.ProcessState // once exited is closed
	exited                      chan struct{}
	log                         lockedBuffer
	kills, interrupted          int
}

func (k *killable) start() {
	k.t.Helper()
	where := []string{"--nats-listen", k.nats}
	if k.monitor != "" {
		where = []string{"--nats-url", "nats://" + k.nats}
	}
	cmd := program(k.t, append([]string{"run", "--data", k.data, "--rules", k.rules, "--http-listen", "none", "--log-level", "error"}, where...)...)
	if k.monitor != "" {
		cmd.Env = append(cmd.Env, "LODESTONE_NATS_MONITOR="+k.monitor)
	}
	cmd.Env = append(cmd.Env,
		"LODESTONE_CONNECTORS_REFERRALROCK_BASE_URL="+k.provider,
		"LODESTONE_CONNECTORS_REFERRALROCK_PUBLIC_KEY=public", "LODESTONE_CONNECTORS_REFERRALROCK_PRIVATE_KEY=private",
		"LODESTONE_CONNECTORS_REFERRALROCK_RATE=1000/s", "LODESTONE_CONNECTORS_REFERRALROCK_SETTLE=300ms",
		"LODESTONE_CONNECTORS_REFERRALROCK_TIMEOUT=2s")
	cmd.Env, k.env = append(cmd.Env, k.env...), nil
	cmd.Stderr = &k.log
	if err := cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	k.process, k.exited = cmd.Process, make(chan struct{})
	go func(done chan struct{}) { _ = cmd.Wait(); k.state = cmd.ProcessState; close(done) }(k.exited)
	k.t.Cleanup(func() { _ = cmd.Process.Kill() })
}

func (k *killable) kill() {
	k.t.Helper()
	if err := k.process.Kill(); err != nil {
		<-k.exited
		k.t.Fatalf("the worker ended by itself (%v):\n%s", k.state, k.log.String())
	}
	<-k.exited
	k.kills++
}

// ready waits until the worker answers on its socket.
func (k *killable) ready(ctx context.Context) {
	k.t.Helper()
	for ctx.Err() == nil {
		select {
		case <-k.exited:
			k.t.Fatalf("the worker ended by itself:\n%s", k.log.String())
		default:
		}
		if _, ok := api.Dial(k.data); ok {
			return
		}
		time.Sleep(5 * time.Millisecond) // another process: there is nothing to be woken by
	}
	k.t.Fatal("the worker never answered:\n" + k.log.String())
}

// settled waits until no outcome is open and returns where each lead's touchpoint ended.
func (k *killable) settled(ctx context.Context, want int) map[string]lodestone.TouchpointState {
	k.t.Helper()
	k.ready(ctx)
	client, ok := api.Dial(k.data)
	if !ok {
		k.t.Fatal("the worker does not answer")
	}
	for {
		var q api.Queue
		if err := client.Call(ctx, http.MethodGet, "/api/v1/queue", nil, nil, &q); err != nil {
			k.t.Fatalf("%v\n%s", err, k.log.String())
		}
		c := q.Counts
		if c[lodestone.TouchpointScheduled]+c[lodestone.TouchpointIntended]+c[lodestone.TouchpointUnknown] == 0 &&
			c[lodestone.TouchpointSent]+c[lodestone.TouchpointHeld]+c[lodestone.TouchpointFailed] >= uint64(want) {
			break
		}
		select {
		case <-ctx.Done():
			b, _ := json.Marshal(q)
			k.t.Fatalf("never settled: %s\n%s", b, k.log.String())
		case <-time.After(50 * time.Millisecond):
		}
	}
	states := map[string]lodestone.TouchpointState{}
	for i := range want {
		x, err := client.Lead(ctx, leadAddress(i), 0)
		if err != nil {
			k.t.Fatal(err)
		}
		if len(x.Touchpoints) != 1 {
			k.t.Errorf("%s has %d touchpoints, want 1", leadAddress(i), len(x.Touchpoints))
			continue
		}
		states[leadAddress(i)] = x.Touchpoints[0].State
		for _, a := range x.Touchpoints[0].Attempts {
			if a.Reason == lodestone.ReasonInterrupted {
				k.interrupted++
			}
		}
	}
	return states
}

// publishAll publishes submissions one by one as the gate lets them, each again until it is
// acknowledged: what a careful publisher does.
func publishAll(ctx context.Context, addr string, n int, gate <-chan struct{}) error {
	nc, err := nats.Connect("nats://"+addr, nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond), nats.ReconnectJitter(0, 0))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	for i := range n {
		select {
		case _, more := <-gate:
			if !more {
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
		body := fmt.Sprintf(`{"email":%q}`, leadAddress(i))
		if i%2 == 0 {
			body = fmt.Sprintf(`{"email":%q,"code":"INES1042"}`, leadAddress(i))
		}
		m := &nats.Msg{Subject: "lodestone.forms.guide", Data: []byte(body), Header: nats.Header{nats.MsgIdHdr: {fmt.Sprint("submission-", i)}}}
		for {
			try, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
			_, err := js.PublishMsg(try, m)
			cancel()
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return fmt.Errorf("submission %d was never acknowledged: %w", i, err)
			}
			time.Sleep(10 * time.Millisecond) // the broker died with the worker
		}
	}
	return nil
}

// lockedBuffer collects what several processes print, one after the other.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
