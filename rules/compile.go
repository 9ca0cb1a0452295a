package rules

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/scoring"
)

// Compile turns files into a set. Files whose names end in .yaml are rule files, the others are
// list files that these may refer to. The error is [Faults] with everything that is wrong; what is
// merely suspicious is in the set's Warnings. Files are read in the order of their names, whatever
// order they are given in.
func Compile(files []File, opts Options) (*Set, error) {
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	c := &compiler{opts: opts, files: files, set: &Set{Files: files, Links: opts.Link != nil, Forms: make(map[string]*Form), places: make(map[*scoring.Program][]Pos)}, placed: make(map[*scoring.Program]source), bandPlaces: make(map[string]Pos), limitPlaces: limitPlaces{holdouts: make(map[string]Pos), brakes: make(map[string]Pos)}}
	c.operations()
	if c.parseAll() {
		c.forms()
		c.lists()
		c.bands()
		c.schema()
		c.rules()
		c.caps()
		c.sequences()
		c.tests()
		c.unusedLists()
		c.lint()
	}
	errs, warnings := c.faults.sorted().split()
	if len(errs) > 0 {
		return nil, append(errs, warnings...).sorted()
	}
	c.set.Warnings = warnings
	c.version()
	return c.set, nil
}

// compiler gathers the sections of all files first, because any key may stand in any of them, and
// reads them in the order in which they depend on each other.
type compiler struct {
	opts   Options
	files  []File
	set    *Set
	faults Faults

	unread     bool // something could not be read, so what seems undeclared may be declared there
	bandsGiven bool // there is a key `bands`, be it faulty
	sections   map[string][]section
	fieldTypes map[string]fieldPlace // union over all forms
	listTexts  map[string][]string
	listPlaces map[string]Pos
	listFiles  map[string][]string // texts by name of the file
	texts      int                 // of all lists so far
	rulePlaces map[string]Pos
	accounts   []string           // connectors that `do` may name, sorted
	programs   []*scoring.Program // all of them, to see what is used
	placed     map[*scoring.Program]source
	bandPlaces map[string]Pos

	limitPlaces limitPlaces
}

// source is where an expression stands: in the value of a node, behind offset characters.
type source struct {
	doc    *document
	node   *yaml.Node
	offset int
}

// section is the value of one top-level key of one file.
type section struct {
	doc  *document
	key  *yaml.Node
	node *yaml.Node
}

// report adds a fault. Beyond the first maxFaults nobody reads on, so there is only said that there
// are more.
func (c *compiler) report(f Fault) {
	switch n := len(c.faults); {
	case n == maxFaults:
		f.Severity, f.Message = SeverityError, "there are more faults than can be shown; mend the others first"
	case n > maxFaults:
		return
	}
	c.faults = append(c.faults, f)
}

// limit reports the first entry that is one too many. It tells whether that happened.
func (c *compiler) limit(d *document, n *yaml.Node, count, limit int, what string) bool {
	if count == limit+1 {
		c.fault(d, n, "there are more than %d %s", limit, what)
	}
	return count > limit
}

// fault reports an error at a node.
func (c *compiler) fault(d *document, n *yaml.Node, format string, args ...any) {
	c.faultAt(d, place{max(1, n.Line), max(1, n.Column)}, SeverityError, format, args...)
}

func (c *compiler) warn(d *document, n *yaml.Node, format string, args ...any) {
	c.faultAt(d, place{max(1, n.Line), max(1, n.Column)}, SeverityWarning, format, args...)
}

func (c *compiler) faultAt(d *document, p place, severity, format string, args ...any) {
	c.report(Fault{File: d.file, Line: p.line, Column: p.column, Severity: severity, Message: fmt.Sprintf(format, args...)})
}

func pos(d *document, n *yaml.Node) Pos {
	return Pos{File: d.file, Line: max(1, n.Line), Column: max(1, n.Column)}
}

// operations finds the accounts that `do` may name.
func (c *compiler) operations() {
	c.accounts = slices.Clone(c.opts.Connectors)
	if c.opts.Connectors == nil {
		for name := range c.opts.Operations {
			account, _ := lodestone.SplitOperation(name)
			c.accounts = append(c.accounts, account)
		}
	}
	slices.Sort(c.accounts)
	c.accounts = slices.Compact(c.accounts)
}

var topKeys = keys{
	known:   []string{"forms", "lists", "scoring", "caps", "sequences", "tests"},
	meaning: map[string]string{"cap": "caps", "limits": "caps", "test": "tests", "form": "forms", "list": "lists", "rules": "scoring", "bands": "scoring", "score": "scoring", "sequence": "sequences"},
}

// parseAll parses the rule files and sorts their sections. It reports whether there is anything to
// go on with.
func (c *compiler) parseAll() bool {
	c.sections = make(map[string][]section)
	var names, total int
	for _, f := range c.files {
		total += len(f.Data)
		switch path.Ext(f.Name) {
		case ".yaml":
			names++
		case ".yml":
			names++
			c.report(Fault{f.Name, 1, 1, SeverityError, "the names of rule files end in .yaml; rename this file to " + strings.TrimSuffix(f.Name, ".yml") + ".yaml"})
		}
	}
	if names == 0 {
		c.report(Fault{".", 1, 1, SeverityError, "there are no rule files here; rule files are named *.yaml and hold forms, lists, scoring and sequences"})
		return false
	}
	if total > MaxDirectory {
		c.report(Fault{".", 1, 1, SeverityError, "the rule files together are larger than 16 MiB; remove what is not needed"})
		return false
	}
	for _, f := range c.files {
		if path.Ext(f.Name) != ".yaml" {
			continue
		}
		doc := parse(f, c.report)
		if doc == nil {
			c.unread = true
			continue
		}
		if doc.root == nil {
			continue
		}
		if target(doc.root).Kind != yaml.MappingNode {
			c.fault(doc, doc.root, "a rule file begins with one of its keys and a colon: %s", strings.Join(topKeys.known, ", "))
			c.unread = true
			continue
		}
		before := len(c.faults)
		entries, _ := c.mapping(doc, doc.root, topKeys)
		c.unread = c.unread || len(c.faults) > before
		for _, e := range entries {
			c.sections[e.name] = append(c.sections[e.name], section{doc, e.key, e.value})
		}
	}
	return true
}

// schema makes the names for expressions out of what was declared.
func (c *compiler) schema() {
	cfg := scoring.Config{
		Fields:  make(map[string]lodestone.FieldType),
		Lists:   c.listTexts,
		Signals: lodestone.SignalKinds,
		Forms:   []string{},
		Link:    c.opts.Link,

		FormFields: make(map[string]map[string]bool),
	}
	for name, f := range c.fieldTypes {
		cfg.Fields[name] = f.typ
	}
	for name, f := range c.set.Forms {
		cfg.Forms = append(cfg.Forms, name)
		cfg.FormFields[name] = make(map[string]bool)
		for field, decl := range f.Fields {
			cfg.FormFields[name][field] = decl.Required || field == f.Email // without an address there is no submission
		}
	}
	slices.Sort(cfg.Forms)
	for _, b := range c.set.Bands { // none: nil, and each use of band is a fault by itself
		cfg.Bands = append(cfg.Bands, b.Name)
	}
	cfg.BandRanges = bandRanges(c.set.Bands)
	c.set.Schema = scoring.NewSchema(cfg)
	for _, s := range c.sections["forms"] {
		c.formExpressions(s)
	}
}

// expression compiles the whole value of a node.
func (c *compiler) expression(d *document, n *yaml.Node, kind scoring.Kind, early bool) *scoring.Program {
	return c.program(d, n, n.Value, 0, kind, early)
}

// program compiles a part of a node's value that begins after offset characters. early programs
// run before there is a score. It reports a fault where it stands in the file, and returns nil.
func (c *compiler) program(d *document, n *yaml.Node, text string, offset int, kind scoring.Kind, early bool) *scoring.Program {
	if len(c.faults) > maxFaults {
		return nil
	}
	compile := c.set.Schema.Compile
	if early {
		compile = c.set.Schema.CompileScoring
	}
	p, err := compile(text, kind)
	if err != nil {
		f, ok := err.(*scoring.Fault)
		switch {
		case !ok:
			c.fault(d, n, "%s", err)
		case f.Undeclared && c.unread:
			// Its declaration may stand in the file that cannot be read, which is reported already.
		default:
			c.faultAt(d, d.locate(n, offset+f.Offset), SeverityError, "%s", f.Message)
		}
		return nil
	}
	for _, name := range []string{"band", "previous_band"} {
		if p.Uses(name) && !c.bandsGiven && !c.unread {
			c.faultAt(d, d.locate(n, offset), SeverityError, "%s is used but there are no bands; declare them, as in scoring: {bands: {hot: 60, cold: 0}}", name)
			return nil
		}
	}
	c.programs = append(c.programs, p)
	c.placed[p] = source{d, n, offset}
	c.placeParts(d, n, p, offset)
	return p
}

// placeParts notes where the parts of a condition stand.
func (c *compiler) placeParts(d *document, n *yaml.Node, p *scoring.Program, offset int) {
	offsets := []int{0}
	if parts := p.Parts(); parts != nil {
		offsets = offsets[:0]
		for _, part := range parts {
			offsets = append(offsets, part.Offset)
		}
	}
	list := make([]Pos, 0, len(offsets))
	for _, o := range offsets {
		at := d.locate(n, offset+o)
		list = append(list, Pos{d.file, at.line, at.column})
	}
	c.set.places[p] = list
}

// keys says which keys a mapping may have.
type keys struct {
	known   []string
	later   []string          // keys that are part of the format and not supported yet
	meaning map[string]string // what authors write instead, and what they mean by it
}

// entry is one entry of a mapping, with its aliases resolved.
type entry struct {
	name       string
	key, value *yaml.Node
}

// entries returns the entries of a mapping and reports what is no mapping, a key that is no text
// and a key that stands twice.
func (c *compiler) entries(d *document, n *yaml.Node, example string) []entry {
	n = target(n)
	if n.Kind != yaml.MappingNode {
		c.fault(d, n, "entries are expected here, as in %s; this is %s", example, kindOf(n))
		return nil
	}
	var out []entry
	first := make(map[string]*yaml.Node)
	for _, p := range pairsOf(n) {
		k := target(p.key)
		if k.Kind != yaml.ScalarNode || k.ShortTag() == "!!null" {
			c.fault(d, p.key, "a name is expected before the colon; this is %s", kindOf(k))
			continue
		}
		if before := first[k.Value]; before != nil {
			c.fault(d, p.key, "%s stands here twice; it is already at line %d", k.Value, before.Line)
			continue
		}
		first[k.Value] = p.key
		out = append(out, entry{k.Value, p.key, target(p.value)})
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].ShortTag() == "!!merge" && !mergeable(n.Content[i+1]) {
			c.fault(d, n.Content[i+1], "<< takes entries from a mapping elsewhere, as in <<: *name")
		}
	}
	return out
}

func mergeable(n *yaml.Node) bool {
	n = target(n)
	if n.Kind == yaml.SequenceNode {
		return !slices.ContainsFunc(n.Content, func(e *yaml.Node) bool { return target(e).Kind != yaml.MappingNode })
	}
	return n.Kind == yaml.MappingNode
}

// mapping returns the entries with known keys and reports all others. given also holds the keys
// that were probably meant, so that these are not reported as missing too.
func (c *compiler) mapping(d *document, n *yaml.Node, ks keys) (out []entry, given map[string]bool) {
	given = make(map[string]bool)
	for _, e := range c.entries(d, n, ks.known[0]+": …") {
		switch {
		case slices.Contains(ks.known, e.name):
			out = append(out, e)
			given[e.name] = true
		case slices.Contains(ks.later, e.name):
			c.fault(d, e.key, "%s is not supported yet; remove it", e.name)
		default:
			meant := ks.meaning[e.name]
			if meant == "" {
				meant = scoring.Closest(e.name, append(slices.Clone(ks.known), ks.later...))
			}
			if meant != "" {
				given[meant] = true
				c.fault(d, e.key, "unknown key %s; did you mean %s?", e.name, meant)
				continue
			}
			c.fault(d, e.key, "unknown key %s; known here: %s", e.name, strings.Join(ks.known, ", "))
		}
	}
	return out, given
}

// scalar returns a node that is one text, number or the like, and reports anything else.
func (c *compiler) scalar(d *document, n *yaml.Node, what, example string) (*yaml.Node, bool) {
	n = target(n)
	switch {
	case n.Kind != yaml.ScalarNode:
		c.fault(d, n, "%s is expected here, as in %s; this is %s", what, example, kindOf(n))
	case n.ShortTag() == "!!null" || strings.TrimSpace(n.Value) == "":
		c.fault(d, n, "%s is missing here, as in %s", what, example)
	default:
		return n, true
	}
	return nil, false
}

// list returns the elements of a sequence, with their aliases resolved.
func (c *compiler) list(d *document, n *yaml.Node, what, example string) []*yaml.Node {
	n = target(n)
	if n.Kind != yaml.SequenceNode {
		c.fault(d, n, "%s are expected here, each with a dash before it, as in %s; this is %s", what, example, kindOf(n))
		return nil
	}
	out := make([]*yaml.Node, len(n.Content))
	for i, e := range n.Content {
		out[i] = target(e)
	}
	return out
}

// boolean reads true or false.
func (c *compiler) boolean(d *document, n *yaml.Node, key string) bool {
	s, ok := c.scalar(d, n, "true or false", key+": true")
	if !ok {
		return false
	}
	if s.ShortTag() != "!!bool" {
		c.fault(d, s, "%s is true or false, without quotes; this is %s", key, kindOf(s))
	}
	return s.Value == "true" || s.Value == "True" || s.Value == "TRUE"
}

var (
	namePattern  = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,63}$`)
	fieldPattern = regexp.MustCompile(`(?i)^[a-z_][a-z0-9_]{0,63}$`)
)

// IsName reports whether s can be the name of a form, a rule, a list, a band, a sequence or a step.
func IsName(s string) bool { return namePattern.MatchString(s) }

// name checks the name of something that is defined.
func (c *compiler) name(d *document, n *yaml.Node, what, name string) bool {
	if namePattern.MatchString(name) {
		return true
	}
	hint := ""
	if s := slug(name); namePattern.MatchString(s) {
		hint = "; write " + s
	}
	c.fault(d, n, "%q cannot be the name of a %s: small letters, digits, - and _ are allowed, at most 64 of them, a letter or digit first%s", name, what, hint)
	return false
}

// slug is the nearest allowed name.
func slug(s string) string {
	s = regexp.MustCompile(`[^a-z0-9_]+`).ReplaceAllString(strings.ToLower(s), "-")
	s = strings.TrimLeft(strings.TrimRight(s, "-"), "-_")
	return s[:min(len(s), 64)]
}

// kindOf says in words what a node is.
func kindOf(n *yaml.Node) string {
	switch n = target(n); n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!null":
		return "empty"
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "true or false"
	}
	return "a text"
}

// duplicate reports a name that is taken; pos is where.
func (c *compiler) duplicate(d *document, n *yaml.Node, what, name string, at Pos) {
	c.fault(d, n, "there is already a %s named %s, at %s:%d:%d; give this one another name", what, name, at.File, at.Line, at.Column)
}
