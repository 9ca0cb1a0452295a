package main

import (
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/api"
)

func (c *cli) queueCmd() *cobra.Command {
	var state string
	var limit int
	var attention bool
	cmd := &cobra.Command{
		Use:   "queue",
		Short: "Touchpoints that wait, soonest first; --attention: what a human must look at",
		Example: `  lodestone queue --state unknown
  lodestone queue --attention`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 {
				return usagef("--limit is %d; give 1 or more", limit)
			}
			if s := lodestone.TouchpointState(state); s != "" && !s.Pending() {
				return usagef("--state is %q; give scheduled, intended, unknown or held. Touchpoints that ended are found by `lodestone explain EMAIL`", state)
			}
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			query := url.Values{"limit": {strconv.Itoa(limit)}}
			if attention {
				return c.attention(cmd, conn, query)
			}
			query.Set("state", state)
			var q api.Queue
			if err := conn.Call(cmd.Context(), "GET", "/api/v1/queue", query, nil, &q); err != nil {
				return err
			}
			if c.flags.json {
				return c.printJSON(q)
			}
			c.writeQueue(&q, time.Now())
			return nil
		},
	}
	cmd.Flags().StringVar(&state, "state", "", "only touchpoints in this state: scheduled, intended, unknown or held")
	cmd.Flags().IntVar(&limit, "limit", 50, "how many to show")
	cmd.Flags().BoolVar(&attention, "attention", false, "what a human must look at")
	return cmd
}

func (c *cli) writeQueue(q *api.Queue, now time.Time) {
	if len(q.Touchpoints) == 0 {
		fmt.Fprintln(c.out, "no touchpoint waits")
	} else {
		rows := [][]string{{"DUE", "", "STATE", "SEQUENCE.STEP", "LEAD", "TOUCHPOINT"}}
		for _, t := range q.Touchpoints {
			when := "in " + roughly(t.DueAt.Sub(now))
			if late := now.Sub(t.DueAt); late >= 0 {
				when = "late by " + roughly(late)
			}
			state := string(t.State)
			if t.Reason != "" {
				state += " (" + string(t.Reason) + ")"
			}
			rows = append(rows, []string{utc(t.DueAt), when, state, t.Sequence + "." + t.Step, string(t.Email), t.ID})
		}
		table(c.out, "", rows)
		if more := q.Total - uint64(len(q.Touchpoints)); more > 0 && q.Total > uint64(len(q.Touchpoints)) {
			fmt.Fprintf(c.out, "and %d more; --limit shows them\n", more)
		}
	}
	fmt.Fprint(c.out, "all in all:")
	for _, s := range lodestone.TouchpointStates {
		fmt.Fprintf(c.out, " %s %d", s, q.Counts[s])
	}
	fmt.Fprintln(c.out)
}

func (c *cli) attention(cmd *cobra.Command, conn *connection, query url.Values) error {
	var a api.Attention
	if err := conn.Call(cmd.Context(), "GET", "/api/v1/attention", query, nil, &a); err != nil {
		return err
	}
	if c.flags.json {
		return c.printJSON(a)
	}
	if a.Total == 0 {
		fmt.Fprintln(c.out, "nothing needs a human")
		return nil
	}
	rows := [][]string{{"SINCE", "KIND", "REASON", "LEAD", "FORM", "ID", "DETAIL"}}
	for _, i := range a.Items {
		rows = append(rows, []string{utc(i.At), string(i.Kind), string(i.Reason), string(i.Email), i.Form, i.ID, i.Detail})
	}
	table(c.out, "", rows)
	if a.Total > len(a.Items) {
		fmt.Fprintf(c.out, "and %d more; --limit shows them\n", a.Total-len(a.Items))
	}
	return nil
}
