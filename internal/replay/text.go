package replay

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone"
)

// format is how a report is written: as text for a terminal or as Markdown for a pull request. Markdown is
// read by many, so addresses are masked in it.
type format struct {
	w        io.Writer
	markdown bool
}

// Text writes a report for a terminal.
func (r *Report) Text(w io.Writer) { (&format{w: w}).report(r) }

// Markdown writes a report fit for a pull request.
func (r *Report) Markdown(w io.Writer) { (&format{w: w, markdown: true}).report(r) }

func (f *format) heading(s string) {
	if f.markdown {
		fmt.Fprintf(f.w, "\n### %s\n\n", s)
		return
	}
	fmt.Fprintf(f.w, "\n%s\n", s)
}

func (f *format) para(format string, args ...any) { fmt.Fprintf(f.w, format+"\n", args...) }

// table writes rows under a head, in columns.
func (f *format) table(head []string, rows [][]string) {
	if f.markdown {
		fmt.Fprintf(f.w, "| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat("---|", len(head)))
		for _, row := range rows {
			for i := range row {
				row[i] = strings.ReplaceAll(row[i], "|", "\\|")
			}
			fmt.Fprintf(f.w, "| %s |\n", strings.Join(row, " | "))
		}
		return
	}
	wide := make([]int, len(head))
	rows = append([][]string{head}, rows...)
	for _, row := range rows {
		for i, cell := range row {
			wide[i] = max(wide[i], len([]rune(cell)))
		}
	}
	for _, row := range rows {
		var b strings.Builder
		for i, cell := range row {
			b.WriteString("  " + cell + strings.Repeat(" ", wide[i]-len([]rune(cell))))
		}
		fmt.Fprintln(f.w, strings.TrimRight(b.String(), " "))
	}
}

func (f *format) address(e lodestone.Email) string {
	if !f.markdown {
		return string(e)
	}
	local, domain, _ := strings.Cut(string(e), "@")
	return local[:min(1, len(local))] + "…@" + domain
}

func number(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func delta(p Pair[int]) []string {
	d := p.Then - p.Now
	sign := number(d)
	if d > 0 {
		sign = "+" + sign
	}
	return []string{number(p.Now), number(p.Then), sign}
}

func share(n, of int) string {
	if of == 0 {
		return ""
	}
	return fmt.Sprintf(" (%.1f %%)", 100*float64(n)/float64(of))
}

func (f *format) report(r *Report) {
	if f.markdown {
		f.para("## What these rules would change\n")
	}
	what := "the stored submissions"
	if r.Source == FromJournal {
		what = "the journal, because the streams hold no submission; it keeps what was decided and not what was submitted, so each submission got what is known of its lead now"
	}
	f.para("Replayed %s submissions and %s signals of %s leads, %s to %s, from %s.", number(int(r.Submissions)), number(int(r.Signals)), number(r.Leads), day(r.From), day(r.To), what)
	f.para("Rules in force: %s. Candidate: %s. Nothing was stored or sent.", r.Rules.Now, r.Rules.Then)
	if f.markdown {
		f.para("")
	}
	if r.Rules.Now == r.Rules.Then {
		f.para("Both are the same version, so nothing changes.")
	}
	c := r.Changed
	f.para("%s of %s leads change%s: %s in score, %s in band, %s in sequence.", number(c.Leads), number(r.Leads), share(c.Leads, r.Leads), number(c.Score), number(c.Band), number(c.Sequence))
	if r.Rejected.Now+r.Rejected.Then > 0 {
		f.para("Submissions that cannot be used or wait for a human: %s now, %s then.", number(r.Rejected.Now), number(r.Rejected.Then))
	}

	var rows [][]string
	for _, b := range r.Bands {
		rows = append(rows, append([]string{b.Band}, delta(b.Pair)...))
	}
	if len(rows) > 0 {
		f.heading("Leads by band")
		f.table([]string{"band", "now", "then", "difference"}, rows)
	}
	rows = nil
	for _, q := range r.Sequences {
		rows = append(rows, append([]string{q.Sequence}, delta(q.Pair)...))
	}
	if len(rows) > 0 {
		f.heading("Enrollments by sequence")
		f.table([]string{"sequence", "now", "then", "difference"}, rows)
	}
	f.days(r)
	rows = nil
	for _, m := range r.MidFlight {
		then := "removed"
		if m.Then == ThenChanged {
			then = "changed to " + m.ThenVersion
		}
		rows = append(rows, []string{m.Sequence, m.Version, number(m.Enrollments), then, f.some(m)})
	}
	if len(rows) > 0 {
		f.heading("Mid-flight: these enrollments keep the version they began with")
		f.table([]string{"sequence", "version", "enrollments", "in the candidate", "who"}, rows)
	}
	rows = nil
	for _, p := range r.Providers {
		for _, x := range []struct {
			when string
			Load
		}{{"now", p.Now}, {"then", p.Then}} {
			rows = append(rows, []string{p.Connector, x.when, number(x.Touchpoints), number(x.PeakMinute), number(x.PeakHour), wait(x.Wait)})
		}
	}
	if len(rows) > 0 {
		f.heading("What the providers' rates mean")
		f.table([]string{"connector", "", "touchpoints", "busiest minute", "busiest hour", "longest wait"}, rows)
		for _, p := range r.Providers {
			if f.markdown {
				f.para("")
			}
			f.para("%s is configured for %g requests a second; a touchpoint is two, the check and the act.", p.Connector, p.Rate)
		}
	}
	f.sample(r)
}

// maxDays is how many days are listed; the others are in the JSON.
const maxDays = 31

func (f *format) days(r *Report) {
	if len(r.Days) == 0 {
		return
	}
	var rows [][]string
	days := r.Days[max(0, len(r.Days)-maxDays):]
	for _, d := range days {
		rows = append(rows, append([]string{d.Day}, delta(d.Pair)...))
	}
	rows = append(rows, append([]string{"all days"}, delta(r.Touchpoints)...))
	f.heading("Touchpoints sent a day")
	f.table([]string{"day", "now", "then", "difference"}, rows)
	if hidden := len(r.Days) - len(days); hidden > 0 {
		f.para("%d earlier days are left out; --json has them all.", hidden)
	}
}

func (f *format) sample(r *Report) {
	if len(r.Sample) == 0 {
		return
	}
	var rows [][]string
	changes := func(a, b string) string {
		if a == "" {
			a = "none"
		}
		if b == "" {
			b = "none"
		}
		if a == b {
			return a
		}
		return a + " → " + b
	}
	for _, d := range r.Sample {
		var lines []string
		for _, l := range d.Lines {
			lines = append(lines, fmt.Sprintf("%s %+g → %+g", l.Rule, l.Now, l.Then))
		}
		rows = append(rows, []string{f.address(d.Email), changes(fmt.Sprint(d.Score.Now), fmt.Sprint(d.Score.Then)), changes(d.Band.Now, d.Band.Then), changes(d.Sequence.Now, d.Sequence.Then), strings.Join(lines, "; ")})
	}
	f.heading(fmt.Sprintf("Some of the leads that change (%d of %s)", len(r.Sample), number(r.Changed.Leads)))
	f.table([]string{"lead", "score", "band", "sequence", "lines that differ"}, rows)
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

func wait(seconds float64) string {
	return time.Duration(seconds * float64(time.Second)).Round(100 * time.Millisecond).String()
}

// some names who is mid-flight, as far as they are named.
func (f *format) some(m MidFlight) string {
	names := make([]string, len(m.Some))
	for i, e := range m.Some {
		names[i] = f.address(e)
	}
	text := strings.Join(names, ", ")
	if n := m.Enrollments - len(m.Some); n > 0 && len(m.Some) > 0 {
		text += fmt.Sprintf(" and %s more", number(n))
	}
	return text
}
