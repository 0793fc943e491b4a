package builder_test

import (
	"bytes"
	"cmp"
	"debug/pe"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/rogpeppe/go-internal/diff"

	"github.com/kscratch/kscratch/builder"
	"github.com/kscratch/kscratch/builder/disk"
	"github.com/kscratch/kscratch/builder/erofs"
	"github.com/kscratch/kscratch/builder/record"
	"github.com/kscratch/kscratch/builder/verity"
	"github.com/kscratch/kscratch/layers"
)

// TestGolden lists everything that is on the disk of each role, as it is read
// back from it. Each difference shows what a change does to an image.
//
// Lines have the mode, owner and group, size or link, path, and who brings it.
// Sizes of our own programs, digests and versions are left out: they change
// with any line of code.
func TestGolden(t *testing.T) {
	p := newProject(t)
	for _, role := range builder.Roles {
		t.Run(string(role), func(t *testing.T) { checkGolden(t, p, role) })
	}
}

func checkGolden(t *testing.T, p project, role builder.Role) {
	t.Helper()
	img := p.role(t, role)
	d := readDisk(t, p.pack(t, img))
	sameTree(t, img.Root, d.root)
	var out strings.Builder
	for _, part := range d.manifest.Partitions {
		fmt.Fprintf(&out, "partition %s at %d MiB, %d MiB\n", part.Label, part.Offset>>20, part.Size>>20)
	}
	fmt.Fprintf(&out, "\ncommand line\n%s\n", strings.Replace(d.cmdline, d.rootHash, "<root hash>", 1))
	section(&out, "ESP", slices.Collect(d.esp.Files()))
	section(&out, "initrd", slices.Collect(img.Initrd.Files()))
	section(&out, "initrd, of the cluster file", slices.Collect(img.Config.Files()))
	fmt.Fprintf(&out, "\nwritten at the first boot\n")
	for _, c := range d.manifest.Config {
		fmt.Fprintln(&out, strings.TrimSpace(c.Mode+" "+c.Path+" "+c.Note))
	}
	for f := range img.Initrd.Files() {
		if _, ok := d.initrd[f.Path]; !ok && f.Path != "." {
			t.Errorf("/%s of the initrd is not on the disk", f.Path)
		}
	}
	section(&out, "root", slices.Collect(img.Root.Files()))
	golden(t, string(role)+".txt", strings.ReplaceAll(out.String(), img.Version, "<version>"))
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := goldenPath(t, name)
	if *update {
		must(t, os.MkdirAll(filepath.Dir(file), 0o755))
		must(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	must(t, err)
	if got != string(want) {
		t.Errorf("the image has changed; if that is meant, run `go test ./builder -run TestGolden -update` and say why in the commit\n%s",
			diff.Diff("want", want, "got", []byte(got)))
	}
}

var digits = regexp.MustCompile(`\b[0-9a-f]{64}\b|\b[A-Z2-7]{26}\b`)

// section writes a list of files. Names that are digests are left out, and
// must not decide about the order.
func section(out *strings.Builder, title string, files []layers.File) {
	lines := map[string]string{}
	var keys []string
	for _, f := range files {
		p := digits.ReplaceAllString(f.Path, "<digest>")
		key := p + "\x00" + f.Owner + "\x00" + fmt.Sprintf("%08d", f.Size) + "\x00" + f.Path
		lines[key] = fmt.Sprintf("%s %d:%d %6s %s  %s", mode(f), f.UID, f.GID, size(f), p+target(f), f.Owner)
		keys = append(keys, key)
	}
	slices.Sort(keys)
	fmt.Fprintf(out, "\n%s\n", title)
	for _, k := range keys {
		out.WriteString(strings.TrimRight(lines[k], " ") + "\n")
	}
}

func mode(f layers.File) string {
	m := f.Mode.Perm()
	for bit, at := range map[fs.FileMode]fs.FileMode{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if f.Mode&bit != 0 {
			m |= at
		}
	}
	kind := map[fs.FileMode]string{0: "-", fs.ModeDir: "d", fs.ModeSymlink: "l"}[f.Mode.Type()]
	return fmt.Sprintf("%s%04o", cmp.Or(kind, "?"), m)
}

func size(f layers.File) string {
	switch {
	case !f.Mode.IsRegular():
		return ""
	case path.Base(f.Path) == "kscratch-node", f.Path == record.RootPath, f.Path == record.BuildPath, f.Path == record.LockPath, strings.Contains(f.Owner, "pause"), strings.HasPrefix(f.Path, "EFI/Linux/"), path.Ext(f.Path) == ".ign":
		return "*"
	}
	return strconv.FormatInt(f.Size, 10)
}

func target(f layers.File) string {
	if f.Link == "" {
		return ""
	}
	return " -> " + digits.ReplaceAllString(f.Link, "<digest>")
}

// readBack is what a disk image has, by kscratch's own readers.
type readBack struct {
	rootHash string // in the kernel's command line
	cmdline  string
	root     *layers.Tree
	esp      *layers.Tree
	initrd   map[string]string // what the kernel would unpack: content or link by path
	manifest builder.Manifest
}

// readDisk reads an image that Pack has written. It checks the root against its
// hash, block by block.
func readDisk(t *testing.T, raw string) readBack {
	t.Helper()
	f, err := os.Open(raw)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	st, err := f.Stat()
	must(t, err)
	d, err := disk.Open(f, st.Size())
	must(t, err)
	var out readBack
	b, err := os.ReadFile(strings.TrimSuffix(raw, ".raw") + ".manifest.json")
	must(t, err)
	must(t, json.Unmarshal(b, &out.manifest))

	esp, err := d.ESP()
	must(t, err)
	out.esp, err = esp.Tree("esp")
	must(t, err)
	readUKI(t, &out)

	data, tree := d.Reader(d.Find(disk.Root)), d.Reader(d.Find(disk.RootVerity))
	root, err := erofs.Open(data)
	must(t, err)
	out.root, err = root.Tree("root")
	must(t, err)
	if out.rootHash != out.manifest.RootHash {
		t.Errorf("the command line has the root hash %s, the manifest %s", out.rootHash, out.manifest.RootHash)
	}
	must(t, verity.Verify(t.Context(), data, tree, hash(t, out.rootHash)))
	return out
}

func hash(t *testing.T, text string) verity.Hash {
	t.Helper()
	b, err := hex.DecodeString(text)
	must(t, err)
	if len(b) != len(verity.Hash{}) {
		t.Fatalf("root hash %q has %d bytes", text, len(b))
	}
	return verity.Hash(b)
}

// readUKI takes the unified kernel image apart.
func readUKI(t *testing.T, out *readBack) {
	t.Helper()
	found, err := out.esp.Glob("EFI/Linux/*")
	must(t, err)
	if len(found) != 1 {
		t.Fatalf("%d kernels on the ESP, want one", len(found))
	}
	b, err := found[0].Read()
	must(t, err)
	f, err := pe.NewFile(bytes.NewReader(b))
	must(t, err)
	text := func(name string) []byte {
		s := f.Section(name)
		if s == nil {
			t.Fatalf("no section %s", name)
		}
		b, err := s.Data()
		must(t, err)
		return b[:min(len(b), int(s.VirtualSize))]
	}
	out.cmdline = string(bytes.TrimRight(text(".cmdline"), "\x00"))
	_, out.rootHash, _ = strings.Cut(out.cmdline, "roothash=")
	out.initrd = unpack(t, text(".initrd"))
}

// unpack returns the files of an initrd, each archive over the one before it,
// as the kernel does it: Zstandard frames with zeros between them.
func unpack(t *testing.T, b []byte) map[string]string {
	t.Helper()
	r, err := zstd.NewReader(nil)
	must(t, err)
	defer r.Close()
	out := map[string]string{}
	for b = bytes.TrimLeft(b, "\x00"); len(b) > 0; b = bytes.TrimLeft(b, "\x00") {
		n := frameSize(t, b)
		archive, err := r.DecodeAll(b[:n], nil)
		must(t, err)
		unpackCpio(t, out, archive)
		b = b[n:]
	}
	return out
}

// frameSize returns the size of the Zstandard frame that b begins with, RFC
// 8878, section 3.1.1.
func frameSize(t *testing.T, b []byte) int {
	t.Helper()
	var h zstd.Header
	must(t, h.Decode(b))
	if h.Skippable {
		return h.HeaderSize + int(h.SkippableSize)
	}
	for n := h.HeaderSize; n+3 <= len(b); {
		block := int(b[n]) | int(b[n+1])<<8 | int(b[n+2])<<16
		n += 3
		if block>>1&3 == 1 { // one byte, repeated
			n++
		} else {
			n += block >> 3
		}
		if block&1 == 1 && h.HasCheckSum {
			n += 4
		}
		if block&1 == 1 {
			return n
		}
	}
	t.Fatal("a frame of the initrd is cut short")
	return 0
}

// unpackCpio adds the content or link of each member of a newc archive.
func unpackCpio(t *testing.T, out map[string]string, b []byte) {
	t.Helper()
	const header = 110
	for len(b) >= header && b[0] != 0 {
		field := func(i int) int {
			n, err := strconv.ParseUint(string(b[6+8*i:14+8*i]), 16, 32)
			must(t, err)
			return int(n)
		}
		pad := func(n int) int { return (n + 3) &^ 3 }
		start := pad(header + field(11))
		name, end := string(b[header:header+field(11)-1]), start+field(6)
		if name != "TRAILER!!!" {
			out[name] = string(b[start:end])
		}
		b = b[min(pad(end), len(b)):]
	}
}

// sameTree checks that what was read back is what was to be written, but for
// who brings it.
func sameTree(t *testing.T, want, got *layers.Tree) {
	t.Helper()
	if want.Len() != got.Len() {
		t.Errorf("read back %d files, want %d", got.Len(), want.Len())
	}
	for w := range want.Files() {
		g, ok := got.Lookup(w.Path)
		if !ok {
			t.Errorf("%s: not there", w.Path)
			continue
		}
		if mode(w) != mode(g) || w.UID != g.UID || w.GID != g.GID || w.Size != g.Size || w.Link != g.Link || !w.ModTime.Equal(g.ModTime) {
			t.Errorf("%s: read back %+v, want %+v", w.Path, g, w)
		}
		if w.Mode.IsRegular() {
			a, err := w.Read()
			must(t, err)
			b, err := g.Read()
			must(t, err)
			if !bytes.Equal(a, b) {
				t.Errorf("%s: the content differs", w.Path)
			}
		}
	}
}

// goldenPath is absolute: tests change the working directory.
func goldenPath(t *testing.T, name string) string {
	t.Helper()
	return filepath.Join(home, "testdata", "golden", name)
}

// home is the directory of the package, where tests start.
var home = func() string {
	d, err := os.Getwd()
	if err != nil {
		panic(err)
	}
	return d
}()
