// Package gce writes and reads disk images as Google Compute Engine takes them:
// the file disk.raw, sparse, in a tar archive of GNU tar's old format,
// compressed with gzip. The sources are GCE's requirements for a manually
// imported image, "Basic Tar Format" of the GNU tar manual, and RFC 1952.
//
// The size is rounded up to a whole GiB. The gzip stream is one member, which
// several processors compress in pieces.
package gce

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"

	"github.com/kscratch/kscratch/builder/format/blocks"
)

const (
	member = "disk.raw"
	align  = 1 << 30 // bytes

	// holeSize is the size in bytes of the smallest hole that the archive
	// leaves out; gzip makes little of shorter ones.
	holeSize = 1 << 20
	// maxExtents bounds the map of the file, which Go's own reader takes up to
	// 1 MiB of. Beyond it, the smallest holes are stored as zeros.
	maxExtents = 40000
)

// Write writes src to w.
func Write(ctx context.Context, w io.Writer, src blocks.Source) error {
	size := blocks.RoundUp(src.Size(), align)
	if err := blocks.Check(size); err != nil {
		return err
	}
	var extents []extent
	err := blocks.Each(ctx, src, holeSize, nil, func(c *blocks.Chunk) error {
		extents = append(extents, extent{c.Off, int64(len(c.Data))})
		if n := len(extents); n > 1 && extents[n-2].end() == c.Off {
			extents[n-2].size += extents[n-1].size
			extents = extents[:n-1]
		}
		return nil
	})
	if err != nil {
		return err
	}
	for gap := int64(holeSize); len(extents) > maxExtents; gap *= 2 {
		extents = merge(extents, gap)
	}
	return compress(ctx, w, newArchive(src, size, extents))
}

// extent is a run of bytes of the disk that the archive has.
type extent struct{ off, size int64 }

func (e extent) end() int64 { return e.off + e.size }

// merge joins neighbours that are not more than gap bytes apart.
func merge(in []extent, gap int64) []extent {
	out := in[:1]
	for _, e := range in[1:] {
		if last := &out[len(out)-1]; e.off-last.end() <= gap {
			last.size = e.end() - last.off
		} else {
			out = append(out, e)
		}
	}
	return out
}

// NewReader returns the content of the disk in an archive. It is as long as
// the archive says, which the caller has to bound.
func NewReader(r io.Reader) (io.ReadCloser, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	t := tar.NewReader(z)
	h, err := t.Next()
	switch {
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("the archive has no %s", member)
	case err != nil:
		return nil, err
	case h.Name != member && h.Name != "./"+member:
		return nil, fmt.Errorf("the archive begins with %q, not with %s", h.Name, member)
	}
	return &reader{t, z}, nil
}

// maxTail is how many bytes may be behind the disk in an archive.
const maxTail = 1 << 20

// reader reads up to the end of the gzip stream, so that its checksum counts.
type reader struct {
	t *tar.Reader
	z *gzip.Reader
}

func (r *reader) Read(b []byte) (int, error) {
	n, err := r.t.Read(b)
	if errors.Is(err, io.EOF) {
		_, err := io.CopyN(io.Discard, r.z, maxTail)
		if err == nil {
			err = fmt.Errorf("the archive has more than %s", member)
		}
		return n, err
	}
	return n, err
}

func (r *reader) Close() error { return r.z.Close() }
