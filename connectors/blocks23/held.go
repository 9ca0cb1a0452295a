package blocks23

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
)

// Held implements [connectors.Holder]: the form's referrals whose referred person has that exact address.
// One whose referrer has it is somebody else's as well and stays. The provider's delete is a soft one.
func (c *connector) Held(ctx context.Context, email lodestone.Email, ids []string) (held connectors.Held, err error) {
	is := func(address string) bool { return strings.EqualFold(strings.TrimSpace(address), string(email)) }
	var mine []string
	referrer := map[string]bool{}
	add := func(id string) {
		if !slices.Contains(mine, id) {
			mine = append(mine, id)
		}
	}
	w, err := c.walk(ctx, c.referrals(pageSize), func(e *element) bool {
		switch {
		case is(e.Attributes.referred()):
			add(e.id())
		case is(string(e.Attributes.ReferrerEmail)):
			referrer[e.id()] = true
		}
		return false
	})
	switch {
	case errors.Is(err, errTurn):
		w.gap = errTurn.Error()
	case err != nil:
		return held, err
	}
	held.Gap = w.gap
	for _, id := range ids { // the list may be too long to be walked, or behind
		if !pathID(id) || slices.Contains(mine, id) || referrer[id] {
			continue
		}
		e, _, answer, err := c.read(ctx, opGet, id)
		switch {
		case answer.Status == http.StatusNotFound:
		case err != nil:
			return held, err
		case is(e.Attributes.referred()):
			add(id)
		}
	}
	for _, id := range mine {
		held.Records = append(held.Records, connectors.Record{What: "referral", Operation: opDelete, Arguments: map[string]any{"unique_id": id}})
	}
	held.Kept = []string{"the provider marks a referral as deleted and may keep it"}
	if c.subscriptions != "" {
		held.Kept = append(held.Kept, "a subscription of the person, which no operation deletes")
	}
	if len(referrer) > 0 {
		held.Kept = append(held.Kept, fmt.Sprintf("%d referrals name the person as the one who referred, and are somebody else's: decide about them by hand", len(referrer)))
	}
	return held, nil
}
