// Package fat writes a tree of files as a FAT32 file system, such as the EFI
// system partition, and reads FAT32 file systems back.
//
// The format is Microsoft's "FAT File System Specification" (2005) with long
// names. Every file lies in one run of clusters, directories come first, and
// all times and the volume ID are parameters: the same tree and options give
// the same bytes. Data is streamed; memory is the file allocation table (4
// bytes per cluster), the directories, and one buffer.
//
// It does not support FAT12, FAT16 and exFAT, sectors other than 512 bytes,
// changing a file system, symbolic links, devices, or file modes and owners,
// which FAT cannot store. Names must be valid in Windows, too.
//
// Why not the FAT32 of github.com/diskfs/go-diskfs v1.9.4, which the project
// uses for the partition table: with its "reproducible" flag two runs still
// differ (entries carry the time of the run), the volume ID cannot be chosen,
// every write call walks the whole cluster chain and writes both tables and
// the directory again, and its reader follows a cyclic chain for ever and
// takes failed reads for zeros.
package fat

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/kscratch/kscratch/layers"
)

const (
	sectorSize   = 512
	reserved     = 32 // sectors before the first table
	tables       = 2
	firstCluster = 2
	entrySize    = 32
	minClusters  = 65525      // below this a reader takes it for FAT16
	maxClusters  = 0x0ffffff5 // entries from here on have a meaning
	maxFile      = 1<<32 - 1
	endOfChain   = 0x0fffffff

	infoSector   = 1
	backupSector = 6
)

// MinSize is the size in bytes of the smallest file system: FAT32 is told from
// FAT16 by its number of clusters alone.
const MinSize = 34 << 20

// Options are what a file system has beside its files. The zero value works.
type Options struct {
	VolumeID uint32    // serial number of the volume
	Label    string    // at most 11 characters of A-Z, 0-9, space, - and _; "" means none
	Time     time.Time // of all entries, in UTC; before 1980 becomes 1980-01-01
	Hidden   uint32    // sectors before the file system on its disk, which some firmware reads
}

// geometry is where the parts of a file system lie.
type geometry struct {
	sectors     uint32 // of the file system
	perCluster  uint32 // sectors
	tableSize   uint32 // sectors of one table
	clusters    uint32
	dataSector  uint32 // of the first cluster
	clusterSize int64  // bytes
}

// layout divides a file system of a size in bytes as the specification's table
// of cluster sizes has it.
func layout(size int64) (geometry, error) {
	if size < MinSize || size > 1<<40 || size%sectorSize != 0 {
		return geometry{}, fmt.Errorf("size of %d bytes: want a multiple of %d from %d to %d", size, sectorSize, MinSize, int64(1)<<40)
	}
	per := uint32(64)
	for _, c := range []struct {
		limit int64
		per   uint32
	}{{260 << 20, 1}, {8 << 30, 8}, {16 << 30, 16}, {32 << 30, 32}} {
		if size <= c.limit {
			per = c.per
			break
		}
	}
	g := geometry{sectors: uint32(size / sectorSize), perCluster: per}
	// n clusters need n*per sectors and tables*4*(n+2) bytes of tables.
	data := int64(g.sectors - reserved)
	g.tableSize = uint32((4*(data/int64(per)+firstCluster) + sectorSize - 1) / sectorSize)
	g.dataSector = reserved + tables*g.tableSize
	g.clusters = (g.sectors - g.dataSector) / per
	g.clusterSize = int64(per) * sectorSize
	if g.clusters < minClusters || g.clusters > maxClusters {
		return geometry{}, fmt.Errorf("size of %d bytes: %d clusters are not possible with FAT32", size, g.clusters)
	}
	return g, nil
}

// offset returns the byte at which a cluster starts.
func (g geometry) offset(cluster uint32) int64 {
	return int64(g.dataSector)*sectorSize + int64(cluster-firstCluster)*g.clusterSize
}

// need returns the number of clusters for a number of bytes.
func (g geometry) need(bytes int64) uint32 {
	return uint32((bytes + g.clusterSize - 1) / g.clusterSize)
}

// Write writes t as a file system of size bytes to w, from offset 0. Free
// clusters are not written, so on a new sparse file they stay holes. Whether all
// fits is checked before anything is written. A file
// whose content is not as long as its Size is an error that names its path and
// owner.
func Write(ctx context.Context, t *layers.Tree, w io.WriterAt, size int64, o Options) error {
	if err := write(ctx, t, w, size, o); err != nil {
		return fmt.Errorf("writing FAT file system: %w", err)
	}
	return nil
}

func write(ctx context.Context, t *layers.Tree, w io.WriterAt, size int64, o Options) error {
	g, err := layout(size)
	if err != nil {
		return err
	}
	if err := checkLabel(o.Label); err != nil {
		return err
	}
	root, err := plan(t, o)
	if err != nil {
		return err
	}
	next, err := allocate(root, g)
	if err != nil {
		return err
	}
	if err := writeFiles(ctx, root, w, g); err != nil {
		return err
	}
	if err := writeTables(w, root, next, g); err != nil {
		return err
	}
	return writeBoot(w, g, o, next)
}

// allocate gives each node its run of clusters, directories first, and returns
// the first free cluster.
func allocate(root *node, g geometry) (uint32, error) {
	next := int64(firstCluster)
	for _, dirs := range []bool{true, false} {
		root.each(func(n *node) {
			if n.dir == dirs && n.size > 0 {
				n.cluster = uint32(min(next, maxClusters))
				next += int64(g.need(n.size))
			}
		})
	}
	if used := next - firstCluster; used > int64(g.clusters) {
		return 0, fmt.Errorf("files need %d bytes, there is room for %d", used*g.clusterSize, int64(g.clusters)*g.clusterSize)
	}
	return uint32(next), nil
}

const copyBuffer = 1 << 20

// writeFiles writes the content of all directories and files.
func writeFiles(ctx context.Context, root *node, w io.WriterAt, g geometry) error {
	buf := make([]byte, copyBuffer)
	var failed error
	root.each(func(n *node) {
		if failed == nil {
			failed = ctx.Err()
		}
		switch {
		case failed != nil || n.size == 0:
		case n.dir:
			b := make([]byte, int64(g.need(n.size))*g.clusterSize)
			n.encode(b)
			_, failed = w.WriteAt(b, g.offset(n.cluster))
		default:
			failed = writeFile(ctx, n, w, g, buf)
		}
	})
	return failed
}

func writeFile(ctx context.Context, n *node, w io.WriterAt, g geometry, buf []byte) error {
	r, err := n.file.Open()
	if err != nil {
		return fmt.Errorf("reading /%s of %s: %w", n.file.Path, n.file.Owner, err)
	}
	err = copyExact(ctx, io.NewOffsetWriter(w, g.offset(n.cluster)), r, n.size, buf)
	if err == nil {
		if pad := int64(g.need(n.size))*g.clusterSize - n.size; pad > 0 {
			_, err = w.WriteAt(make([]byte, pad), g.offset(n.cluster)+n.size)
		}
	}
	if err := errors.Join(err, r.Close()); err != nil {
		return fmt.Errorf("copying /%s of %s: %w", n.file.Path, n.file.Owner, err)
	}
	return nil
}

// copyExact copies content that must have size bytes.
func copyExact(ctx context.Context, w io.Writer, r io.Reader, size int64, buf []byte) error {
	for at := int64(0); at < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.ReadFull(r, buf[:min(int64(len(buf)), size-at)])
		at += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("content ends after %d of %d bytes", at, size)
		}
		if err != nil {
			return err
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
	}
	if n, err := io.ReadFull(r, buf[:1]); n > 0 {
		return fmt.Errorf("content goes on after %d bytes", size)
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}
