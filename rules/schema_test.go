package rules

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"github.com/lodestonehq/lodestone"
)

func compiledSchema(t *testing.T, opts Options) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(JSONSchema(opts)))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("rules.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("rules.json") // also checks it against the meta-schema
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func asJSON(t *testing.T, data []byte) any {
	t.Helper()
	var v any
	if err := yaml.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	out, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// What Compile accepts, the schema accepts.
func TestJSONSchemaAccepts(t *testing.T) {
	s := compiledSchema(t, options())
	files := Starter()
	data, err := os.ReadFile("testdata/valid/everything.yaml")
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, File{"everything.yaml", data}, File{"demo.yaml", []byte(demo)}, File{"empty.yaml", nil}, File{"sections.yaml", []byte("forms:\nlists:\nscoring:\nsequences:\n")})
	for _, f := range files {
		if err := s.Validate(asJSON(t, f.Data)); err != nil {
			t.Errorf("%s: %v", f.Name, err)
		}
	}
}

func TestJSONSchemaRefuses(t *testing.T) {
	s := compiledSchema(t, options())
	for name, text := range map[string]string{
		"an unknown key":           "form: {}",
		"a key of a later time":    "caps: []",
		"a form without fields":    "forms: {demo: {title: x}}",
		"an unknown type":          "forms: {demo: {fields: {email: {type: string}}}}",
		"a name with blanks":       "forms: {Demo Form: {fields: {email: {type: email}}}}",
		"no bands":                 "scoring: {bands: {}}",
		"a band that is no number": "scoring: {bands: {hot: high}}",
		"a rule without a name":    "scoring: {rules: [{points: 1}]}",
		"a wrong duration":         "scoring: {rules: [{name: a, points: 1, half_life: 1 month}]}",
		"no steps":                 "sequences: {q: {when: true, steps: []}}",
		"a wrong key in a step":    "sequences: {q: {when: true, steps: [{name: a, wait: 1d, do: referralrock.invite, with: {firstName: x}}]}}",
		"an unknown operation":     "sequences: {q: {when: true, steps: [{name: a, do: referralrock.invit}]}}",
		"a missing parameter":      "sequences: {q: {when: true, steps: [{name: a, do: referralrock.invite}]}}",
		"an unknown parameter":     "sequences: {q: {when: true, steps: [{name: a, do: referralrock.invite, with: {firstName: x, shoeSize: y}}]}}",
		"a parameter's type":       "sequences: {q: {when: true, steps: [{name: a, do: referralrock.refer, with: {referralCode: x, amount: five}}]}}",
		"consent":                  "sequences: {q: {when: true, consent: yes please, steps: [{name: a, do: referralrock.invite, with: {firstName: x}}]}}",
	} {
		if err := s.Validate(asJSON(t, []byte(text))); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

// Every key is explained, for that is what editors show.
func TestJSONSchemaDescribes(t *testing.T) {
	var schema struct {
		Defs map[string]struct {
			Description string                     `json:"description"`
			Properties  map[string]json.RawMessage `json:"properties"`
		} `json:"$defs"`
	}
	if err := json.Unmarshal(JSONSchema(options()), &schema); err != nil {
		t.Fatal(err)
	}
	if got := len(schema.Defs["step"].Properties); got != len(stepKeys.known) {
		t.Errorf("a step has %d keys in the schema, want %d", got, len(stepKeys.known))
	}
	for def, ks := range map[string]keys{"form": formKeys, "field": fieldKeys, "scoring": scoringKeys, "rule": ruleKeys, "sequence": sequenceKeys, "step": stepKeys} {
		for _, k := range ks.known {
			var p struct {
				Description string `json:"description"`
				Ref         string `json:"$ref"`
			}
			raw, ok := schema.Defs[def].Properties[k]
			if !ok {
				t.Errorf("%s has no key %s in the schema", def, k)
				continue
			}
			if err := json.Unmarshal(raw, &p); err != nil || p.Description == "" && p.Ref == "" {
				t.Errorf("%s.%s has no description", def, k)
			}
		}
	}
	// Without operations it is a schema all the same.
	compiledSchema(t, Options{Operations: map[string]lodestone.Operation{}})
}
