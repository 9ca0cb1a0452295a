package blocks23

import (
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone/connectors/lenient"
)

// The types here are not the generated ones on purpose: one odd value in a field that nobody looks at
// must not turn a referral that was made into an unknown outcome, nor spoil a page of a list.

// element is a referral or a subscription, as far as it matters here.
type element struct {
	ID         ident
	Attributes attributes
}

type attributes struct {
	UniqueID       ident `json:"unique_id"`
	Status         words
	CreatedAt      words           `json:"created_at"`
	ReferredEmail  words           `json:"referred_email"`
	RefereeEmail   words           `json:"referee_email"`
	ReferrerEmail  words           `json:"referrer_email"`
	Metadata       json.RawMessage // our key is here,
	Data           json.RawMessage // here by the SDK's names,
	Payload        json.RawMessage // or here, the SDK's other free field
	RewardStatus   words           `json:"reward_status"`
	Email          words           // of a subscription, as are the following
	SubscribedAt   words           `json:"subscribed_at"`
	UnsubscribedAt json.RawMessage `json:"unsubscribed_at"` // as it stands: what is not null says that it ended
}

// id is the element's, empty when it has none or two that differ.
func (e *element) id() string {
	a, b := string(e.ID), string(e.Attributes.UniqueID)
	switch {
	case a == "":
		return b
	case b == "" || a == b:
		return a
	}
	return ""
}

// key is the id of the touchpoint that made a referral, empty when it carries none.
func (a *attributes) key() string {
	for _, raw := range []json.RawMessage{a.Metadata, a.Data, a.Payload} {
		var free map[string]any
		if json.Unmarshal(raw, &free) != nil {
			continue
		}
		if key, _ := free[MetadataKey].(string); key != "" {
			return key
		}
	}
	return ""
}

// referred is the address of the referred person, empty when it cannot be read.
func (a *attributes) referred() string {
	if a.ReferredEmail != "" {
		return strings.TrimSpace(string(a.ReferredEmail))
	}
	return strings.TrimSpace(string(a.RefereeEmail))
}

// one reads a document that holds one element with an id.
func one(body []byte) (e element, err error) {
	var doc struct{ Data json.RawMessage }
	if err := lenient.Object(body, &doc); err != nil {
		return e, err
	}
	if err := lenient.Object(doc.Data, &e); err != nil {
		return e, errors.New("it holds no resource")
	}
	if e.id() == "" {
		return e, errors.New("its resource has no id, or two that differ")
	}
	return e, nil
}

// listing is one page of a list. The counts are noCount where the page does not state them.
type listing struct {
	elements       []element
	unreadable     int // elements that could not be read
	pages, records int
}

const noCount = -1

// list reads a page.
func list(body []byte) (l listing, err error) {
	var doc struct {
		Data *[]json.RawMessage
		Meta json.RawMessage
	}
	if err := lenient.Object(body, &doc); err != nil {
		return l, err
	}
	if doc.Data == nil {
		return l, errors.New("it holds no list")
	}
	for _, raw := range *doc.Data {
		var e element
		if lenient.Object(raw, &e) != nil || e.id() == "" {
			l.unreadable++
			continue
		}
		l.elements = append(l.elements, e)
	}
	var meta map[string]json.RawMessage
	_ = json.Unmarshal(doc.Meta, &meta) // what cannot be read states no counts
	l.pages = count(meta, "totalPages", "total_pages")
	l.records = count(meta, "totalRecords", "total_records", "total_count", "totalCount")
	return l, nil
}

// count finds a count under any of its names; the first that is there decides.
func count(meta map[string]json.RawMessage, names ...string) int {
	for _, name := range names {
		raw, there := meta[name]
		if !there {
			continue
		}
		n, err := strconv.ParseInt(strings.Trim(string(raw), `"`), 10, 32)
		if err != nil || n < 0 {
			return noCount
		}
		return int(n)
	}
	return noCount
}

// notFound tells whether a 404's body is the provider's word that there is no such referral. A path
// that does not exist answers 404 as well, and is no word about any referral.
func notFound(body []byte) bool {
	var doc struct {
		Errors []struct{ Status, Code words }
	}
	if lenient.Object(body, &doc) != nil {
		return false
	}
	for _, e := range doc.Errors {
		if e.Code == "not_found" {
			return true
		}
	}
	return false
}

// ident is an id, which may be a text or a number; anything else in its place counts as no id.
type ident string

// UnmarshalJSON implements json.Unmarshaler.
func (id *ident) UnmarshalJSON(raw []byte) error {
	var s string
	var n json.Number
	if json.Unmarshal(raw, &s) != nil && json.Unmarshal(raw, &n) == nil {
		s = string(n)
	}
	*id = ident(s)
	return nil
}

// parseTime reads a time of the provider. One without a zone is UTC, as all its times are.
func parseTime(s words) (time.Time, bool) {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05"} {
		if t, err := time.Parse(layout, string(s)); err == nil {
			return t.UTC(), true
		}
	}
	return time.Time{}, false
}

// same tells whether a value of an answer is the one that was asked for. A decimal may come back as
// text.
func same(wanted, got any) bool {
	if w, ok := wanted.(float64); ok {
		if s, ok := got.(string); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
			return err == nil && math.Abs(n-w) < 1e-9
		}
		n, ok := got.(float64)
		return ok && math.Abs(n-w) < 1e-9
	}
	return wanted == got
}

// What an answer holds, read as package lenient says.
type (
	words = lenient.Text
)
