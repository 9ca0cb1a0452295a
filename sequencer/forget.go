package sequencer

import (
	"slices"

	"github.com/lodestonehq/lodestone"
)

// Forgotten is the word that a person is to be erased: everything that still runs for them ends.
type Forgotten struct{ Email lodestone.Email }

func (Forgotten) event() {}

// forgotten ends the lead's enrollments as erased and cancels every touchpoint that is pending, also one whose
// call is out: what comes of it finds nobody and is dropped.
func (p *planner) forgotten() {
	for i := range p.lead.Enrollments {
		e := &p.lead.Enrollments[i]
		if t := e.Touchpoint; t != nil && t.State.Pending() {
			c := *t
			c.State = lodestone.TouchpointCancelled
			p.note(e, &c, lodestone.ReasonErased)
			p.change.Resolved = append(p.change.Resolved, t.ID)
			e.Touchpoint = nil
		}
	}
	for _, e := range slices.Clone(p.lead.Enrollments) {
		if e.State != lodestone.EnrollmentActive {
			continue
		}
		if active := p.lead.Active(); active != nil {
			p.end(active, lodestone.EnrollmentErased, lodestone.ReasonErased, p.now)
		}
	}
	p.drop()
}
