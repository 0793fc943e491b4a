// Package pxe writes the image of a node as a set of files to boot it from over
// the network, with no disk written beforehand: a tar archive of
//
//	boot.ipxe   script for iPXE, https://ipxe.org/scripting
//	cmdline     kernel command line, which has the root hash
//	vmlinuz     kernel
//	initrd      initrd of the image, and behind it the root
//	SHA256SUMS  digests of the others, as sha256sum(1) checks them
//
// The root comes as one more cpio archive behind the initrd's own, compressed.
// In it is one file, [RootPath]: a disk of the two partitions that the root and
// its hash tree are on. The initrd attaches it to a loop device, and from there
// on all is as on a disk; each block is verified when it is read. The node needs
// memory for it: the size of the root and, while the kernel unpacks it, that of
// the archive.
//
// Not supported: roots of 4 GiB and more, which the archive cannot hold, and
// fetching blocks as they are needed.
package pxe

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/kscratch/kscratch/builder/disk"
	"github.com/kscratch/kscratch/builder/format/blocks"
	"github.com/kscratch/kscratch/builder/format/node"
	"github.com/kscratch/kscratch/builder/initrd"
	"github.com/kscratch/kscratch/builder/uki"
	"github.com/kscratch/kscratch/layers"
)

// The files of a set, in the order of the archive.
const (
	Script  = "boot.ipxe"
	Cmdline = "cmdline"
	Kernel  = "vmlinuz"
	Initrd  = "initrd"
	Sums    = "SHA256SUMS"
)

// RootPath is where the disk with the root is in the initrd.
const RootPath = "kscratch/root.img"

// script takes the name of the image and the command line. What an address is
// relative to is the script's own.
const script = `#!ipxe
# %s
# The pod CIDR may come from a script before this one: set pod_cidr 10.244.1.0/24
isset ${pod_cidr} && set more kscratch.pod_cidr=${pod_cidr} ||
kernel %s initrd=%s %s ${more}
initrd %s
boot
`

const block = 512 // bytes, of a tar archive

// Write writes src, the image of a node, to f.
func Write(ctx context.Context, f blocks.Output, src blocks.Source) error {
	img, err := node.Open(src)
	if err != nil {
		return err
	}
	w := &archive{ctx: ctx, f: f, time: img.Time}
	text := fmt.Appendf(nil, script, img.Name, Kernel, Initrd, img.Cmdline, Initrd)
	for _, m := range []struct {
		name  string
		write func(io.Writer) error
	}{
		{Script, content(text)}, {Cmdline, content([]byte(img.Cmdline + "\n"))},
		{Kernel, section(img.Kernel)},
		{Initrd, func(w io.Writer) error { return writeInitrd(ctx, w, img) }},
	} {
		if err := w.add(m.name, m.write); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	if err := w.add(Sums, content(bytes.Clone(w.sums.Bytes()))); err != nil {
		return err
	}
	return f.Truncate(w.at + 2*block)
}

func content(b []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	}
}

func section(s uki.Section) func(io.Writer) error {
	return func(w io.Writer) error {
		r, err := s.Open()
		if err != nil {
			return err
		}
		_, err = io.Copy(w, r)
		return errors.Join(err, r.Close())
	}
}

// archive writes members one after the other; the size of each is known when
// it has been written.
type archive struct {
	ctx  context.Context
	f    blocks.Output
	time time.Time
	at   int64
	sums bytes.Buffer
}

func (a *archive) add(name string, write func(io.Writer) error) error {
	sum := sha256.New()
	body := &counter{ctx: a.ctx, w: io.MultiWriter(io.NewOffsetWriter(a.f, a.at+block), sum)}
	if err := write(body); err != nil {
		return err
	}
	var head bytes.Buffer
	h := &tar.Header{Name: name, Size: body.n, Mode: 0o644, ModTime: a.time, Format: tar.FormatUSTAR}
	if err := tar.NewWriter(&head).WriteHeader(h); err != nil {
		return err
	}
	if _, err := a.f.WriteAt(head.Bytes(), a.at); err != nil {
		return err
	}
	fmt.Fprintf(&a.sums, "%x  %s\n", sum.Sum(nil), name)
	a.at += block + blocks.RoundUp(body.n, block)
	return nil
}

type counter struct {
	ctx context.Context
	w   io.Writer
	n   int64
}

func (c *counter) Write(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// writeInitrd writes the initrd of the image and an archive with the root.
func writeInitrd(ctx context.Context, w io.Writer, img node.Image) error {
	own := &counter{ctx: ctx, w: w}
	if err := section(img.Initrd)(own); err != nil {
		return err
	}
	// A section ends anywhere; an archive wants a multiple of 4.
	if _, err := w.Write(make([]byte, -own.n&3)); err != nil {
		return err
	}
	root, err := rootDisk(img)
	if err != nil {
		return err
	}
	t, err := layers.Merge(layers.Of("root", "", root))
	if err != nil {
		return err
	}
	_, err = initrd.Write(ctx, w, t, initrd.Options{Time: img.Time})
	return err
}

// rootDisk returns a disk of the partitions of the root as a file.
func rootDisk(img node.Image) (layers.File, error) {
	var parts []disk.Part
	for _, n := range []int{node.Verity, node.Root} {
		parts = append(parts, img.Disk.Parts[n].Part)
	}
	plan, err := disk.Layout(parts, disk.Options{GUID: img.Disk.GUID})
	if err != nil {
		return layers.File{}, err
	}
	last := plan.Parts[len(plan.Parts)-1]
	table := &ends{size: plan.Size, head: make([]byte, plan.Parts[0].Offset), tail: make([]byte, plan.Size-last.Offset-last.Size)}
	if err := disk.WriteTable(table, plan); err != nil {
		return layers.File{}, err
	}
	f := layers.File{Path: RootPath, Mode: 0o400, Owner: "image", Size: plan.Size}
	f.Open = func() (io.ReadCloser, error) {
		rs := []io.Reader{bytes.NewReader(table.head)}
		for i, n := range []int{node.Verity, node.Root} {
			size := plan.Parts[i].Size - img.Disk.Parts[n].Size
			rs = append(rs, img.Disk.Reader(n), io.LimitReader(zeros{}, size))
		}
		return io.NopCloser(io.MultiReader(append(rs, bytes.NewReader(table.tail))...)), nil
	}
	return f, nil
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// ends is a file of which there are the first and the last bytes: where the
// partition tables are.
type ends struct {
	size       int64
	head, tail []byte
}

// at returns what there is of the file from an offset on.
func (e *ends) at(off int64) []byte {
	if off >= 0 && off < int64(len(e.head)) {
		return e.head[off:]
	}
	if from := off - (e.size - int64(len(e.tail))); from >= 0 && from < int64(len(e.tail)) {
		return e.tail[from:]
	}
	return nil
}

// WriteAt writes into one of the ends.
func (e *ends) WriteAt(b []byte, off int64) (int, error) {
	if n := copy(e.at(off), b); n < len(b) {
		return n, fmt.Errorf("writing %d bytes at byte %d of a partition table: %w", len(b), off, fs.ErrInvalid)
	}
	return len(b), nil
}

// ReadAt reads from one of the ends.
func (e *ends) ReadAt(b []byte, off int64) (int, error) {
	n := copy(b, e.at(off))
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}
