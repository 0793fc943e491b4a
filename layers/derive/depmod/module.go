package depmod

import (
	"bufio"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/kscratch/kscratch/layers/xz"
)

// maxModule bounds a module's size after decompression. The largest of Debian
// are below 10 MiB.
const maxModule = 256 << 20

// maxDict bounds the memory of an xz decoder in bytes.
const maxDict = 64 << 20

func read(m Module) (*mod, error) {
	b, err := readModule(m)
	if err != nil {
		return nil, fmt.Errorf("reading module %s: %w", m.Path, err)
	}
	out, err := parse(b)
	if err != nil {
		return nil, fmt.Errorf("reading module %s: %w", m.Path, err)
	}
	out.path, out.name = m.Path, Name(m.Path)
	return out, nil
}

func readModule(m Module) (b []byte, err error) {
	f, err := m.Open()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	in := bufio.NewReaderSize(f, 64<<10) // xz reads byte by byte
	var r io.Reader = in
	switch {
	case strings.HasSuffix(m.Path, ".xz"):
		r = xz.NewReader(in, maxDict)
	case strings.HasSuffix(m.Path, ".zst"):
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxModule))
		if err != nil {
			return nil, err
		}
		defer z.Close()
		r = z
	}
	b, err = io.ReadAll(io.LimitReader(r, maxModule+1))
	if len(b) > maxModule {
		return nil, fmt.Errorf("larger than %d bytes", maxModule)
	}
	return b, err
}

// parse reads what depmod wants to know of a module: .modinfo, the symbols it
// exports and those it needs.
func parse(b []byte) (*mod, error) {
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	m := &mod{}
	if s := f.Section(".modinfo"); s != nil {
		data, err := s.Data()
		if err != nil {
			return nil, fmt.Errorf("section .modinfo: %w", err)
		}
		m.info = parseModinfo(data)
	}
	syms, err := f.Symbols()
	if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
		return nil, err
	}
	m.symbols(syms)
	return m, nil
}

func parseModinfo(data []byte) []field {
	var out []field
	for _, e := range bytes.Split(data, []byte{0}) {
		if k, v, ok := strings.Cut(string(e), "="); ok {
			out = append(out, field{k, v})
		}
	}
	return out
}

// symbols takes the exported symbols from the names of their checksums
// (__crc_x), or of their table entries (__ksymtab_x) in a kernel without
// symbol versions, and the needed ones from the undefined symbols.
func (m *mod) symbols(syms []elf.Symbol) {
	var versioned, plain []string
	for _, s := range syms {
		if n, ok := strings.CutPrefix(s.Name, "__crc_"); ok {
			versioned = append(versioned, n)
		}
		if n, ok := strings.CutPrefix(s.Name, "__ksymtab_"); ok {
			plain = append(plain, n)
		}
		bind := elf.ST_BIND(s.Info)
		if s.Section == elf.SHN_UNDEF && s.Name != "" && (bind == elf.STB_GLOBAL || bind == elf.STB_WEAK) {
			m.imports = append(m.imports, s.Name)
		}
	}
	if m.exports = versioned; len(versioned) == 0 {
		m.exports = plain
	}
}
