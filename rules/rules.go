// Package rules reads rule files: the forms, lists, scoring rules and sequences that marketers
// write in YAML. It turns a directory of them into a [Set] that can be evaluated, or into faults.
//
// What it promises:
//
//   - Every fault at once, each as file:line:column: message, in words for people who do not
//     program. The place of a fault inside an expression is a place in the file, whatever YAML
//     quoting stands between. A [Set] exists only when nothing is faulty.
//   - Nothing is ignored: an unknown key is a fault, with the key that was probably meant, and so
//     is one that this version does not support yet.
//   - A set has a version, and so has each of its sequences: hashes of what is defined and not of
//     how it is written. Comments, formatting and the order of keys do not change them.
//   - Bounded work on any input: see the limits below and those of package scoring.
//
// Names of forms, rules, lists, bands, sequences and steps begin with a small letter or a digit and
// go on with small letters, digits, "-" and "_", at most 64 characters. They are unique across
// files.
//
// Without `scoring` every score is 0 and every band empty; an expression that asks for a band then
// is a fault, because it could never be true.
package rules

import (
	"slices"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/rules/clock"
	"github.com/lodestonehq/lodestone/scoring"
)

// Limits of rule files.
const (
	MaxFile      = 1 << 20  // bytes of one file
	MaxDirectory = 16 << 20 // bytes of all files together
	MaxDepth     = 32       // mappings and sequences within each other
	MaxAliased   = 10_000   // nodes that the aliases of one file expand to
	MaxText      = 8 << 10  // bytes of one text under `with`
	MaxParts     = 32       // ${…} in one text under `with`
	MaxValues    = 1_000    // values under one `with`, those in its lists and mappings included

	MaxEntries = 1_000   // forms, fields of all forms, lists, bands, sequences: of each
	MaxRules   = 10_000  // scoring rules
	MaxSteps   = 100     // of one sequence
	MaxTexts   = 500_000 // of all lists together
	maxFaults  = 1_000   // reported at once
)

// File is one file of a rules directory. Name is relative to the directory, slash-separated.
type File struct {
	Name string
	Data []byte
}

// Options say what rule files may refer to outside of themselves.
type Options struct {
	// Operations that `do` may name, by what stands there: the account's name under `connectors`, a
	// dot, and the verb or operation.
	Operations map[string]lodestone.Operation

	// Connectors are the account names known to the configuration; nil accepts those of Operations.
	Connectors []string

	// Configured are the accounts that have settings. Steps of others are warned of; nil says nothing.
	Configured []string

	// Link is what `links.…` in expressions is; see [scoring.Config]. nil: there are no links.
	Link func(name string, email lodestone.Email, now time.Time) string

	// Kept says that the files are a version that was in force: what was made a fault since and is seen to when a
	// step is sent is none.
	Kept bool

	// NoLinks says that this will stay so: steps that need one are warned of.
	NoLinks bool
}

// Pos is where a definition stands; lines and columns count from 1, in characters.
type Pos struct {
	File         string
	Line, Column int
}

// Set is everything that a directory of rule files defines. It is immutable and safe for
// concurrent use.
type Set struct {
	Version   string // of all definitions: the first 12 digits of a SHA-256
	Files     []File // as read, so that a store can keep a version that is in use
	Forms     map[string]*Form
	Bands     []Band  // highest first
	Rules     []*Rule // by file name, then in file order
	Caps      []Cap
	Sequences []*Sequence // in the order of assignment: priority, file name, order in the file
	Tests     []*Test     // by file name, then in file order; no part of the version
	Schema    *scoring.Schema
	Links     bool // `links.…` are there; else nil
	Warnings  Faults

	places map[*scoring.Program][]Pos // of each part of a condition, of the whole of any other
}

// Place says where a part of a condition of this set stands; part counts from 0. ok is false for a
// program that is not of this set.
func (s *Set) Place(p *scoring.Program, part int) (at Pos, ok bool) {
	if list := s.places[p]; part >= 0 && part < len(list) {
		return list[part], true
	}
	return Pos{}, false
}

// Form is a declared form.
type Form struct {
	lodestone.Form
	Zone       *scoring.Program // yields a text; nil when none is given
	Quarantine *scoring.Program // true: the submission waits for a human; nil when none is given
	Pos
}

// Band is the name of a score interval that begins at Min.
type Band struct {
	Name string
	Min  int
}

// Rule is one scoring rule.
type Rule struct {
	Name       string
	When       *scoring.Program // nil: always
	Points     float64
	PointsExpr *scoring.Program // nil: Points
	Each       bool             // one line per submission
	HalfLife   time.Duration    // 0: undiminished
	Pos
}

// Sequence is one version of one sequence.
type Sequence struct {
	Name             string
	Version          string // of this sequence alone: the first 12 digits of a SHA-256
	When             *scoring.Program
	Priority         int
	ConsentRequired  bool
	ConsentConfirmed bool // and the lead must have confirmed it; ConsentRequired is true as well
	Reenter          Reenter
	Exit             *scoring.Program // nil: never
	Zone             string           // [ZoneLead] or an IANA name
	Window           *clock.Window    // of the steps that have none of their own; nil: at any hour
	Steps            []Step           // at least one, unless every variant has some
	Variants         []Variant        // in the order of the file; none: no split
	Holdout          float64          // the part of one that is enrolled and never contacted
	Brake            *Brake           // nil: none
	Pos

	pace float64 // how much faster than real time it goes; 0: in real time
}

// ReenterMode says whether a lead may enter a sequence again.
type ReenterMode string

// The modes of [Reenter].
const (
	ReenterNever  ReenterMode = "never"
	ReenterAlways ReenterMode = "always"
	ReenterAfter  ReenterMode = "after"
)

// Reenter says when a lead may enter a sequence again after its last enrollment in it ended.
type Reenter struct {
	Mode  ReenterMode
	After time.Duration // of ReenterAfter
}

// Step is one step of a sequence.
type Step struct {
	Name      string
	After     time.Duration    // since the enrollment, or since the previous step ended
	Cron      clock.Cron       // with After: its first match at or past that; zero: none
	Window    *clock.Window    // nil: the sequence's
	Grace     time.Duration    // how late it may still happen; 0: however late
	When      *scoring.Program // nil: always
	Confirm   time.Duration    // how long what follows waits for the lead to confirm the address; 0: it does not
	Do        string           // connector.operation
	Connector string
	Operation string
	With      []Argument // in the order of their names
	Variants  []Variant  // in the order of the file; none: no split
	Pos

	confirmPos Pos
}

// Argument is one field of an operation's request.
type Argument struct {
	Name  string
	Value Template
}

// Band returns the name of the band that a score falls into; the lowest band takes everything
// below it. It returns "" when no bands are declared.
func (s *Set) Band(score int) string {
	for _, b := range s.Bands {
		if score >= b.Min {
			return b.Name
		}
	}
	if n := len(s.Bands); n > 0 {
		return s.Bands[n-1].Name
	}
	return ""
}

// BandRange returns the lowest score of a band and that of the band above it, which the band itself
// does not contain; hasNext is false for the highest band and for an unknown one.
func (s *Set) BandRange(name string) (lowest, next int, hasNext bool) {
	for i, b := range s.Bands {
		if b.Name != name {
			continue
		}
		if i == 0 {
			return b.Min, 0, false
		}
		return b.Min, s.Bands[i-1].Min, true
	}
	return 0, 0, false
}

// Sequence returns the sequence of that name, nil when there is none.
func (s *Set) Sequence(name string) *Sequence {
	for _, q := range s.Sequences {
		if q.Name == name {
			return q
		}
	}
	return nil
}

// Rule returns the scoring rule of that name, nil when there is none.
func (s *Set) Rule(name string) *Rule {
	for _, r := range s.Rules {
		if r.Name == name {
			return r
		}
	}
	return nil
}

// Step returns the index of a step by its name, -1 when there is none.
func (q *Sequence) Step(name string) int { return stepIndex(q.Steps, name) }

func stepIndex(steps []Step, name string) int {
	return slices.IndexFunc(steps, func(s Step) bool { return s.Name == name })
}
