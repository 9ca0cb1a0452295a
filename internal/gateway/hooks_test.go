package gateway_test

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/referralfactory"
	"github.com/lodestonehq/lodestone/connectors/referralrock"
	"github.com/lodestonehq/lodestone/connectors/saasquatch"
	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/internal/gateway"
)

const (
	unsubscribed = `{"Email":"` + person + `","Timestamp":1780700000}`
	qualified    = `{"Id":"2e7f","Email":"` + person + `","Status":"Qualified","MemberEmail":"ines@example.com","Timestamp":1780660802}`
	converted    = `{"id":"577303ece4b066c5cb171835","type":"referral.converted","tenantAlias":"test_abc123","live":false,"created":1780396260449,` +
		`"data":{"id":"5d96","referrer":{"id":"ines@example.com"},"referred":{"id":"` + person + `","accountId":"` + person + `"}}}`
)

func squatchBody(typ, data string) string {
	return `{"id":"evt-1","type":"` + typ + `","tenantAlias":"test_abc123","live":true,"created":1780396260449,"data":` + data + `}`
}

// What the providers send becomes the signals that their packages promise.
func TestSignals(t *testing.T) {
	at := func(s string) time.Time {
		v, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	// The stream's clock decides where a body names no time that is past.
	for _, tt := range []struct {
		name   string
		send   func(*site) answer
		status int
		result string
		want   string // kind and address, apart by blanks, in order
		at     time.Time
	}{
		{"rock: unsubscribed", func(s *site) answer { return s.rock("EmailUnsubscribed", unsubscribed) }, 202, "accepted", "unsubscribed " + person, at("2026-06-05T22:53:20Z")},
		{"rock: qualified", func(s *site) answer { return s.rock("ReferralStatusChange", qualified) }, 202, "accepted", "converted " + person, at("2026-06-05T12:00:02Z")},
		{"rock: approved, in other letters", func(s *site) answer {
			return s.rock("ReferralAdd", `{"EMAIL":"`+person+`","status":" approved "}`)
		}, 202, "accepted", "converted " + person, time.Time{}},
		{"rock: pending", func(s *site) answer {
			return s.rock("ReferralAdd", `{"Email":"`+person+`","Status":"Pending"}`)
		}, 202, "ignored", "", time.Time{}},
		{"rock: a member", func(s *site) answer { return s.rock("MemberAdd", `{"Id":"b0","email":"`+person+`"}`) }, 202, "accepted", "joined " + person, time.Time{}},
		{"rock: a member who was only invited", func(s *site) answer {
			return s.rock("MemberAdd", `{"email":"`+person+`","status":"Invited"}`)
		}, 202, "ignored", "", time.Time{}},
		{"rock: every change of a referral", func(s *site) answer { return s.rock("ReferralUpdate", qualified) }, 202, "ignored", "", time.Time{}},
		{"rock: a reward", func(s *site) answer { return s.rock("RewardIssue", `{"Id":"9a","Status":"Issued"}`) }, 202, "ignored", "", time.Time{}},
		{"rock: an event that is not known", func(s *site) answer { return s.rock("Sunrise", unsubscribed) }, 202, "unknown_event", "", time.Time{}},
		{"rock: a referral without an address", func(s *site) answer { return s.rock("ReferralAdd", `{"Email":null,"Status":"Approved"}`) }, 202, "no_address", "", time.Time{}},
		{"rock: a time far in the future counts as now", func(s *site) answer {
			return s.rock("EmailUnsubscribed", `{"Email":"`+person+`","Timestamp":99999999999}`)
		}, 202, "accepted", "unsubscribed " + person, time.Time{}},
		{"rock: a time that is none", func(s *site) answer {
			return s.rock("EmailUnsubscribed", `{"Email":"`+person+`","Timestamp":{"a":1}}`)
		}, 202, "accepted", "unsubscribed " + person, time.Time{}},
		{"rock: the signature in Base64", func(s *site) answer {
			raw, _ := hex.DecodeString(rockSignature(hookKey, unsubscribed))
			return s.post(rockPath("EmailUnsubscribed"), unsubscribed, "RR-Signature", base64.StdEncoding.EncodeToString(raw))
		}, 202, "accepted", "unsubscribed " + person, time.Time{}},
		{"rock: the key of that event", func(s *site) answer {
			return s.post("/hooks/rock/ReferralStatusChange", qualified, "RR-Signature", rockSignature(eventKey, qualified))
		}, 202, "accepted", "converted " + person, time.Time{}},

		{"squatch: converted", func(s *site) answer { return s.squatch(converted) }, 200, "accepted", "converted " + person, at("2026-06-02T10:31:00.449Z")},
		{"squatch: a user", func(s *site) answer {
			return s.squatch(squatchBody("user.created", `{"id":"4711","accountId":"acme","email":"`+person+`"}`))
		}, 200, "accepted", "joined " + person, time.Time{}},
		{"squatch: a customer number is no address", func(s *site) answer {
			return s.squatch(squatchBody("user.created", `{"id":"4711","accountId":"acme"}`))
		}, 200, "no_address", "", time.Time{}},
		{"squatch: a reward", func(s *site) answer { return s.squatch(squatchBody("reward.created", `{"id":"r"}`)) }, 200, "ignored", "", time.Time{}},
		{"squatch: a test", func(s *site) answer { return s.squatch(squatchBody("test", `null`)) }, 200, "ignored", "", time.Time{}},
		{"squatch: an event that is not known", func(s *site) answer { return s.squatch(squatchBody("sunrise", `{}`)) }, 200, "unknown_event", "", time.Time{}},

		{"factory: a user", func(s *site) answer {
			return s.post("/hooks/factory/user/"+hookToken, `{"data":{"email":"`+person+`","signed_up_at":"2026-06-02","unsubscribed_at":null}}`)
		}, 202, "accepted", "joined " + person, at("2026-06-02T00:00:00Z")},
		{"factory: bare and qualified", func(s *site) answer {
			return s.post("/hooks/factory/qualified/"+hookToken, `{"email":"`+person+`","qualified_at":"2026-06-03"}`)
		}, 202, "accepted", "converted " + person, at("2026-06-03T00:00:00Z")},
		{"factory: who unsubscribed is unsubscribed first", func(s *site) answer {
			return s.post("/hooks/factory/qualified/"+hookToken, `{"email":"`+person+`","unsubscribed_at":"2026-06-03"}`)
		}, 202, "accepted", "unsubscribed " + person + " converted " + person, at("2026-06-03T00:00:00Z")},
		{"factory: an event that is not known", func(s *site) answer {
			return s.post("/hooks/factory/sunrise/"+hookToken, `{"email":"`+person+`","unsubscribed_at":"2026-06-03"}`)
		}, 202, "unknown_event", "", time.Time{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t)
			a := tt.send(s)
			if a.status != tt.status || a.body != `{"result":"`+tt.result+`"}`+"\n" {
				t.Errorf("answer = %d %s, want %d %s", a.status, a.body, tt.status, tt.result)
			}
			connector, _, _ := strings.Cut(tt.name, ":")
			if n := s.count(connector, tt.result); n != 1 {
				t.Errorf("%s counted %d times, want once", tt.result, n)
			}
			signals, rejected := s.stored()
			var got []string
			for _, sig := range signals {
				got = append(got, string(sig.Kind), string(sig.Email))
				if sig.Detail["connector"] != connector || sig.Detail["event"] == "" {
					t.Errorf("detail = %v", sig.Detail)
				}
			}
			if strings.Join(got, " ") != tt.want || len(rejected) > 0 {
				t.Errorf("signals = %v (%v rejected), want %s", got, rejected, tt.want)
			}
			if len(signals) > 0 && !tt.at.IsZero() && !signals[0].At.Equal(tt.at) {
				t.Errorf("at = %v, want %v", signals[0].At, tt.at)
			}
			if len(signals) > 0 && tt.at.IsZero() && signals[0].At.After(signals[0].Received) {
				t.Errorf("at = %v, later than %v", signals[0].At, signals[0].Received)
			}
			s.secrecy(a)
		})
	}
}

// An opt-out whose address cannot be used is not dropped: a human finds it under attention.
func TestOptOutWithoutUsableAddress(t *testing.T) {
	s := newSite(t)
	if a := s.rock("EmailUnsubscribed", `{"Email":"tomas.blei at example.com"}`); a.status != http.StatusAccepted || s.count("rock", "accepted") != 1 {
		t.Errorf("answer = %+v", a)
	}
	if _, rejected := s.stored(); len(rejected) != 1 || rejected[0].Reason != lodestone.ReasonBadEmail {
		t.Errorf("rejected = %+v, want one bad_email", rejected)
	}
	if a := s.rock("EmailUnsubscribed", `{"Email":"`+strings.Repeat("x", 2<<10)+`"}`); a.status != http.StatusAccepted || s.count("rock", "no_address") != 1 {
		t.Errorf("a text that is far too long: %+v", a)
	}
}

// The same webhook again, as providers send it when our answer was lost, or as somebody sends it who
// recorded it, is one signal.
func TestReplay(t *testing.T) {
	s := newSite(t)
	for range 3 {
		if a := s.rock("EmailUnsubscribed", unsubscribed); a.status != http.StatusAccepted {
			t.Fatalf("answer = %+v", a)
		}
		if a := s.squatch(converted); a.status != http.StatusOK {
			t.Fatalf("answer = %+v", a)
		}
	}
	// SaaSquatch's id is the event's, whatever else of the body changes.
	s.squatch(strings.Replace(converted, `"live":false`, `"live":true`, 1))
	signals, _ := s.stored()
	if len(signals) != 2 || signals[0].ID == signals[1].ID {
		t.Errorf("%d signals, want 2: %+v", len(signals), signals)
	}
	// Another body is another signal.
	s.rock("EmailUnsubscribed", strings.Replace(unsubscribed, "1780700000", "1780700001", 1))
	if signals, _ := s.stored(); len(signals) != 3 {
		t.Errorf("%d signals, want 3", len(signals))
	}
}

// What proves nothing is refused, counted, and leaves nothing behind.
func TestRefused(t *testing.T) {
	long := `{"Email":"` + strings.Repeat("x", gateway.MaxHook) + `"}`
	html := "<!DOCTYPE html><html><body>Bad gateway</body></html>"
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	signed := func(body string) []string {
		return []string{"X-Hook-JWS-RFC-7797", squatchSignature(t, rsaKey, "k1", body)}
	}
	hs := func() string {
		head := b64([]byte(`{"alg":"HS512","kid":"k1"}`))
		mac := hmac.New(sha512.New, rsaKey.N.Bytes())
		mac.Write([]byte(head + "." + b64([]byte(converted))))
		return head + ".." + b64(mac.Sum(nil))
	}
	tenant := strings.Replace(converted, "test_abc123", "test_other", 1)
	for _, tt := range []struct {
		name, method, path, body string
		header                   []string
		status                   int
		result                   string
	}{
		{"another method", "GET", "/hooks/rock/MemberAdd", "", nil, 405, "bad_method"},
		{"PUT", "PUT", "/hooks/squatch", "{}", nil, 405, "bad_method"},
		{"no such account", "POST", "/hooks/nobody/MemberAdd", "{}", nil, 404, "not_found"},
		{"no account", "POST", "/hooks/", "{}", nil, 404, "not_found"},
		{"no event", "POST", "/hooks/rock", "{}", nil, 404, "not_found"},
		{"more than an event", "POST", "/hooks/rock/MemberAdd/more/more", "{}", nil, 404, "not_found"},
		{"an event where bodies name it", "POST", "/hooks/squatch/user.created", "{}", nil, 404, "not_found"},
		{"more than a token", "POST", "/hooks/factory/user/" + hookToken + "/more", "{}", nil, 404, "not_found"},

		{"nothing to verify with", "POST", "/hooks/bare/EmailUnsubscribed", unsubscribed, []string{"RR-Signature", rockSignature("", unsubscribed)}, 403, "unverifiable"},
		{"not signed", "POST", "/hooks/rock/EmailUnsubscribed", unsubscribed, nil, 403, "forged"},
		{"signed with another key", "POST", "/hooks/rock/EmailUnsubscribed", unsubscribed, []string{"RR-Signature", rockSignature("another", unsubscribed)}, 403, "forged"},
		{"signed with no key", "POST", "/hooks/rock/EmailUnsubscribed", unsubscribed, []string{"RR-Signature", rockSignature("", unsubscribed)}, 403, "forged"},
		{"another body", "POST", rockPath("EmailUnsubscribed"), unsubscribed + " ", []string{"RR-Signature", rockSignature(hookKey, unsubscribed)}, 403, "forged"},
		{"a body posted as another event", "POST", "/hooks/rock/MemberAdd/" + referralrock.EventToken(hookKey, "EmailUnsubscribed"), unsubscribed, []string{"RR-Signature", rockSignature(hookKey, unsubscribed)}, 403, "forged"},
		{"a key for all events and nothing that proves this one", "POST", "/hooks/rock/EmailUnsubscribed", unsubscribed, []string{"RR-Signature", rockSignature(hookKey, unsubscribed)}, 403, "forged"},
		{"the key of another event", "POST", "/hooks/rock/EmailUnsubscribed", unsubscribed, []string{"RR-Signature", rockSignature(eventKey, unsubscribed)}, 403, "forged"},
		{"two signatures", "POST", rockPath("EmailUnsubscribed"), unsubscribed, []string{"RR-Signature", rockSignature(hookKey, unsubscribed), "RR-Signature", "00"}, 403, "forged"},
		{"half a signature", "POST", rockPath("EmailUnsubscribed"), unsubscribed, []string{"RR-Signature", rockSignature(hookKey, unsubscribed)[:64]}, 403, "forged"},
		{"no token", "POST", "/hooks/factory/user", "{}", nil, 403, "forged"},
		{"a wrong token", "POST", "/hooks/factory/user/" + hookToken[:len(hookToken)-1] + "0", "{}", nil, 403, "forged"},
		{"half a token", "POST", "/hooks/factory/user/" + hookToken[:10], "{}", nil, 403, "forged"},

		{"no JWS", "POST", "/hooks/squatch", converted, nil, 403, "forged"},
		{"two JWS", "POST", "/hooks/squatch", converted, append(signed(converted), signed(converted)...), 403, "forged"},
		{"alg none", "POST", "/hooks/squatch", converted, []string{"X-Hook-JWS-RFC-7797", b64([]byte(`{"alg":"none","kid":"k1"}`)) + ".."}, 403, "forged"},
		{"HMAC by the public key", "POST", "/hooks/squatch", converted, []string{"X-Hook-JWS-RFC-7797", hs()}, 403, "forged"},
		{"somebody else's key under the id", "POST", "/hooks/squatch", converted, []string{"X-Hook-JWS-RFC-7797", squatchSignature(t, other, "k1", converted)}, 403, "forged"},
		{"a key that is not published", "POST", "/hooks/squatch", converted, []string{"X-Hook-JWS-RFC-7797", squatchSignature(t, other, "k2", converted)}, 403, "forged"},
		{"a JWS over another body", "POST", "/hooks/squatch", converted + " ", signed(converted), 403, "forged"},
		{"signed for another tenant", "POST", "/hooks/squatch", tenant, signed(tenant), 403, "forged"},
		{"the older signature alone", "POST", "/hooks/squatch", converted, []string{"X-Hook-Signature", "AAAA"}, 403, "forged"},

		{"a page", "POST", "/hooks/rock/MemberAdd", html, []string{"Content-Type", "text/html"}, 415, "bad_media_type"},
		{"no media type", "POST", "/hooks/rock/MemberAdd", "{}", []string{"Content-Type", ""}, 415, "bad_media_type"},
		{"a form", "POST", "/hooks/rock/MemberAdd", "Email=x", []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, "bad_media_type"},
		{"compressed", "POST", "/hooks/rock/MemberAdd", "{}", []string{"Content-Encoding", "gzip"}, 415, "bad_media_type"},
		{"a page, signed", "POST", rockPath("MemberAdd"), html, []string{"RR-Signature", rockSignature(hookKey, html)}, 400, "bad_body"},
		{"a list, signed", "POST", rockPath("MemberAdd"), "[]", []string{"RR-Signature", rockSignature(hookKey, "[]")}, 400, "bad_body"},
		{"nothing, signed", "POST", rockPath("MemberAdd"), "", []string{"RR-Signature", rockSignature(hookKey, "")}, 400, "bad_body"},
		{"half a body, signed", "POST", "/hooks/squatch", converted[:60], signed(converted[:60]), 400, "bad_body"},
		{"no type, signed", "POST", "/hooks/squatch", `{"tenantAlias":"test_abc123"}`, signed(`{"tenantAlias":"test_abc123"}`), 400, "bad_body"},
		{"a page with the token", "POST", "/hooks/factory/user/" + hookToken, html, nil, 400, "bad_body"},
		{"too long", "POST", rockPath("EmailUnsubscribed"), long, []string{"RR-Signature", rockSignature(hookKey, long), "Expect", "100-continue"}, 413, "too_large"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t)
			a := s.send(tt.method, tt.path, strings.NewReader(tt.body), tt.header...)
			connector := strings.Split(tt.path, "/")[2]
			if connector == "nobody" {
				connector = ""
			}
			if a.status != tt.status || s.count(connector, tt.result) != 1 {
				t.Errorf("answer = %d %s, counted %d; want %d %s", a.status, a.body, s.count(connector, tt.result), tt.status, tt.result)
			}
			var problem struct {
				Title, Detail string
				Status        int
			}
			if err := json.Unmarshal([]byte(a.body), &problem); err != nil || problem.Status != tt.status || problem.Title == "" || problem.Detail == "" || a.header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("problem = %s as %s", a.body, a.header.Get("Content-Type"))
			}
			if tt.status == 405 && a.header.Get("Allow") != "POST" {
				t.Errorf("Allow = %q", a.header.Get("Allow"))
			}
			if signals, rejected := s.stored(); len(signals)+len(rejected) > 0 {
				t.Errorf("stored %v %v", signals, rejected)
			}
			s.secrecy(a)
		})
	}
}

// A body that does not say how long it is, is cut off as well.
func TestChunkedTooLong(t *testing.T) {
	s := newSite(t)
	body := io.MultiReader(strings.NewReader(`{"Email":"`), io.LimitReader(zeros{}, 4*gateway.MaxHook)) // no length is known of it
	if a := s.send(http.MethodPost, "/hooks/rock/EmailUnsubscribed", body); a.status != http.StatusRequestEntityTooLarge || s.count("rock", "too_large") != 1 {
		t.Errorf("answer = %+v", a)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '0'
	}
	return len(p), nil
}

// While the provider's keys cannot be had nothing is believed and nothing is lost: the provider is
// asked to send it again. Ids that nobody published do not set off a fetch each.
func TestKeysAwayAndFlood(t *testing.T) {
	s := newSite(t)
	s.keys.away.Store(true)
	for range 5 {
		if a := s.squatch(converted); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
			t.Errorf("answer = %+v", a)
		}
	}
	if n := s.keys.fetches.Load(); n != 1 || s.count("squatch", "keys_away") != 5 {
		t.Errorf("%d fetches, want 1; counted %d", n, s.count("squatch", "keys_away"))
	}

	s = newSite(t)
	for i := range 40 {
		if a := s.post("/hooks/squatch", converted, "X-Hook-JWS-RFC-7797", squatchSignature(t, rsaKey, fmt.Sprint("flood", i), converted)); a.status != http.StatusForbidden {
			t.Fatalf("answer = %+v", a)
		}
	}
	if a := s.squatch(converted); a.status != http.StatusOK {
		t.Errorf("a good one meanwhile: %+v", a)
	}
	if n := s.keys.fetches.Load(); n != 1 {
		t.Errorf("40 unknown ids: %d fetches, want 1", n)
	}
}

// A sender that trickles its body is cut off, and others do not wait for it.
func TestSlowBody(t *testing.T) {
	s := newSite(t, func(o *gateway.HookOptions) { o.BodyTimeout = 300 * time.Millisecond })
	c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "POST /hooks/rock/MemberAdd HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
	if a := s.rock("EmailUnsubscribed", unsubscribed); a.status != http.StatusAccepted {
		t.Errorf("another one meanwhile: %+v", a)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusRequestTimeout || !resp.Close || s.count("rock", "timeout") != 1 {
		t.Errorf("answer = %d, close %v, counted %d", resp.StatusCode, resp.Close, s.count("rock", "timeout"))
	}
}

// A connection whose body came in time serves on, beyond the time that bodies have.
func TestBodyDeadlineEndsWithTheBody(t *testing.T) {
	s := newSite(t, func(o *gateway.HookOptions) {
		o.BodyTimeout = 200 * time.Millisecond
		o.Publisher = slowPublisher{o.Publisher, 400 * time.Millisecond}
	})
	for range 2 {
		if a := s.rock("EmailUnsubscribed", unsubscribed); a.status != http.StatusAccepted {
			t.Errorf("answer = %+v", a)
		}
	}
}

type slowPublisher struct {
	gateway.Publisher
	takes time.Duration
}

func (p slowPublisher) PublishBatch(ctx context.Context, msgs []*nats.Msg) error {
	select {
	case <-time.After(p.takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	return p.Publisher.PublishBatch(ctx, msgs)
}

// A sender that hangs up in the middle leaves nothing behind.
func TestHangUp(t *testing.T) {
	s := newSite(t)
	c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "POST /hooks/rock/EmailUnsubscribed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n%s", unsubscribed)
	_ = c.Close()
	deadline, tick := time.After(15*time.Second), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for s.count("rock", "interrupted") == 0 {
		select {
		case <-deadline:
			t.Fatal("it was never counted")
		case <-tick.C:
		}
	}
	if signals, _ := s.stored(); len(signals) > 0 {
		t.Errorf("stored %v", signals)
	}
}

// switched is a broker that can be away.
type switched struct {
	gateway.Publisher
	away atomic.Bool
}

func (p *switched) PublishBatch(ctx context.Context, msgs []*nats.Msg) error {
	if p.away.Load() {
		return errors.New("connection closed")
	}
	return p.Publisher.PublishBatch(ctx, msgs)
}

// What was not stored is not taken: the provider hears 503 and when to send it again, and what it sends
// again is the same message.
func TestBrokerAway(t *testing.T) {
	p := &switched{}
	s := newSite(t, func(o *gateway.HookOptions) { p.Publisher, o.Publisher = o.Publisher, p })
	p.away.Store(true)
	a := s.rock("EmailUnsubscribed", unsubscribed)
	if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" || s.count("rock", "broker_away") != 1 {
		t.Errorf("answer = %+v", a)
	}
	p.away.Store(false)
	if a := s.rock("EmailUnsubscribed", unsubscribed); a.status != http.StatusAccepted {
		t.Errorf("answer = %+v", a)
	}
	if signals, _ := s.stored(); len(signals) != 1 {
		t.Errorf("%d signals, want 1", len(signals))
	}
	s.secrecy(a)

	// The real one, closed.
	s = newSite(t)
	s.broker.Close()
	if a := s.rock("EmailUnsubscribed", unsubscribed); a.status != http.StatusServiceUnavailable {
		t.Errorf("a closed broker: %+v", a)
	}
	// None at all, as on a copied data directory.
	s = newSite(t, func(o *gateway.HookOptions) { o.Publisher = nil })
	if a := s.rock("EmailUnsubscribed", unsubscribed); a.status != http.StatusServiceUnavailable {
		t.Errorf("no broker: %+v", a)
	}
}

// A full stream refuses, and the provider hears it.
func TestStreamFull(t *testing.T) {
	s := newSite(t)
	stream, err := s.broker.JetStream().Stream(t.Context(), broker.SignalsStream)
	if err != nil {
		t.Fatal(err)
	}
	conf := stream.CachedInfo().Config
	conf.MaxMsgs, conf.Discard = 1, jetstream.DiscardNew
	if _, err := s.broker.JetStream().UpdateStream(t.Context(), conf); err != nil {
		t.Fatal(err)
	}
	if a := s.rock("EmailUnsubscribed", unsubscribed); a.status != http.StatusAccepted {
		t.Errorf("answer = %+v", a)
	}
	if a := s.rock("ReferralStatusChange", qualified); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
		t.Errorf("answer = %+v", a)
	}
}

// held is a broker that takes its time until it is let go.
type held struct {
	gateway.Publisher
	waiting chan struct{}
	release chan struct{}
}

func (p *held) PublishBatch(ctx context.Context, msgs []*nats.Msg) error {
	p.waiting <- struct{}{}
	<-p.release
	return nil
}

// More at a time than there is room for is refused at once, not piled up.
func TestBusy(t *testing.T) {
	const room = 64 // of one address
	p := &held{waiting: make(chan struct{}), release: make(chan struct{})}
	s := newSite(t, func(o *gateway.HookOptions) { o.Publisher = p })
	var wg sync.WaitGroup
	for range room {
		wg.Go(func() {
			if a := s.rock("EmailUnsubscribed", unsubscribed); a.status != http.StatusAccepted {
				t.Errorf("answer = %+v", a)
			}
		})
	}
	for range room {
		<-p.waiting
	}
	if a := s.rock("EmailUnsubscribed", unsubscribed); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" || s.count("rock", "busy") != 1 {
		t.Errorf("answer = %+v", a)
	}
	// One sender that holds all it can keeps nobody else out.
	other := &http.Client{Transport: &http.Transport{DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).DialContext}}
	wg.Go(func() {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+rockPath("EmailUnsubscribed"), strings.NewReader(unsubscribed))
		if err != nil {
			t.Error(err)
			return
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("RR-Signature", rockSignature(hookKey, unsubscribed))
		resp, err := other.Do(req)
		if err != nil || resp.StatusCode != http.StatusAccepted {
			t.Errorf("another address meanwhile: %v, %v", resp, err)
			return
		}
		_ = resp.Body.Close()
	})
	<-p.waiting
	close(p.release)
	wg.Wait()
}

// What is wrong with the settings is said once, in words and without the secret.
func TestUnverifiable(t *testing.T) {
	for name, tt := range map[string]struct {
		account gateway.HookAccount
		says    string
	}{
		"no key":           {gateway.HookAccount{Hook: referralrock.Hook()}, referralrock.WebhookKey},
		"a short key":      {gateway.HookAccount{Hook: referralrock.Hook(), Secrets: map[string]connectors.Secret{referralrock.WebhookKeys: hookKey + " MemberAdd=short"}}, referralrock.WebhookKeys},
		"no token":         {gateway.HookAccount{Hook: referralfactory.Hook()}, referralfactory.WebhookToken},
		"a short token":    {gateway.HookAccount{Hook: referralfactory.Hook(), Secrets: map[string]connectors.Secret{referralfactory.WebhookToken: "short"}}, referralfactory.WebhookToken},
		"a token of paths": {gateway.HookAccount{Hook: referralfactory.Hook(), Secrets: map[string]connectors.Secret{referralfactory.WebhookToken: "short/but-longer-than-twenty"}}, referralfactory.WebhookToken},
		"no tenant":        {gateway.HookAccount{Hook: saasquatch.Hook()}, saasquatch.Tenant},
	} {
		t.Run(name, func(t *testing.T) {
			tt.account.Settings.Name = "it"
			s := newSite(t, func(o *gateway.HookOptions) { o.Accounts = []gateway.HookAccount{tt.account} })
			if a := s.post("/hooks/it/user", "{}"); tt.account.Hook.NeedsEvent && (a.status != http.StatusForbidden || s.count("it", "unverifiable") != 1) {
				t.Errorf("answer = %+v", a)
			}
			if a := s.post("/hooks/it", "{}"); !tt.account.Hook.NeedsEvent && (a.status != http.StatusForbidden || s.count("it", "unverifiable") != 1) {
				t.Errorf("answer = %+v", a)
			}
			if logs := s.logs.String(); !strings.Contains(logs, tt.says) || strings.Contains(logs, "short/") || strings.Contains(logs, hookKey) {
				t.Errorf("log = %s, want it to name %s", logs, tt.says)
			}
		})
	}
}
