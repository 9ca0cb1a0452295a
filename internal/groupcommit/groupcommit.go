// Package groupcommit lets callers share what is dear, such as a sync of the disk: while one batch is
// being written the next one gathers. A lone caller waits for nobody, and no delay is added.
package groupcommit

import (
	"context"
	"sync"
)

// Queue gathers items and works them off in the order they came, one batch at a time. It is safe for
// concurrent use.
type Queue[T any] struct {
	max  int
	work func([]T)

	mu      sync.Mutex // guards what follows
	waiting []entry[T]
	running bool
}

type entry[T any] struct {
	item T
	done chan struct{}
}

// New makes a queue whose batches have at most max items. What work finds out about an item it
// writes into it, so T is a pointer as a rule; work must bound its own time.
func New[T any](max int, work func([]T)) *Queue[T] { return &Queue[T]{max: max, work: work} }

// Do returns nil when work was done with item in a batch. When ctx is done first its error is returned;
// the item is still worked on, and must not be looked at.
func (q *Queue[T]) Do(ctx context.Context, item T) error {
	e := entry[T]{item, make(chan struct{})}
	q.mu.Lock()
	q.waiting = append(q.waiting, e)
	if !q.running {
		q.running = true
		go q.run() // it ends when nothing waits
	}
	q.mu.Unlock()
	select {
	case <-e.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (q *Queue[T]) run() {
	for {
		q.mu.Lock()
		n := min(len(q.waiting), q.max)
		if n == 0 {
			q.waiting, q.running = nil, false
			q.mu.Unlock()
			return
		}
		batch := q.waiting[:n:n]
		q.waiting = q.waiting[n:]
		q.mu.Unlock()
		items := make([]T, n)
		for i, e := range batch {
			items[i] = e.item
		}
		q.work(items)
		for _, e := range batch {
			close(e.done)
		}
	}
}
