// Package disk lays out and writes GPT disk images, and reads them back.
//
// An image has a protective MBR, the partition table of UEFI 2.10 chapter 5 and
// its backup at the end, 512-byte sectors, and partitions at multiples of 1 MiB.
// Types and attributes are those of the Discoverable Partitions Specification,
// https://uapi-group.org/specifications/specs/discoverable_partitions_specification/.
// The table is encoded by github.com/diskfs/go-diskfs.
//
// Partitions are written where they lie in the disk file, by way of a [Region],
// and blocks of zeros stay holes. No root and no loop device is needed. All
// identifiers are parameters: the same plan and contents give the same bytes.
//
// It does not support sectors of 4096 bytes, disks of 2 TiB and more, more than
// 128 partitions, hybrid MBRs, or changing a table.
package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"unicode/utf16"

	"github.com/kscratch/kscratch/layers"
)

// Type is a partition type, a GUID in its usual form.
type Type string

// Partition types of the Discoverable Partitions Specification.
const (
	ESP          Type = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	Root         Type = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709" // of x86-64
	RootVerity   Type = "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5" // of x86-64
	Var          Type = "4d21b016-b534-45c2-a9fb-5c16e091fd2d"
	LinuxGeneric Type = "0fc63daf-8483-4772-8e79-3d69d8477de4"
)

// Partition attributes of the Discoverable Partitions Specification.
const (
	GrowFS   uint64 = 1 << 59
	ReadOnly uint64 = 1 << 60
	NoAuto   uint64 = 1 << 63
)

const (
	sectorSize = 512
	defAlign   = 1 << 20
	maxParts   = 128
	maxLabel   = 36 // UTF-16 units
	maxDisk    = int64(sectorSize) << 32
)

// Part is a partition that is wanted.
type Part struct {
	Label string   // at most 36 UTF-16 units
	Type  Type     // required
	GUID  [16]byte // of the partition, in the order of its text form; required before the table is written
	Attrs uint64   // bits such as [ReadOnly]
	Size  int64    // bytes; rounded up to the alignment

	// Fill writes the content when [Write] comes to it. Nil leaves the
	// partition empty. [Copy] makes one from an opener.
	Fill func(ctx context.Context, r *Region) error
}

// Options say what a disk has beside its partitions. The zero value works but
// for the GUID.
type Options struct {
	GUID  [16]byte // of the disk; required
	Align int64    // of partitions in bytes, a power of two from 4096; 0 means 1 MiB
	Size  int64    // least size of the disk in bytes; 0 means as small as possible
}

// Placed is a partition with its place on the disk.
type Placed struct {
	Part         // Size is the rounded one
	Offset int64 // bytes
}

// Plan is where everything lies.
type Plan struct {
	GUID  [16]byte
	Size  int64 // of the disk in bytes
	Parts []Placed
}

// Layout places partitions one after the other, in the order given.
func Layout(parts []Part, o Options) (Plan, error) {
	align := o.Align
	if align == 0 {
		align = defAlign
	}
	if align < 4096 || align&(align-1) != 0 {
		return Plan{}, fmt.Errorf("planning disk: alignment of %d bytes: want a power of two from 4096", align)
	}
	if len(parts) > maxParts {
		return Plan{}, fmt.Errorf("planning disk: %d partitions: at most %d are possible", len(parts), maxParts)
	}
	p := Plan{GUID: o.GUID}
	at := max(align, defAlign)
	for i, part := range parts {
		if err := part.check(); err != nil {
			return Plan{}, fmt.Errorf("planning partition %d %q: %w", i+1, part.Label, err)
		}
		part.Size = roundUp(part.Size, align)
		p.Parts = append(p.Parts, Placed{Part: part, Offset: at})
		if at += part.Size; at >= maxDisk {
			return Plan{}, fmt.Errorf("planning partition %d %q: disk would have more than %d bytes", i+1, part.Label, maxDisk)
		}
	}
	// The backup table needs 33 sectors; a whole unit keeps the size round.
	p.Size = max(roundUp(at+33*sectorSize, align), roundUp(o.Size, sectorSize))
	if p.Size >= maxDisk {
		return Plan{}, fmt.Errorf("planning disk: size of %d bytes: want less than %d", p.Size, maxDisk)
	}
	return p, nil
}

func (p Part) check() error {
	if _, err := parseGUID(string(p.Type)); err != nil {
		return fmt.Errorf("type %q: %w", p.Type, err)
	}
	if n := len(utf16.Encode([]rune(p.Label))); n > maxLabel {
		return fmt.Errorf("label of %d characters: at most %d are possible", n, maxLabel)
	}
	for _, r := range p.Label {
		if r == 0 || r > 0xffff || r == 0xfffd {
			return fmt.Errorf("label has a character %U that is not supported", r)
		}
	}
	if p.Size <= 0 || p.Size > maxDisk {
		return fmt.Errorf("size of %d bytes: want from 1 to %d", p.Size, maxDisk)
	}
	return nil
}

func roundUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }

// WithGUID returns p with another GUID for the i-th partition, counted from 0.
// The UUIDs of verity partitions are known only after the data was written.
func (p Plan) WithGUID(i int, guid [16]byte) Plan {
	p.Parts = slices.Clone(p.Parts)
	p.Parts[i].GUID = guid
	return p
}

// Region returns the place of the i-th partition, counted from 0, in a file
// that [Prepare] has made ready.
func (p Plan) Region(f File, i int) *Region {
	return &Region{f: f, start: p.Parts[i].Offset, size: p.Parts[i].Size}
}

// Prepare empties f and gives it the size of the plan, all holes.
func Prepare(f *os.File, p Plan) error {
	if err := errors.Join(f.Truncate(0), f.Truncate(p.Size)); err != nil {
		return fmt.Errorf("preparing disk image: %w", err)
	}
	return nil
}

// Write writes a whole disk: it prepares f, fills the partitions in order, and
// writes the table last. Where a GUID depends on a content, call [Prepare],
// [Plan.Region], [Plan.WithGUID] and [WriteTable] instead. It does not sync or
// close f.
func Write(ctx context.Context, f *os.File, p Plan) error {
	if err := p.check(); err != nil { // before the work, not after
		return fmt.Errorf("writing disk image: %w", err)
	}
	if err := Prepare(f, p); err != nil {
		return err
	}
	for i, part := range p.Parts {
		if part.Fill == nil {
			continue
		}
		if err := part.Fill(ctx, p.Region(f, i)); err != nil {
			return fmt.Errorf("filling partition %d %q: %w", i+1, part.Label, err)
		}
	}
	return WriteTable(f, p)
}

// Copy returns a function for [Part].Fill that copies what open gives to the
// start of the partition.
func Copy(open func() (io.ReadCloser, error)) func(context.Context, *Region) error {
	return func(ctx context.Context, r *Region) error {
		in, err := open()
		if err != nil {
			return err
		}
		_, err = io.CopyBuffer(struct{ io.Writer }{r}, layers.WithContext(ctx, in), make([]byte, 1<<20))
		return errors.Join(err, in.Close())
	}
}
