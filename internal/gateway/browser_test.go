package gateway_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/lodestonehq/lodestone/internal/chrometest"
	"github.com/lodestonehq/lodestone/internal/gateway"
	"github.com/lodestonehq/lodestone/rules"
)

// shots is where screenshots go; empty: nowhere.
var shots = os.Getenv("SCREENSHOTS")

const snippetPage = `<!doctype html><meta charset="utf-8"><title>Guide</title>
%s
<form %s method="post" action="%s" novalidate>
  <p><label>Email <input type="email" name="email"></label></p>
  <p><label>Company <input name="company"></label></p>
  <p><label>Employees <input type="number" name="size"></label></p>
  <p><label><input type="checkbox" name="context.consent.marketing"> Yes, send me
     <em>news</em></label></p>
  <button>Get the guide</button>
</form>`

// shop is a web site of somebody else that has a form on it.
func shop(t *testing.T, html func() string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, html())
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// outage stands before the gateway and breaks.
type outage struct {
	next http.Handler
	mode atomic.Int32
	hits atomic.Int32 // forms that were posted
}

const (
	works      = iota
	answers503 // before anything is stored
	swallows   // stored, and the answer is lost
)

func (o *outage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		o.hits.Add(1)
	}
	switch mode := o.mode.Load(); {
	case r.Method != http.MethodPost || mode == works:
		o.next.ServeHTTP(w, r)
	case mode == answers503:
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.WriteHeader(http.StatusServiceUnavailable)
	default:
		o.next.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	}
}

// snippetSite is a gateway with an outage before it and a shop that embeds the snippet.
func snippetSite(t *testing.T) (s *formSite, gate *outage, page string) {
	t.Helper()
	s = newFormSite(t)
	gate = &outage{next: s.handler}
	server := httptest.NewServer(gate)
	t.Cleanup(server.Close)
	s.url = server.URL
	page = shop(t, func() string {
		return fmt.Sprintf(snippetPage, `<script src="`+s.url+`/lodestone.js" defer></script>`, "data-lodestone", s.url+"/forms/guide")
	})
	return s, gate, page
}

func fill(p *chrometest.Page, email, company string) {
	p.Eval(fmt.Sprintf(`(() => { const f = document.forms[0]; f.elements.email.value = %q; f.elements.company.value = %q })()`, email, company))
}

const (
	submit = `document.querySelector("button").click()`
	status = `document.querySelector("[data-lodestone-status]")?.textContent`
)

func TestSnippet(t *testing.T) {
	s, _, url := snippetSite(t)
	p := chrometest.Start(t).Page(true)
	p.Do("Emulation.setTimezoneOverride", map[string]any{"timezoneId": "Europe/Berlin"})
	p.Open(url + "/?utm_source=fair&utm_campaign=spring")
	p.Open(url + "/guide?utm_source=letter&ref=ADA2026#top")
	p.Wait("window.lodestone")

	fill(p, "", "x")
	p.Eval(submit)
	p.Wait(`document.querySelector("[data-lodestone-fault=email]")?.textContent && document.activeElement.name === "email" && document.activeElement.getAttribute("aria-invalid") === "true"`)
	p.Screenshot(shots, "snippet-refused")

	fill(p, "ada@example.com", "<b>Söhne</b>")
	p.Eval(`document.forms[0].elements["context.consent.marketing"].checked = true`)
	p.Eval(submit)
	p.Wait(`(` + status + `)?.startsWith("Thank you.") && document.querySelectorAll("[data-lodestone-fault]").length === 0`)
	p.Screenshot(shots, "snippet-done")
	if link, _ := p.Eval(`document.querySelector("[data-lodestone-status] a").href`).(string); !strings.HasPrefix(link, s.url+"/assets/") {
		t.Errorf("the link is %q", link)
	}
	if cookies := p.Eval("document.cookie"); cookies != "" {
		t.Errorf("cookies: %v", cookies)
	}
	list, rejected := s.submissions()
	if len(list) != 1 || len(rejected) > 0 {
		t.Fatalf("%d submissions, %v, want 1", len(list), rejected)
	}
	sub, c := list[0], list[0].Context
	if sub.Email != "ada@example.com" || sub.Fields.Value("company") != "<b>Söhne</b>" || len(sub.Notes) > 0 {
		t.Errorf("stored %+v", sub)
	}
	if c.Page != url+"/guide" || c.Timezone != "Europe/Berlin" || c.UTM.Source != "letter" || c.UTMFirst.Source != "fair" || c.UTMFirst.Campaign != "spring" || c.ReferralCode != "ADA2026" {
		t.Errorf("context %+v", c)
	}
	if c.Consent == nil || !c.Consent.Marketing || c.Consent.Text != "Yes, send me news" || c.Consent.At.IsZero() {
		t.Errorf("consent %+v", c.Consent)
	}
	p.Eval(submit) // a second click, a moment later
	p.Wait(`(` + status + `)?.startsWith("Thank you.") && !document.querySelector("[aria-busy]")`)
	if list, _ := s.submissions(); len(list) != 1 {
		t.Errorf("%d submissions after a second click, want 1", len(list))
	}
}

// TestSnippetOffline: what was sent without a network is stored once when it is back.
func TestSnippetOffline(t *testing.T) {
	s, gate, url := snippetSite(t)
	p := chrometest.Start(t).Page(true)
	p.Open(url)
	p.Wait("window.lodestone")
	p.Offline(true)
	fill(p, "ada@example.com", "x")
	p.Eval(submit)
	p.Wait(`(` + status + `)?.includes("offline")`)
	p.Screenshot(shots, "snippet-offline")
	if gate.hits.Load() != 0 {
		t.Error("something was posted without a network")
	}
	p.Offline(false)
	p.Wait(`(` + status + `)?.startsWith("Thank you.")`)
	if list, _ := s.submissions(); len(list) != 1 {
		t.Errorf("%d submissions, want 1", len(list))
	}
}

// TestSnippetReload: the key outlives the page. The first answer is a 503, the second is lost after
// the submission was stored; after each the visitor reloads, and sends the same again at the end.
func TestSnippetReload(t *testing.T) {
	s, gate, url := snippetSite(t)
	p := chrometest.Start(t).Page(true)
	gate.mode.Store(answers503)
	p.Open(url)
	p.Wait("window.lodestone")
	fill(p, "ada@example.com", "x")
	p.Eval(submit)
	p.Wait(`(` + status + `)?.includes("We have kept this")`)
	if list, _ := s.submissions(); len(list) != 0 {
		t.Errorf("%d submissions before the gateway took one", len(list))
	}
	gate.mode.Store(swallows)
	hits := gate.hits.Load()
	p.Open(url + "/again")
	p.Wait("window.lodestone")
	for gate.hits.Load() == hits {
		p.Eval("window.lodestone.flush()") // the page does so itself when it is loaded
	}
	gate.mode.Store(works)
	p.Open(url + "/again")
	p.Wait(`JSON.parse(localStorage.getItem("lodestone.queue")).every(e => e.done)`)
	fill(p, "ada@example.com", "x")
	p.Eval(submit)
	p.Wait(`(` + status + `)?.startsWith("Thank you.")`)
	if list, _ := s.submissions(); len(list) != 1 {
		t.Errorf("%d submissions, want 1", len(list))
	}
}

// TestPlainForm posts without any script, in a browser that runs none.
func TestPlainForm(t *testing.T) {
	s := newFormSite(t)
	thanks := ""
	page := shop(t, func() string {
		return fmt.Sprintf(snippetPage, "", "", s.url+"/forms/guide") + thanks
	})
	p := chrometest.Start(t).Page(true)
	p.Script(false)
	p.Open(page)
	fill(p, "", "<img src=x onerror=alert(1)>")
	p.Eval(submit)
	p.Wait(`location.pathname === "/forms/guide" && document.querySelectorAll("li").length === 1`)
	p.Screenshot(shots, "plain-refused")
	p.Open(page)
	fill(p, "ada@example.com", "<img src=x onerror=alert(1)>")
	p.Eval(`document.forms[0].elements["context.consent.marketing"].checked = true`)
	p.Eval(submit)
	p.Wait(`document.querySelector("a.button")?.href.startsWith(location.origin + "/assets/") && !document.querySelector("img")`)
	p.Screenshot(shots, "plain-done")
	p.Open(s.url + "/assets/x")
	p.Wait(`document.title === "This link does not work"`)
	p.Screenshot(shots, "asset-bad")

	// With a thanks page the browser goes there.
	home := shop(t, func() string { return "<title>thanks page</title>" })
	set := compile(t, strings.ReplaceAll(formRules, "https://shop.example.com", home))
	s.serve(func(o *gateway.FormOptions) { o.Rules = func() *rules.Set { return set } })
	mail := shop(t, func() string {
		return `<form method="post" action="` + s.url + `/forms/shop"><input name="mail" value="a@b.example"><button>Send</button></form>`
	})
	set.Forms["shop"].Origins = nil
	p.Open(mail)
	p.Eval(submit)
	p.Wait(`document.title === "thanks page" && new URLSearchParams(location.search).get("file").includes("/assets/")`)
	if list, _ := s.submissions(); len(list) != 2 || list[0].Context.Consent == nil || !list[0].Context.Consent.Marketing {
		t.Errorf("stored %+v, want both, the first with consent", list)
	}
}
