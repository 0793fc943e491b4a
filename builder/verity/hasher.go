package verity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
)

// pieceSize is what a worker hashes at once.
const pieceSize = 1 << 20

// piece is a part of the data and where its digests go.
type piece struct {
	data  []byte // whole blocks
	first int64  // index of the first block
}

// pool hashes pieces on several cores.
type pool struct {
	salt []byte
	jobs chan piece
	free chan []byte // buffers of pieceSize
	wg   sync.WaitGroup

	mu     sync.Mutex
	leaves []byte
}

func newPool(salt []byte) *pool {
	workers := runtime.GOMAXPROCS(0)
	p := &pool{
		salt: bytes.Clone(salt),
		jobs: make(chan piece, workers),
		free: make(chan []byte, 2*workers+1),
	}
	for range cap(p.free) {
		p.free <- make([]byte, 0, pieceSize)
	}
	for range workers {
		p.wg.Go(p.work)
	}
	return p
}

func (p *pool) work() {
	digests := make([]byte, 0, pieceSize/BlockSize*digestSize)
	for j := range p.jobs {
		digests = hashBlocks(digests[:0], j.data, p.salt)
		p.put(j.first, digests)
		p.free <- j.data[:0]
	}
}

func (p *pool) put(first int64, digests []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := int(first) * digestSize
	if need := at + len(digests); need > len(p.leaves) {
		p.leaves = append(p.leaves, make([]byte, need-len(p.leaves))...)
	}
	copy(p.leaves[at:], digests)
}

// drain waits until all pieces handed in are hashed. The caller gives the one
// buffer that it holds and gets one back.
func (p *pool) drain(b []byte) []byte {
	p.free <- b
	held := make([][]byte, 0, cap(p.free))
	for range cap(p.free) {
		held = append(held, <-p.free)
	}
	for _, b := range held[1:] {
		p.free <- b
	}
	return held[0]
}

func (p *pool) close() {
	close(p.jobs)
	p.wg.Wait()
}

// Hasher computes the digests of data blocks while the data streams by, so that
// an image need not be read again. It is an [io.WriteSeeker]: data comes in
// order, and what was written before may be overwritten by whole blocks, as a
// file system writer does with its superblock. It is not safe for use by
// several goroutines at once. [Hasher.Tree] or [Hasher.Close] ends it.
type Hasher struct {
	o      Options
	p      *pool
	buf    []byte
	pos    int64 // of the end of buf
	size   int64
	closed bool
}

// NewHasher returns a hasher for a tree with the parameters in o.
func NewHasher(o Options) *Hasher {
	p := newPool(o.Salt)
	return &Hasher{o: o, p: p, buf: <-p.free}
}

// Write takes the next bytes of data. Its error is only ever that the hasher
// was closed.
func (h *Hasher) Write(b []byte) (int, error) {
	if h.closed {
		return 0, errors.New("hashing blocks: hasher is closed")
	}
	n := len(b)
	for len(b) > 0 {
		k := copy(h.buf[len(h.buf):cap(h.buf)], b)
		h.buf, b = h.buf[:len(h.buf)+k], b[k:]
		h.pos += int64(k)
		if len(h.buf) == cap(h.buf) {
			h.submit()
		}
	}
	h.size = max(h.size, h.pos)
	return n, nil
}

func (h *Hasher) submit() {
	if len(h.buf) == 0 {
		return
	}
	h.p.jobs <- piece{h.buf, (h.pos - int64(len(h.buf))) / BlockSize}
	h.buf = <-h.p.free
}

// Seek moves to the start of another block, which is at most at the end of the
// data so far.
func (h *Hasher) Seek(offset int64, whence int) (int64, error) {
	if h.closed {
		return 0, errors.New("seeking in hashed data: hasher is closed")
	}
	switch whence {
	case io.SeekCurrent:
		offset += h.pos
	case io.SeekEnd:
		offset += h.size
	}
	if offset == h.pos {
		return offset, nil
	}
	if offset < 0 || offset > h.size || offset%BlockSize != 0 || len(h.buf)%BlockSize != 0 {
		return 0, fmt.Errorf("seeking in hashed data from byte %d to %d: only from block to block before byte %d", h.pos, offset, h.size)
	}
	h.submit()
	h.buf = h.p.drain(h.buf[:0]) // an older hash of a block must not win
	h.pos = offset
	return offset, nil
}

// Size returns the number of bytes of data so far.
func (h *Hasher) Size() int64 { return h.size }

// Tree ends the hasher and writes superblock and tree over all data to w from
// offset 0. It returns the root hash and the number of bytes written.
func (h *Hasher) Tree(w io.WriterAt) (Hash, int64, error) {
	if h.closed {
		return Hash{}, 0, errors.New("writing verity tree: hasher is closed")
	}
	if err := h.o.check(h.size); err != nil {
		return Hash{}, 0, errors.Join(fmt.Errorf("writing verity tree: %w", err), h.Close())
	}
	h.submit()
	h.Close()
	return writeTree(w, h.p.leaves, h.o)
}

// Close stops the workers. It may be called more than once.
func (h *Hasher) Close() error {
	if !h.closed {
		h.closed = true
		h.p.close()
	}
	return nil
}

// Unordered computes the digests of data blocks that come in any order, and
// from several goroutines at once. Blocks that never come are zero.
type Unordered struct {
	o      Options
	size   int64
	leaves []byte
}

// NewUnordered returns a hasher for so many bytes of data, a multiple of
// [BlockSize], and for a tree with the parameters in o.
func NewUnordered(o Options, size int64) *Unordered {
	zero := hashBlocks(nil, make([]byte, BlockSize), o.Salt)
	return &Unordered{o, size, bytes.Repeat(zero, int(size/BlockSize))}
}

// Add takes whole blocks that begin at off, within the data.
func (u *Unordered) Add(b []byte, off int64) error {
	if off%BlockSize != 0 || len(b)%BlockSize != 0 || off < 0 || off+int64(len(b)) > u.size {
		return fmt.Errorf("hashing blocks: %d bytes at byte %d: want whole blocks within %d bytes", len(b), off, u.size)
	}
	at := off / BlockSize * digestSize
	hashBlocks(u.leaves[at:at], b, u.o.Salt)
	return nil
}

// Tree writes superblock and tree over all data to w from offset 0, once all of
// it was added. It returns the root hash and the number of bytes written.
func (u *Unordered) Tree(w io.WriterAt) (Hash, int64, error) {
	if err := u.o.check(u.size); err != nil {
		return Hash{}, 0, fmt.Errorf("writing verity tree: %w", err)
	}
	return writeTree(w, u.leaves, u.o)
}

// readLeaves returns the digests of all blocks of data.
func readLeaves(ctx context.Context, data io.ReaderAt, size int64, salt []byte) ([]byte, error) {
	leaves := make([]byte, size/BlockSize*digestSize)
	err := eachPiece(ctx, data, size, func(p piece) error {
		at := p.first * digestSize
		hashBlocks(leaves[at:at], p.data, salt)
		return nil
	})
	return leaves, err
}

// eachPiece reads data in pieces on all cores and calls f with each, which may
// use its data only until it returns.
func eachPiece(ctx context.Context, data io.ReaderAt, size int64, f func(piece) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	starts := make(chan int64)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			buf := make([]byte, pieceSize)
			for at := range starts {
				b := buf[:min(pieceSize, size-at)]
				if n, err := data.ReadAt(b, at); n < len(b) {
					cancel(fmt.Errorf("reading data at byte %d: %w", at+int64(n), noEOF(err)))
				} else if err := f(piece{b, at / BlockSize}); err != nil {
					cancel(err)
				}
			}
		})
	}
	for at := int64(0); at < size && ctx.Err() == nil; at += pieceSize {
		starts <- at
	}
	close(starts)
	wg.Wait()
	return context.Cause(ctx)
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
