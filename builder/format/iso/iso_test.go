package iso_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/kscratch/kscratch/builder/format"
	"github.com/kscratch/kscratch/builder/format/blocks"
	"github.com/kscratch/kscratch/builder/format/iso"
	"github.com/kscratch/kscratch/test/fakeworld"
	"github.com/kscratch/kscratch/test/formattest"
)

// A CD is the disk that it was made of but for what is in front of the first
// partition, and that disk comes back.
func TestRoundTrip(t *testing.T) {
	in := fakeworld.Disk(t)
	out := formattest.Same(t, in, func(f *os.File, src blocks.Source) error { return iso.Write(t.Context(), f, src) })
	a, b := make([]byte, 2<<20), make([]byte, 2<<20)
	if _, err := in.ReadAt(a, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := out.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a[:32<<10], b[:32<<10]) || !bytes.Equal(a[1<<20:], b[1<<20:]) || string(b[iso.MagicAt:][:5]) != iso.Magic {
		t.Error("the partition table or the first partition is not the disk's")
	}
	d, err := format.Open(t.Context(), out.Name(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if d.Format != "iso" {
		t.Errorf("the format is %s", d.Format)
	}
	formattest.Equal(t, d, in, formattest.Source(t, in).Size())
	// What is read does not depend on how.
	whole, piece := make([]byte, 64<<10), make([]byte, 1000)
	if _, err := d.ReadAt(whole, 0); err != nil {
		t.Fatal(err)
	}
	for off := 0; off+len(piece) < len(whole); off += 777 {
		if _, err := d.ReadAt(piece, int64(off)); err != nil || !bytes.Equal(piece, whole[off:off+len(piece)]) {
			t.Fatalf("byte %d reads otherwise in pieces (%v)", off, err)
		}
	}
}

func TestErrors(t *testing.T) {
	in := formattest.Disks(t)["odd"]
	if err := iso.Write(t.Context(), formattest.Temp(t), formattest.Source(t, in)); err == nil || !strings.HasPrefix(err.Error(), "looking for a node on the disk: ") {
		t.Errorf("no node: %v", err)
	}
	b := make(formattest.Bytes, 1<<20)
	copy(b[iso.MagicAt-1:], "\x01CD001\x01\x00")
	copy(b[16*2048+40:], "ANOTHER                         ")
	if _, err := iso.Open(b); err == nil || !strings.Contains(err.Error(), `the volume is "ANOTHER", not one of kscratch's`) {
		t.Errorf("another volume: %v", err)
	}
	if _, err := iso.Open(make(formattest.Bytes, 100)); err == nil {
		t.Error("100 bytes are a CD")
	}
}
