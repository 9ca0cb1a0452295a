package rules

import (
	"strings"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/scoring"
)

// Template is the value of an argument: a literal, a text with ${…} in it, or a list or an object of
// such values.
type Template struct {
	literal any // string, float64 or bool; used when there is nothing else
	parts   []part
	list    []Template // not nil: a list
	fields  []Argument // an object, in the order of names
	into    lodestone.Parameter
}

// part is a piece of a text: an expression, or words when that is nil.
type part struct {
	words   string
	program *scoring.Program
}

// Eval gives the value: string, float64, bool, []any or map[string]any. A value that is exactly one
// ${…} keeps its type, and nil means that the argument is absent: an absent element or field is left
// out, and so is a list or an object of which nothing is left. Inside a longer text nil is the empty
// text. The error is a [*scoring.Fault].
func (t Template) Eval(e *scoring.Evaluator) (any, error) {
	switch {
	case t.list != nil:
		var out []any
		for _, x := range t.list {
			v, err := x.Eval(e)
			if err != nil {
				return nil, err
			}
			if v != nil {
				out = append(out, v)
			}
		}
		if out == nil {
			return nil, nil
		}
		return out, nil
	case t.fields != nil:
		var out map[string]any
		for _, f := range t.fields {
			v, err := f.Value.Eval(e)
			if err != nil {
				return nil, err
			}
			if v == nil {
				continue
			}
			if out == nil {
				out = make(map[string]any, len(t.fields))
			}
			out[f.Name] = v
		}
		if out == nil {
			return nil, nil
		}
		return out, nil
	case len(t.parts) == 0:
		return t.literal, nil
	case len(t.parts) == 1 && t.parts[0].program != nil:
		v, err := e.Value(t.parts[0].program)
		if text, ok := v.(string); ok && err == nil {
			return t.fit(text, true)
		}
		return v, err
	}
	var b strings.Builder
	for _, p := range t.parts {
		if p.program == nil {
			b.WriteString(p.words)
			continue
		}
		v, err := e.Value(p.program)
		if err != nil {
			return nil, err
		}
		b.WriteString(t.escape(scoring.FormatValue(v)))
	}
	return t.fit(b.String(), false)
}

// piece is a part before its expression is compiled.
type piece struct {
	text   string
	code   bool
	offset int // characters of the whole text before it
}

// pieces takes a text apart at its ${…}. A literal ${ is written $${. When a ${ has no end, ok is
// false and unclosed counts the characters before it.
func pieces(s string) (out []piece, unclosed int, ok bool) {
	runes := []rune(s)
	var words []rune
	begin := 0
	flush := func() {
		if len(words) > 0 {
			out = append(out, piece{text: string(words), offset: begin})
		}
		words = nil
	}
	for i := 0; i < len(runes); i++ {
		switch {
		case hasAt(runes, i, "$${"):
			words = append(words, '$', '{')
			i += 2
		case hasAt(runes, i, "${"):
			flush()
			end := closing(runes, i+2)
			if end < 0 {
				return out, i, false
			}
			out = append(out, piece{text: string(runes[i+2 : end]), code: true, offset: i + 2})
			i, begin = end, end+1
		default:
			words = append(words, runes[i])
		}
	}
	flush()
	return out, 0, true
}

func hasAt(runes []rune, i int, want string) bool {
	for _, w := range want {
		if i >= len(runes) || runes[i] != w {
			return false
		}
		i++
	}
	return true
}

// closing finds the brace that ends an expression, outside of its texts and inner braces; -1 when
// there is none.
func closing(runes []rune, i int) int {
	depth := 0
	var quote rune
	for ; i < len(runes); i++ {
		r := runes[i]
		switch {
		case quote != 0:
			if r == '\\' && quote != '`' {
				i++
			} else if r == quote {
				quote = 0
			}
		case r == '"' || r == '\'' || r == '`':
			quote = r
		case r == '{':
			depth++
		case r == '}':
			if depth == 0 {
				return i
			}
			depth--
		}
	}
	return -1
}
