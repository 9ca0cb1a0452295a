// Package clock answers when: the next match of a cron line and the first moment inside a window,
// both as wall-clock time in a zone.
//
// What it promises, in every zone and across every change of its offset:
//
//   - A wall-clock time that does not exist, because clocks are put forward, means the first instant
//     after the gap. One that exists twice, because they are put back, means the first.
//   - A cron line never matches twice for one local time, and no match is lost: [Cron.Next] is the
//     first instant at which the local clock, taken at the furthest it has shown so far, reaches a time
//     that the line names.
//   - A moment is inside a window when the clock on the wall shows a time inside it.
//
// Cron lines are parsed and matched by robfig/cron on wall-clock time that is held as UTC, where no day
// is short or long; the library is never shown a zone, because it skips what falls into a gap and
// repeats what falls into an overlap. The arithmetic of zones is all here.
package clock

import (
	"time"
	_ "time/tzdata" // the same zones on every machine, also where none are installed
)

// wall is what a clock in loc shows at t, held as UTC so that it can be counted with.
func wall(t time.Time, loc *time.Location) time.Time {
	_, offset := t.In(loc).Zone()
	return t.UTC().Add(time.Duration(offset) * time.Second)
}

// maxOffset is more than any zone was ever away from UTC.
const maxOffset = 26 * time.Hour

// instant is the first instant at which a clock in loc shows w or later: the only time it shows w, the
// first of two, or the end of the gap that w falls into.
func instant(w time.Time, loc *time.Location) time.Time {
	for t := w.Add(-maxOffset); ; {
		_, offset := t.In(loc).Zone()
		_, end := t.In(loc).ZoneBounds()
		at := w.Add(-time.Duration(offset) * time.Second)
		switch {
		case at.Before(t):
			return t // the period begins with a later time than w: a gap
		case end.IsZero() || at.Before(end):
			return at
		}
		t = end.UTC()
	}
}

// furthest is the latest time that a clock in loc has shown up to t. It is what the clock shows, but
// for the hours after it was put back.
func furthest(t time.Time, loc *time.Location) time.Time {
	out := wall(t, loc)
	for start, _ := t.In(loc).ZoneBounds(); !start.IsZero() && t.Sub(start) < 2*maxOffset; {
		before := start.Add(-1)
		if w := wall(before, loc); w.After(out) {
			out = w
		}
		start, _ = before.In(loc).ZoneBounds()
	}
	return out
}
