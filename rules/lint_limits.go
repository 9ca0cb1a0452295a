package rules

import "time"

// limitPlaces say where limits stand: of caps in their order, of holdouts and brakes by their sequence.
type limitPlaces struct {
	caps             []Pos
	holdouts, brakes map[string]Pos
}

// limits warns of caps that never defer anything, and of holdouts and brakes that take nearly everybody.
func (l *linter) limits() {
	caps, at := l.set.Caps, l.limitPlaces.caps
	most, bounded := l.mostTouchpoints()
	for i := range caps {
		c := &caps[i]
		if j := l.strictest(i); j >= 0 {
			l.atPos(at[i], "this cap is never reached: {max: %d, per: %s} in line %d lets no lead have more in as long a time; leave one of them out", caps[j].Max, FormatDuration(caps[j].Per), at[j].Line)
		} else if bounded && c.Max >= most {
			l.atPos(at[i], "this cap is never reached: all sequences together have %d steps for one lead, and none is entered again; write a lower max, or leave it out", most)
		}
	}
	for _, q := range l.set.Sequences {
		if q.Holdout > 0.5 {
			l.atPos(l.limitPlaces.holdouts[q.Name], "with this holdout %s%% of the leads in %s are never contacted; write the share to leave out, as in holdout: 10%%", number(q.Holdout*100), q.Name)
		}
		if b := q.Brake; b != nil && b.Enrollments == 1 && b.Per >= time.Hour {
			l.atPos(l.limitPlaces.brakes[q.Name], "this brake holds every lead of %s but one in %s until a person lets it go on; write what is usual and some more, as in {enrollments: 200, per: 1h}", q.Name, FormatDuration(b.Per))
		}
	}
}

// strictest is a cap that makes the i-th say nothing: it allows no more in no less time. Of two equal ones it is
// the first; -1 when there is none.
func (l *linter) strictest(i int) int {
	caps := l.set.Caps
	for j := range caps {
		if j == i || caps[j].Max > caps[i].Max || caps[j].Per < caps[i].Per {
			continue
		}
		if caps[j] != caps[i] || j < i {
			return j
		}
	}
	return -1
}

// mostTouchpoints is how many touchpoints one lead can have in all; bounded is false when some sequence may be
// entered again.
func (l *linter) mostTouchpoints() (most int, bounded bool) {
	for _, q := range l.set.Sequences {
		if q.Reenter.Mode != ReenterNever {
			return 0, false
		}
		steps := len(q.Steps)
		for _, v := range q.Variants {
			steps = max(steps, len(v.Steps))
		}
		most += steps
	}
	return most, most > 0
}
