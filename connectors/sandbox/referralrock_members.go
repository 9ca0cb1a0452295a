package sandbox

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone/connectors/referralrock/api"
)

func newMember(p api.Program, id, first string, last *string, email, code, status string, at time.Time) api.Member {
	name := strings.TrimSpace(first + " " + value(last))
	return api.Member{
		Id: id, ProgramId: p.Id, ProgramName: ptr(p.Name), ProgramTitle: p.Title, Email: email,
		FirstName: ptr(first), LastName: ptr(value(last)), DisplayName: &name, Status: &status,
		ReferralCode: code, ReferralUrl: ptr("https://refer.example.com/l/" + code + "/"),
		CreateDt: stamp(at), DisabledFlag: ptr(false), Views: ptr(0), EmailShares: ptr(0), SocialShares: ptr(0),
	}
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

// join adds a member and tells the subscribers.
func (r *rock) join(m api.Member, now time.Time) {
	r.members.add(made(r.s, m, now))
	r.tellMember(api.MemberAdd, m)
}

// tellMember tells what became of a member. The provider sends the member as reads give it, but for
// the key Id.
func (r *rock) tellMember(event api.WebhookEvent, m api.Member) {
	raw, err := json.Marshal(m)
	body := map[string]any{}
	if err == nil {
		err = json.Unmarshal(raw, &body)
	}
	if err != nil { // our own type only
		panic("sandbox: " + err.Error())
	}
	delete(body, "id")
	body["Id"], body["Timestamp"] = m.Id, time.Now().Unix()
	r.hooks.tell(string(event), body)
}

func (r *rock) invite(req *request, e api.InviteFeedEntry) api.InviteFeedResult {
	r.effect(req, e.Email, "")
	p := r.programs[0]
	if r.memberByEmail(p.Id, e.Email) {
		return api.InviteFeedResult{Email: &e.Email, Outcome: ptr("Skipped"), Message: ptr("Already a member")}
	}
	now := time.Now()
	r.join(newMember(p, newID(), e.FirstName, e.LastName, e.Email, r.code(e.FirstName), "Invited", now), now)
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
	p := r.program(in.ProgramId)
	switch {
	case p == nil:
		return r.failure(http.StatusNotFound, "Program not found")
	case given(in.RecruiterAssignedId) > 0 && given(in.RecruiterSourceId) == 0:
		return r.wrong(req, "recruiterAssignedId needs recruiterSourceId beside it")
	case r.memberByEmail(p.Id, in.Email):
		return r.failure(http.StatusBadRequest, "Member already exists")
	case len(r.members.at(keys(key("code", in.ReferralCode))...)) > 0:
		return r.failure(http.StatusBadRequest, "Referral code is already in use")
	}
	r.effect(req, in.Email, value(in.ExternalIdentifier))
	now := time.Now()
	m := newMember(*p, newID(), in.FirstName, in.LastName, in.Email, cmp.Or(value(in.ReferralCode), r.code(in.FirstName)), "Preloaded", now)
	m.ExternalIdentifier, m.Phone, m.DateOfBirth, m.PayoutInfo = in.ExternalIdentifier, in.Phone, in.DateOfBirth, in.PayoutInfo
	m.AddressLine1, m.AddressLine2, m.City, m.CountrySubdivision = in.AddressLine1, in.AddressLine2, in.City, in.CountrySubdivision
	m.Region, m.Country, m.PostalCode, m.CustomOverrideURL = in.Region, in.Country, in.PostalCode, in.CustomOverrideURL
	m.CustomOption1Name, m.CustomOption1Value = in.CustomOption1Name, in.CustomOption1Value
	m.CustomText1Name, m.CustomText1Value = in.CustomText1Name, in.CustomText1Value
	m.CustomText2Name, m.CustomText2Value = in.CustomText2Name, in.CustomText2Value
	m.RecruiterSourceId, m.RecruiterAssignedId = in.RecruiterSourceId, in.RecruiterAssignedId
	if value(in.DisabledFlag) {
		m.DisabledFlag, m.Status = ptr(true), ptr("Disabled")
	}
	r.join(m, now)
	return reply{status: http.StatusCreated, body: api.MemberConfirmation{Message: ptr("Member Added"), Member: r.counted(m)}}
}

func (r *rock) listMembers(req *request) reply {
	q := req.URL.Query()
	query, program, disabled := q.Get("query"), q.Get("programId"), q.Get("showDisabled") == "true"
	rows := r.members.rows
	if query != "" {
		rows = r.members.find(anyKey(query)...)
	}
	members, offset, total, err := listing[api.Member]{
		fits: func(m api.Member) bool {
			return inProgram(program, m.ProgramId, m.ProgramName, m.ProgramTitle) && (disabled || !value(m.DisabledFlag))
		},
		created: func(m api.Member) *string { return m.CreateDt },
	}.page(req, rows)
	if err != nil {
		return r.wrong(req, err.Error())
	}
	for i, m := range members {
		members[i] = r.counted(m)
	}
	return reply{status: http.StatusOK, body: api.MemberSet{Offset: &offset, Total: &total, Members: members}}
}

// tally is what a member brought in and is given for it, since a moment.
type tally struct {
	referrals, pending, qualified, approved, rewards int
	approvedAmount, owed, issued                     float64
}

func (r *rock) tally(member string, since time.Time) (t tally) {
	recent := func(created *string) bool {
		at, err := time.Parse(wireTime, value(created))
		return err != nil || !at.Before(since)
	}
	for _, s := range r.referrals.find(key("member", &member)) {
		if !recent(s.v.CreateDate) {
			continue
		}
		t.referrals++
		switch s.v.Status {
		case "pending":
			t.pending++
		case "qualified":
			t.qualified++
		case "approved":
			t.approved++
			t.approvedAmount += value(s.v.Amount)
		}
	}
	for _, s := range r.rewards.find(key("recipient", &member)) {
		if !recent(s.v.CreateDate) {
			continue
		}
		t.rewards++
		if value(s.v.Status) == rewardIssued {
			t.issued += value(s.v.Amount)
		} else {
			t.owed += value(s.v.Amount)
		}
	}
	return t
}

// counted fills in the counters of a member.
func (r *rock) counted(m api.Member) api.Member {
	t := r.tally(m.Id, time.Time{})
	m.Referrals, m.ReferralsPending, m.ReferralsQualified, m.ReferralsApproved = &t.referrals, &t.pending, &t.qualified, &t.approved
	m.ReferralsApprovedAmount, m.Rewards = &t.approvedAmount, &t.rewards
	m.RewardsPendingAmount, m.RewardsIssuedAmount, m.RewardAmountTotal = &t.owed, &t.issued, ptr(t.owed+t.issued)
	return m
}

// memberStats counts referrals and rewards by when they were made. Views and shares have no dates here
// and are the same for every period.
func (r *rock) memberStats(req *request) reply {
	q, now := req.URL.Query(), time.Now().UTC()
	at, words := only("member", r.members.at(anyKey(q.Get("query"))...))
	if at < 0 {
		return r.failure(http.StatusNotFound, words)
	}
	month := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)
	var since, until time.Time
	switch api.TimePeriod(q.Get("timePeriod")) {
	case api.MonthToDate:
		since = month
	case api.LastMonth:
		since, until = month.AddDate(0, -1, 0), month
	case api.Last7Days:
		since = now.AddDate(0, 0, -7)
	case api.Last30Days:
		since = now.AddDate(0, 0, -30)
	}
	m := r.members.rows[at].v
	t := r.tally(m.Id, since)
	if !until.IsZero() {
		t = t.minus(r.tally(m.Id, until))
	}
	return reply{status: http.StatusOK, body: api.MemberStats{
		MemberViews: m.Views, MemberShares: ptr(value(m.EmailShares) + value(m.SocialShares)),
		ReferralsCount: &t.referrals, ReferralsPending: &t.pending, ReferralsQualified: &t.qualified, ReferralsApproved: &t.approved,
		RewardsCount: &t.rewards, RewardsPendingAmount: &t.owed, RewardsIssuedAmount: &t.issued, RewardAmountTotal: ptr(t.owed + t.issued),
		ActivatedDate: m.ActivatedDate, LastActiveDate: m.LastActiveDate,
	}}
}

func (t tally) minus(o tally) tally {
	return tally{
		t.referrals - o.referrals, t.pending - o.pending, t.qualified - o.qualified, t.approved - o.approved, t.rewards - o.rewards,
		t.approvedAmount - o.approvedAmount, t.owed - o.owed, t.issued - o.issued,
	}
}

// memberAt finds the one member that a query points at. Without one it gives -1 and the words for the
// item's result.
func (r *rock) memberAt(req *request, raw json.RawMessage) (int, string) {
	var q api.MemberQuery
	if !strictly(raw, &q) {
		req.seen.Violation = "a query has a key that is not known"
		return -1, "The query has a key that is not known"
	}
	if p := q.PrimaryInfo; p != nil && given(p.MemberId, p.ReferralCode) > 0 {
		if given(p.MemberId, p.ReferralCode) > 1 {
			return -1, "Give one value in primaryInfo"
		}
		return only("member", r.members.at(keys(key("id", p.MemberId), key("code", p.ReferralCode))...))
	}
	s, t := q.SecondaryInfo, q.TertiaryInfo
	if s == nil || t == nil || given(s.Email, s.ExternalIdentifier) != 1 || given(t.ProgramId, t.ProgramName, t.ProgramTitle) != 1 {
		return -1, "Give one value in primaryInfo, or one in secondaryInfo and one in tertiaryInfo"
	}
	at := r.members.at(keys(key("email", s.Email), key("external", s.ExternalIdentifier))...)
	return only("member", slices.DeleteFunc(at, func(i int) bool {
		m := r.members.rows[i].v
		return !named(t.ProgramId, t.ProgramName, t.ProgramTitle, m.ProgramId, m.ProgramName, m.ProgramTitle)
	}))
}

// named says whether a program is the one that a query names by id, name or title.
func named(wantedID, wantedName, wantedTitle *string, id string, name, title *string) bool {
	switch {
	case given(wantedID) > 0:
		return *wantedID == id
	case given(wantedName) > 0:
		return *wantedName == value(name)
	}
	return value(wantedTitle) == value(title)
}

// itemResult is the outcome of one item that a query points at.
type itemResult struct {
	Query      json.RawMessage `json:"query"`
	ResultInfo api.ResultInfo  `json:"resultInfo"`
}

func result(done, words string) api.ResultInfo {
	if words != "" {
		return api.ResultInfo{Status: itemFailed, Message: &words}
	}
	return api.ResultInfo{Status: done}
}

func (r *rock) removeMembers(req *request) reply {
	items, ok := decode[[]struct{ Query json.RawMessage }](req)
	if !ok {
		return r.unreadable(req)
	}
	results := []itemResult{}
	for _, item := range items {
		at, words := r.memberAt(req, item.Query)
		if at >= 0 {
			m := r.members.rows[at].v
			r.members.drop(at)
			r.quietly(req, m.Email, value(m.ExternalIdentifier))
			r.tellMember(api.MemberDelete, m)
		}
		results = append(results, itemResult{item.Query, result(itemDone, words)})
	}
	return reply{status: http.StatusOK, body: results}
}

// createMemberAccessUrls gives links that lead nowhere; how long they would live is not kept.
func (r *rock) createMemberAccessUrls(req *request) reply {
	in, ok := decode[api.MemberAccessUrlsQuery](req)
	if !ok {
		return r.unreadable(req)
	}
	if given(in.MemberId, in.ReferralCode, in.EmailAddress, in.ExternalId) != 1 {
		return r.wrong(req, "exactly one of memberId, referralCode, emailAddress and externalId must be given")
	}
	at, words := only("member", r.members.at(keys(
		key("id", in.MemberId), key("code", in.ReferralCode), key("email", in.EmailAddress), key("external", in.ExternalId))...))
	if at < 0 {
		return r.failure(http.StatusNotFound, words)
	}
	m := r.members.rows[at].v
	r.quietly(req, m.Email, value(m.ExternalIdentifier))
	const base = "https://refer.example.com/"
	token, share := newID(), value(m.ReferralUrl)
	return reply{status: http.StatusOK, body: api.MemberAccessUrls{
		ReferralCode: m.ReferralCode, PortalUrl: ptr(base + "portal/" + token),
		ShareEmbedUrl: ptr(base + "embed/s/" + token), FullEmbedUrl: ptr(base + "embed/f/" + token),
		ShareUrl: &share, WebShareUrl: ptr(share + "web"), SmsShareUrl: ptr(share + "sms"), WhatsAppShareUrl: ptr(share + "wa"),
	}}
}
