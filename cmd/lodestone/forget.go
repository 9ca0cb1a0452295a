package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/api"
)

func (c *cli) forgetCmd() *cobra.Command {
	var yes, providers bool
	cmd := &cobra.Command{
		Use:   "forget EMAIL",
		Short: "Erase a person: lead, journal, attention and streams; a suppression stays under a keyed hash",
		Long: `Forget erases what is known of a person. What still runs for them ends as erased. The journal keeps its numbers
and loses everything that came from them; messages in the streams are overwritten. An address that was on the
suppression list stays suppressed: a keyed hash knows it again and cannot be read back.

The streams are cleared by the worker: at once when one runs, else when it next starts. Pages of the store file
that became free keep their bytes until they are used again; lodestone compact takes them out. Backups that were made
before, and stores that a restore put aside, still hold the person; a restore from such a backup erases them again.

What providers hold is not touched, and the operations that delete there are named. With --providers they are carried out:
every account that is configured is asked for what it holds of that exact address, each record is deleted behind the same
gate as lodestone call and on record under the keyed hash, and then it is looked up that nothing is left. That the person
unsubscribed there is kept here. An account of which that is not sure (it was away, an answer was lost, something was sent a
moment ago) is named, stands in lodestone queue --attention, and is asked again when the command is run again; the exit code
is 1 then.`,
		Example: "  lodestone forget ada@example.com\n  lodestone forget ada@example.com --providers\n  lodestone forget ada@example.com --yes --json",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			conn, err := c.aboutPerson(cmd.Context(), a[0], providers)
			if err != nil {
				return err
			}
			defer conn.Close()
			where := "Erase everything about %s?"
			if providers {
				where = "Erase everything about %s, here and at the providers?"
			}
			if err := c.confirm(yes, fmt.Sprintf(where+" It cannot be taken back.", a[0])); err != nil {
				return err
			}
			got, err := conn.Forget(cmd.Context(), a[0], providers)
			if err != nil {
				return err
			}
			if c.flags.json {
				err = c.printJSON(got)
			} else {
				c.printForgotten(&got, providers)
			}
			return errors.Join(err, unfinished(&got))
		},
	}
	cmd.Flags().BoolVar(&providers, "providers", false, "also delete what the providers hold")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// aboutPerson opens a connection for what is about one person; calling: their accounts can be called.
func (c *cli) aboutPerson(ctx context.Context, address string, calling bool) (*connection, error) {
	if _, err := lodestone.ParseEmail(address); err != nil {
		return nil, usagef("%q: %w", address, err)
	}
	if !calling {
		return c.connect(ctx)
	}
	cfg, err := c.load()
	if err != nil {
		return nil, err
	}
	return c.caller(ctx, cfg, cfg.Connectors...)
}

func (c *cli) printForgotten(got *api.Forgotten, asked bool) {
	if got.Lead || got.Attention > 0 || got.Messages > 0 {
		fmt.Fprintf(c.out, "%s is erased; journal entries blanked: %d; deleted: %s under attention, %s in the streams\n", got.Email,
			got.Entries, count(got.Attention, "item"), count(got.Messages, "message"))
	} else {
		fmt.Fprintf(c.out, "nothing was known of %s\n", got.Email)
	}
	if got.Suppressed {
		fmt.Fprintln(c.out, "it stays suppressed, under a keyed hash")
	}
	if got.Pending {
		fmt.Fprintln(c.out, "the streams are cleared when the worker next starts")
	}
	for _, p := range got.Providers {
		if asked {
			c.printThere(&p)
			continue
		}
		how := "it has no operation that deletes a person; ask the provider"
		if len(p.Operations) > 0 {
			calls := make([]string, len(p.Operations))
			for i, name := range p.Operations {
				calls[i] = "lodestone call " + strings.Replace(name, ".", " ", 1)
			}
			how = "delete there with " + strings.Join(calls, ", or ") + ", or all of it with lodestone forget EMAIL --providers"
		}
		fmt.Fprintf(c.out, "%s was told of this person: %s\n", p.Connector, how)
	}
	if got.Person != "" {
		fmt.Fprintf(c.out, "what was done is on record under the keyed hash %s\n", got.Person)
	}
}

func (c *cli) printThere(p *api.AtProvider) {
	found := "nothing of this person was there"
	if len(p.Deleted) > 0 {
		found = "deleted"
		for i, d := range p.Deleted {
			found += map[bool]string{true: " ", false: ", "}[i == 0] + d.What
			if d.Class != "ok" {
				found += " (" + d.Class + ")"
			}
		}
	}
	if p.State == api.StateClear {
		fmt.Fprintf(c.out, "%s: %s; looked up: nothing is left\n", p.Connector, found)
	} else {
		if len(p.Deleted) == 0 {
			found = "nothing was deleted"
		}
		fmt.Fprintf(c.out, "%s: %s; not finished: %s\n", p.Connector, found, p.Detail)
	}
	for _, k := range p.Kept {
		fmt.Fprintf(c.out, "  kept: %s\n", k)
	}
}

// unfinished is the error of an erasure that some provider has not carried out.
func unfinished(got *api.Forgotten) error {
	var open []string
	for _, p := range got.Providers {
		if p.State == api.StateRemains {
			open = append(open, p.Connector)
		}
	}
	if len(open) == 0 {
		return nil
	}
	return fmt.Errorf("not finished at %s: mend the cause and run the same command again; `lodestone queue --attention` keeps it in mind", strings.Join(open, ", "))
}
