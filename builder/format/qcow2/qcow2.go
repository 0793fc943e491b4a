// Package qcow2 writes and reads QEMU's disk images, version 3. The source is
// docs/interop/qcow2.txt in QEMU 7.2.
//
// What is written has clusters of 64 KiB, none for what is zero, and no
// snapshots. Compressed, each cluster is a Zstandard frame (compression type 1,
// QEMU 5.1 and later). What is read may have clusters of any size and both
// kinds of compression; images with a backing file, an external data file,
// encryption or extended L2 entries are refused, and snapshots are passed over.
package qcow2

import (
	"context"
	"encoding/binary"

	"github.com/klauspost/compress/zstd"

	"github.com/kscratch/kscratch/builder/format/blocks"
)

const (
	// Magic begins an image.
	Magic = "QFI\xfb"

	clusterBits = 16
	clusterSize = 1 << clusterBits // bytes
	tableLen    = clusterSize / 8  // entries of an L2 table
	headerSize  = 112              // bytes
	sector      = 512              // bytes; compressed clusters are counted in these

	copied     = 1 << 63 // the cluster has one reference
	compressed = 1 << 62
	// A compressed cluster's L2 entry has the count of its sectors, less one,
	// from this bit on.
	sectorsShift = 62 - (clusterBits - 8)

	hasType = 1 << 3 // incompatible feature: there is a compression type
	zstdID  = 1      // compression type
)

// Options say how an image is written. The zero value means uncompressed.
type Options struct {
	Compress bool // clusters with Zstandard
}

// Write writes src to f.
func Write(ctx context.Context, f blocks.Output, src blocks.Source, o Options) error {
	size := blocks.RoundUp(src.Size(), blocks.Sector)
	if err := blocks.Check(size); err != nil {
		return err
	}
	w, err := newWriter(f, size, o)
	if err != nil {
		return err
	}
	var work func() (blocks.Work, error)
	if o.Compress {
		work = compress
	}
	if err := blocks.Each(ctx, src, clusterSize, work, w.put); err != nil {
		return err
	}
	return w.finish()
}

func header(size int64, entries int64, o Options) []byte {
	b := make([]byte, headerSize+8) // with the end of the header extensions
	be := binary.BigEndian
	copy(b, Magic)
	be.PutUint32(b[4:], 3)
	be.PutUint32(b[20:], clusterBits)
	be.PutUint64(b[24:], uint64(size))
	be.PutUint32(b[36:], uint32(entries))
	be.PutUint64(b[40:], firstTables*clusterSize) // L1 table
	be.PutUint64(b[48:], clusterSize)             // refcount table
	be.PutUint32(b[56:], 1)                       // its clusters
	be.PutUint32(b[96:], 4)                       // 1<<4 bits a refcount
	be.PutUint32(b[100:], headerSize)
	if o.Compress {
		be.PutUint64(b[72:], hasType)
		b[104] = zstdID
	}
	return b
}

func compress() (blocks.Work, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(clusterSize))
	if err != nil {
		return nil, err
	}
	return func(c *blocks.Chunk) error {
		if len(c.Data) < clusterSize { // the last: a frame always has a whole cluster
			c.Data = append(c.Data, make([]byte, clusterSize-len(c.Data))...)
		}
		c.Out = enc.EncodeAll(c.Data, c.Out[:0])
		return nil
	}, nil
}

// writer lays clusters out one after the other, so that of all tables only the
// L1 table and one of each other kind are in memory.
type writer struct {
	f    blocks.Output
	head []byte
	next int64 // the next free cluster
	free int64 // byte behind the last compressed cluster; up to the end of a cluster it is free

	l1   []byte
	part int64             // the L1 entry that l2 belongs to; -1 is none
	l2   [clusterSize]byte // the current L2 table
	l2At int64             // its cluster

	refs    [clusterSize]byte // refcounts of the current block of clusters, refsLen of them
	block   int64             // which one it is
	written []byte            // refcount table: places of the blocks that are written
}

// firstTables is how many clusters are in front of the L1 table: header,
// refcount table.
const firstTables = 2

func newWriter(f blocks.Output, size int64, o Options) (*writer, error) {
	entries := (size + tableLen*clusterSize - 1) / (tableLen * clusterSize)
	w := &writer{f: f, head: header(size, entries, o), l1: make([]byte, entries*8), part: -1}
	return w, w.allocate(firstTables + (entries*8+clusterSize-1)/clusterSize)
}

// finish writes what is known last. The last block of refcounts counts itself.
func (w *writer) finish() error {
	if err := w.endPart(); err != nil {
		return err
	}
	w.count(w.next)
	if err := w.endBlock(); err != nil {
		return err
	}
	w.next++
	if err := w.f.Truncate(w.next * clusterSize); err != nil {
		return err
	}
	for i, b := range [][]byte{w.head, w.written, w.l1} {
		if _, err := w.f.WriteAt(b, int64(i)*clusterSize); err != nil {
			return err
		}
	}
	return nil
}

// refsLen is how many clusters a block of refcounts covers.
const refsLen = clusterSize / 2

// put writes one cluster of content.
func (w *writer) put(c *blocks.Chunk) error {
	if part := c.Off / (tableLen * clusterSize); part != w.part {
		if err := w.endPart(); err != nil {
			return err
		}
		w.part, w.l2At = part, w.next
		if err := w.allocate(1); err != nil {
			return err
		}
	}
	entry, at := uint64(0), int64(0)
	data := c.Data
	if len(c.Out) > 0 && len(c.Out) < clusterSize {
		data = c.Out
		var err error
		if at, err = w.pack(int64(len(data))); err != nil {
			return err
		}
		more := (at+int64(len(data))-1)/sector - at/sector
		entry = compressed | uint64(more)<<sectorsShift | uint64(at)
	} else {
		at = w.next * clusterSize
		if err := w.allocate(1); err != nil {
			return err
		}
		entry = copied | uint64(at)
	}
	binary.BigEndian.PutUint64(w.l2[c.Off/clusterSize%tableLen*8:], entry)
	_, err := w.f.WriteAt(data, at)
	return err
}

// pack finds a place for n bytes of a compressed cluster. It begins where the
// last one ended if the cluster there has room, or can be followed by another.
func (w *writer) pack(n int64) (at int64, err error) {
	end := blocks.RoundUp(w.free, clusterSize)
	counts := end > w.block*refsLen*clusterSize // its refcount can still change
	if !counts || n > end-w.free && end != w.next*clusterSize {
		w.free = w.next * clusterSize
		end = w.free
	}
	at = w.free
	w.free += n
	if at < end {
		w.count(end/clusterSize - 1)
	}
	if w.free > end {
		return at, w.allocate(1)
	}
	return at, nil
}

// allocate takes n clusters from the end of the file. The last one of a block
// of refcounts is followed by that block.
func (w *writer) allocate(n int64) error {
	for range n {
		w.count(w.next)
		w.next++
		if w.next%refsLen == 0 {
			if err := w.endBlock(); err != nil {
				return err
			}
			w.block++
			clear(w.refs[:])
			w.count(w.next)
			w.next++
		}
	}
	return nil
}

// endBlock writes the current block of refcounts to the next free cluster.
func (w *writer) endBlock() error {
	at := w.next * clusterSize
	w.written = binary.BigEndian.AppendUint64(w.written, uint64(at))
	_, err := w.f.WriteAt(w.refs[:], at)
	return err
}

// count adds a reference to a cluster.
func (w *writer) count(cluster int64) {
	b := w.refs[cluster%refsLen*2:]
	binary.BigEndian.PutUint16(b, binary.BigEndian.Uint16(b)+1)
}

// endPart writes the L2 table of the current part.
func (w *writer) endPart() error {
	if w.part < 0 {
		return nil
	}
	binary.BigEndian.PutUint64(w.l1[w.part*8:], copied|uint64(w.l2At*clusterSize))
	_, err := w.f.WriteAt(w.l2[:], w.l2At*clusterSize)
	clear(w.l2[:])
	w.part = -1
	return err
}
