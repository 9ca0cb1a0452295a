package scoring

import (
	"errors"
	"math"
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
}

// Evaluator runs the programs of one schema on bound facts. It is not safe for concurrent use.
type Evaluator struct {
	schema  *Schema
	machine vm.VM // its variables are the facts, one for each of the first `bound` slots of the schema
	facts   Facts
	bound   int
}

func newEvaluator(s *Schema) *Evaluator {
	return &Evaluator{schema: s, machine: vm.VM{MemoryBudget: maxMemory}}
}

// Evaluator takes an evaluator from the schema's pool. Its user calls Bind before anything else
// and Release at the end.
func (s *Schema) Evaluator() *Evaluator { return s.pool.Get().(*Evaluator) }

// Release gives the evaluator back; it must not be used afterwards.
func (e *Evaluator) Release() {
	e.facts = Facts{} // do not keep a lead alive in the pool
	clear(e.machine.Variables)
	e.machine.Variables = e.machine.Variables[:0]
	e.bound = 0
	e.schema.pool.Put(e)
}

// Bind sets the facts for the evaluations that follow. What the facts point to must not change
// until the next Bind or Release.
func (e *Evaluator) Bind(f Facts) {
	e.facts = f
	e.machine.Variables, e.bound = e.machine.Variables[:0], 0
	e.load()
}

// SetScore adds the outcome of scoring to the bound facts.
func (e *Evaluator) SetScore(score int, band, previous string) {
	e.facts.Score, e.facts.Band, e.facts.PreviousBand, e.facts.Scored = score, band, previous, true
	for i, v := range (*e.schema.slots.Load())[:e.bound] {
		if v.scored {
			e.machine.Variables[i] = v.load(&e.facts)
		}
	}
}

// load binds the slots that are not yet bound: those of programs compiled since the last time.
func (e *Evaluator) load() {
	slots := *e.schema.slots.Load()
	for _, v := range slots[e.bound:] {
		e.machine.Variables = append(e.machine.Variables, v.load(&e.facts))
	}
	e.bound = len(slots)
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
	if p.slots > e.bound {
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
