package saasquatch_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/saasquatch"
	"github.com/lodestonehq/lodestone/connectors/sandbox"
)

// sandboxed is an account at a sandbox that takes its key alone.
func sandboxed(t *testing.T, timeout time.Duration, opts sandbox.SquatchOptions) (*connectors.Account, *sandbox.Server) {
	t.Helper()
	opts.APIKey, opts.Tenant = secrets[saasquatch.APIKey].Reveal(), "test_abc123"
	box := sandbox.New(sandbox.Options{SaaSquatch: opts})
	srv := httptest.NewServer(box.Handler())
	t.Cleanup(func() {
		box.Clear() // lets go of what hangs
		srv.Close()
	})
	a, err := connectors.Open(saasquatch.Kind(), connectors.Settings{
		BaseURL: srv.URL + "/saasquatch", Secrets: secrets, Extra: extra, Rate: 10000, Timeout: timeout,
		Suppression: connectors.SuppressionLocalOnly,
	})
	if err != nil {
		t.Fatal(err)
	}
	return a, box
}

// effects are how often an operation was carried out for an address, by the sandbox's own count.
func effects(box *sandbox.Server, operation string, email lodestone.Email) int {
	for _, e := range box.Effects().ByEmail {
		if e.Operation == operation && e.Email == string(email) {
			return e.Count
		}
	}
	return 0
}

// settle does an act as the worker does: what was provably not done is tried again, what is unknown is
// asked about first, and what the answer does not settle is left to a human.
func settle(t *testing.T, a *connectors.Account, act connectors.Act) string {
	t.Helper()
	for range 10 {
		_, err := a.Do(t.Context(), act)
		if err == nil {
			return "sent"
		}
		var f *connectors.Fault
		if !errors.As(err, &f) {
			t.Fatal(err)
		}
		switch f.Class {
		case connectors.NotDone, connectors.RateLimited:
			continue
		case connectors.LockedOut:
			if err := a.Probe(t.Context()); err != nil {
				t.Fatalf("Probe = %v", err)
			}
			continue
		case connectors.Refused:
			return "failed: " + f.Detail
		}
		found, err := a.Find(t.Context(), act)
		switch {
		case err != nil:
			t.Fatalf("Find = %v", err)
		case found.State == connectors.Found:
			return "found"
		case found.State != connectors.Absent:
			return "held: " + found.Evidence
		}
	}
	return "attempts ran out"
}

// Whatever happens to a request or its answer, the person is referred once.
func TestLostAnswersHaveOneEffect(t *testing.T) {
	for _, c := range []struct {
		kind   sandbox.FaultKind
		refer  string
		second string // the same for an event, whose outcome cannot be asked for
	}{
		{sandbox.Fault429, "sent", "sent"},
		{sandbox.Fault401, "sent", "sent"},
		{sandbox.Fault500, "sent", "held"},
		{sandbox.Fault503, "sent", "held"},
		{sandbox.FaultReset, "sent", "held"},
		{sandbox.FaultHang, "sent", "held"},
		{sandbox.FaultHTML, "sent", "held"},
		{sandbox.FaultOutage, "sent", "held"},
		{sandbox.Fault500AfterEffect, "found", "held"},
		{sandbox.FaultResetAfterEffect, "found", "held"},
		{sandbox.FaultHangAfterEffect, "found", "held"},
		{sandbox.FaultTruncate, "found", "held"},
	} {
		t.Run(string(c.kind), func(t *testing.T) {
			a, box := sandboxed(t, 500*time.Millisecond, sandbox.SquatchOptions{})
			if err := box.Fault(sandbox.Fault{Kind: c.kind, Operation: "refer", Times: 1}); err != nil {
				t.Fatal(err)
			}
			if got := settle(t, a, simple()); got != c.refer {
				t.Errorf("refer ended as %q, want %q", got, c.refer)
			}
			if n := effects(box, "openUserUpsert", ada); n != 1 {
				t.Errorf("%d upserts, want 1", n)
			}
			if got := settle(t, a, simple()); got != "sent" { // a repeat meets the same record
				t.Errorf("a repeat ended as %q, want sent", got)
			}
			if n := referrals(t, a); n != 1 {
				t.Errorf("%d referrals, want 1", n)
			}

			track := act("trackEvent", map[string]any{"key": "won", "fields": `{"total": 49.9}`})
			if err := box.Fault(sandbox.Fault{Kind: c.kind, Operation: "trackEvent", Times: 1}); err != nil {
				t.Fatal(err)
			}
			if got := settle(t, a, track); !strings.HasPrefix(got, c.second) {
				t.Errorf("the event ended as %q, want %q", got, c.second)
			}
			if got := settle(t, a, track); got != "sent" { // as when a human retries it
				t.Errorf("the event's repeat ended as %q, want sent", got)
			}
			if n := effects(box, "trackEvent", ada); n != 1 {
				t.Errorf("%d events, want 1", n)
			}
			if v := box.Violations(); len(v) != 0 {
				t.Errorf("violations = %+v, want none", v)
			}
		})
	}
}

// referrals are how many the provider has.
func referrals(t *testing.T, a *connectors.Account) int {
	t.Helper()
	answer, err := a.Call(t.Context(), "listReferrals", nil)
	if err != nil {
		t.Fatal(err)
	}
	n, _ := object(t, string(answer.Body))["totalCount"].(float64)
	return int(n)
}

// Somebody who came with another code is nobody's to refer again, and the operator reads why.
func TestReferredByAnotherCode(t *testing.T) {
	theirs := refer(map[string]any{"referredByCodes": "ADA2026"})
	for _, c := range []struct {
		second string
		fault  sandbox.FaultKind
		want   string
	}{
		{"keep", "", "failed: the account was referred already, with another code"},
		{"refuse", "", "failed: The account has been referred already."},
		{"replace", "", "sent"},
		{"keep", sandbox.FaultResetAfterEffect, "held: the account was referred already, with another code"},
		{"keep", sandbox.FaultReset, "held: the account was referred already, with another code"},
		{"replace", sandbox.FaultResetAfterEffect, "found"},
	} {
		t.Run(c.second+" "+string(c.fault), func(t *testing.T) {
			a, box := sandboxed(t, 5*time.Second, sandbox.SquatchOptions{Settings: sandbox.SquatchSettings{SecondCode: c.second}})
			if got := settle(t, a, simple()); got != "sent" {
				t.Fatal(got)
			}
			if c.fault != "" {
				if err := box.Fault(sandbox.Fault{Kind: c.fault, Operation: "refer", Times: 1}); err != nil {
					t.Fatal(err)
				}
			}
			if got := settle(t, a, theirs); !strings.HasPrefix(got, c.want) {
				t.Errorf("the second ended as %q, want %q", got, c.want)
			}
			if n := referrals(t, a); n != 1 {
				t.Errorf("%d referrals, want 1", n)
			}
		})
	}
}

// A provider that drops an unknown code without a word has made no referral, and is not believed to.
func TestCodeDroppedInSilence(t *testing.T) {
	a, box := sandboxed(t, 5*time.Second, sandbox.SquatchOptions{Settings: sandbox.SquatchSettings{UnknownCode: "ignore"}})
	nobodys := refer(map[string]any{"referredByCodes": "NOBODY"})
	_, err := a.Do(t.Context(), nobodys)
	var f *connectors.Fault
	if !errors.As(err, &f) || f.Class != connectors.Unknown {
		t.Fatalf("Do = %v, want unknown", err)
	}
	if got, err := a.Find(t.Context(), nobodys); err != nil || got.State != connectors.Absent {
		t.Errorf("Find = %+v, %v; want absent", got, err)
	}
	if err := box.SetSaaSquatch(sandbox.SquatchSettings{}); err != nil {
		t.Fatal(err)
	}
	if got := settle(t, a, nobodys); got != "failed: Invalid referral code." {
		t.Errorf("a code that is refused ended as %q", got)
	}
}

// What shows late is asked for until it shows: a look-up that is too early finds nothing, which the
// worker believes only after the settle time.
func TestShowsLate(t *testing.T) {
	a, box := sandboxed(t, 5*time.Second, sandbox.SquatchOptions{})
	box.Set(sandbox.Settings{Hidden: true})
	if err := box.Fault(sandbox.Fault{Kind: sandbox.FaultResetAfterEffect, Operation: "refer", Times: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Do(t.Context(), simple()); err == nil {
		t.Fatal("Do = nil, want a broken connection")
	}
	if got, err := a.Find(t.Context(), simple()); err != nil || got.State != connectors.Absent {
		t.Errorf("Find = %+v, %v; want absent, as far as can be seen", got, err)
	}
	if got := settle(t, a, simple()); got != "sent" { // even believed too early, a repeat refers nobody twice
		t.Errorf("the repeat ended as %q, want sent", got)
	}
	// The upsert's own answer shows everything.
	answer, err := a.Call(t.Context(), "openUserUpsert", map[string]any{"accountId": ada, "userId": ada, "id": ada})
	if err != nil {
		t.Fatal(err)
	}
	if codes, _ := object(t, string(answer.Body))["referredByCodes"].([]any); len(codes) != 1 {
		t.Errorf("the user is referred by %v, want one code", codes)
	}
}

// While the open endpoints are off nothing is lost: the breaker stays open until they are on.
func TestOpenEndpointsOff(t *testing.T) {
	a, box := sandboxed(t, 5*time.Second, sandbox.SquatchOptions{Settings: sandbox.SquatchSettings{Open: "off"}})
	_, err := a.Do(t.Context(), simple())
	var f *connectors.Fault
	if !errors.As(err, &f) || f.Class != connectors.LockedOut || !strings.Contains(f.Detail, "Endpoint disabled.") {
		t.Fatalf("Do = %v, want locked out in the provider's words", err)
	}
	if err := a.Probe(t.Context()); err == nil {
		t.Error("Probe = nil while the endpoints are off")
	}
	if err := box.SetSaaSquatch(sandbox.SquatchSettings{}); err != nil {
		t.Fatal(err)
	}
	if got := settle(t, a, simple()); got != "sent" || effects(box, "openUserUpsert", ada) != 1 {
		t.Errorf("afterwards it ended as %q with %d upserts", got, effects(box, "openUserUpsert", ada))
	}
}

// Every operation of the description can be called, and what is sent keeps to it.
func TestCatalogue(t *testing.T) {
	a, box := sandboxed(t, 5*time.Second, sandbox.SquatchOptions{})
	if got := settle(t, a, simple()); got != "sent" {
		t.Fatal(got)
	}
	user := map[string]any{"accountId": ada, "userId": ada}
	id := referralID(t, a)
	called := map[string]bool{}
	for _, c := range []struct {
		operation string
		arguments map[string]any
		status    int
	}{
		{"listReferrals", map[string]any{"limit": 5.0, "offset": 0.0, "referringUserId": "ines.duarte@example.com"}, 200},
		{"getReferral", map[string]any{"referralId": id}, 200},
		{"moderateReferrals", map[string]any{"actions": []any{map[string]any{"referralId": id, "action": "APPROVED"}}}, 200},
		{"openListReferrals", map[string]any{"referredUserId": ada}, 200},
		{"openUserUpsert", with(user, "id", ada, "firstName", "Ada", "customFields", map[string]any{"plan": "pro"}), 200},
		{"openCreateUser", with(user, "id", ada, "segments", []any{"vip"}), 201},
		{"openGetUser", with(user, "fields", "id,segments"), 200},
		{"trackEvent", with(user, "idempotencyKey", "order-2026-1", "events", []any{map[string]any{"key": "won"}}), 200},
		{"openValidateCode", map[string]any{"referral_code": "INES1042"}, 200},
		{"openGetUserByCode", map[string]any{"referralCode": "INES1042"}, 200},
		{"findUserByReferralCode", map[string]any{"referralCode": "INES1042"}, 200},
		{"createUser", map[string]any{"id": "b@example.com", "accountId": "b@example.com"}, 200},
		{"openApplyCode", map[string]any{"code": "INES1042", "accountId": "b@example.com", "userId": "b@example.com"}, 200},
		{"getUser", user, 200},
		{"blockUser", user, 200},
		{"unblockUser", user, 200},
		{"listUsers", map[string]any{"query": "ada"}, 200},
		{"createWebhook", map[string]any{"endpointUrl": "http://127.0.0.1:1/a?b=c", "webhookTypes": []any{"test"}}, 201},
		{"listWebhooks", nil, 200},
		{"testWebhook", map[string]any{"endpointUrl": "http://127.0.0.1:1/a?b=c"}, 204},
		{"deleteWebhook", map[string]any{"endpointUrl": "http://127.0.0.1:1/a?b=c"}, 204},
		{"openDeleteUser", with(user, "doNotTrack", true), 204},
	} {
		called[c.operation] = true
		answer, err := a.Call(t.Context(), c.operation, c.arguments)
		if err != nil || answer.Status != c.status {
			t.Errorf("%s = %d %s, %v; want %d", c.operation, answer.Status, answer.Body, err, c.status)
		}
	}
	for _, e := range saasquatch.Kind().Endpoints {
		if !called[e.Name] {
			t.Errorf("%s of the catalogue was not tried", e.Name)
		}
	}
	if v := box.Violations(); len(v) != 0 {
		t.Errorf("violations = %+v, want none", v)
	}
}

func with(m map[string]any, more ...any) map[string]any {
	out := map[string]any{}
	for k, v := range m {
		out[k] = v
	}
	for i := 0; i+1 < len(more); i += 2 {
		out[more[i].(string)] = more[i+1]
	}
	return out
}

func referralID(t *testing.T, a *connectors.Account) string {
	t.Helper()
	answer, err := a.Call(t.Context(), "openListReferrals", map[string]any{"referredUserId": ada})
	if err != nil {
		t.Fatal(err)
	}
	list, _ := object(t, string(answer.Body))["referrals"].([]any)
	if len(list) != 1 {
		t.Fatalf("referrals = %s", answer.Body)
	}
	id, _ := list[0].(map[string]any)["id"].(string)
	return id
}

// A rule need not give what the settings give.
func TestCatalogueInRules(t *testing.T) {
	a, box := sandboxed(t, 5*time.Second, sandbox.SquatchOptions{})
	e, err := a.Endpoint("createUser")
	if err != nil {
		t.Fatal(err)
	}
	op := e.Operation()
	if p, there := op.Parameter("tenant_alias"); op.NoStep != "" || p.Required {
		t.Errorf("createUser in rules: %q, tenant %+v (%t); want it usable without a tenant", op.NoStep, p, there)
	}
	if _, err := a.Do(t.Context(), act("createUser", map[string]any{"id": ada, "accountId": ada})); err != nil || effects(box, "createUser", ada) != 1 {
		t.Errorf("Do = %v with %d effects, want 1", err, effects(box, "createUser", ada))
	}
}

// What the description forbids is not sent at all: no more than a hundred actions, no tenant of one's
// own.
func TestCatalogueRefuses(t *testing.T) {
	a, box := sandboxed(t, 5*time.Second, sandbox.SquatchOptions{})
	actions := make([]any, 101)
	for i := range actions {
		actions[i] = map[string]any{"referralId": fmt.Sprint(i), "action": "APPROVED"}
	}
	for _, c := range []struct {
		operation string
		arguments map[string]any
		says      string
	}{
		{"moderateReferrals", map[string]any{"actions": actions}, "actions"},
		{"moderateReferrals", map[string]any{"actions": []any{}}, "actions"},
		{"moderateReferrals", map[string]any{"actions": []any{map[string]any{"referralId": "r", "action": "PAY"}}}, "action"},
		{"trackEvent", map[string]any{"accountId": ada, "userId": ada, "idempotencyKey": "a b", "events": []any{map[string]any{"key": "a"}}}, "idempotencyKey"},
		{"getReferral", map[string]any{"referralId": "r", "tenant_alias": "live"}, "tenant_alias"},
		{"getReferral", nil, "referralId"},
	} {
		_, err := a.Call(t.Context(), c.operation, c.arguments)
		var wrong *connectors.ArgumentError
		if !errors.As(err, &wrong) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s = %v, want an error that names %s", c.operation, err, c.says)
		}
	}
	if n := len(box.Received()); n != 0 {
		t.Errorf("the provider got %d requests, want none", n)
	}
	for _, e := range saasquatch.Kind().Endpoints {
		if e.Name == "moderateReferrals" && e.Effect != lodestone.EffectPay || e.Name == "openDeleteUser" && e.Effect != lodestone.EffectDestroy {
			t.Errorf("%s has the effect %s", e.Name, e.Effect)
		}
	}
}

// The key never shows, in none of the forms in which it travels.
func TestNoErrorShowsTheKey(t *testing.T) {
	key := secrets[saasquatch.APIKey].Reveal()
	pairs := []string{key, base64.StdEncoding.EncodeToString([]byte(":" + key)), base64.StdEncoding.EncodeToString([]byte(key + ":"))}
	for as, pair := range map[string]string{saasquatch.AsPassword: pairs[1], saasquatch.AsUser: pairs[2]} {
		body := `{"message": "no ` + key + " " + pair + ` for Ada@Example.com, ada%40example.com"}`
		for _, status := range []int{200, 400, 401, 404, 409, 429, 500, 503} {
			a, _ := serveAs(t, map[string]string{saasquatch.Tenant: "t", saasquatch.APIKeyAs: as}, answer{status, body})
			r, doErr := a.Do(t.Context(), simple())
			f, findErr := a.Find(t.Context(), simple())
			all := fmt.Sprintf("%+v %v %+v %v %v", r, doErr, f, findErr, a.Probe(t.Context()))
			for _, hidden := range append(pairs, ada, "Ada@Example.com", "ada%40example.com") {
				if strings.Contains(all, hidden) {
					t.Errorf("status %d, key as %s: %q is shown in %s", status, as, hidden, all)
				}
			}
		}
	}
}
