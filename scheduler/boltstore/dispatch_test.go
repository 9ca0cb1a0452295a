package boltstore_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/internal/api"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/scheduler"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
	"github.com/lodestonehq/lodestone/sequencer"
)

const dispatchRules = `
forms:
  guide:
    fields:
      email: {type: email, required: true}
      kind: {type: text}
scoring:
  bands: {any: 0}
sequences:
  plain:
    when: fields.kind == "plain"
    reenter: always
    exit: signals.converted
    steps:
      - {name: invite, after: 5m, do: first.invite}
      - {name: refer, after: 20m, do: second.refer}
  picky:
    when: fields.kind == "picky"
    priority: 10
    reenter: always
    steps:
      - {name: refer, after: 2m, grace: 1h, do: first.refer}
      - {name: invite, do: second.invite}
`

// The times of the provider's world. An effect happens and shows, at the latest, less than settle after the
// call was given up: what comes later than that cannot be told from what never came.
const (
	callTimeout = 10 * time.Second
	settle      = 30 * time.Second
	straggles   = 5 * time.Second  // an effect after its call was given up
	shows       = 14 * time.Second // from an effect until a look-up finds it
)

// effect is something that the provider did.
type effect struct {
	intended time.Time // of the act that did it
	try      int       // the number of that act, from 1
	at       time.Time
}

// world is the provider, and what is truly known to whom. What it answers is drawn from the seed, the
// touchpoint and the number of the try, so that it does not depend on who comes first.
type world struct {
	seed    uint64
	calm    bool // nothing fails any more
	crash   func()
	outages map[string]time.Time // by connector, until when

	mu         sync.Mutex // guards what follows
	tries      map[string]int
	effects    map[string][]effect
	asked      map[string]int
	held       int                           // what is reserved and not given back
	optedOut   map[lodestone.Email]time.Time // at the provider
	suppressed map[lodestone.Email]time.Time // here
	erased     map[lodestone.Email]time.Time
	paused     map[string]time.Time
	broken     []string        // promises
	fresh      map[string]bool // touchpoints of effects that the model has not looked at
	did        map[string]int
}

func (w *world) draw(what, id string, n, below int) int {
	h := fnv.New64a()
	h.Write(binary.LittleEndian.AppendUint64(nil, w.seed))
	fmt.Fprintf(h, "%s\x00%s\x00%d", what, id, n)
	return int(rand.New(rand.NewPCG(h.Sum64(), w.seed)).Uint64N(uint64(below)))
}

// number counts the questions of a kind about an id.
func (w *world) number(what, id string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked[what+id]++
	return w.asked[what+id]
}

func (w *world) count(what string) {
	w.mu.Lock()
	w.did[what]++
	w.mu.Unlock()
}

// begun holds an act that begins now against what is known already.
func (w *world) begun(connector string, act connectors.Act) (try int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	for what, at := range map[string]time.Time{
		"an opt-out here": w.suppressed[act.Email], "an opt-out at the provider": w.optedOut[act.Email], "an erasure": w.erased[act.Email],
		"a pause of all": w.paused["all"], "a pause of the connector": w.paused["connector "+connector],
	} {
		if !at.IsZero() && at.Before(now) {
			w.broken = append(w.broken, fmt.Sprintf("%s of %s began %v after %s", act.ID, act.Email, now.Sub(at), what))
		}
	}
	w.tries[act.ID]++
	return w.tries[act.ID]
}

// account is one connector of the world.
type account struct {
	*world
	name string
}

func pass(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// span draws a time below a bound. It is odd to the nanosecond, so that hardly ever two things happen at once.
func (w *world) span(what, id string, n int, below time.Duration) time.Duration {
	return time.Duration(w.draw(what, id, n, int(below))) + 1
}

func (a account) Reserve(ctx context.Context) (context.Context, func(), error) {
	// Workers that begin at one moment wait alike, whoever comes first.
	if err := pass(ctx, a.span("reserve", a.name, int(time.Now().UnixNano()), 2*time.Second)); err != nil {
		return ctx, func() {}, &connectors.Fault{Class: connectors.NotDone, Reason: lodestone.ReasonNotDone}
	}
	a.mu.Lock()
	a.held++
	a.mu.Unlock()
	return ctx, sync.OnceFunc(func() {
		a.mu.Lock()
		a.held--
		a.mu.Unlock()
	}), nil
}

func (a account) Blocked() (lodestone.Reason, string, time.Time, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	until := a.outages[a.name]
	return lodestone.ReasonProviderUnavailable, "an outage", until, time.Now().Before(until)
}

func (a account) Mine(context.Context, connectors.Act) (string, error) { return "", nil }

func (a account) Unsubscribed(ctx context.Context, email lodestone.Email) (connectors.Subscription, error) {
	n := a.number("check", string(email))
	if err := pass(ctx, a.span("check", string(email), n, 2*time.Second)); err != nil || !a.calm && a.draw("check fails", string(email), n, 12) == 0 {
		return connectors.Subscription{}, &connectors.Fault{Class: connectors.Failed, Reason: lodestone.ReasonCheckFailed}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	_, out := a.optedOut[email]
	return connectors.Subscription{Unsubscribed: out, Kind: connectors.SuppressionProvider, Evidence: "its list"}, nil
}

// Do takes its time, does it or not, and says so or not.
func (a account) Do(ctx context.Context, act connectors.Act) (connectors.Receipt, error) {
	try := a.begun(a.name, act)
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if !a.calm && a.draw("crash before", act.ID, try, 150) == 0 {
		a.crash()
	}
	happens := func() {
		a.mu.Lock()
		a.fresh[act.ID] = true
		a.effects[act.ID] = append(a.effects[act.ID], effect{act.IntendedAt, try, time.Now()})
		a.mu.Unlock()
	}
	took := a.span("took", act.ID, try, 4*time.Second)
	fault := func(what string, c connectors.Class, r lodestone.Reason, counts bool, after time.Duration) (connectors.Receipt, error) {
		_ = pass(ctx, took)
		a.count(what)
		return connectors.Receipt{}, &connectors.Fault{Class: c, Reason: r, CountsAttempt: counts, RetryAfter: after}
	}
	k := a.draw("do", act.ID, try, 100)
	if a.calm {
		k = 0
	}
	switch {
	case k < 50:
	case k < 58:
		return fault("refused connections", connectors.NotDone, lodestone.ReasonNotDone, true, 0)
	case k < 62:
		return fault("429", connectors.RateLimited, lodestone.ReasonRateLimited, false, time.Minute)
	case k < 64:
		return fault("401", connectors.LockedOut, lodestone.ReasonProviderUnavailable, false, 0)
	case k < 69:
		return fault("refusals", connectors.Refused, lodestone.ReasonRefused, true, 0)
	case k < 77:
		return fault("500 without effect", connectors.Unknown, lodestone.ReasonNoAnswer, true, 0)
	case k < 85:
		happens()
		return fault("500 with effect", connectors.Unknown, lodestone.ReasonNoAnswer, true, 0)
	case k < 90:
		took = callTimeout
		return fault("timeouts without effect", connectors.Unknown, lodestone.ReasonNoAnswer, true, 0)
	case k < 95: // it is done while nobody waits for the answer any more
		time.AfterFunc(took+a.span("straggles", act.ID, try, straggles), happens)
		return fault("timeouts with a late effect", connectors.Unknown, lodestone.ReasonNoAnswer, true, 0)
	default: // an error that says nothing of what it means
		if k%2 == 0 {
			happens()
		}
		_ = pass(ctx, took)
		a.count("errors that say nothing")
		return connectors.Receipt{}, errors.New("broken")
	}
	if err := pass(ctx, took); err != nil {
		return connectors.Receipt{}, &connectors.Fault{Class: connectors.Unknown, Reason: lodestone.ReasonNoAnswer}
	}
	happens()
	a.count("accepted")
	if !a.calm && a.draw("crash after", act.ID, try, 150) == 0 {
		a.crash()
	}
	return connectors.Receipt{Reference: "r", Status: 200}, nil
}

// Find shows what was done only a while after it was. Nothing shows what the second connector invited.
func (a account) Find(ctx context.Context, act connectors.Act) (connectors.Finding, error) {
	n := a.number("find", act.ID)
	if err := pass(ctx, a.span("find", act.ID, n, 2*time.Second)); err != nil || !a.calm && a.draw("find fails", act.ID, n, 8) == 0 {
		return connectors.Finding{}, &connectors.Fault{Class: connectors.Failed, Reason: lodestone.ReasonCheckFailed}
	}
	if a.name == "second" && act.Operation == "invite" {
		return connectors.Finding{State: connectors.Unsupported}, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range a.effects[act.ID] {
		if time.Since(e.at) >= a.span("shows", act.ID, e.try, shows) {
			a.did["found"]++
			return connectors.Finding{State: connectors.Found, Reference: "r"}, nil
		}
		a.did["look-ups that came too early"]++
	}
	if a.name == "second" && n%5 == 0 {
		return connectors.Finding{State: connectors.Unclear}, nil
	}
	return connectors.Finding{State: connectors.Absent}, nil
}

// mortal is a store in a process that can be killed: from then on it does nothing any more.
type mortal struct {
	*boltstore.Store
	w    *world
	kill func()

	mu    sync.Mutex // guards what follows
	dying bool
	dead  bool
}

var errDead = errors.New("the process was killed")

func (m *mortal) gone() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dead
}

// die kills the process when everything that happens at this moment has happened, so that it does not
// depend on who is quicker.
func (m *mortal) die() {
	m.mu.Lock()
	m.dying = true
	m.mu.Unlock()
	time.AfterFunc(1, func() {
		m.mu.Lock()
		m.dead = true
		m.mu.Unlock()
		m.kill()
	})
}

func (m *mortal) Commit(ctx context.Context, b sequencer.Batch) ([]sequencer.Result, error) {
	who := string(b.Writes[0].Email)
	n := m.w.number("commit", who)
	if m.gone() {
		return nil, errDead
	}
	if !m.w.calm && m.w.draw("crash before a commit", who, n, 400) == 0 {
		m.die()
		return nil, errDead
	}
	res, err := m.Store.Commit(ctx, b)
	if !m.w.calm && m.w.draw("crash after a commit", who, n, 400) == 0 {
		m.die()
		return nil, errDead
	}
	return res, err
}

func (m *mortal) State(ctx context.Context, email lodestone.Email) (sequencer.State, error) {
	if m.gone() {
		return sequencer.State{}, errDead
	}
	return m.Store.State(ctx, email)
}

// ledger is the simple model of one touchpoint: where it should stand by the record, and which of its tries a
// person has taken the blame for.
type ledger struct {
	email   lodestone.Email
	state   lodestone.TouchpointState
	intents map[time.Time]int // their numbers, from 1
	excused int               // tries whose outcome a person decided about, up to this one
}

// blamed counts the effects of tries on record for which nobody took the blame.
func (l *ledger) blamed(effects []effect) (n int) {
	for _, x := range effects {
		if try, known := l.intents[x.intended]; known && try > l.excused {
			n++
		}
	}
	return n
}

// dispatched is the model, the world and the process, in a bubble.
type dispatched struct {
	t       *testing.T
	seed    uint64
	step    int
	rng     *rand.Rand
	dir     string
	book    *sequencer.Rulebook
	store   *boltstore.Store
	sched   *scheduler.Scheduler
	api     *api.Client
	w       *world
	ahead   time.Duration // how far the wall clock was set
	aheadMu sync.Mutex
	stop    func() // ends the process and waits
	abandon func() // ends it after a failure, so that the bubble can end
	crashed chan struct{}

	seq       uint64 // of the journal, up to where the model has read it
	points    map[string]*ledger
	pending   []string // those that are not over, and such as failed lately
	submitted map[string]bool
	want      map[string]uint64 // counts of submissions
}

func (d *dispatched) fail(format string, args ...any) {
	d.t.Helper()
	d.t.Fatalf("MODEL_SEED=%d, step %d: %s", d.seed, d.step, fmt.Sprintf(format, args...))
}

func (d *dispatched) now() time.Time {
	d.aheadMu.Lock()
	defer d.aheadMu.Unlock()
	return time.Now().Add(d.ahead).Round(0).UTC()
}

func (d *dispatched) start() {
	var err error
	if d.store, err = boltstore.Open(d.dir, boltstore.Options{}); err != nil {
		d.fail("open: %v", err)
	}
	d.store.NoSync()
	ctx, cancel := context.WithCancel(context.Background())
	m := &mortal{Store: d.store, w: d.w}
	m.kill = func() {
		cancel()
		select {
		case d.crashed <- struct{}{}:
		default:
		}
	}
	d.w.mu.Lock()
	d.w.crash = m.die
	d.w.mu.Unlock()
	accounts := map[string]scheduler.Account{}
	for _, name := range []string{"first", "second"} {
		accounts[name] = scheduler.Account{
			Provider: account{d.w, name}, Concurrency: 4, Timeout: callTimeout, Attempts: 4, Settle: settle,
			Operations: map[string]lodestone.Operation{"invite": {Name: "invite"}, "refer": {Name: "refer"}},
		}
	}
	d.sched = scheduler.New(scheduler.Config{
		Store: m, Rulebook: func() *sequencer.Rulebook { return d.book }, Accounts: accounts, Now: d.now, Pace: scheduler.Longest,
	})
	server := &api.Server{
		Store: d.store, Rulebook: func() *sequencer.Rulebook { return d.book }, Worker: true,
		Committed: d.sched.Notify, PausesChanged: d.sched.Reload, Connectors: []string{"first", "second"},
	}
	d.api = api.Direct(server.Handler())
	done := make(chan error, 1)
	go func() { done <- d.sched.Run(ctx) }()
	d.abandon = func() { cancel(); <-done; _ = d.store.Close() }
	d.stop = func() {
		d.abandon = func() { _ = d.store.Close() }
		cancel()
		err := <-done
		m.mu.Lock()
		defer m.mu.Unlock()
		if err != nil && !m.dying {
			d.fail("Run: %v", err)
		}
		if err := d.store.Close(); err != nil {
			d.fail("close: %v", err)
		}
		d.w.mu.Lock()
		defer d.w.mu.Unlock()
		if d.w.held != 0 {
			d.fail("%d reservations were not given back", d.w.held)
		}
	}
	synctest.Wait()
}

func (d *dispatched) restart(what string) {
	d.stop()
	if d.rng.IntN(2) == 0 {
		time.Sleep(time.Duration(d.rng.IntN(3600)) * time.Second)
	}
	select {
	case <-d.crashed:
	default:
	}
	d.w.count(what)
	d.start()
}

// live lets time pass, and begins anew where the process was killed meanwhile.
func (d *dispatched) live(long time.Duration) {
	time.Sleep(long)
	synctest.Wait()
	for {
		select {
		case <-d.crashed:
			d.restart("crashes")
			continue
		default:
			return
		}
	}
}

// say has a person say something through the API. It reports whether it was taken.
func (d *dispatched) say(path string, what any, into any) bool {
	err := d.api.Call(context.Background(), http.MethodPost, path, nil, what, into)
	var p *api.Problem
	if errors.As(err, &p) && p.Status == http.StatusConflict {
		return false
	}
	if err != nil {
		d.fail("POST %s: %v", path, err)
	}
	return true
}

// known notes since when the world knows something, in the world's time.
func known[K comparable](w *world, of map[K]time.Time, key K, yes bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, there := of[key]; !yes {
		delete(of, key)
	} else if !there {
		of[key] = time.Now()
	}
}

// opted are those who are suppressed.
func opted(w *world) []lodestone.Email {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(maps.Keys(w.suppressed))
}

func (d *dispatched) act(k int) {
	ctx, w := context.Background(), d.w
	email := lodestone.Email(fmt.Sprintf("lead%d@example.com", d.rng.IntN(40)))
	switch {
	case k < 350:
		id := fmt.Sprint("s", d.step)
		if d.rng.IntN(10) == 0 {
			id = fmt.Sprint("s", d.step-1-d.rng.IntN(30)) // perhaps a repeat
		}
		now := d.now()
		sub := lodestone.Submission{ID: id, Form: "guide", Email: email, At: now, Received: now, Fields: lodestone.FieldsOf(map[string]any{
			"email": string(email), "kind": []string{"plain", "picky"}[d.rng.IntN(2)],
		})}
		d.commit(email, &sequencer.Submitted{Submission: sub})
		what := "accepted"
		if d.submitted[string(email)+id] {
			what = "duplicate"
		}
		d.submitted[string(email)+id] = true
		d.want[what]++
		known(w, w.erased, email, false) // it came back by itself
		w.count("submissions")
	case k < 380:
		kind := []lodestone.SignalKind{lodestone.SignalConverted, "opened", lodestone.SignalUnsubscribed}[d.rng.IntN(3)]
		d.commit(email, sequencer.Signalled{Signal: lodestone.Signal{ID: fmt.Sprint("g", d.step), Kind: kind, Email: email, At: d.now(), Received: d.now()}})
		if kind == lodestone.SignalUnsubscribed {
			known(w, w.suppressed, email, true)
		}
		w.count("signals")
	case k < 410:
		remove := d.rng.IntN(5) > 0
		if list := opted(w); remove && len(list) > 0 {
			email = list[d.rng.IntN(len(list))] // else most would be suppressed before long
		}
		d.say("/api/v1/suppressions", api.Suppress{Emails: []string{string(email)}, Remove: remove}, nil)
		known(w, w.suppressed, email, !remove)
		w.count("words on opt-outs")
	case k < 430:
		known(w, w.optedOut, email, d.rng.IntN(6) == 0)
		w.count("changes of an opt-out at the provider")
	case k < 460:
		scope := []string{"all", "connector first", "connector second"}[d.rng.IntN(3)]
		if d.rng.IntN(6) == 0 {
			d.say("/api/v1/pauses", api.PauseScope{Scope: scope, By: "test"}, nil)
			known(w, w.paused, scope, true)
		} else {
			known(w, w.paused, scope, false)
			d.say("/api/v1/resume", api.PauseScope{Scope: scope, By: "test"}, nil)
		}
		w.count("pauses and resumes")
	case k < 520:
		d.operate()
	case k < 526:
		var f api.Forgotten
		d.say("/api/v1/leads/"+string(email)+"/forget", nil, &f)
		known(w, w.erased, email, true)
		known(w, w.suppressed, email, false) // the address is not there any more; that it opted out is
		if f.Erased.Suppressed {
			known(w, w.suppressed, email, true)
		}
		d.read()
		for _, id := range d.pending {
			if l := d.points[id]; l.email == email {
				l.state = lodestone.TouchpointCancelled
			}
		}
		maps.DeleteFunc(d.submitted, func(id string, _ bool) bool { return strings.HasPrefix(id, string(email)) })
		w.count("erasures")
	case k < 535:
		w.mu.Lock()
		w.outages[[]string{"first", "second"}[d.rng.IntN(2)]] = time.Now().Add(time.Duration(d.rng.IntN(120)) * time.Minute)
		w.mu.Unlock()
		w.count("outages")
	case k < 545:
		// A clock that is set forward while the outcome of a call is open that an earlier process made is the
		// one thing that can make a look-up believed before its time.
		if open, err := d.store.Open(ctx); err != nil {
			d.fail("%v", err)
		} else if len(open) == 0 || slices.IndexFunc(open, func(o scheduler.OpenItem) bool { return o.State != lodestone.TouchpointHeld }) < 0 {
			d.aheadMu.Lock()
			d.ahead += time.Duration(d.rng.IntN(300)-120) * time.Minute
			d.aheadMu.Unlock()
			w.count("clock jumps")
		}
	case k < 549:
		d.restart("restarts")
	}
}

func (d *dispatched) commit(email lodestone.Email, ev sequencer.Event) {
	now := d.now()
	res, err := d.store.Commit(context.Background(), sequencer.Batch{Writes: []sequencer.Write{{Email: email, Plan: func(st sequencer.State) (sequencer.Change, error) {
		return sequencer.Plan(st.Lead, ev, d.book, now)
	}}}})
	if err = errors.Join(err, res[0].Err); err != nil {
		d.fail("%v", err)
	}
	d.sched.Notify(&res[0].Change)
}

// operate has a person decide about a touchpoint: most often one that asks for it.
func (d *dispatched) operate() {
	var ids []string
	for _, id := range d.pending {
		if state := d.points[id].state; state == lodestone.TouchpointHeld || state == lodestone.TouchpointUnknown || d.rng.IntN(8) == 0 {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return
	}
	id := ids[d.rng.IntN(len(ids))]
	op := []sequencer.Operation{sequencer.Retry, sequencer.Retry, sequencer.Cancel, sequencer.Skip, sequencer.Confirm}[d.rng.IntN(5)]
	if d.say("/api/v1/touchpoints/"+id, api.Operate{Operation: op, Sure: true, By: "test"}, nil) {
		d.w.count("word: " + string(op))
	}
}

// read takes what was put on record since, and holds each move of a touchpoint against what the provider
// truly did.
func (d *dispatched) read() {
	for {
		entries, err := d.store.Journal(context.Background(), d.seq, 1000)
		if err != nil {
			d.fail("%v", err)
		}
		if len(entries) == 0 {
			break
		}
		for i := range entries {
			d.seq = entries[i].Seq
			for _, tp := range entries[i].Touchpoints {
				if tp.ID != "" { // blanked by an erasure
					d.moved(&entries[i], &tp)
				}
			}
		}
	}

	var keep []string
	failed := 0
	for _, id := range slices.Backward(d.pending) {
		state := d.points[id].state
		if state == lodestone.TouchpointFailed {
			failed++
		}
		if state.Pending() || state == lodestone.TouchpointFailed && failed <= 5 {
			keep = append(keep, id)
		}
	}
	slices.Reverse(keep)
	d.pending = keep
}

func (d *dispatched) moved(e *lodestone.Entry, tp *lodestone.TouchpointEntry) {
	l := d.points[tp.ID]
	if l == nil {
		if tp.State != lodestone.TouchpointScheduled {
			d.fail("%s begins as %s", tp.ID, tp.State)
		}
		l = &ledger{email: e.Lead, intents: map[time.Time]int{}}
		d.points[tp.ID] = l
	}
	if !slices.Contains(d.pending, tp.ID) {
		d.pending = append(d.pending, tp.ID) // also again, after a person had it tried once more
	}
	was, person := l.state, e.Operator != nil || tp.Reason == lodestone.ReasonErased
	l.state = tp.State
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	mine := l.blamed(d.w.effects[tp.ID])
	wrong := func(words string) {
		d.fail("%s went from %s to %s (%s): %s; the provider did it %v, tries %d, a person decided up to %d", tp.ID, was, tp.State, tp.Reason, words, d.w.effects[tp.ID], len(l.intents), l.excused)
	}
	if person {
		if was == lodestone.TouchpointHeld || was == lodestone.TouchpointUnknown {
			l.excused = len(l.intents) // what came of it is theirs to know
		}
		return
	}
	legal := map[lodestone.TouchpointState]string{
		"":                            "scheduled",
		lodestone.TouchpointScheduled: "scheduled intended skipped cancelled",
		lodestone.TouchpointIntended:  "sent scheduled unknown failed held cancelled", // cancelled: not done, and its enrollment is over
		lodestone.TouchpointUnknown:   "sent scheduled unknown failed held cancelled",
		lodestone.TouchpointFailed:    "",
	}[was]
	if !slices.Contains(strings.Fields(legal), string(tp.State)) {
		wrong("there is no such way")
	}
	switch tp.State {
	case lodestone.TouchpointIntended:
		l.intents[e.At.Round(0).UTC()] = len(l.intents) + 1
		if mine > 0 {
			wrong("it was done already")
		}
	case lodestone.TouchpointSent:
		if mine == 0 && l.excused == 0 {
			wrong("it was not done")
		}
	case lodestone.TouchpointScheduled, lodestone.TouchpointFailed, lodestone.TouchpointSkipped, lodestone.TouchpointCancelled:
		if mine > 0 {
			wrong("it was done")
		}
	}
	if tp.Reason == lodestone.ReasonUnsubscribed && tp.State == lodestone.TouchpointSkipped {
		if _, known := d.w.suppressed[l.email]; !known {
			d.w.suppressed[l.email] = time.Now() // learnt
		}
	}
}

// compare holds what the store says now against the model.
func (d *dispatched) compare(who lodestone.Email) {
	ctx := context.Background()
	d.read()
	d.w.mu.Lock()
	broken := slices.Clone(d.w.broken)
	for id := range d.w.fresh {
		effects := d.w.effects[id]
		n := len(effects)
		if l := d.points[id]; l != nil {
			n = l.blamed(effects)
		}
		if n > 1 {
			broken = append(broken, fmt.Sprintf("%s was done %d times, and no person asked for it: %v", id, n, effects))
		}
	}
	clear(d.w.fresh)
	d.w.mu.Unlock()
	if len(broken) > 0 {
		d.fail("promises were broken:\n%s", strings.Join(broken, "\n"))
	}
	st, err := d.store.State(ctx, who)
	if err != nil {
		d.fail("%v", err)
	}
	got, want := map[string]lodestone.TouchpointState{}, map[string]lodestone.TouchpointState{}
	if st.Lead != nil {
		for _, e := range st.Lead.Enrollments {
			for _, tp := range []*lodestone.Touchpoint{e.Touchpoint, e.Parked} {
				if tp != nil {
					got[tp.ID] = tp.State
				}
			}
		}
	}
	for _, id := range d.pending {
		if l := d.points[id]; l.email == who && l.state.Pending() {
			want[id] = l.state
		}
	}
	if !maps.Equal(got, want) {
		d.fail("%s has the touchpoints %v, want %v", who, got, want)
	}
	totals, err := d.store.Totals(ctx)
	if err != nil {
		d.fail("%v", err)
	}
	var scheduled, accounted, begun, ended uint64
	submissions := map[string]uint64{}
	for _, c := range totals {
		noun, verb, _ := strings.Cut(c.What, ".")
		switch {
		case noun == "submission":
			submissions[verb] += c.N
		case c.What == "touchpoint.scheduled":
			scheduled += c.N
		case c.What == "touchpoint.reopened":
			scheduled -= c.N // it was scheduled twice
		case c.What == "enrollment.started":
			begun += c.N
		case noun == "enrollment":
			ended += c.N
		}
	}
	if !maps.Equal(submissions, d.want) {
		d.fail("submissions are %v, want %v", submissions, d.want)
	}
	counts, err := d.store.Counts(ctx)
	if err != nil {
		d.fail("%v", err)
	}
	for _, n := range counts {
		accounted += n
	}
	if scheduled != accounted {
		d.fail("%d touchpoints were scheduled and %d are accounted for: %v", scheduled, accounted, counts)
	}
	if d.step%20 == 0 { // it reads every lead
		active, err := d.store.Active(ctx)
		if err != nil {
			d.fail("%v", err)
		}
		for _, a := range active {
			ended += uint64(a.N)
		}
		if begun != ended {
			d.fail("%d enrollments began and %d ended or run", begun, ended)
		}
	}
}

// TestDispatchModel drives a real scheduler over a real store file through one random history of submissions,
// signals, opt-outs here and at the provider, pauses, persons' words, erasures, clock jumps, outages, restarts
// and crashes before and after commits and calls, against a provider that fails with effect, without effect,
// late, and shows what it did late. After every step every move on record is held against what the provider
// truly did, the lead's state and the counts against the model, and the promises against the provider's own
// list: at most one effect of a touchpoint for which no person took the blame, none after an opt-out, a pause
// or an erasure that was known when the act began. At the end everything comes to rest. MODEL_SEED repeats a
// history, MODEL_STEPS says how long it is. It runs in fake time, and the file is not synced.
func TestDispatchModel(t *testing.T) {
	steps, seed := boltstore.History(t, 1_500)
	ops := map[string]lodestone.Operation{}
	for _, name := range []string{"first.invite", "first.refer", "second.invite", "second.refer"} {
		ops[name] = lodestone.Operation{Name: strings.Split(name, ".")[1]}
	}
	set, err := rules.Compile([]rules.File{{Name: "r.yaml", Data: []byte(dispatchRules)}}, rules.Options{Operations: ops})
	if err != nil {
		t.Fatal(err)
	}
	var did map[string]int
	effects := 0
	synctest.Test(t, func(t *testing.T) {
		d := &dispatched{
			t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 0)), dir: t.TempDir(), book: sequencer.NewRulebook(set), crashed: make(chan struct{}, 1),
			points: map[string]*ledger{}, submitted: map[string]bool{}, want: map[string]uint64{},
			w: &world{
				seed: seed, tries: map[string]int{}, effects: map[string][]effect{}, fresh: map[string]bool{}, asked: map[string]int{}, outages: map[string]time.Time{},
				optedOut: map[lodestone.Email]time.Time{}, suppressed: map[lodestone.Email]time.Time{}, erased: map[lodestone.Email]time.Time{},
				paused: map[string]time.Time{}, did: map[string]int{},
			},
		}
		d.start()
		defer func() { d.abandon() }()
		for d.step = range steps {
			d.act(d.rng.IntN(1000))
			d.live(time.Duration(d.rng.IntN(int(90 * time.Second))))
			d.compare(lodestone.Email(fmt.Sprintf("lead%d@example.com", d.rng.IntN(40))))
			if d.step%1000 == 999 {
				if _, err := d.store.PruneJournal(context.Background(), d.now().Add(-48*time.Hour)); err != nil {
					d.fail("prune: %v", err)
				}
				if faults, err := d.store.Check(context.Background()); err != nil || len(faults) > 0 {
					d.fail("check: %v %v", err, faults)
				}
			}
		}
		d.rest()
		for _, list := range d.w.effects {
			effects += len(list)
		}
		did = d.w.did
	})
	t.Logf("%d steps, %d effects: %v", steps, effects, did)
}

// rest lets everything come to its end: nothing fails any more, nothing is paused, and time passes.
func (d *dispatched) rest() {
	d.w.mu.Lock()
	d.w.calm = true
	clear(d.w.outages)
	d.w.mu.Unlock()
	for _, scope := range []string{"all", "connector first", "connector second"} {
		known(d.w, d.w.paused, scope, false)
		d.say("/api/v1/resume", api.PauseScope{Scope: scope, By: "test"}, nil)
	}
	d.aheadMu.Lock()
	d.ahead = max(d.ahead, 0) + 24*time.Hour // past whatever was put off by a clock that was ahead
	d.aheadMu.Unlock()
	for range 24 {
		d.live(time.Hour)
	}
	for i := range 40 {
		d.compare(lodestone.Email(fmt.Sprintf("lead%d@example.com", i)))
	}
	for _, id := range d.pending {
		if l := d.points[id]; l.state.Pending() && l.state != lodestone.TouchpointHeld {
			d.fail("%s of %s never came to rest: %s", id, l.email, l.state)
		}
	}
	d.stop()
}
