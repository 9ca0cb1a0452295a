package bench

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/sequencer"
)

const (
	yearDays  = 365
	keepDays  = 30 // what is older is pruned
	lookDays  = 30 // how many days' commits make one figure
	singles   = 20 // commits of one submission a day, which are timed
	settledAt = 90 // by this day as much is pruned as comes
)

// growth lives through a year of a steady state: each day new leads submit and are sent something, and
// what is older than a month is pruned. Then the file is compacted.
func growth(ctx context.Context, r *run) error {
	daily, year := 500, yearDays
	if r.Items > 0 {
		daily, year = max(singles, r.Items/yearDays), max(settledAt+lookDays, min(yearDays, r.Items))
	}
	book, err := rulebook("0s")
	if err != nil {
		return err
	}
	store, _, err := r.store()
	if err != nil {
		return err
	}
	begin := start().Add(-time.Duration(year) * 24 * time.Hour)
	var sizes []int64
	var took [][]time.Duration
	n := 0
	r.logf("living through %d days with %d submissions each", year, daily)
	for day := range year {
		now := begin.Add(time.Duration(day) * 24 * time.Hour)
		many := sequencer.Batch{}
		var each []time.Duration
		for i := range daily {
			sub := submission(n, now)
			n++
			writes := []sequencer.Write{planned(sub.Email, &sequencer.Submitted{Submission: sub}, book, now), sent(sub.Email, book, now.Add(time.Minute))}
			if i >= singles {
				many.Writes = append(many.Writes, writes...)
				continue
			}
			at := time.Now()
			if _, err := store.Commit(ctx, sequencer.Batch{Writes: writes}); err != nil {
				return err
			}
			each = append(each, time.Since(at))
		}
		if _, err := store.Commit(ctx, many); err != nil {
			return err
		}
		for _, prune := range []func(context.Context, time.Time) (int, error){store.PruneJournal, store.PruneLeads, store.PruneAttention} {
			if _, err := prune(ctx, now.Add(-keepDays*24*time.Hour)); err != nil {
				return err
			}
		}
		usage, err := store.Usage()
		if err != nil {
			return err
		}
		sizes, took = append(sizes, usage.Bytes), append(took, each)
	}
	settings := map[string]string{"submissions a day": fmt.Sprint(daily), "days": fmt.Sprint(year), "kept": fmt.Sprintf("%d days", keepDays)}
	p50, p99 := commits50(took[year-lookDays:])
	before50, before99 := commits50(took[settledAt-lookDays : settledAt])
	mb := func(v int64) Figure { return figure([]float64{float64(v) / 1e6}) }
	compacted, err := store.Compact(ctx, time.Minute)
	if err != nil {
		return err
	}
	fileRatio := float64(sizes[year-1]) / float64(sizes[settledAt-1])
	for _, res := range []Result{
		{
			Name: "growth: commit of one", Unit: "ms", Measures: "one submission and its outcome in one synced commit, in the last month of a year, beside the third month",
			Ours: p50, P50: p50, P99: p99, Ceiling: before50, Ratio: p50.Median / before50.Median, Raw: "the same in the third month; below 1 is faster",
			Settings: map[string]string{"99th percentile in the third month": fmt.Sprintf("%.2f ms", before99.Median)}, Aims: []Aim{atMost("ratio", 1.25)},
		},
		{
			Name: "growth: file", Unit: "MB", Measures: "the file at the end of a year, beside day 90",
			Ours: mb(sizes[year-1]), Ceiling: mb(sizes[settledAt-1]), Ratio: fileRatio, Raw: "the same file on day 90", Aims: []Aim{atMost("ratio", 1.1)},
		},
		{
			Name: "growth: pause of a compaction", Unit: "s", Measures: "how long commits wait while that file is compacted",
			Ours: figure([]float64{compacted.Stopped.Seconds()}),
			Settings: map[string]string{
				"before": fmt.Sprintf("%.1f MB", float64(compacted.Before)/1e6), "after": fmt.Sprintf("%.1f MB", float64(compacted.After)/1e6),
			},
		},
	} {
		res.Items, res.Rounds = n, 1
		if res.Settings == nil {
			res.Settings = map[string]string{}
		}
		for k, v := range settings {
			res.Settings[k] = v
		}
		if err := r.report(res); err != nil {
			return err
		}
	}
	return nil
}

// commits50 are the medians and 99th percentiles of days of commits, in milliseconds.
func commits50(days [][]time.Duration) (p50, p99 Figure) {
	var medians []float64
	var all []time.Duration
	for _, day := range days {
		all = append(all, day...)
		medians = append(medians, ms(quantile(slices.Sorted(slices.Values(day)), 0.5)))
	}
	slices.Sort(all)
	return figure(medians), figure([]float64{ms(quantile(all, 0.99))})
}

// planned is a write that plans an event.
func planned(email lodestone.Email, ev sequencer.Event, book *sequencer.Rulebook, now time.Time) sequencer.Write {
	return sequencer.Write{Email: email, Plan: func(st sequencer.State) (sequencer.Change, error) {
		return sequencer.Plan(st.Lead, ev, book, now)
	}}
}

// sent is a write that moves a lead's touchpoint to its end.
func sent(email lodestone.Email, book *sequencer.Rulebook, now time.Time) sequencer.Write {
	return sequencer.Write{Email: email, Plan: func(st sequencer.State) (sequencer.Change, error) {
		t := st.Lead.Enrollments[0].Touchpoint
		return sequencer.Plan(st.Lead, sequencer.Moved{Touchpoint: t.ID, From: t.State, To: lodestone.TouchpointSent, Reason: lodestone.ReasonAccepted}, book, now)
	}}
}
