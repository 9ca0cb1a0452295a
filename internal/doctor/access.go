package doctor

import (
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone/internal/access"
)

// Web is how a worker is reached over the network, as it is configured.
type Web struct {
	Listen, PublicURL string
	TLS               bool
	Cert, Key         string // the files of http.tls
	Proxies           []netip.Prefix
	AcceptPlain       bool
	NATSListen        string // of the server inside; "none" or "": nowhere
	NATSPassword      bool   // its clients need one
	// Secrets are files that hold one, by the key that names them.
	Secrets map[string]string
}

// unusedAfter is how long a token lies about until somebody is asked whether it is needed.
const unusedAfter = 90 * 24 * time.Hour

// Access looks at who can reach a worker, and with what right. It looks at settings and files and asks nobody.
func (r *Report) Access(w Web, book *access.Book, now time.Time) {
	const check = "access"
	users, err := book.Users()
	tokens, tokensErr := book.Tokens()
	if err = errors.Join(err, tokensErr); err != nil {
		r.Find(check, "restore the file, or remove it and make users and tokens anew: lodestone user add NAME", "nobody is let in: %v", bare(err))
	}
	if info, err := os.Stat(book.Path()); err == nil && info.Mode().Perm()&0o077 != 0 {
		r.Find(check, "chmod 600 "+book.Path(), "%s, which holds the hashes of passwords, is open to other users (mode %04o)", book.Path(), info.Mode().Perm())
	}
	beyond := beyondLoopback(w.Listen)
	outside := beyond || len(w.Proxies) > 0
	if beyond && !w.TLS && len(w.Proxies) == 0 {
		remedy := "set http.tls, or listen on 127.0.0.1 behind a proxy that does TLS and name it in http.trusted_proxies"
		if w.AcceptPlain {
			r.Find(check, remedy, "http.listen is %s, beyond this machine, without TLS, and http.accept_plain takes passwords and tokens all the same: whoever is on the way can read them, and what people fill in", w.Listen)
		} else {
			r.Find(check, remedy, "http.listen is %s, beyond this machine, without TLS and without a trusted proxy: what people fill in can be read on the way, and nobody can sign in from elsewhere", w.Listen)
		}
	} else if w.AcceptPlain && outside {
		r.Find(check, "take http.accept_plain out; over TLS and through the trusted proxy it is not needed", "http.accept_plain takes passwords and tokens over plain HTTP as well")
	}
	if leadsOutside(w.PublicURL) && !beyond && len(w.Proxies) == 0 && w.Listen != "none" {
		r.Find(check, "name the proxy in http.trusted_proxies", "http.public_url is %s, and http.listen is reached from this machine alone: the proxy in between is not named, so it is taken for the sender of everything, and nobody can sign in through it", w.PublicURL)
	}
	if w.Cert != "" {
		r.certificate(check, w.Cert, w.Key, now)
	}
	for _, p := range w.Proxies {
		if most := map[bool]int{true: 8, false: 16}[p.Addr().Is4()]; p.Bits() < most {
			r.Find(check, "name the addresses of your proxies alone", "http.trusted_proxies names %s: nearly everybody can say where a request came from, and so pass for anybody", p)
		}
	}
	if outside && err == nil && len(users) == 0 {
		r.Find(check, "lodestone user add NAME", "http.listen is reached from outside and there is no user: nobody can open the console")
	}
	for _, t := range tokens {
		switch {
		case !t.Expires.IsZero() && now.After(t.Expires):
			r.Find(check, "lodestone token rm "+t.Name, "token %s has expired at %s and is there still", t.Name, t.Expires.Format(time.DateOnly))
		case latest(t.Used, t.Made).Before(now.Add(-unusedAfter)):
			r.Find(check, "lodestone token rm "+t.Name+", when nothing needs it", "token %s was not used for %d days", t.Name, int(unusedAfter/(24*time.Hour)))
		case t.Expires.IsZero() && access.Scopes[t.Scope] > access.Metrics:
			r.Find(check, "make another one with --days, and remove this one: lodestone token rm "+t.Name, "token %s is for %s and never expires", t.Name, t.Scope)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(w.Secrets)) {
		path := w.Secrets[key]
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			r.Find(check, "put the file there, or name the right one", "%s: %s does not exist", key, path)
		case err == nil && info.Mode().Perm()&0o007 != 0:
			r.Find(check, "chmod o= "+path, "%s: %s holds a secret and can be read by everybody on this machine (mode %04o)", key, path, info.Mode().Perm())
		}
	}
	if beyondLoopback(w.NATSListen) && !w.NATSPassword {
		r.Find(check, "set nats.credentials, or listen on 127.0.0.1", "nats.listen is %s, beyond this machine, and its clients need no password: whoever reaches it can read and publish everything", w.NATSListen)
	}
	r.Done(check, "users %d, tokens %d; %s", len(users), len(tokens), reach(w, beyond))
}

// expiresSoon is how long before its end a certificate should have been renewed.
const expiresSoon = 14 * 24 * time.Hour

// certificate looks whether the files of http.tls can be used, as `run` does.
func (r *Report) certificate(check, cert, key string, now time.Time) {
	c, err := access.OpenCertificate(cert, key, slog.New(slog.DiscardHandler))
	if err != nil {
		r.Find(check, "name a certificate and the key that belongs to it, both PEM, that the user of lodestone can read", "%v: `lodestone run` does not start", err)
		return
	}
	switch until := c.Until(); {
	case now.After(until):
		r.Find(check, "renew it; new files are taken without a restart", "http.tls.cert: the certificate in %s has expired at %s", cert, until.UTC().Format(time.RFC3339))
	case now.Add(expiresSoon).After(until):
		r.Find(check, "see why it was not renewed; new files are taken without a restart", "http.tls.cert: the certificate in %s expires at %s", cert, until.UTC().Format(time.RFC3339))
	}
}

// leadsOutside reports whether an address leads others than this machine here.
func leadsOutside(publicURL string) bool {
	u, err := url.Parse(publicURL)
	return err == nil && u.Host != "" && beyondLoopback(net.JoinHostPort(u.Hostname(), "1"))
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// reach says in words who can reach the listener.
func reach(w Web, beyond bool) string {
	how := "plain HTTP"
	if w.TLS {
		how = "TLS"
	}
	switch {
	case w.Listen == "" || w.Listen == "none":
		return "nothing is served over HTTP"
	case beyond:
		return w.Listen + " is reached from other machines, " + how
	case len(w.Proxies) > 0:
		return w.Listen + " is reached from this machine, " + how + ", and through trusted proxies"
	}
	return w.Listen + " is reached from this machine, " + how
}

// beyondLoopback reports whether others than this machine can reach an address to listen at.
func beyondLoopback(listen string) bool {
	if listen == "" || listen == "none" {
		return false
	}
	host, _, err := net.SplitHostPort(listen)
	if err != nil || host == "" {
		return true // every address
	}
	if strings.EqualFold(host, "localhost") {
		return false
	}
	a, err := netip.ParseAddr(host)
	return err != nil || !a.IsLoopback()
}

// dataFiles are the files of a data directory that nobody else must read.
func dataFiles(dir string) (paths []string) {
	for _, pattern := range []string{"*.db", "*.json", "jetstream", "connectors"} {
		found, _ := filepath.Glob(filepath.Join(dir, pattern))
		paths = append(paths, found...)
	}
	return paths
}
