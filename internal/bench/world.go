package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/referralrock"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/scheduler"
	"github.com/lodestonehq/lodestone/sequencer"
)

// ruleFile is what the benches decide by: a form, five scoring rules, two sequences; %s is how long the
// first touchpoint waits.
const ruleFile = `
forms:
  guide:
    fields:
      email: {type: email, required: true}
      first_name: {type: text}
      size: {type: number}
      country: {type: text}
lists:
  competitors: [rival.example, other.example]
scoring:
  bands: {hot: 60, warm: 30, cold: 0}
  rules:
    - {name: business-email, when: not lead.freemail, points: 20}
    - {name: company-size, points: 'fields.size >= 1000 ? 40 : fields.size >= 200 ? 25 : 0'}
    - {name: competitor, when: lead.domain in lists.competitors, points: -100}
    - {name: dach, when: 'fields.country in ["DE", "AT", "CH"]', points: 10}
    - {name: asked-again, when: lead.submissions > 1, points: 15, each: true, half_life: 30d}
sequences:
  hot:
    when: band == "hot"
    priority: 10
    steps:
      - {name: invite, after: %[1]s, do: referralrock.invite, with: {firstName: '${fields.first_name ?? "there"}'}}
  rest:
    when: 'true'
    steps:
      - {name: invite, after: %[1]s, do: referralrock.invite, with: {firstName: '${fields.first_name ?? "there"}'}}
`

// rulebook compiles the rules, with the first touchpoint after wait.
func rulebook(wait string) (*sequencer.Rulebook, error) {
	set, err := ruleset(fmt.Sprintf(ruleFile, wait))
	if err != nil {
		return nil, err
	}
	return sequencer.NewRulebook(set), nil
}

func ruleset(text string) (*rules.Set, error) {
	return rules.Compile([]rules.File{{Name: "bench.yaml", Data: []byte(text)}}, rules.Options{Operations: operations()})
}

// operations are those that the rules may name.
func operations() map[string]lodestone.Operation {
	ops := map[string]lodestone.Operation{}
	for _, op := range referralrock.Kind().RuleOperations() {
		op.Name = "referralrock." + op.Name
		ops[op.Name] = op
	}
	return ops
}

// address is the n-th lead's: scrambled, so that neighbours in number are no neighbours in the store.
func address(n int) string {
	h := uint64(n) * 0x9e3779b97f4a7c15
	return fmt.Sprintf("%011x%d@example.com", h>>20, n)
}

// body is what a form's page sends.
func body(n int) []byte {
	return fmt.Appendf(nil, `{"fields":{"email":"%s","first_name":"Ada","size":%d,"country":"DE"},`+
		`"context":{"page":"https://www.example.com/guides/pricing?utm_source=news","user_agent":"Mozilla/5.0 (X11; Linux x86_64)","timezone":"Europe/Berlin",`+
		`"utm":{"source":"news","medium":"email","campaign":"autumn"},"consent":{"marketing":true,"text":"Yes, send me news"}}}`, address(n), n%2000)
}

// submission is what decoding body(n) gives.
func submission(n int, at time.Time) lodestone.Submission {
	email := lodestone.Email(address(n))
	return lodestone.Submission{
		ID: fmt.Sprintf("bench-%d", n), Form: "guide", Email: email, At: at, Received: at,
		Fields: lodestone.FieldsOf(map[string]any{"email": string(email), "first_name": "Ada", "size": float64(n % 2000), "country": "DE"}),
		Context: lodestone.Context{
			Page: "https://www.example.com/guides/pricing?utm_source=news", UserAgent: "Mozilla/5.0 (X11; Linux x86_64)", Timezone: "Europe/Berlin",
			UTM: lodestone.UTM{Source: "news", Medium: "email", Campaign: "autumn"}, Consent: &lodestone.Consent{Marketing: true, Text: "Yes, send me news"},
		},
	}
}

// provider answers as ReferralRock does, after delay: no address is unsubscribed, every invite is
// taken. Each act is told to acted with the address it was for.
type provider struct {
	delay  time.Duration
	acted  func(body []byte, at time.Time)
	server *http.Server
	url    string
}

func newProvider(delay time.Duration, acted func([]byte, time.Time)) (*provider, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &provider{delay: delay, acted: acted, url: "http://" + l.Addr().String()}
	p.server = &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = p.server.Serve(l) }() // until Close
	return p, nil
}

func (p *provider) Close() { _ = p.server.Close() }

func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	at := time.Now()
	b, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return
	}
	if p.delay > 0 {
		time.Sleep(p.delay)
	}
	w.Header().Set("Content-Type", "application/json")
	if r.Method == http.MethodGet {
		_, _ = io.WriteString(w, "[]")
		return
	}
	if p.acted != nil {
		p.acted(b, at)
	}
	_, _ = io.WriteString(w, `{"email":"somebody@example.com","outcome":"MemberPreloaded","message":null}`)
}

// workers is how many calls are out at a time.
const workers = 64

// account is a ReferralRock account at p, whose rate is no limit.
func (p *provider) account() (*connectors.Account, error) {
	return connectors.Open(referralrock.Kind(), connectors.Settings{
		Name: "referralrock", BaseURL: p.url, Rate: 1e6, Concurrency: workers,
		Secrets: map[string]connectors.Secret{"public_key": "public", "private_key": "private"},
	})
}

// sending is the account as the scheduler uses it.
func sending(a *connectors.Account) map[string]scheduler.Account {
	s, ops := a.Settings(), map[string]lodestone.Operation{}
	for _, op := range a.Kind().RuleOperations() {
		ops[op.Name] = op
	}
	return map[string]scheduler.Account{"referralrock": {
		Provider: a, Concurrency: s.Concurrency, Timeout: s.Timeout, Attempts: s.Attempts, Settle: s.Settle, Operations: ops,
	}}
}

// prefill commits leads that have been here once and whose touchpoint waits, and tells put of each
// change, for the raw file beside.
func prefill(ctx context.Context, store sequencer.Store, book *sequencer.Rulebook, from, to int, at time.Time, told func([]sequencer.Result) error) error {
	const batch = 10_000
	for first := from; first < to; first += batch {
		b := sequencer.Batch{}
		for n := first; n < min(first+batch, to); n++ {
			sub := submission(n, at)
			b.Writes = append(b.Writes, sequencer.Write{Email: sub.Email, Plan: func(st sequencer.State) (sequencer.Change, error) {
				return sequencer.Plan(st.Lead, &sequencer.Submitted{Submission: sub}, book, at)
			}})
		}
		results, err := store.Commit(ctx, b)
		if err != nil {
			return err
		}
		if told == nil {
			continue
		}
		if err := told(results); err != nil {
			return err
		}
	}
	return nil
}
