package builder

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lockOutput makes the caller the only one at work on a directory, and waits
// for its turn while ctx lasts. The lock ends with the process that holds it.
func lockOutput(ctx context.Context, dir string, o Options) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, &OutputError{dir, err}
	}
	for waits := 0; ; waits++ {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, &OutputError{dir, errors.Join(err, f.Close())}
		}
		if waits == 0 {
			o.log().Info("waiting for another build", "directory", dir)
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// sweepOutput removes what builds that were killed have left of files in a
// directory that is locked.
func sweepOutput(dir string, names ...string) error {
	there, err := os.ReadDir(dir)
	if err != nil {
		return &OutputError{dir, err}
	}
	for _, e := range there {
		for _, name := range names {
			if !strings.HasPrefix(e.Name(), "."+name+".") || !e.Type().IsRegular() {
				continue
			}
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return &OutputError{dir, err}
			}
		}
	}
	return nil
}
