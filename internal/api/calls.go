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
	"strings"
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

// Classes of a call beside those of package connectors.
const (
	ClassBlocked  = "blocked"  // the gate did not let it pass
	ClassIntended = "intended" // on record before the call is made
)

func (s *Server) call(r *http.Request) (any, error) {
	var q Call
	dec := json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxBody))
	dec.DisallowUnknownFields()
	dec.UseNumber() // an id of many digits must arrive as it was given
	if err := dec.Decode(&q); err != nil {
		return nil, problem(http.StatusBadRequest, "the body is not what this takes: %v", err)
	}
	if err := byWhom(r, &q.By); err != nil {
		return nil, err
	}
	return s.carryOut(r.Context(), &q, nil)
}

// carryOut passes the gate, puts on record what is about to be done, calls, and puts on record what came of
// it: a process that ends in between leaves the first of the two. Of somebody erased whom it is about nothing
// goes on record but a keyed hash.
func (s *Server) carryOut(ctx context.Context, q *Call, of *erased) (done Called, err error) {
	a := s.Accounts[q.Connector]
	if a == nil {
		return done, problem(http.StatusNotFound, "connector %s is not configured; give it settings under connectors.%s", q.Connector, q.Connector)
	}
	_, e, err := a.Request(ctx, q.Operation, q.Arguments)
	var wrong *connectors.ArgumentError
	switch {
	case errors.As(err, &wrong):
		return done, problem(http.StatusUnprocessableEntity, "%v", wrong)
	case errors.Is(err, connectors.ErrNoOperation):
		return done, problem(http.StatusNotFound, "%v; `lodestone operations %s` lists what there is", err, q.Connector)
	case err != nil:
		return done, err
	}
	if e.HumanOnly && q.By != ByCommand && q.By != ByConsole {
		return done, problem(http.StatusForbidden, "%s.%s is for people alone", q.Connector, q.Operation)
	}
	people, odd := addresses(q.Arguments)
	if e.Contacts() && odd != "" {
		return done, problem(http.StatusUnprocessableEntity, "%s.%s: %s looks like an address and is none that could be checked; give the bare address", q.Connector, q.Operation, odd)
	}

	done.Trace = trace()
	record := func(class string) error {
		c := done
		c.Class = class
		return s.audit(context.WithoutCancel(ctx), q, &c, people, of)
	}
	ctx, release, stop, err := s.reserve(ctx, a, e, people, &done.Verdicts)
	if err != nil {
		return done, err
	}
	defer release()
	if !stop {
		if stop, err = s.behind(ctx, a, e, q.Arguments, &people, &done.Verdicts); err != nil {
			return done, err
		}
	}
	if !stop {
		if stop, err = s.clear(ctx, a, e, people, &done.Verdicts); err != nil {
			return done, err
		}
	}
	if !stop && e.Effect != lodestone.EffectRead {
		if err := record(ClassIntended); err != nil {
			return done, fmt.Errorf("nothing was sent, because it could not be put on record: %w", err)
		}
		// What became known while the provider was asked still stops it.
		if stop, err = s.local(ctx, a, e, people, &done.Verdicts); err != nil {
			return done, err
		}
	}
	if stop {
		release()
		done.Class, done.Detail = ClassBlocked, done.Verdicts[len(done.Verdicts)-1].Evidence
		return done, record(done.Class)
	}

	begin := time.Now()
	answer, err := a.Call(ctx, q.Operation, q.Arguments)
	release()
	done.TookMS = time.Since(begin).Milliseconds()
	done.Class, done.Status = "ok", answer.Status
	if json.Valid(answer.Body) {
		done.Answer = answer.Body
	}
	var f *connectors.Fault
	if errors.As(err, &f) {
		done.Class, done.Status, done.Detail = string(f.Class), f.Status, f.Detail
	} else if err != nil {
		return done, err
	}
	if of != nil {
		done.Detail = a.Masked(done.Detail, of.email)
	}
	if err := record(done.Class); err != nil {
		// The answer is worth more than the complaint; that it was about to be done is on record.
		done.Detail = strings.TrimSpace(done.Detail + " (what came of it could not be put on record: " + err.Error() + ")")
	}
	return done, nil
}

// Who may ask for a call, beside personas.
const (
	ByCommand = "command"
	ByConsole = "console"
)

// reserve waits, for what changes something, for all that the call would have to wait for: nothing may come
// between the last look at who opted out and the call. What is stopped without asking anybody waits for
// nothing, and says why in the checks that follow. release is never nil.
func (s *Server) reserve(ctx context.Context, a *connectors.Account, e *connectors.Endpoint, people []lodestone.Email, v *[]lodestone.Verdict) (held context.Context, release func(), stop bool, err error) {
	if e.Effect == lodestone.EffectRead {
		return ctx, func() {}, false, nil
	}
	if stop, err := s.local(ctx, a, e, people, new([]lodestone.Verdict)); stop || err != nil {
		return ctx, func() {}, false, err
	}
	held, release, err = a.ReserveCall(ctx)
	if err != nil {
		return ctx, release, object(v, lodestone.CheckConnector, unusable(err), "%v", err), nil
	}
	return held, release, false, nil
}

// unusable is the reason of an account that takes no calls now.
func unusable(err error) lodestone.Reason {
	var f *connectors.Fault
	if errors.As(err, &f) && f.Reason != "" {
		return f.Reason
	}
	return lodestone.ReasonProviderUnavailable
}

// behind adds the people for whom ids among the arguments stand, so that their opt-outs are looked at
// like those of people named by address. Whom the provider cannot tell is said in a verdict; a question
// that fails stops the call.
func (s *Server) behind(ctx context.Context, a *connectors.Account, e *connectors.Endpoint, arguments map[string]any, people *[]lodestone.Email, v *[]lodestone.Verdict) (stop bool, err error) {
	if !e.Contacts() || len(e.Whose) == 0 {
		return false, nil
	}
	if stop, err := s.local(ctx, a, e, nil, new([]lodestone.Verdict)); stop || err != nil {
		return false, err // it is stopped without asking anybody, and says why there
	}
	names, err := a.Whom(ctx, e.Name, arguments)
	if err != nil {
		return object(v, lodestone.CheckProvider, lodestone.ReasonCheckFailed, "%v", err), nil
	}
	for _, n := range names {
		switch {
		case n.Untold:
			*v = append(*v, lodestone.Verdict{Check: lodestone.CheckProvider, OK: true, Evidence: n.Path + " stands for somebody, and the provider does not tell for whom: it could not be matched against opt-outs"})
		case len(n.Emails) == 0:
			*v = append(*v, lodestone.Verdict{Check: lodestone.CheckProvider, OK: true, Evidence: n.Path + " stands for nobody whom the provider knows"})
		default:
			*v = append(*v, lodestone.Verdict{Check: lodestone.CheckProvider, OK: true, Evidence: n.Path + " was looked up: the opt-outs of the person behind it are looked at"})
		}
		*people = append(*people, n.Emails...)
	}
	slices.Sort(*people)
	*people = slices.Compact(*people)
	return false, nil
}

// clear is the gate for calls that people and agents make: what is paused, the suppression list, and
// the unsubscribe status at the provider, for every address that the call is about. It fails closed. An
// operation that stops contact, such as an unsubscribe, is let pass.
func (s *Server) clear(ctx context.Context, a *connectors.Account, e *connectors.Endpoint, people []lodestone.Email, v *[]lodestone.Verdict) (stop bool, err error) {
	if stop, err = s.local(ctx, a, e, people, v); stop || err != nil || !e.Contacts() {
		return stop, err
	}
	for _, email := range people {
		sub, err := a.Unsubscribed(ctx, email)
		switch {
		case err != nil:
			return object(v, lodestone.CheckProvider, lodestone.ReasonCheckFailed, "%v", err), nil
		case sub.Unsubscribed:
			return object(v, lodestone.CheckProvider, lodestone.ReasonUnsubscribed, "%s", sub.Evidence), nil
		}
		*v = append(*v, lodestone.Verdict{Check: lodestone.CheckProvider, OK: true, Evidence: sub.Kind + ": " + sub.Evidence})
	}
	if len(people) == 0 && !slices.ContainsFunc(*v, func(x lodestone.Verdict) bool { return x.Check == lodestone.CheckProvider }) {
		*v = append(*v, lodestone.Verdict{Check: lodestone.CheckProvider, OK: true, Evidence: "the call names nobody by address, so nobody's opt-out was looked at"})
	}
	return false, nil
}

// local makes the checks of clear that ask nobody outside. A copy asks nobody anything.
func (s *Server) local(ctx context.Context, a *connectors.Account, e *connectors.Endpoint, people []lodestone.Email, v *[]lodestone.Verdict) (stop bool, err error) {
	if s.Store.Copied() {
		return object(v, lodestone.CheckPaused, lodestone.ReasonPaused, "this data directory is a copy; `lodestone claim` makes it the one that acts"), nil
	}
	if e.Effect == lodestone.EffectRead {
		return false, nil
	}
	paused, err := s.Store.Paused(ctx)
	if err != nil {
		return false, err
	}
	for _, scope := range []string{"all", "connector " + a.Name()} {
		if p, ok := paused[scope]; ok {
			return object(v, lodestone.CheckPaused, lodestone.ReasonPaused, "%s is paused since %s", scope, p.At.Format(time.RFC3339)), nil
		}
	}
	*v = append(*v, lodestone.Verdict{Check: lodestone.CheckPaused, OK: true})
	if !e.Contacts() {
		return false, nil
	}
	for _, email := range people {
		p, err := s.Store.State(ctx, email)
		if err != nil {
			return false, err
		}
		if x := p.Suppression; x != nil {
			return object(v, lodestone.CheckSuppression, lodestone.ReasonSuppressed, "suppressed since %s by %s: %s", x.At.Format(time.RFC3339), x.Source, x.Reason), nil
		}
		*v = append(*v, lodestone.Verdict{Check: lodestone.CheckSuppression, OK: true, Evidence: "not on the suppression list"})
	}
	return false, nil
}

// object adds a verdict that stops the call.
func object(v *[]lodestone.Verdict, c lodestone.Check, reason lodestone.Reason, format string, args ...any) bool {
	*v = append(*v, lodestone.Verdict{Check: c, Reason: reason, Evidence: fmt.Sprintf(format, args...)})
	return true
}

// audit puts a call on record, in the chain of the lead that it is about when there is one.
func (s *Server) audit(ctx context.Context, q *Call, done *Called, people []lodestone.Email, of *erased) error {
	arguments, err := json.Marshal(redacted("", q.Arguments))
	if err != nil {
		return err
	}
	var about lodestone.Email
	if len(people) == 1 && of == nil {
		about = people[0]
	}
	now := time.Now().UTC()
	entry := lodestone.CallEntry{
		By: q.By, Operation: q.Connector + "." + q.Operation, Arguments: string(arguments[:min(len(arguments), maxArguments)]),
		Verdicts: done.Verdicts, Class: done.Class, Status: done.Status, Detail: done.Detail,
		Took: time.Duration(done.TookMS) * time.Millisecond, Trace: done.Trace,
	}
	if of != nil {
		entry.Person = of.name
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
		return fmt.Errorf("the journal: %w", err)
	}
	return nil
}

// maxArguments bounds what is kept of a call's arguments, in bytes.
const maxArguments = 4 << 10

// private matches the names of arguments whose values are nobody's business afterwards.
var private = regexp.MustCompile(`(?i)pass|secret|token|key|payout|birth|phone|name|street|address|city|postal|region|note|iban|tax|url|meta|custom`)

// redacted is what goes on record of a call's arguments: which there were, and the values of those that
// say what was done and to what, not to whom.
func redacted(name string, v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, x := range v {
			out[k] = redacted(k, x)
		}
		return out
	case []any:
		out := make([]any, 0, len(v))
		for _, x := range v {
			out = append(out, redacted(name, x))
		}
		return out
	case string:
		switch {
		case likeAddress(v):
			return "<address>"
		case private.MatchString(name):
			return "<hidden>"
		}
		return v[:min(len(v), 100)]
	}
	if private.MatchString(name) {
		return "<hidden>"
	}
	return v
}

// likeAddress reports whether a text may hold an address, in any of its spellings.
func likeAddress(s string) bool {
	return strings.ContainsAny(s, "@\uff20\ufe6b") || strings.Contains(s, "%40")
}

// addresses finds the addresses among arguments, however deep, each once and in order. odd names an
// argument that looks like one, or should be one by its name, and is none.
func addresses(arguments map[string]any) (list []lodestone.Email, odd string) {
	var walk func(string, any)
	walk = func(name string, v any) {
		switch v := v.(type) {
		case string:
			e, err := lodestone.ParseEmail(v)
			switch {
			case err == nil:
				list = append(list, e)
			case likeAddress(v), v != "" && strings.Contains(strings.ToLower(name), "email"):
				odd = name
			}
		case []any:
			for _, x := range v {
				walk(name, x)
			}
		case map[string]any:
			for k, x := range v {
				walk(k, x)
			}
		}
	}
	walk("", arguments)
	slices.Sort(list)
	return slices.Compact(list), odd
}

func trace() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
