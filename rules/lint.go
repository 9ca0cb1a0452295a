package rules

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/scoring"
)

// linter looks for what can be read and run and is still not meant: conditions that can never be
// true, sequences that nobody enters, values that may be missing. It proves what it says by
// [scoring.Region] and stays silent where it cannot. Everything it finds is a warning.
type linter struct {
	*compiler
	analyses map[*scoring.Program]*scoring.Analysis
	latest   *scoring.Analysis
	steps    int // of all analyses before the latest
}

// Bounds of what is looked at, so that files which are made to be hard cost seconds and not minutes.
// What is beyond them is not warned of.
const (
	maxPairs = 20_000  // of sequences that are compared
	maxSteps = 500_000 // of all analyses; ordinary rules take some dozens each
)

// lint looks over a set that has no faults.
func (c *compiler) lint() {
	if errs, _ := c.faults.split(); c.unread || len(errs) > 0 {
		return
	}
	l := &linter{compiler: c, analyses: make(map[*scoring.Program]*scoring.Analysis)}
	for _, f := range c.set.Forms {
		l.dead(f.Zone, "")
		l.dead(f.Quarantine, "nothing of the form "+f.Name+" can ever wait in quarantine")
	}
	for _, r := range c.set.Rules {
		l.rule(r)
	}
	l.bands()
	for _, q := range c.set.Sequences {
		l.sequence(q)
	}
	l.limits()
	l.confirmedConsent()
	l.overshadowed()
	l.listWords()
}

func (l *linter) analysis(p *scoring.Program) *scoring.Analysis {
	a := l.analyses[p]
	if a == nil {
		if l.latest != nil {
			l.steps += l.latest.Steps()
		}
		a = p.Analyse()
		if l.steps > maxSteps {
			a.GiveUp()
		}
		l.analyses[p], l.latest = a, a
	}
	return a
}

// at warns at a place inside an expression.
func (l *linter) at(p *scoring.Program, offset int, format string, args ...any) {
	s := l.placed[p]
	l.faultAt(s.doc, s.doc.locate(s.node, s.offset+offset), SeverityWarning, format, args...)
}

// atPos warns at a definition.
func (l *linter) atPos(p Pos, format string, args ...any) {
	l.report(Fault{p.File, p.Line, p.Column, SeverityWarning, fmt.Sprintf(format, args...)})
}

// dead warns of the parts of an expression that can never be true. consequence says what follows when
// that is the whole of it; it reports whether it is.
func (l *linter) dead(p *scoring.Program, consequence string, given ...scoring.Given) (whole bool) {
	if p == nil {
		return false
	}
	a := l.analysis(p)
	for _, f := range a.Unbounded() {
		l.at(p, f.Offset, "%s", f.Message)
	}
	for _, f := range a.Dead(given...) {
		message := f.Message
		if f.Whole && consequence != "" {
			message = consequence + ": " + message
			whole = true
		}
		l.at(p, f.Offset, "%s", message)
	}
	return whole
}

// condition warns of a condition that is always true or never. It reports whether it can be true.
func (l *linter) condition(p *scoring.Program, consequence string, given ...scoring.Given) bool {
	if p == nil {
		return true
	}
	a := l.analysis(p)
	if v, ok := a.Literal(); ok {
		if v == false {
			l.at(p, 0, "%s: its condition is false; remove it if it is not wanted any more, else write a condition", consequence)
		}
		return v != false
	}
	before := len(l.faults)
	if l.dead(p, consequence, given...) {
		return false
	}
	if len(l.faults) == before && a.Total() && a.False().Empty() {
		l.at(p, 0, "this condition is always true; write true if that is meant")
	}
	return true
}

func (l *linter) rule(r *Rule) {
	if l.condition(r.When, "the rule "+r.Name+" can never give points") {
		var given []scoring.Given
		if r.When != nil {
			given = append(given, scoring.Given{Region: l.analysis(r.When).True(), Words: "the rule's when is " + shown(r.When)})
		}
		l.dead(r.PointsExpr, "", given...)
	}
}

// shown is an expression as it is quoted in a message.
func shown(p *scoring.Program) string {
	s := []rune(strings.Join(strings.Fields(p.Source()), " "))
	if len(s) > 80 {
		return string(s[:77]) + "…"
	}
	return string(s)
}

func bandRanges(bands []Band) []scoring.BandRange {
	var out []scoring.BandRange
	for i, b := range bands { // highest first
		r := scoring.BandRange{Name: b.Name, Min: float64(b.Min), Next: math.Inf(1)}
		if i > 0 {
			r.Next = float64(bands[i-1].Min)
		}
		if i == len(bands)-1 {
			r.Min = math.Inf(-1)
		}
		out = append(out, r)
	}
	return out
}

// bands warns of a band that takes scores which its number does not say, and of one that no score
// reaches.
func (l *linter) bands() {
	bands := l.set.Bands
	if len(bands) == 0 {
		return
	}
	lowest := bands[len(bands)-1]
	if lowest.Min > 0 {
		l.atPos(l.bandPlaces[lowest.Name], "the lowest band also takes every score below it, so a lead with 0 points is %s as well; add a band that begins at 0, or let %s begin at 0", lowest.Name, lowest.Name)
	}
	if len(l.set.Rules) == 0 {
		return
	}
	least, most := l.reach()
	for _, r := range bandRanges(bands) {
		switch {
		case r.Min > math.Floor(most+0.5):
			l.atPos(l.bandPlaces[r.Name], "no lead can be %s: it begins at %s points and all rules together give at most %s; let it begin lower, or give more points", r.Name, number(r.Min), number(most))
		case r.Next <= math.Floor(least+0.5):
			l.atPos(l.bandPlaces[r.Name], "no lead can be %s: it ends below %s points and every lead has at least %s; let it begin higher, or give fewer points", r.Name, number(r.Next), number(least))
		}
	}
}

func number(x float64) string { return scoring.FormatValue(x) }

// reach is between which numbers the sum of all rules lies.
func (l *linter) reach() (least, most float64) {
	for _, r := range l.set.Rules {
		low, high := r.Points, r.Points
		if r.PointsExpr != nil {
			var ok bool
			if low, high, ok = l.analysis(r.PointsExpr).NumberRange(); !ok {
				low, high = math.Inf(-1), math.Inf(1)
			}
		}
		always := r.When == nil
		if r.When != nil {
			a := l.analysis(r.When)
			if a.True().Empty() {
				continue
			}
			always = a.Total() && a.False().Empty()
		}
		if !always || r.HalfLife > 0 || r.PointsExpr != nil {
			low, high = min(low, 0), max(high, 0)
		}
		if r.Each { // as often as somebody submits
			if low < 0 {
				low = math.Inf(-1)
			}
			if high > 0 {
				high = math.Inf(1)
			}
		}
		least, most = least+low, most+high
	}
	return least, most
}

func (l *linter) sequence(q *Sequence) {
	if !l.condition(q.When, "nobody can ever enter the sequence "+q.Name) {
		return // its steps would only say the same again
	}
	enters := l.analysis(q.When).True()
	given := []scoring.Given{{Region: enters.Lasting(), Words: "the sequence's when is " + shown(q.When)}}
	if q.Exit != nil {
		a := l.analysis(q.Exit)
		if v, ok := a.Literal(); ok && v == true || a.Total() && enters.And(a.False()).Empty() {
			l.at(q.Exit, 0, "nobody gets a step of the sequence %s: its exit is true already for everybody who enters; write a condition that becomes true later, as in signals.converted", q.Name)
			return
		} else if !ok {
			l.dead(q.Exit, "the exit of the sequence "+q.Name+" never happens", given...)
		}
		if a.Total() {
			given = append(given, scoring.Given{Region: a.False(), Words: "the sequence ends as soon as its exit is true: " + shown(q.Exit)})
		}
	}
	l.confirmations(q)
	for s := range q.All() {
		l.stepTime(q, s)
		l.step(s, given)
	}
}

func (l *linter) step(s *Step, given []scoring.Given) {
	if !l.condition(s.When, "the step "+s.Name+" can never run", given...) {
		return
	}
	region := l.set.Schema.Everywhere()
	for _, g := range given {
		region = region.And(g.Region)
	}
	if s.When != nil {
		region = region.And(l.analysis(s.When).True())
	}
	op := l.opts.Operations[s.Do]
	for _, a := range s.With {
		p, _ := op.Parameter(a.Name)
		l.argument(s, p, a.Value, region, writesToLead(op) && !region.OnlyAfter("opened", "clicked", "replied", "joined", "converted", "confirmed"))
	}
}

// argument warns of a value that can be missing where the provider needs it or a sentence would have
// a hole, and of what strangers could have a provider write to other people.
func (l *linter) argument(s *Step, p lodestone.Parameter, t Template, region scoring.Region, writes bool) {
	for _, part := range t.parts {
		if part.program == nil {
			continue
		}
		a := l.analysis(part.program)
		l.dead(part.program, "")
		if typed := a.Unchecked(region); writes && p.Type != lodestone.FieldEmail && len(typed) > 0 {
			l.at(part.program, 0, "%s is whatever somebody typed, and this step sends it to an address that nobody has confirmed: a spammer could send their own words through you; write ${plain(%s) ?? \"there\"}, because plain lets only short texts without links through",
				typed[0], typed[0])
			continue // what to write gives a fallback as well
		}
		missing := region.And(a.Nil())
		switch names := missing.NilNames(); {
		case l.set.Links && linksOnly(names): // there are links
		case missing.Empty(), len(t.parts) == 1 && !p.Required:
		case len(t.parts) > 1:
			l.at(part.program, 0, "%s, and then nothing stands in this place of the text; write what shall stand there instead, as in ${%s ?? \"…\"}", canBeAbsent(part.program, names), strings.TrimSpace(part.program.Source()))
		default:
			instead := `"…"`
			if p.Type == lodestone.FieldNumber {
				instead = "0"
			}
			only := ""
			if len(names) > 0 {
				asked := strings.TrimSpace(part.program.Source())
				if len(names) == 1 {
					asked = names[0]
				} else if strings.Contains(asked, "??") {
					asked = "(" + asked + ")"
				}
				only = fmt.Sprintf(", or let the step run only where it is there, as in when: %s != nil", asked)
			}
			l.at(part.program, 0, "%s, and %s needs %s: the step would fail for such a lead; give a fallback, as in ${%s ?? %s}%s",
				canBeAbsent(part.program, names), s.Do, p.Name, strings.TrimSpace(part.program.Source()), instead, only)
		}
	}
}

func linksOnly(names []string) bool {
	return len(names) > 0 && !slices.ContainsFunc(names, func(n string) bool { return !strings.HasPrefix(n, "links.") })
}

func canBeAbsent(p *scoring.Program, names []string) string {
	if len(names) == 0 {
		return shown(p) + " can be absent"
	}
	return strings.Join(names, " and ") + " can be absent"
}

// writesToLead reports whether an operation makes the provider write to the address it is given.
func writesToLead(op lodestone.Operation) bool {
	_, name := lodestone.SplitOperation(op.Name)
	return op.Effect != lodestone.EffectRead && strings.Contains(strings.ToLower(name), lodestone.VerbInvite)
}

// lintAction warns of an action that would do nothing, or that nothing could do.
func (c *compiler) lintAction(d *document, do *yaml.Node, op lodestone.Operation, account string) {
	if op.Effect == lodestone.EffectRead {
		c.warn(d, do, "%s only reads from the provider, and nothing uses what it reads; remove this step", do.Value)
	}
	if c.opts.Configured != nil && !slices.Contains(c.opts.Configured, account) {
		c.warn(d, do, "the connector %s has no settings yet, so nothing would be sent; add them under connectors in the configuration", account)
	}
}

// overshadowed warns of a sequence whose leads another one takes first.
func (l *linter) overshadowed() {
	pairs := 0
	for j, lower := range l.set.Sequences {
		enters := l.analysis(lower.When).True()
		if enters.Empty() {
			continue
		}
		for _, higher := range l.set.Sequences[:j] {
			if pairs++; pairs > maxPairs {
				return
			}
			a := l.analysis(higher.When)
			if !a.Total() || !enters.And(a.False()).Empty() {
				continue
			}
			l.at(lower.When, 0, "everybody who could enter the sequence %s could also enter %s, which comes first%s; %s; give %s the higher priority, or let the when of %s leave somebody over",
				lower.Name, higher.Name, whyFirst(higher, lower), leftOver(higher, lower), lower.Name, higher.Name)
			break
		}
	}
}

func whyFirst(higher, lower *Sequence) string {
	if higher.Priority == lower.Priority {
		return " because both have the priority " + fmt.Sprint(lower.Priority) + " and it stands first"
	}
	return fmt.Sprintf(" (priority %d against %d)", higher.Priority, lower.Priority)
}

// leftOver says who enters a sequence although another one takes everybody.
func leftOver(higher, lower *Sequence) string {
	switch higher.Reenter.Mode {
	case ReenterAlways:
		return fmt.Sprintf("%s may always be entered again, so nobody ever enters %s", higher.Name, lower.Name)
	case ReenterAfter:
		return fmt.Sprintf("so only those enter %s who left %s too short a time ago to enter it again (its reenter)", lower.Name, higher.Name)
	}
	return fmt.Sprintf("so only those enter %s who have been through %s before", lower.Name, higher.Name)
}

// listWords warns of texts in lists that can never be found, because what is looked up is normalised.
func (l *linter) listWords() {
	looked := make(map[string]string) // list to the name that is looked up in it
	for _, p := range l.programs {
		if !slices.ContainsFunc(p.Names(), func(n string) bool { return strings.HasPrefix(n, "lists.") }) {
			continue
		}
		for list, name := range l.analysis(p).Lookups() {
			if name == "lead.domain" || name == "lead.email" {
				looked[list] = name
			}
		}
	}
	for list, name := range looked {
		for _, word := range l.listTexts[list] {
			instead := ""
			switch {
			case name == "lead.domain" && strings.Contains(word, "@"):
				_, instead, _ = strings.Cut(word, "@")
			case name == "lead.domain" && strings.Contains(word, "://"):
				_, instead, _ = strings.Cut(word, "://")
				instead, _, _ = strings.Cut(strings.TrimPrefix(instead, "www."), "/")
			default:
				instead = word
			}
			if instead = strings.ToLower(instead); instead != word {
				l.atPos(l.listPlaces[list], "%s in the list %s is never found: %s holds small letters and nothing but %s; write %s",
					word, list, name, map[string]string{"lead.domain": "the domain", "lead.email": "the address"}[name], instead)
				break
			}
		}
	}
}
