package app

import (
	"fmt"
	"slices"
	"testing"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/sequencer"
)

// Whatever befalls the streams while the worker runs: it goes on where it can, says what it waits for, and
// forgets nothing.
func TestTroubleWithStreams(t *testing.T) {
	r := newRig(t)
	w := r.open()
	stop := r.start(w)
	ctx, js := t.Context(), w.Broker().JetStream()
	has := func(code string) bool {
		return slices.ContainsFunc(w.reasons(), func(n Notice) bool { return n.Code == code })
	}
	decided := func(email string) func(lodestone.Entry) bool {
		return func(e lodestone.Entry) bool { return e.Decision != nil && string(e.Lead) == email }
	}
	publish(t, w, "lodestone.forms.guide", `{"email":"a@example.com"}`)
	r.until(decided("a@example.com"))
	if got := w.reasons(); len(got) != 0 {
		t.Fatalf("reasons = %v, want none", got)
	}

	// Somebody deletes the consumers of intake.
	forms, err := js.Stream(ctx, sequencer.FormsStream)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for name := range forms.ConsumerNames(ctx).Name() {
		n++
		if err := forms.DeleteConsumer(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	if n == 0 {
		t.Error("intake has no consumer, so nothing was shown")
	}
	publish(t, w, "lodestone.forms.guide", `{"email":"b@example.com"}`)
	r.until(decided("b@example.com"))

	// The stream is full: the publisher hears it, readiness says it, and what is in it is applied.
	cfg := forms.CachedInfo().Config
	cfg.MaxBytes = 8 << 10
	if _, err := js.UpdateStream(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	accepted := 2
	for {
		_, err := js.Publish(ctx, "lodestone.forms.guide", fmt.Appendf(nil, `{"email":"full%d@example.com","first_name":"%0900d"}`, accepted, 0))
		if err != nil {
			break
		}
		accepted++
	}
	if !has("stream_full") {
		t.Errorf("reasons = %v, want the stream said to be full", w.reasons())
	}
	r.until(decided(fmt.Sprintf("full%d@example.com", accepted-1)))
	cfg.MaxBytes = 1 << 20
	if _, err := js.UpdateStream(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	if got := w.reasons(); len(got) != 0 {
		t.Errorf("reasons = %v, want none when there is room", got)
	}

	// The stream is gone: the worker does not end, and says it.
	if err := js.DeleteStream(ctx, sequencer.FormsStream); err != nil {
		t.Fatal(err)
	}
	if !has("stream_away") {
		t.Errorf("reasons = %v, want the stream said to be gone", w.reasons())
	}
	mark, err := w.store.Watermark(ctx, sequencer.FormsStream)
	if err != nil || mark.Seq != uint64(accepted) {
		t.Errorf("watermark = %v, %v; want the %d that were accepted", mark, err, accepted)
	}
	publish(t, w, "lodestone.signals.unsubscribed", `{"email":"a@example.com"}`) // the other one goes on
	r.until(func(e lodestone.Entry) bool { return e.Signal != nil && e.Lead == "a@example.com" })
	stop()
}
