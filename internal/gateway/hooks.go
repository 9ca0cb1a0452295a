// Package gateway takes in what arrives over HTTP from outside: forms, under /forms/, and webhooks of
// providers, under /hooks/.
//
// A form is answered with 202 only when it is on disk in LODESTONE_FORMS; see [Forms]. What follows is
// about webhooks.
//
//	POST /hooks/{account}                    a provider whose bodies name their event
//	POST /hooks/{account}/{event}            one whose bodies do not
//	POST /hooks/{account}/…/{token}          one that signs nothing, or not the event: the address ends in
//	                                         a secret, or in a token that binds the event to the key
//
// A webhook goes method → size → media type → body → proof that the provider sent it → reading →
// stream, and the first that objects decides. It is answered with a 2xx only when every signal in it is
// on disk in LODESTONE_SIGNALS; whenever that is not so the answer is one that makes a provider send
// it again. Nothing is taken on trust: an account whose webhooks cannot be verified answers 403.
//
// A webhook that comes twice makes the same message twice: the ids of its signals follow from the
// provider's id of the event, or from the address and the body, so that the stream (for two minutes)
// and the lead (for at least seven days) know the repeat.
//
//	answer        meaning                                             result
//	202 or 200    stored                                              accepted
//	              an event that is no signal                          ignored
//	              an event that is not known                          unknown_event
//	              a signal about nobody who can be written to         no_address
//	400           the body is not what the provider sends             bad_body
//	              the body did not come to its end                    interrupted
//	403           not proved to come from the provider                forged
//	              nothing is configured that could prove it           unverifiable
//	404           no such address                                     not_found
//	405           another method than POST                            bad_method
//	408           the body took too long                              timeout
//	413           the body is too long                                too_large
//	415           the body is not JSON                                bad_media_type
//	503           the provider's keys cannot be had                   keys_away
//	              the stream does not take it                         broker_away
//	              too much at a time                                  busy
//
// The status of a webhook that was taken is the one that its provider wants to see.
package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/internal/access"
)

const (
	// MaxHook is the longest body of a webhook that is read, in bytes.
	MaxHook = 256 << 10
	// HooksPath is where webhooks are posted.
	HooksPath = "/hooks/"

	bodyTimeout    = 10 * time.Second // for a body to come in
	storeTimeout   = 5 * time.Second  // for its signals to be stored: providers give up after some seconds more
	maxAtOnce      = 256              // webhooks under way; with MaxHook each they hold 64 MiB
	retryAfter     = 30 * time.Second
	retryAfterBusy = 2 * time.Second
)

// Publisher stores messages and returns when they are on disk.
type Publisher interface {
	PublishBatch(context.Context, []*nats.Msg) error
}

// HookAccount is one account whose provider has webhooks.
type HookAccount struct {
	Settings connectors.Settings // of the account, with defaults
	Hook     connectors.Hook     // of its kind
	Secrets  map[string]connectors.Secret
}

// HookOptions of [Hooks].
type HookOptions struct {
	Accounts    []HookAccount
	Publisher   Publisher             // nil: every webhook that would be stored is answered with 503
	Registerer  prometheus.Registerer // nil: nobody counts
	Log         *slog.Logger          // nil: silent
	BodyTimeout time.Duration         // for a body to come in; 0: 10 s
}

// Hooks takes in the webhooks of accounts; mount it at [HooksPath]. It logs which accounts' webhooks
// are refused, and why. Call it once for a registerer.
func Hooks(o HookOptions) http.Handler {
	h := &hooks{
		accounts: map[string]*hookAccount{}, publisher: o.Publisher, log: o.Log,
		slots: make(chan struct{}, maxAtOnce), from: map[string]int{}, bodyTimeout: o.BodyTimeout,
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lodestone_hooks_total",
			Help: "Webhooks by account (empty for one that there is not) and what became of them.",
		}, []string{"connector", "result"}),
	}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	if h.bodyTimeout == 0 {
		h.bodyTimeout = bodyTimeout
	}
	if o.Registerer != nil {
		o.Registerer.MustRegister(h.total)
	}
	for _, a := range o.Accounts {
		account := &hookAccount{name: a.Settings.Name, hook: a.Hook}
		verify, err := a.Hook.Open(a.Settings, a.Secrets)
		if err != nil {
			h.log.Info("no webhooks are taken for this connector until they can be verified (optional)", "connector", account.name, "missing", err)
		} else {
			account.verify = verify
		}
		h.accounts[account.name] = account
		h.total.WithLabelValues(account.name, resultAccepted)
	}
	return h
}

// The results: a closed set, safe as a metric label.
const (
	resultAccepted     = "accepted"
	resultIgnored      = "ignored"
	resultUnknownEvent = "unknown_event"
	resultNoAddress    = "no_address"
	resultBadBody      = "bad_body"
	resultInterrupted  = "interrupted"
	resultForged       = "forged"
	resultUnverifiable = "unverifiable"
	resultNotFound     = "not_found"
	resultBadMethod    = "bad_method"
	resultTimeout      = "timeout"
	resultTooLarge     = "too_large"
	resultBadMedia     = "bad_media_type"
	resultKeysAway     = "keys_away"
	resultBrokerAway   = "broker_away"
	resultBusy         = "busy"
)

type hooks struct {
	accounts    map[string]*hookAccount
	publisher   Publisher
	log         *slog.Logger
	slots       chan struct{}  // one element a webhook under way
	mu          sync.Mutex     // guards what follows
	from        map[string]int // webhooks under way by the address that sends them
	bodyTimeout time.Duration
	total       *prometheus.CounterVec
}

type hookAccount struct {
	name   string
	hook   connectors.Hook
	verify connectors.VerifyHook // nil: nothing is configured that could verify
}

// refusal is an answer that is not a 2xx.
type refusal struct {
	status int
	result string
	detail string        // in words, with what to do next; nothing of the request
	wait   time.Duration // when to try again; 0: not said
	allow  string        // the header Allow; "": none
	hangUp bool          // the connection is of no more use
	reason string        // a form's: why it cannot be used, a word of the closed set
	errors []fieldFault  // a form's: what is wrong with its fields
}

// head sets what an answer says beside its body.
func (r *refusal) head(h http.Header) {
	h.Set("Cache-Control", "no-store")
	if r.allow != "" {
		h.Set("Allow", r.allow)
	}
	if r.wait > 0 {
		h.Set("Retry-After", strconv.Itoa(int(r.wait.Seconds())))
	}
	if r.hangUp {
		h.Set("Connection", "close")
	}
}

// write answers with problem details (RFC 9457).
func (r *refusal) write(w http.ResponseWriter) {
	r.head(w.Header())
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(r.status)
	_ = json.NewEncoder(w).Encode(struct {
		Type   string       `json:"type"`
		Title  string       `json:"title"`
		Status int          `json:"status"`
		Detail string       `json:"detail"`
		Reason string       `json:"reason,omitempty"`
		Errors []fieldFault `json:"errors,omitempty"`
	}{"about:blank", http.StatusText(r.status), r.status, r.detail, r.reason, r.errors}) // the sender is gone; there is nobody to tell
}

// fieldFault is an objection to one field of a form, for a page to show beside it.
type fieldFault struct {
	Field  string `json:"field"`
	Reason string `json:"reason"`
	Detail string `json:"detail"`
	// Message is for the visitor, without our names for things.
	Message string `json:"message"`
}

func (r *refusal) Error() string { return r.result + ": " + r.detail }

func refuse(status int, result, detail string) *refusal {
	return &refusal{status: status, result: result, detail: detail}
}

// ServeHTTP implements [http.Handler].
func (h *hooks) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, HooksPath), "/")
	account := h.accounts[name]
	if account == nil {
		h.refuse(w, "", refuse(http.StatusNotFound, resultNotFound, "there is no such address for webhooks"))
		return
	}
	result, err := h.take(w, r, account, rest)
	var no *refusal
	if errors.As(err, &no) {
		h.refuse(w, name, no)
		return
	}
	h.total.WithLabelValues(name, result).Inc()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(account.taken())
	_ = json.NewEncoder(w).Encode(map[string]string{"result": result}) // the provider is gone; there is nobody to tell
}

func (a *hookAccount) taken() int {
	if a.hook.Taken != 0 {
		return a.hook.Taken
	}
	return http.StatusAccepted
}

func (h *hooks) refuse(w http.ResponseWriter, account string, no *refusal) {
	h.total.WithLabelValues(account, no.result).Inc()
	// Anyone may set these off, so the log names them only where it is asked for everything; the
	// metric counts them.
	h.log.Debug("webhook refused", "connector", account, "result", no.result, "detail", no.detail)
	no.write(w)
}

// take brings one webhook from its address to the stream. The error is a [*refusal].
func (h *hooks) take(w http.ResponseWriter, r *http.Request, a *hookAccount, rest string) (result string, err error) {
	leave, ok := h.enter(access.Of(r).Addr)
	if !ok {
		no := refuse(http.StatusServiceUnavailable, resultBusy, "too many webhooks at a time; send it again")
		no.wait = retryAfterBusy
		return "", no
	}
	defer leave()
	r.Body = pace(w, r.Body, h.bodyTimeout)
	req, no := a.address(rest)
	if no != nil {
		return "", no
	}
	if no := a.admit(r); no != nil {
		return "", no
	}
	if req.Body, no = readBody(w, r, MaxHook, h.bodyTimeout); no != nil {
		return "", no
	}
	req.Header = r.Header
	if no := a.proof(r.Context(), req); no != nil {
		return "", no
	}
	news, err := a.hook.Signals(req.Event, req.Body)
	if err != nil {
		h.log.WarnContext(r.Context(), "a webhook that the provider signed cannot be read", "connector", a.name, "event", a.event(req.Event), "error", err)
		return "", refuse(http.StatusBadRequest, resultBadBody, connectors.ErrHookBody.Error())
	}
	return h.store(r.Context(), a, req, news)
}

// address reads what follows the account in a path.
func (a *hookAccount) address(rest string) (connectors.HookRequest, *refusal) {
	var parts []string
	if rest != "" {
		parts = strings.Split(rest, "/")
	}
	next := func() (part string) {
		if len(parts) > 0 {
			part, parts = parts[0], parts[1:]
		}
		return part
	}
	var req connectors.HookRequest
	if a.hook.NeedsEvent {
		if req.Event = next(); req.Event == "" {
			return req, refuse(http.StatusNotFound, resultNotFound, "the address must name the event, because bodies of this provider do not: "+HooksPath+a.name+"/EVENT")
		}
	}
	if a.hook.Token || a.hook.EventToken != nil {
		req.Token = next()
	}
	if len(parts) > 0 {
		return req, refuse(http.StatusNotFound, resultNotFound, "there is no such address for webhooks")
	}
	return req, nil
}

// admit objects to what can be told before the body is read.
func (a *hookAccount) admit(r *http.Request) *refusal {
	if r.Method != http.MethodPost {
		no := refuse(http.StatusMethodNotAllowed, resultBadMethod, "webhooks are posted")
		no.allow = http.MethodPost
		return no
	}
	if a.verify == nil {
		return refuse(http.StatusForbidden, resultUnverifiable, "webhooks of this account are not set up: nothing is configured that could prove who sent them")
	}
	if r.ContentLength > MaxHook {
		return tooLarge(MaxHook)
	}
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/json" && !strings.HasSuffix(media, "+json") {
		return refuse(http.StatusUnsupportedMediaType, resultBadMedia, "send application/json")
	}
	if enc := r.Header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return refuse(http.StatusUnsupportedMediaType, resultBadMedia, "send the body as it is, without a Content-Encoding")
	}
	return nil
}

func tooLarge(most int) *refusal {
	no := refuse(http.StatusRequestEntityTooLarge, resultTooLarge, fmt.Sprintf("a body may have %d bytes", most))
	no.hangUp = true
	return no
}

// readBody reads a body within a bound of time and of size.
func readBody(w http.ResponseWriter, r *http.Request, most int, timeout time.Duration) ([]byte, *refusal) {
	// The server lifts the deadline when the body ends. A writer that knows no deadlines is not a
	// network connection, and does not keep us waiting.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(timeout))
	var body []byte
	var err error
	if n := r.ContentLength; n >= 0 && n <= int64(most) { // and the body is no longer than it says
		body = make([]byte, n)
		_, err = io.ReadFull(r.Body, body)
	} else {
		body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, int64(most)))
	}
	var long *http.MaxBytesError
	switch {
	case err == nil:
		return body, nil
	case errors.As(err, &long):
		return nil, tooLarge(most)
	case errors.Is(err, os.ErrDeadlineExceeded):
		no := refuse(http.StatusRequestTimeout, resultTimeout, "the body took too long")
		no.hangUp = true
		return nil, no
	}
	no := refuse(http.StatusBadRequest, resultInterrupted, "the body did not come to its end")
	no.hangUp = true
	return nil, no
}

// proof has the provider's authorship proved.
func (a *hookAccount) proof(ctx context.Context, req connectors.HookRequest) *refusal {
	err := a.verify(ctx, req)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, connectors.ErrHookKeys):
		no := refuse(http.StatusServiceUnavailable, resultKeysAway, connectors.ErrHookKeys.Error())
		no.wait = retryAfter
		return no
	case errors.Is(err, connectors.ErrHookBody):
		return refuse(http.StatusBadRequest, resultBadBody, connectors.ErrHookBody.Error())
	}
	// One answer for everything else: how near a forgery came is nobody's business.
	return refuse(http.StatusForbidden, resultForged, connectors.ErrHookForged.Error())
}

// event is the name under which an event may be logged.
func (a *hookAccount) event(name string) string {
	if a.hook.Knows(name) {
		return name
	}
	return "unknown"
}
