package scheduler_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/scheduler"
	"github.com/lodestonehq/lodestone/sequencer"
)

// TestAVersionThatCannotBeUsedLosesNothing: touchpoints of a version that does not compile any more wait, a
// human is asked once, and the question is closed when the version can be used again.
func TestAVersionThatCannotBeUsedLosesNothing(t *testing.T) {
	const file = `
forms:
  guide: {fields: {email: {type: email, required: true}}}
sequences:
  invite:
    when: 'true'
    steps: [{name: first, do: referralrock.invite}]
`
	compile := func(text string) *rules.Set {
		t.Helper()
		set, err := rules.Compile([]rules.File{{Name: "rules.yaml", Data: []byte(text)}}, rules.Options{
			Operations: map[string]lodestone.Operation{"referralrock.invite": {Name: "referralrock.invite"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	first := compile(file)
	today := compile(strings.Replace(file, "name: first", "name: other", 1))
	now := time.Date(2026, 3, 6, 10, 0, 0, 0, time.UTC)
	begun, err := sequencer.Plan(nil, &sequencer.Submitted{Submission: lodestone.Submission{
		ID: "1", Form: "guide", Email: "ada@example.com", Fields: lodestone.FieldsOf(map[string]any{"email": "ada@example.com"}), At: now, Received: now,
	}}, sequencer.NewRulebook(first), now)
	if err != nil {
		t.Fatal(err)
	}
	usable := false
	book := sequencer.NewRulebook(today).WithOlder(func(version string) (*rules.Set, error) {
		if version == first.Version && usable {
			return first, nil
		}
		return nil, errors.New("connector referalrock is not known")
	})
	lead := begun.Lead
	step := func() (sequencer.Moved, sequencer.Change) {
		t.Helper()
		e := lead.Active()
		m, objects := scheduler.Local(sequencer.State{Lead: lead}, e, e.Touchpoint, book, nil, now).Objection()
		if !objects {
			m = sequencer.Moved{Touchpoint: e.Touchpoint.ID, From: lodestone.TouchpointScheduled, To: lodestone.TouchpointIntended}
		}
		c, err := sequencer.Plan(lead, m, book, now)
		if err != nil {
			t.Fatal(err)
		}
		lead = c.Lead
		return m, c
	}
	m, c := step()
	if m.To != lodestone.TouchpointScheduled || m.Reason != lodestone.ReasonNoDefinition || !m.DueAt.After(now) {
		t.Errorf("the gate says %s (%s) until %v, want it to wait", m.To, m.Reason, m.DueAt)
	}
	if len(c.Attention) != 1 || !strings.Contains(c.Attention[0].Detail, "connector referalrock is not known") || !strings.Contains(c.Attention[0].Detail, "migrate-enrollments --sequence invite") {
		t.Errorf("attention = %+v, want one item with cause and remedy", c.Attention)
	}
	if _, c = step(); len(c.Attention) != 0 || c.Entry != nil {
		t.Errorf("the second time: %+v, want nothing new", c)
	}
	usable = true
	if m, c = step(); m.To != lodestone.TouchpointIntended || len(c.Resolved) != 1 {
		t.Errorf("usable again: %s, resolved %v; want it to go on and the question closed", m.To, c.Resolved)
	}
}
