package sandbox

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// A table answers like a plain list, whatever is added, changed and dropped.
func TestTableAgreesWithAList(t *testing.T) {
	seed := time.Now().UnixNano()
	rng := rand.New(rand.NewPCG(uint64(seed), 1))
	type row struct{ id, group string }
	tab := newTable(func(r row) []string { return keys(key("id", &r.id), key("group", &r.group)) })
	var plain []row
	for i := range 5000 {
		group := fmt.Sprint(rng.IntN(5))
		switch n := rng.IntN(10); {
		case n < 4 || len(plain) == 0:
			r := row{fmt.Sprint(i), group}
			tab.add(stored[row]{v: r})
			plain = append(plain, r)
		case n < 7:
			at := rng.IntN(len(plain))
			plain[at].group = group
			tab.set(tab.at(key("id", &plain[at].id))[0], plain[at])
		default:
			at := rng.IntN(len(plain))
			tab.drop(tab.at(key("id", &plain[at].id))[0])
			plain = slices.Delete(plain, at, at+1)
		}
		var want, got []row
		for _, r := range plain {
			if r.group == group {
				want = append(want, r)
			}
		}
		for _, s := range tab.find(key("group", &group)) {
			got = append(got, s.v)
		}
		if !slices.Equal(got, want) || tab.len() != len(plain) {
			t.Fatalf("seed %d, step %d: group %s has %v of %d, want %v of %d", seed, i, group, got, tab.len(), want, len(plain))
		}
	}
	if len(tab.rows) > 2*tab.len()+1 {
		t.Errorf("%d places for %d rows", len(tab.rows), tab.len())
	}
}
