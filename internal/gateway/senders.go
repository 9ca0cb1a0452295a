package gateway

import (
	"io"
	"net/http"
	"net/netip"
	"time"
)

const (
	// maxPerAddress is how many webhooks may be under way from one address, so that nobody alone holds all
	// places. Behind a reverse proxy that is not trusted all senders are one; a quarter of the places is
	// still more than any provider uses at a time.
	maxPerAddress = maxAtOnce / 4
	// bodyGrace is what a body may take whatever its length; then it has to come at bodyRate, in bytes a
	// second.
	bodyGrace = 2 * time.Second
	bodyRate  = 32 << 10
)

// enter takes a place, for one sender no more than its share.
func (h *hooks) enter(from netip.Addr) (leave func(), ok bool) {
	sender := senderOf(from)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.from[sender] >= maxPerAddress {
		return nil, false
	}
	select {
	case h.slots <- struct{}{}:
	default:
		return nil, false
	}
	h.from[sender]++
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.from[sender]--; h.from[sender] == 0 {
			delete(h.from, sender)
		}
		<-h.slots
	}, true
}

// senderOf is whom a request is counted for: an IPv4 address, or the network of 64 bits that one site has
// of IPv6.
func senderOf(a netip.Addr) string {
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.String()
		}
	}
	return a.String()
}

// pace cuts off a body that trickles, long before the bound of time for a whole one: a place is too dear
// to be held by a byte now and then.
func pace(w http.ResponseWriter, body io.ReadCloser, whole time.Duration) io.ReadCloser {
	return &paced{ReadCloser: body, conn: http.NewResponseController(w), begin: time.Now(), whole: whole}
}

type paced struct {
	io.ReadCloser
	conn  *http.ResponseController
	begin time.Time
	whole time.Duration // that the body may take in all
	read  int
}

func (p *paced) Read(b []byte) (int, error) {
	_ = p.conn.SetReadDeadline(p.begin.Add(min(p.whole, bodyGrace+time.Duration(p.read)*time.Second/bodyRate))) // as in readBody
	n, err := p.ReadCloser.Read(b)
	p.read += n
	return n, err
}
