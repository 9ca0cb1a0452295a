package scoring

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
)

// benchRules are 20 rules as marketers write them.
var benchRules = []string{
	`lead.freemail ? 0 : 20`,
	`fields.f0 >= 1000 ? 40 : fields.f0 >= 200 ? 25 : 0`,
	`lead.domain in lists.competitors ? -100 : 0`,
	`lead.submissions > 1 ? 15 : 0`,
	`form == "pricing-guide" ? 15 : 0`,
	`fields.f1 == "DE" or fields.f1 == "AT" ? 5 : 0`,
	`fields.f2 in ["CTO", "CEO", "CIO"] ? 20 : 0`,
	`fields.f3 != nil ? 5 : 0`,
	`fields.f4 contains "budget" ? 10 : 0`,
	`utm.source == "partner" ? 10 : 0`,
	`fields.f6 > 10 and fields.f6 < 500 ? 5 : 0`,
	`fields.f7 startsWith "Head" ? 10 : 0`,
	`fields.f8 and not lead.role ? 5 : 0`,
	`fields.f9 >= 3 ? 5 : 0`,
	`lead.disposable ? -50 : 0`,
	`days_since(lead.first_seen) > 30 ? 5 : 0`,
	`fields.f10 != "student" ? 5 : -10`,
	`(fields.f12 ?? 0) * 2 > 10 ? 5 : 0`,
	`context.consent.marketing ? 5 : 0`,
	`matches(fields.f13, "(?i)chief|head|director") ? 10 : 0`,
}

func benchConfig() (Config, Facts) {
	c := testConfig()
	f := testFacts()
	fields := make(map[string]any)
	c.Fields = make(map[string]lodestone.FieldType)
	for i := range 30 {
		name := fmt.Sprintf("f%d", i)
		switch i % 3 {
		case 0:
			c.Fields[name], fields[name] = lodestone.FieldNumber, float64(i*50)
		default:
			c.Fields[name], fields[name] = lodestone.FieldText, "Head of something "+name
		}
	}
	for _, name := range []string{"f0", "f6", "f9", "f12"} {
		c.Fields[name], fields[name] = lodestone.FieldNumber, 240.0
	}
	c.Fields["f8"], fields["f8"] = lodestone.FieldBoolean, true
	delete(fields, "f3")
	f.Fields = lodestone.FieldsOf(fields)
	return c, f
}

// BenchmarkScore scores one submission over 30 fields by 20, 200 and 2,000 rules, everything included,
// and gives the ratio to the bare cost of running the compiled programs on an environment that is
// ready.
func BenchmarkScore(b *testing.B) {
	for _, rules := range []int{20, 200, 2_000} {
		b.Run(fmt.Sprintf("rules=%d", rules), func(b *testing.B) { benchmarkScore(b, rules) })
	}
}

func benchmarkScore(b *testing.B, rules int) {
	c, facts := benchConfig()
	s := NewSchema(c)
	var programs []*Program
	for i := range rules {
		p, err := s.CompileScoring(benchRules[i%len(benchRules)], Number)
		if err != nil {
			b.Fatal(err)
		}
		programs = append(programs, p)
	}
	score := func() (sum float64) {
		e := s.Evaluator()
		e.Bind(facts)
		for _, p := range programs {
			x, err := e.Number(p)
			if err != nil {
				b.Fatal(err)
			}
			sum += x
		}
		e.Release()
		return sum
	}
	ready := s.Evaluator()
	ready.Bind(facts)
	bare := func() {
		for _, p := range programs {
			if _, err := ready.machine.Run(p.code, nil); err != nil {
				b.Fatal(err)
			}
		}
	}
	// Both are timed in turns, so that a busy machine slows them alike.
	var whole, part time.Duration
	for b.Loop() {
		t0 := time.Now()
		score()
		t1 := time.Now()
		bare()
		whole, part = whole+t1.Sub(t0), part+time.Since(t1)
	}
	b.ReportMetric(float64(whole.Nanoseconds())/float64(b.N), "ns/score")
	b.ReportMetric(float64(part.Nanoseconds())/float64(b.N), "ns/bare")
	b.ReportMetric(float64(whole)/float64(part), "score/bare")
}

// BenchmarkWorst evaluates the most expensive expressions that the guard lets through.
func BenchmarkWorst(b *testing.B) {
	c := testConfig()
	c.Lists["long"] = strings.Split(strings.Repeat(strings.Repeat("a", 200)+"b,", MaxElements-1)+"c", ",")
	s := NewSchema(c)
	f := testFacts()
	f.Fields = lodestone.FieldsOf(map[string]any{"title": strings.Repeat("a", MaxText)}).Over(f.Fields)
	for name, source := range map[string]string{
		"loop":     `any(lists.long, ` + strings.Repeat(`upper(lower(fields.title)) contains # or `, 28) + `false)`,
		"join":     `any(lists.long, ` + strings.Repeat(`len(fields.title + fields.title + fields.title) == 1 or `, 16) + `false)`,
		"patterns": strings.Repeat(`matches(fields.title, "(a?){150}(a|aa)+$x") or `, 2) + `false`,
	} {
		p, err := s.Compile(source, Boolean)
		if err != nil {
			b.Fatalf("%s: %v", name, err)
		}
		b.Run(name, func(b *testing.B) {
			e := s.Evaluator()
			defer e.Release()
			e.Bind(f)
			for b.Loop() {
				if _, err := e.Bool(p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	c, _ := benchConfig()
	s := NewSchema(c)
	b.ReportAllocs()
	for b.Loop() {
		for _, source := range benchRules {
			if _, err := s.CompileScoring(source, Number); err != nil {
				b.Fatal(err)
			}
		}
	}
}
