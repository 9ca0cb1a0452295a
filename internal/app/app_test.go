package app

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/referralrock"
	"github.com/lodestonehq/lodestone/connectors/sandbox"
	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/sequencer"
)

// rig is a whole worker on real parts, with a provider that counts.
type rig struct {
	t        *testing.T
	dir      string
	account  string // the name of the account, in the rules as well
	rules    string
	settings connectors.Settings
	change   func(*Options) // of what the worker is opened with; nil: nothing
	public   string         // where browsers reach it
	acts     atomic.Int64
	acted    chan string // the path of each act
	told     chan lodestone.Entry
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), account: "eu", public: "https://forms.example.com", acted: make(chan string, 1000), told: make(chan lodestone.Entry, 10_000)}
	r.rules = strings.ReplaceAll(benchRules, "do: referralrock", "do: eu")
	box := sandbox.New(sandbox.Options{}).Handler()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodPost {
			r.acts.Add(1)
			r.acted <- req.URL.Path
		}
		box.ServeHTTP(w, req)
	}))
	t.Cleanup(server.Close)
	r.settings = connectors.Settings{BaseURL: server.URL + "/referralrock", Rate: 1000, Secrets: map[string]connectors.Secret{"public_key": "public", "private_key": "private"}}
	return r
}

func (r *rig) open() *Worker {
	r.t.Helper()
	ops := map[string]lodestone.Operation{}
	for _, op := range referralrock.Kind().RuleOperations() {
		op.Name = r.account + "." + op.Name
		ops[op.Name] = op
	}
	opts := Options{
		Data: r.dir, Broker: broker.Options{Listen: "none", MaxStore: 1 << 30}, HTTPListen: "none", PublicURL: r.public, Log: slog.New(slog.DiscardHandler),
		Rules:        func() ([]rules.File, error) { return []rules.File{{Name: "r.yaml", Data: []byte(r.rules)}}, nil },
		RulesOptions: rules.Options{Operations: ops},
		Accounts: func([]string, prometheus.Registerer, *slog.Logger) (map[string]*connectors.Account, error) {
			s := r.settings
			s.Name = r.account
			a, err := connectors.Open(referralrock.Kind(), s)
			return map[string]*connectors.Account{r.account: a}, err
		},
		Committed: func(c *sequencer.Change) {
			if c.Entry != nil {
				r.told <- *c.Entry
			}
		},
	}
	if r.change != nil {
		r.change(&opts)
	}
	w, err := Open(r.t.Context(), opts)
	if err != nil {
		r.t.Fatal(err)
	}
	return w
}

// start runs a worker; stop ends it.
func (r *rig) start(w *Worker) (stop func()) {
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	return func() {
		r.t.Helper()
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("Run = %v", err)
		}
	}
}

func publish(t *testing.T, w *Worker, subject, body string) {
	t.Helper()
	if _, err := w.Broker().JetStream().PublishMsg(t.Context(), &nats.Msg{Subject: subject, Data: []byte(body)}); err != nil {
		t.Fatal(err)
	}
}

// until waits for an entry of the journal.
func (r *rig) until(want func(lodestone.Entry) bool) {
	r.t.Helper()
	for {
		select {
		case e := <-r.told:
			if want(e) {
				return
			}
		case <-r.t.Context().Done():
			r.t.Fatal("it never came")
		}
	}
}

// An opt-out that was stored while the worker was away is known before anything is sent.
func TestOptOutThatWaitsInTheStreamAtTheStart(t *testing.T) {
	for _, ahead := range []int{0, 3000} {
		t.Run(fmt.Sprint(ahead), func(t *testing.T) {
			r := newRig(t)
			w := r.open() // it never runs: what is published waits for the next start
			publish(t, w, "lodestone.forms.guide", `{"email":"ada@example.com"}`)
			var msgs []*nats.Msg
			for i := range ahead {
				msgs = append(msgs, &nats.Msg{Subject: "lodestone.signals.opened", Data: fmt.Appendf(nil, `{"email":"x%d@example.com"}`, i)})
			}
			msgs = append(msgs, &nats.Msg{Subject: "lodestone.signals.unsubscribed", Data: []byte(`{"email":"ada@example.com"}`)})
			if err := w.Broker().PublishBatch(t.Context(), msgs); err != nil {
				t.Fatal(err)
			}
			if err := w.close(); err != nil {
				t.Fatal(err)
			}
			stop := r.start(r.open())
			r.until(func(e lodestone.Entry) bool {
				for _, n := range e.Touchpoints {
					if n.State == lodestone.TouchpointSkipped && n.Reason == lodestone.ReasonSuppressed {
						return true
					}
				}
				return false
			})
			stop()
			if n := r.acts.Load(); n != 0 {
				t.Errorf("%d acts went out, although the opt-out was in the stream", n)
			}
		})
	}
}

// The account that the rules name was renamed in the configuration: neither the files nor the stored
// version compile. Everything waits, and nothing falls over.
func TestRenamedAccountWaits(t *testing.T) {
	r := newRig(t)
	r.rules = strings.ReplaceAll(r.rules, "name: invite,", "name: invite, after: 1s,")
	w := r.open()
	stop := r.start(w)
	publish(t, w, "lodestone.forms.guide", `{"email":"ada@example.com"}`)
	r.until(func(e lodestone.Entry) bool { return e.Decision != nil })
	stop()

	r.account = "europe"
	w = r.open()
	if w.Rulebook() != nil {
		t.Fatal("there are usable rules")
	}
	if _, warnings := w.ready.state(); w.faults.Load() == nil || len(w.warnings()) == 0 {
		t.Errorf("no warning: %v", warnings)
	}
	stop = r.start(w)
	publish(t, w, "lodestone.forms.guide", `{"email":"bob@example.com"}`)
	time.AfterFunc(2*time.Second, func() { r.told <- lodestone.Entry{} }) // past the moment when it falls due
	r.until(func(e lodestone.Entry) bool { return e.At.IsZero() })
	stop()

	r.account = "eu"
	stop = r.start(r.open())
	<-r.acted
	<-r.acted
	stop()
}

// A rate that is slow against the number of workers delays acts; it must not keep all of them back.
func TestSlowRateStillSends(t *testing.T) {
	r := newRig(t)
	r.settings.Rate, r.settings.Concurrency, r.settings.Timeout = 20, 8, 250*time.Millisecond
	w := r.open()
	for i := range 40 {
		publish(t, w, "lodestone.forms.guide", fmt.Sprintf(`{"email":"lead%d@example.com"}`, i))
	}
	stop := r.start(w)
	for range 20 {
		<-r.acted
	}
	stop()
}
