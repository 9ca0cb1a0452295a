package saasquatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/lenient"
	"github.com/lodestonehq/lodestone/connectors/saasquatch/api"
)

// probeUser is whom probes ask about. The domain can never receive mail (RFC 2606).
const probeUser = "probe@lodestone.invalid"

// Unsubscribed implements [connectors.Connector]. The provider has nothing to answer with, and an
// account is opened only with `suppression: local-only`, so nobody comes here; whoever does must not
// take it for a no.
func (c *connector) Unsubscribed(context.Context, lodestone.Email) (connectors.Subscription, error) {
	return connectors.Subscription{}, errors.New("saasquatch cannot be asked whether an address unsubscribed")
}

// Probe implements [connectors.Connector]. It asks at an open endpoint, like the acts and the look-ups:
// one that is not open would answer while those are still switched off.
func (c *connector) Probe(ctx context.Context) error {
	_, err := c.listReferrals(ctx, probeUser, probeUser, 1)
	return err
}

// Find implements [connectors.Connector].
func (c *connector) Find(ctx context.Context, act connectors.Act) (connectors.Finding, error) {
	switch act.Operation {
	case lodestone.VerbRefer, opApply:
		return c.findReferred(ctx, act)
	case opTrack:
		return connectors.Finding{State: connectors.Unsupported, Evidence: "the provider shows no tracked events; within a day a repeat is harmless, because it carries the same idempotency key"}, nil
	}
	return connectors.Finding{State: connectors.Unsupported, Evidence: "the provider has no look-up for " + act.Operation}, nil
}

func unclear(format string, args ...any) (connectors.Finding, error) {
	return connectors.Finding{State: connectors.Unclear, Evidence: fmt.Sprintf(format, args...)}, nil
}

// What is said where the person was referred by somebody else. Sending again would not change it.
const otherCode = "the account was referred already, with another code than the rule's; an account can be referred once, so see at the provider whether this is as it should be"

// findReferred asks for the user that the act would make or change. Where the user does not show who
// referred them, the referrals of the user are asked for.
//
// Someone who came with the same code before is found, too: there is nothing left to do, and doing it
// would change nothing.
func (c *connector) findReferred(ctx context.Context, act connectors.Act) (connectors.Finding, error) {
	given, fault := c.arguments(act)
	if fault != nil {
		return connectors.Finding{}, fault
	}
	codes := given.list("referredByCodes")
	if act.Operation == opApply {
		codes = []string{given.text("code")}
	}
	req, err := c.signed(api.NewOpenGetUserRequest(c.server, c.tenant, given.account, given.user, nil))
	if err != nil {
		return connectors.Finding{}, err
	}
	var u user
	answer, err := c.t.Read(ctx, connectors.Call{
		Operation: opGetUser, Request: req,
		Decode: func(a connectors.Answer) error {
			u = user{}
			return u.read(a.Body, given)
		},
	})
	switch {
	case noSuchUser(answer):
		return connectors.Finding{State: connectors.Absent, Evidence: "the provider knows no such user"}, nil
	case answer.Status == http.StatusNotFound:
		return unclear("the provider answered 404, though not in the words it uses for a user who is not there")
	case err != nil && answer.Status >= 200 && answer.Status < 300:
		return unclear("the provider's answer cannot be read, or is about another user")
	case err != nil:
		return connectors.Finding{}, err
	}
	switch u.referredBy(codes) {
	case ours:
		return connectors.Finding{State: connectors.Found, Evidence: "the provider shows the user as referred by the code"}, nil
	case others:
		return unclear(otherCode)
	}
	return c.findReferral(ctx, given, codes)
}

// someReferrals is more than a person has who can be referred once.
const someReferrals = 100

// findReferral asks who referred the user.
func (c *connector) findReferral(ctx context.Context, given arguments, codes []string) (connectors.Finding, error) {
	list, err := c.listReferrals(ctx, given.account, given.user, someReferrals)
	var f *connectors.Fault
	switch {
	case errors.As(err, &f) && f.Status >= 200 && f.Status < 300:
		return unclear("the user shows no referrer, and the provider's list of referrals cannot be read")
	case err != nil:
		return connectors.Finding{}, err
	}
	// Somebody else's referral in the answer means that it was not filtered as we asked.
	for _, r := range list.Referrals {
		if !sameID(string(r.ReferredUser.ID), given.user) || !sameID(string(r.ReferredUser.AccountID), given.account) {
			return unclear("the provider's list of referrals is about somebody else")
		}
	}
	var used []string
	for _, r := range list.Referrals {
		used = append(used, string(r.ReferralCodeUsed))
	}
	switch state := compare(used, codes); {
	case state == ours:
		i := slices.IndexFunc(used, func(code string) bool { return sameCode(code, codes[0]) })
		return connectors.Finding{
			State: connectors.Found, Reference: string(list.Referrals[i].ID),
			Evidence: "the provider has a referral of the user by the code",
		}, nil
	case list.TotalCount != len(list.Referrals):
		return unclear("the provider did not give all referrals of the user")
	case state == others:
		return unclear(otherCode)
	case len(used) > 0:
		return unclear("the provider has a referral of the user, without a code")
	}
	return connectors.Finding{State: connectors.Absent, Evidence: "the user is there, and the provider has no referral of them"}, nil
}

// referralList is what is needed of a list of referrals.
type referralList struct {
	TotalCount int
	Referrals  []struct {
		ID               ident
		ReferralCodeUsed words
		ReferredUser     struct {
			ID        ident
			AccountID ident
		}
	}
}

func (l *referralList) read(raw []byte) error {
	var in struct {
		TotalCount *int
		Referrals  *json.RawMessage
	}
	if err := lenient.Object(raw, &in); err != nil {
		return err
	}
	if in.TotalCount == nil || in.Referrals == nil {
		return errors.New("it is no list of referrals")
	}
	l.TotalCount = *in.TotalCount
	if json.Unmarshal(*in.Referrals, &l.Referrals) != nil || l.Referrals == nil {
		return errors.New("its referrals are no list")
	}
	return nil
}

func (c *connector) listReferrals(ctx context.Context, account, id string, limit int) (referralList, error) {
	req, err := c.signed(api.NewOpenListReferralsRequest(c.server, c.tenant, &api.OpenListReferralsParams{
		ReferredAccountId: &account, ReferredUserId: &id, Limit: &limit,
	}))
	if err != nil {
		return referralList{}, err
	}
	var list referralList
	_, err = c.t.Read(ctx, connectors.Call{
		Operation: opListReferrals, Request: req,
		Decode: func(a connectors.Answer) error {
			list = referralList{}
			return list.read(a.Body)
		},
	})
	return list, err
}

// user is what is needed of a user. It is not the generated type on purpose: one odd value in a field
// that nobody looks at must not turn a referral that was made into an unknown outcome.
type user struct {
	ID              ident
	AccountID       ident
	ReferredByCodes *[]words
}

// read reads the user who was asked for; another is an error.
func (u *user) read(raw []byte, given arguments) error {
	if err := lenient.Object(raw, u); err != nil {
		return err
	}
	switch {
	case u.ID == "" || u.AccountID == "":
		return errors.New("it is no user")
	case !sameID(string(u.ID), given.user) || !sameID(string(u.AccountID), given.account):
		return errors.New("it is about another user")
	}
	return nil
}

// referredBy compares who referred the user with the codes wanted.
func (u *user) referredBy(codes []string) referredBy {
	if u.ReferredByCodes == nil {
		return nobody
	}
	var there []string
	for _, code := range *u.ReferredByCodes {
		there = append(there, string(code))
	}
	return compare(there, codes)
}

// referredBy is what a user's codes mean for ours.
type referredBy int

const (
	nobody referredBy = iota // no code, as far as can be seen
	ours                     // every one that is wanted
	others                   // codes, and not every one that is wanted
)

func compare(there, wanted []string) referredBy {
	there = slices.DeleteFunc(slices.Clone(there), func(code string) bool { return code == "" })
	if len(there) == 0 {
		return nobody
	}
	for _, code := range wanted {
		if !slices.ContainsFunc(there, func(t string) bool { return sameCode(t, code) }) {
			return others
		}
	}
	return ours
}

// What an answer holds, read as package lenient says.
type (
	words = lenient.Text
	ident = lenient.ID
)
