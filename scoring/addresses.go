package scoring

import (
	"embed"
	"maps"
	"slices"
	"strings"

	"github.com/lodestonehq/lodestone"
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

// AddressLists are the names of the lists that lead.disposable, lead.freemail and lead.role look into.
// Lists of these names in [Config] take the place of those that are built in.
var AddressLists = []string{"disposable", "freemail", "role"}

// BuiltInList returns the built-in list of one of [AddressLists], sorted; nil for another name.
func BuiltInList(name string) []string {
	set := map[string]wordSet{"disposable": disposable, "freemail": freemail, "role": role}[name]
	return slices.Sorted(maps.Keys(set))
}

// NormalAddressPart makes an entry of one of [AddressLists] what addresses are compared with: a domain
// in small letters and ASCII, or of role the part before the @. ok is false when it is neither.
func NormalAddressPart(list, entry string) (normal string, ok bool) {
	if list == "role" {
		e, err := lodestone.ParseEmail(entry + "@role.example")
		return mailbox(e.Local()), err == nil && mailbox(e.Local()) != ""
	}
	e, err := lodestone.ParseEmail("x@" + strings.TrimSpace(entry))
	return e.Domain(), err == nil
}

// wordsOr is a list of the configuration as a set, or the built-in one.
func (c Config) wordsOr(name string, builtIn wordSet) wordSet {
	own, ok := c.Lists[name]
	if !ok {
		return builtIn
	}
	set := make(wordSet, len(own))
	for _, w := range own {
		set[w] = struct{}{}
	}
	return set
}

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
