package app

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/access"
	"github.com/lodestonehq/lodestone/internal/api"
	"github.com/lodestonehq/lodestone/internal/chrometest"
)

// shots is where the browser tests put pictures of what they see, for whoever wants to look; "" nowhere.
var shots = os.Getenv("SCREENSHOTS")

const passphrase = "seven blue herons at dawn"

// web is a worker with a listener, and who may use it.
type web struct {
	*rig
	w    *Worker
	book *access.Book
	log  *lines
}

// lines is a log for several goroutines.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newWeb(t *testing.T, change ...func(*Options)) *web {
	t.Helper()
	r := newRig(t)
	s := &web{rig: r, log: new(lines)}
	r.change = func(o *Options) {
		o.HTTPListen, o.PublicURL = "127.0.0.1:0", ""
		o.Log = slog.New(slog.NewTextHandler(s.log, nil))
		for _, f := range change {
			f(o)
		}
	}
	s.w = r.open()
	s.book = access.OpenBook(r.dir)
	t.Cleanup(r.start(s.w))
	return s
}

// do makes a request and returns the status and the body.
func (s *web) do(method, path string, header map[string]string, body string) (int, string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.w.WebURL()+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for name, value := range header {
		if req.Header.Set(name, value); name == "Host" {
			req.Host = value
		}
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, name := range []string{"X-Content-Type-Options", "Content-Security-Policy", "X-Frame-Options", "Referrer-Policy", "Permissions-Policy"} {
		if res.Header.Get(name) == "" {
			s.t.Errorf("%s %s is answered without %s", method, path, name)
		}
	}
	return res.StatusCode, string(b)
}

func (s *web) token(name, scope string) map[string]string {
	s.t.Helper()
	secret, _, err := s.book.AddToken(name, scope, time.Time{}, time.Now())
	if err != nil {
		s.t.Fatal(err)
	}
	return map[string]string{"Authorization": "Bearer " + secret, "Content-Type": "application/json"}
}

// TestEveryRoute walks everything that is served over the network and holds it to this table: a route that is
// not in it, or whose need is another one, fails. Then it asks for each as somebody who has just enough, and as somebody who has not.
func TestEveryRoute(t *testing.T) {
	s := newWeb(t)
	const open, metrics, read, operate, password = access.NeedAnybody, access.NeedMetrics, access.NeedRead, access.NeedOperate, access.NeedPassword
	want := map[string]access.Need{
		"/forms/": open, "/hooks/": open, "/assets/": open, "/tokens/": open, "/unsubscribe/": open, "/confirm/": open, "/lodestone.js": open,
		"GET /healthz": open, "GET /readyz": open,
		"GET /metrics": metrics,
		"GET /{$}":     read, "POST /lead": read, "GET /lead": read, "POST /logout": read, "GET /logout": read,
		"GET /login": password, "POST /login": password,
		"GET /api/v1/leads/{email}": read, "GET /api/v1/leads/{email}/render": read, "GET /api/v1/queue": read, "GET /api/v1/attention": read,
		"GET /api/v1/suppressions": read, "GET /api/v1/totals": read, "GET /api/v1/brakes/{sequence}": read, "GET /api/v1/pauses": read,
		"GET /api/v1/overdue": read, "GET /api/v1/usage": read, "/api/v1/": read,
		"GET /api/v1/leads/{email}/export": operate, "POST /api/v1/suppressions": operate, "POST /api/v1/brakes/{sequence}": operate,
		"POST /api/v1/pauses": operate, "POST /api/v1/resume": operate, "POST /api/v1/touchpoints/{id}": operate, "POST /api/v1/release": operate,
		"POST /api/v1/drop": operate, "POST /api/v1/migrate": operate,
	}
	routes := s.served()
	for _, route := range routes {
		need, ok := want[route.Pattern]
		if !ok {
			t.Errorf("%s is served and not in the table: decide what it needs", route.Pattern)
		} else if need != route.Need {
			t.Errorf("%s needs %d, want %d", route.Pattern, route.Need, need)
		}
		delete(want, route.Pattern)
	}
	for pattern := range want {
		t.Errorf("%s is in the table and not served", pattern)
	}
	alone := []string{}
	for _, route := range s.w.api().Routes() {
		if route.Right == api.SocketAlone {
			alone = append(alone, route.Pattern)
		}
	}
	slices.Sort(alone)
	if got, want := strings.Join(alone, ", "), "GET /api/v1/backup, GET /api/v1/doctor, GET /api/v1/dump, GET /api/v1/leads/{email}/record, GET /api/v1/past, "+
		"POST /api/v1/calls, POST /api/v1/claim, POST /api/v1/compact, POST /api/v1/leads/{email}/forget, POST /api/v1/submissions"; got != want {
		t.Errorf("asked for on the socket alone: %s\nwant %s", got, want)
	}

	bearers := map[access.Right]map[string]string{
		access.Nothing: {"Content-Type": "application/json"}, access.Metrics: s.token("m", "metrics"), access.Read: s.token("r", "read"), access.Operate: s.token("o", "operate"),
	}
	has := map[access.Need]access.Right{metrics: access.Metrics, read: access.Read, operate: access.Operate}
	for _, route := range routes {
		least, guarded := has[route.Need]
		if !guarded {
			continue
		}
		for right := access.Nothing; right <= access.Operate; right++ {
			header := map[string]string{}
			for k, v := range bearers[right] {
				header[k] = v
			}
			if right == access.Nothing {
				header["X-Forwarded-For"] = "203.0.113.9" // not this machine
			}
			method, path := request(route)
			if route.Page {
				header["Content-Type"] = "application/x-www-form-urlencoded"
			}
			status, body := s.do(method, path, header, "{}")
			refused := status == http.StatusUnauthorized || status == http.StatusForbidden || status == http.StatusSeeOther && right == access.Nothing
			if refused != (right < least) {
				t.Errorf("%s %s with right %d: %d %s", method, path, right, status, body)
			}
		}
	}
	for _, pattern := range alone {
		method, path := request(access.Route{Pattern: pattern})
		if status, body := s.do(method, path, bearers[access.Operate], "{}"); status != http.StatusNotFound || !strings.Contains(body, "there is nothing at") {
			t.Errorf("%s over the network: %d %s", pattern, status, body)
		}
	}
}

// served are the routes of a worker that runs. They are made once more, without their counters.
func (s *web) served() []access.Route {
	s.t.Helper()
	registry := s.w.metrics.registry
	defer func() { s.w.metrics.registry = registry }()
	s.w.metrics.registry = newMetrics(s.w.store, s.w.lag).registry
	return s.w.routes()
}

func request(route access.Route) (method, path string) {
	method, path, found := strings.Cut(route.Pattern, " ")
	if !found {
		method, path = http.MethodGet, route.Pattern+"whatever"
	}
	return method, strings.NewReplacer("{email}", "ada@example.com", "{sequence}", "invite", "{id}", "x", "{$}", "").Replace(path)
}

// TestActsAreOnRecord: what a token does stands in the journal and in the log with the token's name, whatever the request
// says of itself.
func TestActsAreOnRecord(t *testing.T) {
	s := newWeb(t)
	header := s.token("night-shift", "operate")
	if status, body := s.do("POST", "/api/v1/pauses", header, `{"scope":"all","by":"somebody else"}`); status != http.StatusOK {
		t.Fatalf("pause: %d %s", status, body)
	}
	_, body := s.do("GET", "/api/v1/pauses", header, "")
	var pauses api.Pauses
	if err := json.Unmarshal([]byte(body), &pauses); err != nil || len(pauses.Pauses) != 1 || pauses.Pauses[0].By != "token night-shift" {
		t.Errorf("pauses: %s, %v", body, err)
	}
	if status, body := s.do("POST", "/api/v1/suppressions", header, `{"emails":["ada@example.com"],"reason":"asked by phone"}`); status != http.StatusOK {
		t.Fatalf("suppress: %d %s", status, body)
	}
	list, err := s.w.store.Suppressions(t.Context(), "", 10)
	if err != nil || len(list) != 1 || list[0].Reason != "asked by phone, by token night-shift" {
		t.Errorf("suppressions: %+v, %v", list, err)
	}
	log := s.log.String()
	for _, want := range []string{`who="token night-shift" what="POST /api/v1/pauses" status=200`, `what="POST /api/v1/suppressions" status=200`} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not hold %s:\n%s", want, log)
		}
	}
	if strings.Contains(log, "ada@example.com") || strings.Contains(log, strings.TrimPrefix(header["Authorization"], "Bearer ")) {
		t.Errorf("the log holds an address or a token:\n%s", log)
	}
	for name, c := range map[string]struct {
		header map[string]string
		body   string
		status int
	}{
		"not JSON":      {map[string]string{"Authorization": header["Authorization"], "Content-Type": "text/plain"}, `{"scope":"all"}`, http.StatusUnsupportedMediaType},
		"no type":       {map[string]string{"Authorization": header["Authorization"], "Content-Type": ""}, `{"scope":"all"}`, http.StatusUnsupportedMediaType},
		"too much":      {header, `{"scope":"` + strings.Repeat("x", 1<<20) + `"}`, http.StatusRequestEntityTooLarge},
		"unknown field": {header, `{"scop":"all"}`, http.StatusBadRequest},
	} {
		status, body := s.do("POST", "/api/v1/pauses", c.header, c.body)
		var p api.Problem
		if err := json.Unmarshal([]byte(body), &p); status != c.status || err != nil || p.Status != c.status || p.Detail == "" {
			t.Errorf("%s: %d %s, want a problem with %d", name, status, body, c.status)
		}
	}
}

// TestConsoleInABrowser signs in, looks, looks up a lead, and signs out again, as a person does.
func TestConsoleInABrowser(t *testing.T) {
	s := newWeb(t)
	publish(t, s.w, "lodestone.forms.guide", `{"email":"ada@example.com"}`)
	s.until(func(e lodestone.Entry) bool {
		return slices.ContainsFunc(e.Touchpoints, func(n lodestone.TouchpointEntry) bool { return n.State == lodestone.TouchpointSent })
	})
	hostile := `<script>document.title="owned"</script>`
	publish(t, s.w, "lodestone.forms.guide", fmt.Sprintf(`{"email":%q}`, hostile))
	publish(t, s.w, "lodestone.forms.unheard-of", `{"email":"grace@example.com"}`)
	eventuallyItems(t, s.w, 2)

	p := chrometest.Start(t).Page(true)
	size := func(width, height int, dark bool) {
		p.Do("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500})
		scheme := "light"
		if dark {
			scheme = "dark"
		}
		p.Do("Emulation.setEmulatedMedia", map[string]any{"features": []any{map[string]any{"name": "prefers-color-scheme", "value": scheme}}})
	}
	fits := func(what string) {
		t.Helper()
		if v := p.Eval(`document.documentElement.scrollWidth <= innerWidth`); v != true {
			t.Errorf("%s is wider than the screen", what)
		}
		if v := p.Eval(`[...document.querySelectorAll("input")].every(i => i.labels.length > 0) && document.documentElement.lang === "en"`); v != true {
			t.Errorf("%s has an input without a label", what)
		}
		if v := p.Eval(`getComputedStyle(document.querySelector("section")).borderTopStyle`); v != "solid" {
			t.Errorf("%s is shown without its style: %v", what, v)
		}
	}
	home := s.w.WebURL() + "/"

	// Nobody is set up: this machine looks without signing in.
	size(1280, 900, false)
	p.Script(false) // no page needs one
	p.Open(home)
	p.Wait(`document.body.textContent.includes("Nobody has to sign in here")`)
	fits("the start page of nobody")
	p.Screenshot(shots, "console-open")

	if err := s.book.AddUser("ada", "operator", passphrase, time.Now()); err != nil {
		t.Fatal(err)
	}
	signIn := func(password string) {
		t.Helper()
		p.Open(home)
		p.Wait(`location.pathname === "/login"`)
		p.Eval(`document.getElementById("name").value = "Ada "; document.getElementById("password").value = ` + fmt.Sprintf("%q", password))
		p.Eval(`document.querySelector("form button").click()`)
	}
	p.Open(home)
	p.Wait(`location.pathname === "/login"`)
	fits("the sign-in page")
	p.Screenshot(shots, "console-login")
	signIn("something else entirely")
	p.Wait(`document.querySelector("[role=alert]")?.textContent === "the name or the password is wrong"`)
	p.Screenshot(shots, "console-login-wrong")
	signIn(passphrase)
	p.Wait(`location.pathname === "/" && document.querySelector("header strong").textContent === "ada"`)
	if v := p.Eval(`document.cookie`); v != "" {
		t.Errorf("a script can read the cookie: %v", v)
	}
	if v := p.Eval(`document.title`); v != "Lodestone" {
		t.Errorf("the title is %v", v)
	}
	for _, want := range []string{"Ready", "Needs you: 2", "user ada", "lodestone release", "Unknown form"} {
		if v := p.Eval(fmt.Sprintf(`document.body.innerText.includes(%q)`, want)); v != true {
			t.Errorf("the start page does not say %q:\n%v", want, p.Eval(`document.body.innerText`))
		}
	}
	if v := p.Eval(`document.scripts.length`); v != 0.0 {
		t.Errorf("a page holds %v scripts", v)
	}
	for _, screen := range []struct {
		name          string
		width, height int
		dark          bool
	}{{"desktop", 1280, 1100, false}, {"desktop-dark", 1280, 1100, true}, {"phone", 390, 1500, false}, {"phone-dark", 390, 1500, true}} {
		size(screen.width, screen.height, screen.dark)
		p.Open(home)
		fits("the start page, " + screen.name)
		p.Screenshot(shots, "console-start-"+screen.name)
		p.Eval(`document.querySelector("input[name=email]").value = "ada@example.com"; document.querySelector("form[action='/lead'] button").click()`)
		p.Wait(`document.querySelector("h1")?.textContent === "ada@example.com"`)
		fits("the page of a lead, " + screen.name)
		p.Screenshot(shots, "console-lead-"+screen.name)
	}
	if v := p.Eval(`location.href`); strings.Contains(v.(string), "ada") {
		t.Errorf("an address of a person stands in %v", v)
	}
	p.Eval(`document.querySelector("input[name=email]").value = "nobody@example.com"; document.querySelector("form[action='/lead'] button").click()`)
	p.Wait(`document.querySelector("[role=alert]")?.textContent.includes("not known")`)

	p.Eval(`document.querySelector("form[action='/logout'] button").click()`)
	p.Wait(`location.pathname === "/login"`)
	p.Open(home)
	p.Wait(`location.pathname === "/login"`)
	signIn(passphrase)
	p.Wait(`location.pathname === "/"`)
	if err := s.book.SetPassword("ada", "eight grey geese at noon", time.Now()); err != nil {
		t.Fatal(err)
	}
	p.Open(home)
	p.Wait(`location.pathname === "/login"`)
	size(390, 844, true)
	p.Screenshot(shots, "console-login-phone-dark")
	p.Open(strings.Replace(home, "127.0.0.1", "localhost", 1) + "api/v1/queue")
	p.Wait(`document.body.textContent.includes("this needs a token")`)
}

// eventuallyItems waits until so many items need a human; a rejected submission is no entry that is told of.
func eventuallyItems(t *testing.T, w *Worker, n int) {
	t.Helper()
	for {
		_, total, err := w.store.Attention(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		if total >= n {
			return
		}
		select {
		case <-t.Context().Done():
			t.Fatal("they never came")
		case <-time.After(10 * time.Millisecond):
		}
	}
}
