package gateway_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/referralrock"
	"github.com/lodestonehq/lodestone/connectors/saasquatch"
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

// The same at SaaSquatch's: the gateway fetches the published keys and verifies the detached signatures
// of real deliveries; a person whom our act makes joins, and converts when the program says so.
func TestSaaSquatchSandboxDelivers(t *testing.T) {
	box := sandbox.New(sandbox.Options{})
	t.Cleanup(box.Close)
	provider := httptest.NewServer(box.Handler())
	t.Cleanup(provider.Close)
	account, err := connectors.Open(saasquatch.Kind(), connectors.Settings{
		Name: "squatch", BaseURL: provider.URL + "/saasquatch", Rate: 1000, Suppression: connectors.SuppressionLocalOnly,
		Secrets: map[string]connectors.Secret{saasquatch.APIKey: "an api key"}, Extra: map[string]string{saasquatch.Tenant: "test_abc123"},
	})
	if err != nil {
		t.Fatal(err)
	}
	hook := saasquatch.Hook()
	var mu sync.Mutex
	answers := map[int]int{}
	s := newSite(t, func(o *gateway.HookOptions) {
		o.Accounts = []gateway.HookAccount{{Settings: account.Settings(), Hook: hook}}
		o.Registerer = nil
		h := gateway.Hooks(*o)
		front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			mu.Lock()
			answers[rec.Code]++
			mu.Unlock()
			w.WriteHeader(rec.Code)
		}))
		t.Cleanup(front.Close)
		operation, arguments := hook.Install.Create("", front.URL+gateway.HooksPath+"squatch")
		if _, err := account.Call(t.Context(), operation, arguments); err != nil {
			t.Fatal(err)
		}
		// Somebody else's tenant at the same provider, signed by the same key, is not ours.
		resp, err := http.DefaultClient.Do(stranger(t, provider.URL, front.URL+gateway.HooksPath+"squatch?other"))
		if err != nil || resp.StatusCode != http.StatusCreated {
			t.Fatalf("subscribe another tenant: %v, %v", resp, err)
		}
		_ = resp.Body.Close()
	})

	r, err := account.Do(t.Context(), connectors.Act{ID: "e1.refer", Operation: "refer", Email: person, Parameters: map[string]any{"referredByCodes": "INES1042"}})
	if err != nil {
		t.Fatal(r, err)
	}
	if _, err := account.Do(t.Context(), connectors.Act{ID: "e1.won", Operation: "trackEvent", Email: person, Parameters: map[string]any{"key": "purchase"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := account.Call(t.Context(), "testWebhook", map[string]any{"endpointUrl": hookURL(t, account, hook)}); err != nil {
		t.Fatal(err)
	}
	deadline, tick := time.After(30*time.Second), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for {
		signals, _ := s.stored()
		mu.Lock()
		taken, forged := answers[http.StatusOK], answers[http.StatusForbidden]
		mu.Unlock()
		if len(signals) == 2 && taken == 3 && forged > 0 {
			if signals[0].Kind != lodestone.SignalJoined || signals[1].Kind != lodestone.SignalConverted || signals[0].Email != person || signals[1].Email != person {
				t.Errorf("signals = %+v, want that the person joined and converted", signals)
			}
			break
		}
		select {
		case <-deadline:
			t.Fatalf("signals %+v, answers %v\n%s", signals, answers, s.logs.String())
		case <-tick.C:
		}
	}
	if v := box.Violations(); len(v) != 0 {
		t.Errorf("violations = %+v, want none", v)
	}
}

// stranger subscribes an address for another tenant.
func stranger(t *testing.T, provider, address string) *http.Request {
	t.Helper()
	body := `{"endpointUrl": "` + address + `", "name": "x", "webhookTypes": ["user.created"]}`
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, provider+"/saasquatch/other_tenant/subscription", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("", "an api key")
	req.Header.Set("Content-Type", "application/json")
	return req
}

// hookURL is the first subscription that the provider lists.
func hookURL(t *testing.T, account *connectors.Account, hook connectors.Hook) string {
	t.Helper()
	operation, arguments := hook.Install.Ask("")
	answer, err := account.Call(t.Context(), operation, arguments)
	if err != nil {
		t.Fatal(err)
	}
	list, err := hook.Install.Subscriptions(answer.Body)
	if err != nil || len(list) == 0 {
		t.Fatalf("subscriptions %v, %v", list, err)
	}
	return list[0].URL
}
