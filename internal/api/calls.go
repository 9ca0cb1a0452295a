package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/sequencer"
)

// Call asks for an operation of a provider.
type Call struct {
	Connector string         `json:"connector"`
	Operation string         `json:"operation"`
	Arguments map[string]any `json:"arguments"`
	By        string         `json:"by"` // who asks: command, console, or a persona
}

// Called is what became of a [Call].
type Called struct {
	Class    string              `json:"class"` // ok, or what the failure means for the one who called
	Status   int                 `json:"status,omitempty"`
	Detail   string              `json:"detail,omitempty"`
	Verdicts []lodestone.Verdict `json:"verdicts,omitempty"`
	Answer   json.RawMessage     `json:"answer,omitempty"` // the provider's, when it is JSON
	TookMS   int64               `json:"took_ms"`
	Trace    string              `json:"trace"`
}

// ClassBlocked is the class of a call that the gate did not let pass.
const ClassBlocked = "blocked"

// call passes the gate, calls, and puts both on record.
func (s *Server) call(r *http.Request) (any, error) {
	var q Call
	dec := json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxBody))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&q); err != nil {
		return nil, problem(http.StatusBadRequest, "the body is not what this takes: %v", err)
	}
	if q.By == "" {
		return nil, problem(http.StatusBadRequest, "by is missing: every call is on record with who asked for it")
	}
	a := s.Accounts[q.Connector]
	if a == nil {
		return nil, problem(http.StatusNotFound, "connector %s is not configured; give it settings under connectors.%s", q.Connector, q.Connector)
	}
	_, e, err := a.Request(r.Context(), q.Operation, q.Arguments)
	var wrong *connectors.ArgumentError
	switch {
	case errors.As(err, &wrong):
		return nil, problem(http.StatusUnprocessableEntity, "%v", wrong)
	case errors.Is(err, connectors.ErrNoOperation):
		return nil, problem(http.StatusNotFound, "%v; `lodestone operations %s` lists what there is", err, q.Connector)
	case err != nil:
		return nil, err
	}

	done := Called{Trace: trace()}
	people := addresses(q.Arguments)
	if e.Effect != lodestone.EffectRead {
		v, stop, err := s.clear(r.Context(), a, e, people)
		if err != nil {
			return nil, err
		}
		if done.Verdicts = v; stop {
			done.Class, done.Detail = ClassBlocked, v[len(v)-1].Evidence
		}
	}
	if done.Class == "" {
		begin := time.Now()
		answer, err := a.Call(r.Context(), q.Operation, q.Arguments)
		done.TookMS = time.Since(begin).Milliseconds()
		done.Class, done.Status = "ok", answer.Status
		if json.Valid(answer.Body) {
			done.Answer = answer.Body
		}
		var f *connectors.Fault
		if errors.As(err, &f) {
			done.Class, done.Status, done.Detail = string(f.Class), f.Status, f.Detail
		} else if err != nil {
			return nil, err
		}
	}
	return done, s.audit(context.WithoutCancel(r.Context()), &q, &done, people)
}

// clear is the gate for calls that people and agents make: what is paused, the suppression list, and
// the unsubscribe status at the provider, for every address that the call is about. It fails closed.
// An operation that stops contact, such as an unsubscribe, is let pass.
func (s *Server) clear(ctx context.Context, a *connectors.Account, e *connectors.Endpoint, people []lodestone.Email) (v []lodestone.Verdict, stop bool, err error) {
	object := func(c lodestone.Check, reason lodestone.Reason, format string, args ...any) ([]lodestone.Verdict, bool, error) {
		return append(v, lodestone.Verdict{Check: c, Reason: reason, Evidence: fmt.Sprintf(format, args...)}), true, nil
	}
	if s.Store.Copied() {
		return object(lodestone.CheckPaused, lodestone.ReasonPaused, "this data directory is a copy; `lodestone claim` makes it the one that acts")
	}
	paused, err := s.Store.Paused(ctx)
	if err != nil {
		return nil, false, err
	}
	for _, scope := range []string{"all", "connector " + a.Name()} {
		if p, ok := paused[scope]; ok {
			return object(lodestone.CheckPaused, lodestone.ReasonPaused, "%s is paused since %s", scope, p.At.Format(time.RFC3339))
		}
	}
	v = append(v, lodestone.Verdict{Check: lodestone.CheckPaused, OK: true})
	if !e.Contacts() {
		return v, false, nil
	}
	for _, email := range people {
		p, err := s.Store.Person(ctx, email, 0)
		if err != nil {
			return nil, false, err
		}
		if x := p.Suppression; x != nil {
			return object(lodestone.CheckSuppression, lodestone.ReasonSuppressed, "suppressed since %s by %s: %s", x.At.Format(time.RFC3339), x.Source, x.Reason)
		}
		v = append(v, lodestone.Verdict{Check: lodestone.CheckSuppression, OK: true, Evidence: "not on the suppression list"})
		sub, err := a.Unsubscribed(ctx, email)
		if err != nil {
			return object(lodestone.CheckProvider, lodestone.ReasonCheckFailed, "%v", err)
		}
		if sub.Unsubscribed {
			return object(lodestone.CheckProvider, lodestone.ReasonUnsubscribed, "%s", sub.Evidence)
		}
		v = append(v, lodestone.Verdict{Check: lodestone.CheckProvider, OK: true, Evidence: sub.Kind + ": " + sub.Evidence})
	}
	return v, false, nil
}

// audit puts a call on record, in the chain of the lead that it is about when there is one.
func (s *Server) audit(ctx context.Context, q *Call, done *Called, people []lodestone.Email) error {
	arguments, err := json.Marshal(q.Arguments)
	if err != nil {
		return err
	}
	var about lodestone.Email
	if len(people) == 1 {
		about = people[0]
	}
	now := time.Now().UTC()
	entry := lodestone.CallEntry{
		By: q.By, Operation: q.Connector + "." + q.Operation, Arguments: masked(string(arguments)),
		Verdicts: done.Verdicts, Class: done.Class, Status: done.Status, Detail: done.Detail,
		Took: time.Duration(done.TookMS) * time.Millisecond, Trace: done.Trace,
	}
	_, err = s.Store.Commit(ctx, sequencer.Batch{Writes: []sequencer.Write{{Email: about, Plan: func(st sequencer.State) (sequencer.Change, error) {
		c := sequencer.Change{Entry: &lodestone.Entry{At: now, Call: &entry}}
		if st.Lead != nil {
			l := *st.Lead
			c.Lead, c.Entry.Lead = &l, about
		}
		return c, nil
	}}}})
	if err != nil {
		return fmt.Errorf("the call was made (%s) and could not be put on record: %w", done.Class, err)
	}
	return nil
}

var addressLike = regexp.MustCompile(`[^\s"'<>(),;:\[\]{}]+@[^\s"'<>(),;:\[\]{}]+`)

// maxArguments bounds what is kept of a call's arguments.
const maxArguments = 4 << 10

func masked(s string) string {
	s = addressLike.ReplaceAllString(s, "<address>")
	if len(s) > maxArguments {
		s = s[:maxArguments] + "…"
	}
	return s
}

// addresses finds the addresses among arguments, however deep, each once and in order.
func addresses(v any) (list []lodestone.Email) {
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case string:
			if e, err := lodestone.ParseEmail(v); err == nil {
				list = append(list, e)
			}
		case []any:
			for _, x := range v {
				walk(x)
			}
		case map[string]any:
			for _, x := range v {
				walk(x)
			}
		}
	}
	walk(v)
	slices.Sort(list)
	return slices.Compact(list)
}

func trace() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
