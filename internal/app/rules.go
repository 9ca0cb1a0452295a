package app

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
	"github.com/lodestonehq/lodestone/sequencer"
)

// loadRules reads the rule files and keeps them in the store. Faulty ones do not stop the start: the
// last good version in the store goes on, and with none submissions wait in the stream.
func (w *Worker) loadRules(ctx context.Context) error {
	w.versions = newVersions(w.store, w.opts.RulesOptions, w.opts.TimeScale)
	files, err := w.opts.Rules()
	if err != nil {
		return fmt.Errorf("rule files: %w", err)
	}
	w.loaded = files
	set, err := w.compile(files)
	var faults rules.Faults
	if err != nil && !errors.As(err, &faults) {
		return fmt.Errorf("rule files: %w", err)
	}
	w.faulty(ctx, faults)
	if set != nil {
		return w.inForce(ctx, set)
	}
	book, err := w.versions.rulebook(ctx, nil)
	switch {
	case err != nil:
		return err
	case book == nil:
		w.log.ErrorContext(ctx, "there are no usable rule files and no earlier version: submissions wait in the stream")
	default:
		w.log.WarnContext(ctx, "the last good version of the rule files goes on", "version", book.Current().Version)
		w.use(book)
	}
	return nil
}

// Store is what [Rulebook] reads.
type Store interface {
	CurrentRules(context.Context) (version string, err error)
	Rules(ctx context.Context, version string) ([]boltstore.RuleFile, error)
}

// Rulebook puts together what decisions may need: current, or without it the last good version in the store,
// and the earlier ones that the store keeps, each compiled when an enrollment asks for it. It is nil when there
// is no usable version.
func Rulebook(ctx context.Context, store Store, current *rules.Set, opts rules.Options) (*sequencer.Rulebook, error) {
	return newVersions(store, opts, 0).rulebook(ctx, current)
}

// versions compiles stored versions of the rule files when they are asked for, and keeps some of those asked for.
// It is safe for concurrent use.
type versions struct {
	store Store
	opts  rules.Options
	scale float64

	mu    sync.Mutex // guards known
	known map[string]version
}

type version struct {
	set *rules.Set
	err error
}

// maxVersions bounds how many compiled versions are kept; beyond it one makes room for the next.
const maxVersions = 64

func newVersions(store Store, opts rules.Options, scale float64) *versions {
	opts.Kept = true
	return &versions{store: store, opts: opts, scale: scale, known: map[string]version{}}
}

// get returns a version. The error says why it cannot be used; one of the store is asked again next time.
func (v *versions) get(name string) (*rules.Set, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if known, ok := v.known[name]; ok {
		return known.set, known.err
	}
	files, err := v.store.Rules(context.Background(), name)
	if err != nil {
		return nil, err
	}
	var got version
	switch {
	case files == nil:
		got.err = fmt.Errorf("version %s of the rule files is not in the store any more", name)
	default:
		if got.set, err = rules.Compile(restored(files), v.opts); err != nil {
			var faults rules.Faults
			if errors.As(err, &faults) && len(faults) > 0 {
				err = errors.New(faults[0].String())
			}
			got.err = fmt.Errorf("version %s of the rule files can not be used any more: %w", name, err)
		} else {
			got.set = v.scaled(got.set)
		}
	}
	if len(v.known) >= maxVersions {
		for any := range v.known { // one, not all: where a few more are in use, most are still found
			delete(v.known, any)
			break
		}
	}
	v.known[name] = got
	return got.set, got.err
}

func (v *versions) scaled(set *rules.Set) *rules.Set {
	if v.scale > 1 {
		return set.ScaleTime(v.scale)
	}
	return set
}

// rulebook makes a rulebook of current, or without it of the last good version; nil when there is none.
func (v *versions) rulebook(ctx context.Context, current *rules.Set) (*sequencer.Rulebook, error) {
	if current != nil {
		return sequencer.NewRulebook(v.scaled(current)).WithOlder(v.get), nil
	}
	last, err := v.store.CurrentRules(ctx)
	if err != nil || last == "" {
		return nil, err
	}
	set, err := v.get(last)
	if err != nil {
		return nil, nil
	}
	return sequencer.NewRulebook(set).WithOlder(v.get), nil
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
