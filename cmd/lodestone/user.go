package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/lodestonehq/lodestone/internal/access"
)

func (c *cli) userCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "user",
		Short: "People who may sign in to the console: add, ls, rm, passwd",
		Long: `While there is neither a user nor a token, this machine reads console and API without signing in, and nobody
else is let in. With the first user everybody signs in. A viewer looks; an operator may also act, as far as that
is possible over the network. Users work from the moment they are made, whether a worker runs or not.`,
		Example: "  lodestone user add ada\n  lodestone user ls\n  lodestone user passwd ada\n  lodestone user rm ada",
	}
	cmd.AddCommand(c.userAddCmd(), c.userListCmd(), c.userPasswdCmd(), c.userRemoveCmd())
	return cmd
}

// book is the file of users and tokens.
func (c *cli) book() (*access.Book, error) {
	cfg, err := c.load()
	if err != nil {
		return nil, err
	}
	return access.OpenBook(cfg.Data), nil
}

// bookToAdd is the same where something is to be added, which may be before the first start.
func (c *cli) bookToAdd() (*access.Book, error) {
	cfg, err := c.load()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	return access.OpenBook(cfg.Data), nil
}

// password asks for a password twice on a terminal, where it is not shown, or reads it from a file, "-" for
// standard input. One line break at its end is not part of it.
func (c *cli) password(ctx context.Context, file string) (string, error) {
	if file == "" && !c.terminal() {
		return "", usagef("nobody can be asked for the password here; give it with --password-file FILE, or on standard input with --password-file -")
	}
	if file != "" {
		in := c.in
		if file != "-" {
			f, err := os.Open(file)
			if err != nil {
				return "", fmt.Errorf("--password-file: %w", err)
			}
			defer f.Close()
			in = f
		}
		b, err := io.ReadAll(io.LimitReader(in, 64<<10))
		if err != nil {
			return "", fmt.Errorf("read the password: %w", err)
		}
		return string(bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))), nil
	}
	ask := func(prompt string) (string, error) {
		fmt.Fprint(c.err, prompt)
		b, err := hidden(ctx, int(c.in.(*os.File).Fd()))
		fmt.Fprintln(c.err)
		return string(b), err
	}
	first, err := ask(fmt.Sprintf("Password, at least %d characters: ", access.MinPassword))
	if err != nil {
		return "", err
	}
	second, err := ask("Once more: ")
	if err != nil {
		return "", err
	}
	if first != second {
		return "", errors.New("the two are not the same; nothing was changed")
	}
	return first, nil
}

// hidden reads a line from a terminal that does not show it. When it is interrupted the terminal shows again what
// is typed; the reading itself ends with the process.
func hidden(ctx context.Context, fd int) ([]byte, error) {
	was, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	type line struct {
		text []byte
		err  error
	}
	read := make(chan line, 1)
	go func() {
		text, err := term.ReadPassword(fd)
		read <- line{text, err}
	}()
	select {
	case l := <-read:
		return l.text, l.err
	case <-ctx.Done():
		return nil, errors.Join(errors.New("interrupted; nothing was changed"), term.Restore(fd, was))
	}
}

// printedUser is one user as --json prints it.
type printedUser struct {
	Name    string    `json:"name"`
	Role    string    `json:"role"`
	Made    time.Time `json:"made"`
	Changed time.Time `json:"password_changed"`
}

func (c *cli) userAddCmd() *cobra.Command {
	var role, file string
	cmd := &cobra.Command{
		Use: "add NAME", Short: "Make a user; the password is asked for",
		Example: "  lodestone user add ada\n  lodestone user add ada --role viewer --password-file ada.txt",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			if err := access.CheckName(a[0]); err != nil {
				return usagef("%q: %w", a[0], err)
			}
			if access.Roles[role] == access.Nothing {
				return usagef("--role is %q; give viewer or operator", role)
			}
			b, err := c.bookToAdd()
			if err != nil {
				return err
			}
			password, err := c.password(cmd.Context(), file)
			if err != nil {
				return err
			}
			now := time.Now().UTC().Truncate(time.Second)
			if err := b.AddUser(a[0], role, password, now); errors.Is(err, access.ErrThere) {
				return fmt.Errorf("there is a user %s already; `lodestone user passwd %s` changes the password", a[0], a[0])
			} else if err != nil {
				return err
			}
			if c.flags.json {
				return c.printJSON(printedUser{a[0], role, now, now})
			}
			fmt.Fprintf(c.err, "%s can sign in as %s, at /login on http.listen\n", a[0], role)
			return nil
		},
	}
	cmd.Flags().StringVar(&role, "role", "operator", "viewer, who looks, or operator, who may also act")
	cmd.Flags().StringVar(&file, "password-file", "", "read the password from this file; - for standard input (default: asked for)")
	return cmd
}

func (c *cli) userPasswdCmd() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "passwd NAME", Short: "Change a password; wherever the user is signed in, that ends",
		Example: "  lodestone user passwd ada\n  pass show ada | lodestone user passwd ada --password-file -",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			b, err := c.book()
			if err != nil {
				return err
			}
			users, err := b.Users()
			if err != nil {
				return err
			}
			known := false
			for _, u := range users {
				known = known || u.Name == a[0]
			}
			if !known {
				return noUser(a[0])
			}
			password, err := c.password(cmd.Context(), file)
			if err != nil {
				return err
			}
			if err := b.SetPassword(a[0], password, time.Now()); err != nil {
				return err
			}
			fmt.Fprintf(c.err, "the password of %s is changed; wherever %s was signed in, that has ended\n", a[0], a[0])
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "password-file", "", "read the password from this file; - for standard input (default: asked for)")
	return cmd
}

func noUser(name string) error {
	return fmt.Errorf("there is no user %s; `lodestone user ls` lists those there are", name)
}

func (c *cli) userListCmd() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "The users there are", Example: "  lodestone user ls\n  lodestone user ls --json", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			b, err := c.book()
			if err != nil {
				return err
			}
			users, err := b.Users()
			if err != nil {
				return err
			}
			out := []printedUser{}
			for _, u := range users {
				out = append(out, printedUser{u.Name, u.Role, u.Made, u.Changed})
			}
			if c.flags.json {
				return c.printJSON(struct {
					Users []printedUser `json:"users"`
				}{out})
			}
			if len(out) == 0 {
				fmt.Fprintln(c.out, "there is no user")
				return nil
			}
			rows := [][]string{{"NAME", "ROLE", "SINCE", "PASSWORD OF"}}
			for _, u := range out {
				rows = append(rows, []string{u.Name, u.Role, date(u.Made), date(u.Changed)})
			}
			table(c.out, "", rows)
			return nil
		},
	}
}

func (c *cli) userRemoveCmd() *cobra.Command {
	return c.removal(&cobra.Command{
		Use: "rm NAME", Short: "Remove a user; wherever they are signed in, that ends", Example: "  lodestone user rm ada --yes",
	}, "%s can not sign in any more. Remove the user?", "%s is removed\n", (*access.Book).RemoveUser, noUser)
}

// removal completes a command that removes what has a name in the book. question and done hold a place for it.
func (c *cli) removal(cmd *cobra.Command, question, done string, remove func(*access.Book, string) error, none func(string) error) *cobra.Command {
	var yes bool
	cmd.Args = args(cobra.ExactArgs(1))
	cmd.RunE = func(_ *cobra.Command, a []string) error {
		b, err := c.book()
		if err != nil {
			return err
		}
		if err := c.confirm(yes, fmt.Sprintf(question, a[0])); err != nil {
			return err
		}
		if err := remove(b, a[0]); errors.Is(err, access.ErrNone) {
			return none(a[0])
		} else if err != nil {
			return err
		}
		fmt.Fprintf(c.err, done, a[0])
		c.sayOpen(b)
		if c.flags.json {
			return c.printJSON(map[string]string{"removed": a[0]})
		}
		return nil
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// sayOpen says what it means that nobody is left.
func (c *cli) sayOpen(b *access.Book) {
	if alone, err := b.Empty(); err == nil && alone {
		fmt.Fprintln(c.err, "there is neither a user nor a token any more: this machine reads console and API without signing in, and nobody else does")
	}
}

func (c *cli) tokenCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Tokens with which programs read metrics and API over HTTP: add, ls, rm",
		Long: `A program shows its token as in "Authorization: Bearer lodestone_…". It is for metrics alone, for reading, or
for operating; each includes those before it. What is kept is a hash: a token is shown once, when it is made. With
the first token, everybody needs one or signs in.`,
		Example: "  lodestone token add grafana --scope metrics\n  lodestone token ls\n  lodestone token rm grafana",
	}
	cmd.AddCommand(c.tokenAddCmd(), c.tokenListCmd(), c.tokenRemoveCmd())
	return cmd
}

// printedToken is one token as --json prints it; the secret stands there once, when it is made.
type printedToken struct {
	Name    string    `json:"name"`
	Scope   string    `json:"scope"`
	Token   string    `json:"token,omitempty"`
	Made    time.Time `json:"made"`
	Expires time.Time `json:"expires,omitzero"`
	Used    time.Time `json:"used,omitzero"`
}

func (c *cli) tokenAddCmd() *cobra.Command {
	var scope string
	var days int
	cmd := &cobra.Command{
		Use: "add NAME", Short: "Make a token; it is shown once",
		Example: "  lodestone token add grafana --scope metrics\n  lodestone token add sync --scope operate --days 90",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, a []string) error {
			if err := access.CheckName(a[0]); err != nil {
				return usagef("%q: %w", a[0], err)
			}
			if access.Scopes[scope] == access.Nothing {
				return usagef("--scope is %q; give metrics, read or operate", scope)
			}
			if days < 0 || days > 36500 {
				return usagef("--days is %d; give 0 for a token that never expires, or up to 36500", days)
			}
			b, err := c.bookToAdd()
			if err != nil {
				return err
			}
			now, expires := time.Now(), time.Time{}
			if days > 0 {
				expires = now.AddDate(0, 0, days)
			}
			secret, t, err := b.AddToken(a[0], scope, expires, now)
			if errors.Is(err, access.ErrThere) {
				return fmt.Errorf("there is a token %s already, and it cannot be shown again; remove it first, or take another name", a[0])
			}
			if err != nil {
				return err
			}
			if c.flags.json {
				return c.printJSON(printedToken{t.Name, t.Scope, secret, t.Made, t.Expires, t.Used})
			}
			fmt.Fprintln(c.out, secret)
			fmt.Fprintln(c.err, "it is shown this once; curl -H \"Authorization: Bearer $TOKEN\" uses it")
			return nil
		},
	}
	cmd.Flags().StringVar(&scope, "scope", "read", "what it is for: metrics, read or operate")
	cmd.Flags().IntVar(&days, "days", 365, "how long it is good; 0: for ever")
	return cmd
}

func (c *cli) tokenListCmd() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "The tokens there are, and when each was last used", Example: "  lodestone token ls\n  lodestone token ls --json", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			b, err := c.book()
			if err != nil {
				return err
			}
			tokens, err := b.Tokens()
			if err != nil {
				return err
			}
			out := []printedToken{}
			for _, t := range tokens {
				out = append(out, printedToken{t.Name, t.Scope, "", t.Made, t.Expires, t.Used})
			}
			if c.flags.json {
				return c.printJSON(struct {
					Tokens []printedToken `json:"tokens"`
				}{out})
			}
			if len(out) == 0 {
				fmt.Fprintln(c.out, "there is no token")
				return nil
			}
			rows := [][]string{{"NAME", "SCOPE", "SINCE", "UNTIL", "LAST USED"}}
			for _, t := range out {
				until, used := "for ever", "never"
				if !t.Expires.IsZero() {
					until = date(t.Expires)
					if !time.Now().Before(t.Expires) {
						until += ", over"
					}
				}
				if !t.Used.IsZero() {
					used = date(t.Used)
				}
				rows = append(rows, []string{t.Name, t.Scope, date(t.Made), until, used})
			}
			table(c.out, "", rows)
			return nil
		},
	}
}

func (c *cli) tokenRemoveCmd() *cobra.Command {
	return c.removal(&cobra.Command{
		Use: "rm NAME", Short: "End a token", Example: "  lodestone token rm grafana --yes",
	}, "What uses the token %s is not let in any more. End it?", "the token %s has ended\n", (*access.Book).RemoveToken, func(name string) error {
		return fmt.Errorf("there is no token %s; `lodestone token ls` lists those there are", name)
	})
}
