package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone/internal/bench"
)

const empty = "before\n<!-- figures: begin -->\nold\n<!-- figures: end -->\nbetween\n<!-- peers: begin -->\nold\n<!-- peers: end -->\nafter\n<!-- large: begin -->\nold\n<!-- large: end -->\n"

func put(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFiguresReplaceFigures(t *testing.T) {
	result, err := json.Marshal(bench.Result{
		Name: "intake", Measures: "submissions", Unit: "submissions/s", Ours: bench.Figure{Median: 12345, Low: 9000, High: 20000},
		Ceiling: bench.Figure{Median: 20000, Low: 20000, High: 20000}, Ratio: 0.62, Rounds: 5, Items: 100,
		Aims: []bench.Aim{{Of: "ratio", AtLeast: 0.8}}, Settings: map[string]string{"go": "go1.26", "cores": "2", "machine": "linux/amd64", "leads": "0"},
	})
	if err != nil {
		t.Fatal(err)
	}
	peers := `{"rounds": 1, "items": 2000, "backlog": 1000000, "systems": {
		"lodestone": {"dispatch": {"rate": {"median": 100, "low": 90, "high": 110}, "cpu_s_per_1000": {"median": 0.5}}},
		"river": {"dispatch": {"rate": {"median": 200, "low": 200, "high": 200}, "cpu_s_per_1000": {"median": 0.7}}}, "asynq": {}}}`
	page := put(t, "page.md", empty)
	if err := run(page, put(t, "figures", string(result)+"\n"), put(t, "peers", peers), put(t, "large", strings.ReplaceAll(string(result), `"intake"`, `"large: intake"`)), time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	got := string(b)
	for _, want := range []string{
		"before\n<!-- figures: begin -->\nTaken on 2026-03-01.\n", "| intake | 12,345 (9,000 to 20,000) submissions/s | 20,000 | 0.62 |", "ratio ≥ 0.8: **missed** |",
		"5 × 100. All rounds with leads: 0.", "<!-- figures: end -->\nbetween\n", "| dispatch, /s | 100 (90.0 to 110) | 200 |", "1,000,000 leads",
		"\nA peer wins: River + Postgres at dispatch, /s.\n<!-- peers: end -->\nafter\n<!-- large: begin -->\nTaken on", "| large: intake | 12,345 (9,000 to 20,000)", "\n<!-- large: end -->\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in the page:\n%s", want, got)
		}
	}
	if strings.Contains(got, "old") {
		t.Errorf("old figures are left:\n%s", got)
	}
}

func TestNothingIsReplacedInVain(t *testing.T) {
	figures := put(t, "figures", "")
	for name, page := range map[string]string{"without results": empty, "without marks": "nothing here\n"} {
		path := put(t, "page.md", page)
		if err := run(path, figures, "", "", time.Now()); err == nil {
			t.Errorf("%s: no error", name)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != page {
			t.Errorf("%s: the page was changed: %s %v", name, b, err)
		}
	}
}

func TestThePageHasItsMarks(t *testing.T) {
	text, err := os.ReadFile("../../../docs/performance.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, mark := range []string{"figures", "peers", "large"} {
		if _, err := replaced(text, mark, nil); err != nil {
			t.Error(err)
		}
	}
}
