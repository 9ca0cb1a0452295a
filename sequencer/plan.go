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
	"cmp"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/rules/clock"
	"github.com/lodestonehq/lodestone/scoring"
)

// Event is something that a lead's state depends on: [Submitted], [Signalled], [Moved], [Suppressed],
// [Braked], [Forgotten], [Migrated] or [Operated].
type Event interface{ event() }

// Submitted is a usable form submission.
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
	Parameters map[string]any // for intended: what will be sent
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

func (Submitted) event()  {}
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
	case Submitted:
		p.begin(lead, ev.Email)
		p.starts = ev.Starts
		p.submitted(&ev.Submission)
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
	l := lodestone.Lead{Email: email}
	if lead != nil {
		l = *lead
		l.Enrollments = slices.Clone(l.Enrollments)
	}
	p.lead = &l
	p.entry = &lodestone.Entry{Lead: email, At: p.now}
	p.change = Change{Lead: p.lead, Entry: p.entry}
}

// submitted scores a submission and assigns a sequence.
func (p *planner) submitted(sub *lodestone.Submission) {
	l, set := p.lead, p.book.current
	d := &lodestone.Decision{
		Submission: sub.ID, Form: sub.Form, StreamSeq: sub.Seq, SubmittedAt: sub.At,
		Rules: set.Version, Notes: sub.Notes, Score: l.Score, Band: l.Band,
	}
	p.entry.Decision = d
	if !p.remember(sub.ID, sub.Received) {
		d.Reason = lodestone.ReasonDuplicate
		return
	}

	if l.FirstSeen.IsZero() || sub.At.Before(l.FirstSeen) {
		l.FirstSeen = sub.At
	}
	l.Submissions++
	// One that comes late, an import of old leads say, fills what is not known and takes nothing of what
	// was said since.
	late := sub.At.Before(l.LastAt)
	if !late {
		l.LastAt = sub.At
	}
	profile := make(map[string]any, len(l.Profile)+len(sub.Fields))
	if late {
		maps.Copy(profile, sub.Fields)
		maps.Copy(profile, l.Profile)
	} else {
		maps.Copy(profile, l.Profile)
		maps.Copy(profile, sub.Fields)
	}
	l.Profile = profile
	p.consent(sub)

	ev := set.Schema.Evaluator()
	defer ev.Release()
	facts := scoring.Facts{Form: sub.Form, Fields: sub.Fields, Context: &sub.Context, Lead: l, Now: sub.At}
	ev.Bind(facts)
	if !late || l.Zone == "" {
		p.zone(ev, set, sub, d)
	}
	ev.Bind(facts) // the zone may be another now
	p.score(ev, set, sub, d)

	if sub.Backfill {
		d.Reason = lodestone.ReasonBackfill
	}
	p.exit(sub.At, false)
	if !sub.Backfill {
		p.assign(ev, set, sub, d)
	}
}

// consent keeps the latest word on consent. Of two words at one time the refusal counts.
func (p *planner) consent(sub *lodestone.Submission) {
	if sub.Context.Consent == nil {
		return
	}
	given := *sub.Context.Consent
	if given.At.IsZero() {
		given.At = sub.At
	}
	if is := p.lead.Consent; is != nil && (given.At.Before(is.At) || given.At.Equal(is.At) && given.Marketing) {
		return
	}
	given.Submission, given.Form, given.Page, given.IP = sub.ID, sub.Form, sub.Context.Page, sub.Context.IP
	if is := p.lead.Consent; is != nil && given.Marketing {
		given.Confirmed = is.Confirmed // the address stays theirs
	}
	p.lead.Consent = &given
}

// consentSignal keeps what a signal says about consent: that the address was confirmed, or that
// consent is taken back. A word that is older than the latest changes nothing.
func (p *planner) consentSignal(sig *lodestone.Signal) {
	is := p.lead.Consent
	switch {
	case sig.Kind == lodestone.SignalWithdrawn && (is == nil || !sig.At.Before(is.At)):
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

// maxRecent bounds the ids that one lead's record remembers: more in a week is no publisher that tries
// again, and a record that grows without end would make each further event slower.
const maxRecent = 10_000

// remember notes an id and reports whether it is new to the lead. Ids are kept for eight days, so
// that at least seven are covered whatever the hour.
func (p *planner) remember(id string, received time.Time) bool {
	const keep = 8
	sum := sha256.Sum256([]byte(id))
	hash := binary.BigEndian.Uint64(sum[:8])
	day := int32(received.Unix() / 86400)
	recent := make([]lodestone.RecentID, 0, len(p.lead.Recent)+1)
	for _, r := range p.lead.Recent {
		if r.Hash == hash && day-r.Day <= keep {
			return false
		}
		if day-r.Day <= keep {
			recent = append(recent, r)
		}
	}
	if len(recent) >= maxRecent {
		recent = recent[len(recent)-maxRecent+1:]
	}
	p.lead.Recent = append(recent, lodestone.RecentID{Hash: hash, Day: day})
	return true
}

// zone sets the lead's zone by the form's expression. One that fails or names no zone leaves the
// zone as it was.
func (p *planner) zone(ev *scoring.Evaluator, set *rules.Set, sub *lodestone.Submission, d *lodestone.Decision) {
	form := set.Forms[sub.Form]
	if form == nil || form.Zone == nil {
		return
	}
	v, err := ev.Value(form.Zone)
	if err != nil {
		d.Faults = append(d.Faults, lodestone.RuleFault{Rule: "forms." + sub.Form + ".zone", Detail: err.Error()})
		return
	}
	name, _ := v.(string)
	if name == "" {
		return
	}
	if _, ok := clock.Zone(name); !ok {
		d.Faults = append(d.Faults, lodestone.RuleFault{Rule: "forms." + sub.Form + ".zone", Detail: "the result is not the name of a time zone"})
		return
	}
	p.lead.Zone = name
}

// score applies the scoring rules to the ledger and sums it up at the submission's time.
func (p *planner) score(ev *scoring.Evaluator, set *rules.Set, sub *lodestone.Submission, d *lodestone.Decision) {
	l := p.lead
	ledger := make([]lodestone.Line, len(l.Ledger), len(l.Ledger)+len(set.Rules))
	copy(ledger, l.Ledger)
	for _, r := range set.Rules {
		points, matched, err := apply(ev, r)
		if err != nil {
			d.Faults = append(d.Faults, lodestone.RuleFault{Rule: r.Name, Detail: err.Error()})
			continue
		}
		if !matched || points == 0 && !asked(set.Forms[sub.Form], r) {
			continue
		}
		line := lodestone.Line{Rule: r.Name, Version: set.Version, Points: points, At: sub.At, HalfLife: r.HalfLife}
		if r.Each {
			if points == 0 {
				continue
			}
			ledger = addLine(ledger, line)
		} else {
			ledger = replaceLine(ledger, line)
		}
		if points != 0 {
			d.Lines = append(d.Lines, line)
		}
	}
	l.Ledger = ledger
	d.PreviousBand = l.Band
	l.Score = lodestone.Score(ledger, sub.At)
	l.Band = set.Band(l.Score)
	d.Score, d.Band = l.Score, l.Band
	ev.SetScore(l.Score, l.Band, d.PreviousBand)
}

// asked reports whether a form has any of the fields that a rule is about. A form that never asked
// says nothing about them, so its submission does not take away what another form's earned.
func asked(form *rules.Form, r *rules.Rule) bool {
	about := false
	for _, p := range []*scoring.Program{r.When, r.PointsExpr} {
		if p == nil {
			continue
		}
		for _, name := range p.Names() {
			field, ok := strings.CutPrefix(name, "fields.")
			if !ok {
				continue
			}
			about = true
			if form != nil {
				if _, has := form.Fields[field]; has {
					return true
				}
			}
		}
	}
	return !about
}

// apply evaluates one rule.
func apply(ev *scoring.Evaluator, r *rules.Rule) (points float64, matched bool, err error) {
	if r.When != nil {
		if ok, err := ev.Bool(r.When); err != nil || !ok {
			return 0, false, err
		}
	}
	if r.PointsExpr == nil {
		return r.Points, true, nil
	}
	points, err = ev.Number(r.PointsExpr)
	if err == nil && math.Abs(points) > lodestone.MaxPoints {
		err = fmt.Errorf("it gave %g points; at most ±%g are possible", points, float64(lodestone.MaxPoints))
	}
	return points, err == nil, err
}

// replaceLine puts line in the place of the rule's earlier lines; a line of a later submission stays. A
// line of no points is left out: the rule matched, and gave nothing.
func replaceLine(ledger []lodestone.Line, line lodestone.Line) []lodestone.Line {
	if slices.ContainsFunc(ledger, func(l lodestone.Line) bool { return l.Rule == line.Rule && l.At.After(line.At) }) {
		return ledger
	}
	ledger = slices.DeleteFunc(ledger, func(l lodestone.Line) bool { return l.Rule == line.Rule })
	if line.Points == 0 {
		return ledger
	}
	return append(ledger, line)
}

// maxEach bounds the lines of one rule with `each`, so that a form that is submitted ten thousand
// times does not make a lead too large to load.
const maxEach = 64

// addLine appends a line. Past maxEach lines of the rule its two oldest of one half-life become
// one, which is exact: both fade at the same rate, so their sum does too.
func addLine(ledger []lodestone.Line, line lodestone.Line) []lodestone.Line {
	n, first := 0, -1
	for i, l := range ledger {
		if l.Rule == line.Rule && l.HalfLife == line.HalfLife {
			if n++; first < 0 {
				first = i
			}
		}
	}
	if n >= maxEach {
		for i := first + 1; i < len(ledger); i++ {
			if l := ledger[i]; l.Rule == line.Rule && l.HalfLife == line.HalfLife {
				older, newer := ledger[first], l
				if newer.At.Before(older.At) {
					older, newer = newer, older
				}
				newer.Points += older.Faded(newer.At)
				ledger[i] = newer
				ledger = slices.Delete(ledger, first, first+1)
				break
			}
		}
	}
	return append(ledger, line)
}

// assign lets the sequences compete and enters the one that wins.
func (p *planner) assign(ev *scoring.Evaluator, set *rules.Set, sub *lodestone.Submission, d *lodestone.Decision) {
	active := p.lead.Active()
	d.Reason = lodestone.ReasonNoSequence
	var won *rules.Sequence
	d.Candidates = make([]lodestone.Candidate, 0, len(set.Sequences))
	for _, s := range set.Sequences {
		c := lodestone.Candidate{Sequence: s.Name, Verdict: lodestone.VerdictLost}
		ok := true
		if s.When != nil {
			failed, err := ev.Holds(s.When)
			c.Failed = failed + 1
			if ok = failed < 0; err != nil {
				c.Verdict, c.Reason = lodestone.VerdictNo, lodestone.ReasonConditionFault
				d.Faults = append(d.Faults, lodestone.RuleFault{Rule: "sequences." + s.Name + ".when", Detail: err.Error()})
				d.Candidates = append(d.Candidates, c)
				continue
			}
		}
		switch {
		case !ok:
			c.Verdict, c.Reason = lodestone.VerdictNo, lodestone.ReasonConditionFalse
		case won != nil:
			c.Reason = lodestone.ReasonLowerPriority
		case active != nil && active.Sequence == s.Name:
			won = s
			c.Reason, d.Reason = lodestone.ReasonAlreadyEnrolled, lodestone.ReasonAlreadyEnrolled
		default:
			if reason := p.reenter(s, sub.At); reason != "" {
				c.Reason = reason
				if d.Reason == lodestone.ReasonNoSequence {
					d.Reason = lodestone.ReasonNotReentered
				}
				break
			}
			won = s
			if active != nil && s.Priority <= active.Priority {
				c.Reason, d.Reason = lodestone.ReasonBusy, lodestone.ReasonBusy
				break
			}
			c.Verdict, c.Reason = lodestone.VerdictChosen, lodestone.ReasonMatched
			d.Reason = lodestone.ReasonEnrolled
		}
		d.Candidates = append(d.Candidates, c)
	}
	if d.Reason != lodestone.ReasonEnrolled {
		return
	}
	if active != nil {
		p.end(active, lodestone.EnrollmentSuperseded, lodestone.ReasonSuperseded, sub.At)
	}
	d.Enrollment = p.enroll(set, won, sub)
}

// reenter says why a lead may not enter a sequence again, "" when it may.
func (p *planner) reenter(s *rules.Sequence, at time.Time) lodestone.Reason {
	for _, past := range p.lead.Past {
		if past.Sequence != s.Name {
			continue
		}
		switch s.Reenter.Mode {
		case rules.ReenterAlways:
			return ""
		case rules.ReenterAfter:
			if at.Before(past.EndedAt.Add(s.Reenter.After)) {
				return lodestone.ReasonReenterLater
			}
			return ""
		default:
			return lodestone.ReasonReenterNever
		}
	}
	return ""
}

// enroll begins an enrollment at the submission's time and schedules its first touchpoint.
func (p *planner) enroll(set *rules.Set, s *rules.Sequence, sub *lodestone.Submission) string {
	l := p.lead
	l.Enrolled++
	e := lodestone.Enrollment{
		ID:       enrollmentID(l.Email, sub, s.Name, l.Enrolled),
		Sequence: s.Name, Version: s.Version, Rules: set.Version,
		Variant: SequenceVariant(l.Email, s),
		State:   lodestone.EnrollmentActive, StartedAt: sub.At,
		Submission: sub.ID, Form: sub.Form, Fields: sub.Fields, Context: sub.Context, Priority: s.Priority,
	}
	l.Enrollments = append(l.Enrollments, e)
	last := &l.Enrollments[len(l.Enrollments)-1]
	p.entry.Enrollments = append(p.entry.Enrollments, lodestone.EnrollmentEntry{
		ID: e.ID, Sequence: e.Sequence, Version: e.Version, Variant: e.Variant, State: e.State,
	})
	p.schedule(last, s, 0, sub.At)
	p.brake(last, s)
	return e.ID
}

// enrollmentID derives an id from what makes the enrollment the only one of its kind: the lead, the
// submission and its place in the stream, the sequence, and how many the lead had before. A lead
// that was forgotten and comes back gets another one, because its submission is another.
func enrollmentID(email lodestone.Email, sub *lodestone.Submission, sequence string, n int) string {
	h := sha256.New()
	for _, s := range []string{string(email), sub.ID, strconv.FormatUint(sub.Seq, 10), sub.Received.UTC().Format(time.RFC3339Nano), sequence, strconv.Itoa(n)} {
		fmt.Fprintf(h, "%d:%s", len(s), s)
	}
	return strings.ToLower(base32.StdEncoding.EncodeToString(h.Sum(nil)[:10]))
}

// schedule brings the touchpoint of a step into being; past the last step the enrollment is
// completed.
func (p *planner) schedule(e *lodestone.Enrollment, s *rules.Sequence, step int, at time.Time) {
	steps := s.StepsOf(e.Variant)
	for step < len(steps) && slices.Contains(e.Done, steps[step].Name) {
		step++
	}
	if step >= len(steps) {
		p.end(e, lodestone.EnrollmentCompleted, lodestone.ReasonCompleted, at)
		return
	}
	def := &steps[step]
	variant := StepVariant(p.lead.Email, s, def)
	act := def.Of(variant)
	due := s.At(def, at, ZoneOf(s, p.lead))
	e.Step = step
	e.Touchpoint = &lodestone.Touchpoint{
		ID: lodestone.TouchpointID(e.ID, def.Name), Step: def.Name,
		Connector: act.Connector, Operation: act.Operation, Variant: variant,
		State: lodestone.TouchpointScheduled, PlannedAt: due, DueAt: due,
	}
	awaits := p.await(e, def)
	p.note(e, e.Touchpoint, lodestone.ReasonPlanned)
	if awaits {
		p.note(e, e.Touchpoint, lodestone.ReasonAwaiting)
	}
}

// note records where a touchpoint stands now.
func (p *planner) note(e *lodestone.Enrollment, t *lodestone.Touchpoint, reason lodestone.Reason) *lodestone.TouchpointEntry {
	n := lodestone.TouchpointEntry{
		ID: t.ID, Sequence: e.Sequence, Step: t.Step, Variant: variantOf(e, t), Operation: t.Connector + "." + t.Operation,
		State: t.State, Reason: reason,
	}
	if t.State == lodestone.TouchpointScheduled {
		n.DueAt = t.DueAt
	}
	p.entry.Touchpoints = append(p.entry.Touchpoints, n)
	return &p.entry.Touchpoints[len(p.entry.Touchpoints)-1]
}

// end ends an enrollment. A touchpoint that only waits is cancelled with it. One whose call is in
// flight or whose outcome is not known stays until that is settled.
func (p *planner) end(e *lodestone.Enrollment, state lodestone.EnrollmentState, reason lodestone.Reason, at time.Time) {
	e.State, e.EndedAt, e.Awaits = state, at, nil
	if t := e.Touchpoint; t != nil && (t.State == lodestone.TouchpointScheduled || IsBraked(t)) {
		c := *t
		c.State = lodestone.TouchpointCancelled
		if t.Reason == lodestone.ReasonNoDefinition {
			p.change.Resolved = append(p.change.Resolved, t.ID)
		}
		p.note(e, &c, reason)
		e.Touchpoint = nil
	}
	if e.Parked != nil {
		c := *e.Parked
		c.State = lodestone.TouchpointCancelled
		p.note(e, &c, reason)
		e.Parked = nil
	}
	p.entry.Enrollments = append(p.entry.Enrollments, lodestone.EnrollmentEntry{
		ID: e.ID, Sequence: e.Sequence, Version: e.Version, Variant: e.Variant, State: state, Reason: reason,
	})
	past := make([]lodestone.PastEnrollment, 0, len(p.lead.Past)+1)
	for _, q := range p.lead.Past {
		if q.Sequence != e.Sequence {
			past = append(past, q)
		}
	}
	p.lead.Past = append(past, lodestone.PastEnrollment{Sequence: e.Sequence, ID: e.ID, State: state, EndedAt: at})
	p.drop()
}

// drop forgets enrollments that are over and have nothing pending.
func (p *planner) drop() {
	p.lead.Enrollments = slices.DeleteFunc(p.lead.Enrollments, func(e lodestone.Enrollment) bool {
		return e.State != lodestone.EnrollmentActive && e.Touchpoint == nil
	})
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
	p.exit(p.now, false)
}

// moved takes a touchpoint one step further and, where the step ended, plans the next.
func (p *planner) moved(m *Moved) error {
	e, t := p.lead.Touchpoint(m.Touchpoint)
	if t == nil || t.State != m.From || !m.Intended.IsZero() && !m.Intended.Equal(t.Intended) {
		return ErrMoved
	}
	if p.overtaken(e, m.Reason) {
		return ErrMoved
	}
	next := *t
	t = &next
	e.Touchpoint = t
	was, why := t.State, t.Reason
	// What only waits on, for the reason it waits for already, is no news: a provider that is away for a
	// day would otherwise fill the journal.
	news := m.To != was || m.Reason != t.Reason && !m.Looked || m.Looked && t.Lookups < 3 || m.Alert
	t.State, t.Reason = m.To, m.Reason
	p.contact(t, m.To)
	if m.To != was && (was == lodestone.TouchpointHeld || was == lodestone.TouchpointUnknown) {
		p.change.Resolved = append(p.change.Resolved, t.ID)
	}
	if t.Reason != lodestone.ReasonNoDefinition && why == lodestone.ReasonNoDefinition {
		p.change.Resolved = append(p.change.Resolved, t.ID)
	}
	if m.Suppress != nil {
		p.suppress(*m.Suppress)
	}

	switch m.To {
	case lodestone.TouchpointScheduled:
		if e.State != lodestone.EnrollmentActive {
			// The enrollment ended while the call was out. It did not happen, so there is nothing
			// left to do.
			t.State, t.Reason = lodestone.TouchpointCancelled, endReason(e.State)
			break
		}
		t.DueAt = m.DueAt
		if m.Reason == lodestone.ReasonAddressConfirmed {
			e.Awaits, t.PlannedAt = nil, m.DueAt
		}
		if was != lodestone.TouchpointScheduled {
			if m.Counted {
				t.Attempts++
			}
			t.Intended, t.GivenUp, t.Lookups, t.Parameters = time.Time{}, time.Time{}, 0, nil
		}
		switch m.Reason {
		case lodestone.ReasonPaused, lodestone.ReasonResumed, lodestone.ReasonOutsideWindow, lodestone.ReasonCapped,
			lodestone.ReasonAwaiting, lodestone.ReasonAddressConfirmed:
			t.Delays = 0 // a human's word, not the provider's trouble
		default:
			t.Delays++
		}
	case lodestone.TouchpointIntended:
		t.Intended, t.Parameters, t.GivenUp, t.Lookups = p.now, m.Parameters, time.Time{}, 0
	case lodestone.TouchpointUnknown:
		t.DueAt = m.DueAt
		if !m.GivenUp.IsZero() {
			t.GivenUp = m.GivenUp
		}
		if m.Looked {
			t.Lookups++
		}
	case lodestone.TouchpointHeld:
		p.attention(e, t, m.Detail)
	case lodestone.TouchpointFailed:
		p.attention(e, t, m.Detail)
		p.keepFailed(e, t)
	}

	if m.Alert {
		p.attention(e, t, m.Detail)
	}
	if !news {
		return nil
	}
	n := p.note(e, t, t.Reason)
	n.Verdicts, n.Detail, n.Reference, n.Status, n.Took = m.Verdicts, m.Detail, m.Reference, m.Status, m.Took
	n.Attempt = t.Attempts
	if t.State == lodestone.TouchpointIntended {
		n.Attempt++
		n.Arguments = m.Parameters
	}
	if t.State.Pending() {
		return nil
	}

	e.Touchpoint = nil
	p.asked(e, t)
	p.advance(e, m.Ends, m.Reason)
	return nil
}

// advance goes on with an enrollment whose touchpoint has ended: it ends, or its next step is planned.
func (p *planner) advance(e *lodestone.Enrollment, ends lodestone.EnrollmentState, reason lodestone.Reason) {
	switch {
	case e.State != lodestone.EnrollmentActive:
		p.drop()
	case ends != "":
		p.end(e, ends, reason, p.now)
	case p.exit(p.now, false):
	case e.Parked != nil:
		p.unpark(e)
	default:
		_, s := p.book.Sequence(e)
		if s == nil {
			p.change.Attention = append(p.change.Attention, lodestone.Attention{
				ID: e.ID, Kind: lodestone.AttentionEnrollment, Reason: lodestone.ReasonNoDefinition, Form: e.Form, Email: p.lead.Email, At: p.now,
				Detail: fmt.Sprintf("version %s of sequence %s is not in the store, so its next step cannot be planned", e.Version, e.Sequence),
			})
			p.end(e, lodestone.EnrollmentCancelled, lodestone.ReasonNoDefinition, p.now)
			return
		}
		p.schedule(e, s, e.Step+1, p.now)
	}
}

// attention asks for a human to look at a touchpoint.
func (p *planner) attention(e *lodestone.Enrollment, t *lodestone.Touchpoint, detail string) {
	p.change.Attention = append(p.change.Attention, lodestone.Attention{
		ID: t.ID, Kind: lodestone.AttentionTouchpoint, Reason: t.Reason, Form: e.Form, Email: p.lead.Email, At: p.now,
		Detail: cmp.Or(detail, t.Connector+"."+t.Operation),
	})
}

// endReason is the reason that a touchpoint shares with the end of its enrollment.
func endReason(s lodestone.EnrollmentState) lodestone.Reason {
	switch s {
	case lodestone.EnrollmentConverted:
		return lodestone.ReasonConverted
	case lodestone.EnrollmentSuperseded:
		return lodestone.ReasonSuperseded
	case lodestone.EnrollmentSuppressed:
		return lodestone.ReasonSuppressed
	case lodestone.EnrollmentUnsubscribed:
		return lodestone.ReasonUnsubscribed
	case lodestone.EnrollmentErased:
		return lodestone.ReasonErased
	case lodestone.EnrollmentCancelled:
		return lodestone.ReasonCancelled
	}
	return lodestone.ReasonExited
}
