package format_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kscratch/kscratch/builder/format"
	"github.com/kscratch/kscratch/builder/format/blocks"
	"github.com/kscratch/kscratch/test/formattest"
)

// sizes are what formats make of the size of a disk.
var sizes = map[string]int64{"vhd": 1 << 20, "gce": 1 << 30}

func writer(t *testing.T, f format.Format) formattest.Write {
	return func(out *os.File, src blocks.Source) error { return f.Write(t.Context(), out, src) }
}

// bootable puts the signature of a boot sector on a disk, so that it is known
// for a raw image.
func bootable(t *testing.T, f *os.File) *os.File {
	t.Helper()
	if _, err := f.WriteAt([]byte{0x55, 0xaa}, 510); err != nil {
		t.Fatal(err)
	}
	return f
}

// anyDisk returns the formats that hold any disk; the others have tests of
// their own.
func anyDisk() []format.Format {
	return slices.DeleteFunc(slices.Clone(format.All), func(f format.Format) bool { return f.Node })
}

// Each format has the same bytes for the same content, and what is read from it
// is that content.
func TestRoundTrip(t *testing.T) {
	for name, in := range formattest.Disks(t) {
		bootable(t, in)
		for _, f := range anyDisk() {
			t.Run(f.Name+"/"+name, func(t *testing.T) {
				out := formattest.Same(t, in, writer(t, f))
				d, err := format.Open(t.Context(), out.Name(), t.TempDir())
				if err != nil {
					t.Fatal(err)
				}
				defer d.Close()
				if want := strings.TrimSuffix(f.Name, "-zstd"); d.Format != want {
					t.Errorf("the format is %s, want %s", d.Format, want)
				}
				size := formattest.Source(t, in).Size()
				if unit := sizes[f.Name]; unit > 0 {
					size = blocks.RoundUp(size, unit)
				}
				formattest.Equal(t, d, in, size)
			})
		}
	}
}

// Holes of the content take no room in files that may have holes, and little in
// the others.
func TestHolesStayHoles(t *testing.T) {
	in := formattest.Disks(t)["holes"]
	for _, f := range anyDisk() {
		out := formattest.Temp(t)
		if err := f.Write(t.Context(), out, formattest.NoHoles{Source: formattest.Source(t, in)}); err != nil {
			t.Fatal(err)
		}
		stored := int64(0)
		src := formattest.Source(t, out)
		for off := int64(0); off < src.Size(); {
			start, end, err := src.Next(off)
			if err != nil {
				t.Fatal(err)
			}
			stored, off = stored+end-start, end
		}
		if stored > 5<<20 {
			t.Errorf("%s: a disk with less than 4 MiB of content takes %d KiB", f.Name, stored>>10)
		}
	}
}

func TestParse(t *testing.T) {
	for _, tt := range []struct{ list, want string }{
		{"raw", ".raw"},
		{"qcow2,raw.zst", ".qcow2 .raw.zst"},
		{"", `format "" is not known; known are raw, raw.zst, qcow2, qcow2-zstd, vhd, vmdk, ova, iso, pxe, gce`},
		{"raw,vdi", `format "vdi" is not known; known are raw, raw.zst, qcow2, qcow2-zstd, vhd, vmdk, ova, iso, pxe, gce`},
		{"raw,vhd,raw", `format "raw" is named twice`},
	} {
		fs, err := format.Parse(tt.list)
		var got []string
		for _, f := range fs {
			got = append(got, f.Ext)
		}
		if err != nil {
			got = []string{err.Error()}
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%q: %s, want %s", tt.list, s, tt.want)
		}
	}
}

func TestFileName(t *testing.T) {
	vhd, err := format.Parse("vhd")
	if err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		"out/master.raw": "out/master.vhd", "a.raw.zst": "a.vhd", "a.zstd.qcow2": "a.vhd", "a.gce.tar.gz": "a.vhd",
		"disk": "disk.vhd", "v1.2.img": "v1.2.vhd", "a.qcow2": "a.vhd",
	} {
		if got := vhd[0].FileName(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// The manual has each format with its ending and its use.
func TestDocs(t *testing.T) {
	b, err := os.ReadFile("../../docs/formats.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range format.All {
		row := "\n| `" + f.Name + "` | `" + f.Ext + "` | " + f.For + " |"
		if !strings.Contains(string(b), row) {
			t.Errorf("docs/formats.md has no row %s", row)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	gz, zst := written(t, "gce"), written(t, "raw.zst")
	for _, tt := range []struct {
		name string
		body []byte
		want string
	}{
		{"empty", nil, "its format is not known"},
		{"text", bytes.Repeat([]byte("text"), 1000), "none of qcow2, vmdk, raw.zst, gce, vhd, ova, iso"},
		{"tar", append(append(make([]byte, 257), "ustar"...), make([]byte, 250)...), "none that begins with an OVF descriptor"},
		{"vhdx", append([]byte("vhdxfile"), make([]byte, 1000)...), "VHDX is not supported"},
		{"odd raw", append(bootSector(), 0), "a disk of 513 bytes: want a positive multiple of 512"},
		{"gzip of nothing", gz[:10], "reading gce: unexpected EOF"},
		{"gce cut off", gz[:len(gz)/2], "unexpected EOF"},
		{"gce without its checksum", gz[:len(gz)-1], "unexpected EOF"},
		{"gce with other content", flipped(gz, len(gz)-6), "invalid checksum"},
		{"zst cut off", zst[:len(zst)-1], "unexpected EOF"},
		{"zst with other content", flipped(zst, len(zst)-1), "reading raw.zst: CRC check failed"},
	} {
		path := filepath.Join(t.TempDir(), "disk")
		if err := os.WriteFile(path, tt.body, 0o600); err != nil {
			t.Fatal(err)
		}
		spool := t.TempDir()
		_, err := format.Open(t.Context(), path, spool)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
		if left, err := os.ReadDir(spool); err != nil || len(left) > 0 {
			t.Errorf("%s: left %v, %v", tt.name, left, err)
		}
	}
	if _, err := format.Open(t.Context(), os.DevNull, t.TempDir()); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("a device: %v", err)
	}
}

func bootSector() []byte { return append(make([]byte, 510), 0x55, 0xaa) }

// written returns a disk of a boot sector in a format.
func written(t *testing.T, name string) []byte {
	t.Helper()
	fs, err := format.Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	in, out := formattest.Temp(t), formattest.Temp(t)
	if _, err := in.Write(bootSector()); err != nil {
		t.Fatal(err)
	}
	if err := fs[0].Write(t.Context(), out, formattest.Source(t, in)); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func flipped(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}

func TestWriteErrors(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	in := formattest.Disks(t)["holes"]
	for _, f := range anyDisk() {
		if err := f.Write(ctx, formattest.Temp(t), formattest.Source(t, in)); !errors.Is(err, context.Canceled) {
			t.Errorf("%s, cancelled: %v", f.Name, err)
		}
		closed := formattest.Temp(t)
		closed.Close()
		if err := f.Write(t.Context(), closed, formattest.Source(t, in)); !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s into a closed file: %v", f.Name, err)
		}
		empty := formattest.Temp(t)
		if err := f.Write(t.Context(), formattest.Temp(t), formattest.Source(t, empty)); err == nil || !strings.Contains(err.Error(), "a disk of 0 bytes") {
			t.Errorf("%s of nothing: %v", f.Name, err)
		}
		short := longer{formattest.Source(t, in)}
		if err := f.Write(t.Context(), formattest.Temp(t), short); err == nil || !strings.Contains(err.Error(), "unexpected EOF") {
			t.Errorf("%s of a disk that ends early: %v", f.Name, err)
		}
	}
}

// longer is a source with less content than it promises.
type longer struct{ *blocks.File }

func (l longer) Size() int64 { return l.File.Size() + 1<<20 }

func (l longer) Next(off int64) (start, end int64, err error) { return off, l.Size(), nil }
