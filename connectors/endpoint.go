package connectors

import (
	"github.com/lodestonehq/lodestone"
)

// Place is where an argument of an operation goes in the request.
type Place string

// The places of arguments.
const (
	InPath  Place = "path"
	InQuery Place = "query"
	InBody  Place = "body"
	// InPathAndBody is an argument that the body repeats.
	InPathAndBody Place = "path+body"
)

// BodyKind is what the body of a request is as a whole.
type BodyKind string

// The kinds of bodies.
const (
	NoBody     BodyKind = ""
	ObjectBody BodyKind = "object" // its keys are arguments of their own
	ListBody   BodyKind = "list"   // the argument `items` is the body
	TextBody   BodyKind = "text"   // the argument `email` is the body, as a JSON string
)

// The arguments that stand for a body as a whole.
const (
	ItemsArgument = "items"
	TextArgument  = "email"
)

// Endpoint is one operation of a provider's API, as its specification describes it: the catalogue
// that commands, rule files and agents choose from. Endpoints are generated from the specification.
type Endpoint struct {
	Name        string // the specification's operationId
	Title       string // what the provider's tools call it
	Summary     string
	Description string
	Method      string
	Path        string // with {variables}
	Effect      lodestone.Effect
	Repeatable  bool   // doing it again changes nothing more
	Deprecated  string // why, and what replaces it; empty: it is not
	HumanOnly   bool   // never from a rule or an agent: it undoes what a person asked for
	NoStep      string // why a step may not name it; empty: it may
	Quiet       bool   // leads to no contact with the person it names, such as an unsubscribe
	Body        BodyKind
	Arguments   []Argument // required ones first, then by name
	Paging      Paging
	Schema      string // JSON Schema (draft 2020-12) of the object of all arguments
	Whose       []Whose
}

// Whose says that a value among an operation's arguments stands for a person without being an address.
type Whose struct {
	Path string // names from the outside in, with dots between; lists are gone through
	Kind string // what it is an id of, in the connector's words
}

// Argument is one argument of an [Endpoint].
type Argument struct {
	Name        string
	In          Place
	Type        string // string, number, integer, boolean, array or object
	Format      string // email, where the specification says so
	Required    bool
	Description string
	Values      []string // what it may be, when that is a closed set
}

// Paging says how an operation that lists things is walked: by an offset counted in elements or by a
// page counted from 1. Both are empty when the operation gives everything at once.
type Paging struct {
	Offset string // name of the argument that counts elements to pass over
	Page   string // name of the argument that counts pages
	Size   string // name of the argument that says how many to give
}

// Pages reports whether the operation is walked in pages.
func (p Paging) Pages() bool { return p.Offset != "" || p.Page != "" }

// Contacts reports whether the operation may lead to contact with the people it names, so that their
// opt-outs stand in its way.
func (e *Endpoint) Contacts() bool {
	return !e.Quiet && !e.HumanOnly && (e.Effect == lodestone.EffectWrite || e.Effect == lodestone.EffectPay)
}

// Argument returns the argument of that name.
func (e *Endpoint) Argument(name string) (Argument, bool) {
	for _, a := range e.Arguments {
		if a.Name == name {
			return a, true
		}
	}
	return Argument{}, false
}
