package connectors_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/lodestonehq/lodestone/connectors"
	"github.com/lodestonehq/lodestone/connectors/referralrock"
)

func TestEveryRequestIsASpan(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.Method == http.MethodPost {
			w.WriteHeader(http.StatusBadRequest)
		}
		fmt.Fprint(w, "[]")
	}))
	defer server.Close()
	spans := tracetest.NewSpanRecorder()
	a, err := connectors.Open(referralrock.Kind(), connectors.Settings{BaseURL: server.URL, Secrets: map[string]connectors.Secret{"public_key": "public", "private_key": "private"}},
		connectors.WithTracer(trace.NewTracerProvider(trace.WithSpanProcessor(spans))))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Unsubscribed(t.Context(), "ada@example.com"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Do(t.Context(), connectors.Act{ID: "e.s", Operation: "invite", Email: "ada@example.com", Parameters: map[string]any{"firstName": "Ada"}}); err == nil {
		t.Fatal("a 400 was taken for done")
	}
	var got []string
	for _, s := range spans.Ended() {
		text := s.Name()
		for _, a := range s.Attributes() {
			text += fmt.Sprintf(" %s=%s", a.Key, a.Value.String())
		}
		if strings.Contains(text, "ada") || strings.Contains(text, "private") {
			t.Errorf("a span tells too much: %s", text)
		}
		got = append(got, s.Name()+" "+s.Status().Description)
	}
	if want := []string{"referralrock getEmailUnsubscribed ", "referralrock invite refused"}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("spans = %q, want %q", got, want)
	}
}
