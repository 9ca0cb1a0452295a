package saasquatch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/jwks"
)

// hookHeader holds the detached signature.
const hookHeader = "X-Hook-JWS-RFC-7797"

// hookEvents are the events of the provider (documented, saasquatch-docs content/api/webhooks.md).
var hookEvents = []string{
	"user.created", "user.reward.balance.changed", "coupon.created", "reward.created",
	"referral.automoderation.complete", "referral.started", "referral.converted", "referral.ended",
	"export.created", "export.completed", "theme.publish.finished",
	"email.referral.started", "email.referral.paid", "email.referred.reward.earned", "email.referral.rewardLimitReached",
	"test",
}

// Hook is how webhooks of SaaSquatch come in.
//
// What it relies on, marked as in the package comment:
//
//	X-Hook-JWS-RFC-7797 holds a detached JWS over the raw body               documented  docs, webhooks/security
//	  its key is found by kid in the vendor's JWK set                        documented  same
//	  which is at /.well-known/jwks.json on the host of the API              client      several public receivers
//	the older X-Hook-Signature (HMAC-SHA1) comes too                         documented  not relied on
//	a body names id, type, tenantAlias, created                              documented  content/api/webhooks.md
//	  the JWK set is the vendor's, so the tenant tells whose webhook it is   follows
//	any answer but 200 is sent again, hourly, 72 times                       documented  same
//	  with the same id                                                       assumed     follows
//	the same address twice is one subscription                               documented  same
//	data of referral.converted names the person in referred                  documented  saasquatch/schema
//	data of user.created is the user, with email                             assumed
//
// referral.converted is converted for the person who was referred; user.created is joined, also where
// our own act made the user. reward.created is no signal: it is for the one who refers as often as for
// the one who was referred, and the conversion behind it has its own event. referral.started is none,
// because user.created says it of the same person. Where no email is given the user's and the account's
// id are tried, since an address is what the vendor advises for both.
func Hook() connectors.Hook {
	return connectors.Hook{
		Events:  slices.Clone(hookEvents),
		Taken:   http.StatusOK,
		Open:    openHook,
		Signals: hookSignals,
		Install: &connectors.HookInstall{
			Events:        []string{"referral.converted", "user.created"},
			Ask:           func(string) (string, map[string]any) { return "listWebhooks", nil },
			Subscriptions: hookList,
			Complete:      true,
			Create: func(_, address string) (string, map[string]any) {
				return "createWebhook", map[string]any{
					"endpointUrl": address, "name": "lodestone",
					"webhookTypes": []any{"referral.converted", "user.created"},
				}
			},
			Reference: func([]byte) string { return "" },
		},
	}
}

func openHook(s connectors.Settings, _ map[string]connectors.Secret) (connectors.VerifyHook, error) {
	tenant := strings.TrimSpace(s.Extra[Tenant])
	if tenant == "" {
		return nil, fmt.Errorf("%w: %s is missing, and the provider's keys are those of all its tenants", connectors.ErrHookUnverifiable, Tenant)
	}
	keys := jwks.New(jwks.Beside(s.BaseURL), nil)
	return func(ctx context.Context, r connectors.HookRequest) error {
		values := r.Header.Values(hookHeader)
		if len(values) != 1 {
			return fmt.Errorf("%w: it needs one header %s", connectors.ErrHookForged, hookHeader)
		}
		switch err := keys.Verify(ctx, strings.TrimSpace(values[0]), r.Body); {
		case errors.Is(err, jwks.ErrAway):
			return fmt.Errorf("%w: %w", connectors.ErrHookKeys, err)
		case err != nil:
			return fmt.Errorf("%w: %w", connectors.ErrHookForged, err)
		}
		var e hookEnvelope
		if err := e.read(r.Body); err != nil {
			return err
		}
		if string(e.Tenant) != tenant {
			return fmt.Errorf("%w: it is signed, for another tenant", connectors.ErrHookForged)
		}
		return nil
	}, nil
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

// hookEnvelope is what every webhook has.
type hookEnvelope struct {
	ID      hookText        `json:"id"`
	Type    hookText        `json:"type"`
	Tenant  hookText        `json:"tenantAlias"`
	Created json.RawMessage `json:"created"` // milliseconds since 1970
	Data    json.RawMessage `json:"data"`
}

func (e *hookEnvelope) read(body []byte) error {
	if b := bytes.TrimLeft(body, " \t\r\n"); len(b) == 0 || b[0] != '{' || json.Unmarshal(body, e) != nil {
		return fmt.Errorf("%w: it is not a JSON object", connectors.ErrHookBody)
	}
	if e.ID == "" || e.Type == "" {
		return fmt.Errorf("%w: it has no id or no type", connectors.ErrHookBody)
	}
	return nil
}

// hookPerson is a user as far as it says where to write to.
type hookPerson struct {
	Email   hookText `json:"email"`
	ID      hookText `json:"id"`
	Account hookText `json:"accountId"`
}

// address is the first of its texts that can be an address, else the email, which may be empty.
func (p hookPerson) address() string {
	for _, text := range []hookText{p.Email, p.ID, p.Account} {
		if _, err := lodestone.ParseEmail(string(text)); err == nil {
			return string(text)
		}
	}
	return string(p.Email)
}

func hookSignals(_ string, body []byte) (connectors.HookNews, error) {
	var e hookEnvelope
	if err := e.read(body); err != nil {
		return connectors.HookNews{}, err
	}
	news := connectors.HookNews{ID: string(e.ID), Event: string(e.Type)}
	s := connectors.HookSignal{At: hookTime(e.Created)}
	switch e.Type {
	case "referral.converted":
		var data struct {
			Referred hookPerson `json:"referred"`
		}
		if json.Unmarshal(e.Data, &data) != nil {
			return news, fmt.Errorf("%w: its data names nobody who was referred", connectors.ErrHookBody)
		}
		s.Kind, s.Email = lodestone.SignalConverted, data.Referred.address()
	case "user.created":
		var user hookPerson
		if json.Unmarshal(e.Data, &user) != nil {
			return news, fmt.Errorf("%w: its data is no user", connectors.ErrHookBody)
		}
		s.Kind, s.Email = lodestone.SignalJoined, user.address()
	}
	if s.Kind != "" {
		news.Signals = []connectors.HookSignal{s}
	}
	return news, nil
}

// hookTime reads milliseconds since 1970, zero when it is none.
func hookTime(raw json.RawMessage) time.Time {
	var ms int64
	if len(raw) == 0 || json.Unmarshal(raw, &ms) != nil || ms <= 0 || ms > 253402300799999 { // the year 9999
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// hookList reads the subscriptions of a tenant.
func hookList(answer []byte) ([]connectors.HookSubscription, error) {
	var entries []struct {
		URL   hookText   `json:"endpointUrl"`
		Types []hookText `json:"webhookTypes"`
	}
	if err := json.Unmarshal(answer, &entries); err != nil {
		return nil, errors.New("the list of subscriptions is not the list that was expected")
	}
	list := make([]connectors.HookSubscription, 0, len(entries))
	for _, e := range entries {
		s := connectors.HookSubscription{URL: string(e.URL)}
		for _, t := range e.Types {
			s.Events = append(s.Events, string(t))
		}
		list = append(list, s)
	}
	return list, nil
}
