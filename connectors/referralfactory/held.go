package referralfactory

import (
	"context"
	"strconv"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
)

// Held implements [connectors.Holder]: the user with that exact address in the account's campaign. Another
// campaign is another account.
func (c *connector) Held(ctx context.Context, email lodestone.Email, _ []string) (held connectors.Held, err error) {
	found, _, err := c.search(ctx, email)
	if err != nil {
		return held, err
	}
	for _, u := range found {
		id, err := strconv.ParseInt(u.ID.text, 10, 64)
		if err != nil {
			held.Gap = "the user's id is no number"
			continue
		}
		held.Records = append(held.Records, connectors.Record{What: "user", Operation: opDelete, Arguments: map[string]any{"identifier": id}})
	}
	return held, nil
}
