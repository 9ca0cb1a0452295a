package rules

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkCheck checks a directory with 1,000 scoring rules and 100 sequences, what can be proved
// of them included. The aim is half a second.
func BenchmarkCheck(b *testing.B) {
	var text strings.Builder
	text.WriteString("forms:\n  demo:\n    fields:\n      email: {type: email}\n")
	for i := range 30 {
		fmt.Fprintf(&text, "      f%d: {type: number}\n      t%d: {type: text}\n", i, i)
	}
	text.WriteString("lists: {competitors: [rival.example]}\nscoring:\n  bands: {hot: 60, cold: 0}\n  rules:\n")
	for i := range 1000 {
		fmt.Fprintf(&text, "    - name: rule-%d\n      when: fields.f%d >= %d and (matches(fields.t%d, \"(?i)head|chief\") or lead.domain not in lists.competitors)\n      points: 'fields.f%d > 100 ? 20 : 5'\n", i, i%30, i, i%30, i%30)
	}
	text.WriteString("sequences:\n")
	for i := range 100 {
		fmt.Fprintf(&text, "  s%d:\n    when: band == \"hot\" and fields.f%d > %d\n    priority: %d\n    exit: signals.converted\n    steps:\n      - {name: a, when: not signals.opened, do: referralrock.invite, with: {firstName: '${plain(fields.t1) ?? \"there\"}'}}\n", i, i%30, i, i)
	}
	files := []File{{"rules.yaml", []byte(text.String())}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Compile(files, options()); err != nil {
			b.Fatal(err)
		}
	}
}
