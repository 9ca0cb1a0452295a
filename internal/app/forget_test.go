package app

import (
	"testing"
	"time"

	"github.com/lodestonehq/lodestone/internal/broker"
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
	if _, err := w.clearStreams(t.Context(), "ada@example.com"); err != nil {
		t.Fatal(err)
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
