package saasquatch

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
)

// tenantArgument is the description's name for the tenant, which the settings give.
const tenantArgument = "tenant_alias"

// Descriptions of what rules give in another form than the request holds it.
const (
	aboutCodes    = "Code of whoever brought the person in; several stand with commas between."
	aboutSegments = "Names of the segments to join, with commas between; a tilde in front means leave."
	aboutFields   = "Fields of the event, as a JSON object."
	aboutAccount  = "Account of the person; the address unless given."
	aboutUser     = "Id of the person; the address unless given."
	aboutKey      = "The provider takes one event under a key; made of the touchpoint's id unless given."
)

// acts are what rules may call through the connector itself: the verb, and two operations that need
// more than the catalogue gives them. Everything else is called through the catalogue.
var acts = []lodestone.Operation{referOperation(), applyOperation(), trackOperation()}

// referOperation is the upsert as a referral: the path and the ids follow from the address. referable
// is left out because false would keep the person from being referred; lists and objects are left to
// openUserUpsert, which a step may name as well.
func referOperation() lodestone.Operation {
	out := lodestone.Operation{
		Name: lodestone.VerbRefer, Summary: "Register a person as referred", Effect: lodestone.EffectWrite,
		Parameters: []lodestone.Parameter{{Name: "referredByCodes", Type: lodestone.FieldText, Required: true, Description: aboutCodes}},
	}
	upsert := endpoint(opUpsert)
	flat := upsert.Operation()
	for _, p := range flat.Parameters {
		switch a, _ := upsert.Argument(p.Name); {
		case a.In != connectors.InBody, p.Name == "id", p.Name == "referable":
		case p.Type == lodestone.FieldList, p.Type == lodestone.FieldObject: // openUserUpsert takes those
		default:
			out.Parameters = append(out.Parameters, p)
		}
	}
	out.Parameters = append(out.Parameters, lodestone.Parameter{Name: "segments", Type: lodestone.FieldText, Description: aboutSegments})
	return sorted(out)
}

// applyOperation applies a code to a person who is there already.
func applyOperation() lodestone.Operation {
	out := operations[0]
	out.Parameters = slices.DeleteFunc(slices.Clone(out.Parameters), func(p lodestone.Parameter) bool { return p.Name != "code" })
	out.Parameters = append(out.Parameters, identity()...)
	return sorted(out)
}

// trackOperation is one event. The description nests it in a list, which rules have not.
func trackOperation() lodestone.Operation {
	e := endpoint(opTrack)
	return sorted(lodestone.Operation{
		Name: e.Name, Summary: e.Summary, Effect: e.Effect,
		Parameters: append(identity(),
			lodestone.Parameter{Name: "key", Type: lodestone.FieldText, Required: true, Description: "Name of the event."},
			lodestone.Parameter{Name: "fields", Type: lodestone.FieldText, Description: aboutFields},
			lodestone.Parameter{Name: "dateTriggered", Type: lodestone.FieldNumber, Description: "Milliseconds since 1970."},
			lodestone.Parameter{Name: "idempotencyKey", Type: lodestone.FieldText, Description: aboutKey},
		),
	})
}

func identity() []lodestone.Parameter {
	return []lodestone.Parameter{
		{Name: "accountId", Type: lodestone.FieldText, Description: aboutAccount},
		{Name: "userId", Type: lodestone.FieldText, Description: aboutUser},
	}
}

// catalogue is every operation of the description. The tenant comes from the settings, so nobody has
// to give it: it stands last and is not required.
func catalogue() []connectors.Endpoint {
	out := slices.Clone(endpoints)
	for i := range out {
		var mine, tenant []connectors.Argument
		for _, a := range out[i].Arguments {
			if a.Name == tenantArgument {
				a.Required, a.Description = false, "Given by the settings."
				tenant = append(tenant, a)
				continue
			}
			mine = append(mine, a)
		}
		out[i].Arguments = append(mine, tenant...)
	}
	return out
}

// endpoint finds one of the catalogue; one that is missing is a bug of ours.
func endpoint(name string) *connectors.Endpoint {
	i := slices.IndexFunc(endpoints, func(e connectors.Endpoint) bool { return e.Name == name })
	return &endpoints[i]
}

// sorted puts the required parameters first, then goes by name.
func sorted(op lodestone.Operation) lodestone.Operation {
	slices.SortFunc(op.Parameters, func(a, b lodestone.Parameter) int {
		if a.Required != b.Required {
			if a.Required {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Name, b.Name)
	})
	return op
}

// arguments are an act's parameters in the form in which the request holds them.
type arguments struct {
	account, user string
	values        map[string]any
}

func (a arguments) text(name string) string {
	s, _ := a.values[name].(string)
	return s
}

func (a arguments) list(name string) []string {
	l, _ := a.values[name].([]string)
	return l
}

// body is a request's body: the values, and more of them as name and value in turn.
func (a arguments) body(more ...string) map[string]any {
	out := maps.Clone(a.values)
	for i := 0; i+1 < len(more); i += 2 {
		out[more[i]] = more[i+1]
	}
	return out
}

// arguments checks what an act gives against its operation, and finds out whom it is about: the
// lead's address, unless the rule gives another.
func (c *connector) arguments(act connectors.Act) (arguments, *connectors.Fault) {
	i := slices.IndexFunc(acts, func(op lodestone.Operation) bool { return op.Name == act.Operation })
	if i < 0 {
		return arguments{}, c.t.Reject(act.Operation, "saasquatch has no such operation")
	}
	given, err := read(acts[i], act)
	if err != nil {
		return arguments{}, c.t.Reject(act.Operation, err.Error())
	}
	return given, nil
}

func read(op lodestone.Operation, act connectors.Act) (arguments, error) {
	out := arguments{values: make(map[string]any, len(act.Parameters)+1)}
	for name, value := range act.Parameters {
		p, ok := op.Parameter(name)
		if !ok {
			return out, fmt.Errorf("it has no parameter %q", name)
		}
		if value == nil {
			continue
		}
		v, err := convert(p, value)
		if err != nil {
			return out, err
		}
		if v != nil {
			out.values[name] = v
		}
	}
	for _, p := range op.Parameters {
		if v, given := out.values[p.Name]; p.Required && (!given || v == "") {
			return out, errors.New(p.Name + " is required and has no value")
		}
	}
	person := string(act.Email)
	if _, takes := op.Parameter("email"); takes {
		// The path is made of it, and one person must have one path however the address is written.
		email, err := lodestone.ParseEmail(cmp.Or(out.text("email"), person))
		if err != nil {
			return out, fmt.Errorf("email: %w", err)
		}
		person, out.values["email"] = string(email), string(email)
	}
	out.account, out.user = cmp.Or(out.text("accountId"), person), cmp.Or(out.text("userId"), person)
	for _, id := range []string{out.account, out.user, out.text("code")} {
		if id == "." || id == ".." { // would be another path
			return out, errors.New("accountId, userId and code cannot be dots")
		}
	}
	return out, nil
}

// convert gives a parameter's value the form that the request holds. A number or a boolean where a
// text is wanted is written out: fields of forms are typed, and a code of digits is a text here. nil
// means that nothing is left of it.
func convert(p lodestone.Parameter, v any) (any, error) {
	text, isText := v.(string)
	if p.Type == lodestone.FieldText {
		switch v := v.(type) {
		case float64:
			text, isText = strconv.FormatFloat(v, 'f', -1, 64), true
		case bool:
			text, isText = strconv.FormatBool(v), true
		}
	}
	switch {
	case isText && (p.Name == "referredByCodes" || p.Name == "segments"):
		if list := split(text); len(list) > 0 {
			return list, nil
		}
		return nil, nil
	case isText && p.Name == "fields":
		var fields map[string]any
		if json.Unmarshal([]byte(text), &fields) != nil || fields == nil {
			return nil, errors.New("fields must be a JSON object")
		}
		return fields, nil
	case isText && (p.Type == lodestone.FieldText || p.Type == lodestone.FieldEmail):
		return text, nil
	}
	switch v.(type) {
	case float64:
		if p.Type == lodestone.FieldNumber {
			return v, nil
		}
	case bool:
		if p.Type == lodestone.FieldBoolean {
			return v, nil
		}
	}
	return nil, fmt.Errorf("%s must be %s", p.Name, p.Type)
}

// split reads a list with commas between.
func split(text string) []string {
	var list []string
	for s := range strings.SplitSeq(text, ",") {
		if s = strings.TrimSpace(s); s != "" && !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}
