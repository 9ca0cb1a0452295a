package saasquatch

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
)

var answers = []string{
	`{"id": "ada@example.com", "accountId": "ada@example.com", "referredByCodes": ["INES1042"]}`,
	`{"id": "ada@example.com", "accountId": "ada@example.com", "referredByCodes": ["ADA2026", null, 7]}`,
	`{"ID": "ADA@example.com", "accountid": "ada@example.com", "referredByCodes": []}`,
	`{"id": "bob@example.com", "accountId": "ada@example.com", "referredByCodes": ["INES1042"]}`,
	`{"id": "ada@example.com", "accountId": "ada@example.com", "referredByCodes": ["INES1042"]`,
	`{"id": {}, "accountId": [], "referredByCodes": "INES1042"}`,
	`{"statusCode": 404, "message": "No user found for the provided id", "apiErrorCode": "USER_NOT_FOUND", "rsCode": "RS042"}`,
	`{"statusCode": 404, "apiErrorCode": "TENANT_NOT_FOUND", "rsCode": "RS045"}`,
	`{"totalCount": 1, "referrals": [{"id": "r", "referralCodeUsed": "INES1042", "referredUser": {"id": "a", "accountId": 7}}]}`,
	`{"totalCount": 1e99, "referrals": {}}`, `{"events": [{"id": 1}]}`, `{"code": "A"}`,
	`[]`, `null`, `"x"`, `<!doctype html><title>Maintenance</title>`, ``, "\x00\xff",
}

// An act counts as done only by an answer that shows the right user with the code.
func FuzzReferAnswer(f *testing.F) {
	for _, s := range answers {
		f.Add([]byte(s))
	}
	c := &connector{server: "https://provider.example/", tenant: "t"}
	given, err := read(acts[slices.IndexFunc(acts, func(op lodestone.Operation) bool { return op.Name == lodestone.VerbRefer })],
		connectors.Act{Email: "ada@example.com", Parameters: map[string]any{"referredByCodes": "INES1042"}})
	if err != nil {
		f.Fatal(err)
	}
	_, decode, err := c.refer(given)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var did made
		if err := decode(body, &did); err != nil {
			if strings.Contains(err.Error(), "ada@") {
				t.Fatalf("%q: the error holds the address: %v", body, err)
			}
			return
		}
		var v map[string]any
		if json.Unmarshal(body, &v) != nil || !strings.Contains(strings.ToLower(string(body)), "ines1042") && !strings.Contains(string(body), `\u`) {
			t.Fatalf("%q counts as referred by INES1042", body)
		}
	})
}

// The other answers never break the reader, and never count without what they must hold.
func FuzzAnswers(f *testing.F) {
	for _, s := range answers {
		f.Add(404, []byte(s))
	}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		if noSuchUser(connectors.Answer{Status: status, Body: body}) && (status != 404 || !json.Valid(body)) {
			t.Fatalf("%d %q means no such user", status, body)
		}
		var did made
		if readCode(body, &did) == nil && did.reference == "" {
			t.Fatalf("%q counts as a code without one", body)
		}
		var list referralList
		if list.read(body) == nil && (list.Referrals == nil || !json.Valid(body)) {
			t.Fatalf("%q counts as a list", body)
		}
		var u user
		_ = u.read(body, arguments{account: "ada@example.com", user: "ada@example.com"})
		u.referredBy([]string{"INES1042"})
	})
}

// Whatever a rule gives, either nothing is sent or the request is about one person and made of texts.
func FuzzParameters(f *testing.F) {
	f.Add("INES1042", "ada@example.com", `{"a": 1}`, "acme", "order-2026-1")
	f.Add(" , ", " Ada@EXAMPLE.com", `null`, "..", "short")
	f.Add("a,b,a", "a/../b@example.com", `[`, "a/b?c#d", "\x00")
	c := &connector{server: "https://provider.example/api/v1/", tenant: "t"}
	f.Fuzz(func(t *testing.T, codes, email, fields, account, key string) {
		for _, act := range []connectors.Act{
			{ID: key, Operation: lodestone.VerbRefer, Email: "ada@example.com", Parameters: map[string]any{"referredByCodes": codes, "email": email, "segments": fields}},
			{ID: key, Operation: opApply, Email: "ada@example.com", Parameters: map[string]any{"code": codes, "accountId": account, "userId": email}},
			{ID: key, Operation: opTrack, Email: "ada@example.com", Parameters: map[string]any{"key": codes, "fields": fields, "accountId": account}},
		} {
			i := slices.IndexFunc(acts, func(op lodestone.Operation) bool { return op.Name == act.Operation })
			given, err := read(acts[i], act)
			if err != nil {
				continue
			}
			req, _, err := c.build(act, given)
			if err != nil {
				continue
			}
			path := req.URL.EscapedPath()
			if !strings.HasPrefix(path, "/api/v1/t/open/") || strings.Contains(path, "/../") || req.URL.RawQuery != "" || req.URL.Host != "provider.example" {
				t.Fatalf("%+v is sent to %s", act, req.URL)
			}
		}
	})
}

func FuzzIdempotencyKey(f *testing.F) {
	for _, s := range []string{"e1.nudge", "", "e", strings.Repeat("x", 65), "ü", "a b c d e f"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, id string) {
		key := idempotencyKey(id)
		if !keyPattern.MatchString(key) || key != idempotencyKey(id) || keyPattern.MatchString(id) && key != id {
			t.Fatalf("idempotencyKey(%q) = %q", id, key)
		}
	})
}
