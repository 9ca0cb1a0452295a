package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lodestonehq/lodestone/internal/api"
)

// by says who gives a command, for the record.
func by() string {
	name := ""
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if name == "" {
		name = os.Getenv("USER")
	}
	if name == "" {
		name = "user " + strconv.Itoa(os.Getuid())
	}
	return api.ByCommand + ", " + name
}

// scopeOf reads what is to be paused or to go on.
func scopeOf(cmd *cobra.Command, a []string) (string, error) {
	kinds := []string{"all", "sequence", "connector"}
	switch {
	case len(a) == 1 && a[0] == "all", len(a) == 2 && (a[0] == "sequence" || a[0] == "connector") && a[1] != "":
		return strings.Join(a, " "), nil
	case len(a) == 1 && (a[0] == "sequence" || a[0] == "connector"):
		return "", usagef("say which %s: %s %s NAME", a[0], cmd.CommandPath(), a[0])
	case len(a) > 0 && a[0] != "all" && a[0] != "sequence" && a[0] != "connector":
		return "", usagef("%q can not be %sd%s", a[0], cmd.Name(), instead(a[0], kinds, "give all, sequence NAME or connector NAME"))
	}
	return "", usagef("give one of all, sequence NAME, connector NAME; see %s --help", cmd.CommandPath())
}

func pauseWords(p api.Paused) string {
	s := p.Scope + " since " + utc(p.At)
	if p.By != "" {
		s += " by " + p.By
	}
	if p.Reason != "" {
		s += ": " + p.Reason
	}
	return s
}

func (c *cli) pauseCmd() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "pause [all | sequence NAME | connector NAME]",
		Short: "Send nothing for now: at all, of one sequence, or through one connector",
		Long: `Pause stops touchpoints at the gate, from the moment it returns on: at all, those of one sequence, or
those that go through one connector. A call that is out by then is not called back. Submissions are taken
in, scored and assigned as always; what falls due waits with the reason paused. A pause outlives a restart
and ends with lodestone resume. Without arguments it shows what is paused.`,
		Example: "  lodestone pause sequence hot-invite --reason \"the offer has ended\"\n  lodestone pause all\n  lodestone pause",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, a []string) error {
			scope := ""
			if len(a) > 0 {
				var err error
				if scope, err = scopeOf(cmd, a); err != nil {
					return err
				}
			}
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			if scope == "" {
				var got api.Pauses
				if err := conn.Call(cmd.Context(), "GET", "/api/v1/pauses", nil, nil, &got); err != nil {
					return err
				}
				if c.flags.json {
					return c.printJSON(got)
				}
				if len(got.Pauses) == 0 {
					fmt.Fprintln(c.out, "nothing is paused")
				}
				for _, p := range got.Pauses {
					fmt.Fprintln(c.out, pauseWords(p))
				}
				return nil
			}
			var got struct {
				api.Paused
				Already bool `json:"already"`
			}
			q := api.PauseScope{Scope: scope, Reason: reason, By: by()}
			if err := conn.Call(cmd.Context(), "POST", "/api/v1/pauses", nil, q, &got); err != nil {
				return err
			}
			if c.flags.json {
				return c.printJSON(got)
			}
			if got.Already {
				fmt.Fprintf(c.out, "%s; it was paused already\n", pauseWords(got.Paused))
				return nil
			}
			fmt.Fprintf(c.out, "paused: %s. `lodestone resume %s` lets it go on\n", pauseWords(got.Paused), scope)
			return nil
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why; shown by queue and kept on record")
	return cmd
}

func (c *cli) resumeCmd() *cobra.Command {
	var reason string
	var yes bool
	cmd := &cobra.Command{
		Use:   "resume all | sequence NAME | connector NAME",
		Short: "Let go on what was paused; shows first what is overdue",
		Long: `Resume takes a pause back. It first shows what has become overdue meanwhile, because all of that is due
at once: it goes out at the provider's rate, after the gate was asked as always. On a terminal it asks
before it does that. What should not go out any more can be cancelled before.

A connector whose provider refuses the credentials or keeps failing is asked again at once, with a check and
never an act; when it answers as it should, what waited for it is due.`,
		Example: "  lodestone resume sequence hot-invite\n  lodestone resume all --json",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, a []string) error {
			scope, err := scopeOf(cmd, a)
			if err != nil {
				return err
			}
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			var o api.Overdue
			if err := conn.Call(cmd.Context(), "GET", "/api/v1/overdue", url.Values{"scope": {scope}}, nil, &o); err != nil {
				return err
			}
			c.writeOverdue(&o, time.Now())
			if o.Total > 0 && o.Pause != nil && c.terminal() {
				if err := c.confirm(yes, fmt.Sprintf("Let %s go on now?", scope)); err != nil {
					return err
				}
			}
			var got api.Resumed
			q := api.PauseScope{Scope: scope, Reason: reason, By: by()}
			if err := conn.Call(cmd.Context(), "POST", "/api/v1/resume", nil, q, &got); err != nil {
				return err
			}
			var away error
			if got.Probe != nil && !got.Probe.OK {
				away = fmt.Errorf("%s was asked again and is still not to be used: %s", scope, got.Probe.Detail)
			}
			if c.flags.json {
				return errors.Join(c.printJSON(struct {
					api.Resumed
					Overdue api.Overdue `json:"overdue"`
				}{got, o}), away)
			}
			switch {
			case got.WasPaused:
				fmt.Fprintf(c.out, "%s goes on\n", scope)
			case got.Probe != nil && got.Probe.OK:
				fmt.Fprintf(c.out, "%s was asked and answers as it should: it goes on\n", scope)
			case got.Probe != nil: // said below
			default:
				fmt.Fprintf(c.out, "%s was not paused\n", scope)
			}
			for _, p := range got.Others {
				fmt.Fprintf(c.out, "still paused: %s\n", pauseWords(p))
			}
			return away
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why; kept on record")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

func (c *cli) writeOverdue(o *api.Overdue, now time.Time) {
	if o.Pause != nil {
		fmt.Fprintf(c.err, "paused: %s\n", pauseWords(*o.Pause))
	}
	if o.Total == 0 {
		fmt.Fprintln(c.err, "nothing of it is overdue")
		return
	}
	least := ""
	if o.AtLeast {
		least = "at least "
	}
	fmt.Fprintf(c.err, "overdue: %s%s, the oldest since %s (%s)\n", least, count(o.Total, "touchpoint"), utc(o.Oldest), roughly(now.Sub(o.Oldest)))
	rows := [][]string{}
	for _, t := range o.Touchpoints {
		rows = append(rows, []string{utc(t.DueAt), t.Sequence + "." + t.Step, string(t.Email), t.ID})
	}
	table(c.err, "  ", rows)
	if more := o.Total - len(o.Touchpoints); more > 0 {
		fmt.Fprintf(c.err, "  and %d more\n", more)
	}
}
