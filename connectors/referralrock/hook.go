package referralrock

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/lenient"
)

// Names of the secret settings of webhooks.
const (
	WebhookKey  = "webhook_key"  // one key for every webhook; their addresses then end in a token
	WebhookKeys = "webhook_keys" // several, apart by blanks, commas or lines; Event=key holds for that event alone
)

const (
	opCreateHook  = "createHook"
	opHookHistory = "getHookHistory"
	// minHookKey is the shortest key that is taken. The provider's are longer; a shorter one is a slip.
	minHookKey = 8
)

// hookEvents are the events of the provider (documented, api.referralrock.com/help/webhook).
var hookEvents = []string{
	"ProgramAdd", "ProgramUpdate", "ProgramDelete",
	"MemberAdd", "MemberUpdate", "MemberDelete",
	"ReferralAdd", "ReferralUpdate", "ReferralDelete", "ReferralStatusChange",
	"RewardAdd", "RewardUpdate", "RewardDelete", "RewardIssue",
	"EmailUnsubscribed",
}

// Hook is how webhooks of Referral Rock come in.
//
// What it relies on, marked as in the package comment:
//
//	a body is the element itself and does not name the event                 documented  help/webhook
//	  so every event has an address of its own
//	keys of bodies mix letter cases                                          documented  help/webhook
//	RR-Signature is an HMAC-SHA512                                           client      metorial/integrations
//	  over the raw body, in hexadecimal                                      assumed     Base64 is read, too
//	every webhook has a key of its own, shown in the admin pages             documented  support article 6244564
//	  so nothing that is signed says which event it is: a key that holds for several events is taken only at
//	  an address that ends in a token of key and event, which `hooks install` makes (see [EventToken]);
//	  otherwise a body that was caught could be posted as another event
//	Timestamp is in Unix seconds                                             documented  help/webhook
//	POST /api/hooks subscribes one address to one event                      documented  Help page
//	  what a second one does                                                 unknown     its deliveries would be repeats,
//	                                                                                     which are recognised
//	GET /api/hooks/history/{event} shows past deliveries with targetUrl      assumed
//
// EmailUnsubscribed is unsubscribed. ReferralStatusChange and ReferralAdd are converted for the person
// who was referred when the status is Qualified or Approved. MemberAdd is joined, unless the body says
// that the member is only Preloaded, Preapproved, Invited or Disabled. ReferralUpdate is no signal,
// because it comes with every change of a referral that converted long ago; RewardIssue is none,
// because its body names no person.
func Hook() connectors.Hook {
	return connectors.Hook{
		Secrets:    []string{WebhookKey, WebhookKeys},
		NeedsEvent: true,
		Events:     slices.Clone(hookEvents),
		Open:       openHook,
		Signals:    hookSignals,
		EventToken: eventToken,
		Install: &connectors.HookInstall{
			Events: []string{"EmailUnsubscribed", "MemberAdd", "ReferralAdd", "ReferralStatusChange"},
			Ask: func(event string) (string, map[string]any) {
				return opHookHistory, map[string]any{"eventName": event}
			},
			Subscriptions: hookHistory,
			Create: func(event, address string) (string, map[string]any) {
				return opCreateHook, map[string]any{"target_url": address, "event": event}
			},
			Reference: func(answer []byte) string {
				var made struct {
					ID words `json:"web_hook_id"`
				}
				_ = json.Unmarshal(answer, &made) // an answer without an id has none to show
				return string(made.ID)
			},
		},
	}
}

// hookKey is one key; event is empty when it holds for all.
type hookKey struct {
	event string
	key   connectors.Secret
}

func openHook(_ connectors.Settings, secrets map[string]connectors.Secret) (connectors.VerifyHook, error) {
	keys, err := hookKeys(secrets)
	if err != nil {
		return nil, err
	}
	return func(_ context.Context, r connectors.HookRequest) error { return verifyHook(keys, r) }, nil
}

// hookKeys reads the keys from the settings.
func hookKeys(secrets map[string]connectors.Secret) ([]hookKey, error) {
	var keys []hookKey
	if k := strings.TrimSpace(secrets[WebhookKey].Reveal()); k != "" {
		keys = append(keys, hookKey{key: connectors.Secret(k)})
	}
	for _, text := range strings.FieldsFunc(secrets[WebhookKeys].Reveal(), func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' || r == '\r' }) {
		k := hookKey{key: connectors.Secret(text)}
		// A key may hold "=" itself, as Base64 does.
		if event, key, found := strings.Cut(text, "="); found && slices.Contains(hookEvents, event) {
			k = hookKey{event, connectors.Secret(key)}
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%w: %s is missing; the admin pages of Referral Rock show the key of each webhook", connectors.ErrHookUnverifiable, WebhookKey)
	}
	for _, k := range keys {
		if len(k.key) < minHookKey {
			return nil, fmt.Errorf("%w: %s or %s holds a key of fewer than %d characters", connectors.ErrHookUnverifiable, WebhookKey, WebhookKeys, minHookKey)
		}
	}
	return keys, nil
}

// EventToken binds an event to a key that holds for several: the first 32 hexadecimal digits of an
// HMAC-SHA256 over the event's name.
func EventToken(key connectors.Secret, event string) string {
	mac := hmac.New(sha256.New, []byte(key.Reveal()))
	mac.Write([]byte("lodestone webhook event " + event))
	return hex.EncodeToString(mac.Sum(nil))[:32]
}

// eventToken is the token of an event's address, empty where the event has a key of its own.
func eventToken(secrets map[string]connectors.Secret, event string) string {
	keys, err := hookKeys(secrets)
	if err != nil {
		return ""
	}
	for _, k := range keys {
		if k.event == event {
			return ""
		}
	}
	if i := slices.IndexFunc(keys, func(k hookKey) bool { return k.event == "" }); i >= 0 {
		return EventToken(keys[i].key, event)
	}
	return ""
}

func verifyHook(keys []hookKey, r connectors.HookRequest) error {
	given, err := hookSignature(r.Header)
	if err != nil {
		return fmt.Errorf("%w: %w", connectors.ErrHookForged, err)
	}
	fits := false
	for _, k := range keys {
		if k.event != "" && k.event != r.Event {
			continue
		}
		mac := hmac.New(sha512.New, []byte(k.key.Reveal()))
		mac.Write(r.Body)
		bound := k.event != "" || connectors.SameSecret(r.Token, connectors.Secret(EventToken(k.key, r.Event)))
		fits = hmac.Equal(mac.Sum(nil), given) && bound || fits
	}
	if !fits {
		return fmt.Errorf("%w: RR-Signature does not fit the body, or nothing proves the event", connectors.ErrHookForged)
	}
	return nil
}

// hookSignature reads the header. Two headers are none: which of them counts would be chance.
func hookSignature(h http.Header) ([]byte, error) {
	values := h.Values("RR-Signature")
	if len(values) != 1 {
		return nil, errors.New("it needs one header RR-Signature")
	}
	text := strings.TrimSpace(values[0])
	if b, err := hex.DecodeString(text); err == nil && len(b) == sha512.Size {
		return b, nil
	}
	if b, err := base64.StdEncoding.DecodeString(text); err == nil && len(b) == sha512.Size {
		return b, nil
	}
	return nil, errors.New("RR-Signature is no HMAC-SHA512 in hexadecimal")
}

// hookBody is what is read of a body, in whatever letter case it is written.
type hookBody struct {
	ID        words
	Email     words
	Status    words
	Timestamp json.RawMessage
}

func hookSignals(event string, body []byte) (connectors.HookNews, error) {
	news := connectors.HookNews{Event: event}
	var b hookBody
	if err := lenient.Object(body, &b); err != nil {
		return news, fmt.Errorf("%w: %w", connectors.ErrHookBody, err)
	}
	s := connectors.HookSignal{Email: string(b.Email), At: hookTime(b.Timestamp)}
	status := strings.ToLower(strings.TrimSpace(string(b.Status)))
	switch event {
	case "EmailUnsubscribed":
		s.Kind = lodestone.SignalUnsubscribed
	case "ReferralStatusChange", "ReferralAdd":
		if status == "qualified" || status == "approved" {
			s.Kind = lodestone.SignalConverted
			s.Detail = map[string]any{"status": status}
		}
	case "MemberAdd":
		switch status {
		case "preloaded", "preapproved", "invited", "disabled": // was put there, did not come
		default:
			s.Kind = lodestone.SignalJoined
		}
	}
	if s.Kind != "" {
		news.Signals = []connectors.HookSignal{s}
	}
	return news, nil
}

// hookTime reads Unix seconds, as a number or a text, zero when it is neither.
func hookTime(raw json.RawMessage) time.Time {
	var seconds json.Number
	if len(raw) == 0 || json.Unmarshal(raw, &seconds) != nil {
		return time.Time{}
	}
	n, err := seconds.Int64()
	if err != nil || n <= 0 || n > 253402300799 { // the year 9999
		return time.Time{}
	}
	return time.Unix(n, 0).UTC()
}

// hookHistory reads past deliveries: a subscription that delivered something was made.
func hookHistory(answer []byte) ([]connectors.HookSubscription, error) {
	var entries []struct {
		ID        words `json:"webHookId"`
		Event     words
		TargetURL words `json:"targetUrl"`
	}
	if err := json.Unmarshal(answer, &entries); err != nil {
		return nil, errors.New("the history of deliveries is not the list that was expected")
	}
	var list []connectors.HookSubscription
	for _, e := range entries {
		if e.TargetURL != "" {
			list = append(list, connectors.HookSubscription{URL: string(e.TargetURL), Events: []string{string(e.Event)}, ID: string(e.ID)})
		}
	}
	return list, nil
}
