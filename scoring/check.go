package scoring

import (
	"math"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"

	"github.com/expr-lang/expr/ast"
)

// checker finds the type of every node and builds the tree that is compiled. It never changes the
// tree it reads: the parser lets two comparisons of `1 < x < 5` share the node in the middle.
type checker struct {
	schema   *Schema
	source   string
	scoring  bool // score, band and previous_band are not there yet
	fault    *Fault
	visits   int
	loop     *Type // of `#`; nil outside of loops
	loops    int
	patterns int // instructions of the patterns so far
	used     []*variable
	lists    []string
}

// fail keeps the first fault. Its result fits everywhere, so nothing else is reported because of it.
func (c *checker) fail(at ast.Node, format string, args ...any) (ast.Node, Type) {
	return c.failAt(start(at), format, args...)
}

func (c *checker) failAt(offset int, format string, args ...any) (ast.Node, Type) {
	if c.fault == nil {
		c.fault = faultAt(c.source, offset, format, args...)
	}
	return &ast.NilNode{}, Type{}
}

// result checks the whole expression and makes it yield what kind asks for.
func (c *checker) result(n ast.Node, kind Kind) (ast.Node, Type) {
	if kind == Boolean {
		return c.condition(n)
	}
	out, t := c.check(n)
	switch {
	case t.base == unknown:
	case kind == Number && t.base != number:
		return c.fail(n, "points are a number; this is %s", t)
	case kind == Text && t.base != text:
		return c.fail(n, "a text is needed here; this is %s", t)
	case kind == Value && (t.base == list || t.base == span):
		return c.fail(n, "this is %s; a text, a number, or true or false is needed", t)
	}
	return out, t
}

// condition checks a node where true or false is expected. Nil becomes false.
func (c *checker) condition(n ast.Node) (ast.Node, Type) {
	out, t := c.check(n)
	switch {
	case t.base == unknown:
		return out, t
	case t.base != boolean:
		return c.fail(n, "a condition is true or false, but this is %s%s", t, c.compareHint(n, t))
	case t.optional:
		yes := placed(&ast.BoolNode{Value: true}, n, Type{base: boolean})
		out = placed(&ast.BinaryNode{Operator: "==", Left: out, Right: yes}, n, Type{base: boolean})
	}
	return out, Type{base: boolean}
}

// compareHint shows how a value becomes a condition.
func (c *checker) compareHint(n ast.Node, t Type) string {
	name, ok := dotted(n)
	if !ok {
		if _, ok := n.(*ast.StringNode); ok {
			return "; a condition compares something, as in form == \"…\""
		}
		return ""
	}
	switch t.base {
	case text:
		return "; compare it, as in " + name + ` == "…", or ask whether it is there: ` + name + " != nil"
	case number:
		return "; compare it, as in " + name + " >= 100"
	case moment:
		return "; compare it, as in days_since(" + name + ") > 7"
	case list:
		return "; ask for an element, as in fields.country in " + name
	}
	return ""
}

// check is the heart: the type of a node and what it is rewritten to.
func (c *checker) check(n ast.Node) (ast.Node, Type) {
	if c.fault != nil {
		return n, Type{}
	}
	if c.visits++; c.visits > MaxNodes {
		return c.fail(n, "%s", tooManyNodes)
	}
	switch n := n.(type) {
	case *ast.NilNode:
		return placed(&ast.NilNode{}, n, Type{base: number}), Type{base: absent, optional: true}
	case *ast.IntegerNode:
		return c.number(n, float64(n.Value))
	case *ast.FloatNode:
		return c.number(n, n.Value)
	case *ast.BoolNode:
		return placed(&ast.BoolNode{Value: n.Value}, n, Type{base: boolean}), Type{base: boolean}
	case *ast.StringNode:
		return placed(&ast.StringNode{Value: n.Value}, n, Type{base: text}), Type{base: text}
	case *ast.IdentifierNode, *ast.MemberNode, *ast.ChainNode:
		return c.path(n)
	case *ast.PointerNode:
		if n.Name != "" {
			return c.fail(n, "#%s is not available; # is the element", n.Name)
		}
		return placed(&ast.PointerNode{}, n, *c.loop), *c.loop
	case *ast.UnaryNode:
		return c.unary(n)
	case *ast.BinaryNode:
		return c.binary(n)
	case *ast.ConditionalNode:
		cond, _ := c.condition(n.Cond)
		a, at := c.check(n.Exp1)
		b, bt := c.check(n.Exp2)
		t := join(at, bt)
		return placed(&ast.ConditionalNode{Cond: cond, Exp1: a, Exp2: b}, n.Cond, t), t
	case *ast.ArrayNode:
		return c.array(n)
	case *ast.BuiltinNode:
		return c.function(n, n.Name, n.Arguments)
	case *ast.CallNode:
		if name, ok := n.Callee.(*ast.IdentifierNode); ok {
			return c.function(n, name.Value, n.Arguments)
		}
		return c.fail(n, "there is nothing to call here; functions are written name(value): %s", strings.Join(functionNames, ", "))
	case *ast.SliceNode:
		return c.fail(n, "parts of a text or list ([1:3]) are not available; use startsWith, endsWith, contains or matches")
	case *ast.MapNode:
		return c.fail(n, "{…} makes no value here; write a list as [\"a\", \"b\"]")
	case *ast.BytesNode:
		return c.fail(n, `write the text without the b before its quotes`)
	}
	return c.fail(n, "this is not available in expressions")
}

func (c *checker) number(n ast.Node, x float64) (ast.Node, Type) {
	return placed(&ast.FloatNode{Value: x}, n, Type{base: number}), Type{base: number}
}

// array checks a list that is written out. Its elements have one type.
func (c *checker) array(n *ast.ArrayNode) (ast.Node, Type) {
	t := Type{base: list, element: text}
	out := &ast.ArrayNode{}
	for i, e := range n.Nodes {
		e2, et := c.check(e)
		if i == 0 {
			t.element = et.base
		}
		switch {
		case et.base == unknown:
		case et.base != text && et.base != number && et.base != boolean:
			return c.fail(e, "a list holds texts, numbers, or true and false; this is %s", et)
		case et.base != t.element:
			return c.fail(e, "a list holds values of one type: it begins with %s, this is %s", Type{base: t.element}, et)
		}
		out.Nodes = append(out.Nodes, e2)
	}
	return placed(out, n, t), t
}

// unary checks not, ! and signs.
func (c *checker) unary(n *ast.UnaryNode) (ast.Node, Type) {
	b := Type{base: boolean}
	switch n.Operator {
	case "not", "!":
		// `a not in b` is parsed as not (a in b), with both nodes at the place of `in`. It is one
		// comparison, and false for nil like any other.
		if test, ok := n.Node.(*ast.BinaryNode); ok && test.Location() == n.Location() {
			return c.test(test, true)
		}
		out, _ := c.condition(n.Node)
		return placed(&ast.UnaryNode{Operator: "not", Node: out}, n, b), b
	}
	out, t := c.check(n.Node)
	if t.base != number && t.base != unknown {
		return c.fail(n, "%s stands before a number; this is %s", n.Operator, t)
	}
	out, t = c.need(n.Node, out, t), Type{base: number}
	if n.Operator == "+" {
		return out, t
	}
	if f, ok := out.(*ast.FloatNode); ok {
		return c.number(n, -f.Value)
	}
	return placed(&ast.UnaryNode{Operator: "-", Node: out}, n, t), t
}

func (c *checker) binary(n *ast.BinaryNode) (ast.Node, Type) {
	b := Type{base: boolean}
	switch n.Operator {
	case "and", "&&", "or", "||":
		l, _ := c.condition(n.Left)
		r, _ := c.condition(n.Right)
		return placed(&ast.BinaryNode{Operator: n.Operator, Left: l, Right: r}, n, b), b
	case "??":
		l, lt := c.check(n.Left)
		r, rt := c.check(n.Right)
		t := join(lt, rt)
		if lt.base != absent { // nil on the left side is what ?? takes away
			t.optional = rt.Optional()
		}
		return placed(&ast.BinaryNode{Operator: "??", Left: l, Right: r}, n, t), t
	case "==", "!=":
		return c.equal(n)
	case "<", "<=", ">", ">=":
		return c.ordered(n)
	case "in", "contains", "startsWith", "endsWith", "matches":
		return c.test(n, false)
	case "+", "-", "*", "/", "%":
		return c.arithmetic(n)
	}
	return c.failAt(n.Location().From, "the operator %s is not available", n.Operator)
}

func (c *checker) equal(n *ast.BinaryNode) (ast.Node, Type) {
	b := Type{base: boolean}
	l, lt := c.check(n.Left)
	r, rt := c.check(n.Right)
	switch {
	case lt.base == unknown || rt.base == unknown, lt.base == absent, rt.base == absent, lt.base == mixed, rt.base == mixed:
	case lt.base == list || rt.base == list:
		return c.failAt(n.Location().From, "a list cannot be compared; ask for an element with in")
	case lt.base != rt.base:
		return c.failAt(n.Location().From, "%s cannot be equal to %s%s", lt, rt, unquote(n, lt, rt))
	default:
		c.oneOf(n.Left, n.Right)
		c.oneOf(n.Right, n.Left)
	}
	switch {
	case lt.base == absent || rt.base == absent:
	case n.Operator == "==" && lt.optional && rt.optional:
		return call(n, b, same, l, r), b
	case n.Operator == "!=" && (lt.optional || rt.optional):
		return call(n, b, differ, l, r), b
	}
	return placed(&ast.BinaryNode{Operator: n.Operator, Left: l, Right: r}, n, b), b
}

// oneOf faults a comparison with a text that the name can never hold, such as a band that does not
// exist: it would be false for ever without anybody noticing.
func (c *checker) oneOf(name, value ast.Node) {
	path, ok := dotted(name)
	if !ok {
		return
	}
	v := c.schema.names[path]
	word, isText := value.(*ast.StringNode)
	if v == nil || v.oneOf == nil || !isText || slices.Contains(v.oneOf, word.Value) {
		return
	}
	what := "band"
	if path == "form" {
		what = "form"
	}
	c.fail(value, "there is no %s %q%s", what, word.Value, didYouMean(word.Value, v.oneOf))
	c.fault.Undeclared = true
}

// unquote helps where a number or a boolean was written in quotes.
func unquote(n *ast.BinaryNode, lt, rt Type) string {
	for _, side := range []struct {
		node  ast.Node
		other Type
	}{{n.Left, rt}, {n.Right, lt}} {
		s, ok := side.node.(*ast.StringNode)
		if !ok {
			continue
		}
		_, err := strconv.ParseFloat(s.Value, 64)
		if side.other.base == number && err == nil || side.other.base == boolean && (s.Value == "true" || s.Value == "false") {
			return "; write " + s.Value + " without quotes"
		}
	}
	return ""
}

func (c *checker) ordered(n *ast.BinaryNode) (ast.Node, Type) {
	b := Type{base: boolean}
	l, lt := c.check(n.Left)
	r, rt := c.check(n.Right)
	at := n.Location().From
	for _, t := range []Type{lt, rt} {
		switch t.base {
		case unknown, number, text, moment, span:
		case absent:
			return c.failAt(at, "nil is neither less nor more; ask whether something is there with == nil or != nil")
		default:
			return c.failAt(at, "%s is neither less nor more than another", t)
		}
	}
	switch {
	case lt.base == unknown || rt.base == unknown:
		return n, Type{}
	case lt.base != rt.base:
		return c.failAt(at, "%s cannot be compared with %s%s%s", lt, rt, unquote(n, lt, rt), daysHint(lt, rt))
	case lt.base == number:
		// NaN is neither less nor more than anything, as nil shall be.
		l, r = orNaN(l, lt), orNaN(r, rt)
	case lt.optional || rt.optional:
		return call(n, b, orderedFunc(n.Operator), l, r), b
	}
	return placed(&ast.BinaryNode{Operator: n.Operator, Left: l, Right: r}, n, b), b
}

func daysHint(l, r Type) string {
	if l.base == moment || r.base == moment {
		return "; write days_since(…) to compare a time with a number of days"
	}
	if l.base == span || r.base == span {
		return `; write a duration as duration("48h")`
	}
	return ""
}

func orNaN(n ast.Node, t Type) ast.Node {
	if !t.optional {
		return n
	}
	num := Type{base: number}
	return placed(&ast.BinaryNode{Operator: "??", Left: n, Right: placed(&ast.FloatNode{Value: math.NaN()}, n, num)}, n, num)
}

// test checks the operators that can be written with not before them.
func (c *checker) test(n *ast.BinaryNode, negated bool) (ast.Node, Type) {
	b := Type{base: boolean}
	at := n.Location().From
	if n.Operator == "in" {
		return c.in(n, negated)
	}
	l, lt := c.check(n.Left)
	r, rt := c.check(n.Right)
	for _, t := range []Type{lt, rt} {
		if t.base != text && t.base != unknown {
			hint := ""
			if t.base == list {
				hint = "; to look for an element write: value in list"
			}
			return c.failAt(at, "%s works on texts; this is %s%s", n.Operator, t, hint)
		}
	}
	if c.fault != nil {
		return n, Type{}
	}
	if n.Operator == "matches" {
		re, ok := c.pattern(n.Right)
		if !ok {
			return n, Type{}
		}
		if negated && lt.optional {
			return call(n, b, notMatches(re), l), b
		}
	} else if negated && (lt.optional || rt.optional) {
		return call(n, b, notFound(n.Operator), l, r), b
	}
	out := ast.Node(placed(&ast.BinaryNode{Operator: n.Operator, Left: l, Right: r}, n, b))
	if negated {
		out = placed(&ast.UnaryNode{Operator: "not", Node: out}, n, b)
	}
	return out, b
}

// pattern checks a regular expression: constant, valid, and of bounded size.
func (c *checker) pattern(n ast.Node) (string, bool) {
	s, ok := n.(*ast.StringNode)
	if !ok {
		c.fail(n, `a pattern must be a fixed text in quotes, as in matches(fields.title, "(?i)head|chief")`)
		return "", false
	}
	if c.loop != nil {
		c.fail(n, "matches cannot stand inside any, all, none, one, count, filter or map; put the alternatives into one pattern: a|b|c")
		return "", false
	}
	re, err := syntax.Parse(s.Value, syntax.Perl)
	if err != nil {
		message := err.Error()
		if e, ok := err.(*syntax.Error); ok {
			message = e.Code.String() + ": " + e.Expr
		}
		c.fail(n, "this pattern is not valid: %s", message)
		return "", false
	}
	size := patternSize(re)
	if c.patterns += size; size > maxPattern || c.patterns > maxPatterns {
		c.fail(n, "this pattern is too large; shorten it or its repetitions")
		return "", false
	}
	return s.Value, true
}

func (c *checker) in(n *ast.BinaryNode, negated bool) (ast.Node, Type) {
	b := Type{base: boolean}
	at := n.Location().From
	l, lt := c.check(n.Left)
	r, rt := c.check(n.Right)
	switch {
	case lt.base == unknown || rt.base == unknown:
		return n, Type{}
	case rt.base == text:
		return c.failAt(at, "in looks into a list; to look into a text write: text contains value")
	case rt.base != list:
		return c.failAt(at, `in looks into a list, as in fields.country in ["DE", "AT"]; this is %s`, rt)
	case lt.base == absent || lt.base != rt.element && rt.element != mixed && lt.base != mixed:
		return c.failAt(at, "%s cannot be in a list whose elements are %s", lt, Type{base: rt.element})
	}
	if name, ok := dotted(n.Right); ok && c.schema.lists[name] != nil {
		return call(n, b, inSet(c.schema.lists[name], negated), l), b
	}
	if a, ok := n.Right.(*ast.ArrayNode); ok {
		if path, isName := dotted(n.Left); isName && (path == "form" || path == "band" || path == "previous_band") {
			for _, e := range a.Nodes {
				c.oneOf(n.Left, e)
			}
		}
		if set := constantTexts(a); set != nil {
			return call(n, b, inSet(set, negated), l), b
		}
	}
	return call(n, b, inList(negated), l, r), b
}

// constantTexts is the set of a list that is written out in texts, nil for any other.
func constantTexts(a *ast.ArrayNode) map[string]struct{} {
	set := make(map[string]struct{}, len(a.Nodes))
	for _, e := range a.Nodes {
		s, ok := e.(*ast.StringNode)
		if !ok {
			return nil
		}
		set[s.Value] = struct{}{}
	}
	return set
}

func (c *checker) arithmetic(n *ast.BinaryNode) (ast.Node, Type) {
	l, lt := c.check(n.Left)
	r, rt := c.check(n.Right)
	if c.fault != nil {
		return n, Type{}
	}
	var t Type
	switch op := n.Operator; {
	case lt.base == number && rt.base == number:
		t.base = number
	case op == "+" && lt.base == text && rt.base == text:
		t.base = text
	case op == "-" && lt.base == moment && rt.base == moment:
		t.base = span
	case op == "-" && lt.base == moment && rt.base == span, op == "+" && lt.base == moment && rt.base == span:
		t.base = moment
	case (op == "+" || op == "-") && lt.base == span && rt.base == span:
		t.base = span
	default:
		hint := ""
		if op == "+" && (lt.base == text && rt.base == number || lt.base == number && rt.base == text) {
			hint = "; to join texts write string(…) around the number"
		}
		return c.failAt(n.Location().From, "%s cannot be applied to %s and %s%s", op, lt, rt, hint)
	}
	l, r = c.need(n.Left, l, lt), c.need(n.Right, r, rt)
	switch {
	case t.base == text:
		return call(n, t, joinTexts, l, r), t
	case n.Operator == "%":
		return call(n, t, remainder, l, r), t
	}
	return placed(&ast.BinaryNode{Operator: n.Operator, Left: l, Right: r}, n, t), t
}

// need guards an operand that can be nil where nil is a fault.
func (c *checker) need(at, n ast.Node, t Type) ast.Node {
	if !t.Optional() {
		return n
	}
	name, ok := dotted(at)
	if !ok {
		name = ""
	}
	t.optional = false
	return call(at, t, needed(name, t.base), n)
}
