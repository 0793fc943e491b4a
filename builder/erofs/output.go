package erofs

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
)

// Offsets in the superblock, which starts at byte 1024 of the image.
const (
	sbOffset      = 1024
	sbChecksum    = 4
	sbCompat      = 8
	sbBuildTime   = 24
	sbUUID        = 48
	sbLabel       = 64
	compatSBCksum = 1 // EROFS_FEATURE_COMPAT_SB_CHKSUM
)

// identify puts UUID, label and checksum into the first block. go-erofs leaves
// these fields zero.
func identify(block []byte, o Options) {
	sb := block[sbOffset:]
	copy(sb[sbUUID:sbUUID+16], o.UUID[:])
	copy(sb[sbLabel:sbLabel+16], o.Label)
	le := binary.LittleEndian
	le.PutUint32(sb[sbCompat:], le.Uint32(sb[sbCompat:])|compatSBCksum)
	le.PutUint32(sb[sbChecksum:], 0)
	le.PutUint32(sb[sbChecksum:], checksum(sb))
}

// checksum is the kernel's crc32c over the rest of the block from the
// superblock on, without the final inversion that Go's has.
func checksum(sb []byte) uint32 {
	return ^crc32.Checksum(sb, crc32.MakeTable(crc32.Castagnoli))
}

// output joins go-erofs' small writes into large ones, and patches the first
// block when it is written for good, which is after a seek to it.
type output struct {
	ctx   context.Context
	w     io.WriteSeeker
	patch func(block []byte)

	buf    []byte
	pos    int64 // of the end of buf
	size   int64
	sought bool
}

const outputBuffer = 1 << 20

func (o *output) Write(p []byte) (int, error) {
	if o.sought && o.pos == 0 {
		if len(p) != BlockSize {
			return 0, errors.New("internal error: go-erofs writes its superblock otherwise than assumed")
		}
		p = append([]byte(nil), p...)
		o.patch(p)
	}
	if len(o.buf)+len(p) > outputBuffer {
		if err := o.flush(); err != nil {
			return 0, err
		}
	}
	o.pos += int64(len(p))
	o.size = max(o.size, o.pos)
	if len(p) >= outputBuffer/4 && len(o.buf) == 0 {
		return o.w.Write(p)
	}
	o.buf = append(o.buf, p...)
	return len(p), nil
}

func (o *output) Seek(offset int64, whence int) (int64, error) {
	if err := o.flush(); err != nil {
		return 0, err
	}
	pos, err := o.w.Seek(offset, whence)
	o.pos, o.sought = pos, true
	return pos, err
}

func (o *output) flush() error {
	if err := o.ctx.Err(); err != nil {
		return err
	}
	if len(o.buf) == 0 {
		return nil
	}
	_, err := o.w.Write(o.buf)
	o.buf = o.buf[:0]
	return err
}

// discard counts nothing and keeps nothing: output knows the size.
type discard struct{}

func (discard) Write(p []byte) (int, error)                  { return len(p), nil }
func (discard) Seek(offset int64, whence int) (int64, error) { return offset, nil }

// blankFile is endless content that nobody looks at.
type blankFile struct{}

func (blankFile) Read(p []byte) (int, error) { return len(p), nil }
func (blankFile) Close() error               { return nil }
