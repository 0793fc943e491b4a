package builder

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/kscratch/kscratch/layers/kubernetes"
)

// BuildTarball builds Kubernetes' server tarball of a version from Go modules
// and writes it to path, whole or not at all.
func BuildTarball(ctx context.Context, version, path string, o Options) (Artifact, error) {
	sources, err := kubernetes.Sources(o.Store, []string{"modules"}, kubernetes.Options{Go: goOptions(o), Log: o.log()})
	if err != nil {
		return Artifact{}, err
	}
	t, err := kubernetes.Get(ctx, version, o.log(), sources...)
	if err != nil {
		return Artifact{}, &InputError{What: "building Kubernetes " + version, Err: err}
	}
	in, err := t.Blob.Open()
	if err != nil {
		return Artifact{}, err
	}
	defer in.Close()
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return Artifact{}, &OutputError{path, err}
	}
	defer os.Remove(f.Name())
	_, err = io.Copy(f, in)
	if err := errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return Artifact{}, &OutputError{path, err}
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return Artifact{}, &OutputError{path, err}
	}
	return Artifact{Name: path, Size: t.Blob.Size, Digest: t.Blob.Digest}, nil
}
