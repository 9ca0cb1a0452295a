package gateway_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone/internal/gateway"
	"github.com/lodestonehq/lodestone/sequencer/event"
)

// TestRestartForgetsNobody: an address that is entered from everywhere is noticed across restarts, and what somebody
// publishes with evidence of their own making counts for nothing.
func TestRestartForgetsNobody(t *testing.T) {
	source := ""
	s := newFormSite(t)
	begin := func() {
		s.serve(func(o *gateway.FormOptions) {
			o.ClientIP = func(*http.Request) string { return source }
			o.Recent = func(span time.Duration, each func(event.Message)) {
				if err := gateway.Recent(t.Context(), s.broker.JetStream(), span, each); err != nil {
					t.Error(err)
				}
			}
		})
	}
	if _, err := s.broker.JetStream().Publish(t.Context(), "lodestone.forms.shop", []byte(`{"mail":"a@b.example"}`)); err != nil {
		t.Fatal(err)
	}
	for i, from := range strings.Split("1 2 3 4 5 6 7 8 9 10", " ") {
		if i%3 == 0 {
			begin()
		}
		source = "198.51.100." + from
		s.accepted(s.post("/forms/shop", url.Values{"mail": {"a@b.example"}, "n": {from}}.Encode(), "Content-Type", urlForm))
		if ev := s.last().Context.Evidence; ev == nil || ev.AddressSources != i+1 || ev.AddressSubmissions != i+1 || ev.SourceSubmissions != 1 || ev.Bombed() != (i == 9) {
			t.Errorf("after %d: %+v", i+1, ev)
		}
	}
}
