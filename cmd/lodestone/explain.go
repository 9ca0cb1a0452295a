package main

import (
	"errors"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/lodestonehq/lodestone/internal/api"
)

func (c *cli) explainCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "explain EMAIL",
		Short: "Why a lead has its score and sequence, what was sent or not and why, and what comes next",
		Example: `  lodestone explain ada@example.com
  lodestone explain ada@example.com --json | jq .touchpoints`,
		Long: `Explain tells of one lead, from what is on record: the score line by line, every sequence and why it was
entered or not, every touchpoint with the checks before it and the attempts made, and what comes next.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			x, err := conn.Lead(cmd.Context(), a[0])
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
			writeExplanation(c.out, &x, conn.set, time.Now())
			return nil
		},
	}
}
