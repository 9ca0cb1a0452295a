package api

import (
	"cmp"
	"slices"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
	"github.com/lodestonehq/lodestone/sequencer"
)

// Explanation says why a lead is where it is, why not elsewhere, and what comes next, from stored
// facts.
type Explanation struct {
	Email       lodestone.Email        `json:"email"`
	Known       bool                   `json:"known"`
	Score       int                    `json:"score"`
	Band        string                 `json:"band"`
	Zone        string                 `json:"zone,omitempty"`
	Submissions int                    `json:"submissions"`
	Suppression *lodestone.Suppression `json:"suppression,omitempty"`
	Consent     *lodestone.Consent     `json:"consent,omitempty"`
	Ledger      []Line                 `json:"ledger"`
	Candidates  []lodestone.Candidate  `json:"candidates"`
	Decision    *lodestone.Decision    `json:"decision,omitempty"` // the newest
	Enrollment  *Enrollment            `json:"enrollment"`
	Touchpoints []Touchpoint           `json:"touchpoints"`
	Next        *Next                  `json:"next"`
	Attention   []lodestone.Attention  `json:"attention,omitempty"`
	History     []lodestone.Entry      `json:"history,omitempty"` // oldest first
	Truncated   bool                   `json:"truncated,omitempty"`
}

// Line is one line of the ledger and what it is worth now.
type Line struct {
	Rule     string    `json:"rule"`
	Version  string    `json:"version"`
	Points   float64   `json:"points"`
	Value    float64   `json:"value"`
	At       time.Time `json:"at"`
	HalfLife string    `json:"half_life,omitempty"`
}

// Enrollment is the active enrollment, else the one that ended last.
type Enrollment struct {
	ID        string                    `json:"id"`
	Sequence  string                    `json:"sequence"`
	Version   string                    `json:"version"`
	State     lodestone.EnrollmentState `json:"state"`
	Reason    lodestone.Reason          `json:"reason,omitempty"`
	StartedAt time.Time                 `json:"started_at,omitzero"`
	EndedAt   time.Time                 `json:"ended_at,omitzero"`
}

// Touchpoint is one touchpoint with the gate's newest verdicts and every attempt.
type Touchpoint struct {
	ID        string                    `json:"id"`
	Sequence  string                    `json:"sequence"`
	Step      string                    `json:"step"`
	Operation string                    `json:"operation"`
	State     lodestone.TouchpointState `json:"state"`
	Reason    lodestone.Reason          `json:"reason,omitempty"`
	DueAt     time.Time                 `json:"due_at,omitzero"`
	Verdicts  []lodestone.Verdict       `json:"verdicts"`
	Attempts  []Attempt                 `json:"attempts"`
	Detail    string                    `json:"detail,omitempty"`
}

// Attempt is one try at a touchpoint or one look-up of it.
type Attempt struct {
	At        time.Time                 `json:"at"`
	Number    int                       `json:"number"`
	State     lodestone.TouchpointState `json:"state"`
	Reason    lodestone.Reason          `json:"reason,omitempty"`
	Status    int                       `json:"status,omitempty"`
	Detail    string                    `json:"detail,omitempty"`
	Reference string                    `json:"reference,omitempty"`
	TookMS    int64                     `json:"took_ms,omitempty"`
}

// Next is the coming touchpoint.
type Next struct {
	Step    string           `json:"step"`
	At      time.Time        `json:"at"`
	AtLocal string           `json:"at_local"` // in the lead's zone, RFC 3339 with its name
	Reason  lodestone.Reason `json:"reason,omitempty"`
}

// Explain puts together what is on record about one address, as of now. The band is named by the
// rules that are in force; without any it is the one of the last decision.
func Explain(email lodestone.Email, p boltstore.Person, book *sequencer.Rulebook, now time.Time) Explanation {
	x := Explanation{
		Email: email, Known: p.Lead != nil, Suppression: p.Suppression, Attention: p.Attention, Truncated: p.More,
		Ledger: []Line{}, Candidates: []lodestone.Candidate{}, Touchpoints: []Touchpoint{},
	}
	if p.Lead == nil {
		return x
	}
	x.describe(p.Lead, book, now)
	x.History = slices.Clone(p.History)
	slices.Reverse(x.History)
	for i := range x.History {
		x.fold(&x.History[i])
	}
	x.current(p.Lead)
	return x
}

// describe fills in what the lead's record says.
func (x *Explanation) describe(l *lodestone.Lead, book *sequencer.Rulebook, now time.Time) {
	x.Score, x.Band = lodestone.Score(l.Ledger, now), l.Band
	if book != nil {
		x.Band = book.Current().Band(x.Score)
	}
	x.Zone, x.Consent, x.Submissions = l.Zone, l.Consent, l.Submissions
	for _, line := range l.Ledger {
		n := Line{Rule: line.Rule, Version: line.Version, Points: line.Points, Value: line.Faded(now), At: line.At}
		if line.HalfLife > 0 {
			n.HalfLife = FormatDuration(line.HalfLife)
		}
		x.Ledger = append(x.Ledger, n)
	}
}

// fold takes one journal entry into the picture; entries come oldest first.
func (x *Explanation) fold(e *lodestone.Entry) {
	if d := e.Decision; d != nil {
		x.Decision = d
		if d.Candidates != nil {
			x.Candidates = d.Candidates
		}
	}
	for _, n := range e.Enrollments {
		if n.State == lodestone.EnrollmentActive {
			x.Enrollment = &Enrollment{ID: n.ID, Sequence: n.Sequence, Version: n.Version, State: n.State, StartedAt: e.At}
			if e.Decision != nil {
				x.Enrollment.StartedAt = e.Decision.SubmittedAt
			}
		} else if x.Enrollment == nil || x.Enrollment.ID == n.ID {
			started := time.Time{}
			if x.Enrollment != nil {
				started = x.Enrollment.StartedAt
			}
			x.Enrollment = &Enrollment{ID: n.ID, Sequence: n.Sequence, Version: n.Version, State: n.State, Reason: n.Reason, StartedAt: started, EndedAt: e.At}
		}
	}
	for _, n := range e.Touchpoints {
		i := slices.IndexFunc(x.Touchpoints, func(t Touchpoint) bool { return t.ID == n.ID })
		if i < 0 {
			i = len(x.Touchpoints)
			x.Touchpoints = append(x.Touchpoints, Touchpoint{ID: n.ID, Sequence: n.Sequence, Step: n.Step, Verdicts: []lodestone.Verdict{}, Attempts: []Attempt{}})
		}
		t := &x.Touchpoints[i]
		t.State, t.Reason, t.Operation, t.Detail = n.State, n.Reason, cmp.Or(n.Operation, t.Operation), n.Detail
		if !n.DueAt.IsZero() {
			t.DueAt = n.DueAt
		}
		if n.Verdicts != nil {
			t.Verdicts = n.Verdicts
		}
		if n.Reason == lodestone.ReasonPlanned || n.Verdicts != nil && n.State != lodestone.TouchpointIntended {
			continue // planned, or stopped by the gate: no attempt
		}
		t.Attempts = append(t.Attempts, Attempt{
			At: e.At, Number: n.Attempt, State: n.State, Reason: n.Reason, Status: n.Status,
			Detail: n.Detail, Reference: n.Reference, TookMS: n.Took.Milliseconds(),
		})
	}
}

// current overlays what the lead's record says of its pending touchpoint.
func (x *Explanation) current(l *lodestone.Lead) {
	e := l.Active()
	if e == nil {
		return
	}
	x.Enrollment = &Enrollment{ID: e.ID, Sequence: e.Sequence, Version: e.Version, State: e.State, StartedAt: e.StartedAt}
	t := e.Touchpoint
	if t == nil {
		return
	}
	i := slices.IndexFunc(x.Touchpoints, func(o Touchpoint) bool { return o.ID == t.ID })
	if i < 0 {
		i = len(x.Touchpoints)
		x.Touchpoints = append(x.Touchpoints, Touchpoint{ID: t.ID, Sequence: e.Sequence, Step: t.Step, Operation: t.Connector + "." + t.Operation, Verdicts: []lodestone.Verdict{}, Attempts: []Attempt{}})
	}
	x.Touchpoints[i].State, x.Touchpoints[i].Reason, x.Touchpoints[i].DueAt = t.State, t.Reason, t.DueAt
	if t.State == lodestone.TouchpointScheduled {
		x.Next = &Next{Step: t.Step, At: t.DueAt, AtLocal: localTime(t.DueAt, l.Zone), Reason: t.Reason}
	}
}

// Hypothetical says what a submission would get: the change that Plan made of it, put like an
// explanation, without history.
func Hypothetical(c sequencer.Change, book *sequencer.Rulebook, at time.Time) Explanation {
	x := Explanation{
		Email: c.Lead.Email, Known: c.Lead.Submissions > 1,
		Ledger: []Line{}, Candidates: []lodestone.Candidate{}, Touchpoints: []Touchpoint{},
	}
	x.describe(c.Lead, book, at)
	if c.Entry != nil {
		x.fold(c.Entry)
	}
	x.current(c.Lead)
	return x
}

func localTime(t time.Time, zone string) string {
	loc := sequencer.Location(zone)
	return t.In(loc).Format(time.RFC3339) + " " + loc.String()
}

// FormatDuration writes a duration as rule files do: 90s, 10m, 2h, 3d, 2w.
func FormatDuration(d time.Duration) string {
	for _, u := range []struct {
		size time.Duration
		name string
	}{{7 * 24 * time.Hour, "w"}, {24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}} {
		if d >= u.size && d%u.size == 0 {
			return itoa(int64(d/u.size)) + u.name
		}
	}
	return d.String()
}
