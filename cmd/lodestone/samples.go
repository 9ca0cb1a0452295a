package main

import (
	"context"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/connectors/sandbox"
	"github.com/lodestonehq/lodestone/internal/api"
	"github.com/lodestonehq/lodestone/internal/app"
	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/sequencer/event"
)

// sample is one submission of the demo.
type sample struct {
	say     string // what the reader should know before it comes
	id      string
	form    string
	fields  map[string]any
	consent bool
	raw     string // published as it is, instead of fields
	fault   *sandbox.Fault
}

// samples show each way a submission can go.
var samples = []sample{
	{say: "A large company asks for the pricing guide.",
		id: "1", form: "pricing-guide", fields: map[string]any{"email": "cto@bigco.example", "first_name": "Grace", "company_size": 1500, "country": "DE"}},
	{say: "A partner sent Ada, who works at a large company as well.",
		id: "2", form: "pricing-guide", fields: map[string]any{"email": "ada@bigco.example", "first_name": "Ada", "company_size": 1200, "country": "GB", "referral_code": "ADA2026"}},
	{say: "The browser sends the same submission once more.",
		id: "2", form: "pricing-guide", fields: map[string]any{"email": "ada@bigco.example", "first_name": "Ada", "company_size": 1200, "country": "GB", "referral_code": "ADA2026"}},
	{say: "Somebody who unsubscribed at the provider long ago; nobody here knows of it yet.",
		id: "3", form: "pricing-guide", fields: map[string]any{"email": "unsubscribed@example.com", "company_size": 5000, "country": "US"}},
	{say: "A submission breaks on its way.",
		id: "4", form: "pricing-guide", raw: `{"email": "torn@example.com", "company_si`},
	{say: "A competitor looks around.",
		id: "5", form: "pricing-guide", fields: map[string]any{"email": "spy@rival.example", "company_size": 2000}},
	{say: "The provider will be overloaded for a moment when this one is due, and asks to come back later.",
		id: "6", form: "pricing-guide", fields: map[string]any{"email": "lin@acme.example", "first_name": "Lin", "company_size": 3000, "country": "FR"},
		fault: &sandbox.Fault{Kind: sandbox.Fault503, Operation: "invite", Email: "lin@acme.example", Times: 2, RetryAfter: "1"}},
	{say: "A partner sent Sam. The provider will take the referral, and its answer will get lost.",
		id: "7", form: "pricing-guide", fields: map[string]any{"email": "sam@workshop.example", "first_name": "Sam", "referral_code": "INES1042"},
		fault: &sandbox.Fault{Kind: sandbox.FaultResetAfterEffect, Operation: "refer", Email: "sam@workshop.example", Times: 1}},
	{say: "Kim comes to a webinar and agrees to hear from us.",
		id: "8", form: "webinar", fields: map[string]any{"email": "kim@studio.example", "first_name": "Kim", "job_title": "Head of Design"}, consent: true},
	{say: "Joe comes as well, and does not.",
		id: "9", form: "webinar", fields: map[string]any{"email": "joe@studio.example", "first_name": "Joe", "job_title": "Founder"}},
}

// between is the pause between two samples, for reading.
const between = 1500 * time.Millisecond

// play publishes the samples one after the other and waits until their stories are told. A sample
// whose form the rules do not declare is shown like any other: it ends under attention.
func play(ctx context.Context, b *broker.Broker, box *sandbox.Server, n *narrator) {
	for _, s := range samples {
		if s.fault != nil {
			if err := box.Fault(*s.fault); err != nil {
				n.say("the sandbox refused a fault: " + err.Error())
			}
		}
		n.say("\n" + s.say)
		if err := s.publish(ctx, b); err != nil {
			if ctx.Err() == nil {
				n.say("could not be published: " + err.Error())
			}
			return
		}
		if !wait(ctx, between) {
			return
		}
	}
	// The longest way through the starter rules is two days.
	wait(ctx, 22*time.Second)
}

func (s *sample) publish(ctx context.Context, b *broker.Broker) error {
	subject, err := event.SubmissionSubject(s.form)
	if err != nil {
		return err
	}
	m := &nats.Msg{Subject: subject, Data: []byte(s.raw), Header: nats.Header{}}
	if s.raw == "" {
		var ctx lodestone.Context
		if s.consent {
			ctx.Consent = &lodestone.Consent{Marketing: true, Text: "Yes, send me news"}
		}
		if m.Data, err = event.NewSubmission(s.id, "demo", s.form, time.Time{}, s.fields, &ctx, false); err != nil {
			return err
		}
		m.Header.Set("Content-Type", event.ContentType)
	}
	_, err = b.JetStream().PublishMsg(ctx, m)
	return err
}

// wait waits for d; false when ctx was done first.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// tally is what the demo ends with: every number from the store's own roll-up, and the provider's own
// count beside it.
type tally struct {
	published  uint64 // in the stream
	effects    int    // that the provider counted
	violations int
	counts     map[string]uint64 // by what
	states     map[lodestone.TouchpointState]uint64
}

// takeTally counts until two counts in a row agree, because the worker goes on meanwhile.
func takeTally(ctx context.Context, w *app.Worker, box *sandbox.Server) (*tally, error) {
	last, err := countOnce(ctx, w, box)
	for range 100 {
		if err != nil {
			return nil, err
		}
		var again *tally
		if again, err = countOnce(ctx, w, box); err == nil && reflect.DeepEqual(last, again) {
			break
		}
		last = again
	}
	return last, err
}

func countOnce(ctx context.Context, w *app.Worker, box *sandbox.Server) (*tally, error) {
	t := &tally{counts: map[string]uint64{}, effects: box.Effects().Total, violations: len(box.Violations())}
	_, _, last, err := w.Broker().StreamIdentity(ctx, broker.FormsStream)
	if err != nil {
		return nil, err
	}
	t.published = last
	var totals api.Totals
	if err := w.Client().Call(ctx, "GET", "/api/v1/totals", nil, nil, &totals); err != nil {
		return nil, err
	}
	for _, c := range totals.Counts {
		t.counts[c.What] += c.N
	}
	var q api.Queue
	if err := w.Client().Call(ctx, "GET", "/api/v1/queue", nil, nil, &q); err != nil {
		return nil, err
	}
	t.states = q.Counts
	return t, nil
}

// write prints the tally, and says so when it does not balance: that would be a fault of ours.
func (t *tally) write(w io.Writer) error {
	n := func(what string) uint64 { return t.counts[what] }
	s := t.states
	fmt.Fprintln(w, "\nThe tally, from what was stored:")
	table(w, "  ", [][]string{
		{"submissions", fmt.Sprintf("%d published = %d accepted + %d repeated + %d kept for a human + %d not read yet", t.published,
			n("submission.accepted"), n("submission.duplicate"), n("submission.rejected"), t.unread())},
		{"enrollments", fmt.Sprintf("%d started = %s + %d active", n("enrollment.started"), t.ends(), t.active())},
		{"touchpoints", fmt.Sprintf("%d planned = %d sent + %d skipped + %d cancelled + %d failed + %d of unknown outcome + %d waiting", n("touchpoint.scheduled"),
			s[lodestone.TouchpointSent], s[lodestone.TouchpointSkipped], s[lodestone.TouchpointCancelled], s[lodestone.TouchpointFailed],
			s[lodestone.TouchpointUnknown]+s[lodestone.TouchpointHeld], s[lodestone.TouchpointScheduled]+s[lodestone.TouchpointIntended])},
		{"provider", fmt.Sprintf("counted %d effects and %d breaches of its specification", t.effects, t.violations)},
	})
	sent, open := s[lodestone.TouchpointSent], s[lodestone.TouchpointUnknown]+s[lodestone.TouchpointHeld]+s[lodestone.TouchpointIntended]
	if effects := uint64(t.effects); effects < sent || effects > sent+open {
		return fmt.Errorf("the provider counted %d effects, and %d touchpoints were sent: this should be impossible, please report it", effects, sent)
	}
	if t.active() < 0 || t.violations > 0 {
		return fmt.Errorf("the tally does not balance: this should be impossible, please report it")
	}
	fmt.Fprintln(w, "It balances: every submission, enrollment and touchpoint is accounted for, and nothing was sent twice.")
	return nil
}

func (t *tally) unread() int64 {
	return int64(t.published - t.counts["submission.accepted"] - t.counts["submission.duplicate"] - t.counts["submission.rejected"] - t.counts["submission.backfill"])
}

// endStates are the ends of enrollments in the order in which they are told.
var endStates = []lodestone.EnrollmentState{
	lodestone.EnrollmentCompleted, lodestone.EnrollmentConverted, lodestone.EnrollmentExited, lodestone.EnrollmentSuperseded,
	lodestone.EnrollmentUnsubscribed, lodestone.EnrollmentSuppressed, lodestone.EnrollmentErased, lodestone.EnrollmentCancelled,
}

func (t *tally) ends() string {
	var parts []string
	for _, s := range endStates {
		if c := t.counts["enrollment."+string(s)]; c > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", c, s))
		}
	}
	if len(parts) == 0 {
		return "0 ended"
	}
	return strings.Join(parts, " + ")
}

func (t *tally) active() int64 {
	left := int64(t.counts["enrollment.started"])
	for _, s := range endStates {
		left -= int64(t.counts["enrollment."+string(s)])
	}
	return left
}
