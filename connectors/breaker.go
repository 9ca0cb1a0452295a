package connectors

import (
	"sync"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
)

const (
	// faultsToOpen is how many calls in a row must fail before the account is left alone. Five is
	// past the bad luck of one restart behind a load balancer, and before a flood of unknown outcomes.
	faultsToOpen = 5
	// lockedOutProbe is how often a provider that refused the credentials is asked again. Seldom,
	// because providers lock accounts that keep knocking.
	lockedOutProbe = 30 * time.Second
	// firstProbe and slowestProbe bound the time between probes of a provider that is down: it
	// doubles from one to the other.
	firstProbe   = 2 * time.Second
	slowestProbe = 15 * time.Second
)

// Cause is why a breaker is open.
type Cause string

// The causes of an open breaker.
const (
	CauseLockedOut Cause = "locked_out" // the provider does not accept the credentials: a human must act
	CauseFaults    Cause = "faults"     // it is down or does not answer
)

// State is how an account's breaker stands.
type State struct {
	Open   bool
	Cause  Cause     // of an open breaker
	Detail string    // what the last fault said, masked
	Since  time.Time // when it opened or closed
}

// breaker keeps calls from a provider that is down or refuses us. It opens after faultsToOpen faults
// in a row, or at once by lockOut, and closes only by a probe that succeeded: it never lets an act
// through to try.
type breaker struct {
	mu      sync.Mutex // guards what follows
	count   circuitbreaker.CircuitBreaker[any]
	state   State
	probes  int       // that failed since it opened
	probeAt time.Time // when the next is due
	queue   []State   // changes the listeners have not heard of
	telling bool      // one goroutine is at it
	heard   []func(State)
	changed chan struct{} // capacity 1; wakes Run
}

func newBreaker() *breaker {
	return &breaker{
		count: circuitbreaker.NewBuilder[any]().
			WithFailureThreshold(faultsToOpen).
			WithDelay(1 << 62). // never half-open by itself
			Build(),
		changed: make(chan struct{}, 1),
	}
}

// success notes an answer of a provider that works.
func (b *breaker) success() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.count.RecordSuccess()
}

// fault notes a call that failed by the provider's or the network's fault.
func (b *breaker) fault(detail string) {
	b.mu.Lock()
	b.count.RecordFailure()
	if b.count.IsOpen() && !b.state.Open {
		b.openLocked(CauseFaults, detail)
	}
	b.mu.Unlock()
	b.tell()
}

// lockOut notes that the provider refused the credentials.
func (b *breaker) lockOut(detail string) {
	b.mu.Lock()
	if !b.state.Open || b.state.Cause != CauseLockedOut {
		b.count.Open()
		b.openLocked(CauseLockedOut, detail)
	}
	b.mu.Unlock()
	b.tell()
}

func (b *breaker) openLocked(cause Cause, detail string) {
	now := time.Now()
	b.state = State{Open: true, Cause: cause, Detail: detail, Since: now.UTC()}
	b.probes, b.probeAt = 0, now.Add(interval(cause, 0))
	b.queue = append(b.queue, b.state)
	b.wake()
}

// close notes that a probe came through.
func (b *breaker) close() {
	b.mu.Lock()
	if b.state.Open {
		b.count.Close()
		b.state = State{Since: time.Now().UTC()}
		b.queue = append(b.queue, b.state)
		b.wake()
	}
	b.mu.Unlock()
	b.tell()
}

// probed notes a probe that began at start and failed.
func (b *breaker) probed(start time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state.Open {
		b.probes++
		b.probeAt = start.Add(interval(b.state.Cause, b.probes))
		b.wake()
	}
}

func interval(cause Cause, probes int) time.Duration {
	if cause == CauseLockedOut {
		return lockedOutProbe
	}
	return min(slowestProbe, firstProbe<<min(probes, 8))
}

// now gives the state and, when open, the time of the next probe.
func (b *breaker) now() (State, time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state, b.probeAt
}

func (b *breaker) wake() {
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

func (b *breaker) listen(f func(State)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.heard = append(b.heard[:len(b.heard):len(b.heard)], f)
}

// tell hands the changes to the listeners, in order and without the lock held, so that a listener may
// ask the account anything.
func (b *breaker) tell() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.telling {
		return
	}
	b.telling = true
	for len(b.queue) > 0 {
		s, heard := b.queue[0], b.heard
		b.queue = b.queue[1:]
		b.mu.Unlock()
		for _, f := range heard {
			f(s)
		}
		b.mu.Lock()
	}
	b.telling = false
}
