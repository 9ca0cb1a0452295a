package sandbox_test

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/blocks23"
	"github.com/lodestonehq/lodestone/connectors/sandbox"
)

func blocksAccount(t *testing.T, opts sandbox.Options) (*sandbox.Server, *connectors.Account) {
	t.Helper()
	s := sandbox.New(opts)
	srv := httptest.NewServer(s.Handler())
	t.Cleanup(func() {
		s.Clear()
		srv.Close()
	})
	extra := map[string]string{blocks23.AppID: "app-1", blocks23.Form: "form-1", blocks23.SubscriptionForm: "news"}
	if opts.Blocks23.SDKNames {
		extra[blocks23.FieldNames] = blocks23.NamesSDK
	}
	a, err := connectors.Open(blocks23.Kind(), connectors.Settings{
		BaseURL: srv.URL + "/23blocks", Rate: 10000, Timeout: 10 * time.Second, Extra: extra,
		Secrets: map[string]connectors.Secret{blocks23.Token: "tok-1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, a
}

func blocksAct(id, operation string, parameters map[string]any) connectors.Act {
	return connectors.Act{ID: id, Operation: operation, Email: "ada@example.com", Parameters: parameters, IntendedAt: time.Now()}
}

func blocksRefer(id string) connectors.Act {
	return blocksAct(id, "refer", map[string]any{"referrer_email": "ines@example.com", "referral_code": "INES1042", "referred_name": "Ada"})
}

// What the connector sends, the sandbox accepts without a violation, by either set of names.
func TestBlocksConnectorKeepsToTheDescription(t *testing.T) {
	for _, sdk := range []bool{false, true} {
		t.Run(fmt.Sprintf("sdk=%t", sdk), func(t *testing.T) {
			s, a := blocksAccount(t, sandbox.Options{Blocks23: sandbox.Blocks23Options{SDKNames: sdk}})
			refer := blocksRefer("e1.refer")
			var id string
			on := func(operation string, more map[string]any) connectors.Act {
				p := map[string]any{"unique_id": id}
				for k, v := range more {
					p[k] = v
				}
				return blocksAct("e1."+operation, operation, p)
			}
			change := map[string]any{"status": "converted", "reward_status": "pending", "reward_amount": 25.0, "referred_name": "Ada L"}
			do := func(act connectors.Act) (any, error) {
				r, err := a.Do(t.Context(), act)
				if id == "" {
					id = r.Reference
				}
				return r.Detail, err
			}
			find := func(act connectors.Act) (any, error) {
				f, err := a.Find(t.Context(), act)
				return f.State, err
			}
			check := func(email string) (any, error) {
				sub, err := a.Unsubscribed(t.Context(), "ada@example.com")
				if email != "" {
					sub, err = a.Unsubscribed(t.Context(), "unsubscribed@example.com")
				}
				return sub.Unsubscribed, err
			}
			for _, step := range []struct {
				name string
				do   func() (any, error)
				want any
			}{
				{"probe", func() (any, error) { return nil, a.Probe(t.Context()) }, nil},
				{"check", func() (any, error) { return check("") }, false},
				{"check of one who opted out", func() (any, error) { return check("unsubscribed") }, true},
				{"find before", func() (any, error) { return find(refer) }, connectors.Absent},
				{"refer", func() (any, error) { return do(refer) }, "status pending"},
				{"find after", func() (any, error) { return find(refer) }, connectors.Found},
				{"find another touchpoint", func() (any, error) { return find(blocksRefer("e2.refer")) }, connectors.Absent},
				{"find the change before", func() (any, error) { return find(on("updateReferral", change)) }, connectors.Unclear},
				{"change", func() (any, error) { return do(on("updateReferral", change)) }, "status converted"},
				{"find the change after", func() (any, error) { return find(on("updateReferral", change)) }, connectors.Found},
				{"read", func() (any, error) { return do(on("getReferral", nil)) }, "status converted, reward pending"},
				{"list", func() (any, error) {
					return do(blocksAct("e1.l", "listReferrals", map[string]any{"page": 1.0, "status": "converted"}))
				}, "1 referrals on this page, 1 in all"},
				{"find the deletion before", func() (any, error) { return find(on("deleteReferral", nil)) }, connectors.Absent},
				{"delete", func() (any, error) { return do(on("deleteReferral", nil)) }, "deleted"},
				{"find the deletion after", func() (any, error) { return find(on("deleteReferral", nil)) }, connectors.Found},
			} {
				got, err := step.do()
				if err != nil || got != step.want {
					t.Errorf("%s = %v, %v; want %v", step.name, got, err, step.want)
				}
			}
			if v := s.Violations(); len(v) != 0 {
				t.Errorf("violations = %+v, want none", v)
			}
		})
	}
}

// Whatever breaks, one touchpoint has one effect: what was not done is done again, what may have been
// done is looked up first. The list is longer than a page, and runs either way.
func TestBlocksLostAnswers(t *testing.T) {
	for _, oldestFirst := range []bool{false, true} {
		for _, kind := range sandbox.FaultKinds {
			t.Run(fmt.Sprintf("%s/oldest=%t", kind, oldestFirst), func(t *testing.T) {
				s, a := blocksAccount(t, sandbox.Options{Blocks23: sandbox.Blocks23Options{OldestFirst: oldestFirst, MaxRecords: 3}})
				for i := range 8 {
					if _, err := a.Do(t.Context(), blocksRefer(fmt.Sprintf("e0.%d", i))); err != nil {
						t.Fatal(err)
					}
				}
				if err := s.Fault(sandbox.Fault{Kind: kind, Operation: "refer", ExternalID: "e1.refer", Times: 1, Delay: time.Millisecond}); err != nil {
					t.Fatal(err)
				}
				act := blocksRefer("e1.refer")
				for try := 1; ; try++ {
					_, err := a.Do(t.Context(), act)
					if err == nil {
						break
					}
					var f *connectors.Fault
					if !errors.As(err, &f) || try == 3 {
						t.Fatalf("Do = %v at try %d, want a fault or an end", err, try)
					}
					if f.Class == connectors.LockedOut {
						if err := a.Probe(t.Context()); err != nil {
							t.Fatal(err)
						}
					}
					if f.Class != connectors.Unknown {
						continue // nothing happened
					}
					found, err := a.Find(t.Context(), act)
					if err != nil || found.State != connectors.Found && found.State != connectors.Absent {
						t.Fatalf("Find = %+v, %v; want an answer that settles it", found, err)
					}
					if found.State == connectors.Found {
						break
					}
				}
				for _, e := range s.Effects().ByExternalID {
					if e.Count != 1 {
						t.Errorf("%s had %d effects, want 1", e.ExternalID, e.Count)
					}
				}
				if got := len(s.Effects().ByExternalID); got != 9 {
					t.Errorf("%d touchpoints had an effect, want 9", got)
				}
				if v := s.Violations(); len(v) != 0 {
					t.Errorf("violations = %+v, want none", v)
				}
			})
		}
	}
}

// A deployment that drops our key, or shows a referral under no name that we know, never makes a
// look-up say that it did not happen.
func TestBlocksWithoutAKey(t *testing.T) {
	s, a := blocksAccount(t, sandbox.Options{Blocks23: sandbox.Blocks23Options{NoMetadata: true}})
	if err := s.Fault(sandbox.Fault{Kind: sandbox.FaultResetAfterEffect, Times: 1}); err != nil {
		t.Fatal(err)
	}
	act := blocksRefer("e1.refer")
	var f *connectors.Fault
	if _, err := a.Do(t.Context(), act); !errors.As(err, &f) || f.Class != connectors.Unknown {
		t.Fatalf("Do = %v, want an unknown outcome", err)
	}
	if found, err := a.Find(t.Context(), act); err != nil || found.State != connectors.Unclear {
		t.Errorf("Find = %+v, %v; want unclear", found, err)
	}
}

// A change and a deletion whose answers are lost are settled by looking at the referral.
func TestBlocksLostAnswersToChanges(t *testing.T) {
	for _, kind := range []sandbox.FaultKind{sandbox.FaultResetAfterEffect, sandbox.FaultReset, sandbox.Fault500AfterEffect} {
		for _, operation := range []string{"updateReferral", "deleteReferral"} {
			t.Run(string(kind)+"/"+operation, func(t *testing.T) {
				s, a := blocksAccount(t, sandbox.Options{})
				made, err := a.Do(t.Context(), blocksRefer("e1.refer"))
				if err != nil {
					t.Fatal(err)
				}
				act := blocksAct("e1.next", operation, map[string]any{"unique_id": made.Reference})
				if operation == "updateReferral" {
					act.Parameters["status"] = "converted"
				}
				if err := s.Fault(sandbox.Fault{Kind: kind, Operation: operation, ExternalID: made.Reference, Times: 1}); err != nil {
					t.Fatal(err)
				}
				if _, err := a.Do(t.Context(), act); err == nil {
					t.Fatal("Do = nil, want a fault")
				}
				want := connectors.Found
				switch {
				case kind != sandbox.FaultReset:
				case operation == "updateReferral":
					want = connectors.Unclear
				default:
					want = connectors.Absent
				}
				if f, err := a.Find(t.Context(), act); err != nil || f.State != want {
					t.Errorf("Find = %+v, %v; want %s", f, err, want)
				}
			})
		}
	}
}
