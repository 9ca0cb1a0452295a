package rules

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/scoring"
)

var (
	sequenceKeys = keys{
		known: []string{"when", "priority", "consent", "reenter", "exit", "zone", "window", "steps", "variants", "holdout", "brake"},
		meaning: map[string]string{
			"if": "when", "condition": "when", "trigger": "when", "prio": "priority", "order": "priority",
			"stop": "exit", "until": "exit", "end": "exit", "goal": "exit", "touchpoints": "steps", "actions": "steps",
			"re_enter": "reenter", "again": "reenter",
			"timezone": "zone", "tz": "zone", "hours": "window", "quiet_hours": "window",
			"split": "variants", "ab": "variants", "control": "holdout", "throttle": "brake",
		},
	}
	stepKeys = keys{
		known: []string{"name", "after", "cron", "window", "grace", "when", "confirm", "do", "with", "variants"},
		meaning: map[string]string{
			"wait": "after", "delay": "after", "in": "after", "if": "when", "condition": "when", "unless": "when",
			"action": "do", "run": "do", "call": "do", "send": "do", "operation": "do", "uses": "do",
			"params": "with", "parameters": "with", "args": "with", "arguments": "with", "fields": "with", "data": "with",
			"id": "name", "title": "name", "schedule": "cron", "at": "after",
			"double_opt_in": "confirm", "doi": "confirm", "confirmation": "confirm", "await": "confirm",
			"hours": "window", "expires": "grace", "stale": "grace", "timeout": "grace",
		},
	}
)

// sequences reads the sequences of all files and puts them into the order of assignment.
func (c *compiler) sequences() {
	for _, s := range c.sections["sequences"] {
		if s.node.ShortTag() == "!!null" {
			continue
		}
		for _, e := range c.entries(s.doc, s.node, "hot-invite: {when: …, steps: …}") {
			if !c.name(s.doc, e.key, "sequence", e.name) {
				continue
			}
			if before := c.set.Sequence(e.name); before != nil {
				c.duplicate(s.doc, e.key, "sequence", e.name, before.Pos)
				continue
			}
			if c.limit(s.doc, e.key, len(c.set.Sequences)+1, MaxEntries, "sequences") {
				return
			}
			c.set.Sequences = append(c.set.Sequences, c.sequence(s.doc, e))
		}
	}
	// Stable: what has the same priority stays in the order of files and in files.
	slices.SortStableFunc(c.set.Sequences, func(a, b *Sequence) int { return cmp.Compare(b.Priority, a.Priority) })
}

func (c *compiler) sequence(d *document, e entry) *Sequence {
	q := &Sequence{Name: e.name, Zone: ZoneLead, Reenter: Reenter{Mode: ReenterNever}, Pos: pos(d, e.key)}
	entries, given := c.mapping(d, e.value, sequenceKeys)
	for _, k := range entries {
		switch k.name {
		case "when":
			if n, ok := c.scalar(d, k.value, "a condition", `when: band == "hot"`); ok {
				q.When = c.expression(d, n, scoring.Boolean, false)
			}
		case "priority":
			if n, ok := c.scalar(d, k.value, "a whole number", "priority: 100"); ok {
				p, err := strconv.Atoi(n.Value)
				if err != nil || n.ShortTag() != "!!int" || p > 1e9 || p < -1e9 {
					c.fault(d, n, "priority is a whole number; the highest wins")
				}
				q.Priority = p
			}
		case "consent":
			if n, ok := c.scalar(d, k.value, "the word required or confirmed", "consent: required"); ok {
				q.ConsentConfirmed = n.Value == "confirmed"
				if q.ConsentRequired = q.ConsentConfirmed || n.Value == "required"; !q.ConsentRequired {
					c.fault(d, n, "write consent: required, or consent: confirmed where it must be confirmed as well, or leave the line out where no consent is needed")
				}
			}
		case "reenter":
			if n, ok := c.scalar(d, k.value, "never, always or a duration", "reenter: 90d"); ok {
				q.Reenter = c.reenter(d, n)
			}
		case "exit":
			if n, ok := c.scalar(d, k.value, "a condition", "exit: signals.converted"); ok {
				q.Exit = c.expression(d, n, scoring.Boolean, false)
			}
		case "zone":
			q.Zone = c.zoneName(d, k.value)
		case "window":
			q.Window = c.window(d, k.value)
		case "steps":
			q.Steps = c.steps(d, k, "the sequence "+q.Name)
		case "variants":
			c.sequenceVariants(d, k.value, q)
		case "holdout":
			q.Holdout = c.holdout(d, k.value)
			c.limitPlaces.holdouts[q.Name] = pos(d, k.value)
		case "brake":
			q.Brake = c.brake(d, k.value)
			c.limitPlaces.brakes[q.Name] = pos(d, k.value)
		}
	}
	if e.value.Kind == yaml.MappingNode {
		if !given["when"] {
			c.fault(d, e.key, `the sequence %s has no condition, so nobody would enter it; add one, as in when: band == "hot"`, e.name)
		}
		if own := slices.ContainsFunc(q.Variants, func(v Variant) bool { return v.Steps == nil }); !given["steps"] && (own || len(q.Variants) == 0) {
			c.fault(d, e.key, "the sequence %s has no steps; add at least one", e.name)
		}
	}
	return q
}

func (c *compiler) reenter(d *document, n *yaml.Node) Reenter {
	switch n.Value {
	case "never":
		return Reenter{Mode: ReenterNever}
	case "always":
		return Reenter{Mode: ReenterAlways}
	}
	wait, err := scoring.ParseDuration(n.Value)
	if err != nil {
		c.fault(d, n, "reenter is never, always, or how long after the last time, as in 90d")
	} else if wait == 0 {
		c.fault(d, n, "reenter must be longer than nothing; write always to allow it at once")
	}
	return Reenter{Mode: ReenterAfter, After: wait}
}

// steps reads the steps of owner, which says in words whose they are.
func (c *compiler) steps(d *document, e entry, owner string) (steps []Step) {
	nodes := c.list(d, e.value, "steps", "- {name: invite, do: referralrock.invite}")
	if e.value.Kind == yaml.SequenceNode && len(nodes) == 0 {
		c.fault(d, e.key, "%s has no steps; add at least one", owner)
	}
	for i, n := range nodes {
		if c.limit(d, n, i+1, MaxSteps, "steps in this sequence") {
			return steps
		}
		s := Step{Pos: pos(d, n)}
		var do, with, variants *yaml.Node
		entries, given := c.mapping(d, n, stepKeys)
		for _, k := range entries {
			switch k.name {
			case "name":
				v, ok := c.scalar(d, k.value, "a name", "name: invite")
				if !ok || !c.name(d, v, "step", v.Value) {
					continue
				}
				s.Name = v.Value
				if i := stepIndex(steps, s.Name); i >= 0 {
					c.fault(d, v, "this sequence already has a step named %s, at line %d; give this one another name", s.Name, steps[i].Line)
				}
			case "after":
				s.After = c.duration(d, k.value, "after: 10m", true)
			case "cron":
				s.Cron = c.cron(d, k.value)
			case "window":
				s.Window = c.window(d, k.value)
			case "grace":
				s.Grace = c.duration(d, k.value, "grace: 24h", false)
			case "when":
				if v, ok := c.scalar(d, k.value, "a condition", "when: not signals.opened"); ok {
					s.When = c.expression(d, v, scoring.Boolean, false)
				}
			case "confirm":
				s.confirmPos = pos(d, k.value)
				s.Confirm = c.period(d, k.value, "confirm: 7d", time.Second, maxConfirm)
			case "do":
				do = k.value
			case "with":
				with = k.value
			case "variants":
				variants = k.value
			}
		}
		if n.Kind != yaml.MappingNode {
			continue
		}
		if !given["name"] {
			c.fault(d, n, "this step has no name; add one, as in name: invite")
		}
		if !given["do"] && variants == nil {
			c.fault(d, n, "this step does nothing; say what, as in do: referralrock.invite")
		}
		if do == nil {
			if variants != nil {
				c.stepVariants(d, variants, nil, with, &s)
				steps = append(steps, s)
			}
			continue
		}
		if do, ok := c.scalar(d, do, "what to do", "do: referralrock.invite"); ok {
			c.action(d, do, with, &s)
		}
		if variants != nil {
			c.stepVariants(d, variants, target(do), with, &s)
		}
		steps = append(steps, s)
	}
	return steps
}

// action checks `do` and `with` against the operations that exist.
func (c *compiler) action(d *document, do, with *yaml.Node, s *Step) {
	account, operation, found := strings.Cut(do.Value, ".")
	if !found || account == "" || operation == "" {
		c.fault(d, do, "do names a connector and what it shall do, with a dot between, as in referralrock.invite%s", c.connectorsKnown())
		return
	}
	if !slices.Contains(c.accounts, account) {
		c.fault(d, do, "unknown connector %s%s", account, c.nearestConnector(account))
		return
	}
	op, ok := c.opts.Operations[do.Value]
	if !ok {
		var known []string
		for name := range c.opts.Operations {
			if a, o := lodestone.SplitOperation(name); a == account {
				known = append(known, o)
			}
		}
		c.faultAt(d, d.locate(do, characters(account)+1), SeverityError, "%s has no operation %s%s", account, operation, suggestion(operation, known))
		return
	}
	if op.NoStep != "" {
		c.faultAt(d, d.locate(do, characters(account)+1), SeverityError, "%s cannot be a step: %s", do.Value, op.NoStep)
		return
	}
	s.Do, s.Connector, s.Operation = do.Value, account, operation
	c.lintAction(d, do, op, account)
	c.arguments(d, do, with, op, s)
}

func (c *compiler) connectorsKnown() string {
	if len(c.accounts) == 0 {
		return ""
	}
	return "; connectors: " + strings.Join(c.accounts, ", ")
}

func (c *compiler) nearestConnector(account string) string {
	if len(c.accounts) == 0 {
		return "; no connector is configured"
	}
	return suggestion(account, c.accounts)
}

// suggestion ends a message about an unknown word.
func suggestion(word string, known []string) string {
	if meant := scoring.Closest(word, known); meant != "" {
		return "; did you mean " + meant + "?"
	}
	known = slices.Sorted(slices.Values(known))
	if len(known) > 12 {
		known = append(known[:12], "…")
	}
	if len(known) == 0 {
		return ""
	}
	return "; known: " + strings.Join(known, ", ")
}
