// Package userstore opens the content store of whoever runs a test, for tests
// that need what takes minutes to build.
package userstore

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/kscratch/kscratch/layers/cache"
)

// Open returns the store that KSCRATCH_CACHE names, kscratch's own if empty.
func Open() (*cache.Store, error) {
	dir := os.Getenv("KSCRATCH_CACHE")
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("finding the content store: %w", err)
		}
		dir = filepath.Join(user, "kscratch")
	}
	return cache.Open(dir)
}
