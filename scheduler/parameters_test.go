package scheduler

import (
	"encoding/json"
	"testing"

	"github.com/lodestonehq/lodestone"
)

func TestCompleteWithin(t *testing.T) {
	text := func(name string, required bool) lodestone.Parameter {
		return lodestone.Parameter{Name: name, Type: lodestone.FieldText, Required: required}
	}
	email := lodestone.Parameter{Name: "email", Type: lodestone.FieldEmail, Required: true}
	list := []lodestone.Parameter{{Name: "items", Type: lodestone.FieldList, Required: true, Least: 1, Items: &lodestone.Parameter{
		Type: lodestone.FieldObject, Fields: []lodestone.Parameter{email, text("firstName", true), {Name: "more", Type: lodestone.FieldObject, Fields: []lodestone.Parameter{text("code", true)}}},
	}}}
	p := &Passage{lead: &lodestone.Lead{Email: "ada@example.com"}}
	for _, c := range []struct {
		name, given   string
		effect        lodestone.Effect
		want, missing string
	}{
		{"the lead's address is filled in", `{"items":[{"firstName":"Ada"}]}`, lodestone.EffectWrite, `{"items":[{"email":"ada@example.com","firstName":"Ada"}]}`, ""},
		{"one that is given stays", `{"items":[{"email":"eve@example.com","firstName":"Ada"}]}`, lodestone.EffectWrite, `{"items":[{"email":"eve@example.com","firstName":"Ada"}]}`, ""},
		{"a read names whom it likes", `{"items":[{"firstName":"Ada"}]}`, lodestone.EffectRead, ``, "items[0].email is required and absent"},
		{"a field that is absent", `{"items":[{"firstName":"Ada"},{}]}`, lodestone.EffectWrite, ``, "items[1].firstName is required and absent"},
		{"deeper", `{"items":[{"firstName":"Ada","more":{}}]}`, lodestone.EffectWrite, ``, "items[0].more.code is required and absent"},
		{"no list", `{}`, lodestone.EffectWrite, ``, "items is required and absent"},
		{"a list of which nothing is left", `{"items":[]}`, lodestone.EffectWrite, ``, "items takes at least 1, and 0 are left of it"},
	} {
		var given map[string]any
		if err := json.Unmarshal([]byte(c.given), &given); err != nil {
			t.Fatal(err)
		}
		missing := p.complete(given, list, "", c.effect)
		got, err := json.Marshal(given)
		if err != nil || missing != c.missing || missing == "" && string(got) != c.want {
			t.Errorf("%s: %s, missing %q; want %s, %q", c.name, got, missing, c.want, c.missing)
		}
	}
}
