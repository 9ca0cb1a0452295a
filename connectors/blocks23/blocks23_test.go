package blocks23_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/blocks23"
	"github.com/lodestonehq/lodestone/connectors/connectortest"
)

var secrets = map[string]connectors.Secret{blocks23.Token: "tok-77aa+/19c3"}

const (
	made = `{"data": {"id": "r-1", "type": "referral", "attributes": {"unique_id": "r-1", "status": "pending", "metadata": {"lodestone_touchpoint": "e1.nudge"}}}}`
	none = `{"data": [], "meta": {"totalPages": 0, "totalRecords": 0}}`
)

// extra are the settings that are no secrets, with more on top.
func extra(more ...string) map[string]string {
	e := map[string]string{blocks23.AppID: "app-1", blocks23.Form: "form-1"}
	for i := 0; i+1 < len(more); i += 2 {
		e[more[i]] = more[i+1]
	}
	return e
}

func act(operation string, parameters map[string]any) connectors.Act {
	return connectors.Act{
		ID: "e1.nudge", Operation: operation, Email: "ada@example.com", Parameters: parameters,
		IntendedAt: time.Date(2026, 3, 6, 10, 10, 0, 700e6, time.UTC),
	}
}

func refer(more ...any) connectors.Act {
	p := map[string]any{"referrer_email": "ines@example.com"}
	for i := 0; i+1 < len(more); i += 2 {
		p[more[i].(string)] = more[i+1]
	}
	return act(lodestone.VerbRefer, p)
}

func TestConformance(t *testing.T) {
	connectortest.Run(t, connectortest.Case{
		Kind: blocks23.Kind(), Secrets: secrets, Extra: extra(blocks23.SubscriptionForm, "news"), Check: none,
		Acts: []connectortest.Act{
			{Act: refer(), Status: 201, Answer: made},
			{Act: act("createReferral", map[string]any{"referrer_email": "ines@example.com"}), Status: 200, Answer: made},
			{Act: act("updateReferral", map[string]any{"unique_id": "r-1", "status": "converted"}), Status: 200, Answer: made},
			{Act: act("deleteReferral", map[string]any{"unique_id": "r-1"}), Status: 204},
		},
	})
}

// seen is a request as the provider got it.
type seen struct {
	Method, Path, Query, Body                 string
	Authorization, AppID, APIKey, ContentType string
}

// provider keeps what it got.
type provider struct {
	url  string
	mu   sync.Mutex // guards what follows
	seen []seen
}

func (p *provider) all() []seen {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.seen)
}

func (p *provider) only(t *testing.T) seen {
	t.Helper()
	all := p.all()
	if len(all) != 1 {
		t.Fatalf("the provider got %d requests, want 1", len(all))
	}
	return all[0]
}

// serve answers every request in one way.
func serve(t *testing.T, status int, body string, e map[string]string) (*connectors.Account, *provider) {
	t.Helper()
	return handle(t, e, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

func handle(t *testing.T, e map[string]string, h http.HandlerFunc) (*connectors.Account, *provider) {
	t.Helper()
	p := &provider{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		p.mu.Lock()
		p.seen = append(p.seen, seen{
			r.Method, r.URL.EscapedPath(), r.URL.RawQuery, string(raw),
			r.Header.Get("Authorization"), r.Header.Get("AppId"), r.Header.Get("X-API-KEY"), r.Header.Get("Content-Type"),
		})
		p.mu.Unlock()
		h(w, r)
	}))
	t.Cleanup(srv.Close)
	p.url = srv.URL
	s := connectors.Settings{Extra: e, Rate: 10000}
	if e[blocks23.SubscriptionForm] == "" {
		s.Suppression = connectors.SuppressionLocalOnly
	}
	return p.open(t, s), p
}

// open makes an account at the provider.
func (p *provider) open(t *testing.T, s connectors.Settings) *connectors.Account {
	t.Helper()
	s.BaseURL, s.Secrets = p.url+"/sub", secrets
	a, err := connectors.Open(blocks23.Kind(), s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestWhatIsSent(t *testing.T) {
	key := map[string]any{"lodestone_touchpoint": "e1.nudge"}
	for _, c := range []struct {
		name         string
		extra        map[string]string
		act          connectors.Act
		status       int
		method, path string
		fields       map[string]any // of the referral; nil: no body
	}{
		{
			"refer", extra(), refer("referral_code", "INES1042", "referred_name", "Ada"), 201, "POST", "/sub/referrals/form-1/instances",
			map[string]any{"referrer_email": "ines@example.com", "referred_email": "ada@example.com", "referred_name": "Ada", "referral_code": "INES1042", "metadata": key},
		},
		{
			"refer by the SDK's names", extra(blocks23.FieldNames, blocks23.NamesSDK), refer("referred_name", "Ada"), 201, "POST", "/sub/referrals/form-1/instances",
			map[string]any{"referrer_email": "ines@example.com", "referee_email": "ada@example.com", "referee_name": "Ada", "data": key},
		},
		{
			"refer under the provider's own name", extra(), act("createReferral", map[string]any{"referrer_email": "ines@example.com"}), 201, "POST", "/sub/referrals/form-1/instances",
			map[string]any{"referrer_email": "ines@example.com", "referred_email": "ada@example.com", "metadata": key},
		},
		{
			"the address that the rule gives; nil is absent; numbers become texts", extra(), refer("email", "ada+work@example.com", "source", nil, "referrer_unique_id", 456.0), 201, "POST", "/sub/referrals/form-1/instances",
			map[string]any{"referrer_email": "ines@example.com", "referred_email": "ada+work@example.com", "referrer_unique_id": "456", "metadata": key},
		},
		{
			"a form whose id means something in a path", extra(blocks23.Form, "a/b?c#d"), refer(), 201, "POST", "/sub/referrals/a%2Fb%3Fc%23d/instances",
			map[string]any{"referrer_email": "ines@example.com", "referred_email": "ada@example.com", "metadata": key},
		},
		{
			"update", extra(), act("updateReferral", map[string]any{"unique_id": "r-1", "status": "converted", "reward_amount": 25.0, "referred_name": "Ada"}), 200, "PUT", "/sub/referrals/form-1/instances/r-1",
			map[string]any{"status": "converted", "reward_amount": 25.0, "referred_name": "Ada"},
		},
		{
			"update by the SDK's names", extra(blocks23.FieldNames, blocks23.NamesSDK), act("updateReferral", map[string]any{"unique_id": "r-1", "referred_name": "Ada"}), 200, "PUT", "/sub/referrals/form-1/instances/r-1",
			map[string]any{"referee_name": "Ada"},
		},
		{"delete", extra(), act("deleteReferral", map[string]any{"unique_id": "r-1"}), 204, "DELETE", "/sub/referrals/form-1/instances/r-1", nil},
		{"get", extra(), act("getReferral", map[string]any{"unique_id": "r-1"}), 200, "GET", "/sub/referrals/form-1/instances/r-1", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, p := serve(t, c.status, made, c.extra)
			if _, err := a.Do(t.Context(), c.act); err != nil {
				t.Fatal(err)
			}
			got := p.only(t)
			want := seen{Method: c.method, Path: c.path, Authorization: "Bearer " + secrets[blocks23.Token].Reveal(), AppID: "app-1"}
			if c.fields != nil {
				want.ContentType = "application/json"
				var body map[string]any
				if err := json.Unmarshal([]byte(got.Body), &body); err != nil || !reflect.DeepEqual(body, map[string]any{"referral": c.fields}) {
					t.Errorf("body = %s (%v), want the referral %v", got.Body, err, c.fields)
				}
				got.Body = ""
			}
			if got != want {
				t.Errorf("request = %+v, want %+v", got, want)
			}
		})
	}
}

func TestAppIDHeader(t *testing.T) {
	a, p := serve(t, 201, made, extra(blocks23.AppIDHeader, "X-API-KEY"))
	if _, err := a.Do(t.Context(), refer()); err != nil {
		t.Fatal(err)
	}
	if got := p.only(t); got.APIKey != "app-1" || got.AppID != "" {
		t.Errorf("X-API-KEY = %q, AppId = %q; want app-1 in the first alone", got.APIKey, got.AppID)
	}
}

func TestActsThatCannotBeSent(t *testing.T) {
	for _, c := range []struct {
		name string
		act  connectors.Act
		says string
	}{
		{"required parameter absent", act(lodestone.VerbRefer, nil), "referrer_email"},
		{"required parameter empty", act("deleteReferral", map[string]any{"unique_id": ""}), "unique_id"},
		{"the referrer's address is none", refer("referrer_email", "Ines"), "referrer_email must be an email address"},
		{"the lead's address goes by email", refer("referred_email", "eve@example.com"), "referred_email"},
		{"a reward is none of refer's business", refer("reward_status", "paid"), "reward_status"},
		{"metadata is ours", refer("metadata", "x"), "metadata"},
		{"text for a number", act("updateReferral", map[string]any{"unique_id": "r-1", "reward_amount": "much"}), "reward_amount must be a number"},
		{"value of no type that JSON has here", refer("source", []string{"a"}), "source"},
		{"nothing to change", act("updateReferral", map[string]any{"unique_id": "r-1"}), "nothing to change"},
		{"an id that climbs out of the path", act("deleteReferral", map[string]any{"unique_id": ".."}), "unique_id"},
		{"an id that stays where it is", act("deleteReferral", map[string]any{"unique_id": "."}), "unique_id"},
		{"half a page", act("listReferrals", map[string]any{"page": 1.5}), "whole numbers"},
		{"invite is not offered", act(lodestone.VerbInvite, nil), "no such operation"},
		{"subscriptions of no form", act("listSubscriptions", nil), "subscription_form_unique_id"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, p := serve(t, 200, made, extra())
			_, err := a.Do(t.Context(), c.act)
			var f *connectors.Fault
			if !errors.As(err, &f) || f.Class != connectors.Refused || f.Reason != lodestone.ReasonBadParameters || f.CountsAttempt || !strings.Contains(f.Detail, c.says) {
				t.Errorf("Do = %v, want a refusal for bad parameters that says %q", err, c.says)
			}
			if n := len(p.all()); n != 0 {
				t.Errorf("the provider got %d requests, want none", n)
			}
		})
	}
}

func TestAnswersToActs(t *testing.T) {
	update, remove := act("updateReferral", map[string]any{"unique_id": "r-1", "status": "converted"}), act("deleteReferral", map[string]any{"unique_id": "r-1"})
	get, list := act("getReferral", map[string]any{"unique_id": "r-1"}), act("listReferrals", map[string]any{"page": 2.0, "records": 20.0})
	const keyless = "status pending; the answer does not repeat our key, without which a look-up cannot find it"
	for _, c := range []struct {
		name      string
		act       connectors.Act
		status    int
		body      string
		class     connectors.Class // empty: done
		reference string
		detail    string
	}{
		{"referred", refer(), 201, made, "", "r-1", "status pending"},
		{"referred, 200", refer(), 200, made, "", "r-1", "status pending"},
		{"referred, the key in the SDK's field", refer(), 201, `{"data": {"id": "r-1", "attributes": {"data": {"lodestone_touchpoint": "e1.nudge"}}}}`, "", "r-1", "status not given"},
		{"referred, and the key was dropped", refer(), 201, `{"data": {"id": "r-1", "attributes": {"status": "pending", "metadata": null}}}`, "", "r-1", keyless},
		{"the id stands among the attributes alone", refer(), 201, `{"data": {"attributes": {"unique_id": "r-1", "status": "pending"}}}`, "", "r-1", keyless},
		{"odd values that nobody needs", refer(), 201, `{"data": {"id": 7, "attributes": {"status": "pending", "reward_amount": [], "metadata": "x", "created_at": 5}}}`, "", "7", keyless},
		{"two ids that differ", refer(), 201, `{"data": {"id": "r-1", "attributes": {"unique_id": "r-2"}}}`, connectors.Unknown, "", ""},
		{"no id", refer(), 201, `{"data": {"type": "referral", "attributes": {}}}`, connectors.Unknown, "", ""},
		{"a list", refer(), 201, `{"data": [{"id": "r-1"}]}`, connectors.Unknown, "", ""},
		{"errors in a success", refer(), 200, `{"errors": [{"status": "422", "detail": "no"}]}`, connectors.Unknown, "", ""},
		{"a body with a fault", refer(), 422, `{"errors": [{"status": "422", "code": "validation_error", "title": "Validation failed", "detail": "Referred email is missing"}]}`, connectors.Refused, "", "Referred email is missing; Validation failed"},
		{"there already", refer(), 409, `{"errors": [{"status": "409", "code": "already_exists", "detail": "Referral already exists"}]}`, connectors.Refused, "", "Referral already exists"},
		{"a plain error", refer(), 400, `{"error": "bad_request", "message": "No"}`, connectors.Refused, "", "No; bad_request"},

		{"changed", update, 200, made, "", "r-1", "status pending"},
		{"another one was changed", update, 200, strings.ReplaceAll(made, "r-1", "r-2"), connectors.Unknown, "", ""},
		{"changed, without a body", update, 204, "", connectors.Unknown, "", ""},
		{"gone", update, 404, `{"errors": [{"code": "not_found", "detail": "No such referral"}]}`, connectors.Refused, "", "No such referral"},

		{"deleted", remove, 204, "", "", "r-1", "deleted"},
		{"deleted, in other words", remove, 200, `{}`, connectors.Unknown, "", ""},

		{"read", get, 200, `{"data": {"id": "r-1", "attributes": {"status": "converted", "reward_status": "paid"}}}`, "", "r-1", "status converted, reward paid"},
		{"another one was read", get, 200, strings.ReplaceAll(made, "r-1", "r-2"), connectors.Failed, "", ""},
		{"listed", list, 200, `{"data": [{"id": "r-1"}, 7], "meta": {"totalRecords": 22}}`, "", "", "2 referrals on this page, 22 in all"},
		{"listed, without counts", list, 200, `{"data": []}`, "", "", "0 referrals on this page"},
		{"no list", list, 200, `{"data": {}}`, connectors.Failed, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, _ := serve(t, c.status, c.body, extra())
			r, err := a.Do(t.Context(), c.act)
			if c.class == "" {
				if want := (connectors.Receipt{Reference: c.reference, Detail: c.detail, Status: c.status}); err != nil || r != want {
					t.Errorf("Do = %+v, %v; want %+v", r, err, want)
				}
				return
			}
			var f *connectors.Fault
			if !errors.As(err, &f) || f.Class != c.class || c.detail != "" && f.Detail != c.detail {
				t.Errorf("Do = %v, want class %s, detail %q", err, c.class, c.detail)
			}
		})
	}
}

func TestSettings(t *testing.T) {
	for _, c := range []struct {
		name        string
		extra       map[string]string
		suppression string
		says        []string // nothing: accepted
	}{
		{"the local list alone", extra(), connectors.SuppressionLocalOnly, nil},
		{"a form of subscriptions", extra(blocks23.SubscriptionForm, "news"), connectors.SuppressionProvider, nil},
		{"a form of subscriptions, and nothing said", extra(blocks23.SubscriptionForm, "news"), "", nil},
		{"both", extra(blocks23.SubscriptionForm, "news"), connectors.SuppressionLocalOnly, nil},
		{"nothing said", extra(), "", []string{"suppression", "local-only", "subscription_form"}},
		{"nobody to ask", extra(), connectors.SuppressionProvider, []string{"suppression"}},
		{"everything missing, all at once", nil, "", []string{"app_id is missing", "form is missing", "suppression"}},
		{"a form that is none", extra(blocks23.Form, ".."), connectors.SuppressionLocalOnly, []string{"form is not"}},
		{"a form of subscriptions that is none", extra(blocks23.SubscriptionForm, "."), "", []string{"subscription_form is not"}},
		{"names that nobody has", extra(blocks23.FieldNames, "ours"), connectors.SuppressionLocalOnly, []string{"field_names must be documented or sdk"}},
		{"a header that nobody has", extra(blocks23.AppIDHeader, "Host"), connectors.SuppressionLocalOnly, []string{"app_id_header"}},
		{"an app id of two lines", extra(blocks23.AppID, "a\nb"), connectors.SuppressionLocalOnly, []string{"app_id holds"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := connectors.Open(blocks23.Kind(), connectors.Settings{Secrets: secrets, Extra: c.extra, Suppression: c.suppression})
			if (err == nil) != (len(c.says) == 0) {
				t.Fatalf("Open = %v, want an error that says %q", err, c.says)
			}
			for _, s := range c.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("Open = %v, want it to say %q", err, s)
				}
			}
		})
	}
}

func TestCapabilities(t *testing.T) {
	local, _ := serve(t, 200, none, extra())
	asked, _ := serve(t, 200, none, extra(blocks23.SubscriptionForm, "news"))
	if local.Capabilities().Check || !asked.Capabilities().Check {
		t.Errorf("Check = %t without a form of subscriptions and %t with one, want false and true", local.Capabilities().Check, asked.Capabilities().Check)
	}
	if got := local.Capabilities().Verbs; !slices.Equal(got, []string{lodestone.VerbRefer}) {
		t.Errorf("Verbs = %v, want refer alone", got)
	}
	if s, err := local.Unsubscribed(t.Context(), "ada@example.com"); err != nil || s.Kind != connectors.SuppressionLocalOnly {
		t.Errorf("Unsubscribed = %+v, %v; want the local list alone", s, err)
	}
}

func TestProbe(t *testing.T) {
	a, p := serve(t, 200, none, extra())
	if err := a.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := p.only(t); got.Method != "GET" || got.Path != "/sub/referrals/form-1/instances" || got.Query != "page=1&records=1" {
		t.Errorf("request = %+v, want one referral to be asked for", got)
	}
}

// What rules may set follows from the provider's description.
func TestOperations(t *testing.T) {
	want := map[string]struct {
		effect     lodestone.Effect
		parameters string
	}{
		"refer":          {lodestone.EffectWrite, "referrer_email! email referral_code referred_name referrer_name referrer_unique_id source"},
		"createReferral": {lodestone.EffectWrite, "referrer_email! email referral_code referred_name referrer_name referrer_unique_id source"},
		"updateReferral": {lodestone.EffectPay, "unique_id! referred_name referrer_name reward_amount reward_status source status"},
		"deleteReferral": {lodestone.EffectDestroy, "unique_id!"},
		"getReferral":    {lodestone.EffectRead, "unique_id!"},
		"listReferrals":  {lodestone.EffectRead, "page records referrer_unique_id sort status"},
	}
	k := blocks23.Kind()
	if len(k.Operations) != len(want) {
		t.Errorf("%d operations, want %d", len(k.Operations), len(want))
	}
	for name, w := range want {
		op, ok := k.Operation(name)
		var names []string
		for _, p := range op.Parameters {
			if p.Required {
				p.Name += "!"
			}
			names = append(names, p.Name)
		}
		if got := strings.Join(names, " "); !ok || got != w.parameters || op.Effect != w.effect {
			t.Errorf("%s takes %s with effect %s; want %s with %s", name, got, op.Effect, w.parameters, w.effect)
		}
	}
}

// Every operation of the specification can be called with the arguments that it lists; the forms are
// the settings'.
func TestCatalogue(t *testing.T) {
	e := extra(blocks23.SubscriptionForm, "news")
	for _, c := range []struct {
		operation    string
		arguments    map[string]any
		method, path string
		query, body  string
	}{
		{"createReferral", map[string]any{"referral": map[string]any{"referrer_email": "i@example.com", "referred_email": "a@example.com"}}, "POST", "/sub/referrals/form-1/instances", "", `{"referral":{"referred_email":"a@example.com","referrer_email":"i@example.com"}}`},
		{"updateReferral", map[string]any{"unique_id": "r/1", "referral": map[string]any{"status": "expired"}}, "PUT", "/sub/referrals/form-1/instances/r%2F1", "", `{"referral":{"status":"expired"}}`},
		{"deleteReferral", map[string]any{"unique_id": "r-1"}, "DELETE", "/sub/referrals/form-1/instances/r-1", "", ""},
		{"getReferral", map[string]any{"unique_id": "r-1"}, "GET", "/sub/referrals/form-1/instances/r-1", "", ""},
		{"listReferrals", map[string]any{"page": 2, "records": 20}, "GET", "/sub/referrals/form-1/instances", "page=2&records=20", ""},
		{"getSubscription", map[string]any{"unique_id": "s-1"}, "GET", "/sub/subscriptions/news/instances/s-1", "", ""},
		{"listSubscriptions", nil, "GET", "/sub/subscriptions/news/instances", "", ""},
	} {
		t.Run(c.operation, func(t *testing.T) {
			a, p := serve(t, 200, made, e)
			if _, err := a.Call(t.Context(), c.operation, c.arguments); err != nil {
				t.Fatal(err)
			}
			got := p.only(t)
			want := seen{Method: c.method, Path: c.path, Query: c.query, Body: c.body, Authorization: "Bearer " + secrets[blocks23.Token].Reveal(), AppID: "app-1"}
			if c.body != "" {
				want.ContentType = "application/json"
			}
			if got != want {
				t.Errorf("request = %+v, want %+v", got, want)
			}
		})
	}
	for _, c := range []struct {
		name, operation string
		extra           map[string]string
		arguments       map[string]any
		says            string
	}{
		{"another form", "listReferrals", e, map[string]any{"form_unique_id": "form-2"}, "form_unique_id is given by the settings"},
		{"subscriptions of no form", "listSubscriptions", extra(), nil, "subscription_form_unique_id"},
		{"a referral of nobody", "createReferral", e, map[string]any{"referral": map[string]any{"referrer_email": "i@example.com"}}, "referred_email"},
		{"an id that climbs out of the path", "deleteReferral", e, map[string]any{"unique_id": ".."}, "unique_id"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, p := serve(t, 200, made, c.extra)
			_, err := a.Call(t.Context(), c.operation, c.arguments)
			var wrong *connectors.ArgumentError
			if !errors.As(err, &wrong) || !strings.Contains(err.Error(), c.says) || len(p.all()) != 0 {
				t.Errorf("Call = %v after %d requests, want wrong arguments that name %q", err, len(p.all()), c.says)
			}
		})
	}
}

// Whatever stands in both, a rule need not name the form.
func TestRulesNeedNoForm(t *testing.T) {
	for _, op := range blocks23.Kind().RuleOperations() {
		for _, p := range op.Parameters {
			if p.Required && strings.HasSuffix(p.Name, "form_unique_id") {
				t.Errorf("%s requires %s, which the settings give", op.Name, p.Name)
			}
		}
	}
}

func TestSpecificationIsACopy(t *testing.T) {
	a := blocks23.Specification()
	a[0] = '!'
	if b := blocks23.Specification(); b[0] == '!' || !strings.Contains(string(b), "openapi: 3.0.3") {
		t.Error("Specification hands out its own bytes")
	}
}
