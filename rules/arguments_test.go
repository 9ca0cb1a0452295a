package rules

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/scoring"
)

// nested is an operation whose request holds lists and objects, and one that no step may name.
func nested() Options {
	text := func(name string) lodestone.Parameter {
		return lodestone.Parameter{Name: name, Type: lodestone.FieldText}
	}
	update := lodestone.Operation{Name: "rock.update", Effect: lodestone.EffectPay, Parameters: []lodestone.Parameter{
		{Name: "items", Type: lodestone.FieldList, Required: true, Least: 1, Most: 3, Items: &lodestone.Parameter{
			Type: lodestone.FieldObject, Fields: []lodestone.Parameter{
				{Name: "query", Type: lodestone.FieldObject, Required: true, Fields: []lodestone.Parameter{
					{Name: "email", Type: lodestone.FieldEmail, Required: true}, text("id"),
				}},
				{Name: "amount", Type: lodestone.FieldNumber}, {Name: "test", Type: lodestone.FieldBoolean},
				{Name: "status", Type: lodestone.FieldText, Values: []string{"pending", "approved", "denied"}},
			},
		}},
		{Name: "tags", Type: lodestone.FieldList, Items: &lodestone.Parameter{Type: lodestone.FieldText}},
		{Name: "meta", Type: lodestone.FieldObject},
	}}
	hook := lodestone.Operation{Name: "rock.hook", NoStep: "it is about no lead"}
	return Options{Operations: map[string]lodestone.Operation{update.Name: update, hook.Name: hook}}
}

func nestedRules(with string) []File {
	return []File{{Name: "r.yaml", Data: []byte(`
forms: {demo: {fields: {email: {type: email}, name: {type: text}, size: {type: number}}}}
sequences:
  q:
    when: true
    steps:
      - name: one
        do: rock.update
        with: ` + with + "\n")}}
}

func TestNestedArguments(t *testing.T) {
	for _, c := range []struct {
		name, with  string
		full, empty string // as JSON, with the fields given and without
	}{
		{"values at every depth", `{items: [{query: {email: '${lead.email}', id: 'r-${fields.size}'}, amount: '${fields.size}', status: denied}]}`,
			`{"items":[{"query":{"email":"ada@example.com","id":"r-2"},"amount":2,"status":"denied"}]}`,
			`{"items":[{"query":{"email":"ada@example.com","id":"r-"},"status":"denied"}]}`},
		{"an address that is left out", `{items: [{query: {id: x}}]}`, `{"items":[{"query":{"id":"x"}}]}`, `{"items":[{"query":{"id":"x"}}]}`},
		{"what is absent is left out", `{items: [{query: {id: '${fields.name}'}}], tags: ['${fields.name}', new], meta: {plan: '${fields.name}'}}`,
			`{"items":[{"query":{"id":"Ada"}}],"tags":["Ada","new"],"meta":{"plan":"Ada"}}`, `{"tags":["new"]}`},
		{"an object that takes anything", `{items: [{query: {id: x}}], meta: {a: [1, two, {b: true}], c: '${fields.size}'}}`,
			`{"items":[{"query":{"id":"x"}}],"meta":{"a":[1,"two",{"b":true}],"c":2}}`, `{"items":[{"query":{"id":"x"}}],"meta":{"a":[1,"two",{"b":true}]}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			set, err := Compile(nestedRules(c.with), nested())
			if err != nil {
				t.Fatal(err)
			}
			lead := &lodestone.Lead{Email: "ada@example.com"}
			for _, f := range []struct {
				facts scoring.Facts
				want  string
			}{
				{scoring.Facts{Lead: lead, Fields: lodestone.FieldsOf(map[string]any{"name": "Ada", "size": 2.0})}, c.full},
				{scoring.Facts{Lead: lead}, c.empty},
			} {
				e := set.Schema.Evaluator()
				e.Bind(f.facts)
				got := map[string]any{}
				for _, a := range set.Sequences[0].Steps[0].With {
					v, err := a.Value.Eval(e)
					if err != nil {
						t.Fatal(err)
					}
					if v != nil {
						got[a.Name] = v
					}
				}
				e.Release()
				var want map[string]any
				if err := json.Unmarshal([]byte(f.want), &want); err != nil {
					t.Fatal(err)
				}
				if !reflect.DeepEqual(got, want) {
					t.Errorf("with = %v, want %v", got, want)
				}
			}
		})
	}
}

func TestNestedFaults(t *testing.T) {
	for _, c := range []struct{ name, with, want string }{
		{"a wrong type within", `{items: [{query: {id: x}, amount: much}]}`, "9:49: with.items[0].amount takes a number; this is a text; write it without quotes"},
		{"a wrong expression within", `{items: [{query: {id: '${fields.size}'}}]}`, "9:40: with.items[0].query.id takes a text; this gives a number; write ${string(fields.size)}"},
		{"an unknown key within", `{items: [{query: {id: x}}, {query: {id: x}, amuont: 2}]}`, "9:59: with.items[1] takes no amuont; did you mean amount?"},
		{"a missing key within", `{items: [{amount: 2}]}`, "9:24: with.items[0] needs query; add it under with.items[0]"},
		{"a word that is none of those", `{items: [{query: {id: x}, status: aproved}]}`, "9:49: with.items[0].status is one of pending, approved, denied; did you mean approved?"},
		{"an object for a list", `{items: {query: {id: x}}}`, "9:23: items takes a list, each element with a dash before it; this is a mapping"},
		{"a text for a list", `{items: one}`, "9:23: items takes a list, each element with a dash before it; this is a text"},
		{"an expression for a list", `{items: '${fields.name}'}`, "9:23: items takes a list, each element with a dash before it; this is a text"},
		{"a list for an object", `{items: [{query: [x]}]}`, "9:32: with.items[0].query takes entries, as in {name: value}; this is a list"},
		{"too few", `{items: []}`, "9:23: items takes at least 1; there are 0"},
		{"too many", `{items: [{query: {}}, {query: {}}, {query: {}}, {query: {}}]}`, "9:23: items takes at most 3; there are 4"},
		{"nothing", `{items: [{query: {id: x}}, null]}`, "9:42: with.items[1] has no value here; leave the line out where it shall not be sent"},
		{"a fault of an expression within what takes anything", `{items: [{query: {id: x}}], meta: {a: ['${fields.nmae}']}}`, "9:64: unknown field nmae; did you mean name?"},
		{"too many values", `{items: [{query: {id: x}}], tags: [` + strings.Repeat("a,", MaxValues) + `a]}`, fmt.Sprintf("this is value number %d under with; a step may give %d", MaxValues+1, MaxValues)},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Compile(nestedRules(c.with), nested())
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("Compile = %v\nwant one fault: %s", err, c.want)
			}
		})
	}
}

func TestAStepThatCannotBeOne(t *testing.T) {
	files := nestedRules("{}")
	files[0].Data = []byte(strings.Replace(string(files[0].Data), "do: rock.update", "do: rock.hook", 1))
	_, err := Compile(files, nested())
	if want := "r.yaml:8:18: rock.hook cannot be a step: it is about no lead"; err == nil || err.Error() != want {
		t.Errorf("Compile = %v, want %s", err, want)
	}
}

// Formatting and the order of keys do not change a version, at any depth; the order of a list does.
func TestVersionOfNestedArguments(t *testing.T) {
	version := func(with string) string {
		t.Helper()
		set, err := Compile(nestedRules(with), nested())
		if err != nil {
			t.Fatal(err)
		}
		return set.Version
	}
	one := version(`{items: [{query: {id: a, email: x@example.com}, amount: 2}, {query: {id: b}}]}`)
	if got := version(`{items: [ {amount: 2, query: {email: "x@example.com", id: 'a'}}, {query: {id: b}} ]}`); got != one {
		t.Error("the order of keys and the quoting change the version")
	}
	for _, other := range []string{
		`{items: [{query: {id: b}}, {query: {id: a, email: x@example.com}, amount: 2}]}`,
		`{items: [{query: {id: a, email: x@example.com}, amount: 3}, {query: {id: b}}]}`,
		`{items: [{query: {id: a, email: x@example.com}}, {query: {id: b}}]}`,
	} {
		if version(other) == one {
			t.Errorf("%s has the version of another", other)
		}
	}
}

// What Compile accepts, the schema for editors accepts too.
func TestJSONSchemaOfNestedArguments(t *testing.T) {
	s := compiledSchema(t, nested())
	for with, ok := range map[string]bool{
		`{"items": [{"query": {"id": "x"}, "amount": "${fields.size}", "status": "${fields.name}"}], "meta": {"a": [1]}}`: true,
		`{"items": [{"query": {"id": "x"}, "status": "aproved"}]}`:                                                        false,
		`{"items": [{"query": {"idd": "x"}}]}`:                                                                            false,
		`{"items": [{"amount": 2}]}`:                                                                                      false,
		`{"items": []}`:                                                                                                   false,
	} {
		var doc any
		if err := json.Unmarshal([]byte(`{"sequences": {"q": {"when": "true", "steps": [{"name": "one", "do": "rock.update", "with": `+with+`}]}}}`), &doc); err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(doc); (err == nil) != ok {
			t.Errorf("%s: %v, want accepted %t", with, err, ok)
		}
	}
}
