package main

import (
	"fmt"
	"net/url"
	"slices"

	"github.com/spf13/cobra"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/api"
)

func (c *cli) suppressCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "suppress",
		Short: "The list of addresses that are never contacted: add, rm, ls",
		Example: `  lodestone suppress add ada@example.com --reason "asked by phone"
  lodestone suppress ls`,
		Long: `The list of addresses that are never contacted, whatever the rules say. It holds what was put there by
hand, and what was learnt: an address that unsubscribed at a provider, or that bounced for good. Each
touchpoint is held against it at the last moment before it goes out.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, a []string) error {
			if len(a) > 0 {
				return usagef("unknown command %q%s", "suppress "+a[0], suggestion(cmd, a[0]))
			}
			return usagef("say what to do: suppress add, suppress rm or suppress ls; see %s --help", cmd.CommandPath())
		},
	}
	cmd.AddCommand(c.suppressChange("add", false), c.suppressChange("rm", true), c.suppressLs())
	return cmd
}

func (c *cli) suppressChange(name string, remove bool) *cobra.Command {
	var reason string
	short, done, not := "Put addresses on the list", "suppressed: nothing is sent to it any more", "was on the list already"
	because := "asked by phone"
	if remove {
		because = "signed up again"
		short, done, not = "Take addresses off the list", "off the list: it may be contacted again", "was not on the list"
	}
	cmd := &cobra.Command{
		Use: name + " EMAIL…", Short: short,
		Example: "  lodestone suppress " + name + ` ada@example.com --reason "` + because + `"`,
		Args:    args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, emails []string) error {
			for _, e := range emails {
				if _, err := lodestone.ParseEmail(e); err != nil {
					return usagef("%q: %w; nothing was changed", e, err)
				}
			}
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			var got api.Suppressed
			q := api.Suppress{Emails: emails, Remove: remove, Reason: reason}
			if err := conn.Call(cmd.Context(), "POST", "/api/v1/suppressions", nil, q, &got); err != nil {
				return err
			}
			if c.flags.json {
				return c.printJSON(got)
			}
			for _, e := range got.Changed {
				fmt.Fprintf(c.out, "%s: %s\n", e, done)
			}
			for _, e := range got.Unchanged {
				fmt.Fprintf(c.out, "%s: %s\n", e, not)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why; kept with the entry and shown by explain")
	return cmd
}

func (c *cli) suppressLs() *cobra.Command {
	return &cobra.Command{
		Use: "ls [EMAIL…]", Short: "Show the list, or whether addresses are on it", Example: "  lodestone suppress ls\n  lodestone suppress ls ada@example.com --json",
		RunE: func(cmd *cobra.Command, emails []string) error {
			var only []string
			for _, e := range emails {
				email, err := lodestone.ParseEmail(e)
				if err != nil {
					return usagef("%q: %w", e, err)
				}
				only = append(only, string(email))
			}
			slices.Sort(only) // as the whole list is; one that is given twice is one
			emails = slices.Compact(only)
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			all := api.Suppressions{Suppressions: []lodestone.Suppression{}}
			ask := func(q url.Values) (n int, err error) {
				var page api.Suppressions
				if err := conn.Call(cmd.Context(), "GET", "/api/v1/suppressions", q, nil, &page); err != nil {
					return 0, err
				}
				all.Suppressions, all.Erased = append(all.Suppressions, page.Suppressions...), page.Erased
				return len(page.Suppressions), nil
			}
			if len(emails) > 0 {
				erased := 0
				for some := range slices.Chunk(emails, 100) {
					if _, err := ask(url.Values{"email": some}); err != nil {
						return err
					}
					erased += all.Erased
				}
				all.Erased = erased
			}
			for after, n := "", 1; len(emails) == 0 && n > 0; {
				if n, err = ask(url.Values{"after": {after}}); err != nil {
					return err
				}
				if n > 0 {
					after = string(all.Suppressions[len(all.Suppressions)-1].Email)
				}
			}
			if c.flags.json {
				return c.printJSON(all)
			}
			if len(all.Suppressions) == 0 {
				if len(emails) > 0 {
					fmt.Fprintln(c.out, "none of these is on the suppression list")
				} else if all.Erased == 0 {
					fmt.Fprintln(c.out, "nobody is on the suppression list")
				} else {
					fmt.Fprintln(c.out, "no address that is known is on the suppression list")
				}
			} else {
				rows := [][]string{{"ADDRESS", "SINCE", "BY", "REASON"}}
				for _, s := range all.Suppressions {
					rows = append(rows, []string{string(s.Email), utc(s.At), s.Source, s.Reason})
				}
				table(c.out, "", rows)
			}
			if all.Erased > 0 && len(emails) > 0 {
				fmt.Fprintf(c.out, "%d of these asked to be forgotten: a hash alone keeps that they are never contacted\n", all.Erased)
			} else if all.Erased > 0 {
				fmt.Fprintf(c.out, "and %d of people who asked to be forgotten, kept as a hash alone; `suppress ls EMAIL` says of an address whether it is among them\n", all.Erased)
			}
			return nil
		},
	}
}
