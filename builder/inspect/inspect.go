// Package inspect answers questions about a disk image of a node: what is in
// it, who put it there and why, what the first boot accepts, which secrets it
// holds, and how it differs from another image.
//
// [Open] takes a file of any format that package format reads. Nothing is
// mounted and nothing runs: file systems, partition table, hash tree, unified
// kernel image and initrd are read by kscratch's own readers, so that an
// unprivileged user on any machine can ask. What an image says about itself
// comes from its two records (package record); what it is comes from its bytes.
//
// An image is input from outside: it may be damaged or hostile. Readers are
// bounded, and a text that is printed is the caller's to escape.
//
// Not supported: images of a node that ran (the state partition is not read),
// several versions on one disk (the first root counts), and images that were
// built before there were records.
package inspect

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/kscratch/kscratch/builder"
	"github.com/kscratch/kscratch/builder/disk"
	"github.com/kscratch/kscratch/builder/erofs"
	"github.com/kscratch/kscratch/builder/format"
	"github.com/kscratch/kscratch/builder/format/blocks"
	"github.com/kscratch/kscratch/builder/initrd"
	"github.com/kscratch/kscratch/builder/record"
	"github.com/kscratch/kscratch/builder/sbom"
	"github.com/kscratch/kscratch/builder/uki"
	"github.com/kscratch/kscratch/builder/verity"
	"github.com/kscratch/kscratch/ignition"
	"github.com/kscratch/kscratch/layers"
)

// Where the boot loader looks for images, and the initrd for what Ignition
// applies.
const (
	ukiPattern   = "EFI/Linux/*.efi"
	ignitionPath = "usr/lib/ignition/base.d/50-kscratch.ign"
)

// Bounds of what is read into memory, in bytes: a section of the unified kernel
// image, and a file.
const (
	maxSection = 512 << 20
	maxFile    = 512 << 20
)

// read returns the content of a file of an image, which may claim any size.
func read(f layers.File) ([]byte, error) {
	if f.Size > maxFile {
		return nil, fmt.Errorf("reading /%s: it has %d bytes, more than %d", f.Path, f.Size, maxFile)
	}
	return f.Read()
}

// Image is an image that is open for questions.
type Image struct {
	Name   string // of the file
	Format string // of the file

	Root   *layers.Tree // the root file system
	ESP    *layers.Tree // the EFI system partition
	Initrd *layers.Tree // what the kernel unpacks
	Config *layers.Tree // what the first boot writes

	Record record.Root  // of the root
	Build  record.Build // of the image

	file     *format.Disk
	disk     *disk.Disk
	sections []section
	report   ignition.Report
	cmdline  string
	owners   map[string]record.Found
}

// section is a part of the unified kernel image.
type section struct {
	uki.Section
	text string // of a short one
}

// Open opens an image. What can only be read from its start goes through a
// nameless file in the directory spool. The caller closes the image.
func Open(ctx context.Context, path, spool string) (*Image, error) {
	file, err := format.Open(ctx, path, spool)
	if err != nil {
		return nil, &builder.InputError{What: "looking into an image", Err: err}
	}
	i, err := New(ctx, path, file)
	if err != nil {
		return nil, &builder.InputError{What: "looking into an image", Err: errors.Join(err, file.Close())}
	}
	return i, nil
}

// New looks into a disk image that is open; name stands in messages. The image
// closes the file.
func New(ctx context.Context, name string, file *format.Disk) (*Image, error) {
	i := &Image{Name: name, Format: file.Format, file: file}
	for _, step := range []func() error{i.readDisk, i.readUKI, i.readConfig, i.readRecords} {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := step(); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return i, nil
}

// Close closes the file.
func (i *Image) Close() error { return i.file.Close() }

func (i *Image) readDisk() error {
	var err error
	if i.disk, err = disk.Open(i.file, i.file.Size()); err != nil {
		return err
	}
	esp, err := i.disk.ESP()
	if err != nil {
		return err
	}
	if i.ESP, err = esp.Tree("esp"); err != nil {
		return err
	}
	at := i.disk.Find(disk.Root)
	if at < 0 {
		return fmt.Errorf("opening root partition: %w: is it an image by kscratch?", fs.ErrNotExist)
	}
	root, err := erofs.Open(i.disk.Reader(at))
	if err != nil {
		return err
	}
	i.Root, err = root.Tree("root")
	return err
}

func (i *Image) readUKI() error {
	found, err := i.ESP.Glob(ukiPattern)
	if err != nil {
		return err
	}
	if len(found) != 1 {
		return fmt.Errorf("finding the unified kernel image: want one %s on the EFI system partition, found %d", ukiPattern, len(found))
	}
	b, err := read(found[0])
	if err != nil {
		return err
	}
	sections, err := uki.Read(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return err
	}
	for _, s := range sections {
		sec := section{Section: s}
		if s.Name == ".cmdline" || s.Name == ".uname" || s.Name == ".osrel" {
			text, err := s.ReadAll()
			if err != nil {
				return err
			}
			sec.text = strings.TrimRight(string(text), "\x00\n")
		}
		i.sections = append(i.sections, sec)
	}
	i.cmdline = i.Section(".cmdline")
	s, ok := uki.Find(sections, ".initrd")
	if !ok || s.Size > maxSection {
		return fmt.Errorf("reading the unified kernel image: no .initrd of at most %d bytes", maxSection)
	}
	archive, err := readSection(s)
	if err != nil {
		return err
	}
	i.Initrd, err = initrd.Read(archive, "initrd")
	return err
}

func readSection(s uki.Section) (_ []byte, err error) {
	r, err := s.Open()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	b := make([]byte, s.Size)
	_, err = io.ReadFull(r, b)
	return b, err
}

// Section returns the text of a section that is known to be short; empty
// without one.
func (i *Image) Section(name string) string {
	for _, s := range i.sections {
		if s.Name == name {
			return s.text
		}
	}
	return ""
}

func (i *Image) readConfig() error {
	b, err := i.Initrd.ReadFile(ignitionPath)
	if err != nil {
		return err
	}
	if i.report, err = ignition.List(b); err != nil {
		return err
	}
	var files []layers.File
	for _, e := range i.report.Entries {
		f := layers.File{Path: strings.TrimPrefix(e.Path, "/"), Mode: e.Mode, Owner: "ignition"}
		switch {
		case e.Mode.IsDir():
		case e.Mode.Type() == fs.ModeSymlink:
			target, _ := strings.CutPrefix(e.Note, "to ")
			f = layers.Symlink(f.Path, target, f.Owner)
		case len(e.Body) == 0 && e.Note != "" && e.Digest == "":
			continue // a unit that is in the root already, or content that the node fetches
		default:
			body, err := plain(e)
			if err != nil {
				return fmt.Errorf("reading %s of the first boot: %w", e.Path, err)
			}
			f = layers.Regular(f.Path, e.Mode.Perm(), f.Owner, body)
		}
		files = append(files, f)
	}
	i.Config, err = layers.Merge(layers.Of("ignition", "", files...))
	return err
}

// maxConfig bounds what a compressed file of the first boot unpacks to, in
// bytes.
const maxConfig = 64 << 20

// plain returns the content that the node will have: what a user's file has
// compressed, Ignition unpacks.
func plain(e ignition.Entry) ([]byte, error) {
	if e.Note != "gzip" {
		return e.Body, nil
	}
	z, err := gzip.NewReader(bytes.NewReader(e.Body))
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(z, maxConfig+1))
	if len(b) > maxConfig {
		err = fmt.Errorf("it unpacks to more than %d bytes", maxConfig)
	}
	return b, err
}

func (i *Image) readRecords() error {
	var err error
	i.Record, err = record.ReadRoot(i.Root)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: the image was built by a kscratch that made no records; build it anew", err)
	}
	if err != nil {
		return err
	}
	i.owners = i.Record.ByPath()
	b, err := i.Initrd.ReadFile(record.BuildPath)
	if err != nil {
		return err
	}
	if i.Build, err = record.ParseBuild(b); err != nil {
		return err
	}
	if b, err = i.Initrd.ReadFile(record.SpecPath); err != nil {
		return err
	}
	if i.Build.Spec != layers.DigestOf(b) {
		return fmt.Errorf("/%s of the initrd has the digest %s, the record says %s", record.SpecPath, layers.DigestOf(b), i.Build.Spec)
	}
	return nil
}

// RootHash returns the root hash in the kernel's command line, which the
// firmware or the boot loader verifies where Secure Boot is on.
func (i *Image) RootHash() (verity.Hash, error) {
	for arg := range strings.FieldsSeq(i.cmdline) {
		if text, ok := strings.CutPrefix(arg, "roothash="); ok {
			b, err := hex.DecodeString(text)
			if err != nil || len(b) != len(verity.Hash{}) {
				return verity.Hash{}, fmt.Errorf("root hash %q: want %d hex digits", text, 2*len(verity.Hash{}))
			}
			return verity.Hash(b), nil
		}
	}
	return verity.Hash{}, errors.New("the kernel's command line has no roothash=")
}

// Disk returns the partition table.
func (i *Image) Disk() *disk.Disk { return i.disk }

// Content returns the bytes of the disk.
func (i *Image) Content() blocks.Source { return i.file }

// Sections returns the sections of the unified kernel image, in their order.
func (i *Image) Sections() []uki.Section {
	var out []uki.Section
	for _, s := range i.sections {
		out = append(out, s.Section)
	}
	return out
}

// Cmdline returns the kernel's command line.
func (i *Image) Cmdline() string { return i.cmdline }

// Owner returns who brings a file of the root; empty if nobody is recorded.
func (i *Image) Owner(path string) string { return i.owners[path].Owner }

// Verify reads the whole root and its hash tree and holds them to the root
// hash. What does not match is an error that has a *[verity.CorruptError].
func (i *Image) Verify(ctx context.Context) error {
	hash, err := i.RootHash()
	if err != nil {
		return err
	}
	tree := i.disk.Find(disk.RootVerity)
	if tree < 0 {
		return fmt.Errorf("opening hash tree: %w", fs.ErrNotExist)
	}
	return verity.Verify(ctx, i.disk.Reader(i.disk.Find(disk.Root)), i.disk.Reader(tree), hash)
}

// Bill returns the software of the image; tool is the version of kscratch.
func (i *Image) Bill(ctx context.Context, tool string) (sbom.Bill, error) {
	return sbom.New(ctx, i.Root, sbom.Options{
		Name: "kscratch-" + i.Build.Role, Version: i.Build.Version, Time: i.Build.Time, Tool: tool,
	})
}

// Damage is an error if the root was read and does not match its root hash.
func (r Report) Damage() error {
	if !r.Verity.Checked || r.Verity.Problem == "" {
		return nil
	}
	return &builder.InputError{What: "verifying " + r.Image, Tampered: true, Err: errors.New(r.Verity.Problem)}
}
