package lodestone

import "strings"

// The two verbs that the worker itself uses. A connector maps them to operations of its provider.
const (
	VerbInvite = "invite"
	VerbRefer  = "refer"
)

// Operation is what rule files and commands need to know of one operation of a connector: the
// fields of its request.
type Operation struct {
	Name       string // connector.operation, as in `do`
	Summary    string
	Parameters []Parameter
	Effect     Effect
	// NoStep says why a step may not name it, to be read after "cannot be a step: "; empty: it may.
	NoStep string
	// Again says that doing it once more changes nothing and reaches nobody, so that one whose outcome was
	// lost is simply done again.
	Again bool
}

// The types of parameters that hold others. Forms have no fields of these types.
const (
	FieldList   FieldType = "list"   // its elements are described by Items
	FieldObject FieldType = "object" // its fields are described by Fields; without any it takes every name
	FieldAny    FieldType = ""       // a value of any type
)

// Parameter is one value of an operation's request: a field of it, a field of one of its objects, or,
// without a name, an element of one of its lists.
type Parameter struct {
	Name        string
	Type        FieldType // of forms' fields, FieldList, FieldObject or FieldAny
	Required    bool
	Description string
	Values      []string    // what a text may be, where that is a closed set
	Items       *Parameter  // of a list: what each element is; nil: anything
	Fields      []Parameter // of an object: required ones first, then by name
	Least, Most int         // elements of a list; 0: no bound
	Length      int         // characters of a text at most; 0: no bound
	Holds       Holding     // what a text is read as
	Finds       bool        // the look-up of an outcome that was lost finds the act by it, or tells it from others
}

// Holding is what the provider reads a text as; what people wrote is made fit for it.
type Holding string

// What texts hold.
const (
	HoldsLine  Holding = ""      // one line of plain text
	HoldsLines Holding = "lines" // plain text that may have several lines
	HoldsURL   Holding = "url"   // the address of a page
	HoldsHTML  Holding = "html"  // markup
)

// Field returns the field of that name of an object.
func (p Parameter) Field(name string) (Parameter, bool) { return named(p.Fields, name) }

// Own reports whether the value is the lead's address where none is given: a request always names
// somebody by their address, and a step acts on nobody but its lead.
func (p Parameter) Own() bool { return p.Name == "email" && p.Type == FieldEmail }

// Effect says what an operation does to the provider's data.
type Effect string

// The effects of operations.
const (
	EffectRead    Effect = "read"
	EffectWrite   Effect = "write"
	EffectDestroy Effect = "destroy"
	EffectPay     Effect = "pay"
)

// Parameter returns the parameter of that name.
func (o Operation) Parameter(name string) (Parameter, bool) { return named(o.Parameters, name) }

func named(list []Parameter, name string) (Parameter, bool) {
	for _, p := range list {
		if p.Name == name {
			return p, true
		}
	}
	return Parameter{}, false
}

// SplitOperation splits connector.operation at its first dot.
func SplitOperation(do string) (connector, operation string) {
	connector, operation, _ = strings.Cut(do, ".")
	return connector, operation
}
