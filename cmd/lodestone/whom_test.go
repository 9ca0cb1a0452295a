package main

import (
	"encoding/json"
	"net/http/httptest"
	"testing"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/sandbox"
)

// TestWhoseAnIDIs makes a person at each provider and asks whose the id is that it gave: it is theirs, a
// step of theirs may name it and a step of somebody else may not.
func TestWhoseAnIDIs(t *testing.T) {
	const ada, eve = lodestone.Email("ada@example.com"), lodestone.Email("eve@example.com")
	for _, c := range []struct {
		kind, make string
		with       map[string]any
		id         func(answer map[string]any) any
		operation  string
		names      func(id any) map[string]any
	}{
		{"referralrock", "createReferral", map[string]any{"referralCode": "INES1042", "email": string(ada), "firstName": "Ada"},
			func(a map[string]any) any { return a["referral"].(map[string]any)["id"] },
			"updateReferralStatus", func(id any) map[string]any { return map[string]any{"referralId": id, "status": "qualified"} }},
		{"23blocks", "createReferral", map[string]any{"referral": map[string]any{"referrer_email": "ines@example.com", "referred_email": string(ada)}},
			func(a map[string]any) any { return a["data"].(map[string]any)["id"] },
			"deleteReferral", func(id any) map[string]any { return map[string]any{"unique_id": id} }},
		{"saasquatch", "openUserUpsert", map[string]any{"id": "u-7", "userId": "u-7", "accountId": "u-7", "email": string(ada)},
			func(map[string]any) any { return "u-7" },
			"blockUser", func(id any) map[string]any { return map[string]any{"userId": id, "accountId": id} }},
		{"referralfactory", "createUser", map[string]any{"first_name": "Ada", "email": string(ada)},
			func(a map[string]any) any { return a["data"].(map[string]any)["id"] },
			"updateUser", func(id any) map[string]any { return map[string]any{"identifier": id, "first_name": "A"} }},
	} {
		t.Run(c.kind, func(t *testing.T) {
			box := sandbox.New(sandbox.Options{})
			t.Cleanup(box.Close)
			server := httptest.NewServer(box.Handler())
			t.Cleanup(server.Close)
			kind, _ := kindOf(c.kind)
			st := matrixSettings[c.kind]
			st.BaseURL, st.Rate = server.URL+"/"+c.kind, 10
			a, err := connectors.Open(kind, st)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := a.Call(t.Context(), c.make, c.with)
			if err != nil {
				t.Fatal(err)
			}
			var made map[string]any
			if err := json.Unmarshal(answer.Body, &made); err != nil {
				t.Fatal(err)
			}
			arguments := c.names(c.id(made))
			names, err := a.Whom(t.Context(), c.operation, arguments)
			if err != nil || len(names) != 1 || names[0].Untold || len(names[0].Emails) != 1 || names[0].Emails[0] != ada {
				t.Errorf("Whom(%v) = %+v, %v; want %s", arguments, names, err, ada)
			}
			act := connectors.Act{ID: "e1.step", Operation: c.operation, Email: ada, Parameters: arguments}
			if evidence, err := a.Mine(t.Context(), act); err != nil || evidence == "" {
				t.Errorf("Mine of %s = %q, %v; want it allowed", ada, evidence, err)
			}
			act.Email = eve
			if evidence, err := a.Mine(t.Context(), act); err == nil {
				t.Errorf("Mine of %s = %q, want a refusal", eve, evidence)
			}
			if v := box.Violations(); len(v) != 0 {
				t.Errorf("violations = %+v, want none", v)
			}
		})
	}
}
