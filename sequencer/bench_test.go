package sequencer_test

import (
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/sequencer"
)

// BenchmarkPlan decides on one submission of a lead that was here before: three rules, three
// sequences, one of which is entered.
func BenchmarkPlan(b *testing.B) {
	w := newWorld(b)
	w.submit("0", "guide", start, nil)
	sub := submission("1", "guide", start.Add(time.Hour), map[string]any{"size": 1500.0, "first_name": "7", "code": "ADA"})
	b.ReportAllocs()
	for b.Loop() {
		c, err := sequencer.Plan(w.lead, sequencer.Submitted{Submission: sub}, w.book, start)
		if err != nil || c.Entry.Decision.Reason != lodestone.ReasonEnrolled {
			b.Fatal(err)
		}
	}
}
