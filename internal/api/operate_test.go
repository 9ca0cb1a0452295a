package api_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/internal/api"
	"github.com/lodestonehq/lodestone/rules"
	"github.com/lodestonehq/lodestone/scheduler"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
	"github.com/lodestonehq/lodestone/sequencer"
)

const operateRules = `
forms:
  guide: {fields: {email: {type: email, required: true}}}
scoring: {bands: {any: 0}}
sequences:
  three:
    when: 'true'
    reenter: always
    steps:
      - {name: one, do: referralrock.invite, with: {firstName: there}}
      - {name: two, after: 1h, do: referralrock.invite, with: {firstName: there}}
      - {name: three, after: 1h, do: referralrock.invite, with: {firstName: there}}
`

func operateBook(t testing.TB) *sequencer.Rulebook {
	t.Helper()
	set, err := rules.Compile([]rules.File{{Name: "rules.yaml", Data: []byte(operateRules)}}, rules.Options{Operations: map[string]lodestone.Operation{
		"referralrock.invite": {Name: "referralrock.invite", Parameters: []lodestone.Parameter{{Name: "firstName", Type: lodestone.FieldText, Required: true}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return sequencer.NewRulebook(set)
}

// TestWhatPeopleDoKeepsTheBalance lets outcomes and people's words about touchpoints come in any order and
// asks the store whether indexes, chains and counts still agree with the leads.
func TestWhatPeopleDoKeepsTheBalance(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	ctx := t.Context()
	store, err := boltstore.Open(t.TempDir(), boltstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	book := operateBook(t)
	client := api.Direct((&api.Server{Store: store, Rulebook: func() *sequencer.Rulebook { return book }}).Handler())
	start := time.Now().UTC()
	commit := func(email lodestone.Email, ev func(*lodestone.Lead) sequencer.Event) {
		t.Helper()
		_, err := store.Commit(ctx, sequencer.Batch{Writes: []sequencer.Write{{Email: email, Plan: func(st sequencer.State) (sequencer.Change, error) {
			e := ev(st.Lead)
			if e == nil {
				return sequencer.Change{}, sequencer.ErrMoved
			}
			return sequencer.Plan(st.Lead, e, book, time.Now().UTC())
		}}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	ids := map[string]bool{}
	ends := []lodestone.TouchpointState{lodestone.TouchpointSent, lodestone.TouchpointFailed, lodestone.TouchpointHeld, lodestone.TouchpointUnknown, lodestone.TouchpointScheduled}
	done := map[sequencer.Operation]int{}
	for n := range 1500 {
		email := lodestone.Email(fmt.Sprintf("lead%d@example.com", rnd.IntN(12)))
		switch rnd.IntN(4) {
		case 0:
			commit(email, func(*lodestone.Lead) sequencer.Event {
				return &sequencer.Submitted{Submission: lodestone.Submission{ID: fmt.Sprint(n), Form: "guide", Email: email, Fields: lodestone.FieldsOf(map[string]any{"email": string(email)}), At: start, Received: start, Seq: uint64(n + 1)}}
			})
		case 1, 2:
			commit(email, func(l *lodestone.Lead) sequencer.Event {
				if l == nil || len(l.Enrollments) == 0 || l.Enrollments[0].Touchpoint == nil {
					return nil
				}
				tp := l.Enrollments[0].Touchpoint
				ids[tp.ID] = true
				m := sequencer.Moved{Touchpoint: tp.ID, From: tp.State, DueAt: start, Reason: lodestone.ReasonAccepted}
				switch tp.State {
				case lodestone.TouchpointScheduled:
					m.To, m.Reason = lodestone.TouchpointIntended, ""
				case lodestone.TouchpointIntended:
					m.To = ends[rnd.IntN(len(ends))]
				case lodestone.TouchpointUnknown:
					m.To, m.Looked = ends[rnd.IntN(3)], true
				default:
					return nil
				}
				return m
			})
		default:
			for id := range ids {
				op := []sequencer.Operation{sequencer.Retry, sequencer.Retry, sequencer.Cancel, sequencer.Skip, sequencer.Confirm}[rnd.IntN(5)]
				var got api.Operated
				err := client.Call(ctx, "POST", "/api/v1/touchpoints/"+id, nil, api.Operate{Operation: op, Sure: true, By: "test"}, &got)
				var p *api.Problem
				switch {
				case err == nil:
					done[op]++
				case !errors.As(err, &p) || p.Status != 409:
					t.Fatalf("%s %s: %v", op, id, err)
				}
				break
			}
		}
	}
	for _, op := range []sequencer.Operation{sequencer.Retry, sequencer.Cancel, sequencer.Skip, sequencer.Confirm} {
		if done[op] == 0 {
			t.Errorf("%s was never carried out", op)
		}
	}
	faults, err := store.Check(ctx)
	if err != nil || len(faults) > 0 {
		t.Errorf("after %v: %v %v", done, faults, err)
	}
	counts, err := store.Counts(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, state := range []lodestone.TouchpointState{lodestone.TouchpointSent, lodestone.TouchpointFailed, lodestone.TouchpointCancelled, lodestone.TouchpointSkipped} {
		if rows, err := store.Ended(ctx, state, 5000); err != nil || uint64(len(rows)) != counts[state] {
			t.Errorf("%d touchpoints are listed as %s and %d are counted: %v", len(rows), state, counts[state], err)
		}
	}
}

// TestReleaseOnce releases what could not be used from two sides at once.
func TestReleaseOnce(t *testing.T) {
	ctx := t.Context()
	store, err := boltstore.Open(t.TempDir(), boltstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	book := operateBook(t)
	const n = 1200
	var b sequencer.Batch
	at := time.Now().UTC().Add(-time.Hour).Truncate(time.Second)
	for i := range n {
		subject := "lodestone.forms.guide"
		data := fmt.Sprintf(`{"email": "lead%d@example.com"}`, i)
		switch i % 3 {
		case 1:
			subject, data = "lodestone.signals.opened", fmt.Sprintf(`{"email": "lead%d@example.com"}`, i-1)
		case 2:
			subject = "lodestone.forms.unknown"
		}
		b.Attention = append(b.Attention, lodestone.Attention{
			ID: fmt.Sprintf("id %d", i), Kind: lodestone.AttentionSubmission, Reason: lodestone.ReasonUnknownForm, At: at.Add(time.Minute),
			Seq: uint64(i + 1), Subject: subject, Header: map[string][]string{"Nats-Msg-Id": {fmt.Sprintf("id %d", i)}}, Data: []byte(data), Received: at,
		})
	}
	if _, err := store.Commit(ctx, b); err != nil {
		t.Fatal(err)
	}
	client := api.Direct((&api.Server{Store: store, Rulebook: func() *sequencer.Rulebook { return book }}).Handler())
	released := make(chan int, 2)
	for range 2 {
		go func() {
			total := 0
			q := api.Release{All: true, By: "test"}
			for {
				var part api.Released
				if err := client.Call(context.WithoutCancel(ctx), "POST", "/api/v1/release", nil, q, &part); err != nil {
					t.Error(err)
					break
				}
				total += len(part.Released)
				if q.After = part.After; len(q.After) == 0 {
					break
				}
			}
			released <- total
		}()
	}
	if got := <-released + <-released; got != n/3*2 {
		t.Errorf("%d were released, want %d", got, n/3*2)
	}
	_, left, err := store.Attention(ctx, 1)
	if err != nil || left != n/3 {
		t.Errorf("%d are left, want %d: %v", left, n/3, err)
	}
	for i := 0; i < n; i += 3 {
		p, err := store.Person(ctx, lodestone.Email(fmt.Sprintf("lead%d@example.com", i)), 10)
		if err != nil {
			t.Fatal(err)
		}
		l := p.Lead
		if l == nil || l.Submissions != 1 || !l.FirstSeen.Equal(at) || !l.Signals["opened"].Equal(at) || l.Active().StartedAt != at {
			t.Fatalf("lead%d is %+v, want one submission and one signal of %v", i, l, at)
		}
	}
	if faults, err := store.Check(ctx); err != nil || len(faults) > 0 {
		t.Errorf("%v %v", faults, err)
	}
}

// countingStore counts the touchpoints that are read in the order of their due times.
type countingStore struct {
	*boltstore.Store
	rows int
}

func (s *countingStore) Waiting(ctx context.Context, lane, after string, until time.Time, fn func(boltstore.Row) bool) (string, error) {
	return s.Store.Waiting(ctx, lane, after, until, func(r boltstore.Row) bool { s.rows++; return fn(r) })
}

// TestResumeReadsEachOnce: what is resumed in parts is not read anew with every part.
func TestResumeReadsEachOnce(t *testing.T) {
	ctx := t.Context()
	store, err := boltstore.Open(t.TempDir(), boltstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	book, now := operateBook(t), time.Now().UTC()
	const leads = 3500
	var b sequencer.Batch
	for i := range leads {
		email := lodestone.Email(fmt.Sprintf("lead%d@example.com", i))
		b.Writes = append(b.Writes, sequencer.Write{Email: email, Plan: func(st sequencer.State) (sequencer.Change, error) {
			return sequencer.Plan(st.Lead, &sequencer.Submitted{Submission: lodestone.Submission{ID: "1", Form: "guide", Email: email, Fields: lodestone.FieldsOf(map[string]any{"email": string(email)}), At: now, Received: now}}, book, now)
		}}, sequencer.Write{Email: email, Plan: func(st sequencer.State) (sequencer.Change, error) {
			return sequencer.Plan(st.Lead, sequencer.Moved{
				Touchpoint: st.Lead.Active().Touchpoint.ID, From: lodestone.TouchpointScheduled, To: lodestone.TouchpointScheduled,
				Reason: lodestone.ReasonPaused, DueAt: now.Add(5 * time.Minute),
			}, book, now)
		}})
	}
	if _, err := store.Commit(ctx, b); err != nil {
		t.Fatal(err)
	}
	if err := store.SetPaused(ctx, "all", &scheduler.Pause{At: now}, nil); err != nil {
		t.Fatal(err)
	}
	counting := &countingStore{Store: store}
	client := api.Direct((&api.Server{Store: counting, Rulebook: func() *sequencer.Rulebook { return book }}).Handler())
	var done api.Resumed
	if err := client.Call(ctx, "POST", "/api/v1/resume", nil, api.PauseScope{Scope: "all", By: "ada"}, &done); err != nil {
		t.Fatal(err)
	}
	if done.Due != leads || counting.rows > leads {
		t.Errorf("%d of %d are due again, for which %d were read", done.Due, leads, counting.rows)
	}
}

// TestExportIsWhole: what is under attention about a person is given out, however much else is.
func TestExportIsWhole(t *testing.T) {
	ctx := t.Context()
	store, err := boltstore.Open(t.TempDir(), boltstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	var b sequencer.Batch
	for i := range 10_001 {
		b.Attention = append(b.Attention, lodestone.Attention{ID: fmt.Sprintf("%05d", i), Kind: lodestone.AttentionSubmission, Email: "kim@example.com", At: time.Now()})
	}
	b.Attention = append(b.Attention, lodestone.Attention{ID: "last", Kind: lodestone.AttentionSubmission, Email: "ada@example.com", At: time.Now()})
	if _, err := store.Commit(ctx, b); err != nil {
		t.Fatal(err)
	}
	client := api.Direct((&api.Server{Store: store, Rulebook: func() *sequencer.Rulebook { return nil }}).Handler())
	x, err := client.Export(ctx, "ada@example.com")
	if err != nil || len(x.Attention) != 1 {
		t.Errorf("%d items, %v; want the one about ada", len(x.Attention), err)
	}
}
