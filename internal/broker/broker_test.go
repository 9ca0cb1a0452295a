package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// open opens a broker that is closed with the test.
func open(t *testing.T, o Options) *Broker {
	t.Helper()
	if o.URL == "" && o.Dir == "" {
		o.Dir = t.TempDir()
	}
	b, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// openWithStreams opens an embedded broker and makes the streams.
func openWithStreams(t *testing.T, o Options) *Broker {
	t.Helper()
	b := open(t, o)
	if err := b.EnsureStreams(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

// eventually waits until done says so.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.After(15 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-deadline:
			t.Fatalf("%s: not within 15s", what)
		case <-tick.C:
		}
	}
}

func count(t *testing.T, b *Broker, stream string) uint64 {
	t.Helper()
	s, err := b.JetStream().Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().State.Msgs
}

func TestEmbeddedIsDurable(t *testing.T) {
	b := open(t, Options{})
	v, err := b.server.Varz(nil)
	if err != nil {
		t.Fatal(err)
	}
	if !v.JetStream.Config.SyncAlways {
		t.Error("the server does not sync before it acknowledges")
	}
	if v.MaxPayload != maxPayload || b.URL() != "" || b.server.Addr() != nil || b.server.MonitorAddr() != nil || v.Cluster.Port != 0 {
		t.Errorf("something is open: url %q, addr %v", b.URL(), b.server.Addr())
	}
	if s := b.Status(); !s.Ready() || s.Since.IsZero() || s.Detail != "" {
		t.Errorf("status = %+v", s)
	}
}

func TestDirectoryIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data", "jetstream")
	open(t, Options{Dir: dir})
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode = %v, %v; want 0700", info.Mode(), err)
	}
}

func TestRestartKeepsMessages(t *testing.T) {
	dir := t.TempDir()
	b := openWithStreams(t, Options{Dir: dir})
	created, first, last, err := b.StreamIdentity(t.Context(), FormsStream)
	if err != nil || first != 1 || last != 0 || created.IsZero() {
		t.Fatalf("identity of an empty stream: %v %d %d %v", created, first, last, err)
	}
	if err := b.PublishBatch(t.Context(), messages(20, "restart")); err != nil {
		t.Fatal(err)
	}
	b.Close()
	b.Close() // does nothing

	b = openWithStreams(t, Options{Dir: dir})
	again, first, last, err := b.StreamIdentity(t.Context(), FormsStream)
	if err != nil || !again.Equal(created) || first != 1 || last != 20 {
		t.Errorf("identity = %v %d %d %v, want %v 1 20", again, first, last, err, created)
	}
	stream, err := b.JetStream().Stream(t.Context(), FormsStream)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range messages(20, "restart") {
		m, err := stream.GetMsg(t.Context(), uint64(i+1))
		if err != nil || !bytes.Equal(m.Data, want.Data) || m.Subject != want.Subject {
			t.Errorf("message %d: %v, %v", i+1, m, err)
		}
	}
	if _, _, _, err := b.StreamIdentity(t.Context(), "NOBODY"); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("identity of no stream: %v", err)
	}
}

func TestOneProcessForADirectory(t *testing.T) {
	dir := t.TempDir()
	b := open(t, Options{Dir: dir})
	_, err := Open(t.Context(), Options{Dir: dir})
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), dir) {
		t.Errorf("second Open: %v", err)
	}
	b.Close()
	open(t, Options{Dir: dir})
}

func TestListen(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for listen, want := range map[string]string{
		"127.0.0.1":           "want host:port",
		"127.0.0.1:x":         "0 to 65535",
		"127.0.0.1:70000":     "0 to 65535",
		":4222":               "without a password",
		"0.0.0.0:0":           "without a password",
		"[::]:0":              "without a password",
		"192.0.2.1:0":         "without a password",
		"example.com:4222":    "without a password",
		taken.Addr().String(): "Set nats.listen to a free address",
		"127.0.0.1:4222:5":    "want host:port",
	} {
		b, err := Open(t.Context(), Options{Listen: listen, Dir: t.TempDir()})
		if !errors.Is(err, ErrListen) || !strings.Contains(err.Error(), want) {
			t.Errorf("listen on %s: %v, want ErrListen with %q", listen, err, want)
		}
		if err == nil {
			b.Close()
		}
	}

	b := openWithStreams(t, Options{Listen: "127.0.0.1:0"})
	nc, err := nats.Connect(b.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "lodestone.forms.x", []byte("{}")); err != nil {
		t.Errorf("publish from outside: %v", err)
	}
}

func TestListenWithPassword(t *testing.T) {
	file := filepath.Join(t.TempDir(), "user")
	if err := os.WriteFile(file, []byte("web:s3cret-word\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := openWithStreams(t, Options{Listen: "0.0.0.0:0", Credentials: file})
	_, port, err := net.SplitHostPort(strings.TrimPrefix(b.URL(), "nats://"))
	if err != nil || strings.Contains(b.URL(), "s3cret") {
		t.Fatalf("url %q: %v", b.URL(), err)
	}
	if nc, err := nats.Connect("nats://127.0.0.1:" + port); err == nil {
		nc.Close()
		t.Error("a client without a password was let in")
	}
	nc, err := nats.Connect("nats://127.0.0.1:"+port, nats.UserInfo("web", "s3cret-word"))
	if err != nil {
		t.Fatalf("a client with the password was not let in: %v", err)
	}
	nc.Close()

	for name, content := range map[string]string{"no colon": "s3cret", "no user": ":s3cret", "two lines": "a:s3cret\nb:c", "empty": ""} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(t.Context(), Options{Listen: "127.0.0.1:0", Credentials: file, Dir: t.TempDir()})
		if err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCloseLeavesNothing: no goroutine of the server or the client lives on, and a failed Open leaves
// none either.
func TestCloseLeavesNothing(t *testing.T) {
	b, err := Open(t.Context(), Options{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.EnsureStreams(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.PublishBatch(t.Context(), messages(100, "close")); err != nil {
		t.Fatal(err)
	}
	b.Close()
	if _, err := Open(t.Context(), Options{Dir: t.TempDir(), Listen: "nowhere"}); err == nil {
		t.Fatal("opened")
	}
	eventually(t, "goroutines end", func() bool {
		buf := make([]byte, 1<<20)
		return !bytes.Contains(buf[:runtime.Stack(buf, true)], []byte("nats-io/"))
	})
	if s := b.Status(); s.Connected {
		t.Errorf("status after Close = %+v", s)
	}
}

// lines is a log that tests can read.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestServerLog(t *testing.T) {
	var out lines
	open(t, Options{Log: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if s := out.String(); !strings.Contains(s, "level=DEBUG msg=\"nats-server: ") || strings.Contains(s, "level=ERROR") {
		t.Errorf("log:\n%s", s)
	}
}

// outside is a NATS server on its own.
type outside struct {
	*server.Server
	opts server.Options
}

// startOutside starts one; sync and monitor as said.
func startOutside(t *testing.T, change func(*server.Options)) *outside {
	t.Helper()
	o := server.Options{ServerName: "outside", Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true}
	if change != nil {
		change(&o)
	}
	s := &outside{opts: o}
	s.start(t)
	t.Cleanup(func() { s.stop() })
	return s
}

func (s *outside) start(t *testing.T) {
	t.Helper()
	o := s.opts
	srv, err := server.NewServer(&o)
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	if !srv.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server outside does not start")
	}
	s.Server, s.opts.Port = srv, srv.Addr().(*net.TCPAddr).Port
	if a := srv.MonitorAddr(); a != nil {
		s.opts.HTTPPort = a.Port
	}
}

func (s *outside) stop() {
	s.Shutdown()
	s.WaitForShutdown()
}

func (s *outside) monitor() string { return fmt.Sprintf("http://127.0.0.1:%d", s.MonitorAddr().Port) }

func TestOutsideMustSync(t *testing.T) {
	monitored := func(sync bool) func(*server.Options) {
		return func(o *server.Options) {
			o.SyncAlways, o.HTTPHost, o.HTTPPort = sync, "127.0.0.1", server.RANDOM_PORT
		}
	}
	syncs, lazy := startOutside(t, monitored(true)), startOutside(t, monitored(false))
	bare := startOutside(t, func(o *server.Options) {
		monitored(true)(o)
		o.JetStream = false
	})
	tests := []struct {
		name string
		o    Options
		want string // part of the error; empty: it opens
	}{
		{"it says that it syncs", Options{URL: syncs.ClientURL(), Monitor: []string{syncs.monitor() + "/"}}, ""},
		{"it does not", Options{URL: lazy.ClientURL(), Monitor: []string{lazy.monitor()}}, "server outside does not run with sync_interval: always"},
		{"nobody says", Options{URL: syncs.ClientURL()}, "set nats.monitor"},
		{"another server says so", Options{URL: lazy.ClientURL(), Monitor: []string{syncs.monitor()}}, "nats.monitor must name the one that nats.url names"},
		{"one of them does not", Options{URL: syncs.ClientURL(), Monitor: []string{syncs.monitor(), lazy.monitor()}}, "does not run with sync_interval: always"},
		{"it has no JetStream", Options{URL: bare.ClientURL(), Monitor: []string{bare.monitor()}}, "no server that answered has JetStream"},
		{"nobody at the address", Options{URL: syncs.ClientURL(), Monitor: []string{"http://127.0.0.1:1"}}, "does not answer"},
		{"something else at the address", Options{URL: syncs.ClientURL(), Monitor: []string{syncs.monitor() + "/healthz"}}, "nats.monitor"},
		{"it is accepted", Options{URL: lazy.ClientURL(), AcceptUnsynced: true}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, err := Open(t.Context(), tt.o)
			if err == nil {
				defer b.Close()
			}
			if tt.want == "" {
				if err != nil || !b.Status().Ready() || b.URL() != tt.o.URL {
					t.Errorf("Open: %v", err)
				}
				return
			}
			if !errors.Is(err, ErrUnsynced) || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("Open: %v, want ErrUnsynced with %q", err, tt.want)
			}
			for _, remedy := range []string{"nats.accept_unsynced: true", "sync_interval: always"} {
				if !strings.Contains(err.Error(), remedy) {
					t.Errorf("%v does not name %s", err, remedy)
				}
			}
		})
	}
}

// TestSystemAccount: the answer is had over the system account, and a user of another account is no
// way to it. That is also why a plain client cannot ask.
func TestSystemAccount(t *testing.T) {
	for _, sync := range []bool{true, false} {
		s := startOutside(t, func(o *server.Options) {
			o.SyncAlways = sync
			app, sys := server.NewAccount("APP"), server.NewAccount("SYS")
			o.Accounts, o.SystemAccount = []*server.Account{app, sys}, "SYS"
			o.Users = []*server.User{{Username: "app", Password: "p", Account: app}, {Username: "sys", Password: "p", Account: sys}}
		})
		ask := func(user string) ([]varz, error) {
			nc, err := nats.Connect(s.ClientURL(), nats.UserInfo(user, "p"))
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			return askAll(ctx, nc)
		}
		found, err := ask("sys")
		if err != nil || len(found) != 1 {
			t.Fatalf("system account: %+v, %v", found, err)
		}
		if err := judge(found, s.ID()); (err == nil) != sync {
			t.Errorf("sync %v: judged %v", sync, err)
		}
		if _, err := ask("app"); err == nil || !strings.Contains(err.Error(), "not one of the system account") {
			t.Errorf("another account: %v", err)
		}
	}
}

func TestJudge(t *testing.T) {
	of := func(id string, sync bool, size int, version string) varz {
		v := varz{ID: id, Name: id, Version: version}
		v.JetStream.Config = &struct {
			SyncAlways bool `json:"sync_always"`
		}{sync}
		v.JetStream.Meta = &struct {
			Size int `json:"cluster_size"`
		}{size}
		return v
	}
	leaf := varz{ID: "leaf", Name: "leaf", Version: "2.15.0"}
	tests := []struct {
		name  string
		found []varz
		at    string
		want  string
	}{
		{"all three", []varz{of("a", true, 3, "2.15.2"), of("b", true, 3, "2.15.2"), of("c", true, 3, "2.16.0-RC.1")}, "b", ""},
		{"two of three", []varz{of("a", true, 3, "2.15.2"), of("b", true, 3, "2.15.2")}, "b", "2 of the 3"},
		{"one twice is one", []varz{of("a", true, 2, "2.15.2"), of("a", true, 2, "2.15.2")}, "a", "1 of the 2"},
		{"one is lazy", []varz{of("a", true, 2, "2.15.2"), of("b", false, 2, "2.15.2")}, "a", "server b does not"},
		{"one is old", []varz{of("a", true, 2, "2.15.2"), of("b", true, 2, "2.14.9")}, "a", "server b is version 2.14.9"},
		{"connected to one that stores nothing", []varz{leaf, of("a", true, 0, "2.15.2")}, "leaf", ""},
		{"nobody", nil, "a", "another server"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := judge(tt.found, tt.at)
			if tt.want == "" && err != nil || tt.want != "" && (!errors.Is(err, ErrUnsynced) || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("judge: %v, want %q", err, tt.want)
			}
		})
	}
	for v, want := range map[string]bool{"2.15.0": true, "2.15.2-RC.1": true, "3.0.0": true, "2.14.9": false, "1.20.0": false, "": false, "2.15": false, "x.y.z": false} {
		if recent(v) != want {
			t.Errorf("recent(%q) = %v", v, !want)
		}
	}
}

// TestReconnect: a server that comes back is asked again, and one that no longer syncs is not ready.
func TestReconnect(t *testing.T) {
	s := startOutside(t, func(o *server.Options) {
		o.SyncAlways, o.HTTPHost, o.HTTPPort = true, "127.0.0.1", server.RANDOM_PORT
	})
	b := open(t, Options{URL: s.ClientURL(), Monitor: []string{s.monitor()}})
	connectedAt := b.Status().Since
	s.stop()
	eventually(t, "the loss is noticed", func() bool { st := b.Status(); return !st.Connected && st.Detail != "" })
	if !b.Status().Since.After(connectedAt) {
		t.Error("since when it is lost is not said")
	}
	s.opts.SyncAlways = false
	s.start(t)
	eventually(t, "the change is noticed", func() bool {
		st := b.Status()
		return st.Connected && !st.Synced && strings.Contains(st.Detail, "does not run with sync_interval: always")
	})
	if b.Status().Ready() {
		t.Error("ready with a server that does not sync")
	}
	s.stop()
	s.opts.SyncAlways = true
	s.start(t)
	eventually(t, "all is well again", func() bool { st := b.Status(); return st.Ready() && st.Detail == "" })
}

func TestOutsideIsAway(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr)
	l.Close()

	ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, Options{URL: "nats://user:s3cret@" + addr.String()}); !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("nobody there: %v", err)
	}

	opened := make(chan error, 1)
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var out lines
	go func() {
		b, err := Open(ctx, Options{URL: "nats://" + addr.String(), AcceptUnsynced: true, Log: slog.New(slog.NewTextHandler(&out, nil))})
		if err == nil {
			b.Close()
		}
		opened <- err
	}()
	eventually(t, "it tries", func() bool { return strings.Contains(out.String(), "trying again") })
	startOutside(t, func(o *server.Options) { o.Port = addr.Port })
	if err := <-opened; err != nil {
		t.Errorf("the server came, Open: %v", err)
	}

	for _, bad := range []string{"://", "nats://", "nats://u:s3cret@", "nats://a:4222,nats://u:s3cret@%zz"} {
		if _, err := Open(t.Context(), Options{URL: bad}); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("url %q: %v", bad, err)
		}
	}
}

// A server that is killed while a client introduces itself has not refused it.
func TestOutsideGoesDuringTheHandshake(t *testing.T) {
	const greeting = "INFO {\"server_id\":\"x\",\"version\":\"2.15.2\",\"proto\":1,\"headers\":true,\"max_payload\":1048576}\r\n"
	cuts := map[string]func(*net.TCPConn){
		"at once":            func(c *net.TCPConn) { c.Close() },
		"reset at once":      func(c *net.TCPConn) { c.SetLinger(0); c.Close() },
		"after the greeting": func(c *net.TCPConn) { io.WriteString(c, greeting); c.Close() },
		"reset after it":     func(c *net.TCPConn) { io.WriteString(c, greeting); c.SetLinger(0); c.Close() },
		"after the answer": func(c *net.TCPConn) {
			io.WriteString(c, greeting)
			c.Read(make([]byte, 1))
			c.SetLinger(0)
			c.Close()
		},
	}
	for name, cut := range cuts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					cut(c.(*net.TCPConn))
				}
			}()
			opened := make(chan error, 1)
			ctx, cancel := context.WithCancel(t.Context())
			var out lines
			go func() {
				_, err := Open(ctx, Options{URL: "nats://" + l.Addr().String(), AcceptUnsynced: true, Log: slog.New(slog.NewTextHandler(&out, nil))})
				opened <- err
			}()
			eventually(t, "it tries again", func() bool {
				select {
				case err := <-opened:
					t.Fatalf("Open gave up: %v", err)
				default:
				}
				return strings.Count(out.String(), "trying again") >= 2
			})
			cancel()
			if err := <-opened; !errors.Is(err, context.Canceled) {
				t.Errorf("Open: %v, want it to end with the context", err)
			}
		})
	}
}

func TestWrongPassword(t *testing.T) {
	s := startOutside(t, func(o *server.Options) { o.Username, o.Password = "u", "right" })
	addr := strings.TrimPrefix(s.ClientURL(), "nats://")
	_, err := Open(t.Context(), Options{URL: "nats://u:s3cret@" + addr, AcceptUnsynced: true})
	if !errors.Is(err, nats.ErrAuthorization) || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("wrong password: %v", err)
	}
	b := open(t, Options{URL: "nats://u:right@" + addr, AcceptUnsynced: true})
	if b.URL() != "nats://"+addr {
		t.Errorf("url = %q", b.URL())
	}
}

// A server that goes away in the middle of the start is waited for.
func TestPatiently(t *testing.T) {
	s := startOutside(t, func(o *server.Options) {
		o.SyncAlways, o.HTTPHost, o.HTTPPort = true, "127.0.0.1", server.RANDOM_PORT
	})
	var out lines
	b := open(t, Options{URL: s.ClientURL(), Monitor: []string{s.monitor()}, Log: slog.New(slog.NewTextHandler(&out, nil))})
	s.stop()
	done := make(chan error, 1)
	go func() {
		done <- b.Patiently(t.Context(), func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			return b.EnsureStreams(ctx)
		})
	}()
	eventually(t, "it tries again", func() bool { return strings.Contains(out.String(), "does not answer, trying again") })
	s.start(t)
	if err := <-done; err != nil {
		t.Errorf("the server came back: %v", err)
	}
	// What is refused is not asked again.
	if err := b.Patiently(t.Context(), func() error { return ErrStream }); !errors.Is(err, ErrStream) {
		t.Errorf("refused: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Patiently(ctx, func() error { return nats.ErrTimeout }); !errors.Is(err, nats.ErrTimeout) {
		t.Errorf("stopped: %v", err)
	}
}
