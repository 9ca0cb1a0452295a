package boltstore

import (
	"context"
	"fmt"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/lodestonehq/lodestone"
	"github.com/lodestonehq/lodestone/sequencer"
)

// TestRuleVersionsLiveAsLongAsTheyAreNeeded keeps a version while an enrollment runs on it, and after that for as
// long as the journal may name it.
func TestRuleVersionsLiveAsLongAsTheyAreNeeded(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	s := open(t, dir)
	put := func(version string) {
		t.Helper()
		if err := s.PutRules(ctx, version, []RuleFile{{"a.yaml", []byte(version)}}); err != nil {
			t.Fatal(err)
		}
	}
	set := func(email lodestone.Email, version string, state lodestone.EnrollmentState) {
		t.Helper()
		commit(t, s, sequencer.Batch{Writes: []sequencer.Write{{Email: email, Plan: func(st sequencer.State) (sequencer.Change, error) {
			l := lodestone.Lead{Email: email}
			entry := &lodestone.Entry{Lead: email, At: start, Enrollments: []lodestone.EnrollmentEntry{{ID: "e", Sequence: "s", State: state}}}
			if st.Lead != nil {
				l = *st.Lead
			}
			l.Enrollments = []lodestone.Enrollment{{ID: "e", Sequence: "s", Rules: version, State: state}}
			return sequencer.Change{Lead: &l, Entry: entry}, nil
		}}}})
	}
	kept := func() string {
		t.Helper()
		list, err := s.RuleVersions(ctx)
		if err != nil {
			t.Fatal(err)
		}
		text := ""
		for _, v := range list {
			text += fmt.Sprintf("%s:%d ", v.Version, v.Active)
		}
		if faults, err := s.Check(ctx); err != nil || len(faults) > 0 {
			t.Error(faults, err)
		}
		return text
	}
	drop := func(before time.Time) {
		t.Helper()
		if _, err := s.DropRules(ctx, before); err != nil {
			t.Fatal(err)
		}
	}
	put("v1")
	set("a@example.com", "v1", lodestone.EnrollmentActive)
	set("b@example.com", "v1", lodestone.EnrollmentActive)
	put("v2")
	drop(time.Now().Add(time.Hour))
	if got, want := kept(), "v1:2 v2:0 "; got != want {
		t.Errorf("with two on it: %s, want %s", got, want)
	}
	set("a@example.com", "v1", lodestone.EnrollmentCompleted)
	s.Close()
	s = open(t, dir)
	if got, want := kept(), "v1:1 v2:0 "; got != want {
		t.Errorf("with one on it: %s, want %s", got, want)
	}
	// A file of an earlier version of the program has no counts: it is counted once.
	if err := s.update(func(tx *bolt.Tx) error {
		if err := tx.Bucket(bMeta).Delete([]byte(rulesUse + "v1")); err != nil {
			return err
		}
		return tx.Bucket(bMeta).Delete(kRulesCounted)
	}); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = open(t, dir)
	if got, want := kept(), "v1:1 v2:0 "; got != want {
		t.Errorf("counted anew: %s, want %s", got, want)
	}
	set("b@example.com", "v1", lodestone.EnrollmentCompleted)
	drop(time.Now().Add(-time.Hour)) // the journal may still name it
	if got, want := kept(), "v1:0 v2:0 "; got != want {
		t.Errorf("just ended: %s, want %s", got, want)
	}
	drop(time.Now().Add(time.Hour))
	if got, want := kept(), "v2:0 "; got != want {
		t.Errorf("past the journal: %s, want %s", got, want)
	}
}
