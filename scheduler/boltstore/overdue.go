package boltstore

import (
	"context"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Overdue counts the touchpoints that fell due at or before a moment, by connector, and says when the
// oldest did. It reads one small key for each.
func (s *Store) Overdue(_ context.Context, until time.Time) (counts map[string]int, oldest time.Time, err error) {
	counts = map[string]int{}
	err = s.view(func(tx *bolt.Tx) error {
		due := tx.Bucket(bDue)
		return due.ForEachBucket(func(lane []byte) error {
			c := due.Bucket(lane).Cursor()
			for k, _ := c.First(); k != nil; k, _ = c.Next() {
				at := keyTime(k)
				if at.After(until) {
					break
				}
				if oldest.IsZero() || at.Before(oldest) {
					oldest = at
				}
				counts[string(lane)]++
			}
			return nil
		})
	})
	return counts, oldest, err
}
