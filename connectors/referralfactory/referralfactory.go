// Package referralfactory speaks to Referral Factory, API v2.
//
// What it relies on, and how sure each point is. "Documented" is on a page of the provider,
// "client" was seen in code that somebody else wrote against it, "assumed" is nobody's word but ours;
// nothing was tried against a live account. openapi.yaml says the same for every operation.
//
//	https://api.referral-factory.com/api/v2, Bearer token, one token per account    documented  reference (developers.referral-factory.com)
//	600 requests a minute and token; going over may block the address for days      documented  reference
//	  how the minute is counted                                                     assumed     any 60 seconds, as the provider sees them
//	one answer may take 25 s and more                                               client      a client of v1 (3 calls of 40)
//	errors are {code, message, errors: {field: [{field, message}]}}                 documented  reference
//	  the inner list may hold plain texts                                           client      a client of v1
//	elements and lists stand in "data"                                              client      theluupe/marketplace, MindCloud
//	  an element may stand alone                                                    documented  one written guide; both are read
//	POST /users takes campaign_id, first_name, email, referrer {field, value}       documented  reference
//	  it answers 201                                                                client      a client of v1; 200 is taken too
//	  no mail goes out unless notify is true                                        assumed     a client of v1 saw none
//	an address is in a campaign once, and the first referrer keeps the credit       documented  help centre
//	  a second create is refused with 422 and an error on email                     client      a client of v1
//	  a referrer cannot be attached later                                           client      a client of v1
//	POST /users/search with email and campaign_id joined by AND finds one person    client      theluupe/marketplace
//	  empty data means not there                                                    client      theluupe/marketplace
//	  addresses are compared as we normalise them: trimmed, in lower case           assumed
//	GET /users?campaign_id= ignores the filter                                      client      hence never used to look somebody up
//	GET /users/{identifier} takes the code or the number                            documented  reference
//	unsubscribed_at is null while a user is subscribed                              documented  reference, user structure
//	PUT /users/qualification makes rewards due; a repeat may do so again            documented  help centre: the caller sees to it
//	  qualified_at is set once a lead is qualified                                  documented  reference, user structure
//	signed_up_at is when a user was made                                            assumed
//	dates are yyyy-MM-dd                                                            documented  sample of the reference; the zone is
//	                                                                                            assumed to be UTC, see [zoneSlack]
//	DELETE /users/{id} answers 200 with anything or 204                             assumed
//
// # Did it happen?
//
// There is no idempotency key, but the address is one within a campaign. So both verbs are looked up
// by a search for the address in the campaign, and a create that is refused because the address is
// there already is settled in the same way, by whose lead the user is:
//
//	the referrer of the act, made at or after the intent   it is ours: done
//	another referrer, or made before the intent            not ours, and it never will be: refused
//	cannot be told                                         unknown, and in the end for a human
//
// A search that finds nobody is the provider's word that the create did not happen. One that finds the
// lead of somebody else is that too: the create is then tried once more, changes nothing, and the 422
// gives the touchpoint its refusal.
//
// A qualification is read before it is set, one at a time for each person.
//
// # The rate
//
// The provider blocks addresses that go over its limit, so the limit is no matter of taste: a rate
// over 10 a second is refused by [connectors.Open], and a [meter] that all accounts with one token
// share keeps any 60 seconds at 600 requests. The account's own rate cannot promise that alone: 10 a
// second with a burst of one is up to 601 requests in a minute with both its ends, and requests that
// were held up on their way arrive closer together than they were sent. The price is small: 540 requests
// a minute in the long run.
//
// What was used up stands in the data directory before a request goes out, so that a restart or a kill
// begins no new minute. Two data directories with one token cannot know of each other: give each its own
// token, or halve the rate of both.
//
// Answers may take 25 s. An account's timeout is 10 s unless its settings say otherwise, so that such
// a create is looked up after it was given up; `timeout: 30s` spares the detour.
//
// Where an assumption fails, the connector fails to the safe side: an answer of the unsubscribe check
// that it does not understand is an error and nothing is sent; an answer to an act that it does not
// understand is an unknown outcome; a look-up that proves nothing is [connectors.Unclear].
package referralfactory

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
)

// What rules cannot give as texts, numbers and booleans, and what the settings give, is left out here
// or in operations.go.
//
//go:generate go run ../internal/opgen -spec openapi.yaml -package referralfactory -out operations_gen.go -catalogue endpoints_gen.go invite=createUser,-referrer,-meta refer=createUser,-referrer,-meta createUser,-referrer,-meta updateUser,-campaign_id,-email,-meta,-qualified deleteUser qualify=setUserQualification,-id,-code,-campaign_id setUserQualification,-id,-code,-campaign_id

//go:embed openapi.yaml
var specification []byte

// Specification is the provider's API in OpenAPI 3.0.3, as YAML. The caller owns the copy.
func Specification() []byte { return bytes.Clone(specification) }

// Names of the settings that are the connector's own.
const (
	APIKey     = "api_key"     // secret
	CampaignID = "campaign_id" // the number of the campaign in which the account acts
)

const (
	// maxRate is the provider's limit of 600 a minute, as a rate in requests a second.
	maxRate = 10
	// maxConcurrency keeps the wait for the rate short: that many requests, one after the other at the
	// provider's limit, take 7 s, which is less than a request may take.
	maxConcurrency = 60
)

// Kind is the connector, for [connectors.Open].
func Kind() connectors.Kind {
	return connectors.Kind{
		Name:       "referralfactory",
		Summary:    "Referral Factory: add people to a campaign, as referrers or as somebody's leads",
		BaseURL:    "https://api.referral-factory.com/api/v2",
		Secrets:    []string{APIKey},
		Keys:       []string{CampaignID},
		Operations: offered(),
		Endpoints:  endpoints,
		FoundBy: map[string][]string{
			lodestone.VerbRefer: {referrerField, referrerValue},
			opCreate:            {referrerField, referrerValue},
		},
		Check:   true,
		Open:    open,
		Timeout: 30 * time.Second, // single calls were seen to take 25 s (client)
	}
}

type connector struct {
	t        *connectors.Transport
	name     string
	server   string
	key      connectors.Secret
	campaign int64
	timeout  time.Duration
	shared   *token
}

func open(s connectors.Settings, t *connectors.Transport) (connectors.Connector, error) {
	var faults []error
	campaign, err := strconv.ParseInt(s.Extra[CampaignID], 10, 64)
	switch {
	case s.Extra[CampaignID] == "":
		faults = append(faults, errors.New("campaign_id: is missing; give the number of the campaign in which this account acts"))
	case err != nil || campaign < 1:
		faults = append(faults, errors.New("campaign_id: is not the number of a campaign, such as 1042"))
	}
	if s.Rate > maxRate {
		faults = append(faults, fmt.Errorf("rate: must be at most %d/s: the provider blocks addresses that send more than %d requests a minute", maxRate, perMinute))
	}
	if s.Concurrency > maxConcurrency {
		faults = append(faults, fmt.Errorf("concurrency: must be at most %d: more requests at a time would only wait for the rate of %d/s", maxConcurrency, maxRate))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return &connector{
		t: t, name: s.Name, server: t.BaseURL() + "/", key: s.Secrets[APIKey], campaign: campaign, timeout: s.Timeout,
		shared: tokenOf(s.Secrets[APIKey], t.BaseURL(), t.State()),
	}, nil
}

// Capabilities implements [connectors.Connector]. Everything that can be done leaves a state behind
// that the search shows.
func (*connector) Capabilities() connectors.Capabilities {
	c := connectors.Capabilities{
		Verbs:   []string{lodestone.VerbInvite, lodestone.VerbRefer},
		Check:   true,
		Lookups: map[string]connectors.Lookup{},
	}
	for name := range handlers {
		c.Lookups[name] = connectors.Lookup{FoundIsProof: true, AbsentIsProof: true}
	}
	return c
}

// Given implements [connectors.Cataloguer].
func (c *connector) Given() map[string]any { return map[string]any{CampaignID: c.campaign} }

// Sign implements [connectors.Cataloguer].
func (c *connector) Sign(req *http.Request) { c.authorize(req) }

// Room implements [connectors.Metered]. Calls from the catalogue, a long walk over pages above all, wait
// while half of the token's minute is used up: the rest is for acts and checks.
func (c *connector) Room(ctx context.Context) { c.shared.meter.room(ctx, catalogueShare) }

// Reserve implements [connectors.Metered].
func (c *connector) Reserve(ctx context.Context) (context.Context, func(), error) {
	return c.shared.meter.reserve(ctx, c.timeout)
}

// Metered implements [connectors.Metered].
func (c *connector) Metered(ctx context.Context, act bool) (context.Context, func()) {
	return c.shared.meter.metered(ctx, c.timeout, act)
}

func (c *connector) authorize(req *http.Request) {
	req.Header.Set("Authorization", "Bearer "+c.key.Reveal())
	req.Header.Set("Accept", "application/json")
}

// sign adds the credentials to a request from a generated builder.
func (c *connector) sign(req *http.Request, err error) (*http.Request, error) {
	if err != nil {
		return nil, err
	}
	c.authorize(req)
	return req, nil
}

// act sends a request that changes something, within the token's limit.
func (c *connector) act(ctx context.Context, call connectors.Call) (connectors.Answer, error) {
	ctx, end := c.shared.meter.metered(ctx, c.timeout, true)
	defer end()
	return c.t.Act(ctx, call)
}

// read sends a request that only asks, within the token's limit.
func (c *connector) read(ctx context.Context, call connectors.Call) (connectors.Answer, error) {
	ctx, end := c.shared.meter.metered(ctx, c.timeout, false)
	defer end()
	return c.t.Read(ctx, call)
}
