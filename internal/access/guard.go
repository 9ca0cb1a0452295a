// Package access says who may do what over the network, and keeps out everybody else.
//
// Every route says what it needs; one that says nothing is answered to nobody. What people fill in and follow
// (forms, links, webhooks, health) is open. Console, API and metrics are read by whoever has the right:
//
//	a user      signs in with a password (argon2id) and has a session, a cookie that scripts cannot read
//	a token     a program's, in Authorization: Bearer
//	this machine  reads without either for as long as there is neither a user nor a token, and metrics always
//
// "This machine" is believed of a request alone that really begins here: a loopback address, asking for a
// loopback name (so that no DNS answer makes a browser do it), with no trace of a proxy, and not sent by another
// site's page. Whoever acts has a name, which goes on record.
//
// Passwords, sessions and tokens are taken over TLS, from this machine, or through a trusted proxy that says that
// its side was TLS; elsewhere they are refused, because they could be read on the way.
package access

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Need is what a route asks of whoever requests it. The zero value is answered to nobody.
type Need int

// The needs.
const (
	NeedNobody   Need = iota
	NeedAnybody       // open
	NeedMetrics       // [Metrics]
	NeedRead          // [Read]
	NeedOperate       // [Operate]
	NeedPassword      // open, and takes a password: asked for from its own page alone
)

func (n Need) right() Right {
	return map[Need]Right{NeedMetrics: Metrics, NeedRead: Read, NeedOperate: Operate}[n]
}

// Route is one path, as [http.ServeMux] writes it, and who may have it.
type Route struct {
	Pattern string
	Need    Need
	Handler http.Handler
	Page    bool // people look at it in a browser; otherwise programs read it
}

// Who is somebody that was let in.
type Who struct {
	Kind string // "user", "token" or "local"
	Name string // of the user or the token
	May  Right
}

// Operates reports whether somebody may tell the worker what to do.
func (w Who) Operates() bool { return w.May >= Operate }

// String is who it was, for the record: "user ada", "token grafana" or "local".
func (w Who) String() string { return strings.TrimSpace(w.Kind + " " + w.Name) }

type whoKey struct{}

// From is who sent a request, in a handler behind a [Guard] whose need is more than anybody's.
func From(ctx context.Context) Who {
	w, _ := ctx.Value(whoKey{}).(Who)
	return w
}

// Refusal says why somebody was not let in.
type Refusal struct {
	Status int
	Detail string        // what is wrong, and what to do
	Wait   time.Duration // 0: none
	SignIn bool          // signing in helps
	result string
}

func (r *Refusal) Error() string { return r.Detail }

// Guard stands before the routes of a worker. Make one with [NewGuard].
type Guard struct {
	o        Options
	sessions sessions
	throttle *throttle
	logins   *prometheus.CounterVec
	refused  *prometheus.CounterVec
}

// Options of [NewGuard].
type Options struct {
	Book    *Book
	Proxies Proxies
	// Outside says that others than this machine are meant to reach the listener: then this machine needs a
	// user or a token as well, because a proxy on it that says nothing looks like this machine.
	Outside bool
	// AcceptPlain takes passwords, sessions and tokens from elsewhere over plain HTTP.
	AcceptPlain bool
	// TLS says that the listener speaks it: browsers are told to use nothing else.
	TLS bool
	// Page shows a refusal in a browser; nil: as text.
	Page       func(http.ResponseWriter, *http.Request, *Refusal)
	Registerer prometheus.Registerer // nil: nobody counts
	Log        *slog.Logger          // nil: silent
}

// NewGuard makes a guard. Call it once for a registerer.
func NewGuard(o Options) *Guard {
	g := &Guard{
		o: o, throttle: newThrottle(),
		logins: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lodestone_logins_total", Help: "Tries to sign in by what became of them.",
		}, []string{"result"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lodestone_access_refused_total", Help: "Requests for console, API and metrics that were refused, by reason.",
		}, []string{"reason"}),
	}
	if g.o.Log == nil {
		g.o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Registerer != nil {
		o.Registerer.MustRegister(g.logins, g.refused)
	}
	return g
}

const (
	maxBody     = 1 << 20          // bytes of what a program posts to what is guarded
	maxForm     = 64 << 10         // and of what a page of ours posts
	maxLogin    = 4 << 10          // and of what somebody posts who is nobody yet
	bodyTimeout = 10 * time.Second // for it to come in
)

// Handler serves routes to those who may have them, and nothing else.
func (g *Guard) Handler(routes []Route) http.Handler {
	mux := http.NewServeMux()
	for _, route := range routes {
		mux.Handle(route.Pattern, g.one(route))
	}
	return g.o.Proxies.Handler(g.headers(mux))
}

// one guards one route.
func (g *Guard) one(route Route) http.Handler {
	if route.Need == NeedAnybody {
		return route.Handler
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		private(w.Header())
		no := &Refusal{Status: http.StatusForbidden, Detail: "this is answered to nobody", result: "nobody"}
		switch route.Need {
		case NeedMetrics, NeedRead, NeedOperate:
			var who Who
			if who, no = g.admit(r, route.Need.right(), route.Page); no == nil {
				r = r.WithContext(context.WithValue(r.Context(), whoKey{}, who))
			}
		case NeedPassword:
			no = g.mayType(r)
		}
		if no == nil && r.Method != http.MethodGet && r.Method != http.MethodHead {
			no = body(w, r, route)
		}
		if no != nil {
			g.refuse(w, r, route.Page, no)
			return
		}
		if r.Method == http.MethodGet || r.Method == http.MethodHead || route.Need == NeedPassword {
			route.Handler.ServeHTTP(w, r)
			return
		}
		kept := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		route.Handler.ServeHTTP(kept, r)
		if route.Need == NeedOperate { // the pattern, because a path may hold an address
			g.o.Log.InfoContext(r.Context(), "somebody acted over the network", "who", From(r.Context()).String(), "what", route.Pattern, "status", kept.status)
		}
	})
}

// statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for [http.ResponseController].
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// body reads what is posted, bounded in bytes and in time. Programs post JSON, which no page of another site can
// send without asking first.
func body(w http.ResponseWriter, r *http.Request, route Route) *Refusal {
	want, most := "application/json", int64(maxBody)
	if route.Page {
		want, most = "application/x-www-form-urlencoded", maxForm
	}
	if route.Need == NeedPassword {
		most = maxLogin
	}
	if is, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); r.ContentLength != 0 && (err != nil || is != want) {
		return &Refusal{Status: http.StatusUnsupportedMediaType, Detail: "post it as " + want, result: "media_type"}
	}
	conn := http.NewResponseController(w)
	_ = conn.SetReadDeadline(time.Now().Add(bodyTimeout)) // not every connection has one
	read, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	var long *http.MaxBytesError
	switch {
	case errors.As(err, &long):
		return &Refusal{Status: http.StatusRequestEntityTooLarge, Detail: fmt.Sprintf("more than %d bytes were posted", most), result: "too_large"}
	case err != nil:
		return &Refusal{Status: http.StatusBadRequest, Detail: "what was posted did not come to its end", result: "interrupted"}
	}
	_ = conn.SetReadDeadline(time.Time{})
	r.Body = io.NopCloser(bytes.NewReader(read))
	return nil
}

// admit decides who somebody is and whether that is enough.
func (g *Guard) admit(r *http.Request, right Right, page bool) (Who, *Refusal) {
	peer, now := Of(r), time.Now()
	alone, err := g.o.Book.Empty()
	if err != nil {
		g.o.Log.ErrorContext(r.Context(), "nobody is let in", "error", err)
		return Who{}, &Refusal{Status: http.StatusServiceUnavailable, Detail: "users and tokens cannot be read, so nobody is let in; `lodestone doctor` says what is wrong", result: "unreadable"}
	}
	if given, ok := r.Header["Authorization"]; ok {
		return g.token(r, given, right, now)
	}
	if u, ok := g.user(r, now); ok {
		switch {
		case elsewhere(r, peer):
			return Who{}, foreign
		case changes(r) && !samePage(r, peer):
			return Who{}, foreign
		case !g.confidential(peer):
			return Who{}, plainText
		}
		who := Who{"user", u.Name, Roles[u.Role]}
		return who, enough(who, right, "user "+u.Name+" is a "+u.Role)
	}
	local := peer.Local() && (right == Metrics || alone && !g.o.Outside)
	switch {
	case local && elsewhere(r, peer):
		return Who{}, foreign
	case local && right <= Read:
		return Who{"local", "", Read}, nil
	case alone && local:
		return Who{}, &Refusal{Status: http.StatusForbidden, result: "not_allowed",
			Detail: "what is done over the network is on record with who did it: make a user (lodestone user add NAME) or a token (lodestone token add NAME --scope operate)"}
	case alone:
		return Who{}, &Refusal{Status: http.StatusForbidden, result: "nobody_set_up",
			Detail: "this is open to nobody but the machine that Lodestone runs on, because nobody was given a right. There, `lodestone user add NAME` makes a user who can sign in, and `lodestone token add NAME` a token for a program"}
	case page && right == Read:
		return Who{}, &Refusal{Status: http.StatusUnauthorized, Detail: "sign in first", SignIn: true, result: "not_signed_in"}
	}
	return Who{}, &Refusal{Status: http.StatusUnauthorized, result: "no_token",
		Detail: "this needs a token, as in Authorization: Bearer lodestone_…; `lodestone token add NAME` makes one"}
}

// Knows reports whether somebody may be told what is none of a stranger's business: this machine, and whoever shows a
// token or a session. It is for routes that are open.
func (g *Guard) Knows(r *http.Request) bool {
	_, no := g.admit(r, Metrics, false)
	return no == nil
}

func enough(who Who, right Right, is string) *Refusal {
	if who.May >= right {
		return nil
	}
	return &Refusal{Status: http.StatusForbidden, Detail: is + ", which is not enough for this", result: "not_allowed"}
}

var (
	foreign   = &Refusal{Status: http.StatusForbidden, Detail: "this was sent by a page of another site, or by one that does not say where it is from; open Lodestone's own address", result: "other_site"}
	plainText = &Refusal{Status: http.StatusForbidden, result: "plain_http",
		Detail: "passwords and tokens are not taken over plain HTTP from another machine: set http.tls, put a proxy that does TLS before it and name it in http.trusted_proxies, or say http.accept_plain: true"}
)

// token is the program that shows one.
func (g *Guard) token(r *http.Request, given []string, right Right, now time.Time) (Who, *Refusal) {
	if !g.confidential(Of(r)) {
		return Who{}, plainText
	}
	secret, ok := bearer(given)
	var t Token
	var err error
	if ok {
		t, ok, err = g.o.Book.CheckToken(secret, now)
	}
	switch {
	case err != nil:
		return Who{}, &Refusal{Status: http.StatusServiceUnavailable, Detail: "tokens cannot be read; `lodestone doctor` says what is wrong", result: "unreadable"}
	case !ok:
		return Who{}, &Refusal{Status: http.StatusUnauthorized, Detail: "this token is not one of ours, was removed, or has expired; `lodestone token add NAME` makes one", result: "bad_token"}
	}
	who := Who{"token", t.Name, Scopes[t.Scope]}
	return who, enough(who, right, "token "+t.Name+" is for "+t.Scope)
}

// bearer reads an Authorization header (RFC 6750, section 2.1).
func bearer(given []string) (secret string, ok bool) {
	if len(given) != 1 {
		return "", false
	}
	scheme, secret, ok := strings.Cut(given[0], " ")
	return strings.TrimSpace(secret), ok && strings.EqualFold(scheme, "Bearer")
}

// confidential reports whether nobody can read on the way what a request holds.
func (g *Guard) confidential(p Peer) bool {
	return p.Secure || p.Local() || g.o.AcceptPlain
}

// elsewhere reports whether a browser says that a page of another site sent a request. Following a link to
// here is no such request.
func elsewhere(r *http.Request, peer Peer) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return false
	case "":
		origin := r.Header.Get("Origin")
		return origin != "" && !strings.EqualFold(origin, peer.Origin())
	}
	return r.Method != http.MethodGet || r.Header.Get("Sec-Fetch-Mode") != "navigate" || r.Header.Get("Sec-Fetch-Dest") != "document"
}

// samePage reports whether a browser says that a page of ours sent a request.
func samePage(r *http.Request, peer Peer) bool {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" {
		return site == "same-origin"
	}
	return strings.EqualFold(r.Header.Get("Origin"), peer.Origin())
}

func changes(r *http.Request) bool { return r.Method != http.MethodGet && r.Method != http.MethodHead }

// The names of the cookie. The first is one that browsers take over TLS alone and from nobody but this very host
// (RFC 6265bis, section 4.1.3.2); the second is for this machine.
const (
	secureCookie = "__Host-lodestone"
	plainCookie  = "lodestone"
)

func cookieName(p Peer) string {
	if p.Secure {
		return secureCookie
	}
	return plainCookie
}

// mostCookies is how many cookies of our name are looked at: others on the same host may set one for a longer path
// or for a domain above, and a browser sends all of them.
const mostCookies = 4

// sessionIDs are the ids in a request's cookies.
func sessionIDs(r *http.Request) (ids []string) {
	for _, c := range r.CookiesNamed(cookieName(Of(r))) {
		if len(ids) < mostCookies {
			ids = append(ids, c.Value)
		}
	}
	return ids
}

// user is who is signed in; a session ends with its user and with their password.
func (g *Guard) user(r *http.Request, now time.Time) (User, bool) {
	var found User
	for _, id := range sessionIDs(r) {
		s, ok := g.sessions.of(id, now)
		if !ok {
			continue
		}
		users, err := g.o.Book.Users()
		if err != nil {
			return User{}, false
		}
		i := slices.IndexFunc(users, func(u User) bool { return u.Name == s.user && u.Epoch == s.epoch })
		switch {
		case i < 0:
			g.sessions.end(id)
		case found.Name != "" && found.Name != users[i].Name:
			return User{}, false // one of the two was planted, and nobody knows which
		default:
			found = users[i]
		}
	}
	return found, found.Name != ""
}

// endSessions ends those of a request.
func (g *Guard) endSessions(r *http.Request) {
	for _, id := range sessionIDs(r) {
		g.sessions.end(id)
	}
}

// mayType reports whether a password may be typed in where a request comes from.
func (g *Guard) mayType(r *http.Request) *Refusal {
	peer := Of(r)
	users, err := g.o.Book.Users()
	switch {
	case err != nil:
		return &Refusal{Status: http.StatusServiceUnavailable, Detail: "users cannot be read, so nobody is let in; `lodestone doctor` says what is wrong", result: "unreadable"}
	case len(users) == 0:
		return &Refusal{Status: http.StatusForbidden, Detail: "nobody can sign in yet; on the machine that Lodestone runs on, `lodestone user add NAME` makes a user", result: "nobody_set_up"}
	case !g.confidential(peer):
		return plainText
	case changes(r) && !samePage(r, peer):
		return foreign
	}
	return nil
}

// Login signs somebody in who typed in a name and a password, by a cookie in the answer: a session that
// nobody knew before. The answer to a wrong password is the same as to a wrong name, and costs the same. It is for
// routes that need [NeedPassword].
func (g *Guard) Login(w http.ResponseWriter, r *http.Request, name, password string) *Refusal {
	peer, now := Of(r), time.Now()
	log := g.o.Log.With("source", peer.Addr.String())
	if CheckName(name) == nil {
		log = log.With("user", name) // of what was typed nothing else: it may be a password
	}
	count := func(result string) { g.logins.WithLabelValues(result).Inc() }
	if len(name) > 64 || len(password) > maxPassword {
		name, password = "", "" // nobody's
	}
	wait, right, unchecked := g.throttle.begin(name, peer.Addr, now)
	if wait > 0 {
		count("throttled")
		log.WarnContext(r.Context(), "a try to sign in came too early after wrong ones and was not looked at", "wait", wait.Round(time.Second))
		wait = time.Duration(math.Ceil(wait.Seconds())) * time.Second
		return &Refusal{Status: http.StatusTooManyRequests, Detail: "too many tries from here; wait " + wait.String() + " and try again", Wait: wait}
	}
	leave, ok := g.throttle.place(name, peer.Addr, r.Context().Done())
	if !ok {
		unchecked()
		count("busy")
		return &Refusal{Status: http.StatusServiceUnavailable, Detail: "too many people try to sign in at this moment; try again", Wait: waitForCheck}
	}
	defer leave()
	u, ok, err := g.o.Book.Check(name, password)
	switch {
	case err != nil:
		unchecked()
		count("failed")
		log.ErrorContext(r.Context(), "a password cannot be checked", "error", err)
		return &Refusal{Status: http.StatusServiceUnavailable, Detail: "the password cannot be checked; `lodestone doctor` says what is wrong"}
	case !ok:
		count("wrong")
		log.WarnContext(r.Context(), "somebody tried to sign in with a wrong name or password")
		return &Refusal{Status: http.StatusUnauthorized, Detail: "the name or the password is wrong"}
	}
	right()
	count("ok")
	log.InfoContext(r.Context(), "somebody signed in")
	g.endSessions(r)
	g.setCookie(w, peer, g.sessions.begin(u, now), int(longest/time.Second))
	return nil
}

// Logout ends the session of a request.
func (g *Guard) Logout(w http.ResponseWriter, r *http.Request) {
	g.endSessions(r)
	g.setCookie(w, Of(r), "", -1)
}

func (g *Guard) setCookie(w http.ResponseWriter, p Peer, id string, age int) {
	http.SetCookie(w, &http.Cookie{
		Name: cookieName(p), Value: id, Path: "/", MaxAge: age, HttpOnly: true, Secure: p.Secure, SameSite: http.SameSiteLaxMode,
	})
}

// refuse answers as the route's readers read.
func (g *Guard) refuse(w http.ResponseWriter, r *http.Request, page bool, no *Refusal) {
	g.refused.WithLabelValues(no.result).Inc()
	if no.Status == http.StatusUnauthorized && !no.SignIn {
		w.Header().Set("WWW-Authenticate", `Bearer realm="lodestone"`)
	}
	WriteWait(w.Header(), no.Wait)
	if r.ContentLength != 0 && r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close") // nobody waits for what was refused
	}
	if page && g.o.Page != nil {
		g.o.Page(w, r, no)
		return
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(no.Status)
	_ = json.NewEncoder(w).Encode(map[string]any{"type": "about:blank", "title": http.StatusText(no.Status), "status": no.Status, "detail": no.Detail})
}

// WriteWait says in a header when to come again.
func WriteWait(h http.Header, wait time.Duration) {
	if wait > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	}
}
