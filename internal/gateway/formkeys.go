package gateway

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/lodestonehq/lodestone/internal/groupcommit"
)

// keysName is the file of idempotency keys in a data directory.
const keysName = "gateway.db"

// KeyLife is how long an idempotency key is remembered.
const KeyLife = 24 * time.Hour

// sum is 128 bits of a hash.
type sum [16]byte

// Keys remembers which body each idempotency key was used with, for 24 hours, across kills and
// restarts. It is a bbolt file of its own in the data directory, mode 0600, with hashes alone in it:
// no key, no body, no address. Losing it loses no submission; all that it decides is whether a key
// comes with another body than before.
//
// Keys lie in one bucket for each hour, so that what is past its time goes away as a whole. Callers
// that wait together share a transaction.
type Keys struct {
	db    *bolt.DB
	now   func() time.Time
	queue *groupcommit.Queue[*keyCall]
}

// keyCall is one question and its answer.
type keyCall struct {
	key, body sum
	first     time.Time
	same      bool
	err       error
}

const maxKeyCalls = 1000 // in one transaction

// OpenKeys opens the keys of a data directory.
func OpenKeys(dir string) (*Keys, error) {
	path := filepath.Join(dir, keysName)
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: 2 * time.Second, FreelistType: bolt.FreelistMapType, NoFreelistSync: true})
	switch {
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum), errors.Is(err, bolterrors.ErrVersionMismatch):
		return nil, fmt.Errorf("%s cannot be read: %w; it holds nothing but the idempotency keys of the last day, so it may be removed", path, err)
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	k := &Keys{db: db, now: time.Now}
	k.queue = groupcommit.New(maxKeyCalls, k.write)
	return k, nil
}

// Close closes the file; no call may be under way.
func (k *Keys) Close() error { return k.db.Close() }

// claim remembers that key came with body, unless it is known already, and returns when it is on
// disk. same is false when the key came with another body before; first is when it came first.
func (k *Keys) claim(ctx context.Context, key, body sum) (first time.Time, same bool, err error) {
	call := &keyCall{key: key, body: body}
	if err := k.queue.Do(ctx, call); err != nil {
		return time.Time{}, false, err
	}
	return call.first, call.same, call.err
}

func (k *Keys) write(calls []*keyCall) {
	now := k.now().UTC()
	err := k.db.Update(func(tx *bolt.Tx) error {
		if err := dropHours(tx, now); err != nil {
			return err
		}
		for _, c := range calls {
			if err := c.apply(tx, now); err != nil {
				return err
			}
		}
		return nil
	})
	for _, c := range calls {
		c.err = err
	}
}

func hourName(t time.Time) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(t.Unix()/3600))
}

// dropHours deletes the buckets whose keys are all past their time.
func dropHours(tx *bolt.Tx, now time.Time) error {
	oldest := string(hourName(now.Add(-KeyLife)))
	var gone [][]byte
	c := tx.Cursor()
	for name, _ := c.First(); name != nil && string(name) < oldest; name, _ = c.Next() {
		gone = append(gone, append([]byte(nil), name...))
	}
	for _, name := range gone {
		if err := tx.DeleteBucket(name); err != nil {
			return err
		}
	}
	return nil
}

// apply finds the key in the hours there are, newest first, or puts it into the current one. A value
// is the time in seconds and the hash of the body.
func (c *keyCall) apply(tx *bolt.Tx, now time.Time) error {
	cur := tx.Cursor()
	for name, _ := cur.Last(); name != nil; name, _ = cur.Prev() {
		v := tx.Bucket(name).Get(c.key[:])
		if len(v) != 8+len(sum{}) {
			continue
		}
		first := time.Unix(int64(binary.BigEndian.Uint64(v)), 0).UTC()
		if now.Sub(first) < KeyLife {
			c.first, c.same = first, sum(v[8:]) == c.body
			return nil
		}
	}
	b, err := tx.CreateBucketIfNotExists(hourName(now))
	if err != nil {
		return err
	}
	c.first, c.same = now.Truncate(time.Second), true
	v := binary.BigEndian.AppendUint64(nil, uint64(c.first.Unix()))
	return b.Put(c.key[:], append(v, c.body[:]...))
}
