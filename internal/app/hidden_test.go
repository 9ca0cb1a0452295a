package app

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/api"
)

// TestLinkWorksForThePersonAlone: the link in a message is nowhere but at the provider. Who may read, or has the
// files, cannot confirm or unsubscribe anybody.
func TestLinkWorksForThePersonAlone(t *testing.T) {
	r, w, _, _ := optIn(t)
	publish(t, *w, "lodestone.forms.letter", `{"fields":{"email":"ada@example.com"},"context":{"consent":{"marketing":true}}}`)
	r.sent("ask")
	link := linkIn.FindString(r.message())
	token := link[strings.LastIndexByte(link, '/')+1:]
	if token == "" {
		t.Fatalf("the message is %q, want a link in it", r.message())
	}

	c, ok := api.Dial(r.dir)
	if !ok {
		t.Fatal("the worker does not answer")
	}
	lead := "/api/v1/leads/ada@example.com"
	for _, look := range []struct {
		method, path string
		query        url.Values
		shows        string
	}{
		{http.MethodGet, lead, nil, `/confirm/<link>`},
		{http.MethodPost, lead + "/export", nil, `/confirm/<link>`},
		{http.MethodGet, lead + "/render", url.Values{"step": {"ask"}}, `/confirm/<link>`},
		{http.MethodGet, "/api/v1/dump", url.Values{"of": {"journal"}}, `/confirm/<link>`},
		{http.MethodGet, "/api/v1/dump", url.Values{"of": {"leads"}}, ""},
	} {
		var answer json.RawMessage
		if err := c.Call(t.Context(), look.method, look.path, look.query, nil, &answer); err != nil {
			t.Fatalf("%s: %v", look.path, err)
		}
		var plain any
		if err := json.Unmarshal(answer, &plain); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(plain); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(b.String(), token) || linkIn.MatchString(b.String()) {
			t.Errorf("%s shows a link that works: %s", look.path, b.String())
		}
		if !strings.Contains(b.String(), look.shows) {
			t.Errorf("%s shows %s, want %s in it", look.path, b.String(), look.shows)
		}
	}
	if err := filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte(token)) {
			t.Errorf("%s holds a link that works", path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}

	resp, err := http.Post(link, "application/x-www-form-urlencoded", nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("the person's own link: %v, %v", resp, err)
	}
	resp.Body.Close()
	r.sent("welcome")
}

// press presses the button behind a link and returns the status.
func press(t *testing.T, link string) int {
	t.Helper()
	resp, err := http.Post(link, "application/x-www-form-urlencoded", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// signals is how many signals the stream holds.
func signals(t *testing.T, w *Worker) uint64 {
	t.Helper()
	s, err := w.Broker().JetStream().Stream(t.Context(), "LODESTONE_SIGNALS")
	if err != nil {
		t.Fatal(err)
	}
	info, err := s.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return info.State.LastSeq
}

// TestLinkConfirmsWhatItAsked: an old link confirms nothing once the person unsubscribed, or was forgotten and entered
// again by somebody; and whoever presses it over and over does not fill the stream.
func TestLinkConfirmsWhatItAsked(t *testing.T) {
	r, w, _, _ := optIn(t)
	enter := `{"fields":{"email":"ada@example.com"},"context":{"consent":{"marketing":true}}}`
	publish(t, *w, "lodestone.forms.letter", enter)
	r.sent("ask")
	link := linkIn.FindString(r.message())
	if got := press(t, link); got != http.StatusOK {
		t.Fatalf("the link in the message: %d", got)
	}
	r.sent("welcome")
	before := signals(t, *w)
	for range 10 {
		if got := press(t, link); got != http.StatusOK {
			t.Fatalf("pressed again: %d", got)
		}
	}
	if got := signals(t, *w); got != before {
		t.Errorf("pressing the link of a confirmed address published %d signals, want none", got-before)
	}

	publish(t, *w, "lodestone.signals.withdrawn", `{"email":"ada@example.com"}`)
	r.until(func(e lodestone.Entry) bool {
		return e.Signal != nil && e.Signal.Kind == lodestone.SignalWithdrawn
	})
	before = signals(t, *w)
	if got := press(t, link); got != http.StatusGone || signals(t, *w) != before {
		t.Errorf("the link from before the withdrawal: %d and %d signals, want %d and none", got, signals(t, *w)-before, http.StatusGone)
	}

	c, ok := api.Dial(r.dir)
	if !ok {
		t.Fatal("the worker does not answer")
	}
	if err := c.Call(t.Context(), http.MethodPost, "/api/v1/leads/ada@example.com/forget", nil, map[string]any{}, nil); err != nil {
		t.Fatal(err)
	}
	publish(t, *w, "lodestone.forms.letter", enter)
	r.until(func(e lodestone.Entry) bool { return e.Decision != nil })
	if got := press(t, link); got != http.StatusGone {
		t.Errorf("the link from before the erasure: %d, want %d", got, http.StatusGone)
	}
}
