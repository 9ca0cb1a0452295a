package rules

import (
	"fmt"
	"strings"
	"testing"
)

// lines repeats a line with a number in it.
func lines(format string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

// Each of these would cost more than it should be allowed to if nothing stopped it.
func TestLimits(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files []string
		want  string
	}{
		{"forms", []string{"a.yaml", "forms:\n" + lines("  f%d: {fields: {email: {type: email}}}\n", MaxEntries+1)}, "a.yaml:1002:3: there are more than 1000 forms"},
		{"fields", []string{"a.yaml", "forms:\n  demo:\n    fields:\n      email: {type: email}\n" + lines("      f%d: {type: text}\n", MaxEntries)}, "a.yaml:1004:7: there are more than 1000 fields in all forms together"},
		{"lists", []string{"a.yaml", "lists:\n" + lines("  l%d: [a]\n", MaxEntries+1)}, "a.yaml:1002:3: there are more than 1000 lists"},
		{"bands", []string{"a.yaml", "scoring:\n  bands:\n" + lines("    b%[1]d: %[1]d\n", MaxEntries+1)}, "a.yaml:1003:5: there are more than 1000 bands"},
		{"rules", []string{"a.yaml", "scoring:\n  rules:\n" + lines("    - {name: r%d, points: 1}\n", MaxRules+1)}, "a.yaml:10003:7: there are more than 10000 scoring rules"},
		{"sequences", []string{"a.yaml", "sequences:\n" + lines("  s%d: {when: true, steps: [{name: a, do: referralrock.invite, with: {firstName: x}}]}\n", MaxEntries+1)}, "a.yaml:1002:3: there are more than 1000 sequences"},
		{"steps", []string{"a.yaml", "sequences:\n  q:\n    when: true\n    steps:\n" + lines("      - {name: s%d, do: referralrock.invite, with: {firstName: x}}\n", MaxSteps+1)}, "a.yaml:105:9: there are more than 100 steps in this sequence"},
		{"texts of lists", []string{"a.yaml", "lists:\n" + lines("  l%d: {file: x.txt}\n", 6), "x.txt", lines("%d\n", 100_000)}, "a.yaml:7:3: the lists up to this one hold more than 500000 texts together"},
		{"an alias for a long text", []string{"a.yaml", "scoring:\n  rules:\n    - {name: a, points: 1, when: &long " + strings.Repeat("x", 500_000) + "}\n" + lines("    - {name: r%d, points: 1, when: *long}\n", 900)},
			"a.yaml:3:40: this expression has 500000 bytes, more than the 2048 that are allowed; use several rules, or a list"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := compile(t, options(), tt.files...)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Compile:\n%.2000v\nwant\n%s", err, tt.want)
			}
		})
	}
}

// Rules that are hard to decide about are let through after a while, and those before are warned of.
func TestHardRules(t *testing.T) {
	var hard []string
	for i := range 15 {
		hard = append(hard, fmt.Sprintf(`(fields.size == %d or fields.title != "a%d" and fields.age > %d)`, i, i, i))
	}
	text := "forms: {demo: {fields: {email: {type: email}, size: {type: number}, age: {type: number}, title: {type: text}}}}\nscoring:\n  rules:\n" +
		"    - {name: first, when: fields.size > 2 and fields.size < 1, points: 1}\n" +
		lines("    - {name: r%d, points: 1, when: '"+strings.Join(hard, " and ")+"'}\n", 600) +
		"    - {name: last, when: fields.size > 2 and fields.size < 1, points: 1}\n"
	set, err := compile(t, options(), "a.yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	if len(set.Warnings) != 1 || set.Warnings[0].Line != 4 {
		t.Errorf("warnings:\n%s\nwant the one of the first rule, because the budget is used up before the last", set.Warnings)
	}
}

// A file that is wrong throughout does not bury its author.
func TestManyFaults(t *testing.T) {
	text := "forms: {demo: {fields: {email: {type: email}}}}\nscoring:\n  rules:\n" + lines("    - {name: r%d, when: fields.emial == nil, points: 1}\n", 5_000)
	_, err := compile(t, options(), "a.yaml", text)
	faults, _ := err.(Faults)
	if len(faults) != maxFaults+1 {
		t.Fatalf("there are %d faults, want %d and a note", len(faults), maxFaults)
	}
	if last := faults[maxFaults].Message; last != "there are more faults than can be shown; mend the others first" {
		t.Errorf("the last fault says %q", last)
	}
}
