package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/lodestonehq/lodestone/internal/api"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
)

func (c *cli) compactCmd() *cobra.Command {
	var pause time.Duration
	cmd := &cobra.Command{
		Use:   "compact",
		Short: "Give back what the store file holds and does not use",
		Long: `A store file never shrinks by itself; what is deleted from it is used again. Compact writes what is in use
into a new file and puts that in the place of the old one. While a worker runs, its commits wait
meanwhile: submissions stay in the stream, nothing is sent, questions are answered. How long that will be
is said before, and --max-pause bounds it: what takes longer is given up, and nothing has changed.`,
		Example: "  lodestone compact\n  lodestone compact --max-pause 10s",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if pause <= 0 {
				return usagef("--max-pause is %v; give a time such as 30s", pause)
			}
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			var usage boltstore.Usage
			if err := conn.Call(cmd.Context(), "GET", "/api/v1/usage", nil, nil, &usage); err != nil {
				return err
			}
			if !c.flags.json && conn.Worker {
				expected := time.Duration(float64(usage.Used) / boltstore.CompactSpeed * float64(time.Second)).Round(100 * time.Millisecond)
				fmt.Fprintf(c.err, "%s are in use: the worker's commits will wait for about %v, for %v at the longest\n", megabytes(usage.Used), max(expected, 100*time.Millisecond), pause)
			}
			var got boltstore.Compacted
			if err := conn.Call(cmd.Context(), "POST", "/api/v1/compact", nil, api.Compact{AtMost: pause}, &got); err != nil {
				return err
			}
			if c.flags.json {
				return c.printJSON(got)
			}
			fmt.Fprintf(c.out, "%s before, %s now; commits waited for %v\n", megabytes(got.Before), megabytes(got.After), got.Stopped.Round(time.Millisecond))
			return nil
		},
	}
	cmd.Flags().DurationVar(&pause, "max-pause", time.Minute, "how long commits may wait")
	return cmd
}
