package scoring

import (
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/expr-lang/expr/ast"
)

// Region is a set of facts, described from outside: it holds at least the facts that it is said to
// hold. So an empty region is a proof that there are no such facts, and a region that is not empty
// proves nothing. Regions are how this package decides that a condition can never be true, or that
// one implies another.
//
// A region is a list of alternatives, and an alternative says for each name what its value can be:
// an interval of numbers, a set of texts, true or false, nil. What is no name, such as
// days_since(lead.first_seen), counts as one under its own source text, because the same facts give
// it the same value. Beyond [maxAlternatives] a region is simply made larger.
type Region struct {
	schema *Schema
	alts   []alternative
}

// alternative maps names to what their values can be; names that are missing can be anything.
type alternative map[string]domain

const (
	maxAlternatives = 48    // of one region
	maxSteps        = 4_000 // intersections of alternatives for one expression
	maxCandidates   = 2_000 // values of a set that are tried one by one
)

// BandRange is the interval of scores that a band stands for: from Min on and below Next.
type BandRange struct {
	Name      string
	Min, Next float64 // -Inf and +Inf where it is open
}

// domain is what one name's value can be: nil, no number (NaN, which is neither less nor more than
// anything), or one of the values that pass everything below.
type domain struct {
	base     base
	mayNil   bool
	mayNaN   bool
	yes, no  bool    // booleans
	lo, hi   float64 // numbers, and times and durations in seconds
	loOpen   bool    // lo itself is not in it
	hiOpen   bool    // hi itself is not in it
	integer  bool    // only whole numbers
	finite   []any   // nil: any; else one of these
	tests    []test  // that a value must pass
	valueOut bool    // no value: nil or NaN at most
}

// test is a property of values. Two tests of one id are the same property.
type test struct {
	id   string
	want bool
	ok   func(any) bool
}

func anything(t Type) domain {
	return domain{base: t.base, mayNil: t.Optional(), mayNaN: t.base == number, yes: true, no: true, lo: math.Inf(-1), hi: math.Inf(1)}
}

// and is what is in both domains.
func (d domain) and(o domain) domain {
	d.mayNil = d.mayNil && o.mayNil
	d.mayNaN = d.mayNaN && o.mayNaN
	d.yes, d.no = d.yes && o.yes, d.no && o.no
	if o.lo > d.lo || o.lo == d.lo && o.loOpen {
		d.lo, d.loOpen = o.lo, o.loOpen
	}
	if o.hi < d.hi || o.hi == d.hi && o.hiOpen {
		d.hi, d.hiOpen = o.hi, o.hiOpen
	}
	d.integer = d.integer || o.integer
	d.valueOut = d.valueOut || o.valueOut
	switch {
	case d.finite == nil:
		d.finite = o.finite
	case o.finite != nil:
		both := []any{}
		for _, v := range d.finite {
			if slices.Contains(o.finite, v) {
				both = append(both, v)
			}
		}
		d.finite = both
	}
	if len(o.tests) > 0 {
		d.tests = append(slices.Clip(d.tests), o.tests...)
	}
	return d
}

func (d domain) empty() bool { return !d.mayNil && !d.mayNaN && d.noValue() }

// noValue reports whether nothing but nil and NaN is left.
func (d domain) noValue() bool {
	if d.valueOut {
		return true
	}
	for i, a := range d.tests {
		for _, b := range d.tests[:i] {
			if a.id == b.id && a.want != b.want {
				return true
			}
		}
	}
	if d.base == boolean {
		return !d.yes && !d.no
	}
	lo, hi := d.lo, d.hi
	if d.integer {
		if up := math.Ceil(lo); up != lo {
			lo = up
		} else if d.loOpen {
			lo++
		}
		if down := math.Floor(hi); down != hi {
			hi = down
		} else if d.hiOpen {
			hi--
		}
	}
	if lo > hi || !d.integer && lo == hi && (d.loOpen || d.hiOpen) {
		return true
	}
	switch {
	case d.finite != nil:
		if len(d.finite) > maxCandidates {
			return false
		}
		return !slices.ContainsFunc(d.finite, d.holds)
	case lo == hi && !math.IsInf(lo, 0):
		return !d.holds(lo)
	}
	return false
}

// holds reports whether a value passes interval and tests.
func (d domain) holds(v any) bool {
	if x, ok := v.(float64); ok {
		if x < d.lo || x > d.hi || x == d.lo && d.loOpen || x == d.hi && d.hiOpen || d.integer && x != math.Trunc(x) {
			return false
		}
	}
	for _, t := range d.tests {
		if t.ok != nil && t.ok(v) != t.want {
			return false
		}
	}
	return true
}

// Everywhere is the region of all facts.
func (s *Schema) Everywhere() Region { return Region{s, []alternative{{}}} }

// Nowhere is the empty region.
func (s *Schema) Nowhere() Region { return Region{s, nil} }

// Empty reports whether no facts are in the region; false proves nothing.
func (r Region) Empty() bool { return len(r.alts) == 0 }

// Or holds what is in one of two regions.
func (r Region) Or(o Region) Region {
	if len(r.alts)+len(o.alts) > maxAlternatives {
		return r.schema.Everywhere()
	}
	return Region{r.schema, append(slices.Clip(r.alts), o.alts...)}
}

// And holds what is in both regions.
func (r Region) And(o Region) Region {
	if len(r.alts)*len(o.alts) > 4*maxAlternatives {
		return r // larger than it should be, which a region may be
	}
	out := Region{schema: r.schema}
	for _, a := range r.alts {
		for _, b := range o.alts {
			if both, ok := r.schema.both(a, b); ok {
				out.alts = append(out.alts, both)
			}
		}
	}
	if len(out.alts) > maxAlternatives {
		return r
	}
	return out
}

// both is the intersection of two alternatives, ok is false when it is empty.
func (s *Schema) both(a, b alternative) (alternative, bool) {
	if len(a) == 0 || len(b) == 0 {
		if len(a) == 0 {
			a = b
		}
		return a, true // each was found not to be empty when it was made
	}
	out := make(alternative, len(a)+len(b))
	for name, d := range a {
		out[name] = d
	}
	for name, d := range b {
		if have, ok := out[name]; ok {
			d = have.and(d)
		}
		if d.empty() {
			return nil, false
		}
		out[name] = d
	}
	return out, s.possible(out)
}

// possible applies what is known of names beyond their types: which scores a band stands for, and
// which fields a form has.
func (s *Schema) possible(a alternative) bool {
	return s.bandFitsScore(a) && s.someFormFits(a)
}

func (s *Schema) bandFitsScore(a alternative) bool {
	band, ok := a["band"]
	score, ok2 := a["score"]
	if !ok || !ok2 || band.mayNil || len(s.bands) == 0 {
		return true
	}
	return slices.ContainsFunc(s.bands, func(r BandRange) bool {
		if band.finite != nil && !slices.Contains(band.finite, any(r.Name)) || !band.holds(r.Name) {
			return false
		}
		in := score
		in.mayNil, in.mayNaN = false, false
		return !in.and(domain{base: number, lo: r.Min, hi: r.Next, hiOpen: true}).empty()
	})
}

func (s *Schema) someFormFits(a alternative) bool {
	if len(s.formFields) == 0 {
		return true
	}
	form, given := a["form"]
	asked := make(map[string]domain)
	for path, d := range a {
		if field, ok := strings.CutPrefix(path, "fields."); ok && s.names[path] != nil {
			asked[field] = d
		}
	}
	if len(asked) == 0 {
		return true
	}
	for name, fields := range s.formFields {
		if given && (form.finite != nil && !slices.Contains(form.finite, any(name)) || !form.holds(name)) {
			continue
		}
		fits := true
		for field, d := range asked {
			required, declared := fields[field]
			if !declared && !d.mayNil || declared && required && d.noValue() && !d.mayNaN {
				fits = false
				break
			}
		}
		if fits {
			return true
		}
	}
	return false
}

// Lasting is the region of what stays true of an enrollment: it forgets what can change after the
// submission, such as score and signals.
func (r Region) Lasting() Region {
	out := Region{schema: r.schema}
	for _, a := range r.alts {
		kept := make(alternative)
		for name, d := range a {
			if lasting(name) {
				kept[name] = d
			}
		}
		out.alts = append(out.alts, kept)
	}
	return out
}

var (
	quoted    = regexp.MustCompile("\"(?:[^\"\\\\]|\\\\.)*\"")
	namesIn   = regexp.MustCompile(`[A-Za-z_]\w*(?:\.\w+)*`)
	changing  = []string{"score", "band", "previous_band", "now", "days_since", "signals", "signals_at", "lead"}
	unchanged = []string{"lead.email", "lead.domain", "lead.freemail", "lead.disposable", "lead.role"}
)

// lasting reports whether a name, or everything in an expression that stands for one, is of the
// submission or the address.
func lasting(name string) bool {
	for _, n := range namesIn.FindAllString(quoted.ReplaceAllString(name, ""), -1) {
		root, _, _ := strings.Cut(n, ".")
		if slices.Contains(changing, root) && !slices.Contains(unchanged, n) {
			return false
		}
	}
	return true
}

// NilNames are the names that are nil in the region's first alternative, sorted.
func (r Region) NilNames() []string {
	var out []string
	if len(r.alts) == 0 {
		return nil
	}
	for name, d := range r.alts[0] {
		if d.mayNil && d.noValue() && !d.mayNaN && r.schema.names[name] != nil {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// where is the region in which a name's value is in d.
func (s *Schema) where(name string, t Type, d domain) Region {
	d = s.domainOf(name, t).and(d)
	a := alternative{name: d}
	if d.empty() || !s.possible(a) {
		return s.Nowhere()
	}
	return Region{s, []alternative{a}}
}

// domainOf is what is known of a name's values, whatever is asked.
func (s *Schema) domainOf(name string, t Type) domain {
	d := anything(t)
	lowered := test{id: "lower", want: true, ok: func(v any) bool { x, ok := v.(string); return !ok || strings.ToLower(x) == x }}
	v := s.names[name]
	if v != nil { // fields hold what JSON can write, which is no NaN
		d.mayNaN = false
	}
	switch {
	case name == "score": // expressions that may ask for it are evaluated when it is there
		d.integer, d.mayNil = true, false
	case name == "band" && len(v.oneOf) > 0:
		d.finite, d.mayNil = texts(v.oneOf), false
	case name == "lead.submissions":
		d.integer, d.lo = true, 0
	case name == "risk.score":
		d.integer, d.lo, d.hi = true, 0, maxRisk
	case strings.HasPrefix(name, "risk.") && v != nil && v.typ.base == number && !v.typ.optional: // counts
		d.integer, d.lo = true, 0
	case name == "lead.email" || name == "lead.domain":
		d.tests = []test{lowered}
	case v != nil && v.oneOf != nil:
		d.finite = texts(v.oneOf)
	case strings.HasPrefix(name, "lower("):
		d.tests = []test{lowered}
	case strings.HasPrefix(name, "upper("):
		d.tests = []test{{id: "upper", want: true, ok: func(v any) bool { x, ok := v.(string); return !ok || strings.ToUpper(x) == x }}}
	case strings.HasPrefix(name, "trim("):
		d.tests = []test{{id: "trim", want: true, ok: func(v any) bool { x, ok := v.(string); return !ok || strings.TrimSpace(x) == x }}}
	case strings.HasPrefix(name, "len(") || strings.HasPrefix(name, "count("):
		d.integer, d.mayNaN, d.lo = true, false, 0
	}
	return d
}

func texts(words []string) []any {
	out := make([]any, len(words))
	for i, w := range words {
		out[i] = w
	}
	return out
}

// decider computes regions for the parsed source of one program.
type decider struct {
	schema *Schema
	left   int // steps before everything becomes Everywhere
	types  map[ast.Node]Type
	memo   map[question]Region
}

type question struct {
	node ast.Node
	asks byte // 't'rue, 'f'alse, 'n'il, 'v'alue
}

func (s *Schema) decider() *decider {
	return &decider{schema: s, left: maxSteps, types: make(map[ast.Node]Type), memo: make(map[question]Region)}
}

// ask answers a question once.
func (d *decider) ask(n ast.Node, asks byte, answer func() Region) Region {
	q := question{n, asks}
	if r, ok := d.memo[q]; ok {
		return r
	}
	r := d.schema.Everywhere()
	if d.left > 0 {
		r = answer()
		d.left -= 1 + len(r.alts)
	}
	d.memo[q] = r
	return r
}

func (d *decider) and(a, b Region) Region {
	if a.Empty() {
		return a
	}
	if b.Empty() {
		return b
	}
	if d.left -= len(a.alts) * len(b.alts); d.left < 0 {
		return a
	}
	return a.And(b)
}

// typ is the type of a node, found as when it was compiled.
func (d *decider) typ(n ast.Node) Type {
	if name, ok := dotted(n); ok {
		if v := d.schema.names[name]; v != nil {
			return v.typ
		}
	}
	if t, ok := d.types[n]; ok {
		return t
	}
	c := &checker{schema: d.schema}
	_, t := c.check(n)
	if c.fault != nil {
		t = Type{}
	}
	d.types[n] = t
	return t
}

// when is the region in which a condition is true, or with want false one in which it is false or
// nil. Facts on which it faults are in neither.
func (d *decider) when(n ast.Node, want bool) Region {
	asks := byte('f')
	if want {
		asks = 't'
	}
	return d.ask(n, asks, func() Region { return d.condition(n, want) })
}

func (d *decider) condition(n ast.Node, want bool) Region {
	s := d.schema
	switch n := n.(type) {
	case *ast.BoolNode:
		return s.constant(n.Value == want)
	case *ast.NilNode:
		return s.constant(!want)
	case *ast.UnaryNode:
		if n.Operator != "not" && n.Operator != "!" {
			break
		}
		if b, ok := n.Node.(*ast.BinaryNode); ok && b.Location() == n.Location() {
			return d.test(b, true, want)
		}
		return d.when(n.Node, !want)
	case *ast.BinaryNode:
		switch n.Operator {
		case "and", "&&":
			if want {
				return d.and(d.when(n.Left, true), d.when(n.Right, true))
			}
			return d.when(n.Left, false).Or(d.and(d.when(n.Left, true), d.when(n.Right, false)))
		case "or", "||":
			if want {
				return d.when(n.Left, true).Or(d.when(n.Right, true))
			}
			return d.and(d.when(n.Left, false), d.when(n.Right, false))
		case "??":
			// nil counts as false, so a right side that is nil is false as well.
			return d.and(d.value(n.Left), d.when(n.Left, want)).Or(d.and(d.nothing(n.Left), d.when(n.Right, want)))
		case "==", "!=", "<", "<=", ">", ">=":
			return d.compare(n, n.Operator, n.Left, n.Right, want)
		case "in", "contains", "startsWith", "endsWith", "matches":
			return d.test(n, false, want)
		}
	case *ast.CallNode:
		if name, ok := n.Callee.(*ast.IdentifierNode); ok && name.Value == matchesFunction && len(n.Arguments) == 2 {
			return d.textTest("matches", n.Arguments[0], n.Arguments[1], n, false, want)
		}
	case *ast.ConditionalNode:
		return d.and(d.when(n.Cond, true), d.when(n.Exp1, want)).Or(d.and(d.when(n.Cond, false), d.when(n.Exp2, want)))
	}
	return d.opaque(n, want)
}

func (s *Schema) constant(holds bool) Region {
	if holds {
		return s.Everywhere()
	}
	return s.Nowhere()
}

// opaque takes a condition as a name of its own.
func (d *decider) opaque(n ast.Node, want bool) Region {
	name, t := key(n), d.typ(n)
	dom := anything(t)
	dom.base = boolean
	t.base = boolean
	dom.yes, dom.no = want, !want
	dom.mayNil = !want && t.Optional()
	return d.schema.where(name, t, dom)
}

// key is the name that a node goes by.
func key(n ast.Node) string {
	if name, ok := dotted(n); ok {
		return name
	}
	return n.String()
}

// nothing is the region in which a value is nil.
func (d *decider) nothing(n ast.Node) Region {
	return d.ask(n, 'n', func() Region { return d.presence(n, false) })
}

// value is the region in which a value is not nil.
func (d *decider) value(n ast.Node) Region {
	return d.ask(n, 'v', func() Region { return d.presence(n, true) })
}

func (d *decider) presence(n ast.Node, there bool) Region {
	s := d.schema
	switch n := n.(type) {
	case *ast.NilNode:
		return s.constant(!there)
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.ArrayNode:
		return s.constant(there)
	case *ast.BinaryNode:
		if n.Operator == "??" {
			if there {
				return d.value(n.Left).Or(d.and(d.nothing(n.Left), d.value(n.Right)))
			}
			return d.and(d.nothing(n.Left), d.nothing(n.Right))
		}
	case *ast.ConditionalNode:
		return d.and(d.when(n.Cond, true), d.presence(n.Exp1, there)).Or(d.and(d.when(n.Cond, false), d.presence(n.Exp2, there)))
	}
	t := d.typ(n)
	if t.base == unknown {
		return s.Everywhere()
	}
	if !t.Optional() {
		return s.constant(there)
	}
	if args := passesNil(n); args != nil {
		r := s.constant(there)
		for _, a := range args {
			if there {
				r = d.and(r, d.value(a))
			} else {
				r = r.Or(d.nothing(a))
			}
		}
		return r
	}
	dom := anything(t)
	dom.mayNil = !there
	dom.mayNaN = dom.mayNaN && there
	dom.valueOut = !there
	return s.where(key(n), t, dom)
}

// passesNil returns the arguments of a call that is nil exactly when one of them is.
func passesNil(n ast.Node) []ast.Node {
	name, args := called(n)
	if f, ok := functions[name]; ok && !f.strict && !f.fixed && !f.result.optional {
		return args
	}
	return nil
}

// called is the name and the arguments of a call.
func called(n ast.Node) (string, []ast.Node) {
	switch n := n.(type) {
	case *ast.BuiltinNode:
		return n.Name, n.Arguments
	case *ast.CallNode:
		if name, ok := n.Callee.(*ast.IdentifierNode); ok {
			return name.Value, n.Arguments
		}
	}
	return "", nil
}

// compare decides a comparison. at is the node it stands for, under which it goes where it cannot be
// taken apart.
func (d *decider) compare(at ast.Node, op string, l, r ast.Node, want bool) Region {
	equality := op == "==" || op == "!="
	if _, ok := l.(*ast.NilNode); ok {
		l, r = r, l
	}
	if _, ok := r.(*ast.NilNode); ok && equality {
		if _, both := l.(*ast.NilNode); both {
			return d.schema.constant((op == "==") == want)
		}
		return d.presence(l, (op == "!=") == want)
	}
	for _, n := range []ast.Node{l, r} {
		switch d.typ(n).base {
		case text, number, boolean, moment, span:
		default:
			return d.opaque(at, want)
		}
	}
	return d.cases(at, op, l, r, want)
}

// cases goes through the ways in which the sides of a comparison come about.
func (d *decider) cases(at ast.Node, op string, l, r ast.Node, want bool) Region {
	for i, side := range []ast.Node{l, r} {
		with := func(n ast.Node) Region {
			if i == 0 {
				return d.cases(at, op, n, r, want)
			}
			return d.cases(at, op, l, n, want)
		}
		switch n := side.(type) {
		case *ast.NilNode: // a comparison with nil is false
			return d.schema.constant(!want)
		case *ast.BinaryNode:
			if n.Operator == "??" {
				return d.and(d.value(n.Left), with(n.Left)).Or(d.and(d.nothing(n.Left), with(n.Right)))
			}
		case *ast.ConditionalNode:
			return d.and(d.when(n.Cond, true), with(n.Exp1)).Or(d.and(d.when(n.Cond, false), with(n.Exp2)))
		}
	}
	return d.simple(at, op, l, r, want)
}

var mirrored = map[string]string{"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}

// simple decides a comparison of which one side is a constant.
func (d *decider) simple(at ast.Node, op string, l, r ast.Node, want bool) Region {
	if _, ok := constantOf(l); ok {
		l, r, op = r, l, mirrored[op]
	}
	c, ok := constantOf(r)
	if x, both := constantOf(l); both && ok {
		return d.schema.constant(compareConstants(op, x, c) == want)
	}
	present := d.schema.Everywhere()
	if want {
		present = d.and(d.value(l), d.value(r))
	}
	if !ok {
		// The sides stand in this place under their own words; `at` may be a larger expression.
		name := key(l) + " " + op + " " + key(r)
		t := Type{base: boolean}
		dom := domain{base: boolean, yes: want, no: !want, lo: math.Inf(-1), hi: math.Inf(1)}
		if key(l) == key(r) && (op == "<" || op == ">" || op == "!=" && d.typ(l).base != number) {
			return d.schema.constant(!want)
		}
		return d.and(present, d.schema.where(name, t, dom))
	}
	t := d.typ(l)
	if b, ok := c.(bool); ok {
		value := b == (op == "==")
		if _, isName := dotted(l); !isName {
			if t.Optional() {
				return d.and(present, d.opaque(at, want))
			}
			return d.when(l, value == want)
		}
		dom := anything(t)
		dom.mayNil = !want
		dom.yes, dom.no = value == want, value != want
		return d.and(present, d.schema.where(key(l), t, dom))
	}
	dom := anything(t)
	dom.mayNil, dom.mayNaN = dom.mayNil && !want, dom.mayNaN && !want
	effective := op
	if !want {
		effective = opposite[op]
	}
	if x, ok := c.(float64); ok {
		switch effective {
		case "==":
			dom.finite, dom.lo, dom.hi = []any{x}, x, x
		case "!=":
			dom.tests = []test{{id: "= " + FormatValue(x), ok: func(v any) bool { return v == any(x) }}}
		case "<", "<=":
			dom.hi, dom.hiOpen = x, effective == "<"
		default:
			dom.lo, dom.loOpen = x, effective == ">"
		}
		if op == "!=" { // NaN differs from every number
			dom.mayNaN = want && t.base == number
		}
	} else {
		word := c.(string)
		switch effective {
		case "==":
			dom.finite = []any{word}
		case "!=":
			dom.tests = []test{{id: "= " + word, ok: func(v any) bool { return v == any(word) }}}
		default:
			dom.tests = []test{{id: effective + " " + word, want: true, ok: func(v any) bool { return compareConstants(effective, v, word) }}}
		}
	}
	return d.and(present, d.schema.where(key(l), t, dom))
}

var opposite = map[string]string{"==": "!=", "!=": "==", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}

func compareConstants(op string, a, b any) bool {
	if op == "==" || op == "!=" {
		return (a == b) == (op == "==")
	}
	order := 0
	switch x := a.(type) {
	case string:
		y, _ := b.(string)
		order = strings.Compare(x, y)
	case float64:
		y, _ := b.(float64)
		switch {
		case x < y:
			order = -1
		case x > y:
			order = 1
		}
	}
	switch op {
	case "<":
		return order < 0
	case "<=":
		return order <= 0
	case ">":
		return order > 0
	}
	return order >= 0
}

// constantOf is the value of a node that is fixed: string, float64 or bool; times and durations are
// seconds.
func constantOf(n ast.Node) (any, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.IntegerNode:
		return float64(n.Value), true
	case *ast.FloatNode:
		return n.Value, true
	case *ast.BoolNode:
		return n.Value, true
	case *ast.UnaryNode:
		if x, ok := constantOf(n.Node); ok {
			if x, ok := x.(float64); ok && (n.Operator == "-" || n.Operator == "+") {
				if n.Operator == "-" {
					x = -x
				}
				return x, true
			}
		}
	}
	name, args := called(n)
	if name != "date" && name != "duration" || len(args) != 1 {
		return nil, false
	}
	s, ok := args[0].(*ast.StringNode)
	if !ok {
		return nil, false
	}
	switch v := functions[name].fn(s.Value).(type) {
	case time.Time:
		if v.Nanosecond() == 0 { // else a float64 cannot hold it
			return float64(v.Unix()), true
		}
	case time.Duration:
		return v.Seconds(), true
	}
	return nil, false
}

// test decides in, contains and the like; negated is `not in`, which is false for nil as well.
func (d *decider) test(n *ast.BinaryNode, negated, want bool) Region {
	if n.Operator != "in" {
		return d.textTest(n.Operator, n.Left, n.Right, n, negated, want)
	}
	t := d.typ(n.Left)
	dom := anything(t)
	dom.mayNil, dom.mayNaN = dom.mayNil && !want, dom.mayNaN && (negated == want || !want)
	within := negated != want
	if path, ok := dotted(n.Right); ok {
		set := d.schema.lists[path]
		if set == nil {
			return d.opaqueTest(n, negated, want)
		}
		dom.tests = []test{{id: "in " + path, want: within, ok: func(v any) bool { s, _ := v.(string); _, ok := set[s]; return ok }}}
		if within && len(set) > 0 && len(set) <= maxCandidates { // an empty list is one that is still to be filled
			dom.finite = []any{}
			for w := range set {
				dom.finite = append(dom.finite, w)
			}
		}
	} else {
		a, ok := n.Right.(*ast.ArrayNode)
		if !ok {
			return d.opaqueTest(n, negated, want)
		}
		values := []any{}
		for _, e := range a.Nodes {
			v, ok := constantOf(e)
			if _, isBool := v.(bool); !ok || isBool {
				return d.opaqueTest(n, negated, want)
			}
			values = append(values, v)
		}
		if within {
			dom.finite = values
		} else {
			dom.tests = []test{{id: "in " + a.String(), ok: func(v any) bool { return slices.Contains(values, v) }}}
		}
	}
	if _, ok := constantOf(n.Left); ok {
		return d.opaqueTest(n, negated, want)
	}
	if b, ok := n.Left.(*ast.BinaryNode); ok && b.Operator == "??" {
		return d.opaqueTest(n, negated, want)
	}
	r := d.schema.where(key(n.Left), t, dom)
	if want {
		r = d.and(r, d.value(n.Left))
	}
	return r
}

// opaqueTest takes a test as a name of its own: whether it holds without its `not`.
func (d *decider) opaqueTest(n ast.Node, negated, want bool) Region {
	holds := negated != want
	dom := domain{base: boolean, yes: holds, no: !holds, lo: math.Inf(-1), hi: math.Inf(1)}
	if !want { // it is also false where one of its sides is nil
		dom.yes, dom.no = true, true
	}
	return d.schema.where(n.String(), Type{base: boolean}, dom)
}

// textTest decides contains, startsWith, endsWith and matches.
func (d *decider) textTest(op string, l, r ast.Node, at ast.Node, negated, want bool) Region {
	word, ok := r.(*ast.StringNode)
	_, fixed := constantOf(l)
	if b, isOr := l.(*ast.BinaryNode); !ok || fixed || isOr && b.Operator == "??" {
		return d.opaqueTest(at, negated, want)
	}
	t := d.typ(l)
	dom := anything(t)
	dom.mayNil = dom.mayNil && !want
	one := test{id: op + " " + word.Value, want: negated != want}
	switch op {
	case "contains":
		one.ok = func(v any) bool { s, _ := v.(string); return strings.Contains(s, word.Value) }
	case "startsWith":
		one.ok = func(v any) bool { s, _ := v.(string); return strings.HasPrefix(s, word.Value) }
	case "endsWith":
		one.ok = func(v any) bool { s, _ := v.(string); return strings.HasSuffix(s, word.Value) }
	} // a pattern is compared with itself alone: compiling it here would cost more than it finds
	dom.tests = []test{one}
	r2 := d.schema.where(key(l), t, dom)
	if want {
		r2 = d.and(r2, d.value(l))
	}
	return r2
}
