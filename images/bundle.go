package images

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/kscratch/kscratch/layers"
)

// maxBundle bounds the members of an archive of images; each layer is one or
// a few.
const maxBundle = 100_000

// bundle is the files of a docker-archive or an OCI layout, in a directory or
// in a tar.
type bundle interface {
	// open opens a regular file and says how many bytes it has.
	open(name string) (io.ReadCloser, int64, error)
	io.Closer
}

// openBundle opens what is at path. A compressed tar is inflated into the
// content store first.
func (m Importer) openBundle(ctx context.Context, file string) (bundle, error) {
	st, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		root, err := os.OpenRoot(file)
		if err != nil {
			return nil, err
		}
		return dirBundle{root}, nil
	}
	f, err := m.openPlain(ctx, file)
	if err != nil {
		return nil, err
	}
	if err := checkTar(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	b, err := indexTar(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return b, nil
}

// openPlain opens a file, or what it inflates to.
func (m Importer) openPlain(ctx context.Context, file string) (*os.File, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	head := make([]byte, 6)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.Join(err, f.Close())
	}
	if compression(head[:n]) == "" {
		return f, nil
	}
	defer f.Close()
	b, err := m.Store.Put(ctx, func(ctx context.Context, w io.Writer) error {
		return inflate(ctx, w, f, m.max())
	})
	if err != nil {
		return nil, err
	}
	return b.Open()
}

// readSmall returns a file of at most maxConfig bytes.
func readSmall(b bundle, name string) ([]byte, error) {
	r, size, err := b.open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if size > maxConfig {
		return nil, fmt.Errorf("reading %s: has %d bytes, more than the limit of %d", name, size, maxConfig)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return out, nil
}

// readBlob returns a small blob of an OCI layout, verified.
func readBlob(b bundle, d layers.Digest) ([]byte, error) {
	if err := d.Check(); err != nil {
		return nil, err
	}
	out, err := readSmall(b, "blobs/sha256/"+d.Hex())
	if err != nil {
		return nil, err
	}
	if got := layers.DigestOf(out); got != d {
		return nil, fmt.Errorf("reading blob %s: its content has digest %s", d, got)
	}
	return out, nil
}

type dirBundle struct{ root *os.Root }

func (d dirBundle) Close() error { return d.root.Close() }
func (d dirBundle) open(name string) (io.ReadCloser, int64, error) {
	// Without waiting for a writer, which is what opening a named pipe does.
	f, err := d.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("opening %s: not a regular file", name)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, st.Size(), nil
}

// span is where a member's content lies in a tar, or what the member is a
// link to.
type span struct {
	off, size int64
	link      string
}

type tarBundle struct {
	f     *os.File
	spans map[string]span
}

func (t tarBundle) Close() error { return t.f.Close() }
func (t tarBundle) open(name string) (io.ReadCloser, int64, error) {
	at := path.Clean(name)
	for range maxLinks {
		s, ok := t.spans[at]
		if !ok {
			return nil, 0, fmt.Errorf("opening %s in the archive: %w", name, fs.ErrNotExist)
		}
		if s.link == "" {
			return io.NopCloser(io.NewSectionReader(t.f, s.off, s.size)), s.size, nil
		}
		at = s.link
	}
	return nil, 0, fmt.Errorf("opening %s in the archive: too many links", name)
}

func indexTar(f *os.File) (tarBundle, error) {
	st, err := f.Stat()
	if err != nil {
		return tarBundle{}, err
	}
	t := tarBundle{f, map[string]span{}}
	sr := io.NewSectionReader(f, 0, st.Size())
	tr := tar.NewReader(sr)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return t, nil
		}
		if err != nil {
			return tarBundle{}, fmt.Errorf("reading the archive: %w", err)
		}
		off, err := sr.Seek(0, io.SeekCurrent)
		if err != nil {
			return tarBundle{}, err
		}
		if err := t.add(h, off, st.Size()); err != nil {
			return tarBundle{}, err
		}
	}
}

func (t tarBundle) add(h *tar.Header, off, total int64) error {
	p, err := layers.TarPath(h.Name)
	if err != nil {
		return err
	}
	if len(t.spans) >= maxBundle {
		return fmt.Errorf("archive has more than %d members", maxBundle)
	}
	link := ""
	switch h.Typeflag {
	case tar.TypeReg:
		if h.Size > total-off { // not off+h.Size, which may be more than an int64 holds
			return fmt.Errorf("member %q: truncated: %w", h.Name, io.ErrUnexpectedEOF)
		}
	case tar.TypeSymlink:
		link = path.Join(path.Dir(p), h.Linkname)
	case tar.TypeLink:
		link = path.Clean(h.Linkname)
	default:
		return nil
	}
	if link != "" && !fs.ValidPath(link) {
		return fmt.Errorf("member %q: link to %q leads out of the archive", h.Name, h.Linkname)
	}
	// Readers differ in which of two they take, and so in what they see.
	if _, ok := t.spans[p]; ok {
		return fmt.Errorf("member %q: is there twice", h.Name)
	}
	t.spans[p] = span{off, h.Size, link}
	return nil
}

// has reports whether the bundle has a file.
func has(b bundle, name string) (bool, error) {
	r, _, err := b.open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, r.Close()
}

// checkTar refuses what archive/tar would take for an empty archive or
// report as a bad header.
func checkTar(f io.ReaderAt) error {
	head := make([]byte, 262)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if n < len(head) || !bytes.HasPrefix(head[257:], []byte("ustar")) {
		return errors.New("not a tar archive, not even after uncompressing it")
	}
	return nil
}
