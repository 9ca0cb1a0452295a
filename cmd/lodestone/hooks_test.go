package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/lodestonehq/lodestone/connectors/saasquatch"
)

// hookProvider stands in for a provider's webhook API.
type hookProvider struct {
	*httptest.Server
	mu      sync.Mutex
	made    []map[string]any // bodies of the subscriptions that were made
	history []map[string]any // what the history of deliveries shows, or the list of subscriptions
	status  int              // of the next subscriptions; 0: as it should be
}

func newHookProvider(t *testing.T) *hookProvider {
	t.Helper()
	p := &hookProvider{history: []map[string]any{}}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		if r.Method == http.MethodGet {
			_ = json.NewEncoder(w).Encode(p.history)
			return
		}
		if p.status != 0 {
			w.WriteHeader(p.status)
			_, _ = io.WriteString(w, `{"Message":"not today"}`)
			return
		}
		var body map[string]any
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Errorf("a body that is not JSON: %v", err)
		}
		p.made = append(p.made, body)
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"web_hook_id":"d2a1b0c9-9876-4543-a210-%012d"}`, len(p.made))
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *hookProvider) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

func (p *hookProvider) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.made)
}

// hooksCommand runs `hooks` on a data directory and returns its exit code and what it printed.
func hooksCommand(t *testing.T, data string, words ...string) (code int, list []hookSubscription, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	line := append([]string{"hooks"}, words...)
	code = run(t.Context(), append(line, "--json", "--data", data), strings.NewReader(""), &stdout, &stderr)
	if json.Unmarshal(stdout.Bytes(), &list) != nil {
		list = nil
	}
	return code, list, stdout.String(), stderr.String()
}

func rockAt(t *testing.T, p *hookProvider) {
	t.Helper()
	t.Chdir(t.TempDir())
	for k, v := range map[string]string{"BASE_URL": p.URL, "PUBLIC_KEY": "the-public-key", "PRIVATE_KEY": "the-private-key", "RATE": "1000/s"} {
		t.Setenv("LODESTONE_CONNECTORS_REFERRALROCK_"+k, v)
	}
}

func states(list []hookSubscription) (out []string) {
	for _, s := range list {
		out = append(out, s.State)
	}
	return slices.Compact(out)
}

const hookURL = "https://hooks.example.com/lodestone"

// Referral Rock cannot list subscriptions; what was made from here is remembered, and made once.
func TestHooksInstallOnce(t *testing.T) {
	p := newHookProvider(t)
	rockAt(t, p)
	data := t.TempDir()
	install := []string{"install", "referralrock", "--url", hookURL}

	code, _, out, errs := hooksCommand(t, data, append(install, "--dry-run")...)
	if code != exitDone || p.count() != 0 || strings.Count(out, hookURL) != 4 || strings.Contains(out, "the-p") {
		t.Errorf("--dry-run: exit code %d, %d made\n%s%s", code, p.count(), out, errs)
	}

	for round := range 3 {
		code, list, _, errs := hooksCommand(t, data, install...)
		want := map[bool]string{true: "installed", false: "present"}[round == 0]
		if code != exitDone || len(list) != 4 || !slices.Equal(states(list), []string{want}) || p.count() != 4 {
			t.Errorf("round %d: exit code %d, %+v, %d made, want 4 %s\n%s", round, code, list, p.count(), want, errs)
		}
		if round == 0 && (list[0].URL != hookURL+"/hooks/referralrock/EmailUnsubscribed" || list[0].ID == "" || !strings.Contains(errs, "connectors.referralrock.webhook_key")) {
			t.Errorf("first = %+v\n%s", list[0], errs)
		}
	}
	if p.made[0]["target_url"] != hookURL+"/hooks/referralrock/EmailUnsubscribed" || p.made[0]["event"] != "EmailUnsubscribed" {
		t.Errorf("asked for %v", p.made[0])
	}
	code, list, _, errs := hooksCommand(t, data, "ls")
	if code != exitDone || len(list) != 4 || list[3].State != "present" || list[3].ID == "" {
		t.Errorf("ls: exit code %d, %+v\n%s", code, list, errs)
	}
	// Another address is another subscription, and --again is taken at its word.
	if code, _, _, _ := hooksCommand(t, data, "install", "referralrock", "--url", "https://other.example.com"); code != exitDone || p.count() != 8 {
		t.Errorf("another address: exit code %d, %d made, want 8", code, p.count())
	}
	if code, _, _, _ := hooksCommand(t, data, append(install, "--again")...); code != exitDone || p.count() != 12 {
		t.Errorf("--again: exit code %d, %d made, want 12", code, p.count())
	}
}

// A subscription whose making has an unknown outcome is not made again unless somebody says so; one
// that provably was not made is.
func TestHooksInstallUnknown(t *testing.T) {
	p := newHookProvider(t)
	rockAt(t, p)
	data := t.TempDir()
	install := []string{"install", "referralrock", "--url", hookURL}
	p.set(func() { p.status = http.StatusBadRequest })
	code, list, _, errs := hooksCommand(t, data, install...)
	if code != exitFailed || !slices.Equal(states(list), []string{"failed"}) || !strings.Contains(list[0].Detail, "not today") {
		t.Errorf("refused: exit code %d, %+v\n%s", code, list, errs)
	}
	p.set(func() { p.status = http.StatusInternalServerError })
	if code, list, _, errs := hooksCommand(t, data, install...); code != exitFailed || !slices.Equal(states(list), []string{"unknown"}) {
		t.Errorf("unknown: exit code %d, %+v\n%s", code, list, errs)
	}
	p.set(func() { p.status = 0 })
	if code, list, _, errs := hooksCommand(t, data, install...); code != exitFailed || !slices.Equal(states(list), []string{"unknown"}) || !strings.Contains(list[0].Detail, "--again") || p.count() != 0 {
		t.Errorf("repeated: exit code %d, %+v, %d made\n%s", code, list, p.count(), errs)
	}
	// A delivery in the provider's history settles it.
	seen := hookURL + "/hooks/referralrock/MemberAdd"
	p.set(func() { p.history = []map[string]any{{"targetUrl": seen, "event": "MemberAdd", "webHookId": "d2a1"}} })
	_, list, _, _ = hooksCommand(t, data, install...)
	if i := slices.IndexFunc(list, func(s hookSubscription) bool { return s.URL == seen }); i < 0 || list[i].State != "present" || list[i].ID != "d2a1" {
		t.Errorf("with a delivery in the history: %+v", list)
	}
	p.set(func() { p.history = []map[string]any{} })
	_, list, _, _ = hooksCommand(t, data, "ls")
	if i := slices.IndexFunc(list, func(s hookSubscription) bool { return s.URL == seen }); i < 0 || list[i].State != "present" {
		t.Errorf("afterwards: %+v", list)
	}
	if code, list, _, errs := hooksCommand(t, data, append(install, "--again")...); code != exitDone || p.count() != 4 {
		t.Errorf("--again: exit code %d, %+v\n%s", code, list, errs)
	}
}

// SaaSquatch lists its subscriptions, so that the provider is asked and nothing is remembered.
func TestHooksInstallListed(t *testing.T) {
	was := kinds
	t.Cleanup(func() { kinds = was })
	if _, ok := kindOf("saasquatch"); !ok {
		kinds = append(slices.Clone(kinds), saasquatch.Kind())
	}
	p := newHookProvider(t)
	t.Chdir(t.TempDir())
	for k, v := range map[string]string{"BASE_URL": p.URL, "API_KEY": "the-api-key", "TENANT": "test_abc123", "SUPPRESSION": "local-only", "RATE": "1000/s"} {
		t.Setenv("LODESTONE_CONNECTORS_SAASQUATCH_"+k, v)
	}
	data := t.TempDir()
	install := []string{"install", "saasquatch", "--url", hookURL}
	code, list, _, errs := hooksCommand(t, data, install...)
	if code != exitDone || len(list) != 1 || list[0].State != "installed" || list[0].URL != hookURL+"/hooks/saasquatch" || p.count() != 1 {
		t.Fatalf("exit code %d, %+v, %d made\n%s", code, list, p.count(), errs)
	}
	p.set(func() {
		p.history = []map[string]any{p.made[0], {"endpointUrl": "https://else.example.com", "webhookTypes": []string{"*"}}}
	})
	if code, list, _, errs := hooksCommand(t, data, install...); code != exitDone || list[0].State != "present" || p.count() != 1 {
		t.Errorf("again: exit code %d, %+v, %d made\n%s", code, list, p.count(), errs)
	}
	if code, list, _, errs := hooksCommand(t, data, "ls", "saasquatch"); code != exitDone || len(list) != 2 {
		t.Errorf("ls: exit code %d, %+v\n%s", code, list, errs)
	}
	p.set(func() {
		p.history[0] = map[string]any{"endpointUrl": hookURL + "/hooks/saasquatch", "webhookTypes": []string{"user.created"}}
	})
	if code, list, _, _ := hooksCommand(t, data, install...); code != exitFailed || !strings.Contains(list[0].Detail, "referral.converted") || p.count() != 1 {
		t.Errorf("a subscription to other events: exit code %d, %+v", code, list)
	}
	if _, err := os.Stat(filepath.Join(data, "hooks.json")); err == nil {
		t.Error("something was remembered that the provider lists itself")
	}
}

func TestHooksUsage(t *testing.T) {
	p := newHookProvider(t)
	rockAt(t, p)
	for _, words := range [][]string{
		{"install"},
		{"install", "referralrock"},
		{"install", "nobody", "--url", hookURL},
		{"install", "referralrock", "--url", "hooks.example.com"},
		{"install", "referralrock", "--url", "http://hooks.example.com"},
		{"install", "referralrock", "--url", hookURL + "?a=b"},
		{"install", "referralrock", "--url", "https://user:word@hooks.example.com"},
		{"ls", "nobody"},
	} {
		if code, _, out, errs := hooksCommand(t, t.TempDir(), words...); code != exitUsage || out != "" || errs == "" || strings.Contains(errs, "word@") {
			t.Errorf("%s: exit code %d, stdout %q, stderr %q", words, code, out, errs)
		}
	}
	if p.count() != 0 {
		t.Errorf("%d were made", p.count())
	}
}
