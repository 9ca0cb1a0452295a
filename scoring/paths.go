package scoring

import (
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
)

// path resolves a dotted name.
func (c *checker) path(n ast.Node) (ast.Node, Type) {
	name, ok := dotted(n)
	if !ok {
		return c.brokenPath(n)
	}
	s := c.schema
	v := s.names[name]
	switch {
	case v == nil:
		return c.unknownName(n, name)
	case v.scored && c.scoring:
		return c.fail(n, "%s is not known here: it is computed from the scoring rules' points; use it in the when of sequences and steps", name)
	case v.typ.base == list:
		c.lists = append(c.lists, name)
		return placed(&ast.ConstantNode{Value: v.list}, n, v.typ), v.typ
	}
	if !slices.Contains(c.used, v) {
		c.used = append(c.used, v)
	}
	return placed(&ast.IdentifierNode{Value: name}, n, v.typ), v.typ
}

func (c *checker) unknownName(n ast.Node, name string) (ast.Node, Type) {
	defer func() { c.fault.Undeclared = true }() // there is a fault whichever way this returns
	s := c.schema
	if parts, ok := s.spaces[name]; ok {
		if len(parts) == 0 {
			return c.fail(n, "%s has no parts: none is declared", name)
		}
		return c.fail(n, "%s is not a value by itself; name one of its parts, as in %s.%s", name, name, parts[0])
	}
	space, last := "", name
	if dot := strings.LastIndexByte(name, '.'); dot >= 0 {
		space, last = name[:dot], name[dot+1:]
	}
	at := end(n)
	parts, known := s.spaces[space]
	switch {
	case space == "":
		switch strings.ToLower(last) {
		case "null", "none", "undefined", "empty", "nil":
			return c.fail(n, "unknown name %s; write nil for what is absent", last)
		case "yes", "on":
			return c.fail(n, "unknown name %s; did you mean true?", last)
		case "no", "off":
			return c.fail(n, "unknown name %s; did you mean false?", last)
		}
		if slices.Contains(s.fields, last) {
			return c.fail(n, "unknown name %s; did you mean fields.%s?", last, last)
		}
		if p, ok := strings.CutSuffix(last, "s"); ok && p == "list" {
			return c.fail(n, "unknown name %s; did you mean lists?", last)
		}
		names := s.roots()
		if c.scoring { // what would be refused here is no suggestion
			names = slices.DeleteFunc(names, func(name string) bool { return s.names[name] != nil && s.names[name].scored })
		}
		if Closest(last, names) == "" {
			if f := Closest(last, s.fields); f != "" {
				return c.fail(n, "unknown name %s; did you mean fields.%s?", last, f)
			}
			return c.fail(n, `unknown name %s; names are %s, and a text stands in quotes: "%s"`, last, strings.Join(names, ", "), last)
		}
		return c.fail(n, "unknown name %s%s", last, didYouMean(last, names))
	case !known:
		if v := s.names[space]; v != nil {
			return c.failAt(at, "%s is %s and has no part %s", space, v.typ, last)
		}
		return c.unknownName(parent(n), space)
	case space == "fields" || space == "lead.profile":
		if len(parts) == 0 {
			return c.failAt(at, "unknown field %s; no form declares any field", last)
		}
		return c.failAt(at, "unknown field %s%s", last, didYouMean(last, parts))
	case space == "lists":
		if len(parts) == 0 {
			return c.failAt(at, "unknown list %s; declare it under lists", last)
		}
		return c.failAt(at, "unknown list %s%s", last, didYouMean(last, parts))
	case space == "signals" || space == "signals_at":
		return c.failAt(at, "unknown signal %s%s", last, didYouMean(last, parts))
	}
	return c.failAt(at, "%s has no part %s%s", space, last, didYouMean(last, parts))
}

// brokenPath says why a member access names nothing.
func (c *checker) brokenPath(n ast.Node) (ast.Node, Type) {
	for {
		switch m := n.(type) {
		case *ast.ChainNode:
			n = m.Node
			continue
		case *ast.MemberNode:
			if _, ok := m.Property.(*ast.StringNode); !ok {
				return c.failAt(m.Location().From, "a name in [ ] must be a fixed text; write the part's name after a dot, as in fields.country")
			}
			switch m.Node.(type) {
			case *ast.MemberNode, *ast.ChainNode:
				n = m.Node
				continue
			}
			return c.failAt(m.Location().From, "this value has no parts")
		}
		return c.fail(n, "this value has no parts")
	}
}

// dotted joins a chain of names: fields.country, fields?.country and fields["country"] are one.
func dotted(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.IdentifierNode:
		return n.Value, true
	case *ast.ChainNode:
		return dotted(n.Node)
	case *ast.MemberNode:
		part, ok := n.Property.(*ast.StringNode)
		if !ok || n.Method || strings.Contains(part.Value, ".") {
			return "", false
		}
		space, ok := dotted(n.Node)
		return space + "." + part.Value, ok
	}
	return "", false
}

// parent is the node before the last dot.
func parent(n ast.Node) ast.Node {
	switch n := n.(type) {
	case *ast.ChainNode:
		return parent(n.Node)
	case *ast.MemberNode:
		return n.Node
	}
	return n
}

// end is where the last part of a dotted name stands.
func end(n ast.Node) int {
	if m, ok := n.(*ast.ChainNode); ok {
		return end(m.Node)
	}
	if m, ok := n.(*ast.MemberNode); ok {
		if p := m.Property.Location(); p.To > 0 {
			return p.From
		}
	}
	return n.Location().From
}

// start is where a node's source begins: operators are placed at their sign, after their left side.
func start(n ast.Node) int {
	switch n := n.(type) {
	case *ast.BinaryNode:
		return start(n.Left)
	case *ast.ConditionalNode:
		return start(n.Cond)
	case *ast.MemberNode:
		return start(n.Node)
	case *ast.ChainNode:
		return start(n.Node)
	case *ast.UnaryNode:
		if test, ok := n.Node.(*ast.BinaryNode); ok && test.Location() == n.Location() {
			return start(test)
		}
	case *ast.CallNode:
		if m, ok := n.Callee.(*ast.MemberNode); ok {
			return start(m)
		}
	}
	return n.Location().From
}
