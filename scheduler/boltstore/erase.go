package boltstore

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/sequencer"
)

// Erasing a person leaves three things: counts, the journal's skeleton without anything that came from them, and
// under a keyed hash of the address that it was erased and whether it may be contacted. The address itself stays
// in one place until the streams are cleared of it: the list of erasures that are under way.
var (
	bErased  = []byte("erased")  // keyed hash of an address → when ‖ suppression, empty where there was none
	bErasing = []byte("erasing") // address → when it was asked for; gone when the streams are clear
	kErasure = []byte("erasure_key")
)

// Erased says what was taken away of a person in the store.
type Erased struct {
	Lead       bool `json:"lead"`
	Entries    int  `json:"journal_entries"` // blanked
	Attention  int  `json:"attention"`
	Suppressed bool `json:"suppressed"` // the address stays suppressed, under a keyed hash
	// Out names the connectors at which a call about them was out, or of which nobody knows what came.
	Out []string `json:"calls_out,omitempty"`
}

// Erase takes a person out of leads, journal, attention and suppressions in one transaction, and notes that the
// streams are to be cleared of what came until they asked. Doing it again is harmless. Pages that became free keep
// their bytes until they are used again or the file is compacted.
//
// It reads the whole journal once, about a second for each million entries, and other work goes on meanwhile: what
// belongs to no lead, such as a submission that could not be used or the word of an operator, is in nobody's chain.
func (s *Store) Erase(_ context.Context, email lodestone.Email, asked time.Time) (out Erased, change sequencer.Change, err error) {
	var named naming
	if err := s.view(func(tx *bolt.Tx) error {
		named = naming{}
		return named.read(tx, email)
	}); err != nil {
		return out, change, err
	}
	err = s.update(func(tx *bolt.Tx) error {
		if out, change, err = erase(tx, email, asked, time.Now().UTC()); err != nil {
			return err
		}
		since := naming{last: named.last}
		if err := since.read(tx, email); err != nil {
			return err
		}
		n, err := unname(tx.Bucket(bJournal), slices.Concat(named.seqs, since.seqs))
		out.Entries += n
		return err
	})
	return out, change, err
}

// naming finds the entries of no lead that name a person.
type naming struct {
	last uint64 // read as far as this
	seqs []uint64
}

func (n *naming) read(tx *bolt.Tx, email lodestone.Email) error {
	c := tx.Bucket(bJournal).Cursor()
	for k, v := c.Seek(seqKey(n.last + 1)); k != nil; k, v = c.Next() {
		n.last = binary.BigEndian.Uint64(k)
		named := false
		if err := unpacked(v, func(entry []byte) error { named = Mentions(entry, email); return nil }); err != nil {
			return fmt.Errorf("journal entry %d: %w", n.last, err)
		}
		if !named {
			continue
		}
		e := &lodestone.Entry{}
		if err := decode(v, e); err != nil {
			return fmt.Errorf("journal entry %d: %w", n.last, err)
		}
		if e.Lead == "" {
			n.seqs = append(n.seqs, n.last)
		}
	}
	return nil
}

// unname takes out of entries of no lead what people wrote.
func unname(journal *bolt.Bucket, seqs []uint64) (n int, err error) {
	for _, seq := range seqs {
		e, err := entry(journal, seq)
		if err != nil || e == nil { // pruned meanwhile
			return n, err
		}
		out := blanked(e)
		if r := e.Rejected; r != nil {
			out.Rejected = &lodestone.RejectedEntry{Form: r.Form, Reason: r.Reason, StreamSeq: r.StreamSeq, Signal: r.Signal}
		}
		if o := e.Operator; o != nil {
			out.Operator = &lodestone.OperatorEntry{By: o.By, Command: o.Command}
		}
		v, err := Encode(out)
		if err != nil {
			return n, err
		}
		if err := journal.Put(seqKey(seq), v); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

func erase(tx *bolt.Tx, email lodestone.Email, asked, now time.Time) (out Erased, change sequencer.Change, err error) {
	key, err := erasureKey(tx)
	if err != nil {
		return out, change, err
	}
	t := newTxn(tx)
	st, err := t.state(email)
	if err != nil {
		return out, change, err
	}
	if st.Lead != nil {
		out.Lead = true
		for i := range st.Lead.Enrollments {
			if t := st.Lead.Enrollments[i].Touchpoint; t != nil && t.State.Pending() && t.State != lodestone.TouchpointScheduled {
				out.Out = append(out.Out, t.Connector)
			}
		}
		slices.Sort(out.Out)
		out.Out = slices.Compact(out.Out)
		res, err := t.write(&sequencer.Write{Email: email, Plan: func(st sequencer.State) (sequencer.Change, error) {
			return sequencer.Plan(st.Lead, sequencer.Forgotten{Email: email}, nil, now) // what ends asks no rule
		}})
		if err = errors.Join(err, res.Err); err != nil {
			return out, change, err
		}
		change = res.Change
		if out.Entries, err = blank(t.journal, change.Lead.Journal); err != nil {
			return out, change, err
		}
		if err := t.leads.Delete([]byte(email)); err != nil {
			return out, change, err
		}
	}
	if err := t.finish(); err != nil {
		return out, change, err
	}
	if out.Attention, err = dropAttention(tx, email); err != nil {
		return out, change, err
	}
	if err := dropEvidence(tx, email); err != nil {
		return out, change, err
	}
	var kept lodestone.Suppression
	if x := st.Suppression; x != nil {
		out.Suppressed = true
		kept = lodestone.Suppression{Reason: "kept when the address was erased", Source: x.Source, At: x.At}
	}
	if err := t.supp.Delete([]byte(email)); err != nil {
		return out, change, err
	}
	if err := putErased(tx, erasureHash(key, email), kept, asked); err != nil {
		return out, change, err
	}
	return out, change, putErasing(tx, email, asked, t.seq)
}

// putErasing notes that the streams hold something about a person who asked then. seq is of the journal, and tells
// this note from an earlier one.
func putErasing(tx *bolt.Tx, email lodestone.Email, asked time.Time, seq uint64) error {
	b, err := tx.CreateBucketIfNotExists(bErasing)
	if err != nil {
		return err
	}
	return b.Put([]byte(email), binary.BigEndian.AppendUint64(nanoKey(nil, nanos(asked)), seq))
}

// erasing notes that something about a person who was erased came after that: the streams are cleared once more.
func (t *txn) erasing(email lodestone.Email) error {
	_, asked, err := keptOf(t.tx, email)
	if err != nil || asked.IsZero() {
		return err
	}
	return putErasing(t.tx, email, asked, t.seq)
}

// suppress puts an address on the list. One that was erased, and that nobody is known by since, is kept under its
// keyed hash alone.
func (t *txn) suppress(email lodestone.Email, x *lodestone.Suppression, unknown bool) error {
	if unknown {
		kept := lodestone.Suppression{Reason: x.Reason, Source: x.Source, At: x.At}
		done, err := eachErasure(t.tx, email, func(hash []byte, at time.Time, _ *lodestone.Suppression) error {
			return putErased(t.tx, hash, kept, at)
		})
		if done > 0 || err != nil {
			return err
		}
	}
	v, err := encode(nil, x)
	if err != nil {
		return err
	}
	return t.supp.Put([]byte(email), v)
}

// late reports whether an item holds a message from before its sender was erased, which was on its way meanwhile.
func (t *txn) late(a *lodestone.Attention) (bool, error) {
	if a.Kind != lodestone.AttentionSubmission || a.Email == "" || a.Received.IsZero() || t.leads.Get([]byte(a.Email)) != nil {
		return false, nil
	}
	_, asked, err := keptOf(t.tx, a.Email)
	return err == nil && !asked.IsZero() && !a.Received.After(asked), err
}

// Pseudonym names a person by the keyed hash under which the store remembers that they were erased.
func (s *Store) Pseudonym(_ context.Context, email lodestone.Email) (name string, err error) {
	err = s.update(func(tx *bolt.Tx) error {
		key, err := erasureKey(tx)
		name = hex.EncodeToString(erasureHash(key, email)[:12])
		return err
	})
	return name, err
}

// putErased keeps that an address was erased, when, and whether it may be contacted.
func putErased(tx *bolt.Tx, hash []byte, kept lodestone.Suppression, at time.Time) error {
	v, err := encode(nanoKey(nil, nanos(at)), &kept)
	if err != nil {
		return err
	}
	b, err := tx.CreateBucketIfNotExists(bErased)
	if err != nil {
		return err
	}
	return b.Put(hash, v)
}

// Erasure is one whose streams are not clear yet.
type Erasure struct {
	Asked time.Time // when the person asked
	mark  []byte
}

// Erasing returns the erasures whose streams are not clear yet.
func (s *Store) Erasing(context.Context) (list map[lodestone.Email]Erasure, err error) {
	list = map[lodestone.Email]Erasure{}
	err = s.view(func(tx *bolt.Tx) error {
		b := tx.Bucket(bErasing)
		if b == nil {
			return nil
		}
		return b.ForEach(func(k, v []byte) error {
			list[lodestone.Email(k)] = Erasure{keyTime(v), bytes.Clone(v)}
			return nil
		})
	})
	return list, err
}

// StreamsCleared ends an erasure: no stream holds the address any more. It goes on where something came meanwhile.
func (s *Store) StreamsCleared(_ context.Context, email lodestone.Email, e Erasure) error {
	return s.update(func(tx *bolt.Tx) error {
		if b := tx.Bucket(bErasing); b != nil && bytes.Equal(b.Get([]byte(email)), e.mark) {
			return b.Delete([]byte(email))
		}
		return nil
	})
}

// eraseAgain takes over from another store what it knows of those whom it erased, and erases everybody again who
// was erased after the backup was made that tx is of: a backup does not bring them back.
func eraseAgain(tx, from *bolt.Tx, backup, now time.Time) (found int, err error) {
	hashes, key, keys := from.Bucket(bErased), from.Bucket(bMeta).Get(kErasure), erasureKeys(from)
	if hashes == nil || key == nil {
		return 0, nil
	}
	people := map[lodestone.Email]time.Time{} // with when they asked
	note := func(email lodestone.Email) {
		for _, key := range keys {
			if v := hashes.Get(erasureHash(key, email)); len(v) > 8 && keyTime(v).After(backup) && keyTime(v).After(people[email]) {
				people[email] = keyTime(v)
			}
		}
	}
	for _, name := range [][]byte{bLeads, bSuppressions} {
		if err := tx.Bucket(name).ForEach(func(k, _ []byte) error { note(lodestone.Email(k)); return nil }); err != nil {
			return 0, err
		}
	}
	if err := eachAttention(tx, func(a *lodestone.Attention) bool { note(a.Email); return true }); err != nil {
		return 0, err
	}
	// Under its own key the backup keeps suppressions as well, when it is of another store.
	keys = append(keys, erasureKeys(tx)...)
	if err := tx.Bucket(bMeta).Put(kErasure, bytes.Clone(key)); err != nil {
		return 0, err
	}
	for _, k := range keys {
		if bytes.Equal(k, key) {
			continue
		}
		name := sha256.Sum256(k)
		if err := tx.Bucket(bMeta).Put(fmt.Appendf(nil, "%s/%x", kErasure, name[:8]), k); err != nil {
			return 0, err
		}
	}
	for _, name := range [][]byte{bErased, bErasing} {
		b := from.Bucket(name)
		if b == nil {
			continue
		}
		to, err := tx.CreateBucketIfNotExists(name)
		if err != nil {
			return 0, err
		}
		if err := b.ForEach(func(k, v []byte) error { return to.Put(bytes.Clone(k), bytes.Clone(v)) }); err != nil {
			return 0, err
		}
	}
	for _, email := range slices.Sorted(maps.Keys(people)) {
		if _, _, err := erase(tx, email, people[email], now); err != nil {
			return 0, err
		}
	}
	return len(people), nil
}

func erasureKey(tx *bolt.Tx) ([]byte, error) {
	meta := tx.Bucket(bMeta)
	if k := meta.Get(kErasure); k != nil {
		return bytes.Clone(k), nil
	}
	k := make([]byte, 32)
	if _, err := rand.Read(k); err != nil {
		return nil, err
	}
	return k, meta.Put(kErasure, k)
}

// erasureKeys are the key that is in use and those of other stores whose erasures were taken over.
func erasureKeys(tx *bolt.Tx) (keys [][]byte) {
	c := tx.Bucket(bMeta).Cursor()
	for k, v := c.Seek(kErasure); bytes.HasPrefix(k, kErasure); k, v = c.Next() {
		keys = append(keys, bytes.Clone(v))
	}
	return keys
}

func erasureHash(key []byte, email lodestone.Email) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(email))
	return h.Sum(nil)
}

// eachErasure visits what is kept of an address that was erased, under every key; n is how often it was.
func eachErasure(tx *bolt.Tx, email lodestone.Email, visit func(hash []byte, at time.Time, kept *lodestone.Suppression) error) (n int, err error) {
	b := tx.Bucket(bErased)
	if b == nil {
		return 0, nil
	}
	for _, key := range erasureKeys(tx) {
		hash := erasureHash(key, email)
		v := b.Get(hash)
		if v == nil {
			continue
		}
		if len(v) < 8 {
			return n, fmt.Errorf("%w: an erasure without its time", ErrNotAStore)
		}
		x := new(lodestone.Suppression)
		if err := decode(v[8:], x); err != nil {
			return n, fmt.Errorf("the suppression of an erased address: %w", err)
		}
		n++
		if err := visit(hash, keyTime(v), x); err != nil {
			return n, err
		}
	}
	return n, nil
}

// keptOf finds the suppression of an address that was erased, and when it was last: zero when it never was.
func keptOf(tx *bolt.Tx, email lodestone.Email) (kept *lodestone.Suppression, at time.Time, err error) {
	_, err = eachErasure(tx, email, func(_ []byte, when time.Time, x *lodestone.Suppression) error {
		if when.After(at) {
			at = when
		}
		if kept == nil && x.Source != "" { // else it was erased, and is not suppressed
			x.Email = email
			kept = x
		}
		return nil
	})
	return kept, at, err
}

// releaseKept takes back the suppression that an erased address kept.
func releaseKept(tx *bolt.Tx, email lodestone.Email) error {
	_, err := eachErasure(tx, email, func(hash []byte, at time.Time, _ *lodestone.Suppression) error {
		return putErased(tx, hash, lodestone.Suppression{}, at)
	})
	return err
}

// blank takes everything that came from a person, or names them, out of their chain of entries. What the roll-up
// counts stays, and so do numbers and order.
func blank(journal *bolt.Bucket, seq uint64) (n int, err error) {
	for seq != 0 {
		e, err := entry(journal, seq)
		if err != nil || e == nil {
			return n, err
		}
		v, err := Encode(blanked(e))
		if err != nil {
			return n, err
		}
		if err := journal.Put(seqKey(seq), v); err != nil {
			return n, err
		}
		n++
		if e.Prev >= seq {
			return n, fmt.Errorf("%w: journal entry %d points forward", ErrNotAStore, seq)
		}
		seq = e.Prev
	}
	return n, nil
}

func blanked(e *lodestone.Entry) *lodestone.Entry {
	out := &lodestone.Entry{Seq: e.Seq, Prev: e.Prev, At: e.At}
	if d := e.Decision; d != nil {
		out.Decision = &lodestone.Decision{
			Form: d.Form, StreamSeq: d.StreamSeq, SubmittedAt: d.SubmittedAt, Reason: d.Reason, Rules: d.Rules,
			Score: d.Score, Band: d.Band, PreviousBand: d.PreviousBand, Lines: d.Lines, Candidates: d.Candidates,
		}
	}
	if g := e.Signal; g != nil {
		out.Signal = &lodestone.SignalEntry{Kind: g.Kind, At: g.At, StreamSeq: g.StreamSeq, Reason: g.Reason}
	}
	if c := e.Call; c != nil {
		out.Call = &lodestone.CallEntry{By: c.By, Operation: c.Operation, Class: c.Class, Status: c.Status, Took: c.Took, Trace: c.Trace}
	}
	if x := e.Suppression; x != nil {
		out.Suppression = &lodestone.SuppressionEntry{Removed: x.Removed, Source: x.Source}
	}
	for _, n := range e.Enrollments {
		n.ID = "" // derived from the address
		out.Enrollments = append(out.Enrollments, n)
	}
	for _, n := range e.Touchpoints {
		out.Touchpoints = append(out.Touchpoints, lodestone.TouchpointEntry{
			Sequence: n.Sequence, Step: n.Step, Operation: n.Operation, State: n.State, Reason: n.Reason,
			DueAt: n.DueAt, Attempt: n.Attempt, Status: n.Status, Took: n.Took,
		})
	}
	return out
}

// dropAttention deletes the items that are about a person or hold a message that names them.
func dropAttention(tx *bolt.Tx, email lodestone.Email) (int, error) {
	var keys [][]byte
	if err := tx.Bucket(bAttention).ForEach(func(k, v []byte) error {
		var a lodestone.Attention
		if err := decode(v, &a); err != nil {
			return fmt.Errorf("an attention item: %w", err)
		}
		if a.Email == email || Mentions(a.Data, email) || Mentions([]byte(a.ID), email) {
			keys = append(keys, bytes.Clone(k))
		}
		return nil
	}); err != nil {
		return 0, err
	}
	for _, k := range keys {
		if err := tx.Bucket(bAttention).Delete(k); err != nil {
			return 0, err
		}
	}
	return len(keys), nil
}

// dropEvidence deletes what a restore kept about a person's touchpoints.
func dropEvidence(tx *bolt.Tx, email lodestone.Email) error {
	ev := tx.Bucket(bEvidence)
	if ev == nil {
		return nil
	}
	keys := [][]byte{[]byte("l/" + string(email))}
	if err := ev.ForEach(func(k, v []byte) error {
		if Mentions(v, email) {
			keys = append(keys, bytes.Clone(k))
		}
		return nil
	}); err != nil {
		return err
	}
	for _, k := range keys {
		if err := ev.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// Mentions reports whether bytes hold an address, whatever its case, and not as a part of a longer one.
func Mentions(data []byte, email lodestone.Email) bool {
	low, want := bytes.ToLower(data), []byte(email)
	for from := 0; ; {
		i := bytes.Index(low[from:], want)
		if i < 0 {
			return false
		}
		i += from
		end := i + len(want)
		if (i == 0 || !partOfAddress(low[i-1])) && (end == len(low) || !partOfAddress(low[end])) {
			return true
		}
		from = i + 1
	}
}

func partOfAddress(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_' || c == '+'
}
