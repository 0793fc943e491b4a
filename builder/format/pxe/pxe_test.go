package pxe_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/kscratch/kscratch/builder/disk"
	"github.com/kscratch/kscratch/builder/format/blocks"
	"github.com/kscratch/kscratch/builder/format/pxe"
	"github.com/kscratch/kscratch/builder/initrd"
	"github.com/kscratch/kscratch/builder/verity"
	"github.com/kscratch/kscratch/test/fakeworld"
	"github.com/kscratch/kscratch/test/formattest"
)

// unpack returns the members of an archive, in order and by name.
func unpack(t *testing.T, r io.Reader) (names []string, files map[string][]byte) {
	t.Helper()
	files = map[string][]byte{}
	for a := tar.NewReader(r); ; {
		h, err := a.Next()
		if errors.Is(err, io.EOF) {
			return names, files
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
		if files[h.Name], err = io.ReadAll(a); err != nil {
			t.Fatal(err)
		}
	}
}

// A set has all that a boot needs: the digests agree, the script names the
// files, and behind the initrd is a root that its root hash proves.
func TestWrite(t *testing.T) {
	in := fakeworld.Disk(t)
	out := formattest.Same(t, in, func(f *os.File, src blocks.Source) error { return pxe.Write(t.Context(), f, src) })
	names, files := unpack(t, io.NewSectionReader(out, 0, 1<<40))
	if got, want := strings.Join(names, " "), "boot.ipxe cmdline vmlinuz initrd SHA256SUMS"; got != want {
		t.Fatalf("the archive has %s, want %s", got, want)
	}
	var sums strings.Builder
	for _, n := range names[:4] {
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(files[n]), n)
	}
	if string(files[pxe.Sums]) != sums.String() {
		t.Errorf("the digests are\n%swant\n%s", files[pxe.Sums], sums.String())
	}
	cmdline := strings.TrimSpace(string(files[pxe.Cmdline]))
	if !strings.Contains(string(files[pxe.Script]), "\nkernel vmlinuz initrd=initrd "+cmdline+" ${more}\ninitrd initrd\nboot\n") {
		t.Errorf("the script is\n%s", files[pxe.Script])
	}
	tree, err := initrd.Read(files[pxe.Initrd], "initrd")
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := tree.Lookup("init"); !ok {
		t.Error("the initrd has no init")
	}
	image, err := tree.ReadFile(pxe.RootPath)
	if err != nil {
		t.Fatal(err)
	}
	checkRoot(t, image, in, cmdline)
}

// checkRoot wants a disk with the partitions that another has.
func checkRoot(t *testing.T, image []byte, in *os.File, cmdline string) {
	t.Helper()
	r := bytes.NewReader(image)
	if err := disk.Check(r, int64(len(image))); err != nil {
		t.Error(err)
	}
	got, err := disk.Open(r, int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	want, err := disk.Open(in, formattest.Source(t, in).Size())
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []disk.Type{disk.Root, disk.RootVerity} {
		a, b := got.Parts[got.Find(kind)].Part, want.Parts[want.Find(kind)].Part
		if a.GUID != b.GUID || a.Label != b.Label || a.Attrs != b.Attrs || a.Size != b.Size {
			t.Errorf("partition %+v, want %+v", a, b)
		}
	}
	text := regexp.MustCompile(`roothash=([0-9a-f]{64})`).FindStringSubmatch(cmdline)
	if text == nil {
		t.Fatalf("no root hash in %q", cmdline)
	}
	b, err := hex.DecodeString(text[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := verity.Verify(t.Context(), got.Reader(got.Find(disk.Root)), got.Reader(got.Find(disk.RootVerity)), verity.Hash(b)); err != nil {
		t.Error(err)
	}
}

func TestNoNode(t *testing.T) {
	for name, in := range formattest.Disks(t) {
		err := pxe.Write(t.Context(), formattest.Temp(t), formattest.Source(t, in))
		if err == nil || !strings.HasPrefix(err.Error(), "looking for a node on the disk: ") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}
