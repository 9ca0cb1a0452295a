package bench

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	bolt "go.etcd.io/bbolt"

	"github.com/lodestonehq/lodestone/internal/events"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
	"github.com/lodestonehq/lodestone/sequencer"
)

// large measures what many leads cost: the file, the start after a clean end and after a kill, what a worker does
// when nothing is to be done, sending and taking in beside their ceilings, and the replay of a tenth as many
// submissions.
func large(ctx context.Context, r *run) error {
	leads := r.Leads
	if leads <= 0 {
		leads = 10_000_000
	}
	l := &largeRun{run: r, leads: leads, settings: map[string]string{"leads": fmt.Sprint(leads), "waiting": fmt.Sprint(leads)}}
	for _, step := range []func(context.Context) error{l.fill, l.starts, l.dispatch, l.intake, l.plans} {
		if err := step(ctx); err != nil {
			return err
		}
		if err := r.end(); err != nil { // one at a time has the store
			return err
		}
	}
	return nil
}

type largeRun struct {
	*run
	leads    int
	next     int // the first lead that is not in the store yet
	data     string
	waiting  *sequencer.Rulebook
	settings map[string]string
}

func (l *largeRun) result(name, unit string, of []float64, aims ...Aim) Result {
	return Result{Name: "large: " + name, Unit: unit, Ours: figure(of), Items: l.leads, Aims: aims, Settings: maps.Clone(l.settings)}
}

// open opens the store until the step is over.
func (l *largeRun) open() (*boltstore.Store, error) {
	s, err := boltstore.Open(l.data, boltstore.Options{})
	if err == nil {
		l.atEnd(s.Close)
	}
	return s, err
}

// path is the store file.
func (l *largeRun) path() string { return filepath.Join(l.data, boltstore.FileName) }

// shares is in how many passes over all addresses the store is filled, each with leads drawn at random: pages are
// then written in the order in which they stand, and filled as if everybody had come at random.
const shares = 3

// fill makes the store.
func (l *largeRun) fill(ctx context.Context) (err error) {
	if l.waiting, err = rulebook("30d"); err != nil {
		return err
	}
	dir, err := l.folder()
	if err != nil {
		return err
	}
	l.data = filepath.Join(dir, "data")
	store, err := l.open()
	if err != nil {
		return err
	}
	l.logf("filling a store with %d leads", l.leads)
	begun, at := time.Now(), start()
	type place struct {
		email string
		n     int32
	}
	last := uint64(0)
	draw := rand.New(rand.NewPCG(1, 2)) // the same leads each time
	share := make([]uint8, l.leads)
	for n := range share {
		share[n] = uint8(draw.IntN(shares))
	}
	for pass := range shares {
		var places []place
		for n := range l.leads {
			if int(share[n]) == pass {
				places = append(places, place{address(n), int32(n)})
			}
		}
		slices.SortFunc(places, func(a, b place) int { return cmp.Compare(a.email, b.email) })
		i := 0
		err := prefillInTurn(ctx, store, l.waiting, at, func() (n int, ok bool) {
			if i == len(places) {
				return 0, false
			}
			i++
			return int(places[i-1].n), true
		}, func(results []sequencer.Result) error {
			last = results[len(results)-1].Change.Entry.Seq
			return nil
		})
		if err != nil {
			return err
		}
		l.logf("pass %d of %d after %.0f s", pass+1, shares, time.Since(begun).Seconds())
	}
	if err := store.SetCursor(ctx, events.Cursor, last); err != nil { // what made the leads was published when it happened
		return err
	}
	l.next = l.leads
	inUse, took := used(store), time.Since(begun)
	res := l.result("file", "GB", []float64{float64(inUse) / 1e9})
	res.Disk = float64(inUse) / float64(l.leads)
	res.Settings["filled in"] = fmt.Sprintf("%.0f s", took.Seconds())
	res.Rounds = 1
	if m := machineMemory(); m > 0 {
		l.settings["memory of the machine"] = fmt.Sprintf("%.1f GB, the file has %.1f", float64(m)/1e9, float64(inUse)/1e9)
		res.Settings["memory of the machine"] = l.settings["memory of the machine"]
	}
	return l.report(res)
}

// prefillInTurn is prefill for the leads that next names. They are planned while those before are committed.
func prefillInTurn(ctx context.Context, store *boltstore.Store, book *sequencer.Rulebook, at time.Time, next func() (n int, ok bool), told func([]sequencer.Result) error) error {
	const batch = 10_000
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	batches := make(chan sequencer.Batch, 1) // closed by who makes them
	go func() {
		defer close(batches)
		for more := true; more; {
			var b sequencer.Batch
			for len(b.Writes) < batch {
				n, ok := next()
				if more = ok; !ok {
					break
				}
				sub := submission(n, at)
				plan := func(st sequencer.State) (sequencer.Change, error) {
					return sequencer.Plan(st.Lead, &sequencer.Submitted{Submission: sub}, book, at)
				}
				ahead := &sequencer.Ahead{}
				var err error
				if ahead.Change, err = plan(ahead.State); err != nil {
					cancel(err)
					return
				}
				store.Prepare(ahead)
				b.Writes = append(b.Writes, sequencer.Write{Email: sub.Email, Plan: plan, Ahead: ahead})
			}
			if len(b.Writes) == 0 {
				return
			}
			select {
			case batches <- b:
			case <-ctx.Done():
				return
			}
		}
	}()
	for b := range batches {
		results, err := store.Commit(ctx, b)
		if err == nil {
			err = told(results)
		}
		if err != nil {
			cancel(err)
			for range batches { // it ends
			}
			return err
		}
	}
	return context.Cause(ctx)
}

// starts measures the start after a clean end and after a kill, and what the worker does at rest.
func (l *largeRun) starts(ctx context.Context) error {
	var clean, killed, heap, memory, idle []float64
	for i := range l.Rounds {
		for _, kill := range []bool{false, true} {
			if err := l.oneDue(ctx); err != nil {
				return err
			}
			if kill {
				if err := l.kill(); err != nil {
					return err
				}
			}
			one, err := l.oneStart(ctx, l.data)
			if err != nil {
				return err
			}
			what := "a clean end"
			if kill {
				what, killed = "a kill", append(killed, one.first.Seconds())
			} else {
				clean = append(clean, one.first.Seconds())
			}
			heap, memory, idle = append(heap, float64(one.heap)/1e6), append(memory, float64(one.memory)/1e6), append(idle, one.idle*100)
			l.logf("round %d of %d after %s: first touchpoint after %.2f s, at most %.0f MB, heap %.1f MB, idle %.2f %% of a core",
				i+1, l.Rounds, what, one.first.Seconds(), float64(one.memory)/1e6, float64(one.heap)/1e6, one.idle*100)
		}
	}
	for _, res := range []Result{
		l.result("start to first touchpoint after a clean end", "s", clean, atMost("ours", 10)),
		l.result("start to first touchpoint after a kill", "s", killed),
		l.result("memory during the start", "MB", memory),
		l.result("Go heap when idle", "MB", heap, atMost("ours", 64)),
		l.result("idle", "% of a core", idle, atMost("ours", 0.5)),
	} {
		res.Settings["idle measured for"] = idleFor.String() + " after the first touchpoint; the file is read through later, in a fiftieth of the time"
		res.Settings["page cache"] = "as what was done before left it"
		if err := l.report(res); err != nil {
			return err
		}
	}
	return nil
}

// oneDue puts a lead into the store whose touchpoint is due.
func (l *largeRun) oneDue(ctx context.Context) error {
	s, err := boltstore.Open(l.data, boltstore.Options{})
	if err != nil {
		return err
	}
	err = prefill(ctx, s, l.waiting, l.next, l.next+1, start().Add(-30*24*time.Hour), nil)
	l.next++
	return errors.Join(err, s.Close())
}

// kill leaves the file as a worker does that is killed: written to since it was closed, and without a list of its
// free pages.
func (l *largeRun) kill() error {
	db, err := openBolt(l.path())
	if err != nil {
		return err
	}
	return errors.Join(db.Update(func(*bolt.Tx) error { return nil }), db.Close())
}

// dispatch measures sending.
func (l *largeRun) dispatch(ctx context.Context) error {
	store, err := l.open()
	if err != nil {
		return err
	}
	res := l.result("dispatch", "", nil)
	err = l.dispatchFrom(ctx, store, l.next, res)
	l.next += l.Rounds * l.items(10_000)
	return err
}

// intake measures taking in. Ceiling and product take turns in the one file, because a second one would not fit
// into memory beside it: bbolt alone puts the same values at other leads, drawn as those were, so that neither
// finds the other's pages in memory.
func (l *largeRun) intake(ctx context.Context) error {
	items := l.items(50_000)
	streams, err := l.folder()
	if err != nil {
		return err
	}
	b, err := l.broker(ctx, streams)
	if err != nil {
		return err
	}
	book, err := rulebook("3d")
	if err != nil {
		return err
	}
	n := 0
	var written [][]put
	ours := func(ctx context.Context) (s sample, err error) {
		store, err := boltstore.Open(l.data, boltstore.Options{})
		if err != nil {
			return s, err
		}
		s, written, err = takeIn(ctx, store, b, book, items, func() *nats.Msg {
			n++
			lead := l.next + n
			if n%2 == 0 {
				lead = n * 7919 % l.leads // half of them were here before
			}
			return form(lead, n)
		})
		return s, errors.Join(err, store.Close())
	}
	ceiling := func(context.Context) (s sample, err error) {
		db, err := openBolt(l.path())
		if err != nil {
			return s, err
		}
		beside := &raw{db: db, buckets: []string{"leads", "raw due", "raw journal", "raw meta"}}
		defer func() {
			db.NoFreelistSync = false
			err = errors.Join(err, db.Update(func(*bolt.Tx) error { return nil }), db.Close())
		}()
		if err := beside.create(); err != nil {
			return s, err
		}
		for _, list := range written {
			for i := range list {
				if list[i].bucket == 0 {
					list[i].key = l.other(list[i].key)
				}
			}
		}
		return beside.batches(written, items)
	}
	res := l.result("intake", "submissions/s", nil, atLeast("ratio", 0.8))
	res.Raw = "bbolt alone in the same file: the same values at other leads, in the same transactions"
	res.Settings["stream"], res.Settings["batch"] = "embedded, SyncAlways", fmt.Sprint("at most ", sequencer.MaxBatch)
	return l.alternate(ctx, res, ours, ceiling)
}

// other is the address of another lead, in the store if that one was when it was filled, and new otherwise.
func (l *largeRun) other(email []byte) []byte {
	n := 0
	for _, c := range email[11:bytes.IndexByte(email, '@')] { // as address has it
		n = n*10 + int(c-'0')
	}
	if n < l.leads {
		return []byte(address((n + l.leads/2) % l.leads))
	}
	return []byte(address(n + 1<<30))
}

// plans measures the replay of a hundredth and of a tenth as many submissions: the memory that it takes must not
// grow with them.
func (l *largeRun) plans(ctx context.Context) error {
	if l.data != "" { // the next files need its room
		if err := os.RemoveAll(l.data); err != nil {
			return err
		}
	}
	for _, items := range []int{l.leads / 100, l.leads / 10} {
		if err := l.plan(ctx, max(items, 100), Result{
			Name: fmt.Sprintf("large: plan of %d", max(items, 100)), Aims: []Aim{atMost("peak_memory_mb", 256)},
		}); err != nil {
			return err
		}
		if err := l.end(); err != nil {
			return err
		}
	}
	return nil
}
