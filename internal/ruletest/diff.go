package ruletest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/rules"
)

// diff says what is not as expected, and what happened instead; "" when all is.
func (s *story) diff(t *rules.Test) string {
	var b strings.Builder
	tell := map[lodestone.Email]bool{}
	var order []lodestone.Email
	expectRejected := false
	for i := range t.Expect {
		x := &t.Expect[i]
		before := b.Len()
		if x.Rejected != "" {
			expectRejected = true
			s.diffRejected(&b, x)
		}
		p := s.persons[x.Email]
		if p == nil {
			p = &person{}
		}
		p.diff(&b, x)
		if b.Len() > before && !tell[x.Email] {
			tell[x.Email] = true
			order = append(order, x.Email)
		}
	}
	if !expectRejected {
		for _, r := range s.rejected {
			fmt.Fprintf(&b, "%s at %s could not be used: %s: %s\n", r.what, at(r.at), r.Reason, r.Detail)
		}
	}
	if b.Len() == 0 {
		return ""
	}
	for _, email := range order {
		s.tell(&b, email)
	}
	return b.String()
}

func (s *story) diffRejected(b *strings.Builder, x *rules.Expectation) {
	var got []string
	for _, r := range s.rejected {
		if r.Reason == x.Rejected {
			return
		}
		got = append(got, string(r.Reason))
	}
	if len(got) == 0 {
		got = []string{"every submission could be used"}
	}
	differs(b, "rejected", string(x.Rejected), strings.Join(got, ", "))
}

func differs(b *strings.Builder, what, want, got string) {
	fmt.Fprintf(b, "%-12s expected %s, got %s\n", what, want, got)
}

func (p *person) diff(b *strings.Builder, x *rules.Expectation) {
	score, band := "no submission", "none"
	if d := p.decision; d != nil {
		score, band = fmt.Sprint(d.Score), orNone(d.Band)
	}
	if x.Score != nil && (p.decision == nil || p.decision.Score != *x.Score) {
		differs(b, "score", fmt.Sprint(*x.Score), score)
	}
	if x.Band != "" && x.Band != band {
		differs(b, "band", x.Band, band)
	}
	for _, l := range x.Lines {
		if got, has := p.worth(l.Rule); !near(got, l.Points) {
			text := points(got)
			if !has {
				text = "no line"
			}
			differs(b, "lines", l.Rule+" "+points(l.Points), text)
		}
	}
	switch {
	case x.None && p.sequence != "":
		differs(b, "sequence", "none", p.sequence)
	case x.Sequence != "" && x.Sequence != p.sequence:
		differs(b, "sequence", x.Sequence, orNone(p.sequence))
	}
	p.diffTouchpoints(b, x)
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func points(x float64) string { return strings.TrimSuffix(fmt.Sprintf("%+.1f", x), ".0") }

// diffTouchpoints looks for each expected touchpoint behind the one before it.
func (p *person) diffTouchpoints(b *strings.Builder, x *rules.Expectation) {
	used := make([]bool, len(p.rows))
	next, missing := 0, false
	for i := range x.Touchpoints {
		want := &x.Touchpoints[i]
		found := -1
		for j := next; j < len(p.rows); j++ {
			if fits(want, &p.rows[j]) {
				found = j
				break
			}
		}
		if found < 0 {
			missing = true
			differs(b, "touchpoints", expected(want), p.instead(want, next))
			continue
		}
		used[found], next = true, found+1
	}
	if !x.Only || missing {
		return
	}
	for j, r := range p.rows {
		if !used[j] && r.outcome != rules.OutcomeDeferred {
			differs(b, "touchpoints", "no other", r.String())
		}
	}
}

func fits(want *rules.ExpectedTouchpoint, r *row) bool {
	return want.Step == r.step &&
		(want.Sequence == "" || want.Sequence == r.sequence) &&
		(want.Outcome == "" && r.outcome != rules.OutcomeDeferred || want.Outcome == r.outcome) &&
		(want.Reason == "" || want.Reason == r.reason) &&
		(want.At.IsZero() || want.At.Equal(r.at))
}

func expected(w *rules.ExpectedTouchpoint) string {
	text := w.Step
	if w.Sequence != "" {
		text = w.Sequence + "." + text
	}
	if w.Outcome != "" {
		text += " " + w.Outcome
	}
	if w.Reason != "" {
		text += fmt.Sprintf(" (%s)", w.Reason)
	}
	if !w.At.IsZero() {
		text += " at " + at(w.At)
	}
	return text
}

// instead is what became of the step that was looked for, from a row on, or else at all.
func (p *person) instead(want *rules.ExpectedTouchpoint, next int) string {
	same := func(r row) bool {
		return r.step == want.Step && r.outcome != rules.OutcomeDeferred && (want.Sequence == "" || r.sequence == want.Sequence)
	}
	if i := slices.IndexFunc(p.rows[next:], same); i >= 0 {
		return p.rows[next+i].String()
	}
	if i := slices.IndexFunc(p.rows, same); i >= 0 {
		return p.rows[i].String() + ", which is before the one expected ahead of it"
	}
	return "no such touchpoint"
}

// tell writes what happened to a lead, moment by moment.
func (s *story) tell(b *strings.Builder, email lodestone.Email) {
	p := s.persons[email]
	if p == nil {
		fmt.Fprintf(b, "what happened to %s: nothing; nobody of that address submitted anything that could be used\n", email)
		return
	}
	fmt.Fprintf(b, "what happened to %s:\n", email)
	for _, e := range p.entries {
		if d := e.Decision; d != nil {
			band := ""
			if d.Band != "" {
				band = ", band " + d.Band
			}
			fmt.Fprintf(b, "  %s  submitted %s: score %d%s; %s\n", at(e.At), d.Form, d.Score, band, d.Reason)
			for _, l := range d.Lines {
				fmt.Fprintf(b, "      %s %s\n", points(l.Points), l.Rule)
			}
			for _, f := range d.Faults {
				fmt.Fprintf(b, "      %s failed: %s\n", f.Rule, f.Detail)
			}
			for _, n := range d.Notes {
				fmt.Fprintf(b, "      note: %s\n", n)
			}
			for _, c := range d.Candidates {
				fmt.Fprintf(b, "      sequence %s: %s (%s)\n", c.Sequence, c.Verdict, c.Reason)
			}
		}
		if g := e.Signal; g != nil {
			fmt.Fprintf(b, "  %s  signal %s\n", at(e.At), g.Kind)
		}
		for _, n := range e.Touchpoints {
			if n.State == lodestone.TouchpointIntended {
				continue
			}
			fmt.Fprintf(b, "  %s  %s.%s %s", at(e.At), n.Sequence, n.Step, n.State)
			if n.Reason != "" && string(n.Reason) != string(n.State) {
				fmt.Fprintf(b, " (%s)", n.Reason)
			}
			if !n.DueAt.IsZero() {
				fmt.Fprintf(b, " for %s", at(n.DueAt))
			}
			if n.Detail != "" { // of an objection: its evidence
				fmt.Fprintf(b, ": %s", n.Detail)
			}
			b.WriteByte('\n')
		}
		for _, n := range e.Enrollments {
			if n.State != lodestone.EnrollmentActive {
				fmt.Fprintf(b, "  %s  %s ended: %s\n", at(e.At), n.Sequence, n.State)
			}
		}
	}
}
