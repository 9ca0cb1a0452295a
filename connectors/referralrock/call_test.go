package referralrock_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/referralrock"
	"github.com/lodestonehq/lodestone/connectors/sandbox"
)

func sandboxed(t *testing.T) (*connectors.Account, *sandbox.Server) {
	t.Helper()
	box := sandbox.New(sandbox.Options{})
	server := httptest.NewServer(box.Handler())
	t.Cleanup(func() {
		server.Close()
		box.Close()
	})
	a, err := connectors.Open(referralrock.Kind(), connectors.Settings{
		BaseURL: server.URL + "/referralrock", Rate: 1000,
		Secrets: map[string]connectors.Secret{"public_key": "a", "private_key": "b"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return a, box
}

func TestCallNamesEveryWrongArgument(t *testing.T) {
	a, box := sandboxed(t)
	for _, tc := range []struct {
		operation string
		arguments map[string]any
		want      []string
	}{
		{"createReferral", map[string]any{"firstName": "Ada"}, []string{"referralCode is required"}},
		{"createReferral", map[string]any{"referralCode": "X", "refferalCode": "Y"}, []string{`no argument "refferalCode"`}},
		{"createInviteFeedEntry", map[string]any{"firstName": 7.0, "email": "not an address"}, []string{"firstName", "email"}},
		{"createMemberAccessUrls", map[string]any{"emailAddress": "ada@example.com", "referralCode": "2"}, []string{"exactly one"}},
		{"getPayout", nil, []string{"id is required"}},
		{"getPayout", map[string]any{"id": ".."}, []string{"id cannot be"}},
	} {
		_, err := a.Call(t.Context(), tc.operation, tc.arguments)
		var wrong *connectors.ArgumentError
		if !errors.As(err, &wrong) {
			t.Errorf("%s(%v) = %v, want an ArgumentError", tc.operation, tc.arguments, err)
			continue
		}
		for _, w := range tc.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s(%v) = %q, want it to name %q", tc.operation, tc.arguments, err, w)
			}
		}
	}
	if n := len(box.Received()); n != 0 {
		t.Errorf("%d requests were sent with wrong arguments", n)
	}
	if _, err := a.Call(t.Context(), "explode", nil); !errors.Is(err, connectors.ErrNoOperation) {
		t.Errorf("Call(explode) = %v, want ErrNoOperation", err)
	}
}

// Every operation's example request of the specification builds, and its schema accepts it.
func TestRequestsOfTheExamplesAreAccepted(t *testing.T) {
	a, _ := sandboxed(t)
	files, err := filepath.Glob("testdata/requests/*.json")
	if err != nil || len(files) == 0 {
		t.Fatal("there are no examples", err)
	}
	for _, f := range files {
		name, _, _ := strings.Cut(filepath.Base(f), ".")
		e, err := a.Endpoint(name)
		if err != nil {
			t.Error(err)
			continue
		}
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var body any
		if err := json.Unmarshal(data, &body); err != nil {
			t.Fatal(err)
		}
		arguments, _ := body.(map[string]any)
		switch e.Body {
		case connectors.ListBody:
			arguments = map[string]any{connectors.ItemsArgument: body}
		case connectors.TextBody:
			arguments = map[string]any{connectors.TextArgument: body}
		}
		req, _, err := a.Request(context.Background(), name, arguments)
		if err != nil {
			t.Errorf("%s: %v", f, err)
			continue
		}
		var sent any
		if err := json.NewDecoder(req.Body).Decode(&sent); err != nil {
			t.Errorf("%s: %v", f, err)
		}
		want, _ := json.Marshal(body)
		got, _ := json.Marshal(sent)
		if string(got) != string(want) {
			t.Errorf("%s: sent %s, want %s", f, got, want)
		}
	}
}

func TestCatalogueCoversEveryToolOfTheProvider(t *testing.T) {
	k := referralrock.Kind()
	if n := len(k.Endpoints); n != 33 {
		t.Errorf("%d operations, want 33", n)
	}
	for _, e := range k.Endpoints {
		if e.Title == "" || e.Summary == "" || e.Effect == "" {
			t.Errorf("%s: title %q, summary %q, effect %q", e.Name, e.Title, e.Summary, e.Effect)
		}
		if strings.Contains(e.Summary, "deprecated") != (e.Deprecated != "") {
			t.Errorf("%s: deprecated is %q", e.Name, e.Deprecated)
		}
	}
}

// A success by its status whose words say that nothing was done is none.
func TestACatalogueOperationThatDidNothingIsRefused(t *testing.T) {
	for _, tc := range []struct {
		operation, body string
		refused         bool
	}{
		{"createReferral", `{"message":"Duplicate referral","referral":null}`, true},
		{"createReferral", `{"message":"Referral Added","referral":{"id":"1"}}`, false},
		{"issueReward", `{"resultInfo":{"Status":"Failed","Message":"issued before"}}`, true},
		{"issueReward", `{"resultInfo":{"Status":"Success"}}`, false},
		{"removeReferrals", `[{"resultInfo":{"Status":"Failed","Message":"none found"}},{"resultInfo":{"Status":"failed"}}]`, true},
		{"removeReferrals", `[{"resultInfo":{"Status":"Failed"}},{"resultInfo":{"Status":"Success"}}]`, false},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(tc.body))
		}))
		a, err := connectors.Open(referralrock.Kind(), connectors.Settings{BaseURL: server.URL, Secrets: map[string]connectors.Secret{"public_key": "public", "private_key": "private"}})
		if err != nil {
			t.Fatal(err)
		}
		arguments := map[string]map[string]any{
			"createReferral": {"referralCode": "ADA2026"}, "issueReward": {"rewardId": "6f1d2c44-0a7e-4c55-9a51-2f9f6d1f0b10"},
			"removeReferrals": {"items": []any{map[string]any{"query": map[string]any{"primaryInfo": map[string]any{"referralId": "6f1d2c44-0a7e-4c55-9a51-2f9f6d1f0b10"}}}}},
		}[tc.operation]
		_, err = a.Call(t.Context(), tc.operation, arguments)
		var f *connectors.Fault
		if refused := errors.As(err, &f) && f.Class == connectors.Refused; refused != tc.refused || !tc.refused && err != nil {
			t.Errorf("%s answered %s: %v, want refused: %v", tc.operation, tc.body, err, tc.refused)
		}
		server.Close()
	}
}

// A step acts on its lead and on nobody else, whatever argument names the other address.
func TestAStepNamesNobodyElse(t *testing.T) {
	a, box := sandboxed(t)
	for _, tc := range []struct {
		operation  string
		parameters map[string]any
	}{
		{"createInviteFeedEntry", map[string]any{"firstName": "Eve", "email": "eve@example.com"}},
		{"createReferral", map[string]any{"referralCode": "ADA2026", "email": "Eve@Example.com"}},
		{"createReferral", map[string]any{"referralCode": "ADA2026", "externalIdentifier": "eve@example.com"}},
	} {
		_, err := a.Do(t.Context(), connectors.Act{ID: "e.s", Operation: tc.operation, Email: "ada@example.com", Parameters: tc.parameters})
		var f *connectors.Fault
		if !errors.As(err, &f) || f.Class != connectors.Refused || !strings.Contains(f.Detail, "another address") {
			t.Errorf("%s(%v) = %v, want it refused", tc.operation, tc.parameters, err)
		}
	}
	if n := len(box.Received()); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
	if _, err := a.Do(t.Context(), connectors.Act{ID: "e.s", Operation: "createInviteFeedEntry", Email: "ada@example.com", Parameters: map[string]any{"firstName": "Ada", "email": "ADA@example.com"}}); err != nil {
		t.Errorf("the lead's own address: %v", err)
	}
}
