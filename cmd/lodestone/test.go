package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lodestonehq/lodestone/internal/ruletest"
	"github.com/lodestonehq/lodestone/rules"
)

func (c *cli) testCmd() *cobra.Command {
	var o testOptions
	cmd := &cobra.Command{
		Use:   "test [DIR]",
		Short: "Run the tests written in rule files, on a virtual clock",
		Long: `Test runs what stands under tests in the rule files of a directory: it submits what they submit, lets
time pass and compares what came of it with what they expect. Nothing is stored or sent; a provider
accepts everything unless the test says what it answers. Without DIR it takes the directory that the
configuration names. Exit code 3 means that a test failed or that the rule files are faulty.

  tests:
    - name: a large company is invited
      submit: {form: pricing-guide, fields: {email: cto@bigco.example, company_size: 1500}}
      expect:
        band: hot
        touchpoints: [{step: invite, at: 10m, outcome: sent}]`,
		Example: "  lodestone test rules\n  lodestone test rules --run 'large company' --watch\n  lodestone test rules --junit report.xml",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			dir, opts, err := c.rulesDir(a)
			if err != nil {
				return err
			}
			if opts.Link == nil { // what a deployment lacks is for check to say
				opts.Link = exampleLink("https://forms.example.com")
			}
			if o.match, err = regexp.Compile(o.run); err != nil {
				return usagef("--run %q is not a regular expression: %w", o.run, err)
			}
			if o.watch {
				return c.watchTests(cmd.Context(), dir, opts, &o)
			}
			files, err := rules.ReadDir(dir)
			if err != nil {
				return err
			}
			return c.runTests(dir, files, opts, &o)
		},
	}
	cmd.Flags().StringVar(&o.run, "run", "", "only tests whose name matches this regular expression")
	cmd.Flags().BoolVar(&o.watch, "watch", false, "run again whenever a file changes, until interrupted")
	cmd.Flags().StringVar(&o.junit, "junit", "", "also write the results to this file as JUnit XML, for CI")
	return cmd
}

type testOptions struct {
	run, junit string
	watch      bool
	match      *regexp.Regexp
}

// testReport is what --json prints. The names of its fields are part of the contract.
type testReport struct {
	Passed int               `json:"passed"`
	Failed int               `json:"failed"`
	Tests  []ruletest.Result `json:"tests"`
	Faults rules.Faults      `json:"faults,omitempty"` // of rule files that could not be used; no test ran then
}

// runTests compiles the files, runs their tests and tells. The error is errFound when something is wrong.
func (c *cli) runTests(dir string, files []rules.File, opts rules.Options, o *testOptions) error {
	set, err := rules.Compile(files, opts)
	if err != nil {
		return c.refuse(dir, err, func(f rules.Faults) any { return testReport{Tests: []ruletest.Result{}, Faults: f} })
	}
	start := time.Now()
	report := testReport{Tests: []ruletest.Result{}}
	runner := ruletest.New(set, opts)
	for _, t := range set.Tests {
		if !o.match.MatchString(t.Name) {
			continue
		}
		r := runner.Run(t)
		r.File = placed(dir, rules.Faults{{File: r.File}})[0].File
		if r.OK {
			report.Passed++
		} else {
			report.Failed++
		}
		report.Tests = append(report.Tests, r)
	}
	if len(report.Tests) == 0 && len(set.Tests) > 0 {
		return usagef("none of the %s in %s has a name that matches %q", count(len(set.Tests), "test"), dir, o.run)
	}
	if o.junit != "" {
		if err := writeJUnit(o.junit, report.Tests, time.Since(start)); err != nil {
			return err
		}
	}
	if c.flags.json {
		err = c.printJSON(report)
	} else {
		c.tellTests(dir, &report)
	}
	if report.Failed > 0 {
		err = errors.Join(err, errFound)
	}
	return err
}

func writeJUnit(path string, results []ruletest.Result, took time.Duration) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("--junit: %w", err)
	}
	return errors.Join(ruletest.JUnit(f, results, took), f.Close())
}

func (c *cli) tellTests(dir string, report *testReport) {
	for _, r := range report.Tests {
		if r.OK {
			continue
		}
		fmt.Fprintf(c.out, "FAILED  %s:%d: %s\n", r.File, r.Line, r.Name)
		for line := range strings.Lines(r.Diff) {
			fmt.Fprint(c.out, "    "+line)
		}
		fmt.Fprintln(c.out)
	}
	switch {
	case len(report.Tests) == 0:
		fmt.Fprintf(c.out, "%s has no tests; write some under tests, as lodestone test --help shows\n", dir)
	case report.Failed == 0:
		fmt.Fprintf(c.out, "%s passed\n", count(report.Passed, "test"))
	default:
		fmt.Fprintf(c.out, "%d failed, %d passed\n", report.Failed, report.Passed)
	}
}

// watchEvery is how often --watch looks at the files. Looking works on every file system, and a rules
// directory is small.
const watchEvery = 300 * time.Millisecond

// watchTests runs the tests now and after each change, until ctx is done.
func (c *cli) watchTests(ctx context.Context, dir string, opts rules.Options, o *testOptions) error {
	var last []rules.File
	var said string
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for first := true; ; first = false {
		files, err := rules.ReadDir(dir)
		switch {
		case err != nil:
			if err.Error() != said { // an editor may be replacing the directory's files
				said = err.Error()
				fmt.Fprintln(c.err, "lodestone:", err)
			}
		case first || !reflect.DeepEqual(files, last):
			last, said = files, ""
			fmt.Fprintf(c.err, "%s: %s\n", time.Now().Format(time.TimeOnly), dir)
			if err := c.runTests(dir, files, opts, o); err != nil && !errors.Is(err, errFound) {
				fmt.Fprintln(c.err, "lodestone:", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
