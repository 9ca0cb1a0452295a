package rules

import (
	"go.yaml.in/yaml/v4"
)

// place is a position in a document, counted from 1.
type place struct{ line, column int }

// locate returns the place in the file of a character of a scalar's value. The value and what
// stands in the file differ by quotes, escapes, folded lines and indentation, so the scalar is read
// once more from the file beside its value. Where the two cannot be brought together, it returns
// the place where the scalar begins.
func (d *document) locate(n *yaml.Node, offset int) place {
	value := firstRunes(n.Value, offset+1024) // a little more than needed, to see a run of breaks
	begin := place{max(1, n.Line), max(1, n.Column)}
	if n.Line < 1 || n.Line > len(d.lines) {
		return begin
	}
	r := scalarReader{doc: d, style: n.Style, line: n.Line - 1, col: n.Column - 1, textEnd: -1}
	r.skipProperties()
	begin = r.place()
	switch {
	case r.isBlock():
		r.enterBlock(value)
	case r.isQuoted():
		r.col++
	}
	for i := 0; i < len(value) && i <= offset; {
		at, consumed := r.next(value[i:])
		if consumed == 0 {
			return begin
		}
		if i += consumed; i > offset {
			return at
		}
	}
	return r.place() // just behind the last character
}

// firstRunes is the beginning of a text; a text can be much longer than what is asked for.
func firstRunes(s string, n int) []rune {
	for i := range s {
		if n--; n < 0 {
			return []rune(s[:i])
		}
	}
	return []rune(s)
}

// scalarReader walks over a scalar in the file.
type scalarReader struct {
	doc       *document
	style     yaml.Style
	line, col int // from 0
	indent    int // of a block scalar's lines

	textLine, textEnd int // the line whose text was measured last, and where its text ends
}

func (r *scalarReader) isBlock() bool {
	return r.style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0
}

func (r *scalarReader) isQuoted() bool {
	return r.style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0
}

func (r *scalarReader) place() place { return place{r.line + 1, r.col + 1} }

func (r *scalarReader) text() []rune {
	if r.line >= len(r.doc.lines) {
		return nil
	}
	return r.doc.lines[r.line]
}

// rune is the character here, '\n' at the end of a line.
func (r *scalarReader) rune() rune {
	if l := r.text(); r.col < len(l) {
		return l[r.col]
	}
	return '\n'
}

// skipProperties goes over a tag and an anchor before the scalar.
func (r *scalarReader) skipProperties() {
	for r.rune() == '!' || r.rune() == '&' {
		for c := r.rune(); c != ' ' && c != '\t' && c != '\n'; c = r.rune() {
			r.col++
		}
		r.skipBlanks()
	}
}

func (r *scalarReader) skipBlanks() {
	for c := r.rune(); c == ' ' || c == '\t'; c = r.rune() {
		r.col++
	}
}

// enterBlock goes from the | or > to the block's first line. The indentation is what the first line
// that is not blank has in the file and no longer has in the value.
func (r *scalarReader) enterBlock(value []rune) {
	r.line++
	inFile, inValue := 0, 0
	for l := r.line; l < len(r.doc.lines); l++ {
		if n := leadingBlanks(r.doc.lines[l]); n < len(r.doc.lines[l]) {
			inFile = n
			break
		}
	}
	for len(value) > 0 && value[0] == '\n' {
		value = value[1:]
	}
	inValue = leadingBlanks(value)
	r.indent = max(0, inFile-inValue)
	r.col = min(r.indent, len(r.text()))
}

func leadingBlanks(line []rune) int {
	n := 0
	for n < len(line) && line[n] == ' ' {
		n++
	}
	return n
}

// next finds the place of the value's first character and goes behind it. It returns how many
// characters of the value that accounts for, since a run of line breaks is found at once; 0 when
// the file does not hold what the value says.
func (r *scalarReader) next(value []rune) (at place, consumed int) {
	want := value[0]
	for r.style&yaml.DoubleQuotedStyle != 0 && r.rune() == '\\' {
		at = r.place()
		if r.col+1 < len(r.text()) {
			r.skipEscape()
			return at, 1
		}
		r.nextLine() // an escaped line break is nothing
		for r.blank() && r.line+1 < len(r.doc.lines) {
			r.nextLine()
		}
	}
	at = r.place()
	switch {
	case (want == ' ' || want == '\n') && r.blank():
		return at, r.fold(value)
	case r.style&yaml.SingleQuotedStyle != 0 && want == '\'':
		r.col += 2 // it is written twice
		return at, 1
	case r.rune() == want:
		r.col++
		return at, 1
	}
	return at, 0
}

// blank reports whether nothing but blanks that YAML drops stands before the end of the line.
func (r *scalarReader) blank() bool {
	l := r.text()
	if r.isBlock() {
		return r.col >= len(l)
	}
	if r.textLine != r.line || r.textEnd < 0 {
		// Kept, because a long line of blanks asks once for each of them.
		r.textLine, r.textEnd = r.line, len(l)
		for r.textEnd > 0 && (l[r.textEnd-1] == ' ' || l[r.textEnd-1] == '\t') {
			r.textEnd--
		}
	}
	return r.col >= r.textEnd
}

// fold goes over the line breaks that gave a blank or a run of line breaks, to the next text, and
// returns how many characters of the value they gave.
func (r *scalarReader) fold(value []rune) int {
	run := 0 // of line breaks in the value
	for run < len(value) && value[run] == '\n' {
		run++
	}
	breaks := 1
	r.nextLine()
	if r.style&yaml.LiteralStyle != 0 {
		return 1
	}
	for r.blank() && r.line+1 < len(r.doc.lines) {
		r.nextLine()
		breaks++
	}
	if r.isBlock() {
		// Lines that are indented further keep all their breaks, others lose one.
		return max(1, run)
	}
	return max(1, breaks-1)
}

// nextLine goes to the beginning of the text in the next line.
func (r *scalarReader) nextLine() {
	r.line, r.col = r.line+1, 0
	if r.isBlock() {
		r.col = min(r.indent, len(r.text()))
		return
	}
	r.skipBlanks()
}

// skipEscape goes over an escape of a double-quoted scalar.
func (r *scalarReader) skipEscape() {
	digits := 0
	switch r.text()[r.col+1] {
	case 'x':
		digits = 2
	case 'u':
		digits = 4
	case 'U':
		digits = 8
	}
	r.col = min(len(r.text()), r.col+2+digits)
}
