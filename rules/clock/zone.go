package clock

import (
	"sync"
	"time"
)

var zones sync.Map // name to *time.Location

// Zone is time.LoadLocation with memory; ok is false for what is no name of the IANA list. "Local" is
// none: it would mean another zone on another machine.
func Zone(name string) (loc *time.Location, ok bool) {
	if v, found := zones.Load(name); found {
		return v.(*time.Location), true
	}
	if name == "" || name == "Local" || len(name) > 64 {
		return nil, false
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil, false
	}
	zones.Store(name, loc)
	return loc, true
}
