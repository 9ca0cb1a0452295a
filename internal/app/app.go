// Package app puts the worker together: broker, store, rule files, connectors, intake, scheduler,
// socket and HTTP, each opened once, stopped in the order that loses nothing, and closed last opened
// first.
package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/internal/access"
	"github.com/lodestonehq/lodestone/internal/api"
	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/internal/console"
	"github.com/lodestonehq/lodestone/internal/doctor"
	"github.com/lodestonehq/lodestone/internal/events"
	"github.com/lodestonehq/lodestone/internal/gateway"
	"github.com/lodestonehq/lodestone/internal/links"
	"github.com/lodestonehq/lodestone/internal/replay"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/scheduler"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
	"github.com/lodestonehq/lodestone/sequencer"
	"github.com/lodestonehq/lodestone/sequencer/event"
	"github.com/lodestonehq/lodestone/sequencer/failpoint"
)

// Options of [Open].
type Options struct {
	Data       string         // data directory
	Broker     broker.Options // Dir is set from Data when it is empty
	HTTPListen string         // forms, webhooks, health, readiness, metrics, console, API; "none": nowhere
	Origins    []string       // pages whose scripts may post forms; "*": any
	MX         bool           // ask the name servers whether the domains of addresses take mail
	PublicURL  string         // where browsers reach HTTPListen; "": where their request went
	// TLSCert and TLSKey are files with what HTTPListen speaks TLS with; "": it speaks plain HTTP.
	TLSCert, TLSKey string
	Proxies         access.Proxies // whose word about where a request came from is believed
	AcceptPlain     bool           // take passwords and tokens from other machines over plain HTTP
	// Rules reads the rule files as they stand.
	Rules        func() ([]rules.File, error)
	RulesOptions rules.Options
	// WatchRules is the directory of the rule files, whose changes are taken while the worker runs; "": none
	// are.
	WatchRules string
	// Accounts opens the connectors that are configured. used names those that the rules in force
	// name; one of them that cannot be opened is an error.
	Accounts    func(used []string, reg prometheus.Registerer, log *slog.Logger) (map[string]*connectors.Account, error)
	FormSecrets map[string]connectors.Secret // of forms that other tools sign, by form
	// HookSecrets are the secrets by which webhooks are verified, by account and setting.
	HookSecrets map[string]map[string]connectors.Secret
	Retention   Retention
	// TimeScale divides every waiting time of the rule files; 0: 1. For demonstrations.
	TimeScale    float64
	AcceptStream bool // see [sequencer.Config]
	Log          *slog.Logger
	// Committed and Rejected are told what was committed, beside the worker's own listeners.
	Committed func(*sequencer.Change)
	Rejected  func(lodestone.Attention)
}

// Worker is everything that `run` runs. Make one with [Open].
type Worker struct {
	opts     Options
	log      *slog.Logger
	store    *boltstore.Store
	broker   *broker.Broker
	accounts map[string]*connectors.Account
	book     atomic.Pointer[sequencer.Rulebook]
	faults   atomic.Pointer[rules.Faults]
	versions *versions
	loaded   []rules.File // the rule files as they stood at the start
	metrics  *metrics
	ready    readiness

	forms, signals *sequencer.Intake
	scheduler      *scheduler.Scheduler
	outbox         *events.Outbox
	keys           *gateway.Keys // of forms; nil while the data directory is an unclaimed copy
	links          *links.Sealer
	seal           *event.Seal

	socket, web net.Listener
	certificate *access.Certificate // nil: plain HTTP
	console     *console.Console
	served      []access.Route // over the network
	handler     http.Handler   // of the network
	closers     []func() error // last opened first

	forgetting sync.Mutex // one erasure at a time
}

// ErrCopied is why a worker does not act: its data directory is a copy.
var ErrCopied = errors.New("the data directory is a copy of another one")

// Open opens everything and starts nothing that acts. What it opened is closed again when it fails;
// otherwise [Worker.Run] must be called, which closes it at its end.
func Open(ctx context.Context, opts Options) (_ *Worker, err error) {
	w := &Worker{opts: opts, log: opts.Log}
	if w.log == nil {
		w.log = slog.New(slog.DiscardHandler)
	}
	w.ready.set("starting")
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()

	if w.store, err = boltstore.Open(opts.Data, boltstore.Options{}); err != nil {
		if errors.Is(err, boltstore.ErrInUse) {
			err = fmt.Errorf("%w%s; stop it first, or use another --data", err, holder(opts.Data))
		}
		return nil, err
	}
	w.closers = append(w.closers, w.store.Close)
	if err := w.note(); err != nil {
		return nil, err
	}
	w.metrics = newMetrics(w.store, w.lag)
	w.ready.reasons, w.ready.warnings = w.reasons, w.warnings

	if w.socket, err = api.Listen(opts.Data); err != nil {
		return nil, err
	}
	w.closers = append(w.closers, w.socket.Close)
	if opts.TLSCert != "" {
		if w.certificate, err = access.OpenCertificate(opts.TLSCert, opts.TLSKey, w.log); err != nil {
			return nil, err
		}
	}
	if opts.HTTPListen != "none" && opts.HTTPListen != "" {
		if w.web, err = net.Listen("tcp", opts.HTTPListen); err != nil {
			return nil, fmt.Errorf("http.listen: %w; choose another address, or \"none\"", err)
		}
		w.closers = append(w.closers, w.web.Close)
		w.web = newCrowd(w.web, connsThatFit(), func(a netip.Addr) bool { return a.IsLoopback() || opts.Proxies.Trusts(a) })
	}
	key, err := w.store.LinkKey()
	if err != nil {
		return nil, err
	}
	if w.links, err = links.New(key); err != nil {
		return nil, err
	}
	if w.seal, err = Seal(w.store); err != nil {
		return nil, err
	}
	w.opts.RulesOptions.Link = personLink(w.links, opts.PublicURL)
	w.opts.RulesOptions.NoLinks = w.opts.RulesOptions.Link == nil // whether there are settings or not: these are in force
	if err := w.loadRules(ctx); err != nil {
		return nil, err
	}
	if w.accounts, err = opts.Accounts(w.used(), w.metrics.registry, w.log); err != nil {
		return nil, err
	}
	if why, remedy := w.store.Unclaimed(); why != "" {
		w.log.ErrorContext(ctx, why, "data", opts.Data, "remedy", remedy)
		return w.withWeb(), nil
	}

	if w.keys, err = gateway.OpenKeys(opts.Data); err != nil {
		return nil, err
	}
	w.closers = append(w.closers, w.keys.Close)
	b := opts.Broker
	if b.Dir == "" {
		b.Dir = filepath.Join(opts.Data, "jetstream")
	}
	b.Log = w.log
	if w.broker, err = broker.Open(ctx, b); err != nil {
		return nil, err
	}
	w.closers = append(w.closers, func() error { w.broker.Close(); return nil })
	if err := w.broker.Patiently(ctx, func() error { return w.broker.EnsureStreams(ctx) }); err != nil {
		return nil, err
	}
	if err := w.build(ctx); err != nil {
		return nil, err
	}
	return w.withWeb(), nil
}

// withWeb makes what the listener serves, if there is one.
func (w *Worker) withWeb() *Worker {
	if w.web != nil {
		w.handler = w.webHandler()
	}
	return w
}

// build makes the parts that act and compares the streams with what was applied.
func (w *Worker) build(ctx context.Context) error {
	w.scheduler = scheduler.New(scheduler.Config{
		Store: w.store, Rulebook: w.book.Load, Accounts: w.schedulerAccounts(), Log: w.log, Committed: w.committed,
		History: w.store,
		Waiting: func(ctx context.Context) (uint64, error) { return w.signals.Lag(ctx) },
	})
	w.outbox = events.New(w.store, w.broker, w.store.Instance(), w.log)
	intake := func(stream string) *sequencer.Intake {
		return sequencer.NewIntake(sequencer.Config{
			JetStream: w.broker.JetStream(), Stream: stream, Store: w.store, Rulebook: w.book.Load, Log: w.log,
			Committed: w.changed, Rejected: w.rejected,
			AcceptStream: w.opts.AcceptStream, Seal: w.seal,
		})
	}
	w.forms, w.signals = intake(sequencer.FormsStream), intake(sequencer.SignalsStream)
	return w.broker.Patiently(ctx, func() error { return errors.Join(w.forms.Open(ctx), w.signals.Open(ctx)) })
}

// used names the connectors that the rules in force send through, in alphabetical order.
func (w *Worker) used() (names []string) {
	book := w.book.Load()
	if book == nil {
		return nil
	}
	for _, s := range book.Current().Sequences {
		for step := range s.All() {
			names = append(names, step.Connector)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (w *Worker) schedulerAccounts() map[string]scheduler.Account {
	accounts := map[string]scheduler.Account{}
	for name, a := range w.accounts {
		s := a.Settings()
		ops := map[string]lodestone.Operation{}
		for _, op := range a.Kind().RuleOperations() {
			ops[op.Name] = op
		}
		accounts[name] = scheduler.Account{
			Provider: a, Concurrency: s.Concurrency, Timeout: s.Timeout, Attempts: s.Attempts, Settle: s.Settle,
			HoldUnknown: s.OnUnknown == connectors.OnUnknownHold, Operations: ops,
		}
	}
	return accounts
}

// changed tells of a change that was not the scheduler's own: what it made due earlier wakes it.
func (w *Worker) changed(c *sequencer.Change) {
	w.committed(c)
	if w.scheduler != nil { // a copy acts on nothing
		w.scheduler.Notify(c)
	}
}

func (w *Worker) committed(c *sequencer.Change) {
	w.metrics.committed(c)
	if w.outbox != nil && c.Entry != nil {
		w.outbox.Wake()
	}
	if w.opts.Committed != nil {
		w.opts.Committed(c)
	}
}

func (w *Worker) rejected(a lodestone.Attention) {
	if !a.IsSignal() {
		book := w.book.Load()
		w.metrics.rejected(a, book != nil && book.Form(a.Form) != nil)
	}
	w.outbox.Wake()
	if w.opts.Rejected != nil {
		w.opts.Rejected(a)
	}
}

func (w *Worker) lag(ctx context.Context) (uint64, error) {
	if w.forms == nil {
		return 0, ErrCopied
	}
	return w.forms.Lag(ctx)
}

// Broker is the worker's broker; nil while the data directory is an unclaimed copy.
func (w *Worker) Broker() *broker.Broker { return w.broker }

// Web is where forms, health, console and the like are served; "" when they are not.
func (w *Worker) Web() string {
	if w.web == nil {
		return ""
	}
	return w.web.Addr().String()
}

// WebURL is [Worker.Web] as browsers write it.
func (w *Worker) WebURL() string {
	switch {
	case w.web == nil:
		return ""
	case w.certificate != nil:
		return "https://" + w.Web()
	}
	return "http://" + w.Web()
}

// Rulebook is what decisions are made with, nil while there are no usable rule files.
func (w *Worker) Rulebook() *sequencer.Rulebook { return w.book.Load() }

// Client speaks to the worker's API in this process.
func (w *Worker) Client() *api.Client { return api.Direct(w.api().Handler()) }

func (w *Worker) api() *api.Server {
	s := &api.Server{Store: w.store, Rulebook: w.book.Load, Committed: w.changed, Accounts: w.accounts, Operations: w.opts.RulesOptions.Operations, Worker: true}
	s.Past = func(ctx context.Context) (replay.Head, replay.Source, error) {
		if w.broker == nil { // a copy leaves its streams alone
			return replay.Open(ctx, w.store, nil, w.seal)
		}
		return replay.Open(ctx, w.store, w.broker.JetStream(), w.seal)
	}
	if w.scheduler != nil {
		s.PausesChanged = w.scheduler.Reload
		s.Committed = func(c *sequencer.Change) { w.committed(c); w.scheduler.Notify(c) }
	}
	if w.broker != nil {
		s.Publish = w.broker
		s.DropForm = w.broker.DropForm
		s.Streams = streams{w}
	}
	s.Doctor = func(ctx context.Context) (r doctor.Report) {
		r.Store(ctx, w.store)
		if w.broker != nil {
			r.Streams(ctx, w.store, w.broker)
		}
		return r
	}
	return s
}

// Run works until ctx is done or a part must not go on, then stops: intake first, then the calls in
// flight, each at most its timeout, then everything that answers questions.
func (w *Worker) Run(ctx context.Context) (err error) {
	defer func() {
		err = errors.Join(err, w.close())
		failpoint.Hit(failpoint.StopClosed)
	}()

	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	var answers errgroup.Group
	// Commands are let finish from the signal on: a call that one of them makes may be out. Health is
	// answered to the end.
	commands, stopCommands := context.WithCancel(ctx)
	defer stopCommands()
	answers.Go(func() error { return w.serve(commands, w.socket, w.api().Handler(), 12*time.Second, nil) })
	if w.web != nil {
		answers.Go(func() error { return w.serve(serving, w.web, w.handler, 2*time.Second, w.certificate) })
	}
	answers.Go(func() error { w.readThrough(commands, readThroughAfter); return nil })

	w.ready.set("")
	// From the signal on, not only when the last call in flight has ended.
	defer context.AfterFunc(ctx, func() { w.ready.set("stopping") })()
	if w.store.Copied() {
		<-ctx.Done()
	} else {
		err = w.act(ctx)
		failpoint.Hit(failpoint.StopActed)
	}
	w.ready.set("stopping")
	stopCommands()
	stopServing()
	return errors.Join(err, answers.Wait())
}

// act runs the parts that act. The scheduler and the outbox outlive intake by a moment, so that what
// was taken in is told.
func (w *Worker) act(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, a := range w.accounts {
		changes := make(chan struct{}, 1)
		a.OnChange(func(connectors.State) {
			select {
			case changes <- struct{}{}:
			default: // the one waiting will see the newest state
			}
		})
		g.Go(func() error { return a.Run(ctx) })
		g.Go(func() error { return w.watch(ctx, a, changes) })
	}
	g.Go(func() error { return w.forms.Run(ctx) })
	g.Go(func() error { return w.signals.Run(ctx) })
	g.Go(func() error {
		// An opt-out may wait in a stream since before the start; it must be known before anything is
		// sent. Without rule files nothing is applied, and so nothing is sent either.
		for _, in := range []*sequencer.Intake{w.signals, w.forms} {
			select {
			case <-in.CaughtUp():
			case <-ctx.Done():
				return nil
			}
		}
		for w.book.Load() == nil {
			if !pause(ctx, time.Second) {
				return nil
			}
		}
		if err := w.gather(ctx); err != nil {
			return err
		}
		w.sayOverdue(ctx)
		return w.scheduler.Run(ctx)
	})
	g.Go(func() error { return w.outbox.Run(ctx) })
	g.Go(func() error { return w.upkeep(ctx) })
	g.Go(func() error { return w.pruneLeads(ctx) })
	g.Go(func() error { return w.forget(ctx) })
	g.Go(func() error { return w.watchRules(ctx) })
	return g.Wait()
}

// pause waits for d; false when ctx was done first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// watch keeps one attention item for an account whose credentials the provider refuses, for as long as
// it does: nothing but a human can mend that.
func (w *Worker) watch(ctx context.Context, a *connectors.Account, changes <-chan struct{}) error {
	key := sequencer.AttentionKey{Kind: lodestone.AttentionConnector, ID: a.Name()}
	for {
		b := sequencer.Batch{Resolved: []sequencer.AttentionKey{key}}
		if s := a.State(); s.Open && s.Cause == connectors.CauseLockedOut {
			b = sequencer.Batch{Attention: []lodestone.Attention{{
				ID: key.ID, Kind: key.Kind, Reason: lodestone.ReasonProviderUnavailable, At: s.Since,
				Detail: fmt.Sprintf("the provider refuses the credentials of connectors.%s (%s); mend them and restart, touchpoints wait meanwhile", a.Name(), s.Detail),
			}}}
		}
		if _, err := w.store.Commit(ctx, b); err != nil && ctx.Err() == nil {
			w.log.ErrorContext(ctx, "cannot store that a provider changed", "connector", a.Name(), "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changes:
		}
	}
}

// serve answers requests until ctx is done, then lets those under way finish, for as long as grace. With a
// certificate it speaks TLS.
func (w *Worker) serve(ctx context.Context, l net.Listener, h http.Handler, grace time.Duration, c *access.Certificate) error {
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: log.New(serverLog{w.log}, "", 0),
	}
	if c, ok := l.(*crowd); ok {
		s.ConnState = c.state
	}
	done := make(chan error, 1)
	go func() {
		if c == nil {
			done <- s.Serve(l)
			return
		}
		s.TLSConfig = c.Config()
		done <- s.ServeTLS(l, "", "")
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	err := s.Shutdown(stop)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.Close() // a reader that does not read does not keep the process from ending
	}
	<-done // http.ErrServerClosed
	return err
}

// serverLog takes what the HTTP server has to say: a panic is worth a warning, a stranger who speaks no TLS is not.
type serverLog struct{ log *slog.Logger }

func (s serverLog) Write(p []byte) (int, error) {
	level := slog.LevelWarn
	if bytes.HasPrefix(p, []byte("http: TLS handshake error")) {
		level = slog.LevelDebug
	}
	s.log.Log(context.Background(), level, strings.TrimSpace(string(p)))
	return len(p), nil
}

func (w *Worker) close() error {
	var errs []error
	for i := len(w.closers) - 1; i >= 0; i-- {
		if err := w.closers[i](); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	w.closers = nil
	return errors.Join(errs...)
}

// The process that holds a data directory writes itself down there, so that another one can say who
// it is.

const holderName = "lodestone.pid"

func (w *Worker) note() error {
	path := filepath.Join(w.opts.Data, holderName)
	host, err := os.Hostname()
	if err != nil {
		host = "this machine"
	}
	text := fmt.Sprintf("process %d on %s since %s\n", os.Getpid(), host, time.Now().UTC().Format(time.RFC3339))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	w.closers = append(w.closers, func() error { return os.Remove(path) })
	return nil
}

func holder(dir string) string {
	b, err := os.ReadFile(filepath.Join(dir, holderName))
	if err != nil || len(b) == 0 {
		return ""
	}
	return " (" + string(b[:len(b)-1]) + ")"
}

// reasons says why submissions cannot be accepted or all acts are refused.
func (w *Worker) reasons() (list []Notice) {
	if why, remedy := w.store.Unclaimed(); why != "" {
		return append(list, Notice{"data_directory_copied", why + "; stop this worker first and " + remedy})
	}
	if s := w.broker.Status(); !s.Ready() {
		list = append(list, Notice{"broker_away", s.Detail})
	} else {
		list = append(list, w.streamReasons()...)
	}
	if _, err := w.store.OldestDue(context.Background()); err != nil {
		list = append(list, Notice{"store_away", err.Error()})
	} else if err := w.store.Failing(); err != nil {
		list = append(list, Notice{"store_away", fmt.Sprintf("nothing can be stored (%v); it is tried again. `lodestone doctor` looks for the cause", err)})
	}
	return list
}

// warnings says what is amiss although work goes on.
func (w *Worker) warnings() (list []Notice) {
	if err := w.store.Damage(); err != nil {
		list = append(list, Notice{"store_damaged", err.Error() + "; " + boltstore.DamageRemedy})
	}
	if faults := w.faults.Load(); faults != nil && len(*faults) > 0 {
		detail := fmt.Sprintf("faults in the rule files: %d; the last good version goes on", len(*faults))
		if w.book.Load() == nil {
			detail = fmt.Sprintf("faults in the rule files: %d, and no earlier version: submissions wait in the stream", len(*faults))
		}
		list = append(list, Notice{"rules_invalid", detail + ": " + (*faults)[0].String()})
	}
	if paused, err := w.store.Paused(context.Background()); err == nil {
		for _, scope := range slices.Sorted(maps.Keys(paused)) {
			list = append(list, Notice{"paused", paused[scope].Words(scope)})
		}
	}
	for name, a := range w.accounts {
		if _, detail, _, blocked := a.Blocked(); blocked {
			list = append(list, Notice{"provider_unavailable", name + ": " + detail})
		}
	}
	if counts, err := w.store.AttentionCounts(context.Background()); err == nil {
		n := 0
		for _, c := range counts {
			n += c
		}
		if n > 0 {
			list = append(list, Notice{"attention", fmt.Sprintf("needing a human: %d; `lodestone queue --attention` lists them", n)})
		}
	}
	return list
}
