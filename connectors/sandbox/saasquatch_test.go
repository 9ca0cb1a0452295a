package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

const (
	tomas     = "/open/account/tomas.blei%40example.com/user/tomas.blei%40example.com"
	tomasMail = "tomas.blei@example.com"
)

// squatchCall makes one request to SaaSquatch, with a key as the password.
func squatchCall(t *testing.T, base, method, path, body string) answer {
	t.Helper()
	return squatchAs(t, base, method, path, body, func(r *http.Request) { r.SetBasicAuth("", "key") })
}

func squatchAs(t *testing.T, base, method, path, body string, sign func(*http.Request)) answer {
	t.Helper()
	req, err := http.NewRequest(method, base+"/saasquatch/test_abc123"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	sign(req)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	a, err := exchange(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

func squatchExample(t *testing.T, name string) string {
	t.Helper()
	return string(example(t, filepath.Join("saasquatch", name)))
}

func decoded[T any](t *testing.T, a answer) (v T) {
	t.Helper()
	if err := json.Unmarshal(a.body, &v); err != nil {
		t.Fatalf("%d %s: %v", a.status, a.body, err)
	}
	return v
}

// upsertBody is a user with the codes that referred them.
func upsertBody(email string, codes ...string) string {
	body := map[string]any{"id": email, "accountId": email, "email": email}
	if len(codes) > 0 {
		body["referredByCodes"] = codes
	}
	raw, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	return string(raw)
}

func userPath(email string) string {
	return "/open/account/" + strings.ReplaceAll(email, "@", "%40") + "/user/" + strings.ReplaceAll(email, "@", "%40")
}

// Every operation of the description is emulated, and every answer has the shape of the provider's
// example and keeps to the description.
func TestSquatchAnswersHaveTheShapeOfTheExamples(t *testing.T) {
	s, base := start(t, Options{})
	s.squatch.hooks.rt = roundTrip(func(*http.Request) (*http.Response, error) { return answered(http.StatusOK) })
	referral := func() string {
		s.squatch.mu.Lock()
		defer s.squatch.mu.Unlock()
		return s.squatch.referrals[0].id
	}
	hook := "/subscription/https%3A%2F%2Fhooks.example.com%2Fsquatch"
	steps := []struct {
		operation, method, path string
		request, answer         string // examples; the answer's is empty where there is none or no body
		status                  int
	}{
		{"openGetUser", "GET", tomas, "", "openGetUser.404", 404},
		{"openListReferrals", "GET", "/open/referrals?referredUserId=tomas.blei%40example.com", "", "openListReferrals.200.empty", 200},
		{"openUserUpsert", "PUT", tomas, "openUserUpsert.request", "openUserUpsert.200", 200},
		{"openUserUpsert", "PUT", tomas, "openUserUpsert.request", "openUserUpsert.200", 200},
		{"openCreateUser", "POST", tomas, "openCreateUser.request", "openCreateUser.201", 201},
		{"openGetUser", "GET", tomas, "", "openGetUser.200", 200},
		{"openListReferrals", "GET", "/open/referrals?referredUserId=tomas.blei%40example.com&referredAccountId=tomas.blei%40example.com", "", "openListReferrals.200", 200},
		{"listReferrals", "GET", "/referrals?referringUserId=ines.duarte@example.com&referredModerationStatus=PENDING", "", "listReferrals.200", 200},
		{"getReferral", "GET", "/referrals/{referral}", "", "getReferral.200", 200},
		{"getReferral", "GET", "/referrals/none", "", "getReferral.404", 404},
		{"moderateReferrals", "POST", "/referrals/moderate", "moderateReferrals.request", "", 200},
		{"trackEvent", "POST", tomas + "/events", "trackEvent.request", "trackEvent.200", 200},
		{"trackEvent", "POST", tomas + "/events", "trackEvent.request", "", 409},
		{"openValidateCode", "GET", "/open/code/INES1042", "", "openValidateCode.200", 200},
		{"openGetUserByCode", "GET", "/open/user?referralCode=ines1042", "", "", 200},
		{"findUserByReferralCode", "GET", "/user?referralCode=INES1042", "", "", 200},
		{"createUser", "POST", "/user", "createUser.request", "", 200},
		{"openApplyCode", "POST", "/open/code/INES1042/account/plain%40example.com/user/plain%40example.com", "", "openApplyCode.200", 200},
		{"getUser", "GET", tomas[len("/open"):], "", "", 200},
		{"blockUser", "POST", tomas[len("/open"):] + "/block", "", "", 200},
		{"blockUser", "POST", tomas[len("/open"):] + "/block", "", "openUserUpsert.403", 403},
		{"unblockUser", "POST", tomas[len("/open"):] + "/unblock", "", "", 200},
		{"listUsers", "GET", "/users?query=tomas", "", "listUsers.200", 200},
		{"createWebhook", "POST", "/subscription", "createWebhook.request", "", 201},
		{"listWebhooks", "GET", "/subscription", "", "listWebhooks.200", 200},
		{"testWebhook", "POST", hook + "/test", "", "", 204},
		{"deleteWebhook", "DELETE", hook, "", "", 204},
		{"deleteWebhook", "DELETE", hook, "", "openGetUser.404", 404},
		{"openDeleteUser", "DELETE", tomas + "?doNotTrack=true&preserveEmptyAccount=false", "", "", 204},
	}
	seen := map[string]bool{}
	for _, step := range steps {
		var body string
		switch {
		case step.request == "createUser.request":
			body = `{"id": "plain@example.com", "accountId": "plain@example.com", "firstName": "Plain"}`
		case step.request != "":
			body = squatchExample(t, step.request)
		}
		path := step.path
		if strings.Contains(path, "{referral}") || step.operation == "moderateReferrals" {
			path = strings.ReplaceAll(path, "{referral}", referral())
			body = strings.ReplaceAll(body, "5d96459c8bf319739fa5591b", referral())
		}
		a := squatchCall(t, base, step.method, path, body)
		if a.status != step.status {
			t.Fatalf("%s %s = %d %s, want %d", step.method, path, a.status, a.body, step.status)
		}
		if got := s.Received()[0].Operation; got != step.operation {
			t.Errorf("%s %s is taken for %q, want %s", step.method, path, got, step.operation)
		}
		seen[step.operation] = true
		squatchConforms(t, step.operation, a)
		if step.answer != "" {
			fits(t, step.operation, decoded[any](t, a), decoded[any](t, answer{body: []byte(squatchExample(t, step.answer))}))
		}
	}
	for _, r := range squatchRoutes() {
		if !seen[r.operation] {
			t.Errorf("operation %s of the description was not tried", r.operation)
		}
	}
	if v := s.Violations(); len(v) > 0 {
		t.Errorf("violations = %+v, want none", v)
	}
}

// squatchConforms checks an answer against the description: no body where it has none, else the
// schema of its status.
func squatchConforms(t *testing.T, operation string, a answer) {
	t.Helper()
	i := slices.IndexFunc(squatchRoutes(), func(r squatchRoute) bool { return r.operation == operation })
	answers := squatchRoutes()[i].answers
	schema := answers[fmt.Sprint(a.status)]
	if schema == nil && a.status >= 400 && a.status != http.StatusConflict {
		schema = answers["default"]
	}
	if schema == nil {
		if len(a.body) > 0 {
			t.Errorf("%s answers %d with %q, want no body", operation, a.status, a.body)
		}
		return
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(a.body))
	if err == nil {
		err = schema.Validate(v)
	}
	if err != nil {
		t.Errorf("%s answers %d with %s: %v", operation, a.status, a.body, err)
	}
}

// The values of the examples come back, where they follow from the request.
func TestSquatchUpsertAnswersAsTheExample(t *testing.T) {
	_, base := start(t, Options{})
	got := decoded[openUser](t, squatchCall(t, base, "PUT", tomas, squatchExample(t, "openUserUpsert.request")))
	want := decoded[openUser](t, answer{body: []byte(squatchExample(t, "openUserUpsert.200"))})
	want.DateCreated, want.ProgramShareLinks = got.DateCreated, got.ProgramShareLinks
	want.CountryCode = nil // the provider guesses it from the address of the browser
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
		t.Errorf("upsert = %s, want %s", g, w)
	}
}

func TestSquatchRefusesWhatBreaksTheDescription(t *testing.T) {
	actions := strings.Repeat(`{"referralId": "r", "action": "APPROVED"},`, 101)
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		says                     string
	}{
		{"no such path", "GET", "/referral", "", 404, "no such path"},
		{"no such method", "PATCH", tomas, "{}", 404, "no such path"},
		{"an empty part of the path", "GET", "/open/account//user/x", "", 404, "no such path"},
		{"no such query", "GET", "/users?q=x", "", 400, `"q"`},
		{"no referral code", "GET", "/open/user", "", 400, "referralCode"},
		{"limit in words", "GET", "/users?limit=ten", "", 400, "limit"},
		{"fields twice", "GET", tomas + "?fields=id&extraFields=segments", "", 400, "exclude"},
		{"no body", "PUT", tomas, "", 400, "content type"},
		{"half a body", "PUT", tomas, `{"id": "x"`, 400, "not JSON"},
		{"no account", "PUT", tomas, `{"id": "tomas.blei@example.com"}`, 400, "accountId"},
		{"unknown key", "PUT", tomas, `{"id": "tomas.blei@example.com", "accountId": "tomas.blei@example.com", "referredByCode": "A"}`, 400, "referredByCode"},
		{"codes that are no list", "PUT", tomas, `{"id": "tomas.blei@example.com", "accountId": "tomas.blei@example.com", "referredByCodes": "A"}`, 400, "referredByCodes"},
		{"another user than the path's", "PUT", tomas, upsertBody("someone@example.com"), 400, "not the path's"},
		{"an address that is none", "PUT", tomas, `{"id": "tomas.blei@example.com", "accountId": "tomas.blei@example.com", "email": "tomas"}`, 400, "email"},
		{"no actions", "POST", "/referrals/moderate", `{"actions": []}`, 400, "actions"},
		{"more than a hundred actions", "POST", "/referrals/moderate", `{"actions": [` + strings.TrimSuffix(actions, ",") + `]}`, 400, "maxItems"},
		{"an action that is none", "POST", "/referrals/moderate", `{"actions": [{"referralId": "r", "action": "PAY"}]}`, 400, "enum"},
		{"a short idempotency key", "POST", tomas + "/events", `{"userId": "tomas.blei@example.com", "accountId": "tomas.blei@example.com", "idempotencyKey": "short", "events": [{"key": "a"}]}`, 400, "idempotencyKey"},
		{"no events", "POST", tomas + "/events", `{"userId": "tomas.blei@example.com", "accountId": "tomas.blei@example.com", "events": []}`, 400, "events"},
		{"events of another user", "POST", tomas + "/events", `{"userId": "x", "accountId": "tomas.blei@example.com", "events": [{"key": "a"}]}`, 400, "not the path's"},
		{"a number beyond all bounds", "POST", tomas + "/events", `{"userId": "tomas.blei@example.com", "accountId": "tomas.blei@example.com", "events": [{"key": "a", "dateTriggered": 1e300}]}`, 400, "out of bounds"},
		{"a webhook without a URL", "POST", "/subscription", `{"name": "x"}`, 400, "endpointUrl"},
		{"a date in words", "GET", "/referrals?dateReferralPaid=yesterday", "", 400, "dateReferralPaid"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, base := start(t, Options{})
			a := squatchCall(t, base, c.method, c.path, c.body)
			e := decoded[squatchError](t, a)
			if a.status != c.status || e.StatusCode != c.status || e.Message == "" || e.APIErrorCode == "" {
				t.Errorf("answer = %d %s, want %d in the provider's shape", a.status, a.body, c.status)
			}
			if v := s.Violations(); len(v) != 1 || !strings.Contains(v[0].Problem, c.says) || strings.Contains(v[0].Problem, "tomas") {
				t.Errorf("violations = %+v, want one that names %q and no address", v, c.says)
			}
			if n := s.Effects().Total; n != 0 {
				t.Errorf("%d effects, want none", n)
			}
		})
	}
}

func TestSquatchCredentials(t *testing.T) {
	basic := func(user, password string) func(*http.Request) {
		return func(r *http.Request) { r.SetBasicAuth(user, password) }
	}
	token := func(r *http.Request) { r.Header.Set("X-SaaSquatch-User-Token", "jwt") }
	none := func(*http.Request) {}
	for _, c := range []struct {
		name, method, path string
		sign               func(*http.Request)
		status, violations int
	}{
		{"key as the password", "GET", "/users", basic("", "k-1"), 200, 0},
		{"key as the user", "GET", "/users", basic("k-1", ""), 200, 0},
		{"key beside an account", "GET", "/users", basic("sid", "k-1"), 200, 0},
		{"another key", "GET", "/users", basic("", "k-2"), 401, 0},
		{"nothing", "GET", "/users", none, 401, 1},
		{"empty halves", "GET", "/users", basic("", ""), 401, 1},
		{"a user's token where the key is needed", "GET", "/users", token, 401, 1},
		{"a user's token at an open endpoint", "GET", "/open/referrals", token, 200, 0},
		{"a user's token does not delete", "DELETE", tomas, token, 401, 1},
		{"a code needs none", "GET", "/open/code/INES1042", none, 200, 0},
		{"nor does its owner", "GET", "/open/user?referralCode=INES1042", none, 200, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, base := start(t, Options{SaaSquatch: SquatchOptions{APIKey: "k-1"}})
			a := squatchAs(t, base, c.method, c.path, "", c.sign)
			if a.status != c.status || len(s.Violations()) != c.violations {
				t.Errorf("answer = %d %s with violations %+v, want %d and %d", a.status, a.body, s.Violations(), c.status, c.violations)
			}
		})
	}
}

func TestSquatchTenant(t *testing.T) {
	_, base := start(t, Options{SaaSquatch: SquatchOptions{Tenant: "live_1"}})
	a := squatchCall(t, base, "GET", "/referrals", "")
	if want := strings.Join(strings.Fields(squatchExample(t, "listReferrals.default.tenant")), ""); a.status != 404 || strings.ReplaceAll(string(a.body), " ", "") != strings.ReplaceAll(want, " ", "") {
		t.Errorf("answer = %d %s, want %s", a.status, a.body, want)
	}
}

func TestSquatchVersionInThePath(t *testing.T) {
	s, base := start(t, Options{})
	req, err := http.NewRequest("GET", base+"/saasquatch/api/v1/test_abc123/users", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("", "key")
	if a, err := exchange(req); err != nil || a.status != 200 || s.Received()[0].Operation != "listUsers" {
		t.Errorf("answer = %d %s, %v; want the users", a.status, a.body, err)
	}
}

func TestSquatchOpenEndpointsCanBeOff(t *testing.T) {
	s, base := start(t, Options{})
	if err := s.SetSaaSquatch(SquatchSettings{Open: "off"}); err != nil {
		t.Fatal(err)
	}
	a := squatchCall(t, base, "PUT", tomas, squatchExample(t, "openUserUpsert.request"))
	fits(t, "403", decoded[any](t, a), decoded[any](t, answer{body: []byte(squatchExample(t, "openUserUpsert.403"))}))
	if a.status != 403 || s.Effects().Total != 0 {
		t.Errorf("answer = %d after %d effects, want 403 and none", a.status, s.Effects().Total)
	}
	if a := squatchCall(t, base, "GET", "/users", ""); a.status != 200 {
		t.Errorf("an endpoint for servers answers %d, want 200", a.status)
	}
}

// What happens to somebody who comes with one code and then with another.
func TestSquatchSecondCode(t *testing.T) {
	for _, c := range []struct {
		set    SquatchSettings
		first  []string
		second []string
		status int
		codes  []string
	}{
		{SquatchSettings{}, []string{"INES1042"}, []string{"INES1042"}, 200, []string{"INES1042"}},
		{SquatchSettings{}, []string{"INES1042"}, []string{"ADA2026"}, 200, []string{"INES1042"}},
		{SquatchSettings{}, []string{"ines1042"}, nil, 200, []string{"INES1042"}},
		{SquatchSettings{}, nil, []string{"ADA2026"}, 200, []string{"ADA2026"}},
		{SquatchSettings{}, []string{"INES1042", "ADA2026"}, nil, 200, []string{"INES1042"}},
		{SquatchSettings{SecondCode: "refuse"}, []string{"INES1042"}, []string{"INES1042"}, 200, []string{"INES1042"}},
		{SquatchSettings{SecondCode: "refuse"}, []string{"INES1042"}, []string{"ADA2026"}, 400, []string{"INES1042"}},
		{SquatchSettings{SecondCode: "replace"}, []string{"INES1042"}, []string{"ADA2026"}, 200, []string{"ADA2026"}},
		{SquatchSettings{}, nil, []string{"NOBODY"}, 400, []string{}},
		{SquatchSettings{UnknownCode: "ignore"}, nil, []string{"NOBODY"}, 200, []string{}},
		{SquatchSettings{UnknownCode: "ignore"}, nil, []string{"NOBODY", "ADA2026"}, 200, []string{"ADA2026"}},
	} {
		t.Run(fmt.Sprint(c.set, c.first, c.second), func(t *testing.T) {
			_, base := start(t, Options{SaaSquatch: SquatchOptions{Settings: c.set}})
			if a := squatchCall(t, base, "PUT", tomas, upsertBody(tomasMail, c.first...)); a.status != 200 {
				t.Fatalf("first = %d %s", a.status, a.body)
			}
			if a := squatchCall(t, base, "PUT", tomas, upsertBody(tomasMail, c.second...)); a.status != c.status {
				t.Errorf("second = %d %s, want %d", a.status, a.body, c.status)
			}
			got := decoded[openUser](t, squatchCall(t, base, "GET", tomas, ""))
			if !slices.Equal(got.ReferredByCodes, c.codes) {
				t.Errorf("codes = %v, want %v", got.ReferredByCodes, c.codes)
			}
			list := decoded[struct{ TotalCount int }](t, squatchCall(t, base, "GET", "/open/referrals?referredAccountId="+tomasMail, ""))
			if list.TotalCount != len(c.codes) {
				t.Errorf("%d referrals, want %d", list.TotalCount, len(c.codes))
			}
		})
	}
}

func TestSquatchWhoCannotRefer(t *testing.T) {
	_, base := start(t, Options{})
	ines := "ines.duarte@example.com"
	if a := squatchCall(t, base, "PUT", userPath(ines), upsertBody(ines, "INES1042")); a.status != 400 {
		t.Errorf("referring oneself = %d, want 400", a.status)
	}
	if a := squatchCall(t, base, "POST", userPath(ines)[len("/open"):]+"/block", ""); a.status != 200 {
		t.Fatal(a.status)
	}
	a := squatchCall(t, base, "PUT", tomas, upsertBody(tomasMail, "INES1042"))
	if e := decoded[squatchError](t, a); a.status != 400 || e.RSCode == nil || *e.RSCode != "RS034" {
		t.Errorf("a blocked referrer's code = %d %s, want 400 RS034", a.status, a.body)
	}
	if a := squatchCall(t, base, "GET", tomas, ""); a.status != 404 {
		t.Errorf("the refused upsert left a user: %d", a.status)
	}
	body := `{"id": "tomas.blei@example.com", "accountId": "tomas.blei@example.com", "referable": false, "referredByCodes": ["ADA2026"]}`
	if got := decoded[openUser](t, squatchCall(t, base, "PUT", tomas, body)); len(got.ReferredByCodes) != 0 || got.Referable {
		t.Errorf("a user who may not be referred = %+v", got)
	}
	if a := squatchCall(t, base, "POST", "/open/code/ADA2026"+tomas[len("/open"):], "{}"); a.status != 400 {
		t.Errorf("applying a code to them = %d, want 400", a.status)
	}
}

func TestSquatchApplyCode(t *testing.T) {
	s, base := start(t, Options{})
	apply := func(code string) int {
		return squatchCall(t, base, "POST", "/open/code/"+code+tomas[len("/open"):], "").status
	}
	if got := apply("INES1042"); got != 404 {
		t.Errorf("apply to nobody = %d, want 404", got)
	}
	squatchCall(t, base, "PUT", tomas, upsertBody(tomasMail))
	for _, c := range []struct {
		code   string
		status int
	}{{"NOBODY", 404}, {"INES1042", 200}, {"INES1042", 400}, {"ADA2026", 400}} {
		if got := apply(c.code); got != c.status {
			t.Errorf("apply %s = %d, want %d", c.code, got, c.status)
		}
	}
	if n := effects(s, "openApplyCode"); n != 1 {
		t.Errorf("%d effects, want 1", n)
	}
}

func effects(s *Server, operation string) (n int) {
	for _, e := range s.Effects().ByEmail {
		if e.Operation == operation {
			n += e.Count
		}
	}
	return n
}

func TestSquatchPagesAndFilters(t *testing.T) {
	_, base := start(t, Options{})
	for i := range 25 {
		email, code := fmt.Sprintf("p%02d@example.com", i), "INES1042"
		if i >= 20 {
			code = "ADA2026"
		}
		squatchCall(t, base, "PUT", userPath(email), upsertBody(email, code))
	}
	type page struct {
		Count, TotalCount int
		Referrals         []wireReferral
		Users             []plainUser
	}
	for _, c := range []struct {
		path         string
		count, total int
	}{
		{"/referrals", 10, 25},
		{"/referrals?limit=7&offset=21", 4, 25},
		{"/referrals?offset=99", 0, 25},
		{"/referrals?limit=0&offset=-3", 10, 25},
		{"/referrals?referringAccountId=ada.advocate@example.com&referringUserId=ada.advocate@example.com", 5, 5},
		{"/referrals?referringUserId=", 0, 0},
		{"/referrals?referrerModerationStatus=APPROVED", 0, 0},
		{"/referrals?dateReferralPaid=NULL&limit=100", 25, 25},
		{"/referrals?dateReferralPaid=0,9999999999999", 0, 0},
		{"/open/referrals?referredUserId=p03@example.com", 1, 1},
		{"/open/referrals?referredUserId=p0", 0, 0},
		{"/users?query=P1&limit=3", 3, 10},
		{"/users?query=duarte", 1, 1},
		{"/users?limit=100", 27, 27},
	} {
		got := decoded[page](t, squatchCall(t, base, "GET", c.path, ""))
		if got.Count != c.count || got.TotalCount != c.total || len(got.Referrals)+len(got.Users) != c.count {
			t.Errorf("%s = %d of %d with %d, want %d of %d", c.path, got.Count, got.TotalCount, len(got.Referrals)+len(got.Users), c.count, c.total)
		}
	}
	if got := decoded[page](t, squatchCall(t, base, "GET", "/referrals?limit=1", "")); got.Referrals[0].ReferredUser.ID != "p24@example.com" {
		t.Errorf("the first is %s, want the newest", got.Referrals[0].ReferredUser.ID)
	}
	some := decoded[map[string]any](t, squatchCall(t, base, "GET", userPath("p01@example.com")+"?fields=id,referredByCodes,nothing", ""))
	if len(some) != 2 || some["id"] != "p01@example.com" {
		t.Errorf("fields gives %v, want id and referredByCodes", some)
	}
}

func TestSquatchModeration(t *testing.T) {
	s, base := start(t, Options{})
	squatchCall(t, base, "PUT", tomas, upsertBody(tomasMail, "INES1042"))
	id := s.squatch.referrals[0].id
	moderate := func(actions ...string) int {
		var list []string
		for _, a := range actions {
			of, what, _ := strings.Cut(a, " ")
			list = append(list, fmt.Sprintf(`{"referralId": %q, "action": %q}`, of, what))
		}
		return squatchCall(t, base, "POST", "/referrals/moderate", `{"actions": [`+strings.Join(list, ",")+`]}`).status
	}
	now := func() string {
		w := decoded[wireReferral](t, squatchCall(t, base, "GET", "/referrals/"+id, ""))
		return strings.Join([]string{w.ModerationStatus, w.ReferredModerationStatus, w.ReferrerModerationStatus, fmt.Sprint(w.DateModerated != nil)}, " ")
	}
	for _, c := range []struct {
		actions []string
		status  int
		want    string
	}{
		{[]string{id + " APPROVED", "nobody APPROVED"}, 404, "PENDING PENDING PENDING false"}, // all or none
		{[]string{id + " REFERRED_DENIED"}, 200, "PENDING DENIED PENDING true"},
		{[]string{id + " REFERRER_APPROVED"}, 200, "ACTIONED DENIED APPROVED true"},
		{[]string{id + " APPROVED"}, 200, "ACTIONED APPROVED APPROVED true"},
		{[]string{id + " DENIED"}, 200, "ACTIONED DENIED DENIED true"},
	} {
		if got := moderate(c.actions...); got != c.status {
			t.Errorf("%v = %d, want %d", c.actions, got, c.status)
		}
		if got := now(); got != c.want {
			t.Errorf("after %v: %s, want %s", c.actions, got, c.want)
		}
	}
	if n := effects(s, "moderateReferrals"); n != 4 {
		t.Errorf("%d effects, want 4", n)
	}
}

func TestSquatchEventsOnce(t *testing.T) {
	s, base := start(t, Options{})
	track := func() answer {
		return squatchCall(t, base, "POST", tomas+"/events", squatchExample(t, "trackEvent.request"))
	}
	if a := track(); a.status != 404 {
		t.Errorf("events of nobody = %d, want 404", a.status)
	}
	squatchCall(t, base, "PUT", tomas, upsertBody(tomasMail))
	if a := track(); a.status != 200 {
		t.Errorf("the first = %d %s, want 200", a.status, a.body)
	}
	for range 3 {
		if a := track(); a.status != 409 || len(a.body) != 0 {
			t.Errorf("a repeat = %d %q, want 409 without a body", a.status, a.body)
		}
	}
	if got := s.Effects().ByExternalID; len(got) != 1 || got[0].ExternalID != "order-2026-000981" || got[0].Count != 1 {
		t.Errorf("effects = %+v, want one under the key", got)
	}
	s.squatch.mu.Lock()
	s.squatch.keys["order-2026-000981"] = time.Now().Add(-idempotencyKept)
	s.squatch.mu.Unlock()
	if a := track(); a.status != 200 {
		t.Errorf("a day later = %d, want 200", a.status)
	}
}

func TestSquatchDeletedUsers(t *testing.T) {
	for _, c := range []struct {
		query  string
		status int
		codes  int
	}{
		{"", 200, 1},
		{"?preserveEmptyAccount=true", 200, 0}, // the account was referred once
		{"?doNotTrack=true", 400, 0},
	} {
		t.Run(c.query, func(t *testing.T) {
			_, base := start(t, Options{})
			squatchCall(t, base, "PUT", tomas, upsertBody(tomasMail, "INES1042"))
			if a := squatchCall(t, base, "DELETE", tomas+c.query, ""); a.status != 204 || len(a.body) != 0 {
				t.Fatalf("delete = %d %q", a.status, a.body)
			}
			if a := squatchCall(t, base, "GET", tomas, ""); a.status != 404 {
				t.Errorf("a deleted user = %d, want 404", a.status)
			}
			if a := squatchCall(t, base, "DELETE", tomas, ""); a.status != 404 {
				t.Errorf("deleting again = %d, want 404", a.status)
			}
			a := squatchCall(t, base, "PUT", tomas, upsertBody(tomasMail, "ADA2026"))
			if a.status != c.status {
				t.Fatalf("coming back = %d %s, want %d", a.status, a.body, c.status)
			}
			if got := decoded[openUser](t, a); len(got.ReferredByCodes) != c.codes {
				t.Errorf("referred by %v, want %d codes", got.ReferredByCodes, c.codes)
			}
		})
	}
}

func TestSquatchOwnCodesAndSegments(t *testing.T) {
	_, base := start(t, Options{})
	put := func(email, more string) answer {
		return squatchCall(t, base, "PUT", userPath(email), fmt.Sprintf(`{"id": %q, "accountId": %q, %s}`, email, email, more))
	}
	put("a@example.com", `"firstName": "Ann", "lastName": "Åse", "segments": ["vip", "new"]`)
	a := decoded[openUser](t, put("a@example.com", `"segments": ["~new", "vip"], "referralCodes": {"customers-2026": "ANNA"}, "locale": "de_DE"`))
	if !slices.Equal(a.Segments, []string{"vip"}) || a.ReferralCodes[squatchProgram] != "ANNA" || a.FirstName != "Ann" || *a.Locale != "de_DE" {
		t.Errorf("user = %+v", a)
	}
	if got := put("b@example.com", `"referralCodes": {"customers-2026": "anna"}`).status; got != 400 {
		t.Errorf("taking somebody's code = %d, want 400", got)
	}
	if got := squatchCall(t, base, "POST", "/user", `{"id": "b@example.com", "accountId": "b@example.com", "referralCode": "ANNA"}`).status; got != 400 {
		t.Errorf("taking it by the other way = %d, want 400", got)
	}
	if got := put("b@example.com", `"firstName": "Ann"`).status; got != 200 {
		t.Fatal(got)
	}
	for code, want := range map[string]int{"ANNA": 200, "ANN": 200, "AnnÅ": 404} {
		if got := squatchCall(t, base, "GET", "/open/code/"+code, "").status; got != want {
			t.Errorf("code %s = %d, want %d", code, got, want)
		}
	}
}

func TestSquatchWebhooks(t *testing.T) {
	s, base := start(t, Options{})
	var mu sync.Mutex
	var sent []string
	s.squatch.hooks.rt = roundTrip(func(r *http.Request) (*http.Response, error) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		sent = append(sent, r.Header.Get("X-Hook-JWS-RFC-7797")+" "+string(body))
		return answered(http.StatusOK)
	})
	for _, name := range []string{"one", "two"} {
		squatchCall(t, base, "POST", "/subscription", `{"endpointUrl": "https://hooks.example.com/a b?x=1/2", "name": "`+name+`", "webhookTypes": ["test"]}`)
	}
	list := decoded[[]squatchWebhook](t, squatchCall(t, base, "GET", "/subscription", ""))
	if len(list) != 1 || list[0].Name != "two" || list[0].Source != "MANUAL" {
		t.Errorf("webhooks = %+v, want one", list)
	}
	path := "/subscription/https:%2F%2Fhooks.example.com%2Fa%20b%3Fx=1%2F2"
	if got := squatchCall(t, base, "POST", path+"/test", "").status; got != 204 {
		t.Errorf("test = %d, want 204", got)
	}
	s.squatch.hooks.working.Wait()
	mu.Lock()
	if len(sent) != 1 || !strings.Contains(sent[0], "..") || !strings.Contains(sent[0], `"type":"test"`) || !strings.Contains(sent[0], `"tenantAlias":"`) {
		t.Errorf("delivered %q, want one test event with a detached signature", sent)
	}
	mu.Unlock()
	if got := squatchCall(t, base, "DELETE", path, "").status; got != 204 {
		t.Errorf("delete = %d, want 204", got)
	}
	if got := squatchCall(t, base, "POST", path+"/test", "").status; got != 404 {
		t.Errorf("test of none = %d, want 404", got)
	}
}

// What was made a moment ago may not show yet, and then neither may it be made twice.
func TestSquatchShowsLater(t *testing.T) {
	s, base := start(t, Options{Settings: Settings{Hidden: true}})
	got := decoded[openUser](t, squatchCall(t, base, "PUT", tomas, upsertBody(tomasMail, "INES1042")))
	if len(got.ReferredByCodes) != 1 {
		t.Errorf("the upsert's own answer = %+v, want it with the code", got)
	}
	for path, want := range map[string]int{tomas: 404, "/open/referrals": 200, "/users?query=tomas": 200} {
		a := squatchCall(t, base, "GET", path, "")
		if a.status != want || strings.Contains(string(a.body), tomasMail) {
			t.Errorf("%s = %d %s, want %d and no trace", path, a.status, a.body, want)
		}
	}
	squatchCall(t, base, "PUT", tomas, upsertBody(tomasMail, "ADA2026"))
	if n := len(s.squatch.referrals); n != 1 {
		t.Errorf("%d referrals, want 1", n)
	}
}

func TestSquatchAdmin(t *testing.T) {
	s, base := start(t, Options{})
	post := func(body string) int {
		resp, err := http.Post(base+"/_sandbox/saasquatch", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	if got := post(`{"second_code": "refuse"}`); got != 200 || s.SaaSquatch() != (SquatchSettings{"refuse", "refuse", "on", "purchase"}) {
		t.Errorf("POST = %d, settings %+v", got, s.SaaSquatch())
	}
	for _, bad := range []string{`{"second_code": "maybe"}`, `{"unknown_code": "x"}`, `{"open": "x"}`, `{"opne": "off"}`, `[]`} {
		if got := post(bad); got != 400 {
			t.Errorf("POST %s = %d, want 400", bad, got)
		}
	}
	squatchCall(t, base, "PUT", tomas, upsertBody(tomasMail))
	s.Reset()
	if s.SaaSquatch() != (SquatchSettings{"keep", "refuse", "on", "purchase"}) || squatchCall(t, base, "GET", tomas, "").status != 404 {
		t.Errorf("after a reset: %+v", s.SaaSquatch())
	}
}

// refer stands for the provider's own operation in faults, and the fault fits the address.
func TestSquatchFaults(t *testing.T) {
	for _, c := range []struct {
		kind            FaultKind
		status, effects int
	}{
		{Fault429, 429, 0}, {Fault503, 503, 0}, {Fault500, 500, 0}, {Fault500AfterEffect, 500, 1}, {Fault401, 401, 0}, {FaultHTML, 200, 0},
	} {
		t.Run(string(c.kind), func(t *testing.T) {
			s, base := start(t, Options{})
			if err := s.Fault(Fault{Kind: c.kind, Operation: "refer", Email: tomasMail, Times: 1, RetryAfter: "7"}); err != nil {
				t.Fatal(err)
			}
			if a := squatchCall(t, base, "PUT", userPath("x@example.com"), upsertBody("x@example.com")); a.status != 200 {
				t.Errorf("somebody else = %d, want 200", a.status)
			}
			a := squatchCall(t, base, "PUT", tomas, upsertBody(tomasMail))
			if a.status != c.status || s.Received()[0].Fault != c.kind {
				t.Errorf("answer = %d %s, want %d", a.status, a.body, c.status)
			}
			if c.status >= 400 {
				squatchConforms(t, "openUserUpsert", a)
			}
			if n := effects(s, "openUserUpsert"); n != 1+c.effects {
				t.Errorf("%d effects, want %d", n, 1+c.effects)
			}
		})
	}
}

// However many come at once, each is counted once, and a person is there once.
func TestSquatchAtOnce(t *testing.T) {
	s, base := start(t, Options{})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 10 {
				email := fmt.Sprintf("p%d@example.com", n)
				squatchCall(t, base, "PUT", userPath(email), upsertBody(email, []string{"INES1042", "ADA2026"}[(i+n)%2]))
				squatchCall(t, base, "GET", "/open/referrals", "")
			}
		})
	}
	wg.Wait()
	if n := effects(s, "openUserUpsert"); n != 80 {
		t.Errorf("%d effects, want 80", n)
	}
	if n := len(s.squatch.referrals); n != 10 {
		t.Errorf("%d referrals of 10 people", n)
	}
}

// Whatever comes in, the answer is the provider's: no panic, no other shape.
func FuzzSquatch(f *testing.F) {
	f.Add("PUT", "/t"+tomas, `{"id": "tomas.blei@example.com", "accountId": "tomas.blei@example.com", "referredByCodes": ["INES1042"]}`)
	f.Add("POST", "/t/referrals/moderate", `{"actions": [{"referralId": "x", "action": "DENIED"}]}`)
	f.Add("GET", "/t/referrals?dateReferralPaid=1,2&limit=-1&offset=99999999999999999999", "")
	f.Add("DELETE", "/t/subscription/%2F%2e%2e", "")
	f.Add("POST", "/t"+tomas+"/events", `{"userId": 1e999}`)
	f.Add("GET", "/api/v1/t/open/user?referralCode=%00", "null")
	s := New(Options{Keep: 10})
	f.Fuzz(func(t *testing.T, method, target, body string) {
		req, err := http.NewRequest(method, "http://sandbox/saasquatch"+target, strings.NewReader(body))
		if err != nil {
			return // no HTTP request
		}
		req.SetBasicAuth("", "k")
		req.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, req)
		raw, _ := io.ReadAll(w.Body)
		moved := w.Code >= 300 && w.Code < 400 // by net/http, of a path that is not clean
		if w.Code >= 500 || len(raw) > 0 && !json.Valid(raw) && !moved && strings.HasPrefix(req.URL.Path, "/saasquatch/") {
			t.Fatalf("%s %s = %d %s", method, target, w.Code, raw)
		}
	})
}
