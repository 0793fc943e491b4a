package uki

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// Sizes and offsets of the PE format; those in the optional header are of PE32+.
const (
	coffSize    = 24 // with the signature
	sectionSize = 40

	optMagic       = 0
	optCodeSize    = 4
	optDataSize    = 8
	optSectionAlig = 32
	optFileAlign   = 36
	optImageSize   = 56
	optHeaderSize  = 60
	optChecksum    = 64
	optDirCount    = 108
	optSecurityDir = 112 + 4*8
	optMin         = 112 + 5*8

	magicPE32Plus = 0x20b

	flagCode = 0x00000020
	flagData = 0x00000040
	flagExec = 0x20000000
	flagRead = 0x40000000

	maxHeader   = 1 << 16
	maxSections = 96 // as many as Windows' loader, and EDK2, take
)

var le = binary.LittleEndian

// placedSection is a section with its place in the file and in memory.
type placedSection struct {
	Section
	offset  int64 // in the file
	address int64 // in memory
	raw     int64 // bytes in the file
	virtual int64 // bytes in memory
}

// header is the part of a PE file before its sections.
type header struct {
	b        []byte // of the file up to its end or 64 KiB
	opt      int    // where the optional header starts
	table    int    // where the section table starts
	sections []placedSection
}

func (h header) u32(at int) int64 { return int64(le.Uint32(h.b[h.opt+at:])) }

// parse reads the headers of a PE32+ file of size bytes, which starts with b.
func parse(b []byte, size int64) (header, error) {
	if len(b) < 64 || b[0] != 'M' || b[1] != 'Z' {
		return header{}, errors.New("not an EFI program: no MZ header")
	}
	pe := int64(le.Uint32(b[60:]))
	if pe+coffSize+optMin > int64(len(b)) || string(b[pe:pe+4]) != "PE\x00\x00" {
		return header{}, errors.New("not an EFI program: no PE header")
	}
	optSize := int(le.Uint16(b[pe+20:]))
	h := header{b: b, opt: int(pe) + coffSize}
	h.table = h.opt + optSize
	n := int(le.Uint16(b[pe+6:]))
	switch {
	case le.Uint16(b[h.opt+optMagic:]) != magicPE32Plus:
		return header{}, errors.New("not a 64-bit EFI program")
	case optSize < optMin || h.u32(optDirCount) < 5:
		return header{}, errors.New("optional header is too short")
	case n == 0 || n > maxSections || h.table+n*sectionSize > len(b):
		return header{}, fmt.Errorf("%d sections are not supported", n)
	}
	for i := range n {
		s := parseSection(b[h.table+i*sectionSize:])
		if s.offset+s.raw > size {
			return header{}, fmt.Errorf("section %q lies outside of the file", s.Name)
		}
		h.sections = append(h.sections, s)
	}
	return h, nil
}

func parseSection(b []byte) placedSection {
	s := placedSection{
		virtual: int64(le.Uint32(b[8:])), address: int64(le.Uint32(b[12:])),
		raw: int64(le.Uint32(b[16:])), offset: int64(le.Uint32(b[20:])),
	}
	s.Name = string(bytes.TrimRight(b[:8], "\x00"))
	s.Size = min(s.virtual, s.raw) // what is beyond is alignment, or zeros in memory
	if s.virtual == 0 {
		s.Size = s.raw
	}
	return s
}

// image is a planned file.
type image struct {
	head  []byte // the stub with its new headers
	added []placedSection
	size  int64
}

// plan places the sections of i behind those of the stub.
func plan(i Image) (image, error) {
	stub := bytes.Clone(i.Stub)
	h, err := parse(stub, int64(len(stub)))
	if err != nil {
		return image{}, fmt.Errorf("stub: %w", err)
	}
	if err := h.checkStub(); err != nil {
		return image{}, fmt.Errorf("stub: %w", err)
	}
	want, err := i.sections()
	if err != nil {
		return image{}, err
	}
	l, err := h.place(want)
	if err != nil {
		return image{}, err
	}
	h.update(l)
	return l, nil
}

func (h header) checkStub() error {
	fa, sa := h.u32(optFileAlign), h.u32(optSectionAlig)
	switch {
	case h.u32(optSecurityDir) != 0 || h.u32(optSecurityDir+4) != 0:
		return errors.New("is signed; adding sections would break the signature")
	case fa < 512 || fa > 1<<16 || fa&(fa-1) != 0 || sa < fa || sa > 1<<20 || sa&(sa-1) != 0:
		return fmt.Errorf("alignments of %d and %d bytes are not supported", fa, sa)
	}
	for _, s := range h.sections {
		if slices.Contains([]string{".linux", ".initrd", ".cmdline", ".osrel"}, s.Name) {
			return fmt.Errorf("has a section %s: it is a UKI already", s.Name)
		}
	}
	return nil
}

// place gives each section its place, and checks that the section table has
// room for them before the first section's content.
func (h header) place(want []Section) (image, error) {
	room := min(h.u32(optHeaderSize), int64(len(h.b)))
	address := int64(0)
	names := map[string]bool{}
	for _, s := range h.sections {
		if s.raw > 0 {
			room = min(room, s.offset)
		}
		address = max(address, s.address+max(s.virtual, s.raw))
		names[s.Name] = true
	}
	if end := int64(h.table + (len(h.sections)+len(want))*sectionSize); end > room || len(h.sections)+len(want) > maxSections {
		return image{}, fmt.Errorf("stub: its section table has no room for %d more sections", len(want))
	}
	l := image{head: h.b, size: int64(len(h.b))}
	for _, s := range want {
		if len(s.Name) > 8 || !strings.HasPrefix(s.Name, ".") || s.Size <= 0 {
			return image{}, fmt.Errorf("section %q of %d bytes: want a name of at most 8 bytes with a dot, and content", s.Name, s.Size)
		}
		if names[s.Name] {
			return image{}, fmt.Errorf("section %s is there twice", s.Name)
		}
		names[s.Name] = true
		p := placedSection{
			Section: s, virtual: s.Size, raw: roundUp(s.Size, h.u32(optFileAlign)),
			offset: roundUp(l.size, h.u32(optFileAlign)), address: roundUp(address, h.u32(optSectionAlig)),
		}
		l.size, address = p.offset+p.raw, p.address+p.virtual
		if l.size > math.MaxUint32 || roundUp(address, h.u32(optSectionAlig)) > math.MaxUint32 {
			return image{}, fmt.Errorf("section %s: image would have more than 4 GiB", s.Name)
		}
		l.added = append(l.added, p)
	}
	return l, nil
}

// update writes the new sections and sums into the headers.
func (h header) update(l image) {
	put := func(at int, v int64) { le.PutUint32(h.b[h.opt+at:], uint32(v)) }
	code, data := h.u32(optCodeSize), h.u32(optDataSize)
	end := int64(0)
	for i, s := range l.added {
		b := h.b[h.table+(len(h.sections)+i)*sectionSize:][:sectionSize]
		clear(b)
		copy(b, s.Name)
		le.PutUint32(b[8:], uint32(s.virtual))
		le.PutUint32(b[12:], uint32(s.address))
		le.PutUint32(b[16:], uint32(s.raw))
		le.PutUint32(b[20:], uint32(s.offset))
		flags := uint32(flagData | flagRead)
		if s.Name == ".linux" { // kernels of old were run where they lie
			flags = flagCode | flagExec | flagRead
			code += s.raw
		} else {
			data += s.raw
		}
		le.PutUint32(b[36:], flags)
		end = s.address + s.virtual
	}
	put(optCodeSize, min(code, math.MaxUint32))
	put(optDataSize, min(data, math.MaxUint32))
	put(optImageSize, roundUp(end, h.u32(optSectionAlig)))
	put(optChecksum, 0)
	le.PutUint16(h.b[h.opt-coffSize+6:], uint16(len(h.sections)+len(l.added)))
}

// Read returns the sections of an EFI program of size bytes, in the order of
// its section table. Their contents are read from r when they are opened.
func Read(r io.ReaderAt, size int64) ([]Section, error) {
	b := make([]byte, min(size, maxHeader))
	if n, err := r.ReadAt(b, 0); n < len(b) {
		return nil, fmt.Errorf("reading UKI: %w", err)
	}
	h, err := parse(b, size)
	if err != nil {
		return nil, fmt.Errorf("reading UKI: %w", err)
	}
	var out []Section
	for _, s := range h.sections {
		s.Open = func() (io.ReadCloser, error) {
			return io.NopCloser(io.NewSectionReader(r, s.offset, s.Size)), nil
		}
		out = append(out, s.Section)
	}
	return out, nil
}

// Find returns the first section with a name.
func Find(sections []Section, name string) (Section, bool) {
	i := slices.IndexFunc(sections, func(s Section) bool { return s.Name == name })
	if i < 0 {
		return Section{}, false
	}
	return sections[i], true
}

// maxText bounds sections that are read into memory.
const maxText = 1 << 20

// ReadAll returns the content of a small section such as .cmdline, of at most
// 1 MiB.
func (s Section) ReadAll() ([]byte, error) {
	if s.Size > maxText {
		return nil, fmt.Errorf("reading section %s: %d bytes are more than %d", s.Name, s.Size, maxText)
	}
	r, err := s.Open()
	if err != nil {
		return nil, fmt.Errorf("reading section %s: %w", s.Name, err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("reading section %s: %w", s.Name, err)
	}
	return b, nil
}
