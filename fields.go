package lodestone

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/tinylib/msgp/msgp"
)

// Fields are the values of a form's fields: text as string, number as float64, boolean as bool. One that is
// absent has no value. They do not change once they are made, so copies share them, also between goroutines;
// the zero value has none.
//
// Those that were read from a record are kept as they are stored and are decoded when somebody looks: most
// who read a lead look at none of them, and write them again as they were.
type Fields struct{ of *fields }

type fields struct {
	stored string // a msgp map; "": they were never stored
	n      int
	sorted bool // stored is in the order of the names

	once sync.Once // guards what follows where there is stored
	list []FieldValue
}

// FieldValue is one value with its name.
type FieldValue struct {
	Name  string
	Value any // string, float64 or bool
}

// NewFields holds values. The list is theirs from then on; of two values of one name the later counts.
func NewFields(list []FieldValue) Fields {
	if len(list) == 0 {
		return Fields{}
	}
	list = inOrder(list)
	return Fields{&fields{n: len(list), list: list}}
}

// FieldsOf holds the values of a map.
func FieldsOf(m map[string]any) Fields {
	list := make([]FieldValue, 0, len(m))
	for name, v := range m {
		list = append(list, FieldValue{name, v})
	}
	return NewFields(list)
}

// inOrder sorts a list by name; of two of one name the later stays.
func inOrder(list []FieldValue) []FieldValue {
	for i := 1; i < len(list); i++ {
		if list[i-1].Name >= list[i].Name {
			slices.SortStableFunc(list, func(a, b FieldValue) int { return cmp.Compare(a.Name, b.Name) })
			kept := list[:0]
			for i, v := range list {
				if i+1 == len(list) || list[i+1].Name != v.Name {
					kept = append(kept, v)
				}
			}
			return kept
		}
	}
	return list
}

// Len is how many there are.
func (f Fields) Len() int {
	if f.of == nil {
		return 0
	}
	return f.of.n
}

// IsZero reports whether there are none.
func (f Fields) IsZero() bool { return f.Len() == 0 }

// Value is the value of that name, nil when it is absent.
func (f Fields) Value(name string) any {
	at, ok := f.Find(name)
	if !ok {
		return nil
	}
	return f.of.list[at].Value
}

// Find is where in the list that name is, ok false: it is absent.
func (f Fields) Find(name string) (at int, ok bool) {
	return slices.BinarySearchFunc(f.List(), name, func(v FieldValue, name string) int { return strings.Compare(v.Name, name) })
}

// List returns them sorted by name. It must not be changed.
func (f Fields) List() []FieldValue {
	if f.of == nil {
		return nil
	}
	if f.of.stored != "" {
		f.of.once.Do(f.of.decode)
	}
	return f.of.list
}

// All goes through them in the order of their names.
func (f Fields) All() iter.Seq2[string, any] {
	return func(yield func(string, any) bool) {
		for _, v := range f.List() {
			if !yield(v.Name, v.Value) {
				return
			}
		}
	}
}

// Map returns a map of them that is the caller's own.
func (f Fields) Map() map[string]any { return maps.Collect(f.All()) }

// String writes them as fmt writes a map.
func (f Fields) String() string { return fmt.Sprint(f.Map()) }

// Over returns what f says, and what under says of the names that f does not say. It is one of the two where
// that says the same already.
func (f Fields) Over(under Fields) Fields {
	switch {
	case f.of == under.of || f.Len() == 0:
		return under
	case under.Len() == 0:
		return f
	case f.storedAs(under):
		if f.of.stored != "" {
			return f
		}
		return under
	}
	a, b := f.List(), under.List()
	if alike(a, b) {
		return under
	}
	news, more := false, 0 // f says something that under does not; how much under says that f does not
	for i, j := 0, 0; i < len(a) || j < len(b); {
		switch order(a, i, b, j) {
		case -1:
			news = true
			i++
		case 1:
			more++
			j++
		default:
			news = news || !same(a[i].Value, b[j].Value)
			i++
			j++
		}
	}
	switch {
	case !news:
		return under
	case more == 0:
		return f
	}
	list := make([]FieldValue, 0, len(a)+more)
	for i, j := 0, 0; i < len(a) || j < len(b); {
		switch order(a, i, b, j) {
		case -1:
			list = append(list, a[i])
			i++
		case 1:
			list = append(list, b[j])
			j++
		default:
			list = append(list, a[i])
			i++
			j++
		}
	}
	return Fields{&fields{n: len(list), list: list}}
}

// alike reports whether two lists are the same: most submissions say what is known.
func alike(a, b []FieldValue) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Name != b[i].Name || !same(a[i].Value, b[i].Value) {
			return false
		}
	}
	return true
}

// order compares the names at two places of sorted lists; one that is at its end comes last.
func order(a []FieldValue, i int, b []FieldValue, j int) int {
	switch {
	case j == len(b):
		return -1
	case i == len(a):
		return 1
	case a[i].Name == b[j].Name: // mostly, and quick to see
		return 0
	}
	return cmp.Compare(a[i].Name, b[j].Name)
}

// same reports whether two values of fields are one. What is neither text, number nor boolean is never the
// same.
func same(a, b any) bool {
	switch a := a.(type) {
	case string:
		b, ok := b.(string)
		return ok && a == b
	case float64:
		b, ok := b.(float64)
		return ok && a == b
	case bool:
		b, ok := b.(bool)
		return ok && a == b
	}
	return false
}

// storedAs reports whether two are the same in their stored form, where one of them has it. False says nothing.
func (f Fields) storedAs(g Fields) bool {
	if f.of.stored == "" {
		f, g = g, f
	}
	switch {
	case f.of.stored == "" || f.of.n != g.of.n:
		return false
	case g.of.stored != "":
		return f.of.stored == g.of.stored
	case !f.of.sorted:
		return false
	}
	buf := fieldRoom.Get().(*[]byte)
	defer fieldRoom.Put(buf)
	b, err := g.MarshalMsg((*buf)[:0])
	if cap(b) <= 64<<10 {
		*buf = b
	}
	return err == nil && string(b) == f.of.stored
}

// fieldRoom are buffers to encode fields in for a comparison.
var fieldRoom = sync.Pool{New: func() any { return new([]byte) }}

// MarshalJSON writes an object, as of a map.
func (f Fields) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // whoever encodes the whole escapes it, or does not want to
	put := func(v any, then byte) error {
		if err := enc.Encode(v); err != nil {
			return err
		}
		b.Bytes()[b.Len()-1] = then // for the line feed that Encode ends with
		return nil
	}
	b.WriteByte('{')
	for _, v := range f.List() {
		if err := put(v.Name, ':'); err != nil {
			return nil, err
		}
		if err := put(v.Value, ','); err != nil {
			return nil, err
		}
	}
	if f.Len() > 0 {
		b.Truncate(b.Len() - 1)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// UnmarshalJSON reads an object.
func (f *Fields) UnmarshalJSON(b []byte) error {
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	*f = FieldsOf(m)
	return nil
}

// Msgsize is the most that MarshalMsg appends, in bytes.
func (f Fields) Msgsize() int {
	if f.of != nil && f.of.stored != "" {
		return len(f.of.stored)
	}
	size := msgp.MapHeaderSize
	for _, v := range f.List() {
		size += msgp.StringPrefixSize + len(v.Name) + msgp.GuessSize(v.Value)
	}
	return size
}

// MarshalMsg appends a map.
func (f Fields) MarshalMsg(b []byte) (_ []byte, err error) {
	if f.of != nil && f.of.stored != "" {
		return append(b, f.of.stored...), nil
	}
	list := f.List()
	b = msgp.AppendMapHeader(b, uint32(len(list)))
	for _, v := range list {
		b = msgp.AppendString(b, v.Name)
		switch x := v.Value.(type) {
		case string:
			b = msgp.AppendString(b, x)
		case float64:
			b = msgp.AppendFloat64(b, x)
		case bool:
			b = msgp.AppendBool(b, x)
		default:
			if b, err = msgp.AppendIntf(b, x); err != nil {
				return b, msgp.WrapError(err, v.Name)
			}
		}
	}
	return b, nil
}

// UnmarshalMsg reads a map at the head of b and returns what follows it. It checks all of the map, so that
// decoding it later cannot fail, and keeps a copy: b is only valid as long as its transaction.
func (f *Fields) UnmarshalMsg(b []byte) ([]byte, error) {
	n, rest, err := msgp.ReadMapHeaderBytes(b)
	if err != nil {
		return b, err
	}
	if *f = (Fields{}); n == 0 {
		return rest, nil
	}
	s, sorted, last := msgp.UnsafeString(rest), true, "" // only looked at before b is left
	for i := range n {
		var name string
		if name, s, err = cutText(s); err != nil {
			return b, err
		}
		if s, err = cutValue(s, nil); err != nil {
			return b, msgp.WrapError(err, strings.Clone(name))
		}
		sorted = sorted && (i == 0 || last < name)
		last = name
	}
	end := len(b) - len(s)
	f.of = &fields{stored: string(b[:end]), n: int(n), sorted: sorted}
	if !sorted { // earlier versions wrote the order of a map; there, one name could have come twice
		f.of.once.Do(f.of.decode)
		f.of.n = len(f.of.list)
	}
	return b[end:], nil
}

// decode fills the list from what is stored, which UnmarshalMsg has checked. Texts and names stay where they are.
func (f *fields) decode() {
	n, rest, _ := msgp.ReadMapHeaderBytes([]byte(f.stored[:min(len(f.stored), msgp.MapHeaderSize)]))
	s := f.stored[min(len(f.stored), msgp.MapHeaderSize)-len(rest):]
	list := make([]FieldValue, n)
	for i := range list {
		list[i].Name, s, _ = cutText(s)
		s, _ = cutValue(s, &list[i].Value)
	}
	f.list = inOrder(list)
}

// cutText takes a text of msgp from the head of s.
func cutText(s string) (text, rest string, err error) {
	head, n := 0, 0
	switch {
	case s == "":
	case s[0]>>5 == 0b101:
		head, n = 1, int(s[0]&31)
	case s[0] == 0xd9 && len(s) >= 2:
		head, n = 2, int(s[1])
	case s[0] == 0xda && len(s) >= 3:
		head, n = 3, int(s[1])<<8|int(s[2])
	case s[0] == 0xdb && len(s) >= 5:
		head, n = 5, int(s[1])<<24|int(s[2])<<16|int(s[3])<<8|int(s[4])
	}
	if head == 0 || len(s)-head < n {
		_, _, err := msgp.ReadStringBytes([]byte(s))
		return "", s, err
	}
	return s[head : head+n], s[head+n:], nil
}

// cutValue takes any value of msgp from the head of s into v, nil: it is only checked.
func cutValue(s string, v *any) (rest string, err error) {
	if s == "" {
		return s, msgp.ErrShortBytes
	}
	switch c := s[0]; {
	case c>>5 == 0b101, c >= 0xd9 && c <= 0xdb:
		text, rest, err := cutText(s)
		if err == nil && v != nil {
			*v = text
		}
		return rest, err
	case c == 0xcb && len(s) >= 9:
		if v != nil {
			var bits uint64
			for i := 1; i < 9; i++ {
				bits = bits<<8 | uint64(s[i])
			}
			*v = math.Float64frombits(bits)
		}
		return s[9:], nil
	case c == 0xc2, c == 0xc3:
		if v != nil {
			*v = c == 0xc3
		}
		return s[1:], nil
	}
	x, left, err := msgp.ReadIntfBytes([]byte(s)) // no form has such a field
	if err == nil && v != nil {
		*v = x
	}
	return s[len(s)-len(left):], err
}
