package api

import (
	"fmt"
	"strings"

	"github.com/lodestonehq/lodestone"
)

// Words writes a reason as words: no_answer is "no answer".
func Words(r lodestone.Reason) string { return strings.ReplaceAll(string(r), "_", " ") }

// DecisionWords says what a submission led to; entered puts an
// enrollment as done or as what would be.
func DecisionWords(d *lodestone.Decision, entered string) string {
	switch d.Reason {
	case lodestone.ReasonEnrolled:
		for _, c := range d.Candidates {
			if c.Verdict == lodestone.VerdictChosen {
				return "the sequence " + c.Sequence + " " + entered
			}
		}
		return "a sequence " + entered
	case lodestone.ReasonAlreadyEnrolled:
		return "already in the sequence that fits best, so nothing changed"
	case lodestone.ReasonBusy:
		return "stays in its sequence, which is at least as important"
	case lodestone.ReasonNoSequence:
		return "no sequence's condition was true"
	case lodestone.ReasonNotReentered:
		return "was in the fitting sequence before, and may not enter it again yet"
	case lodestone.ReasonBackfill:
		return "backfill: profile and score only"
	case lodestone.ReasonDuplicate:
		return "a repeat of a submission that was applied already"
	}
	return string(d.Reason)
}

// Words say why a sequence was chosen or not.
func (c *Candidate) Words() string {
	if b := c.Because; b != nil {
		return fmt.Sprintf("%s (%s:%d)", b.Words(), b.File, b.Line)
	}
	says := verdictWords(c.Reason)
	if c.Detail != "" {
		says += ": " + c.Detail
	}
	return says
}

func verdictWords(r lodestone.Reason) string {
	switch r {
	case lodestone.ReasonMatched:
		return "its condition was true and nothing ranks higher"
	case lodestone.ReasonLowerPriority:
		return "its condition was true, another one ranks higher"
	case lodestone.ReasonConditionFalse:
		return "its condition was not true"
	case lodestone.ReasonConditionFault:
		return "its condition failed, which counts as not true"
	case lodestone.ReasonAlreadyEnrolled:
		return "the lead is in it already"
	case lodestone.ReasonBusy:
		return "the lead is in a sequence that is at least as important"
	case lodestone.ReasonReenterNever:
		return "the lead was in it before, and it is not entered twice"
	case lodestone.ReasonReenterLater:
		return "the lead was in it before, and it is too early to enter again"
	}
	return Words(r)
}
