package boltstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	mathbits "math/bits"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// bbolt maps the file into memory and follows the page numbers that it finds there, in goroutines of
// its own, so a page number that leads nowhere ends the process with a signal that nobody can catch.
// A file is therefore read once with plain reads before it is opened: every page that the tree leads
// to, its place, its kind and the bounds of what it says it holds. Only one that nobody has touched since
// it was closed whole is opened at once, and read through later ([Store.ReadThrough]).

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
	maxLevels      = 128 // of pages below each other, through buckets in buckets: far more than there are
)

// inspector walks one file level by level: the pages of a level are read in the order in which they stand in
// the file, neighbours with one read, on as many processors as there are.
type inspector struct {
	f         io.ReaderAt
	pageSize  int
	highWater uint64
	heads     [2][pageHeader + metaSize]byte
	seen      []atomic.Uint64 // one bit a page that something leads to
	below     []atomic.Uint64 // one bit a page of the next level
	found     atomic.Bool     // below holds any
	bufs      sync.Pool       // of *[]byte, for what is read at a time
}

// inspect reads a store file with plain reads and says whether bbolt can open it. Where trust allows it, one
// whose mark says that nobody touched it since it was closed is only looked at where it begins, and read is when
// it was last read through; otherwise it is zero. The error is [ErrNotAStore], [ErrInUse] after wait, or the
// system's.
func inspect(path string, wait time.Duration, trust bool) (read time.Time, err error) {
	f, err := os.Open(path)
	if err != nil {
		return read, err
	}
	defer f.Close()
	unlock, err := lockShared(f, wait)
	if err != nil {
		return read, err
	}
	defer unlock()
	info, err := f.Stat()
	if err != nil {
		return read, err
	}
	if info.Mode()&fs.ModeType != 0 {
		return read, fmt.Errorf("%w: it is no file", ErrNotAStore)
	}
	in := &inspector{f: f}
	root, freelist, err := in.meta(info.Size())
	if err != nil {
		return read, err
	}
	if trust && freelist != noFreelist {
		read = takeMark(path, f, in, time.Now())
	}
	in.seen = make([]atomic.Uint64, in.highWater/64+1)
	var listed []byte
	if freelist != noFreelist {
		if err := in.claim(freelist); err != nil {
			return read, err
		}
		if listed, _, err = in.page(freelist, flagFreelist, make([]byte, in.pageSize), in.claim); err != nil {
			return read, err
		}
	}
	if read.IsZero() {
		if err := in.trees(root); err != nil {
			return read, err
		}
	}
	if listed == nil {
		return read, nil
	}
	return read, in.unused(listed)
}

// trees walks everything that the root page leads to.
func (in *inspector) trees(root uint64) error {
	in.bufs.New = func() any { b := make([]byte, stretchWords*64*in.pageSize); return &b }
	in.below = make([]atomic.Uint64, len(in.seen))
	if err := in.lead(root); err != nil {
		return err
	}
	for level := 0; in.found.Load(); level++ {
		if level == maxLevels {
			return damaged("its pages lie more than %d deep", maxLevels)
		}
		bits := in.below
		in.below = make([]atomic.Uint64, len(bits))
		in.found.Store(false)
		if err := in.level(bits); err != nil {
			return err
		}
	}
	return nil
}

// lead takes a page into the next level. Nothing else may have led to it.
func (in *inspector) lead(id uint64) error {
	if err := in.claim(id); err != nil {
		return err
	}
	in.below[id/64].Or(1 << (id % 64))
	if !in.found.Load() {
		in.found.Store(true)
	}
	return nil
}

// claim says that something leads to a page.
func (in *inspector) claim(id uint64) error {
	if id < 2 || id >= in.highWater {
		return damaged("something leads to page %d of %d", id, in.highWater)
	}
	if bit := uint64(1) << (id % 64); in.seen[id/64].Or(bit)&bit != 0 {
		return damaged("page %d is used twice", id)
	}
	return nil
}

const (
	stretchWords = 4 // what is read at a time lies within so many words of a level's bits: 1 MiB of pages of 4 KiB
	maxGap       = 4 // pages that are read although nobody asked for them, because a read of its own costs more
)

// level reads the pages whose bits are set. Which of several faults it finds is not said.
func (in *inspector) level(bits []atomic.Uint64) error {
	var next atomic.Uint64
	var fault atomic.Pointer[error]
	var walkers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		walkers.Go(func() {
			buf := in.bufs.Get().(*[]byte)
			defer in.bufs.Put(buf)
			for fault.Load() == nil {
				from := (next.Add(1) - 1) * stretchWords
				if from >= uint64(len(bits)) {
					return
				}
				if err := in.stretch(bits, from, min(from+stretchWords, uint64(len(bits))), *buf); err != nil {
					fault.CompareAndSwap(nil, &err)
					return
				}
			}
		})
	}
	walkers.Wait()
	if err := fault.Load(); err != nil {
		return *err
	}
	return nil
}

// stretch reads the pages of some words of a level's bits.
func (in *inspector) stretch(bits []atomic.Uint64, from, to uint64, buf []byte) error {
	var ids [stretchWords * 64]uint64
	n := 0
	for w := from; w < to; w++ {
		for set := bits[w].Load(); set != 0; set &= set - 1 {
			ids[n] = w*64 + uint64(mathbits.TrailingZeros64(set))
			n++
		}
	}
	for list := ids[:n]; len(list) > 0; {
		run := 1
		for run < len(list) && list[run]-list[run-1] <= maxGap {
			run++
		}
		first := list[0]
		b := buf[:(list[run-1]-first+1)*uint64(in.pageSize)]
		if err := in.read(b, first); err != nil {
			return err
		}
		for _, id := range list[:run] {
			at := (id - first) * uint64(in.pageSize)
			page, kind, err := in.whole(id, flagBranch|flagLeaf, b[at:], in.claim)
			if err == nil {
				err = in.elements(id, page, kind, 0, in.lead)
			}
			if err != nil {
				return err
			}
		}
		list = list[run:]
	}
	return nil
}

func (in *inspector) read(b []byte, id uint64) error {
	if _, err := in.f.ReadAt(b, int64(id)*int64(in.pageSize)); err != nil {
		return fmt.Errorf("read page %d: %w", id, err)
	}
	return nil
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

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrNotAStore, fmt.Sprintf(format, args...))
}

// meta reads the two meta pages and takes the newer good one.
func (in *inspector) meta(size int64) (root, freelist uint64, err error) {
	var txid uint64
	found := false
	at := []int64{0, int64(os.Getpagesize())}
	for i := 0; i < len(at); i++ {
		b := in.heads[i][:]
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

// page reads one page with its overflow. head has room for one page, and is what is returned of a page without
// overflow. See [inspector.whole].
func (in *inspector) page(id uint64, kinds uint16, head []byte, claim func(uint64) error) (b []byte, kind uint16, err error) {
	if err := in.read(head, id); err != nil {
		return nil, 0, err
	}
	return in.whole(id, kinds, head, claim)
}

// whole checks that a page stands where it says, that it is of one of the kinds wanted and that nothing else led
// to its overflow, and returns it with that. b begins with the page; what of its overflow is not in b is read.
func (in *inspector) whole(id uint64, kinds uint16, b []byte, claim func(uint64) error) ([]byte, uint16, error) {
	overflow := uint64(binary.NativeEndian.Uint32(b[12:]))
	kind := binary.NativeEndian.Uint16(b[8:])
	switch {
	case binary.NativeEndian.Uint64(b) != id:
		return nil, 0, damaged("page %d says that it is page %d", id, binary.NativeEndian.Uint64(b))
	case kind&kinds != kind || kind == 0 || kind&(kind-1) != 0:
		return nil, 0, damaged("page %d is of kind %#x", id, kind)
	case id+overflow >= in.highWater:
		return nil, 0, damaged("page %d goes on to %d of %d", id, id+overflow, in.highWater)
	}
	for n := id + 1; n <= id+overflow; n++ {
		if err := claim(n); err != nil {
			return nil, 0, err
		}
	}
	size := (overflow + 1) * uint64(in.pageSize)
	if size <= uint64(len(b)) {
		return b[:size:size], kind, nil
	}
	b = make([]byte, size)
	return b, kind, in.read(b, id)
}

// elements checks what a page holds, and tells lead of each page that it leads to. depth counts the buckets
// within the page that it is in.
func (in *inspector) elements(id uint64, b []byte, kind uint16, depth int, lead func(uint64) error) error {
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
			if err := lead(binary.NativeEndian.Uint64(e[8:])); err != nil {
				return err
			}
		case flags == leafIsBucket:
			if err := in.bucket(id, value, depth+1, lead); err != nil {
				return err
			}
		}
	}
	return nil
}

// bucket follows a bucket to its root page, or into itself where it is small.
func (in *inspector) bucket(id uint64, value []byte, depth int, lead func(uint64) error) error {
	const head = 16
	if len(value) < head || depth > maxBucketDepth {
		return damaged("a bucket on page %d cannot be read", id)
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return lead(root)
	}
	inline := value[head:]
	if len(inline) < pageHeader || binary.NativeEndian.Uint16(inline[8:]) != flagLeaf {
		return damaged("a bucket on page %d cannot be read", id)
	}
	return in.elements(id, inline, flagLeaf, depth, lead)
}
