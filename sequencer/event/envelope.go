package event

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/lodestonehq/lodestone"
)

// maxID is the longest id that is kept as it is, in bytes. A longer one is cut and gets its hash, so
// that whoever may publish cannot fill the store with ids.
const maxID = 512

// envelope is what a message says apart from its data.
type envelope struct {
	id   string
	at   time.Time // never later than the stream's timestamp
	data value     // the data, or in plain JSON the object that was sent
	ce   bool      // a CloudEvent, structured or binary
}

// open reads the envelope of a message whose CloudEvents type must satisfy isType. On a fault the
// envelope holds the id as far as it could be read.
func open(m Message, isType func(string) bool) (envelope, *fault) {
	e := envelope{id: fallbackID(m), at: m.Time.UTC()}
	if len(m.Data) > MaxSize {
		return e, &fault{lodestone.ReasonTooLarge, fmt.Sprintf("the body has %d bytes, at most %d are read", len(m.Data), MaxSize)}
	}
	h, f := headers(m.Header)
	if f != nil {
		return e, f
	}
	switch media, _, _ := strings.Cut(h.contentType, ";"); {
	case strings.EqualFold(strings.TrimSpace(media), ContentType):
		return e, e.structured(m, isType)
	case isCloudEvents(media):
		return e, &fault{lodestone.ReasonBadEnvelope, "of the CloudEvents formats only " + ContentType + " is understood"}
	case h.ce != nil:
		return e, e.binary(m, h.ce, isType)
	}
	v, f := readJSON(m.Data)
	if f != nil {
		return e, f
	}
	e.data, f = object(v, "the body")
	return e, f
}

// isCloudEvents reports whether a media type is one of the CloudEvents formats: application/cloudevents
// with or without a suffix, or the batch format.
func isCloudEvents(media string) bool {
	const prefix = "application/cloudevents"
	media = strings.ToLower(strings.TrimSpace(media))
	rest, ok := strings.CutPrefix(media, prefix)
	return ok && (rest == "" || rest[0] == '+' || rest[0] == '-')
}

func (e *envelope) structured(m Message, isType func(string) bool) *fault {
	v, f := readJSON(m.Data)
	if f != nil {
		return f
	}
	o, f := object(v, "the event")
	if f != nil {
		return f
	}
	e.ce = true
	attribute := func(name string) string {
		v := o.of(name)
		if v.kind() != isText && v.kind() != absent {
			f = cmp.Or(f, &fault{lodestone.ReasonBadEnvelope, "the event's " + name + " is " + kindOf(v) + ", want a text"})
			return ""
		}
		return v.text()
	}
	source, id, version, typ, at := attribute("source"), attribute("id"), attribute("specversion"), attribute("type"), attribute("time")
	e.named(source, id)
	if f != nil {
		return f
	}
	if f := e.attributes(m, version, typ, at, isType); f != nil {
		return f
	}
	data, there := o.lookup("data")
	encoded, base64There := o.lookup("data_base64")
	switch {
	case there && base64There:
		return &fault{lodestone.ReasonBadEnvelope, "the event has both data and data_base64; send one of them"}
	case base64There:
		if encoded.kind() != isText {
			return &fault{lodestone.ReasonBadEnvelope, "the event's data_base64 is " + kindOf(encoded) + ", want a text"}
		}
		raw, err := base64.StdEncoding.DecodeString(encoded.text())
		if err != nil {
			return &fault{lodestone.ReasonBadEnvelope, "the event's data_base64 is not Base64 (RFC 4648, section 4)"}
		}
		if data, f = readJSON(raw); f != nil {
			f.detail = "inside data_base64: " + f.detail
			return f
		}
	}
	e.data, f = object(data, "the event's data")
	return f
}

func (e *envelope) binary(m Message, attr map[string]string, isType func(string) bool) *fault {
	e.ce = true
	e.named(attr["source"], attr["id"])
	if f := e.attributes(m, attr["specversion"], attr["type"], attr["time"], isType); f != nil {
		return f
	}
	v, f := readJSON(m.Data)
	if f != nil {
		return f
	}
	e.data, f = object(v, "the body")
	return f
}

// named takes the id from a CloudEvent that has both parts of it.
func (e *envelope) named(source, id string) {
	if source != "" && id != "" {
		e.id = cleanID(escapeSource.Replace(source) + " " + id)
	}
}

var escapeSource = strings.NewReplacer("%", "%25", " ", "%20")

func (e *envelope) attributes(m Message, version, typ, at string, isType func(string) bool) *fault {
	switch {
	case version == "":
		return &fault{lodestone.ReasonBadEnvelope, "the event has no specversion; send 1.0"}
	case version != "1.0":
		return &fault{lodestone.ReasonBadEnvelope, "the event's specversion is not 1.0"}
	case typ == "":
		return &fault{lodestone.ReasonBadEnvelope, "the event has no type"}
	case !isType(typ):
		return &fault{lodestone.ReasonBadEnvelope, "the event's type is not one that is published here; submissions are " + TypeSubmission + ", signals " + TypeSignal}
	case at == "":
		return nil
	}
	t, ok := readTime(at)
	if !ok {
		return &fault{lodestone.ReasonBadEnvelope, "the event's time is not a time since 1970 as in 2026-11-20T09:00:00Z (RFC 3339)"}
	}
	e.at = notAfter(t, m.Time)
	return nil
}

// readTime reads an RFC 3339 time. One before 1970 is none: nobody submitted a form on the web, and
// a clock that was never set says so.
func readTime(s string) (time.Time, bool) {
	t, err := time.Parse(time.RFC3339Nano, strings.ToUpper(s))
	if err != nil || t.Unix() < 0 || t.UTC().Year() > 9999 {
		return time.Time{}, false
	}
	return t.UTC(), true
}

// notAfter is t, or limit when t is later; a zero limit limits nothing.
func notAfter(t, limit time.Time) time.Time {
	if !limit.IsZero() && t.After(limit) {
		return limit.UTC()
	}
	return t
}

// fallbackID is the id of a message that is no CloudEvent with an id.
func fallbackID(m Message) string {
	if id := first(m.Header["Nats-Msg-Id"]); id != "" {
		return cleanID(id)
	}
	id := "seq:" + strconv.FormatUint(m.Seq, 10)
	if !m.Time.IsZero() {
		id += "@" + strconv.FormatInt(m.Time.UnixNano(), 36)
	}
	return id
}

// cleanID makes an id from outside fit to be stored and shown.
func cleanID(id string) string {
	id = strings.ToValidUTF8(id, "\uFFFD")
	if len(id) <= maxID {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return strings.ToValidUTF8(id[:maxID/2], "") + "#" + hex.EncodeToString(sum[:])
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// header is what the headers of a message say about its envelope.
type header struct {
	contentType string
	ce          map[string]string // attributes by lower-case name, nil when no header begins with ce-
}

// headers collects the headers, comparing names without regard to case. Two values for one name are
// a fault: which one counts would be chance.
func headers(in map[string][]string) (header, *fault) {
	var h header
	set := false // a Content-Type was seen
	for name, values := range in {
		if strings.EqualFold(name, "Content-Type") {
			v := first(values)
			if set && v != h.contentType || differ(values) {
				return h, twice()
			}
			h.contentType, set = v, true
		}
		if len(name) < 3 || !strings.EqualFold(name[:3], "ce-") {
			continue
		}
		if h.ce == nil {
			h.ce = make(map[string]string, 8)
		}
		attr := strings.ToLower(name[3:])
		v := strings.TrimSpace(first(values))
		if old, there := h.ce[attr]; there && old != v || differ(values) {
			return h, twice()
		}
		h.ce[attr] = v
	}
	return h, nil
}

func twice() *fault {
	return &fault{lodestone.ReasonBadEnvelope, "Content-Type or a ce- header is there twice with different values"}
}

func differ(values []string) bool {
	for _, v := range values {
		if v != values[0] {
			return true
		}
	}
	return false
}

func object(v value, what string) (value, *fault) {
	if v.kind() != isObject {
		return nil, &fault{lodestone.ReasonNotAnObject, what + " is " + kindOf(v) + ", want an object"}
	}
	return v, nil
}

// kindOf names the kind of a JSON value, never the value.
func kindOf(v value) string {
	switch v.kind() {
	case absent:
		return "nothing"
	case isBool:
		return "true or false"
	case isNumber:
		return "a number"
	case isText:
		return "a text"
	case isList:
		return "a list"
	}
	return "an object"
}

// reject completes a fault to a rejection.
func (f *fault) reject(name, id string, email lodestone.Email) *lodestone.Rejection {
	return &lodestone.Rejection{Reason: f.reason, Detail: f.detail, Form: strings.ToValidUTF8(name, "\uFFFD"), Email: email, ID: id}
}

// guessEmail reads the address under the usual name, for a rejection whose form is not known.
func guessEmail(fields value) lodestone.Email {
	v := fields.of("email")
	s := v.text()
	if v.kind() != isText || len(s) > 4*utf8.UTFMax*lodestone.MaxEmail {
		return ""
	}
	e, err := lodestone.ParseEmail(s)
	if err != nil {
		return ""
	}
	return e
}
