package access

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
)

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestPeer(t *testing.T) {
	trust := Proxies{Trusted: prefixes("10.0.0.0/8", "127.0.0.1/32", "fd00::/8")}
	rfc := trust
	rfc.Header = Forwarded
	tests := []struct {
		name    string
		proxies Proxies
		from    string
		header  http.Header
		addr    string
		host    string // "": as the request has it
		secure  bool
	}{
		{"nobody is trusted", Proxies{}, "10.0.0.1:5", http.Header{"X-Forwarded-For": {"1.1.1.1"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"evil.example"}}, "10.0.0.1", "", false},
		{"a stranger's word", trust, "203.0.113.9:5", http.Header{"X-Forwarded-For": {"1.1.1.1"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"evil.example"}}, "203.0.113.9", "", false},
		{"a proxy's word", trust, "10.0.0.1:5", http.Header{"X-Forwarded-For": {"203.0.113.9"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"forms.example.com"}}, "203.0.113.9", "forms.example.com", true},
		{"what a client wrote before it", trust, "10.0.0.1:5", http.Header{"X-Forwarded-For": {"1.1.1.1, 127.0.0.1, 203.0.113.9"}}, "203.0.113.9", "", false},
		{"on two lines", trust, "10.0.0.1:5", http.Header{"X-Forwarded-For": {"1.1.1.1", "203.0.113.9"}}, "203.0.113.9", "", false},
		{"a chain of trusted ones", trust, "127.0.0.1:5", http.Header{"X-Forwarded-For": {"6.6.6.6, 203.0.113.9, 10.1.1.1, 10.2.2.2"}}, "203.0.113.9", "", false},
		{"trusted ones alone", trust, "10.0.0.1:5", http.Header{"X-Forwarded-For": {"10.1.1.1, 10.2.2.2"}}, "10.1.1.1", "", false},
		{"with ports and brackets", trust, "[fd00::1]:5", http.Header{"X-Forwarded-For": {"[2001:db8::7]:443"}}, "2001:db8::7", "", false},
		{"mapped", trust, "[::ffff:10.0.0.1]:5", http.Header{"X-Forwarded-For": {"::ffff:203.0.113.9"}}, "203.0.113.9", "", false},
		{"no address", trust, "10.0.0.1:5", http.Header{"X-Forwarded-For": {"203.0.113.9, unknown"}}, "10.0.0.1", "", false},
		{"one of two hops was plain", trust, "10.0.0.1:5", http.Header{"X-Forwarded-For": {"203.0.113.9"}, "X-Forwarded-Proto": {"https, http"}}, "203.0.113.9", "", false},
		{"no host", trust, "10.0.0.1:5", http.Header{"X-Forwarded-For": {"203.0.113.9"}, "X-Forwarded-Host": {"a b<script>"}}, "203.0.113.9", "", false},
		{"the other kind is the client's", trust, "10.0.0.1:5", http.Header{"Forwarded": {"for=1.1.1.1;proto=https"}}, "10.0.0.1", "", false},
		{"and the other way round", rfc, "10.0.0.1:5", http.Header{"X-Forwarded-For": {"1.1.1.1"}, "X-Forwarded-Proto": {"https"}, "Forwarded": {`for=203.0.113.9`}}, "203.0.113.9", "", false},
		{"forwarded", rfc, "10.0.0.1:5", http.Header{"Forwarded": {`For="[2001:db8::7]:4711";Proto=https;host=forms.example.com`}}, "2001:db8::7", "forms.example.com", true},
		{"forwarded by two", rfc, "10.0.0.1:5", http.Header{"Forwarded": {`for=6.6.6.6;proto=http`, `for=203.0.113.9;proto=https, for=10.9.9.9;proto=http`}}, "203.0.113.9", "", true},
		{"forwarded, hidden", rfc, "10.0.0.1:5", http.Header{"Forwarded": {`for=6.6.6.6, for=_secret;proto=https`}}, "10.0.0.1", "", true},
		{"forwarded, a quote left open before the proxy's line", rfc, "10.0.0.1:5", http.Header{"Forwarded": {`for=6.6.6.6, for=127.0.0.1;host=evil.example;proto=https;x="`, `for="[2001:db8::bad]";proto=http`}}, "10.0.0.1", "", false},
		{"forwarded, a quote left open on the proxy's line", rfc, "10.0.0.1:5", http.Header{"Forwarded": {`for=6.6.6.6, for=127.0.0.1;host=evil.example;proto=https;x=", for="[2001:db8::bad]";proto=http`}}, "10.0.0.1", "", false},
		{"forwarded, a quote left open by a backslash", rfc, "10.0.0.1:5", http.Header{"Forwarded": {`for=6.6.6.6;proto=https;x="\`, `for=203.0.113.9;proto=http`}}, "10.0.0.1", "", false},
		{"forwarded, a comma in quotes", rfc, "10.0.0.1:5", http.Header{"Forwarded": {`for="6.6.6.6, for=1.1.1.1"`}}, "10.0.0.1", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "http://asked.example/", nil)
			r.RemoteAddr, r.Header = tt.from, tt.header
			var got Peer
			tt.proxies.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = Of(r) })).ServeHTTP(httptest.NewRecorder(), r)
			if tt.host == "" {
				tt.host = "asked.example"
			}
			if got.Addr.String() != tt.addr || got.Host != tt.host || got.Secure != tt.secure {
				t.Errorf("from %s, %s, secure %v; want %s, %s, %v", got.Addr, got.Host, got.Secure, tt.addr, tt.host, tt.secure)
			}
			if got.Local() {
				t.Error("it passes for local")
			}
		})
	}
}

// TestLocal: only what really begins on this machine and asks for it by name passes for local.
func TestLocal(t *testing.T) {
	request := func(from, host string) *http.Request {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr, r.Host = from, host
		return r
	}
	for _, host := range []string{"localhost", "localhost:8080", "LOCALHOST:1", "127.0.0.1:8080", "127.8.9.1", "[::1]:8080", "[::1]"} {
		for _, from := range []string{"127.0.0.1:4711", "[::1]:4711", "[::ffff:127.0.0.1]:4711"} {
			if !Of(request(from, host)).Local() {
				t.Errorf("%s asking for %s is not local", from, host)
			}
		}
	}
	for _, host := range []string{"evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "", "0.0.0.0:8080", "192.168.0.1", "127.0.0.1:8080:9", "localhost."} {
		if Of(request("127.0.0.1:4711", host)).Local() {
			t.Errorf("asking for %q is local: a DNS answer could lead here", host)
		}
	}
	for _, from := range []string{"192.168.0.7:1", "203.0.113.9:1", "[2001:db8::1]:1", "", "pipe"} {
		if Of(request(from, "localhost")).Local() {
			t.Errorf("from %q is local", from)
		}
	}
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Anything", "X-Real-IP", "Via", "CF-Connecting-IP", "True-Client-IP", "Fly-Client-IP", "Tailscale-User-Login", "Client-IP", "X-Remote-IP", "Proxy-Client-IP", "X-Amzn-Trace-Id", "X-Original-URL"} {
		r := request("127.0.0.1:4711", "localhost")
		r.Header.Set(name, "x")
		if Of(r).Local() {
			t.Errorf("with %s it is local: a proxy passed it on", name)
		}
	}
	for _, header := range []string{XForwarded, Forwarded} {
		trust := Proxies{Trusted: prefixes("127.0.0.1/32"), Header: header}
		if trust.peer(request("127.0.0.1:4711", "localhost")).Local() {
			t.Error("a trusted proxy that says nothing passes for local")
		}
	}
	old := request("127.0.0.1:4711", "127.0.0.1:8080")
	old.Proto, old.ProtoMajor, old.ProtoMinor = "HTTP/1.0", 1, 0
	if Of(old).Local() {
		t.Error("HTTP/1.0 is local: it is how nginx passes on what it says nothing about")
	}
}

// FuzzPeer: whatever the headers hold, an untrusted peer is taken for itself alone, and nothing that was passed on is local.
func FuzzPeer(f *testing.F) {
	f.Add("203.0.113.9, 10.0.0.1", `for="[::1]:80";proto=https;host="a,b", for=_x`, "https", "forms.example.com", true)
	f.Add(",,", `"";=;for="\"`, "", "[", false)
	f.Fuzz(func(t *testing.T, xff, forwarded, proto, host string, rfc bool) {
		r := httptest.NewRequest(http.MethodGet, "http://localhost/", nil)
		r.Header = http.Header{"X-Forwarded-For": {xff}, "Forwarded": {forwarded}, "X-Forwarded-Proto": {proto}, "X-Forwarded-Host": {host}}
		p := Proxies{Trusted: prefixes("10.0.0.0/8")}
		if rfc {
			p.Header = Forwarded
		}
		r.RemoteAddr = "127.0.0.1:1"
		if is := p.peer(r); is.Addr.String() != "127.0.0.1" || is.Secure || is.Host != "localhost" || is.Local() {
			t.Errorf("an untrusted peer is taken for %+v", is)
		}
		r.RemoteAddr = "10.0.0.1:1"
		if is := p.peer(r); !is.Addr.IsValid() || is.Local() || !hostLike(is.Host) {
			t.Errorf("a trusted one for %+v", is)
		}
	})
}

// FuzzForwarded: whatever a client wrote before, on its own line or on the proxy's, the last word is the proxy's or nobody's.
func FuzzForwarded(f *testing.F) {
	f.Add(`for=6.6.6.6, for=127.0.0.1;host=evil.example;proto=https;x="`)
	f.Add(`for=6.6.6.6;x="\`)
	f.Add(`for="a, b"`)
	f.Add(`"`)
	f.Fuzz(func(t *testing.T, client string) {
		p := Proxies{Trusted: prefixes("10.0.0.0/8", "127.0.0.0/8"), Header: Forwarded}
		proxy := `for="[2001:db8::bad]";proto=http;host=forms.example.com`
		for _, lines := range [][]string{{client, proxy}, {client + ", " + proxy}} {
			r := httptest.NewRequest(http.MethodGet, "http://asked.example/", nil)
			r.Header = http.Header{"Forwarded": lines}
			r.RemoteAddr = "10.0.0.1:1"
			is := p.peer(r)
			told := is.Addr.String() == "2001:db8::bad" && is.Host == "forms.example.com"
			nobody := is.Addr.String() == "10.0.0.1" && is.Host == "asked.example"
			if is.Secure || !told && !nobody {
				t.Errorf("%q: it is taken for %+v", lines, is)
			}
		}
	})
}
