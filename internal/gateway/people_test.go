package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/chrometest"
	"github.com/lodestonehq/lodestone/internal/gateway"
	"github.com/lodestonehq/lodestone/internal/links"
)

// peopleSite serves links and notes what was chosen.
type peopleSite struct {
	*site
	sealer *links.Sealer
	chosen []string
	fail   error
}

func newPeopleSite(t *testing.T) *peopleSite {
	t.Helper()
	sealer, err := links.New(bytes.Repeat([]byte{7}, links.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	s := &peopleSite{site: &site{t: t, logs: &syncBuffer{}}, sealer: sealer}
	server := httptest.NewServer(gateway.People(gateway.PeopleOptions{
		Links: sealer, Log: slog.New(slog.NewTextHandler(s.logs, nil)),
		Act: func(_ context.Context, p links.Purpose, e lodestone.Email, _ time.Time) error {
			s.chosen = append(s.chosen, string(p)+" "+string(e))
			return s.fail
		},
	}))
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

// path is the link for ada, without the host.
func (s *peopleSite) path(p links.Purpose, at time.Time) string {
	return strings.TrimPrefix(gateway.Link(s.sealer, s.url+"/", p, "ada@example.com", at), s.url)
}

func TestPeople(t *testing.T) {
	s := newPeopleSite(t)
	now := time.Now()
	unsubscribe, confirm := s.path(links.Unsubscribe, now.AddDate(-50, 0, 0)), s.path(links.Confirm, now)
	for _, test := range []struct {
		name, method, path, body string
		status                   int
		says, chosen             string
	}{
		{"looking changes nothing", "GET", unsubscribe, "", 200, "<button>Unsubscribe</button>", ""},
		{"so does a scanner", "HEAD", unsubscribe, "", 200, "", ""},
		{"the button", "POST", unsubscribe, "", 200, "You are unsubscribed", "unsubscribe ada@example.com"},
		{"one click, RFC 8058", "POST", unsubscribe, "List-Unsubscribe=One-Click", 200, "You are unsubscribed", "unsubscribe ada@example.com"},
		{"confirming is shown", "GET", confirm, "", 200, "Please confirm", ""},
		{"and done", "POST", confirm, "", 200, "Your address is confirmed", "confirm ada@example.com"},
		{"too late", "POST", s.path(links.Confirm, now.AddDate(0, 0, -31)), "", 410, "has expired", ""},
		{"a token of the other kind", "POST", "/unsubscribe/" + strings.TrimPrefix(confirm, "/confirm/"), "", 404, "does not work", ""},
		{"cut off", "POST", unsubscribe[:len(unsubscribe)-3], "", 404, "does not work", ""},
		{"forged", "POST", "/unsubscribe/<script>", "", 404, "does not work", ""},
		{"empty", "POST", "/unsubscribe/", "", 404, "does not work", ""},
		{"another method", "DELETE", unsubscribe, "", 405, "", ""},
		{"too much", "POST", unsubscribe, strings.Repeat("x", 5<<10), 400, "", ""},
	} {
		s.chosen = nil
		a := s.send(test.method, test.path, strings.NewReader(test.body), "Content-Type", urlForm)
		var want []string
		if test.chosen != "" {
			want = []string{test.chosen}
		}
		if a.status != test.status || !strings.Contains(a.body, test.says) || !slices.Equal(s.chosen, want) {
			t.Errorf("%s: %d %s, chosen %q, want %d, %q and %q", test.name, a.status, a.body, s.chosen, test.status, test.says, want)
		}
		if strings.Contains(a.body, "ada@") || strings.Contains(a.body, "<script") || strings.Contains(test.path, "ada") {
			t.Errorf("%s: the address or the request stands in %s", test.name, a.body)
		}
	}
	s.fail = errors.New("the store is away")
	if a := s.send("POST", unsubscribe, nil); a.status != http.StatusServiceUnavailable || !strings.Contains(a.body, "try again") || strings.Contains(s.logs.String(), "ada") {
		t.Errorf("when it cannot be stored: %d %s, log %s", a.status, a.body, s.logs.String())
	}
}

// TestPeopleInABrowser clicks through both pages.
func TestPeopleInABrowser(t *testing.T) {
	s := newPeopleSite(t)
	p := chrometest.Start(t).Page(true)
	p.Script(false)
	for _, test := range []struct {
		purpose links.Purpose
		done    string
	}{{links.Unsubscribe, "You are unsubscribed"}, {links.Confirm, "Thank you"}} {
		p.Open(s.url + s.path(test.purpose, time.Now()))
		p.Screenshot(shots, string(test.purpose)+"-asked")
		if len(s.chosen) != 0 {
			t.Errorf("opening the page chose %q", s.chosen)
		}
		p.Eval(submit)
		p.Wait(`document.title === "` + test.done + `"`)
		p.Screenshot(shots, string(test.purpose)+"-done")
		if want := []string{string(test.purpose) + " ada@example.com"}; !slices.Equal(s.chosen, want) {
			t.Errorf("chosen %q, want %q", s.chosen, want)
		}
		s.chosen = nil
	}
}
