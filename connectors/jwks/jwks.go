// Package jwks verifies detached signatures (JWS with RFC 7797, RFC 7515 appendix F) by the keys that
// a provider publishes as a JWK set (RFC 7517).
//
// Keys come from one address alone, which the settings give; nothing in a signature names another one.
// Anyone may send a signature, so what they can set off is bounded: the set is fetched at most once a
// minute whatever key ids come in, and once in ten seconds while it cannot be had, by one caller at a
// time, in at most five seconds. Redirects are not followed.
//
//	age of the set         a key id that it has      one that it has not
//	up to an hour          used                      fetched again, at most once a minute
//	up to a day            fetched again; used when  fetched again
//	                       that fails
//	older, or none yet     fetched again             fetched again
//
// Only asymmetric algorithms are taken, so that neither "none" nor a public key used as the secret of
// an HMAC proves anything, and RSA keys only from 2048 bits on.
package jwks

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

var (
	// ErrForged says that a signature proves nothing.
	ErrForged = errors.New("the signature is not one of the published keys")
	// ErrAway says that the published keys cannot be had at the moment.
	ErrAway = errors.New("the published keys cannot be had at the moment")
)

const (
	fresh        = time.Hour        // how long a set is taken as it is
	stale        = 24 * time.Hour   // how long it may be used while a newer one cannot be had
	fetchPause   = time.Minute      // between two fetches: a provider changes its keys ahead of using them
	failPause    = 10 * time.Second // after a fetch that failed
	fetchTimeout = 5 * time.Second
	maxSet       = 64 << 10 // bytes of a set; a key has some 500
	maxKeys      = 32
	maxSignature = 8 << 10 // bytes; an RSA signature of 4096 bits with its header has about 1,000
	minRSA       = 2048    // bits (RFC 7518, section 3.3)
)

var algorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
	jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

// Keys are the keys that are published at one address. They are safe for concurrent use.
type Keys struct {
	url    string
	client *http.Client

	mu      sync.Mutex                   // guards what follows
	set     map[string][]jose.JSONWebKey // by key id
	fetched time.Time                    // when set was fetched; zero: never
	tried   time.Time                    // when a fetch last ended
	failed  bool                         // how it ended
	running chan struct{}                // closed when the fetch under way ends; nil when there is none
}

// New makes keys that are fetched from url when they are first needed, through rt; nil is
// [http.DefaultTransport].
func New(url string, rt http.RoundTripper) *Keys {
	return &Keys{url: url, client: &http.Client{
		Transport: rt, Timeout: fetchTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Verify checks a detached signature in compact form over a payload. The error wraps [ErrForged] or
// [ErrAway] and holds nothing of either.
func (k *Keys) Verify(ctx context.Context, signature string, payload []byte) error {
	if signature == "" || len(signature) > maxSignature {
		return fmt.Errorf("%w: it is missing or too long", ErrForged)
	}
	if payload == nil {
		payload = []byte{}
	}
	sig, err := jose.ParseDetached(signature, payload, algorithms)
	if err != nil || len(sig.Signatures) != 1 {
		return fmt.Errorf("%w: it is no detached JWS with an asymmetric algorithm", ErrForged)
	}
	header := sig.Signatures[0].Protected
	if header.KeyID == "" {
		return fmt.Errorf("%w: it names no key", ErrForged)
	}
	keys, err := k.find(ctx, header.KeyID)
	if err != nil {
		return err
	}
	for _, key := range keys {
		if key.Algorithm != "" && key.Algorithm != header.Algorithm {
			continue
		}
		if sig.DetachedVerify(payload, key.Key) == nil {
			return nil
		}
	}
	return fmt.Errorf("%w: it does not fit the body", ErrForged)
}

// find returns the keys of an id, fetching the set where that is called for.
func (k *Keys) find(ctx context.Context, id string) ([]jose.JSONWebKey, error) {
	for {
		k.mu.Lock()
		now := time.Now()
		found, age := k.set[id], now.Sub(k.fetched)
		if len(found) > 0 && age < fresh {
			k.mu.Unlock()
			return found, nil
		}
		pause := fetchPause
		if k.failed {
			pause = failPause
		}
		if !k.tried.IsZero() && now.Sub(k.tried) < pause {
			failed := k.failed
			k.mu.Unlock()
			switch {
			case len(found) > 0 && age < stale:
				return found, nil
			case failed:
				return nil, ErrAway // a newer set may have it
			}
			return nil, fmt.Errorf("%w: the provider publishes no key of this id", ErrForged)
		}
		wait := k.running
		if wait == nil {
			k.running = make(chan struct{})
			k.mu.Unlock()
			k.fetch(ctx)
			continue
		}
		k.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ErrAway, ctx.Err())
		}
	}
}

// fetch fetches the set. It goes on when its caller gives up: others may wait for it, and whoever
// hangs up must not be able to keep the keys from being fetched.
func (k *Keys) fetch(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
	defer cancel()
	set, err := k.get(ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tried = time.Now()
	if k.failed = err != nil; !k.failed {
		k.set, k.fetched = set, k.tried
	}
	close(k.running)
	k.running = nil
}

func (k *Keys) get(ctx context.Context) (map[string][]jose.JSONWebKey, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, k.url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	req.Header.Set("User-Agent", "lodestone")
	resp, err := k.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxSet+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxSet {
		return nil, fmt.Errorf("the set is longer than %d bytes", maxSet)
	}
	return parse(body)
}

// parse reads a JWK set. A key that cannot be used for verifying here is passed over, as RFC 7517,
// section 5 asks for; a set without one that can be used is an error, so that a good set is not
// replaced by it.
func parse(body []byte) (map[string][]jose.JSONWebKey, error) {
	var doc struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, errors.New("it is no JWK set")
	}
	if len(doc.Keys) > maxKeys {
		return nil, fmt.Errorf("the set has %d keys; at most %d are read", len(doc.Keys), maxKeys)
	}
	set := map[string][]jose.JSONWebKey{}
	for _, raw := range doc.Keys {
		var key jose.JSONWebKey
		if json.Unmarshal(raw, &key) == nil && usable(&key) {
			set[key.KeyID] = append(set[key.KeyID], key)
		}
	}
	if len(set) == 0 {
		return nil, errors.New("the set has no key that verifies")
	}
	return set, nil
}

func usable(key *jose.JSONWebKey) bool {
	if key.KeyID == "" || key.Use != "" && key.Use != "sig" || !key.IsPublic() || !key.Valid() {
		return false
	}
	switch public := key.Key.(type) {
	case *rsa.PublicKey:
		return public.N.BitLen() >= minRSA
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return true
	}
	return false
}

// Beside is the address of the set on the host of another address, under the well-known path.
func Beside(base string) string {
	scheme, rest, found := strings.Cut(base, "://")
	if !found {
		return ""
	}
	host, _, _ := strings.Cut(rest, "/")
	return scheme + "://" + host + "/.well-known/jwks.json"
}
