package referralfactory

import (
	"context"
	"net/http"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/referralfactory/api"
)

// Whose implements [connectors.Knower]: a user is asked for by code or number. Rewards name their
// recipient in lists alone, which cannot be asked by the reward.
func (c *connector) Whose(ctx context.Context, kind, id string, _ map[string]any) ([]lodestone.Email, error) {
	if kind != "user" || id == "." || id == ".." {
		return nil, connectors.ErrUntold
	}
	req, err := c.sign(api.NewGetUserRequest(c.server, id, nil))
	if err != nil {
		return nil, err
	}
	var u user
	answer, err := c.read(ctx, connectors.Call{Operation: opGetUser, Request: req, Decode: func(a connectors.Answer) (err error) {
		u, err = document(a.Body)
		return err
	}})
	switch {
	case answer.Status == http.StatusNotFound:
		return nil, connectors.ErrUntold
	case err != nil:
		return nil, err
	}
	email, err := lodestone.ParseEmail(u.Email.text)
	if err != nil {
		return nil, connectors.ErrUntold
	}
	return []lodestone.Email{email}, nil
}
