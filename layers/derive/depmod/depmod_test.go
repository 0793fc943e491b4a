package depmod

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// A ko describes a module as lines "key=value" of .modinfo, and lines
// "exports a b" and "imports c d".
type ko string

// elf returns an ELF64 relocatable object that says what k describes.
func (k ko) elf() []byte {
	var info, strtab, symtab bytes.Buffer
	strtab.WriteByte(0)
	symtab.Write(make([]byte, 24))
	for line := range strings.Lines(string(k)) {
		line = strings.TrimSpace(line)
		w := strings.Fields(line)
		switch {
		case len(w) == 0:
		case w[0] == "exports":
			for _, s := range w[1:] {
				addSymbol(&symtab, &strtab, "__crc_"+s, 0xfff1) // SHN_ABS
			}
		case w[0] == "imports":
			for _, s := range w[1:] {
				addSymbol(&symtab, &strtab, s, 0)
			}
		default:
			info.WriteString(line + "\x00")
		}
	}
	return object([]section{
		{".modinfo", 1, 0, 0, info.Bytes()},
		{".symtab", 2, 3, 24, symtab.Bytes()},
		{".strtab", 3, 0, 0, strtab.Bytes()},
	})
}

func addSymbol(symtab, strtab *bytes.Buffer, name string, shndx uint16) {
	le := binary.LittleEndian
	var b []byte
	b = le.AppendUint32(b, uint32(strtab.Len()))
	b = append(b, 1<<4, 0) // STB_GLOBAL
	b = le.AppendUint16(b, shndx)
	b = le.AppendUint64(b, 0x12345678)
	b = le.AppendUint64(b, 0)
	symtab.Write(b)
	strtab.WriteString(name + "\x00")
}

type section struct {
	name    string
	typ     uint32
	link    uint32
	entsize uint64
	data    []byte
}

func object(secs []section) []byte {
	le := binary.LittleEndian
	names := []byte{0}
	secs = append(secs, section{".shstrtab", 3, 0, 0, nil})
	var at []int
	for _, s := range secs {
		at = append(at, len(names))
		names = append(append(names, s.name...), 0)
	}
	secs[len(secs)-1].data = names
	body := make([]byte, 64)
	heads := make([]byte, 64)
	for i, s := range secs {
		for len(body)%8 != 0 {
			body = append(body, 0)
		}
		heads = le.AppendUint32(heads, uint32(at[i]))
		heads = le.AppendUint32(heads, s.typ)
		for _, n := range []uint64{0, 0, uint64(len(body)), uint64(len(s.data))} {
			heads = le.AppendUint64(heads, n)
		}
		heads = le.AppendUint32(heads, s.link)
		heads = le.AppendUint32(heads, 1)
		heads = le.AppendUint64(heads, 1)
		heads = le.AppendUint64(heads, s.entsize)
		body = append(body, s.data...)
	}
	for len(body)%8 != 0 {
		body = append(body, 0)
	}
	h := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 9)...)
	h = le.AppendUint16(h, 1)  // ET_REL
	h = le.AppendUint16(h, 62) // x86-64
	h = le.AppendUint32(h, 1)
	h = le.AppendUint64(h, 0)
	h = le.AppendUint64(h, 0)
	h = le.AppendUint64(h, uint64(len(body)))
	h = le.AppendUint32(h, 0)
	for _, n := range []uint16{64, 0, 0, 64, uint16(len(secs) + 1), uint16(len(secs))} {
		h = le.AppendUint16(h, n)
	}
	copy(body, h)
	return append(body, heads...)
}

// content returns the module file for a path, compressed as its suffix says.
func (k ko) content(t testing.TB, path string) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	var err error
	switch {
	case strings.HasSuffix(path, ".xz"):
		w, err = xz.NewWriter(&out)
	case strings.HasSuffix(path, ".zst"):
		w, err = zstd.NewWriter(&out)
	default:
		return k.elf()
	}
	if err == nil {
		_, err = w.Write(k.elf())
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func input(t testing.TB, kos map[string]ko, order, builtin, modinfo string) Input {
	in := Input{Order: []byte(order), Builtin: []byte(builtin), BuiltinModinfo: []byte(strings.ReplaceAll(modinfo, "\n", "\x00"))}
	for p, k := range kos {
		b := k.content(t, p)
		in.Modules = append(in.Modules, Module{p, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }})
	}
	return in
}

// sample is a small kernel; "order" lists c before a, and d not at all.
var sample = map[string]ko{
	"kernel/a.ko.xz":        "alias=pci:v00008086d*sv*\nalias=net-pf-17\nexports a_one a_two\nimports c_init printk\nsoftdep=pre: d\nname=a",
	"kernel/fs/b-b.ko":      "alias=fs-b\nalias=devname:bctl\nalias=char-major-10-234\nimports a_one c_init d_x",
	"kernel/lib/c.ko.zst":   "alias=pci:v00008086d*sv*\nexports c_init\nweakdep=d",
	"kernel/drivers/d.ko":   "alias=bad[bracket\nalias=usb:v[0-9]-x\nexports d_x",
	"kernel/drivers/lo.ko":  "alias=devname:loop-control\nalias=block-major-7-*\nalias=block-major-7-3\n",
	"kernel/drivers/non.ko": "license=GPL",
}

const (
	sampleOrder   = "kernel/lib/c.ko\nkernel/a.ko\nkernel/fs/b-b.ko\nkernel/gone.ko\nkernel/drivers/lo.ko\n"
	sampleBuiltin = "kernel/crypto/aes-generic.ko\nkernel/fs/fuse.ko\n"
	sampleModinfo = "aes_generic.license=GPL\naes_generic.alias=crypto-aes\nfuse.alias=fs-fuse\nfuse.alias=devname:fuse\npart.alias=not-listed\n"
)

func TestBuild(t *testing.T) {
	files, err := Build(t.Context(), input(t, sample, sampleOrder, sampleBuiltin, sampleModinfo))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"modules.dep": `kernel/lib/c.ko.zst:
kernel/a.ko.xz: kernel/lib/c.ko.zst
kernel/fs/b-b.ko: kernel/drivers/d.ko kernel/a.ko.xz kernel/lib/c.ko.zst
kernel/drivers/lo.ko:
kernel/drivers/d.ko:
kernel/drivers/non.ko:
`,
		"modules.alias": `# Aliases extracted from modules themselves.
alias pci:v00008086d*sv* c
alias pci:v00008086d*sv* a
alias net-pf-17 a
alias fs-b b_b
alias devname:bctl b_b
alias char-major-10-234 b_b
alias devname:loop-control lo
alias block-major-7-* lo
alias block-major-7-3 lo
alias bad[bracket d
alias usb:v[0-9]-x d
`,
		"modules.softdep": "# Soft dependencies extracted from modules themselves.\nsoftdep a pre: d\n",
		"modules.weakdep": "# Weak dependencies extracted from modules themselves.\nweakdep c d\n",
		"modules.devname": "# Device nodes to trigger on-demand module loading.\nb_b bctl c10:234\nlo loop-control b7:3\n",
		"modules.symbols": `# Aliases for symbols, used by symbol_request().
alias symbol:a_one a
alias symbol:a_two a
alias symbol:c_init c
alias symbol:d_x d
`,
	} {
		if got := string(files[name]); got != want {
			t.Errorf("%s:\n%s\nwant:\n%s", name, got, want)
		}
	}
	for name, want := range map[string]string{
		"modules.dep.bin": `a 1 kernel/a.ko.xz: kernel/lib/c.ko.zst
b_b 2 kernel/fs/b-b.ko: kernel/drivers/d.ko kernel/a.ko.xz kernel/lib/c.ko.zst
c 0 kernel/lib/c.ko.zst:
d 4 kernel/drivers/d.ko:
lo 3 kernel/drivers/lo.ko:
non 5 kernel/drivers/non.ko:
`,
		"modules.alias.bin": `block_major_7_* 3 lo
block_major_7_3 3 lo
char_major_10_234 2 b_b
devname:bctl 2 b_b
devname:loop_control 3 lo
fs_b 2 b_b
net_pf_17 1 a
pci:v00008086d*sv* 0 c
pci:v00008086d*sv* 1 a
usb:v[0-9]_x 4 d
`,
		"modules.symbols.bin":       "symbol:a_one 1 a\nsymbol:a_two 1 a\nsymbol:c_init 0 c\nsymbol:d_x 4 d\n",
		"modules.builtin.bin":       "aes_generic 0 \nfuse 0 \n",
		"modules.builtin.alias.bin": "crypto_aes 0 aes_generic\ndevname:fuse 0 fuse\nfs_fuse 0 fuse\nnot_listed 0 part\n",
	} {
		if got := listIndex(t, files[name]); got != want {
			t.Errorf("%s:\n%s\nwant:\n%s", name, got, want)
		}
	}
	if len(files) != 11 {
		t.Errorf("%d files: %v", len(files), slices.Sorted(maps.Keys(files)))
	}
}

func listIndex(t *testing.T, b []byte) string {
	t.Helper()
	entries, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, e := range entries {
		out.WriteString(strings.Join([]string{e.Key, string('0' + rune(e.Priority)), e.Value}, " ") + "\n")
	}
	return out.String()
}

func TestBuildIsDeterministic(t *testing.T) {
	a, err := Build(t.Context(), input(t, sample, sampleOrder, sampleBuiltin, sampleModinfo))
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		b, err := Build(t.Context(), input(t, sample, sampleOrder, sampleBuiltin, sampleModinfo))
		if err != nil || !maps.EqualFunc(a, b, bytes.Equal) {
			t.Fatalf("two builds differ: %v", err)
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, modinfo, want string
		kos                 map[string]ko
	}{
		{"cycle", "", "cycle: x y", map[string]ko{"kernel/x.ko": "exports a\nimports b", "kernel/y.ko": "exports b\nimports a", "kernel/z.ko": "imports a"}},
		{"one name twice", "", "have one name", map[string]ko{"kernel/x-x.ko": "", "kernel/x_x.ko": ""}},
		{"wide alias", "", "7-bit", map[string]ko{"kernel/x.ko": "alias=é"}},
		{"modinfo", "no dot\n", "modules.builtin.modinfo", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Build(t.Context(), input(t, tt.kos, "", "", tt.modinfo))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
		})
	}
}

func TestBuildRefusesTornModules(t *testing.T) {
	for path, b := range map[string][]byte{
		"kernel/x.ko":     sample["kernel/a.ko.xz"].elf()[:80],
		"kernel/x.ko.xz":  sample["kernel/a.ko.xz"].content(t, "x.ko.xz")[:40],
		"kernel/x.ko.zst": []byte("no zstd"),
	} {
		in := Input{Modules: []Module{{path, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }}}}
		if _, err := Build(t.Context(), in); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error %v, want one that names it", path, err)
		}
	}
}

func TestBuildStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Build(ctx, input(t, sample, "", "", "")); err != context.Canceled {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
}

func FuzzParse(f *testing.F) {
	for _, k := range sample {
		f.Add(k.elf())
	}
	f.Add([]byte("\x7fELF\x02\x01\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := parse(b); err == nil {
			m.path, m.name = "kernel/x.ko", "x"
			_, _ = render([]*mod{m}, resolve([]*mod{m}), nil)
		}
	})
}

func FuzzBuiltin(f *testing.F) {
	f.Add(sampleBuiltin, strings.ReplaceAll(sampleModinfo, "\n", "\x00"))
	f.Fuzz(func(t *testing.T, list, modinfo string) {
		if mods, err := parseBuiltin([]byte(list), []byte(modinfo)); err == nil {
			_, _ = render(nil, nil, mods)
		}
	})
}
