package simulate_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/internal/replay"
	"github.com/lodestonehq/lodestone/internal/simulate"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/scheduler"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
	"github.com/lodestonehq/lodestone/sequencer"
	"github.com/lodestonehq/lodestone/sequencer/event"
)

const differing = `
forms:
  guide:
    honeypot: website
    quarantine: risk.honeypot
    fields:
      email: {type: email, required: true}
      name: {type: text}
      size: {type: number}
      code: {type: text}
      country: {type: text}
    zone: zone_of_country(fields.country)
scoring:
  bands: {hot: 60, warm: 25, cold: 0}
  rules:
    - {name: business, when: not lead.freemail, points: 20}
    - {name: large, points: 'fields.size >= 100 ? 45 : 0'}
    - {name: again, when: lead.submissions > 1, points: 10, each: true, half_life: 5d}
caps:
  - {max: 2, per: 4d}
sequences:
  hot:
    when: band == "hot"
    priority: 100
    reenter: 3d
    exit: signals.converted
    steps:
      - {name: invite, after: 10m, do: provider.invite, with: {firstName: '${fields.name ?? "there"}'}}
      - {name: credit, after: 1d, do: provider.refer, with: {referralCode: '${fields.code}'}}
      - {name: nudge, cron: "0 9 * * TUE,FRI", when: not signals.opened, do: provider.invite, with: {firstName: there}}
  partner:
    when: fields.code != nil
    priority: 50
    consent: required
    window: {days: mon-fri, from: "09:00", to: "17:00"}
    steps:
      - {name: refer, after: 2h, grace: 12h, do: provider.refer, with: {referralCode: '${fields.code}'}}
      - {name: last, after: 3d, do: provider.invite, with: {firstName: there}}
  letter:
    when: fields.country == "GB"
    priority: 40
    consent: confirmed
    reenter: 6d
    steps:
      - {name: ask, after: 1h, do: provider.invite, with: {firstName: 'Please ${links.confirm}'}, confirm: 6d}
      - {name: remind, after: 2d, when: not signals.opened, do: provider.invite, with: {firstName: 'Please ${links.confirm}'}, confirm: 3d}
      - {name: welcome, after: 2h, cron: "0 9 * * *", do: provider.invite, with: {firstName: '${fields.name ?? "there"}'}}
      - {name: more, after: 1d, grace: 2h, do: provider.refer, with: {referralCode: '${fields.code ?? "none"}'}}
  warm:
    when: band == "warm"
    priority: 10
    holdout: 20%
    reenter: always
    exit: signals.converted or band == "cold"
    zone: America/New_York
    steps:
      - {name: wait, after: 2d, window: {from: "08:00", to: "10:00"}, do: provider.invite, with: {firstName: '${fields.name ?? "there"}'}}
      - name: again
        after: 5d
        grace: 1h
        variants:
          plain: {weight: 2, do: provider.invite, with: {firstName: there}}
          coded: {do: provider.refer, with: {referralCode: '${fields.code ?? "none"}'}}
`

func differingOptions() rules.Options {
	text := func(name string) []lodestone.Parameter {
		return []lodestone.Parameter{{Name: name, Type: lodestone.FieldText, Required: true}}
	}
	return rules.Options{Link: func(name string, email lodestone.Email, _ time.Time) string {
		return "https://forms.example.com/" + name + "/" + string(email)
	}, Operations: map[string]lodestone.Operation{
		"provider.invite": {Name: "invite", Parameters: text("firstName")},
		"provider.refer":  {Name: "refer", Parameters: text("referralCode")},
	}}
}

// bubble is when the clock of a synctest bubble begins.
var bubble = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// history is what happens to one lead: what was submitted before the worker's scheduler starts, what comes
// while it runs, and what the provider answers, try by try.
type history struct {
	email   lodestone.Email
	before  []*nats.Msg
	after   []replay.Record
	answers []rules.Answer
}

var countries = []string{"DE", "US", "JP", "GB", "AU", ""}

// random makes the history of lead n.
func random(r *rand.Rand, n int) history {
	domain := []string{"gmail.com", "big.example", "studio.example"}[r.IntN(3)]
	h := history{email: lodestone.Email(fmt.Sprintf("lead%d@%s", n, domain))}
	for range r.IntN(4) {
		h.answers = append(h.answers, rules.Answers[r.IntN(len(rules.Answers))])
	}
	submission := func(id string, at time.Time, spam bool) []byte {
		fields := map[string]any{"email": string(h.email), "country": countries[r.IntN(len(countries))]}
		if r.IntN(2) == 0 {
			fields["size"] = r.IntN(300)
		}
		if r.IntN(3) == 0 {
			fields["code"] = "ADA2026"
		}
		if r.IntN(2) == 0 {
			fields["name"] = "Ada"
		}
		if spam {
			fields["website"] = "buy"
		}
		var ctx *lodestone.Context
		if r.IntN(2) == 0 {
			ctx = &lodestone.Context{Consent: &lodestone.Consent{Marketing: r.IntN(4) > 0}}
		}
		data, err := event.NewSubmission(id, "test", "guide", at, fields, ctx, r.IntN(10) == 0)
		if err != nil {
			panic(err)
		}
		return data
	}
	header := map[string][]string{"Content-Type": {event.ContentType}}
	for i := range 1 + r.IntN(2) {
		at := bubble.Add(-time.Duration(r.IntN(72)) * time.Hour)
		id := fmt.Sprintf("%d-%d", n, i-r.IntN(2)*i) // now and then a repeat
		h.before = append(h.before, &nats.Msg{Subject: "lodestone.forms.guide", Header: header, Data: submission(id, at, r.IntN(10) == 0)})
	}
	for i := range r.IntN(5) {
		// Leads share their moments, so that the worker has much to do at once; the events of one lead differ by
		// milliseconds, which no touchpoint falls on by itself.
		at := bubble.Add(time.Duration(r.IntN(20*24))*time.Hour + time.Duration(i+1)*time.Millisecond)
		rec := replay.Record{Stream: sequencer.SignalsStream, Message: event.Message{Seq: uint64(1_000_000 + n*10 + i), Time: at}}
		m := &rec.Message
		switch r.IntN(11) {
		case 0, 1, 2, 3:
			rec.Stream = sequencer.FormsStream
			m.Subject, m.Header, m.Data = "lodestone.forms.guide", header, submission(fmt.Sprintf("%d-after-%d", n, i-r.IntN(2)*i), at, false)
		case 4:
			m.Subject = "lodestone.signals.converted"
		case 5:
			m.Subject = "lodestone.signals.opened"
		case 6:
			m.Subject = "lodestone.signals.unsubscribed"
		case 7, 8:
			m.Subject = "lodestone.signals.confirmed"
		case 9:
			m.Subject = "lodestone.signals.withdrawn"
		default:
			rec = replay.Record{Message: event.Message{Time: at}, Suppressed: &lodestone.Suppression{Email: h.email, Reason: "asked", Source: "operator", At: at}}
		}
		if m := &rec.Message; m.Data == nil && rec.Suppressed == nil {
			m.Data = []byte(fmt.Sprintf(`{"email": %q}`, h.email))
		}
		h.after = append(h.after, rec)
	}
	slices.SortStableFunc(h.after, func(a, b replay.Record) int { return a.Message.Time.Compare(b.Message.Time) })
	return h
}

// actor plays the provider from the histories, for the worker and for the simulation alike.
type actor struct {
	answers map[lodestone.Email][]rules.Answer

	mu    sync.Mutex // guards what follows
	tries map[lodestone.Email]int
	now   map[lodestone.Email]rules.Answer
	acts  map[string]rules.Answer // by touchpoint
}

func newActor(hs []history) *actor {
	a := &actor{answers: map[lodestone.Email][]rules.Answer{}, tries: map[lodestone.Email]int{}, now: map[lodestone.Email]rules.Answer{}, acts: map[string]rules.Answer{}}
	for _, h := range hs {
		a.answers[h.email] = h.answers
	}
	return a
}

func (a *actor) check(email lodestone.Email) (connectors.Subscription, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := a.tries[email]
	a.tries[email]++
	a.now[email] = rules.AnswerAccepted
	if list := a.answers[email]; n < len(list) {
		a.now[email] = list[n]
	}
	switch a.now[email] {
	case rules.AnswerUnsubscribed:
		return connectors.Subscription{Unsubscribed: true, Kind: connectors.SuppressionProvider, Evidence: "on its list"}, nil
	case rules.AnswerCheckFailed:
		return connectors.Subscription{}, &connectors.Fault{Class: connectors.Failed, Reason: lodestone.ReasonCheckFailed}
	}
	return connectors.Subscription{Kind: connectors.SuppressionProvider, Evidence: "not on its list"}, nil
}

func (a *actor) do(act connectors.Act) (connectors.Receipt, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.acts[act.ID] = a.now[act.Email]
	fault := func(c connectors.Class, r lodestone.Reason, counts bool, after time.Duration) (connectors.Receipt, error) {
		return connectors.Receipt{}, &connectors.Fault{Class: c, Reason: r, CountsAttempt: counts, RetryAfter: after}
	}
	switch a.now[act.Email] {
	case rules.AnswerRefused:
		return fault(connectors.Refused, lodestone.ReasonRefused, true, 0)
	case rules.AnswerUnavailable:
		return fault(connectors.NotDone, lodestone.ReasonNotDone, true, 0)
	case rules.AnswerRateLimited:
		return fault(connectors.RateLimited, lodestone.ReasonRateLimited, false, 7*time.Second)
	case rules.AnswerTimeout, rules.AnswerTimeoutAbsent, rules.AnswerTimeoutUnclear:
		return fault(connectors.Unknown, lodestone.ReasonNoAnswer, true, 0)
	}
	return connectors.Receipt{Reference: "r", Status: 200}, nil
}

func (a *actor) find(act connectors.Act) (connectors.Finding, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch a.acts[act.ID] {
	case rules.AnswerTimeoutAbsent:
		return connectors.Finding{State: connectors.Absent}, nil
	case rules.AnswerTimeoutUnclear:
		return connectors.Finding{State: connectors.Unclear}, nil
	}
	return connectors.Finding{State: connectors.Found, Reference: "r"}, nil
}

// live is the actor as the scheduler knows it.
type live struct{ *actor }

func (l live) Mine(context.Context, connectors.Act) (string, error) { return "", nil }
func (l live) Reserve(ctx context.Context) (context.Context, func(), error) {
	return ctx, func() {}, nil
}
func (l live) Blocked() (lodestone.Reason, string, time.Time, bool) {
	return "", "", time.Time{}, false
}
func (l live) Do(_ context.Context, act connectors.Act) (connectors.Receipt, error) { return l.do(act) }
func (l live) Find(_ context.Context, act connectors.Act) (connectors.Finding, error) {
	return l.find(act)
}
func (l live) Unsubscribed(_ context.Context, e lodestone.Email) (connectors.Subscription, error) {
	return l.check(e)
}

// played is the actor as a simulation knows it.
type played struct{ *actor }

func (p played) Do(c simulate.Call) (connectors.Receipt, error)   { return p.do(c.Act) }
func (p played) Find(c simulate.Call) (connectors.Finding, error) { return p.find(c.Act) }
func (p played) Unsubscribed(c simulate.Call) (connectors.Subscription, error) {
	return p.check(c.Email)
}

// TestTheWorkerAndTheSimulationDecideAlike lets random histories happen twice: to a worker's parts, whose
// submissions come through the real broker into a real store and whose scheduler then runs in a bubble of
// fake time on the same file, and to a simulation. Everything that goes on record must be the same, entry
// for entry: decisions, verdicts, states, reasons and times.
func TestTheWorkerAndTheSimulationDecideAlike(t *testing.T) {
	leads := 10_000
	if testing.Short() {
		leads = 300
	}
	const batch = 2_500
	for first := 0; first < leads; first += batch {
		seed := uint64(first + 1)
		n := min(batch, leads-first)
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Logf("seed %d, %d histories", seed, n)
			differ(t, rand.New(rand.NewPCG(seed, 2)), n)
		})
	}
}

func differ(t *testing.T, r *rand.Rand, n int) {
	hs := make([]history, n)
	for i := range hs {
		hs[i] = random(r, i)
	}
	set, err := rules.Compile([]rules.File{{Name: "rules.yaml", Data: []byte(differing)}}, differingOptions())
	if err != nil {
		t.Fatal(err)
	}
	book := sequencer.NewRulebook(set)
	dir := t.TempDir()
	store, err := boltstore.Open(filepath.Join(dir, "data"), boltstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	past := intake(t, dir, store, book, hs)
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	work(t, filepath.Join(dir, "data"), book, hs)

	got := map[lodestone.Email][]string{}
	store, err = boltstore.Open(filepath.Join(dir, "data"), boltstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	records, came := 0, map[string]int{}
	for after := uint64(0); ; {
		entries, err := store.Journal(t.Context(), after, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) == 0 {
			break
		}
		for i := range entries {
			after = entries[i].Seq
			got[entries[i].Lead] = append(got[entries[i].Lead], normal(&entries[i]))
			records++
			for _, n := range entries[i].Touchpoints {
				came[string(n.State)+" "+string(n.Reason)]++
			}
		}
	}
	want := simulated(t, book, past, hs)
	different := 0
	for _, h := range hs {
		a, b := got[h.email], want[h.email]
		if slices.Equal(a, b) {
			continue
		}
		if different++; different > 3 {
			continue
		}
		i := 0
		for i < min(len(a), len(b)) && a[i] == b[i] {
			i++
		}
		t.Errorf("lead %s, answers %q: entry %d differs\n    worker %s\nsimulation %s", h.email, h.answers, i, at(a, i), at(b, i))
	}
	if different > 0 {
		t.Errorf("%d of %d leads differ", different, n)
	}
	// What the histories must have met to say something.
	for _, must := range []string{
		"sent accepted", "sent found", "failed refused", "failed bad_parameters", "held unclear", "scheduled absent", "scheduled not_done",
		"scheduled rate_limited", "scheduled check_failed", "skipped unsubscribed", "skipped suppressed", "skipped no_consent",
		"skipped condition_false", "skipped stale", "skipped holdout", "scheduled capped", "scheduled outside_window", "cancelled superseded", "cancelled converted",
		"scheduled awaiting_confirmation", "scheduled address_confirmed", "skipped already_confirmed", "cancelled unconfirmed",
	} {
		if came[must] == 0 {
			t.Errorf("no touchpoint ever came to %q; all of them: %v", must, came)
		}
	}
	t.Logf("%d entries of %d leads, touchpoints %v", records, n, came)
}

func at(list []string, i int) string {
	if i < len(list) {
		return list[i]
	}
	return "(nothing)"
}

// normal is an entry as text, without what only a store has: numbers, and how long a call took. The moments
// before the bubble are those of this machine's clock.
func normal(e *lodestone.Entry) string {
	c := *e
	c.Seq, c.Prev = 0, 0
	if c.At.Year() != bubble.Year() {
		c.At = bubble
	}
	c.Touchpoints = slices.Clone(c.Touchpoints)
	for i := range c.Touchpoints {
		c.Touchpoints[i].Took = 0
	}
	text, err := json.Marshal(&c)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// intake publishes what comes before the bubble and applies it through the real broker. It returns it as the
// stream holds it.
func intake(t *testing.T, dir string, store *boltstore.Store, book *sequencer.Rulebook, hs []history) (past []replay.Record) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b, err := broker.Open(ctx, broker.Options{Listen: "none", Dir: filepath.Join(dir, "jetstream"), MaxStore: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.EnsureStreams(ctx); err != nil {
		t.Fatal(err)
	}
	var msgs []*nats.Msg
	for i := range hs {
		msgs = append(msgs, hs[i].before...)
	}
	for chunk := range slices.Chunk(msgs, 500) {
		if err := b.PublishBatch(ctx, chunk); err != nil {
			t.Fatal(err)
		}
	}
	in := sequencer.NewIntake(sequencer.Config{JetStream: b.JetStream(), Stream: sequencer.FormsStream, Store: store, Rulebook: func() *sequencer.Rulebook { return book }})
	if err := in.Open(ctx); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- in.Run(ctx) }()
	<-in.CaughtUp()
	_, src, err := replay.Open(ctx, store, b.JetStream(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := src(ctx, func(r *replay.Record) error { past = append(past, *r); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(past) != len(msgs) {
		t.Fatalf("the stream holds %d messages, want %d", len(past), len(msgs))
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return past
}

// end is when both stop.
var end = bubble.Add(60 * 24 * time.Hour)

func account() scheduler.Account {
	a := simulate.Accounts(differingOptions())["provider"]
	a.Concurrency, a.Timeout, a.Attempts = 64, 10*time.Second, 3
	return a
}

// work runs a scheduler in a bubble, and commits events as they come, all leads' of one moment together.
func work(t *testing.T, dir string, book *sequencer.Rulebook, hs []history) {
	t.Helper()
	type moment struct {
		at     time.Time
		events []simulate.Event
	}
	moments := map[int64]*moment{}
	for i := range hs {
		for j := range hs[i].after {
			ev := comes(t, &hs[i].after[j], book)
			k := ev.At.UnixNano()
			if moments[k] == nil {
				moments[k] = &moment{at: ev.At}
			}
			moments[k].events = append(moments[k].events, ev)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		store, err := boltstore.Open(dir, boltstore.Options{})
		if err != nil {
			t.Fatal(err)
		}
		a := account()
		a.Provider = live{newActor(hs)}
		s := scheduler.New(scheduler.Config{
			Store: store, Rulebook: func() *sequencer.Rulebook { return book }, Accounts: map[string]scheduler.Account{"provider": a}, Pace: scheduler.Longest,
		})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		for _, k := range slices.Sorted(maps.Keys(moments)) {
			m := moments[k]
			time.Sleep(time.Until(m.at))
			synctest.Wait()
			var b sequencer.Batch
			for _, ev := range m.events {
				b.Writes = append(b.Writes, sequencer.Write{Email: ev.Email, Plan: func(st sequencer.State) (sequencer.Change, error) {
					return sequencer.Plan(st.Lead, ev.Event, book, time.Now().UTC())
				}})
			}
			results, err := store.Commit(ctx, b)
			if err != nil {
				t.Fatal(err)
			}
			for i := range results {
				if results[i].Err != nil {
					t.Fatal(results[i].Err)
				}
				s.Notify(&results[i].Change)
			}
		}
		time.Sleep(time.Until(end))
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		faults, err := store.Check(context.Background())
		if err != nil || len(faults) > 0 {
			t.Error(faults, err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
}

// comes decodes a record as intake does.
func comes(t *testing.T, r *replay.Record, book *sequencer.Rulebook) simulate.Event {
	t.Helper()
	if r.Suppressed != nil {
		return simulate.Event{At: r.Message.Time, Email: r.Suppressed.Email, Event: sequencer.Suppressed{Suppression: *r.Suppressed}}
	}
	ev, email, rejected := sequencer.Decode(r.Stream, &r.Message, book)
	if rejected != nil {
		t.Fatal(rejected)
	}
	return simulate.Event{At: r.Message.Time, Email: email, Event: ev}
}

// simulated lets the same happen in a simulation and returns what would be on record.
func simulated(t *testing.T, book *sequencer.Rulebook, past []replay.Record, hs []history) map[lodestone.Email][]string {
	t.Helper()
	out := map[lodestone.Email][]string{}
	w := &simulate.World{
		Book: book, Accounts: map[string]scheduler.Account{"provider": account()}, Provider: played{newActor(hs)},
		Committed: func(l *simulate.Lead, c *sequencer.Change) {
			if c.Entry != nil {
				out[l.Email] = append(out[l.Email], normal(c.Entry))
			}
		},
	}
	var events []simulate.Event
	for i := range past {
		ev := comes(t, &past[i], book)
		ev.At = bubble // the scheduler starts when intake has caught up
		events = append(events, ev)
	}
	for i := range hs {
		for j := range hs[i].after {
			events = append(events, comes(t, &hs[i].after[j], book))
		}
	}
	slices.SortStableFunc(events, func(a, b simulate.Event) int { return cmp.Compare(a.At.UnixNano(), b.At.UnixNano()) })
	if err := w.Run(map[lodestone.Email]*simulate.Lead{}, events, end, 1<<40); err != nil {
		t.Fatal(err)
	}
	return out
}
