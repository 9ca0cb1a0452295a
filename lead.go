package lodestone

import (
	"math"
	"time"
)

// Lead is everything that deciding about one person needs. It is loaded, changed and stored as a
// whole, so that one event costs one random page.
type Lead struct {
	Email       Email                `json:"email" msg:"e"`
	FirstSeen   time.Time            `json:"first_seen,omitzero" msg:"fs"`
	LastAt      time.Time            `json:"last_at,omitzero" msg:"la"` // time of the latest submission
	Submissions int                  `json:"submissions" msg:"n"`       // accepted submissions, this one included while it is scored
	Profile     Fields               `json:"profile,omitzero" msg:"p,omitzero"`
	Zone        string               `json:"zone,omitempty" msg:"z,omitempty"` // IANA name; empty: unknown
	Ledger      []Line               `json:"ledger,omitempty" msg:"l,omitempty"`
	Score       int                  `json:"score" msg:"s"` // at the last submission; see Faded for another moment
	Band        string               `json:"band,omitempty" msg:"b,omitempty"`
	Signals     map[string]time.Time `json:"signals,omitempty" msg:"g,omitempty"` // kind to the latest time
	Consent     *Consent             `json:"consent,omitempty" msg:"c,omitempty"` // the latest that was given or refused
	Enrollments []Enrollment         `json:"enrollments,omitempty" msg:"en,omitempty"`
	Past        []PastEnrollment     `json:"past,omitempty" msg:"pe,omitempty"`
	Enrolled    int                  `json:"enrolled" msg:"ec,omitempty"` // enrollments ever begun; part of an enrollment's id
	Recent      []RecentID           `json:"recent,omitempty" msg:"r,omitempty"`
	Contacts    []time.Time          `json:"contacts,omitempty" msg:"ct,omitempty"` // when what was sent to it, or may have been, was intended, oldest first; for caps
	Journal     uint64               `json:"journal" msg:"j,omitempty"`             // the newest entry of this lead in the journal
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

// Confirmed says when the lead confirmed the address; ok is false when it did not, or took it back since:
// by withdrawing or refusing consent, by unsubscribing or by a complaint. Consent that was given is confirmed
// for itself: an address that was confirmed before there was any does not confirm it.
func (l *Lead) Confirmed() (at time.Time, ok bool) {
	at = l.Signals[string(SignalConfirmed)]
	switch c := l.Consent; {
	case c == nil:
	case c.Marketing:
		at = c.Confirmed
	case !c.At.Before(at):
		return time.Time{}, false
	}
	if at.IsZero() {
		return time.Time{}, false
	}
	for _, kind := range takesBack {
		if since, came := l.Signals[string(kind)]; came && !since.Before(at) {
			return time.Time{}, false
		}
	}
	return at, true
}

// Answers reports whether a confirmation counts of what the lead was asked at that time: not when it was asked
// before consent that was given or refused since, before anything took a confirmation back, or before this record
// of the person began, because an earlier one was erased.
func (l *Lead) Answers(asked time.Time) bool {
	if asked.Before(l.FirstSeen) {
		return false
	}
	if c := l.Consent; c != nil && asked.Before(c.At) {
		return false
	}
	for _, kind := range takesBack {
		if since, came := l.Signals[string(kind)]; came && !since.Before(asked) {
			return false
		}
	}
	return true
}

// takesBack are the signals that take a confirmation back.
var takesBack = []SignalKind{SignalWithdrawn, SignalUnsubscribed, SignalComplained}

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
	if l.HalfLife <= 0 {
		return l.Points
	}
	age := now.Sub(l.At)
	if age <= 0 {
		return l.Points
	}
	return l.Points * math.Exp2(-float64(age)/float64(l.HalfLife))
}

// Score sums the ledger at now and rounds half up. The sum is taken in the ledger's order, so that
// the lines shown always add up to the number shown.
func Score(ledger []Line, now time.Time) int {
	var sum float64
	for i := range ledger {
		sum += ledger[i].Faded(now)
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
	Hash uint64 `json:"hash" msg:"i"`
	Day  int32  `json:"day" msg:"a"` // when it was received, in days since 1970
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
	ID         string          `json:"id" msg:"i"`
	Sequence   string          `json:"sequence" msg:"s"`
	Version    string          `json:"version" msg:"v"` // hash of the sequence's canonical definition
	Rules      string          `json:"rules" msg:"rv"`  // version of the rule files it began with
	State      EnrollmentState `json:"state" msg:"st"`
	StartedAt  time.Time       `json:"started_at,omitzero" msg:"a"`         // the submission's time
	EndedAt    time.Time       `json:"ended_at,omitzero" msg:"x,omitempty"` // zero while active
	Step       int             `json:"step" msg:"n"`                        // index of the pending step
	Submission string          `json:"submission" msg:"u"`                  // id of the submission that began it
	Form       string          `json:"form" msg:"f"`
	Fields     Fields          `json:"fields,omitzero" msg:"d,omitzero"` // of that submission
	Context    Context         `json:"context" msg:"c,omitempty"`        // of that submission
	Priority   int             `json:"priority" msg:"p,omitempty"`
	Variant    string          `json:"variant,omitempty" msg:"vr,omitempty"`   // of the sequence; empty where it has none
	Touchpoint *Touchpoint     `json:"touchpoint,omitempty" msg:"t,omitempty"` // the pending one; nil once the enrollment is over
	// Parked is the scheduled touchpoint of a later step while a human has an earlier one, which had
	// failed, tried again. It takes its place again when that one ends.
	Parked *Touchpoint `json:"parked,omitempty" msg:"pk,omitempty"`
	// Done names steps that ended before a human moved the enrollment to another version: their
	// touchpoints exist, so they are not planned again wherever that version has them.
	Done []string `json:"done,omitempty" msg:"dn,omitempty"`
	// Awaits is there while the enrollment waits for the lead to confirm the address.
	Awaits *Awaits `json:"awaits,omitempty" msg:"aw,omitempty"`
}

// Awaits says that what follows a step waits until the lead has confirmed the address.
type Awaits struct {
	Step  string    `json:"step" msg:"s"`  // the one that asked, the last where several did
	Since time.Time `json:"since" msg:"a"` // when that step ended
	Until time.Time `json:"until" msg:"u"` // the enrollment ends then
}

// PastEnrollment remembers how a lead last left a sequence, for `reenter`.
type PastEnrollment struct {
	Sequence string          `json:"sequence" msg:"s"`
	ID       string          `json:"id" msg:"i"`
	State    EnrollmentState `json:"state" msg:"st"`
	EndedAt  time.Time       `json:"ended_at,omitzero" msg:"x"`
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
	ID         string          `json:"id" msg:"i"` // <enrollment>.<step>
	Step       string          `json:"step" msg:"s"`
	Connector  string          `json:"connector" msg:"c"`                    // the account under `connectors` that it goes through
	Variant    string          `json:"variant,omitempty" msg:"vr,omitempty"` // of the step; empty where it has none
	Operation  string          `json:"operation" msg:"o"`                    // a verb (invite, refer) or an operation of the catalogue
	State      TouchpointState `json:"state" msg:"st"`
	Reason     Reason          `json:"reason" msg:"r,omitempty"`
	PlannedAt  time.Time       `json:"planned_at,omitzero" msg:"p"`            // its first allowed moment
	DueAt      time.Time       `json:"due_at,omitzero" msg:"d"`                // when to look at it next: first dispatch, retry or look-up
	Attempts   int             `json:"attempts" msg:"n,omitempty"`             // calls made that used up an attempt
	Delays     int             `json:"delays" msg:"y,omitempty"`               // deferrals in a row without a call that was answered; drives the backoff
	Intended   time.Time       `json:"intended,omitzero" msg:"t,omitempty"`    // when the current intent was stored
	GivenUp    time.Time       `json:"given_up,omitzero" msg:"g,omitempty"`    // when the call of that intent was given up, for look-ups
	Lookups    int             `json:"lookups" msg:"l,omitempty"`              // look-ups made since
	Parameters map[string]any  `json:"parameters,omitempty" msg:"w,omitempty"` // what the current intent sends, for the look-up: links in it do not work
	Hidden     []string        `json:"hidden,omitempty" msg:"hd,omitempty"`    // of Parameters: those that are not as they are sent
	Forgiven   int             `json:"forgiven" msg:"fg,omitempty"`            // of Attempts: those made before a human said to try again
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
