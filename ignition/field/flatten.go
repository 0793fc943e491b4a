package field

import (
	"cmp"
	"fmt"
	"slices"
)

// Flatten puts the scalars of a value into a map by their paths, below the path
// at. Empty maps and lists, and nil, are left out.
func Flatten(into map[string]string, at string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			Flatten(into, Join(at, k), e)
		}
	case []any:
		for n, e := range v {
			Flatten(into, Index(at, n), e)
		}
	case nil:
	default:
		into[at] = fmt.Sprint(v)
	}
}

// Change is one difference between two sets of values. What is new has no old
// value, what is gone no new one.
type Change struct {
	Name string `json:"name"`
	Old  string `json:"old,omitempty"`
	New  string `json:"new,omitempty"`
}

// Changes returns how now differs from old, sorted by name.
func Changes(old, now map[string]string) []Change {
	var out []Change
	for name, was := range old {
		if is, ok := now[name]; !ok || is != was {
			out = append(out, Change{name, was, is})
		}
	}
	for name, is := range now {
		if _, ok := old[name]; !ok {
			out = append(out, Change{Name: name, New: is})
		}
	}
	slices.SortFunc(out, func(a, b Change) int { return cmp.Compare(a.Name, b.Name) })
	return out
}
