// Package blocks23 speaks to the referral part of 23blocks' Forms API. (A Go package cannot be called
// 23blocks; the connector is.)
//
// What it relies on, and how sure each point is. "Documented" is in a text of the provider, "client"
// was seen in the provider's published SDK, "assumed" is nobody's word but ours; nothing was tried
// against a live account. openapi.yaml says the same for every operation.
//
//	the host is forms.23blocks.com; a newer text says forms.api.us.23blocks.com  documented  base_url
//	Authorization: Bearer, and the header AppId                                  documented
//	  a newer text calls that header X-API-KEY                                   documented  app_id_header
//	  POST works without credentials too, says that text, so that anybody may
//	  have made a referral                                                       documented  not relied on
//	bodies are JSON:API; a write is wrapped in `referral`                        documented
//	POST …/instances needs referrer_email and referred_email                     documented
//	  the SDK sends referee_email, referee_name and data in their places         client      field_names
//	  it answers 201 with the referral                                           assumed; any 2xx with an id is taken
//	  it has neither an idempotency key nor a rule about duplicates, so that
//	  a second POST is a second referral                                         assumed
//	metadata is free and comes back on reads                                     documented
//	  the SDK's data does so too                                                 client
//	lists take page and records, and answer meta.totalPages and totalRecords     documented
//	  the SDK reads total_pages and total_count                                  client      both are read
//	  100 records a page are allowed, or cut down to what is                     assumed
//	  every referral that was not deleted is listed; the order is not known      assumed
//	there is no filter on the referred address                                   documented  by absence
//	errors are errors[] with code, title and detail; 404 not_found for an
//	unknown referral                                                             documented; the 404's body assumed
//	DELETE is soft, and answers 204                                              documented
//	  a deleted referral is no longer found                                      assumed
//	times are ISO 8601 in UTC                                                    documented
//	a subscription carries email, status active or unsubscribed, and
//	unsubscribed_at                                                              documented
//	  it governs the mail that a referral sends                                  assumed     off; subscription_form
//
// The last column names the setting, where the point can be switched.
//
// # Did it happen?
//
// A referral carries the touchpoint's id in its metadata under [MetadataKey]. A look-up walks the list
// of referrals page by page, from both ends inwards because nobody says which end is the newer one,
// and the record that carries the key is the proof that it happened. That none does is proof only when
// the whole list was walked: its length was stated, stayed the same on every page, and as many
// different referrals were seen. And none made since the intent for the same person may lack a key,
// which a deployment that drops metadata would leave behind. Everything else is
// [connectors.Unclear]. What is left is a referral that was deleted by hand before the look-up, and one
// that slips over a page's edge while between the same two pages one referral is deleted and another
// made.
//
// # Who unsubscribed?
//
// A referral does not say. Subscriptions do, and they live in a form of their own. Only when
// `subscription_form` names that form are they asked; without it `suppression: local-only` must be
// said. An address that no subscription holds has not unsubscribed there; that takes the whole list,
// as above, and a list that cannot be walked whole is an error, so that nothing is sent.
package blocks23

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
)

//go:generate go run ./internal/flatten blocks23 refer=createReferral createReferral updateReferral deleteReferral getReferral listReferrals

//go:embed openapi.yaml
var specification []byte

// Specification is the provider's API in OpenAPI 3.0.3, as YAML. The caller owns the copy.
func Specification() []byte { return bytes.Clone(specification) }

// MetadataKey is where a referral carries the id of the touchpoint that made it.
const MetadataKey = "lodestone_touchpoint"

// Names of the settings.
const (
	Token            = "token"             // the bearer token; secret
	AppID            = "app_id"            // goes along with the token
	Form             = "form"              // unique id of the referral form
	FieldNames       = "field_names"       // NamesDocumented or NamesSDK; default NamesDocumented
	SubscriptionForm = "subscription_form" // unique id of the form whose subscriptions govern referral mail; default: none
	AppIDHeader      = "app_id_header"     // default AppId
)

// What the fields of a referral are called in requests. Answers are understood in both.
const (
	NamesDocumented = "documented" // referred_email, referred_name, metadata
	NamesSDK        = "sdk"        // referee_email, referee_name, data
)

// The arguments of the catalogue that settings give.
const (
	formArgument             = "form_unique_id"
	subscriptionFormArgument = "subscription_form_unique_id"
)

// The provider's operations, as rules, metrics and errors name them.
const (
	opCreate        = "createReferral"
	opUpdate        = "updateReferral"
	opDelete        = "deleteReferral"
	opGet           = "getReferral"
	opList          = "listReferrals"
	opSubscriptions = "listSubscriptions"
)

// Kind is the connector, for [connectors.Open].
func Kind() connectors.Kind {
	ops := slices.Clone(operations)
	for i := range ops {
		if ops[i].Name == opUpdate {
			ops[i].Effect = lodestone.EffectPay // it sets reward_status and reward_amount
		}
	}
	return connectors.Kind{
		Name:       "23blocks",
		Summary:    "23blocks: register and manage the referrals of a form",
		BaseURL:    "https://forms.23blocks.com",
		Secrets:    []string{Token},
		Keys:       []string{AppID, Form, FieldNames, SubscriptionForm, AppIDHeader},
		Operations: ops,
		Endpoints:  catalogue(),
		FoundBy:    map[string][]string{opUpdate: {"unique_id"}, opDelete: {"unique_id"}},
		Check:      true, // it can be asked; open refuses to ask unless it was told whom
		Open:       open,
	}
}

// catalogue is every operation of the specification. The forms in the paths are settings and so not
// asked for; a call that lacks one is refused by the arguments' schema.
func catalogue() []connectors.Endpoint {
	list := slices.Clone(endpoints)
	for i := range list {
		list[i].Arguments = slices.Clone(list[i].Arguments)
		for j := range list[i].Arguments {
			if a := &list[i].Arguments[j]; a.Name == formArgument || a.Name == subscriptionFormArgument {
				a.Required = false
				a.Description += " Given by the settings, where they name one."
			}
		}
	}
	return list
}

type connector struct {
	t             *connectors.Transport
	server        string
	token         connectors.Secret
	appID         string
	appIDHeader   string
	form          string
	subscriptions string            // the form; empty: nobody is asked
	names         map[string]string // documented to the deployment's; nil: the same
	most          int               // pages that one walk may read
	long          chan struct{}     // one element: a walk over many pages is under way
}

// sdkNames are the SDK's words for documented fields. It has no word for referral_code and source.
var sdkNames = map[string]string{
	"referred_email": "referee_email", "referred_name": "referee_name", "metadata": "data",
}

func open(s connectors.Settings, t *connectors.Transport) (connectors.Connector, error) {
	c := &connector{
		t: t, server: t.BaseURL() + "/", token: s.Secrets[Token],
		appID: s.Extra[AppID], appIDHeader: s.Extra[AppIDHeader], form: s.Extra[Form],
		subscriptions: s.Extra[SubscriptionForm], most: pagesFor(s.Rate, s.Timeout), long: make(chan struct{}, 1),
	}
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if c.appID == "" {
		fault("%s is missing; it is sent together with the token", AppID)
	} else if !headerValue(c.appID) {
		fault("%s holds a line break or another character that no header may; give the bare value", AppID)
	}
	switch {
	case c.form == "":
		fault("%s is missing; give the unique id of the referral form", Form)
	case !pathID(c.form):
		fault("%s is not the unique id of a form", Form)
	}
	if c.subscriptions != "" && !pathID(c.subscriptions) {
		fault("%s is not the unique id of a form", SubscriptionForm)
	}
	switch s.Extra[FieldNames] {
	case "", NamesDocumented:
	case NamesSDK:
		c.names = sdkNames
	default:
		fault("%s must be %s or %s, is %q", FieldNames, NamesDocumented, NamesSDK, s.Extra[FieldNames])
	}
	switch c.appIDHeader {
	case "":
		c.appIDHeader = "AppId"
	case "AppId", "X-API-KEY":
	default:
		fault("%s must be AppId or X-API-KEY, is %q", AppIDHeader, c.appIDHeader)
	}
	if s.Suppression == connectors.SuppressionProvider && c.subscriptions == "" {
		fault("suppression: 23blocks does not say of a referral whether the person unsubscribed; say `suppression: local-only` to rely on "+
			"the local list alone, or name the form whose subscriptions govern referral mail in %s", SubscriptionForm)
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return c, nil
}

// headerValue tells whether a text can stand in a header.
func headerValue(s string) bool {
	return !slices.ContainsFunc([]byte(s), func(b byte) bool { return b < ' ' || b == 0x7f })
}

// pathID tells whether a text names one element of a path. Dots alone would climb out of it.
func pathID(id string) bool {
	return id != "" && id != "." && id != ".." && headerValue(id)
}

// pagesFor is how many pages a walk may read: as many as the account's rate gives in most of the time
// that a look-up has, and never more than maxPages.
func pagesFor(rate float64, timeout time.Duration) int {
	return int(max(2, min(maxPages, 0.8*rate*timeout.Seconds())))
}

// Capabilities implements [connectors.Connector]. A change that is not in place may have been made and
// overwritten since, and repeating it could pay out twice what a human took back.
func (c *connector) Capabilities() connectors.Capabilities {
	both := connectors.Lookup{FoundIsProof: true, AbsentIsProof: true}
	return connectors.Capabilities{
		Verbs: []string{lodestone.VerbRefer},
		Check: c.subscriptions != "",
		Lookups: map[string]connectors.Lookup{
			lodestone.VerbRefer: both,
			opCreate:            both,
			opUpdate:            {FoundIsProof: true},
			opDelete:            both,
			opGet:               {AbsentIsProof: true},
			opList:              {AbsentIsProof: true},
		},
	}
}

// Probe implements [connectors.Connector] by a page of one referral.
func (c *connector) Probe(ctx context.Context) error {
	_, err := c.page(ctx, c.referrals(1), 1)
	return err
}

// Sign implements [connectors.Cataloguer].
func (c *connector) Sign(req *http.Request) {
	req.Header.Set("Authorization", "Bearer "+c.token.Reveal())
	req.Header.Set(c.appIDHeader, c.appID)
	req.Header.Set("Accept", "application/json")
}

// Given implements [connectors.Cataloguer].
func (c *connector) Given() map[string]any {
	given := map[string]any{formArgument: c.form}
	if c.subscriptions != "" {
		given[subscriptionFormArgument] = c.subscriptions
	}
	return given
}

// signed adds the credentials to a request from a generated builder.
func (c *connector) signed(req *http.Request, err error) (*http.Request, error) {
	if err != nil {
		return nil, err
	}
	c.Sign(req)
	return req, nil
}
