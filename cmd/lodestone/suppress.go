package main

import (
	"fmt"
	"net/url"

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
			only := map[lodestone.Email]bool{}
			for _, e := range emails {
				email, err := lodestone.ParseEmail(e)
				if err != nil {
					return usagef("%q: %w", e, err)
				}
				only[email] = true
			}
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			list := []lodestone.Suppression{}
			for after := ""; ; {
				var page api.Suppressions
				if err := conn.Call(cmd.Context(), "GET", "/api/v1/suppressions", url.Values{"after": {after}}, nil, &page); err != nil {
					return err
				}
				if len(page.Suppressions) == 0 {
					break
				}
				after = string(page.Suppressions[len(page.Suppressions)-1].Email)
				for _, s := range page.Suppressions {
					if len(only) == 0 || only[s.Email] {
						list = append(list, s)
					}
				}
			}
			if c.flags.json {
				return c.printJSON(api.Suppressions{Suppressions: list})
			}
			if len(list) == 0 {
				if len(only) > 0 {
					fmt.Fprintln(c.out, "none of these is on the suppression list")
				} else {
					fmt.Fprintln(c.out, "nobody is on the suppression list")
				}
				return nil
			}
			rows := [][]string{{"ADDRESS", "SINCE", "BY", "REASON"}}
			for _, s := range list {
				rows = append(rows, []string{string(s.Email), utc(s.At), s.Source, s.Reason})
			}
			table(c.out, "", rows)
			return nil
		},
	}
}
