package rules

import (
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// VariantHoldout names the share of a sequence that is enrolled and never contacted.
const VariantHoldout = "holdout"

// Cap bounds the touchpoints of one lead across all sequences.
type Cap struct {
	Max int
	Per time.Duration
}

// Brake bounds how many leads enter a sequence in a time; those above it are held.
type Brake struct {
	Enrollments int
	Per         time.Duration
}

// Variant is one way in which a sequence or a step is done, for the share of leads that its weight has
// among all of them.
type Variant struct {
	Name   string
	Weight int
	Steps  []Step // of a sequence's variant: instead of its steps; nil: those
	Step   *Step  // of a step's variant: the step as it is done then
}

// StepsOf are the steps of a variant; the sequence's own for the empty and an unknown one.
func (q *Sequence) StepsOf(variant string) []Step {
	for i := range q.Variants {
		if v := &q.Variants[i]; v.Name == variant && v.Steps != nil {
			return v.Steps
		}
	}
	if len(q.Steps) == 0 { // every variant has steps of its own
		return q.Variants[0].Steps
	}
	return q.Steps
}

// Find is the step of that name as a variant of the sequence has it, nil when it has none.
func (q *Sequence) Find(variant, step string) *Step {
	steps := q.StepsOf(variant)
	if i := stepIndex(steps, step); i >= 0 {
		return &steps[i]
	}
	return nil
}

// Of is the step as a variant does it; the step itself for the empty and an unknown one.
func (s *Step) Of(variant string) *Step {
	for i := range s.Variants {
		if v := &s.Variants[i]; v.Name == variant {
			return v.Step
		}
	}
	return s
}

// All are the steps in every way in which they can be done, variants included.
func (q *Sequence) All() iter.Seq[*Step] {
	return func(yield func(*Step) bool) {
		lists := [][]Step{q.Steps}
		for i := range q.Variants {
			lists = append(lists, q.Variants[i].Steps)
		}
		for _, steps := range lists {
			for i := range steps {
				s := &steps[i]
				if len(s.Variants) == 0 && !yield(s) {
					return
				}
				for j := range s.Variants {
					if !yield(s.Variants[j].Step) {
						return
					}
				}
			}
		}
	}
}

var (
	capKeys = keys{
		known:   []string{"max", "per"},
		meaning: map[string]string{"limit": "max", "touchpoints": "max", "count": "max", "every": "per", "in": "per", "period": "per", "window": "per"},
	}
	brakeKeys = keys{
		known:   []string{"enrollments", "per"},
		meaning: map[string]string{"max": "enrollments", "limit": "enrollments", "every": "per", "in": "per", "period": "per"},
	}
	sequenceVariantKeys = keys{
		known:   []string{"weight", "steps"},
		meaning: map[string]string{"share": "weight", "percent": "weight", "touchpoints": "steps"},
	}
	stepVariantKeys = keys{
		known:   []string{"weight", "do", "with"},
		meaning: map[string]string{"share": "weight", "percent": "weight", "action": "do", "params": "with", "parameters": "with"},
	}
)

// Limits of caps and brakes.
const (
	maxCount    = 1_000_000
	maxCapPer   = 366 * 24 * time.Hour
	maxBrakePer = 24 * time.Hour
	minBrakePer = time.Minute
)

// caps reads the caps of all files.
func (c *compiler) caps() {
	for _, s := range c.sections["caps"] {
		if s.node.ShortTag() == "!!null" {
			continue
		}
		for i, n := range c.list(s.doc, s.node, "caps", "- {max: 3, per: 7d}") {
			if c.limit(s.doc, n, i+1, 16, "caps") {
				return
			}
			var q Cap
			entries, given := c.mapping(s.doc, n, capKeys)
			if n.Kind != yaml.MappingNode {
				continue
			}
			for _, k := range entries {
				switch k.name {
				case "max":
					q.Max = c.count(s.doc, k.value, "max: 3", 1, 1000)
				case "per":
					q.Per = c.period(s.doc, k.value, "per: 7d", time.Second, maxCapPer)
				}
			}
			if !given["max"] || !given["per"] {
				c.fault(s.doc, n, "a cap says how many touchpoints a lead gets in which time, as in {max: 3, per: 7d}")
			}
			c.set.Caps = append(c.set.Caps, q)
			c.limitPlaces.caps = append(c.limitPlaces.caps, pos(s.doc, n))
		}
	}
}

// count reads a whole number.
func (c *compiler) count(d *document, n *yaml.Node, example string, least, most int) int {
	v, ok := c.scalar(d, n, "a whole number", example)
	if !ok {
		return least
	}
	x, err := strconv.Atoi(v.Value)
	if err != nil || v.ShortTag() != "!!int" || x < least || x > most {
		c.fault(d, v, "this is a whole number from %d to %d, as in %s", least, most, example)
		return least
	}
	return x
}

// period reads a duration within bounds.
func (c *compiler) period(d *document, n *yaml.Node, example string, least, most time.Duration) time.Duration {
	before := len(c.faults)
	per := c.duration(d, n, example, true)
	if len(c.faults) == before && (per < least || per > most) {
		c.fault(d, n, "this is a duration from %s to %s, as in %s", FormatDuration(least), FormatDuration(most), example)
	}
	return per
}

func (c *compiler) brake(d *document, n *yaml.Node) *Brake {
	entries, given := c.mapping(d, n, brakeKeys)
	if n.Kind != yaml.MappingNode {
		return nil
	}
	b := new(Brake)
	for _, k := range entries {
		switch k.name {
		case "enrollments":
			b.Enrollments = c.count(d, k.value, "enrollments: 200", 1, maxCount)
		case "per":
			b.Per = c.period(d, k.value, "per: 1h", minBrakePer, maxBrakePer)
		}
	}
	if !given["enrollments"] || !given["per"] {
		c.fault(d, n, "a brake says how many leads may enter in which time, as in {enrollments: 200, per: 1h}")
	}
	return b
}

// holdout reads a share in percent and gives it as a part of one.
func (c *compiler) holdout(d *document, n *yaml.Node) float64 {
	v, ok := c.scalar(d, n, "a share in percent", "holdout: 10%")
	if !ok {
		return 0
	}
	text, percent := strings.CutSuffix(v.Value, "%")
	x, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if !percent || err != nil || !(x > 0 && x < 100) {
		c.fault(d, v, "holdout is the share that is enrolled and never contacted, more than 0%% and less than 100%%, as in holdout: 10%%")
		return 0
	}
	return x / 100
}

// variants reads names with their weights and calls read for what else stands in each of them.
func (c *compiler) variants(d *document, n *yaml.Node, ks keys, example string, read func(v *Variant, name entry, parts []entry)) (out []Variant) {
	sum := 0
	for _, e := range c.entries(d, n, example) {
		if !c.name(d, e.key, "variant", e.name) {
			continue
		}
		if e.name == VariantHoldout {
			c.fault(d, e.key, "holdout is the name of those who are not contacted; write holdout: 10%% on the sequence for them, and give this variant another name")
			continue
		}
		if c.limit(d, e.key, len(out)+1, 26, "variants") {
			break
		}
		v := Variant{Name: e.name, Weight: 1}
		if e.value.ShortTag() != "!!null" {
			parts, _ := c.mapping(d, e.value, ks)
			for _, k := range parts {
				if k.name == "weight" {
					v.Weight = c.count(d, k.value, "weight: 50", 0, maxCount)
				}
			}
			read(&v, e, parts)
		} else {
			read(&v, e, nil)
		}
		sum += v.Weight
		out = append(out, v)
	}
	if n.Kind != yaml.MappingNode {
		return nil
	}
	switch {
	case len(out) < 2 && len(c.faults) == 0:
		c.fault(d, n, "a split needs at least two variants, as in %s", example)
	case sum == 0 && len(out) > 0:
		c.fault(d, n, "every variant has the weight 0, so nobody could get one; give one of them more")
	}
	return out
}

const (
	sequenceVariantsExample = "variants: {short: {weight: 50, steps: [...]}, long: {weight: 50, steps: [...]}}"
	stepVariantsExample     = "variants: {plain: {weight: 50}, warm: {weight: 50, with: {firstName: friend}}}"
)

func (c *compiler) sequenceVariants(d *document, n *yaml.Node, q *Sequence) {
	q.Variants = c.variants(d, n, sequenceVariantKeys, sequenceVariantsExample, func(v *Variant, name entry, parts []entry) {
		for _, k := range parts {
			if k.name == "steps" {
				v.Steps = c.steps(d, k, "the variant "+v.Name)
			}
		}
	})
}

// stepVariants reads the variants of a step that was read already. do and with are the step's own nodes,
// nil when it has none.
func (c *compiler) stepVariants(d *document, n, do, with *yaml.Node, s *Step) {
	s.Variants = c.variants(d, n, stepVariantKeys, stepVariantsExample, func(v *Variant, name entry, parts []entry) {
		own := *s
		own.Variants = nil
		v.Step = &own
		its := map[string]*yaml.Node{}
		for _, k := range parts {
			its[k.name] = k.value
		}
		switch {
		case its["do"] != nil:
			own.Pos = pos(d, name.key)
			if x, ok := c.scalar(d, its["do"], "what to do", "do: referralrock.invite"); ok {
				c.action(d, x, its["with"], &own)
			}
		case do == nil:
			c.fault(d, name.key, "the step has no do, and neither has this variant; say what it does, as in do: referralrock.invite")
		case its["with"] != nil:
			own.Pos = pos(d, name.key)
			c.action(d, do, its["with"], &own)
		}
	})
	if i := slices.IndexFunc(s.Variants, func(v Variant) bool { return v.Step != nil }); do == nil && i >= 0 {
		first := s.Variants[i].Step
		s.Do, s.Connector, s.Operation, s.With = first.Do, first.Connector, first.Operation, first.With
	}
}
