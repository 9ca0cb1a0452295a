package sequencer

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/rules"
)

// SequenceVariant is the variant of a sequence that a lead gets, empty where it has none:
// [rules.VariantHoldout] for the share that is never contacted.
func SequenceVariant(email lodestone.Email, s *rules.Sequence) string {
	if s.Holdout > 0 && draw(string(email), s.Name, "", rules.VariantHoldout) < s.Holdout {
		return rules.VariantHoldout
	}
	return choose(s.Variants, string(email), s.Name, "")
}

// StepVariant is the variant of a step that a lead gets, empty where it has none.
func StepVariant(email lodestone.Email, s *rules.Sequence, step *rules.Step) string {
	return choose(step.Variants, string(email), s.Name, step.Name)
}

// choose draws a variant by weighted rendezvous hashing (Schindelhauer and Schomaker, "Weighted distributed
// hash tables", 2005): each variant draws a number of its own for the lead and the best wins, so that of
// two variants' weights only the proportion counts, and a change of one weight, or one more variant, moves
// nobody between the others.
func choose(variants []rules.Variant, email, sequence, step string) (name string) {
	best := math.Inf(1)
	for i := range variants {
		v := &variants[i]
		if v.Weight == 0 {
			continue
		}
		if x := -math.Log(draw(email, sequence, step, v.Name)) / float64(v.Weight); x < best {
			best, name = x, v.Name
		}
	}
	return name
}

// draw is a number evenly between 0 and 1, both excluded, that depends on its arguments alone.
func draw(email, sequence, step, variant string) float64 {
	h := sha256.New()
	for _, s := range []string{email, sequence, step, variant} {
		fmt.Fprintf(h, "%d:%s", len(s), s)
	}
	return (float64(binary.BigEndian.Uint64(h.Sum(nil))>>11) + 0.5) / (1 << 53)
}

// variantOf names the variants of a touchpoint: its sequence's, its step's, or both. To the holdout a step's
// makes no difference.
func variantOf(e *lodestone.Enrollment, t *lodestone.Touchpoint) string {
	if e.Variant == rules.VariantHoldout {
		return e.Variant
	}
	if e.Variant != "" && t.Variant != "" {
		return e.Variant + "/" + t.Variant
	}
	return e.Variant + t.Variant
}

// FreeSlot says when a lead may be contacted next. full is the cap that stands in the way the longest, nil
// when none does and free is now. contacts are in the order of time.
func FreeSlot(contacts []time.Time, caps []rules.Cap, now time.Time) (free time.Time, full *rules.Cap) {
	free = now
	for i := range caps {
		c := &caps[i]
		n := len(contacts) - c.Max
		if n < 0 {
			continue
		}
		// With the last Max contacts in the period it is full; the oldest of these leaves it first.
		if at := contacts[n].Add(c.Per); at.After(free) {
			free, full = at, c
		}
	}
	return free, full
}

// keepContacts is how long contacts are remembered at least, so that a cap that is new counts what was
// before it.
const keepContacts = 31 * 24 * time.Hour

// contact remembers what a cap counts: an intent, for as long as it may have been sent. What provably did
// not happen is forgotten again.
func (p *planner) contact(t *lodestone.Touchpoint, to lodestone.TouchpointState) {
	l := p.lead
	if to == lodestone.TouchpointSent && t.Intended.IsZero() {
		to = lodestone.TouchpointIntended // it was sent before the store was restored; the intent is not in it
	}
	switch to {
	case lodestone.TouchpointIntended:
		keep, most := keepContacts, 64
		for _, c := range p.book.current.Caps {
			keep, most = max(keep, c.Per), max(most, c.Max)
		}
		list := make([]time.Time, 0, len(l.Contacts)+1)
		for _, at := range l.Contacts {
			if p.now.Sub(at) < keep {
				list = append(list, at)
			}
		}
		i, _ := slices.BinarySearchFunc(list, p.now, time.Time.Compare)
		list = slices.Insert(list, i, p.now)
		l.Contacts = list[max(0, len(list)-most):]
	case lodestone.TouchpointScheduled, lodestone.TouchpointFailed:
		if t.Intended.IsZero() {
			return
		}
		if i := slices.IndexFunc(l.Contacts, t.Intended.Equal); i >= 0 {
			l.Contacts = slices.Delete(slices.Clone(l.Contacts), i, i+1)
		}
	}
}
