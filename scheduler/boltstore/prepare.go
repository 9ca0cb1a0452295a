package boltstore

import (
	"bytes"
	"sync"

	"github.com/tinylib/msgp/msgp"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/sequencer"
)

// prepared is a change as it is stored, made before its transaction: the writer is the one place where
// nothing goes on beside it.
type prepared struct {
	entry []byte // the journal entry
	lead  []byte // the lead's record but for the number of that entry, which ends it; there is room for it
}

// Prepare encodes the records of a change. One that it does not do for is encoded in the transaction. See
// [sequencer.Store].
func (s *Store) Prepare(a *sequencer.Ahead) {
	c := &a.Change
	if c.Entry == nil || c.Lead == nil {
		return
	}
	c.Entry.Prev = newest(a.State.Lead)
	entry, err := encoded(c.Entry)
	if err != nil {
		return // the transaction says it
	}
	l := *c.Lead
	l.Journal = 1 // shows where the number goes: it is the last of a record
	lead, err := encoded(&l)
	if err != nil || !bytes.HasSuffix(lead, journalIsOne) {
		return
	}
	a.Prepared = &prepared{entry, lead[:len(lead)-1]}
}

// journalIsOne is how the record of a lead ends whose newest journal entry is the first.
var journalIsOne = []byte{0xa1, 'j', 1}

// record is the lead's, whose newest journal entry has its number by now. It may be asked for again, where
// a transaction is tried again.
func (p *prepared) record(l *lodestone.Lead) []byte { return msgp.AppendUint64(p.lead, l.Journal) }

// newest is the number of a lead's newest entry in the journal, 0 when there is none.
func newest(l *lodestone.Lead) uint64 {
	if l == nil {
		return 0
	}
	return l.Journal
}

// scratch are buffers to encode in: how long a record becomes is only known when it is made.
var scratch = sync.Pool{New: func() any { return new([]byte) }}

// numberRoom is the most that a number takes beyond its first byte.
const numberRoom = 8

// encoded is v as encode writes it, in memory of its own with a little room behind.
func encoded(v msgp.Marshaler) ([]byte, error) {
	buf := scratch.Get().(*[]byte)
	defer scratch.Put(buf)
	b, err := encode((*buf)[:0], v)
	if err != nil {
		return nil, err
	}
	if cap(b) <= 64<<10 {
		*buf = b
	}
	return append(make([]byte, 0, len(b)+numberRoom), b...), nil
}
