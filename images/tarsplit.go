package images

import (
	"context"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/vbatts/tar-split/tar/asm"
	"github.com/vbatts/tar-split/tar/storage"

	"github.com/kscratch/kscratch/layers"
	"github.com/kscratch/kscratch/layers/cache"
)

// tarSplit returns what docker needs, besides the unpacked files, to make a
// layer's tar again, bit for bit: headers, padding and checksums, as
// gzip-compressed JSON lines (github.com/vbatts/tar-split).
//
// The compressor is the one in our go.mod, not the toolchain's, so that the
// bytes do not depend on the release of Go.
func tarSplit(ctx context.Context, s *cache.Store, l Layer) (cache.Blob, error) {
	b, err := s.Compute(ctx, "tar-split", "1 "+string(l.DiffID), func(ctx context.Context, w io.Writer) error {
		f, err := l.Blob.Open()
		if err != nil {
			return err
		}
		defer f.Close()
		z := gzip.NewWriter(w)
		if err := splitTo(z, layers.WithContext(ctx, f)); err != nil {
			return err
		}
		return z.Close()
	})
	if err != nil {
		return cache.Blob{}, fmt.Errorf("splitting layer %s: %w", l.DiffID, err)
	}
	return b, nil
}

func splitTo(w io.Writer, r io.Reader) error {
	out, err := asm.NewInputTarStream(r, storage.NewJSONPacker(w), storage.NewDiscardFilePutter())
	if err != nil {
		return err
	}
	// The packing goes on behind a pipe; it has ended when the pipe has.
	_, err = io.Copy(io.Discard, out)
	return err
}
