package scoring

import (
	"strings"

	"github.com/expr-lang/expr/ast"
)

// defaultFunction gives its second value where the first is absent or a text of nothing but blanks. The
// operator ?? knows absence alone, and people leave blanks in forms.
const defaultFunction = "default"

// fallback checks default(value, otherwise). Both have one type, which is that of the result.
func (c *checker) fallback(n ast.Node, args []ast.Node) (ast.Node, Type) {
	const usage = `default is written default(value, otherwise), as in default(fields.first_name, "there")`
	if len(args) != 2 {
		return c.fail(n, "%s; here it has %d values", usage, len(args))
	}
	value, vt := c.check(args[0])
	other, ot := c.check(args[1])
	switch {
	case c.fault != nil || vt.base == unknown || ot.base == unknown:
		return n, Type{}
	case vt.base == list || ot.base == list:
		return c.fail(n, "%s; a list is never absent", usage)
	case vt.base != ot.base && vt.base != absent && ot.base != absent:
		return c.fail(args[1], "default gives one type: the value is %s, this is %s", Type{base: vt.base}, Type{base: ot.base})
	}
	t := join(vt, ot)
	t.optional = ot.Optional()
	return call(n, t, orElse, value, other), t
}

func orElse(a ...any) any {
	if s, ok := a[0].(string); a[0] == nil || ok && strings.TrimSpace(s) == "" {
		return a[1]
	}
	return a[0]
}
