package sandbox

import (
	"bytes"
	"cmp"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// silence keeps webhooks away from whatever address a fuzzer makes up.
func silence(s *Server) {
	s.rock.hooks.rt = roundTrip(func(*http.Request) (*http.Response, error) { return answered(http.StatusOK) })
}

// Whatever the body and the query of an operation, the answer keeps to the description, nothing panics,
// and what was refused had no effect.
func FuzzRockOperations(f *testing.F) {
	for _, seed := range []string{
		`{"amount": 1e308, "referralQuery": "crm-2041"}`, `{"amount": -1, "referralQuery": "crm-2041"}`,
		`{"referralCode": "INES1042", "amount": 1.7e308, "status": "approved"}`,
		`{"referralId": "2e7f7b52-6c0d-4c3e-9f3e-6f7a9c1d2e03", "status": "approved", "amount": 1e300}`,
		`[{"query": {"primaryInfo": {"referralId": "2e7f7b52-6c0d-4c3e-9f3e-6f7a9c1d2e03"}}, "referral": {"amount": 1e308}}]`,
		`[{"query": {"fuzzyInfo": {"Identifier": "crm-2042"}}}]`, `[{"query": {"primaryInfo": null, "secondaryInfo": {"email": null}}}]`, `[{"query": null}]`,
		`["9a4f0c1e-55aa-4b6b-8d0f-1f2e3d4c5b06", ""]`, `{"rewardId": ""}`, `{"rewardId": "9a4f0c1e-55aa-4b6b-8d0f-1f2e3d4c5b06"}`,
		`{"target_url": "http://127.0.0.1:1/", "event": "MemberAdd"}`, `{"emailAddress": ""}`, `"a@example.com"`, ``,
	} {
		f.Add(uint8(0), "query=INES1042&timePeriod=All&programId=customers-2026&sort=Amount_Asc&dateTo=2026-01-01", []byte(seed))
	}
	f.Add(uint8(7), "dateFrom=9999-99-99&count=1&offset=2", []byte(nil))
	c := rockContract()
	routes := slices.SortedFunc(maps.Keys(c.routes), cmp.Compare)
	s := New(Options{Keep: 10})
	silence(s)
	f.Cleanup(s.Close)
	try := func(t *testing.T, route, query string, body []byte) {
		method, path, _ := strings.Cut(route, " ")
		if method == http.MethodGet {
			body = nil // which would be refused
		}
		r := httptest.NewRequest(method, "/referralrock"+strings.NewReplacer("{id}", "x", "{eventName}", "MemberAdd").Replace(path), bytes.NewReader(body))
		r.URL.RawQuery = query
		r.SetBasicAuth("a", "b")
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		before := s.Effects().Total
		s.Handler().ServeHTTP(w, r)
		if !json.Valid(w.Body.Bytes()) || w.Code >= 500 {
			t.Fatalf("%s = %d %s", route, w.Code, w.Body)
		}
		keeps(t, s, c.routes[route].operation, answer{status: w.Code, body: w.Body.Bytes()})
		if w.Code >= 300 && s.Effects().Total != before {
			t.Fatalf("%s = %d and had an effect", route, w.Code)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, query string, body []byte) {
		if which == 0 { // of the seeds: every operation, twice, so that reads come after writes
			s.Reset()
			for _, route := range slices.Concat(routes, routes) {
				try(t, route, "", body)
				try(t, route, query, body)
			}
			return
		}
		try(t, routes[int(which)%len(routes)], query, body)
	})
}
