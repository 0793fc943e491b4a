package blocks

import (
	"fmt"
	"io"
)

// Pieces is a disk that a format keeps in pieces of one size, which tables of
// one size find. It makes a Source of what the format knows of a piece.
type Pieces struct {
	Format string // for errors
	Bytes  int64  // size of the disk
	Piece  int64  // bytes of content of a piece
	Table  int64  // bytes of content that a table is for, a multiple of Piece

	// Has reports whether there is content in the piece at off, and whether
	// there is a table for it. Without a table, there is no content.
	Has func(off int64) (content, table bool, err error)
	// Read reads content within a piece.
	Read func(b []byte, off int64) error
}

// Size returns the size of the disk in bytes.
func (p *Pieces) Size() int64 { return p.Bytes }

// Next returns the next run of pieces that have content, up to the end of a
// table: soon enough for those who wait.
func (p *Pieces) Next(off int64) (start, end int64, err error) {
	start = p.Bytes
	for off < p.Bytes {
		content, table, err := p.Has(off)
		if err != nil {
			return 0, 0, fmt.Errorf("reading %s: %w", p.Format, err)
		}
		step := p.Piece
		if !table {
			step = p.Table
		}
		if content {
			start = min(start, off)
		} else if start < off {
			return start, off, nil
		}
		off = (off/step + 1) * step
		if start < off && off%p.Table == 0 {
			break
		}
	}
	return start, min(max(start, off), p.Bytes), nil
}

// ReadAt reads content.
func (p *Pieces) ReadAt(b []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("reading %s: byte %d is not on the disk", p.Format, off)
	}
	for n < len(b) {
		if off >= p.Bytes {
			return n, io.EOF
		}
		step := min(p.Piece-off%p.Piece, int64(len(b)-n), p.Bytes-off)
		if err := p.Read(b[n:n+int(step)], off); err != nil {
			return n, fmt.Errorf("reading %s: the %d bytes at byte %d of the disk: %w", p.Format, p.Piece, off/p.Piece*p.Piece, err)
		}
		n, off = n+int(step), off+step
	}
	return n, nil
}
