package app

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/referralfactory"
	"github.com/lodestonehq/lodestone/connectors/referralrock"
	"github.com/lodestonehq/lodestone/connectors/saasquatch"
	"github.com/lodestonehq/lodestone/connectors/sandbox"
)

// TestStepsWithListsAndObjects runs steps whose requests hold lists and objects through the worker, and
// some that would act on somebody else than their lead.
func TestStepsWithListsAndObjects(t *testing.T) {
	rock := connectors.Settings{Secrets: map[string]connectors.Secret{"public_key": "public", "private_key": "private"}}
	const tomas = "2e7f7b52-6c0d-4c3e-9f3e-6f7a9c1d2e03" // a referral of tomas.blei@example.com
	for _, c := range []struct {
		name     string
		kind     connectors.Kind
		settings connectors.Settings
		email    string
		do, with string
		state    lodestone.TouchpointState
		says     string // in its detail or in a verdict
		effects  int
	}{
		{"invites, the lead's address filled in", referralrock.Kind(), rock, "lee@example.com",
			"createInviteFeedEntries", "{items: [{firstName: '${lead.domain}'}]}", lodestone.TouchpointSent, "", 1},
		{"a change of the lead's referral", referralrock.Kind(), rock, "tomas.blei@example.com",
			"updateReferrals", "{items: [{query: {secondaryInfo: {email: '${lead.email}'}, tertiaryInfo: {ProgramName: customers-2026}}, referral: {note: 'of ${lead.domain}', amount: 5}}]}", lodestone.TouchpointSent, "", 1},
		{"by its id", referralrock.Kind(), rock, "tomas.blei@example.com",
			"updateReferrals", "{items: [{query: {primaryInfo: {referralId: '${fields.code}'}}, referral: {note: x}}]}", lodestone.TouchpointSent, "is the lead's own", 1},
		{"the referral of somebody else", referralrock.Kind(), rock, "lee@example.com",
			"updateReferrals", "{items: [{query: {primaryInfo: {referralId: '${fields.code}'}}, referral: {status: approved}}]}", lodestone.TouchpointFailed, "stands for somebody else", 0},
		{"the address of somebody else", referralrock.Kind(), rock, "lee@example.com",
			"removeMembers", "{items: [{query: {secondaryInfo: {email: ines.duarte@example.com}}}]}", lodestone.TouchpointFailed, "names another address", 0},
		{"a user with lists", saasquatch.Kind(), connectors.Settings{Suppression: connectors.SuppressionLocalOnly, Secrets: map[string]connectors.Secret{"api_key": "an api key"}, Extra: map[string]string{"tenant": "test_abc123"}}, "lee@example.com",
			"openUserUpsert", "{id: '${lead.email}', accountId: '${lead.email}', userId: '${lead.email}', segments: [guide], customFields: {size: 5}}", lodestone.TouchpointSent, "", 1},
		{"a search", referralfactory.Kind(), connectors.Settings{Secrets: map[string]connectors.Secret{"api_key": "an api key"}, Extra: map[string]string{"campaign_id": "1"}}, "lee@example.com",
			"searchUsers", "{filters: {operator: AND, value: [{field: email, operator: '=', value: '${lead.email}'}]}}", lodestone.TouchpointSent, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			box := sandbox.New(sandbox.Options{})
			server := httptest.NewServer(box.Handler())
			defer server.Close()
			c.settings.BaseURL, c.settings.Rate, c.settings.Timeout = server.URL+"/"+c.kind.Name, 10, 5*time.Second
			settled := make(chan lodestone.TouchpointEntry, 10)
			rules := strings.Replace(fmt.Sprintf(providerRules, c.kind.Name+"."+c.do, c.with), "required: true}", "required: true}\n      code: {type: text}", 1)
			w := openWith(t, c.kind, c.settings, rules, func(e *lodestone.Entry) {
				for _, n := range e.Touchpoints {
					if !n.State.Pending() || n.State == lodestone.TouchpointHeld {
						settled <- n
					}
				}
			})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- w.Run(ctx) }()
			data := fmt.Appendf(nil, `{"email":%q,"code":%q}`, c.email, tomas)
			if _, err := w.Broker().JetStream().PublishMsg(ctx, &nats.Msg{Subject: "lodestone.forms.guide", Data: data}); err != nil {
				t.Fatal(err)
			}
			n := <-settled
			said := n.Detail
			p, err := w.store.Person(ctx, lodestone.Email(c.email), 100)
			if err != nil {
				t.Fatal(err)
			}
			for _, h := range p.History {
				for _, x := range h.Touchpoints {
					for _, v := range x.Verdicts {
						said += "; " + v.Evidence
					}
				}
			}
			if n.State != c.state || !strings.Contains(said, c.says) {
				t.Errorf("the touchpoint ended %s (%s): %s; want %s with %q", n.State, n.Reason, said, c.state, c.says)
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if got := box.Effects().Total; got != c.effects {
				t.Errorf("%d effects, want %d: %+v", got, c.effects, box.Effects())
			}
			if v := box.Violations(); len(v) != 0 {
				t.Errorf("violations = %+v, want none", v)
			}
		})
	}
}
