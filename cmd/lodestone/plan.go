package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/internal/api"
	"github.com/lodestonehq/lodestone/internal/app"
	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/internal/replay"
	"github.com/lodestonehq/lodestone/internal/simulate"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
)

func (c *cli) planCmd() *cobra.Command {
	var markdown bool
	var sample int
	cmd := &cobra.Command{
		Use:   "plan [DIR]",
		Short: "Replay the stored submissions through candidate rules and show what would change",
		Long: `Plan runs the stored submissions and signals through the rules in force and through those in DIR, side by
side on a virtual clock, and says what would change: which leads get another score, band or sequence, how
many touchpoints go out a day, who is mid-flight, what the providers' rates mean. Nothing is stored and
nothing is sent. In both worlds providers accept everything, and no brake holds anything.

Submissions come from the stream, which keeps 90 days; where it holds none, from the journal, which keeps
what was decided and not what was submitted. Exit code 3 means that the rule files are faulty.`,
		Example: "  lodestone plan rules\n  lodestone plan rules --markdown > pull-request.md\n  lodestone plan rules --json | jq .changed",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			if sample < 0 {
				return usagef("--sample is %d; give 0 or more", sample)
			}
			if markdown && c.flags.json {
				return usagef("give --json or --markdown, not both")
			}
			dir, opts, err := c.rulesDir(a)
			if err != nil {
				return err
			}
			then, err := rules.Load(dir, opts)
			if err != nil {
				return c.refuse(dir, err, func(f rules.Faults) any { return map[string]any{"faults": f} })
			}
			report, err := c.plan(cmd.Context(), then, opts, sample)
			if err != nil {
				return err
			}
			switch {
			case c.flags.json:
				return c.printJSON(report)
			case report.Submissions == 0:
				fmt.Fprintln(c.out, "There is nothing to replay: no submission is stored yet.")
			case markdown:
				report.Markdown(c.out)
			default:
				report.Text(c.out)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&markdown, "markdown", false, "write a summary for a pull request; addresses are masked in it")
	cmd.Flags().IntVar(&sample, "sample", 20, "how many of the leads that change to show")
	return cmd
}

// plan replays what is stored through the rules in force and through then.
func (c *cli) plan(ctx context.Context, then *rules.Set, opts rules.Options, sample int) (*replay.Report, error) {
	cfg, err := c.load()
	if err != nil {
		return nil, err
	}
	head, src, closer, err := c.past(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	if head.Version == "" {
		return nil, errors.New("no rules are in force yet: the worker never had usable ones, so there is nothing to compare with. Start it with `lodestone run`")
	}
	now, err := rules.Compile(head.Files, opts)
	if err != nil {
		return nil, fmt.Errorf("the rules in force, version %s, cannot be used with this configuration: %w", head.Version, err)
	}
	o := replay.Options{Now: now, Then: then, Sample: sample, Accounts: simulate.Accounts(opts), Rates: map[string]float64{}}
	for name, a := range o.Accounts {
		kind, _ := kindOf(name)
		st := connectors.Settings{Name: name}
		for _, conn := range cfg.Connectors {
			if conn.Name == name {
				kind, _ = kindOf(conn.Kind)
				st = accountSettings(conn, nil)
			}
		}
		st = st.WithDefaults(kind)
		a.Attempts, a.Settle, a.HoldUnknown = st.Attempts, st.Settle, st.OnUnknown == connectors.OnUnknownHold
		o.Accounts[name], o.Rates[name] = a, st.Rate
	}
	p := &progress{w: c.err, all: head.Submissions + head.Signals, begin: time.Now()}
	o.Progress = p.tell
	report, err := replay.Run(ctx, head, src, o)
	if err == nil {
		p.done(report.Submissions + report.Signals)
	}
	return report, err
}

// progress tells of a long replay on a terminal or in a log, once a second.
type progress struct {
	w     io.Writer
	all   uint64
	begin time.Time

	mu   sync.Mutex // guards last
	last time.Time
}

func (p *progress) tell(read, replayed uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); now.Sub(p.begin) > time.Second && now.Sub(p.last) > time.Second {
		p.last = now
		if replayed == 0 {
			fmt.Fprintf(p.w, "read %d of about %d\n", read, p.all)
			return
		}
		fmt.Fprintf(p.w, "replayed %d of %d\n", replayed, read)
	}
}

func (p *progress) done(n uint64) {
	if took := time.Since(p.begin); took > time.Second {
		fmt.Fprintf(p.w, "replayed %d in %s, %.0f a second\n", n, took.Round(100*time.Millisecond), float64(n)/took.Seconds())
	}
}

// past finds what was submitted so far: at the running worker, else in the data directory and its streams,
// or those of the server outside.
func (c *cli) past(ctx context.Context, cfg settings) (replay.Head, replay.Source, io.Closer, error) {
	fail := func(err error) (replay.Head, replay.Source, io.Closer, error) {
		return replay.Head{}, nil, nil, err
	}
	if client, ok := api.Dial(cfg.Data); ok {
		return client.Past(ctx)
	}
	if _, err := os.Stat(filepath.Join(cfg.Data, boltstore.FileName)); err != nil {
		return fail(fmt.Errorf("there is no data in %s: no worker ran there yet. Start one with `lodestone run`, or name its directory with --data", cfg.Data))
	}
	store, err := boltstore.Open(cfg.Data, boltstore.Options{})
	if errors.Is(err, boltstore.ErrInUse) {
		if client, ok := api.Dial(cfg.Data); ok { // a worker that started just now
			return client.Past(ctx)
		}
	}
	if err != nil {
		return fail(err)
	}
	closers := closers{store.Close}
	var streams *broker.Broker
	switch b := cfg.broker(); {
	case store.Copied():
		fmt.Fprintln(c.err, "this data directory is a copy and leaves its streams alone, so the journal is replayed")
	case b.URL != "":
		streams, err = dialBroker(ctx, cfg)
	default:
		b.Listen, b.Dir = "none", filepath.Join(cfg.Data, "jetstream")
		if _, statErr := os.Stat(b.Dir); statErr == nil {
			streams, err = broker.Open(ctx, b)
		}
	}
	if err != nil {
		return fail(errors.Join(err, closers.Close()))
	}
	seal, err := app.Seal(store)
	if err != nil {
		return fail(errors.Join(err, closers.Close()))
	}
	var head replay.Head
	var src replay.Source
	if streams == nil {
		head, src, err = replay.Open(ctx, store, nil, seal)
	} else {
		closers = append(closers, func() error { streams.Close(); return nil })
		head, src, err = replay.Open(ctx, store, streams.JetStream(), seal)
	}
	if err != nil {
		return fail(errors.Join(err, closers.Close()))
	}
	return head, src, closers, nil
}

// closers are closed last opened first.
type closers []func() error

func (c closers) Close() error {
	var errs []error
	for i := len(c) - 1; i >= 0; i-- {
		errs = append(errs, c[i]())
	}
	return errors.Join(errs...)
}
