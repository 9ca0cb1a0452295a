package referralrock_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/sandbox"
)

// A step acts on its lead and on nobody else, by whatever id it names somebody.
func TestStepsThatNameSomebodyByAnID(t *testing.T) {
	const tomas, other = lodestone.Email("tomas.blei@example.com"), lodestone.Email("other@example.com")
	query := func(info string, fields map[string]any) map[string]any {
		return map[string]any{"items": []any{map[string]any{"query": map[string]any{info: fields}, "referral": map[string]any{"note": "x"}}}}
	}
	for _, c := range []struct {
		name       string
		operation  string
		parameters map[string]any
		lead       lodestone.Email
		says       string // what the refusal says; empty: none
		evidence   string
	}{
		{"the lead's referral", "updateReferralStatus", map[string]any{"referralId": pending, "status": "qualified"}, tomas, "", "referralId is the lead's own"},
		{"another's referral", "updateReferralStatus", map[string]any{"referralId": pending, "status": "qualified"}, other, "referralId stands for somebody else", ""},
		{"a referral that is not there", "updateReferralStatus", map[string]any{"referralId": "2e7f7b52-6c0d-4c3e-9f3e-6f7a9c1d2eff", "status": "qualified"}, other, "", "stands for nobody yet"},
		{"by external id", "updateReferrals", query("secondaryInfo", map[string]any{"externalIdentifier": "crm-2042"}), tomas, "", "items[0].query.secondaryInfo.externalIdentifier is the lead's own"},
		{"another's external id", "updateReferrals", query("secondaryInfo", map[string]any{"externalIdentifier": "crm-2042"}), other, "items[0].query.secondaryInfo.externalIdentifier stands for somebody else", ""},
		{"by address", "updateReferrals", query("secondaryInfo", map[string]any{"email": "tomas.blei@example.com"}), tomas, "", ""},
		{"another's address", "updateReferrals", query("secondaryInfo", map[string]any{"email": "tomas.blei@example.com"}), other, "items[0].query.secondaryInfo.email names another address", ""},
		{"fuzzily", "removeReferrals", query("fuzzyInfo", map[string]any{"Identifier": "crm-2042"}), other, "items[0].query.fuzzyInfo.Identifier stands for somebody else", ""},
		{"by phone number", "removeReferrals", query("secondaryInfo", map[string]any{"phoneNumber": "+49 30 1"}), tomas, "the provider does not tell for whom", ""},
		{"by nothing", "removeReferrals", query("tertiaryInfo", map[string]any{"ProgramId": program}), tomas, "items[0] does not say whom it is about", ""},
		{"a member's id", "createMemberAccessUrls", map[string]any{"memberId": ines}, "ines.duarte@example.com", "", "memberId is the lead's own"},
		{"a member's code", "createMemberAccessUrls", map[string]any{"referralCode": "INES1042"}, other, "referralCode stands for somebody else", ""},
		{"a paid event", "createReferralAction", map[string]any{"amount": 5.0, "referralQuery": pending}, tomas, "", "referralQuery is the lead's own"},
		{"a paid event of another", "createReferralAction", map[string]any{"amount": 5.0, "referralQuery": "tomas.blei@example.com"}, other, "referralQuery names another address", ""},
		{"what only reads", "getReferral", map[string]any{"referralId": pending}, other, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, box := sandboxed(t)
			act := step(c.operation, c.parameters)
			act.Email = c.lead
			evidence, err := a.Mine(t.Context(), act)
			var f *connectors.Fault
			switch {
			case c.says == "" && (err != nil || !strings.Contains(evidence, c.evidence) || c.evidence == "" && evidence != ""):
				t.Errorf("Mine = %q, %v; want %q", evidence, err, c.evidence)
			case c.says != "" && (!errors.As(err, &f) || f.Class != connectors.Refused || !strings.Contains(f.Detail, c.says)):
				t.Errorf("Mine = %q, %v; want a refusal that says %q", evidence, err, c.says)
			}
			if n := box.Effects().Total; n != 0 {
				t.Errorf("%d effects of a question", n)
			}
			if v := box.Violations(); len(v) != 0 {
				t.Errorf("violations = %+v, want none", v)
			}
		})
	}
}

// Where the provider cannot be asked, nothing is known, and a reading that failed says so.
func TestWhomFailsClosed(t *testing.T) {
	a, box := sandboxed(t)
	if err := box.Fault(sandbox.Fault{Kind: sandbox.Fault500, Operation: "getReferral"}); err != nil {
		t.Fatal(err)
	}
	act := step("updateReferralStatus", map[string]any{"referralId": pending, "status": "qualified"})
	var f *connectors.Fault
	if evidence, err := a.Mine(t.Context(), act); !errors.As(err, &f) || f.Class != connectors.Failed {
		t.Errorf("Mine = %q, %v; want a reading that failed", evidence, err)
	}
	names, err := a.Whom(t.Context(), "issueReward", map[string]any{"rewardId": owed})
	if err != nil || len(names) != 1 || !names[0].Untold || names[0].Path != "rewardId" {
		t.Errorf("Whom = %+v, %v; want a reward whose owner is not told", names, err)
	}
}
