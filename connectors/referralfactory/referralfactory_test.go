package referralfactory_test

import (
	"encoding/json"
	"errors"
	"fmt"
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
	"github.com/lodestonehq/lodestone/connectors/connectortest"
	"github.com/lodestonehq/lodestone/connectors/referralfactory"
)

const campaign = "7"

var (
	secrets = map[string]connectors.Secret{referralfactory.APIKey: "rf-5f0d+2c1b/9a77"}
	extra   = map[string]string{referralfactory.CampaignID: campaign}
)

// intended is when the acts of these tests were meant to happen.
var intended = time.Date(2026, 6, 2, 15, 10, 0, 0, time.UTC)

// hurried is the kind without its bound on the rate of the account, which keeps tests from waiting.
// The token's limit stays.
func hurried() connectors.Kind {
	k := referralfactory.Kind()
	open := k.Open
	k.Open = func(s connectors.Settings, t *connectors.Transport) (connectors.Connector, error) {
		s.Rate = 10
		return open(s, t)
	}
	return k
}

func invite(parameters map[string]any) connectors.Act {
	return connectors.Act{
		ID: "e1.invite", Operation: lodestone.VerbInvite, Email: "tomas.blei@example.com", Parameters: parameters, IntendedAt: intended,
	}
}

func refer(parameters map[string]any) connectors.Act { return as(lodestone.VerbRefer, parameters) }

func as(operation string, parameters map[string]any) connectors.Act {
	act := invite(parameters)
	act.ID, act.Operation = "e1."+operation, operation
	return act
}

// person is a user as the provider shows it; changes are pairs of key and JSON.
func person(changes ...string) string {
	u := map[string]json.RawMessage{
		"id": json.RawMessage(`123`), "campaign_id": json.RawMessage(campaign), "referrer_id": json.RawMessage(`77`),
		"first_name": json.RawMessage(`"Tomas"`), "email": json.RawMessage(`"tomas.blei@example.com"`), "code": json.RawMessage(`"ueONFmUp"`),
		"signed_up_at": json.RawMessage(`"2026-06-02"`), "qualified_at": json.RawMessage(`null`), "unsubscribed_at": json.RawMessage(`null`),
		"meta": json.RawMessage(`[{"field": "Last Name", "value": "Blei"}]`),
	}
	for i := 0; i+1 < len(changes); i += 2 {
		if changes[i+1] == "" {
			delete(u, changes[i])
			continue
		}
		u[changes[i]] = json.RawMessage(changes[i+1])
	}
	raw, err := json.Marshal(u)
	if err != nil {
		panic(err)
	}
	return string(raw)
}

func document(user string) string { return `{"data": ` + user + `}` }

func list(users ...string) string {
	return `{"data": [` + strings.Join(users, ",") + `], "links": {"next": null}, "meta": {"current_page": 1}}`
}

const (
	nobody    = `{"data": [], "links": {"next": null}, "meta": {"current_page": 1}}`
	duplicate = `{"code": 422, "message": "Validation errors in your request", "errors": {"email": [{"field": "email", "message": "The email has already been taken."}]}}`
	ines      = `{"data": {"id": 77, "campaign_id": 7, "referrer_id": null, "email": "ines.duarte@example.com", "code": "INES1042"}}`
	notFound  = `{"code": 404, "message": "Not found"}`
)

// seen is a request as the provider got it.
type seen struct{ Method, Path, Query, Authorization, ContentType, Body string }

// answer is one of a provider's.
type answer struct {
	status int
	body   string
}

// provider answers by method and path; what it has no answer for is a 500.
type provider struct {
	mu      sync.Mutex // guards what follows
	answers map[string]answer
	seen    []seen
}

func serve(t *testing.T, answers map[string]answer) (*connectors.Account, *provider) {
	t.Helper()
	p := &provider{answers: answers}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		p.mu.Lock()
		p.seen = append(p.seen, seen{r.Method, r.URL.EscapedPath(), r.URL.RawQuery, r.Header.Get("Authorization"), r.Header.Get("Content-Type"), string(raw)})
		a, ok := p.answers[r.Method+" "+r.URL.EscapedPath()]
		p.mu.Unlock()
		if !ok {
			a = answer{500, `{"code": 500, "message": "the test has no answer"}`}
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(a.status)
		_, _ = io.WriteString(w, a.body)
	}))
	t.Cleanup(srv.Close)
	return account(t, srv.URL, connectors.Settings{}), p
}

func account(t *testing.T, base string, s connectors.Settings) *connectors.Account {
	t.Helper()
	s.BaseURL, s.Secrets, s.Extra, s.Rate = base, secrets, extra, 10000
	a, err := connectors.Open(hurried(), s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// paths are the requests that were made, as method and path.
func (p *provider) paths() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []string
	for _, s := range p.seen {
		out = append(out, s.Method+" "+s.Path)
	}
	return out
}

func fault(t *testing.T, err error) *connectors.Fault {
	t.Helper()
	var f *connectors.Fault
	if !errors.As(err, &f) {
		t.Fatalf("error = %v (%T), want a fault", err, err)
	}
	if strings.Contains(f.Error(), "tomas.blei") || strings.Contains(f.Error(), "rf-5f0d") {
		t.Errorf("the fault shows an address or the key: %v", f)
	}
	return f
}

func TestConformance(t *testing.T) {
	connectortest.Run(t, connectortest.Case{
		Kind: hurried(), Secrets: secrets, Extra: extra,
		Acts: []connectortest.Act{
			{Act: invite(map[string]any{"first_name": "Tomas"}), Status: 201, Answer: document(person("referrer_id", "null"))},
			{Act: refer(map[string]any{"first_name": "Tomas", "referrer_value": "INES1042"}), Status: 201, Answer: document(person())},
		},
		Check: nobody,
	})
}

func TestWhatIsSent(t *testing.T) {
	found := answer{200, list(person())}
	for _, c := range []struct {
		name   string
		act    connectors.Act
		paths  []string // the last one is the act
		status int
		body   string // that is sent with it
	}{
		{
			"invite", invite(map[string]any{"first_name": "Tomas", "notify": false}),
			[]string{"POST /users"}, 201, `{"campaign_id":7,"email":"tomas.blei@example.com","first_name":"Tomas","notify":false}`,
		},
		{
			"invite of the address that the rule gives", invite(map[string]any{"first_name": "Tomas", "email": " Tomas+Work@Example.com"}),
			[]string{"POST /users"}, 201, `{"campaign_id":7,"email":"tomas+work@example.com","first_name":"Tomas"}`,
		},
		{
			"nil is absent", invite(map[string]any{"first_name": "Tomas", "promotion": nil, "meta_1_field": "Last Name", "meta_1_value": nil}),
			[]string{"POST /users"}, 201, `{"campaign_id":7,"email":"tomas.blei@example.com","first_name":"Tomas"}`,
		},
		{
			"refer by code", refer(map[string]any{"first_name": "Tomas", "referrer_value": "INES1042"}),
			[]string{"POST /users"}, 201, `{"campaign_id":7,"email":"tomas.blei@example.com","first_name":"Tomas","referrer":{"field":"code","value":"INES1042"}}`,
		},
		{
			"refer by number", refer(map[string]any{"first_name": "Tomas", "referrer_field": "id", "referrer_value": 77.0}),
			[]string{"POST /users"}, 201, `{"campaign_id":7,"email":"tomas.blei@example.com","first_name":"Tomas","referrer":{"field":"id","value":"77"}}`,
		},
		{
			"refer by address", refer(map[string]any{"first_name": "Tomas", "referrer_field": "email", "referrer_value": "Ines.Duarte@example.com "}),
			[]string{"POST /users"}, 201, `{"campaign_id":7,"email":"tomas.blei@example.com","first_name":"Tomas","referrer":{"field":"email","value":"ines.duarte@example.com"}}`,
		},
		{
			"fields of the campaign", refer(map[string]any{
				"first_name": "Tomas", "referrer_value": "A", "meta_1_field": "Last Name", "meta_1_value": "Blei", "meta_3_field": "Seats", "meta_3_value": 40.0,
			}),
			[]string{"POST /users"}, 201, `{"campaign_id":7,"email":"tomas.blei@example.com","first_name":"Tomas","meta":[{"field":"Last Name","value":"Blei"},{"field":"Seats","value":"40"}],"referrer":{"field":"code","value":"A"}}`,
		},
		{
			"qualify", as("qualify", nil),
			[]string{"POST /users/search", "PUT /users/qualification"}, 200, `{"campaign_id":7,"id":123,"qualified":true}`,
		},
		{
			"the catalogue's name for it", as("setUserQualification", map[string]any{"qualified": true}),
			[]string{"POST /users/search", "PUT /users/qualification"}, 200, `{"campaign_id":7,"id":123,"qualified":true}`,
		},
		{
			"update", as("updateUser", map[string]any{"first_name": "Tomás", "meta_1_field": "Country", "meta_1_value": "Portugal"}),
			[]string{"POST /users/search", "PUT /users/123"}, 200, `{"campaign_id":7,"first_name":"Tomás","meta":[{"field":"Country","value":"Portugal"}]}`,
		},
		{
			"delete", as("deleteUser", nil),
			[]string{"POST /users/search", "DELETE /users/123"}, 204, ``,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			body := document(person())
			if c.status == 204 {
				body = ""
			}
			a, p := serve(t, map[string]answer{c.paths[len(c.paths)-1]: {c.status, body}, "POST /users/search": found})
			r, err := a.Do(t.Context(), c.act)
			if err != nil || r.Reference != "123" || r.Status != c.status {
				t.Fatalf("Do = %+v, %v; want user 123 and status %d", r, err, c.status)
			}
			if got := p.paths(); !slices.Equal(got, c.paths) {
				t.Fatalf("requests = %v, want %v", got, c.paths)
			}
			last := p.seen[len(p.seen)-1]
			if last.Authorization != "Bearer "+secrets[referralfactory.APIKey].Reveal() || c.body != "" && last.ContentType != "application/json" || last.Query != "" {
				t.Errorf("request = %+v", last)
			}
			sameJSON(t, last.Body, c.body)
		})
	}
}

func sameJSON(t *testing.T, got, want string) {
	t.Helper()
	if want == "" && got == "" {
		return
	}
	var g, w any
	if err := errors.Join(json.Unmarshal([]byte(got), &g), json.Unmarshal([]byte(want), &w)); err != nil || !reflect.DeepEqual(g, w) {
		t.Errorf("body = %s (%v), want %s", got, err, want)
	}
}

func TestActsThatCannotBeSent(t *testing.T) {
	name := func(more ...any) map[string]any {
		m := map[string]any{"first_name": "Tomas"}
		for i := 0; i+1 < len(more); i += 2 {
			m[more[i].(string)] = more[i+1]
		}
		return m
	}
	for _, c := range []struct {
		name string
		act  connectors.Act
		says string
	}{
		{"required parameter absent", invite(nil), "first_name"},
		{"required parameter blank", invite(map[string]any{"first_name": " "}), "first_name"},
		{"refer without a referrer", refer(name()), "referrer_value"},
		{"a referrer named by what does not exist", refer(name("referrer_value", "A", "referrer_field", "phone")), "referrer_field"},
		{"a referrer whose address is none", refer(name("referrer_value", "A", "referrer_field", "email")), "referrer_value"},
		{"an address that is none", invite(name("email", "nobody")), "email"},
		{"a value without its label", invite(name("meta_2_value", "Blei")), "meta_2_field"},
		{"the campaign is the account's", invite(name("campaign_id", 8.0)), "campaign_id"},
		{"an invite has no referrer", invite(name("referrer_value", "A")), "referrer_value"},
		{"text for a boolean", invite(name("notify", "yes")), "notify"},
		{"value of no type that a parameter has", invite(map[string]any{"first_name": []string{"A"}}), "first_name"},
		{"an update may not qualify", as("updateUser", map[string]any{"qualified": true}), "qualified"},
		{"an update of nothing", as("updateUser", nil), "nothing to change"},
		{"unknown operation", as("payOut", nil), "payOut"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, p := serve(t, nil)
			_, err := a.Do(t.Context(), c.act)
			f := fault(t, err)
			if f.Class != connectors.Refused || f.Reason != lodestone.ReasonBadParameters || f.CountsAttempt || !strings.Contains(f.Error(), c.says) {
				t.Errorf("Do = %v, want a refusal for bad parameters that names %q", err, c.says)
			}
			if len(p.seen) != 0 {
				t.Errorf("the provider got %+v, want nothing", p.seen)
			}
		})
	}
}

func TestAnswersToACreate(t *testing.T) {
	for _, c := range []struct {
		name   string
		status int
		body   string
		class  connectors.Class // empty: done
		detail string
	}{
		{"created", 201, document(person()), "", ""},
		{"created, 200", 200, document(person()), "", ""},
		{"without the envelope", 201, person(), "", ""},
		{"odd values that nobody needs", 201, `{"data": {"id": "123", "email": 7, "meta": "x", "referrer_id": {}}}`, "", ""},
		{"without an id", 201, `{"data": {"email": "x"}}`, connectors.Unknown, ""},
		{"a list", 201, `{"data": [` + person() + `]}`, connectors.Unknown, ""},
		{"an envelope with null", 201, `{"data": null}`, connectors.Unknown, ""},
		{"words of an error", 201, `{"code": 422, "message": "no"}`, connectors.Unknown, ""},
		{"another field is refused", 422, `{"message": "Validation errors in your request", "errors": {"first_name": [{"field": "first_name", "message": "Too long."}]}}`, connectors.Refused, "Too long."},
		{"words about tomas.blei@example.com", 422, `{"message": "tomas.blei@example.com is odd", "errors": {}}`, connectors.Refused, "<address> is odd"},
		{"gone", 410, `{"code": 410, "message": "The campaign is over"}`, connectors.Refused, "The campaign is over"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, p := serve(t, map[string]answer{"POST /users": {c.status, c.body}})
			r, err := a.Do(t.Context(), refer(map[string]any{"first_name": "Tomas", "referrer_value": "INES1042"}))
			if len(p.seen) != 1 {
				t.Errorf("the provider got %v, want one request", p.paths())
			}
			if c.class == "" {
				if want := (connectors.Receipt{Reference: "123", Status: c.status}); err != nil || r != want {
					t.Errorf("Do = %+v, %v; want %+v", r, err, want)
				}
				return
			}
			if f := fault(t, err); f.Class != c.class || !strings.Contains(f.Detail, c.detail) {
				t.Errorf("Do = %v, want class %s and %q", err, c.class, c.detail)
			}
		})
	}
}

// whose is what a user who is there already means for an act, after a 422 and for a look-up. A search
// that settles nothing is a fault after a 422, and unclear for a look-up.
var whose = []struct {
	name   string
	act    connectors.Act
	search answer
	by     answer // to GET /users/INES1042
	class  connectors.Class
	says   string
	state  connectors.FindingState
}{
	{"ours", refer(byInes), answer{200, list(person())}, answer{200, ines}, "", "there already", connectors.Found},
	{"ours, found by number", refer(byNumber), answer{200, list(person())}, answer{}, "", "there already", connectors.Found},
	{"ours, in other letters", refer(byInes), answer{200, list(person("email", `"Tomas.Blei@Example.COM "`))}, answer{200, ines}, "", "there already", connectors.Found},
	{"ours, made the next day by their clock", refer(byInes), answer{200, list(person("signed_up_at", `"2026-06-03"`))}, answer{200, ines}, "", "there already", connectors.Found},
	{"ours, to the second", refer(byInes), answer{200, list(person("signed_up_at", `"2026-06-02T15:10:03Z"`))}, answer{200, ines}, "", "there already", connectors.Found},
	{"an invite's", invite(named), answer{200, list(person("referrer_id", "null"))}, answer{}, "", "there already", connectors.Found},
	{"another referrer's", refer(byInes), answer{200, list(person("referrer_id", "78"))}, answer{200, ines}, connectors.Refused, "another referrer (user 78)", connectors.Absent},
	{"nobody's", refer(byInes), answer{200, list(person("referrer_id", "null"))}, answer{}, connectors.Refused, "without a referrer", connectors.Absent},
	{"a referrer's, to be invited", invite(named), answer{200, list(person())}, answer{}, connectors.Refused, "lead of a referrer", connectors.Absent},
	{"older", refer(byInes), answer{200, list(person("signed_up_at", `"2026-06-01"`))}, answer{}, connectors.Refused, "since before this touchpoint, from 2026-06-01", connectors.Absent},
	{"older, invited", invite(named), answer{200, list(person("referrer_id", "null", "signed_up_at", `"2026-02-03"`))}, answer{}, connectors.Refused, "since before", connectors.Absent},
	{"older, to the second, by less than zones differ", refer(byInes), answer{200, list(person("signed_up_at", `"2026-06-02T11:00:00Z"`))}, answer{200, ines}, connectors.Unknown, "do not tell", connectors.Unclear},
	{"undated", refer(byInes), answer{200, list(person("signed_up_at", "null"))}, answer{200, ines}, connectors.Unknown, "since when cannot be read", connectors.Unclear},
	{"dated in words", refer(byInes), answer{200, list(person("signed_up_at", `"yesterday"`))}, answer{200, ines}, connectors.Unknown, "since when cannot be read", connectors.Unclear},
	{"whose is not said", refer(byInes), answer{200, list(person("referrer_id", ""))}, answer{}, connectors.Unknown, "whose lead", connectors.Unclear},
	{"the referrer is not found", refer(byInes), answer{200, list(person())}, answer{404, notFound}, connectors.Unknown, "cannot be told", connectors.Unclear},
	{"the code is another's number", refer(byInes), answer{200, list(person())}, answer{200, `{"data": {"id": 77, "code": "other"}}`}, connectors.Unknown, "cannot be told", connectors.Unclear},
	{"the address twice", refer(byInes), answer{200, list(person(), person("id", "124"))}, answer{}, connectors.Unknown, "several times", connectors.Unclear},
	{"other people", refer(byInes), answer{200, list(person("email", `"ada@example.com"`))}, answer{}, connectors.Unknown, "other users", connectors.Unclear},
	{"another campaign", refer(byInes), answer{200, list(person("campaign_id", "8"))}, answer{}, connectors.Unknown, "other users", connectors.Unclear},
	{"a page that is not the last", refer(byInes), answer{200, `{"data": [], "links": {"next": "https://x"}}`}, answer{}, connectors.Unknown, "there is more", connectors.Unclear},
	{"a page that counts somebody", refer(byInes), answer{200, `{"data": [], "meta": {"total": 1}}`}, answer{}, connectors.Unknown, "there is more", connectors.Unclear},
	{"nobody is there", refer(byInes), answer{200, nobody}, answer{}, connectors.Unknown, "does not find it", connectors.Absent},
}

var (
	named    = map[string]any{"first_name": "Tomas"}
	byInes   = map[string]any{"first_name": "Tomas", "referrer_value": "INES1042"}
	byNumber = map[string]any{"first_name": "Tomas", "referrer_field": "id", "referrer_value": "77"}
)

func TestThereAlready(t *testing.T) {
	for _, c := range whose {
		t.Run(c.name, func(t *testing.T) {
			a, p := serve(t, map[string]answer{"POST /users": {422, duplicate}, "POST /users/search": c.search, "GET /users/INES1042": c.by})
			r, err := a.Do(t.Context(), c.act)
			if creates := slices.Index(p.paths()[1:], "POST /users"); creates >= 0 {
				t.Errorf("a second create was sent: %v", p.paths())
			}
			if c.class == "" {
				if err != nil || r.Reference != "123" || r.Status != 422 || !strings.Contains(r.Detail, c.says) {
					t.Errorf("Do = %+v, %v; want user 123, %q", r, err, c.says)
				}
				return
			}
			if f := fault(t, err); f.Class != c.class || !strings.Contains(f.Detail, c.says) || f.Status != 422 {
				t.Errorf("Do = %v (%s), want class %s and %q", err, f.Class, c.class, c.says)
			}
		})
	}
}

func TestFindCreated(t *testing.T) {
	for _, c := range whose {
		t.Run(c.name, func(t *testing.T) {
			a, p := serve(t, map[string]answer{"POST /users/search": c.search, "GET /users/INES1042": c.by})
			f, err := a.Find(t.Context(), c.act)
			if err != nil || f.State != c.state || f.Evidence == "" || (c.state == connectors.Found) != (f.Reference == "123") {
				t.Errorf("Find = %+v, %v; want %s", f, err, c.state)
			}
			if strings.Contains(f.Evidence, "tomas.blei") {
				t.Errorf("the evidence shows the address: %s", f.Evidence)
			}
			sameJSON(t, p.seen[0].Body, `{"filters": {"operator": "AND", "value": [
				{"field": "email", "operator": "=", "value": "tomas.blei@example.com"}, {"field": "campaign_id", "operator": "=", "value": "7"}]}}`)
		})
	}
}

// A 422 about the address need not mean that it is taken.
func TestAddressRefusedForAnotherReason(t *testing.T) {
	for _, errs := range []string{`{"email": [{"field": "email", "message": "The email must be valid."}]}`, `{"email": ["The email must be valid."]}`, `[{"field": "email", "message": "The email must be valid."}]`} {
		a, p := serve(t, map[string]answer{"POST /users": {422, `{"message": "no", "errors": ` + errs + `}`}, "POST /users/search": {200, nobody}})
		_, err := a.Do(t.Context(), invite(named))
		if f := fault(t, err); f.Class != connectors.Refused || !strings.Contains(f.Detail, "must be valid") {
			t.Errorf("Do = %v, want the provider's refusal", err)
		}
		if len(p.seen) != 2 {
			t.Errorf("requests = %v, want a create and a search", p.paths())
		}
	}
}

// What the search after a 422 cannot answer stays open.
func TestThereAlreadyAndNoAnswer(t *testing.T) {
	for _, status := range []int{400, 401, 429, 500} {
		a, _ := serve(t, map[string]answer{"POST /users": {422, duplicate}, "POST /users/search": {status, `{"message": "tomas.blei@example.com"}`}})
		_, err := a.Do(t.Context(), invite(named))
		if f := fault(t, err); f.Class != connectors.Unknown || f.Reason != lodestone.ReasonUnclear {
			t.Errorf("search answers %d: Do = %v (%s), want unknown", status, err, f.Class)
		}
	}
}

func TestUnsubscribed(t *testing.T) {
	for _, c := range []struct {
		name, body   string
		unsubscribed bool
		fails        bool
	}{
		{name: "not in the campaign", body: nobody},
		{name: "subscribed", body: list(person())},
		{name: "unsubscribed", body: list(person("unsubscribed_at", `"2026-06-20"`)), unsubscribed: true},
		{name: "unsubscribed, in seconds", body: list(person("unsubscribed_at", `1781913600`)), unsubscribed: true},
		{name: "one of two", body: list(person(), person("unsubscribed_at", `"2026-06-20"`)), unsubscribed: true},
		{name: "two keys", body: list(strings.Replace(person("unsubscribed_at", `"2026-06-20"`), `{`, `{"Unsubscribed_At": null, `, 1)), unsubscribed: true},
		{name: "blank", body: list(person("unsubscribed_at", `""`)), fails: true},
		{name: "a boolean", body: list(person("unsubscribed_at", `false`)), fails: true},
		{name: "an object", body: list(person("unsubscribed_at", `{}`)), fails: true},
		{name: "no word about it", body: list(person("unsubscribed_at", ``)), fails: true},
		{name: "of one of two", body: list(person(), person("unsubscribed_at", ``)), fails: true},
		{name: "another person", body: list(person("email", `"ada@example.com"`)), fails: true},
		{name: "another campaign", body: list(person("campaign_id", `8`)), fails: true},
		{name: "not the last page", body: `{"data": [], "links": {"next": "https://x"}}`, fails: true},
		{name: "not a list", body: document(person()), fails: true},
		{name: "a list of texts", body: `{"data": ["tomas.blei@example.com"]}`, fails: true},
		{name: "bare", body: `[]`, fails: true},
		{name: "null", body: `{"data": null}`, fails: true},
		{name: "more behind it", body: nobody + nobody, fails: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, _ := serve(t, map[string]answer{"POST /users/search": {200, c.body}})
			s, err := a.Unsubscribed(t.Context(), "tomas.blei@example.com")
			if c.fails {
				if f := fault(t, err); f.Class != connectors.Failed || f.Reason != lodestone.ReasonCheckFailed || f.CountsAttempt {
					t.Errorf("Unsubscribed = %+v, %v; want a failed check", s, err)
				}
				return
			}
			if err != nil || s.Unsubscribed != c.unsubscribed || s.Kind != connectors.SuppressionProvider || s.Evidence == "" {
				t.Errorf("Unsubscribed = %+v, %v; want %t", s, err, c.unsubscribed)
			}
		})
	}
}

func TestProbe(t *testing.T) {
	a, p := serve(t, map[string]answer{"POST /users/search": {200, nobody}})
	if err := a.Probe(t.Context()); err != nil {
		t.Errorf("Probe = %v, want none", err)
	}
	a, _ = serve(t, map[string]answer{"POST /users/search": {401, `{"code": 401, "message": "Unauthenticated."}`}})
	if f := fault(t, a.Probe(t.Context())); f.Class != connectors.LockedOut {
		t.Errorf("Probe = %v, want locked out", f)
	}
	if got := p.paths(); !slices.Equal(got, []string{"POST /users/search"}) {
		t.Errorf("requests = %v, want one search", got)
	}
}

func TestSettings(t *testing.T) {
	good := func() connectors.Settings {
		return connectors.Settings{BaseURL: "https://127.0.0.1/api/v2", Secrets: secrets, Extra: map[string]string{"campaign_id": "7"}}
	}
	if _, err := connectors.Open(referralfactory.Kind(), good()); err != nil {
		t.Errorf("Open with defaults = %v, want none", err)
	}
	for _, c := range []struct {
		name   string
		change func(*connectors.Settings)
		says   string
	}{
		{"no campaign", func(s *connectors.Settings) { s.Extra = nil }, "campaign_id: is missing"},
		{"a campaign by name", func(s *connectors.Settings) { s.Extra["campaign_id"] = "bring" }, "campaign_id: is not the number"},
		{"campaign 0", func(s *connectors.Settings) { s.Extra["campaign_id"] = "0" }, "campaign_id: is not the number"},
		{"a rate over the provider's", func(s *connectors.Settings) { s.Rate = 10.01 }, "rate: must be at most 10/s"},
		{"too many at a time", func(s *connectors.Settings) { s.Concurrency = 61 }, "concurrency: must be at most 60"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := good()
			c.change(&s)
			_, err := connectors.Open(referralfactory.Kind(), s)
			if err == nil || !strings.Contains(err.Error(), c.says) || !strings.HasPrefix(err.Error(), "connectors.referralfactory") {
				t.Errorf("Open = %v, want an error that says %q", err, c.says)
			}
		})
	}
}

// What rules may set follows from the provider's description.
func TestOperations(t *testing.T) {
	want := map[string]string{
		"invite":               "first_name! email meta_1_field meta_1_value meta_2_field meta_2_value meta_3_field meta_3_value notify promotion",
		"refer":                "first_name! referrer_value! email meta_1_field meta_1_value meta_2_field meta_2_value meta_3_field meta_3_value notify promotion referrer_field",
		"createUser":           "first_name! email meta_1_field meta_1_value meta_2_field meta_2_value meta_3_field meta_3_value notify promotion referrer_field referrer_value",
		"updateUser":           "first_name meta_1_field meta_1_value meta_2_field meta_2_value meta_3_field meta_3_value",
		"deleteUser":           "",
		"qualify":              "email qualified",
		"setUserQualification": "email qualified",
	}
	k := referralfactory.Kind()
	for _, op := range k.Operations {
		var names []string
		for _, p := range op.Parameters {
			if p.Required {
				p.Name += "!"
			}
			names = append(names, p.Name)
		}
		if got := strings.Join(names, " "); got != want[op.Name] {
			t.Errorf("%s takes %s, want %s", op.Name, got, want[op.Name])
		}
		if pays := op.Effect == lodestone.EffectPay; pays != strings.Contains(strings.ToLower(op.Name), "quali") {
			t.Errorf("%s has the effect %s", op.Name, op.Effect)
		}
	}
	if len(k.Operations) != len(want) {
		t.Errorf("there are %d operations, want %d", len(k.Operations), len(want))
	}
	effects := map[string]string{}
	for _, e := range k.Endpoints {
		effects[e.Name] = fmt.Sprintf("%s %t", e.Effect, e.Repeatable)
	}
	for name, want := range map[string]string{
		"createUser": "write true", "getUser": "read true", "updateUser": "pay false", "deleteUser": "destroy true", "listUsers": "read true",
		"searchUsers": "read true", "setUserQualification": "pay false", "listCampaigns": "read true", "searchCampaigns": "read true",
		"getCampaign": "read true", "listDueRewards": "read true", "listIssuedRewards": "read true", "issueReward": "pay false", "cancelReward": "destroy false",
	} {
		if effects[name] != want {
			t.Errorf("%s in the catalogue = %q, want %q", name, effects[name], want)
		}
		delete(effects, name)
	}
	if len(effects) != 0 {
		t.Errorf("the catalogue also has %v", effects)
	}
}

func TestSpecificationIsACopy(t *testing.T) {
	a := referralfactory.Specification()
	a[0] = '!'
	if b := referralfactory.Specification(); b[0] == '!' || !strings.Contains(string(b), "openapi: 3.0.3") {
		t.Error("Specification hands out its own bytes")
	}
}
