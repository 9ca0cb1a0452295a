package gateway_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/referralrock"
	"github.com/lodestonehq/lodestone/connectors/sandbox"
	"github.com/lodestonehq/lodestone/internal/gateway"
)

// The whole way at Referral Rock's emulator: subscribe as `hooks install` does, take the signing keys
// from where people see them, and have an opt-out at the provider arrive as a signal.
func TestSandboxDelivers(t *testing.T) {
	box := sandbox.New(sandbox.Options{})
	t.Cleanup(box.Close)
	provider := httptest.NewServer(box.Handler())
	t.Cleanup(provider.Close)
	account, err := connectors.Open(referralrock.Kind(), connectors.Settings{
		Name: "rock", BaseURL: provider.URL + "/referralrock", Rate: 1000,
		Secrets: map[string]connectors.Secret{referralrock.PublicKey: "public", referralrock.PrivateKey: "private"},
	})
	if err != nil {
		t.Fatal(err)
	}

	// The gateway's address is needed before its keys, as in life.
	mux := http.NewServeMux()
	front := httptest.NewServer(mux)
	t.Cleanup(front.Close)
	hook := referralrock.Hook()
	for _, event := range hook.Install.Events {
		operation, arguments := hook.Install.Create(event, front.URL+gateway.HooksPath+"rock/"+event)
		answer, err := account.Call(t.Context(), operation, arguments)
		if err != nil || hook.Install.Reference(answer.Body) == "" {
			t.Fatalf("subscribe to %s: %s, %v", event, answer.Body, err)
		}
	}
	resp, err := http.Get(provider.URL + "/_sandbox/hooks")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var shown []struct {
		Event string `json:"event"`
		Key   string `json:"signing_key"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&shown); err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, s := range shown {
		keys = append(keys, s.Event+"="+s.Key)
	}
	s := newSite(t, func(o *gateway.HookOptions) {
		o.Accounts = []gateway.HookAccount{{
			Settings: account.Settings(), Hook: hook,
			Secrets: map[string]connectors.Secret{referralrock.WebhookKeys: connectors.Secret(strings.Join(keys, "\n"))},
		}}
		o.Registerer = nil
		mux.Handle(gateway.HooksPath, gateway.Hooks(*o))
	})

	if _, err := account.Call(t.Context(), "unsubscribeEmail", map[string]any{"email": person}); err != nil {
		t.Fatal(err)
	}
	deadline, tick := time.After(30*time.Second), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for {
		if signals, _ := s.stored(); len(signals) > 0 {
			if len(signals) != 1 || signals[0].Kind != lodestone.SignalUnsubscribed || signals[0].Email != person {
				t.Errorf("signals = %+v", signals)
			}
			break
		}
		select {
		case <-deadline:
			t.Fatalf("the opt-out never arrived\n%s", s.logs.String())
		case <-tick.C:
		}
	}

	// The history shows the subscription, which is what keeps `hooks install` from making it twice. The
	// emulator notes a delivery after it was answered.
	operation, arguments := hook.Install.Ask("EmailUnsubscribed")
	for {
		answer, err := account.Call(t.Context(), operation, arguments)
		if err != nil {
			t.Fatal(err)
		}
		list, err := hook.Install.Subscriptions(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(list, func(h connectors.HookSubscription) bool {
			return h.URL == front.URL+"/hooks/rock/EmailUnsubscribed" && h.ID != ""
		}) {
			break
		}
		select {
		case <-deadline:
			t.Fatalf("the history never showed the delivery: %s", answer.Body)
		case <-tick.C:
		}
	}
}
