package replay_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/replay"
	"github.com/lodestonehq/lodestone/internal/simulate"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/sequencer"
	"github.com/lodestonehq/lodestone/sequencer/event"
)

const ruleFile = `
forms:
  guide:
    fields:
      email: {type: email, required: true}
      other: {type: email}
      name: {type: text}
      size: {type: number}
scoring:
  bands: {hot: 50, warm: 20, cold: 0}
  rules:
    - {name: business, when: not lead.freemail, points: 20}
    - {name: large, when: fields.size >= 100, points: 40}
    - {name: again, when: lead.submissions > 1, points: 10, each: true, half_life: 30d}
sequences:
  hot:
    when: band == "hot"
    priority: 10
    exit: signals.converted
    steps:
      - {name: invite, after: 10m, do: provider.invite, with: {firstName: '${fields.name ?? "there"}'}}
      - {name: again, after: 2d, do: provider.invite, with: {firstName: there}}
  warm:
    when: band == "warm"
    steps: [{name: wait, after: 2d, do: provider.invite, with: {firstName: there}}]
`

func options() rules.Options {
	return rules.Options{Operations: map[string]lodestone.Operation{"provider.invite": {Name: "invite", Parameters: []lodestone.Parameter{
		{Name: "firstName", Type: lodestone.FieldText, Required: true},
	}}}}
}

func compile(t testing.TB, edits ...string) *rules.Set {
	t.Helper()
	text := strings.NewReplacer(edits...).Replace(ruleFile)
	if len(edits) > 0 && text == ruleFile {
		t.Fatalf("%q changes nothing", edits)
	}
	set, err := rules.Compile([]rules.File{{Name: "rules.yaml", Data: []byte(text)}}, options())
	if err != nil {
		t.Fatal(err)
	}
	return set
}

var start = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

func submission(n int, at time.Time, fields map[string]any) *replay.Record {
	data, err := json.Marshal(map[string]any{"fields": fields})
	if err != nil {
		panic(err)
	}
	return &replay.Record{Stream: sequencer.FormsStream, Message: event.Message{
		Subject: "lodestone.forms.guide", Data: data, Seq: uint64(n), Time: at, Header: map[string][]string{"Nats-Msg-Id": {fmt.Sprint(n)}},
	}}
}

func signal(kind, email string, at time.Time) *replay.Record {
	return &replay.Record{Stream: sequencer.SignalsStream, Message: event.Message{
		Subject: "lodestone.signals." + kind, Data: []byte(`{"email": "` + email + `"}`), Seq: 1, Time: at,
	}}
}

func from(records ...*replay.Record) replay.Source {
	return func(_ context.Context, each func(*replay.Record) error) error {
		for _, r := range records {
			if err := each(r); err != nil {
				return err
			}
		}
		return nil
	}
}

func run(t testing.TB, now, then *rules.Set, src replay.Source, head replay.Head) *replay.Report {
	t.Helper()
	dir := t.TempDir()
	r, err := replay.Run(t.Context(), head, src, replay.Options{
		Now: now, Then: then, Accounts: simulate.Accounts(options()), Rates: map[string]float64{"provider": 1}, Sample: 10, Dir: dir,
	})
	if err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("temporary files are left: %v %v", left, err)
	}
	return r
}

func TestWhatWouldChange(t *testing.T) {
	now := compile(t)
	then := compile(t, "hot: 50", "hot: 20", "warm: 20", "warm: 10", "after: 2d, do", "after: 3d, do")
	past := from(
		submission(1, start, map[string]any{"email": "ada@big.example", "size": 500}),
		submission(2, start.Add(time.Minute), map[string]any{"email": "kim@studio.example"}),
		submission(3, start.Add(2*time.Minute), map[string]any{"email": "joe@gmail.com"}),
		submission(4, start.Add(3*time.Minute), map[string]any{"email": "nobody"}),
		signal("converted", "ada@big.example", start.Add(time.Hour)),
		&replay.Record{Message: event.Message{Time: start.Add(time.Hour)}, Suppressed: &lodestone.Suppression{Email: "kim@studio.example", Source: "operator", At: start.Add(time.Hour)}},
		submission(5, start.Add(2*time.Hour), map[string]any{"email": "joe@gmail.com", "size": 100}),
	)
	r := run(t, now, then, past, replay.Head{Source: replay.FromStream, Submissions: 5, Active: []replay.Active{
		{Sequence: "hot", Version: now.Sequence("hot").Version, Enrollments: 3, Some: []lodestone.Email{"ada@bigco.example", "joe@example.com"}}, {Sequence: "gone", Version: "v", Enrollments: 1},
		{Sequence: "warm", Version: then.Sequence("warm").Version, Enrollments: 9},
	}})
	// kim: warm now and put off by the suppression before the two days are over; hot then, and invited after ten minutes.
	want := &replay.Report{
		Source: "stream", Rules: replay.Pair[string]{Now: now.Version, Then: then.Version}, From: start, To: start.Add(2 * time.Hour),
		Submissions: 5, Signals: 1, Rejected: replay.Pair[int]{Now: 1, Then: 1}, Leads: 3,
		Changed:   replay.Changed{Leads: 1, Band: 1, Sequence: 1},
		Bands:     []replay.Band{{Band: "hot", Pair: replay.Pair[int]{Now: 2, Then: 3}}, {Band: "warm", Pair: replay.Pair[int]{Now: 1}}, {Band: "cold"}},
		Sequences: []replay.Sequence{{Sequence: "hot", Pair: replay.Pair[int]{Now: 2, Then: 3}}, {Sequence: "warm", Pair: replay.Pair[int]{Now: 1}}},
		// ada is invited and converts; joe gets both steps; kim's invitation goes out then before the suppression.
		Touchpoints: replay.Pair[int]{Now: 3, Then: 4},
		Days: []replay.Day{
			{Day: "2026-03-02", Pair: replay.Pair[int]{Now: 2, Then: 3}}, {Day: "2026-03-04", Pair: replay.Pair[int]{Now: 1}}, {Day: "2026-03-05", Pair: replay.Pair[int]{Then: 1}},
		},
		MidFlight: []replay.MidFlight{
			{Sequence: "hot", Version: now.Sequence("hot").Version, Then: "changed", ThenVersion: then.Sequence("hot").Version, Enrollments: 3, Some: []lodestone.Email{"ada@bigco.example", "joe@example.com"}},
			{Sequence: "gone", Version: "v", Then: "removed", Enrollments: 1},
		},
		Providers: []replay.Provider{{Connector: "provider", Rate: 1,
			Now:  replay.Load{Touchpoints: 3, PeakMinute: 1, PeakHour: 1, Wait: 2},
			Then: replay.Load{Touchpoints: 4, PeakMinute: 1, PeakHour: 2, Wait: 2}}},
		Sample: []replay.Difference{{Email: "kim@studio.example", Score: replay.Pair[int]{Now: 20, Then: 20},
			Band: replay.Pair[string]{Now: "warm", Then: "hot"}, Sequence: replay.Pair[string]{Now: "warm", Then: "hot"}, Lines: []replay.LineDifference{}}},
	}
	if !reflect.DeepEqual(r, want) {
		a, _ := json.MarshalIndent(r, "", " ")
		b, _ := json.MarshalIndent(want, "", " ")
		t.Errorf("report\n%s\nwant\n%s", a, b)
	}
	var text, md bytes.Buffer
	r.Text(&text)
	r.Markdown(&md)
	if !strings.Contains(text.String(), "kim@studio.example") || strings.Contains(md.String(), "kim@") || !strings.Contains(md.String(), "| k…@studio.example | 20 | warm → hot | warm → hot |") {
		t.Errorf("text\n%s\nmarkdown\n%s", text.String(), md.String())
	}
}

// A candidate may take another field for the lead's address: the submission is then another lead's.
func TestAnotherFieldHoldsTheAddress(t *testing.T) {
	then := compile(t, "email: {type: email, required: true}", "contact: {type: email}", "other: {type: email}", "email: {type: email, required: true}", "name: {type: text}", "name: {type: text}")
	now := compile(t, "email: {type: email, required: true}", "contact: {type: email, required: true}", "other: {type: email}", "email2: {type: text}")
	r := run(t, now, then, from(submission(1, start, map[string]any{"contact": "ada@big.example", "email": "bob@big.example"})), replay.Head{Submissions: 2_000_000})
	if r.Leads != 2 || r.Changed.Leads != 2 || len(r.Sample) != 2 {
		t.Errorf("%d leads, %d of them change, %d shown; want 2 of each: %+v", r.Leads, r.Changed.Leads, len(r.Sample), r.Sample)
	}
}

// A past that is sent arrives as it was, and one that breaks off is never taken for the whole.
func TestAPastThatIsSent(t *testing.T) {
	records := []*replay.Record{
		submission(1, start, map[string]any{"email": "ada@big.example"}),
		signal("opened", "ada@big.example", start.Add(time.Second)),
		{Message: event.Message{Time: start}, Suppressed: &lodestone.Suppression{Email: "x@y.example", Reason: "asked", Source: "operator", At: start}},
	}
	records[0].Message.Header["Two"] = []string{"a", "b"}
	head := replay.Head{Source: replay.FromStream, Submissions: 1, Version: "v", Files: []rules.File{{Name: "a.yaml", Data: []byte("forms:\n")}}}
	var sent bytes.Buffer
	if err := replay.Write(t.Context(), &sent, head, from(records...)); err != nil {
		t.Fatal(err)
	}
	read := func(data []byte) (got []*replay.Record, err error) {
		h, src, err := replay.Read(bytes.NewReader(data))
		if err != nil {
			return nil, err
		}
		if !reflect.DeepEqual(h, head) {
			t.Errorf("head %+v, want %+v", h, head)
		}
		return got, src(t.Context(), func(r *replay.Record) error { got = append(got, r); return nil })
	}
	got, err := read(sent.Bytes())
	if err != nil || !reflect.DeepEqual(got, records) {
		t.Errorf("read back %+v, %v", got, err)
	}
	body := bytes.IndexByte(sent.Bytes(), '\n') + 1
	for n := body; n < sent.Len(); n++ {
		if _, err := read(sent.Bytes()[:n]); err == nil {
			t.Fatalf("cut after %d of %d bytes, and nothing is said", n, sent.Len())
		}
	}
	broken := errors.New("the disk is gone")
	sent.Reset()
	err = replay.Write(t.Context(), &sent, head, func(context.Context, func(*replay.Record) error) error { return broken })
	if !errors.Is(err, broken) {
		t.Errorf("Write = %v", err)
	}
	if _, err := read(sent.Bytes()); err == nil || !strings.Contains(err.Error(), "the disk is gone") {
		t.Errorf("the reader hears %v", err)
	}
}
