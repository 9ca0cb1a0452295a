package event

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/lodestonehq/lodestone"
)

// DecodeSubmission reads a message of the stream LODESTONE_FORMS. form returns what is declared of a
// form, nil when it is not declared. The submission counts when the rejection is nil. Its fields
// hold string, float64 or bool as the form declares; an optional one that was absent, blank or
// unusable has no key, and each unusable one has a note. Nothing in it shares memory with m.Data.
func DecodeSubmission(m Message, form func(name string) *lodestone.Form) (lodestone.Submission, *lodestone.Rejection) {
	e, f := open(m, func(t string) bool { return t == TypeSubmission })
	name, isForm := strings.CutPrefix(m.Subject, FormsPrefix)
	if !isForm {
		name = ""
	}
	if !isToken(name) && (f == nil || f.reason != lodestone.ReasonTooLarge) {
		f = &fault{lodestone.ReasonBadEnvelope, "the subject is not " + FormsPrefix + "<form>"}
	}
	if f != nil {
		return lodestone.Submission{}, f.reject(name, e.id, "")
	}
	var d decoder
	declared := form(name)
	p, f := d.split(&e, declared)
	if f != nil {
		return lodestone.Submission{}, f.reject(name, e.id, "")
	}
	if declared == nil {
		f = &fault{lodestone.ReasonUnknownForm, "no rule file declares this form; declare it under forms, then release it"}
		return lodestone.Submission{}, f.reject(name, e.id, guessEmail(p.fields))
	}
	email, fields, faults := d.fields(p.fields, declared)
	if len(faults) > 0 {
		f := faults[0].fault
		return lodestone.Submission{}, f.reject(name, e.id, email)
	}
	context := d.context(p.context, e.at)
	visitor := d.observed(&context, &m)
	honeypot(&context, declared, p.fields)
	return lodestone.Submission{
		ID:       e.id,
		Form:     name,
		Email:    email,
		Fields:   fields,
		Context:  context,
		Backfill: p.backfill,
		At:       e.at,
		Received: m.Time.UTC(),
		Seq:      m.Seq,
		Visitor:  visitor,
		Notes:    d.notes,
	}, nil
}

// decoder collects the notes of one submission.
type decoder struct{ notes []string }

func (d *decoder) note(format string, args ...any) {
	d.notes = append(d.notes, fmt.Sprintf(format, args...))
}

// payload is the data of a submission in its three parts.
type payload struct {
	fields   value // an object
	context  value
	backfill bool
}

// split finds the three parts. In plain JSON an object whose fields is no object is the fields
// itself; a CloudEvent always says fields. Where the form has a map, it is asked first.
func (d *decoder) split(e *envelope, form *lodestone.Form) (payload, *fault) {
	if form != nil && len(form.Map) > 0 {
		return d.mapped(e, form)
	}
	fields := e.data.of("fields")
	switch {
	case fields.kind() == isObject:
	case !e.ce:
		return payload{fields: e.data}, nil
	default:
		return payload{}, &fault{lodestone.ReasonNotAnObject, "the data's fields is " + kindOf(fields) + ", want an object"}
	}
	p := payload{fields: fields, context: e.data.of("context")}
	if f := p.readBackfill(e.data); f != nil {
		return payload{}, f
	}
	d.leftOut("the data", " holds more than fields, context and backfill", e.data, inData)
	return p, nil
}

// FieldFault is an objection to one field of a submission.
type FieldFault struct {
	Field  string // as the form declares it
	Reason lodestone.Reason
	Detail string // what was found and what would help, in words without personal data
}

// FieldFaults returns everything that keeps a message from being used which lies in its fields: the
// address first, then the others by name, so that the first is why [DecodeSubmission] rejects it. It
// is empty when the message can be used, and when it is rejected for something else.
func FieldFaults(m Message, form *lodestone.Form) (list []FieldFault) {
	e, f := open(m, func(t string) bool { return t == TypeSubmission })
	if f != nil {
		return nil
	}
	var d decoder
	p, f := d.split(&e, form)
	if f != nil {
		return nil
	}
	_, _, faults := d.fields(p.fields, form)
	for _, f := range faults {
		list = append(list, FieldFault{f.field, f.reason, f.detail})
	}
	return list
}

type fieldFault struct {
	*fault
	field string
}

func (p *payload) readBackfill(data value) *fault {
	switch b := data.of("backfill"); b.kind() {
	case absent:
	case isBool:
		p.backfill = b.text() == "true"
	default:
		// Guessing here could enroll, and write to, a whole list of old leads.
		return &fault{lodestone.ReasonBadEnvelope, "the data's backfill is " + kindOf(b) + ", want true or false"}
	}
	return nil
}

// fields takes what the form declares. The address comes first, then the others by name. On a fault
// the address is returned as far as it could be read.
func (d *decoder) fields(in value, form *lodestone.Form) (lodestone.Email, lodestone.Fields, []fieldFault) {
	var faults []fieldFault
	find := findIn(in)
	email, f := address(find.of(form.Email), "the field "+form.Email)
	if f != nil {
		faults = append(faults, fieldFault{f, form.Email})
	}
	out := make([]lodestone.FieldValue, 0, len(form.Fields)+1)
	own := lodestone.FieldValue{Name: form.Email, Value: string(email)}
	if _, declared := form.Fields[form.Email]; !declared {
		out = append(out, own)
	}
	var objections []string // names of the fields that give cause for one, sorted
	for _, name := range form.Names() {
		if name == form.Email {
			out = append(out, own)
			continue
		}
		v, wrong := take(find.of(name), form.Fields[name].Type)
		switch {
		case wrong == "" && v != nil:
			out = append(out, lodestone.FieldValue{Name: name, Value: v})
		case wrong != "" || form.Fields[name].Required:
			objections = append(objections, name)
		}
	}
	for _, name := range objections {
		declared := form.Fields[name]
		_, wrong := take(find.of(name), declared.Type)
		switch {
		case wrong != "" && declared.Required:
			faults = append(faults, fieldFault{&fault{lodestone.ReasonBadField, "the required field " + name + " " + wrong}, name})
		case wrong != "":
			d.note("the field %s was left out: it %s", name, wrong)
		default:
			faults = append(faults, fieldFault{&fault{lodestone.ReasonMissingField, "the required field " + name + " is absent or blank"}, name})
		}
	}
	if len(faults) > 0 {
		return email, lodestone.Fields{}, faults
	}
	d.leftOut("the form", " does not declare", in, func(name string) bool {
		_, ok := form.Fields[name]
		return ok || name == form.Email || name == form.Honeypot
	})
	return email, lodestone.NewFields(out), nil
}

// finder finds members of an object: with a map, where there are too many to look at each for every
// field of a form.
type finder struct {
	in     value
	byName map[string]value
}

func findIn(in value) finder {
	f := finder{in: in}
	if len(in) > 2*few {
		f.byName = make(map[string]value, 2*few)
		for v := range in.inner() {
			f.byName[v[0].name] = v
		}
	}
	return f
}

func (f finder) of(name string) value {
	if f.byName != nil {
		return f.byName[name]
	}
	return f.in.of(name)
}

// address reads the value that must be the lead's address.
func address(v value, what string) (lodestone.Email, *fault) {
	switch v.kind() {
	case absent:
	case isText:
		email, err := lodestone.ParseEmail(v.text())
		switch {
		case err == nil:
			return email, nil
		case !errors.Is(err, lodestone.ErrNoEmail):
			return "", &fault{lodestone.ReasonBadEmail, what + " is " + err.Error()}
		}
	default:
		return "", &fault{lodestone.ReasonBadEmail, what + " is " + kindOf(v) + ", want an email address"}
	}
	return "", &fault{lodestone.ReasonNoEmail, what + " is absent or blank"}
}

// take turns a JSON value into one of a declared type. Both results are empty for an absent or blank
// value; wrong says what does not fit.
func take(v value, t lodestone.FieldType) (taken any, wrong string) {
	if v.kind() == absent || v.kind() == isText && strings.TrimSpace(v.text()) == "" {
		return nil, ""
	}
	switch t {
	case lodestone.FieldEmail:
		if v.kind() != isText {
			return nil, "is " + kindOf(v) + ", want an email address"
		}
		e, err := lodestone.ParseEmail(v.text())
		if err != nil {
			return nil, "is " + err.Error()
		}
		return string(e), ""
	case lodestone.FieldNumber:
		switch {
		case v.kind() == isNumber:
			f, _ := toFloat(v.text())
			return f, ""
		case v.kind() != isText:
			return nil, "is " + kindOf(v) + ", want a number"
		case numberLen(v.text()) != len(v.text()):
			return nil, "is a text that is not exactly a number"
		}
		if f, inRange := toFloat(v.text()); inRange {
			return f, ""
		}
		return nil, "is out of range"
	case lodestone.FieldBoolean:
		if b, ok := truth(v); ok {
			return b, ""
		}
		if v.kind() == isText {
			return nil, "is a text that is not exactly true, false or on"
		}
		return nil, "is " + kindOf(v) + ", want true or false"
	}
	switch v.kind() {
	case isText, isBool:
		return v.text(), ""
	case isNumber:
		return v.numberText(), ""
	}
	return nil, "is " + kindOf(v) + ", want a text"
}

// truth reads a boolean, or the texts that stand for one; a ticked box of a web form says on.
func truth(v value) (given, ok bool) {
	switch {
	case v.kind() != isBool && v.kind() != isText:
		return false, false
	case v.text() == "true" || v.text() == "on":
		return true, true
	}
	return false, v.text() == "false"
}

// numberText is a number as a text: whole numbers with all their digits, others in the shortest form
// that is the same number.
func (v value) numberText() string {
	if !strings.ContainsAny(v.text(), ".eE") {
		if v.text() == "-0" {
			return "0"
		}
		return v.text()
	}
	f, _ := toFloat(v.text())
	if a := max(f, -f); a != 0 && (a < 1e-6 || a >= 1e21) {
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	return strconv.FormatFloat(f, 'f', -1, 64)
}

const (
	maxNamed = 10 // names in one note
	maxName  = 64 // characters of one name
)

// leftOut notes which keys of o are not known. Names come from outside, so only those that look like
// names are repeated: anything else could be somebody's address.
func (d *decoder) leftOut(part, why string, o value, known func(string) bool) {
	var names []string
	odd := 0
	for v := range o.inner() {
		switch name := v[0].name; {
		case known(name):
		case isName(name):
			names = append(names, name)
		default:
			odd++
		}
	}
	if len(names)+odd == 0 {
		return
	}
	slices.Sort(names)
	if n := len(names) - maxNamed; n > 0 {
		names, odd = names[:maxNamed], odd+n
	}
	for i, name := range names {
		if len(name) > maxName {
			names[i] = name[:maxName] + "…"
		}
	}
	list := strings.Join(names, ", ")
	switch {
	case odd > 0 && list != "":
		list += fmt.Sprintf(" and %d more", odd)
	case odd > 0:
		list = fmt.Sprintf("%d names", odd)
	}
	d.note("%s%s: %s; left out", part, why, list)
}

// isName reports whether s is made of ASCII letters, digits and what stands between words, and
// holds a letter.
func isName(s string) bool {
	letter := false
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z':
			letter = true
		case c >= '0' && c <= '9' || strings.IndexByte("_-.[] ", c) >= 0:
		default:
			return false
		}
	}
	return letter
}
