package sequencer

import (
	"errors"
	"sync"
	"time"
	_ "time/tzdata" // the same zones on every machine, also where none are installed
)

var zones sync.Map // name to *time.Location, or to errNoZone

var errNoZone = errors.New("no such time zone")

// loadLocation is time.LoadLocation with memory. "Local" is refused: it would mean another zone on
// another machine.
func loadLocation(name string) (*time.Location, error) {
	if v, ok := zones.Load(name); ok {
		if l, ok := v.(*time.Location); ok {
			return l, nil
		}
		return nil, errNoZone
	}
	l, err := time.LoadLocation(name)
	if err != nil || name == "Local" || name == "" || len(name) > 64 {
		return nil, errNoZone
	}
	zones.Store(name, l)
	return l, nil
}

// Location returns the zone of that name, UTC for an empty or unknown one.
func Location(name string) *time.Location {
	if l, err := loadLocation(name); err == nil {
		return l
	}
	return time.UTC
}
