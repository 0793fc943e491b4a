package vmdk

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/zlib"

	"github.com/kscratch/kscratch/builder/format/blocks"
	"github.com/kscratch/kscratch/test/formattest"
)

// image is a disk of 1 MiB with content in its first and second grain.
func image(t testing.TB) []byte {
	t.Helper()
	in := formattest.Temp(t)
	if _, err := in.WriteAt(bytes.Repeat([]byte("content."), 10000), 0); err != nil {
		t.Fatal(err)
	}
	if err := in.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Write(t.Context(), &out, formattest.Source(t, in)); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// The markers of a stream lead from its first byte to its last.
func TestMarkers(t *testing.T) {
	b := image(t)
	var got []string
	le := binary.LittleEndian
	for at := overhead * sector; at < len(b); {
		n, size, kind := le.Uint64(b[at:]), int(le.Uint32(b[at+8:])), le.Uint32(b[at+12:])
		if size > 0 {
			got = append(got, "grain")
			at += (12 + size + sector - 1) / sector * sector
			continue
		}
		got = append(got, []string{"end", "table", "directory", "footer"}[kind])
		at += sector + int(n)*sector
	}
	if s, want := strings.Join(got, " "), "grain grain table directory footer end"; s != want {
		t.Errorf("the stream has %s, want %s", s, want)
	}
}

func TestOpenErrors(t *testing.T) {
	le := binary.LittleEndian
	footer := func(b []byte) []byte { return b[len(b)-2*sector:] }
	dir := func(b []byte) []byte { return b[le.Uint64(footer(b)[56:])*sector:] }
	table := func(b []byte) []byte { return b[le.Uint32(dir(b))*sector:] }
	replace := func(old, new string) func(b []byte) []byte {
		return func(b []byte) []byte { return bytes.Replace(b, []byte(old), []byte(new), 1) }
	}
	for _, tt := range []struct {
		name   string
		change func(b []byte) []byte
		want   string
	}{
		{"empty", func(b []byte) []byte { return nil }, "unexpected EOF"},
		{"no magic", func(b []byte) []byte { b[0] = 0; return b }, "there is no header"},
		{"no descriptor", func(b []byte) []byte { le.PutUint64(b[28:], 0); return b }, "descriptor of 20 sectors at sector 0"},
		{"long descriptor", func(b []byte) []byte { le.PutUint64(b[36:], 1<<40); return b }, "descriptor of 1099511627776 sectors"},
		{"kind", replace("streamOptimized", "twoGbMaxExtentX"), `a disk of type "twoGbMaxExtentX"`},
		{"snapshot", replace("parentCID=ffffffff", "parentCID=12345678"), "it is a snapshot"},
		{"cut off", func(b []byte) []byte { return b[:len(b)-sector] }, "there is no footer"},
		{"version", func(b []byte) []byte { footer(b)[4] = 4; return b }, "version 4"},
		{"huge", func(b []byte) []byte { footer(b)[18] = 1; return b }, "at most 2040 GiB"},
		{"no size", func(b []byte) []byte { le.PutUint64(footer(b)[12:], 0); return b }, "a disk of 0 bytes"},
		{"grain", func(b []byte) []byte { footer(b)[20]++; return b }, "grains of 129 sectors"},
		{"tables", func(b []byte) []byte { footer(b)[44]++; return b }, "grain tables of 513 entries"},
		{"compression", func(b []byte) []byte { footer(b)[77]++; return b }, "compression 2"},
		{"directory", func(b []byte) []byte { footer(b)[60] = 1; return b }, "grain directory at sector"},
		{"table far out", func(b []byte) []byte { dir(b)[3] = 1; return b }, "grain table: bytes"},
		{"grain far out", func(b []byte) []byte { table(b)[3] = 1; return b }, "the 65536 bytes at byte 0 of the disk: bytes"},
		{"other grain", func(b []byte) []byte { table(b)[4] = table(b)[0]; return b }, "is for sector 0"},
		{"large grain", func(b []byte) []byte { b[overhead*sector+10] = 3; return b }, "is too large"},
		{"nonsense", func(b []byte) []byte { b[overhead*sector+12] = 0; return b }, "decompressing"},
		{"other content", func(b []byte) []byte { b[overhead*sector+20] ^= 64; return b }, "decompressing"},
	} {
		b := tt.change(image(t))
		im, err := Open(bytes.NewReader(b), int64(len(b)))
		if err == nil {
			_, err = io.Copy(io.Discard, blocks.NewReader(im))
		}
		if err == nil || !strings.HasPrefix(err.Error(), "reading VMDK: ") || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
	}
}

// tiny is an image of 20 sectors: header, descriptor, a grain table with a
// grain of 4 KiB, its directory, and the footer if the directory is not in
// front.
func tiny(t testing.TB, flags uint32, atEnd bool) []byte {
	t.Helper()
	le := binary.LittleEndian
	b := make([]byte, 20*sector)
	head := header(64, 7)
	le.PutUint32(head[8:], flags)
	le.PutUint64(head[20:], 8)
	le.PutUint64(head[36:], 1)
	copy(b, head)
	copy(b[sector:], "createType=\"streamOptimized\"\nparentCID=ffffffff\n")
	le.PutUint32(b[3*sector:], 8) // table, 4 sectors
	le.PutUint32(b[7*sector:], 3) // directory
	grain := b[8*sector:]
	if flags&isCompressed != 0 {
		var z bytes.Buffer
		w := zlib.NewWriter(&z)
		if _, err := w.Write(bytes.Repeat([]byte("content."), 512)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		le.PutUint32(grain[8:], uint32(z.Len()))
		copy(grain[12:], z.Bytes())
	} else {
		copy(grain, bytes.Repeat([]byte("content."), 512))
	}
	if atEnd {
		copy(b[18*sector:], head)
		le.PutUint64(b[56:], dirAtEnd)
	}
	return b
}

var tinies = []struct {
	flags uint32
	atEnd bool
}{{0, false}, {0, true}, {isCompressed | hasMarkers, false}, {isCompressed | hasMarkers, true}}

func TestTiny(t *testing.T) {
	for _, tt := range tinies {
		b := tiny(t, tt.flags, tt.atEnd)
		im, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 64*sector)
		if _, err := im.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		want := make([]byte, 64*sector)
		copy(want, bytes.Repeat([]byte("content."), 512))
		if !bytes.Equal(got, want) {
			t.Errorf("flags %#x: read other than written", tt.flags)
		}
	}
}

func FuzzOpen(f *testing.F) {
	for _, tt := range tinies {
		f.Add(tiny(f, tt.flags, tt.atEnd))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if im, err := Open(bytes.NewReader(b), int64(len(b))); err == nil {
			formattest.Drain(t, im)
		}
	})
}
