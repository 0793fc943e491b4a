package images

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
)

// Archive brings a file or a directory with an OCI image layout into the
// content store, where [Importer.Load] and [Importer.RootFS] can read it. A
// file comes as it is. Of a directory a tar is made: of its oci-layout,
// index.json and blobs, the same bytes for the same content.
func (m Importer) Archive(ctx context.Context, path string) (cache.Blob, error) {
	st, err := os.Stat(path)
	if err != nil {
		return cache.Blob{}, err
	}
	b, err := m.Store.Put(ctx, func(ctx context.Context, w io.Writer) error {
		if st.IsDir() {
			return packLayout(ctx, w, path)
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		_, err = io.Copy(w, layers.WithContext(ctx, f))
		return errors.Join(err, f.Close())
	})
	if err != nil {
		return cache.Blob{}, fmt.Errorf("reading %s: %w", path, err)
	}
	return b, nil
}

// packLayout writes a layout as a tar, names in order, every date 1970.
func packLayout(ctx context.Context, w io.Writer, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	d := dirBundle{root}
	defer d.Close()
	if ok, err := has(d, "index.json"); err != nil || !ok {
		return errors.Join(errors.New("index.json is not there: not an OCI layout"), err)
	}
	names, err := fs.Glob(root.FS(), "blobs/sha256/*")
	if err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	for _, n := range append(names, "index.json", "oci-layout") {
		if err := copyMember(ctx, tw, d, n); err != nil {
			return err
		}
	}
	return tw.Close()
}

func copyMember(ctx context.Context, tw *tar.Writer, b bundle, name string) error {
	r, size, err := b.open(name)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := tw.WriteHeader(archiveHeader(name, size)); err != nil {
		return err
	}
	_, err = io.Copy(tw, layers.WithContext(ctx, r))
	return err
}
