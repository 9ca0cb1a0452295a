package boltstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/scheduler"
	"github.com/lodestonehq/lodestone/sequencer"
)

// model is what the store should hold, kept in maps: no pages, no indexes, no transactions.
type model struct {
	leads     map[lodestone.Email][]byte
	suppress  map[lodestone.Email]bool
	totals    map[string]uint64
	attention map[sequencer.ItemKey]lodestone.Attention // but for what says that a brake holds something
	failed    []sequencer.ItemKey                       // of touchpoints that failed, also such as are settled by now
	started   map[string]map[int64]int                  // by sequence and minute
	held      map[string]int                            // by a brake, by sequence
	paused    map[string]scheduler.Pause
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
		st.Starts = m.starts
		if w.Settles != nil {
			item, ok := m.attention[*w.Settles]
			if !ok {
				continue
			}
			st.Item = &item
		}
		c, err := w.Plan(st)
		if err != nil {
			continue
		}
		if w.Settles != nil {
			delete(m.attention, *w.Settles)
		}
		if e := c.Entry; e != nil {
			m.seq++
			m.count(e)
			if c.Lead != nil {
				c.Lead.Journal = m.seq
			}
		}
		if c.Lead != nil {
			eachBraked(st.Lead, func(e *lodestone.Enrollment) { m.held[e.Sequence]-- })
			eachBraked(c.Lead, func(e *lodestone.Enrollment) { m.held[e.Sequence]++ })
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
		if c.Started != "" {
			m.start(c.Started, c.Entry.At)
		}
		for _, id := range c.Resolved {
			delete(m.attention, sequencer.ItemKey{AttentionKey: sequencer.AttentionKey{Kind: lodestone.AttentionTouchpoint, ID: id}})
		}
		m.attend(c.Attention)
	}
	m.attend(b.Attention)
	for range b.Attention {
		m.seq++
		m.totals["//submission.rejected"]++
	}
	if b.Stream != "" {
		m.mark = b.Watermark.Seq
	}
}

func (m *model) attend(items []lodestone.Attention) {
	for _, a := range items {
		key := sequencer.KeyOf(&a)
		m.attention[key] = a
		if a.Enrollment != nil {
			m.failed = append(m.failed, key)
		}
	}
}

func (m *model) starts(sequence string, since time.Time) (n int) {
	for minute, k := range m.started[sequence] {
		if minute >= since.Unix()/60 {
			n += k
		}
	}
	return n
}

func (m *model) start(sequence string, at time.Time) {
	if m.started[sequence] == nil {
		m.started[sequence] = map[int64]int{}
	}
	m.started[sequence][at.Unix()/60]++
	if m.started[sequence][at.Unix()/60] == 1 { // a clock that is put back does not bring back what was forgotten
		maps.DeleteFunc(m.started[sequence], func(minute int64, _ int) bool { return minute < at.Add(-keepStarts).Unix()/60 })
	}
}

// doubt reports whether a person is asked what came of a touchpoint of the lead.
func (m *model) doubt(t *testing.T, who lodestone.Email) bool {
	v, ok := m.leads[who]
	if !ok {
		return false
	}
	var l lodestone.Lead
	if _, err := l.UnmarshalMsg(v); err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(l.Enrollments, func(e lodestone.Enrollment) bool {
		tp := e.Touchpoint
		return tp != nil && !sequencer.IsBraked(tp) && (tp.State == lodestone.TouchpointHeld || tp.State == lodestone.TouchpointUnknown)
	})
}

// pick draws a touchpoint that failed and that nobody has decided about.
func (m *model) pick(rng *rand.Rand) (key sequencer.ItemKey, ok bool) {
	for len(m.failed) > 0 {
		i := rng.IntN(len(m.failed))
		key = m.failed[i]
		if _, ok = m.attention[key]; ok {
			return key, true
		}
		m.failed = slices.Delete(m.failed, i, i+1)
	}
	return key, false
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
		if n.Reason == lodestone.ReasonReopened {
			m.totals[n.Sequence+"/"+n.Step+"/touchpoint.reopened"]++
		}
		if n.Reason == lodestone.ReasonPlanned || n.Reason == lodestone.ReasonReopened {
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
// what a provider can answer and a look-up find, any other step of a touchpoint, persons' words on touchpoints
// and on what a brake holds, pauses of every scope, opt-outs by hand, clock jumps, refused batches, restarts,
// compactions and pruning, and compares the two after every step: the lead concerned, the
// counts and guarantee 5's balance; now and then everything. MODEL_SEED repeats a history, MODEL_STEPS
// says how long it is (CI: 100,000). The file is not synced, which has tests of its own.
func TestModel(t *testing.T) {
	steps, seed := History(t, 5_000)
	rng := rand.New(rand.NewPCG(seed, 0))
	ctx, dir, book := context.Background(), t.TempDir(), rulebookOf(t, ruleFile+"    brake: {enrollments: 2, per: 1h}\n")
	m := &model{
		leads: map[lodestone.Email][]byte{}, suppress: map[lodestone.Email]bool{}, totals: map[string]uint64{}, attention: map[sequencer.ItemKey]lodestone.Attention{},
		started: map[string]map[int64]int{}, held: map[string]int{}, paused: map[string]scheduler.Pause{},
	}
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
		var what string // the single write does; counted once it is known whether it was refused
		switch k := rng.IntN(1000); {
		case k < 300:
			did["submissions"]++
			sub := lodestone.Submission{ID: fmt.Sprint(step), Form: "guide", Email: who, At: now, Received: now, Backfill: rng.IntN(20) == 0,
				Fields: lodestone.FieldsOf(map[string]any{"email": string(who), "size": float64(rng.IntN(100))})}
			if rng.IntN(10) == 0 {
				sub.ID = fmt.Sprint(step - 1 - rng.IntN(50)) // perhaps a repeat
			}
			b.Writes = append(b.Writes, sequencer.Write{Email: who, Plan: func(st sequencer.State) (sequencer.Change, error) {
				return sequencer.Plan(st.Lead, &sequencer.Submitted{Submission: sub, Starts: st.Starts}, book, now)
			}})
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
		case k < 700:
			draw, which, later := rng.IntN(4), rng.IntN(8), now.Add(time.Duration(rng.IntN(180))*time.Minute)
			b.Writes = append(b.Writes, onTouchpoint(who, which, func(l *lodestone.Lead, tp *lodestone.Touchpoint) (sequencer.Change, error) {
				ev := sequencer.Moved{Touchpoint: tp.ID, From: tp.State}
				what = answer(&ev, tp, draw, now, later)
				if what == "" {
					return sequencer.Change{}, sequencer.ErrMoved
				}
				return sequencer.Plan(l, ev, book, now)
			}))
		case k < 770:
			op := []sequencer.Operation{sequencer.Retry, sequencer.Retry, sequencer.Cancel, sequencer.Skip, sequencer.Confirm}[rng.IntN(5)]
			ev := sequencer.Operated{Operation: op, Sure: rng.IntN(4) > 0, Operator: lodestone.OperatorEntry{By: "test", Command: string(op)}}
			if key, ok := m.pick(rng); ok && rng.IntN(2) == 0 {
				what, who = string(op)+" of failed", m.attention[key].Email
				b.Writes = append(b.Writes, sequencer.Write{Email: who, Settles: &key, Plan: func(st sequencer.State) (sequencer.Change, error) {
					ev := ev
					ev.Touchpoint, ev.Item = key.ID, st.Item
					return sequencer.Plan(st.Lead, ev, book, now)
				}})
				break
			}
			for range rng.IntN(2) * 16 { // half of them look for one whose outcome is open
				if m.doubt(t, who) {
					break
				}
				who = email()
			}
			b.Writes = append(b.Writes, onTouchpoint(who, rng.IntN(8), func(l *lodestone.Lead, tp *lodestone.Touchpoint) (sequencer.Change, error) {
				what = fmt.Sprintf("%s of %s", op, tp.State)
				ev := ev
				ev.Touchpoint = tp.ID
				return sequencer.Plan(l, ev, book, now)
			}))
		case k < 790:
			undo := rng.IntN(2) == 0
			what = map[bool]string{false: "release of what a brake holds", true: "undo of what a brake holds"}[undo]
			list, err := s.Braked(ctx, "all")
			if err != nil {
				fail("%v", err)
			}
			if len(list) > 0 && rng.IntN(4) > 0 { // else all of it at once
				i := rng.IntN(len(list))
				list = list[i : i+1]
			}
			for _, held := range list {
				who = held.Email
				b.Writes = append(b.Writes, write(held.Email, book, now, sequencer.Braked{Touchpoint: held.Touchpoint, Undo: undo}))
			}
		case k < 800:
			scope := []string{"all", "sequence all", "sequence hot", "connector first", "connector second"}[rng.IntN(5)]
			p := &scheduler.Pause{At: now, By: "test"}
			if _, ok := m.paused[scope]; ok && rng.IntN(2) == 0 {
				p = nil
				delete(m.paused, scope)
				did["resume "+scope]++
			} else {
				m.paused[scope] = *p
				did["pause "+scope]++
			}
			if err := s.SetPaused(ctx, scope, p, &lodestone.Entry{At: now, Operator: &lodestone.OperatorEntry{By: "test", Subject: scope}}); err != nil {
				fail("%v", err)
			}
			m.seq++
		case k < 980:
			did["touchpoint steps"]++
			to, later := outcomes[rng.IntN(len(outcomes))], now.Add(time.Duration(rng.IntN(180))*time.Minute)
			b.Writes = append(b.Writes, onTouchpoint(who, rng.IntN(8), func(l *lodestone.Lead, tp *lodestone.Touchpoint) (sequencer.Change, error) {
				return sequencer.Plan(l, sequencer.Moved{Touchpoint: tp.ID, From: tp.State, To: to, DueAt: later, GivenUp: now}, book, now)
			}))
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
			did["readers' positions"]++
			if err := s.SetCursor(ctx, "reader", m.seq); err != nil {
				fail("%v", err)
			}
		}
		if len(b.Writes)+len(b.Attention) > 0 {
			results, err := s.Commit(ctx, b)
			if err != nil {
				fail("%v", err)
			}
			for _, r := range results {
				var refused *sequencer.RefusedError
				switch {
				case what == "":
				case r.Err == nil:
					did[what]++
				case errors.As(r.Err, &refused):
					did["refused persons' words"]++
				case !errors.Is(r.Err, sequencer.ErrMoved):
					fail("%s: %v", what, r.Err)
				}
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
	for _, what := range []string{
		"accepted", "refused", "unknown", "not done", "found", "found absent", "nothing found", "given up",
		"retry of held", "retry of unknown", "retry of failed", "cancel of scheduled", "cancel of failed", "release of what a brake holds", "undo of what a brake holds",
		"pause all", "resume all", "pause sequence all", "resume sequence all", "pause connector first", "resume connector first",
	} {
		if did[what] == 0 && steps >= 20_000 {
			t.Errorf("%s: it never happened", what)
		}
	}
}

// onTouchpoint plans over one of the lead's touchpoints that no brake holds.
func onTouchpoint(who lodestone.Email, which int, plan func(*lodestone.Lead, *lodestone.Touchpoint) (sequencer.Change, error)) sequencer.Write {
	return sequencer.Write{Email: who, Plan: func(st sequencer.State) (sequencer.Change, error) {
		var open []*lodestone.Touchpoint
		if st.Lead != nil {
			for i := range st.Lead.Enrollments {
				if tp := st.Lead.Enrollments[i].Touchpoint; tp != nil && !sequencer.IsBraked(tp) {
					open = append(open, tp)
				}
			}
		}
		if len(open) == 0 {
			return sequencer.Change{}, sequencer.ErrMoved
		}
		return plan(st.Lead, open[which%len(open)])
	}}
}

// answer makes of a step what the scheduler makes of a provider's answer, or of what a look-up finds, and
// names it; "" where there is nothing to be answered.
func answer(ev *sequencer.Moved, tp *lodestone.Touchpoint, draw int, now, later time.Time) string {
	switch tp.State {
	case lodestone.TouchpointScheduled:
		ev.To, ev.Parameters = lodestone.TouchpointIntended, map[string]any{"a": "b"}
		return "intent"
	case lodestone.TouchpointIntended:
		switch draw {
		case 0:
			ev.To, ev.Reference, ev.Status = lodestone.TouchpointSent, "reference", 200
			return "accepted"
		case 1:
			ev.To, ev.Detail, ev.Status = lodestone.TouchpointFailed, "no such member", 400
			return "refused"
		case 2:
			ev.To, ev.GivenUp, ev.DueAt = lodestone.TouchpointUnknown, now, later
			return "unknown"
		}
		ev.To, ev.Counted, ev.DueAt, ev.Status = lodestone.TouchpointScheduled, true, later, 503
		return "not done"
	case lodestone.TouchpointUnknown:
		ev.Looked, ev.Intended = true, tp.Intended
		switch draw {
		case 0:
			ev.To, ev.Reference = lodestone.TouchpointSent, "reference"
			return "found"
		case 1:
			ev.To, ev.Counted, ev.DueAt = lodestone.TouchpointScheduled, true, later
			return "found absent"
		case 2:
			ev.To, ev.DueAt = lodestone.TouchpointUnknown, later
			return "nothing found"
		}
		ev.To, ev.Detail = lodestone.TouchpointHeld, "the look-up proves nothing"
		return "given up"
	}
	return ""
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
		if bytes.HasSuffix([]byte(k), []byte("touchpoint.reopened")) {
			scheduled -= n // it was scheduled twice
		}
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
	if held, err := s.Held(t.Context(), "all"); err != nil || held != m.held["all"] {
		fail("the brake holds %d, want %d: %v", held, m.held["all"], err)
	}
	if paused, err := s.Paused(t.Context()); err != nil || !maps.Equal(paused, m.paused) {
		fail("paused are %v, want %v: %v", paused, m.paused, err)
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
		e := &l.Enrollments[i]
		if e.Touchpoint != nil {
			all = append(all, "now", *e.Touchpoint)
		}
		if e.Parked != nil {
			all = append(all, "parked", *e.Parked)
		}
		e.Touchpoint, e.Parked = nil, nil
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
	states, err := s.Counts(t.Context())
	if err != nil {
		fail("%v", err)
	}
	var scheduled uint64
	held := map[string]int{}
	for _, v := range m.leads {
		var l lodestone.Lead
		if _, err := l.UnmarshalMsg(v); err != nil {
			t.Fatal(err)
		}
		eachBraked(&l, func(e *lodestone.Enrollment) { held[e.Sequence]++ })
		for _, e := range l.Enrollments {
			if e.Touchpoint != nil && e.Touchpoint.State == lodestone.TouchpointScheduled {
				scheduled++
			}
			if e.Parked != nil {
				scheduled++
			}
		}
	}
	if states[lodestone.TouchpointScheduled] != scheduled || held["all"] != m.held["all"] {
		fail("%d are scheduled and %d held by a brake, the leads have %d and %d", states[lodestone.TouchpointScheduled], m.held["all"], scheduled, held["all"])
	}
	items, _, err := s.Attention(t.Context(), 1_000_000)
	if err != nil {
		fail("%v", err)
	}
	want := maps.Clone(m.attention)
	if held["all"] > 0 {
		want[sequencer.ItemKey{AttentionKey: sequencer.AttentionKey{Kind: lodestone.AttentionEnrollment, ID: "all"}}] = lodestone.Attention{Reason: lodestone.ReasonBraked}
	}
	for _, a := range items {
		key := sequencer.KeyOf(&a)
		if w, ok := want[key]; !ok || w.Reason != a.Reason {
			fail("under attention is %+v, want %+v", a, w)
		}
		delete(want, key)
	}
	if len(want) > 0 {
		fail("not under attention: %v", want)
	}
}
