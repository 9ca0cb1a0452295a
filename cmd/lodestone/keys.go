package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/lodestonehq/lodestone/internal/api"
	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/rules"
)

// printedKey is one key as --json prints it; the password stands there once, when it is made.
type printedKey struct {
	Form        string    `json:"form"`
	User        string    `json:"user"`
	Password    string    `json:"password,omitempty"`
	Subject     string    `json:"subject"`
	InboxPrefix string    `json:"inbox_prefix"`
	Made        time.Time `json:"made"`
}

func printed(k broker.FormKey, password string) printedKey {
	return printedKey{k.Form, k.User(), password, "lodestone.forms." + k.Form, k.InboxPrefix(), k.Made}
}

func (c *cli) keysCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Keys with which clients of NATS may publish one form and nothing else",
		Long: `A key lets a page (over nats.websocket) or a back end (over nats.listen) publish the submissions of one
form. It can do nothing else: read no stream, hear nobody's messages, publish on no other subject. Keys
work as soon as they are made, and let nobody in any more as soon as they are removed; connections that stand
are closed. A backup holds their hashes, so that a restored machine has them; their passwords are kept nowhere.`,
		Example: "  lodestone keys form pricing-guide\n  lodestone keys ls\n  lodestone keys rm pricing-guide",
	}
	cmd.AddCommand(c.keysFormCmd(), c.keysListCmd(), c.keysRemoveCmd())
	return cmd
}

// formKeys is the file of keys of the data directory.
func (c *cli) formKeys() (broker.FormKeys, error) {
	cfg, err := c.load()
	if err != nil {
		return broker.FormKeys{}, err
	}
	if cfg.NATS.URL != "" {
		return broker.FormKeys{}, errors.New("nats.url names a server outside, which keeps its own users: give the user of a form the permission to publish on lodestone.forms.FORM and to subscribe to _INBOX_FORM.>, and nothing else")
	}
	return broker.FormKeys{Path: filepath.Join(cfg.Data, broker.FormKeysName)}, nil
}

func (c *cli) keysFormCmd() *cobra.Command {
	var replace bool
	cmd := &cobra.Command{
		Use:     "form FORM",
		Short:   "Make the key of a form; its password is shown once",
		Example: "  lodestone keys form pricing-guide\n  lodestone keys form pricing-guide --replace",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			if !rules.IsName(a[0]) {
				return fmt.Errorf("%q cannot be the name of a form: small letters, digits, - and _", a[0])
			}
			keys, err := c.formKeys()
			if err != nil {
				return err
			}
			key, password, err := keys.Make(a[0], replace)
			if errors.Is(err, broker.ErrKeyThere) {
				return fmt.Errorf("%s has a key already, and its password cannot be shown again; --replace makes another one, and the old one ends", a[0])
			}
			if err != nil {
				return fmt.Errorf("%w; is there a data directory? `lodestone run` makes it", err)
			}
			if err := c.dropForm(cmd.Context(), a[0]); err != nil {
				return err
			}
			if cfg, err := c.load(); err == nil {
				c.undeclared(cfg, a[0])
			}
			p := printed(key, password)
			if c.flags.json {
				return c.printJSON(p)
			}
			fmt.Fprintf(c.out, "user          %s\npassword      %s\nsubject       %s\ninbox prefix  %s\n", p.User, p.Password, p.Subject, p.InboxPrefix)
			return nil
		},
	}
	cmd.Flags().BoolVar(&replace, "replace", false, "end the key that the form has")
	return cmd
}

// dropForm has a running worker close what a key that has ended let in.
func (c *cli) dropForm(ctx context.Context, form string) error {
	cfg, err := c.load()
	if err != nil {
		return err
	}
	client, ok := api.Dial(cfg.Data)
	if !ok {
		return nil
	}
	n, err := client.DropForm(ctx, form)
	if err != nil {
		return fmt.Errorf("the key has ended, and its open connections could not be closed: %w; restart the worker", err)
	}
	if n > 0 {
		fmt.Fprintf(c.err, "closed: %s that it had opened\n", count(n, "connection"))
	}
	return nil
}

func (c *cli) keysListCmd() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "The keys there are", Example: "  lodestone keys ls", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			keys, err := c.formKeys()
			if err != nil {
				return err
			}
			list, err := keys.List()
			if err != nil {
				return err
			}
			out := []printedKey{}
			for _, k := range list {
				out = append(out, printed(k, ""))
			}
			if c.flags.json {
				return c.printJSON(struct {
					Keys []printedKey `json:"keys"`
				}{out})
			}
			for _, k := range out {
				fmt.Fprintf(c.out, "%-24s %-28s since %s\n", k.Form, k.User, k.Made.Format(time.DateOnly))
			}
			if len(out) == 0 {
				fmt.Fprintln(c.out, "no form has a key")
			}
			return nil
		},
	}
}

func (c *cli) keysRemoveCmd() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "rm FORM", Short: "End the key of a form", Example: "  lodestone keys rm pricing-guide --yes", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			keys, err := c.formKeys()
			if err != nil {
				return err
			}
			if err := c.confirm(yes, "Nothing that uses the key of "+a[0]+" can connect any more. End it?"); err != nil {
				return err
			}
			if err := keys.Remove(a[0]); errors.Is(err, broker.ErrNoKey) {
				return fmt.Errorf("%s has no key; `lodestone keys ls` lists those there are", a[0])
			} else if err != nil {
				return err
			}
			fmt.Fprintf(c.err, "the key of %s has ended\n", a[0])
			if err := c.dropForm(cmd.Context(), a[0]); err != nil || !c.flags.json {
				return err
			}
			return c.printJSON(map[string]string{"removed": a[0]})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}
