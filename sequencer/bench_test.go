package sequencer_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/sequencer"
)

// BenchmarkPlan decides on one submission of a lead that was here before: three rules, three
// sequences, one of which is entered.
func BenchmarkPlan(b *testing.B) {
	w := newWorld(b)
	w.submit("0", "guide", start, nil)
	sub := submission("1", "guide", start.Add(time.Hour), map[string]any{"size": 1500.0, "first_name": "7", "code": "ADA"})
	ev := &sequencer.Submitted{Submission: sub}
	b.ReportAllocs()
	for b.Loop() {
		c, err := sequencer.Plan(w.lead, ev, w.book, start)
		if err != nil || c.Entry.Decision.Reason != lodestone.ReasonEnrolled {
			b.Fatal(err)
		}
	}
}

// BenchmarkScored decides on one submission of 30 fields by 20 scoring rules, of a lead that was here
// before and said the same.
func BenchmarkScored(b *testing.B) {
	points := []string{
		`lead.freemail ? 0 : 20`, `fields.n0 >= 1000 ? 40 : fields.n0 >= 200 ? 25 : 0`, `lead.domain in lists.competitors ? -100 : 0`,
		`lead.submissions > 1 ? 15 : 0`, `form == "guide" ? 15 : 0`, `fields.t1 == "DE" or fields.t1 == "AT" ? 5 : 0`,
		`fields.t2 in ["CTO", "CEO", "CIO"] ? 20 : 0`, `fields.t3 != nil ? 5 : 0`, `fields.t4 contains "budget" ? 10 : 0`,
		`utm.source == "partner" ? 10 : 0`, `fields.n6 > 10 and fields.n6 < 500 ? 5 : 0`, `fields.t7 startsWith "Head" ? 10 : 0`,
		`fields.n8 > 0 and not lead.role ? 5 : 0`, `fields.n9 >= 3 ? 5 : 0`, `lead.disposable ? -50 : 0`,
		`days_since(lead.first_seen) > 30 ? 5 : 0`, `fields.t10 != "student" ? 5 : -10`, `(fields.n11 ?? 0) * 2 > 10 ? 5 : 0`,
		`context.consent.marketing ? 5 : 0`, `matches(fields.t13, "(?i)chief|head|director") ? 10 : 0`,
	}
	var text strings.Builder
	text.WriteString("forms:\n  guide:\n    fields:\n      email: {type: email, required: true}\n")
	fields := func() lodestone.Fields {
		m := map[string]any{"email": "ada@example.com"}
		for i := range 15 {
			m[fmt.Sprint("n", i)], m[fmt.Sprint("t", i)] = float64(i*50), fmt.Sprint("Head of something ", i)
		}
		return lodestone.FieldsOf(m)
	}
	for i := range 15 {
		fmt.Fprintf(&text, "      n%d: {type: number}\n      t%d: {type: text}\n", i, i)
	}
	text.WriteString("lists: {competitors: [rival.example]}\nscoring:\n  bands: {hot: 60, cold: 0}\n  rules:\n")
	for i, s := range points {
		fmt.Fprintf(&text, "    - {name: rule-%d, points: '%s'}\n", i, s)
	}
	set, err := rules.Compile([]rules.File{{Name: "bench.yaml", Data: []byte(text.String())}}, rules.Options{})
	if err != nil {
		b.Fatal(err)
	}
	book := sequencer.NewRulebook(set)
	sub := lodestone.Submission{ID: "1", Form: "guide", Email: "ada@example.com", Fields: fields(), At: start, Received: start}
	first, err := sequencer.Plan(nil, &sequencer.Submitted{Submission: sub}, book, start)
	if err != nil {
		b.Fatal(err)
	}
	sub.ID, sub.Fields, sub.At = "2", fields(), start.Add(time.Hour)
	ev := &sequencer.Submitted{Submission: sub}
	b.ReportAllocs()
	for b.Loop() {
		c, err := sequencer.Plan(first.Lead, ev, book, start)
		if err != nil || len(c.Entry.Decision.Lines) == 0 {
			b.Fatal(err)
		}
	}
}
