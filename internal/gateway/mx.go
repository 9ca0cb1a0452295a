package gateway

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

const (
	mxWait    = 300 * time.Millisecond // that a visitor waits at most
	mxTimeout = 5 * time.Second        // of a look-up that goes on for the next one
	mxKeep    = time.Hour              // of an answer
	maxMX     = 1 << 13                // domains whose answer is kept, in one of two generations
	maxAsked  = 64                     // look-ups at a time
)

// Resolver is the part of [net.Resolver] that is used to see whether a domain takes mail.
type Resolver interface {
	LookupMX(ctx context.Context, name string) ([]*net.MX, error)
	LookupHost(ctx context.Context, name string) ([]string, error)
}

// MX says whether the domains of addresses take mail. It keeps answers in memory that is bounded, and never
// lets anybody wait for long: an answer that comes too late is there for the next one who asks. It is safe for
// concurrent use.
type MX struct {
	resolver Resolver
	asked    chan struct{} // holds one for each look-up under way

	mu       sync.Mutex // guards what follows
	new, old map[string]*mxAnswer
	turned   time.Time
}

// mxAnswer is known when done is closed. Nothing is written to it after that.
type mxAnswer struct {
	done  chan struct{}
	takes bool
	known bool
}

// NewMX asks a resolver; nil: that of the system.
func NewMX(r Resolver) *MX {
	if r == nil {
		r = net.DefaultResolver
	}
	return &MX{resolver: r, asked: make(chan struct{}, maxAsked), new: map[string]*mxAnswer{}}
}

// Takes says whether a domain takes mail: it has a mail exchanger, or an address when it names none (RFC 5321,
// section 5.1), and does not say that it takes none (RFC 7505). nil: nobody answered in time.
func (m *MX) Takes(ctx context.Context, domain string) *bool {
	a := m.answer(domain, time.Now())
	if a == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, mxWait)
	defer cancel()
	select {
	case <-a.done:
	case <-ctx.Done():
		return nil
	}
	if !a.known {
		return nil
	}
	takes := a.takes
	return &takes
}

// answer is what is known of a domain, or a look-up that has just begun; nil when too many are under way.
func (m *MX) answer(domain string, now time.Time) *mxAnswer {
	m.mu.Lock()
	defer m.mu.Unlock()
	if age := now.Sub(m.turned); age > mxKeep/2 || len(m.new) >= maxMX {
		m.old = m.new
		if age > mxKeep {
			m.old = nil
		}
		m.new, m.turned = map[string]*mxAnswer{}, now
	}
	if a := m.new[domain]; a != nil {
		return a
	}
	if a := m.old[domain]; a != nil {
		return a
	}
	select {
	case m.asked <- struct{}{}:
	default:
		return nil
	}
	a := &mxAnswer{done: make(chan struct{})}
	m.new[domain] = a
	go m.look(domain, a) // ends within mxTimeout
	return a
}

func (m *MX) look(domain string, a *mxAnswer) {
	defer func() { <-m.asked }()
	ctx, cancel := context.WithTimeout(context.Background(), mxTimeout)
	defer cancel()
	a.takes, a.known = takesMail(ctx, m.resolver, domain)
	close(a.done)
	if a.known {
		return
	}
	m.mu.Lock() // asked again by the next one
	defer m.mu.Unlock()
	for _, kept := range []map[string]*mxAnswer{m.new, m.old} {
		if kept[domain] == a {
			delete(kept, domain)
		}
	}
}

func takesMail(ctx context.Context, r Resolver, domain string) (takes, known bool) {
	domain += "." // the name itself, and not one within this machine's own domain
	list, err := r.LookupMX(ctx, domain)
	switch {
	case len(list) == 1 && (list[0].Host == "." || list[0].Host == ""):
		return false, true
	case len(list) > 0: // also where others of its records are faulty
		return true, true
	case err != nil && !notThere(err):
		return false, false
	}
	hosts, err := r.LookupHost(ctx, domain)
	if err != nil && !notThere(err) {
		return false, false
	}
	return len(hosts) > 0, true
}

func notThere(err error) bool {
	var d *net.DNSError
	return errors.As(err, &d) && d.IsNotFound
}
