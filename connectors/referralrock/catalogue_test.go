package referralrock_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/sandbox"
)

// What the sandbox holds at the start.
const (
	program  = "6f1d2c44-0a7e-4c55-9a51-2f9f6d1f0b10"
	ines     = "b0c3a9de-7a0b-4f0e-8e6c-3d7c0f6f5a01"
	ada      = "b0c3a9de-7a0b-4f0e-8e6c-3d7c0f6f5a02"
	approved = "2e7f7b52-6c0d-4c3e-9f3e-6f7a9c1d2e01"
	pending  = "2e7f7b52-6c0d-4c3e-9f3e-6f7a9c1d2e03"
	issued   = "9a4f0c1e-55aa-4b6b-8d0f-1f2e3d4c5b05"
	owed     = "9a4f0c1e-55aa-4b6b-8d0f-1f2e3d4c5b06"
	early    = "9a4f0c1e-55aa-4b6b-8d0f-1f2e3d4c5b07"
)

// example reads a request of the provider's examples as the arguments of its operation.
func example(t *testing.T, a *connectors.Account, file string) map[string]any {
	t.Helper()
	operation, _, _ := strings.Cut(file, ".")
	e, err := a.Endpoint(operation)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join("testdata", "requests", file+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var body any
	if err := json.Unmarshal(data, &body); err != nil {
		t.Fatal(err)
	}
	switch e.Body {
	case connectors.ListBody:
		return map[string]any{connectors.ItemsArgument: body}
	case connectors.TextBody:
		return map[string]any{connectors.TextArgument: body}
	}
	return body.(map[string]any)
}

// called calls an operation, wants it to succeed and its answer to keep to the specification.
func called(t *testing.T, a *connectors.Account, operation string, arguments map[string]any) any {
	t.Helper()
	answer, err := a.Call(t.Context(), operation, arguments)
	var f *connectors.Fault
	if refused := errors.As(err, &f) && f.Class == connectors.Refused && answer.Status == http.StatusOK; err != nil && !refused {
		t.Errorf("%s(%v) = %v", operation, arguments, err)
		return nil
	}
	e, err := a.Endpoint(operation)
	if err != nil {
		t.Fatal(err)
	}
	conforms(t, e, answer)
	var v any
	if err := json.Unmarshal(answer.Body, &v); err != nil {
		t.Error(err)
	}
	return v
}

// at walks into a JSON value by keys and positions, nil where there is nothing.
func at(v any, path ...any) any {
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[p]
		case int:
			l, _ := v.([]any)
			if p >= len(l) {
				return nil
			}
			v = l[p]
		}
	}
	return v
}

// Every operation of the catalogue does at the sandbox what it is for. The steps build on each other,
// as one afternoon of a marketer would.
func TestEveryOperationOfTheCatalogue(t *testing.T) {
	a, box := sandboxed(t)
	steps := []struct {
		operation string
		example   string         // of the request; empty: none
		arguments map[string]any // instead of an example, or beside it
		path      []any          // of the value looked at in the answer
		want      any
	}{
		{"listPrograms", "", nil, []any{"total"}, 2.0},
		{"getProgram", "", map[string]any{"programName": "customers-2026"}, []any{"id"}, program},
		{"createInviteFeedEntry", "createInviteFeedEntry.request", nil, []any{"outcome"}, "MemberPreloaded"},
		{"createInviteFeedEntries", "createInviteFeedEntries.request", nil, []any{1, "outcome"}, "Skipped"},
		{"createMember", "", map[string]any{"programId": program, "firstName": "Grace", "email": "grace@example.com", "referralCode": "GRACE1", "shouldSendEmail": true}, []any{"member", "status"}, "Preloaded"},
		{"listMembers", "", map[string]any{"query": "GRACE1"}, []any{"members", 0, "email"}, "grace@example.com"},
		{"listMembers", "", map[string]any{"query": "tomas.blei@example.com", "showDisabled": true}, []any{"members", 0, "status"}, "Invited"},
		{"createMemberAccessUrls", "createMemberAccessUrls.request", nil, []any{"referralCode"}, "INES1042"},
		{"createReferral", "createReferral.request", nil, []any{"message"}, "Referral Added"},
		{"createReferral", "createReferral.request.minimal", nil, []any{"referral", "status"}, "pending"},
		{"getReferral", "", map[string]any{"externalId": "invite-7f3a"}, []any{"firstName"}, "Tomas"},
		{"listReferrals", "", map[string]any{"memberId": ines, "status": "pending"}, []any{"total"}, 3.0},
		{"updateReferrals", "updateReferrals.request", nil, []any{0, "resultInfo", "Status"}, "Succeeded"},
		{"getReferral", "", map[string]any{"externalId": "invite-7f3a"}, []any{"publicNote"}, "Booked a demo"},
		{"updateReferralStatus", "updateReferralStatus.request", nil, []any{"message"}, nil},
		{"getReferral", "", map[string]any{"referralId": pending}, []any{"status"}, "approved"},
		{"listRewards", "", map[string]any{"query": "INES1042", "status": "pending"}, []any{"total"}, 2.0}, // one for the approval
		{"createReferralAction", "", map[string]any{"amount": 49.9, "referralQuery": "invite-7f3a", "externalIdentifier": "order-2026-000981"}, []any{"message"}, nil},
		{"listRewards", "", map[string]any{"memberId": ines}, []any{"rewards", 0, "amount"}, 2.5},
		{"createReferralAction", "", map[string]any{"amount": 49.9, "referralQuery": "invite-7f3a", "externalIdentifier": "order-2026-000981"}, []any{"message"}, "Referral action already exists"},
		{"listRewards", "", map[string]any{"memberId": ines, "programId": "customers-2026"}, []any{"total"}, 4.0},
		{"listRewardRules", "", map[string]any{"programId": program}, []any{0, "reward", "fixedAmount"}, 20.0},
		{"listPendingPayouts", "", map[string]any{"recipientId": ines}, []any{"payoutsPending", 0, "amount"}, 20.0},
		{"listPendingPayouts", "", map[string]any{"includeIneligible": true}, []any{"total"}, 3.0},
		{"issueReward", "issueReward.request", nil, []any{"reward", "status"}, "Issued"},
		{"listPayoutTransactions", "", map[string]any{"recipientId": ines}, []any{"payoutTransactions", 0, "amount"}, 20.0},
		{"getPayout", "", map[string]any{"id": "3c9d8e7f-1111-4222-8333-444455556666"}, []any{"payouts", 0, "description"}, "Account credit"},
		{"getMemberStats", "", map[string]any{"query": "INES1042", "timePeriod": "All"}, []any{"referralsApproved"}, 2.0},
		{"removeRewards", "", map[string]any{"items": []any{early}}, []any{0, "resultInfo", "Status"}, "Success"},
		{"deleteRewards", "deleteRewards.request", nil, []any{0, "resultInfo", "Status"}, "Failed"}, // it was issued
		{"unsubscribeEmail", "unsubscribeEmail.request", nil, []any{"message"}, nil},
		{"getEmailUnsubscribed", "", map[string]any{"email": "Tomas.Blei@example.com"}, []any{0}, "tomas.blei@example.com"},
		{"removeEmailUnsubscribe", "removeEmailUnsubscribe.request", nil, []any{"message"}, nil},
		{"getEmailUnsubscribed", "", map[string]any{"email": "tomas.blei@example.com"}, []any{0}, nil},
		{"deleteEmailUnsubscribe", "deleteEmailUnsubscribe.request", nil, []any{"message"}, nil},
		{"createHook", "", map[string]any{"target_url": "http://127.0.0.1:1/hook", "event": "MemberDelete"}, []any{"message"}, nil},
		{"getHookHistory", "", map[string]any{"eventName": "MemberAdd"}, []any{0}, nil},
		{"removeReferrals", "removeReferrals.request", nil, []any{0, "resultInfo", "Status"}, "Success"},
		{"deleteReferrals", "deleteReferrals.request", nil, []any{0, "resultInfo", "Message"}, "No referral matches the query"},
		{"removeMembers", "removeMembers.request", nil, []any{1, "resultInfo", "Message"}, "No member matches the query"},
		{"deleteMembers", "deleteMembers.request", nil, []any{0, "resultInfo", "Status"}, "Failed"},
	}
	seen := map[string]bool{"deleteHook": true} // below: its id is made up on the way
	for _, step := range steps {
		arguments := map[string]any{}
		if step.example != "" {
			arguments = example(t, a, step.example)
		}
		maps.Copy(arguments, step.arguments)
		if got := at(called(t, a, step.operation, arguments), step.path...); got != step.want {
			t.Errorf("%s(%v): %v is %v, want %v", step.operation, arguments, step.path, got, step.want)
		}
		seen[step.operation] = true
	}
	hook := called(t, a, "createHook", example(t, a, "createHook.request"))
	called(t, a, "deleteHook", map[string]any{"web_hook_id": at(hook, "web_hook_id")})
	for _, e := range a.Kind().Endpoints {
		if !seen[e.Name] {
			t.Errorf("%s is not called", e.Name)
		}
	}
	if v := box.Violations(); len(v) != 0 {
		t.Errorf("violations = %+v, want none", v)
	}
}

// Requests that the specification allows and the provider refuses, in its words.
func TestRefusalsOfTheProvider(t *testing.T) {
	for _, tc := range []struct {
		name, operation string
		arguments       map[string]any
		status          int
		words           string
	}{
		{"member of no program", "createMember", map[string]any{"programId": "none", "firstName": "G", "email": "g@example.com"}, 404, "Program not found"},
		{"member who is there", "createMember", map[string]any{"programId": program, "firstName": "I", "email": "INES.duarte@example.com"}, 400, "already exists"},
		{"code of another member", "createMember", map[string]any{"programId": program, "firstName": "G", "email": "g@example.com", "referralCode": "ines1042"}, 400, "already in use"},
		{"recruiter by half", "createMember", map[string]any{"programId": program, "firstName": "G", "email": "g@example.com", "recruiterAssignedId": "x"}, 400, "recruiterSourceId"},
		{"region without country", "createReferral", map[string]any{"referralCode": "INES1042", "region": "PT-13"}, 400, "country"},
		{"statistics of nobody", "getMemberStats", map[string]any{"query": "nobody", "timePeriod": "All"}, 404, "No member"},
		{"statistics of two", "getMemberStats", map[string]any{"query": "ines.duarte@example.com", "timePeriod": "All"}, 404, "More than one member"},
		{"links of two", "createMemberAccessUrls", map[string]any{"emailAddress": "ines.duarte@example.com"}, 404, "More than one member"},
		{"action of nobody", "createReferralAction", map[string]any{"amount": 1, "referralQuery": "nobody"}, 404, "No referral"},
		{"action in another program", "createReferralAction", map[string]any{"amount": 1, "referralQuery": pending, "programQuery": "partners-2026"}, 400, "No referral"},
		{"status of no referral", "updateReferralStatus", map[string]any{"referralId": "nothing", "status": "denied"}, 404, "No referral"},
		{"status in another program", "updateReferralStatus", map[string]any{"referralId": pending, "programId": "partners-2026", "status": "denied"}, 404, "No referral"},
		{"status out of approved", "updateReferralStatus", map[string]any{"referralId": approved, "status": "denied"}, 400, "keeps its status"},
		{"reward that is not there", "issueReward", map[string]any{"rewardId": "nothing"}, 404, "No reward"},
		{"rules of no program", "listRewardRules", map[string]any{"programId": "none"}, 404, "Program not found"},
		{"payout that is not there", "getPayout", map[string]any{"id": "nothing/at all"}, 404, "Payout not found"},
		{"subscription that is not there", "deleteHook", map[string]any{"web_hook_id": pending}, 404, "Subscription not found"},
		{"subscriber without HTTP", "createHook", map[string]any{"target_url": "mailto:ann", "event": "MemberAdd"}, 400, "no http or https"},
		{"date that is none", "listRewards", map[string]any{"dateFrom": "yesterday"}, 400, "dateFrom"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, box := sandboxed(t)
			answer, err := a.Call(t.Context(), tc.operation, tc.arguments)
			var f *connectors.Fault
			if !errors.As(err, &f) || answer.Status != tc.status || !strings.Contains(string(answer.Body), tc.words) {
				t.Fatalf("answered %d %s, %v; want %d with %q", answer.Status, answer.Body, err, tc.status, tc.words)
			}
			e, _ := a.Endpoint(tc.operation)
			conforms(t, e, answer)
			if n := box.Effects().Total; n != 0 {
				t.Errorf("a refused request had %d effects", n)
			}
		})
	}
}

func member(query map[string]any) map[string]any { return map[string]any{"query": query} }

// Of a bulk call each item succeeds or fails by itself, in the order of the items.
func TestBulkResultsAreOfEachItem(t *testing.T) {
	byID := func(key, id string) map[string]any {
		return member(map[string]any{"primaryInfo": map[string]any{key: id}})
	}
	byEmail := func(email string, program map[string]any) map[string]any {
		return member(map[string]any{"secondaryInfo": map[string]any{"email": email}, "tertiaryInfo": program})
	}
	members := []any{
		byID("memberId", ines),
		byID("memberId", ines), // gone by now
		byID("referralCode", "ADA2026"),
		member(map[string]any{"secondaryInfo": map[string]any{"email": "ines.duarte@example.com"}}), // names no program
		byEmail("ines.duarte@example.com", map[string]any{"programName": "partners-2026"}),
		member(map[string]any{}),
	}
	referrals := []any{
		byID("referralId", approved),
		byID("referralId", "nothing"),
		byEmail("Tomas.Blei@example.com", map[string]any{"ProgramTitle": "Bring a friend"}),
		byEmail("tomas.blei@example.com", map[string]any{"ProgramId": program}), // gone by now
		member(map[string]any{"fuzzyInfo": map[string]any{"Identifier": "crm-2041"}}),
		byEmail("noor.haddad@example.com", map[string]any{"ProgramId": program, "ProgramName": "customers-2026"}), // names it twice
	}
	change := func(query map[string]any, status string) map[string]any {
		return map[string]any{"query": query["query"], "referral": map[string]any{"status": status, "note": status}}
	}
	tomas := byID("referralId", pending)
	for _, tc := range []struct {
		operations []string
		items      []any
		word       string
		want       []bool
	}{
		{[]string{"removeMembers", "deleteMembers"}, members, "Success", []bool{true, false, true, false, true, false}},
		{[]string{"removeReferrals", "deleteReferrals"}, referrals, "Success", []bool{true, false, true, false, true, false}},
		{[]string{"removeRewards", "deleteRewards"}, []any{owed, issued, early, owed}, "Success", []bool{true, false, true, false}},
		{[]string{"updateReferrals"}, []any{
			change(tomas, "denied"), change(byID("referralId", approved), "pending"), change(tomas, "qualified"), change(byID("referralId", "nothing"), "denied"),
			change(tomas, "denied"), change(tomas, "qualified"), // it was qualified before
			change(tomas, "pending"), change(byID("referralId", approved), "denied"),
		}, "Succeeded", []bool{true, false, true, false, true, false, true, false}},
	} {
		for _, operation := range tc.operations {
			t.Run(operation, func(t *testing.T) {
				a, box := sandboxed(t)
				results, _ := called(t, a, operation, map[string]any{"items": tc.items}).([]any)
				if len(results) != len(tc.want) {
					t.Fatalf("%d results, want %d", len(results), len(tc.want))
				}
				done := 0
				for i, want := range tc.want {
					status, words := at(results[i], "resultInfo", "Status"), at(results[i], "resultInfo", "Message")
					if want {
						done++
					}
					if (status == tc.word) != want || (!want && (status != "Failed" || words == nil)) {
						t.Errorf("item %d: %v, %v; want done %t", i, status, words, want)
					}
					sent, _ := json.Marshal(at(tc.items[i], "query"))
					echo, _ := json.Marshal(at(results[i], "query"))
					if string(sent) != string(echo) {
						t.Errorf("item %d is about %s, want %s", i, echo, sent)
					}
				}
				if n := box.Effects().Total; n != done {
					t.Errorf("%d effects, want %d", n, done)
				}
				if v := box.Violations(); len(v) != 0 {
					t.Errorf("violations = %+v, want none", v)
				}
			})
		}
	}
}

func TestInviteFeedAnswersEachContact(t *testing.T) {
	a, _ := sandboxed(t)
	var items []any
	for i := range 6 {
		items = append(items, map[string]any{"firstName": "New", "email": fmt.Sprintf("new%d@example.com", i/2)})
	}
	results, _ := called(t, a, "createInviteFeedEntries", map[string]any{"items": items}).([]any)
	for i, want := range []string{"MemberPreloaded", "Skipped", "MemberPreloaded", "Skipped", "MemberPreloaded", "Skipped"} {
		if got := at(results, i, "outcome"); got != want || at(results, i, "email") != at(items, i, "email") {
			t.Errorf("contact %d: %v, want %s", i, got, want)
		}
	}
}

// A misspelt key of a query points at nothing, is refused for that item, and is a violation.
func TestQueryWithUnknownKeyIsAViolation(t *testing.T) {
	a, box := sandboxed(t)
	items := []any{member(map[string]any{"primaryInfo": map[string]any{"memberID": ines}}), member(map[string]any{"primaryInfo": map[string]any{"member": ada}})}
	answer, err := a.Call(t.Context(), "removeMembers", map[string]any{"items": items})
	var got any
	if err := errors.Join(err, json.Unmarshal(answer.Body, &got)); err != nil {
		t.Fatal(err)
	}
	if at(got, 0, "resultInfo", "Status") != "Success" { // letter case does not matter
		t.Errorf("first item: %v", at(got, 0))
	}
	if v := box.Violations(); at(got, 1, "resultInfo", "Status") != "Failed" || len(v) != 1 {
		t.Errorf("second item: %v, violations %+v; want it failed and one violation", at(got, 1), v)
	}
}

// Every list that has pages is walked to its end by what the catalogue says of it: each element once.
func TestPagesAreWalked(t *testing.T) {
	a, box := sandboxed(t)
	for i := range 23 {
		called(t, a, "createMember", map[string]any{"programId": program, "firstName": "M", "email": fmt.Sprintf("m%d@example.com", i)})
		called(t, a, "createReferral", map[string]any{"referralCode": "ADA2026", "email": fmt.Sprintf("r%d@example.com", i), "status": "approved", "amount": i})
	}
	want := map[string]int{"listPrograms": 2, "listMembers": 26, "listReferrals": 26, "listRewards": 26}
	walked := 0
	for _, e := range a.Kind().Endpoints {
		if !e.Paging.Pages() {
			continue
		}
		walked++
		for _, size := range []int{1, 7, 26, 1000} {
			ids, offset, total := map[any]bool{}, 0, 0
			for {
				page, _ := called(t, a, e.Name, map[string]any{e.Paging.Offset: offset, e.Paging.Size: size}).(map[string]any)
				total = int(page["total"].(float64))
				items := elements(page)
				if int(page["offset"].(float64)) != offset || len(items) > size {
					t.Fatalf("%s: offset %v with %d elements, want %d with at most %d", e.Name, page["offset"], len(items), offset, size)
				}
				for _, item := range items {
					ids[at(item, "id")] = true
				}
				if offset += len(items); len(items) == 0 || offset >= total {
					break
				}
			}
			if len(ids) != want[e.Name] || offset != total {
				t.Errorf("%s in pages of %d: %d different of %d, total %d; want %d", e.Name, size, len(ids), offset, total, want[e.Name])
			}
		}
	}
	if walked != len(want) {
		t.Errorf("%d lists have pages, want %d", walked, len(want))
	}
	if page := called(t, a, "listMembers", nil); len(elements(page)) != 26 {
		t.Errorf("the first page has %d members, want all 26, which is less than a page", len(elements(page)))
	}
	if v := box.Violations(); len(v) != 0 {
		t.Errorf("violations = %+v, want none", v)
	}
}

// elements is the one array of a page.
func elements(page any) []any {
	m, _ := page.(map[string]any)
	for _, v := range m {
		if l, ok := v.([]any); ok {
			return l
		}
	}
	return nil
}

func TestListsAreFilteredAndSorted(t *testing.T) {
	a, _ := sandboxed(t)
	called(t, a, "createMember", map[string]any{"programId": program, "firstName": "D", "email": "off@example.com", "disabledFlag": true})
	tomorrow, now := time.Now().UTC().AddDate(0, 0, 1).Format(time.DateOnly), time.Now().UTC()
	for _, tc := range []struct {
		name, operation string
		arguments       map[string]any
		want            []any // ids or addresses
	}{
		{"disabled members are hidden", "listMembers", map[string]any{"query": "off@example.com"}, nil},
		{"disabled members on demand", "listMembers", map[string]any{"query": "off@example.com", "showDisabled": true}, []any{"off@example.com"}},
		{"members of a program by its title", "listMembers", map[string]any{"programId": "Bring a business"}, []any{"ines.duarte@example.com"}},
		{"members since a day", "listMembers", map[string]any{"dateFrom": "2026-02-04", "dateTo": "2026-02-05"}, nil},
		{"members of a day", "listMembers", map[string]any{"dateFrom": "02/03/2026 14:05:09", "dateTo": "2026-02-04", "sort": "Create_Dt_Asc"}, []any{"ines.duarte@example.com", "ada.advocate@example.com", "ines.duarte@example.com"}},
		{"members before the second", "listMembers", map[string]any{"dateTo": "02/03/2026 14:05:09"}, nil},
		{"referrals by amount", "listReferrals", map[string]any{"sort": "Amount_Desc"}, []any{"rosa.keller@example.com", "noor.haddad@example.com", "tomas.blei@example.com"}},
		{"referrals by amount, least first", "listReferrals", map[string]any{"sort": "Amount_Asc"}, []any{"tomas.blei@example.com", "noor.haddad@example.com", "rosa.keller@example.com"}},
		{"referrals by when they were qualified", "listReferrals", map[string]any{"sort": "Qualified_Dt_Desc"}, []any{"noor.haddad@example.com", "rosa.keller@example.com", "tomas.blei@example.com"}},
		{"referrals by when they were closed", "listReferrals", map[string]any{"sort": "Closed_Dt_Desc", "count": 1}, []any{"rosa.keller@example.com"}},
		{"referrals since a month ago", "listReferrals", map[string]any{"dateFrom": now.AddDate(0, 0, -30).Format(time.DateOnly)}, []any{"tomas.blei@example.com"}},
		{"referrals of nobody's", "listReferrals", map[string]any{"memberId": "nobody"}, nil},
		{"referrals by code", "listReferrals", map[string]any{"query": "ada2026"}, []any{"noor.haddad@example.com"}},
		{"rewards until tomorrow", "listRewards", map[string]any{"dateTo": tomorrow, "memberId": ada}, []any{early}},
		{"rewards by code", "listRewards", map[string]any{"query": "ADA2026"}, []any{early}},
		{"rewards by address", "listRewards", map[string]any{"query": "ines.duarte@example.com", "status": "ISSUED"}, []any{issued}},
		{"rewards of another program", "listRewards", map[string]any{"programId": "partners-2026"}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []any
			for _, e := range elements(called(t, a, tc.operation, tc.arguments)) {
				if email := at(e, "email"); email != nil {
					got = append(got, email)
					continue
				}
				got = append(got, at(e, "id"))
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("%v, want %v", got, tc.want)
			}
		})
	}
}

func TestStatisticsCountThePeriod(t *testing.T) {
	a, _ := sandboxed(t)
	called(t, a, "createReferral", map[string]any{"referralCode": "INES1042", "email": "new@example.com", "status": "approved", "amount": 10})
	for period, want := range map[string][3]float64{ // referrals, approved, rewards
		"All": {3, 2, 3}, "Last30Days": {2, 1, 1}, "Last7Days": {1, 1, 1},
	} {
		got := called(t, a, "getMemberStats", map[string]any{"query": ines, "timePeriod": period})
		if n := [3]float64{at(got, "referralsCount").(float64), at(got, "referralsApproved").(float64), at(got, "rewardsCount").(float64)}; n != want {
			t.Errorf("%s: %v, want %v", period, n, want)
		}
	}
	called(t, a, "createMember", map[string]any{"programId": program, "firstName": "G", "email": "g@example.com", "referralCode": "GRACE1"})
	called(t, a, "createReferral", map[string]any{"referralCode": "GRACE1", "email": "now@example.com"})
	for period, want := range map[string]float64{"MonthToDate": 1, "LastMonth": 0} {
		if got := at(called(t, a, "getMemberStats", map[string]any{"query": "GRACE1", "timePeriod": period}), "referralsPending"); got != want {
			t.Errorf("pending, %s: %v, want %v", period, got, want)
		}
	}
}

// A referral is found by what it was changed to, and no longer by what it was.
func TestChangedReferralIsFoundByItsNewAddress(t *testing.T) {
	a, _ := sandboxed(t)
	called(t, a, "updateReferrals", map[string]any{"items": []any{map[string]any{
		"query": map[string]any{"primaryInfo": map[string]any{"referralId": pending}}, "referral": map[string]any{"email": "moved@example.com"},
	}}})
	for email, want := range map[string]float64{"moved@example.com": 1, "tomas.blei@example.com": 0} {
		if got := at(called(t, a, "listReferrals", map[string]any{"query": email}), "total"); got != want {
			t.Errorf("%s: %v referrals, want %v", email, got, want)
		}
	}
}

func TestRewardsAreIssuedOnceAndWhenEligible(t *testing.T) {
	a, box := sandboxed(t)
	issue := func(id string, override bool) string {
		t.Helper()
		answer, err := a.Call(t.Context(), "issueReward", map[string]any{"rewardId": id, "overrideIneligible": override})
		var f *connectors.Fault
		if errors.As(err, &f) && f.Class == connectors.Refused {
			return "Failed"
		}
		var got struct{ ResultInfo struct{ Status string } }
		if err != nil || json.Unmarshal(answer.Body, &got) != nil {
			t.Fatalf("issueReward(%s) = %s, %v", id, answer.Body, err)
		}
		return got.ResultInfo.Status
	}
	for _, step := range []struct {
		id       string
		override bool
		want     string
	}{
		{early, false, "Failed"}, {early, true, "Success"}, {early, true, "Failed"}, {owed, false, "Success"}, {issued, true, "Failed"},
	} {
		if got := issue(step.id, step.override); got != step.want {
			t.Errorf("issueReward(%s, %t) = %v, want %s", step.id, step.override, got, step.want)
		}
	}
	if got := at(called(t, a, "listPayoutTransactions", nil), "total"); got != 3.0 || box.Effects().Total != 2 {
		t.Errorf("%v transfers and %d effects, want 3 and 2", got, box.Effects().Total)
	}
	if got := at(called(t, a, "listPendingPayouts", map[string]any{"includeIneligible": true}), "total"); got != 0.0 {
		t.Errorf("%v payouts pending, want none", got)
	}
}

func step(operation string, parameters map[string]any) connectors.Act {
	return connectors.Act{ID: "e7.step", Operation: operation, Email: "lead@example.com", Parameters: parameters, IntendedAt: time.Now()}
}

// A step may do any operation of the catalogue that rules can name.
func TestStepsDoOperationsOfTheCatalogue(t *testing.T) {
	for _, tc := range []struct {
		name     string
		act      connectors.Act
		detail   string
		email    string // of the effect
		external string
	}{
		{"the lead's address is filled in", step("createMember", map[string]any{"programId": program, "firstName": "Lee"}), "Member Added", "lead@example.com", ""},
		{"an address that is given stays", step("createMember", map[string]any{"programId": program, "firstName": "Lee", "email": "Lead@Example.com"}), "Member Added", "lead@example.com", ""},
		{"an address that is the whole body", step("unsubscribeEmail", nil), "", "lead@example.com", ""},
		{"an operation without an address", step("createReferralAction", map[string]any{"amount": 20.0, "referralQuery": "crm-2041", "externalIdentifier": "o-1"}), "", "noor.haddad@example.com", "o-1"},
		{"an operation that answers per item", step("updateReferrals", map[string]any{"items": []any{map[string]any{
			"query": map[string]any{"primaryInfo": map[string]any{"referralId": pending}}, "referral": map[string]any{"note": "asked twice"},
		}}}), "", "tomas.blei@example.com", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, box := sandboxed(t)
			if _, ok := a.Kind().Operation(tc.act.Operation); ok {
				t.Fatalf("%s is a verb of the connector", tc.act.Operation)
			}
			if !slices.ContainsFunc(a.Kind().RuleOperations(), func(o lodestone.Operation) bool { return o.Name == tc.act.Operation }) {
				t.Errorf("rules cannot name %s", tc.act.Operation)
			}
			r, err := a.Do(t.Context(), tc.act)
			if err != nil || r.Status/100 != 2 || !strings.Contains(r.Detail, tc.detail) {
				t.Fatalf("Do = %+v, %v; want done with %q", r, err, tc.detail)
			}
			e := box.Effects()
			if len(e.ByEmail) != 1 || e.ByEmail[0].Email != tc.email || e.ByEmail[0].Operation != tc.act.Operation || e.Total != 1 {
				t.Errorf("effects = %+v, want one on %s", e, tc.email)
			}
			if tc.external != "" && (len(e.ByExternalID) != 1 || e.ByExternalID[0].ExternalID != tc.external) {
				t.Errorf("effects = %+v, want one of %s", e.ByExternalID, tc.external)
			}
			if v := box.Violations(); len(v) != 0 {
				t.Errorf("violations = %+v, want none", v)
			}
		})
	}
}

func TestStepsWithWrongArgumentsSendNothing(t *testing.T) {
	a, box := sandboxed(t)
	for _, act := range []connectors.Act{
		step("createMember", nil),
		step("createMember", map[string]any{"programId": program, "firstName": "Lee", "emial": "x@example.com"}),
		step("createReferralAction", map[string]any{"amount": "much", "referralQuery": "crm-2041"}),
		step("createReferralAction", map[string]any{"referralQuery": "crm-2041"}),
		step("explode", nil),
	} {
		r, err := a.Do(t.Context(), act)
		var f *connectors.Fault
		if !errors.As(err, &f) || f.Class != connectors.Refused || f.Reason != lodestone.ReasonBadParameters || r != (connectors.Receipt{}) {
			t.Errorf("Do(%s, %v) = %+v, %v; want bad parameters", act.Operation, act.Parameters, r, err)
		}
	}
	if n := len(box.Received()); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
}

// The account's word about a step agrees with the sandbox's count, whatever breaks.
func TestStepsUnderFaults(t *testing.T) {
	for kind, want := range map[sandbox.FaultKind]connectors.Class{
		sandbox.Fault429:              connectors.RateLimited,
		sandbox.Fault401:              connectors.LockedOut,
		sandbox.Fault500:              connectors.Unknown,
		sandbox.Fault500AfterEffect:   connectors.Unknown,
		sandbox.FaultReset:            connectors.Unknown,
		sandbox.FaultResetAfterEffect: connectors.Unknown,
		sandbox.FaultTruncate:         connectors.Unknown,
		sandbox.FaultHTML:             connectors.Unknown,
	} {
		t.Run(string(kind), func(t *testing.T) {
			a, box := sandboxed(t)
			if err := box.Fault(sandbox.Fault{Kind: kind, Operation: "createMember", Email: "lead@example.com"}); err != nil {
				t.Fatal(err)
			}
			_, err := a.Do(t.Context(), step("createMember", map[string]any{"programId": program, "firstName": "Lee"}))
			var f *connectors.Fault
			if !errors.As(err, &f) || f.Class != want {
				t.Fatalf("Do = %v, want %v", err, want)
			}
			if strings.Contains(err.Error(), "lead@example.com") {
				t.Errorf("the error names the address: %v", err)
			}
			if n := len(box.Received()); n != 1 || want != connectors.Unknown && box.Effects().Total != 0 {
				t.Errorf("%d requests with %d effects after %v", n, box.Effects().Total, f.Class)
			}
			if found, err := a.Find(context.WithoutCancel(t.Context()), step("createMember", nil)); err != nil || found.State != connectors.Unsupported {
				t.Errorf("Find = %+v, %v; want unsupported", found, err)
			}
		})
	}
	t.Run("refused", func(t *testing.T) {
		a, box := sandboxed(t)
		_, err := a.Do(t.Context(), connectors.Act{ID: "e1.s", Operation: "createMember", Email: "ines.duarte@example.com", Parameters: map[string]any{"programId": program, "firstName": "I"}})
		var f *connectors.Fault
		if !errors.As(err, &f) || f.Class != connectors.Refused || !strings.Contains(f.Detail, "Member already exists") || box.Effects().Total != 0 {
			t.Errorf("Do = %v, want refused in the provider's words", err)
		}
	})
}
