package access

import (
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

var (
	office = netip.MustParseAddr("198.51.100.7")
	bots   = netip.MustParseAddr("203.0.113.66")
)

// TestThrottleDoubles: past the free tries each wrong one doubles the wait before the next, up to a quarter of an hour; a right
// one takes all of it back.
func TestThrottleDoubles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle()
		var waits []time.Duration
		for len(waits) < 14 {
			wait, right, _ := th.begin("ada", bots, time.Now())
			if wait > 0 {
				waits = append(waits, wait)
				if again, right, _ := th.begin("ada", bots, time.Now()); again != wait || right != nil {
					t.Fatalf("asked again at once: %v, then %v", wait, again)
				}
				time.Sleep(wait)
			} else if right == nil {
				t.Fatal("it is let through and cannot be right")
			}
		}
		want := "[1s 2s 4s 8s 16s 32s 1m4s 2m8s 4m16s 8m32s 15m0s 15m0s 15m0s 15m0s]"
		if got := fmt.Sprint(waits); got != want {
			t.Errorf("waits %s, want %s", got, want)
		}
		_, right, _ := th.begin("ada", bots, time.Now())
		right()
		for range freeTries {
			if wait, _, _ := th.begin("ada", bots, time.Now()); wait > 0 {
				t.Errorf("after a right one: %v", wait)
			}
		}
		time.Sleep(forgottenAfter + time.Hour)
		if wait, _, _ := th.begin("ada", bots, time.Now()); wait > 0 {
			t.Errorf("after a day: %v", wait)
		}
	})
}

// TestGuessingElsewhereLocksNobodyOut: however long somebody guesses from elsewhere, the rightful user signs in.
func TestGuessingElsewhereLocksNobodyOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle()
		looked := 0
		for end := time.Now().Add(24 * time.Hour); time.Now().Before(end); {
			wait, _, _ := th.begin("ada", bots, time.Now())
			if wait == 0 {
				looked++
			}
			time.Sleep(max(wait, 100*time.Millisecond))
		}
		if looked > 130 {
			t.Errorf("one source had %d passwords looked at in a day", looked)
		}
		if wait, right, _ := th.begin("ada", office, time.Now()); wait > 0 || right == nil {
			t.Errorf("ada has to wait %v at her own place", wait)
		}
		for _, near := range []string{"203.0.113.67", "2001:db8::1"} {
			if wait, _, _ := th.begin("ada", netip.MustParseAddr(near), time.Now()); wait > 0 {
				t.Errorf("from %s: %v", near, wait)
			}
		}
	})
}

// TestOneSourceTriesManyUsers: who tries one password on every name is slowed as well, also from all over an IPv6 network; a right
// password of their own makes nothing good.
func TestOneSourceTriesManyUsers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, network := range []string{"203.0.113.66", "2001:db8:1:%x::1"} {
			th := newThrottle()
			looked := 0
			for i := range 2000 {
				from := network
				if network[0] == '2' && network[3] == '1' {
					from = fmt.Sprintf(network, i)
				}
				if wait, right, _ := th.begin(fmt.Sprintf("user%d", i), netip.MustParseAddr(from), time.Now()); wait == 0 {
					looked++
					if i%10 == 9 {
						right() // an account of their own
					}
				}
				time.Sleep(100 * time.Millisecond)
			}
			if looked > 60 {
				t.Errorf("%s: %d of 2000 were looked at in 200 s", network, looked)
			}
		}
	})
}

// TestManyAtOnceAreAllCounted: tries at the same moment get no more through than tries one after another.
func TestManyAtOnceAreAllCounted(t *testing.T) {
	th, now := newThrottle(), time.Now()
	through := 0
	for range 1000 {
		if wait, _, _ := th.begin("ada", bots, now); wait == 0 {
			through++
		}
	}
	if through != freeTries {
		t.Errorf("%d of 1000 at one moment, want %d", through, freeTries)
	}
}

// TestThrottleIsBounded: whatever names and sources come, so many are remembered and no more.
func TestThrottleIsBounded(t *testing.T) {
	th, now := newThrottle(), time.Now()
	for i := range 3 * maxTries {
		from := netip.AddrFrom4([4]byte{byte(i >> 16), byte(i >> 8), byte(i), 1})
		if wait, right, _ := th.begin(fmt.Sprint("user", i), from, now); wait == 0 {
			right()
		}
	}
	if n := len(th.tries.new) + len(th.tries.old); n > maxTries {
		t.Errorf("%d are remembered, want at most %d", n, maxTries)
	}
	if n := len(th.good.new) + len(th.good.old); n > rememberedGoods {
		t.Errorf("%d who signed in are remembered, want at most %d", n, rememberedGoods)
	}
}

// TestPlaces: so many passwords are checked at once and no more; who signed in from there before has a place of their own.
func TestPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle()
		_, right, _ := th.begin("ada", office, time.Now())
		right()
		var leave []func()
		for range checksAtOnce {
			l, ok := th.place("ada", bots, nil)
			if !ok {
				t.Fatal("no place at the beginning")
			}
			leave = append(leave, l)
		}
		begin := time.Now()
		if _, ok := th.place("ada", bots, nil); ok || time.Since(begin) != waitForCheck {
			t.Errorf("one more: %v after %v", ok, time.Since(begin))
		}
		l, ok := th.place("ada", office, nil)
		if !ok {
			t.Fatal("ada finds no place where she signed in before")
		}
		l()
		gone := make(chan struct{})
		close(gone)
		if _, ok := th.place("grace", office, gone); ok {
			t.Error("who went away got a place")
		}
		for _, l := range leave {
			l()
		}
		if _, ok := th.place("grace", office, nil); !ok {
			t.Error("no place although all left")
		}
	})
}

func TestSessions(t *testing.T) {
	var s sessions
	ada := User{Name: "ada", Epoch: "1"}
	now := time.Now()
	id := s.begin(ada, now)
	at := now
	for at.Sub(now) < longest-idle {
		at = at.Add(idle - time.Second)
		if x, ok := s.of(id, at); !ok || x.user != "ada" {
			t.Fatalf("after %v: %+v, %v", at.Sub(now), x, ok)
		}
	}
	if _, ok := s.of(id, now.Add(longest)); ok {
		t.Error("it lasts longer than the longest")
	}
	id = s.begin(ada, now)
	if _, ok := s.of(id, now.Add(idle)); ok {
		t.Error("it lasts although nobody came")
	}
	if _, ok := s.of(id, now); ok {
		t.Error("it came back")
	}
	ids := map[string]bool{}
	for i := range 3 * maxOfUser {
		ids[s.begin(ada, now.Add(time.Duration(i)*time.Second))] = true
	}
	if len(ids) != 3*maxOfUser || len(s.all) != maxOfUser {
		t.Errorf("%d ids, %d sessions; want %d of one user", len(ids), len(s.all), maxOfUser)
	}
	for key := range s.all {
		for id := range ids {
			if string(key[:26]) == id {
				t.Error("an id is kept as it is")
			}
		}
	}
}

// TestUncheckedIsNoWrongOne: a password that nobody looked at, because all places were taken, counts as none, and a wait that
// others brought about stays.
func TestUncheckedIsNoWrongOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle()
		for range 3 * freeOfSource {
			wait, _, unchecked := th.begin("ada", bots, time.Now())
			if wait > 0 {
				t.Fatalf("to wait %v for what was never looked at", wait)
			}
			unchecked()
		}
		_, _, unchecked := th.begin("ada", bots, time.Now())
		var wait time.Duration
		for range freeTries {
			wait, _, _ = th.begin("ada", bots, time.Now())
		}
		unchecked()
		if again, _, _ := th.begin("ada", bots, time.Now()); wait == 0 || again != wait {
			t.Errorf("a wait of %v is one of %v after one that was not looked at", wait, again)
		}
	})
}
