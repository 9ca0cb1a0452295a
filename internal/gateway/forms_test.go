package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/internal/gateway"
	"github.com/lodestonehq/lodestone/internal/links"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/sequencer/event"
)

const formRules = `
forms:
  guide:
    title: The <guide>
    asset: https://files.example.com/guide.pdf
    fields:
      email: {type: email, required: true}
      company: {type: text, required: true}
      size: {type: number}
      news: {type: boolean}
  shop:
    thanks: ["https://shop.example.com/thanks?file={asset}", "https://shop.example.com/danke"]
    asset: https://files.example.com/shop.pdf
    origins: https://shop.example.com
    fields:
      mail: {type: email, required: true}
  plain:
    fields:
      email: {type: email, required: true}
`

// formSite is the gateway's forms on a real broker.
type formSite struct {
	seal *event.Seal
	*site
	dir     string
	keys    *gateway.Keys
	handler http.Handler
}

func newFormSite(t *testing.T, change ...func(*gateway.FormOptions)) *formSite {
	t.Helper()
	b, err := broker.Open(t.Context(), broker.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	if err := b.EnsureStreams(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := &formSite{site: &site{t: t, broker: b, registry: prometheus.NewRegistry(), logs: &syncBuffer{}}, dir: t.TempDir()}
	s.serve(change...)
	return s
}

// serve begins anew, as after a restart of the process, on the same broker and directory.
func (s *formSite) serve(change ...func(*gateway.FormOptions)) {
	s.t.Helper()
	if s.keys != nil {
		if err := s.keys.Close(); err != nil {
			s.t.Fatal(err)
		}
	}
	keys, err := gateway.OpenKeys(s.dir)
	if err != nil {
		s.t.Fatal(err)
	}
	s.keys = keys
	s.t.Cleanup(func() { keys.Close() })
	sealer, err := links.New(bytes.Repeat([]byte{7}, links.KeySize))
	if err != nil {
		s.t.Fatal(err)
	}
	if s.seal, err = event.NewSeal([]byte("a key of the data directory")); err != nil {
		s.t.Fatal(err)
	}
	set := compile(s.t, formRules)
	s.registry = prometheus.NewRegistry()
	o := gateway.FormOptions{
		Rules: func() *rules.Set { return set }, Publish: broker.NewGroup(s.broker.PublishBatch).Publish, Keys: keys, Links: sealer, Seal: s.seal,
		Origins: []string{"*"}, Registerer: s.registry,
		Log: slog.New(slog.NewTextHandler(s.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, f := range change {
		f(&o)
	}
	forms := gateway.Forms(o)
	mux := http.NewServeMux()
	mux.Handle(gateway.FormsPath, forms)
	mux.Handle(gateway.AssetsPath, forms)
	mux.Handle(gateway.TokensPath, forms)
	mux.Handle(gateway.ScriptPath, gateway.Script())
	s.handler = mux
	server := httptest.NewServer(mux)
	s.t.Cleanup(server.Close)
	s.url = server.URL
}

func compile(t testing.TB, text string) *rules.Set {
	t.Helper()
	set, err := rules.Compile([]rules.File{{Name: "rules.yaml", Data: []byte(text)}}, rules.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// submissions reads the whole stream, as the sequencer does.
func (s *formSite) submissions() (list []lodestone.Submission, rejected []lodestone.Rejection) {
	s.t.Helper()
	set := compile(s.t, formRules)
	stream, err := s.broker.JetStream().Stream(s.t.Context(), broker.FormsStream)
	if err != nil {
		s.t.Fatal(err)
	}
	for seq := uint64(1); seq <= stream.CachedInfo().State.LastSeq; seq++ {
		m, err := stream.GetMsg(s.t.Context(), seq)
		if err != nil {
			s.t.Fatal(err)
		}
		msg := event.Message{Subject: m.Subject, Header: m.Header, Data: m.Data, Seq: m.Sequence, Time: m.Time}
		s.seal.Open(&msg)
		sub, no := event.DecodeSubmission(msg,
			func(name string) *lodestone.Form {
				if f := set.Forms[name]; f != nil {
					return &f.Form
				}
				return nil
			})
		if no != nil {
			rejected = append(rejected, *no)
			continue
		}
		list = append(list, sub)
	}
	return list, rejected
}

// accepted is the body of a 202.
type accepted struct {
	ID    string  `json:"id"`
	Asset *string `json:"asset"`
}

func (s *formSite) accepted(a answer) accepted {
	s.t.Helper()
	var got accepted
	d := json.NewDecoder(strings.NewReader(a.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&got); a.status != http.StatusAccepted || err != nil || got.ID == "" {
		s.t.Fatalf("answered %d %s, want 202 with an id (%v)", a.status, a.body, err)
	}
	return got
}

// multipartForm builds multipart/form-data; file adds a part with that file name.
func multipartForm(t testing.TB, inputs [][2]string, file, content string) (contentType, body string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for _, in := range inputs {
		if err := w.WriteField(in[0], in[1]); err != nil {
			t.Fatal(err)
		}
	}
	if file != "" || content != "" {
		part, err := w.CreateFormFile("upload", file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(part, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return w.FormDataContentType(), b.String()
}

func TestFormKinds(t *testing.T) {
	multiType, multiBody := multipartForm(t, [][2]string{{"email", "Ada@Example.com"}, {"company", "Analytical & Söhne"}, {"size", "240"}, {"news", "on"}, {"context.consent.marketing", "on"}, {"context.utm.source", "fair"}}, "", "")
	const full = `{"fields":{"email":"ada@example.com","company":"Analytical & Söhne","size":240,"news":true},"context":{"consent":{"marketing":true},"utm":{"source":"fair"}}}`
	for _, test := range []struct {
		name, body string
		header     []string
		id         string // "" any
	}{
		{"JSON fields", `{"email":"ada@example.com","company":"Analytical & Söhne","size":240,"news":true}`, []string{"Content-Type", "application/json"}, ""},
		{"JSON data", full, []string{"Content-Type", "application/json; charset=UTF-8"}, ""},
		{"urlencoded", "email=ada%40example.com&company=Analytical+%26+S%C3%B6hne&size=240&news=on&context.consent.marketing=on&context.utm.source=fair", []string{"Content-Type", "application/x-www-form-urlencoded"}, ""},
		{"multipart", multiBody, []string{"Content-Type", multiType}, ""},
		{"structured CloudEvent", `{"specversion":"1.0","type":"lodestone.form.submitted","source":"/site","id":"a1","data":` + full + `}`, []string{"Content-Type", "application/cloudevents+json"}, "/site a1"},
		{"binary CloudEvent", full, []string{"Content-Type", "application/json", "ce-specversion", "1.0", "ce-type", "lodestone.form.submitted", "ce-source", "/s%C3%AFte", "ce-id", "a1"}, "/sïte a1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newFormSite(t)
			got := s.accepted(s.post("/forms/guide", test.body, append(test.header, "User-Agent", "Browser/1", "Referer", "https://example.com/guide")...))
			if test.id != "" && got.ID != test.id {
				t.Errorf("id %q, want %q", got.ID, test.id)
			}
			list, rejected := s.submissions()
			if len(list) != 1 || len(rejected) != 0 {
				t.Fatalf("%d submissions, %v rejected, want 1", len(list), rejected)
			}
			sub := list[0]
			want := map[string]any{"email": "ada@example.com", "company": "Analytical & Söhne", "size": 240.0, "news": true}
			if sub.ID != got.ID || sub.Form != "guide" || sub.Email != "ada@example.com" || !maps.Equal(sub.Fields.Map(), want) {
				t.Errorf("stored %+v, want id %s and %v", sub, got.ID, want)
			}
			if sub.Context.IP != "127.0.0.1" || sub.Context.UserAgent != "Browser/1" || sub.Context.Page != "https://example.com/guide" {
				t.Errorf("context %+v, want what was seen of the request", sub.Context)
			}
			if test.name != "JSON fields" && (sub.Context.Consent == nil || !sub.Context.Consent.Marketing || sub.Context.UTM.Source != "fair") {
				t.Errorf("context %+v, want what the page said", sub.Context)
			}
			if len(sub.Notes) > 0 {
				t.Errorf("notes %q, want none", sub.Notes)
			}
			if n := s.counted("guide", "accepted"); n != 1 {
				t.Errorf("counted %d accepted, want 1", n)
			}
		})
	}
}

func (s *formSite) counted(form, result string) int {
	s.t.Helper()
	return s.counter("lodestone_form_requests_total", "form", form, result)
}

const urlForm = "application/x-www-form-urlencoded"

func TestFormRefused(t *testing.T) {
	fileType, fileBody := multipartForm(t, [][2]string{{"email", "a@b.example"}, {"company", "x"}}, "cv.pdf", "secret")
	emptyType, emptyBody := multipartForm(t, [][2]string{{"email", "a@b.example"}}, "", "")
	s := newFormSite(t)
	good := `{"email":"a@b.example","company":"x"}`
	var answers []answer
	for _, test := range []struct {
		name, method, path, body string
		header                   []string
		status                   int
		form, result, reason     string
		fields                   string
	}{
		{"unknown form", "POST", "/forms/nobody", good, nil, 404, "", "not_found", "", ""},
		{"unknown form, wrong method", "GET", "/forms/nobody", "", nil, 404, "", "not_found", "", ""},
		{"no form", "POST", "/forms/", good, nil, 404, "", "not_found", "", ""},
		{"more path", "POST", "/forms/guide/x", good, nil, 404, "", "not_found", "", ""},
		{"subject of another", "POST", "/forms/guide.%3E", good, nil, 404, "", "not_found", "", ""},
		{"GET", "GET", "/forms/guide", "", nil, 405, "guide", "bad_method", "", ""},
		{"PUT", "PUT", "/forms/guide", good, nil, 405, "guide", "bad_method", "", ""},
		{"text", "POST", "/forms/guide", good, []string{"Content-Type", "text/plain"}, 415, "guide", "bad_media_type", "", ""},
		{"no type", "POST", "/forms/guide", good, []string{"Content-Type", ""}, 415, "guide", "bad_media_type", "", ""},
		{"batch of events", "POST", "/forms/guide", "[]", []string{"Content-Type", "application/cloudevents-batch+json"}, 415, "guide", "bad_media_type", "", ""},
		{"latin 1", "POST", "/forms/guide", good, []string{"Content-Type", "application/json; charset=iso-8859-1"}, 415, "guide", "bad_media_type", "", ""},
		{"compressed", "POST", "/forms/guide", good, []string{"Content-Encoding", "gzip"}, 415, "guide", "bad_media_type", "", ""},
		{"a file", "POST", "/forms/guide", fileBody, []string{"Content-Type", fileType}, 415, "guide", "bad_media_type", "", ""},
		{"too long", "POST", "/forms/guide", `{"email":"` + strings.Repeat("a", 256<<10) + `"}`, nil, 413, "guide", "too_large", "", ""},
		{"too long when it is written down", "POST", "/forms/guide", "email=a%40b.example&company=" + strings.Repeat("\x01", 200<<10), []string{"Content-Type", urlForm}, 413, "guide", "too_large", "", ""},
		{"not JSON", "POST", "/forms/guide", `{"email":`, nil, 400, "guide", "bad_body", "not_json", ""},
		{"a key twice", "POST", "/forms/guide", `{"email":"a@b.example","email":"c@d.example","company":"x"}`, nil, 400, "guide", "bad_body", "not_json", ""},
		{"empty", "POST", "/forms/guide", "", nil, 400, "guide", "bad_body", "not_json", ""},
		{"a list", "POST", "/forms/guide", `[1]`, nil, 400, "guide", "bad_body", "not_an_object", ""},
		{"too deep", "POST", "/forms/guide", `{"x":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`, nil, 400, "guide", "bad_body", "too_deep", ""},
		{"event of another type", "POST", "/forms/guide", `{"specversion":"1.0","type":"other","source":"s","id":"1","data":{"fields":{}}}`, []string{"Content-Type", "application/cloudevents+json"}, 400, "guide", "bad_body", "bad_envelope", ""},
		{"binary event without a type", "POST", "/forms/guide", good, []string{"ce-id", "1"}, 400, "guide", "bad_body", "bad_envelope", ""},
		{"event header with a line break", "POST", "/forms/guide", good, []string{"ce-id", "1%0aNats-Rollup: all"}, 400, "guide", "bad_body", "", ""},
		{"bad escape", "POST", "/forms/guide", "email=%zz", []string{"Content-Type", urlForm}, 400, "guide", "bad_body", "", ""},
		{"not UTF-8", "POST", "/forms/guide", "email=%ff", []string{"Content-Type", urlForm}, 400, "guide", "bad_body", "", ""},
		{"too many inputs", "POST", "/forms/guide", strings.Repeat("a=b&", 1001), []string{"Content-Type", urlForm}, 400, "guide", "bad_body", "", ""},
		{"multipart without a boundary", "POST", "/forms/guide", emptyBody, []string{"Content-Type", "multipart/form-data"}, 400, "guide", "bad_body", "", ""},
		{"multipart cut off", "POST", "/forms/guide", emptyBody[:len(emptyBody)/2], []string{"Content-Type", emptyType}, 400, "guide", "bad_body", "", ""},
		{"no address, nothing", "POST", "/forms/guide", `{}`, nil, 422, "guide", "unusable", "no_email", "email company"},
		{"blank address", "POST", "/forms/guide", "email=+&company=x", []string{"Content-Type", urlForm}, 422, "guide", "unusable", "no_email", "email"},
		{"bad address", "POST", "/forms/guide", `{"email":"not an address","company":"x"}`, nil, 422, "guide", "unusable", "bad_email", "email"},
		{"required missing", "POST", "/forms/guide", `{"email":"a@b.example"}`, nil, 422, "guide", "unusable", "missing_field", "company"},
		{"required of a wrong kind", "POST", "/forms/guide", `{"email":"a@b.example","company":{"x":1}}`, nil, 422, "guide", "unusable", "bad_field", "company"},
		{"key with a blank", "POST", "/forms/guide", good, []string{"Idempotency-Key", "a b"}, 400, "guide", "bad_key", "", ""},
		{"empty key", "POST", "/forms/guide", good, []string{"Idempotency-Key", `""`}, 400, "guide", "bad_key", "", ""},
		{"long key", "POST", "/forms/guide", good, []string{"Idempotency-Key", strings.Repeat("k", 256)}, 400, "guide", "bad_key", "", ""},
		{"two keys", "POST", "/forms/guide", good, []string{"Idempotency-Key", "a", "Idempotency-Key", "b"}, 400, "guide", "bad_key", "", ""},
		{"a page that is not listed", "POST", "/forms/shop", `{"mail":"a@b.example"}`, []string{"Origin", "https://evil.example"}, 403, "shop", "bad_origin", "", ""},
		{"no page at all", "POST", "/forms/shop", `{"mail":"a@b.example"}`, []string{"Origin", "null"}, 403, "shop", "bad_origin", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s.t = t
			before := s.counted(test.form, test.result)
			a := s.send(test.method, test.path, strings.NewReader(test.body), test.header...)
			answers = append(answers, a)
			var p struct {
				Type, Title, Detail, Reason string
				Status                      int
				Errors                      []struct{ Field, Reason, Detail, Message string }
			}
			if err := json.Unmarshal([]byte(a.body), &p); err != nil || a.header.Get("Content-Type") != "application/problem+json" {
				t.Fatalf("%d %q %s is no problem: %v", a.status, a.header.Get("Content-Type"), a.body, err)
			}
			if a.status != test.status || p.Status != test.status || p.Reason != test.reason || p.Detail == "" || p.Title == "" {
				t.Errorf("answered %d %s, want %d and the reason %q", a.status, a.body, test.status, test.reason)
			}
			var fields []string
			for _, e := range p.Errors {
				fields = append(fields, e.Field)
				if e.Reason == "" || e.Detail == "" || e.Message == "" {
					t.Errorf("the fault %+v does not say what is wrong", e)
				}
			}
			if got := strings.Join(fields, " "); got != test.fields {
				t.Errorf("faults of %q, want %q", got, test.fields)
			}
			if a.status == 405 && a.header.Get("Allow") != "POST, OPTIONS" {
				t.Errorf("Allow: %q, want POST, OPTIONS", a.header.Get("Allow"))
			}
			if n := s.counted(test.form, test.result); n != before+1 {
				t.Errorf("counted %d of %s, want %d", n, test.result, before+1)
			}
		})
	}
	s.t = t
	list, rejected := s.submissions()
	if len(list)+len(rejected) > 0 {
		t.Errorf("%d and %d were stored, want nothing", len(list), len(rejected))
	}
	s.silent(answers...)
}

// silent: no answer and no log line repeats what was sent.
func (s *formSite) silent(answers ...answer) {
	s.t.Helper()
	for _, a := range answers {
		for _, sent := range []string{"a@b.example", "c@d.example", "not an address", "secret", "evil.example", "nobody"} {
			if strings.Contains(a.body, sent) {
				s.t.Errorf("an answer repeats %q: %s", sent, a.body)
			}
			if strings.Contains(s.logs.String(), sent) {
				s.t.Errorf("the log repeats %q", sent)
			}
		}
	}
}

func TestIdempotencyKey(t *testing.T) {
	public := func(o *gateway.FormOptions) { o.PublicURL = "https://forms.example.com/" }
	s := newFormSite(t, public)
	body, other := `{"email":"a@b.example","company":"x"}`, `{"email":"a@b.example","company":"y"}`
	first := s.post("/forms/guide", body, "Idempotency-Key", "k-1")
	again := s.post("/forms/guide", body, "Idempotency-Key", `"k-1"`)
	if asset := s.accepted(first).Asset; asset == nil || !strings.HasPrefix(*asset, "https://forms.example.com/assets/") {
		t.Errorf("the link is %s, want one under the public address", first.body)
	}
	if s.accepted(first).ID != s.accepted(again).ID || first.body != again.body {
		t.Errorf("the repeat was answered with %s, want %s", again.body, first.body)
	}
	if a := s.post("/forms/guide", other, "Idempotency-Key", "k-1"); a.status != 422 {
		t.Errorf("another body was answered with %d %s, want 422", a.status, a.body)
	}
	if a := s.post("/forms/plain", body, "Idempotency-Key", "k-1"); s.accepted(a).ID == s.accepted(first).ID {
		t.Error("the key of one form is that of another")
	}
	if a := s.post("/forms/guide", body, "Idempotency-Key", "k-2"); s.accepted(a).ID == s.accepted(first).ID {
		t.Error("two keys make one submission")
	}
	s.serve(public) // the process ends and starts again
	after := s.post("/forms/guide", body, "Idempotency-Key", "k-1")
	if after.body != first.body {
		t.Errorf("after a restart the repeat was answered with %s, want %s", after.body, first.body)
	}
	if a := s.post("/forms/guide", other, "Idempotency-Key", "k-1"); a.status != 422 {
		t.Errorf("after a restart another body was answered with %d %s, want 422", a.status, a.body)
	}
	if list, _ := s.submissions(); len(list) != 3 {
		t.Errorf("%d submissions are stored, want 3", len(list))
	}
}

// TestSameKeyAtOnce: of many requests that race with one key and two bodies, one body wins.
func TestSameKeyAtOnce(t *testing.T) {
	s := newFormSite(t)
	var mu sync.Mutex
	ids, statuses := map[string]int{}, map[int]int{}
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/forms/plain", strings.NewReader(fmt.Sprintf(`{"email":"a%d@b.example"}`, i%2)))
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("Idempotency-Key", "race")
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			var got accepted
			_ = json.NewDecoder(resp.Body).Decode(&got)
			mu.Lock()
			defer mu.Unlock()
			statuses[resp.StatusCode]++
			if resp.StatusCode == http.StatusAccepted {
				ids[got.ID]++
			}
		})
	}
	all.Wait()
	if list, _ := s.submissions(); len(list) != 1 || len(ids) != 1 || statuses[202] != 20 || statuses[422] != 20 {
		t.Errorf("%d submissions, ids %v, answers %v, want one submission, 20 times 202 and 20 times 422", len(list), ids, statuses)
	}
}

func TestDoubleClick(t *testing.T) {
	s := newFormSite(t)
	kind, body := multipartForm(t, [][2]string{{"email", "a@b.example"}}, "", "")
	first := s.accepted(s.post("/forms/plain", body, "Content-Type", kind))
	kind, body = multipartForm(t, [][2]string{{"email", "a@b.example"}}, "", "") // another boundary
	if again := s.accepted(s.post("/forms/plain", body, "Content-Type", kind)); again.ID != first.ID {
		t.Errorf("the second click made %s, want %s", again.ID, first.ID)
	}
	if other := s.accepted(s.post("/forms/plain", "email=c%40d.example", "Content-Type", urlForm)); other.ID == first.ID {
		t.Error("two people make one submission")
	}
	if list, _ := s.submissions(); len(list) != 2 {
		t.Errorf("%d submissions are stored, want 2", len(list))
	}
	if s.counted("plain", "repeated") != 1 || s.counted("plain", "accepted") != 2 {
		t.Error("want 2 counted as accepted and 1 as repeated")
	}
}

func TestOrigins(t *testing.T) {
	s := newFormSite(t)
	preflight := func(form, origin string) answer {
		return s.send(http.MethodOptions, "/forms/"+form, nil, "Origin", origin, "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "content-type,idempotency-key")
	}
	for _, test := range []struct{ form, origin, want string }{
		{"guide", "https://anywhere.example", "*"},
		{"shop", "https://shop.example.com", "https://shop.example.com"},
		{"shop", "https://evil.example", ""},
		{"shop", "null", ""},
		{"shop", s.url, s.url},
	} {
		a := preflight(test.form, test.origin)
		if got := a.header.Get("Access-Control-Allow-Origin"); a.status != 204 || got != test.want {
			t.Errorf("%s from %s: %d, Access-Control-Allow-Origin %q, want %q", test.form, test.origin, a.status, got, test.want)
		}
		if a.header.Get("Access-Control-Allow-Credentials") != "" {
			t.Error("credentials are allowed")
		}
		if allowed := a.header.Get("Access-Control-Allow-Headers"); (test.want != "") != strings.Contains(allowed, "Idempotency-Key") {
			t.Errorf("%s from %s: allowed headers %q", test.form, test.origin, allowed)
		}
	}
	a := s.post("/forms/shop", `{"mail":"a@b.example"}`, "Origin", "https://shop.example.com")
	s.accepted(a)
	if got := a.header.Get("Access-Control-Allow-Origin"); got != "https://shop.example.com" {
		t.Errorf("the answer is for %q", got)
	}
	// A page that hides its address posts without a script.
	s.accepted(s.post("/forms/shop", `{"mail":"c@d.example"}`, "Origin", "null", "Sec-Fetch-Mode", "navigate"))
	s.accepted(s.post("/forms/shop", `{"mail":"e@f.example"}`)) // no browser
}

// browser is what a browser sends that posts a form without script.
var browser = []string{"Content-Type", urlForm, "Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}

func (s *formSite) stay() {
	http.DefaultClient.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	s.t.Cleanup(func() { http.DefaultClient.CheckRedirect = nil })
}

func TestWithoutScript(t *testing.T) {
	s := newFormSite(t)
	s.stay()
	for _, test := range []struct{ asked, want string }{
		{"", "https://shop.example.com/thanks?file=" + url.QueryEscape(s.url+"/assets/")},
		{"https://shop.example.com/danke", "https://shop.example.com/danke"},
		{"https://evil.example/", "https://shop.example.com/thanks?file="},
		{"https://shop.example.com/danke?x", "https://shop.example.com/thanks?file="},
		{"//evil.example", "https://shop.example.com/thanks?file="},
	} {
		a := s.post("/forms/shop", url.Values{"mail": {"a@b.example"}, "context.thanks": {test.asked}}.Encode(), browser...)
		if got := a.header.Get("Location"); a.status != http.StatusSeeOther || !strings.HasPrefix(got, test.want) {
			t.Errorf("asking for %q was sent to %q with %d, want %s", test.asked, got, a.status, test.want)
		}
	}
	a := s.post("/forms/guide", "email=a%40b.example&company=%3Cscript%3Ealert(1)%3C%2Fscript%3E", browser...)
	if a.status != http.StatusAccepted || !strings.Contains(a.body, `href="`+s.url+`/assets/`) || !strings.Contains(a.body, "The &lt;guide&gt;") {
		t.Errorf("the thanks page is %d %s", a.status, a.body)
	}
	bad := s.post("/forms/guide", "email=%3Cscript%3E&company=", browser...)
	if bad.status != 422 || !strings.Contains(bad.body, "<strong>email</strong>") || !strings.Contains(bad.body, "<strong>company</strong>") {
		t.Errorf("the page of faults is %d %s", bad.status, bad.body)
	}
	gone := s.post("/forms/%3Cscript%3E", "email=x", browser...)
	for _, a := range []answer{a, bad, gone} {
		if strings.Contains(a.body, "<script") || !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") ||
			!strings.Contains(a.header.Get("Content-Security-Policy"), "default-src 'none'") || a.header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("an unsafe page: %v %s", a.header, a.body)
		}
	}
}

func TestAssetLink(t *testing.T) {
	s := newFormSite(t)
	s.stay()
	seen := map[string]bool{}
	for i := range 10 { // also the second and the tenth time
		got := s.accepted(s.post("/forms/guide", fmt.Sprintf(`{"email":"a@b.example","company":"x","size":%d}`, i)))
		if got.Asset == nil {
			t.Fatal("no link")
		}
		seen[*got.Asset] = true
		a := s.send(http.MethodGet, strings.TrimPrefix(*got.Asset, s.url), nil)
		if a.status != http.StatusFound || a.header.Get("Location") != "https://files.example.com/guide.pdf" {
			t.Errorf("the link leads to %d %q", a.status, a.header.Get("Location"))
		}
		if strings.Contains(*got.Asset, "b.example") || strings.Contains(*got.Asset, got.ID) {
			t.Errorf("the link %s says for whom it is", *got.Asset)
		}
	}
	if len(seen) != 10 {
		t.Errorf("%d links for 10 submissions", len(seen))
	}
	if got := s.accepted(s.post("/forms/plain", `{"email":"a@b.example"}`)); got.Asset != nil {
		t.Errorf("a form that promises nothing links to %s", *got.Asset)
	}
	for _, path := range []string{"/assets/", "/assets/x", "/assets/<script>alert(1)</script>"} {
		if a := s.send(http.MethodGet, path, nil); a.status != http.StatusNotFound || strings.Contains(a.body, "<script") {
			t.Errorf("%s: %d %s, want a page with 404", path, a.status, a.body)
		}
	}
	if a := s.send(http.MethodPost, "/assets/x", nil); a.status != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d, want 405", a.status)
	}
}

func TestScript(t *testing.T) {
	s := newFormSite(t)
	a := s.send(http.MethodGet, "/lodestone.js", nil)
	if a.status != http.StatusOK || !strings.HasPrefix(a.header.Get("Content-Type"), "text/javascript") || !strings.Contains(a.body, "data-lodestone") {
		t.Errorf("the script is %d %v", a.status, a.header)
	}
	if again := s.send(http.MethodGet, "/lodestone.js", nil, "Accept-Encoding", "identity", "If-None-Match", a.header.Get("ETag")); again.status != http.StatusOK {
		t.Errorf("the plain script under the compressed one's tag: %d, want 200", again.status)
	}
	if again := s.send(http.MethodGet, "/lodestone.js", nil, "Accept-Encoding", "gzip", "If-None-Match", a.header.Get("ETag")); again.status != http.StatusNotModified {
		t.Errorf("the same script again: %d, want 304", again.status)
	}
	if packed := s.send(http.MethodGet, "/lodestone.js", nil, "Accept-Encoding", "gzip"); len(packed.body) > 4<<10 || packed.header.Get("Content-Encoding") != "gzip" {
		t.Errorf("the script has %d bytes on the wire, want at most 4 KiB", len(packed.body))
	}
	if post := s.post("/lodestone.js", ""); post.status != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d, want 405", post.status)
	}
}

// TestNoRules: while there are no usable rule files, forms are taken and wait.
func TestNoRules(t *testing.T) {
	s := newFormSite(t, func(o *gateway.FormOptions) { o.Rules = func() *rules.Set { return nil } })
	s.accepted(s.post("/forms/guide", `{"email":"a@b.example","company":"x"}`))
	s.accepted(s.post("/forms/guide", `{}`))
	for path, want := range map[string]int{"/forms/Not_A_Form": 404, "/forms/": 404, "/forms/a.b": 404} {
		if a := s.post(path, `{}`); a.status != want {
			t.Errorf("%s: %d, want %d", path, a.status, want)
		}
	}
	if a := s.post("/forms/guide", `{`); a.status != 400 {
		t.Errorf("half an object: %d, want 400", a.status)
	}
	list, rejected := s.submissions()
	if len(list) != 1 || len(rejected) != 1 {
		t.Errorf("%d and %d wait, want 1 and 1", len(list), len(rejected))
	}
}

func TestFormsBrokerAway(t *testing.T) {
	fail := false
	s := newFormSite(t, func(o *gateway.FormOptions) {
		publish := o.Publish
		o.Publish = func(ctx context.Context, m *nats.Msg) error {
			if fail {
				return fmt.Errorf("publish: %w", broker.ErrFull)
			}
			return publish(ctx, m)
		}
	})
	fail = true
	a := s.post("/forms/plain", `{"email":"a@b.example"}`, "Idempotency-Key", "k")
	if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
		t.Errorf("answered %d %v, want 503 with Retry-After", a.status, a.header)
	}
	double := s.post("/forms/plain", `{"email":"c@d.example"}`)
	fail = false
	s.accepted(s.post("/forms/plain", `{"email":"a@b.example"}`, "Idempotency-Key", "k"))
	s.accepted(s.post("/forms/plain", `{"email":"c@d.example"}`))
	if list, _ := s.submissions(); len(list) != 2 || double.status != 503 {
		t.Errorf("%d are stored after the retries, want 2", len(list))
	}
	s.silent(a, double)
}

// TestKeysForget: a key is remembered for 24 hours.
func TestKeysForget(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	keys, err := gateway.OpenKeys(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Close()
	keys.SetNow(func() time.Time { return now })
	for _, step := range []struct {
		wait time.Duration
		body string
		same bool
	}{{0, "a", true}, {0, "b", false}, {24*time.Hour - time.Second, "b", false}, {time.Second, "b", true}, {time.Minute, "a", false}, {100 * time.Hour, "a", true}} {
		now = now.Add(step.wait)
		if same, err := keys.Claim(t.Context(), "key", step.body); err != nil || same != step.same {
			t.Errorf("after %v, body %s: %v, %v, want %v", step.wait, step.body, same, err, step.same)
		}
	}
}
