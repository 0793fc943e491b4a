// Package blocks is what the formats of disk images share: the content of a
// disk as a Source that knows its holes, and one way to go through it on all
// processors.
//
// Holes are a short cut and never decide what is written: where the file system
// forgot a hole, zeros are found by looking. So the same content gives the same
// bytes wherever it is stored.
package blocks

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// Sector is the unit of the size of a disk, in bytes.
	Sector = 512
	// MaxSize is the size in bytes of the largest disk that is read or
	// written: what a VHD can hold, the least of all formats.
	MaxSize = 2040 << 30
)

// Source is the content of a disk. Several goroutines may read it at once.
type Source interface {
	io.ReaderAt
	// Size returns the size of the disk in bytes.
	Size() int64
	// Next returns the first run of bytes at or behind off that may have
	// other content than zeros: from start up to end. If there is none, both
	// are the size of the disk.
	Next(off int64) (start, end int64, err error)
}

// Output is a new, empty file that is written at any place; *os.File is one.
type Output interface {
	io.WriterAt
	// Truncate sets the size in bytes; what was not written reads as zeros.
	Truncate(size int64) error
}

// File is a file of the operating system as the content of a disk.
type File struct {
	f    *os.File
	size int64
}

// NewFile returns the content of a regular file, which must not change.
func NewFile(f *os.File) (*File, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file: copy its content into one first", f.Name())
	}
	return &File{f, st.Size()}, nil
}

// ReadAt reads from the file.
func (f *File) ReadAt(b []byte, off int64) (int, error) { return f.f.ReadAt(b, off) }

// Size returns the size of the file in bytes.
func (f *File) Size() int64 { return f.size }

// Next asks the file system, lseek(2) SEEK_DATA. One that does not know holes
// calls all of the file data.
func (f *File) Next(off int64) (start, end int64, err error) {
	fd := int(f.f.Fd())
	start, err = unix.Seek(fd, off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) { // nothing but a hole is left
		return f.size, f.size, nil
	}
	if err == nil {
		end, err = unix.Seek(fd, start, unix.SEEK_HOLE)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("finding holes: %w", err)
	}
	return min(start, f.size), min(end, f.size), nil
}

// Head is the first bytes of another source.
type Head struct {
	Source
	N int64 // bytes, not more than the other has
}

// ReadAt reads from the other source.
func (h Head) ReadAt(b []byte, off int64) (int, error) {
	return io.NewSectionReader(h.Source, 0, h.N).ReadAt(b, off)
}

// Size returns N.
func (h Head) Size() int64 { return h.N }

// Next returns what the other source does, up to N.
func (h Head) Next(off int64) (start, end int64, err error) {
	start, end, err = h.Source.Next(off)
	return min(start, h.N), min(end, h.N), err
}

// Reader reads a source from its start, without asking for its holes.
type Reader struct {
	src        Source
	off        int64
	start, end int64 // the next run of data
}

// NewReader returns a reader of a source.
func NewReader(src Source) *Reader { return &Reader{src: src} }

// Read reads the next bytes.
func (r *Reader) Read(b []byte) (n int, err error) {
	if r.off >= r.src.Size() {
		return 0, io.EOF
	}
	if r.off >= r.end {
		if r.start, r.end, err = r.src.Next(r.off); err != nil {
			return 0, err
		}
	}
	if r.off < r.start {
		n = int(min(int64(len(b)), r.start-r.off))
		clear(b[:n])
	} else {
		n, err = r.src.ReadAt(b[:min(int64(len(b)), r.end-r.off)], r.off)
	}
	if r.off += int64(n); n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// RoundUp returns the smallest multiple of unit that is not less than n.
func RoundUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }

// Check refuses a size in bytes that no disk has.
func Check(size int64) error {
	if size <= 0 || size%Sector != 0 || size > MaxSize {
		return fmt.Errorf("a disk of %d bytes: want a positive multiple of %d, at most %d GiB", size, Sector, MaxSize>>30)
	}
	return nil
}

var zeros [4096]byte

// IsZero reports whether all bytes are zero.
func IsZero(b []byte) bool {
	for len(b) > len(zeros) {
		if !bytes.Equal(b[:len(zeros)], zeros[:]) {
			return false
		}
		b = b[len(zeros):]
	}
	return bytes.Equal(b, zeros[:len(b)])
}
