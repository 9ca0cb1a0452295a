package api

import (
	"cmp"
	"slices"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/scheduler"
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
	NotGiven    []NotGiven             `json:"not_given,omitempty"` // of a hypothetical submission: the rules that gave nothing
	Candidates  []Candidate            `json:"candidates"`
	Decision    *lodestone.Decision    `json:"decision,omitempty"` // the newest
	Enrollment  *Enrollment            `json:"enrollment"`
	Past        []Enrollment           `json:"past_enrollments,omitempty"` // that ended, oldest first, Enrollment included
	Touchpoints []Touchpoint           `json:"touchpoints"`
	Next        *Next                  `json:"next"`
	Quarantine  *Quarantine            `json:"quarantine,omitempty"` // of a hypothetical submission: it would wait for a person first
	Coming      []Coming               `json:"coming"`               // everything that is still to happen in the enrollment
	Needs       *Candidate             `json:"needs,omitempty"`      // without an enrollment: the most important sequence that can be entered, and what stands in the way
	Attention   []Item                 `json:"attention,omitempty"`
	History     []lodestone.Entry      `json:"history,omitzero"`    // oldest first; nil, and left out, of a hypothetical submission
	Truncated   bool                   `json:"truncated,omitempty"` // there is older history

	assigned *lodestone.Decision // the newest that let sequences compete
}

// Quarantine says why a submission would wait until a person releases it.
type Quarantine struct {
	Condition string `json:"condition"` // of the form, as the rule file has it
	Detail    string `json:"detail"`    // what speaks against the submission
}

// Line is one line of the ledger and what it is worth now.
type Line struct {
	Rule     string    `json:"rule"`
	Version  string    `json:"version"`
	Points   float64   `json:"points"`
	Value    float64   `json:"value"`
	At       time.Time `json:"at"`
	HalfLife string    `json:"half_life"` // as rule files write it; empty: undiminished
}

// Enrollment is the active enrollment, else the one that ended last.
type Enrollment struct {
	ID        string                    `json:"id"`
	Sequence  string                    `json:"sequence"`
	Version   string                    `json:"version"`
	Variant   string                    `json:"variant,omitempty"` // of a split; holdout: never contacted
	State     lodestone.EnrollmentState `json:"state"`
	Reason    lodestone.Reason          `json:"reason"` // why it ended; empty while active
	StartedAt time.Time                 `json:"started_at,omitzero"`
	EndedAt   time.Time                 `json:"ended_at,omitzero"`
}

// Touchpoint is one touchpoint with the gate's newest verdicts and every attempt.
type Touchpoint struct {
	ID        string                    `json:"id"`
	Sequence  string                    `json:"sequence"`
	Step      string                    `json:"step"`
	Variant   string                    `json:"variant,omitempty"` // of the sequence, of the step, or both with / between
	Operation string                    `json:"operation"`
	State     lodestone.TouchpointState `json:"state"`
	Reason    lodestone.Reason          `json:"reason"`
	DueAt     time.Time                 `json:"due_at,omitzero"`
	Verdicts  []Verdict                 `json:"verdicts"`
	Attempts  []Attempt                 `json:"attempts"`
	Detail    string                    `json:"detail,omitempty"`
}

// Verdict is the answer of one check of the gate; what it does not say is empty, not left out.
type Verdict struct {
	Check    lodestone.Check  `json:"check"`
	OK       bool             `json:"ok"`
	Reason   lodestone.Reason `json:"reason"`
	Evidence string           `json:"evidence"`
}

// Attempt is one try at a touchpoint, from its intent to its outcome, or one look-up of that outcome
// at the provider.
type Attempt struct {
	At        time.Time                 `json:"at"` // of the intent, or of the look-up's answer
	Number    int                       `json:"number"`
	Lookup    bool                      `json:"lookup,omitempty"`
	State     lodestone.TouchpointState `json:"state"` // that it led to; intended while the call is out
	Reason    lodestone.Reason          `json:"reason"`
	Status    int                       `json:"status,omitempty"`
	Detail    string                    `json:"detail,omitempty"`
	Reference string                    `json:"reference,omitempty"`
	TookMS    int64                     `json:"took_ms,omitempty"`
}

// Next is the coming touchpoint.
type Next struct {
	Step    string           `json:"step"`
	At      time.Time        `json:"at"`
	AtLocal string           `json:"at_local"` // the same moment in the lead's zone, RFC 3339
	Zone    string           `json:"zone"`     // of at_local; UTC when the lead's is not known
	Reason  lodestone.Reason `json:"reason,omitempty"`
}

// Coming is a touchpoint that is still to happen.
type Coming struct {
	ID        string                    `json:"id"`
	Sequence  string                    `json:"sequence"`
	Step      string                    `json:"step"`
	Variant   string                    `json:"variant,omitempty"` // of the sequence, of the step, or both with / between
	Operation string                    `json:"operation"`
	State     lodestone.TouchpointState `json:"state"`
	At        time.Time                 `json:"at"`       // the earliest moment, on what is known today
	AtLocal   string                    `json:"at_local"` // the same in the lead's zone, RFC 3339
	Zone      string                    `json:"zone"`
	Outcome   lodestone.TouchpointState `json:"outcome"` // what would become of it
	Ends      lodestone.EnrollmentState `json:"ends,omitempty"`
	// Awaits is until when it waits for the lead to confirm the address; At is then the earliest if that happened now.
	Awaits time.Time `json:"awaits_confirmation_until,omitzero"`
	// Objections are what the gate would say against it today. The connector and the provider are asked at the
	// moment itself and not here.
	Objections []Verdict `json:"objections"`
}

// View is what an explanation is made by, beside what is stored of the person. Each part may be missing.
type View struct {
	Book       *sequencer.Rulebook
	Paused     map[string]scheduler.Pause
	Operations map[string]lodestone.Operation // by connector.operation
	Now        time.Time
}

func (v View) paused(scope string) (scheduler.Pause, bool) {
	p, ok := v.Paused[scope]
	return p, ok
}

func (v View) operation(connector, operation string) (lodestone.Operation, bool) {
	op, ok := v.Operations[connector+"."+operation]
	return op, ok
}

// Explain puts together what is on record about one address. The band is named by the rules that are in
// force; without any it is the one of the last decision.
func Explain(email lodestone.Email, p boltstore.Person, v View) Explanation {
	x := Explanation{
		Email: email, Known: p.Lead != nil, Suppression: p.Suppression, Attention: items(p.Attention), Truncated: p.More,
		Ledger: []Line{}, Candidates: []Candidate{}, Touchpoints: []Touchpoint{}, Coming: []Coming{}, History: []lodestone.Entry{},
	}
	if p.Lead == nil {
		return x
	}
	x.describe(p.Lead, v.Book, v.Now)
	x.History = append(x.History, p.History...)
	slices.Reverse(x.History)
	for i := range x.History {
		x.fold(&x.History[i])
	}
	if d := x.assigned; d != nil {
		facts, asOf := storedFacts(d, p.Lead)
		x.Candidates = candidates(d, p.Lead, v.Book, facts, asOf)
	}
	x.current(p.Lead)
	x.ahead(p.State, v)
	return x
}

// ahead says what is still to happen, and without an enrollment what one would need.
func (x *Explanation) ahead(st sequencer.State, v View) {
	zone := sequencer.Location(st.Lead.Zone)
	for _, c := range scheduler.Ahead(st, v.Book, v.paused, v.operation, v.Now) {
		x.Coming = append(x.Coming, Coming{
			ID: c.ID, Sequence: c.Sequence, Step: c.Step, Operation: c.Operation, State: c.State,
			At: c.At, AtLocal: c.At.In(zone).Format(time.RFC3339), Zone: zone.String(),
			Outcome: c.Outcome, Ends: c.Ends, Awaits: c.Awaits, Objections: verdicts(c.Objections),
		})
	}
	if st.Lead.Active() != nil {
		return
	}
	for i := range x.Candidates {
		if c := &x.Candidates[i]; c.Verdict != lodestone.VerdictChosen && c.Reason != lodestone.ReasonReenterNever {
			x.Needs = c
			return
		}
	}
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
			x.assigned = d
		}
	}
	for _, n := range e.Enrollments {
		if n.State == lodestone.EnrollmentActive {
			x.Enrollment = &Enrollment{ID: n.ID, Sequence: n.Sequence, Version: n.Version, Variant: n.Variant, State: n.State, StartedAt: e.At}
			if e.Decision != nil {
				x.Enrollment.StartedAt = e.Decision.SubmittedAt
			}
		} else if x.Enrollment == nil || x.Enrollment.ID == n.ID {
			started := time.Time{}
			if x.Enrollment != nil {
				started = x.Enrollment.StartedAt
			}
			x.Enrollment = &Enrollment{ID: n.ID, Sequence: n.Sequence, Version: n.Version, Variant: n.Variant, State: n.State, Reason: n.Reason, StartedAt: started, EndedAt: e.At}
			x.Past = append(x.Past, *x.Enrollment)
		} else {
			// It was superseded by the one that stands there.
			x.Past = append(x.Past, Enrollment{ID: n.ID, Sequence: n.Sequence, Version: n.Version, Variant: n.Variant, State: n.State, Reason: n.Reason, EndedAt: e.At})
		}
	}
	for i := range e.Touchpoints {
		x.foldTouchpoint(&e.Touchpoints[i], e.At)
	}
}

// foldTouchpoint takes one change of a touchpoint into the picture. An intent and the outcome that
// follows it are one attempt; what follows an unknown outcome is a look-up. What the gate stopped, and
// what ended with its enrollment, was no attempt.
func (x *Explanation) foldTouchpoint(n *lodestone.TouchpointEntry, at time.Time) {
	t := x.touchpoint(n.ID, n.Sequence, n.Step)
	was, braked := t.State, t.Reason == lodestone.ReasonBraked
	t.Variant = cmp.Or(n.Variant, t.Variant)
	t.State, t.Reason, t.Operation, t.Detail = n.State, n.Reason, cmp.Or(n.Operation, t.Operation), n.Detail
	if !n.DueAt.IsZero() {
		t.DueAt = n.DueAt
	}
	if n.Verdicts != nil {
		t.Verdicts = verdicts(n.Verdicts)
	}
	a := Attempt{
		At: at, Number: n.Attempt, State: n.State, Reason: n.Reason, Status: n.Status,
		Detail: n.Detail, Reference: n.Reference, TookMS: n.Took.Milliseconds(),
	}
	last := len(t.Attempts) - 1
	switch {
	case n.Reason == lodestone.ReasonRetried, n.Reason == lodestone.ReasonReopened, n.Reason == lodestone.ReasonConfirmed, n.Reason == lodestone.ReasonCancelled:
		// A human's word is no attempt.
	case n.State == lodestone.TouchpointIntended:
		t.Attempts = append(t.Attempts, a)
	case was == lodestone.TouchpointIntended && last >= 0:
		a.At, a.Number = t.Attempts[last].At, t.Attempts[last].Number
		t.Attempts[last] = a
	case was == lodestone.TouchpointUnknown || was == lodestone.TouchpointHeld && !braked:
		a.Lookup = was == lodestone.TouchpointUnknown
		if last >= 0 {
			a.Number = t.Attempts[last].Number
		}
		t.Attempts = append(t.Attempts, a)
	}
}

// touchpoint returns the touchpoint of that id, added when it is new.
func (x *Explanation) touchpoint(id, sequence, step string) *Touchpoint {
	i := slices.IndexFunc(x.Touchpoints, func(t Touchpoint) bool { return t.ID == id })
	if i < 0 {
		i = len(x.Touchpoints)
		x.Touchpoints = append(x.Touchpoints, Touchpoint{ID: id, Sequence: sequence, Step: step, Verdicts: []Verdict{}, Attempts: []Attempt{}})
	}
	return &x.Touchpoints[i]
}

func verdicts(list []lodestone.Verdict) []Verdict {
	out := make([]Verdict, 0, len(list))
	for _, v := range list {
		out = append(out, Verdict(v))
	}
	return out
}

// current overlays what the lead's record says of its pending touchpoint.
func (x *Explanation) current(l *lodestone.Lead) {
	e := l.Active()
	if e == nil {
		return
	}
	x.Enrollment = &Enrollment{ID: e.ID, Sequence: e.Sequence, Version: e.Version, Variant: e.Variant, State: e.State, StartedAt: e.StartedAt}
	t := e.Touchpoint
	if t == nil {
		return
	}
	shown := x.touchpoint(t.ID, e.Sequence, t.Step)
	shown.Operation = t.Connector + "." + t.Operation
	shown.State, shown.Reason, shown.DueAt = t.State, t.Reason, t.DueAt
	if t.State == lodestone.TouchpointScheduled {
		zone := sequencer.Location(l.Zone)
		x.Next = &Next{Step: t.Step, At: t.DueAt, AtLocal: t.DueAt.In(zone).Format(time.RFC3339), Zone: zone.String(), Reason: t.Reason}
	}
}

// Hypothetical says what a submission would get: the change that Plan made of it, put like an
// explanation, without history.
func Hypothetical(c sequencer.Change, sub *lodestone.Submission, v View) Explanation {
	x := Explanation{
		Email: c.Lead.Email, Known: c.Lead.Submissions > 1,
		Ledger: []Line{}, Candidates: []Candidate{}, Touchpoints: []Touchpoint{}, Coming: []Coming{},
	}
	x.describe(c.Lead, v.Book, v.Now)
	if c.Entry == nil || c.Entry.Decision == nil {
		return x
	}
	x.fold(c.Entry)
	d := c.Entry.Decision
	if d.Reason != lodestone.ReasonDuplicate {
		facts := sequencer.SubmissionFacts(c.Lead, sub, d)
		x.NotGiven = notGiven(v.Book.Current(), facts)
		x.Candidates = candidates(d, c.Lead, v.Book, facts, atDecision)
	}
	x.current(c.Lead)
	x.ahead(sequencer.State{Lead: c.Lead}, v)
	return x
}

// FormatDuration writes a duration as rule files do: 90s, 10m, 2h, 3d, 2w.
func FormatDuration(d time.Duration) string { return rules.FormatDuration(d) }
