package scoring

import (
	"fmt"
	"math"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/parser"
)

// Analysis is what can be proved of one program without facts. It is not safe for concurrent use.
type Analysis struct {
	root    ast.Node
	decider *decider
}

// Analyse reads a program's source once more, to decide things about it.
func (p *Program) Analyse() *Analysis {
	a := &Analysis{root: &ast.NilNode{}, decider: p.schema.decider()}
	guarded, fault := guard(p.source)
	if fault != nil {
		return a
	}
	if tree, err := parser.ParseWithConfig(guarded, p.schema.config()); err == nil {
		a.root = tree.Node
	}
	return a
}

// Steps is how much work deciding has taken so far, in intersections of alternatives.
func (a *Analysis) Steps() int { return maxSteps - a.decider.left }

// GiveUp makes what is not decided yet undecided: regions become everything from here on.
func (a *Analysis) GiveUp() { a.decider.left = 0 }

// True holds the facts on which the condition is true.
func (a *Analysis) True() Region { return a.decider.when(a.root, true) }

// False holds the facts on which the condition is false or nil.
func (a *Analysis) False() Region { return a.decider.when(a.root, false) }

// Nil holds the facts on which the value is nil.
func (a *Analysis) Nil() Region { return a.decider.nothing(a.root) }

// Literal returns true, nil or a fixed value that the whole expression is; ok is false when it is
// anything else.
func (a *Analysis) Literal() (v any, ok bool) { return constantOf(a.root) }

// Total reports whether the expression certainly gives an answer, whatever the facts: false where
// arithmetic could meet nil, or a text be no number.
func (a *Analysis) Total() bool {
	total := true
	visit(a.root, func(n ast.Node) {
		switch n := n.(type) {
		case *ast.BinaryNode:
			switch n.Operator {
			case "+", "-", "*", "/", "%":
				total = false
			}
		case *ast.UnaryNode:
			if _, fixed := constantOf(n); (n.Operator == "-" || n.Operator == "+") && !fixed {
				total = false
			}
		}
		if name, _ := called(n); functions[name].strict || name == "int" || name == "float" {
			total = false
		}
	})
	return total
}

// NumberRange is between which numbers the result lies, as far as it is made of fixed numbers:
// `a ? 40 : 25`. ok is false when it is not.
func (a *Analysis) NumberRange() (lowest, highest float64, ok bool) { return numberRange(a.root) }

func numberRange(n ast.Node) (lowest, highest float64, ok bool) {
	if c, ok := n.(*ast.ConditionalNode); ok {
		lo1, hi1, ok1 := numberRange(c.Exp1)
		lo2, hi2, ok2 := numberRange(c.Exp2)
		return min(lo1, lo2), max(hi1, hi2), ok1 && ok2
	}
	v, _ := constantOf(n)
	x, ok := v.(float64)
	return x, x, ok
}

// Unbounded finds arithmetic that gives no finite number whatever the facts: a division by zero, a result that is
// larger than any number.
func (a *Analysis) Unbounded() (found []Finding) {
	visit(a.root, func(n ast.Node) {
		b, ok := n.(*ast.BinaryNode)
		if !ok {
			return
		}
		l, fixed := fold(b.Left)
		r, divisor := fold(b.Right)
		switch x, both := fold(b); {
		case divisor && r == 0 && (b.Operator == "/" || b.Operator == "%"):
			found = append(found, Finding{Offset: start(n), Message: quote(n) + " divides by zero, which gives no number; divide by something else"})
		case both && (math.IsInf(x, 0) || math.IsNaN(x)) && fixed && isFinite(l) && isFinite(r):
			found = append(found, Finding{Offset: start(n), Message: quote(n) + " is larger than any number can be; write smaller numbers"})
		}
	})
	return found
}

func isFinite(x float64) bool { return !math.IsInf(x, 0) && !math.IsNaN(x) }

// fold is the value of arithmetic with fixed numbers; ok is false where anything else is in it.
func fold(n ast.Node) (x float64, ok bool) {
	switch n := n.(type) {
	case *ast.BinaryNode:
		l, ok1 := fold(n.Left)
		r, ok2 := fold(n.Right)
		if !ok1 || !ok2 {
			return 0, false
		}
		switch n.Operator {
		case "+":
			return l + r, true
		case "-":
			return l - r, true
		case "*":
			return l * r, true
		case "/":
			return l / r, true
		case "%":
			return math.Mod(l, r), true
		}
		return 0, false
	case *ast.UnaryNode:
		x, ok := fold(n.Node)
		if n.Operator == "-" {
			x = -x
		}
		return x, ok && (n.Operator == "-" || n.Operator == "+")
	case *ast.IntegerNode:
		return float64(n.Value), true
	case *ast.FloatNode:
		return n.Value, true
	}
	return 0, false
}

// visit goes over a node and everything in it.
func visit(n ast.Node, f func(ast.Node)) {
	v := visitor(func(n *ast.Node) { f(*n) })
	ast.Walk(&n, v)
}

type visitor func(*ast.Node)

func (v visitor) Visit(n *ast.Node) { v(n) }

// Given is something that is known to hold where an expression is evaluated.
type Given struct {
	Region Region
	Words  string // as it follows "because": `the sequence's when is form == "webinar"`
}

// Finding is a part of an expression that can never matter.
type Finding struct {
	Offset  int    // characters before it
	Whole   bool   // the whole condition can never be true
	Message string // what it is and what to write instead
}

// Dead finds the parts of an expression that can never be true, given what holds around it: a
// comparison that contradicts one before it, a case that an earlier one has taken already. The
// largest such part is reported, not those in it.
func (a *Analysis) Dead(given ...Given) []Finding {
	w := &walker{decider: a.decider, root: a.root}
	region := a.decider.schema.Everywhere()
	for _, g := range given {
		region = a.decider.and(region, g.Region)
		w.known = append(w.known, known{region: g.Region, words: g.Words, how: outside})
	}
	if region.Empty() {
		return nil // whatever holds around it never does, which is reported there
	}
	w.walk(a.root, region)
	if len(w.found) == 0 && a.decider.typ(a.root).base == boolean && a.decider.and(region, a.True()).Empty() {
		w.never(a.root, false)
	}
	return w.found
}

// how something came to be known.
type how int

const (
	conjoined how = iota // stands before it, joined with and
	refused              // was not true, or this would not be asked
	outside              // from around the expression
)

type known struct {
	region Region
	words  string
	how    how
}

type walker struct {
	decider *decider
	root    ast.Node
	known   []known
	found   []Finding
}

// with walks a node with one thing more that is known.
func (w *walker) with(n ast.Node, region Region, k known) {
	w.known = append(w.known, k)
	w.walk(n, region)
	w.known = w.known[:len(w.known)-1]
}

// walk looks at a node that is evaluated on facts of a region only.
func (w *walker) walk(n ast.Node, region Region) {
	d := w.decider
	if region.Empty() || d.left <= 0 {
		return
	}
	switch n := n.(type) {
	case *ast.BinaryNode:
		switch n.Operator {
		case "and", "&&":
			before := len(w.known)
			for _, part := range chain(n, n.Operator) {
				yes := d.when(part, true)
				here := d.and(region, yes)
				if here.Empty() {
					w.never(part, len(w.known) > before)
					break
				}
				w.walk(part, region)
				region = here
				w.known = append(w.known, known{yes, quote(part), conjoined})
			}
			w.known = w.known[:before]
			return
		case "or", "||":
			for _, part := range chain(n, n.Operator) {
				b, isAnd := part.(*ast.BinaryNode)
				if isAnd = isAnd && (b.Operator == "and" || b.Operator == "&&"); !isAnd && d.and(region, d.when(part, true)).Empty() {
					w.never(part, false)
					continue
				}
				w.walk(part, region)
			}
			w.everything(n, region)
			return
		case "??":
			w.walk(n.Left, region)
			w.walk(n.Right, d.and(region, d.nothing(n.Left)))
			return
		case "==", "!=", "<", "<=", ">", ">=", "in", "contains", "startsWith", "endsWith", "matches":
			if d.and(region, d.when(n, true)).Empty() {
				w.never(n, false)
			}
			return
		}
		w.walk(n.Left, region)
		w.walk(n.Right, region)
	case *ast.UnaryNode:
		if b, ok := n.Node.(*ast.BinaryNode); ok && b.Location() == n.Location() {
			if d.and(region, d.when(n, true)).Empty() {
				w.never(n, false)
			}
			return
		}
		w.walk(n.Node, region)
	case *ast.ConditionalNode:
		yes, no := d.when(n.Cond, true), d.when(n.Cond, false)
		w.walk(n.Cond, region)
		w.with(n.Exp1, d.and(region, yes), known{yes, quote(n.Cond), conjoined})
		w.with(n.Exp2, d.and(region, no), known{no, quote(n.Cond), refused})
	case *ast.IdentifierNode, *ast.MemberNode, *ast.ChainNode:
		if d.typ(n).base == boolean && d.and(region, d.when(n, true)).Empty() {
			w.never(n, false)
		}
	case *ast.CallNode:
		for _, a := range n.Arguments {
			w.walk(a, region)
		}
	case *ast.BuiltinNode:
		if _, loop := loops[n.Name]; !loop {
			for _, a := range n.Arguments {
				w.walk(a, region)
			}
		}
	}
}

// chain takes a chain of one operator apart: a and b and c.
func chain(n ast.Node, operator string) []ast.Node {
	b, ok := n.(*ast.BinaryNode)
	if !ok || b.Operator != operator {
		return []ast.Node{n}
	}
	return append(chain(b.Left, operator), chain(b.Right, operator)...)
}

// quote is how a part is quoted in a message.
func quote(n ast.Node) string {
	s := []rune(strings.ReplaceAll(n.String(), matchesFunction+"(", "matches("))
	if len(s) > 80 {
		return string(s[:77]) + "…"
	}
	return string(s)
}

// never reports a part that can never be true.
func (w *walker) never(n ast.Node, inChain bool) {
	if b, ok := n.(*ast.BoolNode); ok && !b.Value && n == w.root {
		return // said outright; the caller has words for it
	}
	f := Finding{Offset: start(n), Message: w.why(n)}
	f.Whole = n == w.root || inChain && w.decider.when(w.root, true).Empty()
	w.found = append(w.found, f)
}

// why says why a part is never true and what would help.
func (w *walker) why(n ast.Node) string {
	d := w.decider
	part := quote(n)
	yes := d.when(n, true)
	if yes.Empty() {
		return part + " can never be true" + w.alone(n)
	}
	for i := len(w.known) - 1; i >= 0; i-- {
		k := w.known[i]
		if !d.and(k.region, yes).Empty() {
			continue
		}
		if says := w.becauseOfForm(n, k); says != "" {
			return part + " can never be true here: " + says
		}
		switch k.how {
		case refused:
			return fmt.Sprintf("%s is never reached: all of it is taken by %s before it; put the narrower condition first", part, k.words)
		case outside:
			return fmt.Sprintf("%s can never be true here, because %s", part, k.words)
		}
		return fmt.Sprintf("%s can never be true together with %s; remove one of them, or put \"or\" between them where either is enough", part, k.words)
	}
	return part + " can never be true together with what stands before it; remove it, or put \"or\" before it instead of \"and\" where either is enough"
}

// becauseOfForm explains a contradiction that there is only because a form has not the field that is
// asked for, or always has it. It is empty when that is not why.
func (w *walker) becauseOfForm(n ast.Node, k known) (says string) {
	s := w.decider.schema
	if len(s.formFields) == 0 || len(k.region.alts) != 1 {
		return ""
	}
	f, ok := k.region.alts[0]["form"]
	if !ok || len(f.finite) != 1 {
		return ""
	}
	form, _ := f.finite[0].(string)
	visit(n, func(n ast.Node) {
		name, ok := dotted(n)
		field, isField := strings.CutPrefix(name, "fields.")
		if !ok || !isField || says != "" {
			return
		}
		switch required, declared := s.formFields[form][field]; {
		case !declared:
			says = fmt.Sprintf("the form %s has no field %s, so %s is nil; add the field to the form, or ask for another form", form, field, name)
		case required && !w.decider.and(k.region, w.decider.value(n)).Empty() && w.decider.and(k.region, w.decider.nothing(n)).Empty():
			says = fmt.Sprintf("the form %s requires the field %s, so %s is always there; remove the comparison", form, field, name)
		}
	})
	return says
}

// alone says why a comparison is never true by itself.
func (w *walker) alone(n ast.Node) string {
	b, ok := n.(*ast.BinaryNode)
	if !ok {
		return ""
	}
	if b.Operator == "and" || b.Operator == "&&" {
		return ""
	}
	if _, isNil := b.Right.(*ast.NilNode); isNil && b.Operator == "==" && !w.decider.typ(b.Left).Optional() {
		return ": " + quote(b.Left) + " is always there; remove the comparison"
	}
	for _, side := range []ast.Node{b.Left, b.Right} {
		name, _ := called(side)
		if path, _ := dotted(side); path == "lead.email" || path == "lead.domain" {
			return ": " + path + " is always in small letters; write the text in small letters too"
		}
		switch name {
		case "lower":
			return ": lower(…) gives small letters; write the text in small letters too"
		case "upper":
			return ": upper(…) gives capital letters; write the text in capital letters too"
		case "trim":
			return ": trim(…) takes the blanks away; write the text without blanks around it"
		}
	}
	if w.decider.typ(b.Left).base == number {
		return "; " + quote(b.Left) + " never has such a value"
	}
	return ""
}

// everything reports alternatives that are together true of every value, as in a != 1 or a != 2.
func (w *walker) everything(n *ast.BinaryNode, region Region) {
	d := w.decider
	var names []string
	asksPresence := false
	present := region
	visit(n, func(n ast.Node) {
		switch n := n.(type) {
		case *ast.NilNode:
			asksPresence = true
		case *ast.BinaryNode:
			asksPresence = asksPresence || n.Operator == "??"
		case *ast.BoolNode:
			asksPresence = true
		case *ast.IdentifierNode, *ast.MemberNode, *ast.ChainNode:
			if name, ok := dotted(n); ok && d.schema.names[name] != nil {
				names = append(names, name)
				present = d.and(present, d.value(n))
			}
		}
	})
	if asksPresence || len(names) == 0 || present.Empty() || !d.and(present, d.when(n, false)).Empty() {
		return
	}
	message := quote(n) + " is true for every value of " + names[0]
	switch {
	case strings.Contains(message, "!=") || strings.Contains(message, "not "):
		message += `; put "and" instead of "or" where none of these values is meant`
	case !d.schema.names[names[0]].typ.optional:
		message += "; write true if that is meant, else mend the comparison"
	default:
		message += "; write " + names[0] + " != nil if that is meant, else mend the comparison"
	}
	w.found = append(w.found, Finding{Offset: start(n), Message: message})
}
