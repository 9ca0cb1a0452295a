package main

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
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
		Long: `Queue lists the touchpoints that wait, soonest first, and counts those that ended. Late ones come first.
With --state it lists those in one state; those that ended come newest first, as far back as the journal goes.
With --attention it lists what a human must look at: submissions that could not be used, touchpoints that
failed or whose outcome cannot be known, connectors that are locked out. What a touchpoint went through is
told by lodestone explain with the lead's address.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 {
				return usagef("--limit is %d; give 1 or more", limit)
			}
			if s := lodestone.TouchpointState(state); s != "" && !slices.Contains(lodestone.TouchpointStates, s) {
				var known []string
				for _, s := range lodestone.TouchpointStates {
					known = append(known, string(s))
				}
				return usagef("--state is %q%s", state, instead(state, known, "the states are "+strings.Join(known, ", ")))
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
			c.writeQueue(&q, state, time.Now())
			return nil
		},
	}
	cmd.Flags().StringVar(&state, "state", "", "only touchpoints in this state: scheduled, intended, unknown, held, or one that ended: sent, failed, skipped, cancelled")
	cmd.Flags().IntVar(&limit, "limit", 50, "how many to show")
	cmd.Flags().BoolVar(&attention, "attention", false, "what a human must look at")
	return cmd
}

func (c *cli) writeQueue(q *api.Queue, only string, now time.Time) {
	ended := only != "" && !lodestone.TouchpointState(only).Pending()
	if ended && len(q.Touchpoints) == 0 {
		fmt.Fprintln(c.out, "no touchpoint on record ended as "+only)
	} else if len(q.Touchpoints) == 0 {
		fmt.Fprintln(c.out, "no touchpoint waits"+inState(only))
	} else {
		first := "DUE"
		if ended {
			first = "ENDED"
		}
		rows := [][]string{{first, "WHEN", "STATE", "SEQUENCE.STEP", "LEAD", "TOUCHPOINT"}}
		for _, t := range q.Touchpoints {
			when := "in " + roughly(t.DueAt.Sub(now))
			if late := now.Sub(t.DueAt); ended {
				when = roughly(late) + " ago"
			} else if late >= 0 {
				when = "late by " + roughly(late)
			}
			state := string(t.State)
			state += because(t.Reason, state)
			rows = append(rows, []string{utc(t.DueAt), when, state, t.Sequence + "." + t.Step, string(t.Email), t.ID})
		}
		table(c.out, "", rows)
		if more := q.Total - uint64(len(q.Touchpoints)); more > 0 && q.Total > uint64(len(q.Touchpoints)) {
			fmt.Fprintf(c.out, "and %d more; show them with --limit %d\n", more, q.Total)
		}
	}
	for i, p := range q.Pauses {
		if i == 0 {
			fmt.Fprintln(c.out)
		}
		fmt.Fprintf(c.out, "paused: %s; `lodestone resume %s` lets it go on\n", pauseWords(p), p.Scope)
	}
	var parts []string
	for _, s := range lodestone.TouchpointStates {
		if n := q.Counts[s]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, s))
		}
	}
	if len(parts) > 0 {
		fmt.Fprintf(c.out, "\nin all: %s\n", strings.Join(parts, ", "))
	}
}

func inState(state string) string {
	if state == "" {
		return ""
	}
	return " in state " + state
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
	rows := [][]string{{"SINCE", "KIND", "REASON", "FORM", "LEAD", "ID", "DETAIL"}}
	for _, i := range a.Items {
		rows = append(rows, []string{utc(i.At), string(i.Kind), words(i.Reason), orDash(i.Form), orDash(string(i.Email)), i.ID, i.Detail})
	}
	table(c.out, "", rows)
	if a.Total > len(a.Items) {
		fmt.Fprintf(c.out, "and %d more; show them with --limit %d\n", a.Total-len(a.Items), a.Total)
	}
	return nil
}

func orDash(s string) string { return cmp.Or(s, "-") }
