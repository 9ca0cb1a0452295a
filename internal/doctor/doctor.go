// Package doctor looks for what is wrong with a data directory and says what to do about it. It reads
// and changes nothing. Every finding names its remedy; no finding holds an address or a secret.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/lodestonehq/lodestone/internal/broker"
	"github.com/lodestonehq/lodestone/scheduler/boltstore"
)

// Finding is one thing that is wrong.
type Finding struct {
	Check   string `json:"check"`
	Message string `json:"message"`
	Remedy  string `json:"remedy"`
}

// Checked is one thing that was looked at.
type Checked struct {
	Check  string `json:"check"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// Report is what was looked at, and what was found.
type Report struct {
	Findings []Finding `json:"findings"`
	Checks   []Checked `json:"checks"`
}

// Find adds a finding.
func (r *Report) Find(check, remedy, format string, args ...any) {
	r.Findings = append(r.Findings, Finding{check, fmt.Sprintf(format, args...), remedy})
}

// Done closes a check: it is in order when nothing was found under its name.
func (r *Report) Done(check, format string, args ...any) {
	ok := true
	for _, f := range r.Findings {
		ok = ok && f.Check != check
	}
	r.Checks = append(r.Checks, Checked{check, ok, fmt.Sprintf(format, args...)})
}

// Add puts another report behind this one.
func (r *Report) Add(o Report) {
	r.Findings, r.Checks = append(r.Findings, o.Findings...), append(r.Checks, o.Checks...)
}

// Directory looks at permissions and room of a data directory.
func (r *Report) Directory(dir string) {
	const check = "directory"
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.Find(check, "start `lodestone run` once, or name the right directory with --data", "%s does not exist", dir)
		r.Done(check, "%s", dir)
		return
	case err != nil:
		r.Find(check, "make it readable for the user that lodestone runs as", "%v", err)
		r.Done(check, "%s", dir)
		return
	case !info.IsDir():
		r.Find(check, "name a directory with --data", "%s is no directory", dir)
		r.Done(check, "%s", dir)
		return
	}
	if info.Mode().Perm()&0o077 != 0 {
		r.Find(check, "chmod 700 "+dir, "%s is open to other users (mode %04o)", dir, info.Mode().Perm())
	}
	for _, path := range dataFiles(dir) {
		if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
			r.Find(check, "chmod go= "+path, "%s is open to other users (mode %04o)", path, info.Mode().Perm())
		}
	}
	if f, err := os.CreateTemp(dir, ".doctor-"); err != nil {
		r.Find(check, "give the user that lodestone runs as the right to write there; look with `mount` whether the disk is read-only", "nothing can be written to %s: %v", dir, bare(err))
	} else {
		_ = f.Close()
		_ = os.Remove(f.Name())
	}
	detail := dir
	if aside, _ := filepath.Glob(filepath.Join(dir, "replaced-*.db")); len(aside) > 0 {
		detail += fmt.Sprintf("; stores that a restore replaced are kept there, with all that they know of people (%d): delete them when they are not needed any more", len(aside))
	}
	r.Done(check, "%s", detail)
	r.room(dir)
}

func bare(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// leastRoom is how much must be free, beside what a backup or a compaction takes.
const leastRoom = 256 << 20

func (r *Report) room(dir string) {
	const check = "disk"
	free, ok := freeBytes(dir)
	if !ok {
		return
	}
	var size int64
	if info, err := os.Stat(filepath.Join(dir, boltstore.FileName)); err == nil {
		size = info.Size()
	}
	if free < leastRoom+size {
		r.Find(check, "make room, or move the data directory to a larger disk; shorter times under `retention` and `lodestone compact` help later",
			"%s are free, and %s are wanted: a compaction writes a second store file", megabytes(free), megabytes(leastRoom+size))
	}
	r.Done(check, "%s free", megabytes(free))
}

func megabytes(n int64) string { return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20)) }

// OpenFailed turns what kept a store from being opened into a finding.
func (r *Report) OpenFailed(err error) {
	remedy := "see the message"
	switch {
	case errors.Is(err, boltstore.ErrInUse):
		remedy = "wait a moment when a worker is starting or stopping; otherwise find the process that has the file open (`fuser` or `lsof` name it) and end it"
	case errors.Is(err, boltstore.ErrNewer):
		remedy = "use the newer version of lodestone, or restore a backup that was made before it"
	case errors.Is(err, boltstore.ErrNotAStore):
		remedy = "restore the latest backup: lodestone restore FILE; the damaged file is kept aside"
	case errors.Is(err, fs.ErrPermission):
		remedy = "give the file to the user that lodestone runs as"
	}
	text, _, _ := strings.Cut(err.Error(), "; nothing was changed")
	r.Find("store", remedy, "%s", text)
	r.Done("store", "it cannot be opened")
}

// Store looks at an open store: its pages, indexes, chains and counts, whether it is a copy, and what
// it still has to learn after a restore.
func (r *Report) Store(ctx context.Context, s *boltstore.Store) {
	const check = "store"
	// With plain reads first: on a damaged page the walk that follows would end the process.
	var faults []string
	err := s.ReadThrough(ctx, 1)
	if damage := s.Damage(); damage != nil {
		r.Find(check, boltstore.DamageRemedy, "%v", damage)
	} else if err != nil { // it says nothing of what the file holds
		r.Find(check, "see the message, and ask again", "%v", err)
	} else if faults, err = s.Check(ctx); err != nil {
		faults = append(faults, err.Error())
	}
	for i, f := range faults {
		if i == 20 {
			r.Find(check, "as above", "%d more faults of this kind", len(faults)-i)
			break
		}
		r.Find(check, "make a backup of the file as it is, restore the latest good backup (lodestone restore FILE), and report this", "%s", f)
	}
	usage, err := s.Usage()
	if err != nil {
		r.Find(check, "see the message", "%v", err)
	}
	detail := fmt.Sprintf("%s, of which %s are in use", megabytes(usage.Bytes), megabytes(usage.Used))
	if idle := usage.Bytes - usage.Used; idle > 256<<20 && idle > usage.Used {
		detail += "; `lodestone compact` would give back the rest"
	}
	r.Done(check, "%s", detail)

	const identity = "identity"
	why, remedy := s.Unclaimed()
	switch restored := s.Restored(); {
	case why != "":
		r.Find(identity, remedy, "%s", why)
	case restored != nil && !restored.Gathered:
		r.Find(identity, "start the worker: lodestone run", "this store stands at %s, and what was sent since has not been read from the streams yet; nothing goes out before", restored.Backup.Format(time.RFC3339))
	}
	r.Done(identity, "instance %s", s.Instance())
}

// Streams compares the streams with how far they were applied.
func (r *Report) Streams(ctx context.Context, s *boltstore.Store, b *broker.Broker) {
	const check = "streams"
	if st := b.Status(); !st.Ready() {
		r.Find(check, "see that the NATS server runs, can be reached and syncs before it acknowledges", "the broker cannot be used: %s", st.Detail)
		r.Done(check, "away")
		return
	}
	for _, name := range []string{broker.FormsStream, broker.SignalsStream} {
		mark, err := s.Watermark(ctx, name)
		if err != nil {
			r.Find(check, "see the message", "%v", err)
			continue
		}
		created, first, last, err := b.StreamIdentity(ctx, name)
		const another = "point nats.url and --data at the pair that belongs together; when the stream is really gone, take the new one: lodestone run --accept-stream"
		switch {
		case err != nil && mark.Created.IsZero():
			// Neither of the two has begun.
		case err != nil:
			r.Find(check, another, "stream %s cannot be looked at: %v", name, err)
		case mark.Created.IsZero():
		case !mark.Created.Equal(created):
			r.Find(check, another, "stream %s was created at %s, the one that was applied so far at %s", name, created.Format(time.RFC3339), mark.Created.Format(time.RFC3339))
		case last < mark.Seq:
			r.Find(check, another, "stream %s ends at %d, and %d was applied already", name, last, mark.Seq)
		case s.Restored() != nil && first > mark.Seq+1:
			r.Find(check, "take a younger backup where there is one; what came in between must be submitted again", "stream %s begins at %d, and only what is up to %d was applied: what is in between is gone", name, first, mark.Seq)
		}
	}
	r.Done(check, "compared with what was applied")
}
