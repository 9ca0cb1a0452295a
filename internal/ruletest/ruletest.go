// Package ruletest runs the tests that stand in rule files, on the virtual clock of package simulate.
//
// A test begins with nobody known. Its submissions and signals come at their times, and everything that
// falls due is carried out, until nothing waits any more, the test's `until`, or [Horizon] after the last
// event; what waits then, waits. Score, band and lines are those of the lead's last submission.
package ruletest

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/internal/simulate"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/scheduler"
	"github.com/lodestonehq/lodestone/sequencer"
	"github.com/lodestonehq/lodestone/sequencer/event"
)

// Horizon is how long after its last event a test goes on at most.
const Horizon = 400 * 24 * time.Hour

// maxMoments bounds one test: a provider that never answers is asked every five minutes.
const maxMoments = 20_000

// Result is what became of one test. The names of its fields are part of the contract.
type Result struct {
	Name string `json:"name"`
	File string `json:"file"`
	Line int    `json:"line"`
	OK   bool   `json:"ok"`
	Diff string `json:"diff"` // what differs and what happened instead, in lines; empty when OK
}

// Runner runs tests of one set. It is safe for concurrent use.
type Runner struct {
	book     *sequencer.Rulebook
	accounts map[string]scheduler.Account
}

// New makes a runner.
func New(set *rules.Set, opts rules.Options) *Runner {
	return &Runner{book: sequencer.NewRulebook(set), accounts: simulate.Accounts(opts)}
}

// Run runs one test.
func (r *Runner) Run(t *rules.Test) Result {
	out := Result{Name: t.Name, File: t.File, Line: t.Line}
	s := &story{persons: map[lodestone.Email]*person{}}
	w := &simulate.World{Book: r.book, Accounts: r.accounts, Provider: &answers{test: t}, Committed: s.committed, Quarantined: s.quarantined, Brakes: &simulate.Brakes{}}
	events, err := s.events(t, r.book)
	if err == nil {
		until := t.Until
		if until.IsZero() && len(events) > 0 {
			until = events[len(events)-1].At.Add(Horizon)
		}
		err = w.Run(map[lodestone.Email]*simulate.Lead{}, events, until, maxMoments)
	}
	if err != nil {
		out.Diff = "the test could not be run: " + err.Error() + "\n"
		return out
	}
	out.Diff = s.diff(t)
	out.OK = out.Diff == ""
	return out
}

// events decodes what comes, as the worker would, in the order of its time.
func (s *story) events(t *rules.Test, book *sequencer.Rulebook) ([]simulate.Event, error) {
	var out []simulate.Event
	add := func(stream, subject string, data []byte, at time.Time, what string) {
		m := event.Message{
			Subject: subject, Data: data, Seq: uint64(len(out) + 1), Time: at,
			Header: map[string][]string{"Nats-Msg-Id": {"test-" + strconv.Itoa(len(out)+len(s.rejected)+1)}},
		}
		ev, email, rejected := sequencer.Decode(stream, &m, book)
		if rejected != nil {
			s.rejected = append(s.rejected, rejection{what, at, *rejected})
			return
		}
		out = append(out, simulate.Event{At: at, Email: email, Event: ev})
	}
	for i := range t.Submit {
		sub := &t.Submit[i]
		add(sequencer.FormsStream, event.FormsPrefix+sub.Form, sub.Data, sub.At, "form "+sub.Form)
	}
	for i := range t.Signals {
		sig := &t.Signals[i]
		data, err := json.Marshal(map[string]any{"email": sig.Email, "detail": sig.Detail})
		if err != nil {
			return nil, err
		}
		add(sequencer.SignalsStream, event.SignalsPrefix+string(sig.Kind), data, sig.At, "signal "+string(sig.Kind))
	}
	slices.SortStableFunc(out, func(a, b simulate.Event) int { return a.At.Compare(b.At) })
	return out, nil
}

// story is what happened in one test.
type story struct {
	persons  map[lodestone.Email]*person
	rejected []rejection
}

type rejection struct {
	what string
	at   time.Time
	lodestone.Rejection
}

func (s *story) quarantined(sub *lodestone.Submission, no *lodestone.Rejection) {
	s.rejected = append(s.rejected, rejection{"form " + sub.Form, sub.At, *no})
}

// person is what happened to one lead.
type person struct {
	entries  []*lodestone.Entry
	decision *lodestone.Decision // of the last submission
	lead     *lodestone.Lead     // as it was then
	sequence string              // the last one entered
	rows     []row               // what touchpoints came to, in order
	waiting  map[string]int      // of rows, by touchpoint: what is not over yet
}

// row is what a touchpoint came to, or one deferral of it.
type row struct {
	id, sequence, step, outcome string
	reason                      lodestone.Reason
	at                          time.Time
}

func (s *story) committed(l *simulate.Lead, c *sequencer.Change) {
	e := c.Entry
	if e == nil {
		return
	}
	p := s.persons[l.Email]
	if p == nil {
		p = &person{waiting: map[string]int{}}
		s.persons[l.Email] = p
	}
	p.entries = append(p.entries, e)
	if d := e.Decision; d != nil && d.Reason != lodestone.ReasonDuplicate {
		p.decision, p.lead = d, c.Lead
	}
	for _, n := range e.Enrollments {
		if n.State == lodestone.EnrollmentActive {
			p.sequence = n.Sequence
		}
	}
	for _, n := range e.Touchpoints {
		p.note(&n, e.At)
	}
}

// note keeps where a touchpoint stands now. The row of one that waits moves to the end each time, so that
// rows are in the order in which things came to what they are.
func (p *person) note(n *lodestone.TouchpointEntry, at time.Time) {
	if i, ok := p.waiting[n.ID]; ok {
		p.rows = slices.Delete(p.rows, i, i+1)
		delete(p.waiting, n.ID)
		for id, j := range p.waiting {
			if j > i {
				p.waiting[id] = j - 1
			}
		}
	}
	r := row{n.ID, n.Sequence, n.Step, string(n.State), n.Reason, at}
	if n.State == lodestone.TouchpointScheduled {
		if n.Reason != lodestone.ReasonPlanned {
			p.rows = append(p.rows, row{n.ID, n.Sequence, n.Step, rules.OutcomeDeferred, n.Reason, at})
		}
		r.at = n.DueAt
	}
	if n.State.Pending() {
		p.waiting[n.ID] = len(p.rows)
	}
	p.rows = append(p.rows, r)
}

// worth is what the lines of a rule are worth together at the lead's last submission.
func (p *person) worth(rule string) (points float64, has bool) {
	if p.lead == nil {
		return 0, false
	}
	for _, l := range p.lead.Ledger {
		if l.Rule == rule {
			points, has = points+l.Faded(p.decision.SubmittedAt), true
		}
	}
	return points, has
}

// near compares points as explanations show them, to a tenth.
func near(a, b float64) bool { return math.Abs(a-b) < 0.05+1e-9 }

// answers plays the providers of a test.
type answers struct {
	test *rules.Test
	used map[*rules.TestAnswers]int
	now  map[string]rules.Answer // what answers the call of a touchpoint, until its outcome is settled
}

// answer is what a call is answered. The check, the act and the look-up of one try share it.
func (a *answers) answer(c simulate.Call, begin bool) rules.Answer {
	if !begin {
		if x, ok := a.now[c.ID]; ok {
			return x
		}
	}
	var best *rules.TestAnswers
	fits := 0
	for i := range a.test.Provider {
		p := &a.test.Provider[i]
		n := 0
		switch {
		case p.Step != "" && p.Step == c.Step && p.Sequence == c.Sequence:
			n = 4
		case p.Step != "" && p.Step == c.Step && p.Sequence == "":
			n = 3
		case p.Connector != "" && p.Connector == c.Connector && p.Operation == c.Operation:
			n = 2
		case p.Connector != "" && p.Connector == c.Connector && p.Operation == "":
			n = 1
		}
		if n > fits {
			best, fits = p, n
		}
	}
	x := rules.AnswerAccepted
	if best != nil {
		if a.used == nil {
			a.used, a.now = map[*rules.TestAnswers]int{}, map[string]rules.Answer{}
		}
		switch n := a.used[best]; {
		case best.Always:
			x = best.Answers[0]
		case n < len(best.Answers):
			x = best.Answers[n]
		}
		a.used[best]++
		a.now[c.ID] = x
	}
	return x
}

func fault(c simulate.Call, class connectors.Class, reason lodestone.Reason, detail string) error {
	return &connectors.Fault{Connector: c.Connector, Operation: c.Operation, Class: class, Reason: reason, Detail: detail}
}

func (a *answers) Unsubscribed(c simulate.Call) (connectors.Subscription, error) {
	switch a.answer(c, true) {
	case rules.AnswerUnsubscribed:
		return connectors.Subscription{Unsubscribed: true, Kind: connectors.SuppressionProvider, Evidence: "the test says so"}, nil
	case rules.AnswerCheckFailed:
		return connectors.Subscription{}, fault(c, connectors.Failed, lodestone.ReasonCheckFailed, "the test says so")
	}
	return connectors.Subscription{Kind: connectors.SuppressionProvider, Evidence: "not unsubscribed"}, nil
}

func (a *answers) Do(c simulate.Call) (connectors.Receipt, error) {
	switch a.answer(c, false) {
	case rules.AnswerRefused:
		return connectors.Receipt{}, fault(c, connectors.Refused, lodestone.ReasonRefused, "the test says so")
	case rules.AnswerUnavailable:
		return connectors.Receipt{}, fault(c, connectors.NotDone, lodestone.ReasonNotDone, "no connection")
	case rules.AnswerRateLimited:
		return connectors.Receipt{}, fault(c, connectors.RateLimited, lodestone.ReasonRateLimited, "the provider's rate limit is reached")
	case rules.AnswerTimeout, rules.AnswerTimeoutAbsent, rules.AnswerTimeoutUnclear:
		return connectors.Receipt{}, fault(c, connectors.Unknown, lodestone.ReasonNoAnswer, "no answer in time")
	}
	return connectors.Receipt{Status: 200}, nil
}

func (a *answers) Find(c simulate.Call) (connectors.Finding, error) {
	switch a.answer(c, false) {
	case rules.AnswerTimeoutAbsent:
		return connectors.Finding{State: connectors.Absent, Evidence: "the test says so"}, nil
	case rules.AnswerTimeoutUnclear:
		return connectors.Finding{State: connectors.Unclear, Evidence: "the test says so"}, nil
	}
	return connectors.Finding{State: connectors.Found, Evidence: "the test says so"}, nil
}

// at writes a time as rule files do.
func at(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

func (r row) String() string {
	why := ""
	if r.reason != "" && string(r.reason) != r.outcome {
		why = fmt.Sprintf(" (%s)", r.reason)
	}
	when := "at"
	if r.outcome == string(lodestone.TouchpointScheduled) {
		when = "for"
	}
	return fmt.Sprintf("%s.%s %s%s %s %s", r.sequence, r.step, r.outcome, why, when, at(r.at))
}
