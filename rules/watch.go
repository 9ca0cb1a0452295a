package rules

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"log/slog"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Watcher tells when the contents of rule files have changed.
//
// The system's notices make it quick, and a comparison of the contents at an interval makes it sure: network
// drives send no notices, and a directory that is deleted and made again, or that is a link to another one by
// now, sends none about what took its place.
type Watcher struct {
	// Dir is the directory whose notices are waited for.
	Dir string
	// Read reads the files as they stand; nil: [ReadDir] of Dir.
	Read func() ([]File, error)
	Log  *slog.Logger
	// Poll is how often contents are compared without a notice. 0: 1 s.
	Poll time.Duration
	// Settle is how long contents must have stayed the same before they are told, so that a file which is
	// being written, or replaced, is not read in the middle. 0: 300 ms.
	Settle time.Duration
	// Patience bounds the wait for contents that never stay the same. 0: 10 s.
	Patience time.Duration
}

// Run calls changed with the files, or with why they cannot be read, each time that they are not what they
// were before: at first those in known. It returns when ctx is done. changed is called by one goroutine, and
// what changes meanwhile is told afterwards; the last contents are always told.
func (w Watcher) Run(ctx context.Context, known []File, changed func([]File, error)) {
	read := w.Read
	if read == nil {
		read = func() ([]File, error) { return ReadDir(w.Dir) }
	}
	log := w.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	poll, settle, patience := cmp.Or(w.Poll, time.Second), cmp.Or(w.Settle, 300*time.Millisecond), cmp.Or(w.Patience, 10*time.Second)

	noticed := make(chan struct{}, 1)
	attach := func() {}
	if notices, err := fsnotify.NewWatcher(); err != nil {
		log.DebugContext(ctx, "no notices of changed files; contents are compared instead", "error", err)
	} else {
		drained := make(chan struct{})
		defer func() { _ = notices.Close(); <-drained }()
		go func() { // ends with Close
			defer close(drained)
			for {
				select {
				case _, ok := <-notices.Events:
					if !ok {
						return
					}
				case _, ok := <-notices.Errors:
					if !ok {
						return
					}
				}
				select {
				case noticed <- struct{}{}:
				default: // one is waiting already
				}
			}
		}()
		// Again at each turn: a directory that was made anew is another one.
		attach = func() { _ = notices.Add(w.Dir) }
	}

	seen := fingerprint(known, nil)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(poll)
		select {
		case <-ctx.Done():
			return
		case <-noticed:
		case <-timer.C:
		}
		attach()
		files, err := read()
		now := fingerprint(files, err)
		if now == seen {
			continue
		}
		for until := time.Now().Add(patience); time.Now().Before(until); {
			timer.Reset(settle)
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
			}
			files, err = read()
			was := now
			if now = fingerprint(files, err); now == was {
				break
			}
		}
		if now != seen { // it may be what it was before
			seen = now
			changed(files, err)
		}
	}
}

// fingerprint is a digest of names and contents, or of why they cannot be read.
func fingerprint(files []File, err error) [sha256.Size]byte {
	h := sha256.New()
	for _, f := range files {
		digestPart(h, []byte(f.Name))
		digestPart(h, f.Data)
	}
	if err != nil {
		digestPart(h, []byte("error: "+err.Error()))
	}
	return [sha256.Size]byte(h.Sum(nil))
}

func digestPart(h hash.Hash, b []byte) {
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(b))))
	h.Write(b)
}
