package direct

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Reader reads a file at any place past the page cache. Several goroutines may
// read at once; each read is of whole blocks into a buffer of [Buffer], or goes
// the usual way.
type Reader struct {
	f *os.File
	d *os.File // nil where O_DIRECT is not possible
}

// NewReader returns a Reader for f, which stays open and the caller's.
func NewReader(f *os.File) *Reader { return &Reader{f, reopen(f, os.O_RDONLY)} }

// ReadAt reads into p from off.
func (r *Reader) ReadAt(p []byte, off int64) (int, error) {
	if r.d != nil && off%align == 0 && len(p)%align == 0 && aligned(p) {
		n, err := r.d.ReadAt(p, off)
		if !errors.Is(err, unix.EINVAL) {
			return n, err
		}
	}
	return r.f.ReadAt(p, off)
}

// Close ends the reader, not the file.
func (r *Reader) Close() error {
	if r.d == nil {
		return nil
	}
	return r.d.Close()
}

var _ io.ReaderAt = (*Reader)(nil)
