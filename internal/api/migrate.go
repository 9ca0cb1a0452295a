package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/scoring"
	"github.com/lodestonehq/lodestone/sequencer"
)

// Migrate asks to move active enrollments to today's version of their sequence, a part at a time.
type Migrate struct {
	Sequence string            `json:"sequence,omitempty"` // empty: all
	Steps    map[string]string `json:"steps,omitempty"`    // steps that have another name today
	DryRun   bool              `json:"dry_run,omitempty"`
	After    lodestone.Email   `json:"after,omitempty"` // where the part before ended
	By       string            `json:"by"`
}

// MigratedPart is what became of a [Migrate].
type MigratedPart struct {
	Enrollments []MigratedEnrollment `json:"enrollments"`
	Changes     []MigratedVersion    `json:"changes"`
	After       lodestone.Email      `json:"after,omitempty"` // empty: that was all
}

// MigratedEnrollment is one enrollment that is not on today's version.
type MigratedEnrollment struct {
	ID       string          `json:"id"`
	Email    lodestone.Email `json:"email"`
	Sequence string          `json:"sequence"`
	From     string          `json:"from"`
	To       string          `json:"to"`
	Step     string          `json:"step"`
	Stands   string          `json:"stands"` // the step it goes on with; empty: it is left as it is
	Left     string          `json:"left"`   // why
}

// MigratedVersion says what is different between a version that enrollments are on and today's.
type MigratedVersion struct {
	Sequence string   `json:"sequence"`
	From     string   `json:"from"`
	To       string   `json:"to"`
	Changes  []string `json:"changes"`
}

// migratePart is how many leads one part looks at.
const migratePart = 2000

func (s *Server) migrate(r *http.Request) (any, error) {
	var q Migrate
	if err := read(r, &q); err != nil {
		return nil, err
	}
	if err := byWhom(r, &q.By); err != nil {
		return nil, err
	}
	book := s.Rulebook()
	if book == nil {
		return nil, problem(http.StatusConflict, "there are no usable rule files, so there is no version to move to; mend them first: `lodestone check`")
	}
	if q.Sequence != "" && book.Current().Sequence(q.Sequence) == nil {
		var known []string
		for _, s := range book.Current().Sequences {
			known = append(known, s.Name)
		}
		detail := "there is no sequence " + q.Sequence + " in the rule files"
		if near := scoring.Closest(q.Sequence, known); near != "" {
			detail += "; did you mean " + near + "?"
		}
		return nil, problem(http.StatusNotFound, "%s", detail)
	}
	part := MigratedPart{Enrollments: []MigratedEnrollment{}, Changes: []MigratedVersion{}}
	leads, next, err := s.Store.Leads(r.Context(), q.After, migratePart)
	if err != nil {
		return nil, err
	}
	part.After = next
	now := time.Now().UTC()
	var b sequencer.Batch
	var moving []int // places in part.Enrollments
	told := map[string]bool{}
	for _, l := range leads {
		e := l.Active()
		if e == nil || q.Sequence != "" && e.Sequence != q.Sequence {
			continue
		}
		if _, other := book.Migration(e, q.Steps, nil); !other {
			continue
		}
		done, err := s.endedSteps(r.Context(), l.Email, e.ID)
		if err != nil {
			return nil, err
		}
		m, _ := book.Migration(e, q.Steps, done)
		part.Enrollments = append(part.Enrollments, MigratedEnrollment{e.ID, l.Email, e.Sequence, m.From, m.To, m.Step, m.Stands, m.Left})
		if key := e.Sequence + " " + e.Version; !told[key] && m.To != "" {
			told[key] = true
			v := MigratedVersion{Sequence: e.Sequence, From: m.From, To: m.To, Changes: []string{"what it was can not be read any more"}}
			if _, was := book.Sequence(e); was != nil {
				v.Changes = rules.Differences(was, book.Current().Sequence(e.Sequence), q.Steps)
			}
			part.Changes = append(part.Changes, v)
		}
		if m.Stands == "" || q.DryRun {
			continue
		}
		ev := sequencer.Migrated{
			Enrollment: e.ID, Touchpoint: e.Touchpoint.ID, Steps: q.Steps, Done: done,
			Operator: lodestone.OperatorEntry{By: q.By, Command: "migrate-enrollments", Subject: e.ID},
		}
		moving = append(moving, len(part.Enrollments)-1)
		b.Writes = append(b.Writes, sequencer.Write{Email: l.Email, Plan: func(st sequencer.State) (sequencer.Change, error) {
			if st.Lead == nil {
				return sequencer.Change{}, sequencer.ErrMoved
			}
			return sequencer.Plan(st.Lead, ev, book, now)
		}})
	}
	if len(b.Writes) == 0 {
		return part, nil
	}
	if err := s.keepRules(r.Context(), book); err != nil {
		return nil, err
	}
	results, err := s.Store.Commit(r.Context(), b)
	if err != nil {
		return nil, err
	}
	for i := range results {
		row := &part.Enrollments[moving[i]]
		var refused *sequencer.RefusedError
		switch err := results[i].Err; {
		case err == nil:
			s.told(&results[i].Change)
		case errors.As(err, &refused):
			row.Stands, row.Left = "", refused.Detail
		case errors.Is(err, sequencer.ErrMoved):
			row.Stands, row.Left = "", "it took a step at this moment; give the command again"
		default:
			return nil, err
		}
	}
	return part, nil
}

// endedSteps lists the steps of an enrollment that ended, as far as the journal goes back.
func (s *Server) endedSteps(ctx context.Context, email lodestone.Email, enrollment string) ([]string, error) {
	history, err := s.Store.History(ctx, email, MaxLimit)
	if err != nil {
		return nil, err
	}
	var steps []string
	for _, e := range history {
		for _, t := range e.Touchpoints {
			if strings.HasPrefix(t.ID, enrollment+".") && !t.State.Pending() {
				steps = append(steps, t.Step)
			}
		}
	}
	return steps, nil
}
