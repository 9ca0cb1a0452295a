package sandbox

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone/connectors/referralrock/api"
)

// The states of a reward that the sandbox uses. Issuing takes no time here, so none is ever processing.
const (
	rewardPending = "Pending"
	rewardIssued  = "Issued"
)

// actionPercent is what the rule of paid events gives of an event's amount.
const actionPercent = 5

func (r *rock) tellReward(event api.WebhookEvent, v api.Reward) {
	r.hooks.tell(string(event), api.WebhookReward{
		Id: &v.Id, ProgramId: v.ProgramId, MemberId: v.MemberId, ReferralId: v.ReferralId, RecipientId: v.RecipientId,
		RecipientEmailAddress: v.RecipientEmailAddress, Status: v.Status, Amount: v.Amount, Timestamp: ptr(time.Now().Unix()),
	})
}

// newReward makes the reward that a rule gives the member who brought the referral in.
func newReward(rule api.RewardRule, v api.Referral, id, source string, amount float64, now time.Time) api.Reward {
	eligible := now.AddDate(0, 0, value(rule.DeliveryDelay))
	return api.Reward{
		Id: id, ProgramId: ptr(v.ProgramId), ProgramName: v.ProgramName, ProgramRewardRuleId: ptr(rule.RuleId),
		MemberId: ptr(v.ReferringMemberId), ReferralId: ptr(v.Id), ReferralDisplayName: v.DisplayName, Type: ptr("Member"),
		RecipientId: ptr(v.ReferringMemberId), RecipientName: v.ReferringMemberName, RecipientEmailAddress: v.MemberEmail,
		RecipientExternalIdentifier: v.MemberExternalIdentifier, Status: ptr(rewardPending), Amount: &amount, CurrencyCode: ptr("EUR"),
		Description: rule.Description, PayoutId: rule.PayoutId, PayoutDescription: rule.PayoutDescription, Source: &source,
		CreateDate: stamp(now), UpdateDate: stamp(now), EligibilityDate: stamp(eligible),
	}
}

func (r *rock) earn(v api.Reward, now time.Time) {
	r.rewards.add(stored[api.Reward]{v: v, since: now})
	r.tellReward(api.RewardAdd, v)
}

// reward gives what the program's rules promise for a referral's status.
func (r *rock) reward(v api.Referral, now time.Time) {
	for _, rule := range r.rules {
		if t := rule.Trigger; rule.IsEnabled && value(rule.ProgramId) == v.ProgramId && t != nil && strings.EqualFold(value(t.ReferralStatus), v.Status) {
			r.earn(newReward(rule, v, newID(), "Status Based", value(rule.Reward.FixedAmount), now), now)
		}
	}
}

// rewardAction gives what the program's rules promise for a paid event.
func (r *rock) rewardAction(v api.Referral, in api.ReferralAction, now time.Time) {
	for _, rule := range r.rules {
		if rule.IsEnabled && value(rule.ProgramId) == v.ProgramId && rule.Reward.StartingPercentAmount != nil && in.Amount > 0 {
			cents := math.Round(in.Amount * *rule.Reward.StartingPercentAmount)
			r.earn(newReward(rule, v, newID(), "Referral Action", cents/100, now), now)
		}
	}
}

func (r *rock) listRewards(req *request) reply {
	q := req.URL.Query()
	query, program, member, status := q.Get("query"), q.Get("programId"), q.Get("memberId"), q.Get("status")
	rows := r.rewards.rows
	if query != "" {
		wanted := keys(key("email", &query), key("recipient", &query), key("external", &query))
		for _, m := range r.members.find(key("code", &query)) {
			wanted = append(wanted, key("recipient", &m.v.Id))
		}
		rows = r.rewards.find(wanted...)
	}
	rewards, offset, total, err := listing[api.Reward]{
		fits: func(v api.Reward) bool {
			p := r.program(value(v.ProgramId))
			return (program == "" || p != nil && inProgram(program, p.Id, &p.Name, p.Title)) &&
				(member == "" || value(v.MemberId) == member) && (status == "" || strings.EqualFold(value(v.Status), status))
		},
		created: func(v api.Reward) *string { return v.CreateDate },
	}.page(req, rows)
	if err != nil {
		return r.wrong(req, err.Error())
	}
	return reply{status: http.StatusOK, body: api.RewardSet{Offset: &offset, Total: &total, Rewards: rewards}}
}

// eligible says whether a reward may be issued by now.
func eligible(v api.Reward, now time.Time) bool {
	at, err := time.Parse(wireTime, value(v.EligibilityDate))
	return err != nil || !now.Before(at)
}

func (r *rock) issueReward(req *request) reply {
	in, ok := decode[api.IssueReward](req)
	if !ok {
		return r.unreadable(req)
	}
	at, words := only("reward", r.rewards.at(keys(key("id", &in.RewardId))...))
	if at < 0 {
		return r.failure(http.StatusNotFound, words)
	}
	v, now := r.rewards.rows[at].v, time.Now()
	switch {
	case value(v.Status) == rewardIssued:
		words = "The reward was issued before"
	case !eligible(v, now) && req.URL.Query().Get("overrideIneligible") != "true":
		words = "The reward is not eligible before " + value(v.EligibilityDate)
	}
	if words != "" {
		return reply{status: http.StatusOK, body: api.IssueRewardResult{Reward: &v, ResultInfo: result(itemDone, words)}}
	}
	r.effect(req, value(v.RecipientEmailAddress), v.Id)
	v.Status, v.IssueDate, v.UpdateDate, v.CompleteNote = ptr(rewardIssued), stamp(now), stamp(now), in.Note
	transfer := r.transfer(v, newID(), now)
	v.TransactionID = &transfer.Id
	r.transactions = append(r.transactions, transfer)
	r.rewards.set(at, v)
	r.tellReward(api.RewardUpdate, v)
	r.tellReward(api.RewardIssue, v)
	done := result(itemDone, "")
	done.Message = ptr("Reward issued")
	return reply{status: http.StatusOK, body: api.IssueRewardResult{Reward: &v, ResultInfo: done}}
}

// transfer is how a reward reaches its recipient.
func (r *rock) transfer(v api.Reward, id string, now time.Time) api.PayoutTransaction {
	kind := ""
	if i := slices.IndexFunc(r.payouts, func(p api.Payout) bool { return p.Id == value(v.PayoutId) }); i >= 0 {
		kind = value(r.payouts[i].PayoutType)
	}
	return api.PayoutTransaction{
		Id: id, RecipientId: v.RecipientId, Amount: v.Amount, CurrencyCode: v.CurrencyCode, Status: ptr("Complete"),
		TransactionType: &kind, TransactionDestination: v.RecipientEmailAddress, CreateDate: stamp(now),
	}
}

func (r *rock) removeRewards(req *request) reply {
	ids, ok := decode[[]string](req)
	if !ok {
		return r.unreadable(req)
	}
	results := []api.RemoveRewardResult{}
	for _, id := range ids {
		at, words := only("reward", r.rewards.at(keys(key("id", &id))...))
		if at >= 0 {
			v := r.rewards.rows[at].v
			if value(v.Status) == rewardIssued {
				words = "An issued reward cannot be removed"
			} else {
				r.rewards.drop(at)
				r.quietly(req, value(v.RecipientEmailAddress), v.Id)
				r.tellReward(api.RewardDelete, v)
			}
		}
		results = append(results, api.RemoveRewardResult{RewardId: id, ResultInfo: result(itemDone, words)})
	}
	return reply{status: http.StatusOK, body: results}
}

// listRewardRules answers with a bare array.
func (r *rock) listRewardRules(req *request) reply {
	p := r.program(req.URL.Query().Get("programId"))
	if p == nil {
		return r.failure(http.StatusNotFound, "Program not found")
	}
	rules := []api.RewardRule{}
	for _, rule := range r.rules {
		if value(rule.ProgramId) == p.Id {
			rules = append(rules, rule)
		}
	}
	return reply{status: http.StatusOK, body: rules}
}

func (r *rock) getPayout(req *request) reply {
	for _, p := range r.payouts {
		if p.Id == req.PathValue("id") {
			return reply{status: http.StatusOK, body: api.PayoutSet{Offset: ptr(0), Total: ptr(1), Payouts: []api.Payout{p}}}
		}
	}
	return r.failure(http.StatusNotFound, "Payout not found")
}

// listPendingPayouts adds up what is owed, by payout type, program and recipient.
func (r *rock) listPendingPayouts(req *request) reply {
	q, now := req.URL.Query(), time.Now()
	sums, order := map[string]*api.PayoutPending{}, []string{}
	for _, s := range r.rewards.rows {
		v := s.v
		if !s.shows(now) || value(v.Status) != rewardPending || (!eligible(v, now) && q.Get("includeIneligible") != "true") ||
			(q.Get("recipientId") != "" && q.Get("recipientId") != value(v.RecipientId)) ||
			(q.Get("memberId") != "" && q.Get("memberId") != value(v.MemberId)) {
			continue
		}
		k := value(v.PayoutId) + " " + value(v.ProgramId) + " " + value(v.RecipientId)
		sum := sums[k]
		if sum == nil {
			sum = &api.PayoutPending{
				PayoutId: value(v.PayoutId), Description: v.PayoutDescription, ProgramId: v.ProgramId, ProgramName: v.ProgramName,
				MemberId: v.MemberId, MemberName: v.RecipientName, RecipientId: v.RecipientId, RecipientName: v.RecipientName,
				RecipientType: v.Type, RewardCount: ptr(0), Amount: ptr(0.0), RewardsList: ptr(""),
			}
			sums[k], order = sum, append(order, k)
		}
		*sum.RewardCount++
		*sum.Amount += value(v.Amount)
		*sum.RewardsList = strings.TrimPrefix(*sum.RewardsList+","+v.Id, ",")
	}
	pending := make([]api.PayoutPending, 0, len(order))
	for _, k := range order {
		pending = append(pending, *sums[k])
	}
	return reply{status: http.StatusOK, body: api.PayoutPendingSet{Offset: ptr(0), Total: ptr(len(pending)), PayoutsPending: pending}}
}

func (r *rock) listPayoutTransactions(req *request) reply {
	recipient, id := req.URL.Query().Get("recipientId"), req.URL.Query().Get("transactionId")
	found := []api.PayoutTransaction{}
	for _, t := range slices.Backward(r.transactions) {
		if (recipient == "" || recipient == value(t.RecipientId)) && (id == "" || id == t.Id) {
			found = append(found, t)
		}
	}
	return reply{status: http.StatusOK, body: api.PayoutTransactionSet{Offset: ptr(0), Total: ptr(len(found)), PayoutTransactions: found}}
}

// reset puts the data back as it was at the start: two programs, three members, and what they brought
// in. Rewards are dated from now on back, so that one can be issued, one cannot yet, and one was.
func (r *rock) reset() {
	r.hooks.reset()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.codes, r.transactions, r.actions = 0, nil, map[string]bool{}
	r.members, r.referrals, r.rewards = newTable(memberKeys), newTable(referralKeys), newTable(rewardKeys)
	r.unsubscribed = map[string]bool{}
	for _, e := range r.s.opts.Unsubscribed {
		r.unsubscribed[strings.ToLower(string(e))] = true
	}
	program := func(id, name, title, offer string) api.Program {
		return api.Program{
			Id: id, Name: name, IsActive: true, Title: &title, Type: ptr("Web"), MemberOffer: &offer, ReferralOffer: ptr("10 % off"),
			DirectUrl: ptr("https://refer.example.com/" + name), WidgetUrl: ptr("https://refer.example.com/w/" + name),
		}
	}
	r.programs = []api.Program{
		program("6f1d2c44-0a7e-4c55-9a51-2f9f6d1f0b10", "customers-2026", "Bring a friend", "20 EUR credit"),
		program("6f1d2c44-0a7e-4c55-9a51-2f9f6d1f0b20", "partners-2026", "Bring a business", "5 % of every payment"),
	}
	r.payouts = []api.Payout{
		{Id: "3c9d8e7f-1111-4222-8333-444455556666", Description: ptr("Account credit"), PayoutType: ptr("Custom"), PayoutPrograms: &[]map[string]any{}},
		{Id: "3c9d8e7f-1111-4222-8333-444455557777", Description: ptr("Bank transfer"), PayoutType: ptr("Custom"), PayoutPrograms: &[]map[string]any{}},
	}
	rule := func(id, words string, payout api.Payout) api.RewardRule {
		return api.RewardRule{
			RuleId: id, IsEnabled: true, Description: &words, ProgramId: &r.programs[0].Id, PayoutId: &payout.Id, PayoutType: payout.PayoutType,
			PayoutDescription: payout.Description, DeliveryType: ptr("Automatic"), DeliveryDelay: ptr(30),
			Trigger: &api.RewardRule_Trigger{}, Reward: &api.RewardRule_Reward{},
		}
	}
	fixed := rule("7d0e7b1c-0000-4000-8000-000000000001", "20 EUR for an approved referral", r.payouts[0])
	fixed.Trigger.ReferralStatus = ptr("Approved")
	fixed.Reward.AmountCalculationMethod, fixed.Reward.FixedAmount = ptr("Fixed"), ptr(20.0)
	percent := rule("7d0e7b1c-0000-4000-8000-000000000002", fmt.Sprintf("%d %% of every payment", actionPercent), r.payouts[1])
	percent.Reward.AmountCalculationMethod, percent.Reward.StartingPercentAmount = ptr("Percent"), ptr(float64(actionPercent))
	r.rules = []api.RewardRule{fixed, percent}

	now := time.Now().UTC().Truncate(24 * time.Hour)
	joined := time.Date(2026, 2, 3, 14, 5, 9, 0, time.UTC)
	member := func(p api.Program, id, first, last, email, code, external string) api.Member {
		m := newMember(p, id, first, &last, email, code, "Activated", joined)
		m.ExternalIdentifier, m.ActivatedDate, m.Views, m.EmailShares, m.SocialShares = &external, stamp(joined), ptr(41), ptr(3), ptr(1)
		r.members.add(stored[api.Member]{v: m})
		return m
	}
	ines := member(r.programs[0], "b0c3a9de-7a0b-4f0e-8e6c-3d7c0f6f5a01", "Ines", "Duarte", "ines.duarte@example.com", "INES1042", "crm-1042")
	ada := member(r.programs[0], "b0c3a9de-7a0b-4f0e-8e6c-3d7c0f6f5a02", "Ada", "Advocate", "ada.advocate@example.com", "ADA2026", "crm-1043")
	member(r.programs[1], "b0c3a9de-7a0b-4f0e-8e6c-3d7c0f6f5a03", "Ines", "Duarte", "ines.duarte@example.com", "INESBIZ", "crm-1042-partner")

	referral := func(by api.Member, id, first, last, email, external string, amount float64, days int, statuses ...api.ReferralStatus) api.Referral {
		at := now.AddDate(0, 0, -days)
		v := newReferral(by, api.NewReferral{FirstName: &first, LastName: &last, Email: &email, ExternalIdentifier: &external, Amount: &amount}, id, at)
		for _, status := range statuses {
			_ = move(&v, status, at)
		}
		r.referrals.add(stored[api.Referral]{v: v})
		return v
	}
	rosa := referral(ines, "2e7f7b52-6c0d-4c3e-9f3e-6f7a9c1d2e01", "Rosa", "Keller", "rosa.keller@example.com", "crm-2040", 180, 90, api.Qualified, api.Approved)
	noor := referral(ada, "2e7f7b52-6c0d-4c3e-9f3e-6f7a9c1d2e02", "Noor", "Haddad", "noor.haddad@example.com", "crm-2041", 100, 60, api.Qualified)
	referral(ines, "2e7f7b52-6c0d-4c3e-9f3e-6f7a9c1d2e03", "Tomas", "Blei", "tomas.blei@example.com", "crm-2042", 0, 10)

	seeded := func(v api.Reward) { r.rewards.add(stored[api.Reward]{v: v}) }
	issued := newReward(percent, rosa, "9a4f0c1e-55aa-4b6b-8d0f-1f2e3d4c5b05", "Referral Action", 9, now.AddDate(0, 0, -80))
	paid := now.AddDate(0, 0, -50).Add(8 * time.Hour)
	issued.Status, issued.IssueDate, issued.TransactionID = ptr(rewardIssued), stamp(paid), ptr("0f0e0d0c-0b0a-4908-8706-050403020100")
	r.transactions = append(r.transactions, r.transfer(issued, *issued.TransactionID, paid))
	seeded(issued)
	seeded(newReward(fixed, rosa, "9a4f0c1e-55aa-4b6b-8d0f-1f2e3d4c5b06", "Status Based", 20, now.AddDate(0, 0, -60)))
	seeded(newReward(percent, noor, "9a4f0c1e-55aa-4b6b-8d0f-1f2e3d4c5b07", "Referral Action", 5, now.AddDate(0, 0, -10)))
}
