package referralfactory

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http/httptrace"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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
	// catalogueShare is how many places of a minute calls from the catalogue may find taken.
	catalogueShare = perMinute / 2
	// apart is how far apart the rest is sent.
	apart = time.Minute / (perMinute - atOnce)
)

// token is what all accounts with one token share.
type token struct {
	meter  *meter
	people [64]chan struct{} // see alone
}

// tokens are the tokens in use: *token by [tokenID]. The
// limit is the token's, whoever uses it and under whatever name, so it cannot be kept by an account.
var tokens sync.Map

// tokenOf finds the token in use. state is the directory in which it outlives the process; empty: none.
func tokenOf(key connectors.Secret, baseURL, state string) *token {
	sum := sha256.Sum256([]byte(provider(baseURL) + "\x00" + key.Reveal()))
	id := tokenID{sum, state}
	if kept, ok := tokens.Load(id); ok {
		return kept.(*token)
	}
	fresh := &token{meter: newMeter()}
	if state != "" {
		fresh.meter.keep = &book{filepath.Join(state, "referralfactory-"+hex.EncodeToString(sum[:8])+".json")}
		fresh.meter.free = fresh.meter.keep.read(time.Now())
	}
	for i := range fresh.people {
		fresh.people[i] = make(chan struct{}, 1)
	}
	kept, _ := tokens.LoadOrStore(id, fresh)
	return kept.(*token)
}

// tokenID is a token by a hash that gives nothing away, and the directory that remembers it.
type tokenID struct {
	sum   [sha256.Size]byte
	state string
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
// before its answer came. So a place is taken when a request is let out, or before, and comes free 60
// seconds after the request has ended. That suffices: of all requests that the provider counted within some
// 60 seconds take the one whose place was taken last. Each of the others had its place before, and had
// not ended 60 seconds earlier, so each still held it; there are perMinute places.
//
// It is safe for concurrent use.
type meter struct {
	keep  *book         // what outlives the process; nil: nothing
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
	if err := m.keep.write(m.out, m.free); err != nil {
		m.out--
		return unkeptRetry // what cannot be remembered is not sent: a kill would begin a new minute
	}
	m.last = now
	return 0
}

// unkeptRetry is how long after a failed try what is used up is written again.
const unkeptRetry = time.Second

// room waits until fewer than share places are taken, or ctx is done.
func (m *meter) room(ctx context.Context, share int) {
	for ctx.Err() == nil {
		m.mu.Lock()
		now := time.Now()
		m.free = slices.DeleteFunc(m.free, func(at time.Time) bool { return now.After(at) })
		taken, wait := m.out+len(m.free), time.Second
		if over := taken - share; over >= 0 && over < len(m.free) {
			wait = m.free[over].Sub(now) + 1
		}
		m.mu.Unlock()
		if taken < share {
			return
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
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
	_ = m.keep.write(m.out, m.free) // what stands there counts them as not ended, which is no less
	m.mu.Unlock()
	select {
	case m.ended <- struct{}{}:
	default:
	}
}

// reserved is a place that was taken for an act before it.
type reserved struct{ used atomic.Bool }

type reservedKey struct{}

// reserve takes a place for the first act that is metered under the context it returns, which waits no
// longer than timeout. release gives the place back when no act took it: no request was let out with it.
func (m *meter) reserve(ctx context.Context, timeout time.Duration) (held context.Context, release func(), err error) {
	within, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := m.take(within); err != nil {
		return ctx, func() {}, err
	}
	r := new(reserved)
	return context.WithValue(ctx, reservedKey{}, r), func() {
		if r.used.CompareAndSwap(false, true) {
			m.giveBack()
		}
	}, nil
}

// giveBack frees a place that was taken and not used.
func (m *meter) giveBack() {
	m.mu.Lock()
	m.out--
	_ = m.keep.write(m.out, m.free) // what stands there counts it as used, which is no less
	m.mu.Unlock()
	select {
	case m.ended <- struct{}{}:
	default:
	}
}

// metered gives a context under which every try of one call takes a place just before it is given a
// connection: after it waited for the account's own limits, and also when net/http repeats it by
// itself. The first try of an act takes the one that was reserved for it. A try that gets no place within
// the account's timeout gets no connection it could use. end must be called when the call has ended.
func (m *meter) metered(ctx context.Context, timeout time.Duration, act bool) (_ context.Context, end func()) {
	n, refused := 0, false // used by the goroutine of the call alone
	kept, _ := ctx.Value(reservedKey{}).(*reserved)
	trace := &httptrace.ClientTrace{
		GetConn: func(string) {
			if act && kept != nil && kept.used.CompareAndSwap(false, true) {
				n, refused = n+1, false
				return
			}
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
