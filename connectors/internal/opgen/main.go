// Command opgen writes the operations that rules may call, as a Go table, from a provider's OpenAPI
// description, so that no field is typed twice.
//
//	opgen -spec openapi.yaml -package referralrock -out operations_gen.go invite=createInviteFeedEntry refer=createReferral,-status
//
// With -catalogue it also writes the whole catalogue: an endpoint for each operation.
//
// Each argument is the operation's name, an equals sign and its operationId (both at once when they
// are the same), then the fields to leave out, each with a minus sign. Such an operation is the
// connector's own way of doing it and must be flat: its query, path and body hold texts, numbers and
// booleans only. `email` is never required, because it is the lead's unless a rule says otherwise.
package main

import (
	"bytes"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"go/format"
	"os"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/lodestonehq/lodestone"
)

func main() {
	var spec, pkg, out, all string
	flag.StringVar(&spec, "spec", "openapi.yaml", "the description to read")
	flag.StringVar(&pkg, "package", "", "name of the package to write")
	flag.StringVar(&out, "out", "operations_gen.go", "the file to write")
	flag.StringVar(&all, "catalogue", "", "a file for the endpoints of every operation")
	flag.Parse()
	if err := run(spec, pkg, out, all, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "opgen:", err)
		os.Exit(1)
	}
}

func run(spec, pkg, out, all string, wanted []string) error {
	if pkg == "" || len(wanted) == 0 {
		return errors.New("-package and at least one operation are needed")
	}
	doc, err := openapi3.NewLoader().LoadFromFile(spec)
	if err != nil {
		return err
	}
	var ops []lodestone.Operation
	for _, w := range wanted {
		op, err := operation(doc, w)
		if err != nil {
			return fmt.Errorf("%s: %w", w, err)
		}
		ops = append(ops, op)
	}
	src, err := source(spec, pkg, ops)
	if err != nil {
		return err
	}
	if err := os.WriteFile(out, src, 0o644); err != nil || all == "" {
		return err
	}
	list, err := catalogue(doc)
	if err != nil {
		return err
	}
	if src, err = catalogueSource(spec, pkg, list); err != nil {
		return err
	}
	return os.WriteFile(all, src, 0o644)
}

// operation finds and flattens what an argument names.
func operation(doc *openapi3.T, wanted string) (lodestone.Operation, error) {
	parts := strings.Split(wanted, ",")
	name, id, renamed := strings.Cut(parts[0], "=")
	if !renamed {
		id = name
	}
	var without []string
	for _, p := range parts[1:] {
		field, ok := strings.CutPrefix(p, "-")
		if !ok {
			return lodestone.Operation{}, fmt.Errorf("%q is not a field to leave out; write -%s", p, p)
		}
		without = append(without, field)
	}
	for _, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			if op.OperationID == id {
				return flatten(name, method, op, without)
			}
		}
	}
	return lodestone.Operation{}, errors.New("no such operationId")
}

func flatten(name, method string, op *openapi3.Operation, without []string) (lodestone.Operation, error) {
	out := lodestone.Operation{Name: name, Summary: op.Summary, Effect: effect(method)}
	add := func(field string, required bool, s *openapi3.Schema, description string) error {
		if i := slices.Index(without, field); i >= 0 {
			without = slices.Delete(without, i, i+1)
			if required {
				return fmt.Errorf("%s is required and cannot be left out", field)
			}
			return nil
		}
		t, err := fieldType(field, s)
		if err != nil {
			return err
		}
		var values []string
		if len(s.Enum) > 0 {
			for _, v := range s.Enum {
				values = append(values, fmt.Sprint(v))
			}
			description = strings.TrimSpace(description + " One of " + strings.Join(values, ", ") + ".")
		}
		out.Parameters = append(out.Parameters, lodestone.Parameter{
			Name: field, Type: t, Required: required && field != "email", Description: description, Values: values,
		})
		return nil
	}
	for _, p := range op.Parameters {
		if err := add(p.Value.Name, p.Value.Required, p.Value.Schema.Value, p.Value.Description); err != nil {
			return out, err
		}
	}
	if op.RequestBody != nil {
		media := op.RequestBody.Value.Content.Get("application/json")
		if media == nil {
			return out, errors.New("its body is not JSON")
		}
		body := media.Schema.Value
		if !body.Type.Is("object") {
			return out, errors.New("its body is not one object")
		}
		for field, s := range body.Properties {
			if err := add(field, slices.Contains(body.Required, field), s.Value, s.Value.Description); err != nil {
				return out, err
			}
		}
	}
	if len(without) > 0 {
		return out, fmt.Errorf("it has no field %s", strings.Join(without, ", "))
	}
	slices.SortFunc(out.Parameters, func(a, b lodestone.Parameter) int {
		if a.Required != b.Required {
			if a.Required {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Name, b.Name)
	})
	return out, nil
}

func effect(method string) lodestone.Effect {
	switch method {
	case "GET":
		return lodestone.EffectRead
	case "DELETE":
		return lodestone.EffectDestroy
	}
	return lodestone.EffectWrite
}

func fieldType(field string, s *openapi3.Schema) (lodestone.FieldType, error) {
	switch {
	case s.Type.Is("string") && (s.Format == "email" || field == "email"):
		return lodestone.FieldEmail, nil
	case s.Type.Is("string"):
		return lodestone.FieldText, nil
	case s.Type.Is("number"), s.Type.Is("integer"):
		return lodestone.FieldNumber, nil
	case s.Type.Is("boolean"):
		return lodestone.FieldBoolean, nil
	}
	return "", fmt.Errorf("%s is neither text nor number nor boolean", field)
}

var (
	typeNames = map[lodestone.FieldType]string{
		lodestone.FieldEmail: "FieldEmail", lodestone.FieldText: "FieldText",
		lodestone.FieldNumber: "FieldNumber", lodestone.FieldBoolean: "FieldBoolean",
	}
	effectNames = map[lodestone.Effect]string{
		lodestone.EffectRead: "EffectRead", lodestone.EffectWrite: "EffectWrite", lodestone.EffectDestroy: "EffectDestroy", lodestone.EffectPay: "EffectPay",
	}
)

func source(spec, pkg string, ops []lodestone.Operation) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "// Code generated by opgen from %s. DO NOT EDIT.\n\npackage %s\n\n", spec, pkg)
	fmt.Fprintf(&b, "import \"github.com/lodestonehq/lodestone\"\n\n")
	fmt.Fprintf(&b, "// operations are what rules may call.\nvar operations = []lodestone.Operation{\n")
	for _, op := range ops {
		fmt.Fprintf(&b, "{Name: %q, Summary: %q, Effect: lodestone.%s, Parameters: []lodestone.Parameter{\n", op.Name, op.Summary, effectNames[op.Effect])
		for _, p := range op.Parameters {
			fmt.Fprintf(&b, "{Name: %q, Type: lodestone.%s", p.Name, typeNames[p.Type])
			if p.Required {
				fmt.Fprint(&b, ", Required: true")
			}
			if p.Description != "" {
				fmt.Fprintf(&b, ", Description: %q", p.Description)
			}
			if len(p.Values) > 0 {
				fmt.Fprintf(&b, ", Values: %#v", p.Values)
			}
			fmt.Fprint(&b, "},\n")
		}
		fmt.Fprint(&b, "}},\n")
	}
	fmt.Fprint(&b, "}\n")
	return format.Source(b.Bytes())
}
