package gateway_test

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/lodestonehq/lodestone/internal/gateway"
)

// nameServer is a name server on loopback.
type nameServer struct {
	t    *testing.T
	addr string

	mu    sync.Mutex // guards what follows
	asked map[string]int
	mute  bool
}

func newNameServer(t *testing.T) *nameServer {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &nameServer{t: t, addr: conn.LocalAddr().String(), asked: map[string]int{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if answer := s.answer(buf[:n]); answer != nil {
				_, _ = conn.WriteTo(answer, from) // who asked has gone
			}
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return s
}

// answer answers a question about one of the names that it knows.
func (s *nameServer) answer(query []byte) []byte {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	name := q.Name.String()
	s.mu.Lock()
	s.asked[name+q.Type.String()]++
	mute := s.mute
	s.mu.Unlock()
	if mute {
		return nil
	}
	m.Response, m.Authoritative, m.RecursionAvailable, m.Additionals = true, true, true, nil
	head := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60}
	mx := func(host string) {
		if q.Type == dnsmessage.TypeMX {
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.MXResource{Pref: 10, MX: dnsmessage.MustNewName(host)}})
		}
	}
	switch name {
	case "mail.example.":
		mx("mx.mail.example.")
	case "null.example.":
		mx(".")
	case "web.example.":
		if q.Type == dnsmessage.TypeA {
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}})
		}
	case "nothing.example.":
	case "broken.example.":
		m.RCode = dnsmessage.RCodeServerFailure
	default:
		m.RCode = dnsmessage.RCodeNameError
	}
	b, err := m.Pack()
	if err != nil {
		s.t.Error(err)
	}
	return b
}

func (s *nameServer) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", s.addr)
	}}
}

func (s *nameServer) count(question string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[question]
}

func TestMX(t *testing.T) {
	s := newNameServer(t)
	mx := gateway.NewMX(s.resolver())
	for domain, want := range map[string]string{
		"mail.example": "true", "null.example": "false", "web.example": "true", "nothing.example": "false",
		"nowhere.example": "false", "broken.example": "nil",
	} {
		got := "nil"
		for range 100 { // an answer that came too late is there for a later question
			takes := mx.Takes(t.Context(), domain)
			if takes != nil {
				got = fmt.Sprint(*takes)
			}
			if got == want {
				break
			}
		}
		if got != want {
			t.Errorf("%s takes mail: %s, want %s", domain, got, want)
		}
	}
	asked := s.count("mail.example.TypeMX")
	mx.Takes(t.Context(), "mail.example")
	if n := s.count("mail.example.TypeMX"); n != asked {
		t.Errorf("asked %d times about a domain that is known, want %d", n, asked)
	}
}

// Name servers that do not answer hold nobody up for long and refuse nothing.
func TestMXThatDoesNotAnswer(t *testing.T) {
	names := newNameServer(t)
	names.mu.Lock()
	names.mute = true
	names.mu.Unlock()
	mx := gateway.NewMX(names.resolver())
	s := newFormSite(t, func(o *gateway.FormOptions) { o.MX = mx })
	for i := range 100 { // more than may be looked up at a time
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		if takes := mx.Takes(ctx, fmt.Sprintf("d%d.example", i)); takes != nil {
			t.Errorf("without an answer: %v", *takes)
		}
		cancel()
	}
	s.accepted(s.post("/forms/plain", url.Values{"email": {"a@mail.example"}}.Encode(), "Content-Type", urlForm))
	if ev := s.last().Context.Evidence; ev == nil || ev.MX != nil {
		t.Errorf("evidence %+v, want none of the domain", ev)
	}
}
