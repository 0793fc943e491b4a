package disk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/kscratch/kscratch/builder/fat"
	"github.com/kscratch/kscratch/layers"
)

func guid(b byte) [16]byte {
	return [16]byte{b, 2, 3, 4, 5, 6, 0x47, 8, 0x89, 10, 11, 12, 13, 14, 15, b}
}

func fill(s string) func(context.Context, *Region) error {
	return Copy(func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(s)), nil })
}

func espTree(t testing.TB) *layers.Tree {
	t.Helper()
	tr, err := layers.Merge(layers.Of("esp", "", layers.Regular("EFI/BOOT/BOOTX64.EFI", 0o644, "o", []byte("MZ"))))
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// parts is a node's disk in small.
func parts(t testing.TB) []Part {
	tr := espTree(t)
	return []Part{
		{Label: "esp", Type: ESP, GUID: guid(1), Size: fat.MinSize, Fill: func(ctx context.Context, r *Region) error {
			return fat.Write(ctx, tr, r, r.Size(), fat.Options{Label: "ESP", Hidden: 2048})
		}},
		{Label: "root-a_1", Type: Root, GUID: guid(2), Attrs: ReadOnly, Size: 5000, Fill: fill(strings.Repeat("root", 1250))},
		{Label: "root-a-verity", Type: RootVerity, GUID: guid(3), Attrs: ReadOnly | NoAuto, Size: 1 << 20, Fill: fill("hash")},
		{Label: "kscratch-state", Type: Var, GUID: guid(4), Attrs: GrowFS, Size: 3<<20 + 1},
	}
}

func temp(t testing.TB) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func image(t testing.TB) (*os.File, Plan) {
	t.Helper()
	p, err := Layout(parts(t), Options{GUID: guid(9)})
	if err != nil {
		t.Fatal(err)
	}
	f := temp(t)
	if err := Write(context.Background(), f, p); err != nil {
		t.Fatal(err)
	}
	return f, p
}

func TestLayout(t *testing.T) {
	p, err := Layout(parts(t), Options{GUID: guid(9)})
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("%d MiB:", p.Size>>20)
	for _, part := range p.Parts {
		got += fmt.Sprintf(" %s@%d+%d", part.Label, part.Offset>>20, part.Size>>20)
	}
	if want := "42 MiB: esp@1+34 root-a_1@35+1 root-a-verity@36+1 kscratch-state@37+4"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if p, err = Layout(nil, Options{Size: 100<<20 + 1}); err != nil || p.Size != 100<<20+512 {
		t.Errorf("size is %d (%v)", p.Size, err)
	}
	for _, tc := range []struct {
		p    Part
		o    Options
		want string
	}{
		{Part{Type: "esp", Size: 1}, Options{}, `planning partition 1 "": type "esp": not a GUID`},
		{Part{Type: ESP, Label: "a"}, Options{}, `planning partition 1 "a": size of 0 bytes`},
		{Part{Type: ESP, Label: strings.Repeat("x", 37), Size: 1}, Options{}, "label of 37 characters"},
		{Part{Type: ESP, Label: "😀", Size: 1}, Options{}, "label has a character U+1F600"},
		{Part{Type: ESP, Size: 1 << 41}, Options{}, "disk would have more than"},
		{Part{Type: ESP, Size: 1}, Options{Align: 512}, "alignment of 512 bytes"},
		{Part{Type: ESP, Size: 1}, Options{Size: 1 << 42}, "size of 4398046511104 bytes"},
	} {
		if _, err := Layout([]Part{tc.p}, tc.o); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("error %v, want %q", err, tc.want)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	f, p := image(t)
	d, err := Open(f, p.Size)
	if err != nil {
		t.Fatal(err)
	}
	if d.GUID != p.GUID || d.Backup || len(d.Parts) != len(p.Parts) {
		t.Errorf("read %x with %d partitions, backup %t", d.GUID, len(d.Parts), d.Backup)
	}
	for i, got := range d.Parts {
		want := p.Parts[i]
		want.Fill = nil
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("partition %d is %v, want %v", i+1, got, want)
		}
	}
	b := make([]byte, 5001)
	if _, err := d.Reader(d.Find(Root)).ReadAt(b, 0); err != nil || string(b) != strings.Repeat("root", 1250)+"\x00" {
		t.Errorf("root has other content (%v)", err)
	}
	esp, err := d.ESP()
	if err != nil {
		t.Fatal(err)
	}
	files, err := esp.Tree("esp")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := files.ReadFile("EFI/BOOT/BOOTX64.EFI"); err != nil || string(b) != "MZ" {
		t.Errorf("loader is %q (%v)", b, err)
	}
	if _, err := f.WriteAt([]byte("x"), 600); err != nil {
		t.Fatal(err)
	}
	if d, err = Open(f, p.Size); err != nil || !d.Backup || len(d.Parts) != 4 {
		t.Errorf("with a damaged table: %v %v", d, err)
	}
}

func TestSameBytesAndHoles(t *testing.T) {
	sum := func() (s [32]byte) {
		f, p := image(t)
		h := sha256.New()
		if n, err := io.Copy(h, io.NewSectionReader(f, 0, p.Size)); err != nil || n != p.Size {
			t.Fatal(n, err)
		}
		st, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if used := st.Sys().(*syscall.Stat_t).Blocks * 512; used > 1<<20 {
			t.Errorf("image takes %d bytes on disk", used)
		}
		return [32]byte(h.Sum(nil))
	}
	if first, second := sum(), sum(); first != second {
		t.Error("two images of one plan differ")
	}
}

func TestRegion(t *testing.T) {
	f := temp(t)
	p, err := Layout([]Part{{Type: Root, Size: 1 << 20}, {Type: Var, Size: 1 << 20}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := Prepare(f, p); err != nil {
		t.Fatal(err)
	}
	r := p.Region(f, 0)
	want := make([]byte, r.Size())
	for i, w := range []struct {
		off int64
		b   []byte
	}{
		{10, bytes.Repeat([]byte{1}, 20000)},
		{5000, make([]byte, 9000)}, // zeros over data must be written
		{20000, append(make([]byte, 30000), 5)},
		{100000, append(append([]byte{1}, make([]byte, 50000)...), 2)},
		{90000, []byte("below")},
		{1<<20 - 3, []byte("end")},
	} {
		copy(want[w.off:], w.b)
		if n, err := r.WriteAt(w.b, w.off); n != len(w.b) || err != nil {
			t.Fatalf("write %d: %d, %v", i, n, err)
		}
	}
	got := make([]byte, r.Size())
	if _, err := r.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("read other than written (%v)", err)
	}
	if _, err := r.WriteAt([]byte("end+"), 1<<20-3); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("writing over the end: %v", err)
	}
	if _, err := r.ReadAt(make([]byte, 1), 1<<20); !errors.Is(err, io.EOF) {
		t.Errorf("reading over the end: %v", err)
	}
	r.Seek(-2, io.SeekEnd)
	if n, err := r.Write([]byte("ND")); n != 2 || err != nil {
		t.Error(n, err)
	}
}

func TestWriteErrors(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*Plan)
		want   string
	}{
		{"no disk GUID", func(p *Plan) { p.GUID = [16]byte{} }, "disk has no GUID"},
		{"no GUID", func(p *Plan) { *p = p.WithGUID(1, [16]byte{}) }, `partition 2 "root-a_1" has no GUID`},
		{"same GUID", func(p *Plan) { *p = p.WithGUID(1, guid(1)) }, "partitions 1 and 2 have the same GUID"},
		{"too much", func(p *Plan) { p.Parts[1].Fill = fill(strings.Repeat("x", 1<<20+1)) }, `filling partition 2 "root-a_1": writing`},
	} {
		p, err := Layout(parts(t), Options{GUID: guid(9)})
		if err != nil {
			t.Fatal(err)
		}
		tc.change(&p)
		if err := Write(context.Background(), temp(t), p); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want %q", tc.name, err, tc.want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	p, err := Layout(parts(t), Options{GUID: guid(9)})
	if err != nil {
		t.Fatal(err)
	}
	if err := Write(ctx, temp(t), p); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	p, err := Layout([]Part{{Type: Root, GUID: guid(1), Size: 1}}, Options{GUID: guid(9), Align: 4096})
	if err != nil {
		f.Fatal(err)
	}
	disk := temp(f)
	if err := Prepare(disk, p); err != nil {
		f.Fatal(err)
	}
	if err := WriteTable(disk, p); err != nil {
		f.Fatal(err)
	}
	head := make([]byte, 34*sectorSize)
	if _, err := disk.ReadAt(head, 0); err != nil {
		f.Fatal(err)
	}
	tail := make([]byte, 33*sectorSize)
	if _, err := disk.ReadAt(tail, p.Size-int64(len(tail))); err != nil {
		f.Fatal(err)
	}
	f.Add(head)
	f.Add(append(head, tail...)) // as small as a disk can be
	f.Fuzz(func(t *testing.T, b []byte) {
		Check(bytes.NewReader(b), int64(len(b)))
		d, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		for i := range d.Parts {
			io.Copy(io.Discard, d.Reader(i))
		}
		if esp, err := d.ESP(); err == nil {
			esp.Tree("fuzz")
		}
	})
}
