package connectors

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// free counts the places that nobody has.
func (a *Account) free() int { return cap(a.t.slots) - len(a.t.slots) }

// What is reserved is one place and one act's worth of the rate: the checks before the act use the place,
// pay for themselves, and the act waits for nothing.
func TestReserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, net := openToy(t, Settings{Rate: 1, Concurrency: 1})
		start := time.Now()
		held, release, err := a.Reserve(t.Context())
		if err != nil || a.free() != 0 {
			t.Fatalf("Reserve = %v with %d places left", err, a.free())
		}
		other := make(chan time.Duration, 1)
		go func() {
			_, _ = a.Unsubscribed(context.Background(), "eve@example.com")
			other <- time.Since(start)
		}()
		synctest.Wait()
		for range 2 { // one after the other in the one place
			if _, err := a.Unsubscribed(held, "ada@example.com"); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := do(held, a); err != nil {
			t.Fatal(err)
		}
		acted := time.Since(start)
		if acted != 2*time.Second {
			t.Errorf("the act went out after %v, want 2s: it is paid for and waits for its checks alone", acted)
		}
		if waited := <-other; waited != 3*time.Second {
			t.Errorf("who waited for the place was served after %v, want 3s", waited)
		}
		release()
		release()
		if a.free() != 1 {
			t.Errorf("%d places are free, want 1", a.free())
		}
		// The context holds nothing any more and is as good as any.
		if _, err := a.Unsubscribed(held, "ada@example.com"); err != nil || a.free() != 1 {
			t.Errorf("afterwards: %v with %d places free", err, a.free())
		}
		if n := len(net.times()); n != 5 {
			t.Errorf("%d requests, want 5", n)
		}
	})
}

// Who asks for a place first gets it first, whatever it is for.
func TestPlacesAreGivenInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, net := openToy(t, Settings{Concurrency: 1})
		net.took = time.Second
		served := make(chan string, 6)
		ask := func(what string, f func()) {
			go func() { f(); served <- what }()
			synctest.Wait()
		}
		check := func() { _, _ = a.Unsubscribed(t.Context(), "ada@example.com") }
		act := func() {
			held, release, err := a.Reserve(t.Context())
			if err != nil {
				t.Error(err)
			}
			defer release()
			_, _ = a.Unsubscribed(held, "ada@example.com")
			_, _ = do(held, a)
		}
		for range 2 {
			ask("act", act)
			ask("check", check)
			ask("command", func() { _, _ = do(t.Context(), a) })
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		close(served)
		var order []string
		for what := range served {
			order = append(order, what)
		}
		if want := []string{"act", "check", "command", "act", "check", "command"}; !slices.Equal(order, want) {
			t.Errorf("served in the order %q, want %q", order, want)
		}
	})
}

func TestReserveThatFailsHoldsNothing(t *testing.T) {
	for _, tc := range []struct {
		name string
		harm func(a *Account, cancel func())
		want Class
	}{
		{"given up while it waits for a place", func(_ *Account, cancel func()) { cancel() }, NotDone},
		{"the breaker opens meanwhile", func(a *Account, _ func()) { a.t.breaker.lockOut("no") }, LockedOut},
		{"the provider asks for silence meanwhile", func(a *Account, _ func()) { a.t.silenceFor(time.Hour) }, RateLimited},
	} {
		for _, full := range []bool{true, false} { // it waits for a place, or has one and waits for the rate
			t.Run(tc.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a, _ := openToy(t, Settings{Rate: 0.1, Concurrency: 2})
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					var holders []func()
					for range map[bool]int{true: 2, false: 1}[full] {
						_, release, err := a.t.Hold(t.Context())
						if err != nil {
							t.Fatal(err)
						}
						holders = append(holders, release)
					}
					a.t.rate.Allow()
					failed := make(chan error, 1)
					go func() {
						_, release, err := a.Reserve(ctx)
						release()
						failed <- err
					}()
					time.Sleep(time.Second)
					tc.harm(a, cancel)
					synctest.Wait()
					for _, release := range holders {
						release()
					}
					if f, ok := (<-failed).(*Fault); !ok || f.Class != tc.want {
						t.Errorf("Reserve = %+v, want %s", f, tc.want)
					}
					if a.free() != 2 {
						t.Errorf("%d places are free, want 2", a.free())
					}
				})
			})
		}
	}
}
