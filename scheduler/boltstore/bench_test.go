package boltstore

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/sequencer"
	"github.com/lodestonehq/lodestone/sequencer/event"
)

// benchBatch is how many submissions share a transaction: what intake takes when enough is waiting.
const benchBatch = sequencer.MaxBatch

// BenchmarkIntake applies submissions as intake does, from the message's bytes to the synced commit,
// and beside it puts the very same keys and values into a bbolt file in the same batches with nothing
// else around them. The two take turns, so that a slow minute of the disk is shared.
func BenchmarkIntake(b *testing.B) {
	b.Run("empty", func(b *testing.B) { benchIntake(b, 0) })
	b.Run("1M", func(b *testing.B) { benchIntake(b, 1_000_000) })
}

func benchIntake(b *testing.B, leads int) {
	ctx, book := context.Background(), rulebook(b)
	s, err := Open(b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	raw := newRaw(b)
	defer raw.Close()
	prefill(b, s.db.Load(), book, leads)
	prefill(b, raw, book, leads)

	rng := rand.New(rand.NewPCG(1, 2))
	var seq uint64
	var ours, ceiling []float64 // seconds of each batch
	for b.Loop() {
		msgs := make([]event.Message, benchBatch)
		for i := range msgs {
			seq++
			n := rng.IntN(max(2*leads, 100_000_000)) // half of them known where there are many
			if leads > 0 && i%2 == 0 {
				n = rng.IntN(leads)
			}
			msgs[i] = event.Message{
				Subject: "lodestone.forms.guide", Seq: seq, Time: start.Add(time.Duration(seq) * time.Millisecond),
				Data: fmt.Appendf(nil, `{"fields":{"email":"%s","size":%d},"context":{"page":"https://example.com/guide","utm":{"source":"news"}}}`, address(n), rng.IntN(100)),
			}
		}
		begin := time.Now()
		batch := sequencer.Batch{Stream: "S", Watermark: sequencer.Watermark{Created: start, Seq: seq}, Writes: make([]sequencer.Write, 0, benchBatch)}
		for i := range msgs {
			sub, rejected := event.DecodeSubmission(msgs[i], book.Form)
			if rejected != nil {
				b.Fatal(rejected.Detail)
			}
			batch.Writes = append(batch.Writes, write(sub.Email, book, sub.Received, &sequencer.Submitted{Submission: sub}))
		}
		results, err := s.Commit(ctx, batch)
		if err != nil {
			b.Fatal(err)
		}
		ours = append(ours, time.Since(begin).Seconds())
		puts := same(b, s, results)
		begin = time.Now()
		rawCommit(b, raw, puts)
		ceiling = append(ceiling, time.Since(begin).Seconds())
	}
	o, c := median(ours), median(ceiling)
	b.ReportMetric(benchBatch/o, "submissions/s")
	b.ReportMetric(benchBatch/c, "ceiling/s")
	b.ReportMetric(c/o, "of-ceiling")
	b.ReportMetric(0, "ns/op") // it would count both
}

func median(s []float64) float64 {
	slices.Sort(s)
	return s[len(s)/2]
}

func address(n int) string {
	// Spread like real addresses: the number is scrambled, so that neighbours are not neighbours.
	h := uint64(n) * 0x9e3779b97f4a7c15
	return fmt.Sprintf("%011x%d@example.com", h>>20, n)
}

// put is one key and value as the store wrote it.
type put struct{ bucket, key, value []byte }

// same reads back what a commit put: the lead, its place in the due queue, the journal entry.
func same(b *testing.B, s *Store, results []sequencer.Result) (puts []put) {
	err := s.view(func(tx *bolt.Tx) error {
		for i := range results {
			c := &results[i].Change
			email := []byte(c.Lead.Email)
			puts = append(puts,
				put{bLeads, email, slices.Clone(tx.Bucket(bLeads).Get(email))},
				put{bJournal, seqKey(c.Entry.Seq), slices.Clone(tx.Bucket(bJournal).Get(seqKey(c.Entry.Seq)))})
			for _, t := range c.Entry.Touchpoints {
				if t.Reason == lodestone.ReasonPlanned {
					puts = append(puts, put{bDue, append(nanoKey(nil, nanos(t.DueAt)), email...), nil})
				}
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return puts
}

func newRaw(b *testing.B) *bolt.DB {
	db, err := openFile(filepath.Join(b.TempDir(), "raw.db"), time.Second)
	if err != nil {
		b.Fatal(err)
	}
	if err := db.Update(func(tx *bolt.Tx) error {
		for _, name := range buckets {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		b.Fatal(err)
	}
	return db
}

func rawCommit(b *testing.B, db *bolt.DB, puts []put) {
	if err := db.Update(func(tx *bolt.Tx) error {
		journal, due := tx.Bucket(bJournal), tx.Bucket(bDue)
		journal.FillPercent, due.FillPercent = fillOrdered, fillOrdered
		leads := tx.Bucket(bLeads)
		for _, p := range puts {
			t := leads
			switch {
			case &p.bucket[0] == &bJournal[0]:
				t = journal
			case &p.bucket[0] == &bDue[0]:
				t = due
			}
			if err := t.Put(p.key, p.value); err != nil {
				return err
			}
		}
		return tx.Bucket(bMeta).Put([]byte("watermark"), binary.BigEndian.AppendUint64(nil, 1))
	}); err != nil {
		b.Fatal(err)
	}
}

// prefill makes a file that already holds many leads, each of one submission and with a touchpoint
// that waits.
func prefill(b *testing.B, db *bolt.DB, book *sequencer.Rulebook, leads int) {
	if leads == 0 {
		return
	}
	emails := make([]string, leads)
	for i := range emails {
		emails[i] = address(i)
	}
	slices.Sort(emails) // bbolt fills quickest in order
	sub := lodestone.Submission{ID: "prefill", Form: "guide", At: start.Add(24 * time.Hour), Received: start,
		Context: lodestone.Context{Page: "https://example.com/guide", UTM: lodestone.UTM{Source: "news"}}}
	db.NoSync = true
	for from := 0; from < leads; from += 50_000 {
		if err := db.Update(func(tx *bolt.Tx) error {
			t := newTxn(tx)
			for _, e := range emails[from:min(leads, from+50_000)] {
				sub.Email, sub.Fields = lodestone.Email(e), lodestone.FieldsOf(map[string]any{"email": e, "size": 1.0})
				c, err := sequencer.Plan(nil, &sequencer.Submitted{Submission: sub}, book, start)
				if err != nil {
					return err
				}
				if _, err := t.apply(sub.Email, nil, &c, nil); err != nil {
					return err
				}
			}
			return t.finish()
		}); err != nil {
			b.Fatal(err)
		}
	}
	db.NoSync = false
	if err := db.Sync(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkCommitDuringBackup commits one submission at a time into a store of 200,000 leads, half of
// the time while a backup of it is written to the same disk, and says how long a commit took.
func BenchmarkCommitDuringBackup(b *testing.B) {
	ctx, book, dir := context.Background(), rulebook(b), b.TempDir()
	s, err := Open(dir, Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	prefill(b, s.db.Load(), book, 200_000)
	n := 0
	one := func() time.Duration {
		n++
		begin := time.Now()
		if _, err := s.Commit(ctx, sequencer.Batch{Writes: []sequencer.Write{submit(book, lodestone.Email(fmt.Sprintf("new%d@example.com", n)), "1", start, 0)}}); err != nil {
			b.Fatal(err)
		}
		return time.Since(begin)
	}
	var quiet, busy []float64
	var bytes int64
	var took time.Duration
	for b.Loop() {
		done := make(chan error, 1)
		begin := time.Now()
		go func() {
			_, err := WriteBackup(ctx, filepath.Join(dir, fmt.Sprint("b", n)), nil, func(w io.Writer) error {
				size, err := s.Backup(ctx, w)
				bytes += size
				took += time.Since(begin)
				return err
			})
			done <- err
		}()
		for running := true; running; {
			select {
			case err := <-done:
				if err != nil {
					b.Fatal(err)
				}
				running = false
			default:
				busy = append(busy, one().Seconds())
			}
		}
		for range 300 {
			quiet = append(quiet, one().Seconds())
		}
	}
	for name, list := range map[string][]float64{"alone": quiet, "backup": busy} {
		slices.Sort(list)
		b.ReportMetric(1e6*list[len(list)/2], name+"-p50-us")
		b.ReportMetric(1e6*list[len(list)*99/100], name+"-p99-us")
	}
	b.ReportMetric(float64(bytes)/took.Seconds()/1e6, "backup-MB/s")
	b.ReportMetric(0, "ns/op")
}
