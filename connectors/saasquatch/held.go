package saasquatch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/lenient"
	"github.com/lodestonehq/lodestone/connectors/saasquatch/api"
)

const (
	heldPage  = 100
	heldPages = 20 // the query matches names and parts of addresses as well, so it may find others
)

// Held implements [connectors.Holder]: the users who have that exact address, or whose id it is. Deleting a
// user without `doNotTrack` leaves nothing there that names them; with it the provider keeps their id. A
// referral cannot be deleted by itself.
func (c *connector) Held(ctx context.Context, email lodestone.Email, _ []string) (held connectors.Held, err error) {
	query, size := string(email), heldPage
	seen := 0
	for n := 0; ; n++ {
		if n == heldPages {
			held.Gap = "its list of users was not seen to the end"
			break
		}
		req, err := c.signed(api.NewListUsersRequest(c.server, c.tenant, &api.ListUsersParams{Query: &query, Limit: &size, Offset: &seen}))
		if err != nil {
			return held, err
		}
		var list struct {
			TotalCount *int
			Users      *[]struct {
				ID        ident
				AccountID ident
				Email     words
			}
		}
		if _, err := c.t.Read(ctx, connectors.Call{Operation: "listUsers", Request: req, Decode: func(a connectors.Answer) error {
			list.TotalCount, list.Users = nil, nil
			if err := lenient.Object(a.Body, &list); err != nil {
				return err
			}
			if list.Users == nil || list.TotalCount == nil {
				return errors.New("it is no list of users")
			}
			return nil
		}}); err != nil {
			return held, err
		}
		for _, u := range *list.Users {
			if !strings.EqualFold(strings.TrimSpace(string(u.Email)), query) && !sameID(string(u.ID), query) {
				continue
			}
			if u.ID == "" || u.AccountID == "" {
				held.Gap = "a user of that address has no id"
				continue
			}
			account, user := string(u.AccountID), string(u.ID)
			if !slices.ContainsFunc(held.Records, func(r connectors.Record) bool {
				return r.Arguments["accountId"] == account && r.Arguments["userId"] == user
			}) {
				held.Records = append(held.Records, connectors.Record{
					What: "user", Operation: "openDeleteUser", Arguments: map[string]any{"accountId": account, "userId": user},
				})
			}
		}
		seen += len(*list.Users)
		if len(*list.Users) == 0 || seen >= *list.TotalCount {
			if seen < *list.TotalCount {
				held.Gap = "its list of users ends before it says that it does"
			}
			break
		}
	}
	if len(held.Records) > 0 || held.Gap != "" {
		return held, nil
	}
	left, err := c.listReferrals(ctx, query, query, 1)
	if err != nil {
		return held, err
	}
	if left.TotalCount > 0 {
		held.Kept = append(held.Kept, fmt.Sprintf("%d referrals, which no operation deletes", left.TotalCount))
	}
	return held, nil
}
