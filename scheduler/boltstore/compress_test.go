package boltstore

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/sequencer"
)

// Values as earlier versions wrote them, and as this one does, mean what they meant when they were written. Each line
// of the file is the part of the store, the value in hex, and what a dump showed of it.
func TestStoredRecordsStayReadable(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "records"))
	if err != nil {
		t.Fatal(err)
	}
	read := map[byte]int{}
	for i, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		part, rest, _ := strings.Cut(line, " ")
		text, want, _ := strings.Cut(rest, " ")
		v, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		value, err := readable(part, nil, v)
		if err != nil {
			t.Errorf("line %d: %v", i+1, err)
			continue
		}
		if got, err := json.Marshal(value); err != nil || string(got) != want {
			t.Errorf("line %d: %s, %v, want %s", i+1, got, err, want)
		}
		read[v[0]]++
	}
	if read[plain] == 0 || read[compressed] == 0 {
		t.Errorf("read %v, want values of both encodings", read)
	}
}

// What is stored refers to the dictionary by place.
func TestDictionaryIsAsItWas(t *testing.T) {
	const want = "09760e6c0c1ceb4f0d184d45f86a6c70561ec5c8e5b7a85a5e611b4bfdf0c2ab"
	if got := fmt.Sprintf("%x", sha256.Sum256([]byte(dictionary))); got != want {
		t.Errorf("the dictionary is another one, %s: what was stored with the one before cannot be read. Give it an encoding of its own", got)
	}
}

// A file of format 2 is read as it is; what changes is compressed, and the format says so from the start.
func TestFormat2IsReadAndCompressed(t *testing.T) {
	dir, book := t.TempDir(), rulebook(t)
	s := open(t, dir)
	b := sequencer.Batch{}
	for i := range 20 {
		b.Writes = append(b.Writes, submit(book, lodestone.Email(fmt.Sprintf("lead%d@example.com", i)), "1", start, 100))
	}
	commit(t, s, b)
	want, err := s.Person(t.Context(), "lead7@example.com", 10)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.update(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{bLeads, bJournal} {
			b := tx.Bucket(name)
			values := map[string][]byte{}
			if err := b.ForEach(func(k, v []byte) error {
				return unpacked(v, func(record []byte) error {
					values[string(k)] = append([]byte{plain}, record...)
					return nil
				})
			}); err != nil {
				return err
			}
			for k, v := range values {
				if err := b.Put([]byte(k), v); err != nil {
					return err
				}
			}
		}
		return tx.Bucket(bMeta).Put(kFormat, binary.BigEndian.AppendUint32(nil, 2))
	}); err != nil {
		t.Fatal(err)
	}
	file := backup(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for name, where := range map[string]string{"opened": dir, "restored": filepath.Join(t.TempDir(), "data")} {
		if name == "restored" {
			if _, err := Restore(t.Context(), where, file, start); err != nil {
				t.Fatal(err)
			}
		}
		s := open(t, where)
		got, err := s.Person(t.Context(), "lead7@example.com", 10)
		if err != nil {
			t.Fatal(err)
		}
		if is, was := asJSON(t, got.Lead, got.History), asJSON(t, want.Lead, want.History); is != was {
			t.Errorf("%s: %s, want %s", name, is, was)
		}
		commit(t, s, sequencer.Batch{Writes: []sequencer.Write{submit(book, "lead7@example.com", "2", start.Add(time.Hour), 100)}})
		if err := s.view(func(tx *bolt.Tx) error {
			if f := binary.BigEndian.Uint32(tx.Bucket(bMeta).Get(kFormat)); f != Format {
				t.Errorf("%s: format %d, want %d", name, f, Format)
			}
			for email, encoding := range map[string]byte{"lead7@example.com": compressed, "lead8@example.com": plain} {
				if v := tx.Bucket(bLeads).Get([]byte(email)); v[0] != encoding {
					t.Errorf("%s: %s has encoding %d, want %d", name, email, v[0], encoding)
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}

func asJSON(t *testing.T, v ...any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// raw is a value that is marshalled already.
type raw []byte

func (r raw) MarshalMsg(b []byte) ([]byte, error) { return append(b, r...), nil }

// checkCompress stores a record and reads it again.
func checkCompress(t *testing.T, record []byte) {
	t.Helper()
	v, err := Encode(raw(record))
	if err != nil {
		t.Fatal(err)
	}
	if len(v) > 1+len(record) {
		t.Errorf("%d bytes became %d", len(record), len(v))
	}
	if err := unpacked(v, func(got []byte) error {
		if !bytes.Equal(got, record) {
			t.Errorf("%q came back as %q", record, got)
		}
		return nil
	}); err != nil {
		t.Errorf("%q: %v", record, err)
	}
}

// Records of all lengths, of what was said before and what was not, come back as they were.
func TestCompressDrawn(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		var record []byte
		for want := r.IntN(1 << r.IntN(17)); len(record) < want; {
			switch r.IntN(4) {
			case 0:
				for range r.IntN(300) {
					record = append(record, byte(r.Uint32()))
				}
			case 1:
				from := r.IntN(len(dictionary))
				record = append(record, dictionary[from:from+r.IntN(len(dictionary)-from)]...)
			case 2:
				record = append(record, bytes.Repeat([]byte{byte(r.Uint32()), 'a'}[:1+r.IntN(2)], r.IntN(600))...)
			case 3:
				if len(record) > 0 {
					from := r.IntN(len(record))
					record = append(record, record[from:from+r.IntN(len(record)-from)]...)
				}
			}
		}
		checkCompress(t, record)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	checkCompress(t, []byte(strings.Repeat("a", maxCompressed)))
	checkCompress(t, []byte(strings.Repeat("a", maxCompressed+1)))
}

func FuzzCompress(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte(dictionary))
	f.Fuzz(checkCompress)
}

// What no version wrote is refused, and neither ends the process nor takes more memory than a record may.
func FuzzExpand(f *testing.F) {
	v, err := Encode(raw("the same, the same, the same, and a longer stretch of the same, a longer stretch of the same"))
	if err != nil || v[0] != compressed {
		f.Fatal(v, err)
	}
	for n := 1; n <= len(v); n++ {
		f.Add(v[1:n])
	}
	f.Add(binary.AppendUvarint(nil, 1<<62))
	f.Fuzz(func(t *testing.T, b []byte) {
		err := unpacked(append([]byte{compressed}, b...), func(record []byte) error {
			if len(record) > maxCompressed+len(b) {
				t.Errorf("%d bytes became %d", len(b), len(record))
			}
			return nil
		})
		if err != nil && !errors.Is(err, ErrNotAStore) {
			t.Errorf("%v, want ErrNotAStore", err)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	data, err := os.ReadFile(filepath.Join("testdata", "records"))
	if err != nil {
		b.Fatal(err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(data)) {
		part, rest, _ := strings.Cut(line, " ")
		text, _, _ := strings.Cut(rest, " ")
		v, err := hex.DecodeString(text)
		if err != nil || seen[part] || len(v) < 500 {
			continue
		}
		seen[part] = true
		record := raw(v[1:])
		var stored []byte
		b.Run("write "+part, func(b *testing.B) {
			for b.Loop() {
				stored, _ = Encode(record)
			}
		})
		b.Run("read "+part, func(b *testing.B) {
			for b.Loop() {
				if err := unpacked(stored, func([]byte) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Logf("%s: %d bytes of %d", part, len(stored), len(v))
	}
}
