package deb

import (
	"compress/gzip"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/kscratch/kscratch/layers/xz"
)

// Bounds on the memory of a decompressor in bytes; both are what the highest
// ordinary level of the compressor needs.
const (
	maxXZDict     = 64 << 20
	maxZstdWindow = 128 << 20
)

// SizeError says that something is larger than its limit.
type SizeError struct {
	What  string
	Limit int64 // bytes
}

func (e *SizeError) Error() string {
	return fmt.Sprintf("%s is larger than %d bytes", e.What, e.Limit)
}

// Decompress returns the content of r, compressed as the file name extension
// says: ".xz", ".zst", ".gz" or "" for not at all. Reading more than limit
// bytes out of it is a *[SizeError].
func Decompress(ext string, r io.Reader, limit int64) (io.ReadCloser, error) {
	bounded := func(r io.Reader) *bound { return &bound{r: r, left: limit, limit: limit, what: "decompressed content"} }
	switch ext {
	case "":
		return io.NopCloser(bounded(r)), nil
	case ".gz":
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, fmt.Errorf("decompressing gzip: %w", err)
		}
		return struct {
			io.Reader
			io.Closer
		}{bounded(z), z}, nil
	case ".xz":
		return io.NopCloser(bounded(xz.NewReader(r, maxXZDict))), nil
	case ".zst":
		// One goroutine less: callers unpack several packages at once.
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return nil, fmt.Errorf("decompressing zstd: %w", err)
		}
		return struct {
			io.Reader
			io.Closer
		}{bounded(z), z.IOReadCloser()}, nil
	}
	return nil, fmt.Errorf("compression %q is not supported, only xz, zst, gz and none", ext)
}

// bound is a reader that fails, rather than ends, at its limit.
type bound struct {
	r     io.Reader
	left  int64
	limit int64
	what  string
}

func (b *bound) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.r.Read(p)
	if int64(n) > b.left {
		return 0, &SizeError{b.what, b.limit}
	}
	b.left -= int64(n)
	return n, err
}
