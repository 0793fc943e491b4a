package qcow2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"

	"github.com/kscratch/kscratch/builder/format/blocks"
)

const (
	// Incompatible features that do not change how content is found.
	dirty = 1 << 0 // only refcounts may be wrong

	noContent  = 1           // L2 entry: reads as zeros
	offsetMask = 1<<56 - 512 // L1 and L2 entry: place in the file

	minClusterBits, maxClusterBits = 9, 21
	maxHeader                      = 1 << 16 // bytes, far more than there are fields
	maxUnpack                      = 8 << 20 // bytes of window of a Zstandard frame
)

// Image is the content of an image.
type Image struct {
	blocks.Pieces // clusters

	r        io.ReaderAt
	fileSize int64
	bits     uint  // of the offset in a cluster
	l1       int64 // place of the table
	zstd     bool  // compressed clusters are Zstandard, not deflate

	unpackers sync.Pool // of *unpacker

	mu    sync.Mutex
	table []byte // the L2 table read last
	at    int64  // its place; 0 is none
}

// unpacker decompresses clusters, and keeps the last one.
type unpacker struct {
	entry  uint64 // its L2 entry; 0 is none
	plain  []byte // its content
	packed []byte
	r      decompressor
}

type decompressor interface {
	io.Reader
	Reset(r io.Reader) error
}

type inflater struct{ io.ReadCloser }

func (i inflater) Reset(r io.Reader) error { return i.ReadCloser.(flate.Resetter).Reset(r, nil) }

// Open reads the header of an image in a file of fileSize bytes.
func Open(r io.ReaderAt, fileSize int64) (*Image, error) {
	im := &Image{r: r, fileSize: fileSize}
	if err := im.open(); err != nil {
		return nil, fmt.Errorf("reading qcow2: %w", err)
	}
	return im, nil
}

func (im *Image) open() error {
	b := make([]byte, headerSize)
	n, err := im.r.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	be := binary.BigEndian
	if n < headerSize || string(b[:4]) != Magic {
		return errors.New("there is no header")
	}
	version, bits, l1 := be.Uint32(b[4:]), be.Uint32(b[20:]), be.Uint64(b[40:])
	switch {
	case version != 2 && version != 3:
		return fmt.Errorf("version %d is not supported: only 2 and 3 are", version)
	case be.Uint64(b[8:]) != 0:
		return errors.New("it has a backing file; make one image of both with `qemu-img convert`")
	case be.Uint32(b[32:]) != 0:
		return errors.New("it is encrypted; decrypt it with `qemu-img convert`")
	case bits < minClusterBits || bits > maxClusterBits:
		return fmt.Errorf("clusters of 1<<%d bytes are not supported", bits)
	}
	im.bits, im.l1 = uint(bits), int64(l1)
	im.Pieces = blocks.Pieces{
		Format: "qcow2", Bytes: int64(be.Uint64(b[24:])), Piece: 1 << bits, Table: 1 << (2*bits - 3), Has: im.has, Read: im.read,
	}
	if err := blocks.Check(im.Bytes); err != nil {
		return err
	}
	need := (im.Bytes + im.Table - 1) / im.Table
	if int64(be.Uint32(b[36:])) < need || im.l1 <= 0 || im.l1%im.Piece != 0 || im.l1 > im.fileSize-need*8 {
		return fmt.Errorf("L1 table of %d entries at byte %d: want %d in a file of %d bytes", be.Uint32(b[36:]), l1, need, im.fileSize)
	}
	if version == 2 {
		return nil
	}
	return im.features(b)
}

// features reads what version 3 adds to the header.
func (im *Image) features(b []byte) error {
	be := binary.BigEndian
	set, length := be.Uint64(b[72:]), be.Uint32(b[100:])
	if set &^= dirty; set&^hasType != 0 {
		return fmt.Errorf("incompatible features %#x are not supported; convert it with `qemu-img convert -O raw`", set)
	}
	if length < 104 || length > maxHeader {
		return fmt.Errorf("header length of %d bytes is out of range", length)
	}
	kind := byte(0)
	if set&hasType != 0 && length > 104 {
		kind = b[104]
	}
	switch kind {
	case 0:
		return nil
	case zstdID:
		im.zstd = true
		return nil
	}
	return fmt.Errorf("compression type %d is not supported", kind)
}

// has reports whether a cluster has content.
func (im *Image) has(off int64) (content, table bool, err error) {
	e, table, err := im.lookup(off)
	return e&compressed != 0 || e&offsetMask != 0 && e&noContent == 0, table, err
}

// read reads within one cluster.
func (im *Image) read(b []byte, off int64) error {
	e, _, err := im.lookup(off)
	if err != nil {
		return err
	}
	within := off % im.Piece
	switch {
	case e&compressed != 0:
		return im.unpack(b, e, within)
	case e&noContent != 0 || e&offsetMask == 0:
		clear(b)
		return nil
	}
	at := int64(e & offsetMask)
	if at%im.Piece != 0 {
		return fmt.Errorf("place %#x in the file is not at the start of a cluster", at)
	}
	return readFull(im.r, b, at+within)
}

// lookup returns the L2 entry of a cluster, and whether there is a table for it.
func (im *Image) lookup(off int64) (entry uint64, table bool, err error) {
	im.mu.Lock()
	defer im.mu.Unlock()
	l2, err := im.part(off)
	if err != nil || l2 == nil {
		return 0, false, err
	}
	return binary.BigEndian.Uint64(l2[off/im.Piece%(im.Piece/8)*8:]), true, nil
}

// part returns the L2 table for a place on the disk, or nil if there is none.
func (im *Image) part(off int64) ([]byte, error) {
	var b [8]byte
	if err := readFull(im.r, b[:], im.l1+off/im.Table*8); err != nil {
		return nil, fmt.Errorf("L1 table: %w", err)
	}
	at := int64(binary.BigEndian.Uint64(b[:]) & offsetMask)
	if at == 0 {
		return nil, nil
	}
	if at == im.at {
		return im.table, nil
	}
	if at%im.Piece != 0 {
		return nil, fmt.Errorf("L2 table at byte %#x is not at the start of a cluster", at)
	}
	if im.table == nil {
		im.table = make([]byte, im.Piece)
	}
	im.at = 0
	if err := readFull(im.r, im.table, at); err != nil {
		return nil, fmt.Errorf("L2 table: %w", err)
	}
	im.at = at
	return im.table, nil
}

// unpack reads from a compressed cluster.
func (im *Image) unpack(b []byte, entry uint64, within int64) error {
	u, _ := im.unpackers.Get().(*unpacker)
	if u == nil {
		var err error
		if u, err = im.newUnpacker(); err != nil {
			return err
		}
	}
	defer im.unpackers.Put(u)
	if u.entry != entry {
		u.entry = 0
		if err := im.decompress(u, entry); err != nil {
			return err
		}
		u.entry = entry
	}
	copy(b, u.plain[within:])
	return nil
}

func (im *Image) newUnpacker() (*unpacker, error) {
	u := &unpacker{plain: make([]byte, im.Piece)}
	if !im.zstd {
		u.r = inflater{flate.NewReader(nil)}
		return u, nil
	}
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxUnpack), zstd.WithDecoderLowmem(true))
	u.r = d
	return u, err
}

func (im *Image) decompress(u *unpacker, entry uint64) error {
	shift := 62 - (im.bits - 8)
	at := int64(entry & (1<<shift - 1))
	n := int64(entry&(compressed-1)>>shift+1)*sector - at%sector
	if n = min(n, im.fileSize-at); n <= 0 {
		return fmt.Errorf("compressed at byte %#x of a file of %d: %w", at, im.fileSize, io.ErrUnexpectedEOF)
	}
	u.packed = append(u.packed[:0], make([]byte, n)...)
	if err := readFull(im.r, u.packed, at); err != nil {
		return err
	}
	if err := u.r.Reset(bytes.NewReader(u.packed)); err != nil {
		return fmt.Errorf("decompressing: %w", err)
	}
	// What follows in the last sector belongs to others.
	if _, err := io.ReadFull(u.r, u.plain); err != nil {
		return fmt.Errorf("decompressing: %w", err)
	}
	return nil
}

// readFull reads all of b.
func readFull(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("byte %#x of the file: %w", off+int64(n), err)
}
