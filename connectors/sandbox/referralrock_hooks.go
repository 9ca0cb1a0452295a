package sandbox

import (
	"crypto/hmac"
	"crypto/sha512"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"

	"github.com/lodestonehq/lodestone/connectors/referralrock/api"
)

// newRockHooks signs the raw body, and sends the element itself.
func newRockHooks(most int) *hooks {
	h := newHooks(most)
	h.seal = func(s *hook, req *http.Request, body []byte) { req.Header.Set("RR-Signature", signature(s.key, body)) }
	return h
}

// signature is what the header RR-Signature carries: HMAC-SHA512 of the raw body in lower-case hex.
func signature(key string, body []byte) string {
	mac := hmac.New(sha512.New, []byte(key))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

func (r *rock) createHook(req *request) reply {
	in, ok := decode[api.WebHookSubscription](req)
	if !ok {
		return r.unreadable(req)
	}
	if u, err := url.Parse(in.TargetUrl); err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return r.wrong(req, "target_url is no http or https URL")
	}
	id := r.hooks.add("", in.TargetUrl, string(in.Event))
	if id == "" {
		return r.failure(http.StatusBadRequest, "There are too many subscriptions")
	}
	r.quietly(req, "", "")
	return reply{status: http.StatusCreated, body: api.WebHookSubscriptionResult{WebHookId: id}}
}

func (r *rock) deleteHook(req *request) reply {
	in, ok := decode[api.WebHookUnsubscription](req)
	if !ok {
		return r.unreadable(req)
	}
	if !r.hooks.remove(in.WebHookId) {
		return r.failure(http.StatusNotFound, "Subscription not found")
	}
	r.quietly(req, "", "")
	return reply{status: http.StatusOK, body: map[string]any{}}
}

// hookHistory gives the attempts at one event, newest first.
func (r *rock) hookHistory(req *request) reply {
	entries, event := []api.WebHookHistoryEntry{}, req.PathValue("eventName")
	r.hooks.mu.Lock()
	defer r.hooks.mu.Unlock()
	for _, d := range slices.Backward(r.hooks.history) {
		if d.event == event && len(entries) < r.hooks.most {
			entries = append(entries, api.WebHookHistoryEntry{
				WebHookId: &d.id, Event: &d.event, TargetUrl: &d.target, DeliveredDate: stamp(d.at),
				ResponseStatus: d.status, ResponseBody: &d.answer, Payload: ptr(string(d.body)),
			})
		}
	}
	return reply{status: http.StatusOK, body: entries}
}
