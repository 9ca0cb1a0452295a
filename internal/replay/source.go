package replay

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
	"github.com/lodestonehq/lodestone/sequencer"
	"github.com/lodestonehq/lodestone/sequencer/event"
)

// Store is what is read of a store. Nothing is written to it.
type Store interface {
	CurrentRules(context.Context) (version string, err error)
	Rules(ctx context.Context, version string) ([]boltstore.RuleFile, error)
	Active(context.Context) ([]boltstore.ActiveCount, error)
	Suppressions(ctx context.Context, after lodestone.Email, limit int) ([]lodestone.Suppression, error)
	SuppressedAgain(ctx context.Context, after lodestone.Email, leads int) (list []lodestone.Suppression, next lodestone.Email, err error)
	Journal(ctx context.Context, after uint64, limit int) ([]lodestone.Entry, error)
	State(ctx context.Context, email lodestone.Email) (sequencer.State, error)
}

// Open finds the past: in the streams, or in the journal when js is nil or its streams hold no submission. seal
// proves what a gateway observed, as for intake.
func Open(ctx context.Context, store Store, js jetstream.JetStream, seal *event.Seal) (Head, Source, error) {
	var head Head
	current, err := store.CurrentRules(ctx)
	if err != nil {
		return head, nil, err
	}
	files, err := store.Rules(ctx, current)
	if err != nil {
		return head, nil, err
	}
	head.Version = current
	for _, f := range files {
		head.Files = append(head.Files, rules.File{Name: f.Name, Data: f.Data})
	}
	active, err := store.Active(ctx)
	if err != nil {
		return head, nil, err
	}
	for _, a := range active {
		head.Active = append(head.Active, Active{a.Sequence, a.Version, int(a.N), a.Some})
	}
	suppressed, err := suppressions(ctx, store)
	if err != nil {
		return head, nil, err
	}
	if js != nil {
		for _, s := range []struct {
			name string
			n    *uint64
		}{{sequencer.FormsStream, &head.Submissions}, {sequencer.SignalsStream, &head.Signals}} {
			stream, err := js.Stream(ctx, s.name)
			if errors.Is(err, jetstream.ErrStreamNotFound) {
				continue
			}
			if err != nil {
				return head, nil, err
			}
			*s.n = stream.CachedInfo().State.Msgs
		}
	}
	if head.Submissions > 0 {
		head.Source = FromStream
		return head, merged(streamed(js, sequencer.FormsStream, seal), streamed(js, sequencer.SignalsStream, seal), suppressed), nil
	}
	head.Source = FromJournal
	head.Submissions, head.Signals = 0, 0
	err = journal(store)(ctx, func(r *Record) error {
		if r.Stream == sequencer.FormsStream {
			head.Submissions++
		} else {
			head.Signals++
		}
		return nil
	})
	if err != nil {
		return head, nil, err
	}
	return head, merged(journal(store), suppressed), nil
}

// suppressions are those that no signal of the past brings about again. With a person who was erased what they
// signalled is gone, so whatever suppressed one who came back is among them.
func suppressions(ctx context.Context, store Store) (Source, error) {
	var all []lodestone.Suppression
	for after := lodestone.Email(""); ; {
		const page = 5000
		list, err := store.Suppressions(ctx, after, page)
		if err != nil {
			return nil, err
		}
		for _, s := range list {
			after = s.Email
			if s.Source != "signal" {
				all = append(all, s)
			}
		}
		if len(list) < page {
			break
		}
	}
	for after := lodestone.Email(""); ; {
		list, next, err := store.SuppressedAgain(ctx, after, 5000)
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
		if after = next; after == "" {
			break
		}
	}
	slices.SortStableFunc(all, func(a, b lodestone.Suppression) int { return a.At.Compare(b.At) })
	return func(_ context.Context, each func(*Record) error) error {
		for i := range all {
			if err := each(&Record{Message: event.Message{Time: all[i].At.UTC()}, Suppressed: &all[i]}); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

// streamed reads a stream as far as it goes now.
func streamed(js jetstream.JetStream, name string, seal *event.Seal) Source {
	return func(ctx context.Context, each func(*Record) error) error {
		stream, err := js.Stream(ctx, name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		state := stream.CachedInfo().State
		if state.Msgs == 0 {
			return nil
		}
		all := jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy}
		return broker.Stored(ctx, js, name, all, state.LastSeq, 5000, func(m jetstream.Msg, meta *jetstream.MsgMetadata) error {
			r := Record{Stream: name, Message: event.Message{
				Subject: m.Subject(), Header: map[string][]string(m.Headers()), Data: m.Data(),
				Seq: meta.Sequence.Stream, Time: meta.Timestamp.UTC(),
			}}
			seal.Open(&r.Message)
			return each(&r)
		})
	}
}

// journal makes records of what was decided. A submission gets what is known of its lead now, because what
// was submitted is not kept.
func journal(store Store) Source {
	return func(ctx context.Context, each func(*Record) error) error {
		for after := uint64(0); ; {
			entries, err := store.Journal(ctx, after, 1000)
			if err != nil || len(entries) == 0 {
				return err
			}
			for i := range entries {
				e := &entries[i]
				after = e.Seq
				r, err := recorded(ctx, store, e)
				if err != nil {
					return err
				}
				if r == nil {
					continue
				}
				if err := each(r); err != nil {
					return err
				}
			}
		}
	}
}

// recorded makes the record of an entry, nil when it is about neither a submission nor a signal.
func recorded(ctx context.Context, store Store, e *lodestone.Entry) (*Record, error) {
	if g := e.Signal; g != nil && g.Reason == "" {
		data, err := json.Marshal(map[string]any{"email": e.Lead})
		return &Record{Stream: sequencer.SignalsStream, Message: event.Message{
			Subject: event.SignalsPrefix + string(g.Kind), Data: data, Seq: g.StreamSeq, Time: g.At.UTC(),
			Header: map[string][]string{"Nats-Msg-Id": {g.ID}},
		}}, err
	}
	d := e.Decision
	if d == nil || d.Reason == lodestone.ReasonDuplicate {
		return nil, nil
	}
	st, err := store.State(ctx, e.Lead)
	if err != nil || st.Lead == nil {
		return nil, err // erased since
	}
	body := map[string]any{"fields": st.Lead.Profile, "backfill": d.Reason == lodestone.ReasonBackfill}
	if st.Lead.Consent != nil {
		body["context"] = map[string]any{"consent": st.Lead.Consent}
	}
	data, err := json.Marshal(body)
	return &Record{Stream: sequencer.FormsStream, Message: event.Message{
		Subject: event.FormsPrefix + d.Form, Data: data, Seq: d.StreamSeq, Time: d.SubmittedAt.UTC(),
		Header: map[string][]string{"Nats-Msg-Id": {d.Submission}},
	}}, err
}

// merged gives the records of several sources in the order of their time.
func merged(sources ...Source) Source {
	return func(ctx context.Context, each func(*Record) error) error {
		g, ctx := errgroup.WithContext(ctx)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		feeds := make([]chan *Record, len(sources)) // each closed by its source
		for i, src := range sources {
			feeds[i] = make(chan *Record, 4096)
			g.Go(func() error {
				defer close(feeds[i])
				return src(ctx, func(r *Record) error {
					select {
					case feeds[i] <- r:
						return nil
					case <-ctx.Done():
						return ctx.Err()
					}
				})
			})
		}
		err := merge(feeds, each)
		if err != nil {
			cancel()
			_ = g.Wait() // it ends because we did
			return err
		}
		return g.Wait()
	}
}

func merge(feeds []chan *Record, each func(*Record) error) error {
	heads := make([]*Record, len(feeds))
	for i := range feeds {
		heads[i] = <-feeds[i]
	}
	for {
		first := -1
		for i, h := range heads {
			if h != nil && (first < 0 || h.Message.Time.Before(heads[first].Message.Time)) {
				first = i
			}
		}
		if first < 0 {
			return nil
		}
		if err := each(heads[first]); err != nil {
			return err
		}
		heads[first] = <-feeds[first]
	}
}
