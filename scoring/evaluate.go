package scoring

import (
	"errors"
	"math"
	"slices"
	"time"

	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/vm"

	"github.com/lodestonehq/lodestone"
)

// Facts is what expressions are evaluated on. A nil Context or Lead is an empty one.
type Facts struct {
	Form    string
	Fields  lodestone.Fields // of the submission
	Context *lodestone.Context
	Lead    *lodestone.Lead

	Score              int
	Band, PreviousBand string
	Scored             bool // false while scoring rules run: score, band and previous_band are nil then

	Now time.Time // the event's time, not the clock's

	// Sending says that what comes out goes to a provider and nowhere else: `links.…` are links that work. What
	// is kept or shown has [lodestone.HideLink] of them.
	Sending bool

	form any // Form, as programs see it
}

// Evaluator runs the programs of one schema on bound facts. It is not safe for concurrent use.
type Evaluator struct {
	schema  *Schema
	machine vm.VM // its variables are the facts, one for each of the slots
	slots   *slots
	facts   Facts
	form    any                             // the name of the last form that was bound: mostly it is the next one's as well
	at      struct{ fields, profile []int } // where the values of their slots were found the last time
}

func newEvaluator(s *Schema) *Evaluator {
	return &Evaluator{schema: s, slots: noSlots, machine: vm.VM{MemoryBudget: maxMemory}}
}

var noSlots = new(slots)

// Evaluator takes an evaluator from the schema's pool. Its user calls Bind before anything else
// and Release at the end.
func (s *Schema) Evaluator() *Evaluator { return s.pool.Get().(*Evaluator) }

// Release gives the evaluator back; it must not be used afterwards.
func (e *Evaluator) Release() {
	e.facts = Facts{} // do not keep a lead alive in the pool
	clear(e.machine.Variables)
	e.slots = noSlots
	e.schema.pool.Put(e)
}

// Bind sets the facts for the evaluations that follow. What the facts point to must not change
// until the next Bind or Release.
func (e *Evaluator) Bind(f Facts) {
	if last, ok := e.form.(string); !ok || last != f.Form {
		e.form = f.Form
	}
	e.facts, e.facts.form = f, e.form
	e.load()
}

// SetScore adds the outcome of scoring to the bound facts.
func (e *Evaluator) SetScore(score int, band, previous string) {
	e.facts.Score, e.facts.Band, e.facts.PreviousBand, e.facts.Scored = score, band, previous, true
	for _, v := range e.slots.scored {
		e.machine.Variables[v.slot] = v.load(&e.facts)
	}
}

// load binds the facts to the slots of all programs that were compiled so far.
func (e *Evaluator) load() {
	e.slots = e.schema.slots.Load()
	e.machine.Variables = slices.Grow(e.machine.Variables[:0], e.slots.n)[:e.slots.n]
	for _, v := range e.slots.others {
		e.machine.Variables[v.slot] = v.load(&e.facts)
	}
	e.at.fields = e.place(e.slots.fields, e.facts.Fields, e.at.fields)
	e.at.profile = e.place(e.slots.profile, e.facts.lead().Profile, e.at.profile)
}

// place binds values of fields. Submissions of one form have theirs in the same places, so it looks where it
// found them the last time, and returns where it found them now.
func (e *Evaluator) place(names []*variable, f lodestone.Fields, last []int) []int {
	if len(names) == 0 {
		return last
	}
	if len(last) != len(names) {
		last = make([]int, len(names))
	}
	list := f.List()
	for i, v := range names {
		at := last[i]
		if at >= len(list) || list[at].Name != v.field {
			var ok bool
			if at, ok = f.Find(v.field); !ok {
				e.machine.Variables[v.slot] = nil
				continue
			}
			last[i] = at
		}
		e.machine.Variables[v.slot] = fieldValue(list[at].Value, v.typ.base)
	}
	return last
}

// Bool evaluates a condition. The error is a [*Fault].
func (e *Evaluator) Bool(p *Program) (bool, error) {
	failed, err := e.Holds(p)
	return failed < 0 && err == nil, err
}

// Number evaluates a number. The error is a [*Fault], also when the result is nil or not finite.
func (e *Evaluator) Number(p *Program) (float64, error) {
	out, err := e.run(p)
	if err != nil {
		return 0, err
	}
	x, ok := out.(float64)
	switch {
	case out == nil:
		return 0, faultAt(p.source, 0, "this gives no number, because something in it is absent")
	case !ok:
		return 0, faultAt(p.source, 0, "this is not a number")
	case math.IsNaN(x) || math.IsInf(x, 0):
		return 0, faultAt(p.source, 0, "this gives no finite number; is something divided by zero?")
	}
	return x, nil
}

// Value evaluates a value: string, float64, bool or nil. A time becomes a text in RFC 3339, in UTC.
// The error is a [*Fault].
func (e *Evaluator) Value(p *Program) (any, error) {
	out, err := e.run(p)
	if err != nil {
		return nil, err
	}
	switch x := out.(type) {
	case nil, string, bool:
		return x, nil
	case float64:
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return nil, faultAt(p.source, 0, "this gives no finite number; is something divided by zero?")
		}
		return x, nil
	case time.Time:
		return x.UTC().Format(time.RFC3339), nil
	}
	return nil, faultAt(p.source, 0, "this is not a text, a number, or true or false")
}

func (e *Evaluator) run(p *Program) (any, error) {
	if p.code == nil {
		return e.Bool(p)
	}
	return e.runCode(p, p.code)
}

func (e *Evaluator) runCode(p *Program, code *vm.Program) (any, error) {
	if p.schema != e.schema {
		return nil, faultAt(p.source, 0, "this belongs to another version of the rule files")
	}
	if p.slots > e.slots.n {
		e.load()
	}
	out, err := e.machine.Run(code, nil)
	if err != nil {
		// The machine's own text repeats the source with a caret picture; the place is enough.
		at, message := new(file.Error), evalError("")
		errors.As(err, &at)
		if !errors.As(err, &message) {
			message = "this cannot be evaluated on these values"
		}
		return nil, faultAt(p.source, at.From, "%s", string(message))
	}
	return out, nil
}
