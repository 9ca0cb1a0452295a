package scheduler_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/sequencer"
)

// After a long stop one sequence has very many overdue. What falls due in another goes out at its time, the
// overdue ones oldest first at the provider's rate.
func TestOverdueOfOneSequenceHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const overdue = 5000
		b := newBench(t)
		b.acct.Concurrency = 1
		b.p.reserve = func() { time.Sleep(100 * time.Millisecond) } // 10/s
		var batch sequencer.Batch
		begin := b.now().UTC()
		for i := range overdue {
			email, at := lead(i), begin.Add(time.Duration(i)*time.Millisecond)
			sub := lodestone.Submission{ID: fmt.Sprint(i), Form: "guide", Email: email, Fields: lodestone.FieldsOf(map[string]any{"email": string(email)}), At: at, Received: at}
			batch.Writes = append(batch.Writes, sequencer.Write{Email: email, Plan: func(st sequencer.State) (sequencer.Change, error) {
				return sequencer.Plan(st.Lead, &sequencer.Submitted{Submission: sub}, b.book.Load(), at)
			}})
		}
		if _, err := b.store.Commit(context.Background(), batch); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * 24 * time.Hour)
		b.start()
		after(10 * time.Second)
		for i := range 3 {
			b.submit(lodestone.Email(fmt.Sprintf("new%d@example.com", i)), map[string]any{"kind": "steps"}, nil) // due at once
		}
		after(2 * time.Second)
		for i := range 3 {
			h := b.history(lodestone.Email(fmt.Sprintf("new%d@example.com", i)))
			if !slices.Contains(h, "first sent accepted") {
				t.Errorf("new%d waits behind %d that are overdue in another sequence: %q", i, overdue, h)
			}
		}
		b.end()
		next := 0
		for _, call := range b.p.asked() {
			if call == "do "+string(lead(next)) {
				next++
			} else if strings.HasPrefix(call, "do lead") {
				t.Fatalf("%q out of order, want %s next", call, lead(next))
			}
		}
		if next < 100 || next > 120 {
			t.Errorf("%d of the overdue were sent in 12 s, want about 117 at 10/s", next)
		}
	})
}
