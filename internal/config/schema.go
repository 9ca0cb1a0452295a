package config

import (
	_ "embed"
	"encoding/json"
	"strings"
)

//go:embed sample.yaml
var sample []byte

// Sample returns a configuration file with every common key and what it means.
func Sample() []byte { return append([]byte(nil), sample...) }

// JSONSchema returns the JSON Schema (draft 2020-12) of the configuration file. Keys that a connector
// has of its own are not named in it; Load knows them.
func JSONSchema() []byte {
	root := object(nil)
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "Lodestone configuration"
	for _, s := range new(Config).settings() {
		at := root
		sections := strings.Split(s.path, ".")
		key := sections[len(sections)-1]
		for _, section := range sections[:len(sections)-1] {
			at = child(at, section)
		}
		at["properties"].(map[string]any)[key] = schemaOf(s)
	}
	reference := map[string]any{
		"description": "Where the value stands: the name of a variable or the path of a file.",
		"oneOf":       []any{referenceTo("env"), referenceTo("file")},
	}
	account := object(map[string]any{"kind": map[string]any{"type": "string", "description": "Which connector it is, when the account has another name."}})
	account["additionalProperties"] = map[string]any{"anyOf": []any{map[string]any{"type": []any{"string", "number", "boolean", "null"}}, reference}}
	account["type"] = []any{"object", "null"}
	for _, s := range new(Connector).settings() {
		account["properties"].(map[string]any)[s.path] = schemaOf(s)
	}
	root["properties"].(map[string]any)["connectors"] = map[string]any{
		"description":          "Accounts at providers, by name.",
		"type":                 []any{"object", "null"},
		"additionalProperties": account,
	}
	out, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		panic(err) // it is made of maps and texts
	}
	return out
}

func object(properties map[string]any) map[string]any {
	if properties == nil {
		properties = map[string]any{}
	}
	return map[string]any{"type": []any{"object", "null"}, "additionalProperties": false, "properties": properties}
}

func child(parent map[string]any, name string) map[string]any {
	properties := parent["properties"].(map[string]any)
	if _, ok := properties[name]; !ok {
		properties[name] = object(nil)
	}
	return properties[name].(map[string]any)
}

func referenceTo(what string) map[string]any {
	o := object(map[string]any{what: map[string]any{"type": "string", "minLength": 1}})
	o["type"], o["required"] = "object", []any{what}
	return o
}

// schemaOf is the schema of one key. Every key may also be left empty.
func schemaOf(s setting) map[string]any {
	out := map[string]any{"description": s.doc}
	switch s.form {
	case formText:
		out["type"] = []any{"string", "null"}
		if s.words != nil {
			words := make([]any, 0, len(s.words)+1)
			for _, w := range s.words {
				words = append(words, w)
			}
			out["enum"] = append(words, nil)
		}
	case formBoolean:
		out["type"] = []any{"boolean", "null"}
	case formInteger:
		out["type"] = []any{"integer", "null"}
	case formSize:
		out["type"] = []any{"string", "integer", "null"}
		out["pattern"] = `^[0-9.]+ *([KMGT]i?B)?$`
	case formDuration:
		out["type"] = []any{"string", "null"}
		out["pattern"] = `^([0-9.]+(ms|s|m|h|d|w))+$`
	case formRate:
		out["type"] = []any{"string", "null"}
		out["pattern"] = `^[0-9.]+ */ *[smh]$`
	case formList:
		out["type"] = []any{"array", "string", "null"}
		out["items"] = map[string]any{"type": "string"}
	case formFile:
		out["anyOf"] = []any{referenceTo("file"), map[string]any{"type": "null"}}
	}
	return out
}
