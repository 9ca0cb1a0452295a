// Package connectortest is the suite that every connector passes. It plays the provider over real HTTP
// and checks what each way of answering means: its class, its reason, whether it uses up an attempt,
// that an act is sent once and a read may be repeated, and that no error shows a key or an address.
//
//	connectortest.Run(t, connectortest.Case{
//		Kind:    referralrock.Kind(),
//		Secrets: map[string]connectors.Secret{"public_key": "…", "private_key": "…"},
//		Acts:    []connectortest.Act{{Act: invite, Status: 200, Answer: `{"outcome": "MemberPreloaded"}`}},
//		Check:   `[]`,
//	})
package connectortest

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
)

// Case is one connector under test.
type Case struct {
	Kind    connectors.Kind
	Secrets map[string]connectors.Secret // long and odd enough to be found in a text
	Extra   map[string]string
	Acts    []Act
	Check   string // the body of a 200 that says: not unsubscribed; empty for a provider without a check
}

// Act is an act with an answer that means it was done.
type Act struct {
	connectors.Act
	Status int
	Answer string
}

// The accounts' timeouts: one that is never reached, and one for providers that do not answer.
const (
	patient   = 10 * time.Second
	impatient = 400 * time.Millisecond // room for the connection on a busy machine
)

func patience(row string) time.Duration {
	if row == "silent" {
		return impatient
	}
	return patient
}

// Run runs the suite.
func Run(t *testing.T, c Case) {
	if len(c.Acts) == 0 {
		t.Fatal("a connector without acts cannot be tested")
	}
	for _, act := range c.Acts {
		t.Run("act/"+act.Operation, func(t *testing.T) { c.acts(t, act) })
		t.Run("find/"+act.Operation, func(t *testing.T) { c.finds(t, act) })
		t.Run("found by/"+act.Operation, func(t *testing.T) { c.foundBy(t, act) })
	}
	t.Run("check", c.checks)
	t.Run("settings", c.settings)
}

// provider plays the provider: every request gets the answer that is set.
type provider struct {
	*httptest.Server
	mu       sync.Mutex // guards what follows
	answer   http.HandlerFunc
	requests int
	followed int // requests to the path that redirects point to
}

func newProvider(t *testing.T) *provider {
	p := &provider{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		p.mu.Lock()
		if r.URL.Path == "/elsewhere" {
			p.followed++
		}
		p.requests++
		answer := p.answer
		p.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *provider) set(answer http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer, p.requests, p.followed = answer, 0, 0
}

func (p *provider) count() (requests, followed int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.requests, p.followed
}

func (c Case) open(t *testing.T, base string, timeout time.Duration) *connectors.Account {
	t.Helper()
	a, err := connectors.Open(c.Kind, connectors.Settings{
		BaseURL: base, Secrets: c.Secrets, Extra: c.Extra, Rate: 10000, Timeout: timeout, Suppression: c.suppression(),
	})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return a
}

func (c Case) suppression() string {
	if c.Kind.Check {
		return connectors.SuppressionProvider
	}
	return connectors.SuppressionLocalOnly
}

// answering answers with a status and a body of JSON.
func answering(status int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// breaking writes the text to the bare connection and breaks it.
func breaking(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		_, _ = io.WriteString(conn, text)
		_ = conn.Close()
	}
}

func silent(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// gossip is an error body that repeats everything it should not.
func (c Case) gossip(r *http.Request, email lodestone.Email) string {
	said := []string{string(email), strings.ToUpper(string(email)), r.Header.Get("Authorization")}
	for _, s := range c.Secrets {
		said = append(said, s.Reveal())
	}
	body, err := json.Marshal(map[string]string{"message": "no: " + strings.Join(said, " ")})
	if err != nil {
		panic(err)
	}
	return string(body)
}

func (c Case) gossiping(status int, email lodestone.Email, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { answering(status, c.gossip(r, email), header...)(w, r) }
}

type want struct {
	class  connectors.Class
	reason lodestone.Reason
	counts bool // uses up an attempt
	after  time.Duration
}

func (c Case) acts(t *testing.T, act Act) {
	html := "<!doctype html><title>Maintenance</title>"
	type row struct {
		name   string
		answer http.HandlerFunc
		want   want
	}
	unknown := func(r lodestone.Reason) want { return want{connectors.Unknown, r, true, 0} }
	rows := []row{
		{"reset", breaking(""), unknown(lodestone.ReasonNoAnswer)},
		{"silent", silent, unknown(lodestone.ReasonNoAnswer)},
		{"garbage", breaking("SMTP 220 hello\r\n\r\n"), unknown(lodestone.ReasonNoAnswer)},
		{"truncated", breaking("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n" + act.Answer), unknown(lodestone.ReasonUnreadable)},
		{"html", answering(200, html, "Content-Type", "text/html"), unknown(lodestone.ReasonUnreadable)},
		{"empty", answering(200, ""), unknown(lodestone.ReasonUnreadable)},
		{"null", answering(200, "null"), unknown(lodestone.ReasonUnreadable)},
		{"wrong type", answering(200, `"done"`), unknown(lodestone.ReasonUnreadable)},
		{"two values", answering(200, act.Answer+act.Answer), unknown(lodestone.ReasonUnreadable)},
		{"too long", answering(200, strings.Repeat(" ", 1<<20)+act.Answer), unknown(lodestone.ReasonUnreadable)},
		{"503 with a time", c.gossiping(503, act.Email, "Retry-After", "7"), want{connectors.NotDone, lodestone.ReasonNotDone, true, 7 * time.Second}},
		{"429 with a time", c.gossiping(429, act.Email, "Retry-After", "7"), want{connectors.RateLimited, lodestone.ReasonRateLimited, false, 7 * time.Second}},
		{"429 without", c.gossiping(429, act.Email), want{connectors.RateLimited, lodestone.ReasonRateLimited, false, 0}},
		{"401 cut short", breaking("HTTP/1.1 401 Unauthorized\r\nContent-Length: 9999\r\n\r\n{"), want{connectors.LockedOut, lodestone.ReasonProviderUnavailable, false, 0}},
		{"400 cut short", breaking("HTTP/1.1 400 Bad Request\r\nContent-Length: 9999\r\n\r\n{"), want{connectors.Refused, lodestone.ReasonRefused, true, 0}},
		{"400 in html", answering(400, html, "Content-Type", "text/html"), want{connectors.Refused, lodestone.ReasonRefused, true, 0}},
	}
	for _, s := range []int{500, 501, 502, 503, 504, 520} {
		rows = append(rows, row{fmt.Sprint(s), c.gossiping(s, act.Email), unknown(lodestone.ReasonServerError)})
	}
	for _, s := range []int{401, 403} {
		rows = append(rows, row{fmt.Sprint(s), c.gossiping(s, act.Email), want{connectors.LockedOut, lodestone.ReasonProviderUnavailable, false, 0}})
	}
	for _, s := range []int{400, 402, 404, 405, 409, 410, 413, 415, 422, 451} {
		rows = append(rows, row{fmt.Sprint(s), c.gossiping(s, act.Email), want{connectors.Refused, lodestone.ReasonRefused, true, 0}})
	}
	for _, s := range []int{301, 302, 303, 307, 308} {
		rows = append(rows, row{fmt.Sprint(s), answering(s, "", "Location", "/elsewhere?for="+string(act.Email)), want{connectors.Refused, lodestone.ReasonRedirected, true, 0}})
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			p := newProvider(t)
			p.set(row.answer)
			a := c.open(t, p.URL, patience(row.name))
			_, err := a.Do(t.Context(), act.Act)
			c.fault(t, err, act.Email, row.want)
			if n, followed := p.count(); n != 1 || followed != 0 {
				t.Errorf("the provider got %d requests, %d of them to where a redirect points; want 1 and 0", n, followed)
			}
			_, _, _, blocked := a.Blocked()
			if want := row.want.class == connectors.LockedOut || row.want.class == connectors.RateLimited && row.want.after > 0; blocked != want {
				t.Errorf("Blocked() = %t, want %t", blocked, want)
			}
		})
	}
	t.Run("done", func(t *testing.T) {
		p := newProvider(t)
		p.set(answering(act.Status, act.Answer))
		r, err := c.open(t, p.URL, patient).Do(t.Context(), act.Act)
		if err != nil || r.Status != act.Status {
			t.Errorf("Do = %+v, %v; want status %d", r, err, act.Status)
		}
		if strings.Contains(strings.ToLower(r.Detail), string(act.Email)) {
			t.Error("the receipt's detail holds the address")
		}
		if n, _ := p.count(); n != 1 {
			t.Errorf("the provider got %d requests, want 1", n)
		}
	})
	t.Run("nobody listens", func(t *testing.T) {
		_, err := c.open(t, deadURL(t), patient).Do(t.Context(), act.Act)
		c.fault(t, err, act.Email, want{connectors.NotDone, lodestone.ReasonNotDone, false, 0})
	})
	t.Run("certificate nobody knows", func(t *testing.T) {
		p := httptest.NewUnstartedServer(answering(act.Status, act.Answer))
		p.Config.ErrorLog = quiet()
		p.TLS = &tls.Config{}
		p.StartTLS()
		defer p.Close()
		_, err := c.open(t, p.URL, patient).Do(t.Context(), act.Act)
		c.fault(t, err, act.Email, want{connectors.NotDone, lodestone.ReasonNotDone, true, 0})
	})
	t.Run("unknown operation", func(t *testing.T) {
		p := newProvider(t)
		p.set(answering(act.Status, act.Answer))
		odd := act.Act
		odd.Operation = "no-such-operation"
		_, err := c.open(t, p.URL, patient).Do(t.Context(), odd)
		c.fault(t, err, act.Email, want{connectors.Refused, lodestone.ReasonBadParameters, false, 0})
		if n, _ := p.count(); n != 0 {
			t.Errorf("the provider got %d requests, want none", n)
		}
	})
}

// deadURL is an address at which nobody listens.
func deadURL(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return "http://" + l.Addr().String()
}

func (c Case) checks(t *testing.T) {
	email := c.Acts[0].Email
	if !c.Kind.Check {
		s, err := c.open(t, deadURL(t), patient).Unsubscribed(t.Context(), email)
		if err != nil || s.Unsubscribed || s.Kind != connectors.SuppressionLocalOnly {
			t.Errorf("Unsubscribed = %+v, %v; want the local list alone", s, err)
		}
		return
	}
	failed := want{connectors.Failed, lodestone.ReasonCheckFailed, false, 0}
	for _, row := range []struct {
		name     string
		answer   http.HandlerFunc
		want     want
		requests int
	}{
		{"500", c.gossiping(500, email), failed, 3},
		{"503", c.gossiping(503, email), failed, 3},
		{"503 with a time", c.gossiping(503, email, "Retry-After", "7"), want{connectors.Failed, lodestone.ReasonCheckFailed, false, 7 * time.Second}, 1},
		{"reset", breaking(""), failed, 3},
		{"400", c.gossiping(400, email), failed, 1},
		{"404", c.gossiping(404, email), failed, 1},
		{"302", answering(302, "", "Location", "/elsewhere"), failed, 1},
		{"401", c.gossiping(401, email), want{connectors.LockedOut, lodestone.ReasonProviderUnavailable, false, 0}, 1},
		{"403", c.gossiping(403, email), want{connectors.LockedOut, lodestone.ReasonProviderUnavailable, false, 0}, 1},
		{"429", c.gossiping(429, email, "Retry-After", "7"), want{connectors.RateLimited, lodestone.ReasonRateLimited, false, 7 * time.Second}, 1},
		{"html", answering(200, "<p>hello", "Content-Type", "text/html"), failed, 1},
		{"empty", answering(200, ""), failed, 1},
		{"truncated", breaking("HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + c.Check), failed, 1},
		{"silent", silent, failed, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newProvider(t)
			p.set(row.answer)
			s, err := c.open(t, p.URL, patience(row.name)).Unsubscribed(t.Context(), email)
			c.fault(t, err, email, row.want)
			if s != (connectors.Subscription{}) {
				t.Errorf("Unsubscribed = %+v beside an error, want nothing", s)
			}
			if n, followed := p.count(); n != row.requests || followed != 0 {
				t.Errorf("the provider got %d requests, %d of them followed; want %d and 0", n, followed, row.requests)
			}
		})
	}
	t.Run("not unsubscribed", func(t *testing.T) {
		p := newProvider(t)
		p.set(answering(200, c.Check))
		s, err := c.open(t, p.URL, patient).Unsubscribed(t.Context(), email)
		if err != nil || s.Unsubscribed || s.Kind != connectors.SuppressionProvider || s.Evidence == "" {
			t.Errorf("Unsubscribed = %+v, %v; want a subscribed address, with evidence, by the provider", s, err)
		}
	})
	t.Run("better at the third try", func(t *testing.T) {
		p, tries := newProvider(t), 0
		p.set(func(w http.ResponseWriter, r *http.Request) {
			if tries++; tries < 3 { // one request at a time
				answering(502, "")(w, r)
				return
			}
			answering(200, c.Check)(w, r)
		})
		if s, err := c.open(t, p.URL, patient).Unsubscribed(t.Context(), email); err != nil || s.Unsubscribed {
			t.Errorf("Unsubscribed = %+v, %v; want a subscribed address", s, err)
		}
	})
}

// finds checks that no failure is taken for an answer.
func (c Case) finds(t *testing.T, act Act) {
	for _, row := range []struct {
		name   string
		answer http.HandlerFunc
	}{
		{"500", c.gossiping(500, act.Email)},
		{"400", c.gossiping(400, act.Email)},
		{"401", c.gossiping(401, act.Email)},
		{"429", c.gossiping(429, act.Email)},
		{"302", answering(302, "", "Location", "/elsewhere")},
		{"404 in html", answering(404, "<p>nothing here", "Content-Type", "text/html")},
		{"html", answering(200, "<p>hello", "Content-Type", "text/html")},
		{"empty", answering(200, "")},
		{"null", answering(200, "null")},
		{"empty object", answering(200, "{}")},
		{"empty array", answering(200, "[]")},
		{"reset", breaking("")},
		{"silent", silent},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newProvider(t)
			p.set(row.answer)
			f, err := c.open(t, p.URL, patience(row.name)).Find(t.Context(), act.Act)
			if err != nil {
				c.secrecy(t, err, act.Email)
				return
			}
			if f.State != connectors.Unclear && f.State != connectors.Unsupported {
				t.Errorf("Find = %+v, which settles something; want an error, unclear or unsupported", f)
			}
			c.hidden(t, "evidence", f.Evidence, act.Email)
		})
	}
}

// foundBy checks that every parameter of the act by which it is looked up is said to be one, and that nothing is
// asked where what was sent in one is not kept.
func (c Case) foundBy(t *testing.T, act Act) {
	op, _ := c.Kind.Operation(act.Operation)
	by := c.Kind.FoundBy[act.Operation]
	for _, name := range by {
		if _, ok := op.Parameter(name); !ok {
			t.Errorf("FoundBy names %s, which %s does not take", name, act.Operation)
		}
	}
	var mu sync.Mutex
	var asked []string
	p := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		asked = append(asked, r.Method+" "+r.URL.String()+" "+string(body))
		mu.Unlock()
		answering(404, `{}`)(w, r)
	}))
	defer p.Close()
	find := func(name, value string, altered ...string) (requests string, f connectors.Finding) {
		looked := act.Act
		looked.Altered, looked.Parameters = altered, maps.Clone(act.Parameters)
		if looked.Parameters == nil {
			looked.Parameters = map[string]any{}
		}
		looked.Parameters[name] = value
		asked = nil
		f, _ = c.open(t, p.URL, patient).Find(t.Context(), looked)
		return strings.Join(asked, "\n"), f
	}
	for _, q := range op.Parameters {
		if q.Type != lodestone.FieldText || len(q.Values) > 0 {
			continue
		}
		one, _ := find(q.Name, "lodestone-one")
		two, _ := find(q.Name, "lodestone-two")
		if one != two && !slices.Contains(by, q.Name) {
			t.Errorf("the look-up asks by %s, and FoundBy does not say so:\n%s\n%s", q.Name, one, two)
		}
		if !slices.Contains(by, q.Name) {
			continue
		}
		if asked, f := find(q.Name, "lodestone-one", q.Name); asked != "" || f.State != connectors.Unclear || !strings.Contains(f.Evidence, q.Name) {
			t.Errorf("with a %s that is not as it was sent, the look-up asks %q and finds %+v; want that it is unclear", q.Name, asked, f)
		}
	}
}

func (c Case) settings(t *testing.T) {
	for _, key := range c.Kind.Secrets {
		t.Run("without "+key, func(t *testing.T) {
			rest := map[string]connectors.Secret{}
			for k, v := range c.Secrets {
				if k != key {
					rest[k] = v
				}
			}
			_, err := connectors.Open(c.Kind, connectors.Settings{BaseURL: "https://127.0.0.1", Secrets: rest, Extra: c.Extra, Suppression: c.suppression()})
			if err == nil || !strings.Contains(err.Error(), key) {
				t.Errorf("Open = %v, want an error that names %s", err, key)
			}
		})
	}
	t.Run("plain http", func(t *testing.T) {
		s := connectors.Settings{BaseURL: "http://provider.example", Secrets: c.Secrets, Extra: c.Extra, Suppression: c.suppression()}
		if _, err := connectors.Open(c.Kind, s); err == nil || !strings.Contains(err.Error(), "base_url") {
			t.Errorf("Open = %v, want an error about base_url", err)
		}
		s.Insecure = true
		if _, err := connectors.Open(c.Kind, s); err != nil {
			t.Errorf("Open with insecure = %v, want none", err)
		}
	})
}

// fault checks an error against what it should say.
func (c Case) fault(t *testing.T, err error, email lodestone.Email, want want) {
	t.Helper()
	var f *connectors.Fault
	if !errors.As(err, &f) {
		t.Fatalf("error = %v (%T), want a fault", err, err)
	}
	got := fmt.Sprintf("%s %s counts=%t after=%v", f.Class, f.Reason, f.CountsAttempt, f.RetryAfter)
	if w := fmt.Sprintf("%s %s counts=%t after=%v", want.class, want.reason, want.counts, want.after); got != w {
		t.Errorf("fault = %s, want %s: %v", got, w, f)
	}
	if f.Detail == "" || len([]rune(f.Detail)) > 300 {
		t.Errorf("detail has %d characters, want 1 to 300: %q", len([]rune(f.Detail)), f.Detail)
	}
	c.secrecy(t, err, email)
}

// secrecy looks for the keys and the address in every form in which an error can be printed.
func (c Case) secrecy(t *testing.T, err error, email lodestone.Email) {
	t.Helper()
	for e := err; e != nil; e = errors.Unwrap(e) {
		c.hidden(t, "error", e.Error(), email)
		c.hidden(t, "%+v", fmt.Sprintf("%+v", e), email)
	}
	if raw, err := json.Marshal(err); err == nil {
		c.hidden(t, "JSON", string(raw), email)
	}
}

func (c Case) hidden(t *testing.T, where, text string, email lodestone.Email) {
	t.Helper()
	low := strings.ToLower(text)
	if strings.Contains(low, string(email)) || strings.Contains(low, email.Local()+"%40") {
		t.Errorf("%s holds the address: %s", where, text)
	}
	for name, s := range c.Secrets {
		if strings.Contains(text, s.Reveal()) {
			t.Errorf("%s holds %s: %s", where, name, text)
		}
	}
	for _, a := range c.Secrets {
		for _, b := range c.Secrets {
			if pair := base64.StdEncoding.EncodeToString([]byte(a.Reveal() + ":" + b.Reveal())); strings.Contains(text, pair) {
				t.Errorf("%s holds the credentials: %s", where, text)
			}
		}
	}
}
