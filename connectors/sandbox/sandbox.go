// Package sandbox emulates referral providers over real HTTP, so that rules can be tried and crashes
// survived without anyone being written to.
//
// It takes what the provider takes and refuses the rest in the provider's own words, after checking
// each request against the provider's OpenAPI description. What breaks the description is listed as a
// contract violation. It counts every effect once, by address and by external id, which makes it the
// judge of tests that kill the worker: two effects of one touchpoint are a duplicate, whatever anyone's
// log says. Faults are switched on and off while it runs.
//
//	/referralrock/…          Referral Rock; base_url is http://host:port/referralrock
//	/saasquatch/…            SaaSquatch; base_url is http://host:port/saasquatch, any tenant
//	/23blocks/…              23blocks; base_url is http://host:port/23blocks
//	/referralfactory/…       Referral Factory; base_url is http://host:port/referralfactory
//	/_sandbox/               GET   a page for people
//	/_sandbox/received       GET   the newest requests, newest first
//	/_sandbox/effects        GET   what had an effect, and how often
//	/_sandbox/violations     GET   requests that broke the description
//	/_sandbox/faults         GET, POST (a Fault), DELETE
//	/_sandbox/settings       GET, POST (Settings; what is left out stays)
//	/_sandbox/saasquatch     GET, POST (SquatchSettings; what is left out stays)
//	/_sandbox/hooks          GET   webhook subscriptions, Referral Rock's with their signing keys
//	/.well-known/jwks.json   GET   the keys that SaaSquatch's webhooks are signed with
//	/_sandbox/reset          POST  everything as it was at the start, faults included
//
// It holds everything in memory, writes nothing, and speaks to nobody but those who subscribed to its
// webhooks. It is made for a developer's machine: its admin paths have no password.
package sandbox

import (
	"encoding/json"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors/referralrock"
)

// maxBody is the largest request that is read.
const maxBody = 1 << 20

// Options of [New]. The zero value is a sandbox that accepts any credentials.
type Options struct {
	PublicKey       string // of Referral Rock; empty: any that is not empty
	PrivateKey      string // of Referral Rock; empty: any that is not empty
	Blocks23        Blocks23Options
	ReferralFactory FactoryOptions
	Unsubscribed    []lodestone.Email // nil: unsubscribed@example.com
	Settings        Settings
	SaaSquatch      SquatchOptions
	Keep            int            // requests and violations remembered; 0: 1000
	OnRequest       func(Received) // called after each request, by its goroutine; may be nil
}

// Duplicates is what happens to a referral that is there already, by address, external id or phone.
type Duplicates string

// What the program's fraud rule does with a duplicate. Both ways of blocking are assumed of the real
// provider.
const (
	DuplicatesPass   Duplicates = "pass"   // a second referral
	DuplicatesBlock  Duplicates = "block"  // 400
	DuplicatesRefuse Duplicates = "refuse" // 200 with words and without a referral
)

// Settings are what can be changed while the sandbox runs.
type Settings struct {
	Duplicates   Duplicates    // empty: pass
	VisibleAfter time.Duration // how long after it was made a member or referral shows in reads
	Hidden       bool          // what is made never shows in reads
}

// Received is one request to a provider.
type Received struct {
	At           time.Time `json:"at"`
	Provider     string    `json:"provider"`
	Operation    string    `json:"operation,omitempty"` // empty: no operation of the provider
	Method       string    `json:"method"`
	Path         string    `json:"path"`
	Email        string    `json:"email,omitempty"`
	ExternalID   string    `json:"external_id,omitempty"`
	Effect       bool      `json:"effect"`
	Status       int       `json:"status"`                 // 0: the connection was broken instead
	Fault        FaultKind `json:"fault,omitempty"`        // that was played
	Violation    string    `json:"violation,omitempty"`    // what broke the description
	Unsubscribed bool      `json:"unsubscribed,omitempty"` // an effect on an address that had opted out
}

// Violation is a request that broke the provider's description.
type Violation struct {
	At        time.Time `json:"at"`
	Provider  string    `json:"provider"`
	Operation string    `json:"operation,omitempty"`
	Problem   string    `json:"problem"`
}

// rockContract is read once, since that takes tens of milliseconds and never changes.
var rockContract = sync.OnceValue(func() *contract { return mustContract(referralrock.Specification()) })

// Server is the sandbox. Make one with [New]; it is safe for concurrent use.
type Server struct {
	opts    Options
	rock    *rock
	factory *factory
	squatch *squatch
	blocks  *blocks
	mux     *http.ServeMux

	mu         sync.Mutex // guards what follows
	settings   Settings
	faults     []*Fault
	cleared    chan struct{} // closed when faults are cleared; ends what hangs
	received   []Received    // oldest first
	violations []Violation   // oldest first
	effects    map[EffectKey]int
}

// New makes a sandbox. It starts nothing; [Server.Handler] is its only way in.
func New(opts Options) *Server {
	if opts.Keep <= 0 {
		opts.Keep = 1000
	}
	if opts.Unsubscribed == nil {
		opts.Unsubscribed = []lodestone.Email{"unsubscribed@example.com"}
	}
	s := &Server{opts: opts, mux: http.NewServeMux(), cleared: make(chan struct{})}
	s.settings = opts.Settings.withDefaults()
	s.effects = map[EffectKey]int{}
	s.rock = newRock(s, rockContract())
	s.mux.Handle("/referralrock/", http.StripPrefix("/referralrock", provider{s, "referralrock", s.rock}))
	s.squatch = newSquatch(s)
	s.mux.Handle("/saasquatch/", http.StripPrefix("/saasquatch", provider{s, "saasquatch", s.squatch}))
	s.blocks = newBlocks(s, opts.Blocks23)
	s.mux.Handle("/23blocks/", http.StripPrefix("/23blocks", provider{s, "23blocks", s.blocks}))
	s.factory = newFactory(s, opts.ReferralFactory)
	s.mux.Handle("/referralfactory/", http.StripPrefix("/referralfactory", provider{s, "referralfactory", s.factory}))
	s.admin()
	return s
}

func (s Settings) withDefaults() Settings {
	if s.Duplicates == "" {
		s.Duplicates = DuplicatesPass
	}
	return s
}

// Handler is the sandbox over HTTP. A server that uses it needs no timeouts of its own: a hanging
// fault ends when the client goes away or the faults are cleared.
func (s *Server) Handler() http.Handler { return s.mux }

// Settings are the present ones.
func (s *Server) Settings() Settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settings
}

// Set changes the settings.
func (s *Server) Set(settings Settings) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settings = settings.withDefaults()
}

// Reset puts everything back as it was at the start: data, counts, settings and faults.
func (s *Server) Reset() {
	s.Clear()
	s.Set(s.opts.Settings)
	s.mu.Lock()
	s.received, s.violations, s.effects = nil, nil, map[EffectKey]int{}
	s.mu.Unlock()
	s.rock.reset()
	s.factory.reset()
	s.squatch.reset()
	s.blocks.reset()
}

// Close ends the webhook deliveries that are under way and waits for them. Requests are answered as
// before, and nothing is delivered any more. Without deliveries there is nothing to close.
func (s *Server) Close() {
	s.rock.hooks.close()
	s.squatch.hooks.close()
}

// Received gives the requests that are remembered, newest first.
func (s *Server) Received() []Received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return newestFirst(s.received, s.opts.Keep)
}

// Violations gives the violations that are remembered, newest first.
func (s *Server) Violations() []Violation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return newestFirst(s.violations, s.opts.Keep)
}

func newestFirst[T any](s []T, most int) []T {
	out := make([]T, 0, min(len(s), most))
	for i := len(s) - 1; i >= 0 && len(out) < most; i-- {
		out = append(out, s[i])
	}
	return out
}

// keep appends and forgets the oldest. It shifts in steps of a whole length, so that most appends move
// nothing.
func keep[T any](s []T, v T, most int) []T {
	if s = append(s, v); len(s) >= 2*most {
		s = append(s[:0], s[len(s)-most:]...)
	}
	return s
}

// note remembers a request that was handled.
func (s *Server) note(r Received) {
	s.mu.Lock()
	s.received = keep(s.received, r, s.opts.Keep)
	if r.Violation != "" {
		s.violations = keep(s.violations, Violation{At: r.At, Provider: r.Provider, Operation: r.Operation, Problem: r.Violation}, s.opts.Keep)
	}
	s.mu.Unlock()
	if s.opts.OnRequest != nil {
		s.opts.OnRequest(r)
	}
}

// request is one request to an emulated provider, on its way.
type request struct {
	*http.Request
	body []byte
	seen *Received
}

// reply is what a provider answers.
type reply struct {
	status int
	header http.Header
	body   any // of JSON
}

// emulated is one provider.
type emulated interface {
	// match names the operation, and finds the keys by which faults and effects are told apart.
	match(*request) (operation string, emails []string, externalID string)
	// serve checks the request and carries it out. It notes effects and violations on the request.
	serve(*request) reply
	// failure is an error in the provider's shape.
	failure(status int, words string) reply
}

// provider serves one emulated provider, with the faults that are switched on.
type provider struct {
	s    *Server
	name string
	emulated
}

func (p provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	seen := Received{At: time.Now().UTC(), Provider: p.name, Method: r.Method, Path: clip(r.URL.Path, 200)}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	req := &request{Request: r, body: body, seen: &seen}
	if err != nil {
		answer := p.failure(http.StatusRequestEntityTooLarge, "The request is larger than 1 MiB or was cut short.")
		seen.Violation, seen.Status = "the body is larger than 1 MiB or was cut short", answer.status
		p.s.note(seen)
		send(w, answer)
		return
	}
	operation, emails, external := p.match(req)
	seen.Operation, seen.ExternalID = operation, clip(external, 200)
	if len(emails) > 0 {
		seen.Email = clip(emails[0], 320)
	}
	if f := p.s.play(operation, emails, external); f != nil {
		seen.Fault = f.Kind
		p.faulty(w, req, f)
		return
	}
	answer := p.serve(req)
	seen.Status = answer.status
	p.s.note(seen)
	send(w, answer)
}

func clip(s string, most int) string {
	if len(s) > most {
		return s[:most]
	}
	return s
}

func send(w http.ResponseWriter, a reply) {
	body, err := json.Marshal(a.body)
	if err != nil { // our own types only
		panic("sandbox: " + err.Error())
	}
	for k, v := range a.header {
		w.Header()[k] = v
	}
	if _, none := a.body.(noBody); none {
		w.WriteHeader(a.status)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(a.status)
	_, _ = w.Write(body)
}
