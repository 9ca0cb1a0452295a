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
	gone  int // rows that were dropped
}

// stored is something that was made, with when it begins to show in reads.
type stored[T any] struct {
	v      T
	since  time.Time
	hidden bool
	gone   bool // it was dropped, and only its place is left
}

func (s stored[T]) shows(now time.Time) bool { return !s.gone && !s.hidden && !now.Before(s.since) }

func newTable[T any](keys func(T) []string) *table[T] {
	return &table[T]{index: map[string][]int{}, keys: keys}
}

func (t *table[T]) add(row stored[T]) {
	for _, k := range t.keys(row.v) {
		t.index[k] = append(t.index[k], len(t.rows))
	}
	t.rows = append(t.rows, row)
}

// at gives the positions of the rows that have any of the keys, oldest first. They hold until the next
// row is dropped.
func (t *table[T]) at(keys ...string) []int {
	var at []int
	for _, k := range keys {
		at = append(at, t.index[k]...)
	}
	slices.Sort(at)
	return slices.Compact(at)
}

// set changes the row at a position.
func (t *table[T]) set(at int, v T) {
	t.unlist(at)
	t.rows[at].v = v
	for _, k := range t.keys(v) {
		i, _ := slices.BinarySearch(t.index[k], at)
		t.index[k] = slices.Insert(t.index[k], i, at)
	}
}

// drop forgets the row at a position. Its place is given up once most places are empty.
func (t *table[T]) drop(at int) {
	t.unlist(at)
	t.rows[at] = stored[T]{gone: true}
	if t.gone++; t.gone <= len(t.rows)/2 {
		return
	}
	rows := t.rows
	t.rows, t.gone, t.index = nil, 0, map[string][]int{}
	for _, row := range rows {
		if !row.gone {
			t.add(row)
		}
	}
}

// unlist takes a row out of the index.
func (t *table[T]) unlist(at int) {
	for _, k := range t.keys(t.rows[at].v) {
		if i, ok := slices.BinarySearch(t.index[k], at); ok {
			if t.index[k] = slices.Delete(t.index[k], i, i+1); len(t.index[k]) == 0 {
				delete(t.index, k)
			}
		}
	}
}

// len counts the rows.
func (t *table[T]) len() int { return len(t.rows) - t.gone }

// find gives the rows that have any of the keys, oldest first.
func (t *table[T]) find(keys ...string) []stored[T] {
	at := t.at(keys...)
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
