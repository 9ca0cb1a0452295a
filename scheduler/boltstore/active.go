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
	Some              []lodestone.Email // the first few of them in the order of addresses
}

// activeSome is how many leads an [ActiveCount] names.
const activeSome = 5

// activePage bounds how many leads one read transaction looks at: an open one keeps pages from being used
// again.
const activePage = 20_000

// Active counts the active enrollments by sequence and version, in that order. It reads every lead.
func (s *Store) Active(ctx context.Context) ([]ActiveCount, error) {
	type key struct{ sequence, version string }
	counts := map[key]*ActiveCount{}
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
					n := counts[key{e.Sequence, e.Version}]
					if n == nil {
						n = &ActiveCount{Sequence: e.Sequence, Version: e.Version}
						counts[key{e.Sequence, e.Version}] = n
					}
					if n.N++; len(n.Some) < activeSome {
						n.Some = append(n.Some, l.Email)
					}
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
	for _, n := range counts {
		out = append(out, *n)
	}
	slices.SortFunc(out, func(a, b ActiveCount) int {
		return cmp.Or(cmp.Compare(a.Sequence, b.Sequence), cmp.Compare(a.Version, b.Version))
	})
	return out, nil
}
