package sequencer_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/sequencer"
)

const threeSteps = `
forms:
  guide: {fields: {email: {type: email, required: true}}}
scoring: {bands: {any: 0}}
sequences:
  three:
    when: form == "guide"
    steps:
      - {name: a, do: referralrock.invite, with: {firstName: a}}
      - {name: b, do: referralrock.invite, with: {firstName: b}}
      - {name: c, do: referralrock.invite, with: {firstName: c}}
`

// A step that failed is tried again after its sequence was completed: the steps after it have been taken, and
// a step is taken once.
func TestRetryAfterTheEndTakesNoLaterStepAgain(t *testing.T) {
	w := &world{t: t, book: sequencer.NewRulebook(compile(t, threeSteps))}
	w.submit("1", "guide", start, nil)
	failed := w.touchpoint().ID
	w.finish(lodestone.TouchpointFailed, start)
	item := w.last.Attention[0]
	w.finish(lodestone.TouchpointSent, start.Add(time.Hour))
	w.finish(lodestone.TouchpointSent, start.Add(2*time.Hour))
	if e := w.lead.Active(); e != nil {
		t.Fatalf("the enrollment goes on: %+v", e)
	}
	w.plan(sequencer.Operated{Operation: sequencer.Retry, Touchpoint: failed, Item: &item}, start.Add(3*time.Hour))
	w.finish(lodestone.TouchpointSent, start.Add(4*time.Hour))
	if e := w.lead.Active(); e != nil {
		t.Errorf("after the step that was tried again, step %s is taken a second time", e.Touchpoint.Step)
	}
}

// A step that failed is no part of the version that its enrollment was moved to since: there is nothing to
// try again.
func TestRetryOfAStepThatIsGone(t *testing.T) {
	w := &world{t: t, book: sequencer.NewRulebook(compile(t, threeSteps))}
	old := w.book.Current()
	w.submit("1", "guide", start, nil)
	failed := w.touchpoint().ID
	w.finish(lodestone.TouchpointFailed, start)
	item := w.last.Attention[0]
	w.book = sequencer.NewRulebook(compile(t, strings.Replace(threeSteps, "      - {name: a, do: referralrock.invite, with: {firstName: a}}\n", "", 1)), old)
	e := w.lead.Active()
	w.plan(sequencer.Migrated{Enrollment: e.ID, Touchpoint: e.Touchpoint.ID}, start.Add(time.Hour))
	_, err := sequencer.Plan(w.lead, sequencer.Operated{Operation: sequencer.Retry, Touchpoint: failed, Item: &item}, w.book, start.Add(2*time.Hour))
	var refused *sequencer.RefusedError
	if !errors.As(err, &refused) {
		t.Errorf("retry: %v, want it refused", err)
	}
}

// What a brake holds was never sent, so it goes on with the operation that its step has in the version that it
// is moved to; what may have been sent is looked up where it was.
func TestMigratedStepHasTheOperationOfItsVersion(t *testing.T) {
	for _, c := range []struct {
		name  string
		hold  func(*world, string)
		moved bool
	}{
		{"scheduled", func(*world, string) {}, true},
		{"braked", func(w *world, _ string) {
			held := *w.touchpoint()
			held.State, held.Reason = lodestone.TouchpointHeld, lodestone.ReasonBraked
			w.lead.Active().Touchpoint = &held
		}, true},
		{"unknown", func(w *world, id string) {
			w.plan(sequencer.Moved{Touchpoint: id, From: lodestone.TouchpointScheduled, To: lodestone.TouchpointIntended}, start)
			w.plan(sequencer.Moved{Touchpoint: id, From: lodestone.TouchpointIntended, To: lodestone.TouchpointUnknown, GivenUp: start}, start)
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &world{t: t, book: sequencer.NewRulebook(compile(t, threeSteps))}
			old := w.book.Current()
			w.submit("1", "guide", start, nil)
			c.hold(w, w.touchpoint().ID)
			w.book = sequencer.NewRulebook(compile(t, strings.Replace(threeSteps,
				"{name: a, do: referralrock.invite, with: {firstName: a}}", "{name: a, do: referralrock.refer, with: {referralCode: A}}", 1)), old)
			e := w.lead.Active()
			change, err := sequencer.Plan(w.lead, sequencer.Migrated{Enrollment: e.ID, Touchpoint: e.Touchpoint.ID}, w.book, start.Add(time.Hour))
			var refused *sequencer.RefusedError
			if c.moved {
				if err != nil {
					t.Fatal(err)
				}
				if op := change.Lead.Active().Touchpoint.Operation; op != "refer" {
					t.Errorf("it goes on as %s, want refer", op)
				}
			} else if !errors.As(err, &refused) {
				t.Errorf("%v, want it refused: a look-up would ask for one operation and a new try make another", err)
			}
		})
	}
}

// While there are no usable rule files an opt-out counts all the same.
func TestOptOutWithoutRules(t *testing.T) {
	w := &world{t: t, book: sequencer.NewRulebook(compile(t, threeSteps))}
	w.submit("1", "guide", start, nil)
	w.book = nil
	w.plan(sequencer.Suppressed{Suppression: lodestone.Suppression{Email: "ada@example.com", Source: "link", At: start}}, start)
	if w.last.Suppress == nil {
		t.Error("nothing is suppressed")
	}
}
