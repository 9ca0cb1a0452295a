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
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.opentelemetry.io/otel/trace"

	"github.com/lodestonehq/lodestone/internal/config"
)

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2 // used wrongly
	exitFound  = 3 // `check`, `test` or `doctor` found problems
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		<-ctx.Done()
		stop() // a second signal ends the process at once
	}()
	// The signal comes for a connection that broke as well, and that must not stop a worker: only an output
	// that nobody reads any more ends the command.
	signal.Ignore(syscall.SIGPIPE)
	broken := sync.OnceFunc(func() {
		cancel()
		signal.Reset(syscall.SIGPIPE) // writing on ends the process at once
	})
	os.Exit(run(ctx, os.Args[1:], os.Stdin, &piped{os.Stdout, broken}, &piped{os.Stderr, broken}))
}

// piped says when nobody reads any more what is written to it.
type piped struct {
	io.Writer
	broken func()
}

func (o *piped) Write(p []byte) (int, error) {
	n, err := o.Writer.Write(p)
	if errors.Is(err, syscall.EPIPE) {
		o.broken()
	}
	return n, err
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

	cfg    *config.Config // once it was read
	tracer trace.TracerProvider

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
				return usagef("unknown command %q%s", args[0], suggestion(cmd, args[0]))
			}
			return cmd.Help()
		},
		Args: cobra.ArbitraryArgs,
	}
	root.SetFlagErrorFunc(flagError)
	root.SetHelpCommand(helpCmd())
	f := root.PersistentFlags()
	f.StringVar(&c.flags.config, "config", "", "configuration file (default lodestone.yaml when there is one)")
	f.StringVar(&c.flags.data, "data", "", "data directory (default ./data)")
	f.StringVar(&c.flags.rules, "rules", "", "directory of rule files (default ./rules)")
	f.StringVar(&c.flags.natsURL, "nats-url", "", "an external NATS server (default: the one inside)")
	f.StringVar(&c.flags.natsListen, "nats-listen", "", `where the NATS server inside listens (default 127.0.0.1:4222); "none": nowhere`)
	f.StringVar(&c.flags.httpListen, "http-listen", "", `where forms, webhooks, health and metrics are served (default 127.0.0.1:8080); "none": nowhere`)
	f.StringVar(&c.flags.logLevel, "log-level", "", "debug, info, warn or error (default info)")
	f.StringVar(&c.flags.logFormat, "log-format", "", "text or json (default text)")
	f.BoolVar(&c.flags.json, "json", false, "print data as JSON")
	for _, add := range []func() *cobra.Command{
		c.retryCmd,
		c.cancelCmd,
		c.releaseCmd,
		c.pauseCmd,
		c.resumeCmd,
		c.migrateEnrollmentsCmd,
		c.demoCmd,
		c.runCmd,
		c.submitCmd,
		c.checkCmd,
		c.testCmd, c.planCmd,
		c.scoreCmd,
		c.explainCmd,
		c.renderCmd,
		c.queueCmd,
		c.undoCmd,
		c.suppressCmd,
		c.forgetCmd,
		c.exportCmd,
		c.claimCmd,
		c.keysCmd,
		c.userCmd,
		c.tokenCmd,
		c.operationsCmd,
		c.callCmd,
		c.hooksCmd,
		c.sandboxCmd,
		c.backupCmd,
		c.restoreCmd,
		c.compactCmd,
		c.doctorCmd,
		c.schemaCmd,
		c.versionCmd,
		c.benchCmd,
	} {
		root.AddCommand(add())
	}
	root.InitDefaultCompletionCmd()
	completions(root)
	return root
}

// completions hides cobra's own command for shells and gives each of its parts an example, as every
// command has one.
func completions(root *cobra.Command) {
	for _, c := range root.Commands() {
		if c.Name() != "completion" {
			continue
		}
		c.Hidden, c.Example = true, "  source <(lodestone completion bash)"
		for _, shell := range c.Commands() {
			shell.Example = "  lodestone completion " + shell.Name()
		}
	}
}

// flagError says what is wrong with a flag, and which one was probably meant.
func flagError(cmd *cobra.Command, err error) error {
	see := "see " + cmd.CommandPath() + " --help"
	var unknown *pflag.NotExistError
	var value *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown):
		var known []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, "--"+f.Name) })
		return usagef("%w%s", err, instead("--"+unknown.GetSpecifiedName(), known, see))
	case errors.As(err, &value):
		want := "a value"
		switch value.GetFlag().Value.Type() {
		case "int":
			want = "a whole number"
		case "duration":
			want = "a time such as 20s or 5m"
		case "bool":
			want = "true or false"
		}
		return usagef("--%s is %q; give %s; %s", value.GetFlag().Name, value.GetValue(), want, see)
	}
	return usagef("%w; %s", err, see)
}

// suggestion names the command that was probably meant.
func suggestion(cmd *cobra.Command, typed string) string {
	var known []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			known = append(known, c.Name())
		}
	}
	return instead(typed, known, cmd.CommandPath()+" --help lists them all")
}

// helpCmd is cobra's, with an exit code for a command that there is not.
func helpCmd() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "What a command does and how it is used", Example: "  lodestone help submit",
		RunE: func(cmd *cobra.Command, a []string) error {
			about, rest, err := cmd.Root().Find(a)
			if err != nil || len(rest) > 0 {
				return usagef("unknown command %q%s", strings.Join(a, " "), suggestion(cmd.Root(), a[0]))
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
	}
}

// args says how a command is used when it was given too much or too little.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, a []string) error {
		if err := check(cmd, a); err != nil {
			given := "nothing was given"
			if len(a) > 0 {
				given = fmt.Sprintf("%q was given", a)
			}
			return usagef("%s is not used like that: %s\nusage: %s\nsee %s --help", cmd.CommandPath(), given, cmd.UseLine(), cmd.CommandPath())
		}
		return nil
	}
}
