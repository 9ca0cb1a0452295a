package sequencer

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/rules/clock"
	"github.com/lodestonehq/lodestone/scoring"
)

// room is what planning one submission needs and nothing that was planned holds on to.
type room struct {
	of    []outcome // by rule
	owner []int32   // by line of the ledger: the index of its rule, -1 when there is none
}

var rooms = sync.Pool{New: func() any { return new(room) }}

// submitted scores a submission and assigns a sequence.
func (p *planner) submitted(lead *lodestone.Lead, sub *lodestone.Submission, starts Starts) {
	kept := new(struct { // in one piece: both go into the journal and are done with
		entry    lodestone.Entry
		decision lodestone.Decision
	})
	p.beginWith(lead, sub.Email, &kept.entry)
	p.starts = starts
	l, set, d := p.lead, p.book.current, &kept.decision
	*d = lodestone.Decision{
		Submission: sub.ID, Form: sub.Form, StreamSeq: sub.Seq, SubmittedAt: sub.At,
		Rules: set.Version, Notes: sub.Notes, Score: l.Score, Band: l.Band,
	}
	p.entry.Decision = d
	if !p.remember(sub.ID, sub.Received) {
		d.Reason = lodestone.ReasonDuplicate
		return
	}

	if l.FirstSeen.IsZero() || sub.At.Before(l.FirstSeen) {
		l.FirstSeen = sub.At
	}
	l.Submissions++
	// One that comes late, an import of old leads say, fills what is not known and takes nothing of what
	// was said since.
	late := sub.At.Before(l.LastAt)
	if !late {
		l.LastAt = sub.At
	}
	if late {
		l.Profile = l.Profile.Over(sub.Fields)
	} else {
		l.Profile = sub.Fields.Over(l.Profile)
	}
	p.consent(sub)

	ev := set.Schema.Evaluator()
	defer ev.Release()
	facts := scoring.Facts{Form: sub.Form, Fields: sub.Fields, Context: &sub.Context, Lead: l, Now: sub.At}
	ev.Bind(facts)
	if zone := l.Zone; !late || zone == "" {
		if p.zone(ev, set, sub, d); l.Zone != zone {
			ev.Bind(facts)
		}
	}
	r := rooms.Get().(*room)
	p.score(ev, set, sub, d, r)
	rooms.Put(r)

	if sub.Backfill {
		d.Reason = lodestone.ReasonBackfill
	}
	p.exit(sub.At, false)
	if !sub.Backfill {
		p.assign(ev, set, sub, d)
	}
}

// maxRecent bounds the ids that one lead's record remembers: more in a week is no publisher that tries
// again, and a record that grows without end would make each further event slower.
const maxRecent = 10_000

// remember notes an id and reports whether it is new to the lead. Ids are kept for eight days, so
// that at least seven are covered whatever the hour.
func (p *planner) remember(id string, received time.Time) bool {
	const keep = 8
	sum := sha256.Sum256([]byte(id))
	hash := binary.BigEndian.Uint64(sum[:8])
	day := int32(received.Unix() / 86400)
	recent := make([]lodestone.RecentID, 0, len(p.lead.Recent)+1)
	for _, r := range p.lead.Recent {
		if r.Hash == hash && day-r.Day <= keep {
			return false
		}
		if day-r.Day <= keep {
			recent = append(recent, r)
		}
	}
	if len(recent) >= maxRecent {
		recent = recent[len(recent)-maxRecent+1:]
	}
	p.lead.Recent = append(recent, lodestone.RecentID{Hash: hash, Day: day})
	return true
}

// zone sets the lead's zone by the form's expression. One that fails or names no zone leaves the
// zone as it was.
func (p *planner) zone(ev *scoring.Evaluator, set *rules.Set, sub *lodestone.Submission, d *lodestone.Decision) {
	form := set.Forms[sub.Form]
	if form == nil || form.Zone == nil {
		return
	}
	v, err := ev.Value(form.Zone)
	if err != nil {
		d.Faults = append(d.Faults, lodestone.RuleFault{Rule: "forms." + sub.Form + ".zone", Detail: err.Error()})
		return
	}
	name, _ := v.(string)
	if name == "" {
		return
	}
	if _, ok := clock.Zone(name); !ok {
		d.Faults = append(d.Faults, lodestone.RuleFault{Rule: "forms." + sub.Form + ".zone", Detail: "the result is not the name of a time zone"})
		return
	}
	p.lead.Zone = name
}

// outcome is what became of one rule: what the ledger holds of it, and what this submission gives.
type outcome struct {
	points float64 // of the new line; 0: there is none
	lines  int32   // in the ledger
	later  bool    // one of them is of a later submission
	gone   bool    // they make room for another, or for none
	shown  bool    // the new line is shown, and not added
}

// score applies the scoring rules to the ledger and sums it up at the submission's time. A rule without
// `each` puts its line in the place of its earlier ones, while a line of a later submission stays; one of no
// points is left out: the rule matched, and gave nothing.
func (p *planner) score(ev *scoring.Evaluator, set *rules.Set, sub *lodestone.Submission, d *lodestone.Decision, r *room) {
	l := p.lead
	r.of = slices.Grow(r.of[:0], len(set.Rules))[:len(set.Rules)]
	r.owner = slices.Grow(r.owner[:0], len(l.Ledger))
	of, owner := r.of, r.owner
	clear(of)
	for i, next := 0, 0; i < len(l.Ledger); i++ {
		line := &l.Ledger[i]
		at := ruleAt(set.Rules, line.Rule, next)
		if owner = append(owner, int32(at)); at < 0 {
			continue
		}
		next = at + 1
		of[at].lines++
		of[at].later = of[at].later || line.At.After(sub.At)
	}

	form, lines, added, full, shown := set.Forms[sub.Form], len(l.Ledger), 0, false, false
	for i, r := range set.Rules {
		points, matched, err := apply(ev, r)
		if err != nil {
			d.Faults = append(d.Faults, lodestone.RuleFault{Rule: r.Name, Detail: err.Error()})
			continue
		}
		o := &of[i]
		if !matched || points == 0 && (r.Each || o.lines == 0 || o.later || !asked(form, r)) {
			continue
		}
		o.points, o.shown, o.gone = points, o.later && !r.Each, !o.later && !r.Each
		if points != 0 && !o.shown {
			added++
		}
		if o.gone {
			lines -= int(o.lines)
		}
		shown = shown || o.shown
		full = full || r.Each && o.lines >= maxEach
	}

	ledger := make([]lodestone.Line, 0, lines+added)
	for i := range l.Ledger {
		if at := owner[i]; at < 0 || !of[at].gone {
			ledger = append(ledger, l.Ledger[i])
		}
	}
	if full {
		for i, r := range set.Rules {
			if r.Each && of[i].points != 0 {
				ledger = fold(ledger, r)
			}
		}
	}
	kept := len(ledger)
	for i, r := range set.Rules {
		o := &of[i]
		if o.points == 0 {
			continue
		}
		line := lodestone.Line{Rule: r.Name, Version: set.Version, Points: o.points, At: sub.At, HalfLife: r.HalfLife}
		if !o.shown {
			ledger = append(ledger, line)
		}
		if shown {
			d.Lines = append(d.Lines, line)
		}
	}
	if !shown && added > 0 { // no ledger is ever changed, so what was added need not be copied
		d.Lines = ledger[kept:len(ledger):len(ledger)]
	}
	l.Ledger = ledger
	d.PreviousBand = l.Band
	l.Score = lodestone.Score(ledger, sub.At)
	l.Band = set.Band(l.Score)
	d.Score, d.Band = l.Score, l.Band
	ev.SetScore(l.Score, l.Band, d.PreviousBand)
}

// ruleAt is the index of the rule of that name, -1 when there is none. Ledgers are mostly in the order of
// the rules, so it looks at next first.
func ruleAt(list []*rules.Rule, name string, next int) int {
	for i := range list {
		at := next + i
		if at >= len(list) {
			at -= len(list)
		}
		if list[at].Name == name {
			return at
		}
	}
	return -1
}

// asked reports whether a form has any of the fields that a rule is about. A form that never asked
// says nothing about them, so its submission does not take away what another form's earned.
func asked(form *rules.Form, r *rules.Rule) bool {
	about := false
	for _, p := range []*scoring.Program{r.When, r.PointsExpr} {
		if p == nil {
			continue
		}
		for name := range p.AllNames() {
			field, ok := strings.CutPrefix(name, "fields.")
			if !ok {
				continue
			}
			about = true
			if form != nil {
				if _, has := form.Fields[field]; has {
					return true
				}
			}
		}
	}
	return !about
}

// apply evaluates one rule.
func apply(ev *scoring.Evaluator, r *rules.Rule) (points float64, matched bool, err error) {
	if r.When != nil {
		if ok, err := ev.Bool(r.When); err != nil || !ok {
			return 0, false, err
		}
	}
	if r.PointsExpr == nil {
		return r.Points, true, nil
	}
	points, err = ev.Number(r.PointsExpr)
	if err == nil && math.Abs(points) > lodestone.MaxPoints {
		err = fmt.Errorf("it gave %g points; at most ±%g are possible", points, float64(lodestone.MaxPoints))
	}
	return points, err == nil, err
}

// maxEach bounds the lines of one rule with `each`, so that a form that is submitted ten thousand
// times does not make a lead too large to load.
const maxEach = 64

// fold makes room for a line of a rule: past maxEach of them its two oldest of one half-life become one,
// which is exact: both fade at the same rate, so their sum does too. It changes the ledger it is given.
func fold(ledger []lodestone.Line, r *rules.Rule) []lodestone.Line {
	n, first := 0, -1
	for i, l := range ledger {
		if l.Rule == r.Name && l.HalfLife == r.HalfLife {
			if n++; first < 0 {
				first = i
			}
		}
	}
	if n < maxEach {
		return ledger
	}
	for i := first + 1; i < len(ledger); i++ {
		if l := ledger[i]; l.Rule == r.Name && l.HalfLife == r.HalfLife {
			older, newer := ledger[first], l
			if newer.At.Before(older.At) {
				older, newer = newer, older
			}
			newer.Points += older.Faded(newer.At)
			ledger[i] = newer
			return slices.Delete(ledger, first, first+1)
		}
	}
	return ledger
}
