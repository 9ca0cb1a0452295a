package event

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/lodestonehq/lodestone"
)

// What was observed counts for the message that it was observed of, by a gateway of the same store, and for nothing
// else; what does not count is noted.
func TestSeal(t *testing.T) {
	seal := func(secret string) *Seal {
		s, err := NewSeal([]byte(secret))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	ours := seal("ours")
	honest := func() Message {
		m := Message{
			Subject: FormsPrefix + "pricing-guide", Data: []byte(`{"email": "ada@example.com"}`),
			Header: map[string][]string{"Nats-Msg-Id": {"1"}, "Content-Type": {"application/json"}},
		}
		ours.Close(&m, Observed{IP: "203.0.113.9", Evidence: &lodestone.Evidence{SourceSubmissions: 7}})
		m.Header["Nats-Batch-Sequence"] = []string{"3"} // added on the way
		return m
	}
	forged := func(change func(*Message)) Message {
		m := honest()
		m.Header = maps.Clone(m.Header)
		change(&m)
		return m
	}
	header := func(value ...string) func(*Message) {
		return func(m *Message) { m.Header[HeaderObserved] = value }
	}
	other := honest()
	other.Header = map[string][]string{"Nats-Msg-Id": {"1"}, "Content-Type": {"application/json"}}
	seal("theirs").Close(&other, Observed{Evidence: &lodestone.Evidence{}})
	for _, c := range []struct {
		name string
		m    Message
		by   *Seal
		good bool
	}{
		{"sealed", honest(), ours, true},
		{"another store's", other, ours, false},
		{"nobody can tell", honest(), nil, false},
		{"not sealed, as earlier versions did", forged(header(`{"evidence":{}}`)), ours, false},
		{"an empty seal", forged(header(`.{"evidence":{}}`)), ours, false},
		{"other words", forged(func(m *Message) {
			m.Header[HeaderObserved] = []string{strings.Replace(m.Header[HeaderObserved][0], "7", "1", -1)}
		}), ours, false},
		{"a second header", forged(func(m *Message) {
			m.Header[HeaderObserved] = append(slices.Clone(m.Header[HeaderObserved]), `.{}`)
		}), ours, false},
		{"another body", forged(func(m *Message) { m.Data = []byte(`{"email": "eve@example.com"}`) }), ours, false},
		{"another form", forged(func(m *Message) { m.Subject = FormsPrefix + "contact" }), ours, false},
		{"another id", forged(func(m *Message) { m.Header["Nats-Msg-Id"] = []string{"2"} }), ours, false},
		{"an event's id beside it", forged(func(m *Message) { m.Header["ce-id"] = []string{"2"} }), ours, false},
	} {
		before := maps.Clone(c.m.Header)
		m := c.m
		c.by.Open(&m)
		if !maps.EqualFunc(before, c.m.Header, slices.Equal) {
			t.Errorf("%s: the header that was passed in is another: %v", c.name, c.m.Header)
		}
		m.Header = maps.Clone(m.Header)
		m.Subject, m.Data = FormsPrefix+"pricing-guide", []byte(`{"email": "ada@example.com"}`)
		delete(m.Header, "ce-id")
		s, no := DecodeSubmission(m, declared)
		if no != nil {
			t.Fatalf("%s: %+v", c.name, no)
		}
		counted := s.Context.Evidence != nil && s.Context.Evidence.SourceSubmissions == 7 && s.Context.IP == "203.0.113.9"
		if counted != c.good || !c.good && (s.Context.Evidence != nil || len(s.Notes) != 1) {
			t.Errorf("%s: evidence %+v, notes %q; want it to count: %v", c.name, s.Context.Evidence, s.Notes, c.good)
		}
	}
}
