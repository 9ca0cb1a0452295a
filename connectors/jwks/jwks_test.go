package jwks

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
)

var (
	rsaKey   = must(rsa.GenerateKey(rand.Reader, 2048))
	otherRSA = must(rsa.GenerateKey(rand.Reader, 2048))
	ecKey    = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	_, edKey = func() (ed25519.PublicKey, ed25519.PrivateKey) {
		pub, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			panic(err)
		}
		return pub, key
	}()
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// sign makes a detached signature in compact form.
func sign(t testing.TB, alg jose.SignatureAlgorithm, kid string, key any, payload []byte, plain bool) string {
	t.Helper()
	opts := (&jose.SignerOptions{}).WithBase64(!plain)
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, opts)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := s.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	text, err := sig.DetachedCompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func set(keys ...jose.JSONWebKey) []byte {
	return must(json.Marshal(jose.JSONWebKeySet{Keys: keys}))
}

func public(kid string, key any) jose.JSONWebKey {
	return jose.JSONWebKey{Key: key, KeyID: kid, Use: "sig"}
}

// provider is a round tripper that publishes a set. It needs no socket, so that it works in a bubble.
type provider struct {
	mu      sync.Mutex
	body    []byte
	status  int
	err     error
	fetches int
	took    time.Duration
}

func (p *provider) RoundTrip(r *http.Request) (*http.Response, error) {
	p.mu.Lock()
	p.fetches++
	body, status, err, took := p.body, p.status, p.err, p.took
	p.mu.Unlock()
	select {
	case <-time.After(took):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	if err != nil {
		return nil, err
	}
	if status == 0 || r.URL.Host == "elsewhere.example" {
		status = http.StatusOK
	}
	return &http.Response{StatusCode: status, Header: http.Header{"Location": {"https://elsewhere.example/jwks.json"}}, Body: io.NopCloser(bytes.NewReader(body)), Request: r}, nil
}

func (p *provider) change(f func(*provider)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p)
}

func (p *provider) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fetches
}

func TestVerify(t *testing.T) {
	p := &provider{body: set(public("rsa", rsaKey.Public()), public("ec", ecKey.Public()), public("ed", edKey.Public()),
		jose.JSONWebKey{Key: otherRSA.Public(), KeyID: "pinned", Algorithm: "RS512"})}
	k := New("https://keys.example/jwks.json", p)
	payload := []byte(`{"id":"1"}`)
	rs := sign(t, jose.RS256, "rsa", rsaKey, payload, false)
	header, rest, _ := strings.Cut(rs, ".")
	_, signature, _ := strings.Cut(rest, ".")
	b64 := base64.RawURLEncoding.EncodeToString

	// An HMAC whose secret is the public key, in each form in which a careless receiver would hold it.
	confused := func(secret []byte) string {
		head := b64([]byte(`{"alg":"HS256","kid":"rsa"}`))
		mac := hmac.New(sha256.New, secret)
		fmt.Fprintf(mac, "%s.%s", head, b64(payload))
		return head + ".." + b64(mac.Sum(nil))
	}
	der := must(x509.MarshalPKIXPublicKey(rsaKey.Public()))

	for _, tt := range []struct {
		name, signature string
		payload         []byte
		good            bool
	}{
		{"RSA", rs, payload, true},
		{"RSA over the body as it is", sign(t, jose.RS256, "rsa", rsaKey, payload, true), payload, true},
		{"PSS", sign(t, jose.PS256, "rsa", rsaKey, payload, false), payload, true},
		{"ECDSA", sign(t, jose.ES256, "ec", ecKey, payload, false), payload, true},
		{"Ed25519", sign(t, jose.EdDSA, "ed", edKey, payload, false), payload, true},
		{"the algorithm that the key is for", sign(t, jose.RS512, "pinned", otherRSA, payload, false), payload, true},
		{"an empty payload", sign(t, jose.RS256, "rsa", rsaKey, nil, false), nil, true},

		{"another algorithm than the key is for", sign(t, jose.RS256, "pinned", otherRSA, payload, false), payload, false},
		{"another payload", rs, []byte(`{"id":"2"}`), false},
		{"another key of that id", sign(t, jose.RS256, "rsa", otherRSA, payload, false), payload, false},
		{"the id of another key", sign(t, jose.RS256, "ec", rsaKey, payload, false), payload, false},
		{"an id that is not published", sign(t, jose.RS256, "none", rsaKey, payload, false), payload, false},
		{"no id", sign(t, jose.RS256, "", rsaKey, payload, false), payload, false},
		{"alg none", b64([]byte(`{"alg":"none","kid":"rsa"}`)) + "..", payload, false},
		{"alg none with a signature", b64([]byte(`{"alg":"none","kid":"rsa"}`)) + ".." + signature, payload, false},
		{"alg None", b64([]byte(`{"alg":"None","kid":"rsa"}`)) + "..", payload, false},
		{"HMAC by the key in DER", confused(der), payload, false},
		{"HMAC by the key in PEM", confused(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), payload, false},
		{"HMAC by the modulus", confused(rsaKey.N.Bytes()), payload, false},
		{"a critical header that is not understood", b64([]byte(`{"alg":"RS256","kid":"rsa","crit":["exp"],"exp":1}`)) + ".." + signature, payload, false},
		{"a key that it brings along", b64([]byte(`{"alg":"RS256","kid":"x","jwk":`+string(must(json.Marshal(public("x", otherRSA.Public()))))+`}`)) + ".." + signature, payload, false},
		{"not detached", header + "." + b64(payload) + "." + signature, payload, false},
		{"without a signature", header + "..", payload, false},
		{"two parts", header + "." + signature, payload, false},
		{"JSON", `{"payload":"","signatures":[]}`, payload, false},
		{"nothing", "", payload, false},
		{"a page", "<html>", payload, false},
		{"too long", header + ".." + strings.Repeat("A", maxSignature), payload, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := k.Verify(t.Context(), tt.signature, tt.payload)
			if tt.good && err != nil || !tt.good && !errors.Is(err, ErrForged) {
				t.Errorf("Verify = %v, want good %v", err, tt.good)
			}
		})
	}
	if n := p.count(); n != 1 {
		t.Errorf("the set was fetched %d times, want once", n)
	}
}

func TestParse(t *testing.T) {
	weak := must(json.Marshal(jose.JSONWebKey{Key: []byte("a secret, not a public key at all"), KeyID: "oct"}))
	small := []byte(`{"kty":"RSA","kid":"small","n":"` + base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{0xff}, 128)) + `","e":"AQAB"}`)
	good := must(json.Marshal(public("good", rsaKey.Public())))
	doc := func(keys ...[]byte) []byte { return fmt.Appendf(nil, `{"keys":[%s]}`, bytes.Join(keys, []byte(","))) }
	for _, tt := range []struct {
		name string
		body []byte
		keys int // 0: refused
	}{
		{"one key", doc(good), 1},
		{"what cannot be used is passed over", doc(weak, small, []byte(`{"kty":"new"}`), []byte(`7`), good), 1},
		{"a private key is none to verify by", doc(must(json.Marshal(public("p", rsaKey)))), 0},
		{"a symmetric key", doc(weak), 0},
		{"an RSA key of 1024 bits", doc(small), 0},
		{"a key for encryption", doc(must(json.Marshal(jose.JSONWebKey{Key: rsaKey.Public(), KeyID: "e", Use: "enc"}))), 0},
		{"a key without an id", doc(must(json.Marshal(public("", rsaKey.Public())))), 0},
		{"no keys", doc(), 0},
		{"a list", []byte(`[]`), 0},
		{"a page", []byte(`<html></html>`), 0},
		{"too many keys", doc(bytes.Split(bytes.Repeat(append(good, '\n'), maxKeys+1), []byte("\n"))[:maxKeys+1]...), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parse(tt.body)
			if len(got) != tt.keys || (err != nil) != (tt.keys == 0) {
				t.Errorf("parse = %d ids, %v; want %d", len(got), err, tt.keys)
			}
		})
	}
}

// Whatever ids come in, by however many at a time, the set is fetched at most once a minute.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{body: set(public("a", ecKey.Public())), took: time.Second}
		k := New("https://keys.example/jwks.json", p)
		payload := []byte("x")
		var wg sync.WaitGroup
		for i := range 200 {
			signature := sign(t, jose.ES256, fmt.Sprint("kid", i), ecKey, payload, false)
			wg.Go(func() {
				if err := k.Verify(t.Context(), signature, payload); !errors.Is(err, ErrForged) {
					t.Errorf("Verify = %v, want forged", err)
				}
			})
		}
		wg.Wait()
		if n := p.count(); n != 1 {
			t.Errorf("200 unknown ids at once: %d fetches, want 1", n)
		}
		good := sign(t, jose.ES256, "a", ecKey, payload, false)
		for i := range 600 { // ten minutes of one unknown id a second
			signature := sign(t, jose.ES256, fmt.Sprint("later", i), ecKey, payload, false)
			if err := k.Verify(t.Context(), signature, payload); !errors.Is(err, ErrForged) {
				t.Fatalf("Verify = %v, want forged", err)
			}
			if err := k.Verify(t.Context(), good, payload); err != nil {
				t.Fatalf("a good signature meanwhile: %v", err)
			}
			time.Sleep(time.Second)
		}
		if n := p.count(); n > 11 {
			t.Errorf("600 unknown ids in ten minutes: %d fetches, want at most 11", n)
		}
	})
}

// A key that the provider took into use is found, at the latest a minute after the last fetch.
func TestRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{body: set(public("old", ecKey.Public()))}
		k := New("https://keys.example/jwks.json", p)
		payload := []byte("x")
		old := sign(t, jose.ES256, "old", ecKey, payload, false)
		fresh := sign(t, jose.RS256, "new", rsaKey, payload, false)
		if err := k.Verify(t.Context(), old, payload); err != nil {
			t.Fatal(err)
		}
		p.change(func(p *provider) { p.body = set(public("new", rsaKey.Public())) })
		time.Sleep(fetchPause)
		if err := k.Verify(t.Context(), fresh, payload); err != nil {
			t.Errorf("the new key: %v", err)
		}
		if err := k.Verify(t.Context(), old, payload); !errors.Is(err, ErrForged) {
			t.Errorf("the key that was withdrawn: %v, want forged", err)
		}
	})
}

// While the set cannot be had, known keys go on for a day and unknown ids are "not now", not "no".
func TestAway(t *testing.T) {
	for name, fail := range map[string]func(*provider){
		"no connection": func(p *provider) { p.err = errors.New("connection refused") },
		"status 500":    func(p *provider) { p.status = http.StatusInternalServerError },
		"a redirect":    func(p *provider) { p.status = http.StatusFound },
		"a page":        func(p *provider) { p.body = []byte("<html></html>") },
		"no keys":       func(p *provider) { p.body = []byte(`{"keys":[]}`) },
		"too long":      func(p *provider) { p.body = append(bytes.Repeat([]byte(" "), maxSet), p.body...) },
		"too slow":      func(p *provider) { p.took = time.Hour },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				body := set(public("a", ecKey.Public()))
				p := &provider{body: body}
				p.change(fail)
				k := New("https://keys.example/jwks.json", p)
				payload := []byte("x")
				good := sign(t, jose.ES256, "a", ecKey, payload, false)
				unknown := sign(t, jose.ES256, "b", ecKey, payload, false)
				want := func(when, signature string, want error) {
					t.Helper()
					if err := k.Verify(t.Context(), signature, payload); !errors.Is(err, want) {
						t.Errorf("%s: Verify = %v, want %v", when, err, want)
					}
				}
				want("from the start", good, ErrAway)
				want("at once again", good, ErrAway)
				if n := p.count(); n != 1 {
					t.Errorf("%d fetches, want 1: the next must wait", n)
				}
				p.change(func(p *provider) { p.body, p.status, p.err, p.took = body, 0, nil, 0 })
				time.Sleep(failPause)
				want("it is back", good, nil)
				p.change(fail)
				time.Sleep(fresh + time.Second)
				want("an hour later", good, nil)
				want("an unknown id meanwhile", unknown, ErrAway)
				time.Sleep(stale)
				want("a day later", good, ErrAway)
			})
		})
	}
}

// Whoever hangs up does not keep the keys from being fetched.
func TestHangUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{body: set(public("a", ecKey.Public())), took: time.Second}
		k := New("https://keys.example/jwks.json", p)
		payload := []byte("x")
		good := sign(t, jose.ES256, "a", ecKey, payload, false)
		gone, hangUp := context.WithCancel(t.Context())
		hangUp()
		if err := k.Verify(gone, good, payload); err != nil {
			t.Errorf("the one who hung up: %v", err)
		}
		if err := k.Verify(t.Context(), good, payload); err != nil || p.count() != 1 {
			t.Errorf("the next one: %v after %d fetches", err, p.count())
		}
	})
}

func TestBeside(t *testing.T) {
	for base, want := range map[string]string{
		"https://app.example.com/api/v1":   "https://app.example.com/.well-known/jwks.json",
		"http://127.0.0.1:8090/saasquatch": "http://127.0.0.1:8090/.well-known/jwks.json",
		"https://app.example.com":          "https://app.example.com/.well-known/jwks.json",
		"nonsense":                         "",
	} {
		if got := Beside(base); got != want {
			t.Errorf("Beside(%q) = %q, want %q", base, got, want)
		}
	}
}

// FuzzVerify: nothing but the payload that was signed is ever taken for signed.
func FuzzVerify(f *testing.F) {
	signed := []byte(`{"id":"1"}`)
	k := New("https://keys.example/jwks.json", &provider{body: set(public("ec", ecKey.Public()), public("rsa", rsaKey.Public()))})
	f.Add(sign(f, jose.ES256, "ec", ecKey, signed, false), signed)
	f.Add(sign(f, jose.RS256, "rsa", rsaKey, signed, true), signed)
	f.Add("eyJhbGciOiJub25lIiwia2lkIjoiZWMifQ..", signed)
	f.Add("..", []byte{})
	f.Fuzz(func(t *testing.T, signature string, payload []byte) {
		switch err := k.Verify(t.Context(), signature, payload); {
		case err == nil && !bytes.Equal(payload, signed):
			t.Errorf("Verify(%q, %q) takes it for signed", signature, payload)
		case err != nil && !errors.Is(err, ErrForged) && !errors.Is(err, ErrAway):
			t.Errorf("Verify = %v, which is neither forged nor away", err)
		}
	})
}

// FuzzParse: a set that is taken holds only keys that can verify.
func FuzzParse(f *testing.F) {
	f.Add(set(public("ec", ecKey.Public())))
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"AA","kid":"a"},{"kty":"RSA","kid":"b","n":"AQAB","e":"AQAB"}]}`))
	f.Add([]byte(`{"keys":null}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := parse(body)
		if err != nil {
			return
		}
		if len(got) == 0 {
			t.Error("an empty set was taken")
		}
		for id, keys := range got {
			for i := range keys {
				if id == "" || !usable(&keys[i]) {
					t.Errorf("key %q cannot verify", id)
				}
			}
		}
	})
}
