package access

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// Certificate is a pair of files, read again when one of them changes: a renewed certificate is in force for
// the next connection. It is safe for concurrent use.
type Certificate struct {
	cert, key string
	log       *slog.Logger

	mu     sync.Mutex // guards what follows
	held   *tls.Certificate
	state  string // of the files that held was read from
	failed string // of those that could not be used
	looked time.Time
}

// lookEvery is how often it is looked whether the files changed.
const lookEvery = time.Second

// OpenCertificate reads a certificate and its key, in PEM. The chain goes with the certificate.
func OpenCertificate(cert, key string, log *slog.Logger) (*Certificate, error) {
	c := &Certificate{cert: cert, key: key, log: log}
	state, err := c.files()
	if err == nil {
		err = c.load(state)
	}
	if err != nil {
		return nil, fmt.Errorf("http.tls: %w", err)
	}
	return c, nil
}

// Config is for a server: TLS 1.2 at least, HTTP/2 and HTTP/1.1.
func (c *Certificate) Config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.now(), nil },
	}
}

// files says which files there are, so that it shows when they are others.
func (c *Certificate) files() (state string, err error) {
	for _, path := range []string{c.cert, c.key} {
		info, err := os.Stat(path)
		if err != nil {
			return "", err
		}
		state += fmt.Sprintf("%d %d ", info.ModTime().UnixNano(), info.Size())
	}
	return state, nil
}

func (c *Certificate) load(state string) error {
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return err
	}
	c.held, c.state = &pair, state
	return nil
}

// now is the certificate in force: what the files hold, or, while they cannot be used, as in the middle of a
// renewal, what they held before.
func (c *Certificate) now() *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := time.Now(); t.Sub(c.looked) >= lookEvery || t.Before(c.looked) {
		c.looked = t
		state, err := c.files()
		if err == nil && state != c.state {
			if err = c.load(state); err == nil {
				c.failed = ""
				c.log.Info("the certificate was renewed", "until", c.held.Leaf.NotAfter)
			}
		}
		if err != nil && c.failed != state+err.Error() {
			c.failed = state + err.Error()
			c.log.Error("the renewed certificate cannot be used; the one before goes on", "error", err)
		}
	}
	return c.held
}
