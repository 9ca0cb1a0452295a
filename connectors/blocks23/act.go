package blocks23

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/blocks23/api"
	"github.com/lodestonehq/lodestone/connectors/lenient"
)

// Do implements [connectors.Connector].
func (c *connector) Do(ctx context.Context, act connectors.Act) (connectors.Receipt, error) {
	args, fault := c.arguments(act)
	if fault != nil {
		return connectors.Receipt{}, fault
	}
	switch act.Operation {
	case lodestone.VerbRefer, opCreate:
		return c.create(ctx, act, args)
	case opUpdate:
		return c.update(ctx, act, args)
	case opDelete:
		return c.delete(ctx, act, args)
	case opGet:
		return c.get(ctx, act, args)
	}
	return c.list(ctx, act, args)
}

// arguments checks an act's parameters against its operation's and fits their values to the types
// there. The address of a new referral is the lead's unless the rule gives it.
func (c *connector) arguments(act connectors.Act) (map[string]any, *connectors.Fault) {
	i := slices.IndexFunc(operations, func(op lodestone.Operation) bool { return op.Name == act.Operation })
	if i < 0 {
		return nil, c.t.Reject(act.Operation, "23blocks has no such operation")
	}
	op, args := operations[i], make(map[string]any, len(act.Parameters)+1)
	for _, name := range slices.Sorted(maps.Keys(act.Parameters)) {
		p, known := op.Parameter(name)
		if !known {
			return nil, c.t.Reject(op.Name, fmt.Sprintf("it has no parameter %q", name))
		}
		if act.Parameters[name] == nil {
			continue
		}
		value, ok := fit(p.Type, act.Parameters[name])
		if !ok {
			return nil, c.t.Reject(op.Name, fmt.Sprintf("%s must be %s", name, described(p.Type)))
		}
		args[name] = value
	}
	for _, p := range op.Parameters {
		if v, given := args[p.Name]; p.Required && (!given || v == "") {
			return nil, c.t.Reject(op.Name, p.Name+" is required and has no value")
		}
	}
	if id, given := args["unique_id"].(string); given && !pathID(id) {
		return nil, c.t.Reject(op.Name, "unique_id is not the id of a referral")
	}
	if _, takes := op.Parameter("email"); takes {
		args["referred_email"] = string(act.Email)
		if given, ok := args["email"]; ok {
			args["referred_email"] = given
		}
		delete(args, "email")
	}
	return args, nil
}

func described(t lodestone.FieldType) string {
	if t == lodestone.FieldEmail {
		return "an email address"
	}
	return "a " + string(t)
}

// fit makes a value one of the type. Where a text is wanted, a number or a boolean is written out:
// fields of forms are typed, and a customer number is a text here.
func fit(t lodestone.FieldType, v any) (any, bool) {
	switch v := v.(type) {
	case string:
		if t == lodestone.FieldEmail {
			_, err := lodestone.ParseEmail(v)
			return v, err == nil
		}
		return v, t == lodestone.FieldText
	case float64:
		if t == lodestone.FieldText {
			return strconv.FormatFloat(v, 'f', -1, 64), true
		}
		return v, t == lodestone.FieldNumber
	case bool:
		if t == lodestone.FieldText {
			return strconv.FormatBool(v), true
		}
		return v, t == lodestone.FieldBoolean
	}
	return nil, false
}

// wrapped makes the body of a write: the fields under the deployment's names, inside `referral`.
func wrapped[T any](c *connector, args map[string]any) (*bytes.Reader, error) {
	typed, err := lenient.Into[T](args)
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(typed)
	if err != nil {
		return nil, err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, err
	}
	for documented, name := range c.names {
		if v, there := fields[documented]; there {
			delete(fields, documented)
			fields[name] = v
		}
	}
	raw, err = json.Marshal(map[string]any{"referral": fields})
	return bytes.NewReader(raw), err
}

const contentType = "application/json"

// write performs an act whose answer is one referral.
func (c *connector) write(ctx context.Context, operation string, req *http.Request, err error, decode func(connectors.Answer) error) (connectors.Answer, error) {
	if req, err = c.signed(req, err); err != nil {
		return connectors.Answer{}, c.t.Reject(operation, err.Error())
	}
	return c.t.Act(ctx, connectors.Call{Operation: operation, Request: req, Decode: decode})
}

func (c *connector) create(ctx context.Context, act connectors.Act, args map[string]any) (connectors.Receipt, error) {
	args["metadata"] = map[string]any{MetadataKey: act.ID}
	body, err := wrapped[api.ReferralCreate](c, args)
	if err != nil {
		return connectors.Receipt{}, c.t.Reject(act.Operation, err.Error())
	}
	req, err := api.NewCreateReferralRequestWithBody(c.server, c.form, contentType, body)
	var made element
	answer, err := c.write(ctx, act.Operation, req, err, func(a connectors.Answer) (err error) {
		made, err = one(a.Body)
		return err
	})
	if err != nil {
		return connectors.Receipt{}, err
	}
	detail := status(&made)
	if made.Attributes.key() != act.ID {
		detail += "; the answer does not repeat our key, without which a look-up cannot find it"
	}
	return connectors.Receipt{Reference: made.id(), Status: answer.Status, Detail: c.t.Masked(detail)}, nil
}

func (c *connector) update(ctx context.Context, act connectors.Act, args map[string]any) (connectors.Receipt, error) {
	id := args["unique_id"].(string) // required, and of that type by now
	delete(args, "unique_id")
	if len(args) == 0 {
		return connectors.Receipt{}, c.t.Reject(act.Operation, "it has nothing to change")
	}
	body, err := wrapped[api.ReferralUpdate](c, args)
	if err != nil {
		return connectors.Receipt{}, c.t.Reject(act.Operation, err.Error())
	}
	req, err := api.NewUpdateReferralRequestWithBody(c.server, c.form, id, contentType, body)
	var changed element
	answer, err := c.write(ctx, act.Operation, req, err, func(a connectors.Answer) (err error) {
		changed, err = c.the(id, a.Body)
		return err
	})
	if err != nil {
		return connectors.Receipt{}, err
	}
	return connectors.Receipt{Reference: id, Status: answer.Status, Detail: c.t.Masked(status(&changed))}, nil
}

// the reads a document about the referral of that id.
func (c *connector) the(id string, body []byte) (element, error) {
	e, err := one(body)
	if err == nil && e.id() != id {
		err = errors.New("it is about another referral")
	}
	return e, err
}

func (c *connector) delete(ctx context.Context, act connectors.Act, args map[string]any) (connectors.Receipt, error) {
	id := args["unique_id"].(string)
	req, err := api.NewDeleteReferralRequest(c.server, c.form, id)
	answer, err := c.write(ctx, act.Operation, req, err, func(a connectors.Answer) error {
		if a.Status != http.StatusNoContent {
			return fmt.Errorf("status %d was expected, came %d", http.StatusNoContent, a.Status)
		}
		return nil
	})
	if err != nil {
		return connectors.Receipt{}, err
	}
	return connectors.Receipt{Reference: id, Status: answer.Status, Detail: "deleted"}, nil
}

// get and list are for those who ask by hand; a receipt has room for the gist of an answer.

func (c *connector) get(ctx context.Context, act connectors.Act, args map[string]any) (connectors.Receipt, error) {
	id := args["unique_id"].(string)
	e, _, answer, err := c.read(ctx, act.Operation, id)
	if err != nil {
		return connectors.Receipt{}, err
	}
	detail := status(&e)
	if r := e.Attributes.RewardStatus; r != "" {
		detail += ", reward " + string(r)
	}
	return connectors.Receipt{Reference: id, Status: answer.Status, Detail: c.t.Masked(detail)}, nil
}

// read reads one referral, also as the object that its attributes are.
func (c *connector) read(ctx context.Context, operation, id string) (e element, fields map[string]any, answer connectors.Answer, err error) {
	req, err := c.signed(api.NewGetReferralRequest(c.server, c.form, id))
	if err != nil {
		return e, nil, answer, err
	}
	answer, err = c.t.Read(ctx, connectors.Call{
		Operation: operation, Request: req,
		Decode: func(a connectors.Answer) (err error) {
			if e, err = c.the(id, a.Body); err != nil {
				return err
			}
			var doc struct {
				Data struct{ Attributes map[string]any }
			}
			if err := lenient.Object(a.Body, &doc); err != nil {
				return err
			}
			fields = doc.Data.Attributes
			return nil
		},
	})
	return e, fields, answer, err
}

func (c *connector) list(ctx context.Context, act connectors.Act, args map[string]any) (connectors.Receipt, error) {
	params, err := lenient.Into[api.ListReferralsParams](args)
	if err != nil {
		return connectors.Receipt{}, c.t.Reject(act.Operation, "page and records must be whole numbers")
	}
	req, err := c.signed(api.NewListReferralsRequest(c.server, c.form, &params))
	if err != nil {
		return connectors.Receipt{}, c.t.Reject(act.Operation, err.Error())
	}
	var page listing
	answer, err := c.t.Read(ctx, connectors.Call{
		Operation: act.Operation, Request: req,
		Decode: func(a connectors.Answer) (err error) {
			page, err = list(a.Body)
			return err
		},
	})
	if err != nil {
		return connectors.Receipt{}, err
	}
	detail := fmt.Sprintf("%d referrals on this page", len(page.elements)+page.unreadable)
	if page.records != noCount {
		detail += fmt.Sprintf(", %d in all", page.records)
	}
	return connectors.Receipt{Status: answer.Status, Detail: detail}, nil
}

// status says how an element stands.
func status(e *element) string {
	if e.Attributes.Status == "" {
		return "status not given"
	}
	return "status " + string(e.Attributes.Status)
}
