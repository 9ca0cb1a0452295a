package bench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/lodestonehq/lodestone/internal/events"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
	"github.com/lodestonehq/lodestone/sequencer"
)

// backlog measures a worker for which many touchpoints wait: the memory that this takes, how soon after
// the start the first one that is due goes out, and what the worker does when nothing is to be done.
func backlog(ctx context.Context, r *run) error {
	leads := r.Leads
	if leads <= 0 {
		leads = 1_000_000
	}
	waiting, err := rulebook("30d")
	if err != nil {
		return err
	}
	dir, err := r.folder()
	if err != nil {
		return err
	}
	data := filepath.Join(dir, "data")
	store, err := boltstore.Open(data, boltstore.Options{})
	if err != nil {
		return err
	}
	r.logf("filling a store with %d leads", leads)
	last := uint64(0)
	err = prefill(ctx, store, waiting, 0, leads, start(), func(results []sequencer.Result) error {
		last = results[len(results)-1].Change.Entry.Seq
		return nil
	})
	if err == nil {
		err = store.SetCursor(ctx, events.Cursor, last) // what made the backlog was published when it happened
	}
	size := used(store)
	if err := errors.Join(err, store.Close()); err != nil {
		return err
	}
	var memory, heap, first, idle []float64
	for i := range r.Rounds {
		if store, err = boltstore.Open(data, boltstore.Options{}); err != nil {
			return err
		}
		err = prefill(ctx, store, waiting, leads+i, leads+i+1, start().Add(-30*24*time.Hour), nil) // one that is due
		if err := errors.Join(err, store.Close()); err != nil {
			return err
		}
		one, err := r.oneStart(ctx, data)
		if err != nil {
			return err
		}
		memory, heap = append(memory, float64(one.memory)/1e6), append(heap, float64(one.heap)/1e6)
		first, idle = append(first, one.first.Seconds()), append(idle, one.idle*100)
		r.logf("round %d of %d: %.0f MB, first touchpoint after %.2f s, idle %.2f %% of a core", i+1, r.Rounds, memory[i], first[i], idle[i])
	}
	settings := map[string]string{"waiting": fmt.Sprint(leads), "idle measured for": idleFor.String()}
	for _, res := range []Result{
		{Name: "backlog: memory", Unit: "MB", Ours: figure(memory), Aims: []Aim{atMost("ours", 128)}, Disk: float64(size) / float64(leads)},
		{Name: "backlog: Go heap when idle", Unit: "MB", Ours: figure(heap), Aims: []Aim{atMost("ours", 64)}},
		{Name: "backlog: start to first touchpoint", Unit: "s", Ours: figure(first), Aims: []Aim{atMost("ours", 10)}},
		{Name: "backlog: idle", Unit: "% of a core", Ours: figure(idle), Aims: []Aim{atMost("ours", 0.5)}},
	} {
		res.Items, res.Settings = leads, settings
		if err := r.report(res); err != nil {
			return err
		}
	}
	return nil
}

// idleFor is how long an idle worker is looked at; a test needs no figure.
var idleFor = 10 * time.Second

type started struct {
	memory, heap int64
	first        time.Duration
	idle         float64 // of one core
}

// oneStart runs the whole worker until it has sent what is due, and on for a while.
func (r *run) oneStart(ctx context.Context, data string) (s started, err error) {
	var acted atomic.Int64
	arrived := make(chan struct{}, 16)
	p, err := newProvider(0, func([]byte, time.Time) { acted.Add(1); arrived <- struct{}{} })
	if err != nil {
		return s, err
	}
	defer p.Close()
	account, err := p.account()
	if err != nil {
		return s, err
	}
	debug.FreeOSMemory() // what the filling, which this process did, took is not the worker's
	peak := watchMemory()
	begin := time.Now()
	w, err := worker(ctx, data, "30d", account)
	if err != nil {
		peak()
		return s, err
	}
	work, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- w.Run(work) }()
	defer func() { stop(); err = errors.Join(err, <-ended) }()
	select {
	case <-arrived:
	case err := <-ended:
		ended <- nil
		peak()
		return s, err
	case <-time.After(5 * time.Minute):
		peak()
		return s, errors.New("nothing was sent within five minutes of the start")
	case <-ctx.Done():
		peak()
		return s, ctx.Err()
	}
	s.first = time.Since(begin)
	s.memory = peak()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s.heap = int64(m.HeapAlloc)
	cpu, at := processorTime(), time.Now()
	select {
	case <-time.After(idleFor):
	case <-ctx.Done():
		return s, ctx.Err()
	}
	s.idle = (processorTime() - cpu).Seconds() / time.Since(at).Seconds()
	return s, nil
}
