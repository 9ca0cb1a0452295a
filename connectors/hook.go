package connectors

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/lodestonehq/lodestone"
)

// Hook says how the webhooks of one kind of connector come in: where they are posted, how it is proved
// that the provider sent them, and which signals they are. A kind whose provider has no webhooks has
// no Hook.
type Hook struct {
	// Secrets are the secret settings that verification uses. An account can be used without them; its
	// webhooks are then refused where nothing else proves who sent them.
	Secrets []string
	// NeedsEvent says that a body does not name its event, so that every event is posted to an address
	// of its own: /hooks/{account}/{event} instead of /hooks/{account}.
	NeedsEvent bool
	// Token says that the provider signs nothing, so that the address ends in a secret:
	// /hooks/{account}/{token} or /hooks/{account}/{event}/{token}.
	Token bool
	// EventToken is what the address of an event ends in when the configured secrets do not prove the event
	// by themselves: /hooks/{account}/{event}/{token}. Empty: in nothing. nil: never.
	EventToken func(secrets map[string]Secret, event string) string
	// Events are the events that the provider is known to send. Another one is taken and counted.
	Events []string
	// Taken is the status by which the provider knows that a webhook was taken; 0: 202.
	Taken int
	// Open makes the verification of one account; it makes no request. settings are the account's,
	// with defaults. The error wraps [ErrHookUnverifiable], names the setting that is missing or wrong,
	// and holds no secret.
	Open func(settings Settings, secrets map[string]Secret) (VerifyHook, error)
	// Signals reads a body that was verified. event is the one of the address, empty when addresses name
	// none. The error wraps [ErrHookBody]. It must be safe for concurrent use and total: bodies come
	// from outside.
	Signals func(event string, body []byte) (HookNews, error)
	// Install says how an address is subscribed; nil when the provider has no API for it.
	Install *HookInstall
}

// Knows reports whether the provider is known to send an event. Only such a name may be logged: any
// other text comes from outside.
func (h *Hook) Knows(event string) bool { return slices.Contains(h.Events, event) }

// HookRequest is one webhook as it came.
type HookRequest struct {
	Event  string // from the address; empty when addresses name none
	Token  string // from the address; empty when it ends in none
	Header http.Header
	Body   []byte // as it was sent, byte for byte
}

// VerifyHook proves that the provider sent a webhook, to this account. The error wraps [ErrHookForged]
// or [ErrHookKeys] and holds nothing of the request. It must be safe for concurrent use.
type VerifyHook func(context.Context, HookRequest) error

// The errors of hooks.
var (
	// ErrHookUnverifiable says that nothing is configured that could prove who sent a webhook.
	ErrHookUnverifiable = errors.New("webhooks cannot be verified")
	// ErrHookForged says that a webhook is not proved to come from the provider.
	ErrHookForged = errors.New("the webhook is not proved to come from the provider")
	// ErrHookKeys says that the provider's keys cannot be had at the moment, so that nothing is proved
	// either way; the provider may send it again.
	ErrHookKeys = errors.New("the provider's keys cannot be had at the moment")
	// ErrHookBody says that a body is not one that the provider sends.
	ErrHookBody = errors.New("the body is not what the provider sends")
)

// HookNews is what one webhook says.
type HookNews struct {
	ID      string // the provider's id of the event; empty when it gives none
	Event   string // as the provider names it
	Signals []HookSignal
}

// HookSignal is one signal of a webhook.
type HookSignal struct {
	Kind   lodestone.SignalKind
	Email  string         // as the provider writes it; may be empty or unusable
	At     time.Time      // when it happened; zero when the body does not say it
	Detail map[string]any // without personal data; may be nil
}

// HookInstall says how addresses are subscribed through the catalogue.
type HookInstall struct {
	// Events are subscribed to: with [Hook.NeedsEvent] each with an address of its own, else all with
	// one.
	Events []string
	// Ask is the operation whose answer shows subscriptions. event is empty without NeedsEvent.
	Ask func(event string) (operation string, arguments map[string]any)
	// Subscriptions reads that answer.
	Subscriptions func(answer []byte) ([]HookSubscription, error)
	// Complete says that the answer shows every subscription. Otherwise it shows some, and those that
	// were made are remembered by whoever made them.
	Complete bool
	// Create is the operation that subscribes an address.
	Create func(event, address string) (operation string, arguments map[string]any)
	// Reference is the provider's id of the subscription that was made; empty when it gives none.
	Reference func(answer []byte) string
}

// HookSubscription is one subscription at a provider.
type HookSubscription struct {
	URL    string   `json:"url"`
	Events []string `json:"events,omitempty"` // "*": all
	ID     string   `json:"id,omitempty"`
}

// SameSecret compares two texts without telling by its time how much of them agrees, or how long the
// wanted one is.
func SameSecret(got string, want Secret) bool {
	g, w := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(g[:], w[:]) == 1
}
