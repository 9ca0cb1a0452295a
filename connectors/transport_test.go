package connectors

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
)

// raw is a server on bare TCP: it reads whole requests and does with each connection what it is told.
type raw struct {
	net.Listener
	requests atomic.Int64 // that were read to their end
	bytes    atomic.Int64 // that were read at all
	conns    sync.WaitGroup
}

// serveRaw calls handle with the number of each request, from 1; handle says whether the connection
// stays open.
func serveRaw(t *testing.T, handle func(n int64, conn net.Conn) bool) *raw {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &raw{Listener: l}
	s.conns.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.conns.Go(func() {
				defer func() { _ = conn.Close() }()
				r := bufio.NewReader(io.TeeReader(conn, counter{&s.bytes}))
				for {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					if _, err := io.Copy(io.Discard, req.Body); err != nil {
						return
					}
					if !handle(s.requests.Add(1), conn) {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); s.conns.Wait() })
	return s
}

type counter struct{ n *atomic.Int64 }

func (c counter) Write(b []byte) (int, error) { c.n.Add(int64(len(b))); return len(b), nil }

func (s *raw) url() string { return "http://" + s.Addr().String() }

func ok(conn net.Conn) bool {
	_, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
	return err == nil
}

func opened(t *testing.T, base string, opts ...Option) *Account {
	t.Helper()
	a, err := Open(toyKind(), Settings{BaseURL: base, Rate: 10000, Timeout: 10 * time.Second}, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if rt, ok := a.t.rt.(*http.Transport); ok {
			rt.CloseIdleConnections()
		}
	})
	return a
}

// The connection of the first act is used for the second, and breaks when the request was read: the
// moment at which net/http sends some requests again.
func TestReusedConnectionBreaksAfterTheRequest(t *testing.T) {
	for _, c := range []struct {
		name    string
		request func(url string) *http.Request
	}{
		{"a body that could be sent again", func(url string) *http.Request {
			r, _ := http.NewRequest("POST", url, bytes.NewReader([]byte(`{"a": 1}`)))
			return r
		}},
		{"an idempotency key, which net/http takes for leave to repeat", func(url string) *http.Request {
			r, _ := http.NewRequest("POST", url, nil)
			r.Header.Set("Idempotency-Key", "e1.invite")
			return r
		}},
		{"a method that is idempotent to net/http", func(url string) *http.Request {
			r, _ := http.NewRequest("GET", url, nil)
			return r
		}},
		{"no body", func(url string) *http.Request {
			r, _ := http.NewRequest("DELETE", url, nil)
			return r
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := serveRaw(t, func(n int64, conn net.Conn) bool { return n == 1 && ok(conn) })
			a := opened(t, srv.url())
			act := func() error {
				_, err := a.t.Act(t.Context(), Call{Operation: "act", Request: c.request(srv.url())})
				return err
			}
			if err := act(); err != nil {
				t.Fatal(err)
			}
			var f *Fault
			if err := act(); !errors.As(err, &f) || f.Class != Unknown || f.Reason != lodestone.ReasonNoAnswer {
				t.Errorf("second act = %v, want an unknown outcome", err)
			}
			if n := srv.requests.Load(); n != 2 {
				t.Errorf("the provider read %d requests, want 2: each act once", n)
			}
		})
	}
}

// net/http would repeat this read by itself; what it is allowed for reads shows that the test above
// tests something.
func TestReadsAreRepeated(t *testing.T) {
	srv := serveRaw(t, func(n int64, conn net.Conn) bool { return n != 2 && ok(conn) })
	a := opened(t, srv.url())
	for range 2 {
		if _, err := a.Unsubscribed(t.Context(), "ada@example.com"); err != nil {
			t.Fatal(err)
		}
	}
	if n := srv.requests.Load(); n != 3 {
		t.Errorf("the provider read %d requests, want 3", n)
	}
}

// The connection is lost between being chosen and being written to: nothing left the machine.
func TestConnectionBreaksBeforeTheRequest(t *testing.T) {
	for _, c := range []struct {
		name  string
		first bool // an act that leaves the connection behind
	}{{"a new connection", false}, {"a reused connection", true}} {
		t.Run(c.name, func(t *testing.T) {
			srv := serveRaw(t, func(_ int64, conn net.Conn) bool { return ok(conn) })
			a := opened(t, srv.url())
			if c.first {
				if _, err := do(t.Context(), a); err != nil {
					t.Fatal(err)
				}
			}
			before := srv.requests.Load()
			reused := false
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
				reused = info.Reused
				_ = info.Conn.Close()
			}})
			f, _ := do(ctx, a)
			if f == nil || f.Class != NotDone || f.Reason != lodestone.ReasonNotDone || !f.CountsAttempt {
				t.Errorf("act = %+v, want not done", f)
			}
			if reused != c.first {
				t.Errorf("connection reused = %t, want %t", reused, c.first)
			}
			if n := srv.requests.Load(); n != before {
				t.Errorf("the provider read %d requests more, want none", n-before)
			}
		})
	}
}

// A connection that idles longer than a second is not used again: the provider may be dropping it.
func TestIdleConnectionsAreNotTrusted(t *testing.T) {
	rt := newRoundTripper(Settings{Concurrency: 1}, nil, new(net.Dialer).DialContext)
	if rt.IdleConnTimeout != time.Second || rt.ForceAttemptHTTP2 || rt.Protocols.HTTP2() || !rt.Protocols.HTTP1() {
		t.Errorf("transport = idle %v, protocols %v", rt.IdleConnTimeout, rt.Protocols)
	}
}

func TestCancelledAfterTheRequest(t *testing.T) {
	arrived := make(chan struct{})
	srv := serveRaw(t, func(_ int64, conn net.Conn) bool {
		close(arrived)
		_, _ = conn.Read(make([]byte, 1)) // until the client goes
		return false
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	f, err := do(ctx, opened(t, srv.url()))
	if f == nil || f.Class != Unknown || f.Reason != lodestone.ReasonNoAnswer || !errors.Is(err, context.Canceled) {
		t.Errorf("act = %+v (%v), want an unknown outcome by cancellation", f, err)
	}
}

func TestCancelledBeforeTheRequest(t *testing.T) {
	srv := serveRaw(t, func(_ int64, conn net.Conn) bool { return ok(conn) })
	ctx, cancel := context.WithCancel(t.Context())
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GetConn: func(string) { cancel() }})
	f, _ := do(ctx, opened(t, srv.url()))
	if f == nil || f.Class != NotDone || f.CountsAttempt {
		t.Errorf("act = %+v, want not done, no attempt used", f)
	}
	if n := srv.requests.Load(); n != 0 {
		t.Errorf("the provider read %d requests, want none", n)
	}
}

// A body that the kernel takes only in part was still sent in part.
func TestLargeBodyCutShort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.ReadFull(conn, make([]byte, 100))
		_ = conn.(*net.TCPConn).SetLinger(0)
		_ = conn.Close()
	}()
	a := opened(t, "http://"+l.Addr().String())
	req, err := http.NewRequest("POST", a.t.BaseURL(), bytes.NewReader(make([]byte, 32<<20)))
	if err != nil {
		t.Fatal(err)
	}
	var f *Fault
	if _, err := a.t.Act(t.Context(), Call{Operation: "act", Request: req}); !errors.As(err, &f) || f.Class != Unknown {
		t.Errorf("act = %v, want an unknown outcome", err)
	}
}

func TestNameThatCannotBeResolved(t *testing.T) {
	broken := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("no name server")
	}}
	a := opened(t, "https://provider.invalid", func(o *options) {
		rt := newRoundTripper(Settings{Concurrency: 1}, nil, new(net.Dialer).DialContext)
		d := &dialer{tls: &tls.Config{}, dial: (&net.Dialer{Resolver: broken}).DialContext}
		rt.DialTLSContext, rt.Proxy = d.secure, nil
		o.rt = rt
	})
	f, _ := do(t.Context(), a)
	if f == nil || f.Class != NotDone || !f.CountsAttempt || !strings.Contains(f.Detail, "cannot be resolved") {
		t.Errorf("act = %+v, want not done, an attempt used", f)
	}
}

func TestTLS(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 1 {
			t.Errorf("protocol %s, want HTTP/1.1", r.Proto)
		}
		if r.URL.Path == "/act" {
			panic(http.ErrAbortHandler)
		}
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that Close ends
	srv.StartTLS()
	defer srv.Close()
	pool := x509.NewCertPool()
	pool.AddCert(srv.Certificate())
	a := opened(t, srv.URL, WithTLS(&tls.Config{RootCAs: pool}))
	if _, err := a.Unsubscribed(t.Context(), "ada@example.com"); err != nil {
		t.Fatalf("a trusted certificate: %v", err)
	}
	if f, _ := do(t.Context(), a); f == nil || f.Class != Unknown {
		t.Errorf("broken after the request = %+v, want an unknown outcome", f)
	}
	cut := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		_ = info.Conn.Close() // sends TLS's goodbye, which is no part of the request
	}})
	if f, _ := do(cut, a); f == nil || f.Class != NotDone {
		t.Errorf("broken before the request = %+v, want not done", f)
	}
}

// A server that accepts connections and never greets: the handshake fails before anything is said.
func TestHandshakeBroken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	if f, _ := do(t.Context(), opened(t, "https://"+l.Addr().String())); f == nil || f.Class != NotDone || !f.CountsAttempt {
		t.Errorf("act = %+v, want not done", f)
	}
}

func TestWireCountsWritesThatLeft(t *testing.T) {
	for _, c := range []struct {
		name string
		conn net.Conn
		want int64
	}{
		{"taken", &stub{n: 5}, 1},
		{"taken in part", &stub{n: 2, err: io.ErrClosedPipe}, 1},
		{"refused", &stub{err: net.ErrClosed}, 0},
	} {
		below := &tally{Conn: c.conn}
		w := &wire{Conn: below, below: below}
		_, _ = w.Write([]byte("hello"))
		if got := w.writes.Load(); got != c.want {
			t.Errorf("%s: %d writes counted, want %d", c.name, got, c.want)
		}
	}
	// Beneath TLS the record may be out although the write above reports nothing.
	below := &tally{Conn: &stub{n: 5}}
	w := &wire{Conn: &stub{err: io.ErrClosedPipe, through: below}, below: below}
	_, _ = w.Write([]byte("hello"))
	if got := w.writes.Load(); got != 1 {
		t.Errorf("bytes below a failed write: %d writes counted, want 1", got)
	}
}

// stub is a connection whose writes end as they are told.
type stub struct {
	net.Conn
	n       int
	err     error
	through io.Writer
}

func (s *stub) Write(b []byte) (int, error) {
	if s.through != nil {
		_, _ = s.through.Write(b)
	}
	return s.n, s.err
}

// A connection of a kind that we did not make proves nothing.
func TestForeignConnectionIsBlind(t *testing.T) {
	e := &evidence{once: true}
	e.gotConn(httptrace.GotConnInfo{Conn: &stub{}})
	if !e.written() {
		t.Error("written() = false on a connection that cannot be seen into")
	}
}

func TestReadsNeedRepeatableBodies(t *testing.T) {
	a := opened(t, "http://127.0.0.1:1")
	req, err := http.NewRequest("POST", a.t.BaseURL(), io.MultiReader(strings.NewReader("{}")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.t.Read(t.Context(), Call{Operation: "check", Request: req}); err == nil || !strings.Contains(err.Error(), "repeatable") {
		t.Errorf("Read = %v, want an error", err)
	}
}

func TestReadsWithBodiesAreRepeatedWhole(t *testing.T) {
	var bodies []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if bodies = append(bodies, string(b)); len(bodies) < 3 { // one at a time
			w.WriteHeader(http.StatusBadGateway)
		}
	}))
	defer srv.Close()
	a := opened(t, srv.URL)
	req, err := http.NewRequest("POST", srv.URL, strings.NewReader("search"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.t.Read(t.Context(), Call{Operation: "search", Request: req}); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(bodies, " "); got != "search search search" {
		t.Errorf("bodies = %q", got)
	}
}

func TestManyAtOnce(t *testing.T) {
	var inside, most atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		n := inside.Add(1)
		defer inside.Add(-1)
		for {
			m := most.Load()
			if n <= m || most.CompareAndSwap(m, n) {
				return
			}
		}
	}))
	defer srv.Close()
	a := opened(t, srv.URL)
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			for range 20 {
				if _, err := do(t.Context(), a); err != nil {
					t.Error(err)
				}
				a.Blocked()
			}
		})
	}
	all.Wait()
	if n := most.Load(); n > 8 {
		t.Errorf("%d requests at a time, want at most 8", n)
	}
}
