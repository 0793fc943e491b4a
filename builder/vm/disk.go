package vm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	sectorSize = 512 // bytes

	qcow2Magic     = "QFI\xfb"
	clusterBits    = 16
	clusterSize    = 1 << clusterBits
	backingFormat  = 0xE2792ACA // header extension: format of the backing file
	backingStamp   = 0x6B736372 // header extension of our own: which build of the backing file
	headerSize     = 104        // bytes, of a version 3 header without compression type
	maxBackingName = 1023       // bytes
	// bytesPerL1Entry: an L1 entry leads to a cluster of 8-byte L2 entries,
	// each of which leads to a cluster.
	bytesPerL1Entry = clusterSize / 8 * clusterSize
)

// diskImage is what QEMU must be told about an image. The format is always
// given: a guest could otherwise write a qcow2 header into its raw disk.
type diskImage struct {
	format  string // raw or qcow2
	size    int64  // virtual size in bytes
	backing string // qcow2: path of the backing file
	stamp   string // qcow2: that file's stamp when the overlay was made; empty if we did not make it
}

// stamp tells one build of the image at path from another: its size and the
// time of its last change.
func stamp(path string) (string, error) {
	st, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("opening disk image: %w", err)
	}
	return fmt.Sprintf("%d %d", st.Size(), st.ModTime().UnixNano()), nil
}

// inspect finds the format and virtual size of the image at path.
func inspect(path string) (diskImage, error) {
	f, err := os.Open(path)
	if err != nil {
		return diskImage{}, fmt.Errorf("opening disk image: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return diskImage{}, fmt.Errorf("reading disk image %s: %w", path, err)
	}
	im, err := parseImage(f, st.Size())
	if err != nil {
		return diskImage{}, fmt.Errorf("reading disk image %s: %w", path, err)
	}
	return im, nil
}

// parseImage reads the header of an image of size bytes.
func parseImage(r io.ReaderAt, size int64) (diskImage, error) {
	head := make([]byte, headerSize)
	n, err := r.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return diskImage{}, err
	}
	head = head[:n]
	switch {
	case bytes.HasPrefix(head, []byte(qcow2Magic)):
		return parseQcow2(r, head)
	case bytes.HasPrefix(head, []byte("KDMV")), bytes.HasPrefix(head, []byte("conectix")):
		return diskImage{}, errors.New("a VMware or Hyper-V image: only raw and qcow2 can be run")
	case size == 0 || size%sectorSize != 0:
		return diskImage{}, fmt.Errorf("size %d is not a positive multiple of %d bytes: neither raw nor qcow2", size, sectorSize)
	}
	return diskImage{format: "raw", size: size}, nil
}

func parseQcow2(r io.ReaderAt, head []byte) (diskImage, error) {
	if len(head) < headerSize {
		return diskImage{}, fmt.Errorf("qcow2 header of %d bytes: %w", len(head), io.ErrUnexpectedEOF)
	}
	be := binary.BigEndian
	im := diskImage{format: "qcow2", size: int64(be.Uint64(head[24:]))}
	if v := be.Uint32(head[4:]); v != 2 && v != 3 {
		return diskImage{}, fmt.Errorf("qcow2 version %d: want 2 or 3", v)
	}
	if im.size < 0 {
		return diskImage{}, fmt.Errorf("qcow2 size %#x is out of range", uint64(im.size))
	}
	off, n := be.Uint64(head[8:]), be.Uint32(head[16:])
	if off == 0 {
		return im, nil
	}
	if n > maxBackingName || off > clusterSize {
		return diskImage{}, fmt.Errorf("qcow2 backing file name of %d bytes at %d is out of range", n, off)
	}
	name := make([]byte, n)
	if _, err := r.ReadAt(name, int64(off)); err != nil {
		return diskImage{}, fmt.Errorf("qcow2 backing file name: %w", err)
	}
	im.backing = string(name)
	im.stamp = stampIn(r, int64(be.Uint32(head[100:])))
	return im, nil
}

// stampIn finds our header extension behind a header of n bytes. What cannot
// be read has no stamp: QEMU is the judge of the rest.
func stampIn(r io.ReaderAt, n int64) string {
	for n < clusterSize {
		var ext [8]byte
		if _, err := r.ReadAt(ext[:], n); err != nil {
			return ""
		}
		kind, size := binary.BigEndian.Uint32(ext[:]), int64(binary.BigEndian.Uint32(ext[4:]))
		if kind == 0 || size > clusterSize {
			return ""
		}
		if kind == backingStamp {
			b := make([]byte, size)
			if _, err := r.ReadAt(b, n+8); err != nil {
				return ""
			}
			return string(b)
		}
		n += 8 + (size+7)/8*8
	}
	return ""
}

// prepareDisk returns the file that QEMU opens as the boot disk.
func (m Machine) prepareDisk() (string, error) {
	overlay := m.Overlay
	if m.Snapshot {
		overlay = filepath.Join(m.Dir, "overlay.qcow2")
	}
	if m.Disk == "" || overlay == "" {
		return m.Disk, nil
	}
	base, err := filepath.Abs(m.Disk)
	if err != nil {
		return "", fmt.Errorf("finding disk image %s: %w", m.Disk, err)
	}
	old, err := inspect(overlay)
	if errors.Is(err, fs.ErrNotExist) {
		return overlay, CreateOverlay(overlay, base, m.DiskSize)
	}
	if err != nil {
		return "", err
	}
	if old.backing != base {
		return "", fmt.Errorf("overlay %s belongs to the image %q, not %q: remove it or name another", overlay, old.backing, base)
	}
	now, err := stamp(base)
	if err != nil {
		return "", err
	}
	if old.stamp != "" && old.stamp != now {
		return "", fmt.Errorf("overlay %s belongs to another build of %s, and what was written over that does not fit this one: "+
			"remove the overlay, or put the old image back with its time", overlay, base)
	}
	return overlay, nil
}

// CreateOverlay makes a qcow2 file at path whose content is that of the image
// base, which is not changed by writes to it. Size is the virtual size in
// bytes, at least that of base; 0 means that of base. The file must not exist.
func CreateOverlay(path, base string, size int64) error {
	base, err := filepath.Abs(base)
	if err != nil {
		return fmt.Errorf("making overlay %s: %w", path, err)
	}
	im, err := inspect(base)
	if err != nil {
		return fmt.Errorf("making overlay %s: %w", path, err)
	}
	if size == 0 {
		size = im.size
	}
	if size < im.size || size%sectorSize != 0 {
		return fmt.Errorf("making overlay %s: size %d: want a multiple of %d and at least the %d bytes of %s",
			path, size, sectorSize, im.size, base)
	}
	build, err := stamp(base)
	if err != nil {
		return fmt.Errorf("making overlay %s: %w", path, err)
	}
	head, length, err := overlayHeader(diskImage{im.format, size, base, build})
	if err != nil {
		return fmt.Errorf("making overlay %s: %w", path, err)
	}
	return writeSparse(path, head, length)
}

// overlayHeader returns the first bytes of an overlay and the length of the
// file, the rest of which is zero: header, refcount table, one refcount block,
// and an L1 table without an entry.
//
// The format is that of the backing file.
func overlayHeader(im diskImage) (head []byte, length int64, err error) {
	if len(im.backing) > maxBackingName {
		return nil, 0, fmt.Errorf("path %q is longer than %d bytes", im.backing, maxBackingName)
	}
	entries := (im.size + bytesPerL1Entry - 1) / bytesPerL1Entry
	l1Clusters := (entries*8 + clusterSize - 1) / clusterSize
	clusters := 3 + l1Clusters
	if clusters > clusterSize/2 {
		return nil, 0, fmt.Errorf("size %d is too large", im.size)
	}
	var ext []byte
	for _, e := range []struct {
		kind uint32
		data string
	}{{backingFormat, im.format}, {backingStamp, im.stamp}} {
		ext = binary.BigEndian.AppendUint32(ext, e.kind)
		ext = binary.BigEndian.AppendUint32(ext, uint32(len(e.data)))
		ext = append(ext, e.data...)
		for len(ext)%8 != 0 {
			ext = append(ext, 0)
		}
	}
	ext = append(ext, make([]byte, 8)...) // end of extensions

	head = make([]byte, 3*clusterSize)
	be := binary.BigEndian
	copy(head, qcow2Magic)
	be.PutUint32(head[4:], 3)
	be.PutUint64(head[8:], uint64(headerSize+len(ext)))
	be.PutUint32(head[16:], uint32(len(im.backing)))
	be.PutUint32(head[20:], clusterBits)
	be.PutUint64(head[24:], uint64(im.size))
	be.PutUint32(head[36:], uint32(entries))
	be.PutUint64(head[40:], 3*clusterSize) // L1 table
	be.PutUint64(head[48:], clusterSize)   // refcount table
	be.PutUint32(head[56:], 1)             // its clusters
	be.PutUint32(head[96:], 4)             // 1<<4 bits a refcount
	be.PutUint32(head[100:], headerSize)
	copy(head[headerSize:], ext)
	copy(head[headerSize+len(ext):], im.backing)
	be.PutUint64(head[clusterSize:], 2*clusterSize)
	for i := range clusters {
		be.PutUint16(head[2*clusterSize+2*i:], 1)
	}
	return head, clusters * clusterSize, nil
}

// writeSparse makes a file that begins with head and has the given length.
func writeSparse(path string, head []byte, length int64) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("making overlay: %w", err)
	}
	defer func() {
		if e := f.Close(); err == nil && e != nil {
			err = fmt.Errorf("making overlay: %w", e)
		}
		if err != nil {
			os.Remove(path)
		}
	}()
	if _, err := f.Write(head); err != nil {
		return fmt.Errorf("making overlay: %w", err)
	}
	if err := f.Truncate(length); err != nil {
		return fmt.Errorf("making overlay: %w", err)
	}
	return nil
}

// String returns format, size and backing file.
func (d diskImage) String() string { return fmt.Sprintf("%s %d %s", d.format, d.size, d.backing) }
