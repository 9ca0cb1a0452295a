package connectors

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		value string
		wait  time.Duration
		ok    bool
	}{
		{"0", 0, true},
		{"7", 7 * time.Second, true},
		{" 7 ", 7 * time.Second, true},
		{"0007", 7 * time.Second, true},
		{"86400", 24 * time.Hour, true},
		{"86401", 24 * time.Hour, true},
		{"99999999999999999999999999999999", 24 * time.Hour, true},
		{"Sat, 21 Nov 2026 12:01:30 GMT", 90 * time.Second, true},
		{"Saturday, 21-Nov-26 12:01:30 GMT", 90 * time.Second, true},
		{"Sat Nov 21 12:01:30 2026", 90 * time.Second, true},
		{"Sat, 21 Nov 2026 11:00:00 GMT", 0, true},
		{"Mon, 21 Nov 2095 11:00:00 GMT", 24 * time.Hour, true},
		{"", 0, false},
		{" ", 0, false},
		{"-1", 0, false},
		{"+1", 0, false},
		{"1.5", 0, false},
		{"1e3", 0, false},
		{"soon", 0, false},
		{"7 seconds", 0, false},
		{"٧", 0, false},
	} {
		if wait, ok := RetryAfter(c.value, now); wait != c.wait || ok != c.ok {
			t.Errorf("RetryAfter(%q) = %v, %t; want %v, %t", c.value, wait, ok, c.wait, c.ok)
		}
	}
}

// The wait is never negative, never longer than a day, and zero when there is none.
func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"", "0", "120", "99999999999999999999", "Sat, 21 Nov 2026 12:01:30 GMT", "-1", "1 1"} {
		f.Add(s, int64(1795262490))
	}
	f.Fuzz(func(t *testing.T, value string, unix int64) {
		wait, ok := RetryAfter(value, time.Unix(unix, 0))
		if wait < 0 || wait > 24*time.Hour || !ok && wait != 0 {
			t.Fatalf("RetryAfter(%q) = %v, %t", value, wait, ok)
		}
	})
}

func TestSecretPrintsAsNothing(t *testing.T) {
	const bare = "sk-0123456789"
	s := Settings{Name: "acme", Secrets: map[string]Secret{"key": bare}}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", Secret(bare), "settings", s)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "secret", Secret(bare), "settings", s)
	raw, err := json.Marshal([]any{Secret(bare), s})
	if err != nil {
		t.Fatal(err)
	}
	printed := []string{log.String(), string(raw), Secret(bare).String(), Secret(bare).GoString()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%10s"} {
		printed = append(printed, fmt.Sprintf(verb, Secret(bare)), fmt.Sprintf(verb, s), fmt.Sprintf(verb, &s))
	}
	for _, p := range printed {
		if strings.Contains(p, bare) || strings.Contains(p, fmt.Sprintf("%x", bare)) {
			t.Errorf("printed: %s", p)
		}
	}
	if Secret(bare).Reveal() != bare {
		t.Error("Reveal gives something else")
	}
}

func TestMask(t *testing.T) {
	m := newMask(map[string]Secret{"public": "pk-11111", "private": "sk-a/b+c=d"})
	basic := base64.StdEncoding.EncodeToString([]byte("pk-11111:sk-a/b+c=d"))
	also := []hidden{{"a=b@example.com", addressText}}
	for _, c := range []struct{ in, want string }{
		{"plain words", "plain words"},
		{"key pk-11111 and sk-a/b+c=d", "key <secret> and <secret>"},
		{"Basic " + basic, "Basic <secret>"},
		{"?key=sk-a%2Fb%2Bc%3Dd", "?key=<secret>"},
		{"mail to Ada.Lovelace+x@Example.com, please", "mail to <address>, please"},
		{"<ada@example.com>", "<<address>>"},
		{"?email=ada%40example.com&x=1", "?email=<address>&x=1"},
		{`"ada\u0040example.com"`, `"<address>"`},
		{"Ad\u00e4@b\u00fccher.example", "<address>"},
		{"A=B@Example.com", "<address>"},
		{"two\nlines\tand\x00more \x1b[31mred", "two lines and more [31mred"},
		{"bad \xff bytes", "bad \ufffd bytes"},
		{"", ""},
	} {
		if got := m.text(c.in, also...); got != c.want {
			t.Errorf("text(%q) = %q, want %q", c.in, got, c.want)
		}
	}
	long := m.text(strings.Repeat("ä", 400))
	if n := len([]rune(long)); n != maxDetail || !strings.HasSuffix(long, "…") {
		t.Errorf("a long text has %d characters and ends in %q", n, long[len(long)-3:])
	}
	if got := m.text(strings.Repeat("pk-11111", 1<<10) + "sk-a/b+c"); strings.Contains(got, "pk-") || strings.Contains(got, "sk-") {
		t.Error("a part of a secret shows")
	}
}

// Whatever the words around them, neither the key nor the address comes through.
func FuzzMask(f *testing.F) {
	f.Add("", "")
	f.Add("a", "b")
	f.Add("=", "&")
	f.Add("sk-", "\n")
	f.Add("ada@", "@example.com")
	m := newMask(map[string]Secret{"key": "sk-0123456789"})
	f.Fuzz(func(t *testing.T, before, after string) {
		got := m.text(before+"sk-0123456789"+after+" "+before+"ada@example.com"+after, hidden{"ada@example.com", addressText})
		if strings.Contains(got, "sk-0123456789") || strings.Contains(strings.ToLower(got), "ada@example.com") {
			t.Fatalf("text(%q, %q) = %q", before, after, got)
		}
		if n := len([]rune(got)); n > maxDetail {
			t.Fatalf("%d characters", n)
		}
	})
}

func TestWords(t *testing.T) {
	for _, c := range []struct{ body, want string }{
		{`{"Message": "Referral not found"}`, "Referral not found"},
		{`{"message": null}`, ""},
		{`{"error": "bad", "message": "worse"}`, "worse; bad"},
		{`{"error": {"code": 7, "message": "nested"}}`, "nested"},
		{`{"errors": [{"status": "422", "title": "Invalid", "detail": "no such code"}]}`, "no such code; Invalid"},
		{`{"message": "The given data was invalid.", "errors": {"email": ["is taken"], "code": ["is wrong", "is short"]}}`, "The given data was invalid.; is wrong; is short; is taken"},
		{`"just a text"`, "just a text"},
		{`["one", "two"]`, "one; two"},
		{`{"first_name": "Ada"}`, ""},
		{`<p>no`, ""},
		{``, ""},
		{`[[[[[["deep"]]]]]]`, ""},
	} {
		if got := Words([]byte(c.body)); got != c.want {
			t.Errorf("Words(%s) = %q, want %q", c.body, got, c.want)
		}
	}
}

func FuzzWords(f *testing.F) {
	for _, s := range []string{`{"Message":"x"}`, `{"errors":[{"detail":"x"}]}`, `{"errors":{"a":["b"]}}`, `[[[[]]]]`, `null`, `<`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if got := Words(body); got != "" && !json.Valid(body) {
			t.Fatalf("Words(%q) = %q", body, got)
		}
	})
}

func TestFaultSaysWhatItMeans(t *testing.T) {
	cause := errors.New("cause")
	f := &Fault{Connector: "rr", Operation: "invite", Class: Unknown, Status: 502, Detail: "Bad Gateway", Err: &masked{"cause", cause}}
	if got, want := f.Error(), "rr invite: may have been done (status 502): Bad Gateway"; got != want {
		t.Errorf("Error() = %q, want %q", got, want)
	}
	if !errors.Is(f, cause) || errors.Is(f, http.ErrServerClosed) {
		t.Error("errors.Is does not follow the cause")
	}
	for _, c := range []Class{NotDone, Refused, LockedOut, RateLimited, Failed} {
		if (&Fault{Class: c}).Error() == (&Fault{Class: Unknown}).Error() {
			t.Errorf("%s reads like an unknown outcome", c)
		}
	}
}

func TestSettings(t *testing.T) {
	kind := Kind{
		Name: "acme", BaseURL: "https://api.acme.example/", Secrets: []string{"api_key"}, Keys: []string{"tenant"}, Check: true,
		Open: func(Settings, *Transport) (Connector, error) { return nil, nil },
	}
	good := func() Settings {
		return Settings{Secrets: map[string]Secret{"api_key": "k-1"}, Extra: map[string]string{"tenant": "t"}}
	}
	a, err := Open(kind, good())
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("%+v", a.Settings())
	want := "{Name:acme BaseURL:https://api.acme.example Secrets:map[api_key:<secret>] Rate:10 Concurrency:8 Timeout:10s Attempts:10 Settle:30s Suppression:provider OnUnknown:lookup Insecure:false Extra:map[tenant:t]}"
	if got != want {
		t.Errorf("defaults = %s\nwant %s", got, want)
	}
	for _, c := range []struct {
		name   string
		change func(*Settings)
		kind   func(*Kind)
		says   []string
	}{
		{"missing secret", func(s *Settings) { s.Secrets = nil; s.Name = "our-acme" }, nil, []string{"connectors.our-acme.api_key", "LODESTONE_CONNECTORS_OUR_ACME_API_KEY"}},
		{"secret with a line break", func(s *Settings) { s.Secrets["api_key"] = "k-1\n" }, nil, []string{"api_key", "line break"}},
		{"unknown key", func(s *Settings) { s.Extra["tennant"] = "t" }, nil, []string{"tennant"}},
		{"unknown secret", func(s *Settings) { s.Secrets["token"] = "t" }, nil, []string{"token"}},
		{"plain http", func(s *Settings) { s.BaseURL = "http://10.0.0.1" }, nil, []string{"base_url", "insecure: true"}},
		{"another scheme", func(s *Settings) { s.BaseURL = "ftp://a.example" }, nil, []string{"base_url", "https://"}},
		{"no URL", func(s *Settings) { s.BaseURL = "api.acme.example" }, nil, []string{"base_url"}},
		{"no host", func(s *Settings) { s.BaseURL = "https://" }, nil, []string{"base_url"}},
		{"credentials in the URL", func(s *Settings) { s.BaseURL = "https://me:pw-123@a.example" }, nil, []string{"base_url", "credentials"}},
		{"query in the URL", func(s *Settings) { s.BaseURL = "https://a.example/?key=pw-123" }, nil, []string{"base_url", "query"}},
		{"no URL at all", nil, func(k *Kind) { k.BaseURL = "" }, []string{"base_url", "missing"}},
		{"negative rate", func(s *Settings) { s.Rate = -1 }, nil, []string{"rate"}},
		{"too much at a time", func(s *Settings) { s.Concurrency = 1001 }, nil, []string{"concurrency"}},
		{"negative timeout", func(s *Settings) { s.Timeout = -1 }, nil, []string{"timeout"}},
		{"no attempts", func(s *Settings) { s.Attempts = -1 }, nil, []string{"attempts"}},
		{"negative settle", func(s *Settings) { s.Settle = -1 }, nil, []string{"settle"}},
		{"no such suppression", func(s *Settings) { s.Suppression = "none" }, nil, []string{"suppression", `"none"`}},
		{"a provider that has no check", nil, func(k *Kind) { k.Check = false }, []string{"suppression", "local-only"}},
		{"no such on_unknown", func(s *Settings) { s.OnUnknown = "retry" }, nil, []string{"on_unknown", `"retry"`}},
		{"all at once", func(s *Settings) { s.Rate, s.Attempts, s.Secrets = -1, -1, nil }, nil, []string{"rate", "attempts", "api_key"}},
		{"the connector's own fault", nil, func(k *Kind) {
			k.Open = func(Settings, *Transport) (Connector, error) { return nil, errors.New("tenant is missing") }
		}, []string{"connectors.acme: tenant is missing"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, k := good(), kind
			if c.change != nil {
				c.change(&s)
			}
			if c.kind != nil {
				c.kind(&k)
			}
			_, err := Open(k, s)
			if err == nil {
				t.Fatal("Open = nil, want an error")
			}
			for _, want := range c.says {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error = %v, want it to name %s", err, want)
				}
			}
			if strings.Contains(err.Error(), "pw-123") || strings.Contains(err.Error(), "k-1") {
				t.Errorf("the error holds a secret: %v", err)
			}
		})
	}
	for _, base := range []string{"http://localhost:8080", "http://127.0.0.1:8080/x", "http://[::1]:80"} {
		s := good()
		s.BaseURL = base
		if _, err := Open(kind, s); err != nil {
			t.Errorf("Open(%s) = %v, want none: loopback", base, err)
		}
	}
}

func TestBurst(t *testing.T) {
	for rate, want := range map[float64]int{0.5: 1, 1: 1, 10: 1, 19: 1, 20: 2, 1000: 100} {
		if got := (Settings{Rate: rate}).burst(); got != want {
			t.Errorf("burst at %v/s = %d, want %d", rate, got, want)
		}
	}
}

// What is passed over quickly is masked as what is not: the slow way is the one that says what is right.
func FuzzReplaceFold(f *testing.F) {
	f.Add("The address Ada@Example.com is unknown", "ada@example.com")
	f.Add("ſ K k s", "k")
	f.Add("", "a")
	f.Fuzz(func(t *testing.T, s, old string) {
		if old == "" {
			return
		}
		var want strings.Builder
		for i := 0; i < len(s); {
			if i+len(old) <= len(s) && strings.EqualFold(s[i:i+len(old)], old) {
				want.WriteString("<x>")
				i += len(old)
				continue
			}
			want.WriteByte(s[i])
			i++
		}
		if got := replaceFold(s, old, "<x>"); got != want.String() {
			t.Errorf("replaceFold(%q, %q) = %q, want %q", s, old, got, want.String())
		}
	})
}

func FuzzIsLine(f *testing.F) {
	for _, s := range []string{"", " ", "a b", " a", "a ", "a  b", "a\tb", "ä", "a\u00a0b", "\x7f"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		line := strings.Join(strings.FieldsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }), " ")
		if isLine(s) && s != line {
			t.Errorf("%q is taken for a line, and is %q as one", s, line)
		}
	})
}
