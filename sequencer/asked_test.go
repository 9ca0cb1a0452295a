package sequencer

import (
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
)

// TestConfirmationAnswersItsQuestion: a link confirms what was asked when it was made, and nothing that was said since.
func TestConfirmationAnswersItsQuestion(t *testing.T) {
	start := time.Date(2026, 11, 25, 10, 0, 0, 0, time.UTC)
	at := func(hours float64) time.Time { return start.Add(time.Duration(hours * float64(time.Hour))) }
	yes := func(hours float64) *lodestone.Consent { return &lodestone.Consent{Marketing: true, At: at(hours)} }
	signals := func(kind lodestone.SignalKind, hours float64) map[string]time.Time {
		return map[string]time.Time{"confirmed": at(1), string(kind): at(hours)}
	}
	for _, test := range []struct {
		name  string
		lead  lodestone.Lead
		asked any
		want  bool
	}{
		{"asked after consent", lodestone.Lead{Consent: yes(0)}, at(0.1).Format(time.RFC3339Nano), true},
		{"asked at the moment of consent", lodestone.Lead{Consent: yes(0)}, at(0).Format(time.RFC3339Nano), true},
		{"consent came after the question", lodestone.Lead{Consent: yes(2)}, at(0.1).Format(time.RFC3339Nano), false},
		{"withdrawn since", lodestone.Lead{Signals: signals(lodestone.SignalWithdrawn, 2)}, at(0.1).Format(time.RFC3339Nano), false},
		{"unsubscribed since", lodestone.Lead{Signals: signals(lodestone.SignalUnsubscribed, 2)}, at(0.1).Format(time.RFC3339Nano), false},
		{"complained since", lodestone.Lead{Signals: signals(lodestone.SignalComplained, 2)}, at(0.1).Format(time.RFC3339Nano), false},
		{"asked anew after it was withdrawn", lodestone.Lead{Signals: signals(lodestone.SignalWithdrawn, 2)}, at(2.5).Format(time.RFC3339Nano), true},
		{"refused since", lodestone.Lead{Consent: &lodestone.Consent{At: at(2)}}, at(0.1).Format(time.RFC3339Nano), false},
		{"erased and entered again since", lodestone.Lead{FirstSeen: at(2)}, at(0.1).Format(time.RFC3339Nano), false},
		{"somebody who knows otherwise says so", lodestone.Lead{Consent: yes(2)}, nil, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.lead.Email = "ada@example.com"
			sig := lodestone.Signal{ID: "s", Kind: lodestone.SignalConfirmed, Email: test.lead.Email, At: at(3), Received: at(3)}
			if test.asked != nil {
				sig.Detail = map[string]any{lodestone.DetailAsked: test.asked}
			}
			change, err := Plan(&test.lead, Signalled{sig}, nil, at(3))
			if err != nil {
				t.Fatal(err)
			}
			if _, got := change.Lead.Confirmed(); got != test.want {
				t.Errorf("confirmed %v, want %v", got, test.want)
			}
			if got := change.Entry.Signal.Reason; (got == lodestone.ReasonStale) == test.want {
				t.Errorf("on record with the reason %q", got)
			}
		})
	}
}
