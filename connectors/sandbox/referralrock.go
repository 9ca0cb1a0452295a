package sandbox

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/lodestonehq/lodestone/connectors/referralrock/api"
)

// What Referral Rock does and nobody says is assumed here as follows, beside the settings of
// [Duplicates]:
//
//	removing       one of nothing or of several is refused for that item alone; what hangs on it stays
//	member         an address is a member once in each program
//	invite feed    a contact becomes a member of the first program; one who is there is skipped
//	status         every change that is not documented as impossible is possible
//	approval       pays the reward of the program's rule, which can be issued 30 days later
//	action         pays 5 % of its amount; one with a known externalIdentifier changes nothing
//	issued reward  cannot be issued again or removed
//	webhooks       every subscription is a new one; see hooks
//	dates          filters are in UTC; the first moment counts in, the last does not

// wireTime is how Referral Rock writes times: whole seconds, no zone.
const wireTime = "2006-01-02T15:04:05"

// defaultCount is the provider's page size when the request names none.
const defaultCount = 30

// rock is Referral Rock.
type rock struct {
	s        *Server
	contract *contract
	hooks    *hooks
	handlers map[string]func(*request) reply // by operationId

	mu           sync.Mutex // guards what follows
	programs     []api.Program
	rules        []api.RewardRule
	payouts      []api.Payout
	members      *table[api.Member]
	referrals    *table[api.Referral]
	rewards      *table[api.Reward]
	transactions []api.PayoutTransaction // oldest first
	actions      map[string]bool         // by program and external identifier
	unsubscribed map[string]bool         // by address in lower case
	codes        int                     // that were made up
}

func memberKeys(m api.Member) []string {
	return keys(key("email", &m.Email), key("id", &m.Id), key("code", &m.ReferralCode), key("external", m.ExternalIdentifier))
}

func referralKeys(v api.Referral) []string {
	return keys(key("email", v.Email), key("id", &v.Id), key("code", v.MemberReferralCode), key("external", v.ExternalIdentifier),
		key("phone", v.PhoneNumber), key("member", &v.ReferringMemberId))
}

func rewardKeys(v api.Reward) []string {
	return keys(key("email", v.RecipientEmailAddress), key("id", &v.Id), key("external", v.RecipientExternalIdentifier),
		key("recipient", v.RecipientId))
}

// anyKey are the keys under which a list's query may find a row.
func anyKey(query string) []string {
	return keys(key("email", &query), key("id", &query), key("code", &query), key("external", &query))
}

func newRock(s *Server, c *contract) *rock {
	r := &rock{s: s, contract: c, hooks: newRockHooks(s.opts.Keep)}
	r.handlers = map[string]func(*request) reply{
		"listPrograms":            r.listPrograms,
		"getProgram":              r.getProgram,
		"listMembers":             r.listMembers,
		"createMember":            r.createMember,
		"removeMembers":           r.removeMembers,
		"deleteMembers":           r.removeMembers,
		"getMemberStats":          r.memberStats,
		"createMemberAccessUrls":  r.createMemberAccessUrls,
		"createInviteFeedEntry":   r.createInviteFeedEntry,
		"createInviteFeedEntries": r.createInviteFeedEntries,
		"listReferrals":           r.listReferrals,
		"getReferral":             r.getReferral,
		"createReferral":          r.createReferral,
		"updateReferrals":         r.updateReferrals,
		"updateReferralStatus":    r.updateReferralStatus,
		"removeReferrals":         r.removeReferrals,
		"deleteReferrals":         r.removeReferrals,
		"createReferralAction":    r.createReferralAction,
		"listRewards":             r.listRewards,
		"issueReward":             r.issueReward,
		"removeRewards":           r.removeRewards,
		"deleteRewards":           r.removeRewards,
		"listRewardRules":         r.listRewardRules,
		"getPayout":               r.getPayout,
		"listPendingPayouts":      r.listPendingPayouts,
		"listPayoutTransactions":  r.listPayoutTransactions,
		"getEmailUnsubscribed":    r.getEmailUnsubscribed,
		"unsubscribeEmail":        r.unsubscribeEmail,
		"removeEmailUnsubscribe":  r.removeEmailUnsubscribe,
		"deleteEmailUnsubscribe":  r.removeEmailUnsubscribe,
		"createHook":              r.createHook,
		"deleteHook":              r.deleteHook,
		"getHookHistory":          r.hookHistory,
	}
	r.reset()
	s.mux.HandleFunc("GET /_sandbox/hooks", func(w http.ResponseWriter, _ *http.Request) {
		send(w, reply{status: http.StatusOK, body: append(r.hooks.list("referralrock"), s.squatch.hooks.list("saasquatch")...)})
	})
	return r
}

// holds implements holder.
func (r *rock) holds() []holding {
	r.mu.Lock()
	defer r.mu.Unlock()
	return []holding{
		{"programs", len(r.programs)}, {"members", r.members.len()}, {"referrals", r.referrals.len()}, {"rewards", r.rewards.len()},
		{"transfers", len(r.transactions)}, {"unsubscribed", len(r.unsubscribed)}, {"webhooks", len(r.hooks.list(""))},
	}
}

func ptr[T any](v T) *T { return &v }

func value[T any](v *T) (zero T) {
	if v == nil {
		return zero
	}
	return *v
}

func (r *rock) failure(status int, words string) reply {
	return reply{status: status, body: map[string]string{"Message": words}}
}

// match implements emulated.
func (r *rock) match(req *request) (operation string, emails []string, externalID string) {
	if route := r.contract.find(req.Request); route != nil {
		operation = route.operation
	}
	q := req.URL.Query()
	externalID = q.Get("externalId")
	if e := cmp.Or(q.Get("email"), q.Get("query")); strings.Contains(e, "@") {
		emails = append(emails, e)
	}
	type keys struct {
		Email, EmailAddress, ReferralQuery, ExternalIdentifier string
		Query                                                  struct {
			SecondaryInfo struct{ Email, ExternalIdentifier string }
		}
	}
	var one keys
	var many []keys
	var bare string
	switch {
	case json.Unmarshal(req.body, &one) == nil:
		many = []keys{one}
	case json.Unmarshal(req.body, &many) == nil:
	case json.Unmarshal(req.body, &bare) == nil:
		many = []keys{{Email: bare}}
	}
	for _, k := range many {
		for _, e := range []string{k.Email, k.EmailAddress, k.ReferralQuery, k.Query.SecondaryInfo.Email} {
			if strings.Contains(e, "@") {
				emails = append(emails, e)
			}
		}
		externalID = cmp.Or(externalID, k.ExternalIdentifier, k.Query.SecondaryInfo.ExternalIdentifier)
	}
	return operation, emails, externalID
}

// serve implements emulated.
func (r *rock) serve(req *request) reply {
	route := r.contract.find(req.Request)
	if route == nil {
		req.seen.Violation = "the description has no such path and method"
		return r.failure(http.StatusNotFound, "No HTTP resource was found that matches the request URI.")
	}
	user, password, ok := req.BasicAuth()
	if !ok || user == "" || password == "" {
		req.seen.Violation = "it carries no Basic credentials"
	}
	if !ok || !accepts(r.s.opts.PublicKey, user) || !accepts(r.s.opts.PrivateKey, password) {
		return r.failure(http.StatusUnauthorized, "Authorization has been denied for this request.")
	}
	handle := r.handlers[route.operation]
	if handle == nil {
		return r.failure(http.StatusNotImplemented, "The sandbox does not emulate "+route.operation+".")
	}
	if err := route.check(req); err != nil {
		return r.wrong(req, err.Error())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return handle(req)
}

// accepts compares a credential; an empty wanted one accepts any that is not empty.
func accepts(wanted, got string) bool {
	if wanted == "" {
		return got != ""
	}
	return subtle.ConstantTimeCompare([]byte(wanted), []byte(got)) == 1
}

// wrong refuses a request that breaks the description.
func (r *rock) wrong(req *request, problem string) reply {
	req.seen.Violation = problem
	return r.failure(http.StatusBadRequest, "The request is invalid: "+problem+".")
}

// decode reads a body that was checked before. Little can still be wrong with it, a number beyond all
// bounds for one.
func decode[T any](req *request) (v T, ok bool) {
	return v, json.Unmarshal(req.body, &v) == nil
}

func (r *rock) unreadable(req *request) reply {
	req.seen.Violation = "a value in the body is out of bounds"
	return r.failure(http.StatusBadRequest, "The request is invalid.")
}

// maxAmount keeps sums of amounts far from the end of what JSON can say.
const maxAmount = 1e12

// sane says whether an amount can be worked with.
func sane(amount *float64) bool { return math.Abs(value(amount)) <= maxAmount }

// effect notes that a request was acted on in a way that the person hears of.
func (r *rock) effect(req *request, email, externalID string) {
	if r.unsubscribed[strings.ToLower(email)] {
		req.seen.Unsubscribed = true
	}
	r.quietly(req, email, externalID)
}

// quietly notes that a request was acted on.
func (r *rock) quietly(req *request, email, externalID string) {
	req.seen.Effect = true
	r.s.effect(req.seen.Operation, email, externalID)
}

// made wraps something new with when it begins to show.
func made[T any](s *Server, v T, now time.Time) stored[T] {
	set := s.Settings()
	return stored[T]{v: v, since: now.Add(set.VisibleAfter), hidden: set.Hidden}
}

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func stamp(at time.Time) *string { return ptr(at.UTC().Format(wireTime)) }

// program finds one by id, name or title, nil when there is none.
func (r *rock) program(wanted string) *api.Program {
	i := slices.IndexFunc(r.programs, func(p api.Program) bool { return inProgram(wanted, p.Id, &p.Name, p.Title) })
	if i < 0 || wanted == "" {
		return nil
	}
	return &r.programs[i]
}

func inProgram(wanted, id string, name, title *string) bool {
	return wanted == "" || wanted == id || wanted == value(name) || wanted == value(title)
}

func (r *rock) listPrograms(req *request) reply {
	id := req.URL.Query().Get("programId")
	all := make([]stored[api.Program], 0, len(r.programs))
	for _, p := range r.programs {
		all = append(all, stored[api.Program]{v: p})
	}
	programs, offset, total, _ := listing[api.Program]{fits: func(p api.Program) bool { return id == "" || p.Id == id }}.page(req, all)
	return reply{status: http.StatusOK, body: api.ProgramSet{Offset: &offset, Total: &total, Programs: programs}}
}

func (r *rock) getProgram(req *request) reply {
	name := req.URL.Query().Get("programName")
	for _, p := range r.programs {
		if p.Name == name {
			return reply{status: http.StatusOK, body: p}
		}
	}
	return r.failure(http.StatusNotFound, "Program not found")
}

// listing says how a kind of rows is listed.
type listing[T any] struct {
	fits    func(T) bool
	created func(T) *string             // for dateFrom and dateTo; nil: they do not apply
	orders  map[string]func(a, b T) int // ascending, by the name in the sort parameter, beyond creation
}

// page selects the rows that show and fit, in the order wanted, and cuts out the page that is asked
// for. An error names the parameter that cannot be read.
func (l listing[T]) page(req *request, all []stored[T]) (items []T, offset, total int, err error) {
	q, now := req.URL.Query(), time.Now()
	from, err := day(q.Get("dateFrom"), "dateFrom", time.Time{})
	if err != nil {
		return nil, 0, 0, err
	}
	to, err := day(q.Get("dateTo"), "dateTo", now.AddDate(1000, 0, 0))
	if err != nil {
		return nil, 0, 0, err
	}
	items = []T{}
	for _, s := range all {
		if !s.shows(now) || !l.fits(s.v) {
			continue
		}
		if l.created != nil {
			at, err := time.Parse(wireTime, value(l.created(s.v)))
			if err == nil && (at.Before(from) || !at.Before(to)) {
				continue
			}
		}
		items = append(items, s.v)
	}
	by, ascending := strings.CutSuffix(q.Get("sort"), "_Asc")
	if !ascending {
		slices.Reverse(items)
		by = strings.TrimSuffix(by, "_Desc")
	}
	if order := l.orders[by]; order != nil {
		slices.SortStableFunc(items, func(a, b T) int {
			if ascending {
				return order(a, b)
			}
			return order(b, a)
		})
	}
	total = len(items)
	offset, _ = strconv.Atoi(q.Get("offset"))
	offset = max(0, offset)
	count, err := strconv.Atoi(q.Get("count"))
	if err != nil || count < 1 {
		count = defaultCount
	}
	first := min(offset, total)
	return items[first : first+min(count, total-first)], offset, total, nil
}

// day reads the value of a date filter, in the forms that clients use.
func day(v, name string, otherwise time.Time) (time.Time, error) {
	if v == "" {
		return otherwise, nil
	}
	for _, layout := range []string{time.DateOnly, "01/02/2006 15:04:05", "01/02/2006", wireTime, time.RFC3339} {
		if t, err := time.Parse(layout, v); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("query parameter %s is no date such as 2026-11-20", name)
}

// strictly reads a part of a body whose keys are all known, in any letter case.
func strictly(raw json.RawMessage, into any) bool {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	return d.Decode(into) == nil
}

// given counts the values that there are.
func given(values ...*string) (n int) {
	for _, v := range values {
		if value(v) != "" {
			n++
		}
	}
	return n
}

// The words of a single item's outcome. Updates and removals use different ones on success.
const (
	itemUpdated = "Succeeded"
	itemDone    = "Success"
	itemFailed  = "Failed"
)

// only wants exactly one position: nothing is done to several.
func only(noun string, at []int) (int, string) {
	switch len(at) {
	case 1:
		return at[0], ""
	case 0:
		return -1, "No " + noun + " matches the query"
	}
	return -1, "More than one " + noun + " matches the query"
}
