package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lodestonehq/lodestone/connectors/referralrock/api"
)

// call made by a webhook.
type hookCall struct {
	path, signature, body string
}

// subscriber is a server that takes webhooks.
func subscriber(t *testing.T) (base string, calls chan hookCall) {
	t.Helper()
	calls = make(chan hookCall, 1000)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if ct := r.Header.Get("Content-Type"); r.Method != http.MethodPost || !strings.HasPrefix(ct, "application/json") {
			t.Errorf("%s %s with %s", r.Method, r.URL.Path, ct)
		}
		calls <- hookCall{r.URL.Path, r.Header.Get("RR-Signature"), string(body)}
		_, _ = io.WriteString(w, "thanks")
	}))
	t.Cleanup(srv.Close)
	return srv.URL, calls
}

// subscribe makes a subscription and gives its id and signing key.
func subscribe(t *testing.T, base, target string, event api.WebhookEvent) (id, key string) {
	t.Helper()
	var made struct {
		ID string `json:"web_hook_id"`
	}
	a := must(t, base, "POST", "/api/hooks", fmt.Appendf(nil, `{"target_url": %q, "event": %q}`, target, event))
	if err := json.Unmarshal(a.body, &made); err != nil || a.status != http.StatusCreated {
		t.Fatalf("createHook = %d %s", a.status, a.body)
	}
	req, _ := http.NewRequest("GET", base+"/_sandbox/hooks", nil)
	seen, err := exchange(req)
	var all []hookView
	if err := errors.Join(err, json.Unmarshal(seen.body, &all)); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(v hookView) bool { return v.ID == made.ID })
	if i < 0 || all[i].TargetURL != target || all[i].SigningKey == "" {
		t.Fatalf("subscriptions = %+v, want %s with its key", all, made.ID)
	}
	return made.ID, all[i].SigningKey
}

var hookEvents = []api.WebhookEvent{
	api.MemberAdd, api.MemberDelete, api.ReferralAdd, api.ReferralUpdate, api.ReferralDelete, api.ReferralStatusChange,
	api.RewardAdd, api.RewardUpdate, api.RewardDelete, api.RewardIssue, api.EmailUnsubscribed,
}

// Each change tells those events and no others, each under its own subscription's key, with the keys
// that subscribers read.
func TestWebhooksTellWhatChanged(t *testing.T) {
	s, base := start(t, Options{})
	target, calls := subscriber(t)
	secrets := map[string]string{}
	for _, event := range hookEvents {
		_, key := subscribe(t, base, target+"/"+string(event), event)
		if slices.Contains(slices.Collect(maps.Values(secrets)), key) {
			t.Error("two subscriptions have one key")
		}
		secrets["/"+string(event)] = key
	}
	const tomas, query = "2e7f7b52-6c0d-4c3e-9f3e-6f7a9c1d2e03", `{"primaryInfo": {"referralId": "2e7f7b52-6c0d-4c3e-9f3e-6f7a9c1d2e03"}}`
	for _, c := range []struct {
		name, path, body string
		want             map[api.WebhookEvent]string // a part of the body
	}{
		{"invite", "/api/invitefeed", `{"firstName": "T", "email": "t@example.com"}`, map[api.WebhookEvent]string{api.MemberAdd: `"email":"t@example.com"`}},
		{"invite again", "/api/invitefeed", `{"firstName": "T", "email": "t@example.com"}`, nil},
		{"member", "/api/members", `{"programId": "customers-2026", "firstName": "G", "email": "g@example.com", "referralCode": "GRACE1"}`, map[api.WebhookEvent]string{api.MemberAdd: `"referralCode":"GRACE1"`}},
		{"referral", "/api/referrals", `{"referralCode": "GRACE1", "email": "r@example.com", "externalIdentifier": "x-1"}`, map[api.WebhookEvent]string{api.ReferralAdd: `"ExternalIdentifier":"x-1"`}},
		{"note", "/api/referral/update", `[{"query": ` + query + `, "referral": {"note": "n"}}]`, map[api.WebhookEvent]string{api.ReferralUpdate: `"Status":"pending"`}},
		{"refused item", "/api/referral/update", `[{"query": {}, "referral": {"note": "n"}}]`, nil},
		{"status", "/api/referrals/status", `{"referralId": "` + tomas + `", "status": "qualified"}`, map[api.WebhookEvent]string{api.ReferralUpdate: `"Status":"qualified"`, api.ReferralStatusChange: `"Status":"qualified"`}},
		{"approval", "/api/referral/update", `[{"query": ` + query + `, "referral": {"status": "approved"}}]`, map[api.WebhookEvent]string{
			api.ReferralUpdate: `"Status":"approved"`, api.ReferralStatusChange: `"Status":"approved"`, api.RewardAdd: `"Amount":20`,
		}},
		{"action", "/api/referralaction", `{"amount": 50, "referralQuery": "x-1"}`, map[api.WebhookEvent]string{api.RewardAdd: `"Amount":2.5`}},
		{"issue", "/api/rewards/issue", `{"rewardId": "9a4f0c1e-55aa-4b6b-8d0f-1f2e3d4c5b06"}`, map[api.WebhookEvent]string{api.RewardIssue: `"Status":"Issued"`, api.RewardUpdate: `"Status":"Issued"`}},
		{"reward removed", "/api/rewards/remove", `["9a4f0c1e-55aa-4b6b-8d0f-1f2e3d4c5b07"]`, map[api.WebhookEvent]string{api.RewardDelete: `"Id":"9a4f0c1e-55aa-4b6b-8d0f-1f2e3d4c5b07"`}},
		{"unsubscribe", "/api/email/unsubscribe", `"T@example.com"`, map[api.WebhookEvent]string{api.EmailUnsubscribed: `"Email":"T@example.com"`}},
		{"unsubscribe again", "/api/email/unsubscribe", `"t@example.com"`, nil},
		{"referral removed", "/api/referral/remove", `[{"query": ` + query + `}]`, map[api.WebhookEvent]string{api.ReferralDelete: `"Id":"` + tomas + `"`}},
		{"member removed", "/api/members/remove", `[{"query": {"primaryInfo": {"referralCode": "GRACE1"}}}]`, map[api.WebhookEvent]string{api.MemberDelete: `"Id":"`}},
	} {
		if a := must(t, base, "POST", c.path, []byte(c.body)); a.status >= 300 {
			t.Fatalf("%s = %d %s", c.name, a.status, a.body)
		}
		s.rock.hooks.working.Wait()
		got := map[api.WebhookEvent]string{}
		for len(calls) > 0 {
			call := <-calls
			event := api.WebhookEvent(call.path[1:])
			if got[event] != "" {
				t.Errorf("%s: %s came twice", c.name, event)
			}
			got[event] = call.body
			if want := signature(secrets[call.path], []byte(call.body)); call.signature != want || len(want) != 128 {
				t.Errorf("%s: %s is signed %q, want %q", c.name, event, call.signature, want)
			}
			var body struct{ Timestamp int64 }
			if err := json.Unmarshal([]byte(call.body), &body); err != nil || time.Since(time.Unix(body.Timestamp, 0)) > time.Minute {
				t.Errorf("%s: %s: %s, %v", c.name, event, call.body, err)
			}
			if !strings.Contains(call.body, c.want[event]) {
				t.Errorf("%s: %s told %s, want %s in it", c.name, event, call.body, c.want[event])
			}
		}
		if len(got) != len(c.want) {
			t.Errorf("%s: told %v, want %v", c.name, got, c.want)
		}
	}
	a := must(t, base, "GET", "/api/hooks/history/ReferralStatusChange", nil)
	keeps(t, s, "getHookHistory", a)
	var history []api.WebHookHistoryEntry
	if err := json.Unmarshal(a.body, &history); err != nil || len(history) != 2 || *history[0].ResponseStatus != 200 ||
		*history[0].ResponseBody != "thanks" || !strings.Contains(*history[0].Payload, "approved") || !strings.Contains(*history[1].Payload, "qualified") {
		t.Errorf("history = %s, %v; want both deliveries, the newest first", a.body, err)
	}
	if v := s.Violations(); len(v) != 0 {
		t.Errorf("violations = %+v, want none", v)
	}
}

func TestWebhookSignatureIsHMACOfTheBody(t *testing.T) {
	// RFC 4231, test case 2.
	const want = "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"
	if got := signature("Jefe", []byte("what do ya want for nothing?")); got != want {
		t.Errorf("signature = %s, want %s", got, want)
	}
}

// A subscriber that never answers holds up neither requests nor other subscribers, and ends with its
// subscription.
func TestHangingSubscriberHoldsUpNobody(t *testing.T) {
	s, base := start(t, Options{})
	arrived := make(chan struct{}, 1000)
	hanging := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // a server notices that a client has gone once the body is read
		arrived <- struct{}{}
		<-r.Context().Done()
	}))
	defer hanging.Close()
	target, calls := subscriber(t)
	slow, _ := subscribe(t, base, hanging.URL, api.ReferralAdd)
	subscribe(t, base, target+"/quick", api.ReferralAdd)
	const referrals = 20
	for i := range referrals {
		must(t, base, "POST", "/api/referrals", fmt.Appendf(nil, `{"referralCode": "INES1042", "externalIdentifier": "x-%d"}`, i))
	}
	<-arrived
	for i := range referrals {
		if c := <-calls; !strings.Contains(c.body, fmt.Sprintf(`"x-%d"`, i)) {
			t.Errorf("delivery %d = %s, want them in order", i, c.body)
		}
	}
	if v := s.rock.hooks.list("referralrock")[0]; v.Waiting != referrals || v.Delivered != 0 {
		t.Errorf("the hanging one = %+v, want all %d waiting", v, referrals)
	}
	if a := must(t, base, "DELETE", "/api/hooks", fmt.Appendf(nil, `{"web_hook_id": %q}`, slow)); a.status != 200 {
		t.Fatalf("deleteHook = %d %s", a.status, a.body)
	}
	s.rock.hooks.working.Wait() // it ends, or the test does not
	if n := len(s.rock.hooks.list("referralrock")); n != 1 {
		t.Errorf("%d subscriptions left, want 1", n)
	}
	if a := must(t, base, "DELETE", "/api/hooks", fmt.Appendf(nil, `{"web_hook_id": %q}`, slow)); a.status != 404 {
		t.Errorf("deleteHook again = %d, want 404", a.status)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answered(status int) (*http.Response, error) {
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader("x\xff"))}, nil
}

func TestDeliveriesAreRepeatedAndGivenUp(t *testing.T) {
	for _, c := range []struct {
		name      string
		answers   []int // 0: none; the last one goes on
		attempts  []time.Duration
		delivered bool
	}{
		{"taken at once", []int{204}, []time.Duration{0}, true},
		{"taken after a failure", []int{0, 503, 200}, []time.Duration{0, 500 * time.Millisecond, 2500 * time.Millisecond}, true},
		{"a redirect is not followed", []int{302, 200}, []time.Duration{0, 500 * time.Millisecond}, true},
		{"never taken", []int{500}, []time.Duration{0, 500 * time.Millisecond, 2500 * time.Millisecond, 10500 * time.Millisecond}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, start := newRockHooks(1000), time.Now()
				var attempts []time.Duration
				h.rt = roundTrip(func(*http.Request) (*http.Response, error) {
					status := c.answers[min(len(attempts), len(c.answers)-1)]
					attempts = append(attempts, time.Since(start))
					if status == 0 {
						return nil, errors.New("refused")
					}
					return answered(status)
				})
				h.add("", "http://127.0.0.1:1/", string(api.MemberAdd))
				h.tell(string(api.MemberAdd), map[string]string{})
				h.tell(string(api.MemberDelete), map[string]string{}) // not subscribed to
				h.working.Wait()
				if !slices.Equal(attempts, c.attempts) {
					t.Errorf("attempts after %v, want %v", attempts, c.attempts)
				}
				v := h.list("")[0]
				if (v.Delivered == 1) != c.delivered || (v.Failed == 1) == c.delivered || v.Waiting != 0 {
					t.Errorf("subscription = %+v, want delivered %t", v, c.delivered)
				}
				if len(h.history) != len(attempts) {
					t.Errorf("%d in the history, want %d", len(h.history), len(attempts))
				}
			})
		})
	}
}

func TestFullQueueDropsTheNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, let := newRockHooks(10), make(chan struct{})
		h.rt = roundTrip(func(*http.Request) (*http.Response, error) {
			<-let
			return answered(200)
		})
		h.add("", "http://127.0.0.1:1/", string(api.MemberAdd))
		h.tell(string(api.MemberAdd), 0)
		synctest.Wait() // the first is under way
		for i := range maxHookQueue + 5 {
			h.tell(string(api.MemberAdd), i)
		}
		if v := h.list("")[0]; v.Waiting != maxHookQueue+1 || v.Dropped != 5 {
			t.Errorf("subscription = %+v, want a full queue and 5 dropped", v)
		}
		close(let)
		h.working.Wait()
		if v := h.list("")[0]; v.Delivered != maxHookQueue+1 || v.Waiting != 0 {
			t.Errorf("subscription = %+v, want all that waited delivered", v)
		}
		if n := len(h.history); n >= 20 {
			t.Errorf("%d in the history, want it bounded", n)
		}
	})
}

func TestCloseEndsDeliveries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, attempts := newRockHooks(10), 0
		h.rt = roundTrip(func(*http.Request) (*http.Response, error) {
			attempts++
			return answered(500)
		})
		h.add("", "http://127.0.0.1:1/", string(api.MemberAdd))
		h.tell(string(api.MemberAdd), 0)
		synctest.Wait() // it waits for its second attempt
		h.close()
		h.tell(string(api.MemberAdd), 0)
		if id := h.add("", "http://127.0.0.1:1/", string(api.MemberAdd)); id != "" || attempts != 1 || len(h.list("")) != 0 {
			t.Errorf("after close: subscription %q, %d attempts, %+v", id, attempts, h.list(""))
		}
	})
}

func TestTooManySubscriptions(t *testing.T) {
	s, base := start(t, Options{})
	for range maxHooks {
		s.rock.hooks.add("", "http://127.0.0.1:1/", string(api.MemberAdd))
	}
	if a := must(t, base, "POST", "/api/hooks", []byte(`{"target_url": "http://127.0.0.1:1/", "event": "MemberAdd"}`)); a.status != 400 {
		t.Errorf("createHook = %d, want 400", a.status)
	}
	s.Reset()
	if n := len(s.rock.hooks.list("referralrock")); n != 0 {
		t.Errorf("%d subscriptions after a reset", n)
	}
}
