package scheduler_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/connectortest"
	"github.com/lodestonehq/lodestone/scheduler"
	"github.com/lodestonehq/lodestone/sequencer"
)

// site is a provider behind a real account: its connections are in memory, so that it lives in a bubble.
type site struct {
	*connectortest.Wire

	mu   sync.Mutex // guards what follows
	seen []string   // the paths that were asked for, in order
	wait map[string]chan struct{}
}

// newSite serves until the end of the test.
func newSite(t *testing.T) *site {
	s := &site{Wire: connectortest.NewWire(), wait: map[string]chan struct{}{}}
	server := &http.Server{Handler: s}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(s.Wire) }()
	t.Cleanup(func() { _ = server.Close(); <-done })
	return s
}

// holdBack has requests for a path wait for their answer until let is called.
func (s *site) holdBack(path string) (let func()) {
	c := make(chan struct{})
	s.mu.Lock()
	s.wait[path] = c
	s.mu.Unlock()
	return sync.OnceFunc(func() { close(c) })
}

func (s *site) requests() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.seen, " ")
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.seen = append(s.seen, r.URL.Path)
	wait := s.wait[r.URL.Path]
	s.mu.Unlock()
	if wait != nil {
		<-wait
	}
	_, _ = io.WriteString(w, "{}")
}

// account opens an account at the site.
func (s *site) account(t *testing.T, settings connectors.Settings) *connectors.Account {
	t.Helper()
	settings.BaseURL = "http://127.0.0.1"
	kind := connectors.Kind{Name: "provider", Check: true, Open: func(_ connectors.Settings, t *connectors.Transport) (connectors.Connector, error) {
		return plain{t}, nil
	}}
	for _, op := range operations {
		kind.Operations = append(kind.Operations, op)
	}
	a, err := connectors.Open(kind, settings, connectors.WithDial(s.Dial))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// plain is a connector whose check, look-up and acts are one request each.
type plain struct{ t *connectors.Transport }

func (c plain) call(path string) connectors.Call {
	r, err := http.NewRequest("GET", c.t.BaseURL()+path, nil)
	if err != nil {
		panic(err)
	}
	return connectors.Call{Operation: strings.Trim(path, "/"), Request: r}
}

func (c plain) Do(ctx context.Context, act connectors.Act) (connectors.Receipt, error) {
	a, err := c.t.Act(ctx, c.call("/act"))
	return connectors.Receipt{Status: a.Status}, err
}

func (c plain) Unsubscribed(ctx context.Context, _ lodestone.Email) (connectors.Subscription, error) {
	_, err := c.t.Read(ctx, c.call("/check"))
	return connectors.Subscription{Kind: connectors.SuppressionProvider}, err
}

func (c plain) Find(ctx context.Context, _ connectors.Act) (connectors.Finding, error) {
	_, err := c.t.Read(ctx, c.call("/find"))
	return connectors.Finding{State: connectors.Unclear}, err
}

func (c plain) Probe(ctx context.Context) error {
	_, err := c.t.Read(ctx, c.call("/probe"))
	return err
}

func (plain) Capabilities() connectors.Capabilities {
	return connectors.Capabilities{Verbs: []string{lodestone.VerbInvite, lodestone.VerbRefer}, Check: true}
}

// at is a bench whose touchpoints go to a site.
func at(t *testing.T, settings connectors.Settings) (*bench, *site, *connectors.Account) {
	t.Helper()
	b, s := newBench(t), newSite(t)
	a := s.account(t, settings)
	b.acct.Provider, b.acct.Concurrency = a, a.Settings().Concurrency
	b.start()
	return b, s, a
}

func (b *bench) suppress(email lodestone.Email) {
	b.t.Helper()
	b.plan(email, sequencer.Suppressed{Suppression: lodestone.Suppression{Email: email, Source: "operator", At: b.now()}})
}

// What a person asks for holds every place while a touchpoint falls due. Whatever becomes known while the
// touchpoint waits for a place must stop it.
func TestWhatBecomesKnownWhileWaitingForAPlace(t *testing.T) {
	for _, tc := range []struct {
		name string
		know func(*bench)
		want string // the newest entry of the touchpoint
	}{
		{"an opt-out", func(b *bench) { b.suppress(ada) }, "invite skipped suppressed"},
		{"a pause", func(b *bench) {
			if err := b.store.SetPaused(context.Background(), "all", &scheduler.Pause{At: b.now()}, nil); err != nil {
				b.t.Fatal(err)
			}
			if err := b.s.Reload(context.Background()); err != nil {
				b.t.Fatal(err)
			}
		}, "invite scheduled paused"},
		{"nothing", func(*bench) {}, "invite sent accepted"},
	} {
		// Where the provider is asked, a command may come between the question and the act as well.
		for _, suppression := range []string{connectors.SuppressionLocalOnly, connectors.SuppressionProvider} {
			t.Run(tc.name+", "+suppression, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b, s, a := at(t, connectors.Settings{Concurrency: 1, Suppression: suppression})
					b.submit(ada, nil, nil)
					let := s.holdBack("/find")
					defer let()
					after(time.Hour - time.Second)
					found := make(chan error, 1)
					go func() {
						_, err := a.Find(context.Background(), connectors.Act{})
						found <- err
					}()
					after(2 * time.Second) // it is due and waits
					tc.know(b)
					after(time.Second)
					let()
					after(2 * time.Second)
					if err := <-found; err != nil {
						t.Fatal(err)
					}
					got, acted := b.history(ada), strings.Contains(s.requests(), "/act")
					if newest := got[len(got)-1]; newest != tc.want || acted != (tc.name == "nothing") {
						t.Errorf("history %q, the provider was asked for %s; want %s", got, s.requests(), tc.want)
					}
					b.end()
				})
			})
		}
	}
}

// The check of a touchpoint is made in the place of its act, so that nothing comes between the two, and
// one place is enough for both.
func TestACommandDoesNotComeBetweenCheckAndAct(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, s, a := at(t, connectors.Settings{Concurrency: 1})
		b.submit(ada, nil, nil)
		let := s.holdBack("/check")
		defer let()
		after(time.Hour + time.Second)
		found := make(chan error, 1)
		go func() {
			_, err := a.Find(context.Background(), connectors.Act{})
			found <- err
		}()
		after(time.Second)
		let()
		after(time.Second)
		if err := <-found; err != nil {
			t.Error(err)
		}
		if got := s.requests(); got != "/check /act /find" {
			t.Errorf("the provider was asked for %s, want the act right after its check", got)
		}
		b.end()
	})
}

// Whatever ends a touchpoint's try, the place it held is there for the next.
func TestNoPlaceIsLost(t *testing.T) {
	for _, tc := range []struct {
		name string
		harm func(b *bench, s *site, a *connectors.Account) (stop bool)
	}{
		{"the gate objects", func(b *bench, _ *site, _ *connectors.Account) bool { b.suppress(ada); return false }},
		{"the check panics", func(b *bench, _ *site, a *connectors.Account) bool {
			b.acct.Provider = panicking{a}
			return false
		}},
		{"the worker stops during the check", func(b *bench, s *site, _ *connectors.Account) bool {
			b.t.Cleanup(s.holdBack("/check"))
			return true
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, s := newBench(t), newSite(t)
				a := s.account(t, connectors.Settings{Concurrency: 2})
				b.acct.Provider, b.acct.Concurrency = a, 2
				stops := tc.harm(b, s, a)
				b.start()
				b.submit(ada, nil, nil)
				after(time.Hour + time.Second)
				if !stops {
					after(time.Hour)
				}
				b.end()
				// Both places are free: two can be held at a time.
				for range 2 {
					ctx, cancel := context.WithTimeout(context.Background(), time.Second)
					_, release, err := a.Reserve(ctx)
					cancel()
					if err != nil {
						t.Errorf("Reserve = %v: a place was lost", err)
					}
					defer release()
				}
			})
		})
	}
}

// panicking is an account whose check is a fault of ours.
type panicking struct{ *connectors.Account }

func (panicking) Unsubscribed(context.Context, lodestone.Email) (connectors.Subscription, error) {
	panic(errors.New("a fault for the test"))
}
