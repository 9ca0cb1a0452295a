package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/lodestonehq/lodestone/connectors/blocks23"
)

// blocksBox is an emulated 23blocks over real HTTP.
type blocksBox struct {
	*Server
	url string
}

func blocksStart(t *testing.T, opts Options) blocksBox {
	t.Helper()
	s := New(opts)
	srv := httptest.NewServer(s.Handler())
	t.Cleanup(func() {
		s.Clear()
		srv.Close()
	})
	return blocksBox{s, srv.URL + "/23blocks"}
}

type blocksAnswer struct {
	status int
	body   []byte
}

// call makes one request with credentials; header lines replace what would be sent.
func (b blocksBox) call(t *testing.T, method, path, body string, header ...string) blocksAnswer {
	t.Helper()
	req, err := http.NewRequest(method, b.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer tok-1")
	req.Header.Set("AppId", "app-1")
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		if req.Header.Del(header[i]); header[i+1] != "" {
			req.Header.Set(header[i], header[i+1])
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return blocksAnswer{resp.StatusCode, raw}
}

func blocksExample(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", "blocks23", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// shape is a JSON value without what differs from call to call.
func shape(t *testing.T, body []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	var blank func(any) any
	blank = func(v any) any {
		switch v := v.(type) {
		case map[string]any:
			for k, e := range v {
				switch k {
				case "id", "unique_id", "created_at", "converted_at":
					if s, ok := e.(string); ok && s != "" {
						v[k] = "…"
					}
				default:
					v[k] = blank(e)
				}
			}
		case []any:
			for i := range v {
				v[i] = blank(v[i])
			}
		}
		return v
	}
	return blank(v)
}

// Requests from the examples are answered as the examples say, and every answer keeps to the
// description.
func TestBlocksAnswersAsTheExamples(t *testing.T) {
	b := blocksStart(t, Options{Unsubscribed: nil})
	const list = "/referrals/form-123/instances"
	id := "none-yet"
	for _, step := range []struct {
		operation, method, path string
		request, answer         string // examples; no answer: nothing is compared
		status                  int
	}{
		{"listReferrals", "GET", list, "", "listReferrals.200.empty", 200},
		{"getReferral", "GET", list + "/ID", "", "getReferral.404", 404},
		{"createReferral", "POST", list, "createReferral.request", "createReferral.201", 201},
		{"getReferral", "GET", list + "/ID", "", "getReferral.200", 200},
		{"listReferrals", "GET", list + "?page=1&records=20&status=pending&referrer_unique_id=user-456&sort=-created_at", "", "listReferrals.200", 200},
		{"listReferrals", "GET", list + "?status=converted", "", "listReferrals.200.empty", 200},
		{"updateReferral", "PUT", list + "/ID", "updateReferral.request", "updateReferral.200", 200},
		{"listSubscriptions", "GET", "/subscriptions/news/instances", "", "", 200},
		{"getSubscription", "GET", "/subscriptions/news/instances/sub-2", "", "", 200},
		{"getSubscription", "GET", "/subscriptions/news/instances/sub-9", "", "", 404},
		{"deleteReferral", "DELETE", list + "/ID", "", "", 204},
		{"getReferral", "GET", list + "/ID", "", "getReferral.404", 404},
		{"deleteReferral", "DELETE", list + "/ID", "", "getReferral.404", 404},
		{"updateReferral", "PUT", list + "/ID", "updateReferral.request", "getReferral.404", 404},
		{"listReferrals", "GET", list, "", "listReferrals.200.empty", 200},
	} {
		body := ""
		if step.request != "" {
			body = blocksExample(t, step.request)
		}
		path := strings.ReplaceAll(step.path, "ID", id)
		a := b.call(t, step.method, path, body)
		if a.status != step.status {
			t.Fatalf("%s %s = %d %s, want %d", step.method, path, a.status, a.body, step.status)
		}
		if step.answer != "" {
			if got, want := shape(t, a.body), shape(t, []byte(blocksExample(t, step.answer))); !reflect.DeepEqual(got, want) {
				t.Errorf("%s %s:\n got %v\nwant %v", step.method, path, got, want)
			}
		}
		if a.status == http.StatusNoContent {
			if len(a.body) != 0 {
				t.Errorf("%s %s has a body: %s", step.method, path, a.body)
			}
		} else {
			b.keeps(t, step.operation, a)
		}
		if r := b.Received()[0]; r.Operation != step.operation || r.Status != step.status || r.Violation != "" {
			t.Errorf("received = %+v, want %s with %d and no violation", r, step.operation, step.status)
		}
		if step.operation == "createReferral" {
			var made struct{ Data struct{ ID string } }
			if err := json.Unmarshal(a.body, &made); err != nil {
				t.Fatal(err)
			}
			id = made.Data.ID
		}
	}
	if got := b.Effects().Total; got != 3 {
		t.Errorf("%d effects, want 3: made, changed, deleted", got)
	}
}

// keeps checks an answer against the description.
func (b blocksBox) keeps(t *testing.T, operation string, a blocksAnswer) {
	t.Helper()
	for _, r := range b.blocks.contract.routes {
		if r.operation != operation {
			continue
		}
		schema := r.answers[fmt.Sprint(a.status)]
		if schema == nil {
			schema = r.answers["default"]
		}
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(a.body))
		if err == nil {
			err = schema.Validate(v)
		}
		if err != nil {
			t.Errorf("%s: the answer breaks the description: %v\n%s", operation, err, a.body)
		}
		return
	}
	t.Errorf("no operation %s", operation)
}

func TestBlocksSubscriptions(t *testing.T) {
	b := blocksStart(t, Options{})
	var list struct {
		Data []struct {
			Attributes struct{ Email, Status string }
		}
	}
	a := b.call(t, "GET", "/subscriptions/news/instances", "")
	if err := json.Unmarshal(a.body, &list); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, s := range list.Data {
		got[s.Attributes.Email] = s.Attributes.Status
	}
	if want := map[string]string{"ines.duarte@example.com": "active", "unsubscribed@example.com": "unsubscribed"}; !maps.Equal(got, want) {
		t.Errorf("subscriptions = %v, want %v", got, want)
	}
}

func blocksReferralBody(email, touchpoint string) string {
	return fmt.Sprintf(`{"referral": {"referrer_email": "ines@example.com", "referred_email": %q, "metadata": {%q: %q}}}`, email, blocks23.MetadataKey, touchpoint)
}

func TestBlocksPages(t *testing.T) {
	for _, c := range []struct {
		name, query string
		opts        Blocks23Options
		want        []string // who is on the page
	}{
		{"newest first", "?page=1&records=2", Blocks23Options{}, []string{"4", "3"}},
		{"the last page", "?page=3&records=2", Blocks23Options{}, []string{"0"}},
		{"beyond the last", "?page=4&records=2", Blocks23Options{}, nil},
		{"oldest first", "?page=1&records=2", Blocks23Options{OldestFirst: true}, []string{"0", "1"}},
		{"oldest first by request", "?records=2&sort=created_at", Blocks23Options{}, []string{"0", "1"}},
		{"newest first by request", "?records=2&sort=-created_at", Blocks23Options{OldestFirst: true}, []string{"4", "3"}},
		{"cut down", "?records=100", Blocks23Options{MaxRecords: 3}, []string{"4", "3", "2"}},
		{"the default size", "", Blocks23Options{}, []string{"4", "3", "2", "1", "0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := blocksStart(t, Options{Blocks23: c.opts})
			for i := range 5 {
				if a := b.call(t, "POST", "/referrals/f/instances", blocksReferralBody(fmt.Sprintf("p%d@example.com", i), "")); a.status != 201 {
					t.Fatalf("%d %s", a.status, a.body)
				}
			}
			b.call(t, "POST", "/referrals/another/instances", blocksReferralBody("p9@example.com", ""))
			var page struct {
				Data []struct {
					Attributes struct {
						Email string `json:"referred_email"`
					}
				}
				Meta struct{ TotalPages, TotalRecords int }
			}
			if err := json.Unmarshal(b.call(t, "GET", "/referrals/f/instances"+c.query, "").body, &page); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, d := range page.Data {
				got = append(got, strings.TrimSuffix(strings.TrimPrefix(d.Attributes.Email, "p"), "@example.com"))
			}
			if !slices.Equal(got, c.want) || page.Meta.TotalRecords != 5 {
				t.Errorf("page = %v of %d, want %v of 5", got, page.Meta.TotalRecords, c.want)
			}
		})
	}
}

func TestBlocksSDKNames(t *testing.T) {
	b := blocksStart(t, Options{Blocks23: Blocks23Options{SDKNames: true}})
	a := b.call(t, "POST", "/referrals/f/instances", `{"referral": {"referrer_email": "i@example.com", "referee_email": "ada@example.com", "referee_phone": "1", "data": {"lodestone_touchpoint": "e1.a"}}}`)
	if a.status != 201 || !strings.Contains(string(a.body), `"referee_email":"ada@example.com"`) || strings.Contains(string(a.body), "referred_email") {
		t.Errorf("answer = %d %s, want the SDK's names", a.status, a.body)
	}
	if r := b.Received()[0]; r.Email != "ada@example.com" || r.ExternalID != "e1.a" || !r.Effect {
		t.Errorf("received = %+v, want the address, the touchpoint and an effect", r)
	}
	if a := b.call(t, "GET", "/referrals/f/instances", ""); !strings.Contains(string(a.body), `"meta":{"total_count":1,"total_pages":1}`) {
		t.Errorf("list = %s, want the SDK's counts", a.body)
	}
	if a := b.call(t, "POST", "/referrals/f/instances", blocksReferralBody("ada@example.com", "e1.b")); a.status != 422 || len(b.Violations()) != 1 {
		t.Errorf("documented names = %d with violations %v, want 422 and one", a.status, b.Violations())
	}
}

func TestBlocksRefusals(t *testing.T) {
	const list = "/referrals/f/instances"
	for _, c := range []struct {
		name, method, path, body string
		header                   []string
		status                   int
		violation                string // part of it; empty: none
	}{
		{"no referred address", "POST", list, `{"referral": {"referrer_email": "i@example.com"}}`, nil, 422, "referred_email"},
		{"an address that is none", "POST", list, blocksReferralBody("ada", ""), nil, 422, "/referral/referred_email"},
		{"not wrapped", "POST", list, `{"referrer_email": "i@example.com", "referred_email": "a@example.com"}`, nil, 422, "required"},
		{"a misspelt field", "POST", list, `{"referral": {"referrer_email": "i@example.com", "referred_email": "a@example.com", "sorce": "x"}}`, nil, 422, "sorce"},
		{"the SDK's names", "POST", list, `{"referral": {"referrer_email": "i@example.com", "referee_email": "a@example.com"}}`, nil, 422, "referred_email"},
		{"not JSON", "POST", list, `{`, nil, 422, "not JSON"},
		{"another content type", "POST", list, blocksReferralBody("a@example.com", ""), []string{"Content-Type", "text/plain"}, 422, "content type"},
		{"no token", "POST", list, blocksReferralBody("a@example.com", ""), []string{"Authorization", ""}, 401, "bearer"},
		{"Basic credentials", "GET", list, "", []string{"Authorization", "Basic eDp5"}, 401, "bearer"},
		{"no app id", "GET", list, "", []string{"AppId", ""}, 401, "AppId"},
		{"a wrong token", "GET", list, "", []string{"Authorization", "Bearer nope"}, 401, ""},
		{"a wrong app id", "GET", list, "", []string{"AppId", "nope"}, 401, ""},
		{"the other header", "GET", list, "", []string{"AppId", "", "X-API-KEY", "app-1"}, 200, ""},
		{"a page that is none", "GET", list + "?page=0", "", nil, 422, "page"},
		{"an unknown filter", "GET", list + "?referred_email=a@example.com", "", nil, 422, "referred_email"},
		{"a status that is none", "PUT", list + "/x", `{"referral": {"status": "done"}}`, nil, 422, "status"},
		{"a change of nothing that is there", "PUT", list + "/x", `{"referral": {"status": "expired"}}`, nil, 404, ""},
		{"an unknown path", "GET", "/forms/f", "", nil, 404, "no such path"},
		{"an unknown method", "PATCH", list, "", nil, 404, "no such path"},
		{"too deep", "GET", list + "/a/b", "", nil, 404, "no such path"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := blocksStart(t, Options{Blocks23: Blocks23Options{Token: "tok-1", AppID: "app-1"}})
			a := b.call(t, c.method, c.path, c.body, c.header...)
			r := b.Received()[0]
			if a.status != c.status || (r.Violation == "") != (c.violation == "") || !strings.Contains(r.Violation, c.violation) || r.Effect {
				t.Errorf("%d %s, received %+v; want %d and a violation about %q", a.status, a.body, r, c.status, c.violation)
			}
			if strings.Contains(r.Violation, "@") {
				t.Errorf("the violation %q holds a value", r.Violation)
			}
			if want := len(c.violation); (len(b.Violations()) == 1) != (want > 0) {
				t.Errorf("violations = %+v", b.Violations())
			}
		})
	}
	t.Run("in the words of the example", func(t *testing.T) {
		b := blocksStart(t, Options{})
		a := b.call(t, "POST", list, `{"referral": {"referrer_email": "i@example.com"}}`)
		if got, want := shape(t, a.body), shape(t, []byte(blocksExample(t, "createReferral.422"))); !reflect.DeepEqual(got, want) {
			t.Errorf("answer = %v, want %v", got, want)
		}
	})
}

func TestBlocksRateLimit(t *testing.T) {
	b := blocksStart(t, Options{})
	if err := b.Fault(Fault{Kind: Fault429, Operation: "refer", RetryAfter: "60"}); err != nil {
		t.Fatal(err)
	}
	a := b.call(t, "POST", "/referrals/f/instances", blocksReferralBody("ada@example.com", "e1.a"))
	if a.status != 429 || !strings.Contains(string(a.body), `"code":"rate_limit_exceeded"`) || b.Effects().Total != 0 {
		t.Errorf("answer = %d %s after %d effects; want 429 without an effect", a.status, a.body, b.Effects().Total)
	}
}

func TestBlocksDuplicates(t *testing.T) {
	for mode, want := range map[Duplicates]int{DuplicatesPass: 201, DuplicatesBlock: 409, DuplicatesRefuse: 422} {
		b := blocksStart(t, Options{Settings: Settings{Duplicates: mode}})
		b.call(t, "POST", "/referrals/f/instances", blocksReferralBody("ada@example.com", "e1.a"))
		a := b.call(t, "POST", "/referrals/f/instances", blocksReferralBody("ADA@example.com", "e1.b"))
		effects := map[int]int{201: 2}[want]
		if a.status != want || b.Effects().Total != max(1, effects) {
			t.Errorf("%s: a second referral = %d after %d effects, want %d", mode, a.status, b.Effects().Total, want)
		}
		if a := b.call(t, "POST", "/referrals/another/instances", blocksReferralBody("ada@example.com", "e1.c")); a.status != 201 {
			t.Errorf("%s: the same person in another form = %d, want 201", mode, a.status)
		}
	}
}

func TestBlocksOptedOutIsMarked(t *testing.T) {
	b := blocksStart(t, Options{})
	b.call(t, "POST", "/referrals/f/instances", blocksReferralBody("Unsubscribed@example.com", "e1.a"))
	if r := b.Received()[0]; !r.Unsubscribed || !r.Effect {
		t.Errorf("received = %+v, want an effect on an address that had opted out", r)
	}
}

func TestBlocksReset(t *testing.T) {
	b := blocksStart(t, Options{})
	b.call(t, "POST", "/referrals/f/instances", blocksReferralBody("ada@example.com", "e1.a"))
	b.Reset()
	if a := b.call(t, "GET", "/referrals/f/instances", ""); !strings.Contains(string(a.body), `"data":[]`) {
		t.Errorf("list = %s, want it empty", a.body)
	}
}

// Every accepted request has one effect, also when many come at a time.
func TestBlocksConcurrency(t *testing.T) {
	b := blocksStart(t, Options{})
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			b.call(t, "POST", "/referrals/f/instances", blocksReferralBody("ada@example.com", fmt.Sprintf("e%d.a", i)))
			b.call(t, "GET", "/referrals/f/instances?records=50", "")
		})
	}
	wg.Wait()
	effects := b.Effects()
	if effects.Total != 40 || len(effects.ByExternalID) != 40 {
		t.Errorf("%d effects of %d touchpoints, want 40 of 40", effects.Total, len(effects.ByExternalID))
	}
}

// Nothing that comes in makes the sandbox fail otherwise than in the provider's words.
func FuzzBlocks(f *testing.F) {
	f.Add("POST", "/referrals/f/instances", blocksReferralBody("ada@example.com", "e1.a"))
	f.Add("PUT", "/referrals/f/instances/x", `{"referral":{"reward_amount":1e999}}`)
	f.Add("DELETE", "/referrals/%2e%2e/instances/%00", "")
	f.Add("GET", "/referrals/f/instances?page=99999999999999999999&records=-1", "")
	f.Add("GET", "/subscriptions//instances", "[]")
	s := New(Options{Blocks23: Blocks23Options{SDKNames: true}})
	f.Fuzz(func(t *testing.T, method, target, body string) {
		req, err := http.NewRequest(method, "http://sandbox/23blocks"+target, strings.NewReader(body))
		if err != nil || !strings.HasPrefix(req.URL.Path, "/23blocks/") {
			return
		}
		req.Header.Set("Authorization", "Bearer t")
		req.Header.Set("AppId", "a")
		req.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, req)
		if w.Code >= 500 {
			t.Fatalf("%s %s = %d %s", method, target, w.Code, w.Body)
		}
	})
}
