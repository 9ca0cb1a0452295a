package sandbox

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// factoryDay is how the provider writes dates.
const factoryDay = time.DateOnly

func factoryToday() string { return time.Now().UTC().Format(factoryDay) }

func (f *factory) createUser(req *factoryRequest) reply {
	in, ok := decode[struct {
		CampaignID int64            `json:"campaign_id"`
		FirstName  string           `json:"first_name"`
		Email      string           `json:"email"`
		Referrer   *factoryReferrer `json:"referrer"`
		Meta       []factoryMeta    `json:"meta"`
		Promotion  bool             `json:"promotion"`
	}](req.request)
	if !ok {
		return f.unreadable(req)
	}
	if f.campaign(in.CampaignID) == nil {
		return f.invalid("campaign_id", "The selected campaign id is invalid.")
	}
	if _, there := f.byEmail[factoryKey{in.CampaignID, strings.ToLower(in.Email)}]; there {
		return f.invalid("email", "The email has already been taken.")
	}
	now, set := time.Now(), f.s.Settings()
	u := &factoryUser{
		CampaignID: in.CampaignID, FirstName: in.FirstName, Email: in.Email, Source: "Api", SignedUpAt: factoryToday(), Meta: in.Meta,
		since: now.Add(set.VisibleAfter), hidden: set.Hidden,
	}
	if in.Referrer != nil {
		by := f.referrer(in.CampaignID, *in.Referrer)
		if by == nil {
			return f.invalid("referrer", "The selected referrer is invalid.")
		}
		u.ReferrerID = &by.ID
	}
	f.add(u)
	if in.Promotion {
		u.Promotion = &factoryPromotion{Code: strings.ToUpper(u.Code)}
	}
	f.effect(req, u)
	return reply{status: http.StatusCreated, body: factoryDocument{f.view(req, u)}}
}

type factoryDocument struct {
	Data any `json:"data"`
}

// referrer finds who brings somebody in, within the campaign.
func (f *factory) referrer(campaign int64, r factoryReferrer) *factoryUser {
	var u *factoryUser
	switch r.Field {
	case "id":
		id, err := strconv.ParseInt(r.Value, 10, 64)
		if err == nil {
			u = f.users[id]
		}
	case "code":
		u = f.users[f.byCode[r.Value]]
	case "email":
		u = f.users[f.byEmail[factoryKey{campaign, strings.ToLower(r.Value)}]]
	}
	if u == nil || u.CampaignID != campaign {
		return nil
	}
	return u
}

// view is a user with the extra data that `with` asks for.
func (f *factory) view(req *factoryRequest, u *factoryUser) *factoryUser {
	shown := *u
	for _, wanted := range strings.Split(req.URL.Query().Get("with"), ",") {
		if strings.TrimSpace(wanted) != "user.analytics" {
			continue
		}
		shown.Analytics = &factoryAnalytics{Reach: u.Reach}
		for _, v := range f.users {
			if v.ReferrerID == nil || *v.ReferrerID != u.ID {
				continue
			}
			shown.Analytics.Referrals++
			if v.QualifiedAt != nil {
				shown.Analytics.QualifiedReferrals++
			}
		}
	}
	return &shown
}

func (f *factory) getUser(req *factoryRequest) reply {
	u := f.user(req.variable)
	if u == nil || !u.shows(time.Now()) {
		return f.notFound()
	}
	return reply{status: http.StatusOK, body: factoryDocument{f.view(req, u)}}
}

// byNumber finds the user whom a path names; only the number will do.
func (f *factory) byNumber(req *factoryRequest) *factoryUser {
	id, err := strconv.ParseInt(req.variable, 10, 64)
	if err != nil {
		req.seen.Violation = "the user is not named by number"
		return nil
	}
	return f.users[id]
}

func (f *factory) updateUser(req *factoryRequest) reply {
	u := f.byNumber(req)
	if u == nil {
		return f.notFound()
	}
	in, ok := decode[struct {
		FirstName *string       `json:"first_name"`
		Email     *string       `json:"email"`
		Meta      []factoryMeta `json:"meta"`
		Qualified *bool         `json:"qualified"`
	}](req.request)
	if !ok {
		return f.unreadable(req)
	}
	if in.Email != nil {
		was, is := factoryKey{u.CampaignID, strings.ToLower(u.Email)}, factoryKey{u.CampaignID, strings.ToLower(*in.Email)}
		if id, there := f.byEmail[is]; there && id != u.ID {
			return f.invalid("email", "The email has already been taken.")
		}
		delete(f.byEmail, was)
		f.byEmail[is] = u.ID
		u.Email = *in.Email
	}
	if in.FirstName != nil {
		u.FirstName = *in.FirstName
	}
	// Into a new list: an answer that was given out may still be on its way.
	meta := slices.Clone(u.Meta)
	for _, m := range in.Meta {
		if i := slices.IndexFunc(meta, func(have factoryMeta) bool { return have.Field == m.Field }); i >= 0 {
			meta[i] = m
		} else {
			meta = append(meta, m)
		}
	}
	u.Meta = meta
	if in.Qualified != nil {
		f.qualify(u, *in.Qualified)
	}
	f.effect(req, u)
	return reply{status: http.StatusOK, body: factoryDocument{f.view(req, u)}}
}

func (f *factory) deleteUser(req *factoryRequest) reply {
	u := f.byNumber(req)
	if u == nil {
		return f.notFound()
	}
	delete(f.users, u.ID)
	delete(f.byEmail, factoryKey{u.CampaignID, strings.ToLower(u.Email)})
	delete(f.byCode, u.Code)
	f.effect(req, u)
	return reply{status: http.StatusOK, body: struct{}{}}
}

func (f *factory) setUserQualification(req *factoryRequest) reply {
	in, ok := decode[struct {
		ID         int64  `json:"id"`
		Code       string `json:"code"`
		Email      string `json:"email"`
		CampaignID int64  `json:"campaign_id"`
		Qualified  bool   `json:"qualified"`
	}](req.request)
	if !ok {
		return f.unreadable(req)
	}
	var u *factoryUser
	switch {
	case in.ID != 0 || in.Code != "":
		u = f.named(in.ID, in.Code)
	case in.Email == "":
		return f.invalid("id", "The id field is required when code and email are not present.")
	case in.CampaignID == 0:
		return f.invalid("campaign_id", "The campaign id field is required when email is present.")
	default:
		u = f.users[f.byEmail[factoryKey{in.CampaignID, strings.ToLower(in.Email)}]]
	}
	if u == nil {
		return f.notFound()
	}
	f.qualify(u, in.Qualified)
	f.effect(req, u)
	return reply{status: http.StatusOK, body: factoryDocument{f.view(req, u)}}
}

// qualify does what the provider warns of: doing it twice makes two rewards due.
func (f *factory) qualify(u *factoryUser, qualified bool) {
	if !qualified {
		u.QualifiedAt = nil
		return
	}
	u.QualifiedAt = ptr(factoryToday())
	if u.ReferrerID != nil {
		f.reward(*u.ReferrerID)
	}
}

func (f *factory) listUsers(req *factoryRequest) reply {
	return f.usersPage(req, func(*factoryUser) bool { return true })
}

type factoryFilters struct {
	Operator string `json:"operator"`
	Value    []struct {
		Field    string `json:"field"`
		Operator string `json:"operator"`
		Value    string `json:"value"`
	} `json:"value"`
}

// fits makes a test of filters, given what the fields of an element are.
func factoryFits[T any](g factoryFilters, field func(T, string) (string, bool)) (fits func(T) bool, fault string) {
	if g.Operator != "AND" {
		return nil, "The selected operator is invalid."
	}
	var none T
	for _, filter := range g.Value {
		if _, known := field(none, filter.Field); !known {
			return nil, "The field " + clip(filter.Field, 50) + " cannot be searched."
		}
		if filter.Operator != "=" {
			return nil, "The selected operator is invalid."
		}
	}
	return func(v T) bool {
		for _, filter := range g.Value {
			if have, _ := field(v, filter.Field); !strings.EqualFold(have, filter.Value) {
				return false
			}
		}
		return true
	}, ""
}

// field is a field of a user as text; every field that can be searched is known of nobody too.
func (u *factoryUser) field(name string) (string, bool) {
	if u == nil {
		u = &factoryUser{}
	}
	switch name {
	case "id":
		return strconv.FormatInt(u.ID, 10), true
	case "campaign_id":
		return strconv.FormatInt(u.CampaignID, 10), true
	case "referrer_id":
		if u.ReferrerID == nil {
			return "", true
		}
		return strconv.FormatInt(*u.ReferrerID, 10), true
	case "email":
		return u.Email, true
	case "first_name":
		return u.FirstName, true
	case "code":
		return u.Code, true
	case "type":
		return u.Type, true
	case "source":
		return u.Source, true
	}
	return "", false
}

func (f *factory) searchUsers(req *factoryRequest) reply {
	in, ok := decode[struct {
		Filters factoryFilters `json:"filters"`
	}](req.request)
	if !ok {
		return f.unreadable(req)
	}
	fits, fault := factoryFits(in.Filters, (*factoryUser).field)
	if fault != "" {
		return f.invalid("filters", fault)
	}
	for _, filter := range in.Filters.Value {
		if filter.Field != "email" {
			continue
		}
		// However many people there are, an address is in each campaign once.
		var candidates []int64
		for _, c := range f.campaigns {
			if id, there := f.byEmail[factoryKey{c.ID, strings.ToLower(filter.Value)}]; there {
				candidates = append(candidates, id)
			}
		}
		slices.Sort(candidates)
		return f.pageOf(req, candidates, fits)
	}
	return f.usersPage(req, fits)
}

// usersPage cuts a page out of the users who show and fit, oldest first.
func (f *factory) usersPage(req *factoryRequest, fits func(*factoryUser) bool) reply {
	f.order = slices.DeleteFunc(f.order, func(id int64) bool { return f.users[id] == nil })
	return f.pageOf(req, f.order, fits)
}

func (f *factory) pageOf(req *factoryRequest, ids []int64, fits func(*factoryUser) bool) reply {
	now, found := time.Now(), []*factoryUser{}
	for _, id := range ids {
		if u := f.users[id]; u.shows(now) && fits(u) {
			found = append(found, u)
		}
	}
	return factoryList(req, found, func(u *factoryUser) *factoryUser { return f.view(req, u) })
}

type factoryLinks struct {
	First *string `json:"first"`
	Last  *string `json:"last"`
	Prev  *string `json:"prev"`
	Next  *string `json:"next"`
}

type factoryMetaPage struct {
	CurrentPage int `json:"current_page"`
	PerPage     int `json:"per_page"`
	LastPage    int `json:"last_page"`
	Total       int `json:"total"`
}

// factoryList cuts the page that is asked for out of a list and puts it into the provider's envelope.
func factoryList[T any](req *factoryRequest, all []T, view func(T) T) reply {
	q := req.URL.Query()
	per, err := strconv.Atoi(q.Get("per_page"))
	if err != nil {
		per = factoryPage
	}
	page, err := strconv.Atoi(q.Get("page"))
	if err != nil {
		page = 1
	}
	last := max(1, (len(all)+per-1)/per)
	from := len(all)
	if page <= last { // beyond it there is nothing, and nothing to overflow
		from = (page - 1) * per
	}
	items := make([]T, 0, per)
	for _, v := range all[from:min(from+per, len(all))] {
		items = append(items, view(v))
	}
	link := func(n int) *string {
		to := url.Values{"page": {strconv.Itoa(n)}}
		for _, kept := range []string{"per_page", "with"} {
			if q.Has(kept) {
				to.Set(kept, q.Get(kept))
			}
		}
		return ptr(fmt.Sprintf("http://%s/referralfactory%s?%s", req.Host, req.URL.EscapedPath(), to.Encode()))
	}
	links := factoryLinks{First: link(1), Last: link(last)}
	if page > 1 {
		links.Prev = link(min(page-1, last))
	}
	if page < last {
		links.Next = link(page + 1)
	}
	return reply{status: http.StatusOK, body: map[string]any{
		"data": items, "links": links,
		"meta": factoryMetaPage{CurrentPage: page, PerPage: per, LastPage: last, Total: len(all)},
	}}
}
