package gateway_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/gateway"
	"github.com/lodestonehq/lodestone/rules"
)

// last is the newest submission in the stream.
func (s *formSite) last() lodestone.Submission {
	s.t.Helper()
	list, rejected := s.submissions()
	if len(rejected) > 0 || len(list) == 0 {
		s.t.Fatalf("%d submissions, %v", len(list), rejected)
	}
	return list[len(list)-1]
}

func (s *formSite) formToken(form string) string {
	s.t.Helper()
	a := s.send(http.MethodGet, "/tokens/"+form, nil)
	var got struct{ Token string }
	if err := json.Unmarshal([]byte(a.body), &got); a.status != http.StatusOK || err != nil || got.Token == "" {
		s.t.Fatalf("the token is %d %s", a.status, a.body)
	}
	return got.Token
}

func TestEvidence(t *testing.T) {
	source := "203.0.113.9"
	set := compile(t, strings.ReplaceAll(formRules, "title: The <guide>", "title: The <guide>\n    honeypot: website"))
	s := newFormSite(t, func(o *gateway.FormOptions) {
		o.ClientIP = func(*http.Request) string { return source }
		o.Rules = func() *rules.Set { return set }
	})
	post := func(form string, inputs url.Values) *lodestone.Evidence {
		t.Helper()
		s.accepted(s.post("/forms/"+form, inputs.Encode(), "Content-Type", urlForm))
		list := s.read(set)
		return list[len(list)-1].Context.Evidence
	}
	token := s.formToken("guide")
	ev := post("guide", url.Values{"email": {"a@b.example"}, "company": {"x"}, "context.token": {token}})
	if ev == nil || ev.Token != lodestone.TokenGood || ev.FillSeconds <= 0 || ev.FillSeconds > 600 || ev.TokenUses != 1 || ev.AddressSubmissions != 1 || ev.SourceSubmissions != 1 || ev.Honeypot {
		t.Errorf("of an honest one: %+v", ev)
	}
	ev = post("guide", url.Values{"email": {"c@b.example"}, "company": {"x"}, "context.token": {token}, "website": {"http://spam"}})
	if !ev.Honeypot || ev.TokenUses != 2 || ev.SourceSubmissions != 2 || ev.AddressSubmissions != 1 {
		t.Errorf("of one that fills in everything: %+v", ev)
	}
	if ev = post("plain", url.Values{"email": {"a@b.example"}, "context.token": {token}}); ev.Token != lodestone.TokenBad || ev.AddressForms != 2 {
		t.Errorf("with the token of another form: %+v", ev)
	}
	for i := range 9 { // the same address from everywhere
		source = fmt.Sprintf("198.51.100.%d", i)
		ev = post("shop", url.Values{"mail": {"a@b.example"}, "n": {fmt.Sprint(i)}})
	}
	if !ev.Bombed() || ev.AddressSources != 10 || ev.SourceSubmissions != 1 || ev.Token != lodestone.TokenNone {
		t.Errorf("of an address from everywhere: %+v", ev)
	}
	// The evidence is never the page's own word.
	s.accepted(s.post("/forms/plain", `{"fields":{"email":"z@b.example"},"context":{"evidence":{"honeypot":true},"token":"x"}}`, "Lodestone-Observed", `{"evidence":{"honeypot":true}}`))
	if sub := s.last(); sub.Context.Evidence.Honeypot || sub.Context.Evidence.Token != lodestone.TokenBad {
		t.Errorf("a page says %+v of itself", sub.Context.Evidence)
	}
	for path, want := range map[string]int{"/tokens/nobody": 404, "/tokens/": 404} {
		if a := s.send(http.MethodGet, path, nil); a.status != want {
			t.Errorf("%s: %d, want %d", path, a.status, want)
		}
	}
	if a := s.post("/tokens/guide", ""); a.status != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d, want 405", a.status)
	}
}

// TestHostile posts 10,000 hostile requests among 1,000 honest ones. Every honest one is served and
// stored, whatever was answered with an id is stored under it, nothing that was sent is repeated in an answer, and
// memory does not grow with the number.
func TestHostile(t *testing.T) {
	const hostile, honest, clients = 10_000, 1_000, 32
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	s := newFormSite(t)

	corpus := []func(rng *rand.Rand) (path, kind, body string){
		func(*rand.Rand) (string, string, string) {
			return "/forms/guide", "application/json", `{"email":"` + mark
		},
		func(*rand.Rand) (string, string, string) {
			return "/forms/" + url.PathEscape(mark), "application/json", `{}`
		},
		func(*rand.Rand) (string, string, string) {
			return "/forms/guide", urlForm, url.Values{"email": {mark}, "company": {mark}}.Encode()
		},
		func(*rand.Rand) (string, string, string) {
			return "/forms/guide", urlForm, url.Values{mark: {mark}, "context." + mark + ".x": {mark}}.Encode()
		},
		func(*rand.Rand) (string, string, string) {
			return "/forms/guide", "application/json", strings.Repeat("[", 100_000)
		},
		func(*rand.Rand) (string, string, string) {
			return "/forms/guide", "application/json", `{"email":"` + strings.Repeat("a", 200<<10) + `"}`
		},
		func(*rand.Rand) (string, string, string) {
			return "/forms/guide", "multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=\"" + mark + "\"\r\n\r\n" + mark
		},
		func(*rand.Rand) (string, string, string) { return "/forms/guide", mark, mark },
		func(*rand.Rand) (string, string, string) { return "/assets/" + mark, "text/plain", "" },
		func(rng *rand.Rand) (string, string, string) {
			b := make([]byte, rng.IntN(300))
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
			kinds := []string{"application/json", urlForm, "multipart/form-data; boundary=x", "application/cloudevents+json"}
			return "/forms/guide", kinds[rng.IntN(len(kinds))], string(b)
		},
		func(rng *rand.Rand) (string, string, string) { // a valid body with one byte changed
			b := []byte(`{"fields":{"email":"spam@example.com","company":"x"},"context":{"utm":{"source":"s"},"token":"x"}}`)
			b[rng.IntN(len(b))] = byte(rng.Uint32())
			return "/forms/guide", "application/json", string(b)
		},
	}
	for _, seed := range hostileSeeds {
		corpus = append(corpus, func(*rand.Rand) (string, string, string) { return "/forms/guide", seed[0], seed[1] })
	}
	var taken sync.Map // ids that were answered with 202
	web := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients, MaxConnsPerHost: clients}}
	defer web.CloseIdleConnections()
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var all sync.WaitGroup
	jobs := make(chan int)
	for c := range clients {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(c)))
			for i := range jobs {
				path, kind, body, want := "/forms/plain", "application/json", fmt.Sprintf(`{"email":"honest%d@example.com"}`, i), http.StatusAccepted
				if i >= honest {
					path, kind, body = corpus[rng.IntN(len(corpus))](rng)
					want = 0
				}
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url, strings.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				if req.URL.Path, req.URL.RawPath = path, ""; strings.Contains(path, "%") {
					req.URL.Path, _ = url.PathUnescape(path)
				}
				req.Header["Content-Type"] = []string{strings.ReplaceAll(kind, "\n", "")}
				if i%2 == 0 {
					req.Header.Set("Accept", "text/html")
				}
				resp, err := web.Do(req)
				if err != nil {
					if want != 0 {
						t.Errorf("an honest one was not served: %v", err)
					}
					continue // the gateway hung up on it
				}
				var b strings.Builder
				if _, err := fmt.Fprint(&b, resp.Header); err == nil {
					buf := make([]byte, 64<<10)
					for {
						n, err := resp.Body.Read(buf)
						b.Write(buf[:n])
						if err != nil {
							break
						}
					}
				}
				resp.Body.Close()
				if resp.StatusCode == http.StatusAccepted {
					var a accepted
					if _, body, ok := strings.Cut(b.String(), "{"); ok && json.Unmarshal([]byte("{"+body), &a) == nil && a.ID != "" {
						taken.Store(a.ID, true)
					}
				}
				if want != 0 && resp.StatusCode != want {
					t.Errorf("an honest one was answered with %d %s", resp.StatusCode, b.String())
				}
				if resp.StatusCode == http.StatusInternalServerError || strings.Contains(b.String(), mark) {
					t.Errorf("%s %q was answered with %d %.300s", path, kind, resp.StatusCode, b.String())
				}
			}
		})
	}
	order := rand.New(rand.NewPCG(seed, 99)).Perm(hostile + honest)
	for _, i := range order {
		jobs <- i
	}
	close(jobs)
	all.Wait()
	if strings.Contains(s.logs.String(), "sent-by-a-spammer") {
		t.Error("the log repeats what was sent")
	}
	served := map[lodestone.Email]int{}
	list, _ := s.submissions()
	stored := map[string]bool{}
	for _, sub := range list {
		served[sub.Email]++
		stored[sub.ID] = true
	}
	acknowledged := 0
	taken.Range(func(id, _ any) bool {
		acknowledged++
		if !stored[id.(string)] {
			t.Errorf("%v was acknowledged and is not stored", id)
		}
		return true
	})
	if acknowledged < honest {
		t.Errorf("%d ids were given out, want those of %d honest ones at least", acknowledged, honest)
	}
	t.Logf("%d acknowledged, %d stored", acknowledged, len(list))
	for i := range honest {
		if n := served[lodestone.Email(fmt.Sprintf("honest%d@example.com", i))]; n != 1 {
			t.Errorf("honest %d is stored %d times, want once", i, n)
		}
	}
	list, served, stored = nil, nil, nil
	var after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&after)
	grown := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("the heap grew by %d KiB", grown>>10)
	if grown > 48<<20 {
		t.Errorf("the heap grew by %d MiB over %d requests", grown>>20, hostile+honest)
	}
}

// TestClaimedAddress: a visitor can write anything into the context, and the address that the gateway saw stands.
func TestClaimedAddress(t *testing.T) {
	s := newFormSite(t)
	s.accepted(s.post("/forms/guide", "email=a@b.example&company=x&context.ip=8.8.8.8&context.consent.marketing=on&context.consent.at=2001-01-01T00:00:00Z", "Content-Type", urlForm))
	sub := s.last()
	if sub.Visitor != "127.0.0.1" || sub.Context.IP != "8.8.8.8" || len(sub.Notes) != 1 {
		t.Errorf("visitor %q, context %+v, notes %q; want 127.0.0.1, the claim beside it, and a note", sub.Visitor, sub.Context, sub.Notes)
	}
	s.accepted(s.post("/forms/guide", "email=a@b.example&company=y&context.ip=me", "Content-Type", urlForm))
	if sub := s.last(); sub.Visitor != "127.0.0.1" || sub.Context.IP != "127.0.0.1" || len(sub.Notes) != 1 {
		t.Errorf("visitor %q, context %+v, notes %q; want what was seen, and a note", sub.Visitor, sub.Context, sub.Notes)
	}
}
