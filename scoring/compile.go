package scoring

import (
	"fmt"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/checker/nature"
	"github.com/expr-lang/expr/compiler"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/vm"
)

var tooManyNodes = fmt.Sprintf("this expression has more than %d parts; use several rules, or a list", MaxNodes)

// compile guards, parses, checks, rewrites and compiles, in this order.
func (s *Schema) compile(source string, kind Kind, scoring bool) (p *Program, err error) {
	defer func() {
		// Parser and compiler are not ours, and what they are given comes from outside.
		if r := recover(); r != nil {
			p, err = nil, faultAt(source, 0, "this expression cannot be compiled")
		}
	}()
	guarded, fault := guard(source)
	if fault != nil {
		return nil, fault
	}
	tree, err := parser.ParseWithConfig(guarded, s.config())
	if err != nil {
		return nil, syntaxFault(source, err)
	}
	c := &checker{schema: s, source: source, scoring: scoring}
	root, typ := c.result(tree.Node, kind)
	if c.fault != nil {
		return nil, c.fault
	}
	p = &Program{schema: s, source: source, yields: typ, names: c.lists, slots: s.slot(c.used)}
	if kind == Boolean {
		p.parts, err = c.split(tree.Node, root)
	} else {
		p.code, err = s.emit(&parser.Tree{Node: root, Source: tree.Source})
	}
	if err != nil {
		return nil, faultAt(source, 0, "this expression cannot be compiled")
	}
	for _, v := range c.used {
		p.names = append(p.names, v.name)
	}
	return p, nil
}

// emit compiles a checked tree and makes each name in it a place among the machine's variables: that is
// a good deal faster than a look-up in an environment, and binding the facts is too.
func (s *Schema) emit(tree *parser.Tree) (*vm.Program, error) {
	code, err := compiler.Compile(tree, s.config())
	if err != nil {
		return nil, err
	}
	for i, op := range code.Bytecode {
		switch op {
		case vm.OpLoadFast:
			name, _ := code.Constants[code.Arguments[i]].(string)
			v := s.names[name]
			if v == nil {
				return nil, fmt.Errorf("%q is no name", name)
			}
			code.Bytecode[i], code.Arguments[i] = vm.OpLoadVar, v.slot
		case vm.OpStore, vm.OpLoadVar, vm.OpLoadConst, vm.OpLoadField, vm.OpLoadMethod, vm.OpLoadEnv:
			return nil, fmt.Errorf("%v reads or keeps a value in a way that no expression here does", op)
		}
	}
	return code, nil
}

// config is the library's configuration. It is made anew each time because it holds a cache that
// must not be shared between goroutines.
func (s *Schema) config() *conf.Config {
	c := &conf.Config{Optimize: true, ShortCircuit: true, MaxNodes: MaxNodes}
	// An environment of this type makes every name one look-up in a map[string]any.
	c.Env = nature.FromType(environmentType)
	return c
}

// call makes a call of a Go function.
func call(at ast.Node, result Type, fn func(...any) any, args ...ast.Node) ast.Node {
	callee := &ast.ConstantNode{Value: fn}
	callee.SetType(functionType)
	return placed(&ast.CallNode{Callee: callee, Arguments: args}, at, result)
}

// placed gives a node the place of another and a type.
func placed[N ast.Node](n N, at ast.Node, t Type) N {
	n.SetLocation(at.Location())
	n.SetType(t.goType())
	return n
}
