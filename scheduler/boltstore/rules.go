package boltstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/lodestonehq/lodestone"
)

// The versions of the rule files that decisions may still need. Beside the files of each, meta counts the
// active enrollments that began with it, in the transaction that changes them, and says until when a version
// was the one in force.
//
//	rules/current         the version that new decisions were last made with
//	rules/use/<version>   active enrollments that began with it; no key: none
//	rules/until/<version> when another one took its place, in nanoseconds
//	rules/counted         the counts are kept; a file of an earlier version is counted once, when it is opened
var (
	kCurrentRules = []byte("rules/current")
	kRulesCounted = []byte("rules/counted")
)

const (
	rulesUse   = "rules/use/"
	rulesUntil = "rules/until/"
)

// RuleFile is one stored rule file.
type RuleFile struct {
	Name string
	Data []byte
}

// PutRules keeps the files of a version, so that enrollments that began with it can end with it, and
// makes it the last good one.
func (s *Store) PutRules(_ context.Context, version string, files []RuleFile) error {
	v, err := json.Marshal(files)
	if err != nil {
		return err
	}
	return s.update(func(tx *bolt.Tx) error {
		meta := tx.Bucket(bMeta)
		if b := tx.Bucket(bRules); b.Get([]byte(version)) == nil {
			if err := b.Put([]byte(version), v); err != nil {
				return err
			}
		}
		if was := meta.Get(kCurrentRules); len(was) > 0 && string(was) != version {
			if err := meta.Put(append([]byte(rulesUntil), was...), nanoKey(nil, time.Now().UnixNano())); err != nil {
				return err
			}
		}
		if err := meta.Delete([]byte(rulesUntil + version)); err != nil {
			return err
		}
		return meta.Put(kCurrentRules, []byte(version))
	})
}

// CurrentRules returns which version of the rule files was the last good one, empty when there is none.
func (s *Store) CurrentRules(context.Context) (version string, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		version = string(tx.Bucket(bMeta).Get(kCurrentRules))
		return nil
	})
	return version, err
}

// Rules returns the rule files of a version, nil when it is not kept.
func (s *Store) Rules(_ context.Context, version string) (files []RuleFile, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		v := tx.Bucket(bRules).Get([]byte(version))
		if v == nil {
			return nil
		}
		if err := json.Unmarshal(v, &files); err != nil {
			return fmt.Errorf("%w: rule files of version %s", ErrNotAStore, version)
		}
		return nil
	})
	return files, err
}

// RuleVersion is one version of the rule files that the store keeps.
type RuleVersion struct {
	Version string
	Current bool
	Active  uint64    // enrollments that began with it and run
	Until   time.Time // when another one took its place; zero for the current one
}

// RuleVersions lists the versions that are kept.
func (s *Store) RuleVersions(context.Context) (list []RuleVersion, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		meta := tx.Bucket(bMeta)
		current := string(meta.Get(kCurrentRules))
		return tx.Bucket(bRules).ForEach(func(k, _ []byte) error {
			v := RuleVersion{Version: string(k), Current: string(k) == current}
			if n := meta.Get([]byte(rulesUse + string(k))); len(n) == 8 {
				v.Active = binary.BigEndian.Uint64(n)
			}
			if at := meta.Get([]byte(rulesUntil + string(k))); len(at) == 8 {
				v.Until = keyTime(at)
			}
			list = append(list, v)
			return nil
		})
	})
	return list, err
}

// DropRules forgets the versions that no active enrollment began with and that were last in force before a
// moment: until then journal entries that are still kept may name them. It returns how many it dropped.
func (s *Store) DropRules(_ context.Context, before time.Time) (n int, err error) {
	err = s.update(func(tx *bolt.Tx) error {
		n = 0
		meta, kept := tx.Bucket(bMeta), tx.Bucket(bRules)
		current := string(meta.Get(kCurrentRules))
		var drop []string
		var undated [][]byte
		if err := kept.ForEach(func(k, _ []byte) error {
			if string(k) == current || meta.Get([]byte(rulesUse+string(k))) != nil {
				return nil
			}
			switch at := meta.Get([]byte(rulesUntil + string(k))); {
			case len(at) != 8: // of an earlier version of this program: it counts from now
				undated = append(undated, append([]byte(rulesUntil), k...))
			case keyTime(at).Before(before):
				drop = append(drop, string(k))
			}
			return nil
		}); err != nil {
			return err
		}
		for _, k := range undated {
			if err := meta.Put(k, nanoKey(nil, time.Now().UnixNano())); err != nil {
				return err
			}
		}
		for _, version := range drop {
			if err := kept.Delete([]byte(version)); err != nil {
				return err
			}
			if err := meta.Delete([]byte(rulesUntil + version)); err != nil {
				return err
			}
			n++
		}
		return nil
	})
	return n, err
}

// countRules brings the counts by version in line with a lead that changes.
func (t *txn) countRules(old, lead *lodestone.Lead) {
	for i, l := range [...]*lodestone.Lead{old, lead} {
		if l == nil {
			continue
		}
		by := int64(2*i - 1)
		for i := range l.Enrollments {
			if e := &l.Enrollments[i]; e.State == lodestone.EnrollmentActive {
				t.uses[e.Rules] += by
			}
		}
	}
}

// putRuleUses writes the counts that changed.
func (t *txn) putRuleUses() error {
	meta := t.tx.Bucket(bMeta)
	for version, by := range t.uses {
		if by == 0 {
			continue
		}
		key := []byte(rulesUse + version)
		n := by
		if v := meta.Get(key); len(v) == 8 {
			n += int64(binary.BigEndian.Uint64(v))
		}
		if n <= 0 {
			if err := meta.Delete(key); err != nil {
				return err
			}
			continue
		}
		if err := meta.Put(key, binary.BigEndian.AppendUint64(nil, uint64(n))); err != nil {
			return err
		}
	}
	return nil
}

func ruleUses(tx *bolt.Tx) map[string]uint64 {
	uses := map[string]uint64{}
	c := tx.Bucket(bMeta).Cursor()
	for k, v := c.Seek([]byte(rulesUse)); bytes.HasPrefix(k, []byte(rulesUse)); k, v = c.Next() {
		if len(v) == 8 {
			uses[string(k[len(rulesUse):])] = binary.BigEndian.Uint64(v)
		}
	}
	return uses
}

// countAllRules counts the enrollments of a file that was written before they were counted.
func (s *Store) countAllRules() error {
	counted := false
	if err := s.view(func(tx *bolt.Tx) error {
		counted = tx.Bucket(bMeta).Get(kRulesCounted) != nil
		return nil
	}); err != nil || counted {
		return err
	}
	return s.update(func(tx *bolt.Tx) error {
		t := newTxn(tx)
		for version, n := range ruleUses(tx) {
			t.uses[version] -= int64(n)
		}
		if err := tx.Bucket(bLeads).ForEach(func(_, v []byte) error {
			var l lodestone.Lead
			if err := decode(v, &l); err != nil {
				return fmt.Errorf("a lead's record: %w", err)
			}
			t.countRules(nil, &l)
			return nil
		}); err != nil {
			return err
		}
		if err := t.putRuleUses(); err != nil {
			return err
		}
		return tx.Bucket(bMeta).Put(kRulesCounted, []byte{1})
	})
}
