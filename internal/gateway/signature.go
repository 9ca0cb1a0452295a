package gateway

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/rules"
)

// signatureAge is how old a signature with a time may be, or how far ahead: what Standard Webhooks,
// HubSpot, Webflow and Formspree recommend.
const signatureAge = 5 * time.Minute

// signed is a request whose signature is looked at.
type signed struct {
	header http.Header
	method string
	url    string // as the sender knows it
	body   []byte
	secret []byte
	now    time.Time
}

// signature is one way of signing. It returns what names the delivery, "" when nothing does, and
// whether the sender knows the secret. A signature without a time can be replayed; the same body is
// the same submission then, however often it comes.
type signature func(s signed) (delivery string, ok bool)

// signatures are the ways of signing by the name that a rule file gives them.
var signatures = map[string]signature{
	// https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
	"standard-webhooks": func(s signed) (string, bool) {
		id, at := s.header.Get("Webhook-Id"), s.header.Get("Webhook-Timestamp")
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(string(s.secret), "whsec_"))
		if err != nil || id == "" || !s.fresh(at, time.Second) {
			return "", false
		}
		want := base64.StdEncoding.EncodeToString(mac(key, id, ".", at, ".", string(s.body)))
		for _, part := range strings.Fields(s.header.Get("Webhook-Signature")) { // several while a secret is replaced
			if version, sig, _ := strings.Cut(part, ","); version == "v1" && same(sig, want) {
				return id, true
			}
		}
		return "", false
	},
	// https://www.typeform.com/developers/webhooks/secure-your-webhooks/
	"typeform": func(s signed) (string, bool) {
		want := "sha256=" + base64.StdEncoding.EncodeToString(mac(s.secret, string(s.body)))
		return "", same(s.header.Get("Typeform-Signature"), want)
	},
	// https://tally.so/help/webhooks
	"tally": func(s signed) (string, bool) {
		return "", same(s.header.Get("Tally-Signature"), base64.StdEncoding.EncodeToString(mac(s.secret, string(s.body))))
	},
	// https://developers.hubspot.com/docs/api/webhooks/validating-requests (version 3)
	"hubspot": func(s signed) (string, bool) {
		at := s.header.Get("X-Hubspot-Request-Timestamp")
		want := base64.StdEncoding.EncodeToString(mac(s.secret, s.method, s.url, string(s.body), at))
		return "", s.fresh(at, time.Millisecond) && same(s.header.Get("X-Hubspot-Signature-V3"), want)
	},
	// https://developers.webflow.com/data/docs/working-with-webhooks
	"webflow": func(s signed) (string, bool) {
		at := s.header.Get("X-Webflow-Timestamp")
		want := hex.EncodeToString(mac(s.secret, at, ":", string(s.body)))
		return "", s.fresh(at, time.Millisecond) && same(s.header.Get("X-Webflow-Signature"), want)
	},
	// https://help.formspree.io/articles/advanced-features/verify-webhook-signatures
	"formspree": func(s signed) (string, bool) {
		parts := map[string]string{}
		for part := range strings.SplitSeq(s.header.Get("Formspree-Signature"), ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
			parts[name] = value
		}
		want := hex.EncodeToString(mac(s.secret, parts["t"], ".", string(s.body)))
		return "", s.fresh(parts["t"], time.Second) && same(parts["v1"], want)
	},
	// For tools that sign nothing and can send a header: Gravity Forms' Webhooks, a script in Google
	// Forms. RFC 6750.
	"bearer": func(s signed) (string, bool) {
		kind, token, _ := strings.Cut(s.header.Get("Authorization"), " ")
		return "", strings.EqualFold(kind, "Bearer") && same(token, string(s.secret))
	},
}

// fresh reports whether a count of units since 1970 is near now.
func (s signed) fresh(at string, unit time.Duration) bool {
	n, err := strconv.ParseInt(at, 10, 64)
	if err != nil || n < 0 || n > int64(1<<62)/int64(unit) {
		return false
	}
	return s.now.Sub(time.Unix(0, n*int64(unit))).Abs() <= signatureAge
}

func mac(key []byte, parts ...string) []byte {
	m := hmac.New(sha256.New, key)
	for _, p := range parts {
		m.Write([]byte(p))
	}
	return m.Sum(nil)
}

// same compares in constant time; two empty texts are not the same.
func same(got, want string) bool {
	return want != "" && subtle.ConstantTimeCompare([]byte(got), []byte(want)) == 1
}

// prove checks the signature of a form that is to have one.
func (f *forms) prove(r *http.Request, name, kind string, body []byte) (delivery string, no *refusal) {
	secret, ok := f.Secrets[name]
	if !ok || secret == "" {
		return "", refuse(http.StatusForbidden, resultUnverifiable, "this form is to be signed and no secret is configured for it; put it into the file that http.form_secrets names")
	}
	delivery, ok = signatures[kind](signed{
		header: r.Header, method: r.Method, url: f.base(r) + r.URL.RequestURI(), body: body, secret: []byte(secret.Reveal()), now: f.now(),
	})
	if !ok {
		return "", refuse(http.StatusForbidden, resultForged, "the signature does not prove who sent this, or is too old; compare the secret here with the one at the sender")
	}
	return delivery, nil
}

// ReadFormSecrets reads the secrets that forms are signed with: a form's name, a blank and its secret on
// each line; # begins a comment. An error never repeats what stands there.
func ReadFormSecrets(path string) (map[string]connectors.Secret, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("http.form_secrets: %w", err)
	}
	secrets := map[string]connectors.Secret{}
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		form, secret, _ := strings.Cut(line, " ")
		secret = strings.TrimSpace(secret)
		if secret == "" || !rules.IsName(form) || secrets[form] != "" {
			return nil, fmt.Errorf("http.form_secrets: %s:%d: want the name of a form, a blank and its secret, each form once", path, i+1)
		}
		secrets[form] = connectors.Secret(secret)
	}
	return secrets, nil
}
