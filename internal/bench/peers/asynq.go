package main

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/lodestonehq/lodestone/internal/bench"
)

// asynqQueue keeps leads as values of Redis and touchpoints as Asynq's tasks. Asynq has no insertion
// in bulk, so tasks are enqueued by many at a time; leads come after them, so that what is broken off is
// done again and finds the tasks there, by their ids.
type asynqQueue struct {
	db     *redis.Client
	client *asynq.Client
}

const enqueuers = 64

func openAsynq(socket string) *asynqQueue {
	db := redis.NewClient(&redis.Options{Network: "unix", Addr: socket, PoolSize: 2 * enqueuers})
	return &asynqQueue{db, asynq.NewClientFromRedisClient(db)}
}

func (q *asynqQueue) reset(ctx context.Context) error { return q.db.FlushAll(ctx).Err() }

func (q *asynqQueue) load(ctx context.Context, emails []string) (map[string]lead, error) {
	keys := make([]string, len(emails))
	for i, e := range emails {
		keys[i] = "lead:" + e
	}
	values, err := q.db.MGet(ctx, keys...).Result()
	if err != nil {
		return nil, err
	}
	known := map[string]lead{}
	for _, v := range values {
		text, ok := v.(string)
		if !ok {
			continue
		}
		var l lead
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			return nil, err
		}
		known[l.Email] = l
	}
	return known, nil
}

func (q *asynqQueue) store(ctx context.Context, leads []lead, touchpoints []touchpoint, due time.Time) error {
	g, inner := errgroup.WithContext(ctx)
	g.SetLimit(enqueuers)
	for _, t := range touchpoints {
		g.Go(func() error {
			b, err := json.Marshal(t)
			if err != nil {
				return err
			}
			opts := []asynq.Option{asynq.TaskID(t.ID)}
			if !due.IsZero() {
				opts = append(opts, asynq.ProcessAt(due))
			}
			_, err = q.client.EnqueueContext(inner, asynq.NewTask("touchpoint", b), opts...)
			if errors.Is(err, asynq.ErrTaskIDConflict) {
				return nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	_, err := q.db.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, l := range leads {
			b, err := json.Marshal(l)
			if err != nil {
				return err
			}
			p.Set(ctx, "lead:"+l.Email, b, 0)
		}
		return nil
	})
	return err
}

func (q *asynqQueue) work(ctx context.Context, call func(context.Context, touchpoint) error) (func() error, error) {
	s := asynq.NewServerFromRedisClient(q.db, asynq.Config{
		Concurrency: bench.Workers, LogLevel: asynq.FatalLevel,
		TaskCheckInterval: 5 * time.Millisecond, // tuned: 1 s is the default
		BaseContext:       func() context.Context { return ctx },
	})
	err := s.Start(asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error {
		var t touchpoint
		if err := json.Unmarshal(task.Payload(), &t); err != nil {
			return err
		}
		return call(ctx, t)
	}))
	return func() error { s.Shutdown(); return nil }, err
}
