package boltstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/scheduler"
)

// A restored store does not know what was done since its backup was made: the streams give back what
// came in, but a touchpoint that waits in it may have been sent meanwhile. What is known of that is
// kept as evidence, in a bucket of its own:
//
//	t/<touchpoint>  → what became of it, or that it was asked about
//	e/<enrollment>  → one of its touchpoints was in doubt, so those after it are
//	l/<email>       → something was sent that this store cannot place
//
// It comes from the store that was replaced, where that can be read, and from the events that were
// published since. A touchpoint that could have been sent and of which nothing is known is in doubt:
// it is looked up at the provider before anything else, like every call whose outcome is not known.

var (
	bEvidence = []byte("evidence")
	kRestored = []byte("restored")
)

// Restored says what a store remembers of being restored from a backup.
type Restored struct {
	Backup   time.Time `json:"backup"`            // when the backup was made
	At       time.Time `json:"at"`                // when it was restored
	Instance string    `json:"instance"`          // of the store that the backup was made of
	Earlier  []string  `json:"earlier,omitempty"` // of stores before that one whose events were never read
	Claimed  time.Time `json:"claimed,omitzero"`  // until then the other one may have acted
	Gathered bool      `json:"gathered,omitzero"` // the events that were published since have been read
}

// Published reports whether an event of an instance tells what this store does not know.
func (r Restored) Published(instance string) bool {
	return instance == r.Instance || slices.Contains(r.Earlier, instance)
}

// Outcome is what became of a touchpoint after the backup was made.
type Outcome struct {
	ID        string                    `json:"id"`
	Email     lodestone.Email           `json:"email"`
	Operation string                    `json:"operation,omitempty"`
	State     lodestone.TouchpointState `json:"state"`
	Reason    lodestone.Reason          `json:"reason,omitempty"`
	At        time.Time                 `json:"at"`
	Reference string                    `json:"reference,omitempty"`
}

// Known reports whether an outcome says more than that the touchpoint waits.
func (o Outcome) Known() bool {
	return o.ID != "" && o.State != "" && o.State != lodestone.TouchpointScheduled && o.State != lodestone.TouchpointIntended
}

// asked marks a touchpoint whose doubt went to the provider or to a human.
const asked lodestone.TouchpointState = "asked"

// RestoreInfo says what a restore did.
type RestoreInfo struct {
	BackupInfo
	Aside        string `json:"aside,omitempty"` // where the store is that was replaced; empty: there was none
	Outcomes     int    `json:"outcomes"`        // touchpoints whose outcome since the backup the replaced store knew
	Suppressions int    `json:"suppressions"`    // opt-outs that were taken over from it
	Erased       int    `json:"erased"`          // people whom it had erased since, and who are erased here too
}

const restorePrefix = ".restore-"

// Restore puts the backup in file in the place of the store in dir. It is checked whole before
// anything is touched. The store that was there is kept aside under another name; what it knows of
// the time since the backup, and the opt-outs and pauses that it holds, are taken over where it can be read. The
// restored store counts as a copy until [Store.Claim]. No process may have the store in dir open.
func Restore(ctx context.Context, dir, file string, now time.Time) (info RestoreInfo, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return info, fmt.Errorf("data directory: %w", err)
	}
	path := filepath.Join(dir, FileName)
	release, old, err := hold(path)
	if err != nil {
		return info, err
	}
	defer func() { err = errors.Join(err, release()) }()
	sweep(dir)

	tmp, err := os.MkdirTemp(dir, restorePrefix)
	if err != nil {
		return info, fmt.Errorf("data directory: %w", err)
	}
	defer os.RemoveAll(tmp)
	fresh := filepath.Join(tmp, FileName)
	if err := copyFile(fresh, file); err != nil {
		return info, fmt.Errorf("copy the backup: %w", err)
	}
	s, err := openCopy(fresh)
	if err != nil {
		return info, sayFile(err, fresh, file)
	}
	defer func() {
		if s != nil {
			err = errors.Join(err, s.db.Load().Close())
		}
	}()
	if err := s.sound(ctx); err != nil {
		return info, sayFile(err, fresh, file)
	}
	if err := s.upgrade(); err != nil {
		return info, sayFile(err, fresh, file)
	}
	if info.BackupInfo, err = s.backupInfo(); err != nil {
		return info, err
	}
	info.File = file
	if info.At.IsZero() {
		return info, fmt.Errorf("%s is a store, but no backup made by `lodestone backup`: nobody can say what was done since. To go on with a copied data directory use `lodestone claim` there", file)
	}
	err = s.update(func(tx *bolt.Tx) error {
		if err := tx.Bucket(bMeta).Put(kIdentity, []byte("restored "+now.Format(time.RFC3339))); err != nil {
			return err
		}
		if err := tx.Bucket(bMeta).Delete(kBackup); err != nil {
			return err
		}
		if err := putJSON(tx, kRestored, Restored{Backup: info.At, At: now, Instance: string(tx.Bucket(bMeta).Get(kInstance))}); err != nil {
			return err
		}
		if tx.Bucket(bEvidence) != nil { // of an earlier restore
			if err := tx.DeleteBucket(bEvidence); err != nil {
				return err
			}
		}
		ev, err := tx.CreateBucket(bEvidence)
		if err != nil || old == nil {
			return err
		}
		return old.view(func(from *bolt.Tx) error {
			if err := takeOver(tx, ev, from, &info); err != nil {
				return err
			}
			info.Erased, err = eraseAgain(tx, from, info.At, now)
			return err
		})
	})
	if err != nil {
		return info, err
	}
	if err := s.db.Load().Close(); err != nil {
		return info, err
	}
	s = nil

	if _, err := os.Lstat(path); err == nil {
		info.Aside = filepath.Join(dir, "replaced-"+now.Format("20060102T150405Z")+".db")
		if old != nil { // moved back by hand it must not act as if nothing had happened
			if err := old.putMeta(kIdentity, []byte("replaced "+now.Format(time.RFC3339))); err != nil {
				return info, err
			}
		}
		if err := os.Link(path, info.Aside); err != nil {
			return info, fmt.Errorf("keep the old store: %w", err)
		}
	}
	if err := os.Rename(fresh, path); err != nil {
		return info, err
	}
	return info, syncDir(dir)
}

// sayFile names the file that the user gave where the message names the copy of it.
func sayFile(err error, tmp, file string) error {
	text := strings.ReplaceAll(err.Error(), tmp, file)
	if i := strings.Index(text, "; nothing was changed"); i >= 0 {
		text = text[:i]
	}
	return fmt.Errorf("%s. This backup cannot be used; nothing was changed. Use another one", text)
}

// hold keeps other processes away from the store file at path. old is the open store, nil when there
// is none or it cannot be read.
func hold(path string) (release func() error, old *Store, err error) {
	nothing := func() error { return nil }
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nothing, nil, nil
	}
	old, err = openCopy(path)
	switch {
	case err == nil:
		return old.db.Load().Close, old, nil
	case errors.Is(err, ErrInUse):
		return nil, nil, fmt.Errorf("%w; stop the worker first: a restore puts another store in the place of the one it works with", err)
	}
	// It is damaged, which is what backups are for. Nobody else can open it either.
	return nothing, nil, nil
}

func copyFile(to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Sync(), dst.Close())
}

// takeOver copies from the store that is replaced what must not be forgotten: the opt-outs, the pauses, and
// what became of touchpoints since the backup.
func takeOver(tx *bolt.Tx, ev *bolt.Bucket, from *bolt.Tx, info *RestoreInfo) error {
	supp := tx.Bucket(bSuppressions)
	if err := from.Bucket(bSuppressions).ForEach(func(k, v []byte) error {
		if supp.Get(k) != nil {
			return nil
		}
		info.Suppressions++
		return supp.Put(k, v)
	}); err != nil {
		return err
	}
	paused := from.Bucket(bMeta).Cursor()
	for k, v := paused.Seek([]byte(pausedPrefix)); bytes.HasPrefix(k, []byte(pausedPrefix)); k, v = paused.Next() {
		if meta := tx.Bucket(bMeta); meta.Get(k) == nil {
			if err := meta.Put(k, v); err != nil {
				return err
			}
		}
	}
	if string(from.Bucket(bMeta).Get(kInstance)) != string(tx.Bucket(bMeta).Get(kInstance)) {
		return nil // its history is another one
	}
	c := from.Bucket(bJournal).Cursor()
	for k, v := c.Seek(seqKey(info.Journal + 1)); k != nil; k, v = c.Next() {
		var e lodestone.Entry
		if err := decode(v, &e); err != nil {
			return fmt.Errorf("the journal of the store that is replaced: %w", err)
		}
		for _, n := range e.Touchpoints {
			o := Outcome{n.ID, e.Lead, n.Operation, n.State, n.Reason, e.At, n.Reference}
			if !o.Known() {
				continue
			}
			info.Outcomes++
			if err := putOutcome(ev, o); err != nil {
				return err
			}
		}
	}
	return nil
}

// putOutcome keeps the latest word about a touchpoint; that it was sent is never taken back.
func putOutcome(ev *bolt.Bucket, o Outcome) error {
	key := []byte("t/" + o.ID)
	var was Outcome
	if v := ev.Get(key); v != nil && json.Unmarshal(v, &was) == nil && was.State == lodestone.TouchpointSent {
		return nil
	}
	v, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return ev.Put(key, v)
}

// Restored says whether this store was restored from a backup; nil when it was not.
func (s *Store) Restored() *Restored { return s.restored.Load() }

// Gather keeps what events that were published since the backup tell. Once done is said, the
// evidence is complete, and what was sent but belongs to no enrollment of its lead is looked for: it
// was planned by rules that this store does not plan by.
func (s *Store) Gather(_ context.Context, outcomes []Outcome, done bool) error {
	r := s.restored.Load()
	if r == nil {
		return nil
	}
	next := *r
	err := s.update(func(tx *bolt.Tx) error {
		ev := tx.Bucket(bEvidence)
		for _, o := range outcomes {
			if err := putOutcome(ev, o); err != nil {
				return err
			}
		}
		if !done {
			return nil
		}
		next.Gathered = true
		if err := misplaced(tx, ev); err != nil {
			return err
		}
		return putJSON(tx, kRestored, next)
	})
	if err == nil {
		s.restored.Store(&next)
	}
	return err
}

// misplaced marks the leads to whom something was sent that they have no enrollment for.
func misplaced(tx *bolt.Tx, ev *bolt.Bucket) error {
	marks := map[lodestone.Email]string{}
	t := txn{leads: tx.Bucket(bLeads), supp: tx.Bucket(bSuppressions)}
	c := ev.Cursor()
	for k, v := c.Seek([]byte("t/")); strings.HasPrefix(string(k), "t/"); k, v = c.Next() {
		var o Outcome
		if err := json.Unmarshal(v, &o); err != nil {
			return fmt.Errorf("%w: evidence that cannot be read", ErrNotAStore)
		}
		if o.State != lodestone.TouchpointSent && o.State != lodestone.TouchpointUnknown && o.State != lodestone.TouchpointHeld {
			continue
		}
		st, err := t.state(o.Email)
		if err != nil {
			return err
		}
		if st.Lead == nil || !knows(st.Lead, o.ID) {
			marks[o.Email] = fmt.Sprintf("since the backup %s was done for this lead (touchpoint %s), under rules that are not in force here", o.Operation, o.ID)
		}
	}
	for email, mark := range marks {
		if err := ev.Put([]byte("l/"+string(email)), []byte(mark)); err != nil {
			return err
		}
	}
	return nil
}

func knows(l *lodestone.Lead, touchpoint string) bool {
	of := func(id string) bool { return strings.HasPrefix(touchpoint, id+".") }
	return slices.ContainsFunc(l.Enrollments, func(e lodestone.Enrollment) bool { return of(e.ID) }) ||
		slices.ContainsFunc(l.Past, func(e lodestone.PastEnrollment) bool { return of(e.ID) })
}

// Before says what is known of a touchpoint from before this store was restored. See
// [scheduler.Config].
func (s *Store) Before(_ context.Context, email lodestone.Email, e *lodestone.Enrollment, t *lodestone.Touchpoint) (b scheduler.Before, err error) {
	r := s.restored.Load()
	if r == nil {
		return b, nil
	}
	b.Since, b.Until = r.Backup, r.Claimed
	err = s.view(func(tx *bolt.Tx) error {
		ev := tx.Bucket(bEvidence)
		if ev == nil {
			return nil
		}
		var o Outcome
		if v := ev.Get([]byte("t/" + t.ID)); v != nil {
			if err := json.Unmarshal(v, &o); err != nil {
				return fmt.Errorf("%w: evidence that cannot be read", ErrNotAStore)
			}
		}
		switch {
		case o.State == asked: // the doubt was settled
		case o.State != "" && !o.State.Pending():
			b.State, b.Reason, b.At, b.Reference = o.State, o.Reason, o.At, o.Reference
		default:
			b.Doubt = o.State != "" || !t.PlannedAt.After(r.Claimed) || ev.Get([]byte("e/"+e.ID)) != nil
			if b.Doubt {
				b.Misplaced = string(ev.Get([]byte("l/" + string(email))))
			}
		}
		return nil
	})
	return b, err
}

// Asked records that the doubt about a touchpoint went to the provider or to a human, and, where its enrollment
// is given, that those that come after it are in doubt as well.
func (s *Store) Asked(_ context.Context, e *lodestone.Enrollment, touchpoint string) error {
	return s.update(func(tx *bolt.Tx) error {
		ev, err := tx.CreateBucketIfNotExists(bEvidence)
		if err != nil {
			return err
		}
		v, err := json.Marshal(Outcome{ID: touchpoint, State: asked})
		if err != nil {
			return err
		}
		if err := ev.Put([]byte("t/"+touchpoint), v); err != nil || e == nil {
			return err
		}
		return ev.Put([]byte("e/"+e.ID), []byte{1})
	})
}

// claimRestored makes a restored store an instance of its own: its journal goes on with numbers that
// the other one has used as well, and events of the two must not share ids.
func claimRestored(tx *bolt.Tx, now time.Time) (*Restored, error) {
	var r Restored
	ok, err := getJSON(tx, kRestored, &r)
	if err != nil || !ok || !r.Claimed.IsZero() {
		return nil, err
	}
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return nil, err
	}
	r.Claimed = now
	return &r, errors.Join(tx.Bucket(bMeta).Put(kInstance, []byte(hex.EncodeToString(id))), putJSON(tx, kRestored, r))
}

// Unclaimed says why this store does not act, and what to do about it; both are empty when it acts. A store
// that was restored and claimed since acts, and a copy of it is a copy like any other.
func (s *Store) Unclaimed() (why, remedy string) {
	switch r := s.restored.Load(); {
	case !s.Copied():
		return "", ""
	case r != nil && r.Claimed.IsZero():
		return fmt.Sprintf("this store was restored from a backup of %s and is not claimed: it answers questions and does nothing outward", r.Backup.Format(time.RFC3339)),
			"make sure that no other worker goes on with this data; then, while no worker runs here: lodestone claim"
	}
	return "this data directory is a copy of another one: it answers questions and does nothing outward",
		"make sure that the other one is stopped for good; then, while no worker runs here: lodestone claim --acted-since, " +
			"which looks up what the other one may have sent since the copy was made, or lodestone claim alone where it did nothing since"
}

// Rewound says that the store of which this one is a copy went on working after the copy was made. What
// waits in this one may then have been sent, as after a restore. What an earlier restore left in doubt stays so
// from its own moment on; what was asked about then may have been sent since, and is asked about again. To be
// said before [Store.Claim].
func (s *Store) Rewound(_ context.Context, now time.Time) error {
	r := Restored{At: now, Instance: s.instance}
	err := s.update(func(tx *bolt.Tx) error {
		var e lodestone.Entry
		if k, v := tx.Bucket(bJournal).Cursor().Last(); k != nil {
			if err := decode(v, &e); err != nil {
				return fmt.Errorf("the last journal entry: %w", err)
			}
		}
		r.Backup = e.At // the copy was not made before
		var was Restored
		ok, err := getJSON(tx, kRestored, &was)
		if err != nil {
			return err
		}
		if ok {
			if was.Backup.Before(r.Backup) {
				r.Backup = was.Backup
			}
			if !was.Gathered && was.Instance != r.Instance {
				r.Earlier = append(was.Earlier, was.Instance)
			}
		}
		ev, err := tx.CreateBucketIfNotExists(bEvidence)
		if err != nil {
			return err
		}
		if err := askAgain(ev); err != nil {
			return err
		}
		return putJSON(tx, kRestored, r)
	})
	if err == nil {
		s.restored.Store(&r)
	}
	return err
}

// askAgain forgets that touchpoints were asked about.
func askAgain(ev *bolt.Bucket) error {
	var keys [][]byte
	c := ev.Cursor()
	for k, v := c.Seek([]byte("t/")); bytes.HasPrefix(k, []byte("t/")); k, v = c.Next() {
		var o Outcome
		if err := json.Unmarshal(v, &o); err != nil {
			return fmt.Errorf("%w: evidence that cannot be read", ErrNotAStore)
		}
		if o.State == asked {
			keys = append(keys, bytes.Clone(k))
		}
	}
	for _, k := range keys {
		if err := ev.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) putJSON(key []byte, v any) error {
	return s.update(func(tx *bolt.Tx) error { return putJSON(tx, key, v) })
}

func putJSON(tx *bolt.Tx, key []byte, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return tx.Bucket(bMeta).Put(key, b)
}

func getJSON(tx *bolt.Tx, key []byte, v any) (bool, error) {
	b := tx.Bucket(bMeta).Get(key)
	if b == nil {
		return false, nil
	}
	if err := json.Unmarshal(b, v); err != nil {
		return false, fmt.Errorf("%w: %s cannot be read", ErrNotAStore, key)
	}
	return true, nil
}

// DroppedBefore says how many messages of a stream between what was applied and its beginning are
// gone; 0 when nothing can be missing.
func (s *Store) DroppedBefore(ctx context.Context, stream string, first uint64) (uint64, error) {
	mark, err := s.Watermark(ctx, stream)
	if err != nil || mark.Created.IsZero() || first <= mark.Seq+1 {
		return 0, err
	}
	return first - mark.Seq - 1, nil
}
