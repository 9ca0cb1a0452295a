package rules

import (
	"testing"
	"time"
)

func TestStepTimes(t *testing.T) {
	set := mustCompile(t, "rules.yaml", `
forms: {demo: {fields: {email: {type: email, required: true}}}}
sequences:
  q:
    when: true
    window: {days: mon-fri, from: "09:00", to: "17:00"}
    steps:
      - {name: at-once, do: referralrock.invite, with: {firstName: x}}
      - {name: waits, after: 3d, do: referralrock.invite, with: {firstName: x}}
      - {name: tuesday, cron: 30 10 * * TUE, do: referralrock.invite, with: {firstName: x}}
      - {name: early, cron: 0 6 * * TUE, do: referralrock.invite, with: {firstName: x}}
      - {name: both, after: 4d, cron: 0 10 * * TUE, do: referralrock.invite, with: {firstName: x}}
      - {name: weekend, cron: 0 12 * * *, window: {days: sat-sun}, do: referralrock.invite, with: {firstName: x}}
      - {name: night, window: {from: "22:00", to: "06:00"}, do: referralrock.invite, with: {firstName: x}}
`)
	q := set.Sequence("q")
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		step, after, want string
	}{
		{"at-once", "Fri 2026-03-06 10:00", "Fri 2026-03-06 10:00"},
		{"at-once", "Fri 2026-03-06 17:00", "Mon 2026-03-09 09:00"},
		{"waits", "Fri 2026-03-06 16:00", "Mon 2026-03-09 16:00"},
		{"waits", "Wed 2026-03-25 16:00", "Mon 2026-03-30 09:00"}, // the clocks change on the 29th
		{"tuesday", "Tue 2026-03-10 10:29", "Tue 2026-03-10 10:30"},
		{"tuesday", "Tue 2026-03-10 10:30", "Tue 2026-03-17 10:30"},
		{"early", "Mon 2026-03-09 12:00", "Tue 2026-03-10 09:00"}, // when the window opens
		{"both", "Fri 2026-03-06 10:00", "Tue 2026-03-10 10:00"},  // the wait ends at the match
		{"both", "Fri 2026-03-06 10:01", "Tue 2026-03-17 10:00"},
		{"weekend", "Mon 2026-03-09 12:00", "Sat 2026-03-14 00:00"}, // instead of the sequence's
		{"night", "Fri 2026-03-06 21:00", "Fri 2026-03-06 22:00"},
		{"night", "Sat 2026-03-07 05:59", "Sat 2026-03-07 05:59"},
		{"night", "Sat 2026-03-07 06:00", "Sat 2026-03-07 22:00"},
	} {
		const layout = "Mon 2006-01-02 15:04"
		after, err := time.ParseInLocation(layout, tt.after, berlin)
		if err != nil {
			t.Fatal(err)
		}
		if got := q.At(&q.Steps[q.Step(tt.step)], after, berlin).In(berlin).Format(layout); got != tt.want {
			t.Errorf("%s after %s = %s, want %s", tt.step, tt.after, got, tt.want)
		}
	}
	// A week that passes in 7 minutes has no hours to keep to.
	fast := set.ScaleTime(24 * 60).Sequence("q")
	after := time.Date(2026, 3, 9, 23, 0, 0, 0, time.UTC)
	if got, want := fast.At(&fast.Steps[fast.Step("tuesday")], after, time.UTC).Sub(after), 28750*time.Millisecond; got.Round(time.Millisecond) != want {
		t.Errorf("11 h 30 min pass in %v, want %v", got, want)
	}
	if w := fast.WindowOf(&fast.Steps[0]); w != nil {
		t.Errorf("a window of %s is kept to where hours pass in seconds", w)
	}
}
