package rules

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/scoring"
)

// withReader reads one `with`.
type withReader struct {
	*compiler
	d      *document
	do     string
	values int // read so far, those within lists and mappings included
}

// arguments checks `with` against the parameters of an operation.
func (c *compiler) arguments(d *document, do, with *yaml.Node, op lodestone.Operation, s *Step) {
	w := &withReader{compiler: c, d: d, do: s.Do}
	if with == nil || with.ShortTag() == "!!null" {
		w.absent(do, s.Do, "with", op.Parameters, nil)
		return
	}
	s.With = w.fields(with, do, s.Do, "", op.Parameters)
}

// fields reads the entries of a mapping that takes the fields of list. What is missing is reported at
// place; path is where the mapping stands, empty for `with` itself.
func (w *withReader) fields(n, place *yaml.Node, owner, path string, list []lodestone.Parameter) []Argument {
	args := make(map[string]Template)
	var known []string
	for _, p := range list {
		known = append(known, p.Name)
	}
	for _, e := range w.entries(w.d, n, "{firstName: '${fields.first_name}'}") {
		i := slices.Index(known, e.name)
		if i < 0 {
			w.fault(w.d, e.key, "%s takes no %s%s", owner, e.name, suggestion(e.name, known))
			args[scoring.Closest(e.name, known)] = Template{} // it is not missing too
			continue
		}
		args[e.name] = w.value(e.value, join(path, e.name), list[i])
		if list[i].Finds && !w.opts.Kept {
			for _, link := range []string{"links.confirm", "links.unsubscribe"} {
				if args[e.name].uses(link) {
					w.fault(w.d, e.value, "%s holds ${%s}; the provider finds this act by it when its outcome was lost, and links are not kept as they are sent, so it would not be found; leave the link out of %[1]s and put it into another value", e.name, link)
				}
			}
		}
	}
	w.absent(place, owner, cmpOr(path, "with"), list, args)
	return inOrder(args)
}

func cmpOr(a, b string) string {
	if a == "" {
		return b
	}
	return "with." + a
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func inOrder(args map[string]Template) (out []Argument) {
	for _, name := range slices.Sorted(maps.Keys(args)) {
		out = append(out, Argument{name, args[name]})
	}
	return out
}

// absent reports what is required and not given. The lead's address never is: it is sent without being
// given.
func (w *withReader) absent(place *yaml.Node, owner, under string, list []lodestone.Parameter, given map[string]Template) {
	for _, p := range list {
		if _, ok := given[p.Name]; p.Required && !ok && !p.Own() {
			w.fault(w.d, place, "%s needs %s; add it under %s", owner, p.Name, under)
		}
	}
}

// called is how messages name the value at a path: by its name at the top, by its path below.
func called(path string) string {
	if strings.ContainsAny(path, ".[") {
		return "with." + path
	}
	return path
}

// value reads one value.
func (w *withReader) value(n *yaml.Node, path string, p lodestone.Parameter) Template {
	if w.values++; w.values > MaxValues {
		if w.values == MaxValues+1 {
			w.fault(w.d, n, "this is value number %d under with; a step may give %d", w.values, MaxValues)
		}
		return Template{}
	}
	p.Name = called(path)
	switch n.Kind {
	case yaml.SequenceNode:
		return w.elements(n, path, p)
	case yaml.MappingNode:
		return w.mappingOf(n, path, p)
	}
	if p.Type == lodestone.FieldList || p.Type == lodestone.FieldObject {
		if n.ShortTag() != "!!null" {
			w.fault(w.d, n, "%s takes %s; this is %s", p.Name, typeInWords(p.Type), kindOf(n))
			return Template{}
		}
	}
	return w.template(w.d, n, p)
}

// elements reads a list.
func (w *withReader) elements(n *yaml.Node, path string, p lodestone.Parameter) Template {
	t := Template{list: []Template{}}
	item := lodestone.Parameter{}
	switch {
	case p.Type == lodestone.FieldAny:
	case p.Type != lodestone.FieldList:
		w.fault(w.d, n, "%s takes %s; this is %s", p.Name, typeInWords(p.Type), kindOf(n))
		return t
	case len(n.Content) < p.Least:
		w.fault(w.d, n, "%s takes at least %d; there are %d", p.Name, p.Least, len(n.Content))
	case p.Most > 0 && len(n.Content) > p.Most:
		w.fault(w.d, n, "%s takes at most %d; there are %d", p.Name, p.Most, len(n.Content))
	}
	if p.Items != nil {
		item = *p.Items
	}
	for i, e := range n.Content {
		t.list = append(t.list, w.value(target(e), path+"["+strconv.Itoa(i)+"]", item))
	}
	return t
}

// mappingOf reads an object. One whose fields the provider's description does not name takes any.
func (w *withReader) mappingOf(n *yaml.Node, path string, p lodestone.Parameter) Template {
	switch {
	case p.Type != lodestone.FieldAny && p.Type != lodestone.FieldObject:
		w.fault(w.d, n, "%s takes %s; this is %s", p.Name, typeInWords(p.Type), kindOf(n))
		return Template{}
	case len(p.Fields) > 0:
		return Template{fields: w.fields(n, n, p.Name, path, p.Fields)}
	}
	args := make(map[string]Template)
	for _, e := range w.entries(w.d, n, "plan: '${fields.plan}'") {
		args[e.name] = w.value(e.value, join(path, e.name), lodestone.Parameter{})
	}
	return Template{fields: inOrder(args)}
}

// template reads a value that is no list and no mapping.
func (c *compiler) template(d *document, n *yaml.Node, p lodestone.Parameter) Template {
	textWanted := p.Type == lodestone.FieldText || p.Type == lodestone.FieldEmail
	if n.Kind != yaml.ScalarNode {
		c.fault(d, n, "%s takes %s; this is %s", p.Name, typeInWords(p.Type), kindOf(n))
		return Template{}
	}
	switch n.ShortTag() {
	case "!!null":
		c.fault(d, n, "%s has no value here; leave the line out where it shall not be sent", p.Name)
		return Template{}
	case "!!int", "!!float":
		x, err := strconv.ParseFloat(n.Value, 64)
		switch {
		case textWanted:
			c.fault(d, n, `%s takes a text; write it in quotes: "%s"`, p.Name, n.Value)
		case p.Type != lodestone.FieldNumber && p.Type != lodestone.FieldAny || err != nil:
			c.fault(d, n, "%s takes %s; this is a number", p.Name, typeInWords(p.Type))
		}
		return Template{literal: x}
	case "!!bool":
		if textWanted {
			c.fault(d, n, `%s takes a text; write it in quotes: "%s"`, p.Name, n.Value)
		} else if p.Type != lodestone.FieldBoolean && p.Type != lodestone.FieldAny {
			c.fault(d, n, "%s takes %s; this is true or false", p.Name, typeInWords(p.Type))
		}
		return Template{literal: strings.EqualFold(n.Value, "true")}
	}
	return c.text(d, n, p, textWanted || p.Type == lodestone.FieldAny)
}

// text reads an argument that is a text, with or without ${…}.
func (c *compiler) text(d *document, n *yaml.Node, p lodestone.Parameter, textWanted bool) Template {
	if len(n.Value) > MaxText {
		c.fault(d, n, "this text is longer than %d bytes; shorten it", MaxText)
		return Template{}
	}
	parts, unclosed, ok := pieces(n.Value)
	if strings.Count(n.Value, "${") > MaxParts {
		c.fault(d, n, "this text has more than %d ${…}; use fewer", MaxParts)
		return Template{}
	}
	if !ok {
		c.faultAt(d, d.locate(n, unclosed), SeverityError, "this ${ has no closing }")
		return Template{}
	}
	if len(parts) == 1 && parts[0].code {
		program := c.program(d, n, parts[0].text, parts[0].offset, scoring.Value, false)
		if program != nil && !fits(program, p.Type) {
			hint := ""
			if textWanted {
				hint = "; write ${string(" + strings.TrimSpace(parts[0].text) + ")}"
			}
			c.faultAt(d, d.locate(n, parts[0].offset), SeverityError, "%s takes %s; this gives %s%s", p.Name, typeInWords(p.Type), program.Yields(), hint)
		}
		return Template{parts: []part{{program: program}}, into: p}
	}
	if !textWanted {
		hint := ""
		if len(parts) == 1 {
			hint = "; write it without quotes"
		}
		c.fault(d, n, "%s takes %s; this is a text%s", p.Name, typeInWords(p.Type), hint)
		return Template{}
	}
	t := Template{literal: "", into: p}
	code := false
	for _, piece := range parts {
		if !piece.code {
			t.parts = append(t.parts, part{words: piece.text})
			continue
		}
		code = true
		t.parts = append(t.parts, part{program: c.program(d, n, piece.text, piece.offset, scoring.Value, false)})
	}
	if !code && len(t.parts) > 0 {
		t = Template{literal: t.parts[0].words, into: p}
	}
	if words := t.spelled(); p.Length > 0 && words > p.Length {
		c.fault(d, n, "%s is too long: it has %d characters, and the provider takes at most %d", p.Name, words, p.Length)
	}
	if !code && len(p.Values) > 0 && !slices.Contains(p.Values, t.literal.(string)) {
		c.fault(d, n, "%s is one of %s%s", p.Name, strings.Join(p.Values, ", "), meant(t.literal.(string), p.Values))
	}
	return t
}

func meant(word string, known []string) string {
	if m := scoring.Closest(word, known); m != "" {
		return fmt.Sprintf("; did you mean %s?", m)
	}
	return ""
}

// fits reports whether what a program gives may stand where a type is wanted.
func fits(p *scoring.Program, t lodestone.FieldType) bool {
	if t == lodestone.FieldAny {
		return p.Yields().Fits(lodestone.FieldText) || p.Yields().Fits(lodestone.FieldNumber) || p.Yields().Fits(lodestone.FieldBoolean)
	}
	return p.Yields().Fits(t)
}

func typeInWords(t lodestone.FieldType) string {
	switch t {
	case lodestone.FieldNumber:
		return "a number"
	case lodestone.FieldBoolean:
		return "true or false"
	case lodestone.FieldEmail:
		return "an email address"
	case lodestone.FieldList:
		return "a list, each element with a dash before it"
	case lodestone.FieldObject:
		return "entries, as in {name: value}"
	case lodestone.FieldAny:
		return "a text, a number, or true or false"
	}
	return "a text"
}
