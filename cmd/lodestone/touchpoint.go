package main

import (
	"errors"
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/api"
	"github.com/lodestonehq/lodestone/sequencer"
)

func (c *cli) retryCmd() *cobra.Command {
	var reason string
	var yes bool
	cmd := &cobra.Command{
		Use:   "retry TOUCHPOINT",
		Short: "Have a touchpoint tried now: one that is held, failed, unknown or scheduled",
		Long: `Retry has one touchpoint tried now. The gate is asked as always: whoever unsubscribed, is suppressed or has
left the sequence gets nothing. What is sent is worked out anew from the lead as it is.

  scheduled  it is due now instead of later
  failed     it is tried again, under the same id; a later step of the same sequence waits for it
  held       whether it happened is not known, so it may be the second time: look at the provider
  unknown    first. Retry asks on a terminal, and needs --yes elsewhere

A touchpoint whose call is out, and one that was sent, skipped or cancelled, is refused with the reason.
Ids are shown by lodestone queue and lodestone explain.`,
		Example: "  lodestone retry qmzexample3pfjr6u.invite\n  lodestone retry qmzexample3pfjr6u.invite --yes --reason \"not there, seen at the provider\"",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			return c.operate(cmd, a[0], api.Operate{Operation: sequencer.Retry, Reason: reason}, yes)
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why; kept on record and shown by explain")
	cmd.Flags().BoolVar(&yes, "yes", false, "try it also where it may be the second time")
	return cmd
}

func (c *cli) cancelCmd() *cobra.Command {
	var reason string
	var yes, stepOnly, wasSent bool
	cmd := &cobra.Command{
		Use:   "cancel TOUCHPOINT",
		Short: "End a touchpoint that waits, and its lead's way through the sequence with it",
		Long: `Cancel ends a touchpoint that is scheduled, held or unknown. The lead's way through the sequence ends with
it, as cancelled: what follows usually builds on what came before. With --step-only the step alone is
left out and the sequence goes on with the next. With --was-sent a touchpoint whose outcome is not known
counts as sent, because it was seen at the provider, and the sequence goes on.

A touchpoint that failed has ended already: cancel closes the question what to do about it, and ends
what is left of the sequence unless --step-only says otherwise. One whose call is out is refused.`,
		Example: "  lodestone cancel qmzexample3pfjr6u.invite --yes\n  lodestone cancel qmzexample3pfjr6u.invite --was-sent --yes",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			q := api.Operate{Operation: sequencer.Cancel, Reason: reason}
			switch {
			case stepOnly && wasSent:
				return usagef("give --step-only or --was-sent, not both")
			case stepOnly:
				q.Operation = sequencer.Skip
			case wasSent:
				q.Operation = sequencer.Confirm
			}
			return c.operate(cmd, a[0], q, yes)
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why; kept on record and shown by explain")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&stepOnly, "step-only", false, "leave out this step alone; the sequence goes on")
	cmd.Flags().BoolVar(&wasSent, "was-sent", false, "it did happen, as seen at the provider; the sequence goes on")
	return cmd
}

// operate carries out a person's word about a touchpoint, after asking where it cannot be undone.
func (c *cli) operate(cmd *cobra.Command, id string, q api.Operate, yes bool) error {
	conn, err := c.connect(cmd.Context())
	if err != nil {
		return err
	}
	defer conn.Close()
	q.By = by()
	path := "/api/v1/touchpoints/" + url.PathEscape(id)
	var got api.Operated
	// What would happen is asked first, so that the question says what it is about.
	try := q
	try.DryRun, try.Sure = true, true
	if err := conn.Call(cmd.Context(), "POST", path, nil, try, &got); err != nil {
		return err
	}
	what := fmt.Sprintf("%s.%s of %s", got.Sequence, got.Step, got.Email)
	if q.Operation == sequencer.Retry {
		if got.Doubt {
			question := fmt.Sprintf("Whether %s happened is not known (it is %s), so this may be the second time for them. Look at the provider first. Try it again?", what, got.Was)
			if err := c.confirm(yes, question); err != nil {
				return err
			}
			q.Sure = true
		}
	} else if err := c.confirm(yes, cancelQuestion(&got, what, q.Operation)); err != nil {
		return err
	}
	if err := conn.Call(cmd.Context(), "POST", path, nil, q, &got); err != nil {
		var p *api.Problem
		if errors.As(err, &p) && p.Status == 409 {
			return fmt.Errorf("%w (it changed while you were asked)", err)
		}
		return err
	}
	if c.flags.json {
		return c.printJSON(got)
	}
	switch {
	case q.Operation == sequencer.Retry && got.Doubt:
		fmt.Fprintf(c.out, "%s: it was %s and is due now; the gate is asked first. It may be the second time.\n", what, got.Was)
	case q.Operation == sequencer.Retry:
		fmt.Fprintf(c.out, "%s: it was %s and is due now; the gate is asked first\n", what, got.Was)
	case got.Was == lodestone.TouchpointFailed:
		fmt.Fprintf(c.out, "%s: it had failed, and needs nobody any more%s\n", id, onward(&got))
	default:
		fmt.Fprintf(c.out, "%s: %s%s\n", what, got.State, onward(&got))
	}
	if !conn.Worker {
		fmt.Fprintln(c.err, "no worker runs: it takes effect when one starts")
	}
	return nil
}

func cancelQuestion(d *api.Operated, what string, op sequencer.Operation) string {
	verb := "Cancel " + what
	switch {
	case op == sequencer.Confirm:
		verb = "Count " + what + " as sent"
	case d.Was == lodestone.TouchpointFailed:
		verb = "Close the question what to do about " + what + ", which failed"
	}
	return fmt.Sprintf("%s%s?", verb, onward(d))
}

// onward says how the lead's sequence goes on.
func onward(d *api.Operated) string {
	switch {
	case d.Enrollment == lodestone.EnrollmentActive && d.Next != "":
		return "; the sequence goes on with " + d.Next
	case d.Enrollment != "":
		return "; its enrollment is over: " + string(d.Enrollment)
	}
	return ""
}
