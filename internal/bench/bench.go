// Package bench measures the product's own code beside a raw ceiling: the least that the same work
// could cost on this machine, the same bytes with no logic around them. The two take turns within one
// run, so that a slow minute of the disk falls on both, and what counts is their ratio.
//
// Every guarantee is on while something is measured: acknowledgements and commits are synced, and
// intents are stored before calls. What the ceiling leaves out is what the product adds: deciding,
// keeping evidence, and the gate.
package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/internal/profile"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
)

// Options of [Run]. The zero value measures at the size that the documentation quotes.
type Options struct {
	Dir    string    // where files are put, in a folder of their own that is removed again; empty: the system's temporary directory
	Rounds int       // of each bench; 0: 5
	Items  int       // of each round; 0: the bench's own number
	Leads  int       // already in the store: of intake, dispatch, backlog and large; negative: the bench's own number
	Log    io.Writer // progress for people; nil: silent
}

// Figure is the median of several rounds with the lowest and the highest.
type Figure struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
}

// Result is what one bench measured. What was not measured is zero and left out of the JSON.
type Result struct {
	Name     string            `json:"name"`
	Measures string            `json:"measures"`
	Unit     string            `json:"unit"` // of Ours and Ceiling
	Ours     Figure            `json:"ours"`
	Ceiling  Figure            `json:"ceiling,omitzero"`
	Raw      string            `json:"raw,omitempty"`   // what the ceiling does
	Ratio    float64           `json:"ratio,omitempty"` // how near ours comes: 1 is the ceiling itself
	Ratios   Figure            `json:"ratios,omitzero"` // the same with its spread over the rounds
	P50      Figure            `json:"p50_ms,omitzero"` // of how long each item took
	P99      Figure            `json:"p99_ms,omitzero"`
	CPU      float64           `json:"cpu_s_per_1000,omitempty"` // processor seconds of this process for 1,000 items
	Memory   float64           `json:"peak_memory_mb,omitempty"` // most of the process's own memory (without mapped files)
	Disk     float64           `json:"disk_bytes_per_item,omitempty"`
	Rounds   int               `json:"rounds"`
	Items    int               `json:"items"` // of each round
	Aims     []Aim             `json:"aims,omitempty"`
	Settings map[string]string `json:"settings"`

	later func(*Result) // fills in what is known when all rounds are over
}

// Aim is what a figure should come to at the bench's own size.
type Aim struct {
	Of      string  `json:"of"` // "ratio", "ours", "p50_ms", "p99_ms", "cpu_s_per_1000" or "peak_memory_mb"
	AtLeast float64 `json:"at_least,omitempty"`
	AtMost  float64 `json:"at_most,omitempty"`
	Met     bool    `json:"met"`
}

func atLeast(of string, v float64) Aim { return Aim{Of: of, AtLeast: v} }
func atMost(of string, v float64) Aim  { return Aim{Of: of, AtMost: v} }

// of is the figure that an aim is about.
func (r *Result) of(name string) float64 {
	switch name {
	case "ratio":
		return r.Ratio
	case "ours":
		return r.Ours.Median
	case "p50_ms":
		return r.P50.Median
	case "p99_ms":
		return r.P99.Median
	case "cpu_s_per_1000":
		return r.CPU
	case "peak_memory_mb":
		return r.Memory
	}
	panic("bench: an aim of " + name)
}

// Bench is one measurement.
type Bench struct {
	Name  string
	About string
	run   func(context.Context, *run) error
	alone bool // `all` leaves it out: it takes long, and much room
}

// All lists the benches in the order in which `all` runs them, but for those that it leaves out.
var All = []Bench{
	{"score", "one submission scored by 20 rules over 30 fields, ledger and reasons included, beside the 20 compiled programs alone", score, false},
	{"plan", "the replay of stored submissions through candidate rules, and the check of a large directory of rules", plan, false},
	{"gateway", "forms posted over HTTP, each answered when it is synced, beside one append and sync each", gatewayForms, false},
	{"intake", "submissions from the synced stream to the synced commit, beside bbolt alone with the same bytes in the same batches", intake, false},
	{"dispatch", "touchpoints through gate, check, intent, act and outcome, 64 at a time at a provider that answers in 1 ms, beside the two calls alone", dispatch, false},
	{"latency", "from publishing to the request at the provider at 200 submissions a second, `after: 0s`", latency, false},
	{"outbox", "events about what was committed, beside publishing the same events", outbox, false},
	{"stream", "what it costs that every acknowledgement is synced, beside a server that does not", stream, false},
	{"record", "a lead written and read in the form in which it is stored, beside JSON", record, false},
	{"growth", "a year of a steady state: the file, the latency of a commit, and the pause of a compaction", growth, false},
	{"backlog", "memory, start and idle processor time of a worker for which many touchpoints wait", backlog, false},
	{"large", "ten million leads: the file, the start, a worker at rest, sending, taking in, and the replay of a million submissions (about 30 GB and twenty minutes; not part of `all`)", large, true},
}

// ErrUnknown is returned for a bench that there is not.
var ErrUnknown = errors.New("no such bench")

// Run runs the bench of that name, "all" for each in turn, and calls each with every result as it
// comes.
func Run(ctx context.Context, name string, o Options, each func(Result) error) error {
	profile.KeepRoom() // as the worker does
	o.Rounds = cmp.Or(o.Rounds, 5)
	if o.Log == nil {
		o.Log = io.Discard
	}
	found := false
	for _, b := range All {
		if name != b.Name && (name != "all" || b.alone) {
			continue
		}
		found = true
		dir, err := os.MkdirTemp(o.Dir, "lodestone-bench-")
		if err != nil {
			return err
		}
		r := &run{Options: o, bench: b, dir: dir, each: each}
		err = errors.Join(b.run(ctx, r), r.end(), os.RemoveAll(dir))
		if err != nil {
			return fmt.Errorf("%s: %w", b.Name, err)
		}
	}
	if !found {
		return fmt.Errorf("%w: %q", ErrUnknown, name)
	}
	return nil
}

// run is one bench under way.
type run struct {
	Options
	bench Bench
	dir   string
	each  func(Result) error
	n     int            // folders given out
	ends  []func() error // what is to be closed, last opened first
}

func (r *run) logf(format string, args ...any) {
	fmt.Fprintf(r.Log, r.bench.Name+": "+format+"\n", args...)
}

// folder returns a new, empty folder.
func (r *run) folder() (string, error) {
	r.n++
	dir := filepath.Join(r.dir, fmt.Sprint(r.n))
	return dir, os.Mkdir(dir, 0o700)
}

// atEnd has something closed when the bench is over.
func (r *run) atEnd(end func() error) { r.ends = append(r.ends, end) }

func (r *run) end() error {
	var errs []error
	for _, end := range slices.Backward(r.ends) {
		errs = append(errs, end())
	}
	r.ends = nil
	return errors.Join(errs...)
}

// items is how many things each round does.
func (r *run) items(usual int) int { return cmp.Or(max(0, r.Items), usual) }

// store opens a new store in a folder of its own until the bench is over.
func (r *run) store() (store *boltstore.Store, dir string, err error) {
	if dir, err = r.folder(); err != nil {
		return nil, "", err
	}
	if store, err = boltstore.Open(filepath.Join(dir, "data"), boltstore.Options{}); err != nil {
		return nil, "", err
	}
	r.atEnd(store.Close)
	return store, dir, nil
}

// used is how much of a store's file holds something: the file itself grows ahead in large steps.
func used(store *boltstore.Store) int64 {
	u, err := store.Usage()
	if err != nil {
		return 0 // the store is closed, and what is measured fails for that
	}
	return u.Used
}

// dirSize is how much the files below a folder take.
func dirSize(dir string) (size int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return ignoreGone(err)
		}
		info, err := e.Info()
		if err == nil {
			size += info.Size()
		}
		return ignoreGone(err)
	})
	return size, err
}

// ignoreGone is for files that come and go while they are counted.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// broker opens a synced server with its streams below dir until the bench is over.
func (r *run) broker(ctx context.Context, dir string) (*broker.Broker, error) {
	b, err := broker.Open(ctx, broker.Options{Listen: "none", Dir: filepath.Join(dir, "jetstream"), MaxStore: 64 << 30})
	if err != nil {
		return nil, err
	}
	r.atEnd(func() error { b.Close(); return nil })
	return b, b.EnsureStreams(ctx)
}

// provider starts a provider, and an account at it, until the bench is over.
func (r *run) provider(delay time.Duration, acted func([]byte, time.Time)) (*connectors.Account, error) {
	p, err := newProvider(delay, acted)
	if err != nil {
		return nil, err
	}
	r.atEnd(func() error { p.Close(); return nil })
	return p.account()
}

// sample is one round of one side.
type sample struct {
	items int
	took  time.Duration
	cpu   time.Duration
	disk  int64
	peak  int64
}

func (s sample) rate() float64 { return float64(s.items) / s.took.Seconds() }

// timed measures fn, which does items things.
func timed(items int, fn func() error) (sample, error) {
	debug.FreeOSMemory() // what an earlier round left is not this one's
	peak := watchMemory()
	cpu, begin := processorTime(), time.Now()
	err := fn()
	return sample{items: items, took: time.Since(begin), cpu: processorTime() - cpu, peak: peak()}, err
}

// watchMemory looks at the process's own memory now and then, until the function it returns is called,
// which says how much it was at the most.
func watchMemory() (peak func() int64) {
	stop, highest := make(chan struct{}), make(chan int64)
	go func() {
		most := ownMemory()
		for t := time.NewTicker(20 * time.Millisecond); ; {
			select {
			case <-t.C:
				most = max(most, ownMemory())
			case <-stop:
				t.Stop()
				highest <- max(most, ownMemory())
				return
			}
		}
	}()
	return func() int64 { close(stop); return <-highest }
}

// alternate runs both sides as often as asked, each round the other one first, and reports rates.
// ours comes before its ceiling in each round when the ceiling repeats what ours wrote.
func (r *run) alternate(ctx context.Context, res Result, ours, ceiling func(context.Context) (sample, error)) error {
	var mine, raw, cpu, disk, ratios []float64
	var peak int64
	for i := range r.Rounds {
		if err := ctx.Err(); err != nil {
			return err
		}
		a, err := ours(ctx)
		if err != nil {
			return err
		}
		b, err := ceiling(ctx)
		if err != nil {
			return err
		}
		mine, raw, ratios = append(mine, a.rate()), append(raw, b.rate()), append(ratios, a.rate()/b.rate())
		cpu = append(cpu, a.cpu.Seconds()*1000/float64(a.items))
		disk = append(disk, float64(a.disk)/float64(a.items))
		peak = max(peak, a.peak)
		res.Items = a.items
		r.logf("round %d of %d: %.0f of %.0f %s, %.2f of the ceiling", i+1, r.Rounds, a.rate(), b.rate(), res.Unit, a.rate()/b.rate())
	}
	res.Ours, res.Ceiling, res.Ratios = figure(mine), figure(raw), figure(ratios)
	res.Ratio = res.Ratios.Median
	res.CPU, res.Disk, res.Memory = figure(cpu).Median, figure(disk).Median, float64(peak)/1e6
	return r.report(res)
}

func (r *run) report(res Result) error {
	res.Name = cmp.Or(res.Name, r.bench.Name)
	res.Measures = cmp.Or(res.Measures, r.bench.About)
	res.Rounds = cmp.Or(res.Rounds, r.Rounds)
	if res.later != nil {
		res.later(&res)
	}
	for i, a := range res.Aims {
		v := res.of(a.Of)
		res.Aims[i].Met = v >= a.AtLeast && (a.AtMost == 0 || v <= a.AtMost)
	}
	if res.Settings == nil {
		res.Settings = map[string]string{}
	}
	res.Settings["go"] = runtime.Version()
	res.Settings["cores"] = fmt.Sprint(runtime.GOMAXPROCS(0))
	res.Settings["machine"] = runtime.GOOS + "/" + runtime.GOARCH
	return r.each(res)
}

func figure(v []float64) Figure {
	if len(v) == 0 {
		return Figure{}
	}
	s := slices.Sorted(slices.Values(v))
	m := s[len(s)/2]
	if len(s)%2 == 0 {
		m = (s[len(s)/2-1] + s[len(s)/2]) / 2
	}
	return Figure{m, s[0], s[len(s)-1]}
}

// quantile returns the q-quantile of sorted values.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(float64(len(sorted))*q))]
}
