package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/blocks23"
	"github.com/lodestonehq/lodestone/connectors/referralfactory"
	"github.com/lodestonehq/lodestone/connectors/referralrock"
	"github.com/lodestonehq/lodestone/connectors/saasquatch"
	"github.com/lodestonehq/lodestone/connectors/sandbox"
	"github.com/lodestonehq/lodestone/internal/api"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
	"github.com/lodestonehq/lodestone/sequencer"
)

// unsubscribed is who opted out at the providers.
const unsubscribed = "ada@example.com"

// everywhere is the API with an account at each of the four providers.
type everywhere struct {
	t        *testing.T
	dir      string
	box      *sandbox.Server
	accounts map[string]*connectors.Account
	store    *boltstore.Store
	client   *api.Client
	// received is told of each request after it was answered.
	received func(sandbox.Received)
}

func newEverywhere(t *testing.T) *everywhere {
	t.Helper()
	e := &everywhere{t: t, dir: t.TempDir(), accounts: map[string]*connectors.Account{}}
	e.box = sandbox.New(sandbox.Options{Unsubscribed: []lodestone.Email{unsubscribed}, OnRequest: func(r sandbox.Received) {
		if e.received != nil {
			e.received(r)
		}
	}})
	server := httptest.NewServer(e.box.Handler())
	t.Cleanup(func() {
		e.box.Close()
		server.Close()
		for _, v := range e.box.Violations() {
			t.Errorf("contract violation in %s: %s", v.Operation, v.Problem)
		}
	})
	for _, a := range []struct {
		kind           connectors.Kind
		suppression    string
		secrets, extra map[string]string
	}{
		{referralrock.Kind(), "", map[string]string{"public_key": "public", "private_key": "private"}, nil},
		{blocks23.Kind(), connectors.SuppressionLocalOnly, map[string]string{blocks23.Token: "tok-1"}, map[string]string{blocks23.AppID: "app-1", blocks23.Form: "form-1"}},
		{saasquatch.Kind(), connectors.SuppressionLocalOnly, map[string]string{saasquatch.APIKey: "key-key-1"}, map[string]string{saasquatch.Tenant: "test_abc123"}},
		{referralfactory.Kind(), "", map[string]string{referralfactory.APIKey: "key-key-2"}, map[string]string{referralfactory.CampaignID: "1"}},
	} {
		s := connectors.Settings{
			BaseURL: server.URL + "/" + a.kind.Name, Rate: 10, Timeout: 5 * time.Second, Settle: time.Nanosecond,
			Suppression: a.suppression, Extra: a.extra, Secrets: map[string]connectors.Secret{},
		}
		for k, v := range a.secrets {
			s.Secrets[k] = connectors.Secret(v)
		}
		if a.kind.Name != "referralfactory" {
			s.Rate = 10000
		}
		account, err := connectors.Open(a.kind, s)
		if err != nil {
			t.Fatal(err)
		}
		e.accounts[a.kind.Name] = account
	}
	e.open()
	return e
}

// open opens the store, as a process does that starts.
func (e *everywhere) open() {
	e.t.Helper()
	var err error
	if e.store, err = boltstore.Open(e.dir, boltstore.Options{}); err != nil {
		e.t.Fatal(err)
	}
	store := e.store
	e.t.Cleanup(func() { store.Close() })
	e.client = api.Direct((&api.Server{Store: e.store, Rulebook: func() *sequencer.Rulebook { return nil }, Accounts: e.accounts}).Handler())
}

func (e *everywhere) call(connector, operation string, arguments map[string]any) json.RawMessage {
	e.t.Helper()
	answer, err := e.accounts[connector].Call(e.t.Context(), operation, arguments)
	if err != nil {
		e.t.Fatalf("%s.%s: %v", connector, operation, err)
	}
	return answer.Body
}

// tell has every provider hold somebody.
func (e *everywhere) tell(email string) {
	e.call("referralrock", "createMember", map[string]any{"programId": "customers-2026", "firstName": "Ada", "email": email})
	e.call("referralrock", "createReferral", map[string]any{"referralCode": "INES1042", "firstName": "Ada", "email": email})
	e.call("23blocks", "createReferral", map[string]any{"referral": map[string]any{"referrer_email": "ines@example.com", "referred_email": email}})
	e.call("saasquatch", "openUserUpsert", map[string]any{"accountId": email, "userId": email, "id": email, "email": email})
	if email != unsubscribed { // whom the sandbox has in the campaign from the start
		e.call("referralfactory", "createUser", map[string]any{"first_name": "Ada", "email": email})
	}
}

// holds counts what the providers hold of somebody, by their own word.
func (e *everywhere) holds(email string) map[string]int {
	e.t.Helper()
	list := func(connector, operation string, arguments map[string]any) int {
		body := string(e.call(connector, operation, arguments))
		return min(1, strings.Count(strings.ToLower(body), email))
	}
	return map[string]int{
		"member":   list("referralrock", "listMembers", map[string]any{"query": email, "showDisabled": true}),
		"referral": list("referralrock", "listReferrals", map[string]any{"query": email}),
		"23blocks": list("23blocks", "listReferrals", map[string]any{"records": 100}),
		"user":     list("saasquatch", "listUsers", map[string]any{"query": email}),
		"factory": list("referralfactory", "searchUsers", map[string]any{"filters": map[string]any{"operator": "AND", "value": []any{
			map[string]any{"field": "email", "operator": "=", "value": email},
			map[string]any{"field": "campaign_id", "operator": "=", "value": "1"},
		}}}),
	}
}

func total(held map[string]int) (n int) {
	for _, k := range held {
		n += k
	}
	return n
}

// items are what attention holds.
func (e *everywhere) items() (ids []string) {
	e.t.Helper()
	list, _, err := e.store.Attention(e.t.Context(), 100)
	if err != nil {
		e.t.Fatal(err)
	}
	for _, a := range list {
		ids = append(ids, a.ID)
	}
	return ids
}

func (e *everywhere) forget(email string) (got api.Forgotten, states map[string]string) {
	e.t.Helper()
	got, err := e.client.Forget(e.t.Context(), email, true)
	if err != nil {
		e.t.Fatal(err)
	}
	states = map[string]string{}
	for _, p := range got.Providers {
		states[p.Connector] = p.State
	}
	return got, states
}

// Every provider forgets the person and nobody else, each act stands on record twice and without the address, and
// what they unsubscribed from at a provider stays so.
func TestForgetAtTheProviders(t *testing.T) {
	e := newEverywhere(t)
	e.tell("ada@example.com")
	e.tell("grace@example.com")
	if n := total(e.holds("ada@example.com")); n != 5 {
		t.Fatalf("the providers hold %v", e.holds("ada@example.com"))
	}
	before := e.holds("grace@example.com")
	got, states := e.forget("Ada@Example.com")
	for name := range e.accounts {
		if states[name] != api.StateClear {
			t.Errorf("%s: %s, want clear: %+v", name, states[name], got.Providers)
		}
	}
	if left := e.holds("ada@example.com"); total(left) != 0 {
		t.Errorf("still held: %v", left)
	}
	if after := e.holds("grace@example.com"); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("somebody else was touched: %v, was %v", after, before)
	}
	if ids := e.items(); len(ids) != 0 {
		t.Errorf("under attention: %v", ids)
	}
	entries, err := e.store.Journal(t.Context(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	classes := map[string]int{}
	for _, x := range entries {
		if x.Call != nil {
			classes[x.Call.Class]++
			if x.Call.Person != got.Person || got.Person == "" {
				t.Errorf("a call is on record under %q, want %q", x.Call.Person, got.Person)
			}
		}
	}
	if classes["intended"] != 5 || classes["ok"] != 5 {
		t.Errorf("on record: %v, want 5 intents and 5 outcomes", classes)
	}
	if text, _ := json.Marshal(entries); strings.Contains(strings.ToLower(string(text)), "ada@") {
		t.Errorf("the record names her: %s", text)
	}
	st, err := e.store.State(t.Context(), "ada@example.com")
	if err != nil || st.Suppression == nil {
		t.Errorf("she may be written to, although she unsubscribed at a provider: %v %v", st.Suppression, err)
	}
	if again, states := e.forget("ada@example.com"); len(again.Providers) != 4 || slices.ContainsFunc(again.Providers, func(p api.AtProvider) bool { return len(p.Deleted) > 0 || states[p.Connector] != api.StateClear }) {
		t.Errorf("once more: %+v", again.Providers)
	}
}

// What ends in trouble is never called done: the account stands under attention, and the same command finishes it.
func TestForgetAtProvidersInTrouble(t *testing.T) {
	for _, f := range []struct {
		name  string
		fault sandbox.Fault
		// clear: an answer was lost, and the look afterwards says that it was done all the same.
		clear bool
	}{
		{"away", sandbox.Fault{Kind: sandbox.FaultOutage}, false},
		{"locked out", sandbox.Fault{Kind: sandbox.Fault401, Operation: "removeMembers"}, false},
		{"an answer is lost", sandbox.Fault{Kind: sandbox.FaultResetAfterEffect, Operation: "removeMembers"}, true},
		{"a request is lost", sandbox.Fault{Kind: sandbox.FaultReset, Operation: "removeMembers"}, false},
		{"the check fails", sandbox.Fault{Kind: sandbox.FaultHTML, Operation: "getEmailUnsubscribed"}, false},
	} {
		t.Run(f.name, func(t *testing.T) {
			e := newEverywhere(t)
			for name := range e.accounts {
				if name != "referralrock" {
					delete(e.accounts, name)
				}
			}
			e.call("referralrock", "createMember", map[string]any{"programId": "customers-2026", "firstName": "Ada", "email": "ada@example.com"})
			held := func() bool {
				return strings.Contains(string(e.call("referralrock", "listMembers", map[string]any{"query": "ada@example.com"})), "ada@")
			}
			if err := e.box.Fault(f.fault); err != nil {
				t.Fatal(err)
			}
			got, states := e.forget("ada@example.com")
			e.box.Clear()
			if f.clear {
				if states["referralrock"] != api.StateClear || held() {
					t.Errorf("%+v, still held %t", got.Providers, held())
				}
				return
			}
			if states["referralrock"] != api.StateRemains || got.Providers[0].Detail == "" {
				t.Errorf("%+v, want it to remain, with words", got.Providers)
			}
			list, _, err := e.store.Attention(t.Context(), 10)
			if err != nil || len(list) != 1 || strings.Contains(fmt.Sprintf("%+v %s", list, list[0].Data), "ada@") || !strings.Contains(list[0].Detail, "--providers") {
				t.Fatalf("under attention: %+v %v", list, err)
			}
			if err := e.accounts["referralrock"].Probe(t.Context()); err != nil { // what the worker does by itself
				t.Fatal(err)
			}
			if got, states = e.forget("ada@example.com"); states["referralrock"] != api.StateClear || held() || len(e.items()) != 0 {
				t.Errorf("once more: %+v, still held %t, under attention %v", got.Providers, held(), e.items())
			}
		})
	}
}

// A process that ends in the middle leaves every account that is not done under attention, whatever the provider
// did; the gate holds as for any call; and what was sent a moment ago is looked for later.
func TestForgetAtProvidersLeavesWord(t *testing.T) {
	e := newEverywhere(t)
	e.tell("ada@example.com")
	var left []string
	e.received = func(r sandbox.Received) {
		if r.Operation == "removeMembers" && left == nil {
			left = e.items() // what a process that ended here would leave
		}
	}
	e.forget("ada@example.com")
	if len(left) == 0 || !slices.ContainsFunc(left, func(id string) bool { return strings.HasPrefix(id, "forget/referralrock/") }) {
		t.Errorf("in the middle of it attention holds %v", left)
	}

	e.tell("kim@example.com")
	if err := e.client.Call(t.Context(), http.MethodPost, "/api/v1/pauses", nil, api.PauseScope{Scope: "all", By: "command"}, nil); err != nil {
		t.Fatal(err)
	}
	got, states := e.forget("kim@example.com")
	if states["saasquatch"] != api.StateRemains || total(e.holds("kim@example.com")) != 5 {
		t.Errorf("all is paused: %+v", got.Providers)
	}
}
