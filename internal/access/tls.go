package access

import (
	"crypto/tls"
	"fmt"
	"io/fs"
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
	state  [2]fs.FileInfo // of the files that held was read from
	failed string         // why those there are cannot be used
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

// Until is when the certificate expires.
func (c *Certificate) Until() time.Time { return c.now().Leaf.NotAfter }

// Config is for a server: TLS 1.2 at least, HTTP/2 and HTTP/1.1.
func (c *Certificate) Config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.now(), nil },
	}
}

// files says which files there are.
func (c *Certificate) files() (f [2]fs.FileInfo, err error) {
	for i, path := range []string{c.cert, c.key} {
		if f[i], err = os.Stat(path); err != nil {
			return f, err
		}
	}
	return f, nil
}

// sameFile reports whether a file is the one that it was, and holds what it held.
func sameFile(a, b fs.FileInfo) bool {
	return a != nil && b != nil && os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

func unchanged(a, b [2]fs.FileInfo) bool { return sameFile(a[0], b[0]) && sameFile(a[1], b[1]) }

func (c *Certificate) load(f [2]fs.FileInfo) error {
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return err
	}
	c.held, c.state = &pair, f
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
		if err == nil && !unchanged(state, c.state) {
			if err = c.load(state); err == nil {
				c.failed = ""
				c.log.Info("the certificate was renewed", "until", c.held.Leaf.NotAfter)
			}
		}
		if err != nil && c.failed != err.Error() {
			c.failed = err.Error()
			c.log.Error("the renewed certificate cannot be used; the one before goes on", "error", err)
		}
	}
	return c.held
}
