package event

import (
	"encoding/base64"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
)

var (
	taken = time.Date(2026, 11, 20, 9, 30, 0, 123456789, time.UTC) // by the stream
	guide = &lodestone.Form{
		Name:  "pricing-guide",
		Email: "email",
		Fields: map[string]lodestone.Field{
			"email":        {Type: lodestone.FieldEmail, Required: true},
			"first_name":   {Type: lodestone.FieldText},
			"company_size": {Type: lodestone.FieldNumber},
			"newsletter":   {Type: lodestone.FieldBoolean},
			"colleague":    {Type: lodestone.FieldEmail},
		},
	}
	strict = &lodestone.Form{
		Name:  "strict",
		Email: "mail",
		Fields: map[string]lodestone.Field{
			"mail": {Type: lodestone.FieldEmail, Required: true},
			"name": {Type: lodestone.FieldText, Required: true},
			"size": {Type: lodestone.FieldNumber, Required: true},
		},
	}
)

func declared(name string) *lodestone.Form {
	switch name {
	case guide.Name:
		return guide
	case strict.Name:
		return strict
	}
	return nil
}

func plainMessage(form, body string) Message {
	return Message{Subject: FormsPrefix + form, Data: []byte(body), Seq: 7, Time: taken}
}

func structuredMessage(body string) Message {
	m := plainMessage(guide.Name, body)
	m.Header = map[string][]string{"Content-Type": {ContentType}}
	return m
}

func binaryMessage(body string, header ...string) Message {
	m := plainMessage(guide.Name, body)
	m.Header = map[string][]string{}
	for i := 0; i < len(header); i += 2 {
		m.Header[header[i]] = []string{header[i+1]}
	}
	return m
}

// nested is an object whose deepest object stands at the given depth.
func nested(depth int) string {
	return strings.Repeat(`{"a":`, depth-1) + "{}" + strings.Repeat("}", depth-1)
}

const seqID = "seq:7@"

func TestDecodeSubmission(t *testing.T) {
	ada := lodestone.FieldsOf(map[string]any{"email": "ada@example.com"})
	with := func(name string, v any) lodestone.Fields {
		return lodestone.FieldsOf(map[string]any{name: v}).Over(ada)
	}
	tests := []struct {
		name string
		m    Message
		want lodestone.Submission // Form, Received, Seq and, when zero, At are filled in
	}{
		{"plain fields", plainMessage("pricing-guide", `{"email":" Ada@Example.COM ","first_name":"Ada","company_size":240,"newsletter":true}`),
			lodestone.Submission{Fields: lodestone.FieldsOf(map[string]any{"email": "ada@example.com", "first_name": "Ada", "company_size": 240.0, "newsletter": true})}},
		{"a plain object whose fields is an object is data", plainMessage("pricing-guide", `{"fields":{"email":"ada@example.com"},"backfill":true}`),
			lodestone.Submission{Fields: ada, Backfill: true}},
		{"a plain object whose fields is no object is the fields", plainMessage("pricing-guide", `{"fields":"x","email":"ada@example.com"}`),
			lodestone.Submission{Fields: ada, Notes: []string{"the form does not declare: fields; left out"}}},
		{"structured", structuredMessage(`{"specversion":"1.0","type":"lodestone.form.submitted","source":"/web","id":"1","time":"2026-11-20T10:00:00+01:00","data":{"fields":{"email":"ada@example.com"}}}`),
			lodestone.Submission{ID: "/web 1", At: time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC), Fields: ada}},
		{"structured, type in another case and with parameters", binaryMessage(`{"specversion":"1.0","type":"lodestone.form.submitted","source":"/web","id":"1","data":{"fields":{"email":"ada@example.com"}}}`,
			"content-type", "Application/CloudEvents+JSON; charset=utf-8"),
			lodestone.Submission{ID: "/web 1", Fields: ada}},
		{"structured, data_base64", structuredMessage(`{"specversion":"1.0","type":"lodestone.form.submitted","source":"/web","id":"1","data_base64":"` +
			base64.StdEncoding.EncodeToString([]byte(`{"fields":{"email":"ada@example.com"}}`)) + `"}`),
			lodestone.Submission{ID: "/web 1", Fields: ada}},
		{"binary, names in any case", binaryMessage(`{"fields":{"email":"ada@example.com"},"backfill":false}`,
			"CE-SpecVersion", "1.0", "ce-Type", "lodestone.form.submitted", "Ce-Id", "9", "ce-source", "crm", "CE-TIME", "2026-11-20t09:00:00z", "Content-Type", "application/json"),
			lodestone.Submission{ID: "crm 9", At: time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC), Fields: ada}},
		{"binary without an id has the message's", binaryMessage(`{"fields":{"email":"ada@example.com"}}`,
			"ce-specversion", "1.0", "ce-type", "lodestone.form.submitted", "ce-source", "crm", "Nats-Msg-Id", "m-1"),
			lodestone.Submission{ID: "m-1", Fields: ada}},
		{"source and id are joined so that no two pairs meet", binaryMessage(`{"fields":{"email":"ada@example.com"}}`,
			"ce-specversion", "1.0", "ce-type", "lodestone.form.submitted", "ce-source", "a b%", "ce-id", "c d"),
			lodestone.Submission{ID: "a%20b%25 c d", Fields: ada}},
		{"a time in the future is the stream's", binaryMessage(`{"fields":{"email":"ada@example.com"}}`,
			"ce-specversion", "1.0", "ce-type", "lodestone.form.submitted", "ce-source", "a", "ce-id", "b", "ce-time", "2026-11-20T09:30:01Z"),
			lodestone.Submission{ID: "a b", Fields: ada}},
		{"message id", binaryMessage(`{"email":"ada@example.com"}`, "Nats-Msg-Id", "m-2"), lodestone.Submission{ID: "m-2", Fields: ada}},
		{"a text that is exactly a number", plainMessage("pricing-guide", `{"email":"ada@example.com","company_size":"-1.5e2"}`),
			lodestone.Submission{Fields: with("company_size", -150.0)}},
		{"minus zero is zero", plainMessage("pricing-guide", `{"email":"ada@example.com","company_size":-0.0}`),
			lodestone.Submission{Fields: with("company_size", 0.0)}},
		{"a ticked box", plainMessage("pricing-guide", `{"email":"ada@example.com","newsletter":"on"}`), lodestone.Submission{Fields: with("newsletter", true)}},
		{"the text false", plainMessage("pricing-guide", `{"email":"ada@example.com","newsletter":"false"}`), lodestone.Submission{Fields: with("newsletter", false)}},
		{"the text off is none of the three", plainMessage("pricing-guide", `{"email":"ada@example.com","newsletter":"off"}`),
			lodestone.Submission{Fields: ada, Notes: []string{"the field newsletter was left out: it is a text that is not exactly true, false or on"}}},
		{"a number with a blank is not exactly a number", plainMessage("pricing-guide", `{"email":"ada@example.com","company_size":" 12"}`),
			lodestone.Submission{Fields: ada, Notes: []string{"the field company_size was left out: it is a text that is not exactly a number"}}},
		{"a number out of range in a text", plainMessage("pricing-guide", `{"email":"ada@example.com","company_size":"1e999"}`),
			lodestone.Submission{Fields: ada, Notes: []string{"the field company_size was left out: it is out of range"}}},
		{"a boolean is no number", plainMessage("pricing-guide", `{"email":"ada@example.com","company_size":true}`),
			lodestone.Submission{Fields: ada, Notes: []string{"the field company_size was left out: it is true or false, want a number"}}},
		{"a number is no boolean", plainMessage("pricing-guide", `{"email":"ada@example.com","newsletter":1}`),
			lodestone.Submission{Fields: ada, Notes: []string{"the field newsletter was left out: it is a number, want true or false"}}},
		{"a long number keeps its digits as a text", plainMessage("pricing-guide", `{"email":"ada@example.com","first_name":12345678901234567890}`),
			lodestone.Submission{Fields: with("first_name", "12345678901234567890")}},
		{"a fraction as a text", plainMessage("pricing-guide", `{"email":"ada@example.com","first_name":1.50}`), lodestone.Submission{Fields: with("first_name", "1.5")}},
		{"a huge number as a text", plainMessage("pricing-guide", `{"email":"ada@example.com","first_name":1E300}`), lodestone.Submission{Fields: with("first_name", "1e+300")}},
		{"a boolean as a text", plainMessage("pricing-guide", `{"email":"ada@example.com","first_name":false}`), lodestone.Submission{Fields: with("first_name", "false")}},
		{"an object is no text", plainMessage("pricing-guide", `{"email":"ada@example.com","first_name":{"a":1}}`),
			lodestone.Submission{Fields: ada, Notes: []string{"the field first_name was left out: it is an object, want a text"}}},
		{"null and blank are absent", plainMessage("pricing-guide", `{"email":"ada@example.com","first_name":"  ","company_size":"","newsletter":null}`),
			lodestone.Submission{Fields: ada}},
		{"texts are kept whole", plainMessage("pricing-guide", `{"email":"ada@example.com","first_name":" A\u0000\ud83d\ude00\ud83d b "}`),
			lodestone.Submission{Fields: with("first_name", " A\x00😀\ufffd b ")}},
		{"another address is normalised", plainMessage("pricing-guide", `{"email":"ada@example.com","colleague":"Bob@BÜCHER.example"}`),
			lodestone.Submission{Fields: with("colleague", "bob@xn--bcher-kva.example")}},
		{"another address that is none", plainMessage("pricing-guide", `{"email":"ada@example.com","colleague":"bob"}`),
			lodestone.Submission{Fields: ada, Notes: []string{"the field colleague was left out: it is not a usable email address: it has no @"}}},
		{"undeclared names, in order, odd ones counted", plainMessage("pricing-guide", `{"email":"ada@example.com","zeta":1,"alpha":2,"bob@example.com":3}`),
			lodestone.Submission{Fields: ada, Notes: []string{"the form does not declare: alpha, zeta and 1 more; left out"}}},
		{"32 levels", plainMessage("pricing-guide", `{"email":"ada@example.com","x":`+nested(MaxDepth-1)+`}`),
			lodestone.Submission{Fields: ada, Notes: []string{"the form does not declare: x; left out"}}},
		{"more beside the fields", plainMessage("pricing-guide", `{"fields":{"email":"ada@example.com"},"meta":1}`),
			lodestone.Submission{Fields: ada, Notes: []string{"the data holds more than fields, context and backfill: meta; left out"}}},
		{"exactly as large as may be", plainMessage("pricing-guide", `{"email":"ada@example.com"}`+strings.Repeat(" ", MaxSize-27)), lodestone.Submission{Fields: ada}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, rejected := DecodeSubmission(tt.m, declared)
			if rejected != nil {
				t.Fatalf("rejected: %+v", *rejected)
			}
			want := tt.want
			want.Form, want.Email, want.Received, want.Seq = "pricing-guide", "ada@example.com", taken, 7
			if want.At.IsZero() {
				want.At = taken
			}
			if n, ok := got.Fields.Value("company_size").(float64); ok && n == 0 && math.Signbit(n) {
				t.Error("company_size is minus zero")
			}
			if want.ID == "" && strings.HasPrefix(got.ID, seqID) {
				want.ID = got.ID
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got\n%+v, want\n%+v", got, want)
			}
		})
	}
}

func TestContext(t *testing.T) {
	const head = `{"fields":{"email":"ada@example.com"},"context":`
	tests := []struct {
		name, context string
		want          lodestone.Context
		notes         []string
	}{
		{"everything", `{"page":"https://x","ip":"203.0.113.9","user_agent":"ua","timezone":"Europe/Berlin",
			"utm":{"source":"s","medium":"m","campaign":"c","term":"t","content":"n"},"referral_code":"ADA2026",
			"consent":{"marketing":true,"text":"Yes","at":"2026-11-20T09:00:00Z"}}`,
			lodestone.Context{Page: "https://x", IP: "203.0.113.9", UserAgent: "ua", Timezone: "Europe/Berlin", ReferralCode: "ADA2026",
				UTM:     lodestone.UTM{Source: "s", Medium: "m", Campaign: "c", Term: "t", Content: "n"},
				Consent: &lodestone.Consent{Marketing: true, Text: "Yes", At: time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)}}, nil},
		{"null", `null`, lodestone.Context{}, nil},
		{"no object", `[1]`, lodestone.Context{}, []string{"context is a list, want an object: it was left out"}},
		{"wrong types", `{"page":5,"utm":"x","ip":"i"}`, lodestone.Context{},
			[]string{"context.page is a number, want a text: it was left out", "context.ip is no network address as in 203.0.113.9: it was left out", "context.utm is a text, want an object: it was left out"}},
		{"unknown keys", `{"zone":1,"utm":{"id":"x"}}`, lodestone.Context{},
			[]string{"context.utm holds what is not known: id; left out", "context holds what is not known: zone; left out"}},
		{"consent as a form sends it", `{"consent":{"marketing":"on"}}`, lodestone.Context{Consent: &lodestone.Consent{Marketing: true}}, nil},
		{"consent refused", `{"consent":{"marketing":false}}`, lodestone.Context{Consent: &lodestone.Consent{}}, nil},
		{"consent that says nothing", `{"consent":{"text":"x"}}`, lodestone.Context{}, []string{"context.consent does not say marketing: it was left out"}},
		{"consent that cannot be read is refused", `{"consent":{"marketing":"yes"}}`, lodestone.Context{Consent: &lodestone.Consent{}},
			[]string{"context.consent.marketing is a text that is not true, false or on: taken as refused"}},
		{"consent in the future counts from the submission", `{"consent":{"marketing":true,"at":"2030-01-01T00:00:00Z"}}`,
			lodestone.Context{Consent: &lodestone.Consent{Marketing: true, At: taken}}, nil},
		{"consent at no time", `{"consent":{"marketing":true,"at":"yesterday"}}`, lodestone.Context{Consent: &lodestone.Consent{Marketing: true}},
			[]string{"context.consent.at is not a time as in 2026-11-20T09:00:00Z: it was left out"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, rejected := DecodeSubmission(plainMessage("pricing-guide", head+tt.context+"}"), declared)
			if rejected != nil {
				t.Fatalf("rejected: %+v", *rejected)
			}
			if !reflect.DeepEqual(got.Context, tt.want) {
				t.Errorf("context = %+v, want %+v", got.Context, tt.want)
			}
			if !slices.Equal(got.Notes, tt.notes) {
				t.Errorf("notes = %q, want %q", got.Notes, tt.notes)
			}
		})
	}
}

func TestRejections(t *testing.T) {
	const ce = `{"specversion":"1.0","type":"lodestone.form.submitted","source":"/web","id":"1"`
	in := func(form, body string) Message { return plainMessage(form, body) }
	tests := []struct {
		name  string
		m     Message
		want  lodestone.Reason
		id    string // "" for the stream's
		email lodestone.Email
	}{
		{"one byte too large", in("pricing-guide", strings.Repeat(" ", MaxSize+1)), lodestone.ReasonTooLarge, "", ""},
		{"too large is said before all else", Message{Subject: "x", Data: make([]byte, MaxSize+1), Seq: 7, Time: taken}, lodestone.ReasonTooLarge, "", ""},
		{"empty", in("pricing-guide", ""), lodestone.ReasonNotJSON, "", ""},
		{"blank", in("pricing-guide", " \n"), lodestone.ReasonNotJSON, "", ""},
		{"cut off", in("pricing-guide", `{"email":"ada@example.com"`), lodestone.ReasonNotJSON, "", ""},
		{"something behind it", in("pricing-guide", `{"email":"ada@example.com"} x`), lodestone.ReasonNotJSON, "", ""},
		{"a second value behind it", in("pricing-guide", `{"email":"ada@example.com"}{}`), lodestone.ReasonNotJSON, "", ""},
		{"the same key twice", in("pricing-guide", `{"email":"a@example.com","email":"b@example.com"}`), lodestone.ReasonNotJSON, "", ""},
		{"the same key twice, once escaped", in("pricing-guide", `{"email":"a@example.com","em\u0061il":"b@example.com"}`), lodestone.ReasonNotJSON, "", ""},
		{"the same key twice, deeper", in("pricing-guide", `{"email":"a@example.com","x":[{"a":1,"a":1}]}`), lodestone.ReasonNotJSON, "", ""},
		{"not UTF-8", in("pricing-guide", "{\"email\":\"ada@example.com\",\"x\":\"\xff\"}"), lodestone.ReasonNotJSON, "", ""},
		{"a byte order mark", in("pricing-guide", "\ufeff{}"), lodestone.ReasonNotJSON, "", ""},
		{"a number beyond all", in("pricing-guide", `{"email":"ada@example.com","x":1e999}`), lodestone.ReasonNotJSON, "", ""},
		{"a leading zero", in("pricing-guide", `{"x":01}`), lodestone.ReasonNotJSON, "", ""},
		{"a control character", in("pricing-guide", "{\"x\":\"\n\"}"), lodestone.ReasonNotJSON, "", ""},
		{"a list", in("pricing-guide", `[{"email":"ada@example.com"}]`), lodestone.ReasonNotAnObject, "", ""},
		{"null", in("pricing-guide", `null`), lodestone.ReasonNotAnObject, "", ""},
		{"33 levels", in("pricing-guide", nested(MaxDepth+1)), lodestone.ReasonTooDeep, "", ""},
		{"very deep and never closed", in("pricing-guide", strings.Repeat("[", MaxSize)), lodestone.ReasonTooDeep, "", ""},
		{"unknown form", in("nobody", `{"email":"Ada@example.com"}`), lodestone.ReasonUnknownForm, "", "ada@example.com"},
		{"no subject of ours", Message{Subject: "other.pricing-guide", Data: []byte(`{}`), Seq: 7, Time: taken}, lodestone.ReasonBadEnvelope, "", ""},
		{"two tokens for a form", in("a.b", `{}`), lodestone.ReasonBadEnvelope, "", ""},
		{"no address", in("pricing-guide", `{"first_name":"Ada"}`), lodestone.ReasonNoEmail, "", ""},
		{"a blank address", in("pricing-guide", `{"email":" "}`), lodestone.ReasonNoEmail, "", ""},
		{"null for an address", in("pricing-guide", `{"email":null}`), lodestone.ReasonNoEmail, "", ""},
		{"an unusable address", in("pricing-guide", `{"email":"ada"}`), lodestone.ReasonBadEmail, "", ""},
		{"a number for an address", in("pricing-guide", `{"email":5}`), lodestone.ReasonBadEmail, "", ""},
		{"a required field is absent", in("strict", `{"mail":"ada@example.com","size":1}`), lodestone.ReasonMissingField, "", "ada@example.com"},
		{"a required field is blank", in("strict", `{"mail":"ada@example.com","size":1,"name":" "}`), lodestone.ReasonMissingField, "", "ada@example.com"},
		{"a required field does not fit", in("strict", `{"mail":"ada@example.com","size":"many","name":"x"}`), lodestone.ReasonBadField, "", "ada@example.com"},
		{"fields are checked by name", in("strict", `{"mail":"ada@example.com","size":"many"}`), lodestone.ReasonMissingField, "", "ada@example.com"},
		{"backfill that is no boolean", in("pricing-guide", `{"fields":{"email":"ada@example.com"},"backfill":"true"}`), lodestone.ReasonBadEnvelope, "", ""},

		{"structured, not JSON", structuredMessage(`{`), lodestone.ReasonNotJSON, "", ""},
		{"structured, no object", structuredMessage(`[]`), lodestone.ReasonNotAnObject, "", ""},
		{"structured, no specversion", structuredMessage(`{"type":"lodestone.form.submitted","source":"s","id":"1","data":{}}`), lodestone.ReasonBadEnvelope, "s 1", ""},
		{"structured, another specversion", structuredMessage(`{"specversion":"0.3","type":"lodestone.form.submitted","data":{}}`), lodestone.ReasonBadEnvelope, "", ""},
		{"structured, another type", structuredMessage(`{"specversion":"1.0","type":"x","source":"s","id":"1","data":{}}`), lodestone.ReasonBadEnvelope, "s 1", ""},
		{"structured, no type", structuredMessage(`{"specversion":"1.0","data":{}}`), lodestone.ReasonBadEnvelope, "", ""},
		{"structured, an id that is no text", structuredMessage(`{"specversion":"1.0","type":"lodestone.form.submitted","source":"s","id":1,"data":{}}`), lodestone.ReasonBadEnvelope, "", ""},
		{"structured, a time that is none", structuredMessage(ce + `,"time":"yesterday","data":{}}`), lodestone.ReasonBadEnvelope, "/web 1", ""},
		{"structured, a time before the web", structuredMessage(ce + `,"time":"0001-01-01T00:00:00Z","data":{}}`), lodestone.ReasonBadEnvelope, "/web 1", ""},
		{"structured, no data", structuredMessage(ce + `}`), lodestone.ReasonNotAnObject, "/web 1", ""},
		{"structured, data is a text", structuredMessage(ce + `,"data":"{}"}`), lodestone.ReasonNotAnObject, "/web 1", ""},
		{"structured, data without fields", structuredMessage(ce + `,"data":{"email":"ada@example.com"}}`), lodestone.ReasonNotAnObject, "/web 1", ""},
		{"structured, data twice", structuredMessage(ce + `,"data":{},"data_base64":"e30="}`), lodestone.ReasonBadEnvelope, "/web 1", ""},
		{"structured, no Base64", structuredMessage(ce + `,"data_base64":"!"}`), lodestone.ReasonBadEnvelope, "/web 1", ""},
		{"structured, Base64 of no JSON", structuredMessage(ce + `,"data_base64":"eA=="}`), lodestone.ReasonNotJSON, "/web 1", ""},
		{"structured, no address", structuredMessage(ce + `,"data":{"fields":{}}}`), lodestone.ReasonNoEmail, "/web 1", ""},
		{"a batch of events", binaryMessage(`[]`, "Content-Type", "application/cloudevents-batch+json"), lodestone.ReasonBadEnvelope, "", ""},
		{"another event format", binaryMessage(`{}`, "Content-Type", "application/cloudevents+avro"), lodestone.ReasonBadEnvelope, "", ""},

		{"binary, no specversion", binaryMessage(`{}`, "ce-type", "lodestone.form.submitted"), lodestone.ReasonBadEnvelope, "", ""},
		{"binary, no type", binaryMessage(`{}`, "ce-specversion", "1.0"), lodestone.ReasonBadEnvelope, "", ""},
		{"binary, an extension alone", binaryMessage(`{"email":"ada@example.com"}`, "ce-tenant", "x"), lodestone.ReasonBadEnvelope, "", ""},
		{"binary, another type", binaryMessage(`{}`, "ce-specversion", "1.0", "ce-type", "x", "Nats-Msg-Id", "m"), lodestone.ReasonBadEnvelope, "m", ""},
		{"binary, two spellings that differ", binaryMessage(`{}`, "ce-specversion", "1.0", "CE-SPECVERSION", "0.3"), lodestone.ReasonBadEnvelope, "", ""},
		{"binary, fields at the top", binaryMessage(`{"email":"ada@example.com"}`, "ce-specversion", "1.0", "ce-type", "lodestone.form.submitted"), lodestone.ReasonNotAnObject, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, got := DecodeSubmission(tt.m, declared)
			if got == nil {
				t.Fatal("accepted")
			}
			if got.Reason != tt.want || got.Email != tt.email {
				t.Errorf("%s (%s) of %q, want %s of %q", got.Reason, got.Detail, got.Email, tt.want, tt.email)
			}
			if tt.id == "" && !strings.HasPrefix(got.ID, seqID) || tt.id != "" && got.ID != tt.id {
				t.Errorf("id = %q, want %q", got.ID, tt.id)
			}
			if got.Detail == "" || strings.Contains(got.Detail, "ada") || strings.Contains(got.Detail, "many") {
				t.Errorf("detail %q is empty or repeats a value", got.Detail)
			}
		})
	}
}

// TestIDs: an id is stable for one message, different for another, and never too long to store.
func TestIDs(t *testing.T) {
	id := func(m Message) string {
		t.Helper()
		s, rejected := DecodeSubmission(m, declared)
		if rejected != nil {
			t.Fatalf("rejected: %+v", *rejected)
		}
		return s.ID
	}
	m := plainMessage("pricing-guide", `{"email":"ada@example.com"}`)
	again := m
	if id(m) != id(again) {
		t.Error("a redelivered message has another id")
	}
	again.Time = taken.Add(time.Nanosecond)
	if id(m) == id(again) {
		t.Error("the same sequence number of another stream has the same id")
	}
	a := binaryMessage(`{"email":"ada@example.com"}`, "Nats-Msg-Id", strings.Repeat("x", 5000)+"1")
	b := binaryMessage(`{"email":"ada@example.com"}`, "Nats-Msg-Id", strings.Repeat("x", 5000)+"2")
	if id(a) == id(b) || len(id(a)) > maxID {
		t.Errorf("long ids: %d bytes, equal %v", len(id(a)), id(a) == id(b))
	}
}

// TestNamesInNotes: at most ten names of at most 64 characters.
func TestNamesInNotes(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"email":"ada@example.com"`)
	for i := range 30 {
		fmt.Fprintf(&b, `,"n%02d%s":1`, i, strings.Repeat("x", 100))
	}
	s, rejected := DecodeSubmission(plainMessage("pricing-guide", b.String()+"}"), declared)
	if rejected != nil || len(s.Notes) != 1 {
		t.Fatalf("notes = %q, rejected %v", s.Notes, rejected)
	}
	note := s.Notes[0]
	if n := strings.Count(note, "…"); n != 10 || !strings.Contains(note, " and 20 more") || len(note) > 10*70+100 {
		t.Errorf("note %q", note)
	}
}

// TestMemory: a submission keeps nothing of the buffer it was read from.
func TestMemory(t *testing.T) {
	m := plainMessage("pricing-guide", `{"email":"ada@example.com","first_name":"Ada"}`)
	s, _ := DecodeSubmission(m, declared)
	for i := range m.Data {
		m.Data[i] = 'x'
	}
	if s.Fields.Value("first_name") != "Ada" || s.Email != "ada@example.com" {
		t.Errorf("fields changed with the buffer: %v", s.Fields)
	}
}

func TestNewSubmission(t *testing.T) {
	ctx := &lodestone.Context{Page: "https://x?a=1&b=2", UTM: lodestone.UTM{Source: "s"}, Consent: &lodestone.Consent{Marketing: true}}
	at := time.Date(2026, 11, 20, 8, 0, 0, 0, time.FixedZone("", 3600))
	body, err := NewSubmission("42", "lodestone submit", "pricing-guide", at, map[string]any{"email": "ada@example.com", "company_size": 12}, ctx, true)
	if err != nil {
		t.Fatal(err)
	}
	got, rejected := DecodeSubmission(structuredMessage(string(body)), declared)
	if rejected != nil {
		t.Fatalf("rejected: %+v", *rejected)
	}
	want := lodestone.Submission{ID: "lodestone%20submit 42", Form: "pricing-guide", Email: "ada@example.com", At: at.UTC(), Received: taken, Seq: 7,
		Fields: lodestone.FieldsOf(map[string]any{"email": "ada@example.com", "company_size": 12.0}), Context: *ctx, Backfill: true}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v, want\n%+v", got, want)
	}

	if body, err = NewSubmission("1", "s", "f", time.Time{}, nil, nil, false); err != nil || strings.Contains(string(body), "time") || !strings.Contains(string(body), `"fields":{}`) {
		t.Errorf("least submission: %s, %v", body, err)
	}
	for name, bad := range map[string]func() ([]byte, error){
		"no id":     func() ([]byte, error) { return NewSubmission("", "s", "f", at, nil, nil, false) },
		"no source": func() ([]byte, error) { return NewSubmission("1", "", "f", at, nil, nil, false) },
		"too large": func() ([]byte, error) {
			return NewSubmission("1", "s", "f", at, map[string]any{"x": strings.Repeat("x", MaxSize)}, nil, false)
		},
		"a channel": func() ([]byte, error) {
			return NewSubmission("1", "s", "f", at, map[string]any{"x": make(chan int)}, nil, false)
		},
	} {
		if _, err := bad(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestSubjects(t *testing.T) {
	if s, err := SubmissionSubject("pricing-guide"); err != nil || s != "lodestone.forms.pricing-guide" {
		t.Errorf("SubmissionSubject = %q, %v", s, err)
	}
	if s, err := SignalSubject(lodestone.SignalBounced); err != nil || s != "lodestone.signals.bounced" {
		t.Errorf("SignalSubject = %q, %v", s, err)
	}
	for _, name := range []string{"", "a.b", "*", ">", "a b", "a\n", strings.Repeat("x", 129), "\xff"} {
		if s, err := SubmissionSubject(name); err == nil {
			t.Errorf("SubmissionSubject(%q) = %q", name, s)
		}
	}
}

// BenchmarkDecodeFields reads a submission of 30 fields.
func BenchmarkDecodeFields(b *testing.B) {
	form := &lodestone.Form{Name: "wide", Email: "email", Fields: map[string]lodestone.Field{"email": {Type: lodestone.FieldEmail, Required: true}}}
	body := `{"email":"ada@example.com"`
	for i := range 15 {
		number, text := fmt.Sprint("n", i), fmt.Sprint("t", i)
		form.Fields[number], form.Fields[text] = lodestone.Field{Type: lodestone.FieldNumber}, lodestone.Field{Type: lodestone.FieldText}
		body += fmt.Sprintf(`,"%s":%d,"%s":"Head of something"`, number, i*50, text)
	}
	m := Message{Subject: FormsPrefix + "wide", Data: []byte(body + "}"), Seq: 1, Time: time.Unix(1_800_000_000, 0)}
	b.ReportAllocs()
	for b.Loop() {
		s, rejected := DecodeSubmission(m, func(string) *lodestone.Form { return form })
		if rejected != nil || s.Fields.Len() != 31 {
			b.Fatal(rejected, s.Notes)
		}
	}
}

func BenchmarkDecodeSubmission(b *testing.B) {
	body := `{"specversion":"1.0","type":"lodestone.form.submitted","source":"/web","id":"42","time":"2026-11-20T09:00:00Z","data":{"fields":{"email":"ada@example.com","first_name":"Ada","company_size":240,"newsletter":true},
		"context":{"page":"https://example.com/pricing","ip":"203.0.113.9","user_agent":"Mozilla/5.0","timezone":"Europe/Berlin","utm":{"source":"s","medium":"m","campaign":"c"},"consent":{"marketing":true,"text":"Yes, send me news","at":"2026-11-20T09:00:00Z"}}}}`
	m := structuredMessage(body)
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, rejected := DecodeSubmission(m, declared); rejected != nil {
			b.Fatal(rejected.Detail)
		}
	}
}
