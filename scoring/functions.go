package scoring

import (
	"fmt"
	"maps"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/expr-lang/expr/ast"
)

var environmentType = reflect.TypeFor[map[string]any]()

// evalError is a panic of a function below. The machine recovers it, and nothing else that it
// recovers is shown to users.
type evalError string

func (e evalError) Error() string { return string(e) }

// function is one that expressions can call.
type function struct {
	usage  string // how to write it, for messages
	params []base // a list is written as `list`; unknown: a text or a list, mixed: text or number
	more   bool   // the last parameter may be repeated
	result Type
	strict bool // nil as an argument is a fault; otherwise it makes the result nil
	clock  bool // the event's time is added as last argument
	fixed  bool // the argument must be a fixed text; the result is computed once
	fn     func(...any) any
}

var functions = map[string]function{
	"len":   {usage: "len(text)", params: []base{unknown}, result: Type{base: number}, fn: length},
	"lower": {usage: "lower(text)", params: []base{text}, result: Type{base: text}, fn: onText(strings.ToLower)},
	"upper": {usage: "upper(text)", params: []base{text}, result: Type{base: text}, fn: onText(strings.ToUpper)},
	"plain": {usage: "plain(text)", params: []base{text}, result: Type{base: text, optional: true}, fn: plainText},
	"trim":  {usage: "trim(text)", params: []base{text}, result: Type{base: text}, fn: onText(strings.TrimSpace)},

	"abs":   {usage: "abs(number)", params: []base{number}, strict: true, result: Type{base: number}, fn: onNumber(math.Abs)},
	"floor": {usage: "floor(number)", params: []base{number}, strict: true, result: Type{base: number}, fn: onNumber(math.Floor)},
	"ceil":  {usage: "ceil(number)", params: []base{number}, strict: true, result: Type{base: number}, fn: onNumber(math.Ceil)},
	"round": {usage: "round(number)", params: []base{number}, strict: true, result: Type{base: number}, fn: onNumber(math.Round)},
	"min":   {usage: "min(number, number)", params: []base{number}, more: true, strict: true, result: Type{base: number}, fn: extreme(math.Min)},
	"max":   {usage: "max(number, number)", params: []base{number}, more: true, strict: true, result: Type{base: number}, fn: extreme(math.Max)},

	"int":    {usage: "int(text or number)", params: []base{mixed}, result: Type{base: number}, fn: toNumber("int", math.Trunc)},
	"float":  {usage: "float(text or number)", params: []base{mixed}, result: Type{base: number}, fn: toNumber("float", func(x float64) float64 { return x })},
	"string": {usage: "string(value)", params: []base{absent}, result: Type{base: text}, fn: toText},

	"domain":          {usage: "domain(email)", params: []base{text}, result: Type{base: text, optional: true}, fn: domainOf},
	"zone_of_country": {usage: "zone_of_country(code)", params: []base{text}, result: Type{base: text, optional: true}, fn: zoneOf},
	"days_since":      {usage: "days_since(time)", params: []base{moment}, result: Type{base: number}, clock: true, fn: daysSince},
	"date":            {usage: `date("2026-03-31")`, params: []base{text}, fixed: true, result: Type{base: moment}, fn: date},
	"duration":        {usage: `duration("48h")`, params: []base{text}, fixed: true, result: Type{base: span}, fn: durationOf},
}

// loops are the builtins that go over a list; the result of filter and map is a list.
var loops = map[string]base{
	"any": boolean, "all": boolean, "none": boolean, "one": boolean, "count": number, "filter": list, "map": list,
}

var functionNames = slices.Sorted(func(yield func(string) bool) {
	for name := range maps.Keys(functions) {
		if !yield(name) {
			return
		}
	}
	for name := range maps.Keys(loops) {
		if !yield(name) {
			return
		}
	}
	yield("matches")
	yield(defaultFunction)
})

// refusedFunctions are those of expr that authors might try, with what to do instead.
var refusedFunctions = map[string]string{
	"now":       "write now without brackets; it is the time of the event",
	"today":     "write now; days_since(…) counts days up to it",
	"sum":       "add the values with +",
	"reduce":    "add the values with +",
	"find":      "ask with any(…) whether there is one",
	"split":     "use contains or matches",
	"replace":   "use the text as it is",
	"repeat":    "write the text out",
	"startWith": `write fields.title startsWith "…"`,
	"type":      "fields have the type that their form declares",
	"get":       "write the name after a dot",
	"contains":  `write fields.title contains "…"`,
}

// function checks a call.
func (c *checker) function(n ast.Node, name string, args []ast.Node) (ast.Node, Type) {
	if name == matchesFunction {
		if len(args) != 2 {
			return c.fail(n, `matches takes two values: matches(text, "pattern")`)
		}
		test := &ast.BinaryNode{Operator: "matches", Left: args[0], Right: args[1]}
		test.SetLocation(n.Location())
		return c.test(test, false)
	}
	if name == defaultFunction {
		return c.fallback(n, args)
	}
	if result, ok := loops[name]; ok {
		return c.goOver(n, name, result, args)
	}
	f, ok := functions[name]
	if !ok {
		if why := refusedFunctions[name]; why != "" {
			return c.fail(n, "%s() is not available; %s", name, why)
		}
		if c.schema.names[name] != nil {
			return c.fail(n, "%s is a value, not a function; write it without brackets", name)
		}
		return c.fail(n, "unknown function %s%s", name, didYouMean(name, functionNames))
	}
	if len(args) < len(f.params) || len(args) > len(f.params) && !f.more {
		return c.fail(n, "%s is written %s; here it has %d values", name, f.usage, len(args))
	}
	t := f.result
	out := make([]ast.Node, 0, len(args)+1)
	for i, a := range args {
		node, at := c.check(a)
		if c.fault != nil {
			return n, Type{}
		}
		if !accepts(f.params[min(i, len(f.params)-1)], at) {
			return c.fail(a, "%s is written %s; this is %s", name, f.usage, at)
		}
		switch {
		case f.strict:
			node = c.need(a, node, at)
		case at.Optional():
			t.optional = true
		}
		out = append(out, node)
	}
	if f.fixed {
		return c.constant(n, name, f, args[0])
	}
	if f.clock {
		now := c.schema.names["now"]
		if !slices.Contains(c.used, now) {
			c.used = append(c.used, now)
		}
		out = append(out, placed(&ast.IdentifierNode{Value: now.name}, n, now.typ))
	}
	return call(n, t, f.fn, out...), t
}

// accepts reports whether a parameter takes an argument of a type.
func accepts(p base, t Type) bool {
	switch {
	case t.base == unknown || t.base == absent:
		return true
	case p == unknown:
		return t.base == text || t.base == list
	case p == mixed:
		return t.base == text || t.base == number
	case p == absent:
		return t.base != list && t.base != span
	}
	return p == t.base
}

// constant computes a call of a fixed text while compiling.
func (c *checker) constant(n ast.Node, name string, f function, arg ast.Node) (ast.Node, Type) {
	s, ok := arg.(*ast.StringNode)
	if !ok {
		return c.fail(arg, "%s takes a fixed text in quotes, as in %s", name, f.usage)
	}
	v := f.fn(s.Value)
	if err, ok := v.(error); ok {
		return c.fail(arg, "%s", err)
	}
	return placed(&ast.ConstantNode{Value: v}, n, f.result), f.result
}

// goOver checks a loop.
func (c *checker) goOver(n ast.Node, name string, result base, args []ast.Node) (ast.Node, Type) {
	if len(args) != 2 {
		return c.fail(n, "%s is written %s(list, condition), where # is the element", name, name)
	}
	if c.loops++; c.loops > 1 {
		return c.fail(n, "only one of %s can stand in an expression; use several rules", strings.Join(slices.Sorted(maps.Keys(loops)), ", "))
	}
	over, t := c.check(args[0])
	if c.fault != nil {
		return n, Type{}
	}
	if t.base != list {
		return c.fail(args[0], "%s goes over a list; this is %s", name, t)
	}
	if path, ok := dotted(args[0]); ok {
		if v := c.schema.names[path]; v != nil && len(v.list) > MaxElements {
			return c.fail(args[0], "%s goes over at most %d elements and %s has %d; ask for one of them with in", name, MaxElements, path, len(v.list))
		}
	}
	if a, ok := args[0].(*ast.ArrayNode); ok && len(a.Nodes) > MaxElements {
		return c.fail(args[0], "%s goes over at most %d elements; this list has %d", name, MaxElements, len(a.Nodes))
	}
	body, ok := args[1].(*ast.PredicateNode)
	if !ok {
		return c.fail(n, "%s is written %s(list, condition), where # is the element", name, name)
	}
	c.loop = &Type{base: t.element}
	yields := Type{base: result, element: t.element}
	var inner ast.Node
	var it Type
	if name == "map" {
		inner, it = c.check(body.Node)
		if it.base != unknown && it.base != text && it.base != number && it.base != boolean {
			return c.fail(body.Node, "map gives texts, numbers, or true and false; this is %s", it)
		}
		yields.element = it.base
	} else {
		inner, it = c.condition(body.Node)
	}
	c.loop = nil
	predicate := placed(&ast.PredicateNode{Node: inner}, body, it)
	out := ast.Node(placed(&ast.BuiltinNode{Name: name, Arguments: []ast.Node{over, predicate}}, n, yields))
	if name == "count" { // the machine counts in whole numbers; everything else here is a float64
		out = call(n, yields, func(a ...any) any { return float64(a[0].(int)) }, out)
	}
	return out, yields
}

func length(a ...any) any {
	switch x := a[0].(type) {
	case string:
		return float64(utf8.RuneCountInString(x))
	case []string:
		return float64(len(x))
	case []any:
		return float64(len(x))
	}
	return nil
}

func onText(f func(string) string) func(...any) any {
	return func(a ...any) any {
		s, ok := a[0].(string)
		if !ok {
			return nil
		}
		return f(s)
	}
}

func onNumber(f func(float64) float64) func(...any) any {
	return func(a ...any) any { return f(a[0].(float64)) }
}

func extreme(f func(x, y float64) float64) func(...any) any {
	return func(a ...any) any {
		best := a[0].(float64)
		for _, x := range a[1:] {
			best = f(best, x.(float64))
		}
		return best
	}
}

func toNumber(name string, f func(float64) float64) func(...any) any {
	return func(a ...any) any {
		switch x := a[0].(type) {
		case float64:
			return f(x)
		case string:
			v, err := strconv.ParseFloat(strings.TrimSpace(x), 64)
			if err != nil {
				panic(evalError(name + " cannot read this text as a number"))
			}
			return f(v)
		}
		return nil
	}
}

func toText(a ...any) any {
	switch x := a[0].(type) {
	case nil:
		return nil
	case time.Time:
		return x.UTC().Format(time.RFC3339)
	default:
		return FormatValue(x)
	}
}

// FormatValue writes a value of an expression as a text: nil as the empty one, a number without an
// exponent and with no more digits than it needs.
func FormatValue(v any) string {
	switch x := v.(type) {
	case nil:
		return ""
	case string:
		return x
	case bool:
		return strconv.FormatBool(x)
	case float64:
		if math.Abs(x) >= 1e21 {
			return strconv.FormatFloat(x, 'g', -1, 64)
		}
		return strconv.FormatFloat(x, 'f', -1, 64)
	}
	return fmt.Sprint(v)
}

func domainOf(a ...any) any {
	s, _ := a[0].(string)
	at := strings.LastIndexByte(s, '@')
	if at < 0 || at+1 == len(s) {
		return nil
	}
	return strings.ToLower(strings.TrimSpace(s[at+1:]))
}

func zoneOf(a ...any) any {
	s, _ := a[0].(string)
	if z := ZoneOfCountry(s); z != "" {
		return z
	}
	return nil
}

// daysSince counts days of 24 hours, with their fraction; negative for a time to come.
func daysSince(a ...any) any {
	t, ok := a[0].(time.Time)
	now, okNow := a[1].(time.Time)
	if !ok || !okNow {
		return nil
	}
	return now.Sub(t).Hours() / 24
}

func date(a ...any) any {
	s := a[0].(string)
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC()
		}
	}
	return evalError(fmt.Sprintf(`%q is not a date; write date("2026-03-31") or date("2026-03-31T09:00:00Z")`, s))
}

func durationOf(a ...any) any {
	s := a[0].(string)
	d, err := ParseDuration(s)
	if err != nil {
		return evalError(err.Error())
	}
	return d
}

// ParseDuration reads a whole number and a unit: 90s, 10m, 2h, 3d or 2w. A day has 24 hours. The
// result is not negative.
func ParseDuration(s string) (time.Duration, error) {
	units := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour}
	fault := fmt.Errorf("%q is not a duration; write a whole number and a unit: 90s, 10m, 2h, 3d or 2w", s)
	if len(s) < 2 {
		return 0, fault
	}
	unit, ok := units[s[len(s)-1]]
	if !ok {
		return 0, fault
	}
	for _, digit := range s[:len(s)-1] {
		if digit < '0' || digit > '9' {
			return 0, fault
		}
	}
	n, err := strconv.ParseInt(s[:len(s)-1], 10, 64)
	if err != nil || n > int64(math.MaxInt64/unit) {
		return 0, fmt.Errorf("%q is too long a duration", s)
	}
	return time.Duration(n) * unit, nil
}

func needed(name string, b base) func(...any) any {
	message := "arithmetic with nil: something in this expression is absent; give it a value with ??, as in (fields.company_size ?? 0)"
	if name != "" {
		instead := "0"
		switch b {
		case text:
			instead = `""`
		case moment, span:
			instead = "now"
		}
		message = fmt.Sprintf("%s is absent here; give it a value with ??, as in (%s ?? %s)", name, name, instead)
	}
	return func(a ...any) any {
		if a[0] == nil {
			panic(evalError(message))
		}
		return a[0]
	}
}

func joinTexts(a ...any) any {
	l, r := a[0].(string), a[1].(string)
	if len(l)+len(r) > maxJoined {
		panic(evalError(fmt.Sprintf("the joined text is longer than %d bytes", maxJoined)))
	}
	return l + r
}

func remainder(a ...any) any {
	x, y := a[0].(float64), a[1].(float64)
	if y == 0 {
		panic(evalError("the remainder of a division by zero is not a number"))
	}
	return math.Mod(x, y)
}

// same and differ compare values of which one can be nil: then neither is true.
func same(a ...any) any { return a[0] != nil && a[1] != nil && equalValues(a[0], a[1]) }

func differ(a ...any) any { return a[0] != nil && a[1] != nil && !equalValues(a[0], a[1]) }

func equalValues(a, b any) bool {
	if x, ok := a.(time.Time); ok {
		y, ok := b.(time.Time)
		return ok && x.Equal(y)
	}
	return a == b
}

// orderedFunc compares texts and times of which one can be nil: then the answer is false.
func orderedFunc(operator string) func(...any) any {
	return func(a ...any) any {
		var order int
		switch x := a[0].(type) {
		case string:
			y, ok := a[1].(string)
			if !ok {
				return false
			}
			order = strings.Compare(x, y)
		case time.Time:
			y, ok := a[1].(time.Time)
			if !ok {
				return false
			}
			order = x.Compare(y)
		case time.Duration:
			y, ok := a[1].(time.Duration)
			if !ok {
				return false
			}
			order = int(max(-1, min(1, x-y)))
		default:
			return false
		}
		switch operator {
		case "<":
			return order < 0
		case "<=":
			return order <= 0
		case ">":
			return order > 0
		}
		return order >= 0
	}
}

func notFound(operator string) func(...any) any {
	find := map[string]func(s, sub string) bool{
		"contains": strings.Contains, "startsWith": strings.HasPrefix, "endsWith": strings.HasSuffix,
	}[operator]
	return func(a ...any) any {
		x, ok := a[0].(string)
		y, ok2 := a[1].(string)
		return ok && ok2 && !find(x, y)
	}
}

func notMatches(pattern string) func(...any) any {
	re := regexp.MustCompile(pattern) // checked before
	return func(a ...any) any {
		x, ok := a[0].(string)
		return ok && !re.MatchString(x)
	}
}

func inSet(set map[string]struct{}, negated bool) func(...any) any {
	return func(a ...any) any {
		s, ok := a[0].(string)
		if !ok {
			return false
		}
		_, found := set[s]
		return found != negated
	}
}

func inList(negated bool) func(...any) any {
	return func(a ...any) any {
		if a[0] == nil {
			return false
		}
		found := false
		switch l := a[1].(type) {
		case []any:
			found = slices.ContainsFunc(l, func(e any) bool { return e != nil && equalValues(a[0], e) })
		case []string:
			s, ok := a[0].(string)
			found = ok && slices.Contains(l, s)
		}
		return found != negated
	}
}
