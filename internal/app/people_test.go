package app

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/scoring"
)

// TestUnsubscribeLink: the link of an expression opens, one click on it is in force at once, and the
// touchpoint that was due later does not go out.
func TestUnsubscribeLink(t *testing.T) {
	r := newRig(t)
	r.rules = strings.ReplaceAll(r.rules, "name: invite,", "name: invite, after: 3s,")
	w := r.open()
	stop := r.start(w)
	defer stop()
	publish(t, w, "lodestone.forms.guide", `{"email":"ada@example.com"}`)
	r.until(func(e lodestone.Entry) bool { return e.Decision != nil })

	schema := w.Rulebook().Current().Schema
	program, err := schema.Compile("links.unsubscribe", scoring.Text)
	if err != nil {
		t.Fatal(err)
	}
	ev := schema.Evaluator()
	ev.Bind(scoring.Facts{Lead: &lodestone.Lead{Email: "ada@example.com"}, Now: time.Now(), Sending: true})
	link, err := ev.Value(program)
	ev.Release()
	path, ok := strings.CutPrefix(link.(string), "https://forms.example.com")
	if err != nil || !ok {
		t.Fatalf("the link is %v, %v", link, err)
	}
	people := w.people()
	click := func() {
		t.Helper()
		req := httptest.NewRequest(http.MethodPost, path, strings.NewReader("List-Unsubscribe=One-Click"))
		answer := httptest.NewRecorder()
		people.ServeHTTP(answer, req)
		if answer.Code != http.StatusOK {
			t.Fatalf("one click: %d %s", answer.Code, answer.Body)
		}
		list, err := w.store.Suppressions(context.Background(), "", 10)
		if err != nil || len(list) != 1 || list[0].Email != "ada@example.com" {
			t.Fatalf("on the suppression list: %+v, %v", list, err)
		}
	}
	click()
	click() // as often as they like
	signalled := false
	r.until(func(e lodestone.Entry) bool {
		signalled = signalled || e.Signal != nil && e.Signal.Kind == lodestone.SignalUnsubscribed
		for _, n := range e.Touchpoints {
			if n.State == lodestone.TouchpointSkipped && n.Reason == lodestone.ReasonSuppressed {
				return true
			}
		}
		return false
	})
	if n := r.acts.Load(); n != 0 || !signalled {
		t.Errorf("%d acts went out after the opt-out, signal told %v; want none, true", n, signalled)
	}
}
