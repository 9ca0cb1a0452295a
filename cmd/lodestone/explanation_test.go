package main

import (
	"strings"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/api"
)

// What waits for a confirmation is told as that, until they opt out: then nothing would come of one.
func TestNextThatWaits(t *testing.T) {
	at := time.Date(2026, 3, 6, 10, 0, 0, 0, time.UTC)
	x := api.Explanation{Next: &api.Next{Step: "welcome", At: at, AtLocal: "2026-03-06T10:00:00Z", Zone: "UTC", Reason: lodestone.ReasonAwaiting}}
	says := func() string {
		var b strings.Builder
		writeNext(&b, &x, at.Add(-time.Hour))
		return strings.TrimSpace(b.String())
	}
	if got, want := says(), "Next: welcome, as soon as the address is confirmed; without that the sequence ends at "+utc(at); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	x.Suppression = &lodestone.Suppression{Email: "ada@example.com", At: at}
	if got := says(); !strings.HasPrefix(got, "Next: the sequence ends before welcome, at "+utc(at)) || strings.Contains(got, "as soon as") {
		t.Errorf("%q, want that it ends", got)
	}
}
