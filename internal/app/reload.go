package app

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/sequencer"
	"github.com/lodestonehq/lodestone/sequencer/failpoint"
)

// watchRules keeps the rule files under watch until ctx is done. A good change is in force for the next
// decision; a bad one changes nothing and is told.
func (w *Worker) watchRules(ctx context.Context) error {
	if w.opts.WatchRules == "" {
		<-ctx.Done()
		return nil
	}
	rules.Watcher{Dir: w.opts.WatchRules, Read: w.opts.Rules, Log: w.log}.Run(ctx, w.loaded, func(files []rules.File, err error) {
		w.reload(ctx, files, err)
	})
	return nil
}

// reload takes the rule files as they stand.
func (w *Worker) reload(ctx context.Context, files []rules.File, err error) {
	var set *rules.Set
	if err == nil {
		set, err = w.compile(files)
	}
	var faults rules.Faults
	if err != nil && !errors.As(err, &faults) {
		faults = rules.Faults{{File: ".", Line: 1, Column: 1, Severity: rules.SeverityError, Message: err.Error()}}
	}
	w.faulty(ctx, faults)
	if set == nil {
		if w.book.Load() != nil {
			w.log.WarnContext(ctx, "the rule files changed and are faulty: what was in force goes on", "version", w.book.Load().Current().Version)
		}
		return
	}
	was := w.book.Load()
	if was != nil && was.Current().Version == set.Version {
		w.log.InfoContext(ctx, "the rule files changed, and mean what they meant", "version", set.Version)
		return
	}
	if err := w.inForce(ctx, set); err != nil {
		w.log.ErrorContext(ctx, "cannot store the changed rule files: what was in force goes on", "error", err)
		return
	}
	w.log.InfoContext(ctx, "the rule files changed: new decisions are made with them; enrollments go on with the version they began with", "version", set.Version)
}

// errNoRules is the fault of a directory that held rule files before and holds none now.
var errNoRules error = rules.Faults{{File: ".", Line: 1, Column: 1, Severity: rules.SeverityError,
	Message: "there are no rule files (*.yaml) in the directory any more; to send nothing, `lodestone pause all`"}}

// compile turns files into a set that this worker can work with.
func (w *Worker) compile(files []rules.File) (*rules.Set, error) {
	if !slices.ContainsFunc(files, func(f rules.File) bool { return path.Ext(f.Name) == ".yaml" }) {
		if last, err := w.store.CurrentRules(context.Background()); err != nil || last != "" {
			if err == nil {
				err = errNoRules
			}
			return nil, err
		}
	}
	set, err := rules.Compile(files, w.opts.RulesOptions)
	if err != nil || w.accounts == nil {
		return set, err
	}
	var faults rules.Faults
	for _, q := range set.Sequences {
		for step := range q.All() {
			if w.accounts[step.Connector] == nil {
				faults = append(faults, rules.Fault{File: step.File, Line: step.Line, Column: step.Column, Severity: rules.SeverityError, Message: fmt.Sprintf(
					"step %s sends through %s, which was not opened when the worker started; complete its settings under connectors.%s and restart the worker", step.Name, step.Connector, step.Connector)})
			}
		}
	}
	if faults != nil {
		return nil, faults
	}
	return set, nil
}

// faulty tells of the faults in the rule files as they stand; none takes back what was told before.
func (w *Worker) faulty(ctx context.Context, faults rules.Faults) {
	errs := slices.DeleteFunc(slices.Clone(faults), func(f rules.Fault) bool { return f.Severity != rules.SeverityError })
	w.faults.Store(&errs)
	w.metrics.rules.Set(float64(len(errs)))
	for _, f := range faults {
		w.log.ErrorContext(ctx, "rule files: "+f.String())
	}
}

// inForce makes a set what new decisions use, and keeps it in the store for the enrollments that begin with it.
func (w *Worker) inForce(ctx context.Context, set *rules.Set) error {
	failpoint.Hit(failpoint.RulesCompiled)
	if err := w.store.PutRules(ctx, set.Version, stored(set.Files)); err != nil {
		return err
	}
	failpoint.Hit(failpoint.RulesKept)
	for _, f := range set.Warnings {
		w.log.WarnContext(ctx, "rule files: "+f.String())
	}
	book, err := w.versions.rulebook(ctx, set)
	if err == nil {
		w.use(book)
		failpoint.Hit(failpoint.RulesInForce)
	}
	return err
}

// use decides with a rulebook from now on.
func (w *Worker) use(book *sequencer.Rulebook) {
	w.book.Store(book)
	w.metrics.version.Reset()
	w.metrics.version.WithLabelValues(book.Current().Version).Set(1)
}
