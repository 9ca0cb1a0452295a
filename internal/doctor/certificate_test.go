package doctor

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone/internal/access"
)

// TestCertificate: a certificate that the worker could not start with, or not for long, is found.
func TestCertificate(t *testing.T) {
	now := time.Now()
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key := func(name string) (*ecdsa.PrivateKey, string) {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalECPrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		return k, write(name, "EC PRIVATE KEY", der)
	}
	k, keyFile := key("key")
	_, other := key("other")
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(90 * 24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	cert := write("cert", "CERTIFICATE", der)
	for _, tt := range []struct {
		name, cert, key string
		at              time.Time
		want            string // "": nothing is found
	}{
		{"good", cert, keyFile, now, ""},
		{"missing", cert + "-gone", keyFile, now, "http.tls: stat "},
		{"another key", cert, other, now, "does not match"},
		{"soon over", cert, keyFile, now.Add(80 * 24 * time.Hour), "expires at"},
		{"over", cert, keyFile, now.Add(91 * 24 * time.Hour), "has expired at"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var r Report
			r.Access(Web{Listen: "127.0.0.1:8443", TLS: true, Cert: tt.cert, Key: tt.key}, access.OpenBook(t.TempDir()), tt.at)
			if tt.want == "" {
				if len(r.Findings) != 0 {
					t.Errorf("found %+v", r.Findings)
				}
				return
			}
			if len(r.Findings) != 1 || !strings.Contains(r.Findings[0].Message, tt.want) {
				t.Errorf("found %+v, want %q", r.Findings, tt.want)
			}
		})
	}
}
