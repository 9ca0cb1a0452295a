package clock

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Days is a set of weekdays.
type Days uint8

// Daily is every day of the week.
const Daily Days = 1<<7 - 1

// Has reports whether a day is in the set.
func (d Days) Has(w time.Weekday) bool { return d&(1<<w) != 0 }

var dayNames = []string{"sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"}

// ParseDays reads weekdays: mon, a list (sat,sun), a range (mon-fri, fri-mon) or daily.
func ParseDays(text string) (Days, error) {
	fault := fmt.Errorf("%q names no weekdays; write mon-fri, sat,sun, mon or daily", text)
	day := func(s string) int {
		s = strings.ToLower(strings.TrimSpace(s))
		return slices.IndexFunc(dayNames, func(name string) bool { return s == name || s == name[:3] })
	}
	if strings.EqualFold(strings.TrimSpace(text), "daily") {
		return Daily, nil
	}
	var out Days
	for item := range strings.SplitSeq(text, ",") {
		from, to, ranged := strings.Cut(item, "-")
		if !ranged {
			to = from
		}
		a, b := day(from), day(to)
		if a < 0 || b < 0 {
			return 0, fault
		}
		for d := a; ; d = (d + 1) % 7 {
			if out |= 1 << d; d == b {
				break
			}
		}
	}
	return out, nil
}

// String writes the set as [ParseDays] reads it.
func (d Days) String() string {
	if d == Daily {
		return "daily"
	}
	if d == 0b0111110 {
		return "mon-fri"
	}
	var names []string
	for i := range 7 {
		if w := (i + 1) % 7; d.Has(time.Weekday(w)) { // the week begins on Monday
			names = append(names, dayNames[w][:3])
		}
	}
	return strings.Join(names, ",")
}

// TimeOfDay is minutes since midnight, 0 to 1440; 1440 is the midnight at the end of the day.
type TimeOfDay int

// EndOfDay is the midnight at the end of the day.
const EndOfDay TimeOfDay = 24 * 60

// ParseTimeOfDay reads hours and minutes, as in 09:00; 24:00 is the end of the day.
func ParseTimeOfDay(text string) (TimeOfDay, error) {
	fault := fmt.Errorf("%q is not a time of day; write hours and minutes, as in \"09:00\"", text)
	hours, minutes, ok := strings.Cut(text, ":")
	h, m := number(hours), number(minutes)
	if !ok || len(minutes) != 2 || h < 0 || h > 24 || m < 0 || m > 59 || h == 24 && m > 0 {
		return 0, fault
	}
	return TimeOfDay(h*60 + m), nil
}

// number reads one or two digits, -1 for anything else.
func number(s string) int {
	if len(s) < 1 || len(s) > 2 {
		return -1
	}
	n := 0
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return -1
		}
		n = n*10 + int(c-'0')
	}
	return n
}

// String writes hours and minutes.
func (t TimeOfDay) String() string { return fmt.Sprintf("%02d:%02d", int(t)/60, int(t)%60) }

// Window is the hours of some weekdays, From included and To not. One whose To is not after From goes
// on past midnight, and Days says on which days it opens. Days must not be empty.
type Window struct {
	Days     Days
	From, To TimeOfDay
}

// String writes the window in words.
func (w Window) String() string { return fmt.Sprintf("%s %s-%s", w.Days, w.From, w.To) }

// length is how long one opening is, on a day without a change of clocks.
func (w Window) length() time.Duration {
	if w.To > w.From {
		return time.Duration(w.To-w.From) * time.Minute
	}
	return time.Duration(w.To-w.From+EndOfDay) * time.Minute
}

// Contains reports whether a clock in loc shows a time inside the window at t.
func (w Window) Contains(t time.Time, loc *time.Location) bool {
	now := wall(t, loc)
	return w.first(now).Equal(now)
}

// First is the first moment inside the window at or after at. It is in UTC.
func (w Window) First(at time.Time, loc *time.Location) time.Time {
	for t := at.UTC(); ; {
		// Within one period of the zone the wall clock runs like any other.
		_, offset := t.In(loc).Zone()
		_, end := t.In(loc).ZoneBounds()
		shift := time.Duration(offset) * time.Second
		in := w.first(t.Add(shift)).Add(-shift)
		if end.IsZero() || in.Before(end) {
			return in
		}
		t = end.UTC()
	}
}

// first is the first wall-clock time inside the window at or after now, both held as UTC.
func (w Window) first(now time.Time) time.Time {
	y, m, d := now.Date()
	// Yesterday's opening may go on; within eight days one begins.
	for i := -1; i <= 8; i++ {
		day := time.Date(y, m, d+i, 0, 0, 0, 0, time.UTC)
		if !w.Days.Has(day.Weekday()) {
			continue
		}
		open := day.Add(time.Duration(w.From) * time.Minute)
		if now.Before(open) {
			return open
		}
		if now.Before(open.Add(w.length())) {
			return now
		}
	}
	return now // no day is in the set, which nothing that is read allows
}
