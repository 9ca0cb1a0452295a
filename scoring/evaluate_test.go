package scoring

import (
	"fmt"
	"testing"

	"github.com/lodestonehq/lodestone"
)

// Each name is read from its own place, also by an evaluator that bound its facts before the program that
// names it was compiled, and after it was bound to others.
func TestEveryNameHasItsPlace(t *testing.T) {
	const fields = 40
	c := Config{Fields: make(map[string]lodestone.FieldType)}
	said := [2]map[string]any{{}, {}}
	for i := range fields {
		name := fmt.Sprint("f", i)
		c.Fields[name] = lodestone.FieldNumber
		said[0][name], said[1][name] = float64(i), float64(100+i)
	}
	delete(said[1], "f7")
	facts := [2]Facts{{Fields: lodestone.FieldsOf(said[0])}, {Fields: lodestone.FieldsOf(said[1])}}
	s := NewSchema(c)
	e := s.Evaluator()
	e.Bind(facts[0])
	var programs []*Program
	for i := range fields {
		p, err := s.Compile(fmt.Sprintf("fields.f%d - (fields.f%d ?? -1) * 1000", fields-1-i, i), Number)
		if err != nil {
			t.Fatal(err)
		}
		programs = append(programs, p)
		if got, err := e.Number(p); err != nil || got != float64(fields-1-i-1000*i) {
			t.Errorf("%s = %v, %v", p.Source(), got, err)
		}
	}
	e.Release()
	e = s.Evaluator()
	defer e.Release()
	for range 2 {
		e.Bind(facts[1])
		for i, p := range programs {
			got, err := e.Number(p)
			want := float64(100 + fields - 1 - i - 1000*(100+i))
			switch i {
			case 7:
				want = 100 + fields - 1 - 7 + 1000
			case fields - 1 - 7: // what is absent is not what another lead said
				if err == nil {
					t.Errorf("%s = %v, want a fault", p.Source(), got)
				}
				continue
			}
			if err != nil || got != want {
				t.Errorf("%s = %v, %v; want %v", p.Source(), got, err, want)
			}
		}
	}
}
