// Package node finds in a disk image of a node what formats that are no disks
// need of it: the unified kernel image and the partitions of the root.
package node

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/kscratch/kscratch/builder/disk"
	"github.com/kscratch/kscratch/builder/erofs"
	"github.com/kscratch/kscratch/builder/format/blocks"
	"github.com/kscratch/kscratch/builder/uki"
)

// Image is the parts of a disk image of a node.
type Image struct {
	Disk    *disk.Disk
	Kernel  uki.Section
	Initrd  uki.Section
	Cmdline string // with the root hash
	Name    string // as os-release has it: IMAGE_ID and IMAGE_VERSION with a blank between
	Time    time.Time
}

// Indices of the partitions of the root.
const (
	ESP = iota
	Verity
	Root
)

// types are the partitions that an image has, in their order.
var types = []disk.Type{ESP: disk.ESP, Verity: disk.RootVerity, Root: disk.Root}

// maxUKI bounds the unified kernel image, which is read into memory, in bytes.
const maxUKI = 1 << 30

// Open reads a disk. One that is not the image of a node, fresh from a build,
// is an error.
func Open(src blocks.Source) (Image, error) {
	i, err := open(src)
	if err != nil {
		return Image{}, fmt.Errorf("looking for a node on the disk: %w", err)
	}
	return i, nil
}

func open(src blocks.Source) (Image, error) {
	d, err := disk.Open(src, src.Size())
	if err != nil {
		return Image{}, err
	}
	if len(d.Parts) != len(types) {
		return Image{}, fmt.Errorf("it has %d partitions, the image of a node has %d", len(d.Parts), len(types))
	}
	for n, want := range types {
		if d.Parts[n].Type != want {
			return Image{}, fmt.Errorf("partition %d has type %s, want %s", n+1, d.Parts[n].Type, want)
		}
	}
	root, err := erofs.Open(d.Reader(Root))
	if err != nil {
		return Image{}, err
	}
	i := Image{Disk: d, Time: root.Time}
	return i, i.readUKI()
}

func (i *Image) readUKI() error {
	esp, err := i.Disk.ESP()
	if err != nil {
		return err
	}
	files, err := esp.Tree("esp")
	if err != nil {
		return err
	}
	found, err := files.Glob("EFI/Linux/*.efi")
	if err != nil {
		return err
	}
	if len(found) != 1 || found[0].Size > maxUKI {
		return fmt.Errorf("%d unified kernel images of at most %d bytes, want one", len(found), maxUKI)
	}
	b, err := found[0].Read()
	if err != nil {
		return err
	}
	sections, err := uki.Read(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return err
	}
	text := map[string]string{}
	for _, name := range []string{".cmdline", ".osrel", ".linux", ".initrd"} {
		s, ok := uki.Find(sections, name)
		if !ok {
			return fmt.Errorf("the unified kernel image: %s: %w", name, fs.ErrNotExist)
		}
		switch name {
		case ".linux":
			i.Kernel = s
		case ".initrd":
			i.Initrd = s
		default:
			all, err := s.ReadAll()
			if err != nil {
				return err
			}
			text[name] = string(bytes.TrimRight(all, "\x00\n"))
		}
	}
	if strings.ContainsAny(text[".cmdline"], "\n\x00") {
		return errors.New("the kernel's command line has several lines")
	}
	release := map[string]string{}
	for line := range strings.Lines(text[".osrel"]) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		release[k] = strings.Trim(v, `"`)
	}
	i.Cmdline, i.Name = text[".cmdline"], release["IMAGE_ID"]+" "+release["IMAGE_VERSION"]
	return nil
}
