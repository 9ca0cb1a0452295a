// Package sequencer turns events into decisions: it reads submissions and signals from their
// streams in order, plans each with [Plan], and commits what was planned together with the stream's
// watermark in one transaction.
//
//	stream ──in order──▶ decode ──▶ load lead ──▶ Plan ──▶ one transaction: lead, due, journal, watermark
//
// Plan is pure: the same lead, event, rulebook and time give the same change. It does no I/O, reads
// no clock and draws no random numbers, so a replay, a test and an explanation say what the worker
// did. Everything that has an effect stands around it: reading streams and committing here, the
// gate and the calls in package scheduler.
package sequencer

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/scoring"
)

// Event is something that a lead's state depends on: [Submitted], [Signalled], [Moved], [Suppressed],
// [Braked], [Forgotten], [Migrated] or [Operated].
type Event interface{ event() }

// Submitted is a usable form submission. It is large, and passed by its address; nothing of an event is changed.
type Submitted struct {
	lodestone.Submission
	Starts Starts // what the store counted, for brakes; nil: no brake holds anything
}

// Signalled is a signal that came back.
type Signalled struct{ lodestone.Signal }

// Suppressed is an operator's word that an address must not be contacted again, or that it may.
type Suppressed struct {
	lodestone.Suppression
	Removed bool
}

// Moved is a step in a touchpoint's life that the scheduler took: the gate's objection, an intent,
// an outcome, a look-up.
type Moved struct {
	Touchpoint string
	From       lodestone.TouchpointState // where it must stand now, else ErrMoved
	To         lodestone.TouchpointState
	Reason     lodestone.Reason
	DueAt      time.Time                 // for scheduled: when to try again; for unknown: when to look it up
	Ends       lodestone.EnrollmentState // the enrollment ends with this; empty: the sequence goes on
	Verdicts   []lodestone.Verdict
	Parameters map[string]any // for intended: what will be sent, its links hidden
	Hidden     []string       // of Parameters: those that are sent otherwise
	Counted    bool           // for intended: the attempt counts; for scheduled: it counted after all
	GivenUp    time.Time      // for unknown: when the call was given up
	Intended   time.Time      // for look-ups: of the intent that was looked up; another one now is ErrMoved
	Looked     bool           // a look-up was made
	Alert      bool           // ask for a human as well
	Suppress   *lodestone.Suppression
	Detail     string
	Reference  string
	Status     int
	Took       time.Duration
}

func (*Submitted) event() {}
func (Signalled) event()  {}
func (Suppressed) event() {}
func (Moved) event()      {}

// ErrMoved is returned for a [Moved] whose touchpoint is no longer where it was thought to be. The
// caller looks again; nothing was changed.
var ErrMoved = errors.New("touchpoint is no longer in that state")

// Change is what an event does: the lead's new state and everything that goes on record with it.
// All of it is committed together or not at all.
type Change struct {
	Lead      *lodestone.Lead  // the new state
	Entry     *lodestone.Entry // what was decided and done, nil: nothing worth a record
	Suppress  *lodestone.Suppression
	Release   bool                  // take the lead's suppression back
	Attention []lodestone.Attention // what a human must look at from now on
	Started   string                // the sequence of an enrollment that counts for its brake
	Resolved  []string              // touchpoint attention items that are over
	Erased    bool                  // it came of a message about somebody who was erased; that must go from its stream
}

// Rulebook holds the versions of the rule files that decisions may need: the current one for new
// decisions, older ones for enrollments that began with them. It is immutable.
type Rulebook struct {
	current *rules.Set
	byHash  map[string]*rules.Set
	older   func(version string) (*rules.Set, error) // nil: byHash is all there is
}

// WithOlder returns a rulebook that asks load for versions it does not have, when an enrollment needs one.
// load must give the same answer for the same version, and be quick when it gave it before. Its error says
// why a version cannot be used.
func (b *Rulebook) WithOlder(load func(version string) (*rules.Set, error)) *Rulebook {
	out := *b
	out.older = load
	return &out
}

// version returns a version of the rule files. The error says why it cannot be used.
func (b *Rulebook) version(version string) (*rules.Set, error) {
	if set := b.byHash[version]; set != nil {
		return set, nil
	}
	if b.older == nil {
		return nil, fmt.Errorf("version %s of the rule files is not in the store", version)
	}
	return b.older(version)
}

// Missing says why [Rulebook.Sequence] has no definition for an enrollment, and what helps.
func (b *Rulebook) Missing(e *lodestone.Enrollment) string {
	_, err := b.version(e.Rules)
	why := fmt.Sprintf("version %s of sequence %s is not in version %s of the rule files", e.Version, e.Sequence, e.Rules)
	if err != nil {
		why = err.Error()
	}
	return fmt.Sprintf("%s; nothing is sent and nothing is lost: mend that, or move its leads to today's version with `lodestone migrate-enrollments --sequence %s`", why, e.Sequence)
}

// NewRulebook makes a rulebook of the current version and the older ones.
func NewRulebook(current *rules.Set, older ...*rules.Set) *Rulebook {
	b := &Rulebook{current: current, byHash: map[string]*rules.Set{current.Version: current}}
	for _, s := range older {
		if _, ok := b.byHash[s.Version]; !ok {
			b.byHash[s.Version] = s
		}
	}
	return b
}

// Current is the version that new decisions use.
func (b *Rulebook) Current() *rules.Set { return b.current }

// Version returns a version of the rule files by its hash, nil when it cannot be had.
func (b *Rulebook) Version(hash string) *rules.Set {
	set, _ := b.version(hash)
	return set
}

// Form returns the form of that name as the current version declares it, nil when it does not.
func (b *Rulebook) Form(name string) *lodestone.Form {
	if f := b.current.Forms[name]; f != nil {
		return &f.Form
	}
	return nil
}

// Sequence returns the definition that an enrollment runs on and the version of the rule files it
// was compiled with. The definition is nil when that version is not in the rulebook.
func (b *Rulebook) Sequence(e *lodestone.Enrollment) (*rules.Set, *rules.Sequence) {
	if s := b.current.Sequence(e.Sequence); s != nil && s.Version == e.Version {
		return b.current, s
	}
	if set, _ := b.version(e.Rules); set != nil {
		if s := set.Sequence(e.Sequence); s != nil && s.Version == e.Version {
			return set, s
		}
	}
	return nil, nil
}

// Definition is the definition that [Rulebook.Sequence] returns, nil without a rulebook.
func (b *Rulebook) Definition(e *lodestone.Enrollment) *rules.Sequence {
	if b == nil {
		return nil
	}
	_, s := b.Sequence(e)
	return s
}

// Plan decides what an event means for a lead. A nil lead is a person not known so far. now is when
// the decision is made; what is decided depends on the event's own time wherever the event has one.
// The lead passed in is not changed.
//
// The errors are [ErrMoved] and, for [Operated], a [*RefusedError].
func Plan(lead *lodestone.Lead, ev Event, book *Rulebook, now time.Time) (Change, error) {
	p := planner{book: book, now: now.UTC()}
	switch ev := ev.(type) {
	case *Submitted:
		return planned(lead, &ev.Submission, ev.Starts, book, now), nil
	case Signalled:
		p.begin(lead, ev.Email)
		p.signalled(&ev.Signal)
	case Suppressed:
		p.begin(lead, ev.Email)
		p.suppressed(ev)
		if lead == nil {
			p.change.Lead = nil // an address on the list is not a lead yet
			p.change.Entry = nil
		}
	case Forgotten:
		p.begin(lead, ev.Email)
		p.forgotten()
	case Braked:
		if lead == nil {
			return Change{}, ErrMoved
		}
		p.begin(lead, lead.Email)
		if err := p.braked(&ev); err != nil {
			return Change{}, err
		}
	case Moved:
		if lead == nil {
			return Change{}, ErrMoved
		}
		p.begin(lead, lead.Email)
		if err := p.moved(&ev); err != nil {
			return Change{}, err
		}
	case Migrated:
		if lead == nil {
			return Change{}, ErrMoved
		}
		p.begin(lead, lead.Email)
		if err := p.migrated(&ev); err != nil {
			return Change{}, err
		}
	case Operated:
		var email lodestone.Email
		if lead != nil {
			email = lead.Email
		}
		p.begin(lead, email)
		if err := p.operated(&ev); err != nil {
			return Change{}, err
		}
	default:
		panic(fmt.Sprintf("sequencer: unknown event %T", ev))
	}
	if p.change.Entry != nil && p.change.Entry.Empty() {
		p.change.Entry = nil
	}
	return p.change, nil
}

// planned is what [Plan] says of a submission.
func planned(lead *lodestone.Lead, sub *lodestone.Submission, starts Starts, book *Rulebook, now time.Time) Change {
	p := planner{book: book, now: now.UTC()}
	p.submitted(lead, sub, starts)
	return p.change
}

// planner carries one decision.
type planner struct {
	book   *Rulebook
	now    time.Time
	starts Starts
	lead   *lodestone.Lead // a shallow copy; what is changed below it is cloned first
	entry  *lodestone.Entry
	change Change
}

func (p *planner) begin(lead *lodestone.Lead, email lodestone.Email) {
	p.beginWith(lead, email, new(lodestone.Entry))
}

// beginWith begins with an entry that records nothing so far.
func (p *planner) beginWith(lead *lodestone.Lead, email lodestone.Email, entry *lodestone.Entry) {
	p.lead = new(lodestone.Lead)
	if lead != nil {
		*p.lead = *lead
		p.lead.Enrollments = slices.Clone(lead.Enrollments)
	} else {
		p.lead.Email = email
	}
	p.entry = entry
	entry.Lead, entry.At = email, p.now
	p.change = Change{Lead: p.lead, Entry: p.entry}
}

// consent keeps the latest word on consent. Of two words at one time the refusal counts. Where anybody can
// post, what is kept as time and address is what the gateway saw, and what the sender said stands beside it.
func (p *planner) consent(sub *lodestone.Submission) {
	if sub.Context.Consent == nil {
		return
	}
	given := *sub.Context.Consent
	if given.At.IsZero() {
		given.At = sub.At
	}
	if given.At.After(sub.At) {
		given.At = sub.At // a page's clock that is ahead must not make it later than the question that follows
	}
	if p.repeated(&given) {
		return
	}
	if is := p.lead.Consent; is != nil && (given.At.Before(is.Since()) || given.At.Equal(is.Since()) && given.Marketing) {
		return
	}
	given.Submission, given.Form, given.Page, given.IP = sub.ID, sub.Form, sub.Context.Page, sub.Context.IP
	if sub.Visitor != "" {
		if !given.At.Equal(sub.Received) {
			given.At, given.ClaimedAt = sub.Received, given.At
		}
		if given.IP != sub.Visitor {
			given.IP, given.ClaimedIP = sub.Visitor, given.IP
		}
	}
	if is := p.lead.Consent; is != nil && given.Marketing {
		given.Confirmed = is.Confirmed // the address stays theirs
	}
	p.lead.Consent = &given
}

// repeated reports whether consent was given in the same words on the same form already, and an enrollment that it
// led to is under way. The first is kept until it is confirmed: the link that is out asks about that one.
func (p *planner) repeated(given *lodestone.Consent) bool {
	is := p.lead.Consent
	if is == nil || !is.Marketing || !given.Marketing || !is.Confirmed.IsZero() || is.Text != given.Text {
		return false
	}
	e := p.lead.Active()
	return e != nil && is.Submission == e.Submission && !e.StartedAt.Before(is.Since()) && p.lead.Answers(is.At)
}

// consentSignal keeps what a signal says about consent: that the address was confirmed, or that
// consent is taken back. A word that is older than the latest changes nothing.
func (p *planner) consentSignal(sig *lodestone.Signal) {
	is := p.lead.Consent
	switch {
	case sig.Kind == lodestone.SignalWithdrawn && (is == nil || !sig.At.Before(is.Since())):
		p.lead.Consent = &lodestone.Consent{At: sig.At, Submission: sig.ID}
	case sig.Kind == lodestone.SignalConfirmed && is != nil && is.Marketing:
		if sig.At.Before(is.Confirmed) {
			return
		}
		confirmed := *is
		confirmed.Confirmed = sig.At
		p.lead.Consent = &confirmed
	}
}

// exit ends the active enrollment when its exit condition is true at this moment.
// ended tells whether it did.
func (p *planner) exit(at time.Time, converted bool) (ended bool) {
	e := p.lead.Active()
	if e == nil || p.book == nil { // without usable rule files nothing is sent either
		return false
	}
	set, s := p.book.Sequence(e)
	if s == nil || s.Exit == nil {
		return false
	}
	ev := set.Schema.Evaluator()
	defer ev.Release()
	ev.Bind(EnrollmentFacts(p.lead, e, set, at))
	if out, err := ev.Bool(s.Exit); err != nil || !out {
		return false // a condition that fails is not true; the gate will name the fault
	}
	state, reason := ExitState(p.lead, e, converted)
	p.end(e, state, reason, at)
	return true
}

// ExitState names the end of an enrollment whose exit condition is true: converted when the lead
// converted since it began, else exited.
func ExitState(l *lodestone.Lead, e *lodestone.Enrollment, converted bool) (lodestone.EnrollmentState, lodestone.Reason) {
	at, ok := l.Signals[string(lodestone.SignalConverted)]
	if converted || ok && !at.Before(e.StartedAt) {
		return lodestone.EnrollmentConverted, lodestone.ReasonConverted
	}
	return lodestone.EnrollmentExited, lodestone.ReasonExited
}

// SubmissionFacts is what scoring rules and the conditions of sequences were evaluated over when a submission
// was planned; l is the lead as it was left.
func SubmissionFacts(l *lodestone.Lead, sub *lodestone.Submission, d *lodestone.Decision) scoring.Facts {
	return scoring.Facts{
		Form: sub.Form, Fields: sub.Fields, Context: &sub.Context, Lead: l, Now: sub.At,
		Score: d.Score, Band: d.Band, PreviousBand: d.PreviousBand, Scored: true,
	}
}

// EnrollmentFacts is what the conditions and templates of an enrollment are evaluated over: the
// submission that began it, the lead as it is now, and the score as it has faded by now.
func EnrollmentFacts(l *lodestone.Lead, e *lodestone.Enrollment, set *rules.Set, now time.Time) scoring.Facts {
	score := lodestone.Score(l.Ledger, now)
	return scoring.Facts{
		Form: e.Form, Fields: e.Fields, Context: &e.Context, Lead: l, Now: now,
		Score: score, Band: set.Band(score), PreviousBand: l.Band, Scored: true,
	}
}

// signalled notes a signal, suppresses where it says so, and lets the active enrollment exit.
func (p *planner) signalled(sig *lodestone.Signal) {
	l := p.lead
	n := &lodestone.SignalEntry{ID: sig.ID, Kind: sig.Kind, At: sig.At, StreamSeq: sig.Seq}
	p.entry.Signal = n
	if !p.remember("signal "+sig.ID, sig.Received) {
		n.Reason = lodestone.ReasonDuplicate
		return
	}
	if _, says := sig.Detail[lodestone.DetailAsked]; says && sig.Kind == lodestone.SignalConfirmed && !l.Answers(sig.Asked()) {
		n.Reason = lodestone.ReasonStale
		return
	}
	if l.FirstSeen.IsZero() {
		l.FirstSeen = sig.At
	}
	signals := make(map[string]time.Time, len(l.Signals)+1)
	maps.Copy(signals, l.Signals)
	if known, ok := signals[string(sig.Kind)]; !ok || known.Before(sig.At) {
		signals[string(sig.Kind)] = sig.At
	}
	l.Signals = signals
	p.consentSignal(sig)
	if sig.Suppresses() {
		p.suppress(lodestone.Suppression{Email: l.Email, Reason: string(sig.Kind), Source: "signal", At: p.now})
	}
	if p.exit(sig.At, sig.Kind == lodestone.SignalConverted) {
		return
	}
	if sig.Suppresses() {
		p.optedOut()
	}
	if sig.Kind == lodestone.SignalConfirmed {
		p.confirmed()
	}
}

// suppress puts the lead on the suppression list and says so in the journal.
func (p *planner) suppress(s lodestone.Suppression) {
	p.change.Suppress = &s
	p.entry.Suppression = &lodestone.SuppressionEntry{Reason: s.Reason, Source: s.Source}
}

// suppressed carries out an operator's word. The enrollment is left to the gate, so that the reason
// stands on record where the touchpoint would have gone out.
func (p *planner) suppressed(ev Suppressed) {
	if ev.Removed {
		p.change.Release = true
		p.entry.Suppression = &lodestone.SuppressionEntry{Removed: true, Reason: ev.Reason, Source: ev.Source}
		return
	}
	p.suppress(ev.Suppression)
	if !p.exit(p.now, false) {
		p.optedOut()
	}
}
