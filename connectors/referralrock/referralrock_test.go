package referralrock_test

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/connectortest"
	"github.com/lodestonehq/lodestone/connectors/referralrock"
)

var secrets = map[string]connectors.Secret{
	referralrock.PublicKey: "pk-5f0d2c1b9a", referralrock.PrivateKey: "sk-77aa+/19c3",
}

const (
	added = `{"message": "Referral Added", "referral": {"id": "r-1", "status": "pending"}}`
	taken = `{"email": "ada@example.com", "outcome": "MemberPreloaded", "message": null}`
)

func invite(parameters map[string]any) connectors.Act {
	return connectors.Act{
		ID: "e1.invite", Operation: lodestone.VerbInvite, Email: "ada@example.com", Parameters: parameters,
		IntendedAt: time.Date(2026, 3, 6, 10, 10, 0, 700e6, time.UTC),
	}
}

func refer(parameters map[string]any) connectors.Act {
	act := invite(parameters)
	act.ID, act.Operation = "e1.nudge", lodestone.VerbRefer
	return act
}

func TestConformance(t *testing.T) {
	connectortest.Run(t, connectortest.Case{
		Kind:    referralrock.Kind(),
		Secrets: secrets,
		Acts: []connectortest.Act{
			{Act: invite(map[string]any{"firstName": "Ada"}), Status: 200, Answer: taken},
			{Act: refer(map[string]any{"referralCode": "INES1042"}), Status: 201, Answer: added},
		},
		Check: `[]`,
	})
}

// seen is a request as the provider got it.
type seen struct {
	Method, Path, Query, Body string
	User, Password            string
	ContentType               string
}

// provider answers every request with one status and body and keeps what it got.
type provider struct {
	mu   sync.Mutex // guards what follows
	seen []seen
}

func serve(t *testing.T, status int, body string) (*connectors.Account, *provider) {
	t.Helper()
	p := &provider{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		user, password, _ := r.BasicAuth()
		p.mu.Lock()
		p.seen = append(p.seen, seen{r.Method, r.URL.Path, r.URL.RawQuery, string(raw), user, password, r.Header.Get("Content-Type")})
		p.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(srv.Close)
	return account(t, srv.URL+"/sub", connectors.Settings{}), p
}

func account(t *testing.T, base string, s connectors.Settings) *connectors.Account {
	t.Helper()
	s.BaseURL, s.Secrets, s.Rate = base, secrets, 10000
	a, err := connectors.Open(referralrock.Kind(), s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (p *provider) only(t *testing.T) seen {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.seen) != 1 {
		t.Fatalf("the provider got %d requests, want 1", len(p.seen))
	}
	return p.seen[0]
}

func TestWhatIsSent(t *testing.T) {
	for _, c := range []struct {
		name   string
		act    connectors.Act
		answer string
		path   string
		body   map[string]any
	}{
		{
			"invite", invite(map[string]any{"firstName": "Ada", "lastName": "Lovelace", "contactType": "customer"}), taken, "/sub/api/invitefeed",
			map[string]any{"firstName": "Ada", "lastName": "Lovelace", "contactType": "customer", "email": "ada@example.com"},
		},
		{
			"invite of the address that the rule gives", invite(map[string]any{"firstName": "Ada", "email": "ada+work@example.com"}), taken, "/sub/api/invitefeed",
			map[string]any{"firstName": "Ada", "email": "ada+work@example.com"},
		},
		{
			"nil is absent", invite(map[string]any{"firstName": "Ada", "lastName": nil}), taken, "/sub/api/invitefeed",
			map[string]any{"firstName": "Ada", "email": "ada@example.com"},
		},
		{
			"refer carries the touchpoint's id", refer(map[string]any{"referralCode": "INES1042", "amount": 12.5}), added, "/sub/api/referrals",
			map[string]any{"referralCode": "INES1042", "amount": 12.5, "email": "ada@example.com", "externalIdentifier": "e1.nudge"},
		},
		{
			"refer carries the rule's id", refer(map[string]any{"referralCode": "INES1042", "externalIdentifier": "crm-7"}), added, "/sub/api/referrals",
			map[string]any{"referralCode": "INES1042", "email": "ada@example.com", "externalIdentifier": "crm-7"},
		},
		{
			"numbers and booleans become texts where texts are wanted", refer(map[string]any{"referralCode": 1042.0, "customText1Value": true}), added, "/sub/api/referrals",
			map[string]any{"referralCode": "1042", "customText1Value": "true", "email": "ada@example.com", "externalIdentifier": "e1.nudge"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, p := serve(t, 200, c.answer)
			if _, err := a.Do(t.Context(), c.act); err != nil {
				t.Fatal(err)
			}
			got := p.only(t)
			var body map[string]any
			if err := json.Unmarshal([]byte(got.Body), &body); err != nil || !maps.Equal(body, c.body) {
				t.Errorf("body = %s (%v), want %v", got.Body, err, c.body)
			}
			got.Body = ""
			want := seen{
				Method: "POST", Path: c.path, User: secrets[referralrock.PublicKey].Reveal(),
				Password: secrets[referralrock.PrivateKey].Reveal(), ContentType: "application/json",
			}
			if got != want {
				t.Errorf("request = %+v, want %+v", got, want)
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
		{"required parameter absent", invite(nil), "firstName"},
		{"required parameter empty", invite(map[string]any{"firstName": ""}), "firstName"},
		{"unknown parameter", invite(map[string]any{"firstName": "Ada", "frist": "x"}), "frist"},
		{"status can pay out and is no parameter", refer(map[string]any{"referralCode": "A", "status": "approved"}), "status"},
		{"text for a number", refer(map[string]any{"referralCode": "A", "amount": "much"}), "amount"},
		{"value of no type that JSON has here", refer(map[string]any{"referralCode": []string{"A"}}), "referralCode"},
		{"unknown operation", connectors.Act{ID: "e1.x", Operation: "explode", Email: "ada@example.com"}, "no such operation"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, p := serve(t, 200, added)
			_, err := a.Do(t.Context(), c.act)
			var f *connectors.Fault
			if !errors.As(err, &f) || f.Class != connectors.Refused || f.Reason != lodestone.ReasonBadParameters || f.CountsAttempt || !strings.Contains(f.Detail, c.says) {
				t.Errorf("Do = %v, want a refusal for bad parameters that names %q", err, c.says)
			}
			if len(p.seen) != 0 {
				t.Errorf("the provider got %+v, want nothing", p.seen)
			}
		})
	}
}

func TestAnswersToActs(t *testing.T) {
	someInvite, someReferral := invite(map[string]any{"firstName": "Ada"}), refer(map[string]any{"referralCode": "INES1042"})
	for _, c := range []struct {
		name      string
		act       connectors.Act
		status    int
		body      string
		class     connectors.Class // empty: done
		reference string
		detail    string
	}{
		{"invited", someInvite, 200, taken, "", "", "MemberPreloaded"},
		{"skipped is done too", someInvite, 200, `{"outcome": "Skipped", "message": "Already a member"}`, "", "", "Skipped: Already a member"},
		{"an object without words is done", someInvite, 200, `{}`, "", "", ""},
		{"words that are none do no harm", someInvite, 200, `{"outcome": 7, "message": ["a"]}`, "", "", ""},
		{"an address in the words is masked", someInvite, 200, `{"message": "Invited ada@example.com"}`, "", "", "Invited <address>"},
		{"an array is not what was expected", someInvite, 200, `[{"outcome": "MemberPreloaded"}]`, connectors.Unknown, "", ""},

		{"referred", someReferral, 200, added, "", "r-1", "Referral Added"},
		{"referred, 201", someReferral, 201, added, "", "r-1", "Referral Added"},
		{"keys in another case", someReferral, 200, `{"Message": "Referral Added", "Referral": {"Id": "r-1"}}`, "", "r-1", "Referral Added"},
		{"odd values that nobody needs", someReferral, 200, `{"referral": {"id": "r-1", "amount": "lots", "createDate": {}}}`, "", "r-1", ""},
		{"an id that is a number", someReferral, 200, `{"referral": {"id": 77}}`, "", "77", ""},
		{"a message and no referral is a refusal", someReferral, 200, `{"message": "Duplicate referral", "referral": null}`, connectors.Refused, "", "Duplicate referral"},
		{"the same without the key", someReferral, 200, `{"message": "Duplicate referral"}`, connectors.Refused, "", "Duplicate referral"},
		{"a duplicate by status", someReferral, 400, `{"Message": "Duplicate referral"}`, connectors.Refused, "", "Duplicate referral"},
		{"a referral without an id", someReferral, 200, `{"message": "Referral Added", "referral": {}}`, connectors.Unknown, "", ""},
		{"neither", someReferral, 200, `{}`, connectors.Unknown, "", ""},
		{"an id that is neither text nor number", someReferral, 200, `{"referral": {"id": {}}}`, connectors.Unknown, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, _ := serve(t, c.status, c.body)
			r, err := a.Do(t.Context(), c.act)
			if c.class == "" {
				if want := (connectors.Receipt{Reference: c.reference, Detail: c.detail, Status: c.status, Skipped: strings.HasPrefix(c.detail, "Skipped")}); err != nil || r != want {
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

func TestUnsubscribed(t *testing.T) {
	for _, c := range []struct {
		body         string
		unsubscribed bool
		fails        bool
	}{
		{body: `[]`},
		{body: `["ada@example.com"]`, unsubscribed: true},
		{body: `["ADA@Example.com "]`, unsubscribed: true},
		{body: `["bob@example.com", "ada@example.com"]`, unsubscribed: true},
		{body: `[{"email": "x"}, "ada@example.com"]`, unsubscribed: true},
		{body: `true`, unsubscribed: true},
		{body: `false`},
		{body: `{"unsubscribed": true}`, unsubscribed: true},
		{body: `{"email": "ada@example.com", "unsubscribed": true}`, unsubscribed: true},
		{body: `{"Email": "ADA@example.com", "Unsubscribed": false}`},
		{body: `{"unsubscribed": false, "Unsubscribed": true}`, unsubscribed: true},
		{body: `["bob@example.com"]`, fails: true},
		{body: `[{"email": "ada@example.com"}]`, fails: true},
		{body: `[null]`, fails: true},
		{body: `{"email": "bob@example.com", "unsubscribed": false}`, fails: true},
		{body: `{"unsubscribed": "no"}`, fails: true},
		{body: `{"unsubscribed": null}`, fails: true},
		{body: `{"subscribed": true}`, fails: true},
		{body: `{}`, fails: true},
		{body: `null`, fails: true},
		{body: `0`, fails: true},
		{body: `"false"`, fails: true},
		{body: `"ada@example.com"`, fails: true},
		{body: `[] []`, fails: true},
		{body: `false]`, fails: true},
		{body: ``, fails: true},
		{body: `{"Message": "An error has occurred."}`, fails: true},
	} {
		t.Run(c.body, func(t *testing.T) {
			a, p := serve(t, 200, c.body)
			s, err := a.Unsubscribed(t.Context(), "ada@example.com")
			if c.fails {
				var f *connectors.Fault
				if !errors.As(err, &f) || f.Class != connectors.Failed {
					t.Errorf("Unsubscribed = %+v, %v; want a failed check", s, err)
				}
			} else if err != nil || s.Unsubscribed != c.unsubscribed || s.Kind != connectors.SuppressionProvider {
				t.Errorf("Unsubscribed = %+v, %v; want %t", s, err, c.unsubscribed)
			}
			if got := p.only(t); got.Method != "GET" || got.Path != "/sub/api/email/getunsubscribed" || got.Query != "email=ada%40example.com" {
				t.Errorf("request = %+v", got)
			}
		})
	}
}

// An address holds characters that mean something in a query.
func TestAddressInQuery(t *testing.T) {
	a, p := serve(t, 200, `[]`)
	const email = "a+b&c=d#e%f(x)@example.com"
	if _, err := a.Unsubscribed(t.Context(), email); err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("GET", "/?"+p.only(t).Query, nil)
	if got := r.URL.Query().Get("email"); got != email {
		t.Errorf("the provider reads the address as %q, want %q", got, email)
	}
}

func TestLocalOnly(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/programs" {
			t.Errorf("the provider was asked for %s", r.URL.Path)
		}
		_, _ = io.WriteString(w, `{"programs": []}`)
	}))
	defer srv.Close()
	a := account(t, srv.URL, connectors.Settings{Suppression: connectors.SuppressionLocalOnly})
	s, err := a.Unsubscribed(t.Context(), "ada@example.com")
	if err != nil || s.Unsubscribed || s.Kind != connectors.SuppressionLocalOnly {
		t.Errorf("Unsubscribed = %+v, %v; want the local list alone", s, err)
	}
	if a.Capabilities().Check {
		t.Error("Capabilities().Check = true, want false: nobody is asked")
	}
	if err := a.Probe(t.Context()); err != nil {
		t.Errorf("Probe = %v, want none", err)
	}
}

func TestFindReferral(t *testing.T) {
	ours, theirs := refer(map[string]any{"referralCode": "A"}), refer(map[string]any{"referralCode": "A", "externalIdentifier": "crm-7"})
	for _, c := range []struct {
		name   string
		act    connectors.Act
		status int
		body   string
		want   connectors.FindingState
	}{
		{"found", ours, 200, `{"id": "r-1", "externalIdentifier": "e1.nudge", "status": "pending"}`, connectors.Found},
		{"another referral", ours, 200, `{"id": "r-1", "externalIdentifier": "e1.nudge2"}`, connectors.Unclear},
		{"no external identifier", ours, 200, `{"id": "r-1"}`, connectors.Unclear},
		{"no id", ours, 200, `{"externalIdentifier": "e1.nudge"}`, connectors.Unclear},
		{"not an object", ours, 200, `[{"id": "r-1", "externalIdentifier": "e1.nudge"}]`, connectors.Unclear},
		{"absent", ours, 404, `{"Message": "Referral not found"}`, connectors.Absent},
		{"absent in other letters", ours, 404, `{"message": "nope"}`, connectors.Absent},
		{"a 404 of the web framework", ours, 404, `{"Message": "No HTTP resource was found that matches the request URI 'x'."}`, connectors.Unclear},
		{"a 404 without words", ours, 404, `{}`, connectors.Unclear},
		{"a 404 in HTML", ours, 404, `<p>not found`, connectors.Unclear},
		{"the rule's, made after the intent, of the lead", theirs, 200, `{"id": "r-1", "externalIdentifier": "crm-7", "email": "Ada@example.com", "createDate": "2026-03-06T10:10:00"}`, connectors.Found},
		{"the rule's, from before", theirs, 200, `{"id": "r-1", "externalIdentifier": "crm-7", "email": "ada@example.com", "createDate": "2026-03-01T10:10:00"}`, connectors.Unclear},
		{"the rule's, of another person", theirs, 200, `{"id": "r-1", "externalIdentifier": "crm-7", "email": "bob@example.com", "createDate": "2026-03-06T10:10:00"}`, connectors.Unclear},
		{"the rule's, undated", theirs, 200, `{"id": "r-1", "externalIdentifier": "crm-7", "email": "ada@example.com"}`, connectors.Unclear},
		{"the rule's, absent", theirs, 404, `{"Message": "Referral not found"}`, connectors.Absent},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, p := serve(t, c.status, c.body)
			f, err := a.Find(t.Context(), c.act)
			if err != nil || f.State != c.want || f.Evidence == "" || (c.want == connectors.Found) != (f.Reference == "r-1") {
				t.Errorf("Find = %+v, %v; want %s", f, err, c.want)
			}
			want := "externalId=e1.nudge"
			if c.act.Parameters["externalIdentifier"] != nil {
				want = "externalId=crm-7"
			}
			if got := p.only(t); got.Path != "/sub/api/referral/single" || got.Query != want {
				t.Errorf("request = %+v, want query %s", got, want)
			}
		})
	}
}

func TestFindMember(t *testing.T) {
	act := invite(map[string]any{"firstName": "Ada"}) // intended at 10:10:00.7
	member := func(email, created string) string {
		return `{"id": "m-1", "email": "` + email + `", "createDt": "` + created + `", "status": "Invited"}`
	}
	for _, c := range []struct {
		name    string
		members []string
		want    connectors.FindingState
	}{
		{"created after the intent", []string{member("Ada@Example.com", "2026-03-06T10:10:05")}, connectors.Found},
		{"created in the same second, which is cut off", []string{member("ada@example.com", "2026-03-06T10:10:00")}, connectors.Found},
		{"by a clock that is half a minute behind", []string{member("ada@example.com", "2026-03-06T10:09:31")}, connectors.Found},
		{"in another zone", []string{member("ada@example.com", "2026-03-06T05:10:05-05:00")}, connectors.Found},
		{"with fractions", []string{member("ada@example.com", "2026-03-06T10:10:05.123")}, connectors.Found},
		{"in the other form", []string{member("ada@example.com", "03/06/2026 10:10:05")}, connectors.Found},
		{"second of two", []string{member("ada@example.com", "2026-01-01T00:00:00"), member("ada@example.com", "2026-03-06T10:10:05")}, connectors.Found},
		{"created before", []string{member("ada@example.com", "2026-03-06T10:08:00")}, connectors.Unclear},
		{"an address that only begins alike", []string{member("ada@example.com.org", "2026-03-06T10:10:05")}, connectors.Unclear},
		{"undated", []string{member("ada@example.com", "")}, connectors.Unclear},
		{"dated in words", []string{member("ada@example.com", "yesterday")}, connectors.Unclear},
		{"none", nil, connectors.Unclear},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, p := serve(t, 200, `{"offset": 0, "total": 1, "message": null, "members": [`+strings.Join(c.members, ",")+`]}`)
			f, err := a.Find(t.Context(), act)
			if err != nil || f.State != c.want || f.Evidence == "" || (c.want == connectors.Found) != (f.Reference == "m-1") {
				t.Errorf("Find = %+v, %v; want %s", f, err, c.want)
			}
			r := httptest.NewRequest("GET", "/?"+p.only(t).Query, nil)
			if q := r.URL.Query(); q.Get("query") != "ada@example.com" || q.Get("showDisabled") != "true" {
				t.Errorf("query = %v", q)
			}
		})
	}
}

func TestFindUnsupported(t *testing.T) {
	a, p := serve(t, 200, `{}`)
	act := invite(nil)
	act.Operation = "createMember"
	if f, err := a.Find(t.Context(), act); err != nil || f.State != connectors.Unsupported || len(p.seen) != 0 {
		t.Errorf("Find = %+v, %v after %d requests; want unsupported after none", f, err, len(p.seen))
	}
}

// What rules may set follows from the provider's description; status stays out, it can pay out.
func TestOperations(t *testing.T) {
	k := referralrock.Kind()
	invite, ok := k.Operation(lodestone.VerbInvite)
	if !ok {
		t.Fatal("no invite")
	}
	var names []string
	for _, p := range invite.Parameters {
		names = append(names, p.Name)
		if p.Required != (p.Name == "firstName") {
			t.Errorf("%s required = %t", p.Name, p.Required)
		}
	}
	if want := []string{"firstName", "contactType", "email", "lastName"}; !slices.Equal(names, want) {
		t.Errorf("invite takes %v, want %v", names, want)
	}
	refer, _ := k.Operation(lodestone.VerbRefer)
	if _, there := refer.Parameter("status"); there || len(refer.Parameters) != 28 {
		t.Errorf("refer takes %d parameters, status among them: %t; want 28 without", len(refer.Parameters), there)
	}
	if p, _ := refer.Parameter("amount"); p.Type != lodestone.FieldNumber {
		t.Errorf("amount is a %s, want a number", p.Type)
	}
}

func TestSpecificationIsACopy(t *testing.T) {
	a := referralrock.Specification()
	a[0] = '!'
	if b := referralrock.Specification(); b[0] == '!' || !strings.Contains(string(b), "openapi: 3.0.3") {
		t.Error("Specification hands out its own bytes")
	}
}
