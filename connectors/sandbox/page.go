package sandbox

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed" // of the page
	"encoding/base64"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"time"
)

// pageRows is how many rows a table of the page shows; the JSON behind it has all that is remembered.
const pageRows = 25

var (
	//go:embed page.css
	pageCSS string
	//go:embed page.html
	pageHTML string

	pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
		"clock":   func(t time.Time) string { return t.UTC().Format("15:04:05.000") },
		"playsOn": playsOn,
		"good":    func(status int) bool { return status >= 200 && status < 300 },
	}).Parse(pageHTML))

	// pagePolicy allows the page's own style and nothing else: no script, no image, no frame around it.
	pagePolicy = func() string {
		sum := sha256.Sum256([]byte(pageCSS))
		return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
			"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	}()
)

// holder is an emulated provider that can say what it holds.
type holder interface{ holds() []holding }

// holding is a kind of things and how many of them there are.
type holding struct {
	Name  string
	Count int
}

// card is one provider on the page.
type card struct {
	Name       string // also the end of its base_url
	Requests   int    // that are remembered
	Acted      int    // of them, those that had an effect
	Violations int    // that are remembered
	Holds      []holding
}

// pageView is everything the page shows, newest first.
type pageView struct {
	CSS        template.CSS
	Now        time.Time
	Cards      []card
	Settings   settingsJSON
	Faults     []Fault
	Received   []Received
	Violations []Violation
	Effects    []EffectCount // repeated ones first
	Repeated   int
	More       struct{ Received, Violations, Effects int } // that did not fit
}

// providers are the emulated ones in the order of the page.
func (s *Server) providers() []provider {
	return []provider{
		{s, "referralrock", s.rock},
		{s, "saasquatch", s.squatch},
		{s, "23blocks", s.blocks},
		{s, "referralfactory", s.factory},
	}
}

func (s *Server) view() pageView {
	received, violations, effects := s.Received(), s.Violations(), s.Effects().ByEmail
	v := pageView{CSS: template.CSS(pageCSS), Now: time.Now(), Settings: s.Settings().wire(), Faults: s.Faults()}
	at := map[string]int{}
	add := func(c card) {
		at[c.Name] = len(v.Cards)
		v.Cards = append(v.Cards, c)
	}
	for _, p := range s.providers() {
		c := card{Name: p.name}
		if h, ok := p.emulated.(holder); ok {
			c.Holds = h.holds()
		}
		add(c)
	}
	for _, r := range received {
		if _, known := at[r.Provider]; !known {
			add(card{Name: r.Provider})
		}
		c := &v.Cards[at[r.Provider]]
		c.Requests++
		if r.Effect {
			c.Acted++
		}
	}
	for _, w := range violations {
		if i, known := at[w.Provider]; known {
			v.Cards[i].Violations++
		}
	}
	slices.SortStableFunc(effects, func(a, b EffectCount) int { return cmp.Compare(b.Count, a.Count) })
	for _, e := range effects {
		if e.Count > 1 {
			v.Repeated++
		}
	}
	v.Received, v.More.Received = firstOf(received)
	v.Violations, v.More.Violations = firstOf(violations)
	v.Effects, v.More.Effects = firstOf(effects)
	return v
}

func firstOf[T any](all []T) (first []T, more int) {
	n := min(len(all), pageRows)
	return all[:n], len(all) - n
}

// page answers with what the sandbox holds and received, for people. It renews itself.
func (s *Server) page(w http.ResponseWriter, _ *http.Request) {
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, s.view()); err != nil { // our own types only
		panic("sandbox: " + err.Error())
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(b.Bytes())
}

// playsOn describes the requests that a fault is for.
func playsOn(f Fault) string {
	parts := []string{cmp.Or(f.Operation, "every operation")}
	if f.Email != "" {
		parts = append(parts, "for "+f.Email)
	}
	if f.ExternalID != "" {
		parts = append(parts, "with id "+f.ExternalID)
	}
	return strings.Join(parts, " ")
}

func (q *squatch) holds() []holding {
	q.mu.Lock()
	defer q.mu.Unlock()
	return []holding{{"users", len(q.users)}, {"referrals", len(q.referrals)}, {"webhooks", len(q.webhooks)}}
}

func (b *blocks) holds() []holding {
	b.mu.Lock()
	defer b.mu.Unlock()
	there := 0
	for _, r := range b.referrals.rows {
		if !r.gone && !r.v.deleted {
			there++
		}
	}
	return []holding{{"referrals", there}, {"subscriptions", len(b.subscriptions)}}
}

func (f *factory) holds() []holding {
	f.mu.Lock()
	defer f.mu.Unlock()
	return []holding{{"campaigns", len(f.campaigns)}, {"users", len(f.users)}, {"rewards due", len(f.due)}, {"rewards issued", len(f.issued)}}
}
