package referralfactory

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/referralfactory/api"
)

// probeEmail is the address that probes ask about. The domain can never receive mail (RFC 2606).
const probeEmail lodestone.Email = "probe@lodestone.invalid"

// Probe implements [connectors.Connector] by a search that finds nobody.
func (c *connector) Probe(ctx context.Context) error {
	_, _, err := c.search(ctx, probeEmail)
	return err
}

// Unsubscribed implements [connectors.Connector]. Somebody who is not in the campaign has not
// unsubscribed there.
func (c *connector) Unsubscribed(ctx context.Context, email lodestone.Email) (connectors.Subscription, error) {
	s := connectors.Subscription{Kind: connectors.SuppressionProvider}
	_, _, err := c.search(ctx, email, func(found []user) (err error) {
		s.Unsubscribed, s.Evidence, err = unsubscribed(found)
		return err
	})
	if err != nil {
		return connectors.Subscription{}, err
	}
	return s, nil
}

// unsubscribed reads the field of whoever was found. What is not understood is an error, since not to
// understand is not to know.
func unsubscribed(found []user) (yes bool, evidence string, err error) {
	for _, u := range found {
		switch u.UnsubscribedAt.state {
		case set:
			return true, "the provider says that the person unsubscribed: " + u.UnsubscribedAt.text, nil
		case null:
		default:
			err = errors.New("the provider's answer does not say whether the person unsubscribed")
		}
	}
	if err != nil {
		return false, "", err
	}
	if len(found) == 0 {
		return false, notInCampaign, nil
	}
	return false, "the person is in the campaign and has not unsubscribed", nil
}

// Find implements [connectors.Connector].
func (c *connector) Find(ctx context.Context, act connectors.Act) (connectors.Finding, error) {
	if h, ok := handlers[act.Operation]; ok {
		return h.find(c, ctx, act)
	}
	if slices.ContainsFunc(endpoints, func(e connectors.Endpoint) bool {
		return e.Name == act.Operation && e.Effect == lodestone.EffectRead
	}) {
		return connectors.Finding{State: connectors.Absent, Evidence: act.Operation + " only asks and changes nothing"}, nil
	}
	return connectors.Finding{State: connectors.Unsupported, Evidence: "the provider has no look-up for " + act.Operation}, nil
}

func unclear(words string) (connectors.Finding, error) {
	return connectors.Finding{State: connectors.Unclear, Evidence: words}, nil
}

// look asks for the person whom an act is about. done is what to answer when that settles the look-up
// already; found is nil when nobody is there.
func (c *connector) look(ctx context.Context, act connectors.Act) (g given, found *user, done *connectors.Finding, err error) {
	if g, err = c.parameters(act); err != nil {
		f, _ := unclear("the act has parameters with which it cannot have been sent")
		return g, nil, &f, nil
	}
	people, answer, err := c.search(ctx, g.email)
	switch {
	case unread(answer, err):
		f, _ := unclear("the provider's answer to the search cannot be read or does not settle it")
		return g, nil, &f, nil
	case err != nil:
		return g, nil, nil, err
	case len(people) > 1:
		f, _ := unclear("the address is in the campaign several times")
		return g, nil, &f, nil
	case len(people) == 0:
		return g, nil, nil, nil
	}
	return g, &people[0], nil, nil
}

func (c *connector) findCreated(ctx context.Context, act connectors.Act) (connectors.Finding, error) {
	g, u, done, err := c.look(ctx, act)
	switch {
	case err != nil:
		return connectors.Finding{}, err
	case done != nil:
		return *done, nil
	case u == nil:
		return connectors.Finding{State: connectors.Absent, Evidence: notInCampaign}, nil
	}
	owner, words, err := c.whose(ctx, *u, g.referrer, act.IntendedAt)
	switch {
	case err != nil:
		return connectors.Finding{}, err
	case owner == ours:
		return connectors.Finding{State: connectors.Found, Reference: u.ID.text, Evidence: words}, nil
	case owner == theirs:
		return connectors.Finding{State: connectors.Absent, Evidence: words}, nil
	}
	return unclear(words)
}

// findQualified: a lead that is as wanted means done. One that is not is the provider's word that the
// call did not happen; should it be behind with its word, the next try reads it once more.
func (c *connector) findQualified(ctx context.Context, act connectors.Act) (connectors.Finding, error) {
	g, u, done, err := c.look(ctx, act)
	switch {
	case err != nil:
		return connectors.Finding{}, err
	case done != nil:
		return *done, nil
	case u == nil:
		return connectors.Finding{State: connectors.Absent, Evidence: notInCampaign}, nil
	}
	is, known := u.qualified()
	switch {
	case !known:
		return unclear("whether the person is qualified cannot be read")
	case is == g.qualified():
		return connectors.Finding{State: connectors.Found, Reference: u.ID.text, Evidence: qualifiedWords(is)}, nil
	}
	return connectors.Finding{State: connectors.Absent, Evidence: qualifiedWords(is)}, nil
}

func (c *connector) findUpdated(ctx context.Context, act connectors.Act) (connectors.Finding, error) {
	g, u, done, err := c.look(ctx, act)
	switch {
	case err != nil:
		return connectors.Finding{}, err
	case done != nil:
		return *done, nil
	case u == nil:
		return connectors.Finding{State: connectors.Absent, Evidence: notInCampaign}, nil
	}
	if len(act.Altered) > 0 {
		return unclear("the user is there, and whether they have what was sent in " + strings.Join(act.Altered, ", ") + " cannot be seen: it is not known exactly, because links that work are not kept")
	}
	if name, ok := g.texts["first_name"]; ok && u.FirstName.text != strings.TrimSpace(name) || !u.holds(g.meta) {
		return connectors.Finding{State: connectors.Absent, Evidence: "the user does not have the values that were to be set"}, nil
	}
	return connectors.Finding{State: connectors.Found, Reference: u.ID.text, Evidence: "the user has the values that were to be set"}, nil
}

// holds says whether a user's fields of the campaign have the values.
func (u *user) holds(want []api.MetaField) bool {
	if len(want) == 0 {
		return true
	}
	var have []struct{ Field, Value ident }
	if json.Unmarshal(u.Meta, &have) != nil {
		return false
	}
	for _, w := range want {
		if !slices.ContainsFunc(have, func(h struct{ Field, Value ident }) bool {
			return h.Field.text == strings.TrimSpace(w.Field) && h.Value.text == strings.TrimSpace(*w.Value)
		}) {
			return false
		}
	}
	return true
}

func (c *connector) findRemoved(ctx context.Context, act connectors.Act) (connectors.Finding, error) {
	_, u, done, err := c.look(ctx, act)
	switch {
	case err != nil:
		return connectors.Finding{}, err
	case done != nil:
		return *done, nil
	case u == nil:
		return connectors.Finding{State: connectors.Found, Evidence: notInCampaign}, nil
	}
	return connectors.Finding{State: connectors.Absent, Evidence: "the person is still in the campaign"}, nil
}
