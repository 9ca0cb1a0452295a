package access

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// The headers that a proxy may say in whom it speaks for.
const (
	XForwarded = "x-forwarded" // X-Forwarded-For, -Proto and -Host
	Forwarded  = "forwarded"   // Forwarded, RFC 7239
)

// Proxies says whose word about the origin of a request is believed. The zero value believes nobody.
//
// Only one of the two kinds of headers is read: a proxy replaces the one that it knows and passes the
// other on as the client wrote it.
type Proxies struct {
	Trusted []netip.Prefix
	Header  string // [XForwarded] or [Forwarded]; "": the first
}

// Peer is who sent a request, as far as it is sure.
type Peer struct {
	// Addr is the client: the other end of the connection, or whom a trusted proxy, through any number of
	// trusted ones, says that it spoke to. Invalid when there is none, as on a socket.
	Addr netip.Addr
	// Host is the name and port that the client asked for.
	Host string
	// Secure reports whether the client spoke TLS.
	Secure bool

	near      netip.Addr // the other end of the connection
	forwarded bool       // something stands in between, trusted or not
}

// Origin is the address that browsers call this gateway by, as in https://forms.example.com.
func (p Peer) Origin() string {
	if p.Secure {
		return "https://" + p.Host
	}
	return "http://" + p.Host
}

// Local reports whether a request is really local: it comes from this machine, asks for this machine by a
// name that no DNS answers for, and nothing says that it was passed on.
func (p Peer) Local() bool {
	if !p.near.IsLoopback() || p.forwarded {
		return false
	}
	host := p.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

type peerKey struct{}

// Handler lets [Of] tell next who sends each request.
func (p Proxies) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), peerKey{}, p.peer(r))))
	})
}

// Of is who sent a request. Outside of [Proxies.Handler] it is the other end of the connection.
func Of(r *http.Request) Peer {
	if p, ok := r.Context().Value(peerKey{}).(Peer); ok {
		return p
	}
	return Proxies{}.peer(r)
}

func (p Proxies) peer(r *http.Request) Peer {
	is := Peer{Host: r.Host, Secure: r.TLS != nil, forwarded: passedOn(r)}
	if at, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		is.near = plain(at.Addr())
	}
	is.Addr = is.near
	if !p.Trusts(is.near) {
		return is
	}
	is.forwarded = true // also where a proxy says nothing of whom it speaks for
	if p.Header == Forwarded {
		p.forwarded(r.Header, &is)
	} else {
		p.xForwarded(r.Header, &is)
	}
	return is
}

// Trusts reports whether an address is one of a proxy whose word is believed.
func (p Proxies) Trusts(a netip.Addr) bool {
	return a.IsValid() && slices.ContainsFunc(p.Trusted, func(net netip.Prefix) bool { return net.Contains(a) })
}

// passedOn reports whether a request looks like one that a proxy passes on. HTTP/1.0 is what some of them
// speak that say nothing else, and no browser.
func passedOn(r *http.Request) bool {
	if !r.ProtoAtLeast(1, 1) {
		return true
	}
	for name := range r.Header {
		switch name {
		case "Forwarded", "Via", "Cdn-Loop", "X-Proxy-User", "X-Remote-Addr", "X-Real-Host", "Front-End-Https":
			return true
		}
		if strings.HasSuffix(name, "-Ip") { // X-Real-Ip, Client-Ip, True-Client-Ip and their like
			return true
		}
		for _, head := range []string{"X-Forward", "X-Original-", "Cf-", "Fly-", "Tailscale-", "X-Envoy-", "X-Amzn-", "X-Azure-", "X-Arr-", "Fastly-"} {
			if strings.HasPrefix(name, head) {
				return true
			}
		}
	}
	return false
}

// xForwarded reads X-Forwarded-For from its end, which the nearest proxy wrote, for as long as the addresses
// are trusted ones. A client could have written all that stands before.
func (p Proxies) xForwarded(h http.Header, is *Peer) {
	list := values(h, "X-Forwarded-For")
	for i := len(list) - 1; i >= 0 && p.Trusts(is.Addr); i-- {
		a, ok := node(list[i])
		if !ok {
			break
		}
		is.Addr = a
	}
	if protos := values(h, "X-Forwarded-Proto"); len(protos) > 0 {
		// Each proxy on the way may have added its own: all of it must have been TLS.
		is.Secure = !slices.ContainsFunc(protos, func(s string) bool { return !strings.EqualFold(s, "https") && !strings.EqualFold(s, "wss") })
	}
	if hosts := values(h, "X-Forwarded-Host"); len(hosts) > 0 && hostLike(hosts[len(hosts)-1]) {
		is.Host = hosts[len(hosts)-1]
	}
}

// forwarded reads Forwarded (RFC 7239) from its end in the same way. Each line stands alone. Where a quote is left
// open nobody knows who wrote what, and nothing of the header is believed: a client could have swallowed by it what
// a proxy added.
func (p Proxies) forwarded(h http.Header, is *Peer) {
	var elements []string
	for _, line := range h.Values("Forwarded") {
		parts, closed := splitQuoted(line, ',')
		if !closed {
			is.Secure = false
			return
		}
		elements = append(elements, parts...)
	}
	for i := len(elements) - 1; i >= 0 && p.Trusts(is.Addr); i-- {
		said := map[string]string{}
		pairs, _ := splitQuoted(elements[i], ';') // what was cut out of a line with closed quotes has such
		for _, pair := range pairs {
			name, value, _ := strings.Cut(pair, "=")
			said[strings.ToLower(strings.TrimSpace(name))] = unquoted(strings.TrimSpace(value))
		}
		if proto, ok := said["proto"]; ok {
			is.Secure = strings.EqualFold(proto, "https")
		}
		if host := said["host"]; hostLike(host) {
			is.Host = host
		}
		a, ok := node(said["for"])
		if !ok {
			break
		}
		is.Addr = a
	}
}

// values are the items of a list header, in order.
func values(h http.Header, name string) (list []string) {
	for _, line := range h.Values(name) {
		for s := range strings.SplitSeq(line, ",") {
			if s = strings.TrimSpace(s); s != "" {
				list = append(list, s)
			}
		}
	}
	return list
}

// splitQuoted cuts at a separator outside of quotes and leaves out what is empty. closed is false when a quote is
// left open.
func splitQuoted(s string, at byte) (parts []string, closed bool) {
	quoted, begin := false, 0
	add := func(end int) {
		if part := strings.TrimSpace(s[begin:end]); part != "" {
			parts = append(parts, part)
		}
		begin = end + 1
	}
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case s[i] == '\\' && quoted:
			i++
		case s[i] == at && !quoted:
			add(i)
		}
	}
	if begin <= len(s) {
		add(len(s))
	}
	return parts, !quoted
}

func unquoted(s string) string {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return s
	}
	return strings.ReplaceAll(s[1:len(s)-1], `\`, "")
}

// node reads an address with or without a port; an IPv6 one may stand in brackets.
func node(s string) (netip.Addr, bool) {
	if at, err := netip.ParseAddrPort(s); err == nil {
		return plain(at.Addr()), true
	}
	a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
	return plain(a), err == nil
}

// plain is an address in the one spelling that it is compared in.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// hostLike reports whether a text can be a host with or without a port.
func hostLike(s string) bool {
	return s != "" && len(s) <= 255 && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-._:[]", r)
	})
}
