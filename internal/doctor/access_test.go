package doctor

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone/internal/access"
)

const passphrase = "seven blue herons at dawn"

// TestAccess: each setting that is not safe is found, with a remedy, and one that is safe is not.
func TestAccess(t *testing.T) {
	now := time.Now()
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(dir, "open")
	if err := os.WriteFile(open, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	nets := func(list ...string) (out []netip.Prefix) {
		for _, s := range list {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	tests := []struct {
		name  string
		web   Web
		setup func(*access.Book) error
		want  []string // what the findings hold, in order
	}{
		{"as it is by default", Web{Listen: "127.0.0.1:8080", NATSListen: "127.0.0.1:4222"}, nil, nil},
		{"nowhere", Web{Listen: "none", NATSListen: "none"}, nil, nil},
		{"TLS and a user", Web{Listen: ":443", TLS: true, Secrets: map[string]string{"http.tls.key": secret}}, user, nil},
		{"behind a proxy with a user", Web{Listen: "127.0.0.1:8080", PublicURL: "https://forms.example.com", Proxies: nets("127.0.0.1/32", "10.0.0.0/8", "fd00::/48")}, user, nil},
		{"public and plain", Web{Listen: "0.0.0.0:8080"}, user, []string{"without TLS and without a trusted proxy"}},
		{"every address", Web{Listen: ":8080"}, user, []string{"without TLS"}},
		{"public, plain and accepted", Web{Listen: "[::]:8080", AcceptPlain: true}, user, []string{"http.accept_plain takes passwords"}},
		{"accepted without need", Web{Listen: ":443", TLS: true, AcceptPlain: true}, user, []string{"as well"}},
		{"nobody is set up", Web{Listen: ":443", TLS: true}, nil, []string{"there is no user"}},
		{"everybody is trusted", Web{Listen: "127.0.0.1:8080", Proxies: nets("0.0.0.0/0", "::/0")}, user, []string{"0.0.0.0/0", "::/0"}},
		{"a proxy that is not named", Web{Listen: "127.0.0.1:8080", PublicURL: "https://forms.example.com"}, nil, []string{"is not named"}},
		{"a link on this machine", Web{Listen: "127.0.0.1:8080", PublicURL: "http://localhost:8080"}, nil, nil},
		{"NATS is open", Web{Listen: "none", NATSListen: "0.0.0.0:4222"}, nil, []string{"nats.listen is 0.0.0.0:4222"}},
		{"NATS has a password", Web{Listen: "none", NATSListen: "0.0.0.0:4222", NATSPassword: true}, nil, nil},
		{"secrets", Web{Listen: "none", Secrets: map[string]string{"a": open, "b": secret, "c": secret + "-gone"}}, nil, []string{"a: " + open, "c: " + secret + "-gone does not exist"}},
		{"tokens", Web{Listen: "none"}, func(b *access.Book) error {
			for _, x := range []struct {
				name, scope  string
				made, expire time.Duration
			}{{"ends", "operate", -time.Hour, time.Hour}, {"ever", "operate", -time.Hour, 0}, {"metrics", "metrics", -time.Hour, 0}, {"old", "read", -91 * 24 * time.Hour, time.Hour}, {"over", "read", -2 * time.Hour, -time.Hour}} {
				expires := time.Time{}
				if x.expire != 0 {
					expires = now.Add(x.expire)
				}
				if _, _, err := b.AddToken(x.name, x.scope, expires, now.Add(x.made)); err != nil {
					return err
				}
			}
			return nil
		}, []string{"token ever is for operate and never expires", "token old was not used for 90 days", "token over has expired"}},
		{"a damaged file", Web{Listen: "none"}, func(b *access.Book) error { return os.WriteFile(b.Path(), []byte("{"), 0o600) }, []string{"nobody is let in"}},
		{"a file that others read", Web{Listen: "none"}, func(b *access.Book) error {
			if err := user(b); err != nil {
				return err
			}
			return os.Chmod(b.Path(), 0o644)
		}, []string{"open to other users (mode 0644)"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			book := access.OpenBook(t.TempDir())
			if tt.setup != nil {
				if err := tt.setup(book); err != nil {
					t.Fatal(err)
				}
			}
			var r Report
			r.Access(tt.web, book, now)
			if len(r.Findings) != len(tt.want) {
				t.Fatalf("found %+v, want %q", r.Findings, tt.want)
			}
			for i, want := range tt.want {
				if f := r.Findings[i]; !strings.Contains(f.Message, want) || f.Remedy == "" || f.Check != "access" {
					t.Errorf("finding %d is %+v, want one of %q", i, f, want)
				}
			}
			if len(r.Checks) != 1 || r.Checks[0].OK != (len(tt.want) == 0) {
				t.Errorf("checks %+v", r.Checks)
			}
		})
	}
}

func user(b *access.Book) error { return b.AddUser("ada", "operator", passphrase, time.Now()) }
