package rules

import (
	"time"

	"github.com/lodestonehq/lodestone/rules/clock"
)

// lookFrom and lookTo are the stretch that cron lines and windows are compared over: the days of four years, because
// a line may name the 29th of February. The clocks are UTC's, where every day has its 24 hours.
var (
	lookFrom = time.Date(2027, time.January, 1, 0, 0, 0, 0, time.UTC)
	lookTo   = lookFrom.AddDate(4, 0, 0)
)

// maxMatches bounds how many matches of a cron line are looked at.
const maxMatches = 2_000

// stepTime warns of a cron line that means something else than it says, of one whose times all fall
// outside the window, and of a grace that the window's closed hours use up.
func (l *linter) stepTime(q *Sequence, s *Step) {
	w := q.window(s)
	if s.Cron.BothDays() {
		l.atPos(s.Pos, "the cron line %s of the step %s sets a day of the month and a weekday, and then it matches on either of the two, not on days that are both; write * for one of them", s.Cron, s.Name)
	}
	if w == nil {
		return
	}
	if !s.Cron.IsZero() && !meets(s.Cron, *w) {
		l.atPos(s.Pos, "the cron line %s of the step %s never falls into its window (%s), so the step always waits for the window to open and the cron line's own hour means nothing; let the two agree, or leave one out", s.Cron, s.Name, w)
	}
	if s.Grace == 0 {
		return
	}
	if closed := shortestClosed(*w); s.Grace < closed {
		l.atPos(s.Pos, "the grace %s of the step %s is shorter than its window is closed (at least %s), so a step that cannot happen before the window closes is always skipped as stale; write a longer grace, as in grace: 24h", inWords(s.Grace), s.Name, inWords(closed))
	}
}

// meets reports whether a match of the line falls into the window, as far as that is looked at.
func meets(line clock.Cron, w clock.Window) bool {
	at := lookFrom
	for range maxMatches {
		if at = line.Next(at, time.UTC); at.After(lookTo) {
			return false
		}
		if w.Contains(at, time.UTC) {
			return true
		}
	}
	return true // not proved
}

// shortestClosed is the shortest time that a window is closed between two openings; 0 when it never is.
func shortestClosed(w clock.Window) (shortest time.Duration) {
	for day := range 14 {
		closes := lookFrom.AddDate(0, 0, day).Add(time.Duration(w.To) * time.Minute)
		if !w.Contains(closes.Add(-time.Minute), time.UTC) || w.Contains(closes, time.UTC) {
			continue
		}
		if closed := w.First(closes, time.UTC).Sub(closes); shortest == 0 || closed < shortest {
			shortest = closed
		}
	}
	return shortest
}

// inWords writes a duration as rule files do.
func inWords(d time.Duration) string {
	for _, u := range []struct {
		unit time.Duration
		sign string
	}{{7 * 24 * time.Hour, "w"}, {24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}} {
		if d >= u.unit && d%u.unit == 0 {
			return number(float64(d/u.unit)) + u.sign
		}
	}
	return number(d.Seconds()) + "s"
}
