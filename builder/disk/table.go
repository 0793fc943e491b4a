package disk

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/diskfs/go-diskfs/partition/gpt"

	"github.com/kscratch/kscratch/builder/fat"
)

// check reports what a plan needs before its table can be written.
func (p Plan) check() error {
	if p.GUID == ([16]byte{}) {
		return errors.New("disk has no GUID")
	}
	seen := map[[16]byte]int{}
	for i, part := range p.Parts {
		if part.GUID == ([16]byte{}) {
			return fmt.Errorf("partition %d %q has no GUID", i+1, part.Label)
		}
		if other, ok := seen[part.GUID]; ok {
			return fmt.Errorf("partitions %d and %d have the same GUID %s", other, i+1, formatGUID(part.GUID))
		}
		seen[part.GUID] = i + 1
	}
	return nil
}

// WriteTable writes the protective MBR, the table and its backup to f, which
// has the size of the plan.
func WriteTable(f File, p Plan) error {
	if err := p.check(); err != nil {
		return fmt.Errorf("writing partition table: %w", err)
	}
	t := &gpt.Table{
		LogicalSectorSize: sectorSize, PhysicalSectorSize: sectorSize,
		GUID: formatGUID(p.GUID), ProtectiveMBR: true,
	}
	for i, part := range p.Parts {
		t.Partitions = append(t.Partitions, &gpt.Partition{
			Index: i + 1,
			Start: uint64(part.Offset / sectorSize),
			End:   uint64((part.Offset+part.Size)/sectorSize) - 1,
			Type:  gpt.Type(strings.ToUpper(string(part.Type))),
			Name:  part.Label, GUID: formatGUID(part.GUID), Attributes: part.Attrs,
		})
	}
	if err := t.Write(backendFile{io.NewSectionReader(f, 0, p.Size), f}, p.Size); err != nil {
		return fmt.Errorf("writing partition table: %w", err)
	}
	// go-diskfs leaves the cylinders of the protective MBR zero; UEFI 2.10,
	// table 5-4, wants these.
	for off, b := range map[int64][]byte{447: {0x00, 0x02, 0x00}, 451: {0xff, 0xff, 0xff}} {
		if _, err := f.WriteAt(b, off); err != nil {
			return fmt.Errorf("writing protective MBR: %w", err)
		}
	}
	return nil
}

// backendFile makes what go-diskfs wants of a file out of what it needs. It has
// no Sync on purpose: go-diskfs would sync the whole image five times.
type backendFile struct {
	*io.SectionReader
	io.WriterAt
}

func (backendFile) Close() error               { return nil }
func (backendFile) Stat() (fs.FileInfo, error) { return nil, fs.ErrInvalid }

// Disk is a disk image for reading.
type Disk struct {
	GUID   [16]byte
	Size   int64 // bytes
	Parts  []Placed
	Backup bool // the first table is damaged, this is the backup

	r io.ReaderAt
}

// Open reads the partition table of a disk of size bytes. If the first table is
// damaged, it takes the backup.
func Open(r io.ReaderAt, size int64) (*Disk, error) {
	if size < 68*sectorSize {
		return nil, fmt.Errorf("reading partition table: disk of %d bytes is too small for one", size)
	}
	for _, at := range []int64{sectorSize, (size/sectorSize - 1) * sectorSize} {
		if err := checkHeader(r, at, size); err != nil {
			return nil, fmt.Errorf("reading partition table: %w", err)
		}
	}
	t, err := gpt.Read(backendFile{io.NewSectionReader(r, 0, size), nil}, sectorSize, sectorSize)
	if err != nil {
		return nil, fmt.Errorf("reading partition table: %w", err)
	}
	d := &Disk{Size: size, Backup: t.RecoveredFromBackup, r: r}
	if d.GUID, err = parseGUID(t.GUID); err != nil {
		return nil, fmt.Errorf("reading partition table: %w", err)
	}
	for _, p := range t.Partitions {
		part, err := placed(p, size)
		if err != nil {
			return nil, fmt.Errorf("reading partition %d: %w", p.Index, err)
		}
		d.Parts = append(d.Parts, part)
	}
	return d, nil
}

// checkHeader refuses headers with which go-diskfs would allocate without bound
// or divide by zero. What is no header at all is left to its checksum.
func checkHeader(r io.ReaderAt, at, size int64) error {
	b := make([]byte, sectorSize)
	if n, err := r.ReadAt(b, at); n < len(b) {
		return fmt.Errorf("reading header at byte %d: %w", at, err)
	}
	if string(b[:8]) != "EFI PART" {
		return nil
	}
	le := binary.LittleEndian
	first, count, each := le.Uint64(b[72:]), le.Uint32(b[80:]), le.Uint32(b[84:])
	if count > 1024 || each != 128 || first > uint64(size/sectorSize) {
		return fmt.Errorf("header at byte %d: %d entries of %d bytes at sector %d are not supported", at, count, each, first)
	}
	return nil
}

func placed(p *gpt.Partition, size int64) (Placed, error) {
	end := uint64(size / sectorSize)
	if p.Start > p.End || p.End >= end {
		return Placed{}, fmt.Errorf("sectors %d to %d are not on a disk of %d", p.Start, p.End, end)
	}
	guid, err := parseGUID(p.GUID)
	if err != nil {
		return Placed{}, err
	}
	return Placed{
		Offset: int64(p.Start) * sectorSize,
		Part: Part{
			Label: p.Name, Type: Type(strings.ToLower(string(p.Type))), GUID: guid, Attrs: p.Attributes,
			Size: int64(p.End-p.Start+1) * sectorSize,
		},
	}, nil
}

// Find returns the index of the first partition of a type, or -1.
func (d *Disk) Find(t Type) int {
	for i, p := range d.Parts {
		if p.Type == t {
			return i
		}
	}
	return -1
}

// Reader returns the content of the i-th partition, counted from 0.
func (d *Disk) Reader(i int) *io.SectionReader {
	return io.NewSectionReader(d.r, d.Parts[i].Offset, d.Parts[i].Size)
}

// ESP opens the EFI system partition.
func (d *Disk) ESP() (*fat.FS, error) {
	i := d.Find(ESP)
	if i < 0 {
		return nil, fmt.Errorf("opening EFI system partition: %w", fs.ErrNotExist)
	}
	return fat.Open(d.Reader(i))
}

func formatGUID(g [16]byte) string {
	h := hex.EncodeToString(g[:])
	return strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
}

func parseGUID(s string) (g [16]byte, err error) {
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != 16 || !strings.EqualFold(formatGUID([16]byte(b)), s) {
		return g, errors.New("not a GUID in its usual form")
	}
	return [16]byte(b), nil
}
