package rules

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/lodestonehq/lodestone/scoring"
)

var (
	scoringKeys = keys{
		known:   []string{"bands", "rules"},
		meaning: map[string]string{"band": "bands", "rule": "rules", "thresholds": "bands", "levels": "bands", "points": "rules"},
	}
	ruleKeys = keys{
		known: []string{"name", "when", "points", "each", "half_life"},
		meaning: map[string]string{
			"if": "when", "condition": "when", "score": "points", "value": "points", "add": "points",
			"decay": "half_life", "fade": "half_life", "halflife": "half_life", "repeat": "each", "id": "name", "title": "name",
		},
	}
)

// bands reads the bands, which stand in one file only.
func (c *compiler) bands() {
	var first *Pos
	for _, s := range c.sections["scoring"] {
		if s.node.ShortTag() == "!!null" {
			continue
		}
		entries, _ := c.mapping(s.doc, s.node, scoringKeys)
		for _, e := range entries {
			if e.name != "bands" {
				continue
			}
			c.bandsGiven = true
			if first != nil {
				c.fault(s.doc, e.key, "bands stand in one file only; they are already at %s:%d:%d", first.File, first.Line, first.Column)
				continue
			}
			at := pos(s.doc, e.key)
			first = &at
			c.readBands(s.doc, e)
		}
	}
	slices.SortFunc(c.set.Bands, func(a, b Band) int { return cmp.Compare(b.Min, a.Min) })
}

func (c *compiler) readBands(d *document, e entry) {
	if e.value.Kind == yaml.MappingNode && len(e.value.Content) == 0 || e.value.ShortTag() == "!!null" {
		c.fault(d, e.key, "bands are empty; give each its lowest score, as in bands: {hot: 60, warm: 30, cold: 0}")
		return
	}
	for _, b := range c.entries(d, e.value, "{hot: 60, warm: 30, cold: 0}") {
		if !c.name(d, b.key, "band", b.name) {
			continue
		}
		if c.limit(d, b.key, len(c.set.Bands)+1, MaxEntries, "bands") {
			return
		}
		n, ok := c.scalar(d, b.value, "a whole number", b.name+": 60")
		if !ok {
			continue
		}
		lowest, err := strconv.Atoi(n.Value)
		if err != nil || n.ShortTag() != "!!int" || lowest > 1e9 || lowest < -1e9 {
			c.fault(d, n, "a band begins at a whole number, as in %s: 60", b.name)
			continue
		}
		if i := slices.IndexFunc(c.set.Bands, func(o Band) bool { return o.Min == lowest }); i >= 0 {
			c.fault(d, n, "%s and %s both begin at %d; each band needs a number of its own", c.set.Bands[i].Name, b.name, lowest)
			// It is kept, so that expressions which name it are not reported as well.
		}
		c.set.Bands = append(c.set.Bands, Band{b.name, lowest})
		c.bandPlaces[b.name] = pos(d, b.key)
	}
}

// rules reads the scoring rules of all files.
func (c *compiler) rules() {
	c.rulePlaces = make(map[string]Pos)
	for _, s := range c.sections["scoring"] {
		list := valueOf(s.node, "rules")
		if list == nil || list.ShortTag() == "!!null" {
			continue
		}
		for _, n := range c.list(s.doc, list, "rules", "- name: business-email") {
			if c.limit(s.doc, n, len(c.set.Rules)+1, MaxRules, "scoring rules") {
				return
			}
			if r := c.rule(s.doc, n); r != nil {
				c.set.Rules = append(c.set.Rules, r)
			}
		}
	}
}

func (c *compiler) rule(d *document, n *yaml.Node) *Rule {
	r := &Rule{Pos: pos(d, n)}
	entries, given := c.mapping(d, n, ruleKeys)
	for _, e := range entries {
		switch e.name {
		case "name":
			s, ok := c.scalar(d, e.value, "a name", "name: business-email")
			if !ok || !c.name(d, s, "rule", s.Value) {
				continue
			}
			r.Name = s.Value
			if before, taken := c.rulePlaces[r.Name]; taken {
				c.duplicate(d, s, "rule", r.Name, before)
				continue
			}
			c.rulePlaces[r.Name] = r.Pos
		case "when":
			if s, ok := c.scalar(d, e.value, "a condition", "when: not lead.freemail"); ok {
				r.When = c.expression(d, s, scoring.Boolean, true)
			}
		case "points":
			if s, ok := c.scalar(d, e.value, "a number or an expression", "points: 20"); ok {
				c.points(d, s, r)
			}
		case "each":
			r.Each = c.boolean(d, e.value, "each")
		case "half_life":
			r.HalfLife = c.duration(d, e.value, "half_life: 30d", false)
		}
	}
	if n.Kind != yaml.MappingNode {
		return nil
	}
	if !given["name"] {
		c.fault(d, n, "this rule has no name; add one, as in name: business-email")
	}
	if !given["points"] {
		c.fault(d, n, "this rule gives no points; add them, as in points: 20")
	}
	return r
}

func (c *compiler) points(d *document, n *yaml.Node, r *Rule) {
	switch n.ShortTag() {
	case "!!int", "!!float":
		x, err := strconv.ParseFloat(n.Value, 64)
		if err != nil || math.IsNaN(x) || math.IsInf(x, 0) {
			c.fault(d, n, "points are a number such as 20, -100 or 2.5")
			return
		}
		r.Points = x
		if x == 0 {
			c.warn(d, n, "0 points change no score")
		}
	case "!!bool":
		c.fault(d, n, "points are a number or an expression that gives one; this is %s", kindOf(n))
	default:
		r.PointsExpr = c.expression(d, n, scoring.Number, true)
	}
}

// duration reads a duration such as 30d.
func (c *compiler) duration(d *document, n *yaml.Node, example string, zeroAllowed bool) time.Duration {
	s, ok := c.scalar(d, n, "a duration", example)
	if !ok {
		return 0
	}
	wait, err := scoring.ParseDuration(s.Value)
	switch {
	case err != nil:
		c.fault(d, s, "%s", err)
	case wait == 0 && !zeroAllowed:
		c.fault(d, s, "this duration must be longer than nothing, as in %s", example)
	}
	return wait
}
