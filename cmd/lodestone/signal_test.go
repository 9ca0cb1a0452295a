package main

import (
	"bufio"
	"context"
	"net/http/httptest"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone/connectors/sandbox"
)

// The system sends SIGPIPE also to who writes to a connection that broke. It ended the worker, in silence.
func TestABrokenConnectionDoesNotStopTheWorker(t *testing.T) {
	const n = 4
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	provider := httptest.NewServer(sandbox.New(sandbox.Options{}).Handler())
	defer provider.Close()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "rules.yaml"), []byte(crashRules), 0o600); err != nil {
		t.Fatal(err)
	}
	w := &killable{t: t, data: filepath.Join(dir, "data"), rules: dir, provider: provider.URL + "/referralrock", nats: freeAddress(t)}
	w.start()
	w.ready(ctx)
	if err := w.process.Signal(syscall.SIGPIPE); err != nil {
		t.Fatal(err)
	}
	gate := make(chan struct{}, n)
	for range n {
		gate <- struct{}{}
	}
	if err := publishAll(ctx, w.nats, n, gate); err != nil {
		t.Fatalf("%v\n%s", err, w.log.String())
	}
	w.settled(ctx, n)
	w.kill()
}

// An output that nobody reads any more ends a command that would go on writing.
func TestAClosedPipeEndsTheDemo(t *testing.T) {
	cmd := program(t, "demo", "--for", "10m")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the test's own time limit ends a wait in vain
}
