package images

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/mikelolasagasti/xz"
)

// Bounds on the memory that a stream may ask for, in bytes: the window of
// zstd --ultra -22, and the dictionary of xz -9.
const (
	maxWindow = 128 << 20
	maxDict   = 64 << 20
)

// formats lists the compressions by the bytes that they begin with.
var formats = []struct {
	name  string
	magic []byte
	open  func(io.Reader) (io.Reader, func(), error)
}{
	{"gzip", []byte{0x1f, 0x8b}, func(r io.Reader) (io.Reader, func(), error) {
		z, err := gzip.NewReader(r)
		return z, func() {}, err
	}},
	{"zstd", []byte{0x28, 0xb5, 0x2f, 0xfd}, func(r io.Reader) (io.Reader, func(), error) {
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	}},
	{"xz", []byte{0xfd, '7', 'z', 'X', 'Z', 0}, func(r io.Reader) (io.Reader, func(), error) {
		z, err := xz.NewReader(r, maxDict)
		return z, func() {}, err
	}},
	{"bzip2", []byte("BZh"), func(r io.Reader) (io.Reader, func(), error) {
		return bzip2.NewReader(r), func() {}, nil
	}},
}

// compression returns the name of the compression of data that begins with
// head, or the empty string.
func compression(head []byte) string {
	for _, f := range formats {
		if bytes.HasPrefix(head, f.magic) {
			return f.name
		}
	}
	return ""
}

// SizeError says that something is larger than it may be.
type SizeError struct{ Max int64 } // bytes

func (e *SizeError) Error() string {
	return fmt.Sprintf("has more than %d bytes uncompressed, which is the limit", e.Max)
}

// inflate copies r to w uncompressed, up to max bytes. It reads r to its end,
// so that a reader that checks what it delivers comes to its verdict; that
// verdict counts more than what the decompressor has to say.
func inflate(ctx context.Context, w io.Writer, r io.Reader, max int64) error {
	cr := &ctxReader{ctx: ctx, r: r}
	err := expand(w, cr, max)
	var tooBig *SizeError
	if errors.As(err, &tooBig) || ctx.Err() != nil {
		return errors.Join(err, ctx.Err())
	}
	// A decompressor may have stopped early; what is left is bounded by the
	// size of the file or of the descriptor.
	if _, rerr := io.Copy(io.Discard, cr); rerr != nil {
		return rerr
	}
	if cr.err != nil {
		return cr.err
	}
	return err
}

func expand(w io.Writer, r io.Reader, max int64) error {
	br := bufio.NewReaderSize(r, 1<<16)
	head, err := br.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	in := io.Reader(br)
	for _, f := range formats {
		if !bytes.HasPrefix(head, f.magic) {
			continue
		}
		z, stop, err := f.open(br)
		if err != nil {
			return fmt.Errorf("reading %s: %w", f.name, err)
		}
		defer stop()
		in = z
		break
	}
	n, err := io.Copy(w, io.LimitReader(in, max+1))
	if err != nil {
		return fmt.Errorf("uncompressing: %w", err)
	}
	if n > max {
		return &SizeError{Max: max}
	}
	return nil
}

// ctxReader stops when its context does and keeps the error of its source.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
	err error
}

func (c *ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		c.err = err
	}
	return n, err
}

// join returns words as a list in a sentence.
func join(words []string) string {
	if len(words) == 0 {
		return "no platform"
	}
	return strings.Join(words, ", ")
}
