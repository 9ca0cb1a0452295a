package sandbox

import (
	"cmp"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/lodestonehq/lodestone/connectors/saasquatch/api"
)

// squatchProgram is the one program there is.
const squatchProgram = "customers-2026"

// squatchUser is a person.
type squatchUser struct {
	squatchID
	First, Last, Email string
	Locale, Country    *string
	Referable          bool
	Created            time.Time
	Blocked            *time.Time
	Codes              map[string]string // by program
	Link               string
	Custom             map[string]any
	Segments           []string
	since              time.Time // when it begins to show in reads
	hidden             bool
}

// plainUser is a user as the endpoints for servers show them.
type plainUser struct {
	ID                string            `json:"id"`
	AccountID         string            `json:"accountId"`
	FirstName         string            `json:"firstName"`
	LastName          string            `json:"lastName"`
	LastInitial       string            `json:"lastInitial"`
	Email             string            `json:"email,omitempty"`
	EmailHash         string            `json:"emailHash,omitempty"`
	ImageURL          string            `json:"imageUrl"`
	ReferralCode      string            `json:"referralCode"`
	CookieID          *string           `json:"cookieId"`
	PaymentProviderID *string           `json:"paymentProviderId"`
	Locale            *string           `json:"locale"`
	CountryCode       *string           `json:"countryCode"`
	ReferralSource    *string           `json:"referralSource"`
	FirstSeenIP       *string           `json:"firstSeenIP"`
	LastSeenIP        *string           `json:"lastSeenIP"`
	DateCreated       int64             `json:"dateCreated"`
	DateBlocked       *int64            `json:"dateBlocked"`
	ShareLinks        map[string]string `json:"shareLinks"`
}

// openUser is a user as the open endpoints show them.
type openUser struct {
	ID                string                       `json:"id"`
	AccountID         string                       `json:"accountId"`
	FirstName         string                       `json:"firstName"`
	LastName          string                       `json:"lastName"`
	Email             string                       `json:"email,omitempty"`
	ImageURL          string                       `json:"imageUrl"`
	CookieID          *string                      `json:"cookieId"`
	Locale            *string                      `json:"locale"`
	CountryCode       *string                      `json:"countryCode"`
	Referable         bool                         `json:"referable"`
	FirstSeenIP       *string                      `json:"firstSeenIP"`
	LastSeenIP        *string                      `json:"lastSeenIP"`
	DateCreated       int64                        `json:"dateCreated"`
	ReferralCodes     map[string]string            `json:"referralCodes"`
	ProgramShareLinks map[string]map[string]string `json:"programShareLinks"`
	CustomFields      map[string]any               `json:"customFields"`
	Segments          []string                     `json:"segments"`
	ReferredByCodes   []string                     `json:"referredByCodes"`
}

func millis(t *time.Time) *int64 {
	if t == nil {
		return nil
	}
	return ptr(t.UnixMilli())
}

func initial(name string) string {
	r, n := utf8.DecodeRuneInString(name)
	if n == 0 {
		return ""
	}
	return strings.ToUpper(string(r))
}

func (u *squatchUser) code() string { return u.Codes[squatchProgram] }

// name is how others are told who refers them.
func (u *squatchUser) name() string { return strings.TrimSpace(u.First + " " + initial(u.Last)) }

func (u *squatchUser) shows(now time.Time) bool { return !u.hidden && !now.Before(u.since) }

func (u *squatchUser) plain() plainUser {
	hash := ""
	if u.Email != "" {
		sum := md5.Sum([]byte(strings.ToLower(u.Email)))
		hash = hex.EncodeToString(sum[:])
	}
	return plainUser{
		ID: u.user, AccountID: u.account, FirstName: u.First, LastName: u.Last, LastInitial: initial(u.Last), Email: u.Email,
		EmailHash: hash, ReferralCode: u.code(), Locale: u.Locale, CountryCode: u.Country,
		DateCreated: u.Created.UnixMilli(), DateBlocked: millis(u.Blocked), ShareLinks: map[string]string{"shareLink": u.Link},
	}
}

// openView is the open endpoints' view at a moment; the zero moment shows what reads do not show yet.
func (q *squatch) openView(u *squatchUser, now time.Time) openUser {
	by := []string{}
	for _, r := range q.referrals {
		if r.referred == u && (now.IsZero() || r.shows(now)) {
			by = append(by, r.code)
		}
	}
	return openUser{
		ID: u.user, AccountID: u.account, FirstName: u.First, LastName: u.Last, Email: u.Email, Locale: u.Locale, CountryCode: u.Country,
		Referable: u.Referable, DateCreated: u.Created.UnixMilli(), ReferralCodes: maps.Clone(u.Codes),
		ProgramShareLinks: map[string]map[string]string{squatchProgram: {"cleanShareLink": u.Link}},
		CustomFields:      maps.Clone(u.Custom), Segments: slices.Clone(u.Segments), ReferredByCodes: by,
	}
}

// newUser makes a user with a code, and remembers them.
func (q *squatch) newUser(id squatchID, now time.Time, code string) *squatchUser {
	q.made++
	shown := made(q.s, struct{}{}, now)
	u := &squatchUser{
		squatchID: id, Referable: true, Created: now, Codes: map[string]string{}, Custom: map[string]any{}, Segments: []string{},
		Link: "https://share.example.com/m" + strconv.FormatInt(int64(q.made)+35, 36), since: shown.since, hidden: shown.hidden,
	}
	q.users[id], q.order = u, append(q.order, id)
	q.setCode(u, squatchProgram, code)
	return u
}

func (q *squatch) setCode(u *squatchUser, program, code string) {
	if old := u.Codes[program]; old != "" {
		delete(q.codes, strings.ToLower(old))
	}
	u.Codes[program] = code
	q.codes[strings.ToLower(code)] = u
}

// inventCode makes up a code that nobody has: first name and initial, then a number if need be.
func (q *squatch) inventCode(first, last string) string {
	letters := strings.Map(func(c rune) rune {
		if c >= 'A' && c <= 'Z' {
			return c
		}
		return -1
	}, strings.ToUpper(first)+initial(last))
	letters = cmp.Or(clip(letters, 16), "USER")
	code := letters
	for n := q.made; q.codes[strings.ToLower(code)] != nil; n++ {
		code = letters + strconv.Itoa(n)
	}
	return code
}

// referrer finds whom a code refers by. Somebody who is blocked, or is the person, refers nobody.
func (q *squatch) referrer(code string, person squatchID) *squatchUser {
	u := q.codes[strings.ToLower(code)]
	if u == nil || u.Blocked != nil || u.account == person.account {
		return nil
	}
	return u
}

// upsert carries out the open create and the open upsert, which differ in their status alone.
func (q *squatch) upsert(r *squatchRequest, status int) reply {
	in, ok := decode[api.OpenUserUpsert](r.request)
	if !ok {
		return q.unreadable(r)
	}
	id := r.id()
	switch {
	case in.Id != id.user || in.AccountId != id.account:
		return q.bad(r, "id or accountId of the body is not the path's")
	case q.untracked[id]:
		return squatchFailure(http.StatusBadRequest, "The user asked not to be tracked.", "DO_NOT_TRACK", "")
	}
	for program, code := range entries(in.ReferralCodes) {
		if owner := q.codes[strings.ToLower(code)]; program == "" || code == "" || owner != nil && owner.squatchID != id {
			return squatchFailure(http.StatusBadRequest, "The referral code is not available.", "REFERRAL_CODE_TAKEN", "")
		}
	}
	by, refusal := q.referrers(in, id)
	if refusal != nil {
		return *refusal
	}
	now := time.Now()
	u := q.users[id]
	fresh := u == nil
	if fresh {
		u = q.newUser(id, now, q.inventCode(value(in.FirstName), value(in.LastName)))
	}
	q.change(u, in)
	if fresh {
		q.tell("user.created", u.plain())
	}
	for _, code := range by {
		q.refer(u, code, now)
	}
	q.effect(r, cmp.Or(u.Email, u.user), "")
	return q.wanted(r, status, q.openView(u, time.Time{}))
}

// entries is a map that may be missing.
func entries[K comparable, V any](m *map[K]V) map[K]V {
	if m == nil {
		return nil
	}
	return *m
}

// referrers says which of the codes of an upsert refer the person, or how the upsert is refused.
func (q *squatch) referrers(in api.OpenUserUpsert, id squatchID) (by []string, refusal *reply) {
	if in.ReferredByCodes == nil {
		return nil, nil
	}
	for _, code := range *in.ReferredByCodes {
		owner := q.referrer(code, id)
		switch {
		case owner == nil && q.set.UnknownCode == "ignore":
		case owner == nil:
			return nil, ptr(squatchFailure(http.StatusBadRequest, "Invalid referral code.", "INVALID_REFERRAL_CODE", "RS034"))
		case in.Referable != nil && !*in.Referable:
		case !q.referred[id.account] && len(by) == 0:
			by = append(by, owner.code())
		case q.hasReferral(id, owner.code()), len(by) > 0:
		case q.set.SecondCode == "refuse":
			return nil, ptr(squatchFailure(http.StatusBadRequest, "The account has been referred already.", "ALREADY_REFERRED", ""))
		case q.set.SecondCode == "replace":
			by = append(by, owner.code())
		}
	}
	return by, nil
}

func (q *squatch) change(u *squatchUser, in api.OpenUserUpsert) {
	for to, from := range map[*string]*string{&u.First: in.FirstName, &u.Last: in.LastName, &u.Email: in.Email} {
		if from != nil {
			*to = *from
		}
	}
	if in.Locale != nil {
		u.Locale = in.Locale
	}
	if in.CountryCode != nil {
		u.Country = in.CountryCode
	}
	if in.Referable != nil {
		u.Referable = *in.Referable
	}
	for program, code := range entries(in.ReferralCodes) {
		q.setCode(u, program, code)
	}
	maps.Copy(u.Custom, entries(in.CustomFields))
	if in.Segments != nil {
		for _, s := range *in.Segments {
			name, leave := strings.CutPrefix(s, "~")
			u.Segments = slices.DeleteFunc(u.Segments, func(have string) bool { return have == name })
			if !leave {
				u.Segments = append(u.Segments, name)
			}
		}
	}
}

// wanted leaves of an open view what the query asks for. Everything there is belongs to the default,
// so extraFields adds nothing.
func (q *squatch) wanted(r *squatchRequest, status int, v openUser) reply {
	fields := r.URL.Query().Get("fields")
	if fields == "" {
		return reply{status: status, body: v}
	}
	raw, err := json.Marshal(v)
	if err != nil { // our own type, and what came in as JSON
		panic("sandbox: " + err.Error())
	}
	all, some := map[string]json.RawMessage{}, map[string]json.RawMessage{}
	_ = json.Unmarshal(raw, &all) // it was made of an object a line ago
	for name := range strings.SplitSeq(fields, ",") {
		if v, ok := all[strings.TrimSpace(name)]; ok {
			some[strings.TrimSpace(name)] = v
		}
	}
	return reply{status: status, body: some}
}

func (q *squatch) bothFields(r *squatchRequest) bool {
	query := r.URL.Query()
	return query.Get("fields") != "" && query.Get("extraFields") != ""
}

const bothFields = "fields and extraFields exclude each other"

func (q *squatch) openUserUpsert(r *squatchRequest) reply {
	if q.bothFields(r) {
		return q.bad(r, bothFields)
	}
	return q.upsert(r, http.StatusOK)
}

func (q *squatch) openCreateUser(r *squatchRequest) reply {
	if q.bothFields(r) {
		return q.bad(r, bothFields)
	}
	return q.upsert(r, http.StatusCreated)
}

// shown finds a user whom reads show.
func (q *squatch) shown(id squatchID) *squatchUser {
	if u := q.users[id]; u != nil && u.shows(time.Now()) {
		return u
	}
	return nil
}

func (q *squatch) openGetUser(r *squatchRequest) reply {
	if q.bothFields(r) {
		return q.bad(r, bothFields)
	}
	u := q.shown(r.id())
	if u == nil {
		return q.noUser()
	}
	return q.wanted(r, http.StatusOK, q.openView(u, time.Now()))
}

// openDeleteUser deletes a user, with the referral of which they are the referred side. The account
// may be referred anew, unless it is kept or has more users.
func (q *squatch) openDeleteUser(r *squatchRequest) reply {
	id := r.id()
	u := q.users[id]
	if u == nil {
		return q.noUser()
	}
	query := r.URL.Query()
	delete(q.users, id)
	q.order = slices.DeleteFunc(q.order, func(o squatchID) bool { return o == id })
	for _, code := range u.Codes {
		delete(q.codes, strings.ToLower(code))
	}
	q.referrals = slices.DeleteFunc(q.referrals, func(ref *squatchReferral) bool { return ref.referred == u })
	others := slices.ContainsFunc(q.order, func(o squatchID) bool { return o.account == id.account })
	if !others && query.Get("preserveEmptyAccount") != "true" {
		delete(q.referred, id.account)
	}
	if query.Get("doNotTrack") == "true" {
		q.untracked[id] = true
	}
	q.effect(r, cmp.Or(u.Email, u.user), "")
	return bodiless(http.StatusNoContent)
}

// createUser is the upsert that cannot refer anybody.
func (q *squatch) createUser(r *squatchRequest) reply {
	in, ok := decode[api.UserStub](r.request)
	if !ok {
		return q.unreadable(r)
	}
	id := squatchID{in.AccountId, in.Id}
	if in.ReferralCode != nil {
		if owner := q.codes[strings.ToLower(*in.ReferralCode)]; *in.ReferralCode == "" || owner != nil && owner.squatchID != id {
			return squatchFailure(http.StatusBadRequest, "The referral code is not available.", "REFERRAL_CODE_TAKEN", "")
		}
	}
	u := q.users[id]
	fresh := u == nil
	if fresh {
		u = q.newUser(id, time.Now(), q.inventCode(value(in.FirstName), value(in.LastName)))
	}
	q.change(u, api.OpenUserUpsert{
		FirstName: in.FirstName, LastName: in.LastName, Email: in.Email, Locale: in.Locale, CountryCode: in.CountryCode, CustomFields: in.CustomFields,
	})
	if in.ReferralCode != nil {
		q.setCode(u, squatchProgram, *in.ReferralCode)
	}
	if fresh {
		q.tell("user.created", u.plain())
	}
	q.effect(r, cmp.Or(u.Email, u.user), "")
	return reply{status: http.StatusOK, body: u.plain()}
}

func (q *squatch) getUser(r *squatchRequest) reply {
	u := q.shown(r.id())
	if u == nil {
		return q.noUser()
	}
	return reply{status: http.StatusOK, body: u.plain()}
}

// owner finds who has a code, if reads show them.
func (q *squatch) owner(code string) *squatchUser {
	if u := q.codes[strings.ToLower(code)]; u != nil && u.shows(time.Now()) {
		return u
	}
	return nil
}

func (q *squatch) findUserByReferralCode(r *squatchRequest) reply {
	u := q.owner(r.URL.Query().Get("referralCode"))
	if u == nil {
		return q.noCode()
	}
	return reply{status: http.StatusOK, body: u.plain()}
}

func (q *squatch) openGetUserByCode(r *squatchRequest) reply {
	u := q.owner(r.URL.Query().Get("referralCode"))
	if u == nil {
		return q.noCode()
	}
	p := u.plain()
	return reply{status: http.StatusOK, body: map[string]string{
		"id": p.ID, "accountId": p.AccountID, "firstName": p.FirstName, "lastInitial": p.LastInitial,
		"referralCode": p.ReferralCode, "imageUrl": p.ImageURL,
	}}
}

func (q *squatch) blockUser(r *squatchRequest) reply {
	u := q.users[r.id()]
	switch {
	case u == nil:
		return q.noUser()
	case u.Blocked != nil:
		return squatchFailure(http.StatusForbidden, "The user is blocked already.", "USER_BLOCKED", "")
	}
	u.Blocked = ptr(time.Now())
	q.effect(r, cmp.Or(u.Email, u.user), "")
	return reply{status: http.StatusOK, body: u.plain()}
}

func (q *squatch) unblockUser(r *squatchRequest) reply {
	u := q.users[r.id()]
	if u == nil {
		return q.noUser()
	}
	u.Blocked = nil
	q.effect(r, cmp.Or(u.Email, u.user), "")
	return reply{status: http.StatusOK, body: u.plain()}
}

func (q *squatch) listUsers(r *squatchRequest) reply {
	query, now := strings.ToLower(r.URL.Query().Get("query")), time.Now()
	users := []plainUser{}
	for _, id := range q.order {
		u := q.users[id]
		if !u.shows(now) {
			continue
		}
		text := strings.ToLower(strings.Join([]string{u.Email, u.First + " " + u.Last, u.user}, "\n"))
		if strings.Contains(text, query) {
			users = append(users, u.plain())
		}
	}
	users, total := squatchPage(r, users)
	return reply{status: http.StatusOK, body: map[string]any{"count": len(users), "totalCount": total, "users": users}}
}

// squatchPage cuts out the page that is asked for: ten from the first on, unless the query says
// otherwise.
func squatchPage[T any](r *squatchRequest, all []T) (some []T, total int) {
	limit, offset := 10, 0
	if n, err := strconv.Atoi(r.URL.Query().Get("limit")); err == nil && n > 0 {
		limit = n
	}
	if n, err := strconv.Atoi(r.URL.Query().Get("offset")); err == nil && n > 0 {
		offset = n
	}
	from := min(offset, len(all))
	return all[from : from+min(limit, len(all)-from)], len(all)
}
