package fat

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kscratch/kscratch/layers"
)

var testOptions = Options{VolumeID: 0x1234abcd, Label: "ESP", Time: time.Date(2026, 1, 2, 3, 4, 6, 0, time.UTC), Hidden: 2048}

const testSize = 64 << 20

func tree(t testing.TB, files ...layers.File) *layers.Tree {
	t.Helper()
	tr, err := layers.Merge(layers.Of("test", "", files...))
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func regular(p string, n int) layers.File {
	return layers.Regular(p, 0o644, "o", bytes.Repeat([]byte(p), n/len(p)+1)[:n])
}

func sample(t testing.TB) *layers.Tree {
	files := []layers.File{
		regular("EFI/BOOT/BOOTX64.EFI", 100001),
		regular("EFI/Linux/kscratch-master_1+3.efi", 5<<20),
		regular("EFI/systemd/systemd-bootx64.efi", 512),
		regular("loader/loader.conf", 40),
		regular("loader/empty", 0),
		regular("Grüße €.txt", 3),
		regular("😀", 3),
		layers.Dir("void", 0o755, "o"),
		layers.Regular("thirteen chars"[:13], 0o644, "o", nil),
		layers.Regular(strings.Repeat("n", 255), 0o644, "o", nil),
	}
	for i := range 40 { // short names must differ, the directory has several clusters
		files = append(files, regular(fmt.Sprintf("many/a long name with number %d.cred", i), i))
	}
	return tree(t, files...)
}

// image writes t to a sparse file.
func image(t testing.TB, tr *layers.Tree, size int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if err := Write(context.Background(), tr, f, size, testOptions); err != nil {
		t.Fatal(err)
	}
	return f
}

func listing(t testing.TB, tr *layers.Tree) []string {
	t.Helper()
	var out []string
	for f := range tr.Files() {
		line := fmt.Sprintf("/%s %s", f.Path, f.Mode.Type())
		if f.Open != nil {
			b, err := f.Read()
			if err != nil {
				t.Fatal(err)
			}
			line += fmt.Sprintf(" %d %x", f.Size, sha256.Sum256(b))
		}
		out = append(out, line)
	}
	return out
}

func TestRoundTrip(t *testing.T) {
	for _, size := range []int64{MinSize, testSize, 512 << 20} {
		tr := sample(t)
		f, err := Open(image(t, tr, size))
		if err != nil {
			t.Fatal(err)
		}
		if f.VolumeID != testOptions.VolumeID || f.Label != "ESP" || f.Size != size {
			t.Errorf("file system says %x %q %d", f.VolumeID, f.Label, f.Size)
		}
		got, err := f.Tree("image")
		if err != nil {
			t.Fatal(err)
		}
		if want, have := listing(t, tr), listing(t, got); !slices.Equal(want, have) {
			t.Errorf("%d bytes: read back\n%s\nwrote\n%s", size, strings.Join(have, "\n"), strings.Join(want, "\n"))
		}
		for f := range got.Files() {
			if f.Path != "." && !f.ModTime.Equal(testOptions.Time) {
				t.Errorf("/%s has time %s", f.Path, f.ModTime)
			}
		}
	}
}

func TestSameBytes(t *testing.T) {
	sum := func() (s [32]byte) {
		h := sha256.New()
		f := image(t, sample(t), testSize)
		if _, err := io.Copy(h, io.NewSectionReader(f, 0, testSize)); err != nil {
			t.Fatal(err)
		}
		return [32]byte(h.Sum(nil))
	}
	if first, second := sum(), sum(); first != second {
		t.Error("two file systems of one tree differ")
	}
}

func TestErrors(t *testing.T) {
	lie := regular("a", 10)
	lie.Size = 11
	more := regular("a", 10)
	more.Size = 9
	for _, tc := range []struct {
		name  string
		size  int64
		label string
		files []layers.File
		want  string
	}{
		{"short file", testSize, "", []layers.File{lie}, "copying /a of o: content ends after 10 of 11 bytes"},
		{"long file", testSize, "", []layers.File{more}, "copying /a of o: content goes on after 9 bytes"},
		{"link", testSize, "", []layers.File{layers.Symlink("a", "b", "o")}, "file /a of o: FAT cannot store a file of type L"},
		{"case", testSize, "", []layers.File{regular("A.txt", 0), regular("a.TXT", 0)}, `file /a.TXT of o: FAT does not tell its name from "A.txt" of o`},
		{"colon", testSize, "", []layers.File{regular("a:b", 0)}, `name "a:b": has a character that FAT cannot store`},
		{"dot", testSize, "", []layers.File{regular("a.", 0)}, `name "a.": FAT cannot store`},
		{"long name", testSize, "", []layers.File{regular(strings.Repeat("n", 256), 0)}, "name of more than 255 characters"},
		{"small", 1 << 20, "", nil, "size of 1048576 bytes: want"},
		{"full", MinSize, "", []layers.File{regular("a", 36<<20)}, "files need 37749248 bytes, there is room for"},
		{"label", testSize, "esp", nil, `label "esp"`},
	} {
		f := &layers.Tree{}
		if len(tc.files) > 0 {
			f = tree(t, tc.files...)
		}
		out, err := os.Create(filepath.Join(t.TempDir(), "image"))
		if err != nil {
			t.Fatal(err)
		}
		err = Write(context.Background(), f, out, tc.size, Options{Label: tc.label})
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want %q", tc.name, err, tc.want)
		}
		out.Close()
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Write(ctx, sample(t), image(t, sample(t), testSize), testSize, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestShortNames(t *testing.T) {
	root, err := plan(tree(t, regular("BOOT.EFI", 0), regular("loader.conf", 0), regular("loader", 0), regular("archive.tar.gz", 0),
		regular("archive.tar.g", 0), regular(".profile", 0), regular("Ünî.x", 0)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range root.children {
		got = append(got, fmt.Sprintf("%s %s %d", c.name, shortString(c.short), len(longEntries(c.name, c.short))))
	}
	want := []string{
		".profile PROFIL~1 1", "BOOT.EFI BOOT.EFI 0", "archive.tar.g ARCHIV~1.G 1", "archive.tar.gz ARCHIV~1.GZ 2",
		"loader LOADER 1", "loader.conf LOADER~1.CON 1", "Ünî.x _N_~1.X 1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// sparse reads as zeros beyond b, so that the fuzzer need not carry 34 MiB.
type sparse []byte

func (s sparse) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off > MinSize {
		return 0, io.EOF
	}
	clear(p)
	if off < int64(len(s)) {
		copy(p, s[off:])
	}
	return len(p), nil
}

func FuzzOpen(f *testing.F) {
	// A small layout by hand: 32 reserved sectors, 2 tables of 1 sector.
	b := make([]byte, 40*sectorSize)
	copy(b, bootSector(geometry{sectors: MinSize / sectorSize, perCluster: 1, tableSize: 1}, testOptions))
	for c := 2; c < 6; c++ {
		copy(b[reserved*sectorSize+4*c:], []byte{0xff, 0xff, 0xff, 0x0f})
	}
	root, err := plan(tree(f, regular("d/a long name.txt", 600), regular("B", 1)), testOptions)
	if err != nil {
		f.Fatal(err)
	}
	g := geometry{perCluster: 1, clusterSize: sectorSize, dataSector: 34, clusters: 100}
	if _, err := allocate(root, g); err != nil {
		f.Fatal(err)
	}
	root.each(func(n *node) {
		if n.dir {
			n.encode(b[g.offset(n.cluster):])
		}
	})
	f.Add(b)
	f.Add(b[:sectorSize])
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := Open(sparse(b))
		if err != nil {
			return
		}
		tr, err := v.Tree("fuzz")
		if err != nil {
			return
		}
		for f := range tr.Files() {
			if f.Open == nil {
				continue
			}
			if r, err := f.Open(); err == nil {
				io.Copy(io.Discard, io.LimitReader(r, 1<<20))
				r.Close()
			}
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	const n = 200 << 20
	zero := layers.Regular("EFI/Linux/big.efi", 0o644, "o", bytes.Repeat([]byte{1}, n))
	tr := tree(b, zero)
	f := image(b, tr, 512<<20)
	b.SetBytes(n)
	for b.Loop() {
		if err := Write(context.Background(), tr, f, 512<<20, testOptions); err != nil {
			b.Fatal(err)
		}
	}
}
