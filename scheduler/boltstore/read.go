package boltstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	bolt "go.etcd.io/bbolt"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/scheduler"
	"github.com/lodestonehq/lodestone/sequencer"
)

// Watermark returns how far a stream has been applied; zero when it never was.
func (s *Store) Watermark(_ context.Context, stream string) (w sequencer.Watermark, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		v := tx.Bucket(bMeta).Get(watermarkKey(stream))
		if len(v) == 16 {
			w.Created = keyTime(v)
			w.Seq = binary.BigEndian.Uint64(v[8:])
		}
		return nil
	})
	return w, err
}

// State returns what is stored about one lead.
func (s *Store) State(_ context.Context, email lodestone.Email) (st sequencer.State, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		t := txn{leads: tx.Bucket(bLeads), supp: tx.Bucket(bSuppressions)}
		v := bytes.Clone(t.leads.Get([]byte(email)))
		st, err = t.stateOf(email, v)
		st.Version = v
		return err
	})
	return st, err
}

// Person is everything on record about one address.
type Person struct {
	sequencer.State
	History   []lodestone.Entry // newest first
	More      bool              // there is older history beyond the limit
	Attention []lodestone.Attention
}

// maxLooked bounds how many attention items are read for one person. Nobody looks through more by
// hand, and they are listed by `queue --attention` in any case.
const maxLooked = 10_000

// Person returns what is on record about one address, with the newest entries of its history, at
// most limit of them, all from one moment. A history whose older part was pruned ends there.
func (s *Store) Person(_ context.Context, email lodestone.Email, limit int) (p Person, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		t := txn{leads: tx.Bucket(bLeads), supp: tx.Bucket(bSuppressions)}
		if p.State, err = t.state(email); err != nil {
			return err
		}
		looked := 0
		if err := eachAttention(tx, func(a *lodestone.Attention) bool {
			if a.Email == email {
				p.Attention = append(p.Attention, *a)
			}
			looked++
			return looked < maxLooked
		}); err != nil {
			return err
		}
		p.History, p.More, err = history(tx, p.Lead, limit)
		return err
	})
	return p, err
}

// AttentionOf returns every attention item about one address, also where [Person] stops looking.
func (s *Store) AttentionOf(_ context.Context, email lodestone.Email) (list []lodestone.Attention, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		return eachAttention(tx, func(a *lodestone.Attention) bool {
			if a.Email == email {
				list = append(list, *a)
			}
			return true
		})
	})
	return list, err
}

// History returns the newest entries on record about one lead, newest first, at most limit.
func (s *Store) History(_ context.Context, email lodestone.Email, limit int) (list []lodestone.Entry, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		st, err := (&txn{leads: tx.Bucket(bLeads), supp: tx.Bucket(bSuppressions)}).state(email)
		if err != nil {
			return err
		}
		list, _, err = history(tx, st.Lead, limit)
		return err
	})
	return list, err
}

// history walks a lead's chain; more says that there is more of it than limit.
func history(tx *bolt.Tx, l *lodestone.Lead, limit int) (list []lodestone.Entry, more bool, err error) {
	if l == nil {
		return nil, false, nil
	}
	journal := tx.Bucket(bJournal)
	for seq := l.Journal; seq != 0; {
		if len(list) == limit {
			return list, true, nil
		}
		e, err := entry(journal, seq)
		if err != nil {
			return list, false, err
		}
		if e == nil {
			return list, false, nil // pruned
		}
		list = append(list, *e)
		if e.Prev >= seq {
			return list, false, fmt.Errorf("%w: journal entry %d points forward", ErrNotAStore, seq)
		}
		seq = e.Prev
	}
	return list, false, nil
}

func entry(journal *bolt.Bucket, seq uint64) (*lodestone.Entry, error) {
	v := journal.Get(seqKey(seq))
	if v == nil {
		return nil, nil
	}
	e := &lodestone.Entry{Seq: seq}
	if err := decode(v, e); err != nil {
		return nil, fmt.Errorf("journal entry %d: %w", seq, err)
	}
	e.HideLinks()
	return e, nil
}

// Journal returns entries after a sequence number, in order, at most limit.
func (s *Store) Journal(_ context.Context, after uint64, limit int) (entries []lodestone.Entry, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		c := tx.Bucket(bJournal).Cursor()
		for k, v := c.Seek(seqKey(after + 1)); k != nil && len(entries) < limit; k, v = c.Next() {
			e := lodestone.Entry{Seq: binary.BigEndian.Uint64(k)}
			if err := decode(v, &e); err != nil {
				return fmt.Errorf("journal entry %d: %w", e.Seq, err)
			}
			e.HideLinks()
			entries = append(entries, e)
		}
		return nil
	})
	return entries, err
}

// Open returns the touchpoints whose outcome is open. See [scheduler.Store].
func (s *Store) Open(context.Context) (open []scheduler.OpenItem, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		return tx.Bucket(bIntents).ForEach(func(k, v []byte) error {
			p, err := decodePending(v)
			if err != nil {
				return err
			}
			open = append(open, scheduler.OpenItem{Touchpoint: string(k), State: p.state, Connector: p.connector, Email: p.email})
			return nil
		})
	})
	return open, err
}

// Row is one touchpoint of the queue.
type Row struct {
	lodestone.Touchpoint
	Email    lodestone.Email
	Sequence string
}

// Queue returns pending touchpoints in the order in which they fall due, at most limit, all states
// or only one.
func (s *Store) Queue(_ context.Context, state lodestone.TouchpointState, limit int) (rows []Row, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		leads := tx.Bucket(bLeads)
		load := func(email lodestone.Email) (*lodestone.Lead, error) {
			v := leads.Get([]byte(email))
			if v == nil {
				return nil, fmt.Errorf("%w: a touchpoint waits whose lead is missing", ErrNotAStore)
			}
			l := new(lodestone.Lead)
			return l, decode(v, l)
		}
		collect := func(email lodestone.Email, want func(*lodestone.Touchpoint) bool) error {
			l, err := load(email)
			if err != nil {
				return err
			}
			for i := range l.Enrollments {
				if t := l.Enrollments[i].Touchpoint; t != nil && want(t) {
					rows = append(rows, Row{*t, email, l.Enrollments[i].Sequence})
				}
			}
			return nil
		}
		if state == "" || state != lodestone.TouchpointScheduled {
			c := tx.Bucket(bIntents).Cursor()
			for k, v := c.First(); k != nil && len(rows) < maxOpen; k, v = c.Next() {
				p, err := decodePending(v)
				if err != nil {
					return err
				}
				if state != "" && p.state != state {
					continue
				}
				id := string(k)
				if err := collect(p.email, func(t *lodestone.Touchpoint) bool { return t.ID == id }); err != nil {
					return err
				}
			}
		}
		if state == "" || state == lodestone.TouchpointScheduled {
			list, open := lanes(tx.Bucket(bDue), ""), len(rows)
			for i := first(list); i >= 0 && len(rows) < open+limit; i = first(list) {
				err := collect(lodestone.Email(list[i].key[8:]), func(t *lodestone.Touchpoint) bool { return t.State == lodestone.TouchpointScheduled })
				if err != nil {
					return err
				}
				list[i].key, _ = list[i].c.Next()
			}
		}
		return nil
	})
	slices.SortStableFunc(rows, func(a, b Row) int { return a.DueAt.Compare(b.DueAt) })
	return rows[:min(len(rows), limit)], err
}

// maxOpen bounds how many touchpoints of open outcome are sorted in among those that wait. There are
// few of them, or something is very wrong, which the counts then say.
const maxOpen = 10_000

// Attention returns what a human must look at, at most limit items, rejected submissions last, and how
// many there are in all.
func (s *Store) Attention(_ context.Context, limit int) (items []lodestone.Attention, total int, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		for _, kind := range attentionOrder {
			prefix := append([]byte(kind), 0)
			c := tx.Bucket(bAttention).Cursor()
			for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
				if total++; len(items) >= limit {
					continue // counted only
				}
				var a lodestone.Attention
				if err := decode(v, &a); err != nil {
					return fmt.Errorf("an attention item: %w", err)
				}
				items = append(items, a)
			}
		}
		return nil
	})
	return items, total, err
}

// attentionOrder puts what a human decides on before submissions, of which there may be very many.
var attentionOrder = []lodestone.AttentionKind{
	lodestone.AttentionConnector, lodestone.AttentionTouchpoint, lodestone.AttentionEnrollment, lodestone.AttentionRule, lodestone.AttentionSubmission,
}

// AttentionCounts counts the attention items by kind.
func (s *Store) AttentionCounts(context.Context) (counts map[lodestone.AttentionKind]int, err error) {
	counts = map[lodestone.AttentionKind]int{}
	err = s.view(func(tx *bolt.Tx) error {
		return tx.Bucket(bAttention).ForEach(func(k, _ []byte) error {
			kind, _, _ := bytes.Cut(k, []byte{0})
			counts[lodestone.AttentionKind(kind)]++
			return nil
		})
	})
	return counts, err
}

func eachAttention(tx *bolt.Tx, fn func(*lodestone.Attention) bool) error {
	c := tx.Bucket(bAttention).Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		var a lodestone.Attention
		if err := decode(v, &a); err != nil {
			return fmt.Errorf("an attention item: %w", err)
		}
		a.Detail = lodestone.HideLinks(a.Detail)
		if !fn(&a) {
			return nil
		}
	}
	return nil
}

// Suppressions returns the suppression list in the order of the addresses, beginning after one, at
// most limit.
func (s *Store) Suppressions(_ context.Context, after lodestone.Email, limit int) (list []lodestone.Suppression, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		c := tx.Bucket(bSuppressions).Cursor()
		k, v := c.Seek([]byte(after))
		if after != "" && string(k) == string(after) {
			k, v = c.Next()
		}
		for ; k != nil && len(list) < limit; k, v = c.Next() {
			var x lodestone.Suppression
			if err := decode(v, &x); err != nil {
				return fmt.Errorf("a suppression: %w", err)
			}
			list = append(list, x)
		}
		return nil
	})
	return list, err
}

// Suppression returns what is known of one address: from the list, or what an erasure keeps of it under a hash,
// which kept says; nil when it may be contacted.
func (s *Store) Suppression(_ context.Context, email lodestone.Email) (x *lodestone.Suppression, kept bool, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		if v := tx.Bucket(bSuppressions).Get([]byte(email)); v != nil {
			x = new(lodestone.Suppression)
			return decode(v, x)
		}
		x, _, err = keptOf(tx, email)
		kept = x != nil
		return err
	})
	return x, kept, err
}

// SuppressedAgain returns the suppressions that are kept as a hash alone of people who were erased and of whom
// something came since, in the order of the addresses. It begins after one and looks at so many leads at most; next
// is where to go on, empty at the end.
func (s *Store) SuppressedAgain(_ context.Context, after lodestone.Email, leads int) (list []lodestone.Suppression, next lodestone.Email, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		if erased := tx.Bucket(bErased); erased == nil {
			return nil // nobody ever was
		}
		listed := tx.Bucket(bSuppressions)
		c := tx.Bucket(bLeads).Cursor()
		k, _ := c.Seek([]byte(after))
		if after != "" && string(k) == string(after) {
			k, _ = c.Next()
		}
		n := 0
		for ; k != nil && n < leads; k, _ = c.Next() {
			n, next = n+1, lodestone.Email(k)
			if listed.Get(k) != nil {
				continue
			}
			kept, _, err := keptOf(tx, next)
			if err != nil {
				return err
			}
			if kept != nil {
				list = append(list, *kept)
			}
		}
		if k == nil {
			next = ""
		}
		return nil
	})
	return list, next, err
}

// SuppressedErased counts the suppressions that are kept as a hash alone, of people who were erased. One who was
// erased from several stores that were brought together counts once for each.
func (s *Store) SuppressedErased(context.Context) (n int, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		b := tx.Bucket(bErased)
		if b == nil {
			return nil
		}
		return b.ForEach(func(_, v []byte) error {
			var x lodestone.Suppression
			if len(v) < 8 {
				return fmt.Errorf("%w: an erasure without its time", ErrNotAStore)
			}
			if err := decode(v[8:], &x); err != nil {
				return fmt.Errorf("the suppression of an erased address: %w", err)
			}
			if x.Source != "" {
				n++
			}
			return nil
		})
	})
	return n, err
}

// Count is one number of the roll-up: how often something happened to a step of a sequence.
type Count struct {
	Sequence string
	Step     string
	What     string // touchpoint.sent, enrollment.completed, submission.accepted, …
	Variant  string // of the sequence, of the step, or both with / between; a split has one number for each
	N        uint64
}

// Totals returns the roll-up over all time.
func (s *Store) Totals(context.Context) (counts []Count, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		counts, err = totals(tx)
		return err
	})
	return counts, err
}

func totals(tx *bolt.Tx) (counts []Count, err error) {
	prefix := make([]byte, 4)
	c := tx.Bucket(bRollups).Cursor()
	for k, v := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
		_, n, err := decodeRollup(k, v)
		if err != nil {
			return nil, err
		}
		counts = append(counts, n)
	}
	return counts, nil
}

func decodeRollup(k, v []byte) (day uint32, c Count, err error) {
	parts := bytes.Split(k[min(4, len(k)):], []byte{0})
	if len(parts) < 3 || len(parts) > 4 || len(v) != 8 {
		return 0, c, fmt.Errorf("%w: a count that cannot be read", ErrNotAStore)
	}
	c = Count{Sequence: string(parts[0]), Step: string(parts[1]), What: string(parts[2]), N: binary.BigEndian.Uint64(v)}
	if len(parts) == 4 {
		c.Variant = string(parts[3])
	}
	return binary.BigEndian.Uint32(k), c, nil
}

// Counts returns how many touchpoints are or ended in each state, each once, also one that failed and was
// tried again. It costs as much as there are open outcomes, not as many as wait.
func (s *Store) Counts(context.Context) (counts map[lodestone.TouchpointState]uint64, err error) {
	counts = map[lodestone.TouchpointState]uint64{}
	for _, st := range lodestone.TouchpointStates {
		counts[st] = 0
	}
	err = s.view(func(tx *bolt.Tx) error {
		all, err := totals(tx)
		if err != nil {
			return err
		}
		var open, ended, reopened uint64
		for _, c := range all {
			switch what, _ := strings.CutPrefix(c.What, "touchpoint."); {
			case what == c.What:
			case what == "scheduled":
				counts[lodestone.TouchpointScheduled] += c.N
			case what == "reopened":
				reopened += c.N
			default:
				counts[lodestone.TouchpointState(what)] += c.N
				ended += c.N
			}
		}
		if err := tx.Bucket(bIntents).ForEach(func(_, v []byte) error {
			p, err := decodePending(v)
			counts[p.state]++
			open++
			return err
		}); err != nil {
			return err
		}
		counts[lodestone.TouchpointScheduled] -= open + ended
		counts[lodestone.TouchpointFailed] -= reopened
		return nil
	})
	return counts, err
}

// The switches of the meta bucket.

const pausedPrefix = "paused/"

// Paused returns what is paused. See [scheduler.Store].
func (s *Store) Paused(context.Context) (paused map[string]scheduler.Pause, err error) {
	paused = map[string]scheduler.Pause{}
	err = s.view(func(tx *bolt.Tx) error {
		c := tx.Bucket(bMeta).Cursor()
		for k, v := c.Seek([]byte(pausedPrefix)); bytes.HasPrefix(k, []byte(pausedPrefix)); k, v = c.Next() {
			var p scheduler.Pause
			if err := json.Unmarshal(v, &p); err != nil {
				return fmt.Errorf("%w: a pause that cannot be read", ErrNotAStore)
			}
			paused[string(k[len(pausedPrefix):])] = p
		}
		return nil
	})
	return paused, err
}

// Cursor returns a named position in the journal, for readers that go on where they stopped.
func (s *Store) Cursor(_ context.Context, name string) (seq uint64, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		if v := tx.Bucket(bMeta).Get([]byte("cursor/" + name)); len(v) == 8 {
			seq = binary.BigEndian.Uint64(v)
		}
		return nil
	})
	return seq, err
}

// SetCursor stores a named position in the journal.
func (s *Store) SetCursor(_ context.Context, name string, seq uint64) error {
	return s.putMeta([]byte("cursor/"+name), seqKey(seq))
}

// Check reads the whole file and returns every fault it finds: pages, records that cannot be read,
// indexes that disagree with the leads, chains that do not hold, counts that do not balance. It is a
// long read, so it is for tests and for `doctor`, not for the hot path.
func (s *Store) Check(context.Context) (faults []string, err error) {
	say := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	err = s.view(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			say("page: %v", err)
		}
		braked := map[string]int{}
		var want, got names
		pendingBy, active := map[string]uint64{}, map[string]uint64{}
		uses := map[string]uint64{}
		journal := tx.Bucket(bJournal)
		f := tx.Bucket(bMeta).Get(kFormat)
		before := len(f) == 4 && binary.BigEndian.Uint32(f) == 1 // a backup, say
		if err := tx.Bucket(bLeads).ForEach(func(k, v []byte) error {
			var l lodestone.Lead
			if err := decode(v, &l); err != nil {
				say("lead: %v", err)
				return nil
			}
			if string(l.Email) != string(k) {
				say("a lead's record stands under another address")
			}
			n := 0
			for i := range l.Enrollments {
				e := &l.Enrollments[i]
				if e.State == lodestone.EnrollmentActive {
					n++
					active[e.Sequence]++
					uses[e.Rules]++
				}
				if e.Touchpoint != nil {
					pendingBy[e.Sequence+"\x00"+e.Touchpoint.Step]++
				}
				if e.Parked != nil {
					pendingBy[e.Sequence+"\x00"+e.Parked.Step]++
				}
			}
			if n > 1 {
				say("a lead has %d active enrollments", n)
			}
			eachBraked(&l, func(e *lodestone.Enrollment) { braked[e.Sequence]++ })
			var places []string
			for _, key := range indexKeys(&l) {
				name := indexName(l.Email, key)
				if before {
					name = beforeSequences(name)
				}
				places = append(places, name)
			}
			slices.Sort(places)
			for _, name := range slices.Compact(places) {
				want.add(name)
			}
			for seq := l.Journal; seq != 0; {
				e, err := entry(journal, seq)
				if err != nil {
					say("%v", err)
					break
				}
				if e == nil {
					break
				}
				if e.Lead != l.Email || e.Prev >= seq {
					say("journal entry %d does not belong to the chain that names it", seq)
					break
				}
				seq = e.Prev
			}
			return nil
		}); err != nil {
			return err
		}
		due := tx.Bucket(bDue)
		if err := due.ForEachBucket(func(lane []byte) error {
			return due.Bucket(lane).ForEach(func(k, _ []byte) error {
				got.add(fmt.Sprintf("due %s %d %s", lane, binary.BigEndian.Uint64(k), k[8:]))
				return nil
			})
		}); err != nil {
			return err
		}
		if err := tx.Bucket(bIntents).ForEach(func(k, v []byte) error {
			p, err := decodePending(v)
			if err != nil {
				say("%v", err)
			}
			got.add(fmt.Sprintf("open %s %s %s %s", k, p.state, p.connector, p.email))
			return nil
		}); err != nil {
			return err
		}
		if want != got {
			say("the indexes hold %d touchpoints, the leads %d, and they are not the same", got.n, want.n)
		}
		checkBraked(tx, braked, say)
		// A file of an earlier version is counted when it is opened to work with.
		if counted := ruleUses(tx); tx.Bucket(bMeta).Get(kRulesCounted) != nil && !maps.Equal(uses, counted) {
			say("enrollments by version of the rule files are counted as %v, and the leads hold %v", counted, uses)
		}
		return balance(tx, pendingBy, active, say)
	})
	return faults, err
}

// names is a set of names, of which none is added twice: their number and the sum of their hashes, so that it
// takes no memory however many they are.
type names struct {
	n   int
	sum [4]uint64
}

func (s *names) add(name string) {
	h := sha256.Sum256([]byte(name))
	for i := range s.sum {
		s.sum[i] += binary.BigEndian.Uint64(h[8*i:])
	}
	s.n++
}

func indexName(email lodestone.Email, k indexKey) string {
	if k.state == lodestone.TouchpointScheduled {
		return fmt.Sprintf("due %s %d %s", laneName(k.connector, k.sequence), k.due, email)
	}
	return fmt.Sprintf("open %s %s %s %s", k.id, k.state, k.connector, email)
}

// beforeSequences is what an index held of a touchpoint in format 1.
func beforeSequences(name string) string {
	lane, rest, ok := strings.Cut(name, "\x00")
	if !ok {
		return name
	}
	_, key, _ := strings.Cut(rest, " ")
	return lane + " " + key
}

// balance checks guarantee 5: started = ended + active and scheduled = ended + pending, for each
// sequence and step, and that the days sum to the totals.
func balance(tx *bolt.Tx, pendingBy, active map[string]uint64, say func(string, ...any)) error {
	days, sums := map[string]uint64{}, map[string]uint64{}
	touch, enroll := map[string]int64{}, map[string]int64{}
	for k, n := range pendingBy {
		touch[k] -= int64(n)
	}
	for k, n := range active {
		enroll[k] -= int64(n)
	}
	err := tx.Bucket(bRollups).ForEach(func(k, v []byte) error {
		day, c, err := decodeRollup(k, v)
		if err != nil {
			return err
		}
		if day != 0 {
			days[string(k[4:])] += c.N
			return nil
		}
		sums[string(k[4:])] = c.N
		switch noun, what, _ := strings.Cut(c.What, "."); {
		case noun == "touchpoint" && what == "scheduled":
			touch[c.Sequence+"\x00"+c.Step] += int64(c.N)
		case noun == "touchpoint" && what == "reopened":
			// Counted as scheduled once more, beside the end that it had.
		case noun == "touchpoint":
			touch[c.Sequence+"\x00"+c.Step] -= int64(c.N)
		case noun == "enrollment" && what == "started":
			enroll[c.Sequence] += int64(c.N)
		case noun == "enrollment":
			enroll[c.Sequence] -= int64(c.N)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if !maps.Equal(days, sums) {
		say("the roll-up's days do not sum to its totals")
	}
	for k, n := range touch {
		if n != 0 {
			sequence, step, _ := strings.Cut(k, "\x00")
			say("touchpoints of %s.%s do not balance: scheduled is %+d against ended and pending", sequence, step, n)
		}
	}
	for k, n := range enroll {
		if n != 0 {
			say("enrollments of %s do not balance: started is %+d against ended and active", k, n)
		}
	}
	return nil
}
