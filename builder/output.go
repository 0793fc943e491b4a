package builder

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kscratch/kscratch/layers"
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
		left := slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(e.Name(), "."+name+".") })
		if !left || !e.Type().IsRegular() {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return &OutputError{dir, err}
		}
	}
	return nil
}

// output is a file on its way into a directory: it has a temporary name until
// it is kept.
type output struct {
	*os.File
	dir, name string
	digest    layers.Digest // if it is known without reading
}

func newOutput(dir, name string) (*output, error) {
	f, err := os.CreateTemp(dir, "."+name+".*")
	if err != nil {
		return nil, &OutputError{name, err}
	}
	return &output{File: f, dir: dir, name: name}, nil
}

// seal closes the file once all of it is on the disk, which it waits for while
// it computes the digest. Images hold secrets: only their owner may read them.
func (f *output) seal(ctx context.Context, name string, o Options) (Artifact, error) {
	if f.digest != "" {
		st, err := f.Stat()
		if err := errors.Join(err, f.Sync(), f.Chmod(0o600), f.Close()); err != nil {
			return Artifact{}, err
		}
		return Artifact{Name: name, Size: st.Size(), Digest: f.digest}, nil
	}
	synced := make(chan error, 1)
	go func() { synced <- f.Sync() }()
	a, err := hashed(ctx, f.File, name, o)
	return a, errors.Join(err, <-synced, f.Chmod(0o600), f.Close())
}

// keep gives the file its name.
func (f *output) keep() error {
	if err := os.Rename(f.Name(), filepath.Join(f.dir, f.name)); err != nil {
		return &OutputError{f.name, err}
	}
	return nil
}

// drop removes the file, unless it was kept.
func (f *output) drop() {
	f.Close()
	os.Remove(f.Name())
}
