package xz

import (
	"encoding/binary"
	"errors"
)

// The names of the model are those of the LZMA specification
// (https://www.7-zip.org/sdk.html, lzma-specification.txt).
const (
	states       = 12
	litStates    = 7 // states below: the last symbol was a literal
	maxPosStates = 1 << 4
	alignBits    = 4
	startModel   = 4 // distance slots with bits of their own probabilities
	endModel     = 14
	fullDists    = 1 << (endModel / 2)
	minMatch     = 2
	literalCoder = 0x300
	maxLCLP      = 4 // LZMA2's bound on lc+lp

	probBits  = 11
	probStart = 1 << (probBits - 1)
	moveBits  = 5
	top       = 1 << 24
)

// errData is a compressed chunk that says what it cannot say.
var errData = errors.New("xz: compressed data is corrupt")

// lengths is the model of match lengths.
type lengths struct {
	choice [2]uint16
	low    [maxPosStates][8]uint16
	mid    [maxPosStates][8]uint16
	high   [256]uint16
}

// model is all probabilities.
type model struct {
	isMatch    [states << 4]uint16
	isRep      [states]uint16
	isRep0     [states]uint16
	isRep1     [states]uint16
	isRep2     [states]uint16
	isRep0Long [states << 4]uint16
	slot       [4][64]uint16
	special    [fullDists]uint16 // 1 more than the reference's, for a tree's index that starts with 1
	align      [1 << alignBits]uint16
	match, rep lengths
	literal    [literalCoder << maxLCLP]uint16
}

func fill(p []uint16) {
	for i := range p {
		p[i] = probStart
	}
}

func (l *lengths) reset() {
	fill(l.choice[:])
	for i := range l.low {
		fill(l.low[i][:])
		fill(l.mid[i][:])
	}
	fill(l.high[:])
}

// coder is the range decoder. Its input has room behind its end, so that what
// is corrupt reads zeros there rather than out of bounds.
type coder struct {
	rng, code uint32
	pos       int
	in        *[maxPacked + inputSlack]byte
}

// inputSlack is more than one symbol of LZMA takes: 46 bits of a literal or
// match with at most one byte of input each.
const inputSlack = 64

// bit decodes a bit that is easy to foresee.
func (c *coder) bit(p *uint16) bool {
	if c.rng < top {
		c.rng <<= 8
		c.code = c.code<<8 | uint32(c.in[c.pos])
		c.pos++
	}
	v := uint32(*p)
	bound := (c.rng >> probBits) * v
	if c.code < bound {
		c.rng = bound
		*p = uint16(v + (1<<probBits-v)>>moveBits)
		return false
	}
	c.rng -= bound
	c.code -= bound
	*p = uint16(v - v>>moveBits)
	return true
}

// tree decodes an index into a binary tree of 1<<n leaves, whose bits are hard
// to foresee: without a branch.
func (c *coder) tree(p []uint16, n int) uint32 {
	rng, code, pos, in := c.rng, c.code, c.pos, c.in
	sym := uint32(1)
	for range n {
		if rng < top {
			rng <<= 8
			code = code<<8 | uint32(in[pos])
			pos++
		}
		q := &p[sym]
		v := uint32(*q)
		bound := (rng >> probBits) * v
		zero := uint32(int64(uint64(code)-uint64(bound)) >> 63) // all ones if the bit is 0
		rng = bound&zero | (rng-bound)&^zero
		code -= bound &^ zero
		*q = uint16(int32(v) - (int32(v)+int32(zero)&(31-1<<probBits))>>moveBits)
		sym = sym<<1 + 1 + zero
	}
	c.rng, c.code, c.pos = rng, code, pos
	return sym - 1<<n
}

// reverse decodes n bits, the lowest first, by the tree at p.
func (c *coder) reverse(p []uint16, n int) uint32 {
	sym, out := uint32(1), uint32(0)
	for i := range n {
		if c.bit(&p[sym]) {
			sym = sym<<1 + 1
			out |= 1 << i
		} else {
			sym <<= 1
		}
	}
	return out
}

// direct decodes n bits without a model, the highest first.
func (c *coder) direct(n int) uint32 {
	rng, code, pos, in := c.rng, c.code, c.pos, c.in
	out := uint32(0)
	for range n {
		if rng < top {
			rng <<= 8
			code = code<<8 | uint32(in[pos])
			pos++
		}
		rng >>= 1
		code -= rng
		mask := -(code >> 31) // all ones if the bit is 0
		code += rng & mask
		out = out<<1 + 1 + mask
	}
	c.rng, c.code, c.pos = rng, code, pos
	return out
}

// start reads the first bytes of a chunk.
func (c *coder) start() bool {
	c.rng = 1<<32 - 1
	c.code = binary.BigEndian.Uint32(c.in[1:])
	c.pos = 5
	return c.in[0] == 0
}

// lzma decodes the symbols of LZMA.
type lzma struct {
	coder
	model
	lc, lp, pb uint32
	state      uint32
	reps       [4]uint32
}

func (d *lzma) reset() {
	d.state = 0
	d.reps = [4]uint32{}
	fill(d.isMatch[:])
	fill(d.isRep[:])
	fill(d.isRep0[:])
	fill(d.isRep1[:])
	fill(d.isRep2[:])
	fill(d.isRep0Long[:])
	for i := range d.slot {
		fill(d.slot[i][:])
	}
	fill(d.special[:])
	fill(d.align[:])
	d.match.reset()
	d.rep.reset()
	fill(d.literal[:literalCoder<<(d.lc+d.lp)])
}

// setProperties takes lc, lp and pb out of a byte.
func (d *lzma) setProperties(b byte) bool {
	if b >= 9*5*5 {
		return false
	}
	d.pb = uint32(b / 45)
	d.lp = uint32(b / 9 % 5)
	d.lc = uint32(b % 9)
	return d.lc+d.lp <= maxLCLP
}

// decode writes buf[at:end] out of size bytes of input. There were total bytes
// since the dictionary began, which are before at as far as the dictionary
// reaches.
func (d *lzma) decode(buf []byte, at, end int, total, dict uint64, size int) error {
	pbMask, lpMask := uint32(1)<<d.pb-1, uint32(1)<<d.lp-1
	first := int64(total) - int64(at) // index in buf + first = place in the stream
	for at < end {
		if d.pos > size {
			return errData
		}
		position := uint32(first + int64(at))
		posState := position & pbMask
		if !d.bit(&d.isMatch[d.state<<4+posState]) {
			prev := byte(0)
			if first+int64(at) > 0 {
				prev = buf[at-1]
			}
			p := (*[literalCoder]uint16)(d.literal[literalCoder*((position&lpMask)<<d.lc+uint32(prev)>>(8-d.lc)):])
			if d.state < litStates {
				buf[at] = d.plain(p)
				d.state = max(d.state, 3) - 3
			} else {
				from, ok := d.from(at, first, dict)
				if !ok {
					return errData
				}
				buf[at] = d.matched(p, buf[from])
				d.state -= 3
				if d.state >= litStates { // 10, 11 become 4, 5
					d.state -= 3
				}
			}
			at++
			continue
		}
		length := uint32(1)
		if !d.bit(&d.isRep[d.state]) {
			d.reps[3], d.reps[2], d.reps[1] = d.reps[2], d.reps[1], d.reps[0]
			length = d.length(&d.match, posState)
			d.reps[0] = d.distance(length)
			if d.reps[0] == 1<<32-1 {
				return errData // an end mark, which LZMA2 does not have
			}
			d.state = after(d.state, 7)
		} else {
			if !d.bit(&d.isRep0[d.state]) {
				if !d.bit(&d.isRep0Long[d.state<<4+posState]) {
					d.state = after(d.state, 9)
					from, ok := d.from(at, first, dict)
					if !ok {
						return errData
					}
					buf[at] = buf[from]
					at++
					continue
				}
			} else {
				var dist uint32
				if !d.bit(&d.isRep1[d.state]) {
					dist = d.reps[1]
				} else {
					if !d.bit(&d.isRep2[d.state]) {
						dist = d.reps[2]
					} else {
						dist = d.reps[3]
						d.reps[3] = d.reps[2]
					}
					d.reps[2] = d.reps[1]
				}
				d.reps[1], d.reps[0] = d.reps[0], dist
			}
			length = d.length(&d.rep, posState)
			d.state = after(d.state, 8)
		}
		from, ok := d.from(at, first, dict)
		to := at + int(length)
		if !ok || to > end {
			return errData
		}
		for at < to { // more than once if the match reaches into itself
			at += copy(buf[at:to], buf[from:at])
		}
	}
	if d.rng < top { // the encoder's last byte
		d.rng <<= 8
		d.code = d.code<<8 | uint32(d.in[d.pos])
		d.pos++
	}
	if d.pos != size || d.code != 0 {
		return errData
	}
	return nil
}

// from returns where in the buffer the match at an index is from.
func (d *lzma) from(at int, first int64, dict uint64) (int, bool) {
	dist := uint64(d.reps[0]) + 1
	return at - int(dist), dist <= uint64(first+int64(at)) && dist <= dict
}

// after returns the state after a match (7), a repeated one (8) or a single
// repeated byte (9).
func after(state, literal uint32) uint32 {
	if state < litStates {
		return literal
	}
	if literal == 7 {
		return 10
	}
	return 11
}

// plain decodes a literal.
func (d *lzma) plain(p *[literalCoder]uint16) byte {
	rng, code, pos, in := d.rng, d.code, d.pos, d.in
	sym := uint32(1)
	for range 8 {
		if rng < top {
			rng <<= 8
			code = code<<8 | uint32(in[pos])
			pos++
		}
		q := &p[sym&0xff]
		v := uint32(*q)
		bound := (rng >> probBits) * v
		zero := uint32(int64(uint64(code)-uint64(bound)) >> 63)
		rng = bound&zero | (rng-bound)&^zero
		code -= bound &^ zero
		*q = uint16(int32(v) - (int32(v)+int32(zero)&(31-1<<probBits))>>moveBits)
		sym = sym<<1 + 1 + zero
	}
	d.rng, d.code, d.pos = rng, code, pos
	return byte(sym)
}

// matched decodes a literal behind a match, by the byte that the match would
// have gone on with.
func (d *lzma) matched(p *[literalCoder]uint16, next byte) byte {
	rng, code, pos, in := d.rng, d.code, d.pos, d.in
	sym, offset, match := uint32(1), uint32(0x100), uint32(next)
	for range 8 {
		match <<= 1
		bit := match & offset
		if rng < top {
			rng <<= 8
			code = code<<8 | uint32(in[pos])
			pos++
		}
		q := &p[offset+bit+sym]
		v := uint32(*q)
		bound := (rng >> probBits) * v
		zero := uint32(int64(uint64(code)-uint64(bound)) >> 63)
		rng = bound&zero | (rng-bound)&^zero
		code -= bound &^ zero
		*q = uint16(int32(v) - (int32(v)+int32(zero)&(31-1<<probBits))>>moveBits)
		sym = sym<<1 + 1 + zero
		offset &= bit ^ zero // goes on as long as the bits are the same
	}
	d.rng, d.code, d.pos = rng, code, pos
	return byte(sym)
}

// length decodes the length of a match in bytes.
func (d *lzma) length(l *lengths, posState uint32) uint32 {
	if !d.bit(&l.choice[0]) {
		return minMatch + d.tree(l.low[posState][:], 3)
	}
	if !d.bit(&l.choice[1]) {
		return minMatch + 8 + d.tree(l.mid[posState][:], 3)
	}
	return minMatch + 16 + d.tree(l.high[:], 8)
}

// distance decodes how far back a match is, less one.
func (d *lzma) distance(length uint32) uint32 {
	slot := d.tree(d.slot[min(length-minMatch, 3)][:], 6)
	if slot < startModel {
		return slot
	}
	bits := int(slot>>1) - 1
	dist := (2 | slot&1) << bits
	if slot < endModel {
		return dist + d.reverse(d.special[dist-slot:], bits)
	}
	dist += d.direct(bits-alignBits) << alignBits
	return dist + d.reverse(d.align[:], alignBits)
}
