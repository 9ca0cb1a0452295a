package boltstore

import (
	"os"
	"strconv"
	"testing"
	"time"
)

// NoSync has commits not wait for the disk, for histories that are about something else.
func (s *Store) NoSync() { s.db.Load().NoSync = true }

// History says how long a random history is and what it is drawn from: MODEL_STEPS, otherwise steps, and
// MODEL_SEED, otherwise the clock. Both are logged.
func History(t *testing.T, steps int) (long int, seed uint64) {
	t.Helper()
	seed = uint64(time.Now().UnixNano())
	for name, to := range map[string]func(uint64){"MODEL_SEED": func(n uint64) { seed = n }, "MODEL_STEPS": func(n uint64) { steps = int(n) }} {
		if v := os.Getenv(name); v != "" {
			n, err := strconv.ParseUint(v, 10, 64)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			to(n)
		}
	}
	t.Logf("MODEL_SEED=%d MODEL_STEPS=%d", seed, steps)
	return steps, seed
}
