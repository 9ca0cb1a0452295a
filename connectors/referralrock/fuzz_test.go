package referralrock

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// Nothing but the shapes that mean "not unsubscribed" is taken for it.
func FuzzUnsubscribed(f *testing.F) {
	for _, s := range []string{`[]`, `["ada@example.com"]`, `["b@example.com"]`, `true`, `false`, `{"unsubscribed":false}`, `{"Unsubscribed":true,"email":null}`, `null`, `[[]]`, `<html>`, ``} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		yes, evidence, err := unsubscribed(body, "ada@example.com")
		if err != nil {
			if yes || strings.Contains(err.Error(), "ada@") {
				t.Fatalf("unsubscribed(%q) = %t, %v", body, yes, err)
			}
			return
		}
		if evidence == "" {
			t.Fatal("an answer without evidence")
		}
		if yes {
			return
		}
		var v any
		if err := json.Unmarshal(body, &v); err != nil {
			t.Fatalf("%q is no JSON and means not unsubscribed", body)
		}
		switch v := v.(type) {
		case bool:
			if v {
				t.Fatalf("%q means not unsubscribed", body)
			}
		case []any:
			if len(v) != 0 {
				t.Fatalf("%q means not unsubscribed", body)
			}
		case map[string]any:
		default:
			t.Fatalf("%q means not unsubscribed", body)
		}
	})
}

// An answer to a new referral is exactly one of: made with an id, refused with words, unreadable.
func FuzzConfirmation(f *testing.F) {
	for _, s := range []string{`{"message":"Referral Added","referral":{"id":"r"}}`, `{"message":"no","referral":null}`, `{"referral":{"id":7}}`, `{"referral":{}}`, `{}`, `[]`, `null`, ``} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var c confirmation
		err := c.read(body)
		if (err == nil) != (c.Referral != nil && c.Referral.ID != "" && json.Valid(body)) && err == nil {
			t.Fatalf("read(%q) = nil without a referral", body)
		}
	})
}

func FuzzParseTime(f *testing.F) {
	for _, s := range []string{"2026-03-06T10:10:05", "2026-03-06T10:10:05Z", "2026-03-06T10:10:05.25+02:00", "03/06/2026 10:10:05", "0000-00-00T00:00:00", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if at, ok := parseTime(s); ok && at.Location() != time.UTC || !ok && !at.IsZero() {
			t.Fatalf("parseTime(%q) = %v, %t", s, at, ok)
		}
	})
}
