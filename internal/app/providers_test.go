package app

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"testing"
	"time"

	"context"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/blocks23"
	"github.com/lodestonehq/lodestone/connectors/referralfactory"
	"github.com/lodestonehq/lodestone/connectors/referralrock"
	"github.com/lodestonehq/lodestone/connectors/saasquatch"
	"github.com/lodestonehq/lodestone/connectors/sandbox"
	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/sequencer"
)

// providers are the four, as a sequence uses them.
var providers = []struct {
	kind     connectors.Kind
	mount    string
	fault    string // the provider's operation behind the verb
	do, with string
	settings connectors.Settings
}{
	{referralrock.Kind(), "/referralrock", "createReferral", "refer", `{referralCode: INES1042}`,
		connectors.Settings{Secrets: map[string]connectors.Secret{"public_key": "public", "private_key": "private"}}},
	{blocks23.Kind(), "/23blocks", "createReferral", "refer", `{referrer_email: ines@example.com}`,
		connectors.Settings{Suppression: connectors.SuppressionLocalOnly, Secrets: map[string]connectors.Secret{"token": "a token"}, Extra: map[string]string{"app_id": "app", "form": "form-1"}}},
	{saasquatch.Kind(), "/saasquatch", "openUserUpsert", "refer", `{referredByCodes: INES1042}`,
		connectors.Settings{Suppression: connectors.SuppressionLocalOnly, Secrets: map[string]connectors.Secret{"api_key": "an api key"}, Extra: map[string]string{"tenant": "test_abc123"}}},
	{referralfactory.Kind(), "/referralfactory", "createUser", "invite", `{first_name: there}`,
		connectors.Settings{Secrets: map[string]connectors.Secret{"api_key": "an api key"}, Extra: map[string]string{"campaign_id": "1"}}},
}

// TestTheMainJobThroughEachProvider takes submissions in, some of them twice, sends their touchpoints
// through one provider after the other while it fails in every way that loses answers, and lets the
// provider count: one effect for each lead, whatever happened on the way.
func TestTheMainJobThroughEachProvider(t *testing.T) {
	const leads = 24
	for _, p := range providers {
		t.Run(p.kind.Name, func(t *testing.T) {
			t.Parallel()
			box := sandbox.New(sandbox.Options{})
			server := httptest.NewServer(box.Handler())
			defer server.Close()
			faults := []sandbox.FaultKind{
				sandbox.Fault503, sandbox.Fault429, sandbox.Fault500, sandbox.Fault500AfterEffect, sandbox.FaultReset,
				sandbox.FaultResetAfterEffect, sandbox.FaultTruncate, sandbox.FaultHTML,
			}
			for i, k := range faults {
				f := sandbox.Fault{Kind: k, Operation: p.fault, Email: leadEmail(i), Times: 1, RetryAfter: "0"}
				if err := box.Fault(f); err != nil {
					t.Fatal(err)
				}
			}
			settings := p.settings
			settings.BaseURL, settings.Rate, settings.Settle, settings.Timeout = server.URL+p.mount, 10, 100*time.Millisecond, 5*time.Second
			settled := make(chan lodestone.TouchpointEntry, 1000)
			w := openWith(t, p.kind, settings, fmt.Sprintf(providerRules, p.kind.Name+"."+p.do, p.with), func(e *lodestone.Entry) {
				for _, n := range e.Touchpoints {
					if !n.State.Pending() || n.State == lodestone.TouchpointHeld {
						settled <- n
					}
				}
			})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- w.Run(ctx) }()
			for i := range leads {
				for range 1 + i%2 { // every other one twice, as a browser that tries again does
					m := &nats.Msg{Subject: "lodestone.forms.guide", Data: fmt.Appendf(nil, `{"specversion":"1.0","id":"%d","source":"test","type":"lodestone.form.submitted","data":{"fields":{"email":%q}}}`, i, leadEmail(i)),
						Header: nats.Header{"Content-Type": {"application/cloudevents+json"}}}
					if _, err := w.Broker().JetStream().PublishMsg(ctx, m); err != nil {
						t.Fatal(err)
					}
				}
			}
			states := map[lodestone.TouchpointState]int{}
			for range leads {
				n := <-settled
				states[n.State]++
				if n.State != lodestone.TouchpointSent {
					t.Errorf("a touchpoint ended %s (%s): %s", n.State, n.Reason, n.Detail)
				}
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			count := map[string]int{}
			for _, e := range box.Effects().ByEmail {
				count[e.Email] += e.Count
			}
			for i := range leads {
				if n := count[leadEmail(i)]; n != 1 {
					t.Errorf("%s: %d effects at the provider, want 1", leadEmail(i), n)
				}
			}
			played := map[sandbox.FaultKind]bool{}
			for _, r := range box.Received() {
				if r.Fault != "" {
					played[r.Fault] = true
				}
			}
			if len(played) != len(faults) {
				t.Errorf("only the faults %v were met, want all of %v", played, faults)
			}
			for _, v := range box.Violations() {
				b, _ := json.Marshal(v)
				t.Errorf("a breach of the provider's specification: %s", b)
			}
			t.Logf("%d leads, states %v, %d effects", leads, states, box.Effects().Total)
		})
	}
}

func leadEmail(i int) string { return fmt.Sprintf("lead%d@example.com", i) }

const providerRules = `
forms:
  guide:
    fields:
      email: {type: email, required: true}
scoring:
  bands: {any: 0}
sequences:
  only:
    when: 'true'
    steps:
      - {name: step, do: %s, with: %s}
`

func openWith(t *testing.T, kind connectors.Kind, settings connectors.Settings, ruleFile string, told func(*lodestone.Entry)) *Worker {
	t.Helper()
	ops := map[string]lodestone.Operation{}
	for _, op := range kind.RuleOperations() {
		op.Name = kind.Name + "." + op.Name
		ops[op.Name] = op
	}
	w, err := Open(t.Context(), Options{
		Data: t.TempDir(), Broker: broker.Options{Listen: "none", MaxStore: 1 << 30}, HTTPListen: "none", Log: slog.New(slog.DiscardHandler),
		Rules:        func() ([]rules.File, error) { return []rules.File{{Name: "r.yaml", Data: []byte(ruleFile)}}, nil },
		RulesOptions: rules.Options{Operations: ops},
		Accounts: func([]string, prometheus.Registerer, *slog.Logger) (map[string]*connectors.Account, error) {
			a, err := connectors.Open(kind, settings)
			return map[string]*connectors.Account{kind.Name: a}, err
		},
		Committed: func(c *sequencer.Change) {
			if c.Entry != nil {
				told(c.Entry)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}
