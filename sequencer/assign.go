package sequencer

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/scoring"
)

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
