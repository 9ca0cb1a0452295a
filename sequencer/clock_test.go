package sequencer_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone/sequencer"
)

// The clock is set to and fro by hours between submissions and across restarts: each is applied once, in
// the order of the stream.
func TestIntakeDoesNotDependOnTheClock(t *testing.T) {
	r := newRig(t)
	var set atomic.Int64
	start := func() (<-chan string, func() error) {
		return r.intake(func(cfg *sequencer.Config) {
			cfg.Now = func() time.Time { return time.Now().Add(time.Duration(set.Load())) }
		})
	}
	decided, stop := start()
	n := 0
	for i, by := range []time.Duration{0, 7 * time.Hour, -12 * time.Hour, 30 * time.Hour, -40 * time.Hour, 0} {
		set.Store(int64(by))
		if i%2 == 1 {
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			decided, stop = start()
		}
		for j := range 3 {
			r.publish("guide", fmt.Sprint("id", i, j), fmt.Sprintf(`{"email":"lead%d-%d@example.com"}`, i, j))
			n++
		}
		for j, got := range next(t, decided, 3) {
			if want := fmt.Sprintf("lead%d-%d@example.com ", i, j); !strings.HasPrefix(got, want) {
				t.Errorf("decided %q, want it of %q", got, want)
			}
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	mark, err := r.store.Watermark(t.Context(), sequencer.FormsStream)
	if err != nil || mark.Seq != uint64(n) {
		t.Errorf("watermark = %v, %v; want %d", mark, err, n)
	}
	entries, err := r.store.Journal(t.Context(), 0, 100)
	if err != nil || len(entries) != n {
		t.Fatalf("%d entries, %v; want %d", len(entries), err, n)
	}
	for i, e := range entries {
		if want := fmt.Sprintf("lead%d-%d@example.com", i/3, i%3); string(e.Lead) != want {
			t.Errorf("entry %d is of %s, want %s", i, e.Lead, want)
		}
	}
}
