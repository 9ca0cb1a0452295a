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
	err = s.db.Load().Update(func(tx *bolt.Tx) error {
		leads, value := tx.Bucket(bLeads), make([]byte, 1000)
		for i := range 200_000 {
			if err := leads.Put(seqKey(uint64(i)*0x9e3779b97f4a7c15), value); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := inspect(filepath.Join(dir, FileName), time.Second); err != nil {
			b.Fatal(err)
		}
	}
}
