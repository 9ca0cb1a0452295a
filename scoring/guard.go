package scoring

import (
	"errors"
	"regexp/syntax"
	"strings"
	"unicode/utf8"

	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser/lexer"
)

// guard is what stands before the parser, which recurses and would take the process with it on a
// source that nests too deeply. It returns the source as the parser shall see it, of the same
// length, so that positions stay true.
func guard(source string) (string, *Fault) {
	switch {
	case len(source) > MaxSource:
		return "", faultAt(source, 0, "this expression has %d bytes, more than the %d that are allowed; use several rules, or a list", len(source), MaxSource)
	case !utf8.ValidString(source):
		return "", faultAt(source, 0, "this expression is not UTF-8")
	case strings.TrimSpace(source) == "":
		return "", faultAt(source, 0, "this expression is empty")
	}
	tokens, err := lexer.Lex(file.NewSource(source))
	if err != nil {
		return "", syntaxFault(source, err)
	}
	runes := []rune(source)
	depth, signs := 0, 0
	for i, t := range tokens {
		switch t.Value {
		case "(", "[", "{":
			if t.Kind == lexer.Bracket {
				depth++
			}
		case ")", "]", "}":
			if t.Kind == lexer.Bracket {
				depth--
			}
		}
		if t.Is(lexer.Operator, "not", "!", "-", "+") {
			signs++
		} else {
			signs = 0
		}
		if depth > MaxDepth || signs > MaxDepth {
			return "", faultAt(source, t.From, "this expression nests more than %d levels deep", MaxDepth)
		}
		if t.Kind == lexer.Operator {
			if why := refusedOperators[t.Value]; why != "" {
				return "", faultAt(source, t.From, "%s", why)
			}
		}
		if prefixMatches(tokens, i) {
			runes[t.From] = 'M'
		} else if t.Is(lexer.Identifier, matchesFunction) {
			return "", faultAt(source, t.From, "unknown function Matches; did you mean matches?")
		}
	}
	return string(runes), nil
}

// matchesFunction is what the parser sees in place of `matches` where that is called as a function:
// to the parser the word is an operator.
const matchesFunction = "Matches"

// prefixMatches reports whether token i is `matches` as the name of a function: before an opening
// bracket and where a value is expected, not an operator.
func prefixMatches(tokens []lexer.Token, i int) bool {
	if !tokens[i].Is(lexer.Operator, "matches") || i+1 >= len(tokens) || !tokens[i+1].Is(lexer.Bracket, "(") {
		return false
	}
	if i > 0 && tokens[i-1].Is(lexer.Operator, "not") {
		i-- // `a not matches ("x")` is the operator, `not matches(a, "x")` is the function
	}
	if i == 0 {
		return true
	}
	before := tokens[i-1]
	switch before.Kind {
	case lexer.Operator:
		return before.Value != "." && before.Value != "?." && before.Value != "#"
	case lexer.Bracket:
		return before.Is(lexer.Bracket, "(", "[", "{")
	}
	return false
}

var refusedOperators = map[string]string{
	"=":   "a single = compares nothing; write == to compare",
	"&":   "a single & means nothing here; write and",
	"let": "variables (let) are not available; write the value where it is needed",
	";":   "one expression is expected; a ; cannot stand in it",
	"..":  "ranges are not available; write x >= 1 and x <= 10, or list the values: x in [1, 2, 3]",
	"**":  "powers are not available; multiply instead",
	"^":   "powers are not available; multiply instead",
	"::":  ":: means nothing here; write the function's name alone",
}

// syntaxFault turns an error of lexer or parser into words.
func syntaxFault(source string, err error) *Fault {
	at := new(file.Error)
	if !errors.As(err, &at) {
		return faultAt(source, 0, "%s", err)
	}
	return faultAt(source, at.From, "%s", plainSyntax(at.Message))
}

// plainSyntax rewrites the messages that authors meet most.
func plainSyntax(m string) string {
	token, unexpected := strings.CutPrefix(m, "unexpected token ")
	kind, value, _ := strings.Cut(strings.TrimSuffix(token, ")"), "(")
	value = strings.Trim(value, `"`)
	switch {
	case unexpected && kind == "EOF":
		return "the expression ends too early; is a value or a closing bracket missing?"
	case unexpected && kind == "Identifier":
		switch strings.ToLower(value) {
		case "and", "or", "not", "in", "contains", "matches":
			return "write " + strings.ToLower(value) + " in small letters"
		case "is", "equals":
			return value + " is not an operator; write =="
		}
		return value + " does not belong here; is an operator such as and, or, == missing before it?"
	case unexpected && kind == "Operator":
		switch value {
		case "contains", "startsWith", "endsWith":
			return value + ` stands between two texts, as in fields.title ` + value + ` "lead"`
		case "in":
			return `in stands between a value and a list, as in fields.country in ["DE", "AT"]`
		case "matches":
			return `write matches(fields.title, "pattern") or fields.title matches "pattern"`
		case "?":
			return "a ? needs a : after it, as in fields.company_size > 100 ? 20 : 0"
		case "#", ".":
			return value + " can only stand for an element inside any, all, none, one, count, filter or map"
		}
		return value + " does not belong here; is a value missing before it?"
	case unexpected && kind == "Bracket":
		return value + " does not belong here"
	case unexpected:
		return value + " does not belong here; is an operator such as and, or, == missing before it?"
	case strings.HasPrefix(m, "unrecognized character: "):
		c := strings.TrimPrefix(m, "unrecognized character: ")
		if strings.ContainsAny(c, "“”‘’„«»") {
			return `write straight quotes: "…" or '…'`
		}
		return "the character " + c + " means nothing in an expression"
	case m == "literal not terminated":
		return "this text has no closing quote"
	case strings.HasPrefix(m, "Operator ("):
		return "put ?? and its two sides into brackets, as in (fields.company_size ?? 0) > 100"
	case strings.Contains(m, "maximum allowed nodes"):
		return tooManyNodes
	case m == "wrap predicate with brackets { and }":
		return refusedOperators[";"]
	}
	return m
}

// patternSize estimates how many instructions a pattern compiles to, without compiling it: a
// repetition of a repetition can be large enough to matter by itself.
func patternSize(re *syntax.Regexp) int {
	size := 1
	switch re.Op {
	case syntax.OpLiteral:
		size = len(re.Rune)
	case syntax.OpRepeat:
		return min(maxPattern+1, max(re.Min, re.Max, 1)*(1+patternSize(re.Sub[0])))
	}
	for _, sub := range re.Sub {
		size += 1 + patternSize(sub)
	}
	return min(size, maxPattern+1)
}
