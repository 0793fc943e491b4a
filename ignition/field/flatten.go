package field

import "fmt"

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
