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
		return &Submitted{Submission: lodestone.Submission{
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

// TestConsentIsDatedByTheGateway: on a form that anybody can post to, time and address are what the gateway saw;
// what was claimed stands beside it, and decides which of two words is the later one.
func TestConsentIsDatedByTheGateway(t *testing.T) {
	set, err := rules.Compile([]rules.File{{Name: "rules.yaml", Data: []byte("forms: {guide: {fields: {email: {type: email, required: true}}}}")}}, rules.Options{})
	if err != nil {
		t.Fatal(err)
	}
	book := NewRulebook(set)
	received, claimed := time.Date(2026, 11, 2, 9, 0, 0, 0, time.UTC), time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
	given := func(id, visitor string) *Submitted {
		return &Submitted{Submission: lodestone.Submission{
			ID: id, Form: "guide", Email: "ada@example.com", At: received, Received: received, Visitor: visitor,
			Context: lodestone.Context{IP: "8.8.8.8", Consent: &lodestone.Consent{Marketing: true, At: claimed}},
		}}
	}
	for _, tt := range []struct {
		name, visitor string
		want          lodestone.Consent
	}{
		{"a back end", "", lodestone.Consent{At: claimed, IP: "8.8.8.8"}},
		{"a visitor", "203.0.113.9", lodestone.Consent{At: received, IP: "203.0.113.9", ClaimedAt: claimed, ClaimedIP: "8.8.8.8"}},
		{"a visitor who says what is so", "8.8.8.8", lodestone.Consent{At: received, IP: "8.8.8.8", ClaimedAt: claimed}},
	} {
		tt.want.Marketing, tt.want.Submission, tt.want.Form = true, "s1", "guide"
		c, err := Plan(nil, given("s1", tt.visitor), book, received)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Lead.Consent; got == nil || *got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
		took := lodestone.Signal{ID: "g1", Kind: lodestone.SignalWithdrawn, Email: "ada@example.com", At: received.Add(-time.Hour), Received: received}
		if c, err = Plan(c.Lead, Signalled{took}, book, received); err != nil {
			t.Fatal(err)
		}
		if c, err = Plan(c.Lead, given("s2", tt.visitor), book, received); err != nil || c.Lead.Consent.Marketing {
			t.Errorf("%s: after a withdrawal the older word counts: %+v, %v", tt.name, c.Lead.Consent, err)
		}
	}
}
