package connectors

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone"
)

// Class is what a failed call means for the one who called. It is safe as a metric label.
type Class string

// The classes of failed calls.
const (
	NotDone     Class = "not_done"     // provably nothing happened; may be tried again
	Unknown     Class = "unknown"      // it may have happened; must be looked up
	Refused     Class = "refused"      // for good
	LockedOut   Class = "locked_out"   // the provider does not accept the credentials; nothing happened
	RateLimited Class = "rate_limited" // nothing happened; later
	Failed      Class = "failed"       // of checks and look-ups: no usable answer
)

// classOK labels the requests that did not fail.
const classOK Class = "ok"

// Fault is a failed call.
type Fault struct {
	Connector     string // the account's name
	Operation     string
	Class         Class
	Reason        lodestone.Reason
	Status        int           // of HTTP; 0 when no answer came
	RetryAfter    time.Duration // 0 when the provider named none
	Detail        string        // the provider's words or the network's: no secrets, no addresses, at most 300 characters
	CountsAttempt bool          // whether the try used up one of the touchpoint's attempts
	Err           error         // the cause, for errors.Is; its text is as safe as Detail; may be nil
}

// Error names the account, the operation, what it means and what the provider said.
func (f *Fault) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: %s", f.Connector, f.Operation, f.Class.words())
	if f.Status != 0 {
		fmt.Fprintf(&b, " (status %d)", f.Status)
	}
	if f.Detail != "" {
		b.WriteString(": ")
		b.WriteString(f.Detail)
	}
	return b.String()
}

// Unwrap gives the cause.
func (f *Fault) Unwrap() error { return f.Err }

func (c Class) words() string {
	switch c {
	case NotDone:
		return "not done"
	case Unknown:
		return "may have been done"
	case Refused:
		return "refused"
	case LockedOut:
		return "locked out"
	case RateLimited:
		return "rate limited"
	}
	return "no usable answer"
}

// refusal is a 2xx whose words say no.
type refusal struct{ words string }

func (r *refusal) Error() string { return r.words }

// Refusal is for [Call.Decode]: the answer is a success by its status, and its words refuse the act
// for good.
func Refusal(words string) error { return &refusal{words} }

// ErrProviderUnavailable is the cause of a fault that an open breaker made: nothing was sent.
var ErrProviderUnavailable = errors.New("the breaker is open")

// masked is a cause whose text is safe to show. It still answers errors.Is, and hands nothing out.
type masked struct {
	text  string
	cause error
}

func (m *masked) Error() string        { return m.text }
func (m *masked) Is(target error) bool { return errors.Is(m.cause, target) }
