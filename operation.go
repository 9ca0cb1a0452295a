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
}

// Parameter is one field of an operation's request.
type Parameter struct {
	Name        string
	Type        FieldType // email, text, number or boolean
	Required    bool
	Description string
}

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
func (o Operation) Parameter(name string) (Parameter, bool) {
	for _, p := range o.Parameters {
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
