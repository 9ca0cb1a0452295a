// Package saasquatch speaks to SaaSquatch, which impact.com sells as Advocate.
//
// What it relies on, and how sure each point is. "Documented" is on a page of the provider or in a
// copy of one, "client" was seen in code that somebody else wrote against it, "assumed" is nobody's
// word but ours; nothing was tried against a live account. openapi.yaml names the source of every
// operation.
//
//	the tenant is the first part of every path                              documented  vendor's OpenAPI
//	HTTP Basic with the tenant's API key                                    documented  vendor's OpenAPI
//	  as the password, without a user name                                  client      saasquatch-java-sdk AuthMethod.java
//	  as the user name, without a password                                  documented  older guides; they disagree,
//	                                                                                    hence the setting api_key_as
//	errors are {statusCode, message, apiErrorCode, rsCode}                  documented  vendor's OpenAPI
//	  RS042 is "no such user"                                               documented  for the browser library
//	  over the API it comes with 404 and USER_NOT_FOUND                     assumed
//	  a wrong tenant is 404, TENANT_NOT_FOUND, RS045                        client      a recorded answer
//	open endpoints are off (403) until the vendor turns them on             documented  vendor's OpenAPI
//	no rate limit stands with the API key; 429 where there is one           documented; 429 assumed
//	PUT …/open/account/{accountId}/user/{userId} creates or updates the
//	  user that its path names                                              documented  impact.com Advocate "User"
//	  a referral is made by putting the referrer's code in referredByCodes  documented  impact.com Advocate "User"
//	  hence a repeat meets the same record                                  assumed     follows from upsert and path
//	  the answer shows the user with referredByCodes                        documented  shape; that the code shows
//	                                                                                    at once is not relied on
//	the address is advised as accountId and userId of a person              documented  impact.com user page
//	an account can be referred once                                         documented  integrations.impact.com
//	  a later code does not replace the first                               documented for the browser library;
//	                                                                        over the API assumed, not relied on
//	GET on the same path is 404, or the user with referredByCodes           documented  impact.com Advocate "User"
//	GET /open/referrals?referredUserId= lists who referred a user           documented  vendor's OpenAPI
//	codes are compared without regard to case                               assumed
//	POST …/events with an idempotencyKey of 8 to 64 letters, digits, . - _
//	  takes the events once in at least 24 hours; a repeat answers 409      documented  saasquatch/schema
//	nothing says that an address unsubscribed                               assumed     none was found; referable, doNotTrack
//	                                                                                    and blocking are about referring
//
// The assumed points stand together in assumed.go.
//
// A referral is made once because its user exists once: account and user are the lead's address, so a
// second upsert meets the first one's record. An outcome that is not known is settled by asking: no
// such user, or a user whom nobody referred, is proof that it did not happen; the user with the code is
// proof that it did; a user with another code cannot be referred again, and a human hears of it.
// Where an answer is not understood the connector fails to the safe side: an answer to an act is an
// unknown outcome, a look-up is [connectors.Unclear].
package saasquatch

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"unicode"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/lenient"
	"github.com/lodestonehq/lodestone/connectors/saasquatch/api"
)

//go:generate go run ../internal/opgen -spec openapi.yaml -package saasquatch -out operations_gen.go -catalogue endpoints_gen.go openApplyCode

//go:embed openapi.yaml
var specification []byte

// Specification is the provider's API in OpenAPI 3.0.3, as YAML. The caller owns the copy.
func Specification() []byte { return bytes.Clone(specification) }

// Names of the settings.
const (
	APIKey   = "api_key"    // secret
	Tenant   = "tenant"     // the tenant's alias, for example test_abc123
	APIKeyAs = "api_key_as" // which half of Basic holds the key: AsPassword (default) or AsUser
)

// The values of APIKeyAs.
const (
	AsPassword = "password"
	AsUser     = "user"
)

// The operations that rules may call beside the verb, and those that are called for looking up.
const (
	opApply         = "openApplyCode"
	opTrack         = "trackEvent"
	opUpsert        = "openUserUpsert"
	opGetUser       = "openGetUser"
	opListReferrals = "openListReferrals"
)

// Kind is the connector, for [connectors.Open].
func Kind() connectors.Kind {
	return connectors.Kind{
		Name:       "saasquatch",
		Summary:    "SaaSquatch (impact.com Advocate): register referrals, track events",
		BaseURL:    "https://app.referralsaasquatch.com/api/v1",
		Secrets:    []string{APIKey},
		Keys:       []string{Tenant, APIKeyAs},
		Operations: slices.Clone(acts),
		Endpoints:  catalogue(),
		FoundBy: map[string][]string{
			lodestone.VerbRefer: {"referredByCodes"},
			opApply:             {"accountId", "userId", "code"},
		},
		Open: open,
	}
}

type connector struct {
	t      *connectors.Transport
	server string
	tenant string
	key    connectors.Secret
	asUser bool // the key is the user name of Basic, not the password
}

func open(s connectors.Settings, t *connectors.Transport) (connectors.Connector, error) {
	c := &connector{t: t, server: t.BaseURL() + "/", tenant: strings.TrimSpace(s.Extra[Tenant]), key: s.Secrets[APIKey]}
	switch {
	case c.tenant == "":
		return nil, errors.New("tenant is missing; say the tenant's alias, as in tenant: test_abc123")
	case c.tenant == "." || c.tenant == ".." || strings.ContainsFunc(c.tenant, oddInAlias):
		return nil, errors.New("tenant is the alias alone, as in test_abc123, without slashes and blanks")
	}
	switch as := s.Extra[APIKeyAs]; as {
	case "", AsPassword:
	case AsUser:
		c.asUser = true
	default:
		return nil, fmt.Errorf("api_key_as must be %s or %s", AsPassword, AsUser)
	}
	return c, nil
}

func oddInAlias(r rune) bool {
	return strings.ContainsRune(`/\?#%`, r) || unicode.IsSpace(r) || !unicode.IsPrint(r)
}

// Capabilities implements [connectors.Connector]. Tracked events cannot be read back.
func (*connector) Capabilities() connectors.Capabilities {
	proof := connectors.Lookup{FoundIsProof: true, AbsentIsProof: true}
	return connectors.Capabilities{
		Verbs:   []string{lodestone.VerbRefer},
		Lookups: map[string]connectors.Lookup{lodestone.VerbRefer: proof, opApply: proof},
	}
}

// Sign implements [connectors.Cataloguer].
func (c *connector) Sign(req *http.Request) {
	if c.asUser {
		req.SetBasicAuth(c.key.Reveal(), "")
	} else {
		req.SetBasicAuth("", c.key.Reveal())
	}
	req.Header.Set("Accept", "application/json")
}

// Given implements [connectors.Cataloguer].
func (c *connector) Given() map[string]any { return map[string]any{tenantArgument: c.tenant} }

// signed adds the credentials to a request from a generated builder.
func (c *connector) signed(req *http.Request, err error) (*http.Request, error) {
	if err != nil {
		return nil, err
	}
	c.Sign(req)
	return req, nil
}

// Do implements [connectors.Connector].
func (c *connector) Do(ctx context.Context, act connectors.Act) (connectors.Receipt, error) {
	given, fault := c.arguments(act)
	if fault != nil {
		return connectors.Receipt{}, fault
	}
	req, decode, err := c.build(act, given)
	if err != nil {
		return connectors.Receipt{}, c.t.Reject(act.Operation, err.Error())
	}
	var did made
	answer, err := c.t.Act(ctx, connectors.Call{
		Operation: act.Operation, Request: req,
		Decode: func(a connectors.Answer) error {
			did = made{}
			return decode(a.Body, &did)
		},
	})
	switch {
	case err == nil:
	case act.Operation == opTrack && answer.Status == http.StatusConflict:
		did.detail = "the provider has the event already, under the same idempotency key"
	default:
		return connectors.Receipt{}, err
	}
	return connectors.Receipt{Reference: did.reference, Status: answer.Status, Detail: c.t.Masked(did.detail)}, nil
}

// made is what a receipt says of what was done.
type made struct{ reference, detail string }

// build makes an act's request, and says how its answer is read.
func (c *connector) build(act connectors.Act, given arguments) (*http.Request, func([]byte, *made) error, error) {
	switch act.Operation {
	case lodestone.VerbRefer:
		return c.refer(given)
	case opApply:
		req, err := c.signed(api.NewOpenApplyCodeRequest(c.server, c.tenant, given.text("code"), given.account, given.user))
		return req, readCode, err
	default:
		return c.track(act, given)
	}
}

// refer upserts the person with the codes of whoever brought them in.
func (c *connector) refer(given arguments) (*http.Request, func([]byte, *made) error, error) {
	body, err := lenient.Into[api.OpenUserUpsert](given.body("id", given.user, "accountId", given.account))
	if err != nil {
		return nil, nil, err
	}
	req, err := c.signed(api.NewOpenUserUpsertRequest(c.server, c.tenant, given.account, given.user, nil, body))
	return req, func(raw []byte, m *made) error {
		var u user
		if err := u.read(raw, given); err != nil {
			return err
		}
		switch u.referredBy(given.list("referredByCodes")) {
		case ours:
			m.detail = "the user is referred by the code"
			return nil
		case others:
			return connectors.Refusal("the account was referred already, with another code; an account can be referred once")
		}
		return errors.New("it does not show the code on the user")
	}, err
}

// readCode reads what applying a code answers: the code.
func readCode(raw []byte, m *made) error {
	var code struct{ Code words }
	if err := lenient.Object(raw, &code); err != nil {
		return err
	}
	if code.Code == "" {
		return errors.New("it names no code")
	}
	m.reference, m.detail = string(code.Code), "the code was applied"
	return nil
}

// track tells of one event, under a key that makes a repeat harmless.
func (c *connector) track(act connectors.Act, given arguments) (*http.Request, func([]byte, *made) error, error) {
	key := given.text("idempotencyKey")
	if key == "" {
		key = idempotencyKey(act.ID)
	} else if !keyPattern.MatchString(key) {
		return nil, nil, errors.New("idempotencyKey must be 8 to 64 letters, digits, dots, hyphens and underscores")
	}
	event := map[string]any{"key": given.text("key")}
	for _, name := range []string{"dateTriggered", "fields"} {
		if v, ok := given.values[name]; ok {
			event[name] = v
		}
	}
	body, err := lenient.Into[api.UserEventsInput](map[string]any{
		"accountId": given.account, "userId": given.user, "idempotencyKey": key, "events": []any{event},
	})
	if err != nil {
		return nil, nil, err
	}
	req, err := c.signed(api.NewTrackEventRequest(c.server, c.tenant, given.account, given.user, body))
	return req, func(raw []byte, m *made) error {
		var result struct{ Events *[]struct{ ID ident } }
		if err := lenient.Object(raw, &result); err != nil {
			return err
		}
		if result.Events == nil || len(*result.Events) == 0 {
			return errors.New("it holds no event")
		}
		m.reference = string((*result.Events)[0].ID)
		return nil
	}, err
}
