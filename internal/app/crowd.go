package app

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

const (
	mostConns   = 4096             // open connections to the listener, where the system lets a process have twice as many files
	shareOfOne  = 4                // the part of them that one address may have is one in so many
	bodyWait    = 10 * time.Second // for a body of which a route says nothing else
	restWait    = 2 * time.Second  // and for what a route left unread
	writeWait   = 30 * time.Second // for a reader to take writePiece
	writePiece  = 16 << 10
	fewestConns = 16 // however few files there may be
)

// timely bounds how long a request may keep its connection by a body that does not come. A route that reads
// one says itself how long it waits; what a route does not read is waited for a moment, because many clients read no
// answer before they sent everything.
func timely(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength == 0 {
			next.ServeHTTP(w, r)
			return
		}
		conn := http.NewResponseController(w)
		_ = conn.SetReadDeadline(time.Now().Add(bodyWait)) // not every connection has one
		next.ServeHTTP(w, r)
		_ = conn.SetReadDeadline(time.Now().Add(restWait))
	})
}

// crowd is a listener with a bound on its open connections, in all and of one address. Where there is no room, the
// connection makes some that has waited longest without a request under way; when all have one, the new one is closed.
// A reader that takes nothing for a while is given up.
type crowd struct {
	net.Listener
	most int
	// many reports whether many people come from one address: a proxy's.
	many func(netip.Addr) bool

	mu    sync.Mutex // guards what follows
	conns map[*guest]struct{}
	of    map[netip.Addr]int
}

func newCrowd(l net.Listener, most int, many func(netip.Addr) bool) *crowd {
	return &crowd{Listener: l, most: max(most, fewestConns), many: many, conns: map[*guest]struct{}{}, of: map[netip.Addr]int{}}
}

// Accept implements [net.Listener].
func (c *crowd) Accept() (net.Conn, error) {
	for {
		conn, err := c.Listener.Accept()
		if err != nil {
			return nil, err
		}
		g := &guest{Conn: conn, crowd: c, since: time.Now()}
		if at, err := netip.ParseAddrPort(conn.RemoteAddr().String()); err == nil {
			g.from = at.Addr().Unmap().WithZone("")
			g.one = !c.many(g.from)
			if g.from.Is6() { // of which one site has a network
				if site, err := g.from.Prefix(64); err == nil {
					g.from = site.Addr()
				}
			}
		}
		if !c.admit(g) {
			_ = conn.Close() // nobody is served on it
			continue
		}
		return g, nil
	}
}

// admit takes a connection in if there is room or some can be made.
func (c *crowd) admit(g *guest) bool {
	c.mu.Lock()
	var leave []*guest
	room := true
	if g.one && c.of[g.from] >= max(c.most/shareOfOne, 1) {
		leave, room = c.idlest(leave, func(other *guest) bool { return other.from == g.from })
	}
	if room && len(c.conns)-len(leave) >= c.most {
		leave, room = c.idlest(leave, func(*guest) bool { return true })
	}
	if room {
		c.conns[g] = struct{}{}
		c.of[g.from]++
	}
	c.mu.Unlock()
	for _, other := range leave {
		_ = other.Close() // its server notices
	}
	return room
}

// idlest adds the connection that has waited longest of those that may be chosen; false when none waits. The caller
// holds mu.
func (c *crowd) idlest(to []*guest, may func(*guest) bool) ([]*guest, bool) {
	var found *guest
	for g := range c.conns {
		if !g.busy && may(g) && (found == nil || g.since.Before(found.since)) {
			found = g
		}
	}
	if found == nil {
		return to, false
	}
	c.forget(found)
	return append(to, found), true
}

// forget is called with mu held.
func (c *crowd) forget(g *guest) {
	if _, there := c.conns[g]; !there {
		return
	}
	delete(c.conns, g)
	if c.of[g.from]--; c.of[g.from] <= 0 {
		delete(c.of, g.from)
	}
}

// state is told what a server does with a connection; see [http.Server.ConnState].
func (c *crowd) state(conn net.Conn, s http.ConnState) {
	if over, ok := conn.(interface{ NetConn() net.Conn }); ok { // TLS
		conn = over.NetConn()
	}
	if g, ok := conn.(*guest); ok {
		c.mu.Lock()
		g.busy, g.since = s == http.StateActive, time.Now()
		c.mu.Unlock()
	}
}

// guest is one connection of a crowd.
type guest struct {
	net.Conn
	crowd *crowd
	from  netip.Addr // invalid: not known; the first of an IPv6 network
	one   bool       // whose share of the connections is bounded

	busy  bool      // has a request under way; the crowd's mu guards it, and since
	since time.Time // of its state
}

// Write implements [net.Conn]. It ends with an error when the other side takes too little.
func (g *guest) Write(b []byte) (n int, err error) {
	for first := true; first || n < len(b); first = false {
		if err := g.SetWriteDeadline(time.Now().Add(writeWait)); err != nil {
			return n, err
		}
		k, err := g.Conn.Write(b[n:min(len(b), n+writePiece)])
		if n += k; err != nil {
			return n, err
		}
	}
	return n, nil
}

// CloseWrite lets a server say that nothing more comes while the other side still sends.
func (g *guest) CloseWrite() error {
	if c, ok := g.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// Close implements [net.Conn].
func (g *guest) Close() error {
	g.crowd.mu.Lock()
	g.crowd.forget(g)
	g.crowd.mu.Unlock()
	return g.Conn.Close()
}
