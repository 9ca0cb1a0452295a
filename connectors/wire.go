package connectors

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// dialTimeout bounds one connection attempt with its TLS handshake, as in net/http's own default.
	dialTimeout = 10 * time.Second
	// idleConn is how long a connection may wait for its next request. Servers drop idle connections
	// after 5 s and up, and a request written into one that is being dropped has an unknown outcome;
	// a second keeps well away from that and still saves the handshakes of a busy account.
	idleConn = time.Second
)

// newRoundTripper makes HTTP/1.1 connections that count what is written to them. HTTP/2 is left out:
// many requests share one of its connections, so that what was written of one cannot be told.
func newRoundTripper(s Settings, conf *tls.Config, dial Dial) *http.Transport {
	if conf == nil {
		conf = &tls.Config{}
	}
	conf = conf.Clone()
	conf.NextProtos = []string{"http/1.1"}
	d := &dialer{dial: dial, tls: conf}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            d.plain,
		DialTLSContext:         d.secure,
		TLSClientConfig:        conf, // behind a proxy, where net/http makes the handshake itself
		TLSHandshakeTimeout:    dialTimeout,
		MaxIdleConnsPerHost:    s.Concurrency,
		IdleConnTimeout:        idleConn,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true, // bodies are small, and one that cannot be unpacked is one fault more
		Protocols:              protocols,
	}
}

type dialer struct {
	dial Dial
	tls  *tls.Config
}

func (d *dialer) plain(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, err := d.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	t := &tally{Conn: c}
	return &wire{Conn: t, below: t}, nil
}

func (d *dialer) secure(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, err := d.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	conf := d.tls
	if conf.ServerName == "" {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			_ = c.Close()
			return nil, err
		}
		conf = conf.Clone()
		conf.ServerName = host
	}
	t := &tally{Conn: c}
	secured := tls.Client(t, conf)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = c.Close()
		return nil, &handshakeError{err}
	}
	return &wire{Conn: secured, below: t}, nil
}

// handshakeError tells a failed handshake from a broken connection.
type handshakeError struct{ err error }

func (e *handshakeError) Error() string { return "TLS handshake: " + e.err.Error() }
func (e *handshakeError) Unwrap() error { return e.err }

// tally counts the bytes that the network took.
type tally struct {
	net.Conn
	bytes atomic.Int64
}

func (t *tally) Write(b []byte) (int, error) {
	n, err := t.Conn.Write(b)
	t.bytes.Add(int64(n))
	return n, err
}

// wire is a connection that knows how often requests were written to it. A write counts from before
// it begins, and stops counting only when it failed and the network took not one byte of it.
type wire struct {
	net.Conn
	below  *tally
	writes atomic.Int64
}

func (w *wire) Write(b []byte) (int, error) {
	w.writes.Add(1)
	before := w.below.bytes.Load()
	n, err := w.Conn.Write(b)
	if err != nil && n == 0 && w.below.bytes.Load() == before {
		w.writes.Add(-1)
	}
	return n, err
}

// evidence is what is known of one request's way to the network.
type evidence struct {
	once bool // the request must be written to one connection only

	mu     sync.Mutex // guards what follows
	conn   *wire
	before int64 // writes on conn before this request
	blind  bool  // the connection is one we cannot see into
}

// written says whether anything of the request may have reached the network. After RoundTrip
// returned an error the answer is final: net/http closes the connection before it gives up on it,
// and a write that began earlier was counted before it began.
func (e *evidence) written() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.writtenLocked()
}

func (e *evidence) writtenLocked() bool {
	return e.blind || e.conn != nil && e.conn.writes.Load() != e.before
}

// gotConn is called by net/http before it writes the request to a connection. It repeats some
// requests by its own rules when a reused connection breaks; those rules do not cover acts as we send
// them, and here a second connection is closed under its hands should they ever do.
func (e *evidence) gotConn(info httptrace.GotConnInfo) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.once && e.writtenLocked() {
		_ = info.Conn.Close()
		return
	}
	c := info.Conn
	if t, ok := c.(*tls.Conn); ok { // behind a proxy
		c = t.NetConn()
	}
	w, ok := c.(*wire)
	if !ok {
		e.blind = true
		return
	}
	e.conn, e.before = w, w.writes.Load()
}

func (e *evidence) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: e.gotConn})
}
