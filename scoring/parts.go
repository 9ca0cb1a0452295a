package scoring

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/vm"
)

// Part is one of the conditions that a condition joins with `and`: the whole is true when each of
// them is. A condition that joins nothing has one part.
type Part struct {
	Text   string   // as it was written, without brackets around it
	Offset int      // characters of the condition before it
	Any    []string // what it joins with `or`, in order; nil when it does not
	Names  []string // what it reads of the facts, as in "fields.country", in the order of the text

	code *vm.Program
}

// Parts returns the parts of a condition in the order in which they are evaluated, nil for a program
// that is none.
func (p *Program) Parts() []Part { return p.parts }

// NamedValue is what a name stood for when a condition was evaluated.
type NamedValue struct {
	Name  string `json:"name"`
	Value any    `json:"value"` // string, float64, bool or nil; a time as a text in RFC 3339
}

// Holds evaluates a condition part by part and stops at the first that is not true: failed is its
// index, -1 when all are. The error is a [*Fault] of the part of that index.
func (e *Evaluator) Holds(p *Program) (failed int, err error) {
	for i := range p.parts {
		out, err := e.runCode(p, p.parts[i].code)
		if err != nil {
			return i, err
		}
		if yes, ok := out.(bool); !ok && out != nil {
			return i, faultAt(p.source, p.parts[i].Offset, "this is not true or false")
		} else if !yes {
			return i, nil
		}
	}
	return -1, nil
}

// Met returns what the names of a part stand for in the facts that are bound.
func (e *Evaluator) Met(part Part) []NamedValue {
	list := make([]NamedValue, 0, len(part.Names))
	for _, name := range part.Names {
		v := e.schema.names[name]
		if v == nil || v.load == nil {
			continue
		}
		value := v.load(&e.facts)
		if t, ok := value.(time.Time); ok {
			value = t.UTC().Format(time.RFC3339)
		}
		list = append(list, NamedValue{name, value})
	}
	return list
}

// split takes a condition apart: original is as it was parsed, checked is what was made of it.
func (c *checker) split(original, checked ast.Node) ([]Part, error) {
	runes := []rune(c.source)
	var parts []Part
	var fault error
	joined(original, checked, runes, "and", "&&", 0, len(runes), func(o, ch ast.Node, from, to int) {
		part := Part{Names: c.names(o)}
		part.Text, part.Offset, to = bare(runes, from, to)
		joined(o, ch, runes, "or", "||", part.Offset, to, func(_, _ ast.Node, from, to int) {
			text, _, _ := bare(runes, from, to)
			part.Any = append(part.Any, text)
		})
		if len(part.Any) == 1 {
			part.Any = nil
		}
		var err error
		if part.code, err = c.schema.emit(&parser.Tree{Node: ch}); err != nil {
			fault = err
		}
		parts = append(parts, part)
	})
	return parts, fault
}

// joined visits what an operator joins, in order, with the place of each in the source. The `and` that
// the parser puts between the comparisons of 1 < x < 5 stands nowhere, and so joins nothing here.
func joined(original, checked ast.Node, source []rune, word, sign string, from, to int, visit func(o, ch ast.Node, from, to int)) {
	o, isO := original.(*ast.BinaryNode)
	ch, isC := checked.(*ast.BinaryNode)
	if isO && isC && (o.Operator == word || o.Operator == sign) && ch.Operator == o.Operator {
		if at := o.Location().From; hasAt(source, at, o.Operator) && from <= at && at < to {
			joined(o.Left, ch.Left, source, word, sign, from, at, visit)
			joined(o.Right, ch.Right, source, word, sign, at+len(o.Operator), to, visit)
			return
		}
	}
	visit(original, checked, from, to)
}

func hasAt(source []rune, at int, word string) bool {
	return at >= 0 && at+len(word) <= len(source) && string(source[at:at+len(word)]) == word
}

// bare trims a stretch of source: blanks, the brackets that have no partner in it, and pairs around the
// whole of it.
func bare(source []rune, from, to int) (text string, begin, end int) {
	partner := make(map[int]int)
	var open []int
	var quote rune
	for i := from; i < to; i++ {
		switch r := source[i]; {
		case quote != 0:
			if r == '\\' && quote != '`' {
				i++
			} else if r == quote {
				quote = 0
			}
		case r == '"' || r == '\'' || r == '`':
			quote = r
		case r == '(':
			open = append(open, i)
		case r == ')' && len(open) > 0:
			partner[open[len(open)-1]] = i
			partner[i] = open[len(open)-1]
			open = open[:len(open)-1]
		}
	}
	for from < to {
		first, last := source[from], source[to-1]
		_, firstPaired := partner[from]
		_, lastPaired := partner[to-1]
		switch {
		case strings.ContainsRune(" \t\r\n", first), first == '(' && !firstPaired:
			from++
		case strings.ContainsRune(" \t\r\n", last), last == ')' && !lastPaired:
			to--
		case first == '(' && partner[from] == to-1:
			from, to = from+1, to-1
		default:
			return string(source[from:to]), from, to
		}
	}
	return "", from, to
}

// names lists what a node reads of the facts, in the order of the source.
func (c *checker) names(n ast.Node) []string {
	v := &nameVisitor{schema: c.schema}
	ast.Walk(&n, v)
	slices.SortStableFunc(v.found, func(a, b foundName) int { return a.at - b.at })
	var out []string
	for _, f := range v.found {
		if !slices.Contains(out, f.name) {
			out = append(out, f.name)
		}
	}
	return out
}

type foundName struct {
	name string
	at   int
}

type nameVisitor struct {
	schema *Schema
	found  []foundName
}

// Visit notes a node that is a declared name. Lists are not facts.
func (v *nameVisitor) Visit(n *ast.Node) {
	name, ok := dotted(*n)
	if !ok {
		return
	}
	if x := v.schema.names[name]; x != nil && x.load != nil {
		v.found = append(v.found, foundName{name, start(*n)})
	}
}

// maxShown bounds a text of a lead in a message.
const maxShown = 60

// Describe puts what names stood for into words: `fields.company_size is 40, band is "warm"`. It is
// empty without names.
func Describe(values []NamedValue) string {
	var b strings.Builder
	for i, v := range values {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(v.Name)
		b.WriteString(" is ")
		switch x := v.Value.(type) {
		case nil:
			b.WriteString("absent")
		case string:
			if runes := []rune(x); len(runes) > maxShown {
				x = string(runes[:maxShown]) + "…"
			}
			b.WriteString(strconv.Quote(x))
		default:
			b.WriteString(FormatValue(x))
		}
	}
	return b.String()
}

// Untrue says in words that a part was not true, and on which values.
func (p Part) Untrue(values []NamedValue) string {
	says := "not true: " + p.Text
	if len(p.Any) > 0 {
		says = "none is true: " + strings.Join(p.Any, ", ")
	}
	if len(values) == 1 && values[0].Name == p.Text {
		return says // its value is what was said
	}
	if d := Describe(values); d != "" {
		says += " (" + d + ")"
	}
	return says
}
