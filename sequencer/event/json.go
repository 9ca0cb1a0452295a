package event

import (
	"fmt"
	"iter"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/lodestonehq/lodestone"
)

// value is a JSON value: the node of its own, and after it those of what it holds, in the order of the
// text. The empty value is null, which stands for absent as well.
type value []node

type node struct {
	name string // under which an object holds it
	text string // of a text; of a number and a boolean as it was written
	size uint32 // nodes of the value, this one counts
	kind kind
}

type kind uint8

// The kinds of values.
const (
	absent kind = iota
	isBool
	isNumber
	isText
	isList
	isObject
)

func (v value) kind() kind {
	if len(v) == 0 {
		return absent
	}
	return v[0].kind
}

// text is that of a text, a number or a boolean; "" of what is none of them.
func (v value) text() string {
	if len(v) == 0 {
		return ""
	}
	return v[0].text
}

// inner goes through what an object or a list holds.
func (v value) inner() iter.Seq[value] {
	return func(yield func(value) bool) {
		if len(v) == 0 {
			return
		}
		for rest := v[1:]; len(rest) > 0; rest = rest[rest[0].size:] {
			if !yield(rest[:rest[0].size]) {
				return
			}
		}
	}
}

// lookup is what an object holds under a name; false when the name is not there.
func (v value) lookup(name string) (value, bool) {
	if v.kind() != isObject {
		return nil, false
	}
	for rest := v[1:]; len(rest) > 0; rest = rest[rest[0].size:] {
		if rest[0].name == name {
			return rest[:rest[0].size], true
		}
	}
	return nil, false
}

// of is what an object holds under a name; empty where it is not there, and for what is no object.
func (v value) of(name string) value {
	found, _ := v.lookup(name)
	return found
}

// number is a JSON number as it was written, in the trees that paths lead through: as a text it keeps
// every digit of a long customer number.
type number string

// tree is the value as nil, bool, number, string, []any and map[string]any.
func (v value) tree() any {
	switch v.kind() {
	case isBool:
		return v.text() == "true"
	case isNumber:
		return number(v.text())
	case isText:
		return v.text()
	case isList:
		list := []any{}
		for e := range v.inner() {
			list = append(list, e.tree())
		}
		return list
	case isObject:
		o := map[string]any{}
		for e := range v.inner() {
			o[e[0].name] = e.tree()
		}
		return o
	}
	return nil
}

// valueOf is the value of a tree; an object's members come in no order.
func valueOf(tree any) value { return value(nil).with("", tree) }

// with is v and after it the nodes of a tree.
func (v value) with(name string, tree any) value {
	at := len(v)
	v = append(v, node{name: name})
	switch x := tree.(type) {
	case bool:
		v[at].kind, v[at].text = isBool, strconv.FormatBool(x)
	case number:
		v[at].kind, v[at].text = isNumber, string(x)
	case string:
		v[at].kind, v[at].text = isText, x
	case []any:
		v[at].kind = isList
		for _, e := range x {
			v = v.with("", e)
		}
	case map[string]any:
		v[at].kind = isObject
		for name, e := range x {
			v = v.with(name, e)
		}
	}
	v[at].size = uint32(len(v) - at)
	return v
}

// fault is an objection without the parts that every rejection has.
type fault struct {
	reason lodestone.Reason
	detail string
}

func (f *fault) Error() string { return string(f.reason) + ": " + f.detail }

// readJSON reads one JSON text (RFC 8259) in a single pass. It is stricter than encoding/json: see the
// package comment. Texts without escapes share one copy of the message.
func readJSON(data []byte) (value, *fault) {
	r := reader{s: string(data)}
	if !utf8.ValidString(r.s) {
		return nil, &fault{lodestone.ReasonNotJSON, "the body is not UTF-8; send it as UTF-8"}
	}
	// Before each node but the first stands a comma or the bracket of what holds it. Beyond a size that
	// is usual the nodes grow as they come, because commas in a text cost a sender nothing.
	r.out = make(value, 0, min(1+strings.Count(r.s, ",")+strings.Count(r.s, "{")+strings.Count(r.s, "["), 64))
	r.value("")
	r.blank()
	if r.fault == nil && r.i < len(r.s) {
		r.fail("there is something after the JSON value")
	}
	if r.fault != nil {
		return nil, r.fault
	}
	return r.out, nil
}

type reader struct {
	s     string
	i     int
	depth int
	out   value  // what was read so far
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

// value reads a value under a name.
func (r *reader) value(name string) {
	switch c := r.next(); {
	case c == '{':
		r.object(name)
	case c == '[':
		r.list(name)
	case c == '"':
		r.add(name, isText, r.text())
	case c == '-' || c >= '0' && c <= '9':
		r.number(name)
	case c == 't':
		r.word(name, isBool, "true")
	case c == 'f':
		r.word(name, isBool, "false")
	case c == 'n':
		r.word(name, absent, "null")
	case c == 0 && r.i >= len(r.s):
		r.fail("the JSON text ends too early")
	default:
		r.fail("this is no JSON value")
	}
}

func (r *reader) add(name string, k kind, text string) {
	r.out = append(r.out, node{name: name, text: text, size: 1, kind: k})
}

func (r *reader) word(name string, k kind, w string) {
	if !strings.HasPrefix(r.s[r.i:], w) {
		r.fail("this is no JSON value")
		return
	}
	r.i += len(w)
	if k == absent {
		w = ""
	}
	r.add(name, k, w)
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

// leave ends the object or list that began at a node.
func (r *reader) leave(at int) {
	r.i++
	r.depth--
	r.out[at].size = uint32(len(r.out) - at)
}

func (r *reader) object(name string) {
	at := len(r.out)
	if r.add(name, isObject, ""); !r.enter() {
		return
	}
	if r.next() == '}' {
		r.leave(at)
		return
	}
	var names map[string]struct{} // of an object of many
	for n := 0; ; n++ {
		if r.next() != '"' {
			r.fail("a key is expected here")
			return
		}
		start, first := r.i, len(r.out)
		key := r.text()
		if r.next() != ':' {
			r.fail("a colon is expected here")
			return
		}
		r.i++
		r.value(key)
		if r.fault != nil {
			return
		}
		twice := false
		if names, twice = noted(names, r.out[at+1:first], n, key); twice {
			r.i = start
			r.fail("a key is there twice in one object")
			return
		}
		switch r.next() {
		case ',':
			r.i++
		case '}':
			r.leave(at)
			return
		default:
			r.fail("a comma or the end of the object is expected here")
			return
		}
	}
}

// few is how many names are compared one by one; of more there is a map.
const few = 16

// noted notes the name of another member of an object, and reports whether one of the n before has it.
func noted(names map[string]struct{}, before value, n int, name string) (map[string]struct{}, bool) {
	if names == nil {
		if n >= few {
			names = make(map[string]struct{}, 4*few)
		}
		for ; len(before) > 0; before = before[before[0].size:] {
			if before[0].name == name {
				return names, true
			}
			if names != nil {
				names[before[0].name] = struct{}{}
			}
		}
		if names == nil {
			return nil, false
		}
	}
	n = len(names)
	names[name] = struct{}{}
	return names, len(names) == n
}

func (r *reader) list(name string) {
	at := len(r.out)
	if r.add(name, isList, ""); !r.enter() {
		return
	}
	if r.next() == ']' {
		r.leave(at)
		return
	}
	for {
		r.value("")
		if r.fault != nil {
			return
		}
		switch r.next() {
		case ',':
			r.i++
		case ']':
			r.leave(at)
			return
		default:
			r.fail("a comma or the end of the list is expected here")
			return
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

func (r *reader) number(name string) {
	n := numberLen(r.s[r.i:])
	if n == 0 {
		r.fail("this is no JSON number")
		return
	}
	lit := r.s[r.i : r.i+n]
	if _, ok := toFloat(lit); !ok {
		r.fail("a number is out of range")
		return
	}
	r.i += n
	r.add(name, isNumber, lit)
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

// plain turns every number inside a tree into a float64, in place, and returns it.
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
