package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/api"
)

const gatewayRules = `
forms:
  guide:
    title: Guide
    asset: https://files.example.com/guide.pdf
    fields:
      email: {type: email, required: true}
scoring:
  bands: {any: 0}
`

// front is a worker process with its gateway.
type front struct {
	t           *testing.T
	data, rules string
	address     string
	process     *os.Process
	exited      chan struct{}
	log         lockedBuffer
}

func newFront(t *testing.T, rules string) *front {
	t.Helper()
	dir := t.TempDir()
	f := &front{t: t, data: filepath.Join(dir, "data"), rules: filepath.Join(dir, "rules"), address: freeAddress(t)}
	if err := os.MkdirAll(f.rules, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(f.rules, "rules.yaml"), []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *front) start() {
	f.t.Helper()
	cmd := program(f.t, "run", "--data", f.data, "--rules", f.rules, "--nats-listen", "none", "--http-listen", f.address, "--log-level", "error")
	cmd.Stderr = &f.log
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.process, f.exited = cmd.Process, make(chan struct{})
	go func(done chan struct{}) { _ = cmd.Wait(); close(done) }(f.exited)
	f.t.Cleanup(func() { _ = cmd.Process.Kill() })
}

func (f *front) kill() {
	f.t.Helper()
	if err := f.process.Kill(); err != nil {
		f.t.Fatalf("the worker ended by itself:\n%s", f.log.String())
	}
	<-f.exited
}

// post posts a form until the worker, which may be starting, answers.
func (f *front) post(ctx context.Context, form, key, body string) (status int, answer string) {
	f.t.Helper()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+f.address+"/forms/"+form, strings.NewReader(body))
		if err != nil {
			f.t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Idempotency-Key", key)
		req.Close = true
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			select {
			case <-ctx.Done():
				f.t.Fatalf("the worker never answered: %v\n%s", err, f.log.String())
			case <-f.exited:
				f.t.Fatalf("the worker ended by itself:\n%s", f.log.String())
			case <-time.After(5 * time.Millisecond): // another process: there is nothing to be woken by
			}
			continue
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			f.t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
}

// TestKilledAfterEachAnswer kills the worker straight after each 202, a hundred times. Every
// submission that was acknowledged is there at the end, once, and every key is remembered: after the
// restart it gives the same answer to the same body and refuses another one.
func TestKilledAfterEachAnswer(t *testing.T) {
	const kills = 100
	f := newFront(t, gatewayRules)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	body := func(i int) string { return fmt.Sprintf(`{"email":%q}`, leadAddress(i)) }
	answers := make([]string, kills)
	f.start()
	for i := range kills {
		if i > 0 {
			key := fmt.Sprint("key-", i-1)
			if status, answer := f.post(ctx, "guide", key, body(i-1)); status != http.StatusAccepted || answer != answers[i-1] {
				t.Fatalf("after kill %d the same request was answered with %d %s, want %s", i, status, answer, answers[i-1])
			}
			if status, answer := f.post(ctx, "guide", key, body(i)); status != http.StatusUnprocessableEntity {
				t.Fatalf("after kill %d the same key with another body was answered with %d %s, want 422", i, status, answer)
			}
		}
		status, answer := f.post(ctx, "guide", fmt.Sprint("key-", i), body(i))
		f.kill()
		if status != http.StatusAccepted {
			t.Fatalf("submission %d was answered with %d %s", i, status, answer)
		}
		answers[i] = answer
		f.start()
	}
	f.post(ctx, "guide", "last", body(kills)) // it is up
	client, ok := api.Dial(f.data)
	if !ok {
		t.Fatal("the worker does not answer")
	}
	for i := range kills {
		var x api.Explanation
		for { // intake may still be reading
			var err error
			if x, err = client.Lead(ctx, leadAddress(i), 100); err == nil {
				break
			}
			select {
			case <-ctx.Done():
				t.Fatalf("submission %d was acknowledged with %s and is not there: %v\n%s", i, answers[i], err, f.log.String())
			case <-time.After(5 * time.Millisecond):
			}
		}
		var first struct{ ID string }
		if err := json.Unmarshal([]byte(answers[i]), &first); err != nil {
			t.Fatal(err)
		}
		decided := 0
		for _, e := range x.History {
			if d := e.Decision; d != nil && d.Submission == first.ID && d.Reason != lodestone.ReasonDuplicate {
				decided++
			}
		}
		if decided != 1 {
			t.Errorf("%s of %s was decided %d times, want once: %+v", first.ID, leadAddress(i), decided, x.History)
		}
	}
	f.kill()
}
