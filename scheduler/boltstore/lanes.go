package boltstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/scheduler"
)

// The due queue has one part for each sequence of each connector: one bucket, named by both, whose keys are in
// the order of time. What waits for one provider never stands in the way of another's, and the oldest of
// each sequence is found without reading past those of the others.

func laneName(connector, sequence string) []byte {
	return append(append([]byte(connector), 0), sequence...)
}

func splitLane(name []byte) (connector, sequence string) {
	connector, sequence, _ = strings.Cut(string(name), "\x00")
	return connector, sequence
}

// laneCursor stands at a key of one part of the due queue.
type laneCursor struct {
	connector, sequence string
	c                   *bolt.Cursor
	key                 []byte // nil at the end
}

// pass moves on past what skip says.
func (l *laneCursor) pass(skip func(lodestone.Email) bool) {
	for skip != nil && l.key != nil && skip(lodestone.Email(l.key[8:])) {
		l.key, _ = l.c.Next()
	}
}

// lanes returns a cursor at the first key of each part that holds any, in the order of their names: those of
// one connector, or all when it is "".
func lanes(due *bolt.Bucket, connector string) (list []*laneCursor) {
	var prefix []byte
	if connector != "" {
		prefix = laneName(connector, "")
	}
	c := due.Cursor()
	for name, v := c.Seek(prefix); name != nil && bytes.HasPrefix(name, prefix); name, v = c.Next() {
		if v != nil {
			continue
		}
		l := &laneCursor{c: due.Bucket(name).Cursor()}
		if l.key, _ = l.c.First(); l.key != nil {
			l.connector, l.sequence = splitLane(name)
			list = append(list, l)
		}
	}
	return list
}

// first is the index of the cursor whose key is the earliest, -1 when there is none.
func first(list []*laneCursor) int {
	at := -1
	for i, l := range list {
		if l.key != nil && (at < 0 || bytes.Compare(l.key, list[at].key) < 0) {
			at = i
		}
	}
	return at
}

// Due returns due touchpoints of one connector. See [scheduler.Store].
func (s *Store) Due(_ context.Context, connector string, until time.Time, limit int, after string, skip func(lodestone.Email) bool) (due []scheduler.DueItem, next time.Time, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		list := lanes(tx.Bucket(bDue), connector)
		for _, l := range list {
			l.pass(skip)
		}
		turn, _ := slices.BinarySearchFunc(list, after, func(l *laneCursor, after string) int { return strings.Compare(l.sequence, after) })
		if turn < len(list) && list[turn].sequence == after {
			turn++
		}
		for idle := 0; idle < len(list) && len(due) < limit; turn++ {
			l := list[turn%len(list)]
			if l.key == nil || keyTime(l.key).After(until) {
				idle++
				continue
			}
			idle = 0
			due = append(due, scheduler.DueItem{Email: lodestone.Email(l.key[8:]), At: keyTime(l.key), Sequence: l.sequence})
			l.key, _ = l.c.Next()
			l.pass(skip)
		}
		if i := first(list); i >= 0 {
			next = keyTime(list[i].key)
		}
		return nil
	})
	return due, next, err
}

// OldestDue returns when the earliest waiting touchpoint falls or fell due, zero when none waits.
func (s *Store) OldestDue(context.Context) (oldest time.Time, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		list := lanes(tx.Bucket(bDue), "")
		if i := first(list); i >= 0 {
			oldest = keyTime(list[i].key)
		}
		return nil
	})
	return oldest, err
}

// Lanes names the connectors that have touchpoints waiting or had some.
func (s *Store) Lanes(context.Context) (names []string, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		return tx.Bucket(bDue).ForEachBucket(func(k []byte) error {
			if connector, _ := splitLane(k); !slices.Contains(names, connector) {
				names = append(names, connector)
			}
			return nil
		})
	})
	return names, err
}

// Waiting calls fn with the touchpoints of one connector that are due by until, or of all when it is "", in
// the order of their due times, beginning after a position, until fn returns false. It returns the position of
// the last one, "" at the end.
func (s *Store) Waiting(_ context.Context, connector, after string, until time.Time, fn func(Row) bool) (last string, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		leads, list := tx.Bucket(bLeads), lanes(tx.Bucket(bDue), connector)
		if lane, key, ok := strings.Cut(after, "\x01"); ok {
			for _, l := range list {
				l.key, _ = l.c.Seek([]byte(key))
				if string(l.key) == key && string(laneName(l.connector, l.sequence)) <= lane {
					l.key, _ = l.c.Next()
				}
			}
		}
		for i := first(list); i >= 0 && !keyTime(list[i].key).After(until); i = first(list) {
			l := list[i]
			email := lodestone.Email(l.key[8:])
			v := leads.Get(l.key[8:])
			if v == nil {
				return fmt.Errorf("%w: a touchpoint waits whose lead is missing", ErrNotAStore)
			}
			lead := new(lodestone.Lead)
			if err := decode(v, lead); err != nil {
				return fmt.Errorf("a lead's record: %w", err)
			}
			at := binary.BigEndian.Uint64(l.key)
			for i := range lead.Enrollments {
				e := &lead.Enrollments[i]
				t := e.Touchpoint
				if t == nil || t.State != lodestone.TouchpointScheduled || t.Connector != l.connector || e.Sequence != l.sequence || uint64(nanos(t.DueAt)) != at {
					continue
				}
				if !fn(Row{*t, email, e.Sequence}) {
					last = string(laneName(l.connector, l.sequence)) + "\x01" + string(l.key)
					return nil
				}
			}
			l.key, _ = l.c.Next()
		}
		return nil
	})
	return last, err
}

// splitAtOnce bounds how many keys of an old layout are moved in one transaction.
var splitAtOnce = 20_000

// upgrade brings a file of an earlier format to that of today. Of format 1, whose due queue had one part for each
// connector, it moves a bounded number of keys at a time; cut short, it goes on at the next start. Format 2 differs
// in nothing but that its records are not compressed: they are read as they are, and compressed when they change.
func (s *Store) upgrade() error {
	more := false
	if err := s.view(func(tx *bolt.Tx) error {
		f := tx.Bucket(bMeta).Get(kFormat)
		more = len(f) == 4 && binary.BigEndian.Uint32(f) < Format || len(unsplit(tx.Bucket(bDue))) > 0
		return nil
	}); err != nil {
		return err
	}
	for more {
		more = false
		if err := s.update(func(tx *bolt.Tx) error {
			meta := tx.Bucket(bMeta)
			// From the first key or record on that is of today, earlier versions must not touch the file.
			if f := meta.Get(kFormat); len(f) == 4 && binary.BigEndian.Uint32(f) < Format {
				if err := meta.Put(kFormat, binary.BigEndian.AppendUint32(nil, Format)); err != nil {
					return err
				}
			}
			t := newTxn(tx)
			moved := 0
			for _, name := range unsplit(t.due) {
				from := t.due.Bucket(name)
				var keys [][]byte
				c := from.Cursor()
				for k, _ := c.First(); k != nil && moved < splitAtOnce; k, _ = c.Next() {
					keys, moved = append(keys, bytes.Clone(k)), moved+1
				}
				for _, k := range keys {
					if err := t.split(string(name), k); err != nil {
						return err
					}
					if err := from.Delete(k); err != nil {
						return err
					}
				}
				if k, _ := from.Cursor().First(); k != nil {
					more = true
					return nil
				}
				if err := t.due.DeleteBucket(name); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// unsplit names the parts that are of a connector alone.
func unsplit(due *bolt.Bucket) (names [][]byte) {
	c := due.Cursor()
	for name, _ := c.First(); name != nil; name, _ = c.Next() {
		if !bytes.Contains(name, []byte{0}) {
			names = append(names, bytes.Clone(name))
		}
	}
	return names
}

// split puts a key of a connector's part into those of the sequences that it stands for.
func (t *txn) split(connector string, key []byte) error {
	st, err := t.state(lodestone.Email(key[8:]))
	if err != nil {
		return err
	}
	for _, k := range indexKeys(st.Lead) {
		if k.state != lodestone.TouchpointScheduled || k.connector != connector || uint64(k.due) != binary.BigEndian.Uint64(key) {
			continue
		}
		b, err := t.lane(connector, k.sequence)
		if err != nil {
			return err
		}
		if err := b.Put(key, nil); err != nil {
			return err
		}
	}
	return nil
}
