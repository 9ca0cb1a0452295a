package sandbox

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/lodestonehq/lodestone/connectors/referralrock/api"
)

// The bounds of webhook deliveries. What the provider's are is not known.
const (
	maxHooks        = 100             // subscriptions at a time
	maxHookQueue    = 1000            // deliveries that wait for one subscriber; more are dropped
	hookTimeout     = 5 * time.Second // of one attempt
	maxHookResponse = 1 << 10         // of the subscriber's answer, kept for the history
)

// hookPauses are the waits before each attempt after the first.
var hookPauses = []time.Duration{500 * time.Millisecond, 2 * time.Second, 8 * time.Second}

// hooks delivers events to those who subscribed. To tell never waits: each subscription has a queue of
// its own, and a goroutine works on it while there is something in it. Deliveries of one subscription
// keep their order; one that was tried often enough is given up. reset and close end what is under way.
type hooks struct {
	rt   http.RoundTripper
	most int // deliveries remembered

	mu      sync.Mutex // guards what follows, and the hooks
	subs    []*hook
	history []delivered // oldest first
	closed  bool
	working sync.WaitGroup
}

// hook is one subscription to one event.
type hook struct {
	id, target, key string
	event           api.WebhookEvent
	ctx             context.Context // ends with the subscription
	cancel          context.CancelFunc
	queue           [][]byte // bodies
	busy            bool     // its goroutine runs
	delivered       int
	failed          int // given up after the last attempt
	dropped         int // found the queue full
}

// delivered is one attempt at a delivery.
type delivered struct {
	event api.WebhookEvent
	api.WebHookHistoryEntry
}

func newHooks(most int) *hooks {
	return &hooks{most: most, rt: &http.Transport{DisableKeepAlives: true}} // no proxy: subscribers are near
}

// signature is what the header RR-Signature carries: HMAC-SHA512 of the raw body in lower-case hex.
func signature(key string, body []byte) string {
	mac := hmac.New(sha512.New, []byte(key))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

// hookView is how a subscription looks from outside. The provider shows the signing key on its admin
// pages.
type hookView struct {
	ID         string `json:"id"`
	Event      string `json:"event"`
	TargetURL  string `json:"target_url"`
	SigningKey string `json:"signing_key"`
	Waiting    int    `json:"waiting"`
	Delivered  int    `json:"delivered"`
	Failed     int    `json:"failed"`
	Dropped    int    `json:"dropped"`
}

func (h *hooks) list() []hookView {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := []hookView{}
	for _, s := range h.subs {
		waiting := len(s.queue)
		if s.busy {
			waiting++ // the one under way
		}
		out = append(out, hookView{s.id, string(s.event), s.target, s.key, waiting, s.delivered, s.failed, s.dropped})
	}
	return out
}

// add subscribes a target to an event. It gives the id, empty when there are too many already.
func (h *hooks) add(event api.WebhookEvent, target string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.subs) >= maxHooks || h.closed {
		return ""
	}
	s := &hook{id: newID(), target: target, key: rand.Text(), event: event}
	s.ctx, s.cancel = context.WithCancel(context.Background()) // it lives longer than the request that made it
	h.subs = append(h.subs, s)
	return s.id
}

// remove ends a subscription and what is on its way to it.
func (h *hooks) remove(id string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.IndexFunc(h.subs, func(s *hook) bool { return s.id == id })
	if i < 0 {
		return false
	}
	h.subs[i].cancel()
	h.subs = slices.Delete(h.subs, i, i+1)
	return true
}

// reset ends all subscriptions and forgets the history.
func (h *hooks) reset() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.subs {
		s.cancel()
	}
	h.subs, h.history = nil, nil
}

// close ends everything and waits for it. Nothing is delivered after.
func (h *hooks) close() {
	h.reset()
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.working.Wait()
}

// tell queues an event for everyone who subscribed to it.
func (h *hooks) tell(event api.WebhookEvent, element any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var body []byte
	for _, s := range h.subs {
		if s.event != event || h.closed {
			continue
		}
		if body == nil {
			var err error
			if body, err = json.Marshal(element); err != nil { // our own types only
				panic("sandbox: " + err.Error())
			}
		}
		if len(s.queue) >= maxHookQueue {
			s.dropped++
			continue
		}
		s.queue = append(s.queue, body)
		if !s.busy {
			s.busy = true
			h.working.Go(func() { h.work(s) })
		}
	}
}

// work delivers until the queue is empty or the subscription ends.
func (h *hooks) work(s *hook) {
	for {
		h.mu.Lock()
		if len(s.queue) == 0 || s.ctx.Err() != nil {
			s.busy, s.queue = false, nil
			h.mu.Unlock()
			return
		}
		body := s.queue[0]
		s.queue = s.queue[1:]
		h.mu.Unlock()

		done := h.deliver(s, body)

		h.mu.Lock()
		if done {
			s.delivered++
		} else {
			s.failed++
		}
		h.mu.Unlock()
	}
}

// deliver tries until the subscriber takes the event with a 2xx, or the attempts run out.
func (h *hooks) deliver(s *hook, body []byte) bool {
	for attempt := 0; ; attempt++ {
		status, answer := h.post(s, body)
		if s.ctx.Err() != nil {
			return false
		}
		h.mu.Lock()
		h.history = keep(h.history, delivered{s.event, api.WebHookHistoryEntry{
			WebHookId: &s.id, Event: ptr(string(s.event)), TargetUrl: &s.target, DeliveredDate: stamp(time.Now()),
			ResponseStatus: status, ResponseBody: &answer, Payload: ptr(string(body)),
		}}, h.most)
		h.mu.Unlock()
		if status != nil && *status/100 == 2 {
			return true
		}
		if attempt == len(hookPauses) {
			return false
		}
		timer := time.NewTimer(hookPauses[attempt])
		select {
		case <-timer.C:
		case <-s.ctx.Done():
			timer.Stop()
			return false
		}
	}
}

// post makes one attempt. The status is nil when no answer came; a redirect is an answer like any
// other.
func (h *hooks) post(s *hook, body []byte) (status *int, answer string) {
	ctx, cancel := context.WithTimeout(s.ctx, hookTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.target, bytes.NewReader(body))
	if err != nil {
		return nil, ""
	}
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	req.Header.Set("RR-Signature", signature(s.key, body))
	resp, err := h.rt.RoundTrip(req)
	if err != nil {
		return nil, ""
	}
	defer func() { _ = resp.Body.Close() }()
	got, _ := io.ReadAll(io.LimitReader(resp.Body, maxHookResponse)) // what came of it will do
	return &resp.StatusCode, string(bytes.ToValidUTF8(got, nil))
}

func (r *rock) createHook(req *request) reply {
	in, ok := decode[api.WebHookSubscription](req)
	if !ok {
		return r.unreadable(req)
	}
	if u, err := url.Parse(in.TargetUrl); err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return r.wrong(req, "target_url is no http or https URL")
	}
	id := r.hooks.add(in.Event, in.TargetUrl)
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
	entries, event := []api.WebHookHistoryEntry{}, api.WebhookEvent(req.PathValue("eventName"))
	r.hooks.mu.Lock()
	defer r.hooks.mu.Unlock()
	for _, d := range slices.Backward(r.hooks.history) {
		if d.event == event && len(entries) < r.hooks.most {
			entries = append(entries, d.WebHookHistoryEntry)
		}
	}
	return reply{status: http.StatusOK, body: entries}
}
