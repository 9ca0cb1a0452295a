// Package event reads what comes from the streams, submissions and signals, and builds what
// publishers send.
//
// A message is read in one of three forms: a CloudEvents 1.0 structured event (its Content-Type is
// application/cloudevents+json), a CloudEvents 1.0 binary event (it has ce- headers), or plain JSON.
// Decoding is pure and total: every message becomes either a submission whose fields have the types
// that its form declares and whose address is normalised, or a rejection with a reason of the closed
// set. The same message always becomes the same thing.
//
// What is checked, in this order; the first objection decides:
//
//	size        too_large
//	envelope    bad_envelope          the subject and the headers
//	body        not_json, too_deep    whichever comes first in the text
//	            not_an_object
//	            bad_envelope          attributes of a structured event, time, backfill
//	            not_an_object         the data, its fields
//	form        unknown_form
//	address     no_email, bad_email
//	fields      missing_field, bad_field   by name, in alphabetical order
//
// JSON is read strictly: a key that is there twice, a byte that is not UTF-8, anything after the
// value and a number beyond the range of a float64 are not_json. An escaped half of a surrogate pair
// becomes U+FFFD, as browsers send it for a text that was cut in the middle of a character.
//
// The id of a submission or signal is the CloudEvents source and id with a blank between them
// (blanks and percent signs of the source are escaped, so that two pairs never make one id), else
// the Nats-Msg-Id header, else seq:<sequence>@<time in the stream>. The time is part of the last
// one because a stream that is made anew counts from 1 again, and what follows is no repeat.
//
// A blank text counts as absent, as browsers send one for every input that was left empty. A note
// or a detail names fields and says what was wrong with them; it never repeats a value.
package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone"
)

const (
	// MaxSize is the largest body of a message that is read, in bytes.
	MaxSize = 256 << 10
	// MaxDepth is how many objects and lists may stand inside each other; the outermost counts, and
	// so does the object of a structured event.
	MaxDepth = 32

	// ContentType is the media type of a structured event.
	ContentType = "application/cloudevents+json"
	// TypeSubmission is the CloudEvents type of a submission.
	TypeSubmission = "lodestone.form.submitted"
	// TypeSignal is what the CloudEvents type of a signal begins with.
	TypeSignal = "lodestone.signal"

	// FormsPrefix stands before the form in the subject of a submission.
	FormsPrefix = "lodestone.forms."
	// SignalsPrefix stands before the kind in the subject of a signal.
	SignalsPrefix = "lodestone.signals."
)

// Message is one message of a stream, as it came.
type Message struct {
	Subject string
	Header  map[string][]string
	Data    []byte
	Seq     uint64    // in its stream
	Time    time.Time // when the stream took it
}

// ErrBadName is wrapped by errors about a form or a kind that cannot be part of a subject.
var ErrBadName = errors.New("not usable as part of a subject")

// SubmissionSubject returns the subject that submissions of a form are published on. The error wraps
// [ErrBadName].
func SubmissionSubject(form string) (string, error) { return subject(FormsPrefix, form) }

// SignalSubject returns the subject that signals of a kind are published on. The error wraps
// [ErrBadName].
func SignalSubject(kind lodestone.SignalKind) (string, error) {
	return subject(SignalsPrefix, string(kind))
}

func subject(prefix, name string) (string, error) {
	switch {
	case name == "":
		return "", fmt.Errorf("an empty name is %w", ErrBadName)
	case len(name) > 128:
		return "", fmt.Errorf("a name of %d bytes is %w; at most 128 are", len(name), ErrBadName)
	case !isToken(name):
		return "", fmt.Errorf("%q is %w: it may hold no blank, dot, * or >, and no control character", name, ErrBadName)
	}
	return prefix + name, nil
}

// isToken reports whether name can be one token of a subject.
func isToken(name string) bool {
	for _, r := range name {
		if r <= ' ' || r == 0x7f || r == 0xfffd || strings.ContainsRune(".*>", r) {
			return false
		}
	}
	return name != ""
}

// NewSubmission builds the body of a submission as a structured event; publish it on
// [SubmissionSubject] with [ContentType] as its Content-Type. id and source together name the
// submission: the same pair is the same submission, so a publisher that tries again sends it again.
// A zero at leaves the time to the stream. Fields hold what JSON can hold; ctx may be nil.
//
// The error says what cannot be sent: no id or source, a value that JSON cannot hold, or a body over
// [MaxSize].
func NewSubmission(id, source, form string, at time.Time, fields map[string]any, ctx *lodestone.Context, backfill bool) ([]byte, error) {
	if id == "" || source == "" {
		return nil, errors.New("build submission: it needs an id and a source")
	}
	if fields == nil {
		fields = map[string]any{}
	}
	type data struct {
		Fields   map[string]any     `json:"fields"`
		Context  *lodestone.Context `json:"context,omitempty"`
		Backfill bool               `json:"backfill,omitempty"`
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(struct {
		SpecVersion string    `json:"specversion"`
		Type        string    `json:"type"`
		Source      string    `json:"source"`
		ID          string    `json:"id"`
		Subject     string    `json:"subject,omitempty"`
		Time        time.Time `json:"time,omitzero"`
		ContentType string    `json:"datacontenttype"`
		Data        data      `json:"data"`
	}{"1.0", TypeSubmission, source, id, form, at.UTC(), "application/json", data{fields, ctx, backfill}})
	if err != nil {
		return nil, fmt.Errorf("build submission: %w", err)
	}
	body := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	if len(body) > MaxSize {
		return nil, fmt.Errorf("build submission: it has %d bytes, at most %d are taken", len(body), MaxSize)
	}
	return body, nil
}
