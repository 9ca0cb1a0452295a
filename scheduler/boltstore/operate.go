package boltstore

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/scheduler"
	"github.com/lodestonehq/lodestone/sequencer"
)

// What operators' commands read and change beside what [Store.Commit] does.

// SetPaused pauses a scope, or takes the pause back when p is nil, and puts word on record with it; nil:
// nothing.
func (s *Store) SetPaused(_ context.Context, scope string, p *scheduler.Pause, word *lodestone.Entry) error {
	return s.update(func(tx *bolt.Tx) error {
		key := []byte(pausedPrefix + scope)
		if p == nil {
			if err := tx.Bucket(bMeta).Delete(key); err != nil {
				return err
			}
		} else {
			v, err := json.Marshal(p)
			if err != nil {
				return err
			}
			if err := tx.Bucket(bMeta).Put(key, v); err != nil {
				return err
			}
		}
		return record(tx, word)
	})
}

// Record puts an entry on record that belongs to no lead.
func (s *Store) Record(_ context.Context, e *lodestone.Entry) error {
	return s.update(func(tx *bolt.Tx) error { return record(tx, e) })
}

func record(tx *bolt.Tx, e *lodestone.Entry) error {
	if e == nil {
		return nil
	}
	t := newTxn(tx)
	if err := t.append(e, nil); err != nil {
		return err
	}
	return t.finish()
}

// Item returns one attention item, nil when there is none of that key.
func (s *Store) Item(_ context.Context, key sequencer.ItemKey) (item *lodestone.Attention, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		_, item, err = findItem(tx.Bucket(bAttention), key)
		return err
	})
	return item, err
}

// ItemsOf returns the attention items of one id, of any kind, at most 100.
func (s *Store) ItemsOf(_ context.Context, id string) (items []lodestone.Attention, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		c := tx.Bucket(bAttention).Cursor()
		for _, kind := range attentionOrder {
			prefix := attentionKey(kind, id, 0)
			size := len(prefix)
			prefix = prefix[:size-8]
			for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix) && len(items) < 100; k, v = c.Next() {
				if len(k) != size {
					continue
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
	return items, err
}

// Rejected returns submissions and signals under attention, beginning after a position, at most limit. They
// come in the order of their ids; next is the position of the last one, "" at the end.
func (s *Store) Rejected(_ context.Context, after string, limit int) (items []lodestone.Attention, next string, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		prefix := append([]byte(lodestone.AttentionSubmission), 0)
		c := tx.Bucket(bAttention).Cursor()
		k, v := c.Seek(prefix)
		if after != "" {
			if k, v = c.Seek([]byte(after)); string(k) == after {
				k, v = c.Next()
			}
		}
		for ; bytes.HasPrefix(k, prefix); k, v = c.Next() {
			if len(items) == limit {
				return nil
			}
			var a lodestone.Attention
			if err := decode(v, &a); err != nil {
				return fmt.Errorf("an attention item: %w", err)
			}
			items = append(items, a)
			next = string(k)
		}
		next = ""
		return nil
	})
	return items, next, err
}

// Whose returns the address of the lead that a touchpoint belongs or belonged to, "" when none is known. One
// whose outcome is open is found at once; another by going back through the journal, newest first, and, where
// that was pruned, through what waits.
func (s *Store) Whose(ctx context.Context, id string) (email lodestone.Email, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		if v := tx.Bucket(bIntents).Get([]byte(id)); v != nil {
			p, err := decodePending(v)
			email = p.email
			return err
		}
		c := tx.Bucket(bJournal).Cursor()
		n := 0
		for k, v := c.Last(); k != nil && n < maxSought; k, v = c.Prev() {
			n++
			if may, err := holds(v, id); err != nil {
				return fmt.Errorf("a journal entry: %w", err)
			} else if !may {
				continue
			}
			var e lodestone.Entry
			if err := decode(v, &e); err != nil {
				return fmt.Errorf("a journal entry: %w", err)
			}
			if slices.ContainsFunc(e.Touchpoints, func(t lodestone.TouchpointEntry) bool { return t.ID == id }) {
				email = e.Lead
				return nil
			}
		}
		return nil
	})
	if err != nil || email != "" {
		return email, err
	}
	_, err = s.Waiting(ctx, "", "", time.Unix(1<<33, 0), func(r Row) bool {
		if r.ID == id {
			email = r.Email
		}
		return email == ""
	})
	return email, err
}

// maxSought bounds the search for a touchpoint of which only the id is known: a few seconds' worth.
const maxSought = 5_000_000

// Ended returns touchpoints that ended in a state, newest first, at most limit, from the newest entries of
// the journal; DueAt is when they ended.
func (s *Store) Ended(_ context.Context, state lodestone.TouchpointState, limit int) (rows []Row, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		seen := map[string]bool{}
		c := tx.Bucket(bJournal).Cursor()
		n := 0
		for k, v := c.Last(); k != nil && len(rows) < limit && n < maxSought; k, v = c.Prev() {
			n++
			if may, err := holds(v, string(state), string(lodestone.ReasonReopened)); err != nil {
				return fmt.Errorf("a journal entry: %w", err)
			} else if !may {
				continue
			}
			var e lodestone.Entry
			if err := decode(v, &e); err != nil {
				return fmt.Errorf("a journal entry: %w", err)
			}
			for i := len(e.Touchpoints) - 1; i >= 0 && len(rows) < limit; i-- {
				t := &e.Touchpoints[i]
				if t.ID == "" || seen[t.ID] {
					continue // its person was erased; or it was tried again since
				}
				seen[t.ID] = true
				if t.State == state {
					connector, operation := lodestone.SplitOperation(t.Operation)
					rows = append(rows, Row{lodestone.Touchpoint{
						ID: t.ID, Step: t.Step, Connector: connector, Operation: operation, State: t.State, Reason: t.Reason, DueAt: e.At,
					}, e.Lead, t.Sequence})
				}
			}
		}
		return nil
	})
	return rows, err
}

// Leads returns leads in the order of their addresses, beginning after one, at most limit. next is the address
// of the last one, "" at the end.
func (s *Store) Leads(_ context.Context, after lodestone.Email, limit int) (leads []*lodestone.Lead, next lodestone.Email, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		c := tx.Bucket(bLeads).Cursor()
		k, v := c.Seek([]byte(after))
		if after != "" && string(k) == string(after) {
			k, v = c.Next()
		}
		for ; k != nil; k, v = c.Next() {
			if len(leads) == limit {
				next = leads[limit-1].Email
				return nil
			}
			l := new(lodestone.Lead)
			if err := decode(v, l); err != nil {
				return fmt.Errorf("a lead's record: %w", err)
			}
			leads = append(leads, l)
		}
		return nil
	})
	return leads, next, err
}
