package event

import (
	"strings"

	"github.com/lodestonehq/lodestone"
)

// DecodeSignal reads a message of the stream LODESTONE_SIGNALS, with the same envelopes as a
// submission; the signal counts when the rejection is nil. Its data is {"email", "at", "detail"},
// in plain JSON the object itself.
//
// An opt-out must not be lost over a detail, so only an unusable envelope or address rejects a
// signal: an at that cannot be read counts as the event's time, and a detail that is no object is
// kept as {"value": …}.
func DecodeSignal(m Message) (lodestone.Signal, *lodestone.Rejection) {
	e, f := open(m, isSignalType)
	kind, isSignal := strings.CutPrefix(m.Subject, SignalsPrefix)
	if (!isSignal || !isToken(kind)) && (f == nil || f.reason != lodestone.ReasonTooLarge) {
		f = &fault{lodestone.ReasonBadEnvelope, "the subject is not " + SignalsPrefix + "<kind>"}
	}
	if f != nil {
		return lodestone.Signal{}, f.reject("", e.id, "")
	}
	email, f := address(e.data.of("email"), "email")
	if f != nil {
		return lodestone.Signal{}, f.reject("", e.id, "")
	}
	s := lodestone.Signal{ID: e.id, Kind: lodestone.SignalKind(kind), Email: email, At: e.at, Received: m.Time.UTC(), Seq: m.Seq}
	if at := e.data.of("at"); at.kind() == isText {
		if t, ok := readTime(at.text()); ok {
			s.At = notAfter(t, m.Time)
		}
	}
	switch d := plain(e.data.of("detail").tree()).(type) {
	case nil:
	case map[string]any:
		s.Detail = d
	default:
		s.Detail = map[string]any{"value": d}
	}
	return s, nil
}

// isSignalType leaves what follows to the publisher: the kind stands in the subject.
func isSignalType(t string) bool { return strings.HasPrefix(t, TypeSignal) }
