package main

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
	"github.com/lodestonehq/lodestone/sequencer"
)

// TestReleaseKilled kills the command again and again while it releases, then lets it finish: every submission
// was applied once, with the time that it came with.
func TestReleaseKilled(t *testing.T) {
	const n, kills = 20_000, 6
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	data, rulesDir := filepath.Join(dir, "data"), filepath.Join(dir, "rules")
	if err := os.Mkdir(rulesDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(rulesDir, "rules.yaml"), []byte(crashRules), 0o600); err != nil {
		t.Fatal(err)
	}
	open := func() *boltstore.Store {
		t.Helper()
		s, err := boltstore.Open(data, boltstore.Options{Wait: 30 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	at := time.Now().UTC().Add(-time.Hour).Truncate(time.Second)
	var b sequencer.Batch
	for i := range n {
		b.Attention = append(b.Attention, lodestone.Attention{
			ID: fmt.Sprintf("id %d", i), Kind: lodestone.AttentionSubmission, Reason: lodestone.ReasonUnknownForm, At: at.Add(time.Minute), Received: at,
			Seq: uint64(i + 1), Subject: "lodestone.forms.guide", Data: fmt.Appendf(nil, `{"email": "lead%d@example.com"}`, i),
		})
	}
	s := open()
	if _, err := s.Commit(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	left := func(s *boltstore.Store) int {
		t.Helper()
		_, total, err := s.Attention(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return total
	}
	was, between := left(s), 0
	for range kills {
		cmd := program(t, "release", "--all", "--data", data, "--rules", rulesDir)
		progress, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// It tells of each part; it is killed a moment after one of them, so in the middle of the next.
		lines := bufio.NewScanner(progress)
		for range 1 + rnd.IntN(2) {
			lines.Scan()
		}
		for range rnd.IntN(1000) {
			runtime.Gosched()
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed, or done before that
		now := left(open())
		if now > 0 && now < was {
			between++
		}
		was = now
	}
	if out, err := program(t, "release", "--all", "--data", data, "--rules", rulesDir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s = open()
	for i := range n {
		p, err := s.Person(t.Context(), lodestone.Email(fmt.Sprintf("lead%d@example.com", i)), 10)
		if err != nil {
			t.Fatal(err)
		}
		if p.Lead == nil || p.Lead.Submissions != 1 || !p.Lead.FirstSeen.Equal(at) || len(p.History) != 1 {
			t.Fatalf("lead%d is %+v with %d entries, want one submission of %v", i, p.Lead, len(p.History), at)
		}
	}
	if faults, err := s.Check(t.Context()); err != nil || len(faults) > 0 {
		t.Errorf("%v %v", faults, err)
	}
	if now := left(s); now != 0 {
		t.Errorf("%d are left, want none", now)
	}
	if between == 0 {
		t.Error("no kill came in the middle")
	}
	t.Logf("%d of %d kills left some released and some not", between, kills)
}
