package scoring

import (
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/expr-lang/expr/ast"
)

// maxPlain is the longest text that plain lets through, in characters: longer than nearly all names.
const maxPlain = 64

// linkLike finds what mail programs make a link of.
var linkLike = regexp.MustCompile(`(?i)://|www\.|@|\w\.[a-z]{2}`)

// plainText is the text of a name or a title as people have them, nil for anything that could be a
// message of its own: it holds a link, an address, markup or line breaks, or is too long.
func plainText(a ...any) any {
	s, _ := a[0].(string)
	s = strings.TrimSpace(s)
	if s == "" || utf8.RuneCountInString(s) > maxPlain || linkLike.MatchString(s) || strings.ContainsAny(s, "<>[]{}|\\`") {
		return nil
	}
	if strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' }) {
		return nil
	}
	return s
}

// Unchecked lists the texts from the form or its page that reach the value as they were typed, sorted:
// those that no condition limits to known texts, no pattern describes, and plain has not gone over.
func (a *Analysis) Unchecked(given Region) []string {
	var out []string
	a.decider.flow(a.root, given, &out)
	slices.Sort(out)
	return slices.Compact(out)
}

// flow follows the ways on which a text reaches the value of a node.
func (d *decider) flow(n ast.Node, region Region, out *[]string) {
	if region.Empty() {
		return
	}
	if name, ok := dotted(n); ok {
		v := d.schema.names[name]
		free := strings.HasPrefix(name, "fields.") || strings.HasPrefix(name, "lead.profile.") || strings.HasPrefix(name, "context.") ||
			strings.HasPrefix(name, "utm.") || name == "lead.country"
		if v != nil && v.typ.base == text && free && !region.limits(name) {
			*out = append(*out, name)
		}
		return
	}
	switch n := n.(type) {
	case *ast.ConditionalNode:
		d.flow(n.Exp1, d.and(region, d.when(n.Cond, true)), out)
		d.flow(n.Exp2, d.and(region, d.when(n.Cond, false)), out)
	case *ast.BinaryNode:
		switch n.Operator {
		case "??", "+":
			d.flow(n.Left, region, out)
			d.flow(n.Right, region, out)
		}
	}
	switch name, args := called(n); name {
	case "lower", "upper", "trim", "string", defaultFunction:
		for _, a := range args {
			d.flow(a, region, out)
		}
	}
}

// limits reports whether a text is one of known ones or matches a pattern, all over the region.
func (r Region) limits(name string) bool {
	for _, a := range r.alts {
		d, ok := a[name]
		if !ok {
			return false
		}
		described := d.finite != nil || d.noValue()
		for _, t := range d.tests {
			described = described || t.want && strings.HasPrefix(t.id, "matches ")
		}
		if !described {
			return false
		}
	}
	return true
}

// OnlyAfter reports whether one of these signals has come wherever the region is.
func (r Region) OnlyAfter(signals ...string) bool {
	for _, a := range r.alts {
		if !slices.ContainsFunc(signals, func(s string) bool { d, ok := a["signals."+s]; return ok && !d.no }) {
			return false
		}
	}
	return true
}

// Lookups are the lists that names are looked up in, by `in`: the name and the list's.
func (a *Analysis) Lookups() map[string]string {
	out := make(map[string]string)
	visit(a.root, func(n ast.Node) {
		b, ok := n.(*ast.BinaryNode)
		if !ok || b.Operator != "in" {
			return
		}
		name, ok := dotted(b.Left)
		list, ok2 := dotted(b.Right)
		if list, isList := strings.CutPrefix(list, "lists."); ok && ok2 && isList {
			out[list] = name
		}
	})
	return out
}
