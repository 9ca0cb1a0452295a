package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
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

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// start serves a sandbox over real HTTP.
func start(t *testing.T, opts Options) (*Server, string) {
	t.Helper()
	s := New(opts)
	srv := httptest.NewServer(s.Handler())
	t.Cleanup(func() {
		s.Clear() // lets go of what hangs
		srv.Close()
	})
	return s, srv.URL
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

// call makes one request to Referral Rock, with credentials.
func call(t *testing.T, base, method, path string, body []byte) (answer, error) {
	t.Helper()
	req, err := http.NewRequest(method, base+"/referralrock"+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("public", "private")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return exchange(req)
}

func exchange(req *http.Request) (answer, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	got, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, got}, err
}

func must(t *testing.T, base, method, path string, body []byte) answer {
	t.Helper()
	a, err := call(t, base, method, path, body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

func example(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// fits compares the keys and the kinds of values. null fits everything, and so does a missing key whose
// example is empty.
func fits(t *testing.T, at string, got, want any) {
	t.Helper()
	if got == nil || want == nil {
		return
	}
	switch want := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			t.Errorf("%s is %T, want an object", at, got)
			return
		}
		for k, v := range g {
			if _, there := want[k]; !there && v != nil {
				t.Errorf("%s.%s is in no example", at, k)
			}
		}
		for k, v := range want {
			gv, there := g[k]
			if !there && v != nil && !reflect.ValueOf(v).IsZero() && !optional[k] {
				t.Errorf("%s.%s is missing", at, k)
			}
			if there {
				fits(t, at+"."+k, gv, v)
			}
		}
	case []any:
		g, ok := got.([]any)
		if !ok {
			t.Errorf("%s is %T, want an array", at, got)
			return
		}
		for i := range g {
			fits(t, fmt.Sprintf("%s[%d]", at, i), g[i], merged(want))
		}
	default:
		if reflect.TypeOf(got) != reflect.TypeOf(want) {
			t.Errorf("%s is %T, want %T", at, got, want)
		}
	}
}

// merged is one example that has the keys of all.
func merged(examples []any) any {
	all := map[string]any{}
	for _, e := range examples {
		m, ok := e.(map[string]any)
		if !ok {
			return e
		}
		for k, v := range m {
			if v != nil {
				all[k] = v
			}
		}
	}
	return all
}

// optional are fields of the examples that depend on the request, or say nothing to anyone here.
var optional = map[string]bool{
	"message": true, "firstName": true, "lastName": true, "email": true, "preferredContact": true,
	"amountFormatted": true, "city": true, "country": true, "postalCode": true, "lastShare": true, "referralsApproved": true,
	"referralsPending": true, "referralsApprovedAmount": true, "rewardsIssuedAmount": true, "rewardAmountTotal": true,
	"rewards": true, "activatedDate": true, "lastActiveDate": true, "externalIdentifier": true, "memberExternalIdentifier": true,
}

// Every answer has the shape of the provider's example and keeps to the description.
func TestAnswersHaveTheShapeOfTheExamples(t *testing.T) {
	s, base := start(t, Options{})
	steps := []struct {
		operation, method, path string
		request, answer         string // examples
		status                  int
	}{
		{"createInviteFeedEntry", "POST", "/api/invitefeed", "createInviteFeedEntry.request", "createInviteFeedEntry.200", 200},
		{"createInviteFeedEntry", "POST", "/api/invitefeed", "createInviteFeedEntry.request", "createInviteFeedEntry.200", 200}, // skipped
		{"createInviteFeedEntries", "POST", "/api/invitefeeds", "createInviteFeedEntries.request", "createInviteFeedEntries.200", 200},
		{"createReferral", "POST", "/api/referrals", "createReferral.request", "createReferral.200", 200},
		{"createReferral", "POST", "/api/referrals", "createReferral.request.minimal", "createReferral.200", 200},
		{"getReferral", "GET", "/api/referral/single?externalId=invite-7f3a", "", "getReferral.200", 200},
		{"getReferral", "GET", "/api/referral/single?email=TOMAS.blei@example.com", "", "getReferral.200", 200},
		{"getReferral", "GET", "/api/referral/single?externalId=nobody", "", "getReferral.default.notfound", 404},
		{"getReferral", "GET", "/api/referral/single", "", "getReferral.default.notfound", 400},
		{"listReferrals", "GET", "/api/referrals?query=tomas.blei@example.com", "", "listReferrals.200", 200},
		{"listReferrals", "GET", "/api/referrals?programId=customers-2026&status=pending&sort=Create_Dt_Asc", "", "listReferrals.200", 200},
		{"listMembers", "GET", "/api/members?query=INES1042", "", "listMembers.200", 200},
		{"listMembers", "GET", "/api/members?offset=0&count=2&showDisabled=true&sort=Create_Dt_Desc", "", "listMembers.200", 200},
		{"listMembers", "GET", "/api/members?query=nobody@example.com", "", "listMembers.200.empty", 200},
		{"createMember", "POST", "/api/members?shouldSendEmail=false", "createMember.request", "createReferral.400.duplicate", 400}, // Ines is there
		{"getProgram", "GET", "/api/program/getsingle?programName=customers-2026", "", "getProgram.200", 200},
		{"getProgram", "GET", "/api/program/getsingle?programName=none", "", "getReferral.default.notfound", 404},
		{"listPrograms", "GET", "/api/programs", "", "listPrograms.200", 200},
		{"getEmailUnsubscribed", "GET", "/api/email/getunsubscribed?email=tomas.blei@example.com", "", "getEmailUnsubscribed.200.no", 200},
		{"unsubscribeEmail", "POST", "/api/email/unsubscribe", "unsubscribeEmail.request", "unsubscribeEmail.200", 200},
		{"getEmailUnsubscribed", "GET", "/api/email/getunsubscribed?email=Tomas.Blei@example.com", "", "getEmailUnsubscribed.200.yes", 200},
		{"removeEmailUnsubscribe", "POST", "/api/email/removeunsubscribe", "removeEmailUnsubscribe.request", "removeEmailUnsubscribe.200", 200},
		{"getEmailUnsubscribed", "GET", "/api/email/getunsubscribed", "", "getEmailUnsubscribed.200.yes", 200},
	}
	for _, step := range steps {
		var body []byte
		if step.request != "" {
			body = example(t, step.request)
		}
		a := must(t, base, step.method, step.path, body)
		if a.status != step.status {
			t.Fatalf("%s = %d %s, want %d", step.path, a.status, a.body, step.status)
		}
		var got, want any
		if err := json.Unmarshal(a.body, &got); err != nil {
			t.Fatalf("%s: %v", step.path, err)
		}
		if err := json.Unmarshal(example(t, step.answer), &want); err != nil {
			t.Fatal(err)
		}
		fits(t, step.operation, got, want)
		keeps(t, s, step.operation, a)
		if r := s.Received()[0]; r.Operation != step.operation || r.Status != step.status || r.Violation != "" {
			t.Errorf("received = %+v, want %s with %d and no violation", r, step.operation, step.status)
		}
	}
	if v := s.Violations(); len(v) != 0 {
		t.Errorf("violations = %+v, want none", v)
	}
}

// keeps checks an answer against the provider's description.
func keeps(t *testing.T, s *Server, operation string, a answer) {
	t.Helper()
	for _, r := range s.rock.contract.routes {
		if r.operation != operation {
			continue
		}
		schema := r.answers[fmt.Sprint(a.status)]
		if schema == nil {
			schema = r.answers["default"]
		}
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(a.body))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(v); err != nil {
			t.Errorf("%s: the answer breaks the description: %v\n%s", operation, err, a.body)
		}
		return
	}
	t.Errorf("no operation %s", operation)
}

func TestNewMember(t *testing.T) {
	s, base := start(t, Options{})
	a := must(t, base, "POST", "/api/members", []byte(`{"programId": "customers-2026", "firstName": "Grace", "email": "grace@example.com"}`))
	var want, got any
	_ = json.Unmarshal(example(t, "createMember.201"), &want)
	_ = json.Unmarshal(a.body, &got)
	if a.status != 201 {
		t.Fatalf("createMember = %d %s", a.status, a.body)
	}
	fits(t, "createMember", got, want)
	keeps(t, s, "createMember", a)
	if a := must(t, base, "POST", "/api/members", []byte(`{"programId": "none", "firstName": "Grace", "email": "g@example.com"}`)); a.status != 404 {
		t.Errorf("unknown program = %d, want 404", a.status)
	}
}

func TestInvitedContactBecomesAMember(t *testing.T) {
	s, base := start(t, Options{})
	must(t, base, "POST", "/api/invitefeed", []byte(`{"firstName": "Åse", "email": "Ase@Example.com"}`))
	var list struct {
		Members []struct{ Email, Status, ReferralCode, CreateDt string }
	}
	read := func() int {
		t.Helper()
		list.Members = nil
		if err := json.Unmarshal(must(t, base, "GET", "/api/members?query=ase%40example.com", nil).body, &list); err != nil {
			t.Fatal(err)
		}
		return len(list.Members)
	}
	if read() != 1 || list.Members[0].Status != "Invited" || list.Members[0].Email != "Ase@Example.com" || list.Members[0].ReferralCode == "" {
		t.Fatalf("members = %+v, want one, invited", list.Members)
	}
	if at, err := time.Parse(wireTime, list.Members[0].CreateDt); err != nil || time.Since(at) > time.Minute || time.Since(at) < 0 {
		t.Errorf("createDt = %q, want now in UTC", list.Members[0].CreateDt)
	}
	// Handed over again: skipped, and counted all the same.
	if a := must(t, base, "POST", "/api/invitefeed", []byte(`{"firstName": "Åse", "email": "ase@example.com"}`)); !strings.Contains(string(a.body), "Skipped") {
		t.Errorf("second entry = %s, want skipped", a.body)
	}
	want := []EffectCount{{EffectKey{Operation: "createInviteFeedEntry", Email: "ase@example.com"}, 2}}
	if got := s.Effects(); !slices.Equal(got.ByEmail, want) || got.Total != 2 || read() != 1 {
		t.Errorf("effects = %+v, members %d; want two effects and one member", got, len(list.Members))
	}
}

func TestVisibility(t *testing.T) {
	for _, c := range []struct {
		name     string
		settings Settings
		want     int
	}{
		{"at once", Settings{}, 200},
		{"later", Settings{VisibleAfter: time.Hour}, 404},
		{"never", Settings{Hidden: true}, 404},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, base := start(t, Options{Settings: c.settings})
			must(t, base, "POST", "/api/referrals", []byte(`{"referralCode": "ada2026", "externalIdentifier": "e1.nudge"}`))
			if a := must(t, base, "GET", "/api/referral/single?externalId=e1.nudge", nil); a.status != c.want {
				t.Errorf("getReferral = %d, want %d", a.status, c.want)
			}
			if n := s.Effects().ByExternalID; len(n) != 1 || n[0].Count != 1 {
				t.Errorf("effects = %+v, want one", n)
			}
		})
	}
}

func TestDuplicates(t *testing.T) {
	for _, c := range []struct {
		rule   Duplicates
		status int
		body   string
		count  int
	}{
		{DuplicatesPass, 200, "Referral Added", 2},
		{DuplicatesBlock, 400, `{"Message":"Duplicate referral"}`, 1},
		{DuplicatesRefuse, 200, `{"message":"Duplicate referral","referral":null}`, 1},
	} {
		t.Run(string(c.rule), func(t *testing.T) {
			s, base := start(t, Options{})
			s.Set(Settings{Duplicates: c.rule})
			first := `{"referralCode": "INES1042", "email": "tomas@example.com", "externalIdentifier": "x-1"}`
			must(t, base, "POST", "/api/referrals", []byte(first))
			a := must(t, base, "POST", "/api/referrals", []byte(first))
			if a.status != c.status || !strings.Contains(string(a.body), c.body) {
				t.Errorf("second referral = %d %s, want %d %s", a.status, a.body, c.status, c.body)
			}
			if got := s.Effects().ByExternalID; len(got) != 1 || got[0].Count != c.count {
				t.Errorf("effects = %+v, want %d", got, c.count)
			}
			if r := s.Received()[0]; r.Effect != (c.count == 2) {
				t.Errorf("received = %+v", r)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	long := []byte(`{"firstName": "` + strings.Repeat("x", maxBody) + `"}`)
	for _, c := range []struct {
		name, method, path string
		body               []byte
		status             int
		says               string // in the violation; empty: none
	}{
		{"required key missing", "POST", "/api/invitefeed", []byte(`{"firstName": "A"}`), 400, "email"},
		{"empty text where one is required", "POST", "/api/invitefeed", []byte(`{"firstName": "", "email": "a@example.com"}`), 400, "/firstName"},
		{"no address", "POST", "/api/invitefeed", []byte(`{"firstName": "A", "email": "nobody"}`), 400, "/email"},
		{"wrong type", "POST", "/api/referrals", []byte(`{"referralCode": 7}`), 400, "/referralCode"},
		{"null is allowed where it is said", "POST", "/api/referrals", []byte(`{"referralCode": "INES1042", "lastName": null}`), 200, ""},
		{"no value of the enumeration", "POST", "/api/referrals", []byte(`{"referralCode": "INES1042", "status": "paid"}`), 400, "/status"},
		{"number out of bounds", "POST", "/api/referrals", []byte(`{"referralCode": "INES1042", "amount": 1e999}`), 400, "out of bounds"},
		{"unknown key", "POST", "/api/referrals", []byte(`{"referralCode": "INES1042", "mail": "a@example.com"}`), 400, `"mail"`},
		{"unknown member", "POST", "/api/referrals", []byte(`{"referralCode": "NOBODY1"}`), 404, ""},
		{"an array for an object", "POST", "/api/invitefeed", []byte(`[]`), 400, "the body is wrong"},
		{"an object for an array", "POST", "/api/invitefeeds", []byte(`{}`), 400, "the body is wrong"},
		{"unknown key in an array", "POST", "/api/invitefeeds", []byte(`[{"firstName": "A", "email": "a@example.com", "x": 1}]`), 400, `"x"`},
		{"no JSON", "POST", "/api/invitefeed", []byte(`firstName=A`), 400, "not JSON"},
		{"nothing", "POST", "/api/invitefeed", []byte{}, 400, "not JSON"},
		{"too long", "POST", "/api/invitefeed", long, 413, "larger than 1 MiB"},
		{"unknown query parameter", "GET", "/api/members?mail=a", nil, 400, `"mail"`},
		{"query parameter twice", "GET", "/api/members?query=a&query=b", nil, 400, "query"},
		{"query that does not parse", "GET", "/api/members?query=%zz", nil, 400, "query"},
		{"query of the wrong type", "GET", "/api/members?offset=first", nil, 400, "offset"},
		{"query out of bounds", "GET", "/api/members?count=0", nil, 400, "count"},
		{"query of the wrong flag", "GET", "/api/members?showDisabled=1", nil, 400, "showDisabled"},
		{"query required", "GET", "/api/program/getsingle", nil, 400, "programName"},
		{"far beyond the end", "GET", "/api/members?offset=999999999", nil, 200, ""},
		{"unknown path", "GET", "/api/nothing", nil, 404, "no such path"},
		{"unknown method", "PUT", "/api/members", []byte(`{}`), 404, "no such path"},
		{"a path with a variable of no value", "GET", "/api/payouts/", nil, 404, "no such path"},
		{"a path with a variable out of its enumeration", "GET", "/api/hooks/history/Nothing", nil, 400, "eventName"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, base := start(t, Options{})
			a := must(t, base, c.method, c.path, c.body)
			if a.status != c.status {
				t.Errorf("status = %d %s, want %d", a.status, a.body, c.status)
			}
			if c.status >= 400 {
				var e map[string]string
				if err := json.Unmarshal(a.body, &e); err != nil || e["Message"] == "" || len(e) != 1 {
					t.Errorf("error body = %s, want the provider's shape", a.body)
				}
				if s.Effects().Total != 0 {
					t.Error("a refused request had an effect")
				}
			}
			v := s.Violations()
			if c.says == "" {
				if len(v) != 0 {
					t.Errorf("violations = %+v, want none", v)
				}
				return
			}
			if len(v) != 1 || !strings.Contains(v[0].Problem, c.says) || v[0].Provider != "referralrock" {
				t.Errorf("violations = %+v, want one that says %s", v, c.says)
			}
		})
	}
}

func TestCredentials(t *testing.T) {
	for _, c := range []struct {
		name           string
		opts           Options
		user, password string
		want           int
		violations     int
	}{
		{"any", Options{}, "a", "b", 200, 0},
		{"none", Options{}, "", "", 401, 1},
		{"half", Options{}, "a", "", 401, 1},
		{"the right ones", Options{PublicKey: "pk", PrivateKey: "sk"}, "pk", "sk", 200, 0},
		{"a wrong one", Options{PublicKey: "pk", PrivateKey: "sk"}, "pk", "other", 401, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, base := start(t, c.opts)
			req, _ := http.NewRequest("GET", base+"/referralrock/api/programs", nil)
			if c.user != "" {
				req.SetBasicAuth(c.user, c.password)
			}
			a, err := exchange(req)
			if err != nil || a.status != c.want {
				t.Errorf("status = %d, %v; want %d", a.status, err, c.want)
			}
			if want := example(t, "createReferral.401"); c.want == 401 && !sameJSON(a.body, want) {
				t.Errorf("body = %s, want %s", a.body, want)
			}
			if n := len(s.Violations()); n != c.violations {
				t.Errorf("%d violations, want %d", n, c.violations)
			}
		})
	}
}

func sameJSON(a, b []byte) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}

func TestContentTypeIsAsked(t *testing.T) {
	s, base := start(t, Options{})
	req, _ := http.NewRequest("POST", base+"/referralrock/api/invitefeed", bytes.NewReader(example(t, "createInviteFeedEntry.request")))
	req.SetBasicAuth("a", "b")
	req.Header.Set("Content-Type", "text/plain")
	if a, err := exchange(req); err != nil || a.status != 400 || len(s.Violations()) != 1 {
		t.Errorf("text/plain = %d, %v, %d violations; want 400 and one", a.status, err, len(s.Violations()))
	}
}

func TestActOnUnsubscribedAddressIsMarked(t *testing.T) {
	var seen []Received
	s, base := start(t, Options{OnRequest: func(r Received) { seen = append(seen, r) }})
	must(t, base, "POST", "/api/invitefeed", []byte(`{"firstName": "U", "email": "Unsubscribed@example.com"}`))
	must(t, base, "POST", "/api/invitefeed", []byte(`{"firstName": "A", "email": "a@example.com"}`))
	if len(seen) != 2 || !seen[0].Unsubscribed || seen[1].Unsubscribed || !seen[1].Effect {
		t.Errorf("seen = %+v, want the first marked", seen)
	}
	if got := s.Received(); len(got) != 2 || got[1] != seen[0] {
		t.Errorf("received = %+v, want what was seen, newest first", got)
	}
}

func TestOldRequestsAreForgotten(t *testing.T) {
	s, base := start(t, Options{Keep: 3})
	for i := range 10 {
		must(t, base, "GET", fmt.Sprintf("/api/members?query=q%d@example.com", i), nil)
	}
	got := s.Received()
	if len(got) != 3 || got[0].Email != "q9@example.com" || got[2].Email != "q7@example.com" {
		t.Errorf("received = %+v, want the last three, newest first", got)
	}
}

// Every effect is counted once, however many come at once.
func TestConcurrency(t *testing.T) {
	s, base := start(t, Options{})
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	defer client.CloseIdleConnections()
	var all sync.WaitGroup
	const workers, each = 16, 25
	for w := range workers {
		all.Go(func() {
			for i := range each {
				body := fmt.Sprintf(`{"referralCode": "INES1042", "email": "l%d@example.com", "externalIdentifier": "w%d.%d"}`, i, w, i)
				req, _ := http.NewRequest("POST", base+"/referralrock/api/referrals", strings.NewReader(body))
				req.SetBasicAuth("a", "b")
				req.Header.Set("Content-Type", "application/json")
				resp, err := client.Do(req)
				if err != nil {
					t.Error(err)
					continue
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != 200 {
					t.Errorf("status %d", resp.StatusCode)
				}
				s.Received()
				s.Effects()
			}
		})
	}
	all.Wait()
	e := s.Effects()
	if e.Total != workers*each || len(e.ByExternalID) != workers*each || len(e.ByEmail) != each {
		t.Errorf("effects = %d in all, %d external ids, %d addresses", e.Total, len(e.ByExternalID), len(e.ByEmail))
	}
	for _, c := range e.ByExternalID {
		if c.Count != 1 {
			t.Errorf("%s counted %d times", c.ExternalID, c.Count)
		}
	}
	s.Reset()
	if e := s.Effects(); e.Total != 0 || len(s.Received()) != 0 {
		t.Errorf("after reset: %+v", e)
	}
}
