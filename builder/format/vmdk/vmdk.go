// Package vmdk writes and reads VMware's stream-optimized disk images, those
// in an OVA: one file with an embedded descriptor, compressed grains of 64 KiB,
// and the tables behind them. The source is VMware's "Virtual Disk Format 5.0"
// of 2011.
//
// What is read may also have its tables in front or grains that are not
// compressed (monolithicSparse), as QEMU writes them. Disks of several files
// and snapshots are refused.
package vmdk

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/zlib"

	"github.com/kscratch/kscratch/builder/format/blocks"
)

const (
	// Magic begins an image.
	Magic = "KDMV"

	sector     = 512
	grain      = 64 << 10 // bytes
	tableLen   = 512      // entries of a grain table
	part       = tableLen * grain
	dirAtEnd   = 1<<64 - 1 // place of the grain directory: the footer has it
	descriptor = 20        // sectors for it, behind the header
	overhead   = 128       // sectors before the first grain

	hasNewlines  = 1 << 0 // flags of a header
	isCompressed = 1 << 16
	hasMarkers   = 1 << 17

	markTable, markDir, markFooter = 1, 2, 3 // types of markers
)

// level is zlib's own default.
const level = 6

// Write writes src to w.
func Write(ctx context.Context, w io.Writer, src blocks.Source) error {
	size := blocks.RoundUp(src.Size(), sector)
	if err := blocks.Check(size); err != nil {
		return err
	}
	sectors := uint64(size / sector)
	o := &writer{w: w, dir: make([]uint32, (size+part-1)/part), part: -1}
	head := make([]byte, overhead*sector)
	copy(head, header(sectors, dirAtEnd))
	copy(head[sector:], description(sectors))
	if err := o.write(head); err != nil {
		return err
	}
	if err := blocks.Each(ctx, src, grain, compress, o.put); err != nil {
		return err
	}
	return o.finish(sectors)
}

func header(sectors, dir uint64) []byte {
	b := make([]byte, sector)
	le := binary.LittleEndian
	copy(b, Magic)
	le.PutUint32(b[4:], 3) // version: compressed grains with markers
	le.PutUint32(b[8:], hasNewlines|isCompressed|hasMarkers)
	le.PutUint64(b[12:], sectors)
	le.PutUint64(b[20:], grain/sector)
	le.PutUint64(b[28:], 1) // place of the descriptor
	le.PutUint64(b[36:], descriptor)
	le.PutUint32(b[44:], tableLen)
	le.PutUint64(b[56:], dir) // there is no redundant one
	le.PutUint64(b[64:], overhead)
	copy(b[73:], "\n \r\n") // to notice a transfer as text
	le.PutUint16(b[77:], 1) // deflate
	return b
}

// description is the embedded descriptor. Its content identifier is the one of
// a disk that was never written to.
func description(sectors uint64) string {
	const heads, track = 255, 63
	return fmt.Sprintf(`# Disk DescriptorFile
version=1
CID=fffffffe
parentCID=ffffffff
createType="streamOptimized"

# Extent description
RW %d SPARSE "disk.vmdk"

# The Disk Data Base
#DDB

ddb.adapterType = "lsilogic"
ddb.geometry.cylinders = "%d"
ddb.geometry.heads = "%d"
ddb.geometry.sectors = "%d"
ddb.virtualHWVersion = "13"
`, sectors, min(sectors/(heads*track)+1, 65535), heads, track)
}

// compress makes what the file has of a grain: a marker with place and length,
// a zlib stream, RFC 1950, and zeros up to the end of the sector.
func compress() (blocks.Work, error) {
	var b bytes.Buffer
	z, err := zlib.NewWriterLevel(&b, level)
	if err != nil {
		return nil, err
	}
	return func(c *blocks.Chunk) error {
		c.Data = append(c.Data, make([]byte, grain-len(c.Data))...) // the last may be short
		b.Reset()
		b.Write(make([]byte, 12))
		z.Reset(&b)
		if _, err := z.Write(c.Data); err != nil {
			return err
		}
		if err := z.Close(); err != nil {
			return err
		}
		binary.LittleEndian.PutUint64(b.Bytes(), uint64(c.Off/sector))
		binary.LittleEndian.PutUint32(b.Bytes()[8:], uint32(b.Len()-12))
		b.Write(make([]byte, -b.Len()&(sector-1)))
		c.Out = append(c.Out[:0], b.Bytes()...)
		return nil
	}, nil
}

// writer knows where in the stream it is.
type writer struct {
	w     io.Writer
	at    uint64             // the next sector
	dir   []uint32           // grain directory: places of the grain tables
	part  int64              // the directory entry that table belongs to; -1 is none
	table [tableLen * 4]byte // the current grain table: places of grains
}

// write writes whole sectors.
func (o *writer) write(b []byte) error {
	o.at += uint64(len(b) / sector)
	_, err := o.w.Write(b)
	return err
}

// put writes a grain.
func (o *writer) put(c *blocks.Chunk) error {
	if p := c.Off / part; p != o.part {
		if err := o.endPart(); err != nil {
			return err
		}
		o.part = p
	}
	if o.at+uint64(len(c.Out)/sector) > 1<<32-1 {
		return fmt.Errorf("writing VMDK: the content does not fit: a place in the file must be below 2 TiB")
	}
	binary.LittleEndian.PutUint32(o.table[c.Off/grain%tableLen*4:], uint32(o.at))
	return o.write(c.Out)
}

// endPart writes the current grain table.
func (o *writer) endPart() error {
	if o.part < 0 {
		return nil
	}
	if err := o.mark(markTable, len(o.table)/sector); err != nil {
		return err
	}
	o.dir[o.part] = uint32(o.at)
	err := o.write(o.table[:])
	clear(o.table[:])
	o.part = -1
	return err
}

// mark writes the marker for so many sectors that follow.
func (o *writer) mark(kind uint32, sectors int) error {
	b := make([]byte, sector)
	binary.LittleEndian.PutUint64(b, uint64(sectors))
	binary.LittleEndian.PutUint32(b[12:], kind)
	return o.write(b)
}

// finish writes the grain directory, the footer and the end of the stream.
func (o *writer) finish(sectors uint64) error {
	if err := o.endPart(); err != nil {
		return err
	}
	var dir []byte
	for _, at := range o.dir {
		dir = binary.LittleEndian.AppendUint32(dir, at)
	}
	dir = append(dir, make([]byte, -len(dir)&(sector-1))...)
	if err := o.mark(markDir, len(dir)/sector); err != nil {
		return err
	}
	dirAt := o.at
	if err := o.write(dir); err != nil {
		return err
	}
	if err := o.mark(markFooter, 1); err != nil {
		return err
	}
	if err := o.write(header(sectors, dirAt)); err != nil {
		return err
	}
	return o.write(make([]byte, sector))
}
