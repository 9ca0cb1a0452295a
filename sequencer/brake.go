package sequencer

import (
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/rules"
)

// Starts counts how many enrollments in a sequence were begun since a moment, to the minute, those that
// its brake held left out. It is part of what [Plan] is told, and answers the same while one event is
// planned.
type Starts func(sequence string, since time.Time) int

// Braked is a person's word on an enrollment that its sequence's brake holds: it goes on, or it is taken
// back as if it had not begun.
type Braked struct {
	Touchpoint string // the one that is held
	Undo       bool
}

func (Braked) event() {}

// IsBraked reports whether a brake holds a touchpoint, so that nothing was ever sent of it.
func IsBraked(t *lodestone.Touchpoint) bool {
	return t != nil && t.State == lodestone.TouchpointHeld && t.Reason == lodestone.ReasonBraked
}

// brake holds an enrollment that has just begun when more did in the period than the brake allows.
func (p *planner) brake(e *lodestone.Enrollment, s *rules.Sequence) {
	if s.Brake == nil || p.starts == nil || e.Touchpoint == nil {
		return
	}
	if p.starts(s.Name, p.now.Add(-s.Brake.Per)) < s.Brake.Enrollments {
		p.change.Started = s.Name
		return
	}
	e.Touchpoint.State, e.Touchpoint.Reason = lodestone.TouchpointHeld, lodestone.ReasonBraked
	p.note(e, e.Touchpoint, lodestone.ReasonBraked)
}

// braked carries out a person's word. What is let go happens at its first allowed moment from now on: its
// time passed while it was held, and that makes nothing stale.
func (p *planner) braked(ev *Braked) error {
	e, held := p.lead.Touchpoint(ev.Touchpoint)
	if !IsBraked(held) {
		return ErrMoved
	}
	if ev.Undo {
		past := p.lead.Past
		p.end(e, lodestone.EnrollmentCancelled, lodestone.ReasonUndone, p.now)
		p.lead.Past = past // it never was, so it keeps nobody from entering again
		return nil
	}
	t := *held
	t.State, t.Reason = lodestone.TouchpointScheduled, lodestone.ReasonReleased
	if t.DueAt.Before(p.now) {
		t.DueAt = p.now
		if _, s := p.book.Sequence(e); s != nil {
			if def := s.Find(e.Variant, t.Step); def != nil {
				again := *def
				again.After = 0 // it has waited
				t.DueAt = s.At(&again, p.now, ZoneOf(s, p.lead))
			}
		}
		t.PlannedAt = t.DueAt
	}
	e.Touchpoint = &t
	p.note(e, &t, lodestone.ReasonReleased)
	return nil
}
