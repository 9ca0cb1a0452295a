// Package boltstore keeps leads, due touchpoints and the journal in one bbolt file. It is the
// embedded engine behind the store interfaces of packages sequencer and scheduler.
//
// What it guarantees: a batch is committed whole and synced to disk before Commit returns, or not at
// all. Readers see whole batches. One process has the file at a time.
//
// The layout spends random page writes only on the lead record; everything else is appended or
// ordered by time, because a commit costs what its touched pages cost (FOUNDATIONS, bbolt).
//
//	leads        email                        → lead: all that Plan needs
//	due          connector ‖ 0 ‖ sequence / due time ‖ email → (empty): touchpoints in state scheduled
//	intents      touchpoint id                → where to find it: intended, unknown, held
//	journal      sequence number              → entry, chained by lead
//	suppressions email                        → suppression
//	attention    kind ‖ id ‖ stream sequence  → item, rejected submissions whole
//	rollups      day ‖ sequence ‖ step ‖ what ‖ variant → count; day 0 holds the totals
//	rules        version                      → the rule files of that version
//	meta         format, instance, identity of the file, key of links, watermarks, switches
//	evidence     what was done since the backup that this store was restored from, if it was
//
// due and intents are indexes over the leads: every commit derives them from the lead's old and new
// state, so they cannot disagree with it, and [Store.Check] proves that they do not.
//
// Times in keys are nanoseconds since 1970 as big-endian unsigned integers, so that keys sort as
// time. Values begin with one byte, the version of their encoding: leads and entries are compressed.
package boltstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Format is the version of the file layout that this package writes, and the newest it reads.
const Format = 3

// FileName is the name of the store file in the data directory.
const FileName = "lodestone.db"

var (
	bLeads        = []byte("leads")
	bDue          = []byte("due")
	bIntents      = []byte("intents")
	bJournal      = []byte("journal")
	bSuppressions = []byte("suppressions")
	bAttention    = []byte("attention")
	bRollups      = []byte("rollups")
	bRules        = []byte("rules")
	bMeta         = []byte("meta")

	buckets = [][]byte{bLeads, bDue, bIntents, bJournal, bSuppressions, bAttention, bRollups, bRules, bMeta}

	kFormat   = []byte("format")
	kInstance = []byte("instance")
	kIdentity = []byte("identity")
	kLinkKey  = []byte("link_key")
)

// Errors of [Open].
var (
	// ErrInUse: another process has the store open.
	ErrInUse = errors.New("the store is in use by another process")
	// ErrNewer: the file was written by a newer version.
	ErrNewer = errors.New("the store was written by a newer version of lodestone")
	// ErrNotAStore: the file is not a Lodestone store, or is damaged.
	ErrNotAStore = errors.New("not a lodestone store, or a damaged one")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("the store is closed")
)

// Options of [Open].
type Options struct {
	// Wait is how long to wait for another process to let go of the file. 0: 1 s.
	Wait time.Duration
	// MaxWrites bounds how many writes share a transaction. 0: 4096.
	MaxWrites int
}

// Store is an open store file. It is safe for concurrent use.
type Store struct {
	db       atomic.Pointer[bolt.DB] // another one after Compact
	path     string
	instance string
	copied   atomic.Bool
	restored atomic.Pointer[Restored] // nil: it was not
	failing  atomic.Pointer[error]    // of the last commit; nil: it succeeded
	failed   atomic.Bool              // one has failed since it was opened
	unread   atomic.Bool              // its file was not read through yet
	read     atomic.Int64             // when it was, in seconds since 1970
	damage   atomic.Pointer[error]    // what was found when it was; nil: nothing
	max      int
	wrote    atomic.Bool // since it was opened; who only reads a store leaves its file as it was

	requests chan *request
	done     chan struct{} // closed by Close, under mu
	mu       sync.RWMutex  // guards closing against senders on requests
	writer   sync.WaitGroup
	upkeep   sync.Mutex   // held by Backup and Compact, which do not go together
	swap     sync.RWMutex // held for reading by what writes past the writer, and by Compact
}

// Open opens the store file in dir, making directory and file when there are none. The directory
// gets mode 0700 and the file 0600.
func Open(dir string, opts Options) (*Store, error) {
	if opts.Wait == 0 {
		opts.Wait = time.Second
	}
	if opts.MaxWrites == 0 {
		opts.MaxWrites = 4096
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	// One that was there already may be open to others. Where it is not ours to change, the files in it
	// are still closed.
	_ = os.Chmod(dir, 0o700)
	path := filepath.Join(dir, FileName)
	if err := create(path, opts.Wait); err != nil {
		return nil, err
	}
	db, read, err := openTrusted(path, opts.Wait, true)
	if err != nil {
		return nil, err
	}
	s := &Store{path: path, max: opts.MaxWrites, requests: make(chan *request, queued), done: make(chan struct{})}
	s.db.Store(db)
	s.unread.Store(!read.IsZero())
	if read.IsZero() {
		read = time.Now()
	}
	s.read.Store(read.Unix())
	if err := dropMark(path); err != nil {
		return nil, errors.Join(openError(path, err), db.Close())
	}
	if err := s.load(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s.writer.Go(s.write)
	return s, nil
}

// create makes the file under another name, fills it, and links it to its own name when it is
// whole and synced, so that a crash or a power cut leaves either no file or a usable one. A file
// that is there already is left alone, also when another process makes it at the same moment.
func create(path string, wait time.Duration) error {
	if _, err := os.Stat(path); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dir := filepath.Dir(path)
	tmp, err := os.MkdirTemp(dir, ".new-")
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	defer os.RemoveAll(tmp)
	fresh := filepath.Join(tmp, FileName)
	db, err := openFile(fresh, wait)
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, b := range buckets {
			if _, err := tx.CreateBucket(b); err != nil {
				return err
			}
		}
		id := make([]byte, 16)
		if _, err := rand.Read(id); err != nil {
			return err
		}
		meta := tx.Bucket(bMeta)
		return errors.Join(
			meta.Put(kInstance, []byte(hex.EncodeToString(id))),
			meta.Put(kFormat, binary.BigEndian.AppendUint32(nil, Format)),
		)
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	if err := os.Link(fresh, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make %s: %w", path, err)
	}
	return syncDir(dir)
}

// openFile opens a bbolt file that is whole, with the settings that were measured to be safe and
// quick: the freelist is not written with every commit but by Close, and the mapping is made large at once, because
// growing it would stop the writer until every reader is done. Address space is all that this costs.
func openFile(path string, wait time.Duration) (*bolt.DB, error) {
	db, _, err := openTrusted(path, wait, false)
	return db, err
}

// openTrusted is openFile for a file that may have a mark. Where trust allows it and the mark holds, the file is
// not read through, and read is when it last was; otherwise it is zero.
func openTrusted(path string, wait time.Duration, trust bool) (_ *bolt.DB, read time.Time, err error) {
	for {
		read = time.Time{}
		if _, err := os.Stat(path); err == nil {
			if read, err = inspect(path, wait, trust); err != nil {
				return nil, read, openError(path, err)
			}
		}
		var opened *os.File
		opts := &bolt.Options{Timeout: wait, NoFreelistSync: true, FreelistType: bolt.FreelistMapType, InitialMmapSize: initialMmap}
		opts.OpenFile = func(name string, flag int, mode os.FileMode) (f *os.File, err error) {
			opened, err = os.OpenFile(name, flag, mode)
			return opened, err
		}
		db, err := bolt.Open(path, 0o600, opts)
		if err != nil && isNoMemory(err) {
			opts.InitialMmapSize = 0 // the address space is limited here; go on without
			db, err = bolt.Open(path, 0o600, opts)
		}
		if err != nil {
			return nil, read, openError(path, err)
		}
		// While the lock was waited for, the file may have been put aside for another one, by a restore
		// or a compaction. What was opened then is not what stands there.
		mine, err := opened.Stat()
		if err != nil {
			return nil, read, errors.Join(openError(path, err), db.Close())
		}
		there, err := os.Stat(path)
		if err == nil && os.SameFile(mine, there) {
			return db, read, nil
		}
		if err := db.Close(); err != nil {
			return nil, read, openError(path, err)
		}
	}
}

// openError says what can be done about a file that cannot be opened.
func openError(path string, err error) error {
	switch {
	case errors.Is(err, ErrInUse), errors.Is(err, bolterrors.ErrTimeout):
		return fmt.Errorf("%s: %w", path, ErrInUse)
	case errors.Is(err, ErrNotAStore):
		return fmt.Errorf("%s: %w; nothing was changed. Restore a backup with `lodestone restore`, or move the file away to begin with an empty one", path, err)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum), errors.Is(err, bolterrors.ErrVersionMismatch):
		return openError(path, fmt.Errorf("%w (%v)", ErrNotAStore, err))
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("open %s: %w; it must be readable and writable by the user that lodestone runs as, on a disk that is not read-only", path, err)
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("open %s: %w; make room on the disk", path, err)
	}
	return fmt.Errorf("open %s: %w", path, err)
}

// verify looks whether the file is one of ours and of a format that is understood.
func (s *Store) verify() error {
	return s.view(func(tx *bolt.Tx) error {
		for _, b := range buckets {
			if tx.Bucket(b) == nil {
				return fmt.Errorf("%s: %w: bucket %q is missing", s.path, ErrNotAStore, b)
			}
		}
		v := tx.Bucket(bMeta).Get(kFormat)
		if len(v) != 4 {
			return fmt.Errorf("%s: %w: it names no format", s.path, ErrNotAStore)
		}
		if f := binary.BigEndian.Uint32(v); f > Format {
			return fmt.Errorf("%s: %w: it has format %d, this one reads up to %d; use the newer version, or restore a backup made before it", s.path, ErrNewer, f, Format)
		}
		return nil
	})
}

// load reads what must be known about the file before it is used.
func (s *Store) load() error {
	if err := s.verify(); err != nil {
		return err
	}
	if err := s.upgrade(); err != nil {
		return err
	}
	var stored []byte
	err := s.view(func(tx *bolt.Tx) error {
		meta := tx.Bucket(bMeta)
		s.instance = string(meta.Get(kInstance))
		stored = append(stored, meta.Get(kIdentity)...)
		var r Restored
		ok, err := getJSON(tx, kRestored, &r)
		if ok {
			s.restored.Store(&r)
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := s.countAllRules(); err != nil {
		return err
	}
	now, err := fileIdentity(s.path)
	if err != nil {
		return fmt.Errorf("identity of %s: %w", s.path, err)
	}
	if len(stored) == 0 {
		return s.putMeta(kIdentity, []byte(now))
	}
	s.copied.Store(string(stored) != now)
	return nil
}

// Copied reports whether this file is a copy of the one that last acted: its inode or its time of
// birth are others than the file itself says. A copy answers questions and must not act until
// [Store.Claim].
func (s *Store) Copied() bool { return s.copied.Load() }

// Claim makes this file the one that acts. A store that was restored becomes an instance of its own.
func (s *Store) Claim(context.Context) error {
	identity, err := fileIdentity(s.path)
	if err != nil {
		return fmt.Errorf("identity of %s: %w", s.path, err)
	}
	var claimed *Restored
	var instance string
	err = s.update(func(tx *bolt.Tx) error {
		if claimed, err = claimRestored(tx, time.Now().UTC()); err != nil {
			return err
		}
		instance = string(tx.Bucket(bMeta).Get(kInstance))
		return tx.Bucket(bMeta).Put(kIdentity, []byte(identity))
	})
	if err != nil {
		return err
	}
	if claimed != nil {
		s.restored.Store(claimed)
	}
	s.instance = instance
	s.copied.Store(false)
	return nil
}

// Failing returns what the last commit failed with, nil when it succeeded.
func (s *Store) Failing() error {
	if err := s.failing.Load(); err != nil {
		return *err
	}
	return nil
}

// Instance is the id that the store was given when it was made.
func (s *Store) Instance() string { return s.instance }

// LinkKey is the random key of 32 bytes that links are sealed with, made at the first call. It stands
// in the store, so that a backup that is restored still opens the links that were handed out.
func (s *Store) LinkKey() (key []byte, err error) {
	err = s.view(func(tx *bolt.Tx) error { // who only reads a store leaves its file as it was
		key = bytes.Clone(tx.Bucket(bMeta).Get(kLinkKey))
		return nil
	})
	if err != nil || len(key) == 32 {
		return key, err
	}
	err = s.update(func(tx *bolt.Tx) error {
		meta := tx.Bucket(bMeta)
		if key = bytes.Clone(meta.Get(kLinkKey)); len(key) == 32 {
			return nil
		}
		key = make([]byte, 32)
		if _, err := rand.Read(key); err != nil {
			return err
		}
		return meta.Put(kLinkKey, key)
	})
	return key, err
}

// Path is the path of the store file.
func (s *Store) Path() string { return s.path }

// Size is the size of the file in bytes, 0 when it cannot be told.
func (s *Store) Size() int64 {
	info, err := os.Stat(s.path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// Close lets the commit under way finish and closes the file. Commits that come later fail with
// [ErrClosed].
func (s *Store) Close() error {
	s.mu.Lock()
	select {
	case <-s.done:
		s.mu.Unlock()
		return nil
	default:
	}
	close(s.done)
	s.mu.Unlock()
	s.writer.Wait()
	s.upkeep.Lock()
	defer s.upkeep.Unlock()
	s.swap.Lock() // what writes past the writer is done
	defer s.swap.Unlock()
	db := s.db.Load()
	var err error
	if s.wrote.Load() {
		// A list of free pages that stands in the file is read at the next open; without one bbolt reads all
		// pages to make it. Where it cannot be written, that is what happens.
		db.NoFreelistSync = false
		err = db.Update(func(*bolt.Tx) error { return nil })
	}
	if err == nil && !s.failed.Load() && s.damage.Load() == nil {
		_ = putMark(s.path, s.read.Load()) // where it cannot be made, the file is read through at the next open
	}
	return db.Close()
}

// putMeta writes one key of the meta bucket, past the writer: for what is set rarely.
func (s *Store) putMeta(key, value []byte) error {
	return s.update(func(tx *bolt.Tx) error { return tx.Bucket(bMeta).Put(key, value) })
}

// update runs fn in a transaction of its own.
func (s *Store) update(fn func(*bolt.Tx) error) error {
	s.swap.RLock()
	defer s.swap.RUnlock()
	if err := s.retry(func(db *bolt.DB) error { return db.Update(fn) }); err != nil {
		if errors.Is(err, ErrClosed) {
			return err
		}
		s.failed.Store(true)
		return fmt.Errorf("store: %w", err)
	}
	s.wrote.Store(true)
	return nil
}

// view runs fn in a read transaction.
func (s *Store) view(fn func(*bolt.Tx) error) error {
	return s.retry(func(db *bolt.DB) error { return db.View(fn) })
}

// retry runs fn with the open file, and again when Compact put another in its place meanwhile.
func (s *Store) retry(fn func(*bolt.DB) error) error {
	for {
		db := s.db.Load()
		err := fn(db)
		if !errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
			return err
		}
		if s.db.Load() == db {
			return ErrClosed
		}
	}
}
