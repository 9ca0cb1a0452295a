package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"go/format"
	"maps"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
)

// The specification's extensions that the catalogue reads, where HTTP does not say it:
//
//	x-effect: read | write | destroy | pay
//	x-repeatable: true              doing it again changes nothing more
//	x-human-only: true              never from a rule or an agent
//	x-quiet: true                   leads to no contact with the person it names
//	x-no-step: text                 why a step may not name it
//	x-whose: {path: kind}           arguments that stand for a person, and what they are an id of;
//	                                "address" is the address itself
//	x-required: [a]                 arguments that the provider asks for without saying so
//	x-exactly-one: [a, b]           exactly one of these arguments must be given
//	x-replaced-by: operationId      of a deprecated operation
//	x-tool: text                    its title

// catalogue makes an endpoint of every operation, in the order of their names.
func catalogue(doc *openapi3.T) ([]connectors.Endpoint, error) {
	var list []connectors.Endpoint
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			e, err := endpoint(path, method, item, op)
			if err != nil {
				return nil, fmt.Errorf("%s %s: %w", method, path, err)
			}
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b connectors.Endpoint) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

func endpoint(path, method string, item *openapi3.PathItem, op *openapi3.Operation) (connectors.Endpoint, error) {
	if op.OperationID == "" {
		return connectors.Endpoint{}, errors.New("it has no operationId")
	}
	e := connectors.Endpoint{
		Name: op.OperationID, Title: text(op.Extensions["x-tool"]), Summary: op.Summary, Description: oneLine(op.Description),
		Method: method, Path: path, Effect: effect(method), Repeatable: method == "GET" || method == "PUT" || method == "DELETE",
	}
	if v := text(op.Extensions["x-effect"]); v != "" {
		e.Effect = lodestone.Effect(v)
	}
	if v, ok := op.Extensions["x-repeatable"].(bool); ok {
		e.Repeatable = v
	} else if e.Effect == lodestone.EffectRead {
		e.Repeatable = true
	}
	e.HumanOnly, _ = op.Extensions["x-human-only"].(bool)
	e.Quiet, _ = op.Extensions["x-quiet"].(bool)
	e.NoStep = text(op.Extensions["x-no-step"])
	if whose, ok := op.Extensions["x-whose"].(map[string]any); ok {
		for _, path := range slices.Sorted(maps.Keys(whose)) {
			e.Whose = append(e.Whose, connectors.Whose{Path: path, Kind: text(whose[path])})
		}
	}
	if op.Deprecated {
		e.Deprecated = "the provider calls it deprecated"
		if by := text(op.Extensions["x-replaced-by"]); by != "" {
			e.Deprecated += "; use " + by
		}
	}
	a := arguments{e: &e, properties: map[string]any{}}
	for _, p := range append(slices.Clone(item.Parameters), op.Parameters...) {
		place := connectors.Place(p.Value.In)
		if place != connectors.InPath && place != connectors.InQuery {
			continue // headers carry credentials, which are the connector's
		}
		if err := a.add(p.Value.Name, place, p.Value.Required, p.Value.Schema, p.Value.Description); err != nil {
			return e, err
		}
	}
	if err := a.body(op); err != nil {
		return e, err
	}
	if names, ok := op.Extensions["x-exactly-one"].([]any); ok {
		var choices []any
		for _, n := range names {
			if _, known := a.properties[text(n)]; !known {
				return e, fmt.Errorf("x-exactly-one names %v, which is no argument", n)
			}
			choices = append(choices, map[string]any{"required": []any{n}})
		}
		if a.more == nil {
			a.more = map[string]any{}
		}
		a.more["oneOf"] = choices
	}
	if names, ok := op.Extensions["x-required"].([]any); ok {
		for _, n := range names {
			i := slices.IndexFunc(e.Arguments, func(x connectors.Argument) bool { return x.Name == text(n) })
			if i < 0 {
				return e, fmt.Errorf("x-required names %v, which is no argument", n)
			}
			e.Arguments[i].Required = true
			a.required = append(a.required, text(n))
		}
	}
	for _, w := range e.Whose {
		first, _, _ := strings.Cut(w.Path, ".")
		if _, known := a.properties[first]; !known || w.Kind == "" {
			return e, fmt.Errorf("x-whose names %s, which is no argument, or has no kind", w.Path)
		}
	}
	e.Paging = paging(e)
	slices.SortFunc(e.Arguments, func(a, b connectors.Argument) int {
		if a.Required != b.Required {
			if a.Required {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Name, b.Name)
	})
	return e, a.schema()
}

// arguments gathers the arguments of one endpoint and their schemas.
type arguments struct {
	e          *connectors.Endpoint
	properties map[string]any
	required   []string
	more       map[string]any // conditions of the body as a whole: oneOf, anyOf, …
}

func (a *arguments) add(name string, in connectors.Place, required bool, ref *openapi3.SchemaRef, description string) error {
	if _, twice := a.properties[name]; twice {
		i := slices.IndexFunc(a.e.Arguments, func(x connectors.Argument) bool { return x.Name == name && x.In == connectors.InPath })
		if i < 0 || in != connectors.InBody {
			return fmt.Errorf("two arguments are called %s", name)
		}
		a.e.Arguments[i].In = connectors.InPathAndBody // the body repeats what the path says
		return nil
	}
	s, err := inline(ref, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	description = oneLine(cmp.Or(description, ref.Value.Description))
	if description != "" {
		s["description"] = description
	}
	arg := connectors.Argument{Name: name, In: in, Required: required, Description: description, Format: ref.Value.Format}
	arg.Type = "string"
	if t := ref.Value.Type; t != nil && len(*t) > 0 {
		arg.Type = (*t)[0]
	} else if len(ref.Value.Properties) > 0 || len(ref.Value.AllOf) > 0 {
		arg.Type = "object"
	}
	for _, v := range ref.Value.Enum {
		if v != nil {
			arg.Values = append(arg.Values, fmt.Sprint(v))
		}
	}
	a.e.Arguments = append(a.e.Arguments, arg)
	a.properties[name] = s
	if required {
		a.required = append(a.required, name)
	}
	return nil
}

func (a *arguments) body(op *openapi3.Operation) error {
	if op.RequestBody == nil {
		return nil
	}
	media := op.RequestBody.Value.Content.Get("application/json")
	if media == nil {
		return errors.New("its body is not JSON")
	}
	must, s := op.RequestBody.Value.Required, media.Schema.Value
	switch {
	case s.Type.Is("array"):
		a.e.Body = connectors.ListBody
		return a.add(connectors.ItemsArgument, connectors.InBody, must, media.Schema, cmp.Or(op.RequestBody.Value.Description, "What the operation is about, one element each."))
	case s.Type.Is("string"):
		a.e.Body = connectors.TextBody
		if _, twice := a.properties[connectors.TextArgument]; twice { // it may be given in the query as well
			delete(a.properties, connectors.TextArgument)
			a.e.Arguments = slices.DeleteFunc(a.e.Arguments, func(x connectors.Argument) bool { return x.Name == connectors.TextArgument })
			a.required = slices.DeleteFunc(a.required, func(n string) bool { return n == connectors.TextArgument })
		}
		return a.add(connectors.TextArgument, connectors.InBody, true, media.Schema, cmp.Or(op.RequestBody.Value.Description, "The address."))
	}
	a.e.Body = connectors.ObjectBody
	whole := merged(s)
	for _, name := range slices.Sorted(maps.Keys(whole.Properties)) {
		if err := a.add(name, connectors.InBody, slices.Contains(whole.Required, name), whole.Properties[name], ""); err != nil {
			return err
		}
	}
	a.more = map[string]any{}
	if outside := len(a.properties) - len(whole.Properties); outside == 0 { // else other arguments would count
		if s.MinProps > 0 {
			a.more["minProperties"] = s.MinProps
		}
		if s.MaxProps != nil {
			a.more["maxProperties"] = *s.MaxProps
		}
	}
	for key, refs := range map[string]openapi3.SchemaRefs{"oneOf": s.OneOf, "anyOf": s.AnyOf} {
		var list []any
		for _, r := range refs {
			m, err := inline(r, 0)
			if err != nil {
				return err
			}
			list = append(list, m)
		}
		if list != nil {
			a.more[key] = list
		}
	}
	return nil
}

// merged is an object schema with what its allOf adds.
func merged(s *openapi3.Schema) *openapi3.Schema {
	out := &openapi3.Schema{Properties: openapi3.Schemas{}, Required: slices.Clone(s.Required)}
	for _, part := range s.AllOf {
		m := merged(part.Value)
		maps.Copy(out.Properties, m.Properties)
		out.Required = append(out.Required, m.Required...)
	}
	maps.Copy(out.Properties, s.Properties)
	return out
}

func (a *arguments) schema() error {
	s := map[string]any{"type": "object", "properties": a.properties, "additionalProperties": false}
	if len(a.required) > 0 {
		slices.Sort(a.required)
		s["required"] = a.required
	}
	maps.Copy(s, a.more)
	b, err := json.Marshal(s)
	a.e.Schema = string(b)
	return err
}

// inline writes a schema of OpenAPI 3.0 as JSON Schema, with what it refers to in place.
func inline(ref *openapi3.SchemaRef, depth int) (map[string]any, error) {
	if depth > 16 {
		return nil, errors.New("its schema goes round in a circle")
	}
	s := ref.Value
	out := map[string]any{}
	var failed error
	sub := func(r *openapi3.SchemaRef) map[string]any {
		m, err := inline(r, depth+1)
		failed = errors.Join(failed, err)
		return m
	}
	if s.Type != nil && len(*s.Type) > 0 {
		if s.Nullable {
			out["type"] = []string{(*s.Type)[0], "null"}
		} else {
			out["type"] = (*s.Type)[0]
		}
	}
	put := func(key string, v any, given bool) {
		if given {
			out[key] = v
		}
	}
	put("description", oneLine(s.Description), s.Description != "")
	put("format", s.Format, s.Format != "")
	put("enum", s.Enum, len(s.Enum) > 0)
	put("pattern", s.Pattern, s.Pattern != "")
	put("minLength", s.MinLength, s.MinLength > 0)
	put("minItems", s.MinItems, s.MinItems > 0)
	put("minProperties", s.MinProps, s.MinProps > 0)
	if s.MaxLength != nil {
		out["maxLength"] = *s.MaxLength
	}
	if s.MaxItems != nil {
		out["maxItems"] = *s.MaxItems
	}
	if s.Min != nil {
		out["minimum"] = *s.Min
	}
	if s.Max != nil {
		out["maximum"] = *s.Max
	}
	if s.Example != nil {
		out["examples"] = []any{s.Example}
	}
	if s.Items != nil {
		out["items"] = sub(s.Items)
	}
	if len(s.Properties) > 0 {
		props := map[string]any{}
		for name, p := range s.Properties {
			props[name] = sub(p)
		}
		out["properties"] = props
	}
	put("required", s.Required, len(s.Required) > 0)
	for key, refs := range map[string]openapi3.SchemaRefs{"oneOf": s.OneOf, "anyOf": s.AnyOf, "allOf": s.AllOf} {
		var list []any
		for _, r := range refs {
			list = append(list, sub(r))
		}
		put(key, list, list != nil)
	}
	return out, failed
}

// paging recognises how a list is walked by the names of its arguments.
func paging(e connectors.Endpoint) (p connectors.Paging) {
	for _, a := range e.Arguments {
		switch a.Name {
		case "offset":
			p.Offset = a.Name
		case "page":
			p.Page = a.Name
		case "count", "limit", "records", "per_page":
			p.Size = a.Name
		}
	}
	if !p.Pages() {
		return connectors.Paging{}
	}
	return p
}

// catalogueSource writes the endpoints as Go.
func catalogueSource(spec, pkg string, list []connectors.Endpoint) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "// Code generated by opgen from %s. DO NOT EDIT.\n\npackage %s\n\n", spec, pkg)
	fmt.Fprint(&b, "import (\n\"github.com/lodestonehq/lodestone\"\n\"github.com/lodestonehq/lodestone/connectors\"\n)\n\n")
	fmt.Fprint(&b, "// endpoints are every operation of the specification, by name.\nvar endpoints = []connectors.Endpoint{\n")
	for _, e := range list {
		fmt.Fprintf(&b, "{\nName: %q, Title: %q,\nSummary: %q,\n", e.Name, e.Title, e.Summary)
		if e.Description != "" {
			fmt.Fprintf(&b, "Description: %q,\n", e.Description)
		}
		fmt.Fprintf(&b, "Method: %q, Path: %q, Effect: lodestone.%s,\n", e.Method, e.Path, effectNames[e.Effect])
		if e.Repeatable {
			fmt.Fprint(&b, "Repeatable: true,\n")
		}
		if e.HumanOnly {
			fmt.Fprint(&b, "HumanOnly: true,\n")
		}
		if e.Quiet {
			fmt.Fprint(&b, "Quiet: true,\n")
		}
		if e.NoStep != "" {
			fmt.Fprintf(&b, "NoStep: %q,\n", e.NoStep)
		}
		if len(e.Whose) > 0 {
			fmt.Fprint(&b, "Whose: []connectors.Whose{\n")
			for _, w := range e.Whose {
				fmt.Fprintf(&b, "{Path: %q, Kind: %q},\n", w.Path, w.Kind)
			}
			fmt.Fprint(&b, "},\n")
		}
		if e.Deprecated != "" {
			fmt.Fprintf(&b, "Deprecated: %q,\n", e.Deprecated)
		}
		if e.Body != connectors.NoBody {
			fmt.Fprintf(&b, "Body: %q,\n", e.Body)
		}
		if e.Paging.Pages() {
			fmt.Fprintf(&b, "Paging: connectors.Paging{Offset: %q, Page: %q, Size: %q},\n", e.Paging.Offset, e.Paging.Page, e.Paging.Size)
		}
		if len(e.Arguments) > 0 {
			fmt.Fprint(&b, "Arguments: []connectors.Argument{\n")
			for _, a := range e.Arguments {
				fmt.Fprintf(&b, "{Name: %q, In: %q, Type: %q", a.Name, a.In, a.Type)
				if a.Format != "" {
					fmt.Fprintf(&b, ", Format: %q", a.Format)
				}
				if a.Required {
					fmt.Fprint(&b, ", Required: true")
				}
				if a.Description != "" {
					fmt.Fprintf(&b, ", Description: %q", a.Description)
				}
				if len(a.Values) > 0 {
					fmt.Fprintf(&b, ", Values: %#v", a.Values)
				}
				fmt.Fprint(&b, "},\n")
			}
			fmt.Fprint(&b, "},\n")
		}
		quote := "`"
		if strings.Contains(e.Schema, "`") {
			fmt.Fprintf(&b, "Schema: %q,\n", e.Schema)
		} else {
			fmt.Fprintf(&b, "Schema: %s%s%s,\n", quote, e.Schema, quote)
		}
		fmt.Fprint(&b, "},\n")
	}
	fmt.Fprint(&b, "}\n")
	return format.Source(b.Bytes())
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

// oneLine folds white space: the descriptions are wrapped for the eye.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
