package main

import (
	"errors"
	"fmt"
	"os"
	"runtime/pprof"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lodestonehq/lodestone/internal/bench"
)

func (c *cli) benchCmd() *cobra.Command {
	o := bench.Options{Leads: -1}
	var names []string
	var profile string
	long := "Bench measures this program on this machine beside a raw ceiling for the same work, in turns within one run.\n" +
		"The ratio is what to read: figures of two runs on a shared disk do not compare. Files are put into a folder\n" +
		"of their own under --dir and removed again; nothing of the data directory is touched.\n"
	for _, b := range bench.All {
		names = append(names, b.Name)
		long += fmt.Sprintf("\n  %-10s%s", b.Name, b.About)
	}
	cmd := &cobra.Command{
		Use:   "bench " + strings.Join(append(slices.Clone(names), "all"), "|"),
		Short: "Measure this machine: the product's own code beside a raw ceiling",
		Long:  long,
		Example: `  lodestone bench intake
  lodestone bench intake --leads 1000000 --rounds 7
  lodestone bench all --json > figures.json`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			o.Log = c.err
			stop, err := profileTo(profile)
			if err != nil {
				return err
			}
			headed := c.flags.json
			err = bench.Run(cmd.Context(), a[0], o, func(r bench.Result) error {
				if c.flags.json {
					return c.printJSON(r)
				}
				if !headed {
					headed = true
					fmt.Fprintf(c.out, "%-36s %26s %26s %7s %9s %8s %8s\n", "", "median (low to high)", "ceiling", "ratio", "CPU/1000", "MB", "B/item")
				}
				fmt.Fprintln(c.out, benchLine(r))
				return nil
			})
			err = errors.Join(err, stop())
			if errors.Is(err, bench.ErrUnknown) {
				return usagef("there is no bench %q%s", a[0], instead(a[0], append(names, "all"), "the benches are "+strings.Join(append(names, "all"), ", ")))
			}
			return err
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Rounds, "rounds", 5, "how often each side is measured")
	f.IntVar(&o.Items, "items", 0, "of each round (default: each bench's own number)")
	f.IntVar(&o.Leads, "leads", -1, "leads that are in the store already (default: each bench's own numbers)")
	f.StringVar(&o.Dir, "dir", "", "where to put files; choose the disk that the data directory will be on (default: the temporary directory)")
	f.StringVar(&profile, "profile", "", "write a processor profile of the run to this file, for go tool pprof")
	return cmd
}

// profileTo writes a processor profile to a file until stop is called; an empty path is none.
func profileTo(path string) (stop func() error, err error) {
	if path == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error { pprof.StopCPUProfile(); return f.Close() }, nil
}

// benchLine is one result as a row of the table.
func benchLine(r bench.Result) string {
	of := func(f bench.Figure, unit string) string {
		if f == (bench.Figure{}) {
			return ""
		}
		return fmt.Sprintf("%s (%s to %s) %s", figureText(f.Median), figureText(f.Low), figureText(f.High), unit)
	}
	ceiling := of(r.Ceiling, "")
	if r.P99 != (bench.Figure{}) && ceiling == "" {
		ceiling = "p99 " + of(r.P99, "")
	}
	optional := func(v float64, format string) string {
		if v == 0 {
			return ""
		}
		return fmt.Sprintf(format, v)
	}
	return strings.TrimRight(fmt.Sprintf("%-36s %26s %26s %7s %9s %8s %8s", r.Name, of(r.Ours, r.Unit), ceiling,
		optional(r.Ratio, "%.2f"), optional(r.CPU, "%.3f s"), optional(r.Memory, "%.0f"), optional(r.Disk, "%.0f")), " ")
}

func figureText(v float64) string {
	if v >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
