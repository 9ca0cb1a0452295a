package boltstore

import (
	"errors"

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
	entry, err := Encode(c.Entry)
	if err != nil {
		return // the transaction says it
	}
	lead, err := withoutNumber(c.Lead)
	if err != nil {
		return
	}
	a.Prepared = &prepared{entry, lead}
}

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

// withoutNumber is a lead's record but for the number of its newest journal entry, which ends it.
func withoutNumber(l *lodestone.Lead) ([]byte, error) {
	numbered := *l
	numbered.Journal = 1 // shows where the number goes
	return encoded(&numbered, journalIsOne)
}

// journalIsOne is how the record of a lead ends whose newest journal entry is the first.
var journalIsOne = []byte{0xa1, 'j', 1}

var errNoNumber = errors.New("the record of a lead does not end with the number of a journal entry")

// recordOf is a lead as it is stored.
func recordOf(l *lodestone.Lead) ([]byte, error) {
	if l.Journal == 0 {
		return Encode(l)
	}
	b, err := withoutNumber(l)
	if err != nil {
		return nil, err
	}
	return msgp.AppendUint64(b, l.Journal), nil
}
