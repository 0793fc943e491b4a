package gce

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/klauspost/compress/gzip"
)

// fake is a disk whose bytes are those of their place, in MiB.
type fake struct{ size int64 }

func (f fake) Size() int64 { return f.size }

func (f fake) Next(off int64) (start, end int64, err error) { return off, f.size, nil }

func (f fake) ReadAt(b []byte, off int64) (int, error) {
	for i := range b {
		b[i] = byte((off + int64(i)) >> 20)
	}
	return len(b), nil
}

// Maps of all lengths, and sizes beyond what octal digits hold, are read as
// they were written.
func TestHeader(t *testing.T) {
	const mib = 1 << 20
	for _, tt := range []struct {
		name    string
		size    int64
		extents int64 // of one MiB, every other MiB
	}{
		{"nothing", 1 << 30, 0},
		{"one", 1 << 30, 1},
		{"the header is full", 1 << 30, 3},
		{"with the end, one more", 1 << 30, 4},
		{"an extension is full", 1 << 30, 4 + 21 - 1},
		{"with the end, one more extension", 1 << 30, 4 + 21},
		{"up to the end", 2 * mib * 100, 100},
		{"large", 1 << 40, 100},
		{"as many as there may be", 2 * mib * maxExtents, maxExtents},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var data []extent
			for i := range tt.extents {
				data = append(data, extent{(2*i + 1) * mib, mib})
			}
			a := newArchive(fake{tt.size}, tt.size, data)
			r := tar.NewReader(io.NewSectionReader(a, 0, a.Size()))
			h, err := r.Next()
			if err != nil {
				t.Fatal(err)
			}
			if h.Name != "disk.raw" || h.Size != tt.size || h.Typeflag != tar.TypeGNUSparse || h.ModTime.Unix() != 0 {
				t.Errorf("the header is %+v", h)
			}
			got := make([]byte, min(tt.size, 4*mib))
			if _, err := io.ReadFull(r, got); err != nil {
				t.Fatal(err)
			}
			for i := range int64(len(got)) {
				want := byte(0)
				if part := i / mib; part%2 == 1 && part/2 < tt.extents {
					want = byte(part)
				}
				if got[i] != want {
					t.Fatalf("byte %d is %d, want %d", i, got[i], want)
				}
			}
		})
	}
}

func TestMerge(t *testing.T) {
	for _, tt := range []struct {
		in   []extent
		gap  int64
		want string
	}{
		{[]extent{{0, 5}}, 1, "[{0 5}]"},
		{[]extent{{0, 5}, {6, 1}, {9, 1}}, 1, "[{0 7} {9 1}]"},
		{[]extent{{0, 5}, {6, 1}, {9, 1}}, 2, "[{0 10}]"},
	} {
		if got := fmt.Sprint(merge(tt.in, tt.gap)); got != tt.want {
			t.Errorf("%v with gaps of %d: %s, want %s", tt.in, tt.gap, got, tt.want)
		}
	}
}

// archived returns an archive that Go makes.
func archived(t testing.TB, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, n := range names {
		body := []byte("content of " + n)
		if err := w.WriteHeader(&tar.Header{Name: n, Size: int64(len(body))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(body); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestReadErrors(t *testing.T) {
	var long bytes.Buffer
	long.Write(archived(t, "disk.raw"))
	z := gzip.NewWriter(&long)
	if _, err := z.Write(make([]byte, maxTail)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, want string
		body       []byte
	}{
		{"a disk", "<nil>", archived(t, "disk.raw")},
		{"another file", `the archive begins with "vmlinuz", not with disk.raw`, archived(t, "vmlinuz", "disk.raw")},
		{"no file", "the archive has no disk.raw", archived(t)},
		{"no gzip", "gzip: invalid header", []byte("text, and no gzip")},
		{"much more", "the archive has more than disk.raw", long.Bytes()},
	} {
		r, err := NewReader(bytes.NewReader(tt.body))
		if err == nil {
			_, err = io.Copy(io.Discard, r)
		}
		if got := fmt.Sprint(err); got != tt.want {
			t.Errorf("%s: error %s, want %s", tt.name, got, tt.want)
		}
	}
}

// head is the gzip stream of the first bytes of an archive.
func head(t testing.TB, extents int64) []byte {
	t.Helper()
	var data []extent
	for i := range extents {
		data = append(data, extent{i * 2 * block, block})
	}
	a := newArchive(fake{1 << 20}, 1<<20, data)
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := io.Copy(z, io.NewSectionReader(a, 0, a.Size())); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func FuzzReader(f *testing.F) {
	f.Add(archived(f, "disk.raw"))
	f.Add(head(f, 2))
	f.Add(head(f, 40))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := NewReader(bytes.NewReader(b))
		if err != nil {
			return
		}
		defer r.Close()
		io.CopyN(io.Discard, r, 4<<20)
	})
}
