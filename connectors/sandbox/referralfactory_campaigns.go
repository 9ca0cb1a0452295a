package sandbox

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// factoryCampaign is a campaign as the provider shows it.
type factoryCampaign struct {
	ID        int64                     `json:"id"`
	Name      string                    `json:"name"`
	Code      string                    `json:"code"`
	Lang      string                    `json:"lang"`
	URL       string                    `json:"url"`
	Reach     int                       `json:"reach"`
	Status    string                    `json:"status"`
	StartsAt  *string                   `json:"starts_at"`
	EndsAt    *string                   `json:"ends_at"`
	CreatedAt string                    `json:"created_at"`
	Fields    factoryCampaignFields     `json:"fields"`
	Analytics *factoryCampaignAnalytics `json:"analytics,omitempty"`
}

type factoryCampaignFields struct {
	PersonReferring []factoryField `json:"person_referring"`
	PersonInvited   []factoryField `json:"person_invited"`
}

type factoryField struct {
	ID       int64   `json:"id"`
	Type     string  `json:"type"`
	Label    string  `json:"label"`
	Value    *string `json:"value"`
	Required bool    `json:"required"`
}

type factoryCampaignAnalytics struct {
	Reach              int `json:"reach"`
	Users              int `json:"users"`
	Referrals          int `json:"referrals"`
	QualifiedReferrals int `json:"qualified_referrals"`
}

func newFactoryCampaign(id int64, name, code string) *factoryCampaign {
	return &factoryCampaign{
		ID: id, Name: name, Code: code, Lang: "en", URL: "https://example.referral-factory.com/" + code, Reach: 12,
		Status: "launched", CreatedAt: "2026-01-02", Fields: factoryCampaignFields{
			PersonReferring: []factoryField{{ID: id, Type: "input", Label: "First Name", Required: true}},
			PersonInvited:   []factoryField{},
		},
	}
}

// field is a field of a campaign as text; every field that can be searched is known of none too.
func (c *factoryCampaign) field(name string) (string, bool) {
	if c == nil {
		c = &factoryCampaign{}
	}
	switch name {
	case "id":
		return strconv.FormatInt(c.ID, 10), true
	case "name":
		return c.Name, true
	case "code":
		return c.Code, true
	case "status":
		return c.Status, true
	}
	return "", false
}

// campaignView is a campaign with the extra data that `with` asks for.
func (f *factory) campaignView(req *factoryRequest, c *factoryCampaign) *factoryCampaign {
	shown := *c
	for _, wanted := range strings.Split(req.URL.Query().Get("with"), ",") {
		if strings.TrimSpace(wanted) != "campaign.analytics" {
			continue
		}
		shown.Analytics = &factoryCampaignAnalytics{Reach: c.Reach}
		for _, u := range f.users {
			if u.CampaignID != c.ID {
				continue
			}
			shown.Analytics.Users++
			if u.ReferrerID != nil {
				shown.Analytics.Referrals++
				if u.QualifiedAt != nil {
					shown.Analytics.QualifiedReferrals++
				}
			}
		}
	}
	return &shown
}

func (f *factory) campaignsPage(req *factoryRequest, fits func(*factoryCampaign) bool) reply {
	var found []*factoryCampaign
	for _, c := range f.campaigns {
		if fits(c) {
			found = append(found, c)
		}
	}
	return factoryList(req, found, func(c *factoryCampaign) *factoryCampaign { return f.campaignView(req, c) })
}

func (f *factory) listCampaigns(req *factoryRequest) reply {
	return f.campaignsPage(req, func(*factoryCampaign) bool { return true })
}

func (f *factory) searchCampaigns(req *factoryRequest) reply {
	in, ok := decode[struct {
		Filters *factoryFilters `json:"filters"`
	}](req.request)
	if !ok {
		return f.unreadable(req)
	}
	if in.Filters == nil {
		return f.listCampaigns(req)
	}
	fits, fault := factoryFits(*in.Filters, (*factoryCampaign).field)
	if fault != "" {
		return f.invalid("filters", fault)
	}
	return f.campaignsPage(req, fits)
}

func (f *factory) getCampaign(req *factoryRequest) reply {
	for _, c := range f.campaigns {
		if c.Code == req.variable || strconv.FormatInt(c.ID, 10) == req.variable {
			return reply{status: http.StatusOK, body: factoryDocument{f.campaignView(req, c)}}
		}
	}
	return f.notFound()
}

// factoryReward is a reward that is owed or was issued.
type factoryReward struct {
	ID          int64   `json:"id"`
	RewardID    int64   `json:"reward_id"`
	RecipientID int64   `json:"recipient_id"`
	CanBeIssued bool    `json:"can_be_issued"`
	Coupon      *string `json:"coupon"`
	Count       int     `json:"count"`
	Total       float64 `json:"total"`
}

// factoryMetrics are the kinds of rewards. Every reward here is an amount.
var factoryMetrics = []string{"amount", "commission", "coupon", "custom"}

// reward makes one due.
func (f *factory) reward(recipient int64) {
	f.due = append(f.due, &factoryReward{ID: f.rewards, RewardID: 9, RecipientID: recipient, CanBeIssued: true, Count: 1, Total: 25})
	f.rewards++
}

func (f *factory) rewardsPage(req *factoryRequest, all []*factoryReward) reply {
	switch {
	case !slices.Contains(factoryMetrics, req.variable):
		req.seen.Violation = "there is no such metric"
		return f.notFound()
	case req.variable != "amount":
		all = nil
	}
	return factoryList(req, all, func(r *factoryReward) *factoryReward { return r })
}

func (f *factory) listDueRewards(req *factoryRequest) reply { return f.rewardsPage(req, f.due) }

func (f *factory) listIssuedRewards(req *factoryRequest) reply { return f.rewardsPage(req, f.issued) }

// settle takes a reward out of those that are due, nil when it is not among them.
func (f *factory) settle(req *factoryRequest) *factoryReward {
	i := slices.IndexFunc(f.due, func(r *factoryReward) bool { return strconv.FormatInt(r.ID, 10) == req.variable })
	if i < 0 {
		return nil
	}
	r := f.due[i]
	f.due = slices.Delete(slices.Clone(f.due), i, i+1)
	email := ""
	if u := f.users[r.RecipientID]; u != nil {
		email = u.Email
	}
	req.seen.Effect = true
	f.s.effect(req.seen.Operation, email, "")
	return r
}

func (f *factory) issueReward(req *factoryRequest) reply {
	r := f.settle(req)
	if r == nil {
		return f.notFound()
	}
	issued := *r
	issued.CanBeIssued = false
	f.issued = append(f.issued, &issued)
	return reply{status: http.StatusOK, body: struct{}{}}
}

func (f *factory) cancelReward(req *factoryRequest) reply {
	if f.settle(req) == nil {
		return f.notFound()
	}
	return reply{status: http.StatusOK, body: struct{}{}}
}
