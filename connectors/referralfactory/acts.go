package referralfactory

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"hash/fnv"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/lenient"
	"github.com/lodestonehq/lodestone/connectors/referralfactory/api"
)

// Do implements [connectors.Connector].
func (c *connector) Do(ctx context.Context, act connectors.Act) (connectors.Receipt, error) {
	h, ok := handlers[act.Operation]
	if !ok {
		return connectors.Receipt{}, c.t.Reject(act.Operation, "referralfactory has no such operation")
	}
	if act.IntendedAt.IsZero() {
		act.IntendedAt = time.Now()
	}
	return h.do(c, ctx, act)
}

// again is a fault with another meaning and other words, for what was learnt since.
func again(err error, class connectors.Class, reason lodestone.Reason, words string) error {
	var f *connectors.Fault
	if !errors.As(err, &f) {
		return err
	}
	changed := *f
	changed.Class, changed.Reason, changed.Detail = class, reason, words
	return &changed
}

// refuse is the fault of an act that the state at the provider rules out; no act was sent.
func (c *connector) refuse(act connectors.Act, class connectors.Class, reason lodestone.Reason, words string) error {
	return &connectors.Fault{
		Connector: c.name, Operation: act.Operation, Class: class, Reason: reason,
		Detail: c.t.Masked(words), CountsAttempt: true,
	}
}

// notAsked is the fault of an act whose state could not be read beforehand: nothing was done.
func notAsked(act connectors.Act, err error) error {
	var f *connectors.Fault
	if !errors.As(err, &f) {
		return err
	}
	changed := *f
	changed.Operation = act.Operation
	if f.Class == connectors.Failed {
		changed.Class, changed.Reason, changed.CountsAttempt = connectors.NotDone, lodestone.ReasonNotDone, true
	}
	return &changed
}

func (c *connector) create(ctx context.Context, act connectors.Act) (connectors.Receipt, error) {
	g, err := c.parameters(act)
	if err != nil {
		return connectors.Receipt{}, err
	}
	req, err := c.sign(api.NewCreateUserRequest(c.server, api.UserCreate{
		CampaignId: c.campaign, FirstName: g.texts["first_name"], Email: string(g.email),
		Notify: g.flag("notify"), Promotion: g.flag("promotion"), Referrer: g.referrer, Meta: g.metaList(),
	}))
	if err != nil {
		return connectors.Receipt{}, c.t.Reject(act.Operation, err.Error())
	}
	var made user
	answer, err := c.act(ctx, connectors.Call{
		Operation: act.Operation, Request: req,
		Decode: func(a connectors.Answer) (err error) {
			made, err = document(a.Body)
			return err
		},
	})
	switch {
	case err == nil:
		return connectors.Receipt{Reference: made.ID.text, Status: answer.Status}, nil
	case answer.Status == http.StatusUnprocessableEntity && complains(answer.Body, "email"):
		return c.thereAlready(ctx, act, g, answer, err)
	}
	return connectors.Receipt{}, err
}

// thereAlready settles a create that was refused because of the address. Most often somebody with that
// address is in the campaign: then it is our doing, by a try that was taken for lost, or it is not.
func (c *connector) thereAlready(ctx context.Context, act connectors.Act, g given, answer connectors.Answer, refused error) (connectors.Receipt, error) {
	unknown := func(words string) error {
		return again(refused, connectors.Unknown, lodestone.ReasonUnclear, c.t.Masked(words))
	}
	found, _, err := c.search(ctx, g.email)
	switch {
	case err != nil:
		return connectors.Receipt{}, unknown("the address is refused, perhaps because it is in the campaign already, and the search for it failed: " + err.Error())
	case len(found) > 1:
		return connectors.Receipt{}, unknown("the address is in the campaign several times")
	case len(found) == 0 && taken(answer.Body):
		return connectors.Receipt{}, unknown("the provider says that the address is in the campaign already, and its search does not find it")
	case len(found) == 0:
		return connectors.Receipt{}, refused // it is something else about the address
	}
	owner, words, err := c.whose(ctx, found[0], g.referrer, act.IntendedAt)
	switch {
	case err != nil:
		return connectors.Receipt{}, unknown("the person is in the campaign already, and the search for the referrer failed: " + err.Error())
	case owner == ours:
		return connectors.Receipt{Reference: found[0].ID.text, Status: answer.Status, Detail: "there already: " + words}, nil
	case owner == theirs:
		return connectors.Receipt{}, again(refused, connectors.Refused, lodestone.ReasonRefused, c.t.Masked(words))
	}
	return connectors.Receipt{}, unknown(words)
}

// complains says whether an error is about a field. It reads errors as an object of lists by field,
// whatever the lists hold, and as one list of objects with a field.
func complains(body []byte, field string) bool {
	var byField struct{ Errors map[string]json.RawMessage }
	if lenient.Object(body, &byField) == nil {
		for name := range byField.Errors {
			if strings.EqualFold(name, field) {
				return true
			}
		}
		return false
	}
	var list struct{ Errors []struct{ Field ident } }
	if lenient.Object(body, &list) != nil {
		return false
	}
	for _, e := range list.Errors {
		if strings.EqualFold(e.Field.text, field) {
			return true
		}
	}
	return false
}

// taken says whether an error's words sound like a duplicate. They decide nothing but whether a search
// that finds nobody is believed at once.
func taken(body []byte) bool {
	words := strings.ToLower(connectors.Words(body))
	for _, w := range []string{"taken", "already", "exist", "duplicate", "unique"} {
		if strings.Contains(words, w) {
			return true
		}
	}
	return false
}

// alone waits until nobody else in this process changes the person, because asking and changing are
// two calls. leave lets the next one in; it is nil when ctx ended first.
func (c *connector) alone(ctx context.Context, email lodestone.Email) (leave func()) {
	h := fnv.New32a()
	_, _ = h.Write([]byte(email)) // never fails
	place := c.shared.people[h.Sum32()%uint32(len(c.shared.people))]
	select {
	case place <- struct{}{}:
		return func() { <-place }
	case <-ctx.Done():
		return nil
	}
}

// one asks for the person whom an act is about. The user is nil when nobody is there.
func (c *connector) one(ctx context.Context, act connectors.Act, email lodestone.Email) (*user, int, error) {
	found, answer, err := c.search(ctx, email)
	switch {
	case err != nil:
		return nil, answer.Status, notAsked(act, err)
	case len(found) > 1:
		return nil, answer.Status, c.refuse(act, connectors.Refused, lodestone.ReasonRefused, "the address is in the campaign several times, so that it is not clear who is meant")
	case len(found) == 0:
		return nil, answer.Status, nil
	}
	return &found[0], answer.Status, nil
}

const notInCampaign = "the person is not in the campaign"

// qualify sets or takes back a qualification, unless it is as wanted already.
func (c *connector) qualify(ctx context.Context, act connectors.Act) (connectors.Receipt, error) {
	g, err := c.parameters(act)
	if err != nil {
		return connectors.Receipt{}, err
	}
	want := g.qualified()
	leave := c.alone(ctx, g.email)
	if leave == nil {
		f := c.refuse(act, connectors.NotDone, lodestone.ReasonNotDone, "given up before its turn came")
		return connectors.Receipt{}, f
	}
	defer leave()
	u, status, err := c.one(ctx, act, g.email)
	switch {
	case err != nil:
		return connectors.Receipt{}, err
	case u == nil:
		return connectors.Receipt{}, c.refuse(act, connectors.Refused, lodestone.ReasonRefused, notInCampaign)
	}
	is, known := u.qualified()
	switch {
	case !known:
		return connectors.Receipt{}, c.refuse(act, connectors.Unknown, lodestone.ReasonUnclear, "whether the person is qualified cannot be read")
	case is == want:
		return connectors.Receipt{Reference: u.ID.text, Status: status, Detail: qualifiedWords(is)}, nil
	}
	id, err := strconv.ParseInt(u.ID.text, 10, 64)
	if err != nil {
		return connectors.Receipt{}, c.refuse(act, connectors.Refused, lodestone.ReasonRefused, "the user's id is no number")
	}
	req, err := c.sign(api.NewSetUserQualificationRequest(c.server, api.Qualification{Id: &id, CampaignId: &c.campaign, Qualified: want}))
	if err != nil {
		return connectors.Receipt{}, c.t.Reject(act.Operation, err.Error())
	}
	answer, err := c.act(ctx, connectors.Call{
		Operation: act.Operation, Request: req,
		Decode: func(a connectors.Answer) error { return lenient.Object(a.Body, &struct{}{}) }, // 200 means done; the body is assumed
	})
	if err != nil {
		return connectors.Receipt{}, err
	}
	return connectors.Receipt{Reference: u.ID.text, Status: answer.Status}, nil
}

func (g given) qualified() bool {
	want, said := g.flags["qualified"]
	return want || !said
}

// qualified says whether a user is qualified; known is false when that cannot be read.
func (u *user) qualified() (is, known bool) {
	return u.QualifiedAt.state == set, u.QualifiedAt.state == set || u.QualifiedAt.state == null
}

func qualifiedWords(is bool) string {
	if is {
		return "the person is qualified"
	}
	return "the person is not qualified"
}

// update sets fields of the lead's user. Doing it again changes nothing more.
func (c *connector) update(ctx context.Context, act connectors.Act) (connectors.Receipt, error) {
	g, err := c.parameters(act)
	if err != nil {
		return connectors.Receipt{}, err
	}
	change := api.UserUpdate{CampaignId: &c.campaign, Meta: g.metaList()}
	if name, ok := g.texts["first_name"]; ok {
		change.FirstName = &name
	}
	if change.FirstName == nil && change.Meta == nil {
		return connectors.Receipt{}, c.t.Reject(act.Operation, "there is nothing to change; give first_name or a meta field")
	}
	return c.byNumber(ctx, act, g.email, func(id int64) (*http.Request, error) {
		return api.NewUpdateUserRequest(c.server, id, change)
	}, func(a connectors.Answer, id string) error {
		u, err := document(a.Body)
		if err == nil && u.ID.text != id {
			err = errors.New("it is about another user")
		}
		return err
	})
}

// remove deletes the lead's user. Somebody who is not there is as wanted.
func (c *connector) remove(ctx context.Context, act connectors.Act) (connectors.Receipt, error) {
	g, err := c.parameters(act)
	if err != nil {
		return connectors.Receipt{}, err
	}
	return c.byNumber(ctx, act, g.email, func(id int64) (*http.Request, error) {
		return api.NewDeleteUserRequest(c.server, id)
	}, func(a connectors.Answer, _ string) error {
		if len(bytes.TrimSpace(a.Body)) == 0 {
			return nil
		}
		return lenient.Object(a.Body, &struct{}{})
	})
}

// byNumber finds the person's number and sends the request that names it.
func (c *connector) byNumber(
	ctx context.Context, act connectors.Act, email lodestone.Email,
	build func(id int64) (*http.Request, error), decode func(a connectors.Answer, id string) error,
) (connectors.Receipt, error) {
	u, status, err := c.one(ctx, act, email)
	switch {
	case err != nil:
		return connectors.Receipt{}, err
	case u == nil && act.Operation == opDelete:
		return connectors.Receipt{Status: status, Detail: notInCampaign}, nil
	case u == nil:
		return connectors.Receipt{}, c.refuse(act, connectors.Refused, lodestone.ReasonRefused, notInCampaign)
	}
	id, err := strconv.ParseInt(u.ID.text, 10, 64)
	if err != nil {
		return connectors.Receipt{}, c.refuse(act, connectors.Refused, lodestone.ReasonRefused, "the user's id is no number")
	}
	req, err := c.sign(build(id))
	if err != nil {
		return connectors.Receipt{}, c.t.Reject(act.Operation, err.Error())
	}
	answer, err := c.act(ctx, connectors.Call{
		Operation: act.Operation, Request: req,
		Decode: func(a connectors.Answer) error { return decode(a, u.ID.text) },
	})
	if err != nil {
		return connectors.Receipt{}, err
	}
	return connectors.Receipt{Reference: u.ID.text, Status: answer.Status}, nil
}
