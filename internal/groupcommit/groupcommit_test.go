package groupcommit_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lodestonehq/lodestone/internal/groupcommit"
)

func TestQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sizes []int
		seen := map[int]int{}
		q := groupcommit.New(100, func(batch []*int) { // never two at a time, so no lock
			time.Sleep(time.Second)
			sizes = append(sizes, len(batch))
			for _, n := range batch {
				seen[*n]++
				*n = -*n
			}
		})
		var all sync.WaitGroup
		for i := 1; i <= 251; i++ {
			all.Go(func() {
				n := i
				if err := q.Do(t.Context(), &n); err != nil || n != -i {
					t.Errorf("Do(%d) = %v and left %d, want nil and %d", i, err, n, -i)
				}
			})
			if i == 1 {
				synctest.Wait() // the first is under way alone; the others gather behind it
			}
		}
		all.Wait()
		if got := len(seen); got != 251 {
			t.Errorf("%d items were worked on, want 251", got)
		}
		if want := []int{1, 100, 100, 50}; len(sizes) != 4 || sizes[0] != want[0] || sizes[1] != want[1] || sizes[3] != want[3] {
			t.Errorf("batches of %v, want %v", sizes, want)
		}
	})
}

func TestQueueCallerGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		worked := 0
		q := groupcommit.New(10, func(batch []int) { time.Sleep(time.Minute); worked += len(batch) })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := q.Do(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Do = %v, want the deadline", err)
		}
		if err := q.Do(t.Context(), 2); err != nil || worked != 2 {
			t.Errorf("the next Do = %v with %d items worked on, want nil and 2", err, worked)
		}
	})
}

// One that comes while nothing is under way is worked off by its caller; those that come meanwhile are a batch, and
// what Alone was given ends with its context.
func TestQueueAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string // never two at a time, so no lock
		q := groupcommit.New(10, func(batch []*int) {
			time.Sleep(time.Second)
			order = append(order, fmt.Sprint("batch of ", len(batch)))
		})
		q.Alone = func(ctx context.Context, n *int) {
			select {
			case <-ctx.Done():
				order = append(order, fmt.Sprint(*n, " given up"))
			case <-time.After(time.Second):
				order = append(order, fmt.Sprint(*n, " alone"))
			}
		}
		do := func(ctx context.Context, n int) {
			if err := q.Do(ctx, &n); err != nil {
				t.Errorf("Do(%d) = %v, want nil", n, err)
			}
		}
		for round := range 2 { // the second finds the queue idle again
			var all sync.WaitGroup
			for i := range 4 {
				all.Go(func() { do(t.Context(), i+4*round) })
				synctest.Wait()
			}
			all.Wait()
			synctest.Wait() // what worked off the batch has ended
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		do(ctx, 8)
		if got, want := strings.Join(order, ", "), "0 alone, batch of 3, 4 alone, batch of 3, 8 given up"; got != want {
			t.Errorf("%s; want %s", got, want)
		}
	})
}
