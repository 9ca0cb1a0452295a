package boltstore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/tinylib/msgp/msgp"
	bolt "go.etcd.io/bbolt"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/sequencer"
)

// Every value begins with one byte, the version of its encoding.
const (
	plain      = 1 // the value follows as it was marshalled
	compressed = 2 // sequences follow, see compress.go
)

// encode appends a value to b as it is marshalled.
func encode(b []byte, v msgp.Marshaler) ([]byte, error) {
	return v.MarshalMsg(append(b, plain))
}

// Encode is a lead or a journal entry as it is stored: compressed where that is shorter.
func Encode(v msgp.Marshaler) ([]byte, error) { return encoded(v, nil) }

// encoded is v as [Encode] gives it. Where it is said how v ends, the last byte of that is left out, and there is
// room behind for a number in its place.
func encoded(v msgp.Marshaler, end []byte) ([]byte, error) {
	s := scratch.Get().(*buffers)
	defer s.leave()
	b, err := v.MarshalMsg(s.record[:len(dictionary)])
	if err != nil {
		return nil, err
	}
	s.record = b
	if len(end) > 0 {
		if !bytes.HasSuffix(b, end) {
			return nil, errNoNumber
		}
		b = b[:len(b)-1]
	}
	record := b[len(dictionary):]
	if len(record) <= maxCompressed {
		s.out = compress(append(s.out[:0], compressed), b)
	}
	if len(record) > maxCompressed || len(s.out) > len(record) {
		s.out = append(append(s.out[:0], plain), record...)
	}
	return append(make([]byte, 0, len(s.out)+numberRoom+1), s.out...), nil
}

// Decode reads a value as it is stored. Keys it does not know are passed over; what follows the value is a
// fault.
func Decode(b []byte, v msgp.Unmarshaler) error { return decode(b, v) }

func decode(b []byte, v msgp.Unmarshaler) error {
	return unpacked(b, func(record []byte) error {
		rest, err := v.UnmarshalMsg(record)
		if err != nil {
			return fmt.Errorf("%w: %v", ErrNotAStore, err)
		}
		if len(rest) != 0 {
			return fmt.Errorf("%w: %d bytes after a value", ErrNotAStore, len(rest))
		}
		return nil
	})
}

// unpacked calls fn with a value as it was marshalled, which is good until fn returns.
func unpacked(b []byte, fn func([]byte) error) error {
	switch {
	case len(b) == 0:
		return fmt.Errorf("%w: an empty value", ErrNotAStore)
	case b[0] == plain:
		return fn(b[1:])
	case b[0] == compressed:
		s := scratch.Get().(*buffers)
		defer s.leave()
		var ok bool
		if s.record, ok = expand(s.record[:len(dictionary)], b[1:]); !ok {
			return fmt.Errorf("%w: a value that cannot be read", ErrNotAStore)
		}
		return fn(s.record[len(dictionary):])
	}
	return fmt.Errorf("%w: a value has encoding %d, this one reads up to %d", ErrNewer, b[0], compressed)
}

// holds reports whether a value has one of some texts in it: quicker than to decode it.
func holds(b []byte, texts ...string) (held bool, err error) {
	err = unpacked(b, func(record []byte) error {
		held = slices.ContainsFunc(texts, func(s string) bool { return bytes.Contains(record, []byte(s)) })
		return nil
	})
	return held, err
}

// buffers are for values on their way: how long one becomes is only known when it is made.
type buffers struct {
	record []byte // the dictionary, and behind it a value as it is marshalled
	out    []byte
}

var scratch = sync.Pool{New: func() any {
	return &buffers{record: append(make([]byte, 0, len(dictionary)+4<<10), dictionary...)}
}}

// leave gives buffers back that are not out of size.
func (s *buffers) leave() {
	if cap(s.record) <= 64<<10 && cap(s.out) <= 64<<10 {
		scratch.Put(s)
	}
}

// numberRoom is the most that a number takes beyond its first byte.
const numberRoom = 8

// nanoKey appends nanoseconds since 1970 so that keys sort as time. What is before 1970 sorts as
// 1970.
func nanoKey(b []byte, ns int64) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(max(0, ns)))
}

// nanos is t in nanoseconds since 1970, held within what an int64 can say (1970 to 2262).
func nanos(t time.Time) int64 {
	switch y := t.Year(); {
	case y < 1970:
		return 0
	case y > 2261:
		return math.MaxInt64
	}
	return t.UnixNano()
}

func keyTime(b []byte) time.Time {
	return time.Unix(0, int64(binary.BigEndian.Uint64(b))).UTC()
}

// seqKey is the key of a journal entry.
func seqKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

// pending is where to find a touchpoint whose call is in flight or whose outcome is open: the value
// of the intents bucket.
type pending struct {
	state     lodestone.TouchpointState
	connector string
	email     lodestone.Email
}

// encode writes state, connector and address, each but the last ended by a zero byte, which none of
// them can hold.
func (p pending) encode() []byte {
	b := append([]byte{plain}, p.state...)
	b = append(append(b, 0), p.connector...)
	return append(append(b, 0), p.email...)
}

func decodePending(b []byte) (p pending, err error) {
	if len(b) == 0 || b[0] != plain {
		return p, fmt.Errorf("%w: an intent that cannot be read", ErrNotAStore)
	}
	var parts [3]string
	n, from := 0, 1
	for i := 1; i < len(b) && n < 2; i++ {
		if b[i] == 0 {
			parts[n], from = string(b[from:i]), i+1
			n++
		}
	}
	if n != 2 {
		return p, fmt.Errorf("%w: an intent that cannot be read", ErrNotAStore)
	}
	return pending{lodestone.TouchpointState(parts[0]), parts[1], lodestone.Email(b[from:])}, nil
}

// appendRollupKey appends day (YYYYMMDD, 0 for the totals) ‖ sequence ‖ 0 ‖ step ‖ 0 ‖ what, and
// ‖ 0 ‖ variant where there is one.
func appendRollupKey(b []byte, day uint32, sequence, step, what, variant string) []byte {
	b = binary.BigEndian.AppendUint32(b, day)
	b = append(append(b, sequence...), 0)
	b = append(append(b, step...), 0)
	b = append(b, what...)
	if variant != "" {
		b = append(append(b, 0), variant...)
	}
	return b
}

// day is the UTC day of t as YYYYMMDD.
func day(t time.Time) uint32 {
	y, m, d := t.UTC().Date()
	return uint32(y*10000 + int(m)*100 + d)
}

// ofSignal is set in the sequence of an attention item's key where it is that of a signal: submissions and
// signals have streams of their own, which count alike. Earlier versions did not set it.
const ofSignal = 1 << 63

func itemKey(k sequencer.ItemKey) []byte {
	if k.Signal {
		return attentionKey(k.Kind, k.ID, k.Seq|ofSignal)
	}
	return attentionKey(k.Kind, k.ID, k.Seq)
}

// findItem returns an attention item and the key under which it stands; nil when there is none. A signal may
// stand where an earlier version put it, under the key that is now a submission's.
func findItem(b *bolt.Bucket, k sequencer.ItemKey) (key []byte, item *lodestone.Attention, err error) {
	for _, key := range [][]byte{itemKey(k), attentionKey(k.Kind, k.ID, k.Seq)} {
		v := b.Get(key)
		if v == nil {
			continue
		}
		item := new(lodestone.Attention)
		if err := decode(v, item); err != nil {
			return nil, nil, fmt.Errorf("an attention item: %w", err)
		}
		if sequencer.KeyOf(item).Signal == k.Signal {
			return key, item, nil
		}
	}
	return nil, nil, nil
}

// putItem puts an attention item, and reports whether it was there. What an earlier version put under the key
// of another one gets its own.
func putItem(b *bolt.Bucket, a *lodestone.Attention, v []byte) (known bool, err error) {
	k := sequencer.KeyOf(a)
	key := itemKey(k)
	was, item, err := findItem(b, k)
	if err != nil {
		return false, err
	}
	if was != nil && !bytes.Equal(was, key) {
		if err := b.Delete(was); err != nil {
			return false, err
		}
	}
	if other := b.Get(key); item == nil && other != nil { // a signal in the place of a submission
		if err := b.Put(attentionKey(k.Kind, k.ID, k.Seq|ofSignal), bytes.Clone(other)); err != nil {
			return false, err
		}
	}
	return item != nil, b.Put(key, v)
}

// attentionKey is kind ‖ 0 ‖ id ‖ 0 ‖ stream sequence; see [itemKey].
func attentionKey(kind lodestone.AttentionKind, id string, seq uint64) []byte {
	b := append(append([]byte(kind), 0), id...)
	return binary.BigEndian.AppendUint64(append(b, 0), seq)
}
