package referralrock

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/lenient"
	"github.com/lodestonehq/lodestone/connectors/referralrock/api"
)

// guid is what ids of the provider look like.
var guid = regexp.MustCompile(`^(?i)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// Whose implements [connectors.Knower] for the kinds that x-whose of the specification names. Rewards
// cannot be asked for by their id, and phone numbers not at all.
func (c *connector) Whose(ctx context.Context, kind, id string, _ map[string]any) ([]lodestone.Email, error) {
	switch kind {
	case "member id", "member code", "member external id":
		return c.whoseMember(ctx, kind, id)
	case "referral id":
		return c.whoseReferral(ctx, api.GetReferralParams{ReferralId: &id})
	case "referral external id":
		return c.whoseReferral(ctx, api.GetReferralParams{ExternalId: &id})
	case "referral": // by either
		if guid.MatchString(id) {
			if found, err := c.whoseReferral(ctx, api.GetReferralParams{ReferralId: &id}); err != nil || len(found) > 0 {
				return found, err
			}
		}
		return c.whoseReferral(ctx, api.GetReferralParams{ExternalId: &id})
	}
	return nil, connectors.ErrUntold
}

// whoseMember asks the list of members, which matches ids, codes and external ids alike. The same id in
// two programs is two members.
func (c *connector) whoseMember(ctx context.Context, kind, id string) ([]lodestone.Email, error) {
	disabled, count := true, api.Count(memberPage)
	req, err := c.sign(api.NewListMembersRequest(c.server, &api.ListMembersParams{Query: &id, ShowDisabled: &disabled, Count: &count}))
	if err != nil {
		return nil, err
	}
	var list struct {
		Total   int
		Members *[]struct {
			ID                 ident
			ReferralCode       ident
			ExternalIdentifier ident
			Email              words
		}
	}
	if _, err := c.t.Read(ctx, connectors.Call{Operation: opListMembers, Request: req, Decode: func(a connectors.Answer) error {
		list.Members = nil
		if err := lenient.Object(a.Body, &list); err != nil {
			return err
		}
		if list.Members == nil {
			return errors.New("it holds no members")
		}
		return nil
	}}); err != nil {
		return nil, err
	}
	if list.Total > len(*list.Members) {
		return nil, connectors.ErrUntold // more than a page that answer to one id: it is no id
	}
	var found []lodestone.Email
	for _, m := range *list.Members {
		is := map[string]ident{"member id": m.ID, "member code": m.ReferralCode, "member external id": m.ExternalIdentifier}[kind]
		if !strings.EqualFold(string(is), id) {
			continue
		}
		email, err := lodestone.ParseEmail(string(m.Email))
		if err != nil {
			return nil, connectors.ErrUntold
		}
		found = append(found, email)
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

// memberPage is how many members one id may stand for, one in each program.
const memberPage = 100

func (c *connector) whoseReferral(ctx context.Context, by api.GetReferralParams) ([]lodestone.Email, error) {
	req, err := c.sign(api.NewGetReferralRequest(c.server, &by))
	if err != nil {
		return nil, err
	}
	var referral struct{ Email words }
	answer, err := c.t.Read(ctx, connectors.Call{Operation: opGetReferral, Request: req, Decode: func(a connectors.Answer) error {
		referral.Email = ""
		return lenient.Object(a.Body, &referral)
	}})
	switch {
	case answer.Status == http.StatusNotFound && notFound(answer.Body):
		return nil, nil
	case answer.Status == http.StatusNotFound:
		return nil, connectors.ErrUntold
	case err != nil:
		return nil, err
	}
	email, err := lodestone.ParseEmail(string(referral.Email))
	if err != nil {
		return nil, connectors.ErrUntold
	}
	return []lodestone.Email{email}, nil
}
