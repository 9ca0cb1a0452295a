package sandbox

import (
	"cmp"
	"encoding/json"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors/referralfactory"
)

// FactoryOptions are those of Referral Factory.
type FactoryOptions struct {
	APIKey    string // empty: any that is not empty
	PerMinute int    // requests of one token in any 60 seconds, beyond which it answers 429; 0: 600, below 0: no limit
}

const (
	// factoryPerMinute is the provider's limit.
	factoryPerMinute = 600
	// factoryPage is the provider's page size when the request names none.
	factoryPage = 25
	// factoryFirst is the number of the first user who is made; those of the start have lower ones.
	factoryFirst = 123
)

// factory is Referral Factory. What is assumed of it: which words it uses beside those for a missing
// and a taken address, that comparisons in searches disregard case, that a qualification which is
// repeated makes another reward due, and that taking it back takes back no reward.
type factory struct {
	s        *Server
	opts     FactoryOptions
	contract *contract
	routes   []factoryRoute
	handlers map[string]func(*factoryRequest) reply // by operationId

	mu        sync.Mutex // guards what follows
	campaigns []*factoryCampaign
	users     map[int64]*factoryUser
	byEmail   map[factoryKey]int64
	byCode    map[string]int64
	order     []int64 // of users, oldest first; may hold some that are gone
	next      int64
	due       []*factoryReward
	issued    []*factoryReward
	rewards   int64
	recent    map[string][]time.Time // requests of the last minute by token
}

// factoryKey is what is there once.
type factoryKey struct {
	campaign int64
	email    string // in lower case
}

// factoryRoute is a path of the description with its variable.
type factoryRoute struct {
	method   string
	segments []string // "{…}" is the variable
	*route
}

// factoryRequest is a request that fits a route.
type factoryRequest struct {
	*request
	variable string // of the path; empty: it has none
}

type factoryMeta struct {
	Field string  `json:"field"`
	Value *string `json:"value"`
}

type factoryReferrer struct {
	Field string `json:"field"`
	Value string `json:"value"`
}

type factoryAnalytics struct {
	Reach              int `json:"reach"`
	Referrals          int `json:"referrals"`
	QualifiedReferrals int `json:"qualified_referrals"`
}

type factoryLink struct {
	Src      string `json:"src"`
	Download string `json:"download"`
}

type factorySocial struct {
	Social string `json:"social"`
	URL    string `json:"url"`
}

type factorySharing struct {
	Socials []factorySocial `json:"socials"`
	Subject *string         `json:"subject"`
	Text    *string         `json:"text"`
}

type factoryPromotion struct {
	Code string `json:"code"`
}

// factoryUser is a user as the provider shows it.
type factoryUser struct {
	ID             int64             `json:"id"`
	CampaignID     int64             `json:"campaign_id"`
	ReferrerID     *int64            `json:"referrer_id"`
	FirstName      string            `json:"first_name"`
	Email          string            `json:"email"`
	Code           string            `json:"code"`
	URL            string            `json:"url"`
	Reach          int               `json:"reach"`
	Source         string            `json:"source"`
	Type           string            `json:"type"`
	IP             *string           `json:"ip"`
	Promotion      *factoryPromotion `json:"promotion"`
	QR             factoryLink       `json:"qr"`
	SignedUpAt     string            `json:"signed_up_at"`
	QualifiedAt    *string           `json:"qualified_at"`
	UnsubscribedAt *string           `json:"unsubscribed_at"`
	Meta           []factoryMeta     `json:"meta"`
	Sharing        factorySharing    `json:"sharing"`
	Analytics      *factoryAnalytics `json:"analytics,omitempty"`

	since  time.Time
	hidden bool
}

func (u *factoryUser) shows(now time.Time) bool { return !u.hidden && !now.Before(u.since) }

func newFactory(s *Server, opts FactoryOptions) *factory {
	if opts.PerMinute == 0 {
		opts.PerMinute = factoryPerMinute
	}
	f := &factory{s: s, opts: opts, contract: factoryContract()}
	f.handlers = map[string]func(*factoryRequest) reply{
		"createUser":           f.createUser,
		"getUser":              f.getUser,
		"updateUser":           f.updateUser,
		"deleteUser":           f.deleteUser,
		"listUsers":            f.listUsers,
		"searchUsers":          f.searchUsers,
		"setUserQualification": f.setUserQualification,
		"listCampaigns":        f.listCampaigns,
		"searchCampaigns":      f.searchCampaigns,
		"getCampaign":          f.getCampaign,
		"listDueRewards":       f.listDueRewards,
		"listIssuedRewards":    f.listIssuedRewards,
		"issueReward":          f.issueReward,
		"cancelReward":         f.cancelReward,
	}
	for _, at := range slices.Sorted(maps.Keys(f.contract.routes)) {
		method, path, _ := strings.Cut(at, " ")
		f.routes = append(f.routes, factoryRoute{method, strings.Split(path, "/"), f.contract.routes[at]})
	}
	// /users/search is not the user named search: paths without a variable come first.
	slices.SortStableFunc(f.routes, func(a, b factoryRoute) int {
		return cmp.Compare(a.variables(), b.variables())
	})
	f.reset()
	return f
}

var factoryContract = sync.OnceValue(func() *contract { return mustContract(referralfactory.Specification()) })

func (r factoryRoute) variables() (n int) {
	for _, s := range r.segments {
		if strings.HasPrefix(s, "{") {
			n++
		}
	}
	return n
}

// find gives the route of a request and the value of its variable, nil when there is none.
func (f *factory) find(r *http.Request) (*route, string) {
	segments := strings.Split(r.URL.Path, "/")
	for _, route := range f.routes {
		if route.method != r.Method || len(route.segments) != len(segments) {
			continue
		}
		variable, fits := "", true
		for i, s := range route.segments {
			if strings.HasPrefix(s, "{") && segments[i] != "" {
				variable = segments[i]
			} else if s != segments[i] {
				fits = false
				break
			}
		}
		if fits {
			return route.route, variable
		}
	}
	return nil, ""
}

// reset puts the data back as it was at the start.
func (f *factory) reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.campaigns = []*factoryCampaign{
		newFactoryCampaign(1, "Bring a friend", "bring"),
		newFactoryCampaign(2, "Bring a colleague", "colleague"),
	}
	f.users, f.byEmail, f.byCode, f.order = map[int64]*factoryUser{}, map[factoryKey]int64{}, map[string]int64{}, nil
	f.next = 77
	f.recent = map[string][]time.Time{}
	for _, u := range []struct{ name, email, code string }{
		{"Ines", "ines.duarte@example.com", "INES1042"},
		{"Ada", "ada.advocate@example.com", "ADA2026"},
	} {
		f.add(&factoryUser{CampaignID: 1, FirstName: u.name, Email: u.email, Code: u.code, Source: "Added", SignedUpAt: "2026-02-03"})
	}
	for _, e := range f.s.opts.Unsubscribed {
		u := f.add(&factoryUser{CampaignID: 1, FirstName: "Una", Email: string(e), Source: "Widget", SignedUpAt: "2026-02-03"})
		u.UnsubscribedAt = ptr("2026-03-01")
	}
	f.next = max(f.next, factoryFirst)
	f.rewards = 55
	f.due, f.issued = nil, nil
	f.reward(77)
}

// add takes a user in, under the next number and with what every user has.
func (f *factory) add(u *factoryUser) *factoryUser {
	u.ID = f.next
	f.next++
	if u.Code == "" {
		u.Code = f.code()
	}
	u.URL = "https://example.referral-factory.com/" + u.Code
	u.QR = factoryLink{Src: u.URL + "/qr-code", Download: u.URL + "/download-qr-code"}
	u.Sharing = factorySharing{Socials: []factorySocial{{Social: "email", URL: "https://referral-factory.com/" + u.Code + "/socials/email"}}}
	u.Type = "person_referring"
	if u.ReferrerID != nil {
		u.Type = "person_invited"
	}
	if u.Meta == nil {
		u.Meta = []factoryMeta{}
	}
	f.users[u.ID] = u
	f.byEmail[factoryKey{u.CampaignID, strings.ToLower(u.Email)}] = u.ID
	f.byCode[u.Code] = u.ID
	f.order = append(f.order, u.ID)
	return u
}

// code makes up a code that nobody has.
func (f *factory) code() string {
	const letters = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ"
	for {
		var b [8]byte
		for i := range b {
			b[i] = letters[rand.IntN(len(letters))]
		}
		if _, there := f.byCode[string(b[:])]; !there {
			return string(b[:])
		}
	}
}

// factoryError is an error as the provider writes it.
type factoryError struct {
	Code    int                            `json:"code"`
	Message string                         `json:"message"`
	Errors  map[string][]factoryFieldError `json:"errors,omitempty"`
}

type factoryFieldError struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

func (f *factory) failure(status int, words string) reply {
	return reply{status: status, body: factoryError{Code: status, Message: words}}
}

// invalid is the provider's word that fields are wrong, as pairs of field and message.
func (f *factory) invalid(pairs ...string) reply {
	e := factoryError{Code: http.StatusUnprocessableEntity, Message: "Validation errors in your request", Errors: map[string][]factoryFieldError{}}
	for i := 0; i+1 < len(pairs); i += 2 {
		e.Errors[pairs[i]] = append(e.Errors[pairs[i]], factoryFieldError{pairs[i], pairs[i+1]})
	}
	return reply{status: e.Code, body: e}
}

func (f *factory) notFound() reply { return f.failure(http.StatusNotFound, "Not found") }

// match implements emulated.
func (f *factory) match(req *request) (operation string, emails []string, externalID string) {
	route, variable := f.find(req.Request)
	if route != nil {
		operation = route.operation
	}
	if variable != "" && strings.Contains(req.URL.Path, "/users/") {
		f.mu.Lock()
		if u := f.user(variable); u != nil {
			emails = append(emails, u.Email)
		}
		f.mu.Unlock()
	}
	var body struct {
		Email   string          `json:"email"`
		ID      int64           `json:"id"`
		Code    string          `json:"code"`
		Filters json.RawMessage `json:"filters"`
	}
	if json.Unmarshal(req.body, &body) != nil {
		return operation, emails, ""
	}
	if body.Email != "" {
		emails = append(emails, body.Email)
	}
	if operation == "setUserQualification" && body.Email == "" {
		f.mu.Lock()
		if u := f.named(body.ID, body.Code); u != nil {
			emails = append(emails, u.Email)
		}
		f.mu.Unlock()
	}
	var group factoryFilters
	if json.Unmarshal(body.Filters, &group) == nil {
		for _, filter := range group.Value {
			if filter.Field == "email" {
				emails = append(emails, filter.Value)
			}
		}
	}
	return operation, emails, ""
}

// serve implements emulated.
func (f *factory) serve(req *request) reply {
	token, ok := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
	if !ok || strings.TrimSpace(token) == "" {
		req.seen.Violation = "it carries no bearer token"
	}
	if !ok || !accepts(f.opts.APIKey, strings.TrimSpace(token)) {
		return f.failure(http.StatusUnauthorized, "Unauthenticated.")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.tooMany(token, time.Now()) {
		req.seen.Violation = "more requests within a minute than the provider allows"
		return f.failure(http.StatusTooManyRequests, "Too Many Requests")
	}
	route, variable := f.find(req.Request)
	if route == nil {
		req.seen.Violation = "the description has no such path and method"
		return f.notFound()
	}
	if err := route.check(req); err != nil {
		req.seen.Violation = err.Error()
		return f.wrong(route, req, err)
	}
	return f.handlers[route.operation](&factoryRequest{req, variable})
}

// tooMany counts a request of a token, and says whether it is over the limit.
func (f *factory) tooMany(token string, now time.Time) bool {
	if f.opts.PerMinute < 0 {
		return false
	}
	if len(f.recent) > 1000 { // more tokens than anyone has; somebody plays
		clear(f.recent)
	}
	recent := f.recent[token]
	past := 0
	for past < len(recent) && now.Sub(recent[past]) > time.Minute {
		past++
	}
	recent = recent[past:]
	over := len(recent) >= f.opts.PerMinute
	if !over {
		recent = append(recent, now)
	}
	f.recent[token] = recent
	return over
}

// wrong answers a request that breaks the description: a body that lacks something, or holds an address
// that is none, as the provider's validation does, anything else with 400.
func (f *factory) wrong(route *route, req *request, err error) reply {
	var body map[string]any
	if route.body == nil || json.Unmarshal(req.body, &body) != nil || body == nil {
		return f.failure(http.StatusBadRequest, "The request is invalid: "+err.Error()+".")
	}
	var complaints []string
	for _, field := range factoryRequired[route.operation] {
		if v := body[field]; v == nil || v == "" {
			complaints = append(complaints, field, "The "+strings.ReplaceAll(field, "_", " ")+" field is required.")
		}
	}
	if text, given := body["email"].(string); given && text != "" {
		if _, err := lodestone.ParseEmail(text); err != nil {
			complaints = append(complaints, "email", "The email must be a valid email address.")
		}
	}
	if len(complaints) == 0 {
		return f.failure(http.StatusBadRequest, "The request is invalid: "+err.Error()+".")
	}
	return f.invalid(complaints...)
}

// factoryRequired are the fields without which a body is refused by name.
var factoryRequired = map[string][]string{
	"createUser":           {"campaign_id", "first_name", "email"},
	"setUserQualification": {"qualified"},
	"searchUsers":          {"filters"},
}

// user finds one by number or by code.
func (f *factory) user(identifier string) *factoryUser {
	if id, err := strconv.ParseInt(identifier, 10, 64); err == nil {
		if u := f.users[id]; u != nil {
			return u
		}
	}
	return f.users[f.byCode[identifier]]
}

// named finds one by number, or by code when there is no number.
func (f *factory) named(id int64, code string) *factoryUser {
	if id != 0 {
		return f.users[id]
	}
	return f.users[f.byCode[code]]
}

func (f *factory) campaign(id int64) *factoryCampaign {
	i := slices.IndexFunc(f.campaigns, func(c *factoryCampaign) bool { return c.ID == id })
	if i < 0 {
		return nil
	}
	return f.campaigns[i]
}

// effect notes that a request was acted on.
func (f *factory) effect(req *factoryRequest, u *factoryUser) {
	req.seen.Effect = true
	req.seen.Unsubscribed = u.UnsubscribedAt != nil
	f.s.effect(req.seen.Operation, u.Email, "")
}

func (f *factory) unreadable(req *factoryRequest) reply {
	req.seen.Violation = "a value in the body is out of bounds"
	return f.failure(http.StatusBadRequest, "The request is invalid.")
}
