package sequencer_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/sequencer"
)

const optIn = `
forms:
  guide: {fields: {email: {type: email, required: true}, country: {type: text}}}
scoring: {bands: {any: 0}}
sequences:
  news:
    when: form == "guide"
    reenter: always
    steps:
      - {name: ask, after: 10m, do: referralrock.invite, with: {firstName: ask}, confirm: 7d}
      - {name: welcome, after: 1h, do: referralrock.invite, with: {firstName: welcome}}
      - {name: last, after: 1d, do: referralrock.invite, with: {firstName: last}}
`

// asking is a lead whose question was sent at start.
func asking(t *testing.T, text string) *world {
	t.Helper()
	w := &world{t: t, book: sequencer.NewRulebook(compile(t, text))}
	w.submit("1", "guide", start.Add(-10*time.Minute), nil)
	w.finish(lodestone.TouchpointSent, start)
	return w
}

func (w *world) signal(kind lodestone.SignalKind, at time.Time) {
	w.t.Helper()
	w.plan(sequencer.Signalled{Signal: lodestone.Signal{
		ID: fmt.Sprint(kind, at), Kind: kind, Email: "ada@example.com", At: at, Received: at,
	}}, at)
}

// stands is where the lead's touchpoint is, in words.
func (w *world) stands() string {
	e := w.lead.Active()
	if e == nil {
		past := w.lead.Past[len(w.lead.Past)-1]
		return "over " + string(past.State)
	}
	t := e.Touchpoint
	says := fmt.Sprintf("%s %s %s", t.Step, t.State, t.DueAt.Sub(start))
	if t.Reason != "" {
		says += " " + string(t.Reason)
	}
	if e.Awaits != nil {
		says += fmt.Sprintf("; asked by %s until %s", e.Awaits.Step, e.Awaits.Until.Sub(start))
	}
	return says
}

func (w *world) want(what string) {
	w.t.Helper()
	if got := w.stands(); got != what {
		w.t.Errorf("the lead stands at %q, want %q", got, what)
	}
}

const waits = "welcome scheduled 168h0m0s awaiting_confirmation; asked by ask until 168h0m0s"

// move makes the gate's move on the pending touchpoint.
func (w *world) move(m sequencer.Moved, at time.Time) error {
	m.Touchpoint, m.From = w.touchpoint().ID, w.touchpoint().State
	c, err := sequencer.Plan(w.lead, m, w.book, at)
	if err == nil {
		w.lead, w.last = c.Lead, c
	}
	return err
}

func unconfirmed() sequencer.Moved {
	return sequencer.Moved{To: lodestone.TouchpointCancelled, Reason: lodestone.ReasonUnconfirmed, Ends: lodestone.EnrollmentExited}
}

// What follows a question waits for the answer, and its own time counts from it.
func TestConfirmation(t *testing.T) {
	w := asking(t, optIn)
	w.want(waits)
	w.signal(lodestone.SignalOpened, start.Add(time.Hour))
	w.want(waits)
	w.signal(lodestone.SignalConfirmed, start.Add(48*time.Hour))
	w.want("welcome scheduled 49h0m0s address_confirmed")
	if planned := w.touchpoint().PlannedAt; planned.Sub(start) != 49*time.Hour {
		t.Errorf("grace would count from %s, want 49h", planned.Sub(start))
	}
	w.signal(lodestone.SignalConfirmed, start.Add(48*time.Hour+time.Minute))
	w.want("welcome scheduled 49h0m0s address_confirmed")
	w.finish(lodestone.TouchpointSent, start.Add(49*time.Hour))
	w.want("last scheduled 73h0m0s")
}

// Nobody confirms: the sequence ends with a reason of its own, and what comes later changes nothing of it.
func TestUnconfirmed(t *testing.T) {
	w := asking(t, optIn)
	if err := w.move(unconfirmed(), start.Add(7*24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	w.want("over exited")
	n := w.last.Entry
	if len(n.Enrollments) != 1 || n.Enrollments[0].Reason != lodestone.ReasonUnconfirmed || len(n.Touchpoints) != 1 || n.Touchpoints[0].State != lodestone.TouchpointCancelled {
		t.Errorf("on record: %+v", n)
	}
	w.signal(lodestone.SignalConfirmed, start.Add(8*24*time.Hour))
	w.want("over exited")
	if _, ok := w.lead.Confirmed(); !ok {
		t.Error("a confirmation after the end does not count for the next time")
	}
	// The next time the lead is not asked: the gate skips the question, and nothing waits.
	w.submit("2", "guide", start.Add(9*24*time.Hour), nil)
	if err := w.move(sequencer.Moved{To: lodestone.TouchpointSkipped, Reason: lodestone.ReasonAlreadyConfirmed}, start.Add(9*24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	w.want("welcome scheduled 217h0m0s")
}

// The answer may come at any moment of the question.
func TestConfirmationMeetsTheQuestion(t *testing.T) {
	begin := func() *world {
		w := &world{t: t, book: sequencer.NewRulebook(compile(t, optIn))}
		w.submit("1", "guide", start.Add(-10*time.Minute), nil)
		return w
	}
	t.Run("not sent yet", func(t *testing.T) {
		w := begin()
		w.signal(lodestone.SignalConfirmed, start.Add(-5*time.Minute))
		w.want("welcome scheduled 55m0s")
		if n := w.last.Entry.Touchpoints[0]; n.Step != "ask" || n.State != lodestone.TouchpointSkipped || n.Reason != lodestone.ReasonAlreadyConfirmed {
			t.Errorf("the question is %+v", n)
		}
	})
	for _, state := range []lodestone.TouchpointState{lodestone.TouchpointIntended, lodestone.TouchpointUnknown, lodestone.TouchpointHeld} {
		t.Run(string(state), func(t *testing.T) { // the outcome is not committed when the answer comes
			w := begin()
			if err := w.move(sequencer.Moved{To: lodestone.TouchpointIntended}, start); err != nil {
				t.Fatal(err)
			}
			if state != lodestone.TouchpointIntended {
				if err := w.move(sequencer.Moved{To: state, DueAt: start}, start); err != nil {
					t.Fatal(err)
				}
			}
			w.signal(lodestone.SignalConfirmed, start.Add(time.Minute))
			if got := w.touchpoint(); got.Step != "ask" || got.State != state {
				t.Fatalf("a call that is out became %s %s", got.Step, got.State)
			}
			if err := w.move(sequencer.Moved{To: lodestone.TouchpointSent, Reason: lodestone.ReasonAccepted}, start.Add(2*time.Minute)); err != nil {
				t.Fatal(err)
			}
			w.want("welcome scheduled 1h2m0s")
		})
	}
	t.Run("while the gate says that there was none", func(t *testing.T) {
		w := asking(t, optIn)
		w.signal(lodestone.SignalConfirmed, start.Add(7*24*time.Hour-time.Second))
		for _, m := range []sequencer.Moved{unconfirmed(), {To: lodestone.TouchpointScheduled, Reason: lodestone.ReasonAwaiting, DueAt: start}} {
			if err := w.move(m, start.Add(7*24*time.Hour)); !errors.Is(err, sequencer.ErrMoved) {
				t.Errorf("%s after the confirmation = %v, want ErrMoved", m.Reason, err)
			}
		}
		w.want("welcome scheduled 168h59m59s address_confirmed")
	})
	t.Run("late, but before the end", func(t *testing.T) { // as after a pause
		w := asking(t, optIn)
		w.signal(lodestone.SignalConfirmed, start.Add(8*24*time.Hour))
		w.want("welcome scheduled 193h0m0s address_confirmed")
	})
}

// Without an answer nobody knows whose address it is, whatever became of the question; only where the rules
// do not want it asked nothing waits.
func TestQuestionThatWasNotSent(t *testing.T) {
	for _, c := range []struct {
		to     lodestone.TouchpointState
		reason lodestone.Reason
		want   string
	}{
		{lodestone.TouchpointFailed, lodestone.ReasonRefused, waits},
		{lodestone.TouchpointSkipped, lodestone.ReasonStale, waits},
		{lodestone.TouchpointSkipped, lodestone.ReasonNoConsent, waits},
		{lodestone.TouchpointSkipped, lodestone.ReasonConditionFault, waits},
		{lodestone.TouchpointSkipped, lodestone.ReasonConditionFalse, "welcome scheduled 1h0m0s"},
		{lodestone.TouchpointSkipped, lodestone.ReasonHoldout, "welcome scheduled 1h0m0s"},
	} {
		t.Run(string(c.reason), func(t *testing.T) {
			w := &world{t: t, book: sequencer.NewRulebook(compile(t, optIn))}
			w.submit("1", "guide", start.Add(-10*time.Minute), nil)
			if err := w.move(sequencer.Moved{To: c.to, Reason: c.reason}, start); err != nil {
				t.Fatal(err)
			}
			w.want(c.want)
		})
	}
	t.Run("skipped by a person", func(t *testing.T) {
		w := &world{t: t, book: sequencer.NewRulebook(compile(t, optIn))}
		w.submit("1", "guide", start.Add(-10*time.Minute), nil)
		w.plan(sequencer.Operated{Operation: sequencer.Skip, Touchpoint: w.touchpoint().ID}, start)
		w.want(waits)
		// Who takes the waiting step out does not answer for the lead.
		w.plan(sequencer.Operated{Operation: sequencer.Skip, Touchpoint: w.touchpoint().ID}, start)
		w.want("last scheduled 168h0m0s awaiting_confirmation; asked by ask until 168h0m0s")
	})
}

// A question that failed is asked again by a person, while what follows waits aside.
func TestQuestionTriedAgain(t *testing.T) {
	failed := func() (*world, sequencer.Operated) {
		w := &world{t: t, book: sequencer.NewRulebook(compile(t, optIn))}
		w.submit("1", "guide", start.Add(-10*time.Minute), nil)
		id := w.touchpoint().ID
		w.finish(lodestone.TouchpointFailed, start)
		return w, sequencer.Operated{Operation: sequencer.Retry, Touchpoint: id, Item: &w.last.Attention[0]}
	}
	later := start.Add(24 * time.Hour)
	t.Run("sent", func(t *testing.T) {
		w, retry := failed()
		w.plan(retry, later)
		w.finish(lodestone.TouchpointSent, later)
		w.want("welcome scheduled 192h0m0s awaiting_confirmation; asked by ask until 192h0m0s")
		w.signal(lodestone.SignalConfirmed, later.Add(time.Hour))
		w.want("welcome scheduled 26h0m0s address_confirmed")
	})
	t.Run("answered before", func(t *testing.T) { // an earlier message had a link as well
		w, retry := failed()
		w.plan(retry, later)
		w.signal(lodestone.SignalConfirmed, later)
		w.want("welcome scheduled 25h0m0s address_confirmed")
	})
	t.Run("answered while its call is out", func(t *testing.T) {
		w, retry := failed()
		w.plan(retry, later)
		if err := w.move(sequencer.Moved{To: lodestone.TouchpointIntended}, later); err != nil {
			t.Fatal(err)
		}
		w.signal(lodestone.SignalConfirmed, later)
		if err := w.move(sequencer.Moved{To: lodestone.TouchpointSent}, later.Add(2*time.Hour)); err != nil {
			t.Fatal(err)
		}
		w.want("welcome scheduled 26h0m0s address_confirmed")
	})
}

// A reminder is a question itself, and waits for no answer to the first.
func TestReminder(t *testing.T) {
	text := strings.Replace(optIn, "      - {name: welcome", "      - {name: remind, after: 3d, do: referralrock.invite, with: {firstName: remind}, confirm: 4d}\n      - {name: welcome", 1)
	w := asking(t, text)
	w.want("remind scheduled 72h0m0s; asked by ask until 168h0m0s")
	w.finish(lodestone.TouchpointSent, start.Add(72*time.Hour))
	w.want("welcome scheduled 168h0m0s awaiting_confirmation; asked by remind until 168h0m0s")

	w = asking(t, text)
	w.signal(lodestone.SignalConfirmed, start.Add(time.Hour))
	w.want("welcome scheduled 2h0m0s")

	// A reminder that is not wanted leaves the first question's wait as it was.
	w = asking(t, text)
	if err := w.move(sequencer.Moved{To: lodestone.TouchpointSkipped, Reason: lodestone.ReasonConditionFalse}, start.Add(72*time.Hour)); err != nil {
		t.Fatal(err)
	}
	w.want(waits)
}

// Who takes the confirmation back is not taken for confirmed, in whatever order the words come.
func TestConfirmationTakenBack(t *testing.T) {
	at := func(h int) time.Time { return start.Add(time.Duration(h) * time.Hour) }
	yes := &lodestone.Consent{Marketing: true}
	no := &lodestone.Consent{}
	for _, c := range []struct {
		name string
		do   func(*world, func(int, *lodestone.Consent))
		want bool
	}{
		{"never", func(*world, func(int, *lodestone.Consent)) {}, false},
		{"an address alone", func(w *world, _ func(int, *lodestone.Consent)) { w.signal(lodestone.SignalConfirmed, at(1)) }, true},
		{"unsubscribed since", func(w *world, _ func(int, *lodestone.Consent)) {
			w.signal(lodestone.SignalConfirmed, at(1))
			w.signal(lodestone.SignalUnsubscribed, at(2))
		}, false},
		{"complained at that moment", func(w *world, _ func(int, *lodestone.Consent)) {
			w.signal(lodestone.SignalComplained, at(1))
			w.signal(lodestone.SignalConfirmed, at(1))
		}, false},
		{"confirmed after all", func(w *world, _ func(int, *lodestone.Consent)) {
			w.signal(lodestone.SignalUnsubscribed, at(1))
			w.signal(lodestone.SignalConfirmed, at(2))
		}, true},
		{"consent that came later must be confirmed itself", func(w *world, form func(int, *lodestone.Consent)) {
			w.signal(lodestone.SignalConfirmed, at(1))
			form(2, yes)
		}, false},
		{"consent confirmed", func(w *world, form func(int, *lodestone.Consent)) {
			form(1, yes)
			w.signal(lodestone.SignalConfirmed, at(2))
		}, true},
		{"consent withdrawn", func(w *world, form func(int, *lodestone.Consent)) {
			form(1, yes)
			w.signal(lodestone.SignalConfirmed, at(2))
			w.signal(lodestone.SignalWithdrawn, at(3))
		}, false},
		{"consent refused and given again", func(w *world, form func(int, *lodestone.Consent)) {
			form(1, yes)
			w.signal(lodestone.SignalConfirmed, at(2))
			form(3, no)
			form(4, yes)
		}, false},
		{"an older confirmation that comes late", func(w *world, form func(int, *lodestone.Consent)) {
			form(1, yes)
			w.signal(lodestone.SignalConfirmed, at(5))
			w.signal(lodestone.SignalConfirmed, at(2))
			w.signal(lodestone.SignalUnsubscribed, at(3))
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &world{t: t, book: sequencer.NewRulebook(compile(t, strings.Replace(optIn, `form == "guide"`, "false", 1)))}
			w.submit("0", "guide", start, nil)
			c.do(w, func(h int, consent *lodestone.Consent) {
				sub := submission(fmt.Sprint("form", h), "guide", at(h), nil)
				sub.Context.Consent = consent
				w.plan(&sequencer.Submitted{Submission: sub}, at(h))
			})
			if when, ok := w.lead.Confirmed(); ok != c.want || ok == when.IsZero() {
				t.Errorf("Confirmed() = %v, %v; want %v", when, ok, c.want)
			}
		})
	}
}

// A running enrollment keeps its version, and one that is moved to another goes on waiting, whatever that
// says of the question.
func TestConfirmationAcrossVersions(t *testing.T) {
	without := strings.Replace(optIn, ", confirm: 7d", "", 1)
	for _, c := range []struct {
		name, text string
		steps      map[string]string
		moved      string
		confirmed  string
	}{
		{"another wait", strings.Replace(strings.Replace(optIn, "7d", "9d", 1), "1h", "2h", 1), nil, waits, "welcome scheduled 26h0m0s address_confirmed"},
		{"no question", without, nil, waits, "welcome scheduled 25h0m0s address_confirmed"},
		{"no such step", strings.Replace(without, "name: ask", "name: hello", 1), nil, waits, "welcome scheduled 25h0m0s address_confirmed"},
		{"another name", strings.Replace(optIn, "name: welcome", "name: hello", 1), map[string]string{"welcome": "hello"},
			"hello scheduled 168h0m0s awaiting_confirmation; asked by ask until 168h0m0s", "hello scheduled 25h0m0s address_confirmed"},
		{"asked after it", `
forms:
  guide: {fields: {email: {type: email, required: true}, country: {type: text}}}
scoring: {bands: {any: 0}}
sequences:
  news:
    when: form == "guide"
    steps:
      - {name: welcome, after: 1h, do: referralrock.invite, with: {firstName: welcome}}
      - {name: ask, do: referralrock.invite, with: {firstName: ask}, confirm: 7d}
      - {name: last, after: 1d, do: referralrock.invite, with: {firstName: last}}
`, nil, strings.Replace(waits, "by ask", "by ", 1), "welcome scheduled 25h0m0s address_confirmed"},
		{"it asks itself", strings.Replace(without, "{firstName: welcome}", "{firstName: welcome}, confirm: 1d", 1), nil,
			"welcome scheduled 1h0m0s migrated", "last scheduled 48h0m0s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := asking(t, optIn)
			old := w.book.Current()
			w.book = sequencer.NewRulebook(compile(t, c.text), old)
			w.want(waits) // the version that it began with
			e := w.lead.Active()
			w.plan(sequencer.Migrated{Enrollment: e.ID, Touchpoint: e.Touchpoint.ID, Steps: c.steps}, start)
			w.want(c.moved)
			w.signal(lodestone.SignalConfirmed, start.Add(24*time.Hour))
			w.want(c.confirmed)
		})
	}
	t.Run("the version is away when the answer comes", func(t *testing.T) {
		w := asking(t, optIn)
		book := w.book
		w.book = sequencer.NewRulebook(compile(t, without))
		w.signal(lodestone.SignalConfirmed, start.Add(24*time.Hour))
		w.want(waits) // the gate sees to it
		w.book = book
		e := w.lead.Active()
		_, s := book.Sequence(e)
		due := sequencer.Confirmed(s, s.Find("", "welcome"), w.lead, e)
		if err := w.move(sequencer.Moved{To: lodestone.TouchpointScheduled, Reason: lodestone.ReasonAddressConfirmed, DueAt: due}, start.Add(30*time.Hour)); err != nil {
			t.Fatal(err)
		}
		w.want("welcome scheduled 25h0m0s address_confirmed")
	})
}

// Other ends take what waits with them, and leave no wait behind.
func TestOtherEndsWhileWaiting(t *testing.T) {
	w := asking(t, strings.Replace(optIn, "    reenter: always\n", "    reenter: always\n    exit: signals.converted\n", 1))
	w.signal(lodestone.SignalConverted, start.Add(time.Hour))
	w.want("over converted")
	w = asking(t, optIn)
	w.plan(sequencer.Operated{Operation: sequencer.Cancel, Touchpoint: w.touchpoint().ID}, start)
	w.want("over cancelled")
	w = asking(t, optIn)
	w.plan(sequencer.Operated{Operation: sequencer.Retry, Touchpoint: w.touchpoint().ID}, start.Add(time.Hour))
	if err := w.move(sequencer.Moved{To: lodestone.TouchpointScheduled, Reason: lodestone.ReasonAwaiting, DueAt: start.Add(7 * 24 * time.Hour)}, start.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	w.want(waits)
}

// What waits is due at once when the lead opts out, and not a second time; the deadline stays what it was.
func TestOptOutMakesWhatWaitsDue(t *testing.T) {
	day := start.Add(24 * time.Hour)
	const due = "welcome scheduled 24h0m0s awaiting_confirmation; asked by ask until 168h0m0s"
	optOut := map[string]func(w *world, at time.Time){
		"a signal": func(w *world, at time.Time) { w.signal(lodestone.SignalUnsubscribed, at) },
		"an operator": func(w *world, at time.Time) {
			w.plan(sequencer.Suppressed{Suppression: lodestone.Suppression{Email: "ada@example.com", Source: "operator", At: at}}, at)
		},
	}
	for name, out := range optOut {
		t.Run(name, func(t *testing.T) {
			w := asking(t, optIn)
			out(w, day)
			w.want(due)
			out(w, day.Add(time.Hour))
			w.want(due)
			// The version that it is moved to calls the step something else.
			w.book = sequencer.NewRulebook(compile(t, strings.Replace(optIn, "name: welcome", "name: hello", 1)), w.book.Current())
			e := w.lead.Active()
			w.plan(sequencer.Migrated{Enrollment: e.ID, Touchpoint: e.Touchpoint.ID, Steps: map[string]string{"welcome": "hello"}}, day.Add(2*time.Hour))
			w.want(strings.Replace(due, "welcome", "hello", 1))
		})
		t.Run(name+", taken back", func(t *testing.T) {
			w := asking(t, optIn)
			out(w, day)
			if err := w.move(sequencer.Moved{To: lodestone.TouchpointScheduled, Reason: lodestone.ReasonAwaiting, DueAt: w.lead.Active().Awaits.Until}, day); err != nil {
				t.Fatal(err)
			}
			w.want(waits)
			w.signal(lodestone.SignalConfirmed, day.Add(time.Hour))
			w.want("welcome scheduled 26h0m0s address_confirmed")
		})
		t.Run(name+", after the deadline", func(t *testing.T) { // the worker was away
			w := asking(t, optIn)
			out(w, start.Add(8*24*time.Hour))
			w.want(waits)
		})
	}
	for name, c := range map[string]struct {
		kind lodestone.SignalKind
		want string
	}{
		"opened meanwhile":    {lodestone.SignalOpened, "welcome scheduled 192h0m0s awaiting_confirmation; asked by ask until 192h0m0s"},
		"opted out meanwhile": {lodestone.SignalUnsubscribed, "welcome scheduled 24h0m0s awaiting_confirmation; asked by ask until 192h0m0s"},
	} {
		t.Run(name, func(t *testing.T) { // while a question that failed is on its way again, and what waits stands aside
			w := &world{t: t, book: sequencer.NewRulebook(compile(t, optIn))}
			w.submit("1", "guide", start.Add(-10*time.Minute), nil)
			id := w.touchpoint().ID
			w.finish(lodestone.TouchpointFailed, start)
			w.plan(sequencer.Operated{Operation: sequencer.Retry, Touchpoint: id, Item: &w.last.Attention[0]}, day)
			if err := w.move(sequencer.Moved{To: lodestone.TouchpointIntended}, day); err != nil {
				t.Fatal(err)
			}
			w.signal(c.kind, day)
			if err := w.move(sequencer.Moved{To: lodestone.TouchpointSent}, day); err != nil {
				t.Fatal(err)
			}
			w.want(c.want)
		})
	}
	t.Run("what is skipped after the deadline", func(t *testing.T) {
		w := asking(t, optIn)
		w.signal(lodestone.SignalUnsubscribed, day)
		w.plan(sequencer.Operated{Operation: sequencer.Skip, Touchpoint: w.touchpoint().ID}, start.Add(8*24*time.Hour))
		w.want("last scheduled 168h0m0s awaiting_confirmation; asked by ask until 168h0m0s")
	})
}
