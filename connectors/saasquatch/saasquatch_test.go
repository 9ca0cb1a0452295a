package saasquatch_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/connectortest"
	"github.com/lodestonehq/lodestone/connectors/saasquatch"
)

var (
	secrets = map[string]connectors.Secret{saasquatch.APIKey: "TEST-5f0d+/2c1b9a77"}
	extra   = map[string]string{saasquatch.Tenant: "test_abc123"}
)

const (
	ada     = "ada@example.com"
	adaPath = "/sub/test_abc123/open/account/ada@example.com/user/ada@example.com"
)

// shown is a user as the provider shows one; codes is JSON, empty for none at all.
func shown(email, codes string) string {
	if codes != "" {
		codes = `, "referredByCodes": ` + codes
	}
	return `{"id": "` + email + `", "accountId": "` + email + `", "email": "` + email + `"` + codes + `}`
}

func act(operation string, parameters map[string]any) connectors.Act {
	return connectors.Act{
		ID: "e1.nudge", Operation: operation, Email: ada, Parameters: parameters,
		IntendedAt: time.Date(2026, 3, 6, 10, 10, 0, 0, time.UTC),
	}
}

func refer(parameters map[string]any) connectors.Act { return act(lodestone.VerbRefer, parameters) }

func simple() connectors.Act { return refer(map[string]any{"referredByCodes": "INES1042"}) }

func TestConformance(t *testing.T) {
	connectortest.Run(t, connectortest.Case{
		Kind:    saasquatch.Kind(),
		Secrets: secrets,
		Extra:   extra,
		Acts: []connectortest.Act{
			{Act: simple(), Status: 200, Answer: shown(ada, `["INES1042"]`)},
			{Act: act("openApplyCode", map[string]any{"code": "INES1042"}), Status: 200, Answer: `{"code": "INES1042"}`},
		},
	})
}

// seen is a request as the provider got it.
type seen struct {
	Method, Path, Query, Body string
	User, Password            string
	ContentType               string
}

// provider answers each request with the next of its answers, the last for ever, and keeps what it got.
type provider struct {
	mu      sync.Mutex // guards what follows
	seen    []seen
	answers []answer
}

type answer struct {
	status int
	body   string
}

func serve(t *testing.T, answers ...answer) (*connectors.Account, *provider) {
	t.Helper()
	return serveAs(t, extra, answers...)
}

func serveAs(t *testing.T, extra map[string]string, answers ...answer) (*connectors.Account, *provider) {
	t.Helper()
	p := &provider{answers: answers}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		user, password, _ := r.BasicAuth()
		p.mu.Lock()
		p.seen = append(p.seen, seen{r.Method, r.URL.EscapedPath(), r.URL.RawQuery, string(raw), user, password, r.Header.Get("Content-Type")})
		a := p.answers[0]
		if len(p.answers) > 1 {
			p.answers = p.answers[1:]
		}
		p.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(a.status)
		_, _ = io.WriteString(w, a.body)
	}))
	t.Cleanup(srv.Close)
	a, err := connectors.Open(saasquatch.Kind(), connectors.Settings{
		BaseURL: srv.URL + "/sub", Secrets: secrets, Extra: extra, Rate: 10000, Suppression: connectors.SuppressionLocalOnly,
	})
	if err != nil {
		t.Fatal(err)
	}
	return a, p
}

func (p *provider) got() []seen {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.seen)
}

func (p *provider) only(t *testing.T) seen {
	t.Helper()
	got := p.got()
	if len(got) != 1 {
		t.Fatalf("the provider got %d requests, want 1", len(got))
	}
	return got[0]
}

func example(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func object(t *testing.T, text string) (v map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

func TestWhatIsSent(t *testing.T) {
	const event = `{"events": [{"id": "ev-1"}]}`
	long := act("trackEvent", map[string]any{"key": "won"})
	long.ID = strings.Repeat("enrollment/", 12) + ".step"
	for _, c := range []struct {
		name         string
		act          connectors.Act
		answer       string
		method, path string
		body         string // JSON; empty: none
	}{
		{
			"the person's path is the address", simple(), shown(ada, `["INES1042"]`), "PUT", adaPath,
			`{"id": "ada@example.com", "accountId": "ada@example.com", "email": "ada@example.com", "referredByCodes": ["INES1042"]}`,
		},
		{
			"all that a rule may say", refer(map[string]any{
				"referredByCodes": " INES1042, ADA2026,INES1042,", "firstName": "Ada", "lastName": "Lovelace", "locale": "en_US",
				"countryCode": "GB", "segments": "vip,~new", "cookies": "c", "dateUsTaxFormSubmitted": 1780396260000.0,
			}),
			shown(ada, `["INES1042", "ADA2026"]`), "PUT", adaPath,
			`{"id": "ada@example.com", "accountId": "ada@example.com", "email": "ada@example.com", "referredByCodes": ["INES1042", "ADA2026"], "firstName": "Ada",
			  "lastName": "Lovelace", "locale": "en_US", "countryCode": "GB", "segments": ["vip", "~new"], "cookies": "c", "dateUsTaxFormSubmitted": 1780396260000}`,
		},
		{
			"nil is absent, a code of digits a text", refer(map[string]any{"referredByCodes": 1042.0, "firstName": nil, "segments": ""}), shown(ada, `["1042"]`), "PUT", adaPath,
			`{"id": "ada@example.com", "accountId": "ada@example.com", "email": "ada@example.com", "referredByCodes": ["1042"]}`,
		},
		{
			"the address that the rule gives, in one form", refer(map[string]any{"referredByCodes": "A", "email": " Ada+Work@Example.COM "}), shown("ada+work@example.com", `["A"]`),
			"PUT", "/sub/test_abc123/open/account/ada+work@example.com/user/ada+work@example.com",
			`{"id": "ada+work@example.com", "accountId": "ada+work@example.com", "email": "ada+work@example.com", "referredByCodes": ["A"]}`,
		},
		{
			"an address that looks like a path", refer(map[string]any{"referredByCodes": "A", "email": "a/../b?c#d%2f@example.com"}), shown("a/../b?c#d%2f@example.com", `["A"]`),
			"PUT", "/sub/test_abc123/open/account/a%2F..%2Fb%3Fc%23d%252f@example.com/user/a%2F..%2Fb%3Fc%23d%252f@example.com",
			`{"id": "a/../b?c#d%2f@example.com", "accountId": "a/../b?c#d%2f@example.com", "email": "a/../b?c#d%2f@example.com", "referredByCodes": ["A"]}`,
		},
		{
			"a code applied", act("openApplyCode", map[string]any{"code": "IN/ES"}), `{"code": "IN/ES"}`,
			"POST", "/sub/test_abc123/open/code/IN%2FES/account/ada@example.com/user/ada@example.com", "",
		},
		{
			"a code applied to another", act("openApplyCode", map[string]any{"code": "A", "accountId": "acme", "userId": 7.0}), `{"code": "A"}`,
			"POST", "/sub/test_abc123/open/code/A/account/acme/user/7", "",
		},
		{
			"an event, under the touchpoint's id", act("trackEvent", map[string]any{"key": "won", "fields": `{"total": 49.9}`, "dateTriggered": 1780650000000.0}), event, "POST", adaPath + "/events",
			`{"userId": "ada@example.com", "accountId": "ada@example.com", "idempotencyKey": "e1.nudge", "events": [{"key": "won", "fields": {"total": 49.9}, "dateTriggered": 1780650000000}]}`,
		},
		{
			"an event, under the rule's key", act("trackEvent", map[string]any{"key": "won", "idempotencyKey": "order-2026-1"}), event, "POST", adaPath + "/events",
			`{"userId": "ada@example.com", "accountId": "ada@example.com", "idempotencyKey": "order-2026-1", "events": [{"key": "won"}]}`,
		},
		{
			"an event of a touchpoint whose id is no key", long, event, "POST", adaPath + "/events",
			`{"userId": "ada@example.com", "accountId": "ada@example.com", "idempotencyKey": "lodestone.a08e89df1fbe89689c96e36a902726", "events": [{"key": "won"}]}`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, p := serve(t, answer{200, c.answer})
			if _, err := a.Do(t.Context(), c.act); err != nil {
				t.Fatal(err)
			}
			got := p.only(t)
			want := seen{Method: c.method, Path: c.path, Password: secrets[saasquatch.APIKey].Reveal()}
			if c.body != "" {
				want.ContentType = "application/json"
				if g, w := object(t, got.Body), object(t, c.body); !reflect.DeepEqual(g, w) {
					t.Errorf("body = %v, want %v", g, w)
				}
				got.Body = ""
			}
			if got != want {
				t.Errorf("request = %+v, want %+v", got, want)
			}
		})
	}
}

// A repeat of a touchpoint must meet the first under the same key, also after another release.
func TestTheSameTouchpointHasTheSameKey(t *testing.T) {
	keys := map[string]string{}
	for _, id := range []string{"e1.nudge", "e1", "e1.nüdge", strings.Repeat("x", 64), strings.Repeat("x", 65)} {
		for range 2 {
			a, p := serve(t, answer{200, `{"events": [{"id": "ev-1"}]}`})
			track := act("trackEvent", map[string]any{"key": "won"})
			track.ID = id
			if _, err := a.Do(t.Context(), track); err != nil {
				t.Fatal(err)
			}
			key, _ := object(t, p.only(t).Body)["idempotencyKey"].(string)
			if old, again := keys[id]; again && old != key || len(key) < 8 || len(key) > 64 {
				t.Errorf("%q has the key %q, then %q", id, old, key)
			}
			keys[id] = key
		}
	}
	distinct := map[string]bool{}
	for _, k := range keys {
		distinct[k] = true
	}
	if len(distinct) != len(keys) {
		t.Errorf("%d touchpoints have %d keys", len(keys), len(distinct))
	}
}

func TestWhereTheKeyGoes(t *testing.T) {
	key := secrets[saasquatch.APIKey].Reveal()
	for as, want := range map[string][2]string{"": {"", key}, saasquatch.AsPassword: {"", key}, saasquatch.AsUser: {key, ""}} {
		a, p := serveAs(t, map[string]string{saasquatch.Tenant: "test_abc123", saasquatch.APIKeyAs: as}, answer{200, shown(ada, `["INES1042"]`)})
		if _, err := a.Do(t.Context(), simple()); err != nil {
			t.Fatal(err)
		}
		if got := p.only(t); got.User != want[0] || got.Password != want[1] {
			t.Errorf("api_key_as %q: user %q, password %q; want %q", as, got.User, got.Password, want)
		}
	}
}

func TestSettings(t *testing.T) {
	for _, c := range []struct {
		name  string
		extra map[string]string
		set   func(*connectors.Settings)
		says  string // empty: they are good
	}{
		{"good", extra, nil, ""},
		{"the provider's own address is known", extra, func(s *connectors.Settings) { s.BaseURL = "" }, ""},
		{"no tenant", nil, nil, "tenant is missing"},
		{"a blank tenant", map[string]string{"tenant": " "}, nil, "tenant is missing"},
		{"a tenant with its path", map[string]string{"tenant": "api/v1/test"}, nil, "alias alone"},
		{"a tenant of dots", map[string]string{"tenant": ".."}, nil, "alias alone"},
		{"a key in no half", map[string]string{"tenant": "t", "api_key_as": "header"}, nil, "api_key_as"},
		{"a setting of another connector", map[string]string{"tenant": "t", "campaign_id": "7"}, nil, "campaign_id"},
		{"no key", extra, func(s *connectors.Settings) { s.Secrets = nil }, "api_key"},
		{"suppression not said", extra, func(s *connectors.Settings) { s.Suppression = "" }, "suppression: local-only"},
		{"suppression that the provider cannot give", extra, func(s *connectors.Settings) { s.Suppression = connectors.SuppressionProvider }, "suppression: local-only"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := connectors.Settings{BaseURL: "https://provider.example", Secrets: secrets, Extra: c.extra, Suppression: connectors.SuppressionLocalOnly}
			if c.set != nil {
				c.set(&s)
			}
			_, err := connectors.Open(saasquatch.Kind(), s)
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("Open = %v, want an error that says %q", err, c.says)
			}
			if err != nil && strings.Contains(err.Error(), secrets[saasquatch.APIKey].Reveal()) {
				t.Error("the error holds the key")
			}
		})
	}
}

func TestActsThatCannotBeSent(t *testing.T) {
	for _, c := range []struct {
		name string
		act  connectors.Act
		says string
	}{
		{"no code", refer(nil), "referredByCodes"},
		{"an empty code", refer(map[string]any{"referredByCodes": " , "}), "referredByCodes"},
		{"a parameter that is none", refer(map[string]any{"referredByCodes": "A", "referralCode": "A"}), "referralCode"},
		{"an account of the rule's own", refer(map[string]any{"referredByCodes": "A", "accountId": "acme"}), "accountId"},
		{"keeping the person from being referred", refer(map[string]any{"referredByCodes": "A", "referable": false}), "referable"},
		{"an address that is none", refer(map[string]any{"referredByCodes": "A", "email": "ada"}), "email"},
		{"a list", refer(map[string]any{"referredByCodes": []string{"A"}}), "referredByCodes"},
		{"a date in words", refer(map[string]any{"referredByCodes": "A", "dateUsTaxFormSubmitted": "today"}), "dateUsTaxFormSubmitted"},
		{"a date with a fraction", refer(map[string]any{"referredByCodes": "A", "dateUsTaxFormSubmitted": 0.5}), "dateUsTaxFormSubmitted"},
		{"an event without a name", act("trackEvent", nil), "key"},
		{"fields that are no object", act("trackEvent", map[string]any{"key": "a", "fields": "[1]"}), "fields"},
		{"fields that are null", act("trackEvent", map[string]any{"key": "a", "fields": "null"}), "fields"},
		{"an idempotency key that is none", act("trackEvent", map[string]any{"key": "a", "idempotencyKey": "short"}), "idempotencyKey"},
		{"no code to apply", act("openApplyCode", nil), "code"},
		{"a code that is another path", act("openApplyCode", map[string]any{"code": ".."}), "dots"},
		{"a user that is another path", act("openApplyCode", map[string]any{"code": "A", "userId": ".."}), "dots"},
		{"there is no invite", act(lodestone.VerbInvite, nil), "no such operation"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, p := serve(t, answer{200, shown(ada, `["A"]`)})
			_, err := a.Do(t.Context(), c.act)
			var f *connectors.Fault
			if !errors.As(err, &f) || f.Class != connectors.Refused || f.Reason != lodestone.ReasonBadParameters || f.CountsAttempt || !strings.Contains(f.Detail, c.says) {
				t.Errorf("Do = %v, want a refusal for bad parameters that names %q", err, c.says)
			}
			if n := len(p.got()); n != 0 {
				t.Errorf("the provider got %d requests, want none", n)
			}
		})
	}
}

func TestAnswersToActs(t *testing.T) {
	apply, track := act("openApplyCode", map[string]any{"code": "INES1042"}), act("trackEvent", map[string]any{"key": "won"})
	tomas := refer(map[string]any{"referredByCodes": "INES1042", "email": "tomas.blei@example.com"})
	for _, c := range []struct {
		name      string
		act       connectors.Act
		status    int
		body      string
		class     connectors.Class // empty: done
		reference string
		detail    string // part of it
	}{
		{"the example", tomas, 200, example(t, "openUserUpsert.200"), "", "", "referred by the code"},
		{"201 is done too", simple(), 201, shown(ada, `["INES1042"]`), "", "", "referred by the code"},
		{"the code in other letters, among others", simple(), 200, shown(ada, `["ADA2026", " ines1042"]`), "", "", "referred by the code"},
		{"ids in other letters", simple(), 200, strings.ToUpper(shown(ada, `["INES1042"]`)), "", "", "referred by the code"},
		{"odd values that nobody needs", simple(), 200, `{"id": "ada@example.com", "accountId": "ada@example.com", "dateCreated": "x", "segments": 7, "referredByCodes": ["INES1042", 7, null]}`, "", "", "referred by the code"},
		{"another code", simple(), 200, shown(ada, `["ADA2026"]`), connectors.Refused, "", "referred already, with another code"},
		{"one of two codes", refer(map[string]any{"referredByCodes": "INES1042,ADA2026"}), 200, shown(ada, `["ADA2026"]`), connectors.Refused, "", "with another code"},
		{"no code yet", simple(), 200, shown(ada, `[]`), connectors.Unknown, "", "does not show the code"},
		{"codes not told", simple(), 200, shown(ada, ``), connectors.Unknown, "", "does not show the code"},
		{"codes that are null", simple(), 200, shown(ada, `null`), connectors.Unknown, "", "does not show the code"},
		{"codes that are no list", simple(), 200, shown(ada, `"INES1042"`), connectors.Unknown, "", "not the JSON"},
		{"another user", simple(), 200, shown("bob@example.com", `["INES1042"]`), connectors.Unknown, "", "another user"},
		{"another account", simple(), 200, `{"id": "ada@example.com", "accountId": "acme", "referredByCodes": ["INES1042"]}`, connectors.Unknown, "", "another user"},
		{"no user", simple(), 200, `{"referredByCodes": ["INES1042"]}`, connectors.Unknown, "", "no user"},
		{"an error with a 200", simple(), 200, example(t, "openGetUser.404"), connectors.Unknown, "", "no user"},
		{"a code that nobody has", simple(), 400, `{"statusCode": 400, "message": "Invalid referral code.", "apiErrorCode": "X", "rsCode": "RS034"}`, connectors.Refused, "", "Invalid referral code."},
		{"endpoint off", simple(), 403, example(t, "openUserUpsert.403"), connectors.LockedOut, "", "Endpoint disabled."},
		{"wrong tenant", simple(), 404, example(t, "listReferrals.default.tenant"), connectors.Refused, "", "Missing or invalid tenant alias."},
		{"a conflict means nothing here", simple(), 409, ``, connectors.Refused, "", "Conflict"},

		{"applied", apply, 200, example(t, "openApplyCode.200"), "", "INES1042", "applied"},
		{"applied without a code", apply, 200, `{}`, connectors.Unknown, "", "names no code"},
		{"referred already", apply, 400, `{"message": "The account has been referred already."}`, connectors.Refused, "", "referred already"},

		{"tracked", track, 200, example(t, "trackEvent.200"), "", "5bb3978dbd8bfe821a5f26f3", ""},
		{"an event's id that is a number", track, 200, `{"events": [{"id": 77}]}`, "", "77", ""},
		{"tracked before", track, 409, ``, "", "", "has the event already"},
		{"tracked before, in words", track, 409, `{"message": "used"}`, "", "", "has the event already"},
		{"no event stored", track, 200, `{"events": []}`, connectors.Unknown, "", "no event"},
		{"no events told", track, 200, `{}`, connectors.Unknown, "", "no event"},
		{"nobody there", track, 404, example(t, "openGetUser.404"), connectors.Refused, "", "No user found"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, p := serve(t, answer{c.status, c.body})
			r, err := a.Do(t.Context(), c.act)
			p.only(t)
			if c.class == "" {
				if err != nil || r.Status != c.status || r.Reference != c.reference || !strings.Contains(r.Detail, c.detail) {
					t.Errorf("Do = %+v, %v; want %d, %q, %q", r, err, c.status, c.reference, c.detail)
				}
				return
			}
			var f *connectors.Fault
			if !errors.As(err, &f) || f.Class != c.class || !strings.Contains(f.Detail, c.detail) {
				t.Errorf("Do = %v, want class %s, detail %q", err, c.class, c.detail)
			}
		})
	}
}

func TestFind(t *testing.T) {
	const none = `{"count": 0, "totalCount": 0, "referrals": []}`
	list := func(total int, referrals ...string) string {
		raw, _ := json.Marshal(total)
		return `{"count": 1, "totalCount": ` + string(raw) + `, "referrals": [` + strings.Join(referrals, ",") + `]}`
	}
	referral := func(email, code string) string {
		return `{"id": "r-1", "referralCodeUsed": "` + code + `", "referredUser": ` + shown(email, ``) + `}`
	}
	apply := act("openApplyCode", map[string]any{"code": "INES1042"})
	for _, c := range []struct {
		name    string
		act     connectors.Act
		answers []answer
		want    connectors.FindingState // empty: an error
		says    string
	}{
		{"no such user", simple(), []answer{{404, example(t, "openGetUser.404")}}, connectors.Absent, "no such user"},
		{"by the second word alone", simple(), []answer{{404, `{"rsCode": "RS042"}`}}, connectors.Absent, "no such user"},
		{"a wrong tenant is no word about the user", simple(), []answer{{404, example(t, "listReferrals.default.tenant")}}, connectors.Unclear, "404"},
		{"a 404 of something else", simple(), []answer{{404, `{"code": 404, "message": "HTTP 404 Not Found"}`}}, connectors.Unclear, "404"},
		{"no such user, with another status", simple(), []answer{{400, example(t, "openGetUser.404")}}, "", ""},
		{"the user with the code", simple(), []answer{{200, shown(ada, `["INES1042"]`)}}, connectors.Found, "by the code"},
		{"the user with the code, in other letters", simple(), []answer{{200, shown(ada, `["ines1042"]`)}}, connectors.Found, "by the code"},
		{"the user with another code", simple(), []answer{{200, shown(ada, `["ADA2026"]`)}}, connectors.Unclear, "with another code than the rule's"},
		{"another user", simple(), []answer{{200, shown("bob@example.com", `["INES1042"]`)}}, connectors.Unclear, "another user"},
		{"half an answer", simple(), []answer{{200, `{"id": "ada@`}}, connectors.Unclear, "cannot be read"},
		{"open endpoints off", simple(), []answer{{403, example(t, "openUserUpsert.403")}}, "", ""},

		{"the user without codes, nobody referred them", simple(), []answer{{200, shown(ada, `[]`)}, {200, none}}, connectors.Absent, "no referral of them"},
		{"the user without a word on codes, nobody referred them", simple(), []answer{{200, shown(ada, ``)}, {200, none}}, connectors.Absent, "no referral of them"},
		{"the user without codes, the referral is there", simple(), []answer{{200, shown(ada, `[]`)}, {200, list(1, referral(ada, "INES1042"))}}, connectors.Found, "a referral of the user"},
		{"the user without codes, another referral is there", simple(), []answer{{200, shown(ada, `[]`)}, {200, list(1, referral(ada, "ADA2026"))}}, connectors.Unclear, "with another code than the rule's"},
		{"a referral without a code", simple(), []answer{{200, shown(ada, `[]`)}, {200, list(1, referral(ada, ""))}}, connectors.Unclear, "without a code"},
		{"a list of somebody else", simple(), []answer{{200, shown(ada, `[]`)}, {200, list(1, referral("bob@example.com", "INES1042"))}}, connectors.Unclear, "somebody else"},
		{"a part of the list", simple(), []answer{{200, shown(ada, `[]`)}, {200, list(2)}}, connectors.Unclear, "all referrals"},
		{"no list", simple(), []answer{{200, shown(ada, `[]`)}, {200, `{}`}}, connectors.Unclear, "cannot be read"},
		{"a list that is none", simple(), []answer{{200, shown(ada, `[]`)}, {200, `{"totalCount": 0, "referrals": null}`}}, connectors.Unclear, "cannot be read"},
		{"the list refused", simple(), []answer{{200, shown(ada, `[]`)}, {400, `{}`}}, "", ""},

		{"a code applied", apply, []answer{{200, shown(ada, `["INES1042"]`)}}, connectors.Found, "by the code"},
		{"a code not applied", apply, []answer{{200, shown(ada, `[]`)}, {200, none}}, connectors.Absent, "no referral of them"},
		{"an event", act("trackEvent", map[string]any{"key": "a"}), nil, connectors.Unsupported, "idempotency key"},
		{"an operation of the catalogue", act("createUser", nil), nil, connectors.Unsupported, "createUser"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, p := serve(t, append(c.answers, answer{500, ``})...)
			f, err := a.Find(t.Context(), c.act)
			if c.want == "" {
				if err == nil {
					t.Errorf("Find = %+v, want an error", f)
				}
				return
			}
			if err != nil || f.State != c.want || !strings.Contains(f.Evidence, c.says) || strings.Contains(f.Evidence, "ada@") {
				t.Errorf("Find = %+v, %v; want %s that says %q", f, err, c.want, c.says)
			}
			got := p.got()
			if len(got) != len(c.answers) {
				t.Fatalf("the provider got %d requests, want %d", len(got), len(c.answers))
			}
			for i, r := range got {
				want := seen{Method: "GET", Path: adaPath, Password: secrets[saasquatch.APIKey].Reveal()}
				if i == 1 {
					want.Path, want.Query = "/sub/test_abc123/open/referrals", "referredAccountId=ada%40example.com&referredUserId=ada%40example.com&limit=100"
				}
				if r != want {
					t.Errorf("request %d = %+v, want %+v", i, r, want)
				}
			}
		})
	}
}

// A probe asks where the acts go: an open endpoint, with the key.
func TestProbe(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer answer
		good   bool
	}{
		{"an empty list", answer{200, example(t, "openListReferrals.200.empty")}, true},
		{"a list", answer{200, example(t, "openListReferrals.200")}, true},
		{"no list", answer{200, `{}`}, false},
		{"a page", answer{200, `<p>hello`}, false},
		{"endpoints off", answer{403, example(t, "openUserUpsert.403")}, false},
		{"wrong tenant", answer{404, example(t, "listReferrals.default.tenant")}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, p := serve(t, c.answer)
			if err := a.Probe(t.Context()); (err == nil) != c.good {
				t.Errorf("Probe = %v, want good %t", err, c.good)
			}
			if got := p.only(t); got.Method != "GET" || got.Path != "/sub/test_abc123/open/referrals" || !strings.Contains(got.Query, "probe%40lodestone.invalid") {
				t.Errorf("request = %+v", got)
			}
		})
	}
}

// What rules may set follows from the provider's description.
func TestOperations(t *testing.T) {
	k := saasquatch.Kind()
	for name, want := range map[string][]string{
		"refer":         {"referredByCodes*", "cookies", "countryCode", "dateUsTaxFormSubmitted", "email", "firstName", "lastName", "locale", "segments"},
		"openApplyCode": {"code*", "accountId", "userId"},
		"trackEvent":    {"key*", "accountId", "dateTriggered", "fields", "idempotencyKey", "userId"},
	} {
		op, ok := k.Operation(name)
		if !ok {
			t.Fatalf("no %s", name)
		}
		var got []string
		for _, p := range op.Parameters {
			n := p.Name
			if p.Required {
				n += "*"
			}
			got = append(got, n)
		}
		if !slices.Equal(got, want) || op.Summary == "" || op.Effect != lodestone.EffectWrite {
			t.Errorf("%s takes %v with %q %q, want %v", name, got, op.Summary, op.Effect, want)
		}
	}
	if _, there := k.Operation(lodestone.VerbInvite); there || len(k.Operations) != 3 || k.Check {
		t.Errorf("operations = %d, invite %t, check %t; want 3, none and none", len(k.Operations), there, k.Check)
	}
	a, _ := serve(t, answer{200, ""})
	c := a.Capabilities()
	proof := connectors.Lookup{FoundIsProof: true, AbsentIsProof: true}
	if !slices.Equal(c.Verbs, []string{lodestone.VerbRefer}) || c.Check || c.Lookups["refer"] != proof || c.Lookups["trackEvent"].AbsentIsProof {
		t.Errorf("capabilities = %+v", c)
	}
}

func TestSpecificationIsACopy(t *testing.T) {
	a := saasquatch.Specification()
	a[0] = '!'
	if b := saasquatch.Specification(); b[0] == '!' || !strings.Contains(string(b), "openapi: 3.0.3") {
		t.Error("Specification hands out its own bytes")
	}
}
