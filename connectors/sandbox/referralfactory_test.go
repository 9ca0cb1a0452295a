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
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// askFactory sends a request to Referral Factory and checks the answer against the description.
func askFactory(t *testing.T, s *Server, method, path, body string) (status int, answer string) {
	t.Helper()
	r := httptest.NewRequest(method, "/referralfactory"+path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer some-token")
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	answer = w.Body.String()
	plain := httptest.NewRequest(method, strings.TrimPrefix(r.URL.RequestURI(), "/referralfactory"), nil)
	route, _ := s.factory.find(plain)
	if route == nil {
		return w.Code, answer
	}
	schema := route.answers[fmt.Sprint(w.Code)]
	if schema == nil {
		schema = route.answers["default"]
	}
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(answer))
	if err == nil && schema != nil {
		err = schema.Validate(v)
	}
	if err != nil {
		t.Errorf("%s %s answers %d %s, which breaks the description: %v", method, path, w.Code, answer, err)
	}
	return w.Code, answer
}

func factoryExample(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", "referralfactory", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// likeExample compares an answer with an example: every key is there with a value of the same type, and
// with the same value unless the key is volatile. Links to pages depend on where the sandbox is.
func likeExample(t *testing.T, at string, want, got any) {
	t.Helper()
	switch want := want.(type) {
	case map[string]any:
		have, ok := got.(map[string]any)
		if !ok {
			t.Errorf("%s = %v, want an object", at, got)
			return
		}
		for k, v := range want {
			if _, there := have[k]; !there {
				t.Errorf("%s has no %s", at, k)
				continue
			}
			switch k {
			case "code", "url", "src", "download", "signed_up_at", "qualified_at", "unsubscribed_at", "first", "last", "next", "prev":
			default:
				likeExample(t, at+"."+k, v, have[k])
			}
		}
	case []any:
		have, ok := got.([]any)
		if !ok || len(have) < len(want) {
			t.Errorf("%s = %v, want at least %d elements", at, got, len(want))
			return
		}
		for i, v := range want {
			likeExample(t, fmt.Sprintf("%s[%d]", at, i), v, have[i])
		}
	default:
		if want != got {
			t.Errorf("%s = %v, want %v", at, got, want)
		}
	}
}

// Driven by the requests of the examples, the sandbox answers as the examples say.
func TestFactoryAnswersAsTheExamples(t *testing.T) {
	s := New(Options{})
	for _, c := range []struct {
		method, path, request string // request is the name of an example
		status                int
		answer                string // the name of an example
	}{
		{"POST", "/users", "createUser.request", 201, "createUser.201"},
		{"POST", "/users", "createUser.request", 422, "createUser.422.duplicate"},
		{"GET", "/users/123", "", 200, "getUser.200"},
		{"GET", "/users/nobody", "", 404, "getUser.404"},
		{"POST", "/users/search", "searchUsers.request", 200, "searchUsers.200"},
		{"PUT", "/users/qualification", "setUserQualification.request", 200, "setUserQualification.200"},
		{"PUT", "/users/qualification", "setUserQualification.request.byid", 200, "getUser.200"},
		{"GET", "/campaigns", "", 200, "listCampaigns.200"},
		{"GET", "/rewards/due/amount", "", 200, "listDueRewards.200"},
	} {
		t.Run(c.method+c.path+" "+c.answer, func(t *testing.T) {
			body := ""
			if c.request != "" {
				body = factoryExample(t, c.request)
			}
			status, answer := askFactory(t, s, c.method, c.path, body)
			if status != c.status {
				t.Fatalf("status = %d (%s), want %d", status, answer, c.status)
			}
			var want, got any
			if err := json.Unmarshal([]byte(factoryExample(t, c.answer)), &want); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte(answer), &got); err != nil {
				t.Fatal(err)
			}
			likeExample(t, "", want, got)
		})
	}
	// An update, apart: its example shows other meta fields than the request sets.
	status, answer := askFactory(t, s, "PUT", "/users/123", factoryExample(t, "updateUser.request"))
	if status != 200 || !strings.Contains(answer, "Tomás") || !strings.Contains(answer, "Portugal") || !strings.Contains(answer, "Blei") {
		t.Errorf("update = %d %s", status, answer)
	}
	if v := s.Violations(); len(v) != 0 {
		t.Errorf("violations = %+v, want none", v)
	}
}

func TestFactoryRefuses(t *testing.T) {
	s := New(Options{})
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		says                     string
		violation                bool
	}{
		{"no address", "POST", "/users", `{"campaign_id":1,"first_name":"A"}`, 422, "The email field is required.", true},
		{"an address that is none", "POST", "/users", `{"campaign_id":1,"first_name":"A","email":"x"}`, 422, "valid email", true},
		{"an unknown key", "POST", "/users", `{"campaign_id":1,"first_name":"A","email":"a@example.com","nam":"x"}`, 400, "nam", true},
		{"no JSON", "POST", "/users", `{`, 400, "not JSON", true},
		{"no such campaign", "POST", "/users", `{"campaign_id":9,"first_name":"A","email":"a@example.com"}`, 422, "campaign id", false},
		{"no such referrer", "POST", "/users", `{"campaign_id":1,"first_name":"A","email":"a@example.com","referrer":{"field":"code","value":"X"}}`, 422, "referrer", false},
		{"a referrer of another campaign", "POST", "/users", `{"campaign_id":2,"first_name":"A","email":"a@example.com","referrer":{"field":"code","value":"INES1042"}}`, 422, "referrer", false},
		{"there already, in other letters", "POST", "/users", `{"campaign_id":1,"first_name":"A","email":"INES.duarte@example.com"}`, 422, "already been taken", false},
		{"a filter on what is no field", "POST", "/users/search", `{"filters":{"operator":"AND","value":[{"field":"shoe","operator":"=","value":"9"}]}}`, 422, "cannot be searched", false},
		{"another operator", "POST", "/users/search", `{"filters":{"operator":"OR","value":[{"field":"email","operator":"=","value":"9"}]}}`, 422, "operator", false},
		{"a qualification of nobody", "PUT", "/users/qualification", `{"qualified":true}`, 422, "id field", false},
		{"an address without a campaign", "PUT", "/users/qualification", `{"email":"ines.duarte@example.com","qualified":true}`, 422, "campaign id", false},
		{"an update by code", "PUT", "/users/INES1042", `{"first_name":"I"}`, 404, "Not found", true},
		{"an update to a taken address", "PUT", "/users/77", `{"email":"ada.advocate@example.com"}`, 422, "already been taken", false},
		{"a metric that is none", "GET", "/rewards/due/gold", "", 404, "Not found", true},
		{"a reward that is not due", "POST", "/rewards/issue/99", "", 404, "Not found", false},
		{"a page that is none", "GET", "/users?page=0", "", 400, "page", true},
		{"a page that is too large", "GET", "/users?per_page=251", "", 400, "per_page", true},
		{"a path that is none", "GET", "/persons", "", 404, "Not found", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := len(s.Violations())
			status, answer := askFactory(t, s, c.method, c.path, c.body)
			if status != c.status || !strings.Contains(answer, c.says) {
				t.Errorf("answer = %d %s, want %d with %q", status, answer, c.status, c.says)
			}
			if got := len(s.Violations()) > before; got != c.violation {
				t.Errorf("violation = %t, want %t", got, c.violation)
			}
		})
	}
	if n := s.Effects().Total; n != 0 {
		t.Errorf("%d effects, want none", n)
	}
}

// A walk along links.next meets everybody once.
func TestFactoryPages(t *testing.T) {
	s := New(Options{})
	for i := range 60 {
		body := fmt.Sprintf(`{"campaign_id":%d,"first_name":"A","email":"p%d@example.com"}`, 1+i%2, i)
		if status, answer := askFactory(t, s, "POST", "/users", body); status != 201 {
			t.Fatalf("create = %d %s", status, answer)
		}
	}
	if status, _ := askFactory(t, s, "DELETE", "/users/130", ""); status != 200 {
		t.Fatalf("delete = %d", status)
	}
	met, pages := map[string]int{}, 0
	for next := "/users"; next != ""; pages++ {
		_, answer := askFactory(t, s, "GET", next, "")
		var page struct {
			Data  []struct{ Email string }
			Links struct{ Next string }
			Meta  struct{ Total int }
		}
		if err := json.Unmarshal([]byte(answer), &page); err != nil {
			t.Fatal(err)
		}
		for _, u := range page.Data {
			met[u.Email]++
		}
		if page.Meta.Total != 62 { // two referrers, one who unsubscribed, sixty less one
			t.Fatalf("total = %d, want 62", page.Meta.Total)
		}
		_, next, _ = strings.Cut(page.Links.Next, "/referralfactory")
	}
	if len(met) != 62 || pages != 3 {
		t.Errorf("met %d people on %d pages, want 62 on 3", len(met), pages)
	}
	for email, n := range met {
		if n != 1 {
			t.Errorf("met %s %d times", email, n)
		}
	}
	if status, answer := askFactory(t, s, "GET", "/users?page=99999999999", ""); status != 200 || !strings.Contains(answer, `"data":[]`) {
		t.Errorf("a page far beyond the last = %d %s", status, answer)
	}
	s.Reset()
	if _, answer := askFactory(t, s, "GET", "/users", ""); !strings.Contains(answer, `"total":3`) {
		t.Errorf("after a reset: %s", answer)
	}
}

// The six hundred and first request of a minute is one too many, for its token alone.
func TestFactoryLimit(t *testing.T) {
	s := New(Options{ReferralFactory: FactoryOptions{APIKey: "right"}})
	srv := httptest.NewServer(s.Handler())
	defer srv.Close()
	ask := func(token string) int {
		req, err := http.NewRequest("GET", srv.URL+"/referralfactory/campaigns", bytes.NewReader(nil))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	for i := range 600 {
		if status := ask("right"); status != 200 {
			t.Fatalf("request %d: status %d, want 200", i+1, status)
		}
	}
	if status := ask("right"); status != 429 {
		t.Errorf("request 601: status %d, want 429", status)
	}
	if status := ask("wrong"); status != 401 {
		t.Errorf("another token: status %d, want 401", status)
	}
	if len(s.Violations()) != 1 {
		t.Errorf("violations = %+v, want one", s.Violations())
	}
}
