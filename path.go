package lodestone

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Path leads into a payload that another tool made:
//
//	payload.contact.email
//	payload["First name"]                       a key that is no word
//	payload.results[0].email                    the first of a list
//	payload.answers[field.ref == "mail"].email  the first of a list whose field.ref is "mail"
//
// Finding is bounded by the size of the payload and has no faults: what is not there is nil.
type Path struct {
	text  string
	steps []pathStep
}

type pathStep struct {
	key   string   // of an object
	index int      // of a list, when key is empty and where nil
	where []string // keys that lead from an element to what must equal; nil: not a choice
	equal string
}

// Limits of a path.
const (
	maxPath      = 1 << 10 // bytes
	maxPathSteps = 32
)

// PathError says where a path is wrong.
type PathError struct {
	At      int // characters before it
	Message string
}

func (e *PathError) Error() string { return e.Message }

// ParsePath reads a path. The error is a [*PathError].
func ParsePath(s string) (Path, error) {
	p := pathParser{text: s}
	fail := func(format string, args ...any) (Path, error) {
		return Path{}, &PathError{utf8.RuneCountInString(s[:p.pos]), fmt.Sprintf(format, args...)}
	}
	if len(s) > maxPath {
		return fail("a path has at most %d bytes", maxPath)
	}
	if p.word() != "payload" {
		p.pos = 0
		return fail("a path begins with payload, as in payload.contact.email")
	}
	out := Path{text: s}
	for p.pos < len(s) {
		if len(out.steps) == maxPathSteps {
			return fail("a path has at most %d steps", maxPathSteps)
		}
		if p.take('.') {
			w := p.word()
			if w == "" {
				return fail("after the dot stands a key; one that is no word is written [\"First name\"]")
			}
			out.steps = append(out.steps, pathStep{key: w})
			continue
		}
		if !p.take('[') {
			return fail("after a key stands a dot or [")
		}
		step, message := p.bracket()
		if message != "" {
			return fail("%s", message)
		}
		out.steps = append(out.steps, step)
	}
	return out, nil
}

type pathParser struct {
	text string
	pos  int
}

func (p *pathParser) take(c byte) bool {
	if p.pos < len(p.text) && p.text[p.pos] == c {
		p.pos++
		return true
	}
	return false
}

func (p *pathParser) blanks() {
	for p.take(' ') {
	}
}

func (p *pathParser) word() string {
	start := p.pos
	for p.pos < len(p.text) {
		c := p.text[p.pos]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-' && c != '$' {
			break
		}
		p.pos++
	}
	return p.text[start:p.pos]
}

// quoted reads a text in double quotes, where \" and \\ stand for themselves.
func (p *pathParser) quoted() (string, bool) {
	if !p.take('"') {
		return "", false
	}
	var b strings.Builder
	for p.pos < len(p.text) {
		switch c := p.text[p.pos]; {
		case c == '"':
			p.pos++
			return b.String(), true
		case c == '\\' && p.pos+1 < len(p.text):
			p.pos++
		}
		b.WriteByte(p.text[p.pos])
		p.pos++
	}
	return "", false
}

// bracket reads what stands behind [, the closing one included.
func (p *pathParser) bracket() (step pathStep, message string) {
	const open = "a bracket holds a number, a key in quotes, or a choice as in [label == \"Email\"]"
	p.blanks()
	if key, ok := p.quoted(); ok {
		step.key = key
	} else {
		w := p.word()
		if w == "" {
			return step, open
		}
		if n, err := strconv.Atoi(w); err == nil && n >= 0 {
			step.index = n
		} else {
			step.where = []string{w}
			for p.take('.') {
				if w = p.word(); w == "" {
					return step, open
				}
				step.where = append(step.where, w)
			}
			p.blanks()
			rest, is := strings.CutPrefix(p.text[p.pos:], "==")
			if !is {
				return step, open
			}
			p.pos = len(p.text) - len(rest)
			p.blanks()
			var ok bool
			if step.equal, ok = p.quoted(); !ok {
				return step, "what a choice compares with is a text in double quotes"
			}
		}
	}
	p.blanks()
	if !p.take(']') {
		return step, "the bracket is not closed"
	}
	return step, ""
}

// String is the path as it was written.
func (p Path) String() string { return p.text }

// Find follows the path through a JSON value made of map[string]any, []any and scalars; nil when it
// leads nowhere.
func (p Path) Find(v any) any {
	for _, s := range p.steps {
		if v = s.find(v); v == nil {
			return nil
		}
	}
	return v
}

func (s pathStep) find(v any) any {
	switch v := v.(type) {
	case map[string]any:
		if s.where == nil && s.key != "" {
			return v[s.key]
		}
	case []any:
		if s.where == nil {
			if s.key == "" && s.index < len(v) {
				return v[s.index]
			}
			return nil
		}
		for _, e := range v {
			found := e
			for _, key := range s.where {
				o, _ := found.(map[string]any)
				found = o[key]
			}
			switch found.(type) {
			case nil, map[string]any, []any:
				continue
			}
			if fmt.Sprint(found) == s.equal {
				return e
			}
		}
	}
	return nil
}
