package direct

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// align is what offsets, lengths and memory must be multiples of: the largest
// block size of disks, and that of pages.
const align = 4096

// Unbuffered reads and writes a file past the page cache. Several goroutines
// may do so at once. What is not whole blocks in memory of [Buffer] goes the
// usual way, and so does everything on a file system without O_DIRECT.
type Unbuffered struct {
	f *os.File
	d *os.File // the same file with O_DIRECT; nil where that is not possible
}

// NewReader returns f for reading only. It stays open and the caller's.
func NewReader(f *os.File) *Unbuffered { return open(f, os.O_RDONLY) }

// NewWriter returns f for reading and writing. It stays open and the caller's.
func NewWriter(f *os.File) *Unbuffered { return open(f, os.O_RDWR) }

func open(f *os.File, flags int) *Unbuffered {
	d, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), flags|unix.O_DIRECT, 0)
	if err != nil {
		d = nil
	}
	return &Unbuffered{f, d}
}

// ReadAt reads into p from off.
func (u *Unbuffered) ReadAt(p []byte, off int64) (int, error) {
	if u.takes(p, off) {
		n, err := u.d.ReadAt(p, off)
		if !errors.Is(err, unix.EINVAL) {
			return n, err
		}
		// It was opened, and still the file system does not have it.
	}
	return u.f.ReadAt(p, off)
}

// WriteAt writes p at off. It is not on the disk for good before the file is
// synced.
func (u *Unbuffered) WriteAt(p []byte, off int64) (int, error) {
	if u.takes(p, off) {
		n, err := u.d.WriteAt(p, off)
		if !errors.Is(err, unix.EINVAL) {
			return n, err
		}
	}
	return u.f.WriteAt(p, off)
}

func (u *Unbuffered) takes(p []byte, off int64) bool {
	return u.d != nil && off%align == 0 && len(p)%align == 0 && aligned(p)
}

// Close ends u, not the file.
func (u *Unbuffered) Close() error {
	if u.d == nil {
		return nil
	}
	return u.d.Close()
}

// Buffer returns memory of n bytes that O_DIRECT takes.
func Buffer(n int) []byte {
	b := make([]byte, n+align)
	skip := align - int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))%align)
	return b[skip : skip+n : skip+n]
}

func aligned(b []byte) bool { return uintptr(unsafe.Pointer(unsafe.SliceData(b)))%align == 0 }
