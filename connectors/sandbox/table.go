package sandbox

import (
	"slices"
	"strings"
	"time"
)

// table keeps rows in the order in which they were made, findable by their keys, so that a sandbox
// with many thousand members answers as fast as a new one. It is not safe for concurrent use.
type table[T any] struct {
	rows  []stored[T]
	index map[string][]int // positions by key, ascending
	keys  func(T) []string
}

// stored is something that was made, with when it begins to show in reads.
type stored[T any] struct {
	v      T
	since  time.Time
	hidden bool
}

func (s stored[T]) shows(now time.Time) bool { return !s.hidden && !now.Before(s.since) }

func newTable[T any](keys func(T) []string) *table[T] {
	return &table[T]{index: map[string][]int{}, keys: keys}
}

func (t *table[T]) add(row stored[T]) {
	for _, k := range t.keys(row.v) {
		t.index[k] = append(t.index[k], len(t.rows))
	}
	t.rows = append(t.rows, row)
}

// find gives the rows that have any of the keys, oldest first.
func (t *table[T]) find(keys ...string) []stored[T] {
	var at []int
	for _, k := range keys {
		at = append(at, t.index[k]...)
	}
	slices.Sort(at)
	at = slices.Compact(at)
	rows := make([]stored[T], 0, len(at))
	for _, i := range at {
		rows = append(rows, t.rows[i])
	}
	return rows
}

// key makes a key of a field and its value, without regard to case; a missing value has none.
func key(field string, value *string) string {
	if value == nil || *value == "" {
		return ""
	}
	return field + ":" + strings.ToLower(*value)
}

// keys makes the list of the keys that there are.
func keys(all ...string) []string {
	return slices.DeleteFunc(all, func(k string) bool { return k == "" })
}
