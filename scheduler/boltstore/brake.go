package boltstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/sequencer"
)

// What brakes need is in the meta bucket: for each sequence with a brake the enrollments of each minute of
// the last day, and for each whose brake holds some, how many and since when. The latter is derived from the
// leads with every commit, like the indexes, and so is the one attention item of the sequence.
//
//	starts/ ‖ sequence ‖ 0 ‖ minute since 1970 → count
//	braked/ ‖ sequence                         → count ‖ since

// keepStarts is longer than the longest period of a brake.
const keepStarts = 25 * time.Hour

func startsPrefix(sequence string) []byte {
	return append(append([]byte("starts/"), sequence...), 0)
}

func brakedKey(sequence string) []byte { return append([]byte("braked/"), sequence...) }

func startsKey(sequence string, at time.Time) []byte {
	return binary.BigEndian.AppendUint32(startsPrefix(sequence), uint32(max(0, at.Unix()/60)))
}

// starts sums the enrollments since a moment. See [sequencer.Starts].
func (t *txn) starts(sequence string, since time.Time) (n int) {
	prefix := startsPrefix(sequence)
	c := t.tx.Bucket(bMeta).Cursor()
	for k, v := c.Seek(startsKey(sequence, since)); bytes.HasPrefix(k, prefix); k, v = c.Next() {
		if len(v) == 4 {
			n += int(binary.BigEndian.Uint32(v))
		}
	}
	return n
}

// started counts one enrollment and forgets those that no brake asks about any more.
func (t *txn) started(sequence string, at time.Time) error {
	meta, key := t.tx.Bucket(bMeta), startsKey(sequence, at)
	n := uint32(1)
	if v := meta.Get(key); len(v) == 4 {
		n += binary.BigEndian.Uint32(v)
	}
	if err := meta.Put(key, binary.BigEndian.AppendUint32(nil, n)); err != nil || n > 1 {
		return err
	}
	var old [][]byte
	prefix, least := startsPrefix(sequence), startsKey(sequence, at.Add(-keepStarts))
	c := meta.Cursor()
	for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix) && bytes.Compare(k, least) < 0; k, _ = c.Next() {
		old = append(old, bytes.Clone(k))
	}
	for _, k := range old {
		if err := meta.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// eachBraked calls fn for the enrollments of a lead that a brake holds.
func eachBraked(l *lodestone.Lead, fn func(*lodestone.Enrollment)) {
	if l == nil {
		return
	}
	for i := range l.Enrollments {
		if e := &l.Enrollments[i]; sequencer.IsBraked(e.Touchpoint) {
			fn(e)
		}
	}
}

// held writes how many enrollments of each sequence are held now, and asks for a human where there are any.
func (t *txn) held() error {
	meta := t.tx.Bucket(bMeta)
	for sequence, delta := range t.braked {
		if delta == 0 {
			continue
		}
		n, since := heldCount(meta.Get(brakedKey(sequence)))
		if n == 0 {
			since = t.at
		}
		if n += delta; n <= 0 {
			if err := meta.Delete(brakedKey(sequence)); err != nil {
				return err
			}
			if err := t.resolve(sequencer.AttentionKey{Kind: lodestone.AttentionEnrollment, ID: sequence}); err != nil {
				return err
			}
			continue
		}
		v := binary.BigEndian.AppendUint64(nil, uint64(n))
		if err := meta.Put(brakedKey(sequence), binary.BigEndian.AppendUint64(v, uint64(nanos(since)))); err != nil {
			return err
		}
		if err := t.attend([]lodestone.Attention{{
			ID: sequence, Kind: lodestone.AttentionEnrollment, Reason: lodestone.ReasonBraked, At: since,
			Detail: fmt.Sprintf("the brake of %s holds enrollments: %d. `lodestone release --brake %s` lets them go on, `lodestone undo %s` takes them back", sequence, n, sequence, sequence),
		}}); err != nil {
			return err
		}
	}
	return nil
}

func heldCount(v []byte) (n int, since time.Time) {
	if len(v) != 16 {
		return 0, time.Time{}
	}
	return int(binary.BigEndian.Uint64(v)), keyTime(v[8:])
}

// BrakedItem is an enrollment that a brake holds.
type BrakedItem struct {
	Email      lodestone.Email
	Touchpoint string
	StartedAt  time.Time
}

// Held counts the enrollments that the brake of a sequence holds.
func (s *Store) Held(_ context.Context, sequence string) (n int, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		n, _ = heldCount(tx.Bucket(bMeta).Get(brakedKey(sequence)))
		return nil
	})
	return n, err
}

// Braked returns the enrollments that the brake of a sequence holds, in the order in which they began.
func (s *Store) Braked(_ context.Context, sequence string) (list []BrakedItem, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		leads := tx.Bucket(bLeads)
		return tx.Bucket(bIntents).ForEach(func(k, v []byte) error {
			p, err := decodePending(v)
			if err != nil || p.state != lodestone.TouchpointHeld {
				return err
			}
			var l lodestone.Lead
			if err := decode(leads.Get([]byte(p.email)), &l); err != nil {
				return err
			}
			eachBraked(&l, func(e *lodestone.Enrollment) {
				if e.Sequence == sequence && e.Touchpoint.ID == string(k) {
					list = append(list, BrakedItem{p.email, e.Touchpoint.ID, e.StartedAt})
				}
			})
			return nil
		})
	})
	slices.SortStableFunc(list, func(a, b BrakedItem) int { return a.StartedAt.Compare(b.StartedAt) })
	return list, err
}

// checkBraked compares what is counted with the leads.
func checkBraked(tx *bolt.Tx, want map[string]int, say func(string, ...any)) {
	got := map[string]int{}
	c := tx.Bucket(bMeta).Cursor()
	for k, v := c.Seek([]byte("braked/")); bytes.HasPrefix(k, []byte("braked/")); k, v = c.Next() {
		got[string(k[len("braked/"):])], _ = heldCount(v)
	}
	for sequence := range want {
		if got[sequence] != want[sequence] {
			say("the brake of %s holds %d enrollments, counted are %d", sequence, want[sequence], got[sequence])
		}
		delete(got, sequence)
	}
	for sequence, n := range got {
		say("the brake of %s holds no enrollments, counted are %d", sequence, n)
	}
}
