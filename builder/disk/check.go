package disk

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
)

// header is a partition table header, UEFI 2.10, table 5-5.
type header struct {
	at      int64 // where it was read, in bytes
	own     uint64
	other   uint64
	first   uint64 // usable sector
	last    uint64
	guid    [16]byte
	entries []byte
}

// Check holds the whole of a partition table to UEFI 2.10, chapter 5: the
// protective MBR, both headers and both arrays with their checksums, that the
// two agree, and that partitions lie within the usable sectors and apart from
// each other. [Open] is content with less. All that is wrong comes at once.
//
// The backup may lie before the end of a disk that has grown.
func Check(r io.ReaderAt, size int64) error {
	errs := []error{checkMBR(r)}
	a, err := readHeader(r, sectorSize, size)
	if err != nil {
		// Only the first table says where the backup is, unless it is at the end.
		_, other := readHeader(r, (size/sectorSize-1)*sectorSize, size)
		return errors.Join(append(errs, err, other)...)
	}
	if a.other < 2 || a.other >= uint64(size/sectorSize) {
		return errors.Join(append(errs, fmt.Errorf("partition table: backup at sector %d is not on a disk of %d", a.other, size/sectorSize))...)
	}
	b, err := readHeader(r, int64(a.other)*sectorSize, size)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	if b.other != 1 || a.first != b.first || a.last != b.last || a.guid != b.guid || !bytes.Equal(a.entries, b.entries) {
		errs = append(errs, fmt.Errorf("partition table: the table and its backup at byte %d differ", b.at))
	}
	return errors.Join(append(errs, a.check())...)
}

// checkMBR wants one partition over all of the disk, of the type that says so.
func checkMBR(r io.ReaderAt) error {
	b := make([]byte, sectorSize)
	if n, err := r.ReadAt(b, 0); n < len(b) {
		return fmt.Errorf("protective MBR: %w", err)
	}
	le := binary.LittleEndian
	if b[510] != 0x55 || b[511] != 0xaa || b[450] != 0xee || le.Uint32(b[454:]) != 1 || !bytes.Equal(b[462:510], make([]byte, 48)) {
		return errors.New("protective MBR: want a signature and one partition of type 0xee from sector 1 on")
	}
	return nil
}

func readHeader(r io.ReaderAt, at, size int64) (header, error) {
	bad := func(format string, args ...any) (header, error) {
		return header{}, fmt.Errorf("partition table at byte %d: %w", at, fmt.Errorf(format, args...))
	}
	b := make([]byte, sectorSize)
	if n, err := r.ReadAt(b, at); n < len(b) {
		return bad("%w", err)
	}
	le := binary.LittleEndian
	if string(b[:8]) != "EFI PART" || le.Uint32(b[12:]) != 92 {
		return bad("no header")
	}
	clean := bytes.Clone(b[:92])
	clear(clean[16:20])
	if got, want := crc32.ChecksumIEEE(clean), le.Uint32(b[16:]); got != want {
		return bad("its header has checksum %08x, want %08x", got, want)
	}
	if err := checkHeader(r, at, size); err != nil {
		return header{}, err
	}
	h := header{
		at: at, own: le.Uint64(b[24:]), other: le.Uint64(b[32:]), first: le.Uint64(b[40:]), last: le.Uint64(b[48:]),
		guid: [16]byte(b[56:72]), entries: make([]byte, le.Uint32(b[80:])*128),
	}
	if h.own != uint64(at/sectorSize) {
		return bad("its header is for sector %d", h.own)
	}
	if n, err := r.ReadAt(h.entries, int64(le.Uint64(b[72:]))*sectorSize); n < len(h.entries) {
		return bad("its entries: %w", err)
	}
	if got, want := crc32.ChecksumIEEE(h.entries), le.Uint32(b[88:]); got != want {
		return bad("its entries have checksum %08x, want %08x", got, want)
	}
	return h, nil
}

// check wants partitions in the usable sectors, apart, with an identity each.
func (h header) check() error {
	type extent struct {
		number      int
		first, last uint64
	}
	var all []extent
	seen := map[string]int{}
	for i := 0; i*128 < len(h.entries); i++ {
		e := h.entries[i*128:][:128]
		if bytes.Equal(e[:16], make([]byte, 16)) {
			continue
		}
		x := extent{i + 1, binary.LittleEndian.Uint64(e[32:]), binary.LittleEndian.Uint64(e[40:])}
		if x.first > x.last || x.first < h.first || x.last > h.last {
			return fmt.Errorf("partition %d: sectors %d to %d, usable are %d to %d", x.number, x.first, x.last, h.first, h.last)
		}
		if other := seen[string(e[16:32])]; other > 0 {
			return fmt.Errorf("partitions %d and %d have the same GUID", other, x.number)
		}
		seen[string(e[16:32])] = x.number
		all = append(all, x)
	}
	slices.SortFunc(all, func(a, b extent) int { return cmp.Compare(a.first, b.first) })
	for i := 1; i < len(all); i++ {
		if all[i].first <= all[i-1].last {
			return fmt.Errorf("partitions %d and %d overlap", all[i-1].number, all[i].number)
		}
	}
	return nil
}
