package access

import (
	"net/netip"
	"sync"
	"time"
)

const (
	freeTries       = 5                // wrong passwords of one user from one source before the next has to wait
	freeOfSource    = 30               // and of one source for whatever users
	longestWait     = 15 * time.Minute // between two tries
	forgottenAfter  = 24 * time.Hour
	maxTries        = 1 << 15 // users and sources that are remembered, at least the last half of them
	checksAtOnce    = 2       // of passwords: each takes memory and a processor
	waitForCheck    = 5 * time.Second
	rememberedGoods = 1 << 12
)

// throttle makes guessing slow. Wrong passwords are counted for a user from a source, and for a source;
// past the free ones each doubles the wait before the next, up to a quarter of an hour, and a password
// that comes earlier is not looked at. A user is never kept out from everywhere: whoever guesses from elsewhere
// delays only themselves, and takes only the places of those who never signed in. Someone with very many sources
// is bounded by how many passwords are checked at once.
//
// It holds a bounded number of hashes in memory and begins anew with the process.
type throttle struct {
	mu    sync.Mutex // guards what follows
	tries generations[try]
	good  generations[time.Time] // users and sources that signed in

	places, kept chan struct{} // for checks: of everybody, and of those who signed in before
}

type try struct {
	wrong int
	next  time.Time // before it none is looked at
	last  time.Time
}

func newThrottle() *throttle {
	return &throttle{
		tries: generations[try]{most: maxTries}, good: generations[time.Time]{most: rememberedGoods},
		places: make(chan struct{}, checksAtOnce), kept: make(chan struct{}, 1),
	}
}

// sources are what one place is counted as: an address of IPv4; of IPv6 the network of a site for one
// user, and the larger one that a provider gives a customer for all of them.
func sources(a netip.Addr) (one, all string) {
	if !a.Is6() {
		return a.String(), a.String()
	}
	near, _ := a.Prefix(64)
	far, _ := a.Prefix(48)
	return near.String(), far.String()
}

// begin counts a try as a wrong one, so that many at the same moment are all counted, unless it comes too
// early: then it says how long to wait. right takes it back for a right password, unchecked for one that was
// not looked at.
func (t *throttle) begin(user string, from netip.Addr, now time.Time) (wait time.Duration, right, unchecked func()) {
	one, all := sources(from)
	pair, source := "pair "+user+" "+one, "source "+all
	t.mu.Lock()
	defer t.mu.Unlock()
	wait = max(t.tries.of(pair).next.Sub(now), t.tries.of(source).next.Sub(now))
	if wait > 0 {
		return wait, nil, nil
	}
	ofPair, ofSource := t.tries.of(pair), t.tries.of(source)
	countedPair, countedSource := t.count(pair, freeTries, now), t.count(source, freeOfSource, now)
	unchecked = func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.takeBack(pair, ofPair, countedPair)
		t.takeBack(source, ofSource, countedSource)
	}
	return 0, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.tries.put(pair, try{})
		if s := t.tries.of(source); s.wrong > 0 {
			s.wrong--
			s.next = now
			t.tries.put(source, s)
		}
		t.good.put(pair, now)
	}, unchecked
}

// takeBack makes what a count changed as it was. When others were counted meanwhile, their wait stays.
func (t *throttle) takeBack(key string, was, counted try) {
	e := t.tries.of(key)
	if e == counted {
		e = was
	} else if e.wrong > 0 {
		e.wrong--
	}
	t.tries.put(key, e)
}

func (t *throttle) count(key string, free int, now time.Time) try {
	e := t.tries.of(key)
	if now.Sub(e.last) > forgottenAfter {
		e = try{}
	}
	e.wrong++
	e.last, e.next = now, now
	if over := e.wrong - free; over >= 0 {
		e.next = now.Add(min(longestWait, time.Second<<min(over, 20)))
	}
	t.tries.put(key, e)
	return e
}

// place waits for a place to check a password in; false when none came free in time. leave gives it back.
func (t *throttle) place(user string, from netip.Addr, gone <-chan struct{}) (leave func(), ok bool) {
	one, _ := sources(from)
	t.mu.Lock()
	known := !t.good.of("pair " + user + " " + one).IsZero()
	t.mu.Unlock()
	var kept chan struct{} // nil: never ready
	if known {
		kept = t.kept
	}
	timer := time.NewTimer(waitForCheck)
	defer timer.Stop()
	select {
	case t.places <- struct{}{}:
		return func() { <-t.places }, true
	case kept <- struct{}{}:
		return func() { <-t.kept }, true
	case <-gone:
	case <-timer.C:
	}
	return nil, false
}

// generations is a map that forgets: half of it at a time, the older half.
type generations[V any] struct {
	most     int
	new, old map[string]V
}

func (g *generations[V]) of(key string) V {
	if v, ok := g.new[key]; ok {
		return v
	}
	return g.old[key]
}

func (g *generations[V]) put(key string, v V) {
	if _, there := g.new[key]; g.new == nil || !there && len(g.new) >= g.most/2 {
		g.new, g.old = map[string]V{}, g.new
	}
	g.new[key] = v
}
