package bench

import (
	"bytes"
	"fmt"
	"net"
	"strconv"
	"time"
)

// load posts prepared requests over connections that stay open, each connection the next one as soon
// as the one before is answered, and expects 202. It is made to cost little, because it shares the
// machine with what it measures.
type load interface {
	// run posts every request once. took is how long each waited for its answer, in no order; cpu what
	// posting cost, 0 when it cannot be told.
	run(requests [][]byte) (took []time.Duration, cpu time.Duration, err error)
	Close() error
}

// request is a form as a page's script posts it; key is its Idempotency-Key, "" for none.
func request(host, path, key string, body []byte) []byte {
	if key != "" {
		key = "Idempotency-Key: " + key + "\r\n"
	}
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\n%sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, host, key, len(body), body)
}

// answered reads one answer at the beginning of b: its length, or 0 when more is to come.
func answered(b []byte) (int, error) {
	head := bytes.Index(b, []byte("\r\n\r\n"))
	if head < 0 {
		return 0, nil
	}
	if !bytes.HasPrefix(b, []byte("HTTP/1.1 202 ")) {
		return 0, fmt.Errorf("answered %q", b)
	}
	const name = "\r\nContent-Length: "
	at := bytes.Index(b[:head], []byte(name))
	if at < 0 {
		return 0, fmt.Errorf("an answer without its length: %q", b)
	}
	text, _, _ := bytes.Cut(b[at+len(name):head], []byte("\r\n"))
	n, err := strconv.Atoi(string(text))
	if err != nil || n < 0 {
		return 0, fmt.Errorf("an answer of length %q", text)
	}
	if n += head + 4; len(b) < n {
		return 0, nil
	}
	return n, nil
}

// loopback is the address of a listener on 127.0.0.1.
func loopback(l net.Listener) *net.TCPAddr { return l.Addr().(*net.TCPAddr) }
