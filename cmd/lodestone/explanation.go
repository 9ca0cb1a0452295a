package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/api"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/scoring"
)

// writeExplanation puts an explanation into words. set names the bands' limits; nil leaves them out.
// One of [api.Hypothetical] is put as what would be. entries is how much of the history was asked for, 0 for
// what a person reads by default.
func writeExplanation(w io.Writer, x *api.Explanation, set *rules.Set, now time.Time, entries int) {
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
	writeTouchpoints(w, x)
	writeNext(w, x, now)
	writeAttention(w, x.Attention)
	writeHistory(w, x, cmp.Or(entries, shownHistory))
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
	for _, n := range x.NotGiven {
		fmt.Fprintf(w, "  not given: %s: %s\n", n.Rule, notGivenWords(&n))
	}
}

func notGivenWords(n *api.NotGiven) string {
	if n.Because == nil {
		return words(n.Reason)
	}
	at := fmt.Sprintf(" (%s:%d)", n.Because.File, n.Because.Line)
	if n.Reason == "no_points" {
		var values []scoring.NamedValue
		for _, m := range n.Because.Values {
			values = append(values, m.NamedValue)
		}
		says := "its points came to 0"
		if d := scoring.Describe(values); d != "" {
			says += ": " + d
		}
		return says + at
	}
	return n.Because.Words() + at
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
	if q := x.Quarantine; q != nil {
		fmt.Fprintf(w, "\nIt would wait in `lodestone queue --attention` first, because the form's quarantine is true: %s\n  %s\n  Below is what would come of it once it is released.\n", q.Condition, q.Detail)
	}
	if d := x.Decision; d != nil {
		if x.History == nil {
			fmt.Fprintf(w, "\nWhat would follow: %s\n", api.DecisionWords(d, "would be entered"))
		} else {
			fmt.Fprintf(w, "\nLast submission: form %s, %s: %s\n", d.Form, utc(d.SubmittedAt), api.DecisionWords(d, "was entered"))
		}
	}
	var rows [][]string
	for _, c := range x.Candidates {
		rows = append(rows, []string{c.Sequence, c.Verdict, c.Words()})
	}
	if len(rows) > 0 {
		fmt.Fprintln(w, "\nSequences, the most important first")
		table(w, "  ", rows)
	}
}

// shownPast is how many touchpoints of earlier enrollments are shown without being asked for.
const shownPast = 20

func writeTouchpoints(w io.Writer, x *api.Explanation) {
	if e := x.Enrollment; e != nil {
		writeEnrollment(w, x, e)
	}
	var now, before []api.Touchpoint
	for _, t := range x.Touchpoints {
		if x.Enrollment != nil && strings.HasPrefix(t.ID, x.Enrollment.ID+".") {
			now = append(now, t)
		} else {
			before = append(before, t)
		}
	}
	if x.History == nil {
		return // nothing happened; what would is said below
	}
	if len(now) > 0 {
		fmt.Fprintln(w, "\nTouchpoints")
	}
	for _, t := range now {
		writeTouchpoint(w, &t)
	}
	if len(before) > 0 {
		fmt.Fprintln(w, "\nEarlier touchpoints, of sequences that are over")
	}
	if left := len(before) - shownPast; left > 0 {
		fmt.Fprintf(w, "  … %s before these\n", count(left, "touchpoint"))
		before = before[left:]
	}
	for _, t := range before {
		writeTouchpoint(w, &t)
	}
}

func writeEnrollment(w io.Writer, x *api.Explanation, e *api.Enrollment) {
	if x.History == nil && x.Decision != nil && x.Decision.Enrollment == e.ID {
		fmt.Fprintf(w, "\nWould be in sequence %s%s, version %s\n", e.Sequence, variantWords(e.Variant), e.Version)
		return
	}
	in := "In"
	if e.State != lodestone.EnrollmentActive {
		in = "Last in"
	}
	fmt.Fprintf(w, "\n%s sequence %s%s", in, e.Sequence, variantWords(e.Variant))
	if !e.StartedAt.IsZero() {
		fmt.Fprintf(w, " since %s", utc(e.StartedAt))
	}
	fmt.Fprintf(w, ": %s", e.State)
	if !e.EndedAt.IsZero() {
		fmt.Fprintf(w, " at %s", utc(e.EndedAt))
	}
	fmt.Fprintf(w, "%s; version %s\n", because(e.Reason, string(e.State)), e.Version)
}

// variantWords names a variant, with a blank before it; empty where there is none.
func variantWords(variant string) string {
	switch variant {
	case "":
		return ""
	case rules.VariantHoldout:
		return " (holdout: never contacted)"
	}
	return " (variant " + variant + ")"
}

func writeTouchpoint(w io.Writer, t *api.Touchpoint) {
	fmt.Fprintf(w, "  %s.%s%s, %s: %s\n", t.Sequence, t.Step, variantWords(t.Variant), t.Operation, stateWords(t.State, t.Reason))
	fmt.Fprintf(w, "      %s\n", t.ID)
	for _, v := range t.Verdicts {
		writeVerdict(w, "      ", &v)
	}
	for _, a := range t.Attempts {
		writeAttempt(w, &a)
	}
}

func writeVerdict(w io.Writer, indent string, v *api.Verdict) {
	if v.OK && v.Evidence == "" {
		return
	}
	mark := "ok"
	if !v.OK {
		mark = "no"
	}
	evidence := strings.TrimPrefix(v.Evidence, string(v.Check)+": ")
	fmt.Fprintf(w, "%s%s  %s: %s\n", indent, mark, v.Check, cmp.Or(evidence, words(v.Reason)))
}

// stateWords puts a touchpoint's state and reason into words.
func stateWords(s lodestone.TouchpointState, r lodestone.Reason) string {
	if r == lodestone.ReasonNothingToDo {
		return "taken by the provider, which did nothing"
	}
	return string(s) + because(r, string(s))
}

// writeNext says what is still to happen.
func writeNext(w io.Writer, x *api.Explanation, now time.Time) {
	if n := x.Next; n != nil && n.Reason == lodestone.ReasonAwaiting && x.Suppression != nil {
		fmt.Fprintf(w, "\nNext: the sequence ends before %s, at %s: nobody waits for a confirmation of a person on the suppression list\n", n.Step, moment(n.At, n.AtLocal, n.Zone))
	} else if n != nil && n.Reason == lodestone.ReasonAwaiting {
		fmt.Fprintf(w, "\nNext: %s, as soon as the address is confirmed; without that the sequence ends at %s\n", n.Step, moment(n.At, n.AtLocal, n.Zone))
	} else if n != nil {
		fmt.Fprintf(w, "\nNext: %s at %s", n.Step, moment(n.At, n.AtLocal, n.Zone))
		if d := n.At.Sub(now); d > 0 {
			fmt.Fprintf(w, ", in %s", roughly(d))
		} else {
			fmt.Fprintf(w, ", late by %s", roughly(-d))
		}
		fmt.Fprintln(w, because(n.Reason, string(lodestone.ReasonPlanned)))
	} else if len(x.Coming) == 0 {
		fmt.Fprint(w, "\nNext: nothing is planned")
		if c := x.Needs; c != nil {
			fmt.Fprintf(w, ". %s is not entered: %s", c.Sequence, c.Words())
		}
		fmt.Fprintln(w)
	}
	if len(x.Coming) == 0 {
		return
	}
	fmt.Fprintln(w, "\nComing, each at the earliest and on what is known today; the provider is asked only when it is time")
	for i, c := range x.Coming {
		says := ""
		switch {
		case c.State != lodestone.TouchpointScheduled:
			says = ": " + string(c.State) + ", what came of it is not known yet"
		case c.Outcome != lodestone.TouchpointSent:
			says = ": would be " + string(c.Outcome)
			if c.Ends != "" {
				says += ", and the sequence would end there"
			}
		case len(c.Objections) > 0 && c.Awaits.IsZero():
			says = ": would have to wait"
		}
		if !c.Awaits.IsZero() {
			says = ", if the address is confirmed at once" + says
		}
		fmt.Fprintf(w, "  %d. %s, %s: %s%s\n", i+1, c.Step, c.Operation, moment(c.At, c.AtLocal, c.Zone), says)
		for _, v := range c.Objections {
			writeVerdict(w, "      ", &v)
		}
	}
}

// moment is a time in UTC, and in the lead's zone where that is another.
func moment(at time.Time, local, zone string) string {
	says := utc(at)
	if t, err := time.Parse(time.RFC3339, local); err == nil && zone != "UTC" {
		says += fmt.Sprintf(", %s in %s", t.Format("2006-01-02 15:04:05"), zone)
	}
	return says
}

// shownHistory is how many entries of the history are shown without being asked for.
const shownHistory = 20

// writeHistory tells what happened, one line a fact, newest last.
func writeHistory(w io.Writer, x *api.Explanation, entries int) {
	if len(x.History) == 0 {
		return
	}
	fmt.Fprintln(w, "\nHistory")
	shown := x.History
	left := len(shown) - entries
	if left > 0 {
		shown = shown[left:]
	}
	switch {
	case x.Truncated:
		fmt.Fprintln(w, "  … there is more before this; --all shows it")
	case left > 0:
		fmt.Fprintf(w, "  … %d before these; --all shows them\n", left)
	}
	for i := range shown {
		e := &shown[i]
		for _, fact := range facts(e) {
			fmt.Fprintf(w, "  %s  %s\n", utc(e.At), fact)
		}
	}
}

// facts puts an entry of the journal into words, one for each thing that it records.
func facts(e *lodestone.Entry) []string {
	var list []string
	say := func(format string, a ...any) { list = append(list, fmt.Sprintf(format, a...)) }
	if d := e.Decision; d != nil {
		if d.Reason == lodestone.ReasonDuplicate {
			say("form %s: %s", d.Form, api.DecisionWords(d, ""))
		} else {
			band := ""
			if d.Band != "" {
				band = ", " + d.Band
			}
			say("form %s: score %d%s; %s", d.Form, d.Score, band, api.DecisionWords(d, "was entered"))
		}
	}
	if g := e.Signal; g != nil {
		say("signal: %s%s", g.Kind, because(g.Reason, ""))
	}
	if c := e.Call; c != nil {
		detail := ""
		if c.Detail != "" {
			detail = ": " + c.Detail
		}
		say("%s called %s: %s%s", c.By, c.Operation, c.Class, detail)
	}
	if s := e.Suppression; s != nil {
		if s.Removed {
			say("taken off the suppression list by %s%s", s.Source, inBrackets(s.Reason))
		} else {
			say("put on the suppression list by %s%s", s.Source, inBrackets(s.Reason))
		}
	}
	for _, n := range e.Enrollments {
		if n.State == lodestone.EnrollmentActive {
			say("enters %s", n.Sequence)
		} else {
			say("leaves %s: %s%s", n.Sequence, n.State, because(n.Reason, string(n.State)))
		}
	}
	for _, t := range e.Touchpoints {
		switch {
		case t.Reason == lodestone.ReasonPlanned:
			say("%s.%s is planned for %s", t.Sequence, t.Step, utc(t.DueAt))
		case t.State == lodestone.TouchpointScheduled:
			say("%s.%s waits until %s%s", t.Sequence, t.Step, utc(t.DueAt), because(t.Reason, ""))
		case t.State == lodestone.TouchpointIntended:
			say("%s.%s is about to be sent, attempt %d", t.Sequence, t.Step, t.Attempt)
		default:
			detail := ""
			if t.Detail != "" {
				detail = ": " + t.Detail
			}
			say("%s.%s is %s%s", t.Sequence, t.Step, stateWords(t.State, t.Reason), detail)
		}
	}
	return list
}

func inBrackets(s string) string {
	if s == "" {
		return ""
	}
	return " (" + s + ")"
}

func writeAttempt(w io.Writer, a *api.Attempt) {
	what := fmt.Sprintf("attempt %d", a.Number)
	if a.Lookup {
		what = "looked up"
	}
	fmt.Fprintf(w, "      %s at %s: %s", what, utc(a.At), stateWords(a.State, a.Reason))
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

// words writes a reason as words.
func words(r lodestone.Reason) string { return api.Words(r) }

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
