package sandbox

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone/connectors/referralrock/api"
)

// tellReferral tells what became of a referral. Subscribers read these keys with capitals.
func (r *rock) tellReferral(event api.WebhookEvent, v api.Referral) {
	r.hooks.tell(string(event), api.WebhookReferral{
		Id: &v.Id, Email: v.Email, FirstName: v.FirstName, LastName: v.LastName, Status: &v.Status, ProgramId: &v.ProgramId,
		MemberEmail: v.MemberEmail, ExternalIdentifier: v.ExternalIdentifier, ReferringMemberId: &v.ReferringMemberId,
		MemberReferralCode: v.MemberReferralCode, Amount: v.Amount, CreateDate: v.CreateDate, UpdateDate: v.UpdateDate,
		Timestamp: ptr(time.Now().Unix()),
	})
}

// newReferral makes the referral of a member, pending.
func newReferral(by api.Member, in api.NewReferral, id string, at time.Time) api.Referral {
	v := api.Referral{
		Id: id, FirstName: in.FirstName, LastName: in.LastName, Email: in.Email, ExternalIdentifier: in.ExternalIdentifier,
		PhoneNumber: in.PhoneNumber, Amount: ptr(value(in.Amount)), CompanyName: in.CompanyName, Note: in.Note, PublicNote: in.PublicNote,
		CreateDate: stamp(at), UpdateDate: stamp(at), Source: ptr("API"), Status: string(api.Pending),
		ProgramId: by.ProgramId, ProgramName: by.ProgramName, ProgramTitle: by.ProgramTitle,
		ReferringMemberId: by.Id, ReferringMemberName: by.DisplayName, MemberEmail: &by.Email, MemberReferralCode: &by.ReferralCode,
		MemberExternalIdentifier: by.ExternalIdentifier, RecruiterAssignedId: in.RecruiterAssignedId,
		AddressLine1: in.AddressLine1, AddressLine2: in.AddressLine2, City: in.City, Region: in.Region, PostalCode: in.PostalCode, Country: in.Country,
		CustomOption1Name: in.CustomOption1Name, CustomOption1Value: in.CustomOption1Value,
		CustomOption2Name: in.CustomOption2Name, CustomOption2Value: in.CustomOption2Value,
		CustomText1Name: in.CustomText1Name, CustomText1Value: in.CustomText1Value,
		CustomText2Name: in.CustomText2Name, CustomText2Value: in.CustomText2Value,
		CustomText3Name: in.CustomText3Name, CustomText3Value: in.CustomText3Value,
	}
	if in.PreferredContact != nil {
		v.PreferredContact = ptr(string(*in.PreferredContact))
	}
	dress(&v)
	return v
}

// dress fills in what follows from other fields.
func dress(v *api.Referral) {
	name := strings.TrimSpace(value(v.FirstName) + " " + value(v.LastName))
	v.DisplayName, v.FullName = &name, &name
	v.AmountFormatted = ptr(fmt.Sprintf("€%.2f", value(v.Amount)))
}

func (r *rock) createReferral(req *request) reply {
	in, ok := decode[api.NewReferral](req)
	if !ok || !sane(in.Amount) {
		return r.unreadable(req)
	}
	if given(in.Region) > 0 && given(in.Country) == 0 {
		return r.wrong(req, "region needs country beside it")
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
	v := newReferral(by, in, newID(), now)
	if in.Status != nil {
		_ = move(&v, *in.Status, now) // from pending to anything
	}
	r.referrals.add(made(r.s, v, now))
	r.tellReferral(api.ReferralAdd, v)
	r.reward(v, now)
	return reply{status: http.StatusOK, body: api.ReferralConfirmation{Message: ptr("Referral Added"), Referral: &v}}
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

func (r *rock) listReferrals(req *request) reply {
	q := req.URL.Query()
	query, program, member, status := q.Get("query"), q.Get("programId"), q.Get("memberId"), q.Get("status")
	rows := r.referrals.rows
	if query != "" {
		rows = r.referrals.find(anyKey(query)...)
	}
	text := func(field func(api.Referral) *string) func(a, b api.Referral) int { // these times sort as texts
		return func(a, b api.Referral) int { return cmp.Compare(value(field(a)), value(field(b))) }
	}
	referrals, offset, total, err := listing[api.Referral]{
		fits: func(v api.Referral) bool {
			return inProgram(program, v.ProgramId, v.ProgramName, v.ProgramTitle) &&
				(member == "" || v.ReferringMemberId == member) && (status == "" || strings.EqualFold(v.Status, status))
		},
		created: func(v api.Referral) *string { return v.CreateDate },
		orders: map[string]func(a, b api.Referral) int{
			"Amount":       func(a, b api.Referral) int { return cmp.Compare(value(a.Amount), value(b.Amount)) },
			"Qualified_Dt": text(func(v api.Referral) *string { return v.QualifiedDate }),
			"Closed_Dt":    text(func(v api.Referral) *string { return v.ApprovedDate }),
		},
	}.page(req, rows)
	if err != nil {
		return r.wrong(req, err.Error())
	}
	return reply{status: http.StatusOK, body: api.ReferralSet{Offset: &offset, Total: &total, Referrals: referrals}}
}

// move changes a referral's status. What cannot be is put into words: nothing leaves approved, and a
// denied one is qualified only if it never was before.
func move(v *api.Referral, to api.ReferralStatus, now time.Time) (refused string) {
	if string(to) == v.Status {
		return ""
	}
	switch {
	case v.Status == string(api.Approved):
		return "An approved referral keeps its status"
	case v.Status == string(api.Denied) && to == api.Qualified && v.QualifiedDate != nil:
		return "A denied referral that was qualified before cannot be qualified again"
	}
	switch to {
	case api.Qualified:
		v.QualifiedDate = stamp(now)
	case api.Approved:
		v.ApprovedDate = stamp(now)
	}
	v.Status = string(to)
	return ""
}

// change keeps a changed referral, pays what its new status earns and tells the subscribers.
func (r *rock) change(at int, v api.Referral, now time.Time) {
	moved := r.referrals.rows[at].v.Status != v.Status
	v.UpdateDate = stamp(now)
	dress(&v)
	r.referrals.set(at, v)
	r.tellReferral(api.ReferralUpdate, v)
	if moved {
		r.tellReferral(api.ReferralStatusChange, v)
		r.reward(v, now)
	}
}

// referralAt finds the one referral that a query points at. Without one it gives -1 and the words for
// the item's result.
func (r *rock) referralAt(req *request, raw json.RawMessage) (int, string) {
	var q api.ReferralQuery
	if !strictly(raw, &q) {
		req.seen.Violation = "a query has a key that is not known"
		return -1, "The query has a key that is not known"
	}
	if p := q.PrimaryInfo; p != nil && given(p.ReferralId) > 0 {
		return only("referral", r.referrals.at(key("id", p.ReferralId)))
	}
	if f := q.FuzzyInfo; f != nil && given(f.Identifier) > 0 {
		return only("referral", r.referrals.at(key("id", f.Identifier), key("email", f.Identifier), key("external", f.Identifier), key("phone", f.Identifier)))
	}
	s, t := q.SecondaryInfo, q.TertiaryInfo
	if s == nil || t == nil || given(s.Email, s.ExternalIdentifier, s.PhoneNumber) != 1 || given(t.ProgramId, t.ProgramName, t.ProgramTitle) != 1 {
		return -1, "Give a value in primaryInfo, or one in secondaryInfo and one in tertiaryInfo"
	}
	at := r.referrals.at(keys(key("email", s.Email), key("external", s.ExternalIdentifier), key("phone", s.PhoneNumber))...)
	return only("referral", slices.DeleteFunc(at, func(i int) bool {
		v := r.referrals.rows[i].v
		return !named(t.ProgramId, t.ProgramName, t.ProgramTitle, v.ProgramId, v.ProgramName, v.ProgramTitle)
	}))
}

// update changes the fields that are given; null counts as not given.
func update(v *api.Referral, in api.UpdateReferral) {
	for _, f := range []struct {
		to   **string
		from *string
	}{
		{&v.FirstName, in.FirstName}, {&v.LastName, in.LastName}, {&v.Email, in.Email}, {&v.PhoneNumber, in.PhoneNumber},
		{&v.ExternalIdentifier, in.ExternalIdentifier}, {&v.CompanyName, in.CompanyName}, {&v.Note, in.Note}, {&v.PublicNote, in.PublicNote},
		{&v.AddressLine1, in.AddressLine1}, {&v.AddressLine2, in.AddressLine2}, {&v.City, in.City}, {&v.Region, in.Region},
		{&v.PostalCode, in.PostalCode}, {&v.Country, in.Country},
		{&v.CustomOption1Name, in.CustomOption1Name}, {&v.CustomOption1Value, in.CustomOption1Value},
		{&v.CustomOption2Name, in.CustomOption2Name}, {&v.CustomOption2Value, in.CustomOption2Value},
		{&v.CustomText1Name, in.CustomText1Name}, {&v.CustomText1Value, in.CustomText1Value},
		{&v.CustomText2Name, in.CustomText2Name}, {&v.CustomText2Value, in.CustomText2Value},
		{&v.CustomText3Name, in.CustomText3Name}, {&v.CustomText3Value, in.CustomText3Value},
	} {
		if f.from != nil {
			*f.to = f.from
		}
	}
	if in.Amount != nil {
		v.Amount = in.Amount
	}
	if in.PreferredContact != nil {
		v.PreferredContact = ptr(string(*in.PreferredContact))
	}
}

func (r *rock) updateReferrals(req *request) reply {
	type item struct {
		Query    json.RawMessage
		Referral api.UpdateReferral
	}
	items, ok := decode[[]item](req)
	if !ok || slices.ContainsFunc(items, func(i item) bool { return !sane(i.Referral.Amount) }) {
		return r.unreadable(req)
	}
	type updated struct {
		itemResult
		Referral *api.Referral `json:"referral"`
	}
	results, now := []updated{}, time.Now()
	for _, item := range items {
		one := updated{itemResult: itemResult{Query: item.Query}}
		at, words := r.referralAt(req, item.Query)
		if at >= 0 {
			v := r.referrals.rows[at].v
			if item.Referral.Status != nil {
				words = move(&v, *item.Referral.Status, now)
			}
			if words == "" {
				update(&v, item.Referral)
				r.effect(req, value(v.Email), value(v.ExternalIdentifier))
				r.change(at, v, now)
				one.Referral = ptr(r.referrals.rows[at].v)
			}
		}
		one.ResultInfo = result(itemUpdated, words)
		if words == "" {
			one.ResultInfo.Message = ptr("Referral updated")
		}
		results = append(results, one)
	}
	return reply{status: http.StatusOK, body: results}
}

// updateReferralStatus is the older way to change one status.
func (r *rock) updateReferralStatus(req *request) reply {
	in, ok := decode[api.ReferralStatusUpdate](req)
	if !ok || !sane(in.Amount) {
		return r.unreadable(req)
	}
	at, words := only("referral", r.referrals.at(keys(key("id", &in.ReferralId))...))
	if at < 0 {
		return r.failure(http.StatusNotFound, words)
	}
	v, now := r.referrals.rows[at].v, time.Now()
	if !inProgram(value(in.ProgramId), v.ProgramId, v.ProgramName, v.ProgramTitle) {
		return r.failure(http.StatusNotFound, "No referral matches the query")
	}
	if words = move(&v, in.Status, now); words != "" {
		return r.failure(http.StatusBadRequest, words)
	}
	update(&v, api.UpdateReferral{Amount: in.Amount, PublicNote: in.PublicNote})
	r.effect(req, value(v.Email), value(v.ExternalIdentifier))
	r.change(at, v, now)
	return reply{status: http.StatusOK, body: map[string]any{"message": nil}}
}

func (r *rock) removeReferrals(req *request) reply {
	items, ok := decode[[]struct{ Query json.RawMessage }](req)
	if !ok {
		return r.unreadable(req)
	}
	results := []itemResult{}
	for _, item := range items {
		at, words := r.referralAt(req, item.Query)
		if at >= 0 {
			v := r.referrals.rows[at].v
			r.referrals.drop(at)
			r.quietly(req, value(v.Email), value(v.ExternalIdentifier))
			r.tellReferral(api.ReferralDelete, v)
		}
		results = append(results, itemResult{item.Query, result(itemDone, words)})
	}
	return reply{status: http.StatusOK, body: results}
}

// createReferralAction takes one paid event. One whose external identifier is known in the program is
// there already: the answer says so, and nothing is paid again.
func (r *rock) createReferralAction(req *request) reply {
	in, ok := decode[api.ReferralAction](req)
	if !ok || !sane(&in.Amount) {
		return r.unreadable(req)
	}
	found := r.referrals.at(key("id", &in.ReferralQuery), key("email", &in.ReferralQuery), key("external", &in.ReferralQuery))
	at, words := only("referral", slices.DeleteFunc(found, func(i int) bool {
		v := r.referrals.rows[i].v
		return !inProgram(value(in.ProgramQuery), v.ProgramId, v.ProgramName, v.ProgramTitle)
	}))
	switch {
	case at < 0 && len(found) == 0:
		return r.failure(http.StatusNotFound, words)
	case at < 0:
		return r.failure(http.StatusBadRequest, words)
	}
	v := r.referrals.rows[at].v
	if id := value(in.ExternalIdentifier); id != "" {
		id = v.ProgramId + " " + id
		if r.actions[id] {
			return reply{status: http.StatusOK, body: map[string]any{"message": "Referral action already exists"}}
		}
		r.actions[id] = true
	}
	r.effect(req, value(v.Email), value(in.ExternalIdentifier))
	r.rewardAction(v, in, time.Now())
	return reply{status: http.StatusOK, body: map[string]any{"message": nil}}
}
