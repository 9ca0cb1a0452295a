// Package connectors says what a connector is, and gives every connector the way to its provider:
// one account with one rate, one limit of calls at a time, one breaker and one set of metrics,
// shared by the worker, the command line, the console and the agents.
//
// A connector speaks to one provider. It builds requests and reads answers; the transport sends
// them and says what a failure means. That is decided by what is provable, not by what is likely:
//
//	nothing was written to the connection, 503 with Retry-After  NotDone      tried again later
//	429, with or without Retry-After                             RateLimited  tried again later
//	401, 403                                                     LockedOut    breaker opens, tried again later
//	other 4xx, any 3xx, words of refusal in a 2xx                Refused      never tried again
//	other 5xx, timeout, connection broken after a write,
//	a 2xx that cannot be read                                    Unknown      looked up, never blindly sent again
//
// The promise behind it: a call of [Transport.Act] writes its request to at most one connection, at
// most once, and NotDone is said only when not one byte of it was handed to the network. Reads
// (checks, look-ups) are safe to repeat and are repeated a few times.
//
// Errors are [*Fault]. No error, log line or metric holds a secret or an email address, neither ours
// nor one that the provider's words repeat.
//
// There is no registry of connectors: the program that wires things together passes each [Kind] to
// [Open].
package connectors

import (
	"context"
	"slices"
	"time"

	"github.com/lodestonehq/lodestone"
)

// Act is one thing to be done at a provider, at most once.
type Act struct {
	ID         string // the touchpoint's id: `<enrollment>.<step>`; unique for ever, the natural idempotency key
	Operation  string // a verb (invite, refer) or an operation of the catalogue
	Email      lodestone.Email
	Parameters map[string]any // string, float64, bool, []any or map[string]any by name; absent ones are left out
	Altered    []string       // for a look-up: the parameters that were sent otherwise than they stand in Parameters
	IntendedAt time.Time      // when the intent was stored
}

// Receipt is a provider's word that an act was done.
type Receipt struct {
	Reference string // the provider's id of what was made; empty when it gave none
	Detail    string // its words, without personal data
	Status    int    // of HTTP
	Skipped   bool   // it took the request and says that it did nothing, because it knows the person already, say
}

// Subscription is what is known of an address's opt-out at the provider.
type Subscription struct {
	Unsubscribed bool
	Kind         string // SuppressionProvider or SuppressionLocalOnly: who was asked
	Evidence     string // what the answer rests on, without the address
}

// FindingState is the answer to "did this act already happen?".
type FindingState string

// The answers of a look-up. Only Found and Absent settle anything.
const (
	Found       FindingState = "found"
	Absent      FindingState = "absent"      // the provider's word that it did not happen
	Unclear     FindingState = "unclear"     // it answered, and the answer proves nothing
	Unsupported FindingState = "unsupported" // it has no way to answer; nothing was asked
)

// Finding is what a look-up found.
type Finding struct {
	State     FindingState
	Reference string // the provider's id, when found
	Evidence  string // what the answer rests on, without personal data
}

// Connector speaks to one provider. It must be safe for concurrent use. Its errors are the transport's
// [*Fault]s, unchanged; what it finds wrong with an act before it calls is one of [Transport.Reject].
type Connector interface {
	// Do performs the act. It calls [Transport.Act] at most once.
	Do(ctx context.Context, act Act) (Receipt, error)
	// Unsubscribed asks whether the address opted out. An answer that is not understood is an error,
	// never "not unsubscribed".
	Unsubscribed(ctx context.Context, email lodestone.Email) (Subscription, error)
	// Find asks whether the act already happened.
	Find(ctx context.Context, act Act) (Finding, error)
	// Probe makes one harmless reading request, to learn whether the provider answers and accepts the
	// credentials. It must reach the provider.
	Probe(ctx context.Context) error
	Capabilities() Capabilities
}

// Capabilities is what a connector can do, and what its answers prove.
type Capabilities struct {
	Verbs   []string          // of lodestone.VerbInvite and lodestone.VerbRefer
	Check   bool              // whether the provider can say that an address unsubscribed
	Lookups map[string]Lookup // by operation; an operation that is missing cannot be looked up
}

// Lookup says which answers of an operation's look-up settle an unknown outcome.
type Lookup struct {
	FoundIsProof  bool
	AbsentIsProof bool
}

// Kind is one sort of connector, as the wiring passes it to [Open].
type Kind struct {
	Name       string                // the key under `connectors`, unless an account names its kind
	Summary    string                // one line for people
	BaseURL    string                // where the provider answers when the settings do not say
	Secrets    []string              // the secret settings it cannot do without
	Keys       []string              // its other own settings, held in [Settings.Extra]
	Operations []lodestone.Operation // what rules may call; Name is the bare operation
	Endpoints  []Endpoint            // the whole catalogue; needs a connector that is a [Cataloguer]
	Check      bool                  // as [Capabilities.Check]; without it `suppression: local-only` must be said
	// FoundBy are the parameters, by operation, by which a look-up finds the act or tells it from others. They
	// are kept as they are sent, so that what was sent is what is looked for.
	FoundBy map[string][]string
	// Open makes the connector. It makes no request. An error names the setting that is at fault.
	Open func(Settings, *Transport) (Connector, error)
	// Timeout is the default of one request; 0: 10 s.
	Timeout time.Duration
}

// RuleOperations are everything that `do` may say: the verbs, then the operations of the catalogue.
// Those that no step may name are among them, with the reason.
func (k Kind) RuleOperations() []lodestone.Operation {
	ops := slices.Clone(k.Operations)
	for i := range ops {
		ops[i].Parameters = slices.Clone(ops[i].Parameters)
		for j := range ops[i].Parameters {
			if p := &ops[i].Parameters[j]; p.Type == lodestone.FieldText && p.Holds == "" {
				p.Holds = holding("", p.Name)
			}
			ops[i].Parameters[j].Finds = slices.Contains(k.FoundBy[ops[i].Name], ops[i].Parameters[j].Name)
		}
	}
	for i := range k.Endpoints {
		if _, own := k.Operation(k.Endpoints[i].Name); !own { // the connector's own way of an operation comes first
			ops = append(ops, k.Endpoints[i].Operation())
		}
	}
	return ops
}

// Operation finds an operation by its bare name.
func (k Kind) Operation(name string) (lodestone.Operation, bool) {
	for _, op := range k.Operations {
		if op.Name == name {
			return op, true
		}
	}
	return lodestone.Operation{}, false
}
