package referralfactory

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
)

// WebhookToken is the secret setting of webhooks: the end of their addresses.
const WebhookToken = "webhook_token"

// minHookToken is the shortest token that is taken: 20 characters of Base64 are 120 bits.
const minHookToken = 20

// The events, named by us for the addresses that are entered on the provider's pages.
const (
	hookUser      = "user"      // new user
	hookQualified = "qualified" // qualified referral
)

var hookEvents = []string{hookUser, hookQualified}

// Hook is how webhooks of Referral Factory come in.
//
// What it relies on:
//
//	there are webhooks for a new user and for a qualified referral           documented  the reference
//	  they are set up on the web pages, there is no API for it               documented  same
//	no signature and no schema were found                                    documented  by absence
//	  so every event has an address of its own, which ends in a secret
//	a body is the user, bare or under data, as it is on reads                assumed
//	unsubscribed_at is set for a user who unsubscribed                       documented  user-structure
//	dates are yyyy-MM-dd                                                     documented  the reference's sample
//
// user is joined, qualified is converted, and a body of either that shows unsubscribed_at is
// unsubscribed as well. Whoever learns the token can say these things of any address and nothing
// else; a new token shuts them out.
func Hook() connectors.Hook {
	return connectors.Hook{
		Secrets:    []string{WebhookToken},
		NeedsEvent: true,
		Token:      true,
		Events:     slices.Clone(hookEvents),
		Open:       openHook,
		Signals:    hookSignals,
	}
}

func openHook(_ connectors.Settings, secrets map[string]connectors.Secret) (connectors.VerifyHook, error) {
	token := connectors.Secret(strings.TrimSpace(secrets[WebhookToken].Reveal()))
	switch {
	case token == "":
		return nil, fmt.Errorf("%w: %s is missing; Referral Factory signs nothing, so give a long random text that its webhook addresses end in", connectors.ErrHookUnverifiable, WebhookToken)
	case len(token) < minHookToken || strings.ContainsFunc(token.Reveal(), oddInToken):
		return nil, fmt.Errorf("%w: %s must be at least %d letters, digits, hyphens and underscores", connectors.ErrHookUnverifiable, WebhookToken, minHookToken)
	}
	return func(_ context.Context, r connectors.HookRequest) error {
		if !connectors.SameSecret(r.Token, token) {
			return fmt.Errorf("%w: the address does not end in the token", connectors.ErrHookForged)
		}
		return nil
	}, nil
}

func oddInToken(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
}

// hookText is a text; anything else in its place counts as none.
type hookText string

// UnmarshalJSON implements json.Unmarshaler.
func (t *hookText) UnmarshalJSON(raw []byte) error {
	var s *string
	if json.Unmarshal(raw, &s) == nil && s != nil {
		*t = hookText(*s)
	}
	return nil
}

// hookPerson is what is read of a user.
type hookPerson struct {
	Email        hookText        `json:"email"`
	SignedUp     hookText        `json:"signed_up_at"`
	Qualified    hookText        `json:"qualified_at"`
	Unsubscribed hookText        `json:"unsubscribed_at"`
	Data         json.RawMessage `json:"data"`
}

func (p *hookPerson) read(body []byte) error {
	if b := bytes.TrimLeft(body, " \t\r\n"); len(b) == 0 || b[0] != '{' || json.Unmarshal(body, p) != nil {
		return fmt.Errorf("%w: it is not a JSON object", connectors.ErrHookBody)
	}
	return nil
}

func hookSignals(event string, body []byte) (connectors.HookNews, error) {
	news := connectors.HookNews{Event: event}
	var p hookPerson
	if err := p.read(body); err != nil {
		return news, err
	}
	if inner := p.Data; p.Email == "" && len(inner) > 0 {
		p = hookPerson{}
		if err := p.read(inner); err != nil {
			return news, err
		}
	}
	add := func(kind lodestone.SignalKind, at hookText) {
		news.Signals = append(news.Signals, connectors.HookSignal{Kind: kind, Email: string(p.Email), At: hookTime(at)})
	}
	if !slices.Contains(hookEvents, event) {
		return news, nil
	}
	if p.Unsubscribed != "" {
		add(lodestone.SignalUnsubscribed, p.Unsubscribed)
	}
	switch event {
	case hookUser:
		add(lodestone.SignalJoined, p.SignedUp)
	case hookQualified:
		add(lodestone.SignalConverted, p.Qualified)
	}
	return news, nil
}

// hookTime reads a time or a date, zero when it is neither. A date is its first moment in UTC.
func hookTime(t hookText) time.Time {
	for _, layout := range []string{time.RFC3339, time.DateTime, time.DateOnly} {
		if at, err := time.Parse(layout, string(t)); err == nil {
			return at.UTC()
		}
	}
	return time.Time{}
}
