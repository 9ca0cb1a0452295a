package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// FaultKind is a way in which a provider fails.
type FaultKind string

// The ways to fail. Those with "after effect" do what they were asked before they fail.
const (
	Fault429              FaultKind = "429"                // too many requests, with Retry-After when given
	Fault500              FaultKind = "500"                //
	Fault500AfterEffect   FaultKind = "500-after-effect"   //
	Fault503              FaultKind = "503"                // with Retry-After when given
	Fault401              FaultKind = "401"                // the credentials are not accepted
	FaultSlow             FaultKind = "slow"               // the answer comes after the delay
	FaultHang             FaultKind = "hang"               // no answer; ends with the client, the delay or Clear
	FaultHangAfterEffect  FaultKind = "hang-after-effect"  //
	FaultReset            FaultKind = "reset"              // the connection breaks after the request was read
	FaultResetAfterEffect FaultKind = "reset-after-effect" //
	FaultTruncate         FaultKind = "truncate"           // the answer breaks off in the middle, after the effect
	FaultHTML             FaultKind = "html"               // 200 with a page for people, nothing done
	FaultOutage           FaultKind = "outage"             // every connection breaks, whatever is asked
)

// FaultKinds lists them all.
var FaultKinds = []FaultKind{
	Fault429, Fault500, Fault500AfterEffect, Fault503, Fault401, FaultSlow, FaultHang, FaultHangAfterEffect,
	FaultReset, FaultResetAfterEffect, FaultTruncate, FaultHTML, FaultOutage,
}

// Fault makes requests fail. The newest that fits a request is played.
type Fault struct {
	Kind       FaultKind     `json:"kind"`
	Operation  string        `json:"operation,omitempty"`   // empty: all; invite and refer stand for the provider's own
	Email      string        `json:"email,omitempty"`       // empty: all
	ExternalID string        `json:"external_id,omitempty"` // empty: all
	Times      int           `json:"times,omitempty"`       // requests to fail; 0: until cleared
	RetryAfter string        `json:"retry_after,omitempty"` // the header of 429 and 503 as it stands: seconds or an HTTP date
	Delay      time.Duration `json:"-"`                     // of slow (default 1 s) and hang (default: no end); "2s" in JSON
}

// MarshalJSON implements json.Marshaler; a delay is written as in "1.5s".
func (f Fault) MarshalJSON() ([]byte, error) {
	type plain Fault
	delay := ""
	if f.Delay != 0 {
		delay = f.Delay.String()
	}
	return json.Marshal(struct {
		plain
		Delay string `json:"delay,omitempty"`
	}{plain(f), delay})
}

// UnmarshalJSON implements json.Unmarshaler. retry_after may be a number of seconds, delay a number of
// seconds or a text such as "1.5s"; a key that it does not know is an error.
func (f *Fault) UnmarshalJSON(raw []byte) error {
	type plain Fault
	in := struct {
		plain
		RetryAfter any `json:"retry_after"`
		Delay      any `json:"delay"`
	}{}
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return err
	}
	out := Fault(in.plain)
	switch v := in.RetryAfter.(type) {
	case nil:
	case string:
		out.RetryAfter = v
	case float64:
		out.RetryAfter = strconv.FormatFloat(v, 'f', -1, 64)
	default:
		return errors.New("retry_after must be seconds or a text")
	}
	delay, err := duration(in.Delay)
	if err != nil {
		return fmt.Errorf("delay: %w", err)
	}
	out.Delay = delay
	*f = out
	return nil
}

// duration reads a number of seconds or a Go duration.
func duration(v any) (time.Duration, error) {
	switch v := v.(type) {
	case nil:
		return 0, nil
	case string:
		d, err := time.ParseDuration(v)
		if err != nil || d < 0 {
			return 0, fmt.Errorf("%q is not a duration such as 2s", v)
		}
		return d, nil
	case float64:
		if v >= 0 && v <= 1e9 {
			return time.Duration(v * float64(time.Second)), nil
		}
	}
	return 0, errors.New("it must be seconds or a text such as 2s")
}

func (f *Fault) check() error {
	switch {
	case !slices.Contains(FaultKinds, f.Kind):
		return fmt.Errorf("kind must be one of %v, is %q", FaultKinds, f.Kind)
	case f.Times < 0:
		return errors.New("times must not be negative")
	case f.Delay < 0:
		return errors.New("delay must not be negative")
	case strings.ContainsAny(f.RetryAfter, "\r\n"):
		return errors.New("retry_after must be one line")
	}
	return nil
}

// alike are the operations of other providers that a verb stands for, by the one that it is turned into.
var alike = map[string][]string{"createReferral": {"openUserUpsert"}}

// Fault switches a fault on. The error says what is wrong with it.
func (s *Server) Fault(f Fault) error {
	if err := f.check(); err != nil {
		return err
	}
	switch f.Operation {
	case "invite":
		f.Operation = "createInviteFeedEntry"
	case "refer":
		f.Operation = "createReferral"
	}
	if known := operationNames(); f.Operation != "" && !slices.Contains(known, f.Operation) {
		return fmt.Errorf("no provider has an operation %q%s", f.Operation, near(f.Operation, known))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, &f)
	return nil
}

// operationNames are those of all four providers, each once, in order.
var operationNames = sync.OnceValue(func() []string {
	var names []string
	for _, c := range []*contract{rockContract(), blocksContract(), factoryContract()} {
		for _, r := range c.routes {
			names = append(names, r.operation)
		}
	}
	for _, r := range squatchRoutes() {
		names = append(names, r.operation)
	}
	slices.Sort(names)
	return slices.Compact(slices.DeleteFunc(names, func(n string) bool { return n == "" }))
})

// near ends a message about an unknown operation with those that are written like it.
func near(word string, known []string) string {
	word = strings.ToLower(word)
	var alike []string
	for _, k := range known {
		low := strings.ToLower(k)
		if len(word) >= 4 && (strings.Contains(low, word) || strings.Contains(word, low) || low[:min(len(low), 4)] == word[:4] && low[len(low)-2:] == word[len(word)-2:]) {
			alike = append(alike, k)
		}
	}
	if len(alike) == 0 {
		return "; `lodestone operations` lists them, and invite and refer stand for what these verbs call"
	}
	return "; is one of these meant: " + strings.Join(alike, ", ") + "?"
}

// Faults gives the faults that are switched on, newest first; Times is what is left.
func (s *Server) Faults() []Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Fault, 0, len(s.faults))
	for i := len(s.faults) - 1; i >= 0; i-- {
		out = append(out, *s.faults[i])
	}
	return out
}

// Clear switches all faults off and lets go of what hangs.
func (s *Server) Clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
	close(s.cleared)
	s.cleared = make(chan struct{})
}

// playing is a fault that was taken for one request.
type playing struct {
	Fault
	cleared <-chan struct{}
}

// play takes the newest fault that fits, nil when there is none.
func (s *Server) play(operation string, emails []string, externalID string) *playing {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.faults) - 1; i >= 0; i-- {
		f := s.faults[i]
		same := func(e string) bool { return strings.EqualFold(e, f.Email) }
		if f.Operation != "" && f.Operation != operation && !slices.Contains(alike[f.Operation], operation) ||
			f.Email != "" && !slices.ContainsFunc(emails, same) ||
			f.ExternalID != "" && f.ExternalID != externalID {
			continue
		}
		p := &playing{*f, s.cleared}
		if f.Times > 0 {
			if f.Times--; f.Times == 0 {
				s.faults = slices.Delete(s.faults, i, i+1)
			}
		}
		return p
	}
	return nil
}

// faulty handles a request as the fault wants it.
func (p provider) faulty(w http.ResponseWriter, r *request, f *playing) {
	var answer reply
	act := func() {
		answer = p.serve(r)
	}
	finish := func(status int) { // before the client hears of it, so that whoever asks next sees it
		r.seen.Status = status
		p.s.note(*r.seen)
	}
	switch f.Kind {
	case Fault429, Fault503, Fault500, Fault401, Fault500AfterEffect:
		if f.Kind == Fault500AfterEffect {
			act()
		}
		answer = p.failure(f.status())
		if f.RetryAfter != "" && (f.Kind == Fault429 || f.Kind == Fault503) {
			answer.header = http.Header{"Retry-After": {f.RetryAfter}}
		}
		finish(answer.status)
		send(w, answer)
	case FaultSlow:
		f.wait(context.Background(), time.Second)
		act()
		finish(answer.status)
		send(w, answer)
	case FaultHTML:
		finish(http.StatusOK)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte("<!doctype html><title>Maintenance</title><p>We will be back soon."))
	case FaultTruncate:
		act()
		finish(answer.status)
		truncate(w, answer)
	default: // those that end without an answer
		if f.Kind == FaultHangAfterEffect || f.Kind == FaultResetAfterEffect {
			act()
		}
		finish(0)
		if f.Kind == FaultHang || f.Kind == FaultHangAfterEffect {
			f.wait(r.Context(), 0)
		}
		cut(w, true)
	}
}

func (f *playing) status() (int, string) {
	switch f.Kind {
	case Fault429:
		return http.StatusTooManyRequests, "API calls quota exceeded."
	case Fault503:
		return http.StatusServiceUnavailable, "The service is unavailable."
	case Fault401:
		return http.StatusUnauthorized, "Authorization has been denied for this request."
	}
	return http.StatusInternalServerError, "An error has occurred."
}

// wait lasts for the fault's delay, or the default, 0 meaning no end; ctx and Clear end it sooner.
func (f *playing) wait(ctx context.Context, otherwise time.Duration) {
	d := f.Delay
	if d == 0 {
		d = otherwise
	}
	var over <-chan time.Time
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-over:
	case <-ctx.Done():
	case <-f.cleared:
	}
}

// truncate promises the whole answer and sends half of it.
func truncate(w http.ResponseWriter, a reply) {
	body, err := json.Marshal(a.body)
	if err != nil {
		panic("sandbox: " + err.Error())
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(a.status)
	_, _ = w.Write(body[:len(body)/2])
	_ = http.NewResponseController(w).Flush()
	cut(w, false)
}

// cut breaks the connection under the client: hard with a reset, which also takes what was not read
// yet, else with an end that comes too early.
func cut(w http.ResponseWriter, hard bool) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // net/http's own way, where a connection cannot be taken over
	}
	if tcp, ok := conn.(*net.TCPConn); ok && hard {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}
