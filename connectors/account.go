package connectors

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"

	"github.com/lodestonehq/lodestone"
)

// Account is one configured account at a provider: a connector behind the rate, the limit of calls at
// a time, the breaker and the metrics that everyone who uses the account shares. It is safe for
// concurrent use.
type Account struct {
	kind      Kind
	settings  Settings
	connector Connector
	t         *Transport
}

// Option changes how [Open] makes an account.
type Option func(*options)

type options struct {
	registerer prometheus.Registerer
	log        *slog.Logger
	tls        *tls.Config
	dial       Dial
	rt         http.RoundTripper
	tracer     trace.TracerProvider
	state      string
}

// WithRegisterer counts the account's requests. Several accounts may share a registerer.
func WithRegisterer(r prometheus.Registerer) Option { return func(o *options) { o.registerer = r } }

// WithLogger logs when the breaker opens and closes.
func WithLogger(l *slog.Logger) Option { return func(o *options) { o.log = l } }

// WithState names a directory in which a connector may keep what must outlive the process, such as how
// much of a limit is used up. Without it nothing does. One process at a time may use it.
func WithState(dir string) Option { return func(o *options) { o.state = dir } }

// WithTracer makes a span of every request. Spans hold no address and no secret.
func WithTracer(p trace.TracerProvider) Option { return func(o *options) { o.tracer = p } }

// WithTLS sets whose certificates are trusted; ServerName and RootCAs are what it is for.
func WithTLS(c *tls.Config) Option { return func(o *options) { o.tls = c } }

// Dial makes a connection, as [net.Dialer.DialContext] does.
type Dial func(ctx context.Context, network, addr string) (net.Conn, error)

// WithDial makes connections in another way than over the network. TLS and what is known of a broken
// connection stay as they are.
func WithDial(d Dial) Option { return func(o *options) { o.dial = d } }

// Open makes an account. It makes no request and starts nothing; [Account.Run] tends the breaker. The
// error holds every fault of the settings, each with the key it is about.
func Open(kind Kind, settings Settings, opts ...Option) (*Account, error) {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	settings = settings.WithDefaults(kind)
	if err := settings.check(kind); err != nil {
		return nil, err
	}
	m, err := newMetrics(o.registerer, settings.Name)
	if err != nil {
		return nil, fmt.Errorf("connectors.%s: register metrics: %w", settings.Name, err)
	}
	if o.rt == nil {
		if o.dial == nil {
			o.dial = new(net.Dialer).DialContext
		}
		o.rt = newRoundTripper(settings, o.tls, o.dial)
	}
	t := &Transport{
		settings: settings, rt: o.rt, slots: make(chan struct{}, settings.Concurrency),
		rate:    rate.NewLimiter(rate.Limit(settings.Rate), settings.burst()),
		breaker: newBreaker(), metrics: m, mask: newMask(settings.Secrets), state: o.state,
	}
	if o.tracer != nil {
		t.tracer = o.tracer.Tracer("github.com/lodestonehq/lodestone/connectors")
	}
	c, err := kind.Open(settings, t)
	if err != nil {
		return nil, fmt.Errorf("connectors.%s: %w", settings.Name, err)
	}
	a := &Account{kind: kind, settings: settings, connector: c, t: t}
	if o.log != nil {
		a.OnChange(func(s State) { logChange(o.log, settings.Name, s) })
	}
	return a, nil
}

func logChange(log *slog.Logger, name string, s State) {
	if s.Open {
		log.Warn("provider unavailable", "connector", name, "cause", string(s.Cause), "detail", s.Detail)
		return
	}
	log.Info("provider available again", "connector", name)
}

// Name is the account's key under `connectors`.
func (a *Account) Name() string { return a.settings.Name }

// Kind is the sort of connector behind the account.
func (a *Account) Kind() Kind { return a.kind }

// Settings are the account's, with defaults filled in. Its secrets print as <secret>.
func (a *Account) Settings() Settings { return a.settings }

// Capabilities are the connector's. Check is false when the settings rely on the local list alone.
func (a *Account) Capabilities() Capabilities {
	c := a.connector.Capabilities()
	c.Check = c.Check && a.settings.Suppression == SuppressionProvider
	return c
}

// Reserve waits for everything that an act has to wait for: one of the account's places, its rate, and a
// limit that the connector keeps. The first act made with the context that it returns waits for none of
// them, so that nothing comes between the last look at who opted out and the act; what is asked before it
// with that context uses the same place. release gives back what no act used. It is never nil, must be
// called, and may be called again. The error is a [*Fault].
func (a *Account) Reserve(ctx context.Context) (held context.Context, release func(), err error) {
	held, leave, err := a.t.reserve(ctx)
	m, ok := a.connector.(Metered)
	if err != nil || !ok {
		return held, leave, err
	}
	held, unmeter, err := m.Reserve(held)
	if err != nil {
		leave()
		return ctx, func() {}, a.t.waited("reserve", true, err)
	}
	return held, func() { unmeter(); leave() }, nil
}

// ReserveCall is Reserve for what people and agents ask for: it lets the worker's own acts go first where
// a limit that the connector keeps is nearly used up.
func (a *Account) ReserveCall(ctx context.Context) (held context.Context, release func(), err error) {
	if m, ok := a.connector.(Metered); ok {
		m.Room(ctx)
	}
	return a.Reserve(ctx)
}

// maxReference bounds what is kept of the provider's id, in bytes.
const maxReference = 300

// Do performs an act. The error is a [*Fault].
func (a *Account) Do(ctx context.Context, act Act) (Receipt, error) {
	ctx = hide(ctx, act.Email, act.Parameters)
	if err := a.admits(act); err != nil {
		return Receipt{}, err
	}
	do := a.connector.Do
	if _, own := a.kind.Operation(act.Operation); !own && len(a.kind.Endpoints) > 0 {
		do = a.perform // no verb of the connector, but an operation of its catalogue
	}
	r, err := do(ctx, act)
	if err != nil {
		return Receipt{}, a.fault(ctx, act.Operation, Unknown, lodestone.ReasonNoAnswer, err)
	}
	r.Detail = a.t.mask.said(ctx, r.Detail)
	r.Reference = r.Reference[:min(len(r.Reference), maxReference)]
	return r, nil
}

// Unsubscribed asks whether the address opted out at the provider. With `suppression: local-only`
// nobody is asked and the answer says so. The error is a [*Fault].
func (a *Account) Unsubscribed(ctx context.Context, email lodestone.Email) (Subscription, error) {
	if a.settings.Suppression == SuppressionLocalOnly {
		return Subscription{Kind: SuppressionLocalOnly, Evidence: "the settings rely on the local list alone"}, nil
	}
	ctx = hide(ctx, email, nil)
	s, err := a.connector.Unsubscribed(ctx, email)
	if err != nil {
		return Subscription{}, a.fault(ctx, "check", Failed, lodestone.ReasonCheckFailed, err)
	}
	s.Evidence = a.t.mask.said(ctx, s.Evidence)
	return s, nil
}

// Find asks whether an act already happened. The error is a [*Fault].
func (a *Account) Find(ctx context.Context, act Act) (Finding, error) {
	// What is looked for must be what was sent; else "not there" is about something else.
	for _, name := range act.Altered {
		if slices.Contains(a.kind.FoundBy[act.Operation], name) {
			return Finding{State: Unclear, Evidence: "the provider finds the act by " + name + ", and what was sent in it is not known exactly"}, nil
		}
	}
	ctx = hide(ctx, act.Email, act.Parameters)
	f, err := a.connector.Find(ctx, act)
	if err != nil {
		return Finding{}, a.fault(ctx, act.Operation, Failed, lodestone.ReasonCheckFailed, err)
	}
	f.Evidence = a.t.mask.said(ctx, f.Evidence)
	f.Reference = f.Reference[:min(len(f.Reference), maxReference)]
	return f, nil
}

// fault sees to it that every error is a fault. A connector's error that is none has not proved that
// nothing happened.
func (a *Account) fault(ctx context.Context, operation string, class Class, reason lodestone.Reason, err error) error {
	var f *Fault
	if errors.As(err, &f) {
		return f
	}
	return &Fault{
		Connector: a.settings.Name, Operation: operation, Class: class, Reason: reason,
		Detail: a.t.mask.text(err.Error(), hiddenIn(ctx)...), CountsAttempt: true,
		Err: &masked{text: a.t.mask.text(err.Error(), hiddenIn(ctx)...), cause: err},
	}
}

// Blocked says whether calls are refused at the moment, why, and when at the earliest that may change.
// The breaker is open: provider_unavailable until its next probe. The provider named a Retry-After
// with a 429: rate_limited until then.
func (a *Account) Blocked() (reason lodestone.Reason, detail string, until time.Time, blocked bool) {
	if s, next := a.t.breaker.now(); s.Open {
		return lodestone.ReasonProviderUnavailable, s.describe(), next.UTC(), true
	}
	if until := a.t.silence(); !until.IsZero() {
		return lodestone.ReasonRateLimited, "the provider answered 429 and named a time", until.UTC(), true
	}
	return "", "", time.Time{}, false
}

// describe says why the breaker is open.
func (s State) describe() string {
	if s.Cause == CauseLockedOut {
		return "the provider refused the credentials: " + s.Detail
	}
	return "the provider keeps failing: " + s.Detail
}

// State is how the account's breaker stands.
func (a *Account) State() State {
	s, _ := a.t.breaker.now()
	return s
}

// Probe asks the provider something harmless, past an open breaker, and closes the breaker when it
// answers as it should. It is never an act. The error is a [*Fault].
func (a *Account) Probe(ctx context.Context) error {
	start := time.Now()
	if err := a.connector.Probe(context.WithValue(ctx, probeKey{}, true)); err != nil {
		a.t.breaker.probed(start)
		return a.fault(ctx, "probe", Failed, lodestone.ReasonCheckFailed, err)
	}
	a.t.breaker.close()
	return nil
}

// Run probes an open breaker until ctx is done: every 30 s after the provider refused the
// credentials, after 2, 4, 8 and then every 15 s when it keeps failing. It returns nil.
func (a *Account) Run(ctx context.Context) error {
	for {
		var due <-chan time.Time
		if s, next := a.t.breaker.now(); s.Open {
			due = time.After(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-a.t.breaker.changed:
		case <-due:
			// Its failure is noted by the breaker, and known since it opened.
			_ = a.Probe(ctx)
		}
	}
}

// OnChange has f told whenever the breaker opens, closes or changes its cause, in order, by the
// goroutine that noticed. f must be quick; it may ask the account anything. Changes made before are
// not told.
func (a *Account) OnChange(f func(State)) { a.t.breaker.listen(f) }
