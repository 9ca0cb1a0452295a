package scheduler_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/sequencer"
)

const brakedRules = `
forms:
  guide:
    fields: {email: {type: email, required: true}, kind: {type: text}}
sequences:
  q:
    when: fields.kind == nil
    brake: {enrollments: 3, per: 1h}
    exit: signals.converted
    steps:
      - {name: invite, grace: 1d, do: provider.invite, with: {firstName: there}}
`

// enter submits for a lead the way intake does, with what the store counted.
func (b *bench) enter(email lodestone.Email) *lodestone.Decision {
	b.t.Helper()
	now := time.Now().UTC()
	sub := lodestone.Submission{ID: now.String(), Form: "guide", Email: email, Fields: lodestone.FieldsOf(map[string]any{"email": string(email)}), At: now, Received: now}
	res, err := b.store.Commit(context.Background(), sequencer.Batch{Writes: []sequencer.Write{{Email: email, Plan: func(st sequencer.State) (sequencer.Change, error) {
		return sequencer.Plan(st.Lead, &sequencer.Submitted{Submission: sub, Starts: st.Starts}, b.book.Load(), now)
	}}}})
	if err != nil || res[0].Err != nil {
		b.t.Fatal(err, res[0].Err)
	}
	b.s.Notify(&res[0].Change)
	return res[0].Change.Entry.Decision
}

// say carries out a person's word on everything that the brake holds.
func (b *bench) say(undo bool) (n int) {
	b.t.Helper()
	list, err := b.store.Braked(context.Background(), "q")
	if err != nil {
		b.t.Fatal(err)
	}
	for _, item := range list {
		b.plan(item.Email, sequencer.Braked{Touchpoint: item.Touchpoint, Undo: undo})
	}
	return len(list)
}

func (b *bench) attention() (list []lodestone.Attention) {
	b.t.Helper()
	list, _, err := b.store.Attention(context.Background(), 100)
	if err != nil {
		b.t.Fatal(err)
	}
	return list
}

func person(i int) lodestone.Email { return lodestone.Email(fmt.Sprintf("p%d@example.com", i)) }

func TestBrakeHoldsWhatIsAboveIt(t *testing.T) {
	run(t, withRules(brakedRules), func(b *bench) {
		for i := range 8 {
			b.enter(person(i))
		}
		after(time.Second)
		if len(b.p.outcomes()) != 3 {
			t.Fatalf("%d were sent, want the 3 below the brake", len(b.p.outcomes()))
		}
		b.want(person(5), "invite scheduled planned", "invite held braked")
		items := b.attention()
		if len(items) != 1 || items[0].Kind != lodestone.AttentionEnrollment || items[0].ID != "q" || !strings.Contains(items[0].Detail, "holds enrollments: 5.") {
			t.Fatalf("attention = %+v, want one item for q with the 5 that are held", items)
		}
		// Held ones do not count, so the next hour takes three more.
		after(2 * time.Hour)
		for i := range 4 {
			b.enter(person(100 + i))
		}
		after(time.Second)
		if len(b.p.outcomes()) != 6 {
			t.Errorf("%d were sent after two hours, want 3 more", len(b.p.outcomes()))
		}
		// One that converts meanwhile leaves, as any other.
		b.plan(person(5), sequencer.Signalled{Signal: lodestone.Signal{ID: "c", Kind: lodestone.SignalConverted, Email: person(5), At: time.Now()}})
		b.want(person(5), "invite scheduled planned", "invite held braked", "invite cancelled converted")
		// What is let go is not stale, however long it was held.
		after(3 * 24 * time.Hour)
		if n := b.say(false); n != 5 {
			t.Errorf("%d are held, want 5", n)
		}
		after(time.Second)
		if len(b.p.outcomes()) != 11 {
			t.Errorf("%d were sent after all, want 11", len(b.p.outcomes()))
		}
		b.want(person(4), "invite scheduled planned", "invite held braked", "invite scheduled released", "invite intended ", "invite sent accepted")
		if items := b.attention(); len(items) != 0 {
			t.Errorf("attention = %+v, want none", items)
		}
	})
}

// What is undone never was: nobody is contacted, and reenter (never, here) keeps nobody out.
func TestUndoTakesBackWhatIsHeld(t *testing.T) {
	run(t, withRules(brakedRules), func(b *bench) {
		for i := range 5 {
			b.enter(person(i))
		}
		if n := b.say(true); n != 2 {
			t.Errorf("%d are held, want 2", n)
		}
		b.want(person(4), "invite scheduled planned", "invite held braked", "invite cancelled undone")
		if len(b.attention()) != 0 || b.say(true) != 0 {
			t.Error("something is still held")
		}
		after(2 * time.Hour)
		if d := b.enter(person(4)); d.Reason != lodestone.ReasonEnrolled {
			t.Errorf("entering again: %s, want enrolled", d.Reason)
		}
		if d := b.enter(person(0)); d.Reason != lodestone.ReasonNotReentered {
			t.Errorf("one that was contacted: %s, want not_reentered", d.Reason)
		}
		after(time.Second)
	})
}
