package gateway_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/internal/gateway"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/sequencer/event"
)

const (
	foreignSecret  = "not a secret of anybody"
	standardSecret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD" // the example of the specification
)

func sign256(key []byte, parts ...string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(strings.Join(parts, "")))
	return m.Sum(nil)
}

// signers sign a body as the tools do, for a request that is posted at a time to an address.
var signers = map[string]func(url, body string, at time.Time) []string{
	"typeform": func(_, body string, _ time.Time) []string {
		return []string{"Typeform-Signature", "sha256=" + base64.StdEncoding.EncodeToString(sign256([]byte(foreignSecret), body))}
	},
	"tally": func(_, body string, _ time.Time) []string {
		return []string{"Tally-Signature", base64.StdEncoding.EncodeToString(sign256([]byte(foreignSecret), body))}
	},
	"hubspot": func(url, body string, at time.Time) []string {
		ms := strconv.FormatInt(at.UnixMilli(), 10)
		return []string{"X-HubSpot-Request-Timestamp", ms, "X-HubSpot-Signature-v3", base64.StdEncoding.EncodeToString(sign256([]byte(foreignSecret), "POST", url, body, ms))}
	},
	"webflow": func(_, body string, at time.Time) []string {
		ms := strconv.FormatInt(at.UnixMilli(), 10)
		return []string{"X-Webflow-Timestamp", ms, "X-Webflow-Signature", hex.EncodeToString(sign256([]byte(foreignSecret), ms, ":", body))}
	},
	"formspree": func(_, body string, at time.Time) []string {
		s := strconv.FormatInt(at.Unix(), 10)
		return []string{"Formspree-Signature", "t=" + s + ",v1=" + hex.EncodeToString(sign256([]byte(foreignSecret), s, ".", body))}
	},
	"gravity-forms": func(string, string, time.Time) []string { return []string{"Authorization", "Bearer " + foreignSecret} },
	"google-forms":  func(string, string, time.Time) []string { return []string{"Authorization", "Bearer " + foreignSecret} },
	"standard": func(_, body string, at time.Time) []string {
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(standardSecret, "whsec_"))
		if err != nil {
			panic(err)
		}
		s := strconv.FormatInt(at.Unix(), 10)
		sig := base64.StdEncoding.EncodeToString(sign256(key, "msg_1.", s, ".", body))
		return []string{"Webhook-Id", "msg_1", "Webhook-Timestamp", s, "Webhook-Signature", "v1,b2xk v1," + sig}
	},
}

func foreignSet(t *testing.T) *rules.Set {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "foreign", "rules.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return compile(t, string(text))
}

func foreignPayload(t *testing.T, tool string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "foreign", tool+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func foreignSite(t *testing.T) *formSite {
	secrets := map[string]connectors.Secret{}
	for tool := range signers {
		secrets[tool] = foreignSecret
	}
	secrets["standard"] = standardSecret
	set := foreignSet(t)
	return newFormSite(t, func(o *gateway.FormOptions) {
		o.Rules, o.Secrets = func() *rules.Set { return set }, secrets
	})
}

// read decodes everything in the stream by the rules of a set.
func (s *formSite) read(set *rules.Set) (list []lodestone.Submission) {
	s.t.Helper()
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
			func(name string) *lodestone.Form { return &set.Forms[name].Form })
		if no != nil {
			s.t.Fatalf("%+v", no)
		}
		list = append(list, sub)
	}
	return list
}

func TestForeign(t *testing.T) {
	for tool, sign := range signers {
		t.Run(tool, func(t *testing.T) {
			s, set := foreignSite(t), foreignSet(t)
			body, path := foreignPayload(t, tool), "/forms/"+tool
			now := time.Now()
			post := func(body string, header []string) answer { return s.post(path, body, header...) }

			good := post(body, sign(s.url+path, body, now))
			id := s.accepted(good).ID
			if again := post(body, sign(s.url+path, body, now.Add(time.Second))); s.accepted(again).ID != id {
				t.Errorf("sent again it is %s, want %s", s.accepted(again).ID, id)
			}
			s.serve(func(o *gateway.FormOptions) { // the process ends and starts again
				o.Rules, o.Secrets = func() *rules.Set { return set }, map[string]connectors.Secret{tool: foreignSecret}
				if tool == "standard" {
					o.Secrets[tool] = standardSecret
				}
			})
			if again := post(body, sign(s.url+path, body, now)); s.accepted(again).ID != id {
				t.Errorf("replayed after a restart it is %s, want %s", s.accepted(again).ID, id)
			}
			forged := map[string]answer{"unsigned": post(body, nil)}
			if set.Forms[tool].Signature == "bearer" { // it says nothing of the body
				forged["another secret"] = post(body, []string{"Authorization", "Bearer x"})
				forged["no secret"] = post(body, []string{"Authorization", "Bearer "})
			} else {
				forged["another body"] = post(body+" ", sign(s.url+path, body, now))
			}
			if k := set.Forms[tool].Signature; slices.Contains([]string{"hubspot", "webflow", "formspree", "standard-webhooks"}, k) {
				forged["an old one"] = post(body, sign(s.url+path, body, now.Add(-6*time.Minute)))
				forged["one of the future"] = post(body, sign(s.url+path, body, now.Add(6*time.Minute)))
			}
			for name, a := range forged {
				if a.status != http.StatusForbidden || strings.Contains(a.body, "Ada") {
					t.Errorf("%s: %d %s, want 403", name, a.status, a.body)
				}
			}
			list := s.read(set)
			if len(list) != 1 {
				t.Fatalf("%d submissions, want 1", len(list))
			}
			sub := list[0]
			if sub.ID != id || sub.Email != "ada@example.com" || sub.Fields.Value("first_name") != "Ada" || sub.Fields.Value("company_size") != 240.0 || len(sub.Notes) > 0 || sub.Visitor != "" {
				t.Errorf("read as %+v, want id %s", sub, id)
			}
			if at := time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC); set.Forms[tool].Map["submission.at"].String() != "" && !sub.At.Equal(at) {
				t.Errorf("at %v, want %v", sub.At, at)
			}
			switch tool {
			case "typeform":
				if sub.ID != "01HKYDR1Y5G8Z9A" || sub.Fields.Value("topics") != "Pricing, Security" || sub.Context.UTM.Source != "newsletter" || sub.Context.Consent == nil || !sub.Context.Consent.Marketing {
					t.Errorf("read as %+v", sub)
				}
			case "gravity-forms":
				if sub.Context.IP != "203.0.113.9" || sub.Context.Page != "https://example.com/pricing/" {
					t.Errorf("context %+v", sub.Context)
				}
			}
		})
	}
	// Every signature that a rule file may name is tried above.
	for _, kind := range lodestone.Signatures {
		found := false
		for _, f := range foreignSet(t).Forms {
			found = found || f.Signature == kind
		}
		if !found {
			t.Errorf("nothing tries %s", kind)
		}
	}
}

// TestForeignOverNATS: the map is the decoder's, so it works without the gateway too; and a form
// with a map can still be posted as our own forms are.
func TestForeignOverNATS(t *testing.T) {
	s, set := foreignSite(t), foreignSet(t)
	bodies := map[string]string{
		"ada@example.com": foreignPayload(t, "typeform"),
		"eve@example.com": `{"email":"eve@example.com","first_name":"Eve"}`,
		"bob@example.com": `{"fields":{"email":"bob@example.com"},"context":{"utm":{"source":"fair"}}}`,
	}
	for _, body := range bodies {
		if _, err := s.broker.JetStream().PublishMsg(t.Context(), &nats.Msg{Subject: "lodestone.forms.typeform", Data: []byte(body)}); err != nil {
			t.Fatal(err)
		}
	}
	list := s.read(set)
	for _, sub := range list {
		if _, ok := bodies[string(sub.Email)]; !ok {
			t.Errorf("read %s", sub.Email)
		}
		if want := map[string]string{"ada@example.com": "newsletter", "bob@example.com": "fair"}[string(sub.Email)]; sub.Context.UTM.Source != want {
			t.Errorf("%s came from %q, want %q", sub.Email, sub.Context.UTM.Source, want)
		}
	}
	if len(list) != 3 {
		t.Errorf("%d submissions, want 3", len(list))
	}
}

func TestUnverifiableForm(t *testing.T) {
	set := foreignSet(t)
	s := newFormSite(t, func(o *gateway.FormOptions) { o.Rules = func() *rules.Set { return set } })
	if a := s.post("/forms/gravity-forms", foreignPayload(t, "gravity-forms"), "Authorization", "Bearer "); a.status != http.StatusForbidden || s.counted("gravity-forms", "unverifiable") != 1 {
		t.Errorf("without a secret: %d %s, want 403", a.status, a.body)
	}
}

func TestFormSecrets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secrets")
	for _, test := range []struct {
		text string
		ok   bool
	}{
		{"# of our forms\n\nguide  s3cr3t of words\r\nshop x\n", true},
		{"guide\n", false},
		{"Guide s3cr3t\n", false},
		{"guide a\nguide b\n", false},
	} {
		if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := gateway.ReadFormSecrets(path)
		if (err == nil) != test.ok || test.ok && (got["guide"].Reveal() != "s3cr3t of words" || len(got) != 2) {
			t.Errorf("%q: %v, %v", test.text, len(got), err)
		}
		if err != nil && strings.Contains(fmt.Sprint(err), "s3cr3t") {
			t.Errorf("the error repeats the secret: %v", err)
		}
	}
	if _, err := gateway.ReadFormSecrets(path + "x"); err == nil {
		t.Error("a file that is not there is read")
	}
}
