package main

import (
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/lodestonehq/lodestone/internal/api"
)

func (c *cli) undoCmd() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "undo SEQUENCE", Short: "Take back the enrollments that a sequence's brake holds",
		Example: "  lodestone undo hot-invite",
		Long: `Takes back the enrollments that the brake of a sequence holds, as if they had not begun: nobody was
contacted, and each of these leads may enter the sequence again at once, whatever its reenter says.
To let them go on instead: lodestone release --brake SEQUENCE.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error { return c.letGo(cmd, a[0], true, yes) },
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// letGo acts on what the brake of a sequence holds, after asking.
func (c *cli) letGo(cmd *cobra.Command, sequence string, undo, yes bool) error {
	conn, err := c.connect(cmd.Context())
	if err != nil {
		return err
	}
	defer conn.Close()
	path := "/api/v1/brakes/" + url.PathEscape(sequence)
	var got api.Brake
	if err := conn.Call(cmd.Context(), "GET", path, nil, nil, &got); err != nil {
		return err
	}
	if got.Held > 0 {
		question := fmt.Sprintf("Let the %d enrollments that the brake of %s holds go on?", got.Held, sequence)
		if undo {
			question = fmt.Sprintf("Take back the %d enrollments that the brake of %s holds?", got.Held, sequence)
		}
		if err := c.confirm(yes, question); err != nil {
			return err
		}
		if err := conn.Call(cmd.Context(), "POST", path, nil, api.LetGo{Undo: undo, By: by()}, &got); err != nil {
			return err
		}
	}
	switch {
	case c.flags.json:
		return c.printJSON(got)
	case got.Changed == 0:
		fmt.Fprintf(c.out, "the brake of %s holds nothing\n", sequence)
	case undo:
		fmt.Fprintf(c.out, "%d enrollments in %s were taken back\n", got.Changed, sequence)
	default:
		fmt.Fprintf(c.out, "%d enrollments in %s go on, at the provider's rate\n", got.Changed, sequence)
	}
	return nil
}
