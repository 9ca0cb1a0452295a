package main

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/referralrock"
	"github.com/lodestonehq/lodestone/connectors/sandbox"
	"github.com/lodestonehq/lodestone/internal/app"
	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/rules"
)

// demoScale is how much faster time passes in the demo: a day in ten seconds.
const demoScale = 8640

func (c *cli) demoCmd() *cobra.Command {
	var length time.Duration
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "The whole system on sample data: nothing to install, nothing is sent anywhere",
		Long: `Demo runs everything in one process: a NATS server, the store, the worker with the starter rules, and
a sandbox that stands in for ReferralRock. It submits sample forms and tells what happens to each and why.
The waiting times of the rules pass faster here: a day takes ten seconds. With --rules it shows your own
rules on the same samples. Everything lives in a temporary folder that is removed at the end.`,
		Example: "  lodestone demo\n  lodestone demo --for 20s\n  lodestone demo --rules ./rules",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.demo(cmd.Context(), length)
		},
	}
	cmd.Flags().DurationVar(&length, "for", 0, "end by itself after this time, like 20s (default: when interrupted)")
	return cmd
}

func (c *cli) demo(ctx context.Context, length time.Duration) (err error) {
	files := rules.Starter()
	if c.flags.rules != "" {
		if files, err = rules.ReadDir(c.flags.rules); err != nil {
			return err
		}
	}
	opts := settings{}.rulesOptions()
	set, err := rules.Compile(files, opts)
	if err != nil {
		return c.faulty(c.flags.rules, err)
	}
	dir, err := os.MkdirTemp("", "lodestone-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	if length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, length)
		defer cancel()
	}
	box := sandbox.New(sandbox.Options{})
	defer box.Close()
	boxAt, err := listenNear("127.0.0.1:9090")
	if err != nil {
		return err
	}
	boxServer := &http.Server{Handler: box.Handler(), ReadHeaderTimeout: 10 * time.Second}
	go boxServer.Serve(boxAt) // ends with Close
	defer boxServer.Close()

	n := newNarrator(c, set, demoScale)
	w, err := openDemo(ctx, c, dir, files, opts, "http://"+boxAt.Addr().String()+"/referralrock", n)
	if err != nil {
		if ctx.Err() != nil {
			return nil // interrupted before it began
		}
		return err
	}
	n.introduce(w, boxAt.Addr().String(), dir, c.flags.rules)

	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	done := make(chan error, 1)
	go func() { done <- w.Run(work) }()
	told := make(chan struct{})
	go func() { n.run(); close(told) }()

	play(ctx, w.Broker(), box, n)
	switch {
	case ctx.Err() != nil:
	case length > 0:
		n.say("\nThat was the last sample; the demo goes on until its time is up.")
	default:
		n.say("\nThat was the last sample. Everything goes on running: in another terminal try\n\n" +
			"  " + self() + " explain ada@bigco.example --data " + filepath.Join(dir, "data") + "\n" +
			"  " + self() + " submit pricing-guide --field email=you@yours.example" + natsFlag(w) + "\n\n" +
			"Ctrl-C ends it and removes the folder.")
	}
	var failed error
	select {
	case <-ctx.Done():
	case failed = <-done:
	}
	tally, tallyErr := takeTally(context.WithoutCancel(ctx), w, box)
	if failed == nil {
		stop()
		failed = <-done
	}
	n.finish()
	<-told
	if err := errors.Join(failed, tallyErr); err != nil {
		return err
	}
	return tally.write(c.out)
}

// self is how this program was started, for commands that are to be tried.
func self() string {
	if strings.Contains(os.Args[0], "go-build") { // by `go run`
		return "go run ./cmd/lodestone"
	}
	return os.Args[0]
}

// natsFlag is how `submit` finds a broker that is not where it usually is.
func natsFlag(w *app.Worker) string {
	if url := w.Broker().URL(); url != "" && url != "nats://127.0.0.1:4222" {
		return " --nats-url " + url
	}
	return ""
}

// listenNear listens at an address, or at a free port when it is taken.
func listenNear(addr string) (net.Listener, error) {
	if l, err := net.Listen("tcp", addr); err == nil {
		return l, nil
	}
	return net.Listen("tcp", "127.0.0.1:0")
}

// freeAddr is addr when nobody listens there, else one at a free port.
func freeAddr(addr string) string {
	l, err := listenNear(addr)
	if err != nil {
		return addr // the one who listens there will say what is wrong
	}
	defer l.Close()
	return l.Addr().String()
}

func openDemo(ctx context.Context, c *cli, dir string, files []rules.File, opts rules.Options, provider string, n *narrator) (*app.Worker, error) {
	log := slog.New(slog.DiscardHandler)
	if c.flags.logLevel != "" {
		var level slog.Level
		if err := level.UnmarshalText([]byte(c.flags.logLevel)); err != nil {
			return nil, usagef("--log-level %q: give debug, info, warn or error", c.flags.logLevel)
		}
		log = slog.New(slog.NewTextHandler(c.err, &slog.HandlerOptions{Level: level}))
	}
	listen, public := cmp.Or(c.flags.httpListen, freeAddr("127.0.0.1:8080")), ""
	if listen != "none" {
		public = "http://" + listen
	}
	return app.Open(ctx, app.Options{
		Data:       filepath.Join(dir, "data"),
		Broker:     broker.Options{Listen: cmp.Or(c.flags.natsListen, freeAddr("127.0.0.1:4222")), MaxStore: 1 << 30},
		HTTPListen: listen, PublicURL: public, Origins: []string{"*"},
		Rules: func() ([]rules.File, error) { return files, nil }, RulesOptions: opts,
		Accounts: func(_ []string, reg prometheus.Registerer, log *slog.Logger) (map[string]*connectors.Account, error) {
			a, err := connectors.Open(referralrock.Kind(), connectors.Settings{
				Name: "referralrock", BaseURL: provider, Rate: 50, Timeout: 2 * time.Second, Settle: 2 * time.Second,
				Secrets: map[string]connectors.Secret{"public_key": "sandbox", "private_key": "sandbox"},
			}, connectors.WithRegisterer(reg), connectors.WithLogger(log))
			if err != nil {
				return nil, err
			}
			return map[string]*connectors.Account{"referralrock": a}, nil
		},
		TimeScale: demoScale, Log: log, Committed: n.committed, Rejected: n.rejected,
	})
}

// joinWords joins words for a sentence: a, b and c.
func joinWords(w []string) string {
	if len(w) < 2 {
		return strings.Join(w, "")
	}
	return strings.Join(w[:len(w)-1], ", ") + " and " + w[len(w)-1]
}
