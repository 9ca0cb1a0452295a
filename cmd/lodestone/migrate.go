package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lodestonehq/lodestone/internal/api"
)

func (c *cli) migrateEnrollmentsCmd() *cobra.Command {
	var sequence string
	var steps []string
	var dryRun, yes bool
	cmd := &cobra.Command{
		Use:   "migrate-enrollments",
		Short: "Move leads that are in a sequence to the version that the rule files have today",
		Long: `A lead goes through a sequence in the version that it began with, whatever the rule files say since.
Migrate-enrollments moves those leads to today's version. It first names what is different and where each
lead would stand: at the step of the same name. A lead whose step does not exist any more is left where it
is, unless --map OLD=NEW says which step takes its place. What waits keeps its time; what comes after it
follows today's version. A step that a lead had is not taken again. Given again it goes on where it was
cut short.`,
		Example: "  lodestone migrate-enrollments --sequence hot-invite --dry-run\n  lodestone migrate-enrollments --sequence hot-invite --map nudge=reminder --yes",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			q := api.Migrate{Sequence: sequence, Steps: map[string]string{}, By: by(), DryRun: true}
			for _, s := range steps {
				older, newer, ok := strings.Cut(s, "=")
				if !ok || older == "" || newer == "" {
					return usagef("--map is %q; give OLD=NEW, two names of steps", s)
				}
				q.Steps[older] = newer
			}
			if len(steps) > 0 && sequence == "" {
				return usagef("--map needs --sequence, because step names belong to one")
			}
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			would, err := c.migrate(cmd.Context(), conn, q)
			if err != nil {
				return err
			}
			would.DryRun = dryRun
			if dryRun || would.Moved == 0 {
				if c.flags.json {
					return c.printJSON(would)
				}
				c.writeMigration(would)
				return nil
			}
			if c.terminal() && !yes {
				c.writeMigration(would)
			}
			if err := c.confirm(yes, fmt.Sprintf("Move %s to today's version? They can not be moved back.", count(would.Moved, "lead"))); err != nil {
				return err
			}
			q.DryRun = false
			done, err := c.migrate(cmd.Context(), conn, q)
			if err != nil {
				return err
			}
			if c.flags.json {
				return c.printJSON(done)
			}
			c.writeMigration(done)
			return nil
		},
	}
	cmd.Flags().StringVar(&sequence, "sequence", "", "only this sequence")
	cmd.Flags().StringArrayVar(&steps, "map", nil, "OLD=NEW: leads at step OLD go on at step NEW; may be given more than once")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only show what would be")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// migration sums up what was moved or would be.
type migration struct {
	DryRun   bool               `json:"dry_run"`
	Moved    int                `json:"moved"`
	Left     int                `json:"left"`
	Versions []migrationVersion `json:"versions"`
}

// migrationVersion is what came of the enrollments on one version.
type migrationVersion struct {
	api.MigratedVersion
	Stands map[string]int `json:"stands"` // moved enrollments by the step they go on with
	Left   map[string]int `json:"left"`   // others, by why they are left as they are
}

// migrate goes through all leads, a part at a time.
func (c *cli) migrate(ctx context.Context, conn *connection, q api.Migrate) (*migration, error) {
	m := &migration{DryRun: q.DryRun, Versions: []migrationVersion{}}
	at := map[string]int{}
	version := func(sequence, from, to string) *migrationVersion {
		key := sequence + " " + from
		if _, ok := at[key]; !ok {
			at[key] = len(m.Versions)
			m.Versions = append(m.Versions, migrationVersion{
				api.MigratedVersion{Sequence: sequence, From: from, To: to, Changes: []string{}}, map[string]int{}, map[string]int{},
			})
		}
		return &m.Versions[at[key]]
	}
	for parts := 1; ; parts++ {
		var part api.MigratedPart
		if err := conn.Call(ctx, "POST", "/api/v1/migrate", nil, q, &part); err != nil {
			return nil, err
		}
		for _, e := range part.Enrollments {
			v := version(e.Sequence, e.From, e.To)
			if e.Stands != "" {
				m.Moved++
				v.Stands[e.Stands]++
			} else {
				m.Left++
				v.Left[e.Left]++
			}
		}
		for _, d := range part.Changes {
			version(d.Sequence, d.From, d.To).Changes = d.Changes
		}
		if part.After == "" {
			return m, nil
		}
		q.After = part.After
		if parts%10 == 0 {
			fmt.Fprintf(c.err, "%d so far\n", m.Moved)
		}
	}
}

func (c *cli) writeMigration(m *migration) {
	if m.Moved+m.Left == 0 {
		fmt.Fprintln(c.out, "every lead that is in a sequence is on today's version")
		return
	}
	verb := "moved"
	if m.DryRun {
		verb = "would move"
	}
	for _, v := range m.Versions {
		to := v.To
		if to == "" {
			to = "none"
		}
		fmt.Fprintf(c.out, "%s, version %s to %s\n", v.Sequence, v.From, to)
		for _, line := range v.Changes {
			fmt.Fprintf(c.out, "  %s\n", line)
		}
		for _, step := range slices.Sorted(maps.Keys(v.Stands)) {
			fmt.Fprintf(c.out, "  %s: %s, at step %s\n", verb, count(v.Stands[step], "lead"), step)
		}
		for _, why := range slices.Sorted(maps.Keys(v.Left)) {
			fmt.Fprintf(c.out, "  left as it is: %s, because %s\n", count(v.Left[why], "lead"), why)
		}
	}
}
