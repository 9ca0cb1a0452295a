package bench

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/scoring"
	"github.com/lodestonehq/lodestone/sequencer"
)

// scoreRules are 20 rules over 30 fields, as marketers write them.
var scoreRules = []string{
	`lead.freemail ? 0 : 20`,
	`fields.n0 >= 1000 ? 40 : fields.n0 >= 200 ? 25 : 0`,
	`lead.domain in lists.competitors ? -100 : 0`,
	`lead.submissions > 1 ? 15 : 0`,
	`form == "guide" ? 15 : 0`,
	`fields.t1 == "DE" or fields.t1 == "AT" ? 5 : 0`,
	`fields.t2 in ["CTO", "CEO", "CIO"] ? 20 : 0`,
	`fields.t3 != nil ? 5 : 0`,
	`fields.t4 contains "budget" ? 10 : 0`,
	`utm.source == "partner" ? 10 : 0`,
	`fields.n6 > 10 and fields.n6 < 500 ? 5 : 0`,
	`fields.t7 startsWith "Head" ? 10 : 0`,
	`fields.n8 > 0 and not lead.role ? 5 : 0`,
	`fields.n9 >= 3 ? 5 : 0`,
	`lead.disposable ? -50 : 0`,
	`days_since(lead.first_seen) > 30 ? 5 : 0`,
	`fields.t10 != "student" ? 5 : -10`,
	`(fields.n11 ?? 0) * 2 > 10 ? 5 : 0`,
	`context.consent.marketing ? 5 : 0`,
	`matches(fields.t13, "(?i)chief|head|director") ? 10 : 0`,
}

// score compares a whole decision without sequences (the lead's profile, the ledger with its lines, the
// submission's id and the journal entry) with running the 20 programs on facts that are bound already.
func score(ctx context.Context, r *run) error {
	var text strings.Builder
	text.WriteString("forms:\n  guide:\n    fields:\n      email: {type: email, required: true}\n")
	for i := range 15 {
		fmt.Fprintf(&text, "      n%d: {type: number}\n      t%d: {type: text}\n", i, i)
	}
	fields := func() lodestone.Fields {
		m := map[string]any{"email": "ada@example.com"}
		for i := range 15 {
			m[fmt.Sprint("n", i)], m[fmt.Sprint("t", i)] = float64(i*50), fmt.Sprint("Head of something ", i)
		}
		return lodestone.FieldsOf(m)
	}
	text.WriteString("lists: {competitors: [rival.example, other.example]}\nscoring:\n  bands: {hot: 60, cold: 0}\n  rules:\n")
	for i, s := range scoreRules {
		fmt.Fprintf(&text, "    - {name: rule-%d, points: '%s'}\n", i, s)
	}
	set, err := rules.Compile([]rules.File{{Name: "bench.yaml", Data: []byte(text.String())}}, rules.Options{})
	if err != nil {
		return err
	}
	book, at := sequencer.NewRulebook(set), start()
	sub := submission(0, at)
	sub.Fields = fields()
	first, err := sequencer.Plan(nil, &sequencer.Submitted{Submission: sub}, book, at)
	if err != nil {
		return err
	}
	lead := first.Lead
	again := sub
	again.ID, again.At, again.Received = "again", at.Add(time.Hour), at.Add(time.Hour)
	again.Fields = fields() // the same again, and not the very same

	ev := &sequencer.Submitted{Submission: again}

	items := r.items(100_000)
	ours := func(context.Context) (sample, error) {
		return timed(items, func() error {
			for range items {
				c, err := sequencer.Plan(lead, ev, book, again.At)
				if err != nil || c.Entry.Decision.Reason == lodestone.ReasonDuplicate {
					return fmt.Errorf("not scored: %w", err)
				}
			}
			return nil
		})
	}
	ceiling := func(context.Context) (sample, error) {
		ev := set.Schema.Evaluator()
		defer ev.Release()
		ev.Bind(scoring.Facts{Form: sub.Form, Fields: sub.Fields, Context: &sub.Context, Lead: lead, Now: again.At})
		return timed(items, func() error {
			for range items {
				for _, q := range set.Rules {
					if _, err := ev.Number(q.PointsExpr); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	return r.alternate(ctx, Result{Unit: "submissions/s", Raw: "the 20 compiled programs alone, on facts that are bound already", Aims: []Aim{atLeast("ratio", 0.5)}}, ours, ceiling)
}
