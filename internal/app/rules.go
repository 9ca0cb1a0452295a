package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
	"github.com/lodestonehq/lodestone/sequencer"
)

// loadRules reads the rule files and keeps them in the store. Faulty ones do not stop the start: the
// last good version in the store goes on, and with none submissions wait in the stream.
func (w *Worker) loadRules(ctx context.Context) error {
	files, err := w.opts.Rules()
	var set *rules.Set
	if err == nil {
		set, err = rules.Compile(files, w.opts.RulesOptions)
	}
	var faults rules.Faults
	switch {
	case err == nil:
		if err := w.store.PutRules(ctx, set.Version, stored(set.Files)); err != nil {
			return err
		}
		for _, f := range set.Warnings {
			w.log.WarnContext(ctx, "rule files: "+f.String())
		}
	case errors.As(err, &faults):
		w.faults.Store(&faults)
		w.metrics.rules.Set(float64(len(faults)))
		for _, f := range faults {
			w.log.ErrorContext(ctx, "rule files: "+f.String())
		}
	default:
		return fmt.Errorf("rule files: %w", err)
	}
	book, err := Rulebook(ctx, w.store, set, w.opts.RulesOptions, w.log)
	if err != nil {
		return err
	}
	if book == nil {
		w.log.ErrorContext(ctx, "there are no usable rule files and no earlier version: submissions wait in the stream")
		return nil
	}
	if faults != nil {
		w.log.WarnContext(ctx, "the last good version of the rule files goes on", "version", book.Current().Version)
	}
	if w.opts.TimeScale > 1 {
		book = sequencer.NewRulebook(book.Current().ScaleTime(w.opts.TimeScale))
	}
	w.book.Store(book)
	return nil
}

// Store is what [Rulebook] reads.
type Store interface {
	Rules(context.Context) (current string, versions map[string][]boltstore.RuleFile, err error)
}

// Rulebook puts together the versions of the rule files that decisions may need: current, or without
// it the last good one in the store, and every earlier one that the store keeps. It is nil when there
// is no usable version. An earlier one that no longer compiles is left out and said.
func Rulebook(ctx context.Context, store Store, current *rules.Set, opts rules.Options, log *slog.Logger) (*sequencer.Rulebook, error) {
	last, versions, err := store.Rules(ctx)
	if err != nil {
		return nil, err
	}
	var older []*rules.Set
	for version, files := range versions {
		if current != nil && version == current.Version {
			continue
		}
		set, err := rules.Compile(restored(files), opts)
		if err != nil {
			log.WarnContext(ctx, "an earlier version of the rule files cannot be used any more", "version", version, "error", err)
			continue
		}
		if current == nil && version == last {
			current = set
			continue
		}
		older = append(older, set)
	}
	if current == nil {
		return nil, nil
	}
	return sequencer.NewRulebook(current, older...), nil
}

func stored(files []rules.File) []boltstore.RuleFile {
	list := make([]boltstore.RuleFile, 0, len(files))
	for _, f := range files {
		list = append(list, boltstore.RuleFile{Name: f.Name, Data: f.Data})
	}
	return list
}

func restored(files []boltstore.RuleFile) []rules.File {
	list := make([]rules.File, 0, len(files))
	for _, f := range files {
		list = append(list, rules.File{Name: f.Name, Data: f.Data})
	}
	return list
}
