package cache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// WorkDir makes a directory in the store for work under way, whose name begins
// with prefix. Done removes it. A lock on it lets the store do so should the
// process be killed.
func (s *Store) WorkDir(prefix string) (dir string, done func() error, err error) {
	dir, err = os.MkdirTemp(filepath.Join(s.dir, "tmp"), prefix)
	if err != nil {
		return "", nil, fmt.Errorf("making a work directory: %w", err)
	}
	f, err := os.Open(dir)
	if err != nil {
		return "", nil, errors.Join(fmt.Errorf("making a work directory: %w", err), os.RemoveAll(dir))
	}
	done = func() error { return errors.Join(os.RemoveAll(dir), f.Close()) }
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return "", nil, errors.Join(fmt.Errorf("making a work directory: %w", err), done())
	}
	return dir, done, nil
}
