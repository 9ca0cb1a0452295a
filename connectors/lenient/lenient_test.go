package lenient

import (
	"encoding/json"
	"testing"
)

// A text is what encoding/json reads.
func FuzzText(f *testing.F) {
	for _, raw := range []string{`"a b"`, `""`, `"a\\n\\u00e4"`, `"ä"`, `" \\" "`, "null", "7", "{}", "\"\xff\""} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		var got struct {
			Text Text
			ID   ID
		}
		body := []byte(`{"Text":` + raw + `,"ID":` + raw + `}`)
		var want struct{ Text, ID any }
		if json.Unmarshal(body, &want) != nil {
			return
		}
		err := json.Unmarshal(body, &got)
		if s, ok := want.Text.(string); ok && string(got.Text) != s {
			t.Errorf("the text %s is %q, want %q", raw, got.Text, s)
		}
		if s, ok := want.ID.(string); ok && (err != nil || string(got.ID) != s) {
			t.Errorf("the id %s is %q, want %q: %v", raw, got.ID, s, err)
		}
	})
}
