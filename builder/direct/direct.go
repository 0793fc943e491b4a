// Package direct writes and reads large files past the page cache.
//
// A disk image is written once, read once for its checksum, and as large as
// what a small machine has of memory. Copied through the page cache it costs
// more than everything else about a build: each page is found, cleared, filled,
// and later written back. With O_DIRECT, open(2), the disk takes it from a few
// buffers that are used again and again, while the next ones are filled.
//
// A file system that does not know O_DIRECT is written in the usual way, with
// the same result.
package direct

import (
	"errors"
	"os"
	"sync"
)

const (
	// bufferSize is what is written at once, in bytes.
	bufferSize = 1 << 20
	buffers    = 6
	writers    = 2
)

// File is a file whose whole blocks are written behind the caller's back. What
// was written counts after [File.Flush] only: errors of the disk come with it or
// with a later write. A File is not safe for use by several goroutines at once.
type File struct {
	u *Unbuffered

	free   chan []byte
	jobs   chan job
	flying sync.WaitGroup
	done   sync.WaitGroup
	end    int64 // behind everything that was written

	mu  sync.Mutex
	err error
}

type job struct {
	buf []byte
	off int64
}

// New returns a File for f, which stays open and the caller's.
func New(f *os.File) *File {
	w := &File{u: NewWriter(f), free: make(chan []byte, buffers), jobs: make(chan job)}
	for range buffers {
		w.free <- Buffer(bufferSize)
	}
	for range writers {
		w.done.Go(func() {
			for j := range w.jobs {
				_, err := w.u.WriteAt(j.buf, j.off)
				w.fail(err)
				w.free <- j.buf[:bufferSize]
				w.flying.Done()
			}
		})
	}
	return w
}

// WriteAt writes p at off, or will do so soon.
func (w *File) WriteAt(p []byte, off int64) (int, error) {
	if off < w.end { // the last of two writes must win
		if err := w.Flush(); err != nil {
			return 0, err
		}
	}
	n := 0
	for n < len(p) {
		if err := w.failed(); err != nil {
			return n, err
		}
		at := off + int64(n)
		k, err := w.some(p[n:], at)
		if err != nil {
			return n, err
		}
		n += k
	}
	w.end = max(w.end, off+int64(n))
	return n, nil
}

// some writes the first bytes of p: up to the next block, or whole blocks, or
// what is left of less than one.
func (w *File) some(p []byte, off int64) (int, error) {
	if k := off % align; k != 0 || len(p) < align {
		return w.u.WriteAt(p[:min(int64(len(p)), align-k)], off)
	}
	buf := <-w.free
	n := copy(buf, p[:len(p)/align*align])
	w.flying.Add(1)
	w.jobs <- job{buf[:n], off}
	return n, nil
}

func (w *File) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = errors.Join(w.err, err)
}

func (w *File) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// ReadAt reads what was written.
func (w *File) ReadAt(p []byte, off int64) (int, error) {
	if err := w.Flush(); err != nil {
		return 0, err
	}
	return w.u.ReadAt(p, off)
}

// Flush waits until everything is written. It is not on the disk for good
// before the file is synced.
func (w *File) Flush() error {
	w.flying.Wait()
	return w.failed()
}

// Close waits as Flush does, and ends the writers. It may be called twice.
func (w *File) Close() error {
	err := w.Flush()
	if w.jobs == nil {
		return err
	}
	close(w.jobs)
	w.done.Wait()
	w.jobs = nil
	return errors.Join(err, w.u.Close())
}
