package sequencer

import (
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/rules"
)

// TestConsentIsKept follows what is known of one person's consent: what was agreed, in which words,
// when, where, and what became of it.
func TestConsentIsKept(t *testing.T) {
	set, err := rules.Compile([]rules.File{{Name: "rules.yaml", Data: []byte("forms: {guide: {fields: {email: {type: email, required: true}}}}")}}, rules.Options{})
	if err != nil {
		t.Fatal(err)
	}
	book := NewRulebook(set)
	day := func(n int) time.Time { return time.Date(2026, 11, n, 9, 0, 0, 0, time.UTC) }
	form := func(id string, n int, consent *lodestone.Consent) Event {
		return Submitted{Submission: lodestone.Submission{
			ID: id, Form: "guide", Email: "ada@example.com", At: day(n), Received: day(n),
			Context: lodestone.Context{Page: "https://example.com/guide", IP: "203.0.113.9", Consent: consent},
		}}
	}
	signal := func(id string, n int, kind lodestone.SignalKind) Event {
		return Signalled{lodestone.Signal{ID: id, Kind: kind, Email: "ada@example.com", At: day(n), Received: day(n)}}
	}
	given := lodestone.Consent{
		Marketing: true, Text: "Yes, send me news", At: day(2), Submission: "s2", Form: "guide", Page: "https://example.com/guide", IP: "203.0.113.9",
	}
	confirmed := given
	confirmed.Confirmed = day(3)
	again := confirmed
	again.At, again.Submission = day(5), "s5"
	var lead *lodestone.Lead
	for _, step := range []struct {
		name string
		ev   Event
		want *lodestone.Consent
	}{
		{"nobody was asked", form("s1", 1, nil), nil},
		{"a confirmation without consent gives none", signal("g1", 1, lodestone.SignalConfirmed), nil},
		{"given", form("s2", 2, &lodestone.Consent{Marketing: true, Text: "Yes, send me news"}), &given},
		{"confirmed", signal("g3", 3, lodestone.SignalConfirmed), &confirmed},
		{"a form that does not ask changes nothing", form("s4", 4, nil), &confirmed},
		{"given again, it stays confirmed", form("s5", 5, &lodestone.Consent{Marketing: true, Text: "Yes, send me news"}), &again},
		{"an old withdrawal that comes late", signal("g4", 4, lodestone.SignalWithdrawn), &again},
		{"withdrawn", signal("g6", 6, lodestone.SignalWithdrawn), &lodestone.Consent{At: day(6), Submission: "g6"}},
		{"a confirmation does not bring it back", signal("g7", 7, lodestone.SignalConfirmed), &lodestone.Consent{At: day(6), Submission: "g6"}},
	} {
		c, err := Plan(lead, step.ev, book, day(10))
		if err != nil {
			t.Fatal(err)
		}
		lead = c.Lead
		if got := lead.Consent; (got == nil) != (step.want == nil) || got != nil && *got != *step.want {
			t.Errorf("%s: %+v, want %+v", step.name, got, step.want)
		}
	}
}
