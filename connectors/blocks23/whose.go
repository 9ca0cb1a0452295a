package blocks23

import (
	"context"
	"net/http"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
)

// Whose implements [connectors.Knower]: a referral is the one's who was referred.
func (c *connector) Whose(ctx context.Context, kind, id string, _ map[string]any) ([]lodestone.Email, error) {
	if kind != "referral" || !pathID(id) {
		return nil, connectors.ErrUntold
	}
	e, _, answer, err := c.read(ctx, opGet, id)
	switch {
	case answer.Status == http.StatusNotFound:
		return nil, connectors.ErrUntold
	case err != nil:
		return nil, err
	}
	email, err := lodestone.ParseEmail(e.Attributes.referred())
	if err != nil {
		return nil, connectors.ErrUntold
	}
	return []lodestone.Email{email}, nil
}
