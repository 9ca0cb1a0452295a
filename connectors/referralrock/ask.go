package referralrock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/lenient"
	"github.com/lodestonehq/lodestone/connectors/referralrock/api"
)

// Unsubscribed implements [connectors.Connector].
func (c *connector) Unsubscribed(ctx context.Context, email lodestone.Email) (connectors.Subscription, error) {
	req, err := c.checkRequest(email)
	if err != nil {
		return connectors.Subscription{}, err
	}
	s := connectors.Subscription{Kind: connectors.SuppressionProvider}
	_, err = c.t.Read(ctx, connectors.Call{
		Operation: opCheck, Request: req,
		Decode: func(a connectors.Answer) (err error) {
			s.Unsubscribed, s.Evidence, err = unsubscribed(a.Body, email)
			return err
		},
	})
	return s, err
}

// checkRequest is what [api.NewGetEmailUnsubscribedRequest] makes for an address, with the credentials.
func (c *connector) checkRequest(email lodestone.Email) (*http.Request, error) {
	like, err := c.checking()
	if err != nil {
		return nil, err
	}
	req, to := *like, *like.URL
	to.RawQuery = "email=" + url.QueryEscape(string(email))
	req.URL = &to
	return &req, nil
}

// unsubscribed reads the answer of the check: an array of addresses, a boolean, or an object with a
// flag. Everything else is an error, since not to understand is not to know. That includes an array
// with other addresses alone: we asked for one, so it would be a page of some list, and the address
// may stand on the next.
func unsubscribed(body []byte, email lodestone.Email) (yes bool, evidence string, err error) {
	var v any
	if json.Unmarshal(body, &v) != nil {
		return false, "", errors.New("it is not JSON")
	}
	same := func(v any) bool {
		s, ok := v.(string)
		return ok && strings.EqualFold(strings.TrimSpace(s), string(email))
	}
	switch v := v.(type) {
	case bool:
		return v, fmt.Sprintf("the provider answered %t", v), nil
	case []any:
		for _, e := range v {
			if same(e) {
				return true, "the address is in the provider's list of unsubscribed", nil
			}
		}
		if len(v) > 0 {
			return false, "", errors.New("it is a list that does not hold the address it was asked for")
		}
		return false, "the provider's list of unsubscribed does not hold the address", nil
	case map[string]any:
		found := false
		for k, e := range v {
			switch {
			case strings.EqualFold(k, "unsubscribed"):
				flag, ok := e.(bool)
				if !ok {
					return false, "", errors.New("its flag is no boolean")
				}
				found, yes = true, yes || flag
			case strings.EqualFold(k, "email") && e != nil && !same(e):
				return false, "", errors.New("it is about another address")
			}
		}
		if found {
			return yes, fmt.Sprintf("the provider's flag is %t", yes), nil
		}
	}
	return false, "", errors.New("it is neither a list of addresses nor a flag")
}

// Probe implements [connectors.Connector] by the unsubscribe check, or by the list of programs where
// the check is not in use.
func (c *connector) Probe(ctx context.Context) error {
	if c.check {
		_, err := c.Unsubscribed(ctx, probeEmail)
		return err
	}
	one := 1
	req, err := c.sign(api.NewListProgramsRequest(c.server, &api.ListProgramsParams{Count: &one}))
	if err != nil {
		return err
	}
	var page struct{}
	_, err = c.t.Read(ctx, connectors.Call{
		Operation: opPrograms, Request: req,
		Decode: func(a connectors.Answer) error { return lenient.Object(a.Body, &page) },
	})
	return err
}

// Find implements [connectors.Connector].
func (c *connector) Find(ctx context.Context, act connectors.Act) (connectors.Finding, error) {
	switch act.Operation {
	case lodestone.VerbInvite:
		return c.findMember(ctx, act)
	case lodestone.VerbRefer:
		return c.findReferral(ctx, act)
	}
	return connectors.Finding{State: connectors.Unsupported, Evidence: "the provider has no look-up for " + act.Operation}, nil
}

func unclear(format string, args ...any) (connectors.Finding, error) {
	return connectors.Finding{State: connectors.Unclear, Evidence: fmt.Sprintf(format, args...)}, nil
}

// clockSkew is how much earlier than the intent a creation time may be and still belong to it. The
// provider gives whole seconds, cut off, by its own clock; servers keep time within seconds of each
// other, and a minute covers a clock that is badly kept. More would take what others did before for
// our doing.
const clockSkew = time.Minute

// findMember looks for the member that an invite becomes: the lead's exact address, created at or
// after the intent. A member who was there before proves nothing, and neither does finding none: the
// feed may still be waiting to be worked through.
func (c *connector) findMember(ctx context.Context, act connectors.Act) (connectors.Finding, error) {
	email, _ := act.Parameters["email"].(string)
	if email == "" {
		email = string(act.Email)
	}
	// Disabled members too, newest first. One page will do: a person has one member in each program.
	all, page, newest := true, 100, api.ListMembersParamsSort("Create_Dt_Desc")
	req, err := c.sign(api.NewListMembersRequest(c.server, &api.ListMembersParams{
		Query: &email, ShowDisabled: &all, Sort: &newest, Count: &page,
	}))
	if err != nil {
		return connectors.Finding{}, err
	}
	var list struct {
		Members *[]struct {
			ID       ident
			Email    words
			CreateDt words
			Status   words
		}
	}
	_, err = c.t.Read(ctx, connectors.Call{
		Operation: opListMembers, Request: req,
		Decode: func(a connectors.Answer) error {
			list.Members = nil
			if err := lenient.Object(a.Body, &list); err != nil {
				return err
			}
			if list.Members == nil {
				return errors.New("it holds no members")
			}
			return nil
		},
	})
	if err != nil {
		return connectors.Finding{}, err
	}
	before, undated := 0, 0
	for _, m := range *list.Members {
		if !strings.EqualFold(strings.TrimSpace(string(m.Email)), email) {
			continue
		}
		at, ok := parseTime(string(m.CreateDt))
		switch {
		case !ok:
			undated++
		case at.Before(act.IntendedAt.Add(-clockSkew)):
			before++
		default:
			return connectors.Finding{
				State: connectors.Found, Reference: string(m.ID),
				Evidence: fmt.Sprintf("a member of that address was created at %s, status %s", at.Format(time.RFC3339), orNone(string(m.Status))),
			}, nil
		}
	}
	switch {
	case undated > 0:
		return unclear("there is a member of that address, and when it was created cannot be read")
	case before > 0:
		return unclear("the member of that address was there before the invite")
	}
	return unclear("there is no member of that address, which does not prove that the invite was not taken")
}

// findReferral looks the referral up by its external identifier. Ours is unique for ever, so whoever
// carries it is the one. One that the rule gave may have been used before: then the address and the
// time must fit as well.
func (c *connector) findReferral(ctx context.Context, act connectors.Act) (connectors.Finding, error) {
	id, given := externalID(act)
	req, err := c.sign(api.NewGetReferralRequest(c.server, &api.GetReferralParams{ExternalId: &id}))
	if err != nil {
		return connectors.Finding{}, err
	}
	var referral struct {
		ID                 ident
		ExternalIdentifier ident
		Email              words
		CreateDate         words
		Status             words
	}
	answer, err := c.t.Read(ctx, connectors.Call{
		Operation: opGetReferral, Request: req,
		Decode: func(a connectors.Answer) error {
			referral.ID, referral.ExternalIdentifier = "", ""
			return lenient.Object(a.Body, &referral)
		},
	})
	switch {
	case answer.Status == http.StatusNotFound && notFound(answer.Body):
		return connectors.Finding{State: connectors.Absent, Evidence: "the provider knows no referral with that external identifier"}, nil
	case answer.Status == http.StatusNotFound:
		return unclear("the provider answered 404, though not in the words it uses for a referral that is not there")
	case err != nil && answer.Status >= 200 && answer.Status < 300:
		return unclear("the provider's answer cannot be read")
	case err != nil:
		return connectors.Finding{}, err
	case string(referral.ExternalIdentifier) != id || referral.ID == "":
		return unclear("the provider answered with another referral than the one asked for")
	}
	found := connectors.Finding{
		State: connectors.Found, Reference: string(referral.ID),
		Evidence: "a referral with that external identifier exists, status " + orNone(string(referral.Status)),
	}
	if !given {
		return found, nil
	}
	at, ok := parseTime(string(referral.CreateDate))
	email, _ := act.Parameters["email"].(string)
	if email == "" {
		email = string(act.Email)
	}
	if !ok || at.Before(act.IntendedAt.Add(-clockSkew)) || !strings.EqualFold(string(referral.Email), email) {
		return unclear("a referral with the rule's external identifier exists, from before or of another person")
	}
	return found, nil
}

// notFound says whether a 404's body is the provider's word that there is no such referral. The web
// framework behind the API has the same shape for a path that does not exist, which is no word about
// any referral.
func notFound(body []byte) bool {
	var e struct{ Message words }
	return lenient.Object(body, &e) == nil && e.Message != "" &&
		!strings.Contains(strings.ToLower(string(e.Message)), "no http resource")
}

func orNone(status string) string {
	if status == "" {
		return "not given"
	}
	return status
}

// layouts are the ways in which creation times were seen, and close relatives. Fractions of a second
// are understood in all of them.
var layouts = []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "01/02/2006 15:04:05"}

// parseTime reads a creation time. One without a zone is taken as UTC. Should the provider's clock be
// behind UTC, a member made by our invite looks too old and the touchpoint is held for a human; should
// it be ahead, a member made within that difference before the intent is taken for ours, and a lead
// who is a member anyway is not invited again.
func parseTime(s string) (time.Time, bool) {
	for _, layout := range layouts {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), true
		}
	}
	return time.Time{}, false
}
