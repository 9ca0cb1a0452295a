package referralfactory

import (
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
)

// most counts the most times that lie within any minute, both its ends included.
func most(times []time.Time) (n int) {
	slices.SortFunc(times, time.Time.Compare)
	first := 0
	for last, at := range times {
		for at.Sub(times[first]) > time.Minute {
			first++
		}
		n = max(n, last-first+1)
	}
	return n
}

// Requests take their time, and the provider counts each at any moment in between.
func TestMeterKeepsEveryMinute(t *testing.T) {
	for _, c := range []struct {
		name    string
		longest time.Duration // of a request
		callers int
		least   int // requests a minute that must be possible
	}{
		{"at once", 0, 20, 540},
		{"quick", 300 * time.Millisecond, 20, 540},
		{"slow", 25 * time.Second, 300, 450},
		{"slower than a minute", 3 * time.Minute, 2000, 150},
		{"few callers", 2 * time.Second, 8, 300},
	} {
		t.Run(c.name, func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			synctest.Test(t, func(t *testing.T) {
				const minutes = 10
				ctx, cancel := context.WithTimeout(t.Context(), minutes*time.Minute)
				defer cancel()
				m := newMeter()
				var (
					mu      sync.Mutex // guards what follows
					counted []time.Time
					wg      sync.WaitGroup
				)
				for i := range c.callers {
					random := rand.New(rand.NewPCG(seed, uint64(i)))
					part := func() time.Duration { return time.Duration(random.Int64N(int64(c.longest)/2 + 1)) }
					wg.Go(func() {
						for m.take(ctx) == nil {
							time.Sleep(part())
							mu.Lock()
							counted = append(counted, time.Now())
							mu.Unlock()
							time.Sleep(part())
							m.end(1, 0)
						}
					})
				}
				wg.Wait()
				if n := most(counted); n > perMinute {
					t.Errorf("%d requests within a minute, want at most %d", n, perMinute)
				}
				if n := len(counted) / minutes; n < c.least {
					t.Errorf("%d requests a minute, want at least %d", n, c.least)
				}
			})
		})
	}
}

func TestMeterGivesUpWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter()
		for range perMinute {
			if err := m.take(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		m.end(perMinute, 0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if err := m.take(ctx); err == nil || time.Since(start) != time.Second {
			t.Errorf("take = %v after %v, want an error after 1s", err, time.Since(start))
		}
		if err := m.take(t.Context()); err != nil || time.Since(start) <= time.Minute {
			t.Errorf("take = %v after %v, want a place after more than a minute", err, time.Since(start))
		}
	})
}

// unkept makes connectors like the real ones, with a bound on the rate that does not stand in the way,
// and, when free is true, without the token's limit.
func unkept(t *testing.T, base string, rate float64, free bool) *connectors.Account {
	t.Helper()
	k := Kind()
	k.Open = func(s connectors.Settings, tr *connectors.Transport) (connectors.Connector, error) {
		c, err := open(s, tr)
		if err == nil && free {
			c.(*connector).shared = &token{meter: &meter{turn: make(chan struct{}, 1), ended: make(chan struct{}, 1), out: -1 << 40}}
		}
		return c, err
	}
	a, err := connectors.Open(k, connectors.Settings{
		BaseURL: base, Secrets: map[string]connectors.Secret{APIKey: "rf-5f0d2c1b9a77"}, Extra: map[string]string{CampaignID: "7"},
		Rate: rate, Concurrency: maxConcurrency, Timeout: 30 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// sustained has everybody call at once for some minutes, through real accounts over real HTTP, and
// gives the times at which requests reached the network. Connections take up to the delay to come
// about.
func sustained(t *testing.T, accounts []*connectors.Account, minutes int, delay time.Duration, catalogue bool, seed uint64) (arrived []time.Time) {
	// Calls are not cut off at the end: a connection that nobody wants any more would keep the clock of
	// the bubble from moving.
	end := time.Now().Add(time.Duration(minutes) * time.Minute)
	var (
		mu sync.Mutex // guards arrived
		wg sync.WaitGroup
	)
	for i, a := range accounts {
		for j := range 20 {
			random := rand.New(rand.NewPCG(seed, uint64(100*i+j)))
			var pause time.Duration
			traced := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
				GetConn: func(string) { time.Sleep(pause) }, // after its place was taken
				WroteHeaders: func() {
					mu.Lock()
					arrived = append(arrived, time.Now())
					mu.Unlock()
				},
			})
			wg.Go(func() {
				for n := 0; time.Now().Before(end); n++ {
					pause = 0
					if delay > 0 && random.IntN(4) == 0 {
						pause = time.Duration(random.Int64N(int64(delay)))
					}
					var err error
					switch (n + j) % (3 + one(catalogue)) {
					case 0:
						_, err = a.Unsubscribed(traced, "tomas.blei@example.com")
					case 1:
						_, err = a.Do(traced, connectors.Act{ID: "e1.invite", Operation: lodestone.VerbInvite, Email: "tomas.blei@example.com", Parameters: map[string]any{"first_name": "Tomas"}})
					case 2:
						_, err = a.Find(traced, connectors.Act{ID: "e1.qualify", Operation: opQualify, Email: "tomas.blei@example.com"})
					case 3:
						_, err = a.Call(traced, "listUsers", nil)
					}
					if err != nil {
						t.Errorf("call %d = %v", n, err)
						return
					}
				}
			})
		}
	}
	wg.Wait()
	return arrived
}

func one(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// obliging answers everything as if it went well, and closes each connection: an open one would keep
// the clock of a test's bubble from moving.
func obliging(t *testing.T) string {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Connection", "close")
		w.Header().Set("Content-Type", "application/json")
		if r.Method == "POST" && r.URL.Path == "/users" {
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, `{"data": {"id": 123}}`)
			return
		}
		_, _ = io.WriteString(w, `{"data": []}`)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// However many accounts share a token, and whatever is called, no minute has more requests than the
// provider allows, as they leave for the network.
func TestEveryMinuteOverHTTP(t *testing.T) {
	for _, c := range []struct {
		name      string
		accounts  int
		delay     time.Duration
		catalogue bool // also calls from the catalogue, which leave half of a minute to others
		least     int  // requests a minute that must be possible
	}{
		{"one account", 1, 0, false, 500},
		{"one account, slow connections", 1, 5 * time.Second, false, 450},
		{"two accounts with one token", 2, 0, false, 500},
		{"two accounts, slow connections", 2, 5 * time.Second, false, 450},
		{"one account and the catalogue", 1, 5 * time.Second, true, 200},
		{"two accounts and the catalogue", 2, 5 * time.Second, true, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			base, seed := obliging(t), rand.Uint64()
			t.Logf("seed %d", seed)
			synctest.Test(t, func(t *testing.T) {
				var accounts []*connectors.Account
				for range c.accounts {
					accounts = append(accounts, unkept(t, base, maxRate, false))
				}
				const minutes = 4
				arrived := sustained(t, accounts, minutes, c.delay, c.catalogue, seed)
				n := most(arrived)
				t.Logf("%d requests, at most %d within a minute", len(arrived), n)
				if n > perMinute {
					t.Errorf("%d requests within a minute, want at most %d", n, perMinute)
				}
				if len(arrived) < c.least*minutes {
					t.Errorf("%d requests in %d minutes, want at least %d a minute", len(arrived), minutes, c.least)
				}
			})
		})
	}
}

// The rate of an account does not do: this is what it gives without the token's limit. Should this
// test fail, the limit may have become superfluous.
func TestTheAccountsRateAloneGoesOver(t *testing.T) {
	base := obliging(t)
	synctest.Test(t, func(t *testing.T) {
		n := most(sustained(t, []*connectors.Account{unkept(t, base, maxRate, true)}, 3, 5*time.Second, false, 1))
		t.Logf("at most %d within a minute", n)
		if n <= perMinute {
			t.Errorf("at most %d requests within a minute at %d a second, want more than %d", n, maxRate, perMinute)
		}
	})
}

// Accounts share a limit when the provider would count them together.
func TestWhoSharesALimit(t *testing.T) {
	const host = "https://api.referral-factory.com/api/v2"
	for _, c := range []struct {
		name     string
		key, url string
		shared   bool
	}{
		{"the same", "k1", host, true},
		{"the provider's other host", "k1", "https://Referral-Factory.com/api/v2", true},
		{"another token", "k2", host, false},
		{"another provider", "k1", "http://127.0.0.1:8080/referralfactory", false},
	} {
		if got := tokenOf("k1", host, "") == tokenOf(connectors.Secret(c.key), c.url, ""); got != c.shared {
			t.Errorf("%s: shared = %t, want %t", c.name, got, c.shared)
		}
	}
}

// A process that ends, or is killed with requests out, begins no new minute for the next one.
func TestMeterOutlivesItsProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		process := func() *meter { // one after the other, each with what the one before left
			m := newMeter()
			m.keep = &book{filepath.Join(dir, "sub", "meter.json")}
			m.free = m.keep.read(time.Now())
			return m
		}
		var sent []time.Time
		out := 0
		for range 40 { // processes that live for two seconds, with some requests out when they are killed
			m := process()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			for m.take(ctx) == nil {
				sent = append(sent, time.Now())
				if out++; out%5 > 0 {
					m.end(1, 0)
				}
			}
			cancel()
		}
		if n := most(sent); n > perMinute {
			t.Errorf("%d requests within a minute over several processes, want at most %d", n, perMinute)
		}
		if len(sent) < 400 {
			t.Errorf("only %d requests were possible in 80 s", len(sent))
		}
		// The next one is not held up for longer than the last could have been counted.
		time.Sleep(time.Minute + longest)
		if m := process(); m.try(time.Now()) != 0 || len(m.free) != 0 {
			t.Errorf("%d places are taken after a minute of silence", len(m.free))
		}
	})
}

func TestBookThatCannotBeUsed(t *testing.T) {
	now := time.Now()
	path := filepath.Join(t.TempDir(), "meter.json")
	b := &book{path}
	if free := b.read(now); len(free) != 0 {
		t.Errorf("without a file %d places are taken", len(free))
	}
	for _, text := range []string{"", "{", `{"out": -1}`, `{"out": 601}`, `[]`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if free := b.read(now); len(free) != perMinute || free[0].Sub(now) > time.Minute {
			t.Errorf("%q: %d places are taken, want a whole minute's", text, len(free))
		}
	}
	// A clock that was set back.
	if err := b.write(0, []time.Time{now.Add(24 * time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if free := b.read(now); len(free) != 1 || free[0].Sub(now) > time.Minute+lingering {
		t.Errorf("free = %v, want one place that comes free soon", free)
	}
	// What cannot be remembered is not sent.
	m := newMeter()
	m.keep = &book{filepath.Join(path, "below", "a", "file.json")}
	if wait := m.try(now); wait != unkeptRetry || m.out != 0 {
		t.Errorf("try = %v with %d out, want no request", wait, m.out)
	}
}

// A walk over many pages leaves room for acts and checks.
func TestCatalogueLeavesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		walked := make(chan int)
		go func() {
			n := 0
			for m.room(ctx, catalogueShare); ctx.Err() == nil; m.room(ctx, catalogueShare) {
				if m.take(ctx) == nil {
					n++
					m.end(1, 0)
				}
			}
			walked <- n
		}()
		time.Sleep(50 * time.Second)
		for i := range 100 { // acts, while the walk is at its share
			start := time.Now()
			if err := m.take(ctx); err != nil || time.Since(start) > time.Second {
				t.Fatalf("act %d waited for %v: %v", i, time.Since(start), err)
			}
			m.end(1, 0)
		}
		if n := <-walked; n < 300 {
			t.Errorf("the walk made %d requests in two minutes, want at least its share", n)
		}
	})
}

// What is reserved is taken by the first act, waits for nothing then, and is given back when there was none.
func TestReservedPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter()
		for range perMinute - 1 {
			if err := m.take(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		m.end(perMinute-1, 0)
		held, release, err := m.reserve(t.Context(), time.Minute)
		if err != nil || m.out != 1 {
			t.Fatalf("reserve = %v with %d out", err, m.out)
		}
		connect := func(ctx context.Context, act bool) (waited time.Duration) {
			start := time.Now()
			counted, end := m.metered(ctx, 30*time.Second, act)
			httptrace.ContextClientTrace(counted).GetConn("")
			defer end()
			return time.Since(start)
		}
		if waited := connect(held, true); waited != 0 {
			t.Errorf("the act waited for %v", waited)
		}
		release() // nothing is left to give back
		if taken := m.out + len(m.free); taken != perMinute {
			t.Errorf("%d places are taken, want %d", taken, perMinute)
		}
		time.Sleep(2 * time.Minute)

		_, release, err = m.reserve(t.Context(), time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		connect(held, false) // a question takes its own
		release()
		release()
		m.try(time.Now())
		if m.out != 1 || len(m.free) != 1 {
			t.Errorf("%d out and %d coming free, want 1 (the last try) and 1 (the question)", m.out, len(m.free))
		}
	})
}
