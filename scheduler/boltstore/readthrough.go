package boltstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Unread reports whether the file was opened by its mark and not read through since.
func (s *Store) Unread() bool { return s.unread.Load() }

// Damage is what [Store.ReadThrough] found wrong with the file, nil when it found nothing. Work goes on, but what
// lies on the damaged page cannot be read, and whoever reads it may end the process.
func (s *Store) Damage() error {
	if err := s.damage.Load(); err != nil {
		return *err
	}
	return nil
}

// DamageRemedy is what to do about [Store.Damage].
const DamageRemedy = "stop the worker, keep the file as it is, restore the latest good backup with `lodestone restore`, and have the disk looked at"

// stepPages is how many pages are read before others get their turn: some milliseconds' worth. Pages that
// commits give up meanwhile cannot be used again before the step is over.
const stepPages = 1024

// ReadThrough reads every page of the file with plain reads, as it is done at an open without a mark, while
// work goes on. It keeps to one part in share of the time; 1: it makes no pauses. What it finds is its error, an
// [ErrNotAStore] or the system's, and stays the store's [Store.Damage]. That the file cannot be opened once more,
// because too many are open say, is an error that tells nothing of what it holds.
//
// Each step looks at the store as it is at that moment and goes on after the key where the one before
// stopped, so what is written meanwhile is seen where it lies further on. That no page is used twice is
// only looked at within a step.
func (s *Store) ReadThrough(ctx context.Context, share int) error {
	w := newWalk(stepPages)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		begun := time.Now()
		more, err := s.step(w)
		switch {
		case errors.Is(err, ErrClosed):
			return err
		case errors.Is(err, errUnopened):
			return fmt.Errorf("%s: %w", s.path, err)
		case err != nil:
			err = fmt.Errorf("%s: %w", s.path, err)
			s.damage.Store(&err)
			return err
		case !more:
			s.read.Store(time.Now().Unix())
			s.unread.Store(false)
			return nil
		}
		pause := time.NewTimer(time.Duration(share-1) * time.Since(begun))
		select {
		case <-ctx.Done():
			pause.Stop()
			return ctx.Err()
		case <-pause.C:
		}
	}
}

// errUnopened is why nothing can be said of the file.
var errUnopened = errors.New("it cannot be opened to be read through")

// step walks on from where w stopped; more is false when that is the end.
func (s *Store) step(w *walk) (more bool, err error) {
	s.swap.RLock() // what stands at the path is what is open
	defer s.swap.RUnlock()
	f, err := os.Open(s.path)
	if err != nil {
		return false, fmt.Errorf("%w: %w", errUnopened, err)
	}
	defer f.Close()
	err = s.view(func(tx *bolt.Tx) error {
		pageSize := tx.DB().Info().PageSize
		in := &inspector{f: f, pageSize: pageSize, highWater: uint64(tx.Size()) / uint64(pageSize)}
		more, err = w.step(in, uint64(tx.Cursor().Bucket().Root()))
		return err
	})
	return more, err
}

// walk goes through the trees in the order of their keys.
type walk struct {
	in    *inspector
	most  int      // pages that a step reads, and a few more
	after [][]byte // the key that was looked at last, behind those of the buckets that it is in; nil: none
	path  [][]byte // of the buckets that the walk is in
	pages map[uint64]struct{}
	left  int // pages that may be read in this step
	depth int // in pages below each other
}

func newWalk(most int) *walk { return &walk{most: most, pages: map[uint64]struct{}{}} }

// errStep ends a step.
var errStep = errors.New("the step is over")

// step walks on below the root page of a file that nothing is written to meanwhile.
func (w *walk) step(in *inspector, root uint64) (more bool, err error) {
	w.in, w.left, w.depth, w.path = in, w.most, 0, w.path[:0]
	clear(w.pages)
	if err = w.tree(root, w.after, nil, nil); errors.Is(err, errStep) {
		return true, nil
	}
	return false, err
}

func (w *walk) claim(id uint64) error {
	if id < 2 || id >= w.in.highWater {
		return damaged("something leads to page %d of %d", id, w.in.highWater)
	}
	if _, twice := w.pages[id]; twice {
		return damaged("page %d is used twice", id)
	}
	w.pages[id] = struct{}{}
	return nil
}

// tree walks from one page down, past what stands up to after. Its keys must be from least on and less than
// most (nil: any), or the walk would not come to its end: it goes on after a key.
func (w *walk) tree(id uint64, after [][]byte, least, most []byte) error {
	if err := w.claim(id); err != nil {
		return err
	}
	if w.depth++; w.depth > maxLevels {
		return damaged("its pages lie more than %d deep", maxLevels)
	}
	b, kind, err := w.in.page(id, flagBranch|flagLeaf, make([]byte, w.in.pageSize), w.claim)
	if err != nil {
		return err
	}
	w.left--
	if err := w.in.elements(id, b, kind, 0, func(uint64) error { return nil }); err != nil {
		return err
	}
	if count := int(binary.NativeEndian.Uint16(b[10:])); count > 0 {
		first, last := keyOf(b, kind, 0), keyOf(b, kind, count-1)
		if bytes.Compare(first, least) < 0 || most != nil && bytes.Compare(last, most) >= 0 {
			return damaged("the keys of page %d are not those of its place", id)
		}
	}
	err = w.down(b, kind, after, most)
	w.depth--
	return err
}

// keyOf is the key of an element of a page, which is known to lie within its bounds.
func keyOf(b []byte, kind uint16, i int) []byte {
	e := b[pageHeader+i*elementHeader:]
	at := 0 // where the element says where its key is
	if kind == flagLeaf {
		at = 4
	}
	return e[binary.NativeEndian.Uint32(e[at:]):][:binary.NativeEndian.Uint32(e[at+4:])]
}

// down follows what a page leads to, which is known to lie within its bounds.
func (w *walk) down(b []byte, kind uint16, after [][]byte, most []byte) error {
	u32 := binary.NativeEndian.Uint32
	count := int(binary.NativeEndian.Uint16(b[10:]))
	element := func(i int) []byte { return b[pageHeader+i*elementHeader:] }
	if kind == flagBranch {
		key := func(i int) []byte { return keyOf(b, kind, i) }
		from := 0
		for len(after) > 0 && from+1 < count && bytes.Compare(key(from+1), after[0]) <= 0 {
			from++
		}
		for i := from; i < count; i++ {
			below := most
			if i+1 < count {
				below = key(i + 1)
			}
			if err := w.tree(binary.NativeEndian.Uint64(element(i)[8:]), after, key(i), below); err != nil {
				return err
			}
			after = nil // what comes behind it stands further on
		}
		return nil
	}
	var last []byte
	for i := range count {
		e := element(i)
		pos, keySize, valueSize := u32(e[4:]), u32(e[8:]), u32(e[12:])
		key, value := e[pos:][:keySize], e[pos+keySize:][:valueSize]
		var rest [][]byte
		if len(after) > 0 {
			switch c := bytes.Compare(key, after[0]); {
			case c < 0, c == 0 && len(after) == 1:
				continue
			case c == 0:
				rest = after[1:]
			}
		}
		last = key
		if u32(e) != leafIsBucket {
			continue
		}
		if root := binary.NativeEndian.Uint64(value); root != 0 {
			w.path = append(w.path, bytes.Clone(key))
			if err := w.tree(root, rest, nil, nil); err != nil {
				return err
			}
			w.path = w.path[:len(w.path)-1]
		}
	}
	if w.left > 0 || last == nil {
		return nil
	}
	w.after = append(append([][]byte{}, w.path...), bytes.Clone(last))
	return errStep
}
