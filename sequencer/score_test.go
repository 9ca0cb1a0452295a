package sequencer

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/rules"
)

// The ledger after a submission is what one gets by going through the rules one by one: without `each` the
// rule's line takes the place of its earlier ones, unless one of them is of a later submission; with `each` it
// is added, and beyond a bound the two oldest become one.
func TestLedgerIsAsRuleByRule(t *testing.T) {
	at := time.Date(2026, 3, 6, 10, 0, 0, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 40).Draw(t, "rules")
		points, each := make([]int, n), make([]bool, n)
		var text strings.Builder
		text.WriteString("forms:\n  guide:\n    fields:\n      email: {type: email, required: true}\nscoring:\n  bands: {all: 0}\n  rules:\n")
		for i := range n {
			points[i], each[i] = rapid.IntRange(-2, 2).Draw(t, "points"), rapid.Bool().Draw(t, "each")
			fmt.Fprintf(&text, "    - {name: r%d, points: 'lead.submissions > 0 ? %d : 1', each: %t}\n", i, points[i], each[i])
		}
		set, err := rules.Compile([]rules.File{{Name: "r.yaml", Data: []byte(text.String())}}, rules.Options{})
		if err != nil {
			t.Fatal(err)
		}
		lead := &lodestone.Lead{Email: "ada@example.com", FirstSeen: at, LastAt: at}
		lines := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) lodestone.Line {
			return lodestone.Line{
				Rule: fmt.Sprint("r", rapid.IntRange(0, n+2).Draw(t, "rule")), Version: "old", Points: float64(rapid.IntRange(1, 3).Draw(t, "had")),
				At: at.Add(time.Duration(rapid.IntRange(-3, 3).Draw(t, "when")) * time.Hour), HalfLife: time.Duration(rapid.IntRange(0, 1).Draw(t, "fades")) * 48 * time.Hour,
			}
		}), 0, 30).Draw(t, "ledger")
		if rapid.Bool().Draw(t, "full") {
			for range rapid.IntRange(maxEach-2, maxEach+2).Draw(t, "many") {
				lines = append(lines, lodestone.Line{Rule: "r0", Version: "old", Points: 1, At: at})
			}
		}
		lead.Ledger = lines
		before := slices.Clone(lines)

		want, shown := slices.Clone(lines), []lodestone.Line(nil)
		for i := range n {
			line := lodestone.Line{Rule: fmt.Sprint("r", i), Version: set.Version, Points: float64(points[i]), At: at}
			mine := func(l lodestone.Line) bool { return l.Rule == line.Rule }
			if line.Points != 0 {
				shown = append(shown, line)
			}
			switch {
			case each[i] && line.Points != 0:
				want = append(fold(want, set.Rules[i]), line)
			case each[i], slices.ContainsFunc(want, func(l lodestone.Line) bool { return mine(l) && l.At.After(at) }):
			default:
				if want = slices.DeleteFunc(want, mine); line.Points != 0 {
					want = append(want, line)
				}
			}
		}

		c, err := Plan(lead, &Submitted{Submission: lodestone.Submission{ID: "1", Form: "guide", Email: lead.Email, At: at, Received: at}}, NewRulebook(set), at)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Lead.Ledger; len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
			t.Errorf("ledger:\n got %v\nwant %v", got, want)
		}
		if got := c.Entry.Decision.Lines; len(got)+len(shown) > 0 && !reflect.DeepEqual(got, shown) {
			t.Errorf("lines shown:\n got %v\nwant %v", got, shown)
		}
		if !reflect.DeepEqual(lead.Ledger, before) {
			t.Error("the lead that was given was changed")
		}
	})
}
