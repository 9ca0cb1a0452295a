package referralfactory_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/referralfactory"
	"github.com/lodestonehq/lodestone/connectors/sandbox"
)

// Acts on somebody who is there read that person first.
func TestActsOnAPerson(t *testing.T) {
	qualified, absent := list(person("qualified_at", `"2026-06-09"`)), nobody
	setName := map[string]any{"first_name": "Tomás"}
	for _, c := range []struct {
		name   string
		act    connectors.Act
		search answer
		call   answer           // to the act itself; status 0: it must not be made
		class  connectors.Class // empty: done
		reason lodestone.Reason
		says   string
	}{
		{"qualified already", as("qualify", nil), answer{200, qualified}, answer{}, "", "", "is qualified"},
		{"taken back already", as("qualify", map[string]any{"qualified": false}), answer{200, list(person())}, answer{}, "", "", "is not qualified"},
		{"nobody to qualify", as("qualify", nil), answer{200, absent}, answer{}, connectors.Refused, lodestone.ReasonRefused, "not in the campaign"},
		{"two to qualify", as("qualify", nil), answer{200, list(person(), person("id", "124"))}, answer{}, connectors.Refused, lodestone.ReasonRefused, "several times"},
		{"qualified_at is not said", as("qualify", nil), answer{200, list(person("qualified_at", ""))}, answer{}, connectors.Unknown, lodestone.ReasonUnclear, "cannot be read"},
		{"qualified_at is strange", as("qualify", nil), answer{200, list(person("qualified_at", "{}"))}, answer{}, connectors.Unknown, lodestone.ReasonUnclear, "cannot be read"},
		{"the search fails", as("qualify", nil), answer{400, `{"message": "bad filter"}`}, answer{}, connectors.NotDone, lodestone.ReasonNotDone, "bad filter"},
		{"the search is locked out", as("qualify", nil), answer{401, `{"message": "no"}`}, answer{}, connectors.LockedOut, lodestone.ReasonProviderUnavailable, "no"},
		{"the search is rate limited", as("qualify", nil), answer{429, `{"message": "slow"}`}, answer{}, connectors.RateLimited, lodestone.ReasonRateLimited, "slow"},
		{"the search is HTML", as("qualify", nil), answer{200, `<p>hello`}, answer{}, connectors.NotDone, lodestone.ReasonNotDone, "cannot be read"},
		{"an id that is no number", as("qualify", nil), answer{200, list(person("id", `"abc"`))}, answer{}, connectors.Refused, lodestone.ReasonRefused, "no number"},
		{"the provider refuses", as("qualify", nil), answer{200, list(person())}, answer{422, `{"message": "not a lead"}`}, connectors.Refused, lodestone.ReasonRefused, "not a lead"},
		{"the provider fails", as("qualify", nil), answer{200, list(person())}, answer{500, `{"message": "oops"}`}, connectors.Unknown, lodestone.ReasonServerError, "oops"},
		{"an answer in HTML", as("qualify", nil), answer{200, list(person())}, answer{200, `<p>hello`}, connectors.Unknown, lodestone.ReasonUnreadable, ""},
		{"an answer with other words", as("qualify", nil), answer{200, list(person())}, answer{200, `{"message": "ok"}`}, "", "", ""},
		{"nobody to update", as("updateUser", setName), answer{200, absent}, answer{}, connectors.Refused, lodestone.ReasonRefused, "not in the campaign"},
		{"another was updated", as("updateUser", setName), answer{200, list(person())}, answer{200, document(person("id", "9"))}, connectors.Unknown, lodestone.ReasonUnreadable, "another user"},
		{"updated", as("updateUser", setName), answer{200, list(person())}, answer{200, document(person())}, "", "", ""},
		{"nobody to delete", as("deleteUser", nil), answer{200, absent}, answer{}, "", "", "not in the campaign"},
		{"deleted, with an empty body", as("deleteUser", nil), answer{200, list(person())}, answer{200, ``}, "", "", ""},
		{"deleted, with an object", as("deleteUser", nil), answer{200, list(person())}, answer{200, `{}`}, "", "", ""},
		{"deleted by a page", as("deleteUser", nil), answer{200, list(person())}, answer{200, `<p>hello`}, connectors.Unknown, lodestone.ReasonUnreadable, ""},
		{"gone meanwhile", as("deleteUser", nil), answer{200, list(person())}, answer{404, notFound}, connectors.Refused, lodestone.ReasonRefused, "Not found"},
	} {
		t.Run(c.name, func(t *testing.T) {
			answers := map[string]answer{"POST /users/search": c.search}
			if c.call.status != 0 {
				for _, path := range []string{"PUT /users/qualification", "PUT /users/123", "DELETE /users/123"} {
					answers[path] = c.call
				}
			}
			a, p := serve(t, answers)
			r, err := a.Do(t.Context(), c.act)
			calls := slices.DeleteFunc(p.paths(), func(s string) bool { return s == "POST /users/search" })
			if want := min(c.call.status, 1); len(calls) != want {
				t.Errorf("the acts sent are %v, want %d", calls, want)
			}
			if c.class == "" {
				if err != nil || !strings.Contains(r.Detail, c.says) {
					t.Errorf("Do = %+v, %v; want it done, %q", r, err, c.says)
				}
				return
			}
			if f := fault(t, err); f.Class != c.class || f.Reason != c.reason || !strings.Contains(f.Detail, c.says) || f.Operation != c.act.Operation {
				t.Errorf("Do = %v (%s, %s), want %s, %s and %q", err, f.Class, f.Reason, c.class, c.reason, c.says)
			}
		})
	}
}

func TestFindState(t *testing.T) {
	update := as("updateUser", map[string]any{"first_name": "Tomas", "meta_1_field": "Last Name", "meta_1_value": "Blei"})
	for _, c := range []struct {
		name   string
		act    connectors.Act
		search string
		want   connectors.FindingState
	}{
		{"qualified", as("qualify", nil), list(person("qualified_at", `"2026-06-09"`)), connectors.Found},
		{"not qualified", as("qualify", nil), list(person()), connectors.Absent},
		{"taken back", as("setUserQualification", map[string]any{"qualified": false}), list(person()), connectors.Found},
		{"not taken back", as("qualify", map[string]any{"qualified": false}), list(person("qualified_at", `"2026-06-09"`)), connectors.Absent},
		{"qualified or not", as("qualify", nil), list(person("qualified_at", ``)), connectors.Unclear},
		{"nobody to qualify", as("qualify", nil), nobody, connectors.Absent},
		{"others to qualify", as("qualify", nil), list(person("email", `"x@example.com"`)), connectors.Unclear},
		{"updated", update, list(person()), connectors.Found},
		{"another name", update, list(person("first_name", `"Tom"`)), connectors.Absent},
		{"another field", update, list(person("meta", `[{"field": "Last Name", "value": "X"}]`)), connectors.Absent},
		{"odd fields", update, list(person("meta", `7`)), connectors.Absent},
		{"nobody to update", update, nobody, connectors.Absent},
		{"deleted", as("deleteUser", nil), nobody, connectors.Found},
		{"not deleted", as("deleteUser", nil), list(person()), connectors.Absent},
		{"parameters that were never sent", as("updateUser", map[string]any{"x": "y"}), nobody, connectors.Unclear},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, _ := serve(t, map[string]answer{"POST /users/search": {200, c.search}})
			f, err := a.Find(t.Context(), c.act)
			if err != nil || f.State != c.want || f.Evidence == "" {
				t.Errorf("Find = %+v, %v; want %s", f, err, c.want)
			}
		})
	}
	a, p := serve(t, nil)
	for operation, want := range map[string]connectors.FindingState{"listUsers": connectors.Absent, "searchUsers": connectors.Absent, "issueReward": connectors.Unsupported, "nonsense": connectors.Unsupported} {
		if f, err := a.Find(t.Context(), as(operation, nil)); err != nil || f.State != want {
			t.Errorf("Find of %s = %+v, %v; want %s", operation, f, err, want)
		}
	}
	if len(p.seen) != 0 {
		t.Errorf("the provider was asked %v", p.paths())
	}
}

// play starts a sandbox and opens an account with it.
func play(t *testing.T, opts sandbox.Options, s connectors.Settings) (*connectors.Account, *sandbox.Server) {
	t.Helper()
	server := sandbox.New(opts)
	srv := httptest.NewServer(server.Handler())
	t.Cleanup(srv.Close)
	t.Cleanup(server.Clear) // first, or what hangs holds the server up
	s.BaseURL, s.Secrets, s.Rate = srv.URL+"/referralfactory", secrets, 10000
	s.Extra = map[string]string{referralfactory.CampaignID: "1"}
	a, err := connectors.Open(hurried(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, v := range server.Violations() {
			t.Errorf("contract violation in %s: %s", v.Operation, v.Problem)
		}
	})
	return a, server
}

// settle does what the scheduler does with an unknown outcome, and says how it ended.
func settle(t *testing.T, a *connectors.Account, act connectors.Act, tries int) (outcome string) {
	t.Helper()
	for range tries {
		_, err := a.Do(t.Context(), act)
		if err == nil {
			return "sent"
		}
		f := fault(t, err)
		switch f.Class {
		case connectors.Refused:
			return "refused: " + f.Detail
		case connectors.Unknown:
			found, err := a.Find(t.Context(), act)
			if err != nil {
				t.Fatalf("Find = %v", err)
			}
			switch found.State {
			case connectors.Found:
				return "found"
			case connectors.Unclear, connectors.Unsupported:
				return "held"
			}
		}
	}
	return "given up"
}

// Whatever becomes of the answers, an act has one effect, by the sandbox's own count.
func TestLostAnswersHaveOneEffect(t *testing.T) {
	now := func(act connectors.Act) connectors.Act { act.IntendedAt = time.Now(); return act }
	for _, act := range []connectors.Act{now(invite(named)), now(refer(byInes)), now(as("qualify", nil))} {
		operation := map[string]string{"qualify": "setUserQualification"}[act.Operation]
		if operation == "" {
			operation = "createUser"
		}
		for _, kind := range []sandbox.FaultKind{
			sandbox.FaultResetAfterEffect, sandbox.Fault500AfterEffect, sandbox.FaultTruncate, sandbox.FaultHangAfterEffect,
			sandbox.FaultReset, sandbox.Fault500, sandbox.FaultHang, sandbox.FaultHTML,
		} {
			t.Run(act.Operation+"/"+string(kind), func(t *testing.T) {
				a, server := play(t, sandbox.Options{}, connectors.Settings{Timeout: 300 * time.Millisecond})
				if act.Operation == "qualify" {
					if _, err := a.Do(t.Context(), now(refer(byInes))); err != nil {
						t.Fatal(err)
					}
				}
				before := server.Effects().Total
				if err := server.Fault(sandbox.Fault{Kind: kind, Operation: operation, Times: 2}); err != nil {
					t.Fatal(err)
				}
				outcome := settle(t, a, act, 4)
				if outcome != "sent" && outcome != "found" {
					t.Errorf("it ended as %s", outcome)
				}
				if n := server.Effects().Total - before; n != 1 {
					t.Errorf("%d effects, want 1: %+v", n, server.Effects())
				}
			})
		}
	}
}

// A search that is behind says "not there" of somebody who is. The second create changes nothing.
func TestASearchThatIsBehind(t *testing.T) {
	a, server := play(t, sandbox.Options{Settings: sandbox.Settings{Hidden: true}}, connectors.Settings{})
	if err := server.Fault(sandbox.Fault{Kind: sandbox.FaultResetAfterEffect, Operation: "createUser", Times: 1}); err != nil {
		t.Fatal(err)
	}
	act := refer(byInes)
	act.IntendedAt = time.Now()
	if outcome := settle(t, a, act, 3); outcome != "given up" {
		t.Errorf("it ended as %s while nobody can see, want it to stay open", outcome)
	}
	if n := server.Effects().Total; n != 1 {
		t.Errorf("%d effects, want 1", n)
	}
}

func TestWhoIsThereAlreadyInTheSandbox(t *testing.T) {
	a, server := play(t, sandbox.Options{}, connectors.Settings{})
	act := refer(map[string]any{"first_name": "Tomas", "referrer_value": "INES1042"})
	act.IntendedAt = time.Now()
	if outcome := settle(t, a, act, 1); outcome != "sent" {
		t.Fatalf("the first: %s", outcome)
	}
	if outcome := settle(t, a, act, 1); outcome != "sent" {
		t.Errorf("the same again: %s, want it to count as done", outcome)
	}
	other := refer(map[string]any{"first_name": "Tomas", "referrer_value": "ADA2026"})
	other.IntendedAt = time.Now()
	if outcome := settle(t, a, other, 1); !strings.Contains(outcome, "another referrer (user 77)") {
		t.Errorf("another referrer: %s, want a refusal", outcome)
	}
	old := invite(map[string]any{"first_name": "Ines"})
	old.Email, old.IntendedAt = "ines.duarte@example.com", time.Now()
	if outcome := settle(t, a, old, 1); !strings.Contains(outcome, "since before this touchpoint") {
		t.Errorf("somebody from before: %s, want a refusal", outcome)
	}
	if n := server.Effects().Total; n != 1 {
		t.Errorf("%d effects, want 1", n)
	}
	for email, want := range map[lodestone.Email]bool{"tomas.blei@example.com": false, "unsubscribed@example.com": true, "nobody@example.com": false} {
		if s, err := a.Unsubscribed(t.Context(), email); err != nil || s.Unsubscribed != want {
			t.Errorf("Unsubscribed = %+v, %v; want %t", s, err, want)
		}
	}
}

// Two who qualify one person at the same moment make one reward due, not two.
func TestQualifyOneAtATime(t *testing.T) {
	a, server := play(t, sandbox.Options{}, connectors.Settings{})
	act := refer(byInes)
	act.IntendedAt = time.Now()
	if _, err := a.Do(t.Context(), act); err != nil {
		t.Fatal(err)
	}
	if err := server.Fault(sandbox.Fault{Kind: sandbox.FaultSlow, Operation: "searchUsers", Delay: 20 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			if _, err := a.Do(t.Context(), as("qualify", nil)); err != nil {
				t.Errorf("qualify = %v", err)
			}
		})
	}
	wg.Wait()
	for _, e := range server.Effects().ByEmail {
		if e.Operation == "setUserQualification" && e.Count != 1 {
			t.Errorf("%d qualifications, want 1", e.Count)
		}
	}
	answer, err := a.Call(t.Context(), "listDueRewards", map[string]any{"metric": "amount"})
	if err != nil || strings.Count(string(answer.Body), `"reward_id"`) != 2 { // one is there from the start
		t.Errorf("rewards due = %s, %v; want two", answer.Body, err)
	}
}

// The whole catalogue can be called; the campaign is the account's.
func TestCatalogue(t *testing.T) {
	a, server := play(t, sandbox.Options{}, connectors.Settings{})
	for _, c := range []struct {
		operation string
		arguments map[string]any
		status    int
		says      string
	}{
		{"createUser", map[string]any{"first_name": "Lea", "email": "lea@example.com", "referrer": map[string]any{"field": "code", "value": "INES1042"}}, 201, `"campaign_id":1`},
		{"getUser", map[string]any{"identifier": "INES1042", "with": "user.analytics"}, 200, `"referrals":1`},
		{"updateUser", map[string]any{"identifier": 123, "first_name": "Léa"}, 200, "Léa"},
		{"setUserQualification", map[string]any{"code": "ADA2026", "qualified": true}, 200, "qualified_at"},
		{"searchUsers", map[string]any{"filters": map[string]any{"operator": "AND", "value": []any{map[string]any{"field": "first_name", "operator": "=", "value": "ada"}}}}, 200, "ADA2026"},
		{"listUsers", map[string]any{"per_page": 2}, 200, "page=2"},
		{"listCampaigns", nil, 200, "Bring a friend"},
		{"searchCampaigns", nil, 200, "Bring a friend"},
		{"getCampaign", map[string]any{"identifier": "bring"}, 200, "Bring a friend"},
		{"listDueRewards", map[string]any{"metric": "amount"}, 200, `"id":55`},
		{"issueReward", map[string]any{"identifier": 55}, 200, "{}"},
		{"listIssuedRewards", map[string]any{"metric": "amount"}, 200, `"id":55`},
		{"deleteUser", map[string]any{"identifier": 123}, 200, "{}"},
	} {
		answer, err := a.Call(t.Context(), c.operation, c.arguments)
		if err != nil || answer.Status != c.status || !strings.Contains(string(answer.Body), c.says) {
			t.Errorf("%s = %d %s, %v; want %d with %s", c.operation, answer.Status, answer.Body, err, c.status, c.says)
		}
	}
	if n := server.Effects().Total; n != 5 {
		t.Errorf("%d effects, want 5: %+v", n, server.Effects())
	}
	if _, err := a.Call(t.Context(), "createUser", map[string]any{"first_name": "X", "email": "x@example.com", "campaign_id": 2}); err == nil {
		t.Error("a call may name another campaign than the account's")
	}
	if _, err := a.Call(t.Context(), "cancelReward", map[string]any{"identifier": 55}); fault(t, err).Status != http.StatusNotFound {
		t.Errorf("cancel of an issued reward = %v, want 404", err)
	}
}
