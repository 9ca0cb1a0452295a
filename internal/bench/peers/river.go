package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/lodestonehq/lodestone/internal/bench"
)

// riverQueue keeps leads in a table and touchpoints as River's jobs, both in one transaction.
type riverQueue struct {
	pool   *pgxpool.Pool
	client *river.Client[pgx.Tx]
}

// How often jobs are fetched, and workers told of new ones, at the most and at the least. 100 ms and 1 s
// are the defaults; these were tried to be quicker.
const (
	cooldown = 2 * time.Millisecond
	poll     = 100 * time.Millisecond
)

const leadsTable = `CREATE TABLE IF NOT EXISTS leads (
	email text PRIMARY KEY, score int NOT NULL, band text NOT NULL, sequence text NOT NULL, data jsonb NOT NULL
)`

func openRiver(ctx context.Context, address string) (*riverQueue, error) {
	pool, err := pgxpool.New(ctx, address)
	if err != nil {
		return nil, err
	}
	m, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	if _, err := m.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return nil, err
	}
	if _, err := pool.Exec(ctx, leadsTable); err != nil {
		return nil, err
	}
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{ // it inserts alone
		FetchCooldown: cooldown, FetchPollInterval: poll, Logger: slog.New(slog.DiscardHandler),
	})
	return &riverQueue{pool, client}, err
}

func (q *riverQueue) reset(ctx context.Context) error {
	_, err := q.pool.Exec(ctx, "TRUNCATE leads, river_job")
	return err
}

func (q *riverQueue) load(ctx context.Context, emails []string) (map[string]lead, error) {
	rows, err := q.pool.Query(ctx, "SELECT data FROM leads WHERE email = ANY($1)", emails)
	if err != nil {
		return nil, err
	}
	known := map[string]lead{}
	var data []byte
	_, err = pgx.ForEachRow(rows, []any{&data}, func() error {
		var l lead
		if err := json.Unmarshal(data, &l); err != nil {
			return err
		}
		known[l.Email] = l
		return nil
	})
	return known, err
}

func (q *riverQueue) store(ctx context.Context, leads []lead, touchpoints []touchpoint, due time.Time) error {
	var emails, bands, sequences, data []string
	var scores []int
	for _, l := range leads {
		b, err := json.Marshal(l)
		if err != nil {
			return err
		}
		emails, scores, bands = append(emails, l.Email), append(scores, l.Score), append(bands, l.Band)
		sequences, data = append(sequences, l.Sequence), append(data, string(b))
	}
	return pgx.BeginFunc(ctx, q.pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO leads SELECT * FROM unnest($1::text[], $2::int[], $3::text[], $4::text[], $5::jsonb[])
			ON CONFLICT (email) DO UPDATE SET score = excluded.score, band = excluded.band, sequence = excluded.sequence, data = excluded.data`,
			emails, scores, bands, sequences, data)
		if err != nil || len(touchpoints) == 0 {
			return err
		}
		jobs := make([]river.InsertManyParams, len(touchpoints))
		for i, t := range touchpoints {
			jobs[i] = river.InsertManyParams{Args: riverArgs{t}, InsertOpts: &river.InsertOpts{ScheduledAt: due}}
		}
		_, err = q.client.InsertManyFastTx(ctx, tx, jobs)
		return err
	})
}

type riverArgs struct{ touchpoint }

func (riverArgs) Kind() string { return "touchpoint" }

type riverWorker struct {
	river.WorkerDefaults[riverArgs]
	call func(context.Context, touchpoint) error
}

func (w *riverWorker) Work(ctx context.Context, j *river.Job[riverArgs]) error {
	return w.call(ctx, j.Args.touchpoint)
}

func (q *riverQueue) work(ctx context.Context, call func(context.Context, touchpoint) error) (func() error, error) {
	workers := river.NewWorkers()
	river.AddWorker(workers, &riverWorker{call: call})
	c, err := river.NewClient(riverpgxv5.New(q.pool), &river.Config{
		Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: bench.Workers}}, Workers: workers,
		FetchCooldown: cooldown, FetchPollInterval: poll, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	if err := c.Start(ctx); err != nil {
		return nil, err
	}
	return func() error { return c.Stop(context.WithoutCancel(ctx)) }, nil
}
