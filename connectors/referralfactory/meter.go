package referralfactory

import (
	"context"
	"crypto/sha256"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lodestonehq/lodestone/connectors"
)

const (
	// perMinute is how many requests the provider takes in 60 seconds of one token.
	perMinute = 600
	// atOnce is how many requests of a minute may go out as fast as the accounts' own rates let them.
	// The rest of the minute's is spread over it, so that accounts that share a token never stand
	// still for half a minute after they used it up.
	atOnce = 60
	// apart is how far apart the rest is sent.
	apart = time.Minute / (perMinute - atOnce)
)

// token is what all accounts with one token share.
type token struct {
	meter  *meter
	people [64]chan struct{} // see alone
}

// tokens are the tokens in use, by a hash that gives nothing away: *token by [sha256.Size]byte. The
// limit is the token's, whoever uses it and under whatever name, so it cannot be kept by an account.
var tokens sync.Map

func tokenOf(key connectors.Secret, baseURL string) *token {
	fresh := &token{meter: newMeter()}
	for i := range fresh.people {
		fresh.people[i] = make(chan struct{}, 1)
	}
	kept, _ := tokens.LoadOrStore(sha256.Sum256([]byte(provider(baseURL)+"\x00"+key.Reveal())), fresh)
	return kept.(*token)
}

// provider names who answers at a base URL. The provider answers at two hosts, and they count
// together.
func provider(baseURL string) string {
	u, err := url.Parse(baseURL)
	if err != nil {
		return baseURL
	}
	return strings.TrimPrefix(strings.ToLower(u.Host), "api.")
}

// meter keeps the requests of one token at perMinute in any 60 seconds, as the provider counts them.
//
// When the provider counts a request is not known, only that it is after the request was let out and
// before its answer came. So a place is taken when a request is let out and comes free 60 seconds
// after the request has ended. That suffices: of all requests that the provider counted within some
// 60 seconds take the one that was let out last. Each of the others had been let out before, and had
// not ended 60 seconds earlier, so each still held its place; there are perMinute places.
//
// It is safe for concurrent use.
type meter struct {
	turn  chan struct{} // capacity 1; its holder waits for a place, the others in line behind it
	ended chan struct{} // capacity 1; told when a request ended

	mu   sync.Mutex  // guards what follows
	out  int         // requests that have not ended
	free []time.Time // when the places of those that have come free, ascending
	last time.Time   // when the last one was let out
}

func newMeter() *meter {
	return &meter{turn: make(chan struct{}, 1), ended: make(chan struct{}, 1)}
}

// take waits for a place. The error is that of ctx; then there is none.
func (m *meter) take(ctx context.Context) error {
	select {
	case m.turn <- struct{}{}:
		defer func() { <-m.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		wait := m.try(time.Now())
		if wait == 0 {
			return nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-m.ended:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// try takes a place if it can, and says how long that will not be possible otherwise.
func (m *meter) try(now time.Time) (wait time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	// A place is not free yet at its very time: a minute may be counted with both its ends.
	past := 0
	for past < len(m.free) && now.After(m.free[past]) {
		past++
	}
	m.free = slices.Delete(m.free, 0, past)
	taken := m.out + len(m.free)
	switch next := m.last.Add(apart); {
	case taken >= perMinute && len(m.free) == 0:
		return time.Minute // the end of a request comes sooner
	case taken >= perMinute:
		return m.free[0].Sub(now) + 1
	case taken >= atOnce && now.Before(next):
		return next.Sub(now)
	}
	m.out++
	m.last = now
	return 0
}

// end notes that n requests ended; their places come free a minute after wait from now.
func (m *meter) end(n int, wait time.Duration) {
	if n == 0 {
		return
	}
	m.mu.Lock()
	m.out -= n
	at := time.Now().Add(wait + time.Minute)
	i, _ := slices.BinarySearchFunc(m.free, at, time.Time.Compare)
	m.free = slices.Insert(m.free, i, slices.Repeat([]time.Time{at}, n)...)
	m.mu.Unlock()
	select {
	case m.ended <- struct{}{}:
	default:
	}
}

// charge takes n places for a call whose tries cannot be watched and that has ended, whatever becomes
// of it, once it has lasted for at most. It takes fewer when ctx ends.
func (m *meter) charge(ctx context.Context, n int, atMost time.Duration) {
	for range n {
		if m.take(ctx) != nil {
			return
		}
		m.end(1, atMost)
	}
}

// metered gives a context under which every try of one call takes a place just before it is given a
// connection: after it waited for the account's own limits, and also when net/http repeats it by
// itself. A try that gets no place within the account's timeout gets no connection it could use. end
// must be called when the call has ended.
func (m *meter) metered(ctx context.Context, timeout time.Duration) (_ context.Context, end func()) {
	n, refused := 0, false // used by the goroutine of the call alone
	trace := &httptrace.ClientTrace{
		GetConn: func(string) {
			within, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			if refused = m.take(within) != nil; !refused {
				n++
			}
		},
		GotConn: func(info httptrace.GotConnInfo) {
			if refused {
				_ = info.Conn.Close()
			}
		},
	}
	return httptrace.WithClientTrace(ctx, trace), func() { m.end(n, 0) }
}
