package broker

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

const (
	maxPayload = 1 << 20 // of one message, in bytes; submissions have at most a quarter of it
	startLimit = 30 * time.Second
)

// openInside starts a server in this process and connects to it without a socket.
func (b *Broker) openInside() error {
	o := server.Options{
		ServerName:        b.opts.Name,
		JetStream:         true,
		StoreDir:          b.opts.Dir,
		JetStreamMaxStore: b.opts.MaxStore,
		SyncAlways:        true,
		MaxPayload:        maxPayload,
		NoSigs:            true, // the process has its own way to stop
		DontListen:        true,
	}
	door := &doorkeeper{inside: rand.Text(), keys: FormKeys{b.opts.FormKeys}}
	if b.opts.Credentials != "" {
		var err error
		if door.user, door.password, err = readUser(b.opts.Credentials); err != nil {
			return err
		}
	}
	o.CustomClientAuthentication = door
	if b.opts.Listen != "" && b.opts.Listen != "none" {
		host, port, err := listenAt(b.opts.Listen, door.user != "")
		if err != nil {
			return err
		}
		o.DontListen, o.Host, o.Port = false, host, port
	}
	if b.opts.Websocket != "" && b.opts.Websocket != "none" {
		if err := openWebsocket(&o, b.opts, door.user != ""); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(b.opts.Dir, 0o700); err != nil {
		return fmt.Errorf("make the JetStream directory: %w", err)
	}
	var err error
	if b.lock, err = lockDir(b.opts.Dir); err != nil {
		return err
	}
	s, err := server.NewServer(&o)
	if err != nil {
		return fmt.Errorf("start the NATS server: %w", err)
	}
	b.server = s
	logger := &serverLog{log: b.log}
	s.SetLogger(logger, false, false)
	s.Start()
	if fatal := logger.fatal(); fatal != "" {
		if !o.DontListen && s.Addr() == nil {
			return fmt.Errorf("%w at %s: %s; is another server there? Set nats.listen to a free address, or to none", ErrListen, b.opts.Listen, fatal)
		}
		return fmt.Errorf("start the NATS server: %s", fatal)
	}
	if !s.ReadyForConnections(startLimit) {
		return fmt.Errorf("start the NATS server: it was not ready after %v", startLimit)
	}
	if addr := s.Addr(); addr != nil {
		b.url = "nats://" + addr.String()
	}
	if b.nc, err = b.connect("", nats.UserInfo(insideUser, door.inside), nats.InProcessServer(s)); err != nil {
		return fmt.Errorf("connect to the NATS server in this process: %w", err)
	}
	b.setStatus(func(s *Status) { s.Connected, s.Synced = true, true })
	return nil
}

// openWebsocket adds the listener for browsers. Whoever has no key must not come in there, so clients
// must name a user. It speaks plain text; a proxy before it does TLS.
func openWebsocket(o *server.Options, b Options, guarded bool) error {
	if !guarded {
		return fmt.Errorf("%w at %s: browsers could do anything there without a password; put user:password into a file and name it in nats.credentials", ErrListen, b.Websocket)
	}
	host, port, err := listenAt(b.Websocket, true)
	if err != nil {
		return err
	}
	o.Websocket = server.WebsocketOpts{Host: host, Port: port, NoTLS: true, HandshakeTimeout: 5 * time.Second}
	if !slices.Contains(b.Origins, "*") {
		o.Websocket.AllowedOrigins = b.Origins
	}
	return nil
}

// listenAt reads host:port for the server, where -1 is "any free port". An address that other
// machines can reach is refused unless clients must name a user.
func listenAt(listen string, guarded bool) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(listen)
	if err != nil {
		return "", 0, fmt.Errorf("%w: nats.listen is %q, want host:port as in 127.0.0.1:4222, or none", ErrListen, listen)
	}
	port, err = strconv.Atoi(p)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("%w: the port in nats.listen is %q, want 0 to 65535", ErrListen, p)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	if !guarded && !isLoopback(host) {
		return "", 0, fmt.Errorf("%w at %s: other machines could reach it without a password. "+
			"Listen on 127.0.0.1, put user:password into a file and name it in nats.credentials, or run nats-server on its own and set nats.url", ErrListen, listen)
	}
	return host, port, nil
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// readUser reads user:password from the first line of a file. The error does not repeat it.
func readUser(path string) (user, password string, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", "", fmt.Errorf("read nats.credentials: %w", err)
	}
	line, rest, _ := bytes.Cut(bytes.TrimSpace(b), []byte("\n"))
	user, password, ok := strings.Cut(strings.TrimSpace(string(line)), ":")
	if !ok || user == "" || password == "" || len(rest) > 0 {
		return "", "", errors.New("read nats.credentials: for the server in this process the file holds one line, user:password")
	}
	return user, password, nil
}

// serverLog passes on what the server says. What the server calls a notice is detail here.
type serverLog struct {
	log   *slog.Logger
	mu    sync.Mutex // guards first
	first string     // fatal message
}

func (l *serverLog) Noticef(format string, v ...any) {
	l.log.Debug("nats-server: " + fmt.Sprintf(format, v...))
}
func (l *serverLog) Debugf(format string, v ...any) {
	l.log.Debug("nats-server: " + fmt.Sprintf(format, v...))
}
func (l *serverLog) Tracef(format string, v ...any) {
	l.log.Debug("nats-server: " + fmt.Sprintf(format, v...))
}
func (l *serverLog) Warnf(format string, v ...any) {
	l.log.Warn("nats-server: " + fmt.Sprintf(format, v...))
}
func (l *serverLog) Errorf(format string, v ...any) {
	l.log.Error("nats-server: " + fmt.Sprintf(format, v...))
}

// Fatalf must not end the process, which the server's own logger would; Open returns the message.
func (l *serverLog) Fatalf(format string, v ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first == "" {
		l.first = fmt.Sprintf(format, v...)
	}
}

func (l *serverLog) fatal() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first
}
