package saasquatch

import (
	"context"
	"errors"
	"net/http"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/lenient"
	"github.com/lodestonehq/lodestone/connectors/saasquatch/api"
)

// Whose implements [connectors.Knower] for the kinds that x-whose of the specification names. A user is
// named by account and user together; a referral is the one's who was referred.
func (c *connector) Whose(ctx context.Context, kind, id string, beside map[string]any) ([]lodestone.Email, error) {
	switch kind {
	case "user":
		account, _ := beside["accountId"].(string)
		if account == "" {
			account = id
		}
		req, err := c.signed(api.NewGetUserRequest(c.server, c.tenant, account, id))
		var u struct{ Email words }
		return c.whose(ctx, "getUser", req, err, func(raw []byte) (string, error) {
			u.Email = ""
			err := lenient.Object(raw, &u)
			return string(u.Email), err
		})
	case "referral":
		req, err := c.signed(api.NewGetReferralRequest(c.server, c.tenant, id))
		var r struct{ ReferredUser *struct{ Email words } }
		return c.whose(ctx, "getReferral", req, err, func(raw []byte) (string, error) {
			r.ReferredUser = nil
			if err := lenient.Object(raw, &r); err != nil {
				return "", err
			}
			if r.ReferredUser == nil {
				return "", errors.New("it names nobody who was referred")
			}
			return string(r.ReferredUser.Email), nil
		})
	}
	return nil, connectors.ErrUntold
}

func (c *connector) whose(ctx context.Context, operation string, req *http.Request, err error, read func([]byte) (string, error)) ([]lodestone.Email, error) {
	if err != nil {
		return nil, err
	}
	var address string
	answer, err := c.t.Read(ctx, connectors.Call{Operation: operation, Request: req, Decode: func(a connectors.Answer) (err error) {
		address, err = read(a.Body)
		return err
	}})
	switch {
	case noSuchUser(answer):
		return nil, nil
	case answer.Status == http.StatusNotFound:
		return nil, connectors.ErrUntold // a referral that is not there, or another path
	case err != nil:
		return nil, err
	}
	email, err := lodestone.ParseEmail(address)
	if err != nil {
		return nil, connectors.ErrUntold
	}
	return []lodestone.Email{email}, nil
}
