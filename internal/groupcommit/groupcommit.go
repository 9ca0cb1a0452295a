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
	// Alone, where it is set, works off an item that finds nothing under way. It runs on the goroutine of the
	// caller, because each one more that must be woken costs a lone item time, and returns when ctx is done.
	// Set it before the first Do.
	Alone func(ctx context.Context, item T)

	max  int
	work func([]T)
	done sync.Pool // of channels that nobody waits at

	mu      sync.Mutex // guards what follows
	waiting []entry[T]
	running bool
}

type entry[T any] struct {
	item T
	done chan struct{} // takes one element without waiting
}

// New makes a queue whose batches have at most max items. What work finds out about an item it
// writes into it, so T is a pointer as a rule; work must bound its own time.
func New[T any](max int, work func([]T)) *Queue[T] {
	return &Queue[T]{max: max, work: work, done: sync.Pool{New: func() any { return make(chan struct{}, 1) }}}
}

// Do returns nil when work, or Alone, was done with item. When ctx is done before work is, its error is
// returned; the item is still worked on, and must not be looked at.
func (q *Queue[T]) Do(ctx context.Context, item T) error {
	q.mu.Lock()
	if !q.running && q.Alone != nil {
		q.running = true
		q.mu.Unlock()
		defer q.others()
		q.Alone(ctx, item)
		return nil
	}
	e := entry[T]{item, q.done.Get().(chan struct{})}
	q.waiting = append(q.waiting, e)
	if !q.running {
		q.running = true
		go q.run() // it ends when nothing waits
	}
	q.mu.Unlock()
	select {
	case <-e.done:
		q.done.Put(e.done)
		return nil
	case <-ctx.Done():
		return ctx.Err() // the channel is not used again: something will be sent to it
	}
}

// others has those worked off who came while one was alone.
func (q *Queue[T]) others() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.running = len(q.waiting) > 0; q.running {
		go q.run() // it ends when nothing waits
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
			e.done <- struct{}{}
		}
	}
}
