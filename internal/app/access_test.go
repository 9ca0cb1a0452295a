package app

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/access"
	"github.com/lodestonehq/lodestone/internal/api"
	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/internal/chrometest"
	"github.com/lodestonehq/lodestone/sequencer/event"
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
		"GET /{$}":     read, "POST /lead": read, "GET /lead": read, "POST /attention": operate, "GET /attention": read, "POST /logout": read, "GET /logout": read,
		"GET /login": password, "POST /login": password,
		"GET /api/v1/leads/{email}": read, "GET /api/v1/leads/{email}/render": read, "GET /api/v1/queue": read, "GET /api/v1/attention": read,
		"GET /api/v1/suppressions": read, "GET /api/v1/totals": read, "GET /api/v1/brakes/{sequence}": read, "GET /api/v1/pauses": read,
		"GET /api/v1/overdue": read, "GET /api/v1/usage": read, "/api/v1/": read,
		"POST /api/v1/leads/{email}/export": operate, "POST /api/v1/suppressions": operate, "POST /api/v1/brakes/{sequence}": operate,
		"POST /api/v1/pauses": operate, "POST /api/v1/resume": operate, "POST /api/v1/touchpoints/{id}": operate, "POST /api/v1/release": operate,
		"POST /api/v1/drop": operate, "POST /api/v1/migrate": operate,
	}
	routes := s.w.served
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
		"POST /api/v1/calls, POST /api/v1/claim, POST /api/v1/compact, POST /api/v1/keys/{form}/dropped, POST /api/v1/leads/{email}/forget, POST /api/v1/submissions"; got != want {
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
	if status, body := s.do("POST", "/api/v1/leads/ada@example.com/export", header, ""); status != http.StatusOK {
		t.Fatalf("export: %d %s", status, body)
	}
	if status, body := s.do("POST", "/api/v1/brakes/invite", header, `{"undo":true,"by":"somebody else"}`); status != http.StatusOK {
		t.Fatalf("undo: %d %s", status, body)
	}
	entries, err := s.w.store.Journal(t.Context(), 0, 1000)
	if err != nil || !slices.ContainsFunc(entries, func(e lodestone.Entry) bool {
		return e.Operator != nil && e.Operator.By == "token night-shift" && e.Operator.Command == "undo" && e.Operator.Subject == "invite"
	}) {
		t.Errorf("who took back what the brake of invite holds is not on record: %v", err)
	}
	log := s.log.String()
	for _, want := range []string{`what="POST /api/v1/leads/{email}/export" status=200`, `what="POST /api/v1/brakes/{sequence}" status=200`, `who="token night-shift" what="POST /api/v1/pauses" status=200`, `what="POST /api/v1/suppressions" status=200`} {
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

// TestStrangersReadCodesAlone: readiness tells everybody its codes, and names, numbers and faults to this machine and to
// whoever has a right.
func TestStrangersReadCodesAlone(t *testing.T) {
	s := newWeb(t)
	operate, metrics := s.token("night-shift", "operate"), s.token("probe", "metrics")
	for _, scope := range []string{"all", "sequence invite"} {
		if status, body := s.do("POST", "/api/v1/pauses", operate, fmt.Sprintf(`{"scope":%q,"reason":"ada is ill"}`, scope)); status != http.StatusOK {
			t.Fatalf("pause: %d %s", status, body)
		}
	}
	metrics["X-Forwarded-For"] = "203.0.113.9"
	for _, c := range []struct {
		name    string
		header  map[string]string
		details bool
	}{
		{"this machine", nil, true},
		{"a stranger", map[string]string{"X-Forwarded-For": "203.0.113.9"}, false},
		{"by a name that a DNS answers for", map[string]string{"Host": "forms.example.com"}, false},
		{"a wrong token", map[string]string{"Authorization": "Bearer lodestone_x"}, false},
		{"a token, from elsewhere over plain HTTP", metrics, false},
		{"a token", map[string]string{"Authorization": metrics["Authorization"]}, true},
	} {
		status, body := s.do("GET", "/readyz", c.header, "")
		var got struct {
			Ready             bool
			Reasons, Warnings []Notice
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil || status != http.StatusOK || !got.Ready || got.Reasons == nil {
			t.Fatalf("%s: %d %s, %v", c.name, status, body, err)
		}
		n := map[bool]int{false: 1, true: 2}[c.details]
		if len(got.Warnings) != n || got.Warnings[0].Code != "paused" || got.Warnings[0].Detail == "" || strings.Contains(body, "ada is ill") != c.details || strings.Contains(body, "night-shift") != c.details {
			t.Errorf("%s reads %s", c.name, body)
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
		if v := p.Eval(`[...document.querySelectorAll("input:not([type=hidden])")].every(i => i.labels.length > 0) && document.documentElement.lang === "en"`); v != true {
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
	for _, want := range []string{"Ready", "Needs you: 2", "user ada", "lodestone release", "Unknown form", "choose seq:"} {
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
	// What could not be used is dropped by the one that is ticked, then all that are shown are released.
	size(1280, 1500, false)
	p.Open(home)
	p.Eval(`document.querySelector("input[name=item]").click(); document.getElementById("reason").value = "spam"; document.querySelector("button[value=drop]").click()`)
	p.Wait(`document.querySelector("[role=alert]")?.textContent === "Dropped: 1."`)
	p.Wait(`document.body.innerText.includes("Needs you: 1")`)
	p.Screenshot(shots, "console-dropped")
	p.Eval(`document.querySelector("input[name=item]").click(); document.getElementById("reason").focus()`)
	p.Do("Emulation.setFocusEmulationEnabled", map[string]any{"enabled": true})
	for _, key := range []map[string]any{{"key": "x", "text": "x"}, {"key": "Enter", "text": "\r", "windowsVirtualKeyCode": 13}, {"key": "y", "text": "y"}} {
		for _, kind := range []string{"keyDown", "keyUp"} {
			key["type"] = kind
			p.Do("Input.dispatchKeyEvent", key)
		}
	}
	p.Wait(`document.getElementById("reason").value === "xy"`) // it is the same page
	p.Eval(`document.querySelector("input[name=item]").click(); document.querySelector("button[value=release]").click()`)
	p.Wait(`document.querySelector("[role=alert]")?.textContent === "Nothing was chosen, and nothing was done."`)
	p.Eval(`document.querySelector("input[name=all]").click(); document.querySelector("button[value=release]").click()`)
	p.Wait(`document.querySelector("[role=alert]")?.textContent === "Released: 0. Still not usable: 1."`)
	dropped := false
	entries, err := s.w.store.Journal(t.Context(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if o := e.Operator; o != nil && o.Command == "drop" {
			dropped = o.By == "user ada" && o.Reason == "spam"
		}
	}
	if !dropped {
		t.Error("that ada dropped it as spam is not on record")
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

// TestConsoleRights: a viewer is not shown what an operator may do, and cannot do it; nor can a page of another site do it in an
// operator's name.
func TestConsoleRights(t *testing.T) {
	s := newWeb(t)
	publish(t, s.w, "lodestone.forms.unheard-of", `{"email":"grace@example.com"}`)
	eventuallyItems(t, s.w, 1)
	items, _, err := s.w.store.Attention(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	drop := url.Values{"item": {fmt.Sprintf("submission/%d %s", items[0].Seq, items[0].ID)}, "do": {"drop"}}.Encode()
	for name, role := range map[string]string{"ada": "operator", "grace": "viewer"} {
		if err := s.book.AddUser(name, role, passphrase, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	form := func(cookie, site string) map[string]string {
		return map[string]string{"Content-Type": "application/x-www-form-urlencoded", "Cookie": cookie, "Sec-Fetch-Site": site}
	}
	signIn := func(name string) (cookie string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.w.WebURL()+"/login", strings.NewReader(url.Values{"name": {name}, "password": {passphrase}}.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range form("", "same-origin") {
			req.Header.Set(k, v)
		}
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if len(res.Cookies()) != 1 {
			t.Fatalf("%s: %s", name, res.Status)
		}
		return res.Cookies()[0].Name + "=" + res.Cookies()[0].Value
	}
	viewer, operator := signIn("grace"), signIn("ada")
	if _, page := s.do("GET", "/", form(viewer, "none"), ""); strings.Contains(page, "/attention") || !strings.Contains(page, "lodestone release") {
		t.Errorf("a viewer is shown\n%s", page)
	}
	if status, page := s.do("POST", "/attention", form(viewer, "same-origin"), drop); status != http.StatusForbidden || !strings.Contains(page, "is a viewer") {
		t.Errorf("a viewer drops: %d %s", status, page)
	}
	if status, _ := s.do("POST", "/attention", form(operator, "cross-site"), drop); status != http.StatusForbidden {
		t.Errorf("a page of another site drops: %d", status)
	}
	if _, total, _ := s.w.store.Attention(t.Context(), 1); total != 1 {
		t.Fatalf("%d items, want 1", total)
	}
	if status, page := s.do("POST", "/attention", form(operator, "same-origin"), drop); status != http.StatusOK || !strings.Contains(page, "Dropped: 1.") {
		t.Errorf("an operator drops: %d %s", status, page)
	}
	if status, page := s.do("POST", "/attention", form(operator, "same-origin"), drop); status != http.StatusOK || !strings.Contains(page, "Settled by somebody else before: 1.") {
		t.Errorf("an operator drops it again: %d %s", status, page)
	}
}

// TestOverTLS: with a certificate the listener speaks TLS alone, and the cookie is one that goes over nothing else.
func TestOverTLS(t *testing.T) {
	maker := httptest.NewUnstartedServer(nil)
	maker.StartTLS()
	t.Cleanup(maker.Close)
	pair := maker.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, keyFile: {Type: "PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := newWeb(t, func(o *Options) { o.TLSCert, o.TLSKey = certFile, keyFile })
	if err := s.book.AddUser("ada", "operator", passphrase, time.Now()); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(s.w.WebURL(), "https://") {
		t.Fatalf("it is at %s", s.w.WebURL())
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.w.WebURL()+"/login", strings.NewReader(url.Values{"name": {"ada"}, "password": {passphrase}}.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Origin", s.w.WebURL())
	res, err := maker.Client().Transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if set := res.Header.Get("Set-Cookie"); res.StatusCode != http.StatusSeeOther || !strings.HasPrefix(set, "__Host-lodestone=") || !strings.Contains(set, "Secure") {
		t.Errorf("%s, cookie %q", res.Status, set)
	}
	if res.Header.Get("Strict-Transport-Security") == "" {
		t.Error("browsers are not told to keep to TLS")
	}
	if res, err := http.Get("http://" + s.w.Web() + "/healthz"); err == nil {
		res.Body.Close()
		if res.StatusCode == http.StatusOK {
			t.Error("plain HTTP is answered as well")
		}
	}
}

// TestEvidenceNamesTheVisitor: behind a proxy that is trusted the evidence of a submission holds the visitor's address, and what a
// visitor writes into the header is not believed.
func TestEvidenceNamesTheVisitor(t *testing.T) {
	for _, c := range []struct {
		trusted []netip.Prefix
		want    string
	}{{nil, `"127.0.0.1"`}, {[]netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, `"203.0.113.9"`}} {
		s := newWeb(t, func(o *Options) { o.Proxies.Trusted = c.trusted })
		header := map[string]string{"Content-Type": "application/json", "X-Forwarded-For": "6.6.6.6, 203.0.113.9"}
		if status, body := s.do("POST", "/forms/guide", header, `{"email":"ada@example.com"}`); status != http.StatusAccepted {
			t.Fatalf("%d %s", status, body)
		}
		stream, err := s.w.Broker().JetStream().Stream(t.Context(), broker.FormsStream)
		if err != nil {
			t.Fatal(err)
		}
		m, err := stream.GetLastMsgForSubject(t.Context(), "lodestone.forms.guide")
		if err != nil {
			t.Fatal(err)
		}
		if seen := m.Header.Get(event.HeaderObserved); !strings.Contains(seen, c.want) || strings.Contains(seen, "6.6.6.6") {
			t.Errorf("trusted %v: seen was %s, want %s", c.trusted, seen, c.want)
		}
	}
}
