package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors/sandbox"
)

func (c *cli) sandboxCmd() *cobra.Command {
	var listen, duplicates string
	var unsubscribed []string
	cmd := &cobra.Command{
		Use:   "sandbox",
		Short: "A stand-in for the providers, to try rules against; shows what it receives",
		Long: `Sandbox answers like ReferralRock, 23blocks, SaaSquatch and Referral Factory, over HTTP, and sends nothing
to anybody. Point a connector at its place, /referralrock, /23blocks, /saasquatch or /referralfactory:

  LODESTONE_CONNECTORS_REFERRALROCK_BASE_URL=http://127.0.0.1:9090/referralrock
  LODESTONE_CONNECTORS_REFERRALROCK_PUBLIC_KEY=any LODESTONE_CONNECTORS_REFERRALROCK_PRIVATE_KEY=any

Each request is printed as it comes. It can be made to fail, while it runs:

  curl -H 'Content-Type: application/json' -d '{"kind":"503","operation":"invite","times":3}' http://127.0.0.1:9090/_sandbox/faults
  curl -X DELETE http://127.0.0.1:9090/_sandbox/faults

and asked what it did: /_sandbox/received, /_sandbox/effects, /_sandbox/violations. A page at /_sandbox/ shows
what it holds.`,
		Example: "  lodestone sandbox\n  lodestone sandbox --listen 127.0.0.1:9191 --unsubscribed ada@example.com --json",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts := sandbox.Options{OnRequest: c.received()}
			switch d := sandbox.Duplicates(duplicates); d {
			case sandbox.DuplicatesPass, sandbox.DuplicatesBlock, sandbox.DuplicatesRefuse:
				opts.Settings.Duplicates = d
			default:
				return usagef("--duplicates is %q; give pass, block or refuse", duplicates)
			}
			for _, u := range unsubscribed {
				e, err := lodestone.ParseEmail(u)
				if err != nil {
					return usagef("--unsubscribed %q: %w", u, err)
				}
				opts.Unsubscribed = append(opts.Unsubscribed, e)
			}
			l, err := net.Listen("tcp", listen)
			if err != nil {
				return fmt.Errorf("--listen: %w; choose another address", err)
			}
			fmt.Fprintf(c.err, "sandbox at http://%s/referralrock, /23blocks, /saasquatch and /referralfactory, any keys; what it did at http://%s/_sandbox/\n", l.Addr(), l.Addr())
			box := sandbox.New(opts)
			defer box.Close()
			return serveUntil(cmd.Context(), l, box.Handler())
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:9090", "where to answer")
	cmd.Flags().StringVar(&duplicates, "duplicates", string(sandbox.DuplicatesPass), "what a second referral of one person gets: pass, block or refuse")
	cmd.Flags().StringSliceVar(&unsubscribed, "unsubscribed", nil, "addresses that opted out at the provider (default unsubscribed@example.com)")
	return cmd
}

// received prints each request of the sandbox on a line, as JSON with --json.
func (c *cli) received() func(sandbox.Received) {
	var mu sync.Mutex
	enc := json.NewEncoder(c.out)
	return func(r sandbox.Received) {
		mu.Lock()
		defer mu.Unlock()
		if c.flags.json {
			_ = enc.Encode(r)
			return
		}
		what := r.Operation
		if what == "" {
			what = r.Method + " " + r.Path
		}
		fmt.Fprintf(c.out, "%s  %-24s %3d  %s", r.At.UTC().Format("15:04:05.000"), what, r.Status, r.Email)
		if r.ExternalID != "" {
			fmt.Fprintf(c.out, "  %s", r.ExternalID)
		}
		if r.Effect {
			fmt.Fprint(c.out, "  done")
		}
		if r.Fault != "" {
			fmt.Fprintf(c.out, "  fault: %s", r.Fault)
		}
		if r.Violation != "" {
			fmt.Fprintf(c.out, "  against the specification: %s", r.Violation)
		}
		fmt.Fprintln(c.out)
	}
}

// serveUntil answers requests until ctx is done. Requests that hang on purpose do not keep it.
func serveUntil(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
