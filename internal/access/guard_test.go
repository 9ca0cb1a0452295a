package access

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// gate is a guard behind a real server.
type gate struct {
	t      *testing.T
	url    string
	book   *Book
	client *http.Client
	log    *safeBuffer
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// newGate serves one route of each need, and one that says nothing. from is the address that connections come from; "" as
// they do.
func newGate(t *testing.T, from string, change ...func(*Options)) *gate {
	t.Helper()
	b, _ := counted(t)
	s := &gate{t: t, book: b, log: new(safeBuffer)}
	o := Options{Book: b, Registerer: prometheus.NewRegistry(), Log: slog.New(slog.NewTextHandler(s.log, nil))}
	for _, f := range change {
		f(&o)
	}
	guard := NewGuard(o)
	says := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "hello "+From(r.Context()).String())
	})
	h := guard.Handler([]Route{
		{Pattern: "/open", Need: NeedAnybody, Handler: says},
		{Pattern: "/metrics", Need: NeedMetrics, Handler: says},
		{Pattern: "/read", Need: NeedRead, Handler: says},
		{Pattern: "/operate", Need: NeedOperate, Handler: says},
		{Pattern: "/page", Need: NeedRead, Handler: says, Page: true},
		{Pattern: "/forgotten", Handler: says},
		{Pattern: "POST /login", Need: NeedPassword, Page: true, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if no := guard.Login(w, r, r.PostFormValue("name"), r.PostFormValue("password")); no != nil {
				WriteWait(w.Header(), no.Wait)
				http.Error(w, no.Detail, no.Status)
			}
		})},
		{Pattern: "POST /logout", Need: NeedRead, Page: true, Handler: http.HandlerFunc(guard.Logout)},
	})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if from != "" {
			r.RemoteAddr = from
		}
		h.ServeHTTP(w, r)
	}))
	if o.TLS {
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	s.url, s.client = server.URL, server.Client()
	s.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return s
}

func (s *gate) user(name, role string) {
	s.t.Helper()
	if err := s.book.AddUser(name, role, passphrase, time.Now()); err != nil {
		s.t.Fatal(err)
	}
}

func (s *gate) token(scope string) string {
	s.t.Helper()
	secret, _, err := s.book.AddToken("t-"+scope, scope, time.Time{}, time.Now())
	if err != nil {
		s.t.Fatal(err)
	}
	return "Bearer " + secret
}

// ask makes a request; headers come as name, value, …
func (s *gate) ask(method, path, body string, headers ...string) *http.Response {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		}
	}
	res, err := s.client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	res.Body.Close()
	res.Body = io.NopCloser(bytes.NewReader(b))
	return res
}

func (s *gate) status(want int, method, path, body string, headers ...string) {
	s.t.Helper()
	res := s.ask(method, path, body, headers...)
	if res.StatusCode != want {
		b, _ := io.ReadAll(res.Body)
		s.t.Errorf("%s %s %q: %d, want %d: %s", method, path, headers, res.StatusCode, want, b)
	}
}

// login signs in and returns the cookie.
func (s *gate) login(name, password string, headers ...string) (*http.Response, string) {
	s.t.Helper()
	res := s.ask("POST", "/login", url.Values{"name": {name}, "password": {password}}.Encode(),
		append([]string{"Content-Type", "application/x-www-form-urlencoded", "Sec-Fetch-Site", "same-origin"}, headers...)...)
	for _, c := range res.Cookies() {
		return res, c.Name + "=" + c.Value
	}
	return res, ""
}

// TestLocalUntilSomebodyIsSetUp: this machine reads while nobody has a right, and not a moment longer; everybody else never does.
func TestLocalUntilSomebodyIsSetUp(t *testing.T) {
	s := newGate(t, "")
	for path, want := range map[string]int{"/open": 200, "/metrics": 200, "/read": 200, "/page": 200, "/operate": 403, "/forgotten": 403, "/nothing": 404} {
		s.status(want, "GET", path, "")
	}
	if res := s.ask("GET", "/read", ""); res.Header.Get("Cache-Control") != "no-store" || res.Header.Get("X-Content-Type-Options") != "nosniff" || res.Header.Get("Content-Security-Policy") != nothing {
		t.Errorf("headers %v", res.Header)
	}
	s.user("ada", "viewer")
	for path, want := range map[string]int{"/open": 200, "/metrics": 200, "/read": 401, "/page": 401, "/operate": 401, "/forgotten": 403} {
		s.status(want, "GET", path, "")
	}
	if err := s.book.RemoveUser("ada"); err != nil {
		t.Fatal(err)
	}
	s.status(200, "GET", "/read", "")
	s.token("metrics") // of whatever scope
	s.status(401, "GET", "/read", "")

	far := newGate(t, "203.0.113.9:4711")
	for path, want := range map[string]int{"/open": 200, "/metrics": 403, "/read": 403, "/page": 403, "/operate": 403} {
		far.status(want, "GET", path, "", "Host", "127.0.0.1")
	}
	out := newGate(t, "", func(o *Options) { o.Outside = true })
	for path, want := range map[string]int{"/metrics": 200, "/read": 403, "/page": 403} {
		out.status(want, "GET", path, "")
	}
}

// TestRebindingAndOtherSites: a name that DNS leads here, and a page of another site, get nothing although the connection is local.
func TestRebindingAndOtherSites(t *testing.T) {
	s := newGate(t, "")
	for _, path := range []string{"/metrics", "/read", "/page"} {
		s.status(403, "GET", path, "", "Host", "evil.example")
		s.status(403, "GET", path, "", "Host", "evil.example:8080", "Origin", "http://evil.example:8080", "Sec-Fetch-Site", "same-origin")
		s.status(403, "GET", path, "", "X-Forwarded-For", "127.0.0.1")
		s.status(403, "GET", path, "", "Origin", "http://evil.example")
		s.status(403, "GET", path, "", "Origin", "null")
		s.status(403, "GET", path, "", "Origin", "http://127.0.0.1:1") // another port of this machine
		s.status(403, "GET", path, "", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image")
		s.status(403, "GET", path, "", "Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty")
		s.status(403, "GET", path, "", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe")
		s.status(403, "POST", path, "", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document")
		s.status(200, "GET", path, "", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document") // a link
		s.status(200, "GET", path, "", "Sec-Fetch-Site", "none")
		s.status(200, "GET", path, "", "Origin", s.url)
	}
}

func TestTokensOverHTTP(t *testing.T) {
	s := newGate(t, "")
	tokens := map[string]string{"metrics": s.token("metrics"), "read": s.token("read"), "operate": s.token("operate")}
	for scope, want := range map[string][3]int{"metrics": {200, 403, 403}, "read": {200, 200, 403}, "operate": {200, 200, 200}} {
		for i, path := range []string{"/metrics", "/read", "/operate"} {
			s.status(want[i], "GET", path, "", "Authorization", tokens[scope])
		}
	}
	good := tokens["operate"]
	for _, bad := range []string{"", "Bearer", "Bearer ", "Basic " + good, good + "x", "Bearer x", strings.TrimPrefix(good, "Bearer "), "Bearer " + good} {
		s.status(401, "GET", "/metrics", "", "Authorization", bad) // although this machine would need none
	}
	s.status(401, "GET", "/read", "", "Authorization", good, "Authorization", good)
	s.status(200, "GET", "/read", "", "Authorization", strings.Replace(good, "Bearer", "bearer", 1))
	if res := s.ask("GET", "/read", "", "Authorization", "Bearer x"); !strings.HasPrefix(res.Header.Get("WWW-Authenticate"), "Bearer") {
		t.Errorf("challenge %q", res.Header.Get("WWW-Authenticate"))
	}

	far := newGate(t, "203.0.113.9:4711")
	far.status(403, "GET", "/read", "", "Authorization", far.token("read"))
	far.status(403, "GET", "/read", "", "Authorization", far.token("operate"), "X-Forwarded-Proto", "https") // by its own word
	plain := newGate(t, "203.0.113.9:4711", func(o *Options) { o.AcceptPlain = true })
	plain.status(200, "GET", "/read", "", "Authorization", plain.token("read"))
	proxied := newGate(t, "10.0.0.1:4711", func(o *Options) { o.Proxies.Trusted, o.Outside = prefixes("10.0.0.0/8"), true })
	bearer := proxied.token("read")
	proxied.status(403, "GET", "/read", "", "Authorization", bearer, "X-Forwarded-For", "203.0.113.9", "X-Forwarded-Proto", "http")
	proxied.status(200, "GET", "/read", "", "Authorization", bearer, "X-Forwarded-For", "203.0.113.9", "X-Forwarded-Proto", "https")
}

func TestLoginAndLogout(t *testing.T) {
	for _, tls := range []bool{false, true} {
		s := newGate(t, "", func(o *Options) { o.TLS = tls })
		s.user("ada", "operator")
		s.user("grace", "viewer")
		s.status(401, "GET", "/page", "")

		// A session that somebody else put into the browser is not taken over.
		name := map[bool]string{false: plainCookie, true: secureCookie}[tls]
		planted := name + "=AAAAAAAAAAAAAAAAAAAAAAAAAA"
		res, cookie := s.login("ada", passphrase, "Cookie", planted)
		if res.StatusCode != 200 || cookie == "" || cookie == planted {
			t.Fatalf("login: %d, cookie %s", res.StatusCode, cookie)
		}
		set := res.Header.Get("Set-Cookie")
		for _, want := range []string{name + "=", "Path=/", "HttpOnly", "SameSite=Lax", "Max-Age=86400"} {
			if !strings.Contains(set, want) {
				t.Errorf("the cookie is %q without %s", set, want)
			}
		}
		if strings.Contains(set, "Secure") != tls || strings.Contains(set, "Domain") {
			t.Errorf("TLS %v: the cookie is %q", tls, set)
		}
		if (res.Header.Get("Strict-Transport-Security") != "") != tls {
			t.Errorf("TLS %v: %q", tls, res.Header.Get("Strict-Transport-Security"))
		}
		s.status(401, "GET", "/page", "", "Cookie", planted)
		s.status(200, "GET", "/page", "", "Cookie", cookie)
		s.status(200, "GET", "/operate", "", "Cookie", cookie)
		s.status(200, "GET", "/page", "", "Cookie", planted+"; "+cookie) // two of them: one was planted and is nobody's
		wrong := map[bool]string{false: secureCookie, true: plainCookie}[tls]
		s.status(401, "GET", "/page", "", "Cookie", wrong+"="+strings.TrimPrefix(cookie, name+"="))

		// What changes something comes from a page of ours.
		form := []string{"Cookie", cookie, "Content-Type", "application/json"}
		s.status(403, "POST", "/operate", "{}", form...)
		s.status(403, "POST", "/operate", "{}", append(form, "Origin", "https://evil.example")...)
		s.status(403, "POST", "/operate", "{}", append(form, "Sec-Fetch-Site", "same-site", "Origin", s.url)...)
		s.status(403, "POST", "/operate", "{}", append(form, "Sec-Fetch-Site", "none")...)
		s.status(200, "POST", "/operate", "{}", append(form, "Origin", s.url)...)
		s.status(200, "POST", "/operate", "{}", append(form, "Sec-Fetch-Site", "same-origin")...)
		s.status(403, "GET", "/read", "", "Cookie", cookie, "Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "cors")

		_, viewer := s.login("grace", passphrase)
		s.status(200, "GET", "/read", "", "Cookie", viewer)
		s.status(403, "GET", "/operate", "", "Cookie", viewer)
		s.status(401, "GET", "/page", "", "Cookie", cookie+"; "+viewer) // one of them was planted

		// Signing in again ends the session before, signing out the one there is.
		_, second := s.login("ada", passphrase, "Cookie", cookie)
		if second == cookie {
			t.Error("the session goes on")
		}
		s.status(401, "GET", "/page", "", "Cookie", cookie)
		s.status(403, "POST", "/logout", "", "Cookie", second)
		s.status(200, "POST", "/logout", "", "Cookie", second, "Sec-Fetch-Site", "same-origin")
		s.status(401, "GET", "/page", "", "Cookie", second)

		_, third := s.login("ada", passphrase)
		if err := s.book.SetPassword("ada", "eight grey geese at noon", time.Now()); err != nil {
			t.Fatal(err)
		}
		s.status(401, "GET", "/page", "", "Cookie", third)
		s.status(200, "GET", "/page", "", "Cookie", viewer)
		if err := s.book.RemoveUser("grace"); err != nil {
			t.Fatal(err)
		}
		s.status(401, "GET", "/page", "", "Cookie", viewer)
		s.user("grace", "operator") // another one of that name
		s.status(401, "GET", "/page", "", "Cookie", viewer)
	}
}

// TestLoginTellsNothing: a wrong name and a wrong password are answered alike, and nothing that was typed is in the log but
// what can be a name.
func TestLoginTellsNothing(t *testing.T) {
	s := newGate(t, "")
	s.user("ada", "operator")
	answers := map[string]string{}
	for _, name := range []string{"ada", "nobody", "Correct Horse Battery", "", strings.Repeat("x", 1000)} {
		res, cookie := s.login(name, "hunter2hunter2")
		b, _ := io.ReadAll(res.Body)
		if res.StatusCode != 401 || cookie != "" {
			t.Errorf("%q: %d, %s", name, res.StatusCode, cookie)
		}
		h := res.Header.Clone()
		h.Del("Date")
		answers[string(b)+strings.Join(h.Values("Content-Length"), "")] = name
	}
	if len(answers) != 1 {
		t.Errorf("the answers differ: %q", answers)
	}
	log := s.log.String()
	if strings.Contains(log, "hunter2") || strings.Contains(log, "Horse") || !strings.Contains(log, "user=ada") || !strings.Contains(log, "source=127.0.0.1") {
		t.Errorf("the log holds\n%s", log)
	}
}

// TestBruteForce: after some wrong ones the right password is not looked at either, until the wait is over; from elsewhere it is.
func TestBruteForce(t *testing.T) {
	s := newGate(t, "10.0.0.1:1", func(o *Options) { o.Proxies.Trusted = prefixes("10.0.0.0/8") })
	s.user("ada", "operator")
	from := func(addr string) []string {
		return []string{"X-Forwarded-For", addr, "X-Forwarded-Proto", "https"}
	}
	looked := 0
	for range 50 {
		res, _ := s.login("ada", "wrong wrong wrong", from("203.0.113.66")...)
		switch res.StatusCode {
		case 401:
			looked++
		case 429:
			if res.Header.Get("Retry-After") == "" {
				t.Error("it is not said when to come again")
			}
		default:
			t.Fatalf("status %d", res.StatusCode)
		}
	}
	if looked < freeTries || looked > freeTries+6 {
		t.Errorf("%d of 50 were looked at", looked)
	}
	if res, _ := s.login("ada", passphrase, from("203.0.113.66")...); res.StatusCode != 429 {
		t.Errorf("the right one from there: %d", res.StatusCode)
	}
	if res, cookie := s.login("ada", passphrase, from("198.51.100.7")...); res.StatusCode != 200 || !strings.HasPrefix(cookie, secureCookie+"=") {
		t.Errorf("the right one from elsewhere: %d %s", res.StatusCode, cookie)
	}
	// What the client writes into the header itself makes it nobody else.
	if res, _ := s.login("ada", passphrase, "X-Forwarded-For", "9.9.9.9, 203.0.113.66", "X-Forwarded-Proto", "https"); res.StatusCode != 429 {
		t.Errorf("with an address made up before it: %d", res.StatusCode)
	}
}

// TestLoginNeedsAWayThatNobodyReads: a password is not taken over plain HTTP from elsewhere, nor from another site's page.
func TestLoginNeedsAWayThatNobodyReads(t *testing.T) {
	far := newGate(t, "203.0.113.9:4711")
	far.user("ada", "operator")
	for _, headers := range [][]string{nil, {"X-Forwarded-Proto", "https"}, {"Forwarded", "proto=https"}, {"X-Forwarded-For", "127.0.0.1"}} {
		if res, _ := far.login("ada", passphrase, headers...); res.StatusCode != 403 {
			t.Errorf("%q: %d", headers, res.StatusCode)
		}
	}
	near := newGate(t, "")
	if res, _ := near.login("ada", passphrase); res.StatusCode != 403 {
		t.Errorf("nobody is set up: %d", res.StatusCode)
	}
	near.user("ada", "operator")
	if res, _ := near.login("ada", passphrase, "X-Forwarded-For", "203.0.113.9"); res.StatusCode != 403 {
		t.Errorf("passed on over plain HTTP: %d", res.StatusCode)
	}
	if res, _ := near.login("ada", passphrase, "Host", "evil.example"); res.StatusCode != 403 {
		t.Errorf("by a name that DNS leads here: %d", res.StatusCode)
	}
	typed := url.Values{"name": {"ada"}, "password": {passphrase}}.Encode()
	form := []string{"Content-Type", "application/x-www-form-urlencoded"}
	near.status(403, "POST", "/login", typed, form...)
	near.status(403, "POST", "/login", typed, append(form, "Origin", "https://evil.example")...)
	near.status(403, "POST", "/login", typed, append(form, "Sec-Fetch-Site", "cross-site", "Origin", near.url)...)
	near.status(200, "POST", "/login", typed, append(form, "Origin", near.url)...)
	near.status(415, "POST", "/login", typed, "Content-Type", "text/plain", "Origin", near.url)
	near.status(413, "POST", "/login", strings.Repeat("x", maxLogin+1), append(form, "Origin", near.url)...)
}

// TestSlowBodies: who posts a byte now and then is cut off.
func TestSlowBodies(t *testing.T) {
	r := httptest.NewRequest(http.MethodPost, "/operate", io.MultiReader(strings.NewReader("{"), failing{}))
	r.Header.Set("Content-Type", "application/json")
	if no := body(httptest.NewRecorder(), r, Route{}); no == nil || no.Status != 400 {
		t.Errorf("a body that breaks off: %+v", no)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, context.DeadlineExceeded }

// FuzzCredentials: no cookie and no token that was not given out lets anybody in.
func FuzzCredentials(f *testing.F) {
	b, _ := counted(f)
	if err := b.AddUser("ada", "operator", passphrase, time.Now()); err != nil {
		f.Fatal(err)
	}
	secret, _, err := b.AddToken("t", "operate", time.Time{}, time.Now())
	if err != nil {
		f.Fatal(err)
	}
	guard := NewGuard(Options{Book: b})
	users, _ := b.Users()
	id := guard.sessions.begin(users[0], time.Now())
	h := guard.Handler([]Route{{Pattern: "/", Need: NeedRead, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}})
	f.Add("lodestone="+strings.Repeat("A", 26), "")
	f.Add("", "Bearer lodestone_"+strings.Repeat("A", 43))
	f.Add("lodestone=;lodestone=\"x\"; __Host-lodestone=y", "bearer\tx")
	f.Fuzz(func(t *testing.T, cookie, authorization string) {
		if strings.Contains(cookie, id) || strings.Contains(authorization, secret) {
			return // it was given out
		}
		r := httptest.NewRequest(http.MethodGet, "http://localhost/", nil)
		r.RemoteAddr = "127.0.0.1:1"
		r.Header["Cookie"] = []string{cookie}
		if authorization != "" {
			r.Header["Authorization"] = []string{authorization}
		}
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != http.StatusUnauthorized {
			t.Errorf("cookie %q, authorization %q: %d", cookie, authorization, w.Code)
		}
	})
}

// TestNginxThatSaysNothing: a proxy on this machine that rewrites the host and adds no header, as nginx does by default, speaks
// HTTP/1.0, and gets nothing.
func TestNginxThatSaysNothing(t *testing.T) {
	s := newGate(t, "")
	u, _ := url.Parse(s.url)
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /read HTTP/1.0\r\nHost: "+u.Host+"\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(conn)
	if err != nil || !strings.Contains(string(b), " 403 ") {
		t.Errorf("%s, %v", b, err)
	}
}
