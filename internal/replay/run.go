package replay

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/internal/profile"
	"github.com/lodestonehq/lodestone/internal/simulate"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/scheduler"
	"github.com/lodestonehq/lodestone/sequencer"
	"github.com/lodestonehq/lodestone/sequencer/event"
)

// Horizon is how long after the last event both worlds go on, so that what is waiting then is counted.
const Horizon = 90 * 24 * time.Hour

// maxMoments bounds what happens to one lead in a row.
const maxMoments = 5_000

// A temporary file is for about leadsPerPart leads, which are in memory with both their worlds while it is
// replayed: some 6 KB each. More files than maxParts would only be more to hold open.
const (
	leadsPerPart = 2_000
	maxParts     = 512
)

// Options of [Run].
type Options struct {
	Now, Then *rules.Set
	Accounts  map[string]scheduler.Account // of every connector that either may name
	Rates     map[string]float64           // requests a second, by account
	Dir       string                       // for temporary files; "": the system's
	Sample    int                          // leads to show; 0: none
	Workers   int                          // 0: one a processor
	// Progress is told now and then how many records were read and how many replayed; may be nil.
	Progress func(read, replayed uint64)
}

// Run replays a past through both versions of the rules.
func Run(ctx context.Context, head Head, src Source, o Options) (*Report, error) {
	profile.KeepRoom()
	dir, err := os.MkdirTemp(o.Dir, "lodestone-plan-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	parts := int(min(maxParts, max(1, head.Submissions/leadsPerPart)))
	d := &deal{dir: dir, now: sequencer.NewRulebook(o.Now), then: sequencer.NewRulebook(o.Then), parts: make([]*part, parts)}
	report := &Report{
		Source: head.Source, Rules: Pair[string]{o.Now.Version, o.Then.Version}, MidFlight: midFlight(head.Active, o.Then),
		Days: []Day{}, Providers: []Provider{}, Sample: []Difference{}, Bands: []Band{}, Sequences: []Sequence{},
	}
	progress := o.Progress
	if progress == nil {
		progress = func(uint64, uint64) {}
	}
	if err := src(ctx, func(r *Record) error {
		if d.read++; d.read%10_000 == 0 {
			progress(d.read, 0)
		}
		switch {
		case r.Suppressed != nil:
		case r.Stream == sequencer.SignalsStream:
			report.Signals++
		default:
			report.Submissions++
		}
		if r.Suppressed == nil {
			if report.From.IsZero() {
				report.From = r.Message.Time
			}
			report.To = r.Message.Time
		}
		return d.put(r)
	}); err != nil {
		return nil, err
	}
	if err := d.close(); err != nil {
		return nil, err
	}

	workers := o.Workers
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	total := newTally(o.Sample)
	var mu sync.Mutex // guards total
	var replayed atomic.Uint64
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(workers)
	for i, p := range d.parts {
		if p == nil {
			continue
		}
		g.Go(func() error {
			w := newWorker(&o, i, parts, func() {
				if n := replayed.Add(1); n%10_000 == 0 {
					progress(d.read, n)
				}
			})
			if err := w.part(ctx, p.path, report.To.Add(Horizon)); err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			total.add(&w.tally)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	total.report(report, &o)
	return report, nil
}

// deal spreads records over temporary files by their lead.
type deal struct {
	dir       string
	now, then *sequencer.Rulebook
	parts     []*part
	read      uint64
	buf       []byte
}

type part struct {
	path string
	file *os.File
	out  *bufio.Writer
}

// put writes a record to the file of its lead. Where the two versions read another address out of it, it
// goes to the files of both, and in each it happens in the world whose lead is at home there.
func (d *deal) put(r *Record) error {
	var err error
	if d.buf, err = appendRecord(d.buf[:0], r); err != nil {
		return err
	}
	var to [2]int
	n := 0
	for _, email := range d.leads(r) {
		i := partOf(email, len(d.parts))
		if n == 1 && to[0] == i {
			continue
		}
		to[n] = i
		n++
	}
	if n == 0 { // nobody's: it is rejected in both worlds, wherever
		n = 1
	}
	for _, i := range to[:n] {
		p := d.parts[i]
		if p == nil {
			p = &part{path: filepath.Join(d.dir, fmt.Sprint(i))}
			if p.file, err = os.OpenFile(p.path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600); err != nil {
				return err
			}
			p.out = bufio.NewWriterSize(p.file, 1<<15)
			d.parts[i] = p
		}
		if _, err := p.out.Write(d.buf); err != nil {
			return err
		}
	}
	return nil
}

func (d *deal) close() error {
	var errs []error
	for _, p := range d.parts {
		if p != nil {
			errs = append(errs, p.out.Flush(), p.file.Close())
		}
	}
	return errors.Join(errs...)
}

// leads are the addresses that the two versions read out of a record: one, or two that differ.
func (d *deal) leads(r *Record) []lodestone.Email {
	if r.Suppressed != nil {
		return []lodestone.Email{r.Suppressed.Email}
	}
	_, email, rejected := sequencer.Decode(r.Stream, &r.Message, d.then)
	if rejected != nil {
		email = rejected.Email
	}
	out := []lodestone.Email{email}
	form := strings.TrimPrefix(r.Message.Subject, event.FormsPrefix)
	a, b := d.now.Form(form), d.then.Form(form)
	if r.Stream == sequencer.FormsStream && a != b && (a == nil || b == nil || a.Email != b.Email) {
		_, other, rejected := sequencer.Decode(r.Stream, &r.Message, d.now)
		if rejected != nil {
			other = rejected.Email
		}
		if other != email {
			out = append(out, other)
		}
	}
	return out
}

// partOf is the file of a lead.
func partOf(email lodestone.Email, parts int) int { return int(hash(email) % uint64(parts)) }

func hash(email lodestone.Email) uint64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, string(email))
	return h.Sum64()
}

// worker replays files, one at a time, in both worlds.
type worker struct {
	tally
	worlds [2]*simulate.World
	sample int
	index  int // of the file among parts
	parts  int
	now    [2]*person
	told   func()
}

// The two worlds.
const (
	today = iota
	candidate
)

// person is one lead in one world.
type person struct {
	simulate.Lead
	clock     time.Time // of the last event
	score     int
	band      string
	at        time.Time // of the last submission
	submitted bool
	sequences []string // entered, in order
}

func newWorker(o *Options, index, parts int, told func()) *worker {
	w := &worker{tally: newTally(o.Sample), sample: o.Sample, told: told, index: index, parts: parts}
	for i, set := range []*rules.Set{o.Now, o.Then} {
		w.worlds[i] = &simulate.World{
			Book: sequencer.NewRulebook(set), Accounts: o.Accounts, Provider: accepting{},
			Committed:   func(_ *simulate.Lead, c *sequencer.Change) { w.committed(i, c) },
			Quarantined: func(*lodestone.Submission, *lodestone.Rejection) { w.rejected[i]++ },
		}
	}
	return w
}

// accepting is a provider that takes everything and that nobody unsubscribed at.
type accepting struct{}

func (accepting) Unsubscribed(simulate.Call) (connectors.Subscription, error) {
	return connectors.Subscription{Kind: connectors.SuppressionProvider}, nil
}
func (accepting) Do(simulate.Call) (connectors.Receipt, error) { return connectors.Receipt{}, nil }
func (accepting) Find(simulate.Call) (connectors.Finding, error) {
	return connectors.Finding{State: connectors.Found}, nil
}

// part replays one file.
func (w *worker) part(ctx context.Context, path string, end time.Time) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, 1<<16)
	var persons [2]map[lodestone.Email]*person
	for i := range persons {
		persons[i] = map[lodestone.Email]*person{}
	}
	for {
		r, _, _, err := readRecord(in)
		if errors.Is(err, io.EOF) && !errors.Is(err, errBroken) {
			break
		}
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		for i := range w.worlds {
			if err := w.happen(i, persons[i], r); err != nil {
				return err
			}
		}
		w.told()
	}
	for i := range w.worlds {
		for _, p := range persons[i] {
			w.now[i] = p
			if _, err := w.worlds[i].Advance(&p.Lead, p.clock, end, maxMoments); err != nil {
				return err
			}
		}
	}
	w.compare(persons)
	return nil
}

// happen lets a record happen in one world.
func (w *worker) happen(i int, persons map[lodestone.Email]*person, r *Record) error {
	var ev sequencer.Event
	var email lodestone.Email
	if r.Suppressed != nil {
		ev, email = sequencer.Suppressed{Suppression: *r.Suppressed}, r.Suppressed.Email
	} else {
		var rejected *lodestone.Rejection
		if ev, email, rejected = sequencer.Decode(r.Stream, &r.Message, w.worlds[i].Book); rejected != nil {
			if r.Stream == sequencer.FormsStream && partOf(rejected.Email, w.parts) == w.index {
				w.rejected[i]++
			}
			return nil
		}
	}
	if partOf(email, w.parts) != w.index {
		return nil // it is another lead's in this world, whose file has it as well
	}
	p := persons[email]
	if p == nil {
		p = &person{Lead: simulate.Lead{Email: email}}
		persons[email] = p
	}
	w.now[i] = p
	at := r.Message.Time
	if _, err := w.worlds[i].Advance(&p.Lead, p.clock, at, maxMoments); err != nil {
		return err
	}
	p.clock = at
	return w.worlds[i].Apply(&p.Lead, ev, at)
}

// committed takes from a change what the report counts.
func (w *worker) committed(i int, c *sequencer.Change) {
	e := c.Entry
	if e == nil {
		return
	}
	p := w.now[i]
	if d := e.Decision; d != nil && d.Reason != lodestone.ReasonDuplicate {
		p.score, p.band, p.at, p.submitted = d.Score, d.Band, d.SubmittedAt, true
	}
	for _, n := range e.Enrollments {
		if n.State == lodestone.EnrollmentActive {
			p.sequences = append(p.sequences, n.Sequence)
			w.sequences[i][n.Sequence]++
		}
	}
	for _, n := range e.Touchpoints {
		switch n.State {
		case lodestone.TouchpointSent:
			w.days[i][int32(e.At.Unix()/86400)]++
		case lodestone.TouchpointIntended:
			connector, _ := lodestone.SplitOperation(n.Operation)
			m := w.minutes[i][connector]
			if m == nil {
				m = map[int32]int32{}
				w.minutes[i][connector] = m
			}
			m[int32(e.At.Unix()/60)]++
		}
	}
}

// compare counts what differs between the leads of the two worlds.
func (w *worker) compare(persons [2]map[lodestone.Email]*person) {
	none := &person{}
	seen := func(email lodestone.Email) {
		a, b := cmp.Or(persons[today][email], none), cmp.Or(persons[candidate][email], none)
		if !a.submitted && !b.submitted {
			return
		}
		w.leads++
		for i, p := range []*person{a, b} {
			if p.submitted {
				w.bands[i][p.band]++
			}
		}
		score, band, sequence := a.score != b.score, a.band != b.band, !slices.Equal(a.sequences, b.sequences)
		count(&w.changed.Score, score)
		count(&w.changed.Band, band)
		count(&w.changed.Sequence, sequence)
		lines := linesThatDiffer(a, b)
		if !score && !band && !sequence && len(lines) == 0 {
			return
		}
		count(&w.changed.Leads, score || band || sequence)
		if !score && !band && !sequence {
			return
		}
		h := hash(email)
		if w.sample > 0 && (len(w.samples) < w.sample || h < w.samples[len(w.samples)-1].hash) {
			w.samples = keep(w.samples, sampled{h, Difference{
				Email: email, Score: Pair[int]{a.score, b.score}, Band: Pair[string]{a.band, b.band},
				Sequence: Pair[string]{strings.Join(a.sequences, ", "), strings.Join(b.sequences, ", ")}, Lines: lines,
			}}, w.sample)
		}
	}
	for email := range persons[today] {
		seen(email)
	}
	for email := range persons[candidate] {
		if _, both := persons[today][email]; !both {
			seen(email)
		}
	}
}

func count(n *int, is bool) {
	if is {
		*n++
	}
}

// linesThatDiffer compares what each rule's lines are worth at the last submission.
func linesThatDiffer(a, b *person) []LineDifference {
	worth := map[string]*[2]float64{}
	for i, p := range []*person{a, b} {
		if p.Lead.Lead == nil {
			continue
		}
		for _, l := range p.Lead.Lead.Ledger {
			x := worth[l.Rule]
			if x == nil {
				x = new([2]float64)
				worth[l.Rule] = x
			}
			x[i] += l.Faded(p.at)
		}
	}
	out := []LineDifference{}
	for rule, x := range worth {
		if math.Abs(x[0]-x[1]) >= 0.05 {
			out = append(out, LineDifference{rule, math.Round(x[0]*10) / 10, math.Round(x[1]*10) / 10})
		}
	}
	slices.SortFunc(out, func(a, b LineDifference) int { return cmp.Compare(a.Rule, b.Rule) })
	return out
}
