package referralrock_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/referralrock"
)

// The specification is judged by another implementation of OpenAPI than the sandbox's own, so that the
// two cannot share a misunderstanding.

var specification = sync.OnceValues(func() (*openapi3.T, error) {
	return openapi3.NewLoader().LoadFromData(referralrock.Specification())
})

// conforms checks an answer against the schema that the specification has for its operation and status.
// A key that the schema does not know is a fault too, unless it says that any will do.
func conforms(t *testing.T, e *connectors.Endpoint, a connectors.Answer) {
	t.Helper()
	doc, err := specification()
	if err != nil {
		t.Fatal(err)
	}
	responses := doc.Paths.Value(e.Path).GetOperation(e.Method).Responses
	r := responses.Value(strconv.Itoa(a.Status))
	if r == nil {
		r = responses.Default()
	}
	var v any
	if err := json.Unmarshal(a.Body, &v); err != nil {
		t.Errorf("%s answered %d with no JSON: %v", e.Name, a.Status, err)
		return
	}
	schema := r.Value.Content.Get("application/json").Schema.Value
	if err := schema.VisitJSON(v, openapi3.MultiErrors()); err != nil {
		t.Errorf("%s answered %d: %v\n%s", e.Name, a.Status, err, a.Body)
	}
	for _, key := range unknownKeys(schema, v, "") {
		t.Errorf("%s answered %d with the key %s, which the specification does not have", e.Name, a.Status, key)
	}
}

// unknownKeys are the keys of a value that its schema does not name, by their path.
func unknownKeys(s *openapi3.Schema, v any, at string) (unknown []string) {
	switch v := v.(type) {
	case []any:
		if s.Items != nil {
			for i, e := range v {
				unknown = append(unknown, unknownKeys(s.Items.Value, e, fmt.Sprintf("%s[%d]", at, i))...)
			}
		}
	case map[string]any:
		known, open := properties(s)
		for _, k := range slices.Sorted(maps.Keys(v)) {
			p, ok := known[k]
			switch {
			case ok:
				unknown = append(unknown, unknownKeys(p.Value, v[k], at+"."+k)...)
			case !open:
				unknown = append(unknown, at+"."+k)
			}
		}
	}
	return unknown
}

// properties are those of an object schema with what its allOf adds; open says that there may be others.
func properties(s *openapi3.Schema) (known openapi3.Schemas, open bool) {
	known, open = openapi3.Schemas{}, s.AdditionalProperties.Has != nil && *s.AdditionalProperties.Has || s.AdditionalProperties.Schema != nil
	maps.Copy(known, s.Properties)
	for _, part := range s.AllOf {
		k, o := properties(part.Value)
		maps.Copy(known, k)
		open = open || o
	}
	return known, open
}
