package boltstore

import (
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// BenchmarkInspect reads a file of 200,000 leads as it is read at every start.
func BenchmarkInspect(b *testing.B) {
	dir := b.TempDir()
	s, err := Open(dir, Options{})
	if err != nil {
		b.Fatal(err)
	}
	s.NoSync()
	value := make([]byte, 1000)
	for i := 0; i < 200_000; { // as many at a time as a commit has
		if err := s.db.Load().Update(func(tx *bolt.Tx) error {
			for leads := tx.Bucket(bLeads); i%2000 < 1999; i++ {
				if err := leads.Put(seqKey(uint64(i)*0x9e3779b97f4a7c15), value); err != nil {
					return err
				}
			}
			i++
			return nil
		}); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := inspect(filepath.Join(dir, FileName), time.Second, false); err != nil {
			b.Fatal(err)
		}
	}
}
