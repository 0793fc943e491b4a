package layers

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// ReaderAtCloser is random access to a file that is closed after use.
type ReaderAtCloser interface {
	io.ReaderAt
	io.Closer
}

// Tar is an uncompressed tar archive (POSIX.1-2001 pax, ustar or GNU) as a
// layer. It is read through random access, so that a file's content is opened
// where it lies and never copied. A hard link becomes a second file with the
// same content. Sparse members are refused.
type Tar struct {
	Title   string // the layer's name
	Content Digest // of the archive, or of what it was made from
	Owner   string // given to every file
	Size    int64  // of the archive in bytes
	Open    func() (ReaderAtCloser, error)
}

// Name returns the title of the layer.
func (t Tar) Name() string { return t.Title }

// Digest returns the digest of the content.
func (t Tar) Digest() Digest { return t.Content }

// Files yields the members in the order of the archive. A member whose name
// leads out of the root is an error, as is a truncated archive.
func (t Tar) Files() iter.Seq2[File, error] {
	return func(yield func(File, error) bool) {
		r, err := t.Open()
		if err != nil {
			yield(File{}, fmt.Errorf("opening %s: %w", t.Title, err))
			return
		}
		defer r.Close()
		seen := map[string]File{}
		sr := io.NewSectionReader(r, 0, t.Size)
		tr := tar.NewReader(sr)
		for {
			h, err := tr.Next()
			if errors.Is(err, io.EOF) {
				return
			}
			var f File
			if err == nil {
				// archive/tar reads header blocks and nothing more, so
				// the position is where the content starts.
				off, _ := sr.Seek(0, io.SeekCurrent)
				f, err = t.file(h, off, seen)
			}
			if err != nil {
				yield(File{}, fmt.Errorf("reading %s: %w", t.Title, err))
				return
			}
			if f.Mode.IsRegular() {
				seen[f.Path] = f
			}
			if !yield(f, nil) {
				return
			}
		}
	}
}

// TarPath returns the path of a tar member relative to the root of a tree. It
// refuses names that lead out of it.
func TarPath(name string) (string, error) {
	for e := range strings.SplitSeq(name, "/") {
		if e == ".." {
			return "", fmt.Errorf("member %q: its name leads out of the archive", name)
		}
	}
	p := path.Clean(strings.TrimLeft(name, "/"))
	if !fs.ValidPath(p) || strings.ContainsRune(p, 0) {
		return "", fmt.Errorf("member %q: not a valid path", name)
	}
	return p, nil
}

func (t Tar) file(h *tar.Header, off int64, seen map[string]File) (File, error) {
	p, err := TarPath(h.Name)
	if err != nil {
		return File{}, err
	}
	f := File{
		Path: p, UID: uint32(h.Uid), GID: uint32(h.Gid), ModTime: h.ModTime.UTC(),
		Mode: h.FileInfo().Mode(), Owner: t.Owner, Xattrs: xattrs(h),
	}
	switch h.Typeflag {
	case tar.TypeReg:
		if h.Size > t.Size-off { // not off+h.Size, which may be more than an int64 holds
			return File{}, fmt.Errorf("member %q: truncated: %d of %d bytes: %w", h.Name, t.Size-off, h.Size, io.ErrUnexpectedEOF)
		}
		f.Size, f.Open = h.Size, t.section(off, h.Size)
	case tar.TypeLink:
		target, err := TarPath(h.Linkname)
		if err != nil {
			return File{}, err
		}
		to, ok := seen[target]
		if !ok {
			return File{}, fmt.Errorf("member %q: hard link to %q, which is not a file before it", h.Name, h.Linkname)
		}
		to.Path = p
		return to, nil
	case tar.TypeSymlink:
		f.Mode, f.Link = fs.ModeSymlink|0o777, h.Linkname
	case tar.TypeDir:
	case tar.TypeChar, tar.TypeBlock:
		f.Rdev = unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
	case tar.TypeFifo:
	default:
		return File{}, fmt.Errorf("member %q: type %q is not supported", h.Name, h.Typeflag)
	}
	return f, nil
}

func (t Tar) section(off, size int64) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) {
		r, err := t.Open()
		if err != nil {
			return nil, err
		}
		return sectionCloser{io.NewSectionReader(r, off, size), r}, nil
	}
}

type sectionCloser struct {
	*io.SectionReader
	io.Closer
}

// xattrs returns the extended attributes of a member, which pax records carry
// under the prefix that GNU tar and star use.
func xattrs(h *tar.Header) map[string]string {
	var out map[string]string
	for k, v := range h.PAXRecords {
		name, ok := strings.CutPrefix(k, "SCHILY.xattr.")
		if !ok {
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[name] = v
	}
	return out
}
