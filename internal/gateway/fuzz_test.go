package gateway

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/referralfactory"
	"github.com/lodestonehq/lodestone/connectors/referralrock"
	"github.com/lodestonehq/lodestone/connectors/saasquatch"
	"github.com/lodestonehq/lodestone/sequencer/event"
)

// fuzzHook: whatever a body holds, it is read or refused as ErrHookBody; each of its signals becomes a
// message that the sequencer reads as that signal about that address, or puts under attention as one
// whose address cannot be used; and the same body becomes the same messages.
func fuzzHook(f *testing.F, hook connectors.Hook) {
	a := &hookAccount{name: "account", hook: hook}
	f.Fuzz(func(t *testing.T, name string, body []byte) {
		req := connectors.HookRequest{Event: name, Body: body}
		news, err := hook.Signals(name, body)
		if err != nil {
			if !errors.Is(err, connectors.ErrHookBody) {
				t.Fatalf("Signals = %v, which is not ErrHookBody", err)
			}
			return
		}
		if !json.Valid(body) {
			t.Fatalf("%q was read as JSON", body)
		}
		if len(news.Signals) > 0 && !hook.Knows(news.Event) {
			t.Fatalf("signals of the event %q, which is not known", news.Event)
		}
		for _, s := range news.Signals {
			if !addressed(s) {
				continue
			}
			m, err := a.message(req, news, s)
			if err != nil {
				t.Fatalf("message: %v", err)
			}
			again, err := a.message(req, news, s)
			if err != nil || m.Header.Get("Nats-Msg-Id") != again.Header.Get("Nats-Msg-Id") || string(m.Data) != string(again.Data) {
				t.Fatal("the same body became another message")
			}
			sig, no := event.DecodeSignal(event.Message{Subject: m.Subject, Header: m.Header, Data: m.Data, Seq: 1, Time: time.Now()})
			email, unusable := lodestone.ParseEmail(s.Email)
			switch {
			case unusable != nil:
				if no == nil || no.Reason != lodestone.ReasonBadEmail && no.Reason != lodestone.ReasonNoEmail {
					t.Fatalf("an unusable address was read as %+v, %+v", sig, no)
				}
			case no != nil:
				t.Fatalf("rejected: %s: %s", no.Reason, no.Detail)
			case sig.Kind != s.Kind || sig.Email != email:
				t.Fatalf("read as %s of %s, want %s of %s", sig.Kind, sig.Email, s.Kind, email)
			}
		}
	})
}

func FuzzReferralRock(f *testing.F) {
	f.Add("EmailUnsubscribed", []byte(`{"Email":"tomas.blei@example.com","Timestamp":1780700000}`))
	f.Add("EmailUnsubscribed", []byte(`{"email":"not an address","Timestamp":"1780700000"}`))
	f.Add("MemberAdd", []byte(`{"Id":"b0","email":"ines@example.com","status":"Activated","emailShares":0}`))
	f.Add("ReferralStatusChange", []byte(`{"Id":"2e","Email":"t@example.com","Status":"Qualified","Amount":1e400}`))
	f.Add("ReferralAdd", []byte(`{"Email":["t@example.com"],"Status":{}}`))
	f.Add("x", []byte(`<html>`))
	fuzzHook(f, referralrock.Hook())
}

func FuzzSaaSquatch(f *testing.F) {
	f.Add("", []byte(`{"id":"1","type":"referral.converted","tenantAlias":"t","created":1780396260449,"data":{"referred":{"id":"t@example.com"}}}`))
	f.Add("", []byte(`{"id":"1","type":"user.created","data":{"id":"4711","accountId":"a@example.com","email":null}}`))
	f.Add("", []byte(`{"id":"`+strings.Repeat("é", 600)+`","type":"user.created","data":{"email":"a@example.com"}}`))
	f.Add("", []byte(`{"id":"1","type":"referral.converted","data":[]}`))
	f.Add("", []byte(`{"id":"1","type":"referral.converted"}`))
	fuzzHook(f, saasquatch.Hook())
}

func FuzzReferralFactory(f *testing.F) {
	f.Add("user", []byte(`{"data":{"id":123,"email":"t@example.com","signed_up_at":"2026-06-02","unsubscribed_at":"2026-06-20"}}`))
	f.Add("qualified", []byte(`{"email":"t@example.com","qualified_at":"2026-06-02 10:00:00"}`))
	f.Add("user", []byte(`{"data":{"data":{"email":"t@example.com"}}}`))
	f.Add("user", []byte(`{"data":null,"unsubscribed_at":"x"}`))
	fuzzHook(f, referralfactory.Hook())
}

// The ids of the stream tell apart what must not count as one.
func TestDigest(t *testing.T) {
	seen := map[string][]string{}
	for _, parts := range [][]string{{"a", "bc"}, {"ab", "c"}, {"abc"}, {"abc", ""}, {"", "abc"}, {"1:a"}, {"a", "1:"}} {
		id := digest(parts...)
		if other, there := seen[id]; there {
			t.Errorf("%q and %q have one id", parts, other)
		}
		seen[id] = parts
	}
}
