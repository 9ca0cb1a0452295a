// Package events tells the outside what happened: it reads the journal in order and publishes each
// fact as a CloudEvent to LODESTONE_EVENTS.
//
// The journal is the outbox. What is committed there is published at least once, also after a crash,
// and an event has the same id each time, so that a reader can tell a repeat. Publishing is behind,
// never in front of, the decision: a broker that is away delays the news and nothing else.
package events

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/sequencer/failpoint"
)

// Cursor is the name of the publisher's position in the journal.
const Cursor = "events"

// Store is the journal with a position that is kept.
type Store interface {
	Journal(ctx context.Context, after uint64, limit int) ([]lodestone.Entry, error)
	Cursor(ctx context.Context, name string) (uint64, error)
	SetCursor(ctx context.Context, name string, seq uint64) error
}

// Publisher publishes messages that are all stored and synced when it returns nil.
type Publisher interface {
	PublishBatch(ctx context.Context, msgs []*nats.Msg) error
}

// Outbox publishes the journal.
type Outbox struct {
	Store    Store
	Publish  Publisher
	Instance string // of the store; part of every event's id
	Log      *slog.Logger

	woken chan struct{}
	turn  chan struct{} // held from reading the journal until what was read is published
	doubt error         // of the last try to publish; guarded by turn
}

// New makes an outbox. It does nothing until Run.
func New(store Store, publish Publisher, instance string, log *slog.Logger) *Outbox {
	return &Outbox{Store: store, Publish: publish, Instance: instance, Log: log, woken: make(chan struct{}, 1), turn: make(chan struct{}, 1)}
}

// Settle waits until nothing is on its way that was read from the journal before: what is published after it returns
// was read after it was called. The error says that it is not known whether something still is, because the last try
// to publish failed and none succeeded since.
func (o *Outbox) Settle(ctx context.Context) error {
	select {
	case o.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-o.turn }()
	if o.doubt != nil {
		return fmt.Errorf("whether events were published is not known: %w", o.doubt)
	}
	return nil
}

// next publishes what stands in the journal behind a position, and says how far it came and whether there was anything.
func (o *Outbox) next(ctx context.Context, at uint64) (to uint64, some bool, err error) {
	o.turn <- struct{}{}
	defer func() { <-o.turn }()
	entries, err := o.Store.Journal(ctx, at, batch)
	if err != nil || len(entries) == 0 {
		return at, false, err
	}
	failpoint.Hit(failpoint.BeforePublish)
	if o.doubt = o.publish(ctx, entries); o.doubt != nil {
		return at, true, o.doubt
	}
	failpoint.Hit(failpoint.AfterPublish)
	return entries[len(entries)-1].Seq, true, nil // also when ctx is done by now: it was published
}

// Wake says that there is something new in the journal.
func (o *Outbox) Wake() {
	select {
	case o.woken <- struct{}{}:
	default:
	}
}

const (
	batch = 250 // entries at a time; each makes a few events, an atomic batch takes a thousand
	// linger lets what follows closely share a batch, because each one costs the disk a sync that
	// intake and sending want too.
	linger = 200 * time.Millisecond
	// keepEvery is how often the position is stored while there is much to publish. What is published
	// again after a crash has the same ids.
	keepEvery = 2 * time.Second
)

// Run publishes until ctx is done.
func (o *Outbox) Run(ctx context.Context) error {
	at, err := o.Store.Cursor(ctx, Cursor)
	if err != nil {
		return err
	}
	kept, keptAt := at, time.Now()
	keep := func(ctx context.Context) {
		if at == kept {
			return
		}
		if err := o.Store.SetCursor(ctx, Cursor, at); err != nil {
			o.Log.ErrorContext(ctx, "cannot store how far events were published", "error", err)
			return
		}
		failpoint.Hit(failpoint.CursorKept)
		kept, keptAt = at, time.Now()
	}
	defer func() { keep(context.WithoutCancel(ctx)) }()
	delay := time.Second
	for {
		to, some, err := o.next(ctx, at)
		at = to
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			o.Log.WarnContext(ctx, "cannot publish events; trying again", "error", err, "in", delay)
			sleep(ctx, delay)
			delay = min(2*delay, time.Minute)
		case !some:
			keep(ctx)
			select {
			case <-ctx.Done():
				return nil
			case <-o.woken:
				sleep(ctx, linger)
			}
		default:
			delay = time.Second
			if time.Since(keptAt) > keepEvery {
				keep(ctx)
			}
		}
	}
}

func (o *Outbox) publish(ctx context.Context, entries []lodestone.Entry) error {
	var msgs []*nats.Msg
	for i := range entries {
		for n, ev := range Of(&entries[i]) {
			id := fmt.Sprintf("%s-%d-%d", o.Instance, entries[i].Seq, n)
			body, err := json.Marshal(envelope{
				SpecVersion: "1.0", ID: id, Source: sourcePrefix + o.Instance, Type: "lodestone." + ev.Name,
				Time: entries[i].At, ContentType: "application/json", Data: ev.Data,
			})
			if err != nil {
				return err
			}
			msgs = append(msgs, &nats.Msg{Subject: "lodestone.events." + ev.Name, Data: body, Header: nats.Header{
				"Content-Type": {"application/cloudevents+json"}, nats.MsgIdHdr: {id},
			}})
		}
	}
	if len(msgs) == 0 {
		return nil
	}
	return o.Publish.PublishBatch(ctx, msgs)
}

// envelope is a CloudEvent, version 1.0, in structured mode.
type envelope struct {
	SpecVersion string    `json:"specversion"`
	ID          string    `json:"id"`
	Source      string    `json:"source"`
	Type        string    `json:"type"`
	Time        time.Time `json:"time"`
	ContentType string    `json:"datacontenttype"`
	Data        any       `json:"data"`
}

// Touchpoint reads an event about a touchpoint as it was published: its data, the instance that
// published it, and when it happened.
func Touchpoint(message []byte) (t TouchpointData, instance string, at time.Time, err error) {
	e := envelope{Data: &t}
	if err := json.Unmarshal(message, &e); err != nil {
		return t, "", time.Time{}, err
	}
	instance, ok := strings.CutPrefix(e.Source, sourcePrefix)
	if !ok || e.SpecVersion != "1.0" {
		return t, "", time.Time{}, fmt.Errorf("an event of %q, not of ours", e.Source)
	}
	return t, instance, e.Time, nil
}

// sourcePrefix begins the source of every event; the instance follows.
const sourcePrefix = "lodestone/"

// Event is one thing to tell: <noun>.<verb> and its data.
type Event struct {
	Name string
	Data any
}

// The data of the events. Every one names the lead, but for a rejected submission, which may have
// none.
type (
	submissionData struct {
		Email      lodestone.Email  `json:"email,omitempty"`
		Submission string           `json:"submission"`
		Form       string           `json:"form"`
		Reason     lodestone.Reason `json:"reason"`
	}
	leadData struct {
		Email        lodestone.Email `json:"email"`
		Submission   string          `json:"submission"`
		Score        int             `json:"score"`
		Band         string          `json:"band"`
		PreviousBand string          `json:"previous_band,omitempty"`
		Rules        string          `json:"rules"`
	}
	enrollmentData struct {
		Email lodestone.Email `json:"email"`
		lodestone.EnrollmentEntry
	}
	// TouchpointData is the data of an event about a touchpoint.
	TouchpointData struct {
		Email     lodestone.Email           `json:"email"`
		ID        string                    `json:"id"`
		Sequence  string                    `json:"sequence"`
		Step      string                    `json:"step"`
		Operation string                    `json:"operation,omitempty"`
		State     lodestone.TouchpointState `json:"state"`
		Reason    lodestone.Reason          `json:"reason,omitempty"`
		DueAt     time.Time                 `json:"due_at,omitzero"`
		Reference string                    `json:"reference,omitempty"`
		Variant   string                    `json:"variant,omitempty"`
	}
)

// Of lists the events that a journal entry stands for, in order; an entry always gives the same
// ones.
func Of(e *lodestone.Entry) []Event {
	var list []Event
	if r := e.Rejected; r != nil && !r.Signal {
		list = append(list, Event{"submission.rejected", submissionData{"", r.ID, r.Form, r.Reason}})
	}
	if d := e.Decision; d != nil && d.Reason != lodestone.ReasonDuplicate && d.Reason != lodestone.ReasonErased {
		list = append(list,
			Event{"submission.accepted", submissionData{e.Lead, d.Submission, d.Form, d.Reason}},
			Event{"lead.scored", leadData{e.Lead, d.Submission, d.Score, d.Band, d.PreviousBand, d.Rules}})
		if d.Band != d.PreviousBand {
			list = append(list, Event{"lead.band_changed", leadData{e.Lead, d.Submission, d.Score, d.Band, d.PreviousBand, d.Rules}})
		}
	}
	for _, n := range e.Enrollments {
		verb := "started"
		if n.State != lodestone.EnrollmentActive {
			verb = "ended"
		}
		list = append(list, Event{"enrollment." + verb, enrollmentData{e.Lead, n}})
	}
	for _, n := range e.Touchpoints {
		verb := string(n.State)
		switch {
		case n.Reason == lodestone.ReasonPlanned, n.Reason == lodestone.ReasonReopened, n.State == lodestone.TouchpointScheduled && (n.Reason == lodestone.ReasonRetried || n.Reason == lodestone.ReasonAddressConfirmed):
			verb = "scheduled"
		case n.State == lodestone.TouchpointScheduled, n.Reason == lodestone.ReasonBraked: // put off, and nothing was called
			verb = "deferred"
		case n.State == lodestone.TouchpointIntended:
			continue // an intent is no news yet
		case n.State == lodestone.TouchpointHeld:
			verb = "unknown" // for a human to settle; the state in the data says so
		}
		list = append(list, Event{"touchpoint." + verb, TouchpointData{
			e.Lead, n.ID, n.Sequence, n.Step, n.Operation, n.State, n.Reason, n.DueAt, n.Reference, n.Variant,
		}})
	}
	return list
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
