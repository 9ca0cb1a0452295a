package sequencer

import (
	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/scoring"
)

// Quarantined says whether a submission has to wait for a human before anything is decided, and what
// speaks against it: the form's own condition is true, or somebody has its address entered all over
// the place. lead is the one it is about, nil when it is new. One that was decided already waits for
// nobody; and neither does a backfill, which enrolls nobody.
func Quarantined(lead *lodestone.Lead, sub *lodestone.Submission, book *Rulebook) *lodestone.Rejection {
	if sub.Backfill {
		return nil
	}
	p := planner{book: book}
	p.begin(lead, sub.Email)
	if !p.remember(sub.ID, sub.Received) {
		return nil
	}
	form := book.current.Forms[sub.Form]
	if !sub.Context.Evidence.Bombed() && (form == nil || form.Quarantine == nil) {
		return nil
	}
	rejection := &lodestone.Rejection{
		Reason: lodestone.ReasonQuarantined, Form: sub.Form, Email: sub.Email, ID: sub.ID,
		Detail: scoring.RiskWords(sub.Context.Evidence, sub.Email),
	}
	if sub.Context.Evidence.Bombed() {
		return rejection
	}
	ev := book.current.Schema.Evaluator()
	defer ev.Release()
	ev.Bind(scoring.Facts{Form: sub.Form, Fields: sub.Fields, Context: &sub.Context, Lead: p.lead, Now: sub.At})
	// A condition that fails at run time is not true, as everywhere.
	if yes, err := ev.Bool(form.Quarantine); err != nil || !yes {
		return nil
	}
	return rejection
}
