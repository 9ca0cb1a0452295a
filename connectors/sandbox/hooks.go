package sandbox

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// The bounds of webhook deliveries. What the providers' are is not known, or is counted in hours.
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
	// body is what a subscriber gets of an event; the same for every attempt.
	body func(s *hook, event string, element any) any
	// seal adds to a request what proves who sent it.
	seal func(s *hook, req *http.Request, body []byte)
	// taken says whether a status means that the event was taken.
	taken func(status int) bool

	mu      sync.Mutex // guards what follows, and the hooks
	subs    []*hook
	history []delivered // oldest first
	closed  bool
	working sync.WaitGroup
}

// hook is one subscription of an address to events.
type hook struct {
	id, target, key string
	tenant          string          // whose events; empty where a provider has none
	events          []string        // "*": all
	ctx             context.Context // ends with the subscription
	cancel          context.CancelFunc
	queue           []pending
	busy            bool // its goroutine runs
	delivered       int
	failed          int // given up after the last attempt
	dropped         int // found the queue full
}

func (s *hook) wants(event string) bool {
	return slices.Contains(s.events, event) || slices.Contains(s.events, "*")
}

// pending is one event on its way to one subscriber.
type pending struct {
	event string
	body  []byte
}

// delivered is one attempt at a delivery.
type delivered struct {
	pending
	id, target string // of the subscription
	at         time.Time
	status     *int // nil: no answer came
	answer     string
}

func newHooks(most int) *hooks {
	return &hooks{
		most: most, rt: &http.Transport{DisableKeepAlives: true}, // no proxy: subscribers are near
		body:  func(_ *hook, _ string, element any) any { return element },
		taken: func(status int) bool { return status/100 == 2 },
	}
}

// hookView is how a subscription looks from outside. Referral Rock shows the signing key on its admin
// pages; SaaSquatch has one for all, whose public half it publishes.
type hookView struct {
	Provider   string `json:"provider"`
	ID         string `json:"id"`
	Event      string `json:"event"` // several with commas between; "*": all
	TargetURL  string `json:"target_url"`
	SigningKey string `json:"signing_key,omitempty"`
	Waiting    int    `json:"waiting"`
	Delivered  int    `json:"delivered"`
	Failed     int    `json:"failed"`
	Dropped    int    `json:"dropped"`
}

func (h *hooks) list(provider string) []hookView {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := []hookView{}
	for _, s := range h.subs {
		waiting := len(s.queue)
		if s.busy {
			waiting++ // the one under way
		}
		out = append(out, hookView{provider, s.id, strings.Join(s.events, ", "), s.target, s.key, waiting, s.delivered, s.failed, s.dropped})
	}
	return out
}

// add subscribes a target to events. It gives the id, empty when there are too many already.
func (h *hooks) add(tenant, target string, events ...string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.subs) >= maxHooks || h.closed {
		return ""
	}
	s := &hook{id: newID(), target: target, key: rand.Text(), tenant: tenant, events: events}
	s.ctx, s.cancel = context.WithCancel(context.Background()) // it lives longer than the request that made it
	h.subs = append(h.subs, s)
	return s.id
}

// remove ends a subscription, by its id or its address, and what is on its way to it.
func (h *hooks) remove(id string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.IndexFunc(h.subs, func(s *hook) bool { return s.id == id || s.target == id })
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

// tell queues an event for everyone who subscribed to it; target is the only address that gets it when it
// is not empty.
func (h *hooks) tell(event string, element any, target ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.subs {
		if h.closed || len(target) == 0 && !s.wants(event) || len(target) > 0 && s.target != target[0] {
			continue
		}
		if len(s.queue) >= maxHookQueue {
			s.dropped++
			continue
		}
		body, err := json.Marshal(h.body(s, event, element))
		if err != nil { // our own types only
			panic("sandbox: " + err.Error())
		}
		s.queue = append(s.queue, pending{event, body})
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
		next := s.queue[0]
		s.queue = s.queue[1:]
		h.mu.Unlock()

		done := h.deliver(s, next)

		h.mu.Lock()
		if done {
			s.delivered++
		} else {
			s.failed++
		}
		h.mu.Unlock()
	}
}

// deliver tries until the subscriber takes the event, or the attempts run out.
func (h *hooks) deliver(s *hook, p pending) bool {
	for attempt := 0; ; attempt++ {
		status, answer := h.post(s, p.body)
		if s.ctx.Err() != nil {
			return false
		}
		h.mu.Lock()
		h.history = keep(h.history, delivered{p, s.id, s.target, time.Now(), status, answer}, h.most)
		h.mu.Unlock()
		if status != nil && h.taken(*status) {
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
	h.seal(s, req, body)
	resp, err := h.rt.RoundTrip(req)
	if err != nil {
		return nil, ""
	}
	defer func() { _ = resp.Body.Close() }()
	got, _ := io.ReadAll(io.LimitReader(resp.Body, maxHookResponse)) // what came of it will do
	return &resp.StatusCode, string(bytes.ToValidUTF8(got, nil))
}
