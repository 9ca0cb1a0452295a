package scoring

import (
	"slices"
	"strings"
)

// Closest returns the known word that was probably meant by word, "" when none is near. Case and
// the difference between "-", "_" and blank do not count; the first of equally near words in
// alphabetical order wins, so that messages do not change from run to run.
func Closest(word string, known []string) string {
	if len(word) > 64 {
		return ""
	}
	folded := foldWord(word)
	best, distance := "", 1+max(1, len(folded)/3) // a third of the letters may differ
	for _, k := range slices.Sorted(slices.Values(known)) {
		if len(k) > 64 {
			continue
		}
		if d := editDistance(folded, foldWord(k)); d < distance {
			best, distance = k, d
		}
	}
	return best
}

// didYouMean is the end of a message about an unknown word: a suggestion, or what is known.
func didYouMean(word string, known []string) string {
	if c := Closest(word, known); c != "" {
		return "; did you mean " + c + "?"
	}
	return known1(known)
}

// known1 lists what is known, as far as that helps.
func known1(known []string) string {
	switch n := len(known); {
	case n == 0:
		return ""
	case n > 16:
		known = append(slices.Clone(known[:16]), "…")
	}
	return "; known: " + strings.Join(known, ", ")
}

func foldWord(s string) string {
	return strings.NewReplacer("-", "_", " ", "_").Replace(strings.ToLower(s))
}

// editDistance counts the letters to insert, delete, replace or swap with their neighbour (optimal
// string alignment). It works on bytes; names are ASCII.
func editDistance(a, b string) int {
	var before []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next := make([]int, len(b)+1)
		next[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next[j+1] = min(row[j]+cost, row[j+1]+1, next[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
