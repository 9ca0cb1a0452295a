package rules

import (
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/lodestonehq/lodestone/rules/clock"
)

// ZoneLead as the zone of a sequence is the lead's own: UTC while none is known.
const ZoneLead = "lead"

// At is the first moment at which a step may happen when the enrollment, or the step before it, was
// at after: past its wait, at its cron line, inside its window, by the clocks in loc.
func (q *Sequence) At(step *Step, after time.Time, loc *time.Location) time.Time {
	at := after.Add(step.After)
	switch {
	case step.Cron.IsZero():
	case step.After > 0:
		at = step.Cron.Next(at.Add(-1), loc) // a wait that ends at a match is long enough
	default:
		at = step.Cron.Next(at, loc)
	}
	if w := q.window(step); w != nil {
		at = w.First(at, loc)
	}
	if q.pace > 0 {
		at = after.Add(time.Duration(float64(at.Sub(after)) / q.pace))
	}
	return at.UTC()
}

// WindowOf is the window that a step must be inside, nil for none: its own or its sequence's.
func (q *Sequence) WindowOf(step *Step) *clock.Window {
	if q.pace > 0 {
		return nil // hours pass in seconds, so no hour of the day is left to keep to
	}
	return q.window(step)
}

func (q *Sequence) window(step *Step) *clock.Window {
	if step.Window != nil {
		return step.Window
	}
	return q.Window
}

// ScaleTime returns a copy whose steps follow each other faster: the time that each would really wait,
// for its cron line and its window too, is divided by divisor, which must be positive, and so are the
// periods of caps. Half-lives, grace and reenter stay, and so do the versions: a demonstration shows the
// rules that it was given.
func (s *Set) ScaleTime(divisor float64) *Set {
	out := *s
	out.Sequences = make([]*Sequence, len(s.Sequences))
	for i, q := range s.Sequences {
		faster := *q
		faster.pace = divisor
		out.Sequences[i] = &faster
	}
	out.Caps = slices.Clone(s.Caps)
	for i := range out.Caps {
		out.Caps[i].Per = time.Duration(float64(out.Caps[i].Per) / divisor)
	}
	return &out
}

var windowKeys = keys{
	known: []string{"days", "from", "to"},
	meaning: map[string]string{
		"day": "days", "weekdays": "days", "on": "days", "start": "from", "begin": "from", "after": "from", "open": "from",
		"end": "to", "until": "to", "before": "to", "close": "to", "till": "to",
	},
}

const windowExample = `window: {days: mon-fri, from: "09:00", to: "17:00"}`

// window reads the hours that a step keeps to; nil when there is a fault.
func (c *compiler) window(d *document, n *yaml.Node) *clock.Window {
	if n.Kind != yaml.MappingNode {
		c.fault(d, n, "a window has days, from and to, as in %s; this is %s", windowExample, kindOf(n))
		return nil
	}
	before := len(c.faults)
	w := &clock.Window{Days: clock.Daily, To: clock.EndOfDay}
	entries, given := c.mapping(d, n, windowKeys)
	for _, k := range entries {
		switch k.name {
		case "days":
			w.Days = c.days(d, k.value)
		case "from":
			w.From = c.timeOfDay(d, k.value, `from: "09:00"`)
		case "to":
			w.To = c.timeOfDay(d, k.value, `to: "17:00"`)
		}
	}
	switch {
	case len(c.faults) > before:
		return nil
	case len(given) == 0:
		c.fault(d, n, "this window says nothing; write %s, or leave it out", windowExample)
		return nil
	case w.From == w.To:
		c.fault(d, n, "this window opens and closes at %s; for the whole day leave out from and to", w.From)
		return nil
	case w.From == clock.EndOfDay:
		c.fault(d, n, `a window cannot open at 24:00; write from: "00:00"`)
		return nil
	}
	return w
}

// days reads weekdays, written as one text or as a list.
func (c *compiler) days(d *document, n *yaml.Node) clock.Days {
	nodes := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		nodes = c.list(d, n, "weekdays", "days: [mon, wed]")
		if len(nodes) == 0 {
			c.fault(d, n, "this window is open on no day; write days: mon-fri, or daily")
		}
	}
	var out clock.Days
	for _, n := range nodes {
		v, ok := c.scalar(d, n, "a list of weekdays", "days: mon-fri")
		if !ok {
			continue
		}
		days, err := clock.ParseDays(v.Value)
		if err != nil {
			c.fault(d, v, "%s", err)
		}
		out |= days
	}
	return out
}

func (c *compiler) timeOfDay(d *document, n *yaml.Node, example string) clock.TimeOfDay {
	v, ok := c.scalar(d, n, "a time of day", example)
	if !ok {
		return 0
	}
	t, err := clock.ParseTimeOfDay(v.Value)
	if err != nil {
		c.fault(d, v, "%s", err)
	}
	return t
}

// cron reads a cron line.
func (c *compiler) cron(d *document, n *yaml.Node) clock.Cron {
	v, ok := c.scalar(d, n, "a cron line", `cron: "0 9 * * TUE"`)
	if !ok {
		return clock.Cron{}
	}
	line, err := clock.ParseCron(v.Value)
	if err != nil {
		c.fault(d, v, "%s", err)
	}
	return line
}

// zoneName reads the zone that a sequence keeps time by.
func (c *compiler) zoneName(d *document, n *yaml.Node) string {
	v, ok := c.scalar(d, n, "lead or the name of a time zone", "zone: Europe/Berlin")
	if !ok || v.Value == ZoneLead {
		return ZoneLead
	}
	if !knownZone(v.Value) {
		c.fault(d, v, "%s is not the name of a time zone; write lead for the lead's own, or a name of the IANA list, as in Europe/Berlin or America/New_York", v.Value)
		return ZoneLead
	}
	return v.Value
}

func knownZone(name string) bool {
	_, ok := clock.Zone(name)
	return ok
}

// FormatDuration writes a duration as rule files do: 90s, 10m, 2h, 3d, 2w.
func FormatDuration(d time.Duration) string {
	for _, u := range []struct {
		size time.Duration
		name string
	}{{7 * 24 * time.Hour, "w"}, {24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}} {
		if d >= u.size && d%u.size == 0 {
			return strconv.FormatInt(int64(d/u.size), 10) + u.name
		}
	}
	return d.String()
}
