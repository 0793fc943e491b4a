package blocks_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/kscratch/kscratch/builder/format/blocks"
	"github.com/kscratch/kscratch/test/formattest"
)

func TestReaderReadsLikeAFile(t *testing.T) {
	const mb = 1 << 20
	tests := []struct {
		name string
		size int64
		data map[int64]string // by offset
	}{
		{"empty", 0, nil},
		{"all hole", 3 * mb, nil},
		{"data first", 3 * mb, map[int64]string{0: "head"}},
		{"data last", 3 * mb, map[int64]string{3*mb - 4: "tail"}},
		{"in between", 9*mb + 1, map[int64]string{2 * mb: "one", 5*mb + 7: "two"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := os.Create(filepath.Join(t.TempDir(), "f"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			err = f.Truncate(tt.size)
			for off, s := range tt.data {
				_, werr := f.WriteAt([]byte(s), off)
				err = errors.Join(err, werr)
			}
			want, rerr := os.ReadFile(f.Name())
			if err := errors.Join(err, rerr); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(blocks.NewReader(formattest.Source(t, f)))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("got %d bytes, %v; want the %d of the file", len(got), err, len(want))
			}
		})
	}
}

// Each hands over what is not zero, once and in order, whatever runs of content
// a source tells of.
func TestEach(t *testing.T) {
	const size = 8
	for _, tt := range []struct {
		name string
		src  blocks.Source
		want string
	}{
		{"nothing", runs{}, ""},
		{"all of it", runs{data: "0123456789", at: [][2]int64{{0, 10}}}, "0:01234567 8:89 "},
		{"within a chunk", runs{data: "................x.......", at: [][2]int64{{17, 18}}}, "16:x....... "},
		{"two in a chunk", runs{data: "01234567", at: [][2]int64{{1, 2}, {4, 5}}}, "0:01234567 "},
		{"over a border", runs{data: "0123456789abcdefgh", at: [][2]int64{{7, 9}, {15, 17}}}, "0:01234567 8:89abcdef 16:gh "},
		{"zeros that are no hole", runs{data: "\x00\x00\x00\x00\x00\x00\x00\x00ab", at: [][2]int64{{0, 10}}}, "8:ab "},
	} {
		got := ""
		err := blocks.Each(t.Context(), tt.src, size, nil, func(c *blocks.Chunk) error {
			got += fmt.Sprintf("%d:%s ", c.Off, c.Data)
			return nil
		})
		if err != nil || got != tt.want {
			t.Errorf("%s: %q, %v, want %q", tt.name, got, err, tt.want)
		}
	}
}

// runs is a source with content in some places.
type runs struct {
	data string
	at   [][2]int64
}

func (r runs) Size() int64 { return int64(len(r.data)) }

func (r runs) ReadAt(b []byte, off int64) (int, error) {
	return strings.NewReader(r.data).ReadAt(b, off)
}

func (r runs) Next(off int64) (start, end int64, err error) {
	for _, a := range r.at {
		if a[1] > off {
			return max(a[0], off), a[1], nil
		}
	}
	return r.Size(), r.Size(), nil
}

// An error from anywhere ends Each, and is the one that it returns.
func TestEachErrors(t *testing.T) {
	bad := errors.New("bad")
	src := formattest.Source(t, formattest.Disks(t)["full"])
	emit := func(*blocks.Chunk) error { return nil }
	work := func(err error) func() (blocks.Work, error) {
		return func() (blocks.Work, error) { return func(*blocks.Chunk) error { return err }, nil }
	}
	for name, err := range map[string]error{
		"starting": blocks.Each(t.Context(), src, 4096, func() (blocks.Work, error) { return nil, bad }, emit),
		"working":  blocks.Each(t.Context(), src, 4096, work(bad), emit),
		"emitting": blocks.Each(t.Context(), src, 4096, work(nil), func(*blocks.Chunk) error { return bad }),
		"reading":  blocks.Each(t.Context(), broken{src, bad, nil}, 4096, nil, emit),
		"finding":  blocks.Each(t.Context(), broken{src, nil, bad}, 4096, nil, emit),
	} {
		if !errors.Is(err, bad) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// broken is a source that cannot be read, or does not know its holes.
type broken struct {
	blocks.Source
	read, next error
}

func (b broken) ReadAt(p []byte, off int64) (int, error) {
	if b.read != nil {
		return 0, b.read
	}
	return b.Source.ReadAt(p, off)
}

func (b broken) Next(off int64) (start, end int64, err error) {
	if b.next != nil {
		return 0, 0, b.next
	}
	return b.Source.Next(off)
}

func TestSpool(t *testing.T) {
	for _, tt := range []struct {
		name string
		r    io.Reader
		want string
	}{
		{"in small pieces", iotest.OneByteReader(strings.NewReader("content")), "<nil>"},
		{"with its end at once", iotest.DataErrReader(strings.NewReader("content")), "<nil>"},
		{"cut off", io.MultiReader(strings.NewReader("con"), iotest.ErrReader(io.ErrUnexpectedEOF)), "unexpected EOF"},
	} {
		got, err := blocks.Spool(t.Context(), formattest.Temp(t), tt.r)
		if fmt.Sprint(err) != tt.want {
			t.Errorf("%s: error %v, want %s", tt.name, err, tt.want)
		}
		if err != nil {
			continue
		}
		if b, err := io.ReadAll(blocks.NewReader(got)); err != nil || string(b) != "content" {
			t.Errorf("%s: %q, %v", tt.name, b, err)
		}
	}
}

func TestHead(t *testing.T) {
	h := blocks.Head{Source: runs{data: "0123456789", at: [][2]int64{{2, 9}}}, N: 5}
	if b, err := io.ReadAll(blocks.NewReader(h)); err != nil || string(b) != "\x00\x00234" {
		t.Errorf("%q, %v", b, err)
	}
	if n, err := h.ReadAt(make([]byte, 3), 4); n != 1 || !errors.Is(err, io.EOF) {
		t.Errorf("reading over the end: %d, %v", n, err)
	}
}

func TestIsZero(t *testing.T) {
	for _, n := range []int{0, 1, 4095, 4096, 4097, 10000} {
		b := make([]byte, n)
		if !blocks.IsZero(b) {
			t.Errorf("%d zeros are not zero", n)
		}
		for _, at := range []int{0, n / 2, n - 1} {
			if at < 0 || at >= n {
				continue
			}
			b[at] = 1
			if blocks.IsZero(b) {
				t.Errorf("byte %d of %d is not seen", at, n)
			}
			b[at] = 0
		}
	}
}
