// Package api is what the commands and the console use: JSON over HTTP under /api/v1/.
//
// A running worker serves it on a Unix socket in its data directory; a command that finds no worker
// serves it to itself from the store file. Both are the same handler, so no answer depends on which
// of them gave it. Errors are problem details (RFC 9457).
package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/internal/doctor"
	"github.com/lodestonehq/lodestone/scheduler"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
	"github.com/lodestonehq/lodestone/sequencer"
)

// Store is what the API reads and changes.
type Store interface {
	sequencer.Store
	Person(ctx context.Context, email lodestone.Email, limit int) (boltstore.Person, error)
	History(ctx context.Context, email lodestone.Email, limit int) ([]lodestone.Entry, error)
	AttentionOf(ctx context.Context, email lodestone.Email) ([]lodestone.Attention, error)
	Queue(ctx context.Context, state lodestone.TouchpointState, limit int) ([]boltstore.Row, error)
	Counts(ctx context.Context) (map[lodestone.TouchpointState]uint64, error)
	Attention(ctx context.Context, limit int) ([]lodestone.Attention, int, error)
	Suppressions(ctx context.Context, after lodestone.Email, limit int) ([]lodestone.Suppression, error)
	Suppression(ctx context.Context, email lodestone.Email) (x *lodestone.Suppression, kept bool, err error)
	SuppressedErased(ctx context.Context) (int, error)
	Totals(ctx context.Context) ([]boltstore.Count, error)
	Held(ctx context.Context, sequence string) (int, error)
	Braked(ctx context.Context, sequence string) ([]boltstore.BrakedItem, error)
	Paused(ctx context.Context) (map[string]scheduler.Pause, error)
	SetPaused(ctx context.Context, scope string, p *scheduler.Pause, word *lodestone.Entry) error
	Record(ctx context.Context, e *lodestone.Entry) error
	Lanes(ctx context.Context) ([]string, error)
	Waiting(ctx context.Context, lane, after string, until time.Time, fn func(boltstore.Row) bool) (string, error)
	PutRules(ctx context.Context, version string, files []boltstore.RuleFile) error
	Leads(ctx context.Context, after lodestone.Email, limit int) (leads []*lodestone.Lead, next lodestone.Email, err error)
	Whose(ctx context.Context, touchpoint string) (lodestone.Email, error)
	Item(ctx context.Context, key sequencer.ItemKey) (*lodestone.Attention, error)
	ItemsOf(ctx context.Context, id string) ([]lodestone.Attention, error)
	Rejected(ctx context.Context, after string, limit int) ([]lodestone.Attention, string, error)
	Ended(ctx context.Context, state lodestone.TouchpointState, limit int) ([]boltstore.Row, error)
	Copied() bool
	Claim(ctx context.Context) error
	Rewound(ctx context.Context, now time.Time) error
	Upkeep
	Erase(ctx context.Context, email lodestone.Email, asked time.Time) (boltstore.Erased, sequencer.Change, error)
	Pseudonym(ctx context.Context, email lodestone.Email) (string, error)
}

// Server answers the API's requests.
type Server struct {
	Store    Store
	Rulebook func() *sequencer.Rulebook // may return nil
	// Committed is told of changes that the API made; nil when nobody needs to know.
	Committed func(*sequencer.Change)
	// PausesChanged is told that something was paused or goes on; nil when nobody needs to know.
	PausesChanged func(context.Context) error
	// Connectors are the names under `connectors` in the configuration.
	Connectors []string
	// Accounts are the connectors that can be called, by name.
	Accounts map[string]*connectors.Account
	// Operations are those that steps may name, by connector.operation; for what they need.
	Operations map[string]lodestone.Operation
	// Streams looks into the streams; nil where no worker runs.
	Streams Streams
	// DropForm ends the connections of a form's key that has ended; nil where no server runs in this process.
	DropForm func(form string) (closed int, err error)
	// Publish stores submissions; nil where none are taken.
	Publish Publisher
	// Doctor looks for what is wrong; nil where the caller does that.
	Doctor func(context.Context) doctor.Report
	// Past gives what was submitted so far; nil where it cannot be had.
	Past Past
	// Worker reports whether a running worker answers.
	Worker bool
}

// Problem is an RFC 9457 problem. Detail ends in what to do next where there is something to do.
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	Items  []Item `json:"items,omitempty"` // of which one is to be chosen
}

func (p *Problem) Error() string {
	if p.Detail != "" {
		return p.Detail
	}
	return p.Title
}

func problem(status int, format string, args ...any) *Problem {
	return &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: fmt.Sprintf(format, args...)}
}

// maxHistory bounds the history of one explanation whose asker names no limit.
const maxHistory = 1000

// MaxLimit is the most that a limit may ask for.
const MaxLimit = 100_000

// Path is where the API's routes begin.
const Path = "/api/v1/"

// Right is what a route asks of whoever requests it over the network.
type Right int

// The rights. The zero value is not answered over the network at all: what hands out or replaces the whole
// store, takes people away for good, spends money at a provider, or decides which copy acts, is done on the
// worker's machine.
const (
	SocketAlone Right = iota
	ToRead
	ToOperate
)

// Route is one request that the API answers.
type Route struct {
	Pattern string // as [http.ServeMux] writes it
	Right   Right
	Handler http.Handler
}

// Routes returns what the API answers.
func (s *Server) Routes() []Route {
	list := []Route{
		{"GET /api/v1/leads/{email}", ToRead, answer(s.lead)},
		{"GET /api/v1/leads/{email}/record", SocketAlone, http.HandlerFunc(s.record)},
		{"GET /api/v1/leads/{email}/render", ToRead, answer(s.render)},
		{"POST /api/v1/leads/{email}/export", ToOperate, answer(s.export)},
		{"POST /api/v1/leads/{email}/forget", SocketAlone, answer(s.forget)},
		{"GET /api/v1/queue", ToRead, answer(s.queue)},
		{"GET /api/v1/attention", ToRead, answer(s.attention)},
		{"GET /api/v1/suppressions", ToRead, answer(s.suppressions)},
		{"POST /api/v1/suppressions", ToOperate, answer(s.suppress)},
		{"GET /api/v1/totals", ToRead, answer(s.totals)},
		{"GET /api/v1/brakes/{sequence}", ToRead, answer(s.heldByBrake)},
		{"POST /api/v1/brakes/{sequence}", ToOperate, answer(s.letGo)},
		{"POST /api/v1/claim", SocketAlone, answer(s.claim)},
		{"POST /api/v1/calls", SocketAlone, answer(s.call)},
		{"POST /api/v1/submissions", SocketAlone, answer(s.submissions)},
		{"GET /api/v1/past", SocketAlone, http.HandlerFunc(s.past)},
		{"GET /api/v1/pauses", ToRead, answer(s.pauses)},
		{"POST /api/v1/pauses", ToOperate, answer(s.pause)},
		{"POST /api/v1/resume", ToOperate, answer(s.resume)},
		{"GET /api/v1/overdue", ToRead, answer(s.overdue)},
		{"POST /api/v1/touchpoints/{id}", ToOperate, answer(s.operate)},
		{"POST /api/v1/release", ToOperate, answer(s.release)},
		{"POST /api/v1/drop", ToOperate, answer(s.drop)},
		{"POST /api/v1/migrate", ToOperate, answer(s.migrate)},
	}
	return append(list, s.upkeepRoutes()...)
}

// Handler serves all routes, to whoever can reach the socket.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, route := range s.Routes() {
		mux.Handle(route.Pattern, route.Handler)
	}
	mux.Handle("/", Nothing())
	return mux
}

// Nothing answers what is no route of the API.
func Nothing() http.Handler {
	return answer(func(r *http.Request) (any, error) {
		return nil, problem(http.StatusNotFound, "there is nothing at %s %s", r.Method, r.URL.Path)
	})
}

type actorKey struct{}

// WithActor says who sends a request. It goes before what the request says of itself.
func WithActor(ctx context.Context, who string) context.Context {
	return context.WithValue(ctx, actorKey{}, who)
}

// actor is who is known to have sent a request; "" when nobody is.
func actor(r *http.Request) string {
	who, _ := r.Context().Value(actorKey{}).(string)
	return who
}

// byWhom is who stands on record for a request: who is known to have sent it, else who it says. It is an error
// when neither is there.
func byWhom(r *http.Request, by *string) error {
	if who := actor(r); who != "" {
		*by = who
	}
	if *by == "" {
		return errNobody
	}
	return nil
}

// answer writes what fn returns as JSON, and its error as a problem.
func answer(fn func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := fn(r)
		if err != nil {
			writeProblem(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(v) // the client is gone; there is nobody to tell
	}
}

func writeProblem(w http.ResponseWriter, err error) {
	var p *Problem
	if !errors.As(err, &p) {
		p = problem(http.StatusInternalServerError, "%v", err)
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p)
}

func pathEmail(r *http.Request) (lodestone.Email, error) {
	e, err := lodestone.ParseEmail(r.PathValue("email"))
	if err != nil {
		return "", problem(http.StatusBadRequest, "%q: %v", r.PathValue("email"), err)
	}
	return e, nil
}

func (s *Server) lead(r *http.Request) (any, error) {
	email, err := pathEmail(r)
	if err != nil {
		return nil, err
	}
	n, err := limit(r, maxHistory)
	if err != nil {
		return nil, err
	}
	p, err := s.Store.Person(r.Context(), email, n)
	if err != nil {
		return nil, err
	}
	if p.Lead == nil && p.Suppression == nil && len(p.Attention) == 0 {
		return nil, problem(http.StatusNotFound, "%s is not known: no submission with this address was accepted. Look at its spelling; `lodestone queue --attention` lists submissions that could not be used", email)
	}
	paused, err := s.Store.Paused(r.Context())
	if err != nil {
		return nil, err
	}
	return Explain(email, p, View{Book: s.Rulebook(), Paused: paused, Operations: s.Operations, Now: time.Now().UTC()}), nil
}

// record gives the lead's record as it is stored, for `score`, which plans over it.
func (s *Server) record(w http.ResponseWriter, r *http.Request) {
	email, err := pathEmail(r)
	if err != nil {
		writeProblem(w, err)
		return
	}
	p, err := s.Store.State(r.Context(), email)
	if err == nil && p.Lead == nil {
		err = problem(http.StatusNotFound, "%s is not known", email)
	}
	if err != nil {
		writeProblem(w, err)
		return
	}
	b, err := p.Lead.MarshalMsg(nil)
	if err != nil {
		writeProblem(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/vnd.msgpack")
	_, _ = w.Write(b)
}

// Queue is the answer of `queue`.
type Queue struct {
	Touchpoints []QueueRow                           `json:"touchpoints"`
	Pauses      []Paused                             `json:"pauses,omitempty"` // what is paused
	Counts      map[lodestone.TouchpointState]uint64 `json:"counts"`
	Total       uint64                               `json:"total"` // those in the state asked for, all pending ones without one, shown or not; of an ended state, those on record where all are shown
}

// QueueRow is one touchpoint; due_at of one that ended is when it ended.
type QueueRow struct {
	ID       string                    `json:"id"`
	Email    lodestone.Email           `json:"email"`
	Sequence string                    `json:"sequence"`
	Step     string                    `json:"step"`
	State    lodestone.TouchpointState `json:"state"`
	Reason   lodestone.Reason          `json:"reason"` // why it waits; empty or planned when nothing happened yet
	DueAt    time.Time                 `json:"due_at"`
}

func stateNames() string {
	var names []string
	for _, s := range lodestone.TouchpointStates {
		names = append(names, string(s))
	}
	return strings.Join(names, ", ")
}

func limit(r *http.Request, otherwise int) (int, error) {
	v := r.FormValue("limit")
	if v == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > MaxLimit {
		return 0, problem(http.StatusBadRequest, "limit is %q; give a number from 1 to 100000", v)
	}
	return n, nil
}

func (s *Server) queue(r *http.Request) (any, error) {
	n, err := limit(r, 50)
	if err != nil {
		return nil, err
	}
	state := lodestone.TouchpointState(r.FormValue("state"))
	if state != "" && !slices.Contains(lodestone.TouchpointStates, state) {
		return nil, problem(http.StatusBadRequest, "state is %q; touchpoints are %s", state, stateNames())
	}
	var rows []boltstore.Row
	if state == "" || state.Pending() {
		rows, err = s.Store.Queue(r.Context(), state, n)
	} else {
		rows, err = s.Store.Ended(r.Context(), state, n+1)
	}
	if err != nil {
		return nil, err
	}
	counts, err := s.Store.Counts(r.Context())
	if err != nil {
		return nil, err
	}
	// Counts go on with what is not on record any more: the touchpoints of people who were erased, and what retention took.
	whole := state != "" && !state.Pending() && len(rows) <= n
	rows = rows[:min(len(rows), n)]
	q := Queue{Touchpoints: make([]QueueRow, 0, len(rows)), Counts: counts}
	for _, row := range rows {
		q.Touchpoints = append(q.Touchpoints, QueueRow{row.ID, row.Email, row.Sequence, row.Step, row.State, row.Reason, row.DueAt})
	}
	if q.Pauses, err = s.paused(r.Context()); err != nil {
		return nil, err
	}
	for st, n := range counts {
		if st == state || state == "" && st.Pending() {
			q.Total += n
		}
	}
	if whole {
		q.Total = uint64(len(rows))
	}
	return q, nil
}

// Attention is the answer of `queue --attention`.
type Attention struct {
	Items []Item `json:"items"`
	Total int    `json:"total"` // shown or not
}

// Item is one thing that a human must look at; what it does not have is empty, not left out.
type Item struct {
	ID     string                  `json:"id"`
	Item   string                  `json:"item"` // tells it apart from others of the same id
	Kind   lodestone.AttentionKind `json:"kind"`
	Reason lodestone.Reason        `json:"reason"`
	Form   string                  `json:"form"`
	Email  lodestone.Email         `json:"email"`
	At     time.Time               `json:"at"`
	Detail string                  `json:"detail"`
}

func items(list []lodestone.Attention) []Item {
	out := make([]Item, 0, len(list))
	for _, a := range list {
		out = append(out, Item{ID: a.ID, Item: handle(&a), Kind: a.Kind, Reason: a.Reason, Form: a.Form, Email: a.Email, At: a.At, Detail: a.Detail})
	}
	return out
}

func (s *Server) attention(r *http.Request) (any, error) {
	n, err := limit(r, 50)
	if err != nil {
		return nil, err
	}
	list, total, err := s.Store.Attention(r.Context(), n)
	if err != nil {
		return nil, err
	}
	return Attention{Items: items(list), Total: total}, nil
}

// Suppressions is the answer of `suppress ls`.
type Suppressions struct {
	Suppressions []lodestone.Suppression `json:"suppressions"`
	// Erased counts those whose addresses are not known any more: a hash keeps that they are never contacted.
	Erased int `json:"erased,omitempty"`
}

func (s *Server) suppressions(r *http.Request) (any, error) {
	n, err := limit(r, 1000)
	if err != nil {
		return nil, err
	}
	answer := Suppressions{Suppressions: []lodestone.Suppression{}}
	if r.Form.Has("email") { // these alone, and of them also what an erasure left of them
		for _, text := range r.Form["email"] {
			email, err := lodestone.ParseEmail(text)
			if err != nil {
				return nil, problem(http.StatusBadRequest, "%q: %v", text, err)
			}
			x, kept, err := s.Store.Suppression(r.Context(), email)
			if err != nil {
				return nil, err
			}
			if x != nil {
				answer.Suppressions = append(answer.Suppressions, *x)
			}
			if kept {
				answer.Erased++
			}
		}
		return answer, nil
	}
	list, err := s.Store.Suppressions(r.Context(), lodestone.Email(r.FormValue("after")), n)
	if err != nil {
		return nil, err
	}
	answer.Suppressions = append(answer.Suppressions, list...)
	answer.Erased, err = s.Store.SuppressedErased(r.Context())
	return answer, err
}

// Suppress asks to put addresses on the suppression list or to take them off.
type Suppress struct {
	Emails []string `json:"emails"`
	Remove bool     `json:"remove,omitempty"`
	Reason string   `json:"reason,omitempty"`
}

// Suppressed says what became of each address of a [Suppress].
type Suppressed struct {
	Changed   []lodestone.Email `json:"changed"`
	Unchanged []lodestone.Email `json:"unchanged"` // was on the list already, or was not on it
}

// maxBody bounds what a request may hold.
const maxBody = 1 << 20

func (s *Server) suppress(r *http.Request) (any, error) {
	var q Suppress
	dec := json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxBody))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&q); err != nil {
		return nil, problem(http.StatusBadRequest, "the body is not what this takes: %v", err)
	}
	if len(q.Emails) == 0 {
		return nil, problem(http.StatusBadRequest, "no address was given")
	}
	now := time.Now().UTC()
	reason := q.Reason
	if reason == "" {
		reason = "by hand"
	}
	if who := actor(r); who != "" {
		reason += ", by " + who
	}
	var b sequencer.Batch
	answer := Suppressed{Changed: []lodestone.Email{}, Unchanged: []lodestone.Email{}}
	was := map[lodestone.Email]bool{}
	for _, text := range q.Emails {
		email, err := lodestone.ParseEmail(text)
		if err != nil {
			return nil, problem(http.StatusBadRequest, "%q: %v; nothing was changed", text, err)
		}
		if _, twice := was[email]; twice {
			continue
		}
		was[email] = false
		b.Writes = append(b.Writes, sequencer.Write{Email: email, Plan: func(st sequencer.State) (sequencer.Change, error) {
			was[email] = st.Suppression != nil
			if was[email] != q.Remove {
				return sequencer.Change{}, errUnchanged
			}
			return sequencer.Plan(st.Lead, sequencer.Suppressed{
				Suppression: lodestone.Suppression{Email: email, Reason: reason, Source: "operator", At: now}, Removed: q.Remove,
			}, s.Rulebook(), now)
		}})
	}
	results, err := s.Store.Commit(r.Context(), b)
	if err != nil {
		return nil, err
	}
	for i, res := range results {
		switch {
		case errors.Is(res.Err, errUnchanged):
			answer.Unchanged = append(answer.Unchanged, b.Writes[i].Email)
		case res.Err != nil:
			return nil, res.Err
		default:
			answer.Changed = append(answer.Changed, b.Writes[i].Email)
			if s.Committed != nil {
				s.Committed(&res.Change)
			}
		}
	}
	return answer, nil
}

var errUnchanged = errors.New("unchanged")

// Totals is the roll-up over all time.
type Totals struct {
	Counts []TotalCount `json:"counts"`
}

// TotalCount is one number of [Totals].
type TotalCount struct {
	Sequence string `json:"sequence,omitempty"`
	Step     string `json:"step,omitempty"`
	What     string `json:"what"`
	Variant  string `json:"variant,omitempty"`
	N        uint64 `json:"n"`
}

func (s *Server) totals(r *http.Request) (any, error) {
	counts, err := s.Store.Totals(r.Context())
	if err != nil {
		return nil, err
	}
	t := Totals{Counts: make([]TotalCount, 0, len(counts))}
	for _, c := range counts {
		t.Counts = append(t.Counts, TotalCount{c.Sequence, c.Step, c.What, c.Variant, c.N})
	}
	return t, nil
}

// Claim asks to make a copy the one that acts.
type Claim struct {
	ActedSince bool `json:"acted_since,omitempty"` // the other one went on working after the copy was made
}

func (s *Server) claim(r *http.Request) (any, error) {
	if s.Worker && s.Store.Copied() {
		return nil, problem(http.StatusConflict, "a worker runs on this copy without acting; stop it, claim, and start it again")
	}
	var q Claim
	if r.ContentLength != 0 {
		if err := json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxBody)).Decode(&q); err != nil {
			return nil, problem(http.StatusBadRequest, "the body is not what this takes: %v", err)
		}
	}
	was := s.Store.Copied()
	if was && q.ActedSince {
		if err := s.Store.Rewound(r.Context(), time.Now().UTC()); err != nil {
			return nil, err
		}
	}
	return map[string]bool{"was_copy": was}, s.Store.Claim(r.Context())
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
