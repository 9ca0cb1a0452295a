package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/lodestonehq/lodestone/internal/replay"
	"github.com/lodestonehq/lodestone/internal/simulate"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/scoring"
)

// plan measures the replay of stored submissions through the rules in force and through candidates,
// beside reading the same messages and running the compiled rules of both, and the check of a large
// directory of rules.
func plan(ctx context.Context, r *run) error {
	if err := r.plan(ctx, r.items(100_000), Result{}); err != nil {
		return err
	}
	return r.check(ctx)
}

// plan measures the replay of items submissions.
func (r *run) plan(ctx context.Context, items int, res Result) error {
	store, dir, err := r.store()
	if err != nil {
		return err
	}
	b, err := r.broker(ctx, dir)
	if err != nil {
		return err
	}
	now, err := ruleset(fmt.Sprintf(ruleFile, "3d"))
	if err != nil {
		return err
	}
	then, err := ruleset(strings.Replace(fmt.Sprintf(ruleFile, "2d"), "hot: 60", "hot: 40", 1))
	if err != nil {
		return err
	}
	r.logf("storing %d submissions", items)
	for n := 0; n < items; {
		var msgs []*nats.Msg
		for range min(1000, items-n) {
			lead := n
			if n%4 == 3 {
				lead = n - 3 // a quarter were here before
			}
			m := form(lead, n)
			m.Header = nil // the server remembers ids for two minutes, which would be counted as the replay's memory
			msgs = append(msgs, m)
			n++
		}
		if err := b.PublishBatch(ctx, msgs); err != nil {
			return err
		}
	}
	debug.FreeOSMemory() // what storing them took is not the replay's
	options := rules.Options{Operations: operations()}
	ours := func(ctx context.Context) (s sample, err error) {
		return timed(items, func() error {
			head, src, err := replay.Open(ctx, store, b.JetStream(), nil)
			if err != nil {
				return err
			}
			got, err := replay.Run(ctx, head, src, replay.Options{
				Now: now, Then: then, Accounts: simulate.Accounts(options), Rates: map[string]float64{"referralrock": 10}, Sample: 20, Dir: dir,
			})
			if err == nil && (got.Submissions != uint64(items) || got.Changed.Band == 0) {
				err = fmt.Errorf("%d of %d submissions were replayed, %d leads got another band", got.Submissions, items, got.Changed.Band)
			}
			return err
		})
	}
	ceiling := func(ctx context.Context) (sample, error) {
		var evs []*scoring.Evaluator
		sub := submission(0, start())
		for _, set := range []*rules.Set{now, then} {
			ev := set.Schema.Evaluator()
			defer ev.Release()
			ev.Bind(scoring.Facts{Form: sub.Form, Fields: sub.Fields, Context: &sub.Context, Now: sub.At})
			evs = append(evs, ev)
		}
		return timed(items, func() error {
			_, src, err := replay.Open(ctx, store, b.JetStream(), nil)
			if err != nil {
				return err
			}
			return src(ctx, func(*replay.Record) error {
				for i, set := range []*rules.Set{now, then} {
					if err := evaluate(evs[i], set); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
	const million = 1_000_000
	res.Unit, res.Raw = "submissions/s", "the same messages read, and the compiled rules of both versions run on facts that are bound already"
	res.Settings = map[string]string{"leads": fmt.Sprint(items - items/4), "stream": "embedded, SyncAlways"}
	res.Aims = append(res.Aims, atLeast("ours", million/60.0)) // a million in a minute
	return r.alternate(ctx, res, ours, ceiling)
}

// evaluate runs the programs of every scoring rule once.
func evaluate(ev *scoring.Evaluator, set *rules.Set) error {
	for _, q := range set.Rules {
		if q.When != nil {
			ok, err := ev.Bool(q.When)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
		}
		if q.PointsExpr == nil {
			continue
		}
		if _, err := ev.Number(q.PointsExpr); err != nil {
			return err
		}
	}
	return nil
}

// check measures `lodestone check` of a directory with 1,000 scoring rules and 100 sequences.
func (r *run) check(ctx context.Context) error {
	n := 1000
	if r.Items > 0 {
		n = min(n, r.Items)
	}
	var text strings.Builder
	text.WriteString("forms:\n  demo:\n    fields:\n      email: {type: email}\n")
	for i := range 30 {
		fmt.Fprintf(&text, "      f%d: {type: number}\n      t%d: {type: text}\n", i, i)
	}
	text.WriteString("lists: {competitors: [rival.example]}\nscoring:\n  bands: {hot: 60, cold: 0}\n  rules:\n")
	for i := range n {
		fmt.Fprintf(&text, "    - name: rule-%d\n      when: fields.f%d >= %d and (matches(fields.t%d, \"(?i)head|chief\") or lead.domain not in lists.competitors)\n"+
			"      points: 'fields.f%d > 100 ? 20 : 5'\n", i, i%30, i, i%30, i%30)
	}
	text.WriteString("sequences:\n")
	for i := range (n + 9) / 10 {
		fmt.Fprintf(&text, "  s%d:\n    when: band == \"hot\" and fields.f%d > %d\n    priority: %d\n    steps:\n"+
			"      - {name: a, when: not signals.opened, do: referralrock.invite, with: {firstName: '${fields.t1 ?? \"there\"}'}}\n", i, i%30, i, i)
	}
	var took, cpu []float64
	var peak int64
	for range r.Rounds {
		s, err := timed(n, func() error { _, err := ruleset(text.String()); return errors.Join(err, ctx.Err()) })
		if err != nil {
			return err
		}
		took, cpu, peak = append(took, s.took.Seconds()), append(cpu, s.cpu.Seconds()*1000/float64(n)), max(peak, s.peak)
	}
	return r.report(Result{
		Name: "check", Measures: "the check of rule files with 1,000 scoring rules and 100 sequences, what can be proved of them included",
		Unit: "s", Ours: figure(took), CPU: figure(cpu).Median, Memory: float64(peak) / 1e6, Items: n, Aims: []Aim{atMost("ours", 0.5)},
	})
}
