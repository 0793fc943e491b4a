package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// File is what a region needs of the file of the disk; *os.File has it.
type File interface {
	io.ReaderAt
	io.WriterAt
}

// Region is a partition inside of a disk image, which starts as zeros. It reads
// and writes at its own offsets, refuses what lies outside, and leaves holes
// where zeros are written for the first time. Writing by several goroutines at
// once is not safe; reading is.
type Region struct {
	f           File
	start, size int64
	pos         int64
	written     int64 // beyond it nothing was written
}

const (
	blockSize = 4096
	minHole   = 64 << 10 // bytes; each hole costs a write and an extent
)

var zeros [blockSize]byte

// Size returns the size of the partition in bytes.
func (r *Region) Size() int64 { return r.size }

// Write writes at the current position and moves it.
func (r *Region) Write(p []byte) (int, error) {
	n, err := r.WriteAt(p, r.pos)
	r.pos += int64(n)
	return n, err
}

// Seek sets the position for the next Write.
func (r *Region) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.pos
	case io.SeekEnd:
		offset += r.size
	}
	if offset < 0 {
		return 0, fmt.Errorf("seeking to byte %d of a partition: %w", offset, fs.ErrInvalid)
	}
	r.pos = offset
	return offset, nil
}

// WriteAt writes p at an offset in the partition.
func (r *Region) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off > r.size || int64(len(p)) > r.size-off {
		return 0, fmt.Errorf("writing %d bytes at byte %d of a partition of %d bytes: %w", len(p), off, r.size, io.ErrShortWrite)
	}
	n := 0
	if old := min(int64(len(p)), r.written-off); old > 0 {
		k, err := r.f.WriteAt(p[:old], r.start+off)
		if n = k; err != nil {
			return n, err
		}
	}
	k, err := r.writeNew(p[n:], off+int64(n))
	n += k
	r.written = max(r.written, off+int64(n))
	return n, err
}

// writeNew writes where zeros are so far: all but the runs of zeros that are
// worth a hole, and those at the ends of p.
func (r *Region) writeNew(p []byte, off int64) (int, error) {
	from, to := 0, 0 // p[from:to] waits to be written
	flush := func() error {
		if from == to {
			return nil
		}
		_, err := r.f.WriteAt(p[from:to], r.start+off+int64(from))
		return err
	}
	for at := 0; at < len(p); {
		n := min(len(p)-at, blockSize-int((off+int64(at))%blockSize))
		if !bytes.Equal(p[at:at+n], zeros[:n]) {
			if from == to || at-to >= minHole {
				if err := flush(); err != nil {
					return from, err
				}
				from = at
			}
			to = at + n
		}
		at += n
	}
	if err := flush(); err != nil {
		return from, err
	}
	return len(p), nil
}

// ReadAt reads what was written.
func (r *Region) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("reading before the start of a partition")
	}
	return io.NewSectionReader(r.f, r.start, r.size).ReadAt(p, off)
}
