package replay

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/rules"
)

// Pair is a value under today's rules and under the candidate's.
type Pair[T any] struct {
	Now  T `json:"now"`
	Then T `json:"then"`
}

// Report is what the candidate would change. The names of its fields are stable.
type Report struct {
	Source      string       `json:"source"`
	Rules       Pair[string] `json:"rules"` // versions
	From        time.Time    `json:"from,omitzero"`
	To          time.Time    `json:"to,omitzero"`
	Submissions uint64       `json:"submissions"`
	Signals     uint64       `json:"signals"`
	Rejected    Pair[int]    `json:"rejected"` // submissions that cannot be used or wait for a human
	Leads       int          `json:"leads"`
	Changed     Changed      `json:"changed"`
	Bands       []Band       `json:"bands"`
	Sequences   []Sequence   `json:"sequences"`
	Touchpoints Pair[int]    `json:"touchpoints"` // sent
	Days        []Day        `json:"days"`
	MidFlight   []MidFlight  `json:"mid_flight"`
	Providers   []Provider   `json:"providers"`
	Sample      []Difference `json:"sample"`
}

// Changed counts leads.
type Changed struct {
	Leads    int `json:"leads"` // in any of the following
	Score    int `json:"score"`
	Band     int `json:"band"`
	Sequence int `json:"sequence"` // those entered, in their order
}

// Band counts the leads in a band.
type Band struct {
	Band string `json:"band"`
	Pair[int]
}

// Sequence counts the enrollments in a sequence.
type Sequence struct {
	Sequence string `json:"sequence"`
	Pair[int]
}

// Day counts the touchpoints sent on a day of UTC.
type Day struct {
	Day string `json:"day"`
	Pair[int]
}

// What becomes of a sequence that leads are in.
const (
	ThenChanged = "changed"
	ThenRemoved = "removed"
)

// MidFlight counts active enrollments on a definition that the candidate changes or removes. They keep
// theirs to the end.
type MidFlight struct {
	Sequence    string `json:"sequence"`
	Version     string `json:"version"`
	Then        string `json:"then"` // ThenChanged or ThenRemoved
	ThenVersion string `json:"then_version,omitempty"`
	Enrollments int    `json:"enrollments"`
	// Some of the leads, at most five; `explain` says where each stands.
	Some []lodestone.Email `json:"some"`
}

// Provider is what an account would have to do.
type Provider struct {
	Connector string  `json:"connector"`
	Rate      float64 `json:"rate"` // requests a second that are configured
	Now       Load    `json:"now"`
	Then      Load    `json:"then"`
}

// Load is what goes through one account. A touchpoint is two requests: the check and the act.
type Load struct {
	Touchpoints int     `json:"touchpoints"`
	PeakMinute  int     `json:"peak_minute"` // touchpoints that fall due in the busiest minute
	PeakHour    int     `json:"peak_hour"`
	Wait        float64 `json:"longest_wait_seconds"` // of a touchpoint, at the configured rate
}

// Difference is one lead that the candidate decides otherwise about.
type Difference struct {
	Email    lodestone.Email  `json:"email"`
	Score    Pair[int]        `json:"score"`
	Band     Pair[string]     `json:"band"`
	Sequence Pair[string]     `json:"sequence"` // those entered, in their order
	Lines    []LineDifference `json:"lines"`
}

// LineDifference is what a rule's lines are worth at the lead's last submission.
type LineDifference struct {
	Rule string  `json:"rule"`
	Now  float64 `json:"now"`
	Then float64 `json:"then"`
}

// midFlight finds the enrollments whose definition the candidate does not have.
func midFlight(active []Active, then *rules.Set) []MidFlight {
	out := []MidFlight{}
	for _, a := range active {
		m := MidFlight{Sequence: a.Sequence, Version: a.Version, Then: ThenRemoved, Enrollments: a.Enrollments, Some: a.Some}
		if q := then.Sequence(a.Sequence); q != nil {
			if q.Version == a.Version {
				continue
			}
			m.Then, m.ThenVersion = ThenChanged, q.Version
		}
		out = append(out, m)
	}
	return out
}

// tally is what is counted while records are replayed, for both worlds.
type tally struct {
	leads     int
	changed   Changed
	rejected  [2]int
	bands     [2]map[string]int
	sequences [2]map[string]int
	days      [2]map[int32]int
	minutes   [2]map[string]map[int32]int32 // touchpoints that fell due, by account and minute since 1970
	samples   []sampled                     // by hash, so that the same leads are shown each time
	most      int
}

type sampled struct {
	hash uint64
	Difference
}

func newTally(sample int) tally {
	t := tally{most: sample}
	for i := range 2 {
		t.bands[i], t.sequences[i], t.days[i] = map[string]int{}, map[string]int{}, map[int32]int{}
		t.minutes[i] = map[string]map[int32]int32{}
	}
	return t
}

// keep inserts a sample in its place and drops what is beyond most.
func keep(list []sampled, s sampled, most int) []sampled {
	i, _ := slices.BinarySearchFunc(list, s.hash, func(a sampled, h uint64) int { return cmp.Compare(a.hash, h) })
	list = slices.Insert(list, i, s)
	return list[:min(len(list), most)]
}

func (t *tally) add(o *tally) {
	t.leads += o.leads
	t.changed.Leads += o.changed.Leads
	t.changed.Score += o.changed.Score
	t.changed.Band += o.changed.Band
	t.changed.Sequence += o.changed.Sequence
	for i := range 2 {
		t.rejected[i] += o.rejected[i]
		addUp(t.bands[i], o.bands[i])
		addUp(t.sequences[i], o.sequences[i])
		addUp(t.days[i], o.days[i])
		for name, m := range o.minutes[i] {
			if t.minutes[i][name] == nil {
				t.minutes[i][name] = map[int32]int32{}
			}
			addUp(t.minutes[i][name], m)
		}
	}
	for _, s := range o.samples {
		t.samples = keep(t.samples, s, t.most)
	}
}

func addUp[K comparable, N int | int32](to, from map[K]N) {
	for k, n := range from {
		to[k] += n
	}
}

// report fills in what was counted.
func (t *tally) report(r *Report, o *Options) {
	r.Leads, r.Changed, r.Rejected = t.leads, t.changed, Pair[int]{t.rejected[0], t.rejected[1]}
	for _, name := range bandNames(o.Now, o.Then) {
		r.Bands = append(r.Bands, Band{name, Pair[int]{t.bands[0][name], t.bands[1][name]}})
	}
	for _, name := range both(t.sequences) {
		r.Sequences = append(r.Sequences, Sequence{name, Pair[int]{t.sequences[0][name], t.sequences[1][name]}})
	}
	for _, day := range both(t.days) {
		p := Pair[int]{t.days[0][day], t.days[1][day]}
		r.Touchpoints.Now += p.Now
		r.Touchpoints.Then += p.Then
		r.Days = append(r.Days, Day{time.Unix(int64(day)*86400, 0).UTC().Format(time.DateOnly), p})
	}
	for _, name := range both(t.minutes) {
		rate := o.Rates[name]
		r.Providers = append(r.Providers, Provider{name, rate, load(t.minutes[0][name], rate), load(t.minutes[1][name], rate)})
	}
	for _, s := range t.samples {
		r.Sample = append(r.Sample, s.Difference)
	}
}

// bandNames are the bands of both versions, highest first.
func bandNames(now, then *rules.Set) []string {
	bands := slices.Concat(now.Bands, then.Bands)
	slices.SortStableFunc(bands, func(a, b rules.Band) int { return cmp.Compare(b.Min, a.Min) })
	var names []string
	for _, b := range bands {
		if !slices.Contains(names, b.Name) {
			names = append(names, b.Name)
		}
	}
	return names
}

func both[K cmp.Ordered, V any](maps2 [2]map[K]V) []K {
	all := map[K]bool{}
	for _, m := range maps2 {
		for k := range m {
			all[k] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// requests is how many requests a touchpoint is: the check and the act.
const requests = 2

// load says what the touchpoints that fall due by the minute mean for an account of that rate.
func load(minutes map[int32]int32, rate float64) Load {
	var l Load
	var waiting float64 // requests
	hour, inHour := int32(-1), 0
	last := int32(0)
	for _, m := range slices.Sorted(maps.Keys(minutes)) {
		n := int(minutes[m])
		l.Touchpoints += n
		l.PeakMinute = max(l.PeakMinute, n)
		if m/60 != hour {
			hour, inHour = m/60, 0
		}
		inHour += n
		l.PeakHour = max(l.PeakHour, inHour)
		if rate > 0 {
			waiting = max(0, waiting-rate*60*float64(m-last)) + float64(n*requests)
			last = m
			l.Wait = max(l.Wait, waiting/rate)
		}
	}
	l.Wait = math.Round(l.Wait*10) / 10
	return l
}
