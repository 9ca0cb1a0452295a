package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/scheduler"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
	"github.com/lodestonehq/lodestone/scoring"
	"github.com/lodestonehq/lodestone/sequencer"
)

// read decodes the body of a request.
func read(r *http.Request, into any) error {
	dec := json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxBody))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return problem(http.StatusBadRequest, "the body is not what this takes: %v", err)
	}
	return nil
}

// Paused is one scope that is paused.
type Paused struct {
	Scope  string    `json:"scope"` // "all", "sequence NAME" or "connector NAME"
	At     time.Time `json:"at"`
	By     string    `json:"by,omitempty"`
	Reason string    `json:"reason,omitempty"`
}

// Pauses is the answer of `pause` without a scope.
type Pauses struct {
	Pauses []Paused `json:"pauses"`
}

// PauseScope asks to pause a scope or to let it go on.
type PauseScope struct {
	Scope  string `json:"scope"`
	Reason string `json:"reason,omitempty"`
	By     string `json:"by"`
}

func (s *Server) paused(ctx context.Context) ([]Paused, error) {
	all, err := s.Store.Paused(ctx)
	if err != nil {
		return nil, err
	}
	var list []Paused
	for _, scope := range slices.Sorted(maps.Keys(all)) {
		p := all[scope]
		list = append(list, Paused{scope, p.At, p.By, p.Reason})
	}
	return list, nil
}

func (s *Server) pauses(r *http.Request) (any, error) {
	list, err := s.paused(r.Context())
	return Pauses{append([]Paused{}, list...)}, err
}

// scope checks that there is something of that name to pause.
func (s *Server) scope(ctx context.Context, scope string) error {
	kind, name, _ := strings.Cut(scope, " ")
	var known []string
	switch kind {
	case "all":
		if name == "" {
			return nil
		}
	case "sequence":
		if book := s.Rulebook(); book != nil {
			for _, q := range book.Current().Sequences {
				known = append(known, q.Name)
			}
		}
		counts, err := s.Store.Totals(ctx) // those of earlier rule files may still run
		if err != nil {
			return err
		}
		for _, c := range counts {
			if c.Sequence != "" {
				known = append(known, c.Sequence)
			}
		}
	case "connector":
		known = append(known, s.Connectors...)
		known = slices.AppendSeq(known, maps.Keys(s.Accounts))
		lanes, err := s.Store.Lanes(ctx)
		if err != nil {
			return err
		}
		known = append(known, lanes...)
		if book := s.Rulebook(); book != nil {
			for _, q := range book.Current().Sequences {
				for step := range q.All() {
					known = append(known, step.Connector)
				}
			}
		}
	}
	if kind != "sequence" && kind != "connector" || name == "" {
		return problem(http.StatusBadRequest, "%q can not be paused; give all, sequence NAME or connector NAME", scope)
	}
	slices.Sort(known)
	known = slices.Compact(known)
	if slices.Contains(known, name) {
		return nil
	}
	detail := fmt.Sprintf("there is no %s %q", kind, name)
	if near := scoring.Closest(name, known); near != "" {
		detail += "; did you mean " + near + "?"
	}
	if len(known) > 0 && len(known) <= 20 {
		detail += " (there are: " + strings.Join(known, ", ") + ")"
	}
	return problem(http.StatusNotFound, "%s", detail)
}

// keepRules keeps the rule files that this process decides with. A worker has them in the store already; a
// command that decides without one would begin enrollments on a version that nobody has.
func (s *Server) keepRules(ctx context.Context, book *sequencer.Rulebook) error {
	if s.Worker {
		return nil
	}
	var files []boltstore.RuleFile
	for _, f := range book.Current().Files {
		files = append(files, boltstore.RuleFile(f))
	}
	return s.Store.PutRules(ctx, book.Current().Version, files)
}

// word makes the journal entry of a command that is about no lead.
func word(by, command, subject, reason, detail string, now time.Time) *lodestone.Entry {
	return &lodestone.Entry{At: now, Operator: &lodestone.OperatorEntry{By: by, Command: command, Subject: subject, Reason: reason, Detail: detail}}
}

func (s *Server) pause(r *http.Request) (any, error) {
	var q PauseScope
	if err := read(r, &q); err != nil {
		return nil, err
	}
	if err := byWhom(r, &q.By); err != nil {
		return nil, err
	}
	if err := s.scope(r.Context(), q.Scope); err != nil {
		return nil, err
	}
	all, err := s.Store.Paused(r.Context())
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC()
	p, already := all[q.Scope]
	if !already || q.Reason != "" && q.Reason != p.Reason {
		since := now
		if already {
			since = p.At
		}
		p = scheduler.Pause{At: since, By: q.By, Reason: q.Reason}
		if err := s.Store.SetPaused(r.Context(), q.Scope, &p, word(q.By, "pause", q.Scope, q.Reason, "", now)); err != nil {
			return nil, err
		}
		if err := s.tellPauses(r.Context()); err != nil {
			return nil, err
		}
	}
	return struct {
		Paused
		Already bool `json:"already"`
	}{Paused{q.Scope, p.At, p.By, p.Reason}, already}, nil
}

var errNobody = problem(http.StatusBadRequest, "by is missing: what people tell the worker is on record with who said it")

// tellPauses has the worker act on what is stored now. From its return on the gate knows.
func (s *Server) tellPauses(ctx context.Context) error {
	if s.PausesChanged == nil {
		return nil
	}
	return s.PausesChanged(context.WithoutCancel(ctx))
}

// Overdue says what a pause keeps waiting past its time.
type Overdue struct {
	Scope       string     `json:"scope"`
	Pause       *Paused    `json:"pause"` // nil: it is not paused
	Total       int        `json:"total"`
	AtLeast     bool       `json:"at_least,omitempty"` // there are more than were counted
	Oldest      time.Time  `json:"oldest,omitzero"`
	Touchpoints []QueueRow `json:"touchpoints"` // some of them
}

// maxOverdue bounds how many overdue touchpoints are counted: whoever decides on so many decides alike on
// more.
const maxOverdue = 100_000

// putOff are the reasons for which the gate puts off what a scope's word lets go on: its pause, and the
// breaker of a connector that is to be asked again.
func (s *Server) putOff(scope string) []lodestone.Reason {
	if a := s.account(scope); a != nil && a.State().Open {
		return []lodestone.Reason{lodestone.ReasonPaused, lodestone.ReasonProviderUnavailable}
	}
	return []lodestone.Reason{lodestone.ReasonPaused}
}

// account is the connector that a scope names; nil when it names none or one that is not configured here.
func (s *Server) account(scope string) *connectors.Account {
	if kind, name, _ := strings.Cut(scope, " "); kind == "connector" {
		return s.Accounts[name]
	}
	return nil
}

// held calls fn with what a scope keeps waiting: what is due, and what the gate put off for one of the reasons.
// It begins after a position and returns the one where fn said that it is enough, "" at the end.
func (s *Server) held(ctx context.Context, scope, after string, reasons []lodestone.Reason, now time.Time, fn func(boltstore.Row) bool) (last string, err error) {
	kind, name, _ := strings.Cut(scope, " ")
	lane := ""
	if kind == "connector" {
		lane = name
	}
	return s.Store.Waiting(ctx, lane, after, now.Add(scheduler.MostPaused+time.Minute), func(row boltstore.Row) bool {
		if kind == "sequence" && row.Sequence != name {
			return true
		}
		if row.DueAt.After(now) && !slices.Contains(reasons, row.Reason) {
			return true
		}
		return fn(row)
	})
}

func (s *Server) overdue(r *http.Request) (any, error) {
	n, err := limit(r, 10)
	if err != nil {
		return nil, err
	}
	scope := r.FormValue("scope")
	if err := s.scope(r.Context(), scope); err != nil {
		return nil, err
	}
	o := Overdue{Scope: scope, Touchpoints: []QueueRow{}}
	list, err := s.paused(r.Context())
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(list, func(p Paused) bool { return p.Scope == scope }); i >= 0 {
		o.Pause = &list[i]
	}
	_, err = s.held(r.Context(), scope, "", s.putOff(scope), time.Now().UTC(), func(row boltstore.Row) bool {
		if o.Total == maxOverdue {
			o.AtLeast = true
			return false
		}
		o.Total++
		if o.Oldest.IsZero() || row.PlannedAt.Before(o.Oldest) {
			o.Oldest = row.PlannedAt
		}
		if len(o.Touchpoints) < n {
			o.Touchpoints = append(o.Touchpoints, QueueRow{row.ID, row.Email, row.Sequence, row.Step, row.State, row.Reason, row.PlannedAt})
		}
		return true
	})
	return o, err
}

// Resumed is what became of a [PauseScope] that was to go on.
type Resumed struct {
	Scope     string   `json:"scope"`
	WasPaused bool     `json:"was_paused"`
	Due       int      `json:"due"`                   // touchpoints that had been put off and are due now
	Others    []Paused `json:"still_paused,omitzero"` // other scopes that stay paused
	Probe     *Probed  `json:"probe,omitempty"`       // nil: no breaker was open
}

// Probed is what a connector's provider answered that was asked because its breaker was open.
type Probed struct {
	OK     bool   `json:"ok"`     // the breaker is closed
	Detail string `json:"detail"` // what is wrong still
}

// resume takes a pause back, asks a provider again whose breaker is open, then makes due what had been put
// off. When it is cut short in between, what it did not reach is due a little later by itself, and doing it
// again finishes it.
func (s *Server) resume(r *http.Request) (any, error) {
	var q PauseScope
	if err := read(r, &q); err != nil {
		return nil, err
	}
	if err := byWhom(r, &q.By); err != nil {
		return nil, err
	}
	ctx := r.Context()
	all, err := s.Store.Paused(ctx)
	if err != nil {
		return nil, err
	}
	done := Resumed{Scope: q.Scope}
	if _, done.WasPaused = all[q.Scope]; done.WasPaused { // also of what is not known any more
		if err := s.Store.SetPaused(ctx, q.Scope, nil, word(q.By, "resume", q.Scope, q.Reason, "", time.Now().UTC())); err != nil {
			return nil, err
		}
		if err := s.tellPauses(ctx); err != nil {
			return nil, err
		}
	} else if err := s.scope(ctx, q.Scope); err != nil {
		return nil, err
	}
	if done.Others, err = s.paused(ctx); err != nil {
		return nil, err
	}
	reasons := s.putOff(q.Scope)
	if a := s.account(q.Scope); a != nil && a.State().Open {
		done.Probe = &Probed{OK: true}
		if err := a.Probe(ctx); err != nil {
			done.Probe = &Probed{Detail: err.Error()}
			reasons = []lodestone.Reason{lodestone.ReasonPaused}
		}
	}
	// What is made due stands in front of the position and is not met again.
	for after, more := "", s.Rulebook() != nil; more; more = after != "" {
		var rows []boltstore.Row
		now := time.Now().UTC()
		if after, err = s.held(ctx, q.Scope, after, reasons, now, func(row boltstore.Row) bool {
			if row.DueAt.After(now) {
				rows = append(rows, row)
			}
			return len(rows) < resumeBatch
		}); err != nil {
			return nil, err
		}
		n, err := s.makeDue(ctx, rows)
		done.Due += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

const resumeBatch = 1000

func (s *Server) makeDue(ctx context.Context, rows []boltstore.Row) (n int, err error) {
	var b sequencer.Batch
	for _, row := range rows {
		b.Writes = append(b.Writes, sequencer.Write{Email: row.Email, Plan: func(st sequencer.State) (sequencer.Change, error) {
			now := time.Now().UTC()
			if st.Lead == nil {
				return sequencer.Change{}, sequencer.ErrMoved
			}
			if _, t := st.Lead.Touchpoint(row.ID); t == nil || t.Reason != row.Reason {
				return sequencer.Change{}, sequencer.ErrMoved
			}
			return sequencer.Plan(st.Lead, sequencer.Moved{
				Touchpoint: row.ID, From: lodestone.TouchpointScheduled, To: lodestone.TouchpointScheduled,
				Reason: lodestone.ReasonResumed, DueAt: now,
			}, s.Rulebook(), now)
		}})
	}
	if len(b.Writes) == 0 {
		return 0, nil
	}
	results, err := s.Store.Commit(ctx, b)
	if err != nil {
		return 0, err
	}
	for i := range results {
		if results[i].Err == nil {
			n++
			s.told(&results[i].Change)
		}
	}
	return n, nil
}

func (s *Server) told(c *sequencer.Change) {
	if s.Committed != nil {
		s.Committed(c)
	}
}

// Operate asks to act on a touchpoint.
type Operate struct {
	Operation sequencer.Operation `json:"operation"`
	Sure      bool                `json:"sure,omitempty"` // that it may be the second time
	DryRun    bool                `json:"dry_run,omitempty"`
	Reason    string              `json:"reason,omitempty"`
	By        string              `json:"by"`
}

// Operated is what became of an [Operate].
type Operated struct {
	ID         string                    `json:"id"`
	Email      lodestone.Email           `json:"email"`
	Sequence   string                    `json:"sequence"`
	Step       string                    `json:"step"`
	Was        lodestone.TouchpointState `json:"was"`
	State      lodestone.TouchpointState `json:"state"`
	Reason     lodestone.Reason          `json:"reason"`
	Enrollment lodestone.EnrollmentState `json:"enrollment"` // where its enrollment stands now; empty when it was over before
	Next       string                    `json:"next"`       // the step that comes next; empty: none
	Doubt      bool                      `json:"doubt"`      // whether it had happened was not known
}

// errTried ends the plan of a dry run.
var errTried = errors.New("only tried")

// operate carries out a person's word about a touchpoint.
func (s *Server) operate(r *http.Request) (any, error) {
	var q Operate
	if err := read(r, &q); err != nil {
		return nil, err
	}
	switch q.Operation {
	case sequencer.Retry, sequencer.Cancel, sequencer.Skip, sequencer.Confirm:
	default:
		return nil, problem(http.StatusBadRequest, "operation is %q; give retry, cancel, skip or confirm", q.Operation)
	}
	if err := byWhom(r, &q.By); err != nil {
		return nil, err
	}
	ctx, id := r.Context(), r.PathValue("id")
	book := s.Rulebook()
	if book == nil {
		return nil, problem(http.StatusConflict, "there are no usable rule files, so nothing says what comes next; mend them first: `lodestone check`")
	}
	items, err := s.Store.ItemsOf(ctx, id)
	if err != nil {
		return nil, err
	}
	items = slices.DeleteFunc(items, func(a lodestone.Attention) bool { return a.Kind != lodestone.AttentionTouchpoint })
	var email lodestone.Email
	if len(items) > 0 {
		email = items[0].Email
	} else if email, err = s.Store.Whose(ctx, id); err != nil {
		return nil, err
	}
	if email == "" {
		return nil, problem(http.StatusNotFound, "no touchpoint %q is known; `lodestone queue` and `lodestone explain EMAIL` show their ids", id)
	}
	var done Operated
	now := time.Now().UTC()
	w := sequencer.Write{Email: email, Plan: func(st sequencer.State) (sequencer.Change, error) {
		if st.Lead == nil {
			return sequencer.Change{}, sequencer.ErrMoved
		}
		done = Operated{ID: id, Email: email}
		if e, t := st.Lead.Touchpoint(id); t != nil {
			done.Sequence, done.Step, done.Was = e.Sequence, t.Step, t.State
		} else if st.Item != nil {
			done.Was = lodestone.TouchpointFailed
			if e := st.Item.Enrollment; e != nil && e.Touchpoint != nil {
				done.Sequence, done.Step = e.Sequence, e.Touchpoint.Step
			}
		}
		done.Doubt = done.Was == lodestone.TouchpointHeld || done.Was == lodestone.TouchpointUnknown
		c, err := sequencer.Plan(st.Lead, sequencer.Operated{
			Operation: q.Operation, Touchpoint: id, Item: st.Item, Sure: q.Sure,
			Operator: lodestone.OperatorEntry{By: q.By, Command: string(q.Operation), Subject: id, Reason: q.Reason},
		}, book, now)
		if err != nil {
			return c, err
		}
		done.after(c.Lead, c.Entry)
		if q.DryRun {
			return c, errTried
		}
		return c, nil
	}}
	if len(items) > 0 {
		w.Settles = itemKey(&items[0])
	}
	results, err := s.Store.Commit(ctx, sequencer.Batch{Writes: []sequencer.Write{w}})
	if err != nil {
		return nil, err
	}
	var refused *sequencer.RefusedError
	switch err := results[0].Err; {
	case errors.Is(err, errTried):
		return done, nil
	case errors.As(err, &refused):
		return nil, problem(http.StatusConflict, "%s: %s", id, refused.Detail)
	case errors.Is(err, sequencer.ErrSettled):
		return nil, problem(http.StatusConflict, "%s was settled by somebody else a moment ago", id)
	case errors.Is(err, sequencer.ErrMoved):
		return nil, s.over(ctx, id, email)
	case err != nil:
		return nil, err
	}
	s.told(&results[0].Change)
	return done, nil
}

// after notes where a touchpoint and its enrollment stand in a changed lead.
func (d *Operated) after(l *lodestone.Lead, entry *lodestone.Entry) {
	d.State = d.Was
	for i := range entry.Touchpoints {
		if n := &entry.Touchpoints[i]; n.ID == d.ID {
			d.Sequence, d.Step, d.State, d.Reason = n.Sequence, n.Step, n.State, n.Reason
		}
	}
	enrollment := strings.TrimSuffix(d.ID, "."+d.Step)
	for i := range entry.Enrollments {
		if n := &entry.Enrollments[i]; n.ID == enrollment {
			d.Enrollment = n.State
		}
	}
	for i := range l.Enrollments {
		if e := &l.Enrollments[i]; e.ID == enrollment && e.State == lodestone.EnrollmentActive {
			d.Enrollment = e.State
			if e.Touchpoint != nil {
				d.Next = e.Touchpoint.Step
			}
		}
	}
}

// over says why nothing can be done about a touchpoint that is not pending.
func (s *Server) over(ctx context.Context, id string, email lodestone.Email) error {
	p, err := s.Store.Person(ctx, email, maxHistory)
	if err != nil {
		return err
	}
	for _, e := range p.History {
		for i := len(e.Touchpoints) - 1; i >= 0; i-- {
			n := &e.Touchpoints[i]
			if n.ID != id || n.State.Pending() {
				continue
			}
			detail := fmt.Sprintf("it is over: %s at %s", n.State, e.At.Format(time.RFC3339))
			if n.Reason != "" && string(n.Reason) != string(n.State) {
				detail += " (" + strings.ReplaceAll(string(n.Reason), "_", " ") + ")"
			}
			return problem(http.StatusConflict, "%s: %s. A touchpoint exists once; `lodestone explain %s` tells what it went through", id, detail, email)
		}
	}
	return problem(http.StatusConflict, "%s is not pending any more; `lodestone explain %s` tells what it went through", id, email)
}

// Drop asks to close an attention item without doing anything about it.
type Drop struct {
	Chosen
	Reason string `json:"reason,omitempty"`
	By     string `json:"by"`
}

// Dropped is what became of a [Drop].
type Dropped struct {
	Dropped []Item `json:"dropped"`
}

func (s *Server) drop(r *http.Request) (any, error) {
	var q Drop
	if err := read(r, &q); err != nil {
		return nil, err
	}
	if err := byWhom(r, &q.By); err != nil {
		return nil, err
	}
	a, err := s.chosen(r.Context(), q.Chosen, "")
	if err != nil {
		return nil, err
	}
	if a.Reason == lodestone.ReasonBraked {
		return nil, problem(http.StatusConflict, "the brake of %s still holds enrollments; `lodestone release --brake %s` lets them go on, `lodestone undo %s` takes them back", a.ID, a.ID, a.ID)
	}
	if email, err := s.openOutcome(r.Context(), a); err != nil {
		return nil, err
	} else if email != "" {
		return nil, problem(http.StatusConflict, "touchpoint %s still waits for a decision; `lodestone retry` or `lodestone cancel` it", a.ID)
	}
	now := time.Now().UTC()
	results, err := s.Store.Commit(r.Context(), sequencer.Batch{Writes: []sequencer.Write{{
		Email: a.Email, Settles: itemKey(a),
		Plan: func(st sequencer.State) (sequencer.Change, error) {
			e := word(q.By, "drop", a.ID, q.Reason, cmp.Or(a.Detail, string(a.Reason)), now)
			if st.Lead == nil {
				return sequencer.Change{Entry: e}, nil
			}
			lead := *st.Lead
			e.Lead = lead.Email
			return sequencer.Change{Lead: &lead, Entry: e}, nil
		},
	}}})
	if err != nil {
		return nil, err
	}
	d := Dropped{Dropped: []Item{}}
	switch err := results[0].Err; {
	case err == nil:
		d.Dropped = items([]lodestone.Attention{*a})
	case !errors.Is(err, sequencer.ErrSettled): // by somebody else, a moment ago
		return nil, err
	}
	return d, nil
}

// openOutcome returns whose touchpoint an item is about when that one is still pending.
func (s *Server) openOutcome(ctx context.Context, a *lodestone.Attention) (lodestone.Email, error) {
	if a.Kind != lodestone.AttentionTouchpoint {
		return "", nil
	}
	p, err := s.Store.State(ctx, a.Email)
	if err != nil || p.Lead == nil {
		return "", err
	}
	if _, t := p.Lead.Touchpoint(a.ID); t != nil {
		return a.Email, nil
	}
	return "", nil
}

func itemKey(a *lodestone.Attention) *sequencer.ItemKey {
	key := sequencer.KeyOf(a)
	return &key
}
