package bench

import (
	"errors"
	"slices"
	"testing"
)

// Every bench runs and reports, at a size that takes a moment: none may rot. Figures are not looked at.
func TestEachBenchRuns(t *testing.T) {
	small := map[string]Options{
		"score":    {Items: 100},
		"plan":     {Items: 400},
		"gateway":  {Items: 40},
		"outbox":   {Items: 300},
		"stream":   {Items: 40},
		"record":   {Items: 20},
		"growth":   {Items: 120},
		"intake":   {Items: 1200, Leads: 500},
		"dispatch": {Items: 200, Leads: 100},
		"latency":  {Items: 50},
		"backlog":  {Leads: 1000},
		"large":    {Leads: 1000, Items: 200},
	}
	for _, b := range All {
		t.Run(b.Name, func(t *testing.T) {
			o, ok := small[b.Name]
			if !ok {
				t.Fatalf("give the bench %q a small size here", b.Name)
			}
			o.Dir, o.Rounds = t.TempDir(), 2
			if b.Name == "backlog" || b.Name == "large" {
				o.Rounds = 1
				idleFor = 0
			}
			var results []Result
			if err := Run(t.Context(), b.Name, o, func(r Result) error { results = append(results, r); return nil }); err != nil {
				t.Fatal(err)
			}
			if len(results) == 0 {
				t.Fatal("nothing was reported")
			}
			for _, r := range results {
				if r.Name == "" || r.Unit == "" || r.Items == 0 || r.Settings["cores"] == "" {
					t.Errorf("incomplete: %+v", r)
				}
				if r.Ours.Median < 0 || r.Ours.Low > r.Ours.Median || r.Ours.High < r.Ours.Median {
					t.Errorf("%s: figures out of order: %+v", r.Name, r.Ours)
				}
			}
		})
	}
	if err := Run(t.Context(), "nothing", Options{Dir: t.TempDir()}, nil); !errors.Is(err, ErrUnknown) {
		t.Errorf("an unknown bench gives %v", err)
	}
}

func TestFigure(t *testing.T) {
	if got, want := figure([]float64{5, 1, 3}), (Figure{3, 1, 5}); got != want {
		t.Errorf("figure of three = %v, want %v", got, want)
	}
	if got, want := figure([]float64{4, 1, 3, 2}), (Figure{2.5, 1, 4}); got != want {
		t.Errorf("figure of four = %v, want %v", got, want)
	}
	if !slices.Equal([]string{rawBuckets[0], rawBuckets[1], rawBuckets[2]}, []string{"leads", "due", "journal"}) {
		t.Error("puts numbers the buckets by this order")
	}
}
