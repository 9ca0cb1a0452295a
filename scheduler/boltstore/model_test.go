package boltstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/sequencer"
)

// model is what the store should hold, kept in maps: no pages, no indexes, no transactions.
type model struct {
	leads     map[lodestone.Email][]byte
	suppress  map[lodestone.Email]bool
	totals    map[string]uint64
	attention int
	seq       uint64 // of the journal
	mark      uint64
}

// apply does to the model what a batch should do to the store.
func (m *model) apply(t *testing.T, b sequencer.Batch) {
	t.Helper()
	for _, w := range b.Writes {
		var st sequencer.State
		if v, ok := m.leads[w.Email]; ok {
			st.Lead = new(lodestone.Lead)
			if _, err := st.Lead.UnmarshalMsg(v); err != nil {
				t.Fatal(err)
			}
		}
		if m.suppress[w.Email] {
			st.Suppression = &lodestone.Suppression{Email: w.Email}
		}
		c, err := w.Plan(st)
		if err != nil {
			continue
		}
		if e := c.Entry; e != nil {
			m.seq++
			m.count(e)
			if c.Lead != nil {
				c.Lead.Journal = m.seq
			}
		}
		if c.Lead != nil {
			if m.leads[w.Email], err = c.Lead.MarshalMsg(nil); err != nil {
				t.Fatal(err)
			}
		}
		if c.Suppress != nil {
			m.suppress[w.Email] = true
		}
		if c.Release {
			delete(m.suppress, w.Email)
		}
	}
	for range b.Attention {
		m.seq++
		m.totals["//submission.rejected"]++
		m.attention++
	}
	if b.Stream != "" {
		m.mark = b.Watermark.Seq
	}
}

func (m *model) count(e *lodestone.Entry) {
	if d := e.Decision; d != nil {
		what := map[lodestone.Reason]string{lodestone.ReasonDuplicate: "duplicate", lodestone.ReasonBackfill: "backfill"}[d.Reason]
		if what == "" {
			what = "accepted"
		}
		m.totals["//submission."+what]++
	}
	for _, n := range e.Enrollments {
		what := "started"
		if n.State != lodestone.EnrollmentActive {
			what = string(n.State)
		}
		m.totals[n.Sequence+"//enrollment."+what]++
	}
	for _, n := range e.Touchpoints {
		if n.Reason == lodestone.ReasonPlanned {
			m.totals[n.Sequence+"/"+n.Step+"/touchpoint.scheduled"]++
		} else if !n.State.Pending() {
			m.totals[n.Sequence+"/"+n.Step+"/touchpoint."+string(n.State)]++
		}
	}
}

// pending lists what waits or is open, from the leads alone.
func (m *model) pending(t *testing.T) (all []string) {
	for email, v := range m.leads {
		var l lodestone.Lead
		if _, err := l.UnmarshalMsg(v); err != nil {
			t.Fatal(err)
		}
		for _, e := range l.Enrollments {
			if tp := e.Touchpoint; tp != nil {
				all = append(all, fmt.Sprint(email, " ", tp.ID, " ", tp.State, " ", tp.Connector))
			}
		}
	}
	slices.Sort(all)
	return all
}

// TestModel drives the store and the model through one random history of submissions, repeats, signals,
// steps of touchpoints with every outcome, opt-outs by hand, clock jumps, refused batches, restarts,
// compactions and pruning, and compares the two after every step: the lead concerned, the
// counts and guarantee 5's balance; now and then everything. MODEL_SEED repeats a history, MODEL_STEPS
// says how long it is (CI: 100,000). The file is not synced, which has tests of its own.
func TestModel(t *testing.T) {
	steps, seed := 5_000, uint64(time.Now().UnixNano())
	for name, to := range map[string]func(uint64){"MODEL_SEED": func(n uint64) { seed = n }, "MODEL_STEPS": func(n uint64) { steps = int(n) }} {
		if v := os.Getenv(name); v != "" {
			n, err := strconv.ParseUint(v, 10, 64)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			to(n)
		}
	}
	t.Logf("MODEL_SEED=%d MODEL_STEPS=%d", seed, steps)
	rng := rand.New(rand.NewPCG(seed, 0))
	ctx, dir, book := context.Background(), t.TempDir(), rulebook(t)
	m := &model{leads: map[lodestone.Email][]byte{}, suppress: map[lodestone.Email]bool{}, totals: map[string]uint64{}}
	var s *Store
	reopen := func() {
		var err error
		if s != nil {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if s, err = Open(dir, Options{}); err != nil {
			t.Fatal(err)
		}
		s.db.Load().NoSync = true
	}
	reopen()
	defer func() { s.Close() }()
	now, did := start, map[string]int{}
	email := func() lodestone.Email { return lodestone.Email(fmt.Sprintf("lead%d@example.com", rng.IntN(40))) }
	outcomes := []lodestone.TouchpointState{
		lodestone.TouchpointIntended, lodestone.TouchpointIntended, lodestone.TouchpointSent, lodestone.TouchpointSent, lodestone.TouchpointUnknown,
		lodestone.TouchpointScheduled, lodestone.TouchpointHeld, lodestone.TouchpointFailed, lodestone.TouchpointSkipped, lodestone.TouchpointCancelled,
	}
	for step := range steps {
		fail := func(format string, args ...any) {
			t.Helper()
			t.Fatalf("MODEL_SEED=%d, step %d: %s", seed, step, fmt.Sprintf(format, args...))
		}
		if rng.IntN(500) == 0 {
			now = now.Add(time.Duration(rng.IntN(72)-24) * time.Hour) // also back
			did["clock jumps"]++
		}
		now = now.Add(time.Duration(rng.IntN(120)) * time.Second)
		who := email()
		var b sequencer.Batch
		switch k := rng.IntN(1000); {
		case k < 300:
			did["submissions"]++
			sub := lodestone.Submission{ID: fmt.Sprint(step), Form: "guide", Email: who, At: now, Received: now, Backfill: rng.IntN(20) == 0,
				Fields: map[string]any{"email": string(who), "size": float64(rng.IntN(100))}}
			if rng.IntN(10) == 0 {
				sub.ID = fmt.Sprint(step - 1 - rng.IntN(50)) // perhaps a repeat
			}
			b.Writes = append(b.Writes, write(who, book, now, sequencer.Submitted{Submission: sub}))
			b.Stream, b.Watermark = "S", sequencer.Watermark{Created: start, Seq: m.mark + 1 + uint64(rng.IntN(2))}
		case k < 340:
			did["signals"]++
			kind := []lodestone.SignalKind{"opened", "converted", "unsubscribed", "bounced"}[rng.IntN(4)]
			b.Writes = append(b.Writes, write(who, book, now, sequencer.Signalled{Signal: lodestone.Signal{ID: fmt.Sprint("g", step), Kind: kind, Email: who, At: now}}))
		case k < 360:
			did["opt-outs by hand"]++
			b.Writes = append(b.Writes, write(who, book, now, sequencer.Suppressed{Suppression: lodestone.Suppression{Email: who, Source: "operator", At: now}, Removed: rng.IntN(2) == 0}))
		case k < 370:
			did["rejected"]++
			b.Attention = append(b.Attention, lodestone.Attention{ID: fmt.Sprint("r", step), Kind: lodestone.AttentionSubmission, Reason: lodestone.ReasonNoEmail, At: now, Seq: uint64(step)})
		case k < 980:
			did["touchpoint steps"]++
			to, later := outcomes[rng.IntN(len(outcomes))], now.Add(time.Duration(rng.IntN(180))*time.Minute)
			b.Writes = append(b.Writes, sequencer.Write{Email: who, Plan: func(st sequencer.State) (sequencer.Change, error) {
				if st.Lead == nil || len(st.Lead.Enrollments) == 0 {
					return sequencer.Change{}, sequencer.ErrMoved
				}
				tp := st.Lead.Enrollments[len(st.Lead.Enrollments)-1].Touchpoint
				if tp == nil {
					return sequencer.Change{}, sequencer.ErrMoved
				}
				return sequencer.Plan(st.Lead, sequencer.Moved{Touchpoint: tp.ID, From: tp.State, To: to, DueAt: later, GivenUp: now}, book, now)
			}})
		case k < 985:
			did["refused batches"]++
			done, cancel := context.WithCancel(ctx)
			cancel()
			_, _ = s.Commit(done, sequencer.Batch{}) // changes nothing, taken or not
		case k < 992:
			did["restarts"]++
			reopen()
		case k < 995:
			did["compactions"]++
			if _, err := s.Compact(ctx, time.Minute); err != nil {
				fail("%v", err)
			}
			s.db.Load().NoSync = true
		case k < 998:
			did["prunings"]++
			if _, err := s.PruneJournal(ctx, now.Add(-48*time.Hour)); err != nil {
				fail("%v", err)
			}
		default:
			did["paused and resumed"]++
			if err := errors.Join(s.SetCursor(ctx, "reader", m.seq), s.SetPaused(ctx, "all", nil, nil)); err != nil {
				fail("%v", err)
			}
		}
		if len(b.Writes)+len(b.Attention) > 0 {
			if _, err := s.Commit(ctx, b); err != nil {
				fail("%v", err)
			}
			m.apply(t, b)
		}
		m.compare(t, s, who, fail)
		if step%1000 == 999 {
			faults, err := s.Check(ctx)
			if err != nil || len(faults) > 0 {
				fail("check: %v %v", err, faults)
			}
			m.compareAll(t, s, fail)
		}
	}
	m.compareAll(t, s, func(format string, args ...any) { t.Fatalf(format, args...) })
	t.Logf("%d steps, %d leads, %d journal entries: %v", steps, len(m.leads), m.seq, did)
}

// compare holds one lead, the counts and the balance of guarantee 5 against the model.
func (m *model) compare(t *testing.T, s *Store, who lodestone.Email, fail func(string, ...any)) {
	t.Helper()
	st, err := s.State(t.Context(), who)
	if err != nil {
		fail("%v", err)
	}
	var got []byte
	if st.Lead != nil {
		if got, err = st.Lead.MarshalMsg(nil); err != nil {
			fail("%v", err)
		}
	}
	if !sameLead(t, got, m.leads[who]) || (st.Suppression != nil) != m.suppress[who] {
		fail("%s is\n%q, want\n%q; suppressed %v, want %v", who, got, m.leads[who], st.Suppression != nil, m.suppress[who])
	}
	counts, err := s.Totals(t.Context())
	if err != nil {
		fail("%v", err)
	}
	totals := map[string]uint64{}
	for _, c := range counts {
		totals[c.Sequence+"/"+c.Step+"/"+c.What] = c.N
	}
	if !maps.Equal(totals, m.totals) {
		fail("counts are %v, want %v", totals, m.totals)
	}
	states, err := s.Counts(t.Context())
	if err != nil {
		fail("%v", err)
	}
	var scheduled, accounted uint64
	for k, n := range totals {
		if bytes.HasSuffix([]byte(k), []byte("touchpoint.scheduled")) {
			scheduled += n
		}
	}
	for _, n := range states {
		accounted += n
	}
	if scheduled != accounted {
		fail("%d touchpoints were scheduled and %d are accounted for: %v", scheduled, accounted, states)
	}
	if mark, _ := s.Watermark(t.Context(), "S"); mark.Seq != m.mark {
		fail("the watermark is %d, want %d", mark.Seq, m.mark)
	}
}

// sameLead compares two encoded leads by what they say: maps have no order.
func sameLead(t *testing.T, a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	if a == nil || b == nil {
		return false
	}
	var x, y lodestone.Lead
	if _, err := x.UnmarshalMsg(a); err != nil {
		t.Fatal(err)
	}
	if _, err := y.UnmarshalMsg(b); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%+v", deref(x)) == fmt.Sprintf("%+v", deref(y))
}

// deref writes out what pointers lead to.
func deref(l lodestone.Lead) []any {
	all := []any{l.Consent == nil}
	for i := range l.Enrollments {
		if tp := l.Enrollments[i].Touchpoint; tp != nil {
			all = append(all, *tp)
		}
		l.Enrollments[i].Touchpoint = nil
	}
	l.Consent = nil
	return append(all, l)
}

// compareAll holds every lead and both indexes against the model.
func (m *model) compareAll(t *testing.T, s *Store, fail func(string, ...any)) {
	t.Helper()
	for who := range m.leads {
		m.compare(t, s, who, fail)
	}
	var got []string
	rows, err := s.Queue(t.Context(), "", 1_000_000)
	if err != nil {
		fail("%v", err)
	}
	for _, r := range rows {
		got = append(got, fmt.Sprint(r.Email, " ", r.ID, " ", r.State, " ", r.Connector))
	}
	slices.Sort(got)
	if want := m.pending(t); !slices.Equal(got, want) {
		fail("pending are\n%v, want\n%v", got, want)
	}
	if _, n, err := s.Attention(t.Context(), 1); err != nil || n < m.attention {
		fail("%d items under attention, want at least %d: %v", n, m.attention, err)
	}
}
