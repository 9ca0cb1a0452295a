package boltstore

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
)

// TestLinksOfEarlierVersionsAreHidden: what a version stored that kept the links of messages is shown without them.
func TestLinksOfEarlierVersionsAreHidden(t *testing.T) {
	s := open(t, t.TempDir())
	token := strings.Repeat("aZ0_-9", 10)
	if err := s.Record(t.Context(), &lodestone.Entry{At: time.Now(), Operator: &lodestone.OperatorEntry{Command: "retry"}, Touchpoints: []lodestone.TouchpointEntry{{
		ID: "e.ask", State: lodestone.TouchpointIntended, Detail: "no such page: https://f.example/unsubscribe/" + token,
		Arguments: map[string]any{"text": "Please: https://f.example/confirm/" + token},
	}}}); err != nil {
		t.Fatal(err)
	}
	entries, err := s.Journal(t.Context(), 0, 10)
	if err != nil || len(entries) != 1 {
		t.Fatal(entries, err)
	}
	records, err := s.Dump(t.Context(), "journal", "", 10)
	if err != nil {
		t.Fatal(err)
	}
	for name, shown := range map[string]any{"the journal": entries, "a dump": records} {
		data, err := json.Marshal(shown)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(data), token) || strings.Count(string(data), `\u003clink\u003e`)+strings.Count(string(data), "<link>") != 2 {
			t.Errorf("%s shows %s, want both links hidden", name, data)
		}
	}
}
