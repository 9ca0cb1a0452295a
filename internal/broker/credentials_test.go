package broker

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
)

// claims is what a token of the kinds used here is made of.
type claims interface {
	Encode(nkeys.KeyPair) (string, error)
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// operated starts a server with an operator: an application account with JetStream, a system account,
// and a credentials file of a user of each.
func operated(t *testing.T, sync bool) (s *outside, app, sys string) {
	t.Helper()
	key, text := must[nkeys.KeyPair](t), must[string](t)
	operator := key(nkeys.CreateOperator())
	encode := func(c claims, by nkeys.KeyPair) string { t.Helper(); return text(c.Encode(by)) }
	resolver := &server.MemAccResolver{}
	account := func(name string, stores bool) (id, creds string) {
		kp := key(nkeys.CreateAccount())
		id = text(kp.PublicKey())
		c := jwt.NewAccountClaims(id)
		c.Name = name
		if stores {
			c.Limits.JetStreamLimits = jwt.JetStreamLimits{DiskStorage: -1, MemoryStorage: -1, Streams: -1, Consumer: -1}
		}
		if err := resolver.Store(id, encode(c, operator)); err != nil {
			t.Fatal(err)
		}
		user := key(nkeys.CreateUser())
		seed, err := user.Seed()
		if err != nil {
			t.Fatal(err)
		}
		file, err := jwt.FormatUserConfig(encode(jwt.NewUserClaims(text(user.PublicKey())), kp), seed)
		if err != nil {
			t.Fatal(err)
		}
		creds = filepath.Join(t.TempDir(), name+".creds")
		if err := os.WriteFile(creds, file, 0o600); err != nil {
			t.Fatal(err)
		}
		return id, creds
	}
	_, app = account("app", true)
	sysID, sys := account("sys", false)
	oc := jwt.NewOperatorClaims(text(operator.PublicKey()))
	oc.SystemAccount = sysID
	parsed, err := jwt.DecodeOperatorClaims(encode(oc, operator))
	if err != nil {
		t.Fatal(err)
	}
	s = startOutside(t, func(o *server.Options) {
		o.SyncAlways = sync
		o.TrustedOperators, o.SystemAccount, o.AccountResolver = []*jwt.OperatorClaims{parsed}, sysID, resolver
	})
	return s, app, sys
}

func TestCredentials(t *testing.T) {
	s, app, sys := operated(t, true)
	b := openWithStreams(t, Options{URL: s.ClientURL(), Credentials: app, SystemCredentials: sys})
	if err := b.PublishBatch(t.Context(), messages(20, "creds")); err != nil {
		t.Error(err)
	}
	for name, tt := range map[string]struct {
		o    Options
		want string
	}{
		"the application's user cannot ask": {Options{Credentials: app, SystemCredentials: app}, "not one of the system account"},
		"no such file":                      {Options{Credentials: app, SystemCredentials: "none.creds"}, "nats.system_credentials"},
	} {
		tt.o.URL = s.ClientURL()
		if _, err := Open(t.Context(), tt.o); !errors.Is(err, ErrUnsynced) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want ErrUnsynced with %q", name, err, tt.want)
		}
	}
	if _, err := Open(t.Context(), Options{URL: s.ClientURL(), AcceptUnsynced: true}); err == nil || !strings.Contains(err.Error(), "nats.credentials") {
		t.Errorf("without credentials: %v", err)
	}

	lazy, app, sys := operated(t, false)
	if _, err := Open(t.Context(), Options{URL: lazy.ClientURL(), Credentials: app, SystemCredentials: sys}); !errors.Is(err, ErrUnsynced) || !strings.Contains(err.Error(), "does not run with sync_interval: always") {
		t.Errorf("a server that does not sync: %v", err)
	}
}
