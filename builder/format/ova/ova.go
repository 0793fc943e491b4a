// Package ova writes a disk as a virtual appliance for VMware and VirtualBox:
// an OVF descriptor, its manifest and a stream-optimized VMDK in a ustar
// archive. The source is DMTF DSP0243, "Open Virtualization Format" 1.1.
//
// The machine has UEFI, two processors, 4 GiB of memory, a SATA disk and one
// network. There is no certificate.
package ova

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"fmt"
	"io"

	"github.com/kscratch/kscratch/builder/format/blocks"
	"github.com/kscratch/kscratch/builder/format/vmdk"
)

// The files of an appliance, in the order that the specification asks for.
const (
	Descriptor = "kscratch.ovf"
	Manifest   = "kscratch.mf"
	Disk       = "kscratch-disk1.vmdk"
)

// descriptor takes the name of the disk's file, its size in bytes, and the
// size of the disk in bytes.
//
//go:embed descriptor.xml
var descriptor string

const (
	block = 512 // bytes, of a tar archive
	// descriptorSize is the size in bytes to which blanks fill the
	// descriptor. It comes first and tells the size of the disk's file,
	// which is known last.
	descriptorSize = 8 * block
	manifestSize   = len("SHA256()= \n")*2 + len(Descriptor) + len(Disk) + sha256.Size*4
	diskAt         = int64(block + descriptorSize + block + (manifestSize+block-1)/block*block + block)
)

// Write writes src to f. A VMDK of more than 8 GiB does not fit into a ustar
// archive and is an error.
func Write(ctx context.Context, f blocks.Output, src blocks.Source) error {
	size := blocks.RoundUp(src.Size(), blocks.Sector)
	disk := io.NewOffsetWriter(f, diskAt)
	sum := sha256.New()
	n := &counter{}
	if err := vmdk.Write(ctx, io.MultiWriter(disk, sum, n), src); err != nil {
		return err
	}
	ovf := fmt.Appendf(nil, descriptor, Disk, n.n, size)
	if len(ovf) > descriptorSize {
		return fmt.Errorf("internal error: OVF descriptor of %d bytes", len(ovf))
	}
	ovf = append(ovf, bytes.Repeat([]byte("\n"), descriptorSize-len(ovf))...)
	mf := fmt.Appendf(nil, "SHA256(%s)= %x\nSHA256(%s)= %x\n", Descriptor, sha256.Sum256(ovf), Disk, sum.Sum(nil))
	head, err := archive(ovf, mf, n.n)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(head, 0); err != nil {
		return err
	}
	return f.Truncate(diskAt + blocks.RoundUp(n.n, block) + 2*block)
}

// archive returns the archive up to the content of the disk's file.
func archive(ovf, mf []byte, disk int64) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range []struct {
		name string
		size int64
		body []byte
	}{{Descriptor, int64(len(ovf)), ovf}, {Manifest, int64(len(mf)), mf}, {Disk, disk, nil}} {
		if err := w.WriteHeader(&tar.Header{Name: m.name, Size: m.size, Mode: 0o644, Format: tar.FormatUSTAR}); err != nil {
			return nil, fmt.Errorf("writing OVA: %s of %d bytes: %w", m.name, m.size, err)
		}
		if _, err := w.Write(m.body); err != nil {
			return nil, fmt.Errorf("writing OVA: %s: %w", m.name, err)
		}
	}
	if int64(b.Len()) != diskAt {
		return nil, fmt.Errorf("internal error: the disk of an OVA is at byte %d, not %d", b.Len(), diskAt)
	}
	return b.Bytes(), nil
}

type counter struct{ n int64 }

func (c *counter) Write(b []byte) (int, error) {
	c.n += int64(len(b))
	return len(b), nil
}
