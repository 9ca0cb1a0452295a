package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/lodestonehq/lodestone/internal/app"
	"github.com/lodestonehq/lodestone/internal/profile"
)

func (c *cli) runCmd() *cobra.Command {
	var acceptStream bool
	var profiles string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "The worker: take submissions in, send what is due",
		Long: `Run works until SIGTERM or SIGINT. It then stops taking submissions in, lets calls in flight end
(each at most its timeout) and exits with 0; a second signal ends it at once. What is not done stays in
the data directory and goes on at the next start.`,
		Example: "  lodestone run\n  lodestone run --data /var/lib/lodestone --rules /etc/lodestone/rules",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := c.load()
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			profile.KeepRoom()
			if profiles != "" {
				at, stop, err := profile.Serve(profiles)
				if err != nil {
					return usagef("--pprof: %v", err)
				}
				defer func() { _ = stop() }() // nobody's work is lost with it
				fmt.Fprintf(c.err, "profiles at http://%s/debug/pprof/\n", at)
			}
			tracer, stopTracing, err := app.Tracing(ctx)
			if err != nil {
				return err
			}
			defer func() {
				last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
				defer cancel()
				_ = stopTracing(last) // spans that nobody takes are no reason to fail
			}()
			c.tracer = tracer
			opts, err := cfg.worker(c)
			if err != nil {
				return err
			}
			opts.AcceptStream = acceptStream
			w, err := app.Open(ctx, opts)
			if err != nil {
				if ctx.Err() != nil {
					return nil // told to stop while it started; nothing had begun
				}
				return err
			}
			at := []any{"data", opts.Data}
			if b := w.Broker(); b != nil && b.URL() != "" {
				at = append(at, "nats", b.URL())
			}
			if w.Web() != "" {
				at = append(at, "http", w.WebURL())
			}
			if book := w.Rulebook(); book != nil {
				at = append(at, "rules", book.Current().Version)
			}
			opts.Log.Info("lodestone runs", at...)
			if err := w.Run(ctx); err != nil {
				return err
			}
			opts.Log.Info("lodestone stopped")
			return nil
		},
	}
	cmd.Flags().BoolVar(&acceptStream, "accept-stream", false, "take a stream that is not the one applied so far from its beginning")
	cmd.Flags().StringVar(&profiles, "pprof", "", "serve profiles of the process for go tool pprof at this address of this machine, as 127.0.0.1:6060")
	return cmd
}
