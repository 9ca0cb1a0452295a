package api

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/scheduler"
	"github.com/lodestonehq/lodestone/sequencer"
)

// Rendered is what a step would do for a lead, as far as it is decided before a connector makes a request of it.
type Rendered struct {
	Email        lodestone.Email `json:"email"`
	Sequence     string          `json:"sequence"`
	Step         string          `json:"step"`
	Version      string          `json:"version"` // of the sequence
	Touchpoint   string          `json:"touchpoint"`
	Hypothetical bool            `json:"hypothetical"` // the lead is not in that sequence: what is known today stands in for its submission
	Connector    string          `json:"connector"`
	Operation    string          `json:"operation"`
	Parameters   map[string]any  `json:"parameters"`
	Objection    *Verdict        `json:"objection"`         // what the gate would say against it at this moment
	Missing      string          `json:"missing,omitempty"` // why nothing would be called at all
}

// Act is what the connector would be asked to do.
func (r *Rendered) Act() connectors.Act {
	return connectors.Act{ID: r.Touchpoint, Operation: r.Operation, Email: r.Email, Parameters: r.Parameters, IntendedAt: time.Now().UTC()}
}

// notYet stands for the id of an enrollment that does not exist.
const notYet = "not-enrolled"

// render makes the act of a step for a lead, and does nothing.
func (s *Server) render(r *http.Request) (any, error) {
	email, err := pathEmail(r)
	if err != nil {
		return nil, err
	}
	p, err := s.Store.Person(r.Context(), email, 0)
	if err != nil {
		return nil, err
	}
	if p.Lead == nil {
		return nil, problem(http.StatusNotFound, "%s is not known: no submission with this address was accepted", email)
	}
	book := s.Rulebook()
	if book == nil {
		return nil, problem(http.StatusConflict, "there are no usable rule files; `lodestone check` tells what is wrong with them")
	}
	paused, err := s.Store.Paused(r.Context())
	if err != nil {
		return nil, err
	}
	v := View{Book: book, Paused: paused, Operations: s.Operations, Now: time.Now().UTC()}
	e, q, step, err := findStep(p.Lead, book, r.FormValue("step"))
	if err != nil {
		return nil, err
	}
	out := Rendered{Email: email, Sequence: q.Name, Step: step.Name, Version: q.Version, Connector: step.Connector, Operation: step.Operation}
	if e == nil {
		out.Hypothetical = true
		e = &lodestone.Enrollment{
			ID: notYet, Sequence: q.Name, Version: q.Version, Rules: book.Current().Version, State: lodestone.EnrollmentActive,
			StartedAt: v.Now, Fields: p.Lead.Profile, Priority: q.Priority, Context: lodestone.Context{Consent: p.Lead.Consent},
		}
	}
	t := &lodestone.Touchpoint{
		ID: lodestone.TouchpointID(e.ID, step.Name), Step: step.Name, Connector: step.Connector, Operation: step.Operation,
		State: lodestone.TouchpointScheduled, PlannedAt: v.Now, DueAt: v.Now,
	}
	op, _ := v.operation(step.Connector, step.Operation)
	made := scheduler.Render(p.State, e, t, book, v.paused, op, v.Now)
	out.Touchpoint, out.Parameters, out.Missing = t.ID, made.Act.Parameters, made.Missing
	if made.Objection != nil {
		o := Verdict(*made.Objection)
		out.Objection = &o
	}
	return out, nil
}

// findStep finds STEP or SEQUENCE.STEP: in the lead's enrollment on the version it runs on, else among the
// sequences of today, where a step's name alone must be of one sequence only. e is nil when the lead is not in
// that sequence.
func findStep(l *lodestone.Lead, book *sequencer.Rulebook, name string) (e *lodestone.Enrollment, q *rules.Sequence, step *rules.Step, err error) {
	sequence, bare, both := strings.Cut(name, ".")
	if !both {
		sequence, bare = "", name
	}
	if e = l.Active(); e != nil && (!both || e.Sequence == sequence) {
		if _, q = book.Sequence(e); q != nil {
			if step := q.Find(e.Variant, bare); step != nil {
				if e.Touchpoint != nil && e.Touchpoint.Step == bare {
					return e, q, step.Of(e.Touchpoint.Variant), nil
				}
				return e, q, step.Of(sequencer.StepVariant(l.Email, q, step)), nil
			}
		}
	}
	var found []*rules.Sequence
	var known []string
	for _, s := range book.Current().Sequences {
		for x := range s.All() {
			known = append(known, s.Name+"."+x.Name)
		}
		if both && s.Name != sequence || s.Find(sequencer.SequenceVariant(l.Email, s), bare) == nil {
			continue
		}
		found = append(found, s)
	}
	slices.Sort(known)
	known = slices.Compact(known)
	switch len(found) {
	case 0:
		return nil, nil, nil, problem(http.StatusNotFound, "there is no step %q; there are %s", name, strings.Join(known, ", "))
	case 1:
		s := found[0]
		step := s.Find(sequencer.SequenceVariant(l.Email, s), bare)
		return nil, s, step.Of(sequencer.StepVariant(l.Email, s, step)), nil
	}
	return nil, nil, nil, problem(http.StatusConflict, "several sequences have a step %s; name one, as in %s.%s", bare, found[0].Name, bare)
}

// Render asks what a step would do for a lead.
func (c *Client) Render(ctx context.Context, email, step string) (r Rendered, err error) {
	return r, c.Call(ctx, http.MethodGet, "/api/v1/leads/"+url.PathEscape(email)+"/render", url.Values{"step": {step}}, nil, &r)
}
