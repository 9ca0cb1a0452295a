package scoring

import (
	"reflect"
	"time"

	"github.com/lodestonehq/lodestone"
)

// Type is the static type of an expression.
type Type struct {
	base     base
	element  base // of a list
	optional bool // it can be nil
}

// base is a type without its optionality.
type base int

const (
	unknown base = iota // after a fault; fits everywhere, so that one mistake is reported once
	absent              // the literal nil
	text
	number
	boolean
	moment
	span
	list
	mixed // of one type or another, as in `a ? 1 : "x"`
)

var words = map[base]string{
	unknown: "a value", absent: "nil", text: "a text", number: "a number", boolean: "true or false",
	moment: "a time", span: "a duration", list: "a list", mixed: "a value of changing type",
}

// String names the type in words: "a text", "a number, or nil".
func (t Type) String() string { return words[t.base] }

// Optional reports whether the value can be nil.
func (t Type) Optional() bool { return t.optional || t.base == absent }

// Fits reports whether a value of the type can be used where a field of type f is expected. A time
// fits a text, because that is what it becomes outside of expressions.
func (t Type) Fits(f lodestone.FieldType) bool {
	switch t.base {
	case unknown, absent, mixed:
		return true
	case text, moment:
		return f == lodestone.FieldText || f == lodestone.FieldEmail
	case number:
		return f == lodestone.FieldNumber
	case boolean:
		return f == lodestone.FieldBoolean
	}
	return false
}

// typeOf translates the type of a declared field; it is not optional.
func typeOf(f lodestone.FieldType) Type {
	switch f {
	case lodestone.FieldNumber:
		return Type{base: number}
	case lodestone.FieldBoolean:
		return Type{base: boolean}
	case "":
		return Type{}
	}
	return Type{base: text}
}

// join is the type of a value that is one or the other.
func join(a, b Type) Type {
	optional := a.Optional() || b.Optional()
	switch {
	case a.base == b.base && a.element == b.element:
		return Type{base: a.base, element: a.element, optional: optional}
	case a.base == absent:
		return Type{base: b.base, element: b.element, optional: true}
	case b.base == absent:
		return Type{base: a.base, element: a.element, optional: true}
	case a.base == unknown || b.base == unknown:
		return Type{optional: optional}
	}
	return Type{base: mixed, optional: optional}
}

// optionalText stands for a text that can be nil. The compiler underneath compares texts without
// looking for nil when both sides have the type string, so only texts that are never nil get it.
type optionalText string

var (
	stringType       = reflect.TypeFor[string]()
	optionalTextType = reflect.TypeFor[optionalText]()
	floatType        = reflect.TypeFor[float64]()
	boolType         = reflect.TypeFor[bool]()
	timeType         = reflect.TypeFor[time.Time]()
	durationType     = reflect.TypeFor[time.Duration]()
	anysType         = reflect.TypeFor[[]any]()
	functionType     = reflect.TypeFor[func(...any) any]()
)

// goType is what the compiler underneath is told. It decides on fast paths and on whether pointers
// are followed, so any concrete type is better than none; the value nil is fine for all of these.
func (t Type) goType() reflect.Type {
	switch t.base {
	case text:
		if t.optional {
			return optionalTextType
		}
		return stringType
	case number:
		return floatType
	case boolean:
		return boolType
	case moment:
		return timeType
	case span:
		return durationType
	case list:
		return anysType
	}
	return optionalTextType
}
