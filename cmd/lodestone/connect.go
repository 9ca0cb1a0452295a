package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/term"

	"github.com/lodestonehq/lodestone/internal/api"
	"github.com/lodestonehq/lodestone/internal/app"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
	"github.com/lodestonehq/lodestone/sequencer"
)

// connection is the API, wherever it is answered: by the running worker over its socket, or by this
// process from the store file.
type connection struct {
	*api.Client
	set   *rules.Set       // the rules that name the bands; nil when there are none
	store *boltstore.Store // nil when a worker answers
	close func() error
}

// Close lets go of the store file, when this process had it.
func (c *connection) Close() error { return c.close() }

// connect finds the worker of the data directory, and opens the store file itself when none runs.
func (c *cli) connect(ctx context.Context) (*connection, error) {
	cfg, err := c.load()
	if err != nil {
		return nil, err
	}
	set, _ := rules.Load(cfg.Rules, cfg.rulesOptions()) // only for naming the bands' limits; `check` tells of faults
	if client, ok := api.Dial(cfg.Data); ok {
		return &connection{client, set, nil, func() error { return nil }}, nil
	}
	if _, err := os.Stat(filepath.Join(cfg.Data, boltstore.FileName)); err != nil {
		return nil, fmt.Errorf("there is no data in %s: no worker ran there yet. Start one with `lodestone run`, or name its directory with --data", cfg.Data)
	}
	store, err := boltstore.Open(cfg.Data, boltstore.Options{})
	if errors.Is(err, boltstore.ErrInUse) {
		if client, ok := api.Dial(cfg.Data); ok { // a worker that started just now
			return &connection{client, set, nil, func() error { return nil }}, nil
		}
		return nil, fmt.Errorf("%w, and it does not answer on its socket; if it is starting or stopping, try again in a moment", err)
	}
	if err != nil {
		return nil, err
	}
	opts := cfg.rulesOptions()
	if opts.Link, err = app.Links(store, cfg.HTTP.PublicURL); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	if set != nil {
		set, _ = rules.Compile(set.Files, opts)
	}
	book, err := app.Rulebook(ctx, store, set, opts)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	server := &api.Server{Store: store, Rulebook: func() *sequencer.Rulebook { return book }, Operations: cfg.rulesOptions().Operations}
	for _, a := range cfg.Connectors {
		server.Connectors = append(server.Connectors, a.Name)
	}
	if set == nil && book != nil {
		set = book.Current()
	}
	return &connection{api.Direct(server.Handler()), set, store, store.Close}, nil
}

// terminal reports whether somebody can be asked.
func (c *cli) terminal() bool {
	f, ok := c.in.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// confirm asks on a terminal and needs --yes elsewhere.
func (c *cli) confirm(yes bool, question string) error {
	if yes {
		return nil
	}
	if !c.terminal() {
		return usagef("this needs --yes where nobody can be asked: %s", question)
	}
	fmt.Fprintf(c.err, "%s [y/N] ", question)
	line, err := bufio.NewReader(c.in).ReadString('\n')
	if err != nil {
		return err
	}
	if a := strings.ToLower(strings.TrimSpace(line)); a != "y" && a != "yes" {
		return errors.New("nothing was done")
	}
	return nil
}
