package gateway

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/internal/access"
	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/internal/links"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/sequencer/event"
)

const (
	// FormsPath is where forms are posted.
	FormsPath = "/forms/"
	// AssetsPath is where links to assets begin.
	AssetsPath = "/assets/"

	keyHeader   = "Idempotency-Key"
	maxKey      = 255         // bytes of an idempotency key
	doubleClick = time.Minute // the same body again within it is the same submission
	assetLife   = 7 * 24 * time.Hour
	maxRecent   = 1 << 17          // submissions remembered for double clicks, at least the last half of them
	formMemory  = 64 << 20         // bytes of bodies that are read and stored at once
	formWeight  = 4 << 10          // what the smallest form counts for in it
	corsAge     = 10 * time.Minute // a browser may remember for so long what it may send
	// formTimeout is for a form to be stored. Its batch may wait for the one before, and a sync waits for what others
	// write to the disk, which was seen to take seconds. A form that is stored late must not be answered as one that
	// is not; proxies wait for half a minute and more.
	formTimeout = 25 * time.Second
)

// FormOptions of [Forms].
type FormOptions struct {
	// Rules are those in force; nil while there are none, when every form is taken that could be one
	// and waits in the stream.
	Rules     func() *rules.Set
	Publish   func(context.Context, *nats.Msg) error // returns when it is on disk; nil: every form is answered with 503
	Keys      *Keys
	Links     *links.Sealer
	MX        *MX                          // nil: nobody asks whether domains take mail
	Seal      *event.Seal                  // of what is observed of a request; nil: nobody is told of it
	Origins   []string                     // pages whose scripts may post; "*": any
	Secrets   map[string]connectors.Secret // of forms that are signed, by form
	PublicURL string                       // where browsers reach this gateway; "": where the request went
	// Recent gives what came within a span before, oldest first, so that a restart does not forget who was entered
	// all over the place; see [Recent]. Forms calls it once. nil: counting begins at nothing.
	Recent func(span time.Duration, each func(event.Message))
	// ClientIP is the address that a request came from; nil: what [access.Of] says.
	ClientIP    func(*http.Request) string
	Registerer  prometheus.Registerer // nil: nobody counts
	Log         *slog.Logger          // nil: silent
	BodyTimeout time.Duration         // for a body to come in; 0: 10 s
}

// Forms takes in form submissions; mount it at [FormsPath], [AssetsPath] and
// [TokensPath]. Call it once for a
// registerer.
//
// A form goes name → method → origin → size → media type → body → fields → key → stream, and the first
// that objects decides. What is refused is not stored; everything else is answered with 202, its id
// and the link to its asset when it is on disk.
//
//	202   stored                                                          accepted
//	      the same as before: same key, or the same body within a minute  repeated
//	303   either of them, from a page without script whose form has `thanks`
//	400   the body cannot be read                                         bad_body
//	      the body did not come to its end                                interrupted
//	      the Idempotency-Key cannot be one                               bad_key
//	403   a page whose scripts may not post this form                     bad_origin
//	      not proved to come from the tool that signs this form           forged
//	      nothing is configured that could prove it                       unverifiable
//	404   no such form                                                    not_found
//	405   another method than POST                                        bad_method
//	408   the body took too long                                          timeout
//	413   the body is too long                                            too_large
//	415   another media type, or a file                                   bad_media_type
//	422   the address or a required field is missing or unusable          unusable
//	      the Idempotency-Key came with another body before               key_reused
//	503   the stream does not take it                                     broker_away
//	      too much at a time                                              busy
//
// An answer is JSON, refusals are problem details (RFC 9457) with one entry of errors for each field; a
// browser that posts a form without script gets a page. Nothing of a request is repeated in one.
//
// The id of a submission follows from its form, its key and its body, so that whoever tries again
// after a kill, without having heard the answer, makes no second one. Without a key it follows from
// the body and the minute; a tool's signed request that names no delivery is the same for ever when its
// body is, so that one that is replayed makes no second submission.
func Forms(o FormOptions) http.Handler {
	f := &forms{
		FormOptions: o, watch: newWatch(), memory: semaphore.NewWeighted(formMemory), now: time.Now,
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lodestone_form_requests_total",
			Help: "Requests of forms over HTTP by form (empty for one that there is not) and what became of them.",
		}, []string{"form", "result"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "lodestone_form_store_seconds",
			Help:    "How long a submission that came over HTTP took to be on disk.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
	}
	if f.Log == nil {
		f.Log = slog.New(slog.DiscardHandler)
	}
	if f.BodyTimeout == 0 {
		f.BodyTimeout = bodyTimeout
	}
	if f.ClientIP == nil {
		f.ClientIP = clientIP
	}
	if o.Recent != nil {
		o.Recent(watchSpan, f.recall)
	}
	if o.Registerer != nil {
		o.Registerer.MustRegister(f.total, f.seconds)
	}
	return f
}

// What every answer to a form says in its headers: made once. Whoever adds to one of them gets a copy.
var (
	varies  = []string{"Origin", "Accept"}
	noStore = []string{"no-store"}
	asJSON  = []string{jsonType}
)

const (
	resultRepeated  = "repeated"
	resultBadKey    = "bad_key"
	resultBadOrigin = "bad_origin"
	resultUnusable  = "unusable"
	resultKeyReused = "key_reused"
)

type forms struct {
	FormOptions
	memory  *semaphore.Weighted
	now     func() time.Time
	recent  recent
	watch   *watch
	total   *prometheus.CounterVec
	seconds prometheus.Histogram
}

// clientIP is the address that a request came from, "" where there is none.
func clientIP(r *http.Request) string {
	if a := access.Of(r).Addr; a.IsValid() {
		return a.String()
	}
	return ""
}

// ServeHTTP implements [http.Handler].
func (f *forms) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if token, ok := strings.CutPrefix(r.URL.Path, AssetsPath); ok {
		f.asset(w, r, token)
		return
	}
	if name, ok := strings.CutPrefix(r.URL.Path, TokensPath); ok {
		f.token(w, r, name)
		return
	}
	name, form, no := f.find(strings.TrimPrefix(r.URL.Path, FormsPath))
	if no != nil {
		f.refuse(w, r, nil, "", no)
		return
	}
	label := name
	if form == nil {
		label = ""
	}
	w.Header()["Vary"] = varies
	allowed := f.cors(w.Header(), r, form)
	switch {
	case r.Method == http.MethodOptions:
		w.Header().Set("Allow", "POST, OPTIONS")
		w.WriteHeader(http.StatusNoContent)
		return
	case r.Method != http.MethodPost:
		no = refuse(http.StatusMethodNotAllowed, resultBadMethod, "forms are posted")
		no.allow = "POST, OPTIONS"
	case !allowed:
		no = refuse(http.StatusForbidden, resultBadOrigin, "this page may not post this form; its origin is not listed under http.origins or the form's origins")
	}
	var done taken
	if no == nil {
		done, no = f.take(w, r, name, form)
	}
	if no != nil {
		f.refuse(w, r, form, label, no)
		return
	}
	f.total.WithLabelValues(label, done.result).Inc()
	f.answer(w, r, form, done)
}

// find finds the form that a path names. While there are no rules the form is nil, and any name that
// could be a form's will do.
func (f *forms) find(name string) (string, *rules.Form, *refusal) {
	set := f.Rules()
	if set != nil {
		if form := set.Forms[name]; form != nil {
			return name, form, nil
		}
	} else if rules.IsName(name) {
		return name, nil, nil
	}
	return "", nil, refuse(http.StatusNotFound, resultNotFound, "there is no such form")
}

// cors says to a browser which page may read the answer, and reports whether this one may post.
// Credentials are never allowed, so that no page acts in a visitor's name.
func (f *forms) cors(h http.Header, r *http.Request, form *rules.Form) bool {
	origin := strings.ToLower(r.Header.Get("Origin"))
	allowed := f.Origins
	if form != nil && len(form.Origins) > 0 {
		allowed = form.Origins
	}
	anyPage := slices.Contains(allowed, "*")
	switch {
	case origin == "":
		return true // not a script of another page
	case anyPage:
		h.Set("Access-Control-Allow-Origin", "*")
	case slices.Contains(allowed, origin) || origin == strings.ToLower(f.base(r)):
		h.Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
	case origin == "null" && r.Header.Get("Sec-Fetch-Mode") == "navigate":
		return true // a page that keeps its address to itself, and no script
	default:
		return false
	}
	if r.Method == http.MethodOptions {
		h.Set("Access-Control-Allow-Methods", http.MethodPost)
		h.Set("Access-Control-Allow-Headers", "Content-Type, Idempotency-Key, Ce-Specversion, Ce-Type, Ce-Source, Ce-Id, Ce-Time, Ce-Subject")
		h.Set("Access-Control-Max-Age", strconv.Itoa(int(corsAge.Seconds())))
	}
	return true
}

// base is where browsers reach this gateway, without a slash at its end.
func (f *forms) base(r *http.Request) string {
	if f.PublicURL != "" {
		return strings.TrimSuffix(f.PublicURL, "/")
	}
	return access.Of(r).Origin()
}

// taken is a submission that is on disk.
type taken struct {
	id     string
	first  time.Time // when it was first asked for, for the life of its link
	thanks string    // the page that was asked for
	result string
}

// take brings one form from its headers to the stream.
func (f *forms) take(w http.ResponseWriter, r *http.Request, name string, form *rules.Form) (taken, *refusal) {
	if r.ContentLength > event.MaxSize {
		return taken{}, tooLarge(event.MaxSize)
	}
	m, no := mediaOf(r.Header)
	if no != nil {
		return taken{}, no
	}
	key, no := keyOf(r.Header)
	if no != nil {
		return taken{}, no
	}
	weight := int64(event.MaxSize)
	if r.ContentLength >= 0 {
		weight = max(formWeight, r.ContentLength)
	}
	if !f.memory.TryAcquire(weight) {
		no := refuse(http.StatusServiceUnavailable, resultBusy, "too many forms at a time; send it again")
		no.wait = retryAfterBusy
		return taken{}, no
	}
	defer f.memory.Release(weight)
	body, no := readBody(w, r, event.MaxSize, f.BodyTimeout)
	if no != nil {
		return taken{}, no
	}
	once := false
	if form != nil && form.Signature != "" {
		delivery, no := f.prove(r, name, form.Signature, body)
		if no != nil {
			return taken{}, no
		}
		key = cmp.Or(delivery, key)
		once = form.Signature != "bearer"
	}
	in, no := m.read(r.Header, body)
	if no != nil {
		return taken{}, no
	}
	in.once = once
	in.seen = f.observed(r)
	return f.store(r.Context(), name, form, in, key)
}

// observed is what can be seen of a request beside its body.
func (f *forms) observed(r *http.Request) event.Observed {
	o := event.Observed{IP: f.ClientIP(r), UserAgent: cut(r.UserAgent(), maxBrowser)}
	referer := r.Referer()
	if referer == "" || len(referer) > maxReferer {
		return o
	}
	if u, err := url.Parse(referer); err == nil && (u.Scheme == "https" || u.Scheme == "http") {
		o.Page = u.String()
	}
	return o
}

func cut(s string, most int) string {
	return strings.ToValidUTF8(s[:min(len(s), most)], "")
}

// keyOf reads the Idempotency-Key, "" when there is none: printable ASCII, in quotes or not
// (draft-ietf-httpapi-idempotency-key-header-07 has it in quotes, most senders do not).
func keyOf(h http.Header) (string, *refusal) {
	values := h.Values(keyHeader)
	if len(values) == 0 {
		return "", nil
	}
	key := values[0]
	if n := len(key); n >= 2 && key[0] == '"' && key[n-1] == '"' {
		key = key[1 : n-1]
	}
	bad := strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' })
	if len(values) > 1 || key == "" || len(key) > maxKey || bad {
		return "", refuse(http.StatusBadRequest, resultBadKey, fmt.Sprintf("an Idempotency-Key has 1 to %d printable characters without blanks", maxKey))
	}
	return key, nil
}

// store checks what can be checked and publishes.
func (f *forms) store(ctx context.Context, name string, form *rules.Form, in inbox, key string) (taken, *refusal) {
	subject, err := event.SubmissionSubject(name)
	if err != nil {
		return taken{}, refuse(http.StatusNotFound, resultNotFound, "there is no such form")
	}
	now := f.now()
	body := hash(in.same)
	about := []string{name, string(body[:])}
	var window sum // of a double click
	done := taken{first: now, thanks: in.thanks, result: resultAccepted}
	switch {
	case key != "":
		about = append(about, "key", key)
	case in.once:
		about = append(about, "once")
	default:
		window = hashed(about...)
		done.first = f.recent.meet(window, now, doubleClick).first
		about = append(about, "minute", strconv.FormatInt(done.first.Unix()/int64(doubleClick.Seconds()), 10))
	}
	unique := digest(about...)
	in.header[nats.MsgIdHdr] = []string{unique}
	id, email, no := usable(event.Message{Subject: subject, Header: in.header, Data: in.data, Time: now}, form)
	if no != nil {
		return taken{}, no
	}
	done.id = id
	if f.Publish == nil {
		return taken{}, f.away(ctx, name, errNoPublisher)
	}
	// Whether or not the sender is still there, what it sent is stored.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), formTimeout)
	defer cancel()
	if key != "" {
		// Before the stream, so that no second body gets past it. A kill in between leaves a key whose
		// submission is not there; the next try with it stores the submission under the id it would
		// have had.
		first, same, err := f.Keys.claim(ctx, hashed(name, "key", key), body)
		switch {
		case err != nil:
			return taken{}, f.away(ctx, name, err)
		case !same:
			return taken{}, refuse(http.StatusUnprocessableEntity, resultKeyReused, "this Idempotency-Key came with another body before; use a new key for each submission")
		}
		done.first = first
	}
	if key != "" || in.once {
		window = hashed(unique)
	}
	if f.recent.meet(window, now, KeyLife).stored {
		done.result = resultRepeated
		return done, nil
	}
	if form == nil || form.Signature == "" { // one tool posts for many people
		in.seen.Evidence = f.evidence(name, email, in.seen.IP, in.data, now)
		if f.MX != nil && email != "" {
			in.seen.Evidence.MX = f.MX.Takes(ctx, email.Domain())
		}
	}
	f.Seal.Close(&event.Message{Subject: subject, Header: in.header, Data: in.data}, in.seen)
	start := time.Now()
	if err := f.Publish(ctx, &nats.Msg{Subject: subject, Header: in.header, Data: in.data}); err != nil {
		return taken{}, f.away(ctx, name, err)
	}
	f.seconds.Observe(time.Since(start).Seconds())
	f.recent.stored(window)
	return done, nil
}

func (f *forms) away(ctx context.Context, name string, err error) *refusal {
	f.Log.WarnContext(ctx, "a submission was not stored; its sender was asked to send it again", "form", name, "error", err)
	detail := "it cannot be stored at the moment; send it again"
	if errors.Is(err, broker.ErrFull) {
		detail = "there is no room for it at the moment; send it again later"
	}
	no := refuse(http.StatusServiceUnavailable, resultBrokerAway, detail)
	no.wait = retryAfter
	return no
}

// usable reads a message as the sequencer will and returns its id and address, or why it cannot be
// used. Without a form everything that could be a submission of one is usable.
func usable(m event.Message, form *rules.Form) (id string, email lodestone.Email, no *refusal) {
	sub, rejected := event.DecodeSubmission(m, func(string) *lodestone.Form {
		if form == nil {
			return nil
		}
		return &form.Form
	})
	if rejected == nil {
		return sub.ID, sub.Email, nil
	}
	switch rejected.Reason {
	case lodestone.ReasonUnknownForm:
		return rejected.ID, rejected.Email, nil // there are no rules yet
	case lodestone.ReasonTooLarge:
		return "", "", tooLarge(event.MaxSize)
	case lodestone.ReasonNoEmail, lodestone.ReasonBadEmail, lodestone.ReasonMissingField, lodestone.ReasonBadField:
		no = refuse(http.StatusUnprocessableEntity, resultUnusable, rejected.Detail)
		for _, fault := range event.FieldFaults(m, &form.Form) {
			no.errors = append(no.errors, fieldFault{fault.Field, string(fault.Reason), fault.Detail, visitors(fault.Reason)})
		}
	default:
		no = badBody(rejected.Detail)
	}
	no.reason = string(rejected.Reason)
	return "", "", no
}

// visitors says to a visitor what is wrong with a field.
func visitors(reason lodestone.Reason) string {
	switch reason {
	case lodestone.ReasonNoEmail, lodestone.ReasonMissingField:
		return "Please fill this in."
	case lodestone.ReasonBadEmail:
		return "This is not an email address we can write to."
	}
	return "This cannot be used as it is."
}

// answer says that a submission is on disk.
func (f *forms) answer(w http.ResponseWriter, r *http.Request, form *rules.Form, done taken) {
	asset := f.assetLink(r, form, done)
	w.Header()["Cache-Control"] = noStore
	if !wantsPage(r) {
		w.Header()["Content-Type"] = asJSON
		w.WriteHeader(http.StatusAccepted)
		b := appendJSON(append(make([]byte, 0, 128), `{"id":`...), done.id)
		b = append(b, `,"asset":`...)
		if asset != "" {
			b = appendJSON(b, asset)
		} else {
			b = append(b, "null"...) // the form promises none
		}
		_, _ = w.Write(append(b, "}\n"...)) // the sender is gone; there is nobody to tell
		return
	}
	if to := thanks(form, done.thanks); to != "" {
		// The address is one of the rule file's; of the request it holds nothing.
		w.Header().Set("Location", strings.ReplaceAll(to, rules.AssetPlace, url.QueryEscape(asset)))
		w.WriteHeader(http.StatusSeeOther)
		return
	}
	title := ""
	if form != nil {
		title = form.Title
	}
	writePage(w, http.StatusAccepted, page{Title: "Thank you", Heading: title, Text: "We have received your request.", Link: asset, LinkText: "Open what you asked for"})
}

// appendJSON appends a text as encoding/json writes it.
func appendJSON(b []byte, text string) []byte {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(text) // a text can always be written
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), text...), '"')
}

// thanks is where a page without script is sent: the address that it asks for if the form has it, else
// the form's first.
func thanks(form *rules.Form, asked string) string {
	switch {
	case form == nil || len(form.Thanks) == 0:
		return ""
	case slices.Contains(form.Thanks, asked):
		return asked
	}
	return form.Thanks[0]
}

// refuse answers with problem details, or with a page where a browser posted without script.
func (f *forms) refuse(w http.ResponseWriter, r *http.Request, form *rules.Form, label string, no *refusal) {
	f.total.WithLabelValues(label, no.result).Inc()
	f.Log.Debug("form refused", "form", label, "result", no.result, "reason", no.reason)
	if no.hangUp || !wantsPage(r) {
		no.write(w)
		return
	}
	no.head(w.Header())
	p := page{Title: "This did not work", Text: "Nothing was sent.", Faults: no.errors}
	if form != nil {
		p.Heading = form.Title
	}
	switch {
	case len(no.errors) > 0:
		p.Text = "Please go back with your browser's back button, correct the following and send it again."
	case no.status >= http.StatusInternalServerError:
		p.Text = "We could not take it just now. Please go back with your browser's back button and send it again in a minute."
	default:
		p.Text = "We could not take it: " + no.detail + "."
	}
	writePage(w, no.status, p)
}

// wantsPage reports whether a browser posted a form without script and shows what comes back.
func wantsPage(r *http.Request) bool {
	accept := r.Header.Get("Accept")
	if !strings.Contains(accept, "text/html") || strings.Contains(accept, jsonType) {
		return false
	}
	m, no := mediaOf(r.Header)
	return no != nil || m.page()
}

func hash(b []byte) sum {
	h := sha256.Sum256(b)
	return sum(h[:16])
}

// recent remembers what was just asked for, in two generations of which the older one is forgotten:
// a repeat that it does not know is still noticed by the stream and the lead, only later.
type recent struct {
	mu       sync.Mutex // guards what follows
	new, old map[sum]meeting
}

type meeting struct {
	first  time.Time // when it was first asked for
	stored bool      // it is on disk
}

// meet returns the earlier meeting with a key, if it is younger than life, else a new one.
func (c *recent) meet(key sum, now time.Time, life time.Duration) meeting {
	c.mu.Lock()
	defer c.mu.Unlock()
	m, ok := c.new[key]
	if !ok {
		m, ok = c.old[key]
	}
	if ok && now.Sub(m.first) < life {
		return m
	}
	m = meeting{first: now}
	c.put(key, m)
	return m
}

// stored remembers that what was met is on disk.
func (c *recent) stored(key sum) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m, ok := c.new[key]
	if !ok {
		m, ok = c.old[key]
	}
	if ok {
		m.stored = true
		c.put(key, m)
	}
}

func (c *recent) put(key sum, m meeting) {
	if c.new == nil || len(c.new) >= maxRecent/2 {
		c.new, c.old = map[sum]meeting{}, c.new
	}
	c.new[key] = m
}
