package scheduler

import (
	"context"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/sequencer"
)

// Store is the durable state as far as sending goes.
type Store interface {
	sequencer.Store
	// Due returns touchpoints of one lane that are due at or before until, at most limit of them,
	// passing over those for which skip says so. Sequences take turns in the order of their names,
	// beginning with the one after the sequence named, and each gives its earliest; so one that has very many
	// overdue holds no other up. next is when the earliest one of the rest falls due, zero when none waits.
	Due(ctx context.Context, lane string, until time.Time, limit int, after string, skip func(lodestone.Email) bool) (due []DueItem, next time.Time, err error)
	// Lanes names the connectors that have touchpoints waiting or had some.
	Lanes(ctx context.Context) ([]string, error)
	// Open returns the touchpoints whose call is in flight or whose outcome is open: intended,
	// unknown and held.
	Open(ctx context.Context) ([]OpenItem, error)
	// Paused returns what is paused: "all", "connector NAME", "sequence NAME".
	Paused(ctx context.Context) (map[string]Pause, error)
}

// DueItem is a touchpoint that is due: where to find it and since when.
type DueItem struct {
	Email    lodestone.Email
	At       time.Time
	Sequence string
}

// OpenItem is a touchpoint whose outcome is open.
type OpenItem struct {
	Touchpoint string
	State      lodestone.TouchpointState
	Connector  string
	Email      lodestone.Email
}

// Words says that a scope is paused, since when, by whom and why.
func (p Pause) Words(scope string) string {
	s := scope + " is paused since " + p.At.UTC().Format(time.RFC3339)
	if p.By != "" {
		s += " by " + p.By
	}
	if p.Reason != "" {
		s += ": " + p.Reason
	}
	return s
}

// Pause says since when something is paused, and by whose word.
type Pause struct {
	At     time.Time `json:"at"`
	By     string    `json:"by,omitempty"`
	Reason string    `json:"reason,omitempty"`
}
