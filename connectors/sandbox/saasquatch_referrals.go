package sandbox

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone/connectors/saasquatch/api"
)

// idempotencyKept is how long an idempotency key is remembered at least; the sandbox takes the least.
const idempotencyKept = 24 * time.Hour

// The moderation statuses of each side of a referral.
const (
	squatchPending  = "PENDING"
	squatchApproved = "APPROVED"
	squatchDenied   = "DENIED"
)

// squatchReferral links two people.
type squatchReferral struct {
	id, code           string
	referred, referrer *squatchUser
	referredStatus     string
	referrerStatus     string
	started, modified  time.Time
	moderated          *time.Time
	converted          *time.Time
	since              time.Time // when it begins to show in reads
	hidden             bool
}

func (r *squatchReferral) shows(now time.Time) bool { return !r.hidden && !now.Before(r.since) }

// wireReferral is a referral as it is shown.
type wireReferral struct {
	ID                       string    `json:"id"`
	ReferredUser             plainUser `json:"referredUser"`
	ReferrerUser             plainUser `json:"referrerUser"`
	ReferrerReward           any       `json:"referrerReward"`
	ReferralCodeUsed         string    `json:"referralCodeUsed"`
	ShareLinkUsed            *string   `json:"shareLinkUsed"`
	ModerationStatus         string    `json:"moderationStatus"`
	ReferredModerationStatus string    `json:"referredModerationStatus"`
	ReferrerModerationStatus string    `json:"referrerModerationStatus"`
	FraudSignals             any       `json:"fraudSignals"`
	DateReferralStarted      int64     `json:"dateReferralStarted"`
	DateReferralPaid         *int64    `json:"dateReferralPaid"`
	DateReferralEnded        *int64    `json:"dateReferralEnded"`
	DateModerated            *int64    `json:"dateModerated"`
	DateConverted            *int64    `json:"dateConverted"`
	DateModified             int64     `json:"dateModified"`
	DateUserModified         *int64    `json:"dateUserModified"`
	ProgramID                string    `json:"programId"`
}

func (r *squatchReferral) wire() wireReferral {
	w := wireReferral{
		ID: r.id, ReferredUser: r.referred.plain(), ReferrerUser: r.referrer.plain(), ReferralCodeUsed: r.code,
		ModerationStatus: squatchPending, ReferredModerationStatus: r.referredStatus, ReferrerModerationStatus: r.referrerStatus,
		DateReferralStarted: r.started.UnixMilli(), DateModerated: millis(r.moderated), DateConverted: millis(r.converted), DateModified: r.modified.UnixMilli(),
		ProgramID: squatchProgram,
	}
	if r.referredStatus != squatchPending && r.referrerStatus != squatchPending {
		w.ModerationStatus = "ACTIONED"
	}
	return w
}

// refer makes a referral, or gives the account's the other code.
func (q *squatch) refer(u *squatchUser, code string, now time.Time) {
	q.referrals = slices.DeleteFunc(q.referrals, func(r *squatchReferral) bool { return r.referred.account == u.account })
	q.referred[u.account] = true
	shown := made(q.s, struct{}{}, now)
	ref := &squatchReferral{
		id: strings.ReplaceAll(newID(), "-", "")[:24], code: code, referred: u, referrer: q.codes[strings.ToLower(code)],
		referredStatus: squatchPending, referrerStatus: squatchPending, started: now, modified: now,
		since: shown.since, hidden: shown.hidden,
	}
	q.referrals = append(q.referrals, ref)
	q.tell("referral.started", ref.wireHook())
}

// convert notes that a person who was referred did what their referral is for.
func (q *squatch) convert(u *squatchUser, now time.Time) {
	for _, ref := range q.referrals {
		if ref.referred == u && ref.converted == nil {
			ref.converted, ref.modified = &now, now
			q.tell("referral.converted", ref.wireHook())
		}
	}
}

// hasReferral says whether the person was referred by the code.
func (q *squatch) hasReferral(id squatchID, code string) bool {
	return slices.ContainsFunc(q.referrals, func(r *squatchReferral) bool {
		return r.referred.squatchID == id && strings.EqualFold(r.code, code)
	})
}

// listReferrals serves both lists, which differ in their filters; newest first, which is assumed.
func (q *squatch) listReferrals(r *squatchRequest) reply {
	query, now := r.URL.Query(), time.Now()
	within := map[string]func(*int64) bool{}
	for _, name := range []string{"dateReferralPaid", "dateReferralEnded"} {
		fits, ok := dateFilter(query.Get(name))
		if !ok {
			return q.bad(r, name+" is neither NULL nor one moment or two in milliseconds")
		}
		within[name] = fits
	}
	list := []wireReferral{}
	for _, ref := range slices.Backward(q.referrals) {
		w := ref.wire()
		same := func(name, got string) bool { return !query.Has(name) || query.Get(name) == got }
		if ref.shows(now) && within["dateReferralPaid"](w.DateReferralPaid) && within["dateReferralEnded"](w.DateReferralEnded) &&
			same("referringAccountId", ref.referrer.account) && same("referringUserId", ref.referrer.user) &&
			same("referredAccountId", ref.referred.account) && same("referredUserId", ref.referred.user) &&
			same("referredModerationStatus", ref.referredStatus) && same("referrerModerationStatus", ref.referrerStatus) {
			list = append(list, w)
		}
	}
	list, total := squatchPage(r, list)
	return reply{status: http.StatusOK, body: map[string]any{"count": len(list), "totalCount": total, "referrals": list}}
}

// dateFilter reads a filter on a date: one moment, two with a comma between for everything from the
// first to the second, or NULL for no date. Milliseconds, and NULL, are assumed.
func dateFilter(text string) (fits func(*int64) bool, ok bool) {
	switch from, to, two := strings.Cut(text, ","); {
	case text == "":
		return func(*int64) bool { return true }, true
	case text == "NULL":
		return func(at *int64) bool { return at == nil }, true
	default:
		first, err := strconv.ParseInt(strings.TrimSpace(from), 10, 64)
		last := first
		if err == nil && two {
			last, err = strconv.ParseInt(strings.TrimSpace(to), 10, 64)
		}
		return func(at *int64) bool { return at != nil && first <= *at && *at <= last }, err == nil
	}
}

// referral finds one that reads show, nil when there is none.
func (q *squatch) referral(id string) *squatchReferral {
	now := time.Now()
	i := slices.IndexFunc(q.referrals, func(r *squatchReferral) bool { return r.id == id && r.shows(now) })
	if i < 0 {
		return nil
	}
	return q.referrals[i]
}

func (q *squatch) noReferral() reply {
	return squatchFailure(http.StatusNotFound, "Referral not found.", "REFERRAL_NOT_FOUND", "")
}

func (q *squatch) getReferral(r *squatchRequest) reply {
	ref := q.referral(r.vars["referralId"])
	if ref == nil {
		return q.noReferral()
	}
	return reply{status: http.StatusOK, body: ref.wire()}
}

// moderateReferrals takes all actions or, when one names a referral that is not there, none: the
// answer has no room for a result of each.
func (q *squatch) moderateReferrals(r *squatchRequest) reply {
	in, ok := decode[api.ReferralModerationBulkRequest](r.request)
	if !ok {
		return q.unreadable(r)
	}
	for _, a := range in.Actions {
		if q.referral(a.ReferralId) == nil {
			return q.noReferral()
		}
	}
	now := time.Now()
	for _, a := range in.Actions {
		ref := q.referral(a.ReferralId)
		status := squatchApproved
		if strings.HasSuffix(string(a.Action), squatchDenied) {
			status = squatchDenied
		}
		if !strings.HasPrefix(string(a.Action), "REFERRER_") {
			ref.referredStatus = status
		}
		if !strings.HasPrefix(string(a.Action), "REFERRED_") {
			ref.referrerStatus = status
		}
		ref.moderated, ref.modified = &now, now
		q.effect(r, cmp.Or(ref.referred.Email, ref.referred.user), ref.id)
	}
	return bodiless(http.StatusOK)
}

// wireCode is a code as it is shown.
type wireCode struct {
	Code         string         `json:"code"`
	DateCreated  int64          `json:"dateCreated"`
	ProgramID    string         `json:"programId"`
	ReferrerName string         `json:"referrerName"`
	Reward       map[string]any `json:"reward"`
}

func (u *squatchUser) wireCode(reward map[string]any) wireCode {
	return wireCode{Code: u.code(), DateCreated: u.Created.UnixMilli(), ProgramID: squatchProgram, ReferrerName: u.name(), Reward: reward}
}

// openApplyCode refers somebody who is there already.
func (q *squatch) openApplyCode(r *squatchRequest) reply {
	u, by := q.users[r.id()], q.referrer(r.vars["code"], r.id())
	switch {
	case u == nil:
		return q.noUser()
	case by == nil:
		return q.noCode()
	case !u.Referable:
		return squatchFailure(http.StatusBadRequest, "The user may not be referred.", "NOT_REFERABLE", "")
	case q.referred[u.account] && q.set.SecondCode != "replace":
		return squatchFailure(http.StatusBadRequest, "The account has been referred already.", "ALREADY_REFERRED", "")
	}
	q.refer(u, by.code(), time.Now())
	q.effect(r, cmp.Or(u.Email, u.user), "")
	return reply{status: http.StatusOK, body: by.wireCode(map[string]any{"type": "PCT_DISCOUNT", "discountPercent": 10, "monthsDiscountIsValid": 12})}
}

func (q *squatch) openValidateCode(r *squatchRequest) reply {
	u := q.owner(r.vars["referral_code"])
	if u == nil {
		return q.noCode()
	}
	return reply{status: http.StatusOK, body: u.wireCode(map[string]any{"type": "CREDIT", "unit": "CENTS", "credit": 2000})}
}

// wireEvent is an event as it was stored.
type wireEvent struct {
	ID            string         `json:"id"`
	Key           string         `json:"key"`
	Fields        map[string]any `json:"fields"`
	DateTriggered int64          `json:"dateTriggered"`
	DateReceived  int64          `json:"dateReceived"`
	DateProcessed int64          `json:"dateProcessed"`
}

func (q *squatch) trackEvent(r *squatchRequest) reply {
	in, ok := decode[api.UserEventsInput](r.request)
	if !ok {
		return q.unreadable(r)
	}
	id, now := r.id(), time.Now()
	u := q.users[id]
	switch {
	case in.UserId != id.user || in.AccountId != id.account:
		return q.bad(r, "userId or accountId of the body is not the path's")
	case u == nil:
		return q.noUser()
	}
	if key := value(in.IdempotencyKey); key != "" {
		if came, used := q.keys[key]; used && now.Sub(came) < idempotencyKept {
			return bodiless(http.StatusConflict)
		}
		q.keys[key] = now
	}
	events := []wireEvent{}
	for _, e := range in.Events {
		w := wireEvent{
			ID: strings.ReplaceAll(newID(), "-", "")[:24], Key: e.Key, Fields: entries(e.Fields),
			DateTriggered: now.UnixMilli(), DateReceived: now.UnixMilli(), DateProcessed: now.UnixMilli(),
		}
		if w.Fields == nil {
			w.Fields = map[string]any{}
		}
		if e.DateTriggered != nil {
			w.DateTriggered = *e.DateTriggered
		}
		events = append(events, w)
		if e.Key == q.set.ConvertsOn {
			q.convert(u, now)
		}
	}
	q.effect(r, cmp.Or(u.Email, u.user), value(in.IdempotencyKey))
	return reply{status: http.StatusOK, body: map[string]any{"userId": id.user, "accountId": id.account, "events": events}}
}
