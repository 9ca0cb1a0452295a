package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors"
)

// A rehearsal of every verb of every connector makes a request, shows no secret, and reaches nobody.
func TestRehearsalSendsNothing(t *testing.T) {
	var reached atomic.Int64
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			reached.Add(1)
		}
	}
	srv.Start()
	defer srv.Close()
	verbs := 0
	for _, kind := range kinds {
		for _, op := range kind.Operations {
			if op.Name != lodestone.VerbInvite && op.Name != lodestone.VerbRefer {
				continue
			}
			verbs++
			st := connectors.Settings{Name: kind.Name, BaseURL: srv.URL, Extra: map[string]string{}, Suppression: connectors.SuppressionLocalOnly}
			for _, key := range kind.Keys {
				if slices.Contains([]string{"app_id", "form", "tenant", "campaign_id"}, key) {
					st.Extra[key] = "77"
				}
			}
			act := connectors.Act{ID: "abc.invite", Operation: op.Name, Email: "ada@example.com", Parameters: map[string]any{}, IntendedAt: time.Now()}
			for _, p := range op.Parameters {
				if p.Required && p.Name != "email" {
					act.Parameters[p.Name] = "77"
					if p.Type == lodestone.FieldEmail {
						act.Parameters[p.Name] = "partner@example.com"
					}
				}
			}
			r, err := connectors.Rehearse(t.Context(), kind, st, act)
			if err != nil {
				t.Errorf("%s.%s: %v", kind.Name, op.Name, err)
				continue
			}
			if !strings.HasPrefix(r.URL, srv.URL) || r.Method == "" {
				t.Errorf("%s.%s: %s %s", kind.Name, op.Name, r.Method, r.URL)
			}
			all := r.URL + r.Body
			hidden := false
			for _, v := range r.Header {
				all += strings.Join(v, "")
				hidden = hidden || strings.Contains(strings.Join(v, ""), "<secret>")
			}
			if strings.Contains(all, "rehearsal") || !hidden && !strings.Contains(r.URL, "<secret>") {
				t.Errorf("%s.%s: the secret is not hidden: %+v", kind.Name, op.Name, r)
			}
		}
	}
	if verbs < 6 {
		t.Errorf("%d verbs were looked at", verbs)
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("%d connections were made", n)
	}
}
