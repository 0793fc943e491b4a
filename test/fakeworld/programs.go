package fakeworld

import (
	"debug/elf"
	"encoding/binary"
)

var le = binary.LittleEndian

// Program returns a static program for x86-64 Linux that ends with success at
// once. The text makes it differ from others.
func Program(text string) []byte { return program(text, elf.EM_X86_64) }

// program returns an ELF executable of one segment, for any machine that has
// 64 bits and the low byte first; its code is x86-64's.
func program(text string, machine elf.Machine) []byte {
	const base, header, segment = 0x400000, 64, 56
	code := []byte("\xb8\x3c\x00\x00\x00\x31\xff\x0f\x05") // exit(0)
	body := append(code, text...)
	b := append([]byte(elf.ELFMAG), byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT))
	b = append(b, make([]byte, elf.EI_NIDENT-len(b))...)
	b = le.AppendUint16(b, uint16(elf.ET_EXEC))
	b = le.AppendUint16(b, uint16(machine))
	b = le.AppendUint32(b, uint32(elf.EV_CURRENT))
	b = le.AppendUint64(b, base+header+segment) // entry
	b = le.AppendUint64(b, header)              // program headers
	b = le.AppendUint64(b, 0)                   // no section headers
	b = le.AppendUint32(b, 0)
	for _, n := range []uint16{header, segment, 1, 0, 0, 0} {
		b = le.AppendUint16(b, n)
	}
	size := uint64(header + segment + len(body))
	b = le.AppendUint32(b, uint32(elf.PT_LOAD))
	b = le.AppendUint32(b, uint32(elf.PF_R|elf.PF_X))
	for _, n := range []uint64{0, base, base, size, size, 0x1000} {
		b = le.AppendUint64(b, n)
	}
	return append(b, body...)
}

// module returns a kernel module: an ELF object with nothing but .modinfo.
func module(info string) []byte {
	const header, entry = 64, 64
	names := "\x00.modinfo\x00.shstrtab\x00"
	body := info + names
	b := append([]byte(elf.ELFMAG), byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT))
	b = append(b, make([]byte, elf.EI_NIDENT-len(b))...)
	b = le.AppendUint16(b, uint16(elf.ET_REL))
	b = le.AppendUint16(b, uint16(elf.EM_X86_64))
	b = le.AppendUint32(b, uint32(elf.EV_CURRENT))
	b = le.AppendUint64(b, 0)
	b = le.AppendUint64(b, 0)
	b = le.AppendUint64(b, uint64(header+len(body)))
	b = le.AppendUint32(b, 0)
	for _, n := range []uint16{header, 0, 0, entry, 3, 2} {
		b = le.AppendUint16(b, n)
	}
	b = append(b, body...)
	b = append(b, make([]byte, entry)...)
	b = section(b, 1, elf.SHT_PROGBITS, header, len(info))
	return section(b, 10, elf.SHT_STRTAB, header+len(info), len(names))
}

func section(b []byte, name uint32, kind elf.SectionType, offset, size int) []byte {
	b = le.AppendUint32(b, name)
	b = le.AppendUint32(b, uint32(kind))
	for _, n := range []uint64{0, 0, uint64(offset), uint64(size), 0, 1, 0} {
		b = le.AppendUint64(b, n)
	}
	return b
}

// efi returns a program for UEFI on x86-64 that returns at once, with room in
// its headers for the sections that a unified kernel image adds.
func efi() []byte {
	const (
		at      = 64        // of the PE signature
		coff    = at + 4    // its header
		opt     = coff + 20 // optional header, PE32+
		optSize = 112 + 16*8
		table   = opt + optSize // of sections
		headers = 0x400
	)
	b := make([]byte, headers+0x200)
	copy(b, "MZ")
	le.PutUint32(b[60:], at)
	copy(b[at:], "PE\x00\x00")
	le.PutUint16(b[coff:], 0x8664)
	le.PutUint16(b[coff+2:], 1) // sections
	le.PutUint16(b[coff+16:], optSize)
	le.PutUint16(b[coff+18:], 0x22e)
	le.PutUint16(b[opt:], 0x20b)
	le.PutUint32(b[opt+4:], 0x200)        // size of code
	le.PutUint32(b[opt+16:], 0x1000)      // entry
	le.PutUint64(b[opt+24:], 0x140000000) // base
	le.PutUint32(b[opt+32:], 0x1000)      // alignment in memory
	le.PutUint32(b[opt+36:], 0x200)       // alignment in the file
	le.PutUint32(b[opt+56:], 0x2000)      // size in memory
	le.PutUint32(b[opt+60:], headers)
	le.PutUint16(b[opt+68:], 10) // EFI application
	le.PutUint32(b[opt+108:], 16)
	copy(b[table:], ".text")
	le.PutUint32(b[table+8:], 3)
	le.PutUint32(b[table+12:], 0x1000)
	le.PutUint32(b[table+16:], 0x200)
	le.PutUint32(b[table+20:], headers)
	le.PutUint32(b[table+36:], 0x60000020) // code, executable, readable
	copy(b[headers:], "\x31\xc0\xc3")
	return b
}
