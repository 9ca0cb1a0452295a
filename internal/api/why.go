package api

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/scoring"
	"github.com/lodestonehq/lodestone/sequencer"
)

// Candidate is one sequence's verdict in the newest assignment.
type Candidate struct {
	lodestone.Candidate
	Priority int      `json:"priority"`
	Detail   string   `json:"detail,omitempty"` // what stood in the way, in words, where it was not the condition
	Because  *Because `json:"because,omitempty"`
}

// Because is the part of a condition that was not true, and what it met.
type Because struct {
	Text   string   `json:"text"`          // of the part, as the rule file has it
	Any    []string `json:"any,omitempty"` // the alternatives of a part that joins with or: none was true
	File   string   `json:"file"`
	Line   int      `json:"line"`
	Column int      `json:"column"`
	Values []Met    `json:"values"`
	Fault  string   `json:"fault,omitempty"` // why it could not be evaluated, when that is what happened
}

// Met is a value that a condition met.
type Met struct {
	scoring.NamedValue
	AsOf string `json:"as_of"` // decision, or now where only today's value is stored
}

// The moments of a [Met].
const (
	AsOfDecision = "decision"
	AsOfNow      = "now"
)

// Words say that the part was not true and on which values.
func (b *Because) Words() string {
	then, now := b.values(AsOfDecision), b.values(AsOfNow)
	part := scoring.Part{Text: b.Text, Any: b.Any}
	if b.Fault != "" {
		return "failed: " + part.Text + ": " + b.Fault
	}
	says := part.Untrue(then)
	if d := scoring.Describe(now); d != "" {
		says += "; today " + d
	}
	return says
}

func (b *Because) values(asOf string) []scoring.NamedValue {
	var list []scoring.NamedValue
	for _, m := range b.Values {
		if m.AsOf == asOf {
			list = append(list, m.NamedValue)
		}
	}
	return list
}

// NotGiven is a scoring rule that gave a submission nothing.
type NotGiven struct {
	Rule    string           `json:"rule"`
	Reason  lodestone.Reason `json:"reason"` // condition_false, no_points or fault
	Because *Because         `json:"because"`
}

// Why a rule gave nothing, beside condition_false.
const (
	reasonNoPoints lodestone.Reason = "no_points"
	reasonFault    lodestone.Reason = "fault"
)

// because describes a part of a condition over facts. asOf says as of when a name's value is known, "" when
// it is not.
func because(set *rules.Set, prog *scoring.Program, part int, facts scoring.Facts, asOf func(name string) string) *Because {
	p := scoring.Part{Text: prog.Source(), Names: prog.Names()}
	if parts := prog.Parts(); part < len(parts) {
		p = parts[part]
	}
	at, _ := set.Place(prog, part)
	b := &Because{Text: p.Text, Any: p.Any, File: at.File, Line: at.Line, Column: at.Column, Values: []Met{}}
	ev := set.Schema.Evaluator()
	defer ev.Release()
	ev.Bind(facts)
	for _, v := range ev.Met(p) {
		if when := asOf(v.Name); when != "" {
			b.Values = append(b.Values, Met{v, when})
		}
	}
	return b
}

func atDecision(string) string { return AsOfDecision }

// candidates resolves what a decision kept of its candidates by the version of the rule files that decided.
func candidates(d *lodestone.Decision, l *lodestone.Lead, book *sequencer.Rulebook, facts scoring.Facts, asOf func(string) string) []Candidate {
	list := make([]Candidate, 0, len(d.Candidates))
	var set *rules.Set
	if book != nil {
		set = book.Version(d.Rules)
	}
	for _, c := range d.Candidates {
		x := Candidate{Candidate: c}
		if set != nil {
			if s := set.Sequence(c.Sequence); s != nil {
				x.Priority = s.Priority
				x.Detail = inTheWay(c, s, d, l)
				if s.When != nil && c.Failed > 0 && c.Failed <= len(s.When.Parts()) {
					x.Because = because(set, s.When, c.Failed-1, facts, asOf)
					x.Because.Fault = faultOf(d, "sequences."+s.Name+".when")
				}
			}
		}
		list = append(list, x)
	}
	return list
}

func faultOf(d *lodestone.Decision, rule string) string {
	for _, f := range d.Faults {
		if f.Rule == rule {
			return f.Detail
		}
	}
	return ""
}

// inTheWay names what kept a lead out of a sequence whose condition was true.
func inTheWay(c lodestone.Candidate, s *rules.Sequence, d *lodestone.Decision, l *lodestone.Lead) string {
	switch c.Reason {
	case lodestone.ReasonLowerPriority:
		if i := slices.IndexFunc(d.Candidates, func(o lodestone.Candidate) bool {
			return o.Reason == lodestone.ReasonMatched || o.Reason == lodestone.ReasonAlreadyEnrolled || o.Reason == lodestone.ReasonBusy
		}); i >= 0 && d.Candidates[i].Sequence != c.Sequence {
			return d.Candidates[i].Sequence + " ranks higher"
		}
	case lodestone.ReasonReenterLater, lodestone.ReasonReenterNever:
		for _, past := range l.Past {
			if past.Sequence != s.Name || past.EndedAt.After(d.SubmittedAt) {
				continue
			}
			says := fmt.Sprintf("it was in it until %s (%s)", past.EndedAt.UTC().Format(time.RFC3339), past.State)
			if c.Reason == lodestone.ReasonReenterLater {
				return says + " and may enter again from " + past.EndedAt.Add(s.Reenter.After).UTC().Format(time.RFC3339)
			}
			return says + " and enters it once only, because reenter is never"
		}
	}
	return ""
}

// storedFacts puts together what the store still knows of the facts of a past decision, and as of when it
// knows each name.
func storedFacts(d *lodestone.Decision, l *lodestone.Lead) (scoring.Facts, func(name string) string) {
	facts := scoring.Facts{
		Form: d.Form, Fields: l.Profile, Lead: l, Now: d.SubmittedAt,
		Score: d.Score, Band: d.Band, PreviousBand: d.PreviousBand, Scored: true,
	}
	exact := false
	for i := range l.Enrollments {
		if e := &l.Enrollments[i]; e.Submission == d.Submission {
			facts.Fields, facts.Context, exact = e.Fields, &e.Context, true
		}
	}
	return facts, func(name string) string {
		space, _, _ := strings.Cut(name, ".")
		switch {
		case space == "fields" && !exact:
			return AsOfNow
		case space == "context" || space == "utm":
			if !exact {
				return ""
			}
		case space == "signals" || space == "signals_at":
			return AsOfNow
		case space == "lead":
			switch name {
			case "lead.email", "lead.domain", "lead.freemail", "lead.disposable", "lead.role":
			default:
				return AsOfNow
			}
		}
		return AsOfDecision
	}
}

// notGiven lists the scoring rules that gave a submission nothing.
func notGiven(set *rules.Set, facts scoring.Facts) []NotGiven {
	list := []NotGiven{}
	facts.Score, facts.Band, facts.PreviousBand, facts.Scored = 0, "", "", false
	ev := set.Schema.Evaluator()
	defer ev.Release()
	ev.Bind(facts)
	for _, r := range set.Rules {
		if r.When != nil {
			failed, err := ev.Holds(r.When)
			if failed >= 0 {
				n := NotGiven{r.Name, lodestone.ReasonConditionFalse, because(set, r.When, failed, facts, atDecision)}
				if err != nil {
					n.Reason, n.Because.Fault = reasonFault, err.Error()
				}
				list = append(list, n)
				continue
			}
		}
		if r.PointsExpr == nil {
			continue
		}
		points, err := ev.Number(r.PointsExpr)
		if err == nil && points != 0 {
			continue
		}
		n := NotGiven{r.Name, reasonNoPoints, because(set, r.PointsExpr, 0, facts, atDecision)}
		if err != nil {
			n.Reason, n.Because.Fault = reasonFault, err.Error()
		}
		list = append(list, n)
	}
	return list
}
