package replay_test

import (
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/replay"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
	"github.com/lodestonehq/lodestone/sequencer"
)

// Whoever opted out, was erased and came back is suppressed in the past as well, although no list names them.
func TestSuppressedBeforeTheyWereErased(t *testing.T) {
	store, err := boltstore.Open(t.TempDir(), boltstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	set, err := rules.Compile([]rules.File{{Name: "r.yaml", Data: []byte("forms: {guide: {fields: {email: {type: email, required: true}}}}\n")}}, rules.Options{})
	if err != nil {
		t.Fatal(err)
	}
	book := sequencer.NewRulebook(set)
	happen := func(email lodestone.Email, ev sequencer.Event, at time.Time) {
		t.Helper()
		got, err := store.Commit(t.Context(), sequencer.Batch{Writes: []sequencer.Write{{Email: email, Plan: func(st sequencer.State) (sequencer.Change, error) {
			return sequencer.Plan(st.Lead, ev, book, at)
		}}}})
		if err != nil || got[0].Err != nil {
			t.Fatal(err, got)
		}
	}
	submit := func(email lodestone.Email, id string, at time.Time) {
		happen(email, &sequencer.Submitted{Submission: lodestone.Submission{
			ID: id, Form: "guide", Email: email, Fields: lodestone.FieldsOf(map[string]any{"email": string(email)}), At: at, Received: at,
		}}, at)
	}
	for _, email := range []lodestone.Email{"ada@example.com", "bob@example.com", "cy@example.com", "gone@example.com"} {
		submit(email, "1 "+string(email), start)
		if email != "bob@example.com" {
			happen(email, sequencer.Signalled{Signal: lodestone.Signal{ID: "s " + string(email), Kind: lodestone.SignalUnsubscribed, Email: email, At: start, Received: start}}, start)
		}
		if email == "cy@example.com" {
			continue // their own signal suppresses them again
		}
		if _, _, err := store.Erase(t.Context(), email, start.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	for _, email := range []lodestone.Email{"ada@example.com", "bob@example.com"} {
		submit(email, "2 "+string(email), start.Add(24*time.Hour))
	}
	var paged []lodestone.Email
	for after, next := lodestone.Email(""), lodestone.Email(""); ; after = next { // a lead at a time
		var list []lodestone.Suppression
		if list, next, err = store.SuppressedAgain(t.Context(), after, 1); err != nil {
			t.Fatal(err)
		}
		for _, s := range list {
			paged = append(paged, s.Email)
		}
		if next == "" {
			break
		}
	}
	if len(paged) != 1 || paged[0] != "ada@example.com" {
		t.Errorf("one by one %v were suppressed, want ada alone", paged)
	}
	_, src, err := replay.Open(t.Context(), store, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var suppressed []lodestone.Email
	submissions := 0
	if err := src(t.Context(), func(r *replay.Record) error {
		if r.Suppressed != nil {
			suppressed = append(suppressed, r.Suppressed.Email)
			if submissions > 1 {
				t.Errorf("suppressed after %d submissions", submissions)
			}
		} else if r.Stream == sequencer.FormsStream {
			submissions++
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(suppressed) != 1 || suppressed[0] != "ada@example.com" || submissions != 3 {
		t.Errorf("%v are suppressed, %d submissions; want ada alone and 3", suppressed, submissions)
	}
}
