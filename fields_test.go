package lodestone

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"sync"
	"testing"

	"github.com/tinylib/msgp/msgp"
	"pgregory.net/rapid"
)

// asStored is a record of the map as earlier versions wrote it, its names in the order of a map, and with more
// kinds of values than forms have.
func asStored(t testing.TB, m map[string]any) []byte {
	b, err := msgp.AppendMapStrIntf(nil, m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func readFields(t testing.TB, b []byte) (f Fields) {
	left, err := f.UnmarshalMsg(append(b, "rest"...))
	if err != nil || string(left) != "rest" {
		t.Fatalf("read %x: %q is left, %v", b, left, err)
	}
	return f
}

var anyFields = rapid.MapOfN(rapid.SampledFrom([]string{"", "a", "b", "c", "country", "Ü", "a\"<b>&\u2028"}), rapid.OneOf(
	rapid.Just[any](true), rapid.Just[any](false), rapid.Map(rapid.Float64Range(-9, 9), func(x float64) any { return x }),
	rapid.Map(rapid.SampledFrom([]string{"", "DE", "x<y>&z\u2028\xff", string(make([]byte, 31)), string(make([]byte, 32)), string(make([]byte, 300)), string(make([]byte, 70_000))}), func(s string) any { return s }),
), 0, 7)

// Fields are what a map of them was: as JSON, as it is stored, and read from what is stored.
func TestFieldsAreAsAMap(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := anyFields.Draw(rt, "fields")
		made := FieldsOf(m)
		b, err := made.MarshalMsg([]byte("head"))
		if err != nil || !bytes.HasPrefix(b, []byte("head")) || len(b)-4 > made.Msgsize() {
			t.Fatalf("stored in %d bytes of %d: %v", len(b), made.Msgsize(), err)
		}
		if was, _, err := msgp.ReadMapStrIntfBytes(b[4:], nil); err != nil || !maps.Equal(was, m) {
			t.Fatalf("stored as %v, %v; want %v", was, err, m)
		}
		old := asStored(t, m)
		for _, f := range []Fields{made, readFields(t, b[4:]), readFields(t, old)} {
			again, err := f.MarshalMsg(nil)
			if err != nil || len(again) > f.Msgsize() || !maps.Equal(readFields(t, again).Map(), m) {
				t.Fatalf("stored again as %x, %v", again, err)
			}
			if f.Len() != len(m) || f.IsZero() != (len(m) == 0) || !maps.Equal(f.Map(), m) {
				t.Fatalf("%d fields %v, want %v", f.Len(), f, m)
			}
			if !slices.IsSortedFunc(f.List(), func(a, b FieldValue) int { return bytes.Compare([]byte(a.Name), []byte(b.Name)) }) {
				t.Fatalf("not sorted: %v", f.List())
			}
			for name := range m {
				if got := f.Value(name); got != m[name] {
					t.Fatalf("%q is %v, want %v", name, got, m[name])
				}
			}
			if got := f.Value("none"); got != nil {
				t.Fatalf("what is absent is %v", got)
			}
			for _, escape := range []bool{false, true} {
				var got, want bytes.Buffer
				g, w := json.NewEncoder(&got), json.NewEncoder(&want)
				g.SetEscapeHTML(escape)
				w.SetEscapeHTML(escape)
				if g.Encode(map[string]any{"x": f}) != nil || w.Encode(map[string]any{"x": m}) != nil || got.String() != want.String() {
					t.Fatalf("as JSON\n%s, want\n%s", got.String(), want.String())
				}
			}
		}
		text, _ := json.Marshal(m)
		var f Fields
		var want map[string]any
		if err := json.Unmarshal(text, &want); err != nil || json.Unmarshal(text, &f) != nil || !maps.Equal(f.Map(), want) {
			t.Fatalf("read %s as %v", text, f)
		}
	})
}

// A lead without a profile is stored and written as before there was a type for it.
func TestNoFields(t *testing.T) {
	b, err := (&Lead{Email: "ada@example.com"}).MarshalMsg(nil)
	if err != nil || bytes.Contains(b, []byte{0xa1, 'p'}) {
		t.Errorf("stored as %x, %v", b, err)
	}
	if text, err := json.Marshal(Enrollment{}); err != nil || bytes.Contains(text, []byte("fields")) {
		t.Errorf("written as %s, %v", text, err)
	}
	if f := readFields(t, []byte{0x80}); f != (Fields{}) {
		t.Errorf("an empty map is %v", f)
	}
}

// Over is the one map copied over the other, whichever of the two was stored and however; and it changes neither.
func TestOver(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		under := anyFields.Draw(rt, "under")
		over := anyFields.Draw(rt, "over")
		if rapid.Bool().Draw(rt, "mostly the same") {
			mixed := maps.Clone(under)
			for name, v := range over {
				if rapid.IntRange(0, 3).Draw(rt, "take") == 0 {
					mixed[name] = v
				}
			}
			over = mixed
		}
		want := maps.Clone(under)
		maps.Copy(want, over)
		forms := func(m map[string]any) []Fields {
			sorted, err := FieldsOf(m).MarshalMsg(nil)
			if err != nil {
				t.Fatal(err)
			}
			return []Fields{FieldsOf(m), readFields(t, sorted), readFields(t, asStored(t, m))}
		}
		for _, f := range forms(over) {
			for _, u := range forms(under) {
				got := f.Over(u)
				if !maps.Equal(got.Map(), want) || !maps.Equal(f.Map(), over) || !maps.Equal(u.Map(), under) {
					t.Fatalf("%v over %v is %v, want %v", over, under, got, want)
				}
				if again := f.Over(got); again != got && again != f {
					t.Fatalf("%v over %v is made anew", over, got)
				}
				if maps.Equal(want, under) && got != u && got != f {
					t.Fatalf("%v says nothing new over %v, and there is a copy", over, under)
				}
			}
		}
	})
}

// What was never a field's kind of value is kept, and what no form could have sent.
func TestOddFields(t *testing.T) {
	m := map[string]any{"n": nil, "i": int64(3), "l": []any{"x", 1.5}, "m": map[string]any{"y": true}, "f": float32(0.5)}
	f := readFields(t, asStored(t, m))
	if !reflect.DeepEqual(f.Map(), m) {
		t.Errorf("read %v, want %v", f.Map(), m)
	}
	if got := FieldsOf(m).Over(f); !reflect.DeepEqual(got.Map(), m) {
		t.Errorf("over itself it is %v", got.Map())
	}
	twice := append([]byte{0x83}, "\xa1b\x01\xa1a\x02\xa1b\x03"...)
	if f := readFields(t, twice); f.Len() != 2 || f.Value("b") != int64(3) {
		t.Errorf("of two of one name %v stay", f)
	}
	if f := NewFields([]FieldValue{{"b", 1.0}, {"a", 2.0}, {"b", 3.0}}); f.Len() != 2 || f.Value("b") != 3.0 {
		t.Errorf("of two of one name %v stay", f)
	}
	if _, err := (FieldsOf(map[string]any{"c": make(chan int)})).MarshalMsg(nil); err == nil {
		t.Error("a channel was stored")
	}
}

// Damage is found when a record is read, not when somebody looks, and never panics.
func FuzzFields(f *testing.F) {
	whole := asStored(f, map[string]any{"email": "ada@example.com", "size": 240.0, "ok": true, "long": string(make([]byte, 300)), "odd": []any{int64(1)}})
	for n := range whole {
		var x Fields
		if _, err := x.UnmarshalMsg(whole[:n]); err == nil || x != (Fields{}) {
			f.Errorf("%d bytes of %d are read as %v", n, len(whole), x)
		}
	}
	f.Add(whole)
	f.Add([]byte{0x81, 0x01, 0x01})
	f.Add([]byte{0xdf, 0xff, 0xff, 0xff, 0xff, 0xa1, 'a', 0xc0})
	f.Add(append([]byte{0x83}, "\xa1b\x01\xa1a\x02\xa1b\x03"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		var x Fields
		rest, err := x.UnmarshalMsg(b)
		want, left, wantErr := readAsBefore(b)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%x: %v, a map says %v", b, err, wantErr)
		}
		if err != nil {
			return
		}
		if !bytes.Equal(rest, left) || x.Len() != len(want) {
			t.Fatalf("%x: %d fields and %d bytes left, a map has %d and %d", b, x.Len(), len(rest), len(want), len(left))
		}
		first, _ := x.MarshalMsg(nil)
		for name, v := range x.All() {
			is, ok := want[name]
			if is, err := msgp.AppendIntf(nil, is); ok && err == nil {
				if got, err := msgp.AppendIntf(nil, v); err != nil || len(got) != len(is) {
					t.Fatalf("%x: %q is %v, a map has %v", b, name, v, want[name])
				}
			} else if !ok {
				t.Fatalf("%x: %q is in no map", b, name)
			}
		}
		if again, err := x.MarshalMsg(nil); err != nil || !bytes.Equal(first, again) {
			t.Fatalf("%x: stored as %x, then as %x, %v", b, first, again, err)
		}
	})
}

// readAsBefore reads a map as the generated code did.
func readAsBefore(b []byte) (m map[string]any, rest []byte, err error) {
	n, rest, err := msgp.ReadMapHeaderBytes(b)
	m = map[string]any{}
	for ; err == nil && n > 0; n-- {
		var name string
		if name, rest, err = msgp.ReadStringBytes(rest); err == nil {
			m[name], rest, err = msgp.ReadIntfBytes(rest)
		}
	}
	return m, rest, err
}

// Fields are read by many at once, before anybody has decoded them.
func TestFieldsAreShared(t *testing.T) {
	m := map[string]any{"email": "ada@example.com", "size": 240.0, "country": "DE"}
	f := readFields(t, asStored(t, m))
	b, err := FieldsOf(m).MarshalMsg(nil)
	if err != nil {
		t.Fatal(err)
	}
	g := readFields(t, b)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if f.Value("size") != 240.0 || g.Over(f).Value("country") != "DE" || !maps.Equal(g.Map(), m) {
				t.Errorf("%v and %v, want %v", f, g, m)
			}
			if again, err := g.MarshalMsg(nil); err != nil || !bytes.Equal(again, b) {
				t.Errorf("stored as %x, %v", again, err)
			}
		})
	}
	all.Wait()
	clear(b) // what they were read from may go
	if g.Value("email") != "ada@example.com" {
		t.Errorf("changed with the record: %v", g)
	}
}
