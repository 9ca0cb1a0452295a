package sequencer_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/sequencer"
)

// ruleFile is small enough to reason about and uses every feature that planning knows.
const ruleFile = `
forms:
  guide:
    fields:
      email: {type: email, required: true}
      first_name: {type: text}
      size: {type: number}
      code: {type: text}
    zone: context.timezone
  news:
    fields:
      email: {type: email, required: true}
scoring:
  bands: {hot: 60, warm: 30, cold: 0}
  rules:
    - name: size
      points: 'fields.size >= 1000 ? 60 : fields.size >= 100 ? 30 : 0'
    - name: again
      when: lead.submissions > 1
      points: 5
      each: true
      half_life: 30d
    - name: broken
      when: 'int(fields.first_name) > 3'
      points: 1000
sequences:
  hot:
    when: band == "hot" and form == "guide"
    priority: 100
    consent: required
    reenter: 90d
    exit: signals.converted
    steps:
      - {name: invite, after: 10m, do: referralrock.invite, with: {firstName: '${fields.first_name ?? "there"}'}}
      - {name: refer, after: 2d, when: fields.code != nil, do: referralrock.refer, with: {referralCode: '${fields.code}'}}
  warm:
    when: band != "cold"
    priority: 50
    steps:
      - {name: invite, do: referralrock.invite, with: {firstName: there}}
  anyone:
    when: form == "news"
    priority: 50
    reenter: always
    steps:
      - {name: hello, do: referralrock.invite, with: {firstName: there}}
`

// operations are those that ruleFile uses.
var operations = map[string]lodestone.Operation{
	"referralrock.invite": {Name: "referralrock.invite", Parameters: []lodestone.Parameter{
		{Name: "firstName", Type: lodestone.FieldText, Required: true}, {Name: "email", Type: lodestone.FieldEmail, Required: true},
	}},
	"referralrock.refer": {Name: "referralrock.refer", Parameters: []lodestone.Parameter{
		{Name: "referralCode", Type: lodestone.FieldText, Required: true}, {Name: "email", Type: lodestone.FieldEmail},
	}},
}

func compile(t testing.TB, text string) *rules.Set {
	t.Helper()
	set, err := rules.Compile([]rules.File{{Name: "rules.yaml", Data: []byte(text)}}, rules.Options{Operations: operations})
	if err != nil {
		t.Fatalf("rule files: %v", err)
	}
	return set
}

var start = time.Date(2026, 3, 6, 10, 0, 0, 0, time.UTC)

func submission(id, form string, at time.Time, fields map[string]any) lodestone.Submission {
	if fields == nil {
		fields = map[string]any{}
	}
	fields["email"] = "ada@example.com"
	return lodestone.Submission{ID: id, Form: form, Email: "ada@example.com", Fields: lodestone.FieldsOf(fields), At: at, Received: at}
}

// world plans one lead's events one after the other.
type world struct {
	t    testing.TB
	book *sequencer.Rulebook
	lead *lodestone.Lead
	last sequencer.Change
}

func (w *world) plan(ev sequencer.Event, now time.Time) *lodestone.Entry {
	w.t.Helper()
	c, err := sequencer.Plan(w.lead, ev, w.book, now)
	if err != nil {
		w.t.Fatalf("Plan(%T) = %v", ev, err)
	}
	if c.Lead != nil {
		w.lead = c.Lead
	}
	w.last = c
	return c.Entry
}

func (w *world) submit(id, form string, at time.Time, fields map[string]any) *lodestone.Decision {
	w.t.Helper()
	return w.plan(&sequencer.Submitted{Submission: submission(id, form, at, fields)}, at).Decision
}

func (w *world) touchpoint() *lodestone.Touchpoint {
	w.t.Helper()
	e := w.lead.Active()
	if e == nil || e.Touchpoint == nil {
		w.t.Fatal("the lead has no pending touchpoint")
	}
	return e.Touchpoint
}

// finish takes the pending touchpoint to an end.
func (w *world) finish(to lodestone.TouchpointState, at time.Time) {
	w.t.Helper()
	id := w.touchpoint().ID
	w.plan(sequencer.Moved{Touchpoint: id, From: lodestone.TouchpointScheduled, To: lodestone.TouchpointIntended}, at)
	w.plan(sequencer.Moved{Touchpoint: id, From: lodestone.TouchpointIntended, To: to, Reason: lodestone.ReasonAccepted}, at)
}

func newWorld(t testing.TB) *world {
	return &world{t: t, book: sequencer.NewRulebook(compile(t, ruleFile))}
}

func TestEnrollmentRunsItsSteps(t *testing.T) {
	w := newWorld(t)
	d := w.submit("1", "guide", start, map[string]any{"size": 1500.0, "code": "ADA"})
	if d.Reason != lodestone.ReasonEnrolled || d.Score != 60 || d.Band != "hot" {
		t.Fatalf("decision = %s, score %d, band %s; want enrolled, 60, hot", d.Reason, d.Score, d.Band)
	}
	if len(d.Faults) != 0 {
		t.Errorf("faults = %v; a comparison with an absent field is false, not a fault", d.Faults)
	}
	tp := w.touchpoint()
	if want := start.Add(10 * time.Minute); !tp.DueAt.Equal(want) || tp.Step != "invite" {
		t.Fatalf("first touchpoint = %s at %v, want invite at %v", tp.Step, tp.DueAt, want)
	}
	first, sent := tp.ID, start.Add(11*time.Minute)
	w.finish(lodestone.TouchpointSent, sent)
	tp = w.touchpoint()
	if want := sent.Add(48 * time.Hour); !tp.DueAt.Equal(want) || tp.Step != "refer" || tp.ID == first {
		t.Fatalf("second touchpoint = %+v, want refer at %v under another id", tp, want)
	}
	w.finish(lodestone.TouchpointSent, sent.Add(49*time.Hour))
	if w.lead.Active() != nil || len(w.lead.Enrollments) != 0 {
		t.Fatalf("enrollments = %+v, want none after the last step", w.lead.Enrollments)
	}
	if got := w.last.Entry.Enrollments; len(got) != 1 || got[0].State != lodestone.EnrollmentCompleted {
		t.Errorf("recorded %+v, want the enrollment completed", got)
	}
}

func TestAssignment(t *testing.T) {
	hot := map[string]any{"size": 1500.0}
	warm := map[string]any{"size": 150.0}
	for _, tc := range []struct {
		name   string
		before func(w *world)
		form   string
		fields map[string]any
		at     time.Duration
		want   lodestone.Reason
		active string
	}{
		{"nothing matches", nil, "guide", nil, 0, lodestone.ReasonNoSequence, ""},
		{"the highest priority wins", nil, "guide", hot, 0, lodestone.ReasonEnrolled, "hot"},
		{"the other one matches", nil, "guide", warm, 0, lodestone.ReasonEnrolled, "warm"},
		{"the same sequence changes nothing", func(w *world) { w.submit("0", "guide", start, map[string]any{"size": 150.0}) },
			"guide", warm, time.Hour, lodestone.ReasonAlreadyEnrolled, "warm"},
		{"a higher priority supersedes", func(w *world) { w.submit("0", "guide", start, map[string]any{"size": 150.0}) },
			"guide", hot, time.Hour, lodestone.ReasonEnrolled, "hot"},
		{"an equal priority loses", func(w *world) { w.submit("0", "news", start, nil) },
			"guide", warm, time.Hour, lodestone.ReasonBusy, "anyone"},
		{"a lower priority loses", func(w *world) { w.submit("0", "guide", start, map[string]any{"size": 1500.0}) },
			"news", nil, time.Hour, lodestone.ReasonBusy, "hot"},
		{"never again", func(w *world) {
			w.submit("0", "guide", start, map[string]any{"size": 150.0})
			w.finish(lodestone.TouchpointSent, start)
		}, "guide", warm, 400 * 24 * time.Hour, lodestone.ReasonNotReentered, ""},
		{"always again", func(w *world) { w.submit("0", "news", start, nil); w.finish(lodestone.TouchpointSent, start) },
			"news", nil, time.Minute, lodestone.ReasonEnrolled, "anyone"},
		{"too early to enter again", func(w *world) {
			w.submit("0", "guide", start, map[string]any{"size": 1500.0})
			w.finish(lodestone.TouchpointSent, start)
			w.finish(lodestone.TouchpointSkipped, start)
			w.lead.Past = append(w.lead.Past, lodestone.PastEnrollment{Sequence: "warm", EndedAt: start})
		}, "guide", hot, 89 * 24 * time.Hour, lodestone.ReasonNotReentered, ""},
		{"late enough to enter again", func(w *world) {
			w.submit("0", "guide", start, map[string]any{"size": 1500.0})
			w.finish(lodestone.TouchpointSent, start)
			w.finish(lodestone.TouchpointSkipped, start)
		}, "guide", hot, 90 * 24 * time.Hour, lodestone.ReasonEnrolled, "hot"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			if tc.before != nil {
				tc.before(w)
			}
			d := w.submit("9", tc.form, start.Add(tc.at), tc.fields)
			if d.Reason != tc.want {
				t.Errorf("reason = %s, want %s (candidates %+v)", d.Reason, tc.want, d.Candidates)
			}
			active := ""
			if e := w.lead.Active(); e != nil {
				active = e.Sequence
			}
			if active != tc.active {
				t.Errorf("active = %q, want %q", active, tc.active)
			}
			if len(d.Candidates) != 3 {
				t.Errorf("%d candidates on record, want every sequence's verdict: %+v", len(d.Candidates), d.Candidates)
			}
		})
	}
}

func TestDuplicateSubmissionChangesNothing(t *testing.T) {
	w := newWorld(t)
	w.submit("same", "guide", start, map[string]any{"size": 1500.0})
	before := *w.lead
	d := w.submit("same", "guide", start.Add(6*24*time.Hour), map[string]any{"size": 1500.0})
	if d.Reason != lodestone.ReasonDuplicate || w.lead.Submissions != 1 || w.lead.Enrolled != before.Enrolled {
		t.Fatalf("decision %s, %d submissions, %d enrollments; want duplicate, 1, %d", d.Reason, w.lead.Submissions, w.lead.Enrolled, before.Enrolled)
	}
	if d := w.submit("same", "guide", start.Add(7*24*time.Hour), nil); d.Reason != lodestone.ReasonDuplicate {
		t.Errorf("after seven days: %s, want duplicate", d.Reason)
	}
}

func TestBackfillEnrollsNobody(t *testing.T) {
	w := newWorld(t)
	sub := submission("1", "guide", start, map[string]any{"size": 1500.0})
	sub.Backfill = true
	d := w.plan(&sequencer.Submitted{Submission: sub}, start).Decision
	if d.Reason != lodestone.ReasonBackfill || d.Score != 60 || w.lead.Active() != nil {
		t.Errorf("decision %s, score %d, enrollments %v; want backfill, 60, none", d.Reason, d.Score, w.lead.Enrollments)
	}
}

func TestExitCancelsWhatWaits(t *testing.T) {
	w := newWorld(t)
	w.submit("1", "guide", start, map[string]any{"size": 1500.0})
	e := w.plan(sequencer.Signalled{Signal: lodestone.Signal{ID: "s", Kind: lodestone.SignalConverted, Email: "ada@example.com", At: start.Add(time.Minute)}}, start.Add(time.Minute))
	if len(e.Touchpoints) != 1 || e.Touchpoints[0].State != lodestone.TouchpointCancelled || e.Touchpoints[0].Reason != lodestone.ReasonConverted {
		t.Errorf("touchpoints = %+v, want the invite cancelled as converted", e.Touchpoints)
	}
	if w.lead.Active() != nil {
		t.Error("the enrollment is still active")
	}
}

// A call that is out when its enrollment ends is settled like any other, and when it turns out not to
// have happened it is not tried again.
func TestOutstandingTouchpointOutlivesItsEnrollment(t *testing.T) {
	w := newWorld(t)
	w.submit("1", "guide", start, map[string]any{"size": 150.0})
	id := w.touchpoint().ID
	w.plan(sequencer.Moved{Touchpoint: id, From: lodestone.TouchpointScheduled, To: lodestone.TouchpointIntended}, start)
	w.submit("2", "guide", start.Add(time.Second), map[string]any{"size": 1500.0})
	if e, tp := w.lead.Touchpoint(id); tp == nil || tp.State != lodestone.TouchpointIntended || e.State != lodestone.EnrollmentSuperseded {
		t.Fatalf("touchpoint %+v of %+v, want intended in a superseded enrollment", tp, e)
	}
	entry := w.plan(sequencer.Moved{Touchpoint: id, From: lodestone.TouchpointIntended, To: lodestone.TouchpointScheduled, DueAt: start.Add(time.Minute)}, start.Add(2*time.Second))
	if got := entry.Touchpoints[0]; got.State != lodestone.TouchpointCancelled || got.Reason != lodestone.ReasonSuperseded {
		t.Errorf("touchpoint ended %s (%s), want cancelled (superseded)", got.State, got.Reason)
	}
	if len(w.lead.Enrollments) != 1 || w.lead.Active().Sequence != "hot" {
		t.Errorf("enrollments = %+v, want the hot one alone", w.lead.Enrollments)
	}
}

func TestAFailingRuleIsNamedAndStopsNothing(t *testing.T) {
	w := newWorld(t)
	d := w.submit("1", "guide", start, map[string]any{"size": 1500.0, "first_name": "not a number"})
	if len(d.Faults) != 1 || d.Faults[0].Rule != "broken" {
		t.Fatalf("faults = %+v, want the rule broken named", d.Faults)
	}
	if d.Score != 60 || d.Reason != lodestone.ReasonEnrolled {
		t.Errorf("score %d, %s; the other rules must count", d.Score, d.Reason)
	}
}

func TestMovedRefusesAnotherState(t *testing.T) {
	w := newWorld(t)
	w.submit("1", "guide", start, map[string]any{"size": 150.0})
	id := w.touchpoint().ID
	_, err := sequencer.Plan(w.lead, sequencer.Moved{Touchpoint: id, From: lodestone.TouchpointIntended, To: lodestone.TouchpointSent}, w.book, start)
	if err != sequencer.ErrMoved {
		t.Errorf("Plan = %v, want ErrMoved", err)
	}
}

func TestOldVersionGoesOn(t *testing.T) {
	w := newWorld(t)
	w.submit("1", "guide", start, map[string]any{"size": 1500.0, "code": "ADA"})
	old := w.book.Current()
	changed := compile(t, strings.ReplaceAll(ruleFile, "after: 2d", "after: 5d"))
	if changed.Sequence("hot").Version == old.Sequence("hot").Version {
		t.Fatal("the sequence's version did not change")
	}
	w.book = sequencer.NewRulebook(changed, old)
	sent := start.Add(time.Hour)
	w.finish(lodestone.TouchpointSent, sent)
	if got, want := w.touchpoint().DueAt, sent.Add(48*time.Hour); !got.Equal(want) {
		t.Errorf("the next touchpoint is due at %v, want %v as the version it began with says", got, want)
	}
}

func TestEachLinesStayBounded(t *testing.T) {
	w := newWorld(t)
	for i := range 500 {
		w.submit(fmt.Sprint(i), "news", start.Add(time.Duration(i)*time.Hour), nil)
	}
	if n := len(w.lead.Ledger); n > 70 {
		t.Errorf("the ledger has %d lines", n)
	}
	var want float64
	for i := 1; i < 500; i++ {
		want += lodestone.Line{Points: 5, At: start.Add(time.Duration(i) * time.Hour), HalfLife: 30 * 24 * time.Hour}.Faded(start.Add(499 * time.Hour))
	}
	if got := lodestone.Score(w.lead.Ledger, start.Add(499*time.Hour)); got != lodestone.RoundScore(want) {
		t.Errorf("score = %d, want %v: lines that became one must sum to the same", got, want)
	}
}

// A form that never asked for the company's size takes nothing of what another form's answer earned; one
// that asked and heard a small number does.
func TestAFormThatDidNotAskTakesNothingAway(t *testing.T) {
	w := newWorld(t)
	w.submit("1", "guide", start, map[string]any{"size": 1500.0})
	if d := w.submit("2", "news", start.Add(time.Hour), nil); d.Score != 65 {
		t.Errorf("after another form: score %d, want 60 and 5 for asking again", d.Score)
	}
	if d := w.submit("3", "guide", start.Add(2*time.Hour), map[string]any{"size": 10.0}); d.Score != 10 {
		t.Errorf("after a smaller answer: score %d, want 10", d.Score)
	}
}

// What comes late, an import of old leads say, fills what is not known and takes back nothing of what
// was said since: above all not a refusal.
func TestLateSubmissionTakesNothingBack(t *testing.T) {
	for _, backfill := range []bool{false, true} {
		w := newWorld(t)
		refusal := submission("2", "guide", start, map[string]any{"size": 2000.0})
		refusal.Context.Consent = &lodestone.Consent{Marketing: false}
		w.plan(&sequencer.Submitted{Submission: refusal}, start)
		old := submission("1", "guide", start.AddDate(-1, 0, 0), map[string]any{"size": 150.0, "code": "ADA"})
		old.Received, old.Backfill = start.Add(time.Hour), backfill
		old.Context = lodestone.Context{Consent: &lodestone.Consent{Marketing: true}, Timezone: "Europe/Berlin"}
		w.plan(&sequencer.Submitted{Submission: old}, start.Add(time.Hour))
		if w.lead.Consent.Marketing {
			t.Errorf("backfill %v: a refusal was overwritten by an older consent", backfill)
		}
		if w.lead.Profile.Value("size") != 2000.0 || w.lead.Profile.Value("code") != "ADA" {
			t.Errorf("backfill %v: profile = %v, want the newer size and the only code", backfill, w.lead.Profile)
		}
		if got := lodestone.Score(w.lead.Ledger, start); got < 60 {
			t.Errorf("backfill %v: score %d, want the newer line kept", backfill, got)
		}
		if w.lead.Zone != "Europe/Berlin" {
			t.Errorf("backfill %v: zone %q, want the only one known", backfill, w.lead.Zone)
		}
	}
}

func TestRememberedIDsStayBounded(t *testing.T) {
	w := newWorld(t)
	w.submit("0", "news", start, nil)
	for i := range 20_000 {
		w.lead.Recent = append(w.lead.Recent, lodestone.RecentID{Hash: uint64(i), Day: int32(start.Unix() / 86400)})
	}
	w.submit("1", "news", start, nil)
	if n := len(w.lead.Recent); n > 10_000 {
		t.Errorf("%d ids are remembered", n)
	}
	if d := w.submit("1", "news", start, nil); d.Reason != lodestone.ReasonDuplicate {
		t.Errorf("the newest id was forgotten: %s", d.Reason)
	}
}

// timedSequence uses what splits, limits and times a sequence, and what waits for a confirmation.
const timedSequence = `  timed:
    when: form == "news" and fields.first_name == nil
    priority: 200
    reenter: 30d
    exit: signals.replied or days_since(signals_at.opened) > 30
    zone: America/New_York
    window: {days: mon-fri, from: "22:00", to: "04:00"}
    holdout: 20%
    brake: {enrollments: 3, per: 1h}
    variants:
      long: {weight: 2}
      short: {steps: [{name: only, cron: 0 9 * * *, grace: 1d, do: referralrock.invite, with: {firstName: a}}]}
    steps:
      - {name: one, after: 1d, cron: 0 3 * * TUE, do: referralrock.invite, with: {firstName: a}, confirm: 30d}
      - name: two
        do: referralrock.invite
        with: {firstName: a}
        variants: {x: {}, y: {with: {firstName: y}}}
  warm:
`

// TestPlanProperties plans random histories and holds Plan to what it promises whatever comes.
func TestPlanProperties(t *testing.T) {
	book := sequencer.NewRulebook(compile(t, strings.Replace(ruleFile, "  warm:\n", timedSequence, 1)))
	rapid.Check(t, func(t *rapid.T) {
		var lead *lodestone.Lead
		planned, ended := map[string]int{}, map[string]int{}
		var optOuts []time.Time // and bounces, of which a lead does not say whether they were hard
		now := start
		for i := range rapid.IntRange(1, 25).Draw(t, "events") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(100*24*time.Hour)).Draw(t, "later")))
			ev := drawEvent(t, i, lead, now)
			before := marshal(t, lead)
			a, errA := sequencer.Plan(lead, ev, book, now)
			if after := marshal(t, lead); !bytes.Equal(before, after) {
				t.Fatalf("%T changed the lead that was passed in", ev)
			}
			b, errB := sequencer.Plan(lead, ev, book, now)
			if errA != errB || describe(t, a) != describe(t, b) {
				t.Fatalf("the same %T gave two changes:\n%s\n%s", ev, describe(t, a), describe(t, b))
			}
			if errA != nil {
				continue
			}
			if sub, ok := ev.(*sequencer.Submitted); ok {
				if a.Entry == nil || a.Entry.Decision == nil || a.Entry.Decision.Reason == "" || a.Entry.Decision.Submission != sub.ID {
					t.Fatalf("submission %s yielded no decision with a reason: %+v", sub.ID, a.Entry)
				}
				if d := a.Entry.Decision; d.Reason != lodestone.ReasonDuplicate && d.Score != lodestone.Score(a.Lead.Ledger, sub.At) {
					t.Fatalf("score %d, the ledger sums to %d", d.Score, lodestone.Score(a.Lead.Ledger, sub.At))
				}
			}
			if a.Lead != nil {
				lead = a.Lead
			}
			active := 0
			for _, e := range lead.Enrollments {
				if e.State == lodestone.EnrollmentActive {
					active++
				} else if e.Touchpoint == nil {
					t.Fatalf("an enrollment that is over was kept: %+v", e)
				}
			}
			for i := 1; i < len(lead.Contacts); i++ {
				if lead.Contacts[i].Before(lead.Contacts[i-1]) {
					t.Fatalf("contacts are out of order: %v", lead.Contacts)
				}
			}
			if e := lead.Active(); e != nil && e.Sequence == "timed" && e.Touchpoint != nil && e.Touchpoint.State == lodestone.TouchpointScheduled && e.Touchpoint.Attempts+e.Touchpoint.Delays == 0 && e.Awaits == nil {
				q := book.Current().Sequence("timed")
				if w := q.WindowOf(q.Find(e.Variant, e.Touchpoint.Step)); !w.Contains(e.Touchpoint.PlannedAt, sequencer.ZoneOf(q, lead)) {
					t.Fatalf("%s is planned at %s, outside of %s", e.Touchpoint.Step, e.Touchpoint.PlannedAt, w)
				}
			}
			if sig, ok := ev.(sequencer.Signalled); optsOut(ev) || ok && sig.Signal.Kind == lodestone.SignalBounced {
				optOuts = append(optOuts, now)
			}
			if e := lead.Active(); e != nil && e.Touchpoint != nil && e.Touchpoint.Reason == lodestone.ReasonAwaiting {
				// It is due at the deadline. Only where they opted out since the enrollment began it is due before, once
				// they did, and at once where it waited already.
				due := e.Touchpoint.DueAt
				since := func(at time.Time) bool { return !at.Before(e.StartedAt) && !due.Before(at) }
				switch {
				case e.Awaits == nil || due.After(e.Awaits.Until),
					due.Before(e.Awaits.Until) && !slices.ContainsFunc(optOuts, since),
					optsOut(ev) && due.After(now):
					t.Fatalf("%s waits for a confirmation until %s: %+v, opted out at %v", e.Touchpoint.Step, due, e.Awaits, optOuts)
				}
			}
			if active > 1 {
				t.Fatalf("%d active enrollments", active)
			}
			if a.Entry == nil {
				continue
			}
			for _, tp := range a.Entry.Touchpoints {
				if tp.Reason == lodestone.ReasonPlanned {
					planned[tp.ID]++
				}
				if !tp.State.Pending() {
					ended[tp.ID]++
				}
			}
		}
		pending := map[string]bool{}
		for _, e := range lead.Enrollments {
			if e.Touchpoint != nil {
				pending[e.Touchpoint.ID] = true
			}
		}
		for id, n := range planned {
			if n != 1 {
				t.Fatalf("touchpoint %s came into being %d times", id, n)
			}
			if over := ended[id]; over > 1 || over == 1 && pending[id] || over == 0 && !pending[id] {
				t.Fatalf("touchpoint %s ended %d times and is pending: %v", id, over, pending[id])
			}
		}
	})
}

// optsOut reports whether an event says that the lead wants to hear nothing more.
func optsOut(ev sequencer.Event) bool {
	switch ev := ev.(type) {
	case sequencer.Signalled:
		return ev.Signal.Suppresses()
	case sequencer.Suppressed:
		return !ev.Removed
	}
	return false
}

func drawEvent(t *rapid.T, i int, lead *lodestone.Lead, now time.Time) sequencer.Event {
	kinds := []string{"submit", "submit", "signal", "move", "move", "move", "suppress", "brake"}
	if lead == nil {
		kinds = kinds[:1]
	}
	switch rapid.SampledFrom(kinds).Draw(t, "kind") {
	case "submit":
		id := rapid.SampledFrom([]string{fmt.Sprint("id", i), "again"}).Draw(t, "id")
		fields := map[string]any{}
		if rapid.Bool().Draw(t, "sized") {
			fields["size"] = float64(rapid.IntRange(0, 2000).Draw(t, "size"))
		}
		if rapid.Bool().Draw(t, "named") {
			fields["first_name"] = rapid.SampledFrom([]string{"7", "Ada"}).Draw(t, "name")
		}
		sub := submission(id, rapid.SampledFrom([]string{"guide", "news"}).Draw(t, "form"), now.Add(-time.Duration(rapid.IntRange(0, 1000).Draw(t, "age"))*time.Hour), fields)
		sub.Received = now
		sub.Backfill = rapid.IntRange(0, 9).Draw(t, "backfill") == 0
		started := rapid.IntRange(0, 5).Draw(t, "started")
		return &sequencer.Submitted{Submission: sub, Starts: func(string, time.Time) int { return started }}
	case "brake":
		ev := sequencer.Braked{Touchpoint: "none", Undo: rapid.Bool().Draw(t, "undo")}
		for _, e := range lead.Enrollments {
			if e.Touchpoint != nil {
				ev.Touchpoint = e.Touchpoint.ID
			}
		}
		return ev
	case "signal":
		return sequencer.Signalled{Signal: lodestone.Signal{
			ID: fmt.Sprint("signal", i), Email: "ada@example.com", At: now, Received: now,
			Kind: rapid.SampledFrom(lodestone.SignalKinds).Draw(t, "signal"), Detail: map[string]any{"hard": rapid.Bool().Draw(t, "hard")},
		}}
	case "suppress":
		return sequencer.Suppressed{Suppression: lodestone.Suppression{Email: "ada@example.com", At: now}, Removed: rapid.Bool().Draw(t, "removed")}
	}
	m := sequencer.Moved{Touchpoint: "none", From: lodestone.TouchpointScheduled, To: lodestone.TouchpointSent, Reason: lodestone.ReasonAccepted, DueAt: now.Add(time.Hour)}
	var open []*lodestone.Touchpoint
	for i := range lead.Enrollments {
		if tp := lead.Enrollments[i].Touchpoint; tp != nil {
			open = append(open, tp)
		}
	}
	if len(open) > 0 {
		tp := rapid.SampledFrom(open).Draw(t, "touchpoint")
		m.Touchpoint, m.From = tp.ID, tp.State
		m.To = rapid.SampledFrom(lodestone.TouchpointStates).Draw(t, "to")
		if m.To != lodestone.TouchpointScheduled && rapid.IntRange(0, 4).Draw(t, "ends") == 0 {
			m.Ends = lodestone.EnrollmentUnsubscribed
		}
	}
	return m
}

// marshal writes a lead with everything below it; maps come out sorted, so equal leads give equal
// bytes.
func marshal(t *rapid.T, l *lodestone.Lead) []byte {
	b, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func describe(t *rapid.T, c sequencer.Change) string {
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
