// Command lodestone turns form submissions into scored leads, scheduled touchpoints and provider
// actions, and explains afterwards what it did and why.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/lodestonehq/lodestone/internal/config"
)

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2 // used wrongly
	exitFound  = 3 // `check` found problems
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		<-ctx.Done()
		stop() // a second signal ends the process at once
	}()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run carries out one command line and returns the exit code.
func run(ctx context.Context, args []string, in io.Reader, out, err io.Writer) int {
	c := &cli{in: in, out: out, err: err}
	root := c.root()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(err)
	e := root.ExecuteContext(ctx)
	var usage usageError
	switch {
	case e == nil:
		return exitDone
	case errors.Is(e, errFound):
		return exitFound
	case errors.As(e, &usage):
		fmt.Fprintf(err, "lodestone: %v\n", e)
		return exitUsage
	default:
		fmt.Fprintf(err, "lodestone: %v\n", e)
		return exitFailed
	}
}

// errFound ends a command that found problems and has told of them.
var errFound = errors.New("problems found")

// usageError is a command line that cannot be understood.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// cli is what the commands share: the streams and the global flags.
type cli struct {
	in       io.Reader
	out, err io.Writer

	cfg *config.Config // once it was read

	flags struct {
		config, data, rules, natsURL, natsListen, httpListen, logLevel, logFormat string
		json                                                                      bool
	}
}

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "lodestone",
		Short: "Scored leads and timely touchpoints from form submissions, with the reason for everything on record",
		Example: `  lodestone demo                        see the whole job on sample data
  lodestone check rules                 check your rule files
  lodestone run                         work`,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q%s; see lodestone --help", args[0], suggestion(cmd, args[0]))
			}
			return cmd.Help()
		},
		Args: cobra.ArbitraryArgs,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w; see %s --help", err, cmd.CommandPath())
	})
	f := root.PersistentFlags()
	f.StringVar(&c.flags.config, "config", "", "configuration file (default lodestone.yaml when there is one)")
	f.StringVar(&c.flags.data, "data", "", "data directory (default ./data)")
	f.StringVar(&c.flags.rules, "rules", "", "directory of rule files (default ./rules)")
	f.StringVar(&c.flags.natsURL, "nats-url", "", "an external NATS server; none: the embedded one")
	f.StringVar(&c.flags.natsListen, "nats-listen", "", `where the embedded NATS server listens; "none": in this process only`)
	f.StringVar(&c.flags.httpListen, "http-listen", "", "where health, readiness and metrics are served")
	f.StringVar(&c.flags.logLevel, "log-level", "", "debug, info, warn or error (default info)")
	f.StringVar(&c.flags.logFormat, "log-format", "", "text or json (default text)")
	f.BoolVar(&c.flags.json, "json", false, "print data as JSON")
	for _, add := range []func() *cobra.Command{
		c.demoCmd, c.runCmd, c.submitCmd, c.checkCmd, c.scoreCmd, c.explainCmd, c.queueCmd,
		c.suppressCmd, c.claimCmd, c.sandboxCmd, c.schemaCmd, c.versionCmd,
	} {
		root.AddCommand(add())
	}
	return root
}

// suggestion names the commands that look like what was typed.
func suggestion(cmd *cobra.Command, typed string) string {
	cmd.SuggestionsMinimumDistance = 2
	if s := cmd.SuggestionsFor(typed); len(s) > 0 {
		return fmt.Sprintf("; did you mean %s?", strings.Join(s, " or "))
	}
	return ""
}

// args makes cobra's checks of arguments usage errors that say how the command is used.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, a []string) error {
		if err := check(cmd, a); err != nil {
			return usagef("%w\nusage: %s", err, cmd.UseLine())
		}
		return nil
	}
}
