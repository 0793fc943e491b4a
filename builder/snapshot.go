package builder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/kscratch/kscratch/layers/apt"
	"github.com/kscratch/kscratch/layers/cache"
)

// fetchDeb returns a package from the content store, the mirror, or, if that has
// it no more, the archive of snapshots.
func fetchDeb(ctx context.Context, s *Spec, l *Lock, p LockedPackage, o Options) (cache.Blob, error) {
	if b, ok := o.Store.Lookup(p.Digest); ok {
		return b, nil
	}
	m, err := mirror(s, o)
	if err != nil {
		return cache.Blob{}, err
	}
	b, err := m.Fetch(ctx, o.fetch(), o.Store, p.apt())
	if !errors.Is(err, fs.ErrNotExist) {
		return b, err
	}
	base := s.Base.Snapshot
	if base == "" {
		base = o.getenv(snapshotEnv)
	}
	if base == "" {
		return cache.Blob{}, fmt.Errorf("%w, or name an archive of Debian snapshots with base.snapshot in the cluster file or the environment variable %s", err, snapshotEnv)
	}
	for _, at := range snapshotTimes(l.Time, p) {
		old, oldErr := apt.Snapshot(base, at).Fetch(ctx, o.fetch(), o.Store, p.apt())
		if oldErr == nil {
			o.log().Info("got a package from a snapshot", "package", p.Name+"="+p.Version, "at", at.Format(time.RFC3339))
			return old, nil
		}
		err = oldErr
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return cache.Blob{}, fmt.Errorf("the mirror has it no more, and the archive of snapshots not either: %w", err)
}

// snapshotTimes returns the moments at which an archive of snapshots should
// have a package that was in an index of the time given, the likeliest first.
// The service keeps what it sees every six hours, and answers for the newest
// snapshot that is not after the moment asked for. One of half a day later has
// seen the index and what it names, for a mirror keeps superseded packages for
// longer than that.
func snapshotTimes(index time.Time, p LockedPackage) []time.Time {
	if !p.Index.IsZero() {
		index = p.Index
	}
	return []time.Time{index.Add(12 * time.Hour).UTC(), index.UTC()}
}

func (p LockedPackage) apt() apt.Package {
	return apt.Package{
		Name: p.Name, Version: p.Version, Arch: p.Arch, Archive: p.Archive,
		Source: p.Source, SourceVersion: p.SourceVersion, Filename: p.Path, Size: p.Size, Digest: p.Digest,
	}
}
