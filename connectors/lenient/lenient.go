// Package lenient reads providers' answers strictly where it matters and leniently where it does not: an
// odd value in a field that nobody looks at must not turn what was done into an unknown outcome, and an
// answer that is something else altogether must not pass for one that was understood.
package lenient

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// Object reads one JSON object. null, an array and anything behind the object are errors, which say
// nothing of what they met.
func Object(body []byte, into any) error {
	if b := bytes.TrimLeft(body, " \t\r\n"); len(b) == 0 || b[0] != '{' {
		return errors.New("it is not a JSON object")
	}
	if err := json.Unmarshal(body, into); err != nil {
		return errors.New("it is not the JSON that was expected")
	}
	return nil
}

// Into moves a body into the generated type of a request, which refuses what the type lacks. The error
// names no value.
func Into[T any](body map[string]any) (T, error) {
	var typed T
	raw, err := json.Marshal(body)
	if err != nil {
		return typed, err
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	var wrong *json.UnmarshalTypeError
	if err := d.Decode(&typed); errors.As(err, &wrong) {
		return typed, fmt.Errorf("%s must be %s", wrong.Field, wrong.Type)
	} else if err != nil {
		return typed, err
	}
	return typed, nil
}

// Text is a text; anything else in its place counts as no text, because words decide nothing.
type Text string

// UnmarshalJSON implements json.Unmarshaler.
func (w *Text) UnmarshalJSON(raw []byte) error {
	if s, ok := plain(raw); ok {
		*w = Text(s)
		return nil
	}
	var s *string
	if json.Unmarshal(raw, &s) == nil && s != nil {
		*w = Text(*s)
	}
	return nil
}

// ID is an id, which may be a text or a number.
type ID string

// UnmarshalJSON implements json.Unmarshaler.
func (id *ID) UnmarshalJSON(raw []byte) error {
	if s, ok := plain(raw); ok {
		*id = ID(s)
		return nil
	}
	var s *string
	if json.Unmarshal(raw, &s) == nil {
		if s != nil {
			*id = ID(*s)
		}
		return nil
	}
	var n json.Number
	if err := json.Unmarshal(raw, &n); err != nil {
		return errors.New("an id is neither text nor number")
	}
	*id = ID(n)
	return nil
}

// plain is a JSON text of ASCII without escapes, which stands for itself. raw is valid JSON.
func plain(raw []byte) (string, bool) {
	if len(raw) < 2 || raw[0] != '"' {
		return "", false
	}
	text := raw[1 : len(raw)-1]
	for _, c := range text {
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			return "", false
		}
	}
	return string(text), true
}
