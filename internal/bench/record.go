package bench

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
	"github.com/lodestonehq/lodestone/sequencer"
)

// record compares the form in which a lead is stored with JSON: written and read again.
func record(ctx context.Context, r *run) error {
	items := r.items(50_000)
	book, err := rulebook("3d")
	if err != nil {
		return err
	}
	sub := submission(0, start())
	c, err := sequencer.Plan(nil, &sequencer.Submitted{Submission: sub}, book, sub.At)
	if err != nil {
		return err
	}
	var compact, text []byte
	ours := func(context.Context) (sample, error) {
		s, err := timed(items, func() (err error) {
			for range items {
				if compact, err = boltstore.Encode(c.Lead); err != nil {
					return err
				}
				var l lodestone.Lead
				if err := boltstore.Decode(compact, &l); err != nil {
					return err
				}
			}
			return nil
		})
		s.disk = int64(items) * int64(len(compact))
		return s, err
	}
	asJSON := func(context.Context) (sample, error) {
		return timed(items, func() (err error) {
			for range items {
				if text, err = json.Marshal(c.Lead); err != nil {
					return err
				}
				var l lodestone.Lead
				if err := json.Unmarshal(text, &l); err != nil {
					return err
				}
			}
			return nil
		})
	}
	settings := map[string]string{}
	return r.alternate(ctx, Result{
		Unit: "leads/s", Raw: "the same as JSON", Settings: settings,
		later: func(*Result) {
			settings["bytes"] = fmt.Sprintf("%d, %d as JSON", len(compact), len(text))
		},
	}, ours, asJSON)
}
