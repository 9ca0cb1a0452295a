package boltstore

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// A store that is closed whole leaves a mark beside its file: which file it is, how long, when it was last
// changed, and what its two head pages hold. Where all of it is still so at the next open, nobody has touched
// the file, and it need not be read through before the work begins.
//
// The time of the last change (ctime) is what carries this: programs cannot set it. It comes in ticks, so a
// mark is only made when the filesystem's clock has gone on since: whatever is written to the file afterwards
// gets a later time. A mark serves once. It is taken away before anything is written, because after a power
// cut a file may hold more than its times say.
//
// Where a mark cannot be made, or any of it is not so, the file is read through. What no time tells, such as
// a disk that gives back something else than was written to it, is found by [Store.ReadThrough]; a file that was
// not read through for so long that nobody can have called that is read through at the open.

// markHolds is how long after a file was read through its mark is believed.
const markHolds = 30 * 24 * time.Hour

// MarkName is the name of the mark in the data directory.
const MarkName = FileName + ".closed"

// mark says how a file stood when it was closed.
type mark struct {
	File     string `json:"file"` // inode and time of birth
	Size     int64  `json:"size"`
	Modified int64  `json:"modified"` // nanoseconds since 1970
	Changed  int64  `json:"changed"`
	Heads    string `json:"heads"` // SHA-256 of both head pages, without what stands behind them
	Read     int64  `json:"read"`  // when the file was last read through, in seconds since 1970
}

func markPath(path string) string { return filepath.Join(filepath.Dir(path), MarkName) }

// markOf is the mark of a file whose head pages in has read; false where this system does not tell enough.
func markOf(f *os.File, in *inspector) (mark, bool) {
	m, ok := stamp(f)
	sum := sha256.New()
	for i := range in.heads {
		_, _ = sum.Write(in.heads[i][:])
	}
	m.Heads = hex.EncodeToString(sum.Sum(nil))
	return m, ok
}

// takeMark returns when the file at path, which is open as f and whose head pages in has read, was last read
// through, if it stands as it was closed; otherwise zero. The mark is gone then, on the disk as well.
func takeMark(path string, f *os.File, in *inspector, now time.Time) (read time.Time) {
	b, err := os.ReadFile(markPath(path))
	if err != nil {
		return read
	}
	var was mark
	is, ok := markOf(f, in)
	if err := json.Unmarshal(b, &was); err != nil || !ok {
		return read
	}
	is.Read = was.Read
	at := time.Unix(was.Read, 0)
	if was != is || at.After(now) || now.Sub(at) > markHolds {
		return read
	}
	// Of two that come at the same time, one can remove it.
	if os.Remove(markPath(path)) != nil || syncDir(filepath.Dir(path)) != nil {
		return read
	}
	return at
}

// dropMark takes away what an open that did not trust it left.
func dropMark(path string) error {
	switch err := os.Remove(markPath(path)); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	return syncDir(filepath.Dir(path))
}

// A tick of a filesystem's clock is some milliseconds long on most, and seconds on a few, which get no mark.
const (
	ticks = 20
	tick  = 2 * time.Millisecond
)

// errNoMark is why a file is read through at the next open.
var errNoMark = errors.New("the file gets no mark")

// putMark makes the mark of the file at path, to which nothing is written any more and which was last read
// through at read. Whoever calls it holds the file.
func putMark(path string, read int64) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil { // its times as well, which bbolt leaves to the system
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	in := &inspector{f: f}
	if _, freelist, err := in.meta(info.Size()); err != nil || freelist == noFreelist {
		return errors.Join(errNoMark, err)
	}
	m, ok := markOf(f, in)
	if !ok {
		return errNoMark
	}
	m.Read = read
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	fresh := markPath(path) + ".new"
	to, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, to.Close()); err != nil {
			_ = os.Remove(fresh)
		}
	}()
	for n := 0; ; n++ {
		if _, err := to.WriteAt(b, 0); err != nil {
			return err
		}
		now, ok := stamp(to)
		if ok && now.Changed > m.Changed {
			break
		}
		if n == ticks {
			return errNoMark
		}
		time.Sleep(tick)
	}
	if still, ok := stamp(f); !ok || still.Changed != m.Changed || still.Size != m.Size {
		return errNoMark
	}
	if err := to.Sync(); err != nil {
		return err
	}
	if err := os.Rename(fresh, markPath(path)); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}
