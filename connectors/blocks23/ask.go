package blocks23

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
)

// Find implements [connectors.Connector].
func (c *connector) Find(ctx context.Context, act connectors.Act) (connectors.Finding, error) {
	switch act.Operation {
	case lodestone.VerbRefer, opCreate:
		return c.findReferral(ctx, act)
	case opUpdate:
		return c.findChange(ctx, act)
	case opDelete:
		return c.findDeletion(ctx, act)
	case opGet, opList:
		return connectors.Finding{State: connectors.Absent, Evidence: "a read leaves nothing behind and can be made again"}, nil
	}
	return connectors.Finding{State: connectors.Unsupported, Evidence: "the provider has no look-up for " + act.Operation}, nil
}

func unclear(format string, args ...any) (connectors.Finding, error) {
	return connectors.Finding{State: connectors.Unclear, Evidence: fmt.Sprintf(format, args...)}, nil
}

// clockSkew is how much earlier than the intent a creation time may be and still belong to it: the
// provider's clock is not ours, and it may cut off fractions. A minute covers a clock that is badly
// kept; a wider margin would only hold more touchpoints for a human.
const clockSkew = time.Minute

// findReferral looks for the referral that carries the touchpoint's id.
func (c *connector) findReferral(ctx context.Context, act connectors.Act) (connectors.Finding, error) {
	email := string(act.Email)
	if given, ok := act.Parameters["email"].(string); ok && given != "" {
		email = strings.TrimSpace(given)
	}
	var found *element
	keyless, nameless := map[string]bool{}, map[string]bool{} // by id: a record may be visited twice
	w, err := c.walk(ctx, c.referrals(pageSize), func(e *element) bool {
		switch e.Attributes.key() {
		case act.ID:
			found = e
			return true
		case "":
		default:
			return false // another touchpoint's
		}
		if at, ok := parseTime(e.Attributes.CreatedAt); ok && at.Before(act.IntendedAt.Add(-clockSkew)) {
			return false
		}
		switch address := e.Attributes.referred(); {
		case address == "":
			nameless[e.id()] = true
		case strings.EqualFold(address, email):
			keyless[e.id()] = true
		}
		return false
	})
	switch {
	case err != nil:
		return connectors.Finding{}, err
	case found != nil:
		return connectors.Finding{
			State: connectors.Found, Reference: found.id(),
			Evidence: "a referral carries the touchpoint's id in its metadata, " + c.t.Masked(status(found)),
		}, nil
	case len(keyless) > 0:
		return unclear("a referral of that person was made since, and carries no key; it may be this one or somebody else's")
	case len(nameless) > 0:
		return unclear("a referral was made since that carries neither a key nor an address that can be read")
	case w.gap != "":
		return unclear("no referral among %d carries the touchpoint's id, which proves nothing: %s", w.records, w.gap)
	}
	return connectors.Finding{
		State:    connectors.Absent,
		Evidence: fmt.Sprintf("the whole list of %d referrals was walked, and none carries the touchpoint's id", w.records),
	}, nil
}

// target is the referral that an act is about.
func target(act connectors.Act) (id string, ok bool) {
	v, _ := fit(lodestone.FieldText, act.Parameters["unique_id"])
	id, _ = v.(string)
	return id, pathID(id)
}

// findChange compares a referral with what was to be changed. All of it in place is as good as done,
// whoever did it. A difference proves nothing: somebody may have changed it again.
func (c *connector) findChange(ctx context.Context, act connectors.Act) (connectors.Finding, error) {
	id, ok := target(act)
	if !ok {
		return unclear("the act names no referral")
	}
	if len(act.Altered) > 0 {
		return unclear("whether the referral has what was sent in %s cannot be seen: it is not known exactly, because links that work are not kept", strings.Join(act.Altered, ", "))
	}
	wanted, fault := c.arguments(act)
	if fault != nil {
		return unclear("the act could not have been sent: %s", fault.Detail)
	}
	delete(wanted, "unique_id")
	e, fields, answer, err := c.read(ctx, opGet, id)
	if err != nil {
		return notRead(answer, err)
	}
	for name, v := range wanted {
		got, there := fields[name]
		if !there {
			got = fields[sdkNames[name]]
		}
		if !same(v, got) {
			return unclear("%s of the referral is not what it was to become", name)
		}
	}
	return connectors.Finding{
		State: connectors.Found, Reference: id,
		Evidence: "the referral is as it was to become, " + c.t.Masked(status(&e)),
	}, nil
}

// notRead says what it means that one referral was asked for and not given.
func notRead(answer connectors.Answer, err error) (connectors.Finding, error) {
	switch {
	case answer.Status == http.StatusNotFound && notFound(answer.Body):
		return unclear("the provider knows no referral of that id")
	case answer.Status >= 200 && answer.Status < 300:
		return unclear("the provider's answer cannot be read")
	}
	return connectors.Finding{}, err
}

// findDeletion asks whether a referral is still there.
func (c *connector) findDeletion(ctx context.Context, act connectors.Act) (connectors.Finding, error) {
	id, ok := target(act)
	if !ok {
		return unclear("the act names no referral")
	}
	e, _, answer, err := c.read(ctx, opGet, id)
	gone := connectors.Finding{State: connectors.Found, Reference: id, Evidence: "the provider knows no such referral any more"}
	if err != nil && answer.Status == http.StatusNotFound && notFound(answer.Body) {
		return gone, nil
	}
	if err != nil {
		return notRead(answer, err)
	}
	if strings.EqualFold(string(e.Attributes.Status), "deleted") { // a word of the SDK's
		gone.Evidence = "the referral's status is deleted"
		return gone, nil
	}
	return connectors.Finding{State: connectors.Absent, Evidence: "the referral is still there, " + c.t.Masked(status(&e))}, nil
}

// Unsubscribed implements [connectors.Connector]. A person may have several subscriptions: one that
// opted out is enough.
func (c *connector) Unsubscribed(ctx context.Context, email lodestone.Email) (connectors.Subscription, error) {
	if c.subscriptions == "" {
		return connectors.Subscription{}, errors.New("nobody can be asked: subscription_form names no form")
	}
	s := connectors.Subscription{Kind: connectors.SuppressionProvider}
	var odd string
	w, err := c.walk(ctx, c.subscribers(), func(e *element) bool {
		optedOut, understood := e.Attributes.optedOut()
		switch address := strings.TrimSpace(string(e.Attributes.Email)); {
		case address == "" && (optedOut || !understood):
			odd = "a subscription that may have ended has no address that can be read"
		case !strings.EqualFold(address, string(email)):
		case !understood:
			odd = "the status of a subscription of that address is not understood"
		case optedOut:
			s.Unsubscribed = true
		}
		return s.Unsubscribed
	})
	switch {
	case err != nil:
		return connectors.Subscription{}, err
	case s.Unsubscribed:
		s.Evidence = "a subscription of that address has ended"
		return s, nil
	case odd != "":
		return connectors.Subscription{}, errors.New(odd)
	case w.gap != "":
		return connectors.Subscription{}, fmt.Errorf("the list of subscriptions cannot be relied on: %s", w.gap)
	}
	s.Evidence = fmt.Sprintf("none of the %d subscriptions of the form says that the address unsubscribed", w.records)
	return s, nil
}

// optedOut tells whether a subscription has ended. One that is active again must say that it was
// begun after it had ended.
func (a *attributes) optedOut() (yes, understood bool) {
	switch strings.ToLower(string(a.Status)) {
	case "unsubscribed":
		return true, true
	case "active":
		var ended words
		_ = ended.UnmarshalJSON(a.UnsubscribedAt) // never fails
		if at := string(a.UnsubscribedAt); at == "" || at == "null" {
			return false, true
		}
		end, ok := parseTime(ended)
		begun, also := parseTime(a.SubscribedAt)
		return !(ok && also && begun.After(end)), true
	}
	return false, false
}
