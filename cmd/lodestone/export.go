package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/api"
	"github.com/lodestonehq/lodestone/internal/config"
)

func (c *cli) exportCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "export EMAIL",
		Short: "Everything that is known of a person, for their own eyes",
		Long: `Export gathers what is known of a person: the lead, the whole history, what waits under attention, the suppression,
and the messages about them in the streams, which a running worker looks through. Without --json it is a sheet that can be
given to who asked: what is held and since when, what they agreed to, what it is used for, whom it was given to, how long it
stays, and all of it as it is stored. What providers hold is theirs to tell; the sheet names them.`,
		Example: "  lodestone export ada@example.com > for-ada.txt\n  lodestone export ada@example.com --json > ada.json",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			conn, err := c.aboutPerson(cmd.Context(), a[0], false)
			if err != nil {
				return err
			}
			defer conn.Close()
			x, err := conn.Export(cmd.Context(), a[0])
			if err != nil {
				return err
			}
			if !x.Streams {
				fmt.Fprintln(c.err, "no worker runs, so the streams were not looked into; start one for the whole of it")
			}
			if c.flags.json {
				return c.printJSON(x)
			}
			cfg, err := c.load()
			if err != nil {
				return err
			}
			writeSheet(c.out, &x, cfg.Retention)
			return nil
		},
	}
}

// writeSheet writes what is known of a person for that person: in their words before ours, newest last.
func writeSheet(w io.Writer, x *api.Export, keep config.Retention) {
	head := func(text string) { fmt.Fprintf(w, "\n%s\n", text) }
	fmt.Fprintf(w, "What is known of %s, put together on %s\n", x.Email, utc(x.At))
	l := x.Lead
	if l != nil {
		if !l.FirstSeen.IsZero() {
			fmt.Fprintf(w, "First known since %s.\n", utc(l.FirstSeen))
		}
		head("What you gave us")
		var rows [][]string
		for name, v := range l.Profile.All() {
			rows = append(rows, []string{name, fmt.Sprint(v)})
		}
		if l.Zone != "" {
			rows = append(rows, []string{"time zone", l.Zone})
		}
		if len(rows) == 0 {
			rows = [][]string{{"nothing but the address"}}
		}
		table(w, "  ", rows)
	}
	var history []lodestone.Entry
	if x.Explanation != nil {
		history = x.Explanation.History
	}
	writeSubmitted(w, history)
	writeAgreed(w, l, x.Suppression)
	writeUse(w, x)
	writeGiven(w, history)
	writeReported(w, history)
	head("How long it is kept")
	table(w, "  ", [][]string{
		{"what you gave us", "until " + days(keep.Leads) + " after the last thing that happened, unless you ask us to erase it"},
		{"what was decided and sent", days(keep.Journal)},
		{"each form and signal as it came", days(keep.Submissions) + ", one that could not be used " + days(keep.Attention)},
		{"news of it to our own programs", days(keep.Events)},
		{"that you do not want to be written to", "for as long as we may have your address"},
	})
	if len(x.Attention)+len(x.Messages) > 0 {
		head("All of it, as it is stored")
	}
	for _, k := range x.Attention {
		if k.Data != "" {
			fmt.Fprintf(w, "\n  Kept for a human, %s, %s\n  %s\n", utc(k.At), words(k.Reason), k.Data)
		}
	}
	for _, m := range x.Messages {
		fmt.Fprintf(w, "\n  Message %d of %s, %s, %s\n  %s\n", m.Seq, m.Stream, m.Subject, utc(m.At), m.Data)
	}
	if !x.Streams {
		fmt.Fprintln(w, "\nThis sheet is not complete: the messages as they came were not looked through.")
	}
}

func writeSubmitted(w io.Writer, history []lodestone.Entry) {
	var rows [][]string
	for i := range history {
		if d := history[i].Decision; d != nil && d.Reason != lodestone.ReasonDuplicate {
			rows = append(rows, []string{utc(d.SubmittedAt), "form " + d.Form})
		}
	}
	if len(rows) > 0 {
		fmt.Fprintln(w, "\nWhen you gave it")
		table(w, "  ", rows)
	}
}

func writeAgreed(w io.Writer, l *lodestone.Lead, s *lodestone.Suppression) {
	fmt.Fprintln(w, "\nWhat you agreed to")
	switch {
	case l == nil || l.Consent == nil:
		fmt.Fprintln(w, "  nothing is on record: no form asked you, or you did not answer")
	default:
		k := l.Consent
		said := "not to hear from us"
		if k.Marketing {
			said = "to hear from us"
		}
		rows := [][]string{{"said", said}, {"when", utc(k.At)}}
		if !k.ClaimedAt.IsZero() {
			rows = append(rows, []string{"when, as the sender says", utc(k.ClaimedAt)})
		}
		for _, r := range [][2]string{{"the words that were shown", k.Text}, {"form", k.Form}, {"page", k.Page}, {"from the network address", k.IP}, {"address, as the sender says", k.ClaimedIP}} {
			if r[1] != "" {
				rows = append(rows, []string{r[0], r[1]})
			}
		}
		if !k.Confirmed.IsZero() {
			rows = append(rows, []string{"confirmed by a link", utc(k.Confirmed)})
		}
		table(w, "  ", rows)
	}
	if s != nil {
		fmt.Fprintf(w, "  You are not written to: on the suppression list since %s (%s, by %s).\n", utc(s.At), s.Reason, s.Source)
	}
}

// writeUse says what is made of what the person gave.
func writeUse(w io.Writer, x *api.Export) {
	e := x.Explanation
	if e == nil {
		return
	}
	fmt.Fprintln(w, "\nWhat we use it for")
	fmt.Fprintln(w, "  Rules give points to what was entered in forms; by the sum it is decided which messages are of interest to you.")
	band := ""
	if e.Band != "" {
		band = ", which counts as " + e.Band
	}
	fmt.Fprintf(w, "  Your sum is %d%s.\n", e.Score, band)
	var rows [][]string
	for _, line := range e.Ledger {
		rows = append(rows, []string{signed(line.Value), line.Rule, "since " + date(line.At)})
	}
	table(w, "    ", rows)
	for i := range e.History {
		for _, n := range e.History[i].Enrollments {
			if n.State == lodestone.EnrollmentActive {
				fmt.Fprintf(w, "  %s  chosen for the messages of %s\n", utc(e.History[i].At), n.Sequence)
			} else {
				fmt.Fprintf(w, "  %s  the messages of %s ended: %s\n", utc(e.History[i].At), n.Sequence, n.State)
			}
		}
	}
	if n := e.Next; n != nil {
		fmt.Fprintf(w, "  Next: %s at %s\n", n.Step, utc(n.At))
	}
}

// writeGiven says whom something about the person was given to, when, and what.
func writeGiven(w io.Writer, history []lodestone.Entry) {
	fmt.Fprintln(w, "\nWhom it was given to")
	sent := map[string]string{} // by touchpoint: what was about to be sent
	given := false
	for i := range history {
		e := &history[i]
		for _, t := range e.Touchpoints {
			provider, operation := lodestone.SplitOperation(t.Operation)
			switch t.State {
			case lodestone.TouchpointIntended:
				text, _ := json.Marshal(t.Arguments)
				sent[t.ID] = string(text)
			case lodestone.TouchpointSent, lodestone.TouchpointUnknown, lodestone.TouchpointHeld:
				said := map[lodestone.TouchpointState]string{
					lodestone.TouchpointSent: "received", lodestone.TouchpointUnknown: "may have received", lodestone.TouchpointHeld: "may have received",
				}[t.State]
				given = true
				fmt.Fprintf(w, "  %s  %s %s your address (%s)", utc(e.At), provider, said, operation)
				if a := sent[t.ID]; a != "" && a != "null" && a != "{}" {
					fmt.Fprintf(w, " and %s", a)
				}
				if t.Reference != "" {
					fmt.Fprintf(w, "; there you are %s", t.Reference)
				}
				fmt.Fprintln(w)
			}
		}
		if k := e.Call; k != nil && k.Class != api.ClassIntended && k.Class != api.ClassBlocked {
			provider, operation := lodestone.SplitOperation(k.Operation)
			given = true
			fmt.Fprintf(w, "  %s  %s was asked to do %s by hand (%s), with %s\n", utc(e.At), provider, operation, k.Class, k.Arguments)
		}
	}
	if !given {
		fmt.Fprintln(w, "  nobody")
	}
}

func writeReported(w io.Writer, history []lodestone.Entry) {
	var rows [][]string
	for i := range history {
		if g := history[i].Signal; g != nil && g.Reason != lodestone.ReasonDuplicate {
			rows = append(rows, []string{utc(g.At), string(g.Kind)})
		}
	}
	if len(rows) > 0 {
		fmt.Fprintln(w, "\nWhat was reported about you")
		table(w, "  ", rows)
	}
}

// days writes how long something is kept.
func days(d time.Duration) string {
	if d == 0 {
		return "for good"
	}
	return count(int(d/(24*time.Hour)), "day")
}
