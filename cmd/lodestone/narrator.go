package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/api"
	"github.com/lodestonehq/lodestone/internal/app"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/sequencer"
)

// narrator puts what the worker commits into words for a marketer. The worker hands it what it
// committed; one goroutine tells it, in order.
type narrator struct {
	c     *cli
	set   *rules.Set
	scale float64
	start time.Time
	tell  chan func()
}

func newNarrator(c *cli, set *rules.Set, scale float64) *narrator {
	return &narrator{c: c, set: set, scale: scale, start: time.Now(), tell: make(chan func(), 4096)}
}

// run tells until finish.
func (n *narrator) run() {
	for f := range n.tell {
		f()
	}
}

func (n *narrator) finish() { close(n.tell) }

func (n *narrator) say(text string) { n.tell <- func() { fmt.Fprintln(n.c.out, text) } }

func (n *narrator) committed(c *sequencer.Change) {
	if c.Entry != nil {
		e := *c.Entry
		n.tell <- func() { n.entry(&e) }
	}
}

func (n *narrator) rejected(a lodestone.Attention) {
	n.tell <- func() {
		n.line("could not be used and is kept whole for a human: %s: %s", words(a.Reason), a.Detail)
	}
}

func (n *narrator) introduce(w *app.Worker, box, dir, rulesDir string) {
	from := "the starter rules (rules/starter)"
	if rulesDir != "" {
		from = "the rules in " + rulesDir
	}
	fmt.Fprintf(n.c.out, "Lodestone demo: %s, %s, %s, version %s.\n", from, count(len(n.set.Rules), "scoring rule"), count(len(n.set.Sequences), "sequence"), n.set.Version)
	if len(n.set.Bands) > 0 {
		var bands []string
		for _, b := range n.set.Bands {
			bands = append(bands, fmt.Sprintf("%s from %d", b.Name, b.Min))
		}
		fmt.Fprintf(n.c.out, "Bands: %s. ", strings.Join(bands, ", "))
	}
	fmt.Fprintf(n.c.out, "A day of the rules takes ten seconds here.\n")
	fmt.Fprintf(n.c.out, "NATS at %s, health and metrics at http://%s, sandbox of ReferralRock at http://%s, data in %s\n", w.Broker().URL(), w.Web(), box, dir)
	fmt.Fprintf(n.c.out, "Open the console in a browser: http://%s/\n", w.Web())
}

// line writes one line of the story with its time.
func (n *narrator) line(format string, a ...any) {
	fmt.Fprintf(n.c.out, "%5.1fs   %s\n", time.Since(n.start).Seconds(), fmt.Sprintf(format, a...))
}

// more writes a line that belongs to the one before.
func (n *narrator) more(format string, a ...any) {
	fmt.Fprintf(n.c.out, "         %s\n", fmt.Sprintf(format, a...))
}

func (n *narrator) entry(e *lodestone.Entry) {
	if d := e.Decision; d != nil {
		n.decision(e.Lead, d)
	}
	for i := range e.Touchpoints {
		n.touchpoint(e.Lead, &e.Touchpoints[i], e)
	}
	for _, x := range e.Enrollments {
		if x.State != lodestone.EnrollmentActive {
			n.more("%s leaves %s: %s", e.Lead, x.Sequence, x.State)
		}
	}
}

func (n *narrator) decision(email lodestone.Email, d *lodestone.Decision) {
	if d.Reason == lodestone.ReasonDuplicate {
		n.line("%s: a repeat of a submission that was taken already; nothing changes", email)
		return
	}
	var sum []string
	for _, l := range d.Lines {
		sum = append(sum, signed(l.Points)+" "+l.Rule)
	}
	n.line("%s scores %d: %s", email, d.Score, bandWords(d.Score, d.Band, n.set))
	if len(sum) > 0 {
		n.more("%s", strings.Join(sum, "   "))
	}
	if d.PreviousBand != "" && d.PreviousBand != d.Band {
		n.more("was %s before", d.PreviousBand)
	}
	for _, f := range d.Faults {
		n.more("rule %s failed and gave nothing: %s", f.Rule, f.Detail)
	}
	for _, x := range d.Notes {
		n.more("note: %s", x)
	}
	var chosen string
	var not []string
	for _, c := range d.Candidates {
		if c.Verdict == lodestone.VerdictChosen {
			chosen = c.Sequence
		} else {
			not = append(not, fmt.Sprintf("%s (%s)", c.Sequence, words(c.Reason)))
		}
	}
	if chosen != "" {
		q := n.set.Sequence(chosen)
		why := ""
		if q != nil && q.When != nil {
			why = ", because " + q.When.Source()
		}
		n.more("enters %s%s", chosen, why)
	} else {
		n.more("enters no sequence: %s", api.DecisionWords(d, "was entered"))
	}
	if len(not) > 0 {
		n.more("not %s", joinWords(not))
	}
}

func (n *narrator) touchpoint(email lodestone.Email, t *lodestone.TouchpointEntry, e *lodestone.Entry) {
	what := fmt.Sprintf("%s.%s", t.Sequence, t.Step)
	switch {
	case t.Reason == lodestone.ReasonPlanned:
		wait := time.Duration(float64(t.DueAt.Sub(e.At)) * n.scale)
		if e.Decision != nil {
			wait = time.Duration(float64(t.DueAt.Sub(e.Decision.SubmittedAt)) * n.scale)
		}
		n.more("%s (%s) is planned in %s", t.Step, t.Operation, roughly(wait.Round(time.Second)))
	case t.State == lodestone.TouchpointIntended:
		// Told with its outcome.
	case t.State == lodestone.TouchpointSent:
		if t.Reason == lodestone.ReasonFound {
			n.line("%s: %s was looked up: it did arrive%s, so it is not sent again", email, what, reference(t))
			return
		}
		n.line("%s: %s sent by %s; the provider took it%s", email, what, t.Operation, reference(t))
	case t.State == lodestone.TouchpointScheduled && t.Reason == lodestone.ReasonAwaiting:
		n.more("%s waits until the address is confirmed", t.Step)
	case t.State == lodestone.TouchpointScheduled && t.Reason == lodestone.ReasonAddressConfirmed:
		n.line("%s: the address is confirmed, so %s is planned in %s", email, what, roughly(time.Duration(float64(t.DueAt.Sub(e.At))*n.scale).Round(time.Second)))
	case t.State == lodestone.TouchpointScheduled:
		n.line("%s: %s put off%s, tried again in %s%s", email, what, because(t.Reason, ""), roughly(t.DueAt.Sub(e.At).Round(100*time.Millisecond)), detail(t))
	case t.State == lodestone.TouchpointUnknown && t.Reason != lodestone.ReasonInterrupted && len(t.Verdicts) == 0 && t.Took == 0:
		n.line("%s: %s looked up, not settled yet%s", email, what, detail(t))
	case t.State == lodestone.TouchpointUnknown:
		n.line("%s: %s may or may not have arrived%s; the provider is asked before anything is sent again%s", email, what, because(t.Reason, ""), detail(t))
	default:
		n.line("%s: %s %s%s%s", email, what, t.State, because(t.Reason, string(t.State)), detail(t))
	}
}

func reference(t *lodestone.TouchpointEntry) string {
	if t.Reference == "" {
		return ""
	}
	return " as " + t.Reference
}

func detail(t *lodestone.TouchpointEntry) string {
	if t.Detail == "" {
		return ""
	}
	return ": " + t.Detail
}
