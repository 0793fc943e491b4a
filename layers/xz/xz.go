// Package xz decompresses .xz files, version 1.1.0 of the format
// (https://tukaani.org/xz/xz-file-format.txt), and fast: most of the time of a
// build from downloads goes into Debian's packages, which are .xz.
//
// Everything that the format lets a reader check is checked: the CRC32 of
// headers and index, the CRC32, CRC64 or SHA-256 of the content, and the sizes
// that the index and the headers have. Memory is once and a half the dictionary that the
// file asks for, which the caller bounds, and no more than the content needs.
//
// It does not support filters other than LZMA2 (those for executables, and
// delta), which Debian's packages do not use.
package xz

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"
)

const (
	maxPacked = 1 << 16 // bytes of compressed data of an LZMA2 chunk
	maxChunk  = 1 << 21 // bytes of content of one
	filterID  = 0x21
)

var (
	headerMagic = []byte{0xfd, '7', 'z', 'X', 'Z', 0}
	footerMagic = []byte("YZ")
	crc64Table  = crc64.MakeTable(crc64.ECMA)
)

// MemoryError says that a file needs more memory than it may have.
type MemoryError struct {
	Need, Limit uint64 // bytes of dictionary
}

func (e *MemoryError) Error() string {
	return fmt.Sprintf("xz: the file needs a dictionary of %d bytes, more than %d", e.Need, e.Limit)
}

// ErrUnsupported is a file with a feature that this package does not have.
var ErrUnsupported = errors.New("xz: the file uses a filter, check or flag that is not supported")

// Reader decompresses a file: one stream, or several one after the other.
type Reader struct {
	in      counting
	maxDict uint64
	err     error

	check byte
	sum   hash.Hash
	sizes []block // of the stream's blocks so far

	// The block that is being read.
	inBlock  bool
	start    int64  // offset of its header
	packed   int64  // offset of its data
	declared block  // by its header; -1 is unknown
	size     uint64 // of its content so far

	lzma            *lzma
	input           [maxPacked + inputSlack]byte
	needDict        bool
	needProps       bool
	needState       bool
	dict            uint64
	total           uint64 // bytes since the dictionary began
	buf             []byte
	read, have, end int // buf[read:have] waits to be read
}

// block is the sizes of a block in bytes, as the index has them.
type block struct{ unpadded, content int64 }

// NewReader returns a reader of r. A file that needs a dictionary of more than
// maxDict bytes is a *[MemoryError] when it is read.
func NewReader(r io.Reader, maxDict uint64) *Reader {
	return &Reader{in: counting{r: r, buf: make([]byte, 64<<10)}, maxDict: maxDict, lzma: &lzma{}}
}

// Read reads content.
func (r *Reader) Read(p []byte) (int, error) {
	for r.read == r.have {
		if r.err == nil {
			r.err = r.next()
		}
		if r.err != nil {
			return 0, r.err
		}
	}
	n := copy(p, r.buf[r.read:r.have])
	r.read += n
	return n, nil
}

// WriteTo writes all content to w, in pieces as large as they come.
func (r *Reader) WriteTo(w io.Writer) (total int64, err error) {
	for {
		if r.read < r.have {
			n, err := w.Write(r.buf[r.read:r.have])
			r.read += n
			total += int64(n)
			if err != nil {
				return total, err
			}
		}
		if r.err == nil {
			r.err = r.next()
		}
		if errors.Is(r.err, io.EOF) {
			return total, nil
		}
		if r.err != nil {
			return total, r.err
		}
	}
}

// next makes more content, or comes nearer to it. The end of the file is
// io.EOF.
func (r *Reader) next() error {
	if r.inBlock {
		return r.chunk()
	}
	if r.check == 0 && r.sizes == nil {
		return r.header()
	}
	r.start = r.in.off
	size, err := r.in.byte()
	if err != nil {
		return cut(err)
	}
	if size == 0 {
		return r.index()
	}
	return r.blockHeader(size)
}

// noSizes is the list of a stream without a block yet.
var noSizes = []block{}

// header reads the header of the next stream, behind padding.
func (r *Reader) header() error {
	var b [12]byte
	begin := r.in.off
	for {
		n, err := r.in.full(b[:4])
		if n == 0 && errors.Is(err, io.EOF) && begin > 0 {
			return io.EOF
		}
		if err != nil {
			return cut(err)
		}
		if binary.LittleEndian.Uint32(b[:]) != 0 || begin == 0 {
			break
		}
	}
	if _, err := r.in.full(b[4:]); err != nil {
		return cut(err)
	}
	if !bytes.Equal(b[:6], headerMagic) {
		return errors.New("xz: not an .xz file")
	}
	if crc32.ChecksumIEEE(b[6:8]) != binary.LittleEndian.Uint32(b[8:]) {
		return errors.New("xz: the header is corrupt")
	}
	switch {
	case b[6] != 0:
		return ErrUnsupported
	case b[7] == 0:
		r.sum = nil
	case b[7] == 1:
		r.sum = crc32.NewIEEE()
	case b[7] == 4:
		r.sum = crc64.New(crc64Table)
	case b[7] == 10:
		r.sum = sha256.New()
	default:
		return ErrUnsupported
	}
	r.check, r.sizes = b[7], noSizes
	return nil
}

// blockHeader reads a block's header, the first byte of which says how long it
// is.
func (r *Reader) blockHeader(size byte) error {
	b := make([]byte, (int(size)+1)*4)
	b[0] = size
	if _, err := r.in.full(b[1:]); err != nil {
		return cut(err)
	}
	body, sum := b[:len(b)-4], b[len(b)-4:]
	if crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(sum) {
		return errors.New("xz: a block's header is corrupt")
	}
	flags, rest := body[1], body[2:]
	if flags&0x3c != 0 || flags&3 != 0 {
		return ErrUnsupported // reserved bits, more than one filter
	}
	r.declared = block{-1, -1}
	ok := true
	if flags&0x40 != 0 {
		r.declared.unpadded, rest, ok = number(rest)
	}
	if ok && flags&0x80 != 0 {
		r.declared.content, rest, ok = number(rest)
	}
	if !ok || len(rest) < 3 {
		return errors.New("xz: a block's header is corrupt")
	}
	if rest[0] != filterID || rest[1] != 1 {
		return ErrUnsupported
	}
	if len(bytes.Trim(rest[3:], "\x00")) > 0 || rest[2] > 40 {
		return errors.New("xz: a block's header is corrupt")
	}
	r.dict = 1<<32 - 1
	if bits := rest[2]; bits < 40 {
		r.dict = uint64(2|bits&1) << (bits/2 + 11)
	}
	if r.dict > r.maxDict {
		return &MemoryError{r.dict, r.maxDict}
	}
	if r.sum != nil {
		r.sum.Reset()
	}
	r.inBlock, r.packed, r.size = true, r.in.off, 0
	r.needDict, r.needProps, r.needState = true, true, true
	return nil
}

// number reads a variable-length integer.
func number(b []byte) (n int64, rest []byte, ok bool) {
	for i := range min(len(b), 9) {
		n |= int64(b[i]&0x7f) << (7 * i)
		if b[i]&0x80 == 0 {
			return n, b[i+1:], i == 0 || b[i] != 0
		}
	}
	return 0, nil, false
}

// chunk decodes the next chunk of LZMA2, or ends the block.
func (r *Reader) chunk() error {
	control, err := r.in.byte()
	if err != nil {
		return cut(err)
	}
	if control == 0 {
		return r.endBlock()
	}
	var h [5]byte
	if control < 0x80 {
		if control > 2 || r.needDict && control != 1 {
			return errData
		}
		if _, err := r.in.full(h[:2]); err != nil {
			return cut(err)
		}
		n := int(binary.BigEndian.Uint16(h[:])) + 1
		if control == 1 {
			r.resetDict()
		}
		at := r.room(n)
		if _, err := r.in.full(r.buf[at : at+n]); err != nil {
			return cut(err)
		}
		return r.made(n)
	}
	want := 4
	if control >= 0xc0 {
		want = 5
	}
	if _, err := r.in.full(h[:want]); err != nil {
		return cut(err)
	}
	n := int(control&0x1f)<<16 + int(binary.BigEndian.Uint16(h[:])) + 1
	packed := int(binary.BigEndian.Uint16(h[2:])) + 1
	if control >= 0xe0 {
		r.resetDict()
	} else if r.needDict {
		return errData
	}
	if control >= 0xc0 {
		if !r.lzma.setProperties(h[4]) {
			return errData
		}
		r.needProps = false
	} else if r.needProps {
		return errData
	}
	if control >= 0xa0 {
		r.lzma.reset()
		r.needState = false
	} else if r.needState {
		return errData
	}
	if packed < 5 {
		return errData
	}
	if _, err := r.in.full(r.input[:packed]); err != nil {
		return cut(err)
	}
	clear(r.input[packed : packed+inputSlack])
	at := r.room(n)
	d := r.lzma
	d.in = &r.input
	if !d.start() {
		return errData
	}
	if err := d.decode(r.buf, at, at+n, r.total, r.dict, packed); err != nil {
		return err
	}
	return r.made(n)
}

func (r *Reader) resetDict() { r.needDict, r.total = false, 0 }

// room makes room for n bytes behind what there is, and returns where. Of what
// there is, all is read; the dictionary stays.
func (r *Reader) room(n int) int {
	if r.have+n <= len(r.buf) {
		return r.have
	}
	keep := int(min(r.total, r.dict, uint64(r.have)))
	most := int(r.dict+r.dict/2) + maxChunk
	buf := r.buf
	if keep+n > len(buf)/2 && len(buf) < most {
		buf = make([]byte, min(max(2*len(buf), keep+n, 1<<20), most))
	}
	copy(buf, r.buf[r.have-keep:r.have])
	r.buf = buf
	r.read, r.have = keep, keep
	return keep
}

// made takes n bytes of content in.
func (r *Reader) made(n int) error {
	b := r.buf[r.have : r.have+n]
	r.have += n
	r.total += uint64(n)
	r.size += uint64(n)
	if r.sum != nil {
		r.sum.Write(b)
	}
	if r.declared.content >= 0 && r.size > uint64(r.declared.content) {
		return errors.New("xz: a block has more content than its header says")
	}
	return nil
}

func (r *Reader) endBlock() error {
	packed := r.in.off - r.packed
	b := block{r.in.off - r.start, int64(r.size)}
	if r.declared.unpadded >= 0 && r.declared.unpadded != packed || r.declared.content >= 0 && r.declared.content != b.content {
		return errors.New("xz: a block has another size than its header says")
	}
	if err := r.padding(packed); err != nil {
		return err
	}
	if r.sum != nil {
		got := r.sum.Sum(nil)
		if r.check != 10 {
			reverse(got) // Go writes checksums with the highest byte first
		}
		want := make([]byte, len(got))
		if _, err := r.in.full(want); err != nil {
			return cut(err)
		}
		if !bytes.Equal(got, want) {
			return errors.New("xz: the content does not have the checksum that it should")
		}
		b.unpadded += int64(len(want))
	}
	r.sizes = append(r.sizes, b)
	r.inBlock = false
	return nil
}

// padding reads zeros up to a multiple of four bytes.
func (r *Reader) padding(n int64) error {
	for ; n%4 != 0; n++ {
		b, err := r.in.byte()
		if err != nil {
			return cut(err)
		}
		if b != 0 {
			return errors.New("xz: padding is not zero")
		}
	}
	return nil
}

// index reads the index and the footer of a stream, and compares what they say
// with what was there.
func (r *Reader) index() error {
	bad := errors.New("xz: the index does not fit the content")
	sum := crc32.NewIEEE()
	r.in.also = sum
	sum.Write([]byte{0})
	n, err := r.in.number()
	if err == nil && n != int64(len(r.sizes)) {
		err = bad
	}
	for i := 0; err == nil && i < len(r.sizes); i++ {
		var b block
		if b.unpadded, err = r.in.number(); err == nil {
			b.content, err = r.in.number()
		}
		if err == nil && b != r.sizes[i] {
			err = bad
		}
	}
	if err == nil {
		err = r.padding(r.in.off - r.start)
	}
	r.in.also = nil
	if err != nil {
		return err
	}
	length := r.in.off - r.start + 4
	var b [16]byte
	if _, err := r.in.full(b[:]); err != nil {
		return cut(err)
	}
	le := binary.LittleEndian
	if le.Uint32(b[:]) != sum.Sum32() {
		return errors.New("xz: the index is corrupt")
	}
	foot := b[4:]
	if crc32.ChecksumIEEE(foot[4:10]) != le.Uint32(foot) || !bytes.Equal(foot[10:], footerMagic) ||
		int64(le.Uint32(foot[4:])+1)*4 != length || foot[8] != 0 || foot[9] != r.check {
		return errors.New("xz: the footer is corrupt")
	}
	r.check, r.sizes = 0, nil
	return nil
}

func reverse(b []byte) {
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
}

// cut says that the file ends too early, if that is what err says.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// counting is the input, and how much of it was read.
type counting struct {
	r    io.Reader
	off  int64
	also io.Writer // gets all that is read; may be nil

	buf     []byte
	at, end int
}

// full reads all of b; the error of an input that has none left is io.EOF.
func (c *counting) full(b []byte) (n int, err error) {
	for n < len(b) {
		if c.at == c.end {
			if c.at, c.end = 0, 0; len(b)-n >= len(c.buf) {
				k, err := io.ReadFull(c.r, b[n:])
				return n + c.count(b[n:n+k]), noEOF(err, n+k)
			}
			if c.end, err = io.ReadAtLeast(c.r, c.buf, 1); err != nil {
				return n, noEOF(err, n)
			}
		}
		k := copy(b[n:], c.buf[c.at:c.end])
		c.at += k
		n += c.count(b[n : n+k])
	}
	return n, nil
}

func (c *counting) count(b []byte) int {
	c.off += int64(len(b))
	if c.also != nil {
		c.also.Write(b) // a hash
	}
	return len(b)
}

// noEOF tells an end within from an end before n bytes.
func noEOF(err error, n int) error {
	if n > 0 && errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (c *counting) byte() (byte, error) {
	var b [1]byte
	_, err := c.full(b[:])
	return b[0], err
}

func (c *counting) number() (int64, error) {
	var b [9]byte
	for i := range b {
		v, err := c.byte()
		if err != nil {
			return 0, cut(err)
		}
		if b[i] = v; v&0x80 == 0 {
			n, _, ok := number(b[:i+1])
			if !ok {
				return 0, errors.New("xz: a number is corrupt")
			}
			return n, nil
		}
	}
	return 0, errors.New("xz: a number is corrupt")
}
