package sandbox

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func openPage(t *testing.T, base string) answer {
	t.Helper()
	req, _ := http.NewRequest("GET", base+"/_sandbox/", nil)
	a, err := exchange(req)
	if err != nil || a.status != http.StatusOK || !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") {
		t.Fatalf("page = %d %s, %v", a.status, a.header.Get("Content-Type"), err)
	}
	return a
}

func TestPageShowsWhatCameIn(t *testing.T) {
	s, base := start(t, Options{})
	if page := string(openPage(t, base).body); !strings.Contains(page, "No request yet") || !strings.Contains(page, "<b>3</b> members") {
		t.Errorf("the page of a new sandbox does not say that nothing came in and what it holds:\n%s", page)
	}
	must(t, base, "POST", "/api/invitefeed", []byte(`{"firstName": "A", "email": "first@example.com"}`))
	must(t, base, "POST", "/api/invitefeed", []byte(`{"firstName": "A", "email": "first@example.com"}`))
	must(t, base, "GET", "/api/members?mail=a", nil)
	if err := s.Fault(Fault{Kind: Fault503, Operation: "refer", Email: "lin@example.com", Times: 7}); err != nil {
		t.Fatal(err)
	}
	must(t, base, "POST", "/api/invitefeed", []byte(`{"firstName": "U", "email": "unsubscribed@example.com"}`))
	page := string(openPage(t, base).body)
	for _, want := range []string{
		"<dd>4</dd>", "<dd>3</dd>", `<dd class="alarm">1</dd>`, "<b>5</b> members", // the card
		"no query parameter &#34;mail&#34;", "1 more than once", "had opted out",
		"createReferral for lin@example.com", ">503<", "<td>7</td>",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not show %s:\n%s", want, page)
		}
	}
	if newest, oldest := strings.Index(page, "unsubscribed@example.com"), strings.Index(page, "first@example.com"); newest < 0 || newest > oldest {
		t.Errorf("the newest request stands at %d, the oldest at %d", newest, oldest)
	}
	for _, p := range s.providers() {
		if !strings.Contains(page, "<h2>/"+p.name+"</h2>") {
			t.Errorf("there is no card of %s", p.name)
		}
		if _, pattern := s.mux.Handler(&http.Request{Method: "GET", URL: &url.URL{Path: "/" + p.name + "/x"}}); pattern != "/"+p.name+"/" {
			t.Errorf("%s is on the page and answers at %q", p.name, pattern)
		}
	}
}

func TestPageIsBounded(t *testing.T) {
	s, base := start(t, Options{})
	for i := range pageRows + 3 {
		s.note(Received{Provider: "referralrock", Operation: "getReferral", Email: fmt.Sprintf("r%d@example.com", i), Status: 200})
	}
	page := string(openPage(t, base).body)
	if n := strings.Count(page, "getReferral"); n != pageRows || !strings.Contains(page, "and 3 more") {
		t.Errorf("%d requests on the page, want %d and word of 3 more", n, pageRows)
	}
}

// Whatever comes in is text on the page, and the browser is told to run nothing, load nothing and sit
// in no frame. The only style it may use is the page's own.
func TestPageIsInert(t *testing.T) {
	s, base := start(t, Options{})
	const evil = `"><script>alert(1)</script><img src=x onerror=alert(1)>`
	s.note(Received{Provider: evil, Operation: evil, Method: evil, Path: evil, Email: evil, ExternalID: evil, Fault: FaultKind(evil), Violation: evil})
	s.note(Received{Provider: "referralrock", Method: evil, Path: evil})
	s.effect(evil, evil, evil)
	if err := s.Fault(Fault{Kind: Fault503, Email: evil, ExternalID: evil, RetryAfter: evil}); err != nil {
		t.Fatal(err)
	}
	a := openPage(t, base)
	page := string(a.body)
	if strings.Contains(page, "<script") || strings.Contains(page, "<img") || strings.Count(page, "&lt;script&gt;") < 10 {
		t.Errorf("what came in is not escaped:\n%s", page)
	}
	for _, outside := range []string{"http://", "https://", "src=", "<link", "url(", "@import"} {
		if strings.Contains(strings.ReplaceAll(page, "&lt;img src=x", ""), outside) {
			t.Errorf("the page has %s, which may load something from elsewhere", outside)
		}
	}
	_, style, _ := strings.Cut(page, "<style>")
	style, _, _ = strings.Cut(style, "</style>")
	sum := sha256.Sum256([]byte(style))
	policy := a.header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("the policy is %q, want %s in it", policy, want)
		}
	}
	if strings.Contains(policy, "unsafe") || strings.Contains(page, "style=") || a.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("policy %q, headers %v", policy, a.header)
	}
}
