package sandbox

import (
	"cmp"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/lodestonehq/lodestone/connectors/saasquatch"
)

// SquatchOptions are what SaaSquatch is started with.
type SquatchOptions struct {
	APIKey   string // taken as user name and as password of Basic; empty: any that is not empty
	Tenant   string // empty: any
	Settings SquatchSettings
}

// SquatchSettings are what nobody knows for sure of the real provider, or what its customers differ
// in. They can be changed while the sandbox runs, at /_sandbox/saasquatch.
type SquatchSettings struct {
	SecondCode  string `json:"second_code"`  // an account that was referred already: keep (default) its first code, refuse, or replace it
	UnknownCode string `json:"unknown_code"` // refuse (default) an upsert with a code that nobody has, or ignore the code
	Open        string `json:"open"`         // on (default), or off: open endpoints answer 403
	ConvertsOn  string `json:"converts_on"`  // key of the tracked event that converts a referral; empty: purchase
}

func (s SquatchSettings) withDefaults() SquatchSettings {
	return SquatchSettings{cmp.Or(s.SecondCode, "keep"), cmp.Or(s.UnknownCode, "refuse"), cmp.Or(s.Open, "on"), cmp.Or(s.ConvertsOn, "purchase")}
}

func (s SquatchSettings) check() error {
	for _, c := range []struct {
		name, value string
		allowed     []string
	}{
		{"second_code", s.SecondCode, []string{"keep", "refuse", "replace"}},
		{"unknown_code", s.UnknownCode, []string{"refuse", "ignore"}},
		{"open", s.Open, []string{"on", "off"}},
	} {
		if !slices.Contains(c.allowed, c.value) {
			return fmt.Errorf("%s must be one of %s", c.name, strings.Join(c.allowed, ", "))
		}
	}
	return nil
}

// SetSaaSquatch changes SaaSquatch's settings; what is empty takes its default. The error says which
// one is wrong.
func (s *Server) SetSaaSquatch(set SquatchSettings) error {
	set = set.withDefaults()
	if err := set.check(); err != nil {
		return err
	}
	s.squatch.mu.Lock()
	defer s.squatch.mu.Unlock()
	s.squatch.set = set
	return nil
}

// SaaSquatch gives SaaSquatch's present settings.
func (s *Server) SaaSquatch() SquatchSettings {
	s.squatch.mu.Lock()
	defer s.squatch.mu.Unlock()
	return s.squatch.set
}

// squatch is SaaSquatch. Its open endpoints and those for servers work on the same data, whatever the
// tenant is called.
type squatch struct {
	s        *Server
	routes   []squatchRoute
	handlers map[string]func(*squatchRequest) reply // by operationId
	hooks    *hooks

	mu        sync.Mutex // guards what follows
	set       SquatchSettings
	users     map[squatchID]*squatchUser
	order     []squatchID
	codes     map[string]*squatchUser // by code in lower case
	referrals []*squatchReferral      // oldest first
	referred  map[string]bool         // accounts that were referred
	untracked map[squatchID]bool      // deleted for good
	keys      map[string]time.Time    // idempotency keys, with when they came
	webhooks  []squatchWebhook
	made      int // codes and links that were made up
}

// squatchID names a user.
type squatchID struct{ account, user string }

// squatchRoute is an operation with its path taken apart.
type squatchRoute struct {
	*route
	method   string
	segments []string // {name} stands for any one
	key, jwt bool     // which credentials are taken; neither: none are needed
	open     bool     // an open endpoint
}

// squatchRequest is a request whose path was understood.
type squatchRequest struct {
	*request
	squatchRoute
	vars map[string]string
}

func (r *squatchRequest) id() squatchID { return squatchID{r.vars["accountId"], r.vars["userId"]} }

// squatchRoutes reads the description once, since that takes tens of milliseconds and never changes.
var squatchRoutes = sync.OnceValue(func() []squatchRoute {
	spec := saasquatch.Specification()
	c := mustContract(spec)
	type security []map[string]any
	var doc struct {
		Security security
		Paths    map[string]map[string]struct {
			Tags     []string
			Security *security
		}
	}
	if err := yaml.Unmarshal(spec, &doc); err != nil {
		panic("sandbox: " + err.Error())
	}
	var routes []squatchRoute
	for path, item := range doc.Paths {
		for method, op := range item {
			method = strings.ToUpper(method)
			r := squatchRoute{
				route: c.routes[method+" "+path], method: method,
				segments: strings.Split(strings.Trim(path, "/"), "/"), open: slices.Contains(op.Tags, "Open Endpoint"),
			}
			ways := doc.Security
			if op.Security != nil {
				ways = *op.Security
			}
			for _, way := range ways {
				_, key := way["APIKey"]
				_, jwt := way["UserJWT"]
				r.key, r.jwt = r.key || key, r.jwt || jwt
			}
			routes = append(routes, r)
		}
	}
	// A fixed part of a path goes before one that stands for anything.
	slices.SortFunc(routes, func(a, b squatchRoute) int {
		return cmp.Compare(strings.Count(strings.Join(a.segments, "/"), "{"), strings.Count(strings.Join(b.segments, "/"), "{"))
	})
	return routes
})

func newSquatch(s *Server) *squatch {
	q := &squatch{s: s, routes: squatchRoutes(), hooks: newSquatchHooks(s.opts.Keep)}
	q.handlers = map[string]func(*squatchRequest) reply{
		"listReferrals":          q.listReferrals,
		"getReferral":            q.getReferral,
		"moderateReferrals":      q.moderateReferrals,
		"openListReferrals":      q.listReferrals,
		"openUserUpsert":         q.openUserUpsert,
		"openCreateUser":         q.openCreateUser,
		"openGetUser":            q.openGetUser,
		"openDeleteUser":         q.openDeleteUser,
		"trackEvent":             q.trackEvent,
		"openApplyCode":          q.openApplyCode,
		"openValidateCode":       q.openValidateCode,
		"openGetUserByCode":      q.openGetUserByCode,
		"createUser":             q.createUser,
		"findUserByReferralCode": q.findUserByReferralCode,
		"getUser":                q.getUser,
		"blockUser":              q.blockUser,
		"unblockUser":            q.unblockUser,
		"listUsers":              q.listUsers,
		"createWebhook":          q.createWebhook,
		"listWebhooks":           q.listWebhooks,
		"deleteWebhook":          q.deleteWebhook,
		"testWebhook":            q.testWebhook,
	}
	q.reset()
	s.mux.HandleFunc("GET /.well-known/jwks.json", serveKeys)
	s.mux.HandleFunc("GET /_sandbox/saasquatch", func(w http.ResponseWriter, _ *http.Request) {
		send(w, reply{status: http.StatusOK, body: s.SaaSquatch()})
	})
	s.mux.HandleFunc("POST /_sandbox/saasquatch", func(w http.ResponseWriter, r *http.Request) {
		in := s.SaaSquatch()
		err := readJSON(w, r, &in)
		if err == nil {
			err = s.SetSaaSquatch(in)
		}
		if err != nil {
			refuse(w, err)
			return
		}
		send(w, reply{status: http.StatusOK, body: s.SaaSquatch()})
	})
	return q
}

// squatchStart is when the people of the beginning joined.
var squatchStart = time.Date(2026, 2, 3, 14, 5, 9, 0, time.UTC)

// reset puts the data and the settings back as they were at the start.
func (q *squatch) reset() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.set = q.s.opts.SaaSquatch.Settings.withDefaults()
	q.users, q.order, q.codes = map[squatchID]*squatchUser{}, nil, map[string]*squatchUser{}
	q.referrals, q.referred, q.untracked = nil, map[string]bool{}, map[squatchID]bool{}
	q.keys, q.webhooks, q.made = map[string]time.Time{}, nil, 0
	q.hooks.reset()
	for _, p := range []struct{ first, last, email, code string }{
		{"Ines", "Duarte", "ines.duarte@example.com", "INES1042"},
		{"Ada", "Advocate", "ada.advocate@example.com", "ADA2026"},
	} {
		u := q.newUser(squatchID{p.email, p.email}, squatchStart, p.code)
		u.First, u.Last, u.Email, u.since = p.first, p.last, p.email, time.Time{}
		u.hidden = false
	}
}

// squatchError is the provider's error body. Which words go with which status is known for a wrong
// tenant alone, and documented for the browser library for RS033, RS034 and RS042; the rest is assumed.
type squatchError struct {
	StatusCode   int     `json:"statusCode"`
	Message      string  `json:"message"`
	APIErrorCode string  `json:"apiErrorCode"`
	RSCode       *string `json:"rsCode"`
}

func squatchFailure(status int, words, code, rs string) reply {
	e := squatchError{StatusCode: status, Message: words, APIErrorCode: code}
	if rs != "" {
		e.RSCode = &rs
	}
	return reply{status: status, body: e}
}

func (q *squatch) noUser() reply {
	return squatchFailure(http.StatusNotFound, "No user found for the provided id", "USER_NOT_FOUND", "RS042")
}

func (q *squatch) noCode() reply {
	return squatchFailure(http.StatusNotFound, "Referral code not found.", "REFERRAL_CODE_NOT_FOUND", "RS034")
}

// bad is a request that breaks the description in a way that its schema does not say.
func (q *squatch) bad(r *squatchRequest, problem string) reply {
	r.seen.Violation = problem
	return squatchFailure(http.StatusBadRequest, "The request is invalid: "+problem+".", "INVALID_REQUEST", "")
}

// failure implements emulated.
func (q *squatch) failure(status int, words string) reply {
	switch status {
	case http.StatusUnauthorized:
		return squatchFailure(status, words, "UNAUTHORIZED", "")
	case http.StatusTooManyRequests:
		return squatchFailure(status, words, "RATE_LIMIT_EXCEEDED", "RS033")
	}
	return squatchFailure(status, words, strings.ToUpper(strings.ReplaceAll(http.StatusText(status), " ", "_")), "")
}

// find takes a request's path apart. Ids and URLs in it are percent-encoded, so that a slash in them
// is none of the path's. The version before the tenant may be left out.
func (q *squatch) find(req *request) *squatchRequest {
	path := strings.TrimPrefix(req.URL.EscapedPath(), "/api/v1")
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for i, s := range segments {
		plain, err := url.PathUnescape(s)
		if err != nil || plain == "" {
			return nil
		}
		segments[i] = plain
	}
	for _, r := range q.routes {
		if r.method != req.Method || len(r.segments) != len(segments) {
			continue
		}
		vars := map[string]string{}
		fits := true
		for i, s := range r.segments {
			if name, ok := strings.CutPrefix(s, "{"); ok {
				vars[strings.TrimSuffix(name, "}")] = segments[i]
			} else if s != segments[i] {
				fits = false
				break
			}
		}
		if fits {
			return &squatchRequest{request: req, squatchRoute: r, vars: vars}
		}
	}
	return nil
}

// match implements emulated. A user is told apart by the address, an event by its idempotency key, a
// referral by its id.
func (q *squatch) match(req *request) (operation string, emails []string, externalID string) {
	r := q.find(req)
	if r == nil {
		return "", nil, ""
	}
	query := req.URL.Query()
	var body struct {
		ID, Email, IdempotencyKey string
		Actions                   []struct{ ReferralID string }
	}
	_ = json.Unmarshal(req.body, &body) // what is wrong with it is said later
	for _, e := range []string{r.vars["userId"], body.Email, body.ID, query.Get("referredUserId"), query.Get("query")} {
		if strings.Contains(e, "@") && !slices.Contains(emails, e) {
			emails = append(emails, e)
		}
	}
	externalID = cmp.Or(body.IdempotencyKey, r.vars["referralId"])
	if len(body.Actions) == 1 {
		externalID = cmp.Or(externalID, body.Actions[0].ReferralID)
	}
	return r.operation, emails, externalID
}

// serve implements emulated.
func (q *squatch) serve(req *request) reply {
	r := q.find(req)
	if r == nil {
		req.seen.Violation = "the description has no such path and method"
		return squatchFailure(http.StatusNotFound, "HTTP 404 Not Found", "NOT_FOUND", "")
	}
	if want := q.s.opts.SaaSquatch.Tenant; want != "" && r.vars["tenant_alias"] != want {
		return squatchFailure(http.StatusNotFound, "Missing or invalid tenant alias.", "TENANT_NOT_FOUND", "RS045")
	}
	if r.open && q.s.SaaSquatch().Open == "off" {
		return squatchFailure(http.StatusForbidden, "Endpoint disabled.", "ENDPOINT_DISABLED", "")
	}
	if err := q.authorise(r); err != nil {
		if errors.Is(err, errNoCredentials) {
			req.seen.Violation = err.Error()
		}
		return q.failure(http.StatusUnauthorized, "Invalid credentials.")
	}
	if r.operation == "openApplyCode" && strings.TrimSpace(string(req.body)) == "{}" {
		req.body = nil // one of the vendor's SDKs posts it
	}
	if err := r.check(req); err != nil {
		return q.bad(r, err.Error())
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.handlers[r.operation](r)
}

var (
	errNoCredentials    = errors.New("it carries none of the credentials that the operation takes")
	errWrongCredentials = errors.New("wrong credentials")
)

// authorise checks the credentials that the operation asks for: the key in either half of Basic, or
// the token of a user, which is taken for granted.
func (q *squatch) authorise(r *squatchRequest) error {
	if !r.key && !r.jwt {
		return nil
	}
	if r.jwt && r.Header.Get("X-SaaSquatch-User-Token") != "" {
		return nil
	}
	user, password, ok := r.BasicAuth()
	if !r.key || !ok || user == "" && password == "" {
		return errNoCredentials
	}
	want := q.s.opts.SaaSquatch.APIKey
	same := func(got string) bool { return subtle.ConstantTimeCompare([]byte(want), []byte(got)) == 1 }
	if want != "" && !same(user) && !same(password) {
		return errWrongCredentials
	}
	return nil
}

// unreadable answers a body that fits the description and no type of ours, a number beyond all bounds
// for one.
func (q *squatch) unreadable(r *squatchRequest) reply {
	return q.bad(r, "a value in the body is out of bounds")
}

// effect notes that a request was acted on.
func (q *squatch) effect(r *squatchRequest, email, externalID string) {
	r.seen.Effect = true
	q.s.effect(r.operation, email, externalID)
}

// bodiless is an answer without a body.
func bodiless(status int) reply { return reply{status: status, body: noBody{}} }

// noBody is the body of an answer that has none.
type noBody struct{}
