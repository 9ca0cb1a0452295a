package sandbox

import (
	"cmp"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/lodestonehq/lodestone/connectors/referralrock/api"
)

// wireTime is how Referral Rock writes times: whole seconds, no zone.
const wireTime = "2006-01-02T15:04:05"

// defaultCount is the provider's page size when the request names none.
const defaultCount = 30

// rock is Referral Rock.
type rock struct {
	s        *Server
	contract *contract
	handlers map[string]func(*request) reply // by operationId

	mu           sync.Mutex // guards what follows
	programs     []api.Program
	members      *table[api.Member]
	referrals    *table[api.Referral]
	unsubscribed map[string]bool // by address in lower case
	codes        int             // that were made up
}

func memberKeys(m api.Member) []string {
	return keys(key("email", &m.Email), key("id", &m.Id), key("code", &m.ReferralCode), key("external", m.ExternalIdentifier))
}

func referralKeys(v api.Referral) []string {
	return keys(key("email", v.Email), key("id", &v.Id), key("code", v.MemberReferralCode), key("external", v.ExternalIdentifier), key("phone", v.PhoneNumber))
}

// anyKey are the keys under which a list's query may find a row.
func anyKey(query string) []string {
	return keys(key("email", &query), key("id", &query), key("code", &query), key("external", &query))
}

func newRock(s *Server, c *contract) *rock {
	r := &rock{s: s, contract: c}
	r.handlers = map[string]func(*request) reply{
		"createInviteFeedEntry":   r.createInviteFeedEntry,
		"createInviteFeedEntries": r.createInviteFeedEntries,
		"createReferral":          r.createReferral,
		"createMember":            r.createMember,
		"getReferral":             r.getReferral,
		"listReferrals":           r.listReferrals,
		"listMembers":             r.listMembers,
		"getEmailUnsubscribed":    r.getEmailUnsubscribed,
		"unsubscribeEmail":        r.unsubscribeEmail,
		"removeEmailUnsubscribe":  r.removeEmailUnsubscribe,
		"listPrograms":            r.listPrograms,
		"getProgram":              r.getProgram,
	}
	r.reset()
	return r
}

// reset puts the data back as it was at the start.
func (r *rock) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	program := api.Program{
		Id: "6f1d2c44-0a7e-4c55-9a51-2f9f6d1f0b10", Name: "customers-2026", IsActive: true,
		Title: ptr("Bring a friend"), Type: ptr("Web"), MemberOffer: ptr("20 EUR credit"), ReferralOffer: ptr("10 % off"),
		DirectUrl: ptr("https://refer.example.com/customers-2026"), WidgetUrl: ptr("https://refer.example.com/w/customers-2026"),
	}
	r.programs, r.codes = []api.Program{program}, 0
	r.members, r.referrals = newTable(memberKeys), newTable(referralKeys)
	for _, m := range []struct{ id, first, last, email, code string }{
		{"b0c3a9de-7a0b-4f0e-8e6c-3d7c0f6f5a01", "Ines", "Duarte", "ines.duarte@example.com", "INES1042"},
		{"b0c3a9de-7a0b-4f0e-8e6c-3d7c0f6f5a02", "Ada", "Advocate", "ada.advocate@example.com", "ADA2026"},
	} {
		v := newMember(program, m.id, m.first, &m.last, m.email, m.code, "Activated", time.Date(2026, 2, 3, 14, 5, 9, 0, time.UTC))
		r.members.add(stored[api.Member]{v: v})
	}
	r.unsubscribed = map[string]bool{}
	for _, e := range r.s.opts.Unsubscribed {
		r.unsubscribed[strings.ToLower(string(e))] = true
	}
}

func ptr[T any](v T) *T { return &v }

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
		Email              string `json:"email"`
		ExternalIdentifier string `json:"externalIdentifier"`
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
		if k.Email != "" {
			emails = append(emails, k.Email)
		}
		externalID = cmp.Or(externalID, k.ExternalIdentifier)
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
		req.seen.Violation = err.Error()
		return r.failure(http.StatusBadRequest, "The request is invalid: "+err.Error()+".")
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

// decode reads a body that was checked before. Little can still be wrong with it, a number beyond all
// bounds for one.
func decode[T any](req *request) (v T, ok bool) {
	return v, json.Unmarshal(req.body, &v) == nil
}

func (r *rock) unreadable(req *request) reply {
	req.seen.Violation = "a value in the body is out of bounds"
	return r.failure(http.StatusBadRequest, "The request is invalid.")
}

// effect notes that a request was acted on.
func (r *rock) effect(req *request, email, externalID string) {
	req.seen.Effect = true
	if r.unsubscribed[strings.ToLower(email)] {
		req.seen.Unsubscribed = true
	}
	r.s.effect(req.seen.Operation, email, externalID)
}

// made wraps something new with when it begins to show.
func made[T any](s *Server, v T, now time.Time) stored[T] {
	set := s.Settings()
	return stored[T]{v: v, since: now.Add(set.VisibleAfter), hidden: set.Hidden}
}

func newMember(p api.Program, id, first string, last *string, email, code, status string, at time.Time) api.Member {
	name := strings.TrimSpace(first + " " + value(last))
	return api.Member{
		Id: id, ProgramId: p.Id, ProgramName: ptr(p.Name), ProgramTitle: p.Title, Email: email,
		FirstName: ptr(first), LastName: ptr(value(last)), DisplayName: &name, Status: &status,
		ReferralCode: code, ReferralUrl: ptr("https://refer.example.com/l/" + code + "/"),
		CreateDt: ptr(at.UTC().Format(wireTime)), DisabledFlag: ptr(false),
		Referrals: ptr(0), Views: ptr(0), EmailShares: ptr(0), SocialShares: ptr(0),
	}
}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// code makes up a referral code from a name: letters, then a number that no other member has.
func (r *rock) code(first string) string {
	letters := strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' {
			return c - 'a' + 'A'
		}
		if c >= 'A' && c <= 'Z' {
			return c
		}
		return -1
	}, first)
	if len(letters) > 8 {
		letters = letters[:8]
	}
	r.codes++
	return cmp.Or(letters, "MEMBER") + strconv.Itoa(2000+r.codes)
}

func (r *rock) memberByEmail(program, email string) bool {
	return slices.ContainsFunc(r.members.find(key("email", &email)), func(m stored[api.Member]) bool {
		return m.v.ProgramId == program
	})
}

func (r *rock) invite(req *request, e api.InviteFeedEntry) api.InviteFeedResult {
	r.effect(req, e.Email, "")
	p := r.programs[0]
	if r.memberByEmail(p.Id, e.Email) {
		return api.InviteFeedResult{Email: &e.Email, Outcome: ptr("Skipped"), Message: ptr("Already a member")}
	}
	now := time.Now()
	m := newMember(p, newID(), e.FirstName, e.LastName, e.Email, r.code(e.FirstName), "Invited", now)
	r.members.add(made(r.s, m, now))
	return api.InviteFeedResult{Email: &e.Email, Outcome: ptr("MemberPreloaded")}
}

func (r *rock) createInviteFeedEntry(req *request) reply {
	entry, ok := decode[api.InviteFeedEntry](req)
	if !ok {
		return r.unreadable(req)
	}
	return reply{status: http.StatusOK, body: r.invite(req, entry)}
}

func (r *rock) createInviteFeedEntries(req *request) reply {
	entries, ok := decode[[]api.InviteFeedEntry](req)
	if !ok {
		return r.unreadable(req)
	}
	results := []api.InviteFeedResult{}
	for _, e := range entries {
		results = append(results, r.invite(req, e))
	}
	return reply{status: http.StatusOK, body: results}
}

func (r *rock) createMember(req *request) reply {
	in, ok := decode[api.NewMember](req)
	if !ok {
		return r.unreadable(req)
	}
	i := slices.IndexFunc(r.programs, func(p api.Program) bool { return p.Id == in.ProgramId || p.Name == in.ProgramId })
	if i < 0 {
		return r.failure(http.StatusNotFound, "Program not found")
	}
	p := r.programs[i]
	if r.memberByEmail(p.Id, in.Email) {
		return r.failure(http.StatusBadRequest, "Member already exists")
	}
	r.effect(req, in.Email, value(in.ExternalIdentifier))
	now := time.Now()
	m := newMember(p, newID(), in.FirstName, in.LastName, in.Email, cmp.Or(value(in.ReferralCode), r.code(in.FirstName)), "Preloaded", now)
	m.ExternalIdentifier, m.Country = in.ExternalIdentifier, in.Country
	r.members.add(made(r.s, m, now))
	return reply{status: http.StatusCreated, body: api.MemberConfirmation{Message: ptr("Member Added"), Member: m}}
}

func (r *rock) createReferral(req *request) reply {
	in, ok := decode[api.NewReferral](req)
	if !ok {
		return r.unreadable(req)
	}
	members := r.members.find(key("code", &in.ReferralCode))
	if len(members) == 0 {
		return r.failure(http.StatusNotFound, "Member not found")
	}
	by := members[0].v
	if r.duplicate(by.ProgramId, in) {
		switch r.s.Settings().Duplicates {
		case DuplicatesBlock:
			return r.failure(http.StatusBadRequest, "Duplicate referral")
		case DuplicatesRefuse:
			return reply{status: http.StatusOK, body: map[string]any{"message": "Duplicate referral", "referral": nil}}
		}
	}
	r.effect(req, value(in.Email), value(in.ExternalIdentifier))
	now := time.Now()
	at := now.UTC().Format(wireTime)
	name := strings.TrimSpace(value(in.FirstName) + " " + value(in.LastName))
	status := "pending"
	if in.Status != nil {
		status = string(*in.Status)
	}
	ref := api.Referral{
		Id: newID(), DisplayName: &name, FullName: &name, FirstName: in.FirstName, LastName: in.LastName, Email: in.Email,
		ExternalIdentifier: in.ExternalIdentifier, PhoneNumber: in.PhoneNumber, Amount: ptr(0.0), CompanyName: in.CompanyName,
		Note: in.Note, PublicNote: in.PublicNote, CreateDate: &at, UpdateDate: &at, Source: ptr("API"), Status: status,
		ProgramId: by.ProgramId, ProgramName: by.ProgramName, ProgramTitle: by.ProgramTitle,
		ReferringMemberId: by.Id, ReferringMemberName: by.DisplayName, MemberEmail: &by.Email, MemberReferralCode: &by.ReferralCode,
		MemberExternalIdentifier: by.ExternalIdentifier,
	}
	if in.Amount != nil {
		ref.Amount = in.Amount
	}
	if in.PreferredContact != nil {
		ref.PreferredContact = ptr(string(*in.PreferredContact))
	}
	r.referrals.add(made(r.s, ref, now))
	return reply{status: http.StatusOK, body: api.ReferralConfirmation{Message: ptr("Referral Added"), Referral: &ref}}
}

// duplicate is the program's fraud rule: by address, external id or phone.
func (r *rock) duplicate(program string, in api.NewReferral) bool {
	same := r.referrals.find(keys(key("email", in.Email), key("external", in.ExternalIdentifier), key("phone", in.PhoneNumber))...)
	return slices.ContainsFunc(same, func(s stored[api.Referral]) bool { return s.v.ProgramId == program })
}

func (r *rock) getReferral(req *request) reply {
	q, now := req.URL.Query(), time.Now()
	email, id, external := q.Get("email"), q.Get("referralId"), q.Get("externalId")
	if email == "" && id == "" && external == "" {
		return r.failure(http.StatusBadRequest, "Give an email, a referralId or an externalId")
	}
	rows := r.referrals.find(keys(key("email", &email), key("id", &id), key("external", &external))...)
	for _, s := range slices.Backward(rows) {
		if s.shows(now) &&
			(email == "" || strings.EqualFold(value(s.v.Email), email)) &&
			(id == "" || s.v.Id == id) &&
			(external == "" || value(s.v.ExternalIdentifier) == external) {
			return reply{status: http.StatusOK, body: s.v}
		}
	}
	return r.failure(http.StatusNotFound, "Referral not found")
}

// page selects which rows show and fit, in the order wanted, and cuts out the page that is asked for.
func page[T any](req *request, all []stored[T], fits func(T) bool) (items []T, offset, total int) {
	q, now := req.URL.Query(), time.Now()
	items = []T{}
	for _, s := range all {
		if s.shows(now) && fits(s.v) {
			items = append(items, s.v)
		}
	}
	if q.Get("sort") != "Create_Dt_Asc" {
		slices.Reverse(items)
	}
	total = len(items)
	offset, _ = strconv.Atoi(q.Get("offset"))
	offset = max(0, offset)
	count, err := strconv.Atoi(q.Get("count"))
	if err != nil || count < 1 {
		count = defaultCount
	}
	from := min(offset, total)
	return items[from : from+min(count, total-from)], offset, total
}

func (r *rock) listMembers(req *request) reply {
	query, program := req.URL.Query().Get("query"), req.URL.Query().Get("programId")
	rows := r.members.rows
	if query != "" {
		rows = r.members.find(anyKey(query)...)
	}
	members, offset, total := page(req, rows, func(m api.Member) bool {
		return inProgram(program, m.ProgramId, m.ProgramName, m.ProgramTitle)
	})
	return reply{status: http.StatusOK, body: api.MemberSet{Offset: &offset, Total: &total, Members: members}}
}

func (r *rock) listReferrals(req *request) reply {
	q := req.URL.Query()
	query, program, member, status := q.Get("query"), q.Get("programId"), q.Get("memberId"), q.Get("status")
	rows := r.referrals.rows
	if query != "" {
		rows = r.referrals.find(anyKey(query)...)
	}
	referrals, offset, total := page(req, rows, func(v api.Referral) bool {
		return inProgram(program, v.ProgramId, v.ProgramName, v.ProgramTitle) &&
			(member == "" || v.ReferringMemberId == member) && (status == "" || strings.EqualFold(v.Status, status))
	})
	return reply{status: http.StatusOK, body: api.ReferralSet{Offset: &offset, Total: &total, Referrals: referrals}}
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
	programs, offset, total := page(req, all, func(p api.Program) bool { return id == "" || p.Id == id })
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

func (r *rock) getEmailUnsubscribed(req *request) reply {
	list := []string{}
	if email := strings.ToLower(req.URL.Query().Get("email")); email == "" {
		list = slices.AppendSeq(list, maps.Keys(r.unsubscribed))
		slices.Sort(list)
	} else if r.unsubscribed[email] {
		list = append(list, email)
	}
	return reply{status: http.StatusOK, body: list}
}

func (r *rock) unsubscribeEmail(req *request) reply {
	email, ok := decode[string](req)
	if !ok {
		return r.unreadable(req)
	}
	r.effect(req, email, "")
	r.unsubscribed[strings.ToLower(email)] = true
	return reply{status: http.StatusOK, body: map[string]any{"message": nil}}
}

func (r *rock) removeEmailUnsubscribe(req *request) reply {
	email, ok := decode[string](req)
	if !ok {
		return r.unreadable(req)
	}
	r.effect(req, email, "")
	req.seen.Unsubscribed = false // it is what the request is for
	delete(r.unsubscribed, strings.ToLower(email))
	return reply{status: http.StatusOK, body: map[string]any{"message": nil}}
}
