package fakeworld

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/kscratch/kscratch/builder"
	"github.com/kscratch/kscratch/layers/cache"
	"github.com/kscratch/kscratch/test/aptfake"
)

// Disk makes a world in a new working directory for a test, and returns the raw
// disk of a master in it, open for reading. Its partitions are smaller than a
// cluster file may ask for.
func Disk(t testing.TB) *os.File {
	t.Helper()
	dir := t.TempDir()
	t.Chdir(dir)
	path, err := master(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func master(ctx context.Context, dir string) (string, error) {
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
