// Command page writes figures into docs/performance.md:
//
//	lodestone bench all --json > figures.json
//	internal/bench/peers/run -json > peers.json
//	lodestone bench large --json > large.json
//	go run ./internal/bench/page -figures figures.json -peers peers.json -large large.json
//
// Each flag replaces the tables between its marks; the prose around them stays as it is, and so do the
// tables of a flag that is not given.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone/internal/bench"
)

func main() {
	page := flag.String("page", "docs/performance.md", "the page to write into")
	figures := flag.String("figures", "", "what lodestone bench all --json printed")
	peers := flag.String("peers", "", "what internal/bench/peers/run -json printed")
	large := flag.String("large", "", "what lodestone bench large --json printed")
	flag.Parse()
	if err := run(*page, *figures, *peers, *large, time.Now()); err != nil {
		fmt.Fprintln(os.Stderr, "page:", err)
		os.Exit(1)
	}
}

func run(page, figures, peers, large string, now time.Time) error {
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	for _, part := range []struct {
		mark, path string
		write      func(io.Writer, []byte) error
	}{{"figures", figures, tables}, {"peers", peers, beside}, {"large", large, tables}} {
		if part.path == "" {
			continue
		}
		data, err := os.ReadFile(part.path)
		if err != nil {
			return err
		}
		var b bytes.Buffer
		fmt.Fprintf(&b, "Taken on %s.\n\n", now.UTC().Format(time.DateOnly))
		if err := part.write(&b, data); err != nil {
			return fmt.Errorf("%s: %w", part.path, err)
		}
		if text, err = replaced(text, part.mark, b.Bytes()); err != nil {
			return fmt.Errorf("%s: %w", page, err)
		}
	}
	return os.WriteFile(page, text, 0o644)
}

// replaced puts new between the marks of that name.
func replaced(text []byte, name string, new []byte) ([]byte, error) {
	begin, end := fmt.Appendf(nil, "<!-- %s: begin -->\n", name), fmt.Appendf(nil, "<!-- %s: end -->", name)
	before, rest, ok := bytes.Cut(text, begin)
	_, after, ok2 := bytes.Cut(rest, end)
	if !ok || !ok2 {
		return nil, fmt.Errorf("the marks %q and %q are not there", begin, end)
	}
	return slices.Concat(before, begin, new, end, after), nil
}

// tables writes the results of the benches.
func tables(w io.Writer, data []byte) error {
	var results []bench.Result
	for dec := json.NewDecoder(bytes.NewReader(data)); ; {
		var r bench.Result
		err := dec.Decode(&r)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		results = append(results, r)
	}
	if len(results) == 0 {
		return errors.New("no results")
	}
	s := results[0].Settings
	fmt.Fprintf(w, "On %s with %s cores, %s. Medians of the rounds, with the lowest and the highest.\n\n", s["machine"], s["cores"], s["go"])
	fmt.Fprintln(w, "| bench | Lodestone | ceiling | ratio | p50, p99 ms | CPU s per 1,000 | peak MB | bytes an item | aim |\n|---|---|---|---|---|---|---|---|---|")
	for _, r := range results {
		latency := ""
		if r.P99 != (bench.Figure{}) {
			latency = spread(r.P50) + ", " + spread(r.P99)
		}
		fmt.Fprintf(w, "| %s | %s %s | %s | %s | %s | %s | %s | %s | %s |\n", r.Name, spread(r.Ours), r.Unit, spread(r.Ceiling), ratio(&r), latency,
			optional("%.3f", r.CPU), optional("%.0f", r.Memory), optional("%.0f", r.Disk), aims(&r))
	}
	fmt.Fprintln(w, "\nWhat each measures, its ceiling rounds × items, and its settings:")
	fmt.Fprintln(w)
	for len(results) > 0 {
		n := 1
		for n < len(results) && results[n].Measures == results[0].Measures && results[n].Raw == results[0].Raw {
			n++
		}
		about(w, results[:n])
		results = results[n:]
	}
	return nil
}

// about says what results of one kind measure, and their settings: those that all have, then each one's own.
func about(w io.Writer, results []bench.Result) {
	common := maps.Clone(results[0].Settings)
	for _, k := range []string{"go", "cores", "machine"} { // they stand above
		delete(common, k)
	}
	var names []string
	for _, r := range results {
		names = append(names, "**"+r.Name+"**")
		maps.DeleteFunc(common, func(k, v string) bool { return r.Settings[k] != v })
	}
	fmt.Fprintf(w, "- %s: %s.", strings.Join(names, ", "), results[0].Measures)
	if raw := results[0].Raw; raw != "" {
		fmt.Fprintf(w, " Ceiling: %s.", raw)
	}
	list := func(settings map[string]string, but map[string]string) (text string) {
		for _, k := range slices.Sorted(maps.Keys(settings)) {
			if _, ok := but[k]; !ok && k != "go" && k != "cores" && k != "machine" {
				text += fmt.Sprintf("; %s: %s", k, settings[k])
			}
		}
		return text
	}
	for i, r := range results {
		name := r.Name + ": "
		if len(results) == 1 {
			name = ""
		}
		end := "."
		if i < len(results)-1 {
			end = ";"
		}
		fmt.Fprintf(w, " %s%d × %s%s%s", name, r.Rounds, number(float64(r.Items)), list(r.Settings, common), end)
	}
	if len(common) > 0 {
		fmt.Fprintf(w, " All rounds%s.", strings.Replace(list(common, nil), ";", " with", 1))
	}
	fmt.Fprintln(w)
}

func ratio(r *bench.Result) string {
	if r.Ratios != (bench.Figure{}) {
		return spread(r.Ratios)
	}
	return optional("%.2f", r.Ratio)
}

func aims(r *bench.Result) string {
	var list []string
	for _, a := range r.Aims {
		what := map[string]string{"ours": "", "ratio": "ratio ", "p50_ms": "p50 ", "p99_ms": "p99 ", "cpu_s_per_1000": "CPU ", "peak_memory_mb": "MB "}[a.Of]
		limit := fmt.Sprintf("≤ %g", a.AtMost)
		if a.AtMost == 0 {
			limit = fmt.Sprintf("≥ %.4g", a.AtLeast)
		}
		list = append(list, what+limit+": "+map[bool]string{true: "met", false: "**missed**"}[a.Met])
	}
	return strings.Join(list, "; ")
}

func spread(f bench.Figure) string {
	switch {
	case f == (bench.Figure{}):
		return ""
	case f.Low == f.High:
		return number(f.Median)
	}
	return fmt.Sprintf("%s (%s to %s)", number(f.Median), number(f.Low), number(f.High))
}

func number(v float64) string {
	switch {
	case v >= 1000:
		s := fmt.Sprintf("%.0f", v)
		for i := len(s) - 3; i > 0; i -= 3 {
			s = s[:i] + "," + s[i:]
		}
		return s
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 0.1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

func optional(format string, v float64) string {
	if v == 0 {
		return ""
	}
	return fmt.Sprintf(format, v)
}

// row is what internal/bench/peers prints of one system and job.
type row struct {
	Rate   bench.Figure `json:"rate"`
	P50    bench.Figure `json:"p50_ms"`
	P99    bench.Figure `json:"p99_ms"`
	CPU    bench.Figure `json:"cpu_s_per_1000"`
	Memory bench.Figure `json:"peak_memory_mb"`
}

// beside writes Lodestone and its peers side by side, and says where a peer wins.
func beside(w io.Writer, data []byte) error {
	var p struct {
		Systems                                   map[string]map[string]row
		Rounds, Items, Backlog, Dispatched, Timed int
	}
	if err := json.Unmarshal(data, &p); err != nil {
		return err
	}
	fmt.Fprintf(w, "%d rounds each: %s submissions for an intake, %s touchpoints for a dispatch, %s submissions for a look at the latency; the backlog is %s leads, each with a waiting touchpoint.\n\n",
		p.Rounds, number(float64(p.Items)), number(float64(p.Dispatched)), number(float64(p.Timed)), number(float64(p.Backlog)))
	systems := []string{"lodestone", "river", "asynq"}
	titles := map[string]string{"lodestone": "Lodestone", "river": "River + Postgres", "asynq": "Asynq + Redis"}
	fmt.Fprintln(w, "| | Lodestone | River + Postgres | Asynq + Redis |\n|---|---|---|---|")
	var wins []string
	line := func(title string, more bool, of func(map[string]row) bench.Figure) {
		fmt.Fprintf(w, "| %s |", title)
		best := "lodestone"
		for _, name := range systems {
			f := of(p.Systems[name])
			fmt.Fprintf(w, " %s |", spread(f))
			if v := of(p.Systems[best]).Median; f.Median > 0 && (more && f.Median > v || !more && f.Median < v) {
				best = name
			}
		}
		fmt.Fprintln(w)
		if best != "lodestone" {
			wins = append(wins, titles[best]+" at "+title)
		}
	}
	for _, name := range []string{"intake, empty", "intake, backlog", "dispatch"} {
		line(name+", /s", true, func(r map[string]row) bench.Figure { return r[name].Rate })
		line(name+", CPU s per 1,000", false, func(r map[string]row) bench.Figure { return r[name].CPU })
		line(name+", peak MB", false, func(r map[string]row) bench.Figure { return r[name].Memory })
	}
	line("latency p50, ms", false, func(r map[string]row) bench.Figure { return r["latency"].P50 })
	line("latency p99, ms", false, func(r map[string]row) bench.Figure { return r["latency"].P99 })
	if len(wins) == 0 {
		fmt.Fprintln(w, "\nNo peer wins a line.")
		return nil
	}
	fmt.Fprintf(w, "\nA peer wins: %s.\n", strings.Join(wins, "; "))
	return nil
}
