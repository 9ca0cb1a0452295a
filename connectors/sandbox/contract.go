package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"go.yaml.in/yaml/v4"

	"github.com/lodestonehq/lodestone"
)

// contract is a provider's OpenAPI 3.0 description, made ready to check requests. It understands what
// our descriptions use. kin-openapi understands all of it and adds 3.6 MB to the binary; this way adds
// nothing, since the YAML and JSON Schema packages are there anyway.
type contract struct {
	routes map[string]*route // by method and path
}

// route is one operation of a provider.
type route struct {
	operation string
	query     map[string]parameter
	path      map[string]*jsonschema.Schema // of the variables
	body      *jsonschema.Schema            // nil: it takes none
	optional  bool                          // the body may be left out
	keys      map[string]bool               // of the body, or of each of its elements; nil: any
	answers   map[string]*jsonschema.Schema
}

type parameter struct {
	required bool
	typ      string // of JSON Schema
	schema   *jsonschema.Schema
}

const contractURL = "file:///openapi.json"

// mustContract reads a description that is built in; a faulty one is a bug of ours.
func mustContract(spec []byte) *contract {
	c, err := newContract(spec)
	if err != nil {
		panic("sandbox: " + err.Error())
	}
	return c
}

func newContract(spec []byte) (*contract, error) {
	var parsed any
	if err := yaml.Unmarshal(spec, &parsed); err != nil {
		return nil, err
	}
	raw, err := json.Marshal(parsed)
	if err != nil {
		return nil, err
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	doc, ok := nullable(v).(map[string]any)
	if !ok {
		return nil, errors.New("the description is no object")
	}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.AssertFormat()
	compiler.RegisterFormat(&jsonschema.Format{Name: "email", Validate: validEmail})
	if err := compiler.AddResource(contractURL, doc); err != nil {
		return nil, err
	}
	c := &contract{routes: map[string]*route{}}
	b := builder{doc: doc, compiler: compiler}
	for path, item := range object(doc["paths"]) {
		for method, op := range object(item) {
			r, err := b.route(object(op), "/paths/"+escape(path)+"/"+method)
			if err != nil {
				return nil, fmt.Errorf("%s %s: %w", method, path, err)
			}
			c.routes[strings.ToUpper(method)+" "+path] = r
		}
	}
	return c, nil
}

// validEmail is the address rule of the whole program; a text that is no address breaks the
// description.
func validEmail(v any) error {
	if s, ok := v.(string); ok {
		_, err := lodestone.ParseEmail(s)
		return err
	}
	return nil
}

// nullable turns what OpenAPI 3.0 writes as `nullable: true` into JSON Schema.
func nullable(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[k] = nullable(e)
		}
		if out["nullable"] == true {
			delete(out, "nullable")
			return map[string]any{"anyOf": []any{map[string]any{"type": "null"}, out}}
		}
		return out
	case []any:
		for i, e := range v {
			v[i] = nullable(e)
		}
	}
	return v
}

func object(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

// escape makes a key part of a JSON pointer in a URL.
func escape(key string) string {
	key = strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
	return strings.ReplaceAll(strings.ReplaceAll(key, "{", "%7B"), "}", "%7D")
}

type builder struct {
	doc      map[string]any
	compiler *jsonschema.Compiler
}

// follow resolves a reference within the description, and says where it led.
func (b builder) follow(v any, at string) (map[string]any, string) {
	m := object(v)
	for {
		ref, ok := m["$ref"].(string)
		if !ok {
			return m, at
		}
		at = strings.TrimPrefix(ref, "#")
		m = b.doc
		for _, key := range strings.Split(strings.TrimPrefix(at, "/"), "/") {
			m = object(m[key])
		}
	}
}

func (b builder) compile(at string) (*jsonschema.Schema, error) {
	return b.compiler.Compile(contractURL + "#" + at)
}

func (b builder) route(op map[string]any, at string) (*route, error) {
	r := &route{query: map[string]parameter{}, path: map[string]*jsonschema.Schema{}, answers: map[string]*jsonschema.Schema{}}
	r.operation, _ = op["operationId"].(string)
	params, _ := op["parameters"].([]any)
	for i, raw := range params {
		p, where := b.follow(raw, at+"/parameters/"+strconv.Itoa(i))
		if p["in"] != "query" && p["in"] != "path" {
			continue
		}
		schema, err := b.compile(where + "/schema")
		if err != nil {
			return nil, err
		}
		s, _ := b.follow(p["schema"], "")
		typ, _ := s["type"].(string)
		name, _ := p["name"].(string)
		if p["in"] == "path" {
			r.path[name] = schema
			continue
		}
		r.query[name] = parameter{required: p["required"] == true, typ: typ, schema: schema}
	}
	if body := object(object(object(op["requestBody"])["content"])["application/json"]); body != nil {
		schema, err := b.compile(at + "/requestBody/content/application~1json/schema")
		if err != nil {
			return nil, err
		}
		r.body = schema
		r.optional = object(op["requestBody"])["required"] != true
		r.keys = b.keys(body["schema"])
	}
	for status, raw := range object(op["responses"]) {
		a, where := b.follow(raw, at+"/responses/"+status)
		if object(object(a["content"])["application/json"]) == nil {
			continue
		}
		schema, err := b.compile(where + "/content/application~1json/schema")
		if err != nil {
			return nil, err
		}
		r.answers[status] = schema
	}
	return r, nil
}

// keys are the keys that a body, or each element of it, may have. Other keys are no fault by the
// letter of the description, and a sure sign of a misspelt one.
func (b builder) keys(schema any) map[string]bool {
	s, _ := b.follow(schema, "")
	if items := s["items"]; items != nil {
		s, _ = b.follow(items, "")
	}
	properties := object(s["properties"])
	if len(properties) == 0 {
		return nil
	}
	keys := make(map[string]bool, len(properties))
	for k := range properties {
		keys[k] = true
	}
	return keys
}

// find gives the route of a request, nil when the description has none. The variables of its path are
// the request's path values then. A path without variables goes before one that has some.
func (c *contract) find(r *http.Request) *route {
	if exact := c.routes[r.Method+" "+r.URL.Path]; exact != nil {
		return exact
	}
	parts := strings.Split(r.URL.EscapedPath(), "/")
	for known, route := range c.routes {
		if method, path, _ := strings.Cut(known, " "); method == r.Method && len(route.path) > 0 {
			if values := variables(strings.Split(path, "/"), parts); values != nil {
				for name, v := range values {
					r.SetPathValue(name, v)
				}
				return route
			}
		}
	}
	return nil
}

// variables reads a path by its template, nil when it is another one.
func variables(template, parts []string) map[string]string {
	if len(template) != len(parts) {
		return nil
	}
	values := map[string]string{}
	for i, t := range template {
		v, err := url.PathUnescape(parts[i])
		switch {
		case err != nil:
			return nil
		case strings.HasPrefix(t, "{") && v != "":
			values[strings.Trim(t, "{}")] = v
		case t != v:
			return nil
		}
	}
	return values
}

// check finds what is wrong with a request; the error names the place and not the value, which may be
// anybody's.
func (r *route) check(req *request) error {
	values, err := url.ParseQuery(req.URL.RawQuery)
	if err != nil {
		return errors.New("the query cannot be parsed")
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		p, ok := r.query[name]
		switch {
		case !ok:
			return fmt.Errorf("there is no query parameter %q", clip(name, 50))
		case len(values[name]) > 1:
			return fmt.Errorf("query parameter %s is given %d times", name, len(values[name]))
		case p.schema.Validate(typed(p.typ, values.Get(name))) != nil:
			return fmt.Errorf("query parameter %s has a value that is not allowed", name)
		}
	}
	for name, p := range r.query {
		if p.required && !values.Has(name) {
			return fmt.Errorf("query parameter %s is required", name)
		}
	}
	for name, schema := range r.path {
		if v := req.PathValue(name); v != "" && schema.Validate(v) != nil {
			return fmt.Errorf("path variable %s has a value that is not allowed", name)
		}
	}
	if r.optional && len(req.body) == 0 {
		return nil
	}
	if r.body == nil {
		if len(req.body) > 0 {
			return errors.New("it has a body, and takes none")
		}
		return nil
	}
	return r.checkBody(req)
}

func (r *route) checkBody(req *request) error {
	if media, _, err := mime.ParseMediaType(req.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return errors.New("the content type is not application/json")
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(req.body))
	if err != nil {
		return errors.New("the body is not JSON")
	}
	if err := r.body.Validate(v); err != nil {
		return fmt.Errorf("the body is wrong at %s", place(err))
	}
	elements, ok := v.([]any)
	if !ok {
		elements = []any{v}
	}
	for _, e := range elements {
		for k := range object(e) {
			if r.keys != nil && !r.keys[k] {
				return fmt.Errorf("the body has the unknown key %q", clip(k, 50))
			}
		}
	}
	return nil
}

// place says where a value breaks its schema and which rule it breaks.
func place(err error) string {
	var v *jsonschema.ValidationError
	if !errors.As(err, &v) {
		return "an unknown place"
	}
	for len(v.Causes) > 0 {
		v = v.Causes[len(v.Causes)-1] // of `anyOf`, null comes first
	}
	at := "/" + strings.Join(v.InstanceLocation, "/")
	rule := strings.Join(v.ErrorKind.KeywordPath(), "/")
	if r, ok := v.ErrorKind.(*kind.Required); ok {
		rule += " " + strings.Join(r.Missing, ", ")
	}
	return clip(at+" ("+rule+")", 200)
}

// typed reads a query value as the JSON value that it stands for; one that does not fit stays a text,
// which the schema then refuses.
func typed(typ, value string) any {
	switch typ {
	case "integer", "number":
		if _, err := strconv.ParseFloat(value, 64); err == nil {
			return json.Number(value)
		}
	case "boolean":
		if value == "true" || value == "false" {
			return value == "true"
		}
	}
	return value
}
