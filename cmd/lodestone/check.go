package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/lodestonehq/lodestone/rules"
)

func (c *cli) checkCmd() *cobra.Command {
	var strict bool
	cmd := &cobra.Command{
		Use:   "check [DIR]",
		Short: "Check rule files; every fault at once, where it stands",
		Long: `Check reads every rule file of a directory and prints all faults as file:line:column: message.
Without DIR it checks the directory that the configuration names. Exit code 3 means faults.

Warnings are about what can run and is probably not meant: a condition that can never be true, a
sequence that nobody enters, a value that can be missing. With --strict they count like faults.`,
		Example: "  lodestone check rules\n  lodestone check --strict rules\n  lodestone check --json rules | jq '.[].message'",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			dir, ops, err := c.rulesDir(a)
			if err != nil {
				return err
			}
			ops.Configured = c.configured()
			set, err := rules.Load(dir, ops)
			var faults rules.Faults
			if err != nil && !errors.As(err, &faults) {
				return err
			}
			if set != nil {
				faults = append(faults, set.Warnings...)
			}
			faults = placed(dir, faults)
			if c.flags.json {
				if faults == nil {
					faults = rules.Faults{}
				}
				if err := c.printJSON(faults); err != nil {
					return err
				}
			} else {
				for _, f := range faults {
					fmt.Fprintln(c.err, f)
				}
			}
			if step := linked(set); step != "" && !ops.NoLinks && (c.cfg == nil || c.cfg.HTTP.PublicURL == "") {
				fmt.Fprintf(c.err, "note: %s sends a link, and no configuration is here that says where links lead to: without http.public_url in the worker's configuration there are none\n", step)
			}
			if set == nil || strict && len(faults) > 0 {
				return errFound
			}
			if !c.flags.json {
				warned := ""
				if len(faults) > 0 {
					warned = " (" + count(len(faults), "warning") + ")"
				}
				fmt.Fprintf(c.out, "%s is good%s: %s, %s, %s, %s; version %s\n", dir, warned, count(len(set.Forms), "form"),
					count(len(set.Rules), "scoring rule"), count(len(set.Bands), "band"), count(len(set.Sequences), "sequence"), set.Version)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&strict, "strict", false, "warnings count like faults: exit code 3")
	return cmd
}

// linked names the first step of a set that sends a link or waits for one to be followed, "" where none does.
func linked(set *rules.Set) string {
	if set == nil {
		return ""
	}
	for _, q := range set.Sequences {
		for s := range q.All() {
			if s.Confirm > 0 || s.Uses("links.confirm") || s.Uses("links.unsubscribe") {
				return "the step " + q.Name + "." + s.Name
			}
		}
	}
	return ""
}

// refuse tells of the faults in rule files as `check` does, and ends with errFound; asJSON is what --json
// prints of them. Another error is returned as it is.
func (c *cli) refuse(dir string, err error, asJSON func(rules.Faults) any) error {
	var faults rules.Faults
	if !errors.As(err, &faults) {
		return err
	}
	faults = placed(dir, faults)
	if c.flags.json {
		return errors.Join(c.printJSON(asJSON(faults)), errFound)
	}
	for _, f := range faults {
		fmt.Fprintln(c.err, f)
	}
	return errFound
}

// placed names the files of faults as seen from the working directory, where an editor or a terminal
// finds them.
func placed(dir string, faults rules.Faults) rules.Faults {
	if wd, err := os.Getwd(); err == nil && filepath.IsAbs(dir) {
		if rel, err := filepath.Rel(wd, dir); err == nil && filepath.IsLocal(rel) {
			dir = rel
		}
	}
	out := slices.Clone(faults)
	for i := range out {
		out[i].File = filepath.Join(dir, filepath.FromSlash(out[i].File))
	}
	return out
}

// count writes a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
