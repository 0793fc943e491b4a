package vhd

import (
	"encoding/binary"
	"os"
	"strings"
	"testing"

	"github.com/kscratch/kscratch/test/formattest"
)

func image(t testing.TB) []byte {
	t.Helper()
	in, out := formattest.Temp(t), formattest.Temp(t)
	if _, err := in.Write(make([]byte, 512)); err != nil {
		t.Fatal(err)
	}
	if err := Write(t.Context(), out, formattest.Source(t, in)); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOpenErrors(t *testing.T) {
	be := binary.BigEndian
	// edit changes the footer and makes its checksum right.
	edit := func(change func(footer []byte)) func(b []byte) []byte {
		return func(b []byte) []byte {
			f := b[len(b)-footerSize:]
			change(f)
			be.PutUint32(f[64:], checksum(f))
			return b
		}
	}
	for _, tt := range []struct {
		name   string
		change func(b []byte) []byte
		want   string
	}{
		{"empty", func(b []byte) []byte { return nil }, "0 bytes have no footer"},
		{"cut off", func(b []byte) []byte { return b[:len(b)-1] }, "are no footer"},
		{"checksum", func(b []byte) []byte { b[len(b)-1] = 1; return b }, "another checksum"},
		{"dynamic", edit(func(f []byte) { f[63] = 3 }), "a disk of type 3: only fixed disks are read"},
		{"too long", edit(func(f []byte) { be.PutUint64(f[48:], 1<<20+1) }), "promises a disk of 1048577 bytes, and the file has 1048576"},
		{"negative", edit(func(f []byte) { f[48] = 255 }), "promises a disk of"},
	} {
		_, err := Open(formattest.Bytes(tt.change(image(t))))
		if err == nil || !strings.HasPrefix(err.Error(), "reading VHD: ") || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
	}
}

// Two disks have one identifier if, and only if, they have the same content.
func TestIdentifier(t *testing.T) {
	ids := map[string]string{}
	for name, in := range formattest.Disks(t) {
		out := formattest.Temp(t)
		if err := Write(t.Context(), out, formattest.Source(t, in)); err != nil {
			t.Fatal(err)
		}
		st, err := out.Stat()
		if err != nil {
			t.Fatal(err)
		}
		id := make([]byte, 16)
		if _, err := out.ReadAt(id, st.Size()-footerSize+68); err != nil {
			t.Fatal(err)
		}
		if other, ok := ids[string(id)]; ok {
			t.Errorf("%s and %s have the same identifier", name, other)
		}
		ids[string(id)] = name
		if id[6]>>4 != 8 || id[8]>>6 != 2 {
			t.Errorf("%s: %x is no UUID of version 8", name, id)
		}
	}
}

// Each way through the appendix of the specification, by hand.
func TestGeometry(t *testing.T) {
	for _, tt := range []struct {
		mib                     int64
		cylinders, heads, track uint32
	}{
		{1, 30, 4, 17},
		{127, 1019, 15, 17},
		{1024, 2080, 16, 63},
		{2040, 4144, 16, 63},
		{40 << 10, 20560, 16, 255},
		{200 << 10, 65535, 16, 255},
	} {
		want := tt.cylinders<<16 | tt.heads<<8 | tt.track
		if got := geometry(tt.mib << 20); got != want {
			t.Errorf("%d MiB: %d cylinders, %d heads, %d sectors, want %d, %d, %d",
				tt.mib, got>>16, got>>8&255, got&255, tt.cylinders, tt.heads, tt.track)
		}
	}
}

func FuzzOpen(f *testing.F) {
	b := image(f)
	f.Add(b[len(b)-2*footerSize:])
	f.Fuzz(func(t *testing.T, b []byte) {
		if src, err := Open(formattest.Bytes(b)); err == nil {
			formattest.Drain(t, src)
		}
	})
}
