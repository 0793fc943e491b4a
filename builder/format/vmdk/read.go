package vmdk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/klauspost/compress/zlib"

	"github.com/kscratch/kscratch/builder/format/blocks"
)

const (
	maxGrain      = 2 << 20  // bytes
	maxDescriptor = 64 << 10 // bytes
	zeroGrain     = 1        // grain table entry, if the flag is set: reads as zeros
	hasZeroGrain  = 1 << 2   // flag of a header
)

// Image is the content of an image.
type Image struct {
	blocks.Pieces // grains

	r        io.ReaderAt
	fileSize int64
	dir      int64 // place of the grain directory
	flags    uint32

	unpackers sync.Pool // of *unpacker

	mu    sync.Mutex
	table []byte // the grain table read last
	at    int64  // its place; 0 is none
}

// unpacker decompresses grains, and keeps the last one.
type unpacker struct {
	off    int64 // its place on the disk; -1 is none
	plain  []byte
	packed []byte
	r      io.ReadCloser // zlib
}

// Open reads the header of an image in a file of fileSize bytes.
func Open(r io.ReaderAt, fileSize int64) (*Image, error) {
	im := &Image{r: r, fileSize: fileSize}
	if err := im.open(); err != nil {
		return nil, fmt.Errorf("reading VMDK: %w", err)
	}
	return im, nil
}

func (im *Image) open() error {
	b := make([]byte, sector)
	if err := im.readFull(b, 0); err != nil {
		return err
	}
	le := binary.LittleEndian
	if string(b[:4]) != Magic {
		return errors.New("there is no header")
	}
	if err := im.describe(int64(le.Uint64(b[28:])), int64(le.Uint64(b[36:]))); err != nil {
		return err
	}
	if le.Uint64(b[56:]) == dirAtEnd { // the last but one sector is the header that counts
		if err := im.readFull(b, im.fileSize-2*sector); err != nil {
			return err
		}
		if string(b[:4]) != Magic {
			return errors.New("there is no footer: the file is cut off")
		}
	}
	return im.header(b)
}

// describe refuses disks that are more than this one file.
func (im *Image) describe(at, sectors int64) error {
	if at <= 0 || sectors <= 0 || sectors > maxDescriptor/sector || at > im.fileSize/sector {
		return fmt.Errorf("descriptor of %d sectors at sector %d is out of range", sectors, at)
	}
	b := make([]byte, sectors*sector)
	if err := im.readFull(b, at*sector); err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		value = strings.Trim(strings.TrimSpace(value), `"`)
		switch strings.TrimSpace(key) {
		case "createType":
			if value != "streamOptimized" && value != "monolithicSparse" {
				return fmt.Errorf("a disk of type %q is not supported: only streamOptimized is; convert it with `qemu-img convert`", value)
			}
		case "parentCID":
			if !strings.EqualFold(value, "ffffffff") {
				return errors.New("it is a snapshot; make one image of it with `qemu-img convert`")
			}
		}
	}
	return nil
}

func (im *Image) header(b []byte) error {
	le := binary.LittleEndian
	version, sectors, grain := le.Uint32(b[4:]), le.Uint64(b[12:]), le.Uint64(b[20:])
	im.flags = le.Uint32(b[8:])
	switch {
	case version < 1 || version > 3:
		return fmt.Errorf("version %d is not supported: only 1 to 3 are", version)
	case sectors > blocks.MaxSize/sector:
		return blocks.Check(blocks.MaxSize + sector)
	case grain == 0 || grain&(grain-1) != 0 || grain > maxGrain/sector:
		return fmt.Errorf("grains of %d sectors are not supported", grain)
	case le.Uint32(b[44:]) != tableLen:
		return fmt.Errorf("grain tables of %d entries are not supported", le.Uint32(b[44:]))
	case im.flags&isCompressed != 0 && le.Uint16(b[77:]) != 1:
		return fmt.Errorf("compression %d is not supported: only deflate is", le.Uint16(b[77:]))
	}
	im.Pieces = blocks.Pieces{
		Format: "VMDK", Bytes: int64(sectors) * sector, Piece: int64(grain) * sector, Table: int64(grain) * sector * tableLen,
		Has: im.has, Read: im.read,
	}
	if err := blocks.Check(im.Bytes); err != nil {
		return err
	}
	dir := le.Uint64(b[56:])
	if dir == 0 || dir > uint64(im.fileSize/sector) {
		return fmt.Errorf("grain directory at sector %d is not in the file", dir)
	}
	im.dir = int64(dir) * sector
	return nil
}

// has reports whether a grain has content.
func (im *Image) has(off int64) (content, table bool, err error) {
	at, table, err := im.lookup(off)
	return at != 0, table, err
}

// read reads within one grain.
func (im *Image) read(b []byte, off int64) error {
	at, _, err := im.lookup(off)
	switch {
	case err != nil:
		return err
	case at == 0:
		clear(b)
		return nil
	case im.flags&isCompressed == 0:
		return im.readFull(b, at+off%im.Piece)
	}
	return im.unpack(b, at, off)
}

// lookup returns where in the file a grain is, 0 for a grain of zeros, and
// whether there is a grain table for it.
func (im *Image) lookup(off int64) (at int64, has bool, err error) {
	im.mu.Lock()
	defer im.mu.Unlock()
	var b [4]byte
	if err := im.readFull(b[:], im.dir+off/im.Table*4); err != nil {
		return 0, false, fmt.Errorf("grain directory: %w", err)
	}
	table := int64(binary.LittleEndian.Uint32(b[:])) * sector
	if table == 0 {
		return 0, false, nil
	}
	if table != im.at {
		if im.table == nil {
			im.table = make([]byte, tableLen*4)
		}
		im.at = 0
		if err := im.readFull(im.table, table); err != nil {
			return 0, false, fmt.Errorf("grain table: %w", err)
		}
		im.at = table
	}
	e := binary.LittleEndian.Uint32(im.table[off/im.Piece%tableLen*4:])
	if e == zeroGrain && im.flags&hasZeroGrain != 0 {
		e = 0
	}
	return int64(e) * sector, true, nil
}

// unpack reads from a compressed grain, which is at byte at of the file.
func (im *Image) unpack(b []byte, at, off int64) error {
	u, _ := im.unpackers.Get().(*unpacker)
	if u == nil {
		u = &unpacker{off: -1, plain: make([]byte, im.Piece)}
	}
	defer im.unpackers.Put(u)
	if grain := off / im.Piece * im.Piece; u.off != grain {
		u.off = -1
		if err := im.decompress(u, at, grain); err != nil {
			return err
		}
		u.off = grain
	}
	copy(b, u.plain[off%im.Piece:])
	return nil
}

func (im *Image) decompress(u *unpacker, at, off int64) error {
	head := 4 // without markers, only the length is there
	if im.flags&hasMarkers != 0 {
		head = 12
	}
	var b [12]byte
	if err := im.readFull(b[:head], at); err != nil {
		return err
	}
	if lba := binary.LittleEndian.Uint64(b[:]); head == 12 && lba != uint64(off/sector) {
		return fmt.Errorf("the marker at byte %#x of the file is for sector %d", at, lba)
	}
	n := int64(binary.LittleEndian.Uint32(b[head-4:]))
	if n > 2*im.Piece {
		return fmt.Errorf("a compressed grain of %d bytes at byte %#x of the file is too large", n, at)
	}
	u.packed = append(u.packed[:0], make([]byte, n)...)
	if err := im.readFull(u.packed, at+int64(head)); err != nil {
		return err
	}
	if err := u.reset(); err != nil {
		return fmt.Errorf("decompressing: %w", err)
	}
	// The last grain of a disk may be short.
	want := u.plain[:min(im.Piece, im.Bytes-off)]
	if _, err := io.ReadFull(u.r, want); err != nil {
		return fmt.Errorf("decompressing: %w", err)
	}
	return nil
}

func (u *unpacker) reset() (err error) {
	if u.r == nil {
		u.r, err = zlib.NewReader(bytes.NewReader(u.packed))
		return err
	}
	return u.r.(zlib.Resetter).Reset(bytes.NewReader(u.packed), nil)
}

// readFull reads all of b.
func (im *Image) readFull(b []byte, off int64) error {
	if off < 0 || off > im.fileSize-int64(len(b)) {
		return fmt.Errorf("bytes %#x to %#x of a file of %d: %w", off, off+int64(len(b)), im.fileSize, io.ErrUnexpectedEOF)
	}
	if n, err := im.r.ReadAt(b, off); n < len(b) {
		return fmt.Errorf("byte %#x of the file: %w", off+int64(n), errors.Join(err, io.ErrUnexpectedEOF))
	}
	return nil
}
