package boltstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Backup writes the store as it is at one moment to w and returns how many bytes that were. Commits
// go on meanwhile; the pages that they give up are kept until the backup is done, so the file may grow
// by as much as is changed while it runs. One backup or compaction goes at a time.
func (s *Store) Backup(ctx context.Context, w io.Writer) (n int64, err error) {
	s.upkeep.Lock()
	defer s.upkeep.Unlock()
	err = s.view(func(tx *bolt.Tx) error {
		n, err = tx.WriteTo(contextWriter{ctx, w})
		return err
	})
	return n, err
}

// contextWriter stops a copy when its context is done.
type contextWriter struct {
	ctx context.Context
	w   io.Writer
}

func (c contextWriter) Write(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.w.Write(b)
}

// BackupInfo says what a backup file holds.
type BackupInfo struct {
	File    string    `json:"file"`
	Bytes   int64     `json:"bytes"`
	At      time.Time `json:"at"` // of the moment that it shows, at the latest
	Leads   int       `json:"leads"`
	Journal uint64    `json:"journal"` // the last entry
	// Beside are small files of the data directory that go with the store, by name.
	Beside map[string][]byte `json:"-"`
}

// WriteBackup has a copy of a store written by take, checks it whole, marks it as a backup and gives it
// its name, which must not be taken yet. Until all of that is done nothing has that name. take is
// given the file to write to, as [Store.Backup] wants it. beside is what the backup holds of other files.
func WriteBackup(ctx context.Context, file string, beside map[string][]byte, take func(io.Writer) error) (info BackupInfo, err error) {
	if _, err := os.Lstat(file); err == nil {
		return info, fmt.Errorf("%s is there already; a backup never takes the place of another", file)
	}
	dir, err := os.MkdirTemp(filepath.Dir(file), ".backup-")
	if err != nil {
		return info, err
	}
	defer os.RemoveAll(dir)
	tmp := filepath.Join(dir, filepath.Base(file))
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return info, err
	}
	begun := time.Now().UTC()
	err = take(f)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return info, fmt.Errorf("write the backup: %w", err)
	}
	s, err := openCopy(tmp)
	if err != nil {
		return info, err
	}
	err = s.sound(ctx)
	if err == nil {
		// The moment that it shows is not before the copy began, so what was done since then is all that
		// it can lack.
		err = s.putJSON(kBackup, backupMark{At: begun, Beside: beside})
	}
	if err == nil {
		info, err = s.backupInfo()
	}
	if err = errors.Join(err, s.db.Load().Close()); err != nil {
		return info, err
	}
	if err := os.Link(tmp, file); err != nil { // fails where the name is taken, as a rename would not
		return info, err
	}
	info.File = file
	return info, syncDir(filepath.Dir(file))
}

var kBackup = []byte("backup")

// backupMark stands in a file that is a backup.
type backupMark struct {
	At     time.Time         `json:"at"`
	Beside map[string][]byte `json:"beside,omitempty"`
}

// openCopy opens a file that is not at work: nothing is committed through its writer.
func openCopy(path string) (*Store, error) {
	db, err := openFile(path, time.Second)
	if err != nil {
		return nil, err
	}
	s := &Store{path: path}
	s.db.Store(db)
	if err := s.verify(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// sound says whether everything in the store holds together.
func (s *Store) sound(ctx context.Context) error {
	faults, err := s.Check(ctx)
	if err != nil {
		return err
	}
	if len(faults) > 0 {
		return fmt.Errorf("%s: %w: %s (%d faults in all; `lodestone doctor` lists them)", s.path, ErrNotAStore, faults[0], len(faults))
	}
	return nil
}

func (s *Store) backupInfo() (info BackupInfo, err error) {
	info.File, info.Bytes = s.path, s.Size()
	err = s.view(func(tx *bolt.Tx) error {
		info.Leads = tx.Bucket(bLeads).Stats().KeyN
		info.Journal = tx.Bucket(bJournal).Sequence()
		var mark backupMark
		_, err := getJSON(tx, kBackup, &mark)
		info.At, info.Beside = mark.At, mark.Beside
		return err
	})
	return info, err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
