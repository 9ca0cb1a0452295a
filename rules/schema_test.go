package rules

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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
		"an unknown key":             "form: {}",
		"a cap without a period":     "caps: [{max: 3}]",
		"a window that says nothing": "sequences: {q: {when: true, window: {}, steps: [{name: a, do: referralrock.invite, with: {firstName: x}}]}}",
		"one variant":                "sequences: {q: {when: true, variants: {a: {weight: 1}}, steps: [{name: a, do: referralrock.invite, with: {firstName: x}}]}}",
		"a form without fields":      "forms: {demo: {title: x}}",
		"an unknown type":            "forms: {demo: {fields: {email: {type: string}}}}",
		"a name with blanks":         "forms: {Demo Form: {fields: {email: {type: email}}}}",
		"no bands":                   "scoring: {bands: {}}",
		"a band that is no number":   "scoring: {bands: {hot: high}}",
		"a rule without a name":      "scoring: {rules: [{points: 1}]}",
		"a wrong duration":           "scoring: {rules: [{name: a, points: 1, half_life: 1 month}]}",
		"no steps":                   "sequences: {q: {when: true, steps: []}}",
		"a wrong key in a step":      "sequences: {q: {when: true, steps: [{name: a, wait: 1d, do: referralrock.invite, with: {firstName: x}}]}}",
		"an unknown operation":       "sequences: {q: {when: true, steps: [{name: a, do: referralrock.invit}]}}",
		"a missing parameter":        "sequences: {q: {when: true, steps: [{name: a, do: referralrock.invite}]}}",
		"an unknown parameter":       "sequences: {q: {when: true, steps: [{name: a, do: referralrock.invite, with: {firstName: x, shoeSize: y}}]}}",
		"a parameter's type":         "sequences: {q: {when: true, steps: [{name: a, do: referralrock.refer, with: {referralCode: x, amount: five}}]}}",
		"consent":                    "sequences: {q: {when: true, consent: yes please, steps: [{name: a, do: referralrock.invite, with: {firstName: x}}]}}",
	} {
		if err := s.Validate(asJSON(t, []byte(text))); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

// describedAt says of every set of keys that the decoder reads where the schema describes it: the way
// from the root over definitions and properties.
var describedAt = map[string]struct {
	keys keys
	at   string
}{
	"topKeys":             {topKeys, ""},
	"formKeys":            {formKeys, "$defs.form"},
	"fieldKeys":           {fieldKeys, "$defs.field"},
	"listKeys":            {listKeys, "$defs.list.oneOf.1"},
	"scoringKeys":         {scoringKeys, "$defs.scoring"},
	"ruleKeys":            {ruleKeys, "$defs.rule"},
	"sequenceKeys":        {sequenceKeys, "$defs.sequence"},
	"stepKeys":            {stepKeys, "$defs.step"},
	"windowKeys":          {windowKeys, "$defs.window"},
	"capKeys":             {capKeys, "$defs.cap"},
	"brakeKeys":           {brakeKeys, "$defs.brake"},
	"sequenceVariantKeys": {sequenceVariantKeys, "$defs.sequenceVariant"},
	"stepVariantKeys":     {stepVariantKeys, "$defs.stepVariant"},
	"testKeys":            {testKeys, "$defs.test"},
	"submitKeys":          {submitKeys, "$defs.submit"},
	"contextKeys":         {contextKeys, "$defs.submit.properties.context"},
	"utmKeys":             {utmKeys, "$defs.submit.properties.context.properties.utm"},
	"consentKeys":         {consentKeys, "$defs.submit.properties.context.properties.consent"},
	"signalKeys":          {signalKeys, "$defs.signal"},
	"expectKeys":          {expectKeys, "$defs.expect"},
	"touchpointKeys":      {touchpointKeys, "$defs.expect.properties.touchpoints.items"},
}

// schemaWalk finds its way in a schema.
type schemaWalk struct {
	t    *testing.T
	root map[string]any
}

func (w schemaWalk) at(path string) any {
	w.t.Helper()
	var here any = w.root
	if path == "" {
		return here
	}
	for part := range strings.SplitSeq(path, ".") {
		switch x := here.(type) {
		case map[string]any:
			here = x[part]
		case []any:
			i, err := strconv.Atoi(part)
			if err != nil || i >= len(x) {
				w.t.Fatalf("the schema has no %s", path)
			}
			here = x[i]
		}
		if here == nil {
			w.t.Fatalf("the schema has no %s (at %s)", path, part)
		}
	}
	return here
}

// says reports whether a property, or what it refers to, has a description and shows what to write.
func (w schemaWalk) says(property map[string]any) (described, shown bool) {
	for _, key := range []string{"examples", "enum", "const"} {
		shown = shown || property[key] != nil
	}
	shown = shown || property["type"] == "boolean" // true or false, which every editor offers
	described = property["description"] != nil
	refers := []any{property}
	for _, key := range []string{"anyOf", "oneOf"} {
		if more, ok := property[key].([]any); ok {
			refers = append(refers, more...)
		}
	}
	for _, r := range refers {
		if ref, ok := r.(map[string]any)["$ref"].(string); ok {
			d, s := w.says(w.at(strings.ReplaceAll(strings.TrimPrefix(ref, "#/"), "/", ".")).(map[string]any))
			described, shown = described || d, shown || s
		}
	}
	return described, shown
}

// The schema and the decoder know the same keys, and the schema explains each of them and shows what
// to write: that is what an editor completes and says.
func TestJSONSchemaEqualsDecoder(t *testing.T) {
	w := schemaWalk{t: t}
	if err := json.Unmarshal(JSONSchema(options()), &w.root); err != nil {
		t.Fatal(err)
	}
	for _, name := range keySets(t) {
		if _, ok := describedAt[name]; !ok {
			t.Errorf("the decoder reads the keys of %s, which no part of the schema describes; describe them in schema.go and say where by a line in describedAt: %q: {%s, \"$defs.…\"}", name, name, name)
		}
	}
	for name, set := range describedAt {
		properties, _ := w.at(set.at).(map[string]any)["properties"].(map[string]any)
		if w.at(set.at).(map[string]any)["additionalProperties"] != false {
			t.Errorf("%s: the schema accepts any key; make it with closed()", set.at)
		}
		for _, k := range set.keys.known {
			property, ok := properties[k].(map[string]any)
			if !ok {
				t.Errorf("%s knows the key %s and the schema does not; add it to the properties of %s in schema.go, with a description and examples", name, k, set.at)
				continue
			}
			described, shown := w.says(property)
			if !described {
				t.Errorf("%s.%s has no description in the schema; say in one sentence what the key does", set.at, k)
			}
			if !shown {
				t.Errorf(`%s.%s has no examples in the schema; add "examples" with what people write most`, set.at, k)
			}
		}
		for k := range properties {
			if !slices.Contains(set.keys.known, k) {
				t.Errorf("the schema has the key %s at %s and %s does not know it; remove it, or add it to the decoder", k, set.at, name)
			}
		}
	}
	// Without operations it is a schema all the same.
	compiledSchema(t, Options{Operations: map[string]lodestone.Operation{}})
}

// What the schema shows as examples, it accepts.
func TestJSONSchemaExamples(t *testing.T) {
	w := schemaWalk{t: t}
	data := JSONSchema(options())
	if err := json.Unmarshal(data, &w.root); err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("rules.json", doc); err != nil {
		t.Fatal(err)
	}
	checked := 0
	for name, set := range describedAt {
		for k, p := range w.at(set.at).(map[string]any)["properties"].(map[string]any) {
			examples, _ := p.(map[string]any)["examples"].([]any)
			at := strings.TrimPrefix(strings.ReplaceAll(set.at+".properties."+k, ".", "/"), "/")
			s, err := c.Compile("rules.json#/" + at)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range examples {
				checked++
				if err := s.Validate(e); err != nil {
					t.Errorf("the example %v of %s.%s: %v", e, name, k, err)
				}
			}
		}
	}
	if checked < 50 {
		t.Errorf("%d examples were checked, want more", checked)
	}
}

// keySets finds the sets of keys that the package declares, in its source: whoever adds one shall
// hear of it here.
func keySets(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		isKeys := func(n ast.Node) bool {
			c, ok := n.(*ast.CompositeLit)
			if !ok {
				return false
			}
			id, ok := c.Type.(*ast.Ident)
			return ok && id.Name == "keys"
		}
		named := 0
		for _, d := range file.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, s := range g.Specs {
				v, ok := s.(*ast.ValueSpec)
				if !ok {
					continue
				}
				for i, value := range v.Values {
					if isKeys(value) {
						names = append(names, v.Names[i].Name)
						named++
					}
				}
			}
		}
		all := 0
		ast.Inspect(file, func(n ast.Node) bool {
			if n != nil && isKeys(n) {
				all++
			}
			return true
		})
		if all != named {
			t.Errorf("%s makes a set of keys in a place of its own; declare it as a variable, so that the schema can be held against it", name)
		}
	}
	if len(names) < 8 {
		t.Errorf("%d sets of keys are found, want more", len(names))
	}
	return names
}

// beyondSchema are the broken files whose faults no schema can see: names that are defined twice or
// elsewhere, what is inside an expression, and limits.
var beyondSchema = []string{
	"bands-equal",
	"bands-missing",
	"form-no-email",
	"form-two-emails",
	"form-type-clash",
	"form-zone",
	"rule-same-name",
	"rule-score",
	"sequence-variants-no-steps", // each variant needs steps only where the sequence has none
	"sequence-variants-no-weight",
	"step-same-name",
	"step-when",
	"when-bombs",
	"when-double-quoted",
	"when-folded-block",
	"when-literal-block",
	"when-not-ascii",
	"when-plain-over-lines",
	"when-single-quoted",
	"when-types",
	"when-unknown-field",
	"with-expressions",
	"with-limits",
	"yaml-two-documents",
}

// What is wrong in its structure is marked in an editor before anything runs.
func TestJSONSchemaFindsStructuralFaults(t *testing.T) {
	s := compiledSchema(t, options())
	names, err := filepath.Glob("testdata/broken/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, name := range names {
		base := strings.TrimSuffix(filepath.Base(name), ".yaml")
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := yaml.Unmarshal(data, &v); err != nil {
			continue // the editor says so itself
		}
		text, err := json.Marshal(v)
		if err != nil {
			continue // keys that are no texts
		}
		out, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		refused := s.Validate(out) != nil
		beyond := slices.ContainsFunc(beyondSchema, func(b string) bool { return b == base })
		switch {
		case refused:
			found++
			if beyond {
				t.Errorf("%s fails the schema; take it out of beyondSchema", base)
			}
		case !beyond:
			t.Errorf("%s has faults and passes the schema; make the schema stricter, or, where no schema can see it, add %q to beyondSchema", base, base)
		}
	}
	t.Logf("%d of %d broken files fail the schema", found, len(names))
}

// Everything that only looks wrong passes.
func TestJSONSchemaAcceptsSuspicious(t *testing.T) {
	opts := options()
	opts.Operations["referralrock.listMembers"] = lodestone.Operation{Name: "referralrock.listMembers"}
	s := compiledSchema(t, opts)
	names, err := filepath.Glob("testdata/suspicious/*.yaml")
	if err != nil || len(names) == 0 {
		t.Fatalf("no suspicious files (%v)", err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(asJSON(t, data)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
