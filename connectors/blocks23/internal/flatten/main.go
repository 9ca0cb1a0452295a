// Command flatten runs opgen over 23blocks' description: as it stands for the catalogue, and for the
// operations that rules may call after making them flat, as opgen wants them:
//
//   - the fields of a write are taken out of the object `referral` that wraps them
//   - fields that hold objects are dropped, because rules give texts, numbers and booleans
//   - referred_email becomes email, since the referred person is the lead
//   - the form leaves the path, since it is a setting
//
// The arguments are the name of the package, then opgen's operations. It reads openapi.yaml and writes
// operations_gen.go and endpoints_gen.go in the working directory.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v4"
)

const (
	wrapper = "referral"
	lead    = "referred_email"
	form    = "#/components/parameters/FormUniqueId"

	spec       = "openapi.yaml"
	operations = "operations_gen.go"
	endpoints  = "endpoints_gen.go"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "flatten:", err)
		os.Exit(1)
	}
}

// run works in a folder of its own, so that the flat description, which opgen names as its source, has
// the name of the one it stands for.
func run(args []string) error {
	if len(args) < 2 {
		return errors.New("give the name of the package and the operations")
	}
	raw, err := os.ReadFile(spec)
	if err != nil {
		return err
	}
	var doc map[string]any
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		return err
	}
	if err := flatten(doc); err != nil {
		return err
	}
	flat, err := yaml.Marshal(doc)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "flatten")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	opgen := filepath.Join(dir, "opgen")
	if err := command("", "go", "build", "-o", opgen, "../internal/opgen"); err != nil {
		return err
	}
	for _, pass := range []struct {
		spec []byte
		out  string
		args []string
	}{
		// opgen wants an operation also where the catalogue is all that is kept; a deletion is flat.
		{raw, endpoints, []string{"-out", "unused_gen.go", "-catalogue", endpoints, "deleteReferral"}},
		{flat, operations, append([]string{"-out", operations}, args[1:]...)},
	} {
		if err := os.WriteFile(filepath.Join(dir, spec), pass.spec, 0o600); err != nil {
			return err
		}
		if err := command(dir, opgen, append([]string{"-spec", spec, "-package", args[0]}, pass.args...)...); err != nil {
			return err
		}
		src, err := os.ReadFile(filepath.Join(dir, pass.out))
		if err != nil {
			return err
		}
		if err := os.WriteFile(pass.out, src, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func command(dir, name string, args ...string) error {
	c := exec.Command(name, args...)
	c.Dir, c.Stdout, c.Stderr = dir, os.Stdout, os.Stderr
	return c.Run()
}

func flatten(doc map[string]any) error {
	schemas := object(object(doc["components"])["schemas"])
	written := 0
	for _, item := range object(doc["paths"]) {
		item := object(item)
		params, _ := item["parameters"].([]any)
		delete(item, "parameters")
		for _, op := range item {
			op := object(op)
			own, _ := op["parameters"].([]any)
			var all []any
			for _, p := range append(own, params...) {
				if object(p)["$ref"] != form {
					all = append(all, p)
				}
			}
			op["parameters"] = all
			media := object(object(object(op["requestBody"])["content"])["application/json"])
			if media == nil {
				continue
			}
			body := object(follow(schemas, media["schema"])["properties"])
			fields := follow(schemas, body[wrapper])
			if len(body) != 1 || fields == nil {
				return fmt.Errorf("the body of %v is not wrapped in %s", op["operationId"], wrapper)
			}
			media["schema"] = flat(schemas, fields)
			written++
		}
	}
	if written == 0 {
		return errors.New("no operation has a body")
	}
	return nil
}

// flat copies an object's schema, since two operations may share it.
func flat(schemas, s map[string]any) map[string]any {
	properties := map[string]any{}
	for name, p := range object(s["properties"]) {
		if follow(schemas, p)["type"] == "object" {
			continue
		}
		if name == lead {
			name = "email"
		}
		properties[name] = p
	}
	var required []any
	all, _ := s["required"].([]any)
	for _, name := range all {
		if name == lead {
			name = "email"
		}
		required = append(required, name)
	}
	return map[string]any{"type": "object", "properties": properties, "required": required}
}

func follow(schemas map[string]any, v any) map[string]any {
	m := object(v)
	if ref, ok := m["$ref"].(string); ok {
		return object(schemas[strings.TrimPrefix(ref, "#/components/schemas/")])
	}
	return m
}

func object(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}
