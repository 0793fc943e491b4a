package ova

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/kscratch/kscratch/builder/format/vmdk"
	"github.com/kscratch/kscratch/test/formattest"
)

// An appliance is what its manifest says, and its disk is the one given.
func TestWrite(t *testing.T) {
	for name, in := range formattest.Disks(t) {
		out := formattest.Temp(t)
		if err := Write(t.Context(), out, formattest.Source(t, in)); err != nil {
			t.Fatal(err)
		}
		files := map[string][]byte{}
		var order []string
		for r := tar.NewReader(out); ; {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if h.Format != tar.FormatUSTAR || h.ModTime.Unix() != 0 || h.Uid != 0 {
				t.Errorf("%s: header %+v", name, h)
			}
			order = append(order, h.Name)
			if files[h.Name], err = io.ReadAll(r); err != nil {
				t.Fatal(err)
			}
		}
		if got, want := strings.Join(order, " "), Descriptor+" "+Manifest+" "+Disk; got != want {
			t.Errorf("%s: the archive has %s, want %s", name, got, want)
		}
		want := fmt.Sprintf("SHA256(%s)= %x\nSHA256(%s)= %x\n",
			Descriptor, sha256.Sum256(files[Descriptor]), Disk, sha256.Sum256(files[Disk]))
		if got := string(files[Manifest]); got != want {
			t.Errorf("%s: the manifest is\n%s, want\n%s", name, got, want)
		}
		disk, err := vmdk.Open(bytes.NewReader(files[Disk]), int64(len(files[Disk])))
		if err != nil {
			t.Fatal(err)
		}
		formattest.Equal(t, disk, in, formattest.Source(t, in).Size())
	}
}

func TestTooLarge(t *testing.T) {
	_, err := archive(make([]byte, descriptorSize), make([]byte, manifestSize), 9<<30)
	if err == nil || !strings.Contains(err.Error(), "writing OVA: kscratch-disk1.vmdk of 9663676416 bytes: ") {
		t.Errorf("a disk of 9 GiB: %v", err)
	}
}
