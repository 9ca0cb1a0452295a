package referralrock

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/lenient"
	"github.com/lodestonehq/lodestone/connectors/referralrock/api"
)

const (
	heldPage  = 100
	heldPages = 20 // of one list: the query matches codes and ids as well as addresses, so it may find others
)

// Held implements [connectors.Holder]: the members and the referrals of that exact address. Rewards and
// payouts are the provider's books and stay, and so does the list of who unsubscribed.
func (c *connector) Held(ctx context.Context, email lodestone.Email, ids []string) (held connectors.Held, err error) {
	query := string(email)
	disabled, size := true, heldPage
	members, gap, err := c.ofAddress(ctx, opListMembers, "members", email, func(offset int) (*http.Request, error) {
		return api.NewListMembersRequest(c.server, &api.ListMembersParams{Query: &query, ShowDisabled: &disabled, Offset: &offset, Count: &size})
	})
	if err != nil {
		return held, err
	}
	held.Gap = gap
	referrals, gap, err := c.ofAddress(ctx, "listReferrals", "referrals", email, func(offset int) (*http.Request, error) {
		return api.NewListReferralsRequest(c.server, &api.ListReferralsParams{Query: &query, Offset: &offset, Count: &size})
	})
	if err != nil {
		return held, err
	}
	if held.Gap == "" {
		held.Gap = gap
	}
	for _, id := range ids { // a list may be behind what was made a moment ago
		if !guid.MatchString(id) || slices.Contains(members, id) || slices.Contains(referrals, id) {
			continue
		}
		whose, err := c.whoseReferral(ctx, api.GetReferralParams{ReferralId: &id})
		switch {
		case errors.Is(err, connectors.ErrUntold):
			continue
		case err != nil:
			return held, err
		case slices.Contains(whose, email):
			referrals = append(referrals, id)
		}
	}
	remove := func(what, operation, key, id string) {
		held.Records = append(held.Records, connectors.Record{What: what, Operation: operation, Arguments: map[string]any{
			"items": []any{map[string]any{"query": map[string]any{"primaryInfo": map[string]any{key: id}}}},
		}})
	}
	for _, id := range referrals {
		remove("referral", "removeReferrals", "referralId", id)
	}
	for _, id := range members {
		remove("member", "removeMembers", "memberId", id)
	}
	held.Kept = []string{
		"a contact of the invite feed, which no operation shows or deletes, is kept for up to 60 days by the provider's own word",
	}
	return held, nil
}

// ofAddress walks a list and returns the ids of the elements that have exactly that address.
func (c *connector) ofAddress(ctx context.Context, operation, name string, email lodestone.Email, request func(offset int) (*http.Request, error)) (ids []string, gap string, err error) {
	type element struct {
		ID    ident
		Email words
	}
	for offset, n := 0, 0; ; n++ {
		if n == heldPages {
			return ids, "its list of " + name + " was not seen to the end", nil
		}
		req, err := c.sign(request(offset))
		if err != nil {
			return nil, "", err
		}
		var elements []element
		var total int
		if _, err := c.t.Read(ctx, connectors.Call{Operation: operation, Request: req, Decode: func(a connectors.Answer) error {
			var page map[string]json.RawMessage
			if err := lenient.Object(a.Body, &page); err != nil {
				return err
			}
			elements, total = nil, -1
			for key, raw := range page {
				switch strings.ToLower(key) {
				case name:
					if json.Unmarshal(raw, &elements) != nil || elements == nil {
						return errors.New("its " + name + " are no list")
					}
				case "total":
					if json.Unmarshal(raw, &total) != nil {
						total = -1
					}
				}
			}
			if elements == nil {
				return errors.New("it holds no " + name)
			}
			return nil
		}}); err != nil {
			return nil, "", err
		}
		for _, e := range elements {
			if !strings.EqualFold(strings.TrimSpace(string(e.Email)), string(email)) {
				continue
			}
			if e.ID == "" {
				return ids, "one of its " + name + " of that address has no id", nil
			}
			if !slices.Contains(ids, string(e.ID)) {
				ids = append(ids, string(e.ID))
			}
		}
		offset += len(elements)
		if len(elements) == 0 || total >= 0 && offset >= total {
			if offset < total {
				gap = "its list of " + name + " ends before it says that it does"
			}
			return ids, gap, nil
		}
	}
}
