package scheduler_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/sequencer"
)

// withRules has a bench work by other rule files.
func withRules(text string) func(*bench) {
	return func(b *bench) {
		b.t.Helper()
		named := map[string]lodestone.Operation{}
		for n, op := range operations {
			named["provider."+n] = op
		}
		set, err := rules.Compile([]rules.File{{Name: "r.yaml", Data: []byte(text)}}, rules.Options{Operations: named})
		if err != nil {
			b.t.Fatal(err)
		}
		b.book.Store(sequencer.NewRulebook(set))
	}
}

const timedRules = `
forms:
  guide:
    fields: {email: {type: email, required: true}, kind: {type: text}}
    zone: context.timezone
sequences:
  office:
    when: fields.kind == nil
    window: {days: mon-fri, from: "09:00", to: "17:00"}
    steps:
      - {name: invite, do: provider.invite, with: {firstName: there}}
      - {name: weekly, cron: 30 9 * * TUE, do: provider.invite, with: {firstName: there}}
  fresh:
    when: fields.kind == "fresh"
    steps:
      - {name: invite, after: 1h, grace: 1d, do: provider.invite, with: {firstName: there}}
      - {name: next, after: 1h, do: provider.invite, with: {firstName: there}}
  patient:
    when: fields.kind == "patient"
    steps:
      - {name: invite, after: 1h, do: provider.invite, with: {firstName: there}}
`

// submitFrom submits with a time zone.
func (b *bench) submitFrom(email lodestone.Email, zone string) {
	b.t.Helper()
	now := time.Now().UTC()
	b.plan(email, &sequencer.Submitted{Submission: lodestone.Submission{
		ID: now.String(), Form: "guide", Email: email, Fields: lodestone.FieldsOf(map[string]any{"email": string(email)}),
		At: now, Received: now, Context: lodestone.Context{Timezone: zone},
	}})
}

// due is when the lead's touchpoint is looked at next.
func (b *bench) due(email lodestone.Email) time.Time {
	b.t.Helper()
	st, err := b.store.State(context.Background(), email)
	if err != nil {
		b.t.Fatal(err)
	}
	e := st.Lead.Active()
	if e == nil || e.Touchpoint == nil {
		b.t.Fatalf("%s has nothing pending", email)
	}
	return e.Touchpoint.DueAt
}

// Fake time begins on Saturday, the 1st of January 2000, at midnight UTC.
func TestWindowAndCronInTheLeadsZone(t *testing.T) {
	run(t, withRules(timedRules), func(b *bench) {
		b.submitFrom(ada, "America/New_York")
		if got, want := b.due(ada), time.Date(2000, 1, 3, 14, 0, 0, 0, time.UTC); !got.Equal(want) {
			t.Errorf("the first step is due at %s, want %s, 09:00 on Monday", got, want)
		}
		after(62*time.Hour - time.Second)
		b.want(ada, "invite scheduled planned")
		after(time.Second)
		b.want(ada, "invite scheduled planned", "invite intended ", "invite sent accepted", "weekly scheduled planned")
		if got, want := b.due(ada), time.Date(2000, 1, 4, 14, 30, 0, 0, time.UTC); !got.Equal(want) {
			t.Errorf("the second step is due at %s, want %s, 09:30 on Tuesday", got, want)
		}
		after(24*time.Hour + 30*time.Minute)
		b.enrollmentEnded(ada, lodestone.EnrollmentCompleted)
	})
}

// A lead who turns out to live elsewhere is not woken at night.
func TestWindowIsKeptByTheZoneOfTheMoment(t *testing.T) {
	run(t, withRules(timedRules), func(b *bench) {
		b.submitFrom(ada, "")
		if got, want := b.due(ada), time.Date(2000, 1, 3, 9, 0, 0, 0, time.UTC); !got.Equal(want) {
			t.Fatalf("due at %s, want %s by UTC", got, want)
		}
		after(time.Hour)
		b.submitFrom(ada, "America/New_York")
		after(56*time.Hour + time.Minute) // a minute past nine in UTC, four in the morning there
		b.want(ada, "invite scheduled planned", "invite scheduled outside_window")
		if got, want := b.due(ada), time.Date(2000, 1, 3, 14, 0, 0, 0, time.UTC); !got.Equal(want) {
			t.Errorf("deferred to %s, want %s", got, want)
		}
		after(5 * time.Hour)
		if h := b.history(ada); !slices.Contains(h, "invite sent accepted") {
			t.Errorf("history = %q, want it sent when the window opened", h)
		}
	})
}

func TestGrace(t *testing.T) {
	for _, tc := range []struct {
		kind string
		away time.Duration
		want []string
	}{
		{"fresh", 24 * time.Hour, []string{"invite intended ", "invite sent accepted"}},
		{"fresh", 25*time.Hour + time.Minute, []string{"invite skipped stale", "next scheduled planned"}},
		{"patient", 3 * 24 * time.Hour, []string{"invite intended ", "invite sent accepted"}},
	} {
		run(t, withRules(timedRules), func(b *bench) {
			b.submit(ada, map[string]any{"kind": tc.kind}, nil)
			b.stop()
			time.Sleep(tc.away)
			b.start()
			after(time.Second)
			got := b.history(ada)
			for _, want := range tc.want {
				if !slices.Contains(got, want) {
					t.Errorf("%s, away for %v: history = %q, want %q in it", tc.kind, tc.away, got, tc.want)
				}
			}
		})
	}
}

// What fell due while nothing ran is skipped where it came too late, and the rest goes out.
func TestRestartSendsNothingStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		withRules(timedRules)(b)
		for i := range 20 {
			kind := "fresh"
			if i%2 == 0 {
				kind = "patient"
			}
			b.submit(lodestone.Email(string(rune('a'+i))+"@example.com"), map[string]any{"kind": kind}, nil)
		}
		time.Sleep(3 * 24 * time.Hour)
		b.start()
		after(time.Minute)
		if len(b.p.outcomes()) != 10 {
			t.Errorf("%d were sent after three days, want the 10 that have no grace", len(b.p.outcomes()))
		}
		b.end()
	})
}

const cappedRules = `
forms:
  guide:
    fields: {email: {type: email, required: true}, kind: {type: text}}
caps:
  - {max: 2, per: 7d}
sequences:
  often:
    when: fields.kind == nil
    reenter: always
    steps:
      - {name: invite, do: provider.invite, with: {firstName: there}}
  impatient:
    when: fields.kind == "impatient"
    reenter: always
    steps:
      - {name: refer, grace: 12h, do: provider.refer, with: {referralCode: x}}
  held:
    when: fields.kind == "held"
    holdout: 99.999%
    steps:
      - {name: invite, do: provider.invite, with: {firstName: there}}
      - {name: again, after: 1d, do: provider.invite, with: {firstName: there}}
`

func TestCapsAcrossSequences(t *testing.T) {
	run(t, withRules(cappedRules), func(b *bench) {
		begin := time.Now()
		for range 3 {
			b.submit(ada, nil, nil)
			after(24 * time.Hour)
		}
		if got := len(b.p.tries()); got != 2 {
			t.Fatalf("%d were sent in three days, want the 2 that the cap allows", got)
		}
		b.want(ada, "invite scheduled planned", "invite intended ", "invite sent accepted",
			"invite scheduled planned", "invite intended ", "invite sent accepted",
			"invite scheduled planned", "invite scheduled capped")
		if got, want := b.due(ada), begin.Add(7*24*time.Hour); !got.Equal(want) {
			t.Errorf("deferred to %s, want %s, when the first is a week old", got, want)
		}
		after(4*24*time.Hour + time.Second)
		if got := len(b.p.tries()); got != 3 {
			t.Errorf("%d were sent after a week, want 3", got)
		}
		// Another sequence is capped just as well, and its step would come too late.
		b.submit(ada, map[string]any{"kind": "impatient"}, nil)
		after(time.Second)
		b.completed(ada, "impatient")
		if got := b.history(ada); got[len(got)-1] != "refer skipped stale" {
			t.Errorf("history = %q, want the step skipped, because the next free slot is past its grace", got)
		}
	})
}

// completed checks that a sequence was left as completed.
func (b *bench) completed(email lodestone.Email, sequence string) {
	b.t.Helper()
	st, err := b.store.State(context.Background(), email)
	if err != nil {
		b.t.Fatal(err)
	}
	i := slices.IndexFunc(st.Lead.Past, func(p lodestone.PastEnrollment) bool { return p.Sequence == sequence })
	if i < 0 || st.Lead.Past[i].State != lodestone.EnrollmentCompleted {
		b.t.Errorf("past = %+v, want %s completed", st.Lead.Past, sequence)
	}
}

// What provably did not happen takes no slot, and what may have happened does.
func TestCapsCountWhatMayHaveHappened(t *testing.T) {
	for _, tc := range []struct {
		class connectors.Class
		want  int // contacts remembered
	}{
		{connectors.Refused, 0},
		{connectors.Unknown, 1},
	} {
		run(t, func(b *bench) {
			withRules(cappedRules)(b)
			b.p.do = func(connectors.Act, int) (connectors.Receipt, error) {
				return connectors.Receipt{}, &connectors.Fault{Class: tc.class, Reason: lodestone.ReasonNoAnswer}
			}
			b.p.find = func(connectors.Act, int) (connectors.Finding, error) {
				return connectors.Finding{State: connectors.Unsupported}, nil
			}
		}, func(b *bench) {
			b.submit(ada, nil, nil)
			after(time.Minute)
			st, err := b.store.State(context.Background(), ada)
			if err != nil {
				t.Fatal(err)
			}
			if len(st.Lead.Contacts) != tc.want {
				t.Errorf("class %v: contacts = %v, want %d", tc.class, st.Lead.Contacts, tc.want)
			}
		})
	}
}

// The holdout goes its way, nobody of it is contacted or asked about, and it is counted beside the rest.
func TestHoldoutIsNeverContacted(t *testing.T) {
	run(t, withRules(cappedRules), func(b *bench) {
		b.submit(ada, map[string]any{"kind": "held"}, nil)
		after(25 * time.Hour)
		b.want(ada, "invite scheduled planned", "invite skipped holdout", "again scheduled planned", "again skipped holdout")
		b.enrollmentEnded(ada, lodestone.EnrollmentCompleted)
		if len(b.p.asked()) != 0 {
			t.Errorf("the provider was asked: %q", b.p.asked())
		}
		totals, err := b.store.Totals(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]uint64{}
		for _, c := range totals {
			if c.Sequence == "held" {
				got[c.Step+" "+c.What+" "+c.Variant] = c.N
			}
		}
		for _, want := range []string{" enrollment.started holdout", " enrollment.completed holdout", "invite touchpoint.skipped holdout"} {
			if got[want] != 1 {
				t.Errorf("totals = %v, want one %q", got, want)
			}
		}
	})
}
