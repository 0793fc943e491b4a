package direct_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/kscratch/kscratch/builder/direct"
)

// dirs are a file system that has O_DIRECT, most likely, and one that may not.
func dirs(t *testing.T) []string {
	out := []string{t.TempDir()}
	if dir, err := os.MkdirTemp("/dev/shm", "kscratch"); err == nil {
		t.Cleanup(func() { os.RemoveAll(dir) })
		out = append(out, dir)
	}
	return out
}

// TestFile: whatever is written in whatever order, the file has it.
func TestFile(t *testing.T) {
	const size = 9 << 20
	random := rand.New(rand.NewPCG(1, 2))
	for _, dir := range dirs(t) {
		f, err := os.Create(filepath.Join(dir, "f"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		want := make([]byte, size)
		w := direct.New(f)
		for i := range 200 {
			n := []int{1, 511, 4096, 65536, 3 << 20, random.IntN(1 << 20)}[i%6]
			off := random.IntN(size - n)
			if i%3 == 0 {
				off &^= 4095
			}
			p := want[off : off+n]
			for j := range p {
				p[j] = byte(i + j*7)
			}
			if k, err := w.WriteAt(p, int64(off)); k != n || err != nil {
				t.Fatalf("writing %d bytes at %d: %d, %v", n, off, k, err)
			}
			if i%50 == 0 {
				got := make([]byte, n)
				if _, err := w.ReadAt(got, int64(off)); err != nil || !bytes.Equal(got, p) {
					t.Fatalf("reading %d bytes back from %d: other content, %v", n, off, err)
				}
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Errorf("closing twice: %v", err)
		}
		got, err := os.ReadFile(f.Name())
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: the file has other content, %v", dir, err)
		}
		r := direct.NewReader(f)
		b := direct.Buffer(1 << 20)
		for _, off := range []int64{0, 1 << 20, 4096, 5, size - 1<<20} {
			if _, err := r.ReadAt(b, off); err != nil || !bytes.Equal(b, want[off:off+1<<20]) {
				t.Errorf("%s: reading from %d: other content, %v", dir, off, err)
			}
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestError: what fails behind the caller's back comes out at the end.
func TestError(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	w := direct.New(f)
	_, first := w.WriteAt(make([]byte, 8<<20), 0)
	if err := errors.Join(first, w.Close()); !errors.Is(err, os.ErrClosed) {
		t.Errorf("got %v, want %v", err, os.ErrClosed)
	}
}
