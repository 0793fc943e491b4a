package gce

import (
	"encoding/binary"
	"fmt"
	"io"
	"sort"

	"github.com/kscratch/kscratch/builder/format/blocks"
)

const (
	block    = 512 // bytes, of a tar archive
	maxOctal = 1 << 33
)

// Where GNU tar's old format has what it adds to a header, and how many entries
// of the map fit.
const (
	mapAt, mapLen           = 386, 4
	moreAt, realSizeAt      = 482, 483
	nextMapLen, nextMoreAt  = 21, 504
	numberLen, entryLen     = 12, 24
	magic, magicAt, sumAt   = "ustar  \x00", 257, 148
	modeAt, uidAt, gidAt    = 100, 108, 116
	sizeAt, mtimeAt, typeAt = 124, 136, 156
)

// archive is a tar archive as it will be, read from the disk that it is of.
type archive struct {
	src   blocks.Source
	head  []byte   // header and map
	data  []extent // of the disk
	start []int64  // where each extent is in the archive
	end   int64    // of the last one
}

func newArchive(src blocks.Source, size int64, data []extent) *archive {
	a := &archive{src: src, data: data, start: make([]int64, len(data))}
	stored := int64(0)
	for i, e := range data {
		a.start[i] = stored
		stored += e.size
	}
	a.head = header(size, stored, data)
	for i := range a.start {
		a.start[i] += int64(len(a.head))
	}
	a.end = int64(len(a.head)) + stored
	return a
}

// header returns the header of a file of size bytes, of which data is stored.
func header(size, stored int64, data []extent) []byte {
	// A map ends with an entry for the end of the file if a hole is there.
	if n := len(data); n == 0 || data[n-1].end() < size {
		data = append(data[:n:n], extent{size, 0})
	}
	b := make([]byte, block)
	copy(b, member)
	copy(b[modeAt:], "0000644\x00")
	copy(b[uidAt:], "0000000\x00")
	copy(b[gidAt:], "0000000\x00")
	number(b[sizeAt:], stored)
	number(b[mtimeAt:], 0)
	b[typeAt] = 'S'
	copy(b[magicAt:], magic)
	number(b[realSizeAt:], size)
	rest := entries(b[mapAt:], data, mapLen)
	if len(rest) > 0 {
		b[moreAt] = 1
	}
	copy(b[sumAt:], "        ")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[sumAt:], fmt.Sprintf("%06o\x00 ", sum))
	for len(rest) > 0 {
		next := make([]byte, block)
		if rest = entries(next, rest, nextMapLen); len(rest) > 0 {
			next[nextMoreAt] = 1
		}
		b = append(b, next...)
	}
	return b
}

// entries writes up to n entries of the map and returns the others.
func entries(b []byte, data []extent, n int) []extent {
	n = min(n, len(data))
	for i, e := range data[:n] {
		number(b[i*entryLen:], e.off)
		number(b[i*entryLen+numberLen:], e.size)
	}
	return data[n:]
}

// number writes a number in octal digits, or in binary if it has too many.
func number(b []byte, n int64) {
	if n < maxOctal {
		copy(b, fmt.Sprintf("%011o\x00", n))
		return
	}
	b[0] = 0x80
	binary.BigEndian.PutUint64(b[4:], uint64(n))
}

// Size returns the size of the archive in bytes: two empty blocks end it.
func (a *archive) Size() int64 { return blocks.RoundUp(a.end, block) + 2*block }

// Next calls all of the archive data.
func (a *archive) Next(off int64) (start, end int64, err error) { return off, a.Size(), nil }

// ReadAt reads the archive.
func (a *archive) ReadAt(b []byte, off int64) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = a.readSome(b[n:], off+int64(n))
		n += m
	}
	return n, err
}

// readSome reads from one part of the archive.
func (a *archive) readSome(b []byte, off int64) (int, error) {
	switch {
	case off >= a.Size():
		return 0, io.EOF
	case off < int64(len(a.head)):
		return copy(b, a.head[off:]), nil
	case off >= a.end:
		n := int(min(int64(len(b)), a.Size()-off))
		clear(b[:n])
		return n, nil
	}
	i := sort.Search(len(a.start), func(i int) bool { return a.start[i] > off }) - 1
	from := off - a.start[i]
	b = b[:min(int64(len(b)), a.data[i].size-from)]
	n, err := a.src.ReadAt(b, a.data[i].off+from)
	if n == len(b) {
		err = nil
	} else if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
