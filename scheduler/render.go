package scheduler

import (
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/sequencer"
)

// Rendered is what a step would do for a lead.
type Rendered struct {
	Connector string
	Act       connectors.Act     // its links do not work
	Objection *lodestone.Verdict // what the gate's local part would say against it at this moment; nil: nothing
	Missing   string             // why nothing would be called: a parameter that is absent or faulty; empty: it would
}

// Render makes the act of a touchpoint as the worker would make it now, without doing it. operation is what the
// step calls.
func Render(st sequencer.State, e *lodestone.Enrollment, t *lodestone.Touchpoint, book *sequencer.Rulebook, paused func(scope string) (Pause, bool), operation lodestone.Operation, now time.Time) Rendered {
	p := Local(st, e, t, book, paused, now)
	r := Rendered{Connector: t.Connector}
	if _, objects := p.Objection(); objects {
		r.Objection = &p.verdicts[len(p.verdicts)-1]
	}
	if p.seq == nil || p.step() == nil {
		r.Missing = "the step is not in this version of the sequence"
		return r
	}
	what, missing := p.Parameters(operation)
	r.Missing = missing
	r.Act = connectors.Act{ID: t.ID, Operation: t.Operation, Email: st.Lead.Email, Parameters: what.Kept, IntendedAt: now}
	return r
}
