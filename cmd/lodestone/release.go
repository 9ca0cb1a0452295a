package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/lodestonehq/lodestone/internal/api"
)

func (c *cli) releaseCmd() *cobra.Command {
	var all, drop, yes bool
	var reason, brake, item string
	cmd := &cobra.Command{
		Use:   "release SUBMISSION | --all | --brake SEQUENCE",
		Short: "Take in what could not be used; let go on what a brake holds",
		Long: `Release takes in submissions and signals that lie under attention because they could not be used: the form
was not declared, a field had the wrong type. Each is read with the rules as they are now, with the id and the
time that it came with, and applied once, whatever interrupts this. What still can not be used stays where it
is, with its reason as it is now, and the command exits with 1. A submission in quarantine is taken for honest by this word.

With --drop an attention item is closed and nothing else is done: for a submission that nobody misses, or
a matter that was settled elsewhere. That it was, and by whom, stays on record; what it held does not.

The id of a submission is its sender's choice, and so several may have the same, of different people. Then nothing is
done, the several are listed, and --item says which of them is meant.

With --brake the enrollments that the brake of a sequence holds go on. Their touchpoints happen at their first
allowed moment from now on, in the order in which they began, at the provider's rate; that their time passed
while they were held makes none of them stale. To take them back instead: lodestone undo SEQUENCE.`,
		Example: "  lodestone queue --attention\n  lodestone release --all\n  lodestone release 'web 4711'\n  lodestone release 'web 4711' --drop --reason spam\n  lodestone release 'web 4711' --item submission/12\n  lodestone release --brake hot-invite",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			switch {
			case brake != "" && (all || drop || item != "" || len(a) > 0):
				return usagef("--brake stands alone")
			case brake != "":
				return c.letGo(cmd, brake, false, yes)
			case all == (len(a) == 1):
				return usagef("give the id of one submission, --all, or whose brake, as in release --brake hot-invite; `lodestone queue --attention` shows what there is")
			case len(a) == 1 && a[0] == "":
				return usagef("an id is never empty; `lodestone queue --attention` shows what there is")
			case all && item != "":
				return usagef("--item goes with the id of a submission")
			case all && drop:
				return usagef("--drop closes one item at a time; name it")
			case reason != "" && !drop:
				return usagef("--reason goes with --drop")
			}
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			if drop {
				if err := c.confirm(yes, fmt.Sprintf("Close %s without doing anything about it? What it holds is gone then.", a[0])); err != nil {
					return err
				}
				var got api.Dropped
				q := api.Drop{Chosen: api.Chosen{ID: a[0], Item: item}, Reason: reason, By: by()}
				if err := conn.Call(cmd.Context(), "POST", "/api/v1/drop", nil, q, &got); err != nil {
					return c.several(err)
				}
				if c.flags.json {
					return c.printJSON(got)
				}
				for _, i := range got.Dropped {
					fmt.Fprintf(c.out, "%s: closed (%s, %s)\n", i.ID, i.Kind, words(i.Reason))
				}
				return nil
			}
			q := api.Release{All: all, By: by()}
			if !all {
				q.Chosen = api.Chosen{ID: a[0], Item: item}
			}
			return c.release(cmd.Context(), conn, q)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "every submission and signal that could not be used")
	cmd.Flags().StringVar(&item, "item", "", "which of several with the same id, as queue --attention --json shows it")
	cmd.Flags().BoolVar(&drop, "drop", false, "close the item, and do nothing else")
	cmd.Flags().StringVar(&reason, "reason", "", "with --drop: why; kept on record")
	cmd.Flags().StringVar(&brake, "brake", "", "the sequence whose brake holds enrollments that are to go on")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// maxListed bounds how many items an answer lists; all of them are counted.
const maxListed = 1000

// release goes through what is to be released, a part at a time.
func (c *cli) release(ctx context.Context, conn *connection, q api.Release) error {
	total := struct {
		Released      []api.ReleasedItem `json:"released"`
		Faulty        []api.ReleasedItem `json:"faulty"`
		TotalReleased int                `json:"total_released"`
		TotalFaulty   int                `json:"total_faulty"`
	}{Released: []api.ReleasedItem{}, Faulty: []api.ReleasedItem{}}
	for {
		var part api.Released
		if err := conn.Call(ctx, "POST", "/api/v1/release", nil, q, &part); err != nil {
			if total.TotalReleased > 0 {
				return fmt.Errorf("%w; %d were released before, the others are where they were: give the command again", err, total.TotalReleased)
			}
			return c.several(err)
		}
		total.TotalReleased += len(part.Released)
		total.TotalFaulty += len(part.Faulty)
		total.Released = append(total.Released, part.Released[:min(len(part.Released), maxListed-len(total.Released))]...)
		total.Faulty = append(total.Faulty, part.Faulty[:min(len(part.Faulty), maxListed-len(total.Faulty))]...)
		if len(part.After) == 0 {
			break
		}
		q.After = part.After
		fmt.Fprintf(c.err, "%d released, %d still not usable, going on\n", total.TotalReleased, total.TotalFaulty)
	}
	if c.flags.json {
		if err := c.printJSON(total); err != nil {
			return err
		}
	} else {
		if total.TotalReleased+total.TotalFaulty == 0 {
			fmt.Fprintln(c.out, "no submission waits for release")
			return nil
		}
		fmt.Fprintf(c.out, "%s released\n", count(total.TotalReleased, "submission"))
		if total.TotalFaulty > 0 {
			fmt.Fprintf(c.out, "%d still can not be used and stay under attention:\n", total.TotalFaulty)
			rows := [][]string{}
			for _, i := range total.Faulty[:min(len(total.Faulty), 20)] {
				rows = append(rows, []string{i.ID, orDash(i.Form), words(i.Reason), i.Detail})
			}
			table(c.out, "  ", rows)
			if more := total.TotalFaulty - 20; more > 0 {
				fmt.Fprintf(c.out, "  and %d more; `lodestone queue --attention` lists them\n", more)
			}
		}
	}
	switch {
	case total.TotalFaulty == 0:
		return nil
	case q.All:
		return fmt.Errorf("%d of %d can not be used yet; mend the causes that are named and give the command again, or close them with --drop", total.TotalFaulty, total.TotalReleased+total.TotalFaulty)
	}
	return errors.New("it can not be used yet; mend the cause that is named and release it again, or close it with --drop")
}

// several lists what an id may mean where an error says that it may mean several.
func (c *cli) several(err error) error {
	var p *api.Problem
	if !errors.As(err, &p) || len(p.Items) == 0 {
		return err
	}
	if c.flags.json {
		return errors.Join(err, c.printJSON(map[string]any{"several": p.Items}))
	}
	rows := [][]string{}
	for _, i := range p.Items {
		rows = append(rows, []string{"--item " + i.Item, orDash(i.Form), orDash(string(i.Email)), words(i.Reason), i.At.Format(time.RFC3339)})
	}
	table(c.err, "  ", rows)
	return err
}
