package rules

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// document is one parsed rule file. Nodes keep their place, so faults can name it.
type document struct {
	file  string
	lines [][]rune // the text as YAML counts lines and columns
	root  *yaml.Node
}

// parse reads one YAML document within the limits. It reports what stands in the way and then
// returns nil; a file without content gives a document without a root.
func parse(f File, report func(Fault)) *document {
	at := func(line, column int, format string, args ...any) *document {
		report(Fault{File: f.Name, Line: max(1, line), Column: max(1, column), Severity: SeverityError, Message: fmt.Sprintf(format, args...)})
		return nil
	}
	if len(f.Data) > MaxFile {
		return at(1, 1, "this file is larger than 1 MiB; spread it over several files")
	}
	if line, column, ok := notUTF8(f.Data); ok {
		return at(line, column, "this file is not UTF-8; save it as UTF-8")
	}
	doc := &document{file: f.Name, lines: splitLines(strings.TrimPrefix(string(f.Data), "\ufeff"))}
	loader, err := yaml.NewLoader(bytes.NewReader(f.Data))
	if err != nil {
		return at(1, 1, "%s", err)
	}
	var node, next yaml.Node
	err = load(loader, &node)
	if errors.Is(err, io.EOF) {
		return doc
	}
	if err == nil {
		if len(node.Content) == 0 {
			return doc
		}
		if err = load(loader, &next); err == nil {
			return at(next.Line, next.Column, "a second document begins here; put it into a file of its own, or remove the line that separates the two (--- or ...)")
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
	}
	if err != nil {
		line, column, message := yamlFault(err, doc)
		return at(line, column, "%s", message)
	}
	doc.root = node.Content[0]
	if doc.root.ShortTag() == "!!null" {
		doc.root = nil
		return doc
	}
	l := limiter{doc: doc}
	if l.measure(doc.root, 1); l.fault != nil {
		report(*l.fault)
		return nil
	}
	return doc
}

// load keeps a panic of the YAML library from ending the process: what it reads comes from outside.
func load(l *yaml.Loader, n *yaml.Node) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = errors.New("this is not valid YAML")
		}
	}()
	return l.Load(n)
}

// yamlFault puts the library's error into words; most come from indentation and quoting.
func yamlFault(err error, doc *document) (line, column int, message string) {
	le := new(yaml.LoadError)
	if !errors.As(err, &le) {
		return 1, 1, err.Error()
	}
	line, column, message = le.Mark.Line, le.Mark.Column, le.Message
	if line == 0 {
		line, column = doc.controlCharacter()
	}
	switch {
	case strings.Contains(message, "cannot start any token"):
		switch doc.at(line, column) {
		case '\t':
			message = "a tab stands where YAML wants blanks; indent with blanks"
		case '@', '`', '%':
			message = fmt.Sprintf("a text cannot begin with %c; put it in quotes", doc.at(line, column))
		default:
			message = "this is not valid YAML; put the text in quotes"
		}
	case strings.Contains(message, "mapping values are not allowed"):
		message = "a second “: ” stands in this line; put the text after the first one in quotes, or indent the lines below it alike"
	case strings.Contains(message, "did not find expected key"):
		message = "this line is not indented like the ones around it, or a quote is not closed before it"
	case strings.Contains(message, "did not find expected ',' or"):
		message = fmt.Sprintf("the list or mapping that begins at line %d, column %d is not closed here, or a comma is missing", le.ContextMark.Line, le.ContextMark.Column)
		if l := doc.line(le.ContextMark.Line); strings.Contains(l, "${") {
			message += "; inside { } and [ ], a value with ${…} stands in quotes"
		}
	case strings.Contains(message, "did not find expected node content"):
		message = "a value is missing here, or a list or mapping before it is not closed"
	case strings.Contains(message, "unknown anchor"):
		message = "no name is given with & before this line for what stands here after *; write the value itself"
	case strings.Contains(message, "unexpected end of stream"):
		message = fmt.Sprintf("the quote that is opened at line %d, column %d is never closed", le.ContextMark.Line, le.ContextMark.Column)
	case strings.Contains(message, "could not find expected ':'"):
		message = "this line needs a colon and a blank after its first word, as in name: value"
	case strings.Contains(message, "control characters"):
		message = "a control character stands here; remove it"
	case strings.Contains(message, "exceeded max depth"):
		message = tooDeep
	default:
		if le.ContextMsg != "" {
			message += " (" + le.ContextMsg + ")"
		}
		message = "this is not valid YAML: " + message
	}
	if line > len(doc.lines) { // behind the last line, where there is no place to show
		line = len(doc.lines)
		column = len(doc.lines[line-1]) + 1
	}
	return line, column, message
}

var tooDeep = fmt.Sprintf("this is nested more than %d levels deep", MaxDepth)

// limiter measures a document with its aliases expanded, without expanding them.
type limiter struct {
	doc   *document
	known map[*yaml.Node]measure // of nodes that have an anchor
	alias int                    // nodes that aliases expand to, so far
	fault *Fault
}

// measure is how large a node is with everything in it.
type measure struct {
	nodes, levels int
	open          bool // it is being measured: an alias to it would never end
}

func (l *limiter) fail(n *yaml.Node, message string) measure {
	if l.fault == nil {
		l.fault = &Fault{File: l.doc.file, Line: max(1, n.Line), Column: max(1, n.Column), Severity: SeverityError, Message: message}
	}
	return measure{}
}

func (l *limiter) measure(n *yaml.Node, depth int) (m measure) {
	if l.fault != nil {
		return m
	}
	if n.Anchor != "" && n.Kind != yaml.AliasNode {
		if l.known == nil {
			l.known = make(map[*yaml.Node]measure)
		}
		l.known[n] = measure{open: true}
		defer func() { l.known[n] = m }()
	}
	switch n.Kind {
	case yaml.AliasNode:
		m = l.known[n.Alias]
		if m.open {
			return l.fail(n, "*"+n.Value+" stands inside of what it refers to; it would never end")
		}
		if l.alias += m.nodes; l.alias > MaxAliased {
			return l.fail(n, fmt.Sprintf("the aliases (*name) of this file expand to more than %d values; write fewer of them", MaxAliased))
		}
		if depth-1+m.levels > MaxDepth {
			return l.fail(n, tooDeep)
		}
		return m
	case yaml.ScalarNode:
		if !knownTag(n.ShortTag()) {
			return l.fail(n, "the type "+n.Tag+" is not known; leave it out")
		}
		return measure{nodes: 1}
	}
	if depth > MaxDepth {
		return l.fail(n, tooDeep)
	}
	if !knownTag(n.ShortTag()) {
		return l.fail(n, "the type "+n.Tag+" is not known; leave it out")
	}
	m.nodes = 1
	for _, child := range n.Content {
		c := l.measure(child, depth+1)
		m.nodes = min(m.nodes+c.nodes, MaxAliased+1)
		m.levels = max(m.levels, c.levels)
	}
	m.levels++
	return m
}

func knownTag(tag string) bool {
	switch tag {
	case "!!str", "!!int", "!!float", "!!bool", "!!null", "!!timestamp", "!!binary", "!!map", "!!seq", "!!merge":
		return true
	}
	return false
}

// pair is one entry of a mapping.
type pair struct{ key, value *yaml.Node }

// pairsOf returns the entries of a mapping with `<<` merged, nil for anything else. Entries of the
// mapping itself come first and win over merged ones; doubles are kept.
func pairsOf(n *yaml.Node) []pair {
	n = target(n)
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	var out []pair
	var merged []*yaml.Node
	seen := make(map[string]bool)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.ShortTag() == "!!merge" {
			if v = target(v); v.Kind == yaml.SequenceNode {
				merged = append(merged, v.Content...)
			} else {
				merged = append(merged, v)
			}
			continue
		}
		seen[target(k).Value] = true
		out = append(out, pair{k, v})
	}
	for _, m := range merged {
		for _, p := range pairsOf(m) {
			if k := target(p.key).Value; !seen[k] {
				seen[k] = true
				out = append(out, p)
			}
		}
	}
	return out
}

// valueOf returns the value of a key, nil when there is none.
func valueOf(n *yaml.Node, key string) *yaml.Node {
	for _, p := range pairsOf(n) {
		if target(p.key).Value == key {
			return target(p.value)
		}
	}
	return nil
}

// target follows an alias.
func target(n *yaml.Node) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// notUTF8 finds the first byte that is not UTF-8.
func notUTF8(data []byte) (line, column int, bad bool) {
	valid := 0
	for valid < len(data) {
		r, size := utf8.DecodeRune(data[valid:])
		if r == utf8.RuneError && size == 1 {
			lines := splitLines(strings.TrimPrefix(string(data[:valid]), "\ufeff"))
			return len(lines), len(lines[len(lines)-1]) + 1, true
		}
		valid += size
	}
	return 0, 0, false
}

// splitLines splits where YAML sees line breaks: CR, LF, CR LF, NEL, LS and PS. The breaks are left
// out.
func splitLines(s string) [][]rune {
	var lines [][]rune
	line := []rune{}
	var before rune
	for _, r := range s {
		switch r {
		case '\n':
			if before != '\r' {
				lines, line = append(lines, line), []rune{}
			}
		case '\r', '\u0085', '\u2028', '\u2029':
			lines, line = append(lines, line), []rune{}
		default:
			line = append(line, r)
		}
		before = r
	}
	return append(lines, line)
}

// at is the character of a place, 0 where there is none.
func (d *document) at(line, column int) rune {
	if line < 1 || line > len(d.lines) || column < 1 || column > len(d.lines[line-1]) {
		return 0
	}
	return d.lines[line-1][column-1]
}

// line is the text of a line, empty where there is none.
func (d *document) line(line int) string {
	if line < 1 || line > len(d.lines) {
		return ""
	}
	return string(d.lines[line-1])
}

// controlCharacter finds what the library refuses without saying where.
func (d *document) controlCharacter() (line, column int) {
	for i, l := range d.lines {
		for j, r := range l {
			if r < ' ' && r != '\t' || r >= 0x7f && r < 0xa0 || r == 0xfffe || r == 0xffff || r == 0xfeff {
				return i + 1, j + 1
			}
		}
	}
	return 1, 1
}
