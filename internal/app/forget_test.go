package app

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/internal/events"
	"github.com/lodestonehq/lodestone/internal/gateway"
	"github.com/lodestonehq/lodestone/internal/links"
)

// erasing is a worker that has applied nothing yet, and a person whose erasure was asked for between two messages.
func erasing(t *testing.T, before, after string) *Worker {
	t.Helper()
	r := newRig(t)
	w := r.open()
	t.Cleanup(func() {
		if err := w.close(); err != nil {
			t.Error(err)
		}
	})
	publish(t, w, before, `{"email":"ada@example.com"}`)
	if _, _, err := w.store.Erase(t.Context(), "ada@example.com", time.Now().UTC()); err != nil {
		t.Fatal(err)
	}
	publish(t, w, after, `{"email":"ada@example.com"}`)
	if _, done, err := w.clearStreams(t.Context(), "ada@example.com"); err != nil || !done {
		t.Fatal(done, err)
	}
	return w
}

func messages(t *testing.T, w *Worker, stream string) uint64 {
	t.Helper()
	s, err := w.Broker().JetStream().Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().State.Msgs
}

// An opt-out that is erased before it was applied is not lost with its message.
func TestForgetKeepsAnOptOutThatWaits(t *testing.T) {
	w := erasing(t, "lodestone.signals.unsubscribed", "lodestone.forms.guide")
	if n := messages(t, w, broker.SignalsStream); n != 0 {
		t.Errorf("%d signals are left", n)
	}
	st, err := w.store.State(t.Context(), "ada@example.com")
	if err != nil || st.Suppression == nil || st.Lead != nil {
		t.Errorf("suppression %v, lead %v, %v; want the opt-out and no lead", st.Suppression, st.Lead, err)
	}
	if list, err := w.store.Suppressions(t.Context(), "", 10); err != nil || len(list) != 0 {
		t.Errorf("the address stands on the list: %v %v", list, err)
	}
}

// Who asks to be forgotten and sends a form later has sent a form.
func TestForgetLeavesWhatComesLater(t *testing.T) {
	w := erasing(t, "lodestone.forms.guide", "lodestone.forms.guide")
	if n := messages(t, w, broker.FormsStream); n != 1 {
		t.Errorf("%d submissions are left, want the later one", n)
	}
	if list, err := w.store.Erasing(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("still under way: %v %v", list, err)
	}
}

const ada = lodestone.Email("ada@example.com")

// gone fails the test while a stream, the list, or a record holds the person.
func gone(t *testing.T, w *Worker, suppressed bool) {
	t.Helper()
	if _, done, err := w.clearStreams(t.Context(), ada); err != nil || !done {
		t.Fatalf("the streams are not clear: %t %v", done, err)
	}
	if list, err := (streams{w}).Messages(t.Context(), ada); err != nil || len(list) != 0 {
		t.Errorf("in the streams: %+v %v", list, err)
	}
	st, err := w.store.State(t.Context(), ada)
	if err != nil || st.Lead != nil || (st.Suppression != nil) != suppressed {
		t.Errorf("lead %v, suppression %v, %v; want no lead, suppressed %t", st.Lead, st.Suppression, err, suppressed)
	}
	if list, err := w.store.Suppressions(t.Context(), "", 10); err != nil || len(list) != 0 {
		t.Errorf("the address stands on the list: %v %v", list, err)
	}
}

// forgotten is a running worker that forgot a person it knew.
func forgotten(t *testing.T) (*rig, *Worker) {
	t.Helper()
	r := newRig(t)
	r.rules = strings.ReplaceAll(r.rules, "name: invite,", "name: invite, after: 1h,")
	w := r.open()
	t.Cleanup(r.start(w))
	publish(t, w, "lodestone.forms.guide", `{"email":"ada@example.com"}`)
	r.until(func(e lodestone.Entry) bool { return e.Decision != nil })
	if _, err := w.Client().Forget(t.Context(), string(ada), false); err != nil {
		t.Fatal(err)
	}
	gone(t, w, false)
	return r, w
}

// The link in an old message works for ever, and brings no address back.
func TestUnsubscribeLinkOfSomebodyForgotten(t *testing.T) {
	_, w := forgotten(t)
	people := w.people()
	for _, p := range []links.Purpose{links.Confirm, links.Unsubscribe, links.Unsubscribe} {
		path := gateway.Link(w.links, "", p, ada, time.Now())
		answer := httptest.NewRecorder()
		people.ServeHTTP(answer, httptest.NewRequest(http.MethodPost, path, strings.NewReader("List-Unsubscribe=One-Click")))
		want := http.StatusOK
		if p == links.Confirm { // there is nothing left that could be confirmed
			want = http.StatusGone
		}
		if answer.Code != want {
			t.Fatalf("%s: %d %s, want %d", p, answer.Code, answer.Body, want)
		}
		gone(t, w, p == links.Unsubscribe)
	}
}

// What comes late of the past, a signal or a submission that was sent before, brings nobody back; an opt-out counts.
func TestLateNewsOfSomebodyForgotten(t *testing.T) {
	r, w := forgotten(t)
	erased := func(e lodestone.Entry) bool {
		return e.Decision != nil && e.Decision.Reason == lodestone.ReasonErased || e.Signal != nil && e.Signal.Reason == lodestone.ReasonErased
	}
	publish(t, w, "lodestone.signals.opened", `{"email":"ada@example.com"}`)
	r.until(erased)
	gone(t, w, false)
	if _, err := w.Broker().JetStream().PublishMsg(t.Context(), &nats.Msg{
		Subject: "lodestone.forms.guide", Header: nats.Header{"Content-Type": {"application/cloudevents+json"}},
		Data: []byte(`{"specversion":"1.0","type":"lodestone.form.submitted","source":"web","id":"1","time":"2020-01-01T00:00:00Z","data":{"fields":{"email":"ada@example.com"}}}`),
	}); err != nil {
		t.Fatal(err)
	}
	r.until(erased)
	gone(t, w, false)
	publish(t, w, "lodestone.signals.unsubscribed", `{"email":"ADA@example.com"}`)
	r.until(erased)
	gone(t, w, true)

	publish(t, w, "lodestone.forms.guide", `{"email":"ada@example.com"}`)
	r.until(func(e lodestone.Entry) bool { return e.Decision != nil })
	if st, err := w.store.State(t.Context(), ada); err != nil || st.Lead == nil || st.Suppression == nil {
		t.Errorf("after a new submission: lead %v, suppression %v, %v; want both", st.Lead, st.Suppression, err)
	}
}

// held publishes nothing until it is let.
type held struct {
	events.Publisher
	asked, let chan struct{}
}

func (h held) PublishBatch(ctx context.Context, msgs []*nats.Msg) error {
	h.asked <- struct{}{}
	<-h.let
	return h.Publisher.PublishBatch(ctx, msgs)
}

// Events that were on their way to their stream while a person was erased do not get there afterwards.
func TestForgetWaitsForTheOutbox(t *testing.T) {
	r := newRig(t)
	w := r.open()
	h := held{w.outbox.Publish, make(chan struct{}), make(chan struct{})}
	w.outbox.Publish = h
	stop := r.start(w)
	publish(t, w, "lodestone.forms.guide", `{"email":"ada@example.com"}`)
	<-h.asked // what was read of her is in memory
	done := make(chan error, 1)
	go func() {
		_, err := w.Client().Forget(t.Context(), string(ada), false)
		done <- err
	}()
	for { // until the store is clear of her
		st, err := w.store.State(t.Context(), ada)
		if err != nil {
			t.Fatal(err)
		}
		if st.Lead == nil && !st.Erased.IsZero() {
			break
		}
	}
	select {
	case err := <-done:
		t.Errorf("the streams were said to be clear: %v", err)
		done <- err
	case <-time.After(200 * time.Millisecond): // for the fault to show; its absence waits below
	}
	open, closing := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(open)
		for {
			select {
			case h.let <- struct{}{}:
			case <-h.asked:
			case <-closing:
				return
			}
		}
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if list, err := (streams{w}).Messages(t.Context(), ada); err != nil || len(list) != 0 {
		t.Errorf("in the streams: %+v %v", list, err)
	}
	stop()
	close(closing)
	<-open
}

// What comes of a call that was out while the person was erased finds nobody and leaves nothing.
func TestForgetWhileACallIsOut(t *testing.T) {
	r := newRig(t)
	r.acted = make(chan string) // the provider answers when this is read
	w := r.open()
	stop := r.start(w)
	publish(t, w, "lodestone.forms.guide", `{"email":"ada@example.com"}`)
	r.until(func(e lodestone.Entry) bool {
		return len(e.Touchpoints) > 0 && e.Touchpoints[0].State == lodestone.TouchpointIntended
	})
	got, err := w.Client().Forget(t.Context(), string(ada), false)
	if err != nil || len(got.Out) != 1 || got.Out[0] != r.account {
		t.Fatalf("calls that were out: %v, %v", got.Out, err)
	}
	<-r.acted
	stop() // which waits for what is in flight
	w = r.open()
	defer r.start(w)()
	gone(t, w, false)
	if items, _, err := w.store.Attention(t.Context(), 10); err != nil || len(items) != 0 {
		t.Errorf("under attention: %+v %v", items, err)
	}
	entries, err := w.store.Journal(t.Context(), 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if text, _ := json.Marshal(e); e.Lead != "" || strings.Contains(string(text), "ada@") {
			t.Errorf("the journal names her: %s", text)
		}
	}
}
