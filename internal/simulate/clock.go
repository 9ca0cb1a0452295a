package simulate

import (
	"container/heap"
	"maps"
	"slices"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/sequencer"
)

// Event is something that comes from outside at a moment.
type Event struct {
	At    time.Time // when the worker hears of it
	Email lodestone.Email
	sequencer.Event
}

// Run lets events, which are in the order of their time, happen to leads, and everything that falls due up
// to and including until, all in the order of time. It stops after limit moments. Leads are added to
// those that are given.
func (w *World) Run(leads map[lodestone.Email]*Lead, events []Event, until time.Time, limit int) error {
	var due moments
	var now time.Time
	pushed := 0
	push := func(l *Lead) {
		if at, ok := l.Next(); ok {
			pushed++
			heap.Push(&due, moment{later(at, now), pushed, l})
		}
	}
	for _, email := range slices.Sorted(maps.Keys(leads)) {
		push(leads[email])
	}
	for n := 0; n < limit; n++ {
		// A lead may stand in the heap several times; only what it waits for now counts.
		for len(due) > 0 {
			if at, ok := due[0].lead.Next(); ok && !at.After(due[0].at) {
				break
			}
			heap.Pop(&due)
		}
		if len(events) > 0 && (len(due) == 0 || !events[0].At.After(due[0].at)) {
			ev := events[0]
			if ev.At.After(until) {
				return nil
			}
			events, now = events[1:], later(now, ev.At)
			l := leads[ev.Email]
			if l == nil {
				l = &Lead{Email: ev.Email}
				leads[ev.Email] = l
			}
			if err := w.Apply(l, ev.Event, now); err != nil {
				return err
			}
			push(l)
			continue
		}
		if len(due) == 0 || due[0].at.After(until) {
			return nil
		}
		m := heap.Pop(&due).(moment)
		now = later(now, m.at)
		if err := w.step(m.lead, now); err != nil {
			return err
		}
		push(m.lead)
	}
	return nil
}

// moment is when something is due for a lead.
type moment struct {
	at    time.Time
	order int // the order in which they came, for two at one time
	lead  *Lead
}

type moments []moment

func (m moments) Len() int { return len(m) }
func (m moments) Less(i, j int) bool {
	if !m[i].at.Equal(m[j].at) {
		return m[i].at.Before(m[j].at)
	}
	return m[i].order < m[j].order
}
func (m moments) Swap(i, j int) { m[i], m[j] = m[j], m[i] }
func (m *moments) Push(x any)   { *m = append(*m, x.(moment)) }
func (m *moments) Pop() any {
	old := *m
	x := old[len(old)-1]
	*m = old[:len(old)-1]
	return x
}
