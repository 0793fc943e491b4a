package cache_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kscratch/kscratch/layers/cache"
)

// TestValue: computed once for a key, and not remembered if that failed.
func TestValue(t *testing.T) {
	s, err := cache.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	calls, fail := 0, errors.New("no power")
	get := func(key string) (map[string]int, error) {
		return cache.Value(t.Context(), s, "sums", key, func(context.Context) (map[string]int, error) {
			calls++
			return map[string]int{key: calls}, fail
		})
	}
	if _, err := get("a"); !errors.Is(err, fail) {
		t.Errorf("got %v, want %v", err, fail)
	}
	fail = nil
	for _, tt := range []struct {
		key  string
		want map[string]int
	}{{"a", map[string]int{"a": 2}}, {"a", map[string]int{"a": 2}}, {"b", map[string]int{"b": 3}}} {
		got, err := get(tt.key)
		if d := cmp.Diff(tt.want, got); err != nil || d != "" {
			t.Errorf("%s: %v %s", tt.key, err, d)
		}
	}
}
