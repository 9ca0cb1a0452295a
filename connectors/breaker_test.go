package connectors

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lodestonehq/lodestone"
)

// script is a network that answers as it is told, without sockets, so that the fake clock can run.
type script struct {
	mu       sync.Mutex // guards what follows
	status   int        // 0: the request breaks
	header   http.Header
	took     time.Duration
	requests []time.Time
}

func (s *script) set(status int, header ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status, s.header = status, http.Header{}
	for i := 0; i+1 < len(header); i += 2 {
		s.header.Set(header[i], header[i+1])
	}
}

func (s *script) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	s.requests = append(s.requests, time.Now())
	status, header, took := s.status, s.header.Clone(), s.took
	s.mu.Unlock()
	select {
	case <-time.After(took):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	if status == 0 {
		return nil, errors.New("broken")
	}
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(`{}`)), Request: r}, nil
}

func (s *script) times() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// toy is a connector with one act and one check.
type toy struct{ t *Transport }

func (c toy) call(ctx context.Context, act bool) (Answer, error) {
	if act {
		req, err := http.NewRequest("POST", c.t.BaseURL()+"/act", bytes.NewReader([]byte(`{"a": 1}`)))
		if err != nil {
			return Answer{}, err
		}
		return c.t.Act(ctx, Call{Operation: "act", Request: req})
	}
	req, err := http.NewRequest("GET", c.t.BaseURL()+"/check", nil)
	if err != nil {
		return Answer{}, err
	}
	return c.t.Read(ctx, Call{Operation: "check", Request: req})
}

func (c toy) Do(ctx context.Context, _ Act) (Receipt, error) {
	a, err := c.call(ctx, true)
	return Receipt{Status: a.Status}, err
}

func (c toy) Unsubscribed(ctx context.Context, _ lodestone.Email) (Subscription, error) {
	_, err := c.call(ctx, false)
	return Subscription{Kind: SuppressionProvider}, err
}
func (c toy) Find(context.Context, Act) (Finding, error) { return Finding{State: Unsupported}, nil }
func (c toy) Probe(ctx context.Context) error            { _, err := c.call(ctx, false); return err }
func (c toy) Capabilities() Capabilities                 { return Capabilities{Check: true} }

func toyKind() Kind {
	return Kind{Name: "toy", BaseURL: "https://toy.example", Check: true, Open: func(_ Settings, t *Transport) (Connector, error) { return toy{t}, nil }}
}

func openToy(t *testing.T, s Settings, opts ...Option) (*Account, *script) {
	t.Helper()
	net := &script{status: 200}
	if s.Rate == 0 {
		s.Rate = 1000
	}
	a, err := Open(toyKind(), s, append(opts, func(o *options) { o.rt = net })...)
	if err != nil {
		t.Fatal(err)
	}
	return a, net
}

func do(ctx context.Context, a *Account) (*Fault, error) {
	_, err := a.Do(ctx, Act{ID: "e.s", Operation: "act", Email: "ada@example.com"})
	var f *Fault
	errors.As(err, &f)
	return f, err
}

func TestBreakerOpensAfterFaultsInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, net := openToy(t, Settings{})
		var changes []State
		a.OnChange(func(s State) { changes = append(changes, s) })
		for _, status := range []int{500, 0, 500, 503, 400, 500, 0, 502, 500} { // four, one that resets, four
			net.set(status)
			_, _ = do(t.Context(), a)
		}
		if _, _, _, blocked := a.Blocked(); blocked {
			t.Fatal("blocked after four faults in a row")
		}
		net.set(429)
		_, _ = do(t.Context(), a) // says nothing about health
		net.set(504)
		f, _ := do(t.Context(), a)
		if f == nil || f.Class != Unknown {
			t.Fatalf("fifth fault = %v", f)
		}
		reason, detail, until, blocked := a.Blocked()
		if !blocked || reason != lodestone.ReasonProviderUnavailable || detail == "" || time.Until(until) != 2*time.Second {
			t.Errorf("Blocked() = %s %q %v %t, want provider_unavailable for 2 s", reason, detail, time.Until(until), blocked)
		}
		sent := len(net.times())
		f, err := do(t.Context(), a)
		if f == nil || f.Class != NotDone || f.Reason != lodestone.ReasonProviderUnavailable || f.CountsAttempt || !errors.Is(err, ErrProviderUnavailable) {
			t.Errorf("act through an open breaker = %+v, want not done, provider_unavailable, no attempt used", f)
		}
		if _, err := a.Unsubscribed(t.Context(), "ada@example.com"); err == nil {
			t.Error("a check came through an open breaker")
		}
		if len(net.times()) != sent {
			t.Error("an open breaker let a request through")
		}
		net.set(200)
		if err := a.Probe(t.Context()); err != nil {
			t.Fatalf("Probe = %v", err)
		}
		if f, err := do(t.Context(), a); err != nil {
			t.Errorf("after the probe: %v", f)
		}
		if len(changes) != 2 || !changes[0].Open || changes[0].Cause != CauseFaults || changes[1].Open {
			t.Errorf("changes = %+v, want opened by faults, then closed", changes)
		}
	})
}

func TestLockedOutOpensAtOnce(t *testing.T) {
	for _, status := range []int{401, 403} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, net := openToy(t, Settings{})
				var changes []State
				a.OnChange(func(s State) {
					changes = append(changes, s)
					a.Blocked() // a listener may ask
				})
				net.set(status)
				if f, _ := do(t.Context(), a); f == nil || f.Class != LockedOut || f.CountsAttempt {
					t.Fatalf("fault = %+v, want locked out, no attempt used", f)
				}
				if f, _ := do(t.Context(), a); f == nil || f.Class != LockedOut || f.Status != 0 {
					t.Errorf("the next act = %+v, want locked out without a request", f)
				}
				if len(changes) != 1 || changes[0].Cause != CauseLockedOut || a.State() != changes[0] {
					t.Errorf("changes = %+v, state = %+v; want one, locked out", changes, a.State())
				}
				if len(net.times()) != 1 {
					t.Errorf("%d requests, want 1", len(net.times()))
				}
			})
		})
	}
}

// run runs an account until the test's bubble ends.
func run(t *testing.T, a *Account) {
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		if err := a.Run(ctx); err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	t.Cleanup(func() { cancel(); done.Wait() })
}

func gaps(times []time.Time) []time.Duration {
	var out []time.Duration
	for i := 1; i < len(times); i++ {
		out = append(out, times[i].Sub(times[i-1]).Round(time.Millisecond)) // the limiter counts in fractions
	}
	return out
}

func TestRunProbesEvery30SecondsWhenLockedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, net := openToy(t, Settings{})
		run(t, a)
		net.set(401)
		_, _ = do(t.Context(), a)
		time.Sleep(95 * time.Second)
		if got := gaps(net.times()); !slices.Equal(got, []time.Duration{30 * time.Second, 30 * time.Second, 30 * time.Second}) {
			t.Errorf("probes after %v, want every 30 s", got)
		}
		net.set(200)
		time.Sleep(30 * time.Second)
		if a.State().Open {
			t.Error("still open after a probe that was answered")
		}
		before := len(net.times())
		time.Sleep(10 * time.Minute)
		if len(net.times()) != before {
			t.Error("a closed breaker is probed")
		}
	})
}

func TestRunProbesSoonAndThenEvery15SecondsAfterFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, net := openToy(t, Settings{})
		run(t, a)
		net.set(400)
		for range 4 {
			_, _ = do(t.Context(), a)
		}
		net.set(500)
		for range faultsToOpen {
			_, _ = do(t.Context(), a)
		}
		opened := time.Now()
		net.set(429) // a probe that is not repeated, so that each is one request
		time.Sleep(61 * time.Second)
		var at []time.Duration
		for _, when := range net.times() {
			if d := when.Sub(opened); d > 0 {
				at = append(at, d)
			}
		}
		want := []time.Duration{2 * time.Second, 6 * time.Second, 14 * time.Second, 29 * time.Second, 44 * time.Second, 59 * time.Second}
		if !slices.Equal(at, want) {
			t.Errorf("probes at %v, want %v", at, want)
		}
	})
}

func TestLockedOutWhileOpenByFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, net := openToy(t, Settings{})
		net.set(500)
		for range faultsToOpen {
			_, _ = do(t.Context(), a)
		}
		net.set(403)
		if err := a.Probe(t.Context()); err == nil {
			t.Fatal("Probe = nil")
		}
		_, _, until, _ := a.Blocked()
		if s := a.State(); s.Cause != CauseLockedOut || time.Until(until) != 30*time.Second {
			t.Errorf("state = %+v for %v, want locked out for 30 s", s, time.Until(until))
		}
	})
}

func TestRetryAfterSilencesTheAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, net := openToy(t, Settings{})
		net.set(429, "Retry-After", "20")
		if f, _ := do(t.Context(), a); f == nil || f.RetryAfter != 20*time.Second {
			t.Fatalf("fault = %+v", f)
		}
		net.set(200)
		reason, _, until, blocked := a.Blocked()
		if !blocked || reason != lodestone.ReasonRateLimited || time.Until(until) != 20*time.Second {
			t.Errorf("Blocked() = %s %v %t, want rate_limited for 20 s", reason, time.Until(until), blocked)
		}
		time.Sleep(5 * time.Second)
		if f, _ := do(t.Context(), a); f == nil || f.Class != RateLimited || f.RetryAfter != 15*time.Second || f.CountsAttempt {
			t.Errorf("act in the silence = %+v, want rate limited for 15 s more", f)
		}
		time.Sleep(15 * time.Second)
		if _, _, _, blocked := a.Blocked(); blocked {
			t.Error("still blocked when the time is over")
		}
		if _, err := do(t.Context(), a); err != nil {
			t.Errorf("act after the silence = %v", err)
		}
		if n := len(net.times()); n != 2 {
			t.Errorf("%d requests, want 2", n)
		}
	})
}

func TestRateCountsEveryRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, net := openToy(t, Settings{Rate: 2})
		for range 3 {
			if _, err := a.Unsubscribed(t.Context(), "ada@example.com"); err != nil {
				t.Fatal(err)
			}
			if _, err := do(t.Context(), a); err != nil {
				t.Fatal(err)
			}
		}
		if got := gaps(net.times()); !slices.Equal(got, slices.Repeat([]time.Duration{500 * time.Millisecond}, 5)) {
			t.Errorf("requests %v apart, want 500 ms", got)
		}
	})
}

func TestRepeatsOfReadsKeepTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, net := openToy(t, Settings{Rate: 1})
		net.set(500)
		if _, err := a.Unsubscribed(t.Context(), "ada@example.com"); err == nil {
			t.Fatal("no error")
		}
		if got := gaps(net.times()); len(got) != 2 || got[0] != time.Second || got[1] != time.Second {
			t.Errorf("tries %v apart, want twice 1 s", got)
		}
	})
}

// A read with its repeats takes no longer than one request may.
func TestRepeatsOfReadsKeepTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, net := openToy(t, Settings{Timeout: 10 * time.Second})
		net.took = 4 * time.Second
		net.set(500)
		start := time.Now()
		if _, err := a.Unsubscribed(t.Context(), "ada@example.com"); err == nil {
			t.Fatal("no error")
		}
		if took := time.Since(start); took != 10*time.Second || len(net.times()) != 3 {
			t.Errorf("%d tries took %v, want 3 in 10 s", len(net.times()), took)
		}
	})
}

func TestConcurrency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, net := openToy(t, Settings{Concurrency: 2})
		net.took = time.Second
		start := time.Now()
		var all sync.WaitGroup
		for range 6 {
			all.Go(func() {
				if _, err := do(t.Context(), a); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if took := time.Since(start).Round(100 * time.Millisecond); took != 3*time.Second {
			t.Errorf("six calls of a second, two at a time, took %v", took)
		}
	})
}

// A call whose turn does not come in time was not made, and that is nobody's fault.
func TestWaitingEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, net := openToy(t, Settings{Concurrency: 1, Rate: 0.1})
		if _, err := do(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		soon, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if f, _ := do(soon, a); f == nil || f.Class != RateLimited || f.Reason != lodestone.ReasonRateLimited || f.CountsAttempt {
			t.Errorf("no room in time = %+v, want rate limited, no attempt used", f)
		}
		gone, cancel2 := context.WithCancel(t.Context())
		cancel2()
		if f, _ := do(gone, a); f == nil || f.Class != NotDone || f.CountsAttempt {
			t.Errorf("given up before = %+v, want not done, no attempt used", f)
		}
		if _, err := a.Unsubscribed(gone, "ada@example.com"); err == nil {
			t.Error("a check with a dead context passed")
		}
		if n := len(net.times()); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
		if a.State().Open {
			t.Error("waiting opened the breaker")
		}
	})
}

func TestTimeoutsOpenTheBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, net := openToy(t, Settings{Timeout: 10 * time.Second})
		net.took = time.Minute
		for range faultsToOpen {
			// As the scheduler calls: with the account's own timeout around it.
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			_, _ = do(ctx, a)
			cancel()
		}
		if !a.State().Open {
			t.Error("closed after five timeouts")
		}
	})
}

// Stopping the program cancels calls in flight; that does not open the breaker.
func TestCancelledCallsDoNotOpenTheBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, net := openToy(t, Settings{})
		net.took = time.Minute
		for range 2 * faultsToOpen {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			_, _ = do(ctx, a)
		}
		if a.State().Open {
			t.Error("open after cancelled calls")
		}
	})
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	one, net := openToy(t, Settings{Name: "one"}, WithRegisterer(reg))
	two, net2 := openToy(t, Settings{Name: "two"}, WithRegisterer(reg))
	for _, status := range []int{200, 201, 400, 429, 500, 0, 401} {
		net.set(status)
		_, _ = do(t.Context(), one)
	}
	_, _ = do(t.Context(), one) // stopped by the breaker: no request
	net2.set(502)
	_, _ = two.Unsubscribed(t.Context(), "ada@example.com")
	counted, timed := gathered(t, reg)
	want := map[string]float64{
		"act ok one": 2, "act refused one": 1, "act rate_limited one": 1, "act unknown one": 1, "act not_done one": 1,
		"act locked_out one": 1, "check failed two": 3,
	}
	if !maps.Equal(counted, want) {
		t.Errorf("requests = %v, want %v", counted, want)
	}
	if wantTimed := map[string]uint64{"act one": 7, "check two": 3}; !maps.Equal(timed, wantTimed) {
		t.Errorf("timed = %v, want %v", timed, wantTimed)
	}
	if _, err := Open(toyKind(), Settings{}, WithRegisterer(failing{})); err == nil {
		t.Error("Open = nil with a registerer that refuses")
	}
}

// gathered gives the counts by "operation class connector" and "operation connector".
func gathered(t *testing.T, reg *prometheus.Registry) (counted map[string]float64, timed map[string]uint64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted, timed = map[string]float64{}, map[string]uint64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			switch f.GetName() {
			case "lodestone_provider_requests_total":
				counted[labels["operation"]+" "+labels["class"]+" "+labels["connector"]] = m.GetCounter().GetValue()
			case "lodestone_provider_request_seconds":
				timed[labels["operation"]+" "+labels["connector"]] = m.GetHistogram().GetSampleCount()
			default:
				t.Errorf("metric %s", f.GetName())
			}
		}
	}
	return counted, timed
}

type failing struct{ prometheus.Registerer }

func (failing) Register(prometheus.Collector) error { return errors.New("no") }

// A connector that lets another error through has not proved anything.
func TestForeignErrorsAreUnknown(t *testing.T) {
	kind := toyKind()
	kind.Secrets = []string{"key"}
	kind.Open = func(Settings, *Transport) (Connector, error) { return rude{}, nil }
	a, err := Open(kind, Settings{Secrets: map[string]Secret{"key": "sk-12345"}})
	if err != nil {
		t.Fatal(err)
	}
	f, err := do(t.Context(), a)
	if f == nil || f.Class != Unknown || strings.Contains(err.Error(), "sk-12345") || strings.Contains(err.Error(), "ada@") || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Do = %v, want an unknown outcome without secrets", err)
	}
	if _, err := a.Find(t.Context(), Act{Email: "ada@example.com"}); !errors.As(err, &f) || f.Class != Failed {
		t.Errorf("Find = %v, want a failed look-up", err)
	}
	if _, err := a.Unsubscribed(t.Context(), "ada@example.com"); !errors.As(err, &f) || f.Class != Failed {
		t.Errorf("Unsubscribed = %v, want a failed check", err)
	}
}

type rude struct{ toy }

func (rude) err() error {
	return fmt.Errorf("sk-12345 for ada@example.com: %w", io.ErrUnexpectedEOF)
}
func (r rude) Do(context.Context, Act) (Receipt, error) { return Receipt{}, r.err() }
func (r rude) Unsubscribed(context.Context, lodestone.Email) (Subscription, error) {
	return Subscription{}, r.err()
}
func (r rude) Find(context.Context, Act) (Finding, error) { return Finding{}, r.err() }
