package fat

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// writeTables writes the file allocation tables: runs of consecutive clusters.
func writeTables(w io.WriterAt, root *node, next uint32, g geometry) error {
	b := make([]byte, int64(g.tableSize)*sectorSize)
	le := binary.LittleEndian
	le.PutUint32(b[0:], 0x0ffffff8) // media byte
	le.PutUint32(b[4:], endOfChain) // clean, no errors
	root.each(func(n *node) {
		last := n.cluster + g.need(n.size)
		for c := n.cluster; c < last; c++ {
			to := c + 1
			if to == last {
				to = endOfChain
			}
			le.PutUint32(b[4*c:], to)
		}
	})
	for i := range int64(tables) {
		if _, err := w.WriteAt(b, (reserved+i*int64(g.tableSize))*sectorSize); err != nil {
			return err
		}
	}
	return nil
}

// writeBoot writes the reserved sectors: boot sector and information sector,
// and their copies.
func writeBoot(w io.WriterAt, g geometry, o Options, next uint32) error {
	b := make([]byte, reserved*sectorSize)
	boot := bootSector(g, o)
	info := infoBytes(g.clusters-(next-firstCluster), next)
	for _, at := range []int{0, backupSector} {
		copy(b[at*sectorSize:], boot)
		copy(b[(at+infoSector)*sectorSize:], info)
		copy(b[(at+2)*sectorSize+510:], []byte{0x55, 0xaa})
	}
	_, err := w.WriteAt(b, 0)
	return err
}

// bootSector is sector 0: the BIOS parameter block of chapter 3 of the
// specification, and no code.
func bootSector(g geometry, o Options) []byte {
	b := make([]byte, sectorSize)
	le := binary.LittleEndian
	copy(b, []byte{0xeb, 0x58, 0x90})
	copy(b[3:], "KSCRATCH")
	le.PutUint16(b[11:], sectorSize)
	b[13] = byte(g.perCluster)
	le.PutUint16(b[14:], reserved)
	b[16] = tables
	b[21] = 0xf8              // fixed disk
	le.PutUint16(b[24:], 63)  // sectors per track
	le.PutUint16(b[26:], 255) // heads
	le.PutUint32(b[28:], o.Hidden)
	le.PutUint32(b[32:], g.sectors)
	le.PutUint32(b[36:], g.tableSize)
	le.PutUint32(b[44:], firstCluster) // root directory
	le.PutUint16(b[48:], infoSector)
	le.PutUint16(b[50:], backupSector)
	b[64] = 0x80 // drive number
	b[66] = 0x29 // the next three fields are there
	le.PutUint32(b[67:], o.VolumeID)
	copy(b[71:], labelBytes(o.Label, "NO NAME"))
	copy(b[82:], "FAT32   ")
	copy(b[510:], []byte{0x55, 0xaa})
	return b
}

// infoBytes is the FSInfo sector: how many clusters are free, and where to look
// for one.
func infoBytes(free, next uint32) []byte {
	b := make([]byte, sectorSize)
	le := binary.LittleEndian
	le.PutUint32(b[0:], 0x41615252)
	le.PutUint32(b[484:], 0x61417272)
	le.PutUint32(b[488:], free)
	le.PutUint32(b[492:], next)
	le.PutUint32(b[508:], 0xaa550000)
	return b
}

const labelChars = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_ "

func checkLabel(l string) error {
	if len(l) > 11 || strings.Trim(l, labelChars) != "" || strings.HasPrefix(l, " ") {
		return fmt.Errorf("label %q: want at most 11 of A-Z, 0-9, -, _ and space", l)
	}
	return nil
}

func labelBytes(l, none string) string {
	if l == "" {
		l = none
	}
	return fmt.Sprintf("%-11s", l)
}
