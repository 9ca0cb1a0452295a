package boltstore

import (
	"encoding/binary"
	"math/bits"
)

// Records say the same things several times over: a submission's words in the profile, the consent and the
// enrollment, a version in every line of the ledger, ids within ids. They are stored as sequences, each of some
// new bytes and of a stretch that stood before, in the record or in the dictionary, as LZ4's blocks are: a byte
// with the number of new bytes (the high half) and the length of the stretch less minStretch (the low half; 15
// in either: more follows in bytes that are added, up to the first that is not 255), the new bytes, and how far
// back the stretch is, in two bytes. After the last sequence the rest of the record stands as it is.
//
//	2 | how many bytes of the record the sequences make, as a varint | sequences | the rest

// minStretch is the length from which repeating a stretch is shorter than saying it again.
const minStretch = 4

// maxCompressed is what a record may hold to be compressed: places in it and in the dictionary are numbers of 16
// bits.
const maxCompressed = 1<<16 - 1 - len(dictionary)

// index says where four bytes stood last, by their hash; 0: nowhere.
type index [1 << indexBits]uint16

const indexBits = 11

func (x *index) at(four uint32) *uint16 { return &x[four*2654435761>>(32-indexBits)] }

// ofDictionary is the index of the dictionary.
var ofDictionary = func() (x index) {
	d := []byte(dictionary)
	for i := 1; i+minStretch <= len(d); i++ {
		*x.at(binary.LittleEndian.Uint32(d[i:])) = uint16(i)
	}
	return x
}()

// compress appends to out the record that stands in b after the dictionary, as sequences with what is before and
// after them. The record is not longer than maxCompressed.
func compress(out, b []byte) []byte {
	seen := ofDictionary
	begin := len(out)
	const room = 3 // for the varint
	out = append(out, make([]byte, room)...)
	done := len(dictionary) // as far as there are sequences for it
	for i := done; i+minStretch <= len(b); {
		four := binary.LittleEndian.Uint32(b[i:])
		entry := seen.at(four)
		before := int(*entry)
		*entry = uint16(i)
		if before == 0 || binary.LittleEndian.Uint32(b[before:]) != four {
			i++
			continue
		}
		from, n := i, minStretch
		for from > done && before > 0 && b[from-1] == b[before-1] {
			from, before, n = from-1, before-1, n+1
		}
		n += common(b[before+n:], b[from+n:])
		out = appendSequence(out, b[done:from], n, from-before)
		done = from + n
		i = done
		if last := done - 2; last+minStretch <= len(b) {
			*seen.at(binary.LittleEndian.Uint32(b[last:])) = uint16(last)
		}
	}
	var head [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(head[:], uint64(done-len(dictionary)))
	copy(out[begin:], head[:n])
	out = append(out[:begin+n], out[begin+room:]...)
	return append(out, b[done:]...)
}

// common is how many bytes a and b have in common at their heads; b is the shorter.
func common(a, b []byte) (n int) {
	for n+8 <= len(b) {
		if x := binary.LittleEndian.Uint64(a[n:]) ^ binary.LittleEndian.Uint64(b[n:]); x != 0 {
			return n + bits.TrailingZeros64(x)/8
		}
		n += 8
	}
	for n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

func appendSequence(out, fresh []byte, n, back int) []byte {
	n -= minStretch
	out = append(out, byte(min(len(fresh), 15)<<4|min(n, 15)))
	out = appendMore(out, len(fresh))
	out = append(out, fresh...)
	return appendMore(binary.LittleEndian.AppendUint16(out, uint16(back)), n)
}

// appendMore appends what half a byte cannot say of n.
func appendMore(out []byte, n int) []byte {
	if n < 15 {
		return out
	}
	for n -= 15; n >= 255; n -= 255 {
		out = append(out, 255)
	}
	return append(out, byte(n))
}

// expand appends to room, which holds the dictionary, the record that compress made b of. ok is false where b
// is not of its making; then nothing is known of what was appended.
func expand(room, b []byte) (_ []byte, ok bool) {
	made, n := binary.Uvarint(b)
	if n <= 0 || made > uint64(maxCompressed) {
		return room, false
	}
	b = b[n:]
	for end := len(room) + int(made); len(room) < end; {
		if len(b) == 0 {
			return room, false
		}
		token := int(b[0])
		b = b[1:]
		if n, b, ok = more(token>>4, b); !ok || n > len(b) || n > end-len(room) {
			return room, false
		}
		room, b = append(room, b[:n]...), b[n:]
		if len(b) < 2 {
			return room, false
		}
		back := int(binary.LittleEndian.Uint16(b))
		n, b, ok = more(token&15, b[2:])
		if n += minStretch; !ok || n > end-len(room) || back == 0 || back > len(room) {
			return room, false
		}
		from := len(room) - back
		for ; n > back; n, back = n-back, 2*back { // it repeats itself
			room = append(room, room[from:from+back]...)
		}
		room = append(room, room[from:from+n]...)
	}
	return append(room, b...), true
}

// more adds what follows half a byte to it.
func more(n int, b []byte) (_ int, rest []byte, ok bool) {
	if n < 15 {
		return n, b, true
	}
	for i, c := range b {
		if n += int(c); c != 255 {
			return n, b[i+1:], true
		}
	}
	return 0, nil, false
}
