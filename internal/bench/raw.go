package bench

import (
	"encoding/binary"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
	"github.com/lodestonehq/lodestone/sequencer"
)

// raw is a bbolt file that is given the same keys and values as the store, in the same batches, by a
// program that does nothing else: the ceiling.
type raw struct {
	db      *bolt.DB
	buckets []string // in the order of rawBuckets
}

var rawBuckets = []string{"leads", "due", "journal", "meta"}

// openRaw makes a file of its own.
func openRaw(dir string) (*raw, error) {
	db, err := openBolt(filepath.Join(dir, "raw.db"))
	if err != nil {
		return nil, err
	}
	r := &raw{db, rawBuckets}
	return r, r.create()
}

// openBolt opens a file with the store's own settings.
func openBolt(path string) (*bolt.DB, error) {
	return bolt.Open(path, 0o600, &bolt.Options{NoFreelistSync: true, FreelistType: bolt.FreelistMapType, InitialMmapSize: 64 << 30})
}

// create makes the buckets that are not there yet.
func (r *raw) create() error {
	return r.db.Update(func(tx *bolt.Tx) error {
		for _, b := range r.buckets {
			if _, err := tx.CreateBucketIfNotExists([]byte(b)); err != nil {
				return err
			}
		}
		return nil
	})
}

// put is one key and value in one of rawBuckets.
type put struct {
	bucket     int
	key, value []byte
}

// puts is what the store wrote for a change: the lead, its place in the due queue, the journal entry.
func puts(list []put, c *sequencer.Change) ([]put, error) {
	if c.Lead != nil {
		v, err := boltstore.Encode(c.Lead)
		if err != nil {
			return nil, err
		}
		list = append(list, put{0, []byte(c.Lead.Email), v})
	}
	if c.Entry == nil {
		return list, nil
	}
	return entryPuts(list, c.Entry)
}

// entryPuts is what a journal entry stands for: itself, and the places in the due queue that it made.
func entryPuts(list []put, e *lodestone.Entry) ([]put, error) {
	v, err := boltstore.Encode(e)
	if err != nil {
		return nil, err
	}
	list = append(list, put{2, binary.BigEndian.AppendUint64(nil, e.Seq), v})
	for _, t := range e.Touchpoints {
		if t.Reason == lodestone.ReasonPlanned {
			k := binary.BigEndian.AppendUint64(nil, uint64(t.DueAt.UnixNano()))
			list = append(list, put{1, append(k, e.Lead...), nil})
		}
	}
	return list, nil
}

// commit puts everything in one synced transaction, with a watermark as the store has it.
func (r *raw) commit(list []put) error {
	return r.db.Update(func(tx *bolt.Tx) error {
		var open [4]*bolt.Bucket
		for i, name := range r.buckets {
			open[i] = tx.Bucket([]byte(name))
		}
		open[1].FillPercent, open[2].FillPercent = 0.9, 0.9 // as the store has it
		for i := range list {
			if err := open[list[i].bucket].Put(list[i].key, list[i].value); err != nil {
				return err
			}
		}
		return open[3].Put([]byte("watermark"), binary.BigEndian.AppendUint64(nil, uint64(len(list))))
	})
}

// batches splits what was written over as many transactions as the store used and measures putting it.
func (r *raw) batches(list [][]put, items int) (sample, error) {
	return timed(items, func() error {
		for _, b := range list {
			if err := r.commit(b); err != nil {
				return err
			}
		}
		return nil
	})
}

// start is when the benches' submissions were made: in the past, so that a wait of days is still to come
// and one of nothing is over.
func start() time.Time { return time.Now().UTC().Add(-time.Minute).Truncate(time.Second) }
