package event

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/lodestonehq/lodestone"
)

// Objects of any number of keys are read whole, and a key that is there twice is found among many.
func TestObjectsOfManyKeys(t *testing.T) {
	for _, n := range []int{1, 7, 8, 9, 10, 17, 31, 300} {
		var members []string
		for i := range n {
			members = append(members, fmt.Sprintf(`"k%d" : {"inner":"}\":%d"}`, i, i))
		}
		v, f := readJSON([]byte("{" + strings.Join(members, ",") + "}"))
		m, _ := v.tree().(map[string]any)
		if f != nil || len(m) != n {
			t.Fatalf("%d keys: %d read, %v", n, len(m), f)
		}
		for i := range n {
			inner, _ := m[fmt.Sprint("k", i)].(map[string]any)
			if want := fmt.Sprint(`}":`, i); inner["inner"] != want {
				t.Errorf("%d keys: k%d holds %v, want %s", n, i, inner, want)
			}
			twice := "{" + strings.Join(members, ",") + fmt.Sprintf(`,"k%d":1}`, i)
			if _, f := readJSON([]byte(twice)); f == nil || f.reason != lodestone.ReasonNotJSON || !strings.Contains(f.detail, "twice") {
				t.Errorf("%d keys with k%d twice: %v", n, i, f)
			}
		}
	}
}

// What is null counts as absent everywhere, and is never noted.
func TestNullIsAbsent(t *testing.T) {
	m := Message{Subject: FormsPrefix + "pricing-guide", Seq: 1, Time: taken, Data: []byte(`{"backfill":null,"fields":{"email":"ada@example.com","first_name":null,"company_size":null,"newsletter":null},` +
		`"context":{"page":null,"ip":null,"user_agent":null,"timezone":null,"referral_code":null,"utm":null,"utm_first":{"source":null},"consent":{"marketing":true,"text":null,"at":null}}}`)}
	s, rejected := DecodeSubmission(m, declared)
	if rejected != nil {
		t.Fatal(rejected.Detail)
	}
	if want := (lodestone.Context{Consent: &lodestone.Consent{Marketing: true}}); !reflect.DeepEqual(s.Context, want) || s.Fields.Len() != 1 || len(s.Notes) != 0 {
		t.Errorf("fields %v, context %+v, notes %q; want the address and the consent", s.Fields, s.Context, s.Notes)
	}
	m.Subject = SignalsPrefix + "opt_out"
	m.Data = []byte(`{"email":"ada@example.com","at":null,"detail":null}`)
	if g, rejected := DecodeSignal(m); rejected != nil || g.Detail != nil || !g.At.Equal(taken) {
		t.Errorf("signal %+v, %v; want no detail, and the time of the stream", g, rejected)
	}
}

// Objections come by name, the address first, each time the same.
func TestFieldObjectionsComeByName(t *testing.T) {
	form := &lodestone.Form{Name: "wide", Email: "m", Fields: map[string]lodestone.Field{"m": {Type: lodestone.FieldEmail, Required: true}}}
	body, names := `{"m":""`, []string{"m"}
	for _, c := range "abcdefgh" {
		name := string(c)
		form.Fields[name] = lodestone.Field{Type: lodestone.FieldNumber, Required: true}
		form.Fields["o"+name] = lodestone.Field{Type: lodestone.FieldNumber}
		names = append(names, name)
		body += fmt.Sprintf(`,"o%s":"x"`, name)
		if c%2 == 0 {
			body += fmt.Sprintf(`,"%s":"x"`, name)
		}
	}
	m := Message{Subject: FormsPrefix + "wide", Data: []byte(body + "}"), Seq: 1, Time: taken}
	for range 20 {
		var got []string
		for _, f := range FieldFaults(m, form) {
			got = append(got, f.Field)
		}
		if strings.Join(got, " ") != strings.Join(names, " ") {
			t.Fatalf("objections to %v, want %v", got, names)
		}
	}

	for name, f := range form.Fields {
		f.Required = name == "m"
		form.Fields[name] = f
	}
	m.Data = []byte(strings.Replace(body, `"m":""`, `"m":"ada@example.com"`, 1) + "}")
	first, rejected := DecodeSubmission(m, func(string) *lodestone.Form { return form })
	if rejected != nil || len(first.Notes) != 12 {
		t.Fatalf("%v, notes %q", rejected, first.Notes)
	}
	for range 20 {
		again, _ := DecodeSubmission(m, func(string) *lodestone.Form { return form })
		if strings.Join(again.Notes, "|") != strings.Join(first.Notes, "|") {
			t.Fatalf("notes %q, then %q", first.Notes, again.Notes)
		}
	}
}
