package gce

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/flate"

	"github.com/kscratch/kscratch/builder/format/blocks"
)

const (
	// pieceSize is how many bytes are compressed apart from what was before.
	pieceSize = 1 << 20
	// level is gzip's own default.
	level = 6
)

// compress writes src as one gzip member, RFC 1952: no name, no time. Its
// pieces end at a byte, as a flush of deflate does, and so can be joined.
func compress(ctx context.Context, w io.Writer, src blocks.Source) error {
	if _, err := w.Write([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}); err != nil {
		return err
	}
	hole := &blocks.Chunk{Data: make([]byte, pieceSize)}
	work, err := deflate()
	if err != nil {
		return err
	}
	if err := work(hole); err != nil {
		return err
	}
	sum, at := crc32.NewIEEE(), int64(0)
	put := func(c *blocks.Chunk) error {
		at += int64(len(c.Data))
		sum.Write(c.Data)
		_, err := w.Write(c.Out)
		return err
	}
	skip := func(to int64) error {
		for at < to {
			if to-at < pieceSize {
				hole.Data = hole.Data[:to-at]
				if err := work(hole); err != nil {
					return err
				}
			}
			if err := put(hole); err != nil {
				return err
			}
		}
		return nil
	}
	err = blocks.Each(ctx, src, pieceSize, deflate, func(c *blocks.Chunk) error {
		if err := skip(c.Off); err != nil {
			return err
		}
		return put(c)
	})
	if err != nil {
		return err
	}
	if err := skip(src.Size()); err != nil {
		return err
	}
	end := []byte{1, 0, 0, 0xff, 0xff} // an empty block that is the last
	end = binary.LittleEndian.AppendUint32(end, sum.Sum32())
	end = binary.LittleEndian.AppendUint32(end, uint32(src.Size()))
	_, err = w.Write(end)
	return err
}

// deflate compresses a piece, RFC 1951, up to the end of a byte.
func deflate() (blocks.Work, error) {
	var b bytes.Buffer
	z, err := flate.NewWriter(&b, level)
	if err != nil {
		return nil, err
	}
	return func(c *blocks.Chunk) error {
		b.Reset()
		z.Reset(&b)
		if _, err := z.Write(c.Data); err != nil {
			return err
		}
		if err := z.Flush(); err != nil {
			return err
		}
		c.Out = append(c.Out[:0], b.Bytes()...)
		return nil
	}, nil
}
