package boltstore

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/sequencer"
)

// Erasing a person leaves three things: counts, the journal's skeleton without anything that came from them, and
// under a keyed hash of the address that it was erased and whether it may be contacted. The address itself stays
// in one place until the streams are cleared of it: the list of erasures that are under way.
var (
	bErased  = []byte("erased")  // keyed hash of an address → suppression, empty where there was none
	bErasing = []byte("erasing") // address → when it was asked for; gone when the streams are clear
	kErasure = []byte("erasure_key")
)

// Erased says what was taken away of a person in the store.
type Erased struct {
	Lead       bool `json:"lead"`
	Entries    int  `json:"journal_entries"` // blanked
	Attention  int  `json:"attention"`
	Suppressed bool `json:"suppressed"` // the address stays suppressed, under a keyed hash
}

// Erase takes a person out of leads, journal, attention and suppressions in one transaction, and notes that the
// streams are to be cleared. Doing it again is harmless. Pages that became free keep their bytes until they are
// used again or the file is compacted.
func (s *Store) Erase(_ context.Context, email lodestone.Email, book *sequencer.Rulebook, now time.Time) (out Erased, change sequencer.Change, err error) {
	err = s.update(func(tx *bolt.Tx) error {
		out = Erased{}
		key, err := erasureKey(tx)
		if err != nil {
			return err
		}
		t := newTxn(tx)
		st, err := t.state(email)
		if err != nil {
			return err
		}
		if st.Lead != nil {
			out.Lead = true
			res, err := t.write(&sequencer.Write{Email: email, Plan: func(st sequencer.State) (sequencer.Change, error) {
				return sequencer.Plan(st.Lead, sequencer.Forgotten{Email: email}, book, now)
			}})
			if err != nil {
				return err
			}
			if res.Err != nil {
				return res.Err
			}
			change = res.Change
			if out.Entries, err = blank(t.journal, change.Lead.Journal); err != nil {
				return err
			}
			if err := t.leads.Delete([]byte(email)); err != nil {
				return err
			}
		}
		if err := t.finish(); err != nil {
			return err
		}
		if out.Attention, err = dropAttention(tx, email); err != nil {
			return err
		}
		kept := lodestone.Suppression{At: now}
		if x := st.Suppression; x != nil {
			out.Suppressed = true
			kept = lodestone.Suppression{Reason: "kept when the address was erased", Source: x.Source, At: x.At}
		}
		if err := t.supp.Delete([]byte(email)); err != nil {
			return err
		}
		v, err := encode(nil, &kept)
		if err != nil {
			return err
		}
		erased, err := tx.CreateBucketIfNotExists(bErased)
		if err != nil {
			return err
		}
		if err := erased.Put(erasureHash(key, email), v); err != nil {
			return err
		}
		erasing, err := tx.CreateBucketIfNotExists(bErasing)
		if err != nil {
			return err
		}
		return erasing.Put([]byte(email), nanoKey(nil, nanos(now)))
	})
	return out, change, err
}

// Erasing returns the erasures whose streams are not clear yet, with when each was asked for.
func (s *Store) Erasing(context.Context) (list map[lodestone.Email]time.Time, err error) {
	list = map[lodestone.Email]time.Time{}
	err = s.view(func(tx *bolt.Tx) error {
		b := tx.Bucket(bErasing)
		if b == nil {
			return nil
		}
		return b.ForEach(func(k, v []byte) error {
			list[lodestone.Email(k)] = keyTime(v)
			return nil
		})
	})
	return list, err
}

// StreamsCleared ends an erasure: no stream holds the address any more.
func (s *Store) StreamsCleared(_ context.Context, email lodestone.Email) error {
	return s.update(func(tx *bolt.Tx) error {
		if b := tx.Bucket(bErasing); b != nil {
			return b.Delete([]byte(email))
		}
		return nil
	})
}

// Erasures is what a store knows of those whom it erased: nothing that names them, and enough to know them again.
type Erasures struct {
	key    []byte
	hashes map[string][]byte
}

// Erasures returns them, for [Store.EraseAgain] on a backup that is older.
func (s *Store) Erasures(context.Context) (e Erasures, err error) {
	e.hashes = map[string][]byte{}
	err = s.view(func(tx *bolt.Tx) error {
		e.key = bytes.Clone(tx.Bucket(bMeta).Get(kErasure))
		b := tx.Bucket(bErased)
		if b == nil {
			return nil
		}
		return b.ForEach(func(k, v []byte) error {
			e.hashes[string(k)] = bytes.Clone(v)
			return nil
		})
	})
	return e, err
}

// EraseAgain erases everybody whom another store, newer than this one, erased: a backup does not bring them back.
// It takes over the key and the hashes, and returns how many were found.
func (s *Store) EraseAgain(ctx context.Context, e Erasures, book *sequencer.Rulebook, now time.Time) (found int, err error) {
	if len(e.hashes) == 0 {
		return 0, nil
	}
	var people []lodestone.Email
	if err := s.update(func(tx *bolt.Tx) error {
		people = nil
		note := func(k []byte) {
			if _, ok := e.hashes[string(erasureHash(e.key, lodestone.Email(k)))]; ok {
				people = append(people, lodestone.Email(k))
			}
		}
		for _, name := range [][]byte{bLeads, bSuppressions} {
			if err := tx.Bucket(name).ForEach(func(k, _ []byte) error { note(k); return nil }); err != nil {
				return err
			}
		}
		if err := eachAttention(tx, func(a *lodestone.Attention) bool { note([]byte(a.Email)); return true }); err != nil {
			return err
		}
		if err := tx.Bucket(bMeta).Put(kErasure, e.key); err != nil {
			return err
		}
		b, err := tx.CreateBucketIfNotExists(bErased)
		if err != nil {
			return err
		}
		for k, v := range e.hashes {
			if err := b.Put([]byte(k), v); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return 0, err
	}
	seen := map[lodestone.Email]bool{}
	for _, email := range people {
		if seen[email] {
			continue
		}
		seen[email] = true
		if _, _, err := s.Erase(ctx, email, book, now); err != nil {
			return len(seen), err
		}
	}
	return len(seen), nil
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

func erasureHash(key []byte, email lodestone.Email) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(email))
	return h.Sum(nil)
}

// keptSuppression finds the suppression of an address that was erased.
func keptSuppression(tx *bolt.Tx, email lodestone.Email) (*lodestone.Suppression, error) {
	b, key := tx.Bucket(bErased), tx.Bucket(bMeta).Get(kErasure)
	if b == nil || key == nil {
		return nil, nil
	}
	v := b.Get(erasureHash(key, email))
	if v == nil {
		return nil, nil
	}
	x := new(lodestone.Suppression)
	if err := decode(v, x); err != nil {
		return nil, fmt.Errorf("the suppression of an erased address: %w", err)
	}
	if x.Source == "" {
		return nil, nil // erased, and not suppressed
	}
	x.Email = email
	return x, nil
}

// releaseKept takes back the suppression that an erased address kept.
func releaseKept(tx *bolt.Tx, email lodestone.Email) error {
	b, key := tx.Bucket(bErased), tx.Bucket(bMeta).Get(kErasure)
	if b == nil || key == nil {
		return nil
	}
	hash := erasureHash(key, email)
	if b.Get(hash) == nil {
		return nil
	}
	v, err := encode(nil, &lodestone.Suppression{At: time.Now().UTC()})
	if err != nil {
		return err
	}
	return b.Put(hash, v)
}

// blank takes everything that came from a person, or names them, out of their chain of entries. What the roll-up
// counts stays, and so do numbers and order.
func blank(journal *bolt.Bucket, seq uint64) (n int, err error) {
	for seq != 0 {
		e, err := entry(journal, seq)
		if err != nil || e == nil {
			return n, err
		}
		v, err := encode(nil, blanked(e))
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
		if a.Email == email || Mentions(a.Data, email) {
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
