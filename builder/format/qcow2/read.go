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
	r        io.ReaderAt
	fileSize int64
	size     int64
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
	im.bits, im.l1, im.size = uint(bits), int64(l1), int64(be.Uint64(b[24:]))
	if err := blocks.Check(im.size); err != nil {
		return err
	}
	need := (im.size + im.partSize() - 1) / im.partSize()
	if int64(be.Uint32(b[36:])) < need || im.l1 <= 0 || im.l1%im.clusterSize() != 0 || im.l1 > im.fileSize-need*8 {
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

func (im *Image) clusterSize() int64 { return 1 << im.bits }

// partSize is how many bytes of content an L2 table covers.
func (im *Image) partSize() int64 { return im.clusterSize() / 8 * im.clusterSize() }

// Size returns the size of the disk in bytes.
func (im *Image) Size() int64 { return im.size }

// Next returns the next run of clusters that have content.
func (im *Image) Next(off int64) (start, end int64, err error) {
	im.mu.Lock()
	defer im.mu.Unlock()
	start = im.size
	for off < im.size {
		table, err := im.part(off)
		if err != nil {
			return 0, 0, fmt.Errorf("reading qcow2: %w", err)
		}
		next := (off/im.clusterSize() + 1) * im.clusterSize()
		has := false
		if table == nil {
			next = (off/im.partSize() + 1) * im.partSize()
		} else if e := im.entry(table, off); e&compressed != 0 || e&offsetMask != 0 && e&noContent == 0 {
			has = true
		}
		switch {
		case has && start == im.size:
			start = off
		case !has && start < im.size:
			return start, off, nil
		}
		off = next
		if start < off && off%im.partSize() == 0 { // soon enough for those who wait
			break
		}
	}
	return start, min(max(start, off), im.size), nil
}

// ReadAt reads content.
func (im *Image) ReadAt(b []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("reading qcow2: byte %d is not on the disk", off)
	}
	for n < len(b) {
		if off >= im.size {
			return n, io.EOF
		}
		step := min(im.clusterSize()-off%im.clusterSize(), int64(len(b)-n), im.size-off)
		if err := im.read(b[n:n+int(step)], off); err != nil {
			return n, fmt.Errorf("reading qcow2: cluster at byte %d of the disk: %w", off/im.clusterSize()*im.clusterSize(), err)
		}
		n, off = n+int(step), off+step
	}
	return n, nil
}

// read reads within one cluster.
func (im *Image) read(b []byte, off int64) error {
	e, err := im.lookup(off)
	if err != nil {
		return err
	}
	within := off % im.clusterSize()
	switch {
	case e&compressed != 0:
		return im.unpack(b, e, within)
	case e&noContent != 0 || e&offsetMask == 0:
		clear(b)
		return nil
	}
	at := int64(e & offsetMask)
	if at%im.clusterSize() != 0 {
		return fmt.Errorf("place %#x in the file is not at the start of a cluster", at)
	}
	return readFull(im.r, b, at+within)
}

func (im *Image) lookup(off int64) (uint64, error) {
	im.mu.Lock()
	defer im.mu.Unlock()
	table, err := im.part(off)
	if err != nil || table == nil {
		return 0, err
	}
	return im.entry(table, off), nil
}

func (im *Image) entry(table []byte, off int64) uint64 {
	return binary.BigEndian.Uint64(table[off>>im.bits%(im.clusterSize()/8)*8:])
}

// part returns the L2 table for a place on the disk, or nil if there is none.
func (im *Image) part(off int64) ([]byte, error) {
	var b [8]byte
	if err := readFull(im.r, b[:], im.l1+off/im.partSize()*8); err != nil {
		return nil, fmt.Errorf("L1 table: %w", err)
	}
	at := int64(binary.BigEndian.Uint64(b[:]) & offsetMask)
	if at == 0 {
		return nil, nil
	}
	if at == im.at {
		return im.table, nil
	}
	if at%im.clusterSize() != 0 {
		return nil, fmt.Errorf("L2 table at byte %#x is not at the start of a cluster", at)
	}
	if im.table == nil {
		im.table = make([]byte, im.clusterSize())
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
	u := &unpacker{plain: make([]byte, im.clusterSize())}
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
