package profile

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// The garbage collector begins when the heap has doubled. What this program keeps is small and what it makes
// on the way is much, so that it would begin dozens of times a second; room of a fixed size costs memory once
// and saves a tenth of the processor time under load.
const (
	room       = 64 << 20 // bytes that may be made between two collections
	mostRoom   = 400      // percent of what is kept
	leastRoom  = 100      // percent: as without this, for a large heap
	worthwhile = 20       // percent that a change must be of
)

var keepRoom = sync.OnceFunc(func() {
	if os.Getenv("GOGC") != "" {
		return // the operator said something else
	}
	percent := leastRoom
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	fit := func() {
		metrics.Read(sample)
		want := mostRoom
		if live := sample[0].Value.Uint64(); live > 0 {
			want = int(min(mostRoom, max(leastRoom, room*100/live)))
		}
		if want-percent >= worthwhile || percent-want >= worthwhile || want == leastRoom && percent != want {
			percent = want
			debug.SetGCPercent(percent)
		}
	}
	var each func()
	each = func() { // once after each collection
		fit()
		runtime.SetFinalizer(&mark{}, func(*mark) { each() })
	}
	each()
})

// mark is what a collection finds to be gone.
type mark struct{ _ *mark }

// KeepRoom gives the garbage collector room to be lazy in, as long as the heap is small. GOGC in the
// environment takes its place.
func KeepRoom() { keepRoom() }
