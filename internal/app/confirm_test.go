package app

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/chrometest"
	"github.com/lodestonehq/lodestone/internal/gateway"
	"github.com/lodestonehq/lodestone/rules"
)

const optInRules = `
forms:
  letter:
    thanks: THANKS
    origins: "*"
    fields:
      email: {type: email, required: true}
sequences:
  letter:
    when: form == "letter"
    consent: confirmed
    steps:
      - name: ask
        do: eu.createMember
        with: {programId: customers-2026, firstName: friend, customText1Name: confirm, customText1Value: 'Please confirm: ${links.confirm}'}
        confirm: 7d
      - {name: welcome, do: eu.createInviteFeedEntry, with: {firstName: friend}}
`

// optIn is a running worker behind a real server, whose forms thank on a page of their own.
func optIn(t *testing.T) (r *rig, w **Worker, thanks string, restart func()) {
	t.Helper()
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "<title>thanks page</title>")
	}))
	t.Cleanup(page.Close)
	r = newRig(t)
	r.rules = strings.ReplaceAll(optInRules, "THANKS", page.URL)
	w, restart = r.behind()
	return r, w, page.URL, restart
}

// behind starts a worker behind a real server, at whose address its links lead.
func (r *rig) behind() (w **Worker, restart func()) {
	t := r.t
	t.Helper()
	var handler atomic.Pointer[http.Handler]
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { (*handler.Load()).ServeHTTP(w, req) }))
	t.Cleanup(front.Close)
	r.public = front.URL
	var stop func()
	w = new(*Worker)
	begin := func() {
		*w = r.open()
		mux := http.NewServeMux()
		mux.Handle(gateway.FormsPath, (*w).formsHandler())
		mux.Handle(gateway.ConfirmPath, (*w).people())
		var h http.Handler = mux
		handler.Store(&h)
		stop = r.start(*w)
	}
	begin()
	if no := (*w).warnings(); len(no) > 0 {
		t.Fatal(no)
	}
	t.Cleanup(func() { stop() })
	return w, func() { stop(); begin() }
}

// message is what the provider was told to write to the only person that it knows.
func (r *rig) message() string {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.settings.BaseURL+"/api/members?programId=customers-2026", nil)
	if err != nil {
		r.t.Fatal(err)
	}
	req.SetBasicAuth("public", "private")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	var list struct {
		Members []struct {
			Email            string `json:"email"`
			CustomText1Value string `json:"customText1Value"`
		} `json:"members"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		r.t.Fatal(err)
	}
	for _, m := range list.Members {
		if m.Email == "ada@example.com" {
			return m.CustomText1Value
		}
	}
	r.t.Fatalf("the provider knows nobody of that address: %+v", list)
	return ""
}

// afternoon is a zone in which it is between two and three in the afternoon.
func afternoon(now time.Time) string { return fmt.Sprintf("Etc/GMT%+d", now.UTC().Hour()-14) }

// TestOptInRecipes runs the recipes for double opt-in that people are given, as they stand: the form is posted, the
// question goes out, its link is followed, and only then what follows goes out, once.
func TestOptInRecipes(t *testing.T) {
	example := func(name string) rules.File {
		data, err := os.ReadFile("../../rules/examples/newsletter/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return rules.File{Name: name, Data: data}
	}
	page, err := os.ReadFile("../../docs/rules.md")
	if err != nil {
		t.Fatal(err)
	}
	piece := regexp.MustCompile("(?s)## Double opt-in\n\n```yaml\n(.*?)```").FindSubmatch(page)
	if piece == nil {
		t.Fatal("docs/rules.md shows no rules for double opt-in")
	}
	for _, c := range []struct {
		name, next string
		files      []rules.File
		scale      float64 // of what is waited for
	}{
		{"rules/examples/newsletter", "credit", []rules.File{example("rules.yaml"), example("tests.yaml")}, 0},
		{"docs/rules.md", "welcome", []rules.File{{Name: "r.yaml", Data: append([]byte("forms: {newsletter: {fields: {email: {type: email, required: true}, first_name: {type: text}}}}\n"), piece[1]...)}}, 3600},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.account = "referralrock"
			r.change = func(o *Options) {
				o.Rules, o.TimeScale = func() ([]rules.File, error) { return c.files, nil }, c.scale
			}
			r.behind()
			var went []string
			goes := func(so string) { // on to where a step stands so
				t.Helper()
				r.until(func(e lodestone.Entry) bool {
					over := e.Decision != nil && e.Decision.Reason != lodestone.ReasonEnrolled
					if e.Signal != nil {
						went = append(went, string(e.Signal.Kind))
					}
					for _, n := range e.Touchpoints {
						went = append(went, strings.TrimSpace(fmt.Sprintln(n.Step, n.State, n.Reason)))
					}
					for _, n := range e.Enrollments {
						over = over || n.State != lodestone.EnrollmentActive
					}
					if over && !slices.Contains(went, so) {
						t.Fatalf("it went %q and ended, want %s", went, so)
					}
					return slices.Contains(went, so)
				})
			}
			post := func(url string, form url.Values, status int) {
				t.Helper()
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(form.Encode()))
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				if resp.StatusCode != status {
					t.Fatalf("POST %s: %s, want %d", url, resp.Status, status)
				}
			}
			post(r.public+"/forms/newsletter", url.Values{
				"email": {"ada@example.com"}, "first_name": {"Ada"}, "context.consent.marketing": {"true"}, "context.consent.text": {"Yes, write to me"},
				"context.referral_code": {"INES1042"}, "context.timezone": {afternoon(time.Now())},
			}, http.StatusAccepted)
			goes("ask sent accepted")
			link := linkIn.FindString(r.message())
			if link == "" {
				t.Fatalf("the message is %q, want a link", r.message())
			}
			post(link, nil, http.StatusOK)
			goes(c.next + " sent accepted")
			want := strings.ReplaceAll("ask scheduled planned, ask intended, ask sent accepted, NEXT scheduled planned, NEXT scheduled awaiting_confirmation, "+
				"confirmed, NEXT scheduled address_confirmed, NEXT intended, NEXT sent accepted", "NEXT", c.next)
			if got := strings.Join(went, ", "); got != want {
				t.Errorf("it went\n%s, want\n%s", got, want)
			}
			if got := []string{<-r.acted, <-r.acted}; fmt.Sprint(got) != "[/referralrock/api/members /referralrock/api/referrals]" || r.acts.Load() != 2 {
				t.Errorf("the provider was asked for %v, %d in all; want the message and the referral", got, r.acts.Load())
			}
		})
	}
}

var linkIn = regexp.MustCompile(`http://[^ ]+/confirm/[A-Za-z0-9_-]+`)

// sent waits until a step is sent.
func (r *rig) sent(step string) {
	r.t.Helper()
	r.until(func(e lodestone.Entry) bool {
		for _, n := range e.Touchpoints {
			if n.Step == step && n.State == lodestone.TouchpointSent {
				return true
			}
		}
		return false
	})
}

// TestDoubleOptIn goes the whole way in a browser that runs no script: the form, the thanks page, the message at the
// provider, the page that its link opens, the button, the next touchpoint. A restart in between loses none of it.
func TestDoubleOptIn(t *testing.T) {
	r, w, thanks, restart := optIn(t)
	form := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `<!doctype html><form method="post" action="%s/forms/letter"><input name="email" value="Ada@Example.com">
<input type="checkbox" name="context.consent.marketing" checked><button>Send</button></form>`, r.public)
	}))
	t.Cleanup(form.Close)
	p := chrometest.Start(t).Page(true)
	p.Script(false)
	p.Open(form.URL)
	p.Eval(`document.querySelector("button").click()`)
	p.Wait(fmt.Sprintf(`document.title === "thanks page" && location.href.startsWith(%q)`, thanks))
	r.sent("ask")
	link := linkIn.FindString(r.message())
	if link == "" || strings.Contains(strings.ToLower(link), "ada") {
		t.Fatalf("the message is %q, want a link without an address", r.message())
	}

	restart()
	p.Open(link)
	p.Wait(`document.title === "Please confirm" && !document.body.innerText.includes("ada@")`)
	// Nothing came of looking: the worker is told of everything that was committed, in order, and the signal
	// published next is the first.
	publish(t, *w, "lodestone.signals.opened", `{"email":"ada@example.com"}`)
	r.until(func(e lodestone.Entry) bool {
		if e.Signal != nil && e.Signal.Kind == lodestone.SignalConfirmed || len(e.Touchpoints) > 0 {
			t.Errorf("opening the page did %+v", e)
		}
		return e.Signal != nil && e.Signal.Kind == lodestone.SignalOpened
	})
	p.Eval(`document.querySelector("button").click()`)
	p.Wait(`document.title === "Thank you"`)
	r.sent("welcome")
}
