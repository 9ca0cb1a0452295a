package rules

import (
	"slices"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone/scoring"
)

// maxConfirm bounds how long a sequence may wait for a confirmation.
const maxConfirm = 366 * 24 * time.Hour

// ConfirmLinkLife is how long the link that confirms an address is good for, from the beginning of the day on
// which it was made.
const ConfirmLinkLife = 30 * 24 * time.Hour

// ConfirmBy is until when the sequence waits for a confirmation that the step asked for at asked.
func (q *Sequence) ConfirmBy(step *Step, asked time.Time) time.Time {
	wait := step.Confirm
	if q.pace > 0 {
		wait = time.Duration(float64(wait) / q.pace)
	}
	return asked.Add(wait)
}

// Follows reports whether a step comes after another one for a variant of the sequence; every step comes after
// one that it does not have.
func (q *Sequence) Follows(variant, step, other string) bool {
	steps := q.StepsOf(variant)
	return stepIndex(steps, step) > stepIndex(steps, other)
}

// Uses reports whether anything that the step sends is made with a name, such as links.confirm.
func (s *Step) Uses(name string) bool {
	return slices.ContainsFunc(s.With, func(a Argument) bool { return a.Value.uses(name) })
}

// Lasting reports whether the value comes out the same whenever it is made for one enrollment: it is made of what
// was submitted, and not of the time, the score or what is known of the lead by now.
func (t Template) Lasting() bool {
	return !slices.ContainsFunc(t.parts, func(p part) bool {
		return p.program != nil && slices.ContainsFunc(p.program.Names(), func(name string) bool {
			root, _, _ := strings.Cut(name, ".")
			return name != "lead.email" && !slices.Contains([]string{"fields", "form", "context", "utm", "lists"}, root)
		})
	}) && !slices.ContainsFunc(t.list, func(x Template) bool { return !x.Lasting() }) &&
		!slices.ContainsFunc(t.fields, func(a Argument) bool { return !a.Value.Lasting() })
}

func (t Template) uses(name string) bool {
	return slices.ContainsFunc(t.parts, func(p part) bool { return p.program != nil && usesName(p.program, name) }) ||
		slices.ContainsFunc(t.list, func(x Template) bool { return x.uses(name) }) ||
		slices.ContainsFunc(t.fields, func(a Argument) bool { return a.Value.uses(name) })
}

func usesName(p *scoring.Program, name string) bool { return slices.Contains(p.Names(), name) }

// confirmations warns of steps that ask for a confirmation which nobody waits for or nobody can give.
func (l *linter) confirmations(q *Sequence) {
	lists := [][]Step{q.Steps}
	for _, v := range q.Variants {
		lists = append(lists, v.Steps)
	}
	for _, steps := range lists {
		for i := range steps {
			s := &steps[i]
			if s.Confirm == 0 {
				continue
			}
			switch {
			case i == len(steps)-1:
				l.atPos(s.confirmPos, "the step %s is the last one, so nothing waits for this confirmation; add the step that shall, or leave confirm out", s.Name)
			case steps[i+1].Confirm > 0 && steps[i+1].After >= s.Confirm:
				l.atPos(s.confirmPos, "the sequence ends unconfirmed after %s, before the step %s asks again (after %s); write a longer confirm here", inWords(s.Confirm), steps[i+1].Name, inWords(steps[i+1].After))
			}
			l.confirmLink(s)
		}
	}
}

// confirmLink warns where the message of a step that asks for a confirmation cannot lead to it.
func (l *linter) confirmLink(s *Step) {
	ways := []*Step{s}
	if len(s.Variants) > 0 {
		ways = ways[:0]
		for _, v := range s.Variants {
			ways = append(ways, v.Step)
		}
	}
	for _, way := range ways {
		switch {
		case !way.Uses("links.confirm"):
			at := s.confirmPos
			if way != s && way.Pos != s.Pos {
				at = way.Pos
			}
			l.atPos(at, "what this step sends has no link to confirm with; write ${links.confirm} into its with, unless something else raises the signal confirmed")
			continue
		case l.opts.NoLinks:
			l.atPos(s.confirmPos, "without http.public_url in the configuration there is no link to confirm with, and this step would fail; set it to the address at which browsers reach the gateway")
		case s.Confirm > ConfirmLinkLife-24*time.Hour:
			l.atPos(s.confirmPos, "the link in the message is good for %s at most, so nobody can confirm after that; write confirm: %s or less", inWords(ConfirmLinkLife), inWords(ConfirmLinkLife-24*time.Hour))
		default:
			continue
		}
		return
	}
}

// confirmedConsent warns of a sequence that wants confirmed consent where nothing asks for a confirmation.
func (l *linter) confirmedConsent() {
	for _, q := range l.set.Sequences {
		for s := range q.All() {
			if s.Confirm > 0 || s.Uses("links.confirm") {
				return
			}
		}
	}
	for _, q := range l.set.Sequences {
		if q.ConsentConfirmed {
			l.atPos(q.Pos, "the sequence %s is for confirmed consent, and no step of these rules asks for a confirmation: every step is skipped unless something else raises the signal confirmed; let a step ask, with confirm: 7d and ${links.confirm} in its with", q.Name)
		}
	}
}
