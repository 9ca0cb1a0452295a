package sandbox_test

import (
	"errors"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/referralrock"
	"github.com/lodestonehq/lodestone/connectors/sandbox"
)

// The connector and the sandbox read the same description: what the one sends, the other accepts
// without a violation.

func connected(t *testing.T, opts sandbox.Options) (*sandbox.Server, *connectors.Account) {
	t.Helper()
	s := sandbox.New(opts)
	srv := httptest.NewServer(s.Handler())
	t.Cleanup(func() {
		s.Clear()
		srv.Close()
	})
	a, err := connectors.Open(referralrock.Kind(), connectors.Settings{
		BaseURL: srv.URL + "/referralrock", Rate: 10000, Timeout: 10 * time.Second,
		Secrets: map[string]connectors.Secret{"public_key": "pk-1", "private_key": "sk-1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, a
}

func act(operation string, parameters map[string]any) connectors.Act {
	return connectors.Act{ID: "e1." + operation, Operation: operation, Email: "ada@example.com", Parameters: parameters, IntendedAt: time.Now()}
}

func TestConnectorKeepsToTheDescription(t *testing.T) {
	s, a := connected(t, sandbox.Options{})
	invite, refer := act("invite", map[string]any{"firstName": "Ada", "lastName": "Lovelace", "contactType": "customer"}), act("refer", map[string]any{"referralCode": "INES1042", "amount": 12.5, "preferredContact": "email"})
	for _, step := range []struct {
		name string
		do   func() (got, want any, err error)
	}{
		{"probe", func() (any, any, error) { return nil, nil, a.Probe(t.Context()) }},
		{"check", func() (any, any, error) {
			s, err := a.Unsubscribed(t.Context(), "ada@example.com")
			return s.Unsubscribed, false, err
		}},
		{"check of one who opted out", func() (any, any, error) {
			s, err := a.Unsubscribed(t.Context(), "unsubscribed@example.com")
			return s.Unsubscribed, true, err
		}},
		{"find the invite before", func() (any, any, error) {
			f, err := a.Find(t.Context(), invite)
			return f.State, connectors.Unclear, err
		}},
		{"invite", func() (any, any, error) {
			r, err := a.Do(t.Context(), invite)
			return r.Detail, "MemberPreloaded", err
		}},
		{"find the invite after", func() (any, any, error) {
			f, err := a.Find(t.Context(), invite)
			return f.State, connectors.Found, err
		}},
		{"find the referral before", func() (any, any, error) {
			f, err := a.Find(t.Context(), refer)
			return f.State, connectors.Absent, err
		}},
		{"refer", func() (any, any, error) {
			r, err := a.Do(t.Context(), refer)
			return r.Detail, "Referral Added", err
		}},
		{"find the referral after", func() (any, any, error) {
			f, err := a.Find(t.Context(), refer)
			return f.State, connectors.Found, err
		}},
	} {
		got, want, err := step.do()
		if err != nil || got != want {
			t.Errorf("%s = %v, %v; want %v", step.name, got, err, want)
		}
	}
	if v := s.Violations(); len(v) != 0 {
		t.Errorf("violations = %+v, want none", v)
	}
}

// Whatever breaks, the account's word and the sandbox's count agree: not done means no effect, and an
// effect without an answer is found again.
func TestFaultsAndLookups(t *testing.T) {
	for _, operation := range []string{"invite", "refer"} {
		for _, kind := range sandbox.FaultKinds {
			if kind == sandbox.FaultSlow { // it ends well
				continue
			}
			for _, retryAfter := range []string{"", "3"} {
				t.Run(operation+"/"+string(kind)+"/"+retryAfter, func(t *testing.T) {
					s, a := connected(t, sandbox.Options{})
					if err := s.Fault(sandbox.Fault{Kind: kind, Operation: operation, RetryAfter: retryAfter, Delay: time.Millisecond}); err != nil {
						t.Fatal(err)
					}
					act := act(operation, map[string]any{"firstName": "Ada"})
					if operation == "refer" {
						act.Parameters = map[string]any{"referralCode": "INES1042"}
					}
					_, err := a.Do(t.Context(), act)
					var f *connectors.Fault
					if !errors.As(err, &f) {
						t.Fatalf("Do = %v, want a fault", err)
					}
					effects := s.Effects().Total
					if n := len(s.Received()); n != 1 {
						t.Errorf("%d requests, want 1", n)
					}
					s.Clear()
					switch f.Class {
					case connectors.NotDone, connectors.RateLimited, connectors.LockedOut, connectors.Refused:
						if effects != 0 {
							t.Errorf("%v, and it had an effect", f)
						}
						return
					}
					found, err := a.Find(t.Context(), act)
					want := connectors.Unclear
					switch {
					case effects == 1:
						want = connectors.Found
					case operation == lodestone.VerbRefer:
						want = connectors.Absent
					}
					if err != nil || found.State != want {
						t.Errorf("Find = %+v, %v after %d effects; want %s", found, err, effects, want)
					}
				})
			}
		}
	}
}

// A provider that shows what it made only later must not be believed too early; when it never shows it
// an invite stays unclear.
func TestLag(t *testing.T) {
	_, a := connected(t, sandbox.Options{Settings: sandbox.Settings{Hidden: true}})
	invite := act("invite", map[string]any{"firstName": "Ada"})
	if _, err := a.Do(t.Context(), invite); err != nil {
		t.Fatal(err)
	}
	if f, err := a.Find(t.Context(), invite); err != nil || f.State != connectors.Unclear {
		t.Errorf("Find = %+v, %v; want unclear", f, err)
	}
}
