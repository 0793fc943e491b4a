package fakeworld

import (
	"context"
	"math/rand/v2"
	"path/filepath"

	"github.com/kscratch/kscratch/builder"
	"github.com/kscratch/kscratch/layers/cache"
	"github.com/kscratch/kscratch/test/aptfake"
)

// Disk makes a world in dir, which is the working directory of the process,
// and builds the raw disk of a master in it, with partitions smaller than a
// cluster file may ask for. It returns the path of the disk.
func Disk(ctx context.Context, dir string) (string, error) {
	if err := Write(ctx, dir); err != nil {
		return "", err
	}
	s, err := builder.Load(ClusterFile, false)
	if err != nil {
		return "", err
	}
	s.Disk.ESP, s.Disk.Root = 64, 64
	now := aptfake.Date.AddDate(0, 0, 1)
	if _, err := builder.EnsurePKI(s, dir, now, rand.NewChaCha8([32]byte{})); err != nil {
		return "", err
	}
	store, err := cache.Open(filepath.Join(dir, "cache"))
	if err != nil {
		return "", err
	}
	o := builder.Options{Dir: dir, Store: store, Now: now}
	l, err := builder.Resolve(ctx, s, o)
	if err != nil {
		return "", err
	}
	img, err := builder.Build(ctx, s, l, builder.Master, o)
	if err != nil {
		return "", err
	}
	_, err = builder.Pack(ctx, img, dir, o)
	return filepath.Join(dir, "master.raw"), err
}
