package sequencer

import (
	"fmt"
	"slices"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/rules"
)

// Migrated is an operator's word that an enrollment goes on with today's version of its sequence.
type Migrated struct {
	Enrollment string
	Touchpoint string            // the pending one that the word was given about; another one now is ErrMoved
	Steps      map[string]string // steps that have another name today: old to new
	Done       []string          // steps that ended, as the journal tells
	Operator   lodestone.OperatorEntry
}

func (Migrated) event() {}

// Migration says where an enrollment stands in today's version of its sequence.
type Migration struct {
	From, To string // versions of the sequence
	Step     string // that is pending now
	Stands   string // the step that takes its place; empty: it is left as it is
	Left     string // why it is left as it is, and what helps
}

// Migration says where an enrollment would stand in today's version of its sequence; ok is false when it is
// on it already. steps names those that have another name today, done those that ended.
func (b *Rulebook) Migration(e *lodestone.Enrollment, steps map[string]string, done []string) (m Migration, ok bool) {
	m.From = e.Version
	target := b.current.Sequence(e.Sequence)
	if target != nil {
		m.To = target.Version
	}
	if m.To == m.From {
		return m, false
	}
	t := e.Touchpoint
	if t == nil {
		m.Left = "no step of it is pending"
		return m, true
	}
	m.Step = t.Step
	name := t.Step
	if renamed := steps[name]; renamed != "" {
		name = renamed
	}
	at := -1
	if target != nil {
		at = stepIndex(target.StepsOf(e.Variant), name)
	}
	switch {
	case target == nil:
		m.Left = fmt.Sprintf("there is no sequence %s today", e.Sequence)
	case e.Parked != nil:
		m.Left = fmt.Sprintf("step %s is being tried again; its end must be waited for", t.Step)
	case at < 0 && name != t.Step:
		m.Left = fmt.Sprintf("today's version has no step %s either; give --map %s=STEP a step that it has", name, t.Step)
	case at < 0:
		m.Left = fmt.Sprintf("today's version has no step %s; say which one takes its place with --map %s=STEP", t.Step, t.Step)
	case name != t.Step && t.State != lodestone.TouchpointScheduled:
		m.Left = fmt.Sprintf("step %s is %s, and is settled under its own name first", t.Step, t.State)
	case name != t.Step && slices.Contains(b.done(e, done), name):
		m.Left = fmt.Sprintf("the lead was at step %s before, and a step is taken once", name)
	case !unsent(t) && !sameAct(target.StepsOf(e.Variant)[at].Of(t.Variant), t):
		m.Left = fmt.Sprintf("step %s is %s, and today's version does another thing in it; it is settled as what it was first", t.Step, t.State)
	default:
		m.Stands = name
	}
	return m, true
}

// unsent reports whether nothing of a touchpoint can have been sent.
func unsent(t *lodestone.Touchpoint) bool {
	return t.State == lodestone.TouchpointScheduled || IsBraked(t)
}

func sameAct(s *rules.Step, t *lodestone.Touchpoint) bool {
	return s.Connector == t.Connector && s.Operation == t.Operation
}

// done lists the steps of an enrollment that ended: as far as is known from the version it is on, and those
// in more.
func (b *Rulebook) done(e *lodestone.Enrollment, more []string) []string {
	list := slices.Concat(e.Done, more)
	if _, s := b.Sequence(e); s != nil {
		steps := s.StepsOf(e.Variant)
		for i := range min(e.Step, len(steps)) {
			list = append(list, steps[i].Name)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func stepIndex(steps []rules.Step, name string) int {
	return slices.IndexFunc(steps, func(s rules.Step) bool { return s.Name == name })
}

// migrated moves an enrollment to today's version. The pending touchpoint keeps its id and its time; one whose
// step has another name today is cancelled, and the one that takes its place has the same time.
func (p *planner) migrated(ev *Migrated) error {
	i := slices.IndexFunc(p.lead.Enrollments, func(e lodestone.Enrollment) bool { return e.ID == ev.Enrollment })
	if i < 0 {
		return ErrMoved
	}
	e := &p.lead.Enrollments[i]
	if e.State != lodestone.EnrollmentActive || e.Touchpoint == nil || e.Touchpoint.ID != ev.Touchpoint {
		return ErrMoved
	}
	m, ok := p.book.Migration(e, ev.Steps, ev.Done)
	switch {
	case !ok:
		return ErrMoved // by somebody else
	case m.Stands == "":
		return refuse("%s", m.Left)
	}
	word := ev.Operator
	word.Detail = fmt.Sprintf("%s goes from version %s to %s, from step %s to %s", e.Sequence, m.From, m.To, m.Step, m.Stands)
	p.entry.Operator = &word
	target := p.book.current.Sequence(e.Sequence)
	e.Done = p.book.done(e, ev.Done)
	e.Version, e.Rules, e.Priority, e.Step = target.Version, p.book.current.Version, target.Priority, stepIndex(target.StepsOf(e.Variant), m.Stands)

	t := *e.Touchpoint
	stuck := t.Reason == lodestone.ReasonNoDefinition
	if stuck {
		p.change.Resolved = append(p.change.Resolved, t.ID)
		t.Reason, t.DueAt = lodestone.ReasonMigrated, p.now
	}
	if unsent(&t) {
		def := &target.StepsOf(e.Variant)[e.Step]
		if m.Stands != m.Step {
			t.Variant = StepVariant(p.lead.Email, target, def)
		}
		act := def.Of(t.Variant)
		t.Connector, t.Operation = act.Connector, act.Operation
	}
	if m.Stands != m.Step {
		gone := *e.Touchpoint
		gone.State = lodestone.TouchpointCancelled
		p.note(e, &gone, lodestone.ReasonMigrated)
		e.Done = append(e.Done, m.Step)
		t.ID, t.Step, t.Reason, t.Attempts, t.Delays, t.Forgiven = lodestone.TouchpointID(e.ID, m.Stands), m.Stands, "", 0, 0, 0
		awaits := p.migratedAwait(e, &t, target)
		p.note(e, &t, lodestone.ReasonPlanned)
		if awaits {
			p.note(e, &t, t.Reason)
		}
	} else if p.migratedAwait(e, &t, target); stuck {
		p.note(e, &t, t.Reason)
	}
	e.Touchpoint = &t
	return nil
}
