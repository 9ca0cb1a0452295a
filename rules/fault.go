package rules

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// The severities of a [Fault].
const (
	SeverityError   = "error"
	SeverityWarning = "warning"
)

// Fault is one thing that is wrong in a rule file, or, as a warning, that is probably not meant.
type Fault struct {
	File     string `json:"file"`
	Line     int    `json:"line"`   // from 1
	Column   int    `json:"column"` // from 1, in characters
	Severity string `json:"severity"`
	Message  string `json:"message"`
}

// String writes file:line:column: message; a warning says so before its message.
func (f Fault) String() string {
	message := f.Message
	if f.Severity == SeverityWarning {
		message = "warning: " + message
	}
	return fmt.Sprintf("%s:%d:%d: %s", f.File, f.Line, f.Column, message)
}

// Faults are sorted by file, line and column.
type Faults []Fault

// Error gives one line for each fault.
func (fs Faults) Error() string {
	lines := make([]string, len(fs))
	for i, f := range fs {
		lines[i] = f.String()
	}
	return strings.Join(lines, "\n")
}

// sorted sorts and removes what was found twice, as happens behind an alias.
func (fs Faults) sorted() Faults {
	slices.SortStableFunc(fs, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return slices.Compact(fs)
}

// split separates errors from warnings.
func (fs Faults) split() (errs, warnings Faults) {
	for _, f := range fs {
		if f.Severity == SeverityWarning {
			warnings = append(warnings, f)
		} else {
			errs = append(errs, f)
		}
	}
	return errs, warnings
}
