package referralfactory

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// bodies are answers of all sorts, broken ones among them.
var bodies = []string{
	`{"data":[{"id":1,"campaign_id":7,"referrer_id":null,"email":"a@example.com","unsubscribed_at":null}],"links":{"next":null}}`,
	`{"data":[{"id":1,"campaign_id":7,"email":"a@example.com","unsubscribed_at":"2026-06-20"}]}`,
	`{"data":[],"links":{"next":"x"},"meta":{"total":1}}`, `{"data":[],"links":[],"meta":null}`, `{"data":[]}`, `{"data":[null]}`, `{"data":{}}`,
	`{"data":{"id":1}}`, `{"id":"1"}`, `{"data":{"id":{}}}`, `{"errors":{"email":[{"field":"email"}]}}`, `{"errors":[{"field":"Email"}]}`,
	`{"errors":{"email":["taken"]}}`, `null`, `[]`, `"x"`, `<!doctype html><p>hello`, ``, `{"data":[{"id":1,"campaign_id":7,"email":"a@exa`,
	`{"data":{"id":` + strings.Repeat("9", 400) + `}}`, strings.Repeat(`{"data":`, 300),
}

// Only a list that is whole, and either empty or about the person, says anything.
func FuzzPeople(f *testing.F) {
	for _, s := range bodies {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		found, err := people(body, "a@example.com", 7)
		if err != nil {
			if found != nil || strings.Contains(err.Error(), "a@example") {
				t.Fatalf("people(%q) = %v, %v", body, found, err)
			}
			return
		}
		var list struct{ Data []json.RawMessage }
		if json.Unmarshal(body, &list) != nil || list.Data == nil {
			t.Fatalf("people(%q) takes what is no list for an answer", body)
		}
		if (len(found) == 0) != (len(list.Data) == 0) {
			t.Fatalf("people(%q) found %d of %d", body, len(found), len(list.Data))
		}
		for _, u := range found {
			if u.ID.state != set || !strings.EqualFold(u.Email.text, "a@example.com") || u.CampaignID.text != "7" {
				t.Fatalf("people(%q) found %+v", body, u)
			}
		}
		yes, evidence, err := unsubscribed(found)
		if err == nil && (evidence == "" || !yes && len(found) > 0 && found[0].UnsubscribedAt.state != null) {
			t.Fatalf("unsubscribed(%q) = %t, %q", body, yes, evidence)
		}
	})
}

// A user is believed only with an id, so that nothing else counts as made.
func FuzzDocument(f *testing.F) {
	for _, s := range bodies {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		u, err := document(body)
		if err == nil && (u.ID.state != set || u.ID.text == "" || !json.Valid(body)) {
			t.Fatalf("document(%q) = %+v", body, u)
		}
		if complains(body, "email") && !json.Valid(body) {
			t.Fatalf("complains(%q) = true", body)
		}
	})
}

func FuzzParseTime(f *testing.F) {
	for _, s := range []string{"2026-06-02", "2026-06-02T10:00:00Z", "2026-06-02T10:00:00.000000+02:00", "2026-06-02 10:00:00", "0000-00-00", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		at, ok := parseTime(s)
		if ok && at.Location() != time.UTC || !ok && !at.IsZero() {
			t.Fatalf("parseTime(%q) = %v, %t", s, at, ok)
		}
		if len(s) == len("2026-06-02") && ok && at.Format("15:04:05") != "23:59:59" {
			t.Fatalf("parseTime(%q) = %v, want the end of the day", s, at)
		}
	})
}
