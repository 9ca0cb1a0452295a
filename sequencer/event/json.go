package event

import (
	"fmt"
	"maps"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/lodestonehq/lodestone"
)

// number is a JSON number as it was written. It becomes a float64 where one is wanted; as a text it
// keeps every digit of a long customer number.
type number string

// fault is an objection without the parts that every rejection has.
type fault struct {
	reason lodestone.Reason
	detail string
}

func (f *fault) Error() string { return string(f.reason) + ": " + f.detail }

// readJSON reads one JSON text (RFC 8259) in a single pass into nil, bool, number, string, []any and
// map[string]any. It is stricter than encoding/json: see the package comment. Texts without escapes
// share the memory of the message.
func readJSON(data []byte) (any, *fault) {
	r := reader{s: string(data)}
	if !utf8.ValidString(r.s) {
		return nil, &fault{lodestone.ReasonNotJSON, "the body is not UTF-8; send it as UTF-8"}
	}
	v := r.value()
	r.blank()
	if r.fault == nil && r.i < len(r.s) {
		r.fail("there is something after the JSON value")
	}
	if r.fault != nil {
		return nil, r.fault
	}
	return v, nil
}

type reader struct {
	s     string
	i     int
	depth int
	fault *fault // the first; everything stops at it
}

func (r *reader) fail(what string) {
	if r.fault == nil {
		r.fault = &fault{lodestone.ReasonNotJSON, fmt.Sprintf("%s (byte %d of %d)", what, r.i, len(r.s))}
	}
}

func (r *reader) blank() {
	for r.i < len(r.s) {
		switch r.s[r.i] {
		case ' ', '\t', '\n', '\r':
			r.i++
		default:
			return
		}
	}
}

// next is the byte at the reader's place after blanks, 0 at the end and after a fault.
func (r *reader) next() byte {
	r.blank()
	if r.fault != nil || r.i >= len(r.s) {
		return 0
	}
	return r.s[r.i]
}

func (r *reader) value() any {
	switch c := r.next(); {
	case c == '{':
		return r.object()
	case c == '[':
		return r.list()
	case c == '"':
		return r.text()
	case c == '-' || c >= '0' && c <= '9':
		return r.number()
	case c == 't':
		return r.word("true", true)
	case c == 'f':
		return r.word("false", false)
	case c == 'n':
		return r.word("null", nil)
	case c == 0 && r.i >= len(r.s):
		r.fail("the JSON text ends too early")
	default:
		r.fail("this is no JSON value")
	}
	return nil
}

func (r *reader) word(w string, v any) any {
	if !strings.HasPrefix(r.s[r.i:], w) {
		r.fail("this is no JSON value")
		return nil
	}
	r.i += len(w)
	return v
}

// enter goes one level down; leave comes back up.
func (r *reader) enter() bool {
	r.i++
	if r.depth++; r.depth > MaxDepth {
		r.fault = &fault{lodestone.ReasonTooDeep, fmt.Sprintf("more than %d objects and lists stand inside each other", MaxDepth)}
		return false
	}
	return true
}

func (r *reader) leave() {
	r.i++
	r.depth--
}

func (r *reader) object() map[string]any {
	if !r.enter() {
		return nil
	}
	m := make(map[string]any)
	if r.next() == '}' {
		r.leave()
		return m
	}
	for {
		if r.next() != '"' {
			r.fail("a key is expected here")
			return nil
		}
		at := r.i
		key := r.text()
		if r.next() != ':' {
			r.fail("a colon is expected here")
			return nil
		}
		r.i++
		v := r.value()
		if r.fault != nil {
			return nil
		}
		before := len(m)
		if before == 8 { // from here on a map grows by being built anew, again and again
			m = r.roomy(m)
		}
		if m[key] = v; len(m) == before {
			r.i = at
			r.fail("a key is there twice in one object")
			return nil
		}
		switch r.next() {
		case ',':
			r.i++
		case '}':
			r.leave()
			return m
		default:
			r.fail("a comma or the end of the object is expected here")
			return nil
		}
	}
}

// roomy returns m with room for the keys that seem to follow in its object.
func (r *reader) roomy(m map[string]any) map[string]any {
	const most = 256 // so that objects inside each other do not each make room for one that is large
	rest, _, _ := strings.Cut(r.s[r.i:], "}")
	out := make(map[string]any, len(m)+1+min(strings.Count(rest, `":`), most))
	maps.Copy(out, m)
	return out
}

func (r *reader) list() []any {
	if !r.enter() {
		return nil
	}
	l := []any{}
	if r.next() == ']' {
		r.leave()
		return l
	}
	for {
		v := r.value()
		if r.fault != nil {
			return nil
		}
		l = append(l, v)
		switch r.next() {
		case ',':
			r.i++
		case ']':
			r.leave()
			return l
		default:
			r.fail("a comma or the end of the list is expected here")
			return nil
		}
	}
}

// text reads a JSON string; the reader stands on its opening quote.
func (r *reader) text() string {
	r.i++
	for start := r.i; r.i < len(r.s); r.i++ {
		switch c := r.s[r.i]; {
		case c == '"':
			r.i++
			return r.s[start : r.i-1]
		case c == '\\':
			return r.escaped(start)
		case c < ' ':
			r.fail("a control character stands in a text without being escaped")
			return ""
		}
	}
	r.fail("a text has no end")
	return ""
}

// escaped goes on with a text that began at start and has its first backslash at the reader's place.
func (r *reader) escaped(start int) string {
	b := append(make([]byte, 0, r.i-start+32), r.s[start:r.i]...)
	for r.i < len(r.s) {
		switch c := r.s[r.i]; {
		case c == '"':
			r.i++
			return string(b)
		case c < ' ':
			r.fail("a control character stands in a text without being escaped")
			return ""
		case c != '\\':
			b = append(b, c)
			r.i++
		default:
			var ok bool
			if b, ok = r.escape(b); !ok {
				r.fail("a text holds an escape that JSON does not know")
				return ""
			}
		}
	}
	r.fail("a text has no end")
	return ""
}

// escape reads one escape and appends what it stands for.
func (r *reader) escape(b []byte) ([]byte, bool) {
	if r.i+1 >= len(r.s) {
		return b, false
	}
	c := r.s[r.i+1]
	if at := strings.IndexByte(`"\/bfnrt`, c); at >= 0 {
		r.i += 2
		return append(b, "\"\\/\b\f\n\r\t"[at]), true
	}
	u, ok := r.hex(r.i)
	if !ok {
		return b, false
	}
	r.i += 6
	if utf16.IsSurrogate(u) {
		// An escaped half stands alone unless the other half follows at once.
		low, ok := r.hex(r.i)
		if u = utf16.DecodeRune(u, low); ok && u != utf8.RuneError {
			r.i += 6
		} else {
			u = utf8.RuneError
		}
	}
	return utf8.AppendRune(b, u), true
}

// hex reads \uXXXX at i.
func (r *reader) hex(i int) (rune, bool) {
	if i+6 > len(r.s) || r.s[i] != '\\' || r.s[i+1] != 'u' {
		return 0, false
	}
	var u rune
	for _, c := range []byte(r.s[i+2 : i+6]) {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		u = u<<4 | rune(c)
	}
	return u, true
}

func (r *reader) number() any {
	n := numberLen(r.s[r.i:])
	if n == 0 {
		r.fail("this is no JSON number")
		return nil
	}
	lit := r.s[r.i : r.i+n]
	if _, ok := toFloat(lit); !ok {
		r.fail("a number is out of range")
		return nil
	}
	r.i += n
	return number(lit)
}

// numberLen is the length of the JSON number that s begins with, 0 when it begins with none.
func numberLen(s string) int {
	i := 0
	digits := func() bool {
		start := i
		for i < len(s) && s[i] >= '0' && s[i] <= '9' {
			i++
		}
		return i > start
	}
	if i < len(s) && s[i] == '-' {
		i++
	}
	if i < len(s) && s[i] == '0' {
		i++
	} else if !digits() {
		return 0
	}
	if i < len(s) && s[i] == '.' {
		i++
		if !digits() {
			return 0
		}
	}
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		i++
		if i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		if !digits() {
			return 0
		}
	}
	return i
}

// toFloat is the value of a JSON number; false when it is beyond the range of a float64. Minus zero
// becomes zero, because they are one number to everyone but a formatter.
func toFloat(lit string) (float64, bool) {
	f, err := strconv.ParseFloat(lit, 64)
	return f + 0, err == nil
}

// plain turns every number inside v into a float64, in place, and returns v.
func plain(v any) any {
	switch x := v.(type) {
	case number:
		f, _ := toFloat(string(x))
		return f
	case []any:
		for i := range x {
			x[i] = plain(x[i])
		}
	case map[string]any:
		for k, e := range x {
			x[k] = plain(e)
		}
	}
	return v
}
