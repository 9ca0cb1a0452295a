// Package broker is the connection to NATS JetStream: to a server inside this process, or to one
// outside. It makes the streams, publishes in batches and says whether the connection stands.
//
// What it promises: a message that was acknowledged is on disk. JetStream's own default does not
// promise that; it syncs every two minutes and loses what came in between when the power fails.
//
//   - The server inside runs with SyncAlways. Nothing but its client listener is opened, that one on
//     loopback unless clients must name a user and a password, and the process's own connection needs
//     no socket at all.
//   - A server outside is asked whether it runs with sync_interval: always. A plain client cannot see
//     that: neither the server's greeting nor the JetStream API says it. It stands in the server's
//     monitoring answer varz, which is had over HTTP ([Options.Monitor]) or with a user of the system
//     account ([Options.SystemCredentials]). Every server of a cluster must say so, and the answer must
//     come from the server that this process is connected to. It is asked again after each reconnect,
//     because a server that was restarted may have been given other settings. Without a yes the
//     connection is refused, unless [Options.AcceptUnsynced].
//   - Servers older than 2.15 are refused like unsynced ones: before it a stream's inline compaction
//     did not sync, whatever the setting.
//
// The streams keep every message until it is purged: no age limit, no discarding of old messages; a
// stream that is full refuses new ones, and the publisher hears it as [ErrFull].
//
// One process at a time may have a JetStream directory open. nats-server does not see to that, so
// Open holds a lock on the directory.
package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Options says where the server is and what it may do.
type Options struct {
	URL    string // of a server outside, several separated by commas; empty: a server in this process
	Listen string // server inside: host:port, port 0 picks a free one; "none" or empty: in-process only
	// Credentials is the path of a file. For a server outside: a NATS credentials file. For the server
	// inside: one line user:password that clients of the listener must give; without it the listener
	// must be on loopback.
	Credentials string
	Websocket   string   // server inside: host:port for browsers; "none" or empty: nowhere. Needs Credentials
	Origins     []string // server inside: pages whose scripts may use Websocket; empty or "*": any
	FormKeys    string   // server inside: path of the file of [FormKeys]; without the file there are none
	Dir         string   // server inside: JetStream's directory; made with mode 0700
	MaxStore    int64    // server inside: bytes of all streams together; 0: three quarters of the free disk
	MaxBytes    int64    // bytes of each stream that EnsureStreams makes; 0: up to the server's limit
	Replicas    int      // of each stream that EnsureStreams makes; 0: 1

	Monitor           []string // server outside: monitoring addresses, as in http://127.0.0.1:8222, one for each server
	SystemCredentials string   // server outside: path of a credentials file of a user of the system account
	AcceptUnsynced    bool     // server outside: go on when nobody says that it syncs

	Name string       // of this connection and of the server inside; empty: lodestone
	Log  *slog.Logger // nil: silent
}

var (
	// ErrUnsynced says that a server outside is not known to sync before it acknowledges.
	ErrUnsynced = errors.New("the NATS server is not known to sync before it acknowledges")
	// ErrInUse says that another process holds the JetStream directory.
	ErrInUse = errors.New("another process has this directory open")
	// ErrListen says that the listener of the server inside cannot be opened.
	ErrListen = errors.New("cannot listen for NATS clients")
)

// Broker is an open connection. It is safe for concurrent use.
type Broker struct {
	opts   Options
	log    *slog.Logger
	server *server.Server // nil for a server outside
	lock   *dirLock
	nc     *nats.Conn
	js     jetstream.JetStream
	url    string
	closed chan struct{} // closed by the connection when it is over

	back  chan struct{}      // the server outside came back and is to be asked again
	stop  context.CancelFunc // ends watch
	watch sync.WaitGroup     // the goroutine that asks

	mu     sync.Mutex // guards status
	status Status
	once   sync.Once // of Close
}

// Status is how the connection stands.
type Status struct {
	Connected bool
	Since     time.Time // of Connected being as it is
	Synced    bool      // the server said so, or the configuration accepts that it may not
	Detail    string    // why not, in words; empty when all is well
}

// Ready reports whether submissions can be taken: connected, and to a server that syncs.
func (s Status) Ready() bool { return s.Connected && s.Synced }

// Open starts the server inside or connects to the one outside. While a server outside cannot be
// reached it tries on until ctx is done; a refusal (credentials, ErrUnsynced) ends it at once. ctx
// bounds Open alone; what is opened stays open until Close.
func Open(ctx context.Context, o Options) (_ *Broker, err error) {
	if o.Name == "" {
		o.Name = "lodestone"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	b := &Broker{opts: o, log: o.Log, closed: make(chan struct{}), back: make(chan struct{}, 1)}
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	b.stop = stop
	defer func() {
		if err != nil {
			b.Close()
		}
	}()
	if o.URL == "" {
		err = b.openInside()
	} else {
		err = b.openOutside(ctx)
	}
	if err != nil {
		return nil, err
	}
	// A publish that hears nothing for this long is given up; the disk of a healthy server answers
	// within milliseconds.
	b.js, err = jetstream.New(b.nc, jetstream.WithPublishAsyncMaxPending(maxPending), jetstream.WithPublishAsyncTimeout(publishTimeout))
	if err != nil {
		return nil, fmt.Errorf("open JetStream: %w", err)
	}
	b.watch.Go(func() { b.askAgain(life) })
	return b, nil
}

// connect opens a client connection with what every connection has.
func (b *Broker) connect(addr string, more ...nats.Option) (*nats.Conn, error) {
	opts := []nats.Option{
		nats.Name(b.opts.Name),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(500 * time.Millisecond),
		nats.DrainTimeout(5 * time.Second),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			detail := "the connection to NATS was closed"
			if err != nil {
				detail = "the connection to NATS broke: " + err.Error()
				b.log.Warn("NATS connection lost", "error", err)
			}
			b.setStatus(func(s *Status) { s.Connected, s.Detail = false, detail })
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) { b.reconnect(nc) }),
		nats.ClosedHandler(func(*nats.Conn) { close(b.closed) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			b.log.Warn("NATS client", "error", err)
		}),
	}
	return nats.Connect(addr, append(opts, more...)...)
}

func (b *Broker) setStatus(change func(*Status)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	was := b.status.Connected
	change(&b.status)
	if b.status.Connected != was || b.status.Since.IsZero() {
		b.status.Since = time.Now().UTC()
	}
}

// reconnect takes the connection as good again; a server outside first has to say once more that it
// syncs.
func (b *Broker) reconnect(nc *nats.Conn) {
	b.log.Info("NATS connection is back", "server", nc.ConnectedServerName())
	if b.server != nil || b.opts.AcceptUnsynced {
		b.setStatus(func(s *Status) { s.Connected, s.Detail = true, "" })
		return
	}
	b.setStatus(func(s *Status) {
		s.Connected, s.Synced, s.Detail = true, false, "the NATS server that came back is being asked whether it syncs"
	})
	select {
	case b.back <- struct{}{}:
	default: // it is about to be asked anyway
	}
}

// askAgain asks a server that came back until it says that it syncs. It works until ctx is done.
func (b *Broker) askAgain(ctx context.Context) {
	var again <-chan time.Time
	var wait time.Duration
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.back:
			wait = time.Second
		case <-again:
		}
		again = nil
		id := b.nc.ConnectedServerId()
		err := b.verify(ctx, b.nc)
		if ctx.Err() != nil || id == "" || b.nc.ConnectedServerId() != id {
			continue // the connection is gone again; its return is another turn
		}
		b.setStatus(func(s *Status) {
			if s.Synced, s.Detail = err == nil, ""; err != nil {
				s.Detail = err.Error()
			}
		})
		if err != nil {
			b.log.Error("the NATS server that came back is not known to sync", "error", err)
			again = time.After(wait)
			wait = min(2*wait, 30*time.Second)
		}
	}
}

// JetStream returns the JetStream context of the connection.
func (b *Broker) JetStream() jetstream.JetStream { return b.js }

// Conn returns the connection. It is the broker's; close the broker instead.
func (b *Broker) Conn() *nats.Conn { return b.nc }

// URL is where other processes reach the server, without user and password; empty when they cannot.
func (b *Broker) URL() string { return b.url }

// Status says how the connection stands now.
func (b *Broker) Status() Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.status
}

// Close sends what is buffered, closes the connection, and stops the server inside when there is one;
// when it returns the directory can be opened again. Only the first call does something.
func (b *Broker) Close() {
	b.once.Do(func() {
		b.stop()
		b.watch.Wait()
		if b.nc != nil {
			if b.nc.Drain() != nil { // not connected: there is nobody to send to
				b.nc.Close()
			}
			<-b.closed
		}
		if b.server != nil {
			b.server.Shutdown()
			b.server.WaitForShutdown()
		}
		b.lock.release()
	})
}

// openOutside connects to a server outside and asks whether it syncs.
func (b *Broker) openOutside(ctx context.Context) error {
	addr, err := withoutUser(b.opts.URL)
	if err != nil {
		return err
	}
	var more []nats.Option
	if b.opts.Credentials != "" {
		more = append(more, nats.UserCredentials(b.opts.Credentials))
	}
	for wait := 250 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		if b.nc, err = b.connect(b.opts.URL, more...); err == nil {
			break
		}
		if !isAway(err) {
			return fmt.Errorf("connect to NATS at %s: %w; see nats.url and nats.credentials", addr, err)
		}
		b.log.Warn("NATS cannot be reached, trying again", "server", addr, "error", err)
		select {
		case <-ctx.Done():
			return fmt.Errorf("connect to NATS at %s: %w; see nats.url", addr, errors.Join(err, ctx.Err()))
		case <-time.After(wait):
		}
	}
	b.url = addr
	b.setStatus(func(s *Status) { s.Connected, s.Synced = true, true })
	if b.opts.AcceptUnsynced {
		b.log.Warn("it is accepted that the NATS server may lose acknowledged submissions (nats.accept_unsynced)", "server", addr)
		return nil
	}
	for {
		err := b.verify(ctx, b.nc)
		if err == nil {
			return nil
		}
		// A server that went away meanwhile has not said no; what it says when it is back counts.
		if _, gone := b.nc.RTT(); gone == nil || ctx.Err() != nil {
			return fmt.Errorf("NATS at %s: %w", addr, err)
		}
		b.log.Warn("NATS went away before it was asked whether it syncs, trying again", "server", addr, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// isAway reports whether a connection failed because nobody was there, or went while they shook hands, as
// opposed to being refused. The client library returns what broke a handshake as it is.
func isAway(err error) bool {
	for _, away := range []error{
		nats.ErrNoServers, nats.ErrTimeout, nats.ErrConnectionClosed,
		io.EOF, io.ErrUnexpectedEOF, syscall.EPIPE, syscall.ECONNRESET, syscall.ECONNABORTED,
	} {
		if errors.Is(err, away) {
			return true
		}
	}
	var network net.Error
	return errors.As(err, &network) && network.Timeout()
}

// Patiently calls fn, which asks the server something, again and again while the server is away or starting.
// It returns what fn returns otherwise, and what it returned last when ctx is done.
func (b *Broker) Patiently(ctx context.Context, fn func() error) error {
	for {
		err := fn()
		if err == nil || ctx.Err() != nil || !noAnswer(err) {
			return err
		}
		b.log.Warn("NATS does not answer, trying again", "server", b.url, "error", err)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Second):
		}
	}
}

// noAnswer reports whether a question failed because the server was away or not ready yet.
func noAnswer(err error) bool {
	for _, away := range []error{
		nats.ErrTimeout, nats.ErrNoResponders, nats.ErrDisconnected, nats.ErrConnectionReconnecting, nats.ErrNoServers,
		context.DeadlineExceeded, jetstream.ErrNoStreamResponse, jetstream.ErrJetStreamNotEnabled,
	} {
		if errors.Is(err, away) {
			return true
		}
	}
	var api *jetstream.APIError
	return errors.As(err, &api) && api.Code == 503
}

// withoutUser removes user and password from the addresses of servers, and checks them so that no
// error of the client library has a reason to repeat them.
func withoutUser(addrs string) (string, error) {
	var out []string
	for addr := range strings.SplitSeq(addrs, ",") {
		addr = strings.TrimSpace(addr)
		if !strings.Contains(addr, "://") {
			addr = "nats://" + addr
		}
		u, err := url.Parse(addr)
		if err != nil || u.Host == "" {
			return "", errors.New("nats.url is not an address as in nats://127.0.0.1:4222")
		}
		u.User = nil
		out = append(out, u.String())
	}
	return strings.Join(out, ","), nil
}
