package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// The streams and what they hold.
const (
	FormsStream   = "LODESTONE_FORMS"   // submissions as they came
	SignalsStream = "LODESTONE_SIGNALS" // signals as they came
	EventsStream  = "LODESTONE_EVENTS"  // what Lodestone says happened
)

// Streams lists the streams that EnsureStreams makes.
var Streams = []string{FormsStream, SignalsStream, EventsStream}

var subjects = map[string]string{
	FormsStream:   "lodestone.forms.*",
	SignalsStream: "lodestone.signals.*",
	EventsStream:  "lodestone.events.>",
}

// duplicateWindow is how long a stream remembers message ids. It costs memory for each id; repeats
// after it are noticed on the lead.
const duplicateWindow = 2 * time.Minute

// ErrStream says that a stream exists with a setting that loses messages and cannot be changed.
var ErrStream = errors.New("a stream cannot be used as it is")

// streamOf is the stream that takes a subject, "" when none of ours does.
func streamOf(subject string) string {
	for _, name := range Streams {
		if strings.HasPrefix(subject, strings.TrimRight(subjects[name], "*>")) {
			return name
		}
	}
	return ""
}

// EnsureStreams makes the streams that are missing. One that exists is changed where that is safe: to
// take our subjects and atomic batches, to refuse new messages instead of dropping old ones, to keep
// the duplicate window. What may lose messages and cannot be changed (memory storage, another
// retention, an age limit, …) is refused with all such findings at once, and that stream is left as
// it is; the error wraps [ErrStream].
func (b *Broker) EnsureStreams(ctx context.Context) error {
	var errs []error
	for _, name := range Streams {
		if err := b.ensureStream(ctx, name); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (b *Broker) ensureStream(ctx context.Context, name string) error {
	stream, err := b.js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		_, err = b.js.CreateStream(ctx, b.newStream(name))
		if err != nil {
			return fmt.Errorf("make stream %s: %w", name, err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("look up stream %s: %w", name, err)
	}
	is := stream.CachedInfo().Config
	if err := refusals(is); err != nil {
		return err
	}
	should, changes := b.amended(is)
	if len(changes) == 0 {
		return nil
	}
	if _, err := b.js.UpdateStream(ctx, should); err != nil {
		return fmt.Errorf("change stream %s (%s): %w", name, strings.Join(changes, ", "), err)
	}
	b.log.Info("stream changed", "stream", name, "settings", strings.Join(changes, ", "))
	return nil
}

func (b *Broker) newStream(name string) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:               name,
		Subjects:           []string{subjects[name]},
		Storage:            jetstream.FileStorage,
		Retention:          jetstream.LimitsPolicy,
		Discard:            jetstream.DiscardNew,
		MaxBytes:           b.maxBytes(),
		Duplicates:         duplicateWindow,
		Replicas:           max(1, b.opts.Replicas),
		AllowAtomicPublish: true,
	}
}

func (b *Broker) maxBytes() int64 {
	if b.opts.MaxBytes > 0 {
		return b.opts.MaxBytes
	}
	return -1
}

// refusals finds the settings that lose messages, or keep a person from being erased, and that
// cannot or should not be changed by us.
func refusals(is jetstream.StreamConfig) error {
	var errs []error
	refuse := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf("%w: %s %s", ErrStream, is.Name, fmt.Sprintf(format, args...)))
		}
	}
	const anew = "; copy what is in it, delete it and start again to have it made anew"
	out := is.Name == EventsStream // may be kept as short as its readers like
	refuse(is.Storage != jetstream.FileStorage, "is kept in %s, want file"+anew, strings.ToLower(is.Storage.String()))
	refuse(is.Retention != jetstream.LimitsPolicy, "has retention %s, want limits"+anew, strings.ToLower(is.Retention.String()))
	refuse(is.Mirror != nil, "is a mirror; it must take messages itself"+anew)
	refuse(is.Sealed, "is sealed; it takes no more messages"+anew)
	refuse(is.DenyDelete || is.DenyPurge, "denies delete or purge; a person could not be erased from it"+anew)
	refuse(is.PersistMode == jetstream.AsyncPersistMode, "has persist mode async; it acknowledges before it stores"+anew)
	refuse(!out && is.MaxAge > 0, "drops messages after %v, read or not; remove its max_age", is.MaxAge)
	refuse(!out && is.MaxMsgsPerSubject > 0, "keeps only %d messages of each subject; remove its max_msgs_per_subject", is.MaxMsgsPerSubject)
	return errors.Join(errs...)
}

// amended returns the configuration with what may be changed safely, and the names of the changes.
func (b *Broker) amended(is jetstream.StreamConfig) (jetstream.StreamConfig, []string) {
	var changes []string
	change := func(needed bool, what string, do func()) {
		if needed {
			do()
			changes = append(changes, what)
		}
	}
	subject := subjects[is.Name]
	change(!slices.Contains(is.Subjects, subject), "subjects", func() { is.Subjects = append(slices.Clone(is.Subjects), subject) })
	change(is.Discard != jetstream.DiscardNew && is.Name != EventsStream, "discard", func() { is.Discard = jetstream.DiscardNew })
	change(!is.AllowAtomicPublish, "allow_atomic", func() { is.AllowAtomicPublish = true })
	change(is.Duplicates < duplicateWindow, "duplicate_window", func() { is.Duplicates = duplicateWindow })
	change(is.NoAck, "no_ack", func() { is.NoAck = false })
	// A message with a rollup header deletes all others: whoever may publish could empty the stream.
	change(is.AllowRollup, "allow_rollup_hdrs", func() { is.AllowRollup = false })
	change(b.opts.MaxBytes > 0 && is.MaxBytes != b.opts.MaxBytes, "max_bytes", func() { is.MaxBytes = b.opts.MaxBytes })
	return is, changes
}

// StreamIdentity returns when a stream was created, which tells it from another of the same name, and
// the sequence numbers of its first and last message; first is last+1 when it is empty.
func (b *Broker) StreamIdentity(ctx context.Context, stream string) (created time.Time, firstSeq, lastSeq uint64, err error) {
	s, err := b.js.Stream(ctx, stream)
	if err != nil {
		return time.Time{}, 0, 0, fmt.Errorf("look up stream %s: %w", stream, err)
	}
	info := s.CachedInfo()
	firstSeq, lastSeq = info.State.FirstSeq, info.State.LastSeq
	if info.State.Msgs == 0 {
		firstSeq = lastSeq + 1 // the server says 0 of a stream that never had a message
	}
	return info.Created.UTC(), firstSeq, lastSeq, nil
}
