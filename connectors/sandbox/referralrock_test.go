package sandbox

import (
	"net/http"
	"testing"

	"github.com/lodestonehq/lodestone"
)

// The DELETE form takes the address from the body or the query, because some proxies drop the body of a
// DELETE.
func TestUnsubscribeIsTakenBackByBodyOrQuery(t *testing.T) {
	for _, c := range []struct {
		name, query string
		body        []byte
		status      int
		left        string
	}{
		{"body", "", []byte(`"Unsubscribed@example.com"`), 200, "[]"},
		{"query", "?email=unsubscribed@example.com", nil, 200, "[]"},
		{"both, the body counts", "?email=other@example.com", []byte(`"unsubscribed@example.com"`), 200, "[]"},
		{"neither", "", nil, 400, `["unsubscribed@example.com"]`},
		{"no address", "?email=nobody", nil, 400, `["unsubscribed@example.com"]`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, base := start(t, Options{})
			if a := must(t, base, "DELETE", "/api/email/removeunsubscribe"+c.query, c.body); a.status != c.status {
				t.Errorf("status = %d %s, want %d", a.status, a.body, c.status)
			}
			if n := len(s.Violations()); (n == 1) != (c.status == 400) {
				t.Errorf("%d violations after %d", n, c.status)
			}
			if a := must(t, base, "GET", "/api/email/getunsubscribed", nil); string(a.body) != c.left {
				t.Errorf("unsubscribed = %s, want %s", a.body, c.left)
			}
		})
	}
}

func TestAmountsBeyondReasonAreRefused(t *testing.T) {
	for path, body := range map[string]string{
		"/api/referrals":        `{"referralCode": "INES1042", "amount": 1e308}`,
		"/api/referralaction":   `{"amount": -1e13, "referralQuery": "crm-2041"}`,
		"/api/referrals/status": `{"referralId": "2e7f7b52-6c0d-4c3e-9f3e-6f7a9c1d2e03", "status": "approved", "amount": 1e300}`,
		"/api/referral/update":  `[{"query": {}, "referral": {"amount": 1e13}}]`,
	} {
		s, base := start(t, Options{})
		if a := must(t, base, "POST", path, []byte(body)); a.status != http.StatusBadRequest || len(s.Violations()) != 1 || s.Effects().Total != 0 {
			t.Errorf("%s = %d %s, want 400, a violation and no effect", path, a.status, a.body)
		}
	}
}

// What an opted-out person would hear of is marked; what only tidies up is not.
func TestOnlyContactIsMarkedAsAgainstAnOptOut(t *testing.T) {
	const who = "rosa.keller@example.com"
	for _, c := range []struct {
		method, path, body string
		marked             bool
	}{
		{"POST", "/api/invitefeed", `{"firstName": "R", "email": "` + who + `"}`, true},
		{"POST", "/api/referrals/status", `{"referralId": "2e7f7b52-6c0d-4c3e-9f3e-6f7a9c1d2e01", "status": "approved"}`, true},
		{"POST", "/api/referralaction", `{"amount": 1, "referralQuery": "` + who + `"}`, true},
		{"POST", "/api/email/unsubscribe", `"` + who + `"`, false},
		{"DELETE", "/api/referral/remove", `[{"query": {"primaryInfo": {"referralId": "2e7f7b52-6c0d-4c3e-9f3e-6f7a9c1d2e01"}}}]`, false},
	} {
		s, base := start(t, Options{Unsubscribed: []lodestone.Email{who}})
		must(t, base, c.method, c.path, []byte(c.body))
		if r := s.Received()[0]; !r.Effect || r.Unsubscribed != c.marked {
			t.Errorf("%s %s: %+v, want an effect and marked %t", c.method, c.path, r, c.marked)
		}
	}
}
