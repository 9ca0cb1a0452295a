// Package scoring compiles and evaluates the expressions of rule files: the conditions, points and
// values that say something about one lead and one submission. It does no I/O and reads no clock,
// so the same facts always give the same answer.
//
// What it promises:
//
//   - Typed before it runs. A name that does not exist, a comparison of a number with a text, a
//     condition that is none: each is a [Fault] of [Schema.Compile], with its line, its column and,
//     where there is one, the name that was probably meant.
//   - Absence is not a fault. A field that was left out is nil. A comparison with nil is false,
//     whatever the operator, except that == nil and != nil ask for presence. A boolean that is nil
//     counts as false where a condition is expected. Functions of text and time give nil for nil.
//     Arithmetic with nil is a fault of that evaluation, never of the process.
//   - Bounded by construction. The library underneath cannot be interrupted, so no expression is
//     accepted that could need to be: at most [MaxSource] bytes, [MaxDepth] levels and [MaxNodes]
//     nodes, one loop over at most [MaxElements] elements, constant patterns of bounded size, no
//     variables, ranges, powers or methods; and what an expression sees is cut to [MaxText] bytes.
//
// An expression can name
//
//	form                    the form's name
//	fields.NAME             what was submitted
//	lead.PART               email domain freemail disposable role first_seen submissions country zone tags
//	lead.profile.NAME       what is known from all submissions
//	context.PART            page ip user_agent timezone referral_code
//	context.consent.PART    marketing text at
//	utm.PART                source medium campaign term content, also as context.utm.PART;
//	                        context.utm_first.PART is that of the first visit that had any
//	risk.PART               score (0 to 100, see [Signs]) observed token fill_seconds honeypot bombed typo mx token_uses
//	                        address_submissions address_forms address_sources source_submissions
//	links.unsubscribe       a page where the lead unsubscribes; links.confirm: where they confirm their address
//	lists.NAME              the texts of a list
//	signals.KIND            whether one came back; signals_at.KIND is the latest time
//	score band previous_band   once scored
//	now                     the time of the event
//
// and can call len lower upper trim plain default abs floor ceil round min max int float string domain
// zone_of_country days_since matches, date("2026-03-31") and duration("48h") of fixed texts, and
// one of any all none one count filter map, in which # is the element. Texts are joined with + and
// told apart with contains, startsWith, endsWith and matches; in looks into a list.
//
// The language is expr (github.com/expr-lang/expr) less what the last point excludes. Its own
// checker is not used: this package checks types itself, because it has to know which operands can
// be nil and because its messages are read by people who do not program.
package scoring

import (
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/expr-lang/expr/vm"

	"github.com/lodestonehq/lodestone"
)

// Limits of an expression and of what it sees.
const (
	MaxSource   = 2 << 10 // bytes of source; checked before anything parses it
	MaxDepth    = 32      // brackets within brackets, or signs and nots in a row
	MaxNodes    = 300     // names, values, operators and calls
	MaxText     = 2 << 10 // bytes of one text that an expression sees; longer ones are cut
	MaxElements = 64      // elements that a loop goes over

	maxPattern  = 1_000     // instructions of one compiled pattern
	maxPatterns = 2_000     // instructions of all patterns of one expression
	maxJoined   = 8 << 10   // bytes of a text put together with +
	maxMemory   = 1_000_000 // budget of the evaluating machine, in elements of lists it makes
)

// Kind is what a program must yield.
type Kind int

// The kinds of programs.
const (
	Boolean Kind = iota // a condition; nil counts as false
	Number              // a finite number
	Text                // a text or nil
	Value               // a text, number, boolean or nil; a time becomes a text in RFC 3339
)

// Fault is what is wrong with an expression, or what went wrong while it was evaluated. Its
// message is written for the author of a rule file and holds no data of a lead.
type Fault struct {
	Line, Column int // from 1, in characters, inside the expression
	Offset       int // characters before the place
	Message      string
	Undeclared   bool // a field, list, form or other name is not declared; its declaration may be what is faulty
}

// Error gives line, column and message.
func (f *Fault) Error() string { return fmt.Sprintf("%d:%d: %s", f.Line, f.Column, f.Message) }

// faultAt makes a fault at a place given as characters before it.
func faultAt(source string, offset int, format string, args ...any) *Fault {
	f := &Fault{Line: 1, Column: 1, Message: fmt.Sprintf(format, args...)}
	for _, r := range source {
		if f.Offset >= offset {
			break
		}
		f.Offset++
		f.Column++
		if r == '\n' {
			f.Line, f.Column = f.Line+1, 1
		}
	}
	return f
}

// Config is what the rule files declare and expressions may name.
type Config struct {
	// Fields is the union over all forms; also the type of lead.profile. A field whose type is
	// empty is one whose declaration is faulty: it fits everywhere.
	Fields  map[string]lodestone.FieldType
	Lists   map[string][]string // those named as in [AddressLists] hold normal address parts
	Signals []lodestone.SignalKind

	// Forms and Bands are the names that `form` and `band` can be compared with. A nil slice
	// accepts any text.
	Forms []string
	Bands []string

	// What is known of them beyond their names, for deciding what can never be true: the fields of
	// each form and whether they are required, and the scores of each band. Nil says nothing.
	FormFields map[string]map[string]bool
	BandRanges []BandRange

	// Link is the address of a page for one lead: "unsubscribe" or "confirm". It follows from its
	// arguments alone. Nil: there are none.
	Link func(name string, email lodestone.Email, now time.Time) string
}

// Schema says which names exist and of which type they are; one per version of the rule files. It
// is immutable to its users and safe for concurrent use.
type Schema struct {
	names  map[string]*variable           // by full name, as in lead.email
	spaces map[string][]string            // parts of a name that has parts, sorted
	lists  map[string]map[string]struct{} // for `in`, by name of the list
	fields []string                       // sorted

	formFields map[string]map[string]bool // see Config
	bands      []BandRange                // see Config

	pool sync.Pool // of *Evaluator

	mu    sync.Mutex            // guards writing slots
	slots atomic.Pointer[slots] // of the names that compiled programs use; another one where there are more
}

// NewSchema builds the schema of a configuration, which must not change afterwards.
func NewSchema(c Config) *Schema {
	s := &Schema{
		names:  make(map[string]*variable),
		spaces: make(map[string][]string),
		lists:  make(map[string]map[string]struct{}),

		formFields: c.FormFields, bands: c.BandRanges,
	}
	s.slots.Store(noSlots)
	s.declare(c)
	for space := range s.spaces {
		slices.Sort(s.spaces[space])
	}
	s.fields = s.spaces["fields"]
	s.pool.New = func() any { return newEvaluator(s) }
	return s
}

// Program is a compiled expression. It is immutable and safe for concurrent use, by evaluators of
// the schema that compiled it.
type Program struct {
	schema *Schema
	source string
	yields Type
	names  []string    // what it reads of its facts
	slots  int         // how many of the schema's slots must be bound before it runs
	code   *vm.Program // nil for a condition, which has parts
	parts  []Part
}

// Source returns the expression as it was written.
func (p *Program) Source() string { return p.source }

// Yields returns the type that the checker found for the program's result.
func (p *Program) Yields() Type { return p.yields }

// Names returns what the program reads of its facts, as in "fields.country" or "lists.competitors".
func (p *Program) Names() []string { return slices.Clone(p.names) }

// AllNames goes through what Names returns.
func (p *Program) AllNames() iter.Seq[string] { return slices.Values(p.names) }

// Uses reports whether the program reads a name.
func (p *Program) Uses(name string) bool { return slices.Contains(p.names, name) }

// Compile checks an expression and compiles it. The error is a [*Fault].
func (s *Schema) Compile(source string, kind Kind) (*Program, error) {
	return s.compile(source, kind, false)
}

// CompileScoring compiles an expression that is evaluated before there is a score: the points and
// conditions of scoring rules, and a form's zone. In it score, band and previous_band are faults.
func (s *Schema) CompileScoring(source string, kind Kind) (*Program, error) {
	return s.compile(source, kind, true)
}

// slot makes names available to evaluators and returns how many slots there are.
func (s *Schema) slot(vs []*variable) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	is := s.slots.Load()
	next := *is
	for _, v := range vs {
		if !v.slotted {
			v.slotted, v.slot = true, next.n
			next.add(v)
		}
	}
	if next.n > is.n {
		s.slots.Store(&next)
	}
	return next.n
}

// slots are the names that have a place among a machine's variables, by how their values are found. They do
// not change.
type slots struct {
	n               int
	fields, profile []*variable // fields.NAME and lead.profile.NAME
	others          []*variable
	scored          []*variable // of others: those that are there once there is a score
}

// add gives a name the next place. It writes behind the end of what others read.
func (s *slots) add(v *variable) {
	s.n++
	if v.field == "" {
		s.others = append(s.others, v)
		if v.scored {
			s.scored = append(s.scored, v)
		}
		return
	}
	list := &s.fields
	if strings.HasPrefix(v.name, "lead.") {
		list = &s.profile
	}
	*list = append(*list, v)
}
