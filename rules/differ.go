package rules

import (
	"fmt"
	"reflect"
	"strings"
)

// Differences names what is different between two versions of a sequence, in words, one line each. renamed
// are steps that have another name in the newer one: old to new.
func Differences(older, newer *Sequence, renamed map[string]string) (lines []string) {
	a, b := canonicalOf(older), canonicalOf(newer)
	seen := map[string]bool{}
	for i := range a.Steps {
		was := a.Steps[i]
		name := was.Name
		if to := renamed[name]; to != "" {
			name = to
		}
		j := newer.Step(name)
		switch {
		case j < 0:
			lines = append(lines, fmt.Sprintf("step %s is no more", was.Name))
			continue
		case name != was.Name:
			lines = append(lines, fmt.Sprintf("step %s is named %s", was.Name, name))
		}
		seen[name] = true
		is := b.Steps[j]
		was.Name = is.Name
		if !reflect.DeepEqual(was, is) {
			lines = append(lines, fmt.Sprintf("step %s is another: %s", name, differing(was, is)))
		}
		if j != i {
			lines = append(lines, fmt.Sprintf("step %s is number %d, was %d", name, j+1, i+1))
		}
	}
	for _, s := range b.Steps {
		if !seen[s.Name] {
			lines = append(lines, fmt.Sprintf("step %s is new", s.Name))
		}
	}
	a.Steps, b.Steps = nil, nil
	if !reflect.DeepEqual(a, b) {
		lines = append(lines, "the sequence itself is another: "+differing(a, b))
	}
	return lines
}

// differing names the keys in which two canonical forms differ.
func differing(a, b any) (keys string) {
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	for i := range x.NumField() {
		if !reflect.DeepEqual(x.Field(i).Interface(), y.Field(i).Interface()) {
			if keys != "" {
				keys += ", "
			}
			name, _, _ := strings.Cut(x.Type().Field(i).Tag.Get("json"), ",")
			keys += name
		}
	}
	return keys
}
