package boltstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// bbolt maps the file into memory and follows the page numbers that it finds there, in goroutines of
// its own, so a page number that leads nowhere ends the process with a signal that nobody can catch.
// A file is therefore read once with plain reads before it is opened: every page that the tree leads
// to, its place, its kind and the bounds of what it says it holds. That costs about as much as bbolt's
// own walk at an open, and the pages are in memory for it afterwards.

// The parts of bbolt's file format, version 2, that are looked at.
const (
	boltMagic      = 0xED0CDAED
	boltVersion    = 2
	pageHeader     = 16
	elementHeader  = 16
	metaSize       = 64
	flagBranch     = 0x01
	flagLeaf       = 0x02
	flagFreelist   = 0x10
	leafIsBucket   = 0x01
	noFreelist     = ^uint64(0)
	manyFree       = 0xFFFF // the number of free pages follows in eight bytes
	maxBucketDepth = 8
)

// inspector walks one file, as many branches of its trees at a time as there are processors.
type inspector struct {
	f         io.ReaderAt
	pageSize  int
	highWater uint64
	seen      []atomic.Uint64 // one bit a page
	pages     sync.Pool       // of *[]byte, for pages without overflow

	free   chan struct{} // one for each walker beside the first
	others sync.WaitGroup
	mu     sync.Mutex // guards fault
	fault  error      // the first that another walker found
}

// inspect reads a store file with plain reads and says whether bbolt can open it. The error is
// [ErrNotAStore], [ErrInUse] after wait, or the system's.
func inspect(path string, wait time.Duration) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	unlock, err := lockShared(f, wait)
	if err != nil {
		return err
	}
	defer unlock()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeType != 0 {
		return fmt.Errorf("%w: it is no file", ErrNotAStore)
	}
	in := &inspector{f: f}
	root, freelist, err := in.meta(info.Size())
	if err != nil {
		return err
	}
	in.seen = make([]atomic.Uint64, in.highWater/64+1)
	in.pages.New = func() any { b := make([]byte, in.pageSize); return &b }
	in.free = make(chan struct{}, runtime.GOMAXPROCS(0)-1)
	var listed []byte
	if freelist != noFreelist {
		if listed, _, err = in.page(freelist, flagFreelist, make([]byte, in.pageSize)); err != nil {
			return err
		}
	}
	err = in.tree(root, 0)
	in.others.Wait() // it holds the file until then
	if err = errors.Join(err, in.fault); err != nil || listed == nil {
		return err
	}
	return in.unused(listed)
}

// unused checks the list of free pages, when the trees were walked: what it names is written over sooner or
// later, so it must lie in the file and be nobody's.
func (in *inspector) unused(list []byte) error {
	u64 := binary.NativeEndian.Uint64
	n, ids := uint64(binary.NativeEndian.Uint16(list[10:])), list[pageHeader:]
	if n == manyFree {
		n, ids = u64(ids), ids[8:]
	}
	if n > uint64(len(ids)/8) {
		return damaged("the list of free pages says that it holds %d", n)
	}
	last := uint64(1)
	for i := range n {
		id := u64(ids[8*i:])
		if id <= last || id >= in.highWater {
			return damaged("the list of free pages names page %d of %d after page %d", id, in.highWater, last)
		}
		if in.seen[id/64].Load()&(1<<(id%64)) != 0 {
			return damaged("page %d is in use, and listed as free", id)
		}
		last = id
	}
	return nil
}

// failed returns what another walker found.
func (in *inspector) failed() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.fault
}

// child walks from one page down, beside the caller when a walker is free. What that one finds is found by
// [inspector.failed].
func (in *inspector) child(id uint64, depth int) error {
	select {
	case in.free <- struct{}{}:
	default:
		return in.tree(id, depth)
	}
	in.others.Go(func() {
		defer func() { <-in.free }()
		if err := in.tree(id, depth); err != nil {
			in.mu.Lock()
			if in.fault == nil {
				in.fault = err
			}
			in.mu.Unlock()
		}
	})
	return in.failed()
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrNotAStore, fmt.Sprintf(format, args...))
}

// meta reads the two meta pages and takes the newer good one.
func (in *inspector) meta(size int64) (root, freelist uint64, err error) {
	var txid uint64
	found := false
	at := []int64{0, int64(os.Getpagesize())}
	for i := 0; i < len(at); i++ {
		b := make([]byte, pageHeader+metaSize)
		if _, err := in.f.ReadAt(b, at[i]); err != nil {
			if errors.Is(err, io.EOF) {
				continue
			}
			return 0, 0, err
		}
		m := b[pageHeader:]
		u32, u64 := binary.NativeEndian.Uint32, binary.NativeEndian.Uint64
		sum := fnv.New64a()
		_, _ = sum.Write(m[:metaSize-8])
		if u32(m) != boltMagic || u32(m[4:]) != boltVersion || u64(m[metaSize-8:]) != sum.Sum64() {
			continue
		}
		if i == 0 { // the page size of where it was made
			at[1] = int64(u32(m[8:]))
		}
		if id := u64(m[48:]); !found || id > txid {
			found, txid = true, id
			in.pageSize, root, freelist, in.highWater = int(u32(m[8:])), u64(m[16:]), u64(m[32:]), u64(m[40:])
		}
	}
	switch {
	case size == 0:
		return 0, 0, damaged("it is empty")
	case !found:
		return 0, 0, damaged("neither of its two head pages can be read")
	case in.pageSize < 512 || in.pageSize > 1<<16 || in.highWater > uint64(1)<<40:
		return 0, 0, damaged("its head page makes no sense")
	case uint64(size) < in.highWater*uint64(in.pageSize):
		return 0, 0, damaged("it is cut off: it has %d bytes of %d", size, in.highWater*uint64(in.pageSize))
	}
	return root, freelist, nil
}

// page reads one page with its overflow and checks that it stands where it says, that it is of one of
// the kinds wanted and that nothing else led to it. head has room for one page, and is what is returned of a
// page without overflow.
func (in *inspector) page(id uint64, kinds uint16, head []byte) (b []byte, kind uint16, err error) {
	if id < 2 || id >= in.highWater {
		return nil, 0, damaged("something leads to page %d of %d", id, in.highWater)
	}
	if _, err := in.f.ReadAt(head, int64(id)*int64(in.pageSize)); err != nil {
		return nil, 0, fmt.Errorf("read page %d: %w", id, err)
	}
	overflow := uint64(binary.NativeEndian.Uint32(head[12:]))
	kind = binary.NativeEndian.Uint16(head[8:])
	switch {
	case binary.NativeEndian.Uint64(head) != id:
		return nil, 0, damaged("page %d says that it is page %d", id, binary.NativeEndian.Uint64(head))
	case kind&kinds != kind || kind == 0 || kind&(kind-1) != 0:
		return nil, 0, damaged("page %d is of kind %#x", id, kind)
	case id+overflow >= in.highWater:
		return nil, 0, damaged("page %d goes on to %d of %d", id, id+overflow, in.highWater)
	}
	for n := id; n <= id+overflow; n++ {
		if in.seen[n/64].Or(1<<(n%64))&(1<<(n%64)) != 0 {
			return nil, 0, damaged("page %d is used twice", n)
		}
	}
	if overflow == 0 {
		return head, kind, nil
	}
	b = make([]byte, (overflow+1)*uint64(in.pageSize))
	if _, err := in.f.ReadAt(b, int64(id)*int64(in.pageSize)); err != nil {
		return nil, 0, fmt.Errorf("read page %d: %w", id, err)
	}
	return b, kind, nil
}

// tree walks from one page down. depth counts the buckets that it is in.
func (in *inspector) tree(id uint64, depth int) error {
	head := in.pages.Get().(*[]byte)
	defer in.pages.Put(head)
	b, kind, err := in.page(id, flagBranch|flagLeaf, *head)
	if err != nil {
		return err
	}
	return in.elements(id, b, kind, depth)
}

// elements checks what a page holds, and follows it.
func (in *inspector) elements(id uint64, b []byte, kind uint16, depth int) error {
	count := int(binary.NativeEndian.Uint16(b[10:]))
	if pageHeader+count*elementHeader > len(b) || kind == flagBranch && count == 0 {
		return damaged("page %d says that it holds %d elements", id, count)
	}
	var last []byte
	for i := range count {
		at := pageHeader + i*elementHeader
		e := b[at:]
		u32 := binary.NativeEndian.Uint32
		var pos, keySize, valueSize, flags uint64
		if kind == flagBranch {
			pos, keySize = uint64(u32(e)), uint64(u32(e[4:]))
		} else {
			flags, pos, keySize, valueSize = uint64(u32(e)), uint64(u32(e[4:])), uint64(u32(e[8:])), uint64(u32(e[12:]))
		}
		from := uint64(at) + pos
		if pos < elementHeader || from+keySize+valueSize > uint64(len(b)) || flags > leafIsBucket {
			return damaged("element %d of page %d lies outside of it", i, id)
		}
		key, value := b[from:from+keySize], b[from+keySize:from+keySize+valueSize]
		if i > 0 && bytes.Compare(last, key) >= 0 {
			return damaged("the keys of page %d are not in order", id)
		}
		last = key
		switch {
		case kind == flagBranch:
			if err := in.child(binary.NativeEndian.Uint64(e[8:]), depth); err != nil {
				return err
			}
		case flags == leafIsBucket:
			if err := in.bucket(id, value, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// bucket follows a bucket to its root page, or into itself where it is small.
func (in *inspector) bucket(id uint64, value []byte, depth int) error {
	const head = 16
	if len(value) < head || depth > maxBucketDepth {
		return damaged("a bucket on page %d cannot be read", id)
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return in.tree(root, depth)
	}
	inline := value[head:]
	if len(inline) < pageHeader || binary.NativeEndian.Uint16(inline[8:]) != flagLeaf {
		return damaged("a bucket on page %d cannot be read", id)
	}
	return in.elements(id, inline, flagLeaf, depth)
}
