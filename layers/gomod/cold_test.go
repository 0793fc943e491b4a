//go:build foreign

package gomod

import "testing"

// Compiled from nothing, standard library included, the bytes are the same.
func TestBuildIsReproducibleFromNothing(t *testing.T) {
	if a, b := digests(t, t.TempDir()), digests(t, t.TempDir()); a != b {
		t.Errorf("two builds differ:\n%s\n%s", a, b)
	}
}
