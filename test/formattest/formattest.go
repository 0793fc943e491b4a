// Package formattest has what the tests of formats share: disks, and how to
// compare them.
package formattest

import (
	"bytes"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/kscratch/kscratch/builder/format/blocks"
)

const kib = 1 << 10

// Disks are files with disks of several shapes, the same on each call: empty,
// full, of an odd number of sectors, with holes of all sizes, with content that
// compresses well or not at all.
func Disks(t testing.TB) map[string]*os.File {
	t.Helper()
	return map[string]*os.File{
		"one sector": disk(t, 512, piece{0, 512, "text"}),
		"empty":      disk(t, 3<<20, piece{}),
		"full":       disk(t, 5<<20, piece{0, 5 << 20, "text"}),
		"noise":      disk(t, 3<<20, piece{0, 3 << 20, "noise"}),
		"odd": disk(t, 3<<20+7*512,
			piece{0, 512, "text"}, piece{100*kib + 3, 5, "text"}, piece{3 << 20, 7 * 512, "noise"}),
		"holes": disk(t, 100<<20,
			piece{510, 2, "text"}, piece{64 * kib, 64 * kib, "noise"}, piece{1 << 20, 300 * kib, "zero"},
			piece{33<<20 - 70*kib, 140 * kib, "text"}, piece{90 << 20, 2 << 20, "mixed"}, piece{99 << 20, 1 << 20, "text"}),
	}
}

// piece is what a disk has at a place.
type piece struct {
	off, size int64
	kind      string
}

func disk(t testing.TB, size int64, pieces ...piece) *os.File {
	t.Helper()
	f := Temp(t)
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	rnd := rand.NewChaCha8([32]byte{1})
	for _, p := range pieces {
		b := make([]byte, p.size)
		if p.kind != "zero" {
			rnd.Read(b)
		}
		for i := range b {
			if p.kind == "text" || p.kind == "mixed" && i/(64*kib)%2 == 0 {
				b[i] = "kscratch"[b[i]&7]
			}
		}
		if _, err := f.WriteAt(b, p.off); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// Temp returns a new file that ends with the test.
func Temp(t testing.TB) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// Source returns a file as a source.
func Source(t testing.TB, f *os.File) *blocks.File {
	t.Helper()
	src, err := blocks.NewFile(f)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// Bytes is a disk in memory.
type Bytes []byte

// ReadAt reads bytes.
func (b Bytes) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(b).ReadAt(p, off) }

// Size returns how many there are.
func (b Bytes) Size() int64 { return int64(len(b)) }

// Next calls all of it data.
func (b Bytes) Next(off int64) (start, end int64, err error) { return off, b.Size(), nil }

// NoHoles is a source whose file system knows nothing of holes.
type NoHoles struct{ blocks.Source }

// Next calls all of it data.
func (n NoHoles) Next(off int64) (start, end int64, err error) { return off, n.Size(), nil }

// Write is a writer of a format; the file is new and empty.
type Write func(f *os.File, src blocks.Source) error

// Same writes a disk in a format, and holds it to the law of all formats: the
// content alone decides about the bytes, not holes or the number of processors.
// It returns the file.
func Same(t *testing.T, in *os.File, write Write) *os.File {
	t.Helper()
	src := Source(t, in)
	out := Temp(t)
	if err := write(out, src); err != nil {
		t.Fatal(err)
	}
	want := sum(t, out)
	for _, procs := range []int{1, 2, 5} {
		again := Temp(t)
		before := runtime.GOMAXPROCS(procs)
		err := write(again, NoHoles{src})
		runtime.GOMAXPROCS(before)
		if err != nil {
			t.Fatal(err)
		}
		if got := sum(t, again); got != want {
			t.Errorf("with %d processors and without holes, the bytes are others", procs)
		}
	}
	return out
}

func sum(t *testing.T, f *os.File) (s [32]byte) {
	t.Helper()
	h := sha256.New()
	if _, err := io.Copy(h, blocks.NewReader(Source(t, f))); err != nil {
		t.Fatal(err)
	}
	return [32]byte(h.Sum(nil))
}

// Equal compares a disk that was read with the one that was written, which
// may have grown by zeros to size bytes.
func Equal(t *testing.T, got blocks.Source, want *os.File, size int64) {
	t.Helper()
	if got.Size() != size {
		t.Fatalf("the disk has %d bytes, want %d", got.Size(), size)
	}
	a, b := blocks.NewReader(got), io.Reader(blocks.NewReader(Source(t, want)))
	b = io.MultiReader(b, zeros{})
	x, y := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); off < size; {
		n, err := io.ReadFull(a, x[:min(int64(len(x)), size-off)])
		if err != nil {
			t.Fatalf("byte %d: %v", off+int64(n), err)
		}
		if _, err := io.ReadFull(b, y[:n]); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(x[:n], y[:n]) {
			t.Fatalf("the content differs behind byte %d", off)
		}
		off += int64(n)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// Drain reads all of a disk that may be hostile, up to a bound; it must end,
// well or not. Runs of content must go forward.
func Drain(t *testing.T, src blocks.Source) {
	const bound = 1 << 20
	b := make([]byte, 10000)
	for off := int64(0); off < min(src.Size(), bound); {
		start, end, err := src.Next(off)
		if err != nil {
			return
		}
		if start < off || end < start || end > src.Size() || start == end && start < src.Size() {
			t.Fatalf("from %d, content is from %d to %d of %d", off, start, end, src.Size())
		}
		for ; start < min(end, bound); start += int64(len(b)) {
			if n, err := src.ReadAt(b, start); err != nil && err != io.EOF && n == len(b) {
				return
			}
		}
		off = end
	}
}
