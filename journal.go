package lodestone

import (
	"strings"
	"time"
)

// Entry is one fact of the journal: everything that one change of one lead decided and did, with
// its evidence. Entries of one lead are chained: Prev is the sequence number of the lead's entry
// before this one, 0 for the first.
type Entry struct {
	Seq         uint64            `json:"seq" msg:"-"`
	Prev        uint64            `json:"-" msg:"q,omitempty"`
	Lead        Email             `json:"-" msg:"e"`
	At          time.Time         `json:"at" msg:"a"`
	Decision    *Decision         `json:"decision,omitempty" msg:"d,omitempty"`
	Rejected    *RejectedEntry    `json:"rejected,omitempty" msg:"x,omitempty"` // stands in no lead's chain
	Signal      *SignalEntry      `json:"signal,omitempty" msg:"g,omitempty"`
	Call        *CallEntry        `json:"call,omitempty" msg:"c,omitempty"`
	Suppression *SuppressionEntry `json:"suppression,omitempty" msg:"s,omitempty"`
	Operator    *OperatorEntry    `json:"operator,omitempty" msg:"op,omitempty"`   // by whose word the rest happened; without a lead it stands in no chain
	Enrollments []EnrollmentEntry `json:"enrollments,omitempty" msg:"n,omitempty"` // begun or ended, in order
	Touchpoints []TouchpointEntry `json:"touchpoints,omitempty" msg:"t,omitempty"` // changes of state, in order
}

// Empty reports whether the entry records nothing.
func (e *Entry) Empty() bool {
	return e.Decision == nil && e.Rejected == nil && e.Signal == nil && e.Call == nil && e.Suppression == nil && e.Operator == nil && len(e.Enrollments) == 0 && len(e.Touchpoints) == 0
}

// Decision is what one submission led to, and why. Every submission yields exactly one.
type Decision struct {
	Submission   string      `json:"submission" msg:"i"`
	Form         string      `json:"form" msg:"f"`
	StreamSeq    uint64      `json:"stream_seq" msg:"q"`
	SubmittedAt  time.Time   `json:"submitted_at" msg:"a"`
	Reason       Reason      `json:"reason" msg:"r"`
	Rules        string      `json:"rules" msg:"v"` // version of the rule files
	Score        int         `json:"score" msg:"s"`
	Band         string      `json:"band" msg:"b"`
	PreviousBand string      `json:"previous_band,omitempty" msg:"pb,omitempty"`
	Lines        []Line      `json:"lines,omitempty" msg:"l,omitempty"` // the ledger lines that this submission set
	Faults       []RuleFault `json:"faults,omitempty" msg:"x,omitempty"`
	Notes        []string    `json:"notes,omitempty" msg:"o,omitempty"`
	Candidates   []Candidate `json:"candidates,omitempty" msg:"c,omitempty"`
	Enrollment   string      `json:"enrollment,omitempty" msg:"n,omitempty"` // id of the one it began
}

// RejectedEntry records a message that could not be used; attention holds it whole.
type RejectedEntry struct {
	ID        string `json:"id" msg:"i"`
	Form      string `json:"form,omitempty" msg:"f,omitempty"`
	Reason    Reason `json:"reason" msg:"r"`
	StreamSeq uint64 `json:"stream_seq,omitempty" msg:"q,omitempty"`
	Signal    bool   `json:"signal,omitempty" msg:"g,omitempty"` // it was a signal, not a submission
}

// RuleFault names a rule, condition or template that failed at run time.
type RuleFault struct {
	Rule   string `json:"rule" msg:"r"`
	Detail string `json:"detail" msg:"d"`
}

// Candidate is one sequence's verdict in an assignment.
type Candidate struct {
	Sequence string `json:"sequence" msg:"s"`
	Verdict  string `json:"verdict" msg:"v"` // chosen, lost or no
	Reason   Reason `json:"reason" msg:"r"`
	// Failed counts to the part of its condition that was not true, or failed, from 1; 0: none. The parts are
	// those of the version of the rule files that decided.
	Failed int `json:"failed,omitempty" msg:"f,omitempty"`
}

// The verdicts of a [Candidate].
const (
	VerdictChosen = "chosen" // it was entered
	VerdictLost   = "lost"   // its condition was true, something else stood in the way
	VerdictNo     = "no"     // its condition was not true
)

// SignalEntry records a signal and what it did.
type SignalEntry struct {
	ID        string     `json:"id" msg:"i"`
	Kind      SignalKind `json:"kind" msg:"k"`
	At        time.Time  `json:"at" msg:"a"`
	StreamSeq uint64     `json:"stream_seq,omitempty" msg:"q,omitempty"`
	Reason    Reason     `json:"reason,omitempty" msg:"r,omitempty"` // duplicate, stale (it confirms what was asked before it was taken back), or empty
}

// TouchpointEntry records one change of a touchpoint's state, with the gate's verdicts where the
// gate was asked and the call where one was made.
type TouchpointEntry struct {
	ID        string          `json:"id" msg:"i"`
	Sequence  string          `json:"sequence" msg:"q"`
	Step      string          `json:"step" msg:"s"`
	Variant   string          `json:"variant,omitempty" msg:"vr,omitempty"`  // of the sequence, of the step, or both with / between
	Operation string          `json:"operation,omitempty" msg:"o,omitempty"` // connector.operation
	State     TouchpointState `json:"state" msg:"st"`
	Reason    Reason          `json:"reason,omitempty" msg:"r,omitempty"`
	DueAt     time.Time       `json:"due_at,omitzero" msg:"d,omitempty"`
	Attempt   int             `json:"attempt,omitempty" msg:"n,omitempty"`
	Verdicts  []Verdict       `json:"verdicts,omitempty" msg:"v,omitempty"`
	Detail    string          `json:"detail,omitempty" msg:"x,omitempty"`    // the provider's words, or what was found
	Reference string          `json:"reference,omitempty" msg:"f,omitempty"` // the provider's id of what was made
	Status    int             `json:"status,omitempty" msg:"h,omitempty"`    // HTTP status; 0 when no answer came
	Took      time.Duration   `json:"took_ns,omitempty" msg:"w,omitempty"`
	Arguments map[string]any  `json:"arguments,omitempty" msg:"m,omitempty"` // of an intent: what is about to be sent, its links hidden
}

// CallEntry records an operation that a person or an agent had a provider do. What the worker does by
// itself stands in the touchpoint's entries.
type CallEntry struct {
	By        string        `json:"by" msg:"b"`        // command, console or a persona
	Operation string        `json:"operation" msg:"o"` // connector.operation
	Arguments string        `json:"arguments" msg:"a"` // as JSON, addresses masked
	Verdicts  []Verdict     `json:"verdicts,omitempty" msg:"v,omitempty"`
	Class     string        `json:"class" msg:"k"` // ok, blocked by the gate, or what the failure means
	Status    int           `json:"status,omitempty" msg:"h,omitempty"`
	Detail    string        `json:"detail,omitempty" msg:"x,omitempty"`
	Took      time.Duration `json:"took_ns,omitempty" msg:"w,omitempty"`
	Trace     string        `json:"trace" msg:"t"`                      // names this call in logs and to the caller
	Person    string        `json:"person,omitempty" msg:"p,omitempty"` // the keyed hash of somebody erased whom it was about
}

// OperatorEntry records what a person told the worker to do.
type OperatorEntry struct {
	By      string `json:"by" msg:"b"`                          // command, console or a persona, and who
	Command string `json:"command" msg:"c"`                     // pause, resume, retry, cancel, release, …
	Subject string `json:"subject,omitempty" msg:"s,omitempty"` // what it was about: a scope, an id
	Reason  string `json:"reason,omitempty" msg:"r,omitempty"`  // why, in the person's words
	Detail  string `json:"detail,omitempty" msg:"d,omitempty"`  // what it did
}

// EnrollmentEntry records the begin or the end of an enrollment.
type EnrollmentEntry struct {
	ID       string          `json:"id" msg:"i"`
	Sequence string          `json:"sequence" msg:"s"`
	Version  string          `json:"version" msg:"v"`
	Variant  string          `json:"variant,omitempty" msg:"vr,omitempty"` // of the sequence
	State    EnrollmentState `json:"state" msg:"st"`
	Reason   Reason          `json:"reason,omitempty" msg:"r,omitempty"`
}

// SuppressionEntry records that an address was suppressed or the suppression taken back.
type SuppressionEntry struct {
	Removed bool   `json:"removed,omitempty" msg:"x,omitempty"`
	Reason  string `json:"reason,omitempty" msg:"r,omitempty"`
	Source  string `json:"source" msg:"s"`
}

// AttentionKind says what a human must look at.
type AttentionKind string

// The kinds of attention items.
const (
	AttentionSubmission AttentionKind = "submission"
	AttentionTouchpoint AttentionKind = "touchpoint"
	AttentionConnector  AttentionKind = "connector"
	AttentionRule       AttentionKind = "rule"
	AttentionEnrollment AttentionKind = "enrollment"
)

// Attention is one thing that a human must look at. A submission that could not be used is kept
// whole in it.
type Attention struct {
	ID      string              `json:"id" msg:"i"`
	Kind    AttentionKind       `json:"kind" msg:"k"`
	Reason  Reason              `json:"reason" msg:"r"`
	Form    string              `json:"form,omitempty" msg:"f,omitempty"`
	Email   Email               `json:"email,omitempty" msg:"e,omitempty"`
	At      time.Time           `json:"at" msg:"a"`
	Detail  string              `json:"detail,omitempty" msg:"d,omitempty"`
	Seq     uint64              `json:"-" msg:"q,omitempty"` // in its stream; tells two submissions of one id apart
	Subject string              `json:"-" msg:"s,omitempty"` // of the message as it came
	Header  map[string][]string `json:"-" msg:"h,omitempty"`
	Data    []byte              `json:"-" msg:"b,omitempty"`

	// Received is when the stream took the message; zero in items of earlier versions.
	Received time.Time `json:"-" msg:"rt,omitempty"`
	// Enrollment is where a failed touchpoint stood, with the touchpoint, so that a human can have it
	// tried again after the lead's record went on without it.
	Enrollment *Enrollment `json:"-" msg:"en,omitempty"`
}

// IsSignal reports whether the item holds a signal that could not be used, rather than a submission.
func (a *Attention) IsSignal() bool { return strings.HasPrefix(a.Subject, "lodestone.signals.") }
