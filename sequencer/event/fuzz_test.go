package event

import (
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/lodestonehq/lodestone"
)

var rejections = []lodestone.Reason{
	lodestone.ReasonNotJSON, lodestone.ReasonNotAnObject, lodestone.ReasonBadEnvelope, lodestone.ReasonTooLarge, lodestone.ReasonTooDeep,
	lodestone.ReasonUnknownForm, lodestone.ReasonNoEmail, lodestone.ReasonBadEmail, lodestone.ReasonMissingField, lodestone.ReasonBadField,
}

func seeds(f *testing.F) {
	for _, s := range []string{
		`{"email":"ada@example.com","company_size":"12","newsletter":"on","x":[1,{"a":null}]}`,
		`{"fields":{"email":"Ada@BÜCHER.example","first_name":1e3},"context":{"utm":{"source":"s"},"consent":{"marketing":"on","at":"2026-01-01T00:00:00Z"}},"backfill":true}`,
		`{"specversion":"1.0","type":"lodestone.form.submitted","source":"a b","id":"1","time":"2026-11-20T09:00:00Z","data_base64":"eyJmaWVsZHMiOnt9fQ=="}`,
		`{"specversion":"1.0","type":"lodestone.signal","source":"s","id":"1","data":{"email":"ada@example.com","at":"2026-01-01T00:00:00Z","detail":{"hard":true}}}`,
		`{"a":"\ud83d\ude00\ud800 \u0000 \\ \/"}`, `{"a":1,"a":2}`, `[[[[`, `{"email":null,"fields":[{}],"context":[[],{"a":[]}]}`, `-0.0e-5`, "\xff", ``,
	} {
		f.Add("pricing-guide", []byte(s), "Content-Type", ContentType, "ce-time", "2026-11-20T09:00:00Z")
		f.Add("strict", []byte(s), "ce-specversion", "1.0", "CE-Type", "lodestone.form.submitted")
		f.Add("none", []byte(s), "Nats-Msg-Id", "m", "x", "y")
	}
}

// FuzzDecodeSubmission: a message becomes a submission whose values have the declared types and whose
// address is normalised, or a rejection with a reason of the closed set; the same one every time.
func FuzzDecodeSubmission(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, form string, data []byte, h1, v1, h2, v2 string) {
		m := Message{Subject: FormsPrefix + form, Header: map[string][]string{h1: {v1}, h2: {v2}}, Data: data, Seq: 7, Time: taken}
		s, rejected := DecodeSubmission(m, declared)
		again, rejectedAgain := DecodeSubmission(m, declared)
		if !reflect.DeepEqual(s, again) || !reflect.DeepEqual(rejected, rejectedAgain) {
			t.Fatalf("two results: %+v %+v, %+v %+v", s, rejected, again, rejectedAgain)
		}
		if rejected != nil {
			if !slices.Contains(rejections, rejected.Reason) || rejected.Detail == "" || rejected.ID == "" {
				t.Errorf("rejection %+v", *rejected)
			}
			return
		}
		if e, err := lodestone.ParseEmail(string(s.Email)); err != nil || e != s.Email {
			t.Errorf("email %q parses to %q, %v", s.Email, e, err)
		}
		if s.At.After(s.Received) || s.ID == "" || len(s.ID) > maxID || !utf8.ValidString(s.ID) {
			t.Errorf("at %v, received %v, id %q", s.At, s.Received, s.ID)
		}
		decl := declared(s.Form)
		for name, v := range s.Fields.All() {
			ok := false
			switch x := v.(type) {
			case string:
				typ := decl.Fields[name].Type
				ok = typ == lodestone.FieldText || typ == lodestone.FieldEmail
			case float64:
				ok = decl.Fields[name].Type == lodestone.FieldNumber && !math.IsInf(x, 0) && !math.IsNaN(x)
			case bool:
				ok = decl.Fields[name].Type == lodestone.FieldBoolean
			}
			if !ok {
				t.Errorf("field %s is %T", name, v)
			}
		}
		for name, field := range decl.Fields {
			if field.Required && s.Fields.Value(name) == nil {
				t.Errorf("required field %s is not there", name)
			}
		}
	})
}

// FuzzDecodeSignal: a signal with a normalised address and JSON in its detail, or a rejection.
func FuzzDecodeSignal(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, kind string, data []byte, h1, v1, h2, v2 string) {
		m := Message{Subject: SignalsPrefix + kind, Header: map[string][]string{h1: {v1}, h2: {v2}}, Data: data, Seq: 7, Time: taken}
		s, rejected := DecodeSignal(m)
		if rejected != nil {
			if !slices.Contains(rejections, rejected.Reason) || rejected.Detail == "" || rejected.ID == "" {
				t.Errorf("rejection %+v", *rejected)
			}
			return
		}
		if e, err := lodestone.ParseEmail(string(s.Email)); err != nil || e != s.Email || string(s.Kind) != kind || s.At.After(s.Received) {
			t.Errorf("signal %+v: %v", s, err)
		}
		if _, err := json.Marshal(s.Detail); err != nil {
			t.Errorf("detail: %v", err)
		}
	})
}

// FuzzReadJSON: what is read is what encoding/json reads, and what encoding/json refuses is refused.
func FuzzReadJSON(f *testing.F) {
	for _, s := range []string{`{"a":[1,-0.5e+3,true,false,null,"x\n\u00e4\ud83d\ude00"]}`, `"\ud800"`, `01`, `1.`, `-`, `"\x"`, ` {} `, `[1,]`, `{"a":1,}`, `tru`, `nullx`, "\"\x7f\"", `1e400`, `1e-400`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, fault := readJSON(data)
		var want any
		err := json.Unmarshal(data, &want)
		if fault == nil {
			if err != nil {
				t.Fatalf("%q was read as %v; encoding/json: %v", data, got, err)
			}
			if got := plain(got.tree()); !reflect.DeepEqual(got, want) {
				t.Fatalf("%q = %#v, encoding/json %#v", data, got, want)
			}
			return
		}
		// Stricter only where the package comment says so.
		if err == nil && fault.reason == lodestone.ReasonNotJSON && utf8.Valid(data) && !strings.HasPrefix(fault.detail, "a key is there twice") {
			t.Fatalf("%q was refused: %s", data, fault.detail)
		}
	})
}
