package boltstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/lodestonehq/lodestone"
)

// pruneBatch bounds how much one transaction deletes, so that no commit waits long behind it.
const pruneBatch = 500

// PruneJournal deletes entries from the front of the journal that are older than before, and returns
// how many. An entry that a reader with a named position ([Store.SetCursor]) has not seen yet stays,
// and so does everything behind it. A lead's chain then ends where the journal begins; the roll-up
// keeps its counts.
func (s *Store) PruneJournal(ctx context.Context, before time.Time) (pruned int, err error) {
	if err := s.pruneEvidence(before); err != nil {
		return 0, err
	}
	for ctx.Err() == nil {
		n := 0
		err := s.update(func(tx *bolt.Tx) error {
			n = 0
			unread, err := leastCursor(tx)
			if err != nil {
				return err
			}
			journal := tx.Bucket(bJournal)
			journal.FillPercent = fillOrdered
			var keys [][]byte // collected first: deleting under a cursor passes keys over
			c := journal.Cursor()
			for k, v := c.First(); k != nil && len(keys) < pruneBatch; k, v = c.Next() {
				if binary.BigEndian.Uint64(k) > unread {
					break
				}
				var e lodestone.Entry
				if err := decode(v, &e); err != nil {
					return fmt.Errorf("journal entry %d: %w", binary.BigEndian.Uint64(k), err)
				}
				if !e.At.Before(before) {
					break
				}
				keys = append(keys, bytes.Clone(k))
			}
			for _, k := range keys {
				if err := journal.Delete(k); err != nil {
					return err
				}
			}
			n = len(keys)
			return nil
		})
		pruned += n
		if err != nil || n < pruneBatch {
			return pruned, err
		}
	}
	return pruned, ctx.Err()
}

// pruneEvidence forgets what is known from before a restore that is long over. A touchpoint that waits
// since then is in doubt again, and is asked about once more.
func (s *Store) pruneEvidence(before time.Time) error {
	r := s.restored.Load()
	if r == nil || !r.Gathered || !r.Claimed.Before(before) {
		return nil
	}
	return s.update(func(tx *bolt.Tx) error {
		if ev := tx.Bucket(bEvidence); ev == nil || ev.Stats().KeyN == 0 {
			return nil
		}
		if err := tx.DeleteBucket(bEvidence); err != nil {
			return err
		}
		_, err := tx.CreateBucket(bEvidence)
		return err
	})
}

// leastCursor is how far every reader of the journal has come; everything when there is none.
func leastCursor(tx *bolt.Tx) (least uint64, err error) {
	least = ^uint64(0)
	prefix := []byte("cursor/")
	c := tx.Bucket(bMeta).Cursor()
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
		if len(v) != 8 {
			return 0, fmt.Errorf("%w: a position in the journal that cannot be read", ErrNotAStore)
		}
		least = min(least, binary.BigEndian.Uint64(v))
	}
	return least, nil
}

// PruneLeads deletes leads about whom nothing happened since before and for whom nothing is pending,
// and returns how many. Suppressions stay: they are kept by address, not by lead. A person who comes
// back later is a new lead.
func (s *Store) PruneLeads(ctx context.Context, before time.Time) (pruned int, err error) {
	return s.pruneRandom(ctx, bLeads, nil, nil, 1, oldLead(before))
}

// PruneLeadsBeside is [Store.PruneLeads] beside other work: all leads must be looked at, which keeps to one part
// in share of the time. It begins anywhere, so that a worker that never comes to the end, because it is often
// started anew, comes to each of them all the same.
func (s *Store) PruneLeadsBeside(ctx context.Context, before time.Time, share int) (pruned int, err error) {
	const first = "0123456789abcdefghijklmnopqrstuvwxyz" // what addresses begin with
	from := []byte{first[rand.IntN(len(first))], first[rand.IntN(len(first))]}
	pruned, err = s.pruneRandom(ctx, bLeads, from, nil, share, oldLead(before))
	if err != nil {
		return pruned, err
	}
	more, err := s.pruneRandom(ctx, bLeads, nil, from, share, oldLead(before))
	return pruned + more, err
}

func oldLead(before time.Time) func(tx *bolt.Tx, k, v []byte) (bool, error) {
	return func(tx *bolt.Tx, _, v []byte) (bool, error) {
		var l lodestone.Lead
		if err := decode(v, &l); err != nil {
			return false, fmt.Errorf("a lead's record: %w", err)
		}
		if !idle(&l, before) {
			return false, nil
		}
		newest, err := entry(tx.Bucket(bJournal), l.Journal)
		return newest == nil || newest.At.Before(before), err
	}
}

// idle reports whether a lead has nothing pending and nothing recent.
func idle(l *lodestone.Lead, before time.Time) bool {
	if len(l.Enrollments) > 0 || !l.LastAt.Before(before) || !l.FirstSeen.Before(before) {
		return false
	}
	for _, at := range l.Signals {
		if !at.Before(before) {
			return false
		}
	}
	for _, p := range l.Past {
		if !p.EndedAt.Before(before) {
			return false
		}
	}
	return true
}

// PruneAttention deletes submissions and signals that could not be used, and touchpoints that failed, which nobody
// looked at since before, and returns how many. What a human has to decide on stays.
func (s *Store) PruneAttention(ctx context.Context, before time.Time) (pruned int, err error) {
	return s.pruneRandom(ctx, bAttention, nil, nil, 1, func(_ *bolt.Tx, _, v []byte) (bool, error) {
		var a lodestone.Attention
		if err := decode(v, &a); err != nil {
			return false, fmt.Errorf("an attention item: %w", err)
		}
		over := a.Kind == lodestone.AttentionSubmission || a.Kind == lodestone.AttentionTouchpoint && a.Enrollment != nil
		return over && a.At.Before(before), nil
	})
}

// pruneRandom walks a bucket whose keys are not in the order of time, in short reads, and deletes what
// old says, which is asked again in the transaction that deletes. It looks at the keys after one (nil: from the
// first on) up to another (nil: to the last), in one part in share of the time.
func (s *Store) pruneRandom(ctx context.Context, bucket, after, until []byte, share int, old func(tx *bolt.Tx, k, v []byte) (bool, error)) (pruned int, err error) {
	const look = 5000 // keys of one read
	for ctx.Err() == nil {
		begun := time.Now()
		var found [][]byte
		more := false
		if err := s.view(func(tx *bolt.Tx) error {
			found, more = nil, false
			c := tx.Bucket(bucket).Cursor()
			k, v := c.Seek(after)
			if after != nil && bytes.Equal(k, after) {
				k, v = c.Next()
			}
			for n := 0; k != nil; k, v = c.Next() {
				if until != nil && bytes.Compare(k, until) > 0 {
					return nil
				}
				if n == look || len(found) == pruneBatch {
					more = true
					return nil
				}
				n++
				after = bytes.Clone(k)
				is, err := old(tx, k, v)
				if err != nil {
					return err
				}
				if is {
					found = append(found, after)
				}
			}
			return nil
		}); err != nil {
			return pruned, err
		}
		if len(found) > 0 {
			n := 0
			if err := s.update(func(tx *bolt.Tx) error {
				n = 0
				b := tx.Bucket(bucket)
				for _, k := range found {
					v := b.Get(k)
					if v == nil {
						continue
					}
					is, err := old(tx, k, v)
					if err != nil {
						return err
					}
					if is {
						if err := b.Delete(k); err != nil {
							return err
						}
						n++
					}
				}
				return nil
			}); err != nil {
				return pruned, err
			}
			pruned += n
		}
		if !more {
			return pruned, nil
		}
		pause := time.NewTimer(time.Duration(share-1) * time.Since(begun))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
		}
	}
	return pruned, ctx.Err()
}
