package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lodestonehq/lodestone/internal/access"
	"github.com/lodestonehq/lodestone/internal/api"
	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/internal/doctor"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
)

func (c *cli) doctorCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what is wrong, and say what to do about it",
		Long: `Doctor looks at the configuration, the rule files, the data directory (permissions, room on the disk), who can reach the worker over the network and with what right,
the store (pages, indexes, each lead's history, the counts, whether it is a copy) and the streams against
what was applied of them. It changes nothing, and works with a running worker as well as without. Each
finding comes with its remedy; exit code 3 means that there are some.`,
		Example: "  lodestone doctor\n  lodestone doctor --json | jq '.findings[].remedy'\n  lodestone doctor dump journal --limit 20",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := c.examine(cmd.Context())
			if c.flags.json {
				if r.Findings == nil {
					r.Findings = []doctor.Finding{}
				}
				if err := c.printJSON(r); err != nil {
					return err
				}
			} else {
				for _, x := range r.Checks {
					mark := "ok    "
					if !x.OK {
						mark = "FOUND "
					}
					fmt.Fprintf(c.out, "%s%-14s%s\n", mark, x.Check, x.Detail)
				}
				for _, f := range r.Findings {
					fmt.Fprintf(c.out, "\n%s: %s\n  what to do: %s\n", f.Check, f.Message, f.Remedy)
				}
			}
			if len(r.Findings) > 0 {
				return errFound
			}
			return nil
		},
	}
	cmd.AddCommand(c.dumpCmd())
	return cmd
}

// web is how the worker is reached over the network.
func (s settings) web() doctor.Web {
	w := doctor.Web{
		Listen: s.HTTP.Listen, PublicURL: s.HTTP.PublicURL, TLS: s.HTTP.TLSCert != "", Cert: s.HTTP.TLSCert, Key: s.HTTP.TLSKey, Proxies: s.HTTP.TrustedProxies, AcceptPlain: s.HTTP.AcceptPlain,
		NATSListen: s.NATS.Listen, NATSPassword: s.NATS.Credentials != "", Secrets: map[string]string{},
	}
	if s.NATS.URL != "" {
		w.NATSListen = "none"
	}
	for key, path := range map[string]string{
		"http.tls.key": s.HTTP.TLSKey, "http.form_secrets": s.HTTP.FormSecrets,
		"nats.credentials": s.NATS.Credentials, "nats.system_credentials": s.NATS.SystemCredentials,
	} {
		if path != "" {
			w.Secrets[key] = path
		}
	}
	for _, c := range s.Connectors {
		for name, secret := range c.Secrets {
			if path := secret.File(); path != "" {
				w.Secrets["connectors."+c.Name+"."+name] = path
			}
		}
	}
	return w
}

// examine makes every check that can be made.
func (c *cli) examine(ctx context.Context) (r doctor.Report) {
	cfg, err := c.load()
	if err != nil {
		r.Find("configuration", "mend it where it says; `lodestone schema` helps an editor to", "%v", err)
		r.Done("configuration", "it cannot be used, and so nothing else was looked at")
		return r
	}
	if set, err := rules.Load(cfg.Rules, cfg.rulesOptions()); err != nil {
		r.Find("rules", "lodestone check "+cfg.Rules+"; when the worker has its rule files elsewhere, name that directory with --rules", "%s", strings.SplitN(err.Error(), "\n", 2)[0])
	} else {
		var used []string
		for _, s := range set.Sequences {
			for _, step := range s.Steps {
				used = append(used, step.Connector)
			}
		}
		if _, err := cfg.accounts(used, nil, slog.New(slog.DiscardHandler)); err != nil {
			r.Find("configuration", "add what is missing to the configuration or to the environment", "%v", err)
		}
	}
	where := cfg.File
	if where == "" {
		where = "defaults and environment"
	}
	r.Done("configuration", "%s", where)
	r.Done("rules", "%s", cfg.Rules)
	r.Directory(cfg.Data)
	r.Access(cfg.web(), access.OpenBook(cfg.Data), time.Now())
	if client, ok := api.Dial(cfg.Data); ok {
		ofWorker, err := client.Doctor(ctx)
		if err != nil {
			r.Find("worker", "look at the worker's log", "the worker answers, but not the doctor: %v", err)
		}
		r.Done("worker", "runs, and was asked")
		r.Add(ofWorker)
		return r
	}
	r.Done("worker", "does not run")
	if _, err := os.Stat(filepath.Join(cfg.Data, boltstore.FileName)); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			r.Done("store", "there is none yet")
			return r
		}
		r.OpenFailed(err)
		return r
	}
	store, err := boltstore.Open(cfg.Data, boltstore.Options{})
	if err != nil {
		r.OpenFailed(err)
		return r
	}
	defer store.Close()
	r.Store(ctx, store)
	if store.Copied() {
		return r // its streams are not its own yet
	}
	opts := cfg.broker()
	opts.Dir = filepath.Join(cfg.Data, "jetstream")
	if opts.URL == "" {
		opts.Listen = "none" // nobody else is let in
		if _, err := os.Stat(opts.Dir); err != nil {
			r.Done("streams", "there are none yet")
			return r
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	b, err := broker.Open(ctx, opts)
	if err != nil {
		r.Find("streams", "see that the NATS server runs and can be reached, or that no other process has the directory open", "%v", err)
		r.Done("streams", "cannot be looked at")
		return r
	}
	defer b.Close()
	r.Streams(ctx, store, b)
	return r
}

func (c *cli) dumpCmd() *cobra.Command {
	var limit int
	var after string
	names := strings.Join(boltstore.DumpNames(), ", ")
	cmd := &cobra.Command{
		Use:     "dump PART",
		Short:   "Show the records of a part of the store, readable",
		Long:    "Dump shows what the store holds as it stands there, one JSON object a line. The parts are " + names + ". It holds personal data.",
		Example: "  lodestone doctor dump journal --limit 20\n  lodestone doctor dump leads --after ada@example.com",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			got, err := conn.Dump(cmd.Context(), a[0], after, limit)
			if err != nil {
				var p *api.Problem
				if errors.As(err, &p) && p.Status == 400 {
					return usageError{err}
				}
				return err
			}
			enc := json.NewEncoder(c.out)
			enc.SetEscapeHTML(false)
			for _, rec := range got.Records {
				if err := enc.Encode(rec); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 100, "how many records")
	cmd.Flags().StringVar(&after, "after", "", "begin after the record with this key")
	return cmd
}
