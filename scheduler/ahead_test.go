package scheduler_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/scheduler"
	"github.com/lodestonehq/lodestone/sequencer"
)

// What Ahead says before a touchpoint is due is what the worker does when nothing else comes.
func TestAheadSaysWhatTheWorkerDoes(t *testing.T) {
	for _, test := range []struct {
		name   string
		fields map[string]any
		want   []string
	}{
		{"every step, a condition that is false, elapsed time", map[string]any{"kind": "steps"},
			[]string{"first sent 0s", "maybe skipped 0s", "last sent 48h0m0s"}},
		{"a condition that is true", map[string]any{"kind": "steps", "code": "A"},
			[]string{"first sent 0s", "maybe sent 0s", "last sent 48h0m0s"}},
		{"consent is missing", map[string]any{"kind": "careful"}, []string{"invite skipped 1h0m0s"}},
		{"a parameter is missing", map[string]any{"kind": "needy"}, []string{"refer failed 0s"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			run(t, func(b *bench) { b.submit("ada@x.example", test.fields, nil) }, func(b *bench) {
				start := time.Now()
				after(100 * time.Hour)
				p, err := b.store.Person(context.Background(), "ada@x.example", 1000)
				if err != nil {
					t.Fatal(err)
				}
				var did []string
				for i := len(p.History) - 1; i >= 0; i-- {
					for _, n := range p.History[i].Touchpoints {
						if !n.State.Pending() {
							did = append(did, fmt.Sprint(n.Step, " ", n.State, " ", p.History[i].At.Sub(start)))
						}
					}
				}
				if fmt.Sprint(did) != fmt.Sprint(test.want) {
					t.Errorf("the worker did %q, want %q", did, test.want)
				}
			})
			run(t, func(*bench) {}, func(b *bench) {
				b.stop()
				start := time.Now()
				b.submit("ada@x.example", test.fields, nil)
				if got := ahead(b, nil, start); fmt.Sprint(got) != fmt.Sprint(test.want) {
					t.Errorf("Ahead = %q, want %q", got, test.want)
				}
				b.start()
			})
		})
	}
}

func ahead(b *bench, paused func(string) (scheduler.Pause, bool), start time.Time) (said []string) {
	b.t.Helper()
	st, err := b.store.State(context.Background(), "ada@x.example")
	if err != nil {
		b.t.Fatal(err)
	}
	was := *st.Lead.Active().Touchpoint
	for _, c := range scheduler.Ahead(st, b.book.Load(), paused, func(_, operation string) (lodestone.Operation, bool) {
		op, ok := operations[operation]
		return op, ok
	}, start.UTC()) {
		said = append(said, fmt.Sprint(c.Step, " ", c.Outcome, " ", c.At.Sub(start)))
		for _, v := range c.Objections {
			if paused != nil {
				said = append(said, string(v.Reason))
			}
		}
	}
	if is := *st.Lead.Active().Touchpoint; is.ID != was.ID || is.State != was.State {
		b.t.Errorf("Ahead changed the lead: %+v, was %+v", is, was)
	}
	return said
}

// A pause hides nothing of what else stands against a touchpoint, nor what comes after it.
func TestAheadLooksPastAPause(t *testing.T) {
	run(t, func(*bench) {}, func(b *bench) {
		b.stop()
		start := time.Now()
		b.submit("ada@x.example", map[string]any{"kind": "steps"}, nil)
		got := ahead(b, func(scope string) (scheduler.Pause, bool) { return scheduler.Pause{At: start}, scope == "all" }, start)
		want := []string{"first sent 0s", "paused", "maybe skipped 0s", "paused", "condition_false", "last sent 48h0m0s", "paused"}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("Ahead = %q, want %q", got, want)
		}
		b.start()
	})
}

// Coming times keep to cron and window in the lead's zone, across a change of the clocks.
func TestAheadKeepsToTheWallClock(t *testing.T) {
	const file = `
forms:
  guide:
    fields: {email: {type: email, required: true}}
    zone: '"Europe/Berlin"'
sequences:
  plain:
    when: form == "guide"
    window: {days: mon-fri, from: "09:00", to: "17:00"}
    steps:
      - {name: now, do: provider.invite, with: {firstName: there}}
      - {name: monday, cron: "0 9 * * MON", do: provider.invite, with: {firstName: there}}
      - {name: evening, after: 11h, do: provider.invite, with: {firstName: there}}
`
	set, err := rules.Compile([]rules.File{{Name: "r.yaml", Data: []byte(file)}}, rules.Options{Operations: map[string]lodestone.Operation{"provider.invite": operations["invite"]}})
	if err != nil {
		t.Fatal(err)
	}
	book := sequencer.NewRulebook(set)
	at := time.Date(2026, 3, 27, 10, 0, 0, 0, time.UTC) // a Friday; the clocks change on Sunday
	c, err := sequencer.Plan(nil, &sequencer.Submitted{Submission: lodestone.Submission{
		ID: "1", Form: "guide", Email: "ada@x.example", Fields: lodestone.FieldsOf(map[string]any{"email": "ada@x.example"}), At: at, Received: at,
	}}, book, at)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, x := range scheduler.Ahead(sequencer.State{Lead: c.Lead}, book, nil, nil, at) {
		got = append(got, fmt.Sprint(x.Step, " ", x.Outcome, " ", x.At.UTC().Format(time.RFC3339)))
	}
	want := []string{"now sent 2026-03-27T10:00:00Z", "monday sent 2026-03-30T07:00:00Z", "evening sent 2026-03-31T07:00:00Z"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("Ahead = %q, want %q", got, want)
	}
}
