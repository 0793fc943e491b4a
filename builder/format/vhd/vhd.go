// Package vhd writes and reads disk images in the format that Azure takes and
// Hyper-V knows as a fixed disk: the content as it is, and a footer of one
// sector behind it. The source is Microsoft's "Virtual Hard Disk Image Format
// Specification" 1.0 of 2006.
//
// Dynamic and differencing disks are neither written nor read, nor is VHDX.
package vhd

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/kscratch/kscratch/builder/format/blocks"
)

const (
	// Cookie begins a footer.
	Cookie = "conectix"

	footerSize = 512     // bytes
	align      = 1 << 20 // bytes; Azure takes only whole MiB
	fixed      = 2       // the type of disk

	// creator is Windows. QEMU takes the size from a footer only if it knows
	// the creator for not rounding to cylinders, as this package does not.
	creator, creatorOS = "win ", "Wi2k"
)

// Write writes src to f, with zeros up to the next MiB. The identifier of the
// disk comes from its content.
func Write(ctx context.Context, f blocks.Output, src blocks.Source) error {
	size := blocks.RoundUp(src.Size(), align)
	if err := blocks.Check(size); err != nil {
		return err
	}
	id := sha256.New()
	id.Write(binary.BigEndian.AppendUint64([]byte("kscratch vhd "), uint64(size)))
	err := blocks.Copy(ctx, f, src, digest, func(c *blocks.Chunk) {
		id.Write(binary.BigEndian.AppendUint64(nil, uint64(c.Off)))
		id.Write(c.Out)
	})
	if err != nil {
		return err
	}
	_, err = f.WriteAt(footer(size, id.Sum(nil)), size)
	return err
}

func digest() (blocks.Work, error) {
	return func(c *blocks.Chunk) error {
		sum := sha256.Sum256(c.Data)
		c.Out = append(c.Out[:0], sum[:]...)
		return nil
	}, nil
}

// footer returns the footer of a disk of size bytes with an identifier made of
// a digest: version 8, RFC 9562.
func footer(size int64, digest []byte) []byte {
	b := make([]byte, footerSize)
	be := binary.BigEndian
	copy(b, Cookie)
	be.PutUint32(b[8:], 2)           // features: the bit that is always set
	be.PutUint32(b[12:], 0x00010000) // version of the format
	be.PutUint64(b[16:], 1<<64-1)    // no further header; the time that follows is 0
	copy(b[28:], creator)
	be.PutUint32(b[32:], 0x000a0000) // the creator's version
	copy(b[36:], creatorOS)
	be.PutUint64(b[40:], uint64(size)) // first
	be.PutUint64(b[48:], uint64(size)) // now
	be.PutUint32(b[56:], geometry(size))
	be.PutUint32(b[60:], fixed)
	copy(b[68:84], digest)
	b[68+6] = b[68+6]&0x0f | 0x80
	b[68+8] = b[68+8]&0x3f | 0x80
	be.PutUint32(b[64:], checksum(b))
	return b
}

// checksum is the complement of the sum of all bytes but its own.
func checksum(b []byte) (sum uint32) {
	for i, c := range b[:footerSize] {
		if i < 64 || i >= 68 {
			sum += uint32(c)
		}
	}
	return ^sum
}

// geometry returns cylinders, heads and sectors of a track as the appendix of
// the specification computes them.
func geometry(size int64) uint32 {
	sectors := min(size/512, 65535*16*255)
	var heads, track int64
	if sectors >= 65535*16*63 {
		heads, track = 16, 255
	} else {
		track = 17
		heads = max((sectors/track+1023)/1024, 4)
		if sectors/track >= heads*1024 || heads > 16 {
			heads, track = 16, 31
		}
		if sectors/track >= heads*1024 {
			heads, track = 16, 63
		}
	}
	return uint32(sectors/track/heads)<<16 | uint32(heads)<<8 | uint32(track)
}

// Open returns the content of a fixed disk.
func Open(src blocks.Source) (blocks.Source, error) {
	b := make([]byte, footerSize)
	if src.Size() < footerSize {
		return nil, fmt.Errorf("reading VHD: %d bytes have no footer", src.Size())
	}
	if n, err := src.ReadAt(b, src.Size()-footerSize); n < len(b) {
		return nil, fmt.Errorf("reading VHD: footer: %w", errors.Join(err, io.ErrUnexpectedEOF))
	}
	be := binary.BigEndian
	size := be.Uint64(b[48:])
	switch {
	case string(b[:8]) != Cookie:
		return nil, fmt.Errorf("reading VHD: the last %d bytes are no footer: the file is cut off, or not a VHD", footerSize)
	case be.Uint32(b[64:]) != checksum(b):
		return nil, errors.New("reading VHD: the footer has another checksum than its bytes")
	case be.Uint32(b[60:]) != fixed:
		return nil, fmt.Errorf("reading VHD: a disk of type %d: only fixed disks are read; convert it with `qemu-img convert -O raw`", be.Uint32(b[60:]))
	case size > uint64(src.Size()-footerSize):
		return nil, fmt.Errorf("reading VHD: the footer promises a disk of %d bytes, and the file has %d", size, src.Size()-footerSize)
	}
	return blocks.Head{Source: src, N: int64(size)}, nil
}
