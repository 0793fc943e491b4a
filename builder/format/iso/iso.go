// Package iso writes the image of a node as a CD that UEFI boots, and reads it
// back.
//
// The CD is the disk, byte for byte, and in the unused space between its
// partition table and its first partition an ISO 9660 file system whose El
// Torito entry is the EFI system partition. So a CD boots with the very loader,
// kernel and root that a disk does, and written to a stick or a disk it is that
// disk. What the initrd does on a CD that it does not on a disk is in the
// initrd: it finds the label [Label] and attaches the CD to a loop device, so
// that the kernel sees the partitions. The state goes to the first blank disk,
// or to memory.
//
// The formats are ECMA-119 (ISO 9660), level 1, without extensions, and
// "El Torito" 1.0 with the platform identifier of UEFI 2.10, section 13.3.2.1.
// github.com/diskfs/go-diskfs writes ISO 9660, too: it lays a medium out by
// itself, and takes times from the clock, so it cannot put one around a disk.
//
// Not supported: BIOS, and files beside the two that say what this is.
package iso

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/kscratch/kscratch/builder/format/blocks"
	"github.com/kscratch/kscratch/builder/format/node"
)

// Label is the name of the volume, by which the initrd knows it.
const Label = "KSCRATCH"

// Places on the medium, in sectors: ECMA-119 leaves the first 16 to others.
const (
	atVolume  = 16 + iota // primary volume descriptor
	atBoot                // boot record
	atEnd                 // terminator
	atCatalog             // boot catalog
	atTableL              // path table, low byte first
	atTableM              // path table, high byte first
	atRoot                // root directory
	atReadme              // the text
	atFree
)

const sector = 2048 // bytes

// Magic stands at byte MagicAt of every ISO 9660 file system.
const (
	Magic   = "CD001"
	MagicAt = atVolume*sector + 1
)

// readme is the one file for people.
const readme = "This is a node of a Kubernetes cluster, made by kscratch: %s.\r\n" +
	"It boots from CD with UEFI. EFI.IMG is the EFI system partition.\r\n"

// Write writes src, the image of a node, to f.
func Write(ctx context.Context, f blocks.Output, src blocks.Source) error {
	img, err := node.Open(src)
	if err != nil {
		return err
	}
	esp := img.Disk.Parts[node.ESP]
	if esp.Offset < atFree*sector || esp.Offset%sector != 0 || src.Size()%sector != 0 {
		return fmt.Errorf("the first partition is at byte %d of %d: want a multiple of %d from %d on", esp.Offset, src.Size(), sector, atFree*sector)
	}
	if err := blocks.Copy(ctx, f, src, nil, nil); err != nil {
		return err
	}
	_, err = f.WriteAt(volumeOf(src, img).bytes(), atVolume*sector)
	return err
}

// volumeOf is the file system of a disk's CD.
func volumeOf(src blocks.Source, img node.Image) volume {
	esp := img.Disk.Parts[node.ESP]
	return volume{
		size: src.Size() / sector, esp: extent{esp.Offset / sector, esp.Size}, time: img.Time,
		readme: fmt.Appendf(nil, readme, img.Name),
	}
}

// Check wants the file system of a CD to be the one that [Write] makes of its
// disk.
func Check(src blocks.Source) error {
	disk, err := Open(src)
	if err != nil {
		return err
	}
	img, err := node.Open(disk)
	if err != nil {
		return err
	}
	got, want := make([]byte, (atFree-atVolume)*sector), volumeOf(disk, img).bytes()
	if _, err := src.ReadAt(got, atVolume*sector); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading ISO 9660: %w", err)
	}
	for i := range want {
		if got[i] != want[i] {
			return fmt.Errorf("byte %d of sector %d of the CD is %#x, want %#x", i%sector, atVolume+i/sector, got[i], want[i])
		}
	}
	return nil
}

// Open returns the disk that a CD was made of.
func Open(src blocks.Source) (blocks.Source, error) {
	b := make([]byte, sector)
	if _, err := src.ReadAt(b, atVolume*sector); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading ISO 9660: %w", err)
	}
	if got := strings.TrimRight(string(b[40:72]), " "); got != Label {
		return nil, fmt.Errorf("reading ISO 9660: the volume is %q, not one of kscratch's", got)
	}
	return plain{src}, nil
}

// plain is a disk without the file system.
type plain struct{ blocks.Source }

func (p plain) ReadAt(b []byte, off int64) (int, error) {
	n, err := p.Source.ReadAt(b, off)
	from, to := max(atVolume*sector-off, 0), min(atFree*sector-off, int64(n))
	if from < to {
		clear(b[from:to])
	}
	return n, err
}

// extent is where a file is.
type extent struct {
	sector int64
	size   int64 // bytes
}

// volume is what the file system says.
type volume struct {
	size   int64 // sectors
	esp    extent
	time   time.Time
	readme []byte
}

// bytes returns the sectors from atVolume up to atFree.
func (v volume) bytes() []byte {
	b := make([]byte, (atFree-atVolume)*sector)
	at := func(n int) []byte { return b[(n-atVolume)*sector:][:sector] }
	v.primary(at(atVolume))
	copy(at(atBoot), "\x00"+Magic+"\x01EL TORITO SPECIFICATION")
	le.PutUint32(at(atBoot)[71:], atCatalog)
	copy(at(atEnd), "\xff"+Magic+"\x01")
	v.catalog(at(atCatalog))
	pathTable(at(atTableL), le)
	pathTable(at(atTableM), binary.BigEndian)
	v.directory(at(atRoot))
	copy(at(atReadme), v.readme)
	return b
}

var le = binary.LittleEndian

// both writes a number of 32 bits in both byte orders, ECMA-119, section 7.3.3.
func both(b []byte, n int64) {
	le.PutUint32(b, uint32(n))
	binary.BigEndian.PutUint32(b[4:], uint32(n))
}

// both16 writes one of 16 bits, section 7.2.3.
func both16(b []byte, n uint16) {
	le.PutUint16(b, n)
	binary.BigEndian.PutUint16(b[2:], n)
}

// primary is the primary volume descriptor, section 8.4.
func (v volume) primary(b []byte) {
	for i := 8; i < 813; i++ {
		b[i] = ' ' // texts that are empty
	}
	clear(b[72:190])
	copy(b, "\x01"+Magic+"\x01\x00")
	copy(b[40:], Label)
	both(b[80:], v.size)
	both16(b[120:], 1) // volumes of the set
	both16(b[124:], 1) // this one's number
	both16(b[128:], sector)
	both(b[132:], pathTableSize)
	le.PutUint32(b[140:], atTableL)
	binary.BigEndian.PutUint32(b[148:], atTableM)
	v.record(b[156:], "\x00", extent{atRoot, sector}, true)
	copy(b[574:], "KSCRATCH") // the application
	stamp := v.time.UTC().Format("20060102150405") + "00\x00"
	copy(b[813:], stamp)
	copy(b[830:], stamp)
	copy(b[847:], "0000000000000000\x00") // does not expire
	copy(b[864:], "0000000000000000\x00")
	b[881] = 1 // version of the structure
}

// record is a directory record, section 9.1; it returns its size in bytes.
func (v volume) record(b []byte, name string, e extent, dir bool) int {
	n := 33 + len(name)
	n += n & 1
	b[0] = byte(n)
	both(b[2:], e.sector)
	both(b[10:], e.size)
	t := v.time.UTC()
	copy(b[18:], []byte{byte(t.Year() - 1900), byte(t.Month()), byte(t.Day()), byte(t.Hour()), byte(t.Minute()), byte(t.Second()), 0})
	if dir {
		b[25] = 2
	}
	both16(b[28:], 1)
	b[32] = byte(len(name))
	copy(b[33:], name)
	return n
}

// directory is the root directory: itself, its parent, and the files by name.
func (v volume) directory(b []byte) {
	for _, f := range []struct {
		name string
		e    extent
		dir  bool
	}{
		{"\x00", extent{atRoot, sector}, true}, {"\x01", extent{atRoot, sector}, true},
		{"BOOT.CAT;1", extent{atCatalog, sector}, false},
		{"EFI.IMG;1", v.esp, false},
		{"README.TXT;1", extent{atReadme, int64(len(v.readme))}, false},
	} {
		b = b[v.record(b, f.name, f.e, f.dir):]
	}
}

// pathTableSize is the size in bytes of a path table with one directory.
const pathTableSize = 10

// pathTable has the root directory alone, section 9.4.
func pathTable(b []byte, order binary.ByteOrder) {
	b[0] = 1
	order.PutUint32(b[2:], atRoot)
	order.PutUint16(b[6:], 1)
}

// catalog is the boot catalog of El Torito: a validation entry and the one
// entry, an EFI system partition. A count of 0 sectors says that it is as large
// as it says itself: 16 bits are too few for it.
func (v volume) catalog(b []byte) {
	const efi = 0xef
	b[0], b[1] = 1, efi
	copy(b[4:], "kscratch")
	b[30], b[31] = 0x55, 0xaa
	sum := uint16(0)
	for i := 0; i < 32; i += 2 {
		sum += le.Uint16(b[i:])
	}
	le.PutUint16(b[28:], -sum)
	b[32] = 0x88 // bootable
	le.PutUint32(b[40:], uint32(v.esp.sector))
}
