package sandbox

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

var oneInvite = []byte(`{"firstName": "Ada", "email": "ada@example.com"}`)

// What each fault looks like from outside, and whether the contact was taken.
func TestFaults(t *testing.T) {
	for _, c := range []struct {
		fault   Fault
		status  int // 0: no answer, or half of one
		body    string
		after   string // Retry-After
		effects int
	}{
		{Fault{Kind: Fault429}, 429, `"API calls quota exceeded."`, "", 0},
		{Fault{Kind: Fault429, RetryAfter: "120"}, 429, `"Message"`, "120", 0},
		{Fault{Kind: Fault500}, 500, `"Message"`, "", 0},
		{Fault{Kind: Fault500AfterEffect}, 500, `"Message"`, "", 1},
		{Fault{Kind: Fault503}, 503, `"Message"`, "", 0},
		{Fault{Kind: Fault503, RetryAfter: "Sat, 21 Nov 2026 12:01:30 GMT"}, 503, `"Message"`, "Sat, 21 Nov 2026 12:01:30 GMT", 0},
		{Fault{Kind: Fault401}, 401, "Authorization has been denied", "", 0},
		{Fault{Kind: FaultSlow, Delay: time.Millisecond}, 200, "MemberPreloaded", "", 1},
		{Fault{Kind: FaultHang, Delay: time.Millisecond}, 0, "", "", 0},
		{Fault{Kind: FaultHangAfterEffect, Delay: time.Millisecond}, 0, "", "", 1},
		{Fault{Kind: FaultReset}, 0, "", "", 0},
		{Fault{Kind: FaultResetAfterEffect}, 0, "", "", 1},
		{Fault{Kind: FaultTruncate}, 0, "", "", 1},
		{Fault{Kind: FaultHTML}, 200, "<!doctype html>", "", 0},
		{Fault{Kind: FaultOutage}, 0, "", "", 0},
	} {
		t.Run(string(c.fault.Kind)+" "+c.fault.RetryAfter, func(t *testing.T) {
			s, base := start(t, Options{})
			c.fault.Operation, c.fault.Times = "invite", 1
			if err := s.Fault(c.fault); err != nil {
				t.Fatal(err)
			}
			a, err := call(t, base, "POST", "/api/invitefeed", oneInvite)
			switch {
			case c.status == 0 && err == nil:
				t.Errorf("answer = %d %s, want none or half of one", a.status, a.body)
			case c.status != 0 && (err != nil || a.status != c.status || !strings.Contains(string(a.body), c.body) || a.header.Get("Retry-After") != c.after):
				t.Errorf("answer = %d %s (Retry-After %q), %v; want %d with %s", a.status, a.body, a.header.Get("Retry-After"), err, c.status, c.body)
			}
			if got := s.Effects().Total; got != c.effects {
				t.Errorf("%d effects, want %d", got, c.effects)
			}
			r := s.Received()[0]
			want := c.status
			if c.fault.Kind == FaultTruncate {
				want = 200 // it was sent, in part
			}
			if r.Fault != c.fault.Kind || r.Effect != (c.effects == 1) || r.Status != want || r.Email != "ada@example.com" {
				t.Errorf("received = %+v", r)
			}
			if len(s.Faults()) != 0 {
				t.Error("a fault for one request is still on")
			}
			if a := must(t, base, "POST", "/api/invitefeed", oneInvite); a.status != 200 {
				t.Errorf("the request after it = %d", a.status)
			}
		})
	}
}

func TestFaultsFitWhatTheyName(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault Fault
		fits  bool
	}{
		{"everything", Fault{}, true},
		{"the verb", Fault{Operation: "refer"}, true},
		{"the operation", Fault{Operation: "createReferral"}, true},
		{"another operation", Fault{Operation: "createMember"}, false},
		{"the address, in other letters", Fault{Email: "Ada@Example.com"}, true},
		{"another address", Fault{Email: "bob@example.com"}, false},
		{"the external id", Fault{ExternalID: "e1.nudge"}, true},
		{"another external id", Fault{ExternalID: "e1"}, false},
		{"all that fits", Fault{Operation: "refer", Email: "ada@example.com", ExternalID: "e1.nudge"}, true},
		{"all but one", Fault{Operation: "refer", Email: "ada@example.com", ExternalID: "e2.nudge"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, base := start(t, Options{})
			c.fault.Kind = Fault500
			if err := s.Fault(c.fault); err != nil {
				t.Fatal(err)
			}
			for range 2 { // it stays on
				a := must(t, base, "POST", "/api/referrals", []byte(`{"referralCode": "ADA2026", "email": "ada@example.com", "externalIdentifier": "e1.nudge"}`))
				if (a.status == 500) != c.fits {
					t.Errorf("status = %d, fits = %t", a.status, c.fits)
				}
			}
		})
	}
}

func TestFaultByAddressFitsReadsToo(t *testing.T) {
	s, base := start(t, Options{})
	if err := s.Fault(Fault{Kind: Fault503, Email: "ada@example.com"}); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{
		"/api/email/getunsubscribed?email=ada%40example.com": 503,
		"/api/email/getunsubscribed?email=bob%40example.com": 200,
		"/api/members?query=ada%40example.com":               503,
	} {
		if a := must(t, base, "GET", path, nil); a.status != want {
			t.Errorf("%s = %d, want %d", path, a.status, want)
		}
	}
	if a := must(t, base, "POST", "/api/email/unsubscribe", []byte(`"ada@example.com"`)); a.status != 503 {
		t.Errorf("a bare address in the body = %d, want 503", a.status)
	}
}

func TestTimesAndOrder(t *testing.T) {
	s, base := start(t, Options{})
	for _, f := range []Fault{{Kind: Fault500}, {Kind: Fault429, Times: 2}} {
		if err := s.Fault(f); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []int{429, 429, 500, 500} {
		if a := must(t, base, "GET", "/api/programs", nil); a.status != want {
			t.Errorf("request %d = %d, want %d", i, a.status, want)
		}
		if left := s.Faults(); i == 0 && left[0].Times != 1 {
			t.Errorf("faults = %+v, want one time left", left)
		}
	}
}

// What hangs lets go when the faults are cleared, and when the client goes away.
func TestHangEnds(t *testing.T) {
	arrived := make(chan struct{}, 2)
	s, base := start(t, Options{OnRequest: func(Received) { arrived <- struct{}{} }})
	if err := s.Fault(Fault{Kind: FaultHang}); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		_, err := call(t, base, "GET", "/api/programs", nil)
		done <- err
	}()
	<-arrived
	s.Clear()
	if err := <-done; err == nil {
		t.Error("a cleared hang gave an answer")
	}
	if a := must(t, base, "GET", "/api/programs", nil); a.status != 200 {
		t.Errorf("after Clear = %d", a.status)
	}
}

func admin(t *testing.T, base, method, path, body string) answer {
	t.Helper()
	req, err := http.NewRequest(method, base+"/_sandbox/"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	a, err := exchange(req)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAdmin(t *testing.T) {
	s, base := start(t, Options{})
	a := admin(t, base, "POST", "faults", `{"operation": "invite", "kind": "503", "times": 1, "retry_after": 7, "delay": "1.5s", "email": "ada@example.com"}`)
	if a.status != 201 {
		t.Fatalf("POST faults = %d %s", a.status, a.body)
	}
	want := Fault{Kind: Fault503, Operation: "createInviteFeedEntry", Email: "ada@example.com", Times: 1, RetryAfter: "7", Delay: 1500 * time.Millisecond}
	if got := s.Faults(); len(got) != 1 || got[0] != want {
		t.Errorf("faults = %+v, want %+v", got, want)
	}
	var listed []Fault
	if err := json.Unmarshal(admin(t, base, "GET", "faults", "").body, &listed); err != nil || len(listed) != 1 || listed[0] != want {
		t.Errorf("GET faults = %+v, %v; want what was sent", listed, err)
	}
	if got := must(t, base, "POST", "/api/invitefeed", oneInvite); got.status != 503 || got.header.Get("Retry-After") != "7" {
		t.Errorf("invite = %d", got.status)
	}
	admin(t, base, "POST", "faults", `{"kind": "outage"}`)
	if got := admin(t, base, "DELETE", "faults", ""); got.status != 200 || string(got.body) != "[]" {
		t.Errorf("DELETE faults = %d %s", got.status, got.body)
	}
	must(t, base, "POST", "/api/invitefeed", oneInvite)
	must(t, base, "POST", "/api/invitefeed", []byte(`{}`))

	var received []Received
	if err := json.Unmarshal(admin(t, base, "GET", "received", "").body, &received); err != nil || len(received) != 3 || received[1].Email != "ada@example.com" || !received[1].Effect || received[2].Fault != Fault503 {
		t.Errorf("received = %+v, %v", received, err)
	}
	var effects Effects
	if err := json.Unmarshal(admin(t, base, "GET", "effects", "").body, &effects); err != nil || effects.Total != 1 || effects.ByEmail[0].Count != 1 {
		t.Errorf("effects = %+v, %v", effects, err)
	}
	var violations []Violation
	if err := json.Unmarshal(admin(t, base, "GET", "violations", "").body, &violations); err != nil || len(violations) != 1 || violations[0].Operation != "createInviteFeedEntry" {
		t.Errorf("violations = %+v, %v", violations, err)
	}

	if got := admin(t, base, "POST", "settings", `{"duplicates": "block", "visible_after": "2s"}`); got.status != 200 || s.Settings() != (Settings{Duplicates: DuplicatesBlock, VisibleAfter: 2 * time.Second}) {
		t.Errorf("POST settings = %d %s, settings %+v", got.status, got.body, s.Settings())
	}
	if got := admin(t, base, "POST", "settings", `{"hidden": true}`); got.status != 200 || s.Settings() != (Settings{Duplicates: DuplicatesBlock, VisibleAfter: 2 * time.Second, Hidden: true}) {
		t.Errorf("what is left out does not stay: %+v", s.Settings())
	}
	if got := admin(t, base, "POST", "reset", ""); got.status != 200 || s.Effects().Total != 0 || s.Settings() != (Settings{Duplicates: DuplicatesPass}) {
		t.Errorf("POST reset = %d, effects %+v, settings %+v", got.status, s.Effects(), s.Settings())
	}
	if got := must(t, base, "GET", "/api/members?query=ada%40example.com", nil); !strings.Contains(string(got.body), `"members":[]`) {
		t.Errorf("a member outlived the reset: %s", got.body)
	}
}

func TestAdminRefuses(t *testing.T) {
	_, base := start(t, Options{})
	for _, c := range []struct{ path, body, says string }{
		{"faults", `{"kind": "fire"}`, "kind must be one of"},
		{"faults", `{}`, "kind must be one of"},
		{"faults", `{"kind": "500", "times": -1}`, "times"},
		{"faults", `{"kind": "500", "time": 1}`, "time"},
		{"faults", `{"kind": "slow", "delay": "soon"}`, "delay"},
		{"faults", `{"kind": "slow", "delay": -1}`, "delay"},
		{"faults", `{"kind": "slow", "delay": true}`, "delay"},
		{"faults", `{"kind": "429", "retry_after": []}`, "retry_after"},
		{"faults", `{"kind": "429", "retry_after": "1\r\nX: y"}`, "retry_after"},
		{"faults", `{"kind": "500"} {}`, "more than one"},
		{"faults", `kind=500`, ""},
		{"settings", `{"duplicates": "maybe"}`, "duplicates"},
		{"settings", `{"visible_after": "later"}`, "visible_after"},
		{"settings", `{"visable_after": 1}`, "visable_after"},
	} {
		a := admin(t, base, "POST", c.path, c.body)
		var problem struct {
			Detail string
			Status int
		}
		if err := json.Unmarshal(a.body, &problem); err != nil || a.status != 400 || problem.Status != 400 || !strings.Contains(problem.Detail, c.says) || a.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s = %d %s, want 400 that says %q", c.path, c.body, a.status, a.body, c.says)
		}
	}
	// What a page in a browser may send without asking.
	req, _ := http.NewRequest("POST", base+"/_sandbox/faults", strings.NewReader(`{"kind": "outage"}`))
	req.Header.Set("Content-Type", "text/plain")
	if a, err := exchange(req); err != nil || a.status != 400 {
		t.Errorf("text/plain = %d, %v; want 400", a.status, err)
	}
}

// The sandbox answers whatever it is sent, in JSON, and never breaks.
func FuzzProvider(f *testing.F) {
	f.Add("POST", "/api/invitefeed", "", oneInvite)
	f.Add("POST", "/api/invitefeeds", "", []byte(`[{"firstName": "A", "email": "a@example.com"}]`))
	f.Add("POST", "/api/referrals", "", []byte(`{"referralCode": "INES1042", "amount": 1e999}`))
	f.Add("POST", "/api/members", "shouldSendEmail=x", []byte(`{"programId": "customers-2026", "firstName": "A", "email": "a@example.com", "payoutInfo": null}`))
	f.Add("POST", "/api/email/unsubscribe", "", []byte(`"a@example.com"`))
	f.Add("GET", "/api/members", "offset=-1&count=99999999999999999999", []byte(nil))
	f.Add("GET", "/api/referral/single", "externalId=%zz", []byte(nil))
	f.Add("PATCH", "/../_sandbox", "", []byte(`[[[[`))
	s := New(Options{Keep: 10})
	silence(s)
	f.Fuzz(func(t *testing.T, method, path, query string, body []byte) {
		r := httptest.NewRequest("GET", "/referralrock/", bytes.NewReader(body))
		r.Method, r.URL.Path, r.URL.RawQuery = method, "/referralrock/"+strings.TrimPrefix(path, "/"), query
		r.SetBasicAuth("a", "b")
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		if w.Code >= 300 && w.Code < 400 {
			return // the multiplexer tidies odd paths
		}
		raw, _ := io.ReadAll(w.Result().Body)
		if strings.HasPrefix(r.URL.Path, "/referralrock/") && w.Header().Get("Content-Type") == "application/json; charset=utf-8" && !json.Valid(raw) {
			t.Fatalf("%s %s = %d %q", method, path, w.Code, raw)
		}
		if w.Code >= 500 && w.Code != http.StatusNotImplemented {
			t.Fatalf("%s %s = %d %s", method, path, w.Code, raw)
		}
	})
}

func FuzzFaultJSON(f *testing.F) {
	for _, s := range []string{`{"kind":"500"}`, `{"kind":"slow","delay":"2s"}`, `{"delay":1e300}`, `{"retry_after":1e-9}`, `null`, `[]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var a, b Fault
		if json.Unmarshal(raw, &a) != nil {
			return
		}
		out, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(out, &b); err != nil || a != b {
			t.Fatalf("%s becomes %+v, then %s, then %+v (%v)", raw, a, out, b, err)
		}
	})
}

func TestFaultOfNoOperation(t *testing.T) {
	s := New(Options{})
	defer s.Close()
	for operation, says := range map[string]string{
		"createReferal": "createReferral", "getuser": "getUser", "explode": "`lodestone operations` lists them",
	} {
		if err := s.Fault(Fault{Kind: Fault500, Operation: operation}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("Fault of %s = %v, want a refusal that names %s", operation, err, says)
		}
	}
	for _, operation := range []string{"", "invite", "refer", "searchUsers", "deleteReferral", "moderateReferrals"} {
		if err := s.Fault(Fault{Kind: Fault500, Operation: operation}); err != nil {
			t.Errorf("Fault of %q = %v", operation, err)
		}
	}
}
