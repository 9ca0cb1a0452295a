package boltstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/sequencer"
	"github.com/lodestonehq/lodestone/sequencer/failpoint"
)

// request is a batch on its way through the writer.
type request struct {
	batch   sequencer.Batch
	results []sequencer.Result
	err     error
	done    chan struct{}
	alone   func() error // instead of a batch: run where nothing else is committed
	begun   atomic.Bool  // the writer has it, or who sent it took it back; whoever sets it first
}

// Commit carries out a batch. See [sequencer.Store].
func (s *Store) Commit(ctx context.Context, b sequencer.Batch) ([]sequencer.Result, error) {
	r := &request{batch: b, done: make(chan struct{})}
	err := s.send(ctx, r)
	return r.results, err
}

// alone runs fn between two transactions, while nothing else is committed through the writer.
func (s *Store) alone(ctx context.Context, fn func() error) error {
	return s.send(ctx, &request{alone: fn, done: make(chan struct{})})
}

// send hands a request to the writer and waits until it is carried out.
func (s *Store) send(ctx context.Context, r *request) error {
	s.mu.RLock()
	select {
	case <-s.done:
		s.mu.RUnlock()
		return ErrClosed
	default:
	}
	select {
	case s.requests <- r:
		s.mu.RUnlock()
	case <-ctx.Done():
		s.mu.RUnlock()
		return ctx.Err()
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		if r.begun.CompareAndSwap(false, true) {
			return ctx.Err()
		}
		// The batch is carried out whatever becomes of ctx, so the answer is waited for: a caller that left
		// now would not know whether it happened.
		<-r.done
	}
	return r.err
}

// queued is how many requests may wait for the writer without those who sent them standing by: each would have
// to be woken once more.
const queued = 256

// yields is how often the writer lets those run who can, before it commits what is waiting: they may be
// about to commit too. Where nobody can run this takes no time, and where many can it is they who keep the
// writer from being quick: a commit costs nearly the same for ten as for one.
const yields = 8

// write is the one writer. It takes what is waiting, up to a bound, and commits it together: no
// delay is added, and under load many batches share one sync.
func (s *Store) write() {
	var group []*request
	for {
		select {
		case r := <-s.requests:
			if !r.begun.CompareAndSwap(false, true) {
				continue // taken back
			}
			group = append(group[:0], r)
		case <-s.done:
			s.refuse()
			return
		}
		n := len(group[0].batch.Writes)
		last := group[0] // ends the group when it runs alone
		yielded := 0
		for n < s.max && last.alone == nil && yielded < yields {
			select {
			case r := <-s.requests:
				if !r.begun.CompareAndSwap(false, true) {
					continue
				}
				if last = r; r.alone == nil {
					group = append(group, r)
					n += len(r.batch.Writes)
				}
			default:
				yielded++
				runtime.Gosched()
			}
		}
		if group[0].alone == nil {
			err := s.commit(group)
			for _, r := range group {
				if err != nil {
					r.results, r.err = nil, err
				}
				close(r.done)
			}
		}
		if last.alone != nil {
			last.err = last.alone()
			close(last.done)
		}
	}
}

// refuse answers the requests that still wait when the store is closed. Nobody sends any more.
func (s *Store) refuse() {
	for {
		select {
		case r := <-s.requests:
			r.err = ErrClosed
			close(r.done)
		default:
			return
		}
	}
}

// commit runs a group of requests in one transaction.
func (s *Store) commit(group []*request) error {
	failpoint.Hit(failpoint.CommitBegun)
	err := s.db.Load().Update(func(tx *bolt.Tx) error { // Compact runs on this goroutine too
		t := newTxn(tx)
		for _, r := range group {
			r.results = make([]sequencer.Result, len(r.batch.Writes))
			for i := range r.batch.Writes {
				res, err := t.write(&r.batch.Writes[i])
				if err != nil {
					return err
				}
				r.results[i] = res
			}
			if err := t.rest(&r.batch); err != nil {
				return err
			}
		}
		err := t.finish()
		failpoint.Hit(failpoint.CommitWritten)
		return err
	})
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return ErrClosed
	}
	if err != nil {
		err = fmt.Errorf("commit: %w", err)
		s.failing.Store(&err)
		s.failed.Store(true)
		return err
	}
	s.failing.Store(nil)
	s.wrote.Store(true)
	failpoint.Hit(failpoint.CommitDone)
	return nil
}

// txn is one transaction under way: the open buckets, the counts to add, and buffers. Values given
// to bbolt must stay as they are until the commit, so every value gets memory of its own.
type txn struct {
	tx                                             *bolt.Tx
	leads, due, intents, journal, supp, att, rolls *bolt.Bucket
	lanes                                          map[string]*bolt.Bucket
	counts                                         map[string]*uint64
	key                                            []byte           // room for a key; bbolt keeps a copy
	braked                                         map[string]int   // change of what each sequence's brake holds
	at                                             time.Time        // of the newest entry
	uses                                           map[string]int64 // active enrollments by version of the rule files
	seq                                            uint64
}

// fillOrdered is how full a page of ordered keys is made before it splits: what is appended never
// comes back to an earlier page (FOUNDATIONS: half the file size of the default).
const fillOrdered = 0.9

func newTxn(tx *bolt.Tx) *txn {
	t := &txn{
		tx:    tx,
		leads: tx.Bucket(bLeads), due: tx.Bucket(bDue), intents: tx.Bucket(bIntents), journal: tx.Bucket(bJournal),
		supp: tx.Bucket(bSuppressions), att: tx.Bucket(bAttention), rolls: tx.Bucket(bRollups),
		lanes: map[string]*bolt.Bucket{}, counts: map[string]*uint64{}, uses: map[string]int64{}, braked: map[string]int{},
	}
	t.journal.FillPercent = fillOrdered
	t.seq = t.journal.Sequence()
	return t
}

// write carries out one write. The error is one of the store; what Plan says goes into the result.
func (t *txn) write(w *sequencer.Write) (sequencer.Result, error) {
	if a := w.Ahead; a != nil {
		same, err := t.unchanged(w.Email, a.State)
		if err != nil {
			return sequencer.Result{}, err
		}
		if same && (a.Still == nil || a.Still()) {
			p, _ := a.Prepared.(*prepared)
			v, err := t.apply(w.Email, a.State.Lead, &a.Change, p)
			return sequencer.Result{Change: a.Change, Version: v}, err
		}
	}
	state, err := t.state(w.Email)
	if err != nil {
		return sequencer.Result{}, err
	}
	if w.Settles != nil {
		_, item, err := findItem(t.att, *w.Settles)
		if err != nil {
			return sequencer.Result{}, err
		}
		if item == nil {
			return sequencer.Result{Err: sequencer.ErrSettled}, nil
		}
		state.Item = item
	}
	change, err := plan(w, state)
	if err != nil {
		return sequencer.Result{Err: err}, nil
	}
	v, err := t.apply(w.Email, state.Lead, &change, nil)
	res := sequencer.Result{Change: change, Version: v}
	if err != nil || w.Settles == nil {
		return res, err
	}
	for i := range change.Attention {
		if sequencer.KeyOf(&change.Attention[i]) == *w.Settles {
			return res, nil
		}
	}
	key, _, err := findItem(t.att, *w.Settles)
	if err != nil || key == nil {
		return res, err
	}
	return res, t.att.Delete(key)
}

// plan calls a write's Plan. A panic in it is one write's fault and harms no other.
func plan(w *sequencer.Write, st sequencer.State) (c sequencer.Change, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("planning a change of one lead failed: %v\n%s", p, debug.Stack())
		}
	}()
	return w.Plan(st)
}

// unchanged reports whether the store still holds the state that something was planned over.
func (t *txn) unchanged(email lodestone.Email, was sequencer.State) (bool, error) {
	if !bytes.Equal(t.leads.Get(t.keyOf(string(email))), was.Version) {
		return false, nil
	}
	is, erased, err := t.suppression(email)
	if err == nil && was.Lead == nil && !erased.Equal(was.Erased) {
		return false, nil
	}
	if err != nil || is == nil || was.Suppression == nil {
		return is == was.Suppression, err
	}
	return is.Reason == was.Suppression.Reason && is.Source == was.Suppression.Source && is.At.Equal(was.Suppression.At), nil
}

func (t *txn) state(email lodestone.Email) (sequencer.State, error) {
	return t.stateOf(email, t.leads.Get([]byte(email)))
}

// stateOf is the state of a lead whose record is v, nil where there is none.
func (t *txn) stateOf(email lodestone.Email, v []byte) (st sequencer.State, err error) {
	if v != nil {
		st.Lead = new(lodestone.Lead)
		if err := decode(v, st.Lead); err != nil {
			return st, fmt.Errorf("a lead's record: %w", err)
		}
		st.Lead.HideLinks()
	}
	if t.tx != nil {
		st.Starts = t.starts
	}
	st.Suppression, st.Erased, err = t.suppression(email)
	if st.Lead != nil {
		st.Erased = time.Time{} // they came back
	}
	return st, err
}

// suppression is what the list says of an address, or what is kept of one that was erased, with when it was.
func (t *txn) suppression(email lodestone.Email) (*lodestone.Suppression, time.Time, error) {
	x, err := suppression(t.supp, email)
	if err != nil {
		return nil, time.Time{}, err
	}
	kept, at, err := keptOf(t.supp.Tx(), email)
	if x == nil {
		x = kept
	}
	return x, at, err
}

// apply writes a change: journal, lead, indexes, counts, lists. It returns the lead's record as it is now,
// nil when the change leaves it alone. p is what of it was made before, nil: nothing.
func (t *txn) apply(email lodestone.Email, old *lodestone.Lead, c *sequencer.Change, p *prepared) (record []byte, err error) {
	if e := c.Entry; e != nil {
		e.Prev = newest(old)
		var v []byte
		if p != nil {
			v = p.entry
		}
		if err := t.append(e, v); err != nil {
			return nil, err
		}
		if c.Lead != nil {
			c.Lead.Journal = e.Seq
		}
	}
	if c.Lead != nil {
		if p != nil {
			record = p.record(c.Lead)
		} else if record, err = recordOf(c.Lead); err != nil {
			return nil, err
		}
		if err := t.leads.Put(t.keyOf(string(email)), record); err != nil {
			return nil, err
		}
		if err := t.index(email, old, c.Lead); err != nil {
			return nil, err
		}
		t.countRules(old, c.Lead)
		eachBraked(old, func(e *lodestone.Enrollment) { t.braked[e.Sequence]-- })
		eachBraked(c.Lead, func(e *lodestone.Enrollment) { t.braked[e.Sequence]++ })
	}
	if c.Started != "" {
		if err := t.started(c.Started, t.at); err != nil {
			return nil, err
		}
	}
	if c.Suppress != nil {
		if err := t.suppress(email, c.Suppress, old == nil && c.Lead == nil); err != nil {
			return nil, err
		}
	}
	if c.Erased {
		if err := t.erasing(email); err != nil {
			return nil, err
		}
	}
	if c.Release {
		if err := releaseKept(t.tx, email); err != nil {
			return nil, err
		}
		if err := t.supp.Delete([]byte(email)); err != nil {
			return nil, err
		}
	}
	for _, id := range c.Resolved {
		if err := t.resolve(sequencer.AttentionKey{Kind: lodestone.AttentionTouchpoint, ID: id}); err != nil {
			return nil, err
		}
	}
	return record, t.attend(c.Attention)
}

// append gives an entry the next number and puts it at the end of the journal. v is the entry as it is
// stored, nil where it is not made yet.
func (t *txn) append(e *lodestone.Entry, v []byte) (err error) {
	t.seq++
	e.Seq = t.seq
	t.at = e.At
	if v == nil {
		if v, err = Encode(e); err != nil {
			return err
		}
	}
	t.count(e)
	return t.journal.Put(seqKey(e.Seq), v)
}

// index brings due and intents in line with the lead: what the old state had and the new has not is
// deleted, what is new is put.
func (t *txn) index(email lodestone.Email, old, lead *lodestone.Lead) error {
	var room [4]indexKey // most have one or two
	before := appendIndexKeys(room[:0:2], old)
	after := appendIndexKeys(room[2:2], lead)
	for _, k := range before {
		if !slices.ContainsFunc(after, k.equal) {
			if err := t.unindex(email, k); err != nil {
				return err
			}
		}
	}
	for _, k := range after {
		if slices.ContainsFunc(before, k.equal) {
			continue
		}
		if k.state == lodestone.TouchpointScheduled {
			b, err := t.lane(k.connector, k.sequence)
			if err != nil {
				return err
			}
			if err := b.Put(t.dueKey(k.due, email), nil); err != nil {
				return err
			}
			continue
		}
		if err := t.intents.Put(t.keyOf(k.id), pending{k.state, k.connector, email}.encode()); err != nil {
			return err
		}
	}
	return nil
}

func (t *txn) unindex(email lodestone.Email, k indexKey) error {
	if k.state != lodestone.TouchpointScheduled {
		return t.intents.Delete(t.keyOf(k.id))
	}
	b, err := t.lane(k.connector, k.sequence)
	if err != nil {
		return err
	}
	return b.Delete(t.dueKey(k.due, email))
}

// keyOf is a text as a key, in the room for one.
func (t *txn) keyOf(text string) []byte {
	t.key = append(t.key[:0], text...)
	return t.key
}

// dueKey is the key of a touchpoint in its part of the due queue, in the room for one.
func (t *txn) dueKey(due int64, email lodestone.Email) []byte {
	t.key = append(nanoKey(t.key[:0], due), email...)
	return t.key
}

// lane is the part of the due queue that belongs to one sequence of one connector.
func (t *txn) lane(connector, sequence string) (*bolt.Bucket, error) {
	t.key = append(append(append(t.key[:0], connector...), 0), sequence...)
	name := t.key
	if b := t.lanes[string(name)]; b != nil {
		return b, nil
	}
	b, err := t.due.CreateBucketIfNotExists(name)
	if err != nil {
		return nil, err
	}
	b.FillPercent = fillOrdered
	t.lanes[string(name)] = b
	return b, nil
}

// indexKey is where the indexes hold a pending touchpoint.
type indexKey struct {
	id        string
	state     lodestone.TouchpointState
	connector string
	sequence  string
	due       int64
}

func (k indexKey) equal(o indexKey) bool {
	if k.state == lodestone.TouchpointScheduled || o.state == lodestone.TouchpointScheduled {
		return k == o
	}
	return k.id == o.id && k.state == o.state && k.connector == o.connector // when to look again is in the lead
}

func indexKeys(l *lodestone.Lead) []indexKey { return appendIndexKeys(nil, l) }

// appendIndexKeys appends those of a lead to keys.
func appendIndexKeys(keys []indexKey, l *lodestone.Lead) []indexKey {
	if l == nil {
		return keys
	}
	for i := range l.Enrollments {
		if t := l.Enrollments[i].Touchpoint; t != nil {
			keys = append(keys, indexKey{t.ID, t.State, t.Connector, l.Enrollments[i].Sequence, nanos(t.DueAt)})
		}
	}
	return keys
}

// rest carries out what a batch says beside its writes.
func (t *txn) rest(b *sequencer.Batch) error {
	if err := t.attend(b.Attention); err != nil {
		return err
	}
	for _, k := range b.Resolved {
		if err := t.resolve(k); err != nil {
			return err
		}
	}
	if b.Stream != "" {
		v := binary.BigEndian.AppendUint64(nil, uint64(b.Watermark.Created.UnixNano()))
		v = binary.BigEndian.AppendUint64(v, b.Watermark.Seq)
		return t.tx.Bucket(bMeta).Put(watermarkKey(b.Stream), v)
	}
	return nil
}

// attend puts attention items. Rejected submissions go into the journal as well, because every
// submission ends there in a named state; one that was tried again and is still not usable stands there
// already.
func (t *txn) attend(items []lodestone.Attention) error {
	for i := range items {
		v, err := encode(nil, &items[i])
		if err != nil {
			return err
		}
		late, err := t.late(&items[i])
		if err != nil {
			return err
		}
		var known bool
		if late {
			_, item, err := findItem(t.att, sequencer.KeyOf(&items[i]))
			if err != nil {
				return err
			}
			known = item != nil
		} else if known, err = putItem(t.att, &items[i], v); err != nil {
			return err
		}
		if items[i].Kind != lodestone.AttentionSubmission || known {
			continue
		}
		if err := t.append(&lodestone.Entry{At: items[i].At, Rejected: &lodestone.RejectedEntry{
			ID: items[i].ID, Form: items[i].Form, Reason: items[i].Reason, StreamSeq: items[i].Seq, Signal: items[i].IsSignal(),
		}}, nil); err != nil {
			return err
		}
	}
	return nil
}

// resolve deletes every item of one kind and id.
func (t *txn) resolve(k sequencer.AttentionKey) error {
	prefix := attentionKey(k.Kind, k.ID, 0)
	prefix = prefix[:len(prefix)-8]
	var keys [][]byte // collected first: deleting under a cursor passes keys over
	for c, key := t.att.Cursor(), []byte(nil); ; {
		if key == nil {
			key, _ = c.Seek(prefix)
		} else {
			key, _ = c.Next()
		}
		if key == nil || !bytes.HasPrefix(key, prefix) {
			break
		}
		if len(key) == len(prefix)+8 {
			keys = append(keys, bytes.Clone(key))
		}
	}
	for _, key := range keys {
		if err := t.att.Delete(key); err != nil {
			return err
		}
	}
	return nil
}

// count adds what an entry records to the roll-up. Counting from the journal entry itself means
// that the two cannot tell different stories.
func (t *txn) count(e *lodestone.Entry) {
	d := day(e.At)
	if r := e.Rejected; r != nil {
		what := "submission.rejected"
		if r.Signal {
			what = "signal.rejected"
		}
		t.add(d, "", "", what, "")
	}
	if e.Decision != nil {
		what := "submission.accepted"
		switch e.Decision.Reason {
		case lodestone.ReasonDuplicate:
			what = "submission.duplicate"
		case lodestone.ReasonErased:
			what = "submission.erased"
		case lodestone.ReasonBackfill:
			what = "submission.backfill"
		}
		t.add(d, "", "", what, "")
	}
	for i := range e.Enrollments {
		n := &e.Enrollments[i]
		what := "enrollment.started"
		if n.State != lodestone.EnrollmentActive {
			what = "enrollment." + string(n.State)
		}
		t.add(d, n.Sequence, "", what, n.Variant)
	}
	for i := range e.Touchpoints {
		n := &e.Touchpoints[i]
		switch {
		case n.Reason == lodestone.ReasonPlanned, n.Reason == lodestone.ReasonReopened:
			t.add(d, n.Sequence, n.Step, "touchpoint.scheduled", n.Variant)
			if n.Reason == lodestone.ReasonReopened { // what failed is no longer among those that ended so
				t.add(d, n.Sequence, n.Step, "touchpoint.reopened", n.Variant)
			}
		case !n.State.Pending():
			t.add(d, n.Sequence, n.Step, "touchpoint."+string(n.State), n.Variant)
		}
	}
}

func (t *txn) add(day uint32, sequence, step, what, variant string) {
	for _, d := range [...]uint32{day, 0} {
		t.key = appendRollupKey(t.key[:0], d, sequence, step, what, variant)
		n := t.counts[string(t.key)]
		if n == nil {
			n = new(uint64)
			t.counts[string(t.key)] = n
		}
		*n++
	}
}

// finish writes the counts and the journal's sequence number.
func (t *txn) finish() error {
	if err := t.held(); err != nil {
		return err
	}
	for k, more := range t.counts {
		key, n := []byte(k), *more
		if v := t.rolls.Get(key); len(v) == 8 {
			n += binary.BigEndian.Uint64(v)
		}
		if err := t.rolls.Put(key, binary.BigEndian.AppendUint64(nil, n)); err != nil {
			return err
		}
	}
	if err := t.putRuleUses(); err != nil {
		return err
	}
	if t.seq != t.journal.Sequence() {
		return t.journal.SetSequence(t.seq)
	}
	return nil
}

func suppression(b *bolt.Bucket, email lodestone.Email) (*lodestone.Suppression, error) {
	v := b.Get([]byte(email))
	if v == nil {
		return nil, nil
	}
	s := new(lodestone.Suppression)
	if err := decode(v, s); err != nil {
		return nil, fmt.Errorf("a suppression: %w", err)
	}
	return s, nil
}

func watermarkKey(stream string) []byte { return append([]byte("watermark/"), stream...) }
