// Package referralrock speaks to Referral Rock.
//
// What it relies on, and how sure each point is. "Documented" is on a page of the provider,
// "client" was seen in code that somebody else wrote against it, "assumed" is nobody's word but ours;
// nothing was tried against a live account. openapi.yaml says the same for every operation.
//
//	HTTP Basic, public key as user, private key as password                  documented  api.referralrock.com
//	plain http is answered with 404                                          documented  api.referralrock.com
//	a rate limit exists (no figure); its status is 429                       documented; 429 assumed
//	an error's words stand under Message or message                          documented for lists; else assumed
//	POST /api/referrals takes one object, only referralCode is required      documented  Help/ResourceModel NewReferral
//	  it answers any 2xx with {message, referral}; "Referral Added" is done  client      alexssandro/ReferralRockIntegration
//	  a 2xx with a message and no referral is a refusal                      assumed
//	  externalIdentifier comes back on reads and finds the referral          documented  Help/ResourceModel NewReferral
//	  a second one with the same externalIdentifier is refused               not relied on
//	GET /api/referral/single?externalId= finds one referral                  documented  Help page
//	  without a match it is not 2xx                                          client      alexssandro/ReferralRockIntegration
//	  that status is 404 with the error shape                                assumed
//	POST /api/invitefeed takes one contact: firstName, email, lastName,
//	  contactType                                                            client      metorial/integrations
//	  a 2xx with a JSON object means it was taken, also when it was skipped  assumed
//	  a member who was invited is not invited again                          documented  support article 12866390
//	GET /api/members?query= matches addresses                                documented  Help page
//	  an invited contact becomes a member; createDt says when                assumed
//	  createDt without a zone is UTC                                         assumed
//	GET /api/email/getunsubscribed?email= is for the whole account           documented  api.referralrock.com/Help
//	  it answers an array of addresses                                       client      metorial/integrations (unchecked)
//	  or a boolean, or an object with the flag unsubscribed                  assumed
//
// Where an assumption fails, the connector fails to the safe side: an answer of the unsubscribe check
// that it does not understand is an error and nothing is sent; an answer to an act that it does not
// understand is an unknown outcome; a look-up that proves nothing is [connectors.Unclear].
package referralrock

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/lenient"
	"github.com/lodestonehq/lodestone/connectors/referralrock/api"
)

// status is left out of refer: setting it to qualified or approved can pay out rewards.
//
//go:generate go run ../internal/opgen -spec openapi.yaml -package referralrock -out operations_gen.go -catalogue endpoints_gen.go invite=createInviteFeedEntry refer=createReferral,-status

//go:embed openapi.yaml
var specification []byte

// Specification is the provider's API in OpenAPI 3.0.3, as YAML. The caller owns the copy.
func Specification() []byte { return bytes.Clone(specification) }

// Names of the secret settings.
const (
	PublicKey  = "public_key"
	PrivateKey = "private_key"
)

// The provider's operations that are called beside the verbs, as metrics and errors name them.
const (
	opCheck = "getEmailUnsubscribed"

	opCreateReferral = "createReferral"
	opGetReferral    = "getReferral"
	opListMembers    = "listMembers"
	opPrograms       = "listPrograms"
)

// probeEmail is the address that probes ask about. The domain can never receive mail (RFC 2606).
const probeEmail lodestone.Email = "probe@lodestone.invalid"

// Kind is the connector, for [connectors.Open].
func Kind() connectors.Kind {
	return connectors.Kind{
		Name:       "referralrock",
		Summary:    "Referral Rock: invite contacts as members, register referrals",
		BaseURL:    "https://api.referralrock.com",
		Secrets:    []string{PublicKey, PrivateKey},
		Operations: slices.Clone(operations),
		Endpoints:  endpoints,
		FoundBy:    map[string][]string{lodestone.VerbRefer: {"externalIdentifier"}},
		Check:      true,
		Open:       open,
	}
}

type connector struct {
	t        *connectors.Transport
	server   string
	user     connectors.Secret
	password connectors.Secret
	check    bool // whether the unsubscribe check is in use

	// The requests of which there is one for each touchpoint, as the generated builders make them: all but the
	// query of the one and the body of the other.
	checking, inviting func() (*http.Request, error)
}

func open(s connectors.Settings, t *connectors.Transport) (connectors.Connector, error) {
	c := &connector{
		t: t, server: t.BaseURL() + "/",
		user: s.Secrets[PublicKey], password: s.Secrets[PrivateKey],
		check: s.Suppression == connectors.SuppressionProvider,
	}
	// Their headers are shared, and complete.
	ready := func(req *http.Request, err error) (*http.Request, error) {
		if req, err = c.sign(req, err); err == nil {
			req.Header.Set("User-Agent", connectors.UserAgent)
		}
		return req, err
	}
	c.checking = sync.OnceValues(func() (*http.Request, error) { return ready(api.NewGetEmailUnsubscribedRequest(c.server, nil)) })
	c.inviting = sync.OnceValues(func() (*http.Request, error) {
		return ready(api.NewCreateInviteFeedEntryRequest(c.server, api.InviteFeedEntry{}))
	})
	return c, nil
}

// Capabilities implements [connectors.Connector]. The invite feed has no reading operation: a member
// is a trace of an invite, and that there is none proves nothing.
func (*connector) Capabilities() connectors.Capabilities {
	return connectors.Capabilities{
		Verbs: []string{lodestone.VerbInvite, lodestone.VerbRefer},
		Check: true,
		Lookups: map[string]connectors.Lookup{
			lodestone.VerbInvite: {FoundIsProof: true},
			lodestone.VerbRefer:  {FoundIsProof: true, AbsentIsProof: true},
		},
	}
}

// Do implements [connectors.Connector].
func (c *connector) Do(ctx context.Context, act connectors.Act) (connectors.Receipt, error) {
	body, fault := c.body(act)
	if fault != nil {
		return connectors.Receipt{}, fault
	}
	if act.Operation == lodestone.VerbInvite {
		return c.invite(ctx, body)
	}
	return c.refer(ctx, act, body)
}

// body collects what an act sends, as JSON: its parameters, checked against the operation's, and the
// lead's address unless the rule gives another.
func (c *connector) body(act connectors.Act) (map[string]any, *connectors.Fault) {
	i := slices.IndexFunc(operations, func(op lodestone.Operation) bool { return op.Name == act.Operation })
	if i < 0 {
		return nil, c.t.Reject(act.Operation, "referralrock has no such operation")
	}
	op, body := operations[i], make(map[string]any, len(act.Parameters)+1)
	for name, value := range act.Parameters {
		p, ok := op.Parameter(name)
		if !ok {
			return nil, c.t.Reject(op.Name, fmt.Sprintf("it has no parameter %q", name))
		}
		if value == nil {
			continue
		}
		value, ok = convert(p.Type, value)
		if !ok {
			return nil, c.t.Reject(op.Name, fmt.Sprintf("%s must be %s", name, p.Type))
		}
		body[name] = value
	}
	if _, given := body["email"]; !given {
		body["email"] = string(act.Email)
	}
	for _, p := range op.Parameters {
		if v, given := body[p.Name]; p.Required && (!given || v == "") {
			return nil, c.t.Reject(op.Name, p.Name+" is required and has no value")
		}
	}
	return body, nil
}

// convert fits a parameter's value to its type. A number or a boolean where a text is wanted is
// written out: fields of forms are typed, and a customer number is a text here.
func convert(t lodestone.FieldType, v any) (any, bool) {
	switch v := v.(type) {
	case string:
		return v, t == lodestone.FieldText || t == lodestone.FieldEmail
	case float64:
		if t == lodestone.FieldText {
			return strconv.FormatFloat(v, 'f', -1, 64), true
		}
		return v, t == lodestone.FieldNumber
	case bool:
		if t == lodestone.FieldText {
			return strconv.FormatBool(v), true
		}
		return v, t == lodestone.FieldBoolean
	}
	return nil, false
}

// sign adds the credentials to a request from a generated builder.
func (c *connector) sign(req *http.Request, err error) (*http.Request, error) {
	if err != nil {
		return nil, err
	}
	c.Sign(req)
	req.Header.Set("Accept", "application/json")
	return req, nil
}

// Sign implements [connectors.Cataloguer].
func (c *connector) Sign(req *http.Request) {
	req.SetBasicAuth(c.user.Reveal(), c.password.Reveal())
}

// Judge implements [connectors.Judge]. A referral that was not made answers with a message alone; what
// acts on elements by a query answers for each what became of it, and where it failed for all of them
// nothing was done. A part that failed is told by the answer itself.
func (*connector) Judge(e *connectors.Endpoint, a connectors.Answer) error {
	if e.Name == opCreateReferral {
		return new(confirmation).read(a.Body)
	}
	var results []struct{ ResultInfo resultInfo }
	if json.Unmarshal(a.Body, &results) != nil {
		var one struct{ ResultInfo resultInfo }
		if json.Unmarshal(a.Body, &one) != nil {
			return nil
		}
		results = append(results, one)
	}
	var said []string
	for _, r := range results {
		if !strings.EqualFold(string(r.ResultInfo.Status), "failed") {
			return nil
		}
		said = append(said, string(r.ResultInfo.Message))
	}
	if len(said) == 0 {
		return nil
	}
	return connectors.Refusal(strings.Join(slices.Compact(said), "; "))
}

// resultInfo says what became of one element; its keys come in either case.
type resultInfo struct{ Status, Message words }

// Given implements [connectors.Cataloguer]: the keys say whose account it is, and nothing else is
// needed.
func (*connector) Given() map[string]any { return nil }

func (c *connector) invite(ctx context.Context, body map[string]any) (connectors.Receipt, error) {
	req, err := c.inviteRequest(body)
	if err != nil {
		return connectors.Receipt{}, c.t.Reject(lodestone.VerbInvite, err.Error())
	}
	var result struct {
		ID      ident
		Outcome words
		Message words
	}
	answer, err := c.t.Act(ctx, connectors.Call{
		Operation: lodestone.VerbInvite, Request: req,
		Decode: func(a connectors.Answer) error { return lenient.Object(a.Body, &result) },
	})
	if err != nil {
		return connectors.Receipt{}, err
	}
	return connectors.Receipt{
		Skipped:   strings.EqualFold(string(result.Outcome), "skipped"),
		Reference: string(result.ID), Status: answer.Status,
		Detail: c.t.Masked(join(string(result.Outcome), string(result.Message))),
	}, nil
}

// inviteRequest is what [api.NewCreateInviteFeedEntryRequest] makes of a body, with the credentials.
func (c *connector) inviteRequest(body map[string]any) (*http.Request, error) {
	entry, err := inviteEntry(body)
	if err != nil {
		return nil, err
	}
	like, err := c.inviting()
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(entry)
	if err != nil {
		return nil, err
	}
	req := *like
	req.Body, req.ContentLength, req.GetBody = io.NopCloser(bytes.NewReader(b)), int64(len(b)), nil
	return &req, nil
}

// inviteEntry is [lenient.Into], for texts without the way through JSON.
func inviteEntry(body map[string]any) (entry api.InviteFeedEntry, err error) {
	for name, v := range body {
		text, ok := v.(string)
		ok = ok && utf8.ValidString(text)
		switch {
		case ok && name == "contactType":
			entry.ContactType = &text
		case ok && name == "email":
			entry.Email = text
		case ok && name == "firstName":
			entry.FirstName = text
		case ok && name == "lastName":
			entry.LastName = &text
		default:
			return lenient.Into[api.InviteFeedEntry](body)
		}
	}
	return entry, nil
}

// externalID is the key under which a referral is made and found again.
func externalID(act connectors.Act) (id string, given bool) {
	if v, ok := act.Parameters["externalIdentifier"]; ok && v != nil {
		if s, ok := convert(lodestone.FieldText, v); ok && s != "" {
			return s.(string), true
		}
	}
	return act.ID, false
}

func (c *connector) refer(ctx context.Context, act connectors.Act, body map[string]any) (connectors.Receipt, error) {
	body["externalIdentifier"], _ = externalID(act)
	referral, err := lenient.Into[api.NewReferral](body)
	if err != nil {
		return connectors.Receipt{}, c.t.Reject(lodestone.VerbRefer, err.Error())
	}
	req, err := c.sign(api.NewCreateReferralRequest(c.server, referral))
	if err != nil {
		return connectors.Receipt{}, c.t.Reject(lodestone.VerbRefer, err.Error())
	}
	var made confirmation
	answer, err := c.t.Act(ctx, connectors.Call{
		Operation: lodestone.VerbRefer, Request: req,
		Decode: func(a connectors.Answer) error {
			made = confirmation{}
			return made.read(a.Body)
		},
	})
	if err != nil {
		return connectors.Receipt{}, err
	}
	return connectors.Receipt{
		Reference: string(made.Referral.ID), Status: answer.Status, Detail: c.t.Masked(string(made.Message)),
	}, nil
}

// confirmation is what is needed of the answer to a new referral. It is not the generated type on
// purpose: one odd value in a field that nobody looks at must not turn a referral that was made into
// an unknown outcome.
type confirmation struct {
	Message  words
	Referral *struct{ ID ident }
}

func (m *confirmation) read(body []byte) error {
	if err := lenient.Object(body, m); err != nil {
		return err
	}
	switch {
	case m.Referral != nil && m.Referral.ID != "":
		return nil
	case m.Referral == nil && m.Message != "":
		return connectors.Refusal(string(m.Message))
	case m.Referral == nil:
		return errors.New("it holds neither a referral nor a message")
	}
	return errors.New("its referral has no id")
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + ": " + b
}

// What an answer holds, read as package lenient says.
type (
	words = lenient.Text
	ident = lenient.ID
)
