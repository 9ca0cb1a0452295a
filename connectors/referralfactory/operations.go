package referralfactory

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/referralfactory/api"
)

// The operations beside the two verbs that do more than one call from the catalogue.
const (
	opCreate    = "createUser"
	opUpdate    = "updateUser"
	opDelete    = "deleteUser"
	opQualify   = "qualify"
	opSetQualif = "setUserQualification" // what the catalogue calls it; does the same
)

// The provider's operations that are called on the way, as metrics and errors name them.
const (
	opSearch  = "searchUsers"
	opGetUser = "getUser"
)

// Parameters that stand for what is no text, number or boolean in the request.
const (
	referrerField = "referrer_field"
	referrerValue = "referrer_value"
	metaPairs     = 3
)

func metaField(i int) string { return fmt.Sprintf("meta_%d_field", i) }
func metaValue(i int) string { return fmt.Sprintf("meta_%d_value", i) }

// handler does an operation and looks for what it left behind.
type handler struct {
	do   func(*connector, context.Context, connectors.Act) (connectors.Receipt, error)
	find func(*connector, context.Context, connectors.Act) (connectors.Finding, error)
}

var handlers = map[string]handler{
	lodestone.VerbInvite: {(*connector).create, (*connector).findCreated},
	lodestone.VerbRefer:  {(*connector).create, (*connector).findCreated},
	opCreate:             {(*connector).create, (*connector).findCreated},
	opUpdate:             {(*connector).update, (*connector).findUpdated},
	opDelete:             {(*connector).remove, (*connector).findRemoved},
	opQualify:            {(*connector).qualify, (*connector).findQualified},
	opSetQualif:          {(*connector).qualify, (*connector).findQualified},
}

// offered are the operations that rules may call: those generated from the specification, without what
// the settings or a search give, and with flat names for what is nested in the request.
func offered() []lodestone.Operation {
	out := make([]lodestone.Operation, 0, len(operations))
	for _, op := range operations {
		op.Parameters = slices.DeleteFunc(slices.Clone(op.Parameters), func(p lodestone.Parameter) bool {
			return p.Name == CampaignID || p.Name == "identifier"
		})
		switch op.Name {
		case lodestone.VerbInvite:
			op.Summary = "Add the lead to the campaign, as somebody who refers others"
			op.Parameters = append(op.Parameters, metaParameters()...)
		case lodestone.VerbRefer, opCreate:
			if op.Name == lodestone.VerbRefer {
				op.Summary = "Add the lead to the campaign, as a lead of the referrer"
			}
			op.Parameters = append(op.Parameters, lodestone.Parameter{
				Name: referrerValue, Type: lodestone.FieldText, Required: op.Name == lodestone.VerbRefer,
				Description: "Who brought the person in: a code, or what referrer_field says.",
			}, lodestone.Parameter{
				Name: referrerField, Type: lodestone.FieldText,
				Description: "What referrer_value is. One of code (when left out), id, email.",
			})
			op.Parameters = append(op.Parameters, metaParameters()...)
		case opUpdate:
			op.Parameters = append(op.Parameters, metaParameters()...)
		case opQualify, opSetQualif:
			// A qualification makes rewards due.
			op.Effect = lodestone.EffectPay
			for i := range op.Parameters {
				if op.Parameters[i].Name == "qualified" {
					op.Parameters[i].Required = false
					op.Parameters[i].Description = "True when left out. " + op.Parameters[i].Description
				}
			}
		}
		slices.SortStableFunc(op.Parameters, func(a, b lodestone.Parameter) int {
			switch {
			case a.Required == b.Required:
				return strings.Compare(a.Name, b.Name)
			case a.Required:
				return -1
			}
			return 1
		})
		out = append(out, op)
	}
	return out
}

func metaParameters() (out []lodestone.Parameter) {
	for i := 1; i <= metaPairs; i++ {
		out = append(out,
			lodestone.Parameter{Name: metaField(i), Type: lodestone.FieldText, Description: "Label of a field of the campaign."},
			lodestone.Parameter{Name: metaValue(i), Type: lodestone.FieldText, Description: "What to put into it."})
	}
	return out
}

// given are the parameters of an act, checked against its operation's.
type given struct {
	email     lodestone.Email
	texts     map[string]string
	flags     map[string]bool
	meta      []api.MetaField
	referrer  *api.Referrer
	operation string
}

// parameters checks an act. What is wrong with it is a fault that says that nothing was sent.
func (c *connector) parameters(act connectors.Act) (given, error) {
	reject := func(format string, args ...any) (given, error) {
		return given{}, c.t.Reject(act.Operation, fmt.Sprintf(format, args...))
	}
	all := offered()
	i := slices.IndexFunc(all, func(op lodestone.Operation) bool { return op.Name == act.Operation })
	if i < 0 {
		return reject("referralfactory has no such operation")
	}
	op, g := all[i], given{operation: act.Operation, email: act.Email, texts: map[string]string{}, flags: map[string]bool{}}
	for name, value := range act.Parameters {
		p, ok := op.Parameter(name)
		if !ok {
			return reject("it has no parameter %q", name)
		}
		if value == nil {
			continue
		}
		if flag, ok := value.(bool); ok && p.Type == lodestone.FieldBoolean {
			g.flags[name] = flag
			continue
		}
		text, ok := asText(value)
		if !ok || p.Type == lodestone.FieldBoolean {
			return reject("%s must be %s", name, p.Type)
		}
		if p.Type != lodestone.FieldEmail {
			g.texts[name] = text
			continue
		}
		email, err := lodestone.ParseEmail(text)
		if err != nil {
			return reject("%s is no usable address", name)
		}
		g.email = email
	}
	for _, p := range op.Parameters {
		if p.Required && strings.TrimSpace(g.texts[p.Name]) == "" {
			return reject("%s is required and has no value", p.Name)
		}
	}
	if g.email == "" {
		return reject("there is no address")
	}
	for i := 1; i <= metaPairs; i++ {
		value, has := g.texts[metaValue(i)]
		switch label := g.texts[metaField(i)]; {
		case has && label == "":
			return reject("%s needs %s", metaValue(i), metaField(i))
		case has:
			g.meta = append(g.meta, api.MetaField{Field: label, Value: &value})
		}
	}
	if value := strings.TrimSpace(g.texts[referrerValue]); value != "" {
		field := api.ReferrerField(g.texts[referrerField])
		switch field {
		case "":
			field = "code"
		case "code", "id", "email":
		default:
			return reject("%s must be code, id or email", referrerField)
		}
		if field == "email" {
			email, err := lodestone.ParseEmail(value)
			if err != nil {
				return reject("%s is no usable address", referrerValue)
			}
			value = string(email)
		}
		g.referrer = &api.Referrer{Field: field, Value: value}
	}
	return g, nil
}

// metaList leaves the list out of a request when there is nothing in it.
func (g given) metaList() *[]api.MetaField {
	if len(g.meta) == 0 {
		return nil
	}
	return &g.meta
}

func (g given) flag(name string) *bool {
	if v, ok := g.flags[name]; ok {
		return &v
	}
	return nil
}

// asText writes a parameter's value out: fields of forms are typed, and a customer number or an
// answer of yes and no is a text here.
func asText(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), true
	case int64:
		return strconv.FormatInt(v, 10), true
	case json.Number:
		return v.String(), true
	case bool:
		return strconv.FormatBool(v), true
	}
	return "", false
}
