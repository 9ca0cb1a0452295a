package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/gateway"
	"github.com/lodestonehq/lodestone/internal/links"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/sequencer/event"
)

// mark is what hostile submissions hold wherever they can, and what no answer may repeat as it is.
const mark = "<script>sent-by-a-spammer</script>"

// hostileSeeds are bodies with their media type, of every kind that the gateway reads.
var hostileSeeds = [][2]string{
	{"application/json", `{"email":"a@example.com","company":"` + mark + `"}`},
	{"application/json", `{"fields":{"email":"a@example.com","company":"x"},"context":{"utm":{"source":"` + mark + `"},"consent":{"marketing":"perhaps"},"token":"x"},"backfill":true}`},
	{"application/json", `{"email":["a@example.com"],"email":"b@example.com","__proto__":{"x":1},"constructor":null}`},
	{"application/json", `{"email":"a@example.com, b@example.com","company":1e999}`},
	{"application/json", "\xef\xbb\xbf{\"email\":\"\xff\xfe@example.com\"}"},
	{"application/json", strings.Repeat("[", 10_000)},
	{"application/json", `{"email":"` + strings.Repeat("a", 70) + `@example.com","company":"\u0000\u202e\ud800"}`},
	{"application/json; charset=utf-16", `{"email":"a@example.com"}`},
	{"application/cloudevents+json", `{"specversion":"1.0","type":"lodestone.form.submitted","source":"` + mark + `","id":"` + mark + `","data":{"fields":{"email":"a@example.com","company":"x"}}}`},
	{"application/cloudevents+json", `{"specversion":"1.0","type":"` + mark + `","source":"w","id":"1","data_base64":"!!!"}`},
	{"application/x-www-form-urlencoded", "email=a%40example.com&company=%3Cscript%3Esent-by-a-spammer%3C%2Fscript%3E&context.utm.source=%ff&context..x=1&%3Cscript%3E=1"},
	{"application/x-www-form-urlencoded", "email=" + strings.Repeat("%", 100)},
	{"application/x-www-form-urlencoded", strings.Repeat("a&", 3000)},
	{"multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=\"email\"\r\n\r\na@example.com\r\n--x\r\nContent-Disposition: form-data; name=\"company\"; filename=\"" + mark + "\"\r\n\r\nx\r\n--x--"},
	{"multipart/form-data", mark},
	{mark, mark},
	{"", ""},
}

// FuzzForms: whatever is posted to a form, it is refused and nothing is stored, or answered with 202 and stored as a
// submission with the id of the answer; no answer repeats what was sent as it is, and nothing is the gateway's fault.
func FuzzForms(f *testing.F) {
	for _, s := range hostileSeeds {
		for _, accept := range []string{"", "text/html"} {
			f.Add("guide", s[0], accept, []byte(s[1]))
		}
	}
	f.Add(mark, "application/json", "text/html", []byte(`{}`))
	f.Add("shop", "application/x-www-form-urlencoded", "text/html", []byte("mail=a%40example.com"))
	set := compile(f, formRules)
	keys, err := gateway.OpenKeys(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { keys.Close() })
	sealer, err := links.New(bytes.Repeat([]byte{7}, links.KeySize))
	if err != nil {
		f.Fatal(err)
	}
	var stored []*nats.Msg
	before := map[string]bool{}
	forms := gateway.Forms(gateway.FormOptions{
		Rules: func() *rules.Set { return set }, Keys: keys, Links: sealer, Origins: []string{"*"},
		Publish: func(_ context.Context, m *nats.Msg) error { stored = append(stored, m); return nil },
	})
	f.Fuzz(func(t *testing.T, form, kind, accept string, body []byte) {
		stored = nil
		req := httptest.NewRequest(http.MethodPost, "/forms/guide", bytes.NewReader(body))
		req.URL.Path = "/forms/" + form
		req.Header["Content-Type"], req.Header["Accept"] = []string{kind}, []string{accept}
		answer := httptest.NewRecorder()
		forms.ServeHTTP(answer, req)
		said := answer.Body.String()
		if answer.Code >= http.StatusInternalServerError {
			t.Fatalf("answered %d %s", answer.Code, said)
		}
		if strings.Contains(said, mark) {
			t.Fatalf("what was sent is repeated: %s", said)
		}
		if answer.Code >= http.StatusBadRequest {
			if len(stored) > 0 {
				t.Fatalf("refused with %d, and stored all the same", answer.Code)
			}
			return
		}
		if len(stored) == 1 {
			m := stored[0]
			sub, no := event.DecodeSubmission(event.Message{Subject: m.Subject, Header: m.Header, Data: m.Data, Seq: 1, Time: time.Now()}, func(name string) *lodestone.Form {
				if x := set.Forms[name]; x != nil {
					return &x.Form
				}
				return nil
			})
			if no != nil {
				t.Fatalf("answered %d, and what was stored cannot be used: %+v", answer.Code, no)
			}
			before[sub.ID] = true
		}
		if answer.Code == http.StatusAccepted && strings.HasPrefix(answer.Header().Get("Content-Type"), "application/json") {
			var a accepted
			if err := json.Unmarshal([]byte(said), &a); err != nil || !before[a.ID] {
				t.Fatalf("answered with the id of nothing that was stored: %s, %v", said, err)
			}
		}
	})
}
