package main

import (
	"errors"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/lodestonehq/lodestone/internal/api"
)

func (c *cli) explainCmd() *cobra.Command {
	var entries int
	var all bool
	cmd := &cobra.Command{
		Use:   "explain EMAIL",
		Short: "Why a lead has its score and sequence, what was sent or not and why, and what comes next",
		Example: `  lodestone explain ada@example.com
  lodestone explain ada@example.com --json | jq .touchpoints`,
		Long: `Explain tells of one lead, from what is on record: the score line by line, every sequence and why it was
entered or not, every touchpoint with the checks before it and the attempts made, and what comes next.

Of a long history the newest part is shown; --limit and --all reach further back.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			switch {
			case all && entries != 0:
				return usagef("give --limit or --all, not both")
			case all:
				entries = api.MaxLimit
			case entries < 0 || entries > api.MaxLimit:
				return usagef("--limit takes a number from 1 to %d", api.MaxLimit)
			}
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			x, err := conn.Lead(cmd.Context(), a[0], entries)
			if err != nil {
				var p *api.Problem
				if errors.As(err, &p) && p.Status == http.StatusBadRequest {
					return usageError{err}
				}
				return err
			}
			if c.flags.json {
				return c.printJSON(x)
			}
			writeExplanation(c.out, &x, conn.set, time.Now(), entries)
			return nil
		},
	}
	cmd.Flags().IntVar(&entries, "limit", 0, "how many entries of the history to read and show, newest first")
	cmd.Flags().BoolVar(&all, "all", false, "the whole history")
	return cmd
}
