package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/sandbox"
)

// matrixSettings are what the four need beside an address.
var matrixSettings = map[string]connectors.Settings{
	"referralrock": {Secrets: map[string]connectors.Secret{"public_key": "public", "private_key": "private"}},
	"23blocks": {Suppression: connectors.SuppressionLocalOnly, Secrets: map[string]connectors.Secret{"token": "a token"},
		Extra: map[string]string{"app_id": "app", "form": "form-1", "subscription_form": "form-1"}},
	"saasquatch": {Suppression: connectors.SuppressionLocalOnly, Secrets: map[string]connectors.Secret{"api_key": "an api key"},
		Extra: map[string]string{"tenant": "test_abc123"}},
	"referralfactory": {Secrets: map[string]connectors.Secret{"api_key": "an api key"}, Extra: map[string]string{"campaign_id": "1"}},
}

// TestOperationsMatrix calls every operation of every provider's catalogue against the sandbox with
// arguments made from its own schema, and holds the README's matrix to what came of it. With
// UPDATE_README=1 it writes the matrix.
func TestOperationsMatrix(t *testing.T) {
	const from, to = "<!-- operations: begin -->\n", "<!-- operations: end -->"
	var b bytes.Buffer
	b.WriteString("| operation | does | repeat | called | rules | if its answer is lost |\n|---|---|---|---|---|---|\n")
	for _, k := range kinds {
		box := sandbox.New(sandbox.Options{})
		server := httptest.NewServer(box.Handler())
		st := matrixSettings[k.Name]
		st.BaseURL, st.Rate = server.URL+"/"+k.Name, 10
		a, err := connectors.Open(k, st)
		if err != nil {
			t.Fatal(err)
		}
		lookups := a.Capabilities().Lookups
		for _, op := range k.Operations {
			if op.Name == lodestone.VerbInvite || op.Name == lodestone.VerbRefer {
				fmt.Fprintf(&b, "| `%s.%s` (verb) | %s | no | yes | yes | %s |\n", k.Name, op.Name, op.Effect, lost(lookups, op.Name))
			}
		}
		for i := range k.Endpoints {
			e := &k.Endpoints[i]
			rules := e.Operation().NoStep == ""
			fmt.Fprintf(&b, "| `%s.%s` | %s | %s | %s | %s | %s |\n", k.Name, e.Name, e.Effect, yesNo(e.Repeatable),
				yesNo(called(t, a, box, e)), yesNo(rules), map[bool]string{true: "asked again", false: lost(lookups, e.Name)}[e.Effect == lodestone.EffectRead])
		}
		server.Close()
	}
	path := "../../README.md"
	readme, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(readme), from)
	_, tail, ok2 := strings.Cut(rest, to)
	if !ok || !ok2 {
		t.Fatalf("README.md has no place for the matrix between %q and %q", from, to)
	}
	want := head + from + b.String() + to + tail
	if os.Getenv("UPDATE_README") != "" {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want != string(readme) {
		t.Error("the matrix of operations in README.md is not what the catalogue says; UPDATE_README=1 go test ./cmd/lodestone -run Matrix writes it")
	}
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// lost says what happens to an act whose answer is lost.
func lost(lookups map[string]connectors.Lookup, operation string) string {
	l, ok := lookups[operation]
	switch {
	case ok && l.FoundIsProof && l.AbsentIsProof:
		return "looked up"
	case ok && l.FoundIsProof:
		return "looked up; if not found, a human decides"
	}
	return "a human decides"
}

// called makes one call of an operation. It counts when the request keeps to the specification and
// the sandbox answers it as the provider would, be it with a refusal: what it is about may not exist.
func called(t *testing.T, a *connectors.Account, box *sandbox.Server, e *connectors.Endpoint) bool {
	t.Helper()
	before := len(box.Violations())
	arguments := map[string]any{}
	var schema map[string]any
	if err := json.Unmarshal([]byte(e.Schema), &schema); err != nil {
		t.Fatal(err)
	}
	properties, _ := schema["properties"].(map[string]any)
	for _, arg := range e.Arguments {
		if arg.Required {
			arguments[arg.Name] = specimen(arg.Name, properties[arg.Name])
		}
	}
	for _, key := range []string{"oneOf", "anyOf"} {
		if choices, ok := schema[key].([]any); ok && len(choices) > 0 {
			first, _ := choices[0].(map[string]any)
			names, _ := first["required"].([]any)
			for _, n := range names {
				arguments[n.(string)] = specimen(n.(string), properties[n.(string)])
			}
		}
	}
	if len(arguments) == 0 && schema["minProperties"] != nil {
		for name, s := range properties {
			arguments[name] = specimen(name, s)
			break
		}
	}
	for name := range given(a) {
		delete(arguments, name)
	}
	answer, err := a.Call(t.Context(), e.Name, arguments)
	var wrong *connectors.ArgumentError
	if errors.As(err, &wrong) {
		t.Errorf("%v: the arguments made from its schema %v", err, arguments)
		return false
	}
	if v := box.Violations(); len(v) != before {
		t.Errorf("%s(%v) breaks the specification: %+v", e.Name, arguments, v[0])
		return false
	}
	if answer.Status == 0 || answer.Status >= 500 {
		t.Errorf("%s(%v) = HTTP %d, %v", e.Name, arguments, answer.Status, err)
		return false
	}
	return true
}

// given names what the settings give.
func given(a *connectors.Account) map[string]bool {
	names := map[string]bool{}
	for name := range matrixSettings[a.Kind().Name].Extra {
		names[name] = true
	}
	if a.Kind().Name == "saasquatch" {
		names["tenant_alias"] = true
	}
	if a.Kind().Name == "23blocks" {
		names["form_unique_id"] = true
		names["url_id"] = true
	}
	return names
}

// specimen makes a value that a schema accepts.
func specimen(name string, schema any) any {
	s, _ := schema.(map[string]any)
	if v, ok := s["enum"].([]any); ok && len(v) > 0 {
		return v[0]
	}
	if v, ok := s["examples"].([]any); ok && len(v) > 0 {
		return v[0]
	}
	for _, key := range []string{"allOf", "oneOf", "anyOf"} {
		if v, ok := s[key].([]any); ok && len(v) > 0 {
			first, _ := v[0].(map[string]any)
			if first["type"] != nil || first["properties"] != nil || first["enum"] != nil {
				return specimen(name, first)
			}
		}
	}
	kind, _ := s["type"].(string)
	if list, ok := s["type"].([]any); ok {
		kind, _ = list[0].(string)
	}
	switch kind {
	case "array":
		return []any{specimen(name, s["items"])}
	case "integer", "number":
		if v, ok := s["minimum"].(float64); ok {
			return max(v, 1)
		}
		return 1.0
	case "boolean":
		return true
	case "object", "":
		out := map[string]any{}
		properties, _ := s["properties"].(map[string]any)
		required, _ := s["required"].([]any)
		for _, n := range required {
			out[n.(string)] = specimen(n.(string), properties[n.(string)])
		}
		if len(out) == 0 && s["minProperties"] != nil {
			for n, p := range properties {
				out[n] = specimen(n, p)
				break
			}
		}
		if kind == "" && len(properties) == 0 {
			return "text"
		}
		return out
	}
	switch f, _ := s["format"].(string); {
	case f == "email" || strings.Contains(strings.ToLower(name), "email"):
		return "ada@example.com"
	case f == "uuid":
		return "6f1d2c44-0a7e-4c55-9a51-2f9f6d1f0b10"
	case f == "uri", strings.HasSuffix(strings.ToLower(name), "url"):
		return "http://127.0.0.1:1/hook" // nobody listens there
	case f == "date":
		return "2026-01-31"
	}
	text := "specimen"
	if n, ok := s["minLength"].(float64); ok && int(n) > len(text) {
		text = strings.Repeat("a", int(n))
		if int(n) == 36 {
			text = "6f1d2c44-0a7e-4c55-9a51-2f9f6d1f0b10"
		}
	}
	if n, ok := s["maxLength"].(float64); ok && int(n) < len(text) {
		text = text[:int(n)]
	}
	return text
}
