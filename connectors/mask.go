package connectors

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/lodestonehq/lodestone"
)

// maxDetail bounds what is kept of somebody else's words, in characters.
const maxDetail = 300

const addressText = "<address>"

// minSecret is the length from which a text is looked for as a secret. A shorter one is no secret that
// a provider gave out, and taking it out of every message would leave none readable.
const minSecret = 6

// addressLike matches what may be an email address, percent-encoded ones included. It takes too
// much rather than too little: a detail with a word masked for nothing is still a detail.
var addressLike = regexp.MustCompile(`(?i)[^\s"'<>(),;:\[\]{}=&?/\\|]+(?:@|%40|\\u0040|&#64;)[^\s"'<>(),;:\[\]{}=&?/\\|]+`)

// mask takes secrets and addresses out of text that came from outside.
type mask struct{ secrets []string } // longest first

// newMask hides the secrets in the forms in which they travel: bare, percent-encoded, in base64, and
// any two of them as user and password.
func newMask(secrets map[string]Secret) mask {
	var forms []string
	add := func(s string) {
		if len(s) >= minSecret {
			forms = append(forms, s, url.QueryEscape(s), url.PathEscape(s),
				base64.StdEncoding.EncodeToString([]byte(s)), base64.URLEncoding.EncodeToString([]byte(s)))
		}
	}
	for _, a := range secrets {
		add(a.Reveal())
		if len(a) >= minSecret { // as a user without a password, or a password without a user
			forms = append(forms, base64.StdEncoding.EncodeToString([]byte(a.Reveal()+":")), base64.StdEncoding.EncodeToString([]byte(":"+a.Reveal())))
		}
		for _, b := range secrets {
			if len(a)+len(b) < minSecret {
				continue
			}
			forms = append(forms, base64.StdEncoding.EncodeToString([]byte(a.Reveal()+":"+b.Reveal())))
		}
	}
	slices.SortFunc(forms, func(a, b string) int { return len(b) - len(a) })
	return mask{slices.Compact(forms)}
}

// hidden is one more text to take out, and what to put in its place.
type hidden struct{ text, as string }

// text makes outside text fit to be shown: one line, no secrets, no addresses, nothing of also, not
// long.
func (m mask) text(s string, also ...hidden) string {
	if s == "" {
		return "" // most answers say nothing, and this is called for every one
	}
	// Cut only at the end: half of a secret is not recognised any more.
	for _, secret := range m.secrets {
		s = strings.ReplaceAll(s, secret, secretText)
	}
	for _, h := range also {
		s = replaceFold(s, h.text, h.as)
	}
	s = lodestone.HideLinks(strings.ToValidUTF8(s, "�"))
	if strings.ContainsAny(s, "@%\\&") { // what an address cannot do without, in any of its spellings
		s = addressLike.ReplaceAllString(s, addressText)
	}
	if !isLine(s) {
		s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }), " ")
	}
	if len(s) <= maxDetail {
		return s
	}
	if r := []rune(s); len(r) > maxDetail {
		s = string(r[:maxDetail-1]) + "…"
	}
	return s
}

// isLine reports whether a text is words of printable ASCII with one space between them, as most are.
func isLine(s string) bool {
	space := true
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' || space && s[i] == ' ' {
			return false
		}
		space = s[i] == ' '
	}
	return s == "" || !space
}

// err gives an error whose text is masked.
func (m mask) err(err error) error {
	if err == nil {
		return nil
	}
	return &masked{text: m.text(err.Error()), cause: err}
}

// hideKey marks a context with a *concealed: texts that no error about its requests may repeat.
type hideKey struct{}

// concealed is an address, and what a rule gave as one. The pattern for addresses would miss a part of some
// that are allowed.
type concealed struct {
	email      lodestone.Email
	parameters map[string]any
}

// hide keeps an address, and what may be one among parameters, however deep, out of the errors of the requests
// made with the context.
func hide(ctx context.Context, email lodestone.Email, parameters map[string]any) context.Context {
	return context.WithValue(ctx, hideKey{}, &concealed{email, parameters})
}

func concealedIn(ctx context.Context) *concealed {
	c, _ := ctx.Value(hideKey{}).(*concealed)
	return c
}

// hiddenIn are the texts that nothing about the requests made with the context may repeat.
func hiddenIn(ctx context.Context) []hidden { return concealedIn(ctx).forms() }

// said masks what is kept of the answer to a request made with the context.
func (m mask) said(ctx context.Context, s string) string {
	if !strings.ContainsAny(s, "@%") {
		return m.text(s) // in every form an address has one of these
	}
	return m.text(s, hiddenIn(ctx)...)
}

// forms are the texts to take out, in the forms in which they travel.
func (c *concealed) forms() (texts []hidden) {
	if c == nil {
		return nil
	}
	add := func(s string) {
		for i, form := range [...]string{s, url.QueryEscape(s), url.PathEscape(s)} {
			if form != "" && (i == 0 || form != s) {
				texts = append(texts, hidden{form, addressText})
			}
		}
	}
	add(string(c.email))
	eachText(c.parameters, func(s string) {
		if strings.Contains(s, "@") {
			add(strings.TrimSpace(s))
		}
	})
	return texts
}

// eachText calls fn with the texts in a value, however deep.
func eachText(v any, fn func(string)) {
	switch v := v.(type) {
	case string:
		fn(v)
	case []any:
		for _, x := range v {
			eachText(x, fn)
		}
	case map[string]any:
		for _, x := range v {
			eachText(x, fn)
		}
	}
}

// credentials are the header values of a request that must not come back in an error.
func credentials(h http.Header) []hidden {
	var out []hidden
	for _, v := range h.Values("Authorization") {
		if v != "" {
			out = append(out, hidden{v, secretText})
		}
		if _, token, _ := strings.Cut(v, " "); token != "" {
			out = append(out, hidden{token, secretText})
		}
	}
	return out
}

// replaceFold is strings.ReplaceAll without regard to the case of ASCII letters.
func replaceFold(s, old, with string) string {
	if old == "" || len(s) < len(old) {
		return s
	}
	var b strings.Builder
	from, first := 0, lower(old[0])
	for i := 0; i+len(old) <= len(s); {
		if s[i] < utf8.RuneSelf && lower(s[i]) != first && old[0] < utf8.RuneSelf || !strings.EqualFold(s[i:i+len(old)], old) {
			i++
			continue
		}
		b.WriteString(s[from:i])
		b.WriteString(with)
		i += len(old)
		from = i
	}
	if from == 0 {
		return s
	}
	b.WriteString(s[from:])
	return b.String()
}

// lower is an ASCII letter in lower case, and any other byte as it is.
func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// Words finds what a provider says in the body of an error: the text under message, Message, error,
// detail, title and the like, in the shapes that are common. It is empty for a body that is not JSON
// or says nothing, since a page of HTML is no message. The result is not masked.
func Words(body []byte) string {
	var v any
	if json.Unmarshal(body, &v) != nil {
		return ""
	}
	var said []string
	collect(v, 0, &said)
	return strings.Join(said, "; ")
}

// wordKeys are the keys whose texts are a provider's words, in the order in which they are shown.
var wordKeys = []string{"message", "errormessage", "error_description", "error", "detail", "title", "reason", "errors"}

func collect(v any, depth int, said *[]string) {
	if depth > 4 || len(*said) >= 8 {
		return
	}
	switch v := v.(type) {
	case string:
		if v = strings.TrimSpace(v); v != "" && !slices.Contains(*said, v) {
			*said = append(*said, v)
		}
	case []any:
		for _, e := range v {
			collect(e, depth+1, said)
		}
	case map[string]any:
		known := false
		for _, want := range wordKeys {
			for k, e := range v {
				if strings.EqualFold(k, want) {
					known = true
					collect(e, depth+1, said)
				}
			}
		}
		if !known && depth > 0 { // the lists of faults by field
			keys := make([]string, 0, len(v))
			for k := range v {
				keys = append(keys, k)
			}
			slices.Sort(keys)
			for _, k := range keys {
				collect(v[k], depth+1, said)
			}
		}
	}
}
