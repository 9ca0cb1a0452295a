package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/lodestonehq/lodestone/internal/api"
)

func (c *cli) claimCmd() *cobra.Command {
	var yes, actedSince bool
	cmd := &cobra.Command{
		Use:     "claim",
		Aliases: []string{"adopt"},
		Short:   "Say that this data directory is the one that acts",
		Long: `A data directory that was copied or restored is noticed: it answers questions and does nothing
outward, because the one it was copied from may still be at work. Claim says that this is the one that
acts from now on. Make sure that the other one does not run any more, and stop a worker that runs on this one.

When the other one went on working after the copy was made, say --acted-since: what waits here may have
been sent there, and is looked up at the provider before anything goes out, as after a restore.`,
		Example: "  lodestone claim --data ./restored --yes\n  lodestone claim --acted-since",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			if err := c.confirm(yes, claimQuestion(conn, actedSince)); err != nil {
				return err
			}
			var got struct {
				WasCopy bool `json:"was_copy"`
			}
			if err := conn.Call(cmd.Context(), "POST", "/api/v1/claim", nil, api.Claim{ActedSince: actedSince}, &got); err != nil {
				return err
			}
			if c.flags.json {
				return c.printJSON(got)
			}
			if got.WasCopy {
				fmt.Fprintln(c.out, "claimed: this data directory acts from the next `lodestone run` on")
			} else {
				fmt.Fprintln(c.out, "this data directory is no copy: it acts already, and nothing had to be done")
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&actedSince, "acted-since", false, "the other one went on working after this copy was made")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// claimQuestion is what to be sure of before a claim.
func claimQuestion(conn *connection, actedSince bool) string {
	if conn.store != nil {
		if r := conn.store.Restored(); r != nil && r.Claimed.IsZero() {
			return "Is it sure that no other worker goes on with this data?"
		}
	}
	const stopped = "Is the worker of the data directory that this one was copied from stopped for good"
	if actedSince {
		return stopped + "?"
	}
	return stopped + ", and did it do nothing since the copy was made? (Where it went on, say no and use --acted-since: what it may have sent is then looked up.)"
}
