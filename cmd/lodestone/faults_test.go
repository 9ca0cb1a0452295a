//go:build failpoints

package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors/sandbox"
	"github.com/lodestonehq/lodestone/internal/api"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
	fp "github.com/lodestonehq/lodestone/sequencer/failpoint"
)

// matrixPhases say which points are crashed at while what goes on.
var matrixPhases = []struct {
	name   string
	points []string
}{
	{"intake", []string{fp.IntakeDecided, fp.IntakeCommitted, fp.CommitBegun, fp.CommitWritten, fp.CommitDone, fp.BeforePublish, fp.AfterPublish}},
	{"dispatch", []string{fp.BeforeIntent, fp.AfterIntent, fp.AfterCall, fp.AfterOutcome, fp.CommitBegun, fp.CommitWritten, fp.CommitDone, fp.BeforePublish, fp.AfterPublish}},
	{"reconciliation", []string{fp.BeforeLookup, fp.AfterLookup, fp.AfterSettled, fp.CommitBegun, fp.CommitWritten, fp.CommitDone}},
	{"compaction", []string{fp.CompactCopied, fp.CompactRenamed, fp.CompactDone, fp.CommitBegun, fp.CommitWritten, fp.CommitDone, fp.IntakeDecided}},
	{"reload", []string{fp.RulesCompiled, fp.RulesKept, fp.RulesInForce}},
	{"shutdown", []string{fp.AfterCall, fp.AfterOutcome, fp.CommitWritten, fp.CommitDone, fp.CursorKept, fp.StopActed, fp.StopClosed}},
}

// matrixCell is what came of one crash.
type matrixCell struct {
	phase, point              string
	died                      bool
	sent, held, lost, doubled int
	faults                    []string
	submissions               int
}

// TestFaultMatrix crashes the real worker at every point in every phase in which it is come to, starts
// it again, and lets the provider and the publisher judge: what was acknowledged had its effect once, or
// stands under attention by name. UPDATE_FAULT_MATRIX writes docs/fault-matrix.md.
func TestFaultMatrix(t *testing.T) {
	var mu sync.Mutex
	var cells []matrixCell
	slots := make(chan struct{}, 3)
	t.Run("cells", func(t *testing.T) {
		for _, phase := range matrixPhases {
			for _, point := range phase.points {
				t.Run(phase.name+"/"+point, func(t *testing.T) {
					t.Parallel()
					slots <- struct{}{}
					defer func() { <-slots }()
					c := crashAt(t, phase.name, point)
					mu.Lock()
					cells = append(cells, c)
					mu.Unlock()
					if !c.died {
						t.Errorf("the point was not come to, so nothing was shown")
					}
					if c.lost+c.doubled+len(c.faults) > 0 {
						t.Errorf("%+v", c)
					}
				})
			}
		}
	})
	table := matrixTable(cells)
	t.Log("\n" + table)
	if os.Getenv("UPDATE_FAULT_MATRIX") != "" {
		if err := os.WriteFile(filepath.Join("..", "..", "docs", "fault-matrix.md"), []byte(table), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func matrixTable(cells []matrixCell) string {
	order := map[string]int{}
	for i, p := range matrixPhases {
		order[p.name] = i
	}
	slices.SortFunc(cells, func(a, b matrixCell) int {
		if a.phase != b.phase {
			return order[a.phase] - order[b.phase]
		}
		return slices.Index(fp.Points, a.point) - slices.Index(fp.Points, b.point)
	})
	var b strings.Builder
	b.WriteString(`<!-- made by: UPDATE_FAULT_MATRIX=1 go test -tags failpoints ./cmd/lodestone -run FaultMatrix -->
# Fault matrix

The worker runs as a process and kills itself (SIGKILL) when it comes to a point, in each phase in which that happens. It is
started again, and when nothing is pending any more the publisher's list of acknowledged submissions is held against the
provider's own count of effects. *held*: an invitation whose call was cut, which the provider cannot be asked about, waits for a
human. ` + "`sequencer/failpoint`" + ` says what each point is.

| phase | point | killed there | submissions | sent | held | lost | doubled |
|---|---|---|---|---|---|---|---|
`)
	var sum matrixCell
	for _, c := range cells {
		died := "yes"
		if !c.died {
			died = "NO"
		}
		fmt.Fprintf(&b, "| %s | `%s` | %s | %d | %d | %d | %d | %d |\n", c.phase, c.point, died, c.submissions, c.sent, c.held, c.lost, c.doubled)
		sum.submissions, sum.sent, sum.held, sum.lost, sum.doubled = sum.submissions+c.submissions, sum.sent+c.sent, sum.held+c.held, sum.lost+c.lost, sum.doubled+c.doubled
	}
	fmt.Fprintf(&b, "| **all** | %d crashes | | %d | %d | %d | %d | %d |\n", len(cells), sum.submissions, sum.sent, sum.held, sum.lost, sum.doubled)
	return b.String()
}

// crashAt runs one phase, crashes at one point, and counts.
func crashAt(t *testing.T, phase, point string) (c matrixCell) {
	const n = 8
	c = matrixCell{phase: phase, point: point, submissions: n}
	box := sandbox.New(sandbox.Options{})
	provider := httptest.NewServer(box.Handler())
	defer provider.Close()
	dir := t.TempDir()
	rulesDir := filepath.Join(dir, "rules")
	rules := strings.ReplaceAll(crashRules, "do: referralrock", "after: 1s, do: referralrock")
	if err := os.MkdirAll(rulesDir, 0o700); err != nil {
		t.Fatal(err)
	}
	write := func() {
		if err := os.WriteFile(filepath.Join(rulesDir, "rules.yaml"), []byte(rules), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write()
	armed := filepath.Join(dir, "armed")
	arm := func() {
		if err := os.WriteFile(armed, nil, 0o600); err != nil {
			t.Error(err)
		}
	}
	w := &killable{t: t, data: filepath.Join(dir, "data"), rules: rulesDir, provider: provider.URL + "/referralrock", nats: freeAddress(t),
		env: []string{"LODESTONE_FAILPOINT=" + point, "LODESTONE_FAILPOINT_ARMED=" + armed}}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	w.start()
	w.ready(ctx)
	gate := make(chan struct{}, n)
	published := make(chan error, 1)
	go func() { published <- publishAll(ctx, w.nats, n, gate) }()
	some := func(n int) {
		for range n {
			gate <- struct{}{}
		}
	}
	release := func() { some(n) }
	fault := func(f sandbox.Fault) {
		if err := box.Fault(f); err != nil {
			t.Fatal(err)
		}
	}
	switch phase {
	case "intake":
		arm()
		release()
	case "dispatch":
		release()
		w.until(ctx, func(q api.Queue) bool { return pending(q) == n })
		arm()
	case "reconciliation":
		fault(sandbox.Fault{Kind: sandbox.FaultResetAfterEffect, Operation: "refer", Times: n})
		release()
		w.until(ctx, func(q api.Queue) bool { return q.Counts[lodestone.TouchpointUnknown] > 0 })
		arm()
	case "compaction":
		arm()
		release()
		client, ok := api.Dial(w.data)
		if ok {
			// It dies on the way, or is dead by now; then there is nothing to be had from it.
			_ = client.Call(ctx, http.MethodPost, "/api/v1/compact", nil, api.Compact{AtMost: time.Minute}, nil)
		}
	case "reload":
		some(n / 2) // these are decided with the rules before
		w.until(ctx, func(q api.Queue) bool { return pending(q) == n/2 })
		arm()
		rules = strings.Replace(rules, "firstName: there", "firstName: friend", 1)
		write()
		some(n - n/2)
	case "shutdown":
		fault(sandbox.Fault{Kind: sandbox.FaultSlow, Delay: 700 * time.Millisecond})
		release()
		w.until(ctx, func(q api.Queue) bool { return q.Counts[lodestone.TouchpointIntended] > 0 })
		arm()
		if err := w.process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-w.exited:
	case <-time.After(20 * time.Second): // the point is not come to in this phase
		w.kill()
	}
	c.died = w.killed()
	if err := os.Remove(armed); err != nil {
		t.Fatal(err)
	}
	w.start()
	if err := <-published; err != nil {
		t.Fatalf("publishing: %v\n%s", err, w.log.String())
	}
	states := w.settled(ctx, n)
	w.kill()
	c.sent, c.held, c.lost, c.doubled = counted(box, states, n)
	store, err := boltstore.Open(w.data, boltstore.Options{Wait: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if c.faults, err = store.Check(ctx); err != nil {
		t.Fatal(err)
	}
	version, err := store.CurrentRules(ctx)
	if err != nil {
		t.Fatal(err)
	}
	files, err := store.Rules(ctx, version)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 1 || string(files[0].Data) != rules {
		c.faults = append(c.faults, fmt.Sprintf("the rules in force are %s, which are not those in the directory", version))
	}
	return c
}

func pending(q api.Queue) (n uint64) {
	for s, c := range q.Counts {
		if s.Pending() {
			n += c
		}
	}
	return n
}

// until asks the worker for its queue until it is as wanted.
func (k *killable) until(ctx context.Context, want func(api.Queue) bool) {
	k.t.Helper()
	client, ok := api.Dial(k.data)
	if !ok {
		k.t.Fatal("the worker does not answer\n" + k.log.String())
	}
	for ctx.Err() == nil {
		var q api.Queue
		if err := client.Call(ctx, http.MethodGet, "/api/v1/queue", nil, nil, &q); err != nil {
			k.t.Fatalf("%v\n%s", err, k.log.String())
		}
		if want(q) {
			return
		}
		time.Sleep(2 * time.Millisecond) // another process: there is nothing to be woken by
	}
	k.t.Fatal("it never came to that\n" + k.log.String())
}

// killed reports whether the process that ended last was killed, rather than came to its end.
func (k *killable) killed() bool {
	status, ok := k.state.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL && k.kills == 0
}
