package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Fault is one thing that is wrong with the configuration.
type Fault struct {
	File    string // as it was named; empty for a variable or a flag
	Line    int    // from 1
	Column  int    // from 1, in characters
	Source  string // the variable or flag; empty for the file
	Message string
}

// String writes file:line:column: message, or the variable or flag before the message.
func (f Fault) String() string {
	if f.Source != "" {
		return f.Source + ": " + f.Message
	}
	return fmt.Sprintf("%s:%d:%d: %s", f.File, f.Line, f.Column, f.Message)
}

// Faults are in the order of the file, then variables and flags in the order of the alphabet.
type Faults []Fault

// Error gives one line for each fault.
func (fs Faults) Error() string {
	lines := make([]string, len(fs))
	for i, f := range fs {
		lines[i] = f.String()
	}
	return strings.Join(lines, "\n")
}

func (fs Faults) sort() {
	slices.SortStableFunc(fs, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// place is where something is said: a place in the file, or a variable or flag.
type place struct {
	file         string
	line, column int
	source       string
}
