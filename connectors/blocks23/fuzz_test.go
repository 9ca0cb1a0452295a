package blocks23

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

var documents = []string{
	`{"data":{"id":"r-1","type":"referral","attributes":{"unique_id":"r-1","status":"pending","metadata":{"lodestone_touchpoint":"e1.nudge"}}}}`,
	`{"data":{"id":7,"attributes":{"metadata":"x","created_at":5}}}`,
	`{"data":{"attributes":{"unique_id":"r-1"}}}`, `{"data":{}}`, `{"data":[]}`, `{"data":null}`, `{"errors":[{"code":"not_found"}]}`,
	`{"Data":{"ID":"a"},"data":null}`, `{}`, `[]`, `null`, `<html>`, ``,
}

// An answer to a new referral counts as done only when it is one JSON object with a resource in it that
// has an id.
func FuzzOne(f *testing.F) {
	for _, s := range documents {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := one(body)
		if err != nil {
			if strings.Contains(err.Error(), "@") {
				t.Fatalf("one(%q) = %v, which repeats the body", body, err)
			}
			return
		}
		var doc map[string]json.RawMessage
		if e.id() == "" || json.Unmarshal(body, &doc) != nil {
			t.Fatalf("one(%q) took it for a referral with id %q", body, e.id())
		}
	})
}

// Every element of a page is either one with an id or counted as unreadable; counts are never negative
// unless they are not stated.
func FuzzList(f *testing.F) {
	for _, s := range append(documents,
		`{"data":[{"id":"a"},7,{"id":"a","attributes":{"unique_id":"b"}}],"meta":{"totalPages":1,"totalRecords":3}}`,
		`{"data":[],"meta":{"total_pages":"0","total_count":"0"}}`,
		`{"data":[],"meta":{"totalPages":-1,"totalRecords":1e9}}`,
		`{"data":[{"id":"a"}],"meta":[]}`,
	) {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		l, err := list(body)
		if err != nil {
			return
		}
		if l.pages < noCount || l.records < noCount {
			t.Fatalf("list(%q) counts %d pages and %d records", body, l.pages, l.records)
		}
		for i := range l.elements {
			if l.elements[i].id() == "" {
				t.Fatalf("list(%q) has an element without an id", body)
			}
			l.elements[i].Attributes.key()
			l.elements[i].Attributes.optedOut()
		}
		// A page that was taken for the whole of an empty list states so.
		w := walker{seen: map[string]bool{}, visit: func(*element) bool { return false }}
		w.take(l)
		w.length = l.records
		if got := w.end(); got.gap == "" && (l.records != len(w.seen) || l.unreadable > 0) {
			t.Fatalf("list(%q) counts as whole with %d of %d records", body, len(w.seen), l.records)
		}
	})
}

// Only a status that says active, and no end that is later, means that somebody is subscribed.
func FuzzOptedOut(f *testing.F) {
	for _, s := range []string{
		`{"status":"active"}`, `{"status":"active","unsubscribed_at":null}`, `{"status":"unsubscribed"}`,
		`{"status":"active","subscribed_at":"2026-06-01T07:00:00Z","unsubscribed_at":"2026-05-01T07:00:00Z"}`,
		`{"status":7}`, `{"status":"active","unsubscribed_at":{}}`, `{}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var a attributes
		if json.Unmarshal(raw, &a) != nil {
			return
		}
		yes, understood := a.optedOut()
		if yes && !understood {
			t.Fatalf("optedOut(%q) = true without understanding it", raw)
		}
		if understood && !yes && !strings.EqualFold(string(a.Status), "active") {
			t.Fatalf("optedOut(%q) = false with status %q", raw, a.Status)
		}
	})
}

func FuzzParseTime(f *testing.F) {
	for _, s := range []string{"2026-03-06T10:10:05Z", "2026-03-06T10:10:05.25+02:00", "2026-03-06T10:10:05", "yesterday", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if at, ok := parseTime(words(s)); ok && at.Location() != time.UTC || !ok && !at.IsZero() {
			t.Fatalf("parseTime(%q) = %v, %t", s, at, ok)
		}
	})
}

// Whatever the length and the bound, no page is asked for twice and none beyond the last.
func FuzzInwards(f *testing.F) {
	for _, v := range [][2]int{{0, 2}, {1, 50}, {2, 50}, {5, 50}, {60, 50}, {-1, 7}, {1 << 30, 50}} {
		f.Add(v[0], v[1])
	}
	f.Fuzz(func(t *testing.T, last, most int) {
		most = min(max(most, 2), maxPages)
		if last < noCount {
			last = noCount
		}
		seen := map[int]bool{1: true}
		for _, n := range inwards(last, most) {
			if seen[n] || n < 2 || last != noCount && n > last {
				t.Fatalf("inwards(%d, %d) asks for page %d", last, most, n)
			}
			seen[n] = true
		}
		if want := min(max(last, 1), most); last != noCount && len(seen) != want || len(seen) > most {
			t.Fatalf("inwards(%d, %d) gives %d pages, want %d", last, most, len(seen), want)
		}
	})
}
