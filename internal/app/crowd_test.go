package app

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestUnreadBodies: a client that announces a body and sends none of it is answered and let go, on every route, also where
// nobody asked for a body.
func TestUnreadBodies(t *testing.T) {
	s := newWeb(t)
	for _, what := range []string{
		"GET /healthz", "GET /readyz", "GET /", "GET /login", "POST /login", "POST /nowhere", "GET /nowhere", "GET /unsubscribe/x", "POST /unsubscribe/x", "GET /confirm/x",
		"GET /lodestone.js", "GET /forms/guide", "POST /forms/none", "OPTIONS /forms/guide", "POST /hooks/none", "GET /metrics",
		"POST /api/v1/pauses", "GET /api/v1/queue", "POST /api/v1/nothing",
	} {
		for _, length := range []string{"Content-Length: 1000\r\n\r\nx", "Transfer-Encoding: chunked\r\n\r\n5\r\nx"} {
			t.Run(what, func(t *testing.T) {
				t.Parallel()
				conn, err := net.Dial("tcp", s.w.Web())
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if _, err := fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: forms.example.com\r\nContent-Type: application/json\r\n%s", what, length); err != nil {
					t.Fatal(err)
				}
				if err := conn.SetReadDeadline(time.Now().Add(50 * time.Second)); err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(conn)
				if err != nil || !bytes.HasPrefix(got, []byte("HTTP/1.1 ")) {
					t.Errorf("it was answered %.40q and then: %v", got, err)
				}
			})
		}
	}
}

// pipes is a listener whose connections are in memory, so that a bubble's clock holds for them.
type pipes struct {
	conns chan net.Conn
	gone  chan struct{}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.gone:
		return nil, net.ErrClosed
	}
}
func (p pipes) Close() error   { close(p.gone); return nil }
func (p pipes) Addr() net.Addr { return address("listener") }

type address string

func (a address) Network() string { return "pipe" }
func (a address) String() string  { return string(a) }

type pipe struct {
	net.Conn
	from string
}

func (p pipe) RemoteAddr() net.Addr { return address(p.from) }

// room is a server behind a crowd of connections in memory.
type room struct {
	t     *testing.T
	pipes pipes
}

// newRoom begins one whose requests for /slow end when a test is over.
func newRoom(t *testing.T, most int) *room {
	r := &room{t, pipes{make(chan net.Conn), make(chan struct{})}}
	c := newCrowd(r.pipes, most, func(a netip.Addr) bool { return a.String() == "10.0.0.1" })
	over := make(chan struct{})
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, ConnState: c.state, Handler: timely(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.Path {
		case "/slow":
			<-over
		case "/large":
			_, _ = io.Copy(w, strings.NewReader(strings.Repeat("x", 1<<20)))
		}
	}))}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(c) }()
	t.Cleanup(func() { close(over); _ = srv.Close(); <-done })
	return r
}

// come opens a connection and asks for a path, "" for none.
func (r *room) come(from, path string) net.Conn {
	near, far := net.Pipe()
	r.pipes.conns <- pipe{far, from}
	if path != "" {
		_, _ = fmt.Fprintf(near, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
	}
	synctest.Wait()
	r.t.Cleanup(func() { _ = near.Close() })
	return near
}

// open reports whether a connection was not closed by the server.
func (r *room) open(c net.Conn) bool {
	_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := io.Copy(io.Discard, c)
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}

// TestCrowd: where the connections are all taken, the one that has waited longest for nothing makes room, and one with a
// request under way never does.
func TestCrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t, 16)
		busy := r.come("203.0.113.1:1", "/slow")
		var idle []net.Conn
		for i := range 15 {
			time.Sleep(time.Millisecond)
			idle = append(idle, r.come(fmt.Sprintf("198.51.100.%d:1", i), ""))
		}
		latest := r.come("192.0.2.1:1", "/slow")
		if r.open(idle[0]) || !r.open(idle[1]) || !r.open(busy) || !r.open(latest) {
			t.Error("another one made room than the one that waited longest")
		}
		for i := range 14 {
			r.come(fmt.Sprintf("192.0.2.%d:2", i+2), "/slow")
		}
		if refused := r.come("192.0.2.99:1", ""); r.open(refused) || !r.open(busy) || !r.open(latest) {
			t.Error("with a request under way on each, one was closed for a new one")
		}
	})
}

// TestCrowdOfOneAddress: one address has a part of the connections, a proxy's as many as there are, and an IPv6 network
// is one address.
func TestCrowdOfOneAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t, 32)
		for i := range 8 {
			r.come(fmt.Sprintf("203.0.113.1:%d", i+1), "/slow")
			r.come(fmt.Sprintf("[2001:db8::%d]:1", i+1), "/slow")
		}
		if r.open(r.come("203.0.113.1:99", "/slow")) || r.open(r.come("[2001:db8::99]:1", "/slow")) {
			t.Error("one address has more than its part")
		}
		if !r.open(r.come("203.0.113.2:1", "/slow")) {
			t.Error("another one has none")
		}
		for i := range 12 {
			if !r.open(r.come(fmt.Sprintf("10.0.0.1:%d", i+1), "/slow")) {
				t.Fatalf("a proxy has %d", i)
			}
		}
	})
}

// TestReaderThatTakesNothing: an answer that nobody takes is given up, a slow reader has it whole.
func TestReaderThatTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t, 16)
		slow, never := r.come("203.0.113.1:1", "/large"), r.come("203.0.113.2:1", "/large")
		n := 0
		for buf := make([]byte, 8<<10); n < 1<<20; {
			time.Sleep(10 * time.Second)
			k, err := slow.Read(buf)
			if n += k; err != nil {
				t.Fatalf("after %d bytes: %v", n, err)
			}
		}
		if r.open(never) {
			t.Error("a reader that takes nothing keeps its connection")
		}
	})
}
