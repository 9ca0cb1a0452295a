package boltstore

import (
	"bytes"
	"cmp"
	"context"
	"slices"

	bolt "go.etcd.io/bbolt"

	"github.com/lodestonehq/lodestone"
)

// ActiveCount is how many enrollments are active on one version of one sequence.
type ActiveCount struct {
	Sequence, Version string
	N                 uint64
}

// activePage bounds how many leads one read transaction looks at: an open one keeps pages from being used
// again.
const activePage = 20_000

// Active counts the active enrollments by sequence and version, in that order. It reads every lead.
func (s *Store) Active(ctx context.Context) ([]ActiveCount, error) {
	type key struct{ sequence, version string }
	counts := map[key]uint64{}
	var after []byte
	for done := false; !done; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		err := s.view(func(tx *bolt.Tx) error {
			c := tx.Bucket(bLeads).Cursor()
			k, v := c.Seek(after)
			if after != nil && bytes.Equal(k, after) {
				k, v = c.Next()
			}
			for range activePage {
				if k == nil {
					done = true
					return nil
				}
				l := new(lodestone.Lead)
				if err := decode(v, l); err != nil {
					return err
				}
				if e := l.Active(); e != nil {
					counts[key{e.Sequence, e.Version}]++
				}
				after = bytes.Clone(k)
				k, v = c.Next()
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	out := make([]ActiveCount, 0, len(counts))
	for k, n := range counts {
		out = append(out, ActiveCount{k.sequence, k.version, n})
	}
	slices.SortFunc(out, func(a, b ActiveCount) int {
		return cmp.Or(cmp.Compare(a.Sequence, b.Sequence), cmp.Compare(a.Version, b.Version))
	})
	return out, nil
}
