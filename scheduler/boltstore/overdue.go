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
		for _, l := range lanes(tx.Bucket(bDue), "") {
			for ; l.key != nil; l.key, _ = l.c.Next() {
				at := keyTime(l.key)
				if at.After(until) {
					break
				}
				if oldest.IsZero() || at.Before(oldest) {
					oldest = at
				}
				counts[l.connector]++
			}
		}
		return nil
	})
	return counts, oldest, err
}
