package lodestone

import (
	"math"
	"time"
)

// Lead is everything that deciding about one person needs. It is loaded, changed and stored as a
// whole, so that one event costs one random page.
type Lead struct {
	Email       Email                `msg:"e"`
	FirstSeen   time.Time            `msg:"fs"`
	LastAt      time.Time            `msg:"la"` // time of the latest submission
	Submissions int                  `msg:"n"`  // accepted submissions, this one included while it is scored
	Profile     map[string]any       `msg:"p,omitempty"`
	Zone        string               `msg:"z,omitempty"` // IANA name; empty: unknown
	Ledger      []Line               `msg:"l,omitempty"`
	Score       int                  `msg:"s"` // at the last submission; see Faded for another moment
	Band        string               `msg:"b,omitempty"`
	Signals     map[string]time.Time `msg:"g,omitempty"` // kind to the latest time
	Consent     *Consent             `msg:"c,omitempty"` // the latest that was given or refused
	Enrollments []Enrollment         `msg:"en,omitempty"`
	Past        []PastEnrollment     `msg:"pe,omitempty"`
	Enrolled    int                  `msg:"ec,omitempty"` // enrollments ever begun; part of an enrollment's id
	Recent      []RecentID           `msg:"r,omitempty"`
	Contacts    []time.Time          `msg:"ct,omitempty"` // when what was sent to it, or may have been, was intended, oldest first; for caps
	Journal     uint64               `msg:"j,omitempty"`  // the newest entry of this lead in the journal
}

// Active returns the lead's active enrollment, nil when it has none.
func (l *Lead) Active() *Enrollment {
	for i := range l.Enrollments {
		if l.Enrollments[i].State == EnrollmentActive {
			return &l.Enrollments[i]
		}
	}
	return nil
}

// Touchpoint finds a pending touchpoint and its enrollment by the touchpoint's id, nil when the
// lead has none of that id.
func (l *Lead) Touchpoint(id string) (*Enrollment, *Touchpoint) {
	for i := range l.Enrollments {
		if t := l.Enrollments[i].Touchpoint; t != nil && t.ID == id {
			return &l.Enrollments[i], t
		}
	}
	return nil, nil
}

// Line is one line of the ledger: what one rule gave for one submission.
type Line struct {
	Rule     string        `json:"rule" msg:"r"`
	Version  string        `json:"version" msg:"v"` // of the rule files that gave it
	Points   float64       `json:"points" msg:"p"`
	At       time.Time     `json:"at" msg:"a"` // of the submission that earned it
	HalfLife time.Duration `json:"half_life_ns,omitempty" msg:"h,omitempty"`
}

// Faded returns what the line is worth at now: points × 0.5^(age ÷ half-life), undiminished without
// a half-life and before its own time.
func (l Line) Faded(now time.Time) float64 {
	age := now.Sub(l.At)
	if l.HalfLife <= 0 || age <= 0 {
		return l.Points
	}
	return l.Points * math.Exp2(-float64(age)/float64(l.HalfLife))
}

// Score sums the ledger at now and rounds half up. The sum is taken in the ledger's order, so that
// the lines shown always add up to the number shown.
func Score(ledger []Line, now time.Time) int {
	var sum float64
	for _, l := range ledger {
		sum += l.Faded(now)
	}
	return RoundScore(sum)
}

// MaxPoints is the most that one rule may give or take at once.
const MaxPoints = 1e9

// RoundScore rounds half up to an integer. A sum so large that its parts can no longer be told apart
// is held at 2^53; no ledger comes near it.
func RoundScore(sum float64) int {
	const limit = 1 << 53
	return int(max(-limit, min(limit, math.Floor(sum+0.5))))
}

// RecentID is a submission or signal id that was accepted, kept so that a publisher's repeat is
// noticed after the stream's own window. It is the first 64 bits of the id's SHA-256, because a busy
// lead may have thousands.
type RecentID struct {
	Hash uint64 `msg:"i"`
	Day  int32  `msg:"a"` // when it was received, in days since 1970
}

// EnrollmentState says whether an enrollment runs, or how it ended.
type EnrollmentState string

// The enrollment states. All but EnrollmentActive are ends.
const (
	EnrollmentActive       EnrollmentState = "active"
	EnrollmentCompleted    EnrollmentState = "completed"
	EnrollmentExited       EnrollmentState = "exited"
	EnrollmentConverted    EnrollmentState = "converted"
	EnrollmentSuperseded   EnrollmentState = "superseded"
	EnrollmentSuppressed   EnrollmentState = "suppressed"
	EnrollmentUnsubscribed EnrollmentState = "unsubscribed"
	EnrollmentErased       EnrollmentState = "erased"
	EnrollmentCancelled    EnrollmentState = "cancelled"
)

// Enrollment is one lead in one version of one sequence.
type Enrollment struct {
	ID         string          `msg:"i"`
	Sequence   string          `msg:"s"`
	Version    string          `msg:"v"`  // hash of the sequence's canonical definition
	Rules      string          `msg:"rv"` // version of the rule files it began with
	State      EnrollmentState `msg:"st"`
	StartedAt  time.Time       `msg:"a"`           // the submission's time
	EndedAt    time.Time       `msg:"x,omitempty"` // zero while active
	Step       int             `msg:"n"`           // index of the pending step
	Submission string          `msg:"u"`           // id of the submission that began it
	Form       string          `msg:"f"`
	Fields     map[string]any  `msg:"d,omitempty"` // of that submission
	Context    Context         `msg:"c,omitempty"` // of that submission
	Priority   int             `msg:"p,omitempty"`
	Variant    string          `msg:"vr,omitempty"` // of the sequence; empty where it has none
	Touchpoint *Touchpoint     `msg:"t,omitempty"`  // the pending one; nil once the enrollment is over
	// Parked is the scheduled touchpoint of a later step while a human has an earlier one, which had
	// failed, tried again. It takes its place again when that one ends.
	Parked *Touchpoint `msg:"pk,omitempty"`
	// Done names steps that ended before a human moved the enrollment to another version: their
	// touchpoints exist, so they are not planned again wherever that version has them.
	Done []string `msg:"dn,omitempty"`
}

// PastEnrollment remembers how a lead last left a sequence, for `reenter`.
type PastEnrollment struct {
	Sequence string          `msg:"s"`
	ID       string          `msg:"i"`
	State    EnrollmentState `msg:"st"`
	EndedAt  time.Time       `msg:"x"`
}

// TouchpointState is where a touchpoint stands.
type TouchpointState string

// The touchpoint states. Scheduled, intended, unknown and held are pending; the others are ends.
const (
	TouchpointScheduled TouchpointState = "scheduled"
	TouchpointIntended  TouchpointState = "intended"
	TouchpointUnknown   TouchpointState = "unknown"
	TouchpointHeld      TouchpointState = "held"
	TouchpointSent      TouchpointState = "sent"
	TouchpointFailed    TouchpointState = "failed"
	TouchpointSkipped   TouchpointState = "skipped"
	TouchpointCancelled TouchpointState = "cancelled"
)

// TouchpointStates lists every state, pending ones first.
var TouchpointStates = []TouchpointState{
	TouchpointScheduled, TouchpointIntended, TouchpointUnknown, TouchpointHeld,
	TouchpointSent, TouchpointFailed, TouchpointSkipped, TouchpointCancelled,
}

// Pending reports whether something is still to happen to a touchpoint in this state.
func (s TouchpointState) Pending() bool {
	switch s {
	case TouchpointScheduled, TouchpointIntended, TouchpointUnknown, TouchpointHeld:
		return true
	}
	return false
}

// Touchpoint is one step of one enrollment while it is pending. Its id exists once, for ever.
type Touchpoint struct {
	ID         string          `msg:"i"` // <enrollment>.<step>
	Step       string          `msg:"s"`
	Connector  string          `msg:"c"`            // the account under `connectors` that it goes through
	Variant    string          `msg:"vr,omitempty"` // of the step; empty where it has none
	Operation  string          `msg:"o"`            // a verb (invite, refer) or an operation of the catalogue
	State      TouchpointState `msg:"st"`
	Reason     Reason          `msg:"r,omitempty"`
	PlannedAt  time.Time       `msg:"p"`            // its first allowed moment
	DueAt      time.Time       `msg:"d"`            // when to look at it next: first dispatch, retry or look-up
	Attempts   int             `msg:"n,omitempty"`  // calls made that used up an attempt
	Delays     int             `msg:"y,omitempty"`  // deferrals in a row without a call that was answered; drives the backoff
	Intended   time.Time       `msg:"t,omitempty"`  // when the current intent was stored
	GivenUp    time.Time       `msg:"g,omitempty"`  // when the call of that intent was given up, for look-ups
	Lookups    int             `msg:"l,omitempty"`  // look-ups made since
	Parameters map[string]any  `msg:"w,omitempty"`  // what the current intent sends, for the look-up
	Forgiven   int             `msg:"fg,omitempty"` // of Attempts: those made before a human said to try again
}

// ID returns the id of a touchpoint: the enrollment's and the step's name.
func TouchpointID(enrollment, step string) string { return enrollment + "." + step }

// Verdict is the answer of one check of the gate.
type Verdict struct {
	Check    Check  `json:"check" msg:"c"`
	OK       bool   `json:"ok" msg:"k"`
	Reason   Reason `json:"reason,omitempty" msg:"r,omitempty"`
	Evidence string `json:"evidence,omitempty" msg:"e,omitempty"` // what the answer rests on, in words
}

// Suppression is "never contact this address again".
type Suppression struct {
	Email  Email     `json:"email" msg:"e"`
	Reason string    `json:"reason" msg:"r"` // in words: who said so
	Source string    `json:"source" msg:"s"` // operator, signal or a connector's name
	At     time.Time `json:"at" msg:"a"`
}
