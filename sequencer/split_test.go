package sequencer_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/sequencer"
)

func variants(namesAndWeights ...any) *rules.Sequence {
	s := &rules.Sequence{Name: "q"}
	for i := 0; i < len(namesAndWeights); i += 2 {
		s.Variants = append(s.Variants, rules.Variant{Name: namesAndWeights[i].(string), Weight: namesAndWeights[i+1].(int)})
	}
	return s
}

func leads(n int) (list []lodestone.Email) {
	for i := range n {
		list = append(list, lodestone.Email(fmt.Sprintf("lead%d@example.com", i)))
	}
	return list
}

// Shares are as the weights say: no further off than four standard deviations.
func TestSplitIsEven(t *testing.T) {
	const n = 40_000
	s := variants("a", 50, "b", 30, "c", 20, "none", 0)
	s.Holdout = 0.1
	got := map[string]int{}
	for _, e := range leads(n) {
		got[sequencer.SequenceVariant(e, s)]++
	}
	for name, share := range map[string]float64{"a": 0.45, "b": 0.27, "c": 0.18, rules.VariantHoldout: 0.1, "none": 0} {
		off := float64(got[name]) - share*n
		t.Logf("%-8s %6d of %d, want %.0f: off by %+.0f, %.2f standard deviations", name, got[name], n, share*n, off, off/math.Sqrt(n*share*(1-share)+1))
		if math.Abs(off) > 4*math.Sqrt(n*share*(1-share)) {
			t.Errorf("%s has %d of %d, want %.0f", name, got[name], n, share*n)
		}
	}
}

// What changes moves only those who must, and each of them to where the change draws it.
func TestSplitIsSticky(t *testing.T) {
	const n = 40_000
	before := variants("a", 50, "b", 50)
	for _, tc := range []struct {
		name  string
		after *rules.Sequence
		to    []string // where leads may move
		moved float64  // the least share that must move
	}{
		{"the same proportions", variants("a", 1, "b", 1), nil, 0},
		{"another order", variants("b", 50, "a", 50), nil, 0},
		{"a variant more", variants("a", 50, "b", 50, "c", 50), []string{"c"}, 1.0 / 3},
		{"a greater weight", variants("a", 50, "b", 150), []string{"b"}, 0.25},
		{"a smaller weight", variants("a", 50, "b", 10), []string{"a"}, 1.0 / 3},
		{"a variant less", variants("a", 50), []string{"a"}, 0.5},
	} {
		moved := 0
		for _, e := range leads(n) {
			was, is := sequencer.SequenceVariant(e, before), sequencer.SequenceVariant(e, tc.after)
			if was == is {
				continue
			}
			if moved++; !slices.Contains(tc.to, is) {
				t.Fatalf("%s: %s moved from %s to %s", tc.name, e, was, is)
			}
		}
		t.Logf("%-20s %6d of %d moved, at least %.0f must", tc.name, moved, n, tc.moved*n)
		if math.Abs(float64(moved)-tc.moved*n) > 4*math.Sqrt(n*tc.moved*(1-tc.moved)) {
			t.Errorf("%s: %d moved, want %.0f", tc.name, moved, tc.moved*n)
		}
	}
	// A larger holdout takes in more and lets none out.
	small, large := variants("a", 1, "b", 1), variants("a", 1, "b", 1)
	small.Holdout, large.Holdout = 0.05, 0.1
	for _, e := range leads(n) {
		was, is := sequencer.SequenceVariant(e, small), sequencer.SequenceVariant(e, large)
		if was != is && is != rules.VariantHoldout {
			t.Fatalf("%s moved from %s to %s", e, was, is)
		}
	}
}

func TestFreeSlot(t *testing.T) {
	h := func(n int) time.Time { return start.Add(time.Duration(n) * time.Hour) }
	caps := []rules.Cap{{Max: 1, Per: 2 * time.Hour}, {Max: 3, Per: 24 * time.Hour}}
	for _, tc := range []struct {
		contacts []time.Time
		now      int
		want     int
		full     int // the cap's Max; 0: none
	}{
		{nil, 0, 0, 0},
		{[]time.Time{h(0)}, 1, 2, 1},
		{[]time.Time{h(0)}, 2, 2, 0}, // exactly the period later is free
		{[]time.Time{h(0), h(4), h(8)}, 9, 24, 3},
		{[]time.Time{h(0), h(4), h(8)}, 24, 24, 0},
		{[]time.Time{h(0), h(1), h(4), h(8)}, 9, 25, 3}, // one too many already: a cap that is new
	} {
		free, full := sequencer.FreeSlot(tc.contacts, caps, h(tc.now))
		if !free.Equal(h(tc.want)) || (full == nil) != (tc.full == 0) || full != nil && full.Max != tc.full {
			t.Errorf("%d contacts at hour %d: free at %s by %+v, want hour %d by the cap of %d", len(tc.contacts), tc.now, free, full, tc.want, tc.full)
		}
	}
}

// Each variant's steps are taken, and what was chosen stands on the enrollment, the touchpoint and the record.
func TestVariantsAreKept(t *testing.T) {
	text := strings.Replace(ruleFile, "  warm:\n", `  split:
    when: form == "news"
    priority: 500
    reenter: always
    holdout: 20%
    variants:
      short: {steps: [{name: only, do: referralrock.invite, with: {firstName: short}}]}
      long: {}
    steps:
      - name: one
        do: referralrock.invite
        with: {firstName: base}
        variants:
          x: {with: {firstName: x}}
          y: {do: referralrock.refer, with: {referralCode: y}}
      - {name: two, after: 1d, do: referralrock.invite, with: {firstName: base}}
  warm:
`, 1)
	book := sequencer.NewRulebook(compile(t, text))
	seen := map[string]int{}
	for _, email := range leads(200) {
		sub := submission("1", "news", start, nil)
		sub.Email = email
		c, err := sequencer.Plan(nil, &sequencer.Submitted{Submission: sub}, book, start)
		if err != nil {
			t.Fatal(err)
		}
		e := c.Lead.Active()
		tp := e.Touchpoint
		if n := c.Entry.Enrollments[0]; n.Variant != e.Variant {
			t.Fatalf("recorded %+v, want the variant %q", n, e.Variant)
		}
		label := c.Entry.Touchpoints[0].Variant
		seen[label+" "+tp.Step+" "+tp.Operation]++
	}
	t.Log(seen)
	for _, want := range []string{"short only invite", "long/x one invite", "long/y one refer", "holdout one invite", "holdout one refer"} {
		if seen[want] == 0 {
			t.Errorf("nobody has %q: %v", want, seen)
		}
		delete(seen, want)
	}
	if len(seen) > 0 {
		t.Errorf("nobody should have %v", seen)
	}
}
