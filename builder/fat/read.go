package fat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"
	"unicode/utf16"

	"github.com/kscratch/kscratch/layers"
)

// FS is a FAT32 file system for reading.
type FS struct {
	r        io.ReaderAt
	g        geometry
	root     uint32
	tableAt  int64
	VolumeID uint32
	Label    string // of the boot sector
	Size     int64  // bytes
}

// Open opens the file system at the start of r.
func Open(r io.ReaderAt) (*FS, error) {
	b := make([]byte, sectorSize)
	if n, err := r.ReadAt(b, 0); n < len(b) {
		return nil, fmt.Errorf("reading FAT boot sector: %w", err)
	}
	f, err := parseBoot(b)
	if err != nil {
		return nil, fmt.Errorf("reading FAT boot sector: %w", err)
	}
	f.r = r
	return f, nil
}

func parseBoot(b []byte) (*FS, error) {
	le := binary.LittleEndian
	g := geometry{
		sectors: le.Uint32(b[32:]), perCluster: uint32(b[13]), tableSize: le.Uint32(b[36:]),
	}
	first, count := uint32(le.Uint16(b[14:])), uint32(b[16])
	data := uint64(first) + uint64(count)*uint64(g.tableSize)
	switch {
	case b[510] != 0x55 || b[511] != 0xaa:
		return nil, errors.New("no signature")
	case le.Uint16(b[11:]) != sectorSize:
		return nil, fmt.Errorf("sectors of %d bytes are not supported", le.Uint16(b[11:]))
	case g.perCluster == 0 || g.perCluster&(g.perCluster-1) != 0 || first == 0 || count == 0:
		return nil, errors.New("no FAT parameters")
	case le.Uint16(b[22:]) != 0 || g.tableSize == 0 || data >= uint64(g.sectors):
		return nil, errors.New("not FAT32")
	}
	g.dataSector = uint32(data)
	g.clusterSize = int64(g.perCluster) * sectorSize
	g.clusters = min((g.sectors-g.dataSector)/g.perCluster, uint32(uint64(g.tableSize)*sectorSize/4-firstCluster), maxClusters)
	return &FS{
		g: g, root: le.Uint32(b[44:]), tableAt: int64(first) * sectorSize, VolumeID: le.Uint32(b[67:]),
		Label: strings.TrimRight(string(b[71:82]), " "), Size: int64(g.sectors) * sectorSize,
	}, nil
}

// errLoop is a chain of clusters that does not end.
var errLoop = errors.New("chain of clusters has a loop")

// chain returns the clusters from first on that hold size bytes; with a size
// below 0 all of them, up to the largest directory.
func (f *FS) chain(first uint32, size int64) ([]uint32, error) {
	limit := int64(maxDir)/f.g.clusterSize + 1
	if size >= 0 {
		limit = int64(f.g.need(size))
	}
	if limit > int64(f.g.clusters) {
		return nil, fmt.Errorf("file of %d bytes is larger than the file system", size)
	}
	var out []uint32
	var entry [4]byte
	for c := first; int64(len(out)) < limit; {
		if c < firstCluster || c-firstCluster >= f.g.clusters {
			if size < 0 && c >= 0x0ffffff8 {
				return out, nil
			}
			return nil, fmt.Errorf("chain leads to cluster %#x", c)
		}
		out = append(out, c)
		if n, err := f.r.ReadAt(entry[:], f.tableAt+4*int64(c)); n < len(entry) {
			return nil, fmt.Errorf("reading file allocation table: %w", err)
		}
		c = binary.LittleEndian.Uint32(entry[:]) & 0x0fffffff
	}
	if size < 0 {
		return nil, errLoop
	}
	return out, nil
}

// Tree returns the files as a tree, each owned by owner, with modes 0755 and
// 0644. Contents are read when they are opened, so the medium must stay open.
func (f *FS) Tree(owner string) (*layers.Tree, error) {
	w := treeReader{f: f, owner: owner, seen: map[uint32]bool{}}
	if err := w.dir(".", f.root); err != nil {
		return nil, fmt.Errorf("reading FAT file system: %w", err)
	}
	t, err := layers.Merge(layers.Of(owner, "", w.files...))
	if err != nil {
		return nil, fmt.Errorf("reading FAT file system: %w", err)
	}
	return t, nil
}

// treeReader collects files. Each cluster is the start of one directory at
// most, so that a hostile file system cannot send it in circles.
type treeReader struct {
	f     *FS
	owner string
	seen  map[uint32]bool
	files []layers.File
}

func (w *treeReader) dir(p string, cluster uint32) error {
	if w.seen[cluster] {
		return fmt.Errorf("directory /%s: contains itself", p)
	}
	w.seen[cluster] = true
	chain, err := w.f.chain(cluster, -1)
	if err != nil {
		return fmt.Errorf("directory /%s: %w", p, err)
	}
	var d decoder
	b := make([]byte, w.f.g.clusterSize)
	for _, c := range chain {
		if n, err := w.f.r.ReadAt(b, w.f.g.offset(c)); n < len(b) {
			return fmt.Errorf("directory /%s: %w", p, err)
		}
		if d.decode(b) {
			break
		}
	}
	for _, e := range d.entries {
		if err := w.add(path.Join(p, e.name), e); err != nil {
			return err
		}
	}
	return nil
}

func (w *treeReader) add(p string, e entry) error {
	if !fs.ValidPath(p) || strings.ContainsAny(e.name, "/\x00") {
		return fmt.Errorf("file /%s: bad name", p)
	}
	if e.dir {
		w.files = append(w.files, layers.File{Path: p, Mode: fs.ModeDir | 0o755, ModTime: e.time, Owner: w.owner})
		return w.dir(p, e.cluster)
	}
	w.files = append(w.files, layers.File{
		Path: p, Mode: 0o644, Size: e.size, ModTime: e.time, Owner: w.owner,
		Open: func() (io.ReadCloser, error) { return w.f.open(p, e) },
	})
	return nil
}

// open returns the content of a file. Neighbouring clusters are read as one.
func (f *FS) open(p string, e entry) (io.ReadCloser, error) {
	chain, err := f.chain(e.cluster, e.size)
	if err != nil {
		return nil, fmt.Errorf("reading /%s: %w", p, err)
	}
	var runs []io.Reader
	for i := 0; i < len(chain); {
		n := 1
		for i+n < len(chain) && chain[i+n] == chain[i]+uint32(n) {
			n++
		}
		runs = append(runs, io.NewSectionReader(f.r, f.g.offset(chain[i]), int64(n)*f.g.clusterSize))
		i += n
	}
	return io.NopCloser(io.LimitReader(io.MultiReader(runs...), e.size)), nil
}

// entry is a decoded directory entry.
type entry struct {
	name    string
	dir     bool
	cluster uint32
	size    int64
	time    time.Time
}

// decoder decodes directory entries, which may be split over clusters.
type decoder struct {
	long    []uint16
	sum     byte
	next    byte // number of the part that must come now; 0 after the last
	entries []entry
}

// decode takes the entries of a cluster and reports whether the directory ends.
func (d *decoder) decode(b []byte) bool {
	for ; len(b) >= entrySize; b = b[entrySize:] {
		switch {
		case b[0] == 0:
			return true
		case b[0] == 0xe5: // deleted
			d.long = nil
		case b[11]&0x3f == attrLong:
			d.part(b)
		case b[11]&attrVolume != 0 || b[0] == '.':
			d.long = nil
		default:
			d.entries = append(d.entries, d.entry(b))
			d.long = nil
		}
	}
	return false
}

// part takes a part of a long name. Parts out of order are forgotten.
func (d *decoder) part(b []byte) {
	n := b[0] & 0x3f
	if b[0]&0x40 != 0 {
		d.long, d.sum, d.next = nil, b[13], n
	}
	if n == 0 || n != d.next || b[13] != d.sum {
		d.long, d.next = nil, 0
		return
	}
	part := make([]uint16, perLong)
	for k := range part {
		part[k] = binary.LittleEndian.Uint16(b[longAt(k):])
	}
	d.long, d.next = append(part, d.long...), n-1
}

func (d *decoder) entry(b []byte) entry {
	le := binary.LittleEndian
	short := [11]byte(b[:11])
	name := shortString(short)
	if len(d.long) > 0 && d.next == 0 && d.sum == shortSum(short) {
		name = longString(d.long)
	}
	date, clock := int(le.Uint16(b[24:])), int(le.Uint16(b[22:]))
	return entry{
		name: name, dir: b[11]&attrDir != 0,
		cluster: uint32(le.Uint16(b[20:]))<<16 | uint32(le.Uint16(b[26:])),
		size:    int64(le.Uint32(b[28:])),
		time:    time.Date(1980+date>>9, time.Month(date>>5&15), date&31, clock>>11, clock>>5&63, clock&31*2, 0, time.UTC),
	}
}

func longString(u []uint16) string {
	for i, c := range u {
		if c == 0 {
			u = u[:i]
			break
		}
	}
	return string(utf16.Decode(u))
}
