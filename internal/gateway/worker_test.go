package gateway_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/referralrock"
	"github.com/lodestonehq/lodestone/internal/api"
	"github.com/lodestonehq/lodestone/internal/app"
	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/sequencer"
)

const workerRules = `
forms:
  guide:
    fields:
      email: {type: email, required: true}
scoring:
  bands: {any: 0}
`

// A webhook that was answered with 202 reaches the lead through the whole worker: the address is on
// the suppression list, the signal stands in the lead's history once, however often it came.
func TestWebhookReachesTheLead(t *testing.T) {
	applied := make(chan lodestone.SignalEntry, 16)
	w, err := app.Open(t.Context(), app.Options{
		Data: t.TempDir(), Broker: broker.Options{Listen: "none"}, HTTPListen: "127.0.0.1:0",
		Rules: func() ([]rules.File, error) { return []rules.File{{Name: "r.yaml", Data: []byte(workerRules)}}, nil },
		Accounts: func(_ []string, reg prometheus.Registerer, _ *slog.Logger) (map[string]*connectors.Account, error) {
			a, err := connectors.Open(referralrock.Kind(), connectors.Settings{
				Name: "rock", BaseURL: "http://127.0.0.1:1", Secrets: map[string]connectors.Secret{"public_key": "public", "private_key": "private"},
			}, connectors.WithRegisterer(reg))
			return map[string]*connectors.Account{"rock": a}, err
		},
		HookSecrets: map[string]map[string]connectors.Secret{"rock": {referralrock.WebhookKey: hookKey}},
		Committed: func(c *sequencer.Change) {
			if c.Entry != nil && c.Entry.Signal != nil {
				applied <- *c.Entry.Signal
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	s := &site{t: t, url: "http://" + w.Web()}
	wait := func(kind lodestone.SignalKind) {
		t.Helper()
		select {
		case sig := <-applied:
			if sig.Kind != kind {
				t.Errorf("applied %s, want %s", sig.Kind, kind)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("%s was never applied", kind)
		}
	}

	// Nobody of this address ever submitted a form.
	if a := s.rock("EmailUnsubscribed", unsubscribed); a.status != http.StatusAccepted {
		t.Fatalf("answer = %+v", a)
	}
	wait(lodestone.SignalUnsubscribed)
	s.rock("EmailUnsubscribed", unsubscribed) // a repeat
	if a := s.rock("ReferralStatusChange", qualified); a.status != http.StatusAccepted {
		t.Fatalf("answer = %+v", a)
	}
	wait(lodestone.SignalConverted)
	if a := s.post("/hooks/rock/EmailUnsubscribed", unsubscribed, "RR-Signature", rockSignature("another", unsubscribed)); a.status != http.StatusForbidden {
		t.Errorf("a forgery: %+v", a)
	}

	var list api.Suppressions
	if err := w.Client().Call(ctx, http.MethodGet, "/api/v1/suppressions", url.Values{}, nil, &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Suppressions) != 1 || list.Suppressions[0].Email != person || list.Suppressions[0].Reason != "unsubscribed" {
		t.Errorf("suppressions = %+v, want %s", list.Suppressions, person)
	}
	var x api.Explanation
	if err := w.Client().Call(ctx, http.MethodGet, "/api/v1/leads/"+url.PathEscape(person), url.Values{}, nil, &x); err != nil {
		t.Fatal(err)
	}
	kinds := map[lodestone.SignalKind]int{}
	for _, e := range x.History {
		if e.Signal != nil {
			kinds[e.Signal.Kind]++
		}
	}
	if kinds[lodestone.SignalUnsubscribed] != 1 || kinds[lodestone.SignalConverted] != 1 {
		t.Errorf("history = %v, want each signal once", kinds)
	}
	if a := s.send(http.MethodGet, "/metrics", nil); !strings.Contains(a.body, `lodestone_hooks_total{connector="rock",result="accepted"} 3`) || strings.Contains(a.body, person) {
		t.Errorf("metrics do not count three webhooks, or hold the address")
	}
}
