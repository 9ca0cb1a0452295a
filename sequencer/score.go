package sequencer

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/rules/clock"
	"github.com/lodestonehq/lodestone/scoring"
)

// submitted scores a submission and assigns a sequence.
func (p *planner) submitted(sub *lodestone.Submission) {
	l, set := p.lead, p.book.current
	d := &lodestone.Decision{
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
	profile := make(map[string]any, len(l.Profile)+len(sub.Fields))
	if late {
		maps.Copy(profile, sub.Fields)
		maps.Copy(profile, l.Profile)
	} else {
		maps.Copy(profile, l.Profile)
		maps.Copy(profile, sub.Fields)
	}
	l.Profile = profile
	p.consent(sub)

	ev := set.Schema.Evaluator()
	defer ev.Release()
	facts := scoring.Facts{Form: sub.Form, Fields: sub.Fields, Context: &sub.Context, Lead: l, Now: sub.At}
	ev.Bind(facts)
	if !late || l.Zone == "" {
		p.zone(ev, set, sub, d)
	}
	ev.Bind(facts) // the zone may be another now
	p.score(ev, set, sub, d)

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

// score applies the scoring rules to the ledger and sums it up at the submission's time.
func (p *planner) score(ev *scoring.Evaluator, set *rules.Set, sub *lodestone.Submission, d *lodestone.Decision) {
	l := p.lead
	ledger := make([]lodestone.Line, len(l.Ledger), len(l.Ledger)+len(set.Rules))
	copy(ledger, l.Ledger)
	for _, r := range set.Rules {
		points, matched, err := apply(ev, r)
		if err != nil {
			d.Faults = append(d.Faults, lodestone.RuleFault{Rule: r.Name, Detail: err.Error()})
			continue
		}
		if !matched || points == 0 && !asked(set.Forms[sub.Form], r) {
			continue
		}
		line := lodestone.Line{Rule: r.Name, Version: set.Version, Points: points, At: sub.At, HalfLife: r.HalfLife}
		if r.Each {
			if points == 0 {
				continue
			}
			ledger = addLine(ledger, line)
		} else {
			ledger = replaceLine(ledger, line)
		}
		if points != 0 {
			d.Lines = append(d.Lines, line)
		}
	}
	l.Ledger = ledger
	d.PreviousBand = l.Band
	l.Score = lodestone.Score(ledger, sub.At)
	l.Band = set.Band(l.Score)
	d.Score, d.Band = l.Score, l.Band
	ev.SetScore(l.Score, l.Band, d.PreviousBand)
}

// asked reports whether a form has any of the fields that a rule is about. A form that never asked
// says nothing about them, so its submission does not take away what another form's earned.
func asked(form *rules.Form, r *rules.Rule) bool {
	about := false
	for _, p := range []*scoring.Program{r.When, r.PointsExpr} {
		if p == nil {
			continue
		}
		for _, name := range p.Names() {
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

// replaceLine puts line in the place of the rule's earlier lines; a line of a later submission stays. A
// line of no points is left out: the rule matched, and gave nothing.
func replaceLine(ledger []lodestone.Line, line lodestone.Line) []lodestone.Line {
	if slices.ContainsFunc(ledger, func(l lodestone.Line) bool { return l.Rule == line.Rule && l.At.After(line.At) }) {
		return ledger
	}
	ledger = slices.DeleteFunc(ledger, func(l lodestone.Line) bool { return l.Rule == line.Rule })
	if line.Points == 0 {
		return ledger
	}
	return append(ledger, line)
}

// maxEach bounds the lines of one rule with `each`, so that a form that is submitted ten thousand
// times does not make a lead too large to load.
const maxEach = 64

// addLine appends a line. Past maxEach lines of the rule its two oldest of one half-life become
// one, which is exact: both fade at the same rate, so their sum does too.
func addLine(ledger []lodestone.Line, line lodestone.Line) []lodestone.Line {
	n, first := 0, -1
	for i, l := range ledger {
		if l.Rule == line.Rule && l.HalfLife == line.HalfLife {
			if n++; first < 0 {
				first = i
			}
		}
	}
	if n >= maxEach {
		for i := first + 1; i < len(ledger); i++ {
			if l := ledger[i]; l.Rule == line.Rule && l.HalfLife == line.HalfLife {
				older, newer := ledger[first], l
				if newer.At.Before(older.At) {
					older, newer = newer, older
				}
				newer.Points += older.Faded(newer.At)
				ledger[i] = newer
				ledger = slices.Delete(ledger, first, first+1)
				break
			}
		}
	}
	return append(ledger, line)
}
