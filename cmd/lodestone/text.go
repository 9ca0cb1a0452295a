package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/api"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/scoring"
)

// printJSON writes v indented.
func (c *cli) printJSON(v any) error {
	enc := json.NewEncoder(c.out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// table writes rows in columns.
func table(w io.Writer, indent string, rows [][]string) {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(tw, indent+strings.Join(r, "\t"))
	}
	_ = tw.Flush()
}

// writeExplanation puts an explanation into words. set names the bands' limits; nil leaves them out.
// One of [api.Hypothetical] is put as what would be.
func writeExplanation(w io.Writer, x *api.Explanation, set *rules.Set, now time.Time) {
	fmt.Fprintf(w, "%s\n", x.Email)
	if x.Suppression != nil {
		fmt.Fprintf(w, "  on the suppression list since %s (%s, by %s): never contacted\n", utc(x.Suppression.At), x.Suppression.Reason, x.Suppression.Source)
	}
	if !x.Known && x.Decision == nil && len(x.Ledger) == 0 {
		if x.Submissions == 0 {
			fmt.Fprintln(w, "  no submission of this address was accepted")
		}
		writeAttention(w, x.Attention)
		return
	}
	writeScore(w, x, set, now)
	writeDecision(w, x)
	writeTouchpoints(w, x, now)
	writeAttention(w, x.Attention)
}

func writeScore(w io.Writer, x *api.Explanation, set *rules.Set, now time.Time) {
	fmt.Fprintf(w, "\nScore %d", x.Score)
	if x.Band != "" {
		fmt.Fprintf(w, ", %s", bandWords(x.Score, x.Band, set))
	}
	fmt.Fprintln(w)
	if len(x.Ledger) == 0 {
		fmt.Fprintln(w, "  no rule gave points")
	}
	var rows [][]string
	for _, l := range x.Ledger {
		why := "since " + date(l.At)
		if l.HalfLife != "" {
			why = fmt.Sprintf("of %s on %s, halved every %s", signed(l.Points), date(l.At), l.HalfLife)
		}
		rows = append(rows, []string{signed(l.Value), l.Rule, why, "rules " + l.Version})
	}
	table(w, "  ", rows)
	if x.Decision != nil {
		for _, f := range x.Decision.Faults {
			fmt.Fprintf(w, "  rule %s failed and gave nothing: %s\n", f.Rule, f.Detail)
		}
		for _, n := range x.Decision.Notes {
			fmt.Fprintf(w, "  note: %s\n", n)
		}
	}
}

// bandWords says which band a score is in and where the band begins and ends.
func bandWords(score int, band string, set *rules.Set) string {
	if set == nil {
		return "band " + band
	}
	lo, next, hasNext := set.BandRange(band)
	switch lowest := set.Bands[len(set.Bands)-1].Name == band; {
	case lowest && hasNext:
		return fmt.Sprintf("band %s (below %d)", band, next)
	case hasNext:
		return fmt.Sprintf("band %s (%d to %d)", band, lo, next-1)
	case lowest:
		return fmt.Sprintf("band %s (any score)", band)
	default:
		return fmt.Sprintf("band %s (%d or more)", band, lo)
	}
}

func writeDecision(w io.Writer, x *api.Explanation) {
	if d := x.Decision; d != nil {
		what := fmt.Sprintf("Last submission: form %s, %s", d.Form, utc(d.SubmittedAt))
		if x.History == nil {
			what = "What would follow"
		}
		fmt.Fprintf(w, "\n%s: %s\n", what, decisionWords(d))
	}
	var rows [][]string
	for _, c := range x.Candidates {
		rows = append(rows, []string{c.Sequence, c.Verdict, candidateWords(c)})
	}
	if len(rows) > 0 {
		fmt.Fprintln(w, "\nSequences")
		table(w, "  ", rows)
	}
}

func decisionWords(d *lodestone.Decision) string {
	switch d.Reason {
	case lodestone.ReasonEnrolled:
		return "a sequence was entered"
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

func candidateWords(c lodestone.Candidate) string {
	switch c.Reason {
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
	return string(c.Reason)
}

func writeTouchpoints(w io.Writer, x *api.Explanation, now time.Time) {
	if e := x.Enrollment; e != nil {
		since := ""
		if !e.StartedAt.IsZero() {
			since = " since " + utc(e.StartedAt)
		}
		if x.History == nil && x.Decision != nil && x.Decision.Enrollment == e.ID {
			since = ""
		}
		fmt.Fprintf(w, "\nIn sequence %s%s: %s", e.Sequence, since, e.State)
		if !e.EndedAt.IsZero() {
			fmt.Fprintf(w, " at %s", utc(e.EndedAt))
		}
		fmt.Fprintf(w, "%s; version %s\n", because(e.Reason, string(e.State)), e.Version)
	}
	if len(x.Touchpoints) > 0 {
		fmt.Fprintln(w, "\nTouchpoints")
	}
	for _, t := range x.Touchpoints {
		fmt.Fprintf(w, "  %s.%s, %s: %s%s\n", t.Sequence, t.Step, t.Operation, t.State, because(t.Reason, string(t.State)))
		fmt.Fprintf(w, "      %s\n", t.ID)
		for _, v := range t.Verdicts {
			if v.OK && v.Evidence == "" {
				continue
			}
			mark := "ok"
			if !v.OK {
				mark = "no"
			}
			evidence := strings.TrimPrefix(v.Evidence, string(v.Check)+": ")
			fmt.Fprintf(w, "      %s  %s: %s\n", mark, v.Check, cmp.Or(evidence, words(v.Reason)))
		}
		for _, a := range t.Attempts {
			writeAttempt(w, &a)
		}
	}
	if n := x.Next; n != nil {
		fmt.Fprintf(w, "\nNext: %s at %s", n.Step, utc(n.At))
		if local, err := time.Parse(time.RFC3339, n.AtLocal); err == nil && n.Zone != "UTC" {
			fmt.Fprintf(w, ", %s in %s", local.Format("2006-01-02 15:04:05"), n.Zone)
		}
		if d := n.At.Sub(now); d > 0 {
			fmt.Fprintf(w, ", in %s", roughly(d))
		} else {
			fmt.Fprintf(w, ", late by %s", roughly(-d))
		}
		fmt.Fprintln(w, because(n.Reason, string(lodestone.ReasonPlanned)))
	} else if len(x.Touchpoints) > 0 {
		fmt.Fprintln(w, "\nNext: nothing is planned")
	}
}

func writeAttempt(w io.Writer, a *api.Attempt) {
	what := fmt.Sprintf("attempt %d", a.Number)
	if a.Lookup {
		what = "looked up"
	}
	fmt.Fprintf(w, "      %s at %s: %s%s", what, utc(a.At), a.State, because(a.Reason, string(a.State)))
	if a.Status != 0 {
		fmt.Fprintf(w, ", HTTP %d", a.Status)
	}
	if a.Reference != "" {
		fmt.Fprintf(w, ", the provider calls it %s", a.Reference)
	}
	if a.Detail != "" {
		fmt.Fprintf(w, ": %s", a.Detail)
	}
	fmt.Fprintln(w)
}

// because puts a reason in brackets, unless it says what was said already.
func because(r lodestone.Reason, said string) string {
	if r == "" || string(r) == said || r == lodestone.ReasonPlanned {
		return ""
	}
	return " (" + words(r) + ")"
}

// words writes a reason as words: no_answer is "no answer".
func words(r lodestone.Reason) string { return strings.ReplaceAll(string(r), "_", " ") }

func writeAttention(w io.Writer, items []api.Item) {
	if len(items) == 0 {
		return
	}
	fmt.Fprintln(w, "\nFor a human to look at")
	for _, a := range items {
		what := string(a.Kind)
		if a.Form != "" {
			what += " of form " + a.Form
		}
		fmt.Fprintf(w, "  %s, %s, %s", what, utc(a.At), words(a.Reason))
		if a.Detail != "" {
			fmt.Fprintf(w, ": %s", a.Detail)
		}
		fmt.Fprintf(w, "\n      %s\n", a.ID)
	}
}

func signed(v float64) string {
	s := fmt.Sprintf("%+.1f", v)
	return strings.TrimSuffix(s, ".0")
}

func utc(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

func date(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// roughly rounds a duration to what a person wants to know of it.
func roughly(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d < 2*time.Minute:
		return count(int(d.Round(time.Second)/time.Second), "second")
	case d < 2*time.Hour:
		return count(int(d.Round(time.Minute)/time.Minute), "minute")
	case d < 36*time.Hour:
		return count(int(d.Round(time.Hour)/time.Hour), "hour")
	default:
		return count(int(d.Round(24*time.Hour)/(24*time.Hour)), "day")
	}
}

// list joins names in alphabetical order for a sentence.
func list(names []string) string {
	slices.Sort(names)
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// instead ends a message about a word that is not known: with the one that was probably meant, and
// with what there is.
func instead(word string, known []string, all string) string {
	if c := scoring.Closest(word, known); c != "" {
		return "; did you mean " + c + "? (" + all + ")"
	}
	return "; " + all
}
