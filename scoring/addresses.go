package scoring

import (
	"embed"
	"strings"
)

//go:embed addresses/*.txt zones.txt
var tables embed.FS

// words of one table, one a line; what follows a # is a comment.
type wordSet map[string]struct{}

func (w wordSet) has(s string) bool { _, ok := w[s]; return ok }

var (
	freemail   = readWords("addresses/freemail.txt")   // domains where anybody gets a mailbox
	disposable = readWords("addresses/disposable.txt") // domains of mailboxes that are thrown away
	role       = readWords("addresses/role.txt")       // mailboxes of functions, not of persons
)

func readWords(name string) wordSet {
	set := make(wordSet)
	for line := range tableLines(name) {
		set[line] = struct{}{}
	}
	return set
}

// tableLines goes over the lines of an embedded table that hold something.
func tableLines(name string) func(yield func(string) bool) {
	data, err := tables.ReadFile(name)
	if err != nil {
		panic(err) // it is part of the binary
	}
	return func(yield func(string) bool) {
		for line := range strings.Lines(string(data)) {
			line, _, _ = strings.Cut(line, "#")
			if line = strings.TrimSpace(line); line != "" && !yield(line) {
				return
			}
		}
	}
}

// mailbox is a local part without its tag: sales+de is the mailbox sales.
func mailbox(local string) string {
	box, _, _ := strings.Cut(local, "+")
	return box
}
