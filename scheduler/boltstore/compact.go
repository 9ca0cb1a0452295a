package boltstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/lodestonehq/lodestone/sequencer/failpoint"
)

// Usage is what of the file is in use.
type Usage struct {
	Bytes int64 `json:"bytes"` // of the file
	Used  int64 `json:"used"`  // of them, by what is stored; the rest waits to be used again
}

// Usage returns how much of the file is in use.
func (s *Store) Usage() (u Usage, err error) {
	u.Bytes = s.Size()
	err = s.view(func(tx *bolt.Tx) error {
		stats := tx.DB().Stats()
		u.Used = tx.Size() - int64(stats.FreePageN+stats.PendingPageN)*int64(tx.DB().Info().PageSize)
		return nil
	})
	return u, err
}

// CompactSpeed is how many bytes of what is in use a second of compaction is sure to copy, on a slow
// disk. It serves to say beforehand how long commits will wait.
const CompactSpeed = 50 << 20

// Compacted says what a compaction did.
type Compacted struct {
	Before  int64         `json:"before_bytes"`
	After   int64         `json:"after_bytes"`
	Stopped time.Duration `json:"stopped_ns"` // how long commits waited
}

// ErrTooLong says that a compaction was given up because commits had waited for as long as they may.
var ErrTooLong = errors.New("the compaction took longer than commits may wait; nothing was changed")

// Compact writes everything that is in use into a new file and puts it in the place of the old one.
// Reading goes on meanwhile; commits wait, for as long as atMost at the longest: then it is given up
// and nothing has changed. A process that is killed meanwhile leaves either the old file or the new
// one. A copy that was not claimed stays one.
func (s *Store) Compact(ctx context.Context, atMost time.Duration) (c Compacted, err error) {
	s.upkeep.Lock()
	defer s.upkeep.Unlock()
	dir := filepath.Dir(s.path)
	sweep(dir)
	tmp, err := os.MkdirTemp(dir, compactPrefix)
	if err != nil {
		return c, fmt.Errorf("compact: %w", err)
	}
	defer os.RemoveAll(tmp)
	c.Before = s.Size()
	err = s.alone(ctx, func() error {
		begun := time.Now()
		s.swap.Lock()
		defer s.swap.Unlock()
		ctx, cancel := context.WithTimeoutCause(ctx, atMost, ErrTooLong)
		defer cancel()
		err := s.compact(ctx, filepath.Join(tmp, FileName))
		c.Stopped = time.Since(begun)
		return err
	})
	if err != nil {
		return c, fmt.Errorf("compact: %w", err)
	}
	c.After = s.Size()
	return c, nil
}

const compactPrefix = ".compact-"

// sweep removes what a process that was killed while it made a file left behind.
func sweep(dir string) {
	for _, prefix := range []string{compactPrefix, ".new-", restorePrefix} {
		left, _ := filepath.Glob(filepath.Join(dir, prefix+"*"))
		for _, path := range left {
			_ = os.RemoveAll(path)
		}
	}
}

// compact copies the open file to fresh and puts that in its place. It runs where nothing else writes.
func (s *Store) compact(ctx context.Context, fresh string) error {
	old := s.db.Load()
	db, err := openFile(fresh, time.Second)
	if err != nil {
		return err
	}
	db.NoSync = true // once at the end is enough: until then nothing leads to this file
	grow := db.AllocSize
	db.AllocSize = 64 << 10 // it is to be as large as what is in it; later it grows in large steps again
	err = old.View(func(tx *bolt.Tx) error { return copyAll(ctx, db, tx) })
	db.NoSync = false
	if err == nil {
		err = db.Sync()
	}
	if err == nil && !s.copied.Load() {
		var identity string
		if identity, err = fileIdentity(fresh); err == nil { // it goes with the file when that is renamed
			err = db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bMeta).Put(kIdentity, []byte(identity)) })
		}
	}
	if err == nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		failpoint.Hit(failpoint.CompactCopied)
		err = os.Rename(fresh, s.path)
		failpoint.Hit(failpoint.CompactRenamed)
	}
	if err != nil {
		return errors.Join(err, db.Close())
	}
	db.AllocSize = grow
	s.db.Store(db)
	err = errors.Join(syncDir(filepath.Dir(s.path)), old.Close())
	failpoint.Hit(failpoint.CompactDone)
	return err
}

// copyAll copies every bucket with its keys and its sequence number.
func copyAll(ctx context.Context, to *bolt.DB, from *bolt.Tx) (err error) {
	c := &copier{ctx: ctx, db: to}
	defer func() { err = errors.Join(err, c.end(err == nil)) }()
	if err := c.begin(); err != nil {
		return err
	}
	return from.ForEach(func(name []byte, b *bolt.Bucket) error {
		if _, err := c.tx.CreateBucket(name); err != nil {
			return err
		}
		return c.bucket([][]byte{name}, b)
	})
}

// copier fills a file in transactions of a bounded size.
type copier struct {
	ctx    context.Context
	db     *bolt.DB
	tx     *bolt.Tx
	bytes  int
	at     *bolt.Bucket // the bucket that was used last, in this transaction
	atPath int          // how deep it lies
}

const copierBytes = 4 << 20

func (c *copier) begin() (err error) {
	c.bytes, c.at = 0, nil
	c.tx, err = c.db.Begin(true)
	return err
}

func (c *copier) end(commit bool) error {
	tx := c.tx
	switch c.tx = nil; {
	case tx == nil:
		return nil
	case commit:
		return tx.Commit()
	}
	return tx.Rollback()
}

func (c *copier) bucket(path [][]byte, from *bolt.Bucket) error {
	c.at = nil
	if err := c.into(path).SetSequence(from.Sequence()); err != nil {
		return err
	}
	return from.ForEach(func(k, v []byte) error {
		if c.bytes += len(k) + len(v); c.bytes > copierBytes {
			if err := context.Cause(c.ctx); err != nil {
				return err
			}
			if err := c.end(true); err != nil {
				return err
			}
			if err := c.begin(); err != nil {
				return err
			}
		}
		b := c.into(path)
		if v != nil {
			return b.Put(k, v)
		}
		if _, err := b.CreateBucket(k); err != nil {
			return err
		}
		defer func() { c.at = nil }()
		return c.bucket(append(path[:len(path):len(path)], k), from.Bucket(k))
	})
}

func (c *copier) into(path [][]byte) *bolt.Bucket {
	if c.at != nil && c.atPath == len(path) {
		return c.at
	}
	b := c.tx.Bucket(path[0])
	for _, k := range path[1:] {
		b = b.Bucket(k)
	}
	b.FillPercent = fillOrdered
	if string(path[0]) == string(bLeads) {
		b.FillPercent = 0.75 // the next leads go in between
	}
	c.at, c.atPath = b, len(path)
	return b
}
