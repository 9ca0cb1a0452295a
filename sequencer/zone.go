package sequencer

import (
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/rules/clock"
)

// Location returns the zone of that name, UTC for an empty or unknown one.
func Location(name string) *time.Location {
	if l, ok := clock.Zone(name); ok {
		return l
	}
	return time.UTC
}

// ZoneOf is the zone by whose clocks a sequence keeps time for a lead as it is now: the sequence's
// own, or the lead's, UTC when that is not known.
func ZoneOf(s *rules.Sequence, l *lodestone.Lead) *time.Location {
	if s.Zone != rules.ZoneLead {
		return Location(s.Zone)
	}
	return Location(l.Zone)
}
