package connectors

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"

	"github.com/lodestonehq/lodestone"
)

// humanOnly is why no step may name what undoes a person's own wish.
const humanOnly = "it undoes what a person asked for, so only people do it, with `lodestone call`"

// Operation is the endpoint as rule files know it. Its parameters are those of the schema, lists and
// objects included.
//
// One argument is kept from steps: a status that an operation may set while it makes what is paid for.
// It would pay on the word of whoever filled in a form; to set it on what is there is an operation of
// its own.
func (e *Endpoint) Operation() lodestone.Operation {
	op := lodestone.Operation{Name: e.Name, Summary: e.Summary, Effect: e.Effect, NoStep: e.barred(),
		// Of what changes something only that which reaches nobody, such as an unsubscribe.
		Again: e.Effect == lodestone.EffectRead || e.Repeatable && e.Quiet,
	}
	var whole node
	if err := json.Unmarshal([]byte(e.Schema), &whole); err != nil {
		panic(fmt.Sprintf("the schema of %s is generated and no JSON: %v", e.Name, err))
	}
	for _, a := range e.Arguments {
		if a.Name == "status" && e.Effect == lodestone.EffectPay && !a.Required {
			continue
		}
		p := whole.Properties[a.Name].parameter(a.Name)
		// What the settings give is not required, and the lead's address is there without being given.
		p.Required, p.Description = a.Required && !p.Own(), a.Description
		op.Parameters = append(op.Parameters, p)
	}
	return op
}

// barred is why a step may not name the operation; empty: it may.
func (e *Endpoint) barred() string {
	if e.HumanOnly {
		return humanOnly
	}
	return e.NoStep
}

// node is a piece of an argument schema, as far as rule files are checked against it.
type node struct {
	Type        any // a name, or a list of names with null
	Format      string
	Description string
	Enum        []any
	Items       *node
	Properties  map[string]*node
	Required    []string
	AllOf       []*node
	MinItems    int
	MaxItems    int
	MaxLength   int
}

// kind is the JSON type, "" where the schema does not say one.
func (n *node) kind() string {
	switch t := n.Type.(type) {
	case string:
		return t
	case []any:
		for _, x := range t {
			if s, _ := x.(string); s != "null" {
				return s
			}
		}
	}
	return ""
}

// merged is the node with what its allOf adds.
func (n *node) merged() *node {
	if len(n.AllOf) == 0 {
		return n
	}
	out := *n
	out.AllOf, out.Properties = nil, maps.Clone(n.Properties)
	for _, part := range n.AllOf {
		m := part.merged()
		if out.Properties == nil {
			out.Properties = map[string]*node{}
		}
		maps.Copy(out.Properties, m.Properties)
		out.Required = append(slices.Clone(out.Required), m.Required...)
		out.Type, out.Description = cmp.Or(out.Type, m.Type), cmp.Or(out.Description, m.Description)
	}
	return &out
}

func (n *node) parameter(name string) lodestone.Parameter {
	p := lodestone.Parameter{Name: name}
	if n == nil {
		return p
	}
	n = n.merged()
	p.Description = n.Description
	for _, v := range n.Enum {
		if v != nil {
			p.Values = append(p.Values, fmt.Sprint(v))
		}
	}
	switch kind := n.kind(); {
	case kind == "array":
		p.Type, p.Least, p.Most = lodestone.FieldList, n.MinItems, n.MaxItems
		if n.Items != nil {
			item := n.Items.parameter("")
			p.Items = &item
		}
	case kind == "object" || len(n.Properties) > 0:
		p.Type = lodestone.FieldObject
		for field, s := range n.Properties {
			f := s.parameter(field)
			f.Required = slices.Contains(n.Required, field)
			p.Fields = append(p.Fields, f)
		}
		slices.SortFunc(p.Fields, func(a, b lodestone.Parameter) int {
			switch {
			case a.Required == b.Required:
				return cmp.Compare(a.Name, b.Name)
			case a.Required:
				return -1
			}
			return 1
		})
	case kind == "string" && (n.Format == "email" || name == "email"):
		p.Type = lodestone.FieldEmail
	default:
		p.Type = scalarTypes[kind]
	}
	if kind := n.kind(); kind == "string" {
		p.Length, p.Holds = n.MaxLength, holding(n.Format, name)
	}
	return p
}

// holding says what a text is read as: by its format, else by a name that means a letter rather than a label.
func holding(format, name string) lodestone.Holding {
	switch format {
	case "uri", "url":
		return lodestone.HoldsURL
	case "html":
		return lodestone.HoldsHTML
	}
	if linesName.MatchString(name) {
		return lodestone.HoldsLines
	}
	return lodestone.HoldsLine
}

var linesName = regexp.MustCompile(`(?i)(message|notes?|comments?|body)$`)

var scalarTypes = map[string]lodestone.FieldType{
	"string": lodestone.FieldText, "number": lodestone.FieldNumber, "integer": lodestone.FieldNumber, "boolean": lodestone.FieldBoolean,
}
