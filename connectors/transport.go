package connectors

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"syscall"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"

	"github.com/lodestonehq/lodestone"
)

const (
	// maxBody is how much of an answer is read. A page of members is some 100 KiB.
	maxBody = 1 << 20
	// readTries is how often a read is sent, the first time included.
	readTries = 3
	// readPause is the longest pause before the first repeat of a read; it doubles.
	readPause = 200 * time.Millisecond
)

// Call is one request to the provider.
type Call struct {
	Operation string        // for errors and metrics: a name from the connector's own code
	Request   *http.Request // with its credentials; its context is not used. A header with a User-Agent may be shared
	// Decode reads the body of a 2xx, nil when nothing in it matters. An error means that it cannot be
	// read, one made by [Refusal] that its words refuse the act. It may be called several times.
	Decode func(Answer) error
}

// Answer is what the provider answered, read to its end.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte // at most 1 MiB
}

// Transport is the way of one account to its provider. Connectors get one from [Open].
type Transport struct {
	settings Settings
	rt       http.RoundTripper
	slots    chan struct{} // one element a request in flight
	rate     *rate.Limiter
	breaker  *breaker
	metrics  metrics
	mask     mask
	tracer   trace.Tracer // nil: nobody follows requests
	state    string

	mu           sync.Mutex // guards what follows
	limitedUntil time.Time  // the provider asked for silence until then
}

// BaseURL is where the provider answers, without a slash at its end.
func (t *Transport) BaseURL() string { return t.settings.BaseURL }

// State is a directory for what must outlive the process, empty when there is none. It may not exist yet.
func (t *Transport) State() string { return t.state }

// Act sends a request that changes something, at most once. The error is a [*Fault]; the answer is
// filled in as far as one came, also beside an error.
func (t *Transport) Act(ctx context.Context, c Call) (Answer, error) {
	answer, o := t.send(ctx, c, true, t.settings.Timeout)
	t.judge(o)
	return answer, o.err()
}

// Read sends a request that only asks. It is repeated up to two times, quickly and with jitter, when
// the network or the server fails, within ctx and the account's timeout. The error is a [*Fault]; the
// answer is filled in as far as one came, also beside an error.
func (t *Transport) Read(ctx context.Context, c Call) (Answer, error) {
	left := t.settings.Timeout // waiting for the rate takes nothing from it
	for try := 1; ; try++ {
		answer, o := t.send(ctx, c, false, left)
		pause := time.Duration(rand.Int64N(int64(readPause << (try - 1))))
		left -= o.took + pause
		if !o.repeatable || try == readTries || left <= 0 || !wait(ctx, pause) {
			t.judge(o)
			return answer, o.err()
		}
	}
}

// Reject is the fault of an act that is not sent at all, because it cannot be put into a request.
func (t *Transport) Reject(operation, detail string) *Fault {
	return &Fault{
		Connector: t.settings.Name, Operation: operation, Class: Refused,
		Reason: lodestone.ReasonBadParameters, Detail: t.mask.text(detail),
	}
}

// Masked makes outside text fit for a receipt or for evidence: no secrets, no addresses, one line, at
// most 300 characters.
func (t *Transport) Masked(text string) string { return t.mask.text(text) }

// outcome is what came of one request, and what the breaker should make of it.
type outcome struct {
	fault      *Fault // nil: it succeeded
	blame      blame
	repeatable bool // a read that may do better at once
	took       time.Duration
}

func (o outcome) err() error {
	if o.fault == nil {
		return nil // not a nil *Fault in an error
	}
	return o.fault
}

// blame is whose fault a failure was, as far as the breaker cares.
type blame int

const (
	nobody   blame = iota // says nothing about the provider
	works                 // it answered like a provider that works
	provider              // it, or the way to it, failed
	keys                  // it refused the credentials
)

func (t *Transport) judge(o outcome) {
	switch o.blame {
	case works:
		t.breaker.success()
	case provider:
		t.breaker.fault(o.fault.Detail)
	case keys:
		t.breaker.lockOut(o.fault.Detail)
	}
}

// probeKey marks the context of a probe, which passes an open breaker.
type probeKey struct{}

// enter waits for a place and for the rate. leave gives the place back; it is nil beside a fault.
func (t *Transport) enter(ctx context.Context, operation string, act bool) (leave func(), f *Fault) {
	if f := t.barred(ctx, operation); f != nil {
		return nil, f
	}
	p, leave, err := t.place(ctx, act)
	if err != nil {
		return nil, t.waited(operation, act, err)
	}
	if !act || p == nil || !p.paid.CompareAndSwap(true, false) {
		if err := t.rate.Wait(ctx); err != nil {
			leave()
			return nil, t.waited(operation, act, err)
		}
	}
	if f := t.barred(ctx, operation); f != nil { // while we waited
		leave()
		return nil, f
	}
	return leave, nil
}

// barred is the fault of a call that must not be made now.
func (t *Transport) barred(ctx context.Context, operation string) *Fault {
	if s, next := t.breaker.now(); s.Open && ctx.Value(probeKey{}) == nil {
		f := &Fault{
			Connector: t.settings.Name, Operation: operation, Class: NotDone, Reason: lodestone.ReasonProviderUnavailable,
			Detail: s.describe(), RetryAfter: max(0, time.Until(next)), Err: ErrProviderUnavailable,
		}
		if s.Cause == CauseLockedOut {
			f.Class = LockedOut
		}
		return f
	}
	if until := t.silence(); !until.IsZero() {
		return &Fault{
			Connector: t.settings.Name, Operation: operation, Class: RateLimited, Reason: lodestone.ReasonRateLimited,
			Detail: "the provider asked for silence until " + until.UTC().Format(time.RFC3339), RetryAfter: time.Until(until),
		}
	}
	return nil
}

// silence is when the provider's Retry-After ends, zero when it does not stand.
func (t *Transport) silence() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.limitedUntil.IsZero() || !time.Now().Before(t.limitedUntil) {
		return time.Time{}
	}
	return t.limitedUntil
}

func (t *Transport) silenceFor(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if until := time.Now().Add(d); until.After(t.limitedUntil) {
		t.limitedUntil = until
	}
}

// waited is the fault of a call whose context ended, or would end, before its turn came.
func (t *Transport) waited(operation string, act bool, err error) *Fault {
	f := &Fault{
		Connector: t.settings.Name, Operation: operation, Class: NotDone, Reason: lodestone.ReasonRateLimited,
		Detail: "the account's rate or its limit of calls at a time left no room in time", Err: t.mask.err(err),
	}
	if errors.Is(err, context.Canceled) {
		f.Reason, f.Detail = lodestone.ReasonNotDone, "given up before it was sent"
	} else {
		f.Class = RateLimited
	}
	if !act && f.Class == NotDone {
		f.Class, f.Reason = Failed, lodestone.ReasonCheckFailed
	}
	return f
}

// send makes one request, which may take as long as limit.
func (t *Transport) send(ctx context.Context, c Call, act bool, limit time.Duration) (Answer, outcome) {
	leave, f := t.enter(ctx, c.Operation, act)
	if f != nil {
		return Answer{}, outcome{fault: f}
	}
	defer leave()
	ctx, ended := t.span(ctx, &c, act)
	ev := &evidence{once: act}
	bound, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	req, err := t.prepare(ev.trace(bound), c.Request, act)
	start := time.Now()
	var answer Answer
	if err == nil {
		answer, err = t.exchange(req)
	}
	k := &call{t: t, Call: c, act: act, answer: answer, names: concealedIn(ctx)}
	var o outcome
	switch {
	case err != nil && answer.Status == 0:
		o = k.unanswered(err, ev.written(), ctx.Err() != nil, time.Since(start))
	default:
		o = k.answered(err)
	}
	class := classOK
	if o.fault != nil {
		class = o.fault.Class
	}
	o.took = time.Since(start)
	ended(class, answer.Status)
	t.metrics.observe(c.Operation, class, o.took)
	return answer, o
}

// span begins the span of a request. ended says what came of it; it must be called.
func (t *Transport) span(ctx context.Context, c *Call, act bool) (_ context.Context, ended func(Class, int)) {
	if t.tracer == nil {
		return ctx, func(Class, int) {}
	}
	ctx, span := t.tracer.Start(ctx, t.settings.Name+" "+c.Operation, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		attribute.String("lodestone.connector", t.settings.Name), attribute.String("lodestone.operation", c.Operation),
		attribute.String("http.request.method", c.Request.Method), attribute.Bool("lodestone.act", act)))
	return ctx, func(class Class, status int) {
		if class != classOK {
			span.SetStatus(codes.Error, string(class))
		}
		span.SetAttributes(attribute.String("lodestone.class", string(class)), attribute.Int("http.response.status_code", status))
		span.End()
	}
}

// UserAgent is what requests say of themselves that say nothing else.
const UserAgent = "lodestone"

// prepare makes the request that is sent from the one that was built. They share header and URL, which a round
// tripper leaves as they are.
func (t *Transport) prepare(ctx context.Context, r *http.Request, act bool) (*http.Request, error) {
	if r.Header.Get("User-Agent") == "" {
		r.Header.Set("User-Agent", UserAgent) // the first time it is sent
	}
	req := r.WithContext(ctx)
	if act {
		// With GetBody net/http takes the liberty to send a request again when a reused connection
		// breaks under it.
		req.GetBody = nil
		return req, nil
	}
	if r.Body != nil && r.Body != http.NoBody {
		if r.GetBody == nil {
			return nil, errors.New("the body of a read must be repeatable")
		}
		body, err := r.GetBody()
		if err != nil {
			return nil, err
		}
		req.Body = body
	}
	return req, nil
}

// exchange sends the request and reads the answer. It uses the round tripper itself and not a client,
// because a client follows redirects, and puts the URL into its errors. An error beside a status means
// that the body could not be read.
func (t *Transport) exchange(req *http.Request) (Answer, error) {
	resp, err := t.rt.RoundTrip(req)
	if err != nil {
		return Answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer := Answer{Status: resp.StatusCode, Header: resp.Header}
	if n := resp.ContentLength; n >= 0 && n <= maxBody {
		answer.Body = make([]byte, n)
		n, err := io.ReadFull(resp.Body, answer.Body)
		if answer.Body = answer.Body[:n]; err == io.EOF {
			err = nil // an answer without a body may name the length of the one that it does not have
		}
		return answer, err
	}
	answer.Body, err = io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err == nil && len(answer.Body) > maxBody {
		answer.Body, err = nil, fmt.Errorf("the answer is longer than %d bytes", maxBody)
	}
	return answer, err
}

// wait pauses, and reports whether ctx is still good afterwards.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// origin is the part of a redirect's target that may be shown.
func origin(location string) string {
	u, err := url.Parse(location)
	if err != nil || u.Host == "" {
		return "another page"
	}
	return u.Scheme + "://" + u.Host
}

// refusedConnection says whether nobody listened.
func refusedConnection(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
