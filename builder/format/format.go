// Package format lists the formats of disk images that kscratch writes and
// reads, and finds the format of a file by its content. Each format is a
// package of its own below this one; docs/formats.md says what each is for.
package format

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/kscratch/kscratch/builder/format/blocks"
	"github.com/kscratch/kscratch/builder/format/gce"
	"github.com/kscratch/kscratch/builder/format/iso"
	"github.com/kscratch/kscratch/builder/format/ova"
	"github.com/kscratch/kscratch/builder/format/pxe"
	"github.com/kscratch/kscratch/builder/format/qcow2"
	"github.com/kscratch/kscratch/builder/format/vhd"
	"github.com/kscratch/kscratch/builder/format/vmdk"
	"github.com/kscratch/kscratch/builder/format/zst"
	"github.com/kscratch/kscratch/ignition/field"
)

// Format is a way to write a disk image. Exactly one of Stream and File is
// there.
type Format struct {
	Name string // as --format has it
	Ext  string // what the names of its files end with, the dot included
	For  string // who takes it
	Node bool   // only of the image of a node; else of any disk

	// Stream writes a disk from its first byte to its last, so that it can
	// go to a network as well.
	Stream func(ctx context.Context, w io.Writer, src blocks.Source) error
	// File writes a disk to a new file at any place, holes included.
	File func(ctx context.Context, f blocks.Output, src blocks.Source) error
}

// All are the formats. The first one is the default.
var All = []Format{
	{Name: "raw", Ext: ".raw", For: "QEMU, bare metal", File: writeRaw},
	{Name: "raw.zst", Ext: ".raw.zst", For: "downloads", Stream: zst.Write},
	{Name: "qcow2", Ext: ".qcow2", For: "QEMU, libvirt, OpenStack, KubeVirt", File: writeQcow2},
	{Name: "qcow2-zstd", Ext: ".zstd.qcow2", For: "the same with QEMU 5.1 or later", File: writeQcow2Zstd},
	{Name: "vhd", Ext: ".vhd", For: "Azure, Hyper-V", File: vhd.Write},
	{Name: "vmdk", Ext: ".vmdk", For: "VMware", Stream: vmdk.Write},
	{Name: "ova", Ext: ".ova", For: "VMware, VirtualBox", File: ova.Write},
	{Name: "iso", Ext: ".iso", For: "CD drives, virtual media of servers", File: iso.Write, Node: true},
	{Name: "pxe", Ext: ".pxe.tar", For: "network boot with iPXE", File: pxe.Write, Node: true},
	{Name: "gce", Ext: ".gce.tar.gz", For: "Google Compute Engine", Stream: gce.Write},
}

func writeRaw(ctx context.Context, f blocks.Output, src blocks.Source) error {
	return blocks.Copy(ctx, f, src, nil, nil)
}

func writeQcow2(ctx context.Context, f blocks.Output, src blocks.Source) error {
	return qcow2.Write(ctx, f, src, qcow2.Options{})
}

func writeQcow2Zstd(ctx context.Context, f blocks.Output, src blocks.Source) error {
	return qcow2.Write(ctx, f, src, qcow2.Options{Compress: true})
}

// Write writes src to f, a new, empty file. The same content gives the same
// bytes.
func (f Format) Write(ctx context.Context, out *os.File, src blocks.Source) error {
	if err := blocks.Check(src.Size()); err != nil {
		return fmt.Errorf("writing %s: %w", f.Name, err)
	}
	write := f.File
	if f.Stream != nil {
		write = func(ctx context.Context, _ blocks.Output, src blocks.Source) error { return f.Stream(ctx, out, src) }
	}
	if err := write(ctx, out, src); err != nil {
		return fmt.Errorf("writing %s: %w", f.Name, err)
	}
	return nil
}

// FileName returns the name of a disk image in this format for one that is
// there: with another ending.
func (f Format) FileName(path string) string {
	ext := filepath.Ext(path)
	for _, known := range All {
		if strings.HasSuffix(path, known.Ext) && len(known.Ext) > len(ext) {
			ext = known.Ext
		}
	}
	return strings.TrimSuffix(path, ext) + f.Ext
}

// Parse returns the formats that a list, separated by commas, names.
func Parse(list string) ([]Format, error) {
	var out []Format
	for name := range strings.SplitSeq(list, ",") {
		f, ok := find(All, name)
		if !ok {
			return nil, fmt.Errorf("format %q is not known; known are %s%s", name, strings.Join(Names(), ", "), hint(name))
		}
		if _, twice := find(out, name); twice {
			return nil, fmt.Errorf("format %q is named twice", name)
		}
		out = append(out, f)
	}
	return out, nil
}

func hint(name string) string {
	if h := field.DidYouMean(name, Names()); h != "" {
		return "; " + h
	}
	return ""
}

func find(in []Format, name string) (Format, bool) {
	for _, f := range in {
		if f.Name == name {
			return f, true
		}
	}
	return Format{}, false
}

// Names returns the names of all formats.
func Names() (names []string) {
	for _, f := range All {
		names = append(names, f.Name)
	}
	return names
}

// Disk is a disk image that is open for reading.
type Disk struct {
	blocks.Source
	Format string       // the name of its format
	File   *blocks.File // that it is in

	close func() error
}

// Close closes the files behind the disk.
func (d *Disk) Close() error { return d.close() }

// Open opens a disk image of any format that kscratch reads. What can only be
// read from its start goes through a nameless file in the directory spool,
// which needs the room that the content of the disk takes.
func Open(ctx context.Context, path, spool string) (*Disk, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening disk image: %w", err)
	}
	d, err := open(ctx, f, spool)
	if err != nil {
		return nil, fmt.Errorf("opening disk image %s: %w", path, errors.Join(err, f.Close()))
	}
	return d, nil
}

func open(ctx context.Context, f *os.File, spool string) (*Disk, error) {
	src, err := blocks.NewFile(f)
	if err != nil {
		return nil, err
	}
	name, err := Detect(src, src.Size())
	if err != nil {
		return nil, err
	}
	d := &Disk{Format: name, File: src, close: f.Close}
	switch name {
	case "raw":
		d.Source = src
	case "qcow2":
		d.Source, err = qcow2.Open(src, src.Size())
	case "vhd":
		d.Source, err = vhd.Open(src)
	case "vmdk":
		d.Source, err = vmdk.Open(src, src.Size())
	case "iso":
		d.Source, err = iso.Open(src)
	case "ova":
		var disk *io.SectionReader
		if disk, err = ova.Open(src, src.Size()); err == nil {
			d.Source, err = vmdk.Open(disk, disk.Size())
		}
	case "raw.zst":
		err = d.unpack(ctx, f, spool, zst.NewReader)
	case "gce":
		err = d.unpack(ctx, f, spool, gce.NewReader)
	}
	if err != nil {
		return nil, err
	}
	if err := blocks.Check(d.Size()); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// unpack puts the content of f into a file without a name in dir.
func (d *Disk) unpack(ctx context.Context, f *os.File, dir string, open func(io.Reader) (io.ReadCloser, error)) error {
	r, err := open(f)
	if err != nil {
		return fmt.Errorf("reading %s: %w", d.Format, err)
	}
	defer r.Close()
	tmp, err := os.CreateTemp(dir, ".kscratch-disk-*")
	if err != nil {
		return err
	}
	err = os.Remove(tmp.Name())
	if err == nil {
		d.Source, err = blocks.Spool(ctx, tmp, r)
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", d.Format, errors.Join(err, tmp.Close()))
	}
	d.close = func() error { return errors.Join(tmp.Close(), f.Close()) }
	return nil
}

// What files begin with.
var magics = []struct{ magic, format string }{
	{qcow2.Magic, "qcow2"},
	{vmdk.Magic, "vmdk"},
	{"\x28\xb5\x2f\xfd", "raw.zst"}, // RFC 8878, section 3.1.1
	{"\x1f\x8b", "gce"},             // RFC 1952, section 2.3.1
}

// Detect returns the name of the format that a file of size bytes has by its
// content. A raw image is one with the signature of a boot sector, which is in
// front of every partition table.
func Detect(r io.ReaderAt, size int64) (string, error) {
	head := make([]byte, blocks.Sector)
	n, err := r.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	for _, m := range magics {
		if bytes.HasPrefix(head[:n], []byte(m.magic)) {
			return m.format, nil
		}
	}
	if size >= blocks.Sector {
		tail := make([]byte, blocks.Sector)
		if _, err := r.ReadAt(tail, size-blocks.Sector); err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
		if bytes.HasPrefix(tail, []byte(vhd.Cookie)) {
			return "vhd", nil
		}
	}
	first, _, _ := bytes.Cut(head[:100], []byte{0}) // name of the first member, if it is an archive
	switch {
	case string(head[257:262]) == "ustar" && bytes.HasSuffix(first, []byte(".ovf")):
		return "ova", nil
	case string(head[257:262]) == "ustar":
		return "", errors.New("it is a tar archive, and none that begins with an OVF descriptor")
	case bytes.HasPrefix(head, []byte("vhdxfile")):
		return "", errors.New("VHDX is not supported; convert it with `qemu-img convert -O raw`")
	case head[510] == 0x55 && head[511] == 0xaa:
		return withoutISO(r)
	}
	return "", errors.New("its format is not known: it is no raw image with a partition table, and none of " + strings.Join(readable(), ", "))
}

// withoutISO tells a raw image from one that has an ISO 9660 file system, too.
func withoutISO(r io.ReaderAt) (string, error) {
	b := make([]byte, len(iso.Magic))
	if n, err := r.ReadAt(b, iso.MagicAt); n < len(b) && err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	if string(b) == iso.Magic {
		return "iso", nil
	}
	return "raw", nil
}

func readable() (names []string) {
	for _, m := range magics {
		names = append(names, m.format)
	}
	return append(names, "vhd", "ova", "iso")
}
