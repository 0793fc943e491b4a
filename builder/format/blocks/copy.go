package blocks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// copySize is the size in bytes of the pieces that become holes if they are
// zero.
const copySize = 64 << 10

// Copy writes a source to a file and leaves holes where there is nothing. It is
// the format raw. Work may be nil; emit, which may be nil too, sees each chunk
// that was written, in order.
func Copy(ctx context.Context, f Output, src Source, work func() (Work, error), emit func(*Chunk)) error {
	if err := f.Truncate(src.Size()); err != nil {
		return err
	}
	return Each(ctx, src, copySize, work, func(c *Chunk) error {
		if emit != nil {
			emit(c)
		}
		_, err := f.WriteAt(c.Data, c.Off)
		return err
	})
}

// Spool writes what a stream has into an empty file, which becomes the source.
// Zeros become holes. A stream of more than MaxSize bytes is an error.
func Spool(ctx context.Context, f *os.File, r io.Reader) (*File, error) {
	b := make([]byte, copySize)
	for off := int64(0); ; {
		n, err := fill(r, b)
		if n > 0 && !IsZero(b[:n]) {
			if _, err := f.WriteAt(b[:n], off); err != nil {
				return nil, err
			}
		}
		if off += int64(n); off > MaxSize {
			return nil, fmt.Errorf("the disk is larger than %d GiB", MaxSize>>30)
		}
		if errors.Is(err, io.EOF) {
			if err := f.Truncate(off); err != nil {
				return nil, err
			}
			return NewFile(f)
		}
		if err := errors.Join(err, ctx.Err()); err != nil {
			return nil, err
		}
	}
}

// fill reads until b is full. Unlike io.ReadFull, it tells the end of a stream
// (io.EOF) from one that breaks off (io.ErrUnexpectedEOF).
func fill(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = r.Read(b[n:])
		n += m
	}
	return n, err
}
